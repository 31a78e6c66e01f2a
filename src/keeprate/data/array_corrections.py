"""Copies of .npz files in which some labels are others, and some rows are left out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keeprate.data.arrays import (
    NPZ_INPUTS,
    NPZ_LABELS,
    NPZ_SPLITS,
    NPZ_TRUE_LABELS,
    find_key,
)
from keeprate.data.judged import Corrections, JudgedSource, refuse_beyond
from keeprate.data.labels import Array
from keeprate.data.raw import name_splits
from keeprate.errors import Words, invalid
from keeprate.files import write_atomically
from keeprate.reading import SPLIT_NAMES, NpzArrays, misfit, whole_number
from keeprate.text import cut, listed


def write_npz(
    path: Path, out: Path, corrections: Corrections, label: str | None, judged: JudgedSource
) -> None:
    """Replace the array of labels; where rows are dropped, every array that has these rows.

    The other members of the archive are copied as bytes.

    Raises
    ------
    InputError
        If there are no such labels, a row is not there, or a class does not fit.
    """
    arrays = NpzArrays(path)
    key = _label_key(arrays, label, path)
    labels = arrays[key]
    if labels.ndim == 0 or labels.size != len(labels):
        received = Words(f"shape {labels.shape}")
        raise invalid(f"labels in {path}", "be [N]", received, "use argmax(1) on one-hot rows")
    refuse_beyond(corrections, len(labels), path)
    judged.check(labels.reshape(-1), path)
    where = f"array {cut(key, 60)} of {labels.dtype} in {path}"
    classes = {row: name for row, name in corrections.items() if name is not None}
    new = {key: _corrected_array(labels, classes, where)}
    dropped = [row for row in corrections if row not in classes]
    if dropped:
        for name in _beside(arrays, key, len(labels)):
            new[name] = arrays[name]
        new = {name: np.delete(array, dropped, axis=0) for name, array in new.items()}
    write_atomically(out, arrays.with_arrays(new))


def _beside(arrays: NpzArrays, key: str, n_rows: int) -> list[str]:
    """Return the keys of the other arrays [N, ...] of the same split, or of no split at all."""
    own = _split_word(key)
    others = [name for name in arrays if name != key and _split_word(name) in ("", own)]
    return [name for name in others if arrays[name].shape[:1] == (n_rows,)]


def _split_word(key: str) -> str:
    """The split that begins or ends a key; "" if none does."""
    words = re.split(r"[-_. ]", key.lower())
    return next((SPLIT_NAMES[word] for word in (words[0], words[-1]) if word in SPLIT_NAMES), "")


def _label_key(arrays: NpzArrays, label: str | None, path: Path) -> str:
    """Return the key of the training labels, as `read_npz` finds them."""
    keys = (label,) if label else NPZ_LABELS
    found: dict[str, str] = {}
    for needs_inputs in (True, False):  # the inputs may be called otherwise
        for split in NPZ_SPLITS:
            labels = find_key(arrays, keys, split)
            if labels is None and split not in ("", "train"):
                labels = find_key(arrays, NPZ_TRUE_LABELS, split)
            has_inputs = find_key(arrays, NPZ_INPUTS, split) is not None
            if labels is not None and has_inputs >= needs_inputs:
                found[split or "train"] = labels
        if found:
            break
    if not found:
        received = Words(f"keys {listed(list(arrays))} in {path}")
        raise invalid("label", f"be a key such as {listed(keys)}", received, "name it (label=...)")
    return name_splits(found)["train"]


def _corrected_array(labels: Array, corrections: Mapping[int, str], where: str) -> Array:
    """Return a copy of labels with other values in some rows. Texts may become longer."""
    values = np.array([_value(name, labels.dtype, where) for name in corrections.values()])
    kind = labels.dtype
    if kind.kind in "US" and len(values):
        kind = np.promote_types(kind, values.dtype)
    new = labels.astype(kind)
    new.reshape(-1)[list(corrections)] = values
    return new


def _value(name: str, kind: np.dtype[Any], where: str) -> Any:
    """Return the value of NumPy's type that stands for a class."""
    if kind.kind == "U":
        return name
    if kind.kind == "S":
        return name.encode()
    if kind.kind == "b":
        value: Any = {"true": True, "false": False}.get(name.lower())
    else:
        value = whole_number(name) if kind.kind in "iuf" else None
    if value is not None and kind.kind in "iu":
        limits = np.iinfo(kind)
        value = value if limits.min <= value <= limits.max else None
    elif value is not None and kind.kind == "f":
        value = value if abs(value) < 2**63 and kind.type(value) == value else None
    if value is None:
        raise misfit(name, where)
    return kind.type(value)
