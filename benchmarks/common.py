"""What the benchmarks that train by rows share: their options, resuming, the table at the end."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from experiments.common import Job, Row, run_missing
from keeprate.data import Data, part

RESULTS = Path(__file__).parent / "results"


def run_rows(
    name: str,
    summary: str | None,
    protocol: Row,
    jobs: Callable[[int, str], Sequence[Job]],
    table: Callable[[Sequence[Row]], list[str]],
    **words: Any,
) -> None:
    """Do what is missing of `jobs` (seeds, folder of the data sets), print the table of rows."""
    parser = argparse.ArgumentParser(description=(summary or "").splitlines()[0])
    parser.add_argument("--data", default=os.environ.get("KEEPRATE_DATA", "../shared/data"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1, help="rows at the same time")
    options = parser.parse_args()
    rows = run_missing(
        name,
        "",
        protocol,
        jobs(options.seeds, options.data),
        at_once=options.jobs,
        results=RESULTS,
        command=f"python -m benchmarks.{name}",
        **words,
    )
    print("\n".join(table(rows)))


def with_noisy_validation(data: Data, seed: int) -> Data:
    """A tenth of the training samples, chosen at random, validates with its noisy labels."""
    order = np.random.default_rng(seed).permutation(len(data.train))
    left_out, kept = np.split(order, [len(order) // 10])
    validation = replace(part(data.train, left_out), true_labels=None)
    return replace(
        data,
        train=part(data.train, kept),
        validation=validation,
        validation_labels="noisy",
        validation_from=f"{len(validation)} of the {len(order)} training samples",
    )
