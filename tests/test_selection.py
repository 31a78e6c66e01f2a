"""Fast rules against slow references written sample by sample from the sources."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import keeprate
from keeprate.engine.methods import METHODS, get_method
from keeprate.engine.models import MODELS
from keeprate.engine.names import METHOD_NAMES, MODEL_NAMES, PER_CLASS, RANK_THE_BATCH
from keeprate.engine.selection import (
    corrected_logits,
    cross_entropy,
    cross_entropy_gradient,
    log_probabilities,
    normalise,
    per_sample_cross_entropy,
    predicted_classes,
    small_loss,
    soft_cross_entropy,
)


def slow_small_loss(losses: list[float], keep_rate: float) -> list[bool]:
    """Alg. 1, step 5, one row, plain Python."""
    n_keep = math.floor(keep_rate * len(losses) + 1e-6)
    if keep_rate > 0:
        n_keep = max(1, n_keep)
    ranked = sorted(range(len(losses)), key=lambda i: (math.isnan(losses[i]), losses[i], i))
    return [i in ranked[:n_keep] for i in range(len(losses))]


def slow_balanced_rank(losses: list[float], labels: list[int]) -> list[int]:
    """Each sample's rank by its place in its class, plain Python; equal places go by the loss."""

    def key(i: int) -> tuple:
        return (math.isnan(losses[i]), losses[i], i)

    places = []
    for i, label in enumerate(labels):
        same = [j for j, other in enumerate(labels) if other == label]
        places.append((sum(key(j) < key(i) for j in same) / len(same), *key(i)))
    ranked = sorted(range(len(losses)), key=places.__getitem__)
    return [ranked.index(i) for i in range(len(losses))]


def slow_cross_entropy(logits: np.ndarray, label: int) -> float:
    if np.isnan(logits).any():
        return math.nan
    top = max(logits)
    return math.log(sum(math.exp(z - top) for z in logits)) + top - logits[label]


def slow_softmax(logits: np.ndarray) -> list[float]:
    powers = [math.exp(z - max(logits)) for z in logits]
    return [power / sum(powers) for power in powers]


def slow_joint_loss(first: np.ndarray, second: np.ndarray, label: int) -> float:
    """Wei et al. 2020, Eq. (1)-(4) with lambda = 0.9, of one sample."""
    p, q = slow_softmax(first), slow_softmax(second)
    divergence = sum(a * math.log(a / b) + b * math.log(b / a) for a, b in zip(p, q, strict=True))
    supervised = slow_cross_entropy(first, label) + slow_cross_entropy(second, label)
    return 0.1 * supervised + 0.9 * divergence


def slow_weights(name: str, logits: np.ndarray, labels: list[int], keep_rate: float) -> np.ndarray:
    """What each of the peers of one candidate learns from, sample by sample. [R, B]."""
    n_peers, size, _ = logits.shape
    losses = [
        [slow_cross_entropy(logits[r, i], labels[i]) for i in range(size)] for r in range(n_peers)
    ]
    disagree = [logits[0, i].argmax() != logits[-1, i].argmax() for i in range(size)]
    joint = [0.0] * size
    if name.startswith("jocor"):
        joint = [slow_joint_loss(logits[0, i], logits[1, i], labels[i]) for i in range(size)]
    confidence = np.exp(-np.array(losses))
    if name.endswith(PER_CLASS):
        name = name.removesuffix(PER_CLASS)
        losses = [slow_balanced_rank(row, labels) for row in losses]
        joint = slow_balanced_rank(joint, labels)
    everyone = list(range(size))
    weights = np.zeros((n_peers, size))

    def smallest(values: list[float], among: list[int]) -> set[int]:
        marks = slow_small_loss([values[i] for i in among], keep_rate)
        return {i for i, mark in zip(among, marks, strict=True) if mark}

    for r in range(n_peers):
        own, peers = losses[r], losses[n_peers - 1 - r]
        for i in everyone:
            if name in ("standard", "f-correction"):
                weights[r, i] = 1
            elif name == "decoupling":
                weights[r, i] = disagree[i]
            elif name == "mentornet":
                weights[r, i] = i in smallest(own, everyone)
            elif name == "co-teaching":  # network r learns what the other one finds easy
                weights[r, i] = i in smallest(peers, everyone)
            elif name == "co-teaching-plus":
                among = [j for j in everyone if disagree[j]] or everyone
                weights[r, i] = i in smallest(peers, among)
            elif name == "co-mining":
                if i in smallest(peers, everyone):
                    weights[r, i] = 1
                elif i in smallest(own, everyone):
                    weights[r, i] = confidence[n_peers - 1 - r, i]
            elif name == "jocor":
                weights[r, i] = i in smallest(joint, everyone)
            else:
                raise AssertionError(f"{name} has no slow reference")
    return weights


