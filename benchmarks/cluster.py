"""What a Ray cluster costs and brings: `python -m benchmarks.cluster [--data MNIST]`.

Two clusters on this machine: one worker, then two, each pinned to a core of its own. The same
populations train on both: MNIST, MLP, Co-teaching, two candidates each.

- Overhead: the seconds of a population on one worker that are not training (sending, building the
  networks, sending the result back), as a share of its training.
- Gain: how many times as many populations an hour two workers train as one. 2 would be all.
- Without a cluster: the same for two processes that know nothing of each other, beside one alone.
  Cores share memory and caches, so this is what the machine can give.

The first population of a process waits for PyTorch to be loaded; a round before the clock starts
takes that out, and is shown as "start". Prints a table; `--out FILE` adds the numbers to those of
earlier starts in a JSON file.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
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
from keeprate.files import read_json, write_json
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


def setup_of(data: Data, epochs: int) -> Setup:
    """How all train."""
    config = TrainingConfig(epochs=epochs, device="cpu")
    return make_setup(data, model="mlp", config=config, seed=0, out=None, lockstep=TOGETHER)


def measure(data: Data, cores: list[int], epochs: int, n_populations: int) -> dict[str, float]:
    """Seconds on as many workers as there are cores."""
    setup = setup_of(data, epochs)
    with workers(cores) as address:
        started = time.perf_counter()
        with trained_on(setup, Ray(address)) as there:
            short = replace(there, config=replace(there.config, epochs=1))
            train(short, 2 * len(cores), stream="before")
            ready = time.perf_counter() - started
            seconds, training = train(there, n_populations, stream="timed")
    return {"start": ready, "seconds": seconds, "training": training}


def prepared(data: str) -> Data:
    """What all train on."""
    return prepare(load_data(data), noise="pairflip:0.45", seed=0)


def without_cluster(options: argparse.Namespace, cores: list[int]) -> list[float]:
    """Training seconds of half the populations on each of these cores, at once."""
    command = [sys.executable, "-m", "benchmarks.cluster", "--data", options.data]
    command += ["--epochs", str(options.epochs), "--populations", str(options.populations // 2)]
    running = [
        subprocess.Popen([*command, "--alone", str(core)], stdout=subprocess.PIPE, text=True)
        for core in cores
    ]
    return [float(process.communicate()[0].splitlines()[-1]) for process in running]


def train_alone(options: argparse.Namespace) -> float:
    """Training seconds in this process, on one core."""
    import torch

    os.sched_setaffinity(0, {options.alone})
    torch.set_num_threads(1)
    setup = setup_of(prepared(options.data), options.epochs)
    return train(setup, options.populations, stream="timed")[1]


def main() -> None:
    """Measure one worker and two, and print what comes out."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    default = Path(os.environ.get("KEEPRATE_DATA", "../shared/data")) / "mnist"
    parser.add_argument("--data", default=str(default))
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--populations", type=int, default=4)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--alone", type=int, metavar="CORE", help="train on it, print seconds")
    options = parser.parse_args()
    if options.alone is not None:
        print(train_alone(options))
        return
    data = prepared(options.data)
    first, second = sorted(os.sched_getaffinity(0))[:2]
    n = options.populations
    one, two = (measure(data, cores, options.epochs, n) for cores in ([first], [first, second]))
    (alone,), both = (without_cluster(options, cores) for cores in ([first], [first, second]))
    overhead = (one["seconds"] - one["training"]) / n
    row: dict[str, Any] = {
        "epochs": options.epochs,
        "populations": n,
        "training_seconds": one["training"] / n,
        "overhead_seconds": overhead,
        "overhead_share": overhead * n / one["training"],
        "gain": one["seconds"] / two["seconds"],
        "gain_without_cluster": 2 * alone / max(both),
        "seconds_without_cluster": {"alone": alone, "both": both},
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
    print(f"two processes without a cluster: {row['gain_without_cluster']:.2f} times")
    print(f"start: {one['start']:.0f} s; load of the machine at the end: {row['load']:.1f}")
    if options.out is not None:
        rows = read_json(options.out)["starts"] if options.out.exists() else []
        write_json(options.out, {"starts": [*rows, row]})


if __name__ == "__main__":
    main()
