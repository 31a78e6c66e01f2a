"""Any source (a name, a file, a folder, arrays, a data set) -> splits of tensors in memory."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from keeprate.data.arrays import centred, input_tensor, lost_centres, read_npz, read_objects
from keeprate.data.columns import read_splits
from keeprate.data.decoded import entry_of
from keeprate.data.features import InputColumn
from keeprate.data.folders import read_folder
from keeprate.data.labels import Array, Labels, check_labels, number_classes, with_samples
from keeprate.data.raw import IGNORE, RawData, RawSplit, RequestedColumns
from keeprate.data.rows import Inputs, as_inputs
from keeprate.data.samples import Loaded, Source, Split
from keeprate.data.tables import (
    Table,
    data_frame_table,
    frame_columns,
    hugging_face_table,
    is_data_frame,
    read_tables,
)
from keeprate.data.votes import count_votes
from keeprate.errors import InputError, Words, first_line, invalid, needs
from keeprate.mapped import Place, Progress, blocks, is_mapped, new_array
from keeprate.reading import TABLE_SUFFIXES, file_stem, is_hub_name, is_table
from keeprate.text import listed

LIKE_BLANKS = ("?", "-", "--", "na", "n/a", "null", "none", "nil", "missing")


def load_data(
    source: Any,
    *,
    inputs: str | Sequence[str] | None = None,
    label: str | None = None,
    true_label: str | None = None,
    columns: Mapping[str, str] | None = None,
    votes: str | Sequence[str] | None = None,
    image_size: int | tuple[int, int] | None = None,
    normalise: str = "auto",
    progress: Progress | None = None,
) -> Loaded:
    """Load a data set from any description of it.

    Parameters
    ----------
    source : str, path, tuple, dict or Dataset
        - `"digits"`: 1,797 images of 8 x 8 from scikit-learn;
        - a table: .parquet, .csv, .tsv, .json or .jsonl (text tables also as .gz), or an export of
          Label Studio, Prodigy, doccano or SageMaker Ground Truth;
        - an .npz file (keys x, y or inputs, labels; or x_train, y_train, x_test, y_test);
        - a folder of tables called `<split>`, `<split>-0`, ... in the folder itself or in its
          subfolder `data`, which is the layout of the Hugging Face Hub; files without a split in
          their names are parts of one split;
        - a folder with one subfolder of images for each class, or with such folders called train
          and test;
        - `"owner/name"`, a data set on the Hugging Face Hub;
        - a DataFrame of pandas or polars, with the label among its columns;
        - `(inputs, labels)` or `(inputs, labels, true_labels)`, arrays, tensors or a DataFrame of
          inputs;
        - a map-style `torch.utils.data.Dataset` of (input, label), or a Hugging Face `Dataset`;
        - a dict of splits (train, validation, test), each of the last four kinds.
        Splits with other names are left out.
    inputs, label, true_label : str, optional
        Columns of a table, or keys of an .npz file. `inputs` may be a list of columns. Columns
        that are left out are guessed, and an ambiguous guess is an error. A held-out split
        without the label column takes its labels from the true-label column.
    columns : dict of str to str, optional
        What some columns of a table hold: number, category, date, text, or ignore. The others are
        guessed.
    votes : str or sequence of str, optional
        Columns of a table with the labels of one annotator each. The label of a sample is what
        most of them say, and how far they agree counts for label quality.
    image_size : int or (height, width), optional
        Images of unequal size are resized to it. Left out: to a square of their median size, of 64
        pixels at most; images of equal size stay as they are.
    normalise : {"auto", "centred", "none"}
        "centred": networks get pixels x in 0..255 as (x / 255 - 0.5) / 0.5, as is usual for faces.
        "none": networks get the numbers as they are; integers, such as token ids, stay integers.
    progress : callable, optional
        Gets (stage, done, total, None) while a source is decoded.

    Returns
    -------
    Loaded
        Inputs are uint8 or float32; images [N, H, W] and [N, H, W, C] with C of 1, 3 or 4 become
        [N, C, H, W], unless the second axis is 1, 3 or 4 already. Sorted strings and sorted
        integers become the classes 0..C-1, and the class names keep the original labels. Arrays
        are copied only if they have to change. The inputs of a table are coded columns, which
        `prepare` encodes.

        Inputs of files or folders that would take more than a quarter of the free memory lie in
        files (`keeprate.data.Rows`), in the folder `$KEEPRATE_CACHE`, `$XDG_CACHE_HOME/keeprate`
        or `~/.cache/keeprate`. The same source is decoded once.

    Raises
    ------
    InputError
        If the source does not exist, is damaged or empty, has missing or fractional labels or
        only one class, or has inputs that are NaN, infinite or of unequal shape.

    Examples
    --------
    >>> digits = load_data("digits")
    >>> digits.splits["train"].inputs.shape, len(digits.class_names)
    (torch.Size([1797, 1, 8, 8]), 10)
    >>> two = load_data(([[0.0], [1.0]], ["no", "yes"]))
    >>> two.class_names, two.splits["train"].labels
    (('no', 'yes'), tensor([0, 1]))
    """
    if normalise not in ("auto", "centred", "none"):
        raise invalid("normalise", "be auto, centred or none", normalise, "choose one of these")
    requested = RequestedColumns.of(inputs, label, true_label, columns, votes, image_size)
    requested = replace(requested, place=Place(progress=progress))
    if not isinstance(source, (str, os.PathLike)):
        return _to_tensors(*_read_python(source, requested), normalise=normalise)
    path = Path(source)
    if not path.exists():
        return _read_named(source, requested, normalise)
    options = [requested.named, requested.image_size, normalise]
    with entry_of(path, options, progress) as entry:
        if (loaded := entry.load()) is not None:
            return replace(loaded, source=_origin(source, loaded))
        requested = replace(requested, place=entry.place)
        return entry.save(_read_named(source, requested, normalise))


def _read_named(
    source: str | os.PathLike[str], requested: RequestedColumns, normalise: str
) -> Loaded:
    """Read a source that has a name, or lies in files."""
    name, raw = _read_name(os.fspath(source), requested)
    origin = Source(os.fspath(source), raw.label, len(raw.splits["train"].labels.values))
    return replace(_to_tensors(name, raw, normalise=normalise), source=origin)


def _origin(source: str | os.PathLike[str], loaded: Loaded) -> Source | None:
    """The source as it is called now, where it was decoded before."""
    return None if loaded.source is None else replace(loaded.source, path=os.fspath(source))


# From sources to raw splits --------------------------------------------------------------------


def _read_name(source: str, requested: RequestedColumns) -> tuple[str, RawData]:
    path = Path(source)
    if path.is_dir():
        return path.resolve().name, read_folder(path, requested)
    if path.is_file():
        return file_stem(path), _read_file(path, requested)
    if source == "digits":
        requested.refuse_for("digits")
        digits = needs("sklearn.datasets").load_digits()
        labels = Labels(digits.target, tuple(str(name) for name in digits.target_names))
        return source, RawData({"train": RawSplit(digits.images, labels)})
    if is_hub_name(source):
        return source, read_splits(read_hub(source), requested)
    remedy = (
        "this is neither a path nor a known name (digits, or owner/name on the Hugging Face Hub)"
    )
    raise invalid("source", "be a path or a known name", source, remedy)


def _read_file(path: Path, requested: RequestedColumns) -> RawData:
    if is_table(path):
        # Nothing else may hold the table: `read_splits` lets go of it column by column.
        return read_splits(
            {"train": read_tables([path], str(path), as_text=requested.may_be_label)}, requested
        )
    if path.suffix.lower() == ".npz":
        return RawData(read_npz(path, requested), label=requested.label or "")
    requirement = f"be a folder or end in {', '.join(TABLE_SUFFIXES)}, .npz"
    raise invalid("source", requirement, str(path), "save it as one")


def read_hub(source: str) -> dict[str, Table]:
    """Read a data set of the Hugging Face Hub, by split.

    Raises
    ------
    InputError
        If it cannot be loaded.
    """
    datasets = needs("datasets")
    try:
        by_split = datasets.load_dataset(source)
    except Exception as error:  # the network, the Hub or a script: the message tells which
        raise InputError(
            f"source {source!r} is neither a path nor a known name, and it could not be loaded "
            f"from the Hugging Face Hub ({first_line(error)}); check the name and the network, or "
            "download it and give its folder."
        ) from error
    return {name: hugging_face_table(dataset, name) for name, dataset in by_split.items()}


def _read_python(source: Any, requested: RequestedColumns) -> tuple[str, RawData]:
    is_split = is_data_frame(source) or not isinstance(source, Mapping)
    splits = {"train": source} if is_split else {str(n): split for n, split in source.items()}
    if splits and all(map(_is_table, splits.values())):
        tables = {name: _as_table(split, name) for name, split in splits.items()}
        return "dataset", read_splits(tables, requested)
    if splits and all(isinstance(s, tuple) and s and is_data_frame(s[0]) for s in splits.values()):
        return "dataset", _read_frames_and_labels(splits, requested)
    requested.refuse_for("arrays")
    return "arrays", RawData(read_objects(splits))


def _is_table(split: Any) -> bool:
    return hasattr(split, "with_format") or is_data_frame(split)


def _as_table(split: Any, name: str) -> Table:
    where = f"{name} split"
    return (
        data_frame_table(split, where) if is_data_frame(split) else hugging_face_table(split, name)
    )


def _read_frames_and_labels(splits: Mapping[str, Any], requested: RequestedColumns) -> RawData:
    """Read splits of (DataFrame, labels) or (DataFrame, labels, true labels)."""
    ends = ("label", "true_label")
    tables = {}
    for name, (frame, *labels) in splits.items():
        where = f"{name} split"
        table = data_frame_table(frame, where)
        if not 1 <= len(labels) <= len(ends):
            received = Words(f"a tuple of {1 + len(labels)}")
            raise invalid(where, "be (inputs, labels) or with true labels", received, "give these")
        for end, column in zip(ends, labels, strict=False):
            checked = check_labels(column, where)
            _check_length(where, table.arrow.num_rows, len(checked))
            arrow = table.arrow.append_column(_own_name(end, frame), [list(checked)])
            table = replace(table, arrow=arrow)
        tables[name] = table
    frame, *labels = next(iter(splits.values()))
    given = [_own_name(end, frame) for end in ends[: len(labels)]]
    inputs = requested.inputs or tuple(frame_columns(frame))
    kept = tuple(name for name in inputs if requested.kinds.get(name) != IGNORE)
    label, true_label = (*given, None)[:2]
    return read_splits(tables, replace(requested, inputs=kept, label=label, true_label=true_label))


def _own_name(end: str, frame: Any) -> str:
    """A name that no column of the inputs has."""
    names = set(frame_columns(frame))
    return next(name for n in range(len(names) + 1) if (name := end + "_" * n) not in names)


# From raw splits to tensors --------------------------------------------------------------------


def _to_tensors(name: str, raw: RawData, *, normalise: str) -> Loaded:
    keeps_integers = normalise == "none"
    inputs, coded = _input_tensors(raw, keeps_integers=keeps_integers)
    class_names, numbered = number_classes(list(_label_columns(raw.splits)))
    notes = raw.notes
    if all(content.votes is None for content in raw.splits.values()):  # a vote may name any class
        class_names, numbered, without = with_samples(class_names, numbered)
        if without:
            n, n_all = len(without), len(without) + len(class_names)
            words = "has" if n == 1 else "have"
            notes += (
                f"{n:,} of {n_all:,} named classes {words} no sample, left out: {listed(without)}",
            )
    remaining = iter(numbered)
    splits = {}
    for split, content in raw.splits.items():
        labels = torch.from_numpy(next(remaining))
        true = None if content.true_labels is None else torch.from_numpy(next(remaining))
        rows = torch.arange(len(labels))
        if content.rows is not None:
            rows = torch.from_numpy(content.rows)
        votes = None if content.votes is None else count_votes(content.votes, class_names)
        splits[split] = Split(inputs[split], labels, true, rows, content.names, votes=votes)
    odd = [name for name in class_names if name.strip().lower() in LIKE_BLANKS]
    odd += ["-1"] if {"-1", "0"} <= set(class_names) else []
    if odd:
        notes += (f"classes that look like blanks: {listed(odd)}; empty these cells if they are",)
    present = splits["train"].labels.unique()
    if len(present) < 2:
        received = Words(f"only {class_names[int(present[0])]!r}")
        raise invalid("labels", "hold two classes or more", received, "check the column")
    if normalise == "centred" and inputs["train"].dtype != torch.uint8:
        requirement = "be auto or none, as the inputs are no pixels in 0..255"
        raise invalid("normalise", requirement, normalise, "leave it out")
    return Loaded(
        splits,
        class_names,
        name,
        raw.splits["train"].columns,
        coded,
        raw.left_out,
        notes,
        normalise,  # type: ignore[arg-type]  # `load_data` has checked it
    )


def _input_tensors(
    raw: RawData, *, keeps_integers: bool
) -> tuple[dict[str, Inputs], tuple[InputColumn, ...]]:
    """Return the inputs of each split, and what coded columns stand for."""
    splits, coded = raw.splits, raw.coded_columns
    arrays = {split: content.inputs for split, content in splits.items()}
    if not coded and not keeps_integers:
        coded = lost_centres(arrays["train"])
        arrays = {split: centred(array, coded) for split, array in arrays.items()}
    inputs = {
        split: as_inputs(_widened(array) if keeps_integers and not raw.coded_columns else array)
        if raw.coded_columns or is_mapped(array)
        else input_tensor(array, where=f"{split} split", keeps_integers=keeps_integers)
        for split, array in arrays.items()
    }
    for split, content in splits.items():
        for labels in (content.labels, content.true_labels):
            if labels is not None:
                _check_length(f"{split} split", len(inputs[split]), len(labels.values))
        if inputs[split].shape[1:] != inputs["train"].shape[1:]:
            shapes = f"{tuple(inputs['train'].shape[1:])} and {tuple(inputs[split].shape[1:])}"
            received = Words(shapes)
            raise invalid(f"train and {split} inputs", "be of one shape", received, "resize them")
    return inputs, coded


def _widened(pixels: Array) -> Array:
    """Mapped pixels as numbers that a network looks up, int64."""
    numbers = new_array(pixels.shape, np.int64)
    for some in blocks(len(pixels), numbers[0].nbytes):
        numbers[some] = pixels[some]
    return numbers


def _check_length(where: str, n_inputs: int, n_labels: int) -> None:
    if n_inputs != n_labels:
        received = Words(f"{n_inputs} inputs and {n_labels} labels")
        raise invalid(where, "have one label per input", received, "align them")


def _label_columns(raw: dict[str, RawSplit]) -> Iterator[Labels]:
    """Yield the labels of each split, then its true labels if it has them."""
    for content in raw.values():
        yield content.labels
        if content.true_labels is not None:
            yield content.true_labels
