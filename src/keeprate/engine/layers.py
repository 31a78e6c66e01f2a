"""Layers of N networks at once, which need no vmap.

Activations of images hold the networks side by side as channels, `[B, N * C, H, W]`, and channels
are last in memory: that is fastest on a CPU.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own convention
from torch import Tensor
from torch.autograd.function import once_differentiable

from keeprate.engine.world import WHOLE, Share

LARGE_PRODUCT = 2**22
"""Multiplications for a batch in one network from which it pays to leave samples out."""
PART = 32
"""Samples whose pooled gradients are taken back at once, so that they stay in a CPU's cache. The
number does not depend on the candidates, for whose sums each would round otherwise."""

_ATEN: Any = torch.ops.aten


# Linear layers ---------------------------------------------------------------------------------


def stacked_linear(x: Tensor, weight: Tensor, bias: Tensor | None, *, stacked: bool) -> Tensor:
    """N linear layers at once: x `[B, ..., in]`, or `[N, B, ..., in]` if stacked."""
    n_networks, n_out, n_in = weight.shape
    if not stacked:  # the same inputs for every network: one product for all
        flat = x.reshape(-1, n_in)
        if torch.is_grad_enabled():
            product: Tensor = _SharedLinear.apply(flat, weight, bias)  # type: ignore[no-untyped-call]
        else:
            product = _shared_product(flat, weight, bias)
        y = product.view(n_networks, n_out, -1).mT
    else:
        flat = x.reshape(n_networks, -1, n_in)
        if bias is None:
            y = torch.bmm(weight, flat.mT).mT
        else:
            y = torch.baddbmm(bias.unsqueeze(-1), weight, flat.mT).mT
    shape = x.shape[1:-1] if stacked else x.shape[:-1]
    return y.unflatten(1, shape) if len(shape) != 1 else y


def stacked_cosines(x: Tensor, weight: Tensor, scale: float) -> Tensor:
    """N cosine layers at once (`CosineLinear`): x `[N, B, in]`, weight `[N, out, in]`."""
    directions = F.normalize(weight, dim=-1)
    return stacked_linear(F.normalize(x, dim=-1), directions, None, stacked=True) * scale


class _SharedLinear(torch.autograd.Function):
    """N linear layers on the same inputs `[B, in]`, to `[N * out, B]`.

    A sample that was not selected has a gradient of exactly zero. The weight gradient therefore
    needs the selected samples only.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        y = _shared_product(x, weight, bias)
        ctx.save_for_backward(x.to(y.dtype), weight)  # x as it was multiplied, under autocast
        ctx.has_bias = bias is not None
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        gradient = gradients[0].reshape(*weight.shape[:2], -1)  # [N, out, B]
        x_gradient = own_gradient = bias_gradient = None
        if ctx.needs_input_grad[0]:
            x_gradient = torch.einsum("nob,noi->bi", gradient, weight.to(x.dtype))
        if ctx.needs_input_grad[1]:
            own_gradient = weight_gradient(gradient, x).to(weight.dtype)
        if ctx.has_bias:
            bias_gradient = gradient.sum(-1).to(weight.dtype)
        return x_gradient, own_gradient, bias_gradient


def _shared_product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """N linear layers on the same inputs `[B, in]`, to `[N * out, B]`."""
    y = weight.flatten(0, 1) @ x.T
    if bias is not None:
        y += bias.to(y.dtype).reshape(-1, 1)  # a sum of two dtypes would cost two copies
    return y


def weight_gradient(gradient: Tensor, x: Tensor) -> Tensor:
    """`[N, out, B] @ [B, in]`; only the selected samples of each network where that is faster.

    It is faster on a CPU for a large product. In bfloat16 gathering the samples costs what it
    saves, and a GPU would have to wait until the number of samples is known.
    """
    n_networks, n_out, n_samples = gradient.shape
    is_large = n_out * n_samples * x.shape[1] >= LARGE_PRODUCT
    if is_large and gradient.device.type == "cpu" and gradient.dtype != torch.bfloat16:
        is_selected = gradient.abs().sum(1) != 0  # [N, B]; NaN is not 0 either
        counts = is_selected.sum(1).tolist()
        if min(counts) < n_samples:
            return _product_of_selected(gradient, x, is_selected, counts)
    if not gradient.is_contiguous():  # a copy would cost more than a batched product
        return torch.bmm(gradient, x.expand(n_networks, -1, -1))
    return (gradient.view(-1, n_samples) @ x).view(n_networks, n_out, x.shape[1])


