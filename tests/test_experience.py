"""What searches begin with, and the process that proposes schedules."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.samplers import PartialFixedSampler
from optuna.trial import FrozenTrial, TrialState, create_trial

import keeprate
from keeprate.records.record import load_record
from keeprate.schedules import get_space
from keeprate.searching.experience import (
    LARGEST_DROP,
    LARGEST_GAP,
    MARKS,
    NOISE,
    OWN,
    SCALES,
    Belief,
    Conditions,
    Experience,
    Kernel,
    Task,
    experience_digest,
    shipped_experience,
    standard_scores,
)
from keeprate.searching.process_sampler import MOST, GaussianProcessSampler
from keeprate.searching.request import Request
from tests.searches import ALONE, CONFIG, search

PAIRFLIP = Conditions(0.45, 0.82, 0.2)
EPOCHS = 12


# Drops -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("epochs", [1, 2, 5, MARKS, 31, 200])
def test_a_drop_is_interpolated_and_a_share_of_the_noise_rate(epochs: int) -> None:
    rng = np.random.default_rng(epochs)
    rates = 1 - 0.4 * rng.random((3, epochs))
    drops = Conditions(0.4, 0.1, 0.2).drops(rates)
    assert drops.shape == (3, MARKS)
    at = np.linspace(0, epochs - 1, MARKS)
    for drop, row in zip(drops, rates, strict=True):
        assert drop == pytest.approx((1 - np.interp(at, np.arange(epochs), row)) / 0.4)
    assert drops[:, 0] == pytest.approx((1 - rates[:, 0]) / 0.4)
    assert drops[:, -1] == pytest.approx((1 - rates[:, -1]) / 0.4)


def test_a_drop_has_limits() -> None:
    nothing, everything = np.zeros((1, 20)), np.ones((1, 20))
    for rate in (0.0, 0.1, 0.9):
        conditions = Conditions(rate, 0.0, 0.2)
        assert (conditions.drops(everything) == 0).all()
        assert conditions.drops(nothing).max() == pytest.approx(
            min(1 / max(rate, 0.05), LARGEST_DROP)
        )
    # Without noise a drop is not infinite: one of a twentieth is 1.
    assert Conditions(0.0, 0.0, 0.2).drops(np.full((1, 3), 0.95)) == pytest.approx(
        np.ones((1, MARKS))
    )


def test_a_level_by_its_rate_lies_between_symmetric_and_pairflip_noise() -> None:
    for rate in (0.05, 0.2, 0.45):
        conditions, odds = Conditions.of_rate(rate, 0.2), rate / (1 - rate)
        assert conditions.noise_rate == rate and odds / 9 < conditions.rival_share < odds
    assert Conditions.of_rate(0.0, 0.2) == Conditions(0.0, 0.0, 0.2)
    assert Conditions.of_rate(0.9, 0.2).rival_share <= 1


def test_scores_have_a_common_scale() -> None:
    values = np.random.default_rng(0).random(101)
    scores = standard_scores(values)
    good, fair = np.quantile(values, (0.9, 0.3))
    assert scores[values == good] == pytest.approx(0) and scores[values == fair] == pytest.approx(
        -1
    )
    assert standard_scores(3 * values + 7) == pytest.approx(scores)
    assert standard_scores([*values, -50.0]).min() == -3
    assert np.isfinite(standard_scores([0.5] * 9)).all()


# The process -------------------------------------------------------------------------------------

KERNEL = Kernel(0.7, 0.2, 0.4, 0.15, 1.0, 0.6, 0.15, 0.5, 0.05)


def made_up(n: int, conditions: Conditions, seed: int) -> Task:
    rng = np.random.default_rng(seed)
    drops = np.cumsum(rng.random((n, MARKS)), 1) / 6
    return Task(conditions, drops, rng.normal(size=n))


TASKS = (
    made_up(7, Conditions(0.1, 0.02, 0.2), 1),
    made_up(5, Conditions(0.4, 0.6, 0.4), 2),
    made_up(9, Conditions(0.4, 0.6, 0.4), 3),  # the same noise is not the same data
)
HERE = Conditions(0.35, 0.5, 0.2)
Row = tuple[np.ndarray, Conditions, int]  # a drop, its conditions, its data


def covariance_of(a: Row, b: Row, own: float) -> float:
    """Of the scores of two schedules, as the docstring of `Kernel` has it; 0 is the data here."""
    apart = np.square(a[0] - b[0]).mean()
    noise = ((a[1].noise_rate - b[1].noise_rate) / KERNEL.noise_rate_length) ** 2
    noise += ((a[1].rival_share - b[1].rival_share) / KERNEL.rival_share_length) ** 2
    noise += ((a[1].loss_gap - b[1].loss_gap) / KERNEL.loss_gap_length) ** 2
    found = (KERNEL.shared * np.exp(-noise / 2) + KERNEL.always) * np.exp(
        -apart / (2 * KERNEL.drop_length**2)
    )
    if a[2] == b[2]:
        factor = own if a[2] == 0 else 1.0
        found += factor * KERNEL.own * np.exp(-apart / (2 * KERNEL.own_length**2))
    return float(found)


def directly(
    seen: list[Row], scores: np.ndarray, noise: np.ndarray, others: list[Row], own: float
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of others, given all that was seen at once."""
    rows = [*seen, *others]
    whole = np.array([[covariance_of(a, b, own) for b in rows] for a in rows])
    n = len(seen)
    known = whole[:n, :n] + np.diag(noise)
    between = whole[n:, :n]
    everywhere = BANK_SCORES.mean()  # the mean of the process
    mean = everywhere + between @ np.linalg.solve(known, scores - everywhere)
    return mean, whole[n:, n:] - between @ np.linalg.solve(known, between.T)


