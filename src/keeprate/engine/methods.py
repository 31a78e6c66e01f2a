"""The methods: loss + selection rule + number of networks, one table."""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from itertools import groupby

import torch
from torch import Tensor

from keeprate.engine import selection
from keeprate.engine.models import import_attribute
from keeprate.errors import invalid

RESERVED = ("searched", "custom")  # the names of a run's own results
SelectionRule = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
PerSampleLoss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Method:
    """One way to learn from noisy labels.

    Attributes
    ----------
    name : str
        As typed on the command line: letters, digits, hyphens and underscores.
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
    warm_up : callable, optional
        The selection rule of the first epochs, if it is another one.
    warm_up_share : float
        The share of the epochs that `warm_up` has, rounded to whole epochs, at least one.
    corrects_loss : bool
        Whether a Standard training goes before, from which the transition matrix is estimated,
        and the loss is corrected by it (`keeprate.engine.corrected_logits`).
    """

    name: str
    label: str
    source: str
    n_networks: int
    select: SelectionRule
    uses_schedule: bool = True
    loss: PerSampleLoss = selection.per_sample_cross_entropy
    warm_up: SelectionRule | None = None
    warm_up_share: float = 0.1
    corrects_loss: bool = False

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w-]+", self.name):  # it names files
            requirement = "hold letters, digits, hyphens and underscores only"
            raise invalid("the name of a method", requirement, self.name, "choose another")
        if self.name in RESERVED:
            requirement = f"be another than {' and '.join(RESERVED)}, which results are called"
            raise invalid("the name of a method", requirement, self.name, "choose another")
        if self.n_networks < 1:
            raise invalid(
                "n_networks", "be at least 1", self.n_networks, "most methods have 1 or 2"
            )
        if not 0 <= self.warm_up_share <= 1:
            raise invalid("warm_up_share", "lie in [0, 1]", self.warm_up_share, "give a share")

    def fingerprint(self) -> str | None:
        """A hash of the fields and the source code of a method of one's own.

        A run folder must not go on with other code than it began with. None for the methods
        that ship: their code changes with keeprate's version.
        """
        if _shipped(self.name) is self:
            return None
        digest = hashlib.sha256()
        for field in fields(self):
            value = getattr(self, field.name)
            if callable(value):
                try:
                    value = inspect.getsource(value)
                except (OSError, TypeError):  # typed in, or a callable object
                    value = getattr(value, "__qualname__", type(value).__qualname__)
            digest.update(f"{field.name}={value}\n".encode())
        return digest.hexdigest()

    def at(self, epoch: int, epochs: int) -> Method:
        """The method as it is at an epoch, counted from 0, of so many.

        >>> METHODS["co-teaching-plus"].at(19, 200).select.__name__
        'co_teaching'
        >>> METHODS["co-teaching-plus"].at(20, 200).select.__name__
        'co_teaching_plus'
        """
        if self.warm_up is None or epoch >= max(1, round(self.warm_up_share * epochs)):
            return self
        return replace(self, select=self.warm_up)


PER_CLASS = "-per-class"  # after a method's name: the same share of every class is selected
RANK_THE_BATCH = ("mentornet", "co-teaching", "co-mining", "jocor")
"""Methods that can do so: their rules rank all samples of a batch."""


@dataclass(frozen=True)
class PerClass:
    """A selection rule that keeps the same share of each class of a batch."""

    rule: SelectionRule

    def __call__(self, losses: Tensor, logits: Tensor, labels: Tensor, keep_rate: Tensor) -> Tensor:
        return self.rule(selection.balanced_rank(losses, labels), logits, labels, keep_rate)


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
            name="decoupling",
            label="Decoupling",
            source="Malach & Shalev-Shwartz 2017, Alg. 1",
            n_networks=2,
            select=selection.decoupling,
            uses_schedule=False,
            # Alg. 1 is given two predictors: fresh networks may all predict one class, for ever.
            warm_up=selection.every_sample,
            warm_up_share=0.0,  # one epoch
        ),
        Method(
            name="f-correction",
            label="F-correction",
            source="Patrini et al. 2017, Theorem 2 and Sec. 4.1",
            n_networks=1,
            select=selection.every_sample,
            uses_schedule=False,
            corrects_loss=True,
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
        Method(
            name="co-teaching-plus",
            label="Co-teaching+",
            source="Yu et al. 2019, Alg. 1; warm-up as in their experiments",
            n_networks=2,
            select=selection.co_teaching_plus,
            warm_up=selection.co_teaching,
        ),
        Method(
            name="co-mining",
            label="Co-Mining",
            source="Wang et al. 2019",
            n_networks=2,
            select=selection.co_mining,
        ),
        Method(
            name="jocor",
            label="JoCoR",
            source="Wei et al. 2020, Alg. 1",
            n_networks=2,
            select=selection.own_small_loss,  # of the joint loss: both peers select the same
            loss=selection.joint_loss,
        ),
    )
}


