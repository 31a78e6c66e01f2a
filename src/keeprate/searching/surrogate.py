"""Which of many proposals to evaluate: Thompson sampling from a Gaussian process.

The natural gradient learns where good points lie, coordinate by coordinate. A Gaussian process over
what the points *stand for* (the keep rates of a schedule) learns more from each evaluation, because
many parameter vectors give nearly the same schedule. The process predicts which proposals are worth
an evaluation.

References
----------
Thompson 1933, Biometrika 25. Russo et al. 2018, A tutorial on Thompson sampling. Rasmussen and
Williams 2006, Gaussian processes for machine learning.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from threading import RLock
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from keeprate.searching.natural_gradient import EDGE, Array, ProductBeta

MOST = 300  # evaluations, the newest, that the process is fitted to: it costs their cube
FROM_DISTRIBUTION, FROM_ANYWHERE, NEAR_THE_BEST = 300, 100, 200  # proposals of each kind
FINALISTS, DEVIATIONS = 300, 3.0  # a draw is of the proposals whose mean + 3 deviations is highest
JITTER = 1e-6  # of a posterior variance; scores have a variance of about 1
BEST, MOVED, DEVIATION = 5, 0.3, 0.15  # near the best 5: in 30 % of the coordinates, by so much


def propose(
    distribution: ProductBeta, points: Array, order: Array, rng: np.random.Generator
) -> Array:
    """Draw proposals [m, d]: from the search distribution, from anywhere, and near the best.

    Parameters
    ----------
    points : ndarray [n, d]
        Evaluated ones.
    order : ndarray [n]
        Larger is better.
    """
    n_dims = points.shape[1]
    best = points[np.argsort(-order, kind="stable")[:BEST]]
    near = best[rng.integers(len(best), size=NEAR_THE_BEST)]
    moved = rng.random(near.shape) < MOVED
    moved[np.arange(len(near)), rng.integers(n_dims, size=len(near))] = True  # at least one
    near = near + moved * rng.normal(0.0, DEVIATION, near.shape)
    anywhere = rng.random((FROM_ANYWHERE, n_dims))
    drawn = distribution.sample(FROM_DISTRIBUTION, rng)
    return np.asarray(np.clip(np.concatenate([drawn, anywhere, near]), EDGE, 1 - EDGE))


@dataclass(frozen=True)
class Posterior:
    """What scores with a known covariance say of others.

    Attributes
    ----------
    factor : ndarray [n, n]
        The lower Cholesky factor of the covariance of the scores, their noise included.
    weights : ndarray [n]
        The inverse of that covariance times the scores.
    log_likelihood : float
        Of the scores, up to a constant.
    """

    factor: Array
    weights: Array
    log_likelihood: float

    @classmethod
    def given(cls, covariance: Array, scores: Array) -> Posterior:
        """From the covariance [n, n] and the scores [n], whose mean is 0."""
        factor = _factor(covariance)
        weights = _solve(factor, scores)
        likelihood = -0.5 * float(scores @ weights) - float(np.log(factor.diagonal()).sum())
        return cls(factor, weights, likelihood)

    def shift(self, between: Array) -> Array:
        """By how much the scores move the mean of others [m], given their covariance [m, n]."""
        return np.asarray(between @ self.weights)

    def solve(self, right: Array) -> Array:
        """The product of the inverse of the scores' covariance with another [n, ...]."""
        return _solve(self.factor, right)

    def explained(self, between: Array) -> Array:
        """E [n, m]: the scores take E^T E from the covariance of others."""
        from scipy.linalg import solve_triangular

        return np.asarray(solve_triangular(self.factor, between.T, lower=True, check_finite=False))


@dataclass(frozen=True)
class Surrogate:
    """A Gaussian process over what evaluated points stand for.

    Attributes
    ----------
    prior : Prior
    points : ndarray [n, f]
    posterior : Posterior

    Examples
    --------
    >>> seen = np.linspace(0, 1, 20)[:, None]
    >>> surrogate = Surrogate.fit(seen, -abs(seen[:, 0] - 0.5))
    >>> surrogate.most_promising([[0.05], [0.52], [0.95]], np.random.default_rng(0))
    1
    """

    prior: Prior
    points: Array
    posterior: Posterior

    @classmethod
    def fit(cls, features: npt.ArrayLike, order: npt.ArrayLike) -> Surrogate:
        """Fit to evaluated points, the newest `MOST` of them.

        Parameters
        ----------
        features : array_like [n, f]
            What the points stand for.
        order : array_like [n]
            Larger is better; only the ranks count, so that one failed training does not drown the
            differences between good ones.
        """
        points = np.asarray(features, np.float64)[-MOST:]
        scores = _normal_scores(np.asarray(order, np.float64)[-MOST:])
        squared = squared_distances(points)
        with one_thread():
            prior = _most_likely(points, squared, scores)
            covariance = prior.covariance(prior.signal(squared))
            return cls(prior, points, Posterior.given(covariance, scores))

    def mean(self, points: Array) -> Array:
        """Mean [m] of the scores of points [m, f]."""
        return self.posterior.shift(self.prior.signal(squared_distances(points, self.points)))

    def expect(self, points: Array) -> tuple[Array, Array]:
        """Mean [m] and covariance [m, m] of the scores of points [m, f], without noise."""
        between = self.prior.signal(squared_distances(points, self.points))
        explained = self.posterior.explained(between)
        covariance = self.prior.signal(squared_distances(points)) - explained.T @ explained
        return self.posterior.shift(between), covariance

    def most_promising(self, proposed: npt.ArrayLike, rng: np.random.Generator) -> int:
        """Return the index of the proposal [m, f] that is best in one draw from the posterior.

        The draw is of `FINALISTS` only: the others are next to never the best, and the covariance
        of all costs the cube of their number.
        """
        with one_thread():
            return self._most_promising(np.asarray(proposed, np.float64), rng)

    def _most_promising(self, points: Array, rng: np.random.Generator) -> int:
        between = self.prior.signal(squared_distances(points, self.points))
        explained = self.posterior.explained(between)
        variance = self.prior.constant - np.square(explained).sum(0)
        reach = self.posterior.shift(between) + DEVIATIONS * np.sqrt(np.maximum(variance, 0.0))
        chosen = np.sort(np.argsort(-reach, kind="stable")[:FINALISTS])
        mean, covariance = self.expect(points[chosen])
        draw = draws(mean, covariance, 1, rng)[0]
        return int(chosen[np.argmax(draw)])


