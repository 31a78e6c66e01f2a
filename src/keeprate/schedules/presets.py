"""The schedules that a search tries first."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import TypeAlias

from keeprate.files import read_json
from keeprate.schedules.formulas import Array, exponential_drop, plain_decay
from keeprate.schedules.schedule import Schedule

FEW = 4  # explored trials from which on given schedules are the first
PRIOR = tuple(
    Schedule(one["keep_rate"], one["name"])
    for one in read_json(Path(__file__).with_name("prior.json"))["schedules"]
)
"""Found on scikit-learn's digits: `python -m experiments prior` writes the file."""
Given: TypeAlias = Schedule | tuple[Callable[..., Array], tuple[float, ...]]
GIVEN: tuple[Given, ...] = (
    *PRIOR,
    (exponential_drop, (0.45, 20)),  # at once: for epochs of many steps
    (exponential_drop, (0.4, 8)),
    (plain_decay, (0.85,)),
    (exponential_drop, (0.6, 8)),
    (plain_decay, (1.0,)),
    (exponential_drop, (0.35, 8)),
    (exponential_drop, (0.7, 4)),
)
"""The schedules of a warm start, or shapes with their numbers; the first six reach from much noise
to little."""


def given_keep_rate(given: Given, epochs: int) -> Array:
    """R(t) over so many epochs: [T]."""
    if isinstance(given, Schedule):
        return given.stretched(epochs).keep_rate
    shape, numbers = given
    return shape(epochs, *numbers)


def begin_with(n_explored: int, earlier: tuple[Schedule, ...]) -> tuple[Given, ...]:
    """What a search that explores so many trials begins with."""
    return (earlier + (GIVEN if n_explored >= FEW else ()))[:n_explored]


def given_in_words(n_explored: int, earlier: tuple[Schedule, ...] = ()) -> list[str]:
    """What a run's configuration says of a warm start: with another, it would not be continued.

    >>> given_in_words(5, (Schedule([1.0, 0.5], "earlier"),))[::4]
    ['earlier 7ded3217', 'exponential_drop 0.45 20']
    >>> given_in_words(3)
    []
    """
    return [_in_words(one) for one in begin_with(n_explored, earlier)]


def _in_words(given: Given) -> str:
    if isinstance(given, Schedule):
        return f"{given.name} {sha256(given.keep_rate.tobytes()).hexdigest()[:8]}"
    shape, numbers = given
    return " ".join([shape.__name__, *(f"{number:g}" for number in numbers)])
