"""What processes that share a batch bring: `python -m benchmarks.parallel [--out FILE]`.

A round times the same train step (Co-teaching, two networks, batch 128, Adam, float32, random
pixels) in turns:

one thread      one process on a core
two threads     one process on two cores
two processes   two processes on a core each, which exchange logits and gradients by gloo

Seconds are the medians over the steps of a round, by the clock, and the mean processor seconds of a
process. Where other work keeps the machine busy, the clock tells little: it stops for no one, and
two processes that wait for each other need two cores at the same moment. Processor seconds tell
what is saved; that processes wait for each other they leave out. (Two threads spin while they wait,
so theirs are left out.) Ratios are taken in a round, and the result has the median of each. On a
GPU nothing is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.loops import KEEP_RATE
from benchmarks.networks import BATCH, random_data
from keeprate.engine import (
    ALONE,
    Candidate,
    TrainingConfig,
    get_method,
    joined,
    make_setup,
    new_population,
    train_step,
)
from keeprate.files import write_json
from keeprate.records import versions
from keeprate.schedules import Schedule

WAYS = {"one thread": (1, 1), "two threads": (1, 2), "two processes": (2, 1)}
"""Processes, and threads of each."""
OURS = "two processes"
STEPS = {"mlp": 200, "model1": 24}  # timed in a round
WARM = 10  # steps before


def seconds_of_steps(model: str, n_steps: int) -> tuple[float, float, int]:
    """Seconds of a step in this process and those that share its batches; its gradients.

    Returns
    -------
    seconds : float
        The median, by the clock.
    processor : float
        Processor seconds of this process, the mean.
    n_gradients : int
        Numbers that the processes add up in a step.
    """
    data = random_data(model, 4)
    config = TrainingConfig(epochs=1, batch_size=BATCH, device="cpu", precision="float32")
    setup = make_setup(data, model=model, config=config, seed=0, out=None)
    method = get_method("co-teaching")
    candidate = Candidate(0, Schedule(np.array([KEEP_RATE])), method)
    population = new_population([candidate], setup, stream="timed")
    networks, times, processor = population.networks, [], 0.0
    with ExitStack() as stack:
        world = ALONE
        if "RANK" in os.environ:
            world = stack.enter_context(joined()).group
        for step in range(WARM + n_steps):
            if step == WARM:
                processor = time.process_time()
            index = torch.arange(BATCH) + step % 4 * BATCH
            share = world.share(BATCH)
            started = time.perf_counter()
            inputs = setup.normaliser(data.train.inputs[share.of(index)])
            train_step(
                networks,
                population.optimizer,
                method,
                inputs,
                data.train.labels[index],
                population.keep_rates[:, 0],
                share=share,
            )
            times.append(time.perf_counter() - started)
        processor = (time.process_time() - processor) / n_steps
    seconds = statistics.median(times[WARM:])
    return seconds, processor, sum(p.numel() for p in networks.parameters())


def timed(model: str, way: str, n_steps: int, cores: list[int]) -> tuple[float, float, int]:
    """What `seconds_of_steps` gives in new processes, each pinned to its cores."""
    processes, threads = WAYS[way]
    launcher = [sys.executable, "-m"]
    if processes > 1:
        launcher += ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"]
    pinned = ",".join(map(str, cores[: max(processes, threads)]))
    done = subprocess.run(
        [*launcher, "benchmarks.parallel", "--measure", model, str(n_steps), pinned],
        env=os.environ | {"OMP_NUM_THREADS": str(threads)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    seconds, processor, n_gradients = json.loads(done.stdout.splitlines()[-1])
    return seconds, processor, n_gradients


def measure_here(model: str, n_steps: int, cores: list[int]) -> None:
    """Be one of the processes that are timed; the first one prints what it has found."""
    rank = int(os.environ.get("RANK", "0"))
    if "RANK" in os.environ:
        cores = [cores[rank]]
    os.sched_setaffinity(0, cores)
    found = seconds_of_steps(model, n_steps)
    if rank == 0:
        print(json.dumps(found))


def measure(models: list[str], rounds: int, steps: dict[str, int]) -> dict[str, Any]:
    """All ways in turns, for each model."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    result: dict[str, Any] = {}
    for model in models:
        rounds_of: dict[str, dict[str, list[float]]] = {
            kind: {way: [] for way in WAYS} for kind in ("clock", "processor")
        }
        n_gradients = 0
        for _ in range(rounds):
            for way in WAYS:
                *found, n_gradients = timed(model, way, steps[model], cores)
                for of_kind, seconds in zip(rounds_of.values(), found, strict=True):
                    of_kind[way].append(seconds)
        result[model] = {"gradients": n_gradients, "rounds": rounds_of}
        for kind, seconds_of in rounds_of.items():
            result[model][kind] = {way: statistics.median(s) for way, s in seconds_of.items()}
            result[model][f"{kind}, times as fast"] = {
                way: statistics.median(
                    a / b for a, b in zip(seconds_of[way], seconds_of[OURS], strict=True)
                )
                for way in WAYS
                if way != OURS
            }
    return result


def table(found: dict[str, Any]) -> list[str]:
    """The numbers as lines of Markdown."""
    heads = [f"{way}, ms" for way in WAYS] + ["one thread / two processes"]
    heads += ["two threads / two processes", "the same of processor time, one thread"]
    lines = [f"| network | {' | '.join(heads)} |", "| --- " * (len(heads) + 1) + "|"]
    for model, row in found.items():
        cells = [f"{1000 * seconds:.1f}" for seconds in row["clock"].values()]
        cells += [f"{ratio:.2f}" for ratio in row["clock, times as fast"].values()]
        cells += [f"{row['processor, times as fast']['one thread']:.2f}"]
        lines.append(f"| {model} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Measure, and print what comes out."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(STEPS), choices=list(STEPS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.measure is not None:
        model, n_steps, cores = options.measure
        measure_here(model, int(n_steps), [int(core) for core in cores.split(",")])
        return
    loads = [os.getloadavg()[0]]
    found = measure(options.models, options.rounds, STEPS)
    loads.append(os.getloadavg()[0])
    print("\n".join(table(found)))
    print(f"load of the machine before and after: {loads[0]:.1f}, {loads[1]:.1f}")
    if options.out is not None:
        row = {"rounds": options.rounds, "steps": STEPS, "batch_size": BATCH, "models": found}
        write_json(options.out, row | {"load": loads, "versions": versions()})


if __name__ == "__main__":
    main()
