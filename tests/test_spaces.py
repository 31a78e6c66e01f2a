"""Search spaces: every point gives a schedule, and every parameter matters."""

from __future__ import annotations

import numpy as np
import optuna
import pytest

from keeprate.errors import InputError
from keeprate.schedules.formulas import (
    MIN_KEEP_RATE,
    basis_schedule,
    co_teaching_schedule,
    single_power_decay,
)
from keeprate.schedules.spaces import SPACES, Space, get_space
from keeprate.searching.sampler import from_unit

EDGES = {"low": lambda d: d.low, "high": lambda d: d.high}


@pytest.fixture(params=sorted(SPACES))
def space(request) -> Space:
    return SPACES[request.param]


def drawn(space: Space, n_epochs: int, seed: int) -> dict[str, float]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return study.ask(space.distributions(n_epochs)).params


def check_schedule(schedule, n_epochs: int) -> None:
    assert len(schedule) == n_epochs
    assert schedule.keep_rate[0] == 1
    assert (schedule.keep_rate >= MIN_KEEP_RATE).all()


@pytest.mark.parametrize("n_epochs", [1, 2, 30])
def test_every_drawn_point_is_a_schedule_that_starts_at_one(space, n_epochs):
    for seed in range(5):
        parameters = drawn(space, n_epochs, seed)
        schedule = space.schedule(parameters, n_epochs)
        check_schedule(schedule, n_epochs)
        assert schedule.name == space.name
        assert dict(schedule.parameters) == parameters


@pytest.mark.parametrize("edge", EDGES.values(), ids=EDGES)
def test_the_edges_belong_to_the_space(space, edge):
    parameters = {name: edge(d) for name, d in space.distributions(40).items()}
    check_schedule(space.schedule(parameters, 40), 40)


@pytest.mark.parametrize("n_epochs", [10, 200])
def test_low_keep_rates_can_be_reached(space, n_epochs):
    low = {"u10": 1.0, "tau": 1.0, "a": 1.0, "b": 10.0, "t_k": 1, "c": 1.0}
    parameters = {name: low.get(name, 0.0) for name in space.distributions(n_epochs)}
    assert space.schedule(parameters, n_epochs).keep_rate.min() < 0.02


def test_each_parameter_matters(space):
    n_epochs = 12
    parameters = drawn(space, n_epochs, seed=3)
    before = space.schedule(parameters, n_epochs).keep_rate
    other = drawn(space, n_epochs, seed=4)
    for name in space.distributions(n_epochs):
        moved = space.schedule(parameters | {name: other[name]}, n_epochs).keep_rate
        assert not np.array_equal(moved, before), name


def test_missing_parameters_are_named(space):
    parameters = drawn(space, 10, seed=0)
    name = next(iter(parameters))
    del parameters[name]
    with pytest.raises(InputError, match=f"parameters must hold {name} for the space {space.name}"):
        space.schedule(parameters, 10)


@pytest.mark.parametrize("wrong", [-1.0, 1e9, float("nan")])
def test_parameters_outside_their_range_are_named(space, wrong):
    parameters = drawn(space, 10, seed=0)
    name = next(iter(parameters))
    with pytest.raises(InputError, match=rf"{name} must lie in \["):
        space.schedule(parameters | {name: wrong}, 10)


def test_parameters_of_something_else_are_ignored(space):
    parameters = drawn(space, 10, seed=0)
    with_more = space.schedule(parameters | {"learning_rate": 0.1}, 10)
    assert with_more == space.schedule(parameters, 10)


def test_parameters_reach_the_formula_by_name():
    u = np.random.default_rng(0).random(12)
    shuffled = {f"u{i}": u[i - 1] for i in (12, 3, 1, 11, 2, 4, 10, 9, 5, 6, 8, 7)}
    basis = SPACES["basis"].schedule(shuffled, 20).keep_rate
    assert np.array_equal(basis, basis_schedule(u, 20))
    eq3 = SPACES["co-teaching"].schedule({"c": 2.0, "t_k": 5, "tau": 0.3}, 20).keep_rate
    assert np.array_equal(eq3, co_teaching_schedule(20, tau=0.3, t_k=5, c=2.0))
    decay = SPACES["power-decay"].schedule({"b": 0.5, "a": 0.25}, 20).keep_rate
    assert np.array_equal(decay, single_power_decay(20, a=0.25, b=0.5))
    full = SPACES["full"].schedule({"e3": 0.3, "e2": 0.2}, 3).keep_rate
    assert full.tolist() == [1, 0.2, 0.3]


def test_whole_numbers_stay_whole():
    with pytest.raises(InputError, match=r"t_k must lie in \[1, 20\] \(whole numbers\), got 2.5"):
        SPACES["co-teaching"].schedule({"c": 2.0, "t_k": 2.5, "tau": 0.3}, 20)


def test_sizes():
    sizes = {name: len(space.distributions(200)) for name, space in SPACES.items()}
    assert sizes == {"basis": 12, "co-teaching": 3, "power-decay": 2, "full": 199}


def test_get_space():
    assert all(get_space(name).name == name for name in SPACES)
    with pytest.raises(InputError, match="one of basis, co-teaching, power-decay, full, got 'bas'"):
        get_space("bas")


@pytest.mark.parametrize("name", list(SPACES))
def test_many_schedules_at_once_equal_single_schedules(name: str) -> None:
    space, rng = get_space(name), np.random.default_rng(0)
    columns = {
        key: np.array([from_unit(u, distribution) for u in rng.random(7)])
        for key, distribution in space.distributions(9).items()
    }
    table = space.keep_rates(columns, 9)
    assert table.shape == (7, 9)
    for i, row in enumerate(table):
        parameters = {key: values[i].item() for key, values in columns.items()}
        assert np.array_equal(row, space.schedule(parameters, 9).keep_rate)


def test_many_schedules_with_a_value_outside_its_range_are_refused() -> None:
    columns = {"a": [0.2, 1.2], "b": [1.0, 1.0]}
    with pytest.raises(InputError, match=r"a must lie in \[0.0, 1.0\], got 1.2; stay"):
        get_space("power-decay").keep_rates(columns, 9)
