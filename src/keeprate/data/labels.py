"""Labels in any notation -> classes 0..C-1 and their names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from keeprate.errors import Words, invalid

Array = NDArray[Any]
WHOLE = re.compile(r"(-?(?:0|[1-9][0-9]*))(?:\.0*)?")  # no leading zeros, no exponent
FRACTION = re.compile(r"-?(?:0|[1-9][0-9]*)\.[0-9]*[1-9][0-9]*")
DECIMAL = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]*)?")
NO_NUMBER = ("nan", "inf", "+inf", "-inf", "infinity", "-infinity", "na", "n/a", "<na>", "none")


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
        try:
            return np.asarray(value.numpy())
        except TypeError:  # NumPy has no bfloat16
            return np.asarray(value.float().numpy())
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
    labels : array_like [N] or [N, 1]
        Integers, whole floats, booleans or strings. Integers beyond int64 become strings.
    where : str
        The place that messages name.

    Raises
    ------
    InputError
        If labels are missing, fractional or of mixed types, or if they are not [N].
    """
    name = f"labels ({where})"
    values = as_array(_without_conversion(labels))
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        remedy = "use argmax(1) on one-hot rows"
        raise invalid(name, "be [N]", Words(f"shape {values.shape}"), remedy)
    if values.dtype.kind in "OUST":
        items = values.tolist()
        missing = np.array([_is_missing(item) for item in items], dtype=bool)
        if missing.any():
            raise invalid(name, "be there", first_bad(missing, "missing ones"), "drop these rows")
        if values.dtype.kind == "U":
            return values
        if all(isinstance(item, (str, bytes)) for item in items):
            return np.array([_text(item) for item in items], dtype=str)
        if any(isinstance(item, (str, bytes)) or not np.isscalar(item) for item in items):
            types = Words(", ".join(sorted({type(item).__name__ for item in items})))
            remedy = "convert them; several labels a sample cannot be trained on"
            raise invalid(name, "be all strings or all integers", types, remedy)
        if all(isinstance(item, int) for item in items) and max(map(abs, items)) >= 2**63:
            return np.array([str(item) for item in items])
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
        if (missing := ~np.isfinite(values)).any():
            received = first_bad(missing, "NaN or infinity")
            raise invalid(name, "be there", received, "drop these rows")
        if (fraction := values != np.floor(values)).any():
            received = first_bad(fraction, f"fractions such as {values[fraction][0]:g}")
            raise invalid(name, "be classes", received, "choose another column, or bin the values")
    if values.dtype.kind == "b":
        return values.astype(str)
    if values.dtype.kind not in "iuf":
        raise invalid(name, "be integers or strings", Words(values.dtype), "convert them")
    if values.dtype.kind != "i" and (np.abs(values) >= 2.0**63).any():
        return np.array([str(int(value)) for value in values.tolist()])
    return values.astype(np.int64)


def are_there(labels: Array) -> NDArray[np.bool_]:
    """For each label [N] whether it is there: not None, NaN, infinite or empty."""
    if labels.dtype.kind == "f":
        return np.isfinite(labels)
    if labels.dtype.kind == "O":
        return np.array([not _is_missing(item) for item in labels.tolist()], dtype=bool)
    return np.ones(len(labels), dtype=bool)


def written_labels(labels: Array) -> Array:
    """Take labels that a text file holds for what they are.

    Numbers of one form, whole and without leading zeros, become int64; then cells such as "nan"
    are missing. All other labels stay as they are written.

    Parameters
    ----------
    labels : array [N] of str or None

    Returns
    -------
    array [N] of int64, or of str, int and None

    Examples
    --------
    >>> written_labels(np.array(["10", "7", "7"], dtype=object)).tolist()
    [10, 7, 7]
    >>> written_labels(np.array(["007", "7", None], dtype=object)).tolist()
    ['007', '7', None]
    """
    texts = {item for item in labels.tolist() if item is not None}
    blank = {text for text in texts if text.strip().lower() in ("", "nan")}
    wholes = {text: WHOLE.fullmatch(text.strip()) for text in texts - blank}
    if all(match or text.strip().lower() in NO_NUMBER for text, match in wholes.items()):
        numbers = {text: _whole(match[1]) for text, match in wholes.items() if match}
    else:
        numbers = {}
    meaning: dict[str | None, object]
    if numbers and max(map(abs, numbers.values())) < 2**63:
        meaning = dict(numbers)
    elif any(map(FRACTION.fullmatch, texts)) and all(map(DECIMAL.fullmatch, texts - blank)):
        meaning = {text: float(text) for text in texts - blank}  # a column of measurements
    else:
        meaning = {text: text for text in texts - blank}
    values = np.empty(len(labels), dtype=object)
    values[:] = [meaning.get(item) for item in labels.tolist()]
    return values.astype(np.int64) if None not in values and numbers == meaning else values


