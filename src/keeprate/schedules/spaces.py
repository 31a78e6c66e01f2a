"""Search spaces: parameters as Optuna distributions, and the schedules that the parameters give.

Sec. 4.1.1 of the paper compares ``basis`` (Eq. (1)), ``co-teaching`` (Eq. (3)) and ``full`` (a free
keep rate for every epoch). App. B.2 adds ``power-decay``. Every schedule of every space starts at
R(1) = 1 (Sec. 3.2) and never falls below `keeprate.schedules.MIN_KEEP_RATE`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution

from keeprate.errors import Words, invalid
from keeprate.schedules.formulas import (
    MIN_KEEP_RATE,
    N_BASIS_PARAMETERS,
    Array,
    basis_schedule,
    check_epochs,
    co_teaching_schedule,
    single_power_decay,
)
from keeprate.schedules.schedule import Schedule


@dataclass(frozen=True)
class Space:
    """A set of schedules, described by named parameters.

    Parameters
    ----------
    name : str
        The key in `SPACES`.
    summary : str
        One line for users.
    describe : callable
        Maps T to the Optuna distribution of every parameter.
    build : callable
        Maps (parameters in the order of `describe`, each a number or [...], T) to keep rates
        [..., T].

    Examples
    --------
    >>> space = get_space("co-teaching")
    >>> sorted(space.distributions(200))
    ['c', 't_k', 'tau']
    >>> space.schedule({"tau": 0.2, "t_k": 2, "c": 1.0}, 4).keep_rate
    array([1. , 0.9, 0.8, 0.8])
    """

    name: str
    summary: str
    describe: Callable[[int], dict[str, BaseDistribution]] = field(repr=False)
    build: Callable[[Mapping[str, Any], int], Array] = field(repr=False)

    def distributions(self, n_epochs: int) -> dict[str, BaseDistribution]:
        """Return the distribution of each parameter, as `Study.ask` takes them."""
        return self.describe(check_epochs(n_epochs))

    def schedule(self, parameters: Mapping[str, float], n_epochs: int) -> Schedule:
        """Return the schedule of T = `n_epochs` epochs that the parameters describe.

        Parameters
        ----------
        parameters : mapping of str to float
            A value for every name in ``distributions(n_epochs)``. Other names are ignored,
            because a trial may search more than the schedule.
        n_epochs : int
            T.

        Raises
        ------
        InputError
            If a parameter is missing or out of its range.
        """
        checked = self._checked(parameters, n_epochs)
        return Schedule(self.build(checked, n_epochs), self.name, checked)

    def keep_rates(self, parameters: Mapping[str, npt.ArrayLike], n_epochs: int) -> Array:
        """Return the keep rates of many schedules at once.

        Parameters
        ----------
        parameters : mapping of str to array_like [n]
            n values of each parameter that `schedule` takes.
        n_epochs : int
            T.

        Returns
        -------
        ndarray of float64 [n, T]

        Raises
        ------
        InputError
            If a parameter is missing or a value is out of its range.
        """
        return self.build(self._checked(parameters, n_epochs), n_epochs)

    def _checked(self, parameters: Mapping[str, Any], n_epochs: int) -> dict[str, Any]:
        checked = {}
        for name, distribution in self.distributions(n_epochs).items():
            if name not in parameters:
                requirement = f"hold {name} for the space {self.name} with {n_epochs} epochs"
                received = Words(f"only {', '.join(sorted(parameters)) or 'none at all'}")
                remedy = "use the space and the number of epochs of the search they come from"
                raise invalid("parameters", requirement, received, remedy)
            value = parameters[name]
            outside = _first_outside(distribution, value)
            if outside is not None:
                raise invalid(name, f"lie in {_range(distribution)}", outside, "stay in the range")
            checked[name] = value
        return checked


def _first_outside(distribution: BaseDistribution, value: npt.ArrayLike) -> Any:
    """Return the first value that is out of the range; None if there is none."""
    if not isinstance(distribution, FloatDistribution | IntDistribution):
        return None  # pragma: no cover - the spaces below have no other
    values = np.asarray(value, dtype=np.float64)
    inside = (distribution.low <= values) & (values <= distribution.high)
    if isinstance(distribution, IntDistribution):
        inside &= values == np.round(values)
    outside = np.asarray(value)[~inside]
    return outside[0].item() if outside.size else None


def _range(distribution: BaseDistribution) -> str:
    whole = " (whole numbers)" if isinstance(distribution, IntDistribution) else ""
    return f"[{getattr(distribution, 'low', '')}, {getattr(distribution, 'high', '')}]{whole}"


def _units(first: int, last: int, letter: str) -> dict[str, BaseDistribution]:
    return {f"{letter}{i}": FloatDistribution(0.0, 1.0) for i in range(first, last + 1)}


def _stacked(parameters: Mapping[str, Any]) -> Array:
    return np.stack([np.asarray(value, dtype=np.float64) for value in parameters.values()], -1)


def _build_full(parameters: Mapping[str, Any], n_epochs: int) -> Array:
    later = (
        _stacked(parameters) if parameters else np.ones(0)
    )  # with one epoch there are no parameters
    rates = np.concatenate([np.ones((*later.shape[:-1], 1)), later], -1)
    clipped: Array = np.maximum(rates, MIN_KEEP_RATE)
    return clipped


SPACES: dict[str, Space] = {
    space.name: space
    for space in (
        Space(
            "basis",
            "Eq. (1): a mix of five basis functions, 12 numbers in [0, 1]",
            lambda n_epochs: _units(1, N_BASIS_PARAMETERS, "u"),
            lambda p, n_epochs: basis_schedule(_stacked(p), n_epochs),
        ),
        Space(
            "co-teaching",
            "Eq. (3): Co-teaching's schedule, 3 numbers",
            # The paper gives no range for c. Outside [0.1, 10] the schedule is almost a step, in
            # the first epoch or at epoch t_k. Log scale: c and 1/c bend it equally far.
            lambda n_epochs: {
                "tau": FloatDistribution(0.0, 1.0),
                "t_k": IntDistribution(1, n_epochs),
                "c": FloatDistribution(0.1, 10.0, log=True),
            },
            lambda p, n_epochs: co_teaching_schedule(
                n_epochs, tau=p["tau"], t_k=p["t_k"], c=p["c"]
            ),
        ),
        Space(
            "power-decay",
            "App. B.2: a single power decay, 2 numbers",
            # A single decay must reach low keep rates in short and in long trainings: a = 1,
            # b = 10 gives 0.011 after 9 epochs. With b = 0.001 it hardly falls in 200 epochs.
            lambda n_epochs: {
                "a": FloatDistribution(0.0, 1.0),
                "b": FloatDistribution(0.001, 10.0, log=True),
            },
            lambda p, n_epochs: single_power_decay(n_epochs, a=p["a"], b=p["b"]),
        ),
        Space(
            "full",
            "a free keep rate for every epoch but the first, T - 1 numbers",
            # There is no e1, as R(1) = 1 (Sec. 3.2): a parameter without effect would add noise
            # to the search.
            lambda n_epochs: _units(2, n_epochs, "e"),
            _build_full,
        ),
    )
}
"""All search spaces by name."""


def get_space(name: str) -> Space:
    """Look up a search space.

    Raises
    ------
    InputError
        If no space has this name. The message lists all names.

    Examples
    --------
    >>> get_space("basis").summary
    'Eq. (1): a mix of five basis functions, 12 numbers in [0, 1]'
    """
    if name not in SPACES:
        raise invalid("space", f"be one of {', '.join(SPACES)}", name, "choose one of these")
    return SPACES[name]
