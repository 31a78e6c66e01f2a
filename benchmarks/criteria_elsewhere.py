"""Does the criterion rank schedules on other data, too? `python -m benchmarks.criteria_elsewhere`.

The determinant was chosen on MNIST (`benchmarks.criteria`). Here Co-teaching trains the first 32
random schedules of the basis space on data that had no part in that choice: scikit-learn's digits
with injected noise (MLP, 40 epochs, batch 32), and 5,000 CIFAR-10 samples with the worst labels
that people gave, those of CIFAR-10N (Model 1, 20 epochs, batch 64). Held-out samples validate with
their noise, as in a search without clean labels. The mean score of the last tenth of the epochs is
compared, by Spearman's correlation, with the mean test accuracy of the same epochs.

The same command goes on after a kill. The results are in `results/criteria_elsewhere.json`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray

import keeprate
from benchmarks.common import run_rows, with_noisy_validation
from benchmarks.criteria import compare
from experiments.common import Row
from experiments.jobs import Job
from keeprate import Data, TrainingConfig
from keeprate.engine import Candidate, Curves, get_method, make_setup, train_candidates
from keeprate.schedules import get_space

SCHEDULES = 32
SETTINGS: dict[str, dict[str, Any]] = {
    "digits": {"model": "mlp", "epochs": 40, "batch_size": 32},
    "cifar-10": {"model": "model1", "epochs": 20, "batch_size": 64},
}
NOISES = {"digits": ("pairflip:0.45", "symmetric:0.5"), "cifar-10": ("worse_label",)}
CIFAR_SAMPLES = 5_000
PROTOCOL = {
    "schedules": f"{SCHEDULES} random ones of the basis space",
    "method": "co-teaching",
    "settings": SETTINGS,
    "digits: validation": "a quarter of the training samples",
    "cifar-10: samples, of which a tenth validates": CIFAR_SAMPLES,
}


def load(name: str, noise: str, seed: int, folder: str) -> Data:
    """Data whose validation labels are as noisy as the training labels."""
    if name == "digits":
        return keeprate.prepare("digits", noise=noise, seed=seed, validation="noisy")
    human = keeprate.load_data(Path(folder) / name, label=noise, true_label="label")
    return with_noisy_validation(keeprate.prepare(human, seed=seed, limit=CIFAR_SAMPLES), seed)


def rank(name: str, noise: str, seed: int, folder: str) -> Row:
    """Train the schedules, and compare the criteria."""
    data, setting = load(name, noise, seed, folder), SETTINGS[name]
    config = TrainingConfig(epochs=setting["epochs"], batch_size=setting["batch_size"])
    space = get_space("basis")
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    candidates = []
    for number in range(SCHEDULES):
        parameters = study.ask(space.distributions(config.epochs)).params
        schedule = space.schedule(parameters, config.epochs)
        candidates.append(Candidate(number, schedule, get_method("co-teaching")))
    curves: dict[int, Curves] = {}
    train_candidates(
        candidates,
        make_setup(data, model=setting["model"], config=config, seed=seed, out=None),
        stream="trial",
        after_group=lambda population: curves.update(population.curves),
    )
    n_last = max(1, config.epochs // 10)
    complete = [of_schedule for of_schedule in curves.values() if len(of_schedule) == config.epochs]

    def late(metric: str) -> NDArray[np.float64]:
        return np.array(
            [np.mean(getattr(of_schedule, metric)[-n_last:]) for of_schedule in complete]
        )

    criteria = {
        "determinant": late("validation_score"),
        "accuracy, noisy labels": late("validation_accuracy"),
    }
    return compare(late("test_accuracy"), criteria) | {"noise_rate": data.noise_rate}


def table(rows: Sequence[Row]) -> list[str]:
    """Lines of Markdown: correlation over all and the better half, accuracy of the first."""
    header = "| data, noise, seed | best schedule, % | determinant | accuracy, noisy labels |"
    lines = [header, "| --- " * 4 + "|"]
    for row in rows:
        cells = [f"{row['data']}, {row['noise']}, {row['seed']}"]
        cells.append(f"{100 * row['best_test_accuracy']:.1f}")
        for numbers in row["criteria"].values():
            first = f"{100 * numbers['test_accuracy_of_its_choice']:.1f}"
            cells.append(f"{numbers['spearman']:.3f} {numbers['spearman_better_half']:.3f} {first}")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def jobs_of(seeds: int, folder: str) -> list[Job]:
    """A job for each row; CIFAR-10, which costs most, has a single seed."""
    return [
        Job({"data": name, "noise": noise, "seed": seed}, partial(rank, name, noise, seed, folder))
        for name, noises in NOISES.items()
        for noise in noises
        for seed in range(seeds if name == "digits" else 1)
    ]


if __name__ == "__main__":
    run_rows(
        "criteria_elsewhere",
        __doc__,
        PROTOCOL,
        jobs_of,
        table,
        words=lambda row: f"Spearman {row['criteria']['determinant']['spearman']}",
    )
