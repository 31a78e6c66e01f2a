"""Damaged inputs -> what their readers do: counts, and each fault once."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import resource
import shutil
import signal
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any

from keeprate import InputError
from tests.fuzz.corpus import READERS, Case, Reader
from tests.fuzz.mutations import mutate

SECONDS = 5  # that one input may take
MEMORY = 1 << 30  # bytes that reading it may take, besides what the process has
LONGEST = 1000  # characters of a message
# Most of the time would go into writing files otherwise.
IN_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
SOURCE = Path(__file__).parents[2] / "src"


class SlowError(Exception):
    """An input took too long."""


@dataclass
class Outcome:
    """What the inputs of one reader have led to.

    Attributes
    ----------
    results, refused : int
        Inputs that were read, and that were an `InputError`.
    faults : Counter
        All else, by kind and place.
    examples : dict of str to int
        The number of the first input with each of the faults.
    """

    results: int = 0
    refused: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    examples: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    def add(self, other: Outcome) -> None:
        """Count what another outcome has counted."""
        self.results += other.results
        self.refused += other.refused
        self.faults += other.faults
        self.seconds += other.seconds
        for fault, number in other.examples.items():
            self.examples.setdefault(fault, number)

    def fail(self, fault: str, number: int) -> None:
        """Count a fault."""
        self.faults[fault] += 1
        self.examples.setdefault(fault, number)


def damaged_input(name: str, cases: list[Case], seed: int, number: int) -> tuple[Case, bytes]:
    """Return the input of a reader that has a number, and the case that it comes from."""
    rng = Random(f"{seed} {name} {number}")
    case = cases[number % len(cases)]
    content = case.content if number < len(cases) else mutate(case.content, case.kind, rng)
    return case, content


def attempt(reader: Reader, path: Path, number: int, outcome: Outcome) -> None:
    """Let a reader read a file, and count what it does."""
    try:
        with _limited():
            reader.read(path)
        outcome.results += 1
    except InputError as error:
        outcome.refused += 1
        if len(str(error)) >= LONGEST:
            outcome.fail(f"a message of 1,000 characters or more at {_place(error)}", number)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # each other one is what is looked for
        outcome.fail(f"{type(error).__name__} at {_place(error)}", number)


def _place(error: BaseException) -> str:
    """Return where keeprate was when an error came up, and the place of the error itself."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).is_relative_to(SOURCE)]
    shown = [own[-1]] if own else []
    if not own or frames[-1] != own[-1]:
        shown.append(frames[-1])
    return " > ".join(f"{'/'.join(Path(f.filename).parts[-2:])}:{f.lineno}" for f in shown)


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    def stop(signal_number: int, frame: FrameType | None) -> None:
        raise SlowError(f"more than {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def run_here(name: str, numbers: range, seed: int, folder: Path, told: Any = None) -> Outcome:
    """Run the inputs of a reader in this process; `told` holds the number of the last one."""
    reader, outcome, start = READERS[name], Outcome(), time.perf_counter()
    cases = list(reader.cases())
    places = [folder / str(i) for i in range(len(cases))]
    for case, place in zip(cases, places, strict=True):
        for other, content in {**case.beside, case.name: b""}.items():
            (place / other).parent.mkdir(parents=True, exist_ok=True)
            (place / other).write_bytes(content)
    for number in numbers:
        if told is not None:
            told.value = number
        case, content = damaged_input(name, cases, seed, number)
        path = places[number % len(cases)] / case.name
        path.write_bytes(content)
        attempt(reader, path, number, outcome)
    outcome.seconds = time.perf_counter() - start
    return outcome


def _child(name: str, numbers: range, seed: int, folder: Path, told: Any, pipe: Any) -> None:
    """Run inputs with bounded memory. Where Python cannot be interrupted, the process ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    with contextlib.suppress(OSError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # do not outlive the parent
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faulthandler.disable()
    pipe.send(run_here(name, numbers, seed, folder, told))


def run_apart(name: str, count: int, seed: int) -> Outcome:
    """Run the inputs of a reader in processes of their own, a new one after each crash."""
    context, total, first = get_context("fork"), Outcome(), 0
    while first < count:
        told = context.Value("q", first, lock=False)
        receiver, sender = context.Pipe(duplex=False)
        folder = Path(tempfile.mkdtemp(prefix="keeprate-fuzz-", dir=IN_MEMORY))
        numbers = range(first, min(count, first + 5000))
        process = context.Process(target=_child, args=(name, numbers, seed, folder, told, sender))
        process.start()
        sender.close()
        last, since = -1, time.monotonic()
        while process.is_alive() and not receiver.poll(0.5):
            if told.value != last:
                last, since = told.value, time.monotonic()
            elif time.monotonic() - since > 4 * SECONDS:
                process.kill()
        try:
            total.add(receiver.recv())
            first = numbers.stop
        except EOFError:  # the process has died
            process.join()
            killed = process.exitcode == -signal.SIGKILL
            total.fail("a hang" if killed else f"a crash ({process.exitcode})", told.value)
            first = told.value + 1
        process.join()
        shutil.rmtree(folder, ignore_errors=True)
    return total
