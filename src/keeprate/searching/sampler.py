"""The natural-gradient search as an Optuna sampler.

Nothing but small JSON is kept in the study: any process that opens it, also after a crash, finds
the search distribution by replaying the finished trials.

The rule of replay
------------------
Generation 0 is the uniform distribution. As soon as a trial is asked for while at least
`generation_size` finished trials belong to no generation yet, that trial opens the next one and
writes down the numbers of all of them, its *claims*; the next distribution is the update by
exactly these trials. Later trials only write down their generation. So what a generation is made
of is decided once, in the storage, and replay does not depend on who finished when:

- many trials may run at once; all that are asked for before the next opening share a distribution;
- a trial that finishes late, enqueued trials and trials added from elsewhere (whose parameters lie
  in the search space) are claimed by the next opening, each trial once;
- if two processes open a generation in the same moment, the lower trial number decides, and what
  only the other one claimed goes into the next opening.

COMPLETE trials and PRUNED ones take part; failed trials do not. A pruned trial counts below every
complete one, by the step it reached and then by its value there.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from optuna.distributions import (
    BaseDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler
from optuna.search_space import intersection_search_space
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from keeprate.errors import invalid
from keeprate.searching.natural_gradient import (
    Array,
    Fisher,
    NaturalGradient,
    ProductBeta,
    Utilities,
    check_options,
)
from keeprate.searching.surrogate import Surrogate, propose

ATTRIBUTE = "keeprate:ng:generation"
"""System attribute of every trial drawn here: {"generation": g} or, on the trial that opened
generation g, {"generation": g, "claims": [trial numbers]}."""

SCREENING = zlib.crc32(b"keeprate:screening")  # a stream of random numbers of its own

DEFAULT_GENERATION_SIZE = 10  # the paper's, Sec. 4

Numerical: TypeAlias = FloatDistribution | IntDistribution
NumericalSpace: TypeAlias = Mapping[str, Numerical]
Features: TypeAlias = Callable[[dict[str, npt.NDArray[Any]]], npt.ArrayLike]
"""The parameters of n trials, [n] values of each -> what they stand for, [n, f]."""


class NaturalGradientSampler(BaseSampler):
    """Sample from a product of Beta distributions that follows the natural gradient (Alg. 2).

    Works with numerical parameters (also logarithmic, stepped and whole ones), one objective,
    pruning, and any number of trials, threads or processes at once. Categorical parameters and
    those that not every trial has are sampled independently.

    With a fixed seed the point of a trial depends on its number and on the trials that earlier
    generations claimed, not on what this process did before: a search that was interrupted and
    one that was not are the same.

    Parameters
    ----------
    seed : int, optional
        Not negative. None draws one.
    generation_size : int, optional
        Finished trials per update; 10 if None. An update takes more if more are there.
    fisher, utilities, step_size
        As in `keeprate.searching.natural_gradient.NaturalGradient`. For raw utilities a pruned
        trial has its last value, but at most the worst complete one of its generation.
    features : callable, optional
        Maps the numerical parameters that all trials share, an array [n] of each, to what they
        stand for, [n, f]. From the second generation on each trial is then the most promising of
        several hundred proposals, judged by a Gaussian process over these rows
        (`keeprate.searching.surrogate`). Use this where the rows are more informative than the
        parameters; schedules are. The updates then learn from points that the distribution alone
        would not have drawn. None draws from the distribution, as the paper does.
    independent_sampler : optuna.samplers.BaseSampler, optional
        For parameters outside the common search space; uniform, seeded by trial, if None.

    Raises
    ------
    InputError
        If an option has no meaning.

    Examples
    --------
    >>> import optuna
    >>> optuna.logging.set_verbosity(optuna.logging.WARNING)
    >>> study = optuna.create_study(sampler=NaturalGradientSampler(seed=0))
    >>> study.optimize(lambda trial: (trial.suggest_float("x", -5, 5) - 2) ** 2, n_trials=60)
    >>> abs(study.best_params["x"] - 2) < 0.1
    True
    """

    def __init__(
        self,
        *,
        seed: int | None = None,
        generation_size: int | None = None,
        fisher: Fisher = "closed-form",
        utilities: Utilities = "rank",
        step_size: float | None = None,
        features: Features | None = None,
        independent_sampler: BaseSampler | None = None,
    ) -> None:
        check_options(fisher, utilities, step_size)
        own_seed = given_or_fresh_seed(seed)
        if generation_size is not None and generation_size < 2:
            remedy = "an update compares samples: use 4 or more"
            raise invalid("generation_size", "be at least 2", generation_size, remedy)
        self._seeded = seed is not None
        self._seed = own_seed
        self._generation_size = generation_size or DEFAULT_GENERATION_SIZE
        self._fisher: Fisher = fisher
        self._utilities: Utilities = utilities
        self._step_size = step_size
        self._features = features
        self._independent_sampler = independent_sampler
        # What the next trials of a generation would compute again, each with what it was computed
        # from; speed only. Optuna never changes a finished trial, so the same object says the same.
        self._shared: tuple[list[FrozenTrial], dict[str, BaseDistribution]] | None = None
        self._replayed: tuple[tuple[Array, Array, NaturalGradient], ...] = ()
        self._points: _Points | None = None
        self._learned: _Learned | None = None

    def reseed_rng(self) -> None:
        """Draw a new seed unless one was given (trial numbers keep parallel draws apart)."""
        if not self._seeded:
            self._seed = fresh_seed()
        if self._independent_sampler is not None:
            self._independent_sampler.reseed_rng()

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return the numerical parameters that all finished trials share."""
        trials = [t for t in study.get_trials(deepcopy=False) if t.state.is_finished()]
        if self._shared is None or not _are_same(self._shared[0], trials):
            # The function, not the class of the same purpose: that one is bound to one study.
            self._shared = trials, intersection_search_space(trials, include_pruned=True)
        return {
            name: distribution
            for name, distribution in self._shared[1].items()
            if isinstance(distribution, Numerical) and not distribution.single()
        }

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Draw a point from the distribution of the current generation.

        Raises
        ------
        ValueError
            If the study has several objectives.
        """
        self._raise_error_if_multi_objective(study)
        # Optuna's own tests pass categorical parameters here, too: those are left out.
        numerical = {
            name: distribution
            for name, distribution in search_space.items()
            if isinstance(distribution, Numerical)
        }
        others = {
            name: self.sample_independent(study, trial, name, distribution)
            for name, distribution in search_space.items()
            if name not in numerical
        }
        if not numerical:
            return others
        trials = study.get_trials(deepcopy=False)
        if self._points is None or self._points.space != numerical:
            self._points = _Points(numerical)
        points = self._points
        generations = self._generations(study, trial, trials, points)
        learned = self._learn(study.direction, trials, generations, points)
        state = learned.state
        if learned.screen is not None:
            rng = np.random.default_rng([self._seed, len(generations), trial.number, SCREENING])
            return learned.screen.best(state.distribution, rng) | others
        x, y = state.distribution.x, state.distribution.y
        drawn = {
            name: from_unit(
                self._draw(len(generations), trial.number, name, x[i], y[i]), distribution
            )
            for i, (name, distribution) in enumerate(numerical.items())
        }
        return drawn | others

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Draw a single parameter uniformly, or with the given independent sampler.

        Numbers come out as in generation 0 of the relative sampling. So it makes no difference
        to the first trials whether another one has already made the search space known.

        Raises
        ------
        ValueError
            If the study has several objectives.
        """
        self._raise_error_if_multi_objective(study)
        if self._independent_sampler is not None:
            return self._independent_sampler.sample_independent(
                study, trial, param_name, param_distribution
            )
        u = self._draw(0, trial.number, param_name, 1.0, 1.0)
        if isinstance(param_distribution, Numerical):
            return from_unit(u, param_distribution)
        choices = getattr(param_distribution, "choices", ())
        if not choices:
            remedy = "use one of these"
            raise invalid(param_name, "be a number or a choice", param_distribution, remedy)
        return choices[_cell(u, len(choices))]

    def _draw(self, generation: int, number: int, name: str, x: float, y: float) -> float:
        rng = np.random.default_rng([self._seed, generation, number, zlib.crc32(name.encode())])
        return float(ProductBeta(np.array([x]), np.array([y])).sample(1, rng)[0, 0])

    def _generations(
        self, study: Study, trial: FrozenTrial, trials: Sequence[FrozenTrial], points: _Points
    ) -> list[list[int]]:
        """Claims of every update before this trial's generation; opens a new one if it is time."""
        claims: dict[int, list[int]] = {}
        for other in trials:  # in the order of their numbers: the lowest opener decides
            record = other.system_attrs.get(ATTRIBUTE, {})
            if "claims" in record:
                claims.setdefault(record["generation"], record["claims"])
        generations: list[list[int]] = []
        while (following := len(generations) + 1) in claims:
            generations.append(claims[following])

        own = trial.system_attrs.get(ATTRIBUTE)
        if own is not None:  # asked for a second time, after an interruption: the same point
            generations = generations[: own["generation"]]
            if "claims" in own:
                generations[-1] = own["claims"]
            return generations

        claimed = {number for numbers in generations for number in numbers}
        free = [t.number for t in trials if t.number not in claimed and points.of(t) is not None]
        record = {"generation": len(generations)}
        if len(free) >= self._generation_size:
            generations.append(free)
            record = {"generation": len(generations), "claims": free}
        # Optuna has no public way to write system attributes; its own samplers do the same.
        study._storage.set_trial_system_attr(trial._trial_id, ATTRIBUTE, record)
        return generations

    def _learn(
        self,
        direction: StudyDirection,
        trials: Sequence[FrozenTrial],
        generations: Sequence[Sequence[int]],
        points: _Points,
    ) -> _Learned:
        """What the trials say that the generations claim; the same for all of a generation."""
        claimed = {n for numbers in generations for n in numbers}
        seen = [t for t in trials if t.number in claimed]
        known = self._learned
        if (
            known is not None
            and (known.direction, known.generations) == (direction, generations)
            and known.points is points
            and _are_same(known.seen, seen)
        ):
            return known
        state, screen = self._replay(direction, trials, generations, points), None
        if self._features is not None and state.generation:
            sign = sign_of(direction)
            screen = _Screen.fit(self._features, points.usable(seen), sign, points)
        self._learned = _Learned(direction, seen, generations, points, state, screen)
        return self._learned

    def _replay(
        self,
        direction: StudyDirection,
        trials: Sequence[FrozenTrial],
        generations: Sequence[Sequence[int]],
        points: _Points,
    ) -> NaturalGradient:
        state = NaturalGradient(
            len(points.space),
            fisher=self._fisher,
            utilities=self._utilities,
            step_size=self._step_size,
            seed=0,  # all processes must estimate the same Fisher matrices, whatever their seed
        )
        by_number = {t.number: t for t in trials}
        done = self._replayed
        replayed: list[tuple[Array, Array, NaturalGradient]] = []
        seen: set[int] = set()
        for numbers in generations:
            # Each trial once, though racing openers may both have claimed it; and the space may
            # have changed since.
            fresh = [by_number[n] for n in numbers if n not in seen]
            seen.update(numbers)
            members = points.usable(fresh)
            if not members:
                continue
            rows = points.together(members)
            sign = sign_of(direction)
            values = raw_values(members, sign) if self._utilities == "raw" else keys(members, sign)
            i = len(replayed)
            known = (
                i < len(done)
                and np.array_equal(done[i][0], rows)
                and np.array_equal(done[i][1], values)
            )
            if known:
                state = done[i][2]
            else:
                done = ()  # everything after a difference is different
                state = state.tell(rows, values)
            replayed.append((rows, values, state))
        self._replayed = tuple(replayed)
        return state


