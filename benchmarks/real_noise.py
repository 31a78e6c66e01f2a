"""keeprate and its rivals on labels that are wrong in reality (`python -m benchmarks.real_noise`).

Every line of `lines.LINES` trains on the same noisy labels and is tested on clean ones. There are
two scenarios. Without a clean label, a line that has to validate holds out some of the noisy
samples. With a few clean samples, these validate; only the lines "clean alone" train on them. What
a line says of the training labels is measured, too. The data are in `noisy_sets`, the rivals in
`rivals`.

The same command goes on after a kill. The results are in `results/real_noise.json`. Seeds from 1000
on are for development: their rows go to `results/real_noise-development.json`, and no table mixes
the two.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, average_precision_score, balanced_accuracy_score
from threadpoolctl import threadpool_limits

from benchmarks import frozen_features, real_noise_page, real_noise_tables, rivals
from benchmarks.common import RESULTS
from benchmarks.lines import ABLATIONS, LINES
from benchmarks.noisy_sets import (
    MOST_CLEAN,
    NEEDS_FEATURES,
    SCENARIOS,
    SETS,
    Task,
    Truth,
    prepared,
)
from benchmarks.rivals import Outcome
from experiments.common import Row
from experiments.jobs import Job, run_missing
from keeprate import InputError

NAME = "real_noise"
FIRST_DEVELOPMENT_SEED = 1000
BINS = 15
ALL_LINES = ABLATIONS | LINES
PROTOCOL = {
    "sets": {
        name: {"most_train": one.most_train, "most_test": one.most_test, "noise": one.noise}
        for name, one in SETS.items()
    },
    "clean samples that a set without its own gets, at most": MOST_CLEAN,
    "keeprate": "its defaults, model mlp; without clean labels a tenth validates with its noise",
    "rivals": rivals.PROTOCOL,
    "frozen features": frozen_features.PROTOCOL,
    "bins of the calibration error": BINS,
}


# Measures --------------------------------------------------------------------------------------


def measured(task: Task, truth: Truth, outcome: Outcome) -> Row:
    """The metrics of an outcome; those of what the line does not say are left out."""
    row: Row = {"noise": float((task.labels != truth.train).mean())}
    if outcome.test_probabilities is not None:
        row |= _of_predictions(outcome.test_probabilities, truth.test)
    wrong = task.labels != truth.train
    if outcome.wrong_score is not None:
        row["average_precision"] = float(average_precision_score(wrong, outcome.wrong_score))
        if outcome.score_is_probability:
            row["calibration_error"] = calibration_error(outcome.wrong_score, wrong)
            row["reliability"] = reliability(outcome.wrong_score, wrong)
    if outcome.listed is not None:
        row["listed"] = int(outcome.listed.sum())
        if row["listed"]:
            row["list_precision"] = float(wrong[outcome.listed].mean())
        if outcome.suggested is not None:
            corrected = np.where(outcome.listed, outcome.suggested, task.labels)
            row["noise_after"] = float((corrected != truth.train).mean())
    if outcome.noise_rate is not None:
        row["noise_rate_error"] = outcome.noise_rate - row["noise"]
    if outcome.noise_interval is not None:
        low, high = outcome.noise_interval
        row |= {"noise_low": low, "noise_high": high, "covered": int(low <= row["noise"] <= high)}
    return {name: round(v, 6) if isinstance(v, float) else v for name, v in row.items()}


def _of_predictions(probabilities: NDArray[Any], labels: NDArray[np.int64]) -> Row:
    p = np.clip(np.asarray(probabilities, np.float64), 1e-7, 1)
    p /= p.sum(1, keepdims=True)
    predicted = probabilities.argmax(1)
    return {
        "accuracy": float(accuracy_score(labels, predicted)),
        "balanced_accuracy": float(balanced_accuracy_score(labels, predicted)),
        "log_loss": float(-np.log(p[np.arange(len(labels)), labels]).mean()),
    }


def calibration_error(scores: NDArray[Any], wrong: NDArray[np.bool_]) -> float:
    """Expected calibration error of probabilities [N] of events [N], in bins of equal width.

    >>> calibration_error(np.array([0.1, 0.1, 0.9, 0.9]), np.array([False, True, True, True]))
    0.25
    """
    bins = np.clip((scores * BINS).astype(int), 0, BINS - 1)
    said = np.bincount(bins, scores, BINS)
    happened = np.bincount(bins, wrong, BINS)
    return float(np.abs(said - happened).sum() / len(scores))


def reliability(scores: NDArray[Any], wrong: NDArray[np.bool_]) -> list[list[float]]:
    """Number, mean score and share of events of each tenth of [0, 1] that holds scores.

    >>> reliability(np.array([0.1, 0.1, 0.95]), np.array([False, True, True]))
    [[2, 0.1, 0.5], [1, 0.95, 1.0]]
    """
    bins = np.clip((scores * 10).astype(int), 0, 9)
    found = [(scores[bins == b], wrong[bins == b]) for b in range(10)]
    return [
        [len(said), round(float(said.mean()), 4), round(float(happened.mean()), 4)]
        for said, happened in found
        if len(said)
    ]


# Runs ------------------------------------------------------------------------------------------


def run_line(name: str, scenario: str, line: str, seed: int, folder: str, cache: Path) -> Row:
    """One line on one set, on one thread."""
    torch.set_num_threads(1)
    task, truth = prepared(name, scenario, seed, folder, cache)
    with threadpool_limits(1):
        started = time.process_time()  # whatever else runs on the machine
        outcome = ALL_LINES[line].run(task, seed)
        seconds = time.process_time() - started
    return measured(task, truth, outcome) | {"seconds": round(seconds, 2)}


def jobs_of(
    sets: Sequence[str],
    lines: Sequence[str],
    scenarios: Sequence[str],
    seeds: Sequence[int],
    folder: str,
    cache: Path,
) -> list[Job]:
    """A job for each row, seed by seed and set by set."""
    return [
        Job(
            {"set": name, "scenario": scenario, "line": line, "seed": seed},
            partial(run_line, name, scenario, line, seed, folder, cache),
        )
        for seed in seeds
        for name in sets
        for scenario in scenarios
        for line in lines
        if scenario in ALL_LINES[line].scenarios
        and (SETS[name].is_table or not ALL_LINES[line].tables_only)
    ]


def protocol_name(seeds: Sequence[int]) -> str:
    """Which file the rows go to.

    Raises
    ------
    InputError
        If the seeds are of both.
    """
    kinds = {"development" if seed >= FIRST_DEVELOPMENT_SEED else "" for seed in seeds}
    if len(kinds) != 1:
        raise InputError(
            f"--first-seed and --seeds must lie below {FIRST_DEVELOPMENT_SEED} or not, got "
            f"{seeds[0]} to {seeds[-1]}; run the two apart."
            if seeds
            else "--seeds must be at least 1, got 0; give a number."
        )
    return kinds.pop()


def _names(given: str | None, known: Sequence[str], option: str) -> list[str]:
    """The names of an option, with semicolons or commas between them; all if it is left out."""
    if given is None:
        return list(known)
    names = [name.strip() for name in given.split(";" if ";" in given else ",")]
    if ";" not in given and not set(names) <= set(known) and given.strip() in known:
        names = [given.strip()]
    if unknown := [name for name in names if name not in known]:
        raise InputError(
            f"{option} must be among {'; '.join(known)}, got {'; '.join(unknown)}; choose of these "
            "(with semicolons between names that hold a comma)."
        )
    return names


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{NAME}", description=(__doc__ or "").splitlines()[0]
    )
    add = parser.add_argument
    add("--data", default=os.environ.get("KEEPRATE_DATA", "../shared/data"))
    add("--cache", type=Path, default=frozen_features.CACHE, help="of the CIFAR-10 features")
    add("--out", type=Path, default=RESULTS, help="the folder of the results file")
    add("--sets", help=", ".join(SETS))
    add("--lines", default="; ".join(LINES), help="; ".join(ALL_LINES))
    add("--scenarios", help=", ".join(SCENARIOS))
    add("--seeds", type=int, default=5)
    add("--first-seed", type=int, default=0)
    add("--jobs", type=int, default=1, help="rows at the same time")
    add("--draw", action="store_true", help="train nothing; write the picture and the page")
    add("--check", action="store_true", help="train nothing; say whether the page is current")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    if options.draw or options.check:
        (real_noise_page.write if options.draw else real_noise_page.check)(options.out)
        return
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    sets = _names(options.sets, list(SETS), "--sets")
    lines = _names(options.lines, list(ALL_LINES), "--lines")
    scenarios = _names(options.scenarios, list(SCENARIOS), "--scenarios")
    suffix = protocol_name(seeds)
    if set(sets) & set(NEEDS_FEATURES):
        frozen_features.cached(options.data, options.cache)  # once, before processes ask for them
    rows = run_missing(
        NAME,
        suffix,
        PROTOCOL,
        jobs_of(sets, lines, scenarios, seeds, options.data, options.cache),
        at_once=options.jobs,
        results=options.out,
        words=lambda row: f"{row['seconds']:.0f} s",  # scores are for the table
        command=f"python -m benchmarks.{NAME}" + (" --first-seed 1000" if suffix else ""),
    )
    print("\n".join(real_noise_tables.all_tables(rows)))


if __name__ == "__main__":
    main()
