"""Which schedules a search tries, in which order: ask a generation of trials, tell each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import cycle
from typing import Any

import numpy as np
import numpy.typing as npt
import optuna
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from keeprate.engine import Curves, trial_value
from keeprate.errors import invalid
from keeprate.records import TrialSummary
from keeprate.schedules import Array, Schedule, Space
from keeprate.searching.config import check_fidelity
from keeprate.searching.experience import Conditions, shipped_experience
from keeprate.searching.nearest import nearest_parameters
from keeprate.searching.samplers import SamplerSpec, experimental
from keeprate.searching.study import (
    add_running,
    by_schedule,
    mean_value,
    open_study,
    standing_of,
)
from keeprate.seeding import derive_seed

LEAST_EXPLORED = 4  # a search that explores fewer trials spends none on keeping every sample


@dataclass(frozen=True)
class Proposals:
    """Which schedules a search tries, in which order.

    Attributes
    ----------
    space : Space
    epochs : int
        T.
    sampler : str
        As `keeprate.searching.samplers.SamplerSpec` reads it.
    trials : int
        In all.
    confirm : int
        How many of the trials train the best schedules (again), with other initial weights and
        other batches, and from five on the best of these once more. One training may be lucky:
        under pairflip noise the same schedule can end ten points apart.
    seed : int
    conditions : Conditions or None
        Of the data, if proposals begin from what searches on other such data have seen.
    fidelity : float
        Share of the T epochs that explored trials train for.
    earlier : tuple of Schedule
        Tried first; of any length.
    """

    space: Space
    epochs: int
    sampler: str
    trials: int
    confirm: int
    seed: int
    conditions: Conditions | None = None
    fidelity: float = 1.0
    earlier: tuple[Schedule, ...] = ()

    def __post_init__(self) -> None:
        SamplerSpec.parse(self.sampler)  # raises
        if self.trials < 1:
            raise invalid("trials", "be at least 1", self.trials, "give a positive whole number")
        if not 0 < self.fidelity <= 1:
            raise invalid("fidelity", "lie in (0, 1]", self.fidelity, "use 1 for full trainings")
        if len(self.earlier) > self.n_explored:
            requirement = f"name at most as many schedules as trials explore, {self.n_explored}"
            raise invalid("warm_start", requirement, len(self.earlier), "give more trials")
        check_fidelity(self.fidelity, sum(self.rounds))

    @cached_property
    def _spec(self) -> SamplerSpec:
        return SamplerSpec.parse(self.sampler)

    @property
    def generation_size(self) -> int:
        """Trials asked for at once."""
        return self._spec.generation_size(self.trials, self.n_explored)

    @property
    def rounds(self) -> tuple[int, ...]:
        """How many schedules are trained again, and how many of these once more.

        >>> from keeprate.schedules import get_space
        >>> [Proposals(get_space("full"), 9, "tpe", 40, n, 0).rounds for n in (10, 4, 0)]
        [(7, 3), (4,), ()]
        """
        last = self.confirm * 3 // 10 if self.confirm > 4 else 0
        return tuple(size for size in (self.confirm - last, last) if size)

    @property
    def n_explored(self) -> int:
        """Trials before the confirming ones."""
        return self.trials - sum(self.rounds)

    def _given(self, number: int) -> Array | None:
        """The schedule [T] that a trial tries whatever the sampler proposes; None for the others.

        The last one of the first generation keeps every sample. On digits, where the experience is
        from, networks always memorise; elsewhere some do not, and any drop loses right labels.
        """
        if number < len(self.earlier):
            return self.earlier[number].stretched(self.epochs).keep_rate
        place = max(self.generation_size - 1, len(self.earlier))
        if self.conditions is not None and self.n_explored >= LEAST_EXPLORED and number == place:
            return np.ones(self.epochs)
        return None

    def epochs_of(self, number: int) -> int:
        """How many epochs trial `number` trains for, if nothing stops it.

        >>> from keeprate.schedules import get_space
        >>> short = Proposals(get_space("basis"), 40, "random", 40, 10, 0, fidelity=0.25)
        >>> short.epochs_of(29), short.epochs_of(30)
        (10, 40)
        """
        return (
            max(1, round(self.fidelity * self.epochs)) if number < self.n_explored else self.epochs
        )

    def ask(self, study: optuna.Study) -> list[FrozenTrial]:
        """The running trials of a generation, asked for now or before an interruption."""
        existing = study.get_trials(deepcopy=False)
        running = [trial for trial in existing if trial.state == TrialState.RUNNING]
        generation = self.generation_of(running[0].number if running else len(existing))
        again = self._to_confirm(generation, existing)
        n_parameters = len(self.space.distributions(self.epochs))
        # Earlier versions could be interrupted within one question.
        partial = [trial for trial in running if len(trial.params) < n_parameters]
        for trial in partial:
            self._complete(study, optuna.trial.Trial(study, trial._trial_id), again)
        if partial:
            existing = study.get_trials(deepcopy=False)
            running = [trial for trial in existing if trial.state == TrialState.RUNNING]
        # An interruption may leave a generation incomplete: fill it up.
        if len(existing) < generation.stop:
            # A question writes each parameter on its own, to a disk several milliseconds each: it
            # is asked in memory, and the whole generation is written at once.
            desk = self._desk(existing)
            for number in range(len(existing), generation.stop):
                desk.sampler = self._sampler(number, "", None)
                self._complete(desk, desk.ask(), again)
            running += add_running(study, desk.get_trials(deepcopy=False)[len(existing) :])
        return running

    def _complete(
        self, study: optuna.Study, trial: optuna.Trial, again: Mapping[int, FrozenTrial]
    ) -> None:
        """Give a trial all its parameters, those of another one if it trains that `again`."""
        fixed: Mapping[str, Any] | None = None
        given = self._given(trial.number)
        if given is not None:
            fixed = nearest_parameters(self.space, given)
        if trial.number in again:
            trial.set_user_attr("confirms", again[trial.number].number)
            fixed = again[trial.number].params
        for name, distribution in self.space.distributions(self.epochs).items():
            study.sampler = self._sampler(trial.number, name, fixed)
            _suggest(trial, name, distribution)

    def _desk(self, trials: list[FrozenTrial]) -> optuna.Study:
        """A study in memory with these trials, the last one's if it can be brought up to date."""
        desk = self._last_desk.pop() if self._last_desk else None
        if desk is None or not _follow(desk, trials):
            desk = open_study(None)
            desk.add_trials(trials)
        self._last_desk.append(desk)
        return desk

    @cached_property
    def _last_desk(self) -> list[optuna.Study]:
        return []

    def generation_of(self, number: int) -> range:
        """The trials that are asked for, and trained, together with trial `number`.

        >>> from keeprate.schedules import get_space
        >>> proposals = Proposals(get_space("basis"), 40, "random", 40, 10, 0)
        >>> [proposals.generation_of(n) for n in (9, 25, 30, 39)]
        [range(0, 10), range(20, 30), range(30, 37), range(37, 40)]
        """
        # What is to be confirmed is known only when all is explored.
        if number < self.n_explored:
            start = number // self.generation_size * self.generation_size
            return range(start, min(start + self.generation_size, self.n_explored))
        start = self.n_explored
        for size in self.rounds:
            if number < start + size:
                return range(start, start + size)
            start += size
        return range(self.trials, self.trials)

    def _to_confirm(self, generation: range, trials: list[FrozenTrial]) -> dict[int, FrozenTrial]:
        """The explored trials that those of a generation repeat, if they confirm."""
        if generation.start < self.n_explored or not generation:
            return {}
        if generation.start == self.n_explored:
            # Those that got furthest, among them those with the best value.
            known = [(standing_of(t), -t.number) for t in trials[: self.n_explored]]
            ranked = sorted(((s, n) for s, n in known if s is not None), reverse=True)
            best = [-n for _, n in ranked[: self.rounds[0]]]
        else:
            same = by_schedule(trials[: generation.start])
            twice = [one for one in same if any(t.number >= self.n_explored for t in same[one])]
            best = sorted(twice, key=lambda one: (-mean_value(same[one]), one))[: self.rounds[1]]
        # Where few have a value, some are repeated more often.
        return {number: trials[one] for number, one in zip(generation, cycle(best), strict=False)}

    def _sampler(
        self, number: int, parameter: str, fixed: Mapping[str, Any] | None
    ) -> optuna.samplers.BaseSampler:
        if self._spec.remembers:
            sampler = self._shared_sampler
        else:
            sampler = self._build_sampler(number, parameter)
        if fixed is None:
            return sampler
        with experimental():
            return optuna.samplers.PartialFixedSampler(dict(fixed), sampler)

    @cached_property
    def _shared_sampler(self) -> optuna.samplers.BaseSampler:
        """One sampler for all trials: it remembers, for speed, what it has computed."""
        return self._build_sampler()

    def _build_sampler(self, *stream: int | str) -> optuna.samplers.BaseSampler:
        seed, belief = derive_seed(self.seed, "sampler", *stream) % 2**31, None
        if self.conditions is not None:
            belief = shipped_experience().belief(self.conditions)
        return self._spec.build(
            seed,
            space=self.space.distributions(self.epochs),
            generation_size=self.generation_size,
            features=self.keep_rates,
            belief=belief,
        )

    def keep_rates(self, parameters: dict[str, npt.NDArray[Any]]) -> npt.NDArray[np.float64]:
        """The schedules [n, T] that the parameters of n trials stand for."""
        return self.space.keep_rates(parameters, self.epochs)


