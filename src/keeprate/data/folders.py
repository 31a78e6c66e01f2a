"""Folders -> raw splits: Parquet or CSV files called after their split, or images by class."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np

from keeprate.data.columns import splits_of_tables
from keeprate.data.images import read_images
from keeprate.data.labels import Labels
from keeprate.data.reading import SPLIT_NAMES, RawSplit, RequestedColumns, name_splits
from keeprate.data.tables import read_tables
from keeprate.errors import Words, invalid

_IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")


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
    return _read_image_folder(folder)


def _files_by_split(files: list[Path]) -> dict[str, list[Path]]:
    """Group files by the split in their names; without splits, all are parts of one."""
    groups: dict[str, list[Path]] = {}
    for file in files:
        groups.setdefault(re.split(r"[-_.]", file.stem)[0], []).append(file)
    named = {name: group for name, group in groups.items() if name.lower() in SPLIT_NAMES}
    return named or {"train": files}


def _read_image_folder(folder: Path) -> dict[str, RawSplit]:
    below = _subfolders(folder)
    splits = {"train": folder}
    # A class may be called "train": these are splits only if every subfolder is a split.
    if below and all(subfolder.name.lower() in SPLIT_NAMES for subfolder in below):
        splits = name_splits({subfolder.name: subfolder for subfolder in below})
    return {name: _read_classes(subfolder, folder) for name, subfolder in splits.items()}


def _read_classes(split_folder: Path, folder: Path) -> RawSplit:
    """Read one subfolder of images for each class; samples are known by their path in `folder`."""
    classes = _subfolders(split_folder)
    files = [sorted(file for file in c.rglob("*") if _is_image(file)) for c in classes]
    n_files = [len(group) for group in files]
    if not sum(n_files):
        requirement = "hold <split>-*.parquet or .csv files, or one subfolder of images a class"
        received = Words(f"a folder without: {split_folder}")
        raise invalid("source", requirement, received, "check the path")
    labels = np.repeat(np.array([c.name for c in classes]), n_files)
    paths = [file for group in files for file in group]
    names = tuple(_file_name(path.relative_to(folder)) for path in paths)
    return RawSplit(read_images(paths, str(split_folder)), Labels(labels), names=names)


def _file_name(path: Path) -> str:
    """Return a path as text that can be written to any file, whatever bytes the path holds."""
    text = os.fsencode(path.as_posix()).decode("utf-8", "replace")
    return text.replace("\r", "\N{REPLACEMENT CHARACTER}")


def _subfolders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith((".", "__")))


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in _IMAGES and not file.name.startswith(".")
