"""What is to be trained: schedules by name, a run's own plan and those to compare with."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from keeprate.data import Data
from keeprate.errors import invalid
from keeprate.methods import METHODS, Method, get_method
from keeprate.noise import Noise
from keeprate.schedules import Schedule, as_schedule
from keeprate.shapes import co_teaching_schedule, plain_decay

Baselines: TypeAlias = bool | str | Sequence[str | Method]


@dataclass(frozen=True)
class Plan:
    """One line of the final stage; of several schedules the restarts take one after the other."""

    name: str
    label: str
    method: Method
    schedules: tuple[Schedule, ...]

    def turn(self, restart: int) -> int:
        """Which of the schedules a restart, counted from 0, trains with."""
        return restart % len(self.schedules)


def given_plan(method: Method, schedule: Schedule, *rivals: Schedule) -> Plan:
    """A method with a schedule that no search found, or with several that take turns."""
    if not method.uses_schedule:
        return Plan(method.name, method.label, method, (schedule,))
    if rivals:
        return Plan("custom", f"{method.label}, R(t) without a search", method, (schedule, *rivals))
    if schedule.name == "co-teaching":
        whose = "its own" if method.name == schedule.name else "Co-teaching's"
        return Plan(method.name, f"{method.label}, {whose} R(t)", method, (schedule,))
    names = {
        "constant": "every sample kept",
        "custom": "given R(t)",
        "auto": "R(t) by the noise rate",
    }
    label = f"{method.label}, {names.get(schedule.name, f'{schedule.name} R(t)')}"
    return Plan("custom", label, method, (schedule,))


def get_baselines(asked: Baselines) -> bool | list[Method]:
    """The methods to compare with; True stands for what the noise rate allows.

    Raises
    ------
    InputError
        If there is no such method.

    Examples
    --------
    >>> [method.name for method in get_baselines("standard, jocor")]
    ['standard', 'jocor']
    """
    if isinstance(asked, bool) or asked in ("auto", "none"):
        return asked is not False and asked != "none"
    names = list(METHODS) if asked == "all" else asked
    if isinstance(names, str):
        names = [name.strip() for name in names.split(",")]
    if not isinstance(names, Sequence) or not all(isinstance(n, str | Method) for n in names):
        requirement = "be auto, none, all, or names of methods"
        raise invalid("baselines", requirement, asked, "try standard,jocor")
    return list({method.name: method for method in map(get_method, names)}.values())


def baseline_plans(asked: bool | list[Method], epochs: int, noise_rate: float | None) -> list[Plan]:
    """Each method with Co-teaching's R(t), or with every sample where it uses none.

    Raises
    ------
    InputError
        If a method that was asked for by name needs the noise rate, which is not known.
    """
    if isinstance(asked, bool):
        names = ("standard",) if noise_rate is None else ("co-teaching", "standard")
        asked = [METHODS[name] for name in names] if asked else []
    return [
        given_plan(
            method,
            named_schedule(
                "co-teaching" if method.uses_schedule else "constant",
                epochs,
                noise_rate=noise_rate,
            ),
        )
        for method in asked
    ]


def describe_baselines(asked: bool | list[Method]) -> bool | list[str]:
    """For the record, whose run must not go on with other code of a method of one's own."""
    if isinstance(asked, bool):
        return asked
    return [" ".join(filter(None, (method.name, method.fingerprint()))) for method in asked]


def assumed_noise_rate(data: Data, given: float | None) -> float | None:
    """The noise rate that Co-teaching's own schedule may use.

    What the user says, else the rate that injected noise has by its definition. Never the rate
    measured by comparing with true labels, which must not enter a training.

    Raises
    ------
    InputError
        If the given one lies outside [0, 1).
    """
    if given is None:
        return Noise.parse(data.noise).expected_rate(data.n_classes)
    if not 0 <= given < 1:
        raise invalid("noise_rate", "lie in [0, 1)", given, "give a share, 0.45 say")
    return given


def named_schedule(name: str, epochs: int, *, noise_rate: float | None) -> Schedule:
    """The schedule of a name, a file or a run folder.

    Parameters
    ----------
    name : str
        "constant" (keep all), "co-teaching" (Eq. (3) with tau = the noise rate, t_k = 10, c = 1:
        the values of its source), a .json or .csv file, or a run folder.
    noise_rate : float or None
        For "co-teaching".
    """
    if name == "constant":
        return Schedule(np.ones(epochs), "constant", {})
    if name == "co-teaching":
        if noise_rate is None:
            raise invalid(
                "noise_rate",
                "be known for Co-teaching's own schedule",
                "nothing",
                "give --noise-rate (your estimate), or search the schedule instead",
            )
        rate = co_teaching_schedule(epochs, tau=noise_rate, t_k=min(10, epochs))
        return Schedule(rate, "co-teaching", {"tau": noise_rate})
    kinds = "'auto', 'constant', 'co-teaching', a .json or .csv file, or a run's folder"
    return as_schedule(load_schedule("schedule", name, kinds), epochs)


def load_schedule(
    what: str, name: str | os.PathLike[str], kinds: str = "a .json or .csv file, or a run's folder"
) -> Schedule:
    """The schedule of a file or a run folder, of any length; `what` was to be one of `kinds`.

    Raises
    ------
    InputError
        If it is not there, or cannot be read.
    """
    path = Path(name)
    if path.is_dir():
        path = path / "schedule.csv"
    if not path.exists():
        raise invalid(what, f"be {kinds}", str(name), "check the path")
    return Schedule.load(path)


def estimated_schedule(epochs: int, noise_rate: float) -> Schedule:
    """A plain decay to (1 - noise rate)^1.5: the more noise, the more of the rest is left out, too.

    >>> float(estimated_schedule(40, 0.36).keep_rate[-1].round(3))
    0.512
    """
    level = max(0.1, (1 - noise_rate) ** 1.5)
    return Schedule(plain_decay(epochs, level), "auto", {"noise_rate": noise_rate})
