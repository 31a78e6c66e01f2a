"""Plans: the lines of the final trainings, a run's own and those to compare it with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import TypeAlias

from keeprate.data import Data
from keeprate.engine import METHODS, PER_CLASS, Method, get_method
from keeprate.errors import Words, invalid
from keeprate.noise import Noise
from keeprate.schedules import Schedule, named_schedule

Baselines: TypeAlias = bool | str | Sequence[str | Method]


@dataclass(frozen=True)
class Origin:
    """What the initial weights and the batches of an earlier training came from.

    Attributes
    ----------
    number : int
        Of its candidate.
    stream : str
    order : int
        As in `keeprate.engine.Assignment`.
    n_taken : int
        Numbers of candidates from 0 on that the stream has had.
    """

    number: int
    stream: str
    order: int
    n_taken: int


@dataclass(frozen=True)
class Plan:
    """One line of the final trainings; several schedules take turns over the restarts.

    Attributes
    ----------
    name : str
        "searched" or "custom" for a run's own, else the method's name.
    label : str
        For people.
    method : Method
    schedules : tuple of Schedule
    repeats : Origin or None
        The earlier training, with the first schedule, that the first restart repeats.
    """

    name: str
    label: str
    method: Method
    schedules: tuple[Schedule, ...]
    repeats: Origin | None = None


def plan_without_search(
    method: Method, schedules: Sequence[Schedule], *, by_noise_rate: bool = False
) -> Plan:
    """Plan a method with schedules that no search proposed.

    Parameters
    ----------
    method : Method
    schedules : sequence of Schedule
        One, or several that take turns.
    by_noise_rate : bool
        Whether this is Co-teaching's schedule by the noise rate: the plan then has the method's
        name.
    """
    schedules = tuple(schedules)
    if not method.uses_schedule:
        return Plan(method.name, method.label, method, schedules)
    if len(schedules) > 1:
        return Plan("custom", f"{method.label}, R(t) without a search", method, schedules)
    if by_noise_rate:
        whose = "its own" if method.name == "co-teaching" else "Co-teaching's"
        return Plan(method.name, f"{method.label}, {whose} R(t)", method, schedules)
    words = {
        "constant": "every sample kept",
        "custom": "given R(t)",
        "co-teaching": "a given R(t) of Eq. (3)",
        "auto": "R(t) by the noise rate",
    }
    name = schedules[0].name
    label = f"{method.label}, {words.get(name, f'{name} R(t)')}"
    return Plan("custom", label, method, schedules)


def get_baselines(baselines: Baselines, method: Method) -> bool | list[Method]:
    """Look up the methods to compare `method` with.

    Returns
    -------
    bool or list of Method
        True stands for what the noise rate allows, False for none.

    Raises
    ------
    InputError
        If there is no such method, or two different methods have one name.

    Examples
    --------
    >>> [method.name for method in get_baselines("standard, jocor", METHODS["co-teaching"])]
    ['standard', 'jocor']
    """
    if isinstance(baselines, str):
        names = [name.strip() for name in baselines.split(",")]
        if names in (["auto"], ["none"]):
            return names == ["auto"]
        baselines = tuple(METHODS) if names == ["all"] else names
    if isinstance(baselines, bool):
        return baselines
    if not isinstance(baselines, Sequence):
        raise _not_baselines(baselines)
    methods: dict[str, Method] = {}
    for item in baselines:
        if not isinstance(item, str | Method) or (isinstance(item, str) and not _is_name(item)):
            raise _not_baselines(item)
        baseline = get_method(item)
        same_name = method if baseline.name == method.name else methods.get(baseline.name, baseline)
        if baseline != same_name:
            requirement = "have names of their own"
            raise invalid("baselines", requirement, baseline.name, "give one another name")
        methods[baseline.name] = baseline
    return list(methods.values()) or False


def _is_name(name: str) -> bool:
    return name in METHODS or ":" in name or PER_CLASS in name


def _not_baselines(received: object) -> ValueError:
    requirement = f"be auto, none, all, or methods: {', '.join(METHODS)}, package.module:method"
    return invalid("baselines", requirement, received, "try standard,jocor")


def baseline_plans(
    baselines: bool | list[Method], epochs: int, noise_rate: float | None
) -> list[Plan]:
    """Plan each method with Co-teaching's R(t), or with every sample where it uses no schedule.

    Raises
    ------
    InputError
        If a method that was asked for by name needs the noise rate, which is not known.
    """
    if isinstance(baselines, bool):
        names = ("standard",) if noise_rate is None else ("co-teaching", "standard")
        baselines = [METHODS[name] for name in names] if baselines else []
    plans = []
    for method in baselines:
        if method.uses_schedule and noise_rate is None:
            raise invalid(
                "noise_rate",
                f"be known for the R(t) that {method.name} is compared with",
                Words("nothing"),
                "give --noise-rate (your estimate), or leave that method out of --baselines",
            )
        name = "co-teaching" if method.uses_schedule else "constant"
        schedule = named_schedule(name, epochs, noise_rate=noise_rate)
        plans.append(plan_without_search(method, [schedule], by_noise_rate=True))
    return plans


def without_repetition(own: Plan, plans: Sequence[Plan]) -> list[Plan]:
    """Leave out the plan that would repeat a run's own."""
    return [
        plan
        for plan in plans
        if plan.method != own.method
        or (plan.method.uses_schedule and plan.schedules != own.schedules)
    ]


def baselines_in_config(baselines: bool | list[Method]) -> bool | list[str]:
    """Describe the baselines for the record: a run goes on only with the same code."""
    if isinstance(baselines, bool):
        return baselines
    return [" ".join(filter(None, (method.name, method.fingerprint()))) for method in baselines]


def assumed_noise_rate(data: Data, noise_rate: float | None) -> float | None:
    """The noise rate that Co-teaching's own schedule may use.

    The user's rate, or else the rate that injected noise has by its definition. Never the rate
    measured by comparing with true labels: true labels must not enter a training.

    Raises
    ------
    InputError
        If the user's rate lies outside [0, 1), or `data` is something else.
    """
    if not isinstance(data, Data):
        remedy = "write keeprate.prepare(...) around it"
        raise invalid("data", "come from keeprate.prepare", type(data), remedy)
    if noise_rate is None:
        return Noise.parse(data.noise).expected_rate(data.n_classes)
    if not isinstance(noise_rate, Real) or not 0 <= noise_rate < 1:
        raise invalid("noise_rate", "lie in [0, 1)", noise_rate, "give a share, 0.45 say")
    return float(noise_rate)
