"""The presets that ship, `src/keeprate/schedules/prior.json`: searched on scikit-learn's digits.

For each noise three searches of 40 trials, without presets, each with its own noise, split and
initial weights. The two best schedules of each search are then trained on three other draws of
noise and split. The schedule with the best mean validation accuracy ships. No test label takes
part, and nothing is trained on the data sets of the figures and tables.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import keeprate
from experiments.common import RESULTS, Row, command_of, load_data
from experiments.jobs import Job, run_missing
from keeprate import SearchConfig, TrainingConfig
from keeprate.files import write_json

NAME = "prior"
SUMMARY = "the presets that keeprate ships, searched on digits (trains)"
SHIPPED = Path(keeprate.__file__).parent / "schedules" / "prior.json"
NOISES = ("pairflip:0.45", "symmetric:0.2", "symmetric:0.5")  # the order in which a search tries
CONFIG = TrainingConfig(epochs=40, batch_size=32)
MODEL = "mlp"
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


def search(noise: str, seed: int) -> Row:
    """The two best schedules of a search."""
    run = keeprate.search(
        keeprate.prepare(load_data("", "digits"), noise=noise, seed=seed),
        budget=f"{TRIALS}trials",
        model=MODEL,
        config=CONFIG,
        search_config=SearchConfig(warm_start=False),
        baselines=False,
        restarts=2,  # one for each of the two best
        seed=seed,
    )
    best = [run.record.trials[numbers[0]] for numbers in run.record.finalists]
    return {
        "keep_rates": [list(trial.keep_rate) for trial in best],
        "values": [trial.value for trial in best],
    }


def candidates(noise: str, rows: Sequence[Row]) -> list[list[float]]:
    """The schedules [T] of all searches under a noise, by seed."""
    searches = [row for row in rows if (row["noise"], row["does"]) == (noise, "find")]
    searches.sort(key=lambda row: int(row["seed"]))
    return [keep_rate for row in searches for keep_rate in row["keep_rates"]]


def judge(noise: str, seed: int, rows: Sequence[Row]) -> Row:
    """The mean validation score of each candidate on another draw of noise and split."""
    data = keeprate.prepare(load_data("", "digits"), noise=noise, seed=seed)
    values = []
    for keep_rate in candidates(noise, rows):
        run = keeprate.train(
            data,
            schedule=keep_rate,
            model=MODEL,
            config=CONFIG,
            baselines=False,
            restarts=RESTARTS,
            seed=seed,
        )
        # A training whose loss was not finite has no score, and is worth nothing.
        scores = [restart.validation_score or 0.0 for restart in run.results[0].restarts]
        values.append(fmean(scores))
    return {"values": values}


def best_of(noise: str, rows: Sequence[Row]) -> Row:
    """The candidate with the best mean value, as it ships."""
    judged = [row["values"] for row in rows if (row["noise"], row["does"]) == (noise, "judge")]
    means = [fmean(values) for values in zip(*judged, strict=True)]
    best = candidates(noise, rows)[means.index(max(means))]
    return {"name": f"digits {noise}", "keep_rate": [round(rate, 5) for rate in best]}


def run(*, at_once: int = 1, results: Path = RESULTS, shipped: Path = SHIPPED) -> list[Row]:
    """Run what the results file does not have yet, and write the file that ships."""

    def jobs(does: str, first_seed: int, train: Callable[..., Row], *more: Any) -> list[Job]:
        return [
            Job({"noise": noise, "does": does, "seed": seed}, partial(train, noise, seed, *more))
            for noise in NOISES
            for seed in range(first_seed, first_seed + SEEDS)
        ]

    def go_on(jobs: Sequence[Job]) -> list[Row]:
        return run_missing(
            NAME, "", PROTOCOL, jobs, at_once=at_once, results=results, words=_values_in_words
        )

    searches = jobs("find", 0, search)
    searched = go_on(searches)
    rows = go_on(searches + jobs("judge", SEEDS, judge, searched))
    best = [best_of(noise, rows) for noise in NOISES]
    write_json(shipped, {"command": command_of(NAME, ""), "schedules": best})
    return rows


def _values_in_words(row: Row) -> str:
    return ", ".join(f"{100 * value:.1f}" for value in row["values"]) + " %"
