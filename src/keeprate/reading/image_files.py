"""Files of images: which files of a folder are meant, and images without labels."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from keeprate.errors import InputError, Words, damaged, invalid
from keeprate.reading.decoding import Encoded, UnreadableImageError, check_decodes, read_header
from keeprate.reading.images import counted
from keeprate.reading.naming import SPLIT_NAMES
from keeprate.reading.places import LONGEST_NAME
from keeprate.text import cut

_COMPANIONS = ("thumbs.db", "desktop.ini", "__macosx", "@eadir")  # what systems leave in folders
_TEXTS = (".txt", ".md", ".json", ".xml", ".html", ".csv", ".yaml", ".yml")
N_NAMED = 5  # files in a message


@dataclass(frozen=True)
class FoundImages:
    """Images without labels.

    Attributes
    ----------
    paths : tuple of N Path
        The files, sorted.
    names : tuple of N str
        The files relative to the folder; the file's name if there is one file only.
    notes : tuple of str
        Sentences that tell a user which files were left out.
    """

    paths: tuple[Path, ...]
    names: tuple[str, ...]
    notes: tuple[str, ...] = ()


def find_images(source: Path) -> FoundImages:
    """Find the images to predict: one file, or all images in a folder and below.

    Each image is decoded once, so that `read_images` can read all that are found.

    Parameters
    ----------
    source : Path
        An image or a folder.

    Returns
    -------
    FoundImages [N]

    Raises
    ------
    InputError
        If the source does not exist or holds no image that can be read, or if an image has 32
        bits a channel.
    """
    if not source.is_dir():
        if not source.exists():
            raise invalid("source", "be an image or a folder", str(source), "check the path")
        check_decodes(_encoded(source))
        return FoundImages((source,), (file_name(Path(source.name)),))
    paths, unread = [], []
    for path in files_below(source):
        try:
            check_decodes(_encoded(path))
            paths.append(path)
        except UnreadableImageError:
            unread.append(path)
    if not paths:
        received = f"a folder without: {source}"
        if unread:
            received += f" ({counted(len(unread), 'file')} unreadable: {named(unread, source)})"
        raise invalid("source", "hold images", Words(received), "check the path")
    names = tuple(file_name(path.relative_to(source)) for path in paths)
    return FoundImages(tuple(paths), names, note_unread(unread, source))


# Files of a folder -----------------------------------------------------------------------------


def files_below(folder: Path) -> list[Path]:
    """List the files in a folder and below that may be images, sorted.

    Hidden files, plain text and what systems leave in folders are passed over.
    """
    files = []
    for where, folders, names in os.walk(folder, onerror=_refuse):
        folders[:] = [name for name in folders if not _is_hidden(name)]
        files += [Path(where, name) for name in names if _may_be_image(Path(where, name))]
    return sorted(files)


def files_in(folder: Path) -> list[Path]:
    """List the files of `files_below` that lie directly in the folder."""
    return sorted(path for path in _entries(folder) if not path.is_dir() and _may_be_image(path))


def subfolders(folder: Path) -> list[Path]:
    """List the visible folders in a folder, sorted."""
    return sorted(p for p in _entries(folder) if not _is_hidden(p.name) and p.is_dir())


def is_image(path: Path) -> bool:
    """Whether Pillow knows the beginning of the file."""
    try:
        read_header(_encoded(path))
    except UnreadableImageError:
        return False
    except InputError:  # an image, although one that cannot be used
        return True
    return True


def split_word(name: str) -> str | None:
    """Return the split that a folder's name tells, or None.

    >>> split_word("Train"), split_word("seg_test"), split_word("val-images"), split_word("trained")
    ('train', 'test', 'validation', None)
    """
    words = re.split(r"[-_. ]+", name.lower())
    return SPLIT_NAMES.get(words[0]) or SPLIT_NAMES.get(words[-1])


def file_name(path: Path) -> str:
    """Return a path as text that can be written to any file, whatever bytes the path holds."""
    text = os.fsencode(path.as_posix()).decode("utf-8", "replace")
    return text.replace("\r", "\N{REPLACEMENT CHARACTER}")


def named(paths: Iterable[Path], folder: Path) -> str:
    """Name the first files, relative to the folder, and count the others."""
    within = (path.relative_to(folder) if path.is_relative_to(folder) else path for path in paths)
    names = [cut(file_name(path), LONGEST_NAME) for path in within]
    more = f" and {len(names) - N_NAMED} more" if len(names) > N_NAMED else ""
    return ", ".join(names[:N_NAMED]) + more


def note_unread(unread: Sequence[Path], folder: Path) -> tuple[str, ...]:
    """Return the note on files that are no images, or () if there are none."""
    if not unread:
        return ()
    files = "1 file" if len(unread) == 1 else f"{len(unread)} files"
    were = "was" if len(unread) == 1 else "were"
    said = f"could not be read as images and {were} left out: {named(unread, folder)}."
    return (f"{files} {said}",)


def _encoded(path: Path) -> Encoded:
    return Encoded(None, str(path), str(path))


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise damaged(folder, error) from error


def _refuse(error: OSError) -> None:
    raise damaged(error.filename, error) from error


def _is_hidden(name: str) -> bool:
    return name.startswith((".", "__")) or name.lower() in _COMPANIONS


def _may_be_image(path: Path) -> bool:
    name = path.name
    if name.startswith(".") or name.lower() in _COMPANIONS or path.suffix.lower() in _TEXTS:
        return False
    return path.is_file() or not path.exists()  # a pipe would be waited for; a dead link is told
