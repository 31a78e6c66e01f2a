"""All that a GPU is needed for, in order of worth: `python -m benchmarks.gpu --minutes 8`.

The command runs, as far as the minutes reach:

1. the tests marked `gpu`, whose outcome it keeps;
2. the engine's rows (`benchmarks.gpu_engine`), beside the matrix-product rate;
3. one step of the paper's face network, by part (`benchmarks.faces`);
4. the paper's full protocol for Tables 4, 5 and 6, with the paper's search budget and with six
   trials.

Every row is saved when it is there, and not run again. What would take longer than what is left is
skipped and named at the end. The time that is left then goes into the first of the tables that lack
rows; a later start goes on from its run folder. The command ends by itself.

Data can come in parts, for machines that are reached by small transfers:
`python -m benchmarks.gpu --split DATA --into PARTS` makes them; `--data PARTS` takes them, from
several folders if need be.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from benchmarks import faces, gpu_engine, parts
from benchmarks.common import RESULTS as BENCHMARK_RESULTS
from experiments.common import DATA_SETS, Protocol, results_path
from experiments.common import RESULTS as TABLE_RESULTS
from experiments.comparison import Comparison
from experiments.drawing import TABLES
from experiments.jobs import Job
from keeprate import InputError, TrainingConfig
from keeprate.files import read_json, write_json
from keeprate.records import versions
from keeprate.searching import Budget

NAME = "gpu.json"
PROTOCOL = "paper"
TESTS = "tests/test_gpu.py"
PYTEST_HAS_ENDED = (0, 1, 5)  # all passed, some failed, or none was left to run
MARGIN = 10.0  # seconds at the end, to save and say what was left out
SHARE = 0.4  # of the minutes, at most, for the tests and for the engine's rows: each start gets on
WORTH_A_BEGINNING = 30.0  # seconds: with less no row of a table is begun

FACES, FACES_ON_A_CPU = ("face-resnet50", 112, 9131, 128, 20), ("face-small", 32, 50, 16, 2)
"""Model, pixels, people, batch and steps of `benchmarks.faces`."""
SECONDS_FOR_FACES = 20.0

Row = dict[str, Any]


class OutOfTime(BaseException):
    """The minutes are over; no error of a row, so that no row catches it."""


class Clock:
    """How long there is.

    Parameters
    ----------
    seconds : float
    """

    def __init__(self, seconds: float) -> None:
        self.seconds, self._end = seconds, time.monotonic() + seconds

    def left(self) -> float:
        """Seconds until the end."""
        return self._end - time.monotonic()

    def share(self, part: float) -> Clock:
        """A clock for a part of the time, if so much is left."""
        return Clock(min(self.left(), part * self.seconds))

    @contextmanager
    def stops(self) -> Iterator[None]:
        """Raise `OutOfTime` in what runs longer than there is."""

        def stop(number: int, frame: FrameType | None) -> None:
            raise OutOfTime

        before = signal.signal(signal.SIGALRM, stop)
        # Again and again: an error in a destructor is lost.
        signal.setitimer(signal.ITIMER_REAL, max(0.01, self.left()), 2.0)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


class Store:
    """The results file; every change is written at once.

    Parameters
    ----------
    path : Path
    device : torch.device
    command : str

    Raises
    ------
    InputError
        If the file holds results of another device.
    """

    def __init__(self, path: Path, device: torch.device, command: str) -> None:
        self._path = path
        self.content: dict[str, Any] = read_json(path) if path.exists() else {}
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
        if self.content.get("device", name) != name:
            raise InputError(
                f"{path} holds results of {self.content['device']}, and this is {name}; move the "
                "file away, or give another folder with --out."
            )
        self.content |= {"command": command, "device": name, "versions": versions()}
        self.content |= {"threads": torch.get_num_threads(), "cores": os.cpu_count()}
        if device.type == "cuda":
            self.content["cuda"] = torch.version.cuda
        self.content.setdefault("engine", [])

    def keep(self, **values: Any) -> None:
        """Set values, and save."""
        self.content |= values
        write_json(self._path, self.content)

    def engine_row(self, key: Row) -> Row | None:
        """The row with this key, if it is there."""
        rows: list[Row] = self.content["engine"]
        return next((row for row in rows if key.items() <= row.items()), None)


class Skipped:
    """What there was no time for, said at once and kept for the end."""

    def __init__(self) -> None:
        self.words: list[str] = []

    def add(self, what: str, reason: str) -> None:
        """Say and keep it."""
        self.words.append(f"{what}: {reason}")
        print(f"skipped {self.words[-1]}", flush=True)


# Stages ----------------------------------------------------------------------------------------


def run_tests(device: torch.device, store: Store, clock: Clock, skipped: Skipped) -> None:
    """Run the tests of GPUs that have not passed yet, in a process of their own.

    With other code all of them are run again.
    """
    before, code = store.content.get("tests", {}), code_of_engine()
    if before.get("code") != code:
        before = {"passed": [], "failed": [], "finished": False}
    if before["finished"] and not before["failed"]:
        return
    seconds = clock.left()
    mark = "gpu" if device.type == "cuda" else "not gpu"
    command = [sys.executable, "-m", "pytest", "-v", "--tb=short", "-p", "no:cacheprovider"]
    command += ["-m", mark, TESTS]
    print(f"tests: at most {seconds:.0f} s", flush=True)
    started, finished = time.monotonic(), True
    try:
        done = subprocess.run(
            [*command, *(f"--deselect={name}" for name in before["passed"])],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=seconds,
            check=False,
        )
        finished, output = done.returncode in PYTEST_HAS_ENDED, done.stdout
    except subprocess.TimeoutExpired as error:
        finished, output = False, error.stdout or b""
        skipped.add("some tests", f"not done after {seconds:.0f} s")
    text = output.decode(errors="replace")
    outcome = read_outcome(text)
    outcome["passed"] = sorted({*before["passed"], *outcome["passed"]})
    if not outcome["passed"]:
        finished = False
        print(text[-2000:], flush=True)
        skipped.add("the tests", "none has passed; pytest's last words are above")
    taken = round(time.monotonic() - started, 1)
    words = " ".join(["python", *command[1:]])
    values = {"command": words, "code": code, "finished": finished, "seconds": taken}
    store.keep(tests=outcome | values)
    print(
        f"tests: {len(outcome['passed'])} passed, {len(outcome['failed'])} failed in {taken} s",
        *outcome["failed"],
        sep="\n  ",
        flush=True,
    )


def read_outcome(output: str) -> Row:
    """What pytest has said, line by line, of a run that may have been stopped.

    >>> read_outcome("tests/a.py::one PASSED [ 50%]\\ntests/a.py::two[x-1] FAILED [100%]")
    {'passed': ['tests/a.py::one'], 'failed': ['tests/a.py::two[x-1]'], 'said': []}
    """
    found = re.findall(r"^(\S+::.+?) (PASSED|FAILED|ERROR)", output, re.MULTILINE)
    said = [line for line in output.splitlines() if line.startswith(("E  ", "ERROR"))]
    return {
        "passed": [name for name, outcome in found if outcome == "PASSED"],
        "failed": sorted({name for name, outcome in found if outcome != "PASSED"}),
        "said": said[:40],
    }


def code_of_engine() -> str:
    """Hash of the engine's source and of the tests."""
    folder, digest = Path(__file__).parent.parent, hashlib.sha256()
    for path in sorted((folder / "src" / "keeprate" / "engine").glob("*.py")):
        digest.update(path.read_bytes())
    digest.update((folder / TESTS).read_bytes())
    return digest.hexdigest()[:16]


