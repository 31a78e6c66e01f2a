"""Any source (a name, a file, a folder, arrays, a data set) -> splits of tensors in memory."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from keeprate.data.arrays import input_tensor, read_npz, read_objects
from keeprate.data.columns import splits_of_tables
from keeprate.data.folders import read_folder
from keeprate.data.hub import is_hub_name
from keeprate.data.labels import Labels, number_classes
from keeprate.data.reading import RawSplit, RequestedColumns
from keeprate.data.samples import Loaded, Split
from keeprate.data.tables import hugging_face_table, read_tables
from keeprate.errors import InputError, Words, first_line, invalid, needs


def load(
    source: Any,
    *,
    inputs: str | Sequence[str] | None = None,
    label: str | None = None,
    true_label: str | None = None,
) -> Loaded:
    """Load a data set from any description of it.

    Parameters
    ----------
    source : str, path, tuple, dict or Dataset
        - `"digits"`: 1,797 images of 8 x 8 from scikit-learn;
        - a .parquet, .csv or .npz file (keys x, y or inputs, labels; or x_train, y_train, x_test,
          y_test);
        - a folder of Parquet or CSV files called `<split>-*`, in the folder itself or in its
          subfolder `data`, which is the layout of the Hugging Face Hub; files without a split in
          their names are parts of one split;
        - a folder with one subfolder of images for each class, or with such folders called train
          and test;
        - `"owner/name"`, a data set on the Hugging Face Hub;
        - `(inputs, labels)` or `(inputs, labels, true_labels)`, arrays or tensors;
        - a map-style `torch.utils.data.Dataset` of (input, label), or a Hugging Face `Dataset`;
        - a dict of splits (train, validation, test), each of the last two kinds.
        Splits with other names are left out.
    inputs, label, true_label : str, optional
        Columns of a table, or keys of an .npz file. `inputs` may be a list of columns. Columns
        that are left out are guessed, and an ambiguous guess is an error. A held-out split
        without the label column takes its labels from the true-label column.

    Returns
    -------
    Loaded
        Inputs are uint8 or float32; images [N, H, W] and [N, H, W, C] with C of 1, 3 or 4 become
        [N, C, H, W], unless the second axis is 1, 3 or 4 already. Sorted strings and sorted
        integers become the classes 0..C-1, and the class names keep the original labels. Arrays
        are copied only if they have to change.

    Raises
    ------
    InputError
        If the source does not exist, is damaged or empty, has missing or fractional labels or
        only one class, or has inputs that are NaN, infinite or of unequal shape.

    Examples
    --------
    >>> digits = load("digits")
    >>> digits.splits["train"].inputs.shape, len(digits.class_names)
    (torch.Size([1797, 1, 8, 8]), 10)
    >>> two = load(([[0.0], [1.0]], ["no", "yes"]))
    >>> two.class_names, two.splits["train"].labels
    (('no', 'yes'), tensor([0, 1]))
    """
    requested = RequestedColumns.of(inputs, label, true_label)
    if isinstance(source, (str, os.PathLike)):
        name, raw = _read_name(os.fspath(source), requested)
    else:
        name, raw = _read_python(source, requested)
    return _to_tensors(name, raw)


# From sources to raw splits --------------------------------------------------------------------


def _read_name(source: str, requested: RequestedColumns) -> tuple[str, dict[str, RawSplit]]:
    path = Path(source)
    if path.is_dir():
        return path.resolve().name, read_folder(path, requested)
    if path.is_file():
        return path.stem, _read_file(path, requested)
    if source == "digits":
        requested.refuse_for("digits")
        digits = needs("sklearn.datasets").load_digits()
        labels = Labels(digits.target, tuple(str(name) for name in digits.target_names))
        return source, {"train": RawSplit(digits.images, labels)}
    if is_hub_name(source):
        return source, _read_hub(source, requested)
    remedy = (
        "this is neither a path nor a known name (digits, or owner/name on the Hugging Face Hub)"
    )
    raise invalid("source", "be a path or a known name", source, remedy)


def _read_file(path: Path, requested: RequestedColumns) -> dict[str, RawSplit]:
    suffix = path.suffix.lower()
    if suffix in (".parquet", ".csv"):
        return splits_of_tables({"train": read_tables([path], str(path))}, requested)
    if suffix == ".npz":
        return read_npz(path, requested)
    requirement = "be a folder or end in .parquet, .csv, .npz"
    raise invalid("source", requirement, str(path), "save it as one")


def _read_hub(source: str, requested: RequestedColumns) -> dict[str, RawSplit]:
    datasets = needs("datasets")
    try:
        by_split = datasets.load_dataset(source)
    except Exception as error:  # the network, the Hub or a script: the message tells which
        raise InputError(
            f"source {source!r} is neither a path nor a known name, and it could not be loaded "
            f"from the Hugging Face Hub ({first_line(error)}); check the name and the network, or "
            "download it and give its folder."
        ) from error
    tables = {name: hugging_face_table(dataset, name) for name, dataset in by_split.items()}
    return splits_of_tables(tables, requested)


def _read_python(source: Any, requested: RequestedColumns) -> tuple[str, dict[str, RawSplit]]:
    splits = source if isinstance(source, Mapping) else {"train": source}
    splits = {str(name): split for name, split in splits.items()}
    if splits and all(hasattr(split, "with_format") for split in splits.values()):
        tables = {name: hugging_face_table(split, name) for name, split in splits.items()}
        return "dataset", splits_of_tables(tables, requested)
    requested.refuse_for("arrays")
    return "arrays", read_objects(splits)


# From raw splits to tensors --------------------------------------------------------------------


def _to_tensors(name: str, raw: dict[str, RawSplit]) -> Loaded:
    inputs = {
        split: input_tensor(content.inputs, where=f"{split} split")
        for split, content in raw.items()
    }
    for split, content in raw.items():
        _check_sizes(f"{split} split", len(inputs[split]), content)
        if inputs[split].shape[1:] != inputs["train"].shape[1:]:
            shapes = f"{tuple(inputs['train'].shape[1:])} and {tuple(inputs[split].shape[1:])}"
            received = Words(shapes)
            raise invalid(f"train and {split} inputs", "be of one shape", received, "resize them")
    class_names, numbered = number_classes(list(_label_columns(raw)))
    remaining = iter(numbered)
    splits = {}
    for split, content in raw.items():
        labels = torch.from_numpy(next(remaining))
        true = None if content.true_labels is None else torch.from_numpy(next(remaining))
        splits[split] = Split(inputs[split], labels, true, names=content.names)
    present = splits["train"].labels.unique()
    if len(present) < 2:
        received = Words(f"only {class_names[int(present[0])]!r}")
        raise invalid("labels", "hold two classes or more", received, "check the column")
    return Loaded(splits, class_names, name, raw["train"].columns)


def _check_sizes(where: str, n_inputs: int, content: RawSplit) -> None:
    for labels in (content.labels, content.true_labels):
        if labels is not None and len(labels.values) != n_inputs:
            received = Words(f"{n_inputs} inputs and {len(labels.values)} labels")
            raise invalid(where, "have one label per input", received, "align them")


def _label_columns(raw: dict[str, RawSplit]) -> Iterator[Labels]:
    """Yield the labels of each split, then its true labels if it has them."""
    for content in raw.values():
        yield content.labels
        if content.true_labels is not None:
            yield content.true_labels
