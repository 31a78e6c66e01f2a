"""Labels that look wrong as a DataFrame, and decisions on the labels of a DataFrame."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from keeprate.data import JudgedSource, data_frame_table, is_data_frame, label_array, match_labels
from keeprate.errors import Words, invalid, needs
from keeprate.reading import LABEL_NAMES
from keeprate.records.decisions import (
    Decision,
    check_different,
    corrections_of,
    decisions_of_table,
    load_decisions,
)
from keeprate.records.label_quality import (
    DIGITS,
    LabelQuality,
    find_label_issues,
    load_label_quality,
)
from keeprate.records.record import RunRecord
from keeprate.text import listed

Frame = TypeVar("Frame")
Decisions: TypeAlias = str | os.PathLike[str] | Iterable[Decision] | Any
WHERE = "the DataFrame"


class Judged(Protocol):
    """What has judged labels: a `keeprate.Run`."""

    @property
    def record(self) -> RunRecord: ...

    @property
    def label_quality(self) -> LabelQuality: ...


def label_issues(
    source: Judged | str | os.PathLike[str] | npt.ArrayLike, pred_probs: npt.ArrayLike | None = None
) -> Any:
    """What is known of each label, as a pandas DataFrame in the columns that cleanlab gives.

    Parameters
    ----------
    source : Run, path of a run folder, or array_like [N] of int
        Labels in 0..C-1 come with `pred_probs`, as for `find_label_issues`.
    pred_probs : array_like [N, C], optional

    Returns
    -------
    pandas.DataFrame
        A row for each label that was judged, in the order of the data; the index is the row in
        the data, counted from 0. The columns are `is_label_issue` (a boolean mask),
        `label_quality` (the probability that the label is right), `given_label`,
        `predicted_label`, `suggested_label` (None where nothing is suggested), and `name` where
        samples have one.

    Raises
    ------
    InputError
        If the source is none of these, its run is not finished, or pandas is not installed.

    Examples
    --------
    >>> found = label_issues([0, 0, 1, 1, 1],
    ...                      [[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8], [0.9, 0.1]])
    >>> found[found["is_label_issue"]].drop(columns=["label_quality", "suggested_label"])
       is_label_issue  given_label  predicted_label
    4            True            1                0
    """
    names: Sequence[Any]
    if pred_probs is not None:
        quality = find_label_issues(source, pred_probs)  # type: ignore[arg-type]  # it checks
        names = range(int(np.shape(pred_probs)[1]))
    elif isinstance(source, str | os.PathLike):
        quality, names = load_label_quality(source)
    elif hasattr(source, "label_quality") and hasattr(source, "record"):
        quality, names = source.label_quality, source.record.data.class_names
    else:
        requirement = "be a Run, the folder of one, or labels with pred_probs"
        raise invalid("source", requirement, type(source), "give one of these")
    quality = quality.sorted()
    suggested = [None if i < 0 else names[i] for i in quality.suggested.tolist()]
    pandas = needs("pandas")
    columns = {
        "is_label_issue": quality.is_issue,
        "label_quality": np.round(quality.scores.astype(np.float64), DIGITS),
        "given_label": [names[i] for i in quality.given.tolist()],
        "predicted_label": [names[i] for i in quality.predicted.tolist()],
        "suggested_label": pandas.Series(suggested, index=quality.rows, dtype=object),
    }
    columns |= {"name": list(quality.names)} if quality.names else {}
    return pandas.DataFrame(columns, index=quality.rows)


def apply(frame: Frame, decisions: Decisions, *, label: str | None = None) -> Frame:
    """A DataFrame with what was decided on its labels: some are others, some rows are dropped.

    Parameters
    ----------
    frame : DataFrame of pandas or polars, or pyarrow.Table
        It stays as it is.
    decisions : path, DataFrame, or sequence of Decision
        A file as for `keeprate apply`, or a DataFrame with its columns: `index` (the row,
        counted from 0), `given_label`, `decision` (keep, change or drop) and `label`.
    label : str, optional
        The column of the labels. Left out: the one called label, labels, target, class or y.

    Returns
    -------
    DataFrame
        Of the same kind, with the types of all columns.

    Raises
    ------
    InputError
        If a decision is none, a row is not there or has another label than the decision was made
        on, or a new label is no label of the column.

    Examples
    --------
    >>> import pandas as pd
    >>> frame = pd.DataFrame({"size": [3, 4, 5], "label": ["cat", "dog", "dog"]})
    >>> decisions = [Decision(0, "cat", "change", "dog"), Decision(1, "dog", "drop", "")]
    >>> apply(frame, decisions)
       size label
    0     3   dog
    2     5   dog
    """
    if not is_data_frame(frame):
        remedy = "use keeprate apply, or keeprate.data.write_corrected, for files"
        raise invalid("frame", "be a DataFrame", type(frame), remedy)
    table, decided = data_frame_table(frame, WHERE), _decided(decisions)
    column = label or _label_of(table.arrow.column_names)
    if column not in table.arrow.column_names:
        remedy = f"it has {listed(table.arrow.column_names)}"
        raise invalid("label", f"be a column of {WHERE}", column, remedy)
    labels, corrections = label_array(table, column), corrections_of(decided)
    JudgedSource(labels={one.index: one.given for one in decided}).check(labels, WHERE)
    wanted = sorted({name for name in corrections.values() if name is not None})
    found, _ = match_labels(labels, wanted, ())  # no codes of classes
    # A new label is that of a row that has it: so it is of the type of the column.
    row_of = {wanted[number]: row for row, number in enumerate(found.tolist()) if number >= 0}
    order = np.arange(len(labels))
    for row, name in corrections.items():
        if name is not None and name not in row_of:
            requirement = f"be a label of column {column}"
            raise invalid(f"the label for row {row}", requirement, name, "check its spelling")
        order[row] = -1 if name is None else row_of[name]
    taken: Frame = _taken(frame, table.arrow.column_names.index(column), order)
    return taken


def _decided(decisions: Decisions) -> tuple[Decision, ...]:
    if isinstance(decisions, str | os.PathLike):
        return load_decisions(decisions)
    if is_data_frame(decisions):
        return decisions_of_table(data_frame_table(decisions, "decisions").arrow, "decisions")
    decided = tuple(decisions) if isinstance(decisions, Iterable) else ()
    if not decided or not all(isinstance(one, Decision) for one in decided):
        remedy = "give a path, a DataFrame, or Decisions"
        raise invalid("decisions", "hold decisions", type(decisions), remedy)
    check_different(decided, "decisions")
    return decided


def _label_of(columns: Sequence[str]) -> str:
    likely = [name for name in columns if name.strip().lower() in LABEL_NAMES]
    if len(likely) != 1:
        received = Words(f"{listed(likely) or 'none'} among {listed(columns)}")
        raise invalid(f"the label of {WHERE}", "be one column", received, "name it (label=...)")
    return likely[0]


def _taken(frame: Any, place: int, order: npt.NDArray[np.int64]) -> Any:
    """Take the rows whose `order` is not -1, with the label of the row that `order` says."""
    kept, rows = np.flatnonzero(order >= 0), order[order >= 0]
    if hasattr(frame, "iloc"):
        taken = frame.iloc[kept].copy()
        taken[frame.columns[place]] = frame.iloc[:, place].array[rows]
        return taken
    if hasattr(frame, "with_columns"):  # polars
        return frame[kept.tolist()].with_columns(frame.to_series(place).gather(rows.tolist()))
    labels = frame.column(place).take(rows)
    return frame.take(kept).set_column(place, frame.schema.field(place), labels)
