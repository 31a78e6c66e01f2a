"""The protocol of face verification, against an independent reference with scikit-learn."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score, roc_curve
from sklearn.model_selection import KFold
from torch import Tensor, nn

from keeprate.data import Normaliser
from keeprate.engine import embed
from keeprate.errors import InputError
from keeprate.verification import (
    Pairs,
    disjoint_folds,
    distances,
    met_again,
    pair_accuracy,
    shared_people,
    standard_folds,
    verify,
)

N_PAIRS, N_IMAGES, N_FEATURES = 603, 150, 8


def random_pairs(seed: int = 0, n_pairs: int = N_PAIRS) -> Pairs:
    generator = torch.Generator().manual_seed(seed)
    first, second = torch.randint(N_IMAGES, (2, n_pairs), generator=generator)
    same = torch.rand(n_pairs, generator=generator) < 0.4
    images = torch.zeros(N_IMAGES, 1, 1, 1, dtype=torch.uint8)
    return Pairs(images, first, second, same)


def random_embeddings(*shape: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, N_IMAGES, N_FEATURES, generator=generator)


# The reference: one loop over folds and one over every threshold.


def reference_distances(embeddings: NDArray[np.float64], pairs: Pairs) -> NDArray[np.float64]:
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    return np.array(
        [sum((unit[i] - unit[j]) ** 2) for i, j in zip(pairs.first, pairs.second, strict=True)]
    )


def reference_threshold(distance: NDArray[np.float64], same: NDArray[np.bool_]) -> float:
    values = np.unique(distance)
    candidates = [values[0], *((a + b) / 2 for a, b in pairwise(values))]
    candidates.append(np.nextafter(values[-1], np.inf))
    accuracies = [np.mean((distance < one) == same) for one in candidates]
    return float(candidates[int(np.argmax(accuracies))])  # the first of the best


def reference_accuracies(
    distance: NDArray[np.float64], same: NDArray[np.bool_], n_folds: int = 10
) -> tuple[list[float], list[float]]:
    accuracies, thresholds = [], []
    for train, test in KFold(n_folds, shuffle=False).split(distance):
        thresholds.append(reference_threshold(distance[train], same[train]))
        accuracies.append(float(np.mean((distance[test] < thresholds[-1]) == same[test])))
    return accuracies, thresholds


@pytest.mark.parametrize("seed", range(3))
def test_the_protocol_equals_the_reference(seed: int) -> None:
    pairs = random_pairs(seed)
    embeddings = random_embeddings(seed=seed).double()
    # Some signal: the second picture of a same pair looks like the first.
    embeddings[pairs.second[pairs.same]] += 0.8 * embeddings[pairs.first[pairs.same]]
    distance = distances(embeddings, pairs)
    same = pairs.same.numpy()
    expected = reference_distances(embeddings.numpy(), pairs)
    np.testing.assert_allclose(distance, expected, rtol=0, atol=1e-9)

    found = verify(distance, same, standard_folds(N_PAIRS))
    accuracies, thresholds = reference_accuracies(expected, same)
    np.testing.assert_allclose(found.fold_accuracy, accuracies, rtol=0, atol=1e-9)
    np.testing.assert_allclose(found.thresholds, thresholds, rtol=0, atol=1e-9)
    assert found.accuracy == pytest.approx(np.mean(accuracies), abs=1e-9)
    assert found.std == pytest.approx(np.std(accuracies), abs=1e-9)
    assert (found.n_pairs, found.n_same) == (N_PAIRS, int(same.sum()))

    far, tar, _ = roc_curve(same, -distance, drop_intermediate=False)
    # Both rates grow along the curve: their sum says where on it a point must lie.
    curve_far, curve_tar = np.array(found.roc_far), np.array(found.roc_tar)
    on_curve = [np.interp(far + tar, curve_far + curve_tar, one) for one in (curve_far, curve_tar)]
    np.testing.assert_allclose(on_curve, [far, tar], rtol=0, atol=1e-9)
    assert len(curve_far) <= len(roc_curve(same, -distance, drop_intermediate=True)[0]) < len(far)
    assert found.auc == pytest.approx(roc_auc_score(same, -distance), abs=1e-9)
    for one in found.true_accepts:
        allowed = far <= one.false_accept_rate + 1e-12
        assert one.true_accept_rate == pytest.approx(tar[allowed].max(), abs=1e-9)


def test_the_curve_goes_from_corner_to_corner() -> None:
    pairs = random_pairs()
    distance = distances(random_embeddings(), pairs)
    found = verify(distance, pairs.same, standard_folds(N_PAIRS))
    area = np.trapezoid(found.roc_tar, found.roc_far)
    assert area == pytest.approx(found.auc, abs=1e-12)
    assert (found.roc_far[0], found.roc_tar[0]) == (0.0, 0.0)
    assert (found.roc_far[-1], found.roc_tar[-1]) == (1.0, 1.0)


def test_rates_that_a_list_cannot_measure_say_so() -> None:
    n = 6000
    same = np.arange(n) % 2 == 0
    distance = np.where(same, 0.5, 1.0)
    distance[1:13:2] = 0.2 + 0.01 * np.arange(6)  # six of 3,000 others are closer than most
    distance[0:10:2] = 0.1  # and five same pairs are closer still
    found = verify(distance, same, standard_folds(n))
    thousandth, ten_thousandth = found.true_accepts
    assert (thousandth.accepted, thousandth.is_measurable) == (3, True)
    assert (ten_thousandth.accepted, ten_thousandth.is_measurable) == (0, False)
    assert thousandth.true_accept_rate == ten_thousandth.true_accept_rate == 5 / 3000


@given(
    st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=6, max_size=40).filter(
        lambda pairs: len({same for _, same in pairs}) == 2
    ),
    st.integers(2, 5),
)
def test_ties_between_distances_equal_the_reference(
    drawn: list[tuple[int, bool]], n_folds: int
) -> None:
    distance = np.array([one / 4 for one, _ in drawn])
    same = np.array([one for _, one in drawn])
    found = verify(distance, same, standard_folds(len(drawn), n_folds))
    accuracies, thresholds = reference_accuracies(distance, same, n_folds)
    assert list(found.thresholds) == thresholds
    assert list(found.fold_accuracy) == pytest.approx(accuracies, abs=1e-12)


def test_many_networks_are_judged_at_once_as_one_is() -> None:
    pairs = random_pairs()
    embeddings = random_embeddings(2, 3)
    embeddings[..., 5, :] = embeddings[..., 4, :]  # equal pictures, equal distances
    accuracy = pair_accuracy(embeddings, pairs)
    assert accuracy.shape == (2, 3)
    for place in np.ndindex(2, 3):
        distance = distances(embeddings[place], pairs)
        expected = verify(distance, pairs.same, standard_folds(N_PAIRS)).accuracy
        assert float(accuracy[place]) == pytest.approx(expected, abs=1e-6)
    assert len(accuracy.unique()) > 1
    embeddings[1, 2, 0, 0] = torch.nan
    assert pair_accuracy(embeddings, pairs).isnan().tolist() == [[False] * 3, [False, False, True]]


def test_the_folds_of_a_list_go_before_equal_ones() -> None:
    pairs = random_pairs()
    embeddings = random_embeddings()
    folds = torch.arange(N_PAIRS) % 7
    distance = distances(embeddings, pairs)
    expected = verify(distance, pairs.same, folds).accuracy
    found = pair_accuracy(embeddings, replace(pairs, folds=folds))
    assert float(found) == pytest.approx(expected, abs=1e-6)
    assert float(found) != pytest.approx(float(pair_accuracy(embeddings, pairs)), abs=1e-6)


@pytest.mark.parametrize(("n_pairs", "n_folds"), [(6000, 10), (603, 10), (10, 10), (11, 3)])
def test_folds_are_cut_as_scikit_learn_cuts(n_pairs: int, n_folds: int) -> None:
    folds = standard_folds(n_pairs, n_folds).numpy()
    for fold, (_, test) in enumerate(KFold(n_folds, shuffle=False).split(folds)):
        assert np.flatnonzero(folds == fold).tolist() == test.tolist()


def test_what_cannot_be_judged_is_refused() -> None:
    with pytest.raises(InputError, match="fill 10 folds"):
        standard_folds(9)
    with pytest.raises(InputError, match="both kinds"):
        verify([0.1, 0.2], [True, True], [0, 1])
    with pytest.raises(InputError, match="finite"):
        verify([0.1, np.nan], [True, False], [0, 1])
    with pytest.raises(InputError, match="folds must be two"):
        verify([0.1, 0.2], [True, False], [0, 0])
    with pytest.raises(InputError, match="be \\[P\\] each"):
        verify([0.1, 0.2], [True], [0, 0])
    with pytest.raises(InputError, match="embed all pictures"):
        distances(np.zeros((3, 2)), random_pairs())
    with pytest.raises(InputError, match="finite"):
        distances(np.full((N_IMAGES, 2), np.nan), random_pairs())


# Pairs and people


def test_pairs_must_fit_their_pictures() -> None:
    pairs = random_pairs()
    with pytest.raises(InputError, match="uint8"):
        replace(pairs, images=pairs.images.float())
    with pytest.raises(InputError, match="second must be rows"):
        replace(pairs, second=pairs.second + N_IMAGES)
    with pytest.raises(InputError, match="folds must be"):
        replace(pairs, folds=torch.zeros(3))
    with pytest.raises(InputError, match="people must name"):
        replace(pairs, people=("Ann",))


def test_a_fingerprint_tells_pairs_apart() -> None:
    pairs = random_pairs(n_pairs=20)
    others = [
        replace(pairs, images=pairs.images + 1),
        replace(pairs, first=pairs.second, second=pairs.first),
        replace(pairs, same=~pairs.same),
        replace(pairs, folds=standard_folds(20)),
        replace(pairs, people=("a",) * N_IMAGES),
    ]
    assert len({one.fingerprint() for one in [pairs, *others]}) == 6
    assert replace(pairs, name="other").fingerprint() == pairs.fingerprint()


@given(
    st.lists(st.tuples(st.integers(0, 25), st.integers(0, 25)), min_size=1, max_size=60),
    st.integers(2, 4),
)
def test_disjoint_folds_share_nobody(links: list[tuple[int, int]], n_folds: int) -> None:
    first, second = (list(map(str, side)) for side in zip(*links, strict=True))
    same = torch.tensor([a == b for a, b in links])
    folds = disjoint_folds(first, second, same, n_folds)
    if folds is None:
        return
    assert shared_people(folds, first, second) == 0
    for fold in range(n_folds):
        assert same[folds == fold].unique().tolist() == [False, True]


def test_disjoint_folds_are_found_and_about_equal() -> None:
    # 40 circles of people who are in pairs with each other only.
    generator = np.random.default_rng(0)
    circle = generator.integers(40, size=2000)
    first, second = (
        [
            f"{one}-{person}"
            for one, person in zip(circle, generator.integers(4, size=2000), strict=True)
        ]
        for _ in range(2)
    )
    same = torch.tensor([a == b for a, b in zip(first, second, strict=True)])
    standard = standard_folds(2000)
    assert shared_people(standard, first, second) == 160
    folds = disjoint_folds(first, second, same)
    assert folds is not None
    assert shared_people(folds, first, second) == 0
    assert 160 < folds.bincount().min() <= folds.bincount().max() < 240
    # One pair more that links each circle with the next.
    chain = [f"{one}-0" for one in range(40)]
    linked = torch.cat([same, torch.zeros(39, dtype=torch.bool)])
    assert disjoint_folds([*first, *chain[:-1]], [*second, *chain[1:]], linked) is None


def test_thresholds_are_chosen_without_the_people_of_a_fold() -> None:
    generator = np.random.default_rng(1)
    first, second = ([f"{person}" for person in generator.integers(60, size=400)] for _ in range(2))
    second = [a if place % 2 else b for place, (a, b) in enumerate(zip(first, second, strict=True))]
    same = np.array([a == b for a, b in zip(first, second, strict=True)])
    distance = generator.normal(np.where(same, 0.8, 1.2), 0.3)
    folds = standard_folds(400, 40)
    left_out = met_again(folds, first, second)
    found = verify(distance, same, folds, left_out=left_out)
    changed = 0
    for fold in range(40):
        test = np.flatnonzero(folds.numpy() == fold)
        here = {first[row] for row in test} | {second[row] for row in test}
        train = [row for row in range(400) if not here & {first[row], second[row]}]
        threshold = reference_threshold(distance[train], same[train])
        assert found.thresholds[fold] == pytest.approx(threshold, abs=1e-9)
        accuracy = np.mean((distance[test] < threshold) == same[test])
        assert found.fold_accuracy[fold] == pytest.approx(accuracy, abs=1e-9)
        changed += threshold != verify(distance, same, folds).thresholds[fold]
    assert changed > 5
    with pytest.raises(InputError, match="leave pairs to choose a threshold"):
        verify(distance, same, folds, left_out=np.ones((40, 400), bool))


# Embeddings


def test_an_embedding_is_what_the_last_linear_layer_gets() -> None:
    images = torch.randint(256, (5, 1, 2, 4), dtype=torch.uint8)
    peers = []
    for seed in range(2):
        torch.manual_seed(seed)
        layers = [nn.Flatten(), nn.Linear(8, 3), nn.ReLU(), nn.Linear(3, 2)]
        peers.append(nn.Sequential(*layers).eval())
    found = embed(peers, images, Normaliser())
    assert found.dtype == torch.float32
    assert found.shape == (5, 6)
    expected = []
    for peer in peers:
        both = peer[:3](images / 255) + peer[:3](images.flip(-1) / 255)
        expected.append(both / both.norm(dim=1, keepdim=True).clamp_min(1e-12))
    total = torch.cat(expected, 1)
    torch.testing.assert_close(found, (total / total.norm(dim=1, keepdim=True)).detach())
    mirror = embed(peers, images.flip(-1), Normaliser())
    torch.testing.assert_close(found, mirror)
    with pytest.raises(InputError, match="linear layer"):
        embed([nn.Flatten()], images, Normaliser())
