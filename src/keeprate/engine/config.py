"""How one network is trained."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from keeprate.errors import invalid

if TYPE_CHECKING:  # PyTorch is loaded late: a wrong argument is refused at once
    import torch

CHOICES = {
    "optimizer": ("adam", "adamw", "sgd", "rmsprop"),
    "learning_rate_schedule": ("linear-decay", "constant", "cosine", "steps"),
    "precision": ("auto", "float32", "bfloat16"),
    "keep": ("last", "best"),
}
MOST_PIXELS = 64
STEPS, STEP = (0.5, 0.75), 0.1  # of "steps": when, as shares of the epochs, and by which factor


@dataclass(frozen=True)
class Augmentation:
    """What may happen to a training sample.

    Attributes
    ----------
    flip : bool
        Half of the images are mirrored, left and right.
    crop : int
        Each image is moved by up to so many pixels, in both directions; its edge fills the gap.
    noise : float
        Standard deviation of normal noise on each number that a network gets: a pixel in 0..1, or a
        column of numbers whose own standard deviation is 1.

    Examples
    --------
    >>> Augmentation.parse("flip,crop:2")
    Augmentation(flip=True, crop=2, noise=0.0)
    """

    flip: bool = False
    crop: int = 0
    noise: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Augmentation:
        """Read "none", "flip", "crop:4", "noise:0.1" or several with commas between them.

        Raises
        ------
        InputError
            If a part is none of these.
        """
        found: dict[str, float] = {}
        parts = [] if text == "none" else [part.strip() for part in text.split(",")]
        for part in parts:
            name, _, words = part.partition(":")
            amount = 1.0 if part == "flip" else _amount(name, words)
            if name in found or amount is None:
                requirement = f"be none, or flip, crop:1 to crop:{MOST_PIXELS} and noise:0.1, say"
                raise invalid("augment", requirement, text, "try flip,crop:4")
            found[name] = amount
        return cls("flip" in found, int(found.get("crop", 0)), found.get("noise", 0.0))


def _amount(name: str, words: str) -> float | None:
    """How much an augmentation does; None if there is no such one."""
    if name == "crop" and words.isdecimal() and 1 <= int(words) <= MOST_PIXELS:
        return int(words)
    with suppress(ValueError):
        if name == "noise" and 0 < float(words) < math.inf:
            return float(words)
    return None


@dataclass(frozen=True)
class TrainingConfig:
    """How one network is trained; the defaults are the paper's (App. A.1), for 40 epochs.

    Attributes
    ----------
    epochs : int
        T, at least 1.
    batch_size : int
        B, at least 1; the last, incomplete batch of an epoch is left out.
    optimizer : {"adam", "adamw", "sgd", "rmsprop"}
        As in PyTorch. All work element by element, so that candidates stay independent.
    learning_rate : float
        Above 0.
    learning_rate_schedule : {"linear-decay", "constant", "cosine", "steps"}
        "linear-decay": constant for the first 40 % of the epochs, then linear to zero, as the
        paper's "from the 80th of 200 epochs". "steps": a tenth after half of the epochs, and a
        hundredth after three quarters.
    warmup_epochs : int
        In the first of so many epochs the learning rate grows linearly to what the schedule says;
        fewer than `epochs`.
    weight_decay : float
        At least 0. As in PyTorch: part of the gradient, and with "adamw" apart from it.
    max_grad_norm : float
        The gradient of each network is scaled down to this norm where it is longer; 0: never.
    momentum : float
        In [0, 1); for sgd and rmsprop.
    precision : {"auto", "float32", "bfloat16"}
        "auto" takes bfloat16 where the device multiplies bfloat16 faster than float32.
    device : str
        "auto", "cpu", "cuda", "cuda:1", ...
    class_weight : {None, "balanced"}
        "balanced": a sample counts the more in the loss, the rarer its label is among the training
        labels: within a batch all classes count the same. Selection does not depend on it.
    augment : str
        What happens to training samples, anew each epoch: "none", "flip" (half of the images are
        mirrored), "crop:4" (images are moved by up to 4 pixels), "noise:0.1" (normal noise of this
        standard deviation on what networks get), or several with commas between them.
    margin : float
        In [0, pi / 2): the additive angular margin in the loss of a network that ends with
        `keeprate.engine.CosineLinear`, in radians; 0 is none (`keeprate.engine.AngularMargin`).
    keep : {"last", "best"}
        Which epoch's weights the final networks have: the last one's, or those of the best
        validation score. Cross-fitted networks have those of the last epoch.

    Raises
    ------
    InputError
        If a value is not one of these.

    Examples
    --------
    >>> TrainingConfig(epochs=0)
    Traceback (most recent call last):
    ...
    keeprate.errors.InputError: epochs must be a whole number of at least 1, got 0; try 40.
    """

    epochs: int = 40
    batch_size: int = 128
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    learning_rate_schedule: str = "linear-decay"
    warmup_epochs: int = 0
    weight_decay: float = 0.0
    max_grad_norm: float = 0.0
    momentum: float = 0.9
    precision: str = "auto"
    device: str = "auto"
    class_weight: str | None = None
    augment: str = "none"
    margin: float = 0.0
    keep: str = "last"

    def __post_init__(self) -> None:
        whole = (("epochs", 1, "40"), ("batch_size", 1, "128"), ("warmup_epochs", 0, "0"))
        for name, least, usual in whole:
            value = getattr(self, name)
            if not _is_a(numbers.Integral, value) or value < least:
                raise invalid(name, f"be a whole number of at least {least}", value, f"try {usual}")
            object.__setattr__(self, name, int(value))  # NumPy's integers are no JSON
        for name, requirement, is_allowed, usual in _RANGES:
            value = getattr(self, name)
            if not (_is_a(numbers.Real, value) and math.isfinite(value) and is_allowed(value)):
                raise invalid(name, requirement, value, f"try {usual}")
            object.__setattr__(self, name, float(value))
        for name, choices in CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                raise invalid(name, f"be one of {', '.join(choices)}", value, "choose one of these")
        weight = self.class_weight
        if weight is not None and not (isinstance(weight, str) and weight == "balanced"):
            raise invalid("class_weight", "be 'balanced' or left out", weight, "leave it out")
        Augmentation.parse(self.augment)  # raises

    def shortened(self, epochs: int) -> TrainingConfig:
        """The same training in fewer epochs, to learn something of the long one.

        The warm-up takes the same share of it.

        >>> TrainingConfig(epochs=40, warmup_epochs=10).shortened(8).warmup_epochs
        2
        """
        return replace(
            self, epochs=epochs, warmup_epochs=self.warmup_epochs * epochs // self.epochs
        )

    def learning_rate_at(self, epoch: int) -> float:
        """The learning rate of an epoch, counted from 0.

        >>> TrainingConfig(epochs=200).learning_rate_at(79)
        0.001
        >>> round(TrainingConfig(epochs=200).learning_rate_at(140), 6)
        0.0005
        """
        return self.learning_rate * self._share_at(epoch)

    def _share_at(self, epoch: int) -> float:
        """The learning rate of an epoch as a share of the largest."""
        warmed = min(1.0, (epoch + 1) / (self.warmup_epochs + 1))
        if self.learning_rate_schedule == "constant":
            return warmed
        if self.learning_rate_schedule == "cosine":
            return warmed * 0.5 * (1 + math.cos(math.pi * epoch / self.epochs))
        if self.learning_rate_schedule == "steps":
            return warmed * STEP ** sum(epoch >= step * self.epochs for step in STEPS)
        start = 0.4 * self.epochs
        return warmed * min(1.0, (self.epochs - epoch) / (self.epochs - start))

    def resolve_device(self) -> torch.device:
        """The device to train on.

        Raises
        ------
        InputError
            If the device is not there.
        """
        import torch

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
        return "bfloat16" if _has_fast_bfloat16(device) else "float32"

    def autocast(self, device: torch.device) -> Callable[[], AbstractContextManager[Any]]:
        """Makes the mixed-precision context of a forward pass."""
        import torch

        if self.resolve_precision(device) == "bfloat16":
            return lambda: torch.autocast(device.type, dtype=torch.bfloat16)
        return nullcontext


_RANGES: tuple[tuple[str, str, Callable[[float], bool], str], ...] = (
    ("learning_rate", "be positive and finite", lambda value: value > 0, "0.001"),
    ("weight_decay", "be at least 0 and finite", lambda value: value >= 0, "0"),
    ("max_grad_norm", "be at least 0 and finite", lambda value: value >= 0, "1"),
    ("momentum", "lie in [0, 1)", lambda value: 0 <= value < 1, "0.9"),
    ("margin", "lie in [0, pi / 2)", lambda value: 0 <= value < math.pi / 2, "0.3"),
)
"""Name, requirement in words and as a test, a usual value."""


def _is_a(kind: type, value: object) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _has_fast_bfloat16(device: torch.device) -> bool:
    import torch

    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return device.type == "cpu" and probe is not None and bool(probe())