def agrees_with_the_slow_reference(method) -> bool:
    for seed in range(3):
        logits, labels, losses = batch(method.name, seed, loss=method.loss)
        keep_rate = torch.tensor([0.25, 0.5, 0.9])
        fast = method.select(losses, logits, labels, keep_rate).numpy()
        for k in range(3):
            slow = slow_weights(
                method.name, logits[k].double().numpy(), labels.tolist(), float(keep_rate[k])
            )
            if not np.allclose(fast[k], slow, rtol=1e-5, atol=1e-7):
                return False
    return True


def batch(name: str, seed: int = 0, size: int = 16, loss=None):
    """Logits [3, R, B, 5], labels and the method's losses."""
    generator = torch.Generator().manual_seed(seed)
    method = get_method(name)
    logits = torch.randn(3, method.n_networks, size, 5, generator=generator)
    labels = torch.randint(0, 5, (size,), generator=generator)
    return logits, labels, (loss or method.loss)(logits, labels)


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("n_classes", [2, 10, 300])
def test_the_first_of_equal_logits_is_predicted(n_classes, dtype):
    generator = torch.Generator().manual_seed(0)
    # Of few values, so that most rows have ties; samples side by side in memory, as networks give.
    values = torch.randint(-2, 3, (3, 2, n_classes, 32), generator=generator).to(dtype)
    values[0, 0, 1:, 0] = torch.nan
    for logits in (values.mT, values.mT.contiguous()):
        expected = [
            [[next((i for i, v in enumerate(r) if v != v), r.index(max(r))) for r in b] for b in a]
            for a in logits.tolist()
        ]
        assert predicted_classes(logits).tolist() == expected


def test_small_loss_among_eligible_samples():
    losses = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    among = torch.tensor([False, True, True, False, True, True])
    kept = small_loss(losses, torch.tensor(0.5), among)
    assert kept.tolist() == [False, True, True, False, False, False]
    nothing = small_loss(losses, torch.tensor(0.5), torch.zeros(6, dtype=torch.bool))
    assert not nothing.any()


@pytest.mark.parametrize("n", [*range(1, 201), 256, 1000, 1024, 100_000])
def test_a_whole_number_of_samples_is_kept_where_floats_miss_it(n):
    rates = torch.arange(1, 101) / 100
    counts = small_loss(torch.arange(float(n)).expand(100, n), rates).sum(-1)
    assert counts.tolist() == [max(1, rate * n // 100) for rate in range(1, 101)]


def test_no_more_samples_are_kept_than_the_rate_allows():
    kept = small_loss(torch.arange(1e5), torch.tensor(0.5 - 1e-6))
    assert kept.sum() == 49_999


NAMES = [*METHODS, *(name + PER_CLASS for name in RANK_THE_BATCH)]


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float16, torch.float64])
def test_weights_of_any_type_become_shares(dtype):
    rows = torch.tensor([[1, 0, 1], [0, 0, 0]]).to(dtype)
    assert normalise(rows).tolist() == [[0.5, 0, 0.5], [0, 0, 0]]


def test_a_keep_rate_may_be_a_whole_number():
    assert small_loss(torch.tensor([2.0, 1.0]), torch.tensor(1)).tolist() == [True, True]


