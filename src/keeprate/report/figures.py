"""The pictures of a run record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from keeprate.records import Result, RunRecord, TrialSummary, VerificationRecord
from keeprate.report.facts import (
    MOST_TRIALS_SHOWN,
    SEARCHED,
    Measure,
    best_trial,
    has_label_precision,
    has_test_accuracy,
    on_test,
    on_validation,
)
from keeprate.report.style import (
    GRID,
    MUTED,
    OWN,
    RUN_COLOURS,
    SHARES,
    SURFACE,
    TRIALS,
    Floats,
    colours_of,
    finish_figure,
    is_narrow,
    new_figure,
    plot_curve,
    write_in_place_of_curves,
    write_last_values,
)
from keeprate.text import is_share, shortened

NO_RESULTS = "No final training has finished yet."
NO_SCHEDULES = "No schedule has been tried yet."
_LONGEST_LIST, _LOWEST_RATE = 28, 1e-7  # of a name of pairs; of the axis of a ROC curve
_MOST_NAMED, _MOST_NUMBERED = 30, 12  # classes of a transition matrix


@dataclass(frozen=True)
class Panel:
    """One curve of every result.

    Attributes
    ----------
    title : str
    curve : callable
        From a result to its values, one an epoch.
    scale : float
        From the values to what the axis shows.
    places : int
        Decimals of the values at the last epoch.
    is_share : bool
        Whether the axis shows percent.
    """

    title: str
    curve: Callable[[Result], Sequence[float]]
    scale: float = 100.0
    places: int = 1
    is_share: bool = True

    @classmethod
    def of(cls, measure: Measure) -> Panel:
        """The curves of a measure, in percent where it is an accuracy."""
        title = f"{measure.name[:1].upper()}{measure.name[1:]}"
        if is_share(measure.criterion):
            return cls(f"{title}, %", measure.curve)
        return cls(title, measure.curve, scale=1.0, places=3, is_share=False)


_LOSS = Panel("Training loss", lambda one: one.curves.train_loss, 1.0, 2, is_share=False)
_PRECISION = Panel("Label precision, %", lambda result: result.curves.label_precision)


def in_percent(shares: Sequence[float] | Floats) -> Floats:
    """Shares in [0, 1] as an array in percent."""
    return 100 * np.asarray(shares, dtype=np.float64)


def _runs_result_last(results: Sequence[Result]) -> list[tuple[Result, str]]:
    """Results and their colours in the order of drawing: the run's own last."""
    own_first = list(zip(results, colours_of(results), strict=True))
    return own_first[1:] + own_first[:1]


# Schedules


def draw_keep_rate(record: RunRecord) -> Figure:
    """Draw the schedules of the trials and of the final trainings."""
    figure, (axes,) = new_figure()
    if not record.trials and not record.results:
        write_in_place_of_curves(axes, NO_SCHEDULES)
        return figure
    if record.trials:
        _draw_trials(figure, axes, record)
    if record.data.noise_rate is not None:
        _mark_right_labels(axes, record.data.noise_rate)
    for result, colour in _runs_result_last(record.results):
        width = 3.0 if result.name == SEARCHED else 2.0
        keep_rate = in_percent(result.schedule.keep_rate)
        plot_curve(axes, keep_rate, colour, result.label, linewidth=width)
    if not record.results and (best := best_trial(record.trials)) is not None:
        label = f"best so far, trial {best.number}"
        plot_curve(axes, in_percent(best.keep_rate), OWN, label, linewidth=3.0)
    axes.set(xlabel="epoch", ylabel="keep rate R(t), %", ylim=(-2, 103))
    axes.margins(x=0.02)
    return finish_figure(figure, [axes])


def _mark_right_labels(axes: Axes, noise_rate: float) -> None:
    share = 100 * (1 - noise_rate)
    axes.axhline(share, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=2)
    axes.annotate(
        f"share of right labels, {share:.0f} %",
        (0.0, share),
        xycoords=("axes fraction", "data"),
        xytext=(5, -6),
        textcoords="offset points",
        va="top",
        color=MUTED,
        fontsize=8.5,
        bbox={"facecolor": SURFACE, "edgecolor": "none", "pad": 1.5, "alpha": 0.85},
    )


