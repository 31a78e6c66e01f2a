"""The training loop: a population of candidates in lockstep, one step at a time.

Training never knows who proposed the schedules: it takes a table of keep rates `[K, T]`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own convention
from torch import Tensor
from torch.optim import Optimizer

from keeprate.data import Data, Split
from keeprate.engine.evaluation import evaluate
from keeprate.engine.folds import Lesson
from keeprate.engine.meter import EpochMeter
from keeprate.engine.methods import Method, side_by_side
from keeprate.engine.networks import Networks
from keeprate.engine.population import Population
from keeprate.engine.selection import corrected_logits, normalise
from keeprate.engine.setup import Setup
from keeprate.errors import invalid
from keeprate.seeding import torch_generator

TINY, SWEEP_EVERY = 1e-32, 128
"""Below the last digit of Adam's epsilon, squared. In so many steps nothing that decays by 0.9 a
step falls from there to the denormal numbers, which begin at 1.2e-38."""


def train_population(
    population: Population,
    setup: Setup,
    *,
    stream: str,
    order: int = 0,
    after_epoch: Callable[[Population], None] | None = None,
) -> None:
    """Train to the last epoch, from wherever the population stands.

    The order of the samples is drawn from (seed, stream, order, epoch): all candidates see the
    same batches, and a resumed run sees what the interrupted run would have seen.

    Parameters
    ----------
    population : Population
    setup : Setup
    stream : str
        Separates uses of one seed.
    order : int
        Which of many sequences of batches; populations of different orders are independent.
    after_epoch : callable, optional
        Called with the population at the end of each epoch; may drop candidates, save a
        checkpoint, show progress.
    """
    config, normaliser, device = setup.config, setup.normaliser, population.keep_rates.device
    networks, optimizer = population.networks, population.optimizer
    data, autocast = _moved(setup.data, device), config.autocast(device)
    all_given = None if setup.weights is None else setup.weights.to(device)  # of the samples
    while population.epoch < config.epochs and population.candidates:
        epoch, started = population.epoch, time.perf_counter()
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate_at(epoch)
        keep_rate = population.keep_rates[:, epoch].contiguous()
        method = side_by_side([method.at(epoch, config.epochs) for method in population.methods])
        generator = torch_generator(setup.seed, stream, "order", order, epoch)
        batches = epoch_order(len(data.train), config.batch_size, generator).to(device)
        meter = EpochMeter(population, data.train, tracks=epoch >= config.epochs // 2)
        networks.train()
        for step, index in enumerate(batches):
            if step % SWEEP_EVERY == 0 and device.type == "cpu":
                sweep_tiny(optimizer)
            inputs, labels = normaliser(data.train.inputs[index]), data.train.labels[index]
            matrix = population.transition_matrix
            given = None if all_given is None else all_given[index]
            lesson = None if population.folds is None else population.folds.batch(index)
            losses, weights, logits = train_step(
                networks,
                optimizer,
                method,
                inputs,
                labels,
                keep_rate,
                autocast,
                matrix,
                given,
                lesson,
            )
            meter.add(index, labels, losses, weights, logits)
        networks.train(False)
        validation = meter.held_out_scores(data.criterion)
        if validation is None:
            validation = evaluate(networks, data.validation, normaliser, data.criterion, autocast)
        test, is_averaged = None, population.folds is not None
        if data.test is not None:
            test = evaluate(
                networks, data.test, normaliser, "accuracy", autocast, averages=is_averaged
            )
        population.finish_epoch(meter.metrics(validation, test), time.perf_counter() - started)
        if after_epoch is not None:
            after_epoch(population)


def train_step(
    networks: Networks,
    optimizer: Optimizer,
    method: Method,
    inputs: Tensor,
    labels: Tensor,
    keep_rate: Tensor,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    transition_matrix: Tensor | None = None,
    sample_weights: Tensor | None = None,
    lesson: Lesson | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """One step of Alg. 1 for all candidates: select, then learn from the selected.

    Parameters
    ----------
    networks : Networks
    optimizer : torch.optim.Optimizer
    method : Method
    inputs : float32 Tensor [B, ...]
    labels : int64 Tensor [B]
    keep_rate : Tensor [K]
    autocast : callable
        Makes the mixed-precision context of the forward pass.
    transition_matrix : Tensor [K, C, C], optional
        Correct the loss by this matrix.
    sample_weights : Tensor [B], optional
        How much each sample counts among the selected. The selection does not depend on them.
    lesson : Lesson, optional
        What each network learns of the batch, where peers leave out folds.

    Returns
    -------
    losses : Tensor [K, R, B]
    weights : Tensor [K, R, B]
        Of the selection alone.
    logits : Tensor [K, R, B, C]
        For the true labels, where the loss is corrected. All without gradients.
    """
    with autocast():
        logits = networks(inputs)  # [K, R, B, C]
    label_logits = logits  # for the labels as given
    if transition_matrix is not None:
        label_logits = corrected_logits(logits, transition_matrix)
    if lesson is None:
        losses = method.loss(label_logits, labels)  # [K, R, B]
        judged = losses
    else:
        losses = lesson.losses(logits)
        judged = losses.masked_fill(lesson.weights == 0, torch.inf)  # never to be selected
        sample_weights = (
            lesson.weights if sample_weights is None else sample_weights * lesson.weights
        )
    with torch.no_grad():
        weights = method.select(judged, label_logits, labels, keep_rate)
    for parameter in networks.parameters():  # zero_grad, without its wrappers
        parameter.grad = None
    shares = normalise(weights if sample_weights is None else weights * sample_weights)
    (shares * losses).sum().backward()  # a sum: candidates stay independent
    optimizer.step()
    return losses.detach(), weights, logits.detach()


def epoch_order(n: int, batch_size: int, generator: torch.Generator) -> Tensor:
    """Draw the batches of one epoch: a random permutation, cut into full batches.

    A remainder of fewer than `batch_size` samples is left out of this epoch. Each epoch draws
    another permutation, so over many epochs every sample is left out equally often.

    Parameters
    ----------
    n : int
        Training samples.
    batch_size : int
        In 1..n.
    generator : torch.Generator
        The result is on its device.

    Returns
    -------
    Tensor [n // batch_size, batch_size] of int64
        Row s holds the samples of step s.

    Raises
    ------
    InputError
        If `batch_size` is not in 1..n.

    Examples
    --------
    >>> epoch_order(7, 3, torch.Generator().manual_seed(0)).shape
    torch.Size([2, 3])
    """
    if not 1 <= batch_size <= n:
        raise invalid(
            "batch_size",
            f"be at least 1 and at most the number of training samples ({n})",
            batch_size,
            "choose another",
        )
    order = torch.randperm(n, generator=generator, device=generator.device)
    return order[: n // batch_size * batch_size].view(-1, batch_size)


def sweep_tiny(optimizer: Optimizer) -> None:
    """Set numbers next to zero in an optimiser's averages to zero; NaN stays.

    The averages of a unit that no sample reaches any more decay to denormal numbers and stay
    there, and a CPU computes many times more slowly with those. (A flag of the processor would
    help too, but each thread has its own flag, and the threads are the caller's.)
    """
    with torch.no_grad():
        for state in optimizer.state.values():
            for value in state.values():
                if isinstance(value, Tensor) and value.dim():  # a step counter has no axis
                    value.copy_(F.hardshrink(value, TINY))


def _moved(data: Data, device: torch.device) -> Data:
    """The data on a device."""

    def moved(split: Split) -> Split:
        true_labels = None if split.true_labels is None else split.true_labels.to(device)
        inputs, labels = split.inputs.to(device), split.labels.to(device)
        return replace(split, inputs=inputs, labels=labels, true_labels=true_labels)

    test = None if data.test is None else moved(data.test)
    return replace(data, train=moved(data.train), validation=moved(data.validation), test=test)
