"""Conclusions from predictions and noisy labels: good networks, the noise, label issues."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score
from torch.utils._python_dispatch import TorchDispatchMode

import keeprate
from keeprate.noise import inference
from keeprate.noise.inference import (
    class_posterior,
    count_pairs,
    determinant_score,
    estimate_noise,
    fit_transition_matrix,
    sharpened,
)
from keeprate.noise.spec import Noise
from keeprate.records.label_quality import SURE, LabelQuality, find_label_issues

C = 5


def noisy(true: np.ndarray, name: str, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Return noisy labels and the transition matrix of the noise."""
    noise, rng = Noise.parse(name), np.random.default_rng(seed)
    matrix = noise.transition_matrix(C)
    return noise.corrupt_labels(true, np.zeros((len(true), 1)), n_classes=C, rng=rng), matrix


def predictions(true: np.ndarray, right: float, sure: float = 0.6, seed: int = 0) -> np.ndarray:
    """Predict the true class with probability `right`, else the next class as pairflip does."""
    rng = np.random.default_rng(seed)
    predicted = np.where(rng.random(len(true)) < right, true, (true + 1) % C)
    p = rng.dirichlet(np.ones(C), len(true)) * (1 - sure)
    p[np.arange(len(true)), predicted] += sure
    return p


TRUE = np.random.default_rng(0).integers(0, C, 6000)


def test_counts_equal_those_of_numpy():
    rng = np.random.default_rng(0)
    predicted, labels = rng.integers(0, C, (2, 3, 400)), rng.integers(0, C, 400)
    counts = count_pairs(torch.from_numpy(predicted), torch.from_numpy(labels), C)
    assert counts.shape == (2, 3, C, C)
    for i in range(2):
        for j in range(3):
            expected = np.zeros((C, C))
            np.add.at(expected, (predicted[i, j], labels), 1)
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
        p = torch.from_numpy(predictions(true, 1.0))
        estimate = estimate_noise(p, torch.from_numpy(labels))
        rates.append((estimate.noise_rate, estimate.noise_rate_std))
        matrices.append((estimate.transition_matrix, estimate.transition_matrix_std))
    mean, std = np.mean(rates, axis=0)
    expected = Noise.parse(name).expected_rate(C)
    assert mean == pytest.approx(expected, abs=0.015)
    assert np.std([rate for rate, _ in rates]) == pytest.approx(std, rel=0.6)
    matrix, errors = (np.stack(values) for values in zip(*matrices, strict=True))
    assert matrix.std(0, ddof=1).mean() == pytest.approx(errors.mean(), rel=0.3)


@pytest.mark.parametrize("name", ["pairflip:0.3", "symmetric:0.4", "symmetric:0.1", "none"])
def test_the_interval_holds_the_share_of_wrong_labels(name):
    """Of networks that are wrong here and there, however sure; by clean labels, and without."""
    inside, widths = {True: [], False: []}, {True: [], False: []}
    for seed in range(60):
        true = np.random.default_rng(seed).permutation(TRUE)[:1000]
        labels, _ = noisy(true, name, seed)
        p = torch.from_numpy(predictions(true, 0.9, seed=100 + seed))
        is_right = predictions(TRUE[:300], 0.9, seed=seed).argmax(1) == TRUE[:300]
        share = (labels != true).mean()
        for known in (None, torch.from_numpy(is_right)):
            found = estimate_noise(p, torch.from_numpy(labels), is_right=known)
            by_clean = known is not None
            inside[by_clean].append(found.low <= share <= found.high)
            widths[by_clean].append(found.high - found.low)
            assert found.low <= found.noise_rate <= found.high
            assert found.by_clean_labels == by_clean and (by_clean or not found.low)
    for by_clean in (True, False):
        assert np.mean(inside[by_clean]) > 0.88
    assert np.mean(widths[True]) < 0.32  # and it says something
    assert np.mean(widths[False]) < share + 0.18


def test_classes_that_overlap_are_not_said_to_be_noise():
    """Right labels, and networks that know all there is to know: nothing is surely wrong."""
    rng = np.random.default_rng(0)
    p = rng.dirichlet([0.7] * 3, size=4000)
    labels = torch.from_numpy((rng.random(4000)[:, None] > p.cumsum(1)).sum(1))
    assert estimate_noise(torch.from_numpy(p), labels).low == 0