BANK: list[Row] = [(drop, t.conditions, i) for i, t in enumerate(TASKS, 1) for drop in t.drops]
BANK_SCORES = np.concatenate([task.scores for task in TASKS])


def rows_here(points: np.ndarray) -> list[Row]:
    return [(point, HERE, 0) for point in points]


def test_a_belief_is_what_all_data_say_together() -> None:
    points = made_up(4, HERE, 9).drops
    belief = Experience(TASKS, KERNEL).belief(HERE)
    noise = np.full(len(BANK), KERNEL.noise)
    for own in OWN:
        mean, covariance = belief.expect(points, own)
        expected = directly(BANK, BANK_SCORES, noise, rows_here(points), own)
        assert mean == pytest.approx(expected[0], abs=1e-8)
        assert covariance == pytest.approx(expected[1], abs=1e-8)
    assert belief.mean(points) == pytest.approx(mean, abs=1e-10)
    rates = 1 - 0.35 * points  # a drop again
    assert belief.describe(rates) == pytest.approx(np.minimum(points, LARGEST_DROP))


@pytest.mark.parametrize("n", [1, 2, 6])
def test_what_is_learnt_is_what_all_data_say_together(n: int) -> None:
    """For the likeliest scale, offset and numbers of the kernel, found by trying all."""
    belief = Experience(TASKS, KERNEL).belief(HERE)
    seen, others = made_up(n, HERE, 20 + n), made_up(4, HERE, 9).drops
    values = 0.9 + 0.03 * seen.scores
    bank_noise, best = np.full(len(BANK), KERNEL.noise), None
    for own, noise, factor in itertools.product(OWN, NOISE, SCALES):
        scale = factor * (values.std() or 1.0)
        mean, covariance = directly(BANK, BANK_SCORES, bank_noise, rows_here(seen.drops), own)
        noisy = covariance + noise * KERNEL.noise * np.eye(n)
        error = values / scale - mean
        ones = np.linalg.solve(noisy, np.ones(n))
        error = error - ones @ error / ones.sum()
        likelihood = -0.5 * (
            error @ np.linalg.solve(noisy, error)
            + np.linalg.slogdet(noisy)[1]
            + 2 * n * np.log(scale)
            + np.log(noise) ** 2 / 4
        )
        if best is None or likelihood > best[0]:
            best = likelihood, own, noise, error + mean
    _, own, noise, scores = best
    expected = directly(
        [*BANK, *rows_here(seen.drops)],
        np.concatenate([BANK_SCORES, scores]),
        np.concatenate([bank_noise, np.full(n, noise * KERNEL.noise)]),
        rows_here(others),
        own,
    )
    learned = belief.learn(seen.drops, values)
    mean, covariance = learned.expect(others)
    assert learned.own == own
    assert mean == pytest.approx(expected[0], abs=1e-8)
    assert covariance == pytest.approx(expected[1], abs=1e-8)
    assert learned.mean(others) == pytest.approx(mean, abs=1e-8)