def run_engine(device: torch.device, store: Store, clock: Clock, skipped: Skipped) -> None:
    """Measure the matrix-product rates of this start, then the rows that are not there."""
    rates = gpu_engine.matmul_rates(device)
    store.keep(matmul_flops_per_second={name: round(rate) for name, rate in rates.items()})
    for row in gpu_engine.rows(device):
        what = ", ".join(str(value) for value in row.key.values())
        if store.engine_row(row.key) is not None:
            continue
        needed, left = gpu_engine.guess(row, rates), clock.left()
        if needed > left:
            skipped.add(f"engine, {what}", needs(needed, left))
            continue
        try:
            with clock.stops():
                measured = gpu_engine.measure(row, device)
        except OutOfTime:
            skipped.add(f"engine, {what}", "took longer than was left")
            return
        except Exception as error:  # the other rows do not depend on this one
            skipped.add(f"engine, {what}", _in_a_line(error))
            continue
        if isinstance(row, gpu_engine.EngineRow) and measured["seconds_per_step"] is not None:
            share = measured["flops_per_second"] / rates[row.precision]
            measured["share of the matmul rate"] = round(share, 4)
        store.keep(engine=[*store.content["engine"], measured])
        print(f"engine, {what}: {measured.get('seconds_per_candidate_epoch')} s", flush=True)