@cache
def _per_class(name: str) -> Method:
    method = METHODS[name]
    return replace(
        method,
        name=name + PER_CLASS,
        label=f"{method.label}, per class",
        select=PerClass(method.select),
    )


def _shipped(name: str) -> Method | None:
    """The method of that name, if it is one of ours."""
    base = name.removesuffix(PER_CLASS)
    if base != name and base in RANK_THE_BATCH:
        return _per_class(base)
    return METHODS.get(name)


def networks_trained(method: Method) -> int:
    """How many networks one training of a method trains, one after the other or together.

    >>> [networks_trained(METHODS[name]) for name in ("standard", "f-correction", "jocor")]
    [1, 2, 2]
    """
    return method.n_networks + method.corrects_loss


def side_by_side(methods: Sequence[Method]) -> Method:
    """One method for a population whose K candidates have one each: a row goes by its own.

    Neighbours that have the same one are taken together.

    Examples
    --------
    >>> both = side_by_side([METHODS["standard"], METHODS["mentornet"]])
    >>> losses, half = torch.tensor([[[3.0, 1.0]], [[3.0, 1.0]]]), torch.tensor([0.5, 0.5])
    >>> both.select(losses, losses[..., None], torch.tensor([0, 0]), half)
    tensor([[[1., 1.]],
    <BLANKLINE>
            [[0., 1.]]])
    """
    if all(method == methods[0] for method in methods):
        return methods[0]
    runs = [(method, len(list(same))) for method, same in groupby(methods)]
    sizes = [size for _, size in runs]

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        pieces = zip(runs, logits.split(sizes), strict=True)
        return torch.cat([method.loss(own, labels) for (method, _), own in pieces])

    def select(losses: Tensor, logits: Tensor, labels: Tensor, keep_rate: Tensor) -> Tensor:
        pieces = zip(runs, *(x.split(sizes) for x in (losses, logits, keep_rate)), strict=True)
        return torch.cat([method.select(a, b, labels, rate) for (method, _), a, b, rate in pieces])

    return replace(methods[0], loss=loss, select=select, warm_up=None)


def get_method(method: str | Method) -> Method:
    """A method by name, one's own as `package.module:attribute`, or a `Method` as it is.

    With "-per-class" after its name ("co-teaching-per-class") a method that ranks the batch
    selects about the same share of every class, and at least one sample of each that the batch
    holds (if its quota has room for them): for classes of very different sizes, few enough that
    a batch holds several samples of most.

    Raises
    ------
    InputError
        If there is no such method.

    Examples
    --------
    >>> get_method("co-teaching").n_networks
    2
    """
    if isinstance(method, Method):
        return _own(method)
    shipped = _shipped(method)
    if shipped is not None:
        return shipped
    if ":" not in method:
        known = f"{', '.join(METHODS)}, some of these with {PER_CLASS}, or package.module:method"
        raise invalid("method", f"be one of {known}", method, "choose one of these")
    found = import_attribute("method", method)
    if not isinstance(found, Method):
        raise invalid("method", "be a keeprate.Method", type(found), "see docs/adding-a-method.md")
    return _own(found)


def _own(method: Method) -> Method:
    if (_shipped(method.name) or method) is not method:  # records and seeds go by the name
        raise invalid("method", "have a name of its own", method.name, "give it another name")
    return method
