"""Sources (names, files, folders, arrays, data sets) -> splits of tensors in memory."""

from __future__ import annotations

import os
import re
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from keeprate.data import tables
from keeprate.data.images import read_images, unequal_shapes
from keeprate.data.labels import Labels, as_array, check_labels, first_bad, number_classes
from keeprate.data.samples import Loaded, Split
from keeprate.errors import InputError, damaged, invalid, needs

Array = NDArray[Any]
Value = TypeVar("Value")
_IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}


@dataclass(frozen=True)
class _Raw:
    inputs: Any
    labels: Labels
    true_labels: Labels | None = None
    columns: tuple[str, ...] = ()
    names: tuple[str, ...] = ()


def load(
    source: Any,
    *,
    inputs: str | Sequence[str] | None = None,
    label: str | None = None,
    true_label: str | None = None,
) -> Loaded:
    """Load a data set from whatever describes it.

    Parameters
    ----------
    source : str, path, tuple, dict or Dataset
        - `"digits"`: 1,797 images of 8 x 8, in scikit-learn;
        - a .parquet, .csv or .npz file (keys x, y or inputs, labels; or x_train, y_train, x_test,
          y_test);
        - a folder of Parquet or CSV files called `<split>-*` (itself or its subfolder `data`), the
          layout of the Hugging Face Hub; files without a split in their name are parts of one;
        - a folder of images in one subfolder per class, or of such folders called train and test;
        - `"owner/name"`, a data set on the Hugging Face Hub;
        - `(inputs, labels)` or `(inputs, labels, true_labels)`, arrays or tensors;
        - a map-style `torch.utils.data.Dataset` of (input, label), or a Hugging Face `Dataset`;
        - a dict of splits (train, validation, test) of any of the last three.
        Splits with other names are left out.
    inputs, label, true_label : str, optional
        Columns of a table, or keys of an .npz file. Left out, they are guessed, and what cannot
        be guessed is an error. `inputs` may be several columns. A held-out split without the label
        column takes its labels from the true-label column.

    Returns
    -------
    Loaded
        Inputs stay uint8 or become float32; images [N, H, W] and [N, H, W, C] with C of 1, 3 or 4
        become [N, C, H, W] (unless the second axis already fits). Strings become classes in sorted
        order, and so do integers: 1..10, or -1 and 1, become 0..C-1, and the names keep the
        original. Arrays are not copied where they fit as they are.

    Raises
    ------
    InputError
        If the source does not exist, is damaged or empty, has missing or fractional labels, only
        one class, NaN or infinite inputs, or inputs of unequal shape.

    Examples
    --------
    >>> digits = load("digits")
    >>> digits.splits["train"].inputs.shape, len(digits.class_names)
    (torch.Size([1797, 1, 8, 8]), 10)
    >>> two = load(([[0.0], [1.0]], ["no", "yes"]))
    >>> two.class_names, two.splits["train"].labels
    (('no', 'yes'), tensor([0, 1]))
    """
    said = {"inputs": inputs, "label": label, "true_label": true_label}
    if isinstance(source, (str, os.PathLike)):
        name, raw = _from_name(os.fspath(source), said)
    else:
        name, raw = _from_python(source, said)
    if not raw:
        raise invalid("source", "hold a split", "none", "give inputs and labels")
    return _finish(name, raw)


# Names, files and folders ----------------------------------------------------------------------


def _from_name(source: str, said: dict[str, Any]) -> tuple[str, dict[str, _Raw]]:
    path = Path(source)
    if path.is_dir():
        return path.resolve().name, _from_folder(path, said)
    if path.is_file():
        readers: dict[str, Callable[[], dict[str, _Raw]]] = {
            ".parquet": lambda: _from_tables(
                {"train": tables.read_tables([path], str(path))}, said
            ),
            ".csv": lambda: _from_tables({"train": tables.read_tables([path], str(path))}, said),
            ".npz": lambda: _from_npz(path, said),
        }
        suffix = path.suffix.lower()
        if suffix not in readers:
            raise invalid(
                "source", f"be a folder or end in {', '.join(readers)}", source, "save it as one"
            )
        return path.stem, readers[suffix]()
    if source == "digits":
        _refuse_columns(said, "digits")
        data = needs("sklearn.datasets").load_digits()
        labels = Labels(data.target, tuple(str(name) for name in data.target_names))
        return source, {"train": _Raw(data.images, labels)}
    # A path in a folder that exists is a mistyped path, not a question for the Hub.
    if re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", source) and not path.parent.exists():
        return source, _from_hub(source, said)
    raise invalid(
        "source",
        "be a path or a known name",
        source,
        "this is neither a path nor a known name (digits, or owner/name on the Hugging Face Hub)",
    )


