"""The run record: everything a run was given and found, as JSON."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from keeprate.errors import InputError
from keeprate.files import read_json, write_json

SCHEMA_VERSION = 2
RECORD_FILE = "record.json"
_REQUIRED: dict[str, type] = {
    "schema_version": int,
    "kind": str,
    "config": dict,
    "data": dict,
    "trials": list,
    "results": list,
    "finished": bool,
}


def new_record(
    kind: str, *, command: str, config: dict[str, Any], data: dict[str, Any]
) -> dict[str, Any]:
    """A record with nothing found yet."""
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": kind,
        "command": command,
        "config": config,
        "versions": versions(),
        "data": data,
        "trials": [],
        "results": [],
        "cost": {},
        "finished": False,
    }


def versions() -> dict[str, str]:
    """Versions that a result may depend on."""
    names = ("keeprate", "torch", "numpy", "scipy", "optuna")
    return {name: metadata.version(name) for name in names} | {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
    }


def save_record(folder: Path, record: dict[str, Any]) -> None:
    """Write `record.json`, atomically."""
    write_json(folder / RECORD_FILE, record)


def load_record(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a run folder's record and check its shape.

    Raises
    ------
    InputError
        If it is missing, damaged, or of a later version of keeprate.
    """
    path = Path(folder) / RECORD_FILE
    record = read_json(path)
    version = record.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise InputError(
            f"{path} was written by a later keeprate (schema {version}, this one reads up to "
            f"{SCHEMA_VERSION}); update keeprate."
        )
    for name, kind in _REQUIRED.items():
        if not isinstance(record.get(name), kind):
            raise InputError(
                f"{path} must hold {name!r} ({kind.__name__}), got "
                f"{record.get(name, 'nothing')!r}; it is damaged: delete it or choose another "
                "folder."
            )
    return record
