"""Rows of results files: how they are written from typed results, and the numbers drawn from them.

Rows are plain dicts, as JSON holds them. Their keys stay as they are: results of months are in the
committed files.
"""

from __future__ import annotations

import csv
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from experiments.common import HERE, Row
from keeprate.records import Cost, Result, RunRecord, TrialSummary

PAPER_NUMBERS = HERE / "paper_numbers"


def result_as_row(record: RunRecord, result: Result) -> Row:
    """What a row keeps of a final training and of its run; numbers have six decimals."""
    cost = cost_as_row(record.cost) | {"final_seconds": result.seconds}
    if record.kind == "train":
        del cost["search_seconds"]
    row = {
        "noise_rate": record.data.noise_rate,
        "n_train": record.data.n_train,
        "n_test": record.data.n_test,
        "last": last_epoch_as_row(result),
        "best": best_epoch_as_row(result),
        "curves": {
            "test_accuracy": result.curves.test_accuracy or None,
            "train_accuracy": result.curves.train_accuracy,
            "label_precision": result.curves.label_precision or None,
        },
        "keep_rate": result.schedule.keep_rate.tolist(),
        "precision": precision_of(record),
        "seconds": result.seconds,
        "cost": cost,
    }
    if result.transition_error is not None:
        row["transition_error"] = result.transition_error
    rounded: Row = _rounded(row)
    return rounded


def last_epoch_as_row(result: Result) -> Row:
    """The metrics of the last epoch, without its number: that is the protocol's."""
    row = asdict(result.last)
    del row["epoch"]
    return row


def best_epoch_as_row(result: Result) -> Row:
    """The metrics of the epoch that is best on the test set."""
    return asdict(result.best)


def trial_as_row(trial: TrialSummary) -> Row:
    """A trial of a search, without its schedule and curve."""
    return {
        "number": trial.number,
        "state": trial.state,
        "value": trial.value,
        "confirms": trial.confirms,
        "parameters": trial.parameters,
    }


def cost_as_row(cost: Cost) -> Row:
    """The cost of a run."""
    return asdict(cost)


def precision_of(record: RunRecord) -> str:
    """The arithmetic that the run trained in: "float32" or "bfloat16"."""
    return str(record.config["training"]["precision"])


def _rounded(value: Any) -> Any:
    """Round to six decimals: finer than one test sample, and the committed files stay small."""
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    return value


# Numbers ---------------------------------------------------------------------------------------


def hours(rows: Sequence[Row]) -> float:
    """Hours of search and training that the rows took."""
    costs = [row["cost"] for row in rows]
    return float(sum(c.get("search_seconds", 0.0) + c["final_seconds"] for c in costs)) / 3600


def mean_std(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation; a single value has no deviation.

    >>> mean_std([1.0, 3.0])
    (2.0, 1.4142135623730951)
    >>> mean_std([1.0])
    (1.0, None)
    """
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def in_words(mean: float, std: float | None) -> str:
    """A mean with its deviation, as the tables print it; narrow columns do not break it.

    >>> in_words(97.156, 0.2)
    '97.16\xa0±\xa00.20'
    """
    return f"{mean:z.2f}" if std is None else f"{mean:z.2f}\xa0±\xa0{std:.2f}"


def paper_numbers(file: str, data: str) -> dict[tuple[str, str], tuple[float, float]]:
    """The paper's means and deviations in percent, by (noise, method or space).

    >>> paper_numbers("table4-6_early_stop_accuracy.csv", "mnist")["pairflip:0.45", "Proposed"]
    (95.94, 0.7)
    """
    numbers = {}
    with open(PAPER_NUMBERS / file, newline="", encoding="utf-8") as content:
        for line in csv.DictReader(content):
            if line["dataset"] == data.replace("-", ""):
                kind, percent = line["noise"].split("-")
                noise = f"{kind}:{int(percent) / 100:g}"
                name = line.get("method") or line["space"]
                numbers[noise, name] = (float(line["mean"]), float(line["std"]))
    return numbers
