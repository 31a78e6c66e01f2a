"""Where the seconds of a search go (`python -m benchmarks.overhead`).

Each case runs the command `keeprate` in a process of its own, from its start to its end, and adds
up the seconds of its parts. A part that runs within another counts there only. The second result is
a search with a budget of six trainings on a small table, beside cleanlab's CleanLearning with the
same network, epochs and batches in a plain loop, in turns. The floor of that search's train steps
is the time of their products and of Adam alone, measured in the same process.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
import os
import runpy
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.common import RESULTS
from keeprate.files import write_json
from keeprate.records import versions

ROWS, COLUMNS, CLASSES, NOISE = 1_340, 256, 10, 0.2
EPOCHS, BATCH = 40, 32
HIDDEN = 256  # of `--model perceptron`
PARTS: dict[str, tuple[str, ...]] = {
    "steps": ("keeprate.engine.loop:Steps.run",),
    "evaluation": ("keeprate.engine.loop:evaluate", "keeprate.engine.meter:EpochMeter.measured"),
    "checkpoints": ("keeprate.engine.lockstep:save_population",),
    "networks built": ("keeprate.engine.lockstep:new_population",),
    "study": (
        "keeprate.searching.search_run:open_study",
        "keeprate.searching.search_run:ranked",
        "keeprate.searching.proposals:Proposals.ask",
        "keeprate.searching.trials:tell",
    ),
    "data read": ("keeprate.data.splitting:prepare",),
    "labels judged": ("keeprate.runs.outputs:judge_by_folds",),
    "run folder": ("keeprate.runs.outputs:conclude",),
    "pictures": ("keeprate.runs.outputs:_write_report",),
}
"""The parts, and the functions that they consist of."""
AROUND = ("start", "evaluation", "checkpoints", "study", "run folder", "pictures")
"""What is to take little: at most a tenth of all, or five seconds."""
STARTED = "KEEPRATE_BENCHMARK_STARTED"


class Clock:
    """Seconds of the parts; what a part calls within another part is not its own."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._within: list[float] = []

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def run(*arguments: Any, **options: Any) -> Any:
            started = time.perf_counter()
            self._within.append(0.0)
            try:
                return function(*arguments, **options)
            finally:
                took = time.perf_counter() - started
                self.seconds[part] += took - self._within.pop()
                if self._within:
                    self._within[-1] += took

        return run

    def watch(self) -> None:
        """Put the clock around the functions of `PARTS`."""
        for part, places in PARTS.items():
            for place in places:
                owner, name = find(place)
                setattr(owner, name, self.timed(part, getattr(owner, name)))


def find(place: str) -> tuple[Any, str]:
    """What holds a function `module:name` or `module:class.name`, and the name there."""
    module, _, path = place.partition(":")
    *owners, name = path.split(".")
    owner: Any = importlib.import_module(module)
    for one in owners:
        owner = getattr(owner, one)
    return owner, name


# Cases -----------------------------------------------------------------------------------------


