"""How much each training sample counts: its own weight times the weight of its class."""

from __future__ import annotations

import torch
from torch import Tensor

from keeprate.data import Split
from keeprate.errors import Words, invalid


def training_weights(train: Split, class_weight: str | None) -> Tensor | None:
    """Combine the weights of samples and classes.

    Parameters
    ----------
    train : Split
        Its `weights`, if there are any, count.
    class_weight : {None, "balanced"}
        "balanced" multiplies by N / (C * n) for a class of n of the N samples, by the labels as
        given, as scikit-learn does.

    Returns
    -------
    Tensor [N] or None
        float32; the largest weight is 1, so that equal weights are exactly 1 and change nothing.
        None where every sample counts the same by the arguments.

    Raises
    ------
    InputError
        If the weights are no N finite numbers of at least 0, or all of them are 0.

    Examples
    --------
    >>> split = Split(torch.zeros(4, 1), torch.tensor([0, 0, 0, 1]))
    >>> training_weights(split, "balanced")
    tensor([0.3333, 0.3333, 0.3333, 1.0000])
    """
    if train.weights is None and class_weight is None:
        return None
    weights = torch.ones(len(train), dtype=torch.float64)
    if train.weights is not None:
        check_weights("weights", train.weights, len(train))
        weights = train.weights.detach().double().cpu()
        weights = weights / weights.max()  # first: a product could overflow
    if class_weight is not None:
        from sklearn.utils.class_weight import compute_sample_weight

        labels = train.labels.cpu().numpy()
        weights = weights * torch.from_numpy(compute_sample_weight(class_weight, labels))
        weights = weights / weights.max()
    return weights.float()


def check_weights(name: str, weights: Tensor, n: int) -> None:
    """Refuse what cannot be the weights of n samples.

    Parameters
    ----------
    name : str
        For the error.
    weights : Tensor
    n : int

    Raises
    ------
    InputError
        If the weights are no n finite numbers of at least 0, or all of them are 0.
    """
    if tuple(weights.shape) != (n,):
        received = Words(f"shape {tuple(weights.shape)}")
        raise invalid(name, f"be [{n}], one for each sample", received, "use ravel(), say")
    is_bad = ~(weights.isfinite() & (weights >= 0))
    if bool(is_bad.any()):
        received = Words(f"{weights[is_bad][0].item()} among others")
        raise invalid(name, "be finite and at least 0", received, "leave samples out with 0")
    if not bool((weights > 0).any()):
        remedy = "give a positive weight to the samples to learn from"
        raise invalid(name, "be above 0 for a training sample", Words("zeros only"), remedy)
