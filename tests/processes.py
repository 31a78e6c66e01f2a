"""Trainings that several processes must do as one does: `torchrun -m tests.processes FILE`."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from keeprate.engine import METHODS, joined, train_step
from keeprate.engine.networks import ModuleNetworks, Networks, StackedNetworks
from keeprate.engine.world import ALONE, World
from keeprate.errors import InputError

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")
N_CLASSES, SHAPE, BATCH, STEPS = 5, (2, 6, 6), 33, 6  # an odd batch: the parts differ in size
N_CANDIDATES = 2


def perceptron() -> nn.Module:
    """A perceptron with dropout, which trains forth and back by hand."""
    hidden = nn.Sequential(nn.Linear(72, 16), nn.ReLU(), nn.Dropout(0.3))
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(16, N_CLASSES))


def plain_cnn() -> nn.Module:
    """A plain sequence of layers with batch norm and dropout, of images and of rows."""
    images = [nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)]
    images += [nn.Dropout(0.2), nn.Conv2d(4, 6, 3, bias=False), nn.BatchNorm2d(6, affine=False)]
    rows = [nn.Flatten(), nn.ReLU(), nn.Dropout(0.2), nn.Linear(6, N_CLASSES)]
    return nn.Sequential(*images, *rows)


class Branched(nn.Module):
    """No plain sequence; batch norm of images and of rows, and dropout of parts of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.rows, self.dropout = nn.BatchNorm1d(4 * 36), nn.Dropout(0.2)
        self.last = nn.Linear(4 * 36, N_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.convolution(x)))
        x = x + self.dropout(x.flatten(2).flatten(0, 1)).view(x.shape)
        return self.last(self.rows(x.flatten(1)))


KINDS: dict[str, tuple[Callable[[], nn.Module], type[Networks]]] = {
    "perceptron": (perceptron, StackedNetworks),
    "plain CNN": (plain_cnn, StackedNetworks),
    "CNN by vmap": (Branched, StackedNetworks),
    "CNN as modules": (Branched, ModuleNetworks),
}
RULES = ("standard", "co-teaching", "decoupling", "co-teaching-plus", "jocor")
DTYPES = {"float64": torch.float64, "float32": torch.float32}


def _batches(dtype: torch.dtype) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(N_CLASSES, *SHAPE, generator=generator)
    for _ in range(STEPS):
        labels = torch.randint(0, N_CLASSES, (BATCH,), generator=generator)
        inputs = directions[labels] + torch.randn(BATCH, *SHAPE, generator=generator)
        yield inputs.to(dtype), labels


def trained(kind: str, rule: str, dtype: torch.dtype, world: World = ALONE) -> dict[str, Tensor]:
    """The weights, the optimiser's averages and what each step gave, by name."""
    build, networks_type = KINDS[kind]
    method = METHODS[rule]
    networks: Any = networks_type
    networks = networks(lambda: build().to(dtype), range(N_CANDIDATES), method.n_networks, CPU)
    # Adam makes whole steps of gradients that are zero but for rounding, as that of a bias before a
    # batch norm: in float32 such biases would differ.
    optimizer: Any = torch.optim.Adam(networks.parameters(), lr=3e-3)
    if dtype == torch.float32:
        optimizer = torch.optim.SGD(networks.parameters(), lr=0.03, momentum=0.9)
    keep_rate, found = torch.tensor([0.5, 0.8]), {}
    sample_weights = torch.linspace(0.5, 1.5, BATCH)
    for step, (inputs, labels) in enumerate(_batches(dtype)):
        share = world.share(BATCH)
        returned = train_step(
            networks,
            optimizer,
            method,
            share.of(inputs),
            labels,
            keep_rate,
            sample_weights=sample_weights,
            max_grad_norm=0.5,
            share=share,
        )
        names = ("losses", "selected", "logits")
        found |= {f"{name} {step}": one for name, one in zip(names, returned, strict=True)}
    averages = "exp_avg" if dtype == torch.float64 else "momentum_buffer"
    for place, parameter in enumerate(networks.parameters()):
        found[f"average {place}"] = optimizer.state[parameter][averages]
    return found | networks.state()


def cases() -> Iterator[tuple[str, str, str]]:
    """Kinds of networks, rules, precisions."""
    yield from product(KINDS, RULES, ["float64"])
    yield from product(KINDS, ["co-teaching"], ["float32"])


def refused(build: Callable[[], nn.Module], world: World) -> str:
    """What is said of networks that processes cannot train together."""
    try:
        networks = ModuleNetworks(build, [0], 1, CPU)
        inputs, labels = next(_batches(torch.float32))
        optimizer, share = torch.optim.SGD(networks.parameters()), world.share(BATCH)
        rate = torch.ones(1)
        parts = share.of(inputs), labels
        train_step(networks, optimizer, METHODS["standard"], *parts, rate, share=share)
        world.check_same(networks.state(), CPU)
    except InputError as error:
        return str(error)
    return ""


def _before(layer: nn.Module) -> nn.Module:
    return nn.Sequential(layer, nn.Flatten(), nn.Linear(math.prod(SHAPE), N_CLASSES))


REFUSED = {
    "draws": partial(_before, nn.Dropout2d(0.5)),
    "keeps": partial(_before, nn.InstanceNorm2d(2, track_running_stats=True)),
}


def torchrun(
    n: int,
    *arguments: str,
    environment: dict[str, str] | None = None,
    cwd: Path = ROOT,
    seconds: float = 120,
) -> subprocess.CompletedProcess[str]:
    """Run a module in n processes on this machine; raise if these do not end."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return subprocess.run(
        [*launcher, f"--nproc-per-node={n}", *arguments],
        capture_output=True,
        text=True,
        timeout=seconds,
        env=os.environ
        | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT), str(cwd)])}
        | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", **(environment or {})},
        cwd=cwd,
        check=False,
    )


def main(path: str) -> None:
    """Train all cases, and write what the first process has found."""
    with joined() as processes:
        world, found = processes.group, {}
        for case in cases():
            kind, rule, dtype = case
            for name, tensor in trained(kind, rule, DTYPES[dtype], world).items():
                found[f"{case} {name}"] = tensor.detach().contiguous()
        said = {name: refused(build, world) for name, build in REFUSED.items()}
        if world.rank == 0:
            save_file(found, path, metadata=said)


if __name__ == "__main__":
    main(*sys.argv[1:])