def draws(mean: Array, covariance: Array, n: int, rng: np.random.Generator) -> Array:
    """Draw from a Gaussian with this mean [m] and covariance [m, m]: [n, m].

    A little on the diagonal stays, or proposals that are nearly alike have no Cholesky factor.
    """
    lifted = covariance.copy()
    lifted[np.diag_indices(len(mean))] += JITTER
    return np.asarray(mean + rng.standard_normal((n, len(mean))) @ _factor(lifted).T)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let BLAS use a single thread within.

    The matrices here are small, and the threads of OpenBLAS wait for each other without rest. Where
    other processes want the same cores they took up to forty times the processor time of one.
    """
    with _LIMITED, _blas().limit(limits=1, user_api="blas"):
        yield


_LIMITED = RLock()  # the limit is of the process: of two at once, the second would find the first's


@cache
def _blas() -> Any:
    import scipy.linalg  # noqa: F401  # it loads one of its own, which should be found
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


@dataclass(frozen=True)
class Prior:
    """What a Gaussian process takes for granted: variances of signal and noise, and a length.

    The covariance of the values at x and y is constant * exp(-|x - y|^2 / (2 * length^2)).
    """

    constant: float
    length: float
    noise: float

    def signal(self, squared: Array) -> Array:
        """Covariance of values without noise, from squared distances."""
        signal = squared / (-2 * self.length**2)
        np.exp(signal, out=signal)
        signal *= self.constant
        return signal

    def covariance(self, signal: Array) -> Array:
        """Covariance [n, n] of evaluations, from that of values without noise."""
        covariance = signal.copy()
        covariance[np.diag_indices(len(signal))] += self.noise + 1e-8
        return covariance


def _most_likely(points: Array, squared: Array, scores: Array) -> Prior:
    """The prior of the largest marginal likelihood: Rasmussen and Williams 2006, Sec. 5.4.1."""
    from scipy.optimize import minimize

    spread = float(np.sqrt(2 * points.var(0).sum())) or 1.0  # of a typical distance
    start = np.array([1.0, spread, 0.1])
    bounds = np.array([(0.1, 10.0), (0.1 * spread, 10.0 * spread), (1e-4, 1.0)])

    def loss(logarithms: Array) -> tuple[float, Array]:
        """The negative logarithm of the likelihood, and its gradient: Eqs. 5.8 and 5.9."""
        prior = Prior(*np.exp(logarithms).tolist())
        signal = prior.signal(squared)
        factor = _factor(prior.covariance(signal))
        weights = _solve(factor, scores)
        inner = _solve(factor, np.eye(len(scores))) - np.outer(weights, weights)
        signal *= inner
        gradient = [
            signal.sum(),
            (signal * squared).sum() / prior.length**2,
            prior.noise * inner.trace(),
        ]
        return (
            0.5 * float(scores @ weights) + float(np.log(factor.diagonal()).sum()),
            0.5 * np.array(gradient),
        )

    found = minimize(loss, np.log(start), jac=True, bounds=np.log(bounds), method="L-BFGS-B")
    return Prior(*np.exp(found.x).tolist())


def squared_distances(points: Array, others: Array | None = None) -> Array:
    """Squared distances [n, m] of points [n, f] from others [m, f], or from each other."""
    from scipy.spatial.distance import cdist, pdist, squareform

    if others is None:
        return np.asarray(squareform(pdist(points, "sqeuclidean")))
    return np.asarray(cdist(points, others, "sqeuclidean"))


def _factor(covariance: Array) -> Array:
    return np.asarray(np.linalg.cholesky(covariance), dtype=np.float64)


def _solve(factor: Array, right: Array) -> Array:
    """The product of a matrix's inverse, of which this is the Cholesky factor, with another."""
    from scipy.linalg import cho_solve

    return np.asarray(cho_solve((factor, True), right, check_finite=False))


def _normal_scores(order: Array) -> Array:
    """Normal quantiles of the ranks; equal values share theirs."""
    from scipy.stats import rankdata  # a wrong option should not wait for its import

    return np.asarray(ndtri((rankdata(order) - 0.5) / len(order)))
