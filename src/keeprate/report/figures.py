"""Pictures of a run record.

A picture is drawn once and written twice: as PNG, and as SVG inside the page, where its neutral
colours become CSS variables so that they follow the reader's light or dark mode.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import cycle
from typing import Any

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from keeprate.text import cut

Record = Mapping[str, Any]
Floats = NDArray[np.float64]

# Neutral colours of the pictures and the page's variables that replace them there.
_INK, _MUTED, _GRID, _SURFACE = "#1f2431", "#5f6673", "#dfe2e8", "#fffffe"
_VARIABLES = {_INK: "--ink", _MUTED: "--muted", _GRID: "--grid", _SURFACE: "--surface"}

# Okabe and Ito's colour-blind safe palette, a little adapted to be read on white and on black.
_COLOURS = {"searched": "#d55e00", "co-teaching": "#1f84c6", "standard": "#80868f"}
_MORE_COLOURS = ("#c069a0", "#b98500", "#0a9373", "#8a6fd6", "#8f6a52", "#3aa6d8")
_TRIALS = LinearSegmentedColormap.from_list("trials", ["#b9bec6", "#5fb39b", "#00795a"], N=32)
_SHARES = LinearSegmentedColormap.from_list("shares", ["#eef1f4", "#7fb8d8", "#0b4f7d"], N=64)
MOST_TRIALS_SHOWN = 200

_STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": _GRID,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.labelcolor": _MUTED,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": _INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 10.0,
    "axes.titleweight": "bold",
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "grid.color": _GRID,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.labelcolor": _INK,
    "lines.linewidth": 2.0,
    "lines.solid_capstyle": "round",
    "savefig.dpi": 200,
    "svg.fonttype": "none",
    "text.color": _INK,
    "text.parse_math": False,  # a data set may be called "$x"
    "xtick.color": _MUTED,
    "xtick.major.size": 0.0,
    "ytick.color": _MUTED,
    "ytick.major.size": 0.0,
}

RUN_COLOURS = (_COLOURS["searched"], _COLOURS["co-teaching"], *_MORE_COLOURS, _COLOURS["standard"])

BEST_EPOCH = "best epoch on the test set, an optimistic number, as the literature reports it"


@contextmanager
def styled() -> Iterator[None]:
    """The pictures' style, whatever the reader's own."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()  # a reader's own matplotlibrc changes nothing here
        matplotlib.rcParams.update(_STYLE)
        # Names in a script that the font lacks show as boxes in the PNG, rightly in the page.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


# What the record says


def part(record: Record, name: str) -> Record:
    """A part of the record, empty if it is not there."""
    value = record.get(name)
    return value if isinstance(value, Mapping) else {}


def results_of(record: Record) -> list[Record]:
    """Results in the order in which they are drawn: what was found goes on top."""
    return list(record.get("results") or [])


def label_of(result: Record) -> str:
    """What a result is called."""
    return str(result.get("label") or result.get("name") or "unnamed")


def _colours(results: Sequence[Record]) -> list[str]:
    """Of each, in the order of the record, whose first is the run's own."""
    free = () if any(r.get("name") == "searched" for r in results) else (_COLOURS["searched"],)
    spare = cycle((*free, *_MORE_COLOURS))
    seen: set[str] = set()
    colours = []
    for result in results:
        name = str(result.get("name"))
        known = name in _COLOURS and name not in seen
        colours.append(_COLOURS[name] if known else next(spare))
        seen.add(name)
    return colours


def series(values: Any) -> Floats:
    """A curve in percent; unknown values are gaps."""
    return 100 * np.array([np.nan if v is None else v for v in values or ()], dtype=float)


def curve_of(result: Record, name: str) -> Floats:
    """A curve of a result, in percent."""
    return series(part(result, "curves").get(name))


def is_known(record: Record, curve: str) -> bool:
    """Whether any result has this curve."""
    return any(np.isfinite(curve_of(result, curve)).any() for result in results_of(record))


def best_trial(trials: Sequence[Record]) -> Record | None:
    """The complete trial with the best value."""
    done = [t for t in trials if t.get("value") is not None and t.get("state") == "complete"]
    return max(done, key=lambda trial: trial["value"], default=None)


def score_in_words(record: Record) -> str:
    """What trials are judged by."""
    noisy = part(record, "data").get("criterion") == "determinant"
    return "validation score" if noisy else "validation accuracy"


# Pictures


