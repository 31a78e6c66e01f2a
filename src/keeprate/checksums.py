"""Whether a file of a run folder is still what the run wrote."""

from __future__ import annotations

import hashlib
from pathlib import Path

from keeprate.errors import InputError
from keeprate.files import read_json

RECORD_FILE = "record.json"
CHECKSUMS = "checksums"


def checksum(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_unchanged(path: Path) -> None:
    """Refuse a file of a run folder that is not what the record says.

    Files that the record does not know, and folders without a record, pass.

    Raises
    ------
    InputError
        If the file was damaged or edited since the run wrote it.
    """
    record = path.parent / RECORD_FILE
    if not (record.is_file() and path.is_file()):
        return
    known = read_json(record).get(CHECKSUMS)
    expected = known.get(path.name) if isinstance(known, dict) else None
    if expected is not None and checksum(path) != expected:
        raise InputError(
            f"{path} is not the file that the run wrote (its checksum differs from {RECORD_FILE}); "
            "it is damaged, or somebody edited it: copy an edited file out of the folder and give "
            "the copy, or run the command again in another folder."
        )
