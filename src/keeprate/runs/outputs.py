"""The end of every run: final trainings, judged labels, the files of the run folder."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from keeprate.checksums import check_unchanged, checksum
from keeprate.engine import Setup
from keeprate.errors import InputError, first_line
from keeprate.noise import NoiseEstimate
from keeprate.records import (
    QUALITY_FILE,
    Cost,
    LabelQuality,
    Result,
    RunRecord,
    most_suspect,
    save_record,
)
from keeprate.report import find_cautions
from keeprate.runs.by_class import count_by_class
from keeprate.runs.classifier import Classifier, load, save_classifier
from keeprate.runs.cross_fit import judge_by_folds
from keeprate.runs.finals import TrainedNetworks, fits, train_plans
from keeprate.runs.judgement import judge_labels
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
    by_folds: bool = False,
    kept: Sequence[Result] = (),
    with_report: bool = True,
) -> Run:
    """Train the plans, judge the labels, write the run folder if there is one.

    `by_folds`: other networks judge, which have not learnt from the labels that they judge, if
    memory holds what they say and their losses stay finite. `kept`: results of other plans that
    were trained before.
    """
    results, networks = train_plans(plans, setup, restarts=restarts)
    results = (*results, *kept)
    judgement = None
    if by_folds and fits(setup.data, 1):
        try:
            judgement, seconds = judge_by_folds(setup, networks.schedule)
            cost = replace(cost, final_seconds=cost.final_seconds + seconds)
        except InputError as error:  # the results before it are not to be lost
            warnings.warn(
                f"the labels are judged by the networks that learnt them, as others could not be "
                f"trained: {first_line(error)}",
                UserWarning,
                stacklevel=3,
            )
    if judgement is None:
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
        Of all but the final trainings.
    with_report : bool
    """
    noise, quality = judgement
    data = setup.data
    quality = quality.without(data.reviewed)  # nobody is to decide twice
    names, columns = data.class_names, data.input_columns
    is_pooled = results[0].method == "auto"  # the validation samples have trained, too
    record = replace(
        record,
        results=results,
        by_class=count_by_class(setup, networks, trains_validation=is_pooled),
        cost=replace(cost, final_seconds=cost.final_seconds + sum(one.seconds for one in results)),
        noise_estimate=noise,
        labels_judged=len(quality.rows),
        label_issues=int(quality.is_issue.sum()),
        suspects=most_suspect(data.doubted_splits, quality, names, data.encoder),
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


def conclude_again(setup: Setup, record: RunRecord, cost: Cost) -> Run:
    """Finish a run whose folder holds all but the record and the page already.

    Nothing that was trained since has changed its networks or its judgement of the labels.
    """
    record = replace(record, cost=cost, finished=True)
    record = replace(record, cautions=find_cautions(record))
    if setup.folder is not None:
        save_record(setup.folder, record)
    run = finished_run(setup, record)
    if run is None:
        raise ValueError("a run without a folder cannot be concluded again")
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
    # The page may be that of before an addition whose end was killed.
    is_old = record.is_adding or not (setup.folder / "report.html").exists()
    if with_report and is_old:
        _write_report(setup.folder, record)
    classifier = load(setup.folder, model=setup.model)
    check_unchanged(setup.folder / SCHEDULE_FILE)
    quality = LabelQuality.load(setup.folder / QUALITY_FILE, classifier.class_names)
    return Run(record, record.results[0].schedule, classifier, quality, setup.folder)
