"""Inputs in a file: a batch of rows is read when it is asked for."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from keeprate.mapped import blocks, is_mapped, new_array


class Rows:
    """Rows of inputs that lie in a file; what is taken out of them is a tensor in memory.

    A part of the rows is another order of the same file. Nothing is copied.

    Parameters
    ----------
    whole : array [M, ...]
        Mapped, see `keeprate.mapped`.
    index : Tensor [N] of int64, optional
        Which rows these are; all, if left out.

    Attributes
    ----------
    file : Path or None
        Where the rows lie, if the file has a name.
    """

    def __init__(self, whole: NDArray[np.generic] | Tensor, index: Tensor | None = None) -> None:
        self.file: Path | None = None
        self._array = None if isinstance(whole, Tensor) else whole
        if not isinstance(whole, Tensor):
            name = getattr(whole, "filename", None)
            self.file = None if name is None else Path(name)
            with warnings.catch_warnings():  # nobody writes: what is taken out is a copy
                warnings.filterwarnings("ignore", "The given NumPy array is not writable")
                whole = torch.from_numpy(whole)
        self.whole = whole
        self.index = torch.arange(len(whole)) if index is None else index

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, places: int | slice | Tensor) -> Tensor:
        """The inputs at some places, in memory."""
        found = self.index[places]
        return self.whole[found] if found.dim() else self.whole[found].clone()  # else a view

    @property
    def shape(self) -> torch.Size:
        """Of all inputs, [N, ...]."""
        return torch.Size((len(self), *self.whole.shape[1:]))

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return self.whole.ndim

    @property
    def dtype(self) -> torch.dtype:
        """Of the numbers."""
        return self.whole.dtype

    @property
    def device(self) -> torch.device:
        """Where batches are."""
        return self.whole.device

    def dim(self) -> int:
        """The number of axes."""
        return self.whole.ndim

    def numel(self) -> int:
        """How many numbers the inputs have."""
        return self.shape.numel()

    def __reduce__(self) -> tuple[type[Rows], tuple[Tensor]]:
        """To another process, which may be on a machine without the file, go the numbers."""
        return Rows, (self[:],)

    def flush(self) -> None:
        """Have all that was written to the file on the disk."""
        if isinstance(self._array, np.memmap):
            self._array.flush()

    def part(self, places: Tensor) -> Rows:
        """The rows at these places, still in their file."""
        return Rows(self.whole, self.index[places])

    def to(self, device: torch.device) -> Rows | Tensor:
        """These rows for the CPU; for another device a tensor there, which has to hold them."""
        if device.type == "cpu":
            return self
        found = torch.empty(self.shape, dtype=self.dtype, device=device)
        for some in blocks(len(self), self._bytes_of_row()):
            found[some] = self[some].to(device)
        return found

    def pieces(self) -> Iterator[tuple[slice, Tensor]]:
        """All inputs, some at a time."""
        for some in blocks(len(self), self._bytes_of_row()):
            yield some, self[some]

    def _bytes_of_row(self) -> int:
        return self.whole.shape[1:].numel() * self.whole.element_size()


Inputs: TypeAlias = Tensor | Rows


def as_inputs(array: NDArray[np.generic]) -> Inputs:
    """An array as a tensor, or as rows of the file in which it lies."""
    return Rows(array) if is_mapped(array) else torch.from_numpy(array)


def in_pieces(inputs: Inputs) -> Iterator[tuple[slice, Tensor]]:
    """Inputs [N, ...] in pieces [n, ...] that memory holds."""
    if isinstance(inputs, Rows):
        yield from inputs.pieces()
    else:
        yield slice(0, len(inputs)), inputs


def part_of(inputs: Inputs, places: Tensor) -> Inputs:
    """The inputs at these places; those in a file are not read."""
    return inputs.part(places) if isinstance(inputs, Rows) else inputs[places]


def joined(first: Inputs, second: Inputs) -> Inputs:
    """The inputs of both, one after the other; those of one file are not read."""
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return torch.cat([first, second])
    if isinstance(first, Rows) and isinstance(second, Rows) and first.whole is second.whole:
        return Rows(first.whole, torch.cat([first.index, second.index]))
    n, dtype = len(first) + len(second), first[:1].numpy().dtype
    both = new_array((n, *first.shape[1:]), dtype)
    for start, inputs in ((0, first), (len(first), second)):
        for some, piece in in_pieces(inputs):
            both[start + some.start : start + some.stop] = piece.numpy()
    return as_inputs(both)


def add_to_digest(digest: Any, inputs: Inputs) -> None:
    """Hash a type, a shape and all numbers, wherever they lie."""
    digest.update(f"{inputs.dtype} {tuple(inputs.shape)}".encode())
    for _, piece in in_pieces(inputs):
        digest.update(np.ascontiguousarray(piece.cpu().numpy()).data)


def columns_of(inputs: Inputs) -> Iterator[NDArray[np.float32]]:
    """The columns [N] of inputs [N, D], one after the other."""
    if isinstance(inputs, Tensor):
        yield from (inputs[:, i].numpy() for i in range(inputs.shape[1]))
        return
    # A row's numbers lie side by side: they are turned once, or the file would be read for each.
    turned = new_array(inputs.shape, np.float32, order="F")
    for some, piece in inputs.pieces():
        turned[some] = piece.numpy()
    yield from turned.T
