"""Wrong names that LFW really has: where does a ranking of its labels put them?

The errata of LFW name pictures that stand under another person's name. Three of them are of people
with ten pictures or more, whom networks can learn.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import keeprate
from experiments.common import Row, command_of
from experiments.jobs import Job, run_seeds
from keeprate import TrainingConfig
from keeprate.data import Data

NAME = "known_errors"
SUMMARY = "label issues on LFW: the ranks of its known errors (trains)"


@dataclass(frozen=True)
class Protocol:
    """How much is run."""

    name: str = ""
    model: str = "face-small"
    side: int = 40
    epochs: int = 20
    augment: str = "flip"
    seeds: int = 3

    def as_row(self) -> Row:
        """The protocol as the results file holds it."""
        return asdict(self)


PROTOCOL = Protocol()


def run(*, data: str, runs: str, cluster: str | None = None, **options: Any) -> list[Row]:
    """Train what the results file does not have yet; see `run_missing` for the other options."""

    def jobs(seed: int) -> Iterator[Job]:
        yield Job({"seed": seed}, partial(_train, Path(data, "lfw"), seed, runs, cluster))

    return run_seeds(NAME, PROTOCOL, jobs, words=_in_words, **options)


def _in_words(row: Row) -> str:
    return ", ".join(f"{name}: {rank:,}" for name, rank in row["ranks"].items())


def load_faces(folder: Path, seed: int) -> tuple[Data, dict[int, str]]:
    """LFW's people with ten pictures or more; the rows of the known errors, and their names."""
    loaded = keeprate.load_data(
        folder / "train-00000-of-00001.parquet", image_size=PROTOCOL.side, normalise="centred"
    )
    split = loaded.splits["train"]
    with open(folder / "known_label_errors.csv", newline="", encoding="utf-8") as content:
        known = {
            line["image"] for line in csv.DictReader(content) if "same person" not in line["kind"]
        }
    rows = {
        row: file for row, name in enumerate(split.names) if (file := name.split(",")[0]) in known
    }
    data = keeprate.prepare(loaded, n_test=0, seed=seed)
    return data, rows


def _train(folder: Path, seed: int, runs: str, cluster: str | None) -> Row:
    data, known = load_faces(folder, seed)
    run = keeprate.train(
        data,
        model=PROTOCOL.model,
        config=TrainingConfig(epochs=PROTOCOL.epochs, augment=PROTOCOL.augment),
        seed=seed,
        out=Path(runs) / NAME / f"seed{seed}",
        command=command_of(NAME, ""),
        cluster=cluster,
    )
    quality = run.label_quality
    order = np.argsort(quality.scores, kind="stable")
    ranks = {int(quality.rows[place]): rank for rank, place in enumerate(order.tolist(), start=1)}
    return {
        "ranks": {name: ranks[row] for row, name in known.items()},
        "judged": len(ranks),
        "listed": run.record.label_issues,
        "cost": asdict(run.record.cost),
    }
