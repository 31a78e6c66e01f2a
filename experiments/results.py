"""docs/results.md, written from the committed results files alone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from experiments import (
    claims,
    faces_page,
    fig1,
    fig3,
    fig4,
    fig5,
    fig6,
    fig7,
    gpu_page,
    main_job,
    table7,
)
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
    read_results,
)
from experiments.comparison import Arm, Comparison, missing, rows_of
from experiments.drawing import TABLES
from experiments.markdown import (
    NOTHING,
    arms_header,
    arms_lines,
    bold_best,
    image,
    labelled,
    missing_in_words,
    paragraph,
    protocol_in_words,
    table,
    trials_in_words,
)
from experiments.rows import hours, in_words, mean_std, paper_numbers
from keeprate import InputError
from keeprate.engine import METHODS
from keeprate.files import write_atomically

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
        If the page differs, or links a figure that is not there.
    """
    remedy = "run `python -m experiments results` and commit what it writes."
    written = page.read_text(encoding="utf-8") if page.exists() else None
    if written != text(results):
        raise InputError(f"{page.name} is not current with the results files; {remedy}")
    for linked in re.findall(r"\]\((images/[^)]+)\)", written):
        if not (page.parent / linked).exists():
            raise InputError(f"{page.name} links {linked}, which is not there; {remedy}")


def text(results: Path = RESULTS) -> str:
    """The page; the same results files give the same page."""
    parts = [
        _INTRODUCTION,
        "\n".join(_claims(results)),
        *("\n".join(_main_job(protocol, results)) for protocol in main_job.PROTOCOLS),
        *("\n".join(_comparison(comparison, results)) for comparison in COMPARISONS),
        "\n".join(_memorisation(results)),
        "\n".join(_synthetic(results)),
        "\n".join(_real_task(results)),
        *("\n".join(_figure(module.NAME, title, results)) for module, title in FIGURES),
        "\n".join(faces_page.section(results)),
        "\n".join(gpu_page.section(results)),
    ]
    return "\n\n".join(parts) + "\n"


_INTRODUCTION = """\
# Results

`python -m experiments results` writes this page from the files in
[experiments/results](../experiments/results); do not edit it by hand. Accuracies and label
precisions are in %, as mean ± sample standard deviation over seeds (one seed: the number alone).
Noise, split and initial weights vary with the seed. In every setting half of the 10,000 test images
validate and the other half test; no search sees a test label. "Best epoch" is the best epoch on the
test set, as in the paper's tables: an optimistic number. The protocol *paper* has the paper's
epochs, trials and seeds. The protocol *desk* is smaller, so its numbers differ from the paper's for
more reasons than the code. Hours are the sum over all runs, on the machines that they ran on."""


# Claims ----------------------------------------------------------------------------------------


def _sources(results: Path) -> Iterator[Source]:
    """Every source that may judge a claim, with results or without."""
    for protocol in main_job.PROTOCOLS:
        rows = main_job.table_rows(read_results(main_job.NAME, protocol.name, results))
        names = [arm.name for arm in MAIN_JOB_ARMS]
        complete = len(rows) == protocol.seeds * len(main_job.NOISES) * len(names)
        title = f"main job (three methods), {protocol.title}"
        yield Source(title, "methods", rows, main_job.NOISES, names, complete)
    for comparison in COMPARISONS:
        for name in PROTOCOLS:
            yield from _sources_of_table(comparison, name, results)
    for name in PROTOCOLS:
        stored = read_results(fig1.NAME, name, results)
        rows = [] if stored is None else stored["rows"]
        asked = fig1.get_protocol(name)
        complete = len(rows) == asked.seeds * len(asked.settings())
        title = f"Figure 1, {name}"
        yield Source(title, "memorisation", rows, complete=complete, memorisation=asked)


def _sources_of_table(comparison: Comparison, protocol: str, results: Path) -> Iterator[Source]:
    """The arms that the paper has; of Tables 4 to 6 also all arms."""
    stored = read_results(comparison.name, protocol, results)
    rows = [] if stored is None else stored["rows"]
    title = f"{comparison.title.replace(': ', ', ')}, {protocol}"
    of_paper = replace(comparison, arms=tuple(arm for arm in comparison.arms if arm.paper_label))
    kinds = {"methods": of_paper, "all methods": comparison}
    if comparison is table7.TABLE:
        kinds = {"spaces": of_paper}
    for kind, judged in kinds.items():
        complete = not list(missing(judged, comparison.protocol(protocol), rows))
        names = [arm.name for arm in judged.arms_of(protocol)]
        yield Source(title, kind, rows, comparison.noises, names, complete)


