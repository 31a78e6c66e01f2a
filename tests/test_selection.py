"""Fast rules against slow references written sample by sample from the sources."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from keeprate.methods import METHODS, get_method
from keeprate.selection import normalise, per_sample_cross_entropy, small_loss


def slow_small_loss(losses: list[float], keep_rate: float) -> list[bool]:
    """Alg. 1, step 5, one row, plain Python."""
    n_keep = math.floor(keep_rate * len(losses) + 1e-6)
    if keep_rate > 0:
        n_keep = max(1, n_keep)
    ranked = sorted(range(len(losses)), key=lambda i: (math.isnan(losses[i]), losses[i], i))
    return [i in ranked[:n_keep] for i in range(len(losses))]


def slow_weights(name: str, losses: np.ndarray, keep_rate: np.ndarray) -> np.ndarray:
    weights = np.ones_like(losses)
    n_candidates, n_peers, _ = losses.shape
    for k in range(n_candidates):
        for r in range(n_peers):
            if name == "mentornet":
                weights[k, r] = slow_small_loss(losses[k, r].tolist(), keep_rate[k])
            if name == "co-teaching":  # network r learns what the other one finds easy
                weights[k, r] = slow_small_loss(losses[k, 1 - r].tolist(), keep_rate[k])
    return weights


def batch(name: str, seed: int = 0, size: int = 16):
    generator = torch.Generator().manual_seed(seed)
    peers = get_method(name).n_networks
    logits = torch.randn(3, peers, size, 5, generator=generator)
    labels = torch.randint(0, 5, (size,), generator=generator)
    return logits, labels, per_sample_cross_entropy(logits, labels)


def test_cross_entropy_is_pytorchs():
    logits, labels, losses = batch("co-teaching")
    expected = torch.nn.functional.cross_entropy(logits[1, 1], labels, reduction="none")
    torch.testing.assert_close(losses[1, 1], expected)


@given(
    st.lists(
        st.floats(0, 10, width=32) | st.just(float("nan")) | st.just(1.0), min_size=1, max_size=30
    ),
    st.floats(0, 1, width=16),
)
@settings(max_examples=200, deadline=None)
def test_small_loss_equals_the_slow_reference(losses, keep_rate):
    fast = small_loss(torch.tensor(losses), torch.tensor(keep_rate))
    assert fast.tolist() == slow_small_loss(losses, keep_rate)


def test_small_loss_among_eligible_samples():
    losses = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    among = torch.tensor([False, True, True, False, True, True])
    chosen = small_loss(losses, torch.tensor(0.5), among)
    assert chosen.tolist() == [False, True, True, False, False, False]
    nothing = small_loss(losses, torch.tensor(0.5), torch.zeros(6, dtype=torch.bool))
    assert not nothing.any()


def test_a_count_that_floats_miss_is_kept():
    assert small_loss(torch.arange(100.0), torch.tensor(0.29)).sum() == 29


@pytest.mark.parametrize("name", METHODS)
class TestEveryMethod:
    def test_slow_reference(self, name):
        logits, labels, losses = batch(name)
        keep_rate = torch.tensor([0.25, 0.5, 0.9])
        fast = METHODS[name].select(losses, logits, labels, keep_rate)
        assert np.array_equal(fast, slow_weights(name, losses.numpy(), keep_rate.numpy()))

    def test_leading_axes_equal_a_loop(self, name):
        logits, labels, losses = batch(name)
        keep_rate = torch.tensor([0.25, 0.5, 0.9])
        select = METHODS[name].select
        together = select(losses, logits, labels, keep_rate)
        for k in range(3):
            one = slice(k, k + 1)
            alone = select(losses[one], logits[one], labels, keep_rate[one])
            assert torch.equal(together[one], alone)

    def test_permuted_samples_give_permuted_weights(self, name):
        logits, labels, losses = batch(name)
        order = torch.randperm(16, generator=torch.Generator().manual_seed(1))
        keep_rate = torch.full((3,), 0.4)
        select = METHODS[name].select
        moved = select(losses[..., order], logits[..., order, :], labels[order], keep_rate)
        assert torch.equal(moved, select(losses, logits, labels, keep_rate)[..., order])

    def test_keep_rate_one_keeps_all_and_zero_none(self, name):
        logits, labels, losses = batch(name)
        method = METHODS[name]
        assert method.select(losses, logits, labels, torch.ones(3)).all()
        if method.uses_schedule:
            assert not method.select(losses, logits, labels, torch.zeros(3)).any()

    def test_no_gradient_flows_through_the_selection(self, name):
        logits, labels, _ = batch(name)
        logits.requires_grad_()
        losses = METHODS[name].loss(logits, labels)
        weights = METHODS[name].select(losses, logits, labels, torch.full((3,), 0.5))
        assert weights.unique().tolist() in ([0.0, 1.0], [1.0])
        (normalise(weights.detach()) * losses).sum().backward()
        chosen = weights.unsqueeze(-1).expand_as(logits) > 0
        assert (logits.grad[~chosen] == 0).all()
        assert (logits.grad[chosen] != 0).any()

    def test_gradient_equals_that_of_the_subset_mean(self, name):
        logits, labels, losses = batch(name)
        weights = METHODS[name].select(losses, logits, labels, torch.full((3,), 0.5))
        masked = logits.clone().requires_grad_()
        (normalise(weights) * per_sample_cross_entropy(masked, labels)).sum().backward()
        one = logits[2, -1].clone().requires_grad_()
        subset = weights[2, -1] > 0
        torch.nn.functional.cross_entropy(one[subset], labels[subset]).backward()
        torch.testing.assert_close(masked.grad[2, -1], one.grad)

    def test_nan_in_one_candidate_stays_there(self, name):
        logits, labels, _ = batch(name)
        logits[1] = torch.nan
        logits.requires_grad_()
        losses = METHODS[name].loss(logits, labels)
        weights = METHODS[name].select(losses, logits, labels, torch.full((3,), 0.5))
        (normalise(weights) * losses).sum().backward()
        assert torch.isfinite(logits.grad[[0, 2]]).all()
        assert torch.isnan(logits.grad[1]).any()


def test_unknown_method_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"method must be one of standard, .* got 'coteaching'"):
        get_method("coteaching")
