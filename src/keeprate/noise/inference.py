"""Conclusions from predictions and noisy labels, if the noise depends on the class alone.

*Which networks are good?* Accuracy against noisy labels says little if the noise goes to one other
class. Under pairflip 45 %, a network can take a tenth of one class for the next class and lose
almost no accuracy, because 45 % of these labels make the same mistake. The determinant of the joint
distribution J(h, y) of prediction h and label y does not have this weakness. With the transition
matrix T it is J(h, noisy) = J(h, true) T, and so det J(h, noisy) = det J(h, true) det T. The noise
scales |det J| of every classifier by the same factor, and the order of the classifiers is that of
clean labels. T need not be known. (A determinant cannot tell whether two classes have changed
places. Small-loss training does not exchange classes.)

*Which labels are wrong?* Take the transition matrix that fits predictions and labels best. Bayes'
rule then gives the probability of each class for a sample with this label. A label that the noise
rarely produces needs less support by the network than a label that the noise often produces.

References
----------
Xu et al. 2019, L_DMI: an information-theoretic noise-robust loss function (the determinant).
Dempster, Laird & Rubin 1977 (expectation maximisation).
Guo et al. 2017, On calibration of modern neural networks (the temperature).
Patrini et al. 2017, Making Deep Neural Networks Robust to Label Noise, Eq. (7) (the forward model).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from keeprate.mapped import new_tensor
from keeprate.text import percent

TINY = 1e-12  # keeps denominators positive
STEPS = 20  # of expectation maximisation
ENOUGH = 50_000  # samples, to fit one number
LEAST = 1e-7  # probability that has a logarithm
N_POWERS = 41  # from a tenth to ten
SLICE = 1 << 20  # numbers at a time: 8 MB in float64


def count_pairs(
    predicted: Tensor, labels: Tensor, n_classes: int, counted: Tensor | None = None
) -> Tensor:
    """Count how often each class is predicted for each label.

    Parameters
    ----------
    predicted : Tensor [..., N] of int64
        Predicted classes, in 0..C-1.
    labels : Tensor [N] of int64
        Labels, in 0..C-1.
    n_classes : int
        C.
    counted : bool Tensor [N], optional
        The samples that count; all by default. (To select them would make a GPU's host wait.)

    Returns
    -------
    Tensor [..., C, C] of float64
        Entry [i, j]: the number of samples with prediction i and label j.

    Examples
    --------
    >>> count_pairs(torch.tensor([0, 1, 1]), torch.tensor([0, 1, 0]), 2)
    tensor([[1., 0.],
            [1., 1.]], dtype=torch.float64)
    """
    pairs = predicted * n_classes + labels
    shape = (*predicted.shape[:-1], n_classes * n_classes)
    counts = torch.zeros(shape, dtype=torch.float64, device=predicted.device)
    ones = torch.ones_like(pairs, dtype=torch.float64)
    counts.scatter_add_(-1, pairs, ones if counted is None else ones * counted)
    return counts.view(*predicted.shape[:-1], n_classes, n_classes)


def determinant_score(counts: Tensor) -> Tensor:
    """Score how well predictions separate the classes, judged by noisy labels.

    Let J[i, j] be the share of samples with prediction i and label j. A[i, j] is J[i, j] divided by
    the root of (share of prediction i) x (share of label j). e = sqrt(C / N) is the size that
    chance alone gives to the entries of A together. Then

        score = (log |det(A + e I)| - C log e) / (C log((1 + e) / e)).

    The score is 1 if the labels follow from the predictions. It is 1 / C if predictions and labels
    are independent (one singular value of A is always 1). Noise scales the determinant of every
    classifier by the same factor. With few samples of many classes chance would dominate the
    determinant. There e is large, and the score depends mostly on the trace of A, much like plain
    accuracy.

    Parameters
    ----------
    counts : Tensor [..., C, C]
        As `count_pairs` returns them.

    Returns
    -------
    Tensor [...]
        In [0, 1].

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
    e = (n_classes / counts.sum((-2, -1))).sqrt()
    lifted = counts / shares.clamp_min(TINY).sqrt()
    unit = torch.eye(n_classes, dtype=counts.dtype, device=counts.device)
    lifted = lifted + e[..., None, None] * unit
    log_determinant: Tensor = torch.linalg.slogdet(lifted).logabsdet
    score = (log_determinant / n_classes - e.log()) / ((1 + e) / e).log()
    return score.clamp_min(0.0)  # with a few samples the matrix can be singular


@dataclass(frozen=True, eq=False)  # arrays have no single truth value
class NoiseEstimate:
    """The noise in some labels, estimated from predictions.

    The standard errors are those of sampling. They do not cover the errors of networks that predict
    wrong classes or have memorised the labels; the interval does, as far as that is possible.

    Attributes
    ----------
    noise_rate, noise_rate_std : float
        The share of wrong labels, and its standard error.
    transition_matrix, transition_matrix_std : array [C, C] or None
        Entry [i, j]: the share of class i that is labelled j, and its standard error. For the
        standard error one more sample is counted with label j and one without, because a share of
        0 is not certain. None only if the estimate was read from a file that left the matrix out.
    low, high : float or None
        The share of wrong labels lies between these two, see `estimate_noise`. None if nothing
        bounds it: networks may have memorised the labels.
    by_clean_labels : bool
        Whether labels known to be right say how often the networks are wrong. If not, `low` is 0,
        and `high` leaves out wrong labels that follow from the inputs (all samples of a sort have
        the same wrong label): no network can tell such labels from right ones.
    """

    noise_rate: float
    noise_rate_std: float
    transition_matrix: NDArray[np.float64] | None
    transition_matrix_std: NDArray[np.float64] | None
    low: float | None = None
    high: float | None = None
    by_clean_labels: bool = False

    def in_words(self) -> str:
        """The share of wrong labels: the best guess, and what bounds it.

        >>> NoiseEstimate(0.21, 0.01, None, None, 0.19, 0.26, by_clean_labels=True).in_words()
        'About 21.0 % of the labels are wrong, between 19.0 % and 26.0 %'
        >>> NoiseEstimate(0.21, 0.01, None, None, 0.0, 0.26).in_words()
        'About 21.0 % of the labels are wrong, at most 26.0 %'
        >>> NoiseEstimate(0.21, 0.01, None, None).in_words()
        'About 21.0 % of the labels are wrong (standard error 1.0 %)'
        """
        text = f"About {percent(self.noise_rate)} of the labels are wrong"
        if self.low is None or self.high is None:
            return f"{text} (standard error {percent(self.noise_rate_std)})"
        if not self.by_clean_labels:
            return f"{text}, at most {percent(self.high)}"
        return f"{text}, between {percent(self.low)} and {percent(self.high)}"


def estimate_noise(
    probabilities: Tensor,
    labels: Tensor,
    *,
    held_out: bool = True,
    is_right: Tensor | None = None,
) -> NoiseEstimate:
    """Estimate the transition matrix, and from it the share of wrong labels.

    Held-out samples: the more confident half of the predictions of each class counts. Confident
    predictions are mostly right, and noise that depends on the class alone is the same for
    confident and for other samples (the anchor points of Patrini et al. 2017, but many of them).

    With clean samples, which say how sure a prediction may be: all predictions count as much as
    their probabilities say, by expectation maximisation (`fit_transition_matrix`). The standard
    errors then take these probabilities for exact, and are too small where networks are weak.

    Training samples: all predictions count. Networks are most confident where the label agrees with
    them, because the selection kept these samples.

    The interval, of held-out samples only, rests on d, the share of all predictions that differ
    from their labels. With clean samples the networks' share of errors e is known, and the share of
    wrong labels lies in [|d - e|, d + e]: prediction, label and true class form a triangle. Without
    them d is the upper end (every difference is a wrong label), and nothing is the lower one:
    classes that overlap look like wrong labels. Both ends are moved outwards by two standard errors
    of sampling.

    Parameters
    ----------
    probabilities : Tensor [N, C]
        Predictions for samples whose labels the networks have not memorised, best held-out ones.
        With `is_right` they are to be calibrated (`best_power` of the clean samples).
    labels : Tensor [N] of int64
        The noisy labels.
    held_out : bool
        Whether no network was trained with these samples.
    is_right : bool Tensor [M], optional
        Of M samples with clean labels that no network was trained with: whether the prediction is
        the label.

    Returns
    -------
    NoiseEstimate

    Examples
    --------
    >>> p = torch.tensor([[0.9, 0.1]] * 8 + [[0.2, 0.8]] * 8)
    >>> estimate = estimate_noise(p, torch.tensor([0] * 6 + [1] * 2 + [1] * 8))
    >>> round(estimate.noise_rate, 3), round(estimate.noise_rate_std, 3)
    (0.125, 0.077)
    """
    n_classes = probabilities.shape[1]
    confidence, predicted = probabilities.max(1)
    if is_right is not None:
        counts = _expected_pairs(probabilities, labels)
        n_of_class = counts.sum(1)
    else:
        counted = torch.ones_like(predicted, dtype=torch.bool)
        for c in predicted.unique() if held_out else ():
            of_class = predicted == c
            counted[of_class] = confidence[of_class] >= confidence[of_class].median()
        counts = count_pairs(predicted[counted], labels[counted], n_classes)
        n_of_class = predicted.bincount(minlength=n_classes).double()
    n_predicted = counts.sum(1, keepdim=True)
    identity = torch.eye(n_classes).to(counts)  # for a class that is never predicted
    matrix = torch.where(n_predicted > 0, counts / n_predicted.clamp_min(TINY), identity)
    prior = n_of_class / len(predicted)
    wrong = 1 - matrix.diagonal()
    variance = (prior.square() * wrong * (1 - wrong) / n_predicted[:, 0].clamp_min(1)).sum()
    smooth = (counts + 1) / (n_predicted + 2)
    deviations = (smooth * (1 - smooth) / (n_predicted + 2)).sqrt()
    rate, rate_deviation = float((prior * wrong).sum()), float(variance.sqrt())
    estimate = NoiseEstimate(rate, rate_deviation, matrix.cpu().numpy(), deviations.cpu().numpy())
    if not held_out:
        return estimate
    low, high = _interval(predicted != labels, is_right)
    is_known = is_right is not None
    rate = min(max(rate, low), high)
    return replace(estimate, noise_rate=rate, low=low, high=high, by_clean_labels=is_known)


def _expected_pairs(probabilities: Tensor, labels: Tensor) -> Tensor:
    """How often each class is expected for each label, [C, C] of float64."""
    matrix, n_classes = fit_transition_matrix(probabilities, labels), probabilities.shape[1]
    counts = torch.zeros(n_classes, n_classes, dtype=torch.float64, device=labels.device)
    for some, of_some in slices(probabilities, labels):
        posterior = class_posterior(some, of_some, matrix).double()
        counts.index_add_(1, of_some, posterior.mT)
    return counts


def _interval(differs: Tensor, is_right: Tensor | None) -> tuple[float, float]:
    """Between which two the share of wrong labels lies, see `estimate_noise`."""
    d, d_variance = _share(differs)
    if is_right is None:
        return 0.0, min(1.0, d + 2 * math.sqrt(d_variance))
    e, e_variance = _share(~is_right)
    more = 2 * math.sqrt(d_variance + e_variance)
    return max(0.0, abs(d - e) - more), min(1.0, d + e + more)


def _share(happened: Tensor) -> tuple[float, float]:
    """The share of an event, and the variance of the share; one more of each kind is counted."""
    n = len(happened)
    smooth = (float(happened.sum()) + 1) / (n + 2)
    return float(happened.float().mean()), smooth * (1 - smooth) / (n + 2)


def fit_transition_matrix(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Find the transition matrix under which the labels are most likely.

    P(label = j | x) = sum_i p_i(x) T[i, j]. Expectation maximisation finds T. It starts from the
    mean predictions for each label.

    Parameters
    ----------
    probabilities : Tensor [..., N, C]
        Probabilities of the true classes.
    labels : Tensor [N] of int64
        The noisy labels.

    Returns
    -------
    Tensor [..., C, C]

    Examples
    --------
    >>> p = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    >>> fit_transition_matrix(p, torch.tensor([0, 1, 1, 1])).round(decimals=2)
    tensor([[0.5000, 0.5000],
            [0.0000, 1.0000]])
    """
    n_classes, n = probabilities.shape[-1], _at_a_time(probabilities, labels)
    of_labels = labels.argsort(stable=True).split(_counts(labels, n_classes))
    groups = [(label, some) for label, rows in enumerate(of_labels) for some in rows.split(n)]
    shape = (*probabilities.shape[:-2], n_classes, n_classes)
    # By label and true class: what is read and written lies side by side in memory.
    transposed = probabilities.new_ones(shape)
    for step in range(STEPS + 1):
        total = torch.zeros_like(transposed)
        for label, rows in groups:
            p = probabilities.index_select(-2, rows)  # [..., n, C]
            if not step:
                total[..., label, :] += p.sum(-2)
                continue
            # The posterior of all n samples, p T[:, label] / (p @ T[:, label]), summed over n.
            column = transposed[..., label, :, None]  # [..., C, 1]
            summed = column * (p.mT @ (p @ column).clamp_min(TINY).reciprocal())
            total[..., label, :] += summed[..., 0]
        # The constant gives a class that is never predicted a row of equal entries.
        transposed = total.add_(1e-3)
        transposed /= transposed.sum(-2, keepdim=True)
    return transposed.mT


def _at_a_time(probabilities: Tensor, labels: Tensor) -> int:
    """How many samples have `SLICE` numbers."""
    return max(1, SLICE * len(labels) // max(1, probabilities.numel()))


def _counts(labels: Tensor, n_classes: int) -> list[int]:
    """How often each label occurs."""
    counts: list[int] = labels.bincount(minlength=n_classes).tolist()
    return counts


def slices(probabilities: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield samples in slices of bounded size, so that what is computed of them fits in memory.

    Parameters
    ----------
    probabilities : Tensor [..., N, C]
    labels : Tensor [N]
    """
    n = _at_a_time(probabilities, labels)
    yield from zip(probabilities.split(n, dim=-2), labels.split(n), strict=True)


def class_posterior(probabilities: Tensor, labels: Tensor, transition_matrix: Tensor) -> Tensor:
    """Return P(true class i | x, label), proportional to p_i(x) T[i, label].

    Parameters
    ----------
    probabilities : Tensor [..., N, C]
        p(x).
    labels : Tensor [N] of int64
        The noisy labels.
    transition_matrix : Tensor [..., C, C]
        T.

    Returns
    -------
    Tensor [..., N, C]
    """
    joint = probabilities * transition_matrix.mT[..., labels, :]
    return joint / joint.sum(-1, keepdim=True).clamp_min(TINY)


def best_power(
    probabilities: Tensor, labels: Tensor, transition_matrix: Tensor | None = None
) -> tuple[float, float]:
    """Find the power of the probabilities at which the labels are most likely.

    The power is one over the temperature of Guo et al. 2017. Of p_i(x)^t / sum_j p_j(x)^t this
    takes the t under which the labels are most likely.

    Parameters
    ----------
    probabilities : Tensor [N, C]
        Of samples that the networks have not learnt.
    labels : Tensor [N] of int64
    transition_matrix : Tensor [C, C], optional
        T, if the labels are noisy: P(label) is then sum_i p_i(x) T[i, label].

    Returns
    -------
    power, log_likelihood : float
        t, and the mean of log P(label) at t.
    """
    some, of_some = thinned(probabilities, labels)
    likelihoods = {
        power: mean_log_likelihood(to_power(some, power), of_some, transition_matrix)
        for power in torch.logspace(-1, 1, N_POWERS).tolist()
    }
    best = max(likelihoods, key=likelihoods.__getitem__)
    return best, likelihoods[best]


def thinned(probabilities: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Every so many samples: at most `ENOUGH`, to fit one number."""
    step = -(-len(labels) // ENOUGH)
    return probabilities[::step], labels[::step]


def mean_log_likelihood(
    probabilities: Tensor, labels: Tensor, transition_matrix: Tensor | None = None
) -> float:
    """The mean of log P(label), with `transition_matrix` of noisy labels; see `best_power`."""
    total = 0.0
    for some, of_some in slices(probabilities, labels):
        if transition_matrix is None:
            of_label = some.gather(1, of_some[:, None])
        else:
            of_label = (some * transition_matrix.mT[of_some]).sum(-1)
        total += float(of_label.clamp_min(TINY).log().double().sum())
    return total / len(labels)


def to_power(probabilities: Tensor, power: float) -> Tensor:
    """p_i^power / sum_j p_j^power, [N, C]."""
    powers = new_tensor(probabilities.shape)
    n = _at_a_time(probabilities, probabilities)
    for some, of_some in zip(probabilities.split(n), powers.split(n), strict=True):
        of_some.copy_((power * some.clamp_min(LEAST).log()).softmax(-1))
    return powers


def sharpened(probabilities: Tensor, labels: Tensor, transition_matrix: Tensor) -> Tensor:
    """Bring probabilities to the power at which noisy labels are most likely, [N, C].

    Networks that learn wrong labels too are right more often than they say: under 20 % of wrong
    labels they say 0.8 and are nearly always right. Parameters as of `best_power`.
    """
    return to_power(probabilities, best_power(probabilities, labels, transition_matrix)[0])
