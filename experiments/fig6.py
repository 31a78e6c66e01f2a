"""Fig. 6: search algorithms on real trainings, by what they cost.

Every search trains Co-teaching. Those of one data set, noise and seed share data and batches, but
know nothing of each other. Ours runs as `--budget 6` plans it: a short training that estimates the
noise, then two generations. "From the same start": the rivals are told the noise rate's estimate
and our first generation, weights and all, and go on by themselves, a training at a time. The others
begin by themselves. The baseline of equal cost tunes the noise rate of Co-teaching's own schedule.

An arm's result at a cost is the schedule that it ranks first so far by its validation value: test
accuracy at the last epoch, which no search sees.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, astuple, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import optuna
from matplotlib.axes import Axes
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState, create_trial
from scipy.stats import wilcoxon

import keeprate
from experiments.common import (
    FIRST_REPORTING_SEED,
    IMAGES,
    NOISES,
    RESULTS,
    Row,
    load_data,
    results_to_draw,
)
from experiments.drawing import STYLE, Look, new_figure, save
from experiments.jobs import Job, run_missing
from keeprate import NaturalGradientSampler, TrainingConfig
from keeprate.engine import (
    Candidate,
    Curves,
    Population,
    Setup,
    get_method,
    make_setup,
    train_candidates,
    trial_value,
)
from keeprate.noise import Noise
from keeprate.runs import train_first
from keeprate.schedules import Schedule, Space, co_teaching_schedule, get_space
from keeprate.searching import (
    Conditions,
    GaussianProcessSampler,
    Proposals,
    confirming,
    experience_digest,
    open_study,
    ranked,
    tell,
)

NAME = "fig6"
SUMMARY = "search algorithms on real trainings, by what they cost (trains and draws)"
COST, LONG = 6, 40  # full trainings of a search, and of the long one
START = 3  # trials that arms from the same start share
SMALL_COST = 3
COSTS = (SMALL_COST, COST)  # for which the tables give numbers


@dataclass(frozen=True)
class Protocol:
    """What every search trains on."""

    name: str
    data: str
    model: str
    epochs: int
    batch_size: int = 128
    limit: int | None = None
    seeds: int = 6

    @property
    def numbers(self) -> range:
        """The seeds."""
        return range(FIRST_REPORTING_SEED, FIRST_REPORTING_SEED + self.seeds)

    def as_row(self) -> Row:
        """The protocol as the results file holds it."""
        fixed = {"method": "co-teaching", "cost": COST, "long": LONG, "start": START}
        return asdict(self) | fixed | {"experience": experience_digest()}


PROTOCOLS = (
    Protocol("mnist", "mnist", "mlp", epochs=20),
    Protocol("cifar-10", "cifar-10", "model1", epochs=30, batch_size=64, limit=5_000),
)


def get_protocol(name: str) -> Protocol:
    """The protocol of that name."""
    return next(protocol for protocol in PROTOCOLS if protocol.name == name)


# The searches ----------------------------------------------------------------------------------


@dataclass
class Search:
    """A search that is asked for schedules and told how their trainings went.

    Attributes
    ----------
    study : optuna.Study
    space : Space
    epochs : int
    trials : int
        That the search may train, those that it was given included.
    spent : float
        Full trainings before the first trial.
    trace : list of [cost, value, test accuracy]
        After each finished trial: full trainings spent; mean value, and mean test accuracy at the
        last epoch, of the trainings of the schedule that ranks first.
    test_accuracy : dict of int to float
        At the last epoch, by the number of the trial.
    """

    study: optuna.Study
    space: Space
    epochs: int
    trials: int
    spent: float = 0.0
    trace: list[list[float]] = field(default_factory=list)
    test_accuracy: dict[int, float] = field(default_factory=dict)

    def ask(self) -> list[FrozenTrial]:
        """The next trial; none if all is spent."""
        if len(self.study.get_trials(deepcopy=False)) >= self.trials:
            return []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self.study.ask(self.space.distributions(self.epochs))
        return self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))

    def schedule(self, trial: FrozenTrial) -> Schedule:
        """The schedule of a trial."""
        return self.space.schedule(trial.params, self.epochs)

    def begin_with(self, other: Search) -> None:
        """Take over the finished trials of another search."""
        for trial in other.study.get_trials(deepcopy=False):
            self.study.add_trial(
                create_trial(
                    params=trial.params, distributions=trial.distributions, value=trial.value
                )
            )
        self.spent, self.trace = other.spent, list(other.trace)
        self.test_accuracy = dict(other.test_accuracy)

    def finish(self, number: int, curves: Curves) -> None:
        """Tell the study of a training, and note which schedule ranks first now."""
        self.spent += len(curves) / self.epochs
        is_whole = len(curves) == self.epochs
        if is_whole:
            self.test_accuracy[number] = curves.test_accuracy[-1]
        self._tell(number, curves, failed=not is_whole)
        if self.test_accuracy:
            trainings = ranked(self.study.trials)[0]
            value = float(np.mean([trial.value or 0.0 for trial in trainings]))
            test = float(np.mean([self.test_accuracy[trial.number] for trial in trainings]))
            self.trace.append([round(self.spent, 4), round(value, 6), round(test, 6)])

    def _tell(self, number: int, curves: Curves, *, failed: bool) -> None:
        if failed:
            self.study.tell(number, state=TrialState.FAIL)
        else:
            self.study.tell(number, trial_value(curves.validation_score, self.epochs))


@dataclass
class PlannedSearch(Search):
    """keeprate's search, which asks for a generation at a time."""

    proposals: Proposals = field(kw_only=True)

    def ask(self) -> list[FrozenTrial]:
        """The next generation; none if all is spent."""
        return self.proposals.ask(self.study)

    def _tell(self, number: int, curves: Curves, *, failed: bool) -> None:
        tell(self.study, number, curves, self.proposals, failed=failed)


