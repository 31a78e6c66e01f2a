from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    RelativeSamplerTestCase,
    SingleOnlySamplerTestCase,
)
from optuna.trial import FrozenTrial, TrialState, create_trial

from keeprate.errors import InputError
from keeprate.schedules.spaces import SPACES
from keeprate.searching.sampler import (
    ATTRIBUTE,
    NaturalGradientSampler,
    from_unit,
    keys,
    raw_values,
    to_unit,
)

SQUARE: dict[str, BaseDistribution] = {
    "x": FloatDistribution(0.0, 1.0),
    "y": FloatDistribution(0.0, 1.0),
}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(before)


class TestOptunaSuites(BasicSamplerTestCase, RelativeSamplerTestCase, SingleOnlySamplerTestCase):
    """Optuna's own tests, with few trials per generation so that updates take place in them."""

    @pytest.fixture(params=["default", "small", "raw", "screened"])
    def sampler(self, request) -> Callable[[], BaseSampler]:
        return {
            "default": NaturalGradientSampler,
            "small": lambda: NaturalGradientSampler(generation_size=3, seed=0),
            "raw": lambda: NaturalGradientSampler(
                generation_size=3, utilities="raw", fisher="monte-carlo"
            ),
            "screened": lambda: NaturalGradientSampler(
                generation_size=3, seed=0, features=lambda p: np.stack([*p.values()], -1)
            ),
        }[request.param]


def make(seed: int | None = 0, *, size: int = 4, **options) -> NaturalGradientSampler:
    return NaturalGradientSampler(seed=seed, generation_size=size, **options)


def bowl(params: dict[str, float]) -> float:
    return (params["x"] - 0.9) ** 2 + (params["y"] - 0.2) ** 2


def study_with(sampler: BaseSampler, **options) -> optuna.Study:
    return optuna.create_study(sampler=sampler, **options)


def run(study: optuna.Study, n: int, sign: float = 1.0) -> None:
    for _ in range(n):
        trial = study.ask(SQUARE)
        study.tell(trial, sign * bowl(trial.params))


def points(study: optuna.Study) -> list[dict[str, float]]:
    return [trial.params for trial in study.trials]


def record(study: optuna.Study, number: int) -> dict:
    return study.trials[number].system_attrs.get(ATTRIBUTE, {})


def finished(x: float, y: float, value: float | None = None, **options) -> FrozenTrial:
    return create_trial(params={"x": x, "y": y}, distributions=SQUARE, value=value, **options)


# Generations


def test_generations_and_claims():
    study = study_with(make())
    run(study, 13)
    assert record(study, 0) == {}  # nobody knew the search space yet
    assert [record(study, n)["generation"] for n in range(1, 13)] == [0] * 3 + [1] * 4 + [2] * 4 + [
        3
    ]
    openers = {n: record(study, n)["claims"] for n in range(13) if "claims" in record(study, n)}
    assert openers == {4: [0, 1, 2, 3], 8: [4, 5, 6, 7], 12: [8, 9, 10, 11]}


def test_a_large_population_in_lockstep_is_one_generation():
    study = study_with(make())
    for population in range(3):
        trials = [study.ask(SQUARE) for _ in range(9)]
        for trial in reversed(trials):
            study.tell(trial, bowl(trial.params))
        if population:
            assert {record(study, t.number)["generation"] for t in trials} == {population}
    assert record(study, 9)["claims"] == list(range(9))
    assert record(study, 18)["claims"] == list(range(9, 18))


def test_the_order_of_finishing_within_a_generation_does_not_matter():
    studies = []
    for order in ([0, 1, 2, 3], [2, 0, 3, 1]):
        study = study_with(make())
        trials = [study.ask(SQUARE) for _ in range(4)]
        for i in order:
            study.tell(trials[i], bowl(trials[i].params))
        run(study, 3)
        studies.append(points(study))
    assert studies[0] == studies[1]


def test_the_first_points_do_not_depend_on_a_known_space():
    lockstep, one_by_one = study_with(make()), study_with(make())
    for _ in range(4):
        lockstep.ask(SQUARE)
    run(one_by_one, 4)
    assert points(lockstep) == points(one_by_one)
    assert len({p["x"] for p in points(lockstep)}) == 4


