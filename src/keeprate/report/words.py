"""The sentences of a page. They are plain text; `page` and `tables` escape them."""

from __future__ import annotations

from collections.abc import Sequence

from keeprate.engine import score_in_words
from keeprate.noise import NoiseEstimate
from keeprate.records import SURE, Cost, Result, RunRecord, VerificationRecord
from keeprate.report.facts import (
    MOST_TRIALS_SHOWN,
    SEARCHED,
    best_trial,
    differ_clearly,
    has_test_accuracy,
    last_accuracy,
    main_measure,
    majority_name,
    positive_class,
)
from keeprate.text import duration, grouped, is_share, listed, percent
from keeprate.verification import TrueAccepts, Verification

BEST_EPOCH = "best epoch on the test set, an optimistic number that the literature often reports"
PRECISION = (
    "Label precision is the share of the kept samples whose given label is right. The true labels "
    "of the training samples are used to measure, never to train or to choose."
)
_MOST_RIVALS = 2  # in the finding
_ORDINALS = ("best", "second best", "third best")
_STATES = {"pruned": "stopped early", "short": "trained in fewer epochs"}


# The head of a page


def title(record: RunRecord) -> str:
    """Name the run."""
    made = "A searched keep-rate schedule" if record.kind == "search" else "Training"
    return f"{made} on {record.data.name}"


def source_in_words(record: RunRecord) -> str:
    """The data set and the noise that was injected."""
    data = record.data
    return data.name if data.noise == "none" else f"{data.name}, {data.noise}"


def data_in_words(record: RunRecord) -> str:
    """Samples and classes, and what is known of the labels."""
    data = record.data
    facts = [
        f"{data.n_train:,} training samples",
        f"{data.n_validation:,} validation samples",
        f"{data.n_test:,} test samples" if data.n_test else "no test samples",
        f"{len(data.class_names):,} classes",
    ]
    if data.noise_rate is not None:
        facts.append(f"{percent(data.noise_rate)} of the training labels wrong")
    if data.validation_labels != "unknown":
        facts.append(f"{data.validation_labels} validation labels")
    if positive := positive_class(record):
        facts.append(f"positive class: {positive}")
    return ", ".join(facts)


def reading_in_words(record: RunRecord) -> list[str]:
    """What was read: labels, inputs by kind, columns that were left out, and notes."""
    data = record.data
    counts = sorted(zip(data.class_counts, data.class_names, strict=False), reverse=True)
    lines = [f"Training labels: {listed([f'{name} ({n:,})' for n, name in counts])}"] * bool(counts)
    inputs = [f"Inputs, {kind}: {listed(names)}" for kind, names in grouped(data.inputs).items()]
    others = [f"No input, {why}: {listed(names)}" for why, names in grouped(data.left_out).items()]
    notes = [note[:1].upper() + note[1:] for note in data.notes]
    return [*lines, *inputs, *others, *notes]


# The finding


def finding(record: RunRecord) -> str:
    """What came out: the run's own result beside the best others."""
    if not record.results:
        return _finding_so_far(record)
    own, *others = record.results
    rivals = _best_rivals(record)
    subject = "The searched schedule" if own.name == SEARCHED else own.label
    measure = main_measure(record)
    against = _join([f"{rival.label} at {measure.as_text(rival)}" for rival in rivals])
    if len(others) > len(rivals):
        against = f"the best of the {len(others)} others are {against}"
    sentences = [
        f"{subject} ends at {_end_in_words(record)}" + (f"; {against}." if against else ".")
    ]
    if has_test_accuracy(record):
        sentences += [
            unclear_difference_in_words(record),
            noisy_test_in_words(record),
        ]
    return " ".join(filter(None, sentences))


def _finding_so_far(record: RunRecord) -> str:
    if record.kind != "search":
        return "The training is not finished."
    best = best_trial(record.trials)
    if best is None or best.value is None:
        return "The search is not finished. No trial has finished yet."
    score = score_in_words(best.value, record.data.criterion)
    return f"The search is not finished. So far: {score}."


