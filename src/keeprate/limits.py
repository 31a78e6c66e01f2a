"""How much a file may unpack to, told before the memory is taken."""

from __future__ import annotations

import os
from pathlib import Path

from keeprate.errors import InputError, Words, invalid

SHARE = 0.5  # of the memory that is free
LIMIT_VARIABLE = "KEEPRATE_READ_LIMIT"  # of the environment: bytes, in place of this share
UNKNOWN_SYSTEM = 4 * 2**30  # bytes
DEEPEST = 32  # levels of lists within lists


def read_limit() -> int:
    """Return how many bytes the content of one source may have.

    Raises
    ------
    InputError
        If the variable of the environment is no whole number.
    """
    said = os.environ.get(LIMIT_VARIABLE)
    if said is None:
        return int(SHARE * free_memory())
    if not (said.isascii() and said.isdecimal() and len(said) < 19):
        raise invalid(LIMIT_VARIABLE, "be a number of bytes", said, "write 8000000000, say")
    return int(said)


def check_size(name: str, n_bytes: int, remedy: str, *, most: int | None = None) -> None:
    """Raise an InputError if what a file holds is too large to be read.

    Parameters
    ----------
    name : str
        What is large, in messages.
    n_bytes : int
        As the file says, or as far as it has been unpacked.
    remedy : str
        What to do, in the imperative.
    most : int or None
        The limit where the caller has asked for it. None: `read_limit`.
    """
    most = read_limit() if most is None else most
    if n_bytes > most:
        received = Words(f"{in_units(n_bytes)}, more than the {in_units(most)} that may be taken")
        remedy = f"{remedy}, or set {LIMIT_VARIABLE} to more bytes"
        raise invalid(name, "fit into memory", received, remedy)


def too_deep(name: str) -> InputError:
    """Return the error for lists or objects within each other, hundreds of levels deep."""
    received = Words("lists or objects within each other, too many levels deep")
    return invalid(name, "hold plain values", received, "write it again without these levels")


def in_units(n_bytes: int) -> str:
    """Write a number of bytes for people.

    >>> in_units(2_300_000_000), in_units(512), in_units(4 * 10**21)
    ('2.3 GB', '512 bytes', '4,000,000,000 TB')
    """
    if n_bytes > 10**15:
        return f"{n_bytes // 10**12:,} TB"
    for size, unit in ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if n_bytes >= size:
            return f"{n_bytes / size:.3g} {unit}"
    return f"{n_bytes} bytes"


def free_memory() -> int:
    """Memory that the machine, and the container if there is one, has left."""
    free = UNKNOWN_SYSTEM
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if "MemAvailable:" in line)
    except (OSError, ValueError, StopIteration):  # no Linux
        if hasattr(os, "sysconf"):
            free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    return min(free, _left_in_container())


def _left_in_container() -> int:
    """Bytes below the limit of a container (cgroup v2); a huge number without a limit."""
    try:
        limit, used = (
            int(Path(f"/sys/fs/cgroup/memory.{name}").read_text(encoding="ascii"))
            for name in ("max", "current")
        )
    except (OSError, ValueError):  # no such file, or the limit is "max"
        return 2**62
    return max(0, limit - used)