def test_late_finishers_are_claimed_by_the_next_generation():
    study = study_with(make())
    late = study.ask(SQUARE)
    run(study, 8)  # trials 1 to 4 make generation 1, which trial 5 opens
    assert record(study, 5)["claims"] == [1, 2, 3, 4]
    study.tell(late, 0.0)
    run(study, 1)
    assert record(study, 9)["claims"] == [0, 5, 6, 7, 8]


def test_of_two_openers_the_lower_number_decides():
    study = study_with(make())
    run(study, 5)
    second = study.ask(SQUARE)  # as if it had not seen that trial 4 opened generation 1
    racing = {"generation": 1, "claims": [0, 1, 2, 3, 4]}
    study._storage.set_trial_system_attr(second._trial_id, ATTRIBUTE, racing)
    study.tell(second, 1.0)
    run(study, 3)
    assert record(study, 8)["claims"] == [4, 5, 6, 7]


def test_what_two_openers_both_claimed_counts_once():
    following = []
    for claims in ([4, 5, 6, 7], [0, 1, 4, 5, 6, 7]):
        study = study_with(make())
        run(study, 8)
        opener = study.ask(SQUARE)
        written = {"generation": 2, "claims": claims}
        study._storage.set_trial_system_attr(opener._trial_id, ATTRIBUTE, written)
        following.append(study.ask(SQUARE).params)
    assert following[0] == following[1]


def test_attributes_are_small_json_under_one_prefix():
    study = study_with(NaturalGradientSampler(seed=0))
    run(study, 45)
    for trial in study.trials[1:]:
        ours = {k: v for k, v in trial.system_attrs.items() if k.startswith("keeprate:ng:")}
        assert set(ours) == set(trial.system_attrs)
        assert len(json.dumps(ours)) < 150
        assert json.loads(json.dumps(ours)) == ours


# The same search again


def sqlite(path: Path) -> str:
    return f"sqlite:///{path}"


def test_an_interrupted_search_goes_on_as_if_it_had_not_been(tmp_path: Path):
    straight = study_with(make())
    run(straight, 15)
    interrupted = study_with(make(), storage=sqlite(tmp_path / "s.db"), study_name="s")
    run(interrupted, 6)
    interrupted.ask(SQUARE)  # and here it stops, before the answer
    del interrupted
    study = optuna.load_study(
        study_name="s", storage=sqlite(tmp_path / "s.db"), sampler=make(fisher="closed-form")
    )
    # The trial that was under way is asked for again by its number, then told.
    again = optuna.trial.Trial(study, study.trials[6]._trial_id)
    assert {k: again.suggest_float(k, 0, 1) for k in SQUARE} == straight.trials[6].params
    study.tell(again, bowl(again.params))
    run(study, 8)
    assert points(study) == points(straight)


@pytest.mark.parametrize("number", [5, 8], ids=["follows", "opens"])
def test_a_trial_interrupted_before_its_first_parameter_gets_the_same_point(number):
    straight = study_with(make())
    run(straight, number + 1)
    study = study_with(make())
    run(study, number)
    trial = study.ask(SQUARE)
    # Others finish meanwhile: enough for the next generation.
    for x in (0.1, 0.2, 0.3, 0.4):
        study.add_trial(finished(x, x, 0.0))
    study.sampler = make()
    drawn = study.sampler.sample_relative(study, study.trials[number], SQUARE)
    assert drawn == trial.params == straight.trials[number].params


def both(parameters: dict[str, np.ndarray]) -> np.ndarray:
    return np.stack([parameters["x"], parameters["y"]], -1)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"fisher": "monte-carlo"},
        {"utilities": "raw", "step_size": 2.0},
        {"features": both},
    ],
)
def test_a_fresh_sampler_for_every_trial_is_the_same(options):
    one, fresh = study_with(make(**options)), study_with(make())
    run(one, 14)
    for _ in range(14):
        fresh.sampler = make(**options)
        run(fresh, 1)
    assert points(one) == points(fresh)


@pytest.mark.parametrize("features", [None, both])
def test_minimising_is_maximising_the_negative(features):
    down = study_with(make(features=features), direction="minimize")
    up = study_with(make(features=features), direction="maximize")
    run(down, 14)
    run(up, 14, sign=-1.0)
    assert points(down) == points(up)


