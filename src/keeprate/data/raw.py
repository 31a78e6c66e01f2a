"""What all readers of sources share: raw splits, the names of splits, columns that a user names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from keeprate.data.features import KINDS, InputColumn
from keeprate.data.labels import Array, Labels
from keeprate.errors import InputError, Words, invalid
from keeprate.mapped import Place
from keeprate.reading import LABEL_NAMES, SPLIT_NAMES, TRUE_LABEL_NAMES
from keeprate.text import listed

Value = TypeVar("Value")
IGNORE = "ignore"


@dataclass(frozen=True)
class RawSplit:
    """One split as a source holds it, before its labels become numbers.

    Attributes
    ----------
    inputs : array [N, ...]
        Numbers of any type.
    labels : Labels [N]
        The given labels.
    true_labels : Labels [N] or None
        The right labels, where they are known.
    columns : tuple of str
        The columns that hold the inputs, if the source is a table.
    names : tuple of N str
        The file or the text that people know each sample by. Empty if there are no names.
    rows : array [N] of int64 or None
        The rows of the source, where some were left out.
    votes : tuple of N dict or None
        How many people gave which label to each sample, where several did.
    """

    inputs: Any
    labels: Labels
    true_labels: Labels | None = None
    columns: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    rows: Array | None = None
    votes: tuple[dict[str, int], ...] | None = None


@dataclass(frozen=True)
class RawData:
    """What a source holds, before its labels become numbers.

    Attributes
    ----------
    splits : dict of str to RawSplit
        `train`, and `validation` and `test` if the source has them.
    coded_columns : tuple of D InputColumn
        What the inputs [N, D] of a table stand for; empty for all other sources.
    left_out : dict of str to str
        Columns that are neither inputs nor labels, and why.
    notes : tuple of str
        What the user should know of the reading, a sentence each.
    label : str
        The column that holds the labels; empty if there is none of this name in the source.
    """

    splits: dict[str, RawSplit]
    coded_columns: tuple[InputColumn, ...] = ()
    left_out: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    label: str = ""


@dataclass(frozen=True)
class RequestedColumns:
    """What a user says of the columns of a table, or of the keys of an .npz file.

    Attributes
    ----------
    inputs : tuple of str
        Empty: guess them.
    label, true_label : str or None
        None: guess the column.
    kinds : dict of str to str
        For some columns one of number, category, date, text and ignore.
    votes : tuple of str
        Columns with the labels of one annotator each.
    image_size : tuple of int or None
        Height and width that images get; None: their own.
    place : Place
        Where arrays larger than memory are to lie.
    """

    inputs: tuple[str, ...] = ()
    label: str | None = None
    true_label: str | None = None
    kinds: Mapping[str, str] = field(default_factory=dict)
    votes: tuple[str, ...] = ()
    image_size: tuple[int, int] | None = None
    place: Place = Place()  # noqa: RUF009 - it is frozen

    @classmethod
    def of(
        cls,
        inputs: str | Sequence[str] | None,
        label: str | None,
        true_label: str | None,
        columns: Mapping[str, str] | None = None,
        votes: str | Sequence[str] | None = None,
        image_size: int | tuple[int, int] | None = None,
    ) -> RequestedColumns:
        """Take the arguments of `load_data`.

        Raises
        ------
        InputError
            If a kind is unknown, or the size of images is none.
        """
        names, voters = (
            (given,) if isinstance(given, str) else tuple(given or ()) for given in (inputs, votes)
        )
        kinds = dict(columns or {})
        for name, kind in kinds.items():
            if kind not in (*KINDS, IGNORE):
                requirement = f"be one of {', '.join(KINDS)}, {IGNORE}"
                raise invalid(f"the kind of column {name}", requirement, kind, "choose one")
        size = (image_size, image_size) if isinstance(image_size, int) else image_size
        if size is not None and (len(size) != 2 or min(size) < 1):
            requirement = "be one or two whole numbers of at least 1"
            raise invalid("image_size", requirement, image_size, "try 32")
        return cls(names, label, true_label, kinds, voters, size)

    @property
    def named(self) -> dict[str, object]:
        """What the user says of columns."""
        said = {
            "inputs": self.inputs,
            "label": self.label,
            "true_label": self.true_label,
            "columns": self.kinds,
            "votes": self.votes,
        }
        return {name: value for name, value in said.items() if value}

    def may_be_label(self, name: str) -> bool:
        """Whether a column may hold labels, which are read as they are written."""
        likely = (*LABEL_NAMES, *TRUE_LABEL_NAMES)
        return name in (self.label, self.true_label, *self.votes) or name.strip().lower() in likely

    def refuse_for(self, source: str) -> None:
        """Raise an InputError if a column is named although the source has no columns."""
        if self.named:
            received = Words(f"a source without columns: {source}")
            raise invalid(
                ", ".join(self.named), "name columns of a table", received, "leave it out"
            )


def ambiguous(question: str, choices: str) -> InputError:
    """Ask what the user means; the message names the choices."""
    return InputError(f"{question}; {choices}.")


def name_splits(splits: Mapping[str, Value]) -> dict[str, Value]:
    """Call the splits train, validation and test. A single split is train, whatever its name.

    Raises
    ------
    InputError
        If no split is called train, or if two names stand for the same split.
    """
    if len(splits) == 1:
        return {"train": next(iter(splits.values()))}
    standard: dict[str, Value] = {}
    for name, value in splits.items():
        known = SPLIT_NAMES.get(str(name).lower())
        if known in standard:
            received = Words(listed(list(splits)))
            raise invalid("splits", f"hold one {known} split", received, "leave one out")
        if known is not None:
            standard[known] = value
    if "train" not in standard:
        received = Words(f"only {listed(list(splits))}" if splits else "none at all")
        raise invalid("splits", "hold one called train", received, "rename one")
    return standard
