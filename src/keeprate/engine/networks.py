"""K candidates x R peer networks behind one interface.

`StackedNetworks` runs all networks in one call. Their parameters are stacked along a first axis
of N = K * R, and `torch.func.vmap` runs over that axis; plain sequences of layers run without vmap.
`ModuleNetworks` runs modules that vmap cannot take one by one, with the same results. Both
give logits `[K, R, B, C]`.
"""

from __future__ import annotations

import copy
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.optim import Optimizer
from torch.utils.flop_counter import FlopCounterMode

from keeprate.engine.heads import headless
from keeprate.engine.operations import LockstepOperations
from keeprate.engine.perceptron import Perceptron
from keeprate.engine.sequential import Layers, plain_layers, through_layers
from keeprate.engine.world import WHOLE, Share
from keeprate.errors import InputError, Words, invalid
from keeprate.seeding import derive_seed, forked_seed, torch_generator

LARGE_CONVOLUTIONS = 2**24
"""Operations of a network's convolutions for a sample, forward, from which networks run one after
the other. Model 1 has 1.2 million, resnet18-small 70 million, Model 2 224 million. Measured on
a CPU alone; `python -m benchmarks.gpu` measures both ways on a GPU."""

log = logging.getLogger(__name__)


class Networks(ABC):
    """K candidates x R peers that train in lockstep on the same batches.

    The results of a candidate depend on its own seed alone, whoever else is in the population:
    initial weights and dropout masks come from generators of (seed, peer).

    Attributes
    ----------
    n_candidates : int
        K.
    n_peers : int
        R.
    device : torch.device
    training : bool
    generators : list of N torch.Generator
        On the device: from which each network draws its dropout.
    """

    def __init__(self, seeds: Sequence[int], n_peers: int, device: torch.device) -> None:
        self.n_candidates = len(seeds)
        self.n_peers = n_peers
        self.device = device
        self.training = True
        self.generators = [
            torch_generator(seed, "dropout", peer, device=device)
            for seed in seeds
            for peer in range(n_peers)
        ]

    @abstractmethod
    def __call__(self, inputs: Tensor) -> Tensor:
        """Map a batch `[B, ...]` to logits `[K, R, B, C]`."""

    @abstractmethod
    def outputs(self, inputs: Tensor, share: Share = WHOLE) -> Tensor:
        """Logits `[K, R, b, C]` of the share of a batch, from which `backward` follows.

        Dropout and batch norm work as for the whole batch.
        """

    def backward(self, outputs: Tensor, gradient: Tensor) -> None:
        """Add to the parameters' gradients, from that of the last `outputs` `[K, R, B, C]`."""
        outputs.backward(gradient)

    @abstractmethod
    def clip_gradients(self, most: float) -> None:
        """Scale the gradient of each network down to a norm of `most`, where it is longer.

        As `torch.nn.utils.clip_grad_norm_` does for one network.
        """

    @abstractmethod
    def embeddings(self, inputs: Tensor) -> Tensor:
        """Map a batch `[B, ...]` to what each network's last layer gets, `[K, R, B, D]`."""

    @abstractmethod
    def parameters(self) -> list[Tensor]:
        """The tensors to optimise."""

    @abstractmethod
    def module(
        self, candidate: int, peer: int, weights: Mapping[str, Tensor] | None = None
    ) -> nn.Module:
        """A plain PyTorch module with a copy of one network's weights, now or in a snapshot."""

    def snapshot(self) -> dict[str, Tensor]:
        """A copy of the weights and buffers of all networks."""
        return {name: tensor.clone() for name, tensor in self._weights().items()}

    @abstractmethod
    def renew(self, snapshot: Mapping[str, Tensor], rows: Tensor) -> None:
        """Copy the weights of the networks that `rows` [N] marks into a snapshot.

        The host does not wait for the device.
        """

    @abstractmethod
    def rows_of(self, snapshot: Mapping[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
        """A snapshot of these rows [n] alone, as `keep` leaves them."""

    @abstractmethod
    def train(self, mode: bool = True) -> None:
        """Switch dropout and batch norm to training (or, with False, to evaluation)."""

    @abstractmethod
    def _weights(self) -> dict[str, Tensor]: ...

    @abstractmethod
    def _drop(self, rows: Tensor, optimizer: Optimizer) -> None: ...

    def keep(self, candidates: Sequence[int], optimizer: Optimizer) -> None:
        """Keep these rows, and free the memory of all others, the optimiser's state included."""
        rows = [c * self.n_peers + peer for c in candidates for peer in range(self.n_peers)]
        optimizer.zero_grad(set_to_none=True)
        self._drop(torch.tensor(rows, dtype=torch.long, device=self.device), optimizer)
        self.generators = [self.generators[row] for row in rows]
        self.n_candidates = len(candidates)

    def state(self) -> dict[str, Tensor]:
        """Weights, buffers and generator states, as plain tensors."""
        generators = {
            f"generator.{row}": generator.get_state()
            for row, generator in enumerate(self.generators)
        }
        return self._weights() | generators

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Restore what `state` gave."""
        for name, tensor in self._weights().items():
            tensor.copy_(state[name])
        for row, generator in enumerate(self.generators):
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
        modules = _initial_modules(build, seeds, n_peers)
        base = next(modules).to(device)
        n_networks = len(seeds) * n_peers
        self._base = base
        self._parameters = _stacked_empty(base.named_parameters(), n_networks)
        self._buffers = _stacked_empty(base.named_buffers(), n_networks)
        for row, module in enumerate(chain([base], modules)):  # one module in memory at a time
            for name, parameter in module.named_parameters():
                self._parameters[name][row].copy_(parameter.detach())
            for name, buffer in module.named_buffers():
                self._buffers[name][row].copy_(buffer)
        for name, parameter in base.named_parameters():
            self._parameters[name].requires_grad_(parameter.requires_grad)
        self._layers = plain_layers(base, device)
        # A GPU replays a graph of the step, where autograd costs nothing.
        self._perceptron: Perceptron | None = None
        if self._layers is not None and device.type == "cpu":
            self._perceptron = Perceptron.of(self._layers)

        # base, not self: a cycle would keep a dropped population in memory.
        def forward(
            parameters: dict[str, Tensor], buffers: dict[str, Tensor], inputs: Tensor
        ) -> Any:
            return functional_call(base, (parameters, buffers), (inputs,))

        self._forward = vmap(forward, in_dims=(0, 0, None), randomness="error")

    def __call__(self, inputs: Tensor) -> Tensor:
        return self._through(self._layers, inputs, WHOLE)

    def embeddings(self, inputs: Tensor) -> Tensor:
        with headless(self._base):
            layers = None if self._layers is None else plain_layers(self._base, self.device)
            return self._through(layers, inputs, WHOLE)

    def _through(self, layers: Layers | None, inputs: Tensor, share: Share) -> Tensor:
        if layers is not None:
            stacked = self._parameters | self._buffers
            outputs = through_layers(layers, stacked, self.generators, inputs, share)
        else:
            with LockstepOperations(self.generators, stacked=True, share=share):
                outputs = self._forward(self._parameters, self._buffers, inputs)
        return outputs.reshape(self.n_candidates, self.n_peers, *outputs.shape[1:])

    def outputs(self, inputs: Tensor, share: Share = WHOLE) -> Tensor:
        if self._perceptron is None:
            return self._through(self._layers, inputs, share)
        logits = self._perceptron.forward(self._parameters, self.generators, inputs, share)
        return logits.reshape(self.n_candidates, self.n_peers, *logits.shape[1:])

    def backward(self, outputs: Tensor, gradient: Tensor) -> None:
        if self._perceptron is None:
            super().backward(outputs, gradient)
        else:
            self._perceptron.backward(self._parameters, gradient.flatten(0, 1))

    def clip_gradients(self, most: float) -> None:
        gradients = [p.grad for p in self.parameters() if p.grad is not None]
        squares = sum(g.reshape(len(g), -1).square().sum(1) for g in gradients)  # [N]
        factors = (most / (torch.as_tensor(squares).sqrt() + 1e-6)).clamp(max=1.0)
        for gradient in gradients:
            gradient.mul_(factors.view(-1, *[1] * (gradient.dim() - 1)))

    def parameters(self) -> list[Tensor]:
        return [p for p in self._parameters.values() if p.requires_grad]

    def module(
        self, candidate: int, peer: int, weights: Mapping[str, Tensor] | None = None
    ) -> nn.Module:
        row, stacked = candidate * self.n_peers + peer, weights or self._weights()
        return with_weights(self._base, {name: tensor[row] for name, tensor in stacked.items()})

    def renew(self, snapshot: Mapping[str, Tensor], rows: Tensor) -> None:
        for name, tensor in self._weights().items():
            marked = rows.view(-1, *[1] * (tensor.dim() - 1))
            snapshot[name].copy_(torch.where(marked, tensor, snapshot[name]))

    def rows_of(self, snapshot: Mapping[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
        return {name: tensor[rows] for name, tensor in snapshot.items()}

    def train(self, mode: bool = True) -> None:
        self.training = mode
        self._base.train(mode)

    def _weights(self) -> dict[str, Tensor]:
        return {name: t.detach() for name, t in (self._parameters | self._buffers).items()}

    def _drop(self, rows: Tensor, optimizer: Optimizer) -> None:
        for parameter in self.parameters():
            for name, value in optimizer.state.get(parameter, {}).items():
                if value.shape == parameter.shape:  # a moment; all share the step counter
                    optimizer.state[parameter][name] = value[rows]
        for stacked in (self._parameters, self._buffers):
            for tensor in stacked.values():
                tensor.data = tensor.data[rows]


class ModuleNetworks(Networks):
    """Ordinary modules, one after the other, for what vmap cannot take."""

    def __init__(
        self,
        build: Callable[[], nn.Module],
        seeds: Sequence[int],
        n_peers: int,
        device: torch.device,
    ) -> None:
        super().__init__(seeds, n_peers, device)
        self._modules = [_moved(m, device) for m in _initial_modules(build, seeds, n_peers)]
        # Random operations other than dropout draw from PyTorch's global generator.
        self._random_states = [
            torch_generator(seed, "other", peer).get_state()
            for seed in seeds
            for peer in range(n_peers)
        ]

    def __call__(self, inputs: Tensor) -> Tensor:
        return self._of_each(inputs, WHOLE)

    def outputs(self, inputs: Tensor, share: Share = WHOLE) -> Tensor:
        return self._of_each(inputs, share)

    def embeddings(self, inputs: Tensor) -> Tensor:
        with ExitStack() as stack:
            for module in self._modules:
                stack.enter_context(headless(module))
            return self._of_each(inputs, WHOLE)

    def _of_each(self, inputs: Tensor, share: Share) -> Tensor:
        outputs = []
        with torch.random.fork_rng(devices=[]):
            for row, module in enumerate(self._modules):
                torch.set_rng_state(self._random_states[row])
                operations = LockstepOperations([self.generators[row]], stacked=False, share=share)
                with operations:
                    outputs.append(module(inputs))
                if self.training:
                    state = torch.get_rng_state()
                    if share.is_part and not torch.equal(state, self._random_states[row]):
                        raise _draws_by_itself(module)
                    self._random_states[row] = state
        stacked = torch.stack(outputs)
        return stacked.view(self.n_candidates, self.n_peers, *stacked.shape[1:])

    def clip_gradients(self, most: float) -> None:
        for module in self._modules:
            nn.utils.clip_grad_norm_(module.parameters(), most)

    def parameters(self) -> list[Tensor]:
        return [p for module in self._modules for p in module.parameters() if p.requires_grad]

    def module(
        self, candidate: int, peer: int, weights: Mapping[str, Tensor] | None = None
    ) -> nn.Module:
        row = candidate * self.n_peers + peer
        own = weights_of(self._modules[row])
        if weights is not None:
            own = {name: weights[f"{row}.{name}"] for name in own}
        return with_weights(self._modules[row], own)

    def renew(self, snapshot: Mapping[str, Tensor], rows: Tensor) -> None:
        for row, module in enumerate(self._modules):
            for name, tensor in weights_of(module).items():
                kept = snapshot[f"{row}.{name}"]
                kept.copy_(torch.where(rows[row], tensor.detach(), kept))

    def rows_of(self, snapshot: Mapping[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
        return {
            f"{new}.{name}": snapshot[f"{row}.{name}"]
            for new, row in enumerate(rows.tolist())
            for name in weights_of(self._modules[row])
        }

    def train(self, mode: bool = True) -> None:
        self.training = mode
        for module in self._modules:
            module.train(mode)

    def _weights(self) -> dict[str, Tensor]:
        weights = {f"random.{row}": state for row, state in enumerate(self._random_states)}
        for row, module in enumerate(self._modules):
            for name, tensor in (*module.named_parameters(), *module.named_buffers()):
                weights[f"{row}.{name}"] = tensor.detach()
        return weights

    def _drop(self, rows: Tensor, optimizer: Optimizer) -> None:
        kept = set(rows.tolist())
        for row, module in enumerate(self._modules):
            if row not in kept:
                for parameter in module.parameters():
                    optimizer.state.pop(parameter, None)
        self._modules = [self._modules[row] for row in rows.tolist()]
        self._random_states = [self._random_states[row] for row in rows.tolist()]
        optimizer.param_groups[0]["params"] = self.parameters()


def _draws_by_itself(module: nn.Module) -> InputError:
    return invalid(
        "a network in several processes",
        "draw random numbers by nn.Dropout only, which each process draws for the whole batch",
        Words(f"a {type(module).__name__} that draws others"),
        "train in one process",
    )


def build_networks(
    build: Callable[[], nn.Module],
    seeds: Sequence[int],
    *,
    n_peers: int,
    probe: Tensor,
    device: torch.device,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    stacked: bool | None = None,
) -> Networks:
    """Build K x R networks, stacked if the module allows it.

    Networks with large convolutions stay modules: each of their layers keeps the device busy by
    itself, and N convolutions in one (a convolution with groups) take longer than N. On a CPU that
    holds for what needs vmap; plain sequences of layers are faster stacked.

    Parameters
    ----------
    build : callable
        Builds one network; its initial weights come from PyTorch's global generator.
    seeds : sequence of K ints
        One for each candidate.
    n_peers : int
        R.
    probe : Tensor [b, ...]
        A few normalised inputs, to try whether vmap takes the module.
    device : torch.device
    autocast : callable
        As in training. In vmap autocast reaches some operations and not others, and a batch norm
        there may be given a product in bfloat16, which it refuses.
    stacked : bool, optional
        Whether to stack what can be stacked; left out, what is expected to be faster.

    Returns
    -------
    Networks
    """
    if stacked is None:
        stacked = _is_faster_stacked(build, probe, device)
    if not stacked:
        return ModuleNetworks(build, seeds, n_peers, device)
    try:
        _try_to_stack(build, seeds[0], n_peers, probe, device, autocast)
    except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        reason = str(error).strip().splitlines()
        log.info("vmap does not take this network, training one by one: %s", reason[:1])
        return ModuleNetworks(build, seeds, n_peers, device)
    return StackedNetworks(build, seeds, n_peers, device)


def _is_faster_stacked(build: Callable[[], nn.Module], probe: Tensor, device: torch.device) -> bool:
    with forked_seed(0):
        is_plain = device.type == "cpu" and plain_layers(build(), device) is not None
    return is_plain or convolution_flops(build, probe) < LARGE_CONVOLUTIONS


def convolution_flops(build: Callable[[], nn.Module], probe: Tensor) -> float:
    """Floating-point operations of a network's convolutions for a sample, forward; 0 if unknown.

    Parameters
    ----------
    build : callable
        Builds one network.
    probe : Tensor [b, ...]
        A few normalised inputs.
    """
    with forked_seed(0):  # layers may draw random numbers, too
        module = build()
        if not any(isinstance(layer, nn.Conv2d) for layer in module.modules()):
            return 0.0
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            module(probe.cpu())
    counts = counter.get_flop_counts().get("Global", {})
    return float(counts.get(torch.ops.aten.convolution, 0)) / len(probe)


def _try_to_stack(
    build: Callable[[], nn.Module],
    seed: int,
    n_peers: int,
    probe: Tensor,
    device: torch.device,
    autocast: Callable[[], AbstractContextManager[Any]],
) -> None:
    """Run a batch forth and back; raise if stacked networks cannot do so, or do something else."""
    stacked = StackedNetworks(build, [seed] * 2, n_peers, device)
    stacked(probe).sum().backward()
    alone = ModuleNetworks(build, [seed], 1, device)
    alone(probe)
    expected = dict(alone.module(0, 0).named_buffers())
    # A GPU may convolve N networks with other rounding than one (TF32).
    rtol, atol = (1e-2, 1e-4) if device.type == "cuda" else (1e-3, 1e-5)
    for name, buffer in stacked.module(0, 0).named_buffers():
        # functional_call drops a buffer that is assigned anew instead of changed in place.
        if not torch.allclose(buffer.double(), expected[name].double(), rtol=rtol, atol=atol):
            raise RuntimeError(f"buffer {name} is replaced, not updated in place")
    if autocast is not nullcontext:  # without autocast the networks have just been tried
        with autocast():
            logits = stacked(probe)
        logits.sum().backward()


def _initial_modules(
    build: Callable[[], nn.Module], seeds: Sequence[int], n_peers: int
) -> Iterator[nn.Module]:
    for seed in seeds:
        for peer in range(n_peers):
            with forked_seed(derive_seed(seed, "weights", peer)):
                module = build()
            yield module


def _moved(module: nn.Module, device: torch.device) -> nn.Module:
    """A module on its device, with channels last, which convolves faster."""
    module = module.to(device)
    if isinstance(module, torch.jit.ScriptModule):
        return module  # its views are its own, and would refuse what has channels last
    for parameter in module.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return module


def _stacked_empty(tensors: Iterable[tuple[str, Tensor]], n_networks: int) -> dict[str, Tensor]:
    """Room for each of these tensors in every network, `[N, ...]`."""
    return {
        name: torch.empty((n_networks, *tensor.shape), dtype=tensor.dtype, device=tensor.device)
        for name, tensor in tensors
    }


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    """The parameters and buffers of a module, by name."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def with_weights(module: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """A copy of a module on the CPU, ready to predict, with these tensors as its weights."""
    with torch.no_grad():
        other = copy.deepcopy(module).to("cpu")
        for parameter in other.parameters():  # whoever gets it may ask for views of what it gives
            parameter.data = parameter.data.contiguous()
        for name, target in (*other.named_parameters(), *other.named_buffers()):
            target.copy_(tensors[name])
    return other.eval()
