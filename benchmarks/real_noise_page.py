"""Tables, picture and page of `benchmarks.real_noise`, from its rows alone."""

from __future__ import annotations

import io
import math
import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.common import RESULTS
from benchmarks.lines import ABLATIONS, DEFAULT, LINES, Line
from benchmarks.noisy_sets import SCENARIOS, SETS
from experiments.common import Row, read_results
from experiments.drawing import STYLE
from experiments.markdown import NOTHING, table
from experiments.rows import in_words, mean_std
from keeprate import InputError
from keeprate.files import write_atomically

DOCS = Path(__file__).parents[1] / "docs"
PAGE, PICTURE = DOCS / "real-noise.md", DOCS / "images" / "real-noise.svg"
MARKED = re.compile(r"(<!-- fill: ([a-z_ ]+) -->\n).*?(<!-- end -->)", re.DOTALL)
"""What the page gets from the rows stands between such a comment and `<!-- end -->`.

`fill: sets`, `fill: picture`, `fill: table SCENARIO METRIC`, `fill: differences SCENARIO METRIC` or
`fill: ablations METRIC`.
"""


@dataclass(frozen=True)
class Metric:
    """How a number of the rows is printed, and what the best of it is."""

    title: str
    best: int = 1  # the sign of what is to be high; 0: what is next to zero
    scale: float = 100.0


METRICS = {
    "accuracy": Metric("test accuracy, %"),
    "balanced_accuracy": Metric("balanced test accuracy, %"),
    "log_loss": Metric("log loss of the test samples", -1, 1.0),
    "average_precision": Metric("average precision of the wrong labels, %"),
    "list_precision": Metric("share of the listed labels that are wrong, %"),
    "listed": Metric("listed labels", 0, 1.0),
    "noise_after": Metric("wrong labels after all suggestions of the list are taken, %", -1),
    "noise_rate_error": Metric("estimated noise rate minus the true one, points", 0),
    "covered": Metric("seeds whose share of wrong labels lies in the interval, %", 1),
    "calibration_error": Metric("calibration error of the probability of a wrong label, %", -1),
    "seconds": Metric("processor seconds", -1, 1.0),
}
COUNTED = ("listed", "seconds", "covered")  # nothing is best
Values = dict[int, float]
"""Seed -> value."""


def values_of(rows: Sequence[Row], scenario: str, name: str, line: str, metric: str) -> Values:
    """A metric of a line on a set, by seed, as it is printed."""
    scale = METRICS[metric].scale
    key = {"scenario": scenario, "set": name, "line": line}
    return {
        row["seed"]: scale * row[metric]
        for row in rows
        if metric in row and all(row[k] == v for k, v in key.items())
    }


def sets_in(rows: Sequence[Row], scenario: str) -> list[str]:
    """The sets that have rows, in their order."""
    there = {row["set"] for row in rows if row["scenario"] == scenario}
    return [name for name in SETS if name in there]


def metric_table(
    rows: Sequence[Row], scenario: str, metric: str, lines: Mapping[str, Line] = LINES
) -> list[str]:
    """Lines of Markdown: mean and deviation over seeds, the best mean of a set in bold."""
    names = sets_in([row for row in rows if row["line"] in lines], scenario)
    cells: dict[str, list[str]] = {}
    means: dict[str, list[float | None]] = {}
    for line in lines:
        by_set = [values_of(rows, scenario, name, line, metric) for name in names]
        if any(by_set):
            known = [mean_std(list(values.values())) if values else None for values in by_set]
            cells[line] = [NOTHING if pair is None else in_words(*pair) for pair in known]
            means[line] = [None if pair is None else pair[0] for pair in known]
    if not cells:
        return []
    for column in range(len(names)):
        if best := _best(metric, {line: means[line][column] for line in means}):
            cells[best][column] = f"**{cells[best][column]}**"
    header = ["", *(SETS[name].title for name in names)]
    return table(header, [[line, *of_line] for line, of_line in cells.items()])


def _best(metric: str, means: dict[str, float | None]) -> str | None:
    known = {line: mean for line, mean in means.items() if mean is not None}
    if len(known) < 2 or metric in COUNTED:
        return None
    sign = METRICS[metric].best
    return max(known, key=lambda line: sign * known[line] if sign else -abs(known[line]))