def _product_of_selected(
    gradient: Tensor, x: Tensor, is_selected: Tensor, counts: list[int]
) -> Tensor:
    """`[N, out, B] @ [B, in]`, where network n has `counts[n]` selected samples `[N, B]`.

    Neighbours with as many selected samples, as a rule the peers of a candidate, share a batched
    product: a thread for each network is faster than all threads in each product.
    """
    n_networks, n_out, _ = gradient.shape
    product = gradient.new_empty(n_networks, n_out, x.shape[1])
    start = 0
    for count, group in groupby(counts):
        rows = slice(start, start := start + len(list(group)))
        samples = is_selected[rows].nonzero()[:, 1].view(rows.stop - rows.start, count)
        gradients = gradient[rows].gather(2, samples.unsqueeze(1).expand(-1, n_out, -1))
        inputs = x.index_select(0, samples.flatten()).view(*samples.shape, x.shape[1])
        torch.bmm(gradients, inputs, out=product[rows])
    return product


# Convolutions ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Geometry:
    """How a convolution or a pooling runs over an image, (vertical, horizontal) each.

    Attributes
    ----------
    stride, padding, dilation : tuple of two ints
    kernel : tuple of two ints
        Of a pooling.
    ceil_mode : bool
        Of a pooling: whether windows that reach beyond the image count.
    """

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    kernel: tuple[int, int] = (1, 1)
    ceil_mode: bool = False


def pair(value: Any) -> tuple[int, int]:
    """An int or two ints as two ints."""
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))


def stacked_convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    geometry: Geometry,
    groups: int = 1,
    *,
    stacked: bool,
    pool: Geometry | None = None,
) -> Tensor:
    """N convolutions at once, and the maximum pooling that follows.

    Where all share the inputs, N convolutions are one with N times the outputs; else they are one
    with N times the groups. The products have the precision of `torch.autocast`.

    Parameters
    ----------
    x : Tensor [B, C, H, W], or [B, N * C, H, W] if stacked
    weight : Tensor [N, O, C / groups, kernel height, kernel width]
    bias : Tensor [N, O], optional
    geometry : Geometry
    groups : int
        Of each network.
    stacked : bool
        Whether each network has inputs of its own.
    pool : Geometry, optional
        Left out, nothing is pooled.

    Returns
    -------
    Tensor [B, N * O, H', W']
    """
    n_networks = len(weight)
    all_groups = groups * n_networks if stacked else groups
    if not stacked and groups > 1:  # each group gives the outputs of all networks
        weight = _groups_first(weight, groups)
        bias = None if bias is None else _groups_first(bias, groups)
    kernels = weight.flatten(0, 1)
    is_cast = torch.is_autocast_enabled("cpu") and x.dtype != torch.float64  # as PyTorch does
    dtype = torch.get_autocast_dtype("cpu") if is_cast else x.dtype
    biases = None if bias is None else bias.flatten()
    y: Tensor = _Convolution.apply(x, kernels, biases, geometry, all_groups, pool, dtype)  # type: ignore[no-untyped-call]
    if not stacked and groups > 1:
        y = channels_last(y.unflatten(1, (groups, n_networks, -1)).transpose(1, 2).flatten(1, 3))
    return y


