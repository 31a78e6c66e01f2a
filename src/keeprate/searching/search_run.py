"""A search for R(t), from the arguments to the run folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
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
    TrainingConfig,
    trained_on,
)
from keeprate.errors import Words, invalid
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
    Origin,
    Run,
    conclude_again,
    finish,
    finished_run,
    first_cost,
    remove_first,
    train_first,
)
from keeprate.schedules import Schedule
from keeprate.searching.additions import check_added, check_told, settled, with_addition
from keeprate.searching.budget import LEAST_TRAININGS
from keeprate.searching.config import SearchConfig, refuse_replaced
from keeprate.searching.database import Database
from keeprate.searching.experience import Conditions
from keeprate.searching.proposals import Proposals, summarise_trial
from keeprate.searching.pruners import check_group
from keeprate.searching.request import Request, counts_of, read_request
from keeprate.searching.stages import after_trials, before_trials, trials_together
from keeprate.searching.study import STUDY_FILE, find_study, open_study, ranked, storage_errors
from keeprate.searching.timing import TOGETHER, Prices, affordable, measure
from keeprate.searching.trials import STREAM, TrialLoop, order_of


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
    add_trials: int | None = None,
    **replaced: Any,
) -> Run:
    """Search R(t) on the validation set, then train the final networks with the best schedules.

    The search has six steps:

    1. Check all arguments. Nothing is written before they are good.
    2. Open the run folder. A finished run is returned as it is, an interrupted one goes on.
    3. Plan how many trials the budget buys.
    4. Estimate the noise, and how fast networks learn it by heart, by a short training.
    5. Train the trials, a generation at a time in lockstep, and rank their schedules.
    6. Train the two best schedules to the end, several times, beside the baselines. The first of
       these trainings repeats the best trial of the best schedule.

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
    add_trials : int, optional
        The finished search in `out` goes on by so many trials; all other arguments are those that
        it was made with. Its trials stay as they are. The final networks are trained anew if other
        schedules are the best then; baselines stay. If the call is interrupted, the same call
        goes on; once it has ended, the same call adds as many again. A budget that is a time
        cannot be added to.
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
    request = read_request(
        data,
        budget=budget,
        method=method,
        model=model,
        config=config,
        search_config=search_config,
        noise_rate=noise_rate,
        baselines=baselines,
        restarts=restarts,
        seed=seed,
        out=out,
        lockstep=lockstep,
        tensorboard=tensorboard,
        progress=progress,
        checkpoint_seconds=checkpoint_seconds,
        metric=metric,
        positive=positive,
        after=after,
        storage=storage,
        add_trials=add_trials,
    )

    # 2. Open the run folder. Nobody else writes there until the run ends.
    folder, goes_on = request.setup.folder, add_trials is not None
    if is_finished(folder) and not goes_on:
        cluster = None  # nothing is left to train
    with trained_on(request.setup, cluster) as setup, owned(folder, goes_on=goes_on):
        request = replace(request, setup=setup)
        if setup.executor is not None:
            n_together = setup.lockstep or AT_A_TIME[setup.device_type]
            check_group(request.search_config.pruner, n_together)
        options = request.options
        record = open_record(setup, "search", command=command, options=options, goes_on=goes_on)
        database = request.database
        if database is not None:
            database = database.named(folder, record.study)
        record = _with_addition(request, record, database)
        if (run := finished_run(setup, record)) is not None:
            run = replace(run, record=settled(folder, record))
            return replace(run, study=find_study(folder, database))
        if request.before is not None:
            request.before.save(folder)
        if database is not None:
            database.check()
            record = replace(record, study=database.study)
            save_record(folder, record)
        run = _carried_out(request, record, database)
        return replace(run, record=settled(folder, run.record))


