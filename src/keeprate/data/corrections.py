"""Copies of a source in which some training samples have other labels."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import count
from numbers import Integral
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
from keeprate.data.columns import choose_columns
from keeprate.data.folders import table_files, tables_by_split
from keeprate.data.image_folders import find_splits
from keeprate.data.labels import Array
from keeprate.data.raw import RequestedColumns, name_splits
from keeprate.data.tables import Table, is_parquet, read_tables
from keeprate.errors import InputError, Words, first_line, invalid, needs
from keeprate.files import write_atomically
from keeprate.reading import (
    LABEL_NAMES,
    TABLE_SUFFIXES,
    TRUE_LABEL_NAMES,
    NpzArrays,
    files_below,
    is_hub_name,
    is_json,
    is_table,
    misfit,
    read_json,
    read_parts,
    read_readable,
    refuse_row,
    split_word,
    subfolders,
    whole_number,
    write_corrected_json,
    write_corrected_parquet,
)
from keeprate.reading import write_corrected as write_corrected_text
from keeprate.text import cut, listed

REQUIREMENT = "be a table, an .npz file or a folder that labels can be written into"
REMEDY = "take the ranked list (label_quality.csv) instead, and correct the labels at their origin"
EXACT_SUFFIXES = (".parquet", ".npz")  # a file of such a name is nothing else


def write_corrected(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    corrections: Mapping[int, str],
    *,
    label: str | None = None,
) -> None:
    r"""Copy a source with other labels for some samples of its training split.

    Everything else stays as it is: text byte for byte, the schema and the row groups of Parquet
    files, the other arrays of an .npz file, all other files of a folder. An image of a folder by
    class moves to the folder of its new class, as `name-1.png` if there is a `name.png` already.

    Parameters
    ----------
    source : path
        A table (.parquet, .csv, .tsv, .json, .jsonl, text also as .gz), an .npz file, a folder of
        tables or a folder of images by class, as for `load_data`.
    out : path
        For a file: the new file, or `source` itself. For a folder: a folder that does not exist
        or is empty. A table that lists image files finds them only beside it.
    corrections : mapping of int to str
        The class of each of these rows of the training split, counted from 0 as in `Split.rows`
        and in column `index` of label_quality.csv.
    label : str, optional
        The label column, or the key of an .npz file. Left out: guessed as in `load_data`.

    Raises
    ------
    InputError
        If labels cannot be written into the source, a row is not there, a class is empty or does
        not fit the type of the column, or `out` cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "animals.csv")
    >>> _ = path.write_text("size,label\n3,cat\n4,cat\n")
    >>> write_corrected(path, path, {1: "dog"})
    >>> path.read_text()
    'size,label\n3,cat\n4,dog\n'
    """
    checked = _checked(corrections)
    requested = RequestedColumns.of(None, label, None)
    if not isinstance(source, (str, os.PathLike)):
        received = Words(f"{type(source).__name__} in memory")
        raise invalid("source", REQUIREMENT, received, "correct the labels in memory")
    path, target = Path(source), Path(out)
    if path.is_dir():
        _write_folder(path, target, checked, requested)
    elif path.is_file():
        _write_file(path, target, checked, requested)
    elif os.fspath(source) == "digits" or is_hub_name(os.fspath(source)):
        received = Words(f"{source}, a name of data that lie elsewhere")
        raise invalid("source", REQUIREMENT, received, REMEDY)
    else:
        raise invalid("source", REQUIREMENT, str(source), "check the path")


def _checked(corrections: Mapping[int, str]) -> dict[int, str]:
    """Return the corrections in the order of their rows."""
    for row, name in corrections.items():
        if not isinstance(row, Integral) or isinstance(row, bool) or row < 0:
            requirement = "be for rows, counted from 0"
            raise invalid("corrections", requirement, row, "give whole numbers")
        if not isinstance(name, str) or not name.strip():
            requirement = f"give row {row} the name of a class"
            raise invalid("corrections", requirement, name, "write the class as text")
    return {int(row): str(corrections[row]) for row in sorted(corrections)}


def _refuse_beyond(corrections: Mapping[int, str], n_rows: int, path: Path) -> None:
    for row in corrections:
        if row >= n_rows:
            refuse_row(row, n_rows, path)


# Tables ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _LabelColumn:
    """The labels of a training table."""

    column: str
    names: tuple[str, ...] | None  # what integers stand for
    n_rows: int

    @classmethod
    def of(cls, table: Table, requested: RequestedColumns) -> _LabelColumn:
        """Find the column as `load_data` does."""
        if table.label is not None:
            received = Words(f"an export of an annotation tool, {table.file}")
            raise invalid("source", REQUIREMENT, received, REMEDY)
        present = table.arrow.column_names
        if requested.label not in present:
            likely = (*LABEL_NAMES, *TRUE_LABEL_NAMES)
            plain = [name for name in present if name.strip().lower() not in likely]
            inputs = [name for name in plain if table.names_of(name) is None][:1]
            # Any inputs will do: which ones there are is not to be a question here.
            kinds = dict.fromkeys(inputs, "text")
            asked = replace(requested, inputs=tuple(inputs), kinds=kinds)
            column = choose_columns(table, asked).label
        else:
            column = str(requested.label)
        return cls(column, table.names_of(column), table.arrow.num_rows)


def _write_file(
    path: Path, out: Path, corrections: Mapping[int, str], requested: RequestedColumns
) -> None:
    suffix = path.suffix.lower()
    if suffix != out.suffix.lower() and {suffix, out.suffix.lower()} & {*EXACT_SUFFIXES}:
        raise invalid("out", f"end in {suffix} as the source does", str(out), "rename it")
    if is_table(path):
        table = read_tables([path], str(path), as_text=requested.may_be_label)
        found = _LabelColumn.of(table, requested)
        del table  # no two versions in memory
        _refuse_beyond(corrections, found.n_rows, path)
        _write_table(path, out, found, corrections)
    elif suffix == ".npz":
        _write_npz(path, out, corrections, requested.label)
    else:
        raise invalid("source", REQUIREMENT, str(path), f"save it as {listed(TABLE_SUFFIXES)}")


def _write_table(
    path: Path, out: Path, found: _LabelColumn, corrections: Mapping[int, str]
) -> None:
    if is_parquet(path):
        write_corrected_parquet(path, out, found.column, corrections, found.names)
    elif is_json(path):
        write_corrected_json(path, out, found.column, corrections)
    else:
        write_corrected_text(path, out, found.column, corrections)


def _n_rows(path: Path) -> int:
    if is_parquet(path):
        return int(needs("pyarrow.parquet").read_metadata(path).num_rows)
    if is_json(path):
        return int(read_json(path, as_text=lambda _: True).num_rows)
    return int(read_parts([path], as_text=lambda _: True).arrow.num_rows)


# Arrays ----------------------------------------------------------------------------------------


def _write_npz(path: Path, out: Path, corrections: Mapping[int, str], label: str | None) -> None:
    """Replace one array. The other members of the archive are copied as bytes."""
    arrays = NpzArrays(path)
    key = _label_key(arrays, label, path)
    labels = arrays[key]
    if labels.ndim == 0 or labels.size != len(labels):
        received = Words(f"shape {labels.shape}")
        raise invalid(f"labels in {path}", "be [N]", received, "use argmax(1) on one-hot rows")
    _refuse_beyond(corrections, len(labels), path)
    new = _corrected_array(labels, corrections, f"array {cut(key, 60)} of {labels.dtype} in {path}")
    write_atomically(out, arrays.with_array(key, new))


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


# Folders ---------------------------------------------------------------------------------------


def _write_folder(
    folder: Path, out: Path, corrections: Mapping[int, str], requested: RequestedColumns
) -> None:
    _refuse_place(folder, out)
    tables = tables_by_split(folder, requested)
    if not tables:
        requested.refuse_for(f"a folder of images, {folder}")
        _write_images(folder, out, corrections)
        return
    found = _LabelColumn.of(name_splits(tables)["train"], requested)
    tables.clear()
    _refuse_beyond(corrections, found.n_rows, folder)
    first = 0
    with _copy(folder, out) as new:
        for file in _training_files(folder) if corrections else ():
            if first > max(corrections):
                break
            behind = first + _n_rows(file)
            own = {row - first: corrections[row] for row in corrections if first <= row < behind}
            if own:
                _write_table(file, new / file.relative_to(folder), found, own)
            first = behind


def _training_files(folder: Path) -> list[Path]:
    """Return the files of the training split in the order of `tables_by_split`."""
    return name_splits(table_files(folder)[0])["train"]


def _refuse_place(folder: Path, out: Path) -> None:
    """Raise an InputError if the copy of a folder would fall on something that is there."""
    inside = out.resolve().is_relative_to(folder.resolve())
    if inside or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
        received = Words(f"{out}, which is {'in the source' if inside else 'not empty'}")
        raise invalid("out", "be a new or an empty folder", received, "name another one")


@contextmanager
def _copy(folder: Path, out: Path, without: Sequence[Path] = ()) -> Iterator[Path]:
    """Copy a folder. The copy lies beside `out` until the block has changed it."""
    out, left_out = out.absolute(), frozenset(without)
    beside = out.with_name(f".{out.name}.{os.getpid()}.part")

    def ignored(where: str, names: list[str]) -> list[str]:
        return [name for name in names if Path(where, name) in left_out]

    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(folder, beside, ignore=ignored, ignore_dangling_symlinks=True)
        yield beside
        if out.exists():
            out.rmdir()
        beside.rename(out)
    except OSError as error:
        raise InputError(
            f"{out} could not be written ({cut(first_line(error), 300)}); check that there is "
            "space, and that the source can be read and the folder be written."
        ) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _write_images(folder: Path, out: Path, corrections: Mapping[int, str]) -> None:
    train = find_splits(folder)[0]["train"]
    images = _images(train)
    if not images:
        received = Words(f"a folder without: {train}")
        raise invalid("source", "hold tables or images by class", received, "check the path")
    _refuse_beyond(corrections, len(images), folder)
    moved = {}
    for row, name in corrections.items():
        path, owner = images[row]
        _check_folder_name(name, train)
        if name != owner.name:
            moved[path] = (owner, name)
    with _copy(folder, out, list(moved)) as new:
        for path, (owner, name) in moved.items():
            below = new / train.relative_to(folder) / name
            below.mkdir(exist_ok=True)
            shutil.copy2(path, _free(below / path.name))
            _remove_empty(new / path.parent.relative_to(folder), new / owner.relative_to(folder))


def _images(train: Path) -> list[tuple[Path, Path]]:
    """Return the images and the folders of their classes, in the order of `read_image_folder`."""
    found = [(path, one) for one in subfolders(train) for path in files_below(one)]
    paths = [path for path, _ in found]
    _, unread = read_readable(paths, str(train), image_size=1)  # small: the pixels do not matter
    left_out = frozenset(unread)
    return [pair for i, pair in enumerate(found) if i not in left_out]


def _check_folder_name(name: str, train: Path) -> None:
    """Raise an InputError if the folder of a class would not be read as one."""
    if name in {one.name for one in subfolders(train)}:
        return
    is_plain = Path(name).name == name and "\\" not in name and "\0" not in name
    if not is_plain or name.startswith((".", "__")) or split_word(name) is not None:
        remedy = f"choose a class of the source or another name for the folder in {train}"
        raise invalid("corrections", "name folders of classes", name, remedy)


def _free(path: Path) -> Path:
    """Return the path, with a number behind the stem if it is taken."""
    if not path.exists():
        return path
    names = (path.with_name(f"{path.stem}-{n}{path.suffix}") for n in count(1))
    return next(name for name in names if not name.exists())


def _remove_empty(folder: Path, last: Path) -> None:
    """Remove folders that became empty, from the inner to the last one: classes need an image."""
    with suppress(OSError):
        for one in (folder, *folder.parents):
            one.rmdir()
            if one == last:
                break
