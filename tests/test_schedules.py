"""Schedules: what they hold, how they are shown, saved and read."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keeprate.errors import InputError
from keeprate.schedules.schedule import Schedule, as_schedule

rates = st.lists(st.floats(0, 1), min_size=1, max_size=30)


def test_schedule_is_a_read_only_copy():
    given_numbers = np.array([1.0, 0.5])
    schedule = Schedule(given_numbers, "mine", {"a": 1})
    given_numbers[0] = 0
    assert schedule.keep_rate.tolist() == [1, 0.5]
    with pytest.raises(ValueError, match="read-only"):
        schedule.keep_rate[0] = 0
    with pytest.raises(TypeError):
        schedule.parameters["a"] = 2
    assert len(schedule) == 2


PARAMETERS = {f"u{i}": i / 13 for i in range(1, 13)}


@pytest.mark.parametrize(
    ("schedule", "as_repr", "as_text"),
    [
        (
            Schedule([0.5], "constant"),
            "Schedule('constant', 1 epoch, R: 0.50)",
            "constant, 1 epoch\n▅\nR at epoch 1: 0.50",
        ),
        (
            Schedule(np.linspace(1, 0.38, 40), "basis", PARAMETERS),
            "Schedule('basis', 40 epochs, R: 1.00 -> 0.38)",
            "basis, 40 epochs: u1 = 0.0769, u2 = 0.154, u3 = 0.231, u4 = 0.308, u5 = 0.385, …\n"
            "█████▇▇▇▇▇▇▇▇▇▆▆▆▆▆▆▆▆▆▅▅▅▅▅▅▅▅▅▄▄▄▄▄▄▄▄\n"
            "R at epoch 1: 1.00, 11: 0.84, 20: 0.70, 30: 0.54, 40: 0.38",
        ),
        (
            Schedule([1.0] * 250 + [0.0] * 250, "a name\n" + "of many words " * 20),
            "Schedule('a name of many words of many words of m…', 500 epochs, R: 1.00 -> 0.00)",
            "a name of many words of many words of m…, 500 epochs\n"
            f"{'█' * 30}{'▁' * 30}\n"
            "R at epoch 1: 1.00, 126: 1.00, 250: 1.00, 375: 0.00, 500: 0.00",
        ),
    ],
    ids=["1 epoch", "40 epochs", "500 epochs"],
)
def test_a_schedule_fits_on_a_screen(schedule: Schedule, as_repr: str, as_text: str) -> None:
    assert repr(schedule) == as_repr and str(schedule) == as_text
    assert max(map(len, [as_repr, *as_text.splitlines()])) <= 90


@given(keep_rate=st.lists(st.floats(0, 1), min_size=1, max_size=300))
def test_every_schedule_can_be_drawn(keep_rate):
    title, sparkline, values = str(Schedule(keep_rate)).splitlines()
    assert len(sparkline) == min(60, len(keep_rate)) and set(sparkline) <= set("▁▂▃▄▅▆▇█")
    assert values.endswith(f"{len(keep_rate)}: {keep_rate[-1]:.2f}")
    assert title.startswith("custom, ")


def test_schedules_compare_by_content():
    same = [Schedule([1, 0.5], "x", {"a": 1}) for _ in range(2)]
    assert same[0] == same[1] and len(set(same)) == 1
    assert Schedule([0.0]) == Schedule([-0.0]) and len({Schedule([0.0]), Schedule([-0.0])}) == 1
    others = (Schedule([1, 0.4], "x", {"a": 1}), Schedule([1, 0.5], "y", {"a": 1}))
    assert all(same[0] != other for other in (*others, Schedule([1, 0.5], "x"), [1, 0.5]))
    assert copy.deepcopy(same[0]) == same[0] == pickle.loads(pickle.dumps(same[0]))


@pytest.mark.parametrize(
    ("keep_rate", "message"),
    [
        ([0.5] * 36 + [1.2], r"keep_rate must lie in \[0, 1\], got 1.2 at epoch 37; clip the"),
        ([0.5, -0.1], "got -0.1 at epoch 2"),
        ([np.nan], "got nan at epoch 1"),
        ([np.inf], "got inf at epoch 1"),
        ([], r"shape \(0,\)"),
        ([[0.5]], r"shape \(1, 1\)"),
        (0.5, r"shape \(\)"),
        (["a"], "row of numbers"),
        ([[1], [1, 2]], "row of numbers"),
    ],
)
def test_schedule_says_what_is_wrong(keep_rate, message):
    with pytest.raises(InputError, match=message):
        Schedule(keep_rate)


@settings(max_examples=25)
@given(keep_rate=rates, value=st.floats(allow_nan=False, allow_infinity=False))
def test_json_keeps_everything_bit_for_bit(tmp_path_factory, keep_rate, value):
    path = tmp_path_factory.getbasetemp() / "schedule.json"
    schedule = Schedule(keep_rate, "näme", {"tau": value})
    schedule.save(path)
    loaded = Schedule.load(path)
    assert loaded == schedule
    assert loaded.keep_rate.tobytes() == schedule.keep_rate.tobytes()


@settings(max_examples=25)
@given(keep_rate=rates)
def test_csv_keeps_the_numbers_bit_for_bit(tmp_path_factory, keep_rate):
    path = tmp_path_factory.getbasetemp() / "schedule.CSV"
    schedule = Schedule(keep_rate, "name")
    schedule.save(path)
    assert Schedule.load(path).keep_rate.tobytes() == schedule.keep_rate.tobytes()


def test_csv_counts_epochs_from_one(tmp_path: Path):
    Schedule([1.0, 0.1]).save(tmp_path / "s.csv")
    assert (tmp_path / "s.csv").read_text() == "epoch,keep_rate\n1,1.0\n2,0.1\n"


def test_csv_from_a_spreadsheet(tmp_path: Path):
    (tmp_path / "s.csv").write_bytes(b"\xef\xbb\xbfepoch, keep_rate\r\n1, 1\r\n2,0.5\r\n\r\n")
    assert Schedule.load(tmp_path / "s.csv").keep_rate.tolist() == [1, 0.5]


@pytest.mark.parametrize("name", ["s.txt", "s", "s.json.gz"])
def test_other_suffixes_are_refused(tmp_path: Path, name):
    with pytest.raises(InputError, match=r"path must end in .json or .csv"):
        Schedule([1.0]).save(tmp_path / name)
    with pytest.raises(InputError, match=r"path must end in .json or .csv"):
        Schedule.load(tmp_path / name)


@pytest.mark.parametrize("suffix", ["json", "csv"])
def test_missing_files(tmp_path: Path, suffix):
    with pytest.raises(InputError, match="could not be read"):
        Schedule.load(tmp_path / f"none.{suffix}")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("s.json", "{", "must be a JSON file"),
        ("s.json", "{}", "list of numbers named keep_rate"),
        ("s.json", json.dumps({"keep_rate": [1, "a"]}), "list of numbers"),
        ("s.json", json.dumps({"keep_rate": [True]}), "list of numbers"),
        ("s.json", json.dumps({"keep_rate": [1], "parameters": {"a": "b"}}), "list of numbers"),
        ("s.json", json.dumps({"keep_rate": [1, 2]}), r"s.json: keep_rate must .* at epoch 2"),
        ("s.csv", "", "start with the line epoch,keep_rate"),
        ("s.csv", "1,1.0\n", "start with the line epoch,keep_rate, got '1,1.0'"),
        ("s.csv", "epoch,keep_rate\n1,1.0\n3,0.5\n", "epoch 2, got '3,0.5'"),
        ("s.csv", "epoch,keep_rate\n1,1.0\n2\n", "epoch 2, got '2'"),
        ("s.csv", "epoch,keep_rate\n1,high\n", "epoch 1, got '1,high'"),
        ("s.csv", "epoch,keep_rate\n1,nan\n", "s.csv: keep_rate must lie"),
        ("s.csv", "epoch,keep_rate\n", "s.csv: keep_rate must be one row"),
        ("s.csv", b"\xff\xfe\x00", "must be a text file"),
    ],
)
def test_damaged_files(tmp_path: Path, name, content, message):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message):
        Schedule.load(tmp_path / name)


# as_schedule


def test_as_schedule_accepts_what_users_have():
    schedule = Schedule([0.9, 0.8], "mine")
    assert as_schedule(schedule, 2) is schedule
    assert as_schedule([0.9, 0.8], 2).keep_rate.tolist() == [0.9, 0.8]
    asked: list[int] = []
    made = as_schedule(lambda epoch: asked.append(epoch) or 1 / epoch, 3)
    assert asked == [1, 2, 3]
    assert made.keep_rate == pytest.approx([1, 1 / 2, 1 / 3])


@pytest.mark.parametrize("value", [Schedule([1.0, 0.9]), [1.0, 0.9], np.array([1.0, 0.9])])
def test_as_schedule_names_both_lengths(value):
    with pytest.raises(InputError, match="each of the 3 epochs, got 2 numbers; make the schedule"):
        as_schedule(value, 3)


def test_as_schedule_checks_what_a_callable_returns():
    with pytest.raises(InputError, match=r"got -1.0 at epoch 2"):
        as_schedule(lambda epoch: 1 - 2 * (epoch == 2), 3)