@pytest.mark.parametrize("features", [None, both])
def test_one_sampler_serves_several_studies(features):
    sampler = make(features=features)
    first, second = study_with(sampler), study_with(sampler)
    run(first, 9)
    run(second, 9, sign=-1.0)
    alone = study_with(make(features=features))
    run(alone, 9, sign=-1.0)
    assert points(second) == points(alone)
    assert points(first)[4:] != points(second)[4:]


def test_one_sampler_serves_studies_of_other_ranges():
    """The same places in the unit cube and the same ranks, but they stand for something else."""

    def next_point(sampler: BaseSampler, high: float) -> float:
        study = study_with(sampler)
        space = {"x": FloatDistribution(0.0, high)}
        for i in range(4):
            trial = optuna.trial.create_trial(
                params={"x": high * i / 4}, distributions=space, value=float(i)
            )
            study.add_trial(trial)
        return float(study.ask(space).params["x"]) / high

    def wave(parameters: dict[str, np.ndarray]) -> np.ndarray:
        return np.sin(3 * parameters["x"])[:, None]

    sampler = make(features=wave)
    next_point(sampler, 1.0)
    assert next_point(sampler, 2.0) == next_point(make(features=wave), 2.0)


def test_features_get_the_parameters_that_have_one_value_only():
    seen = []

    def features(parameters: dict[str, np.ndarray]) -> np.ndarray:
        seen.append({name: len(values) for name, values in parameters.items()})
        return both(parameters) + parameters["k"][:, None]

    study = study_with(make(features=features))
    space = SQUARE | {"k": IntDistribution(3, 3)}
    for _ in range(5):
        trial = study.ask(space)
        study.tell(trial, bowl(trial.params))
    assert seen[0] == {"k": 4, "x": 4, "y": 4} and seen[1]["k"] == seen[1]["x"] > 100


def test_equal_second_generations_after_different_first_ones():
    def next_point(sampler: BaseSampler, first: float) -> dict[str, float]:
        study = study_with(make())
        for centre in (first, 0.5):
            for i in range(4):
                study.add_trial(finished(centre + i / 100, i / 4, float(i)))
            study.ask(SQUARE)
        study.sampler = sampler
        return study.ask(SQUARE).params

    used = make()
    assert next_point(used, 0.1) != next_point(used, 0.9) == next_point(make(), 0.9)


def test_seeds():
    draws = {}
    for name, sampler in (("0", make(0)), ("1", make(1)), ("a", make(None)), ("b", make(None))):
        study = study_with(sampler)
        run(study, 1)
        draws[name] = study.ask(SQUARE).params["x"]
    assert len(set(draws.values())) == 4


@pytest.mark.parametrize("seed", [0, None])
def test_reseeding_changes_the_seed_only_if_none_was_given(seed):
    study = study_with(make(seed))
    run(study, 1)
    trial = study.ask(SQUARE)
    frozen = study.trials[1]
    study.sampler.reseed_rng()
    again = study.sampler.sample_relative(study, frozen, SQUARE)
    assert (again == trial.params) is (seed is not None)


# Many at once


def test_two_threads_draw_the_same_first_generation():
    alone, threads = study_with(make()), study_with(make())
    run(alone, 4)
    threads.optimize(
        lambda trial: bowl({k: trial.suggest_float(k, 0, 1) for k in SQUARE}), n_trials=24, n_jobs=2
    )
    assert points(threads)[:4] == points(alone)
    records = [trial.system_attrs.get(ATTRIBUTE, {}) for trial in threads.trials]
    claims = [number for record in records for number in record.get("claims", [])]
    assert len(claims) >= 12
    assert len({p["x"] for p in points(threads)}) == 24


WORKER = """
import sys, optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from keeprate.searching import NaturalGradientSampler
optuna.logging.set_verbosity(optuna.logging.ERROR)
storage = JournalStorage(JournalFileBackend(sys.argv[1]))
study = optuna.create_study(
    storage=storage, study_name="s", load_if_exists=True,
    sampler=NaturalGradientSampler(seed=0, generation_size=4),
)
study.optimize(
    lambda t: (t.suggest_float("x", 0, 1) - 0.9) ** 2 + (t.suggest_float("y", 0, 1) - 0.2) ** 2,
    n_trials=12,
)
"""


