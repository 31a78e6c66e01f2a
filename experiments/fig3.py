"""Fig. 3 (Sec. 4.1): search spaces and search algorithms on six known schedules.

The value of a trial is the root mean square error to a target R(t). Nothing is trained, and
hundreds of searches take an hour. The paper has one target and does not print its numbers. The
targets here are drawn by hand; none lies in Co-teaching's space or in the basis space. The
samplers (docs/decisions/0010) were chosen on the first five targets. No choice used the last one.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import optuna
from matplotlib.axes import Axes
from numpy.typing import NDArray

from experiments.common import IMAGES, RESULTS, Row, results_to_draw
from experiments.drawing import STYLE, Look, new_figure, save
from experiments.jobs import Job, run_missing
from keeprate import NaturalGradientSampler
from keeprate.schedules import get_space
from keeprate.searching import GaussianProcessSampler

NAME = "fig3"
SUMMARY = "the synthetic study: search spaces and samplers on known schedules (searches and draws)"
PROTOCOL = ""  # the only one has no name

T = 200  # Sec. 4.1.1
BATCH = 10
PAPER_STEP = 80.0  # App. A.2, on synthetic data
MARKS = (10, 50, 100, 200)  # evaluations after which the tables give numbers


def _targets() -> dict[str, NDArray[np.float64]]:
    t = np.arange(T)
    return {
        "drop, then rise": np.where(
            t < 40, 1 - 0.6 * np.sqrt(t / 40), 0.4 + 0.25 * np.maximum(0, t - 40) / 160
        ),
        "plain drop": 0.2 + 0.8 * np.exp(-((t / 40) ** 1.5)),
        "drop and plateau": 1 - 0.45 * np.tanh(t / 12),
        "late rise": np.where(
            t < 30, 1 - 0.7 * t / 30, 0.3 + 0.5 * np.clip((t - 120) / 80, 0, 1) ** 1.5
        ),
        "two steps": 1 - 0.25 * np.clip(t / 10, 0, 1) - 0.25 * np.clip((t - 80) / 10, 0, 1),
        "late drop": 1 - 0.6 * (t / (T - 1)) ** 2,
    }


TARGETS = _targets()
Sampler = Callable[..., optuna.samplers.BaseSampler]


@dataclass(frozen=True)
class Arm:
    """A sampler in a space.

    Attributes
    ----------
    name : str
        In the rows of the results file.
    label : str
        As printed.
    sampler : callable
        seed -> Optuna sampler.
    space : str
    look : Look
    """

    name: str
    label: str
    sampler: Sampler
    look: Look
    space: str = "basis"


def _keep_rates(parameters: dict[str, NDArray[Any]]) -> NDArray[np.float64]:
    return get_space("basis").keep_rates(parameters, T)


def _process(seed: int) -> optuna.samplers.BaseSampler:
    space = get_space("basis").distributions(T)
    return GaussianProcessSampler(space, _keep_rates, seed=seed)


_natural_gradient = partial(NaturalGradientSampler, generation_size=BATCH)
_RANDOM = Arm(
    "random", "random search", optuna.samplers.RandomSampler, Look("", "#777777", width=1.8)
)

SPACES = (
    replace(_RANDOM, name="random-full", label="full space", space="full"),
    replace(_RANDOM, name="random-co-teaching", label="Co-teaching's space", space="co-teaching"),
    replace(_RANDOM, label="basis space"),
)
"""Fig. 3 (b): random search in each space."""

SAMPLERS = (
    _RANDOM,
    # Ten trials are asked for before their values are told: the constant liar is made for that.
    Arm(
        "tpe",
        "TPE",
        partial(optuna.samplers.TPESampler, constant_liar=True),
        Look("", "#0a9373", (0, (4, 1.5))),
    ),
    Arm(
        "cma-es",
        "CMA-ES",
        partial(optuna.samplers.CmaEsSampler, popsize=BATCH),
        Look("", "#B98500", (0, (1, 1.2))),
    ),
    Arm(
        "gp",
        "GP",
        partial(optuna.samplers.GPSampler, deterministic_objective=True),
        Look("", "#2088C7", width=1.8),
    ),
    Arm(
        "ng-paper",
        "natural gradient, the paper's form",
        partial(_natural_gradient, fisher="monte-carlo", utilities="raw", step_size=PAPER_STEP),
        Look("", "#CC79A7", (0, (4, 1.2, 1, 1.2))),
    ),
    Arm(
        "ng-ranks",
        "natural gradient: ranks, bounded step",
        _natural_gradient,
        Look("", "#8a63b0", (0, (4, 1.5))),
    ),
    Arm(
        "ng",
        "… + Gaussian process over the schedules",
        partial(_natural_gradient, features=_keep_rates),
        Look("", "#333333", (0, (1, 1.2)), width=1.8),
    ),
    Arm(
        "process",
        "Gaussian process over the schedules: keeprate's",
        _process,
        Look("", "#D55E00", width=2.4),
    ),
)
"""Fig. 3 (c): on the basis space. The last four are an ablation."""


OURS = SAMPLERS[-1].name  # keeprate's default


def arms() -> tuple[Arm, ...]:
    """Every arm once: both parts have random search in the basis space."""
    return tuple({arm.name: arm for arm in (*SPACES, *SAMPLERS)}.values())


def search_known(arm: Arm, target: str, seed: int, evaluations: int) -> Row:
    """Run one search, `BATCH` trials at a time.

    Returns
    -------
    dict
        `rmse`: the best so far after each batch. `parameters` of the best. `seconds` that the
        sampler took.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space, wanted = get_space(arm.space), TARGETS[target]
    distributions = space.distributions(T)
    sampler_seconds, rmse = 0.0, []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = optuna.create_study(sampler=arm.sampler(seed=seed))
        for _ in range(evaluations // BATCH):
            started = time.perf_counter()
            trials = [study.ask(distributions) for _ in range(BATCH)]
            sampler_seconds += time.perf_counter() - started
            for trial in trials:
                keep_rate = space.schedule(trial.params, T).keep_rate
                value = float(np.sqrt(np.square(keep_rate - wanted).mean()))  # Sec. 4.1.1
                started = time.perf_counter()
                study.tell(trial, value)
                sampler_seconds += time.perf_counter() - started
            rmse.append(study.best_value)
    best = [round(value, 6) for value in study.best_params.values()]
    return {
        "rmse": [round(value, 6) for value in rmse],
        "parameters": best if arm.space == "basis" else None,  # only these are drawn
        "seconds": round(sampler_seconds, 3),
    }


def run(
    *, seeds: int = 20, evaluations: int = 200, at_once: int = 1, results: Path = RESULTS
) -> list[Row]:
    """Run the searches that the results file does not have yet."""
    jobs = [
        Job(
            {"target": target, "arm": arm.name, "seed": seed},
            partial(search_known, arm, target, seed, evaluations),
        )
        for seed in range(seeds)
        for target in TARGETS
        for arm in arms()
    ]
    protocol = {"epochs": T, "evaluations": evaluations, "batch": BATCH}
    return run_missing(
        NAME,
        PROTOCOL,
        protocol,
        jobs,
        at_once=at_once,
        results=results,
        words=lambda row: f"RMSE {row['rmse'][-1]:.4f}",
    )


# Numbers from the rows -----------------------------------------------------------------------


def curves(rows: Sequence[Row], arm: str, target: str) -> NDArray[np.float64]:
    """The best RMSE so far of every seed after each batch [seeds, batches]."""
    selected = [row for row in rows if row["arm"] == arm and row["target"] == target]
    return np.array([row["rmse"] for row in selected])


def quartiles(
    rows: Sequence[Row], arm: str, target: str, evaluations: int
) -> tuple[float, ...] | None:
    """First quartile, median and third quartile over seeds after so many evaluations, if known."""
    rmse = curves(rows, arm, target)
    if not len(rmse) or rmse.shape[1] < evaluations // BATCH:
        return None
    reached = rmse[:, evaluations // BATCH - 1]
    return tuple(float(q) for q in np.quantile(reached, (0.25, 0.5, 0.75)))


def seconds(rows: Sequence[Row], arm: str) -> float:
    """Median over searches of the seconds that the sampler took."""
    return float(np.median([row["seconds"] for row in rows if row["arm"] == arm] or [np.nan]))


# The picture -------------------------------------------------------------------------------------


def draw(*, results: Path = RESULTS, images: Path = IMAGES) -> list[Path]:
    """Draw a column for each target: schedules, then spaces, then samplers.

    Returns
    -------
    list of Path
        A PNG and an SVG.
    """
    rows = results_to_draw(NAME, PROTOCOL, results)["rows"]
    with matplotlib.rc_context(STYLE):
        figure, panels = new_figure(3, len(TARGETS))
        for column, target in zip(panels.T, TARGETS, strict=True):
            _schedules(column[0], rows, target)
            _progress(column[1], rows, target, SPACES, _SPACE_LOOKS)
            _progress(column[2], rows, target, SAMPLERS, {a.name: a.look for a in SAMPLERS})
            column[0].set_title(target)
        panels[0, 0].set_ylabel("R(t)")
        panels[1, 0].set_ylabel("RMSE, random search")
        panels[2, 0].set_ylabel("RMSE, basis space")
        for row_of_panels in panels:
            row_of_panels[-1].legend(loc="upper left", bbox_to_anchor=(1.02, 1.0), handlelength=3)
        return save(figure, NAME, images)


_SPACE_LOOKS: Mapping[str, Look] = {
    "random-full": Look("", "#999999"),
    "random-co-teaching": Look("", "#2088C7", (0, (4, 1.5)), width=1.8),
    "random": Look("", "#D55E00", width=2.0),
}


def _schedules(axes: Axes, rows: Sequence[Row], target: str) -> None:
    """The target, and the best schedules of two arms, each of its median seed."""
    epochs = np.arange(1, T + 1)
    axes.plot(epochs, TARGETS[target], color="#222222", lw=3, alpha=0.35, label="target")
    space = get_space("basis")
    names = space.distributions(T)
    for arm, label in ((SAMPLERS[-1], "keeprate's"), (_RANDOM, "random")):
        selected = [row for row in rows if row["arm"] == arm.name and row["target"] == target]
        if selected:
            selected.sort(key=lambda row: float(row["rmse"][-1]))
            values = selected[len(selected) // 2]["parameters"]
            axes.plot(
                epochs,
                space.schedule(dict(zip(names, values, strict=True)), T).keep_rate,
                color=arm.look.color,
                ls=arm.look.dashes,
                lw=1.4,
                label=f"{label}, median seed",
            )
    axes.set(ylim=(0, 1.03), xlabel="epoch")


def _progress(
    axes: Axes, rows: Sequence[Row], target: str, arms: Sequence[Arm], looks: Mapping[str, Look]
) -> None:
    """Median and quartiles over seeds."""
    for arm in arms:
        rmse = curves(rows, arm.name, target)
        if not len(rmse):
            continue
        low, middle, high = np.quantile(rmse, (0.25, 0.5, 0.75), axis=0)
        evaluations = BATCH * np.arange(1, rmse.shape[1] + 1)
        look = looks[arm.name]
        axes.plot(
            evaluations, middle, color=look.color, ls=look.dashes, lw=look.width, label=arm.label
        )
        axes.fill_between(evaluations, low, high, color=look.color, alpha=0.12, lw=0)
    axes.set(yscale="log", xlabel="evaluations")
