"""What a source held when its labels were judged: decisions on them fit no other source."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np

from keeprate.data.labels import Array, are_there, label_text, match_labels
from keeprate.errors import invalid
from keeprate.reading import refuse_row

Corrections: TypeAlias = Mapping[int, str | None]
"""The new class of each of these rows; None: the row is to be dropped."""
REMEDY = (
    "decisions fit the source as the run read it: apply them before anything else changes there, "
    "and once only"
)


@dataclass(frozen=True)
class JudgedSource:
    """What a source held when its labels were judged.

    Attributes
    ----------
    n_rows : int or None
        Rows of the training split that have a label; None: not known.
    labels : dict of int to str
        The given label of some rows.
    names : dict of int to str
        The file of some rows, relative to the source, where each sample is a file. It counts more
        than the number of the row.
    """

    n_rows: int | None = None
    labels: Mapping[int, str] = field(default_factory=dict)
    names: Mapping[int, str] = field(default_factory=dict)

    def check(self, labels: Array, where: object, names: Sequence[str] | None = None) -> None:
        """Refuse a source that holds other labels by now.

        Parameters
        ----------
        labels : array [N]
            As the source holds them; None is missing.
        where : object
            The source, for messages.
        names : sequence of str, optional
            What integers stand for in the source.

        Raises
        ------
        InputError
            If the number of labels or the label of one of the rows is another.
        """
        n = int(are_there(labels).sum())
        if self.n_rows is not None and n != self.n_rows:
            requirement = f"be {self.n_rows:,} as in the run"
            raise invalid(f"the number of labels in {where}", requirement, n, REMEDY)
        if not self.labels:
            return
        refuse_beyond(self.labels, len(labels), where)
        rows, classes = list(self.labels), sorted(set(self.labels.values()))
        found, _ = match_labels(labels[rows], classes, names or ())  # no codes of classes
        for row, number in zip(rows, found.tolist(), strict=True):
            if number < 0 or classes[number] != self.labels[row]:
                received = label_text(_plain(labels[row]), names)
                requirement = f"be {self.labels[row]!r} as in the run"
                raise invalid(f"the label of row {row} in {where}", requirement, received, REMEDY)


def _plain(value: object) -> object:
    return value.item() if isinstance(value, np.generic) else value


def refuse_beyond(rows: Iterable[int], n_rows: int, where: object) -> None:
    """Raise an InputError if there is a row that the source does not have."""
    for row in rows:
        if row >= n_rows:
            refuse_row(row, n_rows, Path(str(where)))