def run_faces(device: torch.device, store: Store, clock: Clock, skipped: Skipped) -> None:
    """Measure a step of a face network, unless it is there; a CPU tries the small one."""
    if "faces" in store.content:
        return
    size = FACES if device.type == "cuda" else FACES_ON_A_CPU
    if clock.left() < SECONDS_FOR_FACES:
        skipped.add("the step of a face network", needs(SECONDS_FOR_FACES, clock.left()))
        return
    try:
        with clock.stops():
            store.keep(faces=faces.measure(*size, device=str(device)))
    except OutOfTime:
        skipped.add("the step of a face network", "took longer than was left")
    except Exception as error:  # the tables do not depend on it
        skipped.add("the step of a face network", _in_a_line(error))


def run_tables(
    tables: Sequence[Comparison],
    store: Store,
    clock: Clock,
    skipped: Skipped,
    *,
    data: str,
    runs: str,
    results: Path,
) -> None:
    """Run the rows that fit into what is left; then begin the first that does not."""
    unfinished: list[Comparison] = []
    for table in tables:
        protocol, refused = table.protocol(PROTOCOL), list[float]()
        if not ((Path(data) / protocol.data).is_dir() or protocol.data == "digits"):
            skipped.add(table.title, f"--data holds no {protocol.data}/")
            continue
        guess = partial(guess_of_job, table=table, protocol=protocol, store=store)

        def begins(
            job: Job,
            guess: Callable[[Job], float] = guess,
            refused: list[float] = refused,
        ) -> bool:
            if (needed := guess(job)) < clock.left():
                return True
            refused.append(needed)
            return False

        try:
            with clock.stops():
                table.run(protocol, data=data, runs=runs, results=results, begins=begins)
        except Exception as error:  # the other tables do not depend on this one
            skipped.add(table.title, _in_a_line(error))
        if refused:
            unfinished.append(table)
            words = f"{len(refused)} jobs, of which the shortest "
            skipped.add(table.title, words + needs(min(refused), clock.left()))
    for table in unfinished[:1]:
        if clock.left() > WORTH_A_BEGINNING:
            print(f"{table.title}: beginning what another start can go on with", flush=True)
            with clock.stops():
                table.run(table.protocol(PROTOCOL), data=data, runs=runs, results=results)


def needs(seconds: float, left: float) -> str:
    """Why something is not begun.

    >>> needs(90.2, 46.0), needs(math.inf, 46.0)
    ('takes about 90 s, and 46 s are left', 'takes nobody knows how long, and 46 s are left')
    """
    how_long = "nobody knows how long" if seconds == math.inf else f"about {seconds:.0f} s"
    return f"takes {how_long}, and {max(0.0, left):.0f} s are left"


def guess_of_job(job: Job, *, table: Comparison, protocol: Protocol, store: Store) -> float:
    """Seconds that a job may take by the engine's rows; without end where none is measured.

    A search trains its trials, generation by generation, and the best of them once more; the
    methods train together.
    """
    if job.names:
        n_trainings, at_once = 1.5 * len(job.names), len(job.names)  # F-correction trains twice
    else:
        arm = next(arm for arm in table.arms if arm.name == job.key["name"])
        n_trials = int(Budget.parse(arm.budget or protocol.budget).amount)
        n_trainings, at_once = n_trials + 1.0, min(n_trials, 20)
    known = {
        row["candidates"]: row["seconds_per_candidate_epoch"]
        for row in store.content["engine"]
        if row["network"] == protocol.model
        and "candidates" in row
        and row["seconds_per_step"] is not None
    }
    if not known:
        return math.inf
    nearest = min(known, key=lambda candidates: abs(candidates - at_once))
    return 5.0 + 1.2 * n_trainings * protocol.epochs * float(known[nearest])


# The command -----------------------------------------------------------------------------------


