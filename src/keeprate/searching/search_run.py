"""Search the keep-rate schedule: ask a population, train it, tell."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import optuna
from optuna.pruners import BasePruner, NopPruner
from optuna.trial import FrozenTrial, TrialState
from torch import nn

from keeprate.data import Data
from keeprate.engine import (
    CHECKPOINT_SECONDS,
    Method,
    Population,
    Progress,
    Setup,
    TrainingConfig,
    checkpoint_path,
    get_method,
    load_curves,
    make_setup,
    networks_trained,
    train_schedules,
    trial_value,
)
from keeprate.errors import invalid
from keeprate.records import open_record, save_record
from keeprate.runs import (
    Baselines,
    Plan,
    Run,
    assumed_noise_rate,
    baseline_plans,
    check_restarts,
    describe_baselines,
    finish,
    finished_run,
    get_baselines,
)
from keeprate.schedules import PRESETS, Schedule, get_space, load_schedule, presets_in_words
from keeprate.searching.budget import LEAST, affordable, parse_budget
from keeprate.searching.proposals import Proposals, confirming, describe_trial, tell
from keeprate.searching.pruners import Judge, get_pruner, pruner_in_words
from keeprate.searching.study import (
    best_value,
    find_study,
    open_study,
    ranked,
    storage_errors,
)

MOST_FINALISTS = 2  # schedules that share the final trainings
Found: TypeAlias = str | os.PathLike[str] | Schedule | Sequence[float]
STREAM = "search"  # of seeds, and the name of the population's checkpoint


def search(
    data: Data,
    *,
    model: str | Callable[..., nn.Module] = "mlp",
    method: str | Method = "co-teaching",
    space: str = "basis",
    sampler: str = "natural-gradient",
    pruner: str | BasePruner = "none",
    trials: int | None = None,
    fidelity: float = 1.0,
    confirm: bool = True,
    warm_start: bool | Found | Iterable[Found] = True,
    config: TrainingConfig | None = None,
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    budget: float | str | None = None,
    baselines: Baselines = True,
    restarts: int = 3,
    noise_rate: float | None = None,
    lockstep: int | None = None,
    command: str = "",
    progress: Progress | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    tensorboard: bool = False,
) -> Run:
    """Search R(t) on the validation set, then train the final networks with the best.

    A trial's value is its validation score (accuracy, or where the labels are noisy what
    `Data.criterion` says), averaged over the last tenth of the epochs and over the peers: the
    search optimises what is there at the end of training, not a peak.
    No test sample is seen before the search is over.

    Parameters
    ----------
    data : Data
        From `keeprate.prepare`.
    model, method, config, seed, baselines, noise_rate, lockstep, tensorboard
        As in `keeprate.train`.
    space : str
        See `keeprate.schedules.SPACES`.
    sampler : {"natural-gradient", "random", "tpe", "paper:STEP"}
        The last one is the paper's natural gradient with that step size, a fifth of the trials an
        iteration.
    pruner : {"none", "halving", "median", "successive-halving", "hyperband"} or an Optuna pruner
        Who stops early, by the trial's value so far; only trials that train to the end can win.
        "halving" stops the worse six of a population's ten after 40 % of the epochs, and half of
        the others after 60 %: 0.56 of the cost. Candidates compete with those that train with
        them: where memory holds few at a time, fewer are stopped, and one alone never is. The
        others are Optuna's, asked after every epoch.
    trials : int, optional
        Trainings to start, 40 if nothing is said; without a pruner each is a full one.
    fidelity : float
        Share of the epochs that the exploring trials train for, in (0, 1]: the whole R(t) and the
        whole learning-rate schedule in fewer epochs. Below 1 only trials that confirm train fully,
        and only they can win, so that `confirm` and 16 trials or more are needed. For trainings
        that are long enough to memorise wrong labels in that share, too.
    confirm : bool
        Use about a quarter of the trials (none of fewer than 16) to train the best schedules
        again, from other initial weights and in another order of the samples, the best of these
        once more (of five or more), and choose by the mean: the best of many single trainings was
        partly lucky.
        These trials are not pruned.
    warm_start : bool, or one or several schedules
        Begin (where four trials or more explore) with given schedules, as near as the space comes
        to them: up to ten, three of which were found on scikit-learn's digits, the others quick
        drops and plain decays to levels from 0.35 to 1. False: begin with what the sampler draws
        without knowing anything. Schedules found on other data (run folders, files, `Schedule`s or
        rows of numbers, of any length: they are stretched) come in front of the given ones, however
        few trials explore.
    budget : float or str, optional
        Instead of `trials`, `fidelity` and `confirm`: what the search may cost, in full trainings
        (6, at least 2), or how long all may take, final trainings included ("30m", "2h").
    out : path, optional
        The run folder; an interrupted search in it is continued, to the same result.
    restarts : int
        Of the final trainings, the baselines' too: as in `keeprate.train`. From two on the two best
        schedules take turns, the best first.

    Returns
    -------
    Run

    Raises
    ------
    InputError
        If something given cannot be used.
    """
    config = config or TrainingConfig()
    chosen, family = get_method(method), get_space(space)
    if not chosen.uses_schedule:
        raise invalid("method", "select samples to be searched", chosen.name, "try co-teaching")
    get_pruner(pruner, config.epochs)  # complains
    planned = _planned(budget, trials, fidelity, confirm)
    earlier, begin = _earlier(warm_start), warm_start is not False

    def proposals_of(plan: tuple[int, int]) -> Proposals:
        n, again = plan
        return Proposals(family, config.epochs, sampler, n, again, seed, begin, fidelity, earlier)

    # Complains before a folder is made; how many trials a time buys is not known yet.
    proposals_of(planned or _plan(LEAST + len(earlier), confirm=False))
    known_rate = assumed_noise_rate(data, noise_rate)
    compared = get_baselines(baselines, chosen)
    rest = baseline_plans(compared, config.epochs, known_rate)
    setup = make_setup(
        data,
        model=model,
        config=config,
        seed=seed,
        out=out,
        lockstep=lockstep,
        progress=progress,
        checkpoint_seconds=checkpoint_seconds,
        tensorboard=tensorboard,
    )
    n_finalists = min(MOST_FINALISTS, check_restarts(restarts))
    most = len(earlier) + len(PRESETS) if planned is None else planned[0] - planned[1]
    options = {
        "method": chosen.name,
        "method_fingerprint": chosen.fingerprint(),
        "space": space,
        "sampler": sampler,
        "pruner": pruner_in_words(pruner),
        "trials": None if planned is None else planned[0],
        "budget": None if budget is None else list(parse_budget(budget)),
        "fidelity": fidelity,
        "confirm": confirm,
        "warm_start": begin and presets_in_words(most, earlier),
        "baselines": describe_baselines(compared),
        "restarts": restarts,
        "finalists": n_finalists,
        "noise_rate": noise_rate,
    }
    record = open_record(setup, "search", command=command, options=options)
    done = finished_run(setup, record)
    if done is not None:
        return replace(done, study=find_study(setup.folder))
    plans = [Plan("searched", f"{chosen.label}, searched R(t)", chosen, ())]
    plans += rest
    if "plan" not in record:
        if planned is None:
            finals = sum(networks_trained(plan.method) for plan in plans)
            n_finals = restarts * finals / networks_trained(chosen)
            seconds, _ = parse_budget(str(budget))
            planned = _plan(affordable(seconds, setup, chosen, n_finals=n_finals))
        # Kept: after a kill a time would buy something else.
        record["plan"] = {"trials": planned[0], "confirm": planned[1]}
        if setup.folder is not None:
            save_record(setup.folder, record)
    proposals = proposals_of((record["plan"]["trials"], record["plan"]["confirm"]))
    with storage_errors(setup.folder):
        study = open_study(setup.folder)
        _run_trials(study, setup, proposals, method=chosen, pruner=pruner)
        finished = study.get_trials(deepcopy=False)
        record["trials"] = [describe_trial(trial, proposals) for trial in finished]
    study.sampler = optuna.samplers.RandomSampler()  # ours holds this search: let go of it
    best = ranked(finished)[:n_finalists]
    # By trial number; which of them has the run's networks is in its result.
    record["finalists"] = [[trial.number for trial in same] for same in best]
    found = [family.schedule(same[0].params, config.epochs) for same in best]
    plans[0] = replace(
        plans[0],
        schedules=tuple(Schedule(one.keep_rate, "searched", one.parameters) for one in found),
    )
    epochs = sum(len(trial["validation_score"]) for trial in record["trials"])
    cost = {
        "search_seconds": sum(float(trial["seconds"]) for trial in record["trials"]),
        "candidate_epochs": epochs,
        "full_trainings": epochs / config.epochs,
    }
    return replace(finish(setup, record, plans, cost, restarts=restarts), study=study)


def _earlier(warm_start: bool | Found | Iterable[Found]) -> tuple[Schedule, ...]:
    """The schedules that a warm start names."""
    if isinstance(warm_start, bool):
        return ()
    if isinstance(warm_start, str | os.PathLike | Schedule):
        warm_start = [warm_start]
    try:
        named: tuple[Any, ...] = tuple(warm_start)
    except TypeError:
        requirement = "be True, False, or name schedules"
        raise invalid("warm_start", requirement, warm_start, "give run folders or files") from None
    return tuple(_renamed(one) for one in named)


def _renamed(found: Found) -> Schedule:
    """By one name: the same schedule from a file and from memory is the same warm start."""
    if isinstance(found, str | os.PathLike):
        found = load_schedule("warm_start", found)
    rates: Any = found.keep_rate if isinstance(found, Schedule) else found
    return Schedule(rates, "earlier")


def _planned(
    budget: float | str | None, trials: int | None, fidelity: float, confirm: bool
) -> tuple[int, int] | None:
    """How many trials, and how many of these confirm; None if the budget is a time."""
    if budget is None:
        n = 40 if trials is None else trials
        return _plan(n, confirm=confirm)
    also = [
        name
        for name, said in (
            ("trials", trials is not None),
            ("fidelity", fidelity != 1),
            ("no confirmation", not confirm),
        )
        if said
    ]
    if also:
        requirement = "be given alone, as it plans the trials,"
        raise invalid("budget", requirement, f"{' and '.join(also)}, too", "leave that out")
    value, unit = parse_budget(budget)
    return _plan(value) if unit == "trainings" else None


def _plan(trainings: float, *, confirm: bool = True) -> tuple[int, int]:
    """How many trials so many full trainings are, and how many of these confirm."""
    trials = math.floor(trainings)
    return trials, confirming(trials) if confirm else 0


def _run_trials(
    study: optuna.Study,
    setup: Setup,
    proposals: Proposals,
    *,
    method: Method,
    pruner: str | BasePruner,
) -> None:
    """Train populations until all trials are finished; picks up what was interrupted."""
    data = replace(setup.data, test=None)  # the search never sees a test sample
    _tell_rest(study, setup, proposals)
    judges: dict[tuple[int, ...], Judge | None] = {}  # of the group that trains, once it does
    while pending := proposals.ask(study):
        first = pending[0].number
        epochs = proposals.epochs_of(first)
        asked = {trial.number: trial for trial in pending}

        def show(done: float) -> None:
            if setup.progress is not None:
                setup.progress("search", done, proposals.trials, best_value(study))

        def climb(
            population: Population,
            before: int = len(study.trials) - len(pending),
            asked: dict[int, FrozenTrial] = asked,
            explores: bool = first < proposals.n_explored,
            epochs: int = epochs,
        ) -> None:
            curves = {n: c.validation_score for n, c in sorted(population.curves.items())}
            group = tuple(curves)
            if explores and group not in judges:
                # A new one for each group, that knows who is told: also of groups that are halved
                # and begin anew, and the same after a kill.
                judges.clear()
                judges[group] = _make_judge(study, proposals, pruner)
            judge = judges.get(group)
            if judge is not None:
                now, trials = population.epoch, [asked[number] for number in group]
                population.drop(judge(trials, _values(curves, epochs), now))
            show(before + len(population.curves) * population.epoch / epochs)

        def finish_group(population: Population) -> None:
            for number, curves in population.curves.items():
                tell(study, number, curves, proposals, failed=number in population.failed)
            show(len([t for t in study.get_trials(deepcopy=False) if t.state.is_finished()]))

        train_schedules(
            [trial.number for trial in pending],
            [
                proposals.space.schedule(trial.params, proposals.epochs).stretched(epochs)
                for trial in pending
            ],
            replace(setup, config=replace(setup.config, epochs=epochs)),
            methods=[method] * len(pending),
            stream=STREAM,
            data=data,
            # Other batches for each population: else the search would fit R(t) to one sequence.
            order=proposals.generation_of(first).start,
            after_epoch=climb,
            after_group=finish_group,
        )


def _make_judge(
    study: optuna.Study, proposals: Proposals, pruner: str | BasePruner
) -> Judge | None:
    """Who stops candidates, told of all exploring trials that are finished; None if nobody does."""
    epochs = proposals.epochs_of(0)
    chosen = get_pruner(pruner, epochs)
    if isinstance(chosen, NopPruner):
        return None
    judge, first = Judge(chosen, epochs), 0
    explored = study.get_trials(deepcopy=False)[: proposals.n_explored]
    while first < len(explored):
        asked = proposals.generation_of(first)
        over = [t for t in explored[first : asked.stop] if t.state.is_finished()]
        curves = {t.number: json.loads(t.user_attrs["validation_score"]) for t in over}
        judge(over, _values(curves, epochs), epochs)
        first = asked.stop
    return judge


def _values(curves: Mapping[int, list[float]], epochs: int) -> dict[int, list[float]]:
    """What each trial was worth after each of its epochs."""
    return {
        number: [trial_value(curve[:n], epochs) for n in range(1, len(curve) + 1)]
        for number, curve in curves.items()
    }


def _tell_rest(study: optuna.Study, setup: Setup, proposals: Proposals) -> None:
    """Tell what was trained but not told: who is pruned depends on all who trained together."""
    path = checkpoint_path(setup.folder, STREAM)
    if path is None or not path.exists():
        return
    epoch, left, failed, curves = load_curves(path)
    if left and epoch < proposals.epochs_of(left[0]):
        return
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    for number in {trial.number for trial in running} & curves.keys():
        tell(study, number, curves[number], proposals, failed=number in failed)
