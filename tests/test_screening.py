"""Proposals and the surrogate that chooses among them."""

from __future__ import annotations

import numpy as np

from keeprate.searching.natural_gradient import EDGE, ProductBeta
from keeprate.searching.surrogate import (
    BEST,
    FROM_ANYWHERE,
    FROM_DISTRIBUTION,
    NEAR_THE_BEST,
    Surrogate,
    propose,
)

RNG = np.random.default_rng(0)
POINTS = RNG.random((40, 12))
ORDER = RNG.permutation(40).astype(float)


def proposals() -> np.ndarray:
    narrow = ProductBeta(np.full(12, 900.0), np.full(12, 100.0))  # near 0.9
    return propose(narrow, POINTS, ORDER, np.random.default_rng(1))


def test_proposals_come_from_three_places():
    drawn, anywhere, near = np.split(proposals(), np.cumsum([FROM_DISTRIBUTION, FROM_ANYWHERE]))
    assert np.abs(drawn - 0.9).max() < 0.1
    assert abs(anywhere.mean() - 0.5) < 0.05 and np.ptp(anywhere) > 0.95
    assert len(near) == NEAR_THE_BEST


def test_the_last_are_near_the_best_points_but_never_on_them():
    near = proposals()[FROM_DISTRIBUTION + FROM_ANYWHERE :]
    best = POINTS[np.argsort(-ORDER)[:BEST]]
    kept = (near[:, None] == best[None]).sum(-1)  # coordinates, [proposal, best]
    assert (kept.max(1) < 12).all()  # something is moved
    assert kept.max(1).mean() > 6  # and not much
    assert set(kept.argmax(1)) == set(range(BEST))


def test_proposals_stay_in_the_cube():
    edges = np.clip(np.round(POINTS), EDGE, 1 - EDGE)
    found = propose(ProductBeta.uniform(12), edges, ORDER, np.random.default_rng(0))
    assert found.min() >= EDGE and found.max() <= 1 - EDGE


def test_only_ranks_count():
    values = np.exp(9 * ORDER / 40)
    chosen = [
        Surrogate.fit(POINTS, order).most_promising(POINTS, np.random.default_rng(0))
        for order in (ORDER, values)
    ]
    assert chosen[0] == chosen[1]


def test_what_is_known_well_is_drawn_close_to_what_is_known():
    """The noise of single evaluations is no reason to try a place that was tried often."""
    rng = np.random.default_rng(0)
    x = np.repeat([0.0, 1.0], 60)  # two places, sixty noisy evaluations of each
    surrogate = Surrogate.fit(x[:, None], x + rng.normal(0, 1.0, 120))
    drawn = [surrogate.most_promising([[0.0], [1.0]], rng) for _ in range(200)]
    assert np.mean(drawn) > 0.97  # with an evaluation's noise it would be about 0.75


def test_far_from_what_is_known_anything_is_possible():
    rng = np.random.default_rng(0)
    x = np.linspace(0, 0.2, 30)
    surrogate = Surrogate.fit(x[:, None], -np.abs(x - 0.1))
    drawn = [surrogate.most_promising([[0.15], [5.0]], rng) for _ in range(200)]
    assert 0.1 < np.mean(drawn) < 0.9