def difference_table(rows: Sequence[Row], scenario: str, metric: str) -> list[str]:
    """Lines of Markdown: keeprate's default minus each other line, paired by seed.

    Mean and standard error over seeds; the last column is the mean over the sets that both have,
    with the standard error over these sets.
    """
    names, lines = sets_in(rows, scenario), []
    for line in LINES:
        paired = [
            _differences(rows, scenario, name, line, metric) if line != DEFAULT else []
            for name in names
        ]
        if not any(paired):
            continue
        of_sets = [statistics.fmean(values) for values in paired if values]
        cells = [_with_error(values) for values in (*paired, of_sets)]
        lines.append([line, *cells])
    header = [f"{DEFAULT} minus", *(SETS[name].title for name in names), "mean of the sets"]
    return table(header, lines) if lines else []


def _differences(
    rows: Sequence[Row], scenario: str, name: str, line: str, metric: str, minuend: str = DEFAULT
) -> list[float]:
    """The minuend's values minus the line's, of the seeds that both have."""
    own = values_of(rows, scenario, name, minuend, metric)
    other = values_of(rows, scenario, name, line, metric)
    return [own[seed] - other[seed] for seed in own if seed in other]


def _with_error(values: Sequence[float]) -> str:
    """A signed mean with its standard error."""
    if not values:
        return NOTHING
    mean = f"{statistics.fmean(values):+.2f}".replace("-", "−")
    if len(values) == 1:
        return mean
    return f"{mean}\xa0±\xa0{statistics.stdev(values) / math.sqrt(len(values)):.2f}"


def ablation_table(rows: Sequence[Row], metric: str) -> list[str]:
    """Lines of Markdown: the default and what it is without a part, on the sets that have both."""
    lacking = [row for row in rows if row["line"] in ABLATIONS.keys() - {DEFAULT}]
    names, seeds = ({row[key] for row in lacking} for key in ("set", "seed"))
    both = [row for row in rows if row["set"] in names and row["seed"] in seeds]
    return metric_table(both, "noisy", metric, ABLATIONS)


def set_table(rows: Sequence[Row]) -> list[str]:
    """Lines of Markdown: the sets, their seeds and the true share of wrong labels."""
    lines = []
    for name in SETS:
        own = [row for row in rows if row["set"] == name]
        if own:
            noise = mean_std(
                [100 * value for value in {r["seed"]: r["noise"] for r in own}.values()]
            )
            seeds = len({row["seed"] for row in own})
            lines.append([SETS[name].title, in_words(*noise), str(seeds)])
    return table(["set", "wrong training labels, %", "seeds"], lines) if lines else []


def all_tables(rows: Sequence[Row]) -> Iterator[str]:
    """Every table of the rows, line by line."""
    yield from set_table(rows)
    for scenario, words in SCENARIOS.items():
        for metric, how in METRICS.items():
            if lines := metric_table(rows, scenario, metric):
                yield from ("", f"**{words}: {how.title}**", "", *lines)
            if metric not in COUNTED and (lines := difference_table(rows, scenario, metric)):
                yield from ("", *lines)


# Picture ---------------------------------------------------------------------------------------

BASE = "MLP"
LEAST_IN_TENTH = 20  # labels, for a point of the reliability diagram
_SHOWN = {
    "logistic regression": ("#999999", "s"),
    "MLP, GCE": ("#56B4E9", "v"),
    "MLP, ELR": ("#0072B2", "^"),
    "clean alone, logistic regression": ("#B98500", "x"),
    "cleanlab CleanLearning": ("#009E73", "D"),
    DEFAULT: ("#D55E00", "o"),
}
"""Lines of the picture -> colour and mark; the others are small grey dots."""


def picture(rows: Sequence[Row]) -> bytes:
    """Test accuracy as SVG: a panel for each scenario, sets along x, a mark for each line."""
    with matplotlib.rc_context(STYLE):
        scenarios = [one for one in SCENARIOS if sets_in(rows, one)]
        figure = Figure(figsize=(11.5, 0.9 + 2.9 * len(scenarios)), layout="constrained")
        both = figure.subplots(len(scenarios), 2, squeeze=False, width_ratios=[3, 1])
        panels = both[:, 0]
        for (axes, beside), scenario in zip(both, scenarios, strict=True):
            _panel(axes, rows, scenario)
            _reliability_panel(beside, rows, scenario)
        handles: dict[Any, Any] = {}
        for axes in panels:
            handles |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
        figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=4)
        content = io.BytesIO()
        figure.savefig(content, format="svg", metadata={"Date": None})
    return content.getvalue()


