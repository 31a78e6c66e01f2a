"""Embeddings: what a trained network says of a picture before its last layer names a class."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from keeprate.data import Normaliser
from keeprate.errors import Words, invalid

_CLASSIFIERS = ("Linear", "CosineLinear", "LazyLinear")
_BATCH = 256  # images in a batch, besides their mirror images


def embed(modules: Sequence[nn.Module], images: Tensor, normaliser: Normaliser) -> Tensor:
    """L2-normalised sums of the embeddings of pictures and of their mirror images.

    The embedding of a picture is the input of a network's last linear layer. Each network's is
    L2-normalised; those of several networks (peers) stand one behind the other.

    Parameters
    ----------
    modules : sequence of R nn.Module
        On one device, and in evaluation mode: they are used as they are.
    images : Tensor [M, C, H, W] of uint8
        On any device.
    normaliser : Normaliser
        That of the networks' training.

    Returns
    -------
    Tensor [M, R * D] of float32
        On the CPU.

    Raises
    ------
    InputError
        If a network has no linear layer, or it gets no vectors.
    """
    device = next((p.device for p in modules[0].parameters()), torch.device("cpu"))
    pieces = []
    with torch.no_grad():
        for start in range(0, len(images), _BATCH):
            batch = normaliser(images[start : start + _BATCH].to(device))
            both = torch.cat([batch, batch.flip(-1)])
            embedded = [_unit(_embedded(module, both)) for module in modules]
            upright, mirrored = torch.cat(embedded, 1).chunk(2)
            pieces.append(_unit(upright + mirrored).cpu())
    return torch.cat(pieces)


def _unit(vectors: Tensor) -> Tensor:
    return nn.functional.normalize(vectors.float(), dim=-1)


def _embedded(module: nn.Module, batch: Tensor) -> Tensor:
    """The inputs `[B, D]` of the last linear layer of a module."""
    with _heard(_last_layer(module)) as heard:
        module(batch)
    if not heard or heard[-1].ndim != 2:
        received = Words(f"shape {tuple(heard[-1].shape)}" if heard else "none")
        remedy = "give a model that ends in a linear layer"
        raise invalid("the inputs of the last linear layer", "be [B, D]", received, remedy)
    return heard[-1]


def _last_layer(module: nn.Module) -> nn.Module:
    layers = [one for one in module.modules() if type(one).__name__ in _CLASSIFIERS]
    if not layers:
        remedy = "give a model that ends in a linear layer"
        raise invalid("the network", "have a linear layer", Words("none"), remedy)
    return layers[-1]


@contextmanager
def _heard(layer: nn.Module) -> Iterator[list[Tensor]]:
    """Collect what a layer gets."""
    heard: list[Tensor] = []
    hook: Callable[..., None] = lambda _, inputs: heard.append(inputs[0])  # noqa: E731
    handle = layer.register_forward_pre_hook(hook)
    try:
        yield heard
    finally:
        handle.remove()
