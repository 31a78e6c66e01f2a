"""What a budget buys, and searches that live within one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import keeprate
from keeprate import searching
from keeprate.budget import FIDELITY, parse_budget, spend
from keeprate.records import load_record
from keeprate.searching import search
from keeprate.training import TrainingConfig

CONFIG = TrainingConfig(epochs=3, batch_size=64, learning_rate=3e-3)
QUICK = {"config": CONFIG, "baselines_too": False, "restarts": 1}


@pytest.fixture(scope="module")
def data():
    return keeprate.prepare("digits", noise="pairflip:0.45", seed=0)


@given(st.floats(2, 300), st.sampled_from([100, 3000, 10**6]))
def test_a_plan_uses_its_budget_and_no_more(budget: float, steps: int) -> None:
    plan = spend(budget, steps=steps)
    assert budget - 1 < plan.cost <= budget + 1e-9
    assert plan.confirm >= (plan.fidelity < 1) and plan.trials > plan.confirm
    assert plan.fidelity == (1.0 if steps == 100 else FIDELITY)


@pytest.mark.parametrize("budget", ["", "x", "1", "-3", "nan", "inf", "5 days", "0m x", None, 1.5])
def test_what_is_no_budget_is_refused(budget) -> None:
    with pytest.raises(keeprate.InputError, match="budget must be full trainings"):
        parse_budget(budget)


@pytest.mark.parametrize(
    "more", [{"trials": 5}, {"fidelity": 0.5}, {"confirm": False}, {"trials": 5, "fidelity": 0.4}]
)
def test_a_budget_is_given_alone(data, more) -> None:
    with pytest.raises(keeprate.InputError, match="budget must be given alone"):
        search(data, budget=6, **more, **QUICK)


def test_a_search_costs_what_was_said(data, tmp_path, monkeypatch) -> None:
    run = search(data, budget="5", out=tmp_path, **QUICK)
    assert run.record["plan"] == {"trials": 5, "confirm": 1, "fidelity": 1.0}
    assert run.record["cost"]["full_trainings"] == 5 and len(run.record["trials"]) == 5
    monkeypatch.setattr("keeprate.budget.ENOUGH_STEPS", 10)
    short = search(data, budget=5, **QUICK).record
    assert short["plan"]["fidelity"] == 0.4 and short["cost"]["full_trainings"] <= 5
    lengths = [len(trial["validation_score"]) for trial in short["trials"]]
    assert lengths == [1] * 7 + [3] * 2


def test_a_time_is_planned_once(data, tmp_path, monkeypatch) -> None:
    class StoppedError(Exception):
        pass

    def stop(*arguments, **options):
        raise StoppedError

    monkeypatch.setattr(searching, "affordable", lambda *_, **__: 4.2)
    with monkeypatch.context() as patch, pytest.raises(StoppedError):
        patch.setattr(searching, "_run_trials", stop)
        search(data, budget="9m", out=tmp_path, **QUICK)
    assert load_record(tmp_path)["plan"]["trials"] == 4
    monkeypatch.setattr(searching, "affordable", stop)  # not asked again
    assert len(search(data, budget="9m", out=tmp_path, **QUICK).record["trials"]) == 4


def test_a_time_buys_as_many_trainings_as_fit(data) -> None:
    found = [search(data, budget=time, **QUICK).record["plan"]["trials"] for time in ("3s", "12s")]
    assert 2 <= found[0] < found[1]
    with pytest.raises(keeprate.InputError, match="leave time for the final trainings"):
        search(data, budget="0.01s", **QUICK)
