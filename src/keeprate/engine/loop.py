"""The training loop: a population of candidates in lockstep, one step at a time.

Training never knows who proposed the schedules: it takes a table of keep rates `[K, T]`.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own convention
from torch import Tensor
from torch.optim import Optimizer

from keeprate.data import Data, Normaliser, Split
from keeprate.engine.augmentation import Augmenter
from keeprate.engine.config import Augmentation
from keeprate.engine.evaluation import evaluate
from keeprate.engine.folds import Lesson
from keeprate.engine.graphs import StepGraph
from keeprate.engine.heads import AngularMargin
from keeprate.engine.meter import EpochMeter, Measured
from keeprate.engine.methods import Method, side_by_side
from keeprate.engine.metrics import scored
from keeprate.engine.networks import Networks
from keeprate.engine.population import Population
from keeprate.engine.selection import (
    corrected_logits,
    cross_entropy,
    cross_entropy_gradient,
    log_probabilities,
    normalise,
    per_sample_cross_entropy,
)
from keeprate.engine.setup import Setup
from keeprate.engine.world import WHOLE, Share
from keeprate.errors import invalid
from keeprate.seeding import torch_generator

TINY, SWEEP_EVERY = 1e-32, 128
"""Below the last digit of Adam's epsilon, squared. In so many steps nothing that decays by 0.9 a
step falls from there to the denormal numbers, which begin at 1.2e-38."""
MOST_SCALED = 2**22  # numbers of training inputs that are kept in float32, too: 16 MiB
IN_FLIGHT, SHORT_EPOCH = 3, 1.0
"""So many epochs at most are before a GPU at once, if one takes less than so many seconds."""


def train_population(
    population: Population,
    setup: Setup,
    *,
    stream: str,
    order: int = 0,
    after_epoch: Callable[[Population], None] | None = None,
    catches_up: Callable[[], bool] | None = None,
) -> None:
    """Train to the last epoch, from wherever the population stands.

    The order of the samples is drawn from (seed, stream, order, epoch): all candidates see the
    same batches, and a resumed run sees what the interrupted run would have seen.

    A GPU may be some epochs ahead of what the host has entered (`Population.epochs_ahead`), as
    candidates do not depend on each other: to drop one late costs no more than its last steps.

    Parameters
    ----------
    population : Population
    setup : Setup
    stream : str
        Separates uses of one seed.
    order : int
        Which of many sequences of batches; populations of different orders are independent.
    after_epoch : callable, optional
        Called with the population for each epoch in turn; may drop candidates, show progress and,
        where no epoch is ahead, save a checkpoint.
    catches_up : callable, optional
        Asked before an epoch begins while others are in flight: whether it has to wait for the
        host, so that no epoch is ahead.
    """
    epochs = _Epochs(population, setup, stream=stream, order=order)
    device, in_flight = population.keep_rates.device, deque[Measured]()
    seconds = math.inf  # of the last epoch

    def may_begin() -> bool:
        if epochs.next == setup.config.epochs:
            return False
        if not in_flight:
            return True
        waits = setup.metric is not None or setup.scorer is not None  # the host, for each epoch
        # Processes that train together drop candidates before the same epoch.
        most = 1 if waits or setup.world.size > 1 else most_in_flight(device, seconds)
        if len(in_flight) >= most:
            return False
        return catches_up is None or not catches_up()

    while population.epoch < setup.config.epochs and population.candidates:
        started = time.perf_counter()
        while may_begin():
            in_flight.append(epochs.begin_next())
        measured = in_flight.popleft()
        population.epochs_ahead = len(in_flight)
        metrics = measured.read()
        seconds = time.perf_counter() - started
        population.finish_epoch(metrics, seconds)
        if after_epoch is not None:
            after_epoch(population)


def most_in_flight(device: torch.device, seconds: float) -> int:
    """How many epochs of so many seconds a device may have before it at once.

    >>> most_in_flight(torch.device("cpu"), 0.01)
    1
    """
    return IN_FLIGHT if device.type == "cuda" and seconds < SHORT_EPOCH else 1


class _Epochs:
    """Epoch after epoch of a population, each begun without a look at what the last measured.

    Attributes
    ----------
    next : int
        The epoch that comes next, counted from 0.
    """

    def __init__(self, population: Population, setup: Setup, *, stream: str, order: int) -> None:
        device = population.keep_rates.device
        self.next = population.epoch
        self._population, self._setup = population, setup
        self._seed_parts = (setup.seed, stream, "order", order)
        self._data, self._autocast = (
            data_on_device(setup.data, device),
            setup.config.autocast(device),
        )
        weights = setup.weights
        self._weights = None if weights is None else weights.to(device)  # of the samples
        self._steps: Steps | None = None

    def begin_next(self) -> Measured:
        """Train an epoch and evaluate; on a GPU, ask for both and return."""
        epoch, config, data = self.next, self._setup.config, self._data
        networks, normaliser = self._population.networks, self._setup.normaliser
        scorer, autocast = self._setup.scorer, self._autocast
        generator = torch_generator(*self._seed_parts, epoch)
        batches = epoch_order(len(data.train), config.batch_size, generator)
        steps = self._steps_of(epoch)
        networks.train()
        steps.run(epoch, batches, generator)
        networks.train(False)
        world = self._setup.world
        if world.size > 1:
            world.check_same(networks.state(), networks.device)
        validation = steps.meter.held_out_scores(data.criterion)
        if self._setup.metric is not None:
            validation = scored(self._setup.metric, networks, normaliser, autocast)
        elif validation is None:
            validation = evaluate(
                networks,
                data.validation,
                normaliser,
                data.criterion,
                autocast,
                scorer=scorer,
                world=world,
            )
        test, is_averaged = None, self._population.folds is not None
        if data.test is not None:
            test = evaluate(
                networks,
                data.test,
                normaliser,
                "accuracy",
                autocast,
                averages=is_averaged,
                scorer=scorer,
                world=world,
            )
        if self._population.best is not None:
            self._population.best.update(validation.score.mean(1), networks)
        self.next += 1
        has_scorer = scorer is not None
        return steps.meter.measured(
            self.next, len(batches), validation, test, has_scorer=has_scorer
        )

    def _steps_of(self, epoch: int) -> Steps:
        """The steps of an epoch; the last ones, if candidates and rules are the same."""
        population, epochs = self._population, self._setup.config.epochs
        methods = [method.at(epoch, epochs) for method in population.methods]
        tracks = population.log_probability is not None and epoch >= epochs // 2
        key = (population.numbers, methods, tracks)
        if self._steps is None or self._steps.key != key:
            self._steps = None  # before its memory is needed
            self._steps = Steps(
                population, self._setup, self._data, self._weights, self._autocast, key
            )
        return self._steps


class Steps:
    """The steps of the same candidates by the same rules.

    On a GPU the steps are a CUDA graph. What changes from epoch to epoch therefore changes in
    place: keep rates, sums, weights.

    Attributes
    ----------
    key : tuple
        Numbers of the candidates, their methods, and whether the meter tracks what networks say.
    meter : EpochMeter
    """

    def __init__(
        self,
        population: Population,
        setup: Setup,
        data: Data,
        weights: Tensor | None,
        autocast: Callable[[], AbstractContextManager[Any]],
        key: tuple[list[int], list[Method], bool],
    ) -> None:
        self.key = key
        _, methods, tracks = key
        self.meter = EpochMeter(population, data.train, setup.config.batch_size, tracks=tracks)
        self._population = population
        self._train, self._setup = scaled_once(data.train, setup)
        self._weights, self._autocast = weights, autocast
        self._method = side_by_side(methods)
        self._keep_rate = torch.empty_like(population.keep_rates[:, 0])
        self._graph: StepGraph | None = None
        networks, device = population.networks, population.keep_rates.device
        augmentation = Augmentation.parse(setup.config.augment)
        self._take = Augmenter(augmentation, len(data.train), data.input_shape, device)
        if device.type == "cuda" and setup.world.size == 1:
            self._graph = StepGraph(population.optimizer, networks.generators, device)

    @property
    def reason_without_graph(self) -> str | None:
        """Why the steps are no CUDA graph; None where they are one, or are about to be."""
        if self._graph is not None:
            return self._graph.reason
        return "not on a GPU" if self._setup.world.size == 1 else "processes train together"

    def run(self, epoch: int, batches: Tensor, generator: torch.Generator) -> None:
        """A step for each row of `batches` [S, B], which is on the CPU.

        The generator, on the CPU as well, tells how the epoch changes the images.
        """
        self.meter.reset()
        self._take.draw(generator)
        self._keep_rate.copy_(self._population.keep_rates[:, epoch])
        learning_rate, optimizer = (
            self._setup.config.learning_rate_at(epoch),
            self._population.optimizer,
        )
        if self._keep_rate.is_cuda:  # pinned: the host would wait for the copy of other memory
            batches = batches.pin_memory().to(self._keep_rate.device, non_blocking=True)
        if self._graph is not None:
            self._graph.run(self._whole_step, batches, learning_rate)
            return
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        for step, index in enumerate(batches, start=epoch * len(batches)):
            if step % SWEEP_EVERY == 0:
                sweep_tiny(optimizer)
            self._step(index)
        self.meter.add_up()

    def _whole_step(self, index: Tensor) -> None:
        """A step that leaves nothing to be added up later: a graph replays no Python."""
        self._step(index)
        self.meter.add_up()

    def _step(self, index: Tensor) -> None:
        """Train on the samples `index` [B], and measure."""
        population, train = self._population, self._train
        share = self._setup.world.share(len(index))
        own = share.of(index)
        inputs = self._take.noisy(self._setup.normaliser(self._take(train.inputs, own)), own)
        labels = train.labels.index_select(0, index)
        losses, weights, logits = train_step(
            population.networks,
            population.optimizer,
            self._method,
            inputs,
            labels,
            self._keep_rate,
            self._autocast,
            population.transition_matrix,
            None if self._weights is None else self._weights[index],
            None if population.folds is None else population.folds.batch(index),
            self._setup.margin,
            self._setup.config.max_grad_norm,
            share,
        )
        self.meter.add(index, labels, losses, weights, logits)


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
    margin: AngularMargin | None = None,
    max_grad_norm: float = 0.0,
    share: Share = WHOLE,
) -> tuple[Tensor, Tensor, Tensor]:
    """One step of Alg. 1 for all candidates: select, then learn from the selected.

    Where processes train together, each runs the networks on its share of the batch. Logits are
    gathered, so that losses, selection and their weights are those of the whole batch in every
    process; gradients of the parameters are added up.

    Parameters
    ----------
    networks : Networks
    optimizer : torch.optim.Optimizer
    method : Method
    inputs : float32 Tensor [b, ...]
        The share of the batch; all B samples where a process trains alone.
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
    margin : AngularMargin, optional
        By which the label of a sample must be more likely than the other classes, where the
        network's logits are cosines. Rules that compare predictions see the logits without.
    max_grad_norm : float
        To which the gradient of each network is scaled down; 0: never.
    share : Share
        Which part of the batch the inputs are.

    Returns
    -------
    losses : Tensor [K, R, B]
    weights : Tensor [K, R, B]
        Of the selection alone.
    logits : Tensor [K, R, B, C]
        For the true labels, where the loss is corrected. All without gradients.
    """
    with autocast():
        outputs = networks.outputs(inputs, share)  # [K, R, b, C]
    is_plain = transition_matrix is None and margin is None
    targets = plain_targets(method, labels, lesson) if is_plain else None
    has_autograd = targets is None  # from losses to logits
    with torch.set_grad_enabled(has_autograd):
        logits = share.gathered(outputs.detach(), 2).requires_grad_(has_autograd)  # [K, R, B, C]
        # Of the labels as given, which a matrix may corrupt; learnt with a margin.
        label_logits, learnt = logits, logits if margin is None else margin(logits, labels)
        if transition_matrix is not None:
            label_logits, learnt = (
                corrected_logits(x, transition_matrix) for x in (logits, learnt)
            )
        if targets is not None:
            log_probability = log_probabilities(label_logits)
            losses = cross_entropy(log_probability, targets)  # [K, R, B]
        elif lesson is not None:
            losses = lesson.losses(logits)
        else:
            losses = method.loss(learnt, labels)
    with torch.no_grad():
        judged = losses
        if lesson is not None:
            judged = losses.masked_fill(lesson.weights == 0, torch.inf)  # never to be selected
            sample_weights = (
                lesson.weights if sample_weights is None else sample_weights * lesson.weights
            )
        weights = method.select(judged, label_logits, labels, keep_rate)
        shares = normalise(weights if sample_weights is None else weights * sample_weights)
        if targets is not None:
            gradient = cross_entropy_gradient(log_probability, targets, shares).to(logits.dtype)
    if targets is None:  # a sum: candidates stay independent
        (gradient,) = torch.autograd.grad((shares * losses).sum(), logits)
    parameters = networks.parameters()
    for parameter in parameters:  # zero_grad, without its wrappers
        parameter.grad = None
    networks.backward(outputs, share.of(gradient, 2))
    if share.is_part:
        share.add_up([parameter.grad for parameter in parameters])
    if max_grad_norm:
        networks.clip_gradients(max_grad_norm)
    optimizer.step()
    return losses.detach(), weights, logits.detach()


def plain_targets(method: Method, labels: Tensor, lesson: Lesson | None) -> Tensor | None:
    """Labels or class probabilities, if the loss is the cross-entropy to them; else None."""
    if lesson is not None:
        return lesson.targets if lesson.transition_matrix is None else None
    return labels if method.loss is per_sample_cross_entropy else None


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


def scaled_once(train: Split, setup: Setup) -> tuple[Split, Setup]:
    """Few inputs, normalised here and not in each batch anew, and the setup for them."""
    if not isinstance(train.inputs, Tensor) or train.inputs.numel() > MOST_SCALED:
        return train, setup
    inputs = setup.normaliser(train.inputs)
    return replace(train, inputs=inputs), replace(setup, normaliser=Normaliser("none"))


def data_on_device(data: Data, device: torch.device) -> Data:
    """The splits of a data set on a device."""

    def moved(split: Split) -> Split:
        true_labels = None if split.true_labels is None else split.true_labels.to(device)
        inputs, labels = split.inputs.to(device), split.labels.to(device)
        return replace(split, inputs=inputs, labels=labels, true_labels=true_labels)

    test = None if data.test is None else moved(data.test)
    return replace(data, train=moved(data.train), validation=moved(data.validation), test=test)