def _claims(results: Path) -> Iterator[str]:
    yield "## What the paper claims, and what we found"
    yield ""
    yield paragraph(
        "The rules in [experiments/claims.py](../experiments/claims.py) judge the claims from the "
        "rows that are there. A single noise or setting that contradicts a claim settles it. Means "
        "are compared as they are, whatever the number of seeds."
    )
    sources = list(_sources(results))
    for claim in CLAIMS:
        verdicts = [claim.verdict(source) for source in sources if source.kind == claim.kind]
        yield ""
        yield paragraph(f"**{claim.text}.** Rule: {claim.rule}.")
        yield ""
        yield from _verdicts(verdicts)


def _verdicts(verdicts: Sequence[Verdict]) -> Iterator[str]:
    for verdict in verdicts:
        if verdict.verdict != UNKNOWN:
            numbers = "; ".join(verdict.evidence)
            yield paragraph(f"- {verdict.source}: **{verdict.verdict}** ({numbers}).", "  ")
    unknown = [verdict.source for verdict in verdicts if verdict.verdict == UNKNOWN]
    if unknown:
        yield paragraph(f"- {UNKNOWN}: {'; '.join(unknown)}.", "  ")


# Tables ----------------------------------------------------------------------------------------


def _main_job(protocol: main_job.Protocol, results: Path) -> Iterator[str]:
    stored = read_results(main_job.NAME, protocol.name, results)
    yield f"## The main job: MNIST, {protocol.title}"
    yield ""
    command = command_of(main_job.NAME, protocol.name)
    if stored is None:
        yield f"Not run yet: `{command}`."
        return
    ran, rows = stored["protocol"], main_job.table_rows(stored)
    shared = ", which the two best schedules share" if ran.get("finalists") == 2 else ""
    yield paragraph(
        f"{ran['data']}; {ran['network']}; {ran['epochs']} epochs; searches of "
        f"{trials_in_words(ran, stored['rows'][0])}; each final training the best of "
        f"{ran['restarts']} by validation{shared}. `{command}`, {hours(stored['rows']):.1f} hours."
    )
    for noise in main_job.NOISES:
        yield ""
        if not any(row["noise"] == noise for row in rows):
            yield f"{NOISES[noise].capitalize()}: not run yet."
            continue
        yield f"{NOISES[noise].capitalize()}:"
        yield ""
        yield from table(arms_header(with_paper=False), arms_lines(MAIN_JOB_ARMS, rows, noise, {}))


def _comparison(comparison: Comparison, results: Path) -> Iterator[str]:
    yield f"## {comparison.title}"
    yield ""
    yield paragraph(_note(comparison))
    for name in PROTOCOLS:
        yield ""
        yield f"### {comparison.title.split(':')[0]}, {name} protocol"
        yield ""
        yield from _protocol_of_table(comparison, name, results)


def _note(comparison: Comparison) -> str:
    """What holds for all protocols of a table."""
    if comparison is table7.TABLE:
        return "Co-teaching, R(t) searched in three spaces."
    note = (
        "The selecting methods have Co-teaching's own R(t) with the nominal noise rate; Proposed "
        "is Co-teaching with the searched R(t). The paper has neither Co-Mining nor JoCoR here: "
        "its claims are judged without them. The paper protocol also has a search of six trials, "
        "as `--budget 6` plans it."
    )
    for arm in comparison.arms:
        if arm.tries_own_schedule:
            note += (
                f" {METHODS[arm.method].label}'s desk search tries its own R(t) in one trial more: "
                "the presets were made for Co-teaching."
            )
    return note


