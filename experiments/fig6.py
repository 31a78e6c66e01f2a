"""Fig. 6: search algorithms on the real task, by what they cost.

Every search trains Co-teaching on 10,000 MNIST samples. The searches of one noise and seed share
data, batches and lockstep, but know nothing of each other. keeprate's searches have their own plan,
that of `--budget`. Each other search is told of one training before it is asked for the next, until
it has spent as many epochs. The figure shows the schedule that a search ranks first so far: its
validation value, which the search goes by, and its test accuracy at the last epoch, which the
search never sees.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import matplotlib
import numpy as np
import optuna
from matplotlib.axes import Axes
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState

import keeprate
from experiments.common import IMAGES, NOISES, RESULTS, Row, load_data, results_to_draw
from experiments.drawing import STYLE, Look, new_figure, save
from experiments.jobs import Job, run_missing
from keeprate import TrainingConfig
from keeprate.engine import (
    Candidate,
    Curves,
    Population,
    get_method,
    make_setup,
    train_candidates,
    trial_value,
)
from keeprate.schedules import Space, get_space, presets_in_words
from keeprate.searching import (
    Proposals,
    confirming,
    exploring,
    get_pruner,
    open_study,
    ranked,
    tell,
)

NAME = "fig6"
SUMMARY = "search algorithms on the real task, by what they cost (trains and draws)"
PROTOCOL = ""  # the only one has no name
TASKS = ("symmetric:0.5", "pairflip:0.45")


@dataclass(frozen=True)
class Protocol:
    """What every search may spend, and on what."""

    data: str = "mnist"
    limit: int = 10_000
    model: str = "mlp"
    method: str = "co-teaching"
    epochs: int = 40
    cost: int = 12  # full trainings
    seeds: int = 3

    def as_row(self) -> Row:
        """The protocol as the results file holds it, with the plan of keeprate's search."""
        return asdict(self) | {
            "confirm": confirming(self.cost),
            "warm_start": presets_in_words(exploring(self.cost)),
        }


# The searches ----------------------------------------------------------------------------------


@dataclass
class Search:
    """A search that is asked for schedules and told how their trainings went.

    Attributes
    ----------
    study : optuna.Study
    space : Space
    epochs : int
    cost : int
        Full trainings that the search may spend.
    n_epochs_spent : int
    trace : list of [cost, value, test accuracy]
        After each finished trial: full trainings spent; mean value, and mean test accuracy at the
        last epoch, of the complete trainings of the schedule that ranks first.
    test_accuracy : dict of int to float
        At the last epoch, by the number of the complete trial.
    """

    study: optuna.Study
    space: Space
    epochs: int
    cost: int
    n_epochs_spent: int = 0
    trace: list[list[float]] = field(default_factory=list)
    test_accuracy: dict[int, float] = field(default_factory=dict)

    def ask(self) -> list[FrozenTrial]:
        """The next trial; none if all is spent."""
        if self.n_epochs_spent >= self.cost * self.epochs:
            return []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self.study.ask(self.space.distributions(self.epochs))
        return self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))

    def stops(self, number: int, curves: Curves) -> bool:
        """Whether the study's pruner stops a trial after its newest epoch."""
        if isinstance(self.study.pruner, optuna.pruners.NopPruner):
            return False
        frozen = self.study.get_trials(deepcopy=False)[number]
        trial = optuna.trial.Trial(self.study, frozen._trial_id)
        step = len(curves)
        trial.report(trial_value(curves.validation_score, self.epochs), step)
        return step < self.epochs and trial.should_prune()

    def finish(self, number: int, curves: Curves) -> None:
        """Tell the study of a training, and note which schedule ranks first now."""
        self.n_epochs_spent += len(curves)
        if len(curves) == self.epochs:
            self.test_accuracy[number] = curves.test_accuracy[-1]
        self._tell(number, curves)
        if self.test_accuracy:
            trainings = ranked(self.study.trials)[0]
            value = float(np.mean([trial.value or 0.0 for trial in trainings]))
            test = float(np.mean([self.test_accuracy[trial.number] for trial in trainings]))
            cost = self.n_epochs_spent / self.epochs
            self.trace.append([cost, round(value, 6), round(test, 6)])

    def _tell(self, number: int, curves: Curves) -> None:
        if number in self.test_accuracy:
            self.study.tell(number, trial_value(curves.validation_score, self.epochs))
        else:
            self.study.tell(number, state=TrialState.PRUNED)


