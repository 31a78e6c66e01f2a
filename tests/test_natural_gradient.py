from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import beta

from keeprate.errors import InputError
from keeprate.schedules.formulas import basis_schedule
from keeprate.searching.natural_gradient import (
    EDGE,
    MAX_PARAMETER,
    MIN_PARAMETER,
    NaturalGradient,
    ProductBeta,
    rank_utilities,
)

SOME = ProductBeta([0.5, 1.0, 2.0, 7.0], [0.8, 1.0, 5.0, 3.0])
T = 200


def rmse_to_target(points):
    """RMSE of basis schedules to one that drops by half in 20 epochs and rises from epoch 60."""
    t = np.arange(T)
    target = 1 - 0.5 * np.minimum(t / 20, 1) + 0.3 * np.clip((t - 60) / 140, 0, 1)
    return np.sqrt(((basis_schedule(points, T) - target) ** 2).mean(-1))


# The distribution


def test_density_is_the_product_of_betas():
    points = SOME.sample(20, np.random.default_rng(0))
    expected = beta.logpdf(points, SOME.x, SOME.y).sum(-1)
    np.testing.assert_allclose(SOME.log_density(points), expected, rtol=1e-10)


def test_gradient_is_that_of_the_density():
    points, h = SOME.sample(5, np.random.default_rng(1)), 1e-6
    gradient = SOME.log_density_gradient(points)
    assert gradient.shape == (5, 4, 2)
    slope_x = (
        beta.logpdf(points, SOME.x + h, SOME.y) - beta.logpdf(points, SOME.x - h, SOME.y)
    ) / (2 * h)
    slope_y = (
        beta.logpdf(points, SOME.x, SOME.y + h) - beta.logpdf(points, SOME.x, SOME.y - h)
    ) / (2 * h)
    np.testing.assert_allclose(gradient, np.stack([slope_x, slope_y], -1), rtol=1e-6, atol=1e-7)


def test_expected_score_is_zero():
    score = SOME.log_density_gradient(SOME.sample(100_000, np.random.default_rng(2)))
    error = score.std(0) / np.sqrt(len(score))
    assert (np.abs(score.mean(0)) < 5 * error).all()


def test_closed_form_fisher_is_the_monte_carlo_limit():
    estimate = SOME.monte_carlo_fisher(200_000, np.random.default_rng(3))
    np.testing.assert_allclose(SOME.fisher(), estimate, rtol=0.05)


def test_fisher_of_the_uniform_distribution_by_hand():
    # psi1(1) = pi^2/6 and psi1(2) = pi^2/6 - 1
    off = 1 - np.pi**2 / 6
    assert ProductBeta.uniform(1).fisher() == pytest.approx(np.array([[[1, off], [off, 1]]]))


def test_samples_have_the_mean_and_stay_inside():
    points = SOME.sample(50_000, np.random.default_rng(4))
    np.testing.assert_allclose(points.mean(0), SOME.mean(), atol=0.01)
    edges = ProductBeta([0.01], [0.01]).sample(100, np.random.default_rng(5))
    assert edges.min() == EDGE and edges.max() == 1 - EDGE


@pytest.mark.parametrize(
    ("x", "y"), [([1.0], [1.0, 2.0]), ([], []), ([0.0], [1.0]), ([np.nan], [1.0]), ([[1.0]],) * 2]
)
def test_distribution_refuses_other_parameters(x, y):
    with pytest.raises(InputError, match="x and y must be"):
        ProductBeta(x, y)


def test_distribution_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        SOME.x[0] = 3


# Utilities


def test_utilities_by_hand():
    # m = 2 of n = 4: log 2.5 - log 1 and log 2.5 - log 2, scaled to sum 1, less 1/8 each
    first, second = np.log(2.5), np.log(1.25)
    best, next_best = np.array([first, second]) / (first + second) - 1 / 8
    utilities = rank_utilities([3.0, -1.0, 2.0, 0.0], n_best=2)
    assert utilities == pytest.approx([best, -1 / 8, next_best, -1 / 8])


def test_ties_share_their_weights():
    clear = rank_utilities([4.0, 3.0, 2.0, 1.0], n_best=3)
    tied = rank_utilities([4.0, 2.5, 2.5, 1.0], n_best=3)
    assert tied == pytest.approx([clear[0], *[(clear[1] + clear[2]) / 2] * 2, clear[3]])


def test_rows_are_compared_from_their_first_number_on():
    rows = [[0.0, 9.0, 9.0], [1.0, 0.0, -1.0], [0.0, 9.0, -np.inf], [1.0, 0.0, 3.0]]
    expected = rank_utilities([1.0, 2.0, 0.0, 3.0], n_best=2)
    assert rank_utilities(rows, n_best=2) == pytest.approx(expected)


