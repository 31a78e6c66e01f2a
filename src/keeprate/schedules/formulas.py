"""Formulas of R(t), as tables of keep rates: the basis functions and the schedules made of them.

The basis functions are those of Fig. 2 of the paper. They count epochs from 0: every decreasing
function starts at 1 and every increasing function at 0. Users count epochs from 1. NumPy only.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from keeprate.errors import Words, invalid

Array: TypeAlias = npt.NDArray[np.float64]

MIN_KEEP_RATE = 0.01
"""The least keep rate of a searched schedule, because an empty selection has no mean loss. (The
paper clips to [0, 1]. The release of its authors keeps at least 1 %.)"""

N_BASIS_PARAMETERS = 12


def power_decay(t: npt.ArrayLike, a: npt.ArrayLike, b: npt.ArrayLike) -> Array:
    """Power decay, pow-d of Fig. 2: ``1 / (1 + b t)^a``.

    Parameters
    ----------
    t : array_like
        Epochs counted from 0.
    a, b : array_like
        Shape and speed, not negative. They broadcast against `t`.

    Returns
    -------
    ndarray of float64
        Values in [0, 1], not increasing in `t`, 1 at ``t = 0``.

    Examples
    --------
    >>> power_decay([0, 1, 3], a=1, b=1)
    array([1.  , 0.5 , 0.25])
    """
    t, a, b = _checked(t, a, b)
    return np.asarray((1 + b * t) ** -a)


def exponential_decay(t: npt.ArrayLike, a: npt.ArrayLike, b: npt.ArrayLike) -> Array:
    """Exponential decay, exp-d of Fig. 2: ``exp(-b t^a)``, and 1 at ``t = 0``.

    For ``a = 0`` the formula would give ``exp(-b)`` at every epoch, because ``0^0 = 1``. Here it
    starts at 1, like the other decays. Parameters and result as in `power_decay`.

    Examples
    --------
    >>> exponential_decay([0, 1, 2], a=0, b=1).round(3)
    array([1.   , 0.368, 0.368])
    """
    t, a, b = _checked(t, a, b)
    return np.where(t == 0, 1.0, np.exp(-b * t**a))


def logarithmic_decay(t: npt.ArrayLike, a: npt.ArrayLike, b: npt.ArrayLike) -> Array:
    """Logarithmic decay, log-d of Fig. 2: ``log(1 + b) / log(1 + b + a t)``.

    Where the formula is 0/0 the value is 1: at ``t = 0`` for ``b = 0``, and everywhere for
    ``a = b = 0``. For ``b = 0`` and ``a > 0`` the value is 1 at ``t = 0`` and 0 afterwards.
    Parameters and result as in `power_decay`.

    Examples
    --------
    >>> logarithmic_decay([0, 1, 2], a=1, b=0)
    array([1., 0., 0.])
    >>> logarithmic_decay([0, 2], a=1, b=1)
    array([1. , 0.5])
    """
    t, a, b = _checked(t, a, b)
    flat = a * t == 0
    return np.where(flat, 1.0, np.log1p(b) / np.where(flat, 1.0, np.log1p(b + a * t)))


def power_growth(t: npt.ArrayLike, a: npt.ArrayLike, b: npt.ArrayLike, n_epochs: int) -> Array:
    """Power growth, pow-i of Fig. 2: ``b (t / T)^a``, and 0 at ``t = 0``.

    Parameters
    ----------
    t : array_like
        Epochs counted from 0.
    a, b : array_like
        Shape and height, not negative. They broadcast against `t`.
    n_epochs : int
        T, the number of epochs.

    Returns
    -------
    ndarray of float64
        Values in [0, b] for ``t <= T``, not decreasing in `t`. The value is 0 at ``t = 0`` even
        for ``a = 0``: R(1) = 1 for all parameters.

    Examples
    --------
    >>> power_growth([0, 1, 2], a=2, b=1, n_epochs=4)
    array([0.    , 0.0625, 0.25  ])
    """
    t, a, b = _checked(t, a, b)
    return np.where(t == 0, 0.0, b * (t / check_epochs(n_epochs)) ** a)


def logarithmic_growth(
    t: npt.ArrayLike, a: npt.ArrayLike, b: npt.ArrayLike, n_epochs: int
) -> Array:
    """Logarithmic growth, log-i of Fig. 2: ``b log(1 + t^a) / log(1 + T^a)``, 0 at ``t = 0``.

    Parameters and result as in `power_growth`.

    Examples
    --------
    >>> logarithmic_growth([0, 1, 3], a=1, b=1, n_epochs=3)
    array([0. , 0.5, 1. ])
    """
    t, a, b = _checked(t, a, b)
    return np.where(t == 0, 0.0, b * np.log1p(t**a) / np.log1p(check_epochs(n_epochs) ** a))


def basis_schedule(u: npt.ArrayLike, n_epochs: int) -> Array:
    """Compute R(t) of Eq. (1) from twelve numbers in [0, 1].

    A convex mix of the three decreasing functions, plus the two increasing functions, clipped to
    [`MIN_KEEP_RATE`, 1]:

    ======== ==================== ========= ========
    function weight               a         b
    ======== ==================== ========= ========
    exp-d    u1                   u2        u3 / 2
    pow-d    (1 - u1) u8          u4        u5 / 2
    log-d    (1 - u1) (1 - u8)    u10 / 2   u9
    pow-i    1                    2 u6      u7 / 2
    log-i    1                    2 u12     u11 / 2
    ======== ==================== ========= ========

    Parameters
    ----------
    u : array_like [..., 12]
        u1 to u12, each in [0, 1].
    n_epochs : int
        T.

    Returns
    -------
    ndarray of float64 [..., T]
        Exactly 1 in the first epoch.

    Raises
    ------
    InputError
        If `u` has another last dimension or leaves [0, 1].

    Examples
    --------
    >>> u = [1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]  # exp(-t / 2) alone
    >>> basis_schedule(u, 4).round(3)
    array([1.   , 0.607, 0.368, 0.223])
    """
    u = np.asarray(u, dtype=np.float64)
    if u.ndim == 0 or u.shape[-1] != N_BASIS_PARAMETERS:
        received = Words(f"shape {u.shape}")
        raise invalid("u", "have 12 numbers in its last dimension", received, "give u1 to u12")
    if not ((u >= 0) & (u <= 1)).all():
        outside = u[~((u >= 0) & (u <= 1))]
        raise invalid("u", "lie in [0, 1]", float(outside[0]), "clip it")
    t = np.arange(check_epochs(n_epochs), dtype=np.float64)
    u1, u2, u3, u4, u5, u6, u7, u8, u9, u10, u11, u12 = np.moveaxis(u[..., None], -2, 0)
    rate = (
        u1 * exponential_decay(t, u2, u3 / 2)
        + (1 - u1) * u8 * power_decay(t, u4, u5 / 2)
        + (1 - u1) * (1 - u8) * logarithmic_decay(t, u10 / 2, u9)
        + power_growth(t, 2 * u6, u7 / 2, n_epochs)
        + logarithmic_growth(t, 2 * u12, u11 / 2, n_epochs)
    )  # [..., T]
    rate[..., 0] = 1.0  # the weights sum to 1 only up to rounding
    return _clipped(rate)


def plain_decay(n_epochs: int, level: npt.ArrayLike) -> Array:
    """Fall fast at first, then more and more slowly: ``(1 + 20 t / (T - 1))^-a``, t from 0.

    Parameters
    ----------
    n_epochs : int
        T.
    level : array_like [...]
        The keep rate of the last epoch, in (0, 1].

    Returns
    -------
    ndarray of float64 [..., T]

    Raises
    ------
    InputError
        If a level is out of its range.

    Examples
    --------
    >>> plain_decay(5, 0.5).round(3)
    array([1.   , 0.665, 0.579, 0.532, 0.5  ])
    """
    level, share = _level_and_share(n_epochs, level)
    return _clipped((1 + 20 * share) ** (np.log(level) / np.log(21)))


def exponential_drop(n_epochs: int, level: npt.ArrayLike, speed: float) -> Array:
    """Fall to a level and stay there: ``level + (1 - level) exp(-speed t / (T - 1))``, t from 0.

    Parameters
    ----------
    n_epochs : int
        T.
    level : array_like [...]
        The keep rate that R(t) approaches, in (0, 1].
    speed : float
        Positive and finite. After (T - 1) / speed epochs, 1/e of the way is left.

    Returns
    -------
    ndarray of float64 [..., T]

    Raises
    ------
    InputError
        If a level or the speed is out of its range.

    Examples
    --------
    >>> exponential_drop(5, 0.5, 20).round(3)
    array([1.   , 0.503, 0.5  , 0.5  , 0.5  ])
    """
    if not 0 < speed < np.inf:
        raise invalid("speed", "be positive and finite", speed, "try 8")
    level, share = _level_and_share(n_epochs, level)
    return _clipped(level + (1 - level) * np.exp(-speed * share))


def _level_and_share(n_epochs: int, level: npt.ArrayLike) -> tuple[Array, Array]:
    """Return the checked levels [..., 1], and t / (T - 1) for each epoch [T]."""
    level = np.asarray(level, dtype=np.float64)[..., None]
    outside = level[~((level > 0) & (level <= 1))]
    if outside.size:
        raise invalid("level", "lie in (0, 1]", float(outside[0]), "give a keep rate")
    return level, np.arange(check_epochs(n_epochs)) / max(1, n_epochs - 1)


def co_teaching_schedule(
    n_epochs: int, *, tau: npt.ArrayLike, t_k: npt.ArrayLike = 10, c: npt.ArrayLike = 1.0
) -> Array:
    """Compute Co-teaching's schedule, Eq. (3): ``1 - tau min((t / t_k)^c, 1)``, t from 0.

    Parameters
    ----------
    n_epochs : int
        T.
    tau : array_like [...]
        The share that is dropped in the end, in [0, 1]. Usually the noise rate.
    t_k : array_like [...]
        The number of epochs until then, positive.
    c : array_like [...]
        The shape of the way down, positive.

    Returns
    -------
    ndarray of float64 [..., T]
        Not increasing, 1 in the first epoch, clipped to [`MIN_KEEP_RATE`, 1].

    Raises
    ------
    InputError
        If a parameter is out of its range.

    Examples
    --------
    >>> co_teaching_schedule(4, tau=0.2, t_k=2)
    array([1. , 0.9, 0.8, 0.8])
    """
    tau, t_k, c = (np.asarray(v, dtype=np.float64)[..., None] for v in (tau, t_k, c))
    outside = tau[~((tau >= 0) & (tau <= 1))]
    if outside.size:
        raise invalid("tau", "lie in [0, 1]", float(outside[0]), "use the noise rate")
    for name, value in (("t_k", t_k), ("c", c)):
        outside = value[~((value > 0) & np.isfinite(value))]
        if outside.size:
            remedy = "use 10 epochs and c = 1"
            raise invalid(name, "be positive and finite", float(outside[0]), remedy)
    t = np.arange(check_epochs(n_epochs), dtype=np.float64)
    rate = 1 - tau * np.minimum(t / t_k, 1) ** c  # min before the power: no overflow
    return _clipped(rate)


def single_power_decay(n_epochs: int, *, a: npt.ArrayLike, b: npt.ArrayLike) -> Array:
    """Compute a single power decay, the ablation of App. B.2, clipped to [`MIN_KEEP_RATE`, 1].

    Parameters
    ----------
    n_epochs : int
        T.
    a, b : array_like [...]
        As in `power_decay`.

    Returns
    -------
    ndarray of float64 [..., T]

    Examples
    --------
    >>> single_power_decay(3, a=1, b=0.5).round(3)
    array([1.   , 0.667, 0.5  ])
    """
    t = np.arange(check_epochs(n_epochs), dtype=np.float64)
    rate = power_decay(t, np.asarray(a)[..., None], np.asarray(b)[..., None])
    return _clipped(rate)


def constant_schedule(n_epochs: int, value: float = 1.0) -> Array:
    """Return the same keep rate for every epoch. 1 keeps every sample.

    Examples
    --------
    >>> constant_schedule(3, 0.8)
    array([0.8, 0.8, 0.8])
    """
    return np.full(check_epochs(n_epochs), value, dtype=np.float64)


def check_epochs(n_epochs: int) -> int:
    """Return `n_epochs` as an int if it is a positive whole number.

    >>> check_epochs(200)
    200
    """
    whole = isinstance(n_epochs, int | np.integer) and not isinstance(n_epochs, bool)
    if not whole or n_epochs < 1:
        raise invalid("n_epochs", "be a positive whole number", n_epochs, "use 1 or more")
    return int(n_epochs)


def _clipped(rate: Array) -> Array:
    clipped: Array = np.clip(rate, MIN_KEEP_RATE, 1.0)
    return clipped


def _checked(t: npt.ArrayLike, a: npt.ArrayLike, b: npt.ArrayLike) -> tuple[Array, Array, Array]:
    arrays = [np.asarray(value, dtype=np.float64) for value in (t, a, b)]
    for name, value in zip("tab", arrays, strict=True):
        outside = value[~((value >= 0) & np.isfinite(value))]
        if outside.size:
            raise invalid(name, "be finite and not negative", float(outside[0]), "use 0 or more")
    return arrays[0], arrays[1], arrays[2]
