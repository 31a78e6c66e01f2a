"""How far a run is: what it tells its caller, and lines of text for a terminal or a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Protocol, TextIO

from keeprate.text import score_as_text


class Progress(Protocol):
    """A callable that is told how far a stage of a run is.

    Parameters
    ----------
    stage : str
        What is being done ("search", "final training").
    done, total : float
        `done` of `total`. The stage is over when they are equal. `done` can fall, when candidates
        that ran out of memory begin anew.
    best : str or None
        The best result so far in words ready to show; None if there is none yet.
    """

    def __call__(self, stage: str, done: float, total: float, best: str | None) -> None: ...


def score_in_words(value: float, criterion: str) -> str:
    """The best validation score so far, ready to show.

    Parameters
    ----------
    value : float
    criterion : str
        `Setup.criterion`.

    Examples
    --------
    >>> score_in_words(0.9312, "accuracy"), score_in_words(0.9123, "determinant")
    ('best validation accuracy 93.1 %', 'best validation score 0.912')
    """
    name = "score" if criterion == "determinant" else criterion
    return f"best validation {name} {score_as_text(value, criterion)}"


class TextProgress:
    """Prints a line when a stage starts, every few seconds, and when the stage ends.

    Parameters
    ----------
    stream : text file, optional
        Standard error by default.
    every : float
        Least seconds between two lines inside a stage.
    clock : callable
        Gives the time in seconds.

    Examples
    --------
    >>> progress = TextProgress(sys.stdout)
    >>> progress("search", 0, 40, None)
    search: 0 %
    >>> progress("search", 10, 40, "best validation accuracy 93.1 %")  # less than 10 s later
    >>> progress("search", 40, 40, "best validation accuracy 94.0 %")
    search: 100 %, best validation accuracy 94.0 %
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        every: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream, self._every, self._clock = stream, every, clock
        self._stage: str | None = None
        self._is_over = False
        self._last_line = 0.0  # when it was printed

    def __call__(self, stage: str, done: float, total: float, best: str | None) -> None:
        now, is_over = self._clock(), done >= total
        starts = stage != self._stage or (self._is_over and not is_over)
        ends = is_over and not self._is_over
        if not (starts or ends or (now - self._last_line >= self._every and not is_over)):
            return
        self._stage, self._is_over, self._last_line = stage, is_over, now
        words = "" if best is None else f", {best}"
        stream = sys.stderr if self._stream is None else self._stream
        print(f"{stage}: {100 * done / total:.0f} %{words}", file=stream, flush=True)
