"""The tables of a page: the results of one run, and several runs side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from matplotlib.figure import Figure

from keeprate.records import Result, RunRecord, VerificationRecord
from keeprate.report.facts import (
    Measure,
    accuracy_measure,
    has_label_precision,
    has_test_accuracy,
    last_accuracy,
    majority_name,
    on_test,
    on_validation,
)
from keeprate.report.figures import NO_RESULTS, in_percent
from keeprate.report.style import (
    RUN_COLOURS,
    finish_figure,
    inline_picture,
    new_figure,
    on_narrow_paper,
    plot_curve,
)
from keeprate.report.words import (
    VERIFICATION,
    accepts_in_words,
    accuracy_over_folds,
    by_class_in_words,
    disjoint_in_words,
    full_trainings,
    people_in_words,
    results_in_words,
    source_in_words,
)
from keeprate.text import UNKNOWN, duration, percent, score_as_text, shortened

MOST_CLASSES_SHOWN = 10  # with how each does


def results_table(record: RunRecord) -> str:
    """The results as an HTML table, the run's own first and marked."""
    if not record.results:
        return f"<p>{escape(NO_RESULTS)}</p>"
    columns = _columns(record)
    heads, rows = [one.head for one in columns], []
    for place, result in enumerate(record.results):
        is_marked = place == 0 and len(record.results) > 1
        rows.append(_row(heads, [one.cell(result) for one in columns], is_marked=is_marked))
    if record.by_class is not None:
        rows.append(_row(heads, [one.of_majority for one in columns]))
    return _table(heads, rows, results_in_words(record))


@dataclass(frozen=True)
class _Column:
    """A column of the results: its head, the cell of a result, and that of the majority."""

    head: str
    cell: Callable[[Result], str]
    of_majority: str = UNKNOWN


def _columns(record: RunRecord) -> list[_Column]:
    """The columns that a record can fill."""
    columns = [_Column("Training", lambda result: result.label, majority_name(record))]
    if has_test_accuracy(record):
        test = on_test(record)
        columns += [
            _last_epoch(record, test),
            _Column(
                "at its best epoch",
                lambda one: f"{test.as_text(one, one.best.epoch)} (epoch {one.best.epoch})",
            ),
        ]
    columns.append(_last_epoch(record, on_validation(record)))
    if record.has_scorer:
        columns.append(_last_epoch(record, accuracy_measure(record)))
    if has_label_precision(record):
        words = "Label precision, last epoch"
        columns.append(_Column(words, lambda result: percent(result.last.label_precision)))
    return [*columns, _Column("Time", lambda result: duration(result.seconds))]


def _last_epoch(record: RunRecord, measure: Measure) -> _Column:
    """The value of a measure at the last epoch."""
    head = f"{measure.name[:1].upper()}{measure.name[1:]}, last epoch"
    return _Column(head, measure.as_text, majority_as_text(record, measure))


def majority_as_text(record: RunRecord, measure: Measure, places: int = 1) -> str:
    """What always naming the most frequent class is worth; a dash on other samples."""
    found = record.by_class
    if found is None or not measure.name.startswith(found.split):
        return UNKNOWN
    if record.has_own_metric and found.split == "validation":  # samples of which it says nothing
        return UNKNOWN
    is_scored = record.has_scorer and measure.criterion != "accuracy"
    score = found.majority_score if is_scored else found.majority_accuracy
    return score_as_text(score, measure.criterion, places)


def by_class_table(record: RunRecord) -> str:
    """How the classifier does in each class, as an HTML table; of many classes the worst."""
    found = record.by_class
    if found is None:
        return ""
    shown, rows = found.worst(MOST_CLASSES_SHOWN), []
    heads = ["Class", f"{found.split.capitalize()} samples", "Precision", "Recall"]
    for number in shown:
        shares = percent(found.precision(number)), percent(found.recall(number))
        name = shortened(record.data.class_names[number], 60)
        rows.append(_row(heads, [name, f"{found.samples[number]:,}", *shares]))
    return _table(heads, rows, by_class_in_words(record, len(shown)))


def comparison(records: Sequence[RunRecord], names: Sequence[str]) -> str:
    """Several runs side by side: a table, then their schedules and accuracies in one picture.

    Parameters
    ----------
    records : sequence of RunRecord
    names : sequence of str
        Of each run, for people. A link leads to the section with the id `run-0`, `run-1`, ...
    """
    heads = (
        "Run",
        "Data",
        "Training",
        "Accuracy, last epoch",
        "Co-teaching's own R(t)",
        "Standard",
        "Cost of the search",
    )
    rows = []
    for place, (record, name) in enumerate(zip(records, names, strict=True)):
        # A long path may go on in the next line after each slash.
        link = f'<a href="#run-{place}">{escape(name).replace("/", "/<wbr>")}</a>'
        rows.append(_row(heads, _comparison_cells(record), first_cell=link))
    return (
        f"<h1>{len(records)} runs side by side</h1>"
        + _table(heads, rows, "Costs are in full trainings.", kind="runs")
        + "<h2>Schedules and curves</h2>"
        + framed(_comparison_drawing(records, names), "Each run is drawn with its own training.")
    )


