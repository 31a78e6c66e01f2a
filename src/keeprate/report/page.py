"""One self-contained page from run folders; reads nothing else."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from keeprate.files import write_atomically
from keeprate.records import NAME_COLUMN, QUALITY_COLUMNS, QUALITY_FILE, load_record
from keeprate.report.figures import (
    BEST_EPOCH,
    FIGURES,
    MOST_TRIALS_SHOWN,
    RUN_COLOURS,
    Record,
    best_trial,
    curve_of,
    finish_figure,
    inline_svg,
    is_known,
    label_of,
    new_figure,
    part,
    plot_curve,
    results_of,
    score_in_words,
    series,
    styled,
)
from keeprate.text import duration, percent

PRECISION = (
    "The share of the kept samples whose given label is the true one; true labels are used for "
    "this figure only."
)
_LARGEST_FIX_LIST = 2_000_000  # characters
_JPEG = base64.b64encode(b"\xff\xd8\xff").decode()
_BY_VALIDATION = "accuracy on the validation samples"
_AGAINST_NOISY = "accuracy against the noisy labels of the validation samples"


def write_plots(record: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write `keep_rate.png`, `curves.png`, `label_precision.png` and `report.html`.

    Parameters
    ----------
    record
        A run record as a plain JSON object. Rates and accuracies lie in [0, 1], epochs count
        from 1. A record without results, of a search under way, gives the pictures of its
        trials; what a record does not know is said in words.
    folder
        Where to write; made if it does not exist. Each file is replaced as a whole. The list of
        labels to check comes from its `label_quality.csv`, if that is there.

    Returns
    -------
    list of Path
        The files written, in the order above.

    Raises
    ------
    keeprate.InputError
        If the folder cannot be written.
    """
    folder = Path(folder)
    written = []
    with styled():
        figures = {name: draw(record) for name, draw in FIGURES.items()}
        for name, figure in figures.items():
            if name == "transition":
                continue  # for the page alone
            png = io.BytesIO()
            figure.savefig(png, format="png", facecolor="white")
            write_atomically(folder / f"{name}.png", png.getvalue())
            written.append(folder / f"{name}.png")
        drawings = {name: inline_svg(figure, name) for name, figure in figures.items()}
    heading = f"<h1>{escape(_title(record))}</h1>"
    section = _section(record, drawings, _fix_list(folder), heading, "run")
    name = str(part(record, "data").get("name", "run"))
    write_atomically(folder / "report.html", _page(name, section))
    return [*written, folder / "report.html"]


def write_report(folders: Sequence[Path], path: Path) -> None:
    """Write one page of several finished runs: side by side, then each with all it has.

    Raises
    ------
    keeprate.InputError
        If a folder holds no run, or the page cannot be written.
    """
    records = [load_record(folder) for folder in folders]
    names = [str(folder) for folder in folders]
    sections = []
    with styled():
        if len(records) > 1:
            sections.append(_comparison(records, names))
        for i, (record, folder) in enumerate(zip(records, folders, strict=True)):
            drawings = {
                name: inline_svg(draw(record), f"{name}-{i}") for name, draw in FIGURES.items()
            }
            text = escape(_title(record))
            heading = f"<h1>{text}</h1>"
            if len(records) > 1:
                heading = f'<h2 class="run" id="run-{i}">{escape(names[i])}: {text}</h2>'
            sections.append(_section(record, drawings, _fix_list(folder), heading, f"run-{i}"))
    write_atomically(path, _page(", ".join(names), "\n".join(sections)))


# The page


def _page(name: str, body: str) -> str:
    return _template("page.html").substitute(name=escape(name), body=body)


def _template(name: str) -> Template:
    return Template(files("keeprate.report").joinpath(name).read_text(encoding="utf-8"))


def _section(
    record: Record, drawings: Mapping[str, str], fix_list: str, heading: str, prefix: str
) -> str:
    """One run's part of a page; everything that comes from the record is escaped here."""
    versions = ", ".join(f"{k} {v}" for k, v in part(record, "versions").items())
    details = {"config": record.get("config"), "versions": record.get("versions")}
    words = {
        "data": _data_in_words(record),
        "finding": _finding(record),
        "trials": _trials_in_words(record),
        "curves_caption": _curves_in_words(record),
        "noise": _noise_in_words(record),
        "issues": _issues_in_words(record),
        "cost": _cost_in_words(record) + (f" Made with {versions}." if versions else ""),
        "command": str(record.get("command") or "not recorded"),
        "details": json.dumps(details, indent=2, ensure_ascii=False, default=str),
    }
    estimated = part(record, "noise_estimate").get("transition_matrix")
    shown = dict(drawings)
    caption = (
        f"<figcaption>{escape(errors)}</figcaption>" if (errors := _errors_in_words(record)) else ""
    )
    shown["transition"] = f"<figure>{drawings['transition']}{caption}</figure>" if estimated else ""
    shown["label_precision"] = (
        f"<h2>Label precision</h2><figure>{drawings['label_precision']}<figcaption>"
        f"{PRECISION}</figcaption></figure>"
        if is_known(record, "label_precision")
        else ""
    )
    return _template("run.html").substitute(
        {name: escape(text) for name, text in words.items()},
        heading=heading,
        results=_results_table(record),
        gallery=_gallery(record, prefix) + fix_list,
        **shown,
    )


