"""Transition matrices against their definition, corrupted labels against the matrices."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keeprate.errors import InputError
from keeprate.noise import (
    NOISES,
    Noise,
    check_transition_matrix,
    corrupt,
    noise_rate,
    pairflip,
    symmetric,
)

RATES = st.floats(0, 1, exclude_max=True)


@pytest.mark.parametrize("kind", NOISES)
@given(n_classes=st.integers(2, 30), rate=RATES)
def test_every_kind_gives_a_transition_matrix_of_its_rate(
    kind: str, n_classes: int, rate: float
) -> None:
    matrix = check_transition_matrix(NOISES[kind](n_classes, rate), n_classes=n_classes)
    np.testing.assert_allclose(np.diag(matrix), 1 - rate)


def test_symmetric_spreads_over_the_others() -> None:
    expected = np.full((5, 5), 0.2 / 4)
    np.fill_diagonal(expected, 0.8)
    np.testing.assert_allclose(symmetric(5, 0.2), expected, atol=1e-15)


def test_pairflip_goes_to_the_next_class() -> None:
    matrix = pairflip(10, 0.45)
    for i in range(10):
        assert matrix[i, i] == pytest.approx(0.55)
        assert matrix[i, (i + 1) % 10] == pytest.approx(0.45)
    assert np.count_nonzero(matrix) == 20


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.2, float("nan"), "many"])
@pytest.mark.parametrize("kind", NOISES)
def test_noise_rate_must_lie_in_its_range(kind: str, rate: float) -> None:
    with pytest.raises(InputError, match=r"noise_rate must lie in \[0, 1\), got"):
        NOISES[kind](3, rate)


@pytest.mark.parametrize("kind", NOISES)
def test_one_class_cannot_be_noisy(kind: str) -> None:
    with pytest.raises(InputError, match="n_classes must be at least 2, got 1"):
        NOISES[kind](1, 0.2)


@pytest.mark.parametrize(
    "matrix",
    [symmetric(4, 0.5), pairflip(4, 0.45), np.random.default_rng(3).dirichlet(np.ones(4), 4)],
    ids=["symmetric", "pairflip", "any"],
)
def test_corrupted_labels_follow_the_matrix(matrix: np.ndarray) -> None:
    true = np.random.default_rng(1).integers(0, 4, 80_000)
    before = true.copy()
    noisy = corrupt(true, matrix, rng=np.random.default_rng(2))
    counts = np.zeros((4, 4))
    np.add.at(counts, (true, noisy), 1)
    # 20,000 draws a row: a standard deviation is at most 0.0036.
    np.testing.assert_allclose(counts / counts.sum(1, keepdims=True), matrix, atol=0.016)
    assert noisy.dtype == np.int64
    np.testing.assert_array_equal(true, before)


def test_pairflip_corruption_never_leaves_the_pair() -> None:
    true = np.random.default_rng(0).integers(0, 10, 20_000)
    noisy = corrupt(true, pairflip(10, 0.45), rng=np.random.default_rng(1))
    assert set(((noisy - true) % 10).tolist()) == {0, 1}
    assert noise_rate(noisy, true) == pytest.approx(0.45, abs=0.015)


class _Largest(np.random.Generator):
    def random(self, size: int) -> np.ndarray:  # type: ignore[override]
        return np.full(size, np.nextafter(1.0, 0.0))


class _Smallest(np.random.Generator):
    def random(self, size: int) -> np.ndarray:  # type: ignore[override]
        return np.zeros(size)


def test_rounding_never_draws_an_impossible_class() -> None:
    # Ten times 0.1 sums to a little less than 1; the last class has probability zero.
    row = np.r_[np.full(10, 0.1), 0.0]
    noisy = corrupt(np.arange(11), np.tile(row, (11, 1)), rng=_Largest(np.random.PCG64(0)))
    assert noisy.tolist() == [9] * 11
    noisy = corrupt(np.arange(3), np.eye(3), rng=_Smallest(np.random.PCG64(0)))
    assert noisy.tolist() == [0, 1, 2]


@given(st.lists(st.integers(0, 4), max_size=30), st.integers(0, 2**32))
def test_corruption_is_seeded_and_the_identity_changes_nothing(
    labels: list[int], seed: int
) -> None:
    def draw(matrix: np.ndarray) -> list[int]:
        return corrupt(np.array(labels, int), matrix, rng=np.random.default_rng(seed)).tolist()

    assert draw(np.eye(5)) == labels
    assert draw(symmetric(5, 0.5)) == draw(symmetric(5, 0.5))


def test_another_seed_gives_other_noise() -> None:
    labels, matrix = np.zeros(100, int), symmetric(3, 0.5)
    first, second = (corrupt(labels, matrix, rng=np.random.default_rng(s)) for s in (0, 1))
    assert (first != second).any()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 3, 1], r"labels must lie in 0\.\.2, got 3 in row 1"),
        ([0, -1], r"labels must lie in 0\.\.2, got -1 in row 1"),
        ([0.5, 1.0], r"labels must be integers, \[N\], got shape \(2,\) of float64"),
        ([[0], [1]], r"labels must be integers, \[N\], got shape \(2, 1\)"),
    ],
)
def test_corrupt_refuses_other_labels(labels: list[float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        corrupt(labels, symmetric(3, 0.2), rng=np.random.default_rng(0))


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.ones((2, 3)) / 3, r"must be square, .* got shape \(2, 3\)"),
        ([0.5, 0.5], r"must be square, .* got shape \(2,\)"),
        ([[0.5, 0.5], [0.5, 0.4]], "must have rows that sum to 1, got row 1 with sum 0.9"),
        ([[1.5, -0.5], [0, 1]], r"must hold numbers in \[0, 1\], got 1.5 in row 0, column 0"),
        ([[np.nan, 1], [0, 1]], r"must hold numbers in \[0, 1\], got nan in row 0"),
        ([[1, 0], [0]], "must be a square table of numbers"),
        ([["a", "b"], ["c", "d"]], "must be a square table of numbers"),
    ],
)
def test_other_matrices_are_refused(matrix: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_transition_matrix(matrix)  # type: ignore[arg-type]


def test_a_matrix_of_another_size_is_refused() -> None:
    message = r"must be \[3, 3\] as the data has 3 classes, got shape \(4, 4\)"
    with pytest.raises(InputError, match=message):
        check_transition_matrix(np.eye(4), n_classes=3)


def test_noise_rate_is_the_share_that_differs() -> None:
    assert noise_rate(np.array([0, 1, 2, 2]), np.array([0, 1, 0, 0])) == 0.5


@pytest.mark.parametrize(("noisy", "true"), [([0, 1], [0]), ([], [])])
def test_noise_rate_needs_pairs(noisy: list[int], true: list[int]) -> None:
    with pytest.raises(InputError, match="must be of one length, not empty"):
        noise_rate(noisy, true)


@given(st.sampled_from(sorted(NOISES)), RATES)
def test_text_and_noise_round_trip(kind: str, rate: float) -> None:
    noise = Noise(kind, rate)
    assert Noise.parse(str(noise)) == noise


@pytest.mark.parametrize("text", ["none", "pairflip:0.45", "symmetric:0.5", "matrix:a/b:c.csv"])
def test_noise_writes_what_it_reads(text: str) -> None:
    assert str(Noise.parse(text)) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gaussian:0.3", "noise must be one of none, symmetric:RATE, pairflip:RATE, matrix:FILE"),
        ("", "noise must be one of"),
        ("pairflip", "noise must have a noise rate, got 'pairflip'"),
        ("pairflip:", "noise must be pairflip:RATE with a number"),
        ("pairflip:half", "noise must be pairflip:RATE with a number"),
        ("pairflip:1.2", r"noise_rate must lie in \[0, 1\), got 1.2"),
        ("symmetric:1", r"noise_rate must lie in \[0, 1\), got 1.0"),
        ("symmetric:nan", r"noise_rate must lie in \[0, 1\), got nan"),
        ("matrix:", "noise must name a file"),
        ("none:0.1", "noise must be one of"),
    ],
)
def test_other_noise_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Noise.parse(text)


def test_none_keeps_every_label() -> None:
    np.testing.assert_array_equal(Noise.parse("none").transition_matrix(4), np.eye(4))


@pytest.mark.parametrize("suffix", [".csv", ".npy", ".json"])
def test_a_matrix_is_read_from_a_file(tmp_path: Path, suffix: str) -> None:
    matrix, path = symmetric(3, 0.3), tmp_path / f"t{suffix}"
    if suffix == ".csv":
        np.savetxt(path, matrix, delimiter=",")
    elif suffix == ".npy":
        np.save(path, matrix)
    else:
        path.write_text(json.dumps(matrix.tolist()))
    np.testing.assert_allclose(Noise.parse(f"matrix:{path}").transition_matrix(3), matrix)
    with pytest.raises(InputError, match=rf"t\{suffix}: transition_matrix must be \[4, 4\]"):
        Noise.parse(f"matrix:{path}").transition_matrix(4)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.csv", None, "could not be read"),
        ("t.txt", "1,0", "must be a file .csv, .npy, .json"),
        ("t.csv", "a,b\nc,d\n", "holds no table of numbers"),
        ("t.json", "[[1, 0], [0", "holds no table of numbers"),
        ("t.npy", "not numpy", "holds no table of numbers"),
        ("counts.csv", "90,10\n5,95\n", "counts have to be divided by the sum of their row"),
    ],
)
def test_other_files_are_refused(
    tmp_path: Path, name: str, content: str | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=rf"{name}: .*{message}"):
        Noise.parse(f"matrix:{tmp_path / name}").transition_matrix(2)
