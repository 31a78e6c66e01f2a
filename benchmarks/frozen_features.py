"""Features of the CIFAR-10 pictures by a frozen network: a small ResNet trained on CIFAR-100.

`python -m benchmarks.frozen_features` makes them once (about ten minutes on one core) and keeps
them in a folder of the user's cache. The network has seen no picture and no class of CIFAR-10.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import os
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import keeprate

CACHE = Path.home() / ".cache" / "keeprate-benchmarks"
WIDTHS, FEATURES = (32, 96, 192), 192
EPOCHS, BATCH, LEARNING_RATE, WEIGHT_DECAY, SEED = 8, 128, 0.2, 5e-4, 0
PROTOCOL = {
    "trained on": "cifar-100",
    "widths": list(WIDTHS),
    "epochs": EPOCHS,
    "batch": BATCH,
    "learning rate": LEARNING_RATE,
    "weight decay": WEIGHT_DECAY,
    "seed": SEED,
}


class Block(nn.Module):
    """Two convolutions beside a shortcut; the first halves the picture where the width changes."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        stride = 1 if before == after else 2
        self.first = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(after), nn.BatchNorm2d(after)])
        self.shortcut = nn.Conv2d(before, after, 1, stride, bias=False) if stride > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norms[0](self.first(x)))
        y = self.norms[1](self.second(y))
        return torch.relu(y + (x if self.shortcut is None else self.shortcut(x)))


def network() -> nn.Sequential:
    """Pictures [B, 3, 32, 32] -> features [B, 192]."""
    stem = [nn.Conv2d(3, WIDTHS[0], 3, 2, 1, bias=False), nn.BatchNorm2d(WIDTHS[0]), nn.ReLU()]
    widths = (WIDTHS[0], *WIDTHS)
    blocks = [Block(*pair) for pair in itertools.pairwise(widths)]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def scaled(pictures: Tensor) -> Tensor:
    """Bytes [B, 3, H, W] as floats of about unit scale."""
    x = (pictures.float() / 255 - 0.47) / 0.26
    return x.contiguous(memory_format=torch.channels_last)


def train(pictures: Tensor, labels: Tensor) -> nn.Sequential:
    """A network trained on pictures [N, 3, H, W] of uint8 and their labels [N]."""
    draw = torch.Generator().manual_seed(SEED)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        body, head = network(), nn.Linear(FEATURES, int(labels.max()) + 1)
    model = nn.Sequential(body, head)
    optimizer = torch.optim.SGD(
        model.parameters(), LEARNING_RATE, 0.9, weight_decay=WEIGHT_DECAY, nesterov=True
    )
    steps = EPOCHS * (len(labels) // BATCH)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, steps)
    for epoch in range(EPOCHS):
        started, total = time.perf_counter(), 0.0
        order = torch.randperm(len(labels), generator=draw)
        for rows in order[: len(order) // BATCH * BATCH].split(BATCH):
            flip = torch.rand(len(rows), 1, 1, 1, generator=draw) < 0.5
            batch = pictures[rows]
            batch = torch.where(flip, batch.flip(3), batch)
            loss = nn.functional.cross_entropy(model(scaled(batch)), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rates.step()
            total += loss.item() * len(rows)
        seconds = time.perf_counter() - started
        print(f"epoch {epoch + 1}: loss {total / len(order):.3f}, {seconds:.0f} s", flush=True)
    return body.eval()


@torch.no_grad()
def features(body: nn.Module, pictures: Tensor) -> Tensor:
    """Features [N, 192] of pictures [N, 3, H, W]."""
    return torch.cat([body(scaled(batch)) for batch in pictures.split(500)])


def cached(folder: str, cache: Path = CACHE) -> dict[str, Tensor]:
    """Features of the CIFAR-10 pictures in their order: train [50,000, 192], test [10,000, 192].

    Parameters
    ----------
    folder : str
        That holds cifar-10/ and cifar-100/.
    cache : Path
        The folder that keeps them.
    """
    name = hashlib.sha256(repr(sorted(PROTOCOL.items())).encode()).hexdigest()[:8]
    path = cache / f"cifar-10-{name}.safetensors"
    if not path.exists():
        print(f"training on CIFAR-100 for {path}", flush=True)
        others = keeprate.load_data(Path(folder) / "cifar-100", label="label").splits["train"]
        body = train(others.inputs[:], others.labels)
        own = keeprate.load_data(Path(folder) / "cifar-10", label="label").splits
        made = {name: features(body, own[name].inputs[:]) for name in ("train", "test")}
        cache.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.part")
        save_file(made, part)
        part.replace(path)
    return dict(load_file(path))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", default=os.environ.get("KEEPRATE_DATA", "../shared/data"))
    parser.add_argument("--cache", type=Path, default=CACHE)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name, tensor in cached(options.data, options.cache).items():
        print(name, tuple(tensor.shape))


if __name__ == "__main__":
    main()