def _title(record: Record) -> str:
    name = part(record, "data").get("name", "an unnamed data set")
    what = "A searched keep-rate schedule on" if record.get("kind") == "search" else "Training on"
    return f"{what} {name}"


def _data_in_words(record: Record) -> str:
    data = part(record, "data")
    parts = [
        f"{data[key]:,} {words}"
        for key, words in (
            ("n_train", "training samples"),
            ("n_validation", "for validation"),
            ("n_test", "for test"),
            ("n_classes", "classes"),
        )
        if isinstance(data.get(key), int)
    ]
    if data.get("noise_rate") is not None:
        parts.append(f"{percent(data['noise_rate'])} of the training labels wrong")
    if data.get("validation_labels"):
        parts.append(f"validation labels {data['validation_labels']}")
    return ", ".join(parts)


def _finding(record: Record) -> str:
    results: dict[str, Record] = {}
    for result in results_of(record):
        results.setdefault(str(result.get("name")), result)
    if not results:
        best = best_trial(list(record.get("trials") or []))
        if best is None:
            return "No trial has been finished yet."
        return (
            "The search is not finished: the best trial so far has "
            f"{percent(best['value'])} {score_in_words(record)}."
        )
    key = "test_accuracy" if is_known(record, "test_accuracy") else "validation_accuracy"
    words = "test accuracy"
    if key != "test_accuracy":
        noisy = part(record, "data").get("criterion") == "determinant"
        words = _AGAINST_NOISY if noisy else _BY_VALIDATION
        words += " (which chose the schedule)" if "searched" in results else ""
    first = "searched" if "searched" in results else next(iter(results))

    def last(name: str) -> float | None:
        value: float | None = part(results[name], "last").get(key)
        return value

    found = last(first)
    others = {
        name: value for name in results if name != first and (value := last(name)) is not None
    }
    ranked = sorted(others, key=lambda name: -others[name])
    rivals = [f"{label_of(results[name])} at {percent(others[name])}" for name in ranked[:2]]
    if found is None:
        return ""
    subject = "The searched schedule" if first == "searched" else label_of(results[first])
    many = f"of the {len(others)} others the best are " if len(others) > len(rivals) else ""
    against = f"; {many}{' and '.join(rivals)}" if rivals else ""
    warning = noisy_test_in_words(record) if key == "test_accuracy" else ""
    return f"{subject} ends at {percent(found)} {words}{against}. {warning}".rstrip()


def noisy_test_in_words(record: Record) -> str:
    """What accuracy against noisy test labels is worth; nothing where they do not seem noisy."""
    data, rate = part(record, "data"), part(record, "noise_estimate").get("noise_rate")
    if data.get("test_labels") != "noisy" or not data.get("n_test") or not rate:
        return ""
    return (
        "The test labels were cut from these data and are as noisy: by the estimated noise rate, "
        f"right predictions would reach about {percent(1 - rate)} against them."
    )


def _trials_in_words(record: Record) -> str:
    trials = list(record.get("trials") or [])
    if not trials:
        return ""
    words = {"short": "in fewer epochs"}
    states = [words.get(str(state), str(state)) for state in (t.get("state") for t in trials)]
    counts = ", ".join(f"{states.count(s)} {s}" for s in dict.fromkeys(states))
    again = sum(trial.get("confirms") is not None for trial in trials)
    counts += f", of which {again} trained the best ones again" if again else ""
    shown = " (a sample of them is drawn)" if len(trials) > MOST_TRIALS_SHOWN else ""
    return f"Thin lines: the schedules tried{shown}; {counts}."


def _curves_in_words(record: Record) -> str:
    if not is_known(record, "test_accuracy"):
        return "Dots and numbers: the last epoch."
    return f"Dots and numbers: the last epoch. Rings: {BEST_EPOCH}."


def _noise_in_words(record: Record) -> str:
    estimate, data = part(record, "noise_estimate"), part(record, "data")
    if estimate.get("noise_rate") is None:
        return "Not estimated yet."
    held_out = data.get("criterion") == "determinant"
    by = "held-out labels" if held_out else "training labels, which networks may have memorised"
    text = (
        f"About {percent(estimate['noise_rate'])} of the labels are wrong (standard error "
        f"{percent(estimate['noise_rate_std'])}), estimated from {by}."
    )
    if data.get("noise_rate") is not None:
        text += f" In truth {percent(data['noise_rate'])} of the training labels are."
    return text


