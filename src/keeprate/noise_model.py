"""What predictions and noisy labels say about each other, if noise depends on the class alone.

*Which networks are good?* Plain accuracy against noisy labels says little where noise goes to one
other class: under pairflip 45 % a network that takes a tenth of one class for the next loses next
to nothing, as 45 % of these labels say the same. What tells is how much a prediction says about
the noisy label. Given the true class, a noisy label does not depend on the sample, so that no
prediction can say more about it than the true class does (the data-processing inequality), and all
mixing of classes says less. No transition matrix needs to be known for that.

*Which labels are wrong?* With the transition matrix that suits predictions and labels best, Bayes'
rule gives the probability of each class once the label is known, too. A label to which no noise
leads needs less of the network's support than one to which much leads.

References
----------
Cover & Thomas 2006, Elements of Information Theory, Sec. 2.8. Xu et al. 2019, L_DMI (a measure of
information that noise leaves in order). Dempster, Laird & Rubin 1977 (expectation maximisation).
Patrini et al. 2017, Making Deep Neural Networks Robust to Label Noise, Eq. (7) (the forward model).
"""

from __future__ import annotations

import torch
from torch import Tensor

TINY = 1e-12
STEPS = 20  # of expectation maximisation


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
    return counts.view(*predicted.shape[:-1], n_classes, n_classes)


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


def fit_transition_matrix(probabilities: Tensor, labels: Tensor) -> Tensor:
    """The transition matrix under which the labels are most likely, `[..., C, C]`.

    P(label = j | x) = sum_i p_i(x) T[i, j]; T by expectation maximisation, starting from what is
    predicted for each label.

    Parameters
    ----------
    probabilities : Tensor [..., N, C]
        Of the true classes.
    labels : int64 Tensor [N]

    Examples
    --------
    >>> p = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    >>> fit_transition_matrix(p, torch.tensor([0, 1, 1, 1])).round(decimals=2)
    tensor([[0.5000, 0.5000],
            [0.0000, 1.0000]])
    """
    given = torch.nn.functional.one_hot(labels, probabilities.shape[-1]).to(probabilities.dtype)
    responsibility, matrix = probabilities, probabilities  # [..., N, C]
    for step in range(STEPS + 1):
        if step:
            responsibility = class_posterior(probabilities, labels, matrix)
        matrix = responsibility.mT @ given + 1e-3  # of a class that is never predicted: all alike
        matrix = matrix / matrix.sum(-1, keepdim=True)
    return matrix


def class_posterior(probabilities: Tensor, labels: Tensor, transition_matrix: Tensor) -> Tensor:
    """P(true class | x, label), proportional to p_i(x) T[i, label]: `[..., N, C]`."""
    joint = probabilities * transition_matrix[..., labels].mT
    return joint / joint.sum(-1, keepdim=True).clamp_min(TINY)


def forward_log_likelihood(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Mean log-likelihood of the labels under the transition matrix that suits best, `[...]`."""
    matrix = fit_transition_matrix(probabilities, labels)
    likelihood = (probabilities * matrix[..., labels].mT).sum(-1)
    return likelihood.clamp_min(TINY).log().mean(-1)
