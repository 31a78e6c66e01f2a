"""The experience that ships, `src/keeprate/searching/experience.json`: schedules tried on digits.

For each noise and setting schedules are trained on scikit-learn's digits, or on many more samples:
each a digit that was turned, stretched and moved a little. Networks learn 50,000 such samples in a
few epochs, as they do MNIST, and other schedules are best there than on 1,438 digits. Three
quarters of the schedules are drops in units of about the noise rate, one quarter comes from
anywhere in the basis space. `SHIPPED` of a setting ship, good or bad, with their validation
accuracy: with twice as many a proposal takes three times as long and is no better. So do the
numbers of the kernel under which these are likeliest. The seeds are development seeds. No test
label takes part, and nothing is trained on the data sets of the figures and tables.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import affine_transform
from scipy.optimize import minimize

import keeprate
from experiments.common import RESULTS, Row, command_of, load_data
from experiments.jobs import Job, run_missing
from keeprate import Schedule, TrainingConfig
from keeprate.data import Loaded, Split
from keeprate.engine import (
    Candidate,
    Population,
    get_method,
    make_setup,
    train_candidates,
    trial_value,
)
from keeprate.files import write_atomically
from keeprate.noise import Noise, rival_share
from keeprate.runs import train_first
from keeprate.schedules import get_space
from keeprate.searching import EXPERIENCE, Conditions, Experience, Kernel, Task, standard_scores

NAME = "experience"
SUMMARY = "what ships for searches to begin with, trained on digits (trains)"
NOISES = (
    "none",
    *(f"symmetric:{rate}" for rate in (0.1, 0.2, 0.35, 0.5, 0.65)),
    *(f"pairflip:{rate}" for rate in (0.1, 0.2, 0.3, 0.4, 0.45)),
)
SETTINGS = (
    *((1000, 40, 32, 0), (1001, 40, 32, 0), (1002, 80, 32, 0), (1003, 40, 64, 0)),
    *((1004, 40, 128, 5_000), (1005, 40, 128, 15_000), (1006, 30, 128, 50_000)),
)
"""Seed, epochs, batch size, variations to train on (0: the digits as they are)."""
FIRST_VARIED = 1004
N_VALIDATION = 2_000  # where there are more than the digits
TURNED, STRETCHED, SHEARED, MOVED, BLURRED = 0.08, 0.05, 0.05, 0.25, 0.03
"""Standard deviations: radians, logarithms of factors, a slope, pixels, a pixel's value in 0..1."""
SCHEDULES, SHIPPED = 48, 24  # of each noise and setting; of variations only as many as ship
PROTOCOL: Row = {
    "data": "digits",
    "network": "MLP, Adam 0.001, linear decay from 40 %",
    "method": "co-teaching",
    "schedules, of the digits and of variations": [SCHEDULES, SHIPPED],
    "settings (seed, epochs, batch size, variations)": [list(one) for one in SETTINGS],
}
FIRST_GUESS = Kernel(0.7, 0.2, 0.4, 0.2, 1.0, 0.6, 0.15, 0.5, 0.05)
EVALUATIONS = 120  # of the likelihood, to find the kernel


def draw(rng: np.random.Generator, epochs: int, noise_rate: float) -> NDArray[np.float64]:
    """A drop [T] in units of about the noise rate; it may rise again."""
    speed, drop = np.exp(rng.uniform(np.log(1.5), np.log(30))), rng.uniform(0.2, 2.0)
    start = rng.uniform(0, 0.15)
    unit = min(0.8, max(0.03, noise_rate + rng.normal(0, 0.08)))
    drop = min(drop, 0.95 / unit)
    returns = rng.uniform(0.3, 1) * drop if rng.random() < 0.35 else 0.0
    turn = rng.uniform(0.3, 0.7)
    share = np.arange(epochs) / (epochs - 1)
    way = np.clip((share - start) / (1 - start), 0, None)
    dropped = drop * (1 - np.exp(-speed * way)) / (1 - np.exp(-speed))
    if returns:
        dropped = dropped - (drop - returns) * np.clip((share - turn) / (1 - turn), 0, 1)
    return np.asarray(np.clip(1 - unit * dropped, 0.01, 1))


def digits(seed: int, n_train: int) -> Loaded:
    """The digits, or `n_train` variations of four fifths of them, and others of the other fifth."""
    loaded = load_data("", "digits", seed)
    if not n_train:
        return loaded
    every = loaded.splits["train"]
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(every))
    held_out = len(every) // 5
    rows = {"train": order[held_out:], "validation": order[:held_out]}
    counts = {"train": n_train, "validation": N_VALIDATION}
    images, labels = every.inputs[:][:, 0].numpy(), every.labels.numpy()
    splits = {}
    for side, own in rows.items():
        chosen = rng.choice(own, counts[side])
        varied = np.stack([_vary(images[row], rng) for row in chosen])
        pixels, own_labels = torch.from_numpy(varied)[:, None], torch.from_numpy(labels[chosen])
        splits[side] = Split(pixels, own_labels)
    return replace(loaded, splits=splits)


