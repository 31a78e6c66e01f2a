"""How a search looks for R(t): the options that few users change."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from optuna.pruners import BasePruner

from keeprate.errors import InputError, invalid
from keeprate.schedules import Schedule, get_space, load_schedule
from keeprate.searching.budget import MANY_TRIALS, Budget, confirming
from keeprate.searching.pruners import get_pruner
from keeprate.searching.samplers import SamplerSpec

ScheduleSource: TypeAlias = str | os.PathLike[str] | Schedule | Sequence[float]


@dataclass(frozen=True)
class SearchConfig:
    """How a search looks for R(t).

    Attributes
    ----------
    space : {"basis", "co-teaching", "power-decay", "full"}
        The schedules that can be proposed (`keeprate.schedules.SPACES`).
    sampler : {"gaussian-process", "natural-gradient", "random", "tpe", "paper:STEP"}
        What proposes schedules. "gaussian-process": the schedule that is expected to improve most
        on the best so far. "natural-gradient": Alg. 2 with ranks and a bounded step, and a Gaussian
        process over the schedules that screens its proposals. "paper:STEP": the paper's own form,
        with that step size and a fifth of the trials in a generation.
    pruner : {"none", "halving", "median", "successive-halving", "hyperband"} or an Optuna pruner
        What stops trials early, by their value so far; only trials that train to the end can win.
        "halving" stops the worse six of a generation's ten after 40 % of the epochs, and half of
        the others after 60 %: 0.56 of the cost. It compares the candidates that train together:
        where memory holds few at a time it stops fewer, and a candidate alone never.
        On a cluster it needs tasks of at least five (`lockstep=5`). The other pruners are Optuna's;
        they are asked after every epoch, and compare with the generations before, too.
    fidelity : float
        Share of the epochs, in (0, 1], that exploring trials train for: the whole R(t) and the
        whole learning-rate schedule in fewer epochs. Below 1 only confirming trials train fully,
        and only they can win; the search then needs `confirm` and at least 16 trials. Use it for
        trainings that memorise wrong labels in that share of the epochs too.
    confirm : bool
        Train the best schedules again in about a quarter of the trials (in none of fewer than
        16), from other initial weights and with other batches, the best of them once more, and
        choose by the mean. The best of many single trainings was partly lucky.
    warm_start : bool, or one or several schedules
        True: "gaussian-process" begins with what searches on other data have seen at such noise
        (`keeprate.searching.experience`); a first, short training estimates the noise, and how fast
        networks learn it by heart. Schedules from other data (run folders, files, `Schedule`s or
        rows of numbers, of any length) are tried first. False: nothing is known before the first
        trial.
    earlier : tuple of Schedule
        The user's schedules among `warm_start`, as they were read.
    """

    space: str = "basis"
    sampler: str = "gaussian-process"
    pruner: str | BasePruner = "none"
    fidelity: float = 1.0
    confirm: bool = True
    warm_start: bool | ScheduleSource | Iterable[ScheduleSource] = True
    earlier: tuple[Schedule, ...] = field(init=False, repr=False)

    @property
    def uses_experience(self) -> bool:
        """Whether proposals begin with what searches on other data have seen."""
        return self.warm_start is not False and self.sampler == "gaussian-process"

    def __post_init__(self) -> None:
        get_space(self.space)  # raises, like the next two
        SamplerSpec.parse(self.sampler)
        get_pruner(self.pruner, epochs=1)
        if not 0 < self.fidelity <= 1:
            raise invalid("fidelity", "lie in (0, 1]", self.fidelity, "use 1 for full trainings")
        earlier = _earlier(self.warm_start)
        if not isinstance(self.warm_start, bool):  # an iterator is empty after one reading
            object.__setattr__(self, "warm_start", earlier)
        object.__setattr__(self, "fidelity", float(self.fidelity))
        object.__setattr__(self, "earlier", earlier)


IN_CONFIG = ("space", "sampler", "pruner", "fidelity", "confirm", "warm_start")
REPLACED = {
    "trials": "budget='40trials'",
    "n_trials": "budget='40trials'",
    "population": "lockstep=...",
    **{name: f"search_config=SearchConfig({name}=...)" for name in IN_CONFIG},
}
"""Arguments of `search` in earlier versions and elsewhere, and what to write instead."""


def refuse_replaced(arguments: Mapping[str, Any]) -> None:
    """Name the new spelling of arguments that `search` does not take.

    Raises
    ------
    InputError
        If `search` took one of them in an earlier version.
    TypeError
        If it never did.
    """
    for name in arguments:
        if name not in REPLACED:
            raise TypeError(f"search() got an unexpected keyword argument {name!r}")
        raise InputError(f"{name} was replaced: write {REPLACED[name]}.")


def check_budget(budget: float | str, search_config: SearchConfig) -> Budget:
    """Read a budget, and check that it goes with the other options; PyTorch is not needed.

    A budget that is no number of trials plans the trials by itself.

    Raises
    ------
    InputError
        If the budget is none, or an option is changed that the budget would decide.
    """
    parsed = Budget.parse(budget)
    if parsed.unit == "trials":
        n_confirming = confirming(int(parsed.amount)) if search_config.confirm else 0
        check_fidelity(search_config.fidelity, n_confirming)
        return parsed
    options = {"fidelity": search_config.fidelity != 1, "confirm": not search_config.confirm}
    changed = [name for name, is_changed in options.items() if is_changed]
    if changed:
        requirement = f"be a number of trials where {' and '.join(changed)} is changed"
        remedy = "try 40trials, or leave the other option out"
        raise invalid("budget", requirement, budget, remedy)
    return parsed


def check_fidelity(fidelity: float, n_confirming: int) -> None:
    """Refuse short trials where no trial trains fully.

    Raises
    ------
    InputError
        If the fidelity is below 1 and no trial confirms.
    """
    if fidelity < 1 and not n_confirming:
        requirement = f"be 1 where no trial confirms: none of fewer than {MANY_TRIALS} does"
        raise invalid("fidelity", requirement, fidelity, "give more trials, and confirm")


def _earlier(sources: Any) -> tuple[Schedule, ...]:
    """Read the user's schedules among a warm start."""
    if isinstance(sources, bool):
        return ()
    if isinstance(sources, str | os.PathLike | Schedule):
        sources = [sources]
    try:
        sources = tuple(sources)
    except TypeError:
        requirement = "be True, False, or name schedules"
        raise invalid("warm_start", requirement, sources, "give run folders or files") from None
    return tuple(_read(source) for source in sources)


def _read(source: ScheduleSource) -> Schedule:
    """Read a schedule under one name: from a file and from memory it is the same warm start."""
    if isinstance(source, str | os.PathLike):
        source = load_schedule("warm_start", source)
    rates: Any = source.keep_rate if isinstance(source, Schedule) else source
    return Schedule(rates, "earlier")
