"""The models of the paper (Table 3), and models by name.

A model is a function `(input_shape, n_classes) -> nn.Module`. The module maps a batch
`[B, *input_shape]` of float32 to logits `[B, n_classes]`.
"""

from __future__ import annotations

import importlib
import inspect
import math
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from keeprate.engine.heads import CosineLinear
from keeprate.engine.names import check_model_name
from keeprate.engine.residual import BasicBlock, Bottleneck, ResNet
from keeprate.errors import InputError, Words, first_line, invalid

ModelFactory = Callable[[tuple[int, ...], int], nn.Module]

LEAST_SIDE = 16  # pixels of the shorter side of an image that `model1` takes


def mlp(input_shape: tuple[int, ...], n_classes: int) -> nn.Module:
    """784-256-10 on MNIST: one hidden layer of 256 ReLU units.

    >>> sum(p.numel() for p in mlp((1, 28, 28), 10).parameters())
    203530
    """
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(math.prod(input_shape), 256),
        nn.ReLU(),
        nn.Linear(256, n_classes),
    )


def perceptron(input_shape: tuple[int, ...], n_classes: int) -> nn.Module:
    """`mlp` with dropout of 0.3 before the last layer: for data sets of a few thousand samples."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(math.prod(input_shape), 256),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Linear(256, n_classes),
    )


def model1(input_shape: tuple[int, ...], n_classes: int) -> nn.Module:
    """The small CNN of CIFAR-10: two 5x5 convolutions and three dense layers."""
    channels, height, width = _image_shape("model1", input_shape, at_least=LEAST_SIDE)
    side = [((n - 4) // 2 - 4) // 2 for n in (height, width)]
    return nn.Sequential(
        nn.Conv2d(channels, 6, 5),
        nn.MaxPool2d(2),  # before ReLU: the same function, with a quarter of ReLU's work
        nn.ReLU(),
        nn.Conv2d(6, 16, 5),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16 * side[0] * side[1], 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, n_classes),
    )


def model2(input_shape: tuple[int, ...], n_classes: int) -> nn.Module:
    """The CNN of CIFAR-100: six 3x3 convolutions with batch norm and one dense layer.

    Table 3 prints 196 channels for the last convolution, and then "dense 256". 4 x 4 x c = 256
    gives c = 16 channels, and these are built here.
    """
    channels, height, width = _image_shape("model2", input_shape, at_least=8)
    widths = [(channels, 64), (64, 64), (64, 128), (128, 128), (128, 196), (196, 16)]
    layers: list[nn.Module] = []
    for position, (before, after) in enumerate(widths):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after)]
        if position % 2 == 1:  # before ReLU: the same function, with a quarter of ReLU's work
            layers.append(nn.MaxPool2d(2))
        layers.append(nn.ReLU())
    features = 16 * (height // 8) * (width // 8)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(features, n_classes))


def model3(input_shape: tuple[int, ...], n_classes: int, *, dropout: float = 0.25) -> nn.Module:
    """The nine-layer CNN of Co-teaching (Han et al. 2018b, Table 2)."""
    channels, height, width = _image_shape("model3", input_shape, at_least=12)
    # The source pads none of the last three convolutions; without padding nothing would be left of
    # small images.
    last_padding = 0 if min(height, width) >= 28 else 1

    def block(before: int, after: int, padding: int, *, pooled: bool = False) -> list[nn.Module]:
        layers = [nn.Conv2d(before, after, 3, padding=padding), nn.BatchNorm2d(after)]
        if pooled:  # before ReLU: the same function, with less work
            layers.append(nn.MaxPool2d(2))
        return [*layers, nn.LeakyReLU(0.01)]

    return nn.Sequential(
        *block(channels, 128, 1),
        *block(128, 128, 1),
        *block(128, 128, 1, pooled=True),
        nn.Dropout(dropout),
        *block(128, 256, 1),
        *block(256, 256, 1),
        *block(256, 256, 1, pooled=True),
        nn.Dropout(dropout),
        *block(256, 512, last_padding),
        *block(512, 256, last_padding),
        *block(256, 128, last_padding),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(128, n_classes),
    )


def resnet18_small(input_shape: tuple[int, ...], n_classes: int) -> nn.Module:
    """ResNet-18 for small images: no step of its stem shrinks them, with a quarter of the width.

    >>> sum(p.numel() for p in resnet18_small((3, 32, 32), 10).parameters())
    701466
    """
    channels, *_ = _image_shape("resnet18-small", input_shape, at_least=8)
    widths = (16, 32, 64, 128)
    return ResNet(BasicBlock, (2, 2, 2, 2), widths, channels, n_classes, keeps_size=True)


def resnet50(input_shape: tuple[int, ...], n_classes: int) -> nn.Module:
    """ResNet-50, layer by layer as torchvision's: its weights can be loaded.

    >>> sum(p.numel() for p in resnet50((3, 112, 112), 1000).parameters())
    25557032
    """
    channels, *_ = _image_shape("resnet50", input_shape, at_least=32)
    return _resnet50(channels, n_classes)


def face_resnet50(input_shape: tuple[int, ...], n_classes: int) -> nn.Module:
    """ResNet-50 to embeddings [B, 512], and cosines to a direction a person."""
    channels, *_ = _image_shape("face-resnet50", input_shape, at_least=32)
    return nn.Sequential(
        OrderedDict(backbone=_resnet50(channels, 512), head=CosineLinear(512, n_classes))
    )


def face_small(input_shape: tuple[int, ...], n_classes: int) -> nn.Module:
    """Four convolutions to embeddings [B, 128], and cosines to a direction a person.

    For two cores and images of 64 x 64 or less: 8.5 million operations an image.
    """
    channels, height, width = _image_shape("face-small", input_shape, at_least=16)
    widths = [(channels, 16), (16, 32), (32, 64), (64, 128)]
    layers: list[nn.Module] = []
    for before, after in widths:
        layers.append(nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False))
        layers += [nn.BatchNorm2d(after), nn.ReLU()]
        height, width = -(-height // 2), -(-width // 2)
    return nn.Sequential(
        *layers,
        nn.Flatten(),
        nn.Linear(widths[-1][1] * height * width, 128),
        CosineLinear(128, n_classes),
    )


def _resnet50(channels: int, n_outputs: int) -> ResNet:
    widths = (64, 128, 256, 512)
    return ResNet(Bottleneck, (3, 4, 6, 3), widths, channels, n_outputs, keeps_size=False)


def resolve_model(name: str, input_shape: tuple[int, ...]) -> str:
    """The name of the model that "auto" stands for; other names as they are.

    >>> resolve_model("auto", (3, 32, 32)), resolve_model("auto", (1, 8, 8))
    ('model1', 'mlp')
    >>> resolve_model("model2", (1, 8, 8))
    'model2'
    """
    if name != "auto":
        return name
    is_image = len(input_shape) == 3 and min(input_shape[1:]) >= LEAST_SIDE
    return "model1" if is_image else "mlp"


def auto(input_shape: tuple[int, ...], n_classes: int) -> nn.Module:
    """`model1` for images of at least 16 x 16 pixels, else `mlp`."""
    return MODELS[resolve_model("auto", input_shape)](input_shape, n_classes)


MODELS: dict[str, ModelFactory] = {
    "auto": auto,
    "mlp": mlp,
    "perceptron": perceptron,
    "model1": model1,
    "model2": model2,
    "model3": model3,
    "resnet18-small": resnet18_small,
    "resnet50": resnet50,
    "face-small": face_small,
    "face-resnet50": face_resnet50,
}


def get_model(name: str) -> ModelFactory:
    """A built-in model by its name, or a user's factory as `package.module:factory`.

    The factory is called with `input_shape` and `n_classes` where its signature has these names or
    needs two positional arguments, else without arguments.

    Raises
    ------
    InputError
        If the name is unknown or the module cannot be imported.
    """
    if name in MODELS:
        return MODELS[name]
    check_model_name(name)
    return adapt_factory(import_attribute("model", name))


def import_attribute(kind: str, name: str) -> Any:
    """Import `package.module:attribute` as `python -m` would, from the current folder too.

    Parameters
    ----------
    kind : str
        For the error: what the name stands for ("model").
    name : str

    Raises
    ------
    InputError
        If the import fails.
    """
    module_name, _, attribute = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)  # behind all else: a folder must not replace a package
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"{kind} {name!r} could not be imported ({error}); write package.module:attribute "
            "with a module that Python finds from this folder."
        ) from error


def adapt_factory(factory: Callable[..., nn.Module]) -> ModelFactory:
    """Turn a user's factory into a function `(input_shape, n_classes) -> nn.Module`.

    Raises
    ------
    InputError
        If it is a network: each training begins with fresh weights.
    """
    if isinstance(factory, nn.Module):
        requirement = "be a function that builds a network, as each training begins with a new one"
        received = Words(f"a {type(factory).__name__} itself")
        remedy = "write model=lambda input_shape, n_classes: ... around it, or give its class"
        raise invalid("model", requirement, received, remedy)
    parameters = inspect.signature(factory).parameters
    named = {"input_shape", "n_classes"} & set(parameters)
    required = [p for p in parameters.values() if p.default is p.empty]

    def build(input_shape: tuple[int, ...], n_classes: int) -> nn.Module:
        if named:
            arguments = {"input_shape": input_shape, "n_classes": n_classes}
            return factory(**{name: arguments[name] for name in named})
        if len(required) == 2:
            return factory(input_shape, n_classes)
        return factory()

    return build


def build_model(
    model: ModelFactory,
    input_shape: tuple[int, ...],
    n_classes: int,
    *,
    dtype: torch.dtype = torch.float32,
) -> nn.Module:
    """Build one network and check that it maps a batch of `dtype` to logits.

    Raises
    ------
    InputError
        If the model gives no module, or if the module refuses a batch of the data's shape or gives
        another shape than `[B, n_classes]`.
    """
    try:
        module = model(input_shape, n_classes)
    except TypeError as error:
        raise InputError(
            "model must be a function (input_shape, n_classes) -> torch.nn.Module, got this error "
            f"from it: {first_line(error)}."
        ) from error
    if not isinstance(module, nn.Module):
        raise invalid("model", "give a torch.nn.Module", type(module), "return the network")
    was_training = module.training
    try:
        with torch.no_grad():
            logits = module.eval()(torch.zeros(2, *input_shape, dtype=dtype))
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        raise InputError(
            f"model must take one batch of {dtype} of shape "
            f"[B, {', '.join(map(str, input_shape))}], got this error from it: {error}"
        ) from error
    module.train(was_training)
    if not isinstance(logits, torch.Tensor) or logits.shape != (2, n_classes):
        shape = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits)
        raise invalid(
            "model",
            f"give logits of shape [B, {n_classes}], one column per class",
            Words(f"{shape} for a batch of 2"),
            "let its last layer have n_classes outputs",
        )
    return module


def _image_shape(name: str, input_shape: tuple[int, ...], *, at_least: int) -> tuple[int, int, int]:
    if len(input_shape) != 3 or min(input_shape[1:]) < at_least:
        raise invalid(
            f"the input of {name}",
            f"be images [channels, height, width] of at least {at_least} x {at_least}",
            tuple(input_shape),
            "use --model mlp or your own network",
        )
    return input_shape[0], input_shape[1], input_shape[2]
