"""Pictures and one self-contained page from a run record; reads nothing but the record.

A picture is drawn once and written twice: as PNG, and as SVG inside the page, where its neutral
colours become CSS variables so that they follow the reader's light or dark mode.
"""

from __future__ import annotations

import io
import json
import re
import warnings
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
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

from keeprate.files import write_atomically

Record = Mapping[str, Any]
Floats = NDArray[np.float64]

# Neutral colours of the pictures and the page's variables that replace them there.
_INK, _MUTED, _GRID, _SURFACE = "#1f2431", "#5f6673", "#dfe2e8", "#fffffe"
_VARIABLES = {_INK: "--ink", _MUTED: "--muted", _GRID: "--grid", _SURFACE: "--surface"}

# Okabe and Ito's colour-blind safe palette, a little adapted to be read on white and on black.
_COLOURS = {"searched": "#d55e00", "co-teaching": "#1f84c6", "standard": "#80868f"}
_MORE_COLOURS = ("#c069a0", "#b98500", "#3aa6d8", "#0a9373")
_TRIALS = LinearSegmentedColormap.from_list("trials", ["#b9bec6", "#5fb39b", "#00795a"], N=32)
_MOST_TRIALS_SHOWN = 200

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

_BEST_EPOCH = "best epoch on the test set, an optimistic number, as the literature reports it"

_CHOSEN_BY = "accuracy on the validation samples, which chose the schedule,"


def write_plots(record: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write `keep_rate.png`, `curves.png`, `label_precision.png` and `report.html`.

    Parameters
    ----------
    record
        A run record as a plain JSON object. Rates and accuracies lie in [0, 1], epochs count
        from 1. A record without results, of a search under way, gives the pictures of its
        trials; what a record does not know is said in words.
    folder
        Where to write; made if it does not exist. Each file is replaced as a whole.

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
    written, drawings = [], {}
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()  # a reader's own matplotlibrc changes nothing here
        matplotlib.rcParams.update(_STYLE)
        # Names in a script that the font lacks show as boxes in the PNG, rightly in the page.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        for name, draw in (
            ("keep_rate", _draw_keep_rate),
            ("curves", _draw_curves),
            ("label_precision", _draw_label_precision),
        ):
            figure = draw(record)
            png = io.BytesIO()
            figure.savefig(png, format="png", facecolor="white")
            write_atomically(folder / f"{name}.png", png.getvalue())
            written.append(folder / f"{name}.png")
            drawings[name] = _inline_svg(figure, name)
    write_atomically(folder / "report.html", _page(record, drawings))
    return [*written, folder / "report.html"]


# What the record says


def _part(record: Record, name: str) -> Record:
    value = record.get(name)
    return value if isinstance(value, Mapping) else {}


def _results(record: Record) -> list[Record]:
    """Results in the order in which they are drawn: what was found goes on top."""
    return list(record.get("results") or [])


def _label(result: Record) -> str:
    return str(result.get("label") or result.get("name") or "unnamed")


