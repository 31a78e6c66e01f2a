"""Which labels look wrong: a score for each training sample, ranked."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from keeprate.files import write_atomically


def rank_labels(scores: NDArray[np.floating]) -> NDArray[np.int64]:
    """Positions of the samples, the most suspect (lowest score) first; ties in order.

    >>> rank_labels(np.array([0.9, 0.1, 0.5])).tolist()
    [1, 2, 0]
    """
    return np.argsort(scores, kind="stable").astype(np.int64)


def write_label_quality(
    path: str | os.PathLike[str],
    *,
    rows: NDArray[np.int64],
    given: NDArray[np.int64],
    predicted: NDArray[np.int64],
    scores: NDArray[np.floating],
    class_names: Sequence[str],
) -> None:
    """Write `index,given_label,predicted_label,score`, ranked.

    Parameters
    ----------
    rows : int array [N]
        Row of each sample in the training data as the user gave it.
    given, predicted : int array [N]
        Class numbers.
    scores : float array [N]
        In [0, 1]: the mean probability that the networks gave to the given label over the
        later half of training. Wrong labels are not learnt under small-loss selection, so
        theirs stays low.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["index", "given_label", "predicted_label", "score"])
    for i in rank_labels(scores):
        writer.writerow(
            [int(rows[i]), class_names[given[i]], class_names[predicted[i]], f"{scores[i]:.6f}"]
        )
    write_atomically(path, text.getvalue())
