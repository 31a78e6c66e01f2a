"""Training given schedules to the end, and what a run leaves behind."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from torch import Tensor, nn

from keeprate.classifier import Classifier, load_classifier, save_classifier
from keeprate.data import Data, Split
from keeprate.errors import invalid
from keeprate.finals import Trained, train_plans
from keeprate.label_quality import QUALITY_FILE, LabelQuality, find_label_issues
from keeprate.lockstep import (
    CHECKPOINT_SECONDS,
    Progress,
    Setup,
    make_setup,
    open_record,
)
from keeprate.methods import Method, get_method
from keeprate.noise_model import NoiseEstimate, estimate_noise
from keeprate.plans import (
    Baselines,
    Plan,
    assumed_noise_rate,
    baseline_plans,
    describe_baselines,
    estimated_schedule,
    get_baselines,
    given_plan,
    named_schedule,
    without,
)
from keeprate.records import save_record
from keeprate.schedules import Schedule, as_schedule
from keeprate.shapes import plain_decay
from keeprate.suspects import describe_suspects
from keeprate.training import TrainingConfig, probabilities

CAUTIOUS = 0.4  # R(T) of a training that estimates the noise rate
FIRST_STEPS = 500  # that it takes at least, if the final one does
MOST_CLASSES = 200  # whose transition matrix a record holds


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
        population=setup.population,
        command=command,
        progress=progress,
        checkpoint_seconds=setup.checkpoint_seconds,
    )
    return {
        "noise_rate": float(first.record["noise_estimate"]["noise_rate"]),
        "epochs": epochs,
        "seconds": first.record["cost"]["final_seconds"],
    }


def save_outputs(
    setup: Setup, record: dict[str, Any], trained: Trained
) -> tuple[Classifier, LabelQuality]:
    """What a finished run leaves behind, written to its folder if it has one, the record last."""
    modules, train, folder = trained.modules, setup.data.train, setup.folder
    classifier = Classifier(
        modules,
        setup.normaliser,
        setup.data.class_names,
        setup.data.input_shape,
        setup.data.input_columns,
    )
    device = setup.config.resolve_device()
    modules = [module.to(device) for module in modules]

    def predicted(split: Split) -> Tensor:
        return probabilities(modules, split.inputs, setup.normaliser)

    doubted = setup.data.doubted_splits
    seen = {id(train): mean_probabilities(trained, predicted(train))}
    # Labels that no network has learnt say more of the noise.
    held_out = setup.data.criterion == "determinant"
    noisy = setup.data.validation if held_out else train
    for split in (noisy, *doubted):
        if id(split) not in seen:
            seen[id(split)] = predicted(split)
    noise = estimate_noise(seen[id(noisy)], noisy.labels, held_out=held_out)
    record["noise_estimate"] = describe_noise(noise)
    for module in modules:
        module.to("cpu")
    quality = find_label_issues(
        torch.cat([split.labels for split in doubted]).numpy(),
        torch.cat([seen[id(split)] for split in doubted]).numpy(),
    )
    rows = torch.cat([split.rows for split in doubted]).numpy()
    called = tuple(name for split in doubted for name in split.names)
    quality = replace(quality, rows=rows, names=called).sorted()
    names, columns = setup.data.class_names, setup.data.input_columns
    record["labels_judged"], record["label_issues"] = len(rows), int(quality.is_issue.sum())
    record["suspects"] = describe_suspects(doubted, quality, names, columns)
    record["finished"] = True
    if folder is not None:
        trained.schedule.save(folder / "schedule.csv")
        save_classifier(folder, classifier, model=setup.model_name)
        quality.save(folder / QUALITY_FILE, classifier.class_names)
        save_record(folder, record)
        for path in folder.glob("*checkpoint-*"):
            path.unlink()
    return classifier, quality


def describe_noise(found: NoiseEstimate) -> dict[str, Any]:
    """As the record holds it: without the matrix, where that would be larger than all else."""
    small = len(found.transition_matrix) <= MOST_CLASSES
    matrices = {
        name: value.tolist() if small else None
        for name, value in vars(found).items()
        if isinstance(value, Tensor)
    }
    return vars(found) | matrices


def mean_probabilities(trained: Trained, final: Tensor) -> Tensor:
    """Geometric mean of the class probabilities over the later half of training, `[n_train, C]`.

    Wrong labels are not learnt under small-loss selection, or late: one epoch in which a network
    had no doubt of another class weighs more in a geometric mean than in an arithmetic one. A
    sample that no batch of that half held has the `final` networks' probabilities.
    """
    summed, seen = trained.log_probability, trained.times_seen
    if summed is None or seen is None:
        return final
    seen = seen.unsqueeze(1)
    return torch.where(seen > 0, (summed / seen.clamp_min(1)).softmax(-1), final)


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes
    ----------
    record : dict
        Configuration, trials, curves, results, cost: what `record.json` holds.
    schedule : Schedule
    classifier : Classifier
    label_quality : LabelQuality
        Of the training samples, and of those that were held out from them with labels as noisy, in
        the order of their rows.
    folder : Path or None
    study : optuna.Study or None
        Of a search.
    """

    record: dict[str, Any]
    schedule: Schedule
    classifier: Classifier
    label_quality: LabelQuality
    folder: Path | None
    study: optuna.Study | None = None


def finish(
    setup: Setup,
    record: dict[str, Any],
    plans: Sequence[Plan],
    cost: dict[str, float],
    *,
    restarts: int,
) -> Run:
    """Train the plans, write all outputs."""
    trained = train_plans(plans, setup, record, restarts=restarts)
    seconds = sum(result["seconds"] for result in record["results"])
    record["cost"] = cost | {"final_seconds": seconds}
    classifier, quality = save_outputs(setup, record, trained)
    return Run(record, trained.schedule, classifier, quality, setup.folder)


def finished_run(setup: Setup, record: dict[str, Any]) -> Run | None:
    """The run of a folder in which nothing is left to do."""
    if not record["finished"] or setup.folder is None:
        return None
    for path in setup.folder.glob("*checkpoint-*"):  # killed between the record and this
        path.unlink()
    result = record["results"][0]
    name = result.get("schedule", result["name"])  # of earlier versions
    schedule = Schedule(np.array(result["keep_rate"]), name, result["parameters"])
    classifier = load_classifier(setup.folder, model=setup.model)
    quality = LabelQuality.load(setup.folder / QUALITY_FILE, classifier.class_names)
    return Run(record, schedule, classifier, quality, setup.folder)


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
    population: int | None = None,
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
        A name of `keeprate.methods.METHODS`, `package.module:method`, or one's own.
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
        population=population,
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
