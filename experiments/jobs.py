"""Jobs that outlive a kill: each finished run is a row of a results file, and is not run again."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from typing import Protocol as Interface

import torch
from threadpoolctl import threadpool_limits

from experiments.common import RESULTS, Row, command_of, read_results, results_path
from keeprate import InputError
from keeprate.files import write_json
from keeprate.records import differences, versions


@dataclass(frozen=True)
class Job:
    """A run to be done.

    Attributes
    ----------
    key : dict
        Tells the job's rows from others.
    train : callable
        Without `names` it takes nothing and returns a row. With `names` it takes those that are
        missing and returns a row for each. The rows lack the key.
    names : tuple of str
        Of the rows, where one run makes several: each row holds its `name`.
    """

    key: Row
    train: Callable[..., Any]
    names: tuple[str, ...] = ()

    @property
    def n_rows(self) -> int:
        """How many rows the job makes."""
        return len(self.names) or 1

    def without(self, rows: Sequence[Row]) -> Job | None:
        """The part of the job that has no row yet; None if nothing is left."""
        if not self.names:
            return self if row_of(rows, self.key) is None else None
        missing = [name for name in self.names if row_of(rows, self.key | {"name": name}) is None]
        return replace(self, names=tuple(missing)) if missing else None

    def run(self) -> list[Row]:
        """Train, and return the rows with their keys."""
        rows = self.train(self.names) if self.names else [self.train()]
        return [self.key | row for row in rows]


def row_of(rows: Sequence[Row], key: Row) -> Row | None:
    """The first row that agrees with the key."""
    return next((row for row in rows if all(row.get(k) == v for k, v in key.items())), None)


def _accuracy_in_words(row: Row) -> str:
    return f"{100 * row['last']['test_accuracy']:.2f} % at the end"


def run_missing(
    item: str,
    protocol_name: str,
    protocol: Row,
    jobs: Sequence[Job],
    *,
    at_once: int = 1,
    results: Path = RESULTS,
    words: Callable[[Row], str] = _accuracy_in_words,
    command: str | None = None,
    begins: Callable[[Job], bool] | None = None,
) -> list[Row]:
    """Run the jobs that have no row yet, and write the results file after each of them.

    Parameters
    ----------
    item, protocol_name : str
        Name the results file.
    protocol : dict
        Every number that a row depends on.
    jobs : sequence of Job
    at_once : int
        Jobs that run at the same time, each in a process of its own.
    results : Path
        The folder.
    words : callable
        What is printed of a new row.
    command : str, optional
        What the file names as its command; left out, `python -m experiments ITEM`.
    begins : callable, optional
        Asked before a job (or, where several run at once, before all of them) whether there is
        time for it; a job without time is left for the next start.

    Returns
    -------
    list of dict
        All rows of the file.

    Raises
    ------
    InputError
        If the file was written under another protocol: rows of two are never mixed.
    """
    path = results_path(item, protocol_name, results)
    protocol = json.loads(json.dumps(protocol))  # as the file will give it back
    stored = read_results(item, protocol_name, results)
    if stored is not None and stored["protocol"] != protocol:
        raise InputError(
            f"{path} holds rows of another protocol "
            f"({'; '.join(differences(stored['protocol'], protocol))}); move it away to start anew."
        )
    rows: list[Row] = [] if stored is None else stored["rows"]
    missing = [left for job in jobs if (left := job.without(rows)) is not None]
    n_rows, n_missing = (sum(job.n_rows for job in some) for some in (jobs, missing))
    print(f"{path.stem}: {n_rows - n_missing} of {n_rows} runs are there", flush=True)
    for job, new_rows in _run_all(missing, at_once, begins or (lambda job: True)):
        rows += new_rows
        content = {
            "command": command or command_of(item, protocol_name),
            "protocol": protocol,
            "versions": versions(),
            "rows": rows,
        }
        write_json(path, content)
        for row in new_rows:
            key = [row[name] for name in (*job.key, *(["name"] if job.names else []))]
            print(f"{', '.join(map(str, key))}: {words(row)}", flush=True)
    return rows


class Repeated(Interface):
    """A protocol that is run with several seeds."""

    @property
    def name(self) -> str: ...

    @property
    def seeds(self) -> int: ...

    def as_row(self) -> Row: ...


def run_seeds(
    item: str,
    protocol: Repeated,
    jobs_of: Callable[[int], Iterable[Job]],
    *,
    seeds: int | None = None,
    first_seed: int = 0,
    **options: Any,
) -> list[Row]:
    """Run the jobs of all the protocol's seeds, or of the first `seeds`, from `first_seed` on.

    The other `options` are those of `run_missing`.
    """
    n_seeds = protocol.seeds if seeds is None else seeds
    numbers = range(first_seed, first_seed + n_seeds)
    jobs = [job for seed in numbers for job in jobs_of(seed)]
    return run_missing(item, protocol.name, protocol.as_row(), jobs, **options)


def _run_all(
    jobs: Sequence[Job], at_once: int, begins: Callable[[Job], bool]
) -> Iterator[tuple[Job, list[Row]]]:
    """Each job with its rows, as the jobs end."""
    if at_once == 1:
        for job in jobs:
            if begins(job):
                yield job, job.run()
        return
    threads = max(1, (os.cpu_count() or 1) // at_once)
    with ProcessPoolExecutor(at_once, get_context("spawn"), _limit_threads, (threads,)) as pool:
        futures = {pool.submit(job.run): job for job in jobs if begins(job)}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:  # a job that fails must not wait for all others
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _limit_threads(threads: int) -> None:
    torch.set_num_threads(threads)
    threadpool_limits(threads)  # of NumPy and SciPy
