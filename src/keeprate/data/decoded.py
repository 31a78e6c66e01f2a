"""Sources that were decoded to files: a run after the first one maps them, and decodes nothing.

An entry is a folder of the cache (`keeprate.mapped.cache_folder`): the inputs of each split as
plain numbers, its labels and rows, and an index with a checksum of each file. It is whole or
absent: it gets its name last. It is good for the same options and unchanged files of the source.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from keeprate import __version__
from keeprate.checksums import checksum
from keeprate.data.features import InputColumn
from keeprate.data.rows import Rows, in_pieces
from keeprate.data.samples import Loaded, Source, Split
from keeprate.errors import InputError
from keeprate.files import (
    make_folder,
    read_json,
    remove_leftovers,
    write_atomically,
    write_json,
)
from keeprate.mapped import Place, Progress, cache_folder, log, open_array

FORMAT = [1, __version__]  # of an entry; another one is decoded anew, as readers may have changed
INDEX, LISTED, REST = "index.json", "listed.json", "rest.safetensors"
LINKED = 2  # levels of a folder on which readers follow links to folders: splits, and classes
TENSORS = ("labels", "true_labels", "rows", "votes")  # of a split, beside its inputs
DAMAGED = (OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError, InputError)


class Entry:
    """What the cache holds of a source, or is to hold.

    Attributes
    ----------
    place : Place
        Where the source's large arrays go as they are decoded.

    Parameters
    ----------
    source : Path
        A file or a folder.
    options : mapping
        All that decides what the source is read to.
    progress : Progress, optional
    """

    def __init__(self, source: Path, options: object, progress: Progress | None = None) -> None:
        path = source.resolve()
        text = json.dumps([str(path), options], default=str, sort_keys=True)
        name = f"{path.stem}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
        self._source, self._folder = path, cache_folder() / name
        self._part = self._folder.with_name(f".{name}.part")
        self._lock: FileLock | None = None
        self._claimed: Path | None = None
        self._before = _state_of(_files_of(path))
        self.place = Place(self._claim, progress)

    def _claim(self) -> Path | None:
        """The folder to write to; None while another process writes to it."""
        if self._lock is None:
            make_folder(self._folder.parent)
            self._lock = FileLock(self._folder.with_name(f".{self._folder.name}.lock"))
            with suppress(Timeout, OSError):
                self._lock.acquire(blocking=False)
                make_folder(self._part)
                self._part.chmod(0o700)  # others may not be allowed to read the source
                remove_leftovers(self._part)
                self._claimed = self._part
        return self._claimed

    def close(self) -> None:
        """Let other processes write."""
        if self._lock is not None:
            self._lock.release()

    # Reading -------------------------------------------------------------------------------

    def load(self) -> Loaded | None:
        """What was decoded before; None if that is nothing, or something else than the source."""
        if not os.path.isfile(self._folder / INDEX):  # nor in a folder that may not be looked into
            return None
        try:
            index = read_json(self._folder / INDEX)
            if index["format"] != FORMAT or index["state"] != self._before:
                return None
            if index["listed"] != self._state_of_listed():
                return None
            for name, expected in index["checksums"].items():
                if checksum(self._folder / name) != expected:
                    raise ValueError(f"the checksum of {name} differs")
            return self._loaded(index)
        except DAMAGED as error:
            log.warning("%s is damaged (%s) and is decoded again", self._folder, error)
            return None

    def _state_of_listed(self) -> str:
        if not (self._folder / LISTED).is_file():
            return ""
        return _state_of(map(Path, read_json(self._folder / LISTED)["files"]))

    def _loaded(self, index: dict[str, Any]) -> Loaded:
        tensors, named = load_file(self._folder / REST), index["names"]
        splits = {}
        for name, (shape, kind) in index["splits"].items():
            inputs = Rows(open_array(self._folder / f"{name}.inputs", shape, kind))
            rest = {one: tensors.get(f"{name}.{one}") for one in TENSORS}
            splits[name] = Split(inputs, **rest, names=tuple(named[name]))  # type: ignore[arg-type]
        about = index["loaded"]
        columns = (InputColumn(**{**one, "values": tuple(one["values"])}) for one in about["coded"])
        return Loaded(
            splits,
            tuple(about["class_names"]),
            about["name"],
            tuple(about["input_columns"]),
            tuple(columns),
            about["left_out"],
            tuple(about["notes"]),
            about["normalise"],
            Source(**about["source"]),
        )

    # Writing -------------------------------------------------------------------------------

    def save(self, loaded: Loaded) -> Loaded:
        """Keep what was decoded to files, if there is any; return the same samples."""
        are_mapped = any(isinstance(split.inputs, Rows) for split in loaded.splits.values())
        folder = self._claimed
        if not are_mapped or folder is None or self._before != _state_of(_files_of(self._source)):
            return loaded
        try:
            for name, split in loaded.splits.items():
                self._keep(name, split)
            self._write_rest(folder, loaded)
            shutil.rmtree(self._folder, ignore_errors=True)  # of an earlier state of the source
            folder.rename(self._folder)
        except (OSError, InputError) as error:  # what was decoded serves this run
            log.warning("%s is not kept for other runs (%s)", self._folder, error)
        return loaded

    def _keep(self, name: str, split: Split) -> None:
        """Put the inputs of a split into its file, unless they are there."""
        path = self._part / f"{name}.inputs"
        if isinstance(split.inputs, Rows) and split.inputs.file == path:
            split.inputs.flush()
        else:
            pieces = (p.numpy().tobytes() for _, p in in_pieces(split.inputs))
            write_atomically(path, pieces)
        path.with_name(f"{path.name}.json").unlink(missing_ok=True)  # how far the decoding was

    def _write_rest(self, folder: Path, loaded: Loaded) -> None:
        named: dict[str, list[str]] = {}
        tensors: dict[str, Tensor] = {}
        shapes = {}
        for name, split in loaded.splits.items():
            found = {f"{name}.{one}": getattr(split, one) for one in TENSORS}
            tensors |= {one: t.contiguous() for one, t in found.items() if t is not None}
            named[name] = list(split.names)
            kind = str(split.inputs.dtype).removeprefix("torch.")
            shapes[name] = [list(split.inputs.shape), kind]
        write_atomically(folder / REST, save(tensors))
        files = [f"{name}.inputs" for name in loaded.splits] + [REST]
        if self.place.listed:
            write_json(folder / LISTED, {"files": [str(path) for path in self.place.listed]})
            files.append(LISTED)
        about = {
            "class_names": loaded.class_names,
            "name": loaded.name,
            "input_columns": loaded.input_columns,
            "coded": [asdict(column) for column in loaded.coded_columns],
            "left_out": loaded.left_out,
            "notes": loaded.notes,
            "normalise": loaded.normalise,
            "source": None if loaded.source is None else asdict(loaded.source),
        }
        index = {
            "format": FORMAT,
            "state": self._before,
            "listed": _state_of(self.place.listed) if self.place.listed else "",
            "splits": shapes,
            "names": named,
            "loaded": about,
            "checksums": {name: checksum(folder / name) for name in files},
        }
        write_json(folder / INDEX, index)


@contextmanager
def entry_of(source: Path, options: object, progress: Progress | None = None) -> Iterator[Entry]:
    """The entry of a source, which nobody else writes to meanwhile."""
    entry = Entry(source, options, progress)
    try:
        yield entry
    finally:
        entry.close()


def _files_of(source: Path, levels: int = LINKED) -> list[Path]:
    """The files whose state is that of the source; `levels` of folders may have linked folders."""
    if not source.is_dir():
        return [source]
    found = []
    for where, folders, names in os.walk(source):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(where, name) for name in sorted(names)]
        left = levels - len(Path(where).relative_to(source).parts) - 1
        if left >= 0:  # os.walk passes over links
            linked = (path for path in (Path(where, name) for name in folders) if path.is_symlink())
            found += [file for folder in linked for file in _files_of(folder, left)]
    return found


def _state_of(files: Iterable[Path]) -> str:
    """Hash of names, sizes, and times: of the content, and of what a copy cannot set back."""
    digest = hashlib.sha256()
    for path in files:
        with suppress(OSError):
            state = os.stat(path)
            times = f"{state.st_mtime_ns} {state.st_ctime_ns}"
            digest.update(os.fsencode(f"{path} {state.st_size} {times}\n"))
    return digest.hexdigest()
