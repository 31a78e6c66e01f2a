"""Peers that leave out a fold each: cross-fitting in lockstep, at the price of one more mask.

Network r of a candidate learns from all samples but those of fold r. Its opinion of fold r is then
out of sample, and the batch that trains the other peers gives it for nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from keeprate.engine.selection import corrected_logits, soft_cross_entropy
from keeprate.mapped import new_tensor


@dataclass(frozen=True, eq=False)  # tensors have no single truth value
class Supervision:
    """What the R peers of one candidate learn from.

    Attributes
    ----------
    fold : Tensor [N] of int64
        The peer in 0..R-1 that leaves each sample out.
    judged : bool Tensor [N]
        The samples whose held-out predictions score the candidate.
    targets : Tensor [N, C] or [R, N, C]
        Class probabilities that the peers learn, the same or of each its own.
    weights : Tensor [N] or [R, N]
        How much each sample counts, at least 0.
    transition_matrix : Tensor [R, C, C] or None
        Corrects the loss of `corrected` samples for each peer.
    corrected : bool Tensor [N] or None
        The samples whose labels the matrix describes.
    """

    fold: Tensor
    judged: Tensor
    targets: Tensor
    weights: Tensor
    transition_matrix: Tensor | None = None
    corrected: Tensor | None = None

    @property
    def n_folds(self) -> int:
        """R."""
        return int(self.fold.max()) + 1

    def digest(self) -> bytes:
        """Hash of all its numbers."""
        digest = hashlib.sha256()
        for tensor in vars(self).values():
            if tensor is not None:
                digest.update(np.ascontiguousarray(tensor.numpy()).data)
        return digest.digest()


@dataclass(frozen=True, eq=False)
class Lesson:
    """What K x R networks learn of a batch.

    Attributes
    ----------
    targets : Tensor [K, R or 1, B, C]
    weights : Tensor [K, R, B]
    transition_matrix : Tensor [K, R, C, C] or None
        The unit matrix for candidates whose loss is not corrected.
    corrected : bool Tensor [B] or None
    """

    targets: Tensor
    weights: Tensor
    transition_matrix: Tensor | None
    corrected: Tensor | None

    def losses(self, logits: Tensor) -> Tensor:
        """Cross-entropy of each sample to its target, [K, R, B]."""
        if self.transition_matrix is None or self.corrected is None:
            return soft_cross_entropy(logits, self.targets)
        n_candidates, n_peers = logits.shape[:2]
        matrix = self.transition_matrix.reshape(-1, *self.transition_matrix.shape[-2:])
        noisy = corrected_logits(logits.flatten(0, 1)[:, None], matrix)
        noisy = noisy.view(n_candidates, n_peers, *noisy.shape[-2:])
        chosen = torch.where(self.corrected[:, None], noisy, logits.float().log_softmax(-1))
        return soft_cross_entropy(chosen, self.targets)


@dataclass(frozen=True, eq=False)
class Folds:
    """The supervisions of a population, on its device.

    Attributes
    ----------
    fold : Tensor [N]
    judged : bool Tensor [N]
    targets : Tensor [K, R or 1, N, C]
    weights : Tensor [K, R, N]
        0 where a peer leaves a sample out.
    transition_matrix : Tensor [K, R, C, C] or None
    corrected : bool Tensor [N] or None
    """

    fold: Tensor
    judged: Tensor
    targets: Tensor
    weights: Tensor
    transition_matrix: Tensor | None
    corrected: Tensor | None

    @classmethod
    def of(cls, supervisions: Sequence[Supervision], n_classes: int, device: torch.device) -> Folds:
        """Stack K supervisions with the same folds."""
        first = supervisions[0]
        n_folds = first.n_folds
        is_learnt = torch.arange(n_folds)[:, None] != first.fold  # [R, N]
        per_peer = [one.targets.dim() == 3 for one in supervisions]
        targets = [
            one.targets.expand(n_folds if any(per_peer) else 1, -1, -1) for one in supervisions
        ]
        matrix = None
        if any(one.transition_matrix is not None for one in supervisions):
            unit = torch.eye(n_classes).expand(n_folds, -1, -1)
            matrix = torch.stack(
                [
                    unit if one.transition_matrix is None else one.transition_matrix
                    for one in supervisions
                ]
            ).to(device)
        corrected = next((one.corrected for one in supervisions if one.corrected is not None), None)
        return cls(
            first.fold.to(device),
            first.judged.to(device),
            _stacked(targets).to(device),
            _stacked([is_learnt * one.weights for one in supervisions]).to(device),
            matrix,
            None if corrected is None else corrected.to(device),
        )

    def batch(self, index: Tensor) -> Lesson:
        """What the networks learn of the samples `index` [B]."""
        corrected = None if self.corrected is None else self.corrected[index]
        return Lesson(
            self.targets[:, :, index], self.weights[:, :, index], self.transition_matrix, corrected
        )

    def held_out(self, logits: Tensor, index: Tensor) -> Tensor:
        """Of logits [K, R, B, C], those of the peers that leave the samples out, [K, B, C]."""
        return logits[:, self.fold[index], torch.arange(len(index), device=index.device)]

    def keep(self, rows: list[int]) -> Folds:
        """The same for some of the candidates."""
        matrix = self.transition_matrix
        return replace(
            self,
            targets=self.targets[rows],
            weights=self.weights[rows],
            transition_matrix=None if matrix is None else matrix[rows],
        )


def _stacked(tensors: Sequence[Tensor]) -> Tensor:
    """K tensors as one, [K, ...]; the same one K times takes no memory."""
    first = tensors[0]
    same = (first.data_ptr(), first.shape, first.stride())
    if all((one.data_ptr(), one.shape, one.stride()) == same for one in tensors):
        return first.expand(len(tensors), *first.shape)
    stacked = new_tensor((len(tensors), *first.shape))
    for row, one in zip(stacked, tensors, strict=True):
        row.copy_(one)
    return stacked
