"""Every source, every refusal, and what happens between a source and a batch."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from keeprate.data.preprocessing import Normaliser
from keeprate.data.samples import Split
from keeprate.data.sources import input_tensor, load
from keeprate.data.splitting import Data, prepare
from keeprate.engine.loop import epoch_order
from keeprate.errors import InputError
from keeprate.noise.spec import Noise
from keeprate.seeding import derive_seed

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
Image = pytest.importorskip("PIL.Image")


def pixels(n: int = 6, shape: tuple[int, ...] = (7, 5), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


def vectors(n: int = 6, d: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


LABELS = [0, 1, 2, 0, 1, 2]


def write_parquet(
    path: Path,
    images: np.ndarray,
    columns: dict[str, list[Any]],
    names: dict[str, list[str]] | None = None,
    *,
    metadata: bool = True,
) -> Path:
    encoded = [{"bytes": png(image), "path": None} for image in images]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array(encoded, kind), **columns})
    features: dict[str, Any] = {"image": {"_type": "Image"}}
    for column, class_names in (names or {}).items():
        features[column] = {"_type": "ClassLabel", "names": class_names}
    if metadata:
        text = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": text})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=4)  # more than one chunk
    return path


def write_csv(path: Path, header: list[str], rows: list[list[Any]]) -> Path:
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def write_images(folder: Path, classes: dict[str, np.ndarray]) -> Path:
    for name, images in classes.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i, image in enumerate(images):
            (folder / name / f"{i}.png").write_bytes(png(image))
    return folder


def only(source: Any, **said: Any) -> Split:
    loaded = load(source, **said)
    assert list(loaded.splits) == ["train"]
    return loaded.splits["train"]


# Sources ---------------------------------------------------------------------------------------


def test_importing_data_is_light() -> None:
    heavy = {"datasets", "PIL", "sklearn", "pyarrow", "pandas"}
    code = f"import keeprate.data, sys; print({heavy} & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "set()"


def test_digits() -> None:
    split = only("digits")
    assert split.inputs.shape == (1797, 1, 8, 8)
    assert split.inputs.dtype == torch.float32
    assert split.inputs.max() == 16
    assert load("digits").class_names == tuple("0123456789")
    np.testing.assert_array_equal(split.rows, np.arange(1797))


@pytest.mark.parametrize("convert", [np.asarray, torch.tensor, np.ndarray.tolist])
def test_arrays_tensors_and_lists(convert: Callable[[np.ndarray], Any]) -> None:
    x = vectors()
    split = only((convert(x), convert(np.array(LABELS))))
    np.testing.assert_array_equal(split.inputs, x)
    assert split.labels.tolist() == LABELS
    assert split.true_labels is None


def test_arrays_with_true_labels() -> None:
    split = only((vectors(), LABELS, LABELS[::-1]))
    assert split.true_labels is not None
    assert split.true_labels.tolist() == LABELS[::-1]


@pytest.mark.parametrize(
    ("shape", "becomes"),
    [
        ((6,), (6, 1)),
        ((6, 7), (6, 7)),
        ((6, 7, 5), (6, 1, 7, 5)),
        ((6, 7, 5, 3), (6, 3, 7, 5)),
        ((6, 7, 5, 1), (6, 1, 7, 5)),
        ((6, 7, 5, 4), (6, 4, 7, 5)),
        ((6, 3, 8, 8), (6, 3, 8, 8)),
        ((6, 3, 3, 3), (6, 3, 3, 3)),
        ((6, 7, 8, 9), (6, 7, 8, 9)),
    ],
)
def test_layouts(shape: tuple[int, ...], becomes: tuple[int, ...]) -> None:
    array = pixels(6, shape[1:])
    tensor = input_tensor(array)
    assert tensor.shape == becomes
    assert tensor.is_contiguous()
    moved = len(shape) == 4 and shape != becomes
    expected = np.moveaxis(array, -1, 1) if moved else array.reshape(becomes)
    np.testing.assert_array_equal(tensor, expected)


@pytest.mark.parametrize("kind", [np.float64, np.float16, np.int64, np.int8, np.bool_, ">f4"])
def test_all_but_uint8_become_float32(kind: Any) -> None:
    array = np.array([[0, 1], [1, 1]]).astype(kind)
    tensor = input_tensor(array)
    assert tensor.dtype == torch.float32
    np.testing.assert_array_equal(tensor, array.astype(np.float32))


def test_uint8_and_bfloat16_and_read_only_inputs() -> None:
    array = pixels(3)
    array.flags.writeable = False  # PyTorch warns about such arrays, and warnings are errors
    assert input_tensor(array).dtype == torch.uint8
    assert input_tensor(torch.ones(2, 3, dtype=torch.bfloat16)).dtype == torch.float32


class Pairs(torch.utils.data.Dataset[tuple[Any, Any]]):
    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> Any:
        return self.items[i]


def test_map_style_datasets() -> None:
    x = pixels(6, (7, 5, 3))
    split = only(Pairs([(Image.fromarray(a), y) for a, y in zip(x, LABELS, strict=True)]))
    np.testing.assert_array_equal(split.inputs, x.transpose(0, 3, 1, 2))
    assert split.labels.tolist() == LABELS
    tensors = torch.utils.data.TensorDataset(torch.tensor(vectors()), torch.tensor(LABELS))
    np.testing.assert_array_equal(only(tensors).inputs, vectors())
    items = Pairs([(tensors[i][0], tensors[i][1]) for i in range(6)])  # labels as 0-d tensors
    assert only(items).labels.tolist() == LABELS


def test_a_dict_of_splits() -> None:
    loaded = load(
        {
            "train": (vectors(), LABELS),
            "val": Pairs([(vectors(1)[0], 1)]),
            "extra": (vectors(), LABELS),
        }
    )
    assert list(loaded.splits) == ["train", "validation"]
    assert loaded.splits["validation"].labels.tolist() == [1]
    assert loaded.splits["validation"].inputs.shape == (1, 3)


@pytest.mark.parametrize(
    ("labels", "names", "numbers"),
    [
        (["b", "a", "c", "a", "b", "c"], ("a", "b", "c"), [1, 0, 2, 0, 1, 2]),
        ([10, 9, 2, 9, 10, 2], ("2", "9", "10"), [2, 1, 0, 1, 2, 0]),
        ([-1, 1, 1, -1, 1, 1], ("-1", "1"), [0, 1, 1, 0, 1, 1]),
        ([1.0, 0.0, 1.0, 0.0, 1.0, 0.0], ("0", "1"), [1, 0, 1, 0, 1, 0]),
        ([True, False, True, True, True, True], ("False", "True"), [1, 0, 1, 1, 1, 1]),
    ],
)
def test_labels_become_classes(
    labels: list[Any], names: tuple[str, ...], numbers: list[int]
) -> None:
    for given_labels in (labels, np.array(labels), np.array(labels, dtype=object)):
        loaded = load((vectors(), given_labels))
        assert loaded.class_names == names
        assert loaded.splits["train"].labels.tolist() == numbers


def test_classes_are_shared_by_all_splits_and_true_labels() -> None:
    loaded = load({"train": (vectors(2), ["b", "d"], ["c", "d"]), "test": (vectors(2), ["a", "b"])})
    assert loaded.class_names == ("a", "b", "c", "d")
    train = loaded.splits["train"]
    assert train.true_labels is not None
    assert train.labels.tolist() == [1, 3]
    assert train.true_labels.tolist() == [2, 3]
    assert loaded.splits["test"].labels.tolist() == [0, 1]


def test_npz(tmp_path: Path) -> None:
    np.savez(tmp_path / "one.npz", X=vectors(), y=LABELS)
    np.testing.assert_array_equal(only(tmp_path / "one.npz").inputs, vectors())
    np.savez(tmp_path / "named.npz", inputs=vectors(), labels=LABELS)
    assert only(str(tmp_path / "named.npz")).labels.tolist() == LABELS
    np.savez(
        tmp_path / "two.npz", x_train=pixels(), y_train=LABELS, x_test=pixels(2), y_test=[2, 0]
    )
    loaded = load(tmp_path / "two.npz")
    assert loaded.name == "two"
    assert list(loaded.splits) == ["train", "test"]
    assert loaded.splits["test"].labels.tolist() == [2, 0]
    assert loaded.splits["train"].inputs.dtype == torch.uint8


def test_npz_keys_can_be_said(tmp_path: Path) -> None:
    path = tmp_path / "noisy.npz"
    np.savez(
        path,
        a_train=vectors(),
        bad_train=LABELS,
        good_train=LABELS[::-1],
        a_test=vectors(2),
        good_test=[1, 1],
    )
    loaded = load(path, inputs="a", label="bad", true_label="good")
    train, test = loaded.splits["train"], loaded.splits["test"]
    assert train.labels.tolist() == LABELS
    assert train.true_labels is not None
    assert train.true_labels.tolist() == LABELS[::-1]
    assert test.labels.tolist() == [1, 1]


def test_csv_with_string_labels(tmp_path: Path) -> None:
    path = write_csv(
        tmp_path / "t.csv", ["a", "Class", "b"], [[1, "no", 0.5], [2, "yes", -1], [3, "no", 7]]
    )
    loaded = load(path)
    assert loaded.name == "t"
    assert loaded.class_names == ("no", "yes")
    split = loaded.splits["train"]
    assert split.inputs.tolist() == [[1, 0.5], [2, -1], [3, 7]]
    assert split.labels.tolist() == [0, 1, 0]


def test_csv_columns_can_be_said(tmp_path: Path) -> None:
    rows = [[1, 2, 3, 0, "a"], [4, 5, 6, 1, "b"], [7, 8, 9, 1, "a"]]
    path = write_csv(tmp_path / "t.csv", ["p", "q", "r", "given", "what"], rows)
    split = only(path, inputs=["r", "p"], label="given")
    assert split.inputs.tolist() == [[3, 1], [6, 4], [9, 7]]
    assert split.labels.tolist() == [0, 1, 1]
    assert only(path, inputs="q", label="what").inputs.tolist() == [[2], [5], [8]]


def test_a_column_called_true_label_is_no_input(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", ["p", "label", "true_label"], [[1, 0, 1], [2, 1, 1]])
    split = only(path)
    assert split.inputs.tolist() == [[1], [2]]
    assert split.true_labels is not None
    assert split.true_labels.tolist() == [1, 1]


def test_a_folder_of_csv_splits(tmp_path: Path) -> None:
    write_csv(tmp_path / "train.csv", ["p", "y"], [[1, "a"], [2, "b"]])
    write_csv(tmp_path / "test.csv", ["y", "p"], [["b", 3]])
    loaded = load(tmp_path)
    assert loaded.splits["test"].inputs.tolist() == [[3]]
    assert loaded.splits["test"].labels.tolist() == [1]


@pytest.mark.parametrize("metadata", [True, False])
@pytest.mark.parametrize("shape", [(7, 5), (7, 5, 3), (7, 5, 4)])
def test_parquet_images(tmp_path: Path, shape: tuple[int, ...], metadata: bool) -> None:
    x = pixels(6, shape)
    path = write_parquet(tmp_path / "p.parquet", x, {"label": LABELS}, metadata=metadata)
    split = only(path)
    expected = x[:, None] if len(shape) == 2 else x.transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(split.inputs, expected)
    assert split.inputs.dtype == torch.uint8
    assert split.labels.tolist() == LABELS


def test_a_folder_in_hub_layout(tmp_path: Path) -> None:
    names = {"label": ["cat", "ant", "bee", "none of them"]}
    x = pixels(6)
    for below in (tmp_path / "flat", tmp_path / "deep" / "data"):
        for i, piece in enumerate((slice(0, 4), slice(4, 6))):
            path = below / f"train-0000{i}-of-00002.parquet"
            write_parquet(path, x[piece], {"label": LABELS[piece]}, names)
        write_parquet(below / "test-00000-of-00001.parquet", x[:2], {"label": [2, 2]}, names)
    for folder in ("flat", "deep"):
        loaded = load(tmp_path / folder)
        assert loaded.name == folder
        assert loaded.class_names == tuple(names["label"])  # the order of the source, not sorted
        np.testing.assert_array_equal(loaded.splits["train"].inputs[:, 0], x)
        assert loaded.splits["train"].labels.tolist() == LABELS
        assert loaded.splits["test"].labels.tolist() == [2, 2]


def test_held_out_labels_come_from_the_true_label_column(tmp_path: Path) -> None:
    names = {"label": ["a", "b", "c"]}
    columns = {"label": LABELS, "worse_label": LABELS[::-1]}
    write_parquet(tmp_path / "train-0.parquet", pixels(), columns, names)
    write_parquet(tmp_path / "test-0.parquet", pixels(4), {"label": [0, 1, 2, 0]}, names)
    data = prepare(tmp_path, label="worse_label", true_label="label")
    assert data.noise_rate == pytest.approx(2 / 3)
    assert data.validation_labels == "clean"
    assert data.test is not None
    assert sorted([*data.validation.labels.tolist(), *data.test.labels.tolist()]) == [0, 0, 1, 2]
    assert prepare(tmp_path, label="label").noise_rate is None


def test_parquet_columns_of_lists(tmp_path: Path) -> None:
    x = vectors(4, 6)
    for column in (
        pa.array(x.tolist()),
        pa.array(x.reshape(4, 2, 3).tolist()),
        pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), 6),
    ):
        path = tmp_path / "lists.parquet"
        pq.write_table(pa.table({"id": [9, 8, 7, 6], "x": column, "y": [0, 1, 0, 1]}), path)
        np.testing.assert_array_equal(only(path).inputs.reshape(4, 6), x)


def test_hugging_face_data_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"img": datasets.Image(), "kind": datasets.ClassLabel(names=["x", "y", "z"])}
    )
    rows = {"img": [{"bytes": png(a), "path": None} for a in pixels()], "kind": LABELS}
    dataset = datasets.Dataset.from_dict(rows, features=features)
    picked = only(dataset.select([4, 0, 1]))
    np.testing.assert_array_equal(picked.inputs[:, 0], pixels()[[4, 0, 1]])
    assert picked.labels.tolist() == [1, 0, 1]
    both = datasets.DatasetDict({"train": dataset, "test": dataset.select([2])})
    monkeypatch.setattr(datasets, "load_dataset", lambda name: both)
    for loaded in (load(both), load("somebody/things")):
        assert loaded.class_names == ("x", "y", "z")
        assert loaded.splits["test"].labels.tolist() == [2]
    assert loaded.name == "somebody/things"


def test_folders_of_images(tmp_path: Path) -> None:
    one = write_images(tmp_path / "one", {"train": pixels(2), "bird": pixels(3, seed=1)})
    (one / ".hidden").mkdir()
    (one / "bird" / "notes.txt").write_text("not an image")
    loaded = load(one)  # a class called train is no split beside another class
    assert loaded.class_names == ("bird", "train")
    assert loaded.splits["train"].labels.tolist() == [0, 0, 0, 1, 1]
    np.testing.assert_array_equal(loaded.splits["train"].inputs[3:, 0], pixels(2))
    write_images(tmp_path / "two" / "train", {"a": pixels(2, (7, 5, 3)), "b": pixels(1, (7, 5, 3))})
    write_images(tmp_path / "two" / "test", {"b": pixels(1, (7, 5, 3))})
    loaded = load(tmp_path / "two")
    assert loaded.splits["train"].inputs.shape == (3, 3, 7, 5)
    assert loaded.splits["test"].labels.tolist() == [1]


def test_palette_images_are_expanded(tmp_path: Path) -> None:
    write_images(tmp_path, {"a": pixels(1, (7, 5, 3)), "b": pixels(1, (7, 5, 3), seed=1)})
    colours = Image.new("RGB", (5, 7), (10, 200, 30)).convert("P")
    colours.save(tmp_path / "a" / "1.png")
    split = only(tmp_path)
    assert split.inputs.shape == (3, 3, 7, 5)
    expected = np.array(colours.convert("RGB")).transpose(2, 0, 1)
    np.testing.assert_array_equal(split.inputs[1], expected)


# Refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("mnits", "neither a path nor a known name"),
        ("gone/", "neither a path nor a known name"),
        ("./gone.csv", "neither a path nor a known name"),
        ((np.empty((0, 3)), []), r"inputs \(train split\) must hold samples, got shape \(0, 3\)"),
        (([], []), "must hold samples"),
        ({}, "splits must hold one called train, got none at all"),
        (Pairs([]), "must hold samples"),
        ((vectors(), [1] * 6), "labels must hold two classes or more, got only '1'"),
        ((vectors(), LABELS[:5]), "one label per input, got 6 inputs and 5 labels"),
        (
            (vectors(), [0, 1, 0.5, 1, 2.5, 1]),
            r"fractions such as 0.5 in 2 of 6 rows, first in row 2",
        ),
        (
            (vectors(), [0, 1, np.nan, 1, 0, 1]),
            r"be there, got missing ones in 1 of 6 rows, first in row 2",
        ),
        (
            (vectors(), np.array([0, np.nan, 1, 1, 0, 1])),
            r"be there, got NaN in 1 of 6 rows, first in row 1",
        ),
        (
            (vectors(), ["a", None, "b", "", "a", "a"]),
            r"missing ones in 2 of 6 rows, first in row 1",
        ),
        (
            (vectors(), [0, "a", 1, 1, 0, 1]),
            "must be all strings or all integers, got 'int, str'|int, str",
        ),
        ((vectors(), np.eye(6)), r"labels \(train split\) must be \[N\], got shape \(6, 6\)"),
        ((vectors(), np.eye(6).tolist()), r"must be \[N\], got shape \(6, 6\)"),
        ((vectors(), np.zeros(6, complex)), "must be integers or strings"),
        (
            {"train": (vectors(), LABELS), "test": (vectors(), list("abcabc"))},
            "all strings or all integers",
        ),
        (
            ([[1.0, 2.0], [1.0]], [0, 1]),
            r"be of one shape, got \(2,\) in row 0 and \(1,\) in row 1",
        ),
        (
            Pairs([(np.zeros((7, 5)), 0), (np.zeros((7, 5)), 1), (np.zeros((5, 4)), 1)]),
            r"be of one shape, got \(7, 5\) in row 0 and \(5, 4\) in row 2; resize",
        ),
        (
            {"train": (vectors(), LABELS), "test": (vectors(6, 4), LABELS)},
            r"train and test inputs must be of one shape, got \(3,\) and \(4,\)",
        ),
        ((np.array([["a"], ["b"]]), [0, 1]), r"inputs \(train split\) must be numbers"),
        ((np.ones((2, 1), complex), [0, 1]), "must be numbers, got 'complex128'"),
        (Pairs([(1.0, 0, 0), (1.0, 1, 0)]), r"must have items \(input, label\)"),
        (vectors(), r"must be \(inputs, labels\) or a map-style Dataset, got 'ndarray'"),
        (iter([]), "map-style Dataset"),
        (
            {"test": (vectors(), LABELS), "dev": (vectors(), LABELS)},
            "must hold one called train, got",
        ),
        ({"train": (vectors(), LABELS), "val": 1, "dev": 2}, "hold one validation split"),
    ],
)
def test_refused_sources(source: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(source)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_inputs_must_be_finite_in_float32(value: float) -> None:
    x = vectors().astype(np.float64)
    x[3:, 1] = value
    with pytest.raises(
        InputError, match=r"in 3 of 6 rows, first in row 3 .*drop these rows or impute"
    ):
        load((x, LABELS))


def test_columns_of_arrays_cannot_be_named() -> None:
    with pytest.raises(InputError, match="label must name columns of a table"):
        load((vectors(), LABELS), label="y")
    with pytest.raises(InputError, match="inputs must name columns of a table"):
        load("digits", inputs=["pixel"])


@pytest.mark.parametrize(
    ("header", "rows", "said", "message"),
    [
        (
            ["a", "b"],
            [[1, 2]],
            {},
            r"label must be one column, got none among the columns a, b .*label=",
        ),
        (
            ["a", "label", "y"],
            [[1, 0, 1]],
            {},
            r"several \(label, y\) among the columns a, label, y",
        ),
        (["a", "y"], [[1, 0]], {"label": "z"}, r"column must be one of a, y .*got 'z'"),
        (["a", "y"], [[1, 0]], {"inputs": ["b"]}, r"column must be one of a, y .*got 'b'"),
        (["a", "y"], [[1, 0]], {"inputs": ["a", "y"], "label": "y"}, "inputs must hold no label"),
        (
            ["a", "y"],
            [[1, 0]],
            {"label": "y", "true_label": "y"},
            "true_label must differ from label",
        ),
        (
            ["a", "y", "w"],
            [[1, 0, 1]],
            {"label": "w"},
            "a column that looks like one: y; say which",
        ),
        (
            ["name", "a", "y"],
            [["bob", 1, 0]],
            {},
            r"columns of numbers .*that are not: name; say which",
        ),
        (
            ["name", "y"],
            [["bob", 0]],
            {"inputs": "name"},
            r"columns of numbers .*that are not: name",
        ),
        (["y"], [[0], [1]], {}, "columns of numbers"),
        (["a", "a", "y"], [[1, 2, 0]], {}, "columns must have different names"),
        (["a", "y"], [[1, 0], ["", 1], [2, 1]], {}, "values in 1 of 3 rows, first in row 1"),
        (
            ["a", "y"],
            [[1, 0], [2, ""], [2, 1]],
            {},
            r"column y, .*missing ones in 1 of 3 rows, first in row 1",
        ),
        (
            ["a", "y"],
            [[1, "u"], [2, "v"], [2, ""]],
            {},
            "missing ones in 1 of 3 rows, first in row 2",
        ),
        (["a", "y"], [[1, 0.5], [2, 1]], {}, "fractions such as 0.5"),
        (["a", "y"], [], {}, "must hold samples, got 'none'"),
    ],
)
def test_refused_tables(
    tmp_path: Path, header: list[str], rows: list[list[Any]], said: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        load(write_csv(tmp_path / "t.csv", header, rows), **said)


def test_several_image_columns_or_class_labels_are_ambiguous(tmp_path: Path) -> None:
    names = {"fine": ["a", "b", "c"], "coarse": ["d", "e", "f"]}
    columns: dict[str, list[Any]] = {"fine": LABELS, "coarse": LABELS}
    path = write_parquet(tmp_path / "p.parquet", pixels(), columns, names)
    with pytest.raises(InputError, match=r"several \(fine, coarse\)"):
        load(path)
    assert load(path, label="coarse").class_names == ("d", "e", "f")
    with pytest.raises(InputError, match="class names must agree"):
        load(path, label="coarse", true_label="fine")
    path = write_parquet(
        tmp_path / "q.parquet", pixels(), {"y": LABELS, "mask": [b"1"] * 6}, metadata=False
    )
    with pytest.raises(InputError, match=r"got several \(image, mask\)"):
        load(path)


def test_labels_outside_the_named_classes(tmp_path: Path) -> None:
    labels = [0, 1, -1, 1, -1, 0]  # the Hub marks unknown test labels by -1
    path = write_parquet(tmp_path / "p.parquet", pixels(), {"label": labels}, {"label": ["a", "b"]})
    with pytest.raises(
        InputError, match=r"one of 2 named classes, got .* in 2 of 6 rows, first in row 2"
    ):
        load(path)


def test_a_held_out_split_without_the_columns(tmp_path: Path) -> None:
    write_csv(tmp_path / "train.csv", ["p", "y"], [[1, 0], [2, 1]])
    write_csv(tmp_path / "test.csv", ["p"], [[3]])
    with pytest.raises(
        InputError, match=r"label must be a column of the test split of .* got 'y'; it has p"
    ):
        load(tmp_path)
    write_csv(tmp_path / "test.csv", ["q", "y"], [[3, 0]])
    with pytest.raises(InputError, match="inputs must be a column of the test split"):
        load(tmp_path)


def truncate(path: Path) -> Path:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    return path


def damaged_parquet(folder: Path) -> Path:
    return truncate(write_parquet(folder / "bad.parquet", pixels(), {"label": LABELS}))


def damaged_npz(folder: Path) -> Path:
    np.savez(folder / "bad.npz", x=vectors(), y=LABELS)
    return truncate(folder / "bad.npz")


def damaged_inside_npz(folder: Path) -> Path:
    np.savez_compressed(folder / "bad.npz", x=vectors(60), y=LABELS * 10)
    content = bytearray((folder / "bad.npz").read_bytes())
    content[120:160] = bytes(40)
    (folder / "bad.npz").write_bytes(content)
    return folder / "bad.npz"


def pickled_npz(folder: Path) -> Path:
    np.savez(folder / "bad.npz", x=np.array([{}, []], dtype=object), y=[0, 1])
    return folder / "bad.npz"


def ragged_csv(folder: Path) -> Path:
    (folder / "bad.csv").write_text("a,y\n1,0\n2\n")
    return folder / "bad.csv"


def empty_csv(folder: Path) -> Path:
    (folder / "bad.csv").write_text("")
    return folder / "bad.csv"


def damaged_image(folder: Path) -> Path:
    write_images(folder, {"a": pixels(2, (40, 50)), "b": pixels(1, (40, 50))})
    (folder / "a" / "1.png").rename(folder / "a" / "bad.png")
    truncate(folder / "a" / "bad.png")
    return folder


def text_image(folder: Path) -> Path:
    write_images(folder, {"a": pixels(1), "b": pixels(1)})
    (folder / "a" / "bad.png").write_text("<html>404</html>")
    return folder


@pytest.mark.parametrize(
    "make",
    [
        damaged_parquet,
        damaged_npz,
        damaged_inside_npz,
        pickled_npz,
        ragged_csv,
        empty_csv,
        damaged_image,
        text_image,
    ],
)
def test_damaged_files_are_named(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    with pytest.raises(InputError, match=r"bad\.\w+ could not be read \(.*\); the file is damaged"):
        load(make(tmp_path))


def test_a_damaged_image_in_a_table_is_named_by_its_row(tmp_path: Path) -> None:
    good = [png(image) for image in pixels(3)]
    for bad, message in ((b"no image", "could not be read"), (None, "must hold an image")):
        images = [{"bytes": b, "path": None} for b in (*good, bad)]
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        pq.write_table(
            pa.table({"image": pa.array(images, kind), "label": [0, 1, 0, 1]}),
            tmp_path / "t.parquet",
        )
        with pytest.raises(InputError, match=rf"image in row 3 of the .*t\.parquet {message}"):
            load(tmp_path / "t.parquet")


def test_images_of_unequal_size(tmp_path: Path) -> None:
    write_images(tmp_path, {"a": pixels(2), "b": pixels(1, (5, 4))})
    message = r"one shape, got \(1, 7, 5\) in row 0 and \(1, 5, 4\) in row 2; resize"
    with pytest.raises(InputError, match=message):
        load(tmp_path)


def test_images_of_sixteen_bits(tmp_path: Path) -> None:
    write_images(tmp_path, {"a": pixels(2).astype(np.uint16) * 200, "b": pixels(1)})
    with pytest.raises(InputError, match="8 bits a channel, got mode I;16"):
        load(tmp_path)


def test_lists_of_unequal_length_in_a_table(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"x": [[1.0, 2.0], [3.0, 4.0], [5.0]], "y": [0, 1, 0]}), path)
    with pytest.raises(InputError, match=r"one shape, got \(2,\) in row 0 and \(1,\) in row 2"):
        load(path)
    pq.write_table(pa.table({"x": [["a"], ["b"]], "y": [0, 1]}), path)
    with pytest.raises(InputError, match="must be lists of numbers"):
        load(path)


def test_tiny_images_in_files_are_never_taken_for_channels_first(tmp_path: Path) -> None:
    x = pixels(4, (3, 4, 3))
    np.testing.assert_array_equal(
        only(write_images(tmp_path, {"a": x[:2], "b": x[2:]})).inputs, x.transpose(0, 3, 1, 2)
    )


def test_files_and_folders_without_data(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="or one subfolder of images a class"):
        load(tmp_path)
    (tmp_path / "a.txt").write_text("hello")
    with pytest.raises(InputError, match=r"a folder or end in .parquet, .csv, .npz"):
        load(tmp_path / "a.txt")
    np.savez(tmp_path / "k.npz", pixels=vectors(), kinds=LABELS)
    with pytest.raises(InputError, match=r"hold x and y, .* got keys pixels, kinds"):
        load(tmp_path / "k.npz")
    write_csv(tmp_path / "train-1.csv", ["p", "y"], [[1, 0], [2, 1]])
    write_csv(tmp_path / "train-2.csv", ["q", "y"], [[1, 0], [2, 1]])
    with pytest.raises(InputError, match=r"train-1.csv, train-2.csv must have equal columns"):
        load(tmp_path)


def test_the_hub_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")

    def offline(name: str) -> None:
        raise ConnectionError(f"Couldn't reach {name!r} on the Hub")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    message = "'owner/things' is neither a path nor a known name, .*Couldn't reach .*network"
    with pytest.raises(InputError, match=message):
        load("owner/things")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", ["p", "y"], [[1, 0], [2, 1]])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"package pyarrow.*pip install 'keeprate\[data\]'"):
        load(path)


# Splits and noise ------------------------------------------------------------------------------


def numbered(n: int, n_classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Inputs that say which sample they are."""
    return np.arange(n, dtype=np.float32)[:, None], np.arange(n) % n_classes


