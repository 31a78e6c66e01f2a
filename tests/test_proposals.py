"""Trials asked for a generation at a time: what is remembered between questions changes nothing."""

from __future__ import annotations

import copy
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import sqlalchemy
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial
from scipy.stats import norm, rankdata
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from threadpoolctl import ThreadpoolController

from keeprate.engine import Curves
from keeprate.schedules import Schedule, get_space
from keeprate.searching.experience import Conditions
from keeprate.searching.natural_gradient import ProductBeta
from keeprate.searching.proposals import Proposals, tell
from keeprate.searching.sampler import from_unit, from_units
from keeprate.searching.study import STUDY_FILE, add_running, one_transaction, open_study
from keeprate.searching.surrogate import (
    DEVIATIONS,
    FINALISTS,
    JITTER,
    Surrogate,
    one_thread,
    propose,
)

SAMPLERS = ["gaussian-process", "natural-gradient", "tpe", "random", "paper:20"]
EPOCHS = 8


def make(sampler: str = "natural-gradient", space: str = "basis", trials: int = 26) -> Proposals:
    conditions = Conditions(0.45, 0.8, 0.2) if sampler == "gaussian-process" else None
    return Proposals(get_space(space), EPOCHS, sampler, trials, 5, 0, conditions)


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
@pytest.mark.parametrize("sampler", ["gaussian-process", "natural-gradient", "random", "paper:20"])
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
        before._complete(study, study.ask(), {})
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

    added = add_running(studies[0], trials)
    studies[1].add_trials(trials)
    assert sum("trial_params" in statement for statement in statements) == 1  # as wide as it is
    assert rows(ours) == rows(theirs) and len(rows(ours)["trials"]) == len(told) + len(trials)
    assert essence(studies[0].trials) == essence(studies[1].trials) == essence(memory.trials)
    assert added == studies[0].trials[len(told) :]  # as they are read again
    before, broken = rows(ours), copy.deepcopy(trials)
    broken[-1].distributions.clear()
    with pytest.raises(KeyError):
        add_running(studies[0], broken)
    assert rows(ours) == before


def sklearns(surrogate: Surrogate, scores: np.ndarray) -> GaussianProcessRegressor:
    """The same process of scikit-learn."""
    prior = surrogate.prior
    kernel = ConstantKernel(prior.constant) * RBF(prior.length) + WhiteKernel(prior.noise)
    process = GaussianProcessRegressor(kernel, alpha=1e-8, optimizer=None)
    return process.fit(surrogate.points, scores)


def test_the_prior_is_the_most_likely_one():
    rng = np.random.default_rng(0)
    points = rng.random((60, 2))
    order = np.sin(9 * points[:, 0]) + rng.normal(0, 0.3, 60)
    scores = norm.ppf((rankdata(order) - 0.5) / 60)
    process = sklearns(Surrogate.fit(points, order), scores)
    theta = process.kernel_.theta
    best, gradient = process.log_marginal_likelihood(theta, eval_gradient=True)
    assert np.abs(gradient).max() < 0.02
    others = theta + rng.normal(0, 0.5, (50, 3))
    assert max(process.log_marginal_likelihood(other) for other in others) < best


def test_the_draws_are_of_sklearns_posterior():
    rng = np.random.default_rng(0)
    points, order = rng.random((50, 6)), np.arange(50.0)
    surrogate = Surrogate.fit(points, order)
    process = sklearns(surrogate, norm.ppf((order + 0.5) / 50))
    proposed = rng.random((FINALISTS, 6))  # all of them are drawn
    mean, covariance = process.predict(proposed, return_cov=True)
    covariance[np.diag_indices(FINALISTS)] += JITTER - surrogate.prior.noise
    factor = np.linalg.cholesky(covariance)
    for seed in range(20):
        draw = mean + factor @ np.random.default_rng(seed).standard_normal(FINALISTS)
        found = surrogate.most_promising(proposed, np.random.default_rng(seed))
        assert draw[found] > draw.max() - 1e-6


def test_blas_has_one_thread_and_then_as_many_as_before():
    blas = ThreadpoolController().select(user_api="blas")

    def threads() -> list[int]:
        return [library["num_threads"] for library in blas.info()]

    with blas.limit(limits=2):
        before = threads()
        assert set(before) == {2}
        with one_thread(), one_thread():
            assert set(threads()) == {1}
        points = np.random.default_rng(0).random((30, 2))
        with ThreadPoolExecutor(4) as pool:  # at once, as trials of a study may ask
            list(pool.map(lambda column: Surrogate.fit(points, column), points.T.repeat(4, 0)))
        assert threads() == before


def test_what_is_not_drawn_is_next_to_never_the_best():
    """Of schedules, of which forty were trained."""
    proposals, rng = make(), np.random.default_rng(0)
    names = proposals.space.distributions(EPOCHS)
    points = rng.random((40, len(names)))
    seen = proposals.keep_rates(dict(zip(names, points.T, strict=True)))
    order = -np.abs(seen - 0.6).mean(1)
    proposed = propose(ProductBeta.uniform(len(names)), points, order, rng)
    surrogate = Surrogate.fit(seen, order)
    process = sklearns(surrogate, norm.ppf((rankdata(order) - 0.5) / 40))
    rows = proposals.keep_rates(dict(zip(names, proposed.T, strict=True)))
    mean, covariance = process.predict(rows, return_cov=True)
    covariance[np.diag_indices(len(mean))] += JITTER - surrogate.prior.noise
    noise = rng.standard_normal((len(mean), 500))
    best = (mean[:, None] + np.linalg.cholesky(covariance) @ noise).argmax(0)
    reach = mean + DEVIATIONS * np.sqrt(covariance.diagonal())
    assert len(mean) >= 2 * FINALISTS
    assert np.isin(best, np.argsort(-reach)[:FINALISTS]).mean() > 0.99


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
    assert from_units(u, distribution).tolist() == [from_unit(one, distribution) for one in u]


def first_generation(
    trials: int, conditions: Conditions | None, earlier: int = 0
) -> list[np.ndarray]:
    proposals = Proposals(
        get_space("basis"),
        EPOCHS,
        "gaussian-process",
        trials,
        0,
        0,
        conditions,
        earlier=(Schedule(np.linspace(1, 0.5, EPOCHS)),) * earlier,
    )
    asked = proposals.ask(open_study(None))
    return [proposals.space.schedule(trial.params, EPOCHS).keep_rate for trial in asked]


def test_one_trial_of_the_first_generation_keeps_every_sample():
    """Networks that do not memorise lose by every drop, and the experience never saw such."""
    conditions = Conditions(0.45, 0.8, 0.2)
    drop, other, everything = first_generation(5, conditions)
    assert everything.min() > 0.97
    assert drop[-1] < 0.5 and other[-1] < 0.97
    assert len(first_generation(3, conditions)) == 2  # too few trials to spend one
    for trials, known in ((3, conditions), (5, None)):
        assert all(rates.min() < 0.97 for rates in first_generation(trials, known))
    given = first_generation(5, conditions, earlier=3)  # what a user gives is tried first
    assert all(rates[-1] == pytest.approx(0.5, abs=0.03) for rates in given)
