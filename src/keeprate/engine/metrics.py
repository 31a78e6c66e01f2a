"""What a search optimises, where that is not the accuracy on the validation samples.

A `Scorer` judges predictions for the validation samples, a `Metric` networks on other data.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import torch
from torch import Tensor, nn

from keeprate.data import Data, Normaliser
from keeprate.engine.curves import LARGEST_SCORE
from keeprate.engine.evaluation import Scores
from keeprate.engine.networks import Networks
from keeprate.errors import Words, invalid

if TYPE_CHECKING:  # scikit-learn's metrics take long to import
    from keeprate.engine.scorers import Scorer, ScorerLike

METRIC_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _.%@-]{0,39}")
"""A metric's name is drawn and said wherever a record is read, also one of other hands."""

Autocast = Callable[[], AbstractContextManager[Any]]


class Metric(Protocol):
    """Scores networks on held-out data of its own; no validation label is then looked at.

    The host waits for the score at the end of each epoch.

    Attributes
    ----------
    name : str
        What the score is, for records and pages: "pair accuracy". Letters, digits and blanks, 40
        at most. A score whose name ends in "accuracy" is shown in percent.
    worst : float
        What a network scores whose score is NaN: 0 for an accuracy.
    """

    @property
    def name(self) -> str: ...

    @property
    def worst(self) -> float: ...

    def fingerprint(self) -> str:
        """A hash of the held-out data: a run goes on only with the same."""

    def check(self, module: nn.Module, input_shape: tuple[int, ...]) -> None:
        """Raise InputError if networks like this one, for such inputs, cannot be scored.

        Called before the first step of a training.
        """

    def __call__(
        self, networks: Networks, normaliser: Normaliser, autocast: Autocast = nullcontext
    ) -> Tensor:
        """Score every network, `[K, R]`; higher is better, and NaN counts as the worst.

        Parameters
        ----------
        networks : Networks
            In evaluation, `networks(inputs)` gives logits and `networks.embeddings(inputs)` what
            the last layer gets.
        normaliser : Normaliser
            Scales inputs for the networks.
        autocast : callable
            Makes the mixed-precision context of a forward pass.
        """


MetricLike: TypeAlias = "str | ScorerLike | Metric | None"
"""What users give: accuracy or None, a scorer of scikit-learn or its name, or a metric."""


def is_accuracy(metric: MetricLike) -> bool:
    """Whether nothing but the validation accuracy is asked for."""
    return metric is None or (isinstance(metric, str) and metric == "accuracy")


def read_metric(
    metric: MetricLike, data: Data, positive: object = None
) -> tuple[Metric | None, Scorer | None]:
    """What the user wants networks to be scored by: a metric, a scorer, or neither for accuracy.

    Parameters
    ----------
    metric : str, callable or Metric, optional
        "accuracy", a name of `sklearn.metrics.get_scorer_names()`, a scorer object (estimator, X,
        y) -> number, or a `Metric` with held-out data of its own.
    data : Data
    positive : class name, optional
        See `Scorer.of`.

    Raises
    ------
    InputError
        If the metric cannot be used, or does not fit the data.
    """
    if not is_accuracy(metric) and not hasattr(metric, "fingerprint"):
        from keeprate.engine.scorers import Scorer

        return None, Scorer.of(metric, data, positive)  # type: ignore[arg-type]
    if positive is not None:
        requirement = "come with a metric that looks for one class"
        raise invalid("positive", requirement, positive, "give metric='average_precision', say")
    if is_accuracy(metric):
        return None, None
    own: Metric = metric  # type: ignore[assignment]
    if not METRIC_NAME.fullmatch(own.name):
        requirement = "be letters, digits and blanks, 40 at most"
        raise invalid("the metric's name", requirement, own.name, "choose another")
    return own, None


def scored(
    metric: Metric, networks: Networks, normaliser: Normaliser, autocast: Autocast = nullcontext
) -> Scores:
    """Scores by a metric: its score is the accuracy, too.

    Raises
    ------
    InputError
        If the metric gives something else than a number for each network.
    """
    with torch.no_grad():
        score = metric(networks, normaliser, autocast)
    expected = (networks.n_candidates, networks.n_peers)
    if not isinstance(score, Tensor) or tuple(score.shape) != expected:
        shape = tuple(score.shape) if isinstance(score, Tensor) else type(score).__name__
        requirement = f"give a score for each network, {list(expected)}"
        raise invalid(f"the metric {metric.name}", requirement, Words(str(shape)), "see Metric")
    score, worst = score.float(), getattr(metric, "worst", 0.0)  # earlier metrics do not say
    score = torch.where(score.isnan(), torch.full_like(score, worst), score)
    is_bad = score.abs() > LARGEST_SCORE
    if bool(is_bad.any()):
        requirement, received = "lie within a million either way", score[is_bad][0].item()
        remedy = "scale it, and let higher be better"
        raise invalid(f"the metric {metric.name}", requirement, received, remedy)
    return Scores(score, score)