def ids(split: Split | None) -> list[int]:
    return [] if split is None else [int(i) for i in split.inputs[:, 0]]


PAIRFLIP = Noise("pairflip", 0.45)


@given(st.integers(20, 200), st.integers(0, 1000), st.integers(2, 5))
def test_one_split_is_cut_in_three(n: int, seed: int, n_classes: int) -> None:
    data = prepare(numbered(n, n_classes), seed=seed)
    assert len(data.validation) == n // 5
    assert sorted(ids(data.train) + ids(data.validation) + ids(data.test)) == list(range(n))
    assert data.test is not None
    for split in (data.train, data.validation, data.test):
        assert split.rows.tolist() == sorted(ids(split))
        assert split.rows.tolist() == ids(split)
        share = torch.bincount(split.labels, minlength=n_classes) / len(split)
        assert (share - 1 / n_classes).abs().max() <= 2 / len(split)
    assert (data.validation_labels, data.criterion) == ("noisy", "determinant")
    assert data.noise_rate is None


def test_a_held_out_split_is_cut_in_half() -> None:
    x, y = numbered(60)
    data = prepare({"train": (x, y), "test": (x[:41] + 100, y[:41])})
    assert ids(data.train) == list(range(60))
    assert (len(data.validation), len(data.test or ())) == (20, 21)
    assert sorted(ids(data.validation) + ids(data.test)) == list(range(100, 141))
    assert data.validation.rows.tolist() == [i - 100 for i in ids(data.validation)]
    assert data.validation_from == "20 of the 41 samples of the test split"


