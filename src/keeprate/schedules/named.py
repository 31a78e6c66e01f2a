"""Schedules from a name, a file, a run folder or an estimated noise rate."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from keeprate.checksums import check_unchanged
from keeprate.errors import Words, invalid
from keeprate.schedules.formulas import co_teaching_schedule, plain_decay
from keeprate.schedules.schedule import Schedule, as_schedule

SCHEDULE_FILE = "schedule.csv"  # of a run folder


def named_schedule(name: str, epochs: int, *, noise_rate: float | None) -> Schedule:
    """Return the schedule of a name, a file or a run folder.

    Parameters
    ----------
    name : str
        "constant" (keep every sample), "co-teaching" (Eq. (3) with tau = the noise rate, t_k = 10
        and c = 1, the values of its source), a .json or .csv file, or a run folder.
    epochs : int
        T.
    noise_rate : float or None
        In [0, 1]. Only "co-teaching" needs it.

    Raises
    ------
    InputError
        If the noise rate is missing, or the file is missing, damaged or of another length.
    """
    if name == "constant":
        return Schedule(np.ones(epochs), "constant", {})
    if name == "co-teaching":
        if noise_rate is None:
            requirement = "be known for Co-teaching's own schedule"
            remedy = "give --noise-rate (your estimate), or search the schedule instead"
            raise invalid("noise_rate", requirement, Words("nothing"), remedy)
        rate = co_teaching_schedule(epochs, tau=noise_rate, t_k=min(10, epochs))
        return Schedule(rate, "co-teaching", {"tau": noise_rate})
    kinds = "'auto', 'constant', 'co-teaching', a .json or .csv file, or a run's folder"
    return as_schedule(load_schedule("schedule", name, kinds), epochs)


def load_schedule(
    argument: str,
    name: str | os.PathLike[str],
    kinds: str = "a .json or .csv file, or a run's folder",
) -> Schedule:
    """Read the schedule of a file or a run folder, of any length.

    Parameters
    ----------
    argument : str
        The name of the argument in messages.
    name : str or path
        A .json or .csv file, or a run folder.
    kinds : str
        The values that the argument takes, for messages.

    Raises
    ------
    InputError
        If the file is missing or cannot be read.
    """
    path = Path(name)
    if path.is_dir():
        path = path / SCHEDULE_FILE
        check_unchanged(path)
    if not path.exists():
        raise invalid(argument, f"be {kinds}", str(name), "check the path")
    return Schedule.load(path)


def estimated_schedule(epochs: int, noise_rate: float) -> Schedule:
    """Return a plain decay to (1 - noise rate)^1.5, but at least to 0.1.

    With more noise the schedule also drops more of the right labels.

    >>> float(estimated_schedule(40, 0.36).keep_rate[-1].round(3))
    0.512
    """
    level = max(0.1, (1 - noise_rate) ** 1.5)
    return Schedule(plain_decay(epochs, level), "auto", {"noise_rate": noise_rate})