def test_two_processes_share_a_search(tmp_path: Path):
    path = str(tmp_path / "journal")
    command = [sys.executable, "-W", "error", "-c", WORKER, path]
    workers = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    errors = [worker.communicate(timeout=60)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], errors
    backend = optuna.storages.journal.JournalFileBackend(path)
    study = optuna.load_study(
        study_name="s", storage=optuna.storages.JournalStorage(backend), sampler=make()
    )
    assert len(study.trials) == 24
    alone = study_with(make())
    run(alone, 4)
    assert points(study)[:4] == points(alone)
    # Whoever drew them, a third process finds every later point again from the storage.
    openers: dict[int, int] = {}
    for trial in study.trials:
        generation = trial.system_attrs.get(ATTRIBUTE, {}).get("generation", 0)
        if "claims" in trial.system_attrs.get(ATTRIBUTE, {}):
            openers[generation] = openers.get(generation, 0) + 1
    assert len(openers) >= 4
    for trial in study.trials[1:]:
        generation = trial.system_attrs.get(ATTRIBUTE, {}).get("generation")
        if generation is None or any(openers.get(g, 0) > 1 for g in range(generation + 1)):
            continue  # drawn before the space was known, or after a race between two openers
        assert study.sampler.sample_relative(study, trial, SQUARE) == trial.params


# Which trials count, and how


def pruned(reports: dict[int, float]) -> FrozenTrial:
    return finished(0.5, 0.5, state=TrialState.PRUNED, intermediate_values=reports)


def test_pruned_trials_count_by_step_then_value_below_all_complete_ones():
    best_first = [
        finished(0, 0, 0.9),
        finished(0, 0, -5.0),
        pruned({1: 0.1, 8: 0.7}),
        pruned({8: 0.6}),
        pruned({4: 0.99}),
        pruned({4: math.nan}),
        pruned({}),
    ]
    rows = [tuple(row) for row in keys(best_first, 1.0)]
    assert rows == sorted(rows, reverse=True) and len(set(rows)) == 7
    down = [tuple(row) for row in keys(best_first, -1.0)]
    order = sorted(range(7), key=lambda i: down[i], reverse=True)
    assert order == [1, 0, 3, 2, 4, 5, 6]


def test_raw_values_are_finite_and_pruned_trials_not_above_complete_ones():
    trials = [
        finished(0, 0, 0.9),
        finished(0, 0, 0.2),
        finished(0, 0, math.inf),
        finished(0, 0, -math.inf),
        pruned({3: 0.8}),
        pruned({3: 0.1}),
        pruned({}),
    ]
    assert raw_values(trials, 1.0).tolist() == [0.9, 0.2, 0.9, 0.2, 0.2, 0.1, 0.2]
    assert raw_values(trials, -1.0).tolist() == [-0.9, -0.2, -0.9, -0.2, -0.9, -0.9, -0.9]
    assert raw_values([pruned({})], 1.0).tolist() == [0]
    # Where none is complete they are compared with one another.
    some = [pruned({3: 0.8}), pruned({3: 0.1}), pruned({})]
    assert raw_values(some, 1.0).tolist() == [0.8, 0.1, 0.1]
    assert raw_values(some, -1.0).tolist() == [-0.8, -0.1, -0.8]


def test_the_search_moves_away_from_pruned_trials_whatever_they_reported():
    study = study_with(make(), direction="maximize")
    for i in range(8):
        study.add_trial(finished(0.1 + i / 100, i / 8, 0.1 + i / 100))
        x, reports = 0.9 + i / 100, {3: 0.8}
        study.add_trial(finished(x, i / 8, state=TrialState.PRUNED, intermediate_values=reports))
    drawn = [study.ask(SQUARE).params["x"] for _ in range(60)]
    assert np.mean(drawn) < 0.4


def test_a_population_of_pruned_trials_makes_a_generation():
    study = study_with(make())
    for _ in range(5):
        trial = study.ask(SQUARE)
        trial.report(bowl(trial.params), 1)
        study.tell(trial, state=TrialState.PRUNED)
    assert record(study, 4)["claims"] == [0, 1, 2, 3]


