"""Parameters of a search space that come nearest to a given schedule."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution

from keeprate.schedules import Array, Space
from keeprate.searching.sampler import from_unit, from_units


def nearest_parameters(space: Space, target: Array) -> dict[str, float]:
    """Parameters of the space's schedule that comes nearest to another one.

    Parameters
    ----------
    target : ndarray [T]
        Keep rates, of a given schedule of a warm start say.

    Examples
    --------
    >>> from keeprate.schedules import exponential_drop, get_space
    >>> space, drop = get_space("basis"), exponential_drop(40, 0.45, 20)
    >>> nearest = space.schedule(nearest_parameters(space, drop), 40).keep_rate
    >>> bool(np.allclose(nearest, drop, atol=0.02))
    True
    """
    return dict(_nearest(space, tuple(target.tolist())))


# Searches begin with the same few schedules.
@lru_cache(maxsize=256)
def _nearest(space: Space, given: tuple[float, ...]) -> dict[str, float]:
    from scipy.optimize import least_squares

    target, epochs = np.array(given), len(given)
    numerical = {
        name: distribution
        for name, distribution in space.distributions(epochs).items()
        if isinstance(distribution, FloatDistribution | IntDistribution)
    }

    def parameters(u: npt.NDArray[np.float64]) -> dict[str, float]:
        pairs = zip(numerical.items(), u.tolist(), strict=True)
        return {name: from_unit(value, distribution) for (name, distribution), value in pairs}

    low, high = 0.02, 0.98
    # A whole number changes only with the next cell of its own.
    least = np.array([_cell_width(one) for one in numerical.values()])

    def errors(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Of many points [n, d] of the unit cube at once: [n, T]."""
        pairs = zip(numerical.items(), points.T, strict=True)
        together = {name: from_units(u, distribution) for (name, distribution), u in pairs}
        return np.asarray(space.keep_rates(together, epochs) - target)

    def jacobian(u: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """By differences: [T, d]."""
        steps = np.maximum(0.01 * u, least)
        steps = np.where(u + steps > high, -steps, steps)
        here, *there = errors(np.vstack([u, u + np.diag(steps)]))
        return np.asarray((np.stack(there, 1) - here[:, None]) / steps)

    # From the nearest of a few points: where a schedule is clipped everywhere, nothing leads on.
    tried = np.random.default_rng(0).uniform(0.1, 0.9, (64, len(numerical)))
    nearest = tried[np.argmin(np.square(errors(tried)).sum(1))]
    # Not at the edges of the cube, where a Beta density has no finite logarithm.
    fitted = least_squares(
        lambda u: errors(u[None])[0], nearest, jacobian, bounds=(low, high), max_nfev=15
    )
    return parameters(fitted.x)


def _cell_width(distribution: BaseDistribution) -> float:
    """Of a whole number's values on the unit interval; 0 for other numbers."""
    if not isinstance(distribution, IntDistribution):
        return 0.0
    return 1 / (1 + (distribution.high - distribution.low) // distribution.step)