def test_noise_that_follows_from_the_inputs_is_seen_with_clean_labels_only():
    """All samples of a class have the same wrong label, and the networks learnt it."""
    labels = np.where(TRUE == 0, 1, TRUE)
    p = torch.from_numpy(predictions(labels, 1.0))
    is_right = torch.from_numpy(p.argmax(1).numpy() == TRUE)
    blind = estimate_noise(p, torch.from_numpy(labels))
    assert blind.high < 0.01 < (labels != TRUE).mean()
    known = estimate_noise(p, torch.from_numpy(labels), is_right=is_right)
    assert known.low < (labels != TRUE).mean() < known.high
    assert known.noise_rate == known.low > 0.15  # d = 0 and e = 0.2: a fifth must be wrong


def test_rows_of_a_class_that_is_hardly_expected_are_shares():
    p = torch.full((50, 3), 0.002, dtype=torch.float64)
    p[:25, 0], p[25:, 1] = 0.996, 0.996
    labels = torch.tensor([0] * 25 + [1] * 25)
    is_right = torch.ones(20, dtype=torch.bool)
    matrix = estimate_noise(p, labels, is_right=is_right).transition_matrix
    np.testing.assert_allclose(matrix.sum(1), 1)


def test_nothing_bounds_the_noise_of_labels_that_networks_learnt():
    p, labels = torch.from_numpy(predictions(TRUE, 1.0)), torch.from_numpy(TRUE)
    found = estimate_noise(p, labels, held_out=False)
    assert found.low is None and found.high is None
    assert found.in_words() == "About 0.0 % of the labels are wrong (standard error 0.0 %)"


def test_the_temperature_is_found_through_the_noise():
    rng = np.random.default_rng(0)
    p = torch.from_numpy(rng.dirichlet([0.4] * 4, size=20_000))
    matrix = torch.full((4, 4), 0.1, dtype=torch.float64).fill_diagonal_(0.7)
    labels = torch.multinomial(p @ matrix, 1, generator=torch.Generator().manual_seed(0))[:, 0]
    for power in (0.5, 2.0):
        other = p ** (1 / power)
        other /= other.sum(1, keepdim=True)
        found = sharpened(other, labels, matrix)
        assert (found - p).abs().mean() < 0.015 < (other - p).abs().mean()


def test_labels_are_listed_by_probability_precision_or_number(tmp_path):
    scores = np.array([0.9, 0.05, 0.4, 0.6, 0.2])
    given, predicted = np.zeros(5, int), np.array([0, 1, 1, 0, 1])
    suggested = np.array([-1, 1, -1, -1, 1])
    quality = LabelQuality(np.arange(10, 15), given, predicted, scores, suggested, tuple("abcde"))
    assert quality.listed().rows.tolist() == [11, 14, 12]
    assert quality.listed().names == ("b", "e", "c")
    assert quality.corrected.tolist() == [0, 1, 0, 0, 1]
    assert quality.listed(rows=4).rows.tolist() == [11, 14, 12, 13]
    # The means of 0.95, 0.8, 0.6, 0.4, 0.1 so far: 0.95, 0.875, 0.783, 0.6875, 0.57.
    for precision, n in ((0.96, 0), (0.9, 1), (0.875, 2), (0.78, 3), (0.5, 5)):
        assert len(quality.listed(precision=precision).rows) == n
    for wrong in (
        {"precision": 0.0},
        {"precision": 1.5},
        {"rows": 0},
        {"rows": 1, "precision": 0.5},
    ):
        with pytest.raises(keeprate.InputError):
            quality.listed(**wrong)
    path = tmp_path / "label_quality.csv"
    quality.save(path, ("cat", "dog"))
    again = LabelQuality.load(path, ("cat", "dog"))
    for name in ("rows", "given", "predicted", "scores", "suggested", "is_issue"):
        assert getattr(again, name).tolist() == getattr(quality, name).tolist()
    lines = path.read_text().splitlines()  # as an older version wrote them
    older = [",".join(cell for i, cell in enumerate(line.split(",")) if i != 5) for line in lines]
    path.write_text("\n".join(older))
    assert LabelQuality.load(path, ("cat", "dog")).suggested.tolist() == [-1, 1, 1, -1, 1]