def write_table(path: Path) -> None:
    """Ten normal clouds in 256 columns; a fifth of the labels is drawn anew."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, ROWS)
    inputs = rng.normal(size=(ROWS, COLUMNS)) + 0.25 * rng.normal(size=(CLASSES, COLUMNS))[labels]
    labels = np.where(rng.random(ROWS) < NOISE, rng.integers(0, CLASSES, ROWS), labels)
    table = pd.DataFrame(inputs, columns=[f"x{number}" for number in range(COLUMNS)])
    table["label"] = [f"class {label}" for label in labels]
    table.to_csv(path, index=False, float_format="%.4f")


def cases(folder: Path, data: str) -> dict[str, list[str]]:
    """By name: the arguments of `keeprate`."""
    table = [str(folder / "table.csv"), "--model", "perceptron"]
    table += ["--epochs", str(EPOCHS), "--batch-size", str(BATCH)]
    return {
        "digits, search": ["search", "digits", "--noise", "pairflip:0.45"],
        "table, search": ["search", *table],
        "table, search, budget 6": ["search", *table, "--budget", "6"],
        "table, train": ["train", *table],
        "MNIST, search, budget 6": [
            *["search", f"{data}/mnist", "--noise", "pairflip:0.45"],
            *["--budget", "6", "--epochs", "8"],
        ],
    }


def profile(arguments: list[str], folder: Path) -> dict[str, Any]:
    """Run `keeprate` in a process of its own; the seconds of its parts."""
    result = folder / "parts.json"
    command = [sys.executable, "-m", "benchmarks.overhead", "--child", str(result), *arguments]
    with tempfile.TemporaryDirectory(dir=folder) as out:
        started = time.time()
        environment = os.environ | {STARTED: repr(started)}
        subprocess.run([*command, "--out", f"{out}/run", "--quiet"], env=environment, check=True)
        total = time.time() - started
    parts = json.loads(result.read_text())
    parts["rest"] = total - sum(parts.values())
    around = sum(parts.get(part, 0.0) for part in AROUND)
    return {
        "seconds": round(total, 2),
        "parts": {part: round(seconds, 2) for part, seconds in parts.items()},
        "around the training": round(around, 2),
        "share around the training": round(around / total, 3),
    }


def _child(result: str, arguments: list[str]) -> None:
    clock = Clock()
    clock.watch()
    clock.seconds["start"] = time.time() - float(os.environ[STARTED])
    sys.argv = ["keeprate", *arguments]
    try:
        runpy.run_module("keeprate", run_name="__main__")
    except SystemExit as end:
        if end.code:
            raise
    Path(result).write_text(json.dumps(clock.seconds))


# Beside CleanLearning --------------------------------------------------------------------------


def read_table(path: Path) -> tuple[Any, Any]:
    """Standardised inputs of the table, and labels as numbers."""
    table = pd.read_csv(path)
    labels = table.pop("label").astype("category").cat.codes.to_numpy(np.int64)
    inputs = table.to_numpy(np.float32)
    return (inputs - inputs.mean(0)) / inputs.std(0), labels


def clean_learning(inputs: Any, labels: Any) -> None:
    """CleanLearning on the table: five folds and one more training in a plain loop."""
    from cleanlab.classification import CleanLearning

    CleanLearning(plain_perceptron(), seed=0, cv_n_folds=5).fit(inputs, labels)


def plain_perceptron() -> Any:
    """The network of `--model perceptron` in a plain loop, as an estimator of scikit-learn."""
    import torch
    from sklearn.base import BaseEstimator, ClassifierMixin

    from keeprate.engine import get_model

    class Perceptron(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
        def fit(self, X: Any, y: Any) -> Any:
            torch.manual_seed(0)
            self.classes_ = np.arange(CLASSES)
            self.network_ = get_model("perceptron")((COLUMNS,), CLASSES)
            optimizer = torch.optim.Adam(self.network_.parameters(), lr=1e-3, fused=True)
            x, labels = torch.from_numpy(X), torch.from_numpy(y)
            for _ in range(EPOCHS):
                for index in torch.randperm(len(x)).split(BATCH):
                    loss = torch.nn.functional.cross_entropy(self.network_(x[index]), labels[index])
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
            self.network_.eval()
            return self

        def predict_proba(self, X: Any) -> Any:
            with torch.no_grad():
                return self.network_(torch.from_numpy(X)).softmax(1).numpy()

        def predict(self, X: Any) -> Any:
            return self.predict_proba(X).argmax(1)

    return Perceptron()


def beside_clean_learning(folder: Path, rounds: int) -> dict[str, Any]:
    """The search as a function call and CleanLearning in turns, in this process.

    CleanLearning trains nothing to compare with and writes no page: the second search does neither.
    """
    import keeprate

    path = folder / "table.csv"
    data = keeprate.prepare(path)
    options: dict[str, Any] = {
        "budget": 6,
        "model": "perceptron",
        "config": keeprate.TrainingConfig(epochs=EPOCHS, batch_size=BATCH),
    }
    numbers, steps = itertools.count(), StepCounter()

    def with_folder() -> None:
        keeprate.search(data, out=folder / f"round-{next(numbers)}", **options)

    def alone() -> None:
        steps.reset()
        keeprate.search(data, baselines=False, **options)

    runs: dict[str, Callable[[], Any]] = {
        "search, budget 6": with_folder,
        "search, budget 6, nothing beside it": alone,
        "CleanLearning": partial(clean_learning, *read_table(path)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    processor: dict[str, list[float]] = {name: [] for name in runs}  # of all threads
    for _ in range(rounds + 1):  # the first to import and get warm
        for name, run in runs.items():
            started, at_start = time.perf_counter(), time.process_time()
            run()
            seconds[name].append(time.perf_counter() - started)
            processor[name].append(time.process_time() - at_start)
    return {
        "seconds": _measured(seconds),
        "ratios to CleanLearning": _ratios(seconds),
        "processor seconds": _measured(processor),
        "ratios to CleanLearning, processor seconds": _ratios(processor),
        "train steps of the last search": steps.beside_their_floor(),
    }


def _measured(seconds: dict[str, list[float]]) -> dict[str, list[float]]:
    return {name: [round(s, 2) for s in times[1:]] for name, times in seconds.items()}


def _ratios(seconds: dict[str, list[float]]) -> dict[str, float]:
    """Of each to the last, the median over the rounds."""
    *others, (_, last) = ((name, times[1:]) for name, times in seconds.items())
    return {
        name: round(statistics.median(a / b for a, b in zip(times, last, strict=True)), 2)
        for name, times in others
    }


class StepCounter:
    """Counts and times the train steps of all populations, by how many networks they have."""

    def __init__(self) -> None:
        self.seconds, self.counts = 0.0, dict[int, int]()
        owner, name = find("keeprate.engine.loop:Steps.run")
        run = getattr(owner, name)

        @wraps(run)
        def counted(steps: Any, epoch: int, batches: Any, generator: Any) -> None:
            started = time.perf_counter()
            run(steps, epoch, batches, generator)
            self.seconds += time.perf_counter() - started
            networks = steps._population.networks
            n = networks.n_candidates * networks.n_peers
            self.counts[n] = self.counts.get(n, 0) + len(batches)

        setattr(owner, name, counted)

    def reset(self) -> None:
        """Begin anew."""
        self.seconds, self.counts = 0.0, {}

    def beside_their_floor(self) -> dict[str, Any]:
        """The steps' seconds, and those of their products and of Adam alone."""
        least = {n: least_step(n) for n in self.counts}
        products, adam = (
            sum(count * least[n][part] for n, count in self.counts.items()) for part in (0, 1)
        )
        n_steps = sum(n * count for n, count in self.counts.items())  # of one network each
        gflop = n_steps * 2 * BATCH * (2 * COLUMNS * HIDDEN + 3 * HIDDEN * CLASSES) / 1e9
        weights = COLUMNS * HIDDEN + HIDDEN + HIDDEN * CLASSES + CLASSES
        gigabytes = n_steps * 28 * weights / 1e9  # four numbers read and three written a weight
        return {
            "steps by networks in lockstep": {str(n): count for n, count in self.counts.items()},
            "seconds": round(self.seconds, 2),
            "products": {
                "seconds": round(products, 2),
                "GFLOP": round(gflop, 1),
                "GFLOP/s": round(gflop / products, 1),
            },
            "Adam": {
                "seconds": round(adam, 2),
                "GB": round(gigabytes, 1),
                "GB/s": round(gigabytes / adam, 1),
            },
            "floor / seconds": round((products + adam) / self.seconds, 2),
        }