class _Convolution(torch.autograd.Function):
    """A convolution, and perhaps a maximum pooling, with a fast backward pass on a CPU.

    The gradient of the bias is a sum over the pooled gradient: a pooling leaves the sum as it is.
    The gradient of what is pooled, the largest tensor of all, is made some samples at a time, so
    that it stays in the cache until the gradients of inputs and weights have been computed from it.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        geometry: Geometry,
        groups: int,
        pool: Geometry | None,
        dtype: torch.dtype,
    ) -> Tensor:
        ctx.n_given = weight.shape[1]
        n_padded = _fast_channels(weight, geometry, groups, dtype)
        x = _with_channels(channels_last(x.to(dtype)), groups, n_padded)
        ctx.weight_dtype = weight.dtype
        weight = _with_channels(weight.to(dtype), 1, n_padded)
        bias = None if bias is None else bias.to(dtype)
        options = (geometry.stride, geometry.padding, geometry.dilation, groups)
        y: Tensor = torch.conv2d(x, weight, bias, *options)
        ctx.geometry, ctx.groups, ctx.pool, ctx.has_bias = geometry, groups, pool, bias is not None
        ctx.shape = y.shape
        if pool is None:
            ctx.save_for_backward(x, weight)
            return y
        pooled: tuple[Tensor, Tensor] = _ATEN.max_pool2d_with_indices(y, *_options(pool))
        ctx.save_for_backward(x, weight, pooled[1])
        return pooled[0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        x, weight, *places = ctx.saved_tensors
        gradient = channels_last(gradients[0].to(x.dtype))
        wanted = list(ctx.needs_input_grad[:2])
        bias_gradient = None
        if ctx.has_bias and ctx.needs_input_grad[2]:
            # Adds in float32 and rounds once. With dtype=float32 `sum` would copy all first.
            bias_gradient = gradient.sum((0, 2, 3)).to(ctx.weight_dtype)
        # Sums of parts in bfloat16 would each be rounded.
        in_parts = ctx.pool is not None and x.dtype != torch.bfloat16
        size: int = PART if in_parts else len(x)
        parts = [
            _gradients(ctx, *part, weight, wanted)
            for part in zip(*(t.split(size) for t in (gradient, x, *places)), strict=True)
        ]
        x_gradient = weight_gradient = None
        if wanted[0]:
            own = [_without_channels(part[0], ctx.groups, ctx.n_given) for part in parts]
            x_gradient = own[0] if len(own) == 1 else torch.cat(own)
        if wanted[1]:
            total = parts[0][1].to(ctx.weight_dtype)
            for _, other in parts[1:]:
                total += other
            weight_gradient = _without_channels(total, 1, ctx.n_given)
        return x_gradient, weight_gradient, bias_gradient, None, None, None, None


def _gradients(ctx: Any, gradient: Tensor, x: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    """Gradients of the inputs and of the weights, from some samples; None if not wanted."""
    *places, weight, wanted = rest
    if ctx.pool is not None:
        shape = (len(x), *ctx.shape[1:])
        last = torch.channels_last
        convolved = torch.empty(shape, dtype=x.dtype, memory_format=last)  # for its shape alone
        gradient = _ATEN.max_pool2d_with_indices_backward(
            gradient, convolved, *_options(ctx.pool), *places
        )
    geometry: Geometry = ctx.geometry
    found = _ATEN.convolution_backward(
        gradient,
        x,
        weight,
        None,
        geometry.stride,
        geometry.padding,
        geometry.dilation,
        False,
        (0, 0),
        ctx.groups,
        (*wanted, False),
    )
    return found[0], found[1]


def _options(pool: Geometry) -> tuple[Any, ...]:
    return pool.kernel, pool.stride, pool.padding, pool.dilation, pool.ceil_mode


def _groups_first(weight: Tensor, groups: int) -> Tensor:
    """`[N, G * C, ...]` to `[G, N * C, ...]`."""
    grouped: Tensor = weight.unflatten(1, (groups, -1))
    return grouped.transpose(0, 1).flatten(1, 2)


def _fast_channels(weight: Tensor, geometry: Geometry, groups: int, dtype: torch.dtype) -> int:
    """To how many input channels zeros fill up each group.

    oneDNN has a fast gradient of the inputs in bfloat16 for multiples of four channels; else it
    takes twice as long where the image is not padded.
    """
    n = weight.shape[1]
    is_slow = groups > 1 and dtype == torch.bfloat16 and geometry.padding == (0, 0) and n > 4
    return n + (-n % 4 if is_slow else 0)


def _with_channels(x: Tensor, groups: int, n: int) -> Tensor:
    """`[B, G * C, H, W]` to `[B, G * n, H, W]`, with zeros in the channels from C on."""
    n_given = x.shape[1] // groups
    if n == n_given:
        return x
    rows: Tensor = x.permute(0, 2, 3, 1).unflatten(3, (groups, n_given))
    padded: Tensor = F.pad(rows, (0, n - n_given))
    return padded.flatten(3).permute(0, 3, 1, 2)


def _without_channels(x: Tensor, groups: int, n: int) -> Tensor:
    """`[B, G * C, H, W]` to `[B, G * n, H, W]`: the first n channels of each group."""
    n_given = x.shape[1] // groups
    if n == n_given:
        return x
    rows: Tensor = x.permute(0, 2, 3, 1).unflatten(3, (groups, n_given))
    own: Tensor = rows[..., :n].flatten(3)
    return own.permute(0, 3, 1, 2)


def channels_last(x: Tensor) -> Tensor:
    """`[B, C, H, W]` to the reader, `[B, H, W, C]` in memory."""
    return x.contiguous(memory_format=torch.channels_last)


def into_channels(x: Tensor) -> Tensor:
    """`[N, B, C, ...]` to `[B, N * C, ...]`."""
    return x.movedim(0, 1).flatten(1, 2)


def out_of_channels(x: Tensor, n_networks: int) -> Tensor:
    """`[B, N * C, ...]` to `[N, B, C, ...]`."""
    apart: Tensor = x.unflatten(1, (n_networks, -1))
    return apart.movedim(1, 0)


# Batch norm and dropout ------------------------------------------------------------------------


def stacked_batch_norm(
    x: Tensor,
    mean: Tensor | None,
    variance: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    training: bool,
    momentum: float,
    epsilon: float,
    share: Share = WHOLE,
) -> Tensor:
    """N batch norms at once.

    Parameters
    ----------
    x : Tensor [B, N * C, ...]
    mean, variance : Tensor [N, C], optional
        Running statistics, changed in place in training.
    weight, bias : Tensor [N, C], optional
    training : bool
        Whether the batch's own statistics are taken.
    momentum, epsilon : float
        As in PyTorch.
    share : Share
        What this process computes of the batch. The statistics are those of the whole batch.

    Returns
    -------
    Tensor [B, N * C, ...]
    """
    mean, variance = (None if t is None else t.view(-1) for t in (mean, variance))
    weight, bias = (None if t is None else t.flatten() for t in (weight, bias))
    if training and share.is_part:
        return _batch_norm_of_all(x, mean, variance, weight, bias, momentum, epsilon, share)
    return F.batch_norm(x, mean, variance, weight, bias, training, momentum, epsilon)


def _batch_norm_of_all(
    x: Tensor,
    running_mean: Tensor | None,
    running_variance: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    momentum: float,
    epsilon: float,
    share: Share,
) -> Tensor:
    """Normalise this process's part of a batch by the statistics of the whole batch."""
    axes, column = (0, *range(2, x.dim())), (1, -1, *[1] * (x.dim() - 2))
    with torch.no_grad():
        own = x.to(torch.promote_types(x.dtype, torch.float32))
        own_mean = own.mean(axes)
        squares = (own - own_mean.view(column)).square().sum(axes)
        n_own = torch.full_like(own_mean, x.numel() // x.shape[1])
        # Chan et al. 1983: sums of squares about the mean of each part.
        n, means, squares = share.of_each(torch.stack([n_own, own_mean, squares])).unbind(1)
        n_all = n.sum(0)
        mean = (n * means).sum(0) / n_all
        squares = (squares + n * (means - mean).square()).sum(0)
        if running_mean is not None:
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
        if running_variance is not None:
            unbiased = squares / (n_all - 1)
            running_variance.lerp_(unbiased.to(running_variance.dtype), momentum)
        scale = (squares / n_all + epsilon).rsqrt()
    y: Tensor = _Standardised.apply(x, mean.view(column), scale.view(column), n_all, share)  # type: ignore[no-untyped-call]
    if weight is not None:
        y = y * weight.view(column)
    if bias is not None:
        y = y + bias.view(column)
    return y.to(x.dtype)


class _Standardised(torch.autograd.Function):
    """(x - mean) * scale, where mean and scale are those of all processes' x."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, mean: Tensor, scale: Tensor, n_all: Tensor, share: Share
    ) -> Tensor:
        y = (x - mean) * scale
        ctx.save_for_backward(y, scale, n_all)
        ctx.share, ctx.dtype = share, x.dtype
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        (gradient,), (y, scale, n_all) = gradients, ctx.saved_tensors
        axes = (0, *range(2, y.dim()))
        sums = torch.stack([gradient.sum(axes), (gradient * y).sum(axes)])
        ctx.share.add_up([sums])
        along, across = (one.view(scale.shape) for one in sums / n_all)
        return ((gradient - along - y * across) * scale).to(ctx.dtype), None, None, None, None


@lru_cache
def _rounded(p: float) -> tuple[torch.dtype, int, float]:
    """A dropout's random integers: their type, the lowest that keeps an element, and its factor.

    8 bits if that changes p and 1 - p by a hundredth of themselves at most, else 16; one number at
    least keeps.

    >>> [(str(dtype), lowest) for dtype, lowest, _ in map(_rounded, (0.5, 0.3, 0.1))]
    [('torch.int8', 0), ('torch.int8', -51), ('torch.int16', -26214)]
    """
    n = 2**8
    dtype, n_dropped = torch.int8, round(p * n)
    if abs(n_dropped - p * n) > min(p, 1 - p) * n / 100:
        n = 2**16
        dtype, n_dropped = torch.int16, min(round(p * n), n - 1)
    return dtype, n_dropped - n // 2, n / (n - n_dropped)


@lru_cache
def kept_factor(p: float, dtype: torch.dtype) -> float:
    """By what `dropout_masks` of this type multiply on a CPU: 1 / (1 - p), p and it rounded.

    >>> kept_factor(0.5, torch.float32)
    2.0
    """
    return float(torch.tensor(_rounded(p)[2], dtype=dtype))


def dropout_masks(
    x: Tensor, p: float, generators: list[torch.Generator], share: Share = WHOLE
) -> Tensor:
    """A dropout mask for each of the stacked networks: 0 or 1 / (1 - p), `[N, B, ...]` as x.

    The masks are drawn for the whole batch, of which x may be a process's share.

    On a CPU several elements share one random number: drawing a number for each would take longer
    than the layers of a small network. So p is rounded: p and 1 - p change by a hundredth of
    themselves or by 1 / 65536 at most.
    """
    shape = [len(x), share.n_all(x.shape[1]), *x.shape[2:]] if x.dim() > 1 else list(x.shape)
    if x.device.type != "cpu":
        mask = x.new_empty(shape)
        for row, generator in zip(mask, generators, strict=True):
            row.bernoulli_(1 - p, generator=generator)
        return share.of(mask.div_(1 - p), 1)
    n = math.prod(shape[1:])
    dtype, lowest_kept, factor = _rounded(p)
    numbers = torch.empty(len(x), -(-n // (8 // dtype.itemsize)), dtype=torch.int64)
    for row, generator in zip(numbers.unbind(), generators, strict=True):
        row.random_(-(2**63), None, generator=generator)
    # In place and without booleans, which take three times as long.
    masks = numbers.view(dtype)[:, :n].ge_(lowest_kept).to(x.dtype)
    masks.mul_(factor)
    if x.dim() != 3:
        return share.of(masks.view(shape), 1)
    # Rows [N, B, features] have their samples side by side, as a linear layer leaves them.
    return share.of(masks.view(len(x), shape[2], shape[1]).mT, 1)