def _draw_trials(figure: Figure, axes: Axes, record: RunRecord) -> None:
    """Draw a thin line for each trial, coloured by the score that the trial reached."""
    trials = record.trials
    scores = {trial.number: trial.reached for trial in trials if trial.reached is not None}
    failed = [trial for trial in trials if trial.number not in scores][:MOST_TRIALS_SHOWN]
    scored = sorted(
        (trial for trial in trials if trial.number in scores),
        key=lambda trial: scores[trial.number],
    )
    if len(scored) > MOST_TRIALS_SHOWN:
        places = np.linspace(0, len(scored) - 1, MOST_TRIALS_SHOWN).round().astype(int)
        scored = [scored[place] for place in places]
    if failed:
        lines = _thin_lines(failed)
        lines.set(color=GRID, linestyle="dotted")
        axes.add_collection(lines)
    if scored:
        criterion = record.data.criterion
        has_share = is_share(criterion)
        values = np.array([scores[trial.number] for trial in scored]) * (100 if has_share else 1)
        # The few worst trials would use up the whole scale: the scale begins at the lowest quarter.
        low, high = float(np.quantile(values, 0.25)), float(values.max())
        scale = Normalize(low, high if high > low else low + (1 if has_share else 0.01))
        lines = _thin_lines(scored)
        lines.set(array=values, cmap=TRIALS, norm=scale)
        axes.add_collection(lines)
        name = "score" if criterion == "determinant" else criterion
        label = f"trial's validation {name}{', %' if has_share else ''}"
        _add_colour_bar(figure, axes, scale, label, goes_below=bool(values.min() < low))
    axes.autoscale_view()


def _thin_lines(trials: Sequence[TrialSummary]) -> LineCollection:
    points = [
        np.column_stack([np.arange(1, len(trial.keep_rate) + 1), in_percent(trial.keep_rate)])
        for trial in trials
    ]
    return LineCollection(points, linewidths=1.0, alpha=0.55, zorder=1)


def _add_colour_bar(
    figure: Figure, axes: Axes, scale: Normalize, label: str, *, goes_below: bool
) -> None:
    bar = figure.colorbar(
        ScalarMappable(scale, TRIALS),
        ax=axes,
        fraction=0.025,
        pad=0.015,
        extend="min" if goes_below else "neither",
    )
    bar.set_label(label)
    bar.outline.set_visible(False)
    bar.locator = MaxNLocator(nbins=5)
    bar.update_ticks()


# Curves over the epochs


def draw_curves(record: RunRecord) -> Figure:
    """Draw test and validation scores; without a test split validation scores and the loss."""
    if not record.results:
        figure, (axes,) = new_figure()
        write_in_place_of_curves(axes, NO_RESULTS)
        return figure
    validation, test = (Panel.of(one(record)) for one in (on_validation, on_test))
    panels = (test, validation) if has_test_accuracy(record) else (validation, _LOSS)
    figure, both_axes = new_figure(len(panels))
    for panel, axes in zip(panels, both_axes, strict=True):
        _draw_panel(axes, record, panel)
        axes.set(title=panel.title, xlabel="epoch")
        if panel is test:
            _mark_best(axes, record, panel)
    return finish_figure(figure, both_axes)


def draw_label_precision(record: RunRecord) -> Figure:
    """Draw the share of kept samples whose label is right."""
    figure, (axes,) = new_figure()
    if not has_label_precision(record):
        words = "The true labels are not known." if record.results else NO_RESULTS
        write_in_place_of_curves(axes, words)
        return figure
    _draw_panel(axes, record, _PRECISION)
    axes.set(xlabel="epoch", ylabel="label precision, %")
    return finish_figure(figure, [axes])


def _draw_panel(axes: Axes, record: RunRecord, panel: Panel) -> None:
    """Draw one curve of every result, with a dot and the value at the last epoch."""
    ends = []
    for result, colour in _runs_result_last(record.results):
        values = panel.scale * np.asarray(panel.curve(result), dtype=np.float64)
        if not len(values):
            continue
        plot_curve(axes, values, colour, result.label)
        axes.plot(len(values), values[-1], "o", color=colour, markersize=6, clip_on=False)
        ends.append((float(values[-1]), _last_in_words(values[-1], panel.places), colour))
    if panel.is_share:
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, -2.0), min(high, 101.5))
    write_last_values(axes, ends)


def _last_in_words(value: float, places: int) -> str:
    return f"{value:.{places}f}" if abs(value) < 1e5 else f"{value:.2g}"  # a loss may have no end


