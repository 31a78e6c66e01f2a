"""Operations on stacked networks whose rules in vmap are slow or not right.

Linear layers; convolutions and their pooling on a CPU; dropout.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import groupby
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own convention
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

LARGE_PRODUCT = 2**22
"""Multiplications for a batch in one network from which it pays to leave samples out."""

_CONVOLVE: Callable[..., Tensor] = torch.conv2d


class LockstepOperations(TorchFunctionMode):
    """Replaces some operations inside the networks.

    Linear layers: vmap multiplies N small matrices with N copies of the shared input; here that is
    one large product. Convolutions and pooling of images: channels are last in memory here, which
    is faster on a CPU. Dropout: each network draws its mask from its own generator.

    Parameters
    ----------
    generators : list of torch.Generator
        One for each network that runs in one call.
    stacked : bool
        Whether the networks run in vmap; else only dropout is replaced.
    """

    def __init__(self, generators: list[torch.Generator], *, stacked: bool) -> None:
        super().__init__()
        replacements = _REPLACEMENTS if stacked else {}
        self._replacements = replacements | {F.dropout: partial(_dropout, generators)}

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        return self._replacements.get(func, func)(*args, **(kwargs or {}))


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    output: Tensor = _Linear.apply(input, weight, bias)  # type: ignore[no-untyped-call]
    return output


class _VmapRule(torch.autograd.Function):
    """A layer with its own vmap rule; nothing else of the function runs."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep nothing: autograd follows the operations of the rule."""

    @staticmethod
    def networks_first(
        info: Any, dims: tuple[int | None, ...], weight: Tensor, bias: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Weight and bias with the axis of the networks first, also if all share them."""
        size = info.batch_size
        weight = _networks_first(weight, dims[0], size)
        return weight, None if bias is None else _networks_first(bias, dims[1], size)


class _Linear(_VmapRule):
    """y = x W^T + b.

    Outputs are feature-major, `[N, out, B]` in memory and `[N, B, out]` to the reader. The forward
    product is then one large product without copies, and the weight gradient can be one too.
    """

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(x, weight, bias)

    @staticmethod
    def vmap(
        info: Any,
        in_dims: tuple[int | None, ...],
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
    ) -> tuple[Tensor, int]:
        weight, bias = _VmapRule.networks_first(info, in_dims[1:3], weight, bias)
        stacked = in_dims[0] is not None
        if in_dims[0] is not None:
            x = x.movedim(in_dims[0], 0)
        y = stacked_linear(x, weight, bias, stacked=stacked)
        return y.to(weight.dtype), 0  # autocast may not reach what follows, such as batch norm


def stacked_linear(x: Tensor, weight: Tensor, bias: Tensor | None, *, stacked: bool) -> Tensor:
    """N linear layers at once: x `[B, ..., in]`, or `[N, B, ..., in]` if stacked."""
    n_networks, n_out, n_in = weight.shape
    if not stacked:  # the same inputs for every network: one product for all
        flat = x.reshape(-1, n_in)
        product: Tensor = _SharedLinear.apply(flat, weight, bias)  # type: ignore[no-untyped-call]
        y = product.view(n_networks, n_out, -1).mT
    else:
        flat = x.reshape(n_networks, -1, n_in)
        if bias is None:
            y = torch.bmm(weight, flat.mT).mT
        else:
            y = torch.baddbmm(bias.unsqueeze(-1), weight, flat.mT).mT
    shape = x.shape[1:-1] if stacked else x.shape[:-1]
    return y.unflatten(1, shape) if len(shape) != 1 else y


class _SharedLinear(torch.autograd.Function):
    """N linear layers on the same inputs `[B, in]`, to `[N * out, B]`.

    A sample that was not selected has a gradient of exactly zero. The weight gradient therefore
    needs the selected samples only.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        n_networks, n_out, n_in = weight.shape
        rows = weight.reshape(n_networks * n_out, n_in)
        y = rows @ x.T
        if bias is not None:
            y += bias.to(y.dtype).reshape(-1, 1)  # a sum of two dtypes would cost two copies
        ctx.save_for_backward(x.to(y.dtype), weight)  # x as it was multiplied, under autocast
        ctx.has_bias = bias is not None
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        gradient = gradients[0].reshape(*weight.shape[:2], -1)  # [N, out, B]
        x_gradient = weight_gradient = bias_gradient = None
        if ctx.needs_input_grad[0]:
            x_gradient = torch.einsum("nob,noi->bi", gradient, weight.to(x.dtype))
        if ctx.needs_input_grad[1]:
            weight_gradient = _weight_gradient(gradient, x).to(weight.dtype)
        if ctx.has_bias:
            bias_gradient = gradient.sum(-1).to(weight.dtype)
        return x_gradient, weight_gradient, bias_gradient


def _convolution(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    arguments = (input, weight, bias, stride, padding, dilation, groups)
    if input.dim() != 4 or input.device.type != "cpu":
        return _CONVOLVE(*arguments)
    output: Tensor = _Convolution.apply(*arguments)  # type: ignore[no-untyped-call]
    return output


class _Convolution(_VmapRule):
    """A convolution of a batch of images.

    As in vmap, N convolutions are one with N times the groups or, where all share the inputs, one
    with N times the outputs. Here channels are last in memory, which is fastest on a CPU, also for
    the layers that follow: results are `[B, H, W, N, C]` in memory and `[N, B, C, H, W]` to the
    reader.
    """

    @staticmethod
    def forward(*arguments: Any) -> Tensor:
        return _CONVOLVE(*arguments)

    @staticmethod
    def vmap(
        info: Any,
        in_dims: tuple[int | None, ...],
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        *options: Any,
    ) -> tuple[Tensor, int]:
        weight, bias = _VmapRule.networks_first(info, in_dims[1:3], weight, bias)
        *geometry, groups = options
        if in_dims[0] is None:  # shared inputs: each group gives the outputs of all networks
            weight = _groups_first(weight, groups)
            bias = None if bias is None else _groups_first(bias, groups)
        else:
            x, groups = _into_channels(x.movedim(in_dims[0], 0)), groups * info.batch_size
        all_biases = None if bias is None else bias.flatten()
        y = _CONVOLVE(_channels_last(x), weight.flatten(0, 1), all_biases, *geometry, groups)
        y = y.to(weight.dtype)  # autocast may not reach what follows, such as batch norm
        if in_dims[0] is not None:
            return y.unflatten(1, (info.batch_size, -1)), 1
        y = y.unflatten(1, (groups, info.batch_size, -1)).transpose(1, 2)
        return y.flatten(2, 3), 1


def _groups_first(weight: Tensor, groups: int) -> Tensor:
    """`[N, G * C, ...]` to `[G, N * C, ...]`."""
    grouped: Tensor = weight.unflatten(1, (groups, -1))
    return grouped.transpose(0, 1).flatten(1, 2)


def _pool(pool: Callable[..., Tensor], input: Tensor, *options: Any, **keywords: Any) -> Tensor:
    if input.dim() != 4 or input.device.type != "cpu":
        return pool(input, *options, **keywords)
    output: Tensor = _Pool.apply(lambda x: pool(x, *options, **keywords), input)  # type: ignore[no-untyped-call]
    return output


class _Pool(_VmapRule):
    """A pooling of images.

    vmap would treat the networks as more samples, and copy what `_Convolution` gives. Here they are
    more channels.
    """

    @staticmethod
    def forward(pool: Callable[..., Tensor], x: Tensor) -> Tensor:
        return pool(x)

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], pool: Callable[..., Tensor], x: Tensor
    ) -> tuple[Tensor, int]:
        x = _into_channels(_networks_first(x, in_dims[1], info.batch_size))
        return pool(_channels_last(x)).unflatten(1, (info.batch_size, -1)), 1


