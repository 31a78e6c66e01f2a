"""Training without a search: with a schedule that is known, or by the noise rate."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import nn

from keeprate.data import Data
from keeprate.engine import (
    CHECKPOINT_SECONDS,
    Method,
    MetricLike,
    Processes,
    Progress,
    Ray,
    Setup,
    TrainingConfig,
    cross_fitted,
    get_method,
    is_accuracy,
    make_setup,
    resolve_model,
    trained_on,
)
from keeprate.errors import InputError, check_whole, invalid
from keeprate.records import FirstTraining, RunRecord, is_finished, open_record, owned, save_record
from keeprate.runs.after import RunBefore
from keeprate.runs.cross_fit import n_folds, pooled, train_cross_fitted
from keeprate.runs.finals import train_plans
from keeprate.runs.first import first_cost, remove_first, train_first
from keeprate.runs.outputs import conclude, finish, finished_run
from keeprate.runs.plans import (
    Baselines,
    Plan,
    assumed_noise_rate,
    baseline_plans,
    baselines_in_config,
    get_baselines,
    plan_without_search,
    without_repetition,
)
from keeprate.runs.run import Run
from keeprate.schedules import (
    Schedule,
    as_schedule,
    estimated_schedule,
    named_schedule,
)


def train(
    data: Data,
    *,
    schedule: str | Schedule | Sequence[float] | Callable[[int], float] = "auto",
    method: str | Method = "auto",
    model: str | Callable[..., nn.Module] = "auto",
    config: TrainingConfig | None = None,
    noise_rate: float | None = None,
    baselines: Baselines = False,
    restarts: int = 1,
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
    processes: Processes | None = None,
) -> Run:
    """Train without a search.

    Parameters
    ----------
    data : Data
        From `keeprate.prepare`.
    schedule : str, Schedule, sequence of T floats, or callable epoch (from 1) -> keep rate
        A string is "auto", "constant", "co-teaching", the file of a schedule, or a run folder.

        "auto" with a method is a plain decay to (1 - noise rate)^1.5. Without `noise_rate` a
        first, short training estimates the noise rate: it takes a quarter of the epochs, or 500
        steps if that is more. Every other final training (there are at least two) keeps every
        sample instead, because not every network memorises. The best training by validation
        becomes the run's.
    method : str or Method
        "auto", a name of `keeprate.engine.METHODS`, `package.module:method`, or a method of one's
        own. "auto" with schedule "auto" chooses by cross-fitting among keep rates and refined
        labels, see `keeprate.runs.cross_fit`; the validation samples train, too. "auto" with
        another schedule, a `noise_rate`, a `metric`, a margin or `keep="best"` is Co-teaching. Its
        `model` "auto" is a perceptron with dropout where the others' is `mlp`. It ignores
        `restarts`: it has a network for each fold.
    model : str or callable
        "auto" (a small CNN for images of at least 16 x 16 pixels, else the MLP), a built-in name,
        `package.module:factory`, or a factory `(input_shape, n_classes) -> nn.Module`.
    config : TrainingConfig, optional
    noise_rate : float, optional
        For "auto" and for Co-teaching's own schedule; the latter takes the rate of injected noise
        if nothing is given.
    baselines : bool, str or sequence of str or Method
        Methods to train as well, for comparison. A method that takes a schedule gets
        Co-teaching's own. Methods with the same number of networks train in lockstep. True
        ("auto"): Standard and, if the noise rate is known, Co-teaching. False ("none"), "all", or
        names, as a sequence or with commas between.
    restarts : int
        Train so many times from other initial weights, in lockstep, and keep the training with the
        best validation score at the end. "auto" trains at least twice.
    seed : int
        Of initial weights, order of samples and dropout.
    out : path, optional
        The run folder. An interrupted run in the folder goes on.
    lockstep : int, optional
        Candidates that train together at most; what fits in memory if left out.
    tensorboard : bool
        Also write the curves of every training to the folder `tensorboard` of the run folder.
    progress : bool or callable
        True prints a line every ten seconds; a callable gets (stage, done, total, best).
    command : str
        For the record.
    checkpoint_seconds : float
        Most seconds between two checkpoints of a training. They follow each other sooner, down to
        a second, as long as they take no more than a twentieth of the time.
    metric : str, callable or Metric
        What scores the networks; the best training by that score is kept. "accuracy", a scorer of
        scikit-learn by its name ("average_precision", "balanced_accuracy", "neg_log_loss", ...) or
        as an object: higher is better, and the validation labels must be right ones. Or a
        `keeprate.engine.Metric`, which has held-out data of its own. Method "auto" is Co-teaching
        with another metric than accuracy.
    positive : class name, optional
        Of two classes the one that such scorers as "f1" and "average_precision" look for; left
        out, the one that fewer training labels name.
    after : path, optional
        The folder of a run before on the same data, on whose labels people have decided
        (`keeprate apply`). Labels that were kept or changed count as clean: these samples
        validate. Where no other clean samples validate, that takes 30 such labels, and 3 of each
        class. Fewer stay where they are with their right labels; noisy labels validate, and a
        caution says so. Dropped samples are left out.
    cluster : str or keeprate.engine.Ray, optional
        The Ray cluster that trains: "auto" for that of this machine, or host:port. `lockstep` is
        then the number of candidates in a task: 2 if left out, 5 on GPUs.
    processes : keeprate.engine.Processes, optional
        Those that torchrun started and this one leads; each computes its share of every batch.

    Returns
    -------
    Run

    Raises
    ------
    InputError
        If an argument cannot be used.
    """
    config = config or TrainingConfig()
    if cluster is not None and processes is not None:
        requirement = "be left out where processes train together"
        raise invalid("cluster", requirement, cluster, "give one of the two")
    before = None if after is None else RunBefore.of(after)
    data = data if before is None else before.applied_to(data)
    is_auto = isinstance(schedule, str) and schedule == "auto"
    known_rate = assumed_noise_rate(data, noise_rate)
    is_cross_fitted = (
        isinstance(method, str)
        and method == "auto"
        and is_auto
        and noise_rate is None
        and is_accuracy(metric)  # held-out folds score the networks there
        and not config.margin  # it is for a label, and refined labels are shares of classes
        and config.keep == "last"  # each network there predicts a fold of its own
    )
    method = cross_fitted(n_folds(data)) if is_cross_fitted else get_method(method)
    restarts = check_whole("restarts", restarts, 1)
    baselines = get_baselines(baselines, method)
    compared = baseline_plans(baselines, config.epochs, known_rate)
    if is_cross_fitted:
        schedules: tuple[Schedule | None, ...] = ()
    elif is_auto:
        schedules = _automatic_schedules(method, config.epochs, noise_rate)
    elif isinstance(schedule, str):
        schedules = (named_schedule(schedule, config.epochs, noise_rate=known_rate),)
    else:
        schedules = (as_schedule(schedule, config.epochs),)
    if is_cross_fitted and model == "auto" and resolve_model("auto", data.input_shape) == "mlp":
        model = "perceptron"
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
    if processes is not None:
        setup = processes.trains(setup)
    options = {
        "method": method.name,
        "method_fingerprint": method.fingerprint(),
        "schedule": "auto" if is_auto else [list(one.keep_rate) for one in schedules if one],
        "baselines": baselines_in_config(baselines),
        "restarts": restarts,
        "noise_rate": noise_rate,
    }
    # Nobody else writes in the folder until the run ends.
    cluster = None if is_finished(setup.folder) else cluster  # nothing is left to train
    with trained_on(setup, cluster) as setup, owned(setup.folder):
        record = open_record(setup, "train", command=command, options=options)
        if (run := finished_run(setup, record)) is not None:
            return run
        if before is not None:
            before.save(setup.folder)
        if is_cross_fitted:
            return _cross_fit(setup, record, compared, restarts)
        if schedules[0] is None and record.first is None:
            record = replace(record, first=train_first(setup, method))
            save_record(setup.folder, record)
            remove_first(setup)
        plan = plan_without_search(
            method,
            [one or _estimated(record.first, config.epochs) for one in schedules],
            by_noise_rate=isinstance(schedule, str) and schedule == "co-teaching",
        )
        plans = [plan, *without_repetition(plan, compared)]
        restarts = max(restarts, len(schedules))
        return finish(setup, record, plans, first_cost(record, config.epochs), restarts=restarts)


def _cross_fit(setup: Setup, record: RunRecord, compared: Sequence[Plan], restarts: int) -> Run:
    """Choose by cross-fitting; then train what the choice is compared with."""
    of_pool, is_clean = pooled(setup)
    results, networks, judgement = train_cross_fitted(of_pool, is_clean, n_folds(setup.data))
    if compared:
        results += train_plans(compared, setup, restarts=restarts)[0]
    return conclude(
        setup, record, results, networks, judgement, cost=first_cost(record, setup.config.epochs)
    )


def _automatic_schedules(
    method: Method, epochs: int, noise_rate: float | None
) -> tuple[Schedule | None, ...]:
    """The schedules of "auto", which take turns; None stands for one by an estimated rate."""
    everything = named_schedule("constant", epochs, noise_rate=None)
    if not method.uses_schedule or epochs == 1:
        return (everything,)
    by_rate = None if noise_rate is None else estimated_schedule(epochs, noise_rate)
    return by_rate, everything


def _estimated(first: FirstTraining | None, epochs: int) -> Schedule:
    if first is None:
        raise InputError("the record holds no first training; delete the run folder.")
    return estimated_schedule(epochs, first.noise_rate)
