"""A search for R(t), from the arguments to the run folder."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import optuna
from torch import nn

from keeprate.checksums import RECORD_FILE
from keeprate.data import Data
from keeprate.engine import (
    AT_A_TIME,
    CHECKPOINT_SECONDS,
    Method,
    MetricLike,
    Progress,
    Ray,
    Setup,
    TrainingConfig,
    get_method,
    make_setup,
    networks_trained,
    trained_on,
)
from keeprate.errors import Words, check_whole, invalid
from keeprate.records import (
    Cost,
    RunRecord,
    TrialCounts,
    is_finished,
    open_record,
    owned,
    save_record,
)
from keeprate.runs import (
    Baselines,
    Plan,
    Run,
    RunBefore,
    assumed_noise_rate,
    baseline_plans,
    baselines_in_config,
    finish,
    finished_run,
    first_cost,
    first_epochs,
    get_baselines,
    judging_trainings,
    remove_first,
    train_first,
)
from keeprate.schedules import Schedule, get_space
from keeprate.searching.budget import LEAST_TRAININGS, Budget, confirming
from keeprate.searching.config import SearchConfig, check_budget, refuse_replaced
from keeprate.searching.database import Database
from keeprate.searching.experience import Conditions, experience_digest
from keeprate.searching.proposals import Proposals, summarise_trial
from keeprate.searching.pruners import check_group, pruner_in_words
from keeprate.searching.study import STUDY_FILE, find_study, open_study, ranked, storage_errors
from keeprate.searching.timing import affordable
from keeprate.searching.trials import TrialLoop

MOST_FINALISTS = 2  # schedules that share the final trainings


def search(
    data: Data,
    *,
    budget: float | str = 6,
    method: str | Method = "auto",
    model: str | Callable[..., nn.Module] = "auto",
    config: TrainingConfig | None = None,
    search_config: SearchConfig | None = None,
    noise_rate: float | None = None,
    baselines: Baselines = True,
    restarts: int = 3,
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    lockstep: int | None = None,
    tensorboard: bool = False,
    progress: bool | Progress = False,
    command: str = "",
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    metric: MetricLike = "accuracy",
    positive: object = None,
    after: str | os.PathLike[str] | None = None,
    cluster: str | Ray | None = None,
    storage: str | None = None,
    **replaced: Any,
) -> Run:
    """Search R(t) on the validation set, then train the final networks with the best schedules.

    The search has six steps:

    1. Check all arguments. Nothing is written before they are good.
    2. Open the run folder. A finished run is returned as it is, an interrupted one goes on.
    3. Plan how many trials the budget buys.
    4. Estimate the noise, and how fast networks learn it by heart, by a short training.
    5. Train the trials, a generation at a time in lockstep, and rank their schedules.
    6. Train the two best schedules to the end, several times, beside the baselines.

    The value of a trial is its validation score (by the metric; the determinant where labels are
    noisy: `Data.criterion`), averaged over the last tenth of the epochs and over the peers. The
    search optimises the end of training, not a peak. No test sample takes part.

    Parameters
    ----------
    data : Data
        From `keeprate.prepare`.
    budget : float or str
        6 or "6": a search that costs no more than six full trainings. "30m": a run that takes about
        half an hour, final trainings included. "40trials": exactly 40 trials, at any cost.
    method, model, config, noise_rate, baselines, seed, lockstep, tensorboard, progress, command, \