def test_confident_training_samples_do_not_represent_all():
    """Networks are more confident where the label agrees: selection kept these samples."""
    labels, _ = noisy(TRUE, "symmetric:0.3")
    agrees, p = labels == TRUE, predictions(TRUE, 1.0, sure=0.7)
    p[agrees] = predictions(TRUE, 1.0, sure=0.95)[agrees]
    half, everything = (
        estimate_noise(torch.from_numpy(p), torch.from_numpy(labels), held_out=held_out).noise_rate
        for held_out in (True, False)
    )
    assert half < 0.05 and everything == pytest.approx((~agrees).mean(), abs=1e-9)


def test_the_error_of_a_row_comes_from_its_number_of_samples():
    p = torch.tensor([[0.9, 0.05, 0.05]] * 4 + [[0.05, 0.9, 0.05]])
    estimate = estimate_noise(p, torch.tensor([0, 0, 0, 1, 1]))
    assert estimate.transition_matrix.tolist() == [[0.75, 0.25, 0], [0, 1, 0], [0, 0, 1]]
    share = np.array([4 / 6, 2 / 6, 1 / 6])
    expected = np.sqrt(share * (1 - share) / 6)
    assert estimate.transition_matrix_std[0] == pytest.approx(expected)
    assert (estimate.transition_matrix_std[1:] > 0.2).all()  # rows with one sample and with none


@pytest.mark.parametrize("name", ["pairflip:0.45", "symmetric:0.5"])
def test_the_determinant_ranks_networks_as_clean_labels_do(name):
    labels, _ = noisy(TRUE, name)
    scores, hits = [], []
    for right in (0.80, 0.85, 0.90, 0.95, 0.99):
        predicted = predictions(TRUE, right).argmax(1)
        counts = count_pairs(torch.from_numpy(predicted), torch.from_numpy(labels), C)
        scores.append(float(determinant_score(counts)))
        hits.append((predicted == labels).mean())
    assert scores == sorted(scores)
    if name == "pairflip:0.45":  # plain accuracy hardly differs
        assert max(hits) - min(hits) < 0.02 < 0.05 < max(scores) - min(scores)


def test_with_many_classes_and_few_samples_the_score_is_as_good_as_accuracy():
    rng, n_classes = np.random.default_rng(0), 100
    true = rng.integers(0, n_classes, 1000)
    labels = np.where(rng.random(1000) < 0.5, true, rng.integers(0, n_classes, 1000))
    rates, scores = np.linspace(0.3, 0.5, 20), []
    for rate in rates:
        predicted = np.where(rng.random(1000) < rate, true, rng.integers(0, n_classes, 1000))
        counts = count_pairs(torch.from_numpy(predicted), torch.from_numpy(labels), n_classes)
        scores.append(float(determinant_score(counts)))
    assert spearmanr(rates, scores)[0] > 0.8


@pytest.mark.parametrize("name", ["pairflip:0.45", "symmetric:0.5", "symmetric:0.2"])
def test_the_transition_matrix_is_found_from_soft_predictions(name):
    labels, matrix = noisy(TRUE, name)
    p, y = torch.from_numpy(predictions(TRUE, 0.97, 0.95)), torch.from_numpy(labels)
    assert np.abs(fit_transition_matrix(p, y).numpy() - matrix).max() < 0.08
    # Leading axes hold independent predictions.
    both = torch.stack([p, torch.from_numpy(predictions(TRUE, 0.8, 0.95, seed=3))])
    assert torch.allclose(fit_transition_matrix(both, y)[0], fit_transition_matrix(p, y))


def test_expectation_maximisation_raises_the_likelihood_step_by_step(monkeypatch):
    labels, _ = noisy(TRUE, "pairflip:0.45")
    p, y = torch.from_numpy(predictions(TRUE, 0.9)), torch.from_numpy(labels)
    likelihoods = []
    for steps in (0, 1, 2, 5, 20):
        monkeypatch.setattr(inference, "STEPS", steps)
        matrix = fit_transition_matrix(p, y)
        likelihoods.append(float((p * matrix[:, y].T).sum(1).log().mean()))
    assert likelihoods == sorted(likelihoods) and likelihoods[-1] > likelihoods[0] + 0.05


