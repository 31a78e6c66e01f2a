"""PyTorch's optimisers, without the import of its compiler.

An optimiser of PyTorch imports the compiler, which takes more than a second, to keep it away from
some of its methods. Nothing here is compiled: the methods are taken without that guard. A later
PyTorch without the guard, or with another one, loses the second and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import is_not
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from keeprate.engine.config import TrainingConfig


def _unguarded(method: Callable[..., Any]) -> Callable[..., Any]:
    """The function within its decorators."""
    while hasattr(method, "__wrapped__"):
        method = method.__wrapped__
    return method


def _light(optimizer: type[Optimizer]) -> type[Optimizer]:
    """The optimiser with methods that import no compiler."""
    names = ("add_param_group", "state_dict", "load_state_dict", "zero_grad")
    methods = {name: _unguarded(getattr(optimizer, name)) for name in names}
    # The guard of `step` also turns gradients off.
    step = torch.no_grad()(_unguarded(optimizer.step))
    return type(optimizer.__name__, (optimizer,), methods | {"step": step})


class _Adam(_light(torch.optim.Adam)):  # type: ignore[misc]
    """Adam that calls PyTorch's fused kernel itself where it trains float32 on a CPU.

    In a small batch, what PyTorch does around the kernel takes about as long as the kernel.
    """

    _prepared: _Prepared | None = None

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        (group,) = self.param_groups
        trained = [p for p in group["params"] if p.grad is not None]
        prepared = self._prepared
        if prepared is None or not prepared.holds_for(trained, self.state):
            prepared = self._prepared = _Prepared.of(trained, self.state)
        if closure is not None or prepared is None:
            result: float | None = super().step(closure)  # it also makes the states
            return result
        prepared.counters.add_(1)
        beta1, beta2 = group["betas"]
        torch._fused_adam_(
            trained,
            [p.grad for p in trained],
            [state["exp_avg"] for state in prepared.states],
            [state["exp_avg_sq"] for state in prepared.states],
            [],
            prepared.steps,
            lr=group["lr"],
            beta1=beta1,
            beta2=beta2,
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            amsgrad=False,
            maximize=False,
        )
        return None

    step.hooked = True  # type: ignore[attr-defined]  # PyTorch would put its profiler around it


@dataclass(frozen=True)
class _Prepared:
    """What Adam's kernel takes and need not be looked up anew in each step.

    Attributes
    ----------
    parameters : list of Tensor
        Those with a gradient.
    all_states : mapping
        The optimiser's states, by parameter.
    states : list of dict
        That of each parameter.
    counters : Tensor [parameters]
        Of their steps: one addition counts for all.
    steps : list of Tensor
        The counter of each state, a view of `counters`.
    """

    parameters: list[Tensor]
    all_states: Mapping[Tensor, dict[str, Tensor]]
    states: list[dict[str, Tensor]]
    counters: Tensor
    steps: list[Tensor]

    @classmethod
    def of(
        cls, parameters: list[Tensor], all_states: Mapping[Tensor, dict[str, Tensor]]
    ) -> _Prepared | None:
        """Put the counters of all states in one tensor.

        None, and nothing is changed, for parameters without states, and for those that the kernel
        does not take.
        """
        if not parameters or not all(
            all_states.get(p) and p.dtype == torch.float32 and p.device.type == "cpu"
            for p in parameters
        ):
            return None
        states = [all_states[p] for p in parameters]
        counters = torch.stack([state["step"] for state in states])
        steps = list(counters.unbind())
        for state, step in zip(states, steps, strict=True):
            state["step"] = step
        return cls(parameters, all_states, states, counters, steps)

    def holds_for(
        self, parameters: list[Tensor], all_states: Mapping[Tensor, dict[str, Tensor]]
    ) -> bool:
        """False after a checkpoint, or where other parameters have gradients."""
        return (
            all_states is self.all_states
            and len(parameters) == len(self.parameters)
            and not any(map(is_not, parameters, self.parameters))
            and not any(map(is_not, [state["step"] for state in self.states], self.steps))
        )


OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "adam": _Adam,
    "adamw": _light(torch.optim.AdamW),
    "sgd": _light(torch.optim.SGD),
    "rmsprop": _light(torch.optim.RMSprop),
}


def make_optimizer(parameters: list[Tensor], config: TrainingConfig) -> Optimizer:
    """An element-wise optimiser, fused where PyTorch has it."""
    options: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
    if config.optimizer in ("sgd", "rmsprop"):
        options["momentum"] = config.momentum
    if config.optimizer == "rmsprop":
        options["foreach"] = True
    else:
        options["fused"] = True
    return OPTIMIZERS[config.optimizer](parameters, **options)