@dataclass
class PlannedSearch(Search):
    """keeprate's search, which asks for a generation at a time.

    Attributes
    ----------
    proposals : Proposals
    """

    proposals: Proposals = field(kw_only=True)

    def ask(self) -> list[FrozenTrial]:
        """The next generation; none if all is spent."""
        return self.proposals.ask(self.study)

    def _tell(self, number: int, curves: Curves) -> None:
        is_failed = number not in self.test_accuracy
        tell(self.study, number, curves, self.proposals, failed=is_failed)


def _keeprate(protocol: Protocol, seed: int, *, warm_start: bool) -> Search:
    space, epochs, cost = get_space("basis"), protocol.epochs, protocol.cost
    proposals = Proposals(
        space,
        epochs,
        "natural-gradient",
        trials=cost,
        confirm=confirming(cost),
        seed=seed,
        warm_start=warm_start,
    )
    return PlannedSearch(open_study(None), space, epochs, cost, proposals=proposals)


def _optuna(
    protocol: Protocol,
    seed: int,
    *,
    sampler: Callable[..., optuna.samplers.BaseSampler],
    pruner: str = "none",
) -> Search:
    study = optuna.create_study(
        study_name=f"{NAME}-{seed}",  # Hyperband draws its brackets from the name
        direction="maximize",
        sampler=sampler(seed=seed),
        pruner=get_pruner(pruner, protocol.epochs),
    )
    return Search(study, get_space("basis"), protocol.epochs, protocol.cost)


@dataclass(frozen=True)
class Arm:
    """One line of the figure; `begin` takes protocol and seed."""

    name: str
    label: str
    begin: Callable[[Protocol, int], Search]
    look: Look


STARTUP = 4
"""Random trials of TPE and the Gaussian process; Optuna's 10 would leave two to the model."""

_RANDOM = optuna.samplers.RandomSampler
ARMS = (
    Arm("random", "random search", partial(_optuna, sampler=_RANDOM), Look("", "#777777")),
    Arm(
        "hyperband",
        "Hyperband",
        partial(_optuna, sampler=_RANDOM, pruner="hyperband"),
        Look("", "#CC79A7", (0, (4, 1.2, 1, 1.2))),
    ),
    Arm(
        "tpe",
        "TPE",
        partial(_optuna, sampler=partial(optuna.samplers.TPESampler, n_startup_trials=STARTUP)),
        Look("", "#0a9373", (0, (4, 1.5))),
    ),
    Arm(
        "cma-es",
        "CMA-ES",
        partial(_optuna, sampler=optuna.samplers.CmaEsSampler),
        Look("", "#B98500", (0, (1, 1.2))),
    ),
    Arm(
        "gp",
        "GP",
        partial(_optuna, sampler=partial(optuna.samplers.GPSampler, n_startup_trials=STARTUP)),
        Look("", "#2088C7"),
    ),
    Arm(
        "cold",
        "keeprate's, without presets",
        partial(_keeprate, warm_start=False),
        Look("", "#8a63b0", (0, (4, 1.5))),
    ),
    Arm(
        "keeprate",
        "keeprate's search",
        partial(_keeprate, warm_start=True),
        Look("", "#D55E00", width=2.4),
    ),
)
STRIDE = 1000  # between the candidate numbers of two arms; initial weights depend on the number


# The trainings ---------------------------------------------------------------------------------