def _vary(image: NDArray[Any], rng: np.random.Generator) -> NDArray[np.float32]:
    """Turn, stretch, shear, move and blur an image [8, 8] of pixels 0..16 a little."""
    angle, slope = rng.normal(0, TURNED), rng.normal(0, SHEARED)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = turn @ [[1, slope], [0, 1]] @ np.diag(np.exp(rng.normal(0, STRETCHED, 2)))
    middle = np.full(2, 3.5)
    offset = middle - matrix @ middle + rng.normal(0, MOVED, 2)
    moved = affine_transform(image / 16, matrix, offset, order=1)
    blurred = moved + rng.normal(0, BLURRED, image.shape)
    return np.asarray(16 * blurred.clip(0, 1), np.float32)


def train(noise: str, seed: int, epochs: int, batch_size: int, n_train: int) -> Row:
    """Train the schedules of one noise and setting, in lockstep."""
    n_validation = N_VALIDATION if n_train else None
    data = keeprate.prepare(
        digits(seed, n_train), noise=noise, seed=seed, n_validation=n_validation, n_test=0
    )
    noise_rate = Noise.parse(noise).noise_rate or 0.0
    words = f"digits{noise}{epochs}{batch_size}" + (f"x{n_train}" if n_train else "")
    rng = np.random.default_rng([seed, zlib.crc32(words.encode())])
    n_schedules = SHIPPED if n_train else SCHEDULES
    n_drops = n_schedules * 3 // 4
    rates = [draw(rng, epochs, noise_rate) for _ in range(n_drops)]
    space = get_space("basis")
    names = list(space.distributions(epochs))
    for _ in range(n_schedules - n_drops):
        parameters = dict(zip(names, rng.random(len(names)).tolist(), strict=True))
        rates.append(space.schedule(parameters, epochs).keep_rate)
    rates = [np.concatenate([[1.0], one[1:]]) for one in rates]
    config = TrainingConfig(epochs=epochs, batch_size=batch_size)
    setup = make_setup(data, model="mlp", config=config, seed=seed, out=None)
    method, values, seconds = get_method("co-teaching"), {}, 0.0
    first = train_first(setup, method)

    def collect(population: Population) -> None:
        nonlocal seconds
        for number, curves in population.curves.items():
            values[number] = trial_value(curves.validation_score, epochs)
            seconds += curves.seconds

    candidates = [Candidate(i, Schedule(one), method) for i, one in enumerate(rates)]
    train_candidates(candidates, setup, stream="bank", after_group=collect)
    return {
        "keep_rates": [one.round(4).tolist() for one in rates],
        "loss_gap": round(first.loss_gap or 0.0, 4),
        "values": [round(values[i], 6) for i in range(n_schedules)],
        "seconds": round(seconds, 1),
    }


def conditions_of(noise: Noise, loss_gap: float) -> Conditions:
    """The true noise of ten classes, and a loss gap."""
    if noise.kind == "none":
        return Conditions(0.0, 0.0, loss_gap)
    return Conditions(noise.noise_rate or 0.0, rival_share(noise.transition_matrix(10)), loss_gap)


def task_of(row: Row) -> Task:
    """What a row says, as searches use it."""
    conditions = conditions_of(Noise.parse(row["noise"]), row["loss_gap"])
    drops, scores = conditions.drops(np.array(row["keep_rates"])), standard_scores(row["values"])
    every = len(scores) // SHIPPED
    return Task(conditions, drops[::every], scores[::every])


def likeliest_kernel(tasks: Sequence[Task]) -> Kernel:
    """The kernel under which the scores are likeliest, with a weak prior around `FIRST_GUESS`."""
    start = np.log(list(vars(FIRST_GUESS).values()))

    def loss(logarithms: NDArray[np.float64]) -> float:
        try:
            likelihood = Experience(tasks, Kernel(*np.exp(logarithms).tolist())).log_likelihood
        except np.linalg.LinAlgError:
            return np.inf
        return -likelihood + 0.5 * float(np.square(logarithms - start).sum())

    options = {"maxfev": EVALUATIONS, "xatol": 0.05, "fatol": 0.5}
    found = minimize(loss, start, method="Nelder-Mead", options=options)
    return Kernel(*np.exp(found.x).round(4).tolist())


def shipped(rows: Sequence[Row]) -> Row:
    """What ships, from the rows of the results file."""
    tasks = [task_of(row) for row in rows]
    kernel = likeliest_kernel(tasks)
    return {
        "source": command_of(NAME, ""),
        "kernel": vars(kernel),
        "tasks": [
            {
                "noise_rate": task.conditions.noise_rate,
                "rival_share": round(task.conditions.rival_share, 4),
                "loss_gap": task.conditions.loss_gap,
                "drops": task.drops.round(3).tolist(),
                "scores": task.scores.round(3).tolist(),
            }
            for task in tasks
        ],
    }


def run(*, at_once: int = 1, results: Path = RESULTS, experience: Path = EXPERIENCE) -> list[Row]:
    """Train what the results file does not have yet; when nothing is missing, write the file."""
    jobs = [
        Job(
            {"noise": noise, "seed": seed},
            partial(train, noise, seed, epochs, batch_size, n_train),
        )
        for seed, epochs, batch_size, n_train in SETTINGS
        for noise in NOISES
    ]
    rows = run_missing(
        NAME,
        "",
        PROTOCOL,
        jobs,
        at_once=at_once,
        results=results,
        words=lambda row: (
            f"the best of {len(row['values'])} validates at {100 * max(row['values']):.2f} %"
        ),
    )
    write_atomically(experience, json.dumps(shipped(rows), separators=(",", ":")) + "\n")
    return rows
