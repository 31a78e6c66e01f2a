"""Pieces of docs/results.md: paragraphs, tables, images, and protocols in words."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from experiments.common import DATA_SETS, Row
from experiments.comparison import Arm, percent, rows_of
from experiments.rows import in_words, mean_std
from keeprate.searching import Budget

COLUMNS = (
    ("last epoch", "last", "test_accuracy"),
    ("best epoch", "best", "test_accuracy"),
    ("label precision, last epoch", "last", "label_precision"),
)
NOTHING = "–"


def paragraph(words: str, indent: str = "") -> str:
    """A paragraph, or with an indent the item of a list, in lines of 100 characters."""
    return textwrap.fill(
        words, 100, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    """A table, line by line."""
    rows = [header, ["---"] * len(header), *lines]
    return ["| " + " | ".join(row) + " |" for row in rows]


def image(stem: str, words: str) -> str:
    """A picture of `images/results`, and a link to its SVG."""
    path = f"images/results/{stem}"
    return f"![{words}]({path}.png)\n\n([as SVG]({path}.svg))"


def missing_in_words(missing: Sequence[str]) -> str:
    """What a results file still lacks."""
    return f"Missing: {'; '.join(missing)}." if missing else "Complete."


def bold_best(columns: list[list[str]], values: list[list[float | None]]) -> None:
    """Mark the cell with the highest value of each column, if it has rivals."""
    for column, numbers in zip(columns, values, strict=True):
        known = [number for number in numbers if number is not None]
        if len(known) > 1:
            best = numbers.index(max(known))
            column[best] = f"**{column[best]}**"


def labelled(labels: Sequence[str], columns: Sequence[Sequence[str]]) -> list[list[str]]:
    """The lines of a table from its columns, each with a label in front."""
    return [
        [label, *cells] for label, cells in zip(labels, zip(*columns, strict=True), strict=True)
    ]


# Tables of arms --------------------------------------------------------------------------------


def arms_header(*, with_paper: bool) -> list[str]:
    """The header for `arms_lines`."""
    names = [name for name, _, _ in COLUMNS]
    if with_paper:
        names.insert(2, "best epoch, paper")
    return ["", *names, "seeds"]


def arms_lines(
    arms: Sequence[Arm], rows: Sequence[Row], noise: str, paper: dict[tuple[str, str], Any]
) -> list[list[str]]:
    """A line for each arm under one noise: our numbers, the paper's if it has any, seeds.

    The best is bold, among the arms with the most seeds.
    """
    columns: list[list[str]] = []
    means: list[list[float | None]] = []
    for _, when, metric in COLUMNS:
        values = [percent(rows_of(rows, noise, arm.name), when, metric) for arm in arms]
        columns.append([in_words(*mean_std(of_arm)) if of_arm else NOTHING for of_arm in values])
        most = max(1, *map(len, values))
        means.append([mean_std(of_arm)[0] if len(of_arm) == most else None for of_arm in values])
    bold_best(columns, means)
    if paper:
        numbers = [paper.get((noise, arm.paper_label)) for arm in arms]
        columns.insert(2, [NOTHING if pair is None else in_words(*pair) for pair in numbers])
    columns.append([str(len(rows_of(rows, noise, arm.name))) for arm in arms])
    return labelled([arm.label for arm in arms], columns)


# Protocols in words ----------------------------------------------------------------------------


def protocol_in_words(protocol: Row) -> str:
    """The protocol of a table, as its results file holds it."""
    limit, data = protocol["limit"], protocol["data"]
    size = "all training samples" if limit is None else f"{limit:,} training samples"
    return (
        f"{DATA_SETS.get(data, data)}, {size}; {protocol['model']}, {protocol['epochs']} epochs, "
        f"batch {protocol['batch_size']}, {protocol['optimizer']} {protocol['learning_rate']:g}, "
        f"{protocol['lr_schedule']}; searches of {search_in_words(protocol)}; "
        f"{protocol['seeds']} seeds."
    )


def search_in_words(protocol: Row) -> str:
    """The searches of a protocol, as its results file holds it."""
    if "trials" in protocol:  # in files of earlier code
        return f"{protocol['trials']} trials by an earlier search"
    budget = Budget.parse(protocol["budget"])
    size = str(budget) if budget.unit == "trials" else f"the price of {budget}"
    begins = "" if protocol["warm_start"] else ", which begin with nothing"
    return f"{size} ({protocol['sampler']}{begins})"
