"""Rare classes under small-loss selection: `python -m benchmarks.long_tail [--jobs 2]`.

MNIST's training samples are thinned out class by class, from 3,000 of the digit 0 down to 60 of the
digit 9 (each class 0.65 of the class before). Losses in rare classes stay large, so small-loss
selection takes their samples for wrong labels. `-per-class` keeps the same share of every class.
That suits noise that strikes the labels of every class alike. Mistakes do so that name a class as
often as it occurs ("by frequency": 20 % of the labels are drawn anew, 15.6 % become wrong). Under
pairflip and symmetric noise many wrong labels name a rare class, and quotas keep them.

Co-teaching's own schedule, MLP, 40 epochs. The test set stays balanced: its accuracy is the mean
over classes. The same command goes on after a kill. The results are in `results/long_tail.json`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import keeprate
from benchmarks.common import run_rows
from experiments.common import Row
from experiments.jobs import Job
from experiments.rows import in_words, mean_std
from keeprate import TrainingConfig
from keeprate.data import Loaded, part

METHODS = ("co-teaching", "co-teaching-per-class", "standard")
BY_FREQUENCY = "by frequency:0.2"
NOISES = ("pairflip:0.2", "symmetric:0.2", BY_FREQUENCY)
RATE = 0.2
MOST, LEAST = 3_000, 60
PROTOCOL = {"data": "mnist", "most": MOST, "least": LEAST, "model": "mlp", "epochs": 40}


def thinned(loaded: Loaded, seed: int, most: int, least: int) -> Loaded:
    """The data with fewer and fewer training samples of each class."""
    train, n_classes = loaded.splits["train"], len(loaded.class_names)
    rng, labels = np.random.default_rng(seed), train.labels.numpy()
    sizes = np.round(most * (least / most) ** (np.arange(n_classes) / (n_classes - 1))).astype(int)
    kept = [
        rng.permutation(np.flatnonzero(labels == c))[:size] for c, size in enumerate(sizes.tolist())
    ]
    return replace(loaded, splits=loaded.splits | {"train": part(train, np.concatenate(kept))})


def by_frequency(labels: NDArray[np.int64], n_classes: int, rate: float) -> NDArray[np.float64]:
    """T [C, C] of mistakes that name each class as often as it occurs."""
    frequencies = np.bincount(labels, minlength=n_classes) / len(labels)
    matrix: NDArray[np.float64] = (1 - rate) * np.eye(n_classes) + rate * frequencies
    return matrix


def train(method: str, noise: str, seed: int, folder: str) -> Row:
    """The share of right predictions in each class after one training."""
    loaded = thinned(keeprate.load_data(Path(folder) / "mnist"), seed, MOST, LEAST)
    with tempfile.TemporaryDirectory() as matrices:
        if noise == BY_FREQUENCY:
            labels = loaded.splits["train"].labels.numpy()
            np.save(f"{matrices}/T.npy", by_frequency(labels, len(loaded.class_names), RATE))
            noise = f"matrix:{matrices}/T.npy"
        data = keeprate.prepare(loaded, noise=noise, seed=seed)
    run = keeprate.train(
        data,
        schedule="constant" if method == "standard" else "co-teaching",
        method=method,
        model="mlp",
        config=TrainingConfig(epochs=40),
        seed=seed,
        noise_rate=RATE,
        baselines=False,
    )
    test = data.test or data.validation
    right = run.classifier.probabilities(test.inputs).argmax(-1) == test.labels
    recalls = [float(right[test.labels == c].float().mean()) for c in range(data.n_classes)]
    return {"recalls": recalls, "seconds": run.record.cost.final_seconds}


def table(rows: Sequence[Row]) -> list[str]:
    """Lines of Markdown: percent, mean and deviation over seeds."""
    lines = ["| noise | method | mean over classes | the three rarest |", "| --- " * 4 + "|"]
    for noise, method in dict.fromkeys((row["noise"], row["method"]) for row in rows):
        by_seed = [
            row["recalls"] for row in rows if (row["noise"], row["method"]) == (noise, method)
        ]
        cells = [
            in_words(*mean_std([100 * float(np.mean(recalls[start:])) for recalls in by_seed]))
            for start in (0, -3)
        ]
        lines.append(f"| {noise} | {method} | {cells[0]} | {cells[1]} |")
    return lines


def jobs_of(seeds: int, folder: str) -> list[Job]:
    """A job for each row, seed by seed."""
    return [
        Job(
            {"noise": noise, "method": method, "seed": seed},
            partial(train, method, noise, seed, folder),
        )
        for seed in range(seeds)
        for noise in NOISES
        for method in METHODS
    ]


if __name__ == "__main__":
    run_rows(
        "long_tail",
        __doc__,
        PROTOCOL,
        jobs_of,
        table,
        words=lambda row: f"{100 * np.mean(row['recalls']):.2f} %",
    )