def _colours(results: Sequence[Record]) -> list[str]:
    spare = iter(_MORE_COLOURS * (len(results) // len(_MORE_COLOURS) + 1))
    seen: set[str] = set()
    colours = []
    for result in results:
        name = str(result.get("name"))
        known = name in _COLOURS and name not in seen
        colours.append(_COLOURS[name] if known else next(spare))
        seen.add(name)
    return colours


def _series(values: Any) -> Floats:
    """A curve in percent; unknown values are gaps."""
    return 100 * np.array([np.nan if v is None else v for v in values or ()], dtype=float)


def _curve(result: Record, name: str) -> Floats:
    return _series(_part(result, "curves").get(name))


def _known(record: Record, curve: str) -> bool:
    return any(np.isfinite(_curve(result, curve)).any() for result in _results(record))


def _percent(value: Any, places: int = 1) -> str:
    return "\N{EN DASH}" if value is None else f"{100 * value:.{places}f} %"


def _duration(seconds: Any) -> str:
    if seconds is None:
        return "\N{EN DASH}"
    if seconds < 120:
        return f"{seconds:.1f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def _best_trial(trials: Sequence[Record]) -> Record | None:
    done = [t for t in trials if t.get("value") is not None and t.get("state") == "complete"]
    return max(done, key=lambda trial: trial["value"], default=None)


# Pictures


def _shorten(text: str, most: int = 48) -> str:
    return text if len(text) <= most else text[: most - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _new_figure(n_panels: int = 1) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(8.0, 3.8), layout="constrained")
    return figure, list(np.atleast_1d(figure.subplots(1, n_panels, sharey=False)))


def _finish(figure: Figure, panels: Sequence[Axes]) -> Figure:
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


def _plot(axes: Axes, values: Floats, colour: str, label: str, **style: Any) -> None:
    epochs = np.arange(1, len(values) + 1)
    marker = "o" if len(values) == 1 else None
    axes.plot(epochs, values, color=colour, label=_shorten(label), marker=marker, **style)


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
    figure, (axes,) = _new_figure()
    results = _results(record)
    trials = [t for t in record.get("trials") or [] if t.get("keep_rate")]
    if not trials and not results:
        _say(axes, "No schedule has been tried yet.")
        return figure
    if trials:
        _draw_trials(figure, axes, trials)
    noise_rate = _part(record, "data").get("noise_rate")
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
            _plot(axes, _series(result.get("keep_rate")), colour, _label(result), linewidth=width)
    elif best := _best_trial(trials):
        label = f"best so far, trial {best.get('number')}"
        _plot(axes, _series(best["keep_rate"]), _COLOURS["searched"], label, linewidth=3.0)
    axes.set(xlabel="epoch", ylabel="keep rate R(t), %", ylim=(-2, 103))
    axes.margins(x=0.02)
    return _finish(figure, [axes])


def _ordered(results: Sequence[Record]) -> list[tuple[Record, str]]:
    """Results with their colours, the searched one last: it is drawn over the others."""
    pairs = list(zip(results, _colours(results), strict=True))
    return sorted(pairs, key=lambda pair: pair[0].get("name") == "searched")


def _draw_trials(figure: Figure, axes: Axes, trials: Sequence[Record]) -> None:
    unscored = [t for t in trials if t.get("reached") is None]
    scored = sorted((t for t in trials if t.get("reached") is not None), key=lambda t: t["reached"])
    shown = np.unique(np.linspace(0, len(scored) - 1, _MOST_TRIALS_SHOWN).round().astype(int))
    scored = [scored[i] for i in shown] if scored else []

    def lines(some: Sequence[Record], **style: Any) -> LineCollection:
        tables = [_series(t["keep_rate"]) for t in some]
        points = [np.column_stack([np.arange(1, len(table) + 1), table]) for table in tables]
        return LineCollection(points, linewidths=1.0, alpha=0.55, zorder=1, **style)

    if unscored:
        axes.add_collection(
            lines(unscored[:_MOST_TRIALS_SHOWN], colors=[_GRID], linestyles="dotted")
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
        bar.set_label("trial's validation accuracy, %")
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
        if _known(record, curve)
    ][:2]
    if not panels:
        figure, (axes,) = _new_figure()
        _say(axes, "No final training has been finished yet.")
        return figure
    figure, all_axes = _new_figure(len(panels))
    for (curve, title), axes in zip(panels, all_axes, strict=True):
        _draw_panel(axes, record, curve)
        axes.set(title=title, xlabel="epoch")
        if curve == "test_accuracy":
            _mark_best(axes, record)
    return _finish(figure, all_axes)


def _draw_panel(axes: Axes, record: Record, curve: str) -> None:
    """One curve of every result, a dot and its value at the last epoch."""
    scale, unit = (0.01, 2) if curve == "train_loss" else (1.0, 1)
    ends = []
    for result, colour in _ordered(_results(record)):
        values = scale * _curve(result, curve)
        known = np.flatnonzero(np.isfinite(values))
        if not len(known):
            continue
        _plot(axes, values, colour, _label(result))
        last = known[-1]
        axes.plot(last + 1, values[last], "o", color=colour, markersize=6, clip_on=False)
        ends.append((float(values[last]), f"{values[last]:.{unit}f}", colour))
    if curve != "train_loss":
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, -2.0), min(high, 101.5))
    _name_ends(axes, ends)


def _mark_best(axes: Axes, record: Record) -> None:
    marked = False
    for result, colour in _ordered(_results(record)):
        values = _curve(result, "test_accuracy")
        epoch = _part(result, "best").get("epoch")
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
    figure, (axes,) = _new_figure()
    if not _known(record, "label_precision"):
        _say(axes, "The true labels are not known, or no final training has been finished yet.")
        return figure
    _draw_panel(axes, record, "label_precision")
    axes.set(xlabel="epoch", ylabel="label precision, %")
    return _finish(figure, [axes])


def _inline_svg(figure: Figure, name: str) -> str:
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


# The page


def _page(record: Record, drawings: Mapping[str, str]) -> str:
    """Fill the template; everything that comes from the record is escaped here."""
    versions = ", ".join(f"{k} {v}" for k, v in _part(record, "versions").items())
    details = {"config": record.get("config"), "versions": record.get("versions")}
    words = {
        "name": str(_part(record, "data").get("name", "run")),
        "title": _title(record),
        "data": _data_in_words(record),
        "finding": _finding(record),
        "trials": _trials_in_words(record),
        "curves_caption": _curves_in_words(record),
        "cost": _cost_in_words(record) + (f" Made with {versions}." if versions else ""),
        "command": str(record.get("command") or "not recorded"),
        "details": json.dumps(details, indent=2, ensure_ascii=False, default=str),
    }
    template = Template(files("keeprate").joinpath("report.html").read_text(encoding="utf-8"))
    return template.substitute(
        {name: escape(text) for name, text in words.items()},
        results=_results_table(record),
        **drawings,
    )


