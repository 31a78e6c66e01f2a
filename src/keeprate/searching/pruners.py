"""Which trials stop early: Optuna's pruners, and one for trials that train together."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

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

from keeprate.engine import Curves, trial_value
from keeprate.errors import invalid


@contextmanager
def quiet() -> Iterator[None]:
    """Nothing below a warning from Optuna."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(verbosity)


class LockstepHalvingPruner(BasePruner):
    """Stops the worse trials among those that report a step together.

    Optuna's successive halving serves workers that arrive one after the other: the first at a rung
    goes on. This pruner compares all running trials that have reported the step before it stops
    one of them.

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
LEAST_HALVED = 5  # candidates together: one of five goes on to the end, and one of one

PRUNERS: dict[str, Callable[[int], BasePruner]] = {
    "none": lambda epochs: NopPruner(),
    "halving": _halving,
    "median": _median,
    "successive-halving": _successive_halving,
    "hyperband": _hyperband,
}


def get_pruner(pruner: str | BasePruner, epochs: int) -> BasePruner:
    """Build a pruner by its name for trials of `epochs` epochs, or copy a user's pruner.

    Raises
    ------
    InputError
        If there is no such pruner.
    """
    if isinstance(pruner, BasePruner):
        return copy.deepcopy(pruner)  # some remember what they have seen
    if pruner not in PRUNERS:
        raise invalid("pruner", f"be one of {', '.join(PRUNERS)}", pruner, "choose one of these")
    return PRUNERS[pruner](epochs)


def check_group(pruner: str | BasePruner, n_together: int) -> None:
    """Check that a pruner has enough candidates to compare, where a cluster trains few together.

    Raises
    ------
    InputError
        If it halves groups that are smaller than `LEAST_HALVED`.
    """
    if n_together < LEAST_HALVED and (
        pruner == "halving" or isinstance(pruner, LockstepHalvingPruner)
    ):
        requirement = f"be at least {LEAST_HALVED} for the pruner halving on a cluster"
        remedy = f"--lockstep {LEAST_HALVED}, or choose another pruner"
        raise invalid("lockstep", requirement, n_together, remedy)


def pruner_in_words(pruner: str | BasePruner) -> str:
    """Describe a pruner for the record: its name, or its class with its plain settings."""
    if isinstance(pruner, str):
        return pruner
    plain = (bool, int, float, str, type(None))
    said = [f"{k}={v!r}" for k, v in sorted(vars(pruner).items()) if isinstance(v, plain)]
    return f"{type(pruner).__name__}({', '.join(said)})"


class Judge:
    """Asks a pruner which of the candidates that train together stop.

    The judge has a study of its own, in memory, so that its verdict depends on the curves alone. A
    resumed search rebuilds that study from the curves and gets the same verdicts. Samplers do not
    see the study: with Hyperband's pruner on theirs, Optuna would show them one bracket only.

    Parameters
    ----------
    pruner : BasePruner
    epochs : int
        Of a training that is not stopped.
    """

    def __init__(self, pruner: BasePruner, epochs: int) -> None:
        with quiet():  # Hyperband draws the brackets from the name
            self._study = optuna.create_study(
                study_name="keeprate", direction="maximize", pruner=pruner
            )
        self._epochs = epochs
        self._verdicts: dict[int, list[bool]] = {}  # of each trial, after each epoch

    def __call__(
        self, trials: Sequence[FrozenTrial], values: Mapping[int, Sequence[float]], now: int
    ) -> list[int]:
        """Who stops after epoch `now`.

        Parameters
        ----------
        trials : sequence of FrozenTrial
            All that began together, by number. Lower numbers that were not judged count as failed.
        values : mapping of int to sequence of float
            Of each of them, the value after every epoch that it was trained for.
        now : int
        """
        for trial in trials:
            if trial.number not in self._verdicts:
                for _ in range(len(self._study.get_trials(deepcopy=False)), trial.number):
                    self._study.add_trial(optuna.trial.create_trial(state=TrialState.FAIL))
                mirrored = optuna.trial.create_trial(
                    state=TrialState.RUNNING, params=trial.params, distributions=trial.distributions
                )
                self._study.add_trial(mirrored)
                self._verdicts[trial.number] = []
        done = max((len(self._verdicts[number]) for number in values), default=now)
        for epoch in range(done + 1, now + 1):
            self._judge(values, epoch)
        return [
            number
            for number, found in self._verdicts.items()
            if number in values and len(found) >= now and found[now - 1]
        ]

    def _judge(self, values: Mapping[int, Sequence[float]], epoch: int) -> None:
        running = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        handles = {}
        for trial in running:
            if epoch <= len(values.get(trial.number, ())):
                handles[trial.number] = optuna.trial.Trial(self._study, trial._trial_id)
            else:  # stopped or failed
                self._study.tell(trial.number, state=TrialState.PRUNED)
        for number, handle in handles.items():
            handle.report(values[number][epoch - 1], epoch)
        for number, handle in handles.items():  # all are known before one is judged
            self._verdicts[number].append(epoch < self._epochs and handle.should_prune())
        if epoch == self._epochs:
            for number in handles:
                self._study.tell(number, values[number][-1])


class Verdicts:
    """Says after each epoch which of the candidates that train together stop.

    Each group has a judge of its own, which knows the generations before and nothing else: a group
    that is halved and begins anew, a resumed one, and groups that train in other places hear the
    same verdicts.

    Parameters
    ----------
    pruner : str or BasePruner
    epochs : int
        Of an exploring training.
    trials : mapping of int to FrozenTrial
        The generation, by number.
    history : sequence of (trials, values)
        Of each generation before: the trials, and the value of each after every epoch.
    """

    def __init__(
        self,
        pruner: str | BasePruner,
        epochs: int,
        trials: Mapping[int, FrozenTrial],
        history: Sequence[tuple[Sequence[FrozenTrial], Mapping[int, Sequence[float]]]],
    ) -> None:
        self._pruner, self._epochs, self._trials, self._history = pruner, epochs, trials, history
        self._judge: Judge | None = None
        self._judged: tuple[int, ...] = ()  # the candidates that train together under the judge

    def __call__(self, curves: Mapping[int, Curves], epoch: int) -> list[int]:
        """The numbers of those that stop, of all that began together."""
        numbers = tuple(sorted(curves))
        if self._judge is None or numbers != self._judged:
            pruner = get_pruner(self._pruner, self._epochs)
            self._judge, self._judged = Judge(pruner, self._epochs), numbers
            for earlier, values in self._history:
                self._judge(earlier, values, self._epochs)
        of_curves = {number: curves[number].validation_score for number in numbers}
        trials = [self._trials[number] for number in numbers]
        return self._judge(trials, values_of(of_curves, self._epochs), epoch)


def values_of(curves: Mapping[int, Sequence[float]], epochs: int) -> dict[int, list[float]]:
    """The value of each trial after each of its epochs, from validation scores."""
    return {
        number: [trial_value(list(curve[:n]), epochs) for n in range(1, len(curve) + 1)]
        for number, curve in curves.items()
    }
