"""Which criterion ranks schedules rightly by noisy labels alone? `python -m benchmarks.criteria`.

Reads the benchmark of schedules (`benchmarks.schedule_bench`). The benchmark holds, for the full
training of every schedule, what 5,000 held-out samples with noisy labels say over the last tenth of
the epochs. Each criterion is compared with the test accuracy (true labels, mean of the same
epochs): by Spearman's correlation over all schedules and over the better half, and by the test
accuracy of the schedule that it ranks first. Validation accuracy against 5,000 clean labels stands
beside them. A search averages the determinant's score over networks and epochs; here the score is
that of all their counts together.

Prints a table and writes `results/criteria.json`.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr

from benchmarks.schedule_bench import RESULTS, TEST_ACCURACY
from keeprate.files import write_json
from keeprate.noise import determinant_score

Array = NDArray[np.float64]


def mutual_information(counts: torch.Tensor) -> torch.Tensor:
    """Information in nats that a prediction holds of the label, `[...]`, from `[..., C, C]`."""
    joint = counts / counts.sum((-2, -1), keepdim=True)
    independent = joint.sum(-1, keepdim=True) * joint.sum(-2, keepdim=True)
    return (torch.xlogy(joint, joint) - torch.xlogy(joint, independent)).sum((-2, -1))


def criteria_of(rows: list[dict[str, Any]]) -> tuple[Array, dict[str, Array]]:
    """The test accuracies [n] of n schedules, and the values [n] of each criterion."""
    n_last = max(1, len(rows[0][TEST_ACCURACY]) // 10)

    def late(name: str) -> Array:
        return np.array([np.mean(row[name][-n_last:]) for row in rows])

    counts = torch.tensor([row["noisy_counts"] for row in rows], dtype=torch.float64)
    n_classes = round(counts.shape[1] ** 0.5)
    counts = counts.view(-1, n_classes, n_classes)
    return late(TEST_ACCURACY), {
        "accuracy, clean labels": late("validation_accuracy"),
        "determinant": determinant_score(counts / 2).numpy(),  # of two networks
        "accuracy, noisy labels": (
            counts.diagonal(dim1=1, dim2=2).sum(1) / counts.sum((1, 2))
        ).numpy(),
        "mutual information": mutual_information(counts).numpy(),
        "agreement of the two networks": late("noisy_agreement"),
        "log-likelihood, forward model": late("noisy_log_likelihood"),
    }


def compare(test_accuracy: Array, criteria: dict[str, Array]) -> dict[str, Any]:
    """Compare the values [n] of each criterion with the test accuracies [n] of n schedules."""
    better = test_accuracy > np.median(test_accuracy)

    def judged(values: Array) -> dict[str, float]:
        over_all = spearmanr(values, test_accuracy)[0]
        over_better = spearmanr(values[better], test_accuracy[better])[0]
        return {
            "spearman": round(float(over_all), 3),
            "spearman_better_half": round(float(over_better), 3),
            "test_accuracy_of_its_choice": round(float(test_accuracy[np.argmax(values)]), 4),
        }

    return {
        "schedules": len(test_accuracy),
        "best_test_accuracy": round(float(test_accuracy.max()), 4),
        "criteria": {name: judged(values) for name, values in criteria.items()},
    }


def main() -> None:
    """Compare on every setting of the benchmark."""
    rows = pq.read_table(RESULTS).to_pylist()
    comparisons = {
        setting: compare(*criteria_of([row for row in rows if row["setting"] == setting]))
        for setting in dict.fromkeys(row["setting"] for row in rows)
    }
    write_json(
        RESULTS.with_name("criteria.json"),
        {"command": "python -m benchmarks.criteria", "settings": comparisons},
    )
    for setting, comparison in comparisons.items():
        best = comparison["best_test_accuracy"]
        print(f"{setting}, {comparison['schedules']} schedules, best {best:.2%}")
        for name, numbers in comparison["criteria"].items():
            print(f"  {name:32} {json.dumps(list(numbers.values()))}")


if __name__ == "__main__":
    main()