def new_figure(n_panels: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure of so many panels, side by side."""
    figure = Figure(figsize=(8.0, 3.8), layout="constrained")
    return figure, list(np.atleast_1d(figure.subplots(1, n_panels, sharey=False)))


def finish_figure(figure: Figure, panels: Sequence[Axes]) -> Figure:
    """Whole epochs on the axis, and one legend above for all panels."""
    handles: dict[str, Artist] = {}
    for axes in panels:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, steps=[1, 2, 5, 10]))
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    if handles:
        columns = len(handles) if sum(len(label) for label in handles) <= 90 else 2
        figure.legend(
            list(handles.values()),
            list(handles),
            loc="outside upper left",
            ncols=columns,
            columnspacing=1.6,
        )
    return figure


def _say(axes: Axes, text: str) -> None:
    axes.axis("off")
    axes.text(0.5, 0.5, text, ha="center", va="center", color=_MUTED, transform=axes.transAxes)


def plot_curve(axes: Axes, values: Floats, colour: str, label: str, **style: Any) -> None:
    """A curve over the epochs from 1."""
    epochs = np.arange(1, len(values) + 1)
    marker = "o" if len(values) == 1 else None
    axes.plot(epochs, values, color=colour, label=cut(label, 48), marker=marker, **style)


def _name_ends(axes: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """Write each curve's last value beside its end, moved apart where they would touch."""
    low, high = axes.get_ylim()
    gap = (high - low) * 0.062
    place = -np.inf
    for value, text, colour in sorted(ends):
        place = max(value, place + gap)
        axes.annotate(
            text,
            (1.015, place),
            xycoords=("axes fraction", "data"),
            color=colour,
            va="center",
            fontweight="bold",
            fontsize=9,
            annotation_clip=False,
        )


def _draw_keep_rate(record: Record) -> Figure:
    figure, (axes,) = new_figure()
    results = results_of(record)
    trials = [t for t in record.get("trials") or [] if t.get("keep_rate")]
    if not trials and not results:
        _say(axes, "No schedule has been tried yet.")
        return figure
    if trials:
        _draw_trials(figure, axes, trials, score_in_words(record))
    noise_rate = part(record, "data").get("noise_rate")
    if noise_rate is not None:
        right = 100 * (1 - noise_rate)
        axes.axhline(right, color=_MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=2)
        axes.annotate(
            f"share of right labels, {right:.0f} %",
            (0.0, right),
            xycoords=("axes fraction", "data"),
            xytext=(5, -6),
            textcoords="offset points",
            va="top",
            color=_MUTED,
            fontsize=8.5,
            bbox={"facecolor": _SURFACE, "edgecolor": "none", "pad": 1.5, "alpha": 0.85},
        )
    if results:
        for result, colour in _ordered(results):
            width = 3.0 if result.get("name") == "searched" else 2.0
            plot_curve(
                axes, series(result.get("keep_rate")), colour, label_of(result), linewidth=width
            )
    elif best := best_trial(trials):
        label = f"best so far, trial {best.get('number')}"
        plot_curve(axes, series(best["keep_rate"]), _COLOURS["searched"], label, linewidth=3.0)
    axes.set(xlabel="epoch", ylabel="keep rate R(t), %", ylim=(-2, 103))
    axes.margins(x=0.02)
    return finish_figure(figure, [axes])


def _ordered(results: Sequence[Record]) -> list[tuple[Record, str]]:
    """Results with their colours, the searched one last: it is drawn over the others."""
    pairs = list(zip(results, _colours(results), strict=True))
    return sorted(pairs, key=lambda pair: pair[0].get("name") == "searched")


def _draw_trials(figure: Figure, axes: Axes, trials: Sequence[Record], score: str) -> None:
    unscored = [t for t in trials if t.get("reached") is None]
    scored = sorted((t for t in trials if t.get("reached") is not None), key=lambda t: t["reached"])
    shown = np.unique(np.linspace(0, len(scored) - 1, MOST_TRIALS_SHOWN).round().astype(int))
    scored = [scored[i] for i in shown] if scored else []

    def lines(some: Sequence[Record], **style: Any) -> LineCollection:
        tables = [series(t["keep_rate"]) for t in some]
        points = [np.column_stack([np.arange(1, len(table) + 1), table]) for table in tables]
        return LineCollection(points, linewidths=1.0, alpha=0.55, zorder=1, **style)

    if unscored:
        axes.add_collection(
            lines(unscored[:MOST_TRIALS_SHOWN], colors=[_GRID], linestyles="dotted")
        )
    if scored:
        values = 100 * np.array([t["reached"] for t in scored])
        # The worst few trials would use up the whole scale: it starts at the lowest quarter.
        low, high = float(np.quantile(values, 0.25)), float(values.max())
        scale = Normalize(low, high if high > low else low + 1)
        axes.add_collection(lines(scored, array=values, cmap=_TRIALS, norm=scale))
        bar = figure.colorbar(
            ScalarMappable(scale, _TRIALS),
            ax=axes,
            fraction=0.025,
            pad=0.015,
            extend="min" if values.min() < low else "neither",
        )
        bar.set_label(f"trial's {score}, %")
        bar.outline.set_visible(False)
        bar.locator = MaxNLocator(nbins=5)
        bar.update_ticks()
    axes.autoscale_view()


def _draw_curves(record: Record) -> Figure:
    panels = [
        (curve, title)
        for curve, title in (
            ("test_accuracy", "Test accuracy, %"),
            ("validation_accuracy", "Validation accuracy, %"),
            ("train_loss", "Training loss"),
        )
        if is_known(record, curve)
    ][:2]
    if not panels:
        figure, (axes,) = new_figure()
        _say(axes, "No final training has been finished yet.")
        return figure
    figure, all_axes = new_figure(len(panels))
    for (curve, title), axes in zip(panels, all_axes, strict=True):
        _draw_panel(axes, record, curve)
        axes.set(title=title, xlabel="epoch")
        if curve == "test_accuracy":
            _mark_best(axes, record)
    return finish_figure(figure, all_axes)


def _draw_panel(axes: Axes, record: Record, curve: str) -> None:
    """One curve of every result, a dot and its value at the last epoch."""
    scale, unit = (0.01, 2) if curve == "train_loss" else (1.0, 1)
    ends = []
    for result, colour in _ordered(results_of(record)):
        values = scale * curve_of(result, curve)
        known = np.flatnonzero(np.isfinite(values))
        if not len(known):
            continue
        plot_curve(axes, values, colour, label_of(result))
        last = known[-1]
        axes.plot(last + 1, values[last], "o", color=colour, markersize=6, clip_on=False)
        ends.append((float(values[last]), f"{values[last]:.{unit}f}", colour))
    if curve != "train_loss":
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, -2.0), min(high, 101.5))
    _name_ends(axes, ends)


