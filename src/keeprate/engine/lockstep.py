"""Candidates in lockstep: groups that fit in memory, checkpoints, F-correction's two trainings."""

from __future__ import annotations

import gc
import logging
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from keeprate.engine.candidates import Candidate
from keeprate.engine.checkpoints import load_population, save_population
from keeprate.engine.evaluation import probabilities
from keeprate.engine.loop import train_population
from keeprate.engine.memory import fitting_candidates, is_out_of_memory
from keeprate.engine.methods import Method, get_method
from keeprate.engine.population import Population, new_population
from keeprate.engine.setup import Setup
from keeprate.engine.tensorboard import CurvesWriter
from keeprate.engine.world import World
from keeprate.errors import InputError
from keeprate.noise import estimate_transition_matrix
from keeprate.schedules import Schedule
from keeprate.stopping import stops_between_epochs

SHARE = 0.05  # of the time may go into checkpoints: more only if one takes seconds
SOONEST = 1.0  # seconds before a checkpoint whose cost is not known

log = logging.getLogger(__name__)

AfterEpoch = Callable[[Population], None]


def train_candidates(
    candidates: Sequence[Candidate],
    setup: Setup,
    *,
    stream: str,
    order: int = 0,
    checkpoint: str | None = None,
    keep_checkpoints: bool = False,
    n_tracked: int = 0,
    after_epoch: AfterEpoch | None = None,
    after_group: Callable[[Population], None],
) -> None:
    """Train candidates in lockstep, in groups that fit in memory.

    A group that runs out of memory is halved and begins anew.

    Parameters
    ----------
    candidates : sequence of Candidate
        Their methods have the same number of networks, and all correct the loss or none.
    setup : Setup
    stream : str
        Separates uses of one seed.
    order : int
        Which sequence of batches all candidates see.
    checkpoint : str, optional
        Names the checkpoints; the stream if left out.
    keep_checkpoints : bool
        Give each group a checkpoint file of its own; for callers that keep a finished population
        nowhere else.
    n_tracked : int
        For how many candidates, from the first on, `Population.log_probability` is kept.
    after_epoch : callable, optional
        Called with the population at the end of each epoch; may drop candidates.
    after_group : callable
        Called with each finished population.

    Raises
    ------
    InputError
        If one candidate alone does not fit in memory.
    """
    checkpoint = checkpoint or stream
    size = setup.world.from_first(candidates_together(candidates[0].method, setup))
    start = 0
    while start < len(candidates):
        group = candidates[start : start + size]
        population: Population | None = None
        try:
            population = _train_group(
                group,
                setup,
                stream=stream,
                order=order,
                checkpoint=f"{checkpoint}-{start}" if keep_checkpoints else checkpoint,
                n_tracked=n_tracked - start,
                after_epoch=after_epoch,
            )
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if setup.world.size > 1:  # the others are in the midst of a step
                raise InputError(
                    f"{len(group)} candidates at a time do not fit in the memory of each process; "
                    "give a smaller --lockstep or --batch-size."
                ) from error
            if size == 1:
                raise InputError(
                    "one candidate alone does not fit in memory; give a smaller --batch-size, "
                    "a smaller model or less data."
                ) from error
        if population is None:  # outside the handler, whose traceback holds the population
            size = max(1, len(group) // 2)
            log.warning("out of memory: going on with %d candidates at a time", size)
            _free_memory()
            continue
        after_group(population)
        del population  # before the next group is built
        start += len(group)


def checkpoint_path(folder: Path | None, name: str) -> Path | None:
    """The file of a population in training; None without a run folder."""
    return None if folder is None else folder / f"checkpoint-{name}.safetensors"


def candidates_together(method: Method, setup: Setup) -> int:
    """How many candidates of a method train together at most: those that fit in memory."""
    if setup.lockstep is not None:
        return setup.lockstep
    size = setup.world.size  # processes that share the batch and, on a CPU, the memory
    n = max(1, setup.config.batch_size // size)
    batch = setup.normaliser(setup.data.train.inputs[:n])
    n_peers, device = method.n_networks, setup.config.resolve_device()
    fitting = fitting_candidates(setup.build, batch, n_peers=n_peers, device=device)
    return fitting if device.type == "cuda" else max(1, fitting // size)


def _free_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _train_group(
    candidates: Sequence[Candidate],
    setup: Setup,
    *,
    stream: str,
    order: int,
    checkpoint: str,
    n_tracked: int = 0,
    after_epoch: AfterEpoch | None = None,
) -> Population:
    """Train candidates that fit in memory, from their checkpoint if there is one."""
    population = new_population(candidates, setup, stream=stream, n_tracked=n_tracked)
    path = checkpoint_path(setup.folder, checkpoint)
    is_resumed = path is not None and path.exists() and load_population(path, population)
    if setup.world.size > 1:
        is_resumed = _same_everywhere(population, path if is_resumed else None, setup.world)
    if candidates[0].method.corrects_loss and not is_resumed:
        _estimate_transition_matrices(
            population, setup, stream=f"{stream}-first", order=order, name=f"{checkpoint}-first"
        )
    saver = _Saver(path, setup.checkpoint_seconds)
    with stops_between_epochs() as signals:

        def finish_epoch(population: Population) -> None:
            is_last = population.epoch == setup.config.epochs
            if setup.curves_writer is not None:
                _write_curves(setup.curves_writer, population, is_last=is_last)
            if after_epoch is not None:
                after_epoch(population)
            if population.epochs_ahead and population.candidates:
                return  # what the networks are now belongs to a later epoch
            is_stopped = signals.asked is not None
            saver(population, at_once=is_last or is_stopped or not population.candidates)
            signals.raise_if_asked()

        train_population(
            population,
            setup,
            stream=stream,
            order=order,
            after_epoch=finish_epoch,
            catches_up=lambda: signals.asked is not None or saver.is_due(),
        )
    return population


def _same_everywhere(population: Population, path: Path | None, world: World) -> bool:
    """Bring the population of each process to where the first one's checkpoint stands, if any."""
    content = world.from_first(None if path is None else path.read_bytes())
    if content is not None and path is None:
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "checkpoint.safetensors"
            copy.write_bytes(content)
            load_population(copy, population)
    return content is not None


def _estimate_transition_matrices(
    population: Population, setup: Setup, *, stream: str, order: int, name: str
) -> None:
    """Train a Standard network for each candidate; estimate T from its predictions.

    Patrini et al. 2017, Sec. 4.1.
    """
    everything = Schedule(np.ones(setup.config.epochs), "constant")
    standard = get_method("standard")
    first = _train_group(
        [Candidate(number, everything, standard) for number in population.numbers],
        # TensorBoard gets the curves of the second training. No test score is needed of the first.
        # The matrix is that of the labels as they are: weights and margins would shift the
        # probabilities.
        replace(
            setup,
            curves_writer=None,
            data=replace(setup.data, test=None),
            weights=None,
            margin=None,
        ),
        stream=stream,
        order=order,
        checkpoint=name,
    )
    for number, curves in first.curves.items():
        population.curves[number].seconds += curves.seconds
    population.failed += first.failed
    population.drop(first.failed)
    device = population.keep_rates.device
    matrices = []
    for row in range(len(first.candidates)):
        module = first.networks.module(row, 0).to(device)
        predicted = probabilities([module], setup.data.train.inputs, setup.normaliser)
        matrices.append(torch.from_numpy(estimate_transition_matrix(predicted.numpy())))
    if matrices:
        population.transition_matrix = torch.stack(matrices).float().to(device)


def _write_curves(writer: CurvesWriter, population: Population, *, is_last: bool) -> None:
    epoch, numbers = population.epoch, population.numbers
    keep_rates = population.keep_rates[:, epoch - 1].tolist()
    metrics = {number: population.curves[number].at(epoch) for number in numbers}
    writer.write(epoch, dict(zip(numbers, keep_rates, strict=True)), metrics)
    if is_last:
        writer.close()


class _Saver:
    """Saves a population as often as is cheap, and at the end of its training.

    A checkpoint that takes 10 ms is written each second, so that a kill costs next to nothing; one
    that takes seconds is written each minute.

    Parameters
    ----------
    path : Path or None
        None: nothing is saved.
    every : float
        Most seconds between two checkpoints.
    """

    def __init__(self, path: Path | None, every: float) -> None:
        self._path, self._every = path, every
        self._cost, self._saved_at = SHARE * SOONEST, time.perf_counter()

    def is_due(self) -> bool:
        """Whether it is time for a checkpoint."""
        interval = min(self._every, max(self._cost / SHARE, SOONEST))
        return self._path is not None and time.perf_counter() - self._saved_at >= interval

    def __call__(self, population: Population, *, at_once: bool) -> None:
        """Save a population if that is due, or in any case."""
        if self._path is not None and (at_once or self.is_due()):
            started = time.perf_counter()
            save_population(self._path, population)
            self._saved_at = time.perf_counter()
            self._cost = self._saved_at - started
