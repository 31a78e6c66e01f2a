"""Which networks are good, judged by held-out samples whose labels are partly wrong.

Plain accuracy against noisy labels says little where noise goes to one other class: under pairflip
45 % a network that takes a tenth of one class for the next loses next to nothing, as 45 % of these
labels say the same. What tells is how much a prediction says about the noisy label. Given the true
class, a noisy label does not depend on the sample (class-conditional noise), so that no prediction
can say more about it than the true class does (the data-processing inequality), and all mixing of
classes says less. No transition matrix needs to be known for that.

References
----------
Cover & Thomas 2006, Elements of Information Theory, Sec. 2.8. Xu et al. 2019, L_DMI (a measure of
information that noise leaves in order). Patrini et al. 2017, Making Deep Neural Networks Robust to
Label Noise, Eq. (7) (the forward model).
"""

from __future__ import annotations

import torch
from torch import Tensor


def count_pairs(predicted: Tensor, labels: Tensor, n_classes: int) -> Tensor:
    """How often each class was predicted for each label, `[..., C, C]` (predicted, label).

    Parameters
    ----------
    predicted : int64 Tensor [..., N]
    labels : int64 Tensor [N]

    Examples
    --------
    >>> count_pairs(torch.tensor([0, 1, 1]), torch.tensor([0, 1, 0]), 2)
    tensor([[1., 0.],
            [1., 1.]], dtype=torch.float64)
    """
    pairs = predicted * n_classes + labels
    shape = (*predicted.shape[:-1], n_classes * n_classes)
    counts = torch.zeros(shape, dtype=torch.float64, device=predicted.device)
    counts.scatter_add_(-1, pairs, torch.ones_like(pairs, dtype=torch.float64))
    return counts.unflatten(-1, (n_classes, n_classes))


def mutual_information(counts: Tensor) -> Tensor:
    """Information in nats that a prediction holds of the label, `[...]`, from counts `[..., C, C]`.

    Examples
    --------
    >>> mutual_information(torch.tensor([[2.0, 0.0], [0.0, 2.0]]))  # log 2
    tensor(0.6931)
    >>> mutual_information(torch.tensor([[1.0, 1.0], [1.0, 1.0]]))
    tensor(0.)
    """
    joint = counts / counts.sum((-2, -1), keepdim=True)
    independent = joint.sum(-1, keepdim=True) * joint.sum(-2, keepdim=True)
    return (torch.xlogy(joint, joint) - torch.xlogy(joint, independent)).sum((-2, -1))


def forward_log_likelihood(probabilities: Tensor, labels: Tensor, *, steps: int = 20) -> Tensor:
    """Mean log-likelihood of noisy labels under the transition matrix that suits best, `[...]`.

    The forward model P(label = j | x) = sum_i p_i(x) T[i, j], its T fitted to these samples by
    expectation maximisation.

    Parameters
    ----------
    probabilities : Tensor [..., N, C]
    labels : int64 Tensor [N]
    """
    n_classes = probabilities.shape[-1]
    given = torch.nn.functional.one_hot(labels, n_classes).to(probabilities.dtype)  # [N, C]
    matrix = probabilities.mT @ given + 1.0
    matrix /= matrix.sum(-1, keepdim=True)
    for _ in range(steps):
        joint = probabilities * matrix[..., labels].mT  # [..., N, C]
        posterior = joint / joint.sum(-1, keepdim=True).clamp_min(1e-12)
        matrix = posterior.mT @ given + 1e-3
        matrix /= matrix.sum(-1, keepdim=True)
    likelihood = (probabilities * matrix[..., labels].mT).sum(-1)
    return likelihood.clamp_min(1e-12).log().mean(-1)
