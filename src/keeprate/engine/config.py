"""How one network is trained."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch.optim import Optimizer

from keeprate.errors import invalid

OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "adam": torch.optim.Adam,
    "sgd": torch.optim.SGD,
    "rmsprop": torch.optim.RMSprop,
}


@dataclass(frozen=True)
class TrainingConfig:
    """How one network is trained; the defaults are the paper's (App. A.1), for 40 epochs.

    Attributes
    ----------
    epochs : int
        T.
    batch_size : int
        B; the last, incomplete batch of an epoch is left out.
    optimizer : {"adam", "sgd", "rmsprop"}
        All three work element by element, so that candidates stay independent.
    learning_rate : float
    learning_rate_schedule : {"linear-decay", "constant", "cosine"}
        "linear-decay": constant for the first 40 % of the epochs, then linear to zero, as the
        paper's "from the 80th of 200 epochs".
    weight_decay, momentum : float
        Momentum is for sgd and rmsprop.
    precision : {"auto", "float32", "bfloat16"}
        "auto" takes bfloat16 where the device multiplies it faster than float32.
    device : str
        "auto", "cpu", "cuda", "cuda:1", ...
    """

    epochs: int = 40
    batch_size: int = 128
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    learning_rate_schedule: str = "linear-decay"
    weight_decay: float = 0.0
    momentum: float = 0.9
    precision: str = "auto"
    device: str = "auto"

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            value = getattr(self, name)
            if value < 1:
                raise invalid(name, "be at least 1", value, "give a positive whole number")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise invalid(
                "learning_rate", "be positive and finite", self.learning_rate, "try 0.001"
            )
        for name, known in (
            ("optimizer", tuple(OPTIMIZERS)),
            ("learning_rate_schedule", ("linear-decay", "constant", "cosine")),
            ("precision", ("auto", "float32", "bfloat16")),
        ):
            value = getattr(self, name)
            if value not in known:
                raise invalid(name, f"be one of {', '.join(known)}", value, "choose one of these")

    def learning_rate_at(self, epoch: int) -> float:
        """The learning rate of an epoch, counted from 0.

        >>> TrainingConfig(epochs=200).learning_rate_at(79)
        0.001
        >>> round(TrainingConfig(epochs=200).learning_rate_at(140), 6)
        0.0005
        """
        if self.learning_rate_schedule == "constant":
            return self.learning_rate
        if self.learning_rate_schedule == "cosine":
            return self.learning_rate * 0.5 * (1 + math.cos(math.pi * epoch / self.epochs))
        start = 0.4 * self.epochs
        return self.learning_rate * min(1.0, (self.epochs - epoch) / (self.epochs - start))

    def resolve_device(self) -> torch.device:
        """The device to train on."""
        name = self.device
        if name == "auto":
            name = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            device = torch.device(name)
            torch.empty(1, device=device)
        except (RuntimeError, AssertionError) as error:
            raise invalid(
                "device", "be available here", self.device, "use --device auto or cpu"
            ) from error
        return device

    def resolve_precision(self, device: torch.device) -> str:
        """What "auto" stands for on a device: "float32" or "bfloat16"."""
        if self.precision != "auto":
            return self.precision
        return "bfloat16" if _fast_bfloat16(device) else "float32"

    def autocast(self, device: torch.device) -> Callable[[], AbstractContextManager[Any]]:
        """The mixed-precision context of a forward pass."""
        if self.resolve_precision(device) == "bfloat16":
            return lambda: torch.autocast(device.type, dtype=torch.bfloat16)
        return nullcontext


def _fast_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return device.type == "cpu" and probe is not None and bool(probe())
