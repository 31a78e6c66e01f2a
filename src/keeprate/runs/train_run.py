"""Training given schedules to the end, and what a run leaves behind."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from keeprate.data import Data
from keeprate.engine import (
    CHECKPOINT_SECONDS,
    Method,
    Progress,
    Setup,
    TrainingConfig,
    get_method,
    make_setup,
)
from keeprate.errors import invalid
from keeprate.records import (
    open_record,
    save_record,
)
from keeprate.runs.outputs import Run, finish, finished_run
from keeprate.runs.plans import (
    Baselines,
    assumed_noise_rate,
    baseline_plans,
    describe_baselines,
    get_baselines,
    given_plan,
    without,
)
from keeprate.schedules import (
    Schedule,
    as_schedule,
    estimated_schedule,
    named_schedule,
    plain_decay,
)

CAUTIOUS = 0.4  # R(T) of a training that estimates the noise rate
FIRST_STEPS = 500  # that it takes at least, if the final one does


def check_restarts(restarts: int) -> int:
    """At least 1.

    Raises
    ------
    InputError
        If it is less.
    """
    if restarts < 1:
        raise invalid("restarts", "be at least 1", restarts, "give 1 for a single training")
    return restarts


def _first_training(
    setup: Setup, model: str | Callable[..., nn.Module], method: Method, command: str
) -> dict[str, Any]:
    """Estimate the noise rate by a careful training; its run is in the folder `first`."""
    config, steps = setup.config, len(setup.data.train) // setup.config.batch_size
    # A network that has seen too little is wrong about right labels.
    epochs = min(config.epochs, max(config.epochs // 4, math.ceil(FIRST_STEPS / steps)))

    def progress(stage: str, done: float, total: float, best: float | None) -> None:
        if setup.progress is not None:
            setup.progress("noise rate", done, total, best)

    first = train(
        replace(setup.data, test=None),  # which it could not use
        schedule=Schedule(plain_decay(epochs, CAUTIOUS), "cautious"),
        model=model,
        method=method,
        config=replace(config, epochs=epochs),
        seed=setup.seed,
        out=None if setup.folder is None else setup.folder / "first",
        lockstep=setup.lockstep,
        command=command,
        progress=progress,
        checkpoint_seconds=setup.checkpoint_seconds,
    )
    return {
        "noise_rate": float(first.record["noise_estimate"]["noise_rate"]),
        "epochs": epochs,
        "seconds": first.record["cost"]["final_seconds"],
    }


def train(
    data: Data,
    *,
    schedule: str | Schedule | Sequence[float] | Callable[[int], float],
    model: str | Callable[..., nn.Module] = "mlp",
    method: str | Method = "co-teaching",
    config: TrainingConfig | None = None,
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    baselines: Baselines = False,
    restarts: int = 1,
    noise_rate: float | None = None,
    lockstep: int | None = None,
    command: str = "",
    progress: Progress | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    tensorboard: bool = False,
) -> Run:
    """Train without a search.

    Parameters
    ----------
    data : Data
        From `keeprate.prepare`.
    schedule : str, Schedule, sequence of T floats, or callable epoch (from 1) -> keep rate
        A string is "auto", "constant", "co-teaching", a schedule's file or a run folder. "auto": a
        plain decay to (1 - noise rate)^1.5. Where `noise_rate` is not given it is estimated by a
        first training, careful and of a quarter of the epochs (or 500 steps, if that is more),
        from the training labels or, where those of the validation samples are noisy, from these.
        Every other final training (there are two at least) keeps every sample instead, as not all
        networks memorise: the best of them by validation is the run's.
    model : str or callable
        A built-in name, `package.module:factory`, or a factory
        `(input_shape, n_classes) -> nn.Module`.
    method : str or Method
        A name of `keeprate.engine.METHODS`, `package.module:method`, or one's own.
    config : TrainingConfig, optional
    seed : int
        Of initial weights, order of samples and dropout.
    out : path, optional
        The run folder; an interrupted run in it is continued.
    baselines : bool, str or sequence of str or Method
        Methods to train as well, for comparison, each with Co-teaching's own schedule if it takes
        one; those with the same number of networks in lockstep. True ("auto"): Standard and, if
        the noise rate is known, Co-teaching; False ("none"), "all", or names, as a sequence or
        with commas between.
    restarts : int
        Train so many times ("auto": two at least), from other initial weights, all in lockstep, and
        keep the one of the best validation score at the end.
    noise_rate : float, optional
        For Co-teaching's own schedule (left out, the nominal rate of injected noise) and "auto".
    tensorboard : bool
        Also write the curves of every training to the folder `tensorboard` of the run folder.

    Returns
    -------
    Run

    Raises
    ------
    InputError
        If something given cannot be used.
    """
    config = config or TrainingConfig()
    chosen = get_method(method)
    known_rate = assumed_noise_rate(data, noise_rate)
    compared = get_baselines(baselines, chosen)
    rest = baseline_plans(compared, config.epochs, known_rate)
    by_rate = isinstance(schedule, str) and schedule == "co-teaching"
    given: Schedule | None = None  # to be estimated, when all else is checked
    rivals: tuple[Schedule, ...] = ()
    everything = named_schedule("constant", config.epochs, noise_rate=None)
    if not (isinstance(schedule, str) and schedule == "auto"):
        if isinstance(schedule, str):
            schedule = named_schedule(schedule, config.epochs, noise_rate=known_rate)
        given = as_schedule(schedule, config.epochs)
    elif not chosen.uses_schedule or config.epochs == 1:
        given = everything
    else:
        rivals = (everything,)
        if noise_rate is not None:
            given = estimated_schedule(config.epochs, noise_rate)
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
    options = {
        "method": chosen.name,
        "method_fingerprint": chosen.fingerprint(),
        "schedule": "auto" if given is None else given.keep_rate.tolist(),
        "baselines": describe_baselines(compared),
        "restarts": check_restarts(restarts),
        "noise_rate": noise_rate,
    }
    if rivals:
        options["rivals"] = [rival.name for rival in rivals]
    record = open_record(setup, "train", command=command, options=options)
    done = finished_run(setup, record)
    if done is not None:
        return done
    cost = {"candidate_epochs": 0, "full_trainings": 0.0}
    if given is None:
        if "first" not in record:
            record["first"] = _first_training(setup, model, chosen, command)
            if setup.folder is not None:
                save_record(setup.folder, record)
        given = estimated_schedule(config.epochs, record["first"]["noise_rate"])
        epochs = record["first"]["epochs"]
        cost = {
            "candidate_epochs": epochs,
            "full_trainings": epochs / config.epochs,
            "search_seconds": record["first"]["seconds"],
        }
    plan = given_plan(chosen, given, *rivals, own=by_rate)
    plans = [plan, *without(plan, rest)]
    return finish(setup, record, plans, cost, restarts=max(restarts, 1 + len(rivals)))
