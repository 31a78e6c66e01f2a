"""Corrupt labels, by a transition matrix or depending on the inputs (NumPy only)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from keeprate.errors import Words, invalid
from keeprate.noise.kinds import FloatArray, check_n_classes, check_noise_rate
from keeprate.noise.transition import check_classes, check_pairs, check_transition_matrix

IntArray = NDArray[np.int64]


def corrupt(
    labels: ArrayLike, transition_matrix: ArrayLike, *, rng: np.random.Generator
) -> IntArray:
    """Draw a noisy label for each true label, independently.

    Parameters
    ----------
    labels : array [N] of int
        True labels in 0..C-1.
    transition_matrix : array [C, C]
        T[i, j] = P(noisy = j | true = i).
    rng : numpy.random.Generator
        It draws one uniform number for each label.

    Returns
    -------
    array [N] of int64
        Noisy labels; `labels` does not change.

    Raises
    ------
    InputError
        If the matrix is not a transition matrix, or a label is outside 0..C-1.

    Examples
    --------
    >>> from keeprate.noise import pairflip
    >>> corrupt([0, 1, 2, 0, 1], pairflip(3, 0.4), rng=np.random.default_rng(0))
    array([1, 1, 0, 0, 2])
    """
    matrix = check_transition_matrix(transition_matrix)
    n_classes = len(matrix)
    true = check_classes("labels", labels, n_classes)
    cumulative = _cumulative(matrix)
    uniform = rng.random(len(true))
    noisy = np.empty_like(true)
    # Class by class: a loop over samples is slow, and an [N, C] table of many classes is large.
    for row, of_class in zip(cumulative, _by_class(true, n_classes), strict=True):
        noisy[of_class] = np.searchsorted(row, uniform[of_class], side="right")
    return noisy


def corrupt_by_instance(
    labels: ArrayLike,
    inputs: ArrayLike,
    noise_rate: float,
    *,
    n_classes: int,
    rng: np.random.Generator,
) -> IntArray:
    """Draw noisy labels that depend on the inputs: similar samples get the same wrong label.

    Sample i of true class y has its own flip rate q_i. The flip rates are normally distributed
    around `noise_rate` with deviation 0.1, truncated to [0, 1]. Each class y has a random
    projection W_y [D, C] of standard normal numbers, and

        P(noisy = j | x_i, y) = q_i softmax(x_i W_y without j = y)_j,    P(noisy = y) = 1 - q_i.

    The x_i are flattened and standardised by the mean and the deviation of all numbers in
    `inputs`. The scores x_i W_y then have a deviation of about sqrt(D). For images most of q_i
    therefore falls on one wrong class.

    Parameters
    ----------
    labels : array [N] of int
        True labels in 0..C-1.
    inputs : array [N, ...]
        Finite numbers, the inputs of the training set.
    noise_rate : float
        In [0, 1). The truncation raises the mean of low rates and lowers the mean of high rates:
        0.2 becomes 0.206, 0.1 becomes 0.129, and 0 becomes 0.08.
    n_classes : int
        C, at least 2.
    rng : numpy.random.Generator
        It draws the flip rates, then one uniform number for each label, then W_0, W_1, ...

    Returns
    -------
    array [N] of int64
        Noisy labels.

    Raises
    ------
    InputError
        If a number or a label is out of its range, or the inputs are not N rows of finite numbers.

    References
    ----------
    Xia et al., Part-dependent label noise: towards instance-dependent label noise, NeurIPS 2020,
    the generation algorithm in the appendix. The paper does not say how it scales the inputs.

    Examples
    --------
    Two kinds of samples of class 0 get different wrong labels:

    >>> inputs = np.eye(2).repeat(500, axis=0).repeat(8, axis=1)
    >>> labels, rng = np.zeros(1000, int), np.random.default_rng(0)
    >>> noisy = corrupt_by_instance(labels, inputs, 0.4, n_classes=3, rng=rng)
    >>> [np.bincount(kind).tolist() for kind in np.split(noisy, 2)]
    [[296, 2, 202], [329, 170, 1]]
    """
    rate, n_classes = check_noise_rate(noise_rate), check_n_classes(n_classes)
    true, samples = check_classes("labels", labels, n_classes), np.asarray(inputs)
    if samples.dtype.kind not in "biuf" or samples.shape[:1] != true.shape or not samples.size:
        received = Words(f"shape {samples.shape} of {samples.dtype} for {len(true)} labels")
        raise invalid("inputs", "be numbers, [N, ...]", received, "give one input per label")
    samples = samples.reshape(len(true), -1)  # [N, D]
    mean, deviation = _mean_and_deviation(samples)
    flip_rate = rng.normal(rate, 0.1, len(true))  # q
    while (outside := (flip_rate < 0.0) | (flip_rate > 1.0)).any():
        flip_rate[outside] = rng.normal(rate, 0.1, int(outside.sum()))
    uniform = rng.random(len(true))
    noisy = np.empty_like(true)
    n_features = samples.shape[1]
    for label, of_class in enumerate(_by_class(true, n_classes)):
        # Drawn for absent classes too: W_y must not depend on which other classes are present.
        projection = rng.normal(size=(n_features, n_classes))
        for piece in _pieces(len(of_class), max(n_features, n_classes)):
            rows = of_class[piece]
            scores = (samples[rows].astype(np.float64) - mean) / deviation @ projection  # [n, C]
            scores[:, label] = -np.inf
            chances = np.exp(scores - scores.max(axis=1, keepdims=True))
            chances *= (flip_rate[rows] / chances.sum(axis=1))[:, None]
            chances[:, label] = 1.0 - flip_rate[rows]
            noisy[rows] = (_cumulative(chances) <= uniform[rows, None]).sum(axis=1)
    return noisy


def _cumulative(probabilities: FloatArray) -> FloatArray:
    """Return running sums of rows. A uniform number draws the first class with a larger sum."""
    cumulative = probabilities.cumsum(axis=1)
    # Exactly 1 from the last possible class on: an impossible class is never drawn.
    cumulative /= cumulative[:, -1:]
    return cumulative


def _by_class(labels: IntArray, n_classes: int) -> list[IntArray]:
    """Return the positions of the samples of each class."""
    ends = np.cumsum(np.bincount(labels, minlength=n_classes))
    return np.split(np.argsort(labels, kind="stable"), ends[:-1])


def _mean_and_deviation(samples: NDArray[Any]) -> tuple[float, float]:
    """Measure all numbers in [N, D] in float64. The deviation of a constant is replaced by 1."""
    pieces = [samples[piece] for piece in _pieces(*samples.shape)]
    with np.errstate(over="ignore", invalid="ignore"):  # refused below
        mean = sum(float(piece.sum(dtype=np.float64)) for piece in pieces) / samples.size
        squares = sum(float(np.square(piece.astype(np.float64) - mean).sum()) for piece in pieces)
    if not np.isfinite(squares):
        received = Words("NaN or infinite values")
        raise invalid("inputs", "be finite", received, "drop these rows or impute")
    return mean, float(np.sqrt(squares / samples.size)) or 1.0


def _pieces(n_rows: int, width: int) -> list[slice]:
    """Cut rows of `width` numbers into pieces of about a million numbers."""
    size = max(1, 2**20 // width)
    return [slice(start, start + size) for start in range(0, n_rows, size)]


def noise_rate(noisy: ArrayLike, true: ArrayLike) -> float:
    """Return the share of labels that differ, in [0, 1].

    Raises
    ------
    InputError
        If the two differ in length, or are empty.

    Examples
    --------
    >>> noise_rate([0, 1, 2, 2], [0, 1, 2, 0])
    0.25
    """
    noisy_labels, true_labels = check_pairs(noisy, true)
    return float(np.mean(noisy_labels != true_labels))
