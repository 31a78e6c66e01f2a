"""Seconds and memory of judging many labels: `python -m benchmarks.judging --out FILE`.

`find_label_issues` gets N labels, a fifth of them wrong, and float32 probabilities [N, C], in a
process of its own that has imported everything and judged a few labels before. Memory is the most
that the process ever had (`ru_maxrss`) above that moment, in bytes and per number of the
probabilities. Each size is measured beside one of twice as many samples.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import keeprate
from keeprate.files import write_json

SIZES = ((1_000_000, 100), (2_000_000, 100), (100_000, 1000), (200_000, 1000))
ROUNDS = 2


def make_inputs(n: int, n_classes: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Labels [N], a fifth of them any class, and probabilities [N, C] that mostly know better.

    They are made a few rows at a time: the process must not have had more memory before.
    """
    rng = np.random.default_rng(0)
    labels = rng.integers(0, n_classes, n)
    probabilities = np.empty((n, n_classes), np.float32)
    for start in range(0, n, 10_000):
        rows = slice(start, start + 10_000)
        some = rng.random(probabilities[rows].shape, np.float32)
        some[np.arange(len(some)), labels[rows]] += 4 * n_classes
        probabilities[rows] = some / some.sum(1, keepdims=True)
    wrong = rng.random(n) < 0.2
    labels[wrong] = rng.integers(0, n_classes, wrong.sum())
    return labels, probabilities


def most_memory() -> int:
    """The most bytes that this process has had in memory (Linux)."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def measure(n: int, n_classes: int) -> dict[str, float]:
    """Judge N labels, and say what it took."""
    keeprate.find_label_issues([0, 1], [[0.9, 0.1], [0.1, 0.9]])  # all that is imported late
    labels, probabilities = make_inputs(n, n_classes)
    start = most_memory()
    began = time.perf_counter()
    found = keeprate.find_label_issues(labels, probabilities)
    seconds = time.perf_counter() - began
    extra = most_memory() - start
    return {
        "samples": n,
        "classes": n_classes,
        "seconds": round(seconds, 2),
        "extra_mb": round(extra / 1e6),
        "extra_bytes_per_number": round(extra / (n * n_classes), 2),
        "share_flagged": round(float(found.is_issue.mean()), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="JSON file")
    parser.add_argument("--size", type=int, nargs=2, help="measure N C, and print one line")
    arguments = parser.parse_args()
    if arguments.size is not None:
        print(json.dumps(measure(*arguments.size)))
        return
    rows = []
    for n, n_classes in SIZES * ROUNDS:
        command = [sys.executable, "-m", "benchmarks.judging", "--size", str(n), str(n_classes)]
        shown = subprocess.run(command, capture_output=True, text=True, check=True)
        rows.append(json.loads(shown.stdout))
        print(shown.stdout.strip(), flush=True)
    if arguments.out is not None:
        write_json(arguments.out, {"rounds": sorted(rows, key=lambda row: row["classes"])})


if __name__ == "__main__":
    main()
