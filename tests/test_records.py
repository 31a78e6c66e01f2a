"""Run records as files: what comes back, and what is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keeprate.errors import InputError
from keeprate.files import write_json
from keeprate.records import (
    FirstTraining,
    RestartSummary,
    RunRecord,
    TrialCounts,
    load_record,
    save_record,
)
from keeprate.records.record import MOST_CLASSES, RECORD_FILE, SCHEMA_VERSION
from tests.report_records import make_estimate, make_finished_record, make_record

Plain = dict[str, Any]


def full_record() -> RunRecord:
    """A record with something in every field."""
    record = make_finished_record(("cat", "dog", 'an "owl"\n'))
    own, *others = record.results
    own = replace(
        own,
        finalist=1,
        restarts=(RestartSummary(0, None, 1.5), RestartSummary(1, 0.95, 1.7)),
        transition_matrix=np.array([[0.9, 0.1, 0.0], [0.0, 1.0, 0.0], [0.25, 0.25, 0.5]]),
        transition_error=0.125,
    )
    trials = (*record.trials[:-1], replace(record.trials[-1], confirms=7))
    return replace(
        record,
        config={"seed": 0, "baselines": True, "training": {"epochs": 40, "precision": None}},
        trials=trials,
        finalists=((7, 39), (2,)),
        first=FirstTraining(0.43, 10, 2.5),
        results=(own, *others),
        added=(TrialCounts(5, 0), TrialCounts(8, 2)),
        is_adding=True,
    )


def assert_same(first: Any, second: Any) -> None:
    """Compare two records field by field; arrays have no truth value of their own."""
    assert type(first) is type(second)
    if isinstance(first, np.ndarray):
        assert first.dtype == second.dtype
        np.testing.assert_array_equal(first, second)
    elif hasattr(first, "__dataclass_fields__") and type(first).__name__ != "Schedule":
        for name in first.__dataclass_fields__:
            assert_same(getattr(first, name), getattr(second, name))
    elif isinstance(first, tuple | list):
        assert len(first) == len(second)
        for one, other in zip(first, second, strict=True):
            assert_same(one, other)
    else:
        assert first == second


def test_a_record_has_something_in_every_field() -> None:
    record, empty = full_record(), RunRecord("", "", {}, {}, make_record().data)
    for name in RunRecord.__dataclass_fields__:
        if name != "data":
            assert getattr(record, name), name
    assert not empty.results


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    record = full_record()
    save_record(tmp_path, record)
    assert_same(load_record(tmp_path), record)


def test_a_record_that_has_just_begun_comes_back(tmp_path: Path) -> None:
    record = RunRecord("train", "", {}, {}, make_record().data)
    save_record(tmp_path, record)
    assert_same(load_record(tmp_path), record)
    assert not load_record(tmp_path).finished


def test_a_file_says_what_people_look_for(tmp_path: Path) -> None:
    record = full_record()
    save_record(tmp_path, record)
    plain = json.loads((tmp_path / RECORD_FILE).read_text())
    assert plain["schema_version"] == SCHEMA_VERSION == 3
    for entry, result in zip(plain["results"], record.results, strict=True):
        assert entry["last"]["epoch"] == 40
        assert entry["last"]["test_accuracy"] == result.curves.test_accuracy[-1]
        assert entry["best"]["test_accuracy"] == max(result.curves.test_accuracy)
        assert entry["seconds"] == result.seconds
    assert plain["results"][0]["seconds"] == pytest.approx(3.2)  # of both restarts
    # The numbers for people are derived anew, not read.
    plain["results"][0]["last"]["test_accuracy"] = 1.0
    (tmp_path / RECORD_FILE).write_text(json.dumps(plain))
    assert_same(load_record(tmp_path), record)


def test_the_best_epoch_without_a_test_split_is_by_validation() -> None:
    result = make_record().results[1]
    curves = replace(result.curves, test_accuracy=[], validation_score=[0.1, 0.9] + [0.5] * 38)
    result = replace(result, curves=curves)
    assert result.best.epoch == 2
    assert result.best.test_accuracy is None and result.last.epoch == 40


@pytest.mark.parametrize(
    ("version", "words"),
    [
        (SCHEMA_VERSION - 1, "an earlier keeprate (schema 2, this one reads 3)"),
        (1, "an earlier keeprate (schema 1, this one reads 3)"),
        (0, "an earlier keeprate (schema 0, this one reads 3)"),
        (None, "must hold a schema_version, got None"),
        ("3", "must hold a schema_version, got '3'"),
        (3.0, "must hold a schema_version, got 3.0"),
        (True, "must hold a schema_version, got True"),
        (SCHEMA_VERSION + 1, "a later keeprate (schema 4, this one reads 3); update keeprate"),
    ],
)
def test_other_versions_are_refused(version: int, words: str, tmp_path: Path) -> None:
    save_record(tmp_path, make_record())
    path = tmp_path / RECORD_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": version}))
    with pytest.raises(InputError, match=re.escape(words)) as caught:
        load_record(tmp_path)
    assert str(path) in str(caught.value)


def only_the_kind(plain: Plain) -> None:
    version = plain["schema_version"]
    plain.clear()
    plain |= {"schema_version": version, "kind": "search"}


def a_word_for_a_number(plain: Plain) -> None:
    plain["data"]["n_train"] = "many"


def a_gap_in_a_curve(plain: Plain) -> None:
    plain["results"][1]["curves"]["test_accuracy"][5] = None


def no_curves(plain: Plain) -> None:
    del plain["results"][0]["curves"]


def a_state_that_is_no_word(plain: Plain) -> None:
    plain["trials"][2]["state"] = 7


def a_number_for_a_suspect(plain: Plain) -> None:
    plain["suspects"][0] = 5


def a_matrix_of_words(plain: Plain) -> None:
    plain["noise_estimate"]["transition_matrix"] = [["a"]]


def a_keep_rate_out_of_range(plain: Plain) -> None:
    plain["results"][0]["schedule"]["keep_rate"][3] = 1.5


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (only_the_kind, "missing required field `command`"),
        (a_word_for_a_number, "Expected `int`, got `str` - at `$.data.n_train`"),
        (
            a_gap_in_a_curve,
            "Expected `float`, got `null` - at `$.results[1].curves.test_accuracy[5]`",
        ),
        (no_curves, "missing required field `curves` - at `$.results[0]`"),
        (a_state_that_is_no_word, "Expected `str`, got `int` - at `$.trials[2].state`"),
        (a_number_for_a_suspect, "got `int` - at `$.suspects[0]`"),
        (a_matrix_of_words, "at `$.noise_estimate.transition_matrix`"),
        (a_keep_rate_out_of_range, "- at `$.results[0].schedule`"),
    ],
)
def test_damaged_records_are_refused(
    damage: Callable[[Plain], None], words: str, tmp_path: Path
) -> None:
    save_record(tmp_path, full_record())
    path = tmp_path / RECORD_FILE
    plain = json.loads(path.read_text())
    damage(plain)
    path.write_text(json.dumps(plain))
    with pytest.raises(InputError, match=re.escape(words)) as caught:
        load_record(tmp_path)
    assert str(path) in str(caught.value) and "is damaged" in str(caught.value)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"kind": NaN}', "null"])
def test_files_that_hold_no_record_are_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / RECORD_FILE).write_text(content)
    with pytest.raises(InputError, match=re.escape(str(tmp_path / RECORD_FILE))):
        load_record(tmp_path)


def test_a_folder_without_a_record_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="could not be read"):
        load_record(tmp_path)


@pytest.mark.parametrize("n_classes", [MOST_CLASSES, MOST_CLASSES + 1])
def test_large_matrices_are_kept_in_memory_only(n_classes: int, tmp_path: Path) -> None:
    record = make_record()
    names = tuple(str(number) for number in range(n_classes))
    record = replace(record, data=replace(record.data, class_names=names))
    estimate = make_estimate(n_classes)
    own = replace(record.results[0], transition_matrix=estimate.transition_matrix)
    record = replace(record, noise_estimate=estimate, results=(own, *record.results[1:]))
    save_record(tmp_path, record)
    assert own.transition_matrix is not None and len(own.transition_matrix) == n_classes
    loaded = load_record(tmp_path)
    assert loaded.noise_estimate is not None and loaded.noise_estimate.noise_rate == 0.4
    if n_classes <= MOST_CLASSES:
        assert_same(loaded, record)
    else:
        assert loaded.noise_estimate.transition_matrix is None
        assert loaded.noise_estimate.transition_matrix_std is None
        assert loaded.results[0].transition_matrix is None
        assert (tmp_path / RECORD_FILE).stat().st_size < 500_000
    assert loaded.results[0].schedule == own.schedule


# JSON ------------------------------------------------------------------------------------------

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.text()
    | st.floats(allow_nan=False, allow_infinity=False)
)
keys = st.text() | st.integers() | st.booleans() | st.none()
nested = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(keys, inner) | st.tuples(inner, inner)
)


@given(nested)
def test_a_json_file_holds_what_was_written(value: object) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.json"
        write_json(path, {"value": value})
        assert json.loads(path.read_text()) == json.loads(json.dumps({"value": value}))


def test_a_list_of_numbers_is_one_line_and_nan_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"a": [1, 2.5], "b": [[1], {}], "c": {"d": ()}})
    expected = '{\n "a": [1, 2.5],\n "b": [\n  [1],\n  {}\n ],\n "c": {\n  "d": []\n }\n}\n'
    assert path.read_text() == expected
    for wrong in ({"a": [float("nan")]}, {"a": {"b": float("inf")}}, {float("nan"): 1}):
        with pytest.raises(ValueError, match="Out of range"):
            write_json(path, wrong)
    assert path.read_text() == expected  # whole, as before
