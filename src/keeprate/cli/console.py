"""What a person sees: the introduction, the progress, the closing table, the suspect labels."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from keeprate.engine import TextProgress
from keeprate.text import (
    UNKNOWN,
    duration,
    grouped,
    listed,
    percent,
    probability_in_words,
    shortened,
    size,
    visible,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keeprate.data import Data
    from keeprate.engine import Progress as ProgressCallback
    from keeprate.records import LabelQuality, RunRecord, VerificationRecord
    from keeprate.runs import Run
    from keeprate.searching import SearchPlan

WIDTH = 80  # characters
FILES = (
    "report.html, label_quality.csv (most suspect labels first), schedule.csv, model.safetensors, "
    "record.json"
)


def say(text: str) -> None:
    """Print a sentence in lines of 80 characters; a long path stays whole.

    Nothing in it reaches the terminal as a control sequence, or turns the direction of writing.
    """
    text = visible(text)
    print(textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False), flush=True)


def _cell(text: str) -> Text:
    """A cell of a table. Nothing in it is taken for markup, an emoji or a control sequence."""
    return Text(visible(text))


def introduce(data: Data) -> None:
    """Say what the data set holds."""
    sizes = f"{len(data.train):,} training, {_size(data, 'validation')} validation"
    if data.test is not None:
        sizes += f", {_size(data, 'test')} test"
    say(f"{data.name}: {sizes} samples, {data.n_classes} classes")
    counts = sorted(zip(data.class_counts, data.class_names, strict=True), reverse=True)
    say(f"training labels: {listed([f'{name} ({count:,})' for count, name in counts])}")
    if data.encoder is not None and data.input_columns:
        _introduce_columns(data)
    for why, names in grouped(data.left_out).items():
        say(f"no input, {why}: {listed(names)}")
    for note in data.notes:
        say(note)
    if (rate := data.noise_rate) is not None:
        say(f"{rate:.1%} of the training labels wrong")


def _introduce_columns(data: Data) -> None:
    """Show what the columns of a table are taken for."""
    n_features = 0 if data.encoder is None else len(data.encoder.feature_names)
    say(f"inputs: {n_features:,} features of these columns (--columns NAME=KIND corrects a kind)")
    table = Table(box=None, show_header=False, padding=(0, 2))
    for kind, names in grouped(data.input_kinds).items():
        table.add_row(_cell(kind), _cell(listed(names)))
    Console(width=WIDTH).print(table)


def _size(data: Data, name: str) -> str:
    split = getattr(data, name)
    return f"{len(split):,}" + (" (noisy labels)" if split.label_status == "noisy" else "")


@contextmanager
def shown_progress(*, is_quiet: bool) -> Iterator[ProgressCallback | None]:
    """Show the progress of a run on standard error.

    A terminal shows bars, a file or a pipe a line every ten seconds.

    Yields
    ------
    Progress or None
        What the run is to call; None if quiet.
    """
    console = Console(stderr=True)
    if is_quiet:
        yield None
    elif not console.is_terminal or console.is_dumb_terminal:
        yield TextProgress()
    else:
        with _bars(console) as bars:
            yield _BarProgress(bars)


def _bars(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:<14}", markup=False),
        BarColumn(bar_width=12),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TextColumn("{task.fields[best]}", markup=False),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        console=console,
    )


class _BarProgress:
    """A bar for each stage of a run."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, stage: str, done: float, total: float, best: str | None) -> None:
        best = visible(best or "")
        if stage not in self._tasks:
            self._tasks[stage] = self._bars.add_task(visible(stage), total=total, best="")
        self._bars.update(self._tasks[stage], completed=done, total=total, best=best)