def test_a_noisy_validation_set_is_cut_from_the_training_split() -> None:
    x, y = numbered(2000)
    source = {"train": (x, y), "test": (x[:41] + 5000, y[:41])}
    data = prepare(source, noise=PAIRFLIP, validation="noisy", seed=3)
    plain = prepare(source, noise=PAIRFLIP, seed=3)
    assert plain.criterion == "accuracy" and data.criterion == "determinant"
    assert (len(data.train), len(data.validation), len(data.test or ())) == (1800, 200, 41)
    assert sorted(ids(data.train) + ids(data.validation)) == list(range(2000))
    # The very noise of the training samples, and nothing says which labels are right.
    noisy = dict(zip(ids(plain.train), plain.train.labels.tolist(), strict=True))
    assert [noisy[i] for i in ids(data.validation)] == data.validation.labels.tolist()
    wrong = data.validation.labels.numpy() != np.array(ids(data.validation)) % 3
    assert abs(wrong.mean() - 0.45) < 0.12 and data.validation.true_labels is None
    assert data.validation_from.startswith("200 of the 2000 samples of the training split")
    only = prepare((x, y), noise=PAIRFLIP, validation="noisy", n_validation=0.5, n_test=100)
    assert (len(only.train), len(only.validation), len(only.test or ())) == (950, 950, 100)
    assert (torch.tensor(ids(only.test)) % 3).equal(only.test.labels)  # the test stays clean
    with pytest.raises(InputError, match="validation must be auto or noisy, got 'clean'"):
        prepare(source, validation="clean")


