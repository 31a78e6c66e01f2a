"""Predict the class of each sample of a source with the classifier of a run."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from keeprate.data import Samples, match_labels, read_unlabelled
from keeprate.files import write_atomically
from keeprate.runs.classifier import load
from keeprate.text import neutral

OWN_COLUMNS = ("index", "predicted_label", "probability")


@dataclass(frozen=True)
class Predictions:
    """What was predicted.

    Attributes
    ----------
    n_rows : int
    n_scored, n_right : int
        How many rows have the label of a known class, and how many of these were predicted so.
    has_labels : bool
        Whether the source has labels, known or not.
    notes : tuple of str
        What the user should know, a sentence each.
    """

    n_rows: int
    n_scored: int
    n_right: int
    has_labels: bool
    notes: tuple[str, ...]


def predict_files(
    folder: str | os.PathLike[str],
    sources: Sequence[str],
    out: Path,
    *,
    inputs: Sequence[str] | None = None,
    label: str | None = None,
    with_probabilities: bool = False,
    model: str | None = None,
) -> Predictions:
    """Write the predicted class of each sample to a CSV file, one row each.

    The columns are `index`, the file or the key of the sample if the source has one,
    `predicted_label` and `probability`. The sources need no labels. A table needs the input columns
    of the training, in any order.

    Parameters
    ----------
    folder : path
        Of a finished run.
    sources : sequence of str
        As `keeprate.data.read_unlabelled` takes them.
    out : Path
    inputs, label : optional
        As `keeprate.data.read_unlabelled` takes them.
    model : str, optional
        As for `keeprate.load`.
    with_probabilities : bool
        Write the probabilities of all classes, too.

    Raises
    ------
    InputError
        If the run has no classifier, or a source does not fit it.
    """
    classifier = load(folder, model=model)
    samples = read_unlabelled(sources, classifier.form, inputs=inputs, label=label)
    probabilities = classifier.probabilities(samples.inputs)
    confidence, predicted = probabilities.max(-1)
    names = classifier.class_names
    key = [samples.key if samples.key not in OWN_COLUMNS else "key"] if samples.keys else []
    row_number, *others = OWN_COLUMNS
    header = [row_number, *key, *others]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    header += [f"p({name})" for name in names] * with_probabilities
    writer.writerow([neutral(name) for name in header])
    of_rows = probabilities.tolist() if with_probabilities else [()] * len(predicted)
    keys = zip(samples.keys) if samples.keys else [()] * len(predicted)
    rows = zip(predicted.tolist(), confidence.tolist(), keys, of_rows, strict=True)
    for row, (number, sure, its_key, of_row) in enumerate(rows):
        all_classes = [f"{p:.6f}" for p in of_row]
        words = [neutral(word) for word in (*its_key, names[number])]
        writer.writerow([row, *words, f"{sure:.6f}", *all_classes])
    write_atomically(out, text.getvalue())
    return _scored(samples, predicted.numpy(), names)


def _scored(samples: Samples, predicted: NDArray[np.int64], names: Sequence[str]) -> Predictions:
    """Compare with the labels that the source has."""
    if samples.labels is None:
        return Predictions(len(predicted), 0, 0, False, samples.notes)
    given, note = match_labels(samples.labels, names, samples.class_names)
    known = given >= 0
    right = int((predicted[known] == given[known]).sum())
    notes = (*samples.notes, *filter(None, [note]))
    has_labels = samples.class_names != ()  # the folder of an image need not be its class
    return Predictions(len(predicted), int(known.sum()), right, has_labels, notes)
