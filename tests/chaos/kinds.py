"""The kinds of run that are killed, and what is compared of their folders."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_digits

import keeprate
from keeprate import SearchConfig, TrainingConfig
from keeprate.cli import commands
from keeprate.engine.checkpoints import load_tensors
from keeprate.records import load_record, save_record
from keeprate.records.record import TrialCounts
from keeprate.runs import outputs

SAMPLES = 240  # of digits
CONFIG = TrainingConfig(epochs=3, batch_size=32, learning_rate=3e-3)
OPTIONS: dict[str, Any] = {"config": CONFIG, "checkpoint_seconds": 0}
FEW: dict[str, Any] = {"baselines": False, "restarts": 2}
DRAWN = ("report.html", "keep_rate.png", "curves.png", "label_precision.png")
"""Files that show how long a run took: they have to be there."""
TABLE = "digits.csv"


@dataclass(frozen=True)
class Kind:
    """A kind of run.

    Attributes
    ----------
    run : callable
        Runs in a folder, from wherever the folder stands.
    begin : callable
        Makes the folder of a run that has not begun.
    """

    run: Callable[[Path], object]
    begin: Callable[[Path], object] = lambda folder: None


@cache
def digits() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """A few pictures and their labels, one in five wrong."""
    inputs, labels = load_digits(return_X_y=True)
    random = np.random.default_rng(0)
    wrong = random.random(SAMPLES) < 0.2
    given = np.where(wrong, random.integers(0, 10, SAMPLES), labels[:SAMPLES])
    return inputs[:SAMPLES].astype(np.float32), given


@cache
def data() -> keeprate.Data:
    """The data of all kinds but the command's."""
    return keeprate.prepare(digits(), seed=0)


def _search(folder: Path, **options: Any) -> None:
    keeprate.search(data(), out=folder, **({"budget": "5trials"} | OPTIONS | FEW | options))


def _train(folder: Path, **options: Any) -> None:
    keeprate.train(data(), out=folder, **OPTIONS, **options)


def _timed(folder: Path) -> None:
    """A search by time whose machine has been timed, and was slow."""

    def stop(stage: str, done: float, total: float, best: str | None) -> None:
        raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        _search(folder, progress=stop, budget="1h", lockstep=1)
    record = load_record(folder)
    for path in folder.iterdir():
        if path.name != "record.json":
            path.unlink()
    save_record(folder, replace(record, trial_counts=TrialCounts(4, 0)))


def _command(folder: Path) -> None:
    """The command, which hears signals, and draws its page."""
    table = folder.with_name(TABLE)
    if not table.exists():
        inputs, given = digits()
        names = ",".join(f"x{i}" for i in range(inputs.shape[1]))
        rows = np.column_stack([inputs, given])
        np.savetxt(table, rows, "%d", delimiter=",", header=f"{names},label", comments="")
    words = "--label label --epochs 3 --batch-size 32 --schedule constant --baselines standard"
    sys.argv = ["keeprate", "train", str(table), *words.split(), "--quiet", "--out", str(folder)]
    commands.main()


KINDS = {
    "search": Kind(_search),
    "search-time": Kind(lambda folder: _search(folder, budget="1h", lockstep=1), _timed),
    "search-tpe": Kind(
        lambda folder: _search(
            folder, search_config=SearchConfig(sampler="tpe", pruner="halving"), lockstep=2
        )
    ),
    "train": Kind(lambda folder: _train(folder, method="standard")),
    "baselines": Kind(lambda folder: _train(folder, baselines="standard,f-correction")),
    "command": Kind(_command),
}
"""By name. "baselines" has the first training that estimates the noise rate."""


def draw_no_page() -> None:
    """Leave the page to the command: drawing takes longer than all else."""
    outputs._write_report = lambda folder, record: None


def results(folder: Path) -> dict[str, Any]:
    """All that a finished run leaves, by the names of the files, but for times."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_dir() or path.name == ".lock":
            continue
        if path.name == "record.json":
            found[name] = _timeless(json.loads(path.read_text()))
        elif path.name == "model.safetensors":  # whose header has no order
            tensors, described = load_tensors(path)
            found[name] = described, {n: t.numpy().tobytes() for n, t in tensors.items()}
        elif path.name in DRAWN or path.name == "study.db":
            found[name] = None  # the record holds the trials
        else:
            found[name] = path.read_bytes()
    classifier = keeprate.load(folder)
    found["probabilities"] = classifier.predict_proba(digits()[0]).tobytes()
    return found


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _timeless(v) for k, v in value.items() if "seconds" not in k and k != "command"}
    return [_timeless(one) for one in value] if isinstance(value, list) else value