@pytest.mark.parametrize("name", NAMES)
class TestEveryMethod:
    def test_slow_reference(self, name):
        assert agrees_with_the_slow_reference(get_method(name))

    def test_leading_axes_equal_a_loop(self, name):
        logits, labels, losses = batch(name)
        keep_rate = torch.tensor([0.25, 0.5, 0.9])
        select = get_method(name).select
        together = select(losses, logits, labels, keep_rate)
        for k in range(3):
            row = slice(k, k + 1)
            alone = select(losses[row], logits[row], labels, keep_rate[row])
            assert torch.equal(together[row], alone)

    def test_permuted_samples_give_permuted_weights(self, name):
        logits, labels, losses = batch(name)
        order = torch.randperm(16, generator=torch.Generator().manual_seed(1))
        keep_rate = torch.full((3,), 0.4)
        select = get_method(name).select
        moved = select(losses[..., order], logits[..., order, :], labels[order], keep_rate)
        assert torch.equal(moved, select(losses, logits, labels, keep_rate)[..., order])

    def test_keep_rate_one_keeps_all_that_is_eligible_and_zero_none(self, name):
        logits, labels, losses = batch(name)
        method = get_method(name)
        kept = method.select(losses, logits, labels, torch.ones(3)) > 0
        eligible = torch.ones_like(kept)
        if name.removesuffix(PER_CLASS) in ("decoupling", "co-teaching-plus"):
            predicted = logits.argmax(-1)
            eligible &= (predicted[:, 0] != predicted[:, 1])[:, None]
        assert torch.equal(kept, eligible)
        if method.uses_schedule:
            assert not method.select(losses, logits, labels, torch.zeros(3)).any()

    def test_tied_samples_go_by_their_position(self, name):
        logits, labels, _ = batch(name)
        logits, labels = logits[..., :1, :].repeat(1, 1, 16, 1), labels[:1].repeat(16)
        weights = get_method(name).select(
            get_method(name).loss(logits, labels), logits, labels, torch.full((3,), 0.25)
        )
        counts = (weights > 0).sum(-1)
        if get_method(name).uses_schedule:
            assert (counts == 4).all() and (weights[..., :4] > 0).all()
        else:
            assert ((counts == 16) | (counts == 0)).all()

    def test_no_gradient_flows_through_the_selection(self, name):
        logits, labels, _ = batch(name)
        logits.requires_grad_()
        losses = get_method(name).loss(logits, labels)
        with torch.no_grad():  # as in train_step
            weights = get_method(name).select(losses, logits, labels, torch.full((3,), 0.5))
        assert weights.min() >= 0 and weights.max() <= 1 and weights.any()
        (normalise(weights) * losses).sum().backward()
        kept = (weights > 0).any(1, keepdim=True) if name.startswith("jocor") else weights > 0
        kept = kept.unsqueeze(-1).expand_as(logits)
        assert (logits.grad[~kept] == 0).all()
        assert (logits.grad[kept] != 0).any()

    def test_gradient_equals_that_of_the_weighted_mean_of_the_subset(self, name):
        method = get_method(name)
        logits, labels, losses = batch(name)
        weights = method.select(losses, logits, labels, torch.full((3,), 0.5))
        masked = logits.clone().requires_grad_()
        (normalise(weights) * method.loss(masked, labels)).sum().backward()
        alone = logits[2:].clone().requires_grad_()  # the last candidate, only what it selects
        rows = [row.nonzero()[:, 0] for row in weights[2]]
        total = 0
        for r, kept in enumerate(rows):
            part = method.loss(alone[:, :, kept], labels[kept])[0, r]
            total = total + (part * weights[2, r, kept]).sum() / weights[2, r, kept].sum()
        total.backward()
        torch.testing.assert_close(masked.grad[2], alone.grad[0])

    def test_nan_in_one_candidate_stays_there(self, name):
        logits, labels, _ = batch(name)
        logits[1] = torch.nan
        logits.requires_grad_()
        losses = get_method(name).loss(logits, labels)
        with torch.no_grad():
            weights = get_method(name).select(losses, logits, labels, torch.full((3,), 0.5))
        (normalise(weights) * losses).sum().backward()
        assert torch.isfinite(logits.grad[[0, 2]]).all()
        assert torch.isnan(logits.grad[1]).any()


