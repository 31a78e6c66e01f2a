"""A search without a clean label against one with 5,000: `python -m benchmarks.noisy_validation`.

MNIST, 20,000 training samples, MLP, 40 epochs, a budget of six full trainings, three final
trainings. With `--validation noisy` a tenth of the training samples validates, with its noise, so
that 18,000 are left; otherwise 5,000 clean ones of the test images do. Beside the two:
no search, but ``schedule="auto"``: a quarter of a training, and the final ones. All are judged on
5,000 test images with their true labels. The estimated noise rate stands beside the true one.

The same command goes on after a kill; the results are in `results/noisy_validation.json`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import keeprate
from benchmarks.common import run_rows
from experiments.common import NOISES, Job, Row, in_words, mean_std
from keeprate.training import TrainingConfig

NO_SEARCH = "no search"
VALIDATIONS = {
    "auto": "searched, 5,000 clean labels",
    "noisy": "searched, no clean label",
    NO_SEARCH: "by the estimated noise rate, no clean label",
}
SAMPLES, EPOCHS, BUDGET, RESTARTS, N_TEST = 20_000, 40, 6, 3, 5_000
PROTOCOL = {
    "data": "mnist",
    "samples": SAMPLES,
    "model": "mlp",
    "epochs": EPOCHS,
    "budget": BUDGET,
    "restarts": RESTARTS,
    "test samples": N_TEST,
}


def run_one(noise: str, validation: str, seed: int, folder: str, samples: int, epochs: int) -> Row:
    """One search and its final trainings; or these alone."""
    source = folder if folder == "digits" else str(Path(folder) / "mnist")
    data = keeprate.prepare(
        source,
        noise=noise,
        seed=seed,
        limit=samples,
        validation="noisy" if validation == NO_SEARCH else validation,
        n_test=None if folder == "digits" else N_TEST,
    )
    options: dict[str, Any] = {
        "config": TrainingConfig(epochs=epochs),
        "restarts": RESTARTS,
        "seed": seed,
        "baselines_too": False,
    }
    if validation == NO_SEARCH:
        run = keeprate.train(data, schedule="auto", **options)
    else:
        run = keeprate.search(data, budget=BUDGET, **options)
    record = run.record
    return {
        "last": record["results"][0]["last"],
        "best": record["results"][0]["best"],
        "keep_rate": [round(rate, 5) for rate in run.schedule.keep_rate.tolist()],
        "noise_rate": record["data"]["noise_rate"],
        "noise_estimate": {
            name: record["noise_estimate"][name] for name in ("noise_rate", "noise_rate_std")
        },
        "cost": record["cost"],
    }


def table(rows: Sequence[Row]) -> list[str]:
    """Lines of Markdown: percent, mean and deviation over seeds."""
    lines = [
        "| noise | R(t) | test, last epoch | best epoch | estimated noise rate | true |",
        "| --- " * 6 + "|",
    ]
    for noise in dict.fromkeys(row["noise"] for row in rows):
        for validation, words in VALIDATIONS.items():
            mine = [r for r in rows if (r["noise"], r["validation"]) == (noise, validation)]
            if not mine:
                continue
            numbers = (
                [r["last"]["test_accuracy"] for r in mine],
                [r["best"]["test_accuracy"] for r in mine],
                [r["noise_estimate"]["noise_rate"] for r in mine],
                [r["noise_rate"] for r in mine],
            )
            cells = [in_words(*mean_std([100 * value for value in one])) for one in numbers]
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
    run_rows(
        "noisy_validation",
        __doc__,
        PROTOCOL,
        jobs_of,
        table,
    )