def _from_hub(source: str, said: dict[str, Any]) -> dict[str, _Raw]:
    datasets = needs("datasets")
    try:
        loaded = datasets.load_dataset(source)
    except Exception as error:  # the network, the Hub, a script: whatever it is, say which
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise InputError(
            f"source {source!r} is neither a path nor a known name, and it could not be loaded "
            f"from the Hugging Face Hub ({reason}); check the name and the network, or download "
            "it and give its folder."
        ) from error
    return _from_tables({name: _hugging_face(part, name) for name, part in loaded.items()}, said)


def _hugging_face(dataset: Any, name: str) -> tables.Table:
    arrow = dataset.with_format("arrow")[:]
    return tables.Table(arrow, dataset.features.to_dict(), f"{name} split")


def _from_tables(splits: Mapping[str, tables.Table], said: dict[str, Any]) -> dict[str, _Raw]:
    named = _name_splits(splits)
    columns = tables.choose_columns(named["train"], **said)
    raw = {}
    for split, table in named.items():
        present = table.arrow.column_names
        label, true_label = columns.label, columns.true_label
        if true_label not in present:
            true_label = None
        if label not in present and true_label is not None and split != "train":
            label = true_label
        if label not in present:
            raise invalid(
                "label",
                f"be a column of the {table.where}",
                label,
                f"it has {', '.join(present)}; if one of these is right, name it (true_label=..., "
                "--true-label)",
            )
        if not table.arrow.num_rows:
            raise invalid(table.where, "hold samples", "none", "check that it was written")
        raw[split] = _Raw(
            tables.input_array(table, columns.inputs),
            _column_labels(table, label),
            None if true_label is None else _column_labels(table, true_label),
            columns.inputs,
            tables.names_of_rows(table, columns),
        )
    return raw


def _column_labels(table: tables.Table, column: str) -> Labels:
    values = check_labels(tables.label_array(table, column), f"column {column}, {table.where}")
    return Labels(values, table.names_of(column))


def _name_splits(splits: Mapping[str, Value]) -> dict[str, Value]:
    """Call the splits train, validation and test; a single one is train, whatever its name."""
    if len(splits) == 1:
        return {"train": next(iter(splits.values()))}
    named: dict[str, Value] = {}
    for name, value in splits.items():
        known = _SPLITS.get(str(name).lower())
        if known in named:
            raise invalid("splits", f"hold one {known} split", ", ".join(splits), "leave one out")
        if known is not None:
            named[known] = value
    if "train" not in named:
        received = f"only {', '.join(map(str, splits))}" if splits else "none at all"
        raise invalid("splits", "hold one called train", received, "rename one")
    return named


def _from_folder(folder: Path, said: dict[str, Any]) -> dict[str, _Raw]:
    for below in (folder, folder / "data"):
        for suffix in (".parquet", ".csv"):
            files = sorted(file for file in below.glob(f"*{suffix}") if file.is_file())
            groups: dict[str, list[Path]] = {}
            for file in files:
                groups.setdefault(re.split(r"[-_.]", file.stem)[0], []).append(file)
            if not any(name.lower() in _SPLITS for name in groups):
                groups = {"train": files} if files else {}
            if groups:
                read = {
                    name: tables.read_tables(group, f"{name} split of {folder.name}")
                    for name, group in groups.items()
                    if len(groups) == 1 or name.lower() in _SPLITS
                }
                return _from_tables(read, said)
    _refuse_columns(said, f"a folder of images, {folder}")
    return _from_image_folder(folder)


