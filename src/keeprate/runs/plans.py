"""What is to be trained: schedules by name, a run's own plan and those to compare with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from keeprate.data import Data
from keeprate.engine import METHODS, PER_CLASS, Method, get_method
from keeprate.errors import invalid
from keeprate.noise import Noise
from keeprate.schedules import (
    Schedule,
    named_schedule,
)

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


def given_plan(method: Method, schedule: Schedule, *rivals: Schedule, own: bool = False) -> Plan:
    """A method with a schedule that no search found, or with several that take turns.

    `own`: with the one that the noise rate gives, which names the plan by its method.
    """
    if not method.uses_schedule:
        return Plan(method.name, method.label, method, (schedule,))
    if rivals:
        return Plan("custom", f"{method.label}, R(t) without a search", method, (schedule, *rivals))
    if own:
        whose = "its own" if method.name == "co-teaching" else "Co-teaching's"
        return Plan(method.name, f"{method.label}, {whose} R(t)", method, (schedule,))
    names = {
        "constant": "every sample kept",
        "custom": "given R(t)",
        "co-teaching": "a given R(t) of Eq. (3)",
        "auto": "R(t) by the noise rate",
    }
    label = f"{method.label}, {names.get(schedule.name, f'{schedule.name} R(t)')}"
    return Plan("custom", label, method, (schedule,))


def get_baselines(asked: Baselines, chosen: Method) -> bool | list[Method]:
    """The methods to compare a chosen one with; True stands for what the noise rate allows.

    Raises
    ------
    InputError
        If there is no such method, or another one of the same name.

    Examples
    --------
    >>> [method.name for method in get_baselines("standard, jocor", METHODS["co-teaching"])]
    ['standard', 'jocor']
    """
    requirement = f"be auto, none, all, or methods: {', '.join(METHODS)}, package.module:method"
    words: bool | str | Sequence[str | Method] = asked
    if isinstance(asked, str):
        names = [name.strip() for name in asked.split(",")]
        words = {"auto": True, "none": False}.get(asked.strip(), names)
        words = tuple(METHODS) if names == ["all"] else words
    if isinstance(words, bool):
        return words
    if not isinstance(words, Sequence) or not all(isinstance(one, str | Method) for one in words):
        raise invalid("baselines", requirement, asked, "try standard,jocor")
    found = {chosen.name: chosen}
    methods = []
    for one in words:
        if not (isinstance(one, Method) or one in METHODS or ":" in one or PER_CLASS in one):
            raise invalid("baselines", requirement, one, "try standard,jocor")
        method = get_method(one)
        if found.setdefault(method.name, method) != method:
            requirement = "have names of their own"
            raise invalid("baselines", requirement, method.name, "give one another name")
        methods.append(method)
    return list({method.name: method for method in methods}.values()) or False


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
    plans = []
    for method in asked:
        name = "co-teaching" if method.uses_schedule else "constant"
        if method.uses_schedule and noise_rate is None:
            raise invalid(
                "noise_rate",
                f"be known for the R(t) that {method.name} is compared with",
                "nothing",
                "give --noise-rate (your estimate), or leave that one out of --baselines",
            )
        schedule = named_schedule(name, epochs, noise_rate=noise_rate)
        plans.append(given_plan(method, schedule, own=True))
    return plans


def without(own: Plan, plans: Sequence[Plan]) -> list[Plan]:
    """All but the one that would repeat a run's own plan."""
    return [
        plan
        for plan in plans
        if plan.method != own.method
        or (plan.method.uses_schedule and plan.schedules != own.schedules)
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
