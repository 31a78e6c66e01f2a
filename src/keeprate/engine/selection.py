"""Selection rules: which samples of a mini-batch a network learns from.

A rule is a pure function of one batch. Shapes: K candidates, R peer networks, B samples,
C classes; losses and weights are `[K, R, B]`, logits `[K, R, B, C]`, labels `[B]`, keep rates
`[K]`. A rule returns weights, never indices: 0 for a sample that is left out and 1 for a sample
that is kept (Co-Mining: a number in (0, 1]). Shapes are then the same for every keep rate, and the
gradient of the weighted mean is that of the mean over the selected samples. Rules run without
gradients.

Two methods change the loss too: `joint_loss` (JoCoR) and `corrected_logits` (F-correction).
"""

from __future__ import annotations

from functools import lru_cache

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
    return cross_entropy(log_probabilities(logits), labels)


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of each sample to class probabilities, not reduced.

    Parameters
    ----------
    logits : Tensor [..., B, C]
    targets : Tensor, broadcastable to the logits
        Probabilities of the classes.

    Returns
    -------
    Tensor [..., B], float32

    Examples
    --------
    >>> soft_cross_entropy(torch.zeros(1, 2), torch.tensor([[0.5, 0.5]])).round(decimals=3)
    tensor([0.6930])
    """
    return cross_entropy(log_probabilities(logits), targets)


def log_probabilities(logits: Tensor) -> Tensor:
    """The logarithms of the class probabilities of logits [..., B, C], in float32."""
    logits = logits.float()
    if logits.device.type != "cpu":
        return logits.log_softmax(-1)
    return logits.mT.log_softmax(-2).mT  # many samples at once in a vector, not a few classes


def cross_entropy(log_probability: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of each sample to its label (int64) or to probabilities of the classes.

    Parameters
    ----------
    log_probability : Tensor [..., B, C]
    targets : int64 Tensor [B], or float Tensor broadcastable to `log_probability`

    Returns
    -------
    Tensor [..., B]
    """
    if targets.dtype != torch.int64:
        return -(log_probability * targets).sum(-1)
    index = targets.expand(log_probability.shape[:-1]).unsqueeze(-1)
    return -log_probability.gather(-1, index).squeeze(-1)