def _carried_out(request: Request, record: RunRecord, database: Database | None) -> Run:
    """Go on with a search from where its record is: steps 3 to 6."""
    setup, folder = request.setup, request.setup.folder

    # 3. Plan the trials.
    counts = record.trial_counts
    if counts is None:
        counts = affordable_counts(request)
        request.proposals(counts)  # raises
        record = replace(record, trial_counts=counts)
        save_record(folder, record)  # after a kill a time would buy another number
    _check_counts(counts, request)
    check_added(record, folder=folder, confirm=request.search_config.confirm)

    # 4. Estimate the noise.
    if request.first_epochs and record.first is None:
        record = replace(record, first=train_first(setup, request.method))
        save_record(folder, record)
        remove_first(setup)
    conditions = None
    if request.search_config.uses_experience:
        conditions = Conditions.found(record.first, request.noise_rate)

    # 5. Train the trials, rank their schedules.
    proposals, before = request.proposals(counts, conditions, record.added), record
    if record.is_adding:
        check_told(record, proposals, folder, database)
    record, schedules, study = _run_trials(request, record, proposals, database)

    # 6. Train the best schedules to the end.
    n_finalists = request.n_finalists
    record = replace(record, finalists=record.finalists[:n_finalists])
    plans = request.plans(schedules[:n_finalists], _origin_of_best(record, proposals))
    cost = _cost(record, request.epochs)
    if not record.is_adding:
        run = finish(setup, record, plans, cost, restarts=request.restarts, by_folds=True)
    elif record.finalists == before.finalists:  # the best schedules, and no training more of them
        run = conclude_again(setup, record, replace(cost, final_seconds=before.cost.final_seconds))
    else:
        kept = record.results[1:]  # no trial says anything new about the baselines
        spent = before.cost.final_seconds - sum(one.seconds for one in kept)
        run = finish(
            setup,
            record,
            plans[:1],
            replace(cost, final_seconds=spent),
            restarts=request.restarts,
            by_folds=True,
            kept=kept,
        )
    return replace(run, study=study)


def _with_addition(request: Request, record: RunRecord, database: Database | None) -> RunRecord:
    """Begin an addition to a finished search if one is asked for, or take up an interrupted one."""
    folder, n = request.setup.folder, request.add_trials
    if n is None:
        return record
    confirm = request.search_config.confirm
    new = with_addition(record, n, folder=folder, confirm=confirm)
    if new is record:  # the command is repeated
        return record
    # Nothing is written unless the search can go on.
    _check_counts(record.trial_counts or request.counts, request)
    check_added(record, folder=folder, confirm=confirm)
    proposals = request.proposals(request.counts, None, new.added)
    check_told(record, proposals, folder, database)
    save_record(folder, new)
    return new


def affordable_counts(request: Request, prices: Prices | None = None) -> TrialCounts:
    """How many trials the budget buys; a time buys what the machine can do, which is measured."""
    budget, setup = request.budget, request.setup
    if budget.unit != "seconds":
        return request.counts
    prices = prices or measure(setup, request.method)
    others = (*before_trials(request), *after_trials(request))
    trials = trials_together(request, TOGETHER)
    return counts_of(affordable(budget.amount, prices, trials, others))


def _check_counts(counts: TrialCounts, request: Request) -> None:
    """Refuse a number of trials that the budget does not buy: somebody has edited the record."""
    expected = request.counts
    if request.budget.unit == "seconds":  # which buys what the machine can do
        expected = counts_of(max(counts.trials, LEAST_TRAININGS))
    if counts != expected:
        raise invalid(
            f"trial_counts in {request.setup.folder}/{RECORD_FILE}",
            f"hold {_counts_in_words(expected)}, as the budget of {request.budget} says",
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
        if database is None and not proposals.added:  # an addition needs the trials of before
            remedy = f"delete {STUDY_FILE} to search anew with the same command, or {remedy}"
        raise invalid(
            f"{folder}/{STUDY_FILE}" if database is None else str(database),
            f"hold at most the {proposals.legs.trials} trials of its search",
            Words(f"{n}: two processes have searched in it at once"),
            remedy,
        )


def _run_trials(
    request: Request,
    record: RunRecord,
    proposals: Proposals,
    database: Database | None,
) -> tuple[RunRecord, tuple[Schedule, ...], optuna.Study]:
    """Train all trials; the record with them, and the schedules they tried, the best first."""
    setup, pruner = request.setup, request.search_config.pruner
    folder: Path | None = setup.folder
    with storage_errors(folder, database):
        study = open_study(folder, database)
        _check_trials(study, proposals, folder, database)
        TrialLoop(study, setup, proposals, request.method, pruner).run()
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


def _origin_of_best(record: RunRecord, proposals: Proposals) -> Origin:
    """What the best training of the best schedule came from."""
    number = max(record.finalists[0], key=lambda number: record.trials[number].value or 0.0)
    return Origin(number, STREAM, order_of(number, proposals), n_taken=len(record.trials))


def _cost(record: RunRecord, epochs: int) -> Cost:
    """The cost before the final trainings."""
    first = first_cost(record, epochs)
    candidate_epochs = first.candidate_epochs
    candidate_epochs += sum(len(trial.validation_score) for trial in record.trials)
    seconds = first.search_seconds + sum(float(trial.seconds) for trial in record.trials)
    return Cost(candidate_epochs, candidate_epochs / epochs, seconds)
