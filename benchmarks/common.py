"""What the benchmarks that train by rows share: options, resuming, the table at the end."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from experiments.common import Row
from experiments.jobs import Job, run_missing
from keeprate import Data
from keeprate.data import part

RESULTS = Path(__file__).parent / "results"


def run_rows(
    name: str,
    summary: str | None,
    protocol: Row,
    jobs_of: Callable[[int, str], Sequence[Job]],
    table: Callable[[Sequence[Row]], list[str]],
    **words: Any,
) -> None:
    """Run the jobs that have no row yet, then print the table of all rows.

    Parameters
    ----------
    name : str
        Of the benchmark's module and results file.
    summary : str, optional
        The module's docstring.
    protocol : dict
        Every number that a row depends on.
    jobs_of : callable
        (number of seeds, folder of the data sets) -> jobs.
    table : callable
        Rows -> lines of Markdown.
    words
        That of `run_missing`.
    """
    parser = argparse.ArgumentParser(description=(summary or "").splitlines()[0])
    parser.add_argument(
        "--data",
        default=os.environ.get("KEEPRATE_DATA", "../shared/data"),
        help="the folder that holds mnist/, ...",
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1, help="rows at the same time")
    options = parser.parse_args()
    rows = run_missing(
        name,
        "",
        protocol,
        jobs_of(options.seeds, options.data),
        at_once=options.jobs,
        results=RESULTS,
        command=f"python -m benchmarks.{name}",
        **words,
    )
    print("\n".join(table(rows)))


def with_noisy_validation(data: Data, seed: int) -> Data:
    """Let a tenth of the training samples, chosen at random, validate with its noisy labels."""
    order = np.random.default_rng(seed).permutation(len(data.train))
    held_out, kept = np.split(order, [len(order) // 10])
    validation = replace(
        part(data.train, held_out),
        true_labels=None,
        label_status="noisy",
        origin="held out",  # a run judges only the labels that it trains with, as its rivals do
    )
    return replace(
        data,
        train=part(data.train, kept),
        validation=validation,
        validation_from=f"{len(held_out)} of the {len(order)} training samples",
    )
