"""What a search optimises, where that is not the accuracy on the validation samples."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from keeprate.data import Normaliser
from keeprate.engine.evaluation import Scores
from keeprate.engine.networks import Networks
from keeprate.errors import Words, invalid

METRIC_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _.%@-]{0,39}")
"""A metric's name is drawn and said wherever a record is read, also one of other hands."""

Autocast = Callable[[], AbstractContextManager[Any]]


class Metric(Protocol):
    """Scores networks on held-out data; the validation samples are then not looked at.

    The host waits for the score at the end of each epoch.

    Attributes
    ----------
    name : str
        What the score is, for records and pages: "pair accuracy". Letters, digits and blanks, 40
        at most.
    """

    @property
    def name(self) -> str: ...

    def fingerprint(self) -> str:
        """A hash of the held-out data: a run goes on only with the same."""

    def check(self, module: nn.Module, input_shape: tuple[int, ...]) -> None:
        """Raise InputError if networks like this one, for such inputs, cannot be scored.

        Called before the first step of a training.
        """

    def __call__(
        self, networks: Networks, normaliser: Normaliser, autocast: Autocast = nullcontext
    ) -> Tensor:
        """Score every network, `[K, R]`, in [0, 1]; higher is better, and NaN counts as 0.

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


def scored(
    metric: Metric, networks: Networks, normaliser: Normaliser, autocast: Autocast = nullcontext
) -> Scores:
    """Scores by a metric: its score is the accuracy, too.

    Raises
    ------
    InputError
        If the metric gives something else than a number in [0, 1] for each network.
    """
    with torch.no_grad():
        score = metric(networks, normaliser, autocast)
    expected = (networks.n_candidates, networks.n_peers)
    if not isinstance(score, Tensor) or tuple(score.shape) != expected:
        shape = tuple(score.shape) if isinstance(score, Tensor) else type(score).__name__
        requirement = f"give a score for each network, {list(expected)}"
        raise invalid(f"the metric {metric.name}", requirement, Words(str(shape)), "see Metric")
    score = score.float().nan_to_num(nan=0.0)
    is_bad = (score < 0) | (score > 1)
    if bool(is_bad.any()):
        remedy = "scale it, and let higher be better"
        received = score[is_bad][0].item()
        raise invalid(f"the metric {metric.name}", "lie in [0, 1]", received, remedy)
    return Scores(score, score)
