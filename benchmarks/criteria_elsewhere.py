"""Does the criterion rank schedules on other data, too? `python -m benchmarks.criteria_elsewhere`.

The determinant was chosen on MNIST (`benchmarks.criteria`). Here the first 32 random schedules of
the basis space are trained by Co-teaching on data that had no say in it: scikit-learn's digits with
injected noise (MLP, 40 epochs, batch 32), and 5,000 CIFAR-10 samples with the labels that people
gave, CIFAR-10N's worst (Model 1, 20 epochs, batch 64). Held-out samples validate with their noise,
as a search without clean labels has it; the mean score of the last tenth of the epochs is compared,
by Spearman's correlation, with the mean test accuracy of the same epochs.

The same command goes on after a kill; the results are in `results/criteria_elsewhere.json`.
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
from experiments.common import Job, Row
from keeprate.data import Data
from keeprate.engine import Curves, TrainingConfig, get_method, make_setup, train_schedules
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
    """Data whose validation samples have labels as noisy as the training samples'."""
    if name == "digits":
        return keeprate.prepare("digits", noise=noise, seed=seed, validation="noisy")
    human = keeprate.load(Path(folder) / name, label=noise, true_label="label")
    return with_noisy_validation(keeprate.prepare(human, seed=seed, limit=CIFAR_SAMPLES), seed)


def rank(name: str, noise: str, seed: int, folder: str) -> Row:
    """Train the schedules, compare what is said of them."""
    data, options = load(name, noise, seed, folder), SETTINGS[name]
    config = TrainingConfig(epochs=options["epochs"], batch_size=options["batch_size"])
    space, sampler = get_space("basis"), optuna.samplers.RandomSampler(seed=seed)
    study, distributions = optuna.create_study(sampler=sampler), space.distributions(config.epochs)
    setup = make_setup(
        data,
        model=options["model"],
        config=config,
        seed=seed,
        out=None,
        lockstep=None,
        progress=None,
    )
    curves: dict[int, Curves] = {}
    train_schedules(
        range(SCHEDULES),
        [space.schedule(study.ask(distributions).params, config.epochs) for _ in range(SCHEDULES)],
        setup,
        methods=[get_method("co-teaching")] * SCHEDULES,
        stream="trial",
        data=data,
        after_group=lambda population: curves.update(population.curves),
    )
    last = max(1, config.epochs // 10)
    whole = [one for one in curves.values() if len(one.validation_score) == config.epochs]

    def late(what: str) -> NDArray[np.float64]:
        return np.array([np.mean(getattr(one, what)[-last:]) for one in whole])

    found = {
        "determinant": late("validation_score"),
        "accuracy, noisy labels": late("validation_accuracy"),
    }
    return compare(late("test_accuracy"), found) | {"noise_rate": data.noise_rate}


def table(rows: Sequence[Row]) -> list[str]:
    """Lines of Markdown: correlation over all and the better half, accuracy of the choice."""
    heads = "| data, noise, seed | best schedule, % | determinant | accuracy, noisy labels |"
    lines = [heads, "| --- " * 4 + "|"]
    for row in rows:
        cells = [f"{row['data']}, {row['noise']}, {row['seed']}"]
        cells.append(f"{100 * row['best_test_accuracy']:.1f}")
        for said in row["criteria"].values():
            chosen = f"{100 * said['test_accuracy_of_its_choice']:.1f}"
            cells.append(f"{said['spearman']:.3f} {said['spearman_better_half']:.3f} {chosen}")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def jobs_of(seeds: int, folder: str) -> list[Job]:
    """A job for each row; of the dear one a single seed."""
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