def conclude(run: Run, *, is_quiet: bool, baselines: str) -> None:
    """Print the closing table and the cautions, and unless quiet what else there is to know.

    Parameters
    ----------
    run : Run
    is_quiet : bool
        Print the table, and what its numbers are not worth, only.
    baselines : str
        As typed: "auto" leaves Co-teaching out where the noise rate is not known.
    """
    from keeprate.report import noisy_test_in_words, positive_class

    Console().print(closing_table(run.record))
    if warning := noisy_test_in_words(run.record):
        say(warning)
    if not is_quiet:
        if positive := positive_class(run.record):
            say(f"{run.record.data.criterion}: the positive class is {positive}")
        if (by_class := by_class_table(run.record)) is not None:
            table, words = by_class
            Console().print(table)
            say(words)
        names = {result.name for result in run.results}
        if baselines == "auto" and "co-teaching" not in names:
            say("Co-teaching's own schedule needs the noise rate: give --noise-rate to compare")
        for sentence in _findings(run.record, schedule_name=run.schedule.name):
            say(sentence)
    for caution in run.record.cautions:
        say(f"Caution: {caution}")
    if run.folder is not None and not is_quiet:
        say(f"written to {run.folder}: {FILES}")


def show_plan(plan: SearchPlan, folder: str, *, is_done: bool) -> None:
    """Print what a search would train and cost; `is_done`: the folder holds a finished run."""
    table = Table()
    table.add_column("to be trained")
    for name in ("trainings", "epochs", "networks\nof each", "in\nlockstep", "about"):
        table.add_column(name, justify="right", no_wrap=True)
    for stage in plan.stages:
        numbers = (stage.trainings, stage.epochs, stage.n_networks, plan.together(stage))
        seconds = duration(plan.seconds_of(stage))
        table.add_row(stage.name, *(f"{number:,}" for number in numbers), seconds)
    Console().print(table)
    most = "at most " if plan.is_at_most else ""
    say(
        f"search: {most}{plan.full_trainings:.4g} full trainings ({plan.candidate_epochs:,} "
        f"candidate-epochs), {plan.trials.trials:,} trials, of which {plan.trials.confirm:,} "
        f"confirm; then {plan.final_trainings:,} trainings"
    )
    say(
        f"time: {most}about {duration(plan.seconds, places=0)} on this machine, by a few steps "
        "timed just now; other work on the machine later is not foreseen"
    )
    say(
        f"memory: {size(plan.data_bytes)} of samples and about {size(plan.network_bytes)} of "
        f"networks; disk: about {size(plan.disk_bytes)}"
    )
    name, share = plan.majority
    say(f"always {shortened(name, 40)!r} would be right for {percent(share)} of validation samples")
    if is_done:
        say(f"{folder} holds a finished run: a new search needs another folder by --out")
        return
    say(f"nothing was written to {folder}; the same command without --plan searches")


def closing_table(record: RunRecord) -> Table:
    """The final trainings, one a row, in at most 80 characters."""
    from keeprate.report import accuracy_measure, main_measure, majority_as_text, majority_name

    own = main_measure(record)
    measures = [own, *([accuracy_measure(record)] if record.has_scorer else [])]
    has_precision = not record.has_scorer  # 80 characters hold no more columns
    heads = [f"{textwrap.fill(one.name, 13 - i)}\nlast epoch" for i, one in enumerate(measures)]
    heads[1:1] = ["best\n(epoch)"]
    table = Table()
    table.add_column("training")
    for name in (*heads, *["label\nprecision"] * has_precision, "s"):
        table.add_column(name, justify="right", no_wrap=True)
    for result in record.results:
        epoch = result.best.epoch
        cells = [one.as_text(result, places=2) for one in measures]
        cells[1:1] = [f"{own.as_text(result, epoch, places=2)} ({epoch})"]
        cells += [percent(result.last.label_precision, 2)] * has_precision
        table.add_row(_cell(result.label), *cells, f"{result.seconds:.1f}")
    if record.by_class is not None:
        cells = [majority_as_text(record, one, places=2) for one in measures]
        cells[1:1] = [UNKNOWN]
        cells += [UNKNOWN] * has_precision
        table.add_row(_cell(majority_name(record)), *cells, UNKNOWN)
    return table


