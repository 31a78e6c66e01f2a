"""How a search spends a budget: how many schedules to try, how, and how many to train fully."""

from __future__ import annotations

import math
import re
import time
from dataclasses import dataclass, replace

import numpy as np

from keeprate.data import part
from keeprate.errors import invalid
from keeprate.lockstep import Setup, train_schedules
from keeprate.methods import Method
from keeprate.schedules import Schedule

FIDELITY = 0.4  # of exploring trials, where that is enough to memorise wrong labels
ENOUGH_STEPS = 1000  # of an optimiser; docs/decisions/0014
SHARE_CONFIRMING = 0.45  # of a budget
LEAST = 2.0  # full trainings
TIMED = 10, 20  # candidates and batches that are timed

_TIME = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|min|h)")
_SECONDS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


@dataclass(frozen=True)
class Spending:
    """What a budget buys.

    Attributes
    ----------
    trials : int
        In all.
    confirm : int
        Of these, those that train the best schedules fully.
    fidelity : float
        Share of the epochs that the others train for.
    """

    trials: int
    confirm: int
    fidelity: float

    @property
    def cost(self) -> float:
        """In full trainings."""
        return self.confirm + (self.trials - self.confirm) * self.fidelity


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


def spend(trainings: float, *, steps: int) -> Spending:
    """Plan a search that costs at most so many full trainings.

    Nearly half of the budget trains the best schedules fully, as distinct ones as there can be:
    short trainings rank, but not well among the best. Where 40 % of a training's `steps` are too
    few to memorise wrong labels, all trials train fully.

    >>> spend(6, steps=18_000)
    Spending(trials=10, confirm=3, fidelity=0.4)
    >>> round(spend(22, steps=18_000).cost, 1), spend(6, steps=500)
    (22.0, Spending(trials=6, confirm=1, fidelity=1.0))
    """
    if FIDELITY * steps < ENOUGH_STEPS:
        trials = math.floor(trainings)
        return Spending(trials, trials // 4, 1.0)
    confirm = max(1, round(SHARE_CONFIRMING * trainings))
    explored = math.floor((trainings - confirm) / FIDELITY + 1e-9)
    return Spending(explored + confirm, confirm, FIDELITY)


def affordable(seconds: float, setup: Setup, method: Method, *, n_finals: float) -> float:
    """How many full trainings fit in a time, after `n_finals` final ones.

    Times a few batches of candidates in lockstep; a slower machine, or other work on it later, is
    not foreseen.

    Raises
    ------
    InputError
        If the time is too short for the final trainings and the smallest search.
    """
    n_candidates, n_batches = TIMED
    batch = setup.config.batch_size
    n = min(len(setup.data.train), n_batches * batch)
    few = replace(
        setup.data,
        train=part(setup.data.train, np.arange(n)),
        validation=part(setup.data.validation, np.arange(min(n, len(setup.data.validation)))),
        test=None,
    )
    keep = Schedule(np.ones(1))
    trial = replace(setup, config=replace(setup.config, epochs=1), folder=None, progress=None)
    started = time.perf_counter()
    train_schedules(
        range(n_candidates),
        [keep] * n_candidates,
        trial,
        method=method,
        stream="timed",
        data=few,
        after_group=lambda population: None,
    )
    one = (time.perf_counter() - started) / n_candidates * len(setup.data.train) / n
    one *= setup.config.epochs
    found = seconds / one - n_finals
    if found < LEAST:
        raise invalid(
            "budget",
            "leave time for the final trainings and a search",
            f"{seconds:.0f} s, where one training takes about {one:.0f} s",
            f"give {(LEAST + n_finals) * one / 60:.0f}m or more, fewer epochs, or fewer restarts",
        )
    return found
