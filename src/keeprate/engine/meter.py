"""What an epoch measures, summed on the device step by step."""

from __future__ import annotations

import torch
from torch import Tensor

from keeprate.data import Split
from keeprate.engine.curves import EpochMetrics
from keeprate.engine.evaluation import Scores
from keeprate.engine.population import Population
from keeprate.noise import count_pairs, determinant_score


class EpochMeter:
    """Sums over the steps of an epoch; the host waits for none of them before the end.

    Parameters
    ----------
    population : Population
    train : Split
        On the device of the population.
    tracks : bool
        Whether to add this epoch to the population's log-probabilities, if it keeps any.
    """

    def __init__(self, population: Population, train: Split, *, tracks: bool) -> None:
        n_candidates, device = len(population.candidates), population.keep_rates.device
        self._epoch = population.epoch + 1
        # [n_train], whether each label is right, if that is known.
        self._is_right = None if train.true_labels is None else train.true_labels == train.labels
        self._log_probability = population.log_probability if tracks else None
        self._times_seen = population.times_seen
        self._folds = population.folds
        self._pairs: Tensor | None = None  # [K, C, C]: predictions and labels held out
        self._n_steps = 0
        self._loss = torch.zeros(n_candidates, device=device)  # sum of the means over the batch
        self._accuracy = torch.zeros_like(self._loss)  # likewise
        self._n_kept = torch.zeros(n_candidates, dtype=torch.float64, device=device)
        self._n_kept_right = torch.zeros_like(self._n_kept)

    def add(
        self, index: Tensor, labels: Tensor, losses: Tensor, weights: Tensor, logits: Tensor
    ) -> None:
        """Add a step.

        Parameters
        ----------
        index : int64 Tensor [B]
            Which training samples the batch holds.
        labels : int64 Tensor [B]
        losses, weights, logits : Tensor
            What `train_step` returns.
        """
        self._n_steps += 1
        held_out: Tensor | None = None
        if self._folds is not None:
            held_out = self._folds.held_out(logits, index)
            judged = self._folds.judged[index]
            pairs = count_pairs(held_out[:, judged].argmax(-1), labels[judged], logits.shape[-1])
            self._pairs = pairs if self._pairs is None else self._pairs + pairs
        self._loss += losses.mean((1, 2))
        self._accuracy += (logits.argmax(-1) == labels).float().mean((1, 2))
        if self._is_right is not None:
            is_kept = weights > 0
            self._n_kept += is_kept.sum((1, 2))
            self._n_kept_right += (is_kept & self._is_right[index]).sum((1, 2))
        if self._log_probability is not None and self._times_seen is not None:
            tracked = logits[: len(self._log_probability)]
            if held_out is not None:
                tracked = held_out[: len(self._log_probability), None]
            self._log_probability[:, index] += tracked.float().log_softmax(-1).mean(1)
            self._times_seen[index] += 1

    def held_out_scores(self, criterion: str) -> Scores | None:
        """Scores [K, 1] of the epoch's predictions of judged samples; None without folds.

        The network that leaves a sample out predicts it along with the batch, before the step.
        """
        if self._pairs is None:
            return None
        accuracy = self._pairs.diagonal(dim1=-2, dim2=-1).sum(-1) / self._pairs.sum((-2, -1))
        score = determinant_score(self._pairs) if criterion == "determinant" else accuracy
        return Scores(accuracy[:, None].float(), score[:, None].float())

    def metrics(self, validation: Scores, test: Scores | None) -> list[EpochMetrics]:
        """The metrics of each candidate, the mean over its peers."""
        train_loss, train_accuracy = (
            (total / self._n_steps).tolist() for total in (self._loss, self._accuracy)
        )
        validation_accuracy = validation.accuracy.mean(1).tolist()
        validation_score = validation.score.mean(1).tolist()
        nothing = [None] * len(train_loss)
        test_accuracy = nothing if test is None else test.accuracy.mean(1).tolist()
        precision = nothing
        if self._is_right is not None:
            precision = (self._n_kept_right / self._n_kept.clamp_min(1)).tolist()
        columns = (
            train_loss,
            train_accuracy,
            validation_accuracy,
            validation_score,
            test_accuracy,
            precision,
        )
        return [EpochMetrics(self._epoch, *row) for row in zip(*columns, strict=True)]