def _panel(axes: Axes, rows: Sequence[Row], scenario: str) -> None:
    """Points above or below `BASE`, whose own accuracy would hide them: sets differ far more."""
    names = sets_in(rows, scenario)
    for number, line in enumerate(LINES):
        paired = [_differences(rows, scenario, name, line, "accuracy", BASE) for name in names]
        aside = 0.6 * (number / (len(LINES) - 1) - 0.5)  # so that equal marks stay apart
        places = [place + aside for place, values in enumerate(paired) if values]
        if not places or line == BASE:
            continue
        means = [-statistics.fmean(values) for values in paired if values]
        color, mark = _SHOWN.get(line, ("#bbbbbb", "."))
        label, size = (line if line in _SHOWN else "other lines"), 9 if line == DEFAULT else 5
        axes.plot(places, means, mark, color=color, ms=size, zorder=2 + (size > 5), label=label)
    axes.axhline(0, color="#333333", lw=1)
    axes.set_xticks(range(len(names)), [SETS[name].title.replace(", ", "\n") for name in names])
    axes.tick_params("x", labelsize=7)
    axes.set_ylabel(f"test accuracy minus {BASE}'s, points", fontsize=8)
    axes.set_title(SCENARIOS[scenario], loc="left")


def _reliability_panel(axes: Axes, rows: Sequence[Row], scenario: str) -> None:
    """What share of labels is wrong where keeprate gives each tenth of probabilities, by set."""
    own = [r for r in rows if r["line"] == DEFAULT and r["scenario"] == scenario]
    for name in sets_in(own, scenario):
        of_set = [row.get("reliability", []) for row in own if row["set"] == name]
        found = np.array([group for groups in of_set for group in groups]).reshape(-1, 3)
        tenth = np.minimum((found[:, 1] * 10).astype(int), 9)
        groups = [found[tenth == number] for number in range(10)]
        large = [group for group in groups if group[:, 0].sum() >= LEAST_IN_TENTH]
        points = [np.average(group[:, 1:], axis=0, weights=group[:, 0]) for group in large]
        said, happened = np.array(points).reshape(-1, 2).T
        axes.plot(said, happened, ".-", lw=1, ms=4, label=SETS[name].title)
    axes.plot([0, 1], [0, 1], color="#333333", lw=1)
    axes.set_xlabel("said probability of a wrong label", fontsize=8)
    axes.set_ylabel("share that is wrong", fontsize=8)
    axes.legend(fontsize=6)
    axes.set_title("reliability", loc="left")


# Page ------------------------------------------------------------------------------------------


def text(page: str, rows: Sequence[Row]) -> str:
    """The page with the tables of these rows in their places."""

    def filled(found: re.Match[str]) -> str:
        begin, what, end = found.groups()
        return begin + "".join(f"{line}\n" for line in _filling(what, rows)) + end

    return MARKED.sub(filled, page)


def _filling(what: str, rows: Sequence[Row]) -> list[str]:
    match what.split():
        case ["sets"]:
            return set_table(rows)
        case ["picture"]:
            words = (
                f"Left: test accuracy of all lines, in points above or below {BASE}. Right: "
                "the share of labels that are wrong, by the probability that keeprate gives"
            )
            return [f"![{words}](images/{PICTURE.name})"]
        case ["table", scenario, metric]:
            return metric_table(rows, scenario, metric)
        case ["ablations", metric]:
            return ablation_table(rows, metric)
        case ["differences", scenario, metric]:
            return difference_table(rows, scenario, metric)
    raise InputError(f"{PAGE.name} asks to fill {what!r}, which is nothing of the rows; mend it.")


def write(results: Path = RESULTS, page: Path = PAGE, image: Path = PICTURE) -> None:
    """Draw the picture, and fill the tables of the page."""
    rows = _rows(results)
    write_atomically(image, picture(rows))
    write_atomically(page, text(page.read_text(encoding="utf-8"), rows))
    print(page, image, sep="\n")


def check(results: Path = RESULTS, page: Path = PAGE) -> None:
    """Compare the tables of the page with what would be written now.

    Raises
    ------
    InputError
        If they differ.
    """
    written = page.read_text(encoding="utf-8")
    if written != text(written, _rows(results)):
        remedy = "run `python -m benchmarks.real_noise --draw` and commit what it writes"
        raise InputError(f"{page.name} is not current with the results file; {remedy}.")


def _rows(results: Path) -> list[Row]:
    stored = read_results("real_noise", "", results)
    if stored is None:
        raise InputError("there are no results; run `python -m benchmarks.real_noise` first.")
    rows: list[Row] = stored["rows"]
    return rows
