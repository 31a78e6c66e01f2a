"""The final trainings: every plan is trained several times, and its best training is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import count, product

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from keeprate.data import Data
from keeprate.engine import (
    Assignment,
    Candidate,
    Curves,
    Outcome,
    Setup,
    carry_out,
    trial_value,
)
from keeprate.errors import InputError
from keeprate.noise import empirical_transition_matrix, transition_error
from keeprate.records import RestartSummary, Result
from keeprate.runs.plans import Plan
from keeprate.schedules import Schedule

MOST_TRACKED_BYTES = 2**31


@dataclass(frozen=True)
class FinalTraining:
    """One training of a plan.

    Attributes
    ----------
    plan : Plan
    restart : int
        From 0; the plan's schedules take turns.
    number : int
        The candidate's number, which its seed depends on.
    repeats : int or None
        The trial that it repeats.
    """

    plan: Plan
    restart: int
    number: int
    repeats: int | None = None

    @property
    def turn(self) -> int:
        """Which of the plan's schedules the training has."""
        return self.restart % len(self.plan.schedules)

    @property
    def schedule(self) -> Schedule:
        """The schedule of the training."""
        return self.plan.schedules[self.turn]

    @property
    def candidate(self) -> Candidate:
        """The training as the engine takes it."""
        return Candidate(self.number, self.schedule, self.plan.method)


@dataclass(frozen=True)
class TrainedNetworks:
    """The networks of a plan's best training.

    Attributes
    ----------
    schedule : Schedule
    modules : list of R nn.Module
    log_probability : Tensor [n_train, C] or None
        What the networks said of each training sample, summed over the later half of the epochs.
    times_seen : Tensor [n_train] or None
        How many terms each sum has.
    """

    schedule: Schedule
    modules: list[nn.Module]
    log_probability: Tensor | None
    times_seen: Tensor | None


@dataclass
class BestOfPlan:
    """The trainings of one plan so far, of which the best by validation is kept."""

    plan: Plan
    keeps_networks: bool
    keep: str = "last"  # as in `TrainingConfig`
    restarts: list[RestartSummary] = field(default_factory=list)
    best: FinalTraining | None = None
    curves: Curves | None = None
    transition_matrix: NDArray[np.float64] | None = None
    networks: TrainedNetworks | None = None
    _value: float | None = None

    def add(self, training: FinalTraining, outcome: Outcome) -> None:
        """Enter what a training gave."""
        curves, value = outcome.curves, None
        if not outcome.is_failed:
            value = trial_value(curves.validation_score, len(training.schedule))
            if self.keep == "best":
                value = max(curves.validation_score)
        summary = RestartSummary(training.turn, value, curves.seconds, training.repeats)
        self.restarts.append(summary)
        if value is None or (self._value is not None and value <= self._value):
            return
        self._value, self.best, self.curves = value, training, curves
        if outcome.transition_matrix is not None:
            self.transition_matrix = outcome.transition_matrix.double().numpy()
        if self.keeps_networks:
            self.networks = TrainedNetworks(
                training.schedule,
                list(outcome.networks),
                outcome.log_probability,
                outcome.times_seen,
            )

    def result(self, data: Data) -> Result | None:
        """The best training as the record holds it; None if every loss was not finite."""
        if self.best is None or self.curves is None:
            return None
        return Result(
            name=self.plan.name,
            label=self.plan.label,
            method=self.plan.method.name,
            schedule=self.best.schedule,
            finalist=self.best.turn if len(self.plan.schedules) > 1 else None,
            curves=self.curves,
            restarts=tuple(self.restarts),
            transition_matrix=self.transition_matrix,
            transition_error=_transition_error(self.transition_matrix, data),
        )


