"""Formulas of R(t): ranges, limits and values computed by hand."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from keeprate.errors import InputError
from keeprate.schedules.formulas import (
    MIN_KEEP_RATE,
    basis_schedule,
    co_teaching_schedule,
    constant_schedule,
    exponential_decay,
    exponential_drop,
    logarithmic_decay,
    logarithmic_growth,
    plain_decay,
    power_decay,
    power_growth,
    single_power_decay,
)

unit = st.one_of(st.sampled_from([0.0, 1.0, 5e-324, 1e-300]), st.floats(0, 1))
cube = arrays(np.float64, 12, elements=unit)
lengths = st.integers(1, 250)

DECAYS = (power_decay, exponential_decay, logarithmic_decay)
GROWTHS = (power_growth, logarithmic_growth)


@pytest.mark.parametrize("decay", DECAYS)
@given(a=unit, b=unit, n_epochs=lengths)
def test_decays_fall_from_one_within_the_unit_interval(decay, a, b, n_epochs):
    values = decay(np.arange(n_epochs), a, b)
    assert values[0] == 1
    assert ((values >= 0) & (values <= 1)).all()
    assert (np.diff(values) <= 1e-15).all()


@pytest.mark.parametrize("growth", GROWTHS)
@given(a=st.floats(0, 2), b=unit, n_epochs=lengths)
def test_growths_rise_from_zero_to_at_most_b(growth, a, b, n_epochs):
    values = growth(np.arange(n_epochs), a, b, n_epochs)
    assert values[0] == 0
    assert ((values >= 0) & (values <= b * (1 + 1e-12))).all()
    assert (np.diff(values) >= -1e-15).all()


def test_formulas_at_one_point_each():
    # computed by hand
    assert power_decay(3, 0.5, 1) == pytest.approx(0.5)  # 1 / sqrt(4)
    assert exponential_decay(4, 0.5, 0.25) == pytest.approx(np.exp(-0.5))
    assert logarithmic_decay(3, 2, 1) == pytest.approx(np.log(2) / np.log(8))
    assert power_growth(4, 2, 0.8, 8) == pytest.approx(0.2)
    assert logarithmic_growth(3, 2, 0.5, 8) == pytest.approx(0.5 * np.log(10) / np.log(65))


def test_limits_where_the_formulas_are_undefined():
    t = np.arange(4)
    assert logarithmic_decay(t, 0.5, 0).tolist() == [1, 0, 0, 0]
    assert logarithmic_decay(t, 0, 0).tolist() == [1, 1, 1, 1]
    assert exponential_decay(t, 0, 1)[0] == 1
    assert exponential_decay(t, 0, 1)[1:] == pytest.approx(np.exp(-1))
    assert power_growth(t, 0, 0.5, 4).tolist() == [0, 0.5, 0.5, 0.5]
    assert logarithmic_growth(t, 0, 0.5, 4).tolist() == [0, 0.5, 0.5, 0.5]


def test_parameters_broadcast():
    grid = logarithmic_decay(np.arange(5), np.ones((3, 1)), np.array([[0.1], [0.5], [0.9]]))
    assert grid.shape == (3, 5)
    assert (grid[0, 1:] < grid[2, 1:]).all()


@pytest.mark.parametrize("wrong", [-0.1, np.nan, np.inf])
def test_basis_functions_refuse_other_parameters(wrong):
    with pytest.raises(InputError, match="b must be finite and not negative"):
        power_decay(1, 0.5, wrong)


@given(u=cube, n_epochs=lengths)
def test_basis_schedules_are_valid_over_the_closed_cube(u, n_epochs):
    rate = basis_schedule(u, n_epochs)
    assert rate.shape == (n_epochs,)
    assert rate[0] == 1
    assert ((rate >= MIN_KEEP_RATE) & (rate <= 1)).all()  # False for NaN


def test_basis_schedules_are_valid_at_all_corners():
    corners = (np.arange(2**12)[:, None] >> np.arange(12)) & 1
    rate = basis_schedule(corners, 50)
    assert rate.shape == (2**12, 50)
    assert (rate[:, 0] == 1).all()
    assert ((rate >= MIN_KEEP_RATE) & (rate <= 1)).all()


def test_basis_schedule_is_the_stated_mix():
    u1, u2, u3, u4, u5, u6, u7, u8, u9, u10, u11, u12 = u = np.linspace(0.05, 0.6, 12)
    t, T = np.arange(20), 20
    with np.errstate(divide="ignore"):
        mixed = (
            u1 * np.exp(-u3 / 2 * t**u2)
            + (1 - u1) * u8 / (1 + u5 / 2 * t) ** u4
            + (1 - u1) * (1 - u8) * np.log(1 + u9) / np.log(1 + u9 + u10 / 2 * t)
            + u7 / 2 * (t / T) ** (2 * u6)
            + u11 / 2 * np.log(1 + t ** (2 * u12)) / np.log(1 + T ** (2 * u12))
        )
    np.testing.assert_allclose(basis_schedule(u, T), np.clip(mixed, 0.01, 1), rtol=1e-12)


def test_without_growth_a_basis_schedule_falls():
    u = np.random.default_rng(0).random((50, 12))
    u[:, [6, 10]] = 0  # u7 and u11 are the heights of the growing functions
    assert (np.diff(basis_schedule(u, 100), axis=-1) <= 1e-15).all()


def test_lowest_keep_rate_selects_something_from_a_hundred_samples():
    lowest = basis_schedule([0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0], 50)
    assert lowest[1:].tolist() == [MIN_KEEP_RATE] * 49


@pytest.mark.parametrize(
    ("u", "message"),
    [
        (np.ones(11), r"12 numbers in its last dimension, got shape \(11,\)"),
        (0.5, "12 numbers"),
        (np.full(12, 1.1), r"u must lie in \[0, 1\], got 1.1"),
        (np.full(12, np.nan), r"u must lie in \[0, 1\], got nan"),
    ],
)
def test_basis_schedule_says_what_is_wrong(u, message):
    with pytest.raises(InputError, match=message):
        basis_schedule(u, 5)


@pytest.mark.parametrize("n_epochs", [0, -1, 2.5, True, "3"])
def test_epochs_are_a_positive_whole_number(n_epochs):
    with pytest.raises(InputError, match="n_epochs must be a positive whole number"):
        constant_schedule(n_epochs)


@given(tau=st.floats(0, 1), t_k=st.integers(1, 300), c=st.floats(0.1, 10), n_epochs=lengths)
def test_co_teaching_schedules_are_valid(tau, t_k, c, n_epochs):
    rate = co_teaching_schedule(n_epochs, tau=tau, t_k=t_k, c=c)
    assert rate[0] == 1
    assert (np.diff(rate) <= 0).all()
    assert ((rate >= MIN_KEEP_RATE) & (rate <= 1)).all()
    assert rate[t_k:] == pytest.approx(max(1 - tau, MIN_KEEP_RATE))


def test_co_teaching_schedule_is_equation_3():
    rate = co_teaching_schedule(200, tau=0.4)
    assert rate[[0, 1, 5, 10, 199]] == pytest.approx([1, 0.96, 0.8, 0.6, 0.6])
    assert co_teaching_schedule(5, tau=0.4, t_k=4, c=2)[2] == pytest.approx(1 - 0.4 / 4)
    assert co_teaching_schedule(5, tau=[0.1, 0.2]).shape == (2, 5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"tau": 1.1}, r"tau must lie in \[0, 1\], got 1.1"),
        ({"tau": [0.1, -1.0]}, r"tau must lie in \[0, 1\], got -1.0"),
        ({"tau": 0.1, "t_k": 0}, "t_k must be positive and finite, got 0.0"),
        ({"tau": 0.1, "c": -1}, "c must be positive and finite, got -1.0"),
        ({"tau": 0.1, "c": np.inf}, "c must be positive and finite, got inf"),
    ],
)
def test_co_teaching_schedule_refuses_other_parameters(wrong, message):
    with pytest.raises(InputError, match=message):
        co_teaching_schedule(5, **wrong)


def test_single_power_decay_is_clipped():
    rate = single_power_decay(200, a=1, b=10)
    assert rate[:2] == pytest.approx([1, 1 / 11])
    assert rate[-1] == MIN_KEEP_RATE


@pytest.mark.parametrize(
    "formula", [plain_decay, partial(exponential_drop, speed=20)], ids=["decay", "drop"]
)
@given(level=st.floats(0.05, 1), n_epochs=st.integers(1, 200))
def test_formulas_with_a_level_go_from_one_to_it(formula, level, n_epochs):
    rate = formula(n_epochs, level)
    assert rate.shape == (n_epochs,) and rate[0] == 1 and (rate > 0).all() and (rate <= 1).all()
    if n_epochs > 1:
        assert rate[-1] == pytest.approx(level, abs=1e-4)
    assert np.array_equal(formula(n_epochs, [level, 0.5]), [rate, formula(n_epochs, 0.5)])
    with pytest.raises(InputError, match=r"level must lie in \(0, 1\], got 0.0"):
        formula(n_epochs, [level, 0.0])


def test_formulas_with_a_level_differ_in_how_fast_they_fall():
    assert plain_decay(41, 0.5)[2] == pytest.approx(2 ** -(np.log(2) / np.log(21)))
    for speed in (8, 20):  # (T - 1) / speed epochs: five, and two
        assert exponential_drop(41, 0.5, speed)[40 // speed] == pytest.approx(0.5 + 0.5 / np.e)
    for speed in (0, -1, np.nan, np.inf):
        with pytest.raises(InputError, match="speed must be positive and finite"):
            exponential_drop(10, 0.5, speed)
