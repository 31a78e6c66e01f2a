"""Sources with wrong labels on disk, as people have them, for `benchmarks.review`.

What is written holds no true label. Pictures are folders by class, tables CSV files, texts Parquet
files: `keeprate apply` writes labels into each of them in another way.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import keeprate
from benchmarks.noisy_sets import SETS as NOISY_SETS
from benchmarks.noisy_sets import prepared
from keeprate.data import join
from keeprate.noise import corrupt, symmetric

MODULES = {"numpy": "numpy", "scipy": "scipy.stats", "torch": "torch.nn.functional"}
"""Class -> module whose docstrings are the embedded texts."""
TEXT_NOISE, TEST_SHARE, MOST_TEXT = 0.2, 0.3, 300  # of the embedded texts; the last: a class
MOST_ROWS = 3_000  # of the large table


@dataclass(frozen=True)
class Sample:
    """A sample: what the network sees, the label that is written, the true one."""

    content: Any
    label: str
    true: str


@dataclass(frozen=True)
class Source:
    """A source on disk, and the truth that only reviewers and the scoring know.

    Attributes
    ----------
    path : Path
        Of the folder, with a training and a test split. The labels of the test split are right.
    truth : dict of str to str
        The true label of each training sample, by its key.
    by_name : bool
        Whether a sample is known by the stem of its file, and not by its row. A picture that gets
        another label moves, and rows are counted in the order of the folders.
    """

    path: Path
    truth: Mapping[str, str]
    by_name: bool

    def key(self, row: int, name: str) -> str:
        """How the truth knows a sample of a run: by its row, or by the name of its file."""
        return Path(name).stem if self.by_name else str(row)

    def labels(self, path: Path | None = None) -> dict[str, str]:
        """Read the training labels by key, from here or from a corrected copy."""
        loaded = keeprate.load_data(path or self.path)
        split = loaded.splits["train"]
        names = split.names or ("",) * len(split)
        return {
            self.key(row, name): loaded.class_names[label]
            for row, name, label in zip(
                split.rows.tolist(), names, split.labels.tolist(), strict=True
            )
        }

    def wrong(self, path: Path | None = None) -> int:
        """Count the wrong training labels."""
        labels = self.labels(path)
        if labels.keys() != self.truth.keys():
            raise ValueError("the copy must hold the samples of the source")
        return sum(label != self.truth[key] for key, label in labels.items())


@dataclass(frozen=True)
class ReviewSet:
    """A set, and how its samples become files.

    Attributes
    ----------
    title : str
    draw : callable
        (folder of the data sets, seed) -> training samples, test samples.
    write : callable
        Writes the samples of one split into the folder of a source.
    by_name : bool
        As in `Source`.
    """

    title: str
    draw: Callable[[str, int], tuple[list[Sample], list[Sample]]]
    write: Callable[[Path, str, Sequence[Sample]], None]
    by_name: bool = False

    def source(self, folder: str, seed: int, path: Path) -> Source:
        """Write the source of a seed into a new folder."""
        train, test = self.draw(folder, seed)
        path.mkdir(parents=True)
        self.write(path, "train", train)
        self.write(path, "test", test)
        return Source(path, {str(i): one.true for i, one in enumerate(train)}, self.by_name)


# Drawing samples ---------------------------------------------------------------------------------


def _of_noisy_set(
    folder: str, seed: int, *, name: str, most: int | None = None
) -> tuple[list[Sample], list[Sample]]:
    """Samples as `benchmarks.real_noise` cuts them, `most` of them for training.

    Its clean samples are left out.
    """
    task, truth = prepared(name, "noisy", seed, folder)
    pool, names = join(task.data.train, task.data.validation), task.data.class_names
    order = pool.rows.argsort()
    if most is not None:  # the same for all seeds, and not the first: files lie by project
        order = order[np.random.default_rng(31).permutation(len(order))[:most]]
    train = [
        Sample(content, names[label], names[true])
        for content, label, true in zip(
            pool.inputs[order].numpy(),
            pool.labels[order].tolist(),
            truth.train[pool.rows[order].numpy()].tolist(),
            strict=True,
        )
    ]
    test = [
        Sample(content, names[true], names[true])
        for content, true in zip(task.raw_test_inputs.numpy(), truth.test.tolist(), strict=True)
    ]
    return train, test


def _texts(folder: str, seed: int, *, name: str) -> tuple[list[Sample], list[Sample]]:
    """Texts as their set cuts them, the same for all seeds; its clean validation is left out."""
    import pyarrow.parquet

    splits = []
    for split in ("train", "test"):
        path = Path(folder) / "real" / name / f"{split}-00000-of-00001.parquet"
        table = pyarrow.parquet.read_table(path, columns=["text", "label", "true_label"])
        columns = (table[column].to_pylist() for column in table.column_names)
        rows = zip(*columns, strict=True)
        splits.append([Sample(text, f"{label}", f"{true}") for text, label, true in rows])
    return splits[0], splits[1]


def _docstrings(folder: str, seed: int) -> tuple[list[Sample], list[Sample]]:
    """Which library a docstring is of: texts that every machine with keeprate has."""
    names = list(MODULES)
    class_of: dict[str, int] = {}
    for i, (library, module) in enumerate(MODULES.items()):
        things = inspect.getmembers(importlib.import_module(module), callable)
        texts = [(inspect.getdoc(thing) or "")[:600].replace(library, "") for _, thing in things]
        for text in [text for text in texts if len(text) > 200][:MOST_TEXT]:
            class_of.setdefault(text, i)
    rng = np.random.default_rng([seed, 23])
    order = rng.permutation(len(class_of))
    texts, true = list(class_of), np.array(list(class_of.values()))
    noisy = corrupt(true, symmetric(len(names), TEXT_NOISE), rng=rng)
    test, train = np.split(order, [int(TEST_SHARE * len(order))])
    return (
        [Sample(texts[i], names[noisy[i]], names[true[i]]) for i in train],
        [Sample(texts[i], names[true[i]], names[true[i]]) for i in test],
    )


# Writing files -----------------------------------------------------------------------------------


def _as_pictures(path: Path, split: str, samples: Sequence[Sample]) -> None:
    from PIL import Image

    pixels: NDArray[Any] = np.stack([np.moveaxis(one.content, 0, -1) for one in samples])
    white = pixels.max()  # 16 in digits
    as_bytes = np.rint(pixels * (255 / white)).astype(np.uint8)
    for i, one in enumerate(samples):
        folder = path / split / one.label
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(as_bytes[i].squeeze()).save(folder / f"{i}.png")


def _as_csv(path: Path, split: str, samples: Sequence[Sample]) -> None:
    cells = np.stack([np.ravel(one.content) for one in samples])
    lines = [",".join([*(f"feature {i + 1}" for i in range(cells.shape[1])), "label"])]
    for numbers, one in zip(cells.tolist(), samples, strict=True):
        lines.append(",".join([*(f"{number:.9g}" for number in numbers), one.label]))
    (path / f"{split}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _as_texts(path: Path, split: str, samples: Sequence[Sample]) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    columns = {"text": [s.content for s in samples], "label": [s.label for s in samples]}
    pyarrow.parquet.write_table(pa.table(columns), path / f"{split}.parquet")


def _pictures(name: str) -> ReviewSet:
    draw = partial(_of_noisy_set, name=name)
    return ReviewSet(f"{NOISY_SETS[name].title} (images)", draw, _as_pictures, by_name=True)


def _table(name: str, most: int | None = None) -> ReviewSet:
    draw = partial(_of_noisy_set, name=name, most=most)
    return ReviewSet(f"{NOISY_SETS[name].title} (table)", draw, _as_csv)


SETS = {
    "digits": _pictures("digits-20"),
    "mnist": _pictures("mnist-20"),
    "cifar-10n": _pictures("cifar-10n-pictures"),
    "digits-table": _table("digits-20"),
    "jira": _table("jira", most=MOST_ROWS),
    "docstrings": ReviewSet("Docstrings, 20 % symmetric (text)", _docstrings, _as_texts),
    "hausa": ReviewSet("Hausa news (text)", partial(_texts, name="hausa-news"), _as_texts),
    "youtube": ReviewSet("YouTube (text)", partial(_texts, name="youtube-weak"), _as_texts),
}
EMBEDDED = ("digits", "digits-table", "docstrings")
"""Sets that need no folder of data: an image, a table and a text set."""
REAL = ("digits", "youtube", "jira")
"""The sets that are reported."""
