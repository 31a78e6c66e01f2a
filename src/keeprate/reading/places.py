"""Which files a table may name: regular ones below its own folder."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from keeprate.errors import InputError, Words, invalid
from keeprate.text import cut

LONGEST_NAME = 100  # characters of a file's name in a message


class Inside:
    """Tells whether files lie in a folder or below, whatever links they are reached by.

    Parameters
    ----------
    folder : Path
        The folder. Each of its subfolders is looked up once, however many files are asked for.
    """

    def __init__(self, folder: Path) -> None:
        self._root = os.path.realpath(folder)
        self._folders: dict[str, bool] = {}

    def holds(self, file: str | os.PathLike[str]) -> bool:
        """Whether the file lies in the folder."""
        name = os.fspath(file)
        if os.path.islink(name):
            return self._is_below(os.path.realpath(name))
        return self._parent_is_below(name)

    def holds_plain(self, file: str) -> bool:
        """Whether a regular file that is no link lies in the folder: most files of data do."""
        try:
            is_plain = stat.S_ISREG(os.lstat(file).st_mode)
        except OSError:
            return False
        return is_plain and self._parent_is_below(file)

    def _parent_is_below(self, name: str) -> bool:
        parent = os.path.dirname(name)
        known = self._folders.get(parent)
        if known is None:
            known = self._folders[parent] = self._is_below(os.path.realpath(parent))
        return known

    def _is_below(self, path: str) -> bool:
        return path == self._root or path.startswith(os.path.join(self._root, ""))


def file_in_row(name: str, folder: Path, inside: Inside, where: str) -> str:
    """Return the file that a row of a table names.

    Parameters
    ----------
    name : str
        Relative to the table's folder, or absolute.
    folder : Path
        The table's folder.
    inside : Inside
        Of the same folder.
    where : str
        The row in messages.

    Raises
    ------
    InputError
        If there is no such file below the folder, or it is no regular file: a pipe, a device.
    """
    path = os.path.join(folder, name)
    shown = cut(name, LONGEST_NAME)
    try:
        if inside.holds_plain(path):
            return path
        exists, is_file = os.path.lexists(path), os.path.isfile(path)
        is_inside = inside.holds(path)
    except ValueError:  # a zero byte
        exists = is_file = is_inside = False
    if exists and not is_inside:
        raise outside(where, shown, folder)
    if not is_file:
        received = Words(f"{shown!r}, which is {'something else' if exists else 'not there'}")
        raise invalid(where, f"name a file in {folder}", received, "drop the row")
    return path


def outside(where: str, name: str, folder: Path) -> InputError:
    """Return the error for a row that names a file elsewhere."""
    received = Words(f"{cut(name, LONGEST_NAME)!r}, which lies elsewhere or is a link out")
    remedy = "copy the file into the folder, or drop the row"
    return invalid(where, f"name a file in {folder}", received, remedy)
