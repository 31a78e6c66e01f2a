"""What a run does to the files of its folder: counted, written down, or the last thing it does."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import sys
from pathlib import Path
from typing import Any, NoReturn

import sqlalchemy

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
EVENTS = {"open": "write", "os.rename": "rename", "os.remove": "remove", "os.mkdir": "mkdir"}
JOURNAL = "operations.json"


def die() -> NoReturn:
    """End the process as `kill -9` does."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise SystemExit  # never comes here


class Operations:
    """Watches the file operations of this process below a folder, for as long as it lives.

    Operations are to open for writing, to flush to disk (`fsync`), to rename, to remove, to make a
    folder, and to commit to the study.

    Parameters
    ----------
    folder : Path
    last : int, optional
        The process dies before the operation with this number, from 1 on.
    is_torn : bool
        If that operation flushes a file, the second half of the file is not there yet.
    snapshots : Path, optional
        Keeps there what the folder looked like before each operation.
    """

    def __init__(
        self, folder: Path, last: int = 0, *, is_torn: bool = False, snapshots: Path | None = None
    ) -> None:
        self._folder, self._last, self._is_torn = str(folder.resolve()), last, is_torn
        self._snapshots, self._is_busy, self._flush = snapshots, False, os.fsync
        self.seen: list[tuple[str, str, str]] = []  # what, path, second path, below the folder

    def watch(self) -> None:
        """Begin."""
        sys.addaudithook(self._hear)
        os.fsync = self._fsync
        event = sqlalchemy.event
        event.listen(sqlalchemy.Engine, "commit", lambda connection: self._enter("commit", "", ""))

    def save(self, folder: Path) -> None:
        """Write down what was seen."""
        self._is_busy = True
        (folder / JOURNAL).write_text(json.dumps(self.seen))

    @staticmethod
    def load(folder: Path) -> list[tuple[str, str, str]]:
        """What another process has written down."""
        seen = json.loads((folder / JOURNAL).read_text())
        return [(what, path, other) for what, path, other in seen]

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in EVENTS or self._is_busy:
            return
        if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & WRITES):
            return
        other = arguments[1] if event == "os.rename" else ""
        self._enter(EVENTS[event], arguments[0], other)

    def _fsync(self, handle: int) -> None:
        path = os.readlink(f"/proc/self/fd/{handle}")
        if self._is_torn and len(self.seen) == self._last - 1 and self._below(path) is not None:
            status = os.fstat(handle)
            if stat.S_ISREG(status.st_mode):
                os.ftruncate(handle, status.st_size // 2)
        self._enter("fsync", path, "")
        self._flush(handle)

    def _below(self, path: Any) -> str | None:
        if not isinstance(path, str | os.PathLike):
            return None
        path = os.path.abspath(path)
        if path == self._folder:
            return "."
        is_below = path.startswith(self._folder + os.sep)
        return path.removeprefix(self._folder + os.sep) if is_below else None

    def _enter(self, what: str, path: Any, other: Any) -> None:
        first = "study.db" if what == "commit" else self._below(path)
        if first is None:
            return
        self.seen.append((what, first, self._below(other) or "" if other else ""))
        if len(self.seen) == self._last:
            die()
        if self._snapshots is not None:
            self._is_busy = True
            if Path(self._folder).is_dir():
                shutil.copytree(self._folder, self._snapshots / str(len(self.seen)))
            self._is_busy = False