def _group_norm(
    norm: Callable[..., Tensor], input: Tensor, *options: Any, **keywords: Any
) -> Tensor:
    """Group norm of contiguous inputs: vmap has no rule for channels last."""
    return norm(input.contiguous(), *options, **keywords)


def _view(input: Tensor, *shape: Any, **keywords: Any) -> Tensor:
    """A view that may copy: networks flatten images by a view, and channels are last in memory."""
    if keywords or isinstance(shape[0], torch.dtype):
        return input.view(*shape, **keywords)
    return input.reshape(*shape)


_REPLACEMENTS: dict[Any, Callable[..., Tensor]] = {
    F.linear: _linear,
    torch.conv2d: _convolution,
    torch.Tensor.view: _view,
    **{pool: partial(_pool, pool) for pool in (F.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d)},
    **{norm: partial(_group_norm, norm) for norm in (F.group_norm, torch.group_norm)},
}


def _into_channels(x: Tensor) -> Tensor:
    """`[N, B, C, ...]` to `[B, N * C, ...]`."""
    return x.movedim(0, 1).flatten(1, 2)


def _channels_last(x: Tensor) -> Tensor:
    """`[B, C, H, W]` to the reader, `[B, H, W, C]` in memory."""
    return x.contiguous(memory_format=torch.channels_last)


def _weight_gradient(gradient: Tensor, x: Tensor) -> Tensor:
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
    return (gradient.reshape(-1, n_samples) @ x).view(n_networks, n_out, x.shape[1])


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


def _networks_first(tensor: Tensor, dim: int | None, size: int) -> Tensor:
    """Move the axis of the networks to the front; a tensor that all share has none yet."""
    return tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)


def _dropout(
    generators: list[torch.Generator],
    input: Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
) -> Tensor:
    if not training or p == 0.0:
        return input
    if p == 1.0:
        return input * 0.0
    mask: Tensor = _DropoutMask.apply(input.detach(), p, generators)  # type: ignore[no-untyped-call]
    return input * mask


class _DropoutMask(torch.autograd.Function):
    """0 or 1 / (1 - p) for each element; each network draws from its own generator."""

    @staticmethod
    def forward(x: Tensor, p: float, generators: list[torch.Generator]) -> Tensor:
        (generator,) = generators
        return torch.empty_like(x).bernoulli_(1 - p, generator=generator).div_(1 - p)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None, None]:
        return None, None, None

    @staticmethod
    def vmap(
        info: Any,
        in_dims: tuple[int | None, ...],
        x: Tensor,
        p: float,
        generators: list[torch.Generator],
    ) -> tuple[Tensor, int]:
        return dropout_masks(_networks_first(x, in_dims[0], info.batch_size), p, generators), 0


def dropout_masks(x: Tensor, p: float, generators: list[torch.Generator]) -> Tensor:
    """A dropout mask for each of the stacked networks, `[N, ...]`."""
    mask = torch.empty_like(x, memory_format=torch.contiguous_format)
    for row, generator in zip(mask, generators, strict=True):
        row.bernoulli_(1 - p, generator=generator)
    return mask.div_(1 - p)
