"""The protocol of face verification: ten folds, and a threshold of the distance from nine of them.

Two pictures are taken for one person where their distance is below a threshold. The threshold of a
fold is the one that is right most often on the other folds, so no pair judges itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

import msgspec
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from keeprate.errors import Words, check_whole, invalid
from keeprate.verification.pairs import Pairs

Floats: TypeAlias = NDArray[np.float64]
N_FOLDS = 10
FALSE_ACCEPT_RATES = (1e-3, 1e-4)
MOST_POINTS = 10_000  # of a ROC curve that is kept

# All that is read back from a file: pages calculate with these numbers.
Share: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=1)]
Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=10**12)]
Distance: TypeAlias = Annotated[float, msgspec.Meta(ge=-1e300, le=1e300)]
_FOLDS = msgspec.Meta(min_length=2, max_length=1000)
_Curve: TypeAlias = Annotated[tuple[Share, ...], msgspec.Meta(min_length=2, max_length=MOST_POINTS)]


@dataclass(frozen=True)
class TrueAccepts:
    """How many pairs of one person are accepted while few others are.

    Attributes
    ----------
    false_accept_rate : float
        The share of the different pairs that may be accepted (FAR), at most.
    true_accept_rate : float
        The largest share of the same pairs that is then accepted (TAR).
    accepted : int
        How many different pairs that is: floor(FAR * number of different pairs).
    is_measurable : bool
        Whether that is at least one. If not, the rate is that without any false acceptance, and a
        list of more different pairs would be needed to measure it.
    """

    false_accept_rate: Share
    true_accept_rate: Share
    accepted: Count
    is_measurable: bool


@dataclass(frozen=True)
class Verification:
    """How well distances tell pairs of one person from others.

    Attributes
    ----------
    accuracy : float
        The mean over the folds of the share of pairs that are judged right.
    std : float
        The standard deviation over the folds, not over possible lists: of the population (divided
        by F, not F - 1), as `numpy.std` gives it and the literature reports it.
    fold_accuracy : tuple of F float
    thresholds : tuple of F float
        Of the squared distance, chosen on the other folds: a smaller distance is one person.
    true_accepts : tuple of TrueAccepts
        At `FALSE_ACCEPT_RATES`, over all pairs.
    auc : float
        The area under the ROC curve: the probability that a pair of one person is closer than
        another pair.
    roc_far, roc_tar : tuple of L float
        The ROC curve, from (0, 0) to (1, 1), without the points on straight lines between others;
        of more than 10,000 the first half is whole, and the others are thinned out.
    n_pairs, n_same : int
    """

    accuracy: Share
    std: Share
    fold_accuracy: Annotated[tuple[Share, ...], _FOLDS]
    thresholds: Annotated[tuple[Distance, ...], _FOLDS]
    true_accepts: Annotated[tuple[TrueAccepts, ...], msgspec.Meta(max_length=10)]
    auc: Share
    roc_far: _Curve
    roc_tar: _Curve
    n_pairs: Count
    n_same: Count

    @property
    def n_different(self) -> int:
        """The number of pairs of two people."""
        return self.n_pairs - self.n_same


def standard_folds(n_pairs: int, n_folds: int = N_FOLDS) -> Tensor:
    """Cut a list into folds of consecutive pairs, `[n_pairs]` of int64 in 0..n_folds-1.

    The folds are as equal as possible, the larger ones first: as `sklearn.model_selection.KFold`
    cuts without shuffling. Published lists are written fold by fold.

    Raises
    ------
    InputError
        If there are fewer pairs than folds.

    Examples
    --------
    >>> standard_folds(7, 3)
    tensor([0, 0, 0, 1, 1, 2, 2])
    """
    check_whole("n_folds", n_folds, 2)
    if n_pairs < n_folds:
        received = Words(f"{n_pairs} pairs")
        raise invalid("pairs", f"fill {n_folds} folds", received, "give a longer list")
    sizes = torch.full((n_folds,), n_pairs // n_folds)
    sizes[: n_pairs % n_folds] += 1
    return torch.repeat_interleave(torch.arange(n_folds), sizes)


def folds_of(pairs: Pairs) -> Tensor:
    """The fold of each pair, `[P]` of int64: as the list tells, else `standard_folds`."""
    return standard_folds(len(pairs)) if pairs.folds is None else pairs.folds


def distances(embeddings: ArrayLike | Tensor, pairs: Pairs) -> Floats:
    """Squared Euclidean distances of the L2-normalised embeddings, float64 `[P]` in [0, 4].

    Parameters
    ----------
    embeddings : array or Tensor [M, D]
        One for each picture. A vector of length 0 has the distance 1 from all others.
    pairs : Pairs

    Raises
    ------
    InputError
        If there is not one finite embedding for each picture.
    """
    if not isinstance(embeddings, Tensor):
        embeddings = torch.from_numpy(np.asarray(embeddings, dtype=np.float64))
    if embeddings.ndim != 2 or len(embeddings) != len(pairs.images):
        received = Words(f"shape {tuple(embeddings.shape)}")
        raise invalid("embeddings", f"be [{len(pairs.images)}, D]", received, "embed all pictures")
    found = _distances(embeddings.detach().cpu(), pairs).numpy()
    if not np.isfinite(found).all():
        remedy = "the network's numbers have no end: train with a smaller learning rate"
        raise invalid("embeddings", "be finite", Words("others"), remedy)
    return np.asarray(found, dtype=np.float64)


def verify(
    distance: ArrayLike,
    same: ArrayLike,
    folds: ArrayLike,
    *,
    left_out: ArrayLike | None = None,
) -> Verification:
    """Judge pairs by their distances, as `Verification` describes.

    The thresholds that are tried lie in the middle between two neighbouring distances of the nine
    folds. Of several that are right equally often the smallest is taken. (insightface tries 0, 0.01
    ... 3.99 instead, and takes the smallest, too.) A threshold that accepts none of the nine folds
    is their smallest distance, and one that accepts all is the next number after their largest.

    Parameters
    ----------
    distance : array [P]
        Any finite measure that is smaller for one person.
    same : array [P] of bool
    folds : array [P] of int
        Any F >= 2 different numbers.
    left_out : array [F, P] of bool, optional
        Pairs that take no part in choosing the threshold of a fold, besides its own: those with
        people of the fold (`met_again`).

    Returns
    -------
    Verification

    Raises
    ------
    InputError
        If the arrays differ in length, a distance is not finite, there are fewer than two folds,
        all pairs are of one kind, or no pair is left to choose a threshold.

    References
    ----------
    Huang, Ramesh, Berg, Learned-Miller, Labeled Faces in the Wild, TR 07-49, 2007, View 2.

    Examples
    --------
    >>> found = verify([0.1, 0.9, 0.3, 0.8], [True, False, True, False], [0, 0, 1, 1])
    >>> found.accuracy, found.std, found.auc
    (1.0, 0.0, 1.0)
    """
    values = np.asarray(distance, dtype=np.float64)
    is_same, fold_of = np.asarray(same).astype(bool), np.asarray(folds)
    _check(values, is_same, fold_of)
    _, places = np.unique(fold_of, return_inverse=True)
    is_tested = _tested(torch.from_numpy(places))
    unused = is_tested if left_out is None else is_tested | torch.as_tensor(np.asarray(left_out))
    if unused.all(-1).any():
        received = Words("none for one fold")
        raise invalid("folds", "leave pairs to choose a threshold", received, "leave out fewer")
    accuracy, thresholds = _cross_validate(
        torch.from_numpy(values), torch.from_numpy(is_same), is_tested, unused
    )
    far, tar = _roc(values, is_same)
    by_fold = accuracy.numpy()
    return Verification(
        accuracy=float(by_fold.mean()),
        std=float(by_fold.std()),
        fold_accuracy=tuple(by_fold.tolist()),
        thresholds=tuple(thresholds.tolist()),
        true_accepts=tuple(_true_accepts(far, tar, is_same, at) for at in FALSE_ACCEPT_RATES),
        auc=float(np.trapezoid(tar, far)),
        **_corners(far, tar),
        n_pairs=len(values),
        n_same=int(is_same.sum()),
    )


def pair_accuracy(embeddings: Tensor, pairs: Pairs, folds: Tensor | None = None) -> Tensor:
    """The mean accuracy over the folds, as `verify` gives it, of many sets of embeddings at once.

    Parameters
    ----------
    embeddings : Tensor [..., M, D]
        On any device; one for each picture of `pairs`.
    pairs : Pairs
    folds : Tensor [P] of int64 or None
        From 0, none empty. None: `folds_of` the pairs.

    Returns
    -------
    Tensor [...] of float64
        On the device of the embeddings. Where an embedding is not finite, NaN.
    """
    if folds is None:
        folds = folds_of(pairs)
    device = embeddings.device
    distance, is_tested = _distances(embeddings, pairs), _tested(folds.to(device))
    accuracy, _ = _cross_validate(distance, pairs.same.to(device), is_tested, is_tested)
    is_finite = distance.isfinite().all(-1)
    return accuracy.mean(-1).masked_fill(~is_finite, torch.nan)


def _distances(embeddings: Tensor, pairs: Pairs) -> Tensor:
    """Squared distances `[..., P]` of embeddings `[..., M, D]`, float64 on their device."""
    first, second = (rows.to(embeddings.device) for rows in (pairs.first, pairs.second))
    found = []
    # One network after the other: the pairs' embeddings of all would not fit into fast memory.
    for one in embeddings.reshape(-1, *embeddings.shape[-2:]):
        # float64: of pairs of alike pictures float32 would change the order.
        unit = torch.nn.functional.normalize(one.double(), dim=-1)
        found.append((unit[first] - unit[second]).square().sum(-1))
    return torch.stack(found).reshape(*embeddings.shape[:-2], len(pairs))


def _tested(folds: Tensor) -> Tensor:
    """Which pairs are in each fold, `[F, P]` of bool."""
    return folds == torch.arange(int(folds.max()) + 1, device=folds.device)[:, None]


def _cross_validate(
    distance: Tensor, same: Tensor, is_tested: Tensor, unused: Tensor
) -> tuple[Tensor, Tensor]:
    """The accuracy on each fold with the threshold of the others, and the thresholds.

    The pairs are sorted once. For every fold a cumulative sum over the pairs of all others counts
    how many more are right when the threshold passes one of them.

    Parameters
    ----------
    distance : Tensor [..., P] of float64
    same : Tensor [P] of bool
    is_tested, unused : Tensor [F, P] of bool
        The pairs of each fold, and those that take no part in choosing its threshold.

    Returns
    -------
    Tensor [..., F], Tensor [..., F]
    """
    ordered, order = distance.sort(dim=-1)
    # Accepting one more pair of one person is right once more, and of two people once less.
    gain = torch.where(same, 1, -1)[order].unsqueeze(-2)  # [..., 1, P]
    masked = unused[:, order].movedim(0, -2)  # [..., F, P]
    right = gain.masked_fill(masked, 0).cumsum(-1)
    # Between equal distances there is no threshold.
    follows = torch.nn.functional.pad(ordered[..., 1:] > ordered[..., :-1], (0, 1), value=True)
    right = right.masked_fill(~follows.unsqueeze(-2), -len(same))
    # The first of equals; argmax promises none. Accepting no pair gains 0 and comes first of all.
    best = right.amax(-1, keepdim=True).clamp_min(0)
    places = torch.arange(1, len(same) + 1, device=right.device)
    n_accepted = torch.where(right == best, places, len(same) + 1).amin(-1)  # [..., F]
    n_accepted = n_accepted.masked_fill(best.squeeze(-1) == 0, 0)
    thresholds = _between(ordered, masked, n_accepted)
    accepted = distance.unsqueeze(-2) < thresholds.unsqueeze(-1)  # [..., F, P]
    is_right = (accepted == same) & is_tested
    return is_right.sum(-1) / is_tested.sum(-1).double(), thresholds


def _between(ordered: Tensor, masked: Tensor, n_accepted: Tensor) -> Tensor:
    """The middle between the last distance that is accepted and the next one.

    Parameters
    ----------
    ordered : Tensor [..., P]
    masked : Tensor [..., F, P] of bool
        Distances that do not count.
    n_accepted : Tensor [..., F] of int64

    Returns
    -------
    Tensor [..., F]
    """
    expanded = ordered.unsqueeze(-2).expand(masked.shape)
    last = expanded.gather(-1, (n_accepted - 1).clamp_min(0).unsqueeze(-1)).squeeze(-1)
    last = last.masked_fill(n_accepted == 0, -torch.inf)
    is_later = ~masked & (expanded > last.unsqueeze(-1))
    following = expanded.masked_fill(~is_later, torch.inf).amin(-1)
    middle = last + (following - last) / 2
    beyond = torch.nextafter(last, torch.full_like(last, torch.inf))
    middle = torch.where(following.isinf(), beyond, middle)
    # Two neighbours among the numbers have none between them: "below the upper one" parts them.
    return torch.where((n_accepted == 0) | (middle <= last), following, middle)


def _check(distance: Floats, same: NDArray[np.bool_], folds: NDArray[Any]) -> None:
    shapes = Words(f"shapes {distance.shape}, {same.shape} and {folds.shape}")
    if distance.ndim != 1 or not distance.shape == same.shape == folds.shape:
        raise invalid("distance, same and folds", "be [P] each", shapes, "give one of each a pair")
    if not np.isfinite(distance).all():
        raise invalid("distance", "be finite", Words("others"), "look at the embeddings")
    n_same = int(same.sum())
    if not 0 < n_same < len(same):
        received = Words(f"{n_same} of one person among {len(same)}")
        raise invalid("pairs", "be of both kinds", received, "give the whole list")
    n_folds = len(np.unique(folds))
    if n_folds < 2:
        raise invalid("folds", "be two or more", n_folds, "leave out the column of folds")


def _roc(distance: Floats, same: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """False and true accept rates at every threshold, from (0, 0) to (1, 1)."""
    order = np.argsort(distance, kind="stable")
    ordered, is_same = distance[order], same[order]
    ends = np.flatnonzero(np.diff(ordered, append=np.inf) > 0)  # equal ones are accepted together
    n_true, n_false = np.cumsum(is_same)[ends], np.cumsum(~is_same)[ends]
    tar = np.concatenate([[0.0], n_true / n_true[-1]])
    far = np.concatenate([[0.0], n_false / n_false[-1]])
    return far, tar


def _true_accepts(
    far: Floats, tar: Floats, same: NDArray[np.bool_], false_accept_rate: float
) -> TrueAccepts:
    n_different = int((~same).sum())
    # 0.001 * 3000 may come out a little below 3.
    accepted = math.floor(false_accept_rate * n_different + 1e-9)
    is_allowed = far * n_different < accepted + 0.5
    rate = float(tar[is_allowed].max())
    return TrueAccepts(false_accept_rate, rate, accepted, accepted >= 1)


def _corners(far: Floats, tar: Floats) -> dict[str, tuple[float, ...]]:
    """The points of a curve that a straight line between their neighbours does not pass."""
    inner = (np.diff(far)[1:] * np.diff(tar)[:-1]) != (np.diff(far)[:-1] * np.diff(tar)[1:])
    kept = np.flatnonzero(np.concatenate([[True], inner, [True]]))
    if len(kept) > MOST_POINTS:
        half = MOST_POINTS // 2  # small false accept rates are what people look at
        later = np.linspace(half, len(kept) - 1, MOST_POINTS - half).round().astype(np.int64)
        kept = np.concatenate([kept[:half], kept[later]])
    return {"roc_far": tuple(far[kept].tolist()), "roc_tar": tuple(tar[kept].tolist())}
