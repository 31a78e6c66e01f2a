"""Check, measure, estimate and compare transition matrices (NumPy only).

A transition matrix T [C, C] holds T[i, j] = P(noisy label = j | true label = i) (Sec. 4.2).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from keeprate.errors import Words, invalid
from keeprate.mapped import new_array

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_SUM_TOLERANCE = 5e-3  # of a softmax in half precision


def check_transition_matrix(
    matrix: ArrayLike, *, n_classes: int | None = None, name: str = "transition_matrix"
) -> FloatArray:
    """Return `matrix` as float64 [C, C] if it is a transition matrix.

    Parameters
    ----------
    matrix : array [C, C]
        Probabilities. Each row sums to 1, up to 1e-6.
    n_classes : int, optional
        C of the data set.
    name : str
        The name of the matrix in messages.

    Raises
    ------
    InputError
        If the matrix is not square or not [n_classes, n_classes], has an entry outside [0, 1], or
        has a row that does not sum to 1.

    Examples
    --------
    >>> check_transition_matrix([[1, 0], [0.2, 0.9]])
    Traceback (most recent call last):
    ...
    keeprate.errors.InputError: transition_matrix must have rows that sum to 1, got row 1 with
    sum 1.1; divide each row by its sum.
    """
    remedy = "give one row and one column per class"
    try:
        table = np.asarray(matrix, dtype=np.float64)
    except (TypeError, ValueError) as error:
        received = Words(f"this: {error}")
        raise invalid(name, "be a square table of numbers", received, remedy) from error
    if table.ndim != 2 or table.shape[0] != table.shape[1] or table.shape[0] < 2:
        received = Words(f"shape {table.shape}")
        raise invalid(name, "be square, [C, C] with C >= 2", received, remedy)
    if n_classes is not None and len(table) != n_classes:
        requirement = f"be [{n_classes}, {n_classes}] as the data has {n_classes} classes"
        raise invalid(name, requirement, Words(f"shape {table.shape}"), remedy)
    remedy = "give probabilities; counts have to be divided by the sum of their row"
    _check_distributions(name, table, 1e-6, remedy)
    return table


def check_classes(name: str, labels: ArrayLike, n_classes: int | None = None) -> IntArray:
    """Return labels as int64 [N] if they are integers, in 0..C-1 if C is given.

    Raises
    ------
    InputError
        If a label is something else.

    Examples
    --------
    >>> check_classes("labels", [0, 2], 2)
    Traceback (most recent call last):
    ...
    keeprate.errors.InputError: labels must lie in 0..1, got 2 in row 1; number the classes from 0.
    """
    try:
        array = np.asarray(_detached(labels))
    except ValueError as error:  # lists of several labels each
        received = Words("rows of unequal length")
        remedy = "give one class for each sample"
        raise invalid(name, "be integers, [N]", received, remedy) from error
    if array.ndim != 1 or (array.dtype.kind not in "iu" and array.size):
        received = Words(f"shape {array.shape} of {array.dtype}")
        raise invalid(name, "be integers, [N]", received, "number the classes from 0")
    if n_classes is not None:
        outside = np.flatnonzero((array < 0) | (array >= n_classes))
        if len(outside):
            received = Words(f"{array[outside[0]]} in row {outside[0]}")
            raise invalid(name, f"lie in 0..{n_classes - 1}", received, "number the classes from 0")
    return array.astype(np.int64)


def _detached(values: ArrayLike) -> ArrayLike:
    """A tensor without its gradient, on the CPU; PyTorch is not needed to tell it."""
    return values.detach().cpu() if hasattr(values, "detach") else values


def check_probabilities(name: str, probabilities: ArrayLike) -> FloatArray:
    """Return probabilities as float64 [N, C] if C >= 2 and each row sums to 1, up to 0.005.

    Raises
    ------
    InputError
        If they are not probabilities of this shape.
    """
    remedy = "give the softmax of the logits, one row per sample"
    try:
        given = np.asarray(_detached(probabilities))
        if given.dtype == np.float32:  # of networks, and perhaps of many samples
            table = new_array(given.shape, np.float64)
            table[...] = given
        else:
            table = given.astype(np.float64, copy=False)
    except (TypeError, ValueError) as error:
        received = Words(f"this: {error}")
        raise invalid(name, "be numbers, [N, C]", received, remedy) from error
    if table.ndim != 2 or table.shape[1] < 2:
        raise invalid(name, "be [N, C] with C >= 2", Words(f"shape {table.shape}"), remedy)
    _check_distributions(name, table, _SUM_TOLERANCE, remedy)
    return table


def check_pairs(
    noisy: ArrayLike, true: ArrayLike, n_classes: int | None = None
) -> tuple[IntArray, IntArray]:
    """Return noisy and true labels, as `check_classes` does, if every sample has both.

    Raises
    ------
    InputError
        If the two differ in length, are empty, or are not labels.
    """
    noisy_labels = check_classes("noisy", noisy, n_classes)
    true_labels = check_classes("true", true, n_classes)
    if len(noisy_labels) != len(true_labels) or not len(true_labels):
        received = Words(f"{len(noisy_labels)} and {len(true_labels)} labels")
        requirement = "be of one length, not empty"
        raise invalid("noisy and true", requirement, received, "give one label per sample")
    return noisy_labels, true_labels


def empirical_transition_matrix(noisy: ArrayLike, true: ArrayLike, n_classes: int) -> FloatArray:
    """Measure the share of each true class that carries each noisy label.

    Parameters
    ----------
    noisy, true : array [N] of int
        Labels in 0..C-1.
    n_classes : int
        C, at least 2.

    Returns
    -------
    array [C, C]
        Row i belongs to true class i. A class without samples gets its row of the identity.

    Raises
    ------
    InputError
        If the two differ in length, are empty, or hold labels outside 0..C-1.

    Examples
    --------
    >>> empirical_transition_matrix([0, 0, 1, 0], [0, 0, 0, 1], 3)
    array([[0.66666667, 0.33333333, 0.        ],
           [1.        , 0.        , 0.        ],
           [0.        , 0.        , 1.        ]])
    """
    if n_classes < 2:
        raise invalid("n_classes", "be at least 2", n_classes, "noise needs a class to flip to")
    noisy_labels, true_labels = check_pairs(noisy, true, n_classes)
    pairs = np.bincount(true_labels * n_classes + noisy_labels, minlength=n_classes**2)
    counts = pairs.reshape(n_classes, n_classes).astype(np.float64)
    absent = np.flatnonzero(counts.sum(axis=1) == 0)
    counts[absent, absent] = 1.0
    matrix: FloatArray = counts / counts.sum(axis=1, keepdims=True)
    return matrix


def estimate_transition_matrix(
    probabilities: ArrayLike, *, percentile: float | None = None
) -> FloatArray:
    """Estimate T from the predictions of a network trained on noisy labels, without true labels.

    An anchor point is a sample x that is certainly of class i. It has P(noisy = j | x) = T[i, j].
    So row i is the prediction for the sample that most resembles class i (Eq. (12) and (13)):

        T[i, j] = p_j(x_i),    x_i = argmax_x p_i(x).

    The most extreme predictions of a network are overconfident outliers. A percentile therefore
    replaces the maximum.

    Parameters
    ----------
    probabilities : array [N, C]
        Predicted probabilities, N >= C. Each row sums to 1, up to 0.005: half precision is enough,
        because the result is normalised. The samples need no labels.
    percentile : float, optional
        In [0, 100]. x_i is the sample with the largest p_i that is not above this percentile of
        the p_i of all samples. 100 is the maximum, as in Eq. (12). The percentile has to fall among
        the samples of class i: above 100 (1 - s) if the class is a share s of all samples. The
        default is 97 for up to 30 classes and 100 for more, as in the reference for its 10 and
        100 classes.

    Returns
    -------
    array [C, C]
        The estimate. Each row sums to 1.

    Raises
    ------
    InputError
        If a row is not a distribution, if there are fewer samples than classes, or if the
        percentile is out of its range.

    References
    ----------
    Patrini et al., Making deep neural networks robust to label noise: a loss correction approach,
    CVPR 2017, Sec. 4.1 and 5.

    Examples
    --------
    >>> predicted = [[0.7, 0.3], [0.6, 0.4], [0.4, 0.6], [0.1, 0.9]]
    >>> estimate_transition_matrix(predicted, percentile=100)
    array([[0.7, 0.3],
           [0.1, 0.9]])
    """
    table = check_probabilities("probabilities", probabilities)
    n, n_classes = table.shape
    if n < n_classes:
        received = Words(f"{n} samples for {n_classes} classes")
        requirement = "hold a sample for each class"
        raise invalid("probabilities", requirement, received, "predict more samples")
    if percentile is None:
        percentile = 97.0 if n_classes <= 30 else 100.0
    if not 0 <= percentile <= 100:
        raise invalid("percentile", "lie in [0, 100]", percentile, "97 is usual, 100 the maximum")
    rank = int(percentile * (n - 1) / 100)  # in ascending order; multiplied first, to stay exact
    # The reference takes the largest p_i strictly below the percentile. That is the same sample
    # unless the rank is a whole number or samples tie (the reference would skip every tied anchor
    # point). The reference also sets the skipped probabilities to zero, and later rows then lack
    # them. Here nothing is overwritten.
    anchors = [int(np.argsort(column, kind="stable")[rank]) for column in table.T]
    matrix: FloatArray = table[anchors]
    matrix /= matrix.sum(axis=1, keepdims=True)
    return matrix


def transition_error(estimated: ArrayLike, true: ArrayLike) -> float:
    """Return the relative L1 error of an estimate: sum |T_hat - T| / sum |T|, in [0, 2].

    Parameters
    ----------
    estimated, true : array [C, C]
        Transition matrices.

    Raises
    ------
    InputError
        If an argument is not a transition matrix, or if the sizes differ.

    References
    ----------
    Xia et al., Are anchor points really indispensable in label-noise learning?, NeurIPS 2019.

    Examples
    --------
    >>> round(transition_error([[1, 0], [0, 1]], [[0.8, 0.2], [0.2, 0.8]]), 3)
    0.4
    """
    estimate = check_transition_matrix(estimated, name="estimated")
    target = check_transition_matrix(true, name="true")
    if len(estimate) != len(target):
        received = Words(f"{len(estimate)} and {len(target)} classes")
        raise invalid("estimated and true", "be of one size", received, "compare T of one data set")
    return float(np.abs(estimate - target).sum() / np.abs(target).sum())


def matrix_by_confusion(
    predicted: FloatArray, labels: IntArray, clean_predicted: FloatArray, clean_labels: IntArray
) -> tuple[FloatArray, FloatArray]:
    """Estimate the transition matrix of noisy labels by predictions that are often wrong.

    Let M[i, k] be the mean probability that is predicted for class i where the class is k, and
    J[i, j] that where the noisy label is j, times the share of this label. If prediction and noisy
    label are independent given the class, J = M A with A[k, j] = P(class k, noisy label j). A is
    the solution by least squares that is not negative. The probabilities need not be calibrated.

    Parameters
    ----------
    predicted : array [N, C]
        Class probabilities of samples that the networks have not learnt.
    labels : array [N] of int64
        Their noisy labels.
    clean_predicted, clean_labels : array [M, C] and array [M] of int64
        Of other samples that the networks have not learnt; their labels are right.

    Returns
    -------
    matrix : array [C, C]
        The transition matrix. A class without a noisy sample has its own label alone.
    prior : array [C]
        The share of each class.

    Examples
    --------
    >>> sure = np.eye(2)
    >>> labels, clean = np.array([0, 1, 1, 1]), np.array([0, 1])
    >>> matrix, prior = matrix_by_confusion(sure[[0, 0, 1, 1]], labels, sure, clean)
    >>> matrix.round(3), prior.round(3)
    (array([[0.5, 0.5],
           [0. , 1. ]]), array([0.5, 0.5]))
    """
    from scipy.optimize import nnls

    n_classes = predicted.shape[1]
    classes = np.eye(n_classes)
    joint = np.asarray(predicted, np.float64).T @ classes[labels] / len(labels)
    n_of_class = np.bincount(clean_labels, minlength=n_classes)
    confusion = np.asarray(clean_predicted, np.float64).T @ classes[clean_labels]
    unknown = n_of_class == 0  # no clean sample tells how such a class is predicted
    confusion[unknown, unknown] = 1.0
    confusion /= np.maximum(n_of_class, 1)
    solved = np.stack([nnls(confusion, joint[:, j])[0] for j in range(n_classes)], axis=1)
    prior = solved.sum(1)
    empty = prior <= 0
    solved[empty, empty] = 1.0
    matrix = solved / solved.sum(1, keepdims=True)
    return matrix, prior / prior.sum()


def rival_share(matrix: ArrayLike) -> float:
    """Return the most frequent wrong label of a class as a share of its right ones.

    The mean over the classes, each at most 1: the nearer to 1, the harder it is for a network to
    tell which of two labels is the right one.

    Examples
    --------
    >>> rival_share([[0.8, 0.2, 0.0], [0.1, 0.8, 0.1], [0.0, 0.0, 1.0]])
    0.125
    """
    table = check_transition_matrix(matrix, name="matrix")
    right = table.diagonal().copy()
    wrong = table.copy()
    np.fill_diagonal(wrong, 0.0)
    most = wrong.max(1)
    return float((most / np.maximum(np.maximum(right, most), 1e-12)).mean())


def _check_distributions(name: str, table: FloatArray, tolerance: float, remedy: str) -> None:
    """Raise an InputError unless each row lies in [0, 1] and sums to 1, up to `tolerance`."""
    if table.size and not (table.min() >= 0.0 and table.max() <= 1.0):  # or one is NaN
        outside = ~((table >= 0.0) & (table <= 1.0))
        row, column = (int(i) for i in np.argwhere(outside)[0])
        received = Words(f"{table[row, column]:g} in row {row}, column {column}")
        raise invalid(name, "hold numbers in [0, 1]", received, remedy)
    sums = table.sum(axis=1)
    wrong = np.flatnonzero(np.abs(sums - 1.0) > tolerance)
    if len(wrong):
        received = Words(f"row {wrong[0]} with sum {sums[wrong[0]]:.6g}")
        raise invalid(name, "have rows that sum to 1", received, "divide each row by its sum")
