"""How fast is lockstep training? `python -m benchmarks.engine [--model NAME] [--out FILE]`.

A run measures these in turns, so that other work on the machine disturbs all alike:

reference   the loop of this literature's releases: a `Dataset` that makes a PIL image and then a
            tensor of each sample, a `DataLoader`, two modules, two optimisers, argsort
plain       a good in-memory PyTorch loop: uint8 tensors, two modules, fused Adam, index selection;
            for CNNs with channels last, too
keeprate    `train_step` on K stacked candidates, as `keeprate search` runs it
matmul      the rate of a 2048 x 2048 matrix product
layers      for CNNs: each convolution of the K networks alone, forward and backward, at the rate
            that oneDNN reaches
adam        the optimiser's step alone, which memory limits; the products at the matmul rate and
            this step are the floor, the least time of a train step
aged        for the perceptron: keeprate's step after four epochs, with and without its care for
            denormal numbers

All in float32; where "auto" trains in bfloat16, keeprate and the plain loop in bfloat16, too. All
are Co-teaching with two networks, batch 128, Adam. Perceptrons see MNIST, CNNs random pixels: no
step depends on what they show. Times are seconds per candidate-epoch (of 468 or 390 steps of two
networks), medians over the rounds. Ratios are taken in a round. keeprate asks glibc to keep freed
memory (`mallopt`). That holds for the whole process, and so the rivals gain too from the second
round on.
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
from torch import nn

from benchmarks.loops import KEEP_RATE, plain, reference, seconds_per_step, wait
from benchmarks.networks import BATCH, CLASSES, SHAPES, flops_per_step, random_data
from keeprate.data import Data, Normaliser, load_data, prepare
from keeprate.engine import (
    SWEEP_EVERY,
    Candidate,
    Population,
    TrainingConfig,
    fitting_candidates,
    get_method,
    get_model,
    make_setup,
    new_population,
    sweep_tiny,
    train_step,
)
from keeprate.files import write_json
from keeprate.noise import Noise
from keeprate.records import versions
from keeprate.schedules import Schedule

METHOD = "co-teaching"
SELECTED = int(KEEP_RATE * BATCH) / BATCH
AGE, AGED_CANDIDATES = 1876, 10  # four epochs of MNIST
STEPS = {"mlp": 200, "model1": 60}  # of one candidate, timed in a round; of others fewer
LEAST_STEPS = 6
LAYERS_OF = 12  # candidates whose convolutions are timed alone
IMAGES = 50_000  # an epoch of CIFAR


def flops(model: str, precision: str, device: torch.device) -> float:
    """Those of a step of one candidate, two networks.

    The first layer's weight gradient of a perceptron needs the selected samples only; keeprate
    leaves the others out in float32 on a CPU.
    """
    if model != "mlp":
        return flops_per_step(model)
    first = 1 + (SELECTED if precision == "float32" and device.type == "cpu" else 1)
    return 2 * BATCH * (first * (2 * 784 * 256) + 3 * (2 * 256 * 10))


def lockstep(
    data: Data,
    device: torch.device,
    n_steps: int,
    n_candidates: int,
    precision: str = "float32",
    model: str = "mlp",
) -> float:
    """Seconds per step of keeprate with K candidates."""
    step = _Lockstep(data, device, n_candidates, precision, model)
    return seconds_per_step(step, n_steps, device)


class _Lockstep:
    """A train step of K candidates, on the next batch at each call."""

    def __init__(
        self, data: Data, device: torch.device, n_candidates: int, precision: str, model: str
    ) -> None:
        config = TrainingConfig(epochs=1, batch_size=BATCH, device=str(device), precision=precision)
        self.population = _population(data, config, n_candidates, model)
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
    steps = [_Lockstep(data, device, AGED_CANDIDATES, precision, "mlp") for _ in range(2)]
    for number in range(AGE):
        for step, swept in zip(steps, (True, False), strict=True):
            if swept and number % SWEEP_EVERY == 0:
                sweep_tiny(step.population.optimizer)
            step(number)
    seconds: list[list[float]] = [[], []]
    for _ in range(rounds):
        sweep_tiny(steps[0].population.optimizer)
        for step, times in zip(steps, seconds, strict=True):
            times.append(seconds_per_step(step, 20, device))
    return {
        "steps before": AGE,
        "seconds_per_candidate_epoch": {
            name: round(statistics.median(s) * (len(data.train) // BATCH) / AGED_CANDIDATES, 4)
            for name, s in zip(("keeprate", "without sweeps"), seconds, strict=True)
        },
        "without / with": round(_ratio(seconds[1], seconds[0]), 2),
    }


def _population(data: Data, config: TrainingConfig, n_candidates: int, model: str) -> Population:
    schedule, method = Schedule(np.array([KEEP_RATE])), get_method(METHOD)
    candidates = [Candidate(number, schedule, method) for number in range(n_candidates)]
    setup = make_setup(data, model=model, config=config, seed=0, out=None)
    return new_population(candidates, setup, stream="benchmark")


def optimizer_step(
    data: Data, device: torch.device, n_steps: int, n_candidates: int, model: str = "mlp"
) -> float:
    """Seconds of Adam's step alone, which reads four numbers and writes three for each weight."""
    config = TrainingConfig(epochs=1, batch_size=BATCH, device=str(device))
    population = _population(data, config, n_candidates, model)
    for parameter in population.networks.parameters():
        parameter.grad = torch.full_like(parameter, 1e-3)
    return seconds_per_step(lambda _: population.optimizer.step(), n_steps, device)