def _whole(digits: str) -> int:
    """Return the number; beyond int64 any such number will do, as Python refuses long ones."""
    return int(digits) if len(digits) < 21 else 2**64


def match_labels(
    labels: Array, class_names: Sequence[str], names: Sequence[str] | None = None
) -> tuple[NDArray[np.int64], str]:
    """Find the known classes among labels in any notation.

    Parameters
    ----------
    labels : array [N]
        As a source holds them: strings, numbers, booleans, None.
    class_names : sequence of C str
        The classes of a trained network.
    names : sequence of str, optional
        What integers stand for in the source; empty if they stand for nothing but themselves.

    Returns
    -------
    numbers : array [N] of int64
        0..C-1; -1 where the label is missing or none of the classes.
    note : str
        How the labels were read, if that is not plain.

    Examples
    --------
    >>> match_labels(np.array([2.0, 1.0, np.nan]), ("1", "2"))[0].tolist()
    [1, 0, -1]
    >>> match_labels(np.array([1, 0, 5]), ("cat", "dog"))
    (array([ 1,  0, -1]), 'numbers are taken for the codes 0 to 1 of the classes')
    """
    items = [label_text(item, names) for item in labels.tolist()]
    place = {name: i for i, name in enumerate(class_names)}
    loose: dict[str, int] = {}
    for name, i in place.items():
        loose.setdefault(_loosely(name), i)
    found = {item: place.get(item, loose.get(_loosely(item), -1)) for item in set(items)}
    note = ""
    has_names = names is not None or any(map(WHOLE.fullmatch, class_names))
    if all(number < 0 for number in found.values()) and not has_names:
        code_of = {str(i): i for i in range(len(class_names))}
        found = {item: code_of.get(_loosely(item), -1) for item in found}
        if any(number >= 0 for number in found.values()):
            note = f"numbers are taken for the codes 0 to {len(class_names) - 1} of the classes"
    return np.array([found[item] for item in items], dtype=np.int64), note


def label_text(item: object, names: Sequence[str] | None = None) -> str:
    """A label as text: the name that an integer stands for, if there are names; "" if missing."""
    if _is_missing(item):
        return ""
    if names is not None and isinstance(item, int | np.integer) and 0 <= item < len(names):
        return names[int(item)]
    return _text(item) if isinstance(item, (str, bytes)) else str(item)


def _loosely(label: str) -> str:
    """A label without what files change: 1.0 is 1, TRUE is True."""
    label = label.strip()
    if match := WHOLE.fullmatch(label):
        return match[1]
    return label.lower() if label.lower() in ("true", "false") else label


def _text(value: str | bytes) -> str:
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else value


def _is_missing(value: object) -> bool:
    if isinstance(value, (str, bytes)):
        return not value.strip()
    if isinstance(value, float):
        return not np.isfinite(value)
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
        columns = [_as_whole_numbers(column) for column in columns]
    # Of each column first: a sorted copy of all labels together would be large.
    classes = np.unique(np.concatenate([np.unique(column.values) for column in columns]))
    class_names = tuple(str(value) for value in classes)
    return class_names, [np.searchsorted(classes, column.values) for column in columns]


def with_samples(
    class_names: tuple[str, ...], numbered: Sequence[NDArray[np.int64]]
) -> tuple[tuple[str, ...], list[NDArray[np.int64]], tuple[str, ...]]:
    """Leave out classes that a list names and no column has: a part of a data set has few of them.

    Returns
    -------
    class_names : tuple of C str
    numbered : list of array [N] of int64
        In 0..C-1.
    without : tuple of str
        The classes that were left out.

    Examples
    --------
    >>> with_samples(("cat", "cow", "dog"), [np.array([2, 0, 2])])
    (('cat', 'dog'), [array([1, 0, 1])], ('cow',))
    """
    counts = np.zeros(len(class_names), dtype=np.int64)
    for column in numbered:
        counts += np.bincount(column, minlength=len(class_names))
    if counts.all():
        return class_names, list(numbered), ()
    places = np.cumsum(counts > 0) - 1
    kept, without = (
        tuple(name for name, n in zip(class_names, counts, strict=True) if bool(n) == has)
        for has in (True, False)
    )
    return kept, [places[column] for column in numbered], without


def _as_whole_numbers(column: Labels) -> Labels:
    """Read strings as the integers that another column of labels has."""
    if column.values.dtype.kind != "U":
        return column
    matches = [WHOLE.fullmatch(value) for value in column.values.tolist()]
    if not all(matches):
        requirement = "be all strings or all integers"
        raise invalid("labels", requirement, Words("both"), "write all columns alike")
    numbers = [_whole(match[1]) for match in matches if match]
    if max(map(abs, numbers), default=0) >= 2**63:
        remedy = "write all columns of labels as text"
        raise invalid("labels", "be integers of 64 bits", Words("larger ones"), remedy)
    return Labels(np.array(numbers, dtype=np.int64))


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