@dataclass(frozen=True)
class _Learned:
    """Where the search stands, and from what that was computed."""

    direction: StudyDirection
    seen: Sequence[FrozenTrial]
    generations: Sequence[Sequence[int]]
    points: _Points
    state: NaturalGradient
    screen: _Screen | None


class _Points:
    """Where finished trials lie in the unit cube of a space; each is looked at once."""

    def __init__(self, space: NumericalSpace) -> None:
        self.space = space
        self._known: dict[int, tuple[FrozenTrial, Array | None]] = {}

    def of(self, trial: FrozenTrial) -> Array | None:
        """The point [d] of a trial; None if nothing can be learnt from it."""
        if not trial.state.is_finished():
            return None
        known = self._known.get(trial.number)
        if known is None or known[0] is not trial:
            known = self._known[trial.number] = trial, self._find(trial)
        return known[1]

    def usable(self, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """Those from which something can be learnt."""
        return [trial for trial in trials if self.of(trial) is not None]

    def together(self, trials: Sequence[FrozenTrial]) -> Array:
        """The points [n, d] of usable trials."""
        return np.array([self.of(trial) for trial in trials], dtype=np.float64)

    def _find(self, trial: FrozenTrial) -> Array | None:
        if not is_usable(trial, self.space):
            return None
        return np.array([to_unit(trial.params[name], self.space[name]) for name in self.space])


@dataclass(frozen=True)
class _Screen:
    """Chooses the most promising of many proposals, by what their parameters stand for.

    Attributes
    ----------
    features : callable
    fixed : dict
        Parameters with a single value. They are not searched, but may be needed to say what others
        mean.
    space : mapping of str to distribution
    points : ndarray [n, d]
        Evaluated ones, in the unit cube.
    order : ndarray [n]
        Larger is better.
    surrogate : Surrogate
        Fitted to these.
    """

    features: Features
    fixed: dict[str, Any]
    space: NumericalSpace
    points: Array
    order: Array
    surrogate: Surrogate

    @classmethod
    def fit(
        cls, features: Features, seen: Sequence[FrozenTrial], sign: float, points: _Points
    ) -> _Screen:
        """Learn from evaluated trials."""
        order = ranks(seen, sign)
        space = points.space
        fixed = {
            name: seen[0].params[name]
            for name, distribution in seen[0].distributions.items()
            if isinstance(distribution, Numerical) and distribution.single()
        }
        columns = {name: np.array([t.params[name] for t in seen]) for name in space}
        surrogate = Surrogate.fit(_rows(features, fixed, columns), order)
        return cls(features, fixed, space, points.together(seen), order, surrogate)

    def best(self, distribution: ProductBeta, rng: np.random.Generator) -> dict[str, Any]:
        """The parameters of the proposal that is best in one draw from the posterior."""
        proposed = propose(distribution, self.points, self.order, rng)
        columns = {
            name: from_units(column, self.space[name])
            for name, column in zip(self.space, proposed.T, strict=True)
        }
        rows = _rows(self.features, self.fixed, columns)
        best = self.surrogate.most_promising(rows, rng)
        return {name: values[best].item() for name, values in columns.items()}


def _rows(
    features: Features, fixed: Mapping[str, Any], columns: Mapping[str, npt.NDArray[Any]]
) -> Array:
    """What the parameters stand for, [n, f]."""
    n = len(next(iter(columns.values())))
    constant = {name: np.full(n, value) for name, value in fixed.items()}
    return np.asarray(features(constant | dict(columns)), dtype=np.float64)


def _are_same(some: Sequence[FrozenTrial], others: Sequence[FrozenTrial]) -> bool:
    """Whether these are the same objects; what was told since makes another object."""
    return len(some) == len(others) and all(a is b for a, b in zip(some, others, strict=True))


def fresh_seed() -> int:
    """A seed that nobody has used."""
    return int(np.random.SeedSequence().generate_state(1, np.uint64)[0])


def given_or_fresh_seed(seed: int | None) -> int:
    """The seed that was given, or a new one.

    Raises
    ------
    InputError
        If it is negative.
    """
    if seed is not None and seed < 0:
        raise invalid("seed", "not be negative", seed, "use 0 or more")
    return fresh_seed() if seed is None else int(seed)


def has_parameters(trial: FrozenTrial, space: NumericalSpace) -> bool:
    """Whether a trial has all parameters of a space, with the same distributions."""
    return all(trial.distributions.get(name) == space[name] for name in space)


def is_usable(trial: FrozenTrial, space: NumericalSpace) -> bool:
    """Whether something can be learnt from a trial: it is finished, and has these parameters."""
    if trial.state == TrialState.COMPLETE:
        if trial.value is None or math.isnan(trial.value):
            return False
    elif trial.state != TrialState.PRUNED:
        return False
    return has_parameters(trial, space)


def ranks(trials: Sequence[FrozenTrial], sign: float) -> Array:
    """Numbers that sort as the trials do, the best one highest; equal trials share theirs. [n]."""
    if not trials:
        return np.zeros(0)
    place = np.unique(keys(trials, sign), axis=0, return_inverse=True)[1]  # rows sort as tuples
    return place.reshape(-1).astype(np.float64)


def sign_of(direction: StudyDirection) -> float:
    """1 where a study maximises, else -1: times this, larger values are better."""
    return 1.0 if direction == StudyDirection.MAXIMIZE else -1.0


def keys(trials: Sequence[FrozenTrial], sign: float) -> Array:
    """Rows that sort as the trials do, the best one highest: complete?, step, value. [n, 3]."""
    rows = []
    for trial in trials:
        if trial.state == TrialState.COMPLETE:
            rows.append((1.0, 0.0, sign * float(trial.value or 0.0)))
        else:
            step, value = _last_report(trial, sign)
            rows.append((0.0, step, value))
    return np.array(rows)


def raw_values(trials: Sequence[FrozenTrial], sign: float) -> Array:
    """Finite numbers, larger is better; a pruned one is at most the worst complete one. [n]."""
    done = [trial.state == TrialState.COMPLETE for trial in trials]
    values = [
        sign * float(trial.value or 0.0) if complete else _last_report(trial, sign)[1]
        for trial, complete in zip(trials, done, strict=True)
    ]
    complete = [v for v, whole in zip(values, done, strict=True) if whole and math.isfinite(v)]
    if complete:  # else all were pruned, and are compared with one another
        values = [v if whole else min(v, *complete) for v, whole in zip(values, done, strict=True)]
    finite = complete or [v for v in values if math.isfinite(v)] or [0.0]
    best, worst = max(finite), min(finite)
    return np.array([v if math.isfinite(v) else (best if v > 0 else worst) for v in values])


def _last_report(trial: FrozenTrial, sign: float) -> tuple[float, float]:
    """Last step and the value there; a trial pruned without a report is the worst of all."""
    if not trial.intermediate_values:
        return -math.inf, -math.inf
    step = max(trial.intermediate_values)
    value = sign * float(trial.intermediate_values[step])
    return float(step), -math.inf if math.isnan(value) else value


def from_unit(u: float, distribution: Numerical) -> float | int:
    """Map a number in [0, 1] to a value of the distribution.

    Stepped values get cells of equal width; whole numbers on a log scale cells from k - 1/2 to
    k + 1/2.

    >>> from_unit(0.5, FloatDistribution(0.25, 4.0, log=True))
    1.0
    >>> [from_unit(u, IntDistribution(1, 5, step=2)) for u in (0.0, 0.3, 0.4, 0.9, 1.0)]
    [1, 1, 3, 5, 5]
    """
    low, high = distribution.low, distribution.high
    if distribution.log:
        half = 0.5 if isinstance(distribution, IntDistribution) else 0.0
        start, stop = math.log(low - half), math.log(high + half)
        value = math.exp(start + u * (stop - start))
        if isinstance(distribution, IntDistribution):
            value = round(value)
        return min(max(value, low), high)
    if distribution.step is None:
        return float(min(max(low + u * (high - low), low), high))
    value = low + _cell(u, _n_cells(distribution)) * distribution.step
    return min(value, high)


def from_units(u: Array, distribution: Numerical) -> npt.NDArray[Any]:
    """`from_unit` of many numbers [n], to the last bit."""
    if distribution.log or distribution.step is not None:
        return np.array([from_unit(one, distribution) for one in u.tolist()])
    low, high = distribution.low, distribution.high
    return np.minimum(np.maximum(low + u * (high - low), low), high)


def to_unit(value: float, distribution: Numerical) -> float:
    """Map a value back to [0, 1]: the middle of its cell if it has one.

    >>> to_unit(0.01, FloatDistribution(1e-4, 1.0, log=True))
    0.5
    >>> to_unit(3, IntDistribution(1, 5, step=2))
    0.5
    """
    low, high = distribution.low, distribution.high
    if distribution.log:
        half = 0.5 if isinstance(distribution, IntDistribution) else 0.0
        start, stop = math.log(low - half), math.log(high + half)
        u = (math.log(value) - start) / (stop - start)
    elif distribution.step is None:
        u = (value - low) / (high - low)
    else:
        u = (round((value - low) / distribution.step) + 0.5) / _n_cells(distribution)
    return min(max(u, 0.0), 1.0)


def _n_cells(distribution: Numerical) -> int:
    return round((distribution.high - distribution.low) / (distribution.step or 1)) + 1


def _cell(u: float, n: int) -> int:
    return min(int(u * n), n - 1)
