"""Which columns of a table are inputs and labels; tables -> raw splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from keeprate.data.features import InputColumn, Kind, code_table
from keeprate.data.guards import names_splits, why_no_input
from keeprate.data.kinds import NAMES_ROWS, guess_kind
from keeprate.data.labels import (
    Array,
    Labels,
    are_there,
    check_labels,
)
from keeprate.data.raw import (
    IGNORE,
    RawData,
    RawSplit,
    RequestedColumns,
    ambiguous,
    name_splits,
)
from keeprate.data.tables import (
    REMEDY_INPUTS,
    Table,
    label_array,
    names_of_rows,
    whole_array,
)
from keeprate.data.votes import with_majority
from keeprate.errors import Words, invalid
from keeprate.mapped import filtered
from keeprate.reading import LABEL_NAMES, TRUE_LABEL_NAMES, missing_columns, release_memory
from keeprate.text import listed

REMEDY_LABEL = "say which column is the label (label=..., --label)"


@dataclass(frozen=True)
class Columns:
    """The columns that hold inputs, labels and true labels.

    Attributes
    ----------
    inputs : tuple of str
    kinds : tuple of str
        Of each input; empty if the inputs are one column of images or lists.
    label : str
    true_label : str or None
    left_out : dict of str to str
        All other columns, and why they are no inputs.
    """

    inputs: tuple[str, ...]
    kinds: tuple[Kind, ...]
    label: str
    true_label: str | None
    left_out: dict[str, str]


def read_splits(tables: dict[str, Table], requested: RequestedColumns) -> RawData:
    """Read the splits of a source of tables.

    The training table decides which columns are used. A held-out split without the label column
    takes its labels from the true-label column; without both it is left out. Rows without a label
    are left out. `tables` is emptied, so that memory never holds all columns twice.

    Raises
    ------
    InputError
        If a column is missing or cannot be guessed, a table is empty, or a value does not fit.
    """
    named = name_splits(tables)
    tables.clear()
    # The training split first, as the first one decides centres and the size of images.
    order = sorted(named, key=lambda name: name != "train")
    by_split = {name: named.pop(name) for name in order}
    if requested.votes:
        by_split = _with_majorities(by_split, requested.votes)
    columns = choose_columns(by_split["train"], requested)
    labelled, notes = _labelled_splits(by_split, columns)
    raw = {split: content.raw(columns.inputs) for split, content in labelled.items()}
    arrays, coded, more_notes = _inputs(labelled, columns, requested)
    release_memory()
    splits = {split: replace(content, inputs=arrays[split]) for split, content in raw.items()}
    label = "" if requested.votes and not requested.label else columns.label
    return RawData(splits, coded, columns.left_out, (*notes, *more_notes), label)


def _with_majorities(by_split: Mapping[str, Table], votes: Sequence[str]) -> dict[str, Table]:
    """Take the annotators' columns of the training split, and of others that have them."""
    return {
        split: with_majority(table, votes)
        if split == "train" or set(votes) & set(table.arrow.column_names)
        else table
        for split, table in by_split.items()
    }


@dataclass(frozen=True)
class _LabelledRows:
    """The rows of a table that have a label."""

    table: Table
    labels: Labels
    true_labels: Labels | None
    rows: Array | None
    n_left_out: int
    names: tuple[str, ...]

    def raw(self, columns: tuple[str, ...]) -> RawSplit:
        """The split, still without its inputs."""
        return RawSplit(
            None,
            self.labels,
            self.true_labels,
            columns,
            self.names,
            self.rows,
            self.table.votes,
        )


def _labelled_splits(
    by_split: dict[str, Table], columns: Columns
) -> tuple[dict[str, _LabelledRows], list[str]]:
    """Read the labels of all splits that have any, and empty `by_split`."""
    notes: list[str] = []
    labelled = {}
    while by_split:
        split = next(iter(by_split))
        table = by_split.pop(split)
        notes += table.notes
        label = _label_of(table, columns, split)
        if label is None:
            notes.append(
                f"{table.where}: no column {columns.label}, so it was left out; keeprate predict "
                "takes it"
            )
            continue
        if not table.arrow.num_rows:
            raise invalid(table.where, "hold samples", Words("none"), "check that it was written")
        _refuse_missing_inputs(table, columns.inputs)
        labelled[split] = _labelled_rows(table, label, columns)
        if n := labelled[split].n_left_out:
            notes.append(f"{table.where}: {n:,} rows without a label were left out")
    return labelled, notes


