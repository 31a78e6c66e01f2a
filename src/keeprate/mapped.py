"""Arrays that memory need not hold: files that the system maps, and whose pages it may let go.

What takes more than a share of the free memory lies in such a file. NumPy and PyTorch see an
ordinary array. A file that a run alone needs has no name and vanishes with the process; what is to
be read again lies in a folder (`Place`).
"""

from __future__ import annotations

import json
import logging
import math
import mmap
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from keeprate.errors import InputError, Words, invalid, needs
from keeprate.files import make_folder, write_json
from keeprate.limits import LIMIT_VARIABLE, check_size, free_memory, in_units

if TYPE_CHECKING:
    from torch import Tensor

Array: TypeAlias = NDArray[Any]
Progress: TypeAlias = Callable[[str, float, float, "str | None"], None]

SHARE = 0.25  # of the free memory: an array that takes more is mapped
PIECE = 1 << 24  # bytes that are copied from file to file at once
CACHE_VARIABLE = "KEEPRATE_CACHE"  # of the environment: a folder
ROOM_LEFT = 2**28  # bytes of a disk that others may need

log = logging.getLogger("keeprate")


def cache_folder() -> Path:
    """The folder of the files: `$KEEPRATE_CACHE`, or `keeprate` in the user's cache folder."""
    said = os.environ.get(CACHE_VARIABLE)
    if said:
        return Path(said)
    of_user = os.environ.get("XDG_CACHE_HOME")
    if of_user:
        return Path(of_user) / "keeprate"
    try:
        return Path.home() / ".cache" / "keeprate"
    except RuntimeError:  # a user without a home: what has to write there says what to set
        return Path(os.devnull) / "keeprate"


def is_large(n_bytes: int) -> bool:
    """Whether an array of so many bytes is to be mapped."""
    return n_bytes > SHARE * free_memory()


def is_mapped(array: object) -> bool:
    """Whether an array lies in a file."""
    return isinstance(array, np.memmap)


def check_disk(name: str, n_bytes: int, folder: Path) -> None:
    """Raise an InputError if a disk has no room for what is to be mapped.

    Parameters
    ----------
    name : str
        What is large, in messages.
    n_bytes : int
    folder : Path
        Where the file is to lie.
    """
    try:
        make_folder(folder)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise _unwritable(folder, error) from error
    if n_bytes + ROOM_LEFT > free:
        received = Words(f"{in_units(n_bytes)} where {in_units(free)} are free")
        remedy = f"free some space, or set {CACHE_VARIABLE} to a folder of another disk"
        raise invalid(name, f"fit into memory or on the disk of {folder}", received, remedy)


def check_limit(name: str, n_bytes: int, remedy: str) -> None:
    """Raise an InputError if what a file holds is larger than a limit that the user has set.

    The parameters are those of `check_room`.
    """
    if LIMIT_VARIABLE in os.environ:
        check_size(name, n_bytes, remedy)


def check_room(name: str, n_bytes: int, remedy: str) -> bool:
    """Whether what a file holds is to be mapped, as memory is not to hold so much.

    Parameters
    ----------
    name : str
        What is large, in messages.
    n_bytes : int
        As the file says.
    remedy : str
        What to do, in the imperative.

    Raises
    ------
    InputError
        If the disk has no room, or the content is larger than a limit that the user has set.
    """
    check_limit(name, n_bytes, remedy)
    if not is_large(n_bytes):
        return False
    check_disk(name, n_bytes, cache_folder())
    return True


def new_array(shape: Sequence[int], dtype: Any, *, order: Any = "C") -> Array:
    """Return an array of zeros: in memory or, if it is large, in a file without a name.

    Raises
    ------
    InputError
        If the disk has no room.
    """
    n_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    if not n_bytes or not is_large(n_bytes):
        return np.zeros(shape, dtype, order)
    folder = cache_folder()
    check_disk(f"an array of shape {tuple(shape)}", n_bytes, folder)
    with tempfile.TemporaryFile(dir=folder) as file:
        _allocate(file, n_bytes, folder)
        return np.memmap(file, dtype, "r+", shape=tuple(shape), order=order)


def new_tensor(shape: Sequence[int]) -> Tensor:
    """A tensor of float32 zeros on the CPU, as `new_array`: what a run keeps of each sample."""
    import torch  # readers do without it

    return torch.from_numpy(new_array(shape, np.float32))


def copy_of(tensor: Tensor) -> Tensor:
    """A copy on the CPU, as `new_tensor`."""
    return new_tensor(tensor.shape).copy_(tensor)


def _allocate(file: IO[bytes], n_bytes: int, folder: Path) -> None:
    """Give a file its blocks now: a full disk would end the process at a later write."""
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, n_bytes)
        else:  # pragma: no cover - macOS, Windows
            file.truncate(n_bytes)
    except OSError as error:
        raise _unwritable(folder, error) from error


def _unwritable(folder: Path, error: OSError) -> InputError:
    return InputError(
        f"{folder} could not be written ({error.strerror}); free some space, or set "
        f"{CACHE_VARIABLE} to another folder."
    )


def open_array(path: Path, shape: Sequence[int], dtype: Any, *, writes: bool = False) -> Array:
    """Map the beginning of a file of numbers; without `writes` nobody may change them.

    Raises
    ------
    OSError, ValueError
        If there is no such file of at least this size.
    """
    return np.memmap(path, dtype, "r+" if writes else "r", shape=tuple(shape))


