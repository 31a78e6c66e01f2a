"""Folders -> raw splits: tables called after their split, or images by class."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from keeprate.data.columns import read_splits
from keeprate.data.image_folders import read_image_folder
from keeprate.data.raw import RawData, RequestedColumns, ambiguous
from keeprate.data.tables import Table, read_tables
from keeprate.reading import (
    SPLIT_NAMES,
    TABLE_SUFFIXES,
    file_stem,
    files_in,
    is_image,
    is_table,
    subfolders,
)
from keeprate.text import listed

NUMBERED = re.compile(r"(?:[-_.]?\d+(?:-of-\d+)?)?", re.IGNORECASE)
PLAIN_TEXT = (".txt", ".json", ".manifest")  # more often notes and settings than tables


def read_folder(folder: Path, requested: RequestedColumns) -> RawData:
    """Read the tables in a folder or in its subfolder `data`; without tables, its images.

    Raises
    ------
    InputError
        If there is neither, a file cannot be read, or it is not clear which files to read.
    """
    tables = tables_by_split(folder, requested)
    if tables:
        return read_splits(tables, requested)
    requested.refuse_for(f"a folder of images, {folder}")
    images = read_image_folder(folder, image_size=requested.image_size, place=requested.place)
    return RawData(images.splits, notes=images.notes)


def tables_by_split(folder: Path, requested: RequestedColumns) -> dict[str, Table]:
    """Read the tables in a folder or in its subfolder `data`; no tables give an empty dict.

    Raises
    ------
    InputError
        If a file cannot be read, or it is not clear which files to read.
    """
    groups, others = table_files(folder)
    tables = {
        name: read_tables(group, f"{name} split of {folder.name}", as_text=requested.may_be_label)
        for name, group in groups.items()
    }
    _refuse_both(tables, requested)
    if others:
        name, table = next(iter(tables.items()))
        note = f"left out beside the tables: {listed([file.name for file in others])}"
        tables[name] = replace(table, notes=(*table.notes, note))
    return tables


def table_files(folder: Path) -> tuple[dict[str, list[Path]], list[Path]]:
    """Find the tables of each split, in a folder or in its subfolder `data`.

    Returns
    -------
    groups : dict of str to list of Path
        The parts of each split in order. Empty if there are no tables.
    others : list of Path
        Tables that are left out.

    Raises
    ------
    InputError
        If it is not clear which files are a split.
    """
    for below in (folder, folder / "data"):
        files = _tables_in(below)
        if files:
            first = min(map(_suffix, files), key=TABLE_SUFFIXES.index)
            groups = _files_by_split([file for file in files if _suffix(file) == first])
            read = {file for group in groups.values() for file in group}
            return groups, [file for file in files if file not in read]
    return {}, []


def _tables_in(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    files = sorted(file for file in folder.iterdir() if is_table(file) and file.is_file())
    files = [file for file in files if not file.name.startswith((".", "_"))]
    sure = [file for file in files if _suffix(file) not in PLAIN_TEXT]
    named = [file for file in files if _split_of(file) is not None]
    return sure or named


def _suffix(file: Path) -> str:
    suffixes = [suffix.lower() for suffix in file.suffixes if suffix.lower() != ".gz"]
    return suffixes[-1]


def _split_of(file: Path) -> str | None:
    """The split that a file's name begins with, in lower case."""
    stem = file_stem(file).lower()
    word = re.split(r"[-_. ]", stem)[0].rstrip("0123456789")
    return word if word in SPLIT_NAMES else None


def _files_by_split(files: list[Path]) -> dict[str, list[Path]]:
    """Group files by the split in their names; without splits, all are parts of one.

    Raises
    ------
    InputError
        If it is not clear whether files are parts of one split: train.csv and train_old.csv.
    """
    groups: dict[str, list[Path]] = {}
    for file in files:
        # A name without a known split is one of its own, so that it is named when left out.
        word = _split_of(file) or re.split(r"[-_.]", file_stem(file).lower())[0]
        groups.setdefault(word, []).append(file)
    named = {name: group for name, group in groups.items() if name in SPLIT_NAMES}
    for name, group in named.items():
        endings = [file_stem(file).lower().removeprefix(name) for file in group]
        parts = [NUMBERED.fullmatch(ending) is not None for ending in endings]
        if len(group) > 1 and not (all(parts) and "" not in endings):
            raise ambiguous(
                f"{listed([file.name for file in group])} all begin with {name}, and it is not "
                f"clear which of them are the {name} split",
                f"give one file, number the parts ({name}-0, {name}-1), or move the others away",
            )
    return named or {"train": files}


def _refuse_both(tables: Mapping[str, Table], requested: RequestedColumns) -> None:
    """Ask which is meant where a table lies beside folders of images that it does not list."""
    files = [table.file for table in tables.values() if table.file is not None]
    if not files:
        return
    folder = files[0].parent
    beside = [below.name for below in subfolders(folder) if any(map(is_image, files_in(below)))]
    if not beside:
        return
    table = next(iter(tables.values()))
    names = [name for name in table.arrow.column_names if not requested.may_be_label(name)]
    if not any(table.image_files(name) for name in names):
        listed_files = listed([file.name for file in files])
        raise ambiguous(
            f"{folder} holds tables ({listed_files}) and folders of images ({listed(beside)}), and "
            "no column of the table lists image files",
            "give the table itself, or move it away to take each folder of images for a class",
        )