def train_plans(
    plans: Sequence[Plan], setup: Setup, *, restarts: int, tracks: bool = True
) -> tuple[tuple[Result, ...], TrainedNetworks]:
    """Train every plan `restarts` times, from other initial weights, and keep the best training.

    Plans whose methods have the same number of networks train in lockstep; F-correction trains
    apart, because another training goes before. The best training has the best validation score at
    the end, so that one of several schedules wins too. No test label takes part. `tracks` keeps
    what the first plan's networks say of the training samples while they learn.

    The first plan may repeat an earlier training, the best trial of a search: from the same initial
    weights and with the same batches its first restart becomes the network that was validated. All
    that trains in lockstep with that restart has its batches, too.

    Returns
    -------
    results : tuple of Result
        Of each plan whose loss stayed finite.
    networks : TrainedNetworks
        Of the first plan, which is the run's own.

    Raises
    ------
    InputError
        If no training of the first plan had a finite loss.
    """
    best = [BestOfPlan(plan, place == 0, setup.config.keep) for place, plan in enumerate(plans)]
    groups = final_groups(plans, restarts)
    trainings = {training.number: training for group in groups for training in group}
    of_plan = {id(one.plan): one for one in best}
    best_of = {number: of_plan[id(one.plan)] for number, one in trainings.items()}
    epochs, n_trained = setup.config.epochs, 0

    def show(epoch: int, n_candidates: int) -> None:
        if setup.progress is not None:
            done = epochs * n_trained + epoch * n_candidates
            setup.progress("final training", done, epochs * len(trainings), None)

    def collect(outcome: Outcome) -> None:
        nonlocal n_trained
        n_trained += 1
        best_of[outcome.number].add(trainings[outcome.number], outcome)

    if setup.curves_writer is not None:
        setup.curves_writer.name(
            {n: f"final-{one.plan.name}-{one.restart + 1}" for n, one in trainings.items()}
        )
    for group in groups:
        has_own = best_of[group[0].number] is best[0]
        name = f"final-{group[0].plan.method.name}"
        origin = plans[0].repeats if has_own else None
        assignment = Assignment(
            [training.candidate for training in group],
            stream=name if origin is None else origin.stream,
            order=0 if origin is None else origin.order,
            name=name,
            keep_checkpoints=True,
            n_kept=restarts if has_own else 0,
            n_tracked=restarts if tracks and has_own and fits(setup.data, restarts) else 0,
        )
        carry_out(assignment, setup, after_epoch=show, after_training=collect)
    networks = best[0].networks
    if networks is None:
        raise InputError(
            f"the loss of {plans[0].label} was not finite; try a smaller learning rate or check "
            "the inputs for extreme values."
        )
    results = (one.result(setup.data) for one in best)
    return tuple(result for result in results if result is not None), networks


def final_groups(plans: Sequence[Plan], restarts: int) -> list[list[FinalTraining]]:
    """All trainings of the plans, by what can share a population.

    That is as many networks, and a corrected loss or none.
    """
    groups: dict[tuple[int, bool], list[FinalTraining]] = {}
    again = plans[0].repeats
    numbers = count(0 if again is None else again.n_taken)
    for plan, restart in product(plans, range(restarts)):
        # Seeds depend on the number: the run's own networks are the same whatever is compared.
        training = FinalTraining(plan, restart, next(numbers))
        if again is not None and not groups:
            training = replace(training, number=again.number, repeats=again.number)
        groups.setdefault((plan.method.n_networks, plan.method.corrects_loss), []).append(training)
    return list(groups.values())


def fits(data: Data, n_candidates: int) -> bool:
    """Whether memory may hold what networks say of each training sample while they learn."""
    return n_candidates * len(data.train) * data.n_classes * 4 <= MOST_TRACKED_BYTES


def _transition_error(matrix: NDArray[np.float64] | None, data: Data) -> float | None:
    """How far an estimated transition matrix is from the measured one, if that is known."""
    true = data.train.true_labels
    if matrix is None or true is None:
        return None
    actual = empirical_transition_matrix(data.train.labels.numpy(), true.numpy(), len(matrix))
    return transition_error(matrix, actual)
