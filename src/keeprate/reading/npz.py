"""NumPy's .npz files: each array is read when it is asked for, and its size is checked before."""

from __future__ import annotations

import io
import lzma
import math
import struct
import sys
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from copy import copy
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from keeprate.errors import InputError, damaged, first_line
from keeprate.limits import check_size, read_limit
from keeprate.text import cut

Array = NDArray[Any]
DAMAGED = (
    *(OSError, EOFError, zipfile.BadZipFile, zlib.error, lzma.LZMAError),
    # A member that is packed in a way unknown to `zipfile`, has a password, or no name.
    *(NotImplementedError, RuntimeError, IndexError),
    # What NumPy's parser of headers lets through, beside the errors of values.
    *(ValueError, TypeError, KeyError, SyntaxError, tokenize.TokenError, RecursionError),
    *(OverflowError, struct.error),
)
"""What the standard library and NumPy raise for the bytes of a damaged archive or array."""
REMEDY = "save it in a smaller type or in parts"
KINDS = "biufcUSMm"  # of NumPy's types


class NpzArrays(Mapping[str, Array]):
    """The arrays of an .npz file by name. An array is read anew each time it is asked for.

    Parameters
    ----------
    path : Path
        The file.

    Raises
    ------
    InputError
        If the file is damaged; and, when an array is asked for, if the array is damaged, holds
        Python objects, or does not fit into memory together with those that were read before.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._left = path, read_limit()
        try:
            # Opened by us: `zipfile` would leave a damaged file open.
            with open(path, "rb") as content, zipfile.ZipFile(content) as archive:
                members = [info for info in archive.infolist() if not info.is_dir()]
        except DAMAGED as error:
            raise _damaged(str(path), error) from error
        self._members = {info.filename.removesuffix(".npy"): info for info in members}

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def __getitem__(self, name: str) -> Array:
        info = self._members[name]
        try:
            with open(self._path, "rb") as content, zipfile.ZipFile(content) as archive:
                with archive.open(info) as member:
                    self._left -= self._checked_size(name, info, member)
                with archive.open(info) as member:
                    return _checked_text(np.lib.format.read_array(member, allow_pickle=False))
        except InputError:
            raise
        except DAMAGED as error:
            raise _damaged(self._named(name), error) from error

    def _named(self, name: str) -> str:
        return f"array {cut(name, 60)} of {self._path}"

    def with_arrays(self, arrays: Mapping[str, Array]) -> bytes:
        """Return the bytes of the file with other arrays. The other members stay as they are.

        Raises
        ------
        InputError
            If another member is damaged, or all together do not fit into memory.
        """
        stream, left = io.BytesIO(), read_limit()
        try:
            with (
                open(self._path, "rb") as content,
                zipfile.ZipFile(content) as old,
                zipfile.ZipFile(stream, "w") as copied,
            ):
                for info in old.infolist():
                    array = arrays.get(info.filename.removesuffix(".npy"))
                    if array is not None:
                        written = io.BytesIO()
                        np.lib.format.write_array(written, array, allow_pickle=False)
                        copied.writestr(copy(info), written.getvalue())
                        continue
                    check_size(str(self._path), info.file_size, REMEDY, most=left)
                    left -= info.file_size
                    copied.writestr(copy(info), old.read(info))
        except InputError:
            raise
        except DAMAGED as error:
            raise _damaged(str(self._path), error) from error
        return stream.getvalue()

    def _checked_size(self, name: str, info: zipfile.ZipInfo, member: IO[bytes]) -> int:
        """Return how many bytes an array has, by its header; refuse what cannot be."""
        where = self._named(name)
        shape, kind = _header(member)
        if kind.hasobject:
            raise ValueError("it holds Python objects, not numbers or strings")
        if kind.kind not in KINDS or min(shape, default=0) < 0 or len(shape) > 32:
            raise ValueError(f"an array of {kind} and shape {shape[:32]} cannot be read")
        n_bytes = math.prod(shape) * kind.itemsize
        if n_bytes > info.file_size - member.tell():
            raise ValueError(f"shape {shape} of {kind} needs more bytes than there are")
        # Texts of no letters take no bytes in the file, but each of them is an object later.
        n_bytes = max(n_bytes, math.prod(shape))
        check_size(where, n_bytes, REMEDY, most=self._left)
        return n_bytes


def _damaged(where: str, error: Exception) -> InputError:
    return damaged(where, ValueError(cut(first_line(error), 200)))


def _checked_text(array: Array) -> Array:
    """Refuse numbers that stand for no letter, at which NumPy would fail later."""
    if array.dtype.kind == "U" and array.size:
        codes = np.ascontiguousarray(array).reshape(-1).view(f"{array.dtype.byteorder}u4")
        if codes.max(initial=0) > sys.maxunicode:
            raise ValueError("a text holds what is no letter")
    return array


def _header(member: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Read the shape and the type of an array, and stop where its values begin."""
    version = np.lib.format.read_magic(member)
    read = np.lib.format.read_array_header_1_0
    if version != (1, 0):  # version 3 differs from 2 in the names of fields only
        read = np.lib.format.read_array_header_2_0
    shape, _, kind = read(member)
    return tuple(map(int, shape)), kind
