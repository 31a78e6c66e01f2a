"""Fig. 6: search algorithms on the real task, by what they cost.

Every search trains Co-teaching on 10,000 MNIST samples. The searches of one noise and seed share
data, batches and lockstep, but know nothing of each other: keeprate's has its own plan
(`--budget`), the others are told of each training before they are asked for the next, until the
same number of epochs is spent. What is drawn is the schedule that a search would choose so far: its
validation value, by which it chooses, and its test accuracy at the last epoch, which it never sees.
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
from experiments.common import (
    IMAGES,
    NOISES,
    RESULTS,
    Job,
    Row,
    load_data,
    results_to_draw,
    run_missing,
)
from experiments.drawing import STYLE, Look, new_figure, save
from keeprate.engine import (
    Curves,
    Population,
    TrainingConfig,
    get_method,
    make_setup,
    train_schedules,
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
PROTOCOL = ""  # there is only this one
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


@dataclass
class Search:
    """A search that is asked for schedules and told what became of them.

    Attributes
    ----------
    trace : list of [cost, value, test accuracy]
        After each finished trial: full trainings spent; of the schedule that would be chosen now,
        the mean value and the mean test accuracy at the last epoch of its complete trainings.
    """

    study: optuna.Study
    space: Space
    epochs: int
    cost: int
    spent: int = 0  # epochs
    trace: list[list[float]] = field(default_factory=list)
    test: dict[int, float] = field(default_factory=dict)

    def ask(self) -> list[FrozenTrial]:
        """The next trial; none where all is spent."""
        if self.spent >= self.cost * self.epochs:
            return []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self.study.ask(self.space.distributions(self.epochs))
        return self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))

    def stops(self, number: int, curves: Curves) -> bool:
        """Whether the study's pruner stops a trial after the newest epoch."""
        if isinstance(self.study.pruner, optuna.pruners.NopPruner):
            return False
        found = self.study.get_trials(deepcopy=False)[number]
        trial = optuna.trial.Trial(self.study, found._trial_id)
        step = len(curves.validation_score)
        trial.report(trial_value(curves.validation_score, self.epochs), step)
        return step < self.epochs and trial.should_prune()

    def finish(self, number: int, curves: Curves) -> None:
        """Tell the study; note who would be chosen now."""
        self.spent += len(curves.validation_score)
        if len(curves.validation_score) == self.epochs:
            self.test[number] = curves.test_accuracy[-1]
        self._tell(number, curves)
        if self.test:
            best = ranked(self.study.trials)[0]
            value = float(np.mean([trial.value or 0.0 for trial in best]))
            test = float(np.mean([self.test[trial.number] for trial in best]))
            self.trace.append([self.spent / self.epochs, round(value, 6), round(test, 6)])

    def _tell(self, number: int, curves: Curves) -> None:
        if number in self.test:
            self.study.tell(number, trial_value(curves.validation_score, self.epochs))
        else:
            self.study.tell(number, state=TrialState.PRUNED)


@dataclass
class Planned(Search):
    """keeprate's own, which asks for a population at a time."""

    proposals: Proposals | None = None

    def ask(self) -> list[FrozenTrial]:
        assert self.proposals is not None
        return self.proposals.ask(self.study)

    def _tell(self, number: int, curves: Curves) -> None:
        assert self.proposals is not None
        tell(self.study, number, curves, self.proposals, failed=number not in self.test)


def _keeprate(protocol: Protocol, seed: int, *, warm_start: bool) -> Search:
    space, plan = get_space("basis"), (protocol.cost, confirming(protocol.cost))
    proposals = Proposals(space, protocol.epochs, "natural-gradient", *plan, seed, warm_start)
    return Planned(open_study(None), space, protocol.epochs, protocol.cost, proposals=proposals)


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
    """One line of the figure."""

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
        "keeprate's, without given schedules",
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
STRIDE = 1000  # between the numbers of the arms' trials, from which weights are drawn


