"""Scores of predictions for held-out samples, by scikit-learn's scorers."""

from __future__ import annotations

import hashlib
import inspect
import math
import re
import warnings
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from functools import partial
from numbers import Real
from types import CellType, FunctionType, MethodType, ModuleType
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import get_scorer, get_scorer_names
from torch import Tensor

from keeprate.data import Data
from keeprate.engine.curves import LARGEST_SCORE
from keeprate.errors import InputError, Words, first_line, invalid

Floats: TypeAlias = NDArray[np.float64]
ScorerLike: TypeAlias = Callable[..., Any]
"""What `sklearn.metrics.make_scorer` gives: (estimator, X, y) -> a number, higher is better."""

_ADDRESS = re.compile(r"( at)? 0x[0-9a-f]+")
_REGRESSION = "sklearn.metrics._regression"
_OTHERS = "choose another: balanced_accuracy, f1_macro or roc_auc_ovr, say"


class Scorer:
    """A metric of labels and of the class probabilities that networks predict for them.

    The scorer is called with the probabilities in place of samples, and with a stand-in for an
    estimator that returns them: no network predicts twice. Classes are numbered in the order of
    `class_names`. Of two classes the positive one is 1, so that scikit-learn's scorers find it.

    Parameters
    ----------
    scorer : str or callable
        One of `sklearn.metrics.get_scorer_names()`, or a scorer object.
    class_names : sequence of C str
    positive : str, optional
        Of two classes the one that "f1", "average_precision" and others look for.

    Attributes
    ----------
    name : str
        For people: "average precision".
    identity : str
        A run goes on only with the same: the name, or what a scorer object is, with a hash of its
        source and of what it holds.
    positive : str or None
        None with more than two classes.
    worst : float
        What networks score whose predictions are no numbers: as those that are always wrong.

    Raises
    ------
    InputError
        If there is no such scorer, or no such class.

    Examples
    --------
    >>> labels = torch.tensor([0, 0, 1, 1])
    >>> p = torch.tensor([0.1, 0.4, 0.35, 0.8])  # of the class "bad"
    >>> scorer = Scorer("roc_auc", ("ok", "bad"), "bad")
    >>> scorer(labels, torch.stack([1 - p, p], -1)[None, None]).tolist()
    [[0.75]]
    """

    def __init__(
        self, scorer: str | ScorerLike, class_names: Sequence[str], positive: str | None = None
    ) -> None:
        self._scorer: Any = _found(scorer)
        function = getattr(self._scorer, "_score_func", self._scorer)
        own_name = getattr(function, "__name__", type(function).__name__)
        self.name = _in_words(scorer if isinstance(scorer, str) else own_name)
        self.identity = scorer if isinstance(scorer, str) else _identity(scorer)
        self.positive, self._names = positive, tuple(class_names)
        self._is_turned = positive is not None and self._names.index(positive) == 0
        self._estimator = _Predicted(len(self._names))
        self.worst = -LARGEST_SCORE
        if getattr(function, "__module__", "") == _REGRESSION:
            requirement = "score classes, not amounts"
            raise invalid("metric", requirement, self.identity, _OTHERS)

    @classmethod
    def of(cls, scorer: str | ScorerLike, data: Data, positive: object = None) -> Scorer:
        """The scorer for a data set, tried on its held-out labels.

        Parameters
        ----------
        scorer : str or callable
        data : Data
        positive : class name, optional
            Left out, of two classes the one that fewer training labels name.

        Raises
        ------
        InputError
            If the validation labels are as noisy as the others, or the scorer does not fit the
            validation or the test labels.
        """
        names = data.class_names
        if positive is not None and len(names) != 2:
            requirement = f"be left out where there are {len(names)} classes"
            raise invalid("positive", requirement, positive, "it is for two classes")
        if positive is None and len(names) == 2:
            positive = names[int(np.argmin(data.class_counts[::-1]) == 0)]
        if positive is not None and str(positive) not in names:
            remedy = "write the class as the data do"
            raise invalid("positive", f"be {names[0]} or {names[1]}", positive, remedy)
        found = cls(scorer, names, None if positive is None else str(positive))
        if data.criterion == "determinant":
            raise invalid(
                "metric",
                "be accuracy where the validation labels are as noisy as the others (wrong labels "
                "move other scores, and the search then goes by the determinant of predictions "
                "and labels)",
                found.identity,
                "give validation samples with right labels, or leave the metric out",
            )
        found._try(data)
        return found

    def __call__(self, labels: Tensor, probabilities: Tensor) -> Tensor:
        """The score of each network, higher is better.

        Parameters
        ----------
        labels : int64 Tensor [N]
        probabilities : Tensor [K, R, N, C]

        Returns
        -------
        float64 Tensor [K, R]
            On the device of the labels, and of at most a million either way. Predictions that are
            no numbers, or whose score is none (0 / 0), have the worst score.

        Raises
        ------
        InputError
            If the scorer fails.
        """
        own_labels, own = labels.cpu().numpy(), probabilities.double().cpu().numpy()
        scores = [[self._score(own_labels, one) for one in peers] for peers in own]
        return torch.tensor(scores, dtype=torch.float64, device=labels.device)

    def of_shares(self, labels: Tensor, shares: Sequence[float]) -> float:
        """The score of whoever predicts the same class probabilities [C] for every sample."""
        return self._score(labels.cpu().numpy(), np.tile(np.array(shares), (len(labels), 1)))

    def _score(self, labels: NDArray[np.int64], probabilities: Floats) -> float:
        if not np.isfinite(probabilities).all():
            return self.worst
        try:
            score = self._raw(labels, probabilities)
        except InputError:
            raise
        except ZeroDivisionError:  # 0 / 0 of plain Python: what NumPy calls NaN
            return self.worst
        except Exception as error:  # of scikit-learn's, or of a user's code
            received = Words(f"an error: {first_line(error)}")
            raise invalid(f"metric {self.name}", "score predictions", received, _OTHERS) from error
        return self.worst if math.isnan(score) else min(max(score, -LARGEST_SCORE), LARGEST_SCORE)

    def _raw(self, labels: NDArray[np.int64], probabilities: Floats) -> float:
        """What scikit-learn says."""
        if self._is_turned:
            labels, probabilities = 1 - labels, probabilities[:, ::-1]
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")  # of classes that nobody predicts in early epochs
            score = self._scorer(self._estimator, probabilities, labels)
        if not isinstance(score, Real):
            raise invalid(f"metric {self.name}", "give one number", score, "use another scorer")
        return float(score)

    def _try(self, data: Data) -> None:
        """Score made-up predictions, so that what does not fit is known before the training."""
        rng = np.random.default_rng(0)
        n_classes = len(self._names)
        for which, split in (("validation", data.validation), ("test", data.test)):
            if split is None:
                continue
            labels = split.labels.cpu().numpy()
            drawn = rng.dirichlet(np.ones(n_classes), len(labels))
            always_wrong = np.eye(n_classes)[(labels + 1) % n_classes]
            without_ties = 0.999 * always_wrong + 0.001 * drawn
            try:
                scores = [self._raw(labels, p) for p in (drawn, always_wrong, without_ties)]
            except InputError:
                raise
            except Exception as error:
                said = f"{self.identity} ({first_line(error)})"
                raise invalid("metric", f"fit the {which} labels", Words(said), _OTHERS) from error
            if not math.isfinite(scores[0]):
                said = f"{self.identity}, no number where {len(np.unique(labels))} classes occur"
                remedy = f"give {which} samples of every class, or choose another metric"
                raise invalid("metric", f"fit the {which} labels", Words(said), remedy)
            if which == "validation":
                self.worst = max(min(filter(math.isfinite, scores)), -LARGEST_SCORE)


