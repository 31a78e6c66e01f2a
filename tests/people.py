"""Pictures of "people" that several test files share."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own convention
from torch import Tensor


def faces(n_people: int, n_pictures: int, seed: int) -> tuple[Tensor, Tensor]:
    """Pictures [N, 1, 16, 16] of "people": a pattern each, in noise; and who is on them."""
    generator = torch.Generator().manual_seed(seed)
    patterns = torch.randint(60, 200, (n_people, 1, 4, 4), generator=generator).float()
    patterns = F.interpolate(patterns, scale_factor=4)
    labels = torch.arange(n_people).repeat_interleave(n_pictures)
    noise = 40 * torch.randn(len(labels), 1, 16, 16, generator=generator)
    return (patterns[labels] + noise).clamp(0, 255).to(torch.uint8), labels
