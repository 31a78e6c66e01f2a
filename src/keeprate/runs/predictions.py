"""Predict the class of each row of a data set with the classifier of a run."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from keeprate.data import LABEL_NAMES, input_array, input_tensor, label_array, load, read_tables
from keeprate.files import write_atomically
from keeprate.runs.classifier import Classifier, load_classifier


def predict_file(
    folder: str | os.PathLike[str],
    source: str,
    out: Path,
    *,
    inputs: Sequence[str] | None = None,
    label: str | None = None,
) -> tuple[int, float | None]:
    """Write `index,predicted_label,probability` for each row of the source.

    A Parquet or CSV file needs the input columns of the training, in any order, and no label.
    Of a source with several splits the test split is predicted.

    Returns
    -------
    n_rows : int
    right : float or None
        Share of predictions that equal the label in the source, where it has labels.

    Raises
    ------
    InputError
        If the run has no classifier, or the source does not fit it.
    """
    classifier = load_classifier(folder)
    samples, given = _samples(classifier, source, inputs, label)
    confidence, predicted = classifier.predict_proba(samples).max(-1)
    names = [classifier.class_names[i] for i in predicted.tolist()]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["index", "predicted_label", "probability"])
    for row, (name, sure) in enumerate(zip(names, confidence.tolist(), strict=True)):
        writer.writerow([row, name, f"{sure:.6f}"])
    write_atomically(out, text.getvalue())
    if given is None:
        return len(names), None
    return len(names), sum(a == b for a, b in zip(names, given, strict=True)) / len(names)


def _samples(
    classifier: Classifier, source: str, inputs: Sequence[str] | None, label: str | None
) -> tuple[Tensor, list[str] | None]:
    path = Path(source)
    if path.is_file() and path.suffix.lower() in (".csv", ".parquet") and classifier.input_columns:
        table = read_tables([path], str(path))
        names = table.arrow.column_names
        wanted = inputs or classifier.input_columns
        samples = input_tensor(input_array(table, wanted), where=str(path))
        labels = [n for n in names if n not in wanted and n.lower() in LABEL_NAMES]
        column = label or (labels[0] if len(labels) == 1 else None)
        if column is None:
            return samples, None
        classes = table.names_of(column)
        values = label_array(table, column).tolist()
        return samples, [str(v) if classes is None or v is None else classes[v] for v in values]
    loaded = load(source, inputs=inputs, label=label)
    split = loaded.splits.get("test", loaded.splits["train"])
    given = split.labels if split.true_labels is None else split.true_labels
    return split.inputs, [loaded.class_names[i] for i in given.tolist()]
