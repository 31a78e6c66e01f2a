"""Plain sequences of layers, N networks at once without vmap and its cost at each step."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, pairwise

import torch
from torch import Tensor, nn

from keeprate.engine.heads import CosineLinear
from keeprate.engine.layers import (
    Geometry,
    dropout_masks,
    into_channels,
    out_of_channels,
    pair,
    stacked_batch_norm,
    stacked_convolution,
    stacked_cosines,
    stacked_linear,
)
from keeprate.engine.world import WHOLE, Share

Layers = list[tuple[str, nn.Module]]
"""Names, as in the networks' parameters, and layers."""

_ELEMENTWISE = (nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.Identity)
_POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)
_OF_IMAGES = (nn.Conv2d, nn.BatchNorm2d, *_POOLS)
_OF_ROWS = (nn.Linear, CosineLinear)


def plain_layers(module: nn.Module, device: torch.device) -> Layers | None:
    """The layers of a plain perceptron or, on a CPU, of a plain CNN; None for other networks.

    Only exact types without hooks count: a subclass may do something else.
    """
    layers = list(_flat(module))
    if not all(_is_plain(layer) for _, layer in layers):
        return None
    kinds = [type(layer) for _, layer in layers]
    if kinds.count(nn.Flatten) != 1 or not set(kinds) & set(_OF_ROWS):
        return None
    # Images up to the flattening, rows from there on.
    place = kinds.index(nn.Flatten)
    images, rows = set(kinds[:place]), set(kinds[place:])
    if images & set(_OF_ROWS) or rows & set(_OF_IMAGES):
        return None
    if place > 0 and (device.type != "cpu" or nn.Conv2d not in images):
        return None
    if place > 0 and nn.BatchNorm2d in kinds[: kinds.index(nn.Conv2d)]:
        return None  # its inputs are not stacked yet
    # PyTorch names what is shared once: each parameter, and each layer with all that it holds.
    with_own = (nn.Conv2d, nn.BatchNorm2d, *_OF_ROWS)
    own = [layer for _, layer in layers if type(layer) in with_own]
    is_shared = len({id(layer) for layer in own}) < len(own)
    n_own = sum(len(list(layer.parameters())) for layer in own)
    return None if is_shared or n_own != len(list(module.parameters())) else layers


def _flat(module: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The layers, also those of sequences within sequences."""
    if type(module) is not nn.Sequential or _is_hooked(module):
        yield name, module
        return
    for own, layer in module._modules.items():
        if layer is not None:
            yield from _flat(layer, f"{name}.{own}" if name else own)


def _is_plain(layer: nn.Module) -> bool:
    """Whether `through_layers` does what the layer does."""
    if _is_hooked(layer):
        return False
    if type(layer) is nn.Flatten:
        return (layer.start_dim, layer.end_dim) == (1, -1)
    if type(layer) is nn.Conv2d:
        return layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    if type(layer) is nn.MaxPool2d:
        return not layer.return_indices
    if type(layer) is nn.BatchNorm2d:
        has_statistics = layer.running_mean is not None
        return layer.momentum is not None and layer.track_running_stats == has_statistics
    return type(layer) in (*_OF_ROWS, nn.Dropout, *_POOLS, *_ELEMENTWISE)


def _is_hooked(module: nn.Module) -> bool:
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return "forward" in vars(module) or any(getattr(module, name) for name in hooks)


def through_layers(
    layers: Layers,
    tensors: dict[str, Tensor],
    generators: list[torch.Generator],
    inputs: Tensor,
    share: Share = WHOLE,
) -> Tensor:
    """Logits `[N, B, C]`, as vmap would give them.

    Parameters
    ----------
    layers : list of names and layers
        Of `plain_layers`.
    tensors : dict of str to Tensor [N, ...]
        Parameters and buffers by name.
    generators : list of N torch.Generator
        For dropout.
    inputs : Tensor [B, ...]
        All networks share them.
    share : Share
        Which part of the batch the inputs are.
    """
    n, x = len(generators), inputs
    # Stacked images are [B, N * C, H, W], stacked rows [N, B, features].
    is_stacked, is_image, is_pooled = False, inputs.dim() == 4, False
    for (name, layer), (_, following) in pairwise(chain(layers, [("", nn.Identity())])):
        if isinstance(layer, nn.Conv2d):
            is_pooled = type(following) is nn.MaxPool2d
            pool = following if is_pooled else None
            x, is_stacked = _convolved(x, layer, name, tensors, pool, is_stacked), True
        elif isinstance(layer, nn.Linear):
            weight, bias = tensors[f"{name}.weight"], tensors.get(f"{name}.bias")
            x, is_stacked = stacked_linear(x, weight, bias, stacked=is_stacked), True
        elif isinstance(layer, CosineLinear):
            x, is_stacked = (x if is_stacked else x.expand(n, *x.shape)), True
            x = stacked_cosines(x, tensors[f"{name}.weight"], layer.scale)
        elif isinstance(layer, nn.Flatten):
            if is_image and is_stacked:
                x = out_of_channels(x, n)
            x, is_image = x.flatten(2 if is_stacked else 1), False
        elif isinstance(layer, nn.BatchNorm2d) and is_stacked:
            x = _normalised(x, layer, name, tensors, share)
        elif isinstance(layer, nn.Dropout) and layer.training and 0 < layer.p < 1:
            if not is_stacked:
                x = x.expand(n, *x.shape)
            elif is_image:
                x = out_of_channels(x, n)
            x, is_stacked = x * dropout_masks(x, layer.p, generators, share), True
            x = into_channels(x) if is_image else x
        elif isinstance(layer, nn.MaxPool2d) and is_pooled:
            is_pooled = False  # with the convolution before
        else:
            x = layer(x)
    return x


def _convolved(
    x: Tensor,
    layer: nn.Conv2d,
    name: str,
    tensors: dict[str, Tensor],
    pool: nn.Module | None,
    stacked: bool,
) -> Tensor:
    """The convolution, and the maximum pooling that follows."""
    geometry = Geometry(pair(layer.stride), pair(layer.padding), pair(layer.dilation))
    pooling = None
    if isinstance(pool, nn.MaxPool2d):
        stride, padding, dilation = pair(pool.stride), pair(pool.padding), pair(pool.dilation)
        pooling = Geometry(stride, padding, dilation, pair(pool.kernel_size), pool.ceil_mode)
    weight, bias = tensors[f"{name}.weight"], tensors.get(f"{name}.bias")
    return stacked_convolution(
        x, weight, bias, geometry, layer.groups, stacked=stacked, pool=pooling
    )


def _normalised(
    x: Tensor, layer: nn.BatchNorm2d, name: str, tensors: dict[str, Tensor], share: Share
) -> Tensor:
    mean, variance = (tensors.get(f"{name}.running_{one}") for one in ("mean", "var"))
    weight, bias = (tensors.get(f"{name}.{one}") for one in ("weight", "bias"))
    if layer.training and layer.track_running_stats:
        tensors[f"{name}.num_batches_tracked"].add_(1)
    is_own, momentum = layer.training or mean is None, layer.momentum or 0.0
    return stacked_batch_norm(x, mean, variance, weight, bias, is_own, momentum, layer.eps, share)
