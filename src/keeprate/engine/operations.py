"""Operations on stacked networks that vmap's own rules make slow, or that must differ from its.

Linear layers, convolutions and their pooling on a CPU, dropout.
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

OWN_PRODUCT = 2**22
"""Multiplications of a whole batch in one network from which a product of its own pays."""

_CONVOLVE: Callable[..., Tensor] = torch.conv2d


class LockstepOperations(TorchFunctionMode):
    """Replaces some operations inside the networks.

    Linear layers: vmap's own rule multiplies N small matrices with N copies of the shared
    input; ours is one large product. Convolutions and pooling of images: ours keep channels last in
    memory, which a CPU prefers. Dropout: each network draws its mask from its own generator.
    """

    def __init__(self, generators: list[torch.Generator], *, stacked: bool) -> None:
        super().__init__()
        rules = _OF_STACKED if stacked else {}
        self._replacements = rules | {F.dropout: partial(_dropout, generators)}

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        return self._replacements.get(func, func)(*args, **(kwargs or {}))


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    found: Tensor = _Linear.apply(input, weight, bias)  # type: ignore[no-untyped-call]
    return found


class _VmapRule(torch.autograd.Function):
    """A layer with a vmap rule of our own, of which nothing but that rule runs."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Nothing to keep: autograd follows the operations of the rule."""

    @staticmethod
    def stacked(
        info: Any, dims: tuple[int | None, ...], weight: Tensor, bias: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Weight and bias with the networks first, whether they are shared or not."""
        size = info.batch_size
        own = None if bias is None else _leading(bias, dims[1], size)
        return _leading(weight, dims[0], size), own


class _Linear(_VmapRule):
    """y = x W^T + b.

    Outputs are kept feature-major (`[N, out, B]` in memory, seen as `[N, B, out]`): then the
    forward product is one large product without copies, and so can the weight gradient be.
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
        weight, bias = _VmapRule.stacked(info, in_dims[1:3], weight, bias)
        stacked = in_dims[0] is not None
        if in_dims[0] is not None:
            x = x.movedim(in_dims[0], 0)
        y = stacked_linear(x, weight, bias, stacked=stacked)
        return y.to(weight.dtype), 0  # autocast does not reach all that may follow: batch norm


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

    The weight gradient costs what was selected: a sample that is left out has a gradient of
    exactly zero, so that of the product only the part R of the selected is to be computed.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        n_networks, n_out, n_in = weight.shape
        rows = weight.reshape(n_networks * n_out, n_in)
        y = rows @ x.T
        if bias is not None:
            y += bias.to(y.dtype).reshape(-1, 1)  # of two dtypes it would be copied twice
        ctx.save_for_backward(x.to(y.dtype), weight)  # autocast: x as it was multiplied
        ctx.has_bias = bias is not None
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        gradient = gradients[0].reshape(*weight.shape[:2], -1)  # [N, out, B]
        of_x = of_weight = None
        if ctx.needs_input_grad[0]:
            of_x = torch.einsum("nob,noi->bi", gradient, weight.to(x.dtype))
        if ctx.needs_input_grad[1]:
            of_weight = _weight_gradient(gradient, x).to(weight.dtype)
        of_bias = gradient.sum(-1).to(weight.dtype) if ctx.has_bias else None
        return of_x, of_weight, of_bias


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
    found: Tensor = _Convolution.apply(*arguments)  # type: ignore[no-untyped-call]
    return found


class _Convolution(_VmapRule):
    """A convolution of a batch of images.

    Like vmap's it is one of N times the groups or, of shared inputs, one with N times as many
    outputs; but with channels last in memory, as a CPU is fastest: results are `[B, H, W, N, C]`
    there, seen as `[N, B, C, H, W]`, and what follows is faster for it too.
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
        weight, bias = _VmapRule.stacked(info, in_dims[1:3], weight, bias)
        *others, groups = options
        if in_dims[0] is None:  # shared inputs: each group gives the outputs of all networks
            weight = _groups_first(weight, groups)
            bias = None if bias is None else _groups_first(bias, groups)
        else:
            x, groups = _into_channels(x.movedim(in_dims[0], 0)), groups * info.batch_size
        rows = None if bias is None else bias.flatten()
        y = _CONVOLVE(_channels_last(x), weight.flatten(0, 1), rows, *others, groups)
        y = y.to(weight.dtype)  # autocast does not reach all that may follow: batch norm
        if in_dims[0] is not None:
            return y.unflatten(1, (info.batch_size, -1)), 1
        y = y.unflatten(1, (groups, info.batch_size, -1)).transpose(1, 2)
        return y.flatten(2, 3), 1


def _groups_first(weight: Tensor, groups: int) -> Tensor:
    """`[N, G * C, ...]` to `[G, N * C, ...]`."""
    grouped: Tensor = weight.unflatten(1, (groups, -1))
    return grouped.transpose(0, 1).flatten(1, 2)


def _pool(pool: Callable[..., Tensor], input: Tensor, *options: Any, **named: Any) -> Tensor:
    if input.dim() != 4 or input.device.type != "cpu":
        return pool(input, *options, **named)
    found: Tensor = _Pool.apply(lambda x: pool(x, *options, **named), input)  # type: ignore[no-untyped-call]
    return found


class _Pool(_VmapRule):
    """A pooling of images.

    To vmap's rules the networks are more samples, which costs a copy of what `_Convolution` gives;
    to ours they are more channels.
    """

    @staticmethod
    def forward(pool: Callable[..., Tensor], x: Tensor) -> Tensor:
        return pool(x)

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], pool: Callable[..., Tensor], x: Tensor
    ) -> tuple[Tensor, int]:
        x = _into_channels(_leading(x, in_dims[1], info.batch_size))
        return pool(_channels_last(x)).unflatten(1, (info.batch_size, -1)), 1


def _group_norm(norm: Callable[..., Tensor], input: Tensor, *options: Any, **named: Any) -> Tensor:
    """Of channels last, vmap has no rule for it."""
    return norm(input.contiguous(), *options, **named)


def _view(input: Tensor, *shape: Any, **named: Any) -> Tensor:
    """Networks flatten images by it, which with channels last in memory needs a copy."""
    if named or isinstance(shape[0], torch.dtype):
        return input.view(*shape, **named)
    return input.reshape(*shape)


_OF_STACKED: dict[Any, Callable[..., Tensor]] = {
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
    """`[B, C, H, W]` in the same order, but not in memory."""
    return x.contiguous(memory_format=torch.channels_last)


def _weight_gradient(gradient: Tensor, x: Tensor) -> Tensor:
    """`[N, out, B] @ [B, in]`; each network's selected samples alone where that is faster.

    Neighbours that selected as many samples (the peers of a candidate, as a rule) share a batched
    product: a thread for each network is faster than all threads in each product.

    That is on a CPU, from `OWN_PRODUCT` on. In bfloat16 gathering the samples costs what it saves,
    and a GPU would have to wait until their number is known.
    """
    n_networks, n_out, n_samples = gradient.shape
    shape = (n_networks, n_out, x.shape[1])
    large = n_out * n_samples * x.shape[1] >= OWN_PRODUCT
    if large and gradient.device.type == "cpu" and gradient.dtype != torch.bfloat16:
        learned = gradient.abs().sum(1) != 0  # [N, B]; NaN is not 0 either
        numbers = learned.sum(1).tolist()
        if min(numbers) < n_samples:
            product = gradient.new_empty(shape)
            row = 0
            for n_chosen, group in groupby(numbers):
                rows = slice(row, row := row + len(list(group)))
                chosen = learned[rows].nonzero()[:, 1].view(rows.stop - rows.start, n_chosen)
                own = gradient[rows].gather(2, chosen.unsqueeze(1).expand(-1, n_out, -1))
                inputs = x.index_select(0, chosen.flatten()).view(*chosen.shape, x.shape[1])
                torch.bmm(own, inputs, out=product[rows])
            return product
    return (gradient.reshape(-1, n_samples) @ x).view(shape)


def _leading(tensor: Tensor, dim: int | None, size: int) -> Tensor:
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
    """0 or 1 / (1 - p) for each element, drawn by each network's own generator."""

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
        return dropout_masks(_leading(x, in_dims[0], info.batch_size), p, generators), 0


def dropout_masks(x: Tensor, p: float, generators: list[torch.Generator]) -> Tensor:
    """A dropout mask for each of the stacked networks, `[N, ...]`."""
    mask = torch.empty_like(x, memory_format=torch.contiguous_format)
    for row, generator in zip(mask, generators, strict=True):
        row.bernoulli_(1 - p, generator=generator)
    return mask.div_(1 - p)
