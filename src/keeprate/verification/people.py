"""Folds in which nobody is met again: pairs that share people are not independent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from keeprate.errors import Words, invalid
from keeprate.verification.protocol import N_FOLDS


def shared_people(folds: Tensor, first: Sequence[str], second: Sequence[str]) -> int:
    """How many people are in pairs of more than one fold.

    Parameters
    ----------
    folds : Tensor [P]
    first, second : sequence of P str
        The people of each pair.

    Examples
    --------
    >>> shared_people(torch.tensor([0, 0, 1]), ["Ann", "Bob", "Ann"], ["Bob", "Bob", "Cem"])
    1
    """
    folds_of: dict[str, set[int]] = {}
    for fold, *people in zip(folds.tolist(), first, second, strict=True):
        for person in people:
            folds_of.setdefault(person, set()).add(fold)
    return sum(len(met) > 1 for met in folds_of.values())


def met_again(folds: Tensor, first: Sequence[str], second: Sequence[str]) -> Tensor:
    """Which pairs show somebody who is in a fold, `[F, P]` of bool.

    Without them the threshold of a fold is chosen on other people than it is tried on, even where
    the pairs of a list link too many people for `disjoint_folds`.

    Parameters
    ----------
    folds : Tensor [P] of int64 in 0..F-1
    first, second : sequence of P str
        The people of each pair.

    Examples
    --------
    >>> met_again(torch.tensor([0, 1, 1]), ["Ann", "Bob", "Cem"], ["Ann", "Ann", "Cem"])
    tensor([[ True,  True, False],
            [ True,  True,  True]])
    """
    _, places = np.unique(np.array([*first, *second], dtype=object), return_inverse=True)
    people = torch.from_numpy(places).view(2, -1)
    is_there = torch.zeros(int(folds.max()) + 1, int(people.max()) + 1, dtype=torch.bool)
    for side in people:
        is_there[folds.cpu(), side] = True
    return is_there[:, people].any(1)


def disjoint_folds(
    first: Sequence[str], second: Sequence[str], same: Tensor, n_folds: int = N_FOLDS
) -> Tensor | None:
    """Cut pairs into folds such that nobody is in two of them.

    People of one pair must be in one fold, and so must all who are linked by a chain of pairs: the
    connected components of the graph whose nodes are people and whose edges are pairs. The
    components are put into folds by their size, the largest first, each into the fold that has
    least of its kinds of pairs.

    Parameters
    ----------
    first, second : sequence of P str
        The people of each pair.
    same : Tensor [P] of bool
        Whether a pair shows one person.
    n_folds : int

    Returns
    -------
    Tensor [P] of int64, or None
        None if not every fold gets pairs of both kinds: too many people are linked.

    Raises
    ------
    InputError
        If there are not two people for each pair.

    Examples
    --------
    >>> same = torch.tensor([True, False, True, False])
    >>> disjoint_folds(["a", "a", "c", "c"], ["a", "b", "c", "d"], same, 2)
    tensor([0, 0, 1, 1])
    >>> disjoint_folds(["a", "a", "c", "b"], ["a", "b", "c", "c"], same, 2) is None
    True
    """
    is_same = same.cpu().numpy().astype(bool)
    if not len(first) == len(second) == len(is_same):
        received = Words(f"{len(first)}, {len(second)} and {len(is_same)}")
        raise invalid("first, second and same", "be one each a pair", received, "mend the list")
    component = _components(first, second)  # [P]
    kinds = np.stack([is_same, ~is_same])
    counts = np.stack([np.bincount(component, weights=kind) for kind in kinds])  # [2, components]
    load = counts / np.maximum(counts.sum(1, keepdims=True), 1)  # the share of each kind
    filled = np.zeros((2, n_folds))
    fold_of = np.empty(counts.shape[1], dtype=np.int64)
    for one in np.argsort(-load.sum(0), kind="stable"):
        # The fold whose square grows least: what it has of the kinds that come along.
        fold = int(np.argmin(load[:, one] @ filled + 1e-9 * filled.sum(0)))
        filled[:, fold] += load[:, one]
        fold_of[one] = fold
    return torch.from_numpy(fold_of[component]) if (filled > 0).all() else None


def _components(first: Sequence[str], second: Sequence[str]) -> NDArray[Any]:
    """The number of the component of each pair, `[P]`."""
    _, people = np.unique(np.array([*first, *second], dtype=object), return_inverse=True)
    n_people, (left, right) = int(people.max(initial=-1)) + 1, np.split(people, 2)
    edges = coo_array((np.ones(len(left)), (left, right)), shape=(n_people, n_people))
    _, of_person = connected_components(edges, directed=False)
    return np.asarray(of_person[left])