def _mark_best(axes: Axes, record: RunRecord, panel: Panel) -> None:
    """Put a ring on the best epoch of each test curve, and say what dots and rings are."""
    for result, colour in _runs_result_last(record.results):
        epoch, values = result.best.epoch, panel.curve(result)
        if values:
            axes.plot(
                epoch,
                panel.scale * values[epoch - 1],
                "o",
                color=colour,
                markerfacecolor=SURFACE,
                markersize=7,
                markeredgewidth=1.8,
                zorder=4,
            )
    kinds = [("last epoch", MUTED), ("best epoch on the test set", SURFACE)]
    axes.legend(
        handles=[
            Line2D([], [], color=MUTED, marker="o", linestyle="", mfc=face, label=label)
            for label, face in kinds
        ],
        loc="best",
        fontsize=8.5,
        labelcolor=MUTED,
    )


# Noise


def draw_transition(matrix: Floats, class_names: Sequence[str]) -> Figure:
    """Draw an estimated transition matrix.

    Parameters
    ----------
    matrix : array [C, C]
        [i, j] is the share of class i that is labelled j.
    class_names : sequence of C str
    """
    figure, (axes,) = new_figure()
    width = figure.get_figwidth()
    figure.set_size_inches(width, width * (0.9 if is_narrow() else 0.775))
    image = axes.imshow(100 * matrix, cmap=SHARES, vmin=0, vmax=100)
    if 0 < len(matrix) <= _MOST_NAMED:
        _name_classes(axes, [shortened(name, 14) for name in class_names])
    if len(matrix) <= _MOST_NUMBERED:
        for i, j in np.argwhere(matrix >= 0.005):
            colour = "white" if matrix[i, j] > 0.55 else "#1c1c1c"
            share = f"{100 * matrix[i, j]:.0f}"
            axes.text(j, i, share, ha="center", va="center", color=colour, fontsize=9)
    axes.grid(False)
    axes.set(xlabel="given label", ylabel="class by the networks")
    bar = figure.colorbar(image, ax=axes, fraction=0.04, pad=0.02)
    bar.set_label("share of the class, %")
    bar.outline.set_visible(False)
    return figure


def _name_classes(axes: Axes, labels: Sequence[str]) -> None:
    ticks = range(len(labels))
    axes.set_yticks(ticks, labels)
    if max(map(len, labels)) > 3:
        axes.set_xticks(ticks, labels, rotation=45, ha="right", rotation_mode="anchor")
    else:
        axes.set_xticks(ticks, labels)


# Pairs of faces


def draw_roc(records: Sequence[VerificationRecord]) -> Figure:
    """Draw the ROC curve of each list of pairs; false accept rates are on a logarithmic axis."""
    figure, (axes,) = new_figure()
    lowest = 1.0
    for place, record in enumerate(records):
        found, colour = record.standard, RUN_COLOURS[place % len(RUN_COLOURS)]
        # What is accepted before the first pair of two people has no place on the axis: it is drawn
        # up to the edge, half a pair away.
        edge = 0.5 / found.n_different
        lowest = min(lowest, edge)
        far = np.maximum(np.asarray(found.roc_far), edge)
        label = shortened(record.name, _LONGEST_LIST)
        axes.plot(far, in_percent(found.roc_tar), color=colour, label=label)
        rates = [one for one in found.true_accepts if one.is_measurable and one.false_accept_rate]
        axes.plot(
            [one.false_accept_rate for one in rates],
            [100 * one.true_accept_rate for one in rates],
            "o",
            color=colour,
            markersize=6,
            zorder=4,
        )
    axes.set(xscale="log", xlim=(max(lowest, _LOWEST_RATE), 1.0), ylim=(-2, 103))
    axes.set(xlabel="false accept rate, %", ylabel="true accept rate, %")
    axes.xaxis.set_major_locator(FixedLocator([10.0**power for power in range(-7, 1)]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{100 * rate:g}"))
    if records:
        ncols = 1 if is_narrow() else min(3, len(records))
        figure.legend(loc="outside upper left", ncols=ncols, columnspacing=1.6)
    return figure


# All of a record


PICTURES: dict[str, Callable[[RunRecord], Figure]] = {
    "keep_rate": draw_keep_rate,
    "curves": draw_curves,
    "label_precision": draw_label_precision,
}
"""The pictures that every record has; each is also a PNG file of its run folder."""


def draw_all(record: RunRecord) -> dict[str, Figure]:
    """Draw `PICTURES`, and "transition" where the record holds an estimated transition matrix."""
    figures = {name: draw(record) for name, draw in PICTURES.items()}
    estimate = record.noise_estimate
    if estimate is not None and estimate.transition_matrix is not None:
        names = record.data.class_names
        figures["transition"] = draw_transition(estimate.transition_matrix, names)
    return figures
