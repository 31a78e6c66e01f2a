"""A rare class, searched by average precision or by accuracy: `python -m benchmarks.imbalanced`.

Two classes of scikit-learn's `make_classification`, 5 % of the samples positive: 2,000 for
training, 10 % of whose labels are flipped, 1,000 for validation and 4,000 for the test, both with
right labels. Each seed draws other data. Two searches with the same budget see the same data, and
differ only in what chooses the schedule and the final network. Beside them stands whoever always
names the frequent class.

The settings were tried on seeds from 1000 on (`--first 1000 --out FOLDER`); the rows are of the
seeds 100 to 104. The same command goes on after a kill. The results are in
`results/imbalanced.json`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import make_classification
from sklearn.metrics import average_precision_score

import keeprate
from benchmarks.common import RESULTS
from experiments.common import Row
from experiments.jobs import Job, run_missing
from experiments.rows import in_words, mean_std
from keeprate import Data, TrainingConfig

METRICS = ("average_precision", "accuracy")
FIRST, SEEDS = 100, 5
SIZES = {"train": 2_000, "validation": 1_000, "test": 4_000}
POSITIVE, NOISE = 0.05, "symmetric:0.1"
SEARCH: dict[str, Any] = {"budget": "10trials", "restarts": 3, "baselines": False}
CONFIG = TrainingConfig(epochs=30, batch_size=64)
FEATURES = {"n_features": 20, "n_informative": 8, "n_redundant": 4, "class_sep": 1.0}
PROTOCOL = {
    "sizes": SIZES,
    "positive": POSITIVE,
    "noise": NOISE,
    "features": FEATURES,
    "epochs": CONFIG.epochs,
    "batch_size": CONFIG.batch_size,
    **SEARCH,
}


def some_data(seed: int) -> Data:
    """Samples of two classes, "rare" and "usual", in three splits."""
    inputs, labels = make_classification(
        sum(SIZES.values()), weights=[1 - POSITIVE], flip_y=0, random_state=seed, **FEATURES
    )
    names, splits, start = np.array(["usual", "rare"])[labels], {}, 0
    for name, size in SIZES.items():
        rows = slice(start, start + size)
        splits[name] = (inputs[rows].astype(np.float32), names[rows])
        start += size
    return keeprate.prepare(splits, noise=NOISE, seed=seed)


def search(metric: str, seed: int) -> Row:
    """What the classifier of a search is worth on the test samples, and who names one class."""
    data = some_data(seed)
    run = keeprate.search(data, metric=metric, config=CONFIG, seed=seed, **SEARCH)
    test, found = data.test, run.record.by_class
    if test is None or found is None:
        raise ValueError("data without test samples")
    rare = data.class_names.index("rare")
    is_rare = (test.labels == rare).numpy()
    of_rare = run.classifier.probabilities(test.inputs)[:, rare].numpy()
    return {
        "average_precision": round(float(average_precision_score(is_rare, of_rare)), 6),
        "accuracy": round(found.accuracy, 6),
        "majority_average_precision": float(is_rare.mean()),
        "majority_accuracy": found.majority_accuracy,
        "recall": found.recall(rare),
        "keep_rate_at_the_end": run.results[0].schedule.keep_rate[-1].item(),
        "seconds": round(run.record.cost.search_seconds + run.record.cost.final_seconds, 1),
    }


def differences(rows: Sequence[Row], measure: str) -> list[float]:
    """By average precision minus by accuracy, seed by seed."""
    by = {(row["metric"], row["seed"]): row[measure] for row in rows}
    seeds = dict.fromkeys(row["seed"] for row in rows)
    pairs = [[by.get((metric, seed)) for metric in METRICS] for seed in seeds]
    return [first - second for first, second in pairs if first is not None and second is not None]


def table(rows: Sequence[Row]) -> list[str]:
    """Lines of Markdown: mean and deviation over seeds, and the paired differences."""
    lines = ["| | test average precision | test accuracy, % |", "| --- " * 3 + "|"]
    for metric in METRICS:
        own = [row for row in rows if row["metric"] == metric]
        lines.append(_line(f"searched by {metric.replace('_', ' ')}", own, ""))
    lines.append(_line("always the frequent class", rows, "majority_"))
    apart = mean_std([100 * one for one in differences(rows, "average_precision")])
    of_accuracy = mean_std([100 * one for one in differences(rows, "accuracy")])
    lines.append(f"| difference, points | {in_words(*apart)} | {in_words(*of_accuracy)} |")
    return lines


def _line(name: str, rows: Sequence[Row], prefix: str) -> str:
    cells = [
        in_words(*mean_std([100 * row[f"{prefix}{measure}"] for row in rows]))
        for measure in ("average_precision", "accuracy")
    ]
    return f"| {name} | {cells[0]} | {cells[1]} |"


def main() -> None:
    """Run the searches that have no row yet, then print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--first", type=int, default=FIRST, help="the first seed")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--jobs", type=int, default=1, help="searches at the same time")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the folder of the JSON file")
    options = parser.parse_args()
    jobs = [
        Job({"metric": metric, "seed": seed}, partial(search, metric, seed))
        for seed in range(options.first, options.first + options.seeds)
        for metric in METRICS
    ]
    rows = run_missing(
        "imbalanced",
        "",
        PROTOCOL,
        jobs,
        at_once=options.jobs,
        results=options.out,
        command="python -m benchmarks.imbalanced",
        words=lambda row: f"average precision {row['average_precision']:.3f}",
    )
    print("\n".join(table(rows)))


if __name__ == "__main__":
    main()
