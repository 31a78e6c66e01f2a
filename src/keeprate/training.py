"""One train step, one loop, evaluation: a population of candidates in lockstep.

Training never knows who proposed the schedules: it takes a table of keep rates `[K, T]`.
"""

from __future__ import annotations

import ctypes
import hashlib
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own convention
from torch import Tensor, nn
from torch.optim import Optimizer

from keeprate.data import Data, Normaliser, Split, epoch_order
from keeprate.errors import invalid
from keeprate.methods import Method, side_by_side
from keeprate.networks import Networks, build_networks
from keeprate.noise_model import count_pairs, determinant_score
from keeprate.seeding import derive_seed, torch_generator
from keeprate.selection import corrected_logits, normalise

OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "adam": torch.optim.Adam,
    "sgd": torch.optim.SGD,
    "rmsprop": torch.optim.RMSprop,
}
EVALUATION_BATCH = 1000
TINY, SWEEP_EVERY = 1e-32, 128
"""Below the last digit of Adam's epsilon, squared; steps in which nothing decays by 0.9 from there
to where denormal numbers begin, 1.2e-38."""


@dataclass(frozen=True)
class TrainingConfig:
    """How one network is trained; the defaults are the paper's (App. A.1), for 40 epochs.

    Attributes
    ----------
    epochs : int
        T.
    batch_size : int
        B; the last, incomplete batch of an epoch is left out.
    optimizer : {"adam", "sgd", "rmsprop"}
        All three work element by element, so that candidates stay independent.
    learning_rate : float
    lr_schedule : {"linear-decay", "constant", "cosine"}
        "linear-decay": constant for the first 40 % of the epochs, then linear to zero, as the
        paper's "from the 80th of 200 epochs".
    weight_decay, momentum : float
        Momentum is for sgd and rmsprop.
    precision : {"auto", "float32", "bfloat16"}
        "auto" takes bfloat16 where the device multiplies it faster than float32.
    device : str
        "auto", "cpu", "cuda", "cuda:1", ...
    """

    epochs: int = 40
    batch_size: int = 128
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    lr_schedule: str = "linear-decay"
    weight_decay: float = 0.0
    momentum: float = 0.9
    precision: str = "auto"
    device: str = "auto"

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            value = getattr(self, name)
            if value < 1:
                raise invalid(name, "be at least 1", value, "give a positive whole number")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise invalid(
                "learning_rate", "be positive and finite", self.learning_rate, "try 0.001"
            )
        for name, known in (
            ("optimizer", tuple(OPTIMIZERS)),
            ("lr_schedule", ("linear-decay", "constant", "cosine")),
            ("precision", ("auto", "float32", "bfloat16")),
        ):
            value = getattr(self, name)
            if value not in known:
                raise invalid(name, f"be one of {', '.join(known)}", value, "choose one of these")

    def learning_rate_at(self, epoch: int) -> float:
        """The learning rate of an epoch, counted from 0.

        >>> TrainingConfig(epochs=200).learning_rate_at(79)
        0.001
        >>> round(TrainingConfig(epochs=200).learning_rate_at(140), 6)
        0.0005
        """
        if self.lr_schedule == "constant":
            return self.learning_rate
        if self.lr_schedule == "cosine":
            return self.learning_rate * 0.5 * (1 + math.cos(math.pi * epoch / self.epochs))
        start = 0.4 * self.epochs
        return self.learning_rate * min(1.0, (self.epochs - epoch) / (self.epochs - start))

    def resolve_device(self) -> torch.device:
        """The device to train on."""
        name = self.device
        if name == "auto":
            name = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            device = torch.device(name)
            torch.empty(1, device=device)
        except (RuntimeError, AssertionError) as error:
            raise invalid(
                "device", "be available here", self.device, "use --device auto or cpu"
            ) from error
        return device

    def resolve_precision(self, device: torch.device) -> str:
        """What "auto" stands for on a device: "float32" or "bfloat16"."""
        if self.precision != "auto":
            return self.precision
        return "bfloat16" if _fast_bfloat16(device) else "float32"

    def autocast(self, device: torch.device) -> Callable[[], AbstractContextManager[Any]]:
        """The mixed-precision context of a forward pass."""
        if self.resolve_precision(device) == "bfloat16":
            return lambda: torch.autocast(device.type, dtype=torch.bfloat16)
        return nullcontext


