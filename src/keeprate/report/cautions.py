"""What a run's numbers are not worth: sentences that follow from its finished record."""

from __future__ import annotations

import math
from collections.abc import Callable

from keeprate.data import LEAST_OF_A_CLASS, LEAST_REVIEWED, REVIEWED_WORDS
from keeprate.records import FINGERPRINT, RunRecord
from keeprate.report.facts import main_measure, on_validation
from keeprate.report.words import unclear_difference_in_words
from keeprate.text import listed, percent, score_as_text

LEAST_STEPS = 200
"""Of the optimiser. On scikit-learn's digits and breast cancer, 80 steps of the default batch size
end two to five points below the best accuracy, 160 at most one and a half. Harder data need
more."""
LARGEST_ERROR = 0.025  # standard error of an accuracy by which something is chosen
FEW_OF_A_CLASS = 10  # training samples
WIDEST_INTERVAL = 0.2  # of the share of wrong labels
MOST_OF_ALL = 0.8  # of the samples are of one class: the others are rare
FEW_THAT_SCORE = 50  # samples of a class on which a metric depends


def find_cautions(record: RunRecord) -> tuple[str, ...]:
    """Say what a reader of a finished run should be careful with, and what to do about it.

    Parameters
    ----------
    record : RunRecord
        With results.

    Returns
    -------
    tuple of str
        A caution each, the gravest first; empty where nothing is wrong.
    """
    return tuple(filter(None, (rule(record) for rule in RULES)))


def learnt_nothing(record: RunRecord) -> str:
    """Warn of networks that are no better than always naming the most frequent class."""
    if record.has_scorer:
        return _scores_no_more(record)
    counts = _validation_counts(record)
    # Weights may trade the most frequent class for others: a lower accuracy is meant.
    if not sum(counts) or _is_weighted(record) or record.has_own_metric:
        return ""
    accuracy, share = record.results[0].last.validation_accuracy, max(counts) / sum(counts)
    if accuracy > share + standard_error(accuracy, sum(counts)):
        return ""
    name = listed([record.data.class_names[counts.index(max(counts))]])
    noisy = "noisy " if record.data.criterion == "determinant" else ""
    rare = " Accuracy says little of rare classes: try --metric balanced_accuracy."
    rare = rare if share >= MOST_OF_ALL and not noisy else ""  # noisy labels allow no metric
    return (
        f"Always naming {name} is right for {percent(share)} of the {noisy}validation labels, and "
        f"the networks for {percent(accuracy)}: they may have learnt nothing. Check that inputs "
        f"and labels belong together, or train longer.{rare}"
    )


def _scores_no_more(record: RunRecord) -> str:
    """The same by the metric of the run, on the samples that its table is of."""
    found, measure = record.by_class, main_measure(record)
    if found is None or found.majority_score is None:
        return ""
    if measure.last(record.results[0]) > found.majority_score:
        return ""
    name = listed([record.data.class_names[found.majority]])
    score = score_as_text(found.majority_score, measure.criterion)
    return (
        f"Always naming {name} has a {measure.name} of {score}, and the networks have "
        f"{measure.as_text(record.results[0])}: they may have learnt nothing. Check that inputs "
        "and labels belong together, or train longer."
    )


def few_steps(record: RunRecord) -> str:
    """Warn of networks that took too few steps of the optimiser to have learnt much."""
    training = record.config["training"]
    n_train = record.data.n_train + record.data.n_validation * _is_cross_fitted(record)
    # Earlier stages of cross-fitting have fewer epochs, in a ratio that is meant.
    n_batches, epochs = n_train // training["batch_size"], training["epochs"]
    if n_batches * epochs >= LEAST_STEPS:
        return ""
    return (
        f"Training took only {_number(n_batches * epochs, 'optimisation step')} "
        f"({_number(epochs, 'epoch')} of {_number(n_batches, 'batch', 'es')}), and the networks "
        f"may be undertrained. Give at least {math.ceil(LEAST_STEPS / n_batches):,} epochs or a "
        "smaller batch size."
    )


def few_validation_samples(record: RunRecord) -> str:
    """Warn of a choice by so few samples that chance has much say in it."""
    own, n = record.results[0], sum(record.data.validation_counts)
    if record.has_own_metric:
        return ""  # the validation samples chose nothing
    if record.kind == "search":
        chosen = "schedule"
    elif _is_cross_fitted(record) and record.data.criterion == "determinant":
        return ""  # all samples chose a keep rate
    elif _is_cross_fitted(record) or len(own.restarts) > 1:
        chosen = "training"
    else:
        return ""  # nothing was chosen
    if record.has_scorer and (caution := _few_that_score(record, chosen)):
        return caution
    accuracy = own.last.validation_accuracy
    if not n or (error := standard_error(accuracy, n)) <= LARGEST_ERROR:
        return ""
    noisy = " with noisy labels" if record.data.criterion == "determinant" else ""
    return (
        f"The {chosen} was chosen by {_number(n, 'validation sample')}{noisy}, and chance moves an "
        f"accuracy of {percent(accuracy)} there by {100 * error:.1f} points (standard error). Hold "
        "out more samples for validation."
    )


