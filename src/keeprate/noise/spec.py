"""Noise as users write it, such as `pairflip:0.45` (NumPy only).

A transition matrix T [C, C] holds T[i, j] = P(noisy label = j | true label = i) (Sec. 4.2).
Instance-dependent noise has no transition matrix: its flips depend on the inputs too.
"""

from __future__ import annotations

import json
import tokenize
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from keeprate.errors import InputError, invalid
from keeprate.noise.corruption import IntArray, corrupt, corrupt_by_instance
from keeprate.noise.kinds import NOISES, FloatArray, check_n_classes, check_noise_rate
from keeprate.noise.transition import check_transition_matrix
from keeprate.text import cut

# Beside errors of values, NumPy's parser of .npy headers lets these through, and JSON has numbers
# of any size and lists of any depth.
_NO_TABLE = (
    *(ValueError, EOFError, TypeError, OverflowError, SyntaxError, RecursionError),
    *(tokenize.TokenError, MemoryError),
)


@dataclass(frozen=True)
class Noise:
    """Noise to inject, written as `none`, `pairflip:0.45`, `instance:0.3`, `matrix:FILE`.

    Attributes
    ----------
    kind : str
        `none`, `matrix`, `instance`, or a key of `NOISES`.
    noise_rate : float or None
        In [0, 1), for `instance` and the kinds of `NOISES`: the probability that a label of a
        noisy class is flipped. For `symmetric`, `pairflip` and `asymmetric-cifar100` this is the
        share of wrong labels. With `asymmetric-mnist` and `asymmetric-cifar10` only 5 of 10
        classes are noisy, and about half as many labels are wrong. For `instance` see
        `corrupt_by_instance`.
    path : str or None
        A .csv, .npy or .json file with the transition matrix, for `matrix`. The file is read when
        the matrix is needed.

    Raises
    ------
    InputError
        If the kind is unknown, or its rate or file is missing or out of range.

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
            raise invalid("noise", f"be one of {known}", cut(self.kind, 80), "choose one of these")
        if (self.noise_rate is not None) != (self.kind in rated):
            remedy = "write kind:rate, as in pairflip:0.45"
            needed = "have a noise rate" if self.kind in rated else "have no noise rate"
            raise invalid("noise", needed, self.kind, remedy)
        if bool(self.path) != (self.kind == "matrix"):
            needed = "name a file" if self.kind == "matrix" else "have no file"
            raise invalid("noise", needed, self.kind, "write matrix:FILE")
        if self.noise_rate is not None:
            object.__setattr__(self, "noise_rate", check_noise_rate(self.noise_rate))

    @classmethod
    def parse(cls, text: str) -> Noise:
        """Read what `str` writes.

        Raises
        ------
        InputError
            If the text is not `none`, `KIND:RATE` or `matrix:FILE`.
        """
        kind, colon, value = text.strip().partition(":")
        if kind == "matrix":
            return cls(kind, path=value)
        if kind not in _rated_noises() or not colon:
            return cls(text.strip())  # "none", or the constructor explains the error
        try:
            rate = float(value)
        except ValueError:
            requirement = f"be {kind}:RATE with a number"
            raise invalid("noise", requirement, cut(text, 80), f"write {kind}:0.45, say") from None
        return cls(kind, rate)

    def __str__(self) -> str:
        if self.noise_rate is not None:
            return f"{self.kind}:{self.noise_rate!r}"
        return f"matrix:{self.path}" if self.path else self.kind

    def expected_rate(self, n_classes: int) -> float | None:
        """Return the expected share of wrong labels among balanced classes; None without a rate.

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
            If the file cannot be read, if its matrix or the kind does not fit, or if the noise
            depends on the inputs and has no matrix.
        """
        if self.kind == "instance":
            requirement = "depend on classes only to have a transition matrix"
            remedy = "measure one on the corrupted labels with empirical_transition_matrix"
            raise invalid("noise", requirement, str(self), remedy)
        if self.noise_rate is not None:
            return NOISES[self.kind](n_classes, self.noise_rate)
        if self.path is not None:
            try:
                return check_transition_matrix(_read_table(Path(self.path)), n_classes=n_classes)
            except InputError as error:
                raise InputError(f"{self.path}: {cut(str(error), 400)}") from error
        return np.eye(check_n_classes(n_classes))

    def corrupt_labels(
        self, labels: ArrayLike, inputs: ArrayLike, *, n_classes: int, rng: np.random.Generator
    ) -> IntArray:
        """Draw noisy labels of this kind.

        Parameters
        ----------
        labels : array [N] of int
            True labels in 0..C-1.
        inputs : array [N, ...]
            Used only if the kind is `instance`.
        n_classes : int
            C, at least 2.
        rng : numpy.random.Generator
            It draws what `corrupt_by_instance` describes, or `corrupt` for all other kinds.

        Returns
        -------
        array [N] of int64
            Noisy labels; `labels` does not change.

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


def _read_table(path: Path) -> ArrayLike:
    readers: dict[str, Callable[[], ArrayLike]] = {
        ".csv": lambda: np.loadtxt(path, delimiter=",", ndmin=2),
        ".npy": lambda: np.load(path, allow_pickle=False),
        ".json": lambda: np.array(json.loads(path.read_text(encoding="utf-8")), np.float64),
    }
    if path.suffix.lower() not in readers:
        requirement = f"be a file {', '.join(readers)}"
        raise invalid("transition_matrix", requirement, path.name, "save it as one")
    try:
        return readers[path.suffix.lower()]()
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"could not be read ({reason}); check the path.") from error
    except _NO_TABLE as error:
        reason = cut(str(error), 200)
        raise InputError(f"holds no table of numbers ({reason}); write one row a line.") from error
