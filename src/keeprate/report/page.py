"""One self-contained page from run folders."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

from matplotlib.figure import Figure

from keeprate.files import write_atomically
from keeprate.records import (
    RunRecord,
    VerificationRecord,
    load_record,
    load_verifications,
)
from keeprate.report import words
from keeprate.report.desk import desk_script, review_desk, script_source
from keeprate.report.facts import has_label_precision
from keeprate.report.figures import NO_RESULTS, NO_SCHEDULES, PICTURES, draw_all, draw_roc
from keeprate.report.fix_list import fix_list
from keeprate.report.style import inline_picture, on_narrow_paper, png, styled
from keeprate.report.tables import (
    by_class_table,
    comparison,
    framed,
    results_table,
    verification_table,
)
from keeprate.text import visible


def write_plots(record: RunRecord, folder: Path) -> list[Path]:
    """Write `keep_rate.png`, `curves.png`, `label_precision.png` and `report.html`.

    Parameters
    ----------
    record : RunRecord
        A record without results, as of a search under way, gives the pictures of its trials. The
        page says in words what the record does not know.
    folder : Path
        Where to write; made if it does not exist. Each file is replaced as a whole. The list of
        labels to check comes from the folder's `label_quality.csv`, if there is one.

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
    paths = []
    with styled():
        figures = draw_all(record)
        for name in PICTURES:
            paths.append(folder / f"{name}.png")
            write_atomically(paths[-1], png(figures[name]))
        heading = f"<h1>{escape(words.title(record))}</h1>"
        section = _section(record, figures, folder, heading, "run")
    paths.append(folder / "report.html")
    write_atomically(paths[-1], _page(record.data.name, section))
    return paths


def write_report(folders: Sequence[Path], path: Path) -> None:
    """Write one page of several runs: side by side, then each with all that its record holds.

    Parameters
    ----------
    folders : sequence of Path
        Run folders.
    path : Path
        The page; an existing file is replaced as a whole.

    Raises
    ------
    keeprate.InputError
        If a folder holds no run, or the page cannot be written.
    """
    records = [load_record(folder) for folder in folders]
    names = [visible(str(folder)) for folder in folders]
    sections = []
    with styled():
        if len(records) > 1:
            sections.append(comparison(records, names))
        for place, record in enumerate(records):
            prefix, heading = f"run-{place}", f"<h1>{escape(words.title(record))}</h1>"
            if len(records) > 1:
                text = escape(f"{names[place]}: {words.title(record)}")
                heading = f'<h2 class="run" id="{prefix}">{text}</h2>'
            folder = Path(folders[place])
            sections.append(_section(record, draw_all(record), folder, heading, prefix))
    write_atomically(path, _page(", ".join(names), "\n".join(sections)))


def roc_png(records: Sequence[VerificationRecord]) -> bytes:
    """Draw the ROC curves of lists of pairs as a PNG."""
    with styled():
        return png(draw_roc(records))


def _page(name: str, body: str) -> str:
    has_desk = '<div class="desk"' in body  # texts of records are escaped
    script = f"<script>{desk_script()}</script>" if has_desk else ""
    policy = f" script-src {script_source()};" if has_desk else ""
    page = _template("page.html").substitute(name=escape(name), body=body, policy=policy)
    return visible(page).replace("</body>", f"{script}</body>")


def _template(name: str) -> Template:
    return Template(files("keeprate.report").joinpath(name).read_text(encoding="utf-8"))


def _section(
    record: RunRecord, figures: Mapping[str, Figure], folder: Path, heading: str, prefix: str
) -> str:
    """One run's part of a page; `heading` is HTML, `prefix` begins the ids of this part."""
    narrow = on_narrow_paper(lambda: draw_all(record))
    drawings = {
        name: inline_picture(figure, narrow[name], f"{prefix}-{name}", name.replace("_", " "))
        for name, figure in figures.items()
    }
    texts = {
        "data": words.data_in_words(record),
        "finding": words.finding(record),
        "noise": words.noise_in_words(record),
        "issues": words.issues_in_words(record),
        "cost": words.cost_in_words(record),
        "details": _details(record),
    }
    return _template("run.html").substitute(
        {name: escape(text) for name, text in texts.items()},
        heading=heading,
        cautions=_cautions(record),
        reading=_reading(record),
        results=results_table(record),
        by_class=by_class_table(record),
        keep_rate=_keep_rate(record, drawings["keep_rate"]),
        curves=_curves(record, drawings["curves"]),
        label_precision=_label_precision(record, drawings["label_precision"]),
        verification=_verification(load_verifications(folder), prefix),
        transition=_transition(record, drawings.get("transition", "")),
        desk=review_desk(record.suspects, record.data.class_names),
        applying=_applying(record),
        fix_list=fix_list(folder),
        repeat=_repeat(record),
    )


def _applying(record: RunRecord) -> str:
    """How decisions get into the data; empty where there are none."""
    if not record.suspects or record.data.noise != "none":  # labels that the data do not hold
        return ""
    command = "<code>keeprate apply RUN decisions.csv --out fixed/</code>"
    return f'<p class="muted">{escape(words.APPLYING)} {command}.</p>'


def _cautions(record: RunRecord) -> str:
    """What to be careful with, a paragraph each; empty where nothing is."""
    return "".join(
        f'<p class="caution"><b>Caution.</b> {escape(text)}</p>'
        for text in words.cautions_in_words(record)
    )


def _reading(record: RunRecord) -> str:
    """What was read of the data, folded away; empty for records that do not say."""
    lines = "".join(f"<li>{escape(line)}</li>" for line in words.reading_in_words(record))
    return f"<details><summary>What was read</summary><ul>{lines}</ul></details>" if lines else ""


def _details(record: RunRecord) -> str:
    details = {"config": record.config, "versions": record.versions}
    return json.dumps(details, indent=2, ensure_ascii=False, default=str)


def _keep_rate(record: RunRecord, drawing: str) -> str:
    """The picture of the schedules, or why there is none."""
    if not record.trials and not record.results:
        return f"<p>{escape(NO_SCHEDULES)}</p>"
    return framed(drawing, words.schedules_in_words(record))


def _curves(record: RunRecord, drawing: str) -> str:
    """The picture of the learning curves, or why there is none."""
    if not record.results:
        return f"<p>{escape(NO_RESULTS)}</p>"
    return framed(drawing, words.curves_in_words(record))


def _label_precision(record: RunRecord, drawing: str) -> str:
    """The part on label precision; empty where the true labels are not known."""
    if not has_label_precision(record):
        return ""
    return f"<h2>Label precision</h2>{framed(drawing, words.PRECISION)}"


def _transition(record: RunRecord, drawing: str) -> str:
    """The picture of the transition matrix; empty where none was estimated."""
    return framed(drawing, words.transition_errors_in_words(record)) if drawing else ""


def _verification(records: Sequence[VerificationRecord], prefix: str) -> str:
    """The part on pairs of faces; empty where none were judged."""
    if not records:
        return ""
    narrow = on_narrow_paper(lambda: draw_roc(records))
    drawing = inline_picture(draw_roc(records), narrow, f"{prefix}-roc", "ROC curves")
    return f"<h2>Verification</h2>{verification_table(records)}{framed(drawing, words.ROC)}"


def _repeat(record: RunRecord) -> str:
    """The command of the run; runs from Python have none."""
    if record.command:
        return f"<pre><code>{escape(record.command)}</code></pre>"
    return "<p>This run was started from Python, with the options below.</p>"
