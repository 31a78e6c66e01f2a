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


OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "adam": _light(torch.optim.Adam),
    "sgd": _light(torch.optim.SGD),
    "rmsprop": _light(torch.optim.RMSprop),
}


def make_optimizer(parameters: list[Tensor], config: TrainingConfig) -> Optimizer:
    """An element-wise optimiser, fused where PyTorch has it."""
    options: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
    if config.optimizer != "adam":
        options["momentum"] = config.momentum
    if config.optimizer == "rmsprop":
        options["foreach"] = True
    else:
        options["fused"] = True
    return OPTIMIZERS[config.optimizer](parameters, **options)