def test_what_labels_are_doubted() -> None:
    """Those of the training samples, and of samples cut from them with their noise."""
    x, y = numbered(60)
    parts = {"train": (x, y), "validation": (x, y), "test": (x, y)}
    two = {"train": (x, y), "test": (x, y)}
    everything = ("train", "validation", "test")
    for source, said, doubted, test_labels in (
        ((x, y), {}, everything, "noisy"),
        ((x, y), {"validation": "noisy"}, everything, "noisy"),
        ((x, y), {"n_test": 0}, ("train", "validation"), "noisy"),
        ((x, y), {"noise": PAIRFLIP}, ("train",), "clean"),
        ((x, y), {"noise": PAIRFLIP, "validation": "noisy"}, ("train", "validation"), "clean"),
        ((x, y, y), {}, ("train",), "clean"),
        (two, {}, ("train",), "as given"),
        (two, {"validation": "noisy"}, ("train", "validation"), "as given"),
        (parts, {}, ("train",), "as given"),
        (parts, {"validation": "noisy"}, ("train",), "as given"),  # rows of another source
    ):
        data = prepare(source, **said)
        assert (data.doubted, data.test_labels) == (doubted, test_labels), said
        assert data.doubted_splits[0] is data.train
        assert replace(data, test=None).doubted_splits == data.doubted_splits[:2]


