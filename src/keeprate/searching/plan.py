"""What a search will train and cost, without a step of it."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from keeprate.data import Data, Split
from keeprate.engine import Setup, bytes_per_network
from keeprate.errors import invalid
from keeprate.records import TrialCounts, open_record
from keeprate.searching.additions import with_addition
from keeprate.searching.config import refuse_replaced
from keeprate.searching.request import Request, read_request
from keeprate.searching.search_run import affordable_counts, search
from keeprate.searching.stages import Stage, search_stages
from keeprate.searching.timing import Prices, measure
from keeprate.seeding import forked_seed

AROUND = 4.0  # seconds besides trainings: start, proposals, judging, pictures
COPIES_IN_CHECKPOINT = 3  # of the parameters: their values and two moments
BYTES_OF_LABEL, BYTES_OF_PAGES = 60, 2_000_000  # of a row of the list; of study, record and page


@dataclass(frozen=True)
class SearchPlan:
    """What a search will train, and about what that takes on this machine.

    Attributes
    ----------
    stages : tuple of Stage
        In order: what is trained.
    epochs : int
        Of a full training, T.
    trials : TrialCounts
        That the budget buys, or that are added.
    is_at_most : bool
        Whether a pruner may stop trials before they cost what is planned.
    prices : Prices
        What trainings cost here, by a few real steps.
    data_bytes : int
        Memory of samples and labels; samples that lie in a file take none.
    network_bytes : int
        Memory of the networks that train together, with what their steps need, where they are most.
    disk_bytes : int
        Of the run folder while the final networks train; it needs less afterwards.
    majority : tuple of (str, float)
        The class that most training labels name, and the share of the validation samples that
        have its label.
    """

    stages: tuple[Stage, ...]
    epochs: int
    trials: TrialCounts
    is_at_most: bool
    prices: Prices
    data_bytes: int
    network_bytes: int
    disk_bytes: int
    majority: tuple[str, float]

    @property
    def candidate_epochs(self) -> int:
        """Of the search: what `Cost.candidate_epochs` of its record will be, or at most be."""
        return sum(stage.candidate_epochs for stage in self.stages if stage.is_search)

    @property
    def full_trainings(self) -> float:
        """The same in trainings of all epochs."""
        return self.candidate_epochs / self.epochs

    @property
    def final_trainings(self) -> int:
        """How many trainings follow the search, baselines and judges of the labels included."""
        return sum(stage.trainings for stage in self.stages if not stage.is_search)

    @property
    def seconds(self) -> float:
        """About how long the run takes here, if nothing else keeps the machine busy."""
        return AROUND + sum(map(self.prices.of, self.stages))

    def seconds_of(self, stage: Stage) -> float:
        """About how long a stage takes here."""
        return self.prices.of(stage)

    def together(self, stage: Stage) -> int:
        """How many candidates of a stage train in lockstep at most."""
        return max(self.prices.in_lockstep(stage))


def plan_search(data: Data, **options: Any) -> SearchPlan:
    """Say what a search will train and cost; a few steps are timed, and nothing is written.

    Parameters
    ----------
    data : Data
        From `keeprate.prepare`.
    **options
        As for `keeprate.search`. With `add_trials` the plan is that of the addition, as if other
        schedules were the best then; `out` must hold the finished search. Else the plan is of the
        whole search, whatever `out` holds.

    Returns
    -------
    SearchPlan

    Raises
    ------
    InputError
        If `keeprate.search` would refuse the options, or if a cluster is to train: its nodes cannot
        be timed from here.

    Examples
    --------
    >>> import keeprate
    >>> data, config = keeprate.prepare("digits", seed=0), keeprate.TrainingConfig(epochs=4)
    >>> plan = keeprate.plan_search(data, budget="3trials", config=config)
    >>> plan.candidate_epochs, plan.trials.trials  # four epochs estimate the noise
    (16, 3)
    """
    bound = inspect.signature(search).bind(data, **options)
    bound.apply_defaults()
    given = bound.arguments
    refuse_replaced(given["replaced"])
    if given["cluster"] is not None:
        remedy = "leave it out to plan for this machine"
        raise invalid("cluster", "be left out of a plan", given["cluster"], remedy)
    names = inspect.signature(read_request).parameters
    request = read_request(**{name: given[name] for name in names})
    return planned(request)


def planned(request: Request) -> SearchPlan:
    """The plan of a search that was asked for."""
    setup, prices = request.setup, measure(request.setup, request.method)
    added: tuple[TrialCounts, ...] = ()
    if request.add_trials is None:
        counts = affordable_counts(request, prices)
        request.proposals(counts)  # raises
    else:
        options = request.options
        record = open_record(setup, "search", command="", options=options, goes_on=True)
        confirm, folder = request.search_config.confirm, setup.folder
        record = with_addition(record, request.add_trials, folder=folder, confirm=confirm)
        counts, added = record.trial_counts or request.counts, record.added
    stages = search_stages(request, counts, added)
    networks = max(max(prices.in_lockstep(stage)) * stage.n_networks for stage in stages)
    batch = setup.normaliser(setup.data.train.inputs[: setup.config.batch_size])
    return SearchPlan(
        stages,
        request.epochs,
        added[-1] if added else counts,
        request.search_config.pruner != "none",
        prices,
        sum(map(_bytes_of, (setup.data.train, setup.data.validation, setup.data.test))),
        networks * bytes_per_network(setup.build, batch),
        _disk_bytes(setup, stages, prices),
        _majority(setup.data),
    )


def _bytes_of(split: Split | None) -> int:
    if split is None:
        return 0
    parts = (split.inputs, split.labels, split.true_labels)
    return sum(one.nbytes for one in parts if isinstance(one, Tensor))  # `Rows` lie in a file


def _disk_bytes(setup: Setup, stages: tuple[Stage, ...], prices: Prices) -> int:
    """About the size of the run folder while the final networks train.

    Each of their populations keeps a checkpoint until all are trained, with what the networks of
    the best schedules said of the training samples.
    """
    with forked_seed(setup.seed):
        module = setup.build()
    of_network = sum(one.numel() * one.dtype.itemsize for one in module.parameters())
    populations = [
        n * stage.n_networks
        for stage in stages
        if not stage.is_search
        for n in prices.in_lockstep(stage)
    ]
    checkpoints = COPIES_IN_CHECKPOINT * of_network * sum(populations)
    n_judged = len(setup.data.train) + len(setup.data.validation)
    said = 4 * setup.data.n_classes * n_judged
    return checkpoints + of_network + said + BYTES_OF_LABEL * n_judged + BYTES_OF_PAGES


def _majority(data: Data) -> tuple[str, float]:
    most = int(np.argmax(data.class_counts))
    n_right = int((data.validation.labels == most).sum())
    return data.class_names[most], n_right / max(1, len(data.validation))
