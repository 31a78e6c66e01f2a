"""`torchrun -m keeprate train ...`: the first process runs the command, the others follow it."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from keeprate.errors import InputError, Words, invalid

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from keeprate.engine import Processes


def started() -> tuple[int, int]:
    """The rank of this process and how many `torchrun` started; (0, 1) without `torchrun`."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return 0, 1
    return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])


def refuse_processes(command: str, remedy: str) -> None:
    """Refuse what runs in one process.

    Raises
    ------
    InputError
        If `torchrun` started more.
    """
    _, size = started()
    if size > 1:
        raise invalid(command, "run in one process", Words(f"{size} of torchrun"), remedy)


def leading() -> AbstractContextManager[Processes | None]:
    """The processes that follow this one, as long as the context lasts; None without any."""
    return _leading() if started()[1] > 1 else nullcontext()


@contextmanager
def _leading() -> Iterator[Processes]:
    from keeprate.engine import joined

    with joined() as processes, processes.led():
        yield processes


def followed(arguments: Sequence[str]) -> int | None:
    """Follow the first process to its end, without a word; None in the first process itself.

    Parameters
    ----------
    arguments : sequence of str
        Of the command. Where these train nothing, the first process is not waited for.

    Returns
    -------
    int or None
        The exit code.
    """
    if started()[0] == 0:
        return None
    if "train" not in arguments[:1] or {"--help", "--help-all"} & set(arguments):
        return 0
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # ends at once and without a traceback
    warnings.simplefilter("ignore")  # the first process gives the same
    from keeprate.engine import joined

    try:
        with joined() as processes:
            return processes.follow()
    except InputError:  # the first process, if there is one, says the same
        return 1
