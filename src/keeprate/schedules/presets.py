"""Presets: the schedules that a search tries first."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import TypeAlias

from keeprate.files import read_json
from keeprate.schedules.formulas import Array, exponential_drop, plain_decay
from keeprate.schedules.schedule import Schedule

FEW = 4  # a search that explores fewer trials has no presets
PRESETS_FROM_DIGITS = tuple(
    Schedule(preset["keep_rate"], preset["name"])
    for preset in read_json(Path(__file__).with_name("prior.json"))["schedules"]
)
"""Schedules found on scikit-learn's digits. `python -m experiments prior` writes the file."""
Preset: TypeAlias = Schedule | tuple[Callable[..., Array], tuple[float, ...]]
PRESETS: tuple[Preset, ...] = (
    *PRESETS_FROM_DIGITS,
    (exponential_drop, (0.45, 20)),  # a fast drop, for epochs of many steps
    (exponential_drop, (0.4, 8)),
    (plain_decay, (0.85,)),
    (exponential_drop, (0.6, 8)),
    (plain_decay, (1.0,)),
    (exponential_drop, (0.35, 8)),
    (exponential_drop, (0.7, 4)),
)
"""The schedules of a warm start, or formulas with their numbers. The first six cover much noise and
little noise."""


def preset_keep_rate(preset: Preset, epochs: int) -> Array:
    """Return R(t) of a preset over T = `epochs` epochs: [T]."""
    if isinstance(preset, Schedule):
        return preset.stretched(epochs).keep_rate
    formula, numbers = preset
    return formula(epochs, *numbers)


def presets_for(n_explored: int, earlier: tuple[Schedule, ...]) -> tuple[Preset, ...]:
    """Return the presets of a search that explores `n_explored` trials.

    The schedules of earlier runs come first.
    """
    return (earlier + (PRESETS if n_explored >= FEW else ()))[:n_explored]


def presets_in_words(n_explored: int, earlier: tuple[Schedule, ...] = ()) -> list[str]:
    """Describe the presets for the configuration of a run.

    A run continues only with the same presets.

    >>> presets_in_words(5, (Schedule([1.0, 0.5], "earlier"),))[::4]
    ['earlier 7ded3217', 'exponential_drop 0.45 20']
    >>> presets_in_words(3)
    []
    """
    return [_in_words(preset) for preset in presets_for(n_explored, earlier)]


def _in_words(preset: Preset) -> str:
    if isinstance(preset, Schedule):
        return f"{preset.name} {sha256(preset.keep_rate.tobytes()).hexdigest()[:8]}"
    formula, numbers = preset
    return " ".join([formula.__name__, *(f"{number:g}" for number in numbers)])
