"""The trainings that a search consists of, stage by stage, before the first of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from keeprate.engine import networks_trained
from keeprate.records import TrialCounts
from keeprate.runs import final_groups, fits, judging_epochs, n_folds
from keeprate.searching.legs import Legs
from keeprate.searching.request import Request

SEARCH_STAGES = ("noise rate", "exploring trials", "confirming trials")


@dataclass(frozen=True)
class Stage:
    """Trainings of one kind.

    Attributes
    ----------
    name : str
    groups : tuple of int
        How many candidates are trained at once, one group after the other.
    n_networks : int
        Of each candidate.
    epochs : int
        Of each training.
    n_samples : int
        That train.
    n_evaluated : int
        That are predicted after each epoch.
    """

    name: str
    groups: tuple[int, ...]
    n_networks: int
    epochs: int
    n_samples: int
    n_evaluated: int

    @property
    def trainings(self) -> int:
        """How many candidates are trained."""
        return sum(self.groups)

    @property
    def candidate_epochs(self) -> int:
        """The epochs of all candidates."""
        return self.trainings * self.epochs

    @property
    def is_search(self) -> bool:
        """Whether the budget pays for it."""
        return self.name in SEARCH_STAGES


def search_stages(
    request: Request, counts: TrialCounts, added: Sequence[TrialCounts] = ()
) -> tuple[Stage, ...]:
    """What is to be trained for the trials that are asked for, in this order.

    Parameters
    ----------
    request : Request
    counts : TrialCounts
        Of the search as it began.
    added : sequence of TrialCounts
        Of each addition to the finished search. The stages are then those of the last addition.
    """
    return (*before_trials(request, added), *_trials(request, counts, added),
            *after_trials(request, added))  # fmt: skip


def before_trials(request: Request, added: Sequence[TrialCounts] = ()) -> tuple[Stage, ...]:
    """The first training, if the search needs one."""
    if added or not request.first_epochs:
        return ()
    n_networks, epochs = request.method.n_networks, request.first_epochs
    data = request.setup.data
    return (Stage("noise rate", (1,), n_networks, epochs, len(data.train), len(data.validation)),)


def _trials(
    request: Request, counts: TrialCounts, added: Sequence[TrialCounts]
) -> tuple[Stage, ...]:
    """The trials of the last leg: those that explore, and those that confirm."""
    proposals = request.proposals(counts, None, tuple(added))
    legs: Legs = proposals.legs
    leg = [one for one in legs.generations if one.leg == legs.generations[-1].leg]
    found = []
    for name, confirms in zip(SEARCH_STAGES[1:], (False, True), strict=True):
        numbers = [one.numbers for one in leg if bool(one.round) == confirms]
        if numbers:
            groups = tuple(len(one) for one in numbers)
            found.append(_of_trials(request, name, groups, proposals.epochs_of(numbers[0].start)))
    return tuple(found)


def trials_together(request: Request, n: int) -> Stage:
    """`n` trials of all epochs in one group."""
    return _of_trials(request, SEARCH_STAGES[1], (n,), request.epochs)


def _of_trials(request: Request, name: str, groups: tuple[int, ...], epochs: int) -> Stage:
    data, n_networks = request.setup.data, networks_trained(request.method)
    return Stage(name, groups, n_networks, epochs, len(data.train), len(data.validation))


def after_trials(request: Request, added: Sequence[TrialCounts] = ()) -> tuple[Stage, ...]:
    """The final trainings, without those of the baselines after an addition, and the judges."""
    data, epochs = request.setup.data, request.epochs
    n_evaluated = len(data.validation) + (0 if data.test is None else len(data.test))
    plans = request.plans(())
    found = [
        Stage("final trainings", (len(group),), networks_trained(group[0].plan.method), epochs,
              len(data.train), n_evaluated)
        for group in final_groups(plans[:1] if added else plans, request.restarts)
    ]  # fmt: skip
    if fits(data, 1):
        n_pooled = len(data.train) + len(data.validation)
        name, epochs = "judging labels", judging_epochs(request.setup)
        found.append(Stage(name, (1,), n_folds(data), epochs, n_pooled, 0))
    return tuple(found)
