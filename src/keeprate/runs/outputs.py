"""What a finished run leaves behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from torch import Tensor

from keeprate.data import Split
from keeprate.engine import (
    Setup,
    probabilities,
)
from keeprate.noise import NoiseEstimate, estimate_noise
from keeprate.records import (
    QUALITY_FILE,
    LabelQuality,
    describe_suspects,
    find_label_issues,
    save_record,
)
from keeprate.runs.classifier import Classifier, load_classifier, save_classifier
from keeprate.runs.finals import Trained, train_plans
from keeprate.runs.plans import (
    Plan,
)
from keeprate.schedules import (
    Schedule,
)

MOST_CLASSES = 200  # whose transition matrix a record holds


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
