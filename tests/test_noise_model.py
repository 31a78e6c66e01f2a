"""What noisy labels say: information, the fitted transition matrix, label issues."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, mutual_info_score

import keeprate
from keeprate.label_quality import find_label_issues
from keeprate.noise import Noise
from keeprate.noise_model import (
    class_posterior,
    count_pairs,
    estimate_noise,
    fit_transition_matrix,
    forward_log_likelihood,
    information_score,
    mutual_information,
)

C = 5


def noisy(true: np.ndarray, name: str, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Labels with noise, and its transition matrix."""
    noise, rng = Noise.parse(name), np.random.default_rng(seed)
    matrix = noise.transition_matrix(C)
    return noise.corrupt_labels(true, np.zeros((len(true), 1)), n_classes=C, rng=rng), matrix


def predictions(true: np.ndarray, right: float, sure: float = 0.6, seed: int = 0) -> np.ndarray:
    """Probabilities whose argmax is right so often, else the class before: pairflip's mistake."""
    rng = np.random.default_rng(seed)
    said = np.where(rng.random(len(true)) < right, true, (true + 1) % C)
    p = rng.dirichlet(np.ones(C), len(true)) * (1 - sure)
    p[np.arange(len(true)), said] += sure
    return p


TRUE = np.random.default_rng(0).integers(0, C, 6000)


def test_counts_and_information_are_scikit_learns():
    rng = np.random.default_rng(0)
    said, labels = rng.integers(0, C, (2, 3, 400)), rng.integers(0, C, 400)
    said[0, 0] = labels
    counts = count_pairs(torch.from_numpy(said), torch.from_numpy(labels), C)
    assert counts.shape == (2, 3, C, C) and counts[0, 0].diagonal().sum() == 400
    assert counts[1, 2, 3, 1] == ((said[1, 2] == 3) & (labels == 1)).sum()
    found = mutual_information(counts)
    for i in range(2):
        for j in range(3):
            assert float(found[i, j]) == pytest.approx(mutual_info_score(said[i, j], labels))


def test_the_score_is_a_share_and_has_no_bias():
    labels = torch.from_numpy(TRUE[:300])
    assert float(information_score(count_pairs(labels, labels, C))) == pytest.approx(1, abs=0.02)
    said = torch.from_numpy(np.random.default_rng(5).integers(0, C, (200, 300)))
    scores = information_score(count_pairs(said, labels, C))
    plain = mutual_information(count_pairs(said, labels, C)) / np.log(C)
    assert abs(float(scores.mean())) < 0.002 < 0.01 < float(plain.mean())


@pytest.mark.parametrize("name", ["pairflip:0.45", "symmetric:0.5", "symmetric:0.2"])
def test_the_noise_rate_is_found_with_its_error(name):
    rates = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        labels, _ = noisy(rng.permutation(TRUE)[:1000], name, seed)
        true = np.random.default_rng(seed).permutation(TRUE)[:1000]
        found = estimate_noise(torch.from_numpy(predictions(true, 1.0)), torch.from_numpy(labels))
        rates.append((found.noise_rate, found.noise_rate_std))
    mean, std = np.mean(rates, axis=0)
    expected = Noise.parse(name).expected_rate(C)
    assert mean == pytest.approx(expected, abs=0.015)
    assert np.std([rate for rate, _ in rates]) == pytest.approx(std, rel=0.6)


@pytest.mark.parametrize("name", ["pairflip:0.45", "symmetric:0.5"])
def test_information_ranks_networks_as_clean_labels_do(name):
    labels, _ = noisy(TRUE, name)
    scores = []
    for right in (0.80, 0.85, 0.90, 0.95, 0.99):
        said = torch.from_numpy(predictions(TRUE, right).argmax(1))
        scores.append(float(mutual_information(count_pairs(said, torch.from_numpy(labels), C))))
    assert scores == sorted(scores)


@pytest.mark.parametrize("name", ["pairflip:0.45", "symmetric:0.5", "symmetric:0.2"])
def test_the_transition_matrix_is_found_from_soft_predictions(name):
    labels, matrix = noisy(TRUE, name)
    p, y = torch.from_numpy(predictions(TRUE, 0.97, 0.95)), torch.from_numpy(labels)
    assert np.abs(fit_transition_matrix(p, y).numpy() - matrix).max() < 0.08
    # Leading axes are a loop.
    both = torch.stack([p, torch.from_numpy(predictions(TRUE, 0.8, 0.95, seed=3))])
    assert torch.allclose(fit_transition_matrix(both, y)[0], fit_transition_matrix(p, y))
    likelihood = forward_log_likelihood(both, y)
    assert likelihood.shape == (2,) and likelihood[0] > likelihood[1]


def test_expectation_maximisation_never_lowers_the_likelihood():
    labels, _ = noisy(TRUE, "pairflip:0.45")
    p, y = torch.from_numpy(predictions(TRUE, 0.9)), torch.from_numpy(labels)
    fitted = fit_transition_matrix(p, y)
    other = fitted * 0.97 + 0.03 / C

    def likelihood(matrix):
        return (p * matrix[:, y].T).sum(1).log().mean()

    assert likelihood(fitted) > likelihood(other)


def test_the_posterior_is_bayes_rule():
    p, y = torch.tensor([[0.6, 0.4]]), torch.tensor([1])
    matrix = torch.tensor([[0.9, 0.1], [0.3, 0.7]])
    expected = torch.tensor([[0.6 * 0.1, 0.4 * 0.7]]) / (0.6 * 0.1 + 0.4 * 0.7)
    torch.testing.assert_close(class_posterior(p, y, matrix), expected)


def test_issues_are_ranked_better_than_by_the_label_s_probability():
    labels, _ = noisy(TRUE, "pairflip:0.45")
    p = predictions(TRUE, 0.9)
    found, wrong = find_label_issues(labels, p), labels != TRUE
    plain = average_precision_score(wrong, -p[np.arange(len(labels)), labels])
    assert average_precision_score(wrong, -found.scores) > plain + 0.02
    assert np.array_equal(found.predicted, p.argmax(1)) and found.scores.min() >= 0
    assert np.array_equal(found.is_issue, p.argmax(1) != labels) and found.scores.max() <= 1
    assert (np.diff(found.scores[found.ranking]) >= 0).all()


@pytest.mark.parametrize(
    ("labels", "pred_probs", "words"),
    [
        ([0, 1], [[0.5, 0.5]], "of one length"),
        ([0, 2], [[0.5, 0.5], [1, 0]], r"lie in 0\.\.1"),
        ([0.5, 1], [[0.5, 0.5], [1, 0]], "be integers"),
        ([0, 1], [[0.5, 0.6], [1, 0]], "sum to 1"),
        ([0, 1], [[0.5, np.nan], [1, 0]], "numbers in"),
        ([0, 1], [0.5, 0.5], r"\[N, C\]"),
    ],
)
def test_bad_labels_and_probabilities_are_named(labels, pred_probs, words):
    with pytest.raises(keeprate.InputError, match=words):
        keeprate.find_label_issues(labels, pred_probs)