def _protocol_of_table(comparison: Comparison, name: str, results: Path) -> Iterator[str]:
    protocol, command = comparison.protocol(name), command_of(comparison.name, name)
    stored = read_results(comparison.name, name, results)
    if stored is None:
        yield f"Not run yet: `{command}`."
        return
    rows: list[Row] = stored["rows"]
    left = list(missing(comparison, protocol, rows))
    yield paragraph(
        f"{protocol_in_words(stored['protocol'])} `{command}`, {hours(rows):.1f} hours. "
        f"{missing_in_words(left)}"
    )
    if name == "desk" and comparison.desk_note:
        yield ""
        yield paragraph(comparison.desk_note)
    paper = paper_numbers(comparison.paper_file, protocol.data)
    for noise in comparison.noises:
        if any(row["noise"] == noise for row in rows):
            yield ""
            yield f"{NOISES[noise].capitalize()}:"
            yield ""
            lines = arms_lines(comparison.arms_of(name), rows, noise, paper)
            yield from table(arms_header(with_paper=True), lines)
            yield from _transition_errors(rows, noise)


def _transition_errors(rows: Sequence[Row], noise: str) -> Iterator[str]:
    errors = [row.get("transition_error") for row in rows_of(rows, noise, "f-correction")]
    known = [100 * error for error in errors if error is not None]
    if known:
        yield ""
        yield paragraph(
            "F-correction's estimated transition matrix: relative L1 error "
            f"{in_words(*mean_std(known))} %."
        )


# Figures ---------------------------------------------------------------------------------------


def _memorisation(results: Path) -> Iterator[str]:
    yield "## Figure 1: memorisation"
    yield ""
    yield paragraph(
        "Standard training; one factor of a base setting is changed at a time. The drop is from "
        "the peak of test accuracy to the mean of the last tenth of the epochs."
    )
    for name in PROTOCOLS:
        stored = read_results(fig1.NAME, name, results)
        yield ""
        yield f"### Figure 1, {name} protocol"
        yield ""
        command = command_of(fig1.NAME, name)
        if stored is None:
            yield f"Not run yet: `{command}`."
            continue
        protocol, rows = fig1.get_protocol(name), stored["rows"]
        base, seeds = protocol.base, {row["seed"] for row in rows}
        peaks = list(claims.peaks(Source("", "memorisation", rows, memorisation=protocol)))
        lines = []
        for factor, label, peak in peaks:
            if peak is not None:
                place = f"{peak.epoch:g} of {peak.epochs}"
                lines.append([factor, label, place, f"{peak.height:.2f}", f"{peak.drop:.2f}"])
        left = [f"{factor} {label}" for factor, label, peak in peaks if peak is None]
        yield paragraph(
            f"Base: {DATA_SETS[base.data]}, {NOISES[base.noise]}, {base.model}, "
            f"{base.epochs} epochs, batch {base.batch_size}, {base.optimizer} "
            f"{base.learning_rate:g}, {base.learning_rate_schedule}. "
            f"{len(seeds)} of {protocol.seeds} seeds. "
            f"`{command}`, {hours(rows):.1f} hours. {missing_in_words(left)}"
        )
        yield ""
        yield from table(["factor", "value", "peak at epoch", "peak", "drop"], lines)
        yield ""
        yield image(f"{fig1.NAME}-{name}", f"memorisation, {name} protocol")