# Updates


def test_one_raw_update_by_hand():
    # At x = y = 1 the scores are 1 + log u and 1 + log(1 - u), as psi(2) - psi(1) = 1.
    # u = 1/2 with M = 1 and u = 0.9 with M = 0: grad J = (s, s)/2 with s = 1 - log 2 = 0.306853.
    # H = [[1, h], [h, 1]] with h = 1 - pi^2/6, so H^-1 (s, s) = (s, s) / (2 - pi^2/6)
    # = (0.864214, 0.864214); rho = 1/2: x = y = 1 + 0.864214 / 4 = 1.216054.
    state = NaturalGradient(1, utilities="raw", step_size=0.5)
    after = state.tell([[0.5], [0.9]], [1.0, 0.0]).distribution
    assert after.x == pytest.approx([1.216054], abs=1e-6)
    assert after.y == pytest.approx([1.216054], abs=1e-6)


def test_one_rank_update_by_hand():
    # u = 0.5 is best of 0.1, 0.5, 0.9: by symmetry the step is c (1, 1), towards the middle.
    # Its squared Fisher length is c^2 2 (2 - pi^2/6) = 1/3, d being 1: c = 0.685125.
    after = NaturalGradient(1).tell([[0.1], [0.5], [0.9]], [0.0, 1.0, 0.2]).distribution
    assert after.x == pytest.approx([1.685125], abs=1e-6)
    assert after.y == pytest.approx([1.685125], abs=1e-6)


def test_several_coordinates_are_independent_but_for_the_length():
    points = np.random.default_rng(0).random((10, 3))
    state = NaturalGradient(3, utilities="raw", step_size=0.1)
    together = state.tell(points, points[:, 0]).distribution
    for i in range(3):
        alone = NaturalGradient(1, utilities="raw", step_size=0.1)
        one = alone.tell(points[:, [i]], points[:, 0]).distribution
        assert (together.x[i], together.y[i]) == pytest.approx((one.x[0], one.y[0]))


def test_rank_utilities_see_the_order_alone():
    rng = np.random.default_rng(6)
    states = [NaturalGradient(3)] * 2
    for _ in range(4):
        points, values = rng.random((8, 3)), rng.normal(size=8)
        told = zip(states, (values, np.exp(3 * values) - 7), strict=True)
        states = [state.tell(points, v) for state, v in told]
    assert np.array_equal(states[0].distribution.x, states[1].distribution.x)
    assert np.array_equal(states[0].distribution.y, states[1].distribution.y)


def test_the_order_of_samples_does_not_matter():
    rng = np.random.default_rng(7)
    points, values = rng.random((9, 2)), rng.normal(size=9)
    there = NaturalGradient(2).tell(points, values).distribution
    back = NaturalGradient(2).tell(points[::-1], values[::-1]).distribution
    np.testing.assert_allclose(there.x, back.x, rtol=1e-12)


def test_equal_values_move_nothing():
    state = NaturalGradient(2).tell(np.random.default_rng(8).random((10, 2)), np.full(10, 0.9))
    assert state.distribution.x.tolist() == state.distribution.y.tolist() == [1, 1]
    assert state.generation == 1


def test_tell_leaves_the_old_state_alone():
    state = NaturalGradient(2)
    after = state.tell([[0.1, 0.2], [0.9, 0.8]], [0.0, 1.0])
    assert state.distribution.x.tolist() == [1, 1] and state.generation == 0 and not state.memory
    assert (after.distribution.mean() > 0.5).all()


def test_infinite_values_are_worst_or_best():
    points = [[0.1], [0.5], [0.9]]
    infinite = NaturalGradient(1).tell(points, [-np.inf, 0.5, np.inf]).distribution
    finite = NaturalGradient(1).tell(points, [0, 1, 2]).distribution
    assert infinite.mean() == finite.mean() > 0.5


@pytest.mark.parametrize("fisher", ["closed-form", "monte-carlo"])
@pytest.mark.parametrize(
    ("utilities", "step_size"), [("rank", None), ("rank", 50.0), ("raw", None), ("raw", 500.0)]
)
def test_no_step_leaves_the_domain(fisher, utilities, step_size):
    rng = np.random.default_rng(9)
    state = NaturalGradient(2, fisher=fisher, utilities=utilities, step_size=step_size)
    both = np.ones(4)
    for _ in range(25):
        points = state.ask(6, rng)
        state = state.tell(points, points[:, 0] * 1e3 - points[:, 1])
        before, both = both, np.concatenate([state.distribution.x, state.distribution.y])
        if step_size is None:
            assert (both >= before / 2 - 1e-12).all()
        assert ((both >= MIN_PARAMETER) & (both <= MAX_PARAMETER)).all()
    assert state.generation == 25


