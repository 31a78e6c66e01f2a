"""A folder of data sets in parts that are small enough to send, and together again.

The files lie one after the other in a long row of bytes, which is cut into parts. A list of the
files with their checksums goes along. Some of the parts give back the files that they hold whole.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from keeprate import InputError
from keeprate.errors import Words, invalid
from keeprate.files import make_folder, read_json, write_atomically, write_json

LIST = "parts.json"
LARGEST = 60 * 2**20  # bytes of a part: the list and the code have to fit in 64 MiB, too


def split(data: str | Path, names: Sequence[str], into: str | Path, largest: int) -> None:
    """Write the data sets `names` of a folder in parts of at most `largest` bytes.

    Raises
    ------
    InputError
        If the folder holds none of them.
    """
    data, into = Path(data), Path(into)
    found = [name for name in names if (data / name).is_dir()]
    paths = [p for name in found for p in sorted((data / name).rglob("*")) if p.is_file()]
    if not paths:
        received = Words(f"{data} with none")
        raise invalid("--split", f"hold {' or '.join(names)}", received, "give another folder")
    files, part, n_parts = [], bytearray(), 0
    for path in paths:
        content = path.read_bytes()
        name = path.relative_to(data).as_posix()
        files.append({"path": name, "size": len(content), "sha256": _digest(content)})
        part += content
        while len(part) >= largest:
            write_atomically(into / _name(n_parts), bytes(part[:largest]))
            del part[:largest]
            n_parts += 1
    if part:
        write_atomically(into / _name(n_parts), bytes(part))
        n_parts += 1
    write_json(into / LIST, {"largest": largest, "parts": n_parts, "files": files})


def join(folders: Sequence[str | Path], into: str | Path) -> list[str]:
    """Write the files that the parts of some folders hold, each with the right checksum.

    Parameters
    ----------
    folders : sequence of path
        One of them holds the list.
    into : path
        Files that are there already, with the right checksum, stay.

    Returns
    -------
    list of str
        The files that need parts that are not there.

    Raises
    ------
    InputError
        If the list is missing or no list of parts, or a file has another checksum.
    """
    places, into = [Path(folder) for folder in folders], Path(into)
    listed = next((place / LIST for place in places if (place / LIST).exists()), None)
    if listed is None:
        received = Words(f"{', '.join(map(str, places))} without")
        raise invalid("the folder of parts", f"hold {LIST}", received, "send it along")
    largest, files = _read_list(listed)
    missing, start = [], 0
    for path, size, digest in files:
        stop, target = start + size, into / path
        if not (target.exists() and _digest(target.read_bytes()) == digest):
            content = _bytes_between(places, start, stop, largest)
            if content is None:
                missing.append(path)
            elif _digest(content) != digest:
                raise InputError(
                    f"{path} is not what was split (its checksum differs): a part is "
                    "damaged or of another split; split and send the parts again."
                )
            else:
                make_folder(target.parent)
                write_atomically(target, content)
        start = stop
    return missing


def is_parts(folder: str | Path) -> bool:
    """Whether a folder holds parts, rather than data sets."""
    return any(Path(folder).glob("part-*")) or (Path(folder) / LIST).exists()


def _name(number: int) -> str:
    return f"part-{number:03d}"


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _read_list(path: Path) -> tuple[int, list[tuple[str, int, str]]]:
    """The size of a part, and path, size and checksum of each file; no path leads elsewhere."""
    content = read_json(path)
    try:
        listed = content["files"]
        files = [(str(one["path"]), int(one["size"]), str(one["sha256"])) for one in listed]
        largest = int(content["largest"])
        for name, size, _ in files:
            places = PurePosixPath(name).parts
            if not places or ".." in places or places[0] == "/" or size < 0:
                raise ValueError(f"the path {json.dumps(name)}")
        if largest < 1:
            raise ValueError("parts of no bytes")
    except (KeyError, TypeError, ValueError) as error:
        received = Words(f"an object that fails with {type(error).__name__}: {error}")
        raise invalid(str(path), "be what --split writes", received, "split again") from error
    return largest, files


def _bytes_between(folders: Sequence[Path], start: int, stop: int, largest: int) -> bytes | None:
    """The bytes from start to stop of the row; None if a part of them is not there."""
    pieces = []
    for number, first in _parts_of(start, stop, largest):
        path = next((f / _name(number) for f in folders if (f / _name(number)).exists()), None)
        if path is None:
            return None
        with path.open("rb") as part:
            part.seek(max(0, start - first))
            pieces.append(part.read(min(stop, first + largest) - max(start, first)))
    return b"".join(pieces)


def _parts_of(start: int, stop: int, largest: int) -> Iterator[tuple[int, int]]:
    """The parts that hold bytes from start to stop: number, and the first byte of each."""
    if stop > start:
        for number in range(start // largest, (stop - 1) // largest + 1):
            yield number, number * largest