@dataclass
class TunedSearch(Search):
    """Co-teaching's schedule with several noise rates, evenly up to one half."""

    def ask(self) -> list[FrozenTrial]:
        """All trials at once; they have no parameters of the space."""
        while len(self.study.get_trials(deepcopy=False)) < self.trials:
            self.study.ask()
        return self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))

    def schedule(self, trial: FrozenTrial) -> Schedule:
        """Eq. (3) with a noise rate of its own."""
        rate = 0.6 * (trial.number + 1) / self.trials
        return Schedule(co_teaching_schedule(self.epochs, tau=rate), "tuned")


Begin = Callable[[Protocol, int, Conditions, float], Search]


def _ours(
    protocol: Protocol, seed: int, conditions: Conditions, spent: float, *, cost: int = COST
) -> Search:
    epochs = protocol.epochs
    trials = int(cost - spent) if cost == COST else cost
    proposals = Proposals(
        get_space("basis"),
        epochs,
        "gaussian-process",
        trials=trials,
        confirm=confirming(trials),
        seed=seed,
        conditions=conditions,
    )
    return PlannedSearch(
        open_study(None), get_space("basis"), epochs, trials, spent, proposals=proposals
    )


def _rival(
    protocol: Protocol,
    seed: int,
    conditions: Conditions,
    spent: float,
    *,
    sampler: Callable[..., optuna.samplers.BaseSampler],
    after_start: bool = False,
) -> Search:
    study = optuna.create_study(direction="maximize", sampler=sampler(seed=seed))
    trials = START + int(COST - spent - START) if after_start else COST
    return Search(study, get_space("basis"), protocol.epochs, trials)


def _cold(*, seed: int, epochs: int) -> optuna.samplers.BaseSampler:
    space = get_space("basis")
    return GaussianProcessSampler(
        space.distributions(epochs), lambda p: space.keep_rates(p, epochs), seed=seed
    )


def _begin_cold(protocol: Protocol, seed: int, conditions: Conditions, spent: float) -> Search:
    return _rival(protocol, seed, conditions, spent, sampler=partial(_cold, epochs=protocol.epochs))


def _tuned(protocol: Protocol, seed: int, conditions: Conditions, spent: float) -> Search:
    study = optuna.create_study(direction="maximize")
    return TunedSearch(study, get_space("basis"), protocol.epochs, COST)


@dataclass(frozen=True)
class Arm:
    """One line of the figure."""

    name: str
    label: str
    begin: Begin
    look: Look
    after_start: bool = False


