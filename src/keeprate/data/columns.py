"""Which columns of a table are inputs and labels; tables -> raw splits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from keeprate.data.labels import Labels, check_labels
from keeprate.data.reading import RawSplit, RequestedColumns, name_splits
from keeprate.data.tables import (
    REMEDY_INPUTS,
    Table,
    input_array,
    label_array,
    names_of_rows,
    refuse_other_than_numbers,
)
from keeprate.errors import Words, invalid

LABEL_NAMES = ("label", "labels", "target", "class", "y")
TRUE_LABEL_NAMES = ("true_label", "true_labels", "clean_label", "clean_labels")
REMEDY_LABEL = "say which column is the label (label=..., --label)"


@dataclass(frozen=True)
class Columns:
    """The columns that hold inputs, labels and true labels."""

    inputs: tuple[str, ...]
    label: str
    true_label: str | None


def splits_of_tables(
    tables: Mapping[str, Table], requested: RequestedColumns
) -> dict[str, RawSplit]:
    """Read the splits of a source of tables.

    The training table decides which columns are used. A held-out split without the label column
    takes its labels from the true-label column.

    Raises
    ------
    InputError
        If a column is missing or cannot be guessed, a table is empty, or a value does not fit.
    """
    by_split = name_splits(tables)
    columns = choose_columns(by_split["train"], requested)
    splits = {}
    for split, table in by_split.items():
        present = table.arrow.column_names
        label, true_label = columns.label, columns.true_label
        if true_label not in present:
            true_label = None
        if label not in present and true_label is not None and split != "train":
            label = true_label
        if label not in present:
            remedy = (
                f"it has {', '.join(present)}; if one of these is right, name it "
                "(true_label=..., --true-label)"
            )
            raise invalid("label", f"be a column of the {table.where}", label, remedy)
        if not table.arrow.num_rows:
            raise invalid(table.where, "hold samples", Words("none"), "check that it was written")
        labels = [name for name in (columns.label, columns.true_label) if name is not None]
        splits[split] = RawSplit(
            input_array(table, columns.inputs),
            _column_labels(table, label),
            None if true_label is None else _column_labels(table, true_label),
            columns.inputs,
            names_of_rows(table, columns.inputs, labels),
        )
    return splits


def _column_labels(table: Table, column: str) -> Labels:
    values = check_labels(label_array(table, column), f"column {column}, {table.where}")
    return Labels(values, table.names_of(column))


def choose_columns(table: Table, requested: RequestedColumns) -> Columns:
    """Take the requested columns, guess the others, and refuse a guess that would be arbitrary.

    Label: the ClassLabel column, or the column called label, labels, target, class or y. True
    label: the column called true_label or clean_label. Inputs: the image column, else the one
    column of lists, else all other columns if all are numbers.

    Raises
    ------
    InputError
        If a requested column does not exist, or a guess would be arbitrary.
    """
    all_names: list[str] = table.arrow.column_names
    for name in (*requested.inputs, requested.label, requested.true_label):
        if name is not None and name not in all_names:
            requirement = f"be one of {', '.join(all_names)} ({table.where})"
            raise invalid("column", requirement, name, "check its name")
    true_label = requested.true_label or _guess_true_label(all_names, requested)
    taken = (*requested.inputs, requested.label, true_label)
    label_like = [name for name in all_names if _is_label_like(table, name) and name not in taken]
    label = requested.label or _guess_label(table, label_like)
    if true_label == label:
        raise invalid("true_label", "differ from label", label, "leave one of them out")
    inputs = requested.inputs
    if label in inputs or true_label in inputs:
        raise invalid("inputs", "hold no label", list(inputs), REMEDY_INPUTS)
    if not inputs:
        others = [name for name in all_names if name not in (label, true_label)]
        inputs = _guess_inputs(table, others, [name for name in label_like if name != label])
    return Columns(inputs, label, true_label)


def _is_label_like(table: Table, name: str) -> bool:
    return name.lower() in (*LABEL_NAMES, *TRUE_LABEL_NAMES) or table.names_of(name) is not None


def _guess_true_label(all_names: list[str], requested: RequestedColumns) -> str | None:
    taken = (*requested.inputs, requested.label)
    likely = [n for n in all_names if n.lower() in TRUE_LABEL_NAMES and n not in taken]
    return likely[0] if len(likely) == 1 else None


def _guess_label(table: Table, label_like: list[str]) -> str:
    if len(label_like) != 1:
        count = f"several ({', '.join(label_like)})" if label_like else "none"
        columns = ", ".join(table.arrow.column_names)
        received = Words(f"{count} among the columns {columns} ({table.where})")
        raise invalid("label", "be one column", received, REMEDY_LABEL)
    return label_like[0]


def _guess_inputs(table: Table, names: list[str], label_like: list[str]) -> tuple[str, ...]:
    """Return the image column, the list column, or all columns of numbers among `names`."""
    images = [name for name in names if table.is_image(name)]
    lists = [name for name in names if table.is_list(name)]
    inputs = images or lists
    if len(inputs) > 1:
        received = Words(f"several ({', '.join(inputs)})")
        raise invalid("inputs", "be one column of images or lists", received, REMEDY_INPUTS)
    if inputs:
        return tuple(inputs)
    if label_like:  # a label among the inputs would reveal the answer
        received = Words(f"a column that looks like one: {', '.join(label_like)}")
        raise invalid("inputs", "hold no label", received, REMEDY_INPUTS)
    refuse_other_than_numbers(table, names)
    return tuple(names)
