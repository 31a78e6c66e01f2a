"""Samples for a trained network: any source, in the form of the training inputs, labels or not."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from keeprate.data.arrays import NPZ_LABELS, input_tensor, npz_inputs
from keeprate.data.features import Encoder, InputColumn, code_table
from keeprate.data.folders import tables_by_split
from keeprate.data.guards import is_key
from keeprate.data.labels import Array, as_array
from keeprate.data.raw import RequestedColumns
from keeprate.data.sources import load_data, read_hub
from keeprate.data.tables import (
    Table,
    data_frame_table,
    hugging_face_table,
    is_data_frame,
    label_array,
    names_of_rows,
    read_tables,
    whole_array,
)
from keeprate.errors import Words, invalid, needs
from keeprate.reading import (
    LABEL_NAMES,
    SPLIT_NAMES,
    TABLE_SUFFIXES,
    TRUE_LABEL_NAMES,
    NpzArrays,
    find_images,
    is_hub_name,
    is_table,
    missing_columns,
    read_images,
    split_word,
    strings,
    subfolders,
)
from keeprate.text import listed


@dataclass(frozen=True)
class InputForm:
    """How a trained network takes its inputs.

    Attributes
    ----------
    shape : tuple of int
        Of one sample.
    columns : tuple of str
        The columns of the table that the training had, if it had one.
    encoder : Encoder or None
        What turns such columns into features.
    keeps_integers : bool
        Whether integers, such as token ids, stay integers.
    pixels : {"bytes", "units", ""}
        What images are made of: 0 to 255, or 0 to 1. Empty if nothing is known.
    """

    shape: tuple[int, ...]
    columns: tuple[str, ...] = ()
    encoder: Encoder | None = None
    keeps_integers: bool = False
    pixels: Literal["bytes", "units", ""] = ""


@dataclass(frozen=True)
class Samples:
    """Samples that a network can take.

    Attributes
    ----------
    inputs : Tensor [N, *shape]
    key : str
        What `keys` are: "file", or the name of a column. Empty if there are no keys.
    keys : tuple of N str
        What the source knows each sample by.
    labels : array [N] or None
        As the source holds them; some may be missing.
    class_names : tuple of str or None
        What integer labels stand for in the source.
    notes : tuple of str
        What the user should know of the reading.
    """

    inputs: Tensor
    key: str = ""
    keys: tuple[str, ...] = ()
    labels: Array | None = None
    class_names: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()


def read_unlabelled(
    sources: Sequence[str | os.PathLike[str]],
    form: InputForm,
    *,
    inputs: Sequence[str] | None = None,
    label: str | None = None,
) -> Samples:
    """Read samples from files, a folder or a data set on the Hugging Face Hub.

    Of a source with several splits the test split is read.

    Parameters
    ----------
    sources : sequence of path or str
        Tables, images, an .npz file, a folder of one of these, or a name; several only if all are
        tables, or all are images.
    form : InputForm
    inputs : sequence of str, optional
        Columns in place of those of the training, in the same order; or the key of an .npz file.
    label : str, optional
        The column of labels.

    Raises
    ------
    InputError
        If a source is not there, cannot be read, or does not fit the form.
    """
    paths = [Path(source) for source in sources]
    if all(path.is_file() and is_table(path) for path in paths):
        where = str(paths[0]) if len(paths) == 1 else f"{len(paths)} files"
        table = read_tables(
            paths, where, as_text=RequestedColumns.of(None, label, None).may_be_label
        )
        return _of_table(table, form, inputs, label)
    if len(paths) > 1:
        if not all(path.is_file() for path in paths):
            received = Words(listed(sources))
            raise invalid("DATA", "be one folder, or several files", received, "give files")
        return _of_images(paths, form)
    return _read_one(os.fspath(sources[0]), form, inputs, label)


def _read_one(
    source: str, form: InputForm, inputs: Sequence[str] | None, label: str | None
) -> Samples:
    path = Path(source)
    if path.is_file() and path.suffix.lower() == ".npz":
        return _of_npz(path, form, inputs, label)
    if path.is_dir():
        requested = RequestedColumns.of(None, label, None)
        tables = tables_by_split(path, requested)
        return (
            _of_table(_held_out(tables), form, inputs, label)
            if tables
            else _of_images([path], form)
        )
    if path.is_file():
        if len(form.shape) != 3:
            requirement = f"be a table ({', '.join(TABLE_SUFFIXES)}) or an .npz file"
            raise invalid("DATA", requirement, source, "save it as one")
        return _of_images([path], form)
    if source != "digits" and is_hub_name(source):
        tables = read_hub(source)
        return _of_table(_held_out(tables), form, inputs, label)
    loaded = load_data(source)
    split = loaded.splits.get("test", loaded.splits["train"])
    names = np.array(loaded.class_names)
    return Samples(split.inputs[:], labels=names[split.labels.numpy()])


def _held_out(tables: Mapping[str, Table]) -> Table:
    """The test split, or the only one there is, or the first."""
    tables = {SPLIT_NAMES.get(name.lower(), name): table for name, table in tables.items()}
    name = "test" if "test" in tables else next(iter(tables))
    note = (f"of the splits {listed(list(tables))} the {name} split is predicted",)
    return replace(tables[name], notes=(*tables[name].notes, *(note if len(tables) > 1 else ())))


def to_inputs(samples: Any, form: InputForm) -> Tensor:
    """Return samples from Python as a network takes them.

    Parameters
    ----------
    samples : array, Tensor, DataFrame, Hugging Face Dataset, or list of paths of images
        A DataFrame is matched by the names of its columns.

    Raises
    ------
    InputError
        If the samples do not fit the form.
    """
    if is_data_frame(samples):
        return _table_inputs(data_frame_table(samples, "DataFrame"), form)
    if hasattr(samples, "with_format"):
        if not hasattr(samples, "features"):
            received = Words(f"several: {listed(list(samples))}")
            raise invalid("samples", "be one split of a data set", received, "choose one")
        return _table_inputs(hugging_face_table(samples, "given"), form)
    if isinstance(samples, (str, os.PathLike)):
        return read_unlabelled([samples], form).inputs
    if _are_paths(samples):
        return _of_images([Path(path) for path in samples], form).inputs
    return _of_array(as_array(samples), form, "samples")


def _table_inputs(table: Table, form: InputForm) -> Tensor:
    if not table.arrow.num_rows:
        raise invalid(table.where, "hold rows", Words("none"), "check that it was written")
    inputs, by_place = _features(table, form, _label_column(table, form.columns))
    for note in (*by_place, *_unknown(table, form)):
        warnings.warn(note, UserWarning, stacklevel=4)  # where `predict` was called
    return inputs


def _are_paths(samples: Any) -> bool:
    is_list = isinstance(samples, (list, tuple)) and bool(samples)
    return is_list and all(isinstance(item, (str, os.PathLike)) for item in samples)


def _of_array(array: Array, form: InputForm, where: str) -> Tensor:
    if form.encoder is not None:
        return form.encoder.encode_array(array, where)
    return check_form(
        input_tensor(array, where=where, keeps_integers=form.keeps_integers), form, where
    )


def check_form(inputs: Tensor, form: InputForm, where: str) -> Tensor:
    """Refuse inputs of another shape, and pixels of another range, than those of the training."""
    if tuple(inputs.shape[1:]) != form.shape:
        raise invalid(
            f"inputs ({where})",
            f"have shape [N, {', '.join(map(str, form.shape))}] as in training",
            tuple(inputs.shape),
            "give data of the same kind",
        )
    are_bytes = inputs.dtype == torch.uint8
    if form.pixels == "units" and are_bytes and inputs.numel() and int(inputs.max()) > 1:
        received = Words("bytes, or images from files")
        remedy = "divide them by 255, and give floats"
        raise invalid(f"pixels ({where})", "lie in [0, 1] as in training", received, remedy)
    if form.pixels == "bytes" and not are_bytes and inputs.numel() and float(inputs.max()) <= 1:
        received = Words("numbers up to 1")
        remedy = "multiply them by 255, or give uint8"
        raise invalid(f"pixels ({where})", "lie in 0 to 255 as in training", received, remedy)
    return inputs


def _of_npz(
    path: Path, form: InputForm, inputs: Sequence[str] | None, label: str | None
) -> Samples:
    array, key = npz_inputs(path, inputs)
    arrays = NpzArrays(path)
    words = re.split(r"[-_. ]", key.lower())
    split = next((word for word in ("test", "train") if word in (words[0], words[-1])), "")
    wanted = (label,) if label else NPZ_LABELS
    names = {f"{name}_{split}" for name in wanted} | {f"{split}_{name}" for name in wanted}
    found = [n for n in arrays if n.lower() in (names if split else set(wanted)) or n == label]
    if label is not None and not found:
        raise invalid("label", f"be a key of {path}", label, f"it has {listed(list(arrays))}")
    samples = Samples(_of_array(array, form, str(path)))
    if not found:
        return samples
    labels = arrays[found[0]]
    if labels.shape not in ((len(array),), (len(array), 1)):
        received = Words(f"shape {labels.shape} of {found[0]} in {path}")
        raise invalid("labels", f"be one for each of {len(array)} samples", received, "mend them")
    return replace(samples, labels=labels.reshape(-1))


# Tables -----------------------------------------------------------------------------------------


def _of_table(
    table: Table, form: InputForm, inputs: Sequence[str] | None, label: str | None
) -> Samples:
    present: list[str] = table.arrow.column_names
    if not table.arrow.num_rows:
        raise invalid(table.where, "hold rows", Words("none"), "check that it was written")
    if label is not None and label not in present:
        requirement = f"be a column of {table.where}"
        raise invalid("label", requirement, label, f"it has {listed(present)}")
    # Before columns are renamed: the label may be called like an input of the training.
    column = label or _label_column(table, form.columns if inputs is None else inputs)
    names = None if column is None else table.names_of(column)
    labels = None if column is None else _labels(table, column, names)
    wanted = form.columns
    if inputs is not None:
        table = _renamed(table, form, inputs)
    features, by_place = _features(table, form, column)
    whole = _whole_column(table, form)
    key, keys = _keys(table, wanted or (() if whole is None else (whole,)))
    notes = table.notes + by_place + _unused(table, form, column, key) + _unknown(table, form)
    return Samples(features, key, keys, labels, names, notes)


def _labels(table: Table, column: str, names: tuple[str, ...] | None) -> Array:
    content = table.arrow.column(column)
    if names is None or not needs("pyarrow.types").is_integer(content.type):
        return label_array(table, column)
    # A number that names nothing is no label, even where a class is called so.
    numbers = content.cast("int64").fill_null(-1).to_numpy()
    is_known = (numbers >= 0) & (numbers < len(names))
    known = np.array([*names, None], dtype=object)
    return np.asarray(known[np.where(is_known, numbers, len(names))])


def _renamed(table: Table, form: InputForm, inputs: Sequence[str]) -> Table:
    """Call the columns that the user names like those of the training."""
    missing = missing_columns(table.arrow, inputs)
    if missing or len(inputs) != len(form.columns):
        requirement = f"be {len(form.columns)} columns of {table.where}"
        received = Words(listed(inputs))
        raise invalid("inputs", requirement, received, f"it has {listed(table.arrow.column_names)}")
    taken = {*inputs, *form.columns}
    others = [n for n in table.arrow.column_names if n not in taken]
    columns = [*(table.arrow.column(n) for n in inputs), *(table.arrow.column(n) for n in others)]
    return replace(table, arrow=needs("pyarrow").table(columns, names=[*form.columns, *others]))


def _features(table: Table, form: InputForm, label: str | None) -> tuple[Tensor, tuple[str, ...]]:
    """Return the inputs, and a note if columns are taken by their place."""
    if form.encoder is not None and form.columns:
        return form.encoder.encode_table(table.arrow, table.where), ()
    name = _whole_column(table, form)
    if name is not None:
        shape: dict[str, Any] = {}
        if len(form.shape) == 3 and table.is_image(name):
            shape = {"image_size": form.shape[1:], "channels": form.shape[0]}
        array, _, _ = whole_array(table, name, **shape)
        return check_form(input_tensor(array, where=table.where), form, table.where), ()
    names = list(form.columns)
    note: tuple[str, ...] = ()
    if not names:  # the training had an array
        ends = {label, *table.ignored}
        names = [n for n in table.arrow.column_names if n not in ends and not is_key(n)]
        names = [n for n in names if n.lower() not in (*LABEL_NAMES, *TRUE_LABEL_NAMES)]
        note = (f"the columns {listed(names)} are taken for those of the training by their place",)
    missing = missing_columns(table.arrow, names)
    if missing:
        received = Words(f"none called {listed(missing)}")
        raise invalid("inputs", f"be as in training ({table.where})", received, "rename the column")
    columns = [InputColumn(name, "number") for name in names]
    if form.encoder is not None and len(names) == len(form.encoder.columns):
        pairs = zip(columns, form.encoder.columns, strict=True)
        columns = [replace(column, centre=fitted.centre) for column, fitted in pairs]
    arrow = {"": table.arrow.select(names)}
    coded, _ = code_table(arrow, columns, {"": table.where}, finds_centres=False)
    return check_form(input_tensor(coded[""], where=table.where), form, table.where), note


def _whole_column(table: Table, form: InputForm) -> str | None:
    """The one column that alone makes the inputs, by its name in training if it had one."""
    names = form.columns or table.arrow.column_names
    present = set(table.arrow.column_names)
    whole = [n for n in names if n in present and table.is_whole(n)]
    return whole[0] if len(whole) == 1 and len(form.columns) < 2 else None


def _label_column(table: Table, wanted: Sequence[str]) -> str | None:
    taken = set(wanted)
    others = [n for n in table.arrow.column_names if n not in taken]
    likely = [n for n in others if n.lower() in LABEL_NAMES]
    named = [n for n in others if table.names_of(n)]
    return (table.label or (likely[0] if len(likely) == 1 else None)) or (
        named[0] if len(named) == 1 else None
    )


def _keys(table: Table, wanted: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """The column that names the rows, and its values."""
    taken = set(wanted)
    for name in table.arrow.column_names:
        if name in taken and table.is_image(name):
            keys = names_of_rows(replace(table, arrow=table.arrow.select([name])), [name], [])
            return ("file", keys) if keys else ("", ())
    compute, types = needs("pyarrow.compute"), needs("pyarrow.types")
    for name in sorted(table.arrow.column_names, key=lambda name: not name):  # with a name first
        column = table.arrow.column(name)
        kind = column.type
        is_plain = types.is_integer(kind) or types.is_string(kind) or types.is_large_string(kind)
        if name in taken or not is_plain or not is_key(name) or column.null_count:
            continue
        if compute.count_distinct(column).as_py() == len(column):
            return name or "key", tuple(strings(column).to_pylist())
    return "", ()


def _unused(table: Table, form: InputForm, label: str | None, key: str) -> tuple[str, ...]:
    if form.encoder is None or not form.columns:
        return ()
    taken = {*form.columns, label, key}
    others = [n for n in table.arrow.column_names if n not in taken]
    others = [n for n in others if not is_key(n) and n.lower() not in LABEL_NAMES]
    return (f"columns that the training did not use: {listed(others)}",) if others else ()


def _unknown(table: Table, form: InputForm) -> tuple[str, ...]:
    if form.encoder is None or not form.columns:
        return ()
    names = form.encoder.unknown_columns(table.arrow, table.where)
    return (f"columns without any value of the training: {listed(names)}",) if names else ()


# Images -----------------------------------------------------------------------------------------


def _of_images(paths: Sequence[Path], form: InputForm) -> Samples:
    """Read images: of files, of a folder, or of the folders of its classes."""
    if len(form.shape) != 3:
        received = Words(f"images: {listed(paths)}")
        requirement = "be a table or an .npz file, as the network was not trained with images"
        raise invalid("DATA", requirement, received, "give data of the same kind")
    notes: tuple[str, ...] = ()
    if len(paths) == 1:
        root = _test_folder(paths[0])
        if root != paths[0]:
            notes = (f"of the splits in {paths[0]} {root.name} is predicted",)
        found = find_images(root)
        files, names, notes = found.paths, found.names, (*notes, *found.notes)
        folders = [_class_folder(file, root) for file in files]
    else:
        files, names = tuple(paths), tuple(map(str, paths))
        folders = [path.parent.name for path in files]
    height, width = form.shape[1:]
    images = read_images(files, str(paths[0]), image_size=(height, width), channels=form.shape[0])
    labels = np.array(folders, dtype=object)
    inputs = check_form(input_tensor(images.pixels), form, str(paths[0]))
    return Samples(inputs, "file", tuple(names), labels, (), (*notes, *images.notes))


def _class_folder(file: Path, root: Path) -> str:
    """The folder that stands for the class, as in training: the first one below the split."""
    if not root.is_dir():
        return file.parent.name
    folders = file.parent.relative_to(root).parts
    inner = [name for i, name in enumerate(folders) if i or not split_word(name)]
    return inner[0] if inner else file.parent.name


def _test_folder(path: Path) -> Path:
    """The folder of the test split, if a folder holds splits."""
    if not path.is_dir():
        return path
    splits = {split_word(below.name): below for below in subfolders(path)}
    return splits["test"] if "train" in splits and "test" in splits else path
