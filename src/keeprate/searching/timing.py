"""How many trainings fit in a time."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from keeprate.data import part
from keeprate.engine import Assignment, Candidate, Method, Setup, carry_out
from keeprate.errors import Words, invalid
from keeprate.schedules import Schedule
from keeprate.searching.budget import LEAST_TRAININGS

TOGETHER, BATCHES_TIMED = 10, 20  # candidates in lockstep, batches


def affordable(seconds: float, setup: Setup, method: Method, *, n_finals: float) -> float:
    """How many full trainings fit in a time, besides `n_finals` final trainings.

    Times a few batches of candidates in lockstep. A slower machine, or other work on the machine
    later, is not foreseen.

    Raises
    ------
    InputError
        If the time is too short for the final trainings and the smallest search.
    """
    n_batches = len(setup.data.train) // setup.config.batch_size
    few = min(1 + BATCHES_TIMED, n_batches)
    _seconds_of_epoch(setup, method, 1)  # loads whatever is loaded at the first time
    first = _seconds_of_epoch(setup, method, 1)
    batch = max(0.0, _seconds_of_epoch(setup, method, few) - first) / max(1, few - 1)
    training = setup.config.epochs * (first + (n_batches - 1) * batch) / TOGETHER
    trainings = seconds / training - n_finals
    if trainings < LEAST_TRAININGS:
        least = (LEAST_TRAININGS + n_finals) * training / 60
        raise invalid(
            "budget",
            "leave time for the final trainings and a search",
            Words(f"{seconds:g} s, where one training takes about {training:.1f} s"),
            f"give {least:.1f}m or more, or fewer epochs, restarts or baselines",
        )
    return trainings


def _seconds_of_epoch(setup: Setup, method: Method, n_batches: int) -> float:
    """Time one epoch of `n_batches` batches and its evaluation, for all candidates together."""
    data = setup.data
    kept = part(data.train, np.arange(n_batches * setup.config.batch_size))
    setup = replace(
        setup,
        data=replace(data, train=kept, test=None),
        config=setup.config.shortened(1),
        folder=None,
        progress=None,
        curves_writer=None,
    )
    candidates = [Candidate(i, Schedule(np.ones(1)), method) for i in range(TOGETHER)]
    started = time.perf_counter()
    carry_out(Assignment(candidates, "timed"), setup, after_training=lambda outcome: None)
    return time.perf_counter() - started
