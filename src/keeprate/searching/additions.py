"""Trials that are added to a finished search.

The record says what is to be added before the first trial is asked for, and that the addition is
over only after the last file is written. So a command that was killed adds nothing twice.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from keeprate.checksums import RECORD_FILE
from keeprate.errors import InputError, Words, check_whole, invalid
from keeprate.records import RunRecord, TrialCounts, TrialSummary, load_record, save_record
from keeprate.searching.budget import Budget
from keeprate.searching.database import Database
from keeprate.searching.legs import added_counts
from keeprate.searching.proposals import Proposals, summarise_trial
from keeprate.searching.study import STUDY_FILE, open_study, storage_errors


def check_add_trials(n: int, out: str | os.PathLike[str] | None, budget: Budget) -> int:
    """Check that `n` trials can be added to the search in a folder; nothing is written.

    Raises
    ------
    InputError
        If the number or the budget is none for this, or the folder holds no finished search and
        none to which so many trials are being added.
    """
    n = check_whole("add_trials", n, 1)
    if budget.unit == "seconds":
        requirement = f"be left out where the budget is a time ({budget})"
        remedy = "search anew in another folder, with more time or a number of trainings"
        raise invalid("add_trials", requirement, n, remedy)
    if out is None or not (Path(out) / RECORD_FILE).is_file():
        requirement = "be the folder of a finished search where add_trials is given"
        received = out if out is None else Words(f"{out}, which holds no {RECORD_FILE}")
        raise invalid("out", requirement, received, "leave add_trials out to search first")
    refuse_addition(load_record(out), n, Path(out))
    return n


def refuse_addition(record: RunRecord, n: int, folder: Path | None) -> None:
    """Refuse to add trials to what is no search, or is not finished.

    Raises
    ------
    InputError
        If nothing can be added to the run.
    """
    if record.kind != "search":
        received = Words(f"{folder}, which holds a run of keeprate {record.kind}")
        requirement = "be the folder of a finished search where add_trials is given"
        raise invalid("out", requirement, received, "search in another folder")
    if record.finished:
        return
    if not record.is_adding:
        requirement = "be left out until the search is finished"
        remedy = "the same command without it continues the search; add trials after that"
        raise invalid("add_trials", requirement, n, remedy)
    if record.added[-1].trials != n:
        requirement = f"be {record.added[-1].trials}, as so many trials are being added already"
        remedy = "finish that addition first, then add more"
        raise invalid("add_trials", requirement, n, remedy)


def with_addition(
    record: RunRecord,
    n: int,
    *,
    folder: Path | None,
    confirm: bool,
) -> RunRecord:
    """Enter in the record that `n` trials are to be added, unless a killed command has done so.

    Raises
    ------
    InputError
        If nothing can be added to the run.
    """
    refuse_addition(record, n, folder)
    if record.is_adding and record.added[-1].trials == n:  # the command is repeated
        return record
    counts = counts_of_legs(record)
    new = added_counts(counts, n, confirm=confirm)
    return replace(record, added=(*record.added, new), is_adding=True, finished=False)


def check_added(record: RunRecord, *, folder: Path | None, confirm: bool) -> None:
    """Refuse additions that no command makes: somebody has edited the record.

    Raises
    ------
    InputError
        If one has other confirming trials than planned.
    """
    counts = counts_of_legs(record)
    for place in range(1, len(counts)):
        leg = counts[place]
        try:
            expected = added_counts(counts[:place], leg.trials, confirm=confirm)
        except InputError:
            expected = None
        if leg.trials < 1 or leg != expected:
            raise invalid(
                f"added in {folder}/{RECORD_FILE}",
                "hold what commands have added",
                Words(f"trials {leg.trials} and confirm {leg.confirm}: the file was edited"),
                "put the numbers back, or choose another folder",
            )


def counts_of_legs(record: RunRecord) -> tuple[TrialCounts, ...]:
    """The trials as planned at first, and those of each addition.

    Raises
    ------
    InputError
        If the record does not say how many trials were planned.
    """
    if record.trial_counts is None:
        raise InputError(
            f"{RECORD_FILE} does not say how many trials the search has; choose another folder."
        )
    return (record.trial_counts, *record.added)


def check_told(
    record: RunRecord, proposals: Proposals, folder: Path | None, database: Database | None
) -> None:
    """Refuse a study without the trials that the record tells of; nothing is written.

    Raises
    ------
    InputError
        If the study is missing or holds other trials, or more before anything is added.
    """
    name = f"{folder}/{STUDY_FILE}" if database is None else str(database)
    told: list[TrialSummary] = []
    is_there = database is not None or folder is None or (folder / STUDY_FILE).exists()
    if is_there:
        with storage_errors(folder, database):
            trials = open_study(folder, database).get_trials(deepcopy=False)
            told = [summarise_trial(one, proposals) for one in trials[: len(record.trials)]]
            if len(trials) > len(record.trials) and not record.is_adding:
                told = []
    if [_essence(one) for one in told] != [_essence(one) for one in record.trials]:
        found = "no file" if not is_there else "other trials"
        raise invalid(
            name,
            f"hold the {len(record.trials)} trials of the search that goes on",
            Words(found),
            "put the study back, or search anew in another folder",
        )


def _essence(trial: TrialSummary) -> tuple[object, ...]:
    return trial.number, trial.parameters, trial.state, trial.value


def settled(folder: Path | None, record: RunRecord) -> RunRecord:
    """Enter in the record of a finished run that nothing is being added any more."""
    if record.is_adding:
        record = replace(record, is_adding=False)
        save_record(folder, record)
    return record
