"""What `keeprate verify` has found of a run, in a file of the run folder for each list of pairs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from keeprate.errors import InputError, damaged, first_line
from keeprate.files import read_bytes, write_json
from keeprate.text import cut
from keeprate.verification import Verification

SCHEMA_VERSION = 1
LARGEST = 2**23  # bytes of a file that is read
MOST_FILES = 50  # of a run that are read
_LONGEST_NAME = 60
_Count = Annotated[int, msgspec.Meta(ge=0, le=10**12)]


@dataclass(frozen=True)
class VerificationRecord:
    """How well the networks of a run tell pairs of one person from others.

    Attributes
    ----------
    name : str
        Of the list of pairs.
    n_images : int
        Pictures in the list, each counted once.
    fingerprint : str
        SHA-256 of the pairs and their pictures (`Pairs.fingerprint`).
    standard : Verification
        With the folds of the list.
    n_people : int or None
        None where it is not known who is on the pictures.
    shared_people : int or None
        How many of them are in more than one fold of the list.
    disjoint : Verification or None
        The same without people who are met again; None where the list's own folds share nobody,
        where people are not known, or where too few pairs would be left.
    disjoint_by : {"", "folds", "thresholds"}
        How: with other folds that share nobody, or, where pairs link too many people for that, with
        the list's folds, whose thresholds are chosen on pairs without anybody of the fold.
    notes : tuple of str
        What the user should know of the reading, a sentence each.
    """

    name: str
    n_images: _Count
    fingerprint: str
    standard: Verification
    n_people: _Count | None = None
    shared_people: _Count | None = None
    disjoint: Verification | None = None
    disjoint_by: Literal["", "folds", "thresholds"] = ""
    notes: Annotated[tuple[str, ...], msgspec.Meta(max_length=100)] = ()


@dataclass(frozen=True)
class _File(VerificationRecord):
    schema_version: Any = None


def verification_file(folder: Path, name: str) -> Path:
    """The file of a list of pairs in a run folder.

    >>> verification_file(Path("run"), "LFW pairs/1").name
    'verification-LFW-pairs-1.json'
    """
    plain = re.sub(r"[^A-Za-z0-9_.]+", "-", name).strip("-.")[:_LONGEST_NAME]
    return folder / f"verification-{plain or 'pairs'}.json"


def save_verification(path: Path, record: VerificationRecord) -> None:
    """Write a record as strict JSON, whole or not at all."""
    write_json(path, {"schema_version": SCHEMA_VERSION} | msgspec.to_builtins(record))


def load_verifications(folder: Path) -> tuple[VerificationRecord, ...]:
    """Read all records of a run folder, in the order of their names.

    Raises
    ------
    InputError
        If a file is damaged or of a later keeprate, or there are more than 50.
    """
    paths = sorted(folder.glob("verification-*.json"))
    if len(paths) > MOST_FILES:
        raise InputError(
            f"{folder} must hold at most {MOST_FILES} files verification-*.json, got {len(paths)}; "
            "move some elsewhere."
        )
    return tuple(map(load_verification, paths))


def load_verification(path: Path) -> VerificationRecord:
    """Read a record.

    Raises
    ------
    InputError
        If the file is damaged or of a later keeprate.
    """
    content = read_bytes(path, LARGEST)
    try:
        record = msgspec.json.decode(content, type=_File)
        _check(record)
    except RecursionError as error:  # thousands of brackets
        raise damaged(path, error) from error
    except (msgspec.DecodeError, ValueError) as error:
        raise InputError(
            f"{path} must hold what `keeprate verify` writes ({cut(first_line(error), 300)}); the "
            "file is damaged or of another keeprate: delete it, or run the command again."
        ) from error
    return record


def _check(record: _File) -> None:
    if record.schema_version != SCHEMA_VERSION or type(record.schema_version) is not int:
        shown = cut(repr(record.schema_version), 60)
        raise ValueError(f"its schema_version is {shown}, and this keeprate reads {SCHEMA_VERSION}")
    for found in filter(None, (record.standard, record.disjoint)):
        if len(found.roc_far) != len(found.roc_tar):
            raise ValueError("roc_far and roc_tar must be of one length")
        if not 0 < found.n_same < found.n_pairs:
            raise ValueError("n_same must lie between 0 and n_pairs")