def _from_image_folder(folder: Path) -> dict[str, _Raw]:
    below = _subfolders(folder)
    splits = {"train": folder}
    # One class may be called "train": these are splits only if no subfolder is anything else.
    if below and all(part.name.lower() in _SPLITS for part in below):
        splits = _name_splits({part.name: part for part in below})
    raw = {}
    for split, part in splits.items():
        classes = _subfolders(part)
        files = [sorted(f for f in c.rglob("*") if _is_image(f)) for c in classes]
        n_files = [len(group) for group in files]
        if not sum(n_files):
            raise invalid(
                "source",
                "hold <split>-*.parquet or .csv files, or one subfolder of images a class",
                f"a folder without: {part}",
                "check the path",
            )
        values = np.repeat(np.array([c.name for c in classes]), n_files)
        paths = [file for group in files for file in group]
        names = tuple(_file_name(path.relative_to(folder)) for path in paths)
        images = read_images(paths, str(part))
        raw[split] = _Raw(images, Labels(values), names=names)
    return raw


def _file_name(path: Path) -> str:
    """A path as text that can be written to any file, whatever bytes are in it."""
    text = os.fsencode(path.as_posix()).decode("utf-8", "replace")
    return text.replace("\r", "\N{REPLACEMENT CHARACTER}")


def _subfolders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith((".", "__")))


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in _IMAGES and not file.name.startswith(".")


