"""Logits, accuracy and class probabilities of whole data sets, without gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from keeprate.data import Normaliser, Split
from keeprate.engine.networks import Networks
from keeprate.noise import count_pairs

EVALUATION_BATCH = 1000


def batched_logits(
    networks: Networks,
    inputs: Tensor,
    normaliser: Normaliser,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Iterator[tuple[slice, Tensor]]:
    """Logits `[K, R, b, C]` of consecutive pieces of a data set, without gradients."""
    for start in range(0, len(inputs), EVALUATION_BATCH):
        piece = slice(start, min(start + EVALUATION_BATCH, len(inputs)))
        with torch.no_grad(), autocast():
            yield piece, networks(normaliser(inputs[piece]))


def confusion(
    networks: Networks,
    split: Split,
    normaliser: Normaliser,
    n_classes: int,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Tensor:
    """How often each network predicts each class for each label, `[K, R, C, C]`."""
    shape = (networks.n_candidates, networks.n_peers, n_classes, n_classes)
    counts = torch.zeros(shape, dtype=torch.float64, device=split.inputs.device)
    for piece, logits in batched_logits(networks, split.inputs, normaliser, autocast):
        counts += count_pairs(logits.argmax(-1), split.labels[piece], n_classes)
    return counts


def accuracy(
    networks: Networks,
    split: Split,
    normaliser: Normaliser,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Tensor:
    """Share of right predictions of each network, `[K, R]`, in [0, 1]."""
    right = torch.zeros(networks.n_candidates, networks.n_peers, device=split.inputs.device)
    for piece, logits in batched_logits(networks, split.inputs, normaliser, autocast):
        right += (logits.argmax(-1) == split.labels[piece]).sum(-1)
    return right / len(split)


def probabilities(modules: Sequence[nn.Module], inputs: Tensor, normaliser: Normaliser) -> Tensor:
    """Mean of the peers' class probabilities, float32 `[N, C]` on the CPU."""
    pieces = []
    device = next((p.device for p in modules[0].parameters()), torch.device("cpu"))
    for start in range(0, len(inputs), EVALUATION_BATCH):
        with torch.no_grad():
            batch = normaliser(inputs[start : start + EVALUATION_BATCH].to(device))
            stacked = torch.stack([module(batch).float().softmax(-1) for module in modules])
            pieces.append(stacked.mean(0).cpu())
    return torch.cat(pieces)