def test_the_same_share_of_every_class_is_kept_whatever_their_losses():
    labels = torch.tensor([0] * 8 + [1] * 4 + [2] * 1)
    losses = torch.cat([torch.linspace(0, 1, 8), torch.linspace(5, 6, 4), torch.tensor([99.0])])
    method, rate = get_method("mentornet-per-class"), torch.tensor([0.5])
    kept = method.select(losses[None, None], None, labels, rate)[0, 0]
    assert [int(kept[labels == c].sum()) for c in range(3)] == [3, 2, 1]
    assert kept[[0, 1, 2, 8, 9]].all()
    assert [int(METHODS["mentornet"].select(losses[None, None], None, labels, rate).sum())] == [6]
    assert get_method("mentornet-per-class").fingerprint() is None
    for name in ("standard-per-class", "co-teaching-plus-per-class"):
        with pytest.raises(keeprate.InputError, match=name):
            get_method(name)


def mutated(name: str, **changes):
    return replace(get_method(name), **changes)


def ascending_to_descending(losses, logits, labels, keep_rate):
    return METHODS["mentornet"].select(-losses, logits, labels, keep_rate)


def disagreement_inverted(losses, logits, labels, keep_rate):
    return 1 - METHODS["decoupling"].select(losses, logits, labels, keep_rate)


MUTANTS = {
    "peer not swapped": mutated("co-teaching", select=METHODS["mentornet"].select),
    "largest losses": mutated("mentornet", select=ascending_to_descending),
    "keep 1 - R": mutated(
        "co-teaching",
        select=lambda losses, logits, labels, rate: METHODS["co-teaching"].select(
            losses, logits, labels, 1 - rate
        ),
    ),
    "disagreement inverted": mutated("decoupling", select=disagreement_inverted),
    "classes ignored": mutated("mentornet-per-class", select=METHODS["mentornet"].select),
    "disagreement ignored": mutated("co-teaching-plus", select=METHODS["co-teaching"].select),
    "each peer by its own loss": mutated("jocor", loss=per_sample_cross_entropy),
    "noisy by one network": mutated(
        "co-mining",
        select=lambda losses, logits, labels, rate: (
            METHODS["co-mining"].select(losses, logits, labels, rate)
            * METHODS["co-teaching"].select(losses, logits, labels, rate)
        ),
    ),
    "own confidence": mutated(
        "co-mining",
        select=lambda losses, logits, labels, rate: METHODS["co-mining"].select(
            losses, logits.flip(1), labels, rate
        ),
    ),
}


@pytest.mark.parametrize("bug", MUTANTS)
def test_the_slow_reference_catches(bug):
    assert not agrees_with_the_slow_reference(MUTANTS[bug])


def test_joint_loss_equals_the_slow_reference():
    logits, labels, losses = batch("jocor")
    for k in range(3):
        for i, label in enumerate(labels.tolist()):
            slow = slow_joint_loss(*logits[k, :, i].double().numpy(), label)
            assert losses[k, :, i].sum() == pytest.approx(slow, rel=1e-5)


def test_corrected_logits_equal_the_slow_reference_and_a_transposed_matrix_does_not():
    """Patrini et al. 2017, Theorem 2: P(noisy = j | x) = sum over i of T[i, j] P(true = i | x)."""
    logits, labels, _ = batch("f-correction")
    matrices = torch.rand(3, 5, 5, generator=torch.Generator().manual_seed(3))
    matrices /= matrices.sum(-1, keepdim=True)
    found = per_sample_cross_entropy(corrected_logits(logits, matrices), labels)
    transposed = per_sample_cross_entropy(corrected_logits(logits, matrices.mT), labels)
    for k in range(3):
        for i, label in enumerate(labels.tolist()):
            p = slow_softmax(logits[k, 0, i].double().numpy())
            slow = -math.log(sum(p[c] * float(matrices[k, c, label]) for c in range(5)))
            assert found[k, 0, i] == pytest.approx(slow, rel=1e-5)
    assert not torch.allclose(found, transposed, rtol=1e-2)


