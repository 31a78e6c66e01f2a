"""PyTorch's optimisers, without the import of its compiler.

An optimiser of PyTorch imports the compiler, which takes more than a second, to keep it away from
some of its methods. Nothing here is compiled: the methods are taken without that guard. A later
PyTorch without the guard, or with another one, loses the second and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
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

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        (group,) = self.param_groups
        trained = [p for p in group["params"] if p.grad is not None]
        states = [self.state[p] for p in trained]
        if closure is not None or not all(map(_is_for_the_kernel, trained, states)):
            result: float | None = super().step(closure)  # it also makes the states
            return result
        beta1, beta2 = group["betas"]
        steps = [state["step"] for state in states]
        torch._foreach_add_(steps, 1)
        torch._fused_adam_(
            trained,
            [p.grad for p in trained],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            steps,
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


def _is_for_the_kernel(parameter: Tensor, state: dict[str, Tensor]) -> bool:
    return bool(state) and parameter.dtype == torch.float32 and parameter.device.type == "cpu"


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
