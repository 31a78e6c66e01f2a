"""Which labels look wrong: a score for each training sample, ranked."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from keeprate.errors import InputError
from keeprate.files import write_atomically

COLUMNS = ("index", "given_label", "predicted_label", "score")


@dataclass(frozen=True)
class LabelQuality:
    """What a run found out about the labels that it was trained with.

    Attributes
    ----------
    rows : int array [N]
        Row of each sample in the data as the user gave it.
    given, predicted : int array [N]
        Class numbers.
    scores : float array [N]
        In [0, 1]: the mean probability that the networks gave to the given label over the later
        half of training. Wrong labels are not learnt under small-loss selection, so theirs stays
        low.
    """

    rows: NDArray[np.int64]
    given: NDArray[np.int64]
    predicted: NDArray[np.int64]
    scores: NDArray[np.floating]

    def save(self, path: str | os.PathLike[str], class_names: Sequence[str]) -> None:
        """Write `index,given_label,predicted_label,score`, the most suspect first."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        for i in rank_labels(self.scores):
            names = [class_names[self.given[i]], class_names[self.predicted[i]]]
            writer.writerow([int(self.rows[i]), *names, f"{self.scores[i]:.6f}"])
        write_atomically(path, text.getvalue())

    @classmethod
    def load(cls, path: str | os.PathLike[str], class_names: Sequence[str]) -> LabelQuality:
        """Read what `save` wrote, in its order.

        Raises
        ------
        InputError
            If the file is not there, or not such a file.
        """
        numbers = {name: i for i, name in enumerate(class_names)}
        try:
            with Path(path).open(newline="", encoding="utf-8") as file:
                lines = list(csv.DictReader(file))
            return cls(
                np.array([int(line["index"]) for line in lines], dtype=np.int64),
                np.array([numbers[line["given_label"]] for line in lines], dtype=np.int64),
                np.array([numbers[line["predicted_label"]] for line in lines], dtype=np.int64),
                np.array([float(line["score"]) for line in lines]),
            )
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{path} must be the label quality of a run ({error!r}); repeat its command in an "
                "empty folder."
            ) from error


def rank_labels(scores: NDArray[np.floating]) -> NDArray[np.int64]:
    """Positions of the samples, the most suspect (lowest score) first; ties in order.

    >>> rank_labels(np.array([0.9, 0.1, 0.5])).tolist()
    [1, 2, 0]
    """
    return np.argsort(scores, kind="stable").astype(np.int64)
