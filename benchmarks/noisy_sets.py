"""Data sets whose labels are wrong in reality, and controls, cut for `benchmarks.real_noise`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import keeprate
from benchmarks.frozen_features import CACHE, cached
from keeprate import Data
from keeprate.data import Loaded, Split, part

SCENARIOS = {"noisy": "no clean label", "clean": "with a few clean labels"}
MOST_CLEAN = 500
"""Clean labels at most, and at most a tenth, where a set brings no validation split of its own."""


@dataclass(frozen=True)
class Task:
    """What a line gets. No label of the test split, and no true label of the training split.

    Attributes
    ----------
    inputs : float32 array [N, D]
        Scaled and encoded as keeprate's networks get them.
    labels : int64 array [N]
        Some are wrong.
    test_inputs : float32 array [M, D]
    n_classes : int
        C.
    clean_inputs, clean_labels : arrays [V, D] and [V], or None
        Validation samples with right labels, in the scenario that has some.
    data : keeprate.Data
        The same for keeprate; `data.train.rows`, and without clean labels those of
        `data.validation`, number the N samples.
    raw_test_inputs : Tensor [M, ...]
        The test inputs before they are scaled, as a classifier of keeprate takes them.
    is_table : bool
        Whether the inputs are columns of numbers with meanings of their own.
    image_shape : tuple of int, optional
        (channels, height, width), if the inputs are pictures for a CNN.
    """

    inputs: NDArray[np.float32]
    labels: NDArray[np.int64]
    test_inputs: NDArray[np.float32]
    n_classes: int
    clean_inputs: NDArray[np.float32] | None
    clean_labels: NDArray[np.int64] | None
    data: Data
    raw_test_inputs: Tensor
    is_table: bool = False
    image_shape: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Truth:
    """What only the scoring knows: right labels of the N training and the M test samples."""

    train: NDArray[np.int64]
    test: NDArray[np.int64]


@dataclass(frozen=True)
class NoisySet:
    """A data set, and how it is cut.

    Attributes
    ----------
    title : str
    load : callable
        (folder of the data sets, folder of cached features) -> Loaded.
    noise : str
        To inject, where the labels are right.
    most_train, most_test : int or None
    fixed_draw : bool
        The same samples whatever the seed.
    is_table : bool
    is_pictures : bool
        Whether the networks are CNNs.
    """

    title: str
    load: Callable[[str, Path], Loaded]
    noise: str = "none"
    most_train: int | None = None
    most_test: int | None = None
    fixed_draw: bool = False
    is_table: bool = False
    is_pictures: bool = False


@lru_cache(maxsize=1)
def _real(folder: str, cache: Path, *, name: str, inputs: str | None = None) -> Loaded:
    path = Path(folder) / "real" / name
    return keeprate.load_data(path, inputs=inputs, label="label", true_label="true_label")


@lru_cache(maxsize=1)
def _plain(folder: str, cache: Path, *, name: str) -> Loaded:
    return keeprate.load_data(name if name == "digits" else Path(folder) / name, label=None)


def _cifar_10n(folder: str, cache: Path, *, label: str) -> Loaded:
    features, columns = _cifar_features(folder, cache), _cifar_labels(folder)
    train = (features["train"], columns["train"][label], columns["train"]["label"])
    return keeprate.load_data(
        {"train": train, "test": (features["test"], columns["test"]["label"])}
    )


def _cifar_10h(folder: str, cache: Path) -> Loaded:
    """One vote for each CIFAR-10 test picture; training and test are both cut from these."""
    path = Path(folder) / "real" / "cifar-10h" / "cifar10h_test_labels.csv"
    table: Any = np.genfromtxt(path, dtype=np.int64, delimiter=",", names=True)
    rows, labels, true = (table[name] for name in ("row", "label", "true_label"))
    return keeprate.load_data((_cifar_features(folder, cache)["test"][rows], labels, true))


@lru_cache(maxsize=1)
def _cifar_features(folder: str, cache: Path) -> dict[str, Tensor]:
    return cached(folder, cache)


@lru_cache(maxsize=1)
def _cifar_pictures(folder: str, cache: Path, *, label: str) -> Loaded:
    loaded = keeprate.load_data(Path(folder) / "cifar-10", label="label")
    labels = torch.from_numpy(_cifar_labels(folder)["train"][label])
    train = loaded.splits["train"]
    noisy = replace(train, labels=labels, true_labels=train.labels)
    return replace(loaded, splits=loaded.splits | {"train": noisy})


@lru_cache(maxsize=1)
def _cifar_labels(folder: str) -> dict[str, dict[str, NDArray[np.int64]]]:
    """Every label column of both splits; the pictures are not decoded."""
    import pyarrow.parquet

    columns = {}
    for split in ("train", "test"):
        path = Path(folder) / "cifar-10" / f"{split}-00000-of-00001.parquet"
        names = [n for n in pyarrow.parquet.read_schema(path).names if n.endswith(("label", "1"))]
        table = pyarrow.parquet.read_table(path, columns=names)
        columns[split] = {name: table[name].to_numpy() for name in names}
    return columns


def _of_cifar(title: str, label: str) -> NoisySet:
    load = partial(_cifar_10n, label=label)
    return NoisySet(f"CIFAR-10N {title}", load, most_train=5_000, most_test=5_000)


SETS: dict[str, NoisySet] = {
    "labelme": NoisySet("LabelMe", partial(_real, name="labelme-crowd", inputs="features")),
    "hausa": NoisySet("Hausa news", partial(_real, name="hausa-news", inputs="features")),
    "hausa-text": NoisySet("Hausa news, text", partial(_real, name="hausa-news", inputs="text")),
    "youtube": NoisySet("YouTube", partial(_real, name="youtube-weak", inputs="features")),
    "youtube-text": NoisySet("YouTube, text", partial(_real, name="youtube-weak", inputs="text")),
    "jira": NoisySet(
        "JIRA defects",
        partial(_real, name="jira-defects"),
        most_train=8_000,
        most_test=10_000,
        fixed_draw=True,
        is_table=True,
    ),
    "cifar-10n-aggregate": _of_cifar("aggregate", "aggre_label"),
    "cifar-10n-random": _of_cifar("random 1", "random_label1"),
    "cifar-10n-worst": _of_cifar("worst", "worse_label"),
    "cifar-10n-pictures": NoisySet(
        "CIFAR-10N random 1, pictures",
        partial(_cifar_pictures, label="random_label1"),
        most_train=4_000,
        most_test=5_000,
        is_pictures=True,
    ),
    "cifar-10h": NoisySet("CIFAR-10H", _cifar_10h, most_train=5_000, most_test=4_500),
}
for _name, _title, _most in (("digits", "Digits", None), ("mnist", "MNIST", 5_000)):
    for _percent in (5, 10, 20):
        SETS[f"{_name}-{_percent}"] = NoisySet(
            f"{_title}, {_percent} % symmetric",
            partial(_plain, name=_name),
            noise=f"symmetric:{_percent / 100}",
            most_train=_most,
            most_test=_most,
        )
NEEDS_FEATURES = tuple(
    name for name, one in SETS.items() if name.startswith("cifar") and not one.is_pictures
)


@lru_cache(maxsize=2)  # of both scenarios, for all lines
def prepared(
    name: str, scenario: str, seed: int, folder: str, cache: Path = CACHE
) -> tuple[Task, Truth]:
    """A data set cut for a scenario, and what only the scoring may know."""
    chosen = SETS[name]
    loaded = chosen.load(folder, cache)
    splits = _cut(loaded, chosen, 0 if chosen.fixed_draw else seed)
    data = keeprate.prepare(replace(loaded, splits=splits), noise=chosen.noise, seed=seed)
    if data.train.true_labels is None or data.test is None:
        raise ValueError(f"{name} must have true labels and a test split")
    truth = Truth(data.train.true_labels.numpy(), data.test.labels.numpy())
    blind = replace(
        data.train, true_labels=None, votes=None, rows=torch.arange(len(data.train)), names=()
    )
    given = replace(data, train=blind, test=None, noise="none")
    if scenario == "noisy":
        given = _with_noisy_validation(given, seed)
    scale = given.normaliser()
    arrays = [
        scale(split.inputs[:]).flatten(1).numpy() for split in (blind, data.test, data.validation)
    ]
    is_clean = scenario == "clean"
    task = Task(
        arrays[0],
        blind.labels.numpy(),
        arrays[1],
        data.n_classes,
        arrays[2] if is_clean else None,
        data.validation.labels.numpy() if is_clean else None,
        given,
        data.test.inputs[:],
        chosen.is_table,
        data.input_shape if chosen.is_pictures else None,
    )
    return task, truth


def _cut(loaded: Loaded, chosen: NoisySet, seed: int) -> dict[str, Split]:
    """Disjoint train, validation and test splits; those that the source has stay apart."""
    draw = np.random.default_rng([seed, 17])
    splits = {name: loaded.splits[name] for name in loaded.splits}
    train = splits["train"]
    if "test" not in splits:
        order = draw.permutation(len(train))
        n_test = chosen.most_test or len(train) // 5
        splits["test"], train = part(train, order[:n_test]), part(train, order[n_test:])
    if chosen.most_test is not None and len(splits["test"]) > chosen.most_test:
        order = draw.permutation(len(splits["test"]))
        splits["test"] = part(splits["test"], order[: chosen.most_test])
    if "validation" not in splits:
        order = draw.permutation(len(train))
        n_clean = min(MOST_CLEAN, (chosen.most_train or len(train)) // 10)
        splits["validation"] = part(train, order[:n_clean])
        train = part(train, order[n_clean:])
    if chosen.most_train is not None and len(train) > chosen.most_train:
        train = part(train, draw.permutation(len(train))[: chosen.most_train])
    return {"train": train, "validation": splits["validation"], "test": splits["test"]}


def _with_noisy_validation(data: Data, seed: int) -> Data:
    """Cut the validation samples from the training ones, as `prepare` does without clean labels."""
    train = Loaded({"train": data.train}, data.class_names, data.name)
    options: dict[str, Any] = {"validation": "noisy", "n_validation": 0.1, "n_test": 0}
    cut = keeprate.prepare(train, seed=seed, **options)
    return replace(
        data, train=cut.train, validation=cut.validation, validation_from=cut.validation_from
    )
