"""The main job on MNIST: search R(t), and compare with Co-teaching's own R(t) and with Standard.

Noise, split, initial weights and search all vary with the seed. On two cores two runs side by side,
one thread each, take less time than two runs one after the other.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import keeprate
from experiments.common import Row, command_of, load_data
from experiments.jobs import Job, run_seeds
from experiments.rows import (
    best_epoch_as_row,
    cost_as_row,
    last_epoch_as_row,
    precision_of,
    trial_as_row,
)
from keeprate import Run, SearchConfig, TrainingConfig
from keeprate.records import Result
from keeprate.schedules import presets_in_words
from keeprate.searching import MOST_FINALISTS, Budget, exploring

NAME = "main_job"
SUMMARY = "the main job on MNIST, four protocols (trains)"
NOISES = ("symmetric:0.5", "pairflip:0.45")
EPOCHS = 40
LEARNING_RATES = {"linear-decay": "linear decay from 40 %", "constant": "constant"}


@dataclass(frozen=True)
class Protocol:
    """Which learning rate, and what a search may cost.

    Attributes
    ----------
    name, title : str
    learning_rate_schedule : str
    budget : str
        Of `keeprate.search`: a number of full trainings, or of trials.
    restarts : int
        Of each final training.
    fidelity : float
        Of the trials, where the budget is their number.
    seeds : int
    """

    name: str
    title: str
    learning_rate_schedule: str
    budget: str
    restarts: int
    fidelity: float = 1.0
    seeds: int = 3

    def as_row(self) -> Row:
        """The protocol as the results file holds it."""
        budget = Budget.parse(self.budget)
        amount = int(budget.amount)
        cost: Row = {"budget": amount}
        if budget.unit == "trials":
            cost = {"trials": amount, "fidelity": self.fidelity}
        return {
            "data": "MNIST, all 60,000 training samples; test set halved: "
            "5,000 validation, 5,000 test",
            "network": "MLP 784-256-10, batch 128, Adam 0.001, "
            + LEARNING_RATES[self.learning_rate_schedule],
            "epochs": EPOCHS,
            **cost,
            "restarts": self.restarts,
            "finalists": MOST_FINALISTS,
            "sampler": "natural-gradient",
            "confirm": True,
            "warm_start": presets_in_words(exploring(amount)),
        }


PROTOCOLS = (
    Protocol("trials", "40 trials", "linear-decay", "40trials", restarts=3, fidelity=0.4),
    Protocol(
        "trials-constant",
        "40 trials, constant learning rate",
        "constant",
        "40trials",
        restarts=3,
        fidelity=0.4,
    ),
    Protocol(
        "budget", "a budget of 6 trainings, constant learning rate", "constant", "6", restarts=2
    ),
    Protocol("budget-decay", "a budget of 6 trainings", "linear-decay", "6", restarts=3),
)


def get_protocol(name: str) -> Protocol:
    """The protocol of that name."""
    return next(protocol for protocol in PROTOCOLS if protocol.name == name)


def run(protocol: Protocol, *, data: str, runs: str, **options: Any) -> list[Row]:
    """Run what the results file does not have yet; see `Comparison.run` for the arguments."""

    def jobs(seed: int) -> Iterator[Job]:
        for noise in NOISES:
            search = partial(_search, protocol, noise, seed, data, runs)
            yield Job({"noise": noise, "seed": seed}, search)

    return run_seeds(NAME, protocol, jobs, words=_accuracies, **options)


def _search(protocol: Protocol, noise: str, seed: int, data: str, runs: str) -> Row:
    """One search with its baselines."""
    started = time.perf_counter()
    run = keeprate.search(
        keeprate.prepare(load_data(data, "mnist"), noise=noise, seed=seed),
        budget=protocol.budget,
        model="mlp",
        config=TrainingConfig(
            epochs=EPOCHS, learning_rate_schedule=protocol.learning_rate_schedule
        ),
        search_config=SearchConfig(fidelity=protocol.fidelity),
        baselines=True,
        restarts=protocol.restarts,
        seed=seed,
        out=Path(runs) / "-".join([NAME, protocol.name, noise.replace(":", "-"), f"seed{seed}"]),
        command=command_of(NAME, protocol.name),
    )
    return _run_as_row(run, time.perf_counter() - started)


def _run_as_row(run: Run, wall_seconds: float) -> Row:
    """What a row keeps of a search.

    `wall_seconds` are those of the last start: a run that went on after a kill took longer.
    """
    record = run.record
    return {
        "noise_rate": record.data.noise_rate,
        "keep_rate": run.schedule.keep_rate.tolist(),
        "results": {result.name: _result_as_row(result) for result in run.results},
        "trials": [trial_as_row(trial) for trial in record.trials],
        "finalists": [list(numbers) for numbers in record.finalists],
        "precision": precision_of(record),
        "cost": cost_as_row(record.cost) | {"wall_seconds": wall_seconds},
    }


def _result_as_row(result: Result) -> Row:
    return {
        "last": last_epoch_as_row(result),
        "best": best_epoch_as_row(result),
        "test_accuracy": result.curves.test_accuracy,
        "label_precision": result.curves.label_precision,
        "seconds": result.seconds,
    }


def _accuracies(row: Row) -> str:
    return ", ".join(
        f"{name} {100 * result['last']['test_accuracy']:.2f} %"
        for name, result in row["results"].items()
    )


def table_rows(stored: dict[str, Any] | None) -> list[Row]:
    """The final trainings of a results file, each a row as the tables have them."""
    if stored is None:
        return []
    return [
        {
            "noise": row["noise"],
            "seed": row["seed"],
            "name": "proposed" if name == "searched" else name,
            "noise_rate": row["noise_rate"],
            "last": result["last"],
            "best": result["best"],
            "keep_rate": row["keep_rate"] if name == "searched" else None,
        }
        for row in stored["rows"]
        for name, result in row["results"].items()
    ]
