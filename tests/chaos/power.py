"""What a folder may look like after a power loss, from the operations that led to it.

The disk has what was flushed. Of all that was not, it has any part: entries of a folder (files
made, renamed, removed) since the folder was last flushed, in any order that respects each name; and
half of a file, or nothing, whose content was not flushed. SQLite flushes by itself; of its
transactions the last one may be lost, as the folder may not know yet that its journal is removed.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random

Operation = tuple[str, str, str]
ENTRIES = ("write", "rename", "remove")


def crash_states(
    snapshots: Path,
    operations: Sequence[Operation],
    random: Random,
    fresh: Callable[[], Path],
    count: int,
) -> Iterator[tuple[Path, str]]:
    """Yield folders as a power loss may leave them, and words of how.

    Parameters
    ----------
    snapshots : Path
        The folder before each operation, by the operation's number.
    operations : sequence of Operation
    random : Random
    fresh : callable
        Makes a folder.
    count : int
        How many.
    """
    first = next(n for n in range(1, len(operations) + 1) if (snapshots / str(n)).is_dir())
    for i in range(count):
        span = len(operations) - first
        at = first + 1 + random.randrange(i * span // count, max((i + 1) * span // count, 1))
        folder = fresh()
        shutil.rmtree(folder, ignore_errors=True)
        lost = _build(folder, snapshots, operations, min(at, len(operations)), first, random)
        yield folder, f"power lost before operation {at}, without {lost}"


def _build(
    folder: Path,
    snapshots: Path,
    operations: Sequence[Operation],
    at: int,
    first: int,
    random: Random,
) -> list[Operation]:
    """Build what is left just before the operation `at`; return what is lost."""
    shutil.copytree(snapshots / str(at), folder)
    lost: list[Operation] = []
    for place in {".", *(str(Path(o[1]).parent) for o in operations[:at])}:
        done = [n for n in range(first, at) if operations[n - 1] == ("fsync", place, "")]
        since = (done[-1] + 1) if done else first
        # Back to what was flushed, then forward by some of what was not.
        pending = [
            n
            for n in range(since, at)
            if operations[n - 1][0] in ENTRIES and str(Path(operations[n - 1][1]).parent) == place
        ]
        missing = [n for n in pending if random.random() < 0.5]
        for n in reversed(missing):
            _undo(folder, snapshots, operations[n - 1], n)
        lost += [operations[n - 1] for n in missing]
        commits = [n for n in range(since, at) if operations[n - 1][0] == "commit"]
        if place == "." and commits and random.random() < 0.5:
            n = commits[-1]
            lost.append(operations[n - 1])
            _restore(snapshots / str(n) / "study.db", folder / "study.db")
    for name in _unflushed(operations[: at - 1]):
        path, before = folder / name, snapshots / str(at) / name
        if path.is_file() and before.is_file() and path.read_bytes() == before.read_bytes():
            content = path.read_bytes()
            path.write_bytes(content[: random.randrange(len(content) + 1)])
            lost += [("half", name, "")] if content else []
    for path in folder.glob("study.db-*"):
        path.unlink()
    return lost


def _undo(folder: Path, snapshots: Path, operation: Operation, n: int) -> None:
    """Bring the names of an operation back to what they were before it."""
    _, *names = operation
    for name in filter(None, names):
        _restore(snapshots / str(n) / name, folder / name)


def _restore(before: Path, now: Path) -> None:
    if before.is_file():
        now.parent.mkdir(exist_ok=True)
        shutil.copyfile(before, now)
    else:
        now.unlink(missing_ok=True)


def _unflushed(operations: Sequence[Operation]) -> list[str]:
    """Names of the files whose content was not flushed since they were opened for writing."""
    names: dict[str, None] = {}
    for what, path, other in operations:
        is_unflushed = path in names
        if what == "write":
            names[path] = None
        else:
            names.pop(path, None)
            names.pop(other, None)
        if what == "rename" and is_unflushed:
            names[other] = None
    return list(names)