def _fast_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return device.type == "cpu" and probe is not None and bool(probe())


@dataclass
class Curves:
    """What was measured of one candidate at the end of each epoch; peers averaged."""

    train_loss: list[float] = field(default_factory=list)
    train_accuracy: list[float] = field(default_factory=list)  # against the labels as given
    validation_accuracy: list[float] = field(default_factory=list)
    validation_score: list[float] = field(default_factory=list)  # by `Data.criterion`
    test_accuracy: list[float] = field(default_factory=list)
    label_precision: list[float] = field(default_factory=list)
    seconds: float = 0.0  # this candidate's share of the population's time


@dataclass
class Population:
    """K candidates in training: what a checkpoint must hold.

    `numbers` are the candidates still training (trial numbers); `curves` also holds those that
    were dropped; `failed` those whose loss was no longer finite.
    """

    numbers: list[int]
    keep_rates: Tensor  # [K, T]
    methods: list[Method]  # of each that still trains
    networks: Networks
    optimizer: Optimizer
    curves: dict[int, Curves]
    fingerprint: str = ""  # of numbers and schedules: a checkpoint must be this population's
    epoch: int = 0
    failed: list[int] = field(default_factory=list)
    log_probability: Tensor | None = None  # [n_tracked, n_train, C], summed over the later half
    times_seen: Tensor | None = None  # [n_train], how many terms each sum has
    transition_matrix: Tensor | None = None  # [K, C, C], where the loss is corrected by it

    def drop(self, numbers: Sequence[int]) -> None:
        """Stop some candidates and free their memory."""
        left = [i for i, number in enumerate(self.numbers) if number not in set(numbers)]
        if len(left) == len(self.numbers):
            return
        self.keep_rates = self.keep_rates[left]
        if self.transition_matrix is not None:
            self.transition_matrix = self.transition_matrix[left]
        if self.log_probability is not None:
            n_tracked = len(self.log_probability)  # the first ones
            self.log_probability = self.log_probability[[i for i in left if i < n_tracked]]
        self.networks.keep(left, self.optimizer)
        self.numbers = [self.numbers[i] for i in left]
        self.methods = [self.methods[i] for i in left]


def new_population(
    numbers: Sequence[int],
    keep_rates: np.ndarray[Any, Any],
    *,
    data: Data,
    normaliser: Normaliser,
    build: Callable[[], nn.Module],
    methods: Sequence[Method],
    config: TrainingConfig,
    seed: int,
    stream: str,
    n_tracked: int = 0,
) -> Population:
    """Fresh networks for each candidate, from (seed, stream, number) alone.

    Parameters
    ----------
    numbers : sequence of K ints
    keep_rates : array [K, T]
    methods : sequence of K Methods
        With the same number of networks, and all with a corrected loss or none.
    stream : str
        Separates uses of one seed ("search", "final").
    n_tracked : int
        Of the first so many keep the logarithms of the probabilities that the networks give to the
        classes of each training sample.
    """
    device = config.resolve_device()
    if keep_rates.shape != (len(numbers), config.epochs):
        raise invalid(
            "keep_rates",
            f"have shape [{len(numbers)}, {config.epochs}]",
            keep_rates.shape,
            "give one keep rate for each candidate and epoch",
        )
    _keep_freed_memory()
    networks = build_networks(
        build,
        [derive_seed(seed, stream, number) for number in numbers],
        n_peers=methods[0].n_networks,
        probe=normaliser(data.train.inputs[:4].to(device)),
        device=device,
        autocast=config.autocast(device),
    )
    n_tracked, tracked = min(n_tracked, len(numbers)), None
    if n_tracked > 0:
        tracked = torch.zeros(n_tracked, len(data.train), data.n_classes, device=device)
    return Population(
        numbers=list(numbers),
        keep_rates=torch.tensor(keep_rates, dtype=torch.float32, device=device),
        methods=list(methods),
        networks=networks,
        optimizer=make_optimizer(networks.parameters(), config),
        curves={number: Curves() for number in numbers},
        fingerprint=hashlib.sha256(
            repr(list(numbers)).encode() + np.asarray(keep_rates, dtype=np.float64).tobytes()
        ).hexdigest(),
        log_probability=tracked,
        times_seen=None if tracked is None else torch.zeros(len(data.train), device=device),
    )


