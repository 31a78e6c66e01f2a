"""Picture and page of `benchmarks.real_noise`, from its rows alone."""

from __future__ import annotations

import io
import re
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.common import RESULTS
from benchmarks.lines import DEFAULT, LINES
from benchmarks.noisy_sets import SCENARIOS, SETS
from benchmarks.real_noise_tables import (
    BASE,
    ablation_table,
    difference_table,
    differences,
    goal_table,
    metric_table,
    set_table,
    sets_in,
)
from experiments.common import Row, read_results
from experiments.drawing import STYLE
from keeprate import InputError
from keeprate.files import write_atomically

DOCS = Path(__file__).parents[1] / "docs"
PAGE, PICTURE = DOCS / "real-noise.md", DOCS / "images" / "real-noise.svg"
MARKED = re.compile(r"(<!-- fill: ([a-z_ ]+) -->\n).*?(<!-- end -->)", re.DOTALL)
"""What the page gets from the rows stands between such a comment and `<!-- end -->`.

`fill: sets`, `fill: picture`, `fill: goals SCENARIO`, `fill: table SCENARIO METRIC`,
`fill: differences SCENARIO METRIC` or `fill: ablations METRIC`.
"""


# Picture ---------------------------------------------------------------------------------------

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
        figure = Figure(figsize=(12.5, 0.9 + 2.9 * len(scenarios)), layout="constrained")
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
        paired = [differences(rows, scenario, name, line, "accuracy", BASE) for name in names]
        aside = 0.6 * (number / (len(LINES) - 1) - 0.5)  # so that equal marks stay apart
        places = [place + aside for place, values in enumerate(paired) if values]
        if not places or line == BASE:
            continue
        means = [-statistics.fmean(values) for values in paired if values]
        color, mark = _SHOWN.get(line, ("#bbbbbb", "."))
        label, size = (line if line in _SHOWN else "other lines"), 9 if line == DEFAULT else 5
        axes.plot(places, means, mark, color=color, ms=size, zorder=2 + (size > 5), label=label)
    axes.axhline(0, color="#333333", lw=1)
    axes.set_xticks(range(len(names)), [_on_two_lines(SETS[name].title) for name in names])
    axes.tick_params("x", labelsize=6)
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
    axes.legend(fontsize=6, loc="center left", bbox_to_anchor=(1, 0.5))  # beside the lines
    axes.set_title("reliability", loc="left")


def _on_two_lines(title: str) -> str:
    """A long title of a set, cut where it names a part."""
    return title.replace(" % symmetric", "%").replace(", ", "\n").replace(" ", "\n", 1)


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
        case ["goals", scenario]:
            return goal_table(rows, scenario)
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