def test_a_singular_matrix_is_a_bad_score_and_no_error():
    """Two samples, two classes, both wrong: A + I has no inverse."""
    counts = torch.tensor([[[0.0, 1.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]])
    assert determinant_score(counts).tolist() == [0.0, 1.0]
    rng = np.random.default_rng(0)
    predicted, labels = torch.from_numpy(rng.integers(0, 3, (500, 5))), torch.arange(5) % 3
    scores = determinant_score(count_pairs(predicted, labels, 3))
    assert (scores >= 0).all() and (scores <= 1 + 1e-9).all()


def test_the_posterior_follows_bayes_rule():
    p, y = torch.tensor([[0.6, 0.4]]), torch.tensor([1])
    matrix = torch.tensor([[0.9, 0.1], [0.3, 0.7]])
    expected = torch.tensor([[0.6 * 0.1, 0.4 * 0.7]]) / (0.6 * 0.1 + 0.4 * 0.7)
    torch.testing.assert_close(class_posterior(p, y, matrix), expected)


def test_issues_are_ranked_better_than_by_the_probability_of_the_label():
    labels, _ = noisy(TRUE, "pairflip:0.45")
    p = predictions(TRUE, 0.9)
    quality, wrong = find_label_issues(labels, p), labels != TRUE
    plain = average_precision_score(wrong, -p[np.arange(len(labels)), labels])
    assert average_precision_score(wrong, -quality.scores) > plain + 0.02
    given = torch.from_numpy(p), torch.from_numpy(labels)
    matrix = 0.9 * fit_transition_matrix(*given) + 0.1 / C
    posterior = class_posterior(*given, matrix).numpy()
    assert np.array_equal(quality.predicted, posterior.argmax(1))
    np.testing.assert_allclose(quality.scores, posterior[np.arange(len(labels)), labels])
    assert np.array_equal(quality.is_issue, quality.scores < 0.5)
    sure = (posterior.max(1) >= SURE) & (quality.predicted != labels)
    assert np.array_equal(quality.suggested, np.where(sure, quality.predicted, -1))
    assert 0 < sure.sum() < quality.is_issue.sum()
    assert (np.diff(quality.scores[quality.ranking]) >= 0).all()


def test_predictions_of_the_labels_rank_by_the_probability_of_the_label():
    """Networks that learnt all labels: apart from chance the fitted matrix is the identity."""
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


def test_slices_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    p, y = rng.dirichlet(np.ones(4), 103), rng.integers(0, 4, 103)
    whole = find_label_issues(y, p)
    fitted = inference.fit_transition_matrix(torch.from_numpy(p), torch.from_numpy(y))
    monkeypatch.setattr(inference, "SLICE", 4 * 10)
    parts = list(inference.slices(torch.from_numpy(p), torch.from_numpy(y)))
    assert [len(labels) for _, labels in parts] == [10] * 10 + [3]
    in_slices = inference.fit_transition_matrix(torch.from_numpy(p), torch.from_numpy(y))
    torch.testing.assert_close(in_slices, fitted, atol=1e-12, rtol=0)
    found = find_label_issues(y, p)
    np.testing.assert_allclose(found.scores, whole.scores, atol=1e-12)
    np.testing.assert_array_equal(found.is_issue, whole.is_issue)


class Largest(TorchDispatchMode):
    """The bytes of the largest tensor that an operation made."""

    n_bytes = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: Any = (), names: Any = None
    ) -> Any:
        made = function(*arguments, **(names or {}))
        if isinstance(made, torch.Tensor) and not function.is_view:
            self.n_bytes = max(self.n_bytes, made.nbytes)
        return made


def test_memory_is_that_of_the_probabilities_and_a_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "SLICE", 50_000)
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(100), 20_000).astype(np.float32)
    y = np.where(rng.random(20_000) < 0.9, 7, rng.integers(0, 100, 20_000))  # most are of one class
    find_label_issues(y[:200], p[:200])  # what is imported late
    tracemalloc.start()
    find_label_issues(y, p)
    _, peak = tracemalloc.get_traced_memory()  # of NumPy, not of PyTorch
    tracemalloc.stop()
    with Largest() as largest:
        find_label_issues(y, p)
    assert largest.n_bytes <= 8 * 50_000
    assert peak <= 1.1 * 8 * p.size  # in float64
