"""Who trains: an assignment in, outcomes out. `Local` trains in this process.

Every training of a run goes through `carry_out`: those of a search, the final ones, the
first, and those of cross-fitting. `Setup.executor` says who carries them out;
`keeprate.engine.cluster` has the other one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from keeprate.engine.candidates import Assignment, EpochDone, Outcome, TrainingDone
from keeprate.engine.lockstep import train_candidates
from keeprate.engine.population import Population
from keeprate.engine.setup import Setup
from keeprate.mapped import copy_of


def carry_out(
    assignment: Assignment,
    setup: Setup,
    *,
    after_training: TrainingDone,
    after_epoch: EpochDone | None = None,
) -> None:
    """Train candidates, here or wherever the setup says.

    Parameters
    ----------
    assignment : Assignment
    setup : Setup
    after_training : callable
        Called with the outcome of each candidate, in the order of the candidates.
    after_epoch : callable, optional
        Called with the epoch that is done, from 1, and the number of candidates that began
        together; on a cluster only with the last epoch.

    Raises
    ------
    InputError
        If one candidate alone does not fit in memory.
    """
    executor = setup.executor or Local()
    executor.train(assignment, setup, after_training=after_training, after_epoch=after_epoch)


class Local:
    """Trains in this process, in groups that fit in memory.

    Parameters
    ----------
    prefix : str
        Comes before the names of checkpoints: for processes that share a run folder.
    """

    def __init__(self, prefix: str = "") -> None:
        self._prefix = prefix

    def train(
        self,
        assignment: Assignment,
        setup: Setup,
        *,
        after_training: TrainingDone,
        after_epoch: EpochDone | None = None,
    ) -> None:
        """Train candidates; see `carry_out`."""
        wanted = {one.number for one in assignment.candidates[: assignment.n_kept]}
        if not wanted:  # nobody asks for the networks: their best epoch need not be kept
            setup = replace(setup, config=replace(setup.config, keep="last"))

        def finish_epoch(population: Population) -> None:
            if assignment.stops is not None:
                population.drop(assignment.stops(population.curves, population.epoch))
            if after_epoch is not None:
                after_epoch(population.epoch, len(population.curves))

        def finish_group(population: Population) -> None:
            for outcome in outcomes_of(population, wanted):
                after_training(outcome)

        train_candidates(
            assignment.candidates,
            setup,
            stream=assignment.stream,
            order=assignment.order,
            checkpoint=self._prefix + assignment.file_name,
            keep_checkpoints=assignment.keep_checkpoints,
            n_tracked=assignment.n_tracked,
            after_epoch=finish_epoch,
            after_group=finish_group,
        )


def outcomes_of(population: Population, wanted: set[int]) -> Iterator[Outcome]:
    """The outcomes of a finished population, with the networks of the `wanted` candidates."""
    tracked, seen, matrix = (
        None if tensor is None else tensor.cpu()
        for tensor in (
            population.log_probability,
            population.times_seen,
            population.transition_matrix,
        )
    )
    rows = {number: row for row, number in enumerate(population.numbers)}
    for number, curves in population.curves.items():
        is_failed = number in population.failed
        row = rows.get(number)
        if row is None:  # stopped or failed
            yield Outcome(number, curves, is_failed)
            continue
        networks, is_tracked = population.networks, tracked is not None and row < len(tracked)
        weights = None if population.best is None else population.best.weights
        yield Outcome(
            number,
            curves,
            is_failed,
            tuple(networks.module(row, peer, weights) for peer in range(networks.n_peers))
            if number in wanted
            else (),
            copy_of(tracked[row]) if tracked is not None and is_tracked else None,
            seen.clone() if seen is not None and is_tracked else None,
            None if matrix is None else matrix[row].clone(),
        )
