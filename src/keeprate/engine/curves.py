"""What is measured of one candidate, epoch by epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

LARGEST_SCORE = 1e6
"""Scores by a metric lie between this and its negative: pages calculate with them."""


@dataclass(frozen=True)
class EpochMetrics:
    """What was measured of one candidate at the end of an epoch; the mean over its peers.

    Attributes
    ----------
    epoch : int
        Counted from 1.
    train_loss : float
        Mean over all samples of the epoch, selected or not.
    train_accuracy : float
        Against the labels as given. Accuracies and label precision lie in [0, 1].
    validation_accuracy : float
    validation_score : float
        By `Setup.criterion`; higher is better.
    test_accuracy : float or None
        None without a test split.
    label_precision : float or None
        The share of the kept samples whose label is right; None where true labels are unknown.
    test_score : float or None
        By `Setup.scorer`; None without one, or without a test split.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    validation_accuracy: float
    validation_score: float
    test_accuracy: float | None
    label_precision: float | None
    test_score: float | None = None


@dataclass
class Curves:
    """The metrics of one candidate, epoch by epoch; see `EpochMetrics`.

    Examples
    --------
    >>> curves = Curves()
    >>> curves.append(EpochMetrics(1, 2.3, 0.1, 0.2, 0.2, None, 0.55))
    >>> len(curves), curves.test_accuracy, curves.at(1).label_precision
    (1, [], 0.55)
    """

    train_loss: list[float] = field(default_factory=list)
    train_accuracy: list[float] = field(default_factory=list)
    validation_accuracy: list[float] = field(default_factory=list)
    validation_score: list[float] = field(default_factory=list)
    test_accuracy: list[float] = field(default_factory=list)  # empty without a test split
    label_precision: list[float] = field(default_factory=list)  # empty without true labels
    test_score: list[float] = field(default_factory=list)  # empty without scorer or test split
    seconds: float = 0.0  # this candidate's share of the population's time

    def __len__(self) -> int:
        return len(self.train_loss)

    def append(self, metrics: EpochMetrics) -> None:
        """Add the metrics of the next epoch."""
        self.train_loss.append(metrics.train_loss)
        self.train_accuracy.append(metrics.train_accuracy)
        self.validation_accuracy.append(metrics.validation_accuracy)
        self.validation_score.append(metrics.validation_score)
        if metrics.test_accuracy is not None:
            self.test_accuracy.append(metrics.test_accuracy)
        if metrics.label_precision is not None:
            self.label_precision.append(metrics.label_precision)
        if metrics.test_score is not None:
            self.test_score.append(metrics.test_score)

    def at(self, epoch: int) -> EpochMetrics:
        """The metrics of an epoch, counted from 1."""
        index = epoch - 1
        return EpochMetrics(
            epoch,
            self.train_loss[index],
            self.train_accuracy[index],
            self.validation_accuracy[index],
            self.validation_score[index],
            self.test_accuracy[index] if self.test_accuracy else None,
            self.label_precision[index] if self.label_precision else None,
            self.test_score[index] if self.test_score else None,
        )


def trial_value(validation_score: Sequence[float], epochs: int) -> float:
    """Mean validation score over the last tenth of the epochs (at least one).

    >>> trial_value([0.1] * 18 + [0.8, 0.9], 20)
    0.85
    """
    return float(np.mean(validation_score[-max(1, epochs // 10) :]).round(12))
