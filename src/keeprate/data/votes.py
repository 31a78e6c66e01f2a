"""Several annotators a sample: a column of labels each -> the label of most, and the votes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from keeprate.data.labels import label_text, match_labels
from keeprate.data.tables import Table, label_array
from keeprate.errors import Words, invalid, needs
from keeprate.text import listed, percent

MAJORITY = "majority"
ABSTAINS = "-1"  # of labelling functions


def with_majority(table: Table, columns: Sequence[str]) -> Table:
    """Add the label that most annotators give; of equally many, the one of the earlier column.

    Parameters
    ----------
    table : Table
        N rows.
    columns : sequence of A str
        One for each annotator. An empty cell is no vote.

    Returns
    -------
    Table
        With the column `majority` as its label, and `votes`. The annotators' columns are no inputs.

    Raises
    ------
    InputError
        If a column is missing, or the table has a column called `majority`.
    """
    present: list[str] = table.arrow.column_names
    if missing := [name for name in columns if name not in present]:
        requirement = f"be columns of the {table.where}"
        raise invalid("votes", requirement, Words(listed(missing)), f"it has {listed(present)}")
    if MAJORITY in present and MAJORITY not in columns:
        requirement = f"leave the name {MAJORITY} to the label of most annotators"
        raise invalid("votes", requirement, Words("a column of this name"), "rename the column")
    of_each = [_texts(table, name) for name in columns]
    abstain = _abstaining({text for texts in of_each for text in texts})
    if abstain:
        of_each = [["" if text == ABSTAINS else text for text in texts] for texts in of_each]
    votes = tuple(dict(Counter(filter(None, row))) for row in zip(*of_each, strict=True))
    # Equal counts: `max` takes the first, and a counter keeps the order of the columns.
    labels = [max(counts, key=counts.__getitem__) if counts else None for counts in votes]
    arrow = table.arrow.append_column(MAJORITY, needs("pyarrow").array(labels, "string"))
    return replace(
        table,
        arrow=arrow,
        label=MAJORITY,
        written=table.written | {MAJORITY},
        ignored=(*table.ignored, *columns, MAJORITY),
        notes=(*table.notes, *abstain, agreement_in_words(votes)),
        votes=votes,
    )


def _abstaining(texts: set[str]) -> tuple[str, ...]:
    """A note if -1 stands for no vote: all other votes are whole numbers from 0 on."""
    others = texts - {ABSTAINS, ""}
    if ABSTAINS in texts and others and all(text.isdecimal() for text in others):
        return (f"{ABSTAINS} is taken for no vote",)
    return ()


def _texts(table: Table, column: str) -> list[str]:
    return [label_text(item, table.names_of(column)) for item in label_array(table, column)]


def agreement_in_words(votes: Iterable[Mapping[str, int]]) -> str:
    """Say how many samples have several annotators, and how far these agree."""
    several = [counts for counts in votes if sum(counts.values()) > 1]
    if not several:
        return "no sample has the votes of several annotators"
    shares = [max(counts.values()) / sum(counts.values()) for counts in several]
    agreement = percent(float(np.mean(shares)))
    return (
        f"{len(several):,} samples have several annotators, of whom on average {agreement} agree "
        "with the majority"
    )


def count_votes(votes: Sequence[Mapping[str, int]], class_names: Sequence[str]) -> Tensor:
    """Return how many annotators gave each class to each sample, `[N, C]` of float32."""
    labels = sorted({label for counts in votes for label in counts})
    classes, _ = match_labels(np.array(labels, dtype=object), class_names)
    place = dict(zip(labels, classes.tolist(), strict=True))
    counted = torch.zeros(len(votes), len(class_names))
    for row, counts in enumerate(votes):
        for label, count in counts.items():
            if place[label] >= 0:
                counted[row, place[label]] += count
    return counted
