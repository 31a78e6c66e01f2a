"""Labels as people write them, and what a trained network takes for the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keeprate.data.labels import check_labels, match_labels, written_labels
from keeprate.data.sources import load_data
from keeprate.errors import InputError
from tests.sources import pa, pq, write_csv


def column(items: list[Any]) -> np.ndarray:
    values = np.empty(len(items), dtype=object)
    values[:] = items
    return values


def csv_classes(folder: Path, labels: list[str]) -> tuple[str, ...]:
    rows = [[i / 7, label] for i, label in enumerate(labels)]
    return load_data(write_csv(folder / "t.csv", ["a", "label"], rows)).class_names


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["007", "010", "7"], ("007", "010", "7")),
        (["1e5", "100000", "2e5"], ("100000", "1e5", "2e5")),
        (["+1", "1"], ("+1", "1")),
        (["0x1", "1"], ("0x1", "1")),
        (["10", "9", "-1"], ("-1", "9", "10")),
        (["1.0", "2.0", "10.0"], ("1", "2", "10")),
        (["NA", "None", "null"], ("NA", "None", "null")),
        (["18446744073709551615", "18446744073709551614"], None),
        (["9223372036854775808", "9223372036854775813"], None),
        (["True", "false"], ("True", "false")),
        (["a b", "a  b"], ("a  b", "a b")),
    ],
)
def test_class_names_stay_as_they_are_written(
    labels: list[str], names: tuple[str, ...] | None, tmp_path: Path
) -> None:
    assert csv_classes(tmp_path, labels) == (names or tuple(sorted(labels)))


@given(st.lists(st.from_regex(r"[0-9]{1,3}", fullmatch=True), min_size=2, unique=True))
def test_different_codes_are_different_classes(codes: list[str]) -> None:
    values = written_labels(column(codes))
    assert len(set(values.tolist())) == len(codes)
    assert {str(value) for value in values} == set(codes)


@pytest.mark.parametrize("missing", ["", "nan", "NaN", "inf", "-inf"])
def test_rows_without_a_label_are_left_out_and_counted(missing: str, tmp_path: Path) -> None:
    rows = [[0.5, "0"], [1.5, missing], [2.5, "1"], [3.5, "1"]]
    loaded = load_data(write_csv(tmp_path / "t.csv", ["a", "label"], rows))
    train = loaded.splits["train"]
    assert loaded.class_names == ("0", "1")
    assert train.labels.tolist() == [0, 1, 1]
    assert train.rows.tolist() == [0, 2, 3]  # as the file counts them
    assert train.inputs[:, 0].tolist() == [0.5, 2.5, 3.5]
    assert any("1 rows without a label were left out" in note for note in loaded.notes)


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (np.array([2**63 + 5, 2**63 + 9, 3], np.uint64), {str(2**63 + 5), str(2**63 + 9), "3"}),
        (np.array([0.0, 1.0, np.inf]), {"0", "1"}),
        (np.array([1.0, 2.0**60, np.nan]), {"1", str(2**60)}),
        (np.array([7, -8, 7], np.int8), {"7", "-8"}),
    ],
)
def test_labels_of_parquet_never_overflow(labels: np.ndarray, names: set[str], tmp_path: Path):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"a": [0.5, 1.5, 2.5], "label": labels}), path)
    assert set(load_data(path).class_names) == names


def test_python_integers_beyond_int64_keep_their_digits() -> None:
    assert check_labels([2**70, 2**70 + 1], "here").tolist() == [str(2**70), str(2**70 + 1)]


def test_a_column_of_labels_may_be_two_dimensional() -> None:
    assert check_labels(np.array([[1], [0]]), "here").tolist() == [1, 0]


def test_lists_of_several_labels_are_refused() -> None:
    with pytest.raises(InputError, match="several labels a sample cannot be trained on"):
        load_data((np.zeros((2, 1)), [[0], [0, 1]]))


def test_a_measurement_is_no_label(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"be classes, got fractions such as 0\.5"):
        csv_classes(tmp_path, ["0.5", "1", "2.0"])


NAMES = ("1", "2", "10")


@pytest.mark.parametrize(
    ("labels", "classes", "names", "found"),
    [
        (column(["10", "1", "3", ""]), NAMES, None, [2, 0, -1, -1]),
        (column(["1.0", "2.", " 10 "]), NAMES, None, [0, 1, 2]),
        (np.array([1.0, 10.0, np.nan, np.inf, 1.5]), NAMES, None, [0, 2, -1, -1, -1]),
        (np.array([2, -1, 10]), NAMES, None, [1, -1, 2]),
        (np.array([2, 10], np.uint8), NAMES, None, [1, 2]),
        (np.array([True, False]), ("False", "True"), None, [1, 0]),
        (column(["TRUE", "false", "yes"]), ("False", "True"), None, [1, 0, -1]),
        (np.array([1, 0, 7]), ("cat", "dog"), ("dog", "cat"), [0, 1, -1]),
        (column(["dog", "DOG", None]), ("cat", "dog"), None, [1, -1, -1]),
        (column(["007", "7"]), ("007", "7"), None, [0, 1]),
    ],
)
def test_labels_of_new_data_are_matched(
    labels: np.ndarray,
    classes: tuple[str, ...],
    names: tuple[str, ...] | None,
    found: list[int],
) -> None:
    numbers, note = match_labels(labels, classes, names)
    assert numbers.tolist() == found
    assert note == ""


def test_codes_stand_for_named_classes_only_if_no_label_is_a_name() -> None:
    numbers, note = match_labels(np.array([1, 0, -1, 2]), ("cat", "dog"))
    assert numbers.tolist() == [1, 0, -1, -1]
    assert "codes 0 to 1" in note
    numbers, note = match_labels(column(["cat", "1"]), ("cat", "dog"))
    assert numbers.tolist() == [0, -1]
    assert note == ""
