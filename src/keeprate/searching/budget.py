"""What a search may cost: a number of trainings, a time, or a number of trials."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from keeprate.errors import invalid

LEAST_TRAININGS = 2.0
MANY_TRIALS = 16  # from which on some trials confirm

_TIME = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,12})?)\s*(s|m|min|h)")
_TRIALS = re.compile(r"([0-9]{1,12})\s*trials?")
_SECONDS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


@dataclass(frozen=True)
class Budget:
    """What a search may cost.

    Attributes
    ----------
    amount : float
    unit : {"trainings", "seconds", "trials"}
        "trainings": full trainings, all trials together. "seconds": the whole run, final trainings
        included. "trials": trials to start, whatever each of them costs.

    Examples
    --------
    >>> Budget.parse(6), str(Budget.parse("30m")), str(Budget.parse("40trials"))
    (Budget(amount=6.0, unit='trainings'), '30m', '40 trials')
    """

    amount: float
    unit: str

    def __str__(self) -> str:
        if self.unit != "seconds":
            return f"{self.amount:.12g} {self.unit}"
        for seconds, letter in ((3600, "h"), (60, "m")):
            if self.amount % seconds == 0:
                return f"{self.amount / seconds:.12g}{letter}"
        return f"{self.amount:.12g}s"

    @classmethod
    def parse(cls, budget: float | str) -> Budget:
        """Read "6", "30m", "1.5h" or "40trials".

        Raises
        ------
        InputError
            If the budget is none of these, or too small.
        """
        text = str(budget).strip()
        if match := _TIME.fullmatch(text):
            return cls(float(match[1]) * _SECONDS[match[2]], "seconds")
        if match := _TRIALS.fullmatch(text):
            if int(match[1]) < 1:
                raise invalid("budget", "be at least one trial", budget, "try 20trials")
            return cls(float(match[1]), "trials")
        try:
            trainings = math.nan if isinstance(budget, bool) else float(text)
        except ValueError:
            trainings = math.nan
        if not (math.isfinite(trainings) and trainings >= LEAST_TRAININGS):
            requirement = (
                f"be a number of full trainings (at least {LEAST_TRAININGS:g}), a time with its "
                "unit, or a number of trials"
            )
            raise invalid("budget", requirement, budget, "try 6, 30m or 40trials")
        return cls(trainings, "trainings")


def confirming(trials: int) -> int:
    """How many of so many trials confirm the best schedules: about a quarter.

    >>> [confirming(trials) for trials in (15, 16, 40)]
    [0, 4, 10]
    """
    return 2 * (trials // 8) if trials >= MANY_TRIALS else 0
