"""Label noise: kinds of noise, and labels corrupted by them (NumPy only).

A transition matrix T [C, C] holds T[i, j] = P(noisy label = j | true label = i) (Sec. 4.2).
Instance-dependent noise has none: there the flips depend on the inputs too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from keeprate.errors import InputError, invalid
from keeprate.transition import check_classes, check_pairs, check_transition_matrix

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def symmetric(n_classes: int, noise_rate: float) -> FloatArray:
    """With probability `noise_rate` a label becomes one of the others, all equally likely.

    Parameters
    ----------
    n_classes : int
        C, at least 2.
    noise_rate : float
        Share of labels that are wrong, in [0, 1).

    Returns
    -------
    array [C, C]
        The transition matrix.

    Raises
    ------
    InputError
        If either number is out of its range.

    Examples
    --------
    >>> symmetric(3, 0.5)
    array([[0.5 , 0.25, 0.25],
           [0.25, 0.5 , 0.25],
           [0.25, 0.25, 0.5 ]])
    """
    rate = _check_noise_rate(noise_rate)
    n_classes = _check_n_classes(n_classes)
    matrix = np.full((n_classes, n_classes), rate / (n_classes - 1))
    np.fill_diagonal(matrix, 1.0 - rate)
    return matrix


def pairflip(n_classes: int, noise_rate: float) -> FloatArray:
    """With probability `noise_rate` class c becomes class c + 1 (modulo C).

    Parameters, returns and errors are those of `symmetric`.

    Examples
    --------
    >>> pairflip(3, 0.25)
    array([[0.75, 0.25, 0.  ],
           [0.  , 0.75, 0.25],
           [0.25, 0.  , 0.75]])
    """
    rate = _check_noise_rate(noise_rate)
    identity = np.eye(_check_n_classes(n_classes))
    return (1.0 - rate) * identity + rate * np.roll(identity, 1, axis=1)


def asymmetric(n_classes: int, noise_rate: float, class_map: Mapping[int, int]) -> FloatArray:
    """With probability `noise_rate` a class of `class_map` becomes what it is mistaken for.

    Parameters
    ----------
    n_classes : int
        C, at least 2.
    noise_rate : float
        Probability, in [0, 1), that a label of a mapped class is flipped. The share of wrong
        labels overall is lower: this, times the share of samples in the mapped classes.
    class_map : mapping of int to int
        Class -> the class that it is mistaken for; classes that are left out stay clean.

    Returns
    -------
    array [C, C]
        The transition matrix.

    Raises
    ------
    InputError
        If a number is out of its range, or a class is mapped to itself or to none of the C.

    Examples
    --------
    >>> asymmetric(3, 0.4, {2: 0})
    array([[1. , 0. , 0. ],
           [0. , 1. , 0. ],
           [0.4, 0. , 0.6]])
    """
    rate = _check_noise_rate(noise_rate)
    matrix = np.eye(_check_n_classes(n_classes))
    for true, mistaken in class_map.items():
        if not (0 <= true < n_classes and 0 <= mistaken < n_classes) or true == mistaken:
            requirement = f"map classes in 0..{n_classes - 1} to other such classes"
            raise invalid("class_map", requirement, f"{true} -> {mistaken}", "leave it out")
        matrix[true, true], matrix[true, mistaken] = 1.0 - rate, rate
    return matrix


# The superclass, a letter of a..t for 0..19, of each class of CIFAR-100 in alphabetical order.
_CIFAR100_SUPERCLASSES = (
    "eboiaghhsddojshldjhlglfkhgnpdpalbkmoqjlfftiipnorsk"
    "qerecaresrkdcmmqmbjtckabqmjnpnqtcegtffitsbcpgarion"
)


def _next_of_superclass(superclasses: str) -> dict[int, int]:
    """Map each class to the next one of its superclass, the last to the first."""
    following: dict[int, int] = {}
    for superclass in set(superclasses):
        members = [i for i, letter in enumerate(superclasses) if letter == superclass]
        following |= zip(members, members[1:] + members[:1], strict=True)
    return following


#: The usual class maps: name -> (C, map), classes numbered as the data sets do (Patrini et al.
#: 2017, Sec. 5). Of CIFAR-100 each class becomes the next one of its superclass, circularly.
CLASS_MAPS: dict[str, tuple[int, dict[int, int]]] = {
    "mnist": (10, {2: 7, 3: 8, 7: 1, 5: 6, 6: 5}),
    # truck -> automobile, bird -> airplane, deer -> horse, cat <-> dog
    "cifar10": (10, {9: 1, 2: 0, 4: 7, 3: 5, 5: 3}),
    # As in their text; their code takes five neighbours in the alphabet for a superclass.
    "cifar100": (100, _next_of_superclass(_CIFAR100_SUPERCLASSES)),
}


def _asymmetric_like(data_set: str, n_classes: int, noise_rate: float) -> FloatArray:
    needed, class_map = CLASS_MAPS[data_set]
    if n_classes != needed:
        remedy = "use asymmetric with a class_map of your own, or matrix:FILE"
        raise invalid("n_classes", f"be {needed} for asymmetric-{data_set}", n_classes, remedy)
    return asymmetric(n_classes, noise_rate, class_map)


#: Every kind of noise whose matrix one number describes: (n_classes, noise_rate) -> T.
NOISES: dict[str, Callable[[int, float], FloatArray]] = {
    "symmetric": symmetric,
    "pairflip": pairflip,
    **{f"asymmetric-{name}": partial(_asymmetric_like, name) for name in CLASS_MAPS},
}


def corrupt(
    labels: ArrayLike, transition_matrix: ArrayLike, *, rng: np.random.Generator
) -> IntArray:
    """Draw a noisy label for each true one, independently.

    Parameters
    ----------
    labels : array [N] of int
        True labels in 0..C-1.
    transition_matrix : array [C, C]
        T[i, j] = P(noisy = j | true = i).
    rng : numpy.random.Generator
        One uniform number per label is taken from it.

    Returns
    -------
    array [N] of int64
        Noisy labels; `labels` is left as it was.

    Raises
    ------
    InputError
        If the matrix is not a transition matrix or a label is outside 0..C-1.

    Examples
    --------
    >>> corrupt([0, 1, 2, 0, 1], pairflip(3, 0.4), rng=np.random.default_rng(0))
    array([1, 1, 0, 0, 2])
    """
    matrix = check_transition_matrix(transition_matrix)
    n_classes = len(matrix)
    true = check_classes("labels", labels, n_classes)
    cumulative = _cumulative(matrix)
    uniform = rng.random(len(true))
    noisy = np.empty_like(true)
    # Class by class, not sample by sample; an [N, C] table would not fit for many classes.
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
    """Draw noisy labels that depend on the inputs: similar samples are mistaken for one class.

    Sample i of true class y has its own flip rate q_i, normally distributed around `noise_rate`
    with deviation 0.1 and truncated to [0, 1]. Each class y has a random projection W_y [D, C] of
    standard normal numbers, and

        P(noisy = j | x_i, y) = q_i softmax(x_i W_y without j = y)_j,    P(noisy = y) = 1 - q_i.

    The x_i are flattened and standardised by the mean and the deviation of all numbers in
    `inputs`. Their scores then have a deviation of about sqrt(D), so that for images most of q_i
    falls on one wrong class.

    Parameters
    ----------
    labels : array [N] of int
        True labels in 0..C-1.
    inputs : array [N, ...]
        Finite numbers: the training set.
    noise_rate : float
        In [0, 1). The truncation lifts the mean of low rates and lowers that of high ones: 0.2
        becomes 0.206, 0.1 becomes 0.129, and 0 becomes 0.08.
    n_classes : int
        C, at least 2.
    rng : numpy.random.Generator
        Flip rates, then one uniform number per label, then W_0, W_1, ... are drawn from it.

    Returns
    -------
    array [N] of int64
        Noisy labels.

    Raises
    ------
    InputError
        If a number or label is out of its range, or the inputs are not N rows of finite numbers.

    References
    ----------
    Xia et al., Part-dependent label noise: towards instance-dependent label noise, NeurIPS 2020,
    the generation algorithm in the appendix. How inputs are scaled it leaves open.

    Examples
    --------
    Two kinds of samples of class 0 are mistaken for different classes:

    >>> inputs = np.eye(2).repeat(500, axis=0).repeat(8, axis=1)
    >>> labels, rng = np.zeros(1000, int), np.random.default_rng(0)
    >>> noisy = corrupt_by_instance(labels, inputs, 0.4, n_classes=3, rng=rng)
    >>> [np.bincount(kind).tolist() for kind in np.split(noisy, 2)]
    [[296, 2, 202], [329, 170, 1]]
    """
    rate, n_classes = _check_noise_rate(noise_rate), _check_n_classes(n_classes)
    true, samples = check_classes("labels", labels, n_classes), np.asarray(inputs)
    if samples.dtype.kind not in "biuf" or samples.shape[:1] != true.shape or not samples.size:
        received = f"shape {samples.shape} of {samples.dtype} for {len(true)} labels"
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
        # Drawn for absent classes too: the W of a class must not depend on which others are there.
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
    """Return running sums of rows, of which a uniform number picks the first one above it."""
    cumulative = probabilities.cumsum(axis=1)
    # Exactly 1 from the last possible class on, so that no impossible class is ever drawn.
    cumulative /= cumulative[:, -1:]
    return cumulative


def _by_class(labels: IntArray, n_classes: int) -> list[IntArray]:
    """Return, for each class, which samples are of it."""
    ends = np.cumsum(np.bincount(labels, minlength=n_classes))
    return np.split(np.argsort(labels, kind="stable"), ends[:-1])


def _mean_and_deviation(samples: NDArray[Any]) -> tuple[float, float]:
    """Return those of all numbers in [N, D], measured in float64; constants have deviation 1."""
    pieces = [samples[piece] for piece in _pieces(*samples.shape)]
    with np.errstate(over="ignore", invalid="ignore"):  # refused just below
        mean = sum(float(piece.sum(dtype=np.float64)) for piece in pieces) / samples.size
        squares = sum(float(np.square(piece.astype(np.float64) - mean).sum()) for piece in pieces)
    if not np.isfinite(squares):
        raise invalid("inputs", "be finite", "NaN or infinite values", "drop these rows or impute")
    return mean, float(np.sqrt(squares / samples.size)) or 1.0


def _pieces(n_rows: int, width: int) -> list[slice]:
    """Cut rows of `width` numbers into pieces of about a million numbers."""
    size = max(1, 2**20 // width)
    return [slice(start, start + size) for start in range(0, n_rows, size)]


def noise_rate(noisy: ArrayLike, true: ArrayLike) -> float:
    """Share of labels that differ, in [0, 1].

    Raises
    ------
    InputError
        If the two are not of one length, or empty.

    Examples
    --------
    >>> noise_rate([0, 1, 2, 2], [0, 1, 2, 0])
    0.25
    """
    noisy_labels, true_labels = check_pairs(noisy, true)
    return float(np.mean(noisy_labels != true_labels))


@dataclass(frozen=True)
class Noise:
    """Noise to inject, as typed: `none`, `pairflip:0.45`, `instance:0.3`, `matrix:FILE`.

    Attributes
    ----------
    kind : str
        `none`, `matrix`, `instance`, or a key of `NOISES`.
    noise_rate : float or None
        In [0, 1), for `instance` and the kinds of `NOISES`: the probability that a label is
        flipped, where it can be. It is the share of wrong labels for `symmetric`, `pairflip` and
        `asymmetric-cifar100`. With `asymmetric-mnist` and `asymmetric-cifar10` only 5 of 10
        classes are flipped, so about half as many labels are wrong. For `instance` see
        `corrupt_by_instance`.
    path : str or None
        Of a .csv, .npy or .json file with the transition matrix, for `matrix`; it is read when
        the matrix is asked for.

    Raises
    ------
    InputError
        If the kind is not known or what belongs to it is missing or out of range.

    Examples
    --------
    >>> Noise.parse("pairflip:0.45")
    Noise(kind='pairflip', noise_rate=0.45, path=None)
    >>> str(Noise("symmetric", 0.5))
    'symmetric:0.5'
    """

    kind: str = "none"
    noise_rate: float | None = None
    path: str | None = None

    def __post_init__(self) -> None:
        rated = _rated_noises()
        if self.kind not in (*rated, "none", "matrix"):
            known = ", ".join(["none", *(f"{kind}:RATE" for kind in rated), "matrix:FILE"])
            raise invalid("noise", f"be one of {known}", self.kind, "choose one of these")
        if (self.noise_rate is not None) != (self.kind in rated):
            remedy = "write kind:rate, as in pairflip:0.45"
            needed = "have a noise rate" if self.kind in rated else "have no noise rate"
            raise invalid("noise", needed, self.kind, remedy)
        if bool(self.path) != (self.kind == "matrix"):
            needed = "name a file" if self.kind == "matrix" else "have no file"
            raise invalid("noise", needed, self.kind, "write matrix:FILE")
        if self.noise_rate is not None:
            object.__setattr__(self, "noise_rate", _check_noise_rate(self.noise_rate))

    @classmethod
    def parse(cls, text: str) -> Noise:
        """Read what `str` writes.

        Raises
        ------
        InputError
            If the text is not `none`, `KIND:RATE` or `matrix:FILE`.
        """
        kind, colon, rest = text.strip().partition(":")
        if kind == "matrix":
            return cls(kind, path=rest)
        if kind not in _rated_noises() or not colon:
            return cls(text.strip())  # "none", or the constructor says what is wrong
        try:
            rate = float(rest)
        except ValueError:
            raise invalid(
                "noise", f"be {kind}:RATE with a number", text, f"write {kind}:0.45, say"
            ) from None
        return cls(kind, rate)

    def __str__(self) -> str:
        if self.noise_rate is not None:
            return f"{self.kind}:{self.noise_rate!r}"
        return f"matrix:{self.path}" if self.path else self.kind

    def expected_rate(self, n_classes: int) -> float | None:
        """Return the share of wrong labels to expect with balanced classes, if a rate is given.

        >>> Noise.parse("asymmetric-mnist:0.4").expected_rate(10)  # 5 of 10 classes are flipped
        0.2
        """
        if self.kind not in NOISES or self.noise_rate is None:
            return self.noise_rate
        flipped = np.diag(self.transition_matrix(n_classes)) < 1.0
        return float(self.noise_rate * flipped.mean())

    def transition_matrix(self, n_classes: int) -> FloatArray:
        """Return T [C, C] for `n_classes` classes.

        Raises
        ------
        InputError
            If the file cannot be read, its matrix or the kind does not fit, or there is no such
            matrix because the noise depends on the inputs.
        """
        if self.kind == "instance":
            raise invalid(
                "noise",
                "depend on classes only to have a transition matrix",
                str(self),
                "measure one on the corrupted labels with empirical_transition_matrix",
            )
        if self.noise_rate is not None:
            return NOISES[self.kind](n_classes, self.noise_rate)
        if self.path is not None:
            try:
                return check_transition_matrix(_read_table(Path(self.path)), n_classes=n_classes)
            except InputError as error:
                raise InputError(f"{self.path}: {error}") from error
        return np.eye(_check_n_classes(n_classes))

    def corrupt_labels(
        self, labels: ArrayLike, inputs: ArrayLike, *, n_classes: int, rng: np.random.Generator
    ) -> IntArray:
        """Draw noisy labels of this kind.

        Parameters
        ----------
        labels : array [N] of int
            True labels in 0..C-1.
        inputs : array [N, ...]
            Looked at only if the kind is `instance`.
        n_classes : int
            C, at least 2.
        rng : numpy.random.Generator
            What is drawn from it is said in `corrupt_by_instance` and, for all other kinds,
            `corrupt`.

        Returns
        -------
        array [N] of int64
            Noisy labels; `labels` is left as it was.

        Raises
        ------
        InputError
            If a label is outside 0..C-1, or the classes or inputs do not fit the kind.

        Examples
        --------
        >>> rng = np.random.default_rng(0)
        >>> Noise("pairflip", 0.4).corrupt_labels([0, 1, 2, 0, 1], [], n_classes=3, rng=rng)
        array([1, 1, 0, 0, 2])
        """
        if self.kind == "instance" and self.noise_rate is not None:
            return corrupt_by_instance(
                labels, inputs, self.noise_rate, n_classes=n_classes, rng=rng
            )
        return corrupt(labels, self.transition_matrix(n_classes), rng=rng)


def _rated_noises() -> tuple[str, ...]:
    return (*NOISES, "instance")


def _check_noise_rate(rate: float) -> float:
    try:
        fits = 0.0 <= float(rate) < 1.0
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise invalid("noise_rate", "lie in [0, 1)", rate, "give the share of wrong labels")
    return float(rate)


def _check_n_classes(n_classes: int) -> int:
    if n_classes < 2:
        raise invalid("n_classes", "be at least 2", n_classes, "noise needs a class to flip to")
    return int(n_classes)


def _read_table(path: Path) -> ArrayLike:
    readers: dict[str, Callable[[], ArrayLike]] = {
        ".csv": lambda: np.loadtxt(path, delimiter=",", ndmin=2),
        ".npy": lambda: np.load(path, allow_pickle=False),
        ".json": lambda: json.loads(path.read_text(encoding="utf-8")),
    }
    if path.suffix.lower() not in readers:
        raise invalid(
            "transition_matrix", f"be a file {', '.join(readers)}", path.name, "save it as one"
        )
    try:
        return readers[path.suffix.lower()]()
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"could not be read ({reason}); check the path.") from error
    except (ValueError, EOFError) as error:
        raise InputError(f"holds no table of numbers ({error}); write one row a line.") from error
