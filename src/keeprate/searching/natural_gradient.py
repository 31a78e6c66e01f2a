"""Natural-gradient search over the unit cube with a product of Beta distributions (Alg. 2).

The search distribution is ``p(u; x, y) = prod_i Beta(u_i; x_i, y_i)``; its parameters follow the
natural gradient of the expected value of samples, Eq. (4) to (6) of the paper. The paper says that
the Fisher matrix has no explicit formula and estimates it from 10,000 extra samples; for a product
of Betas it has one, and both are here. NumPy and SciPy only.

References
----------
Ollivier et al. 2017, Information-geometric optimization algorithms, JMLR 18 (utilities of ranks).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
from scipy.special import betaln, digamma, polygamma

from keeprate.errors import Words, invalid

Array: TypeAlias = npt.NDArray[np.float64]
Fisher: TypeAlias = Literal["closed-form", "monte-carlo"]
Utilities: TypeAlias = Literal["rank", "raw"]

EDGE = 1e-6
"""Samples keep this distance from 0 and 1, so that log u and log(1 - u) are finite."""

MIN_PARAMETER, MAX_PARAMETER = 0.1, 1e4
"""Bounds of x and y: below, a Beta puts nearly all its mass on the edges; above, its standard
deviation is less than 0.01 and the closed-form Fisher matrix loses digits."""

MONTE_CARLO_SAMPLES = 10_000  # Alg. 2
MEMORY = 3  # generations whose points the rank utilities compare


@dataclass(frozen=True)
class ProductBeta:
    """Independent Beta distributions, one per coordinate of the unit cube.

    Parameters
    ----------
    x, y : array_like [d]
        Positive and finite. ``x = y = 1`` is the uniform distribution.

    Raises
    ------
    InputError
        If the shapes differ or a parameter is not positive and finite.

    Examples
    --------
    >>> ProductBeta([1.0, 3.0], [1.0, 1.0]).mean()
    array([0.5 , 0.75])
    """

    x: Array
    y: Array

    def __post_init__(self) -> None:
        for name in ("x", "y"):
            value = np.array(getattr(self, name), dtype=np.float64)
            value.flags.writeable = False
            object.__setattr__(self, name, value)
        if self.x.ndim != 1 or self.x.shape != self.y.shape or not self.x.size:
            shapes = f"shapes {self.x.shape} and {self.y.shape}"
            raise invalid(
                "x and y", "be two rows of one length", Words(shapes), "give d numbers each"
            )
        both = np.concatenate([self.x, self.y])
        if not ((both > 0) & np.isfinite(both)).all():
            raise invalid("x and y", "be positive and finite", both.tolist(), "use 1 for uniform")

    @classmethod
    def uniform(cls, n_dims: int) -> ProductBeta:
        """Return the uniform distribution on the cube of `n_dims` dimensions."""
        return cls(np.ones(n_dims), np.ones(n_dims))

    def sample(self, n: int, rng: np.random.Generator) -> Array:
        """Draw points [n, d], at least `EDGE` away from 0 and 1."""
        return np.clip(rng.beta(self.x, self.y, (n, len(self.x))), EDGE, 1 - EDGE)

    def mean(self) -> Array:
        """Return the expected point [d]."""
        mean: Array = self.x / (self.x + self.y)
        return mean

    def log_density(self, points: npt.ArrayLike) -> Array:
        """Return log p of points [..., d] inside the cube, [...]."""
        u = np.asarray(points, dtype=np.float64)
        logs = (self.x - 1) * np.log(u) + (self.y - 1) * np.log1p(-u) - betaln(self.x, self.y)
        return np.asarray(logs.sum(-1))

    def log_density_gradient(self, points: npt.ArrayLike) -> Array:
        """Return the score of points [..., d] inside the cube, [..., d, 2].

        The last axis holds d/dx = log u + psi(x + y) - psi(x) and
        d/dy = log(1 - u) + psi(x + y) - psi(y), below Eq. (6).
        """
        return statistics(points) - self.expected_statistics()

    def expected_statistics(self) -> Array:
        """Return E[(log u, log(1 - u))], the mean parameters, [d, 2]."""
        total = digamma(self.x + self.y)
        return np.stack([digamma(self.x) - total, digamma(self.y) - total], -1)

    def fisher(self) -> Array:
        """Return the Fisher matrix in closed form, one block per coordinate, [d, 2, 2].

        The Beta is an exponential family with natural parameters x and y (up to constants), so
        the block is the covariance of the statistics: with psi1 the trigamma function and
        s = x + y, ``[[psi1(x) - psi1(s), -psi1(s)], [-psi1(s), psi1(y) - psi1(s)]]``.
        """
        shared = polygamma(1, self.x + self.y)
        rows = [polygamma(1, self.x) - shared, -shared, -shared, polygamma(1, self.y) - shared]
        return np.stack(rows, -1).reshape(-1, 2, 2)

    def monte_carlo_fisher(self, n: int, rng: np.random.Generator) -> Array:
        """Estimate the same blocks as the mean of score score^T over `n` samples, [d, 2, 2].

        The paper's way, with n = 10,000.
        """
        score = self.log_density_gradient(self.sample(n, rng))
        return np.asarray(np.einsum("ndi,ndj->dij", score, score) / n)


@dataclass(frozen=True)
class NaturalGradient:
    """The state of a search that maximises; every `tell` returns the next state.

    Two ways to weigh the samples of a generation:

    ``"rank"``
        Utilities that depend on the order of the values alone (Ollivier et al. 2017), so that
        every increasing transformation of the values gives the same search. The best half of
        the newest generation's size, chosen among the points of the last `MEMORY` generations,
        get weights decreasing with the logarithm of their rank, as in CMA-ES; ties share
        theirs. With budgets of a few dozen evaluations the memory saves whole generations.
    ``"raw"``
        Eq. (6) as it stands: the mean of value times score.

    Two ways to choose the step:

    ``step_size=None``
        Along the natural gradient, always as far as a Kullback-Leibler divergence of about
        ``n_dims / 6`` between two generations' distributions (to second order, half the
        squared Fisher length). The length of the gradient itself is mostly noise when a
        generation has ten samples, and for raw values it depends on their scale. No step
        more than halves a parameter, so none leaves the domain.
    a number
        Eq. (5) as it stands: theta + rho H^-1 grad J, then projected to [`MIN_PARAMETER`,
        `MAX_PARAMETER`].

    Parameters
    ----------
    n_dims : int
        d.
    fisher : {"closed-form", "monte-carlo"}
        Exact, or estimated as in the paper.
    utilities : {"rank", "raw"}
        See above.
    step_size : float or None
        rho of Eq. (5), or None for the bounded step.
    seed : int
        For the Monte-Carlo estimate alone; generation g always uses the same samples.
    distribution : ProductBeta or None
        Where the search stands; None starts from the uniform one, which prefers nothing and
        whose first generation is a random search.
    generation : int
        How many updates have been made.
    memory : tuple of (points, values)
        The last `MEMORY` - 1 generations, newest last.

    Examples
    --------
    Find the maximum of a function at (0.2, 0.7):

    >>> rng = np.random.default_rng(0)
    >>> search = NaturalGradient(2)
    >>> for _ in range(30):
    ...     points = search.ask(10, rng)
    ...     search = search.tell(points, -((points - [0.2, 0.7]) ** 2).sum(-1))
    >>> search.distribution.mean().round(1)
    array([0.2, 0.7])
    """

    n_dims: int
    fisher: Fisher = "closed-form"
    utilities: Utilities = "rank"
    step_size: float | None = None
    seed: int = 0
    distribution: ProductBeta = None  # type: ignore[assignment]  # set right after construction
    generation: int = 0
    memory: tuple[tuple[Array, Array], ...] = ()

    def __post_init__(self) -> None:
        check_options(self.fisher, self.utilities, self.step_size)
        if self.n_dims < 1:
            raise invalid("n_dims", "be positive", self.n_dims, "search one number at least")
        if self.distribution is None:
            object.__setattr__(self, "distribution", ProductBeta.uniform(self.n_dims))

    def ask(self, n: int, rng: np.random.Generator) -> Array:
        """Draw points [n, d] from the current distribution."""
        return self.distribution.sample(n, rng)

    def tell(self, points: npt.ArrayLike, values: npt.ArrayLike) -> NaturalGradient:
        """Return the state after a generation's points and their values.

        Parameters
        ----------
        points : array_like [n, d]
            In the unit cube; not necessarily drawn by `ask`.
        values : array_like [n] or [n, k]
            Larger is better. For rank utilities they may be infinite, or rows of k numbers of
            which the earlier ones decide first.

        Raises
        ------
        InputError
            If the shapes do not fit, no points are given, a point leaves the cube, or a value
            is NaN (or, for raw utilities, infinite).
        """
        u, v = self._checked(points, values)
        memory = (*self.memory, (u, v))[-MEMORY:]
        if self.utilities == "raw":
            score = self.distribution.log_density_gradient(u)  # [n, d, 2]
            gradient = np.einsum("n,ndi->di", v, score) / len(v)  # Eq. (6)
        else:
            n_best = max(1, len(v) // 2)
            u, v = (np.concatenate(parts) for parts in zip(*memory, strict=True))
            score = self.distribution.log_density_gradient(u)
            gradient = np.einsum("n,ndi->di", rank_utilities(v, n_best=n_best), score)
        step = self._step(gradient)
        return replace(
            self,
            distribution=self._moved(step),
            generation=self.generation + 1,
            memory=memory[1 - MEMORY :] if self.utilities == "rank" else (),
        )

    def _step(self, gradient: Array) -> Array:
        """H^-1 grad J [d, 2], scaled."""
        if self.fisher == "closed-form":
            natural = np.linalg.solve(self.distribution.fisher(), gradient[..., None])[..., 0]
        else:
            rng = np.random.default_rng([self.seed, self.generation])
            estimate = self.distribution.monte_carlo_fisher(MONTE_CARLO_SAMPLES, rng)
            # Far out, where samples stop at EDGE, an estimated block may be singular.
            natural = np.einsum("dij,dj->di", np.linalg.pinv(estimate, hermitian=True), gradient)
        if self.step_size is not None:
            return np.asarray(self.step_size * natural)  # Eq. (5)
        length = np.sqrt(max(0.0, float((natural * gradient).sum())))  # sqrt(grad^T H^-1 grad)
        if length == 0:
            return np.zeros_like(gradient)
        return np.asarray(natural * (np.sqrt(self.n_dims / 3) / length))

    def _moved(self, step: Array) -> ProductBeta:
        old = np.stack([self.distribution.x, self.distribution.y], -1)  # [d, 2]
        if self.step_size is None:
            # Keep the direction within each coordinate: shorten x and y together.
            worst = np.max(-step / old, axis=-1, keepdims=True)  # 0.5 halves a parameter
            step = step / np.maximum(1.0, 2 * worst)
        new = np.clip(old + step, MIN_PARAMETER, MAX_PARAMETER)
        return ProductBeta(new[:, 0], new[:, 1])

    def _checked(self, points: npt.ArrayLike, values: npt.ArrayLike) -> tuple[Array, Array]:
        u = np.asarray(points, dtype=np.float64)
        v = np.asarray(values, dtype=np.float64)
        rows = v.ndim == 1 or (v.ndim == 2 and self.utilities == "rank")
        if not rows or not v.size or u.shape != (len(v), self.n_dims):
            raise invalid(
                "points and values",
                f"have the shapes (n, {self.n_dims}) and (n,)",
                Words(f"{u.shape} and {v.shape}"),
                "give every point one value",
            )
        if not ((u >= 0) & (u <= 1)).all():
            raise invalid(
                "points", "lie in the unit cube", Words("others"), "map them to [0, 1] first"
            )
        if np.isnan(v).any() or (self.utilities == "raw" and not np.isfinite(v).all()):
            requirement = "be finite" if self.utilities == "raw" else "not be NaN"
            raise invalid("values", requirement, v.tolist(), "leave failed samples out")
        return np.clip(u, EDGE, 1 - EDGE), v


def statistics(points: npt.ArrayLike) -> Array:
    """Return (log u, log(1 - u)) of points [..., d] inside the cube, [..., d, 2]."""
    u = np.asarray(points, dtype=np.float64)
    return np.stack([np.log(u), np.log1p(-u)], -1)


def rank_utilities(values: npt.ArrayLike, *, n_best: int) -> Array:
    """Weigh samples by rank alone.

    The k-th best of n samples gets a weight proportional to ``log(m + 1/2) - log k`` if it is
    among the m = `n_best`, else 0; they sum to 1. Samples of equal value share the weights of
    their ranks. Then 1/(2n) is subtracted: half the samples' mean. Without it the distribution
    drifts with the luck of the draw; with the whole mean it narrows too slowly for searches of a
    few generations. Where all values are equal there is nothing to learn and all weights are 0.

    Parameters
    ----------
    values : array_like [n] or [n, k]
        Larger is better; infinities are allowed. Rows are compared from their first number on.
    n_best : int
        m, at least 1.

    Returns
    -------
    ndarray of float64 [n]

    Examples
    --------
    >>> rank_utilities([0.1, 0.9, 0.5, 0.2], n_best=2).round(3)
    array([-0.125,  0.679,  0.071, -0.125])
    >>> rank_utilities([3, 3, 3], n_best=1)
    array([0., 0., 0.])
    """
    values = np.asarray(values, dtype=np.float64) + 0.0  # -0.0 and 0.0 are one value
    n = len(values)
    distinct, group = np.unique(values, axis=0, return_inverse=True)  # rows sort as tuples do
    if len(distinct) == 1:
        return np.zeros(n)
    group = len(distinct) - 1 - group.reshape(-1)  # 0 is best
    size = np.bincount(group)
    last = np.cumsum(size)
    ladder = np.log(n_best + 0.5) - np.log(np.arange(1, n + 1))
    ladder[n_best:] = 0.0
    below = np.concatenate([[0.0], np.cumsum(ladder / ladder.sum())])
    shared = (below[last] - below[last - size]) / size
    return np.asarray(shared[group] - 1 / (2 * n))


def check_options(fisher: str, utilities: str, step_size: float | None) -> None:
    """Refuse unknown options; shared with `keeprate.searching.sampler`.

    Raises
    ------
    InputError
        If an option has no meaning.
    """
    for name, value, known in (
        ("fisher", fisher, get_args(Fisher)),
        ("utilities", utilities, get_args(Utilities)),
    ):
        if value not in known:
            raise invalid(name, f"be one of {', '.join(known)}", value, "choose one of these")
    if step_size is not None and not 0 < step_size < np.inf:
        raise invalid("step_size", "be positive", step_size, "use None for the bounded step")
