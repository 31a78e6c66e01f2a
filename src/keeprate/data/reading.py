"""What all readers of sources share: raw splits, the names of splits, columns that a user names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from keeprate.data.labels import Labels
from keeprate.errors import Words, invalid

Value = TypeVar("Value")
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""The split that each name stands for, in lower case."""


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
    """

    inputs: Any
    labels: Labels
    true_labels: Labels | None = None
    columns: tuple[str, ...] = ()
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class RequestedColumns:
    """The columns of a table, or keys of an .npz file, that a user names.

    Attributes
    ----------
    inputs : tuple of str
        Empty: guess them.
    label, true_label : str or None
        None: guess the column.
    """

    inputs: tuple[str, ...] = ()
    label: str | None = None
    true_label: str | None = None

    @classmethod
    def of(
        cls, inputs: str | Sequence[str] | None, label: str | None, true_label: str | None
    ) -> RequestedColumns:
        """Take the arguments of `load`."""
        names = (inputs,) if isinstance(inputs, str) else tuple(inputs or ())
        return cls(names, label, true_label)

    def refuse_for(self, source: str) -> None:
        """Raise an InputError if a column is named although the source has no columns."""
        named = [name for name, value in vars(self).items() if value]
        if named:
            received = Words(f"a source without columns: {source}")
            raise invalid(", ".join(named), "name columns of a table", received, "leave it out")


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
            received = Words(", ".join(splits))
            raise invalid("splits", f"hold one {known} split", received, "leave one out")
        if known is not None:
            standard[known] = value
    if "train" not in standard:
        received = Words(f"only {', '.join(map(str, splits))}" if splits else "none at all")
        raise invalid("splits", "hold one called train", received, "rename one")
    return standard
