"""One training step of a face network, by part (`python -m benchmarks.faces`).

ResNet-50 at 112 x 112, 9,131 people, a batch of 128: the paper's face study (Sec. 4.3). The engine
trains; the time is taken at the borders of its parts: data (pictures from memory, mirrored and
scaled), backbone, head, loss, selection, backward pass, optimiser. Pixels and names are drawn at
random: the time does not depend on them.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common import RESULTS
from benchmarks.engine import matmul_rate
from benchmarks.loops import wait
from keeprate import Data, TrainingConfig
from keeprate.data import Split
from keeprate.engine import (
    Candidate,
    CosineLinear,
    Method,
    Setup,
    Steps,
    data_on_device,
    get_method,
    make_setup,
    new_population,
)
from keeprate.files import write_json
from keeprate.records import versions
from keeprate.schedules import Schedule

PICTURES, EPOCHS = 3_310_000, 200  # of VggFace2-R, and in the paper
PARTS = ("data", "backbone", "head", "loss", "selection", "backward", "optimiser", "rest")
METHODS = ("standard", "co-teaching")
WARM_UP = 4


class Laps:
    """Seconds since the last lap, added up by part."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._last = device, time.perf_counter()
        self.seconds: dict[str, float] = defaultdict(float)

    def lap(self, part: str) -> None:
        """End a part."""
        wait(self._device)
        now = time.perf_counter()
        self.seconds[part] += now - self._last
        self._last = now

    def around(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function whose time counts for a part, and what was before it for the rest."""

        def timed(*arguments: Any, **options: Any) -> Any:
            self.lap("rest")
            result = function(*arguments, **options)
            self.lap(part)
            return result

        return timed


def random_faces(n: int, side: int, n_people: int) -> Data:
    """Pictures of noise."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randint(256, (n, 3, side, side), generator=generator, dtype=torch.uint8)
    labels = torch.randint(n_people, (n,), generator=generator)
    held_out = Split(inputs[:2], labels[:2])
    names = tuple(map(str, range(n_people)))
    return Data(Split(inputs, labels), held_out, None, names, "noise", normalise="centred")


def timed_steps(setup: Setup, method: Method, n_steps: int, laps: Laps | None = None) -> float:
    """Seconds per step of one candidate; with `laps` by part, too."""
    device = setup.config.resolve_device()
    if laps is not None:
        setup, method = _heard(setup, laps), _timed(method, laps)
    candidate = Candidate(0, Schedule(np.array([0.7])), method)
    population = new_population([candidate], setup, stream="benchmark")
    data = data_on_device(setup.data, device)
    key = (population.numbers, population.methods, False)
    steps = Steps(population, setup, data, None, setup.config.autocast(device), key)
    generator, size = torch.Generator().manual_seed(0), setup.config.batch_size
    batches = (torch.arange(size * n_steps) % len(data.train)).view(n_steps, size)
    population.networks.train()
    if laps is not None:
        steps._graph = None  # in a CUDA graph no lap would end
    # A GPU also captures its graph; a CPU takes seconds for a step.
    steps.run(0, batches[: WARM_UP if device.type == "cuda" else 1], generator)
    if laps is not None:
        step = population.optimizer.step

        def timed_step() -> None:
            laps.lap("backward")
            step()
            laps.lap("optimiser")

        population.optimizer.step = timed_step  # type: ignore[assignment]
        steps.meter.add = laps.around("rest", steps.meter.add)  # type: ignore[method-assign]
        laps.lap("rest")
        laps.seconds.clear()
    wait(device)
    started = time.perf_counter()
    steps.run(0, batches, generator)
    wait(device)
    return (time.perf_counter() - started) / n_steps


def _heard(setup: Setup, laps: Laps) -> Setup:
    """A setup whose networks and normaliser end laps."""

    def build(input_shape: tuple[int, ...], n_classes: int) -> nn.Module:
        module = setup.model(input_shape, n_classes)
        head = next(layer for layer in module.modules() if isinstance(layer, CosineLinear))
        module.register_forward_pre_hook(lambda *_: laps.lap("rest"))
        head.register_forward_pre_hook(lambda *_: laps.lap("backbone"))
        head.register_forward_hook(lambda *_: laps.lap("head"))
        return module

    def normaliser(batch: Tensor) -> Tensor:
        scaled = setup.normaliser(batch)
        laps.lap("data")
        return scaled

    return replace(setup, model=build, normaliser=normaliser)  # type: ignore[arg-type]


def _timed(method: Method, laps: Laps) -> Method:
    return replace(
        method,
        name="timed",
        loss=laps.around("loss", method.loss),
        select=laps.around("selection", method.select),
    )


def flops_of(setup: Setup) -> float:
    """Floating-point operations of a network for a picture, forward and backward."""
    module = setup.build()
    with FlopCounterMode(display=False) as counter:
        module(torch.rand(2, *setup.data.input_shape)).sum().backward()
    return float(counter.get_total_flops()) / 2


def measure(model: str, side: int, n_people: int, batch: int, n_steps: int, device: str) -> Any:
    """Everything that the results file holds, but for its command."""
    data = random_faces(2 * batch, side, n_people)
    config = TrainingConfig(epochs=1, batch_size=batch, augment="flip", margin=0.3, device=device)
    setup = make_setup(data, model=model, config=config, seed=0, out=None)
    place = config.resolve_device()
    precision = config.resolve_precision(place)
    flops, rate = flops_of(setup), matmul_rate(place, precision)
    found: dict[str, Any] = {
        "device": torch.cuda.get_device_name(place) if place.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "precision": precision,
        "model": model,
        "side": side,
        "people": n_people,
        "batch": batch,
        "steps": n_steps,
        "GFLOP a picture and network": round(flops / 1e9, 3),
        "matrix product, GFLOP/s": round(rate / 1e9, 1),
        "parameters": sum(p.numel() for p in setup.build().parameters()),
        "parameters of the head": n_people * 512,
        "methods": {},
    }
    for name in METHODS:
        method = get_method(name)
        seconds = timed_steps(setup, method, n_steps)
        laps = Laps(place)
        timed_steps(setup, method, n_steps, laps)
        total = sum(laps.seconds.values())
        a_second = batch / seconds
        found["methods"][name] = {
            "seconds a step": round(seconds, 4),
            "pictures a second": round(a_second, 2),
            "share of the matrix-product rate": round(
                method.n_networks * flops * a_second / rate, 3
            ),
            "share by part": {part: round(laps.seconds[part] / total, 5) for part in PARTS},
            "hours of the paper's training": round(PICTURES * EPOCHS / a_second / 3600, 1),
        }
    return found


def main() -> None:
    """Measure and write the results file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="face-resnet50")
    parser.add_argument("--side", type=int, default=112)
    parser.add_argument("--people", type=int, default=9131)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=RESULTS / "faces.json")
    given = parser.parse_args()
    found = measure(given.model, given.side, given.people, given.batch, given.steps, given.device)
    command = "python -m benchmarks.faces"
    if given.device != "auto":
        command += f" --device {given.device}"
    write_json(given.out, {"command": command, "versions": versions(), **found})
    for name, one in found["methods"].items():
        print(f"{name}: {one['seconds a step']} s a step, {one['pictures a second']} pictures/s")
        print(
            "  " + ", ".join(f"{part} {share:.2%}" for part, share in one["share by part"].items())
        )


if __name__ == "__main__":
    main()