def cross_entropy_gradient(log_probability: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Gradient by the logits of a weighted sum of `cross_entropy`: weight (softmax - target).

    It is what autograd gives, in less time.

    Parameters
    ----------
    log_probability : Tensor [..., B, C]
    targets : int64 Tensor [B], or float Tensor broadcastable to `log_probability`
    weights : Tensor [..., B]

    Returns
    -------
    Tensor [..., B, C], float32

    Examples
    --------
    >>> half = torch.tensor([[0.5, 0.5]]).log()
    >>> cross_entropy_gradient(half, torch.tensor([1]), torch.tensor([3.0]))
    tensor([[ 1.5000, -1.5000]])
    """
    gradient = log_probability.exp()
    if targets.dtype == torch.int64:
        index = targets.expand(gradient.shape[:-1]).unsqueeze(-1)
        gradient.scatter_add_(-1, index, gradient.new_full((), -1.0).expand(index.shape))
    else:
        gradient = gradient * targets.sum(-1, keepdim=True) - targets
    return gradient.mul_(weights.unsqueeze(-1))


def small_loss(losses: Tensor, keep_rate: Tensor, among: Tensor | None = None) -> Tensor:
    """Mark the floor(keep_rate * n) smallest of each row of n eligible losses.

    Step 5 of Alg. 1 of the paper. The first of equal losses comes first; a NaN loss counts as the
    largest. A keep rate above 0 keeps at least one eligible sample: a small batch never leaves a
    network without a gradient.

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
    order = losses.argsort(dim=-1, stable=True)
    quota = (keep_rate * n_eligible)[..., None]
    first = (quota >= _least_quotas(losses)).expand(losses.shape)
    is_kept = torch.empty_like(order, dtype=torch.bool).scatter_(-1, order, first)
    return is_kept if among is None else is_kept & among


def _least_quotas(losses: Tensor) -> Tensor:
    """From which quota on the k-th smallest of the losses [..., B] is kept: [B], from k = 1 on."""
    n, device = losses.shape[-1], losses.device
    # A graph of a GPU must not keep what was made while it was recorded.
    return _made_quotas(n, device) if device.type != "cpu" else _known_quotas(n, device)


def _made_quotas(n: int, device: torch.device) -> Tensor:
    # Less by a few roundings of float32: 0.53 * 100 is 52.999996, but 53 samples are meant.
    quotas = torch.arange(1, n + 1, dtype=torch.float32, device=device) * (1 - 2.5e-7)
    quotas[:1] = torch.finfo(quotas.dtype).tiny  # any keep rate above 0 keeps one
    return quotas


_known_quotas = lru_cache(_made_quotas)


def balanced_rank(losses: Tensor, labels: Tensor) -> Tensor:
    """Rank the losses of a batch so that its classes take turns, `[..., B]` in 0..B-1.

    The k-th smallest of the n losses of a class, counted from 0, stands at place k / n. The ranks
    order these places; of equal places the smaller loss comes first. A small-loss rule that gets
    ranks in place of losses keeps about the same share of every class. Rounding favours rare
    classes by one sample, and so a rare class, whose losses are large, is not left out.

    Parameters
    ----------
    losses : Tensor [..., B]
    labels : Tensor [B], int64

    Examples
    --------
    >>> balanced_rank(torch.tensor([0.1, 9.0, 0.2, 0.3, 7.0]), torch.tensor([0, 1, 0, 0, 1]))
    tensor([0., 3., 2., 4., 1.])
    """
    by_loss = losses.argsort(dim=-1, stable=True)
    # Sorted by class, within a class by loss: a position has the same class in all rows.
    order = by_loss.gather(-1, labels[by_loss].argsort(dim=-1, stable=True))
    classes = labels.sort().values
    # Where the class of each position begins and ends; a `bincount` would make a GPU's host wait.
    begin = torch.searchsorted(classes, classes)
    end = torch.searchsorted(classes, classes, right=True)
    position = torch.arange(len(labels), device=losses.device)
    share = (position - begin) / (end - begin)
    place = torch.zeros_like(losses).scatter(-1, order, share.to(losses.dtype).expand(order.shape))
    order = by_loss.gather(-1, place.gather(-1, by_loss).argsort(dim=-1, stable=True))
    ranks = position.to(losses.dtype).expand(order.shape)
    return torch.zeros_like(losses).scatter(-1, order, ranks)


def every_sample(losses: Tensor, logits: Tensor, labels: Tensor, keep_rate: Tensor) -> Tensor:
    """Keep all samples: plain training on the labels as given."""
    return torch.ones_like(losses)


def own_small_loss(losses: Tensor, logits: Tensor, labels: Tensor, keep_rate: Tensor) -> Tensor:
    """Each network learns from its own small losses (Jiang et al. 2018, self-paced form)."""
    return small_loss(losses, keep_rate[:, None]).float()


def held_in_small_loss(losses: Tensor, logits: Tensor, labels: Tensor, keep_rate: Tensor) -> Tensor:
    """As `own_small_loss`, among the samples that a network may learn from: the finite losses."""
    return small_loss(losses, keep_rate[:, None], losses.isfinite()).float()


def co_teaching(losses: Tensor, logits: Tensor, labels: Tensor, keep_rate: Tensor) -> Tensor:
    """Each network learns from its peer's small-loss samples (Han et al. 2018b, Alg. 1)."""
    return small_loss(losses, keep_rate[:, None]).flip(-2).float()  # [K, 2, B], peers swapped


def predicted_classes(logits: Tensor) -> Tensor:
    """The class with the largest of logits [..., C], the first of equal ones: int64 [...].

    As `argmax`, which takes several times as long on a CPU where the classes are few and do not lie
    side by side in memory.
    """
    return logits.max(-1).indices


def disagreement(logits: Tensor) -> Tensor:
    """Mark the samples for which two peers predict different classes: bool [K, 1, B].

    Parameters
    ----------
    logits : Tensor [K, 2, B, C]

    Examples
    --------
    >>> disagreement(torch.tensor([[[[0.0, 1.0], [3.0, 2.0]], [[2.0, 1.0], [9.0, 0.0]]]]))
    tensor([[[ True, False]]])
    """
    predicted = predicted_classes(logits)
    return predicted[:, :1] != predicted[:, 1:]


def decoupling(losses: Tensor, logits: Tensor, labels: Tensor, keep_rate: Tensor) -> Tensor:
    """Both learn from the samples on which they disagree (Malach & Shalev-Shwartz 2017, Alg. 1)."""
    return disagreement(logits).expand(losses.shape).float()


def co_teaching_plus(losses: Tensor, logits: Tensor, labels: Tensor, keep_rate: Tensor) -> Tensor:
    """Each learns from its peer's small losses among disagreements (Yu et al. 2019, Alg. 1).

    Alg. 1 leaves open what happens where the peers agree on the whole batch. Here the whole batch
    is then eligible, as in Co-teaching.
    """
    among = disagreement(logits)
    among = (among | ~among.any(-1, keepdim=True)).expand(losses.shape)
    return small_loss(losses, keep_rate[:, None], among).flip(-2).float()


def co_mining(losses: Tensor, logits: Tensor, labels: Tensor, keep_rate: Tensor) -> Tensor:
    """Exchange what either finds easy; leave out what both find hard (Wang et al. 2019).

    A sample counts as noisy if it is among the small losses of neither network. Each network learns
    from its peer's small losses with a weight of 1. The remaining clean samples, its own small
    losses that the peer finds hard, weigh as much as the probability that the peer gives to their
    label.
    """
    is_easy = small_loss(losses, keep_rate[:, None])  # [K, 2, B]
    confidence = per_sample_cross_entropy(logits, labels).neg().exp()
    # A weight of 0 would mean "left out": an underflow must not give it.
    weight = confidence.clamp_min(torch.finfo(torch.float32).tiny).flip(-2)
    remaining = torch.where(is_easy, weight, 0.0)
    return torch.where(is_easy.flip(-2), 1.0, remaining)


def joint_loss(logits: Tensor, labels: Tensor, *, agreement: float = 0.9) -> Tensor:
    """JoCoR's loss of two peers, half of it in the row of each (Wei et al. 2020, Eq. (1)-(4)).

    (1 - agreement) (CE_1 + CE_2) + agreement (KL(p_1 || p_2) + KL(p_2 || p_1)) for each sample.
    Both peers select the same samples, those with the smallest sums, and learn from the sum.

    Parameters
    ----------
    logits : Tensor [K, 2, B, C]
    labels : Tensor [B], int64
    agreement : float
        The source's lambda, in [0, 1]; 0.9 is the authors' value for CIFAR-10 (0.85 for CIFAR-100).

    Returns
    -------
    Tensor [K, 2, B], float32

    Examples
    --------
    >>> joint_loss(torch.zeros(1, 2, 1, 4), torch.tensor([3]))  # equal peers: 0.1 log 4 each
    tensor([[[0.1386],
             [0.1386]]])
    """
    cross_entropy = per_sample_cross_entropy(logits, labels).sum(-2)  # [K, B]
    first, second = logits.float().log_softmax(-1).unbind(-3)
    # Both divergences together: the sum over classes of (p_1 - p_2) (log p_1 - log p_2).
    divergence = ((first.exp() - second.exp()) * (first - second)).sum(-1)
    joint = (1 - agreement) * cross_entropy + agreement * divergence
    return (joint / 2).unsqueeze(-2).expand(logits.shape[:-1])


def corrected_logits(logits: Tensor, transition_matrix: Tensor) -> Tensor:
    """Log-probabilities of the *noisy* labels, log(T^T softmax) (Patrini et al. 2017, Eq. (7)).

    The cross-entropy of the result is the forward-corrected loss. A network that minimises this
    loss predicts the true labels.

    Parameters
    ----------
    logits : Tensor [K, R, B, C]
        For the true labels.
    transition_matrix : Tensor [K, C, C]
        T[i, j] = P(noisy = j | true = i) of each candidate.

    Returns
    -------
    Tensor [K, R, B, C], float32

    Examples
    --------
    >>> flipped = torch.tensor([[[0.0, 1.0], [1.0, 0.0]]])
    >>> corrected_logits(torch.tensor([[[[0.0, 100.0]]]]), flipped).argmax(-1)
    tensor([[[0]]])
    """
    noisy = logits.float().softmax(-1) @ transition_matrix[:, None]
    return noisy.clamp_min(torch.finfo(torch.float32).tiny).log()


def normalise(weights: Tensor) -> Tensor:
    """Scale each row of weights `[..., B]` to sum 1: a weighted sum becomes a weighted mean.

    A row that selects nothing stays zero; no step is taken from it. (Next to nothing, below 1e-38,
    counts as 1e-38.)
    """
    total = weights.sum(-1, keepdim=True).float()
    return weights / total.clamp_min(torch.finfo(torch.float32).tiny)