def by_class_table(record: RunRecord) -> tuple[Table, str] | None:
    """How the classifier does in each class, and what the table counts; None without samples."""
    from keeprate.report import MOST_CLASSES_SHOWN, by_class_in_words

    found = record.by_class
    if found is None:
        return None
    shown = found.worst(MOST_CLASSES_SHOWN)
    table = Table()
    table.add_column("class")
    for name in (f"{found.split}\nsamples", "precision", "recall"):
        table.add_column(name, justify="right", no_wrap=True)
    for number in shown:
        shares = [percent(one(number), 2) for one in (found.precision, found.recall)]
        name = shortened(record.data.class_names[number], 40)
        table.add_row(_cell(name), f"{found.samples[number]:,}", *shares)
    return table, by_class_in_words(record, len(shown))


def _findings(record: RunRecord, *, schedule_name: str) -> Iterator[str]:
    """What a run has cost and found, a sentence each."""
    from keeprate.report import added_in_words, issue_count_in_words, noise_in_words

    if record.trials:
        cost = record.cost
        yield f"search: {cost.full_trainings:.4g} full trainings, {cost.search_seconds:.1f} s"
        if added := added_in_words(record):
            yield added
    if (first := record.first) is not None:
        began = "the search began with" if record.trials else "R(t) by"
        yield (
            f"{began} a noise rate of {first.noise_rate:.1%}, as a first training of "
            f"{first.epochs} epochs estimated it in {first.seconds:.1f} s"
        )
        if schedule_name == "constant":
            yield "but every sample kept did better on the validation samples"
    if record.noise_estimate is not None:
        yield noise_in_words(record)
    if record.labels_judged:
        yield issue_count_in_words(record)


def list_issues(chosen: LabelQuality, n: int, class_names: Sequence[str], top: int) -> None:
    """Print how many of n labels are listed, and the most suspect ones."""
    from keeprate.records import NOT_SURE

    shown = f"{len(chosen.rows):,} of {n:,} labels listed"
    wrong = 1 - chosen.scores
    if len(wrong):
        shown += f"; by their probabilities {percent(float(wrong.mean()))} of these are wrong"
    say(shown)
    columns = chosen.table(class_names)
    named = ("name",) if chosen.names else ()
    table = Table("row", "given label", "suggestion", "wrong with", *named, title=None)
    for i in range(min(top, len(wrong))):
        index, _, score, given, _, suggested, *name = (column[i] for column in columns.values())
        cells = (str(index), given, suggested or NOT_SURE, probability_in_words(1 - score))
        table.add_row(*map(_cell, cells), *(_cell(shortened(part, 60)) for part in name))
    if top and len(wrong):
        Console().print(table)


def list_verification(record: VerificationRecord) -> None:
    """Print how well pairs were judged: over the folds, and while few are accepted wrongly."""
    from keeprate.report import (
        accepts_in_words,
        accuracy_over_folds,
        disjoint_in_words,
        people_in_words,
    )

    found = record.standard
    say(
        f"{record.name}: {found.n_pairs:,} pairs of {record.n_images:,} pictures, "
        f"{found.n_same:,} of one person and {found.n_different:,} of two"
    )
    for note in record.notes:
        say(note)
    table = Table(box=None, show_header=False, padding=(0, 2))
    n_folds = len(found.fold_accuracy)
    table.add_row(_cell(f"accuracy over {n_folds} folds"), _cell(accuracy_over_folds(found)))
    table.add_row(_cell("without shared people"), _cell(disjoint_in_words(record)))
    for rate in found.true_accepts:
        name = f"accepted of one person at FAR {100 * rate.false_accept_rate:g} %"
        table.add_row(_cell(name), _cell(accepts_in_words(rate)))
    table.add_row(_cell("area under the ROC curve"), _cell(f"{found.auc:.4f}"))
    Console(width=WIDTH).print(table)
    if shared := people_in_words(record):
        say(shared)
