"""Label noise: transition matrices, and labels corrupted by them (NumPy only).

A transition matrix T [C, C] holds T[i, j] = P(noisy label = j | true label = i) (Sec. 4.2).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from keeprate.errors import InputError, invalid

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


#: Every kind of noise that one number describes: (n_classes, noise_rate) -> transition matrix.
NOISES: dict[str, Callable[[int, float], FloatArray]] = {
    "symmetric": symmetric,
    "pairflip": pairflip,
}


def check_transition_matrix(matrix: ArrayLike, *, n_classes: int | None = None) -> FloatArray:
    """Return `matrix` as float64 [C, C] if it is a transition matrix.

    Parameters
    ----------
    matrix : array [C, C]
        Probabilities; each row sums to 1 (to 1e-6).
    n_classes : int, optional
        The C that the data set has.

    Raises
    ------
    InputError
        If it is not square, not of the size asked, has an entry outside [0, 1], or a row that
        does not sum to 1.

    Examples
    --------
    >>> check_transition_matrix([[1, 0], [0.2, 0.9]])
    Traceback (most recent call last):
    ...
    keeprate.errors.InputError: transition_matrix must have rows that sum to 1, got row 1 with
    sum 1.1; divide each row by its sum.
    """
    name, remedy = "transition_matrix", "give one row and one column per class"
    try:
        table = np.asarray(matrix, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise invalid(name, "be a square table of numbers", f"this: {error}", remedy) from error
    if table.ndim != 2 or table.shape[0] != table.shape[1] or table.shape[0] < 2:
        raise invalid(name, "be square, [C, C] with C >= 2", f"shape {table.shape}", remedy)
    if n_classes is not None and len(table) != n_classes:
        requirement = f"be [{n_classes}, {n_classes}] as the data has {n_classes} classes"
        raise invalid(name, requirement, f"shape {table.shape}", remedy)
    outside = ~((table >= 0.0) & (table <= 1.0))  # also true for NaN
    if outside.any():
        row, column = (int(i) for i in np.argwhere(outside)[0])
        received = f"{table[row, column]:g} in row {row}, column {column}"
        remedy = "give probabilities; counts have to be divided by the sum of their row"
        raise invalid(name, "hold numbers in [0, 1]", received, remedy)
    sums = table.sum(axis=1)
    wrong = np.flatnonzero(np.abs(sums - 1.0) > 1e-6)
    if len(wrong):
        received = f"row {wrong[0]} with sum {sums[wrong[0]]:.6g}"
        raise invalid(name, "have rows that sum to 1", received, "divide each row by its sum")
    return table


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
    true = _check_labels("labels", labels)
    n_classes = len(matrix)
    outside = np.flatnonzero((true < 0) | (true >= n_classes))
    if len(outside):
        received = f"{true[outside[0]]} in row {outside[0]}"
        raise invalid("labels", f"lie in 0..{n_classes - 1}", received, "number the classes from 0")
    cumulative = matrix.cumsum(axis=1)
    # Exactly 1 from the last possible class on, so that no impossible class is ever drawn.
    cumulative /= cumulative[:, -1:]
    uniform = rng.random(len(true))
    noisy = np.empty_like(true)
    # Class by class, not sample by sample; an [N, C] table would not fit for many classes.
    by_class = np.argsort(true, kind="stable")
    ends = np.cumsum(np.bincount(true, minlength=n_classes))
    for row, start, end in zip(cumulative, np.r_[0, ends[:-1]], ends, strict=True):
        of_class = by_class[start:end]
        noisy[of_class] = np.searchsorted(row, uniform[of_class], side="right")
    return noisy


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
    noisy_labels, true_labels = _check_labels("noisy", noisy), _check_labels("true", true)
    if len(noisy_labels) != len(true_labels) or not len(true_labels):
        received = f"{len(noisy_labels)} and {len(true_labels)} labels"
        raise invalid(
            "noisy and true", "be of one length, not empty", received, "give one label per sample"
        )
    return float(np.mean(noisy_labels != true_labels))


@dataclass(frozen=True)
class Noise:
    """Noise to inject, as typed: `none`, `pairflip:0.45`, `symmetric:0.5`, `matrix:FILE`.

    Attributes
    ----------
    kind : str
        `none`, `matrix`, or a key of `NOISES`.
    noise_rate : float or None
        In [0, 1), for the kinds of `NOISES`.
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
        known = _known_noises()
        if self.kind not in (*NOISES, "none", "matrix"):
            raise invalid("noise", f"be one of {known}", self.kind, "choose one of these")
        if (self.noise_rate is not None) != (self.kind in NOISES):
            remedy = "write kind:rate, as in pairflip:0.45"
            needed = "have a noise rate" if self.kind in NOISES else "have no noise rate"
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
        if kind not in NOISES or not colon:
            return cls(text.strip())  # "none", or the constructor says what is wrong
        try:
            rate = float(rest)
        except ValueError:
            raise invalid(
                "noise", f"be {kind}:RATE with a number", text, f"write {kind}:0.45, say"
            ) from None
        return cls(kind, rate)

    def __str__(self) -> str:
        if self.kind in NOISES:
            return f"{self.kind}:{self.noise_rate!r}"
        return f"matrix:{self.path}" if self.path else self.kind

    def transition_matrix(self, n_classes: int) -> FloatArray:
        """Return T [C, C] for `n_classes` classes.

        Raises
        ------
        InputError
            If the file cannot be read, or its matrix does not fit.
        """
        if self.noise_rate is not None:
            return NOISES[self.kind](n_classes, self.noise_rate)
        if self.path is not None:
            try:
                return check_transition_matrix(_read_table(Path(self.path)), n_classes=n_classes)
            except InputError as error:
                raise InputError(f"{self.path}: {error}") from error
        return np.eye(_check_n_classes(n_classes))


def _known_noises() -> str:
    return ", ".join(["none", *(f"{kind}:RATE" for kind in NOISES), "matrix:FILE"])


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


def _check_labels(name: str, labels: ArrayLike) -> IntArray:
    array = np.asarray(labels)
    if array.ndim != 1 or (array.dtype.kind not in "iu" and array.size):
        received = f"shape {array.shape} of {array.dtype}"
        raise invalid(name, "be integers, [N]", received, "number the classes from 0")
    return array.astype(np.int64)


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