def test_samples_keep_the_names_that_people_know_them_by(tmp_path: Path) -> None:
    images = np.arange(10 * 2 * 2, dtype=np.uint8).reshape(10, 2, 2)
    data = prepare(write_images(tmp_path / "all", {"a": images[:6], "b": images[6:]}))
    for split in (data.train, data.validation, data.test):
        for name, image in zip(split.names, split.inputs, strict=True):
            folder, file = name.split("/")
            i = int(file.removesuffix(".png")) + (6 if folder == "b" else 0)
            assert image.flatten().tolist() == images[i].flatten().tolist()
    write_images(tmp_path / "two" / "train", {"a": images[:2], "b": images[2:4]})
    write_images(tmp_path / "two" / "test", {"a": images[:1], "b": images[2:3]})
    two = load(tmp_path / "two").splits
    assert two["train"].names[0] == "train/a/0.png" and two["test"].names[1] == "test/b/0.png"
    (tmp_path / "all" / "a" / "0.png").rename(tmp_path / "all" / "a" / "caf\udce9\r.png")
    odd = load(tmp_path / "all").splits["train"].names[5]
    assert odd.encode() and odd == "a/caf\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}.png"
    header, rows = (
        ["text", "x", "label", "by"],
        [["so\n so", 1, "a", "Kim"], ["", 2, "b", "L" * 400]],
    )
    table = write_csv(tmp_path / "texts.csv", header, rows)
    assert only(table, inputs="x").names == ("so so, Kim", "L" * 299 + "…")
    assert only((np.zeros((2, 1)), [0, 1])).names == ()
    for paths, expected in ((("u.png", None), ("u.png", "")), ((None, None), ())):
        encoded = [{"bytes": png(i), "path": p} for i, p in zip(images, paths, strict=False)]
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        table = pa.table({"image": pa.array(encoded, kind), "label": [0, 1]})
        pq.write_table(table, tmp_path / "images.parquet")
        assert only(tmp_path / "images.parquet").names == expected


