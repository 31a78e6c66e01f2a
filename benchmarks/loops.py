"""The loops that keeprate is compared with, and how a step is timed."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from benchmarks.networks import BATCH
from keeprate import Data
from keeprate.engine import ModelFactory, mlp

KEEP_RATE = 0.6
LONGEST = 3.0  # seconds of steps, timed or to get warm, where a step takes that long


class OneByOne(Dataset[tuple[torch.Tensor, int, int]]):
    """One sample at a time by way of PIL, as torchvision's data sets with ToTensor give it."""

    def __init__(self, data: Data) -> None:
        images = data.train.inputs[:].movedim(1, -1)  # as in files: grey [H, W], colours [H, W, 3]
        self.images = (images[..., 0] if images.shape[-1] == 1 else images).numpy()
        self.labels = data.train.labels.tolist()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int, int]:
        image = Image.fromarray(self.images[index], mode=None)
        pixels = torch.from_numpy(np.array(image, copy=True))
        pixels = pixels.unsqueeze(0) if pixels.dim() == 2 else pixels.permute(2, 0, 1).contiguous()
        return pixels.to(torch.float32).div(255), self.labels[index], index


def reference(
    data: Data, device: torch.device, n_steps: int, workers: int, model: ModelFactory = mlp
) -> float:
    """Seconds per step of the loop of the literature's releases."""
    first, second = (model(data.input_shape, data.n_classes).to(device) for _ in range(2))
    optimizers = [torch.optim.Adam(net.parameters(), lr=1e-3) for net in (first, second)]
    loader = DataLoader(
        OneByOne(data), batch_size=BATCH, shuffle=True, drop_last=True, num_workers=workers
    )
    batches = iter(loader)

    def step(_: int) -> None:
        images, labels, _ = next(batches)
        images, labels = images.to(device), labels.to(device)
        outputs = [first(images), second(images)]
        n_keep = int(KEEP_RATE * len(labels))
        order = [
            np.argsort(F.cross_entropy(out, labels, reduction="none").detach().cpu().numpy())
            for out in outputs
        ]
        for out, optimizer, ranked in zip(outputs, optimizers, reversed(order), strict=True):
            index = torch.from_numpy(ranked[:n_keep].copy()).to(device)
            loss = F.cross_entropy(out[index], labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return seconds_per_step(step, n_steps, device)


def plain(
    data: Data,
    device: torch.device,
    n_steps: int,
    model: ModelFactory = mlp,
    *,
    channels_last: bool = False,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> float:
    """Seconds per step of a good in-memory loop without keeprate."""
    networks = [model(data.input_shape, data.n_classes).to(device) for _ in range(2)]
    order_of = torch.preserve_format
    if channels_last:
        order_of = torch.channels_last
        for net in networks:
            net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizers = [torch.optim.Adam(net.parameters(), lr=1e-3, fused=True) for net in networks]
    inputs, labels = data.train.inputs.to(device), data.train.labels.to(device)
    order = torch.randperm(len(labels), device=device)
    n_keep = int(KEEP_RATE * BATCH)

    def step(number: int) -> None:
        start = number % (len(labels) // BATCH) * BATCH
        index = order[start : start + BATCH]
        x, y = inputs[index].float().div_(255).contiguous(memory_format=order_of), labels[index]
        with autocast():
            outputs = [net(x) for net in networks]
        outputs = [out.float() for out in outputs]
        with torch.no_grad():
            kept = [
                F.cross_entropy(out, y, reduction="none").topk(n_keep, largest=False).indices
                for out in outputs
            ]
        for out, optimizer, peer_kept in zip(outputs, optimizers, reversed(kept), strict=True):
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(out[peer_kept], y[peer_kept]).backward()
            optimizer.step()

    return seconds_per_step(step, n_steps, device)


def seconds_per_step(step: Callable[[int], None], n_steps: int, device: torch.device) -> float:
    """Seconds per step: of `n_steps` at most, of fewer where they take long, of one at least."""
    wait(device)
    started, number = time.perf_counter(), 0
    while number < 3 and (number == 0 or time.perf_counter() - started < LONGEST):
        step(number)  # workers come up, caches get warm
        number += 1
    wait(device)
    started, done = time.perf_counter(), 0
    while done < n_steps and (done == 0 or time.perf_counter() - started < LONGEST):
        step(number + done)
        done += 1
    wait(device)
    return (time.perf_counter() - started) / done


def wait(device: torch.device) -> None:
    """Wait until a GPU has done what it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