STARTUP = 2
"""Random trials of TPE and Optuna's Gaussian process; a third of the six trainings."""
_natural_gradient = partial(NaturalGradientSampler, generation_size=2)
_SAMPLERS: dict[str, tuple[str, Callable[..., Any], Look]] = {
    "random": ("random search", optuna.samplers.RandomSampler, Look("", "#777777")),
    "tpe": (
        "TPE",
        partial(optuna.samplers.TPESampler, n_startup_trials=STARTUP),
        Look("", "#0a9373"),
    ),
    "cma-es": ("CMA-ES", partial(optuna.samplers.CmaEsSampler, popsize=4), Look("", "#B98500")),
    "gp": (
        "GP over parameters",
        partial(optuna.samplers.GPSampler, n_startup_trials=STARTUP),
        Look("", "#2088C7"),
    ),
    "ng-paper": (
        "natural gradient, the paper's form",
        partial(_natural_gradient, fisher="monte-carlo", utilities="raw", step_size=20.0),
        Look("", "#CC79A7"),
    ),
    "ng-ranks": ("natural gradient, ranks", _natural_gradient, Look("", "#8a63b0")),
}
OURS = Arm("ours", "keeprate's search", _ours, Look("", "#D55E00", width=2.4))
LONG_ARM = Arm(
    "long", f"keeprate's search, {LONG} trials", partial(_ours, cost=LONG), Look("", "#000000")
)
FROM_START = tuple(
    Arm(
        f"{name}-after",
        f"{label}, from the same start",
        partial(_rival, sampler=sampler, after_start=True),
        look,
        after_start=True,
    )
    for name, (label, sampler, look) in _SAMPLERS.items()
)
ALONE = (
    *(
        Arm(
            name,
            label,
            partial(_rival, sampler=sampler),
            Look("", look.color, (0, (1, 1.2))),
        )
        for name, (label, sampler, look) in _SAMPLERS.items()
    ),
    Arm("cold", "keeprate's, without experience", _begin_cold, Look("", "#D55E00", (0, (1, 1.2)))),
    Arm(
        "tuned",
        "Co-teaching's R(t), noise rate tuned",
        _tuned,
        Look("", "#56B4E9", (0, (4, 1.5))),
    ),
)
TOLD = "told"  # Co-teaching's R(t) with the true noise rate, one training
# In the order in which they run: the claim of six trainings needs the first two.
GROUPS: dict[str, tuple[Arm, ...]] = {
    "ours": (OURS, *FROM_START),
    "long": (LONG_ARM,),
    "alone": ALONE,
}
ARMS = (OURS, *FROM_START, *ALONE)
STRIDE = 1000  # between the candidate numbers of two arms; initial weights depend on the number


# The trainings ---------------------------------------------------------------------------------


