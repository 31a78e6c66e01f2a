"""What the experiments share: protocols, data sets, results files.

A results file is `results/{item}-{protocol}.json`, or `results/{item}.json` where the item has only
one protocol, without a name. The file holds the protocol with every number that a result depends
on, and one row for each finished run.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keeprate
from keeprate import InputError, Schedule, SearchConfig, TrainingConfig
from keeprate.data import Loaded
from keeprate.files import read_json
from keeprate.schedules import presets_in_words
from keeprate.searching import exploring

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
        How many are meant to run. Noise, split, initial weights and search vary with the seed.
    trials : int
    sampler, fidelity, confirm, warm_start
        As in `keeprate.SearchConfig`. The paper's protocol trains every trial fully, has no
        presets, and confirms no schedule.
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
    learning_rate_schedule: str = "linear-decay"

    def as_row(self) -> Row:
        """The protocol as the results file holds it, with the presets of a warm start."""
        n_explored = exploring(self.trials) if self.confirm else self.trials
        row = asdict(self) | {"warm_start": self.warm_start and presets_in_words(n_explored)}
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

    def search_config(self, space: str, earlier: Sequence[Schedule] = ()) -> SearchConfig:
        """How a search looks for R(t); the `earlier` schedules come before the presets."""
        return SearchConfig(
            space=space,
            sampler=self.sampler,
            fidelity=self.fidelity,
            confirm=self.confirm,
            warm_start=tuple(earlier) or self.warm_start,
        )


def desk(data: str, model: str, *, epochs: int, limit: int | None = None) -> Protocol:
    """A desk protocol: a search of six trials, as `--budget 6` plans it."""
    return Protocol(
        "desk", data, model, epochs=epochs, seeds=3, trials=6, warm_start=True, limit=limit
    )


@functools.cache
def load_data(folder: str, name: str) -> Loaded:
    """Read a data set below the folder, once."""
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
