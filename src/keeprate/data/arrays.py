"""Arrays, .npz files and Python data sets -> raw splits, and inputs as tensors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from keeprate.data.features import InputColumn, centre_of
from keeprate.data.labels import Array, Labels, as_array, check_labels, first_bad
from keeprate.data.raw import RawSplit, RequestedColumns, name_splits
from keeprate.errors import Words, invalid
from keeprate.reading import NpzArrays, unequal_shapes
from keeprate.text import listed


def input_tensor(inputs: Any, *, where: str = "inputs", keeps_integers: bool = False) -> Tensor:
    """Return inputs as training takes them: uint8 or finite float32, channels first.

    Parameters
    ----------
    inputs : array or Tensor [N, ...]
        Numbers. Images [N, H, W] and [N, H, W, C] with C of 1, 3 or 4 become [N, C, H, W], unless
        the second axis is 1, 3 or 4 already.
    where : str
        The name of the inputs in messages.
    keeps_integers : bool
        Integers become int64 and stay numbers for the network to look up.

    Raises
    ------
    InputError
        If the inputs are not numbers, not finite, empty, or of unequal shape.

    Examples
    --------
    >>> input_tensor(np.zeros((2, 5, 5, 3), np.uint8)).shape
    torch.Size([2, 3, 5, 5])
    """
    array, name = _stack(inputs, where), f"inputs ({where})"
    if array.dtype.kind not in "biuf":
        raise invalid(name, "be numbers", Words(array.dtype), "convert them or leave them out")
    if not array.ndim or not array.size:
        received = Words(f"shape {array.shape}")
        raise invalid(name, "hold samples", received, "the data set is empty")
    if keeps_integers and array.dtype.kind in "iu":
        array = array.astype(np.int64, copy=False)
    elif array.dtype != np.uint8:
        with np.errstate(over="ignore"):  # too large numbers are refused below, with their row
            array = array.astype(np.float32, copy=False)
        bad = np.logical_not(np.isfinite(array).reshape(len(array), -1).all(axis=1))
        if bad.any():
            received = first_bad(bad, "missing, NaN or infinite values")
            raise invalid(name, "be finite in float32", received, "drop these rows or impute")
    if array.ndim == 1 or (array.ndim == 3 and array.dtype != np.int64):
        array = array[:, None]
    elif array.ndim == 4 and array.shape[3] in (1, 3, 4) and array.shape[1] not in (1, 3, 4):
        array = array.transpose(0, 3, 1, 2)
    # Arrow and memory maps give read-only arrays, and PyTorch would warn about them.
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))


def _stack(inputs: Any, where: str) -> Array:
    """Return inputs as one array. Lists and object arrays need rows of one shape."""
    array = None if isinstance(inputs, (list, tuple)) else as_array(inputs)
    if array is not None and array.dtype != object:
        return array
    rows = [as_array(item) for item in inputs]
    for i, row in enumerate(rows):
        if row.shape != rows[0].shape:
            raise unequal_shapes(where, rows[0].shape, row.shape, i)
    return np.stack(rows) if rows else np.empty((0, 1), np.float32)


def lost_centres(inputs: Any) -> tuple[InputColumn, ...]:
    """Tell the columns [N, D] whose numbers float32 cannot hold apart.

    Returns
    -------
    tuple of D InputColumn
        With what is to be subtracted. Empty if there is no such column.
    """
    array = None if isinstance(inputs, (list, tuple)) else as_array(inputs)
    if (
        array is None
        or array.ndim != 2
        or array.dtype.str[1:] not in ("f8", "i8", "u8", "i4", "u4")
    ):
        return ()
    centres = [centre_of(column.astype(np.float64)) for column in array.T]
    if not any(centres):
        return ()
    return tuple(InputColumn(str(i), "number", centre) for i, centre in enumerate(centres))


def centred(inputs: Any, columns: Sequence[InputColumn]) -> Any:
    """Subtract the centres of columns in float64, where there are columns."""
    if not columns:
        return inputs
    array = as_array(inputs)
    if array.ndim != 2 or array.shape[1] != len(columns):
        return inputs  # refused later, for its shape
    return array - np.array([column.centre for column in columns])


def _raw_split(inputs: Any, labels: Any, true_labels: Any, where: str) -> RawSplit:
    return RawSplit(
        _stack(inputs, where),
        Labels(check_labels(labels, where)),
        None if true_labels is None else Labels(check_labels(true_labels, f"{where}, true")),
    )


def read_objects(splits: dict[str, Any]) -> dict[str, RawSplit]:
    """Read splits that are tuples of arrays or map-style data sets.

    Raises
    ------
    InputError
        If a split is something else, or its labels do not fit.
    """
    return {name: _read_object(x, f"{name} split") for name, x in name_splits(splits).items()}


def _read_object(source: Any, where: str) -> RawSplit:
    if isinstance(source, torch.utils.data.TensorDataset):
        source = source.tensors
    if isinstance(source, tuple) and len(source) in (2, 3):
        inputs, labels, true_labels = (*source, None)[:3]
        return _raw_split(inputs, labels, true_labels, where)
    has_items = hasattr(source, "__getitem__") and hasattr(source, "__len__")
    if not has_items or isinstance(source, (np.ndarray, Tensor)):
        requirement = "be (inputs, labels) or a map-style Dataset"
        remedy = "give it a length and items, or collect it into two arrays"
        raise invalid(where, requirement, Words(type(source).__name__), remedy)
    items = [source[i] for i in range(len(source))]
    for i, item in enumerate(items):
        if not isinstance(item, (tuple, list)) or len(item) != 2:
            received = Words(f"{type(item).__name__} as item {i}")
            remedy = "return pairs from the Dataset"
            raise invalid(where, "have items (input, label)", received, remedy)
    return _raw_split([item[0] for item in items], [item[1] for item in items], None, where)


NPZ_INPUTS = ("x", "inputs", "images", "features", "embeddings", "data")
NPZ_LABELS = ("y", "labels", "label", "targets", "target")
NPZ_TRUE_LABELS = ("true_labels", "true_label")
NPZ_SPLITS = ("", "train", "validation", "valid", "val", "dev", "test")


def read_npz(path: Path, requested: RequestedColumns) -> dict[str, RawSplit]:
    """Read the splits of an .npz file; a split begins or ends its keys (`x_train`, `train_x`).

    Raises
    ------
    InputError
        If the file is damaged or lacks the keys.
    """
    if len(requested.inputs) > 1:
        remedy = "join the arrays into one"
        raise invalid("inputs", "be one key of an .npz file", list(requested.inputs), remedy)
    arrays = NpzArrays(path)
    label = (requested.label,) if requested.label else NPZ_LABELS
    true_label = (requested.true_label,) if requested.true_label else NPZ_TRUE_LABELS
    splits = {}
    for split in NPZ_SPLITS:
        wanted = (requested.inputs or NPZ_INPUTS, label, true_label)
        x, y, true = (find_key(arrays, keys, split) for keys in wanted)
        if y is None and split not in ("", "train"):
            y = true
        if x is not None and y is not None:
            where = f"{split or 'train'} split of {path.name}"
            right = None if true is None else arrays[true]
            splits[split or "train"] = _raw_split(arrays[x], arrays[y], right, where)
    no_true_labels = all(split.true_labels is None for split in splits.values())
    if not splits or (requested.true_label and no_true_labels):
        requirement = "hold x and y, or x_train, y_train, x_test, y_test"
        received = Words(f"keys {listed(list(arrays))} in {path}")
        remedy = "rename the arrays, or name them: inputs= and label=, or --inputs and --label"
        raise invalid("source", requirement, received, remedy)
    return name_splits(splits)


def npz_inputs(path: Path, inputs: Sequence[str] | None) -> tuple[Array, str]:
    """Return the inputs of an .npz file that needs no labels, and their key.

    Of several splits the test split is taken.

    Raises
    ------
    InputError
        If the file is damaged, or no array is called like inputs.
    """
    arrays = NpzArrays(path)
    keys = tuple(inputs or NPZ_INPUTS)
    for split in ("test", "", "train"):
        found = [name for name in arrays if _is_key(name, keys, split)]
        if found:
            return arrays[found[0]], found[0]
    if len(arrays) == 1 and not inputs:
        name = next(iter(arrays))
        return arrays[name], name
    received = Words(f"keys {listed(list(arrays))} in {path}")
    raise invalid("inputs", f"be a key such as {listed(keys)}", received, "name it (--inputs)")


def find_key(names: Iterable[str], keys: Sequence[str], split: str) -> str | None:
    """Return the first array of an .npz file that has one of the keys in a split, or None."""
    names = list(names)
    for key in keys:
        for name in names:
            if _is_key(name, (key,), split):
                return name
    return None


def _is_key(name: str, keys: Sequence[str], split: str) -> bool:
    """Whether an array of an .npz file has one of the keys in a split."""
    ways = ("{key}_{split}", "{split}_{key}") if split else ("{key}",)
    return name.lower() in {
        way.format(key=key, split=split).lower() for key in keys for way in ways
    }
