"""Keep-rate schedules R(t): the share of each mini-batch that sample selection keeps, per epoch."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from keeprate.errors import InputError, invalid
from keeprate.files import read_json, write_atomically, write_json
from keeprate.schedules.formulas import Array, check_epochs

_KIND = "keeprate schedule"


@dataclass(frozen=True, eq=False)
class Schedule:
    """A keep rate for each epoch, with the parameters it was made from.

    Parameters
    ----------
    keep_rate : array_like [T]
        In [0, 1]; copied, then read-only. The first epoch need not be 1.
    name : str
        What made it.
    parameters : mapping of str to float
        Its parameters; empty for schedules given as numbers.

    Raises
    ------
    InputError
        If `keep_rate` is not a non-empty row of numbers in [0, 1].

    Examples
    --------
    >>> len(Schedule([1.0, 0.9, 0.8]))
    3
    >>> Schedule([1.0, 1.2])
    Traceback (most recent call last):
    ...
    keeprate.errors.InputError: keep_rate must lie in [0, 1], got 1.2 at epoch 2; clip the
    schedule or use a bounded space.
    """

    keep_rate: Array
    name: str = "custom"
    parameters: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        try:
            rate = np.array(self.keep_rate, dtype=np.float64)
        except (TypeError, ValueError):
            raise invalid(
                "keep_rate",
                "be a row of numbers",
                type(self.keep_rate).__name__,
                "give one number per epoch",
            ) from None
        if rate.ndim != 1 or not rate.size:
            raise invalid(
                "keep_rate",
                "be one row with a number per epoch",
                f"an array of shape {rate.shape}",
                "give a list of T numbers",
            )
        outside = np.flatnonzero(~((rate >= 0) & (rate <= 1)))  # NaN is outside, too
        if outside.size:
            epoch = int(outside[0])
            raise invalid(
                "keep_rate",
                "lie in [0, 1]",
                f"{rate[epoch]} at epoch {epoch + 1}",
                "clip the schedule or use a bounded space",
            )
        rate.flags.writeable = False
        parameters = {str(key): float(value) for key, value in self.parameters.items()}
        object.__setattr__(self, "keep_rate", rate)
        object.__setattr__(self, "parameters", MappingProxyType(parameters))

    def __len__(self) -> int:
        return len(self.keep_rate)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Schedule):
            return NotImplemented
        return (
            np.array_equal(self.keep_rate, other.keep_rate)
            and self.name == other.name
            and dict(self.parameters) == dict(other.parameters)
        )

    def __hash__(self) -> int:
        # + 0.0: equal schedules hash alike, and -0.0 equals 0.0
        return hash((self.name, (self.keep_rate + 0.0).tobytes()))

    def __reduce__(self) -> tuple[Any, ...]:  # a mapping proxy cannot be copied between processes
        return Schedule, (self.keep_rate, self.name, dict(self.parameters))

    def stretched(self, n_epochs: int) -> Schedule:
        """The same course over another number of epochs, from the same R(1) to the same R(T).

        >>> Schedule([1.0, 0.8, 0.6, 0.6, 0.6]).stretched(3).keep_rate
        array([1. , 0.6, 0.6])
        """
        if n_epochs == len(self):
            return self
        places = np.linspace(0, len(self) - 1, check_epochs(n_epochs))
        rates = np.interp(places, np.arange(len(self)), self.keep_rate)
        return Schedule(rates, self.name, self.parameters)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the schedule, in a format chosen by the suffix of `path`.

        ``.json`` holds everything; ``.csv`` holds the columns ``epoch`` (from 1) and
        ``keep_rate``, but neither name nor parameters. Both keep every bit of the numbers.

        Raises
        ------
        InputError
            For another suffix, or if the file cannot be written.
        """
        if _suffix(path) == ".csv":
            rows = [f"{epoch},{rate!r}" for epoch, rate in enumerate(self.keep_rate.tolist(), 1)]
            write_atomically(path, "\n".join(["epoch,keep_rate", *rows]) + "\n")
            return
        write_json(
            path,
            {
                "kind": _KIND,
                "name": self.name,
                "parameters": dict(self.parameters),
                "keep_rate": self.keep_rate.tolist(),
            },
        )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Schedule:
        """Read what `save` wrote.

        Raises
        ------
        InputError
            If the file is missing, damaged, has another suffix, or holds no valid schedule.
        """
        if _suffix(path) == ".csv":
            return _read_csv(path)
        content = read_json(path)
        rate, name = content.get("keep_rate"), content.get("name", "custom")
        parameters = content.get("parameters", {})
        if not (
            isinstance(rate, list)
            and all(_is_number(v) for v in rate)
            and isinstance(name, str)
            and isinstance(parameters, dict)
            and all(_is_number(v) for v in parameters.values())
        ):
            raise InputError(
                f"{path} must hold a list of numbers named keep_rate; it is damaged or "
                "not a keeprate schedule: save the schedule again."
            )
        return _named(path, lambda: cls(np.array(rate), name, parameters))


