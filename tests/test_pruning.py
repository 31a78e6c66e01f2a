"""Who stops early: rungs of a population, Optuna's pruners, one's own."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import optuna
import pytest
import torch

from keeprate import InputError
from keeprate.engine import lockstep
from keeprate.engine.curves import Curves
from keeprate.searching.pruners import PRUNERS, Judge, Verdicts, check_group, get_pruner
from tests.searches import ALONE, CONFIG, SIXTEEN, search

pytestmark = pytest.mark.usefixtures("no_page")


@pytest.fixture(scope="module")
def halved(data):
    config = replace(CONFIG, epochs=5)
    options = {"trials": 20, "confirm": False, "baselines": False}  # two generations of ten
    return search(data, config=config, pruner="halving", **options)


def test_halving_stops_the_worse_half_at_each_rung(halved):
    first = halved.record.trials[:10]
    curves = [t.validation_score for t in first]
    lengths = [len(curve) for curve in curves]
    assert sorted(lengths) == [2] * 6 + [3] * 2 + [5] * 2
    for rung in (2, 3):  # of so few epochs, the value is that of the rung's own epoch
        stopped = [curve[rung - 1] for curve in curves if len(curve) == rung]
        went_on = [curve[rung - 1] for curve in curves if len(curve) > rung]
        assert max(stopped) <= min(went_on)
    states = [t.state for t in first]
    assert states == ["complete" if n == 5 else "pruned" for n in lengths]
    complete = [t for t in halved.record.trials if t.value is not None]
    best = max(complete, key=lambda t: t.value)
    assert halved.record.finalists[0] == (best.number,)
    finalist = halved.record.finalists[halved.results[0].finalist][0]
    assert np.allclose(halved.schedule.keep_rate, halved.record.trials[finalist].keep_rate)
    # The first training, and 10 * 2 + 4 * 1 + 2 * 2 epochs of each generation.
    assert halved.record.cost.candidate_epochs == 5 + 2 * 28


@pytest.mark.parametrize("pruner", ["median", "successive-halving", "hyperband"])
def test_optunas_pruners_stop_trials(data, pruner):
    config = replace(CONFIG, epochs=5)
    found = search(data, trials=30, config=config, pruner=pruner, confirm=False, **ALONE)
    trials = found.record.trials
    for trial, told in zip(trials, found.study.trials, strict=True):
        lengths = len(trial.validation_score)
        assert (trial.state == "complete") == (lengths == 5)
        assert list(told.intermediate_values) == ([] if lengths == 5 else [lengths])
    pruned = [t.number for t in trials if t.state == "pruned"]
    assert 2 <= len(pruned) <= 28
    if pruner == "median":  # of complete trials: the first population has none to be judged by
        assert min(pruned) >= 10
        assert min(len(t.validation_score) for t in trials) >= 2


def test_a_group_that_ran_out_of_memory_is_judged_anew(data, monkeypatch):
    def starved(population, *arguments, after_epoch, **options):
        def once(population):
            after_epoch(population)
            if len(population.curves) > 5:
                raise torch.OutOfMemoryError("not enough")

        return real(population, *arguments, after_epoch=once, **options)

    options = {"trials": 20, "confirm": False, "pruner": "halving", "noise_rate": 0.45, **ALONE}
    options |= {"config": replace(CONFIG, epochs=5)}
    small = search(data, lockstep=5, **options).record.trials
    real = lockstep.train_population
    monkeypatch.setattr(lockstep, "train_population", starved)
    halved = search(data, lockstep=10, **options).record.trials
    lengths = [[len(t.validation_score) for t in trials] for trials in (small, halved)]
    assert lengths[0] == lengths[1] and min(lengths[0]) == 2


def test_a_pruner_of_ones_own_decides(data):
    class Odd(optuna.pruners.BasePruner):
        def __init__(self):
            self.every = 2

        def prune(self, study, trial):
            assert len(trial.params) == 12
            return trial.number % self.every == 1 and trial.last_step == 2

    record = search(data, trials=6, config=CONFIG, pruner=Odd(), **ALONE).record
    assert [len(t.validation_score) for t in record.trials] == [3, 2] * 3
    assert record.config["pruner"] == "Odd(every=2)"


@pytest.mark.parametrize("pruner", [name for name in PRUNERS if name != "none"])
def test_a_judge_that_is_told_the_past_says_the_same(pruner):
    """As after a kill: of two whole populations, then of five epochs of the third at once."""
    rng, epochs = np.random.default_rng(0), 9
    whole = {n: rng.uniform(size=epochs).tolist() for n in range(24)}
    whole[9] = []  # failed in its first epoch
    trials = [optuna.trial.create_trial(state=optuna.trial.TrialState.RUNNING) for _ in range(24)]
    for number, trial in enumerate(trials):
        trial.number = number
    populations = [range(8), range(8, 16), range(16, 24)]

    def judge(one, numbers, now, length):
        values = {n: whole[n][: min(now, length[n])] for n in numbers}
        return one([trials[n] for n in numbers], values, now)

    first, length, said = Judge(get_pruner(pruner, epochs), epochs), {}, {}
    for numbers in populations:
        length |= {n: len(whole[n]) for n in numbers}
        for now in range(1, epochs + 1):
            said[numbers, now] = judge(first, numbers, now, length)
            assert said[numbers, now] == judge(first, numbers, now, length)
            length |= dict.fromkeys(said[numbers, now], now)
    stopped = [n for numbers in said.values() for n in numbers]
    assert stopped and len(set(stopped)) == len(stopped) and 9 not in stopped
    again = Judge(get_pruner(pruner, epochs), epochs)
    for numbers in populations[:2]:
        judge(again, numbers, epochs, length)
    for now in range(5, epochs + 1):
        assert judge(again, populations[2], now, length) == said[populations[2], now]


@pytest.mark.parametrize("pruner", ["halving", "hyperband", "successive-halving"])
def test_the_verdict_on_a_group_depends_on_no_other_group_of_its_generation(pruner):
    rng, epochs = np.random.default_rng(0), 9
    trials = [optuna.trial.create_trial(state=optuna.trial.TrialState.RUNNING) for _ in range(20)]
    for number, trial in enumerate(trials):
        trial.number = number
    curves = {n: Curves(validation_score=rng.uniform(size=epochs).tolist()) for n in range(20)}

    def stopped(verdicts, numbers):
        length = dict.fromkeys(numbers, epochs)
        for now in range(1, epochs + 1):
            seen = {
                n: Curves(validation_score=curves[n].validation_score[: min(now, length[n])])
                for n in numbers
            }
            length |= dict.fromkeys(verdicts(seen, now), now)
        return length

    of_generation = {trial.number: trial for trial in trials}
    alone = stopped(Verdicts(pruner, epochs, of_generation, ()), range(10, 20))
    both = pickle.loads(pickle.dumps(Verdicts(pruner, epochs, of_generation, ())))  # as in transit
    first, second = stopped(both, range(10)), stopped(both, range(10, 20))
    assert alone == second and min(alone.values()) < epochs
    assert first.keys() == set(range(10))


def test_rungs_are_shares_of_a_short_training(data):
    options = SIXTEEN | {"trials": 26}
    found = search(data, config=replace(CONFIG, epochs=10), pruner="halving", **options)
    lengths = [len(t.validation_score) for t in found.record.trials]
    assert sorted(lengths[:10]) == [2] * 6 + [3] * 2 + [5] * 2
    assert lengths[20:] == [10] * 6  # what confirms is not pruned


def test_short_trainings_are_judged_by_short_ones(data):
    options = {"trials": 24, "fidelity": 0.5, "sampler": "random", **ALONE}
    found = search(data, config=replace(CONFIG, epochs=8), pruner="median", **options)
    trials = found.record.trials
    states = [t.state for t in trials]
    assert set(states[:10]) == {"short"} and "pruned" in states[10:18]
    assert states[18:] == ["complete"] * 6


def test_too_few_candidates_are_not_halved():
    """From the least group on one of five goes on; one of two would be half of them."""
    for pruner in ("halving", get_pruner("halving", 5)):
        with pytest.raises(InputError, match=r"lockstep must be at least 5 .* got 4; .*lockstep 5"):
            check_group(pruner, 4)
        check_group(pruner, 5)
    for pruner in PRUNERS.keys() - {"halving"}:
        check_group(pruner, 1)