def tell(
    study: optuna.Study, number: int, curves: Curves, proposals: Proposals, *, failed: bool
) -> None:
    """Tell what became of a trial, unless that is told already.

    Only a training of all T epochs is complete, the others are Optuna's pruned trials.
    """
    trial = study.get_trials(deepcopy=False)[number]
    if trial.state != TrialState.RUNNING:
        return
    handle = optuna.trial.Trial(study, trial._trial_id)
    handle.set_user_attr("validation_score", json.dumps(curves.validation_score))
    handle.set_user_attr("seconds", curves.seconds)
    reached = len(curves.validation_score)
    if failed:
        # Pruned, not failed: the sampler ranks it last and learns from it.
        handle.set_user_attr("failed", True)
        study.tell(number, state=TrialState.PRUNED)
        return
    value = trial_value(curves.validation_score, proposals.epochs_of(number))
    if reached < proposals.epochs:
        if reached not in trial.intermediate_values:  # else killed between report and tell
            handle.report(value, reached)
        study.tell(number, state=TrialState.PRUNED)
    else:
        study.tell(number, value)


def summarise_trial(trial: FrozenTrial, proposals: Proposals) -> TrialSummary:
    """Summarise a finished trial for the record."""
    curve = json.loads(trial.user_attrs.get("validation_score", "[]"))
    state = "failed" if "failed" in trial.user_attrs else trial.state.name.lower()
    if state == "pruned" and len(curve) == proposals.epochs_of(trial.number):
        state = "short"
    standing = None if state == "failed" else standing_of(trial)
    schedule = proposals.space.schedule(trial.params, proposals.epochs)
    return TrialSummary(
        number=trial.number,
        parameters=dict(trial.params),
        keep_rate=tuple(schedule.keep_rate.tolist()),
        state=state,
        value=trial.value if state == "complete" else None,
        reached=None if standing is None else standing[-1],
        confirms=trial.user_attrs.get("confirms"),
        validation_score=tuple(curve),
        seconds=trial.user_attrs.get("seconds", 0.0),
    )


