"""Candidates in lockstep: groups that fit in memory, checkpoints, the record of the folder."""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from keeprate.data import Data, Normaliser
from keeprate.engine.checkpoints import load_population, save_population
from keeprate.engine.config import TrainingConfig
from keeprate.engine.evaluation import probabilities
from keeprate.engine.loop import train_population
from keeprate.engine.memory import fitting_candidates, is_out_of_memory
from keeprate.engine.methods import Method, get_method
from keeprate.engine.models import ModelFactory, adapt_factory, build_model, get_model
from keeprate.engine.population import Population, new_population
from keeprate.engine.tensorboard import CurvesWriter
from keeprate.errors import InputError, invalid
from keeprate.noise import estimate_transition_matrix
from keeprate.schedules import Schedule
from keeprate.seeding import forked_seed

log = logging.getLogger(__name__)

CHECKPOINT_SECONDS = 60.0


class Progress(Protocol):
    """Told how far a stage is: `done` of `total`, and the best validation score so far."""

    def __call__(self, stage: str, done: float, total: float, best: float | None) -> None: ...


@dataclass(frozen=True)
class Setup:
    """What every training of a run shares."""

    data: Data
    model_name: str
    model: ModelFactory
    config: TrainingConfig
    seed: int
    folder: Path | None
    lockstep: int | None  # candidates that train together at most; None: as many as fit
    normaliser: Normaliser
    progress: Progress | None = None
    checkpoint_seconds: float = CHECKPOINT_SECONDS
    curves_writer: CurvesWriter | None = None

    def build(self) -> nn.Module:
        """One network with fresh weights."""
        return self.model(self.data.input_shape, self.data.n_classes)


def make_setup(
    data: Data,
    *,
    model: str | Callable[..., nn.Module],
    config: TrainingConfig,
    seed: int,
    out: str | os.PathLike[str] | None,
    lockstep: int | None,
    progress: Progress | None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    tensorboard: bool = False,
) -> Setup:
    """Check everything that can be checked before the first step is taken."""
    if config.batch_size > len(data.train):
        raise invalid(
            "batch_size",
            f"be at most the number of training samples ({len(data.train)})",
            config.batch_size,
            "give a smaller --batch-size",
        )
    if lockstep is not None and lockstep < 1:
        raise invalid("lockstep", "be at least 1", lockstep, "leave it out to fit the memory")
    factory = get_model(model) if isinstance(model, str) else adapt_factory(model)
    with forked_seed(seed):
        build_model(factory, data.input_shape, data.n_classes)
    config.resolve_device()
    return Setup(
        data=data,
        model_name=model if isinstance(model, str) else getattr(model, "__qualname__", "custom"),
        model=factory,
        config=config,
        seed=seed,
        folder=None if out is None else Path(out),
        lockstep=lockstep,
        normaliser=Normaliser.fit(data.train.inputs),
        progress=progress,
        checkpoint_seconds=checkpoint_seconds,
        curves_writer=CurvesWriter(out) if tensorboard else None,
    )


