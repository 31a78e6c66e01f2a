"""Keep-rate schedules R(t): the share of each mini-batch that is kept, epoch by epoch."""

from __future__ import annotations

import csv
import io
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from keeprate.errors import InputError, Words, damaged, invalid
from keeprate.files import read_json, write_atomically, write_json
from keeprate.schedules.formulas import Array, check_epochs
from keeprate.text import cut, shortened

_KIND = "keeprate schedule"
_BLOCKS = "▁▂▃▄▅▆▇█"
_WIDTH = 60  # of a sparkline, in characters
_LINE = 80  # most characters of the first line of a schedule's text
_LARGE = sys.float_info.max  # whole numbers of JSON have no limit
_N_SHOWN = 5  # keep rates in a schedule's text


@dataclass(frozen=True, eq=False, repr=False)
class Schedule:
    """A keep rate for each epoch, and the parameters that give these keep rates.

    Parameters
    ----------
    keep_rate : array_like [T]
        In [0, 1]. Copied and then read-only. The first keep rate need not be 1.
    name : str
        The name of the formula, the space or the file.
    parameters : mapping of str to float
        The parameters of the formula. Empty for a schedule of given numbers.

    Raises
    ------
    InputError
        If `keep_rate` is not a non-empty row of numbers in [0, 1].

    Examples
    --------
    >>> schedule = Schedule([1.0, 0.9, 0.8])
    >>> len(schedule), schedule
    (3, Schedule('custom', 3 epochs, R: 1.00 -> 0.80))
    >>> print(schedule)
    custom, 3 epochs
    █▇▇
    R at epoch 1: 1.00, 2: 0.90, 3: 0.80
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
        except (TypeError, ValueError, OverflowError):
            received = Words(type(self.keep_rate).__name__)
            remedy = "give one number per epoch"
            raise invalid("keep_rate", "be a row of numbers", received, remedy) from None
        if rate.ndim != 1 or not rate.size:
            received = Words(f"an array of shape {rate.shape}")
            requirement = "be one row with a number per epoch"
            raise invalid("keep_rate", requirement, received, "give a list of T numbers")
        outside = np.flatnonzero(~((rate >= 0) & (rate <= 1)))  # NaN too
        if outside.size:
            epoch = int(outside[0])
            received = Words(f"{rate[epoch]} at epoch {epoch + 1}")
            remedy = "clip the schedule or use a bounded space"
            raise invalid("keep_rate", "lie in [0, 1]", received, remedy)
        rate.flags.writeable = False
        parameters = {str(key): float(value) for key, value in self.parameters.items()}
        object.__setattr__(self, "keep_rate", rate)
        object.__setattr__(self, "parameters", MappingProxyType(parameters))

    def __len__(self) -> int:
        return len(self.keep_rate)

    def __repr__(self) -> str:
        first, last = self.keep_rate[[0, -1]]
        rates = f"{first:.2f}" + (f" -> {last:.2f}" if len(self) > 1 else "")
        return f"Schedule({shortened(self.name, 40)!r}, {self._length()}, R: {rates})"

    def __str__(self) -> str:
        """Return name and parameters, a sparkline (full height is 1), and some keep rates."""
        values = ", ".join(f"{name} = {value:.3g}" for name, value in self.parameters.items())
        title = f"{shortened(self.name, 40)}, {self._length()}" + (f": {values}" if values else "")
        epochs = np.unique(np.linspace(1, len(self), _N_SHOWN).round().astype(int))
        shown = ", ".join(f"{epoch}: {self.keep_rate[epoch - 1]:.2f}" for epoch in epochs)
        return f"{cut(title, _LINE)}\n{self._sparkline()}\nR at epoch {shown}"

    def _length(self) -> str:
        return "1 epoch" if len(self) == 1 else f"{len(self)} epochs"

    def _sparkline(self) -> str:
        """Return one block for each epoch, or for the mean of neighbouring epochs."""
        edges = np.linspace(0, len(self), min(_WIDTH, len(self)) + 1).round().astype(int)
        pieces = np.split(self.keep_rate, edges[1:-1])
        heights = [round(float(piece.mean()) * (len(_BLOCKS) - 1)) for piece in pieces]
        return "".join(_BLOCKS[height] for height in heights)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Schedule):
            return NotImplemented
        return (
            np.array_equal(self.keep_rate, other.keep_rate)
            and self.name == other.name
            and dict(self.parameters) == dict(other.parameters)
        )

    def __hash__(self) -> int:
        # Adding 0.0 turns -0.0 into 0.0: equal schedules must have equal hashes.
        return hash((self.name, (self.keep_rate + 0.0).tobytes()))

    def __reduce__(self) -> tuple[Any, ...]:  # a mapping proxy cannot be pickled
        return Schedule, (self.keep_rate, self.name, dict(self.parameters))

    def stretched(self, n_epochs: int) -> Schedule:
        """Stretch the schedule to another number of epochs. R(1) and R(T) stay.

        >>> Schedule([1.0, 0.8, 0.6, 0.6, 0.6]).stretched(3).keep_rate
        array([1. , 0.6, 0.6])
        """
        if n_epochs == len(self):
            return self
        places = np.linspace(0, len(self) - 1, check_epochs(n_epochs))
        rates = np.interp(places, np.arange(len(self)), self.keep_rate)
        return Schedule(rates, self.name, self.parameters)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the schedule. The suffix of `path` decides the format.

        ``.json`` holds everything. ``.csv`` holds the columns ``epoch`` (from 1) and
        ``keep_rate``, but no name and no parameters. Both formats keep every bit of the numbers.

        Raises
        ------
        InputError
            If the suffix is another one, or the file cannot be written.
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
        """Read a file that `save` wrote.

        Raises
        ------
        InputError
            If the file is missing or damaged, has another suffix, or holds no valid schedule.
        """
        if _suffix(path) == ".csv":
            return _read_csv(path)
        try:
            content = read_json(path)
        except RecursionError as error:
            raise damaged(path, error) from error
        rate, name = content.get("keep_rate"), content.get("name", "custom")
        parameters = content.get("parameters", {})
        if not (
            isinstance(rate, list)
            and all(_is_number(v) for v in rate)
            and isinstance(name, str)
            and isinstance(parameters, dict)
            and all(_is_number(v) and abs(v) <= _LARGE for v in parameters.values())
        ):
            raise InputError(
                f"{path} must hold a list of numbers named keep_rate; it is damaged or "
                "not a keeprate schedule: save the schedule again."
            )
        return _from_file(path, lambda: cls(np.array(rate), name, parameters))


def as_schedule(
    value: Schedule | npt.ArrayLike | Callable[[int], float], n_epochs: int
) -> Schedule:
    """Make a `Schedule` of `n_epochs` epochs from a schedule, numbers or a function.

    Parameters
    ----------
    value : Schedule, array_like [T] or callable
        A callable takes an epoch, counted from 1 to T, and returns its keep rate.
    n_epochs : int
        T.

    Returns
    -------
    Schedule
        Any keep rate in [0, 1] is allowed. The first keep rate need not be 1.

    Raises
    ------
    InputError
        If the length is not `n_epochs`, or a keep rate is outside [0, 1].

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
        requirement = f"have one number for each of the {n_epochs} epochs"
        received = Words(f"{len(schedule)} numbers")
        remedy = f"make the schedule for {n_epochs} epochs or train for {len(schedule)}"
        raise invalid("keep_rate", requirement, received, remedy)
    return schedule