checkpoint_seconds, metric, positive, cluster
        As in `keeprate.train`.
    search_config : SearchConfig, optional
        Space, sampler, pruner, fidelity, confirmation, warm start.
    restarts : int
        Of each final training. From two on the two best schedules take turns, the best first.
    out : path, optional
        The run folder. An interrupted search in the folder goes on, to the same result.
    after : path, optional
        As for `keeprate.train`. The search tries the schedule of that run first, so a smaller
        budget may do.
    storage : str, optional
        The URL of the database that holds the Optuna study, in place of `study.db` in the run
        folder: postgresql://user@host/database, mysql://..., sqlite:///file. The study gets a name
        of its own there. No file and no message repeats user, password and options of the URL.
    **replaced
        None: arguments of earlier versions are refused with their new names.

    Returns
    -------
    Run

    Raises
    ------
    InputError
        If an argument cannot be used.
    """
    # 1. Check all arguments.
    refuse_replaced(replaced)
    config, search_config = config or TrainingConfig(), search_config or SearchConfig()
    before = None if after is None else RunBefore.of(after)
    if before is not None:
        data = before.applied_to(data)
        search_config = _beginning_with(before.folder, search_config)
    method, limit = get_searchable(method), check_budget(budget, search_config)
    baselines = get_baselines(baselines, method)
    compared = baseline_plans(baselines, config.epochs, assumed_noise_rate(data, noise_rate))
    restarts = check_whole("restarts", restarts, 1)
    n_finalists = min(MOST_FINALISTS, restarts)
    needs_first = search_config.uses_experience and config.epochs > 1
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
        metric=metric,
        positive=positive,
    )

    database = None if storage is None else Database.parse(storage)
    n_before = first_epochs(setup) / config.epochs if needs_first else 0.0  # trainings
    planned = _trial_counts(limit, search_config, n_before)
    _proposals(search_config, config, planned, seed)  # raises

    # 2. Open the run folder.
    options = _options(method, limit, search_config) | {
        "baselines": baselines_in_config(baselines),
        "restarts": restarts,
        "noise_rate": noise_rate,
    }
    if database is not None:
        options["storage"] = str(database)
    # Nobody else writes in the folder until the run ends.
    cluster = None if is_finished(setup.folder) else cluster  # nothing is left to train
    with trained_on(setup, cluster) as setup, owned(setup.folder):
        if setup.executor is not None:
            n_together = setup.lockstep or AT_A_TIME[setup.device_type]
            check_group(search_config.pruner, n_together)
        record = open_record(setup, "search", command=command, options=options)
        if (run := finished_run(setup, record)) is not None:
            if database is not None:
                database = database.named(setup.folder, record.study)
            return replace(run, study=find_study(setup.folder, database))
        if before is not None:
            before.save(setup.folder)
        if database is not None:
            database = database.named(setup.folder, record.study)
            database.check()
            record = replace(record, study=database.study)
            save_record(setup.folder, record)

        # 3. Plan the trials.
        searched = Plan("searched", f"{method.label}, searched R(t)", method, ())
        counts = record.trial_counts
        if counts is None:
            n_networks = sum(networks_trained(plan.method) for plan in (searched, *compared))
            after_search = restarts * n_networks + judging_trainings(setup)
            n_finals = after_search / networks_trained(method)
            counts = planned
            if limit.unit == "seconds":
                n_others = n_finals + n_before
                counts = _counts(affordable(limit.amount, setup, method, n_finals=n_others))
            _proposals(search_config, config, counts, seed)  # raises
            record = replace(record, trial_counts=counts)
            save_record(setup.folder, record)  # after a kill a time would buy another number
        _check_counts(counts, limit, planned, setup.folder)

        # 4. Estimate the noise.
        if needs_first and record.first is None:
            record = replace(record, first=train_first(setup, method))
            save_record(setup.folder, record)
            remove_first(setup)
        conditions = None
        if search_config.uses_experience:
            conditions = Conditions.found(record.first, noise_rate)
        proposals = _proposals(search_config, config, counts, seed, conditions)

        # 5. Train the trials, rank their schedules.
        record, schedules, study = _run_trials(
            setup, record, proposals, method, search_config, database
        )

        # 6. Train the best schedules to the end.
        searched = replace(searched, schedules=schedules[:n_finalists])
        record = replace(record, finalists=record.finalists[:n_finalists])
        cost = _cost(record, config.epochs)
        plans = [searched, *compared]
        run = finish(setup, record, plans, cost, restarts=restarts, by_folds=True)
        return replace(run, study=study)


def _beginning_with(folder: Path, search_config: SearchConfig) -> SearchConfig:
    """Try the schedule of the run before first, where the sampler takes schedules."""
    if not search_config.uses_experience:
        return search_config
    schedules: list[Any] = [folder, *search_config.earlier]
    return replace(search_config, warm_start=schedules)


def get_searchable(method: str | Method) -> Method:
    """Look up a method that learns by R(t).

    Raises
    ------
    InputError
        If the method uses no schedule: there is nothing to search.
    """
    method = get_method(method)
    if not method.uses_schedule:
        requirement = "select samples by R(t) to be searched"
        raise invalid("method", requirement, method.name, "try co-teaching")
    return method


def _trial_counts(budget: Budget, search_config: SearchConfig, n_before: float) -> TrialCounts:
    """How many trials the budget buys; for a time the least, until the machine is timed.

    `n_before` trainings are spent before the trials, on the noise.
    """
    if budget.unit == "seconds":
        n_earlier = len(search_config.earlier)
        return TrialCounts(math.floor(LEAST_TRAININGS) + n_earlier, 0)
    amount = budget.amount
    if budget.unit == "trainings":
        amount = max(1.0, amount - n_before)
    return _counts(amount, confirm=search_config.confirm)


def _counts(trainings: float, *, confirm: bool = True) -> TrialCounts:
    trials = math.floor(trainings)
    return TrialCounts(trials, confirming(trials) if confirm else 0)


def _check_counts(
    counts: TrialCounts, limit: Budget, planned: TrialCounts, folder: Path | None
) -> None:
    """Refuse a number of trials that the budget does not buy: somebody has edited the record."""
    expected = planned
    if limit.unit == "seconds":  # which buys what the machine can do
        expected = _counts(max(counts.trials, LEAST_TRAININGS))
    if counts != expected:
        raise invalid(
            f"trial_counts in {folder}/{RECORD_FILE}",
            f"hold {_counts_in_words(expected)}, as the budget of {limit} says",
            Words(f"{_counts_in_words(counts)}: the file was edited"),
            "put the numbers back, or choose another folder",
        )


def _counts_in_words(counts: TrialCounts) -> str:
    return f"trials {counts.trials} and confirm {counts.confirm}"


def _check_trials(
    study: optuna.Study, proposals: Proposals, folder: Path | None, database: Database | None
) -> None:
    """Refuse a study with more trials than planned: two processes have asked for them."""
    n = len(study.get_trials(deepcopy=False))
    if n > proposals.legs.trials:
        remedy = "choose another folder"
        if database is None:
            remedy = f"delete {STUDY_FILE} to search anew with the same command, or {remedy}"
        raise invalid(
            f"{folder}/{STUDY_FILE}" if database is None else str(database),
            f"hold at most the {proposals.legs.trials} trials of its search",
            Words(f"{n}: two processes have searched in it at once"),
            remedy,
        )


def _proposals(
    search_config: SearchConfig,
    config: TrainingConfig,
    counts: TrialCounts,
    seed: int,
    conditions: Conditions | None = None,
) -> Proposals:
    return Proposals(
        get_space(search_config.space),
        config.epochs,
        search_config.sampler,
        counts.trials,
        counts.confirm,
        seed,
        conditions,
        search_config.fidelity,
        search_config.earlier,
    )


def _options(method: Method, budget: Budget, search_config: SearchConfig) -> dict[str, object]:
    """The options of a search as the record holds them."""
    earlier = [one.keep_rate.tobytes() for one in search_config.earlier]
    known = [f"earlier {sha256(rates).hexdigest()[:8]}" for rates in earlier]
    if search_config.uses_experience:
        known.append(f"experience {experience_digest()}")
    return {
        "method": method.name,
        "method_fingerprint": method.fingerprint(),
        "budget": str(budget),
        "space": search_config.space,
        "sampler": search_config.sampler,
        "pruner": pruner_in_words(search_config.pruner),
        "fidelity": search_config.fidelity,
        "confirm": search_config.confirm,
        "warm_start": known,
    }


def _run_trials(
    setup: Setup,
    record: RunRecord,
    proposals: Proposals,
    method: Method,
    search_config: SearchConfig,
    database: Database | None,
) -> tuple[RunRecord, tuple[Schedule, ...], optuna.Study]:
    """Train all trials; the record with them, and the schedules they tried, the best first."""
    folder: Path | None = setup.folder
    with storage_errors(folder, database):
        study = open_study(folder, database)
        _check_trials(study, proposals, folder, database)
        TrialLoop(study, setup, proposals, method, search_config.pruner).run()
        trials = study.get_trials(deepcopy=False)
    study.sampler = optuna.samplers.RandomSampler()  # ours, after a kill, holds this search
    ranking = ranked(trials)
    best = [proposals.space.schedule(same[0].params, proposals.epochs) for same in ranking]
    schedules = tuple(Schedule(one.keep_rate, "searched", one.parameters) for one in best)
    record = replace(
        record,
        trials=tuple(summarise_trial(trial, proposals) for trial in trials),
        finalists=tuple(tuple(trial.number for trial in same) for same in ranking),
    )
    return record, schedules, study


def _cost(record: RunRecord, epochs: int) -> Cost:
    """The cost before the final trainings."""
    first = first_cost(record, epochs)
    candidate_epochs = first.candidate_epochs
    candidate_epochs += sum(len(trial.validation_score) for trial in record.trials)
    seconds = first.search_seconds + sum(float(trial.seconds) for trial in record.trials)
    return Cost(candidate_epochs, candidate_epochs / epochs, seconds)