def train_schedules(
    numbers: Sequence[int],
    schedules: Sequence[Schedule],
    setup: Setup,
    *,
    methods: Sequence[Method],
    stream: str,
    data: Data,
    order: int = 0,
    keep_checkpoints: bool = False,
    n_tracked: int = 0,
    after_epoch: Callable[[Population], None] | None = None,
    after_group: Callable[[Population], None],
) -> None:
    """Train candidates in lockstep, in groups that fit in memory.

    Each has its own of the `methods`, which have the same number of networks, and all a corrected
    loss or none. All see the batches of one `order`. A group that runs out of memory is halved and
    started again. `after_group` is called with each finished population. Where nothing but its
    checkpoint keeps a finished population, `keep_checkpoints` gives each group a file of its own.
    `n_tracked` are the first candidates whose opinions of the training samples are kept.
    """
    device = setup.config.resolve_device()
    size = setup.lockstep
    if size is None:
        batch = setup.normaliser(data.train.inputs[: setup.config.batch_size])
        size = fitting_candidates(setup.build, batch, n_peers=methods[0].n_networks, device=device)
    start, out_of_memory = 0, False
    while start < len(numbers):
        stop = min(start + size, len(numbers))
        try:
            population = _train_group(
                numbers[start:stop],
                np.stack([schedule.keep_rate for schedule in schedules[start:stop]]),
                setup,
                methods=methods[start:stop],
                stream=stream,
                data=data,
                order=order,
                checkpoint=f"{stream}-{start}" if keep_checkpoints else stream,
                n_tracked=n_tracked - start,
                after_epoch=after_epoch,
            )
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if size == 1:
                raise InputError(
                    "one candidate alone does not fit in memory; give a smaller --batch-size, "
                    "a smaller model or less data."
                ) from error
            size = max(1, min(size, stop - start) // 2)
            out_of_memory = True
            log.warning("out of memory: going on with %d candidates at a time", size)
        if out_of_memory:  # outside the handler, whose traceback holds the population
            out_of_memory = False
            gc.collect()
            if device.type == "cuda":
                torch.cuda.empty_cache()
            continue
        after_group(population)
        del population  # before the next group is built
        start = stop


def checkpoint_path(folder: Path | None, name: str) -> Path | None:
    """Where the population in training is kept, if there is a run folder."""
    return None if folder is None else folder / f"checkpoint-{name}.safetensors"


def _train_group(
    numbers: Sequence[int],
    keep_rates: NDArray[np.float64],
    setup: Setup,
    *,
    methods: Sequence[Method],
    stream: str,
    data: Data,
    order: int,
    checkpoint: str,
    n_tracked: int,
    after_epoch: Callable[[Population], None] | None,
) -> Population:
    population = new_population(
        numbers,
        keep_rates,
        data=data,
        normaliser=setup.normaliser,
        build=setup.build,
        methods=methods,
        config=setup.config,
        seed=setup.seed,
        stream=stream,
        n_tracked=n_tracked,
    )
    path = checkpoint_path(setup.folder, checkpoint)
    resumed = path is not None and path.exists() and load_population(path, population)
    if methods[0].corrects_loss and not resumed:
        _estimate_transition_matrices(
            population, setup, stream=stream, data=data, order=order, checkpoint=checkpoint
        )
    saver = _Saver(path, setup.checkpoint_seconds, _seconds(population))

    def finish_epoch(population: Population) -> None:
        if setup.curves_writer is not None:
            setup.curves_writer(population)
        if after_epoch is not None:
            after_epoch(population)
        over = population.epoch == setup.config.epochs or not population.numbers
        saver(population, last=over)

    train_population(
        population,
        data,
        setup.normaliser,
        config=setup.config,
        seed=setup.seed,
        stream=stream,
        order=order,
        after_epoch=finish_epoch,
    )
    return population


def _estimate_transition_matrices(
    population: Population,
    setup: Setup,
    *,
    stream: str,
    data: Data,
    order: int,
    checkpoint: str,
) -> None:
    """Train a Standard network for each candidate; estimate T from what it predicts."""
    first = _train_group(
        population.numbers,
        np.ones((len(population.numbers), setup.config.epochs)),
        replace(setup, curves_writer=None),  # the candidates' curves are those of the second
        methods=[get_method("standard")] * len(population.numbers),
        stream=f"{stream}-first",
        data=replace(data, test=None),
        order=order,
        checkpoint=f"{checkpoint}-first",
        n_tracked=0,
        after_epoch=None,
    )
    for number, curves in first.curves.items():
        population.curves[number].seconds += curves.seconds
    population.failed += first.failed
    population.drop(first.failed)
    device = population.keep_rates.device
    matrices = []
    for row in range(len(first.numbers)):
        module = first.networks.module(row, 0).to(device)
        predicted = probabilities([module], data.train.inputs, setup.normaliser)
        matrices.append(torch.from_numpy(estimate_transition_matrix(predicted.numpy())))
    if matrices:
        population.transition_matrix = torch.stack(matrices).float().to(device)


def _seconds(population: Population) -> float:
    return sum(curves.seconds for curves in population.curves.values())


class _Saver:
    """Saves a population every so often, and at the end of its training."""

    def __init__(self, path: Path | None, every: float, seen: float) -> None:
        self._path, self._every, self._seen = path, every, seen

    def __call__(self, population: Population, *, last: bool) -> None:
        spent = _seconds(population)
        if self._path is not None and (spent - self._seen >= self._every or last):
            save_population(self._path, population)
            self._seen = spent
