"""The methods in one table: a loss, a selection rule and a number of networks each."""

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
from keeprate.engine.names import AUTO, PER_CLASS, RANK_THE_BATCH, check_method_name
from keeprate.errors import invalid

RESERVED = ("searched", "custom")  # results of a run have these names
SelectionRule = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
PerSampleLoss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Method:
    """One way to learn from noisy labels.

    Attributes
    ----------
    name : str
        For the command line: letters, digits, hyphens and underscores.
    label : str
        For people.
    source : str
        The publication.
    n_networks : int
        R, the peer networks that train together.
    select : callable
        (losses [K, R, B], logits [K, R, B, C], labels [B], keep_rate [K]) -> weights [K, R, B].
    uses_schedule : bool
        Whether the keep rate matters; if not, there is nothing to search.
    loss : callable
        (logits [K, R, B, C], labels [B]) -> losses [K, R, B].
    warm_up : callable, optional
        The selection rule of the first epochs, if those have another rule.
    warm_up_share : float
        The share of the epochs with the rule `warm_up`, in [0, 1]; rounded to whole epochs, at
        least one.
    corrects_loss : bool
        Whether a transition matrix corrects the loss (see `corrected_logits`). A Standard training
        then goes before, and its predictions give the matrix.

    Raises
    ------
    InputError
        If a value is not allowed.
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
            requirement = (
                f"be another than {' and '.join(RESERVED)}, the names of a run's own results"
            )
            raise invalid("the name of a method", requirement, self.name, "choose another")
        if self.n_networks < 1:
            raise invalid(
                "n_networks", "be at least 1", self.n_networks, "most methods have 1 or 2"
            )
        if not 0 <= self.warm_up_share <= 1:
            raise invalid("warm_up_share", "lie in [0, 1]", self.warm_up_share, "give a share")

    def fingerprint(self) -> str | None:
        """Hash the fields and the source code of a user's method.

        A run must not go on with other code than it began with. None for keeprate's methods, whose
        code changes with keeprate's version.
        """
        if _built_in(self.name) is self:
            return None
        digest = hashlib.sha256()
        for field in fields(self):
            value = getattr(self, field.name)
            if callable(value):
                try:
                    value = inspect.getsource(value)
                except (OSError, TypeError):  # typed into a shell, or a callable object
                    value = getattr(value, "__qualname__", type(value).__qualname__)
            digest.update(f"{field.name}={value}\n".encode())
        return digest.hexdigest()

    def at(self, epoch: int, epochs: int) -> Method:
        """The method with the selection rule that it has at `epoch`, counted from 0.

        >>> METHODS["co-teaching-plus"].at(19, 200).select.__name__
        'co_teaching'
        >>> METHODS["co-teaching-plus"].at(20, 200).select.__name__
        'co_teaching_plus'
        """
        if self.warm_up is None or epoch >= max(1, round(self.warm_up_share * epochs)):
            return self
        return replace(self, select=self.warm_up)


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
            # Alg. 1 starts from two given predictors. Two fresh networks may predict one class for
            # every sample, and would then never disagree.
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


def _built_in(name: str) -> Method | None:
    """The method of that name, if it is one of keeprate's."""
    base = name.removesuffix(PER_CLASS)
    if base != name and base in RANK_THE_BATCH:
        return _per_class(base)
    return METHODS.get(name)


def cross_fitted(n_folds: int) -> Method:
    """`n_folds` peers, each of which leaves out a fold and selects its own small losses.

    What they learn comes from `Candidate.supervision`. The method is no key of `METHODS`: without
    folds it has no meaning.
    """
    return Method(
        name=AUTO,
        label="Cross-fitted selection",
        source="keeprate; each network selects as in Jiang et al. 2018",
        n_networks=n_folds,
        select=selection.held_in_small_loss,
    )


def networks_trained(method: Method) -> int:
    """Count the networks that one training of a method trains, together or one after the other.

    >>> [networks_trained(METHODS[name]) for name in ("standard", "f-correction", "jocor")]
    [1, 2, 2]
    """
    return method.n_networks + method.corrects_loss


def side_by_side(methods: Sequence[Method]) -> Method:
    """One method for a population: row k of a batch goes by the method of candidate k.

    Neighbours with the same method are computed together.

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
    groups = [(method, len(list(same))) for method, same in groupby(methods)]
    kinds, sizes = zip(*groups, strict=True)

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        pieces = logits.split(sizes)
        return torch.cat([kind.loss(x, labels) for kind, x in zip(kinds, pieces, strict=True)])

    def select(losses: Tensor, logits: Tensor, labels: Tensor, keep_rate: Tensor) -> Tensor:
        pieces = zip(kinds, *(x.split(sizes) for x in (losses, logits, keep_rate)), strict=True)
        return torch.cat([kind.select(a, b, labels, rate) for kind, a, b, rate in pieces])

    return replace(methods[0], loss=loss, select=select, warm_up=None)


def get_method(method: str | Method) -> Method:
    """A method by its name, or a user's method.

    Parameters
    ----------
    method : str or Method
        A key of `METHODS`; some of these with "-per-class" after the name; "auto", which is
        Co-teaching wherever one method is meant; `package.module:name` of a user's `Method`; or
        the `Method` itself. With "-per-class" ("co-teaching-per-class")
        a method selects about the same share of every class, and at least one sample of each
        class in the batch while the quota lasts. That is for classes of very different sizes, few
        enough that a batch holds several samples of most classes.

    Raises
    ------
    InputError
        If there is no such method, or if a user's method has the name of one of keeprate's.

    Examples
    --------
    >>> get_method("co-teaching").n_networks
    2
    """
    if isinstance(method, Method):
        return _with_free_name(method)
    if method == AUTO:
        return METHODS["co-teaching"]
    built_in = _built_in(method)
    if built_in is not None:
        return built_in
    check_method_name(method)
    imported = import_attribute("method", method)
    if not isinstance(imported, Method):
        remedy = "see docs/adding-a-method.md"
        raise invalid("method", "be a keeprate.Method", type(imported), remedy)
    return _with_free_name(imported)


def _with_free_name(method: Method) -> Method:
    """Return a method unless its name belongs to another: records and seeds go by the name."""
    if (_built_in(method.name) or method) is not method:
        raise invalid("method", "have a name of its own", method.name, "give it another name")
    return method