def test_the_quick_mean_is_the_mean_also_of_what_ships() -> None:
    belief = shipped_experience().belief(PAIRFLIP)
    seen, points = made_up(5, PAIRFLIP, 5), made_up(50, PAIRFLIP, 6).drops
    learned = belief.learn(seen.drops, 0.8 + 0.05 * seen.scores)
    mean, covariance = learned.expect(points)
    assert learned.mean(points) == pytest.approx(mean, abs=1e-8)
    assert np.linalg.eigvalsh(covariance).min() > -1e-9
    before = belief.expect(points)[1]
    assert (covariance.diagonal() <= learned.own * before.diagonal() + 1e-9).all()


def test_only_differences_of_values_count_and_not_their_scale() -> None:
    belief = Experience(TASKS, KERNEL).belief(HERE)
    seen, others = made_up(6, HERE, 4), made_up(4, HERE, 9).drops
    first = belief.learn(seen.drops, seen.scores)
    for factor, offset in ((0.013, 0.9), (7.0, -3.0)):
        again = belief.learn(seen.drops, factor * seen.scores + offset)
        for ours, theirs in zip(first.expect(others), again.expect(others), strict=True):
            assert ours == pytest.approx(theirs, abs=1e-8)


@pytest.mark.parametrize("value", [0.1, 0.97, 1 / 3])
def test_equal_values_are_equal_whatever_their_rounding(value: float) -> None:
    """The mean of three times 0.1 is not 0.1: their deviation is not quite 0."""
    belief = Experience(TASKS, KERNEL).belief(HERE)
    seen, others = made_up(3, HERE, 4).drops, made_up(4, HERE, 9).drops
    exact = belief.learn(seen, np.full(3, 0.5)).mean(others)
    assert belief.learn(seen, np.full(3, value)).mean(others) == pytest.approx(exact, abs=1e-8)


def test_a_better_schedule_raises_what_is_expected_near_it() -> None:
    belief = shipped_experience().belief(PAIRFLIP)
    points = np.linspace(0, np.arange(1, 3), MARKS).T  # ends at drops of 1 and 2
    one, other = (
        belief.learn(points, np.array([0.9, 0.7])),
        belief.learn(points, np.array([0.7, 0.9])),
    )
    gap, opposite = (np.diff(learned.mean(points))[0] for learned in (one, other))
    assert gap < opposite


# The sampler -------------------------------------------------------------------------------------


def make(
    *,
    space: str = "basis",
    epochs: int = EPOCHS,
    conditions: Conditions | None = PAIRFLIP,
    seed: int = 0,
    belief: Belief | None = None,
) -> GaussianProcessSampler:
    found = get_space(space)
    if belief is None and conditions is not None:
        belief = shipped_experience().belief(conditions)
    return GaussianProcessSampler(
        found.distributions(epochs),
        lambda parameters: found.keep_rates(parameters, epochs),
        seed=seed,
        belief=belief,
    )


