"""`load_data`: every source, and every source that it refuses."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from keeprate.data.arrays import input_tensor
from keeprate.data.samples import Split
from keeprate.data.sources import load_data
from keeprate.data.splitting import prepare
from keeprate.errors import InputError
from tests.sources import (
    LABELS,
    Image,
    pa,
    pixels,
    png,
    pq,
    vectors,
    write_csv,
    write_images,
    write_parquet,
)


def only(source: Any, **options: Any) -> Split:
    loaded = load_data(source, **options)
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
    assert load_data("digits").class_names == tuple("0123456789")
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
    loaded = load_data(
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
        loaded = load_data((vectors(), given_labels))
        assert loaded.class_names == names
        assert loaded.splits["train"].labels.tolist() == numbers


def test_classes_are_shared_by_all_splits_and_true_labels() -> None:
    loaded = load_data(
        {"train": (vectors(2), ["b", "d"], ["c", "d"]), "test": (vectors(2), ["a", "b"])}
    )
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
    loaded = load_data(tmp_path / "two.npz")
    assert loaded.name == "two"
    assert list(loaded.splits) == ["train", "test"]
    assert loaded.splits["test"].labels.tolist() == [2, 0]
    assert loaded.splits["train"].inputs.dtype == torch.uint8


def test_npz_keys_can_be_named(tmp_path: Path) -> None:
    path = tmp_path / "noisy.npz"
    np.savez(
        path,
        a_train=vectors(),
        bad_train=LABELS,
        good_train=LABELS[::-1],
        a_test=vectors(2),
        good_test=[1, 1],
    )
    loaded = load_data(path, inputs="a", label="bad", true_label="good")
    train, test = loaded.splits["train"], loaded.splits["test"]
    assert train.labels.tolist() == LABELS
    assert train.true_labels is not None
    assert train.true_labels.tolist() == LABELS[::-1]
    assert test.labels.tolist() == [1, 1]
    assert load_data(path, inputs=["a"], label="bad").splits["train"].labels.tolist() == LABELS
    with pytest.raises(InputError, match=r"inputs must be one key .*, got \['a', 'b'\]; join"):
        load_data(path, inputs=["a", "b"], label="bad")


def test_csv_with_string_labels(tmp_path: Path) -> None:
    path = write_csv(
        tmp_path / "t.csv", ["a", "Class", "b"], [[1, "no", 0.5], [2, "yes", -1], [3, "no", 7]]
    )
    loaded = load_data(path)
    assert loaded.name == "t"
    assert loaded.class_names == ("no", "yes")
    split = loaded.splits["train"]
    assert split.inputs.tolist() == [[1, 0.5], [2, -1], [3, 7]]
    assert split.labels.tolist() == [0, 1, 0]


def test_csv_columns_can_be_named(tmp_path: Path) -> None:
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
    loaded = load_data(tmp_path)
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
        loaded = load_data(tmp_path / folder)
        assert loaded.name == folder
        assert loaded.class_names == ("cat", "ant", "bee")  # the order of the source, not sorted
        note = "1 of 4 named classes has no sample, left out: none of them"
        assert [one for one in loaded.notes if "named" in one] == [note]
        np.testing.assert_array_equal(loaded.splits["train"].inputs[:, 0], x)
        assert loaded.splits["train"].labels.tolist() == LABELS
        assert loaded.splits["test"].labels.tolist() == [2, 2]


def test_classes_of_a_part_of_a_data_set_are_those_that_it_holds(tmp_path: Path) -> None:
    """The list of names is often that of the whole."""
    names = {"label": [f"person {i}" for i in range(1000)]}
    labels = [700, 3, 3, 700, 999, 3]
    path = write_parquet(tmp_path / "faces.parquet", pixels(6), {"label": labels}, names)
    loaded = load_data(path)
    assert loaded.class_names == ("person 3", "person 700", "person 999")
    assert loaded.splits["train"].labels.tolist() == [1, 0, 0, 1, 2, 0]
    assert any("997 of 1,000 named classes have no sample" in note for note in loaded.notes)
    true = {"label": labels, "true_label": [700, 3, 3, 5, 999, 3]}
    both = {"label": names["label"], "true_label": names["label"]}
    loaded = load_data(write_parquet(tmp_path / "both.parquet", pixels(6), true, both))
    assert loaded.class_names == ("person 3", "person 5", "person 700", "person 999")
    assert loaded.splits["train"].true_labels.tolist() == [2, 0, 0, 1, 3, 0]


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
    for loaded in (load_data(both), load_data("somebody/things")):
        assert loaded.class_names == ("x", "y", "z")
        assert loaded.splits["test"].labels.tolist() == [2]
    assert loaded.name == "somebody/things"


def test_folders_of_images(tmp_path: Path) -> None:
    one = write_images(tmp_path / "one", {"train": pixels(2), "bird": pixels(3, seed=1)})
    (one / ".hidden").mkdir()
    (one / "bird" / "notes.txt").write_text("not an image")
    with pytest.raises(InputError, match="got train beside bird"):
        load_data(one)  # a folder called train is never silently a class
    (one / "train").rename(one / "trains")
    loaded = load_data(one)
    assert loaded.class_names == ("bird", "trains")
    assert loaded.splits["train"].labels.tolist() == [0, 0, 0, 1, 1]
    np.testing.assert_array_equal(loaded.splits["train"].inputs[3:, 0], pixels(2))
    write_images(tmp_path / "two" / "train", {"a": pixels(2, (7, 5, 3)), "b": pixels(1, (7, 5, 3))})
    write_images(tmp_path / "two" / "test", {"b": pixels(1, (7, 5, 3))})
    loaded = load_data(tmp_path / "two")
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
    two = load_data(tmp_path / "two").splits
    assert two["train"].names[0] == "train/a/0.png" and two["test"].names[1] == "test/b/0.png"
    (tmp_path / "all" / "a" / "0.png").rename(tmp_path / "all" / "a" / "caf\udce9\r.png")
    odd = load_data(tmp_path / "all").splits["train"].names[5]
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
            r"be there, got NaN or infinity in 1 of 6 rows, first in row 1",
        ),
        (
            (vectors(), ["a", None, "b", "", "a", "a"]),
            r"missing ones in 2 of 6 rows, first in row 1",
        ),
        (
            (vectors(), [0, "a", 1, 1, 0, 1]),
            "must be all strings or all integers, got int, str; convert",
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
        ((np.ones((2, 1), complex), [0, 1]), "must be numbers, got complex128; convert"),
        (
            Pairs([(1.0, 0, 0), (1.0, 1, 0)]),
            r"must have items \(input, label\), got tuple as item 0",
        ),
        (vectors(), r"must be \(inputs, labels\) or a map-style Dataset, got ndarray; give"),
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
        load_data(source)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_inputs_must_be_finite_in_float32(value: float) -> None:
    x = vectors().astype(np.float64)
    x[3:, 1] = value
    with pytest.raises(
        InputError, match=r"in 3 of 6 rows, first in row 3 .*drop these rows or impute"
    ):
        load_data((x, LABELS))


def test_columns_of_arrays_cannot_be_named() -> None:
    with pytest.raises(InputError, match="label must name columns of a table"):
        load_data((vectors(), LABELS), label="y")
    with pytest.raises(InputError, match="inputs must name columns of a table"):
        load_data("digits", inputs=["pixel"])


@pytest.mark.parametrize(
    ("header", "rows", "options", "message"),
    [
        (
            ["a", "b"],
            [[1, 2]],
            {},
            r"label \(.*t.csv\) must be one column, got none among the columns a, b; .*label=",
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
        (["y"], [[0], [1]], {}, "columns of numbers"),
        (["a", "a", "y"], [[1, 2, 0]], {}, "columns must have different names"),
        (
            ["a", "y"],
            [[1, ""], [2, ""]],
            {},
            r"column y, .*must be there, got missing ones in all rows; say which column",
        ),
        (["id", "user_name", "y"], [[1, "a", 0], [2, "b", 1]], {}, r"id \(an index or a key"),
        (["a", "y"], [[1, 0.5], [2, 1]], {}, "fractions such as 0.5"),
        (["a", "y"], [], {}, "must hold rows, got a header without rows"),
    ],
)
def test_refused_tables(
    tmp_path: Path, header: list[str], rows: list[list[Any]], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        load_data(write_csv(tmp_path / "t.csv", header, rows), **options)


def test_several_image_columns_or_class_labels_are_ambiguous(tmp_path: Path) -> None:
    names = {"fine": ["a", "b", "c"], "coarse": ["d", "e", "f"]}
    columns: dict[str, list[Any]] = {"fine": LABELS, "coarse": LABELS}
    path = write_parquet(tmp_path / "p.parquet", pixels(), columns, names)
    with pytest.raises(InputError, match=r"several \(fine, coarse\)"):
        load_data(path)
    assert load_data(path, label="coarse").class_names == ("d", "e", "f")
    with pytest.raises(InputError, match="class names must agree"):
        load_data(path, label="coarse", true_label="fine")
    path = write_parquet(
        tmp_path / "q.parquet", pixels(), {"y": LABELS, "mask": [b"1"] * 6}, metadata=False
    )
    with pytest.raises(InputError, match=r"got several \(image, mask\)"):
        load_data(path)


def test_labels_outside_the_named_classes(tmp_path: Path) -> None:
    labels = [0, 1, -1, 1, -1, 0]  # the Hub marks unknown test labels by -1
    path = write_parquet(tmp_path / "p.parquet", pixels(), {"label": labels}, {"label": ["a", "b"]})
    with pytest.raises(
        InputError, match=r"one of 2 named classes, got .* in 2 of 6 rows, first in row 2"
    ):
        load_data(path)


def test_a_held_out_split_without_the_columns(tmp_path: Path) -> None:
    write_csv(tmp_path / "train.csv", ["p", "y"], [[1, 0], [2, 1]])
    write_csv(tmp_path / "test.csv", ["p"], [[3]])
    loaded = load_data(tmp_path)
    assert list(loaded.splits) == ["train"]
    assert any("no column y, so it was left out" in note for note in loaded.notes)
    write_csv(tmp_path / "test.csv", ["q", "y"], [[3, 0]])
    with pytest.raises(InputError, match=r"inputs must be columns of the test split .*got p; .*q"):
        load_data(tmp_path)


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


@pytest.mark.parametrize(
    "make",
    [
        damaged_parquet,
        damaged_npz,
        damaged_inside_npz,
        pickled_npz,
    ],
)
def test_damaged_files_are_named(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    with pytest.raises(InputError, match=r"bad\.\w+ could not be read \(.*\); the file is damaged"):
        load_data(make(tmp_path))


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
            load_data(tmp_path / "t.parquet")


def test_images_of_unequal_size(tmp_path: Path) -> None:
    write_images(tmp_path, {"a": pixels(2), "b": pixels(1, (5, 4))})
    assert only(tmp_path).inputs.shape == (3, 1, 5, 5)  # the median of the shorter sides


def test_images_of_sixteen_bits(tmp_path: Path) -> None:
    deep = pixels(2).astype(np.uint16) * 200
    write_images(tmp_path, {"a": deep, "b": pixels(1)})
    np.testing.assert_array_equal(only(tmp_path).inputs[:2, 0], deep // 256)


def test_lists_of_unequal_length_in_a_table(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"x": [[1.0, 2.0], [3.0, 4.0], [5.0]], "y": [0, 1, 0]}), path)
    with pytest.raises(InputError, match=r"one shape, got \(2,\) in row 0 and \(1,\) in row 2"):
        load_data(path)
    pq.write_table(pa.table({"x": [["a"], ["b"]], "y": [0, 1]}), path)
    with pytest.raises(InputError, match="must be lists of numbers"):
        load_data(path)


def test_tiny_images_in_files_are_never_taken_for_channels_first(tmp_path: Path) -> None:
    x = pixels(4, (3, 4, 3))
    np.testing.assert_array_equal(
        only(write_images(tmp_path, {"a": x[:2], "b": x[2:]})).inputs, x.transpose(0, 3, 1, 2)
    )


def test_files_and_folders_without_data(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="or one subfolder of images a class"):
        load_data(tmp_path)
    (tmp_path / "a.bin").write_text("hello")
    with pytest.raises(InputError, match=r"a folder or end in .parquet, .csv, .*\.npz"):
        load_data(tmp_path / "a.bin")
    np.savez(tmp_path / "k.npz", pixels=vectors(), kinds=LABELS)
    with pytest.raises(InputError, match=r"hold x and y, .* got keys pixels, kinds"):
        load_data(tmp_path / "k.npz")
    write_csv(tmp_path / "train-1.csv", ["p", "y"], [[1, 0], [2, 1]])
    write_csv(tmp_path / "train-2.csv", ["q", "y"], [[1, 0], [2, 1]])
    with pytest.raises(
        InputError, match=r"train-2.csv must have the columns of train-1.csv, got one that lacks p"
    ):
        load_data(tmp_path)


def test_the_hub_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")

    def offline(name: str) -> None:
        raise ConnectionError(f"Couldn't reach {name!r} on the Hub")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    message = "'owner/things' is neither a path nor a known name, .*Couldn't reach .*network"
    with pytest.raises(InputError, match=message):
        load_data("owner/things")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", ["p", "y"], [[1, 0], [2, 1]])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"package pyarrow.*pip install 'keeprate\[data\]'"):
        load_data(path)
