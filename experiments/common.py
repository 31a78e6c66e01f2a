"""What the experiments share: protocols, data sets, results files.

A results file is `results/{item}-{protocol}.json`, or `results/{item}.json` where the item has only
one protocol, without a name. The file holds the protocol with every number that a result depends
on, and one row for each finished run.
"""

from __future__ import annotations

import functools
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.model_selection import train_test_split

import keeprate
from keeprate import InputError, SearchConfig, TrainingConfig
from keeprate.data import Loaded, part
from keeprate.files import read_json
from keeprate.searching import experience_digest

HERE = Path(__file__).parent
RESULTS = HERE / "results"
IMAGES = HERE.parent / "docs" / "images" / "results"

NOISES = {
    "symmetric:0.2": "symmetric 20 %",
    "symmetric:0.5": "symmetric 50 %",
    "pairflip:0.45": "pairflip 45 %",
}
DATA_SETS = {"mnist": "MNIST", "cifar-10": "CIFAR-10", "cifar-100": "CIFAR-100"}
PROTOCOLS = ("desk", "paper")

FIRST_REPORTING_SEED, FIRST_DEVELOPMENT_SEED = 102, 1000
"""Choices are made with seeds from 1000 on. Numbers are reported of smaller ones, from 102 on where
something was chosen: smaller seeds were seen before the search was what it is."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Protocol:
    """How much is run, and with which options.

    Attributes
    ----------
    name : str
        "paper", or "desk" for what two CPU cores can do.
    data : str
        A folder below --data.
    model : str
    epochs : int
    seeds : int
        How many are meant to run. Noise, initial weights and search vary with the seed.
    budget : str
        Of each search, as `keeprate.search` takes it.
    sampler, confirm, warm_start
        As in `keeprate.SearchConfig`. The paper's protocol begins with nothing, and confirms no
        schedule.
    restarts : int
        Of every final training, whatever the method.
    limit : int, optional
        The most training samples.
    batch_size, optimizer, learning_rate, learning_rate_schedule
        As in `keeprate.TrainingConfig`.
    """

    name: str
    data: str
    model: str
    epochs: int
    seeds: int
    budget: str
    sampler: str = "gaussian-process"
    confirm: bool = False
    warm_start: bool = False
    restarts: int = 1
    limit: int | None = None
    batch_size: int = 128
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    learning_rate_schedule: str = "linear-decay"
    first_seed: int = FIRST_REPORTING_SEED

    def as_row(self) -> Row:
        """The protocol as the results file holds it, with the experience of a warm start."""
        row = asdict(self) | {"warm_start": self.warm_start and experience_digest()}
        row["lr_schedule"] = row.pop("learning_rate_schedule")  # its name in all results files
        return row

    def training_config(self) -> TrainingConfig:
        """How each network trains."""
        return TrainingConfig(
            epochs=self.epochs,
            batch_size=self.batch_size,
            optimizer=self.optimizer,
            learning_rate=self.learning_rate,
            learning_rate_schedule=self.learning_rate_schedule,
        )

    def search_config(self, space: str) -> SearchConfig:
        """How a search looks for R(t)."""
        return SearchConfig(
            space=space, sampler=self.sampler, confirm=self.confirm, warm_start=self.warm_start
        )


def desk(data: str, model: str, *, epochs: int, limit: int | None = None) -> Protocol:
    """A desk protocol: a search with keeprate's defaults for the price of six trainings."""
    return Protocol(
        "desk",
        data,
        model,
        epochs=epochs,
        seeds=5,
        budget="6",
        confirm=True,
        warm_start=True,
        limit=limit,
    )


HALVES = ("validation", "test")
HALVING_SEED = 0  # of the cut of the test split


def load_data(folder: str, name: str, seed: int) -> Loaded:
    """Read a data set below the folder, as a seed may see it.

    A reporting seed gets the training samples, and the two halves of the test split for validation
    and test. The halves are the same for all seeds: no sample ever changes sides. A development
    seed gets the training samples alone; its validation samples are cut from them. So nothing that
    is chosen with development seeds has seen a sample that the numbers are measured on.
    """
    loaded = _read(folder, name)
    held_out = [split for split in loaded.splits if split != "train"]
    if seed >= FIRST_DEVELOPMENT_SEED:
        return replace(loaded, splits={"train": loaded.splits["train"]})
    if held_out != ["test"]:
        return loaded
    test = loaded.splits["test"]
    halves = train_test_split(
        np.arange(len(test)), test_size=0.5, stratify=test.labels, random_state=HALVING_SEED
    )
    parts = {side: part(test, np.sort(rows)) for side, rows in zip(HALVES, halves, strict=True)}
    return replace(loaded, splits={"train": loaded.splits["train"]} | parts)


@functools.cache
def _read(folder: str, name: str) -> Loaded:
    if name == "digits":  # of scikit-learn; the tests use it
        return keeprate.load_data(name)
    path = Path(folder) / name
    if not path.is_dir():
        raise InputError(
            f"--data must be a folder that holds {name}/, got {folder}; give the folder, or name "
            "it in the environment variable KEEPRATE_DATA."
        )
    # CIFAR-10 has more label columns than one: those of CIFAR-10N.
    return keeprate.load_data(path, label="label")


# Results files ---------------------------------------------------------------------------------


def results_path(item: str, protocol: str, results: Path = RESULTS) -> Path:
    """The results file of an item and a protocol."""
    return results / f"{'-'.join(filter(None, (item, protocol)))}.json"


def command_of(item: str, protocol: str) -> str:
    """The command that fills the results file."""
    return f"python -m experiments {item}" + (f" --protocol {protocol}" if protocol else "")


def read_results(item: str, protocol: str, results: Path = RESULTS) -> dict[str, Any] | None:
    """Read a results file (`command`, `protocol`, `versions`, `rows`); None if there is none."""
    path = results_path(item, protocol, results)
    return read_json(path) if path.exists() else None


def results_to_draw(item: str, protocol: str, results: Path = RESULTS) -> dict[str, Any]:
    """Read a results file that must be there.

    Raises
    ------
    InputError
        If there is none.
    """
    stored = read_results(item, protocol, results)
    if stored is None:
        name, command = ", ".join(filter(None, (item, protocol))), command_of(item, protocol)
        raise InputError(f"there are no results of {name}; run `{command}` first.")
    return stored