def _comparison_cells(record: RunRecord) -> list[str]:
    source, cost = source_in_words(record), full_trainings(record.cost)
    if not record.results:
        return [source, "not finished", UNKNOWN, UNKNOWN, UNKNOWN, cost]
    own, *others = record.results
    by_name = {result.name: _accuracy_in_words(result) for result in others}
    rivals = [by_name.get(name, UNKNOWN) for name in ("co-teaching", "standard")]
    return [source, own.label, _accuracy_in_words(own), *rivals, cost]


def _accuracy_in_words(result: Result) -> str:
    words = percent(last_accuracy(result))
    return words if result.last.test_accuracy is not None else f"{words} (validation)"


def _comparison_drawing(records: Sequence[RunRecord], names: Sequence[str]) -> str:
    def draw() -> Figure:
        return _comparison_figure(records, names)

    narrow = on_narrow_paper(draw)
    return inline_picture(draw(), narrow, "comparison", "schedules and accuracies")


def _comparison_figure(records: Sequence[RunRecord], names: Sequence[str]) -> Figure:
    drawing, panels = new_figure(2)
    for place, (record, name) in enumerate(zip(records, names, strict=True)):
        if not record.results:
            continue
        own, colour = record.results[0], RUN_COLOURS[place % len(RUN_COLOURS)]
        accuracy = own.curves.test_accuracy or own.curves.validation_accuracy
        plot_curve(panels[0], in_percent(own.schedule.keep_rate), colour, name)
        plot_curve(panels[1], in_percent(accuracy), colour, name)
    panels[0].set(title="Keep rate R(t), %", xlabel="epoch", ylim=(-2, 103))
    panels[1].set(title="Accuracy, %", xlabel="epoch")
    return finish_figure(drawing, panels)


def verification_table(records: Sequence[VerificationRecord]) -> str:
    """What was found of each list of pairs, as an HTML table."""
    rates = {rate.false_accept_rate: None for one in records for rate in one.standard.true_accepts}
    heads = ["Pairs", "of one person", "Accuracy", "without shared people", "ROC area"]
    heads[4:4] = [f"TAR at FAR {100 * rate:g} %" for rate in rates]
    rows = []
    for record in records:
        found = record.standard
        accepts = {one.false_accept_rate: accepts_in_words(one) for one in found.true_accepts}
        cells = [
            f"{record.name} ({found.n_pairs:,})",
            f"{found.n_same:,}",
            accuracy_over_folds(found),
            disjoint_in_words(record),
            *(accepts.get(rate, UNKNOWN) for rate in rates),
            f"{found.auc:.4f}",
        ]
        rows.append(_row(heads, cells))
    notes = [
        f"{one.name}: {said}"
        for one in records
        for said in (people_in_words(one), *one.notes)
        if said
    ]
    return _table(heads, rows, " ".join([VERIFICATION, *notes]), kind="runs")


def _table(heads: Sequence[str], rows: Sequence[str], caption: str, *, kind: str = "") -> str:
    """A table; `rows` are HTML."""
    head = "".join(f"<th scope=col>{escape(words)}</th>" for words in heads)
    table = (
        f"<table{f' class={kind}' if kind else ''}><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table>"
    )
    return framed(table, caption, kind="table")


def framed(content: str, caption: str, *, kind: str = "picture") -> str:
    """A framed table or picture, which scrolls by itself where the screen is narrow.

    Parameters
    ----------
    content : str
        HTML.
    caption : str
        Text; none if empty.
    kind : {"picture", "table"}
    """
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f"<figure class={kind}><div class=scroll>{content}</div>{below}</figure>"


def _row(
    heads: Sequence[str], cells: Sequence[str], *, first_cell: str = "", is_marked: bool = False
) -> str:
    """A row of text; `first_cell` is HTML that goes before. On a phone each cell has its head."""
    html = [first_cell] * bool(first_cell) + [escape(cell) for cell in cells]
    pairs = zip(heads, html, strict=True)
    cells_html = "".join(f'<td data-head="{escape(head)}">{cell}</td>' for head, cell in pairs)
    return f"<tr{' class=first' if is_marked else ''}>{cells_html}</tr>"