def matmul_rate(
    device: torch.device, precision: str = "float32", size: int = 2048, repeats: int = 5
) -> float:
    """FLOP/s of a square matrix product, the median of the repeats."""
    a, b = torch.randn(2, size, size, device=device, dtype=getattr(torch, precision))
    rates = []
    for _ in range(repeats + 1):
        wait(device)
        started = time.perf_counter()
        torch.mm(a, b)
        wait(device)
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


def convolutions(model: str, rounds: int) -> dict[str, Any]:
    """Each convolution of K candidates alone, in float32 on a CPU: the rates that oneDNN reaches.

    The first layer's images need no gradient. Grouped convolutions are timed for a few networks at
    a time, as many as `LAYERS_OF` candidates have or memory holds.
    """
    shape = SHAPES[model]
    module = get_model(model)(shape, CLASSES[model])
    seen: list[tuple[nn.Conv2d, tuple[int, ...]]] = []
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            note = lambda conv, inputs, _: seen.append((conv, tuple(inputs[0].shape)))  # noqa: E731
            layer.register_forward_hook(note)
    with torch.no_grad():
        module.eval()(torch.rand(1, *shape))
    n = 2 * (LAYERS_OF if flops_per_step(model) < 2e10 else 1)
    rows: list[dict[str, Any]] = []
    for number, (conv, (_, channels, height, width)) in enumerate(seen):
        shared = number == 0
        x = torch.rand(BATCH, channels if shared else n * channels, height, width)
        x = x.contiguous(memory_format=torch.channels_last).requires_grad_(not shared)
        weight = torch.rand(n * conv.out_channels, *conv.weight.shape[1:]).requires_grad_()
        options: Any = (conv.stride, conv.padding, conv.dilation, 1 if shared else n)
        times: list[tuple[float, float]] = []
        wanted = (weight,) if shared else (x, weight)
        gradient = torch.ones_like(torch.conv2d(x, weight, None, *options))
        for _ in range(rounds + 1):
            started = time.perf_counter()
            y = torch.conv2d(x, weight, None, *options)
            middle = time.perf_counter()
            torch.autograd.grad(y, wanted, gradient)
            times.append((middle - started, time.perf_counter() - middle))
        work = 2.0 * BATCH * n * conv.weight.numel() * y.shape[2] * y.shape[3] / 1e9
        forward, backward = (statistics.median(each) for each in zip(*times[1:], strict=True))
        rows.append(
            {
                "channels": [channels, conv.out_channels],
                "kernel": list(conv.kernel_size),
                "image": [height, width],
                "gflop_forward": round(work, 2),
                "forward_gflops": round(work / forward, 1),
                "backward_gflops": round(len(wanted) * work / backward, 1),
                "seconds": round(forward + backward, 5),
            }
        )
    total = sum(row["seconds"] for row in rows)
    return {"candidates": n // 2, "layers": rows, "seconds_per_candidate_step": 2 * total / n}


def measure(
    model: str, source: str, device: torch.device, rounds: int, candidates: list[int]
) -> dict[str, Any]:
    """Measure all loops, `rounds` times in turns."""
    data = _data(model, source)
    precisions = list(dict.fromkeys(["float32", TrainingConfig().resolve_precision(device)]))
    loops = _loops(model, data, device, candidates, precisions)
    steps = len(data.train) // BATCH if model == "mlp" else IMAGES // BATCH
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    rates: dict[str, list[float]] = {precision: [] for precision in precisions}
    left_out = _too_large(model, data, device, candidates, precisions)
    for _ in range(rounds):
        for name, (k, time_step) in loops.items():
            if name in left_out:
                continue
            for precision in precisions:
                rates[precision].append(matmul_rate(device, precision))
            seconds[name].append(time_step() * steps / k)
    rate = {precision: statistics.median(each) for precision, each in rates.items()}
    result: dict[str, Any] = {
        "model": model,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "versions": versions(),
        "rounds": rounds,
        "matmul_gflops": {precision: round(r / 1e9, 1) for precision, r in rate.items()},
        "flops_per_candidate_epoch": {
            precision: round(flops(model, precision, device) * steps) for precision in precisions
        },
        "seconds_per_candidate_epoch": {
            name: {"median": round(statistics.median(s), 4), "all": [round(x, 4) for x in s]}
            for name, s in seconds.items()
            if s
        },
        "left out": left_out,
        "ratios": {
            _keeprate(k, precision): _ratios(model, k, precision, seconds, rate, device, steps)
            for precision in precisions
            for k in candidates
            if seconds[_keeprate(k, precision)]
        },
    }
    if model == "mlp":
        for k in candidates:
            memory = peak_memory(source, device, k) / k / 2**20
            result["ratios"][_keeprate(k, "float32")]["peak MiB per candidate"] = round(memory, 1)
        if device.type == "cpu":
            result["aged"] = {p: aged(data, device, rounds, p) for p in precisions}
    elif device.type == "cpu":
        result["convolutions"] = convolutions(model, rounds)
    return result


def _ratios(
    model: str,
    k: int,
    precision: str,
    seconds: dict[str, list[float]],
    rate: dict[str, float],
    device: torch.device,
    steps: int,
) -> dict[str, float]:
    """What K candidates gain over the rivals, and their share of what the machine can do."""
    times = seconds[_keeprate(k, precision)]
    references = [s for name, s in seconds.items() if name.startswith("reference")]
    same = {_with(name, precision) for name in ("plain", "plain, channels last")}
    plains = [s for name, s in seconds.items() if name in same]
    fastest = [[min(each) for each in zip(*rivals, strict=True)] for rivals in (references, plains)]
    products = flops(model, precision, device) * steps / rate[precision]
    floor = products + statistics.median(seconds[_adam(k)])
    return {
        "reference / keeprate": round(_ratio(fastest[0], times), 2),
        "plain / keeprate": round(_ratio(seconds["plain"], times), 2),
        "fastest plain of this precision / keeprate": round(_ratio(fastest[1], times), 2),
        "fraction of the matmul rate": round(products / statistics.median(times), 3),
        "fraction of the floor": round(floor / statistics.median(times), 3),
    }


def _too_large(
    model: str, data: Data, device: torch.device, candidates: list[int], precisions: list[str]
) -> dict[str, str]:
    """By name: the rows of which a search would make groups, and the size of these groups."""
    build = partial(get_model(model), data.input_shape, data.n_classes)
    batch = Normaliser.fit(data.train.inputs)(data.train.inputs[:BATCH])
    most = fitting_candidates(build, batch, n_peers=2, device=device)
    words = f"memory holds {most}"
    return {_keeprate(k, p): words for p in precisions for k in candidates if k > most}


def _data(model: str, source: str) -> Data:
    if model != "mlp":
        return random_data(model, STEPS.get(model, LEAST_STEPS) + 3)  # to get warm, too
    return prepare(load_data(source), noise=Noise.parse("pairflip:0.45"), seed=0)


def _loops(
    model: str, data: Data, device: torch.device, candidates: list[int], precisions: list[str]
) -> dict[str, tuple[int, Callable[[], float]]]:
    """By name: the candidates that train together, and a function that times a step."""
    build, is_cnn = get_model(model), model != "mlp"
    one = STEPS.get(model, LEAST_STEPS)
    loops: dict[str, tuple[int, Callable[[], float]]] = {
        f"reference, {words}": (1, partial(reference, data, device, min(40, one), n, build))
        for words, n in (("in process", 0), ("2 workers", 2))
    }
    for precision in precisions:
        autocast = TrainingConfig(precision=precision).autocast(device)
        for last in (False, True) if is_cnn else (False,):
            name = "plain" + ", channels last" * last
            options: dict[str, Any] = {"channels_last": last, "autocast": autocast}
            run = partial(plain, data, device, one, build, **options)
            loops[_with(name, precision)] = (1, run)
    for precision in precisions:
        for k in candidates:
            n_steps = max(LEAST_STEPS, one // k)
            loops[_keeprate(k, precision)] = (
                k,
                partial(lockstep, data, device, n_steps, k, precision, model),
            )
    for k in candidates:
        n_steps = max(LEAST_STEPS, one // k)
        loops[_adam(k)] = (k, partial(optimizer_step, data, device, n_steps, k, model))
    return loops


def _with(name: str, precision: str) -> str:
    return name + ("" if precision == "float32" else f", {precision}")


def _keeprate(k: int, precision: str) -> str:
    return _with(f"keeprate, K = {k}", precision)


def _adam(k: int) -> str:
    return f"Adam's step alone, K = {k}"


def _ratio(a: list[float], b: list[float]) -> float:
    return statistics.median(x / y for x, y in zip(a, b, strict=True))


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    default = Path(os.environ.get("KEEPRATE_DATA", "../shared/data")) / "mnist"
    parser.add_argument("--model", default="mlp", choices=list(SHAPES))
    parser.add_argument("--data", default=str(default), help="the MNIST folder, for the perceptron")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--candidates", help="K, with commas between")
    parser.add_argument("--out", help="write the JSON here too")
    parser.add_argument("--memory-of", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    if arguments.memory_of:
        print(_memory_of(_data("mlp", arguments.data), device, arguments.memory_of))
        return
    usual = "1,10,40" if arguments.model == "mlp" else "1,6,12,24"
    candidates = [int(k) for k in (arguments.candidates or usual).split(",")]
    result = measure(arguments.model, arguments.data, device, arguments.rounds, candidates)
    result["command"] = " ".join(["python -m benchmarks.engine", *sys.argv[1:]])
    print(json.dumps(result, indent=1))
    if arguments.out:
        write_json(arguments.out, result)


if __name__ == "__main__":
    main()
