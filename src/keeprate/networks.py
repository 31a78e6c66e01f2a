"""K candidates x R peer networks behind one interface.

`StackedNetworks` runs them all in one call: `torch.func.vmap` over parameters stacked along a
first axis of N = K * R, or for plain perceptrons the stacked layers one after the other.
`ModuleNetworks` takes modules that vmap cannot take and runs them one by one, with the same
results. Both give logits `[K, R, B, C]`.
"""

from __future__ import annotations

import copy
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own convention
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call, vmap
from torch.optim import Optimizer
from torch.overrides import TorchFunctionMode

from keeprate.seeding import derive_seed, forked_seed, torch_generator

log = logging.getLogger(__name__)


class Networks(ABC):
    """K candidates x R peers that train in lockstep on the same batches.

    The results of a candidate depend on its own seed alone: initial weights and dropout masks
    come from generators of (seed, peer), whoever else is in the population.
    """

    def __init__(self, seeds: Sequence[int], n_peers: int, device: torch.device) -> None:
        self.n_candidates = len(seeds)
        self.n_peers = n_peers
        self.device = device
        self.training = True
        self._generators = [
            torch_generator(seed, "dropout", peer, device=device)
            for seed in seeds
            for peer in range(n_peers)
        ]

    @abstractmethod
    def __call__(self, inputs: Tensor) -> Tensor:
        """Map a batch `[B, ...]` to logits `[K, R, B, C]`."""

    @abstractmethod
    def parameters(self) -> list[Tensor]:
        """The tensors to optimise."""

    @abstractmethod
    def module(self, candidate: int, peer: int) -> nn.Module:
        """A plain PyTorch module with a copy of one network's weights."""

    @abstractmethod
    def train(self, mode: bool = True) -> None:
        """Switch dropout and batch norm to training (or, with False, to evaluation)."""

    @abstractmethod
    def _weights(self) -> dict[str, Tensor]: ...

    @abstractmethod
    def _drop(self, rows: Tensor, optimizer: Optimizer) -> None: ...

    def keep(self, candidates: Sequence[int], optimizer: Optimizer) -> None:
        """Drop all other candidates and free their memory, optimiser state included."""
        rows = [c * self.n_peers + peer for c in candidates for peer in range(self.n_peers)]
        optimizer.zero_grad(set_to_none=True)
        self._drop(torch.tensor(rows, dtype=torch.long, device=self.device), optimizer)
        self._generators = [self._generators[row] for row in rows]
        self.n_candidates = len(candidates)

    def state(self) -> dict[str, Tensor]:
        """Weights, buffers and generator states, as plain tensors."""
        generators = {
            f"generator.{row}": generator.get_state()
            for row, generator in enumerate(self._generators)
        }
        return self._weights() | generators

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take back what `state` gave."""
        for name, tensor in self._weights().items():
            tensor.copy_(state[name])
        for row, generator in enumerate(self._generators):
            generator.set_state(state[f"generator.{row}"])


class StackedNetworks(Networks):
    """All networks in one call over stacked parameters `[N, ...]`."""

    def __init__(
        self,
        build: Callable[[], nn.Module],
        seeds: Sequence[int],
        n_peers: int,
        device: torch.device,
    ) -> None:
        super().__init__(seeds, n_peers, device)
        self._parameters: dict[str, Tensor] = {}
        self._buffers: dict[str, Tensor] = {}
        n_networks = len(seeds) * n_peers
        for row, module in enumerate(_initial_modules(build, seeds, n_peers)):
            if row == 0:
                self._base = module.to(device)
                for stacked, named in (
                    (self._parameters, dict(module.named_parameters())),
                    (self._buffers, dict(module.named_buffers())),
                ):
                    for name, tensor in named.items():
                        shape = (n_networks, *tensor.shape)
                        stacked[name] = torch.empty(shape, dtype=tensor.dtype, device=device)
            for name, tensor in module.named_parameters():
                self._parameters[name][row].copy_(tensor.detach())
            for name, tensor in module.named_buffers():
                self._buffers[name][row].copy_(tensor)
        trainable = {name for name, p in self._base.named_parameters() if p.requires_grad}
        for name, tensor in self._parameters.items():
            tensor.requires_grad_(name in trainable)

        base = self._base  # not self: a cycle would keep a dropped population in memory
        self._layers = _plain_layers(base)

        def forward(
            parameters: dict[str, Tensor], buffers: dict[str, Tensor], inputs: Tensor
        ) -> Any:
            return functional_call(base, (parameters, buffers), (inputs,))

        self._forward = vmap(forward, in_dims=(0, 0, None), randomness="error")

    def __call__(self, inputs: Tensor) -> Tensor:
        if self._layers is not None:
            logits = _through_layers(self._layers, self._parameters, self._generators, inputs)
        else:
            with _LockstepOperations(self._generators, stacked=True):
                logits = self._forward(self._parameters, self._buffers, inputs)
        return logits.reshape(self.n_candidates, self.n_peers, *logits.shape[1:])

    def parameters(self) -> list[Tensor]:
        return [p for p in self._parameters.values() if p.requires_grad]

    def module(self, candidate: int, peer: int) -> nn.Module:
        row = candidate * self.n_peers + peer
        return _copy_of(
            self._base, {name: t[row] for name, t in (self._parameters | self._buffers).items()}
        )

    def train(self, mode: bool = True) -> None:
        self.training = mode
        self._base.train(mode)

    def _weights(self) -> dict[str, Tensor]:
        return {name: t.detach() for name, t in (self._parameters | self._buffers).items()}

    def _drop(self, rows: Tensor, optimizer: Optimizer) -> None:
        for parameter in self.parameters():
            for name, value in optimizer.state.get(parameter, {}).items():
                if value.shape == parameter.shape:  # a moment; the step counter is shared
                    optimizer.state[parameter][name] = value[rows]
        for stacked in (self._parameters, self._buffers):
            for tensor in stacked.values():
                tensor.data = tensor.data[rows]


OWN_PRODUCT = 2**22
"""Multiplications of a whole batch in one network from which a product of its own pays."""

_ELEMENTWISE = (nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.Identity)


def _plain_layers(module: nn.Module) -> list[tuple[str, nn.Module]] | None:
    """The layers of a plain multilayer perceptron, which needs no vmap; None for other networks.

    Exact types, no hooks: a subclass may do something else.
    """
    if type(module) is not nn.Sequential or _hooked(module):
        return None
    layers = [(name, layer) for name, layer in module._modules.items() if layer is not None]
    for _, layer in layers:
        if type(layer) not in (nn.Linear, nn.Flatten, nn.Dropout, *_ELEMENTWISE) or _hooked(layer):
            return None
        if type(layer) is nn.Flatten and (layer.start_dim, layer.end_dim) != (1, -1):
            return None
    linear = [layer for _, layer in layers if type(layer) is nn.Linear]
    flat = bool(layers) and type(layers[0][1]) is nn.Flatten
    shared = len(list(module.parameters())) < sum(len(list(x.parameters())) for x in linear)
    return layers if linear and flat and not shared else None


def _hooked(module: nn.Module) -> bool:
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return "forward" in vars(module) or any(getattr(module, name) for name in hooks)


def _through_layers(
    layers: list[tuple[str, nn.Module]],
    parameters: dict[str, Tensor],
    generators: list[torch.Generator],
    inputs: Tensor,
) -> Tensor:
    """What vmap would give for these layers, without its cost at each step: `[N, B, C]`."""
    x, stacked = inputs, False
    for name, layer in layers:
        if isinstance(layer, nn.Linear):
            x = _stacked_linear(
                x, parameters[f"{name}.weight"], parameters.get(f"{name}.bias"), stacked=stacked
            )
            stacked = True
        elif isinstance(layer, nn.Flatten):
            x = x.flatten(2 if stacked else 1)
        elif isinstance(layer, nn.Dropout) and layer.training and 0 < layer.p < 1:
            if not stacked:
                x, stacked = x.expand(len(generators), *x.shape), True
            x = x * _masks(x, layer.p, generators)
        else:
            x = layer(x)
    return x


class ModuleNetworks(Networks):
    """Ordinary modules, one after the other: for what vmap cannot take."""

    def __init__(
        self,
        build: Callable[[], nn.Module],
        seeds: Sequence[int],
        n_peers: int,
        device: torch.device,
    ) -> None:
        super().__init__(seeds, n_peers, device)
        self._modules = [m.to(device) for m in _initial_modules(build, seeds, n_peers)]
        # Random operations other than dropout draw from PyTorch's own generator.
        self._random_states = [
            torch_generator(seed, "other", peer).get_state()
            for seed in seeds
            for peer in range(n_peers)
        ]

    def __call__(self, inputs: Tensor) -> Tensor:
        logits = []
        with torch.random.fork_rng(devices=[]):
            for row, module in enumerate(self._modules):
                torch.set_rng_state(self._random_states[row])
                with _LockstepOperations([self._generators[row]], stacked=False):
                    logits.append(module(inputs))
                if self.training:
                    self._random_states[row] = torch.get_rng_state()
        stacked = torch.stack(logits)
        return stacked.view(self.n_candidates, self.n_peers, *stacked.shape[1:])

    def parameters(self) -> list[Tensor]:
        return [p for module in self._modules for p in module.parameters() if p.requires_grad]

    def module(self, candidate: int, peer: int) -> nn.Module:
        module = self._modules[candidate * self.n_peers + peer]
        return _copy_of(module, {**dict(module.named_parameters()), **dict(module.named_buffers())})

    def train(self, mode: bool = True) -> None:
        self.training = mode
        for module in self._modules:
            module.train(mode)

    def _weights(self) -> dict[str, Tensor]:
        named = {f"random.{row}": state for row, state in enumerate(self._random_states)}
        for row, module in enumerate(self._modules):
            for name, tensor in (*module.named_parameters(), *module.named_buffers()):
                named[f"{row}.{name}"] = tensor.detach()
        return named

    def _drop(self, rows: Tensor, optimizer: Optimizer) -> None:
        kept = set(rows.tolist())
        for row, module in enumerate(self._modules):
            if row not in kept:
                for parameter in module.parameters():
                    optimizer.state.pop(parameter, None)
        self._modules = [self._modules[row] for row in rows.tolist()]
        self._random_states = [self._random_states[row] for row in rows.tolist()]
        optimizer.param_groups[0]["params"] = self.parameters()


def build_networks(
    build: Callable[[], nn.Module],
    seeds: Sequence[int],
    *,
    n_peers: int,
    probe: Tensor,
    device: torch.device,
) -> Networks:
    """Build K x R networks, stacked if the module allows it.

    Parameters
    ----------
    build : callable
        Builds one network; its initial weights come from PyTorch's generator.
    seeds : sequence of K ints
        One for each candidate.
    n_peers : int
        R.
    probe : Tensor [b, ...]
        A few normalised inputs, to try whether vmap takes the module.
    device : torch.device

    Returns
    -------
    Networks
    """
    try:
        trial = StackedNetworks(build, [seeds[0]] * 2, n_peers, device)
        trial(probe).sum().backward()
        plain = ModuleNetworks(build, seeds[:1], 1, device)
        plain(probe)
        updated = dict(plain.module(0, 0).named_buffers())
        for name, buffer in trial.module(0, 0).named_buffers():
            # functional_call drops a buffer that is assigned anew instead of changed in place.
            if not torch.allclose(buffer.double(), updated[name].double(), rtol=1e-3, atol=1e-5):
                raise RuntimeError(f"buffer {name} is replaced, not updated in place")
    except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        reason = str(error).strip().splitlines()
        log.info("vmap does not take this network, training one by one: %s", reason[:1])
        return ModuleNetworks(build, seeds, n_peers, device)
    del trial
    return StackedNetworks(build, seeds, n_peers, device)


def _initial_modules(build: Callable[[], nn.Module], seeds: Sequence[int], n_peers: int) -> Any:
    for seed in seeds:
        for peer in range(n_peers):
            with forked_seed(derive_seed(seed, "weights", peer)):
                module = build()
            yield module


def _copy_of(module: nn.Module, tensors: dict[str, Tensor]) -> nn.Module:
    with torch.no_grad():
        other = copy.deepcopy(module).to("cpu")
        for name, target in (*other.named_parameters(), *other.named_buffers()):
            target.copy_(tensors[name])
    return other.eval()


class _LockstepOperations(TorchFunctionMode):
    """Replaces two operations inside the networks.

    Linear layers: vmap's own rule multiplies N small matrices with N copies of the shared
    input; ours is one large product. Dropout: each network
    draws its mask from its own generator.
    """

    def __init__(self, generators: list[torch.Generator], *, stacked: bool) -> None:
        super().__init__()
        self._generators, self._stacked = generators, stacked

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.linear and self._stacked:
            return _Linear.apply(*_linear_arguments(*args, **kwargs))  # type: ignore[no-untyped-call]
        if func is F.dropout:
            return _dropout(self._generators, *args, **kwargs)
        return func(*args, **kwargs)


def _linear_arguments(
    input: Tensor, weight: Tensor, bias: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor | None]:
    return input, weight, bias


class _Linear(torch.autograd.Function):
    """y = x W^T + b, with a vmap rule of our own.

    Outputs are kept feature-major (`[N, out, B]` in memory, seen as `[N, B, out]`): then the
    forward product is one large product without copies, and so can the weight gradient be.
    """

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(x, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Nothing to keep: only the vmap rule runs, and autograd follows its operations."""

    @staticmethod
    def vmap(
        info: Any,
        in_dims: tuple[int | None, ...],
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
    ) -> tuple[Tensor, int]:
        weight = _leading(weight, in_dims[1], info.batch_size)
        if bias is not None:
            bias = _leading(bias, in_dims[2], info.batch_size)
        stacked = in_dims[0] is not None
        if in_dims[0] is not None:
            x = x.movedim(in_dims[0], 0)
        return _stacked_linear(x, weight, bias, stacked=stacked), 0


def _stacked_linear(x: Tensor, weight: Tensor, bias: Tensor | None, *, stacked: bool) -> Tensor:
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
            y += bias.reshape(-1, 1)
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
        if not learned.all():
            product = gradient.new_empty(shape)
            row = 0
            for n_chosen, group in groupby(learned.sum(1).tolist()):
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
        return _masks(_leading(x, in_dims[0], info.batch_size), p, generators), 0


def _masks(x: Tensor, p: float, generators: list[torch.Generator]) -> Tensor:
    """A dropout mask for each of the stacked networks, `[N, ...]`."""
    mask = torch.empty_like(x, memory_format=torch.contiguous_format)
    for row, generator in zip(mask, generators, strict=True):
        row.bernoulli_(1 - p, generator=generator)
    return mask.div_(1 - p)
