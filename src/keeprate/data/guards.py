"""Columns that are no inputs: what numbers or names the rows, or gives the label away."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from keeprate.data.tables import Table, has_odd_values, label_array
from keeprate.errors import needs
from keeprate.reading import SPLIT_NAMES, dictionary, is_number

LEAST_ROWS = 10  # from which on a column of values that count is no accident
LEAST_TWINS = 20  # rows, from which on a column that agrees with the label is none
MOST_TWINS = 1_000  # different values of a column that may be the label in other words
EXACT = 2**53  # up to here float64 tells whole numbers apart
INDEX_NAMES = re.compile(
    r"|unnamed: ?\d+|__index_level_\d+__|index|idx|id|ids|uuid|guid|row|row_?id|key"
    r"|.*[_ -](id|uuid|guid|hash)|id[_ -].*|.*[a-z](Id|ID)",
)
OTHER_NAMES = re.compile(
    r"(annotat(or|ed_by)|labell?er|rater|worker|user|reviewer)[_ ]?(name|\d+)?"
    r"|(created|updated|annotated)_(at|on|by)|lead_time|_session.*|_view_id|_timestamp",
    re.IGNORECASE,
)
LABEL_WORDS = {"label", "labels", "target", "targets", "gold", "truth", "majority"}
FOLD_NAMES = {"fold", "folds", "cv_fold", "kfold"}


def is_key(column: str) -> bool:
    """Whether a column, by its name, is an index or a key of the rows.

    >>> is_key("customer_id"), is_key("userId"), is_key("paid"), is_key("")
    (True, True, False, True)
    """
    name = column.strip()
    return bool(INDEX_NAMES.fullmatch(name) or INDEX_NAMES.fullmatch(name.lower()))


def why_no_input(table: Table, column: str, label: str) -> str:
    """Why a column that nobody named is no input; empty if it may be one.

    Parameters
    ----------
    table : Table
        Of the training split.
    column, label : str
        Names of its columns.
    """
    if column in table.ignored:
        return "about the row or its labels"
    if OTHER_NAMES.fullmatch(column):
        return "says who labelled the row, or when"
    if is_key(column):
        return "an index or a key of the rows"
    if is_called_label(column):
        return "called like a label"
    if column.strip().lower() in FOLD_NAMES:
        return "says in which fold the row is"
    content = table.arrow.column(column)
    if needs("pyarrow.types").is_integer(content.type) and _largest(content) > EXACT:
        return "whole numbers too large to be told apart"
    if counts_rows(content):
        return "counts the rows"
    if _is_twin(content, table, label):
        return "says the same as the label"
    return ""


def is_called_label(column: str) -> bool:
    """Whether a word of a column's name says that it holds labels.

    >>> is_called_label("given_label"), is_called_label("TrueLabel"), is_called_label("labelled")
    (True, True, False)
    """
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", column)
    return any(word.lower() in LABEL_WORDS for word in words)


def counts_rows(content: Any) -> bool:
    """Whether a column of whole numbers goes from row to row in equal steps."""
    if not is_number(content.type) or content.null_count or len(content) < LEAST_ROWS:
        return False
    if needs("pyarrow.types").is_boolean(content.type):
        return False
    beginning = content.slice(0, LEAST_ROWS).cast("float64", safe=False).to_numpy()
    step = beginning[1] - beginning[0]
    if step == 0 or (beginning % 1).any() or (np.diff(beginning) != step).any():
        return False
    return bool((np.diff(content.cast("float64", safe=False).to_numpy()) == step).all())


def names_splits(table: Table, column: str) -> bool:
    """Whether a column says for each row which split it belongs to."""
    types, content = needs("pyarrow.types"), table.arrow.column(column)
    if not (types.is_string(content.type) or types.is_large_string(content.type)):
        return False
    first = [value for value in content.slice(0, LEAST_ROWS).to_pylist() if value]
    if not first or any(value.strip().lower() not in SPLIT_NAMES for value in first):
        return False
    values = [value.strip().lower() for value in dictionary(content).dictionary.to_pylist()]
    return len(values) > 1 and all(value in SPLIT_NAMES for value in values)


def _largest(content: Any) -> int:
    bounds: dict[str, int | None] = needs("pyarrow.compute").min_max(content).as_py()
    return max(abs(bound or 0) for bound in bounds.values())


def _is_twin(content: Any, table: Table, label: str) -> bool:
    """Whether each value of a column stands for one class, and each class for one value."""
    types, kind = needs("pyarrow.types"), content.type
    if len(content) < LEAST_TWINS or content.null_count or has_odd_values(kind):
        return False
    is_dictionary = types.is_dictionary(kind)
    is_whole = is_number(kind) and not types.is_floating(kind)
    if not (is_dictionary or is_whole or types.is_string(kind) or types.is_large_string(kind)):
        return False
    some = content.slice(0, 10 * MOST_TWINS)
    count_distinct = needs("pyarrow.compute").count_distinct
    if not is_dictionary and count_distinct(some).as_py() > MOST_TWINS:
        return False  # before all values are numbered
    encoded = dictionary(content)
    values = encoded.indices.to_numpy(zero_copy_only=False)
    _, classes = np.unique(label_array(table, label).astype(str), return_inverse=True)
    n_values, n_classes = len(encoded.dictionary), int(classes.max()) + 1
    if n_values != n_classes or n_values < 2:
        return False
    return len(np.unique(values.astype(np.int64) * n_classes + classes)) == n_values