def _title(record: Record) -> str:
    name = _part(record, "data").get("name", "an unnamed data set")
    what = "A searched keep-rate schedule on" if record.get("kind") == "search" else "Training on"
    return f"{what} {name}"


def _data_in_words(record: Record) -> str:
    data = _part(record, "data")
    parts = [
        f"{data[key]:,} {words}"
        for key, words in (
            ("n_train", "training samples"),
            ("n_validation", "for validation"),
            ("n_test", "for test"),
            ("n_classes", "classes"),
        )
        if isinstance(data.get(key), int)
    ]
    if data.get("noise_rate") is not None:
        parts.append(f"{_percent(data['noise_rate'])} of the training labels wrong")
    if data.get("validation_labels"):
        parts.append(f"validation labels {data['validation_labels']}")
    return ", ".join(parts)


def _finding(record: Record) -> str:
    results = {str(r.get("name")): r for r in reversed(_results(record))}
    if not results:
        best = _best_trial(list(record.get("trials") or []))
        if best is None:
            return "No trial has been finished yet."
        return (
            "The search is not finished: the best trial so far has "
            f"{_percent(best['value'])} validation accuracy."
        )
    key = "test_accuracy" if _known(record, "test_accuracy") else "validation_accuracy"
    words = "test accuracy" if key == "test_accuracy" else _CHOSEN_BY

    def last(name: str) -> float | None:
        value: float | None = _part(results.get(name, {}), "last").get(key)
        return value

    found = last("searched")
    rivals = [
        f"{_label(results[name])} at {_percent(value)}"
        for name in ("co-teaching", "standard")
        if (value := last(name)) is not None
    ]
    if found is None:
        return ""
    against = f"; {' and '.join(rivals)}" if rivals else ""
    return f"The searched schedule ends at {_percent(found)} {words}{against}."


def _trials_in_words(record: Record) -> str:
    trials = list(record.get("trials") or [])
    if not trials:
        return ""
    words = {"short": "in fewer epochs"}
    states = [words.get(str(state), str(state)) for state in (t.get("state") for t in trials)]
    counts = ", ".join(f"{states.count(s)} {s}" for s in dict.fromkeys(states))
    again = sum(trial.get("confirms") is not None for trial in trials)
    counts += f", of which {again} trained the best ones again" if again else ""
    shown = " (a sample of them is drawn)" if len(trials) > _MOST_TRIALS_SHOWN else ""
    return f"Thin lines: the schedules tried{shown}; {counts}."


def _curves_in_words(record: Record) -> str:
    if not _known(record, "test_accuracy"):
        return "Dots and numbers: the last epoch."
    return f"Dots and numbers: the last epoch. Rings: {_BEST_EPOCH}."


def _cost_in_words(record: Record) -> str:
    cost = _part(record, "cost")
    parts = []
    if cost.get("search_seconds") is not None:
        parts.append(f"{_duration(cost['search_seconds'])} of search")
    if cost.get("final_seconds") is not None:
        parts.append(f"{_duration(cost['final_seconds'])} of final training")
    if cost.get("candidate_epochs"):
        parts.append(f"{cost['candidate_epochs']:,} candidate epochs")
    if cost.get("full_trainings"):
        parts.append(f"the epochs of {cost['full_trainings']:g} full trainings")
    text = ", ".join(parts)
    return text[:1].upper() + text[1:] + "." if text else "Not recorded."


def _results_table(record: Record) -> str:
    results = _results(record)
    if not results:
        return "<p>No final training has been finished yet.</p>"
    columns = [
        ("Test accuracy, last", "last", "test_accuracy"),
        ("at its best epoch", "best", "test_accuracy"),
        ("Validation accuracy, last", "last", "validation_accuracy"),
        ("Label precision, last", "last", "label_precision"),
    ]
    columns = [c for c in columns if any(_part(r, c[1]).get(c[2]) is not None for r in results)]
    head = "".join(f"<th scope=col>{escape(title)}</th>" for title, _, _ in columns)
    rows = []
    for result in results:
        cells = [_label(result)]
        for _, when, key in columns:
            value, epoch = _part(result, when).get(key), _part(result, when).get("epoch")
            at = f" (epoch {epoch})" if when == "best" and epoch is not None else ""
            cells.append(_percent(value) + at)
        cells.append(_duration(result.get("seconds")))
        mark = " class=first" if result.get("name") == "searched" else ""
        rows.append(f"<tr{mark}>" + "".join(f"<td>{escape(c)}</td>" for c in cells) + "</tr>")
    has_best = any(when == "best" for _, when, _ in columns)
    caption = f"<caption>Best epoch: {escape(_BEST_EPOCH)}.</caption>" if has_best else ""
    return (
        f"<div class=scroll><table>{caption}<thead><tr><th scope=col>Schedule</th>{head}"
        f"<th scope=col>Time</th></tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )
