"""Labels as anybody writes them -> classes 0..C-1 and their names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from keeprate.errors import invalid

Array = NDArray[Any]


@dataclass(frozen=True)
class Labels:
    """One column of labels, none of them missing.

    Attributes
    ----------
    values : array [N] of int64 or str
        As given.
    names : tuple of str or None
        Where the source names its classes, integers are positions in this.
    """

    values: Array
    names: tuple[str, ...] | None = None


def as_array(value: Any) -> Array:
    """Return anything as an array; ragged rows give an array of objects."""
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        # NumPy knows no bfloat16.
        return np.asarray((value.float() if value.is_floating_point() else value).numpy())
    try:
        return np.asarray(value)
    except ValueError:  # ragged below the first axis
        return np.asarray(value, dtype=object)


def first_bad(bad: NDArray[np.bool_], what: str) -> str:
    """Say how many rows are bad, and which one to look at first."""
    rows = np.flatnonzero(bad)
    return f"{what} in {len(rows)} of {len(bad)} rows, first in row {rows[0]} (counted from 0)"


def check_labels(labels: Any, where: str) -> Array:
    """Return labels as int64 or str [N]; refuse missing, fractional and mixed ones."""
    name = f"labels ({where})"
    if isinstance(labels, (list, tuple)):  # NumPy alone would turn [1, "a"] into strings
        items = [v.item() if getattr(v, "ndim", None) == 0 else v for v in labels]
        if not any(isinstance(v, (list, tuple)) or hasattr(v, "ndim") for v in items):
            labels = np.empty(len(items), dtype=object)
            labels[:] = items
    values = as_array(labels)
    if values.ndim != 1:
        received = f"shape {values.shape}"
        raise invalid(name, "be [N]", received, "use argmax(1) on one-hot rows, ravel() on columns")
    if values.dtype.kind in "OUST":
        items = values.tolist()
        missing = np.array([_is_missing(v) for v in items], dtype=bool)
        if missing.any():
            raise invalid(name, "be there", first_bad(missing, "missing ones"), "drop these rows")
        if all(isinstance(v, (str, bytes)) for v in items):
            return np.array(
                [v.decode(errors="replace") if isinstance(v, bytes) else v for v in items],
                dtype=str,
            )
        if any(isinstance(v, (str, bytes)) or not np.isscalar(v) for v in items):
            kinds = ", ".join(sorted({type(v).__name__ for v in items}))
            raise invalid(name, "be all strings or all integers", kinds, "convert them")
        values = np.array(items)
    if values.dtype.kind == "f":
        if (missing := np.isnan(values)).any():
            raise invalid(name, "be there", first_bad(missing, "NaN"), "drop these rows")
        if (fraction := values != np.floor(values)).any():
            received = first_bad(fraction, f"fractions such as {values[fraction][0]:g}")
            raise invalid(name, "be classes", received, "choose another column, or bin the values")
    if values.dtype.kind == "b":
        return values.astype(str)
    if values.dtype.kind not in "iuf":
        raise invalid(name, "be integers or strings", str(values.dtype), "convert them")
    return values.astype(np.int64)


def _is_missing(value: object) -> bool:
    if isinstance(value, (str, bytes)):
        return not value
    if isinstance(value, float):
        return value != value
    return value is None or type(value).__name__ in ("NAType", "NaTType")  # those of pandas


def number_classes(columns: list[Labels]) -> tuple[tuple[str, ...], list[NDArray[np.int64]]]:
    """Map the labels of all splits to 0..C-1 together."""
    named = {column.names for column in columns if column.names is not None}
    if len(named) > 1:
        raise invalid("class names", "agree", f"{len(named)} lists of names", "choose one column")
    kinds = {column.values.dtype.kind for column in columns}
    if not named:
        if len(kinds) > 1:
            raise invalid(
                "labels", "be all strings or all integers", "both", "write all columns alike"
            )
        classes = np.unique(np.concatenate([column.values for column in columns]))
        names = tuple(str(value) for value in classes)
        return names, [np.searchsorted(classes, column.values) for column in columns]
    names, numbered = named.pop(), []
    numbers = {name: i for i, name in enumerate(names)}
    for column in columns:
        values = column.values
        if values.dtype.kind == "U":
            values = np.array([numbers.get(value, -1) for value in values], dtype=np.int64)
        outside = (values < 0) | (values >= len(names))
        if outside.any():
            received = first_bad(outside, f"{column.values[outside][0]!r} or the like")
            raise invalid("labels", f"be one of {len(names)} named classes", received, "drop them")
        numbered.append(values)
    return names, numbered