def _errors_in_words(record: Record) -> str:
    errors = part(record, "noise_estimate").get("transition_matrix_std") or [[]]
    largest = max((max(row, default=0.0) for row in errors), default=0.0)
    return f"Standard errors of sampling: at most {percent(largest)}." if largest else ""


def _issues_in_words(record: Record) -> str:
    count = record.get("label_issues")
    n = record.get("labels_judged", part(record, "data").get("n_train"))  # of earlier versions
    if count is None or not isinstance(n, int):
        return "Not known yet."
    text = f"The networks disagree with {count:,} of the {n:,} labels"
    shown = len(record.get("suspects") or [])
    if not count:
        return text + "."
    return f"{text}. The {shown} most suspect, of each class some; labels are only doubted here."


def _gallery(record: Record, prefix: str) -> str:
    """Cards of the most suspect samples, to be filtered by their given label without a script."""
    suspects = list(record.get("suspects") or [])
    if not suspects:
        return ""
    classes = list(dict.fromkeys(str(one["given"]) for one in suspects))
    names = [str(name) for name in part(record, "data").get("class_names") or []]
    classes.sort(key=lambda name: names.index(name) if name in names else len(names))
    number = {name: i for i, name in enumerate(classes)}
    chips, rules, cards = [], [], []
    for i, name in enumerate(["", *classes]):
        ident = f"{prefix}-only-{i}"
        checked = "" if name else " checked"
        chips.append(
            f'<input type="radio" name="{prefix}-only" id="{ident}"{checked}>'
            f'<label for="{ident}">{escape(name) or "all classes"}</label>'
        )
        if name:
            rules.append(
                f".chips:has(#{ident}:checked) ~ .cards .card:not(.given-{i - 1})"
                " { display: none; }"
            )
    wide = all("image" not in one for one in suspects)
    for one in suspects:
        text, shown = f"sample {one['index']}", ""
        if "image" in one:
            kind = "jpeg" if one["image"].startswith(_JPEG) else "png"
            shown = f'<img alt="{text}" src="data:image/{kind};base64,{escape(one["image"])}">'
        values = ", ".join(f"{key} {value}" for key, value in one.get("values", {}).items())
        called = one.get("name", "")
        if not shown:  # a text is what there is to see; of a picture its file is a detail
            shown, called = (f"<p>{escape(called)}</p>" if called else ""), ""
        details = (f"{text}, score {one['score']:.4f}", called, values)
        cards.append(
            f'<div class="card given-{number[str(one["given"])]}">{shown}'
            f"{escape(str(one['given']))} \N{RIGHTWARDS ARROW} "
            f"<b>{escape(str(one['predicted']))}</b>"
            + "".join(f"<small>{escape(words)}</small>" for words in details if words)
            + "</div>"
        )
    return (
        f"<div><style>{' '.join(rules)}</style><div class=chips>{''.join(chips)}</div>"
        f'<div class="cards{" wide" if wide else ""}">{"".join(cards)}</div></div>'
    )


def _fix_list(folder: Path) -> str:
    """A link that holds the labels that look wrong, as CSV; nothing where they are not known."""
    text, n, listed = io.StringIO(), 0, 0
    writer = csv.writer(text, lineterminator="\n")
    try:
        with (folder / QUALITY_FILE).open(newline="", encoding="utf-8") as file:
            lines = csv.DictReader(file)
            columns = [*QUALITY_COLUMNS, *({NAME_COLUMN} & set(lines.fieldnames or ()))]
            writer.writerow(columns)
            for line in lines:
                if line["is_label_issue"] == "True":
                    n += 1
                    if text.tell() < _LARGEST_FIX_LIST:
                        writer.writerow([line[name] for name in columns])
                        listed = n
    except (OSError, KeyError, ValueError):
        return ""
    packed = base64.b64encode(text.getvalue().encode()).decode()
    which = f"{n:,} rows" if n == listed else f"the first {listed:,} of {n:,} rows"
    return (
        f'<p><a class="button" download="label_issues.csv" href="data:text/csv;base64,{packed}">'
        f"Download the fix list ({which}, CSV)</a></p>"
    )


