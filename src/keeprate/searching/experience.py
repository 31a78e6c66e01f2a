"""What searches on other data have seen: a belief about schedules before any is trained.

A schedule is described by its *drop*, (1 - R(t)) / noise rate, at `MARKS` points of the training.
In these units good schedules look alike: on digits with a tenth of the labels wrong and on MNIST
with half of them wrong, they keep all samples for a few epochs, drop by 1 (as many samples as
there are wrong labels) after a third of the training, and by 1.2 to 1.6 in the end. The belief is a
Gaussian process over drops and the noise, fitted to all trainings of the searches, good and bad. It
has one part that all data share, and one of each data set's own.

References
----------
Swersky, Snoek and Adams 2013, Multi-task Bayesian optimization, NIPS (searches on other data).
Rasmussen and Williams 2006, Gaussian processes for machine learning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from keeprate.files import read_json
from keeprate.searching.natural_gradient import Array
from keeprate.searching.surrogate import Posterior, one_thread

if TYPE_CHECKING:  # PyTorch comes with records; wrong options are refused before it is imported
    from keeprate.records import FirstTraining

EXPERIENCE = Path(__file__).with_name("experience.json")
MARKS = 16  # points of a training, evenly from the first epoch to the last
LEAST_NOISE_RATE, LARGEST_DROP = 0.05, 3.0  # a drop is a share of the noise rate: it has limits
LEAST_SPREAD = 1e-12  # of values; below, they are rounding errors of the same one
LARGEST_GAP, USUAL_GAP = 0.5, 0.2  # roundly what experience has seen; where none was measured
SCALES = tuple(2.0**power for power in range(-2, 4))
OWN, NOISE = (1.0, 3.0), (1.0, 4.0, 16.0)
"""How much wider than on the known data scores, own part and noise may be. The likeliest are taken,
with a weak prior (a standard deviation of 2 of its logarithm) that the noise is as elsewhere."""


@dataclass(frozen=True)
class Conditions:
    """What a search knows of its data.

    Attributes
    ----------
    noise_rate : float
        Share of wrong labels, in [0, 1).
    rival_share : float
        The most frequent wrong label of a class as a share of its right labels, the mean over the
        classes (`keeprate.noise.rival_share`): near 0 for symmetric noise of many classes, 0.82
        for pairflip 45 %.
    loss_gap : float
        How far networks know labels by heart after a quarter of the epochs, if they train on all
        samples (`keeprate.records.FirstTraining`). The larger, the sooner are wrong labels learnt.
    """

    noise_rate: float
    rival_share: float
    loss_gap: float

    @classmethod
    def of_rate(cls, noise_rate: float, loss_gap: float) -> Conditions:
        """Only the rate of the noise is known: it lies between symmetric and pairflip noise."""
        return cls(noise_rate, min(1.0, noise_rate / (1 - noise_rate)) / 2, loss_gap)

    @classmethod
    def found(cls, first: FirstTraining | None, noise_rate: float | None = None) -> Conditions:
        """What a first training says; a known noise rate takes the place of its estimate."""
        gap = USUAL_GAP if first is None or first.loss_gap is None else first.loss_gap
        if noise_rate is not None or first is None:
            return cls.of_rate(noise_rate or 0.0, gap)
        if first.rival_share is None:
            return cls.of_rate(first.noise_rate, gap)
        return cls(first.noise_rate, first.rival_share, gap)

    def drops(self, keep_rates: Array) -> Array:
        """Describe schedules [n, T]: [n, MARKS].

        >>> Conditions(0.5, 0.1, 0.2).drops(np.linspace(1, 0.4, 31)[None])[0, [0, 5, 15]]
        array([0. , 0.4, 1.2])
        """
        at = np.linspace(0, keep_rates.shape[1] - 1, MARKS)
        low = np.floor(at).astype(int)
        high = np.minimum(low + 1, keep_rates.shape[1] - 1)
        rates = keep_rates[:, low] + (at - low) * (keep_rates[:, high] - keep_rates[:, low])
        drops: Array = np.minimum(
            (1 - rates) / max(self.noise_rate, LEAST_NOISE_RATE), LARGEST_DROP
        )
        return drops

    @property
    def coordinates(self) -> Array:
        """[3]; a larger gap than experience has seen is like the largest."""
        return np.array([self.noise_rate, self.rival_share, min(self.loss_gap, LARGEST_GAP)])


@dataclass(frozen=True)
class Kernel:
    """Covariance of the scores of two schedules.

    shared * near(drops, drop_length) * near(conditions, their lengths) + always * near(drops,
    drop_length), and for schedules on the same data own * near(drops, own_length); near(x, l) =
    exp(-|x - y|^2 / (2 l^2)), of drops per mark.
    """

    drop_length: float
    noise_rate_length: float
    rival_share_length: float
    loss_gap_length: float
    shared: float
    always: float
    own: float
    own_length: float
    noise: float

    def between_data(self, conditions: Array, others: Array) -> Array:
        """Covariance [n, m] of the scores of equal drops on data under conditions [n, 3]."""
        lengths = np.array([self.noise_rate_length, self.rival_share_length, self.loss_gap_length])
        apart = np.square((conditions[:, None] - others) / lengths).sum(2)
        return np.asarray(self.shared * np.exp(-apart / 2) + self.always)

    def near(self, drops: Array, others: Array) -> Array:
        """How near drops [n, MARKS] are to others: [n, m], from 0 to 1."""
        return _near(drops, others, self.drop_length)

    def between(self, drops: Array, others: Array, own: float = 1.0) -> Array:
        """Covariance [n, m] of the scores of drops on the same data."""
        shared = (self.shared + self.always) * self.near(drops, others)
        return np.asarray(shared + own * self.of_own(drops, others))

    def of_own(self, drops: Array, others: Array) -> Array:
        """Covariance [n, m] of what only one data set has."""
        return self.own * _near(drops, others, self.own_length)


def _near(drops: Array, others: Array, length: float) -> Array:
    # |x - y|^2 by a matrix product: this is nearly all of the time that a proposal takes.
    apart = drops @ (-2 * others.T)
    apart += np.square(drops).sum(1)[:, None]
    apart += np.square(others).sum(1)
    apart *= -1 / (2 * MARKS * length**2)
    return np.asarray(np.exp(apart, out=apart))


@dataclass(frozen=True)
class Task:
    """One search on other data.

    Attributes
    ----------
    conditions : Conditions
        The true ones.
    drops : ndarray [n, MARKS]
    scores : ndarray [n]
        `standard_scores` of the validation values.
    """

    conditions: Conditions
    drops: Array
    scores: Array


def standard_scores(values: Sequence[float]) -> Array:
    """Bring the values of a search to a scale that searches have in common.

    0 is a value that one schedule in ten exceeds; 1 is the distance from there down to a value
    that 70 % exceed. Below -3 all are alike: bad.
    """
    known = np.asarray(values, np.float64)
    good, fair = np.quantile(known, (0.9, 0.3))
    scores: Array = np.maximum((known - good) / max(float(good - fair), 1e-9), -3.0)
    return scores


class Experience:
    """All trainings of searches on other data, and the kernel that explains them.

    Parameters
    ----------
    tasks : sequence of Task
    kernel : Kernel
    """

    def __init__(self, tasks: Sequence[Task], kernel: Kernel) -> None:
        self.kernel = kernel
        self._drops = np.concatenate([task.drops for task in tasks])
        self._conditions = np.stack([task.conditions.coordinates for task in tasks])
        self._task_of = np.repeat(np.arange(len(tasks)), [len(task.drops) for task in tasks])
        scores = np.concatenate([task.scores for task in tasks])
        self.mean = float(scores.mean())  # what nobody has tried is neither good nor bad
        covariance = kernel.near(self._drops, self._drops)
        between = kernel.between_data(self._conditions, self._conditions)
        covariance *= between[np.ix_(self._task_of, self._task_of)]
        start = 0
        for task in tasks:
            rows = slice(start, start + len(task.drops))
            covariance[rows, rows] += kernel.of_own(task.drops, task.drops)
            start = rows.stop
        covariance[np.diag_indices(len(covariance))] += kernel.noise
        with one_thread():
            self.posterior = Posterior.given(covariance, scores - self.mean)

    @property
    def log_likelihood(self) -> float:
        """Of all scores, up to a constant."""
        return self.posterior.log_likelihood

    def belief(self, conditions: Conditions) -> Belief:
        """What is to be expected under these conditions."""
        return Belief(self, conditions)

    def covariance_with(self, drops: Array, conditions: Conditions) -> Array:
        """Covariance [n, seen] of schedules under these conditions with all that was seen."""
        covariance = self.kernel.near(drops, self._drops)
        between = self.kernel.between_data(conditions.coordinates[None], self._conditions)
        covariance *= between[:, self._task_of]
        return covariance


@dataclass(frozen=True)
class Belief:
    """Expected scores of schedules on one data set, as a Gaussian process.

    Attributes
    ----------
    experience : Experience
    conditions : Conditions
    """

    experience: Experience
    conditions: Conditions

    def describe(self, keep_rates: Array) -> Array:
        """Describe schedules [n, T] as `expect` takes them."""
        return self.conditions.drops(keep_rates)

    def mean(self, points: Array) -> Array:
        """Mean [n] of the scores of described schedules [n, MARKS]."""
        return self.mean_from(self.experience.covariance_with(points, self.conditions))

    def mean_from(self, seen: Array) -> Array:
        """Mean [n], from the covariance [n, seen] with what was seen."""
        return self.experience.mean + self.experience.posterior.shift(seen)

    def expect(self, points: Array, own: float = 1.0) -> tuple[Array, Array]:
        """Mean [n] and covariance [n, n] of the scores of described schedules [n, MARKS].

        `own` multiplies the part that is this data set's own.
        """
        kernel, posterior = self.experience.kernel, self.experience.posterior
        seen = self.experience.covariance_with(points, self.conditions)
        mean = self.mean_from(seen)
        explained = posterior.explained(seen)
        covariance = kernel.between(points, points, own) - explained.T @ explained
        return mean, covariance

    def learn(self, points: Array, values: Array) -> Learned:
        """Take the values [n] of trained schedules [n, MARKS] into account.

        Values have an unknown offset and scale: score = (value - offset) / scale. The likeliest
        scale is taken, with the offset that it implies, and how much the data differ from others.
        """
        kernel = self.experience.kernel
        spread = float(values.std())
        if spread < LEAST_SPREAD:
            spread = 1.0
        best: tuple[float, Array, Array] | None = None
        likeliest = -np.inf
        for own in OWN:
            mean, covariance = self.expect(points, own)
            for noise in NOISE:
                noisy = covariance + noise * kernel.noise * np.eye(len(points))
                precision = np.linalg.inv(noisy)
                weights = precision.sum(0)
                half_determinant = 0.5 * float(np.linalg.slogdet(noisy)[1])
                for scale in spread * np.array(SCALES):
                    scores = values / scale
                    offset = float(weights @ (scores - mean) / weights.sum())
                    error = scores - offset - mean
                    likelihood = (
                        -0.5 * float(error @ precision @ error)
                        - half_determinant
                        - len(points) * float(np.log(scale))
                        - 0.5 * np.log(noise) ** 2 / 4
                    )
                    if best is None or likelihood > likeliest:
                        best, likeliest = (own, noisy, error), likelihood
        if best is None:
            raise ValueError("no number of OWN, NOISE and SCALES")
        own, noisy, error = best
        return Learned(self, own, points, Posterior.given(noisy, error))


@dataclass(frozen=True)
class Learned:
    """A belief after some schedules were trained on the data themselves."""

    belief: Belief
    own: float
    points: Array
    posterior: Posterior

    def mean(self, points: Array) -> Array:
        """Mean [n] of the scores of described schedules [n, MARKS]."""
        kernel, weights = self.belief.experience.kernel, self.posterior.weights
        direct = kernel.between(points, self.points, self.own)
        seen = self.belief.experience.covariance_with(points, self.belief.conditions)
        return self.belief.mean_from(seen) + direct @ weights - seen @ self._weights_of_seen

    @cached_property
    def _weights_of_seen(self) -> Array:
        """For the part of the shift that what was seen elsewhere explains already: [seen]."""
        experience, conditions = self.belief.experience, self.belief.conditions
        between = experience.covariance_with(self.points, conditions)
        return experience.posterior.solve(self.posterior.weights @ between)

    def expect(self, points: Array) -> tuple[Array, Array]:
        """Mean [n] and covariance [n, n] of the scores of described schedules [n, MARKS]."""
        n = len(self.points)
        mean, covariance = self.belief.expect(np.concatenate([self.points, points]), self.own)
        explained = self.posterior.explained(covariance[n:, :n])
        shift = self.posterior.shift(covariance[n:, :n])
        return mean[n:] + shift, covariance[n:, n:] - explained.T @ explained


def experience_digest() -> str:
    """A short digest of the experience: a run goes on only with the same one."""
    return sha256(EXPERIENCE.read_bytes()).hexdigest()[:8]


@cache
def shipped_experience() -> Experience:
    """The experience that comes with keeprate; `python -m experiments experience` writes it."""
    stored = read_json(EXPERIENCE)
    tasks = [
        Task(
            Conditions(task["noise_rate"], task["rival_share"], task["loss_gap"]),
            np.array(task["drops"]),
            np.array(task["scores"]),
        )
        for task in stored["tasks"]
    ]
    return Experience(tasks, Kernel(**stored["kernel"]))
