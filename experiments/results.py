"""docs/results.md, written from the committed results files alone."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from experiments import claims, fig1, fig3, fig4, fig5, fig6, fig7, main_job, table7
from experiments.claims import CLAIMS, UNKNOWN, Source, Verdict
from experiments.common import (
    DATA_SETS,
    HERE,
    IMAGES,
    NOISES,
    PROTOCOLS,
    RESULTS,
    Row,
    command_of,
    hours,
    in_words,
    mean_std,
    paper_numbers,
    read_results,
)
from experiments.comparison import Arm, Comparison, missing, of, percent
from experiments.drawing import TABLES
from keeprate import InputError
from keeprate.engine import METHODS
from keeprate.files import write_atomically
from keeprate.schedules import get_space
from keeprate.searching import Proposals, confirming

NAME = "results"
SUMMARY = "draws all figures and writes docs/results.md; --check says whether it is current"
PAGE = HERE.parent / "docs" / "results.md"
FIGURES = (
    (fig4, "Figure 4: test accuracy of all methods"),
    (fig5, "Figure 5: the searched R(t)"),
    (fig7, "Figure 7: label precision"),
)
COMPARISONS = (*TABLES, table7.TABLE)
MAIN_JOB_ARMS = (
    Arm("standard", "Standard", "standard"),
    Arm("co-teaching", "Co-teaching, its own R(t)", "co-teaching"),
    Arm("proposed", "Co-teaching, searched R(t)", "co-teaching"),
)
COLUMNS = (
    ("last epoch", "last", "test_accuracy"),
    ("best epoch", "best", "test_accuracy"),
    ("label precision, last epoch", "last", "label_precision"),
)


def write(*, results: Path = RESULTS, page: Path = PAGE, images: Path = IMAGES) -> None:
    """Draw the figures that have rows, then write the page."""
    if read_results(fig3.NAME, fig3.PROTOCOL, results) is not None:
        fig3.draw(results=results, images=images)
    if read_results(fig6.NAME, fig6.PROTOCOL, results) is not None:
        fig6.draw(results=results, images=images)
    for protocol in PROTOCOLS:
        if read_results(fig1.NAME, protocol, results) is not None:
            fig1.draw(protocol, results=results, images=images)
        if _has_tables(protocol, results):
            for module, _ in FIGURES:
                module.draw(protocol, results=results, images=images)
    write_atomically(page, text(results))


def check(*, results: Path = RESULTS, page: Path = PAGE) -> None:
    """Compare the page with what would be written now.

    Raises
    ------
    InputError
        If it differs, or links a figure that is not there.
    """
    remedy = "run `python -m experiments results` and commit what it writes."
    there = page.read_text(encoding="utf-8") if page.exists() else None
    if there != text(results):
        raise InputError(f"{page.name} is not current with the results files; {remedy}")
    for linked in re.findall(r"\]\((images/[^)]+)\)", there):
        if not (page.parent / linked).exists():
            raise InputError(f"{page.name} links {linked}, which is not there; {remedy}")


def text(results: Path = RESULTS) -> str:
    """The page, the same from the same results files."""
    parts = [
        _INTRODUCTION,
        "\n".join(_claims(results)),
        *("\n".join(_main_job(job, results)) for job in main_job.PROTOCOLS),
        *("\n".join(_comparison(table, results)) for table in COMPARISONS),
        "\n".join(_memorisation(results)),
        "\n".join(_synthetic(results)),
        "\n".join(_real_task(results)),
        *("\n".join(_figure(module.NAME, title, results)) for module, title in FIGURES),
    ]
    return "\n\n".join(parts) + "\n"


_INTRODUCTION = """\
# Results