def blocks(n_rows: int, bytes_of_row: int) -> Iterator[slice]:
    """Slices of N rows, of `PIECE` bytes each."""
    step = max(1, PIECE // max(1, bytes_of_row))
    for start in range(0, n_rows, step):
        yield slice(start, min(start + step, n_rows))


# What is to be read again ----------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """Where large arrays of a source are written as they are decoded.

    Attributes
    ----------
    claim : callable
        Returns a folder for arrays that are to be read again, the same at each call; None: they
        are written to files without names.
    progress : Progress or None
    listed : list of Path
        Files that the source names and that were read, too; it grows.
    """

    claim: Callable[[], Path | None] = lambda: None
    progress: Progress | None = None
    listed: list[Path] = field(default_factory=list, compare=False)

    def array(self, name: str, shape: Sequence[int], dtype: Any, *, what: str) -> Array:
        """Return an array: zeros in memory or, if it is large, mapped and as it was left.

        The size of a file is told before anything is decoded.

        Parameters
        ----------
        name : str
            Of the file.
        shape, dtype
        what : str
            What is decoded, in messages.

        Raises
        ------
        InputError
            If the disk has no room.
        """
        n_bytes = math.prod(shape) * np.dtype(dtype).itemsize
        if not n_bytes or not is_large(n_bytes):
            return np.zeros(shape, dtype)
        folder = self.claim()
        path = None if folder is None else folder / name
        if path is not None and path.exists() and path.stat().st_size == n_bytes:
            return open_array(path, shape, dtype, writes=True)
        check_disk(what, n_bytes, cache_folder())
        said = "%s: decoded to %s in %s, as memory is not to hold it"
        log.warning(said, what, in_units(n_bytes), cache_folder())
        if folder is None or path is None:
            return new_array(shape, dtype)
        self.forget(name)
        path.unlink(missing_ok=True)
        with open(path, "wb") as file:
            _allocate(file, n_bytes, folder)
        return open_array(path, shape, dtype, writes=True)

    def tell(self, stage: str, done: int, total: int) -> None:
        """Show how far the decoding is."""
        if self.progress is not None:
            self.progress(stage, done, total, None)

    def begun(self, name: str) -> str:
        """The identity of what `mark` noted last of an array; empty if there is nothing."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            return str(json.loads(self._note(name).read_text(encoding="utf-8"))["identity"])
        return ""

    def resumed(self, name: str, identity: str) -> list[int]:
        """What `mark` noted last of the same array; empty if nothing was decoded."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            noted = json.loads(self._note(name).read_text(encoding="utf-8"))
            if noted["identity"] == identity:
                return [int(number) for number in noted["done"]]
        return []

    def mark(self, name: str, identity: str, done: Sequence[int], array: Array) -> None:
        """Note numbers that say how much of a mapped array is decoded: a stopped decoding goes on.

        Parameters
        ----------
        name : str
            Of the array's file.
        identity : str
            Of what is decoded, and to what.
        done : sequence of int
        array : array
            What is decoded so far is on the disk before the numbers are.
        """
        if isinstance(array, np.memmap) and self.claim() is not None:
            array.flush()
            write_json(self._note(name), {"identity": identity, "done": list(done)})

    def forget(self, name: str) -> None:
        """Drop what `mark` noted, before an array becomes another one."""
        if self.claim() is not None:
            self._note(name).unlink(missing_ok=True)

    def _note(self, name: str) -> Path:
        return (self.claim() or Path(os.devnull)) / f"{name}.json"


# Arrow -----------------------------------------------------------------------------------------


class _Gathered:
    """Arrow tables below each other: in memory, or in a mapped file once they are large."""

    def __init__(self, *, maps: bool) -> None:
        self._tables: list[Any] = []
        self._size, self._maps = 0, maps
        self._file: IO[bytes] | None = None
        self._writer: Any = None

    def add(self, table: Any) -> None:
        """Take the next rows."""
        self._size += table.nbytes
        self._tables.append(table)
        if self._writer is None:
            if not (self._maps or is_large(self._size)):
                return
            folder = cache_folder()
            check_disk("a table", 2 * self._size, folder)
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed in `table`
            self._writer = needs("pyarrow.ipc").new_stream(self._file, table.schema)
        try:
            for one in self._tables:
                self._writer.write_table(one)
        except OSError as error:
            raise _unwritable(cache_folder(), error) from error
        self._tables = []

    def table(self, schema: Any) -> Any:
        """All rows as one table, which may have none."""
        pa = needs("pyarrow")
        if self._file is None:
            return pa.concat_tables([*self._tables, schema.empty_table()])
        try:
            self._writer.close()
            self._file.flush()
        except OSError as error:
            raise _unwritable(cache_folder(), error) from error
        with self._file:  # which stays as long as it is mapped
            content = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        return needs("pyarrow.ipc").open_stream(pa.py_buffer(content)).read_all()


def gathered(tables: Iterator[Any], schema: Any, *, maps: bool = False) -> Any:
    """Put Arrow tables below each other: in memory, or in a mapped file once they are large.

    Parameters
    ----------
    tables : iterator of pyarrow.Table
    schema : pyarrow.Schema
        Of the result, which may have no rows.
    maps : bool
        Whether the rows are to lie in a file from the first one on.

    Raises
    ------
    InputError
        If the disk has no room.
    """
    rows = _Gathered(maps=maps)
    for table in tables:
        rows.add(table)
    return rows.table(schema)


def filtered(table: Any, kept: NDArray[np.bool_]) -> Any:
    """The rows of an Arrow table that are kept, without a second table in memory."""
    pa = needs("pyarrow")
    step = max(1, PIECE * len(kept) // max(1, table.nbytes))

    def parts() -> Iterator[Any]:
        for start in range(0, len(kept), step):
            some = slice(start, start + step)
            yield table.slice(start, step).filter(pa.array(kept[some]))

    return gathered(parts(), table.schema)