def make_optimizer(parameters: list[Tensor], config: TrainingConfig) -> Optimizer:
    """An element-wise optimiser, fused where PyTorch has it."""
    options: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
    if config.optimizer != "adam":
        options["momentum"] = config.momentum
    if config.optimizer == "rmsprop":
        options["foreach"] = True
    else:
        options["fused"] = True
    return OPTIMIZERS[config.optimizer](parameters, **options)


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


def batched_logits(
    networks: Networks,
    inputs: Tensor,
    normaliser: Normaliser,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Iterator[tuple[slice, Tensor]]:
    """Logits `[K, R, b, C]` of consecutive pieces of a data set, without gradients."""
    for start in range(0, len(inputs), EVALUATION_BATCH):
        piece = slice(start, min(start + EVALUATION_BATCH, len(inputs)))
        with torch.no_grad(), autocast():
            yield piece, networks(normaliser(inputs[piece]))


def confusion(
    networks: Networks,
    split: Split,
    normaliser: Normaliser,
    n_classes: int,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Tensor:
    """How often each network predicts each class for each label, `[K, R, C, C]`."""
    shape = (networks.n_candidates, networks.n_peers, n_classes, n_classes)
    counts = torch.zeros(shape, dtype=torch.float64, device=split.inputs.device)
    for piece, logits in batched_logits(networks, split.inputs, normaliser, autocast):
        counts += count_pairs(logits.argmax(-1), split.labels[piece], n_classes)
    return counts


def accuracy(
    networks: Networks,
    split: Split,
    normaliser: Normaliser,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Tensor:
    """Share of right predictions of each network, `[K, R]`, in [0, 1]."""
    right = torch.zeros(networks.n_candidates, networks.n_peers, device=split.inputs.device)
    for piece, logits in batched_logits(networks, split.inputs, normaliser, autocast):
        right += (logits.argmax(-1) == split.labels[piece]).sum(-1)
    return right / len(split)


def probabilities(modules: Sequence[nn.Module], inputs: Tensor, normaliser: Normaliser) -> Tensor:
    """Mean of the peers' class probabilities, float32 `[N, C]` on the CPU."""
    pieces = []
    device = next((p.device for p in modules[0].parameters()), torch.device("cpu"))
    for start in range(0, len(inputs), EVALUATION_BATCH):
        with torch.no_grad():
            batch = normaliser(inputs[start : start + EVALUATION_BATCH].to(device))
            stacked = torch.stack([module(batch).float().softmax(-1) for module in modules])
            pieces.append(stacked.mean(0).cpu())
    return torch.cat(pieces)


def _keep_freed_memory() -> None:
    """Let glibc keep large freed blocks: else each step's gradients are mapped and zeroed anew."""
    if sys.platform != "linux":
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return  # another C library: nothing lost but a little speed
    mmap_threshold, trim_threshold = -3, -1
    if mallopt(mmap_threshold, 2**31 - 1):  # old versions refuse such a size
        mallopt(trim_threshold, 2**31 - 1)
