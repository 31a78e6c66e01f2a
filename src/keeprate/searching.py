"""Search the keep-rate schedule: ask a population, train it, tell."""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState
from torch import nn

from keeprate.checkpoints import load_curves
from keeprate.data import Data
from keeprate.errors import InputError, invalid
from keeprate.lockstep import (
    CHECKPOINT_SECONDS,
    Progress,
    Setup,
    checkpoint_path,
    make_setup,
    open_record,
    train_schedules,
)
from keeprate.methods import get_method
from keeprate.runs import Plan, Run, assumed_noise_rate, baselines, finish, finished_run
from keeprate.sampler import NaturalGradientSampler
from keeprate.schedules import Schedule
from keeprate.seeding import derive_seed
from keeprate.spaces import Space, get_space
from keeprate.training import Curves, Population, TrainingConfig

if TYPE_CHECKING:
    from collections.abc import Iterator

STUDY_NAME = "keeprate"
STREAM = "search"  # of seeds, and the name of the population's checkpoint
POPULATION_SIZE = 10  # trials asked at once: a generation of the natural gradient


def _random(seed: int, population: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.RandomSampler(seed=seed)


def _tpe(seed: int, population: int) -> optuna.samplers.BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(seed=seed, constant_liar=True)


def _natural_gradient(seed: int, population: int) -> optuna.samplers.BaseSampler:
    return NaturalGradientSampler(seed=seed, population_size=population)


SAMPLERS: dict[str, Callable[[int, int], optuna.samplers.BaseSampler]] = {
    "natural-gradient": _natural_gradient,
    "random": _random,
    "tpe": _tpe,
}


PRUNERS: dict[str, dict[float, float]] = {
    "none": {},
    "halving": {0.4: 0.5, 0.6: 0.5},
}
"""Rungs: after this share of the epochs, this share of the candidates that train together goes on."""


def search(
    data: Data,
    *,
    model: str | Callable[..., nn.Module] = "mlp",
    method: str = "co-teaching",
    space: str = "basis",
    sampler: str = "natural-gradient",
    pruner: str = "none",
    trials: int = 40,
    config: TrainingConfig | None = None,
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    baselines_too: bool = True,
    noise_rate: float | None = None,
    population: int | None = None,
    command: str = "",
    progress: Progress | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> Run:
    """Search R(t) on the validation set, then train the final networks with the best.

    A trial's value is its validation accuracy, averaged over the last tenth of the epochs and
    over the peers: the search optimises what is there at the end of training, not a peak.
    No test sample is seen before the search is over.

    Parameters
    ----------
    data : Data
        From `keeprate.prepare`.
    model, method, config, seed, noise_rate, population
        As in `keeprate.train`.
    space : str
        See `keeprate.spaces.SPACES`.
    sampler : {"natural-gradient", "random", "tpe"}
    pruner : {"none", "halving"}
        "halving" stops the worse half of each population after 40 % and again after 60 % of the
        epochs: about 0.62 of the cost. Only trials that train to the end can win.
    trials : int
        Schedules to try; without a pruner each costs a full training.
    out : path, optional
        The run folder; an interrupted search in it is continued, to the same result.
    baselines_too : bool
        Also train Standard and Co-teaching's own schedule, for the table.

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
        raise invalid("method", "select samples to be searched", method, "try co-teaching")
    if sampler not in SAMPLERS:
        raise invalid("sampler", f"be one of {', '.join(SAMPLERS)}", sampler, "choose one of these")
    if pruner not in PRUNERS:
        raise invalid("pruner", f"be one of {', '.join(PRUNERS)}", pruner, "choose one of these")
    if trials < 1:
        raise invalid("trials", "be at least 1", trials, "give a positive whole number")
    known_rate = assumed_noise_rate(data, noise_rate)
    setup = make_setup(
        data,
        model=model,
        config=config,
        seed=seed,
        out=out,
        population=population,
        progress=progress,
        checkpoint_seconds=checkpoint_seconds,
    )
    options = {
        "method": method,
        "space": space,
        "sampler": sampler,
        "pruner": pruner,
        "trials": trials,
        "baselines": baselines_too,
        "noise_rate": noise_rate,
    }
    record = open_record(setup, "search", command=command, options=options)
    done = finished_run(setup, record)
    if done is not None:
        return done
    with _storage_errors(setup.folder):
        study = _open_study(setup.folder)
        _run_trials(
            study, setup, family, method=method, sampler=sampler, pruner=pruner, trials=trials
        )
        finished = study.get_trials(deepcopy=False)
        record["trials"] = [_describe_trial(t, family, config.epochs) for t in finished]
    complete = [t for t in finished if t.state == TrialState.COMPLETE and t.value is not None]
    if not complete:
        raise InputError(
            f"all {len(finished)} trials failed: their losses were not finite; try a smaller "
            "learning rate, or check the inputs for extreme values."
        )
    best = max(complete, key=lambda t: (t.value or 0.0, -t.number))
    found = family.schedule(best.params, config.epochs)
    found = Schedule(found.keep_rate, "searched", found.parameters)
    plans = [Plan("searched", f"{chosen.label}, searched R(t)", chosen, found)]
    if baselines_too:
        plans += baselines(setup, known_rate)
    epochs = sum(len(trial["validation_accuracy"]) for trial in record["trials"])
    cost = {
        "search_seconds": sum(float(trial["seconds"]) for trial in record["trials"]),
        "candidate_epochs": epochs,
        "full_trainings": epochs / config.epochs,
    }
    return finish(setup, record, plans, cost)


def trial_value(validation_accuracy: list[float], epochs: int) -> float:
    """Mean validation accuracy over the last tenth of the epochs (at least one).

    >>> trial_value([0.1] * 18 + [0.8, 0.9], 20)
    0.85
    """
    return float(np.mean(validation_accuracy[-max(1, epochs // 10) :]).round(12))


def _open_study(folder: Path | None) -> optuna.Study:
    storage = None
    if folder is not None:
        storage = optuna.storages.RDBStorage(f"sqlite:///{(folder / 'study.db').resolve()}")
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return optuna.create_study(
            storage=storage, study_name=STUDY_NAME, direction="maximize", load_if_exists=True
        )
    finally:
        optuna.logging.set_verbosity(verbosity)


def _run_trials(
    study: optuna.Study,
    setup: Setup,
    space: Space,
    *,
    method: str,
    sampler: str,
    pruner: str,
    trials: int,
) -> None:
    """Train populations until all trials are finished; picks up what was interrupted."""
    epochs = setup.config.epochs
    data = replace(setup.data, test=None)  # the search never sees a test sample
    rungs = {max(1, round(at * epochs)): share for at, share in PRUNERS[pruner].items()}
    _tell_rest(study, setup)
    while True:
        pending = _ask(study, setup, space, sampler=sampler, trials=trials)
        if not pending:
            return

        def climb(population: Population, before: int = len(study.trials) - len(pending)) -> None:
            if population.epoch in rungs:
                population.drop(_losers(population, rungs[population.epoch], epochs))
            if setup.progress is not None:
                done = before + len(population.curves) * population.epoch / epochs
                setup.progress("search", done, trials, _best_value(study))

        def tell(population: Population) -> None:
            for number, curves in population.curves.items():
                _tell(study, number, curves, epochs, failed=number in population.failed)
            if setup.progress is not None:
                done = len([t for t in study.get_trials(deepcopy=False) if t.state.is_finished()])
                setup.progress("search", done, trials, _best_value(study))

        train_schedules(
            [trial.number for trial in pending],
            [space.schedule(trial.params, epochs) for trial in pending],
            setup,
            method=get_method(method),
            stream=STREAM,
            data=data,
            after_epoch=climb,
            after_group=tell,
        )


def _losers(population: Population, share: float, epochs: int) -> list[int]:
    """Those whose trial value so far is not among the best `share` (rounded up)."""
    values = {
        number: trial_value(population.curves[number].validation_accuracy, epochs)
        for number in population.numbers
    }
    ranked = sorted(values, key=lambda number: (-values[number], number))
    return ranked[math.ceil(share * len(ranked)) :]


def _tell_rest(study: optuna.Study, setup: Setup) -> None:
    """Tell what was trained but not told: who is pruned depends on all who trained together."""
    path = checkpoint_path(setup.folder, STREAM)
    if path is None or not path.exists():
        return
    epoch, failed, curves = load_curves(path)
    if epoch < setup.config.epochs:
        return
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    for number in {trial.number for trial in running} & curves.keys():
        _tell(study, number, curves[number], epoch, failed=number in failed)


def _ask(
    study: optuna.Study, setup: Setup, space: Space, *, sampler: str, trials: int
) -> list[FrozenTrial]:
    """The running trials of a population, asked for now or before an interruption."""
    existing = study.get_trials(deepcopy=False)
    running = [trial for trial in existing if trial.state == TrialState.RUNNING]
    asked = len(existing)
    # An interruption between two questions leaves a population incomplete: fill it up.
    size = POPULATION_SIZE
    target = min(trials, (-(-asked // size) if running else asked // size + 1) * size)
    distributions = space.distributions(setup.config.epochs)

    def complete(trial: optuna.Trial) -> None:
        for name, distribution in distributions.items():
            study.sampler = _sampler(sampler, setup.seed, trial.number, name)
            _suggest(trial, name, distribution)

    for trial in running:  # perhaps interrupted within one question
        if len(trial.params) < len(distributions):
            complete(optuna.trial.Trial(study, trial._trial_id))
    for number in range(asked, target):
        study.sampler = _sampler(sampler, setup.seed, number, "")
        complete(study.ask())
    return [t for t in study.get_trials(deepcopy=False) if t.state == TrialState.RUNNING]


def _sampler(name: str, seed: int, number: int, parameter: str) -> optuna.samplers.BaseSampler:
    # The natural gradient derives each point from (seed, trial number) itself. The others keep a
    # generator in memory: a seed for each parameter of each trial makes them resume to the same.
    parts = () if name == "natural-gradient" else (number, parameter)
    return SAMPLERS[name](derive_seed(seed, "sampler", *parts) % 2**31, POPULATION_SIZE)


def _suggest(trial: optuna.Trial, name: str, distribution: Any) -> None:
    if isinstance(distribution, FloatDistribution):
        trial.suggest_float(name, distribution.low, distribution.high, log=distribution.log)
    elif isinstance(distribution, IntDistribution):
        trial.suggest_int(name, distribution.low, distribution.high, log=distribution.log)


def _tell(study: optuna.Study, number: int, curves: Curves, epochs: int, *, failed: bool) -> None:
    trial = study.get_trials(deepcopy=False)[number]
    if trial.state != TrialState.RUNNING:
        return
    handle = optuna.trial.Trial(study, trial._trial_id)
    handle.set_user_attr("validation_accuracy", json.dumps(curves.validation_accuracy))
    handle.set_user_attr("seconds", curves.seconds)
    if failed:
        # Pruned, not failed: the sampler ranks it last and learns from it.
        handle.set_user_attr("failed", True)
        study.tell(number, state=TrialState.PRUNED)
    elif len(curves.validation_accuracy) < epochs:
        reached = len(curves.validation_accuracy)
        if reached not in trial.intermediate_values:  # else killed between report and tell
            handle.report(trial_value(curves.validation_accuracy, epochs), reached)
        study.tell(number, state=TrialState.PRUNED)
    else:
        study.tell(number, trial_value(curves.validation_accuracy, epochs))


def _best_value(study: optuna.Study) -> float | None:
    values = [t.value for t in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))]
    return max((v for v in values if v is not None), default=None)


def _describe_trial(trial: FrozenTrial, space: Space, epochs: int) -> dict[str, Any]:
    return {
        "number": trial.number,
        "parameters": dict(trial.params),
        "keep_rate": space.schedule(trial.params, epochs).keep_rate.tolist(),
        "state": "failed" if "failed" in trial.user_attrs else trial.state.name.lower(),
        "value": trial.value if trial.state == TrialState.COMPLETE else None,
        "validation_accuracy": json.loads(trial.user_attrs.get("validation_accuracy", "[]")),
        "seconds": trial.user_attrs.get("seconds", 0.0),
    }


@contextmanager
def _storage_errors(folder: Path | None) -> Iterator[None]:
    from sqlalchemy.exc import DBAPIError

    try:
        yield
    except (DBAPIError, optuna.exceptions.StorageInternalError) as error:
        raise InputError(
            f"{folder}/study.db could not be read or written ({str(error).splitlines()[0]}); free "
            "some space, or delete the file if it is damaged. Other files are unchanged."
        ) from error
