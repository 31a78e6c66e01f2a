"""The main job on MNIST: search R(t), compare; mean and deviation over seeds.

    python -m experiments.main_job [--variant budget] [--noise ...] [--seeds 0 1 2]

Two at a time on two cores, one thread each, take less time than one after the other on two threads.
Each (noise, seed) is one `keeprate search` run in its own folder under --runs; a killed
experiment goes on where it stopped. The results file is rewritten after each run, and runs that
it holds already (of the same protocol) are not repeated: delete it to start anew.
Noise, split, initial weights and search all vary with the seed.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

import keeprate
from experiments.common import MAIN_JOB, MAIN_JOBS, RESULTS, main_job_command, mean_std
from keeprate.files import read_json, write_json
from keeprate.noise import Noise
from keeprate.records import differences, versions
from keeprate.training import TrainingConfig
from keeprate.trials import given_in_words

LR_SCHEDULES = {"linear-decay": "linear decay from 40 %", "constant": "constant"}


def run_one(noise: str, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """One search with its baselines, as a row of the results file."""
    started, job = time.perf_counter(), MAIN_JOBS[arguments.variant]
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // arguments.jobs))
    data = keeprate.prepare(arguments.data, noise=Noise.parse(noise), seed=seed)
    folder = Path(arguments.runs) / f"{noise.replace(':', '-')}-{arguments.variant}-seed{seed}"
    run = keeprate.search(
        data,
        **job.search,
        config=TrainingConfig(epochs=arguments.epochs, lr_schedule=job.lr_schedule),
        seed=seed,
        out=folder,
        command=f"{main_job_command(arguments.variant)} --noise {noise} --seeds {seed}",
    )
    record = run.record
    return {
        "noise": noise,
        "seed": seed,
        "noise_rate": record["data"]["noise_rate"],
        "keep_rate": run.schedule.keep_rate.tolist(),
        "results": {
            r["name"]: {
                "last": r["last"],
                "best": r["best"],
                "test_accuracy": r["curves"]["test_accuracy"],
                "label_precision": r["curves"]["label_precision"],
                "seconds": r["seconds"],
            }
            for r in record["results"]
        },
        "trials": [
            {name: t[name] for name in ("number", "state", "value", "confirms", "parameters")}
            for t in record["trials"]
        ],
        "finalists": record["finalists"],
        "precision": record["config"]["training"]["precision"],
        # Of this start: a run that goes on after a kill was longer than that.
        "cost": record["cost"] | {"wall_seconds": time.perf_counter() - started},
    }


def summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and sample deviation over seeds, in percent, for each noise and training."""
    summary: dict[str, Any] = {}
    for noise in dict.fromkeys(row["noise"] for row in rows):
        chosen = [row for row in rows if row["noise"] == noise]
        summary[noise] = {"seeds": [row["seed"] for row in chosen]}
        for name in chosen[0]["results"]:
            summary[noise][name] = {
                f"{when} {what}": _mean_and_deviation(
                    [100 * row["results"][name][when][what] for row in chosen]
                )
                for when in ("last", "best")
                for what in ("test_accuracy", "label_precision")
            }
        summary[noise]["wall minutes of each run"] = [
            round(row["cost"]["wall_seconds"] / 60, 1) for row in chosen
        ]
    return summary


def _mean_and_deviation(values: list[float]) -> list[float | None]:
    mean, deviation = mean_std(values)
    return [round(mean, 2), None if deviation is None else round(deviation, 2)]


def main() -> None:
    """Run what is missing, rewrite the results file after each run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    default = Path(os.environ.get("KEEPRATE_DATA", "../shared/data")) / "mnist"
    parser.add_argument("--data", default=str(default))
    parser.add_argument("--noise", nargs="+", default=["pairflip:0.45", "symmetric:0.5"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--variant", default=MAIN_JOB, choices=MAIN_JOBS)
    parser.add_argument("--jobs", type=int, default=2, help="runs at the same time")
    parser.add_argument("--runs", default="runs/main_job")
    parser.add_argument("--out", help="the results file; one for each variant")
    arguments = parser.parse_args()
    job = MAIN_JOBS[arguments.variant]
    out = Path(arguments.out or RESULTS / job.file)
    protocol = {
        "data": "MNIST, all 60,000 training samples; test set halved: 5,000 validation, 5,000 test",
        "network": "MLP 784-256-10, batch 128, Adam 0.001, " + LR_SCHEDULES[job.lr_schedule],
        "epochs": arguments.epochs,
        **job.search,
        "sampler": "natural-gradient",
        "confirm": True,
        "warm_start": given_in_words(),
        "finalists": 2,
        "jobs": arguments.jobs,
    }
    rows: list[dict[str, Any]] = []
    if out.exists():
        found = read_json(out)
        if found["protocol"] != protocol:
            changed = "; ".join(differences(found["protocol"], protocol))
            sys.exit(f"{out} holds runs of another protocol ({changed}); move it away.")
        rows = found["runs"]
    done = {(row["noise"], row["seed"]) for row in rows}
    wanted = [(noise, seed) for seed in arguments.seeds for noise in arguments.noise]
    started = time.perf_counter()
    with ProcessPoolExecutor(arguments.jobs, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(run_one, *key, arguments) for key in wanted if key not in done]
        for future in as_completed(futures):
            row = future.result()
            rows.append(row)
            rows.sort(key=lambda row: (row["noise"], row["seed"]))
            result = {
                "command": " ".join(["python -m experiments.main_job", *sys.argv[1:]]),
                "protocol": protocol,
                "versions": versions(),
                "wall_minutes": round((time.perf_counter() - started) / 60, 1),
                "summary": summarise(rows),
                "runs": rows,
            }
            write_json(out, result)
            accuracies = {k: v["last"]["test_accuracy"] for k, v in row["results"].items()}
            print(row["noise"], row["seed"], accuracies, flush=True)


if __name__ == "__main__":
    main()
