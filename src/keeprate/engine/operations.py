"""Operations on stacked networks whose rules in vmap are slow or not right.

Linear layers; convolutions, their pooling and batch norm on a CPU; dropout. The layers themselves
are in `layers`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own convention
from torch import Tensor
from torch.overrides import TorchFunctionMode

from keeprate.engine.layers import (
    Geometry,
    channels_last,
    dropout_masks,
    into_channels,
    pair,
    stacked_batch_norm,
    stacked_convolution,
    stacked_linear,
)
from keeprate.engine.world import WHOLE, Share


class LockstepOperations(TorchFunctionMode):
    """Replaces some operations inside the networks.

    Linear layers: vmap multiplies N small matrices with N copies of the shared input; here that is
    one large product. Convolutions, pooling and batch norm of images: channels are last in memory
    here, which is faster on a CPU. Dropout: each network draws its mask from its own generator.

    Parameters
    ----------
    generators : list of torch.Generator
        One for each network that runs in one call.
    stacked : bool
        Whether the networks run in vmap; else only dropout and views are replaced, and batch norm
        where the statistics are those of several processes.
    share : Share
        Which part of the batch the networks get.
    """

    def __init__(
        self, generators: list[torch.Generator], *, stacked: bool, share: Share = WHOLE
    ) -> None:
        super().__init__()
        replacements = _REPLACEMENTS if stacked else {torch.Tensor.view: _view}
        if share.is_part:
            norm = _batch_norm if stacked else _batch_norm_alone
            replacements = replacements | {F.batch_norm: partial(norm, share=share)}
        self._replacements = replacements | {F.dropout: partial(_dropout, generators, share)}

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
        return torch.conv2d(*arguments)
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
        return torch.conv2d(*arguments)

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
        stacked = in_dims[0] is not None
        if in_dims[0] is not None:
            x = into_channels(x.movedim(in_dims[0], 0))
        if geometry[1] == "same":
            x = F.pad(x, _same_padding(weight, geometry[2]))
        padding = (0, 0) if isinstance(geometry[1], str) else pair(geometry[1])
        own = Geometry(pair(geometry[0]), padding, pair(geometry[2]))
        y = stacked_convolution(x, weight, bias, own, groups, stacked=stacked)
        y = y.to(weight.dtype)  # autocast may not reach what follows, such as batch norm
        return y.unflatten(1, (info.batch_size, -1)), 1


def _same_padding(weight: Tensor, dilation: Any) -> tuple[int, ...]:
    """Pixels to the left and right, above and below, that keep an image's size."""
    totals = [d * (k - 1) for d, k in zip(pair(dilation), weight.shape[-2:], strict=True)]
    return tuple(n for total in reversed(totals) for n in (total // 2, total - total // 2))


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
        x = into_channels(_networks_first(x, in_dims[1], info.batch_size))
        return pool(channels_last(x)).unflatten(1, (info.batch_size, -1)), 1


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    share: Share = WHOLE,
) -> Tensor:
    arguments = (input, running_mean, running_var, weight, bias, training, momentum, eps)
    if not share.is_part and (input.dim() != 4 or input.device.type != "cpu"):
        return F.batch_norm(*arguments)
    output: Tensor = _BatchNorm.apply(*arguments, share)  # type: ignore[no-untyped-call]
    return output


def _batch_norm_alone(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    share: Share,
) -> Tensor:
    """The batch norm of one network, which is no stack."""
    return stacked_batch_norm(
        input, running_mean, running_var, weight, bias, training, momentum, eps, share
    )


class _BatchNorm(_VmapRule):
    """A batch norm. For images vmap would multiply and add in passes of their own."""

    @staticmethod
    def forward(*arguments: Any) -> Tensor:
        return F.batch_norm(*arguments[:-1])

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], x: Tensor, *arguments: Any
    ) -> tuple[Tensor, int]:
        size = info.batch_size
        x = into_channels(_networks_first(x, in_dims[0], size))
        x = channels_last(x) if x.dim() == 4 else x
        mean, variance, weight, bias = (
            None if tensor is None else _networks_first(tensor, dim, size)
            for tensor, dim in zip(arguments[:4], in_dims[1:5], strict=True)
        )
        y = stacked_batch_norm(x, mean, variance, weight, bias, *arguments[4:])
        return y.unflatten(1, (size, -1)), 1


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
    F.batch_norm: _batch_norm,
    torch.Tensor.view: _view,
    **{pool: partial(_pool, pool) for pool in (F.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d)},
    **{norm: partial(_group_norm, norm) for norm in (F.group_norm, torch.group_norm)},
}


def _networks_first(tensor: Tensor, dim: int | None, size: int) -> Tensor:
    """Move the axis of the networks to the front; a tensor that all share has none yet."""
    return tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)


def _dropout(
    generators: list[torch.Generator],
    share: Share,
    input: Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
) -> Tensor:
    if not training or p == 0.0:
        return input
    if p == 1.0:
        return input * 0.0
    mask: Tensor = _DropoutMask.apply(input.detach(), p, generators, share)  # type: ignore[no-untyped-call]
    return input * mask


class _DropoutMask(torch.autograd.Function):
    """0 or 1 / (1 - p) for each element; each network draws from its own generator."""

    @staticmethod
    def forward(x: Tensor, p: float, generators: list[torch.Generator], share: Share) -> Tensor:
        return dropout_masks(x[None], p, generators, share)[0]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None, None, None]:
        return None, None, None, None

    @staticmethod
    def vmap(
        info: Any,
        in_dims: tuple[int | None, ...],
        x: Tensor,
        p: float,
        generators: list[torch.Generator],
        share: Share,
    ) -> tuple[Tensor, int]:
        x = _networks_first(x, in_dims[0], info.batch_size)
        return dropout_masks(x, p, generators, share), 0
