"""The end of every run: final trainings, judged labels, the files of the run folder."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from keeprate.checksums import check_unchanged, checksum
from keeprate.data import Split
from keeprate.engine import Setup, probabilities
from keeprate.errors import first_line
from keeprate.noise import NoiseEstimate, estimate_noise
from keeprate.records import (
    QUALITY_FILE,
    Cost,
    LabelQuality,
    Result,
    RunRecord,
    find_label_issues,
    most_suspect,
    save_record,
)
from keeprate.report import find_cautions
from keeprate.runs.classifier import Classifier, load, save_classifier
from keeprate.runs.finals import TrainedNetworks, train_plans
from keeprate.runs.plans import Plan
from keeprate.runs.run import Run
from keeprate.schedules import SCHEDULE_FILE


def finish(
    setup: Setup,
    record: RunRecord,
    plans: Sequence[Plan],
    cost: Cost,
    *,
    restarts: int,
    with_report: bool = True,
) -> Run:
    """Train the plans, judge the labels, write the run folder if there is one."""
    results, networks = train_plans(plans, setup, restarts=restarts)
    judgement = judge_labels(setup, networks)
    return conclude(setup, record, results, networks, judgement, cost=cost, with_report=with_report)


def conclude(
    setup: Setup,
    record: RunRecord,
    results: tuple[Result, ...],
    networks: TrainedNetworks,
    judgement: tuple[NoiseEstimate, LabelQuality],
    *,
    cost: Cost,
    with_report: bool = True,
) -> Run:
    """Put the run together, and write its folder if there is one.

    Parameters
    ----------
    setup : Setup
    record : RunRecord
    results : tuple of Result
        The run's own first.
    networks : TrainedNetworks
        Of the run's own result.
    judgement : NoiseEstimate, LabelQuality
        Of the labels that may be wrong.
    cost : Cost
        Before the final trainings.
    with_report : bool
    """
    noise, quality = judgement
    data = setup.data
    names, columns = data.class_names, data.input_columns
    record = replace(
        record,
        results=results,
        cost=replace(cost, final_seconds=sum(result.seconds for result in results)),
        noise_estimate=noise,
        labels_judged=len(quality.rows),
        label_issues=int(quality.is_issue.sum()),
        suspects=most_suspect(data.doubted_splits, quality, names, columns, data.centres),
        finished=True,
    )
    record = replace(record, cautions=find_cautions(record))
    classifier = Classifier(
        networks.modules,
        setup.normaliser,
        names,
        data.input_shape,
        columns,
        data.encoder,
        takes_integers=data.train.inputs.dtype == torch.int64,
    )
    run = Run(record, networks.schedule, classifier, quality, setup.folder)
    if setup.folder is not None:
        run.schedule.save(setup.folder / SCHEDULE_FILE)
        save_classifier(setup.folder, classifier, model=setup.model_name)
        quality.save(setup.folder / QUALITY_FILE, names)
        written = (SCHEDULE_FILE, QUALITY_FILE)
        checksums = {name: checksum(setup.folder / name) for name in written}
        record = replace(record, checksums=checksums)
        run = replace(run, record=record)
        save_record(setup.folder, record)  # last: a finished record has all that a start reads
        remove_checkpoints(setup.folder)
        if with_report:
            _write_report(setup.folder, record)
    return run


def _write_report(folder: Path, record: RunRecord) -> None:
    """Draw the pictures and the page; the run's results do not depend on it."""
    from keeprate.report import write_plots  # Matplotlib is loaded where something is drawn

    try:
        write_plots(record, folder)
    except Exception as error:  # a missing font, a full disk
        warnings.warn(
            f"the page of {folder} could not be drawn ({first_line(error)}); the results are safe, "
            f"and `keeprate report {folder}` draws it again",
            UserWarning,
            stacklevel=3,
        )


def remove_checkpoints(folder: Path) -> None:
    """Remove the checkpoints of a run that is finished, and of its first training.

    Those of the first training are gone already, unless the power was lost right after.
    """
    for path in (*folder.glob("*checkpoint-*"), *folder.glob("first/*checkpoint-*")):
        path.unlink(missing_ok=True)  # two processes may read the folder at once


def finished_run(setup: Setup, record: RunRecord, *, with_report: bool = True) -> Run | None:
    """The run of a folder in which nothing is left to train; None if something is."""
    if not record.finished or setup.folder is None:
        return None
    remove_checkpoints(setup.folder)  # of a run that was killed right after its record
    if with_report and not (setup.folder / "report.html").exists():
        _write_report(setup.folder, record)
    classifier = load(setup.folder, model=setup.model)
    check_unchanged(setup.folder / SCHEDULE_FILE)
    quality = LabelQuality.load(setup.folder / QUALITY_FILE, classifier.class_names)
    return Run(record, record.results[0].schedule, classifier, quality, setup.folder)


def judge_labels(setup: Setup, networks: TrainedNetworks) -> tuple[NoiseEstimate, LabelQuality]:
    """Estimate the noise, and judge every label that may be wrong."""
    data, train = setup.data, setup.data.train
    device = setup.config.resolve_device()
    modules = [module.to(device) for module in networks.modules]

    def predicted(split: Split) -> Tensor:
        return probabilities(modules, split.inputs, setup.normaliser)

    # Labels that no network has learnt say more of the noise.
    is_held_out = data.criterion == "determinant"
    noisy = data.validation if is_held_out else train
    opinions = {id(train): mean_probabilities(networks, predicted(train))}
    for split in (noisy, *data.doubted_splits):
        if id(split) not in opinions:
            opinions[id(split)] = predicted(split)
    for module in modules:
        module.to("cpu")
    noise = estimate_noise(opinions[id(noisy)], noisy.labels, held_out=is_held_out)
    doubted = data.doubted_splits
    quality = find_label_issues(
        torch.cat([split.labels for split in doubted]).numpy(),
        torch.cat([with_votes(opinions[id(split)], split.votes) for split in doubted]).numpy(),
    )
    return noise, in_order(quality, doubted)


def in_order(quality: LabelQuality, splits: Sequence[Split]) -> LabelQuality:
    """The quality of the labels of these splits, one after the other, in the order of the source.

    Each label gets the row and the name of its sample.
    """
    rows = torch.cat([split.rows for split in splits]).numpy()
    names = tuple(name for split in splits for name in split.names)
    return replace(quality, rows=rows, names=names).sorted()


def with_votes(opinions: Tensor, votes: Tensor | None) -> Tensor:
    """Take the votes of several annotators for a prior of the class probabilities `[N, C]`.

    By Bayes' rule p'_i is proportional to p_i (v_i + 1), where v_i of the annotators chose class i
    and one is added so that no class is impossible. A single vote is the label itself and says
    nothing more.
    """
    if votes is None:
        return opinions
    several = votes.sum(1, keepdim=True) > 1
    prior = torch.where(several, votes + 1, torch.ones_like(votes))
    weighted = opinions * prior.to(opinions)
    return weighted / weighted.sum(1, keepdim=True)


def mean_probabilities(networks: TrainedNetworks, final: Tensor) -> Tensor:
    """Geometric mean of the class probabilities over the later half of training, `[n_train, C]`.

    Small-loss selection learns wrong labels late or never. An epoch in which a network had no doubt
    of another class weighs more in a geometric mean than in an arithmetic one. A sample that no
    batch of that half held has the `final` probabilities `[n_train, C]`.
    """
    total, seen = networks.log_probability, networks.times_seen
    if total is None or seen is None:
        return final
    seen = seen.unsqueeze(1)
    return torch.where(seen > 0, (total / seen.clamp_min(1)).softmax(-1), final)
