"""Kills, and what they lead to: counts, and each fault with what led to it."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from tests.chaos.kinds import KINDS, draw_no_page, results
from tests.chaos.operations import Operations
from tests.chaos.power import crash_states

# Flushing to a disk would take most of the time, and the power stays on.
IN_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
MOST_KILLS = 4  # of a run, at random moments
SPAN = 0.8  # of a run's duration: most runs are quicker than the first
DURATION = "seconds"  # a file: how long the last run took that ended
HUNG = 300  # seconds: a run that takes longer is ended and says where it stood
SIGNALS = (signal.SIGTERM, signal.SIGINT)
STOPPED = {-signal.SIGKILL, *(-s for s in SIGNALS), *(128 + s for s in SIGNALS)}

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.chaos.warm"])


@dataclass(frozen=True)
class Blow:
    """What ends a run early.

    Attributes
    ----------
    operation : int
        The run is killed before this file operation, from 1 on; 0 stands for none.
    is_torn : bool
        Half of what the operation would flush is lost, too.
    number : int
        A signal that is sent from outside.
    after : float
        In so many seconds.
    """

    operation: int = 0
    is_torn: bool = False
    number: int = 0
    after: float = 0.0

    def __str__(self) -> str:
        if self.number:
            return f"{signal.Signals(self.number).name} after {self.after:.3f} s"
        return f"killed before operation {self.operation}{', torn' if self.is_torn else ''}"


@dataclass
class Outcome:
    """What the kills of one kind of run have led to.

    Attributes
    ----------
    kills : Counter
        How many ended a run, by their kind.
    equal : int
        Runs that were disturbed and ended as the undisturbed one.
    faults : list of str
        All others.
    """

    kills: Counter[str] = field(default_factory=Counter)
    equal: int = 0
    faults: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def __add__(self, other: Outcome) -> Outcome:
        """Both together."""
        return Outcome(
            self.kills + other.kills,
            self.equal + other.equal,
            self.faults + other.faults,
            self.seconds + other.seconds,
        )


@dataclass(frozen=True)
class Counts:
    """How many runs of each kind are disturbed in which way; signals are for the command."""

    operations: int = 14
    moments: int = 2
    signals: int = 6
    power: int = 10


class Drill:
    """One kind of run: undisturbed first, then disturbed in many ways.

    Parameters
    ----------
    name : str
        Of the kind.
    seed : int
    place : Path
        Where the folders are made.
    tell : callable
        Hears a line about each disturbed run when it is over.
    """

    def __init__(
        self, name: str, seed: int, place: Path, tell: Callable[[str], None] = lambda line: None
    ) -> None:
        self.outcome, self._tell = Outcome(), tell
        self._name, self._place, self._random = name, place, Random(f"{seed} {name}")
        self._number = 0
        self._blank = place / "blank" / "run"
        self._start(self._blank, _begin)
        whole, snapshots = self._fresh(), place / "snapshots"
        # Twice: the duration is that of a run without snapshots.
        self._must_end(self._start(whole, _run, Blow()))
        self._duration = float((place / DURATION).read_text())
        self._expected = results(whole)
        watched = self._fresh()
        self._must_end(self._start(watched, _run, Blow(), snapshots))
        if fault := self._compare(watched):
            raise RuntimeError(f"{name} undisturbed a second time: {fault}")
        self.operations = Operations.load(snapshots)
        self._snapshots = snapshots

    def run(self, counts: Counts) -> Outcome:
        """Disturb runs, and count."""
        for blows in self._plans(counts):
            folder = self._fresh()
            self._count(self._disturb(folder, blows), "; ".join(map(str, blows)))
            shutil.rmtree(folder.parent)
        for folder, words in crash_states(
            self._snapshots, self.operations, self._random, self._fresh, counts.power
        ):
            self.outcome.kills["power"] += 1
            self._count(self._finish(folder), words)
            shutil.rmtree(folder.parent)
        return self.outcome

    def _plans(self, counts: Counts) -> Iterator[list[Blow]]:
        random, last = self._random, len(self.operations)
        n = min(counts.operations, last)
        for i in range(n):
            at = 1 + random.randrange(i * last // n, (i + 1) * last // n)
            blows = [Blow(operation=at, is_torn=random.random() < 0.5)]
            if random.random() < 0.5:
                blows.append(Blow(operation=random.randint(1, max(2, last // 2))))
            yield blows
        for _ in range(counts.moments):
            moments = [random.uniform(0, SPAN * self._duration) for _ in range(MOST_KILLS)]
            yield [Blow(number=signal.SIGKILL, after=moment) for moment in moments]
        if self._name == "command":
            for i in range(counts.signals):
                yield [Blow(number=SIGNALS[i % 2], after=random.uniform(0, SPAN * self._duration))]

    def _count(self, fault: str, words: str) -> None:
        if fault:
            self.outcome.faults.append(f"{words}: {fault}")
        else:
            self.outcome.equal += 1
        self._tell(f"{self._name}: {words}: {fault or 'equal'}")

    def _disturb(self, folder: Path, blows: Sequence[Blow]) -> str:
        """Run until all blows have fallen or the run is over, then finish it; name the fault."""
        for blow in blows:
            code = self._start(folder, _run, blow)
            if code in STOPPED:
                self.outcome.kills[_kind(blow)] += 1
            elif code:
                return f"{blow}: exit code {code}: {self._last_words()}"
            else:
                break  # the run was over sooner
        return self._finish(folder)

    def _finish(self, folder: Path) -> str:
        """Run to the end, and name what is not as in the undisturbed run."""
        code = self._start(folder, _run, Blow())
        return f"exit code {code}: {self._last_words()}" if code else self._compare(folder)

    def _compare(self, folder: Path) -> str:
        found, expected = results(folder), self._expected
        names = sorted(found.keys() ^ expected.keys())
        names += [n for n in expected if n in found and found[n] != expected[n]]
        return f"other {', '.join(names)}" if names else ""

    def _fresh(self) -> Path:
        """A folder of its own in which a run begins."""
        self._number += 1
        folder = self._place / str(self._number) / "run"
        folder.parent.mkdir()
        if self._blank.exists():
            shutil.copytree(self._blank, folder)
        return folder

    def _start(self, folder: Path, target: Callable[..., None], *arguments: Any) -> int:
        log = str(self._place / "log")
        process = _CONTEXT.Process(target=target, args=(self._name, folder, log, *arguments))
        process.start()
        process.join()
        assert process.exitcode is not None
        return process.exitcode

    def _must_end(self, code: int) -> None:
        if code:
            raise RuntimeError(f"{self._name} undisturbed: exit code {code}: {self._last_words()}")

    def _last_words(self) -> str:
        lines = (self._place / "log").read_text().splitlines()
        if any(line.startswith("Timeout") for line in lines):  # of faulthandler
            return " / ".join(line.strip() for line in lines)
        return lines[-1] if lines else "no word"


def drill(
    name: str, seed: int, counts: Counts, tell: Callable[[str], None] = lambda line: None
) -> Outcome:
    """Disturb runs of a kind."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="chaos-", dir=IN_MEMORY) as place:
        outcome = Drill(name, seed, Path(place), tell).run(counts)
    outcome.seconds = time.perf_counter() - started
    return outcome


def _kind(blow: Blow) -> str:
    if blow.operation:
        return "operation"
    return "moment" if blow.number == signal.SIGKILL else "signal"


def _begin(name: str, folder: Path, log: str) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    KINDS[name].begin(folder)


def _run(name: str, folder: Path, log: str, blow: Blow, snapshots: Path | None = None) -> None:
    """Run in a process of its own, which the blow ends."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(file, stream)
    faulthandler.dump_traceback_later(HUNG, exit=True, file=2)
    if name != "command":
        draw_no_page()
    operations = None
    if snapshots is not None or blow.operation:
        operations = Operations(folder, blow.operation, is_torn=blow.is_torn, snapshots=snapshots)
        operations.watch()
    elif blow.number:
        _send(blow.number, blow.after)
    started = time.perf_counter()
    try:
        KINDS[name].run(folder)
    finally:
        Path(log).with_name(DURATION).write_text(str(time.perf_counter() - started))
        if operations is not None and snapshots is not None:
            operations.save(snapshots)


def _send(number: int, after: float) -> None:
    """Have a process of its own send a signal to this one."""
    target = os.getpid()
    if os.fork():
        return
    time.sleep(after)
    if os.getppid() == target:  # else the run is over
        os.kill(target, number)
    os._exit(0)
