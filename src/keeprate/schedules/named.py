"""Schedules by name, file or run folder, and by an estimated noise rate."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from keeprate.errors import invalid
from keeprate.schedules.formulas import co_teaching_schedule, plain_decay
from keeprate.schedules.schedule import Schedule, as_schedule


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
