"""Copies of folders: whole or absent, of files or of links to them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from keeprate.errors import InputError, Words, first_line, invalid
from keeprate.text import cut


def copier(link: bool) -> Callable[[str, str], object]:
    """How a file is copied; `link`: one file under two names, where the file system can do so."""
    return _link_or_copy if link else shutil.copy2


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(os.path.realpath(source), target)  # the file itself, behind links to it
    except OSError:  # another disk, say
        shutil.copy2(source, target)


def refuse_place(source: Path, out: Path) -> None:
    """Raise an InputError if a new folder would fall on something, or lie in its source."""
    inside = source.is_dir() and out.resolve().is_relative_to(source.resolve())
    if inside or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
        received = Words(f"{out}, which is {'in the source' if inside else 'not empty'}")
        raise invalid("out", "be a new or an empty folder", received, "name another one")


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Make a folder. What the block writes lies beside `out` until the block is done.

    Raises
    ------
    InputError
        If the folder cannot be written.
    """
    out = out.absolute()
    beside = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        beside.mkdir(parents=True)
        yield beside
        if out.exists():
            out.rmdir()
        beside.rename(out)
    except (OSError, shutil.Error) as error:
        raise InputError(
            f"{out} could not be written ({cut(first_line(error), 300)}); check that there is "
            "space, and that the source can be read and the folder be written."
        ) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


@contextmanager
def folder_copy(
    folder: Path, out: Path, without: Sequence[Path] = (), *, link: bool = False
) -> Iterator[Path]:
    """Copy a folder without some of its files. The block may change the copy.

    Raises
    ------
    InputError
        If the folder cannot be read, or the copy cannot be written.
    """
    left_out = frozenset(without)

    def ignored(where: str, names: list[str]) -> list[str]:
        return [name for name in names if Path(where, name) in left_out]

    with new_folder(out) as beside:
        shutil.copytree(
            folder,
            beside,
            ignore=ignored,
            copy_function=copier(link),
            ignore_dangling_symlinks=True,
            dirs_exist_ok=True,
        )
        yield beside


def copy_beside(files: Sequence[Path], origin: Path, out: Path, *, link: bool = False) -> None:
    """Copy files to where a table in `out` finds them as a table in the folder `origin` does.

    Files outside of `origin` stay where they are; so do those that are in their place already.
    """
    here, copy = Path(os.path.abspath(origin)), copier(link)
    for file in dict.fromkeys(files):
        path = Path(os.path.abspath(file))
        if path.is_relative_to(here):
            target = out / path.relative_to(here)
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                copy(str(path), str(target))
