"""K candidates in training, their networks and optimiser stacked."""

from __future__ import annotations

import ctypes
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from keeprate.engine.best import BestEpoch
from keeprate.engine.candidates import Candidate, fingerprint
from keeprate.engine.curves import Curves, EpochMetrics
from keeprate.engine.folds import Folds
from keeprate.engine.methods import Method
from keeprate.engine.networks import Networks, build_networks
from keeprate.engine.optimizers import make_optimizer
from keeprate.engine.setup import Setup
from keeprate.errors import invalid
from keeprate.mapped import new_tensor
from keeprate.seeding import derive_seed


@dataclass
class Population:
    """K candidates in training: all that a checkpoint must hold.

    Attributes
    ----------
    candidates : list of K Candidate
        Those that still train.
    keep_rates : Tensor [K, T], float32
        On the device.
    networks : Networks
        K x R.
    optimizer : torch.optim.Optimizer
    curves : dict of int to Curves
        By number, also of candidates that were dropped.
    fingerprint : str
        Hash of all numbers and schedules; a checkpoint with another one is not this population's.
    epoch : int
        Epochs done.
    failed : list of int
        Numbers of the candidates whose loss was no longer finite.
    log_probability : Tensor [n_tracked, n_train, C] or None
        For the first candidates: the log-probabilities of each training sample, summed over the
        later half of the epochs; the mean over the peers.
    times_seen : Tensor [n_train] or None
        How many terms each of these sums has.
    transition_matrix : Tensor [K, C, C] or None
        By which the loss is corrected, if it is.
    folds : Folds or None
        What each network learns from, where peers leave out folds.
    best : BestEpoch or None
        The weights of the best epoch so far, where these are to be kept.
    epochs_ahead : int
        Epochs beyond `epoch` that the networks have trained, on a GPU, while the host enters what
        `epoch` has measured. Only where it is 0 do the networks belong to `epoch`.
    """

    candidates: list[Candidate]
    keep_rates: Tensor
    networks: Networks
    optimizer: Optimizer
    curves: dict[int, Curves]
    fingerprint: str = ""
    epoch: int = 0
    failed: list[int] = field(default_factory=list)
    log_probability: Tensor | None = None
    times_seen: Tensor | None = None
    transition_matrix: Tensor | None = None
    folds: Folds | None = None
    best: BestEpoch | None = None
    epochs_ahead: int = 0

    @property
    def numbers(self) -> list[int]:
        """The numbers of the candidates that still train."""
        return [candidate.number for candidate in self.candidates]

    @property
    def methods(self) -> list[Method]:
        """The methods of the candidates that still train."""
        return [candidate.method for candidate in self.candidates]

    def finish_epoch(self, metrics: Mapping[int, EpochMetrics], seconds: float) -> None:
        """Enter what an epoch has measured, and drop the candidates whose loss is not finite.

        Parameters
        ----------
        metrics : mapping of int to EpochMetrics
            By number: of each candidate that still trains, and perhaps of others.
        seconds : float
            Time of the whole population, of which each candidate gets an equal share.
        """
        share = seconds / len(self.candidates)
        for number in self.numbers:
            curves, measured = self.curves[number], metrics[number]
            curves.seconds += share
            if math.isfinite(measured.train_loss):
                curves.append(measured)
            else:
                self.failed.append(number)
        self.drop(self.failed)
        self.epoch += 1

    def drop(self, numbers: Sequence[int]) -> None:
        """Stop some candidates and free their memory."""
        dropped = set(numbers)
        rows = [i for i, number in enumerate(self.numbers) if number not in dropped]
        if len(rows) == len(self.candidates):
            return
        self.keep_rates = self.keep_rates[rows]
        if self.transition_matrix is not None:
            self.transition_matrix = self.transition_matrix[rows]
        if self.folds is not None:
            self.folds = self.folds.keep(rows)
        if self.log_probability is not None:
            n_tracked = len(self.log_probability)  # the first candidates
            self.log_probability = self.log_probability[[i for i in rows if i < n_tracked]]
        if self.best is not None:
            self.best.keep(rows, self.networks)
        self.networks.keep(rows, self.optimizer)
        self.candidates = [self.candidates[i] for i in rows]


def new_population(
    candidates: Sequence[Candidate],
    setup: Setup,
    *,
    stream: str,
    n_tracked: int = 0,
    stacked: bool | None = None,
) -> Population:
    """Fresh networks for each candidate, from (seed, stream, number) alone.

    Parameters
    ----------
    candidates : sequence of K Candidate
        Their methods have the same number of networks, and all correct the loss or none.
    setup : Setup
    stream : str
        Separates uses of one seed ("search", "final").
    n_tracked : int
        For how many candidates, from the first on, `Population.log_probability` is kept.
    stacked : bool, optional
        As in `build_networks`.

    Raises
    ------
    InputError
        If a schedule has another number of epochs than the training.
    """
    data, config = setup.data, setup.config
    device = config.resolve_device()
    for candidate in candidates:
        if len(candidate.schedule) != config.epochs:
            raise invalid(
                "schedule",
                f"have a keep rate for each of the {config.epochs} epochs",
                len(candidate.schedule),
                "stretch the schedule",
            )
    keep_rates = np.stack([candidate.schedule.keep_rate for candidate in candidates])
    numbers = [candidate.number for candidate in candidates]
    _keep_freed_memory()
    networks = build_networks(
        setup.build,
        [derive_seed(setup.seed, stream, number) for number in numbers],
        n_peers=candidates[0].method.n_networks,
        probe=setup.normaliser(data.train.inputs[:4].to(device)),
        device=device,
        autocast=config.autocast(device),
        stacked=stacked,
    )
    n_tracked, log_probability, times_seen = min(n_tracked, len(numbers)), None, None
    if n_tracked > 0:
        log_probability = new_tensor((n_tracked, len(data.train), data.n_classes)).to(device)
        times_seen = torch.zeros(len(data.train), device=device)
    supervisions = [one.supervision for one in candidates if one.supervision is not None]
    folds = Folds.of(supervisions, data.n_classes, device) if supervisions else None
    keeps_best = config.keep == "best" and folds is None
    return Population(
        candidates=list(candidates),
        keep_rates=torch.tensor(keep_rates, dtype=torch.float32, device=device),
        networks=networks,
        optimizer=make_optimizer(networks.parameters(), config),
        curves={number: Curves() for number in numbers},
        fingerprint=fingerprint(candidates),
        log_probability=log_probability,
        times_seen=times_seen,
        folds=folds,
        best=BestEpoch(networks) if keeps_best else None,
    )


def _keep_freed_memory() -> None:
    """Let glibc keep large freed blocks, or each step's gradients are mapped and zeroed anew."""
    if sys.platform != "linux":
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return  # another C library: nothing is lost but a little speed
    mmap_threshold, trim_threshold = -3, -1
    if mallopt(mmap_threshold, 2**31 - 1):  # old versions refuse such a size
        mallopt(trim_threshold, 2**31 - 1)
