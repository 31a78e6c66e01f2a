"""What noisy labels say: which networks are good, the noise, label issues."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score

import keeprate
from keeprate.noise import inference
from keeprate.noise.inference import (
    class_posterior,
    count_pairs,
    determinant_score,
    estimate_noise,
    fit_transition_matrix,
)
from keeprate.noise.spec import Noise
from keeprate.records.label_quality import find_label_issues

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


def test_counts_are_numpys():
    rng = np.random.default_rng(0)
    said, labels = rng.integers(0, C, (2, 3, 400)), rng.integers(0, C, 400)
    counts = count_pairs(torch.from_numpy(said), torch.from_numpy(labels), C)
    assert counts.shape == (2, 3, C, C)
    for i in range(2):
        for j in range(3):
            expected = np.zeros((C, C))
            np.add.at(expected, (said[i, j], labels), 1)
            assert np.array_equal(counts[i, j], expected)


def test_the_score_by_hand():
    counts = torch.tensor([[30.0, 10.0], [20.0, 40.0]], dtype=torch.float64)
    e = np.sqrt(2 / 100)
    a = 30 / np.sqrt(40 * 50) + e
    b, c = 10 / np.sqrt(40 * 50), 20 / np.sqrt(60 * 50)
    d = 40 / np.sqrt(60 * 50) + e
    expected = (np.log(a * d - b * c) - 2 * np.log(e)) / (2 * np.log((1 + e) / e))
    assert float(determinant_score(counts)) == pytest.approx(expected)
    both = determinant_score(torch.stack([counts, counts.T]))
    assert both.shape == (2,) and float(both[0]) == pytest.approx(float(both[1]))
    assert torch.isfinite(determinant_score(torch.tensor([[5.0, 5.0], [0.0, 0.0]])))


@pytest.mark.parametrize("name", ["pairflip:0.45", "symmetric:0.5", "symmetric:0.2"])
def test_the_noise_rate_is_found_with_its_error(name):
    rates, matrices = [], []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        labels, _ = noisy(rng.permutation(TRUE)[:1000], name, seed)
        true = np.random.default_rng(seed).permutation(TRUE)[:1000]
        found = estimate_noise(torch.from_numpy(predictions(true, 1.0)), torch.from_numpy(labels))
        rates.append((found.noise_rate, found.noise_rate_std))
        matrices.append((found.transition_matrix, found.transition_matrix_std))
    mean, std = np.mean(rates, axis=0)
    expected = Noise.parse(name).expected_rate(C)
    assert mean == pytest.approx(expected, abs=0.015)
    assert np.std([rate for rate, _ in rates]) == pytest.approx(std, rel=0.6)
    found, errors = (torch.stack(each) for each in zip(*matrices, strict=True))
    assert float(found.std(0).mean()) == pytest.approx(float(errors.mean()), rel=0.3)


def test_of_trained_samples_the_confident_ones_are_no_sample_of_all():
    """Networks are surer of the labels that they were trained with: those that agree."""
    labels, _ = noisy(TRUE, "symmetric:0.3")
    agrees, p = labels == TRUE, predictions(TRUE, 1.0, sure=0.7)
    p[agrees] = predictions(TRUE, 1.0, sure=0.95)[agrees]
    said = [
        estimate_noise(torch.from_numpy(p), torch.from_numpy(labels), held_out=held_out).noise_rate
        for held_out in (True, False)
    ]
    assert said[0] < 0.05 and said[1] == pytest.approx((~agrees).mean(), abs=1e-9)


def test_the_transition_matrix_has_the_error_of_each_row_s_samples():
    p = torch.tensor([[0.9, 0.05, 0.05]] * 4 + [[0.05, 0.9, 0.05]])
    found = estimate_noise(p, torch.tensor([0, 0, 0, 1, 1]))
    assert found.transition_matrix.tolist() == [[0.75, 0.25, 0], [0, 1, 0], [0, 0, 1]]
    share = np.array([4 / 6, 2 / 6, 1 / 6])
    expected = np.sqrt(share * (1 - share) / 6)
    assert found.transition_matrix_std[0].numpy() == pytest.approx(expected)
    assert (found.transition_matrix_std[1:] > 0.2).all()  # of one sample, and of none


@pytest.mark.parametrize("name", ["pairflip:0.45", "symmetric:0.5"])
def test_the_determinant_ranks_networks_as_clean_labels_do(name):
    labels, _ = noisy(TRUE, name)
    scores, hits = [], []
    for right in (0.80, 0.85, 0.90, 0.95, 0.99):
        said = predictions(TRUE, right).argmax(1)
        counts = count_pairs(torch.from_numpy(said), torch.from_numpy(labels), C)
        scores.append(float(determinant_score(counts)))
        hits.append((said == labels).mean())
    assert scores == sorted(scores)
    if name == "pairflip:0.45":  # where plain accuracy has next to nothing to say
        assert max(hits) - min(hits) < 0.02 < 0.05 < max(scores) - min(scores)


def test_with_many_classes_and_few_samples_the_score_is_as_good_as_accuracy():
    rng, n_classes = np.random.default_rng(0), 100
    true = rng.integers(0, n_classes, 1000)
    labels = np.where(rng.random(1000) < 0.5, true, rng.integers(0, n_classes, 1000))
    rates, scores = np.linspace(0.3, 0.5, 20), []
    for rate in rates:
        said = np.where(rng.random(1000) < rate, true, rng.integers(0, n_classes, 1000))
        counts = count_pairs(torch.from_numpy(said), torch.from_numpy(labels), n_classes)
        scores.append(float(determinant_score(counts)))
    assert spearmanr(rates, scores)[0] > 0.8


@pytest.mark.parametrize("name", ["pairflip:0.45", "symmetric:0.5", "symmetric:0.2"])
def test_the_transition_matrix_is_found_from_soft_predictions(name):
    labels, matrix = noisy(TRUE, name)
    p, y = torch.from_numpy(predictions(TRUE, 0.97, 0.95)), torch.from_numpy(labels)
    assert np.abs(fit_transition_matrix(p, y).numpy() - matrix).max() < 0.08
    # Leading axes are a loop.
    both = torch.stack([p, torch.from_numpy(predictions(TRUE, 0.8, 0.95, seed=3))])
    assert torch.allclose(fit_transition_matrix(both, y)[0], fit_transition_matrix(p, y))


def test_expectation_maximisation_raises_the_likelihood_step_by_step(monkeypatch):
    labels, _ = noisy(TRUE, "pairflip:0.45")
    p, y = torch.from_numpy(predictions(TRUE, 0.9)), torch.from_numpy(labels)
    found = []
    for steps in (0, 1, 2, 5, 20):
        monkeypatch.setattr(inference, "STEPS", steps)
        matrix = fit_transition_matrix(p, y)
        found.append(float((p * matrix[:, y].T).sum(1).log().mean()))
    assert found == sorted(found) and found[-1] > found[0] + 0.05


def test_a_singular_matrix_is_a_bad_score_and_no_error():
    """Two samples, two classes, both wrong: A + I has no inverse."""
    counts = torch.tensor([[[0.0, 1.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]])
    assert determinant_score(counts).tolist() == [0.0, 1.0]
    rng = np.random.default_rng(0)
    said, given = torch.from_numpy(rng.integers(0, 3, (500, 5))), torch.tensor([0, 1, 2, 0, 1])
    scores = determinant_score(count_pairs(said, given, 3))
    assert (scores >= 0).all() and (scores <= 1 + 1e-9).all()


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


def test_where_predictions_are_of_labels_the_label_s_probability_ranks():
    """Networks that saw all labels: the fitted matrix is near the identity, its rest chance."""
    generator = np.random.default_rng(0)
    pred_probs = generator.dirichlet([0.3] * 5, size=2000)
    labels = np.array([generator.choice(5, p=row) for row in pred_probs])
    scores = find_label_issues(labels, pred_probs).scores
    assert spearmanr(scores, pred_probs[np.arange(2000), labels])[0] > 0.99  # 0.54 by the fit alone


@pytest.mark.parametrize(
    ("labels", "pred_probs", "words"),
    [
        ([0, 1], [[0.5, 0.5]], "of one length"),
        ([0, 2], [[0.5, 0.5], [1, 0]], r"lie in 0\.\.1"),
        ([0.5, 1], [[0.5, 0.5], [1, 0]], "be integers"),
        ([0, 1], [[0.5, 0.6], [1, 0]], "sum to 1"),
        ([0, 1], [[0.5, np.nan], [1, 0]], "numbers in"),
        ([0, 1], [0.5, 0.5], r"\[N, C\]"),
        (np.zeros(0, int), np.zeros((0, 2)), "at least one label"),
    ],
)
def test_bad_labels_and_probabilities_are_named(labels, pred_probs, words):
    with pytest.raises(keeprate.InputError, match=words):
        keeprate.find_label_issues(labels, pred_probs)