def _synthetic(results: Path) -> Iterator[str]:
    yield "## Figure 3: search spaces and search algorithms on known schedules"
    yield ""
    stored = read_results(fig3.NAME, fig3.PROTOCOL, results)
    command = command_of(fig3.NAME, fig3.PROTOCOL)
    if stored is None:
        yield f"Not run yet: `{command}`."
        return
    rows, protocol = stored["rows"], stored["protocol"]
    n_seeds = len({row["seed"] for row in rows})
    complete = len(rows) == n_seeds * len(fig3.TARGETS) * len(fig3.arms())
    yield paragraph(
        "Sec. 4.1: the value of a trial is the root mean square error of its R(t), "
        f"{protocol['epochs']} epochs, to a schedule drawn by hand. Each search asks for ten "
        f"trials at a time. Medians over {n_seeds} seeds, best so far, with the quartiles in "
        f"brackets; lower is better. No sampler has presets. `{command}`"
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
            yield from table(["", *fig3.TARGETS], _medians(rows, arms, mark))
    yield ""
    times = (f"{arm.label} {fig3.seconds(rows, arm.name):.1f}" for arm in fig3.SAMPLERS)
    yield paragraph(
        f"Seconds that the sampler itself took for {protocol['evaluations']} evaluations (median): "
        f"{'; '.join(times)}."
    )
    yield ""
    yield image(fig3.NAME, "search spaces and samplers on known schedules")


def _medians(rows: Sequence[Row], arms: Sequence[fig3.Arm], mark: int) -> list[list[str]]:
    columns: list[list[str]] = []
    values: list[list[float | None]] = []
    for target in fig3.TARGETS:
        quartiles = [fig3.quartiles(rows, arm.name, target, mark) for arm in arms]
        values.append([None if q is None else -q[1] for q in quartiles])  # lower is better
        columns.append(
            [NOTHING if q is None else f"{q[1]:.4f} ({q[0]:.4f}–{q[2]:.4f})" for q in quartiles]
        )
    bold_best(columns, values)
    n_seeds = [
        min(len(fig3.curves(rows, arm.name, target)) for target in fig3.TARGETS) for arm in arms
    ]
    labels = [
        arm.label + f" ({n} seeds)" * (n < max(n_seeds))
        for arm, n in zip(arms, n_seeds, strict=True)
    ]
    return labelled(labels, columns)


def _real_task(results: Path) -> Iterator[str]:
    yield "## Figure 6: search algorithms on the real task"
    yield ""
    stored = read_results(fig6.NAME, fig6.PROTOCOL, results)
    command = command_of(fig6.NAME, fig6.PROTOCOL)
    if stored is None:
        yield f"Not run yet: `{command}`."
        return
    protocol = stored["protocol"]
    data, cost = protocol["data"], protocol["cost"]
    spent = sum(row["seconds"] for row in stored["rows"]) / 3600
    yield paragraph(
        f"{DATA_SETS.get(data, data)}, {protocol['limit']:,} samples, {protocol['model']}, "
        f"{METHODS[protocol['method']].label}, {protocol['epochs']} epochs; each search may spend "
        f"{cost} full trainings. Test accuracy at the last epoch of the schedule that the search "
        "ranks first by its validation value at this cost (mean of that schedule's complete "
        "trainings; the search never sees it); mean ± sample standard deviation over seeds. "
        "keeprate's searches ask for up to ten schedules at a time, the others for one; TPE and GP "
        f"begin with {fig6.STARTUP} random ones. Most presets were chosen on MNIST. "
        f"`{command}`, {spent:.1f} hours."
    )
    costs = sorted({c for c in (6, 12, cost) if c <= cost})
    for noise in fig6.TASKS:
        rows = [row for row in stored["rows"] if row["noise"] == noise]
        yield ""
        if not rows:
            yield f"{NOISES[noise].capitalize()}: not run yet."
            continue
        yield f"{NOISES[noise].capitalize()}, {len(rows)} seed{'s' * (len(rows) > 1)}:"
        yield ""
        yield from table(["", *(f"cost {c}" for c in costs)], _at_costs(rows, costs))
    yield ""
    yield image(fig6.NAME, "best validation value and test accuracy against cost")


def _at_costs(rows: Sequence[Row], costs: Sequence[int]) -> list[list[str]]:
    columns: list[list[str]] = []
    means: list[list[float | None]] = []
    for cost in costs:
        pairs = [[fig6.at_cost(row, arm.name, cost) for row in rows] for arm in fig6.ARMS]
        tests = [
            None if None in of_arm else [100 * pair[1] for pair in of_arm if pair is not None]
            for of_arm in pairs
        ]
        columns.append([NOTHING if test is None else in_words(*mean_std(test)) for test in tests])
        means.append([None if test is None else mean_std(test)[0] for test in tests])
    bold_best(columns, means)
    return labelled([arm.label for arm in fig6.ARMS], columns)


def _figure(name: str, title: str, results: Path) -> Iterator[str]:
    yield f"## {title}"
    yield ""
    yield "Lines are means over seeds; the bands are their range."
    for protocol in PROTOCOLS:
        yield ""
        if _has_tables(protocol, results):
            yield image(f"{name}-{protocol}", f"{title}, {protocol} protocol")
        else:
            yield f"Protocol {protocol}: no rows of Tables 4 to 6 yet."


def _has_tables(protocol: str, results: Path) -> bool:
    return any(read_results(table.name, protocol, results) is not None for table in TABLES)