def test_failed_trials_do_not_count():
    study = study_with(make())
    values = iter([1.0, math.nan, 2.0, math.nan, 3.0])
    study.optimize(
        lambda trial: next(values) + 0 * sum(trial.suggest_float(k, 0, 1) for k in SQUARE),
        n_trials=5,
    )
    assert [t.state for t in study.trials].count(TrialState.FAIL) == 2
    run(study, 2)
    assert record(study, 5)["generation"] == 0
    assert record(study, 6)["claims"] == [0, 2, 4, 5]


def test_added_and_enqueued_trials_take_part():
    study = study_with(make())
    for i in range(4):
        study.add_trial(finished(0.9, i / 4, 0.1 * i))
    study.enqueue_trial({"x": 0.25, "y": 0.5})
    run(study, 6)
    assert study.trials[4].params == {"x": 0.25, "y": 0.5}
    assert record(study, 5) == {"generation": 1, "claims": [0, 1, 2, 3, 4]}
    assert record(study, 9) == {"generation": 2, "claims": [5, 6, 7, 8]}


def test_what_was_evaluated_counts_not_what_was_drawn():
    fixed, free = study_with(make()), study_with(make())
    free.enqueue_trial({"x": 0.99, "y": 0.01})
    free.enqueue_trial({"x": 0.98, "y": 0.02})
    run(fixed, 4)
    run(free, 4)
    assert points(fixed)[2:] == points(free)[2:]
    assert fixed.ask(SQUARE).params != free.ask(SQUARE).params


def test_trials_of_another_space_are_left_out():
    study = study_with(make(size=5))
    run(study, 3)
    other = {"x": FloatDistribution(0.0, 2.0), "y": FloatDistribution(0.0, 1.0)}
    for _ in range(2):
        trial = study.ask(other)
        study.tell(trial, 0.0)
    frozen = study._storage.get_trial(study._storage.create_new_trial(study._study_id))
    study.sampler.sample_relative(study, frozen, SQUARE)
    assert record(study, 5) == {"generation": 0}


def test_an_independent_sampler_can_be_given():
    class Lowest(RandomSampler):
        reseeded = 0

        def sample_independent(self, study, trial, name, distribution):
            return distribution.low

        def reseed_rng(self):
            self.reseeded += 1

    lowest = Lowest()
    study = study_with(make(independent_sampler=lowest))
    assert study.ask(SQUARE).params == {"x": 0.0, "y": 0.0}
    study.sampler.reseed_rng()
    assert lowest.reseeded == 1


# Progress


def test_better_than_random_search_on_a_schedule():
    space, T = SPACES["basis"], 200
    distributions, t = space.distributions(T), np.arange(T)
    target = 1 - 0.5 * np.minimum(t / 20, 1) + 0.3 * np.clip((t - 60) / 140, 0, 1)

    def best(sampler: BaseSampler) -> float:
        study = study_with(sampler)
        for _ in range(10):
            population = [study.ask(distributions) for _ in range(10)]
            for trial in population:
                error = space.schedule(trial.params, T).keep_rate - target
                study.tell(trial, float(np.sqrt((error**2).mean())))
        return study.best_value

    ours = np.median([best(NaturalGradientSampler(seed=seed)) for seed in range(5)])
    random = np.median([best(RandomSampler(seed=seed)) for seed in range(5)])
    assert ours < 0.9 * random

    def features(parameters: dict[str, np.ndarray]) -> np.ndarray:
        return space.keep_rates(parameters, T)

    assert best(NaturalGradientSampler(seed=0, features=features)) < 0.6 * ours


# Screening by what the parameters stand for


def spread(parameters: dict[str, np.ndarray]) -> np.ndarray:
    x, y = parameters["x"], parameters["y"]
    return np.stack([x, y, x * y], -1)


def test_screening_begins_with_the_second_generation():
    plain, screened = study_with(make()), study_with(make(features=spread))
    run(plain, 8)
    run(screened, 8)
    assert points(screened)[:4] == points(plain)[:4]
    assert all(a != b for a, b in zip(points(screened)[4:], points(plain)[4:], strict=True))
    assert len({(p["x"], p["y"]) for p in points(screened)}) == 8  # each trial draws for itself