def as_schedule(
    value: Schedule | npt.ArrayLike | Callable[[int], float], n_epochs: int
) -> Schedule:
    """Make a `Schedule` of `n_epochs` epochs from what a user may give.

    Parameters
    ----------
    value : Schedule, array_like [T] or callable
        A callable is asked for every epoch, counted from 1 to T, and returns its keep rate.
    n_epochs : int
        T.

    Returns
    -------
    Schedule
        Any keep rate in [0, 1] is allowed; the first epoch need not be 1.

    Raises
    ------
    InputError
        If the length is not `n_epochs` or a keep rate leaves [0, 1].

    Examples
    --------
    >>> as_schedule(lambda epoch: 1 / epoch, 4).keep_rate.round(3)
    array([1.   , 0.5  , 0.333, 0.25 ])
    >>> as_schedule([1.0, 0.8], 3)
    Traceback (most recent call last):
    ...
    keeprate.errors.InputError: keep_rate must have one number for each of the 3 epochs, got 2
    numbers; make the schedule for 3 epochs or train for 2.
    """
    check_epochs(n_epochs)
    if isinstance(value, Schedule):
        schedule = value
    elif callable(value):
        schedule = Schedule(np.array([value(epoch) for epoch in range(1, n_epochs + 1)]))
    else:
        schedule = Schedule(np.asarray(value))
    if len(schedule) != n_epochs:
        raise invalid(
            "keep_rate",
            f"have one number for each of the {n_epochs} epochs",
            f"{len(schedule)} numbers",
            f"make the schedule for {n_epochs} epochs or train for {len(schedule)}",
        )
    return schedule


def _suffix(path: str | os.PathLike[str]) -> str:
    suffix = Path(path).suffix.lower()
    if suffix not in (".json", ".csv"):
        raise invalid("path", "end in .json or .csv", str(path), "choose one of the two formats")
    return suffix


def _read_csv(path: str | os.PathLike[str]) -> Schedule:
    try:
        text = Path(path).read_text(encoding="utf-8-sig")  # spreadsheets put a mark in front
    except OSError as error:
        raise InputError(f"{path} could not be read ({error.strerror}); check the path.") from error
    except ValueError as error:
        raise InputError(f"{path} must be a text file; save the schedule again.") from error
    header, *rows = [row for row in csv.reader(io.StringIO(text)) if row] or [[]]
    if [cell.strip() for cell in header] != ["epoch", "keep_rate"]:
        raise InputError(
            f"{path} must start with the line epoch,keep_rate, got {','.join(header)!r}; "
            "add the line or save the schedule again."
        )
    rates = []
    for expected, row in enumerate(rows, 1):
        try:
            epoch, rate = row
            in_order = int(epoch) == expected
            rates.append(float(rate))
        except ValueError:
            in_order = False
        if not in_order:
            raise InputError(
                f"{path} must have the line {expected},<keep rate> for epoch {expected}, got "
                f"{','.join(row)!r}; list the epochs from 1 on, one a line."
            )
    return _named(path, lambda: Schedule(np.array(rates)))


def _named(path: str | os.PathLike[str], build: Callable[[], Schedule]) -> Schedule:
    """Put the file's name before what is wrong with the schedule in it."""
    try:
        return build()
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
