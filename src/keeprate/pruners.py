"""Which trials stop early: Optuna's pruners, and one for trials that train together."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import optuna
from optuna.pruners import (
    BasePruner,
    HyperbandPruner,
    MedianPruner,
    NopPruner,
    SuccessiveHalvingPruner,
)
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from keeprate.errors import invalid


class LockstepHalvingPruner(BasePruner):
    """Stops the worse of those trials that report a step together.

    Optuna's own successive halving is made for workers that arrive one after the other: whoever
    comes to a rung first goes on. Here all running trials that have reported the step are compared
    before one of them is stopped.

    Parameters
    ----------
    rungs : mapping of int to float
        Step -> the share (rounded up) that goes on after it.
    """

    def __init__(self, rungs: Mapping[int, float]) -> None:
        self._rungs = dict(rungs)

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        step = trial.last_step
        if step is None or step not in self._rungs:
            return False
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        sign = -1.0 if study.direction == StudyDirection.MAXIMIZE else 1.0
        ranked = sorted(
            (sign * t.intermediate_values[step], t.number)
            for t in running
            if step in t.intermediate_values
        )
        going_on = ranked[: math.ceil(self._rungs[step] * len(ranked))]
        return trial.number not in {number for _, number in going_on}


def _halving(epochs: int) -> BasePruner:
    return LockstepHalvingPruner({max(1, round(at * epochs)): s for at, s in HALVING.items()})


def _median(epochs: int) -> BasePruner:
    return MedianPruner(n_startup_trials=10, n_warmup_steps=round(0.4 * epochs))


def _successive_halving(epochs: int) -> BasePruner:
    least = max(1, round(0.4 * epochs))
    return SuccessiveHalvingPruner(min_resource=least, reduction_factor=2)


def _hyperband(epochs: int) -> BasePruner:
    return HyperbandPruner(
        min_resource=max(1, epochs // 9), max_resource=epochs, reduction_factor=3
    )


HALVING = {0.4: 0.4, 0.6: 0.5}
"""After this share of the epochs, this share of those that train together goes on."""

PRUNERS: dict[str, Callable[[int], BasePruner]] = {
    "none": lambda epochs: NopPruner(),
    "halving": _halving,
    "median": _median,
    "successive-halving": _successive_halving,
    "hyperband": _hyperband,
}


def get_pruner(pruner: str | BasePruner, epochs: int) -> BasePruner:
    """A pruner of trials of so many epochs, by name; one of the user's own is taken as it is.

    Raises
    ------
    InputError
        If there is no such pruner.
    """
    if isinstance(pruner, BasePruner):
        return pruner
    if pruner not in PRUNERS:
        raise invalid("pruner", f"be one of {', '.join(PRUNERS)}", pruner, "choose one of these")
    return PRUNERS[pruner](epochs)
