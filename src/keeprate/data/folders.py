"""Folders -> raw splits: Parquet or CSV files called after their split, or images by class."""

from __future__ import annotations

import re
from pathlib import Path

from keeprate.data.columns import splits_of_tables
from keeprate.data.image_folders import read_image_folder
from keeprate.data.reading import SPLIT_NAMES, RawSplit, RequestedColumns
from keeprate.data.tables import read_tables


def read_folder(folder: Path, requested: RequestedColumns) -> dict[str, RawSplit]:
    """Read the tables in a folder or in its subfolder `data`; without tables, its images.

    Raises
    ------
    InputError
        If there is neither, or a file cannot be read.
    """
    for below in (folder, folder / "data"):
        for suffix in (".parquet", ".csv"):
            files = sorted(file for file in below.glob(f"*{suffix}") if file.is_file())
            if files:
                tables = {
                    name: read_tables(group, f"{name} split of {folder.name}")
                    for name, group in _files_by_split(files).items()
                }
                return splits_of_tables(tables, requested)
    requested.refuse_for(f"a folder of images, {folder}")
    return read_image_folder(folder).splits


def _files_by_split(files: list[Path]) -> dict[str, list[Path]]:
    """Group files by the split in their names; without splits, all are parts of one."""
    groups: dict[str, list[Path]] = {}
    for file in files:
        groups.setdefault(re.split(r"[-_.]", file.stem)[0], []).append(file)
    named = {name: group for name, group in groups.items() if name.lower() in SPLIT_NAMES}
    return named or {"train": files}
