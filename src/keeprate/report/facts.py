"""What several parts of a page ask of a record."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from keeprate.records import Result, RunRecord, TrialSummary
from keeprate.text import UNKNOWN, listed, score_as_text

MOST_TRIALS_SHOWN = 200  # of a search, in a picture
SEARCHED = "searched"  # the name of the run's own result after a search


@dataclass(frozen=True)
class Measure:
    """What the results of a run are told by.

    Attributes
    ----------
    name : str
        "test accuracy", say.
    criterion : str
        "accuracy", or the name of a metric.
    curve : callable
        From a result to its values, one an epoch; empty where nothing was measured.
    """

    name: str
    criterion: str
    curve: Callable[[Result], Sequence[float]]

    def last(self, result: Result) -> float:
        """The value at the last epoch; without one, less than all others."""
        values = self.curve(result)
        return values[-1] if values else -math.inf

    def as_text(self, result: Result, epoch: int = 0, places: int = 1) -> str:
        """The value at an epoch, from 1 on; left out, at the last one. A dash if there is none."""
        values = self.curve(result)
        return score_as_text(values[epoch - 1], self.criterion, places) if values else UNKNOWN


def accuracy_measure(record: RunRecord) -> Measure:
    """The accuracy on the test samples, or without them on the validation samples."""
    if has_test_accuracy(record):
        return Measure("test accuracy", "accuracy", lambda result: result.curves.test_accuracy)
    name = "validation accuracy"
    return Measure(name, "accuracy", lambda result: result.curves.validation_accuracy)


def on_test(record: RunRecord) -> Measure:
    """What results are told by on the test samples: the scorer's score if there is one."""
    if not record.has_scorer:
        return accuracy_measure(record)
    criterion = record.data.criterion
    return Measure(f"test {criterion}", criterion, lambda result: result.curves.test_score)


def on_validation(record: RunRecord) -> Measure:
    """What results are told by on the validation samples, or by the metric in their place."""
    criterion = record.data.criterion
    if record.has_scorer:
        name = f"validation {criterion}"
        return Measure(name, criterion, lambda result: result.curves.validation_score)
    criterion = "accuracy" if criterion == "determinant" else criterion
    name = f"validation {criterion}"
    return Measure(name, criterion, lambda result: result.curves.validation_accuracy)


def main_measure(record: RunRecord) -> Measure:
    """What results are compared by: on the test samples, or without them on the validation ones."""
    return on_test(record) if has_test_accuracy(record) else on_validation(record)


def majority_name(record: RunRecord) -> str:
    """Whoever always names the class of most training labels; empty for unfinished runs."""
    found = record.by_class
    return "" if found is None else f"always {listed([record.data.class_names[found.majority]])!r}"


def positive_class(record: RunRecord) -> str:
    """Of two classes the one that the scorer looks for; empty without one."""
    positive = record.config["metric"].get("positive") if record.has_scorer else None
    return "" if positive is None else str(positive)


def has_test_accuracy(record: RunRecord) -> bool:
    """Whether the results were measured on a test split."""
    return any(result.curves.test_accuracy for result in record.results)


def has_label_precision(record: RunRecord) -> bool:
    """Whether the results say how many of the kept labels are right."""
    return any(result.curves.label_precision for result in record.results)


def last_accuracy(result: Result) -> float:
    """The accuracy at the last epoch: on the test samples, or without them on the validation ones.

    Returns
    -------
    float
        In [0, 1].
    """
    test, validation = result.last.test_accuracy, result.last.validation_accuracy
    return validation if test is None else test


def best_trial(trials: Sequence[TrialSummary]) -> TrialSummary | None:
    """The complete trial with the highest value; None if no trial is complete."""
    values = {
        place: trial.value
        for place, trial in enumerate(trials)
        if trial.state == "complete" and trial.value is not None
    }
    return trials[max(values, key=values.__getitem__)] if values else None


def differ_clearly(first: float, second: float, n_samples: int) -> bool:
    """Whether two accuracies are more than two standard errors of their difference apart.

    An accuracy a of n samples has the variance a (1 - a) / n. The two variances add up as if the
    accuracies came from different samples. Accuracies of the same samples rise and fall together,
    and their difference varies less: the answer errs towards "no".

    Parameters
    ----------
    first, second : float
        Accuracies in [0, 1].
    n_samples : int
        At least 1.

    Examples
    --------
    >>> differ_clearly(0.97, 0.95, 360), differ_clearly(0.97, 0.95, 10_000)
    (False, True)
    """
    variance = (first * (1 - first) + second * (1 - second)) / n_samples
    return abs(first - second) > 2 * math.sqrt(variance)
