"""What a budget buys, and searches that live within one."""

from __future__ import annotations

from dataclasses import replace

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
from keeprate.searching.stages import Stage
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

    def affordable(seconds, prices, trials, others) -> float:
        kept.append([stage.name for stage in others])
        return 4.2

    monkeypatch.setattr(search_run, "affordable", affordable)
    with monkeypatch.context() as patch, pytest.raises(StoppedError):
        patch.setattr(search_run, "_run_trials", stop)
        search(data, budget="9m", out=tmp_path, **QUICK)
    assert load_record(tmp_path).trial_counts == TrialCounts(4, 0)
    with pytest.raises(StoppedError), monkeypatch.context() as patch:
        patch.setattr(search_run, "_run_trials", stop)
        search(data, budget="9m", warm_start=False, **QUICK)
    assert kept[0] == ["noise rate", *kept[1]]  # time for the first training is put aside
    assert kept[1] == ["final trainings", "judging labels"]
    monkeypatch.setattr(search_run, "affordable", stop)  # not asked again
    assert len(search(data, budget="9m", out=tmp_path, **QUICK).record.trials) == 4


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """A machine that takes 0.3 s for a population, and for each epoch and each step some more."""
    clock = [0.0]

    def train(assignment, setup, **options):
        n_networks = 2 * len(assignment.candidates)
        n_steps = len(setup.data.train) // setup.config.batch_size
        a_step, an_epoch = 0.01 + 0.002 * n_networks, 0.1 + 0.01 * n_networks
        clock[0] += 0.3 + setup.config.epochs * (an_epoch + n_steps * a_step)

    monkeypatch.setattr(timing, "carry_out", train)
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])
    return clock


def stage(groups, n_networks=2, epochs=3, n_samples=1079, n_evaluated=359) -> Stage:
    return Stage("exploring trials", groups, n_networks, epochs, n_samples, n_evaluated)


def test_prices_follow_from_a_few_steps(data, clock) -> None:
    setup = make_setup(data, model="mlp", config=CONFIG, seed=0, out=None, lockstep=12)
    prices = timing.measure(setup, get_method("co-teaching"))
    # 16 batches of 64, 359 validation samples.
    whole = 0.3 + 3 * (0.1 + 0.01 * 20 + 16 * (0.01 + 0.002 * 20))
    assert prices.of(stage((10,))) == pytest.approx(whole)
    alone = 0.3 + 3 * (0.1 + 0.01 * 2 + 16 * (0.01 + 0.002 * 2))
    assert prices.of(stage((1,))) == pytest.approx(alone)
    assert prices.of(stage((12, 3, 12))) > prices.of(stage((27,))) - 1e-9
    assert prices.in_lockstep(stage((27, 3))) == [12, 12, 3, 3]
    five = 0.3 + 2 * (10 * (0.01 + 0.002 * 5))
    assert prices.of(stage((1,), 5, 2, 640, 0)) == pytest.approx(five)  # nothing is evaluated
    twice = 0.3 + 3 * (2 * (0.1 + 0.02) + 16 * (0.01 + 0.002 * 2))
    assert prices.of(stage((1,), n_evaluated=718)) == pytest.approx(twice)
    # One candidate at a time: a generation takes ten times as long.
    setup = replace(setup, lockstep=1)
    prices = timing.measure(setup, get_method("co-teaching"))
    assert prices.of(stage((10,))) == pytest.approx(10 * alone)


def test_few_slow_steps_are_timed(data, clock, monkeypatch) -> None:
    trained, fast = [], timing.carry_out

    def slow(assignment, setup, **options):
        trained.append((setup.config.epochs, len(setup.data.train) // setup.config.batch_size))
        fast(assignment, setup, **options)
        clock[0] += 20 * setup.config.epochs * len(setup.data.train) // setup.config.batch_size

    monkeypatch.setattr(timing, "carry_out", slow)
    setup = make_setup(data, model="mlp", config=CONFIG, seed=0, out=None, lockstep=1)
    prices = timing.measure(setup, get_method("co-teaching"))
    assert set(trained) == {(1, 1), (1, 2)}
    assert prices.step.of(2) == pytest.approx(20, rel=0.05)


def test_a_time_buys_as_many_trainings_as_fit(data, clock) -> None:
    setup = make_setup(data, model="mlp", config=CONFIG, seed=0, out=None, lockstep=10)
    prices = timing.measure(setup, get_method("co-teaching"))
    one, others = prices.of(stage((10,))) / 10, [stage((3,)), stage((1,))]
    for_others = sum(map(prices.of, others))
    found = timing.affordable(20.0, prices, stage((10,)), others)
    assert found == pytest.approx((20.0 - for_others) / one)
    with pytest.raises(keeprate.InputError, match=r"leave time .* got 2 s, .* about 0.4 s"):
        timing.affordable(2, prices, stage((10,)), others)


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
