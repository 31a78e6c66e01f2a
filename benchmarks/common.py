"""What benchmarks share: options, resuming, the table at the end; memory that is looked at."""

from __future__ import annotations

import argparse
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from experiments.common import Row
from experiments.jobs import Job, run_missing
from keeprate import Data, InputError
from keeprate.data import part

RESULTS = Path(__file__).parent / "results"
LOOK = 0.005  # seconds between two looks at the memory


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


def private_bytes() -> int:
    """Memory of this process that no file maps."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return 1024 * int(line.split()[1])
    raise InputError("this machine does not say how much memory is private; measure on Linux.")


@contextmanager
def peak_of_memory() -> Iterator[list[int]]:
    """The peak of private bytes while the context lasts, in a list at its end."""
    peak, is_over = [private_bytes()], threading.Event()

    def look() -> None:
        while not is_over.wait(LOOK):
            peak[0] = max(peak[0], private_bytes())

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        is_over.set()
        thread.join()
