"""Labels in any notation -> classes 0..C-1 and their names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from keeprate.errors import Words, invalid

Array = NDArray[Any]


@dataclass(frozen=True)
class Labels:
    """One column of labels. None is missing.

    Attributes
    ----------
    values : array [N] of int64 or str
        The labels as the source holds them.
    names : tuple of str or None
        The names of the classes, if the source has them. Integer labels are positions in `names`.
    """

    values: Array
    names: tuple[str, ...] | None = None


def as_array(value: Any) -> Array:
    """Return anything as an array. Ragged rows give an array of objects."""
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        # NumPy has no bfloat16.
        return np.asarray((value.float() if value.is_floating_point() else value).numpy())
    try:
        return np.asarray(value)
    except ValueError:  # ragged below the first axis
        return np.asarray(value, dtype=object)


def first_bad(bad: NDArray[np.bool_], what: str) -> Words:
    """Return how many rows are bad, and the number of the first."""
    rows = np.flatnonzero(bad)
    text = f"{what} in {len(rows)} of {len(bad)} rows, first in row {rows[0]} (counted from 0)"
    return Words(text)


def check_labels(labels: Any, where: str) -> Array:
    """Return labels as int64 or str [N].

    Parameters
    ----------
    labels : array_like [N]
        Integers, whole floats, booleans or strings.
    where : str
        The place that messages name.

    Raises
    ------
    InputError
        If labels are missing, fractional or of mixed types, or if they are not [N].
    """
    name = f"labels ({where})"
    values = as_array(_without_conversion(labels))
    if values.ndim != 1:
        remedy = "use argmax(1) on one-hot rows, ravel() on columns"
        raise invalid(name, "be [N]", Words(f"shape {values.shape}"), remedy)
    if values.dtype.kind in "OUST":
        items = values.tolist()
        missing = np.array([_is_missing(item) for item in items], dtype=bool)
        if missing.any():
            raise invalid(name, "be there", first_bad(missing, "missing ones"), "drop these rows")
        if all(isinstance(item, (str, bytes)) for item in items):
            return np.array([_text(item) for item in items], dtype=str)
        if any(isinstance(item, (str, bytes)) or not np.isscalar(item) for item in items):
            types = Words(", ".join(sorted({type(item).__name__ for item in items})))
            raise invalid(name, "be all strings or all integers", types, "convert them")
        values = np.array(items)
    return _whole_numbers(values, name)


def _without_conversion(labels: Any) -> Any:
    """Return a list of labels as an array of objects: NumPy would turn [1, "a"] into strings."""
    if not isinstance(labels, (list, tuple)):
        return labels
    items = [item.item() if getattr(item, "ndim", None) == 0 else item for item in labels]
    if any(isinstance(item, (list, tuple)) or hasattr(item, "ndim") for item in items):
        return labels
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array


def _whole_numbers(values: Array, name: str) -> Array:
    if values.dtype.kind == "f":
        if (missing := np.isnan(values)).any():
            raise invalid(name, "be there", first_bad(missing, "NaN"), "drop these rows")
        if (fraction := values != np.floor(values)).any():
            received = first_bad(fraction, f"fractions such as {values[fraction][0]:g}")
            raise invalid(name, "be classes", received, "choose another column, or bin the values")
    if values.dtype.kind == "b":
        return values.astype(str)
    if values.dtype.kind not in "iuf":
        raise invalid(name, "be integers or strings", Words(values.dtype), "convert them")
    return values.astype(np.int64)


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _is_missing(value: object) -> bool:
    if isinstance(value, (str, bytes)):
        return not value
    if isinstance(value, float):
        return value != value
    return value is None or type(value).__name__ in ("NAType", "NaTType")  # those of pandas


def number_classes(columns: list[Labels]) -> tuple[tuple[str, ...], list[NDArray[np.int64]]]:
    """Map the labels of all columns to 0..C-1 together.

    Returns
    -------
    class_names : tuple of C str
        The names in the source, else the sorted labels.
    numbered : list of array [N] of int64
        The classes of each column.

    Raises
    ------
    InputError
        If two columns name their classes differently, if strings and integers are mixed, or if a
        label is none of the named classes.
    """
    names_of_columns = {column.names for column in columns if column.names is not None}
    if len(names_of_columns) > 1:
        received = Words(f"{len(names_of_columns)} lists of names")
        raise invalid("class names", "agree", received, "choose one column")
    if names_of_columns:
        class_names = names_of_columns.pop()
        return class_names, [_positions(column.values, class_names) for column in columns]
    if len({column.values.dtype.kind for column in columns}) > 1:
        requirement = "be all strings or all integers"
        raise invalid("labels", requirement, Words("both"), "write all columns alike")
    classes = np.unique(np.concatenate([column.values for column in columns]))
    class_names = tuple(str(value) for value in classes)
    return class_names, [np.searchsorted(classes, column.values) for column in columns]


def _positions(values: Array, class_names: tuple[str, ...]) -> NDArray[np.int64]:
    positions = values
    if values.dtype.kind == "U":
        numbers = {name: i for i, name in enumerate(class_names)}
        positions = np.array([numbers.get(value, -1) for value in values], dtype=np.int64)
    outside = (positions < 0) | (positions >= len(class_names))
    if outside.any():
        received = first_bad(outside, f"{values[outside][0].item()!r} or the like")
        requirement = f"be one of {len(class_names)} named classes"
        raise invalid("labels", requirement, received, "drop them")
    return positions
