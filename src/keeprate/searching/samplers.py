"""Samplers by name: what proposes the schedules of a search."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler

from keeprate.errors import invalid
from keeprate.searching.experience import Belief
from keeprate.searching.process_sampler import GaussianProcessSampler
from keeprate.searching.sampler import DEFAULT_GENERATION_SIZE, Features, NaturalGradientSampler

NAMES = ("gaussian-process", "natural-gradient", "random", "tpe", "paper:STEP")
PAPER_ITERATIONS = 5  # of a search on real data (App. A.2)


@dataclass(frozen=True)
class SamplerSpec:
    """A sampler as typed.

    Attributes
    ----------
    name : {"gaussian-process", "natural-gradient", "random", "tpe", "paper"}
    step_size : float or None
        Of "paper", the paper's form of the natural gradient.

    Examples
    --------
    >>> SamplerSpec.parse("paper:20")
    SamplerSpec(name='paper', step_size=20.0)
    """

    name: str
    step_size: float | None = None

    @classmethod
    def parse(cls, text: str) -> SamplerSpec:
        """Read a name of `NAMES`.

        Raises
        ------
        InputError
            If there is no such sampler, or its step size is not positive.
        """
        name, colon, step = text.partition(":")
        if name != "paper" and (colon or name not in NAMES):
            raise invalid("sampler", f"be one of {', '.join(NAMES)}", text, "choose one of these")
        if name != "paper":
            return cls(name)
        try:
            step_size = float(step)
        except ValueError:
            step_size = math.nan
        if not 0 < step_size < math.inf:
            remedy = "try paper:20, as on MNIST"
            raise invalid("sampler", "have a positive step size", text, remedy)
        return cls(name, step_size)

    @property
    def remembers(self) -> bool:
        """Whether one sampler serves all trials.

        Our own derive each point from (seed, trial number). The others draw from a generator in
        memory: they get a seed for each parameter of each trial, so that a resumed search draws the
        same.
        """
        return self.name in ("gaussian-process", "natural-gradient", "paper")

    def generation_size(self, trials: int, n_explored: int) -> int:
        """How many trials are asked for at once, of so many and of so many exploring ones."""
        if self.name == "paper":
            return max(2, trials // PAPER_ITERATIONS)
        if self.name == "gaussian-process":  # at least two generations: the second one has learnt
            return max(1, min(DEFAULT_GENERATION_SIZE, (n_explored + 1) // 2))
        return DEFAULT_GENERATION_SIZE

    def build(
        self,
        seed: int,
        *,
        space: Mapping[str, BaseDistribution],
        generation_size: int,
        features: Features,
        belief: Belief | None = None,
    ) -> BaseSampler:
        """Build the Optuna sampler.

        Parameters
        ----------
        seed : int
        space : mapping of str to distribution
            The parameters of a schedule.
        generation_size : int
            Trials that are asked for at once.
        features : callable
            Gives the keep rates of parameters.
        belief : Belief, optional
            What "gaussian-process" expects before any trial is finished.
        """
        if self.name == "gaussian-process":
            return GaussianProcessSampler(space, features, seed=seed, belief=belief)
        if self.name == "random":
            return optuna.samplers.RandomSampler(seed=seed)
        if self.name == "tpe":
            with experimental():
                return optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        if self.name == "paper":
            return NaturalGradientSampler(
                seed=seed,
                generation_size=generation_size,
                fisher="monte-carlo",
                utilities="raw",
                step_size=self.step_size,
            )
        return NaturalGradientSampler(seed=seed, generation_size=generation_size, features=features)


@contextmanager
def experimental() -> Iterator[None]:
    """Silence Optuna's warning that something is experimental."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield
