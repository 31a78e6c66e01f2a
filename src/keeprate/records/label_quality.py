"""Label quality: the probability that each label is right, a suggestion, a ranking."""

from __future__ import annotations

import csv
import io
import json
import os
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from numpy.typing import NDArray
from torch import Tensor

from keeprate.checksums import check_unchanged
from keeprate.errors import InputError, Words, check_whole, invalid, needs
from keeprate.files import write_atomically
from keeprate.noise import (
    check_classes,
    check_probabilities,
    class_posterior,
    fit_transition_matrix,
    slices,
)
from keeprate.reading import NpzArrays
from keeprate.records.record import load_record
from keeprate.text import as_meant, cut, listed, neutral

DIGITS = 6  # of a score in a file
ROWS_AT_ONCE = 50_000  # that are made text
SURE = 0.8  # a suggested class is four times as probable as all others together
OTHERWISE = 0.1  # share of labels that may be any, whatever the transition matrix says
QUALITY_FILE = "label_quality.csv"  # in a run folder
SUGGESTED_COLUMN = "suggested_label"
QUALITY_COLUMNS = (
    "index",
    "is_label_issue",
    "label_score",
    "given_label",
    "predicted_label",
    SUGGESTED_COLUMN,
)
NAME_COLUMN = "name"  # of one more column, where samples have names


@dataclass(frozen=True)
class LabelQuality:
    """What is known of the labels of some samples.

    Attributes
    ----------
    rows : int array [N]
        Row of each sample in the data as the user gave it.
    given, predicted : int array [N]
        Class numbers: as labelled, and the most probable one by networks and label together.
    scores : float array [N]
        Probability in [0, 1] that the given label is right.
    suggested : int array [N]
        Another class in place of a label that looks wrong, with a probability of at least 0.8; -1
        where no class is that probable, or the label looks right.
    names : tuple of N str
        What people know each sample by, its file say; empty if nothing.
    """

    rows: NDArray[np.int64]
    given: NDArray[np.int64]
    predicted: NDArray[np.int64]
    scores: NDArray[np.floating]
    suggested: NDArray[np.int64]
    names: tuple[str, ...] = ()

    @property
    def is_issue(self) -> NDArray[np.bool_]:
        """Where the label is more probably wrong than right, [N]."""
        return np.round(self.scores.astype(np.float64), DIGITS) < 0.5  # as `load` reads it again

    def mask(self, n_rows: int) -> NDArray[np.bool_]:
        """Where the data as the user gave it have a label that looks wrong, [n_rows].

        Parameters
        ----------
        n_rows : int
            Of the data. What was not judged, as its labels are clean, is False.

        Raises
        ------
        InputError
            If a row was judged that is not among so many.

        Examples
        --------
        >>> quality = find_label_issues([0, 1, 1], [[0.9, 0.1], [0.2, 0.8], [0.9, 0.1]])
        >>> quality.mask(4)
        array([False, False,  True, False])
        """
        least = int(self.rows.max(initial=-1)) + 1
        n_rows = check_whole("n_rows", n_rows, least)
        mask = np.zeros(n_rows, dtype=np.bool_)
        mask[self.rows[self.is_issue]] = True
        return mask

    @property
    def corrected(self) -> NDArray[np.int64]:
        """The labels after every suggestion is taken, [N]."""
        return np.where(self.suggested >= 0, self.suggested, self.given)

    @property
    def ranking(self) -> NDArray[np.int64]:
        """Positions of the samples, the most suspect first; ties in order, [N]."""
        return np.argsort(self.scores, kind="stable").astype(np.int64)

    def without(self, rows: Sequence[int]) -> LabelQuality:
        """The same without the samples in these rows of the data."""
        return self._part(np.flatnonzero(~np.isin(self.rows, np.array(rows, dtype=np.int64))))

    def sorted(self) -> LabelQuality:
        """The same in the order of `rows`."""
        return self._part(np.argsort(self.rows, kind="stable"))

    def listed(self, *, precision: float | None = None, rows: int | None = None) -> LabelQuality:
        """The labels to look at, the most suspect first.

        Parameters
        ----------
        precision : float, optional
            In (0, 1]. As many labels as there can be if this share of them is to be wrong, by
            their probabilities.
        rows : int, optional
            So many labels.

        Returns
        -------
        LabelQuality
            Without either: the labels that are more probably wrong than right.

        Raises
        ------
        InputError
            If both are given, or one cannot be used.
        """
        order = self.ranking
        if precision is not None and rows is not None:
            raise invalid("precision and rows", "not be given together", "both", "leave one out")
        if rows is not None:
            return self._part(order[: check_whole("rows", rows, 1)])
        if precision is None:
            return self._part(order[self.is_issue[order]])
        if not 0 < precision <= 1:
            raise invalid("precision", "lie in (0, 1]", precision, "0.9 is nine wrong of ten")
        wrong = 1 - self.scores[order].astype(np.float64)
        shares = np.round(np.cumsum(wrong) / np.arange(1, len(order) + 1), DIGITS)
        return self._part(order[: int((shares >= precision).sum())])  # the shares only fall

    def _part(self, places: NDArray[np.int64]) -> LabelQuality:
        return LabelQuality(
            self.rows[places],
            self.given[places],
            self.predicted[places],
            self.scores[places],
            self.suggested[places],
            tuple(self.names[i] for i in places) if self.names else (),
        )

    def table(self, class_names: Sequence[str]) -> dict[str, list[Any]]:
        """Columns in the order of `ranking`, named as in cleanlab's `Datalab.get_issues`.

        `suggested_label` is empty where nothing is suggested.
        """
        return self._table_of(self.ranking, class_names)

    def _table_of(
        self, order: NDArray[np.int64], class_names: Sequence[str]
    ) -> dict[str, list[Any]]:
        """Columns of the samples at these positions."""
        names, scores = np.asarray(class_names), self.scores[order].astype(np.float64)
        columns: tuple[npt.NDArray[Any], ...] = (
            self.rows[order],
            np.round(scores, DIGITS) < 0.5,  # as `is_issue`
            np.round(scores, DIGITS),
            names[self.given[order]],
            names[self.predicted[order]],
            np.append(names, "")[self.suggested[order]],  # the last one for -1
        )
        table = {
            name: column.tolist() for name, column in zip(QUALITY_COLUMNS, columns, strict=True)
        }
        return table | ({NAME_COLUMN: [self.names[i] for i in order]} if self.names else {})

    def _tables(self, class_names: Sequence[str]) -> Iterator[dict[str, list[Any]]]:
        """`table`, some rows at a time; at least one piece, which may be empty."""
        order = self.ranking
        for start in range(0, max(1, len(order)), ROWS_AT_ONCE):
            yield self._table_of(order[start : start + ROWS_AT_ONCE], class_names)

    def save(self, path: str | os.PathLike[str], class_names: Sequence[str]) -> None:
        """Write `table` as .csv, .parquet or .json (a list of rows).

        A text that a spreadsheet would take for a formula gets an apostrophe in front in .csv;
        `load` takes it away.

        Raises
        ------
        InputError
            If the file is of another kind, or cannot be written.
        """
        kind = Path(path).suffix
        if kind == ".csv":
            write_atomically(path, self._lines(class_names))
        elif kind == ".json":
            table = self.table(class_names)
            rows = [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]
            write_atomically(path, json.dumps(rows, indent=1) + "\n")
        elif kind == ".parquet":
            content = io.BytesIO()
            table = needs("pyarrow").table(self.table(class_names))
            needs("pyarrow.parquet").write_table(table, content)
            write_atomically(path, content.getvalue())
        else:
            raise invalid("the file", "end in .csv, .parquet or .json", str(path), "choose one")

    def _lines(self, class_names: Sequence[str]) -> Iterator[str]:
        """The text of a .csv file, in pieces."""
        for number, table in enumerate(self._tables(class_names)):
            text = io.StringIO()
            writer = csv.writer(text, lineterminator="\n")
            if number == 0:
                writer.writerow(table)
            for row in zip(*table.values(), strict=True):
                writer.writerow([neutral(v) if isinstance(v, str) else v for v in row])
            yield text.getvalue()

    @classmethod
    def load(cls, path: str | os.PathLike[str], class_names: Sequence[str]) -> LabelQuality:
        """Read a .csv file that `save` wrote, in the order of its rows' numbers.

        Raises
        ------
        InputError
            If the file is not there, or not such a file.
        """
        check_unchanged(Path(path))
        numbers = {neutral(name): i for i, name in enumerate(class_names)}
        try:
            # Plain arrays of numbers: a list of rows would take ten times the memory.
            rows, given, predicted, suggested = (array("q") for _ in range(4))
            scores, names = array("d"), []
            with Path(path).open(newline="", encoding="utf-8") as file:
                for line in csv.DictReader(file):
                    rows.append(int(line["index"]))
                    given.append(numbers[line["given_label"]])
                    predicted.append(numbers[line["predicted_label"]])
                    scores.append(float(line["label_score"]))
                    if SUGGESTED_COLUMN in line:
                        text = line[SUGGESTED_COLUMN]
                        suggested.append(numbers[text] if text else -1)
                    else:  # an older file
                        suggested.append(predicted[-1] if predicted[-1] != given[-1] else -1)
                    if NAME_COLUMN in line:
                        names.append(as_meant(line[NAME_COLUMN] or ""))
            return cls(
                np.array(rows, dtype=np.int64),
                np.array(given, dtype=np.int64),
                np.array(predicted, dtype=np.int64),
                np.array(scores),
                np.array(suggested, dtype=np.int64),
                tuple(names),
            ).sorted()
        except (OSError, KeyError, TypeError, ValueError, OverflowError, csv.Error) as error:
            reason = cut(repr(error), 300)
            raise InputError(
                f"{path} must be the label quality of a run ({reason}); repeat its command in an "
                "empty folder."
            ) from error


def load_label_quality(
    source: str | os.PathLike[str],
) -> tuple[LabelQuality, tuple[str, ...]]:
    """The labels of a finished run, or of an .npz file with `labels` and `pred_probs`; class names.

    Raises
    ------
    InputError
        If it is neither.
    """
    path = Path(source)
    if path.is_dir():
        record = load_record(path)
        if not record.finished:
            raise invalid("run", "be finished", str(path), "repeat its command: it goes on")
        names = record.data.class_names
        return LabelQuality.load(path / QUALITY_FILE, names), names
    if path.suffix != ".npz":
        requirement = "be a run folder or an .npz file"
        raise invalid("source", requirement, str(path), "check the path")
    try:
        arrays = NpzArrays(path)
    except InputError as error:
        hint = "The file must hold arrays `labels` and `pred_probs`"
        raise InputError(f"{error} {hint}.") from error
    if not {"labels", "pred_probs"} <= set(arrays):
        remedy = "write it with numpy.savez(path, labels=..., pred_probs=...)"
        received = Words(f"keys {listed(list(arrays))}")
        raise invalid(str(path), "hold arrays `labels` and `pred_probs`", received, remedy)
    labels, pred_probs = arrays["labels"], arrays["pred_probs"]
    quality = find_label_issues(labels, pred_probs)
    return quality, tuple(str(i) for i in range(np.shape(pred_probs)[1]))


def find_label_issues(labels: npt.ArrayLike, pred_probs: npt.ArrayLike) -> LabelQuality:
    """Judge labels from the predicted probabilities of any model.

    Fits the transition matrix T under which the labels are most likely, and scores each label by
    Bayes' rule, P(right | x, label) = p_label(x) T'[label, label] / sum_i p_i(x) T'[i, label]: what
    the prediction says, and where noise usually goes. T' = 0.9 T + 0.1 / C: one label in ten may be
    any.

    Parameters
    ----------
    labels : array_like [N] or [N, 1] of int
        In 0..C-1.
    pred_probs : array_like [N, C]
        Probabilities of the *true* classes: from small-loss training, or out of sample
        (cross-validation) from a network that has not memorised the labels.

    Returns
    -------
    LabelQuality
        In the order given; `is_issue` [N], `scores` [N], `ranking` [N].

    Raises
    ------
    InputError
        If the two do not fit, labels are not in 0..C-1, or a row is not a distribution.

    References
    ----------
    See `keeprate.noise.inference`.

    Examples
    --------
    >>> pred_probs = [[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8], [0.9, 0.1]]
    >>> found = find_label_issues([0, 0, 1, 1, 1], pred_probs)
    >>> found.is_issue.tolist(), int(found.ranking[0]), int(found.predicted[4])
    ([False, False, False, False, True], 4, 0)
    """
    probabilities = check_probabilities("pred_probs", pred_probs)
    if getattr(labels, "ndim", 1) == 2 and labels.shape[1] == 1:  # type: ignore[union-attr]
        labels = labels[:, 0]  # type: ignore[index, call-overload]  # an array or a tensor
    given = check_classes("labels", labels, probabilities.shape[1])
    if len(given) != len(probabilities):
        received = f"{len(given)} labels and {len(probabilities)} rows"
        raise invalid("labels and pred_probs", "be of one length", received, "give one row each")
    if not len(given):
        raise invalid("labels", "hold at least one label", "none", "check the data")
    p, y = torch.from_numpy(probabilities), torch.from_numpy(given)
    return judge(y, [(p, softened(fit_transition_matrix(p, y)))])


def softened(transition_matrix: Tensor) -> Tensor:
    """T' = 0.9 T + 0.1 / C: one label in ten may be any.

    If networks have memorised the labels, a fitted matrix is near the identity, and what it has
    beside the diagonal is chance.
    """
    return (1 - OTHERWISE) * transition_matrix + OTHERWISE / transition_matrix.shape[-1]


def judge(labels: Tensor, readings: Sequence[tuple[Tensor, Tensor]]) -> LabelQuality:
    """Judge labels by Bayes' rule, `keeprate.noise.class_posterior`.

    Parameters
    ----------
    labels : Tensor [N] of int64
    readings : sequence of pairs of Tensor [N, C] and Tensor [C, C]
        Probabilities of the true classes, and a transition matrix. The first pair scores the
        labels. A class is suggested only if it is probable by all pairs.
    """
    scores, predicted, suggested = [], [], []
    for parts in zip(*(slices(p, labels) for p, _ in readings), strict=True):
        of_some = parts[0][1]
        posteriors = [
            class_posterior(some, of_some, matrix)
            for (some, _), (_, matrix) in zip(parts, readings, strict=True)
        ]
        scores.append(posteriors[0].gather(1, of_some[:, None])[:, 0])
        predicted.append(posteriors[0].argmax(1))
        least = reduce(torch.minimum, posteriors).max(1)
        is_sure = (least.values >= SURE) & (least.indices != of_some)
        suggested.append(torch.where(is_sure, least.indices, -1))
    given = labels.cpu().numpy()
    return LabelQuality(
        np.arange(len(given)),
        given,
        torch.cat(predicted).cpu().numpy(),
        torch.cat(scores).cpu().numpy(),
        torch.cat(suggested).cpu().numpy(),
    )
