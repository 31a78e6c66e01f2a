"""Trials asked for a generation at a time: what is remembered between questions changes nothing."""

from __future__ import annotations

import copy
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import sqlalchemy
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from keeprate.engine import Curves
from keeprate.schedules import get_space
from keeprate.searching.proposals import Proposals, tell
from keeprate.searching.sampler import _from_units, from_unit
from keeprate.searching.study import STUDY_FILE, add_running, one_transaction, open_study
from keeprate.searching.surrogate import JITTER, Surrogate

SAMPLERS = ["natural-gradient", "tpe", "random", "paper:20"]
EPOCHS = 8


def make(sampler: str = "natural-gradient", space: str = "basis", trials: int = 26) -> Proposals:
    return Proposals(get_space(space), EPOCHS, sampler, trials, 5, 0)


def answer(study: optuna.Study, pending: list[FrozenTrial], proposals: Proposals) -> None:
    """Tell values that follow from the parameters; some trials stop early, one fails."""
    for trial in pending:
        keep_rate = proposals.space.schedule(trial.params, EPOCHS).keep_rate
        n_epochs = 3 if trial.number % 7 == 3 else EPOCHS
        curves = Curves(validation_score=[float(1 - abs(keep_rate - 0.6).mean())] * n_epochs)
        tell(study, trial.number, curves, proposals, failed=trial.number == 12)


def essence(trials: list[FrozenTrial]) -> list[Any]:
    return [(t.number, t.state, t.params, t.values, t.system_attrs, t.user_attrs) for t in trials]


def search(
    study: Callable[[], optuna.Study], proposals: Callable[[], Proposals]
) -> list[FrozenTrial]:
    while pending := proposals().ask(study()):
        answer(study(), pending, proposals())
    return study().trials


@pytest.mark.parametrize(
    ("sampler", "space"),
    [*((sampler, "basis") for sampler in SAMPLERS), ("natural-gradient", "co-teaching")],
)
def test_a_search_resumed_before_every_generation_asks_the_same(sampler, space, tmp_path: Path):
    study, proposals = open_study(None), make(sampler, space)
    whole = search(lambda: study, lambda: proposals)
    resumed = search(lambda: open_study(tmp_path), lambda: make(sampler, space))
    assert essence(resumed) == essence(whole)
    assert len(whole) == 26 and {t.state.name for t in whole} == {"COMPLETE", "PRUNED"}


