"""Predictions of any source: the right rows, keys and scores."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import keeprate
from keeprate import InputError, TrainingConfig, prepare
from keeprate.data import match_labels
from keeprate.runs.predictions import Predictions, predict_files
from tests.sources import png, write_csv

pd = pytest.importorskip("pandas")
pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

CONFIG = TrainingConfig(epochs=2, batch_size=16)


def train(source: Any, out: Path, **options: Any) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        from tests.searches import draw_no_page

        draw_no_page(patch)
        keeprate.train(prepare(source, **options), schedule="constant", config=CONFIG, out=out)
    return out


@dataclass(frozen=True)
class Written:
    """What `predict_files` wrote and told."""

    told: Predictions
    rows: list[dict[str, str]]

    def column(self, name: str) -> list[str]:
        return [row[name] for row in self.rows]


@pytest.fixture
def predict(tmp_path: Path) -> Callable[..., Written]:
    def call(run: Path, *sources: Path, **options: Any) -> Written:
        out = tmp_path / "predictions.csv"
        told = predict_files(run, [str(source) for source in sources], out, **options)
        with open(out, newline="", encoding="utf-8") as file:
            return Written(told, list(csv.DictReader(file)))

    return call


# Labels -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "classes", "numbers"),
    [
        ([1, 0, 1], ("0", "1"), [1, 0, 1]),
        ([1.0, 0.0, np.nan], ("0", "1"), [1, 0, -1]),
        (["1", "1.0", " 1 ", "01", "1e0"], ("0", "1"), [1, 1, 1, -1, -1]),
        ([True, False, None], ("False", "True"), [1, 0, -1]),
        (["true", "FALSE", "T"], ("False", "True"), [1, 0, -1]),
        ([True, False], ("false", "true"), [1, 0]),
        ([1, 0, 2], ("False", "True"), [1, 0, -1]),
        ([-1, 0, 1, 2], ("0", "1"), [-1, 0, 1, -1]),
        ([np.inf, -np.inf, np.nan, 0.5, 1.0], ("0", "1"), [-1, -1, -1, -1, 1]),
        (["cat", "dog ", "cow", "", None, "Cat"], ("cat", "dog"), [0, 1, -1, -1, -1, -1]),
        ([0, 1, 2, -1], ("cat", "dog"), [0, 1, -1, -1]),
        (["0", "1.0", None], ("cat", "dog"), [0, 1, -1]),
        (["0", "dog"], ("cat", "dog"), [-1, 1]),  # a name says that the others are none
        ([0, 1], ("3", "8"), [-1, -1]),  # numbers are the names of these classes, not codes
        (["cat", "dog"], ("0", "1"), [-1, -1]),
        (["007", "7"], ("007", "7"), [0, 1]),
        (["nan", "NaN"], ("0", "1"), [-1, -1]),
        ([2**63, "18446744073709551615"], ("9223372036854775808", "5"), [0, -1]),
        ([], ("0", "1"), []),
    ],
)
def test_only_known_labels_are_scored(
    labels: list[Any], classes: tuple[str, ...], numbers: list[int]
) -> None:
    array = np.empty(len(labels), dtype=object)
    array[:] = labels
    assert match_labels(array, classes)[0].tolist() == numbers
    kinds = {type(item) for item in labels}
    if len(kinds) == 1 and kinds <= {int, float, bool, str} and 2**63 not in labels:
        assert match_labels(np.array(labels), classes)[0].tolist() == numbers


def test_codes_of_the_source_are_not_those_of_the_training() -> None:
    source = ("dog", "cat", "cow")
    found, note = match_labels(np.array([0, 1, 2, 3, -1]), ("cat", "dog"), source)
    assert found.tolist() == [1, 0, -1, -1, -1] and not note


@pytest.fixture(scope="module")
def numbers_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 2))
    y = (x[:, 0] > 0).astype(int) + 1
    table = pd.DataFrame({"a": x[:, 0], "b": x[:, 1], "label": y})
    return train(table, tmp_path_factory.mktemp("numbers") / "run")


@pytest.mark.parametrize(
    ("labels", "n_scored"),
    [
        (["1", "2", "1"], 3),
        (["1.0", "2.0", ""], 2),
        (["1", "", "2"], 2),
        (["-1", "2", "1"], 2),
        (["nan", "2", "inf"], 1),
        (["", "", ""], 0),
        (["one", "two", "1"], 1),
        (["3", "4", "5"], 0),
        (["0", "1", "0"], 1),  # classes are called 1 and 2
    ],
)
def test_labels_of_a_file(
    labels: list[str],
    n_scored: int,
    numbers_run: Path,
    predict: Callable[..., Written],
    tmp_path: Path,
) -> None:
    rows = [[2.0, 0.0, labels[0]], [-2.0, 1.0, labels[1]], [0.5, 1.0, labels[2]]]
    table = write_csv(tmp_path / "new.csv", ["a", "b", "label"], rows)
    written = predict(numbers_run, table)
    assert written.told.n_scored == n_scored
    names = written.column("predicted_label")
    right = sum(label.removesuffix(".0") == n for label, n in zip(labels, names, strict=True))
    assert written.told.n_right == right


# Tables -----------------------------------------------------------------------------------------


def test_keys_are_written(
    numbers_run: Path, predict: Callable[..., Written], tmp_path: Path
) -> None:
    rows = [[1.0, 2.0, 7], [3.0, 4.0, 5]]
    table = write_csv(tmp_path / "new.csv", ["b", "a", "customer_id"], rows)
    written = predict(numbers_run, table)
    assert written.column("customer_id") == ["7", "5"] and written.told.n_scored == 0
    assert written.column("index") == ["0", "1"]


def test_a_number_that_names_nothing_in_the_source_is_no_class(
    numbers_run: Path, predict: Callable[..., Written], tmp_path: Path
) -> None:
    features = {"label": {"_type": "ClassLabel", "names": ["2", "1"]}}
    table = pa.table({"a": [1.0] * 5, "b": [0.0] * 5, "label": [0, 1, 2, -1, None]})
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    for rows, n_scored in ((table, 2), (table[:4], 2), (table[2:4], 0)):
        pq.write_table(rows.replace_schema_metadata(metadata), tmp_path / "new.parquet")
        assert predict(numbers_run, tmp_path / "new.parquet").told.n_scored == n_scored


def test_tables_without_rows_are_refused(
    numbers_run: Path, predict: Callable[..., Written], tmp_path: Path
) -> None:
    empty = pd.DataFrame({"a": [1.0], "b": [2.0]})[:0]
    empty.to_parquet(tmp_path / "new.parquet")
    with pytest.raises(InputError, match="hold rows"):
        predict(numbers_run, tmp_path / "new.parquet")
    with pytest.raises(InputError, match="DataFrame must hold rows"):
        keeprate.load(numbers_run).predict(empty)


def test_keys_of_other_types_are_passed_over(
    numbers_run: Path, predict: Callable[..., Written], tmp_path: Path
) -> None:
    lines = [{"_id": {"$oid": f"{i}"}, "ids": [i], "a": 1.0 * i, "b": 0.5} for i in range(3)]
    file = tmp_path / "new.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    assert predict(numbers_run, file).column("index") == ["0", "1", "2"]


def test_probabilities_agree_with_python(
    numbers_run: Path, predict: Callable[..., Written], tmp_path: Path
) -> None:
    table = pd.DataFrame({"b": [0.1, -3.0], "a": [1.0, 2.0]})
    table.to_csv(tmp_path / "new.csv", index=False)
    written = predict(numbers_run, tmp_path / "new.csv", with_probabilities=True)
    found = np.array([[float(row["p(1)"]), float(row["p(2)"])] for row in written.rows])
    classifier = keeprate.load(numbers_run)
    np.testing.assert_allclose(found, classifier.predict_proba(table), atol=1e-6)
    np.testing.assert_allclose(found.sum(1), 1, atol=2e-6)
    assert written.column("predicted_label") == classifier.predict(table).tolist()
    sure = [float(text) for text in written.column("probability")]
    np.testing.assert_allclose(sure, found.max(1), atol=1e-6)


def test_a_folder_and_its_files_are_predicted_alike(
    numbers_run: Path, predict: Callable[..., Written], tmp_path: Path
) -> None:
    rows = np.random.default_rng(3).normal(size=(9, 2)).tolist()
    folder = tmp_path / "data"
    folder.mkdir()
    files = [
        write_csv(folder / f"part-{i}.csv", ["a", "b"], rows[3 * i : 3 * i + 3]) for i in range(3)
    ]
    of_folder = predict(numbers_run, folder, with_probabilities=True).rows
    assert predict(numbers_run, *files, with_probabilities=True).rows == of_folder
    expected = keeprate.load(numbers_run).predict_proba(np.array(rows))
    found = [float(row["p(1)"]) for row in of_folder]
    np.testing.assert_allclose(found, expected[:, 0], atol=1e-6)


def test_of_splits_the_test_split_is_predicted(
    numbers_run: Path, predict: Callable[..., Written], tmp_path: Path
) -> None:
    write_csv(tmp_path / "train.csv", ["a", "b"], [[1, 1]] * 4)
    write_csv(tmp_path / "test.csv", ["a", "b"], [[1, 1]] * 2)
    written = predict(numbers_run, tmp_path)
    assert written.told.n_rows == 2 and "the test split is predicted" in written.told.notes[-1]


def test_other_columns_can_stand_in(
    numbers_run: Path, predict: Callable[..., Written], tmp_path: Path
) -> None:
    rows = [[2.0, 0.0, 1], [-2.0, 1.0, 2], [0.5, 1.0, 2]]
    plain = write_csv(tmp_path / "plain.csv", ["a", "b", "label"], rows)
    renamed = write_csv(tmp_path / "renamed.csv", ["u", "v", "a"], rows)
    expected = predict(numbers_run, plain)
    found = predict(numbers_run, renamed, inputs=["u", "v"], label="a")
    assert found.rows == expected.rows
    assert (found.told.n_scored, found.told.n_right) == (3, expected.told.n_right)
    for inputs in (["u"], ["u", "w"], ["u", "v", "a"]):
        with pytest.raises(InputError, match="inputs"):
            predict(numbers_run, renamed, inputs=inputs)


# Arrays -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "options", "n_scored"),
    [
        ({"x": "x", "y": "y"}, {}, 4),
        ({"x": "x"}, {}, 0),
        ({"x": "x_test", "y": "y_test"}, {}, 4),
        ({"x": "train_x", "y": "train_y"}, {}, 4),
        ({"x": "inputs", "y": "targets"}, {}, 4),
        ({"x": "latest_vectors", "y": "y"}, {"inputs": ["latest_vectors"]}, 4),
        ({"x": "trained", "y": "labels"}, {"inputs": ["trained"]}, 4),
        ({"x": "something"}, {}, 0),
        ({"x": "something", "y": "truth"}, {"inputs": ["something"], "label": "truth"}, 4),
    ],
)
def test_npz_files(
    keys: dict[str, str],
    options: dict[str, Any],
    n_scored: int,
    numbers_run: Path,
    predict: Callable[..., Written],
    tmp_path: Path,
) -> None:
    x = np.random.default_rng(1).normal(size=(4, 2))
    arrays = {"x": x, "y": np.array([1, 2, 2, 1])}
    np.savez(tmp_path / "new.npz", **{name: arrays[key] for key, name in keys.items()})
    written = predict(numbers_run, tmp_path / "new.npz", **options)
    assert written.told.n_scored == n_scored
    assert written.column("predicted_label") == keeprate.load(numbers_run).predict(x).tolist()


def test_labels_of_npz_files_must_fit(
    numbers_run: Path, predict: Callable[..., Written], tmp_path: Path
) -> None:
    for labels in (np.eye(4, 2), np.ones(3), np.ones((4, 2))):
        np.savez(tmp_path / "new.npz", x=np.ones((4, 2)), y=labels)
        with pytest.raises(InputError, match="one for each of 4 samples"):
            predict(numbers_run, tmp_path / "new.npz")
    np.savez(tmp_path / "new.npz", x=np.ones((4, 2)), y=np.ones((4, 1)))
    assert predict(numbers_run, tmp_path / "new.npz").told.n_scored == 4
    with pytest.raises(InputError, match="be a key of"):
        predict(numbers_run, tmp_path / "new.npz", label="z")


def test_python_objects_are_predicted_alike(numbers_run: Path) -> None:
    datasets = pytest.importorskip("datasets")
    classifier = keeprate.load(numbers_run)
    x = np.random.default_rng(1).normal(size=(6, 2))
    frame = pd.DataFrame({"b": x[:, 1], "a": x[:, 0]})
    expected = classifier.predict_proba(x)
    for samples in (torch.tensor(x), x.tolist(), frame, datasets.Dataset.from_pandas(frame)):
        np.testing.assert_allclose(classifier.predict_proba(samples), expected, atol=1e-6)
    assert classifier.predict(x).tolist() == [
        classifier.classes[i] for i in expected.argmax(1).tolist()
    ]
    for wrong in (x[:, :1], x[0], x.astype(str), [["a", "b"]], 5, {}, {"a": [1.0], "b": [2.0]}):
        with pytest.raises(InputError):
            classifier.predict(wrong)


# Images -----------------------------------------------------------------------------------------


def picture(kind: str, seed: int) -> bytes:
    image = np.random.default_rng(seed).integers(0, 90, (8, 8, 3), dtype=np.uint8)
    image[..., kind == "cat"] += 120
    return png(image)


def write_pictures(folder: Path, kinds: list[str], start: int = 0) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{start + i}.png" for i in range(len(kinds))]
    for i, (path, kind) in enumerate(zip(paths, kinds, strict=True)):
        path.write_bytes(picture(kind, start + i))
    return paths


@pytest.fixture(scope="module")
def images_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for kind in ("cat", "dog"):
        write_pictures(folder / "data" / kind, [kind] * 12)
    return train(str(folder / "data"), folder / "run")


def test_pictures_in_any_place(
    images_run: Path, predict: Callable[..., Written], tmp_path: Path
) -> None:
    kinds = ["cat", "dog", "dog", "cat"]
    files = write_pictures(tmp_path / "new", kinds, 100)
    expected = keeprate.load(images_run).predict(files).tolist()
    flat = predict(images_run, tmp_path / "new")
    assert flat.column("file") == [file.name for file in files]
    several = predict(images_run, *files)
    assert several.column("file") == list(map(str, files))
    one = predict(images_run, files[2])
    assert one.column("predicted_label") == expected[2:3] and one.told.n_rows == 1
    for written in (flat, several):
        assert written.column("predicted_label") == expected
        assert written.told.n_scored == 0
    assert keeprate.load(images_run).predict(str(tmp_path / "new")).tolist() == expected


def test_pictures_by_class_are_scored(
    images_run: Path, predict: Callable[..., Written], tmp_path: Path
) -> None:
    for kind in ("cat", "dog", "cow"):
        write_pictures(tmp_path / "new" / kind, [kind] * 2, 50)
    written = predict(images_run, tmp_path / "new")
    assert written.told.n_scored == 4 and written.told.n_rows == 6
    names = [file.partition("/")[0] for file in written.column("file")]
    right = sum(a == b for a, b in zip(names, written.column("predicted_label"), strict=True))
    assert written.told.n_right == right


def test_pictures_deep_in_a_class_are_scored(
    images_run: Path, predict: Callable[..., Written], tmp_path: Path
) -> None:
    for kind in ("cat", "dog"):
        write_pictures(tmp_path / "new" / kind / "summer", [kind] * 2, 50)
    written = predict(images_run, tmp_path / "new")
    assert written.told.n_scored == 4


def test_of_image_splits_the_test_split_is_predicted(
    images_run: Path, predict: Callable[..., Written], tmp_path: Path
) -> None:
    for split, n in (("train", 3), ("test", 2)):
        for kind in ("cat", "dog"):
            write_pictures(tmp_path / "new" / split / kind, [kind] * n)
    written = predict(images_run, tmp_path / "new")
    assert written.told.n_rows == 4 and written.told.n_scored == 4
    assert "test is predicted" in written.told.notes[0]


def test_sources_that_do_not_fit_are_refused(
    images_run: Path, numbers_run: Path, predict: Callable[..., Written], tmp_path: Path
) -> None:
    files = write_pictures(tmp_path / "new", ["cat"])
    table = write_csv(tmp_path / "new.csv", ["a", "b"], [[1, 2]])
    for run, sources in (
        (numbers_run, files),
        (numbers_run, [tmp_path / "new"]),
        (images_run, [table]),
        (images_run, [table, *files]),
        (images_run, [tmp_path / "missing.png"]),
        (images_run, [*files, tmp_path / "missing.png"]),
        (numbers_run, [tmp_path / "missing.csv"]),
    ):
        with pytest.raises(InputError):
            predict(run, *sources)


# Inputs of another kind than in training --------------------------------------------------------


def test_double_precision_tensors_are_centred_like_arrays() -> None:
    x = np.c_[1.7e9 + np.arange(60), np.random.default_rng(0).normal(size=60)]
    y = np.arange(60) % 2
    of_array, of_tensor = (
        keeprate.prepare((kind(x), y)).train for kind in (np.array, torch.tensor)
    )
    assert torch.equal(of_array.inputs, of_tensor.inputs)
    assert len(of_tensor.inputs[:, 0].unique()) == len(of_tensor)


def trained(x: Any, y: Any, **options: Any) -> Any:
    config = keeprate.TrainingConfig(epochs=2, batch_size=8)
    data = keeprate.prepare((x, y), **options)
    return keeprate.train(data, schedule="constant", config=config).classifier


def test_blanks_are_refused_where_the_training_had_none_to_learn_from() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 2)), np.arange(60) % 2
    classifier = trained(x, y)
    table = pd.DataFrame(x[:3], columns=["a", "b"])
    table.loc[1, "b"] = np.nan
    with pytest.raises(InputError, match="finite"):
        classifier.predict(table)
    estimator = keeprate.NoisyLabelClassifier(schedule="constant", epochs=1, batch_size=8)
    frame = pd.DataFrame(x, columns=["a", "b"])
    estimator.fit(frame, y)
    with pytest.raises(ValueError, match="NaN"):
        estimator.predict(table)


def test_columns_by_place_are_never_ids_or_labels(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 2)), np.arange(60) % 2
    classifier = trained(x, y)
    table = pd.DataFrame({"id": range(60), "true_label": y, "p": x[:, 0], "q": x[:, 1], "label": y})
    with pytest.warns(UserWarning, match="columns p, q are taken for those of the training by"):
        found = classifier.predict_proba(table)
    np.testing.assert_allclose(found, classifier.predict_proba(x), atol=1e-6)


def test_pixels_of_another_range_are_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pixels, y = rng.integers(0, 256, (40, 8, 8), dtype=np.uint8), np.arange(40) % 2
    of_units, of_bytes = trained(pixels / 255, y), trained(pixels, y)
    with pytest.raises(InputError, match=r"pixels .* lie in \[0, 1\] as in training"):
        of_units.predict(pixels)
    with pytest.raises(InputError, match=r"pixels .* lie in 0 to 255 as in training"):
        of_bytes.predict(pixels / 255)
    same = of_bytes.predict_proba(pixels.astype(np.float32))  # the same pixels in another type
    np.testing.assert_allclose(same, of_bytes.predict_proba(pixels), atol=1e-6)


def test_numbers_as_they_are_may_be_decimals(tmp_path: Path) -> None:
    x, y = np.random.default_rng(0).normal(size=(60, 2)), np.arange(60) % 2
    classifier = trained(x, y, normalise="none")
    assert classifier.predict_proba(np.array([[1, 2]])).shape == (1, 2)  # integers, too


def test_files_of_several_kinds_are_predicted_together(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(60, 2)), columns=["a", "b"])
    data = keeprate.prepare((frame, np.arange(60) % 2))
    config = keeprate.TrainingConfig(epochs=2, batch_size=8)
    run = keeprate.train(data, schedule="constant", config=config, out=tmp_path / "run")
    frame[:10].to_csv(tmp_path / "one.csv", index=False)
    frame[10:20][["b", "a"]].to_parquet(tmp_path / "two.parquet")
    frame[20:30].to_json(tmp_path / "three.jsonl", orient="records", lines=True)
    files = [str(tmp_path / name) for name in ("two.parquet", "one.csv", "three.jsonl")]
    predict_files(tmp_path / "run", files, tmp_path / "p.csv", with_probabilities=True)
    expected = run.classifier.predict_proba(
        frame.iloc[[*range(10, 20), *range(10), *range(20, 30)]]
    )
    found = pd.read_csv(tmp_path / "p.csv")[["p(0)", "p(1)"]].to_numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
