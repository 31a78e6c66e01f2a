"""What a Ray cluster costs and brings: `python -m benchmarks.cluster [--data MNIST]`.

Two clusters on this machine: one worker, then two, each pinned to a core of its own. The same
populations train on both: MNIST, MLP, Co-teaching, two candidates each.

- Overhead: the seconds of a population on one worker that are not training (sending, building the
  networks, sending the result back), as a share of its training.
- Gain: how many times as many populations an hour two workers train as one. 2 would be all.

The first population of a process waits for PyTorch to be loaded; a round before the clock starts
takes that out, and is shown as "start". Prints a table; `--out FILE` writes the numbers as JSON.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from keeprate import Data, TrainingConfig, load_data, prepare
from keeprate.engine import (
    Assignment,
    Candidate,
    Outcome,
    Ray,
    Setup,
    carry_out,
    get_method,
    make_setup,
    trained_on,
)
from keeprate.files import write_json
from keeprate.records import versions
from keeprate.schedules import Schedule

TOGETHER = 2  # candidates in a population


@contextmanager
def workers(cores: list[int]) -> Iterator[str]:
    """The address of a cluster with a worker pinned to each of these cores."""
    from ray.cluster_utils import Cluster

    os.environ.setdefault("RAY_worker_niceness", "0")  # else other work on the machine goes first
    plain: dict[str, Any] = {"include_dashboard": False, "object_store_memory": 500 * 2**20}
    cluster: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **plain})
    all_cores = os.sched_getaffinity(0)
    try:
        for core in cores:
            os.sched_setaffinity(0, {core})  # what a process starts inherits this
            cluster.add_node(num_cpus=1, **plain)
            os.sched_setaffinity(0, all_cores)
        yield cluster.address
    finally:
        os.sched_setaffinity(0, all_cores)
        cluster.shutdown()


def train(setup: Setup, n_populations: int, *, stream: str) -> tuple[float, float]:
    """Seconds by the clock of populations, and those of their training."""
    epochs, method = setup.config.epochs, get_method("co-teaching")
    candidates = [
        Candidate(number, Schedule(np.full(epochs, 0.7)), method)
        for number in range(TOGETHER * n_populations)
    ]
    found: list[Outcome] = []
    started = time.perf_counter()
    carry_out(Assignment(candidates, stream), setup, after_training=found.append)
    return time.perf_counter() - started, sum(one.curves.seconds for one in found)


def measure(data: Data, cores: list[int], epochs: int, n_populations: int) -> dict[str, float]:
    """Seconds on as many workers as there are cores."""
    config = TrainingConfig(epochs=epochs, device="cpu")
    setup = make_setup(data, model="mlp", config=config, seed=0, out=None, lockstep=TOGETHER)
    with workers(cores) as address:
        started = time.perf_counter()
        with trained_on(setup, Ray(address)) as there:
            short = replace(there, config=replace(there.config, epochs=1))
            train(short, 2 * len(cores), stream="before")
            ready = time.perf_counter() - started
            seconds, training = train(there, n_populations, stream="timed")
    return {"start": ready, "seconds": seconds, "training": training}


def main() -> None:
    """Measure one worker and two, and print what comes out."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    default = Path(os.environ.get("KEEPRATE_DATA", "../shared/data")) / "mnist"
    parser.add_argument("--data", default=str(default))
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--populations", type=int, default=4)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    data = prepare(load_data(options.data), noise="pairflip:0.45", seed=0)
    first, second = sorted(os.sched_getaffinity(0))[:2]
    n = options.populations
    one, two = (measure(data, cores, options.epochs, n) for cores in ([first], [first, second]))
    overhead = (one["seconds"] - one["training"]) / n
    row: dict[str, Any] = {
        "epochs": options.epochs,
        "populations": n,
        "training_seconds": one["training"] / n,
        "overhead_seconds": overhead,
        "overhead_share": overhead * n / one["training"],
        "gain": one["seconds"] / two["seconds"],
        "one_worker": one,
        "two_workers": two,
        "load": os.getloadavg()[0],
        "versions": versions(),
    }
    print(
        f"a population: {row['training_seconds']:.1f} s of training, {overhead:.2f} s of overhead"
    )
    print(f"overhead: {row['overhead_share']:.1%} of the training (goal: 5 % at most)")
    print(f"two workers: {row['gain']:.2f} times as fast as one (goal: 1.8)")
    print(f"start: {one['start']:.0f} s; load of the machine at the end: {row['load']:.1f}")
    if options.out is not None:
        write_json(options.out, row)


if __name__ == "__main__":
    main()
