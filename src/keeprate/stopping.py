"""Ctrl-C and SIGTERM: heard at once, or in a training at the end of an epoch that is near."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import current_thread, main_thread
from types import FrameType
from typing import Any

PATIENCE = 3.0  # seconds that a training has to reach the end of its epoch
AGAIN = 2.0  # seconds until a stop that got lost (in a destructor, say) is repeated
HAS_TIMER = hasattr(signal, "setitimer")


class Stopped(BaseException):
    """The user pressed Ctrl-C, or the system asked the process to end.

    `KeyboardInterrupt` would not do: typer ends the process by itself when it catches one.

    Parameters
    ----------
    number : int
        Of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


class StopSignals:
    """Hears SIGINT and SIGTERM and raises `Stopped`.

    The first signal waits up to three seconds where the running code has said, by
    `stops_between_epochs`, that it asks by itself. Everywhere else, and at the second signal,
    `Stopped` is raised at once.

    Attributes
    ----------
    asked : int or None
        The signal that was heard.
    """

    def __init__(self) -> None:
        self.asked: int | None = None
        self.asks_by_itself = False
        self._before: dict[int, Any] = {}

    def raise_if_asked(self) -> None:
        """Raise `Stopped` if a signal was heard."""
        if self.asked is None:
            return
        if HAS_TIMER:  # also gives what tidies up so much time
            signal.setitimer(signal.ITIMER_REAL, AGAIN, AGAIN)
        raise Stopped(self.asked)

    def listen(self) -> None:
        """Hear the signals from now on, in the main thread.

        A signal that the process ignores (Ctrl-C, in the background) stays ignored.
        """
        if current_thread() is not main_thread():
            return
        default = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
        for number, handler in default.items():
            if signal.getsignal(number) is handler:
                self._before[number] = signal.signal(number, self._hear)
        if HAS_TIMER and self._before:
            self._before[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._hear)

    def ignore(self) -> None:
        """Ignore the signals from now on, while all is tidied up."""
        for number in self._before:
            signal.signal(number, signal.SIG_IGN)

    def restore(self) -> None:
        """Give the signals back to whoever had them, unless the process is about to end."""
        if HAS_TIMER and self._before:
            signal.setitimer(signal.ITIMER_REAL, 0)
        if self.asked is None:
            for number, handler in self._before.items():
                signal.signal(number, handler or signal.SIG_DFL)
        self._before.clear()

    def _hear(self, number: int, frame: FrameType | None) -> None:
        is_first = self.asked is None
        if is_first:
            self.asked = number
            if HAS_TIMER:
                signal.setitimer(signal.ITIMER_REAL, PATIENCE, AGAIN)
        if not (is_first and self.asks_by_itself and HAS_TIMER):
            self.raise_if_asked()


_HEARING: ContextVar[StopSignals | None] = ContextVar("who hears the signals", default=None)


@contextmanager
def hearing_signals() -> Iterator[StopSignals]:
    """Hear SIGINT and SIGTERM as long as the context lasts.

    Yields
    ------
    StopSignals
    """
    signals = StopSignals()
    signals.listen()
    token = _HEARING.set(signals)
    try:
        yield signals
    finally:
        _HEARING.reset(token)
        signals.restore()


@contextmanager
def stops_between_epochs() -> Iterator[StopSignals]:
    """Ask for stops by oneself: a signal only takes note, for a while.

    Yields
    ------
    StopSignals
        Its `asked` is to be read, and `raise_if_asked` called, at the end of each epoch. Where
        nobody hears signals, nothing is ever asked.
    """
    signals = _HEARING.get() or StopSignals()
    before, signals.asks_by_itself = signals.asks_by_itself, True
    try:
        yield signals
    finally:
        signals.asks_by_itself = before
    if not before:
        signals.raise_if_asked()