def test_corrected_logits_are_finite_where_the_matrix_forbids_the_label():
    logits = torch.tensor([[[[200.0, 0.0]]]], requires_grad=True)
    losses = per_sample_cross_entropy(
        corrected_logits(logits, torch.eye(2)[None]), torch.tensor([1])
    )
    losses.sum().backward()
    assert torch.isfinite(losses).all() and torch.isfinite(logits.grad).all()


def test_co_teaching_plus_falls_back_to_the_whole_batch():
    logits, labels, _ = batch("co-teaching")
    logits[0, 1] = logits[0, 0]  # the peers of candidate 0 agree on everything
    losses = per_sample_cross_entropy(logits, labels)
    rate = torch.full((3,), 0.5)
    plus, plain = (
        METHODS[name].select(losses, logits, labels, rate)
        for name in ("co-teaching-plus", "co-teaching")
    )
    assert torch.equal(plus[0], plain[0]) and plus[0].sum() == 16
    assert not torch.equal(plus[1], plain[1])


def test_a_user_s_method():
    method = replace(METHODS["mentornet"], name="mine")
    assert get_method(method) is method
    assert METHODS["mentornet"].fingerprint() is None
    assert method.fingerprint() == replace(method).fingerprint()
    changed = replace(method, select=METHODS["decoupling"].select)
    assert (
        len(
            {
                method.fingerprint(),
                changed.fingerprint(),
                replace(method, n_networks=2).fingerprint(),
            }
        )
        == 3
    )
    for wrong in ({"name": "a/b"}, {"n_networks": 0}, {"warm_up_share": 1.5}):
        with pytest.raises(ValueError, match="must"):
            replace(method, **wrong)
    with pytest.raises(ValueError, match="method must have a name of its own, got 'mentornet'"):
        get_method(replace(method, name="mentornet"))
    with pytest.raises(ValueError, match=r"method must be a keeprate\.Method"):
        get_method("keeprate.engine.methods:METHODS")


def test_unknown_method_lists_the_known_ones():
    with pytest.raises(
        ValueError, match=r"method must be one of auto, standard, .* got 'coteaching'"
    ):
        get_method("coteaching")


def test_the_names_that_are_known_without_pytorch_are_the_tables() -> None:
    assert tuple(METHODS) == METHOD_NAMES and tuple(MODELS) == MODEL_NAMES
    for name in METHODS:
        assert get_method(name) is METHODS[name]
        per_class = name + PER_CLASS
        if name in RANK_THE_BATCH:
            assert get_method(per_class).name == per_class
        else:
            with pytest.raises(keeprate.InputError, match="method must be one of"):
                get_method(per_class)


@pytest.mark.parametrize("kind", ["labels", "probabilities"])
def test_the_gradient_in_closed_form_is_that_of_autograd(kind):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 5, 4, generator=generator, requires_grad=True)
    weights = torch.rand(2, 3, 5, generator=generator)
    targets = torch.tensor([0, 3, 1, 1, 2])
    if kind == "probabilities":  # of each peer its own; they need not sum to 1
        targets = torch.rand(2, 3, 5, 4, generator=generator)
    losses = cross_entropy(log_probabilities(logits), targets)
    of_methods = per_sample_cross_entropy if kind == "labels" else soft_cross_entropy
    torch.testing.assert_close(losses, of_methods(logits, targets))
    (expected,) = torch.autograd.grad((weights * losses).sum(), logits)
    found = cross_entropy_gradient(log_probabilities(logits.detach()), targets, weights)
    torch.testing.assert_close(found, expected)
