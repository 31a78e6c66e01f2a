"""What an epoch measures, summed on the device as its steps go by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from keeprate.data import Split
from keeprate.engine.curves import EpochMetrics
from keeprate.engine.evaluation import Scores
from keeprate.engine.population import Population
from keeprate.engine.selection import predicted_classes
from keeprate.noise import count_pairs, determinant_score

AT_ONCE, MOST_AT_ONCE = 2**16, 32
"""Steps wait until they have so many logits together, at most 32 steps: in a small batch an
operation costs what it costs to start it."""
AXES = (0, 0, 2, 2, 2)  # of the samples, in what a step gives


class EpochMeter:
    """Sums over the steps of an epoch; the host waits for none of them before the end.

    The sums stay where they are in memory, so that a CUDA graph can add to them.

    Parameters
    ----------
    population : Population
    train : Split
        On the device of the population.
    batch_size : int
        B.
    tracks : bool
        Whether to add the epochs to the population's log-probabilities, if it keeps any.
    """

    def __init__(
        self, population: Population, train: Split, batch_size: int, *, tracks: bool
    ) -> None:
        self._numbers, device = population.numbers, population.keep_rates.device
        n_candidates = len(self._numbers)
        # [n_train], whether each label is right, if that is known.
        self._is_right = None if train.true_labels is None else train.true_labels == train.labels
        self._log_probability = population.log_probability if tracks else None
        self._times_seen = population.times_seen
        self._folds = population.folds
        self._pairs: Tensor | None = None  # [K, C, C]: predictions and labels held out
        if self._folds is not None:
            n_classes = self._folds.targets.shape[-1]
            shape = (n_candidates, n_classes, n_classes)
            self._pairs = torch.zeros(shape, dtype=torch.float64, device=device)
        # [K, R, B] each: sums over the steps alone, in a small batch the cheapest.
        shape = (n_candidates, population.networks.n_peers, batch_size)
        self._loss = torch.zeros(shape, device=device)
        self._n_right = torch.zeros_like(self._loss)
        self._n_kept = torch.zeros_like(self._loss)
        self._n_kept_right = torch.zeros_like(self._loss)
        self._waiting: list[tuple[Tensor, ...]] = []

    def reset(self) -> None:
        """Begin an epoch."""
        self._waiting.clear()
        sums = (self._loss, self._n_right, self._n_kept, self._n_kept_right, self._pairs)
        for total in sums:
            if total is not None:
                total.zero_()

    def add(
        self, index: Tensor, labels: Tensor, losses: Tensor, weights: Tensor, logits: Tensor
    ) -> None:
        """Add a step, or let it wait until several are added up at once.

        No sample of an epoch comes twice.

        Parameters
        ----------
        index : int64 Tensor [B]
            Which training samples the batch holds.
        labels : int64 Tensor [B]
        losses, weights, logits : Tensor
            What `train_step` returns.
        """
        self._waiting.append((index, labels, losses, weights, logits))
        if len(self._waiting) >= min(AT_ONCE // logits.numel(), MOST_AT_ONCE):
            self.add_up()

    def add_up(self) -> None:
        """Add up the steps that wait for others, as one step of a longer batch."""
        steps, self._waiting = self._waiting, []
        if len(steps) == 1:
            self._add(*steps[0])
        elif steps:
            columns = zip(*steps, strict=True)
            self._add(*(torch.cat(c, axis) for c, axis in zip(columns, AXES, strict=True)))

    def _add(
        self, index: Tensor, labels: Tensor, losses: Tensor, weights: Tensor, logits: Tensor
    ) -> None:
        held_out: Tensor | None = None
        if self._folds is not None and self._pairs is not None:
            held_out = self._folds.held_out(logits, index)
            predicted, judged = predicted_classes(held_out), self._folds.judged[index]
            self._pairs += count_pairs(predicted, labels, logits.shape[-1], judged)
        self._loss += self._over_steps(losses)
        self._n_right += self._over_steps(predicted_classes(logits) == labels)
        if self._is_right is not None:
            is_kept = weights > 0
            self._n_kept += self._over_steps(is_kept)
            self._n_kept_right += self._over_steps(is_kept & self._is_right[index])
        if self._log_probability is not None and self._times_seen is not None:
            tracked = logits[: len(self._log_probability)]
            if held_out is not None:
                tracked = held_out[: len(self._log_probability), None]
            self._log_probability[:, index] += tracked.float().log_softmax(-1).mean(1)
            self._times_seen[index] += 1

    def _over_steps(self, values: Tensor) -> Tensor:
        """Sums [K, R, B] over the steps that values [K, R, S B] are of."""
        batch_size = self._loss.shape[-1]
        if values.shape[-1] == batch_size:
            return values
        return values.reshape(*values.shape[:2], -1, batch_size).sum(2)

    def held_out_scores(self, criterion: str) -> Scores | None:
        """Scores [K, 1] of the epoch's predictions of judged samples; None without folds.

        The network that leaves a sample out predicts it along with the batch, before the step.
        """
        if self._pairs is None:
            return None
        accuracy = self._pairs.diagonal(dim1=-2, dim2=-1).sum(-1) / self._pairs.sum((-2, -1))
        score = determinant_score(self._pairs) if criterion == "determinant" else accuracy
        return Scores(accuracy[:, None].float(), score[:, None].float())

    def measured(
        self,
        epoch: int,
        n_steps: int,
        validation: Scores,
        test: Scores | None,
        *,
        has_scorer: bool = False,
    ) -> Measured:
        """What the epoch has measured of each candidate, the mean over its peers.

        Parameters
        ----------
        epoch : int
            Counted from 1.
        n_steps : int
            Of the epoch.
        validation, test : Scores
        has_scorer : bool
            Whether a scorer has scored the test split, too.
        """
        columns = {
            "train_loss": self._loss.mean((1, 2), dtype=torch.float64) / n_steps,
            "train_accuracy": self._n_right.mean((1, 2), dtype=torch.float64) / n_steps,
            "validation_accuracy": validation.accuracy.mean(1),
            "validation_score": validation.score.mean(1),
        }
        if test is not None:
            columns["test_accuracy"] = test.accuracy.mean(1)
            if has_scorer:
                columns["test_score"] = test.score.mean(1)
        if self._is_right is not None:
            sums = (self._n_kept_right, self._n_kept)
            n_kept_right, n_kept = (one.sum((1, 2), dtype=torch.float64) for one in sums)
            columns["label_precision"] = n_kept_right / n_kept.clamp_min(1)
        values = torch.stack([column.double() for column in columns.values()], 1)
        arrived = None
        if values.is_cuda:
            on_host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            values = on_host.copy_(values, non_blocking=True)
            arrived = torch.cuda.Event()
            arrived.record()
        return Measured(epoch, self._numbers, tuple(columns), values, arrived)


@dataclass(frozen=True, eq=False)
class Measured:
    """What an epoch has measured, perhaps still on its way from a GPU.

    Attributes
    ----------
    epoch : int
        Counted from 1.
    numbers : sequence of K int
        Of the candidates.
    names : tuple of M str
        Attributes of `EpochMetrics`.
    values : float64 Tensor [K, M]
        On the CPU.
    arrived : torch.cuda.Event or None
        After which the values are there; None: they are.
    """

    epoch: int
    numbers: Sequence[int]
    names: tuple[str, ...]
    values: Tensor
    arrived: torch.cuda.Event | None

    def read(self) -> dict[int, EpochMetrics]:
        """The metrics of each candidate, by number; waits for the device to have them."""
        if self.arrived is not None:
            self.arrived.synchronize()
        absent: dict[str, float | None] = dict.fromkeys(
            ("test_accuracy", "label_precision", "test_score")
        )
        rows = (absent | dict(zip(self.names, row, strict=True)) for row in self.values.tolist())
        return {
            number: EpochMetrics(epoch=self.epoch, **row)
            for number, row in zip(self.numbers, rows, strict=True)
        }
