"""The schedules that ship, `src/keeprate/schedules/prior.json`: found on scikit-learn's digits.

For each kind of noise three searches of 40 trials that begin with nothing given, each with its own
noise, split and initial weights. The two best schedules of each are trained on three other draws of
noise and split, and the one with the best mean validation accuracy is shipped. No test label is
looked at, and nothing is trained on the data sets of the figures and tables.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import keeprate
from experiments.common import RESULTS, Job, Row, command_of, load_data, run_missing
from keeprate.engine import TrainingConfig
from keeprate.files import write_json

NAME = "prior"
SUMMARY = "the schedules that keeprate ships, found on digits (trains)"
SHIPPED = Path(keeprate.__file__).parent / "schedules" / "prior.json"
NOISES = ("pairflip:0.45", "symmetric:0.2", "symmetric:0.5")  # a search tries them in this order
CONFIG = TrainingConfig(epochs=40, batch_size=32)
TRIALS, SEEDS, RESTARTS = 40, 3, 3
PROTOCOL: Row = {
    "data": "digits",
    "network": "MLP, batch 32, Adam 0.001, linear decay from 40 %",
    "epochs": CONFIG.epochs,
    "trials": TRIALS,
    "warm_start": False,
    "searches of each noise": SEEDS,
    "draws of noise and split that judge": SEEDS,
    "trainings of each schedule on each": RESTARTS,
}


def _options() -> dict[str, Any]:
    return {"config": CONFIG, "baselines": False}


def find(noise: str, seed: int) -> Row:
    """The two best schedules of a search."""
    data = keeprate.prepare(load_data("", "digits"), noise=noise, seed=seed)
    options = _options() | {"trials": TRIALS, "warm_start": False, "restarts": 2, "seed": seed}
    record = keeprate.search(data, **options).record
    best = [record["trials"][same[0]] for same in record["finalists"]]
    return {"keep_rates": [t["keep_rate"] for t in best], "values": [t["value"] for t in best]}


def candidates(noise: str, rows: Sequence[Row]) -> list[list[float]]:
    """All schedules [T] that the searches found, by seed."""
    searches = (row for row in rows if (row["noise"], row["does"]) == (noise, "find"))
    return [
        rate for row in sorted(searches, key=lambda row: row["seed"]) for rate in row["keep_rates"]
    ]


def judge(noise: str, seed: int, found: Sequence[Row]) -> Row:
    """What each of the schedules that were found is worth on another draw of noise and split."""
    data = keeprate.prepare(load_data("", "digits"), noise=noise, seed=seed)
    values = []
    for schedule in candidates(noise, found):
        options = _options() | {"restarts": RESTARTS, "seed": seed}
        result = keeprate.train(data, schedule=schedule, **options).record["results"][0]
        values.append(fmean(one["validation_score"] for one in result["restarts"]))
    return {"values": values}


def best_of(noise: str, rows: Sequence[Row]) -> Row:
    """The schedule with the best mean value, as it is shipped."""
    judged = [row["values"] for row in rows if (row["noise"], row["does"]) == (noise, "judge")]
    means = [fmean(values) for values in zip(*judged, strict=True)]
    best = candidates(noise, rows)[means.index(max(means))]
    return {"name": f"digits {noise}", "keep_rate": [round(rate, 5) for rate in best]}


def run(*, at_once: int = 1, results: Path = RESULTS, shipped: Path = SHIPPED) -> list[Row]:
    """Do what the results file does not have yet, and write the file that is shipped."""

    def jobs(does: str, first: int, train: Callable[..., Row], *more: Any) -> list[Job]:
        return [
            Job({"noise": noise, "does": does, "seed": seed}, partial(train, noise, seed, *more))
            for noise in NOISES
            for seed in range(first, first + SEEDS)
        ]

    def carry_on(jobs: Sequence[Job]) -> list[Row]:
        return run_missing(
            NAME, "", PROTOCOL, jobs, at_once=at_once, results=results, words=_values
        )

    searches = jobs("find", 0, find)
    found = carry_on(searches)
    rows = carry_on(searches + jobs("judge", SEEDS, judge, found))
    best = [best_of(noise, rows) for noise in NOISES]
    write_json(shipped, {"command": command_of(NAME, ""), "schedules": best})
    return rows


def _values(row: Row) -> str:
    return ", ".join(f"{100 * value:.1f}" for value in row["values"]) + " %"