def test_screened_trials_avoid_what_pruned_ones_stand_for():
    def left_half(state: TrialState) -> float:
        study = study_with(make(size=20, features=lambda p: p["x"][:, None]))
        rng = np.random.default_rng(0)
        for x, y in rng.random((20, 2)):
            pruned = state == TrialState.PRUNED and x < 0.5
            options = {"intermediate_values": {1: 0.0}, "state": state} if pruned else {}
            study.add_trial(finished(x, y, None if pruned else 1.0, **options))
        return float(np.mean([study.ask(SQUARE).params["x"] < 0.5 for _ in range(20)]))

    assert left_half(TrialState.PRUNED) < 0.2
    assert left_half(TrialState.COMPLETE) > 0.2  # where all are equal, anywhere


def test_features_that_do_not_vary_are_no_error():
    study = study_with(make(features=lambda p: np.ones((len(p["x"]), 1))))
    run(study, 10)
    assert len({(p["x"], p["y"]) for p in points(study)}) == 10


def test_whole_and_logarithmic_parameters_are_found():
    space = {"n": IntDistribution(1, 200), "c": FloatDistribution(1e-3, 1e3, log=True)}
    study = study_with(NaturalGradientSampler(seed=0))
    for _ in range(100):
        trial = study.ask(space)
        n, c = trial.params["n"], trial.params["c"]
        study.tell(trial, abs(n - 150) / 200 + abs(math.log10(c) + 2))
    late = [t.params for t in study.trials[80:]]
    assert np.median([p["n"] for p in late]) == pytest.approx(150, abs=25)
    assert np.median([math.log10(p["c"]) for p in late]) == pytest.approx(-2, abs=0.5)


# The unit interval

MAPPED = [
    FloatDistribution(-3.0, 5.0),
    FloatDistribution(1e-5, 10.0, log=True),
    FloatDistribution(-1.0, 1.1, step=0.7),
    IntDistribution(-4, 7),
    IntDistribution(0, 12, step=4),
    IntDistribution(1, 100, log=True),
]


@pytest.mark.parametrize("distribution", MAPPED, ids=str)
def test_values_come_back_from_the_unit_interval(distribution):
    assert from_unit(0.0, distribution) == pytest.approx(distribution.low)
    assert from_unit(1.0, distribution) == pytest.approx(distribution.high)
    grid = np.linspace(0, 1, 401)
    values = [from_unit(u, distribution) for u in grid]
    assert values == sorted(values)
    whole = isinstance(distribution, IntDistribution)
    assert {type(v) for v in values} == {int if whole else float}
    for u, value in zip(grid, values, strict=True):
        assert distribution.low <= value <= distribution.high
        assert distribution._contains(distribution.to_internal_repr(value))
        back = to_unit(value, distribution)
        assert from_unit(back, distribution) == pytest.approx(value, rel=1e-12)
        if not whole and distribution.step is None:
            assert back == pytest.approx(u, abs=1e-12)


def test_cells_of_stepped_values_are_equally_wide():
    u = (np.arange(1200) + 0.5) / 1200
    assert to_unit(0, IntDistribution(0, 3)) == pytest.approx(1 / 8)  # the middle of its cell
    drawn = [from_unit(v, IntDistribution(-4, 7)) for v in u]
    assert np.unique(drawn, return_counts=True)[1].tolist() == [100] * 12


# Errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": -1}, "seed must not be negative, got -1"),
        ({"generation_size": 1}, "generation_size must be at least 2, got 1"),
        ({"generation_size": 0}, "generation_size must be at least 2, got 0"),
        ({"fisher": "exact"}, "fisher must be one of"),
        ({"utilities": "ranks"}, "utilities must be one of"),
        ({"step_size": -1.0}, "step_size must be positive"),
    ],
)
def test_unknown_options(options, message):
    with pytest.raises(InputError, match=message):
        NaturalGradientSampler(**options)


def test_several_objectives_are_refused():
    study = study_with(make(), directions=["minimize", "maximize"])
    with pytest.raises(ValueError, match="multi-objective"):
        study.ask(SQUARE)