def _end_in_words(record: RunRecord) -> str:
    """What the run's own result ends at, and what that is."""
    own, measure = record.results[0], main_measure(record)
    value = measure.as_text(own)
    named = f"a {measure.name} of {value}"
    if is_share(measure.criterion):
        named = f"{value} {measure.name}"
    if has_test_accuracy(record):
        return named
    chose = " (which chose the schedule)" if own.name == SEARCHED else ""
    if record.has_own_metric or record.has_scorer:
        return f"{named}{chose}"
    is_noisy = record.data.criterion == "determinant"
    labels = "against the noisy labels of" if is_noisy else "on"
    return f"{value} accuracy {labels} the validation samples{chose}"


def _best_rivals(record: RunRecord) -> list[Result]:
    return sorted(record.results[1:], key=main_measure(record).last, reverse=True)[:_MOST_RIVALS]


def unclear_difference_in_words(record: RunRecord) -> str:
    """Name the best rivals whose test accuracy chance alone could set apart from the run's own."""
    n_test = record.data.n_test
    if not (record.results and has_test_accuracy(record) and n_test):
        return ""
    if record.has_scorer:  # of whose scores no standard error is known
        return ""
    accuracy = last_accuracy(record.results[0])
    alike = [
        rival.label
        for rival in _best_rivals(record)
        if not differ_clearly(accuracy, last_accuracy(rival), n_test)
    ]
    if not alike:
        return ""
    return (
        f"There is no clear difference from {_join(alike, 'or')}: with {n_test:,} test samples "
        "the accuracies differ by less than two standard errors."
    )


def noisy_test_in_words(record: RunRecord) -> str:
    """Warn of accuracy against noisy test labels; empty where nothing says that they are noisy."""
    data, estimate = record.data, record.noise_estimate
    noise_rate = 0.0 if estimate is None else estimate.noise_rate
    if data.test_labels != "noisy" or not data.n_test or not noise_rate:
        return ""
    return (
        "The test labels were cut from the same data and are as noisy as the training labels. At "
        f"the estimated noise rate, right predictions would reach about {percent(1 - noise_rate)} "
        "against the test labels."
    )


def cautions_in_words(record: RunRecord) -> list[str]:
    """The cautions of the record, but for what the finding says."""
    said = finding(record)
    return [caution for caution in record.cautions if caution not in said]


def _join(parts: Sequence[str], last_word: str = "and") -> str:
    return f" {last_word} ".join(parts)


# Captions


def schedules_in_words(record: RunRecord) -> str:
    """What R(t) is, and how many trials there are of each state."""
    words = "R(t) is the share of each mini-batch that is kept at epoch t."
    if not record.trials:
        return words
    states = [_STATES.get(trial.state, trial.state) for trial in record.trials]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    drawn = f" (a sample of {MOST_TRIALS_SHOWN})" if len(states) > MOST_TRIALS_SHOWN else ""
    n_again = sum(trial.confirms is not None for trial in record.trials)
    again = f" {n_again} trials trained the best schedules again." if n_again else ""
    added = f" {words_of_added}." if (words_of_added := added_in_words(record)) else ""
    return f"{words} Thin lines{drawn} are the schedules of the trials: {counts}.{again}{added}"


def added_in_words(record: RunRecord) -> str:
    """How many trials were added to the finished search; empty if none were."""
    n_added = sum(leg.trials for leg in record.added)
    if not n_added:
        return ""
    return f"{n_added} of the {len(record.trials)} trials were added to the finished search"


def curves_in_words(record: RunRecord) -> str:
    """What the marks on the learning curves are."""
    words = "Dots and numbers mark the last epoch."
    return f"{words} Rings mark the {BEST_EPOCH}." if has_test_accuracy(record) else words