def _label_of(table: Table, columns: Columns, split: str) -> str | None:
    present = table.arrow.column_names
    if columns.label in present:
        return columns.label
    if columns.true_label in present and split != "train":
        return columns.true_label
    return None


def _labelled_rows(table: Table, label: str, columns: Columns) -> _LabelledRows:
    true_label = columns.true_label
    if true_label not in table.arrow.column_names:
        true_label = None
    given = label_array(table, label)
    true = None if true_label is None else label_array(table, true_label)
    present = are_there(given)
    if true is not None and not (checked := are_there(true) | ~present).all():
        received = Words(f"missing ones in {len(checked) - int(checked.sum())} of {len(checked)}")
        raise invalid(
            f"true labels (column {true_label}, {table.where})",
            "be there for all rows that have a label",
            received,
            f"leave the column out (--columns {true_label}=ignore), or write the checked rows to a "
            "test file",
        )
    if not present.any():
        received = Words("missing ones in all rows")
        raise invalid(f"labels (column {label}, {table.where})", "be there", received, REMEDY_LABEL)
    rows = None
    if not present.all():
        rows = np.flatnonzero(present)
        given, true = given[present], None if true is None else true[present]
        votes = table.votes and tuple(table.votes[row] for row in rows.tolist())
        kept = filtered(table.arrow, present)
        table = replace(table, arrow=kept, votes=votes)
    ends = [name for name in (columns.label, columns.true_label) if name is not None]
    return _LabelledRows(
        table,
        _as_labels(table, label, given),
        None if true_label is None or true is None else _as_labels(table, true_label, true),
        rows,
        len(present) - len(given),
        names_of_rows(table, columns.inputs, ends),
    )


def _as_labels(table: Table, column: str, values: Array) -> Labels:
    checked = check_labels(values, f"column {column}, {table.where}")
    return Labels(checked, table.names_of(column))


def _inputs(
    labelled: dict[str, _LabelledRows], columns: Columns, requested: RequestedColumns
) -> tuple[dict[str, Any], tuple[InputColumn, ...], list[str]]:
    """Return the inputs of each split, what coded columns stand for, and notes.

    `labelled` is emptied: memory holds no column both as it was read and as an input.
    """
    tables = {split: labelled.pop(split).table for split in list(labelled)}
    if not columns.kinds:
        inputs: dict[str, Any] = {}
        notes: list[str] = []
        shape: dict[str, Any] = {"image_size": requested.image_size}
        for split, table in tables.items():
            inputs[split], shape, said = whole_array(
                table,
                columns.inputs[0],
                **shape,
                place=requested.place,
                file=f"{split}.inputs",
            )
            notes += said
        return inputs, (), notes
    wanted = [InputColumn(n, k) for n, k in zip(columns.inputs, columns.kinds, strict=True)]
    where = {split: table.where for split, table in tables.items()}
    arrow = {split: tables.pop(split).arrow for split in list(tables)}
    coded, known = code_table(arrow, wanted, where, place=requested.place)
    return dict(coded), known, []


def _refuse_missing_inputs(table: Table, inputs: Sequence[str]) -> None:
    missing = missing_columns(table.arrow, inputs)
    if missing:
        remedy = f"it has {listed(table.arrow.column_names)}"
        raise invalid("inputs", f"be columns of the {table.where}", Words(listed(missing)), remedy)


# Choosing ---------------------------------------------------------------------------------------


def choose_columns(table: Table, requested: RequestedColumns) -> Columns:
    """Take the requested columns, guess the others, and refuse a guess that would be arbitrary.

    Label: the ClassLabel column, or the column called label, labels, target, class or y. True
    label: the column called true_label or clean_label. Inputs: the image column, else the one
    column of lists, else all other columns but those that number, name or date the rows.

    Raises
    ------
    InputError
        If a requested column does not exist, or a guess would be arbitrary.
    """
    all_names: list[str] = table.arrow.column_names
    for name in (*requested.inputs, requested.label, requested.true_label, *requested.kinds):
        if name is not None and name not in all_names:
            requirement = f"be one of {listed(all_names)} ({table.where})"
            raise invalid("column", requirement, name, "check its name")
    true_label = requested.true_label or _guess_true_label(all_names, requested)
    taken = {*requested.inputs, *requested.kinds, requested.label, true_label}
    label_like = [name for name in all_names if _is_label_like(table, name) and name not in taken]
    label = requested.label or table.label or _guess_label(table, label_like)
    if true_label == label:
        raise invalid("true_label", "differ from label", label, "leave one of them out")
    named = (*requested.inputs, *(n for n, kind in requested.kinds.items() if kind != IGNORE))
    if {label, true_label, *requested.votes} & set(named):
        raise invalid("inputs", "hold no label", Words(listed(named)), REMEDY_INPUTS)
    others = [name for name in all_names if name not in (label, true_label)]
    also_like = [name for name in label_like if name != label]
    return _choose_inputs(table, others, also_like, requested, label, true_label)