# Not TPE: the half of a trial that is asked for later comes from another seed.
@pytest.mark.parametrize("sampler", ["natural-gradient", "random", "paper:20"])
def test_a_trial_with_half_of_its_parameters_gets_the_others(
    sampler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """As an interruption left it when every parameter was written on its own."""
    proposals = make(sampler)
    whole, study = open_study(None), open_study(tmp_path)
    for each in (whole, study):
        answer(each, make(sampler).ask(each), proposals)
    expected = make(sampler).ask(whole)
    calls, suggest = iter(range(5)), optuna.trial.Trial._suggest

    def interrupted(*arguments: Any) -> Any:
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return suggest(*arguments)

    existing, before = study.trials, make(sampler)
    study.sampler = before._sampler(len(existing), "", None)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(optuna.trial.Trial, "_suggest", interrupted)
        before._complete(study, study.ask(), existing)
    assert len(study.trials[-1].params) == 5
    asked = make(sampler).ask(study)
    assert [t.params for t in asked] == [t.params for t in expected]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_what_others_tell_is_noticed(sampler, tmp_path: Path):
    proposals, study = make(sampler), open_study(tmp_path)
    pending = proposals.ask(study)
    other = open_study(tmp_path)  # as in another process
    answer(other, pending, make(sampler))
    extra = {**pending[0].params, "u3": 0.9}
    other.add_trial(create_trial(params=extra, distributions=pending[0].distributions, value=2.0))
    asked = proposals.ask(study)
    copy = open_study(None)
    copy.add_trials(study.trials[: len(pending) + 1])
    assert essence(asked) == essence(make(sampler).ask(copy))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_same_proposals_serve_another_study(sampler):
    """The same parameters, but other values: what is remembered of the first study is wrong."""
    used, study = make(sampler, trials=50), open_study(None)
    for _ in range(2):
        answer(study, used.ask(study), used)
    used.ask(study)
    others = [open_study(None), open_study(None)]
    for trial in study.trials:
        same = {name: getattr(trial, name) for name in ("params", "distributions", "system_attrs")}
        told = create_trial(value=-float(sum(trial.params.values())), **same)
        for other in others:
            other.add_trial(told)
    assert essence(used.ask(others[0])) == essence(make(sampler, trials=50).ask(others[1]))


def test_a_generation_is_written_whole_or_not_at_all(tmp_path: Path):
    study, trial = open_study(tmp_path), create_trial(state=TrialState.RUNNING)
    with pytest.raises(KeyboardInterrupt), one_transaction(study):
        study.add_trials([trial, trial])
        raise KeyboardInterrupt
    assert not open_study(tmp_path).trials
    with one_transaction(study):
        study.add_trials([trial, trial])
    assert len(open_study(tmp_path).trials) == 2
    study.add_trial(trial)  # and after it each is written at once, as before
    assert len(open_study(tmp_path).trials) == 3


def rows(folder: Path) -> dict[str, list[Any]]:
    """All that a study's file holds, but for times."""
    with closing(sqlite3.connect(folder / STUDY_FILE)) as file:
        tables = file.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        found = {name: file.execute(f"SELECT * FROM {name}").fetchall() for (name,) in tables}
    found["trials"] = [row[:4] for row in found["trials"]]
    return found


@pytest.mark.parametrize("space", ["basis", "full"])
def test_a_generation_is_written_as_optuna_does(space: str, tmp_path: Path):
    ours, theirs, memory = tmp_path / "ours", tmp_path / "theirs", open_study(None)
    proposals = make(space=space)
    answer(memory, proposals.ask(memory), proposals)
    told, trials = memory.trials, proposals.ask(memory)
    studies, statements = [], []
    for folder in (ours, theirs):
        folder.mkdir()
        studies.append(open_study(folder))
        studies[-1].add_trials(told)

    @sqlalchemy.event.listens_for(studies[0]._storage._backend.engine, "before_cursor_execute")
    def note(connection: Any, cursor: Any, statement: str, *others: Any) -> None:
        statements.append(statement)

    add_running(studies[0], trials)
    studies[1].add_trials(trials)
    assert sum("trial_params" in statement for statement in statements) == 1  # as wide as it is
    assert rows(ours) == rows(theirs) and len(rows(ours)["trials"]) == len(told) + len(trials)
    assert essence(studies[0].trials) == essence(studies[1].trials) == essence(memory.trials)
    before, broken = rows(ours), copy.deepcopy(trials)
    broken[-1].distributions.clear()
    with pytest.raises(KeyError):
        add_running(studies[0], broken)
    assert rows(ours) == before


def test_the_posterior_is_sklearns():
    rng = np.random.default_rng(0)
    surrogate = Surrogate.fit(rng.random((50, 6)), rng.random(50))
    points = rng.random((80, 6))
    mean, covariance = surrogate._posterior(points)
    process = surrogate.process
    expected, joint = process.predict(points, return_cov=True)
    joint[np.diag_indices(80)] += JITTER - process.kernel_.k2.noise_level
    assert np.array_equal(mean, expected) and np.array_equal(covariance, joint)


@pytest.mark.parametrize(
    "distribution",
    [
        FloatDistribution(0.0, 1.0),
        FloatDistribution(-0.3, 7.1),
        FloatDistribution(0.1, 10.0, log=True),
        FloatDistribution(0.0, 1.0, step=0.1),
        optuna.distributions.IntDistribution(1, 9),
    ],
)
def test_many_numbers_become_parameters_as_one_does(distribution):
    u = np.concatenate([[0.0, 1.0], np.random.default_rng(0).random(500)])
    assert _from_units(u, distribution).tolist() == [from_unit(one, distribution) for one in u]
