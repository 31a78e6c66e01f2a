"""Selection rules: which samples of a mini-batch a network learns from.

A rule is a pure function of one batch. Shapes: K candidates, R peer networks, B samples,
C classes; losses and weights are `[K, R, B]`, logits `[K, R, B, C]`, labels `[B]`, keep rates
`[K]`. A rule returns weights (0 or 1), never indices: shapes stay static for every keep rate,
and the gradient of the weighted mean equals that of the mean over the selected subset.
"""

from __future__ import annotations

import torch
from torch import Tensor


def per_sample_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each sample, not reduced.

    Parameters
    ----------
    logits : Tensor [..., B, C]
    labels : Tensor [B], int64

    Returns
    -------
    Tensor [..., B], float32

    Examples
    --------
    >>> per_sample_cross_entropy(torch.zeros(2, 1, 3, 4), torch.tensor([0, 1, 2])).shape
    torch.Size([2, 1, 3])
    """
    log_probabilities = logits.float().log_softmax(-1)
    index = labels.expand(logits.shape[:-1]).unsqueeze(-1)
    return -log_probabilities.gather(-1, index).squeeze(-1)


def small_loss(losses: Tensor, keep_rate: Tensor, among: Tensor | None = None) -> Tensor:
    """Mark the floor(keep_rate * n) smallest of each row of n eligible losses.

    Step 5 of Alg. 1 of the paper. Ties are broken by position; a NaN loss counts as the
    largest. A keep rate above 0 keeps at least one eligible sample, so that a small batch
    never leaves a network without a gradient.

    Parameters
    ----------
    losses : Tensor [..., B]
    keep_rate : Tensor, broadcastable to `losses.shape[:-1]`, in [0, 1]
    among : bool Tensor [..., B], optional
        The eligible samples; all of them by default.

    Returns
    -------
    bool Tensor [..., B]

    Examples
    --------
    >>> small_loss(torch.tensor([3.0, 1.0, 2.0, 9.0]), torch.tensor(0.5))
    tensor([False,  True,  True, False])
    """
    if among is None:
        n_eligible: Tensor | int = losses.shape[-1]
    else:
        n_eligible = among.sum(-1)
        losses = losses.masked_fill(~among, torch.inf)
    # 1e-6: 0.29 * 100 is 28.999..., but 29 samples are meant.
    n_keep = (keep_rate * n_eligible + 1e-6).floor().maximum((keep_rate > 0).float())
    order = losses.argsort(dim=-1, stable=True)
    position = torch.arange(losses.shape[-1], device=losses.device)
    first = (position < n_keep[..., None]).expand(losses.shape)
    chosen = torch.zeros_like(first).scatter(-1, order, first)
    return chosen if among is None else chosen & among


def every_sample(losses: Tensor, logits: Tensor, labels: Tensor, keep_rate: Tensor) -> Tensor:
    """Keep all: plain training on the labels as given."""
    return torch.ones_like(losses)


def own_small_loss(losses: Tensor, logits: Tensor, labels: Tensor, keep_rate: Tensor) -> Tensor:
    """Keep the samples that the network itself finds easy (Jiang et al. 2018, self-paced form)."""
    return small_loss(losses, keep_rate[:, None]).float()


def co_teaching(losses: Tensor, logits: Tensor, labels: Tensor, keep_rate: Tensor) -> Tensor:
    """Each network learns from its peer's small-loss samples (Han et al. 2018b, Alg. 1)."""
    return small_loss(losses, keep_rate[:, None]).flip(-2).float()  # [K, 2, B], peers swapped


def normalise(weights: Tensor) -> Tensor:
    """Scale the weights of each row to sum 1: a weighted sum becomes the mean of the selected.

    A row that selects nothing stays zero (no step is taken from it).
    """
    total = weights.sum(-1, keepdim=True)
    return weights / total.where(total > 0, 1.0)