def test_bounded_steps_have_the_stated_fisher_length():
    rng = np.random.default_rng(10)
    state = replace(NaturalGradient(4), distribution=ProductBeta([30.0] * 4, [20.0] * 4))
    points = state.ask(20, rng)
    after = state.tell(points, -((points - 0.55) ** 2).sum(-1)).distribution
    step = np.stack([after.x - 30, after.y - 20], -1)
    assert (step > -10).all()  # else the halving limit was at work
    squared = np.einsum("di,dij,dj", step, state.distribution.fisher(), step)
    assert squared == pytest.approx(4 / 3)


def test_monte_carlo_updates_are_near_the_exact_ones_and_repeatable():
    rng = np.random.default_rng(11)
    points, values = rng.random((10, 3)), rng.normal(size=10)
    exact = NaturalGradient(3).tell(points, values).distribution
    estimated = NaturalGradient(3, fisher="monte-carlo").tell(points, values).distribution
    again = NaturalGradient(3, fisher="monte-carlo").tell(points, values).distribution
    other = NaturalGradient(3, fisher="monte-carlo", seed=1).tell(points, values).distribution
    assert np.array_equal(estimated.x, again.x)
    assert not np.array_equal(estimated.x, other.x)
    later = replace(NaturalGradient(3, fisher="monte-carlo"), generation=1)
    assert not np.array_equal(estimated.x, later.tell(points, values).distribution.x)
    np.testing.assert_allclose(estimated.x, exact.x, rtol=0.1)


def search(seed: int, generations: int, *, size: int = 10, **options) -> float:
    rng, state, best = np.random.default_rng(seed), NaturalGradient(12, **options), np.inf
    for _ in range(generations):
        points = state.ask(size, rng)
        values = rmse_to_target(points)
        best, state = min(best, values.min()), state.tell(points, -values)
    return best


def random_search(seed: int, n: int) -> float:
    return rmse_to_target(np.random.default_rng(seed).random((n, 12))).min()


# Of 4 generations only 3 know anything, so that the gain shows only over more seeds.
@pytest.mark.parametrize(("generations", "margin", "n_seeds"), [(10, 0.85, 20), (4, 0.95, 200)])
def test_better_than_random_search_within_the_papers_budget(generations, margin, n_seeds):
    found = np.median([search(seed, generations) for seed in range(n_seeds)])
    random = np.median([random_search(seed, 10 * generations) for seed in range(n_seeds)])
    assert found < margin * random


def test_the_papers_raw_update_improves_the_mean_of_its_distribution():
    rng = np.random.default_rng(12)
    state = NaturalGradient(12, utilities="raw", fisher="monte-carlo", step_size=5.0)
    before = rmse_to_target(state.ask(2000, rng)).mean()
    for _ in range(10):
        points = state.ask(1000, rng)
        state = state.tell(points, -rmse_to_target(points))
    assert rmse_to_target(state.ask(2000, rng)).mean() < 0.75 * before


# Errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fisher": "exact"}, "fisher must be one of closed-form, monte-carlo, got 'exact'"),
        ({"utilities": "ranks"}, "utilities must be one of rank, raw, got 'ranks'"),
        ({"step_size": 0.0}, "step_size must be positive, got 0.0"),
        ({"step_size": float("nan")}, "step_size must be positive, got nan"),
    ],
)
def test_unknown_options(options, message):
    with pytest.raises(InputError, match=message):
        NaturalGradient(2, **options)


@pytest.mark.parametrize(
    ("points", "values", "utilities", "message"),
    [
        ([[0.5, 0.5]], [1.0, 2.0], "rank", r"got \(1, 2\) and \(2,\)"),
        ([[0.5]], [1.0], "rank", r"shapes \(n, 2\)"),
        (np.empty((0, 2)), [], "rank", r"got \(0, 2\) and \(0,\)"),
        ([[0.5, 0.5]], [[1.0, 2.0]], "raw", r"got \(1, 2\) and \(1, 2\)"),
        ([[0.5, 1.5]], [1.0], "rank", "points must lie in the unit cube"),
        ([[0.5, np.nan]], [1.0], "rank", "points must lie in the unit cube"),
        ([[0.5, 0.5]], [np.nan], "rank", "values must not be NaN"),
        ([[0.5, 0.5]], [np.inf], "raw", "values must be finite"),
    ],
)
def test_tell_says_what_is_wrong(points, values, utilities, message):
    with pytest.raises(InputError, match=message):
        NaturalGradient(2, utilities=utilities).tell(points, values)
