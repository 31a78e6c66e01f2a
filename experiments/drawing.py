"""The look of the figures: colour-blind safe; a mean line, the range over seeds shaded."""

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
from experiments.common import DATA_SETS, IMAGES, NOISES, RESULTS, Row
from experiments.comparison import rows_to_draw
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
    "svg.hashsalt": "keeprate",  # equal rows give equal files
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
    "auto": Look("keeprate train, by default", "#000000", (0, (4, 1.2, 1, 1.2))),
    "proposed-6": Look("Proposed, 6 trials", "#D55E00", (0, (4, 1.5)), width=1.8),
    "proposed": Look("Proposed (searched R(t))", "#D55E00", width=2.4),
}
"""Of the arms of Tables 4 to 6: the colours of the README's picture and Okabe and Ito's."""

SEQUENCE = (
    Look("", "#0072B2", width=1.8),
    Look("", "#D55E00", (0, (5, 1.5)), width=1.8),
    Look("", "#009E73", (0, (1.5, 1.2)), width=2.0),
)
"""Of the values of a factor, in their order."""


def new_figure(n_rows: int, n_columns: int) -> tuple[Figure, NDArray[Any]]:
    """A figure and its panels [n_rows, n_columns]; call it, and draw, within `STYLE`."""
    layout = ConstrainedLayoutEngine(hspace=0.08, wspace=0.04)
    figure = Figure(figsize=(3.5 * n_columns, 0.5 + 2.7 * n_rows), layout=layout)
    panels = figure.subplots(n_rows, n_columns, squeeze=False)
    for axes in panels.flat:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, steps=[1, 2, 5, 10]))
    return figure, panels


def band(axes: Axes, curves: NDArray[np.float64], look: Look) -> None:
    """Draw the mean of curves [seeds, T], and their range if there are several."""
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
    """Draw a row of panels for each data set that has results, a column for each noise.

    Parameters
    ----------
    name, protocol : str
        Name the picture's files.
    ylabel : str
    panel : callable
        Draws the rows of a data set under a noise: takes axes, rows, noise.
    results, images : Path
        Folders.

    Returns
    -------
    list of Path
        A PNG and an SVG.
    """
    with_rows = rows_to_draw(TABLES, protocol, results)
    with matplotlib.rc_context(STYLE):
        figure, panels = new_figure(len(with_rows), len(NOISES))
        handles: dict[str, Any] = {}
        for row_of_panels, (table, rows) in zip(panels, with_rows, strict=True):
            data = table.protocol(protocol).data
            for axes, (noise, words) in zip(row_of_panels, NOISES.items(), strict=True):
                axes.set_title(f"{DATA_SETS.get(data, data)}, {words}")
                rows_of_noise = [row for row in rows if row["noise"] == noise]
                if not rows_of_noise:
                    write_words(axes, "not yet run")
                    continue
                panel(axes, rows_of_noise, noise)
                drawn = zip(*axes.get_legend_handles_labels(), strict=True)
                handles |= {label: handle for handle, label in drawn}
            row_of_panels[0].set_ylabel(ylabel)
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


def write_words(axes: Axes, words: str) -> None:
    """Write words into a panel that has nothing to show."""
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.text(0.5, 0.5, words, ha="center", color="#777777", transform=axes.transAxes)


def curves_of(rows: Sequence[Row], name: str, metric: str) -> NDArray[np.float64] | None:
    """The curves of an arm [seeds, T] in percent; None if it was not measured."""
    curves = [row["curves"][metric] for row in rows if row["name"] == name]
    measured = [curve for curve in curves if curve]
    return 100 * np.array(measured) if measured else None


def save(figure: Figure, stem: str, images: Path) -> list[Path]:
    """Write a PNG and an SVG without date and version: equal rows give equal files."""
    paths = []
    for kind, left_out in (("png", "Software"), ("svg", "Date")):
        buffer = io.BytesIO()
        with matplotlib.rc_context(STYLE):
            figure.savefig(buffer, format=kind, dpi=150, metadata={left_out: None})
        path = images / f"{stem}.{kind}"
        write_atomically(path, buffer.getvalue())
        paths.append(path)
    return paths
