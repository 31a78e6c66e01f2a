"""How fast is lockstep training? `python -m benchmarks.engine [--data FOLDER] [--out FILE]`.

A run measures these in turns, so that other work on the machine disturbs all alike:

reference   the loop of this literature's releases: a `Dataset` that makes a PIL image and then a
            tensor of each sample, a `DataLoader`, two modules, two optimisers, argsort
plain       a good in-memory PyTorch loop: uint8 tensors, two modules, fused Adam, index selection
keeprate    `train_step` on K stacked candidates, as `keeprate search` runs it
matmul      the rate of a 2048 x 2048 matrix product
adam        the optimiser's step alone, which memory limits; the products at the matmul rate and
            this step are the floor, the least time of a train step
aged        keeprate's step after four epochs, with and without its care for denormal numbers

All in float32; where "auto" trains in bfloat16, keeprate in bfloat16 too, beside the bfloat16 rate.
All are Co-teaching with two networks, MLP 784-256-10, batch 128, Adam. Times are seconds per
candidate-epoch (469 steps of two networks), medians over the rounds. Ratios are taken in a round.
keeprate asks glibc to keep freed memory (`mallopt`). That holds for the whole process, and so the
rivals gain too from the second round on.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from keeprate.data import Data, Normaliser, load_data, prepare
from keeprate.engine import (
    SWEEP_EVERY,
    Candidate,
    ModelFactory,
    Population,
    TrainingConfig,
    get_method,
    make_setup,
    mlp,
    new_population,
    sweep_tiny,
    train_step,
)
from keeprate.files import write_json
from keeprate.noise import Noise
from keeprate.records import versions
from keeprate.schedules import Schedule

BATCH, KEEP_RATE, METHOD = 128, 0.6, "co-teaching"
SELECTED = int(KEEP_RATE * BATCH) / BATCH
AGE, AGED_CANDIDATES = 1876, 10  # four epochs of MNIST


def flops_per_sample(precision: str, device: torch.device) -> float:
    """Count those of one network: forward, weight gradients, input gradient of the second layer.

    The first layer's weight gradient needs the selected samples only; keeprate leaves the others
    out in float32 on a CPU.
    """
    first = 1 + (SELECTED if precision == "float32" and device.type == "cpu" else 1)
    return first * (2 * 784 * 256) + 3 * (2 * 256 * 10)


class OneByOne(Dataset[tuple[torch.Tensor, int, int]]):
    """One sample at a time by way of PIL, as torchvision's data sets with ToTensor give it."""

    def __init__(self, data: Data) -> None:
        images = data.train.inputs.movedim(1, -1)  # as in files: grey [H, W], colours [H, W, 3]
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

    return _seconds_per_step(step, n_steps, device)