def search_all(protocol: Protocol, noise: str, seed: int, folder: str) -> Row:
    """All searches of a noise and a seed, in lockstep.

    Returns
    -------
    dict
        `traces`: arm -> its trace; `seconds` of all trainings.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    data = keeprate.prepare(
        load_data(folder, protocol.data), noise=noise, seed=seed, limit=protocol.limit
    )
    setup = make_setup(
        data,
        model=protocol.model,
        config=TrainingConfig(epochs=protocol.epochs),
        seed=seed,
        out=None,
        lockstep=None,
        progress=None,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        searches = [arm.begin(protocol, seed) for arm in ARMS]
    turn, seconds = 0, 0.0

    def prune(population: Population) -> None:
        stopped = [
            number
            for number in population.numbers
            if searches[number // STRIDE].stops(number % STRIDE, population.curves[number])
        ]
        population.drop(stopped)

    def collect(population: Population) -> None:
        nonlocal seconds
        for number, curves in population.curves.items():
            seconds += curves.seconds
            searches[number // STRIDE].finish(number % STRIDE, curves)

    while asked := [(i, trial) for i, one in enumerate(searches) for trial in one.ask()]:
        train_schedules(
            [i * STRIDE + trial.number for i, trial in asked],
            [searches[i].space.schedule(t.params, protocol.epochs) for i, t in asked],
            setup,
            methods=[get_method(protocol.method)] * len(asked),
            stream=NAME,
            data=data,
            order=turn,
            after_epoch=prune,
            after_group=collect,
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
    """Search what the results file does not have yet; `data` is the folder of data sets."""
    protocol = protocol or Protocol()
    jobs = [
        Job({"noise": noise, "seed": seed}, partial(search_all, protocol, noise, seed, data))
        for seed in range(protocol.seeds if seeds is None else seeds)
        for noise in TASKS
    ]
    return run_missing(
        NAME,
        PROTOCOL,
        asdict(protocol)
        | {
            "confirm": confirming(protocol.cost),
            "warm_start": presets_in_words(exploring(protocol.cost)),
        },
        jobs,
        at_once=at_once,
        results=results,
        words=lambda row: f"keeprate's: {100 * row['traces']['keeprate'][-1][2]:.2f} %",
    )


# What the rows say -------------------------------------------------------------------------------


def at_cost(row: Row, arm: str, cost: float) -> tuple[float, float] | None:
    """Value and test accuracy of what an arm would choose when so much is spent; None before."""
    reached = [(value, test) for spent, value, test in row["traces"][arm] if spent <= cost + 1e-9]
    return reached[-1] if reached else None


def mean_curve(rows: Sequence[Row], arm: str, cost: int, which: int) -> NDArray[np.float64]:
    """Mean over rows at each whole cost 1..cost; NaN where one has nothing yet."""
    nothing = (np.nan, np.nan)
    found = [[(at_cost(row, arm, c) or nothing)[which] for c in range(1, cost + 1)] for row in rows]
    return np.asarray(np.mean(found, axis=0))


# The picture -------------------------------------------------------------------------------------


def draw(*, results: Path = RESULTS, images: Path = IMAGES) -> list[Path]:
    """A column for each noise: value above, test accuracy below, against cost.

    Returns
    -------
    list of Path
        A PNG and an SVG.
    """
    found = results_to_draw(NAME, PROTOCOL, results)
    rows, cost = found["rows"], int(found["protocol"]["cost"])
    with matplotlib.rc_context(STYLE):
        figure, panels = new_figure(2, len(TASKS))
        for column, noise in zip(panels.T, TASKS, strict=True):
            mine = [row for row in rows if row["noise"] == noise]
            for which, axes in enumerate(column):
                _lines(axes, mine, cost, which)
            column[0].set_title(NOISES[noise])
            column[1].set_xlabel("cost, full trainings")
        panels[0, 0].set_ylabel("validation value, %")
        panels[1, 0].set_ylabel("test accuracy, last epoch, %")
        panels[0, -1].legend(loc="upper left", bbox_to_anchor=(1.02, 1.0), handlelength=3)
        return save(figure, NAME, images)


def _lines(axes: Axes, rows: Sequence[Row], cost: int, which: int) -> None:
    for arm in ARMS if rows else ():
        look, spent = arm.look, np.arange(1, cost + 1)
        mean = 100 * mean_curve(rows, arm.name, cost, which)
        axes.step(
            spent, mean, where="post", color=look.color, ls=look.dashes, lw=look.width,
            label=arm.label,
        )  # fmt: skip
