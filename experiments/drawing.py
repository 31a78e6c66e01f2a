"""The house look of the figures: colour-blind safe, mean line, range over seeds shaded."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from experiments import table4, table5, table6
from experiments.common import DATA_SETS, IMAGES, NOISES, RESULTS, Row, read_results
from experiments.comparison import Comparison, some_rows
from keeprate.files import write_atomically

TABLES = (table4.TABLE, table5.TABLE, table6.TABLE)

STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": "#bbbbbb",
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 10.0,
    "font.size": 9.0,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "keeprate",  # the same file from the same rows
    "xtick.color": "#555555",
    "ytick.color": "#555555",
}


@dataclass(frozen=True)
class Look:
    """How a line is drawn. Colours that are alike to some eyes have different dashes."""

    label: str
    color: str
    dashes: str | tuple[float, tuple[float, ...]] = "-"
    width: float = 1.4


LOOKS = {
    "standard": Look("Standard", "#999999"),
    "decoupling": Look("Decoupling", "#333333", (0, (1, 1.2))),
    "f-correction": Look("F-correction", "#8a63b0", (0, (4, 1.5))),
    "mentornet": Look("MentorNet", "#0a9373"),
    "co-teaching": Look("Co-teaching", "#2088C7", width=1.8),
    "co-teaching-plus": Look("Co-teaching+", "#56B4E9", (0, (4, 1.5))),
    "co-mining": Look("Co-Mining", "#B98500"),
    "jocor": Look("JoCoR", "#CC79A7", (0, (4, 1.2, 1, 1.2))),
    "jocor-searched": Look("JoCoR, searched R(t)", "#CC79A7", width=2.4),
    "proposed": Look("Proposed (searched R(t))", "#D55E00", width=2.4),
}
"""The colours of the README's picture, and the rest of Okabe and Ito's palette."""

SEQUENCE = (
    Look("", "#0072B2", width=1.8),
    Look("", "#D55E00", (0, (5, 1.5)), width=1.8),
    Look("", "#009E73", (0, (1.5, 1.2)), width=2.0),
)
"""For the values of a factor."""


def new_figure(n_rows: int, n_columns: int) -> tuple[Figure, NDArray[Any]]:
    """Panels [n_rows, n_columns]; to be called, and drawn into, within `STYLE`."""
    layout = ConstrainedLayoutEngine(hspace=0.08, wspace=0.04)
    figure = Figure(figsize=(3.5 * n_columns, 0.5 + 2.7 * n_rows), layout=layout)
    panels = figure.subplots(n_rows, n_columns, squeeze=False)
    for axes in panels.flat:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, steps=[1, 2, 5, 10]))
    return figure, panels


def band(axes: Axes, curves: NDArray[np.float64], look: Look) -> None:
    """Mean over seeds of curves [seeds, T], and their range if there are several."""
    epochs = np.arange(1, curves.shape[1] + 1)
    axes.plot(
        epochs, curves.mean(0), color=look.color, ls=look.dashes, lw=look.width, label=look.label
    )
    if len(curves) > 1:
        axes.fill_between(epochs, curves.min(0), curves.max(0), color=look.color, alpha=0.15, lw=0)


def grid(
    name: str,
    protocol: str,
    ylabel: str,
    panel: Callable[[Axes, Sequence[Row], str], None],
    *,
    results: Path = RESULTS,
    images: Path = IMAGES,
) -> list[Path]:
    """A row of panels for each data set with results, a column for each noise.

    Parameters
    ----------
    panel : callable
        Draws the rows of one data set and noise.

    Returns
    -------
    list of Path
        A PNG and an SVG.
    """
    some_rows(TABLES, protocol, results)
    there: list[tuple[Comparison, list[Row]]] = [
        (table, found["rows"])
        for table in TABLES
        if (found := read_results(table.name, protocol, results)) is not None
    ]
    with matplotlib.rc_context(STYLE):
        figure, panels = new_figure(len(there), len(NOISES))
        handles: dict[str, Any] = {}
        for line, (table, rows) in zip(panels, there, strict=True):
            data = table.protocol(protocol).data
            for axes, (noise, words) in zip(line, NOISES.items(), strict=True):
                chosen = [row for row in rows if row["noise"] == noise]
                axes.set_title(f"{DATA_SETS.get(data, data)}, {words}")
                if chosen:
                    panel(axes, chosen, noise)
                    seen = zip(*axes.get_legend_handles_labels(), strict=True)
                    handles |= {label: handle for handle, label in seen}
                else:
                    say(axes, "not yet run")
            line[0].set_ylabel(ylabel)
        for axes in panels[-1]:
            axes.set_xlabel("epoch")
        figure.legend(
            list(handles.values()),
            list(handles),
            loc="outside lower center",
            ncols=5,
            handlelength=3,
        )
        return save(figure, f"{name}-{protocol}", images)


def say(axes: Axes, words: str) -> None:
    """Words where nothing is known yet."""
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.text(0.5, 0.5, words, ha="center", color="#777777", transform=axes.transAxes)


def curves_of(rows: Sequence[Row], name: str, curve: str) -> NDArray[np.float64] | None:
    """A curve of every seed of one arm [seeds, T] in percent, or None."""
    found = [row["curves"][curve] for row in rows if row["name"] == name]
    found = [values for values in found if values]
    return 100 * np.array(found) if found else None


def save(figure: Figure, stem: str, images: Path) -> list[Path]:
    """Write a PNG and an SVG; no date or version in them, so that equal rows give equal files."""
    written = []
    for kind, without in (("png", "Software"), ("svg", "Date")):
        buffer = io.BytesIO()
        with matplotlib.rc_context(STYLE):
            figure.savefig(buffer, format=kind, dpi=150, metadata={without: None})
        path = images / f"{stem}.{kind}"
        write_atomically(path, buffer.getvalue())
        written.append(path)
    return written