def least_step(n: int) -> tuple[float, float]:
    """Seconds of the products of a step of n networks in float32, and of Adam's step."""
    import torch

    from keeprate.engine import TrainingConfig, make_optimizer

    first, second = torch.randn(n, HIDDEN, COLUMNS), torch.randn(n, CLASSES, HIDDEN)
    x, h, g = (
        torch.randn(BATCH, COLUMNS),
        torch.randn(n, HIDDEN, BATCH),
        torch.randn(n, CLASSES, BATCH),
    )

    def products() -> None:
        torch.mm(first.flatten(0, 1), x.T)
        torch.bmm(second, h)
        torch.bmm(g, h.mT)
        torch.bmm(second.mT, g)
        torch.mm(h.flatten(0, 1), x)

    parameters = [first, torch.randn(n, HIDDEN), second, torch.randn(n, CLASSES)]
    for parameter in parameters:
        parameter.grad = torch.full_like(parameter, 1e-3)
    optimizer = make_optimizer([p.requires_grad_() for p in parameters], TrainingConfig())
    parts: tuple[Callable[[], Any], ...] = (products, optimizer.step)
    seconds: tuple[list[float], ...] = ([], [])
    with torch.no_grad():
        for _ in range(50):
            for part, run in zip(seconds, parts, strict=True):
                started = time.perf_counter()
                run()
                part.append(time.perf_counter() - started)
    return statistics.median(seconds[0]), statistics.median(seconds[1])


def main() -> None:
    """Measure and print JSON."""
    if sys.argv[1:2] == ["--child"]:
        _child(sys.argv[2], sys.argv[3:])
        return
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", default=os.environ.get("KEEPRATE_DATA", "../shared/data"))
    parser.add_argument("--cases", help="names with semicolons between; all if left out")
    parser.add_argument("--rounds", type=int, default=3, help="beside CleanLearning; 0 for none")
    parser.add_argument("--out", type=Path, default=RESULTS / "overhead.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_table(folder / "table.csv")
        known = cases(folder, options.data)
        chosen = options.cases.split(";") if options.cases is not None else list(known)
        result: dict[str, Any] = {
            "command": " ".join(["python -m benchmarks.overhead", *sys.argv[1:]]),
            "versions": versions(),
            "cores": os.cpu_count(),
            "threads": os.environ.get("OMP_NUM_THREADS", "all cores"),
            "cases": {case: profile(known[case], folder) for case in chosen if case},
        }
        if options.rounds:
            result["a table beside CleanLearning"] = beside_clean_learning(folder, options.rounds)
    print(json.dumps(result, indent=1))
    write_json(options.out, result)


if __name__ == "__main__":
    main()
