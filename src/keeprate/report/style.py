"""The look of all pictures: colours, axes, curves, and SVG for a page.

A picture is drawn once and written twice: as PNG, and as SVG inside the page. In the SVG the
neutral colours become CSS variables and follow the reader's light or dark mode.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from typing import Any, TypeVar

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from keeprate.records import Result
from keeprate.text import shortened

Floats = NDArray[np.float64]
Drawn = TypeVar("Drawn")

# Neutral colours of the pictures; in a page its variables replace them.
INK, MUTED, GRID, SURFACE = "#1f2431", "#5f6673", "#dfe2e8", "#fffffe"
_VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--grid", SURFACE: "--surface"}

# Okabe and Ito's colour-blind safe palette, a little adapted for white and for black paper.
OWN = "#d55e00"  # a run's own result
_CO_TEACHING, _STANDARD = "#1f84c6", "#80868f"
_MORE_COLOURS = ("#c069a0", "#b98500", "#0a9373", "#8a6fd6", "#8f6a52", "#3aa6d8")
RUN_COLOURS = (OWN, _CO_TEACHING, *_MORE_COLOURS, _STANDARD)
TRIALS = LinearSegmentedColormap.from_list("trials", ["#b9bec6", "#5fb39b", "#00795a"], N=32)
SHARES = LinearSegmentedColormap.from_list("shares", ["#eef1f4", "#7fb8d8", "#0b4f7d"], N=64)

_STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": GRID,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.labelcolor": MUTED,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 10.0,
    "axes.titleweight": "bold",
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "figure.figsize": (8.0, 3.8),  # of a picture with one panel, or with panels side by side
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "lines.linewidth": 2.0,
    "lines.solid_capstyle": "round",
    "svg.fonttype": "none",
    "text.color": INK,
    "text.parse_math": False,  # a data set may be called "$x"
    "xtick.color": MUTED,
    "xtick.major.size": 0.0,
    "ytick.color": MUTED,
    "ytick.major.size": 0.0,
}
_NARROW: dict[Any, Any] = {
    "figure.figsize": (4.6, 3.4)
}  # for phones: panels are one below the other
DPI = 200  # of a PNG, and of what an SVG holds as pixels
_LONGEST_LABEL = 48  # characters
_WIDEST_LEGEND = 90  # characters of all labels of a legend in one row


@contextmanager
def styled() -> Iterator[None]:
    """Draw in the style of the pictures, whatever the reader's own style."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()  # a reader's own matplotlibrc changes nothing here
        matplotlib.rcParams.update(_STYLE)
        # The PNG shows letters that the font lacks as boxes. The page shows them right.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        # Where many long texts leave no room, the picture is drawn without room for them.
        warnings.filterwarnings("ignore", message="constrained_layout not applied")
        yield


def colours_of(results: Sequence[Result]) -> list[str]:
    """A colour for each result; Co-teaching and Standard have the same colour in every record."""
    of_method = {"co-teaching": _CO_TEACHING, "standard": _STANDARD}
    spare = cycle(_MORE_COLOURS)
    colours = []
    for place, result in enumerate(results):
        colour = of_method.pop(result.name, None)
        colours.append(colour or (OWN if place == 0 else next(spare)))
    return colours


