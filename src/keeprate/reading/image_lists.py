"""Tables that list image files -> the files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from keeprate.errors import Words, invalid
from keeprate.reading.image_files import (
    N_NAMED,
    files_in,
    is_image,
    named,
    split_word,
    subfolders,
)
from keeprate.reading.places import LONGEST_NAME, Inside, outside
from keeprate.text import cut

SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".avif", ".heic")
N_PROBED = 20  # values of a column that tell whether the column lists images


def image_paths(names: Sequence[str | None], folder: Path, *, table: str = "") -> list[Path] | None:
    """Find the image files that a column of a table lists.

    A value names a file relative to the table's folder or to one of its subfolders, or a file
    there by its absolute path. The suffix may be missing. A table cannot name files elsewhere.

    Parameters
    ----------
    names : sequence of N str
        The values of the column.
    folder : Path
        The folder of the table.
    table : str, optional
        The name of the table's file: among subfolders that hold files of one name, `train.csv`
        means those in `train/`.

    Returns
    -------
    list of N Path, or None
        None if none of the first 20 values names an image, or more than half of them do not and
        some name no file.

    Raises
    ------
    InputError
        If files are missing among images, if a value names several files, or if a file lies
        outside the folder.

    Examples
    --------
    >>> image_paths(["a sentence", "another"], Path()) is None
    True
    """
    index = _Index(folder, split_word(Path(table).stem))
    inside = Inside(folder)
    probed = [index.find(name) for name in names[:N_PROBED]]
    if not _are_images(probed, inside):
        return None
    found = [*probed, *(index.find(name) for name in names[N_PROBED:])]
    _refuse_missing(names, found, folder)
    for row, (name, files) in enumerate(zip(names, found, strict=True)):
        if not inside.holds(files[0]):
            raise outside(f"the image in row {row} of the table", str(name), folder)
        if len(files) > 1:
            received = Words(f"{name}, which is each of {named(files, folder)}")
            remedy = "write the subfolder or the suffix into the table"
            raise invalid(f"images listed in {folder}", "be one file each", received, remedy)
    return [files[0] for files in found]


def lists_images(names: Sequence[str | None], folder: Path, *, table: str = "") -> bool:
    """Whether `image_paths` takes a column for one of images, as far as its first values tell."""
    index = _Index(folder, split_word(Path(table).stem))
    return _are_images([index.find(name) for name in names[:N_PROBED]], Inside(folder))


def _are_images(probed: Sequence[list[Path]], inside: Inside) -> bool:
    """Whether a column lists images, as far as its first values tell."""
    images = (bool(files) and _may_be_image(files[0], inside) for files in probed)
    if all(probed):
        return any(images)
    return bool(probed) and sum(images) >= len(probed) / 2


def _may_be_image(file: Path, inside: Inside) -> bool:
    # A file elsewhere is not even opened: it is refused if other rows name images.
    return is_image(file) if inside.holds(file) else file.suffix.lower() in SUFFIXES


def _refuse_missing(names: Sequence[str | None], found: Sequence[list[Path]], folder: Path) -> None:
    missing = [
        cut(str(name), LONGEST_NAME) for name, files in zip(names, found, strict=True) if not files
    ]
    if missing:
        more = " ..." if len(missing) > N_NAMED else ""
        received = f"{len(missing)} of {len(names)} missing: {', '.join(missing[:N_NAMED])}{more}"
        remedy = "drop these rows, or say what else the column holds (--columns NAME=text)"
        raise invalid(f"images listed in {folder}", "exist", Words(received), remedy)


@dataclass
class _Listing:
    """The files directly in one folder."""

    names: set[str] = field(default_factory=set)
    by_stem: dict[str, list[str]] = field(default_factory=dict)


class _Index:
    """Files by name. Each folder is listed once, however many files are looked for."""

    def __init__(self, folder: Path, split: str | None) -> None:
        self._listings: dict[Path, _Listing] = {}
        below = subfolders(folder)
        nested = [inner for outer in below if (inner := outer / outer.name).is_dir()]
        preferred = [path for path in below + nested if split and split_word(path.name) == split]
        # The first group with a file of the name decides.
        self._groups = ([folder], preferred, [*below, *nested])

    def find(self, name: str | None) -> list[Path]:
        """Return all files that the name may mean; the folder of the table comes first."""
        path = Path((name or "").strip().replace("\\", "/"))
        if not path.name:
            return []
        for group in self._groups:
            found = [file for folder in group for file in self._files(folder / path)]
            if found:  # `0001` is rather 0001.jpg than 0001.npy
                return found[:1] if len(found) == 1 else list(filter(is_image, found)) or found
        return []

    def _files(self, path: Path) -> list[Path]:
        listing = self._listings.get(path.parent)
        if listing is None:
            listing = self._listings[path.parent] = self._list(path.parent)
        if path.name in listing.names:
            return [path]
        return [path.parent / name for name in listing.by_stem.get(path.name, ())]

    @staticmethod
    def _list(folder: Path) -> _Listing:
        listing = _Listing()
        if os.path.isdir(folder):  # Path.is_dir raises for texts that are too long for a path
            for path in files_in(folder):
                listing.names.add(path.name)
                listing.by_stem.setdefault(path.stem, []).append(path.name)
        return listing