def search_all(protocol: Protocol, noise: str, seed: int, folder: str) -> Row:
    """Run all searches of a noise and a seed, in lockstep.

    Returns
    -------
    dict
        `traces`: arm -> its trace. `seconds` of all trainings.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    data = keeprate.prepare(
        load_data(folder, protocol.data), noise=noise, seed=seed, limit=protocol.limit
    )
    config = TrainingConfig(epochs=protocol.epochs)
    setup = make_setup(data, model=protocol.model, config=config, seed=seed, out=None)
    method = get_method(protocol.method)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        searches = [arm.begin(protocol, seed) for arm in ARMS]
    turn, seconds = 0, 0.0

    def prune(population: Population) -> None:
        stopped = []
        for number in population.numbers:
            arm, trial = divmod(number, STRIDE)
            if searches[arm].stops(trial, population.curves[number]):
                stopped.append(number)
        population.drop(stopped)

    def collect(population: Population) -> None:
        nonlocal seconds
        for number, curves in population.curves.items():
            arm, trial = divmod(number, STRIDE)
            searches[arm].finish(trial, curves)
            seconds += curves.seconds

    while asked := [(arm, t) for arm, search in enumerate(searches) for t in search.ask()]:
        candidates = []
        for arm, trial in asked:
            schedule = searches[arm].space.schedule(trial.params, protocol.epochs)
            candidates.append(Candidate(arm * STRIDE + trial.number, schedule, method))
        train_candidates(
            candidates, setup, stream=NAME, order=turn, after_epoch=prune, after_group=collect
        )
        turn += 1
    traces = {arm.name: search.trace for arm, search in zip(ARMS, searches, strict=True)}
    return {"traces": traces, "seconds": round(seconds, 1)}


def run(
    protocol: Protocol | None = None,
    *,
    data: str,
    seeds: int | None = None,
    at_once: int = 1,
    results: Path = RESULTS,
) -> list[Row]:
    """Run the searches that the results file does not have; `data` is the folder of data sets."""
    protocol = protocol or Protocol()
    jobs = [
        Job({"noise": noise, "seed": seed}, partial(search_all, protocol, noise, seed, data))
        for seed in range(protocol.seeds if seeds is None else seeds)
        for noise in TASKS
    ]
    return run_missing(
        NAME,
        PROTOCOL,
        protocol.as_row(),
        jobs,
        at_once=at_once,
        results=results,
        words=lambda row: f"keeprate's: {100 * row['traces']['keeprate'][-1][2]:.2f} %",
    )


# Numbers from the rows -------------------------------------------------------------------------


def at_cost(row: Row, arm: str, cost: float) -> tuple[float, float] | None:
    """Value and test accuracy of the schedule that ranks first at a cost; None before any does."""
    reached = [(value, test) for spent, value, test in row["traces"][arm] if spent <= cost + 1e-9]
    return reached[-1] if reached else None


def mean_curve(rows: Sequence[Row], arm: str, cost: int, which: int) -> NDArray[np.float64]:
    """Mean over rows at each whole cost 1..cost, NaN where a row has no schedule yet.

    `which` is 0 for the value, 1 for the test accuracy.
    """
    nothing = (np.nan, np.nan)
    curves = [
        [(at_cost(row, arm, spent) or nothing)[which] for spent in range(1, cost + 1)]
        for row in rows
    ]
    return np.asarray(np.mean(curves, axis=0))


# The picture -----------------------------------------------------------------------------------


def draw(*, results: Path = RESULTS, images: Path = IMAGES) -> list[Path]:
    """Draw a column for each noise: value above, test accuracy below, against cost.

    Returns
    -------
    list of Path
        A PNG and an SVG.
    """
    stored = results_to_draw(NAME, PROTOCOL, results)
    cost = int(stored["protocol"]["cost"])
    with matplotlib.rc_context(STYLE):
        figure, panels = new_figure(2, len(TASKS))
        for column, noise in zip(panels.T, TASKS, strict=True):
            rows = [row for row in stored["rows"] if row["noise"] == noise]
            for which, axes in enumerate(column):
                _lines(axes, rows, cost, which)
            column[0].set_title(NOISES[noise])
            column[1].set_xlabel("cost, full trainings")
        panels[0, 0].set_ylabel("validation value, %")
        panels[1, 0].set_ylabel("test accuracy, last epoch, %")
        panels[0, -1].legend(loc="upper left", bbox_to_anchor=(1.02, 1.0), handlelength=3)
        return save(figure, NAME, images)


def _lines(axes: Axes, rows: Sequence[Row], cost: int, which: int) -> None:
    for arm in ARMS if rows else ():
        axes.step(
            np.arange(1, cost + 1),
            100 * mean_curve(rows, arm.name, cost, which),
            where="post",
            color=arm.look.color,
            ls=arm.look.dashes,
            lw=arm.look.width,
            label=arm.label,
        )