def _from_npz(path: Path, said: dict[str, Any]) -> dict[str, _Raw]:
    try:
        # NumPy leaves a file open that it opened itself and found to be damaged.
        with open(path, "rb") as content, np.load(content, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise damaged(path, error) from error

    def find(said_key: str | None, known: tuple[str, ...], split: str) -> Array | None:
        for key in (said_key,) if said_key else known:
            for name, array in arrays.items():
                if name.lower() == f"{key}{split}".lower():
                    return np.asarray(array)
        return None

    raw = {}
    for ending in ("", "_train", "_validation", "_valid", "_val", "_test"):
        x = find(said["inputs"], ("x", "inputs"), ending)
        y = find(said["label"], ("y", "labels", "label"), ending)
        true = find(said["true_label"], ("true_labels", "true_label"), ending)
        y = true if y is None and ending not in ("", "_train") else y
        if x is not None and y is not None:
            name = ending[1:] or "train"
            raw[name] = _raw(x, y, true, f"{name} split of {path.name}")
    if not raw or (said["true_label"] and all(r.true_labels is None for r in raw.values())):
        raise invalid(
            "source",
            "hold x and y, or x_train, y_train, x_test, y_test",
            f"keys {', '.join(arrays)} in {path}",
            "rename the arrays, or say inputs= and label=",
        )
    return _name_splits(raw)


# Python objects --------------------------------------------------------------------------------


def _from_python(source: Any, said: dict[str, Any]) -> tuple[str, dict[str, _Raw]]:
    parts = source if isinstance(source, Mapping) else {"train": source}
    if parts and all(hasattr(part, "with_format") for part in parts.values()):
        read = {str(name): _hugging_face(part, str(name)) for name, part in parts.items()}
        return "dataset", _from_tables(read, said)
    _refuse_columns(said, "arrays")
    named = _name_splits({str(name): part for name, part in parts.items()})
    return "arrays", {name: _from_part(part, f"{name} split") for name, part in named.items()}


def _from_part(part: Any, where: str) -> _Raw:
    if isinstance(part, torch.utils.data.TensorDataset):
        part = part.tensors
    if isinstance(part, tuple) and len(part) in (2, 3):
        return _raw(part[0], part[1], part[2] if len(part) == 3 else None, where)
    if not (hasattr(part, "__getitem__") and hasattr(part, "__len__")) or isinstance(
        part, (np.ndarray, Tensor)
    ):
        raise invalid(
            where,
            "be (inputs, labels) or a map-style Dataset",
            type(part).__name__,
            "give it a length and items, or collect it into two arrays",
        )
    items = [part[i] for i in range(len(part))]
    if any(not isinstance(item, (tuple, list)) or len(item) != 2 for item in items):
        raise invalid(where, "have items (input, label)", "others", "return pairs from the Dataset")
    return _raw([item[0] for item in items], [item[1] for item in items], None, where)


def _raw(inputs: Any, labels: Any, true_labels: Any, where: str) -> _Raw:
    return _Raw(
        _stack(inputs, where),
        Labels(check_labels(labels, where)),
        None if true_labels is None else Labels(check_labels(true_labels, f"{where}, true")),
    )


def _stack(inputs: Any, where: str) -> Array:
    """Return inputs as one array; lists and object arrays need rows of one shape."""
    array = None if isinstance(inputs, (list, tuple)) else as_array(inputs)
    if array is not None and array.dtype != object:
        return array
    rows = [as_array(item) for item in inputs]
    for i, row in enumerate(rows):
        if row.shape != rows[0].shape:
            raise unequal_shapes(where, rows[0].shape, row.shape, i)
    return np.stack(rows) if rows else np.empty((0, 1), np.float32)


def _refuse_columns(said: dict[str, Any], what: str) -> None:
    given = [name for name, value in said.items() if value is not None]
    if given:
        raise invalid(
            ", ".join(given), "name columns of a table", f"a source without: {what}", "leave it out"
        )


# Tensors --------------------------------------------------------------------------


def _finish(name: str, raw: dict[str, _Raw]) -> Loaded:
    tensors = {
        split: input_tensor(part.inputs, where=f"{split} split") for split, part in raw.items()
    }
    columns = []
    for split, part in raw.items():
        for labels in (part.labels, part.true_labels):
            if labels is not None and len(labels.values) != len(tensors[split]):
                received = f"{len(tensors[split])} inputs and {len(labels.values)} labels"
                raise invalid(f"{split} split", "have one label per input", received, "align them")
            if labels is not None:
                columns.append(labels)
    class_names, numbered = number_classes(columns)
    remaining = iter(numbered)
    splits = {}
    for split, part in raw.items():
        y = torch.from_numpy(next(remaining))
        true = None if part.true_labels is None else torch.from_numpy(next(remaining))
        splits[split] = Split(tensors[split], y, true, names=part.names, origin=split)
        if tensors[split].shape[1:] != tensors["train"].shape[1:]:
            shapes = f"{tuple(tensors['train'].shape[1:])} and {tuple(tensors[split].shape[1:])}"
            raise invalid(f"train and {split} inputs", "be of one shape", shapes, "resize them")
    if len(splits["train"].labels.unique()) < 2:
        only = class_names[int(splits["train"].labels[0])]
        raise invalid("labels", "hold two classes or more", f"only {only!r}", "check the column")
    return Loaded(splits, class_names, name, raw["train"].columns)


def input_tensor(inputs: Any, *, where: str = "inputs") -> Tensor:
    """Return inputs as training takes them: uint8 or finite float32, channels first.

    Parameters
    ----------
    inputs : array or Tensor [N, ...]
        Numbers.
    where : str
        What messages call them.

    Raises
    ------
    InputError
        If they are not numbers, not finite, empty or of unequal shape.

    Examples
    --------
    >>> input_tensor(np.zeros((2, 5, 5, 3), np.uint8)).shape
    torch.Size([2, 3, 5, 5])
    """
    array, name = _stack(inputs, where), f"inputs ({where})"
    if array.dtype.kind not in "biuf":
        raise invalid(name, "be numbers", str(array.dtype), "convert or leave out what is not")
    if not array.ndim or not array.size:
        raise invalid(name, "hold samples", f"shape {array.shape}", "the data set is empty")
    if array.dtype != np.uint8:
        with np.errstate(over="ignore"):  # refused just below, with its row
            array = array.astype(np.float32, copy=False)
        bad = np.logical_not(np.isfinite(array).reshape(len(array), -1).all(axis=1))
        if bad.any():
            received = first_bad(bad, "missing, NaN or infinite values")
            raise invalid(name, "be finite in float32", received, "drop these rows or impute")
    if array.ndim in (1, 3):
        array = array[:, None]
    elif array.ndim == 4 and array.shape[3] in (1, 3, 4) and array.shape[1] not in (1, 3, 4):
        array = array.transpose(0, 3, 1, 2)
    # Arrow and memory maps give read-only arrays, which PyTorch would warn about.
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))
