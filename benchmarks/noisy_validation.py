"""A search without a clean label against one with 5,000: `python -m benchmarks.noisy_validation`.

MNIST, 20,000 samples with noise, MLP, 40 epochs, a budget of six full trainings, three final
trainings. All runs train on the same 18,000 samples, chosen at random, so they differ only in what
validates: the other 2,000 samples with their noise, or 5,000 clean labels of the test images. (Who
has clean labels could train on the 2,000, too.) A third run has no search but
``schedule="auto"``: a quarter of a training estimates the noise rate, and one of three final
trainings keeps every sample. All are tested on the other 5,000 test images with their true labels.
The estimated noise rate stands beside the true one.

The same command goes on after a kill. The results are in `results/noisy_validation.json`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import keeprate
from benchmarks.common import run_rows, with_noisy_validation
from experiments.common import NOISES, Row
from experiments.jobs import Job
from experiments.rows import (
    best_epoch_as_row,
    cost_as_row,
    in_words,
    last_epoch_as_row,
    mean_std,
)
from keeprate import Data, Run, TrainingConfig
from keeprate.searching import MOST_FINALISTS, experience_digest

NO_SEARCH = "no search"
VALIDATIONS = {
    "clean": "searched, 5,000 clean labels",
    "noisy": "searched, no clean label",
    NO_SEARCH: "auto, no clean label",
}
SAMPLES, EPOCHS, BUDGET, RESTARTS = 20_000, 40, 6, 3
PROTOCOL = {
    "data": "mnist",
    "samples": SAMPLES,
    "left out of training, to validate where no label is clean": SAMPLES // 10,
    "model": "mlp",
    "epochs": EPOCHS,
    "budget": BUDGET,
    "restarts": RESTARTS,
    "finalists": MOST_FINALISTS,
    "warm start": experience_digest(),
    "auto": "R(t) by the estimated noise rate, or every sample kept",
    "test samples": 5_000,
}


def prepared(folder: str, noise: str, seed: int, samples: int, *, clean: bool) -> Data:
    """The same training and test samples, with clean validation labels or with noisy ones."""
    source = folder if folder == "digits" else str(Path(folder) / "mnist")
    data = keeprate.prepare(source, noise=noise, seed=seed, limit=samples)
    noisy = with_noisy_validation(data, seed)
    return replace(data, train=noisy.train) if clean else noisy


def run_one(noise: str, validation: str, seed: int, folder: str, samples: int, epochs: int) -> Row:
    """One search and its final trainings; without a search only these."""
    data = prepared(folder, noise, seed, samples, clean=validation == "clean")
    options: dict[str, Any] = {
        "method": "co-teaching",
        "model": "mlp",
        "config": TrainingConfig(epochs=epochs),
        "restarts": RESTARTS,
        "seed": seed,
        "baselines": False,
    }
    if validation == NO_SEARCH:
        return _run_as_row(keeprate.train(data, schedule="auto", **options))
    return _run_as_row(keeprate.search(data, budget=BUDGET, **options))


def _run_as_row(run: Run) -> Row:
    result, estimate = run.results[0], run.record.noise_estimate
    if estimate is None:
        raise ValueError("every finished run estimates its noise")
    return {
        "last": last_epoch_as_row(result),
        "best": best_epoch_as_row(result),
        "keep_rate": [round(rate, 5) for rate in run.schedule.keep_rate.tolist()],
        "noise_rate": run.record.data.noise_rate,
        "noise_estimate": {
            "noise_rate": estimate.noise_rate,
            "noise_rate_std": estimate.noise_rate_std,
        },
        "cost": cost_as_row(run.record.cost),
    }


def table(rows: Sequence[Row]) -> list[str]:
    """Lines of Markdown: percent, mean and deviation over seeds."""
    lines = [
        "| noise | R(t) | test, last epoch | best epoch | estimated noise rate | true |",
        "| --- " * 6 + "|",
    ]
    for noise in dict.fromkeys(row["noise"] for row in rows):
        for validation, words in VALIDATIONS.items():
            key = (noise, validation)
            by_seed = [row for row in rows if (row["noise"], row["validation"]) == key]
            if not by_seed:
                continue
            columns = (
                [row["last"]["test_accuracy"] for row in by_seed],
                [row["best"]["test_accuracy"] for row in by_seed],
                [row["noise_estimate"]["noise_rate"] for row in by_seed],
                [row["noise_rate"] for row in by_seed],
            )
            cells = [in_words(*mean_std([100 * value for value in column])) for column in columns]
            lines.append(f"| {NOISES.get(noise, noise)} | {words} | {' | '.join(cells)} |")
    return lines


def jobs_of(seeds: int, folder: str) -> list[Job]:
    """A job for each row, seed by seed."""
    return [
        Job(
            {"noise": noise, "validation": validation, "seed": seed},
            partial(run_one, noise, validation, seed, folder, SAMPLES, EPOCHS),
        )
        for seed in range(seeds)
        for noise in ("pairflip:0.45", "symmetric:0.5", "symmetric:0.2")
        for validation in VALIDATIONS
    ]


if __name__ == "__main__":
    run_rows("noisy_validation", __doc__, PROTOCOL, jobs_of, table)
