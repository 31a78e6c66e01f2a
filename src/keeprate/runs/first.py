"""The first training of a run that has to know the noise: short, and careful."""

from __future__ import annotations

import math
from dataclasses import replace
from shutil import rmtree
from statistics import fmean

from torch import Tensor

from keeprate.data import Split
from keeprate.engine import Method, Setup, probabilities
from keeprate.noise import NoiseEstimate, best_power, estimate_noise, rival_share, to_power
from keeprate.records import Cost, FirstTraining, RunRecord
from keeprate.runs.finals import TrainedNetworks, train_plans
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
    readings = _readings(setup, networks)
    rate = fmean(reading.noise_rate for reading in readings)
    matrices = [one.transition_matrix for one in readings if one.transition_matrix is not None]
    rival = fmean(rival_share(matrix) for matrix in matrices)
    return FirstTraining(rate, epochs, results[0].seconds, rival)


def _readings(setup: Setup, networks: TrainedNetworks) -> list[NoiseEstimate]:
    """Estimate the noise in the training labels, or where no label is clean in held-out ones.

    There are two readings of training labels. One takes every prediction that differs from its
    label for a wrong label: it finds too many, as networks err. The other one corrects for errors
    as clean samples tell them: it finds too few, as networks have begun to memorise.
    """
    data, device = setup.data, setup.config.resolve_device()
    modules = [module.to(device) for module in networks.modules]

    def predicted(split: Split) -> Tensor:
        return probabilities(modules, split.inputs, setup.normaliser)

    of_validation, labels = predicted(data.validation), data.validation.labels
    if data.criterion == "determinant":
        return [estimate_noise(of_validation, labels)]
    # Clean samples tell how sure the networks may be, and how often they are wrong.
    power = best_power(of_validation, labels)[0]
    is_right = of_validation.argmax(1) == labels
    of_training, given = predicted(data.train), data.train.labels
    return [
        estimate_noise(of_training, given, held_out=False),
        estimate_noise(to_power(of_training, power), given, is_right=is_right),
    ]


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
