"""The final trainings: each plan several times, all that can in lockstep, the best one kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from keeprate.data import Data
from keeprate.engine import Curves, Population, Setup, train_schedules, trial_value
from keeprate.errors import InputError
from keeprate.noise import empirical_transition_matrix, transition_error
from keeprate.runs.plans import Plan
from keeprate.schedules import Schedule

MOST_TRACKED = 2**31  # bytes


@dataclass(frozen=True)
class Trained:
    """The networks of a plan, and what they said of the training samples while they learned."""

    schedule: Schedule
    modules: list[nn.Module]
    log_probability: Tensor | None  # [n_train, C], summed over the later half of the epochs
    times_seen: Tensor | None  # [n_train], how many terms each sum has


def train_plans(
    plans: Sequence[Plan], setup: Setup, record: dict[str, Any], *, restarts: int
) -> Trained:
    """Train the plans and put their results in the record.

    Those with the same number of networks train in lockstep (F-correction's apart, where another
    training goes before). Each plan is trained `restarts` times, from other initial weights, and
    the one with the best validation score at the end is kept; so one of several schedules
    wins. All plans are treated alike, and no test label chooses. The first plan is the run's own:
    its networks are returned.
    """
    epochs = setup.config.epochs
    total = epochs * len(plans) * restarts
    found: dict[int, dict[str, Any]] = {}
    values: dict[int, float] = {}
    tried: dict[int, list[dict[str, Any]]] = {i: [] for i in range(len(plans))}
    own: list[Trained] = []
    trained = 0

    def show(population: Population) -> None:
        if setup.progress is not None:
            done = trained + population.epoch * len(population.curves)
            setup.progress("final training", done, total, None)

    def collect(population: Population) -> None:
        nonlocal trained
        trained += epochs * len(population.curves)
        for number, curves in population.curves.items():
            i, restart = divmod(number, restarts)
            schedules, turn, value = plans[i].schedules, plans[i].turn(restart), None
            which = {"finalist": turn} if len(schedules) > 1 else {}
            if number not in population.failed:
                value = trial_value(curves.validation_score, epochs)
            tried[i].append(which | {"validation_score": value, "seconds": curves.seconds})
            if value is None or (i in values and value <= values[i]):
                continue
            values[i] = value
            found[i] = which | describe_result(plans[i], schedules[turn], curves)
            row = population.numbers.index(number)
            if population.transition_matrix is not None:
                matrix = population.transition_matrix[row].double().cpu().numpy()
                found[i] |= describe_estimate(matrix, setup.data)
            if i == 0:
                own[:] = [_trained(population, row, schedules[turn])]

    if setup.curves_writer is not None:
        setup.curves_writer.name(
            {
                i * restarts + restart: f"final-{plan.name}-{restart + 1}"
                for i, plan in enumerate(plans)
                for restart in range(restarts)
            }
        )
    together: dict[tuple[int, bool], list[int]] = {}  # networks, corrected loss -> plans
    for i, plan in enumerate(plans):
        together.setdefault((plan.method.n_networks, plan.method.corrects_loss), []).append(i)
    for mine in together.values():
        each = [(i, restart) for i in mine for restart in range(restarts)]
        n_tracked = restarts if mine[0] == 0 and _fits(setup.data, restarts) else 0
        train_schedules(
            # Those of the run's own, and so its networks, are the same whatever is compared.
            [i * restarts + restart for i, restart in each],
            [plans[i].schedules[plans[i].turn(restart)] for i, restart in each],
            setup,
            methods=[plans[i].method for i, _ in each],
            stream=f"final-{plans[mine[0]].method.name}",
            keep_checkpoints=True,
            data=setup.data,
            n_tracked=n_tracked,
            after_epoch=show,
            after_group=collect,
        )
    if 0 not in found:
        raise InputError(
            f"the loss of {plans[0].label} was not finite; try a smaller learning rate or check "
            "the inputs for extreme values."
        )
    for i, result in found.items():
        result["restarts"] = tried[i]
        result["seconds"] = sum(one["seconds"] for one in tried[i])
    record["results"] = [found[i] for i in sorted(found)]
    return own[0]


def _fits(data: Data, n_candidates: int) -> bool:
    """Whether what networks say of each training sample may be kept; else the final ones judge."""
    return n_candidates * len(data.train) * data.n_classes * 4 <= MOST_TRACKED


def _trained(population: Population, row: int, schedule: Schedule) -> Trained:
    networks, learned = population.networks, population.log_probability
    return Trained(
        schedule,
        [networks.module(row, peer) for peer in range(networks.n_peers)],
        None if learned is None else learned[row].cpu().clone(),
        None if population.times_seen is None else population.times_seen.cpu().clone(),
    )


def describe_estimate(matrix: NDArray[np.float64], data: Data) -> dict[str, Any]:
    """The estimated transition matrix, and its error where the true labels are known."""
    true = data.train.true_labels
    if true is None:
        return {"transition_matrix": matrix.tolist(), "transition_error": None}
    actual = empirical_transition_matrix(data.train.labels.numpy(), true.numpy(), len(matrix))
    error = transition_error(matrix, actual)
    return {"transition_matrix": matrix.tolist(), "transition_error": error}


def describe_result(plan: Plan, schedule: Schedule, curves: Curves) -> dict[str, Any]:
    """One entry of the record's `results`, but for what all restarts have in common."""
    measured = {
        "train_loss": curves.train_loss,
        "train_accuracy": curves.train_accuracy,
        "validation_accuracy": curves.validation_accuracy,
        "validation_score": curves.validation_score,
        "test_accuracy": curves.test_accuracy or None,
        "label_precision": curves.label_precision or None,
    }
    # As the paper's early-stop tables do: the best epoch is that of the test set where there
    # is one. Optimistic, and named so wherever it is shown.
    judged = curves.test_accuracy or curves.validation_score
    best = int(np.argmax(judged))

    def at(epoch: int) -> dict[str, float | None]:
        return {
            name: None if values is None else values[epoch] for name, values in measured.items()
        }

    return {
        "name": plan.name,
        "label": plan.label,
        "method": plan.method.name,
        "schedule": schedule.name,
        "keep_rate": schedule.keep_rate.tolist(),
        "parameters": dict(schedule.parameters),
        "curves": measured,
        "last": at(-1),
        "best": {"epoch": best + 1, **at(best)},
    }