def new_figure(n_panels: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure with panels side by side; on narrow paper one below the other."""
    width, height = matplotlib.rcParams["figure.figsize"]
    n_rows = n_panels if is_narrow() else 1
    figure = Figure(figsize=(width, n_rows * height), dpi=DPI, layout="constrained")
    return figure, list(np.atleast_1d(figure.subplots(n_rows, n_panels // n_rows)))


def is_narrow() -> bool:
    """Whether pictures are drawn for phones."""
    return bool(matplotlib.rcParams["figure.figsize"][0] < 6)


def finish_figure(figure: Figure, panels: Sequence[Axes]) -> Figure:
    """Whole epochs on the axis, and one legend above for all panels."""
    handles: dict[str, Artist] = {}
    for axes in panels:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, steps=[1, 2, 5, 10]))
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    if handles:
        if is_narrow():  # one label a line
            figure.set_figheight(figure.get_figheight() + 0.17 * len(handles))
        fits_one_row = sum(len(label) for label in handles) <= _WIDEST_LEGEND
        figure.legend(
            list(handles.values()),
            list(handles),
            loc="outside upper left",
            ncols=1 if is_narrow() else len(handles) if fits_one_row else 2,
            columnspacing=1.6,
        )
    return figure


def write_in_place_of_curves(axes: Axes, text: str) -> None:
    """Say why a picture is empty."""
    axes.axis("off")
    axes.text(0.5, 0.5, text, ha="center", va="center", color=MUTED, transform=axes.transAxes)


def plot_curve(axes: Axes, values: Floats, colour: str, label: str, **style: Any) -> None:
    """Plot a curve over the epochs, from 1; a single epoch is a dot."""
    epochs = np.arange(1, len(values) + 1)
    marker = "o" if len(values) == 1 else None
    axes.plot(
        epochs, values, color=colour, label=shortened(label, _LONGEST_LABEL), marker=marker, **style
    )


def write_last_values(axes: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """Write last values beside the ends of their curves, moved apart where they would touch.

    Parameters
    ----------
    axes : Axes
    ends : sequence of (float, str, str)
        Where the curve ends, the text and its colour.
    """
    low, high = axes.get_ylim()
    gap = (high - low) * 0.062
    places: list[float] = []
    for value, _, _ in sorted(ends):
        places.append(max(value, places[-1] + gap if places else -np.inf))
    above = high  # many equal values would go on over the title: move these down again
    for i in reversed(range(len(places))):
        places[i] = min(places[i], above)
        above = places[i] - gap
    for (_, text, colour), place in zip(sorted(ends), places, strict=True):
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


def png(figure: Figure) -> bytes:
    """The figure on white."""
    _lay_out(figure)
    content = io.BytesIO()
    figure.set_facecolor("white")
    FigureCanvasAgg(figure).print_png(content)  # type: ignore[no-untyped-call]
    return content.getvalue()


def inline_svg(figure: Figure, ident: str, description: str) -> str:
    """The figure as SVG for a page that may hold others.

    Parameters
    ----------
    figure : Figure
    ident : str
        Begins every id inside the SVG; no other drawing of the page has the same.
    description : str
        For readers who do not see the picture.
    """
    _lay_out(figure)
    text = io.StringIO()
    figure.set_facecolor("none")
    with matplotlib.rc_context({"svg.hashsalt": ident}):  # the same ids at every run
        canvas = FigureCanvasSVG(figure)
        canvas.print_svg(text, metadata={"Date": None})  # type: ignore[no-untyped-call]
    figure.set_dpi(DPI)  # `print_svg` has made it 72
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg, count=2)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{ident}-", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    return svg.replace("<svg", f'<svg role="img" aria-label="{description}"', 1)


def on_narrow_paper(draw: Callable[[], Drawn]) -> Drawn:
    """Draw for phones."""
    with matplotlib.rc_context(_NARROW):
        return draw()


def inline_picture(wide: Figure, narrow: Figure, ident: str, description: str) -> str:
    """A picture for a page, drawn for wide screens and for phones: the page shows one of both."""
    parts = {
        "wide": inline_svg(wide, ident, description),
        "narrow": inline_svg(narrow, f"{ident}-narrow", description),
    }
    return "".join(f"<div class={name}-screen>{svg}</div>" for name, svg in parts.items())


def _lay_out(figure: Figure) -> None:
    """Find room for all texts, once: `Figure.savefig` would do so, and draw twice, each time."""
    engine = figure.get_layout_engine()
    if isinstance(engine, ConstrainedLayoutEngine):
        engine.execute(figure)
        figure.set_layout_engine("none")
        for axes in figure.axes:
            axes.set_facecolor("none")  # the paper's
