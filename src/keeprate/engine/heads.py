"""The last layer of a network that compares: cosines to a direction a class, and their margin."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own convention
from torch import Tensor, nn

from keeprate.errors import Words, invalid

SCALE = 16.0
"""The logit of an embedding that points in the direction of its class."""


class CosineLinear(nn.Module):
    """Logits scale * cos(angle between the embedding and the direction of the class).

    Parameters
    ----------
    in_features : int
        D, of the embeddings.
    out_features : int
        C.
    scale : float
        s in Deng et al. 2019, Eq. 2.
    """

    def __init__(self, in_features: int, out_features: int, scale: float = SCALE) -> None:
        super().__init__()
        self.in_features, self.out_features, self.scale = in_features, out_features, scale
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        nn.init.normal_(self.weight, std=in_features**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Embeddings `[B, D]` to logits `[B, C]`."""
        return F.linear(F.normalize(x, dim=-1), F.normalize(self.weight, dim=-1)) * self.scale


@dataclass(frozen=True)
class AngularMargin:
    """The additive angular margin of ArcFace (Deng et al. 2019, Eq. 3).

    Logits s cos(angle) become s cos(angle + m) for the label of the sample, so that its loss falls
    to zero only where the angle to its class is smaller than the others by m.

    Attributes
    ----------
    margin : float
        m, in radians, in [0, pi / 2).
    scale : float
        s, of the network's `CosineLinear`.

    Examples
    --------
    >>> right_angle = AngularMargin(margin=0.5, scale=10.0)(torch.zeros(1, 2), torch.tensor([1]))
    >>> right_angle.round(decimals=3)
    tensor([[ 0.0000, -4.7940]])
    """

    margin: float
    scale: float

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits with the margin, float32.

        Parameters
        ----------
        logits : Tensor [..., B, C]
        labels : int64 Tensor [B]
        """
        logits = logits.float()
        index = labels.expand(logits.shape[:-1]).unsqueeze(-1)
        # Rounding may lead beyond 1, and the root has no gradient at 0.
        cosine = (logits.gather(-1, index) / self.scale).clamp(-1 + 1e-6, 1 - 1e-6)
        sine = (1 - cosine.square()).sqrt()
        m = self.margin
        widened = cosine * math.cos(m) - sine * math.sin(m)  # cos(angle + m)
        # Beyond pi the cosine would rise again: a line goes on from there, as in the authors' code.
        widened = torch.where(cosine > -math.cos(m), widened, cosine - m * math.sin(m))
        return logits.scatter(-1, index, self.scale * widened)


def margin_of(module: nn.Module, margin: float) -> AngularMargin | None:
    """The margin for a network; None if its last layer gives no cosines."""
    head = module.get_submodule(head_of(module))
    return AngularMargin(margin, head.scale) if isinstance(head, CosineLinear) else None


def head_of(module: nn.Module) -> str:
    """The name of the last layer: of the linear or cosine layers the last.

    Raises
    ------
    InputError
        If the network has none.
    """
    names: list[str] = [
        name
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear | CosineLinear) and name
    ]
    if not names:
        received = Words(f"a {type(module).__name__} without one")
        remedy = "let the network end with nn.Linear or CosineLinear: embeddings are what it gets"
        raise invalid("model", "have a linear layer", received, remedy)
    return names[-1]


@contextmanager
def headless(module: nn.Module) -> Iterator[None]:
    """Let a network give embeddings: what its last layer gets, instead of what it makes of them."""
    parent_name, _, own = head_of(module).rpartition(".")
    parent = module.get_submodule(parent_name)
    head = parent._modules[own]
    parent._modules[own] = nn.Identity()
    try:
        yield
    finally:
        parent._modules[own] = head