def _suffix(path: str | os.PathLike[str]) -> str:
    suffix = Path(path).suffix.lower()
    if suffix not in (".json", ".csv"):
        raise invalid("path", "end in .json or .csv", str(path), "choose one of the two formats")
    return suffix


def _read_csv(path: str | os.PathLike[str]) -> Schedule:
    try:
        text = Path(path).read_text(encoding="utf-8-sig")  # spreadsheets write a byte order mark
    except OSError as error:
        raise InputError(f"{path} could not be read ({error.strerror}); check the path.") from error
    except ValueError as error:
        raise InputError(f"{path} must be a text file; save the schedule again.") from error
    try:
        header, *rows = [row for row in csv.reader(io.StringIO(text)) if row] or [[]]
    except csv.Error as error:  # a cell of more than 128 kB
        raise damaged(path, error) from error
    if [cell.strip() for cell in header] != ["epoch", "keep_rate"]:
        raise InputError(
            f"{path} must start with the line epoch,keep_rate, got {cut(','.join(header), 80)!r}; "
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
                f"{cut(','.join(row), 80)!r}; list the epochs from 1 on, one a line."
            )
    return _from_file(path, lambda: Schedule(np.array(rates)))


def _from_file(path: str | os.PathLike[str], build: Callable[[], Schedule]) -> Schedule:
    """Build a schedule; an error starts with the name of the file."""
    try:
        return build()
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
