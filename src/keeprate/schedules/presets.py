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
PRESETS_FROM_DIGITS = tuple(
    Schedule(one["keep_rate"], one["name"])
    for one in read_json(Path(__file__).with_name("prior.json"))["schedules"]
)
"""Found on scikit-learn's digits: `python -m experiments prior` writes the file."""
Preset: TypeAlias = Schedule | tuple[Callable[..., Array], tuple[float, ...]]
PRESETS: tuple[Preset, ...] = (
    *PRESETS_FROM_DIGITS,
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


def preset_keep_rate(given: Preset, epochs: int) -> Array:
    """R(t) over so many epochs: [T]."""
    if isinstance(given, Schedule):
        return given.stretched(epochs).keep_rate
    shape, numbers = given
    return shape(epochs, *numbers)


def presets_for(n_explored: int, earlier: tuple[Schedule, ...]) -> tuple[Preset, ...]:
    """What a search that explores so many trials begins with."""
    return (earlier + (PRESETS if n_explored >= FEW else ()))[:n_explored]


def presets_in_words(n_explored: int, earlier: tuple[Schedule, ...] = ()) -> list[str]:
    """What a run's configuration says of a warm start: with another, it would not be continued.

    >>> presets_in_words(5, (Schedule([1.0, 0.5], "earlier"),))[::4]
    ['earlier 7ded3217', 'exponential_drop 0.45 20']
    >>> presets_in_words(3)
    []
    """
    return [_in_words(one) for one in presets_for(n_explored, earlier)]


def _in_words(given: Preset) -> str:
    if isinstance(given, Schedule):
        return f"{given.name} {sha256(given.keep_rate.tobytes()).hexdigest()[:8]}"
    shape, numbers = given
    return " ".join([shape.__name__, *(f"{number:g}" for number in numbers)])