def results_in_words(record: RunRecord) -> str:
    """How the lines of the results table came about."""
    sentences = [_restarts_in_words(record.results[0]), _kept_in_words(record)]
    if has_test_accuracy(record):
        sentences.append(f"Best epoch: the {BEST_EPOCH}.")
    if len(record.results) > 1:
        sentences.append("Time: trainings in lockstep have equal shares.")
    if record.has_scorer:
        sentences.append(f"A higher {record.data.criterion} is better.")
    sentences.append(_majority_in_words(record))
    return " ".join(filter(None, sentences))


def _kept_in_words(record: RunRecord) -> str:
    """Which epoch's weights the classifier has, if not those of the last one."""
    training, scores = record.config.get("training"), record.results[0].curves.validation_score
    if not isinstance(training, dict) or training.get("keep") != "best" or not scores:
        return ""
    epoch = 1 + scores.index(max(scores))
    return f"The classifier has the weights of epoch {epoch}, the best by validation."


def _restarts_in_words(own: Result) -> str:
    """How often each line was trained, and which of the run's own schedules won."""
    if len(own.restarts) < 2:
        return ""
    each = f"Each line is the best of {len(own.restarts)} trainings by validation."
    if own.finalist is None:
        return each
    if own.name != SEARCHED:
        winner = (
            "every sample kept" if own.schedule.name == "constant" else "R(t) by the noise rate"
        )
        return (
            f"{each} In the first line R(t) by the noise rate and every sample kept took turns; "
            f"{winner} won."
        )
    n_schedules = 1 + max(restart.schedule for restart in own.restarts)
    repeated = [restart.repeats for restart in own.restarts if restart.repeats is not None]
    which = f", first trial {repeated[0]} once more" if repeated else ""
    return (
        f"{each} In the searched line the {n_schedules} best schedules took turns{which}; the "
        f"{_ORDINALS[min(own.finalist, len(_ORDINALS) - 1)]} won."
    )


def by_class_in_words(record: RunRecord, n_shown: int) -> str:
    """What the table of the classes counts."""
    found = record.by_class
    if found is None:
        return ""
    labels = record.data.test_labels if found.split == "test" else record.data.validation_labels
    noisy = " with noisy labels" if labels == "noisy" else ""
    worst = ""
    if n_shown < len(found.samples):
        worst = f" The {n_shown} of {len(found.samples):,} classes with the lowest F1 are shown."
    return (
        f"{sum(found.samples):,} {found.split} samples{noisy}, {percent(found.accuracy)} of them "
        f"predicted right by the run's classifier.{worst}"
    )


def _majority_in_words(record: RunRecord) -> str:
    """Say what the line of the majority is, where the table has it."""
    if record.by_class is None:
        return ""
    name = majority_name(record)
    shares = " Its class probabilities are their shares." if record.has_scorer else ""
    return (
        f"{name[:1].upper()}{name[1:]} names the class of most training labels for every sample."
        f"{shares}"
    )


# Noise and labels


def noise_in_words(record: RunRecord) -> str:
    """The estimated noise rate, and the true one where that is known."""
    estimate, data = record.noise_estimate, record.data
    if estimate is None:
        return "The noise has not been estimated yet."
    text = f"{estimate.in_words()}, {_how_estimated(record, estimate)}."
    if data.noise_rate is not None:
        text += f" In truth {percent(data.noise_rate)} of the training labels are wrong."
    return text


def _how_estimated(record: RunRecord, estimate: NoiseEstimate) -> str:
    """What the estimate rests on, and what it cannot show."""
    if estimate.by_clean_labels:
        return "by predictions for held-out labels, noisy and clean ones"
    if record.data.criterion == "determinant" or record.has_own_metric:
        return (
            "by predictions for held-out labels. Wrong labels that follow from the inputs are not "
            "counted: only some clean labels could show them"
        )
    return "by the training labels, which the networks may have memorised"


