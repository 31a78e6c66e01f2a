"""What a budget buys, and searches that live within one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import keeprate
from keeprate.engine.methods import get_method
from keeprate.engine.setup import make_setup
from keeprate.records.record import load_record
from keeprate.searching import budget, search_run
from keeprate.searching.budget import parse_budget
from tests.searches import ALONE, CONFIG, search

QUICK = {"config": CONFIG, **ALONE}


@pytest.mark.parametrize("said", ["", "x", "1", "-3", "nan", "inf", "5 days", "0m x", None, 1.5])
def test_what_is_no_budget_is_refused(said) -> None:
    with pytest.raises(keeprate.InputError, match="budget must be full trainings"):
        parse_budget(said)


@pytest.mark.parametrize(
    "more", [{"trials": 5}, {"fidelity": 0.5}, {"confirm": False}, {"trials": 5, "fidelity": 0.4}]
)
def test_a_budget_is_given_alone(data, more) -> None:
    with pytest.raises(keeprate.InputError, match="budget must be given alone"):
        search(data, budget=6, **more, **QUICK)


def test_a_search_costs_what_was_said(data, tmp_path) -> None:
    run = search(data, budget="16.9", out=tmp_path, **QUICK)
    assert run.record["plan"] == {"trials": 16, "confirm": 4}
    assert run.record.cost["full_trainings"] == 16 and len(run.record.trials) == 16
    again = [trial.confirms is not None for trial in run.record.trials]
    assert again == [False] * 12 + [True] * 4


@given(st.floats(2, 300))
def test_a_plan_uses_its_budget_and_no_more(trainings: float) -> None:
    trials, confirm = search_run._plan(trainings)
    assert trainings - 1 < trials <= trainings and 0 <= confirm < trials


@pytest.mark.parametrize(("budget", "plan"), [(2, (2, 0)), ("6.9", (6, 0)), (16, (16, 4))])
def test_a_budget_is_so_many_trials(budget, plan) -> None:
    assert search_run._planned(budget, None, 1.0, True) == plan
    assert search_run._planned(None, plan[0], 1.0, True) == plan


def test_a_time_is_planned_once(data, tmp_path, monkeypatch) -> None:
    class StoppedError(Exception):
        pass

    def stop(*arguments, **options):
        raise StoppedError

    monkeypatch.setattr(search_run, "affordable", lambda *_, **__: 4.2)
    with monkeypatch.context() as patch, pytest.raises(StoppedError):
        patch.setattr(search_run, "_run_trials", stop)
        search(data, budget="9m", out=tmp_path, **QUICK)
    assert load_record(tmp_path)["plan"]["trials"] == 4
    monkeypatch.setattr(search_run, "affordable", stop)  # not asked again
    assert len(search(data, budget="9m", out=tmp_path, **QUICK).record.trials) == 4


def test_a_time_buys_as_many_trainings_as_fit(data, monkeypatch) -> None:
    clock = [0.0]

    def train(numbers, schedules, setup, *, data, **options):
        clock[0] += 0.5 + 0.1 * (len(data.train) // setup.config.batch_size)

    monkeypatch.setattr(budget, "train_schedules", train)
    monkeypatch.setattr(budget.time, "perf_counter", lambda: clock[0])
    setup = make_setup(
        data, model="mlp", config=CONFIG, seed=0, out=None, lockstep=None, progress=None
    )
    # 16 batches of 64: ten candidates take 0.5 + 16 x 0.1 s an epoch, one 0.63 s in 3 epochs.
    found = budget.affordable(12.6, setup, get_method("co-teaching"), n_finals=7.5)
    assert found == pytest.approx(12.6 / 0.63 - 7.5)
    with pytest.raises(keeprate.InputError, match=r"leave time .* got 5 s, .* about 0.6 s"):
        budget.affordable(5, setup, get_method("co-teaching"), n_finals=7.5)


def test_the_same_search_said_otherwise_goes_on(data, tmp_path) -> None:
    for name, said, otherwise in (
        ("a", {"budget": 4}, {"budget": "4.0"}),
        ("b", {"trials": 40}, {}),
    ):
        first = search(data, out=tmp_path / name, **said, **QUICK)
        again = search(data, out=tmp_path / name, **otherwise, **QUICK)
        assert again.record == first.record
