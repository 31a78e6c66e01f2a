"""What the experiments share: protocols, rows of results that outlive a kill, means over seeds.

A results file is `results/{item}-{protocol}.json` (`results/{item}.json` where the one protocol has
no name). It holds the protocol with every number that a result depends on, and one row for each
finished run; it is rewritten, whole, after each of them.
"""

from __future__ import annotations

import csv
import functools
import json
import os
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from typing import Protocol as Interface

import torch
from threadpoolctl import threadpool_limits

import keeprate
from keeprate import InputError
from keeprate.data import Loaded
from keeprate.engine import TrainingConfig
from keeprate.files import read_json, write_json
from keeprate.records import differences, versions
from keeprate.runs import Run
from keeprate.schedules import presets_in_words
from keeprate.searching import exploring

HERE = Path(__file__).parent
RESULTS = HERE / "results"
PAPER_NUMBERS = HERE / "paper_numbers"
IMAGES = HERE.parent / "docs" / "images" / "results"

NOISES = {
    "symmetric:0.2": "symmetric 20 %",
    "symmetric:0.5": "symmetric 50 %",
    "pairflip:0.45": "pairflip 45 %",
}
DATA_SETS = {"mnist": "MNIST", "cifar-10": "CIFAR-10", "cifar-100": "CIFAR-100"}
PROTOCOLS = ("desk", "paper")

Row = dict[str, Any]


@dataclass(frozen=True)
class Protocol:
    """How much is run, and with what.

    Attributes
    ----------
    name : str
        "paper", or "desk" for what two CPU cores can do.
    data : str
        A folder below --data.
    seeds : int
        How many are meant to be run. Noise, split, initial weights and search vary with the seed.
    trials, sampler, fidelity, confirm, warm_start
        Of the search, as `keeprate.search` takes them; the paper's trains all trials fully, has no
        given schedules and confirms none.
    restarts : int
        Of every final training, whatever the method.
    limit : int, optional
        At most so many training samples.
    """

    name: str
    data: str
    model: str
    epochs: int
    seeds: int
    trials: int
    sampler: str = "natural-gradient"
    fidelity: float = 1.0
    confirm: bool = False
    warm_start: bool = False
    restarts: int = 1
    limit: int | None = None
    batch_size: int = 128
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    lr_schedule: str = "linear-decay"

    def as_row(self) -> Row:
        """For the results file; says which schedules a warm start gives."""
        explored = exploring(self.trials) if self.confirm else self.trials
        return asdict(self) | {"warm_start": self.warm_start and presets_in_words(explored)}

    def config(self) -> TrainingConfig:
        return TrainingConfig(
            epochs=self.epochs,
            batch_size=self.batch_size,
            optimizer=self.optimizer,
            learning_rate=self.learning_rate,
            learning_rate_schedule=self.lr_schedule,
        )


def desk(data: str, model: str, *, epochs: int, limit: int | None = None) -> Protocol:
    """What the desk protocols have in common: a search of six full trainings, a small budget's."""
    return Protocol(
        "desk",
        data,
        model,
        epochs=epochs,
        seeds=3,
        trials=6,
        warm_start=True,
        limit=limit,
    )


@functools.cache
def load_data(folder: str, name: str) -> Loaded:
    """A data set below the folder, read once."""
    if name == "digits":  # scikit-learn has it; the tests use it
        return keeprate.load(name)
    path = Path(folder) / name
    if not path.is_dir():
        raise InputError(
            f"--data must be a folder that holds {name}/, got {folder}; give the folder, or name "
            "it in the environment variable KEEPRATE_DATA."
        )
    # CIFAR-10 has further label columns, those of CIFAR-10N.
    return keeprate.load(path, label="label")


