"""Copies of a source in which some training samples have other labels, or are left out."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from numbers import Integral
from pathlib import Path

from keeprate.data.array_corrections import write_npz
from keeprate.data.columns import choose_columns
from keeprate.data.copies import copy_beside, folder_copy, refuse_place
from keeprate.data.folders import table_files, tables_by_split
from keeprate.data.image_corrections import write_images
from keeprate.data.judged import Corrections, JudgedSource, refuse_beyond
from keeprate.data.raw import RequestedColumns, name_splits
from keeprate.data.tables import Table, is_parquet, label_array, read_tables
from keeprate.errors import Words, invalid, needs
from keeprate.reading import (
    LABEL_NAMES,
    TABLE_SUFFIXES,
    TRUE_LABEL_NAMES,
    NoRowsError,
    is_hub_name,
    is_json,
    is_table,
    read_json,
    read_parts,
    write_corrected_json,
    write_corrected_parquet,
)
from keeprate.reading import write_corrected as write_corrected_text
from keeprate.text import listed

REQUIREMENT = "be a table, an .npz file or a folder that labels can be written into"
REMEDY = "take the ranked list (label_quality.csv) instead, and correct the labels at their origin"
EXACT_SUFFIXES = (".parquet", ".npz")  # a file of such a name is nothing else


def write_corrected(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    corrections: Corrections,
    *,
    label: str | None = None,
    judged: JudgedSource | None = None,
    link: bool = False,
) -> None:
    r"""Copy a source with other labels for some samples of its training split, or without them.

    Everything else stays as it is: text byte for byte, the schema and the row groups of Parquet
    files, the other arrays of an .npz file, all other files of a folder. An image of a folder by
    class moves to the folder of its new class, as `name-1.png` if there is a `name.png` already.
    The images that a table lists are copied if the copy of the table lies in another folder.

    Parameters
    ----------
    source : path
        A table (.parquet, .csv, .tsv, .json, .jsonl, text also as .gz), an .npz file, a folder of
        tables or a folder of images by class, as for `load_data`.
    out : path
        For a file: the new file, or `source` itself. For a folder: a folder that does not exist
        or is empty.
    corrections : mapping of int to str or None
        The class of each of these rows of the training split, counted from 0 as in `Split.rows`
        and in column `index` of label_quality.csv. None leaves the row out; in an .npz file every
        array that has these rows loses them.
    label : str, optional
        The label column, or the key of an .npz file. Left out: guessed as in `load_data`.
    judged : JudgedSource, optional
        What the source must hold still.
    link : bool
        Give files of folders, and images that a table lists, a second name (a hard link) in place
        of a copy, where the disk can do so. A change of the one file is then a change of the other.

    Raises
    ------
    InputError
        If labels cannot be written into the source, a row is not there, a class is empty or does
        not fit the type of the column, the source does not hold what was judged, or `out` cannot
        be written.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "animals.csv")
    >>> _ = path.write_text("size,label\n3,cat\n4,cat\n")
    >>> write_corrected(path, path, {1: "dog"})
    >>> path.read_text()
    'size,label\n3,cat\n4,dog\n'
    """
    checked, judged = _checked(corrections), judged or JudgedSource()
    requested = RequestedColumns.of(None, label, None)
    if not isinstance(source, (str, os.PathLike)):
        received = Words(f"{type(source).__name__} in memory")
        raise invalid("source", REQUIREMENT, received, "correct the labels in memory")
    path, target = Path(source), Path(out)
    if path.is_dir():
        _write_folder(path, target, checked, requested, judged, link=link)
    elif path.is_file():
        _write_file(path, target, checked, requested, judged, link=link)
    elif os.fspath(source) == "digits" or is_hub_name(os.fspath(source)):
        received = Words(f"{source}, a name of data that lie elsewhere")
        raise invalid("source", REQUIREMENT, received, REMEDY)
    else:
        raise invalid("source", REQUIREMENT, str(source), "check the path")


def _checked(corrections: Corrections) -> dict[int, str | None]:
    """Return the corrections in the order of their rows."""
    for row, name in corrections.items():
        if not isinstance(row, Integral) or isinstance(row, bool) or row < 0:
            requirement = "be for rows, counted from 0"
            raise invalid("corrections", requirement, row, "give whole numbers")
        if name is not None and (not isinstance(name, str) or not name.strip()):
            requirement = f"give row {row} the name of a class"
            raise invalid("corrections", requirement, name, "write the class as text")
    plain = {int(row): name for row, name in corrections.items()}
    return {row: name if name is None else str(name) for row, name in sorted(plain.items())}


# Tables ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _LabelColumn:
    """The labels of a training table."""

    column: str
    names: tuple[str, ...] | None  # what integers stand for
    n_rows: int

    @classmethod
    def of(
        cls, table: Table, requested: RequestedColumns, judged: JudgedSource, where: object
    ) -> _LabelColumn:
        """Find the column as `load_data` does, and check that its labels are those judged."""
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
        names = table.names_of(column)
        judged.check(label_array(table, column), where, names)
        return cls(column, names, table.arrow.num_rows)


def _write_file(
    path: Path,
    out: Path,
    corrections: Corrections,
    requested: RequestedColumns,
    judged: JudgedSource,
    *,
    link: bool,
) -> None:
    suffix = path.suffix.lower()
    if suffix != out.suffix.lower() and {suffix, out.suffix.lower()} & {*EXACT_SUFFIXES}:
        raise invalid("out", f"end in {suffix} as the source does", str(out), "rename it")
    if is_table(path):
        table = read_tables([path], str(path), as_text=requested.may_be_label)
        found = _LabelColumn.of(table, requested, judged, path)
        is_beside = out.absolute().parent == path.absolute().parent
        images = () if is_beside else _listed_images(table)
        del table  # no two versions in memory
        refuse_beyond(corrections, found.n_rows, path)
        _write_table(path, out, found, corrections)
        copy_beside(images, path.parent, out.parent, link=link)
    elif suffix == ".npz":
        write_npz(path, out, corrections, requested.label, judged)
    else:
        raise invalid("source", REQUIREMENT, str(path), f"save it as {listed(TABLE_SUFFIXES)}")


def _listed_images(table: Table) -> tuple[Path, ...]:
    """Return the image files that the columns of a table name."""
    files = [table.image_files(column) or () for column in table.arrow.column_names]
    return tuple(file for found in files for file in found)


def _write_table(path: Path, out: Path, found: _LabelColumn, corrections: Corrections) -> None:
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
    try:
        return int(read_parts([path], as_text=lambda _: True).arrow.num_rows)
    except NoRowsError:
        return 0


# Folders ---------------------------------------------------------------------------------------


def _write_folder(
    folder: Path,
    out: Path,
    corrections: Corrections,
    requested: RequestedColumns,
    judged: JudgedSource,
    *,
    link: bool,
) -> None:
    refuse_place(folder, out)
    tables = tables_by_split(folder, requested)
    if not tables:
        requested.refuse_for(f"a folder of images, {folder}")
        write_images(folder, out, corrections, judged, link=link)
        return
    found = _LabelColumn.of(name_splits(tables)["train"], requested, judged, folder)
    tables.clear()
    refuse_beyond(corrections, found.n_rows, folder)
    first = 0
    with folder_copy(folder, out, link=link) as new:
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