def test_a_given_validation_split_with_noise_stays() -> None:
    x, y = numbered(900)
    source = {"train": (x, y), "validation": (x + 1000, y), "test": (x[:30] + 2000, y[:30])}
    data = prepare(source, validation="noisy")
    assert (data.criterion, data.validation.true_labels) == ("determinant", None)
    assert [len(s) for s in (data.train, data.validation, data.test)] == [900, 900, 30]
    assert data.validation_from == "the validation split of the source, with its noise"
    assert data.validation.labels.tolist() == [(i - 1000) % 3 for i in ids(data.validation)]
    data = prepare(source, validation="noisy", noise=PAIRFLIP, n_validation=500, limit=600)
    assert (len(data.train), len(data.validation)) == (600, 500)
    for split, offset in ((data.train, 0), (data.validation, 1000)):
        wrong = split.labels.numpy() != (np.array(ids(split)) - offset) % 3
        assert abs(wrong.mean() - 0.45) < 0.06
    assert data.train.true_labels is not None and data.validation.true_labels is None
    cut = prepare(source, validation="noisy", noise=PAIRFLIP, n_validation=30).validation
    assert np.bincount(cut.labels.numpy()).tolist() == [10, 10, 10]  # even by the noisy labels
    assert np.bincount((np.array(ids(cut)) - 1000) % 3).tolist() != [10, 10, 10]
    assert data.test.labels.tolist() == y[:30].tolist()