def _choose_inputs(
    table: Table,
    others: Sequence[str],
    label_like: Sequence[str],
    requested: RequestedColumns,
    label: str,
    true_label: str | None,
) -> Columns:
    """Tell inputs from what is left out, and give each input a kind."""
    left_out: dict[str, str] = {}
    if not requested.inputs and not any(kind != IGNORE for kind in requested.kinds.values()):
        unsaid = [n for n in others if n not in requested.kinds and n not in table.ignored]
        whole = _image_or_list(table, unsaid)
        if whole is not None:
            left_out = {name: f"{whole} is the input" for name in others if name != whole}
            return Columns((whole,), (), label, true_label, left_out)
    if requested.inputs:
        if len(requested.inputs) == 1 and table.is_whole(requested.inputs[0]):
            left_out = {
                name: "as others are named" for name in others if name != requested.inputs[0]
            }
            return Columns(requested.inputs, (), label, true_label, left_out)
    elif label_like:  # a label among the inputs would reveal the answer
        received = Words(f"a column that looks like one: {listed(label_like)}")
        raise invalid("inputs", "hold no label", received, REMEDY_INPUTS)
    kinds: dict[str, Kind] = {}
    for name in requested.inputs or others:
        wanted = requested.kinds.get(name)
        if wanted == IGNORE:
            left_out[name] = "to be ignored"
            continue
        kind, why = wanted, ""
        if wanted is None:
            kind, why = _kind_or_why(table, name, label, is_named=name in requested.inputs)
        if kind is None:
            left_out[name] = why
        else:
            kinds[name] = kind  # type: ignore[assignment]  # `RequestedColumns` has checked it
    left_out |= {n: "as others are named" for n in others if n not in kinds and n not in left_out}
    if not kinds:
        whys = [f"{name} ({why})" for name, why in left_out.items()]
        received = Words(f"none that can be used: {listed(whys)}" if whys else "none")
        requirement = f"be columns of numbers, categories, dates or texts ({table.where})"
        raise invalid("inputs", requirement, received, REMEDY_INPUTS)
    return Columns(tuple(kinds), tuple(kinds.values()), label, true_label, left_out)


def _kind_or_why(table: Table, name: str, label: str, *, is_named: bool) -> tuple[Kind | None, str]:
    """What a column holds, or None and why it is no input."""
    if not is_named:
        _ask_for_splits(table, name)
        if why := why_no_input(table, name, label):
            return None, why
    kind, why = guess_kind(table, name)
    return ("text", "") if is_named and why == NAMES_ROWS else (kind, why)


def _ask_for_splits(table: Table, name: str) -> None:
    """Ask what to do with a column that says which split each row belongs to."""
    if names_splits(table, name):
        raise ambiguous(
            f"column {name} of the {table.where} says which split each row belongs to, and one "
            "table is one split",
            "write a file for each split (train.csv, test.csv), or leave the column out "
            f"(--columns {name}=ignore)",
        )


def _is_label_like(table: Table, name: str) -> bool:
    is_called_so = name.strip().lower() in (*LABEL_NAMES, *TRUE_LABEL_NAMES)
    return is_called_so or table.names_of(name) is not None


def _guess_true_label(all_names: list[str], requested: RequestedColumns) -> str | None:
    taken = (*requested.inputs, *requested.kinds, requested.label)
    likely = [n for n in all_names if n.lower() in TRUE_LABEL_NAMES and n not in taken]
    return likely[0] if len(likely) == 1 else None


def _guess_label(table: Table, label_like: list[str]) -> str:
    if len(label_like) != 1:
        count = f"several ({listed(label_like)})" if label_like else "none"
        received = Words(f"{count} among the columns {listed(table.arrow.column_names)}")
        raise invalid(f"label ({table.where})", "be one column", received, REMEDY_LABEL)
    return label_like[0]


def _image_or_list(table: Table, names: Sequence[str]) -> str | None:
    """The one column of images, else the one column of lists."""
    images = [name for name in names if table.is_image(name)]
    lists = [name for name in names if table.is_list(name)]
    whole = images or lists
    if len(whole) > 1:
        received = Words(f"several ({listed(whole)})")
        raise invalid("inputs", "be one column of images or lists", received, REMEDY_INPUTS)
    return whole[0] if whole else None
