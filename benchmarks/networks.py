"""The networks whose training is timed: shapes of their inputs, and the arithmetic of a step."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import keeprate
from keeprate import Data
from keeprate.engine import get_model

BATCH = 128
IMAGE = (3, 32, 32)
SHAPES = {
    "mlp": (28, 28),
    "model1": IMAGE,
    "model2": IMAGE,
    "model3": IMAGE,
    "resnet18-small": IMAGE,
}
CLASSES = {name: 100 if name == "model2" else 10 for name in SHAPES}


def random_data(network: str, n_batches: int) -> Data:
    """Batches of random pixels: no step depends on what they show."""
    rng, n = np.random.default_rng(0), n_batches * BATCH
    inputs = rng.integers(0, 256, (n, *SHAPES[network]), dtype=np.uint8)
    labels = np.arange(n) % CLASSES[network]
    train, rest = (inputs, labels), (inputs[:200], labels[:200])
    return keeprate.prepare({"train": train, "validation": rest, "test": rest})


@cache
def flops_per_step(network: str) -> float:
    """Floating-point operations of a step of one candidate, which has two networks.

    All products of the forward and the backward pass; the images need no gradient.
    """
    shape = SHAPES[network] if len(SHAPES[network]) == 3 else (1, *SHAPES[network])
    with torch.random.fork_rng(devices=[]):
        module: nn.Module = get_model(network)(shape, CLASSES[network])
    with FlopCounterMode(display=False) as counter:
        module(torch.rand(4, *shape)).sum().backward()
    return 2 * BATCH * float(counter.get_total_flops()) / 4
