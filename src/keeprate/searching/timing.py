"""What trainings cost on this machine, by a few real steps, and how many fit in a time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from keeprate.data import part
from keeprate.engine import (
    Assignment,
    Candidate,
    Method,
    Setup,
    candidates_together,
    carry_out,
    networks_trained,
)
from keeprate.errors import Words, invalid
from keeprate.schedules import Schedule
from keeprate.searching.budget import LEAST_TRAININGS
from keeprate.searching.stages import Stage

TOGETHER = 10  # candidates in lockstep: a generation
BATCHES_TIMED, EPOCHS_TIMED = 20, 4
LONGEST = 10.0  # seconds that the timed batches may take, at least one of them


@dataclass(frozen=True)
class Price:
    """Seconds that a step, say, takes for n networks at once.

    Attributes
    ----------
    fixed : float
    by_network : float
        More for each network.
    """

    fixed: float
    by_network: float

    @classmethod
    def through(cls, few: tuple[int, float], many: tuple[int, float]) -> Price:
        """The price of which two points, n and seconds, are known; nothing is below 0.

        >>> Price.through((2, 3.0), (20, 12.0)), Price.through((2, 3.0), (2, 3.0))
        (Price(fixed=2.0, by_network=0.5), Price(fixed=0.0, by_network=1.5))
        """
        (n, seconds), (more, their_seconds) = few, many
        if more > n and their_seconds <= seconds:
            return cls(their_seconds, 0.0)
        by_network = (their_seconds - seconds) / (more - n) if more > n else their_seconds / more
        fixed = seconds - n * by_network
        return cls(fixed, by_network) if fixed >= 0 else cls(0.0, their_seconds / more)

    def of(self, n: int) -> float:
        """Seconds for n networks."""
        return self.fixed + n * self.by_network


@dataclass(frozen=True)
class Prices:
    """What trainings cost here.

    Attributes
    ----------
    population, epoch, step : Price
        Of a population (its networks are built), of an epoch besides its steps (the validation
        samples are predicted), and of a train step.
    batch_size : int
    n_validation : int
    together : int
        Candidates that train in lockstep at most.
    """

    population: Price
    epoch: Price
    step: Price
    batch_size: int
    n_validation: int
    together: int

    def of(self, stage: Stage) -> float:
        """Seconds of a stage. Other work on the machine meanwhile is not foreseen."""
        n_steps = max(1, stage.n_samples // self.batch_size)
        evaluated = stage.n_evaluated / max(1, self.n_validation)
        seconds = 0.0
        for n in self.in_lockstep(stage):
            networks = n * stage.n_networks
            of_epoch = n_steps * self.step.of(networks) + evaluated * self.epoch.of(networks)
            seconds += self.population.of(networks) + stage.epochs * of_epoch
        return seconds

    def in_lockstep(self, stage: Stage) -> list[int]:
        """How many candidates of a stage train together, one population after the other."""
        found = []
        for size in stage.groups:
            whole, rest = divmod(size, self.together)
            found += [self.together] * whole + [rest] * bool(rest)
        return found


def measure(setup: Setup, method: Method) -> Prices:
    """Train one candidate and a generation for a few batches, after one that warms up."""
    # A cluster trains the whole group at once, in tasks.
    together = TOGETHER if setup.executor is not None else candidates_together(method, setup)
    n_batches = max(1, len(setup.data.train) // setup.config.batch_size)
    points: list[tuple[tuple[int, float], ...]] = []
    for n in sorted({1, min(TOGETHER, together)}):
        _seconds(setup, method, n, 1, 1)  # loads whatever is loaded at the first time
        one = min(_seconds(setup, method, n, 1, 1) for _ in range(2))
        most = 1 + max(1, min(BATCHES_TIMED, int(LONGEST / one)))
        few, epochs = min(most, n_batches), EPOCHS_TIMED if one < LONGEST / EPOCHS_TIMED else 1
        step = (_seconds(setup, method, n, 1, few) - one) / (few - 1) if few > 1 else 0.0
        epoch = (_seconds(setup, method, n, epochs, 1) - one) / (epochs - 1) if epochs > 1 else one
        step = min(max(step, 0.0), one)
        epoch = min(max(epoch, step), one)  # with its one step
        networks = n * networks_trained(method)
        parts = (one - min(epoch, one), epoch - step, step)
        points.append(tuple((networks, seconds) for seconds in parts))
    of_population, of_epoch, of_step = (
        Price.through(few, many) for few, many in zip(points[0], points[-1], strict=True)
    )
    batch_size, n_validation = setup.config.batch_size, len(setup.data.validation)
    return Prices(of_population, of_epoch, of_step, batch_size, n_validation, together)


def affordable(seconds: float, prices: Prices, trials: Stage, others: Sequence[Stage]) -> float:
    """How many full trainings fit in a time, besides other stages.

    Parameters
    ----------
    seconds : float
    prices : Prices
    trials : Stage
        Trials that train together, of all epochs: as many trials cost as much each.
    others : sequence of Stage

    Raises
    ------
    InputError
        If the time is too short for the other stages and the smallest search.
    """
    training = prices.of(trials) / trials.trainings
    for_others = sum(prices.of(stage) for stage in others)
    trainings = (seconds - for_others) / training
    if trainings < LEAST_TRAININGS:
        least = (LEAST_TRAININGS * training + for_others) / 60
        raise invalid(
            "budget",
            "leave time for the final trainings and a search",
            Words(f"{seconds:g} s, where one training takes about {training:.1f} s"),
            f"give {least:.1f}m or more, or fewer epochs, restarts or baselines",
        )
    return trainings


def _seconds(setup: Setup, method: Method, n: int, epochs: int, n_batches: int) -> float:
    """Time a training of n candidates together on `n_batches` batches, with its evaluation."""
    data = setup.data
    kept = part(data.train, np.arange(n_batches * setup.config.batch_size))
    setup = replace(
        setup,
        data=replace(data, train=kept, test=None),
        config=setup.config.shortened(epochs),
        folder=None,
        progress=None,
        curves_writer=None,
    )
    candidates = [Candidate(i, Schedule(np.ones(epochs)), method) for i in range(n)]
    started = time.perf_counter()
    carry_out(Assignment(candidates, "timed"), setup, after_training=lambda outcome: None)
    return time.perf_counter() - started
