"""What a search may cost: a number of full trainings, or a time and how many fit in it."""

from __future__ import annotations

import math
import re
import time
from dataclasses import replace

import numpy as np

from keeprate.data import part
from keeprate.engine import Method, Setup, train_schedules
from keeprate.errors import invalid
from keeprate.schedules import Schedule

LEAST = 2.0  # full trainings
TOGETHER, BATCHES_TIMED = 10, 20  # candidates in lockstep, batches

_TIME = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|min|h)")
_SECONDS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


def parse_budget(budget: float | str) -> tuple[float, str]:
    """A number and its unit: "trainings", or "s" for seconds.

    Raises
    ------
    InputError
        If it is neither a number of full trainings, at least 2, nor a time.

    Examples
    --------
    >>> parse_budget(6), parse_budget("6.5"), parse_budget("30m"), parse_budget("1.5 h")
    ((6.0, 'trainings'), (6.5, 'trainings'), (1800.0, 's'), (5400.0, 's'))
    """
    requirement = f"be full trainings (at least {LEAST:g}) or a time with its unit"
    remedy = "try 6, 30m or 2h"
    text = str(budget).strip()
    if found := _TIME.fullmatch(text):
        return float(found[1]) * _SECONDS[found[2]], "s"
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= LEAST):
        raise invalid("budget", requirement, budget, remedy)
    return value, "trainings"


def affordable(seconds: float, setup: Setup, method: Method, *, n_finals: float) -> float:
    """How many full trainings fit in a time, after `n_finals` final ones.

    Times a few batches of candidates in lockstep; a slower machine, or other work on it later, is
    not foreseen.

    Raises
    ------
    InputError
        If the time is too short for the final trainings and the smallest search.
    """
    data, config = setup.data, setup.config
    n_batches = len(data.train) // config.batch_size
    few = min(1 + BATCHES_TIMED, n_batches)

    def once(n: int) -> float:
        """Seconds of an epoch of so many batches, with its evaluation."""
        kept = part(data.train, np.arange(n * config.batch_size))
        started = time.perf_counter()
        train_schedules(
            range(TOGETHER),
            [Schedule(np.ones(1))] * TOGETHER,
            replace(
                setup,
                config=replace(config, epochs=1),
                folder=None,
                progress=None,
                curves_writer=None,
            ),
            methods=[method] * TOGETHER,
            stream="timed",
            data=replace(data, train=kept, test=None),
            after_group=lambda population: None,
        )
        return time.perf_counter() - started

    once(1)  # whatever is loaded at the first time
    first = once(1)
    batch = max(0.0, once(few) - first) / max(1, few - 1)
    one = config.epochs * (first + (n_batches - 1) * batch) / TOGETHER
    found = seconds / one - n_finals
    if found < LEAST:
        raise invalid(
            "budget",
            "leave time for the final trainings and a search",
            f"{seconds:g} s, where one training takes about {one:.1f} s",
            f"give {(LEAST + n_finals) * one / 60:.1f}m or more, or fewer epochs, restarts or "
            "baselines",
        )
    return found
