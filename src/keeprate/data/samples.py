"""Samples in memory: one split, and all that a source holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

LabelStatus: TypeAlias = Literal["clean", "noisy", "unknown"]


@dataclass(frozen=True)
class Split:
    """Samples resident in memory.

    Attributes
    ----------
    inputs : Tensor [N, *shape]
        uint8, or float32 and finite. Images are [N, channels, height, width].
    labels : Tensor [N] of int64
        Labels as given, perhaps noisy, in 0..C-1.
    true_labels : Tensor [N] of int64 or None
        The right ones, where they are known.
    rows : Tensor [N] of int64
        Which rows of its source these are, counted from 0; left out, all of them in order.
    names : tuple of N str
        What people know each sample by: its file, or the text it came from; empty if nothing.
    label_status : {"clean", "noisy", "unknown"}
        What is known of the labels: free of the noise of the training labels, as wrong as these,
        or nothing.
    origin : str
        The split of the source whose rows `rows` counts.
    """

    inputs: Tensor
    labels: Tensor
    true_labels: Tensor | None = None
    rows: Tensor = None  # type: ignore[assignment]  # filled below: known only with N
    names: tuple[str, ...] = ()
    label_status: LabelStatus = "unknown"
    origin: str = "train"

    def __post_init__(self) -> None:
        if self.rows is None:
            object.__setattr__(self, "rows", torch.arange(len(self.labels)))

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Loaded:
    """What a source holds, before it is split and prepared for training.

    Attributes
    ----------
    splits : dict
        `train`, and `validation` and `test` where the source has them.
    class_names : tuple of str
        C names; label i is `class_names[i]`.
    name : str
        For records and titles.
    input_columns : tuple of str
        The columns that the inputs came from, where the source is a table.
    """

    splits: dict[str, Split]
    class_names: tuple[str, ...]
    name: str
    input_columns: tuple[str, ...] = ()
