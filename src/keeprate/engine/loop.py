"""One train step, one loop, evaluation: a population of candidates in lockstep.

Training never knows who proposed the schedules: it takes a table of keep rates `[K, T]`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own convention
from torch import Tensor
from torch.optim import Optimizer

from keeprate.data import Data, Normaliser, Split
from keeprate.engine.config import TrainingConfig
from keeprate.engine.evaluation import accuracy, confusion
from keeprate.engine.methods import Method, side_by_side
from keeprate.engine.networks import Networks
from keeprate.engine.population import Population
from keeprate.engine.selection import corrected_logits, normalise
from keeprate.errors import invalid
from keeprate.noise import determinant_score
from keeprate.seeding import torch_generator


def epoch_order(n: int, batch_size: int, generator: torch.Generator) -> Tensor:
    """Return one epoch of batches: a random permutation, cut into full batches.

    The remainder of fewer than `batch_size` samples is left out of this epoch. Each epoch draws
    another permutation, so over epochs every sample is left out equally often.

    Parameters
    ----------
    n : int
        Training samples.
    batch_size : int
        In 1..n.
    generator : torch.Generator
        Its device is that of the result.

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


TINY, SWEEP_EVERY = 1e-32, 128
"""Below the last digit of Adam's epsilon, squared; steps in which nothing decays by 0.9 from there
to where denormal numbers begin, 1.2e-38."""


def train_step(
    networks: Networks,
    optimizer: Optimizer,
    method: Method,
    inputs: Tensor,
    labels: Tensor,
    keep_rate: Tensor,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    transition_matrix: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """One step of Alg. 1 for all candidates: select, then learn from the selected.

    Parameters
    ----------
    inputs : float32 Tensor [B, ...]
    labels : int64 Tensor [B]
    keep_rate : Tensor [K]
    transition_matrix : Tensor [K, C, C], optional
        Correct the loss by it.

    Returns
    -------
    losses : Tensor [K, R, B]
    weights : Tensor [K, R, B]
    logits : Tensor [K, R, B, C]
        For the true labels, where the loss is corrected. All without gradients.
    """
    with autocast():
        logits = networks(inputs)  # [K, R, B, C]
    learned = logits  # from the labels as given
    if transition_matrix is not None:
        learned = corrected_logits(logits, transition_matrix)
    losses = method.loss(learned, labels)  # [K, R, B]
    with torch.no_grad():
        weights = method.select(losses, learned, labels, keep_rate)
    for parameter in networks.parameters():  # zero_grad, without its wrappers
        parameter.grad = None
    (normalise(weights) * losses).sum().backward()  # a sum: candidates stay independent
    optimizer.step()
    return losses.detach(), weights, logits.detach()


def train_population(
    population: Population,
    data: Data,
    normaliser: Normaliser,
    *,
    config: TrainingConfig,
    seed: int,
    stream: str,
    order: int = 0,
    after_epoch: Callable[[Population], None] | None = None,
) -> None:
    """Train to the last epoch, from wherever the population stands.

    The order of the samples is drawn from (seed, stream, order, epoch): all candidates see the
    same batches, and a resumed run sees what the interrupted one would have seen.

    Parameters
    ----------
    order : int
        Which of many sequences of batches; populations of different orders are independent.
    after_epoch : callable, optional
        Called with the population at the end of each epoch; may drop candidates, save a
        checkpoint, show progress.
    """
    device = population.keep_rates.device
    autocast = config.autocast(device)
    inputs, labels = data.train.inputs.to(device), data.train.labels.to(device)
    true_labels = data.train.true_labels
    clean = None if true_labels is None else (true_labels.to(device) == labels)
    evaluated = [split for split in (data.validation, data.test) if split is not None]
    splits = [_on(split, device) for split in evaluated]
    networks, optimizer = population.networks, population.optimizer
    while population.epoch < config.epochs and population.numbers:
        epoch, started = population.epoch, time.perf_counter()
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate_at(epoch)
        generator = torch_generator(seed, stream, "order", order, epoch)
        batches = epoch_order(len(data.train), config.batch_size, generator).to(device)
        keep_rate = population.keep_rates[:, epoch].contiguous()
        loss_sum = torch.zeros(networks.n_candidates, device=device)
        right_sum = torch.zeros_like(loss_sum)
        kept = torch.zeros(networks.n_candidates, device=device, dtype=torch.float64)
        kept_clean = torch.zeros_like(kept)
        tracked = population.log_probability if epoch >= config.epochs // 2 else None
        current = side_by_side([own.at(epoch, config.epochs) for own in population.methods])
        networks.train()
        for step, index in enumerate(batches):
            if step % SWEEP_EVERY == 0 and device.type == "cpu":
                sweep_tiny(optimizer)
            given = labels[index]
            losses, weights, logits = train_step(
                networks,
                optimizer,
                current,
                normaliser(inputs[index]),
                given,
                keep_rate,
                autocast,
                population.transition_matrix,
            )
            loss_sum += losses.mean((1, 2))
            right_sum += (logits.argmax(-1) == given).float().mean((1, 2))
            if clean is not None:
                selected = weights > 0
                kept += selected.sum((1, 2))
                kept_clean += (selected & clean[index]).sum((1, 2))
            if tracked is not None and population.times_seen is not None:
                tracked[:, index] += logits[: len(tracked)].float().log_softmax(-1).mean(1)
                population.times_seen[index] += 1
        networks.train(False)
        accuracies = [
            accuracy(networks, split, normaliser, autocast).mean(1).tolist() for split in splits
        ]
        scores = accuracies[0]
        if data.criterion == "determinant":
            counts = confusion(networks, splits[0], normaliser, data.n_classes, autocast)
            scores = determinant_score(counts).mean(1).tolist()
        mean_loss, mean_right = ((x / len(batches)).tolist() for x in (loss_sum, right_sum))
        precision = None if clean is None else (kept_clean / kept.clamp_min(1)).tolist()
        share = (time.perf_counter() - started) / len(population.numbers)
        for row, number in enumerate(population.numbers):
            curves = population.curves[number]
            curves.seconds += share
            if not math.isfinite(mean_loss[row]):
                population.failed.append(number)
                continue
            curves.train_loss.append(mean_loss[row])
            curves.train_accuracy.append(mean_right[row])
            curves.validation_accuracy.append(accuracies[0][row])
            curves.validation_score.append(scores[row])
            if len(accuracies) > 1:
                curves.test_accuracy.append(accuracies[1][row])
            if precision is not None:
                curves.label_precision.append(precision[row])
        population.drop(population.failed)
        population.epoch += 1
        if after_epoch is not None:
            after_epoch(population)


def sweep_tiny(optimizer: Optimizer) -> None:
    """Set to zero what is next to nothing in an optimiser's averages.

    Those of a unit that no sample reaches any more decay until they are denormal numbers, with
    which a CPU computes many times more slowly, and stay such. (A flag of the processor would
    help, too, but each thread has its own, and they are the caller's.) NaN stays.
    """
    with torch.no_grad():
        for state in optimizer.state.values():
            for value in state.values():
                if isinstance(value, Tensor) and value.dim():  # a step counter has no axis
                    value.copy_(F.hardshrink(value, TINY))


def _on(split: Split, device: torch.device) -> Split:
    return replace(split, inputs=split.inputs.to(device), labels=split.labels.to(device))