def _mark_best(axes: Axes, record: Record) -> None:
    marked = False
    for result, colour in _ordered(results_of(record)):
        values = curve_of(result, "test_accuracy")
        epoch = part(result, "best").get("epoch")
        if epoch is None or not 1 <= epoch <= len(values):
            continue
        axes.plot(
            epoch,
            values[epoch - 1],
            "o",
            color=colour,
            markerfacecolor=_SURFACE,
            markersize=7,
            markeredgewidth=1.8,
            zorder=4,
        )
        marked = True
    if marked:
        kinds = [("last epoch", _MUTED), ("best epoch on the test set", _SURFACE)]
        axes.legend(
            handles=[
                Line2D([], [], color=_MUTED, marker="o", linestyle="", mfc=face, label=name)
                for name, face in kinds
            ],
            loc="best",
            fontsize=8.5,
            labelcolor=_MUTED,
        )


def _draw_label_precision(record: Record) -> Figure:
    figure, (axes,) = new_figure()
    if not is_known(record, "label_precision"):
        _say(axes, "The true labels are not known, or no final training has been finished yet.")
        return figure
    _draw_panel(axes, record, "label_precision")
    axes.set(xlabel="epoch", ylabel="label precision, %")
    return finish_figure(figure, [axes])


def _draw_transition(record: Record) -> Figure:
    figure, (axes,) = new_figure()
    matrix = np.array(part(record, "noise_estimate").get("transition_matrix") or [[]])
    if not matrix.size:
        _say(axes, "No final training has been finished yet.")
        return figure
    side = len(matrix)
    figure.set_size_inches(8.0, 6.2)
    image = axes.imshow(100 * matrix, cmap=_SHARES, vmin=0, vmax=100)
    names = part(record, "data").get("class_names") or range(side)
    if side <= 30:
        labels = [cut(str(name), 14) for name in names]
        axes.set_yticks(range(side), labels)
        if max(map(len, labels)) > 3:
            axes.set_xticks(range(side), labels, rotation=45, ha="right", rotation_mode="anchor")
        else:
            axes.set_xticks(range(side), labels)
    if side <= 12:
        for i, j in np.argwhere(matrix >= 0.005):
            colour = "white" if matrix[i, j] > 0.55 else "#1c1c1c"
            text = f"{100 * matrix[i, j]:.0f}"
            axes.text(j, i, text, ha="center", va="center", color=colour, fontsize=9)
    axes.grid(False)
    axes.set(xlabel="given label", ylabel="class by the networks")
    bar = figure.colorbar(image, ax=axes, fraction=0.04, pad=0.02)
    bar.set_label("share of the class, %")
    bar.outline.set_visible(False)
    return figure


def inline_svg(figure: Figure, name: str) -> str:
    """The figure as SVG to be put into a page beside others: own ids, the page's colours."""
    text = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):  # the same ids at every run
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg, count=2)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    return svg.replace("<svg", f'<svg role="img" aria-label="{name.replace("_", " ")}"', 1)


FIGURES = {
    "keep_rate": _draw_keep_rate,
    "curves": _draw_curves,
    "label_precision": _draw_label_precision,
    "transition": _draw_transition,
}
