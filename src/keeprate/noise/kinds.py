"""Transition matrices of the kinds of noise that depend on the class alone (NumPy only)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray

from keeprate.errors import Words, invalid

FloatArray = NDArray[np.float64]


def symmetric(n_classes: int, noise_rate: float) -> FloatArray:
    """With probability `noise_rate` a label becomes another class; all others are equally likely.

    Parameters
    ----------
    n_classes : int
        C, at least 2.
    noise_rate : float
        Share of wrong labels, in [0, 1).

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
    rate = check_noise_rate(noise_rate)
    n_classes = check_n_classes(n_classes)
    matrix = np.full((n_classes, n_classes), rate / (n_classes - 1))
    np.fill_diagonal(matrix, 1.0 - rate)
    return matrix


def pairflip(n_classes: int, noise_rate: float) -> FloatArray:
    """With probability `noise_rate` class c becomes class c + 1 (modulo C).

    Parameters, result and errors are those of `symmetric`.

    Examples
    --------
    >>> pairflip(3, 0.25)
    array([[0.75, 0.25, 0.  ],
           [0.  , 0.75, 0.25],
           [0.25, 0.  , 0.75]])
    """
    rate = check_noise_rate(noise_rate)
    identity = np.eye(check_n_classes(n_classes))
    return (1.0 - rate) * identity + rate * np.roll(identity, 1, axis=1)


def asymmetric(n_classes: int, noise_rate: float, class_map: Mapping[int, int]) -> FloatArray:
    """With probability `noise_rate` a class of `class_map` becomes the class it maps to.

    Parameters
    ----------
    n_classes : int
        C, at least 2.
    noise_rate : float
        Probability, in [0, 1), that a label of a mapped class is flipped. The share of wrong
        labels among all is `noise_rate` times the share of samples in the mapped classes.
    class_map : mapping of int to int
        Class -> the class that it is mistaken for. Other classes stay clean.

    Returns
    -------
    array [C, C]
        The transition matrix.

    Raises
    ------
    InputError
        If a number is out of its range, or a class maps to itself or outside 0..C-1.

    Examples
    --------
    >>> asymmetric(3, 0.4, {2: 0})
    array([[1. , 0. , 0. ],
           [0. , 1. , 0. ],
           [0.4, 0. , 0.6]])
    """
    rate = check_noise_rate(noise_rate)
    matrix = np.eye(check_n_classes(n_classes))
    for true, mistaken in class_map.items():
        if not (0 <= true < n_classes and 0 <= mistaken < n_classes) or true == mistaken:
            requirement = f"map classes in 0..{n_classes - 1} to other such classes"
            received = Words(f"{true} -> {mistaken}")
            raise invalid("class_map", requirement, received, "leave it out")
        matrix[true, true], matrix[true, mistaken] = 1.0 - rate, rate
    return matrix


# The superclass of each class of CIFAR-100, in alphabetical order of the classes. The letters a..t
# stand for the superclasses 0..19.
_CIFAR100_SUPERCLASSES = (
    "eboiaghhsddojshldjhlglfkhgnpdpalbkmoqjlfftiipnorsk"
    "qerecaresrkdcmmqmbjtckabqmjnpnqtcegtffitsbcpgarion"
)


def _next_of_superclass(superclasses: str) -> dict[int, int]:
    """Map each class to the next class of its superclass, and the last class to the first."""
    following: dict[int, int] = {}
    for superclass in set(superclasses):
        members = [i for i, letter in enumerate(superclasses) if letter == superclass]
        following |= zip(members, members[1:] + members[:1], strict=True)
    return following


#: The usual class maps: name -> (C, map), with the class numbers of the data sets (Patrini et al.
#: 2017, Sec. 5). A class of CIFAR-100 becomes the next class of its superclass, circularly.
CLASS_MAPS: dict[str, tuple[int, dict[int, int]]] = {
    "mnist": (10, {2: 7, 3: 8, 7: 1, 5: 6, 6: 5}),
    # truck -> automobile, bird -> airplane, deer -> horse, cat <-> dog
    "cifar10": (10, {9: 1, 2: 0, 4: 7, 3: 5, 5: 3}),
    # As in their text. Their code takes five neighbours in the alphabet for a superclass.
    "cifar100": (100, _next_of_superclass(_CIFAR100_SUPERCLASSES)),
}


def _asymmetric_like(data_set: str, n_classes: int, noise_rate: float) -> FloatArray:
    needed, class_map = CLASS_MAPS[data_set]
    if n_classes != needed:
        remedy = "use asymmetric with a class_map of your own, or matrix:FILE"
        raise invalid("n_classes", f"be {needed} for asymmetric-{data_set}", n_classes, remedy)
    return asymmetric(n_classes, noise_rate, class_map)


#: The kinds of noise with a matrix that a noise rate determines: (n_classes, noise_rate) -> T.
NOISES: dict[str, Callable[[int, float], FloatArray]] = {
    "symmetric": symmetric,
    "pairflip": pairflip,
    **{f"asymmetric-{name}": partial(_asymmetric_like, name) for name in CLASS_MAPS},
}


def check_noise_rate(rate: float) -> float:
    """Return the rate as a float if it lies in [0, 1)."""
    remedy = "give the share of wrong labels"
    try:
        number = float(rate)
    except (TypeError, ValueError):
        raise invalid("noise_rate", "lie in [0, 1)", rate, remedy) from None
    if not 0.0 <= number < 1.0:
        raise invalid("noise_rate", "lie in [0, 1)", number, remedy)
    return number


def check_n_classes(n_classes: int) -> int:
    """Return C as an int if it is at least 2."""
    if n_classes < 2:
        raise invalid(
            "n_classes", "be at least 2", int(n_classes), "noise needs a class to flip to"
        )
    return int(n_classes)