def _few_that_score(record: RunRecord, chosen: str) -> str:
    """The same for a metric, which may depend on a rare class."""
    data = record.data
    counts = dict(zip(data.class_names, data.validation_counts, strict=False))
    n, least = sum(counts.values()), min(counts.values(), default=FEW_THAT_SCORE)
    if least >= FEW_THAT_SCORE or least >= n / len(counts) / 2:  # half as many as of others
        return ""
    rarest = min(counts, key=counts.__getitem__)
    return (
        f"The {chosen} was chosen by the {on_validation(record).name} of "
        f"{n:,} samples. Only {counts[rarest]:,} of them have the label "
        f"{listed([rarest])}, and chance has much say in it. Hold out more samples."
    )


def small_classes(record: RunRecord) -> str:
    """Name the classes that have few training samples."""
    data = record.data
    counts = _sums(data.class_counts, data.validation_counts if _is_cross_fitted(record) else ())
    few = sorted(
        (n, name) for name, n in zip(data.class_names, counts, strict=False) if n < FEW_OF_A_CLASS
    )
    if not few:
        return ""
    return (
        f"Classes with fewer than {FEW_OF_A_CLASS} training samples: "
        f"{listed([f'{name} ({n})' for n, name in few])}. Networks learn little of them. Add "
        "samples, merge these classes or leave them out."
    )


def uncertain_noise_rate(record: RunRecord) -> str:
    """Warn of a share of wrong labels that could as well be another one."""
    estimate = record.noise_estimate
    if estimate is None or estimate.low is None or estimate.high is None:
        return ""
    known = estimate.by_clean_labels
    surely = estimate.low if known else estimate.noise_rate  # nothing bounds it from below
    if estimate.high - surely <= (WIDEST_INTERVAL if known else WIDEST_INTERVAL / 2):
        return ""
    helps = (
        "Networks that are right more often would say it more closely"
        if known
        else "Some clean labels, as a validation set, would say more"
    )
    bounds = f"at most {percent(estimate.high)}"
    if known:
        bounds = f"between {percent(estimate.low)} and {percent(estimate.high)}"
    return (
        f"How many labels are wrong is uncertain: {bounds}, as model errors and wrong labels look "
        f"alike. {helps}."
    )


def reviewed_samples(record: RunRecord) -> str:
    """Warn of validation samples that people chose, as they looked wrong, or that are too few."""
    if REVIEWED_WORDS not in record.data.validation_from:
        return ""
    if record.data.validation_labels == "noisy":
        return (
            "The reviewed labels validate nothing: too few were kept or changed. The validation "
            f"labels are noisy ones, therefore. Review at least {LEAST_REVIEWED} labels, with "
            f"{LEAST_OF_A_CLASS} of each class."
        )
    return (
        "Reviewed labels validate. These samples looked wrong, so they are harder than others: "
        "the accuracy on validation samples says less of new data than a test set does."
    )


RULES: tuple[Callable[[RunRecord], str], ...] = (
    learnt_nothing,
    few_steps,
    few_validation_samples,
    small_classes,
    uncertain_noise_rate,
    reviewed_samples,
    unclear_difference_in_words,
)
"""The gravest first. Each gives a sentence or two, or nothing where all is well."""


def standard_error(accuracy: float, n: int) -> float:
    """The standard error of an accuracy of n samples, sqrt(p (1 - p) / n).

    Two samples more are counted as right and two as wrong (Agresti & Coull 1998): three right
    answers of three are not certainty.

    Parameters
    ----------
    accuracy : float
        In [0, 1].
    n : int

    Returns
    -------
    float
        In [0, 0.25].

    Examples
    --------
    >>> round(standard_error(0.9, 1_000), 4), round(standard_error(1.0, 3), 2)
    (0.0095, 0.17)
    """
    p = (accuracy * n + 2) / (n + 4)
    return math.sqrt(p * (1 - p) / (n + 4))


def _is_cross_fitted(record: RunRecord) -> bool:
    """Whether the validation samples train, too."""
    return bool(record.results[0].method == "auto")


def _is_weighted(record: RunRecord) -> bool:
    """Whether some training samples counted more than others in the loss."""
    of_classes = record.config["training"]["class_weight"] is not None
    return of_classes or "training weights" in record.config[FINGERPRINT]


def _validation_counts(record: RunRecord) -> tuple[int, ...]:
    """How many of the samples that validate have each label; empty for earlier records."""
    data = record.data
    if _is_cross_fitted(record) and data.criterion == "determinant":
        return _sums(data.class_counts, data.validation_counts)
    return data.validation_counts


def _sums(first: tuple[int, ...], second: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(map(sum, zip(first, second, strict=True))) if second else first


def _number(n: int, noun: str, plural: str = "s") -> str:
    return f"{n:,} {noun}{plural if n != 1 else ''}"