def plain(data: Data, device: torch.device, n_steps: int, model: ModelFactory = mlp) -> float:
    """Seconds per step of a good in-memory loop without keeprate."""
    networks = [model(data.input_shape, data.n_classes).to(device) for _ in range(2)]
    optimizers = [torch.optim.Adam(net.parameters(), lr=1e-3, fused=True) for net in networks]
    inputs, labels = data.train.inputs.to(device), data.train.labels.to(device)
    order = torch.randperm(len(labels), device=device)
    n_keep = int(KEEP_RATE * BATCH)

    def step(number: int) -> None:
        start = number % (len(labels) // BATCH) * BATCH
        index = order[start : start + BATCH]
        x, y = inputs[index].float().div_(255), labels[index]
        outputs = [net(x) for net in networks]
        with torch.no_grad():
            kept = [
                F.cross_entropy(out, y, reduction="none").topk(n_keep, largest=False).indices
                for out in outputs
            ]
        for out, optimizer, peer_kept in zip(outputs, optimizers, reversed(kept), strict=True):
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(out[peer_kept], y[peer_kept]).backward()
            optimizer.step()

    return _seconds_per_step(step, n_steps, device)


def lockstep(
    data: Data, device: torch.device, n_steps: int, n_candidates: int, precision: str = "float32"
) -> float:
    """Seconds per step of keeprate with K candidates."""
    step = _Lockstep(data, device, n_candidates, precision)
    return _seconds_per_step(step, n_steps, device)


class _Lockstep:
    """A train step of K candidates, on the next batch at each call."""

    def __init__(self, data: Data, device: torch.device, n_candidates: int, precision: str) -> None:
        config = TrainingConfig(epochs=1, batch_size=BATCH, device=str(device), precision=precision)
        self.population = _population(data, config, n_candidates)
        self._autocast, self._method = config.autocast(device), get_method(METHOD)
        self._normaliser = Normaliser.fit(data.train.inputs)
        self._inputs, self._labels = data.train.inputs.to(device), data.train.labels.to(device)
        self._order = torch.randperm(len(self._labels), device=device)
        self._keep_rate = self.population.keep_rates[:, 0].contiguous()

    def __call__(self, number: int) -> None:
        start = number % (len(self._labels) // BATCH) * BATCH
        index = self._order[start : start + BATCH]
        x, y = self._normaliser(self._inputs[index]), self._labels[index]
        networks, optimizer = self.population.networks, self.population.optimizer
        train_step(networks, optimizer, self._method, x, y, self._keep_rate, self._autocast)


def aged(data: Data, device: torch.device, rounds: int, precision: str) -> dict[str, Any]:
    """Seconds per candidate-epoch after `AGE` steps, with `sweep_tiny` and without it.

    The moments of a unit that no sample reaches any more decay to denormal numbers.
    """
    steps = [_Lockstep(data, device, AGED_CANDIDATES, precision) for _ in range(2)]
    for number in range(AGE):
        for step, swept in zip(steps, (True, False), strict=True):
            if swept and number % SWEEP_EVERY == 0:
                sweep_tiny(step.population.optimizer)
            step(number)
    seconds: list[list[float]] = [[], []]
    for _ in range(rounds):
        sweep_tiny(steps[0].population.optimizer)
        for step, times in zip(steps, seconds, strict=True):
            times.append(_seconds_per_step(step, 20, device))
    return {
        "steps before": AGE,
        "seconds_per_candidate_epoch": {
            name: round(statistics.median(s) * (len(data.train) // BATCH) / AGED_CANDIDATES, 4)
            for name, s in zip(("keeprate", "without sweeps"), seconds, strict=True)
        },
        "without / with": round(_ratio(seconds[1], seconds[0]), 2),
    }


def _population(data: Data, config: TrainingConfig, n_candidates: int) -> Population:
    schedule, method = Schedule(np.array([KEEP_RATE])), get_method(METHOD)
    candidates = [Candidate(number, schedule, method) for number in range(n_candidates)]
    setup = make_setup(data, model="mlp", config=config, seed=0, out=None)
    return new_population(candidates, setup, stream="benchmark")


def optimizer_step(data: Data, device: torch.device, n_steps: int, n_candidates: int) -> float:
    """Seconds of Adam's step alone, which reads four numbers and writes three for each weight."""
    config = TrainingConfig(epochs=1, batch_size=BATCH, device=str(device))
    population = _population(data, config, n_candidates)
    for parameter in population.networks.parameters():
        parameter.grad = torch.full_like(parameter, 1e-3)
    return _seconds_per_step(lambda _: population.optimizer.step(), n_steps, device)


def matmul_rate(
    device: torch.device, precision: str = "float32", size: int = 2048, repeats: int = 5
) -> float:
    """FLOP/s of a square matrix product, the median of the repeats."""
    a, b = torch.randn(2, size, size, device=device, dtype=getattr(torch, precision))
    rates = []
    for _ in range(repeats + 1):
        _wait(device)
        started = time.perf_counter()
        torch.mm(a, b)
        _wait(device)
        rates.append(2 * size**3 / (time.perf_counter() - started))
    return statistics.median(rates[1:])


def peak_memory(source: str, device: torch.device, n_candidates: int) -> int:
    """Bytes that K candidates add, measured in a process of their own."""
    command = [sys.executable, "-m", "benchmarks.engine", "--data", source]
    command += ["--device", str(device), "--memory-of", str(n_candidates)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout)


def _memory_of(data: Data, device: torch.device, n_candidates: int) -> int:
    lockstep(data, device, 2, 1)  # libraries are loaded, buffers exist
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        lockstep(data, device, 5, n_candidates)
        return torch.cuda.max_memory_allocated() - before
    # Linux forgets the peak on request; loading the data set has left a high one.
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    lockstep(data, device, 5, n_candidates)
    return _status("VmHWM") - before


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no {field} in /proc/self/status")


def _seconds_per_step(step: Callable[[int], None], n_steps: int, device: torch.device) -> float:
    for number in range(3):  # workers come up, caches get warm
        step(number)
    _wait(device)
    started = time.perf_counter()
    for number in range(3, n_steps + 3):
        step(number)
    _wait(device)
    return (time.perf_counter() - started) / n_steps


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def measure(data: Data, source: str, device: torch.device, rounds: int) -> dict[str, Any]:
    """Measure all loops, `rounds` times in turns."""
    candidates = [1, 10, 40] + ([100, 200] if device.type == "cuda" else [])
    precisions = list(dict.fromkeys(["float32", TrainingConfig().resolve_precision(device)]))
    loops = _loops(data, device, candidates, precisions)
    steps = len(data.train) // BATCH
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    rates: dict[str, list[float]] = {precision: [] for precision in precisions}
    for _ in range(rounds):
        for name, (k, seconds_per_step) in loops.items():
            for precision in precisions:
                rates[precision].append(matmul_rate(device, precision))
            seconds[name].append(seconds_per_step() * steps / k)
    references = [seconds[name] for name in loops if name.startswith("reference")]
    fastest_reference = [min(times) for times in zip(*references, strict=True)]
    rate = {precision: statistics.median(each) for precision, each in rates.items()}
    flops = {  # one candidate-epoch: two networks
        precision: round(2 * BATCH * flops_per_sample(precision, device) * steps)
        for precision in precisions
    }
    result: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "versions": versions(),
        "rounds": rounds,
        "matmul_gflops": {precision: round(r / 1e9, 1) for precision, r in rate.items()},
        "flops_per_candidate_epoch": flops,
        "seconds_per_candidate_epoch": {
            name: {"median": round(statistics.median(s), 4), "all": [round(x, 4) for x in s]}
            for name, s in seconds.items()
        },
        "aged": {
            precision: aged(data, device, rounds, precision)
            for precision in precisions
            if device.type == "cpu"
        },
        "ratios": {},
    }
    for precision in precisions:
        for k in candidates:
            times = seconds[_keeprate(k, precision)]
            products = flops[precision] / rate[precision]
            floor = products + statistics.median(seconds[_adam(k)])
            ratios = {
                "reference / keeprate": round(_ratio(fastest_reference, times), 2),
                "plain / keeprate": round(_ratio(seconds["plain"], times), 2),
                "fraction of the matmul rate": round(products / statistics.median(times), 3),
                "fraction of the floor": round(floor / statistics.median(times), 3),
            }
            if precision == "float32":
                memory = peak_memory(source, device, k) / k / 2**20
                ratios["peak MiB per candidate"] = round(memory, 1)
            result["ratios"][_keeprate(k, precision)] = ratios
    return result


def _loops(
    data: Data, device: torch.device, candidates: list[int], precisions: list[str]
) -> dict[str, tuple[int, Callable[[], float]]]:
    """By name: the candidates that train together, and a function that times a step."""
    loops: dict[str, tuple[int, Callable[[], float]]] = {
        "reference, in process": (1, lambda: reference(data, device, 40, 0)),
        "reference, 2 workers": (1, lambda: reference(data, device, 40, 2)),
        "plain": (1, lambda: plain(data, device, 150)),
    }
    for precision in precisions:
        for k in candidates:
            run = partial(lockstep, data, device, max(12, 200 // k), k, precision)
            loops[_keeprate(k, precision)] = (k, run)
    for k in candidates:
        loops[_adam(k)] = (k, partial(optimizer_step, data, device, max(12, 200 // k), k))
    return loops


def _keeprate(k: int, precision: str) -> str:
    return f"keeprate, K = {k}" + ("" if precision == "float32" else f", {precision}")


def _adam(k: int) -> str:
    return f"Adam's step alone, K = {k}"


def _ratio(a: list[float], b: list[float]) -> float:
    return statistics.median(x / y for x, y in zip(a, b, strict=True))


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    default = Path(os.environ.get("KEEPRATE_DATA", "../shared/data")) / "mnist"
    parser.add_argument("--data", default=str(default), help="the MNIST folder")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", help="write the JSON here too")
    parser.add_argument("--memory-of", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    data = prepare(load_data(arguments.data), noise=Noise.parse("pairflip:0.45"), seed=0)
    if arguments.memory_of:
        print(_memory_of(data, device, arguments.memory_of))
        return
    result = measure(data, arguments.data, device, arguments.rounds)
    result["command"] = " ".join(["python -m benchmarks.engine", *sys.argv[1:]])
    print(json.dumps(result, indent=1))
    if arguments.out:
        write_json(arguments.out, result)


if __name__ == "__main__":
    main()
