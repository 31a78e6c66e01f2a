"""The methods: loss + selection rule + number of networks, one table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from keeprate import selection
from keeprate.errors import invalid

SelectionRule = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
PerSampleLoss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Method:
    """One way to learn from noisy labels.

    Attributes
    ----------
    name : str
        As typed on the command line.
    label : str
        As printed.
    source : str
        Where it was published.
    n_networks : int
        Peer networks R that are trained together.
    select : callable
        (losses [K, R, B], logits [K, R, B, C], labels [B], keep_rate [K]) -> weights [K, R, B].
    uses_schedule : bool
        Whether the keep rate matters; if not, there is nothing to search.
    loss : callable
        (logits [K, R, B, C], labels [B]) -> losses [K, R, B].
    """

    name: str
    label: str
    source: str
    n_networks: int
    select: SelectionRule
    uses_schedule: bool = True
    loss: PerSampleLoss = selection.per_sample_cross_entropy


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            name="standard",
            label="Standard",
            source="plain cross-entropy on the labels as given",
            n_networks=1,
            select=selection.every_sample,
            uses_schedule=False,
        ),
        Method(
            name="mentornet",
            label="MentorNet",
            source="Jiang et al. 2018, self-paced form: one network, its own small losses",
            n_networks=1,
            select=selection.own_small_loss,
        ),
        Method(
            name="co-teaching",
            label="Co-teaching",
            source="Han et al. 2018b, Alg. 1",
            n_networks=2,
            select=selection.co_teaching,
        ),
    )
}


def get_method(name: str) -> Method:
    """Look a method up by name.

    >>> get_method("co-teaching").n_networks
    2
    """
    if name not in METHODS:
        raise invalid("method", f"be one of {', '.join(METHODS)}", name, "choose one of these")
    return METHODS[name]
