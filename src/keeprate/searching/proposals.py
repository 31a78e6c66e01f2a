"""Which schedules a search tries, in which order: ask a generation of trials, tell each."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from copy import copy
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
from keeprate.records import TrialCounts, TrialSummary
from keeprate.schedules import Array, Schedule, Space
from keeprate.searching.config import check_fidelity
from keeprate.searching.experience import Conditions, shipped_experience
from keeprate.searching.legs import Generation, Legs
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
        As planned when the search began.
    confirm : int
        How many of these trials train the best schedules (again), with other initial weights and
        other batches, and from five on the best of these once more. One training may be lucky:
        under pairflip noise the same schedule can end ten points apart.
    seed : int
    conditions : Conditions or None
        Of the data, if proposals begin from what searches on other such data have seen.
    fidelity : float
        Share of the T epochs that explored trials train for.
    earlier : tuple of Schedule
        Tried first; of any length.
    added : tuple of TrialCounts
        Of each addition to the finished search.
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
    added: tuple[TrialCounts, ...] = ()

    def __post_init__(self) -> None:
        SamplerSpec.parse(self.sampler)  # raises
        if self.trials < 1:
            raise invalid("trials", "be at least 1", self.trials, "give a positive whole number")
        if not 0 < self.fidelity <= 1:
            raise invalid("fidelity", "lie in (0, 1]", self.fidelity, "use 1 for full trainings")
        if len(self.earlier) > (n_explored := self.legs.first_explored):
            requirement = f"name at most as many schedules as trials explore, {n_explored}"
            raise invalid("warm_start", requirement, len(self.earlier), "give more trials")
        check_fidelity(self.fidelity, self.confirm)

    @cached_property
    def _spec(self) -> SamplerSpec:
        return SamplerSpec.parse(self.sampler)

    @cached_property
    def legs(self) -> Legs:
        """Which trials explore, and which confirm."""
        counts = (TrialCounts(self.trials, self.confirm), *self.added)
        return Legs(counts, self._spec.generation_size)

    def _given(self, number: int) -> Array | None:
        """The schedule [T] that a trial tries whatever the sampler proposes; None for the others.

        The last one of the first generation keeps every sample. On digits, where the experience is
        from, networks always memorise; elsewhere some do not, and any drop loses right labels.
        """
        if number < len(self.earlier):
            return self.earlier[number].stretched(self.epochs).keep_rate
        legs = self.legs
        place = max(legs.first_size - 1, len(self.earlier))
        if self.conditions is None or legs.first_explored < LEAST_EXPLORED or number != place:
            return None
        return np.ones(self.epochs)

    def epochs_of(self, number: int) -> int:
        """How many epochs trial `number` trains for, if nothing stops it.

        >>> from keeprate.schedules import get_space
        >>> short = Proposals(get_space("basis"), 40, "random", 40, 10, 0, fidelity=0.25)
        >>> short.epochs_of(29), short.epochs_of(30)
        (10, 40)
        """
        if self.legs.generation_of(number).round:
            return self.epochs
        return max(1, round(self.fidelity * self.epochs))

    def ask(self, study: optuna.Study) -> list[FrozenTrial]:
        """The running trials of a generation, asked for now or before an interruption."""
        existing = study.get_trials(deepcopy=False)
        running = [trial for trial in existing if trial.state == TrialState.RUNNING]
        asked = self.legs.generation_of(running[0].number if running else len(existing))
        generation, again = asked.numbers, self._to_confirm(asked, existing)
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
            desk = self._desk([self._as_learnt(trial) for trial in existing])
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
        return self.legs.generation_of(number).numbers

    def _as_learnt(self, trial: FrozenTrial) -> FrozenTrial:
        """A trial as the sampler is to see it: what was trained longer is not comparable.

        Beside full trainings of the best schedules all short ones would look equally bad. Until
        something is added to a search, nothing is proposed after them.
        """
        is_long = self.fidelity < 1 and "confirms" in trial.user_attrs
        if not (is_long and trial.state.is_finished()):
            return trial
        hidden = copy(trial)
        hidden.state, hidden.values = TrialState.FAIL, None
        return hidden

    def _to_confirm(
        self, generation: Generation, trials: list[FrozenTrial]
    ) -> dict[int, FrozenTrial]:
        """The explored trials that those of a generation repeat, if they confirm."""
        if not generation.round:
            return {}
        numbers, before = generation.numbers, trials[: generation.numbers.start]
        explored = [trial for trial in before if "confirms" not in trial.user_attrs]
        confirming = [trial for trial in before if "confirms" in trial.user_attrs]
        # Earlier legs have trained their best ones often enough.
        often = Counter(t.user_attrs["confirms"] for t in confirming if t.number < generation.leg)
        if generation.round == 1:
            # Those that got furthest, among them those with the best value.
            left = [trial for trial in explored if not often[trial.number]] or explored
            known = [(standing_of(t), -t.number) for t in left]
            ranked = sorted(((s, n) for s, n in known if s is not None), reverse=True)
            best = [-n for _, n in ranked]
        else:
            same = by_schedule(before)
            twice = [one for one in same if any("confirms" in t.user_attrs for t in same[one])]
            left_twice = [one for one in twice if often[one] < 2] or twice
            best = sorted(left_twice, key=lambda one: (-mean_value(same[one]), one))
        best = best[: len(numbers)]
        # Where few have a value, some are repeated more often.
        return {number: trials[one] for number, one in zip(numbers, cycle(best), strict=False)}

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
            generation_size=self.legs.first_size,
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