def transition_errors_in_words(record: RunRecord) -> str:
    """The largest standard error of the transition matrix; empty if none is known."""
    estimate = record.noise_estimate
    if estimate is None or estimate.transition_matrix_std is None:
        return ""
    largest = float(estimate.transition_matrix_std.max(initial=0.0))
    return f"The standard errors of sampling are at most {percent(largest)}."


def issue_count_in_words(record: RunRecord) -> str:
    """How many labels look wrong."""
    if not record.labels_judged:
        return "The labels have not been judged yet."
    counts = f"{record.label_issues:,} of the {record.labels_judged:,} labels"
    return f"{counts} are more probably wrong than right."


def issues_in_words(record: RunRecord) -> str:
    """How many labels look wrong, and how many of them the page shows."""
    text = issue_count_in_words(record)
    if record.suspects:
        text += (
            f" The {len(record.suspects):,} most suspect are shown, some of each class. A class is "
            f"suggested only if it is at least {percent(SURE, 0)} probable, and without clean "
            "labels only if a second, more cautious estimate agrees."
        )
    return text


APPLYING = (
    "The browser keeps each decision, also when the page is closed. The data are written anew with "
    "all of them by"
)

# The foot of a page


def full_trainings(cost: Cost) -> str:
    """The cost of a search in full trainings, short."""
    number = cost.full_trainings
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def cost_in_words(record: RunRecord) -> str:
    """What the run has cost, and the versions of what it ran with."""
    cost, sentences = record.cost, []
    if cost.search_seconds:
        is_search = record.kind == "search"
        stage = "Search" if is_search else "First training, which estimated the noise rate"
        sentences.append(
            f"{stage}: {duration(cost.search_seconds)}, {cost.candidate_epochs:,} candidate "
            f"epochs, as many as {full_trainings(cost)} full trainings have."
        )
    if cost.final_seconds:
        stage = "Trainings after the search" if record.kind == "search" else "Final trainings"
        sentences.append(f"{stage}: {duration(cost.final_seconds)}.")
    if not sentences:
        sentences.append("No training has finished yet.")
    names = ", ".join(f"{name} {version}" for name, version in record.versions.items())
    return " ".join([*sentences, f"Made with {names}." if names else ""]).rstrip()


# Pairs of faces

VERIFICATION = (
    "Two pictures are taken for one person where the distance of their embeddings is below a "
    "threshold. The threshold of each fold is chosen on the other folds. Mean ± standard deviation "
    "over the folds."
)
ROC = (
    "The share of pairs of one person that are accepted (TAR), while at most a share of all other "
    "pairs is (FAR)."
)


def accuracy_over_folds(found: Verification) -> str:
    """The mean and the standard deviation of the accuracy."""
    return f"{100 * found.accuracy:.2f} ± {100 * found.std:.2f} %"


def disjoint_in_words(record: VerificationRecord) -> str:
    """The accuracy without shared people, or why there is none."""
    if record.disjoint is not None:
        return accuracy_over_folds(record.disjoint)
    if record.shared_people is None:
        return "people are not known"
    if not record.shared_people:
        return "the same: no fold shares people"
    return "none: pairs link all people"


def people_in_words(record: VerificationRecord) -> str:
    """What folds share people, and how the accuracy without them was found; empty if none do."""
    if not record.shared_people:
        return ""
    said = (
        f"{record.shared_people:,} of {record.n_people:,} people are in more than one fold of the "
        "list, so its accuracy is biased"
    )
    how = {
        "folds": "; without shared people: other folds, in which nobody is met again",
        "thresholds": "; without shared people: thresholds chosen on pairs without anybody of the "
        "fold",
    }
    return f"{said}{how.get(record.disjoint_by, '')}."


def accepts_in_words(rate: TrueAccepts) -> str:
    """A true accept rate, and how many others were accepted for it."""
    if rate.is_measurable:
        return f"{percent(rate.true_accept_rate)} ({rate.accepted:,} accepted wrongly)"
    return f"{percent(rate.true_accept_rate)} (none accepted wrongly: too few pairs to tell)"