def some(seed: int, n: int, space: str = "basis", epochs: int = EPOCHS) -> list[dict[str, Any]]:
    """Parameters of n schedules."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed))
    return [study.ask(get_space(space).distributions(epochs)).params for _ in range(n)]


def told(params: dict[str, Any], value: float | None, **others: Any) -> FrozenTrial:
    distributions = get_space("basis").distributions(EPOCHS)
    return create_trial(params=params, distributions=distributions, value=value, **others)


def ask(
    sampler: optuna.samplers.BaseSampler, trials: list[FrozenTrial], direction: str = "maximize"
) -> dict[str, Any]:
    """What is proposed after these trials."""
    study = optuna.create_study(direction=direction, sampler=sampler)
    study.add_trials(trials)
    return study.ask(get_space("basis").distributions(EPOCHS)).params


def rates_of(params: dict[str, Any], space: str = "basis", epochs: int = EPOCHS) -> np.ndarray:
    return get_space(space).schedule(params, epochs).keep_rate


@pytest.mark.parametrize("conditions", [PAIRFLIP, None])
def test_a_point_follows_from_the_seed_and_the_trials(conditions: Conditions | None) -> None:
    values = [0.5, 0.7, 0.6, 0.8, 0.4]
    here, elsewhere = (
        [told(params, value) for params, value in zip(some(seed, 5), values, strict=True)]
        for seed in (1, 2)
    )
    first = ask(make(conditions=conditions), here)
    used = make(conditions=conditions)
    ask(used, here[:3])
    ask(used, elsewhere)  # the same values, of other schedules
    assert ask(used, here) == first
    assert ask(make(conditions=conditions, seed=1), here) != first
    assert ask(make(conditions=conditions), elsewhere) != first


@pytest.mark.parametrize("conditions", [PAIRFLIP, None])
def test_what_is_running_is_not_proposed_again(conditions: Conditions | None) -> None:
    values = [0.5, 0.7, 0.6, 0.8, 0.4]
    trials = [told(params, value) for params, value in zip(some(1, 5), values, strict=True)]
    failed = told(some(3, 1)[0], None, state=TrialState.FAIL)
    alone = ask(make(conditions=conditions), [*trials, failed])
    running = told(alone, None, state=TrialState.RUNNING)
    beside = ask(make(conditions=conditions), [*trials, running])  # with the same number
    assert np.abs(rates_of(beside) - rates_of(alone)).max() > 0.01
    # Where all is running from the first on, too.
    one = ask(make(conditions=PAIRFLIP), [failed])
    other = ask(make(conditions=PAIRFLIP), [told(one, None, state=TrialState.RUNNING)])
    assert np.abs(rates_of(other) - rates_of(one)).max() > 0.01


class Listening(Belief):
    """Keeps the values that it is told."""

    def learn(self, points: np.ndarray, values: np.ndarray) -> Any:
        HEARD.append(values.tolist())
        return super().learn(points, values)


HEARD: list[list[float]] = []


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_a_pruned_trial_counts_below_every_complete_one(direction: str) -> None:
    sign = 1 if direction == "maximize" else -1
    params = some(1, 5)
    trials = [told(one, sign * value) for one, value in zip(params, (0.5, 0.7, 0.6), strict=False)]
    for one, value in ((params[3], 0.99), (params[4], float("nan"))):
        reported = {2: sign * value}
        trials.append(told(one, None, state=TrialState.PRUNED, intermediate_values=reported))
    HEARD.clear()
    ask(make(belief=Listening(shipped_experience(), PAIRFLIP)), trials, direction)
    (heard,) = HEARD
    assert heard[:3] == [0.5, 0.7, 0.6]
    assert max(heard[3:]) < 0.5 and min(heard[3:]) > 0.3  # but not so that they drown the others


def test_of_pruned_trials_alone_those_that_got_furthest_are_compared() -> None:
    trials = [
        told(one, None, state=TrialState.PRUNED, intermediate_values=reported)
        for one, reported in zip(some(1, 3), ({5: 0.6}, {5: 0.8}, {2: 0.9}), strict=True)
    ]
    HEARD.clear()
    ask(make(belief=Listening(shipped_experience(), PAIRFLIP)), trials)
    ((first, second, early),) = HEARD
    assert (first, second) == (0.6, 0.8) and early < 0.6


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_of_many_trials_the_best_and_the_newest_count(direction: str) -> None:
    sign, half = 1 if direction == "maximize" else -1, MOST // 2
    parts = ((0.1, 0.2, 60), (0.9, 0.8, half), (0.3, 0.4, 30), (0.7, 0.6, half))
    values = np.concatenate([np.linspace(*part) for part in parts]).tolist()
    pruned = {"state": TrialState.PRUNED, "intermediate_values": {2: sign * 0.99}}
    trials = [told(one, sign * v) for one, v in zip(some(1, len(values)), values, strict=True)]
    trials += [told(one, None, **pruned) for one in some(2, 1)]
    HEARD.clear()
    ask(make(belief=Listening(shipped_experience(), PAIRFLIP)), trials, direction)
    (heard,) = HEARD
    # The best ones, which are neither the oldest nor the newest, and the newest of the others.
    assert heard[:-1] == pytest.approx([*values[60 : 60 + half], *values[-half + 1 :]])
    assert heard[-1] < min(heard[:-1])  # the pruned one


@pytest.mark.parametrize("conditions", [PAIRFLIP, None])
def test_to_minimise_is_to_maximise_the_opposite(conditions: Conditions | None) -> None:
    params = some(1, 12)
    up, down = (
        [told(one, sign * abs(float(rates_of(one).mean()) - 0.8)) for one in params]
        for sign in (1, -1)
    )
    found = ask(make(conditions=conditions), up)
    assert ask(make(conditions=conditions), down, "minimize") == found
    assert ask(make(conditions=conditions), up, "minimize") != found


def test_values_of_another_scale_lead_to_the_same_point() -> None:
    values = [0.5, 0.75, 0.625, 0.875, 0.25]
    first, other = (
        [told(params, factor * v + 2.0) for params, v in zip(some(1, 5), values, strict=True)]
        for factor in (1.0, 0.125)
    )
    assert rates_of(ask(make(), first)) == pytest.approx(rates_of(ask(make(), other)), abs=1e-6)


@pytest.mark.parametrize("conditions", [PAIRFLIP, None])
@pytest.mark.parametrize("epochs", [1, 2, EPOCHS])
@pytest.mark.parametrize("space", ["basis", "co-teaching", "power-decay", "full"])
def test_every_space_is_searched(space: str, epochs: int, conditions: Conditions | None) -> None:
    distributions = get_space(space).distributions(epochs)
    sampler = make(space=space, epochs=epochs, conditions=conditions)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    wanted = np.linspace(1, 0.6, epochs)
    for _ in range(6):
        trial = study.ask(distributions)
        assert set(trial.params) == set(distributions)
        keep_rate = rates_of(trial.params, space, epochs)
        study.tell(trial, -float(np.abs(keep_rate - wanted).mean()))
    tried = {json.dumps(trial.params) for trial in study.trials}
    assert len(tried) == (6 if distributions else 1)


def test_fixed_parameters_stay_as_they_are() -> None:
    distributions = get_space("basis").distributions(EPOCHS)
    names, params = list(distributions), some(1, 1)[0]
    trials = [told(one, value) for one, value in zip(some(2, 2), (0.5, 0.6), strict=True)]
    fixed = {name: params[name] for name in names[::2]}
    for given in (fixed, params):
        with pytest.warns(optuna.exceptions.ExperimentalWarning):
            sampler = PartialFixedSampler(given, make())
        found = ask(sampler, trials)
        assert {name: found[name] for name in given} == given
        assert set(found) == set(names)
    free = ask(make(), trials)
    with pytest.warns(optuna.exceptions.ExperimentalWarning):
        partly = ask(PartialFixedSampler(fixed, make()), trials)
    assert {n: partly[n] for n in names[1::2]} == {n: free[n] for n in names[1::2]}


def test_several_objectives_and_words_are_refused() -> None:
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=make())
    with pytest.raises(ValueError, match="multi-objective"):
        study.ask(get_space("basis").distributions(EPOCHS))
    with pytest.raises(keeprate.InputError, match="seed must not be negative"):
        make(seed=-1)
    kind = optuna.distributions.CategoricalDistribution(["a", "b"])
    with pytest.raises(keeprate.InputError, match="be a number"):
        GaussianProcessSampler({"kind": kind}, lambda parameters: np.zeros((1, 1)))


# What ships --------------------------------------------------------------------------------------


@pytest.mark.parametrize("epochs", [10, 40])
@pytest.mark.parametrize("seed", range(3))
def test_the_first_proposal_fits_the_noise(epochs: int, seed: int) -> None:
    def first(conditions: Conditions) -> np.ndarray:
        study = optuna.create_study(
            direction="maximize", sampler=make(epochs=epochs, conditions=conditions, seed=seed)
        )
        return rates_of(study.ask(get_space("basis").distributions(epochs)).params, epochs=epochs)

    noisy, clean = first(PAIRFLIP), first(Conditions(0.0, 0.0, 0.03))
    assert noisy[0] > 0.95 and noisy[-1] < 0.55  # below the share of clean labels
    assert noisy.min() > 0.1
    assert clean.mean() > 0.95 and clean.min() > 0.75  # few are left out, and seldom
    some_noise = first(Conditions(0.2, 0.03, 0.2))
    assert noisy[-1] < some_noise[-1] < clean[-1] and some_noise[-1] < 0.8 + 0.02


def test_what_ships_is_sound() -> None:
    experience = shipped_experience()
    kernel = vars(experience.kernel)
    assert all(number > 0 for number in kernel.values())
    assert experience._drops.shape[1] == MARKS and len(experience._drops) > 1000
    assert experience._drops.min() >= 0 and experience._drops.max() <= LARGEST_DROP
    assert np.isfinite(experience.log_likelihood)
    rates, rivals, gaps = experience._conditions.T
    assert rates.min() == 0 and 0.6 < rates.max() < 1 and 0 <= rivals.min() < rivals.max() < 1
    assert 0 <= gaps.min() < 0.05 and 0.25 < gaps.max() <= LARGEST_GAP


# Searches ----------------------------------------------------------------------------------------


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> list[Conditions | None]:
    """The conditions that proposals were made for."""
    seen, make_proposals = [], Request.proposals

    def spy(*arguments: Any) -> Any:
        proposals = make_proposals(*arguments)
        seen.append(proposals.conditions)
        return proposals

    monkeypatch.setattr(Request, "proposals", spy)
    return seen


def test_a_search_begins_with_the_noise_that_it_found(data, tmp_path, no_page, known) -> None:
    stages = []

    def progress(stage: str, done: float, total: float, best: str | None) -> None:
        if stage not in stages:
            stages.append(stage)

    config = replace(CONFIG, epochs=6)
    found = search(data, trials=3, config=config, out=tmp_path, progress=progress, **ALONE)
    first = found.record.first
    assert stages[:2] == ["noise rate", "search"]
    assert load_record(tmp_path).first == first
    assert abs(first.noise_rate - data.noise_rate) < 0.2 and first.epochs == 6
    assert 0.3 < first.rival_share < 1  # it is pairflip 45 %
    assert known[-1] == Conditions(first.noise_rate, first.rival_share, first.loss_gap)
    assert found.record.cost.candidate_epochs == 6 + 3 * 6
    assert found.record.cost.search_seconds >= first.seconds
    digest = experience_digest()
    assert found.record.config["warm_start"] == [f"experience {digest}"]


def test_a_noise_rate_that_is_given_takes_the_place_of_the_estimate(data, known) -> None:
    options = {"trials": 2, "config": CONFIG, **ALONE}
    given = search(data, noise_rate=0.3, **options).record
    assert given.first.loss_gap > 0 and known[-1] == Conditions.of_rate(0.3, given.first.loss_gap)
    nothing = search(data, warm_start=False, **options).record
    assert nothing.first is None and known[-1] is None
    assert nothing.config["warm_start"] == []
    random = search(data, sampler="random", **options).record
    assert random.first is None and known[-1] is None
    single = search(data, trials=2, config=replace(CONFIG, epochs=1), **ALONE).record
    assert single.first is None  # one epoch keeps everything


def test_other_noise_leads_to_other_schedules(data) -> None:
    options = {"trials": 2, "config": replace(CONFIG, epochs=8), **ALONE}
    ends = [
        search(data, noise_rate=rate, **options).record.trials[0].keep_rate[-1]
        for rate in (0.0, 0.2, 0.5)
    ]
    assert ends[0] > 0.9 > ends[1] > ends[2]
