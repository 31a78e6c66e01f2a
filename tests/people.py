"""Pictures of "people" that several test files share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own convention
from torch import Tensor

import keeprate
from keeprate import Data, TrainingConfig
from keeprate.data import Split
from keeprate.engine import PairAccuracy
from keeprate.verification import Pairs


def faces(n_people: int, n_pictures: int, seed: int) -> tuple[Tensor, Tensor]:
    """Pictures [N, 1, 16, 16] of "people": a pattern each, in noise; and who is on them."""
    generator = torch.Generator().manual_seed(seed)
    patterns = torch.randint(60, 200, (n_people, 1, 4, 4), generator=generator).float()
    patterns = F.interpolate(patterns, scale_factor=4)
    labels = torch.arange(n_people).repeat_interleave(n_pictures)
    noise = 40 * torch.randn(len(labels), 1, 16, 16, generator=generator)
    return (patterns[labels] + noise).clamp(0, 255).to(torch.uint8), labels


def some_people() -> Data:
    """Six people, 40 pictures each; 40 % of the names are drawn at random."""
    inputs, labels = faces(6, 40, seed=0)
    generator = torch.Generator().manual_seed(1)
    is_wrong = torch.rand(len(labels), generator=generator) < 0.4
    noisy = torch.where(is_wrong, torch.randint(6, labels.shape, generator=generator), labels)
    train = Split(inputs, noisy, true_labels=labels)
    held_out = Split(inputs[::20], labels[::20], label_status="clean")
    return Data(train, held_out, None, tuple("abcdef"), name="people")


def pairs_of_strangers() -> Pairs:
    """Pairs of people who are not among `some_people`."""
    inputs, labels = faces(10, 12, seed=2)
    generator = torch.Generator().manual_seed(3)
    first = torch.randint(len(labels), (300,), generator=generator)
    within = 12 * labels[first] + torch.randint(12, (300,), generator=generator)
    anybody = torch.randint(len(labels), (300,), generator=generator)
    second = torch.where(torch.arange(300) % 2 == 0, within, anybody)
    return Pairs(inputs, first, second, labels[first] == labels[second], name="strangers")


def search_on_pairs(out: str | Path, progress: Any = False) -> keeprate.Run:
    """A search of four trials on the pairs, with augmented pictures and a margin."""
    config = TrainingConfig(
        epochs=3, batch_size=40, learning_rate=3e-3, augment="flip,crop:1", margin=0.1
    )
    return keeprate.search(
        some_people(),
        budget="4trials",
        model="face-small",
        config=config,
        metric=PairAccuracy(pairs_of_strangers()),
        baselines=False,
        restarts=1,
        out=out,
        progress=progress,
        checkpoint_seconds=0,
    )
