"""What a search was asked for: all arguments, checked before anything is written."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from torch import nn

from keeprate.data import Data
from keeprate.engine import (
    Method,
    MetricLike,
    Progress,
    Setup,
    TrainingConfig,
    get_method,
    make_setup,
)
from keeprate.errors import check_whole, invalid
from keeprate.records import TrialCounts
from keeprate.runs import (
    Baselines,
    Origin,
    Plan,
    RunBefore,
    assumed_noise_rate,
    baseline_plans,
    baselines_in_config,
    first_epochs,
    get_baselines,
)
from keeprate.schedules import Schedule, get_space
from keeprate.searching.additions import check_add_trials
from keeprate.searching.budget import LEAST_TRAININGS, Budget, confirming
from keeprate.searching.config import SearchConfig, check_budget
from keeprate.searching.database import Database
from keeprate.searching.experience import Conditions, experience_digest
from keeprate.searching.proposals import Proposals
from keeprate.searching.pruners import pruner_in_words

MOST_FINALISTS = 2  # schedules that share the final trainings


@dataclass(frozen=True, kw_only=True, eq=False)
class Request:
    """A search as it was asked for; its numbers follow from here, whether it is trained or planned.

    Attributes
    ----------
    setup : Setup
    method : Method
    budget : Budget
    search_config : SearchConfig
    baselines : bool or list of Method
    compared : tuple of Plan
        The final trainings of the baselines.
    restarts : int
    noise_rate : float or None
    before : RunBefore or None
    database : Database or None
    add_trials : int or None
        To a finished search.
    """

    setup: Setup
    method: Method
    budget: Budget
    search_config: SearchConfig
    baselines: bool | list[Method]
    compared: tuple[Plan, ...]
    restarts: int
    noise_rate: float | None
    before: RunBefore | None
    database: Database | None
    add_trials: int | None = None

    @property
    def epochs(self) -> int:
        """Of a full training, T."""
        return self.setup.config.epochs

    @property
    def first_epochs(self) -> int:
        """Of the first training, which estimates the noise; 0 if the search needs none."""
        needs_first = self.search_config.uses_experience and self.epochs > 1
        return first_epochs(self.setup) if needs_first else 0

    @property
    def counts(self) -> TrialCounts:
        """How many trials the budget buys; for a time the least, until the machine is timed."""
        return trial_counts(self.budget, self.search_config, self.first_epochs / self.epochs)

    @property
    def n_finalists(self) -> int:
        """How many schedules share the final trainings."""
        return min(MOST_FINALISTS, self.restarts)

    @property
    def options(self) -> dict[str, object]:
        """The options that only a search has, as the record holds them."""
        options = _searched(self.method, self.budget, self.search_config) | {
            "baselines": baselines_in_config(self.baselines),
            "restarts": self.restarts,
            "noise_rate": self.noise_rate,
        }
        if self.database is not None:
            options["storage"] = str(self.database)
        return options

    def plans(self, schedules: tuple[Schedule, ...], repeats: Origin | None = None) -> list[Plan]:
        """The final trainings: those of the best schedules, and those of the baselines."""
        method = self.method
        own = Plan("searched", f"{method.label}, searched R(t)", method, schedules, repeats)
        return [own, *self.compared]

    def proposals(
        self,
        counts: TrialCounts,
        conditions: Conditions | None = None,
        added: tuple[TrialCounts, ...] = (),
    ) -> Proposals:
        """Which schedules the search tries.

        Raises
        ------
        InputError
            If so many trials do not go with the other options.
        """
        config = self.search_config
        return Proposals(
            get_space(config.space),
            self.epochs,
            config.sampler,
            counts.trials,
            counts.confirm,
            self.setup.seed,
            conditions,
            config.fidelity,
            config.earlier,
            added,
        )


def read_request(
    data: Data,
    *,
    budget: float | str,
    method: str | Method,
    model: str | Callable[..., nn.Module],
    config: TrainingConfig | None,
    search_config: SearchConfig | None,
    noise_rate: float | None,
    baselines: Baselines,
    restarts: int,
    seed: int,
    out: str | os.PathLike[str] | None,
    lockstep: int | None,
    tensorboard: bool,
    progress: bool | Progress,
    checkpoint_seconds: float,
    metric: MetricLike,
    positive: object,
    after: str | os.PathLike[str] | None,
    storage: str | None,
    add_trials: int | None,
) -> Request:
    """Check the arguments of `keeprate.search`; nothing is written.

    Raises
    ------
    InputError
        If an argument cannot be used.
    """
    config, search_config = config or TrainingConfig(), search_config or SearchConfig()
    before = None if after is None else RunBefore.of(after)
    if before is not None:
        data = before.applied_to(data)
        search_config = _beginning_with(before.folder, search_config)
    method, limit = get_searchable(method), check_budget(budget, search_config)
    chosen = get_baselines(baselines, method)
    compared = baseline_plans(chosen, config.epochs, assumed_noise_rate(data, noise_rate))
    restarts = check_whole("restarts", restarts, 1)
    if add_trials is not None:
        add_trials = check_add_trials(add_trials, out, limit)
    setup = make_setup(
        data,
        model=model,
        config=config,
        seed=seed,
        out=out,
        lockstep=lockstep,
        progress=progress,
        checkpoint_seconds=checkpoint_seconds,
        tensorboard=tensorboard,
        metric=metric,
        positive=positive,
    )
    request = Request(
        setup=setup,
        method=method,
        budget=limit,
        search_config=search_config,
        baselines=chosen,
        compared=tuple(compared),
        restarts=restarts,
        noise_rate=noise_rate,
        before=before,
        database=None if storage is None else Database.parse(storage),
        add_trials=add_trials,
    )
    request.proposals(request.counts)  # raises
    return request


def _beginning_with(folder: Path, search_config: SearchConfig) -> SearchConfig:
    """Try the schedule of the run before first, where the sampler takes schedules."""
    if not search_config.uses_experience:
        return search_config
    schedules: list[Any] = [folder, *search_config.earlier]
    return replace(search_config, warm_start=schedules)


def get_searchable(method: str | Method) -> Method:
    """Look up a method that learns by R(t).

    Raises
    ------
    InputError
        If the method uses no schedule: there is nothing to search.
    """
    method = get_method(method)
    if not method.uses_schedule:
        requirement = "select samples by R(t) to be searched"
        raise invalid("method", requirement, method.name, "try co-teaching")
    return method


def trial_counts(budget: Budget, search_config: SearchConfig, n_before: float) -> TrialCounts:
    """How many trials the budget buys; for a time the least, until the machine is timed.

    `n_before` trainings are spent before the trials, on the noise.
    """
    if budget.unit == "seconds":
        n_earlier = len(search_config.earlier)
        return TrialCounts(math.floor(LEAST_TRAININGS) + n_earlier, 0)
    amount = budget.amount
    if budget.unit == "trainings":
        amount = max(1.0, amount - n_before)
    return counts_of(amount, confirm=search_config.confirm)


def counts_of(trainings: float, *, confirm: bool = True) -> TrialCounts:
    """As many trials as there are trainings, some of which confirm."""
    trials = math.floor(trainings)
    return TrialCounts(trials, confirming(trials) if confirm else 0)


def _searched(method: Method, budget: Budget, search_config: SearchConfig) -> dict[str, object]:
    """How a search looks for R(t), as the record holds it."""
    earlier = [one.keep_rate.tobytes() for one in search_config.earlier]
    known = [f"earlier {sha256(rates).hexdigest()[:8]}" for rates in earlier]
    if search_config.uses_experience:
        known.append(f"experience {experience_digest()}")
    return {
        "method": method.name,
        "method_fingerprint": method.fingerprint(),
        "budget": str(budget),
        "space": search_config.space,
        "sampler": search_config.sampler,
        "pruner": pruner_in_words(search_config.pruner),
        "fidelity": search_config.fidelity,
        "confirm": search_config.confirm,
        "warm_start": known,
    }
