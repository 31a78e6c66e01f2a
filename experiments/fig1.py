"""Fig. 1: how Standard training memorises wrong labels, one factor changed at a time.

The desk protocol varies the noise of MNIST where the paper varies the data set: CIFAR costs too
much there. The noise, batch sizes and learning rates of the paper's figure are not in its text:
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
    Job,
    Row,
    command_of,
    describe_run,
    load_data,
    results_to_draw,
    run_seeds,
)
from experiments.drawing import SEQUENCE, STYLE, band, new_figure, save, say
from keeprate.engine import TrainingConfig

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
    lr_schedule: str = "linear-decay"
    batch_size: int = 128
    momentum: float = 0.0  # of sgd and rmsprop; the paper names none


@dataclass(frozen=True)
class Protocol:
    """A base setting, and for each factor the settings to compare, under their labels."""

    name: str
    seeds: int
    base: Setting
    factors: Mapping[str, Mapping[str, Setting]]

    def settings(self) -> list[Setting]:
        """Every setting once: the base is in each factor."""
        return list(dict.fromkeys(s for group in self.factors.values() for s in group.values()))

    def as_row(self) -> Row:
        return {"name": self.name, "seeds": self.seeds, "base": asdict(self.base)}


def _factors(
    base: Setting, first: tuple[str, Mapping[str, Setting]], models: tuple[str, ...], long: int
) -> Mapping[str, Mapping[str, Setting]]:
    """`long` is the number of epochs where memorising takes longer (App. A.1 d and f)."""
    factors = {
        first[0]: first[1],
        "architecture": {name: replace(base, model=name) for name in models},
        "optimiser": {
            "Adam, 0.001": base,
            # The paper divides SGD's rate by 10 at 50 % and 75 % of the epochs; here it decays
            # linearly.
            "SGD, 0.1": replace(base, optimizer="sgd", learning_rate=0.1, epochs=long),
            "RMSProp, 0.01": replace(
                base, optimizer="rmsprop", learning_rate=0.01, lr_schedule="constant"
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
    return factors


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


def protocol_named(name: str) -> Protocol:
    return next(protocol for protocol in PROTOCOLS if protocol.name == name)


def run(protocol: Protocol, *, data: str, runs: str, **options: Any) -> list[Row]:
    """Train what the results file does not have yet; `data` is the folder of data sets.

    `options` are those of `run_seeds`, here and in the tables.
    """

    def jobs(seed: int) -> Iterator[Job]:
        for setting in protocol.settings():
            train = partial(_train, protocol.name, setting, seed, data, runs)
            yield Job(asdict(setting) | {"seed": seed}, train)

    return run_seeds(NAME, protocol, jobs, **options)


def _train(protocol: str, setting: Setting, seed: int, data: str, runs: str) -> Row:
    prepared = keeprate.prepare(load_data(data, setting.data), noise=setting.noise, seed=seed)
    options = asdict(setting)
    where = [options.pop(name) for name in ("data", "noise", "model")]
    config = TrainingConfig(**options)
    words = [*where, *options.values(), f"seed{seed}"]
    folder = Path(runs) / f"{NAME}-{protocol}" / "-".join(map(str, words)).replace(":", "-")
    done = keeprate.train(
        prepared,
        method="standard",
        schedule="constant",
        model=setting.model,
        config=config,
        seed=seed,
        out=folder,
        command=command_of(NAME, protocol),
    )
    return describe_run(done)


def rows_of(rows: list[Row], setting: Setting) -> list[Row]:
    """The rows of a setting, by seed."""
    key = asdict(setting).items()
    found = [row for row in rows if all(row.get(name) == value for name, value in key)]
    return sorted(found, key=lambda row: int(row["seed"]))


# The picture -----------------------------------------------------------------------------------


def draw(name: str, *, results: Path = RESULTS, images: Path = IMAGES) -> list[Path]:
    """One panel of test accuracy for each factor, before them the first one's training accuracy.

    Returns
    -------
    list of Path
        A PNG and an SVG.
    """
    protocol, found = protocol_named(name), results_to_draw(NAME, name, results)
    (first, group), *_ = protocol.factors.items()
    pictures = [(first, group, "train_accuracy")]
    pictures += [(title, group, "test_accuracy") for title, group in protocol.factors.items()]
    with matplotlib.rc_context(STYLE):
        figure, panels = new_figure(2, 3)
        for axes, picture in zip(panels.flat, pictures, strict=True):
            _panel(axes, found["rows"], *picture)
        return save(figure, f"{NAME}-{name}", images)


def _panel(
    axes: Axes, rows: list[Row], title: str, group: Mapping[str, Setting], curve: str
) -> None:
    words = {"train_accuracy": "training accuracy", "test_accuracy": "test accuracy"}
    longest = 0
    for look, (label, setting) in zip(SEQUENCE, group.items(), strict=False):
        curves = [row["curves"][curve] for row in rows_of(rows, setting)]
        curves = [values for values in curves if values]
        if curves:
            band(axes, 100 * np.array(curves), replace(look, label=label))
            longest = max(longest, setting.epochs)
    axes.set(title=title, xlabel="epoch", ylabel=f"{words[curve]}, %")
    if longest:
        axes.set_xlim(0, 1.02 * longest)
        axes.legend(
            loc="upper center",
            bbox_to_anchor=(0.5, -0.2),
            ncols=3,
            columnspacing=0.8,
            handlelength=1.7,
            handletextpad=0.4,
            fontsize=7.5,
        )
    else:
        say(axes, "not measured")
