"""The Optuna study of a search: opened, told, ranked."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from copy import copy
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import sqlalchemy
from optuna.distributions import distribution_to_json
from optuna.exceptions import OptunaError
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from keeprate.errors import InputError, first_line
from keeprate.searching.database import Database
from keeprate.searching.pruners import quiet
from keeprate.searching.sampler import keys

STUDY_NAME, STUDY_FILE = "keeprate", "study.db"


def _table(name: str, *columns: str) -> sqlalchemy.TableClause:
    return sqlalchemy.table(name, *map(sqlalchemy.column, columns))


PARAMETERS = _table("trial_params", "trial_id", "param_name", "param_value", "distribution_json")
USER_ATTRIBUTES = _table("trial_user_attributes", "trial_id", "key", "value_json")
SYSTEM_ATTRIBUTES = _table("trial_system_attributes", "trial_id", "key", "value_json")
"""Where Optuna keeps the parameters and the attributes of trials."""
UNREAD = (SQLAlchemyError, OptunaError, OSError, ImportError, RuntimeError, KeyError, ValueError)
"""What a study that cannot be read raises."""
MOST_TRAININGS = 3  # of a schedule: explored, confirmed, confirmed once more


def open_study(folder: Path | None, database: Database | None = None) -> optuna.Study:
    """The study of a search: in a database, else in the run folder, else in memory.

    Raises
    ------
    InputError
        If another version of Optuna wrote the study.
    """
    try:
        storage = _storage(folder, database)
    except RuntimeError as error:
        remedy = "or choose another one"
        if database is None:
            remedy = "or delete the file: then the search begins anew"
        raise InputError(
            f"{_unread(folder, database, error)}; use the version of Optuna that wrote it, "
            f"{remedy}."
        ) from error
    with quiet():
        return optuna.create_study(
            storage=storage,
            study_name=STUDY_NAME if database is None else database.study,
            direction="maximize",
            load_if_exists=True,
            pruner=optuna.pruners.NopPruner(),  # left out, it would be Optuna's median pruner
        )


def find_study(folder: Path | None, database: Database | None = None) -> optuna.Study | None:
    """The study of a finished run, if it can still be read; nothing is written.

    A finished run needs no study: a damaged one, that of a newer Optuna, or a database without its
    driver gives a warning.
    """
    if database is None and (folder is None or not (folder / STUDY_FILE).exists()):
        return None
    name = STUDY_NAME if database is None else database.study
    try:
        with quiet():
            if database is not None:
                database.check_file()
            storage = _storage(folder, database, may_write=False)
            study = optuna.load_study(study_name=name, storage=storage or "")
            _ = study.trials  # read now what may be damaged
    except UNREAD as error:
        warnings.warn(
            f"{_unread(folder, database, error)}; the run is as it was, without its study",
            UserWarning,
            stacklevel=3,
        )
        return None
    return study


def _unread(folder: Path | None, database: Database | None, error: Exception) -> str:
    """What could not be read, and why."""
    if database is not None:
        return f"{database} could not be read ({database.reason(error)})"
    return f"{folder}/{STUDY_FILE} could not be read ({first_line(error)})"


def _storage(
    folder: Path | None, database: Database | None, *, may_write: bool = True
) -> optuna.storages.BaseStorage | None:
    if database is not None:
        url = database.url
    elif folder is not None:
        # A URL made by hand would end at a "?" in the folder's name.
        url = sqlalchemy.URL.create("sqlite", database=str((folder / STUDY_FILE).resolve()))
    else:
        return None
    text = url.render_as_string(hide_password=False)
    return optuna.storages.RDBStorage(text, skip_table_creation=not may_write)


@contextmanager
def one_transaction(study: optuna.Study) -> Iterator[sqlalchemy.Connection | None]:
    """All that is written to the study within is there after, or none of it.

    A disk takes several milliseconds for each transaction. Optuna makes one of each trial added;
    SQLAlchemy joins them. A study in memory has no connection.
    """
    storage = getattr(study._storage, "_backend", study._storage)  # there is a cache before it
    if not isinstance(storage, optuna.storages.RDBStorage):
        yield None
        return
    sessions = storage.scoped_session
    with storage.engine.begin() as connection:
        sessions.remove()  # the last one is bound to the engine
        # Without autoflush the rows of a trial are inserted together, not before each query.
        joined = {"join_transaction_mode": "rollback_only", "autoflush": False}
        sessions.configure(bind=connection, **joined)
        try:
            yield connection
        finally:
            sessions.remove()
            apart = {"join_transaction_mode": "conditional_savepoint", "autoflush": True}
            sessions.configure(bind=storage.engine, **apart)


def add_running(study: optuna.Study, trials: list[FrozenTrial]) -> list[FrozenTrial]:
    """Add running trials to the study, all of them or none; return them as they are there.

    Optuna makes queries for each trial, each parameter and each attribute, which take longer than
    all else in a question. Here the rows of a table are written at once, and not read again.
    """
    from optuna.storages._rdb.models import TrialModel

    with one_transaction(study) as connection:
        if connection is None:
            n_before = len(study.get_trials(deepcopy=False))
            study.add_trials(trials)
            return study.get_trials(deepcopy=False)[n_before:]
        of_study = {"study_id": study._study_id}
        now = datetime.now()
        running = {"state": TrialState.RUNNING, "datetime_start": now}
        with Session(connection) as session:
            first = session.query(TrialModel).filter_by(**of_study).count()
            numbers = range(first, first + len(trials))
            models = [TrialModel(number=number, **of_study, **running) for number in numbers]
            session.add_all(models)
            session.flush()
            trial_ids: list[Any] = [model.trial_id for model in models]
        rows: dict[sqlalchemy.TableClause, list[dict[str, object]]] = {}
        added = []
        for trial, number, trial_id in zip(trials, numbers, trial_ids, strict=True):
            added.append(copy(trial))
            added[-1].number, added[-1]._trial_id, added[-1].datetime_start = number, trial_id, now
            for name, value in trial.params.items():
                distribution = trial.distributions[name]
                row: dict[str, object] = {"trial_id": trial_id, "param_name": name}
                row["param_value"] = distribution.to_internal_repr(value)
                row["distribution_json"] = distribution_to_json(distribution)
                rows.setdefault(PARAMETERS, []).append(row)
            attributes = {USER_ATTRIBUTES: trial.user_attrs, SYSTEM_ATTRIBUTES: trial.system_attrs}
            for table, of_table in attributes.items():
                for key, attribute in of_table.items():
                    row = {"trial_id": trial_id, "key": key, "value_json": json.dumps(attribute)}
                    rows.setdefault(table, []).append(row)
        for table, its_rows in rows.items():
            connection.execute(table.insert(), its_rows)
    return added


def ranked(trials: list[FrozenTrial]) -> list[list[FrozenTrial]]:
    """The trials of each schedule, the best first: those trained most often, best on average.

    The average includes the training that put the schedule among the best. It was partly lucky,
    but so was that of each rival, and three numbers say more than two.

    Raises
    ------
    InputError
        If no trial has been trained to the end.
    """
    schedules = by_schedule(trials)
    if not schedules:
        raise InputError(
            f"none of the {len(trials)} trials reached the last epoch: losses were not finite; try "
            "a smaller learning rate, or check the inputs for extreme values."
        )
    # Where few have a value, some are confirmed more often than planned: that is no merit.
    return sorted(
        schedules.values(),
        key=lambda same: (-min(len(same), MOST_TRAININGS), -mean_value(same), same[0].number),
    )


def best_value(study: optuna.Study) -> float | None:
    """The best value so far, of those that were trained longest."""
    standings = [standing_of(trial) for trial in study.get_trials(deepcopy=False)]
    known = [standing for standing in standings if standing is not None]
    return max(known)[-1] if known else None


@contextmanager
def storage_errors(folder: Path | None, database: Database | None = None) -> Iterator[None]:
    """Say what a damaged study, a full disk or a lost database means to the user."""
    from sqlalchemy.exc import DBAPIError

    try:
        yield
    except (DBAPIError, optuna.exceptions.StorageInternalError) as error:
        reason = str(error).splitlines()[0]
        if database is not None:
            raise database.unreachable(error.__cause__ or error) from error
        remedy = "free some space, or delete the file if it is damaged"
        if "database is locked" in f"{error} {error.__cause__}":
            remedy = "close the program that has it open"
        raise InputError(
            f"{folder}/study.db could not be read or written ({reason}); {remedy}. Other files are "
            "unchanged."
        ) from error


def by_schedule(trials: Iterable[FrozenTrial]) -> dict[int, list[FrozenTrial]]:
    """The complete trainings of each schedule, by the number of the trial that had it first."""
    same: dict[int, list[FrozenTrial]] = {}
    for trial in trials:
        if trial.state == TrialState.COMPLETE and trial.value is not None:
            same.setdefault(trial.user_attrs.get("confirms", trial.number), []).append(trial)
    return same


def mean_value(trials: list[FrozenTrial]) -> float:
    """The mean value of the trainings of one schedule."""
    return float(np.mean([_value(t) for t in trials]))


def standing_of(trial: FrozenTrial) -> tuple[float, ...] | None:
    """What the sampler ranks it by, its value last; None of a trial without a value."""
    if trial.state not in (TrialState.COMPLETE, TrialState.PRUNED):
        return None
    standing = tuple(keys([trial], 1.0)[0].tolist())
    return standing if np.isfinite(standing[-1]) else None


def _value(trial: FrozenTrial) -> float:
    return float(trial.value or 0.0)
