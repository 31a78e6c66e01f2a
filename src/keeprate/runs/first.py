"""The first training of a run that has to know the noise: short, and careful."""

from __future__ import annotations

import math
from dataclasses import replace
from shutil import rmtree

from keeprate.engine import Method, Setup
from keeprate.noise import rival_share
from keeprate.records import Cost, FirstTraining, RunRecord
from keeprate.runs.finals import train_plans
from keeprate.runs.judgement import judge_labels
from keeprate.runs.plans import plan_without_search
from keeprate.schedules import Schedule, plain_decay

CAUTIOUS = 0.4  # its R(T)
FIRST_STEPS = 500  # the least number of its steps, if a full training has as many
FOLDER = "first"  # of its checkpoints, within the run folder


def first_epochs(setup: Setup) -> int:
    """How many epochs the first training has: a quarter of all, or `FIRST_STEPS` if that is more.

    A network that has seen too little is wrong about right labels.
    """
    config, steps = setup.config, len(setup.data.train) // setup.config.batch_size
    return min(config.epochs, max(config.epochs // 4, math.ceil(FIRST_STEPS / steps)))


def train_first(setup: Setup, method: Method) -> FirstTraining:
    """Estimate the noise by a careful training, from the labels as they are given.

    After a kill it goes on from its checkpoint; the caller keeps what it found.
    """
    epochs, outer = first_epochs(setup), setup.progress

    def progress(stage: str, done: float, total: float, best: str | None) -> None:
        if outer is not None:
            outer("noise rate", done, total, best)

    folder = None if setup.folder is None else setup.folder / FOLDER
    if folder is not None:
        folder.mkdir(exist_ok=True)
    setup = replace(
        setup,
        data=replace(setup.data, test=None),  # which the estimate could not use
        config=replace(setup.config, epochs=epochs),
        folder=folder,
        progress=progress,
        curves_writer=None,
    )
    plan = plan_without_search(method, [Schedule(plain_decay(epochs, CAUTIOUS), "cautious")])
    results, networks = train_plans([plan], setup, restarts=1)
    noise, _ = judge_labels(setup, networks)
    matrix = noise.transition_matrix
    if matrix is None:
        raise ValueError("an estimate without a matrix")
    return FirstTraining(noise.noise_rate, epochs, results[0].seconds, rival_share(matrix))


def remove_first(setup: Setup) -> None:
    """Remove the checkpoints of a first training that the record holds."""
    if setup.folder is not None:
        rmtree(setup.folder / FOLDER, ignore_errors=True)


def first_cost(record: RunRecord, epochs: int) -> Cost:
    """The cost of the first training, if there was one; a full training has `epochs`."""
    if record.first is None:
        return Cost()
    first = record.first
    return Cost(first.epochs, first.epochs / epochs, first.seconds)
