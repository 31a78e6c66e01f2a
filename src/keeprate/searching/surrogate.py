"""Which of many proposals to evaluate: Thompson sampling from a Gaussian process.

The natural gradient learns where good points lie, coordinate by coordinate. A Gaussian process over
what the points *stand for* (the keep rates of a schedule) learns more from each evaluation, because
many parameter vectors give nearly the same schedule. The process predicts which proposals are worth
an evaluation.

References
----------
Thompson 1933, Biometrika 25. Russo et al. 2018, A tutorial on Thompson sampling.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from keeprate.searching.natural_gradient import EDGE, Array, ProductBeta

if TYPE_CHECKING:
    from sklearn.gaussian_process import GaussianProcessRegressor


MOST = 300  # evaluations, the newest, that the process is fitted to: it costs their cube
FROM_DISTRIBUTION, FROM_ANYWHERE, NEAR_THE_BEST = 300, 100, 200  # proposals of each kind
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
class Surrogate:
    """A Gaussian process over what evaluated points stand for.

    Examples
    --------
    >>> seen = np.linspace(0, 1, 20)[:, None]
    >>> surrogate = Surrogate.fit(seen, -abs(seen[:, 0] - 0.5))
    >>> surrogate.most_promising([[0.05], [0.52], [0.95]], np.random.default_rng(0))
    1
    """

    process: GaussianProcessRegressor

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
        seen, values = np.asarray(features, np.float64), np.asarray(order, np.float64)
        return cls(_fitted(seen[-MOST:], _normal_scores(values[-MOST:])))

    def most_promising(self, proposed: npt.ArrayLike, rng: np.random.Generator) -> int:
        """Return the index of the proposal [m, f] that is best in one draw from the posterior."""
        mean, covariance = self._posterior(np.asarray(proposed, np.float64))
        draw = mean + np.linalg.cholesky(covariance) @ rng.standard_normal(len(mean))
        return int(np.argmax(draw))

    def _posterior(self, points: Array) -> tuple[Array, Array]:
        """Mean [m] and covariance [m, m] of points [m, f], to the last bit as sklearn's `predict`.

        That one checks its arguments and copies matrices several times, which takes longer than
        the numbers do.
        """
        from scipy.linalg import solve_triangular
        from scipy.spatial.distance import cdist, pdist, squareform

        process, kernel = self.process, self.process.kernel_
        constant, noise = kernel.k1.k1.constant_value, kernel.k2.noise_level
        scaled, seen = (x / kernel.k1.k2.length_scale for x in (points, process.X_train_))
        between = constant * np.exp(-0.5 * cdist(scaled, seen, metric="sqeuclidean"))
        explained = solve_triangular(process.L_, between.T, lower=True, check_finite=False)
        covariance = squareform(constant * np.exp(-0.5 * pdist(scaled, metric="sqeuclidean")))
        # The diagonal holds the noise of an evaluation too, which is no reason to try a point;
        # a little of it stays, or proposals that are nearly alike have no Cholesky factor.
        np.fill_diagonal(covariance, constant + noise)
        covariance -= explained.T @ explained
        covariance[np.diag_indices(len(points))] += JITTER - noise
        return between @ process.alpha_, covariance


def _fitted(features: Array, scores: Array) -> GaussianProcessRegressor:
    from scipy.optimize import minimize
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

    spread = float(np.sqrt(2 * features.var(0).sum())) or 1.0  # of a typical distance
    kernel = ConstantKernel(1.0, (0.1, 10.0)) * RBF(
        spread, (0.1 * spread, 10.0 * spread)
    ) + WhiteKernel(0.1, (1e-4, 1.0))
    # Its own optimiser warns of parameters at their bounds, which are fine here, and warnings
    # cannot be silenced in one thread alone.
    process = GaussianProcessRegressor(kernel, alpha=1e-8, optimizer=None).fit(features, scores)

    def loss(theta: Array) -> tuple[float, Array]:
        likelihood, gradient = process.log_marginal_likelihood(theta, eval_gradient=True)
        return -likelihood, -gradient

    found = minimize(loss, kernel.theta, jac=True, bounds=kernel.bounds, method="L-BFGS-B")
    return GaussianProcessRegressor(
        kernel.clone_with_theta(found.x), alpha=1e-8, optimizer=None
    ).fit(features, scores)


def _normal_scores(order: Array) -> Array:
    """Normal quantiles of the ranks; equal values share theirs."""
    from scipy.stats import rankdata  # a wrong option should not wait for its import

    return np.asarray(ndtri((rankdata(order) - 0.5) / len(order)))