def main(words: Sequence[str] | None = None) -> int:
    """Run all stages, or split data into parts; the exit code is 1 if a test has failed."""
    options = _parser().parse_args(words)
    try:
        if options.split is not None:
            parts.split(options.split, list(DATA_SETS), options.into, parts.LARGEST)
            print(f"{options.into}: {len(list(Path(options.into).glob('part-*')))} parts")
            return 0
        return _run(options)
    except InputError as error:
        print(f"benchmarks.gpu: {error}", file=sys.stderr)
        return 2


def _run(options: argparse.Namespace) -> int:
    clock, skipped = Clock(60 * options.minutes - MARGIN), Skipped()
    device = TrainingConfig(device=options.device).resolve_device()
    folder, tables = _folders(options.out, device)
    command = f"python -m benchmarks.gpu --device {device.type} --minutes {options.minutes:g}"
    store = Store(folder / NAME, device, command)
    try:
        run_tests(device, store, clock.share(SHARE), skipped)
        run_engine(device, store, clock.share(SHARE), skipped)
        run_faces(device, store, clock, skipped)
        data = _data(options.data, Path(options.runs) / "data", skipped)
        run_tables(TABLES, store, clock, skipped, data=data, runs=options.runs, results=tables)
    except OutOfTime:
        skipped.add("what was running, and what comes after", "the minutes are over")
    store.keep(skipped=skipped.words)
    print(f"{folder / NAME}: {len(store.content['engine'])} rows of the engine", flush=True)
    for table in TABLES:
        path = results_path(table.name, PROTOCOL, tables)
        n_rows = len(read_json(path)["rows"]) if path.exists() else 0
        print(f"{table.title}, {PROTOCOL} protocol: {n_rows} rows", flush=True)
    print(f"{len(skipped.words)} things were skipped", *skipped.words, sep="\n  ", flush=True)
    return 1 if store.content["tests"]["failed"] else 0


def _folders(out: str | None, device: torch.device) -> tuple[Path, Path]:
    """The folders of the engine's rows and of the tables' rows.

    A folder of one's own begins with what is committed: it is not run again. What a CPU measures
    never lies with what is committed of a GPU.
    """
    if out is None and device.type == "cuda":
        return BENCHMARK_RESULTS, TABLE_RESULTS
    folder = Path(out or "runs/gpu-on-a-cpu")
    folder.mkdir(parents=True, exist_ok=True)
    if device.type == "cuda":
        committed = [BENCHMARK_RESULTS / NAME]
        committed += [results_path(table.name, PROTOCOL) for table in TABLES]
        for path in committed:
            if path.exists() and not (folder / path.name).exists():
                shutil.copy(path, folder / path.name)
    return folder, folder


def _data(given: Sequence[str], into: Path, skipped: Skipped) -> str:
    """The folder of the data sets, joined from parts where parts are given."""
    if not any(parts.is_parts(folder) for folder in given):
        if len(given) > 1:
            raise InputError(
                f"--data must be one folder, or folders of parts, got {' '.join(given)}; give one."
            )
        return given[0]
    missing = parts.join(given, into)
    for path in missing:
        skipped.add(path, "its parts are not all there")
    for name in {path.split("/")[0] for path in missing}:  # half a data set is none
        shutil.rmtree(into / name, ignore_errors=True)
    return str(into)


def _in_a_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--minutes", type=_minutes, default=8.0, help="ends before so many")
    parser.add_argument("--device", default="auto", help="cuda, or cpu to try the command")
    default = [os.environ.get("KEEPRATE_DATA", "../shared/data")]
    parser.add_argument(
        "--data", nargs="+", default=default, help="the folder that holds mnist/, ..., or parts"
    )
    parser.add_argument("--runs", default="runs/gpu", help="the folder of the run folders")
    parser.add_argument("--out", help="the folder of the results, if not the committed ones")
    parser.add_argument("--split", metavar="DATA", help="only write the data sets in parts")
    parser.add_argument("--into", metavar="PARTS", default="runs/parts", help="for --split")
    return parser


def _minutes(text: str) -> float:
    with suppress(ValueError):
        if 0.5 <= float(text) <= 10_000:
            return float(text)
    raise argparse.ArgumentTypeError(f"must be a number of at least 0.5, got {text!r}")


if __name__ == "__main__":
    sys.exit(main())
