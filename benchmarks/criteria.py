"""Which criterion ranks schedules rightly by noisy labels alone? `python -m benchmarks.criteria`.

Reads the benchmark of schedules. Of every schedule's full training it has what 5,000 held-out
samples with noisy labels say over the last tenth of the epochs; the criteria are compared by
Spearman's correlation with the test accuracy (true labels, mean of the same epochs), over all
schedules and over the better half, and by the test accuracy of the schedule they would choose.
Validation accuracy against 5,000 clean labels stands beside them. (A search averages the
determinant's score over networks and epochs; here it is that of all their counts together.)
Prints a table, writes
`results/criteria.json`.
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
    """Test accuracy [n] and what each criterion says [n]."""
    last = max(1, len(rows[0][TEST_ACCURACY]) // 10)

    def late(name: str) -> Array:
        return np.array([np.mean(row[name][-last:]) for row in rows])

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


def compare(test: Array, found: dict[str, Array]) -> dict[str, Any]:
    """What each criterion [n] says of the schedules' test accuracies [n]."""
    better = test > np.median(test)
    return {
        "schedules": len(test),
        "best_test_accuracy": round(float(test.max()), 4),
        "criteria": {
            name: {
                "spearman": round(float(spearmanr(values, test)[0]), 3),
                "spearman_better_half": round(float(spearmanr(values[better], test[better])[0]), 3),
                "test_accuracy_of_its_choice": round(float(test[np.argmax(values)]), 4),
            }
            for name, values in found.items()
        },
    }


def main() -> None:
    """Compare on every setting of the benchmark."""
    rows = pq.read_table(RESULTS).to_pylist()
    found = {
        setting: compare(*criteria_of([row for row in rows if row["setting"] == setting]))
        for setting in dict.fromkeys(row["setting"] for row in rows)
    }
    write_json(
        RESULTS.with_name("criteria.json"),
        {"command": "python -m benchmarks.criteria", "settings": found},
    )
    for setting, one in found.items():
        print(f"{setting}, {one['schedules']} schedules, best {one['best_test_accuracy']:.2%}")
        for name, said in one["criteria"].items():
            print(f"  {name:32} {json.dumps(list(said.values()))}")


if __name__ == "__main__":
    main()
