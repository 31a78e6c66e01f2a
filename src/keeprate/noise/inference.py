"""What predictions and noisy labels say about each other, if noise depends on the class alone.

*Which networks are good?* Plain accuracy against noisy labels says little where noise goes to one
other class: under pairflip 45 % a network that takes a tenth of one class for the next loses next
to nothing, as 45 % of these labels say the same. But the joint distribution of prediction and noisy
label is that of prediction and true class times the transition matrix, J(h, noisy) = J(h, true) T,
and so are the determinants: noise scales |det J| of every classifier by the same factor, and leaves
their order as clean labels would have it. No transition matrix needs to be known for that. (A
determinant is blind to classes that change places; small-loss training does not do that.)

*Which labels are wrong?* With the transition matrix that suits predictions and labels best, Bayes'
rule gives the probability of each class once the label is known, too. A label to which no noise
leads needs less of the network's support than one to which much leads.

References
----------
Xu et al. 2019, L_DMI: an information-theoretic noise-robust loss function (the determinant).
Dempster, Laird & Rubin 1977 (expectation maximisation).
Patrini et al. 2017, Making Deep Neural Networks Robust to Label Noise, Eq. (7) (the forward model).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
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


def determinant_score(counts: Tensor) -> Tensor:
    """How well predictions tell classes apart, judged by noisy labels, `[...]`, from `[..., C, C]`.

    With J[i, j] the share of samples predicted i and labelled j, A[i, j] = J[i, j] over the root of
    the shares of i and of j, and e = sqrt(C / N), about what chance alone makes of A's entries
    together:

        score = (log |det(A + e I)| - C log e) / (C log((1 + e) / e)),

    in [0, 1]: 1 where labels follow from predictions, 1 / C where the two have nothing to do with
    each other (one singular value of A is always 1). Noise scales the determinant of every
    classifier by the same factor. With few samples of many classes e is large, and the score
    becomes that of A's trace, plain accuracy in essence: chance would drown the determinant.

    Examples
    --------
    >>> determinant_score(torch.tensor([[50.0, 0.0], [0.0, 50.0]])).round(decimals=3)
    tensor(1.)
    >>> determinant_score(torch.tensor([[55.0, 45.0], [0.0, 100.0]])).round(decimals=3)
    tensor(0.9090)
    >>> determinant_score(torch.tensor([[50.0, 50.0], [50.0, 50.0]])).round(decimals=3)
    tensor(0.5000)
    """
    n_classes = counts.shape[-1]
    shares = counts.sum(-1, keepdim=True) * counts.sum(-2, keepdim=True)
    noise = (n_classes / counts.sum((-2, -1))).sqrt()
    lifted = counts / shares.clamp_min(TINY).sqrt()
    lifted = lifted + noise[..., None, None] * torch.eye(n_classes).to(counts)
    log_determinant: Tensor = torch.linalg.slogdet(lifted).logabsdet
    score = (log_determinant / n_classes - noise.log()) / ((1 + noise) / noise).log()
    return score.clamp_min(0.0)  # a few samples can make the matrix singular


@dataclass(frozen=True)
class NoiseEstimate:
    """How noisy some labels are, from what networks predict of them.

    Attributes
    ----------
    noise_rate, noise_rate_std : float
        Share of wrong labels and its standard error (of sampling; networks that are wrong, or have
        memorised the labels, are not in it).
    transition_matrix, transition_matrix_std : array [C, C], or None
        [i, j] is the share of class i that is labelled j, and its standard error, likewise (that
        of the share with one sample more on either side: a share of 0 is not known for sure).
        None only if read from a file that had no room for them.
    """

    noise_rate: float
    noise_rate_std: float
    transition_matrix: NDArray[np.float64] | None
    transition_matrix_std: NDArray[np.float64] | None


def estimate_noise(
    probabilities: Tensor, labels: Tensor, *, held_out: bool = True
) -> NoiseEstimate:
    """Estimate the transition matrix, and from it the share of wrong labels.

    From the more confident half of the predictions of each class: where networks are sure they are
    right, and class-conditional noise does not care where they are sure (anchor points, Patrini
    et al. 2017, but many of them). Of samples that the networks were trained with, from all: they
    are sure of those whose labels agree, as selection kept these.

    Parameters
    ----------
    probabilities : Tensor [N, C]
        Of samples whose labels the networks have not memorised, held-out ones best.
    labels : int64 Tensor [N]
    held_out : bool
        Whether no network was trained with these samples.

    Examples
    --------
    >>> p = torch.tensor([[0.9, 0.1]] * 8 + [[0.2, 0.8]] * 8)
    >>> found = estimate_noise(p, torch.tensor([0] * 6 + [1] * 2 + [1] * 8))
    >>> round(found.noise_rate, 3), round(found.noise_rate_std, 3)
    (0.125, 0.077)
    """
    n_classes = probabilities.shape[1]
    sureness, predicted = probabilities.max(1)
    sure = torch.ones_like(predicted, dtype=torch.bool)
    for c in predicted.unique() if held_out else ():
        mine = predicted == c
        sure[mine] = sureness[mine] >= sureness[mine].median()
    counts = count_pairs(predicted[sure], labels[sure], n_classes)
    seen = counts.sum(1, keepdim=True)
    matrix = torch.where(seen > 0, counts / seen.clamp_min(1), torch.eye(n_classes).to(counts))
    prior = predicted.bincount(minlength=n_classes).double() / len(predicted)
    wrong = 1 - matrix.diagonal()
    variance = (prior.square() * wrong * (1 - wrong) / seen[:, 0].clamp_min(1)).sum()
    smooth = (counts + 1) / (seen + 2)
    spread = (smooth * (1 - smooth) / (seen + 2)).sqrt()
    rate, deviation = float((prior * wrong).sum()), float(variance.sqrt())
    return NoiseEstimate(rate, deviation, matrix.cpu().numpy(), spread.cpu().numpy())


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
