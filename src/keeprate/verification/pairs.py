"""Pairs of pictures, of which it is known whether both show one person."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from keeprate.errors import InputError, Words, invalid


@dataclass(frozen=True, eq=False)  # tensors have no single truth value
class Pairs:
    """P pairs among M pictures.

    Attributes
    ----------
    images : Tensor [M, C, H, W] of uint8
        Each picture once, in however many pairs it is.
    first, second : Tensor [P] of int64
        The rows of `images` that make the pairs.
    same : Tensor [P] of bool
        Whether a pair shows one person.
    folds : Tensor [P] of int64 or None
        The fold of each pair, as its list tells, from 0. None: ten equal folds in the list's order
        (`standard_folds`).
    people : tuple of M str
        Who is on each picture; empty where nobody knows.
    name : str
        Of the list, for people and for names of files.
    notes : tuple of str
        What the user should know of the reading, a sentence each.

    Raises
    ------
    InputError
        If the parts do not fit each other.
    """

    images: Tensor
    first: Tensor
    second: Tensor
    same: Tensor
    folds: Tensor | None = None
    people: tuple[str, ...] = ()
    name: str = ""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.dtype != torch.uint8:
            received = Words(f"{self.images.dtype} {tuple(self.images.shape)}")
            raise invalid("images", "be uint8 [M, C, H, W]", received, "decode them first")
        n_images, n_pairs = len(self.images), len(self.same)
        for name in ("first", "second", "same", "folds"):
            values = getattr(self, name)
            if values is not None and values.shape != (n_pairs,):
                received = Words(f"shape {tuple(values.shape)}")
                raise invalid(name, f"be [{n_pairs}], one for each pair", received, "mend the list")
        for name in ("first", "second"):
            rows = getattr(self, name)
            if n_pairs and not 0 <= int(rows.min()) <= int(rows.max()) < n_images:
                received = Words(f"{int(rows.min())} to {int(rows.max())}")
                requirement = f"be rows of the {n_images} images"
                raise invalid(name, requirement, received, "mend the list")
        if len(self.people) not in (0, n_images):
            received = Words(f"{len(self.people)} names")
            raise invalid("people", f"name all {n_images} pictures or none", received, "mend them")
        if not n_pairs:
            raise InputError(f"the list {self.name or 'of pairs'} must hold pairs, got none.")
        n_same = int(self.same.sum())
        if not 0 < n_same < n_pairs:
            received = Words(f"{n_same} of one person among {n_pairs}")
            raise invalid("pairs", "be of both kinds", received, "give the whole list")
        if self.folds is not None:
            numbers = self.folds.unique()
            if len(numbers) < 2 or not torch.equal(numbers.cpu(), torch.arange(len(numbers))):
                received = Words(f"folds {', '.join(map(str, numbers.tolist()[:20]))}")
                requirement = "be two or more, numbered from 0 without a gap"
                raise invalid("folds", requirement, received, "number them anew, or leave them out")

    def __len__(self) -> int:
        return len(self.same)

    def check_shape(self, shape: tuple[int, ...]) -> None:
        """Refuse pictures of another shape `[C, H, W]` than those of a training.

        Raises
        ------
        InputError
            If the shapes differ.
        """
        own = tuple(self.images.shape[1:])
        if own != shape:
            requirement = f"be {shape} each, as in training"
            raise invalid("images of the pairs", requirement, Words(str(own)), "resize them")

    @cached_property
    def _digest(self) -> str:
        digest = hashlib.sha256()
        for tensor in (self.images, self.first, self.second, self.same, self.folds):
            if tensor is None:
                digest.update(b"none")
                continue
            digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        for person in self.people:
            digest.update(f"{len(person)}:{person}".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def fingerprint(self) -> str:
        """SHA-256 of the pictures, the pairs, the folds and the people, in hexadecimal.

        The name and the notes are left out: the same pairs from another file are the same.
        """
        return self._digest
