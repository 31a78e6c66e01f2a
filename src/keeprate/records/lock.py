"""One owner of a run folder: whoever else would write there is refused while a run goes on."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

import msgspec
from filelock import FileLock, Timeout

from keeprate.checksums import RECORD_FILE
from keeprate.errors import InputError, Words, invalid
from keeprate.files import make_folder, read_json, remove_leftovers, write_json

LOCK_FILE, OWNER_FILE = ".lock", ".owner.json"
GRACE = 1.0  # seconds until the owner's name must be there


@dataclass(frozen=True)
class Owner:
    """The process that runs in a folder.

    Attributes
    ----------
    host : str
    pid : int
    since : str
        Date and time with the offset of the time zone.
    """

    host: str
    pid: int
    since: str

    @property
    def may_live(self) -> bool:
        """False if the process was one of this machine and is no more."""
        # On other systems signal 0 is no question but an order.
        if self.host != socket.gethostname() or os.name != "posix" or self.pid < 1:
            return True
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except OSError:  # a process of somebody else
            return True
        return True


def is_finished(folder: Path | None) -> bool:
    """Whether the folder holds a finished run, which many may read and nobody changes.

    A search to which something is being added is none until the last file is written.
    """
    if folder is None or not (folder / RECORD_FILE).exists():
        return False
    try:
        record = read_json(folder / RECORD_FILE)
        return record.get("finished") is True and record.get("is_adding") is not True
    except InputError:  # damaged: who opens the record says so
        return False


@contextmanager
def owned(folder: Path | None, *, goes_on: bool = False) -> Iterator[None]:
    """Own a run folder for as long as a run goes on; nothing is locked if the run is finished.

    The lock is the operating system's (`flock`, or its like on Windows) on an empty file in the
    folder. The lock ends with its process, however the process ends, and the file stays. Each call
    opens the file anew, so that a second call from the same process is refused, too.

    On NFS the lock holds between machines if the server and the mount have locks (NFS 4 has them).
    A mount with `nolock` or `local_lock` locks out processes of the same machine only. A file
    system without any `flock` gets a lock by the existence of a file, with a warning; that lock is
    removed by hand if its process was killed on another machine.

    Parameters
    ----------
    folder : Path or None
        Made if it is missing. None stands for a run without a folder.
    goes_on : bool
        Whether a finished run is to go on: then the folder is locked, too.

    Raises
    ------
    InputError
        If another run has the folder (the message names the host and the process, and since when
        the run goes on), or if the folder cannot be written.
    """
    if folder is None or (is_finished(folder) and not goes_on):
        if folder is not None and (folder / OWNER_FILE).exists():
            _tidy_up(folder)
        yield
        return
    lock = _acquire(folder)
    try:
        now = datetime.now().astimezone().isoformat(" ", timespec="seconds")
        write_json(folder / OWNER_FILE, asdict(Owner(socket.gethostname(), os.getpid(), now)))
        remove_leftovers(folder)
        remove_leftovers(folder / "first")
        yield
    finally:
        with suppress(OSError):
            (folder / OWNER_FILE).unlink(missing_ok=True)
        lock.release()


def _tidy_up(folder: Path) -> None:
    """Remove what the owner of a finished run has left, who was killed right after its record."""
    with suppress(InputError):  # it lives and draws the page, or the folder may only be read
        lock = _acquire(folder)
        try:
            remove_leftovers(folder)
            remove_leftovers(folder / "first")
            with suppress(OSError):
                (folder / OWNER_FILE).unlink(missing_ok=True)
        finally:
            lock.release()


def _acquire(folder: Path) -> FileLock:
    """Take the lock at once, or name the owner."""
    try:
        make_folder(folder)
        lock = FileLock(folder / LOCK_FILE)
        until = time.monotonic() + GRACE
        while True:
            with suppress(Timeout):
                lock.acquire(blocking=False)
                return lock
            # The name may still be that of a killed process: the owner has only just begun.
            owner, is_late = _owner(folder), time.monotonic() >= until
            if is_late or (owner is not None and owner.may_live):
                raise _taken(folder, owner)
            time.sleep(0.02)
    except OSError as error:
        raise invalid(
            "out",
            "be a folder that can be written",
            Words(f"{folder} ({error.strerror or error})"),
            "choose another folder",
        ) from error


def _owner(folder: Path) -> Owner | None:
    """Who says to own the folder; None if nobody does."""
    try:
        return msgspec.convert(read_json(folder / OWNER_FILE), Owner)
    except (InputError, msgspec.ValidationError):
        return None


def _taken(folder: Path, owner: Owner | None) -> InputError:
    who = "another process has"
    if owner is not None:
        who = f"process {owner.pid} on {owner.host} has had since {owner.since}"
    return invalid(
        "out",
        "be a folder in which no other run goes on",
        Words(f"{folder}, which {who}"),
        "wait until that run is over or stop it, or choose another folder",
    )