def _comparison(records: Sequence[Record], names: Sequence[str]) -> str:
    """A table of runs, and their schedules and test accuracies in one picture each."""
    rows = []
    figure, panels = new_figure(2)
    for i, (record, name) in enumerate(zip(records, names, strict=True)):
        results = results_of(record)
        first = results[0] if results else {}
        rivals = {str(r.get("name")): part(r, "last") for r in results[1:]}
        key = "test_accuracy" if is_known(record, "test_accuracy") else "validation_accuracy"
        cells = [
            _source_in_words(record),
            label_of(first) if first else "not finished",
            percent(part(first, "last").get(key)),
            *(percent(rivals.get(r, {}).get(key)) for r in ("co-teaching", "standard")),
            f"{part(record, 'cost').get('full_trainings') or 0:.3g}",
        ]
        link = f'<a href="#run-{i}">{escape(name)}</a>'
        row = "".join(f"<td>{escape(str(cell))}</td>" for cell in cells)
        rows.append(f"<tr><td>{link}</td>{row}</tr>")
        colour = RUN_COLOURS[i % len(RUN_COLOURS)]
        plot_curve(panels[0], series(first.get("keep_rate")), colour, name)
        plot_curve(panels[1], curve_of(first, key), colour, name)
    panels[0].set(title="Keep rate R(t), %", xlabel="epoch", ylim=(-2, 103))
    panels[1].set(title="Accuracy, %", xlabel="epoch")
    heads = (
        "Run", "Data", "Training", "Accuracy, last epoch", "Co-teaching's own R(t)",
        "Standard", "Cost of the search",
    )  # fmt: skip
    head = "".join(f"<th scope=col>{escape(text)}</th>" for text in heads)
    drawing = inline_svg(finish_figure(figure, panels), "comparison")
    return (
        f"<h1>{len(records)} runs side by side</h1><div class=scroll><table class=runs>"
        "<caption>Costs in full trainings.</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
        "<h2>Schedules and curves</h2>"
        f"<figure>{drawing}<figcaption>Of each run its own training.</figcaption></figure>"
    )


def _source_in_words(record: Record) -> str:
    data = part(record, "data")
    noise = data.get("noise", "none")
    return str(data.get("name", "")) + ("" if noise == "none" else f", {noise}")


def _cost_in_words(record: Record) -> str:
    cost = part(record, "cost")
    parts = []
    if cost.get("search_seconds") is not None:
        parts.append(f"{duration(cost['search_seconds'])} of search")
    if cost.get("final_seconds") is not None:
        parts.append(f"{duration(cost['final_seconds'])} of final training")
    if cost.get("candidate_epochs"):
        parts.append(f"{cost['candidate_epochs']:,} candidate epochs")
    if cost.get("full_trainings"):
        parts.append(f"the epochs of {cost['full_trainings']:.3g} full trainings")
    text = ", ".join(parts)
    return text[:1].upper() + text[1:] + "." if text else "Not recorded."


def _results_table(record: Record) -> str:
    results = results_of(record)
    if not results:
        return "<p>No final training has been finished yet.</p>"
    columns = [
        ("Test accuracy, last", "last", "test_accuracy"),
        ("at its best epoch", "best", "test_accuracy"),
        ("Validation accuracy, last", "last", "validation_accuracy"),
        ("Label precision, last", "last", "label_precision"),
    ]
    columns = [c for c in columns if any(part(r, c[1]).get(c[2]) is not None for r in results)]
    head = "".join(f"<th scope=col>{escape(title)}</th>" for title, _, _ in columns)
    rows = []
    for result in results:
        cells = [label_of(result)]
        for _, when, key in columns:
            value, epoch = part(result, when).get(key), part(result, when).get("epoch")
            at = f" (epoch {epoch})" if when == "best" and epoch is not None else ""
            cells.append(percent(value) + at)
        cells.append(duration(result.get("seconds")))
        mark = " class=first" if result.get("name") == "searched" else ""
        rows.append(f"<tr{mark}>" + "".join(f"<td>{escape(c)}</td>" for c in cells) + "</tr>")
    notes = [_finals_in_words(results[0])]
    if any(when == "best" for _, when, _ in columns):
        notes.append(f"Best epoch: {BEST_EPOCH}.")
    if len(results) > 1:
        notes.append("Time: what trained in lockstep has equal shares.")
    text = " ".join(filter(None, notes))
    caption = f"<caption>{escape(text)}</caption>" if text else ""
    return (
        f"<div class=scroll><table>{caption}<thead><tr><th scope=col>Training</th>{head}"
        f"<th scope=col>Time</th></tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _finals_in_words(result: Record) -> str:
    """How often each line was trained, and which of the first one's two schedules won."""
    tried = result.get("restarts")
    if not isinstance(tried, list) or len(tried) < 2:
        return ""
    words = f"Each line is the best of {len(tried)} trainings by validation"
    finalist = result.get("finalist")
    if finalist in (0, 1) and result.get("name") == "searched":
        place = ("best", "second best")[finalist]
        words += f"; in the searched one's the two best schedules took turns, the {place} won"
    elif finalist in (0, 1):
        both = "R(t) by the noise rate and every sample kept took turns"
        which = "latter" if result.get("schedule") == "constant" else "former"
        words += f"; in the first line's {both}, the {which} won"
    return f"{words}."