def test_three_given_splits_stay() -> None:
    x, y = numbered(30)
    data = prepare({"train": (x, y), "validation": (x + 100, y), "test": (x + 200, y)})
    assert (data.validation_labels, data.criterion) == ("as given", "accuracy")
    assert (min(ids(data.validation)), len(data.validation)) == (100, 30)
    assert (min(ids(data.test)), len(data.test or ())) == (200, 30)


def test_too_few_samples_are_said_to_be_too_few() -> None:
    x, y = numbered(4, 2)
    with pytest.raises(InputError, match=r"samples must be at least 5 to be cut .* got 4"):
        prepare((x, y))


def test_sizes_can_be_said() -> None:
    x, y = numbered(100)
    data = prepare((x, y), n_validation=7, n_test=0.25, limit=12)
    assert (len(data.train), len(data.validation), len(data.test or ())) == (12, 7, 25)
    assert torch.bincount(data.train.labels).min() >= 3  # stratified: 4 of each class, up to one
    assert prepare((x, y), n_test=0).test is None
    assert len(prepare((x, y), limit=1000).train) == 60
    assert not set(ids(data.train)) & set(ids(data.validation) + ids(data.test))


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (
            {"n_validation": 0},
            r"n_validation must be a share in \(0, 1\) or a number in 1\.\.30, got 0",
        ),
        ({"n_validation": 31}, "n_validation must be .* got 31"),
        ({"n_test": -1}, "n_test must be .* got -1"),
        ({"n_test": 1.5}, "n_test must be .* got 1.5"),
        (
            {"n_validation": 15, "n_test": 15},
            r"n_validation \+ n_test must be at most the 30 samples",
        ),
        ({"limit": 0}, "limit must be at least 1, got 0"),
        ({"seed": -1}, "seed must be a whole number of at least 0, got -1"),
        ({"noise": Noise("matrix", path="gone.csv")}, "gone.csv: could not be read"),
        ({"noise": "asymmetric-mnist:0.4"}, "n_classes must be 10 for asymmetric-mnist, got 3"),
    ],
)
def test_refused_preparations(said: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        prepare(numbered(30), **said)


def test_noise_is_in_the_training_labels_only() -> None:
    x, y = numbered(2000)
    data = prepare((x, y), noise=PAIRFLIP, seed=3)
    assert data.noise_rate == pytest.approx(0.45, abs=0.05)
    assert data.noise == "pairflip:0.45"
    assert data.validation_labels == "clean"
    assert data.train.true_labels is not None
    assert data.train.true_labels.tolist() == [i % 3 for i in ids(data.train)]
    assert set(((data.train.labels - data.train.true_labels) % 3).tolist()) == {0, 1}
    for split in (data.validation, data.test):
        assert split is not None
        assert split.labels.tolist() == [i % 3 for i in ids(split)]
    assert y.tolist() == (np.arange(2000) % 3).tolist()  # what was given is left alone


def test_noise_may_depend_on_the_inputs() -> None:
    data = prepare("digits", noise="instance:0.4", seed=3)
    assert data.noise == "instance:0.4"
    assert data.noise_rate == pytest.approx(0.4, abs=0.075)  # 1079 samples, five deviations
    assert data.validation_labels == "clean"
    assert data.fingerprint() == prepare("digits", noise="instance:0.4", seed=3).fingerprint()
    train = data.train
    assert train.true_labels is not None
    expected = Noise("instance", 0.4).corrupt_labels(
        train.true_labels.numpy(),
        train.inputs.numpy(),
        n_classes=10,
        rng=np.random.default_rng(derive_seed(3, "noise")),
    )
    assert train.labels.tolist() == expected.tolist()


# As in version 0.1.0: a change would make old runs unrepeatable.
@pytest.mark.parametrize(
    ("noise", "labels"),
    [("symmetric:0.5", "013512457003486519680648"), ("pairflip:0.45", "024012457024466789160089")],
)
def test_seeds_give_the_noise_that_they_always_gave(noise: str, labels: str) -> None:
    train = prepare("digits", noise=noise, seed=0).train
    assert "".join(map(str, train.labels[:24].tolist())) == labels


def test_the_seed_decides_split_and_noise() -> None:
    first, again, other = (prepare("digits", noise=PAIRFLIP, seed=s) for s in (0, 0, 1))
    assert first.fingerprint() == again.fingerprint()
    assert first.validation.rows.tolist() != other.validation.rows.tolist()
    held_out = {"train": numbered(300), "test": numbered(30)}
    first, other = (prepare(held_out, noise=PAIRFLIP, seed=s) for s in (0, 1))
    assert first.train.labels.tolist() != other.train.labels.tolist()
    # Noise must not decide the split, or methods under different noise would see other data.
    clean = prepare("digits", seed=0)
    assert clean.validation.rows.tolist() == again.validation.rows.tolist()


def test_known_true_labels() -> None:
    x, true = numbered(50)
    noisy = (true + (np.arange(50) % 2)) % 3
    data = prepare((x, noisy, true), seed=0)
    assert data.noise_rate == pytest.approx(0.5, abs=0.1)
    assert data.validation_labels == "clean"
    assert data.validation.labels.tolist() == [i % 3 for i in ids(data.validation)]
    assert data.train.labels.tolist() == [noisy[i] for i in ids(data.train)]
    with pytest.raises(InputError, match="noise must be none where the data have true labels"):
        prepare((x, noisy, true), noise=PAIRFLIP)
    assert prepare((x, noisy, true), noise=Noise()).noise_rate == data.noise_rate


def test_columns_belong_to_load() -> None:
    with pytest.raises(InputError, match="must go to load"):
        prepare(load("digits"), label="y")


def changed(data: Data, what: str) -> Data:
    tensor: Tensor = getattr(data.train, what).clone()
    tensor.view(-1)[7] = (tensor.view(-1)[7] + 1) % 3
    return Data(
        **{
            **{name: getattr(data, name) for name in ("validation", "test", "class_names", "name")},
            "train": Split(**{**vars(data.train), what: tensor}),
        }
    )


def test_the_fingerprint_sees_every_change() -> None:
    data = prepare(numbered(100), noise=PAIRFLIP)
    prints = {data.fingerprint(), prepare(numbered(100), noise=PAIRFLIP).fingerprint()}
    assert len(prints) == 1
    assert len(data.fingerprint()) == 64
    for what in ("inputs", "labels", "true_labels"):
        prints.add(changed(data, what).fingerprint())
    x, y = numbered(100)
    prints.add(prepare((x, np.array(list("abc"))[y]), noise=PAIRFLIP).fingerprint())
    prints.add(prepare(numbered(100), noise=PAIRFLIP, n_test=0).fingerprint())
    assert len(prints) == 6


def test_the_description_is_json() -> None:
    facts = prepare("digits", noise=PAIRFLIP, limit=100).describe()
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts
    assert (facts["n_train"], facts["n_validation"], facts["n_test"]) == (100, 359, 359)
    assert facts["input_shape"] == [1, 8, 8]
    assert facts["validation_from"] == "359 of the 1797 samples of the only split"


# Normaliser and batches ------------------------------------------------------------------------


def test_bytes_are_divided_by_255() -> None:
    x = input_tensor(pixels())
    normaliser = Normaliser.fit(x)
    batch = normaliser(x[:2])
    assert batch.dtype == torch.float32
    torch.testing.assert_close(batch, x[:2].double().div(255).float())
    assert x.dtype == torch.uint8


@pytest.mark.parametrize("shape", [(500, 3), (40, 3, 4, 5), (30, 3, 2, 2, 2)])
def test_floats_are_standardised(shape: tuple[int, ...]) -> None:
    spread = torch.tensor([1.0, 100.0, 1e-3]).view(1, 3, *[1] * (len(shape) - 2))
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * spread + 1000 * spread
    batch = Normaliser.fit(x)(x).transpose(0, 1).flatten(1)
    torch.testing.assert_close(batch.mean(1), torch.zeros(3), atol=1e-3, rtol=0)
    torch.testing.assert_close(batch.std(1, correction=0), torch.ones(3), atol=1e-3, rtol=0)


def test_constant_features_stay_small() -> None:
    x = torch.full((1000, 2), 0.1)
    x[::2, 1] = 0.3
    batch = Normaliser.fit(x)(x)
    assert batch[:, 0].abs().max() < 1e-6
    unseen = Normaliser.fit(x)(torch.tensor([[0.4, 0.2]]))  # constant only in training
    torch.testing.assert_close(unseen[0, 0], torch.tensor(0.3))
    assert batch[:, 1].abs().max() == pytest.approx(1, abs=1e-4)


def test_fitting_goes_piece_by_piece() -> None:
    x = torch.randn(3000, 1000, generator=torch.Generator().manual_seed(0))  # three pieces
    normaliser = Normaliser.fit(x)
    torch.testing.assert_close(torch.tensor(normaliser.mean), x.mean(0), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(torch.tensor(normaliser.scale), x.std(0, correction=0))


@pytest.mark.parametrize(
    "x", [input_tensor(pixels()), input_tensor(vectors()), torch.rand(5, 3, 4, 4)]
)
def test_normalisers_survive_json(x: Tensor) -> None:
    normaliser = Normaliser.fit(x)
    again = Normaliser.from_dict(json.loads(json.dumps(normaliser.to_dict())))
    assert again == normaliser
    assert torch.equal(again(x), normaliser(x))


@pytest.mark.parametrize(
    "values", [{}, {"kind": "other", "mean": [], "scale": [], "n_trailing": 0}, {"kind": "uint8"}]
)
def test_other_normalisers_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="normaliser must be"):
        Normaliser.from_dict(values)
    with pytest.raises(InputError, match="inputs must be"):
        Normaliser.fit(torch.empty(0, 3))


@given(st.integers(1, 60), st.data())
def test_an_epoch_holds_no_sample_twice(n: int, draw: st.DataObject) -> None:
    batch_size = draw.draw(st.integers(1, n))
    generator = torch.Generator().manual_seed(0)
    order = epoch_order(n, batch_size, generator)
    assert order.shape == (n // batch_size, batch_size)
    assert order.dtype == torch.int64
    assert len(order.unique()) == order.numel()
    assert order.min() >= 0
    assert order.max() < n


def test_epochs_differ_and_leave_out_everybody_equally() -> None:
    generator = torch.Generator().manual_seed(0)
    epochs = [epoch_order(7, 3, generator) for _ in range(700)]
    assert not torch.equal(epochs[0], epochs[1])
    seen = torch.bincount(torch.cat([epoch.flatten() for epoch in epochs]), minlength=7)
    assert seen.min() > 550  # 600 each, standard deviation 9
    assert torch.equal(epochs[0], epoch_order(7, 3, torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("batch_size", [0, 8])
def test_batches_are_not_larger_than_the_data(batch_size: int) -> None:
    with pytest.raises(
        InputError, match=r"batch_size must be .*at most the number of training samples \(7\)"
    ):
        epoch_order(7, batch_size, torch.Generator())
