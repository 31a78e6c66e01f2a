"""How fast lockstep training is on a GPU: rows for networks, candidates, precisions and ways.

Each row times the steps as a search runs them (on a GPU a CUDA graph, with what an epoch measures),
without the evaluation between epochs. The inputs are random pixels: no step depends on what they
show. The rivals are those of `benchmarks.engine`: the loop of the literature's releases, and a good
in-memory loop. PyTorch's `FlopCounterMode` counts the arithmetic: all products of the forward and
the backward pass. The rate of the matrix product is measured with large matrices in the same run.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from benchmarks.engine import METHOD
from benchmarks.loops import KEEP_RATE, plain, reference, wait
from benchmarks.networks import BATCH, flops_per_step, random_data
from keeprate import Data, InputError, TrainingConfig
from keeprate.engine import (
    Candidate,
    Steps,
    data_on_device,
    epoch_order,
    get_method,
    get_model,
    is_out_of_memory,
    make_setup,
    new_population,
)
from keeprate.schedules import Schedule

STEPS_PER_EPOCH = {"mlp": 468, "model1": 390, "model2": 390, "model3": 390}  # MNIST, CIFAR
AT_ONCE = {"mlp": 100, "model1": 40, "model2": 6, "model3": 6}  # steps between two looks at a clock
RIVAL_STEPS = 40
LEAST_SECONDS, LEAST_ROUNDS = 1.0, 3


@dataclass(frozen=True)
class EngineRow:
    """What is timed.

    Attributes
    ----------
    network : str
    candidates : int
        K.
    precision : {"float32", "bfloat16"}
    way : {"stacked", "one by one"}
        Whether N networks are one call, or N calls (in one graph).
    """

    network: str
    candidates: int
    precision: str
    way: str = "stacked"

    @property
    def key(self) -> dict[str, Any]:
        """What tells the row from others."""
        return asdict(self)


@dataclass(frozen=True)
class RivalRow:
    """A loop of `benchmarks.engine`.

    Attributes
    ----------
    network : str
    loop : {"reference", "plain"}
    workers : int
        Processes of the `DataLoader`; 0 for "plain".
    """

    network: str
    loop: str
    workers: int = 0

    @property
    def key(self) -> dict[str, Any]:
        """What tells the row from others."""
        return asdict(self)


def rows(device: torch.device) -> Iterator[EngineRow | RivalRow]:
    """All rows, the most telling first."""
    gpu = device.type == "cuda"
    fast = "bfloat16" if gpu else "float32"
    yield from (RivalRow("mlp", "reference", n) for n in ((0, 4, 8) if gpu else (0,)))
    yield RivalRow("mlp", "plain")
    yield from (EngineRow("mlp", k, fast) for k in ((200, 20, 100, 1) if gpu else (1, 10)))
    if not gpu:
        yield EngineRow("model1", 1, fast)
        return
    for k in (20, 1):
        for way in ("one by one", "stacked"):
            yield EngineRow("model2", k, fast, way)
    yield RivalRow("model2", "reference", 8)
    yield RivalRow("model2", "plain")
    for k in (100, 20, 1, 200):
        for way in ("stacked", "one by one"):
            yield EngineRow("model1", k, fast, way)
    yield RivalRow("model1", "reference", 8)
    yield RivalRow("model1", "plain")
    for way in ("one by one", "stacked"):
        yield EngineRow("model3", 20, fast, way)
    yield RivalRow("model3", "reference", 8)
    yield RivalRow("model3", "plain")
    yield from (EngineRow("mlp", k, fast) for k in (50, 10, 5, 2))
    yield from (EngineRow("mlp", k, "float32") for k in (200, 20, 1))
    yield EngineRow("model2", 20, "float32", "one by one")
    yield from (EngineRow(name, 50, fast, "one by one") for name in ("model2", "model3"))
    yield from (EngineRow(name, 200, fast, "one by one") for name in ("model2", "model3"))


def measure(row: EngineRow | RivalRow, device: torch.device) -> dict[str, Any]:
    """Time a row; where memory runs out, the row says so."""
    data, notes = (
        random_data(row.network, max(AT_ONCE[row.network], RIVAL_STEPS + 3)),
        dict[str, Any](),
    )
    _forget(device)
    try:
        if isinstance(row, RivalRow):
            seconds = _rival(row, data, device)
        else:
            seconds, notes = _lockstep(row, data, device)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return row.key | {"seconds_per_step": None, "reason": "does not fit in memory"}
    k = getattr(row, "candidates", 1)
    epoch = seconds * STEPS_PER_EPOCH[row.network]
    return (
        row.key
        | notes
        | {
            "seconds_per_step": _rounded(seconds),
            "seconds_per_candidate_epoch": _rounded(epoch / k),
            "flops_per_second": _rounded(k * flops_per_step(row.network) / seconds),
        }
    )


def guess(row: EngineRow | RivalRow, rates: dict[str, float]) -> float:
    """Seconds that a row may take: set-up, and a third of the matrix-product rate."""
    if isinstance(row, RivalRow):
        steps, k, rate = RIVAL_STEPS + 3, 1, rates["float32"]
    else:
        steps = (LEAST_ROUNDS + 1) * AT_ONCE[row.network]
        k, rate = row.candidates, rates[row.precision]
    seconds_per_step = 1e-3 + k * flops_per_step(row.network) / (0.3 * rate)
    return 4.0 + 0.05 * k + steps * seconds_per_step


def matmul_rates(device: torch.device) -> dict[str, float]:
    """FLOP/s of a large square matrix product, the median of some, by precision.

    "tf32" is float32 with the tensor cores' rounding, which keeprate does not ask for in linear
    layers. A CPU has float32 alone here: many multiply bfloat16 a hundred times more slowly.
    """
    if device.type == "cpu":
        return {"float32": _matmul_rate(device, torch.float32, size=1024, repeats=3)}
    rates = {"float32": _matmul_rate(device, torch.float32, size=8192, repeats=5)}
    with _tf32():
        rates["tf32"] = _matmul_rate(device, torch.float32, size=8192, repeats=10)
    rates["bfloat16"] = _matmul_rate(device, torch.bfloat16, size=8192, repeats=10)
    return rates


def _matmul_rate(device: torch.device, dtype: torch.dtype, size: int, repeats: int) -> float:
    a, b = torch.randn(2, size, size, device=device).to(dtype)
    out = torch.empty_like(a)

    def products() -> None:
        for _ in range(4):  # so long that starting one takes no time
            torch.mm(a, b, out=out)

    products()
    seconds = [_seconds(products, device) for _ in range(repeats)]
    return 4 * 2 * size**3 / statistics.median(seconds)


@contextmanager
def _tf32() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _lockstep(row: EngineRow, data: Data, device: torch.device) -> tuple[float, dict[str, Any]]:
    """Seconds per step of K candidates, and whether the steps were a graph."""
    config = TrainingConfig(epochs=1, batch_size=BATCH, device=str(device), precision=row.precision)
    setup = make_setup(data, model=row.network, config=config, seed=0, out=None)
    schedule, method = Schedule(np.array([KEEP_RATE])), get_method(METHOD)
    candidates = [Candidate(number, schedule, method) for number in range(row.candidates)]
    stacked = row.way == "stacked"
    population = new_population(candidates, setup, stream="benchmark", stacked=stacked)
    kind = type(population.networks).__name__
    if (kind == "StackedNetworks") != stacked:
        raise InputError(f"{row.network} cannot run {row.way} here; its networks are {kind}.")
    steps = Steps(
        population,
        setup,
        data_on_device(data, device),
        None,
        config.autocast(device),
        (population.numbers, population.methods, False),
    )
    generator = torch.Generator().manual_seed(0)
    order = epoch_order(len(data.train), BATCH, generator)
    batches = order[: AT_ONCE[row.network]]
    population.networks.train()
    steps.run(0, batches, generator)  # warm-up and capture
    seconds: list[float] = []
    while len(seconds) < LEAST_ROUNDS or sum(seconds) < LEAST_SECONDS:
        seconds.append(_seconds(lambda: steps.run(0, batches, generator), device))
    notes: dict[str, Any] = {"graph": steps.reason_without_graph or "captured"}
    if device.type == "cuda":
        notes["peak_gib"] = round(torch.cuda.max_memory_allocated(device) / 2**30, 2)
    return statistics.median(seconds) / len(batches), notes


def _rival(row: RivalRow, data: Data, device: torch.device) -> float:
    """Seconds per step of a rival."""
    model = get_model(row.network)
    if row.loop == "plain":
        return plain(data, device, RIVAL_STEPS, model)
    return reference(data, device, RIVAL_STEPS, row.workers, model)


def _seconds(run: Callable[[], None], device: torch.device) -> float:
    """How long the device takes for what `run` asks for."""
    wait(device)
    started = time.perf_counter()
    run()
    wait(device)
    return time.perf_counter() - started


def _forget(device: torch.device) -> None:
    """Free what the row before has held."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def _rounded(number: float) -> float:
    """Four digits: times move more than that."""
    return float(f"{number:.4g}")
