"""Files that are whole or absent: write beside, flush to disk, rename over."""

from __future__ import annotations

import json
import os
import re
import stat
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from keeprate.errors import InputError, Words, invalid

LARGEST_JSON = 2**30  # bytes of a file that is read
_BESIDE = re.compile(r"\..+\.\d+(-\d+)?\.part")


def write_atomically(
    path: str | os.PathLike[str], content: bytes | str | Iterator[bytes | str]
) -> None:
    """Replace `path` by `content`; the old file stays whole if anything fails.

    Parameters
    ----------
    path : path
    content : bytes, str, or an iterator over pieces
        Pieces are written one after the other: memory need not hold all.

    Raises
    ------
    InputError
        If the folder cannot be written or the disk is full.
    """
    path = Path(path)
    # Two threads may write the same file.
    beside = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    pieces = content if isinstance(content, Iterator) else [content]
    try:
        make_folder(path.parent)
        with open(beside, "wb") as file:
            for piece in pieces:
                file.write(piece.encode() if isinstance(piece, str) else piece)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
        _sync_folder(path.parent)
    except BaseException as error:  # Ctrl-C, too, leaves nothing behind
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        raise InputError(
            f"{path} could not be written ({error.strerror}); free some space or choose "
            "a folder that can be written. What was there before is unchanged."
        ) from error


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, and flush each new name to disk.

    Raises
    ------
    OSError
    """
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync_folder(folder.parent)


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes have left half written; for the owner of the folder.

    Raises
    ------
    InputError
        If a file cannot be removed.
    """
    for path in folder.glob(".*.part"):
        if not _BESIDE.fullmatch(path.name):
            continue
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise InputError(
                f"{path} is half written and could not be removed ({error.strerror}); remove it "
                "or choose another folder."
            ) from error


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":  # pragma: no cover - other systems cannot open folders
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write strict JSON (no NaN), atomically. A list of numbers or words is one line."""
    write_atomically(path, _indented(value, "\n") + "\n")


_NESTED = (list, tuple, Mapping)


def _indented(value: Any, line: str) -> str:
    """As `json.dumps` with an indent of 1, but a list that holds no other stays on its line."""
    inner = line + " "
    if isinstance(value, Mapping) and value:
        # Keys as json.dumps writes them: 1 is "1".
        keys = (json.dumps({key: 0}, allow_nan=False)[1:-4] for key in value)
        items = (
            f"{key}: {_indented(one, inner)}" for key, one in zip(keys, value.values(), strict=True)
        )
        return "{" + inner + ("," + inner).join(items) + line + "}"
    if isinstance(value, list | tuple) and any(isinstance(one, _NESTED) for one in value):
        return "[" + inner + ("," + inner).join(_indented(one, inner) for one in value) + line + "]"
    return json.dumps(value, allow_nan=False)


def read_bytes(path: str | os.PathLike[str], most: int) -> bytes:
    """Read a regular file of at most `most` bytes; anything else is an `InputError`.

    A folder of other hands may hold a pipe, a device, or a link to one: they never end.
    """
    try:
        state = os.stat(path)
        if not stat.S_ISREG(state.st_mode):
            raise invalid(str(path), "be a file", Words("none"), "check the path")
        if state.st_size > most:
            received = Words(f"{state.st_size:,} bytes")
            raise invalid(str(path), f"hold at most {most:,} bytes", received, "check the path")
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path} could not be read ({error.strerror}); check the path.") from error


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a JSON object; a missing, unreadable or damaged file is an `InputError`."""
    try:
        value = json.loads(read_bytes(path, LARGEST_JSON).decode())
    except InputError:
        raise
    except (ValueError, RecursionError) as error:  # the latter: thousands of brackets
        raise InputError(
            f"{path} must be a JSON file, got {error}; it is damaged or not a keeprate file: "
            "delete it and run again."
        ) from error
    if not isinstance(value, dict):
        raise InputError(
            f"{path} must hold a JSON object, got {type(value).__name__}; "
            "it is not a keeprate file."
        )
    return value
