"""What a budget buys, and searches that live within one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import keeprate
from keeprate.engine.methods import get_method
from keeprate.engine.setup import make_setup
from keeprate.records.record import TrialCounts, load_record
from keeprate.searching import request, search_run, timing
from keeprate.searching.budget import Budget
from keeprate.searching.config import SearchConfig
from tests.searches import ALONE, CONFIG, search

QUICK = {"config": CONFIG, **ALONE}

pytestmark = pytest.mark.usefixtures("no_page")


@pytest.mark.parametrize(
    "said",
    ["", "x", "1", "-3", "nan", "inf", "5 days", "0m x", None, 1.5, True, "trials", "-4trials"],
)
def test_what_is_no_budget_is_refused(said) -> None:
    with pytest.raises(keeprate.InputError, match="budget must be a number of full trainings"):
        Budget.parse(said)


def test_no_trial_is_no_budget() -> None:
    with pytest.raises(
        keeprate.InputError, match="budget must be at least one trial, got '0trials'"
    ):
        Budget.parse("0trials")


@pytest.mark.parametrize(
    ("said", "budget"),
    [
        (6, Budget(6, "trainings")),
        ("6.5", Budget(6.5, "trainings")),
        ("30m", Budget(1800, "seconds")),
        ("1.5 h", Budget(5400, "seconds")),
        ("40trials", Budget(40, "trials")),
        ("1 trial", Budget(1, "trials")),
    ],
)
def test_a_budget_is_trainings_a_time_or_trials(said, budget) -> None:
    assert Budget.parse(said) == budget


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"fidelity": 0.5}, "fidelity is"),
        ({"confirm": False}, "confirm is"),
        ({"confirm": False, "fidelity": 0.4}, "fidelity and confirm is"),
    ],
)
@pytest.mark.parametrize("budget", [6, "30m"])
def test_a_budget_of_trainings_or_time_plans_the_trials_itself(data, budget, more, named) -> None:
    with pytest.raises(keeprate.InputError, match=f"be a number of trials where {named}"):
        search(data, budget=budget, **more, **QUICK)


def test_a_search_costs_what_was_said(data, tmp_path) -> None:
    run = search(data, budget="17.9", out=tmp_path, **QUICK)
    assert run.record.trial_counts == TrialCounts(trials=16, confirm=4)
    assert run.record.first.epochs == CONFIG.epochs  # as costly as a trial: the data are few
    assert run.record.cost.full_trainings == 17 and len(run.record.trials) == 16
    again = [trial.confirms is not None for trial in run.record.trials]
    assert again == [False] * 12 + [True] * 4


@pytest.mark.parametrize("known", ["nothing wanted", "another sampler"])
def test_the_whole_budget_is_for_trials_where_no_noise_is_estimated(data, known) -> None:
    options = {
        "nothing wanted": {"warm_start": False},
        "another sampler": {"sampler": "random"},
    }[known]
    record = search(data, budget="3.9", **options, **QUICK).record
    assert record.first is None and record.trial_counts == TrialCounts(3, 0)
    assert record.cost.full_trainings == 3


@given(st.floats(2, 300), st.floats(0, 1))
def test_a_plan_uses_its_budget_and_no_more(trainings: float, before: float) -> None:
    counts = request.trial_counts(Budget(trainings, "trainings"), SearchConfig(), before)
    assert trainings - 1 < counts.trials + before <= trainings
    assert 0 <= counts.confirm < counts.trials


@pytest.mark.parametrize(("said", "trials", "confirm"), [(2, 2, 0), ("6.9", 6, 0), (16, 16, 4)])
def test_a_budget_is_so_many_trials(said, trials, confirm) -> None:
    for budget in (Budget.parse(said), Budget.parse(f"{trials}trials")):
        counts = request.trial_counts(budget, SearchConfig(), 0.0)
        assert counts == TrialCounts(trials, confirm)


def test_a_time_is_planned_once(data, tmp_path, monkeypatch) -> None:
    class StoppedError(Exception):
        pass

    def stop(*arguments, **options):
        raise StoppedError

    kept = []

    def affordable(*_, n_finals: float) -> float:
        kept.append(n_finals)
        return 4.2

    monkeypatch.setattr(search_run, "affordable", affordable)
    with monkeypatch.context() as patch, pytest.raises(StoppedError):
        patch.setattr(search_run, "_run_trials", stop)
        search(data, budget="9m", out=tmp_path, **QUICK)
    assert load_record(tmp_path).trial_counts == TrialCounts(4, 0)
    with pytest.raises(StoppedError), monkeypatch.context() as patch:
        patch.setattr(search_run, "_run_trials", stop)
        search(data, budget="9m", warm_start=False, **QUICK)
    assert kept[0] == kept[1] + 1  # time for the first training is put aside
    monkeypatch.setattr(search_run, "affordable", stop)  # not asked again
    assert len(search(data, budget="9m", out=tmp_path, **QUICK).record.trials) == 4


def test_a_time_buys_as_many_trainings_as_fit(data, monkeypatch) -> None:
    clock = [0.0]

    def train(assignment, setup, **options):
        clock[0] += 0.5 + 0.1 * (len(setup.data.train) // setup.config.batch_size)

    monkeypatch.setattr(timing, "carry_out", train)
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])
    setup = make_setup(data, model="mlp", config=CONFIG, seed=0, out=None)
    # 16 batches of 64: ten candidates take 0.5 + 16 x 0.1 s an epoch, one 0.63 s in 3 epochs.
    found = timing.affordable(12.6, setup, get_method("co-teaching"), n_finals=7.5)
    assert found == pytest.approx(12.6 / 0.63 - 7.5)
    with pytest.raises(keeprate.InputError, match=r"leave time .* got 5 s, .* about 0.6 s"):
        timing.affordable(5, setup, get_method("co-teaching"), n_finals=7.5)


def test_the_same_search_said_otherwise_goes_on(data, tmp_path) -> None:
    for name, said, otherwise in (
        ("a", {"budget": 4}, {"budget": "4.0"}),
        ("b", {"budget": "6.0"}, {}),
    ):
        first = search(data, out=tmp_path / name, **said, **QUICK)
        again = search(data, out=tmp_path / name, **otherwise, **QUICK)
        assert again.record == first.record


def test_another_budget_is_named_and_nothing_else(data, tmp_path) -> None:
    search(data, budget=2, out=tmp_path, **QUICK)
    with pytest.raises(keeprate.InputError) as error:
        search(data, budget=3, out=tmp_path, **QUICK)
    assert "(budget: 2 trainings before, 3 trainings now)" in str(error.value)
