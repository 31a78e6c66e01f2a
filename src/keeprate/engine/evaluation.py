"""Predictions of whole data sets, without gradients: scores of a split, class probabilities."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from keeprate.data import Inputs, Normaliser, Split
from keeprate.engine.networks import Networks
from keeprate.engine.selection import predicted_classes
from keeprate.engine.world import ALONE, World
from keeprate.mapped import new_tensor
from keeprate.noise import count_pairs, determinant_score

if TYPE_CHECKING:  # scikit-learn's metrics take long to import
    from keeprate.engine.scorers import Scorer

EVALUATION_BATCH = 1000


@dataclass(frozen=True)
class Scores:
    """How good each network is on a split.

    Attributes
    ----------
    accuracy : Tensor [K, R]
        Share of right predictions.
    score : Tensor [K, R]
        By the criterion: the accuracy itself, the determinant score, or that of a scorer.
    """

    accuracy: Tensor
    score: Tensor


def evaluate(
    networks: Networks,
    split: Split,
    normaliser: Normaliser,
    criterion: str,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    *,
    averages: bool = False,
    scorer: Scorer | None = None,
    world: World = ALONE,
) -> Scores:
    """Accuracy and score of each network on a split, in one pass.

    Parameters
    ----------
    split : Split
        On the device of the networks.
    criterion : {"accuracy", "determinant"}
        As `Data.criterion`; "determinant" is `keeprate.noise.determinant_score`.
    averages : bool
        Whether the peers predict together, by their mean probabilities; R is then 1.
    scorer : Scorer, optional
        Scores in place of the criterion, by the same predictions.
    world : World
        The processes that predict together; each gets all scores.
    """
    shape = (networks.n_candidates, 1 if averages else networks.n_peers)
    n_right = torch.zeros(shape, device=split.inputs.device)
    pair_counts: Tensor | None = None  # [K, R, C, C]
    predictions = []  # for a scorer: [K, R, b, C] each
    for piece, logits in batched_logits(networks, split.inputs, normaliser, autocast, world):
        if averages:
            logits = logits.float().softmax(-1).mean(1, keepdim=True)
        predicted, labels = predicted_classes(logits), split.labels[piece]
        n_right += (predicted == labels).sum(-1)
        if scorer is not None:
            of_piece = logits.double()
            predictions.append((of_piece if averages else of_piece.softmax(-1)).cpu())
        elif criterion == "determinant":
            counts = count_pairs(predicted, labels, logits.shape[-1])
            pair_counts = counts if pair_counts is None else pair_counts + counts
    accuracy = n_right / len(split)
    if scorer is not None:
        return Scores(accuracy, scorer(split.labels, torch.cat(predictions, -2)))
    return Scores(accuracy, accuracy if pair_counts is None else determinant_score(pair_counts))


def batched_logits(
    networks: Networks,
    inputs: Inputs,
    normaliser: Normaliser,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    world: World = ALONE,
) -> Iterator[tuple[slice, Tensor]]:
    """Logits `[K, R, b, C]` of consecutive pieces of a data set, without gradients."""
    for start in range(0, len(inputs), EVALUATION_BATCH):
        piece = slice(start, min(start + EVALUATION_BATCH, len(inputs)))
        share = world.share(piece.stop - piece.start)
        with torch.no_grad(), autocast():
            logits = networks(normaliser(share.of(inputs[piece])))
        yield piece, share.gathered(logits, 2)


def probabilities(modules: Sequence[nn.Module], inputs: Inputs, normaliser: Normaliser) -> Tensor:
    """Class probabilities, the mean over the peers, float32 `[N, C]` on the CPU, perhaps mapped."""
    found: Tensor | None = None
    device = next((p.device for p in modules[0].parameters()), torch.device("cpu"))
    for start in range(0, len(inputs), EVALUATION_BATCH):
        with torch.no_grad():
            batch = normaliser(inputs[start : start + EVALUATION_BATCH].to(device))
            of_each = torch.stack([module(batch).float().softmax(-1) for module in modules])
            of_batch = of_each.mean(0).cpu()
        if found is None:
            found = new_tensor((len(inputs), of_batch.shape[1]))
        found[start : start + EVALUATION_BATCH] = of_batch
    if found is None:
        raise ValueError("no samples to predict")
    return found
