"""Perceptrons, N at once, forth and back by hand: in a small batch autograd takes as long as they.

What autograd does for these layers is a few products. Everything else trains by autograd.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from keeprate.engine.layers import dropout_masks, kept_factor, stacked_linear, weight_gradient
from keeprate.engine.sequential import Layers
from keeprate.engine.world import WHOLE, Share

_ATEN: Any = torch.ops.aten


@dataclass
class _Layer:
    """A linear layer, and the dropout before it, which follows a ReLU."""

    name: str
    dropout: nn.Dropout | None
    x: Tensor | None = None  # inputs of a forward pass, until its backward pass
    factor: float = 1.0  # of the elements that the dropout kept, likewise


class Perceptron:
    """Linear layers with a ReLU, and perhaps a dropout, between each two.

    Parameters
    ----------
    layers : list of _Layer
        See `of`.
    """

    def __init__(self, layers: list[_Layer]) -> None:
        self._layers = layers

    @classmethod
    def of(cls, layers: Layers) -> Perceptron | None:
        """The perceptron of such layers; None if they are something else.

        Parameters
        ----------
        layers : list of names and layers
            Of `plain_layers`.
        """
        found, dropout = list[_Layer](), None
        for (_, before), (name, layer) in pairwise(layers):
            if type(layer) is nn.Linear and type(before) in (nn.Flatten, nn.ReLU, nn.Dropout):
                if not all(parameter.requires_grad for parameter in layer.parameters()):
                    return None
                found.append(_Layer(name, dropout))
                dropout = None
            elif type(layer) is nn.Dropout and type(before) is nn.ReLU and layer.p < 1:
                dropout = layer
            elif not (type(layer) is nn.ReLU and type(before) is nn.Linear):
                return None
        is_one = type(layers[0][1]) is nn.Flatten and type(layers[-1][1]) is nn.Linear
        return cls(found) if is_one else None

    @torch.no_grad()
    def forward(
        self,
        tensors: dict[str, Tensor],
        generators: list[torch.Generator],
        inputs: Tensor,
        share: Share = WHOLE,
    ) -> Tensor:
        """Logits `[N, B, C]`; keeps what the backward pass needs. As `through_layers`."""
        x = inputs.flatten(1)
        for place, layer in enumerate(self._layers):
            if place > 0:
                x, layer.factor = x.relu_(), 1.0
                if layer.dropout is not None and layer.dropout.training and layer.dropout.p > 0:
                    x = x.mul_(dropout_masks(x, layer.dropout.p, generators, share))
                    layer.factor = kept_factor(layer.dropout.p, x.dtype)
            layer.x = x
            weight, bias = tensors[f"{layer.name}.weight"], tensors.get(f"{layer.name}.bias")
            x = stacked_linear(x, weight, bias, stacked=place > 0)
        return x

    @torch.no_grad()
    def backward(self, tensors: dict[str, Tensor], gradient: Tensor) -> None:
        """Set the gradients of all parameters, from that of the logits `[N, B, C]`."""
        for place in range(len(self._layers) - 1, -1, -1):
            layer = self._layers[place]
            x, layer.x = layer.x, None
            if x is None:
                raise RuntimeError("a forward pass goes before a backward pass")
            x = x.to(gradient.dtype)
            weight, bias = tensors[f"{layer.name}.weight"], tensors.get(f"{layer.name}.bias")
            if bias is not None:
                bias.grad = gradient.sum(1, dtype=bias.dtype)
            rows = gradient.mT  # [N, out, B]
            if place == 0:
                weight.grad = weight_gradient(rows, x).to(weight.dtype)
                return
            weight.grad = torch.bmm(rows, x).to(weight.dtype)
            if layer.factor != 1:
                rows = rows * layer.factor
            gradient = torch.bmm(weight.to(gradient.dtype).mT, rows).mT
            # What is 0 was below 0, or dropped.
            gradient = _ATEN.threshold_backward(gradient, x, 0)