def search_group(protocol: Protocol, noise: str, seed: int, folder: str, group: str) -> Row:
    """Run the searches of a group, in lockstep.

    Returns
    -------
    dict
        `traces`: arm -> its trace. `told`: test accuracy of Co-teaching with the true noise rate,
        in the group `ours`. `conditions`: what the searches knew. `seconds` of all trainings.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    data = keeprate.prepare(
        load_data(folder, protocol.data, seed), noise=noise, seed=seed, limit=protocol.limit
    )
    config = TrainingConfig(epochs=protocol.epochs, batch_size=protocol.batch_size)
    setup = make_setup(data, model=protocol.model, config=config, seed=seed, out=None)
    conditions, spent = Conditions.found(None), 0.0
    if group != "alone":
        first = train_first(setup, get_method("co-teaching"))
        conditions = Conditions.found(first)
        spent = first.epochs / protocol.epochs
    seconds = [0.0]
    arms = GROUPS[group]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        searches = {arm.name: arm.begin(protocol, seed, conditions, spent) for arm in arms}
    row: Row = {"conditions": [round(number, 4) for number in astuple(conditions)]}
    alone = [arm for arm in arms if not arm.after_start]
    if OURS in arms:
        rate = Noise.parse(noise).noise_rate or 0.0
        row[TOLD] = _train_told(setup, rate, seconds)
    turns = _train({arm.name: searches[arm.name] for arm in alone}, setup, seconds)
    next(turns, None)  # the first generation
    for arm in arms:
        if arm.after_start:
            searches[arm.name].begin_with(searches[OURS.name])
    if len(alone) < len(arms):
        turns = _train(searches, setup, seconds, turn=1)
    for _ in turns:
        pass
    traces = {name: search.trace for name, search in searches.items()}
    return row | {"traces": traces, "seconds": round(seconds[0], 1)}


def _train(
    searches: dict[str, Search], setup: Setup, seconds: list[float], turn: int = 0
) -> Iterator[int]:
    """Train what the searches ask for, turn by turn, in lockstep."""
    method, names = get_method("co-teaching"), list(searches)

    def collect(population: Population) -> None:
        for number, curves in sorted(population.curves.items()):
            arm, trial = divmod(number, STRIDE)
            searches[names[arm]].finish(trial, curves)
            seconds[0] += curves.seconds

    while asked := [(i, trial) for i, name in enumerate(names) for trial in searches[name].ask()]:
        candidates = [
            Candidate(i * STRIDE + trial.number, searches[names[i]].schedule(trial), method)
            for i, trial in asked
        ]
        train_candidates(candidates, setup, stream=NAME, order=turn, after_group=collect)
        turn += 1
        yield turn


def _train_told(setup: Setup, noise_rate: float, seconds: list[float]) -> float:
    """Test accuracy of Co-teaching with its own R(t) and the true noise rate."""
    found: list[Curves] = []
    epochs = setup.config.epochs
    schedule = Schedule(co_teaching_schedule(epochs, tau=noise_rate, t_k=min(10, epochs)), TOLD)
    train_candidates(
        [Candidate(0, schedule, get_method("co-teaching"))],
        setup,
        stream=TOLD,
        after_group=lambda population: found.extend(population.curves.values()),
    )
    seconds[0] += found[0].seconds
    return round(found[0].test_accuracy[-1], 6)


def run(
    protocol: Protocol,
    *,
    data: str,
    seeds: int | None = None,
    at_once: int = 1,
    results: Path = RESULTS,
) -> list[Row]:
    """Run the searches that the results file does not have; `data` is the folder of data sets."""
    jobs = [
        Job(
            {"noise": noise, "seed": seed, "group": group},
            partial(search_group, protocol, noise, seed, data, group),
        )
        for group in GROUPS
        for seed in list(protocol.numbers)[:seeds]
        for noise in NOISES
    ]
    return run_missing(
        NAME,
        protocol.name,
        protocol.as_row(),
        jobs,
        at_once=at_once,
        results=results,
        words=lambda row: ", ".join(
            f"{name} {100 * trace[-1][2]:.2f} %" for name, trace in row["traces"].items() if trace
        ),
    )


# Numbers from the rows -------------------------------------------------------------------------


def traces_of(rows: Sequence[Row], noise: str, arm: str) -> dict[int, list[list[float]]]:
    """The traces of an arm under a noise, by seed."""
    return {
        row["seed"]: row["traces"][arm]
        for row in rows
        if row["noise"] == noise and arm in row["traces"]
    }


def at_cost(trace: Sequence[Sequence[float]], cost: float) -> tuple[float, float] | None:
    """Value and test accuracy of the schedule that ranks first at a cost; None before any does."""
    reached = [(value, test) for spent, value, test in trace if spent <= cost + 1e-9]
    return reached[-1] if reached else None


Accuracies = dict[tuple[str, int], float]
"""Test accuracies in percent, by noise and seed."""


def accuracies(rows: Sequence[Row], name: str, cost: float) -> Accuracies:
    """Test accuracies of an arm at a cost; the long search's at its end, `TOLD`'s at its own."""
    found = {}
    for row in rows:
        reached = None
        if name == TOLD:
            reached = row.get(name)
        elif name in row["traces"]:
            limit = LONG + 1 if name == LONG_ARM.name else cost
            at = at_cost(row["traces"][name], limit)
            reached = None if at is None else at[1]
        if reached is not None:
            found[row["noise"], row["seed"]] = 100 * reached
    return found


def of_noise(values: Accuracies, noise: str) -> list[float]:
    """Those of one noise, a number for each seed."""
    return [value for (other, _), value in values.items() if other == noise]


@dataclass(frozen=True)
class Compared:
    """Paired differences of two arms, over the runs that both have.

    Attributes
    ----------
    mean : float
        In percentage points.
    n_runs : int
    are_equal : bool
        Whether every difference is 0.
    p_value : float or None
        Of a signed-rank test; None with so few runs that 0.05 is out of reach, or equal ones.
    ranks_agree : bool
        Whether the ranks lie on the side of the mean; a few large differences may outweigh them.
    """

    mean: float
    n_runs: int
    are_equal: bool
    p_value: float | None
    ranks_agree: bool

    def __str__(self) -> str:
        """The mean difference, with its p-value."""
        p_value = "" if self.p_value is None else f"p = {self.p_value:.2g}, "
        mean = round(self.mean, 2) + 0.0  # not -0.00
        return f"{mean:+.2f} ({p_value}{self.n_runs} run{'s' * (self.n_runs > 1)})"


LEAST_PAIRS = 6  # below, a signed-rank test cannot reach p < 0.05


def compare(values: Accuracies, others: Accuracies) -> Compared | None:
    """By how much values are above others; None if no run has both."""
    both = sorted(values.keys() & others.keys())
    if not both:
        return None
    # Rounded: rounding errors would tell equal differences apart.
    gaps = np.round([values[key] - others[key] for key in both], 6)
    mean, p_value, agree = float(gaps.mean()), None, True
    if gaps.any() and len(gaps) >= LEAST_PAIRS:
        p_value = float(wilcoxon(gaps).pvalue)
        agree = (wilcoxon(gaps, alternative="greater").pvalue < 0.5) == (mean > 0)
    return Compared(mean, len(gaps), not gaps.any(), p_value, agree)


def curves_of(
    traces: Sequence[Sequence[Sequence[float]]], cost: int, which: int
) -> NDArray[np.float64]:
    """A row for each trace: at each whole cost 1..cost, NaN where it has no schedule yet.

    `which` is 0 for the value, 1 for the test accuracy.
    """
    nothing = (np.nan, np.nan)
    return np.array(
        [
            [(at_cost(trace, spent) or nothing)[which] for spent in range(1, cost + 1)]
            for trace in traces
        ]
    )


# The picture -----------------------------------------------------------------------------------


def draw(protocol: str, *, results: Path = RESULTS, images: Path = IMAGES) -> list[Path]:
    """Draw a column for each noise: value above, test accuracy below, against cost.

    Returns
    -------
    list of Path
        A PNG and an SVG.
    """
    rows = results_to_draw(NAME, protocol, results)["rows"]
    with matplotlib.rc_context(STYLE):
        figure, panels = new_figure(2, len(NOISES))
        for column, noise in zip(panels.T, NOISES, strict=True):
            for which, axes in enumerate(column):
                _lines(axes, rows, noise, which)
            column[0].set_title(NOISES[noise])
            column[1].set_xlabel("cost, full trainings")
        panels[0, 0].set_ylabel("validation value, %")
        panels[1, 0].set_ylabel("test accuracy, last epoch, %")
        panels[0, -1].legend(
            *panels[1, -1].get_legend_handles_labels(),
            loc="upper left",
            bbox_to_anchor=(1.02, 1.0),
            handlelength=3,
        )
        return save(figure, f"{NAME}-{protocol}", images)


def _lines(axes: Axes, rows: Sequence[Row], noise: str, which: int) -> None:
    costs = [*range(1, COST + 1), COST + 0.6]  # the last step has a width, too
    for arm in ARMS:
        traces = list(traces_of(rows, noise, arm.name).values())
        if not traces:
            continue
        curves = 100 * curves_of(traces, COST, which)
        curves = np.append(curves, curves[:, -1:], axis=1)
        mean, look = curves.mean(0), arm.look
        axes.step(
            costs,
            mean,
            where="post",
            color=look.color,
            ls=look.dashes,
            lw=look.width,
            label=arm.label,
        )
        if arm is OURS and len(curves) > 1:
            spread = curves.std(0, ddof=1)
            axes.fill_between(
                costs, mean - spread, mean + spread, step="post", color=look.color, alpha=0.15, lw=0
            )
    told = of_noise(accuracies(rows, TOLD, COST), noise)
    if which and told:
        axes.axhline(
            float(np.mean(told)),
            color="black",
            lw=1,
            ls=":",
            label="Co-teaching told the noise rate",
        )
    axes.set_xticks(range(1, COST + 1))