class _Predicted(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier that takes class probabilities for samples, and predicts them."""

    def __init__(self, n_classes: int) -> None:
        self.n_classes = n_classes
        self.classes_ = np.arange(n_classes)

    def predict_proba(self, X: Floats) -> Floats:
        return X

    def predict(self, X: Floats) -> NDArray[np.int64]:
        predicted: NDArray[np.int64] = self.classes_[X.argmax(1)]
        return predicted


def check_scorer_name(name: str) -> None:
    """Refuse a name that is none of scikit-learn's scorers.

    Raises
    ------
    InputError
        If there is no such scorer.
    """
    names = get_scorer_names()
    if name not in names:
        close = get_close_matches(name, names, n=3, cutoff=0.5)
        remedy = f"try {' or '.join(close)}" if close else "see sklearn.metrics.get_scorer_names()"
        raise invalid("metric", "be accuracy, or a scorer of scikit-learn", name, remedy)


def _found(scorer: str | ScorerLike) -> ScorerLike:
    if isinstance(scorer, str):
        check_scorer_name(scorer)
        found: ScorerLike = get_scorer(scorer)
        return found
    if not callable(scorer):
        requirement = "be accuracy, a scorer of scikit-learn, or its name"
        raise invalid("metric", requirement, scorer, "try average_precision")
    return scorer


def _in_words(name: str) -> str:
    """A name as records hold it: "average precision"."""
    plain = re.sub(r"[^A-Za-z0-9.%@-]+", " ", name).strip(" .%@-")[:40].strip()
    # Records know these words for scores without a scorer.
    return f"{plain} score" if plain in ("accuracy", "determinant") else plain or "metric"


def _identity(scorer: object) -> str:
    """What a scorer object is, and a hash of its code and of what it holds."""
    said = _ADDRESS.sub("", repr(scorer))
    return f"{said} {hashlib.sha256(_content(scorer).encode()).hexdigest()[:8]}"


def _content(thing: object, depth: int = 6) -> str:
    """Code and values without addresses: the same in another process.

    Two metrics may differ in nothing but a number that an object or a function holds.
    """
    if isinstance(thing, Tensor):
        thing = thing.detach().cpu().numpy()
    if isinstance(thing, np.ndarray) and thing.dtype != object:
        return f"{thing.dtype} {thing.shape} {hashlib.sha256(thing.tobytes()).hexdigest()}"
    parts: list[object] = []
    if isinstance(thing, dict):
        parts = list(thing.items())
    elif isinstance(thing, list | tuple | set | frozenset):
        parts = list(thing)
    elif isinstance(thing, partial):
        parts = [thing.func, thing.args, thing.keywords]
    elif isinstance(thing, MethodType):
        parts = [thing.__func__, thing.__self__]
    elif isinstance(thing, FunctionType):
        parts = [_source(thing), thing.__defaults__, thing.__kwdefaults__]
        parts += [_held(cell) for cell in thing.__closure__ or ()]
    elif hasattr(thing, "__dict__") and not isinstance(thing, type | ModuleType):
        parts = [_source(type(thing)), vars(thing)]
    if not parts:
        return _ADDRESS.sub("", repr(thing))
    if not depth:  # what holds itself would have no end
        return type(thing).__qualname__
    told = [_content(part, depth - 1) for part in parts]
    if isinstance(thing, dict | set | frozenset):
        told.sort()  # the order of a set is another in another process
    return f"{type(thing).__qualname__}({', '.join(told)})"


def _source(thing: Any) -> str:
    try:
        return inspect.getsource(thing)
    except (OSError, TypeError):  # typed into a shell, or built in
        return str(thing.__qualname__)


def _held(cell: CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # empty
        return None
