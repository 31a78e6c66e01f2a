"""Fig. 1: how Standard training memorises wrong labels, one factor changed at a time.

The desk protocol varies the noise of MNIST where the paper varies the data set: CIFAR would cost
too much. The paper's text does not give the noise, batch sizes and learning rates of its figure;
those here are ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes

import keeprate
from experiments.common import (
    DATA_SETS,
    IMAGES,
    NOISES,
    RESULTS,
    Row,
    command_of,
    load_data,
    results_to_draw,
)
from experiments.drawing import SEQUENCE, STYLE, band, new_figure, save, write_words
from experiments.jobs import Job, run_seeds
from experiments.rows import result_as_row
from keeprate import TrainingConfig

NAME = "fig1"
SUMMARY = "memorisation: Standard training, one factor changed at a time (trains and draws)"


@dataclass(frozen=True)
class Setting:
    """One training."""

    data: str
    noise: str
    model: str
    epochs: int
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    learning_rate_schedule: str = "linear-decay"
    batch_size: int = 128
    momentum: float = 0.0  # of sgd and rmsprop; the paper names none

    def as_row(self) -> Row:
        """The setting as the results file holds it."""
        row = asdict(self)
        row["lr_schedule"] = row.pop("learning_rate_schedule")  # its name in all results files
        return row

    def training_config(self) -> TrainingConfig:
        """How the network trains."""
        return TrainingConfig(
            epochs=self.epochs,
            batch_size=self.batch_size,
            optimizer=self.optimizer,
            learning_rate=self.learning_rate,
            learning_rate_schedule=self.learning_rate_schedule,
            momentum=self.momentum,
        )


@dataclass(frozen=True)
class Protocol:
    """A base setting, and the settings to compare.

    Attributes
    ----------
    name : str
    seeds : int
    base : Setting
    factors : mapping
        Factor -> label of the value -> setting.
    too_short : tuple of str
        Labels of settings that memorise late and train for far fewer epochs than the paper's: no
        claim is judged by them.
    """

    name: str
    seeds: int
    base: Setting
    factors: Mapping[str, Mapping[str, Setting]]
    too_short: tuple[str, ...] = ()

    def settings(self) -> list[Setting]:
        """Every setting once: each factor holds the base."""
        return list(dict.fromkeys(s for values in self.factors.values() for s in values.values()))

    def as_row(self) -> Row:
        """The protocol as the results file holds it."""
        return {"name": self.name, "seeds": self.seeds, "base": self.base.as_row()}


def _factors(
    base: Setting, first: tuple[str, Mapping[str, Setting]], models: tuple[str, ...], long: int
) -> Mapping[str, Mapping[str, Setting]]:
    """All factors; `long` is the number of epochs where memorising takes longer (App. A.1)."""
    return {
        first[0]: first[1],
        "architecture": {model: replace(base, model=model) for model in models},
        "optimiser": {
            "Adam, 0.001": base,
            # The paper divides SGD's rate by 10 at 50 % and 75 % of the epochs; here it decays
            # linearly.
            "SGD, 0.1": replace(base, optimizer="sgd", learning_rate=0.1, epochs=long),
            "RMSProp, 0.01": replace(
                base, optimizer="rmsprop", learning_rate=0.01, learning_rate_schedule="constant"
            ),
        },
        "batch size": {str(size): replace(base, batch_size=size) for size in (32, 128, 512)},
        "learning rate": {
            f"{rate:g}": replace(
                base, learning_rate=rate, epochs=base.epochs if rate >= 1e-3 else long
            )
            for rate in (1e-2, 1e-3, 1e-4)
        },
    }


_DESK = Setting("mnist", "symmetric:0.5", "mlp", epochs=30)
_PAPER = Setting("cifar-10", "symmetric:0.5", "model1", epochs=200)
PROTOCOLS = (
    Protocol(
        "desk",
        1,
        _DESK,
        _factors(
            _DESK,
            ("noise", {words: replace(_DESK, noise=noise) for noise, words in NOISES.items()}),
            ("mlp", "model1"),
            long=30,
        ),
        too_short=("SGD, 0.1", "0.0001"),
    ),
    Protocol(
        "paper",
        5,
        _PAPER,
        _factors(
            _PAPER,
            ("data set", {words: replace(_PAPER, data=name) for name, words in DATA_SETS.items()}),
            ("model1", "model2", "model3"),
            long=1000,
        ),
    ),
)


def get_protocol(name: str) -> Protocol:
    """The protocol of that name."""
    return next(protocol for protocol in PROTOCOLS if protocol.name == name)


def run(
    protocol: Protocol, *, data: str, runs: str, cluster: str | None = None, **options: Any
) -> list[Row]:
    """Train what the results file does not have yet; see `Comparison.run` for the arguments."""

    def jobs(seed: int) -> Iterator[Job]:
        for setting in protocol.settings():
            train = partial(_train, protocol.name, setting, seed, data, runs, cluster)
            yield Job(setting.as_row() | {"seed": seed}, train)

    return run_seeds(NAME, protocol, jobs, **options)


def _train(
    protocol: str, setting: Setting, seed: int, data: str, runs: str, cluster: str | None
) -> Row:
    name = "-".join([*map(str, asdict(setting).values()), f"seed{seed}"]).replace(":", "-")
    run = keeprate.train(
        keeprate.prepare(load_data(data, setting.data, seed), noise=setting.noise, seed=seed),
        method="standard",
        schedule="constant",
        model=setting.model,
        config=setting.training_config(),
        restarts=1,
        seed=seed,
        out=Path(runs) / f"{NAME}-{protocol}" / name,
        command=command_of(NAME, protocol),
        cluster=cluster,
    )
    return result_as_row(run.record, run.results[0])


def rows_of(rows: list[Row], setting: Setting) -> list[Row]:
    """The rows of a setting, by seed."""
    key = setting.as_row().items()
    selected = [row for row in rows if all(row.get(name) == value for name, value in key)]
    return sorted(selected, key=lambda row: int(row["seed"]))


# The picture -----------------------------------------------------------------------------------


def draw(name: str, *, results: Path = RESULTS, images: Path = IMAGES) -> list[Path]:
    """Draw a panel of test accuracy for each factor; first, training accuracy by the first factor.

    Returns
    -------
    list of Path
        A PNG and an SVG.
    """
    protocol, stored = get_protocol(name), results_to_draw(NAME, name, results)
    factor, values = next(iter(protocol.factors.items()))
    pictures = [(factor, values, "train_accuracy")]
    pictures += [(factor, values, "test_accuracy") for factor, values in protocol.factors.items()]
    with matplotlib.rc_context(STYLE):
        figure, panels = new_figure(2, 3)
        for axes, picture in zip(panels.flat, pictures, strict=True):
            _panel(axes, stored["rows"], *picture)
        return save(figure, f"{NAME}-{name}", images)


def _panel(
    axes: Axes, rows: list[Row], factor: str, values: Mapping[str, Setting], metric: str
) -> None:
    words = {"train_accuracy": "training accuracy", "test_accuracy": "test accuracy"}
    most_epochs = 0
    for look, (label, setting) in zip(SEQUENCE, values.items(), strict=False):
        curves = [row["curves"][metric] for row in rows_of(rows, setting)]
        measured = [curve for curve in curves if curve]
        if measured:
            band(axes, 100 * np.array(measured), replace(look, label=label))
            most_epochs = max(most_epochs, setting.epochs)
    axes.set(title=factor, xlabel="epoch", ylabel=f"{words[metric]}, %")
    if not most_epochs:
        write_words(axes, "not measured")
        return
    axes.set_xlim(0, 1.02 * most_epochs)
    axes.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, -0.2),
        ncols=3,
        columnspacing=0.8,
        handlelength=1.7,
        handletextpad=0.4,
        fontsize=7.5,
    )
