"""Copies of folders of images by class in which some are of other classes, and some left out."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path

import numpy as np

from keeprate.data.copies import copier, folder_copy
from keeprate.data.image_folders import find_splits
from keeprate.data.judged import REMEDY, Corrections, JudgedSource, refuse_beyond
from keeprate.errors import Words, invalid
from keeprate.reading import file_name, files_below, read_readable, split_word, subfolders


def write_images(
    folder: Path, out: Path, corrections: Corrections, judged: JudgedSource, *, link: bool
) -> None:
    """Copy a folder of images. Some get into the folder of another class, some are left out.

    Raises
    ------
    InputError
        If there are no images, a row is not there, or a class cannot be a folder.
    """
    train = find_splits(folder)[0]["train"]
    images = _images(train)
    if not images:
        received = Words(f"a folder without: {train}")
        raise invalid("source", "hold tables or images by class", received, "check the path")
    if judged.names:
        corrections, judged = _by_name(images, folder, corrections, judged)
    refuse_beyond(corrections, len(images), folder)
    judged.check(np.array([owner.name for _, owner in images]), folder)
    moved: dict[Path, tuple[Path, str | None]] = {}
    for row, name in corrections.items():
        path, owner = images[row]
        if name is not None:
            _check_folder_name(name, train)
        if name != owner.name:
            moved[path] = (owner, name)
    copy = copier(link)
    with folder_copy(folder, out, list(moved), link=link) as new:
        for path, (_, name) in moved.items():
            if name is not None:
                below = new / train.relative_to(folder) / name
                below.mkdir(exist_ok=True)
                copy(str(path), str(_free(below / path.name)))
        for path, (owner, _) in moved.items():
            _remove_empty(new / path.parent.relative_to(folder), new / owner.relative_to(folder))


def _by_name(
    images: Sequence[tuple[Path, Path]],
    folder: Path,
    corrections: Corrections,
    judged: JudgedSource,
) -> tuple[Corrections, JudgedSource]:
    """Find the rows of files by their names: there may be more or fewer files by now."""
    place = {file_name(path.relative_to(folder)): row for row, (path, _) in enumerate(images)}
    for name in judged.names.values():
        if name not in place:
            raise invalid("decisions", f"be on images in {folder}", name, REMEDY)
    row_of = {row: place[name] for row, name in judged.names.items()}
    return (
        {row_of[row]: name for row, name in corrections.items()},
        JudgedSource(None, {row_of[row]: name for row, name in judged.labels.items()}),
    )


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
