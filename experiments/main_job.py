"""The main job on MNIST: search R(t), compare with Co-teaching's own and with none.

Noise, split, initial weights and search all vary with the seed. Two runs at a time on two cores,
one thread each, take less time than one after the other on two threads.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import keeprate
from experiments.common import Job, Row, command_of, load_data, run_seeds
from keeprate.engine import TrainingConfig
from keeprate.schedules import presets_in_words
from keeprate.searching import MOST_FINALISTS, exploring

NAME = "main_job"
SUMMARY = "the main job on MNIST, four protocols (trains)"
NOISES = ("symmetric:0.5", "pairflip:0.45")
EPOCHS = 40
TRIALS = {"trials": 40, "fidelity": 0.4, "restarts": 3}
LR_SCHEDULES = {"linear-decay": "linear decay from 40 %", "constant": "constant"}


@dataclass(frozen=True)
class Protocol:
    """Which learning rate, and what a search may cost.

    Attributes
    ----------
    name, title : str
    lr_schedule : str
    search : dict
        Arguments of `keeprate.search`.
    """

    name: str
    title: str
    lr_schedule: str
    search: dict[str, Any]
    seeds: int = 3

    def as_row(self) -> Row:
        """For the results file."""
        trials: int = self.search.get("trials") or self.search["budget"]
        return {
            "data": "MNIST, all 60,000 training samples; test set halved: "
            "5,000 validation, 5,000 test",
            "network": "MLP 784-256-10, batch 128, Adam 0.001, " + LR_SCHEDULES[self.lr_schedule],
            "epochs": EPOCHS,
            **self.search,
            "finalists": MOST_FINALISTS,
            "sampler": "natural-gradient",
            "confirm": True,
            "warm_start": presets_in_words(exploring(trials)),
        }


PROTOCOLS = (
    Protocol("trials", "40 trials", "linear-decay", TRIALS),
    Protocol("trials-constant", "40 trials, constant learning rate", "constant", TRIALS),
    Protocol(
        "budget",
        "a budget of 6 trainings, constant learning rate",
        "constant",
        {"budget": 6, "restarts": 2},
    ),
    Protocol(
        "budget-decay", "a budget of 6 trainings", "linear-decay", {"budget": 6, "restarts": 3}
    ),
)


def protocol_named(name: str) -> Protocol:
    return next(protocol for protocol in PROTOCOLS if protocol.name == name)


def lines_of(found: dict[str, Any] | None) -> list[Row]:
    """The trainings of a results file, each a row as the tables have them."""
    return [
        {
            "noise": run["noise"],
            "seed": run["seed"],
            "name": "proposed" if name == "searched" else name,
            "noise_rate": run["noise_rate"],
            "last": result["last"],
            "best": result["best"],
            "keep_rate": run["keep_rate"] if name == "searched" else None,
        }
        for run in (found or {"rows": []})["rows"]
        for name, result in run["results"].items()
    ]


def run_one(protocol: Protocol, noise: str, seed: int, data: str, runs: str) -> Row:
    """One search with its baselines."""
    started = time.perf_counter()
    run = keeprate.search(
        keeprate.prepare(load_data(data, "mnist"), noise=noise, seed=seed),
        **protocol.search,
        config=TrainingConfig(epochs=EPOCHS, learning_rate_schedule=protocol.lr_schedule),
        seed=seed,
        out=Path(runs) / "-".join([NAME, protocol.name, noise.replace(":", "-"), f"seed{seed}"]),
        command=command_of(NAME, protocol.name),
    )
    record = run.record
    return {
        "noise_rate": record["data"]["noise_rate"],
        "keep_rate": run.schedule.keep_rate.tolist(),
        "results": {
            r["name"]: {
                "last": r["last"],
                "best": r["best"],
                "test_accuracy": r["curves"]["test_accuracy"],
                "label_precision": r["curves"]["label_precision"],
                "seconds": r["seconds"],
            }
            for r in record["results"]
        },
        "trials": [
            {name: t[name] for name in ("number", "state", "value", "confirms", "parameters")}
            for t in record["trials"]
        ],
        "finalists": record["finalists"],
        "precision": record["config"]["training"]["precision"],
        # Of this start: a run that goes on after a kill was longer than that.
        "cost": record["cost"] | {"wall_seconds": time.perf_counter() - started},
    }


def _accuracies(row: Row) -> str:
    each = [
        f"{name} {100 * r['last']['test_accuracy']:.2f} %" for name, r in row["results"].items()
    ]
    return ", ".join(each)


def run(protocol: Protocol, *, data: str, runs: str, **options: Any) -> list[Row]:
    """Run what the results file does not have yet; `data` is the folder of data sets."""

    def jobs(seed: int) -> Iterator[Job]:
        for noise in NOISES:
            train = partial(run_one, protocol, noise, seed, data, runs)
            yield Job({"noise": noise, "seed": seed}, train)

    return run_seeds(NAME, protocol, jobs, words=_accuracies, **options)
