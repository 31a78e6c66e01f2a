"""Seeds derived from names and numbers: independent streams, no global state."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed that depends on every part and on nothing else.

    >>> derive_seed(0, "weights", 3) == derive_seed(0, "weights", 3)
    True
    >>> derive_seed(0, "weights", 3) == derive_seed(0, "weights", 4)
    False
    """
    entropy = [zlib.crc32(p.encode()) if isinstance(p, str) else p for p in parts]
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> np.uint64(1))


def torch_generator(*parts: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator seeded from the parts."""
    return torch.Generator(device).manual_seed(derive_seed(*parts))


@contextmanager
def forked_seed(seed: int) -> Iterator[None]:
    """Seed PyTorch's own generator for a while; `nn.Module` initialises itself from it."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
