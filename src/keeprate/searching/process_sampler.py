"""Search with a Gaussian process over what parameters stand for, as an Optuna sampler.

Many parameter vectors give nearly the same schedule. A process over schedules therefore learns more
from each training than one over parameters. Nothing is kept in the study beside the trials: a point
depends on the seed, its trial's number, the finished trials and those that are running.

References
----------
Letham et al. 2019, Constrained Bayesian optimization with noisy experiments (expected improvement
over points whose values are uncertain, and of several points at once, by draws).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from keeprate.errors import invalid
from keeprate.searching.experience import Belief
from keeprate.searching.natural_gradient import EDGE, Array
from keeprate.searching.sampler import (
    Features,
    Numerical,
    NumericalSpace,
    fresh_seed,
    from_units,
    given_or_fresh_seed,
    has_parameters,
    is_usable,
    keys,
    ranks,
    sign_of,
    to_unit,
)
from keeprate.searching.surrogate import Surrogate, draws, one_thread

FEW = 4  # finished trials: with fewer, and without a belief, points are spread evenly
ANYWHERE, KEPT, OFFSPRING, ROUNDS = 800, 40, 10, 3
"""Proposals from anywhere; how many of the best are kept in a round, points near each, rounds."""
NEAR_BEST, BEST = 20, 5  # points near each of so many best trials
MOVED, NEAREST, FURTHEST = 0.3, 0.02, 0.25  # near: in 30 % of the coordinates, by so much
FINALISTS, DRAWS = 250, 256  # proposals whose values are drawn together, and how often
MOST = 200  # finished trials that the process learns from: it costs their cube


class Process(Protocol):
    """Means and covariances of the scores of described points [n, f]; larger is better."""

    def mean(self, points: Array) -> Array: ...

    def expect(self, points: Array) -> tuple[Array, Array]: ...


class GaussianProcessSampler(BaseSampler):
    """Propose the point that is expected to improve most on the best so far.

    It learns from at most 200 finished trials: the 100 best, and the 100 newest of the others.

    Parameters
    ----------
    space : mapping of str to distribution
        The numerical parameters of every trial.
    features : callable
        Maps an array [n] of each parameter to what they stand for, [n, f]: keep rates [n, T].
    seed : int, optional
        Not negative. None draws one.
    belief : Belief, optional
        What to expect before any trial is finished. None: the first points are spread evenly.

    Raises
    ------
    InputError
        If a parameter is not a number, or the seed is negative.

    Examples
    --------
    >>> import optuna
    >>> from keeprate.schedules import get_space
    >>> optuna.logging.set_verbosity(optuna.logging.WARNING)
    >>> space, wanted = get_space("co-teaching"), 1 - 0.3 * np.minimum(np.arange(40) / 9, 1)
    >>> sampler = GaussianProcessSampler(
    ...     space.distributions(40), lambda p: space.keep_rates(p, 40), seed=1
    ... )
    >>> study = optuna.create_study(sampler=sampler)
    >>> for _ in range(25):
    ...     trial = study.ask(space.distributions(40))
    ...     error = abs(space.schedule(trial.params, 40).keep_rate - wanted).mean()
    ...     _ = study.tell(trial, error)
    >>> study.best_value < 0.02
    True
    """

    def __init__(
        self,
        space: Mapping[str, BaseDistribution],
        features: Features,
        *,
        seed: int | None = None,
        belief: Belief | None = None,
    ) -> None:
        for name, distribution in space.items():
            if not isinstance(distribution, Numerical):
                raise invalid(name, "be a number", distribution, "leave it out of the space")
        self._seeded, self._seed = seed is not None, given_or_fresh_seed(seed)
        self._whole = {n: d for n, d in space.items() if isinstance(d, Numerical)}
        self._space: NumericalSpace = {n: d for n, d in self._whole.items() if not d.single()}
        self._features, self._belief = features, belief
        # What the next trials would compute again; speed only.
        self._learned: tuple[tuple[list[Any], list[Any]], Process | None] | None = None

    def reseed_rng(self) -> None:
        """Draw a new seed unless one was given."""
        if not self._seeded:
            self._seed = fresh_seed()

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return the parameters that are searched."""
        return dict(self._space)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Propose a point.

        Raises
        ------
        ValueError
            If the study has several objectives.
        """
        self._raise_error_if_multi_objective(study)
        asked = [name for name in self._space if name in search_space]  # others may be fixed
        if not asked:
            return {}
        trials = study.get_trials(deepcopy=False)
        sign = sign_of(study.direction)
        finished = _most_telling([t for t in trials if is_usable(t, self._space)], sign)
        running = [
            self._point(t)
            for t in trials
            if t.state == TrialState.RUNNING
            and t.number != trial.number
            and has_parameters(t, self._space)
        ]
        rng = np.random.default_rng([self._seed, trial.number])
        with one_thread():
            point = self._propose(finished, running, sign, rng, trial.number)
        values = self._values(point[None])
        return {name: values[name][0].item() for name in asked}

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Draw a parameter that is not of the space uniformly."""
        sampler = RandomSampler(seed=(self._seed + trial.number) % 2**32)
        return sampler.sample_independent(study, trial, param_name, param_distribution)

    def _propose(
        self,
        finished: Sequence[FrozenTrial],
        running: Sequence[Array],
        sign: float,
        rng: np.random.Generator,
        number: int,
    ) -> Array:
        """A point [d] of the unit cube."""
        process = self._learn(finished, sign)
        if process is None:
            return self._evenly(number)
        known = np.array([self._point(trial) for trial in finished]).reshape(-1, len(self._space))
        order = np.argsort([-row for row in ranks(finished, sign)], kind="stable")
        pool = self._pool(process, known[order[:BEST]], rng)
        others = np.concatenate([known, np.array(running).reshape(-1, len(self._space))])
        described = self._describe(np.concatenate([others, pool]))
        best = most_improving(process, described[: len(others)], described[len(others) :], rng)
        return np.asarray(pool[best])

    def _learn(self, finished: Sequence[FrozenTrial], sign: float) -> Process | None:
        """What the finished trials say; None if too little is known to say anything."""
        params = [[trial.params[name] for name in self._space] for trial in finished]
        state = params, keys(finished, sign).tolist()
        if self._learned is None or self._learned[0] != state:
            self._learned = state, self._fit(finished, sign)
        return self._learned[1]

    def _fit(self, finished: Sequence[FrozenTrial], sign: float) -> Process | None:
        if len(finished) < (1 if self._belief is not None else FEW):
            return self._belief
        points = self._describe(np.array([self._point(trial) for trial in finished]))
        if self._belief is not None:
            return self._belief.learn(points, _values(finished, sign))
        return Surrogate.fit(points, ranks(finished, sign))

    def _pool(self, process: Process, best: Array, rng: np.random.Generator) -> Array:
        """Proposals [m, d]: the best of several rounds, and others."""
        n_dims = len(self._space)
        pool = np.concatenate(
            [rng.random((ANYWHERE, n_dims)), _near(np.repeat(best, NEAR_BEST, axis=0), rng)]
        )
        for _ in range(ROUNDS):
            kept = pool[np.argsort(-process.mean(self._describe(pool)), kind="stable")[:KEPT]]
            fresh = rng.random((KEPT, n_dims))
            pool = np.concatenate([kept, _near(np.repeat(kept, OFFSPRING, axis=0), rng), fresh])
        order = np.argsort(-process.mean(self._describe(pool)), kind="stable")
        chosen = np.concatenate([order[: FINALISTS // 2], order[FINALISTS // 2 :][::3]])
        return np.asarray(pool[chosen[:FINALISTS]])

    def _describe(self, points: Array) -> Array:
        """What points [n, d] of the unit cube stand for: [n, f]."""
        n = len(points)
        fixed = {
            name: np.full(n, getattr(distribution, "low", None))
            for name, distribution in self._whole.items()
            if name not in self._space
        }
        features = np.asarray(self._features(fixed | self._values(points)), np.float64)
        return features if self._belief is None else self._belief.describe(features)

    def _values(self, points: Array) -> dict[str, npt.NDArray[Any]]:
        return {
            name: from_units(column, self._space[name])
            for name, column in zip(self._space, points.T, strict=True)
        }

    def _point(self, trial: FrozenTrial) -> Array:
        return np.array([to_unit(trial.params[name], self._space[name]) for name in self._space])

    def _evenly(self, number: int) -> Array:
        """A point of a low-discrepancy sequence."""
        from scipy.stats import qmc

        sequence = qmc.Sobol(len(self._space), seed=np.random.default_rng(self._seed))
        if number:
            sequence.fast_forward(number)
        return np.asarray(np.clip(sequence.random(1)[0], EDGE, 1 - EDGE))


def most_improving(
    process: Process, known: Array, proposed: Array, rng: np.random.Generator
) -> int:
    """Return the proposal [m, f] that is expected to improve most on all that is known [n, f].

    What is known, finished or on its way, has uncertain values, too: all are drawn together. If
    nothing is known, the proposal with the highest mean is best.
    """
    mean, covariance = process.expect(np.concatenate([known, proposed]))
    if not len(known):
        return int(np.argmax(mean))
    drawn = draws(mean, covariance, DRAWS, rng)
    best = drawn[:, : len(known)].max(1, keepdims=True)
    return int(np.argmax(np.maximum(drawn[:, len(known) :] - best, 0.0).mean(0)))


def _near(points: Array, rng: np.random.Generator) -> Array:
    """Move each point [n, d] in some of its coordinates."""
    if not len(points):
        return points
    moved = rng.random(points.shape) < MOVED
    moved[np.arange(len(points)), rng.integers(points.shape[1], size=len(points))] = True
    deviation = np.exp(rng.uniform(np.log(NEAREST), np.log(FURTHEST), (len(points), 1)))
    shifted = points + moved * deviation * rng.standard_normal(points.shape)
    return np.asarray(np.clip(shifted, EDGE, 1 - EDGE))


def _most_telling(trials: Sequence[FrozenTrial], sign: float) -> Sequence[FrozenTrial]:
    """At most `MOST` trials, in their order: half of them the best, half the newest others."""
    if len(trials) <= MOST:
        return trials
    order = np.argsort([-rank for rank in ranks(trials, sign)], kind="stable").tolist()
    best = order[: MOST // 2]
    newest = sorted(order[MOST // 2 :])[-(MOST - len(best)) :]
    return [trials[place] for place in sorted(best + newest)]


def _values(trials: Sequence[FrozenTrial], sign: float) -> Array:
    """The values of the trials that got furthest; the others lie a little below the worst. [n]."""
    rows = keys(trials, sign)
    furthest = (rows[:, :2] == max(map(tuple, rows[:, :2].tolist()))).all(1)
    furthest &= np.isfinite(rows[:, 2])
    if not furthest.any():
        return np.zeros(len(rows))
    known = rows[furthest, 2]
    below = known.min() - (known.std() / 2 or 1e-6)
    return np.where(furthest, rows[:, 2], below)
