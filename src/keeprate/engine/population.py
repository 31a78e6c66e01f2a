"""K candidates in training, and what is measured of each."""

from __future__ import annotations

import ctypes
import hashlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from keeprate.data import Data, Normaliser
from keeprate.engine.config import OPTIMIZERS, TrainingConfig
from keeprate.engine.methods import Method
from keeprate.engine.networks import Networks, build_networks
from keeprate.errors import invalid
from keeprate.seeding import derive_seed


@dataclass(frozen=True)
class EpochMetrics:
    """What was measured of one candidate at the end of an epoch; peers averaged.

    Attributes
    ----------
    epoch : int
        Counted from 1.
    train_loss : float
    train_accuracy : float
        Against the labels as given; accuracies and label precision lie in [0, 1].
    validation_accuracy : float
    validation_score : float
        By `Data.criterion`.
    test_accuracy : float or None
        None without a test split.
    label_precision : float or None
        The share of the kept samples whose label is right; None where true labels are unknown.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    validation_accuracy: float
    validation_score: float
    test_accuracy: float | None
    label_precision: float | None


@dataclass
class Curves:
    """The metrics of one candidate, epoch by epoch; see `EpochMetrics`."""

    train_loss: list[float] = field(default_factory=list)
    train_accuracy: list[float] = field(default_factory=list)
    validation_accuracy: list[float] = field(default_factory=list)
    validation_score: list[float] = field(default_factory=list)
    test_accuracy: list[float] = field(default_factory=list)  # empty without a test split
    label_precision: list[float] = field(default_factory=list)  # empty without true labels
    seconds: float = 0.0  # this candidate's share of the population's time

    def __len__(self) -> int:
        return len(self.train_loss)

    def at(self, epoch: int) -> EpochMetrics:
        """The metrics of an epoch, counted from 1."""
        place = epoch - 1
        return EpochMetrics(
            epoch,
            self.train_loss[place],
            self.train_accuracy[place],
            self.validation_accuracy[place],
            self.validation_score[place],
            self.test_accuracy[place] if self.test_accuracy else None,
            self.label_precision[place] if self.label_precision else None,
        )


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


def trial_value(validation_score: list[float], epochs: int) -> float:
    """Mean validation score over the last tenth of the epochs (at least one).

    >>> trial_value([0.1] * 18 + [0.8, 0.9], 20)
    0.85
    """
    return float(np.mean(validation_score[-max(1, epochs // 10) :]).round(12))
