"""The main job on MNIST: search R(t), compare: `python -m experiments.main_job [--variant budget]`.

Noise, split, initial weights and search all vary with the seed. Two at a time on two cores, one
thread each, take less time than one after the other on two threads. The same command goes on
after a kill.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import keeprate
from experiments.common import RESULTS, Job, Row, load_data, read_results, run_missing
from keeprate.training import TrainingConfig
from keeprate.trials import given_in_words

NOISES = ("symmetric:0.5", "pairflip:0.45")
SEEDS, EPOCHS = 3, 40
LR_SCHEDULES = {"linear-decay": "linear decay from 40 %", "constant": "constant"}


@dataclass(frozen=True)
class MainJob:
    """A variant of the main job: which learning rate, and what a search may cost.

    Attributes
    ----------
    title : str
    lr_schedule : str
    search : dict
        Arguments of `keeprate.search`.
    """

    title: str
    lr_schedule: str
    search: dict[str, Any]

    def protocol(self, at_once: int) -> Row:
        """For the results file."""
        return {
            "data": "MNIST, all 60,000 training samples; test set halved: "
            "5,000 validation, 5,000 test",
            "network": "MLP 784-256-10, batch 128, Adam 0.001, " + LR_SCHEDULES[self.lr_schedule],
            "epochs": EPOCHS,
            **self.search,
            "finalists": 2,
            "sampler": "natural-gradient",
            "confirm": True,
            "warm_start": given_in_words(),
            "jobs": at_once,
        }


MAIN_JOBS = {
    "trials": MainJob("40 trials", "linear-decay", {"trials": 40, "fidelity": 0.4, "restarts": 3}),
    "budget": MainJob(
        "a budget of 6 trainings, constant learning rate", "constant", {"budget": 6, "restarts": 2}
    ),
}
MAIN_JOB = "trials"  # the default


def file_of(variant: str) -> tuple[str, str]:
    """The names of a variant's results file, as `experiments.common.read_results` takes them."""
    return "main_job", "" if variant == MAIN_JOB else variant


def command_of(variant: str) -> str:
    """The command that runs a variant.

    >>> command_of("trials"), command_of("budget")
    ('python -m experiments.main_job', 'python -m experiments.main_job --variant budget')
    """
    option = "" if variant == MAIN_JOB else f" --variant {variant}"
    return f"python -m experiments.main_job{option}"


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


def minutes(found: dict[str, Any]) -> float:
    """How long all runs took together, so many at a time."""
    seconds = sum(row["cost"]["wall_seconds"] for row in found["rows"])
    return float(seconds / found["protocol"]["jobs"] / 60)


def run_one(variant: str, noise: str, seed: int, data: str, runs: str) -> Row:
    """One search with its baselines."""
    started, job = time.perf_counter(), MAIN_JOBS[variant]
    run = keeprate.search(
        keeprate.prepare(load_data(data, "mnist"), noise=noise, seed=seed),
        **job.search,
        config=TrainingConfig(epochs=EPOCHS, lr_schedule=job.lr_schedule),
        seed=seed,
        out=Path(runs) / f"{noise.replace(':', '-')}-{variant}-seed{seed}",
        command=command_of(variant),
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


def run(variant: str, *, data: str, runs: str, at_once: int, results: Path = RESULTS) -> list[Row]:
    """Run what the results file does not have yet; `data` is the folder of data sets."""
    jobs = [
        Job({"noise": noise, "seed": seed}, partial(run_one, variant, noise, seed, data, runs))
        for seed in range(SEEDS)
        for noise in NOISES
    ]
    return run_missing(
        *file_of(variant),
        MAIN_JOBS[variant].protocol(at_once),
        jobs,
        at_once=at_once,
        results=results,
        words=_accuracies,
        command=command_of(variant),
    )


def read(variant: str, results: Path = RESULTS) -> dict[str, Any] | None:
    """What has been found so far; None if nothing has."""
    return read_results(*file_of(variant), results)


def main() -> None:
    """Run a variant."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--variant", default=MAIN_JOB, choices=MAIN_JOBS)
    parser.add_argument("--data", default=os.environ.get("KEEPRATE_DATA", "../shared/data"))
    parser.add_argument("--runs", default="runs/main_job")
    parser.add_argument("--jobs", type=int, default=2, help="runs at the same time")
    given = parser.parse_args()
    run(given.variant, data=given.data, runs=given.runs, at_once=given.jobs)


if __name__ == "__main__":
    main()