def _follow(desk: optuna.Study, trials: list[FrozenTrial]) -> bool:
    """Tell `desk` what became of its trials; False if it is no earlier state of these."""
    ours = desk.get_trials(deepcopy=False)
    if len(ours) > len(trials):
        return False
    for mine, trial in zip(ours, trials[: len(ours)], strict=True):
        if mine.state != TrialState.RUNNING:
            if not _say_the_same(mine, trial):
                return False
        elif (mine.params, mine.system_attrs) != (trial.params, trial.system_attrs):
            return False
        elif trial.state.is_finished():
            for step, value in trial.intermediate_values.items():
                desk._storage.set_trial_intermediate_value(mine._trial_id, step, value)
            desk._storage.set_trial_state_values(mine._trial_id, trial.state, trial.values)
    desk.add_trials(trials[len(ours) :])
    return True


def _say_the_same(one: FrozenTrial, other: FrozenTrial) -> bool:
    """Whether a sampler learns the same from two finished trials."""
    names = ("state", "values", "params", "intermediate_values", "system_attrs")
    return all(getattr(one, name) == getattr(other, name) for name in names)


def _suggest(trial: optuna.Trial, name: str, distribution: Any) -> None:
    if isinstance(distribution, FloatDistribution):
        trial.suggest_float(name, distribution.low, distribution.high, log=distribution.log)
    elif isinstance(distribution, IntDistribution):
        trial.suggest_int(name, distribution.low, distribution.high, log=distribution.log)