Written by `python -m experiments results` from the files in
[experiments/results](../experiments/results); do not edit it by hand. Accuracies and label
precisions are in %, as mean ± sample standard deviation over seeds (one seed: the number alone).
Noise, split and initial weights vary with the seed. In every setting half of the 10,000 test images
validate and the other half test; no search sees a test label. "Best epoch" is chosen on the test
set, as in the paper's tables: an optimistic number. The protocol *paper* has the paper's epochs,
trials and seeds; *desk* is smaller, so that it differs from the paper in more than the code. Hours
are what the runs took, added up, on whatever machine they ran."""


# Pieces ----------------------------------------------------------------------------------------


def _wrapped(words: str, indent: str = "") -> str:
    """A paragraph, or with an indent the item of a list, in lines of the house's length."""
    return textwrap.fill(
        words, 100, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def _table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    rows = [header, ["---"] * len(header), *lines]
    return ["| " + " | ".join(row) + " |" for row in rows]


def _bold_best(columns: list[list[str]], values: list[list[float | None]]) -> None:
    """Mark the highest mean of each column, if it has rivals."""
    for column, numbers in zip(columns, values, strict=True):
        known = [number for number in numbers if number is not None]
        if len(known) > 1:
            column[numbers.index(max(known))] = f"**{column[numbers.index(max(known))]}**"


def _lines(
    arms: Sequence[Arm], rows: Sequence[Row], noise: str, paper: dict[tuple[str, str], Any]
) -> list[list[str]]:
    """A line for each arm under one noise: its numbers, the paper's, the seeds it has."""
    columns: list[list[str]] = []
    values: list[list[float | None]] = []
    for _, when, what in COLUMNS:
        column: list[str] = []
        means: list[float | None] = []
        for arm in arms:
            found = percent(of(rows, noise, arm.name), when, what)
            column.append(in_words(*mean_std(found)) if found else "–")
            means.append(mean_std(found)[0] if found else None)
        columns.append(column)
        values.append(means)
    _bold_best(columns, values)
    if paper:
        theirs = [paper.get((noise, arm.paper)) for arm in arms]
        columns.insert(2, ["–" if number is None else in_words(*number) for number in theirs])
    columns.append([str(len(of(rows, noise, arm.name))) for arm in arms])
    return [
        [arm.label, *cells] for arm, cells in zip(arms, zip(*columns, strict=True), strict=True)
    ]


def _header(*, paper: bool) -> list[str]:
    names = [name for name, _, _ in COLUMNS]
    if paper:
        names.insert(2, "best epoch, paper")
    return ["", *names, "seeds"]


def _protocol_in_words(p: dict[str, Any]) -> str:
    size = "all training samples" if p["limit"] is None else f"{p['limit']:,} training samples"
    return (
        f"{DATA_SETS.get(p['data'], p['data'])}, {size}; {p['model']}, {p['epochs']} epochs, "
        f"batch {p['batch_size']}, {p['optimizer']} {p['learning_rate']:g}, {p['lr_schedule']}; "
        f"searches of {_trials_in_words(p)}; {p['seeds']} seeds."
    )


def _trials_in_words(p: dict[str, Any], run: dict[str, Any] | None = None) -> str:
    """What a search tries; by a budget what a run of it tried."""
    if run is None:
        trials, again = p["trials"], confirming(p["trials"]) * p["confirm"]
    else:
        trials = len(run["trials"])
        again = sum(trial["confirms"] is not None for trial in run["trials"])
    plan = Proposals(
        get_space("basis"), p["epochs"], p["sampler"], trials, again, 0, bool(p["warm_start"])
    )
    fidelity, parts = p.get("fidelity", 1.0), []
    if updates := (plan.n_explored - 1) // plan.generation_size:
        parts.append(f"{updates} update" + "s" * (updates > 1))
    if p["warm_start"] is True:  # in a file of earlier code: with other given schedules
        parts.append("warm start")
    elif p["warm_start"]:
        n_given = min(len(p["warm_start"]), plan.n_explored)
        all_given = n_given == plan.n_explored
        parts.append(f"{n_given} given schedules" + ", nothing drawn" * all_given)
    if fidelity < 1:
        parts.append(f"new schedules in {round(fidelity * p['epochs'])} epochs")
    if again:
        parts.append(f"{again} to confirm")
    return f"{trials} trials" + (f" ({', '.join(parts)})" if parts else "")


def _missing_in_words(left: list[str]) -> str:
    return f"Missing: {'; '.join(left)}." if left else "Complete."


# Sections --------------------------------------------------------------------------------------


def _sources(results: Path) -> Iterator[Source]:
    """Everything that a claim may be judged by, with results or without."""
    for job in main_job.PROTOCOLS:
        rows = main_job.lines_of(read_results(main_job.NAME, job.name, results))
        names = [arm.name for arm in MAIN_JOB_ARMS]
        whole = len(rows) == job.seeds * len(main_job.NOISES) * len(names)
        title = f"main job (three methods), {job.title}"
        yield Source(title, "methods", rows, main_job.NOISES, names, whole)
    for table in COMPARISONS:
        kind = "spaces" if table is table7.TABLE else "methods"
        for protocol in PROTOCOLS:
            found = read_results(table.name, protocol, results)
            title = f"{table.title.replace(': ', ', ')}, {protocol}"
            rows = [] if found is None else found["rows"]
            papers = replace(table, arms=tuple(arm for arm in table.arms if arm.paper))
            for what, judged in ((kind, papers), ("all methods", table)):
                names = [arm.name for arm in judged.arms]
                whole = not list(missing(judged, table.protocol(protocol), rows))
                if what == kind or kind == "methods":
                    yield Source(title, what, rows, table.noises, names, whole)
    for protocol in PROTOCOLS:
        found = read_results(fig1.NAME, protocol, results)
        rows = [] if found is None else found["rows"]
        asked = fig1.protocol_named(protocol)
        whole = len(rows) == asked.seeds * len(asked.settings())
        title = f"Figure 1, {protocol}"
        yield Source(title, "memorisation", rows, complete=whole, memorisation=asked)


def _claims(results: Path) -> Iterator[str]:
    yield "## What the paper claims, and what we found"
    yield ""
    yield _wrapped(
        "Judged by the rules in [experiments/claims.py](../experiments/claims.py) from the rows "
        "there are. A single noise or setting that contradicts a claim settles it; means are "
        "compared as they are, whatever the number of seeds."
    )
    sources = list(_sources(results))
    for claim in CLAIMS:
        verdicts = [claim.verdict(source) for source in sources if source.kind == claim.kind]
        yield ""
        yield _wrapped(f"**{claim.text}.** Rule: {claim.rule}.")
        yield ""
        yield from _verdicts(verdicts)


def _verdicts(verdicts: Sequence[Verdict]) -> Iterator[str]:
    for one in verdicts:
        if one.verdict != UNKNOWN:
            numbers = "; ".join(one.evidence)
            yield _wrapped(f"- {one.source}: **{one.verdict}** ({numbers}).", "  ")
    unknown = [one.source for one in verdicts if one.verdict == UNKNOWN]
    if unknown:
        yield _wrapped(f"- {UNKNOWN}: {'; '.join(unknown)}.", "  ")


def _main_job(job: main_job.Protocol, results: Path) -> Iterator[str]:
    found = read_results(main_job.NAME, job.name, results)
    yield f"## The main job: MNIST, {job.title}"
    yield ""
    command = command_of(main_job.NAME, job.name)
    if found is None:
        yield f"Not run yet: `{command}`."
        return
    protocol, rows = found["protocol"], main_job.lines_of(found)
    shared = ", which the two best schedules share" if protocol.get("finalists") == 2 else ""
    yield _wrapped(
        f"{protocol['data']}; {protocol['network']}; {protocol['epochs']} epochs; searches of "
        f"{_trials_in_words(protocol, found['rows'][0])}; each final training the best of "
        f"{protocol['restarts']} by validation{shared}. `{command}`, "
        f"{hours(found['rows']):.1f} hours."
    )
    for noise in main_job.NOISES:
        yield ""
        if not any(row["noise"] == noise for row in rows):
            yield f"{NOISES[noise].capitalize()}: not run yet."
            continue
        yield f"{NOISES[noise].capitalize()}:"
        yield ""
        yield from _table(_header(paper=False), _lines(MAIN_JOB_ARMS, rows, noise, {}))


def _comparison(table: Comparison, results: Path) -> Iterator[str]:
    yield f"## {table.title}"
    yield ""
    if table is not table7.TABLE:
        own = [METHODS[arm.method].label for arm in table.arms if arm.own_too]
        yield _wrapped(
            "The selecting methods have Co-teaching's own R(t) with the nominal noise rate; "
            "Proposed is Co-teaching with the searched one. The paper has neither Co-Mining nor "
            "JoCoR here: its claims are judged without them."
            + "".join(
                f" {name}'s desk search tries its own R(t) in one trial more: the given schedules "
                "were made for Co-teaching."
                for name in own
            )
        )
    else:
        yield "Co-teaching, R(t) searched in three spaces."
    for name in PROTOCOLS:
        protocol = table.protocol(name)
        found = read_results(table.name, name, results)
        yield ""
        yield f"### {table.title.split(':')[0]}, {name} protocol"
        yield ""
        command = command_of(table.name, name)
        if found is None:
            yield f"Not run yet: `{command}`."
            continue
        rows: list[Row] = found["rows"]
        left = list(missing(table, protocol, rows))
        yield _wrapped(
            f"{_protocol_in_words(found['protocol'])} `{command}`, {hours(rows):.1f} hours. "
            f"{_missing_in_words(left)}"
        )
        if name == "desk" and table.desk_note:
            yield ""
            yield _wrapped(table.desk_note)
        paper = paper_numbers(table.paper, protocol.data)
        for noise in table.noises:
            if any(row["noise"] == noise for row in rows):
                yield ""
                yield f"{NOISES[noise].capitalize()}:"
                yield ""
                yield from _table(_header(paper=True), _lines(table.arms, rows, noise, paper))
                yield from _transition_errors(rows, noise)


def _transition_errors(rows: Sequence[Row], noise: str) -> Iterator[str]:
    found = [row["transition_error"] for row in of(rows, noise, "f-correction")]
    known = [100 * error for error in found if error is not None]
    if known:
        yield ""
        yield _wrapped(
            "F-correction's estimated transition matrix: relative L1 error "
            f"{in_words(*mean_std(known))} %."
        )


def _memorisation(results: Path) -> Iterator[str]:
    yield "## Figure 1: memorisation"
    yield ""
    yield _wrapped(
        "Standard training; from a base setting one factor is changed at a time. The drop is from "
        "the peak of test accuracy to the mean of the last tenth of the epochs."
    )
    for name in PROTOCOLS:
        found = read_results(fig1.NAME, name, results)
        yield ""
        yield f"### Figure 1, {name} protocol"
        yield ""
        command = command_of(fig1.NAME, name)
        if found is None:
            yield f"Not run yet: `{command}`."
            continue
        protocol, rows = fig1.protocol_named(name), found["rows"]
        base = protocol.base
        seeds = sorted({row["seed"] for row in rows})
        source = Source("", "memorisation", rows, memorisation=protocol)
        peaks = list(claims.peaks(source))
        lines = []
        for factor, label, peak in peaks:
            if peak is not None:
                place = f"{peak.epoch:g} of {peak.epochs}"
                lines.append([factor, label, place, f"{peak.height:.2f}", f"{peak.drop:.2f}"])
        left = [f"{factor} {label}" for factor, label, peak in peaks if peak is None]
        yield _wrapped(
            f"Base: {DATA_SETS[base.data]}, {NOISES[base.noise]}, {base.model}, "
            f"{base.epochs} epochs, batch {base.batch_size}, {base.optimizer} "
            f"{base.learning_rate:g}, {base.lr_schedule}. {len(seeds)} of {protocol.seeds} seeds. "
            f"`{command}`, {hours(rows):.1f} hours. {_missing_in_words(left)}"
        )
        yield ""
        yield from _table(["factor", "value", "peak at epoch", "peak", "drop"], lines)
        yield ""
        yield _image(f"{fig1.NAME}-{name}", f"memorisation, {name} protocol")


def _synthetic(results: Path) -> Iterator[str]:
    yield "## Figure 3: search spaces and search algorithms on known schedules"
    yield ""
    found = read_results(fig3.NAME, fig3.PROTOCOL, results)
    command = command_of(fig3.NAME, fig3.PROTOCOL)
    if found is None:
        yield f"Not run yet: `{command}`."
        return
    rows, protocol = found["rows"], found["protocol"]
    n_seeds = len({row["seed"] for row in rows})
    complete = len(rows) == n_seeds * len(fig3.TARGETS) * len(fig3.arms())
    yield _wrapped(
        "Sec. 4.1: the value of a trial is the root mean square error of its R(t), "
        f"{protocol['epochs']} epochs, to a schedule drawn by hand; trials are asked for in tens. "
        f"Medians over {n_seeds} seeds, best so far, with the quartiles in brackets; lower is "
        f"better. No sampler is given schedules to start from. `{command}`"
        + ("." if complete else "; not finished: the seeds differ in number.")
    )
    for title, arms, all_marks in (
        ("(b) Random search in three spaces", fig3.SPACES, fig3.MARKS[1:]),
        ("(c) Samplers in the basis space", fig3.SAMPLERS, fig3.MARKS),
    ):
        for mark in (m for m in all_marks if m <= protocol["evaluations"]):
            yield ""
            yield f"{title}, {mark} evaluations:"
            yield ""
            yield from _table(["", *fig3.TARGETS], _medians(rows, arms, mark))
    yield ""
    times = (f"{arm.label} {fig3.seconds(rows, arm.name):.1f}" for arm in fig3.SAMPLERS)
    yield _wrapped(
        f"Seconds that the sampler itself took for {protocol['evaluations']} evaluations (median): "
        f"{'; '.join(times)}."
    )
    yield ""
    yield _image(fig3.NAME, "search spaces and samplers on known schedules")


def _medians(rows: Sequence[Row], arms: Sequence[fig3.Arm], mark: int) -> list[list[str]]:
    columns, values = [], []
    for target in fig3.TARGETS:
        found = [fig3.quartiles(rows, arm.name, target, mark) for arm in arms]
        values.append([None if one is None else -one[1] for one in found])  # lower is better
        columns.append(["–" if q is None else f"{q[1]:.4f} ({q[0]:.4f}–{q[2]:.4f})" for q in found])
    _bold_best(columns, values)
    n_seeds = [
        min(len(fig3.curves(rows, arm.name, target)) for target in fig3.TARGETS) for arm in arms
    ]
    labels = [
        arm.label + f" ({n} seeds)" * (n < max(n_seeds))
        for arm, n in zip(arms, n_seeds, strict=True)
    ]
    return [
        [label, *cells] for label, cells in zip(labels, zip(*columns, strict=True), strict=True)
    ]


def _real_task(results: Path) -> Iterator[str]:
    yield "## Figure 6: search algorithms on the real task"
    yield ""
    found = read_results(fig6.NAME, fig6.PROTOCOL, results)
    command = command_of(fig6.NAME, fig6.PROTOCOL)
    if found is None:
        yield f"Not run yet: `{command}`."
        return
    rows, p = found["rows"], found["protocol"]
    spent = sum(row["seconds"] for row in rows) / 3600
    yield _wrapped(
        f"{DATA_SETS.get(p['data'], p['data'])}, {p['limit']:,} samples, {p['model']}, "
        f"{METHODS[p['method']].label}, {p['epochs']} epochs; each search may spend {p['cost']} "
        "full trainings. Test accuracy at the last epoch, of the schedule that the search would "
        "choose by its validation value when so much is spent (mean of that schedule's complete "
        "trainings; the search never sees it); mean ± sample standard deviation over seeds. "
        "keeprate's searches ask for up to ten schedules at a time, the others for one; TPE and GP "
        f"begin with {fig6.STARTUP} random ones. Most of the given schedules of a warm start were "
        f"chosen on MNIST. `{command}`, {spent:.1f} hours."
    )
    costs = sorted({c for c in (6, 12, p["cost"]) if c <= p["cost"]})
    for noise in fig6.TASKS:
        mine = [row for row in rows if row["noise"] == noise]
        yield ""
        if not mine:
            yield f"{NOISES[noise].capitalize()}: not run yet."
            continue
        n_seeds = len(mine)
        yield f"{NOISES[noise].capitalize()}, {n_seeds} seed{'s' * (n_seeds > 1)}:"
        yield ""
        header = ["", *(f"cost {cost}" for cost in costs)]
        yield from _table(header, _at_costs(mine, costs))
    yield ""
    yield _image(fig6.NAME, "best validation value and test accuracy against cost")


def _at_costs(rows: Sequence[Row], costs: Sequence[int]) -> list[list[str]]:
    columns: list[list[str]] = []
    means: list[list[float | None]] = []
    for cost in costs:
        known = [[fig6.at_cost(row, arm.name, cost) for row in rows] for arm in fig6.ARMS]
        tests = [None if None in one else [100 * x[1] for x in one if x] for one in known]
        columns.append(["–" if one is None else in_words(*mean_std(one)) for one in tests])
        means.append([None if one is None else mean_std(one)[0] for one in tests])
    _bold_best(columns, means)
    return [
        [arm.label, *cells]
        for arm, cells in zip(fig6.ARMS, zip(*columns, strict=True), strict=True)
    ]


def _figure(name: str, title: str, results: Path) -> Iterator[str]:
    yield f"## {title}"
    yield ""
    yield "Lines are means over seeds; the bands are their range."
    for protocol in PROTOCOLS:
        yield ""
        if _has_tables(protocol, results):
            yield _image(f"{name}-{protocol}", f"{title}, {protocol} protocol")
        else:
            yield f"Protocol {protocol}: no rows of Tables 4 to 6 yet."


def _has_tables(protocol: str, results: Path) -> bool:
    return any(read_results(table.name, protocol, results) is not None for table in TABLES)


def _image(stem: str, words: str) -> str:
    path = f"images/results/{stem}"
    return f"![{words}]({path}.png)\n\n([as SVG]({path}.svg))"
