"""What several parts of a page ask of a record."""

from __future__ import annotations

import math
from collections.abc import Sequence

from keeprate.records import Result, RunRecord, TrialSummary

MOST_TRIALS_SHOWN = 200  # of a search, in a picture
SEARCHED = "searched"  # the name of the run's own result after a search


def has_test_accuracy(record: RunRecord) -> bool:
    """Whether the results were measured on a test split."""
    return any(result.curves.test_accuracy for result in record.results)


def validation_name(record: RunRecord) -> str:
    """What validation scores are called: "validation accuracy", or by the metric of the run."""
    criterion = record.data.criterion
    return f"validation {'accuracy' if criterion == 'determinant' else criterion}"


def has_metric(record: RunRecord) -> bool:
    """Whether something else than the validation samples scored the networks."""
    return "metric" in record.config


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