# Rows ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """A run to be done: `key` tells its row from the others, `train` gives the rest of it.

    A run of several rows has their `names`; `train` is told which of them to make, and gives a
    list.
    """

    key: Row
    train: Callable[..., Any]
    names: tuple[str, ...] = ()

    @property
    def n_rows(self) -> int:
        return len(self.names) or 1

    def left(self, rows: Sequence[Row]) -> Job | None:
        """The part of it that has no row yet."""
        if not self.names:
            return self if row_of(rows, self.key) is None else None
        names = [n for n in self.names if row_of(rows, self.key | {"name": n}) is None]
        return replace(self, names=tuple(names)) if names else None

    def do(self) -> list[Row]:
        """Its rows."""
        made = self.train(self.names) if self.names else [self.train()]
        return [self.key | row for row in made]


def results_path(item: str, protocol: str, results: Path = RESULTS) -> Path:
    return results / f"{'-'.join(filter(None, (item, protocol)))}.json"


def command_of(item: str, protocol: str) -> str:
    return f"python -m experiments {item}" + (f" --protocol {protocol}" if protocol else "")


def read_results(item: str, protocol: str, results: Path = RESULTS) -> dict[str, Any] | None:
    """What has been found so far; None if nothing has."""
    path = results_path(item, protocol, results)
    return read_json(path) if path.exists() else None


def results_to_draw(item: str, protocol: str, results: Path = RESULTS) -> dict[str, Any]:
    """What has been found so far.

    Raises
    ------
    InputError
        If nothing has.
    """
    found = read_results(item, protocol, results)
    if found is None:
        what, command = ", ".join(filter(None, (item, protocol))), command_of(item, protocol)
        raise InputError(f"there are no results of {what}; run `{command}` first.")
    return found


def row_of(rows: Sequence[Row], key: Row) -> Row | None:
    return next((row for row in rows if all(row.get(k) == v for k, v in key.items())), None)


def _accuracy_in_words(row: Row) -> str:
    return f"{100 * row['last']['test_accuracy']:.2f} % at the end"


def run_missing(
    item: str,
    name: str,
    protocol: Row,
    jobs: Sequence[Job],
    *,
    at_once: int = 1,
    results: Path = RESULTS,
    words: Callable[[Row], str] = _accuracy_in_words,
    command: str | None = None,
) -> list[Row]:
    """Do the jobs that have no row yet, and write each row as it is found.

    `words` says of a new row what is printed; `command` is what the file says made it, if that is
    not `python -m experiments` with its name.

    Raises
    ------
    InputError
        If the results file was made under another protocol: rows of two are never mixed.
    """
    path = results_path(item, name, results)
    protocol = json.loads(json.dumps(protocol))  # as it will be read again
    found = read_results(item, name, results)
    if found is not None and found["protocol"] != protocol:
        raise InputError(
            f"{path} holds rows of another protocol "
            f"({'; '.join(differences(found['protocol'], protocol))}); move it away to start anew."
        )
    rows: list[Row] = [] if found is None else found["rows"]
    missing = [left for job in jobs if (left := job.left(rows)) is not None]
    total, to_do = (sum(job.n_rows for job in some) for some in (jobs, missing))
    print(f"{path.stem}: {total - to_do} of {total} runs are there", flush=True)
    for job, made in _done(missing, at_once):
        rows += made
        write_json(
            path,
            {
                "command": command or command_of(item, name),
                "protocol": protocol,
                "versions": versions(),
                "rows": rows,
            },
        )
        for row in made:
            which = [row[name] for name in (*job.key, *(["name"] if job.names else []))]
            print(f"{', '.join(map(str, which))}: {words(row)}", flush=True)
    return rows


class Repeated(Interface):
    """What every protocol that is run over seeds has."""

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
    **options: Any,
) -> list[Row]:
    """Do the jobs of each seed, all of the protocol's or so many; `options` are `run_missing`'s."""
    numbers = range(protocol.seeds if seeds is None else seeds)
    jobs = [job for seed in numbers for job in jobs_of(seed)]
    return run_missing(item, protocol.name, protocol.as_row(), jobs, **options)


def _done(jobs: Sequence[Job], at_once: int) -> Iterator[tuple[Job, list[Row]]]:
    """Each job with its rows, as they are finished."""
    if at_once == 1:
        for job in jobs:
            yield job, job.do()
        return
    threads = max(1, (os.cpu_count() or 1) // at_once)
    with ProcessPoolExecutor(at_once, get_context("spawn"), _limit_threads, (threads,)) as pool:
        futures = {pool.submit(job.do): job for job in jobs}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:  # one that fails must not keep us here until all others are done
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _limit_threads(threads: int) -> None:
    torch.set_num_threads(threads)
    threadpool_limits(threads)  # NumPy's and SciPy's


def describe_run(run: Run, number: int = 0) -> Row:
    """What a row keeps of a run: results and cost of its own training, or of another one."""
    record, result = run.record, run.record["results"][number]
    row = {
        "noise_rate": record["data"]["noise_rate"],
        "n_train": record["data"]["n_train"],
        "n_test": record["data"]["n_test"],
        "last": result["last"],
        "best": result["best"],
        "curves": {
            name: result["curves"].get(name)
            for name in ("test_accuracy", "train_accuracy", "label_precision")
        },
        "keep_rate": result["keep_rate"],
        "precision": record["config"]["training"]["precision"],
        "seconds": result["seconds"],
        "cost": record["cost"] | {"final_seconds": result["seconds"]},
    }
    if "transition_error" in result:
        row["transition_error"] = result["transition_error"]
    rounded: Row = _rounded(row)
    return rounded


def _rounded(value: Any) -> Any:
    """Six decimals are finer than one test sample, and keep the committed files small."""
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items()}
    return value


def hours(rows: Sequence[Row]) -> float:
    """Time of search and training that the rows took."""
    cost = [row["cost"] for row in rows]
    return float(sum(c.get("search_seconds", 0.0) + c["final_seconds"] for c in cost)) / 3600


# Numbers ---------------------------------------------------------------------------------------


def mean_std(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation, which one value does not have.

    >>> mean_std([1.0, 3.0])
    (2.0, 1.4142135623730951)
    >>> mean_std([1.0])
    (1.0, None)
    """
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def in_words(mean: float, std: float | None) -> str:
    """As the tables print it, in percent; narrow columns do not break it.

    >>> in_words(97.156, 0.2)
    '97.16\xa0±\xa00.20'
    """
    return f"{mean:.2f}" if std is None else f"{mean:.2f}\xa0±\xa0{std:.2f}"


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
