"""Predict the class of each row of a data set with the classifier of a run."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path

from keeprate.data import load
from keeprate.files import write_atomically
from keeprate.runs import load_classifier


def predict_file(
    folder: str | os.PathLike[str],
    source: str,
    out: Path,
    *,
    inputs: Sequence[str] | None = None,
    label: str | None = None,
) -> tuple[int, float | None]:
    """Write `index,predicted_label,probability` for each row of the source.

    Where the source has several splits, the test split is predicted, else the only one.

    Returns
    -------
    n_rows : int
    right : float or None
        Share of predictions that equal the label in the source.
    """
    classifier = load_classifier(folder)
    loaded = load(source, inputs=inputs, label=label)
    split = loaded.splits.get("test", loaded.splits["train"])
    probabilities = classifier.predict_proba(split.inputs)
    confidence, predicted = probabilities.max(-1)
    names = [classifier.class_names[i] for i in predicted.tolist()]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["index", "predicted_label", "probability"])
    for row, name, sure in zip(split.rows.tolist(), names, confidence.tolist(), strict=True):
        writer.writerow([row, name, f"{sure:.6f}"])
    write_atomically(out, text.getvalue())
    labels = split.labels if split.true_labels is None else split.true_labels
    given = [loaded.class_names[i] for i in labels.tolist()]
    return len(names), sum(a == b for a, b in zip(names, given, strict=True)) / len(names)
