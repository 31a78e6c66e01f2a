"""Noise: transition matrices follow their definitions, and corrupted labels the matrices."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax
from scipy.stats import truncnorm

from keeprate.errors import InputError
from keeprate.noise.corruption import corrupt, corrupt_by_instance, noise_rate
from keeprate.noise.kinds import CLASS_MAPS, NOISES, asymmetric, pairflip, symmetric
from keeprate.noise.spec import Noise
from keeprate.noise.transition import (
    check_transition_matrix,
    empirical_transition_matrix,
    estimate_transition_matrix,
    rival_share,
    transition_error,
)

RATES = st.floats(0, 1, exclude_max=True)
ANY_SIZE = ["symmetric", "pairflip"]
SIZES = {**dict.fromkeys(ANY_SIZE, 4), **{f"asymmetric-{m}": c for m, (c, _) in CLASS_MAPS.items()}}


@pytest.mark.parametrize("kind", ANY_SIZE)
@given(n_classes=st.integers(2, 30), rate=RATES)
def test_every_kind_gives_a_transition_matrix_of_its_rate(
    kind: str, n_classes: int, rate: float
) -> None:
    matrix = check_transition_matrix(NOISES[kind](n_classes, rate), n_classes=n_classes)
    np.testing.assert_allclose(np.diag(matrix), 1 - rate)


def test_no_kind_is_left_out() -> None:
    assert list(NOISES) == list(SIZES)


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
        NOISES[kind](SIZES[kind], rate)


@pytest.mark.parametrize("kind", ANY_SIZE)
def test_one_class_cannot_be_noisy(kind: str) -> None:
    with pytest.raises(InputError, match="n_classes must be at least 2, got 1"):
        NOISES[kind](1, 0.2)


@given(
    st.integers(2, 20).flatmap(
        lambda c: st.tuples(
            st.just(c), st.dictionaries(st.integers(0, c - 1), st.integers(1, c - 1))
        )
    ),
    RATES,
)
def test_asymmetric_flips_the_mapped_classes_only(
    drawn: tuple[int, dict[int, int]], rate: float
) -> None:
    n_classes, steps = drawn
    class_map = {true: (true + step) % n_classes for true, step in steps.items()}
    matrix = check_transition_matrix(asymmetric(n_classes, rate, class_map), n_classes=n_classes)
    for true in range(n_classes):
        mistaken = class_map.get(true, true)
        expected = np.eye(n_classes)[true] * (1 - rate) + np.eye(n_classes)[mistaken] * rate
        np.testing.assert_allclose(matrix[true], expected, atol=1e-15)


@pytest.mark.parametrize(
    ("kind", "flips"),
    [
        ("asymmetric-mnist", {(2, 7), (3, 8), (7, 1), (5, 6), (6, 5)}),
        ("asymmetric-cifar10", {(9, 1), (2, 0), (4, 7), (3, 5), (5, 3)}),
    ],
)
def test_the_usual_maps_of_ten_classes(kind: str, flips: set[tuple[int, int]]) -> None:
    matrix = Noise.parse(f"{kind}:0.4").transition_matrix(10)
    off_diagonal = matrix * (1 - np.eye(10))
    assert {(int(i), int(j)) for i, j in np.argwhere(off_diagonal)} == flips
    assert set(off_diagonal[off_diagonal > 0]) == {0.4}
    # As the docstring of Noise says: with balanced classes half the rate is wrong.
    assert 1 - np.diag(matrix).mean() == pytest.approx(0.2)


def test_the_classes_of_cifar100_go_round_their_superclass() -> None:
    matrix = Noise("asymmetric-cifar100", 0.3).transition_matrix(100)
    np.testing.assert_allclose(np.diag(matrix), 0.7)
    n_classes, following = CLASS_MAPS["cifar100"]
    assert sorted(following) == sorted(following.values()) == list(range(n_classes))
    fish, people = (1, 32, 67, 73, 91), (2, 11, 35, 46, 98)
    for members in (fish, people):
        for true, mistaken in zip(members, (*members[1:], members[0]), strict=True):
            assert matrix[true, mistaken] == 0.3
    for start in range(n_classes):
        visited = [start]
        while (after := following[visited[-1]]) != start:
            visited.append(after)
        assert len(visited) == 5
        if start == min(visited):  # "the next one": from its first class on, in ascending order
            assert visited == sorted(visited)


@pytest.mark.parametrize("kind", ["asymmetric-mnist", "asymmetric-cifar10", "asymmetric-cifar100"])
def test_asymmetric_kinds_need_their_number_of_classes(kind: str) -> None:
    message = rf"n_classes must be {SIZES[kind]} for {kind}, got 7; use asymmetric with"
    with pytest.raises(InputError, match=message):
        Noise(kind, 0.2).transition_matrix(7)


@pytest.mark.parametrize("class_map", [{0: 0}, {0: 3}, {3: 0}, {-1: 0}, {0: -1}])
def test_other_class_maps_are_refused(class_map: dict[int, int]) -> None:
    with pytest.raises(InputError, match=r"class_map must map classes in 0\.\.2 to other such"):
        asymmetric(3, 0.2, class_map)


@pytest.mark.parametrize("kind", NOISES)
def test_the_share_of_wrong_labels_is_that_of_the_matrix(kind: str) -> None:
    n_classes = SIZES[kind]
    matrix = NOISES[kind](n_classes, 0.4)
    true = np.arange(20_000) % n_classes
    wrong = noise_rate(corrupt(true, matrix, rng=np.random.default_rng(0)), true)
    expected = 1 - np.diag(matrix).mean()
    assert abs(wrong - expected) < 5 * np.sqrt(expected * (1 - expected) / len(true))


@pytest.mark.parametrize(
    "matrix",
    [
        symmetric(4, 0.5),
        pairflip(4, 0.45),
        asymmetric(4, 0.4, {0: 2, 3: 2}),
        np.random.default_rng(3).dirichlet(np.ones(4), 4),
    ],
    ids=["symmetric", "pairflip", "asymmetric", "any"],
)
def test_corrupted_labels_follow_the_matrix(matrix: np.ndarray) -> None:
    true = np.random.default_rng(1).integers(0, 4, 80_000)
    before = true.copy()
    noisy = corrupt(true, matrix, rng=np.random.default_rng(2))
    counts = np.zeros((4, 4))
    np.add.at(counts, (true, noisy), 1)
    # With 20,000 draws for each row a standard deviation is at most 0.0036.
    np.testing.assert_allclose(counts / counts.sum(1, keepdims=True), matrix, atol=0.016)
    np.testing.assert_allclose(
        empirical_transition_matrix(noisy, true, 4), counts / counts.sum(1, keepdims=True)
    )
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


# As in version 0.1.0. With other labels nobody could repeat old runs.
@pytest.mark.parametrize(
    ("noise", "expected"),
    [
        (Noise(), "012301230123012301230123"),
        (Noise("symmetric", 0.5), "132103032111012332230020"),
        (Noise("pairflip", 0.45), "123002231120012312330130"),
        (Noise("matrix", path="t.json"), "113101032111012231230120"),
    ],
    ids=str,
)
def test_seeds_give_the_labels_that_they_always_gave(
    noise: Noise, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    matrix = [[0.4, 0.3, 0.2, 0.1], [0, 1, 0, 0], [0.25, 0.25, 0.25, 0.25], [0.1, 0.2, 0.3, 0.4]]
    Path("t.json").write_text(json.dumps(matrix))
    rng = np.random.default_rng(7)
    noisy = noise.corrupt_labels(np.arange(24) % 4, np.empty((24, 0)), n_classes=4, rng=rng)
    assert "".join(map(str, noisy)) == expected
    assert rng.random() == 0.03568027877359614  # the number of draws is that of version 0.1.0


@pytest.mark.parametrize(
    ("kind", "digest"),
    [
        ("symmetric:0.5", "6e0bc2ef72e338396f827cc5b007d2874f2c7b97a205e4c75fe76c0ca68acb44"),
        ("pairflip:0.45", "df5ad375a4ba92ddbab6dc0becf0a80bf42de9ac83340f28de7e806dcb3e7ff9"),
    ],
)
def test_seeds_give_the_many_labels_that_they_always_gave(kind: str, digest: str) -> None:
    true = np.random.default_rng(1).integers(0, 10, 50_000)
    rng = np.random.default_rng(3)
    noisy = Noise.parse(kind).corrupt_labels(true, true, n_classes=10, rng=rng)
    assert hashlib.sha256(noisy.astype("<i8").tobytes()).hexdigest() == digest


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


@given(st.sampled_from([*sorted(NOISES), "instance"]), RATES)
def test_text_and_noise_round_trip(kind: str, rate: float) -> None:
    noise = Noise(kind, rate)
    assert Noise.parse(str(noise)) == noise


@pytest.mark.parametrize(
    "text",
    [
        "none",
        "pairflip:0.45",
        "symmetric:0.5",
        "asymmetric-cifar100:0.4",
        "instance:0.3",
        "matrix:a/b:c.csv",
    ],
)
def test_noise_writes_what_it_reads(text: str) -> None:
    assert str(Noise.parse(text)) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "gaussian:0.3",
            "noise must be one of none, symmetric:RATE, pairflip:RATE, asymmetric-mnist:RATE, "
            "asymmetric-cifar10:RATE, asymmetric-cifar100:RATE, instance:RATE, matrix:FILE, got",
        ),
        ("asymmetric:0.3", "noise must be one of none, .*, asymmetric-mnist:RATE"),
        ("asymmetric-mnist", "noise must have a noise rate, got 'asymmetric-mnist'"),
        ("instance", "noise must have a noise rate, got 'instance'"),
        ("instance:some", "noise must be instance:RATE with a number"),
        ("instance:1", r"noise_rate must lie in \[0, 1\), got 1.0"),
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


# Instance-dependent noise ----------------------------------------------------------------------


def blobs(n: int, d: int, n_classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, n_classes, n), rng.normal(3.0, 2.0, (n, d))


def by_definition(
    labels: np.ndarray, inputs: np.ndarray, rate: float, n_classes: int, seed: int
) -> list[int]:
    """The algorithm of Xia et al. 2020, sample by sample."""
    rng = np.random.default_rng(seed)
    x = inputs.reshape(len(labels), -1).astype(float)
    x = (x - x.mean()) / x.std()
    q = rng.normal(rate, 0.1, len(labels))
    while outside := [i for i, rate_i in enumerate(q) if not 0 <= rate_i <= 1]:
        q[outside] = rng.normal(rate, 0.1, len(outside))
    uniform = rng.random(len(labels))
    projections = [rng.normal(size=(x.shape[1], n_classes)) for _ in range(n_classes)]
    noisy = []
    for i, y in enumerate(labels):
        scores = x[i] @ projections[y]
        scores[y] = -np.inf
        p = q[i] * softmax(scores)
        p[y] = 1 - q[i]
        assert p.sum() == pytest.approx(1)
        noisy.append(next(j for j in range(n_classes) if p[: j + 1].sum() > uniform[i]))
    return noisy


@pytest.mark.parametrize(
    ("n", "d", "n_classes", "rate"),
    [(300, 1, 2, 0.5), (300, 3, 5, 0.9), (300, 40, 4, 0.05), (800, 3000, 3, 0.3)],
    ids=["two classes", "high rates cut", "low rates cut", "several pieces"],
)
def test_instance_noise_is_that_of_the_paper(n: int, d: int, n_classes: int, rate: float) -> None:
    labels, inputs = blobs(n, d, n_classes)
    before = inputs.copy()
    rng = np.random.default_rng(5)
    noisy = corrupt_by_instance(labels, inputs, rate, n_classes=n_classes, rng=rng)
    assert noisy.tolist() == by_definition(labels, inputs, rate, n_classes, 5)
    assert noisy.dtype == np.int64
    np.testing.assert_array_equal(inputs, before)


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.4, 0.95])
def test_instance_noise_has_the_rate_of_a_truncated_normal(rate: float) -> None:
    labels, inputs = blobs(20_000, 6, 5)
    rng = np.random.default_rng(0)
    noisy = corrupt_by_instance(labels, inputs, rate, n_classes=5, rng=rng)
    expected = truncnorm(-10 * rate, 10 - 10 * rate, loc=rate, scale=0.1).mean()
    bound = 5 * np.sqrt(expected * (1 - expected) / len(labels))
    assert abs(noise_rate(noisy, labels) - expected) < bound


@given(st.lists(st.integers(0, 3), min_size=1, max_size=30), RATES, st.integers(0, 2**32))
def test_instance_noise_is_seeded_and_stays_among_the_classes(
    labels: list[int], rate: float, seed: int
) -> None:
    inputs = np.arange(2.0 * len(labels)).reshape(-1, 2)

    def draw() -> list[int]:
        rng = np.random.default_rng(seed)
        return Noise("instance", rate).corrupt_labels(labels, inputs, n_classes=4, rng=rng).tolist()

    assert draw() == draw()
    assert set(draw()) <= {0, 1, 2, 3}


def test_instance_noise_depends_on_the_instance() -> None:
    # Two kinds of samples in one class: a transition matrix cannot treat them differently.
    labels = np.zeros(4000, int)
    inputs = np.eye(2).repeat(2000, axis=0).repeat(64, axis=1)
    rng = np.random.default_rng(0)
    noisy = corrupt_by_instance(labels, inputs, 0.4, n_classes=10, rng=rng)
    first, second = (np.bincount(part, minlength=10) / 2000 for part in np.split(noisy, 2))
    assert first[0] == pytest.approx(0.6, abs=0.055)  # five standard deviations
    assert second[0] == pytest.approx(0.6, abs=0.055)
    assert np.abs(first[1:] - second[1:]).sum() > 0.6  # of 0.8 at most


def test_instance_noise_sees_neither_shape_nor_scale_nor_type() -> None:
    labels = np.random.default_rng(0).integers(0, 4, 500)
    images = np.random.default_rng(1).integers(0, 256, (500, 3, 4, 4), dtype=np.uint8)

    def draw(inputs: np.ndarray) -> list[int]:
        rng = np.random.default_rng(2)
        return corrupt_by_instance(labels, inputs, 0.5, n_classes=4, rng=rng).tolist()

    expected = draw(images)
    for inputs in (images.reshape(500, -1), images / 255 - 7, images.astype(np.float32)):
        assert draw(inputs) == expected
    assert draw(images[::-1]) != expected


def test_constant_inputs_make_instance_noise_symmetric() -> None:
    labels = np.arange(20_000) % 5
    rng = np.random.default_rng(0)
    noisy = corrupt_by_instance(labels, np.ones((20_000, 3)), 0.4, n_classes=5, rng=rng)
    matrix = empirical_transition_matrix(noisy, labels, 5)
    np.testing.assert_allclose(matrix, symmetric(5, 0.4), atol=0.04)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (
            np.ones((3, 2)),
            r"inputs must be numbers, \[N, \.\.\.\], got shape \(3, 2\) of float64 for 2",
        ),
        ([["a"], ["b"]], r"inputs must be numbers, .* got shape \(2, 1\) of <U1"),
        (np.ones((2, 0)), r"inputs must be numbers, .* got shape \(2, 0\)"),
        (None, r"inputs must be numbers, .* got shape \(\) of object"),
        ([[1.0], [np.nan]], "inputs must be finite, got NaN or infinite values; drop these rows"),
        ([[1.0], [-np.inf]], "inputs must be finite"),
        ([[np.inf], [-np.inf]], "inputs must be finite"),
    ],
)
def test_instance_noise_refuses_other_inputs(inputs: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Noise("instance", 0.2).corrupt_labels(
            [0, 1],
            inputs,  # type: ignore[arg-type]
            n_classes=2,
            rng=np.random.default_rng(0),
        )


def test_instance_noise_refuses_other_labels() -> None:
    with pytest.raises(InputError, match=r"labels must lie in 0\.\.1, got 2 in row 1"):
        rng = np.random.default_rng(0)
        corrupt_by_instance([0, 2], np.ones((2, 1)), 0.2, n_classes=2, rng=rng)


def test_instance_noise_has_no_transition_matrix() -> None:
    message = r"noise must depend on classes only .* got 'instance:0\.2'; measure one"
    with pytest.raises(InputError, match=message):
        Noise("instance", 0.2).transition_matrix(3)


# Measuring and estimating T --------------------------------------------------------------------


def some_matrix(n_classes: int, seed: int) -> np.ndarray:
    """A transition matrix without symmetries, its diagonal the largest of rows and columns."""
    rng = np.random.default_rng(seed)
    return 0.5 * np.eye(n_classes) + 0.5 * rng.dirichlet(np.ones(n_classes), n_classes)


@given(
    st.integers(2, 8).flatmap(
        lambda c: st.tuples(
            st.just(c),
            st.lists(st.tuples(st.integers(0, c - 1), st.integers(0, c - 1)), min_size=1),
        )
    )
)
def test_the_empirical_matrix_counts(drawn: tuple[int, list[tuple[int, int]]]) -> None:
    n_classes, pairs = drawn
    noisy, true = zip(*pairs, strict=True)
    matrix = check_transition_matrix(empirical_transition_matrix(noisy, true, n_classes))
    for i in range(n_classes):
        for j in range(n_classes):
            expected = pairs.count((j, i)) / true.count(i) if i in true else float(i == j)
            assert matrix[i, j] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("noisy", "true", "n_classes", "message"),
    [
        ([0, 1], [0], 2, "noisy and true must be of one length, not empty, got 2 and 1 labels"),
        ([], [], 2, "noisy and true must be of one length, not empty"),
        ([0, 2], [0, 1], 2, r"noisy must lie in 0\.\.1, got 2 in row 1"),
        ([0, 1], [0, -1], 2, r"true must lie in 0\.\.1, got -1 in row 1"),
        ([0.5], [0], 2, "noisy must be integers"),
        ([0], [0], 1, "n_classes must be at least 2, got 1"),
    ],
)
def test_the_empirical_matrix_needs_pairs(
    noisy: list[int], true: list[int], n_classes: int, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        empirical_transition_matrix(noisy, true, n_classes)


@pytest.mark.parametrize("percentile", [97, 100])
def test_the_estimate_is_exact_where_there_are_anchor_points(percentile: float) -> None:
    matrix = some_matrix(10, seed=1)
    # For each class 5 % of the samples certainly belong to it. The others are mixtures of classes.
    anchors = np.eye(10).repeat(50, axis=0)
    rng = np.random.default_rng(0)
    posteriors = rng.permutation(np.vstack([anchors, rng.dirichlet(np.ones(10), 500)]))
    given = posteriors @ matrix
    before = given.copy()
    estimate = estimate_transition_matrix(given, percentile=percentile)
    np.testing.assert_allclose(estimate, matrix, atol=1e-12)
    assert transition_error(estimate, matrix) < 1e-12
    assert transition_error(matrix.T / matrix.sum(0)[:, None], matrix) > 0.1
    np.testing.assert_array_equal(given, before)


def test_the_percentile_sets_overconfident_samples_aside() -> None:
    matrix = some_matrix(10, seed=1)
    rng = np.random.default_rng(0)
    # Each class has 9 % nearly certain samples with noisy predictions, and 1 % overconfident ones.
    anchors = 0.99 * np.eye(10).repeat(90, axis=0) + 0.01 * rng.dirichlet(np.ones(10), 900)
    noisy = np.abs(anchors @ matrix + rng.normal(0, 0.01, (900, 10)))
    predicted = np.vstack([noisy / noisy.sum(1, keepdims=True), np.eye(10).repeat(10, axis=0)])
    predicted = rng.permutation(predicted)
    estimate = estimate_transition_matrix(predicted)
    assert transition_error(estimate, matrix) < 0.1
    # Eq. (12) itself takes the overconfident samples and finds no noise at all.
    np.testing.assert_array_equal(estimate_transition_matrix(predicted, percentile=100), np.eye(10))
    # The transposed matrix is no such estimate.
    assert transition_error(matrix.T / matrix.sum(0)[:, None], matrix) > 0.1


def test_the_percentile_is_that_of_the_reference() -> None:
    # 0.97 * 59 is no whole number and nothing ties: the reference takes the largest value strictly
    # below the percentile.
    given = np.random.default_rng(0).dirichlet(np.ones(4), 60)
    expected = []
    for column in given.T:
        below = np.where(column < np.percentile(column, 97, method="higher"), column, 0)
        expected.append(given[below.argmax()])
    np.testing.assert_allclose(estimate_transition_matrix(given), expected)


@given(st.integers(2, 6), st.integers(0, 40), st.floats(0, 100), st.integers(0, 2**32))
def test_estimates_are_transition_matrices_whatever_the_order(
    n_classes: int, more: int, percentile: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    given = rng.dirichlet(np.ones(n_classes), n_classes + more)
    estimate = check_transition_matrix(
        estimate_transition_matrix(given, percentile=percentile), n_classes=n_classes
    )
    samples, classes = rng.permutation(len(given)), rng.permutation(n_classes)
    again = estimate_transition_matrix(given[samples][:, classes], percentile=percentile)
    np.testing.assert_allclose(again, estimate[classes][:, classes])


def test_half_precision_is_enough() -> None:
    given = np.random.default_rng(0).dirichlet(np.ones(10), 200)
    estimate = check_transition_matrix(estimate_transition_matrix(given.astype(np.float16)))
    np.testing.assert_allclose(estimate, estimate_transition_matrix(given), atol=2e-3)


@pytest.mark.parametrize(
    ("probabilities", "message"),
    [
        (np.ones(4), r"must be \[N, C\] with C >= 2, got shape \(4,\)"),
        (np.ones((4, 1)), r"must be \[N, C\] with C >= 2, got shape \(4, 1\)"),
        (np.eye(3)[:2], "must hold a sample for each class, got 2 samples for 3 classes"),
        (np.empty((0, 2)), "must hold a sample for each class, got 0 samples for 2 classes"),
        ([[0.5, 0.5], [0.5, np.nan]], r"must hold numbers in \[0, 1\], got nan in row 1, column 1"),
        ([[2.0, -1.0], [0.5, 0.5]], r"must hold numbers in \[0, 1\], got 2 in row 0.*softmax"),
        ([[0.5, 0.5], [0.5, 0.4]], "must have rows that sum to 1, got row 1 with sum 0.9"),
        ([["a", "b"], ["c", "d"]], r"must be numbers, \[N, C\]"),
    ],
)
def test_other_probabilities_are_refused(probabilities: object, message: str) -> None:
    with pytest.raises(InputError, match=f"probabilities {message}"):
        estimate_transition_matrix(probabilities)  # type: ignore[arg-type]


@pytest.mark.parametrize("percentile", [-1, 100.5, float("nan")])
def test_other_percentiles_are_refused(percentile: float) -> None:
    with pytest.raises(InputError, match=r"percentile must lie in \[0, 100\], got"):
        estimate_transition_matrix(np.eye(3), percentile=percentile)


@given(st.integers(2, 8), st.integers(0, 2**32))
def test_the_error_is_relative(n_classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = rng.dirichlet(np.ones(n_classes), (2, n_classes))
    error = transition_error(first, second)
    assert error == pytest.approx(np.abs(first - second).sum() / n_classes)
    assert error == pytest.approx(transition_error(second, first))
    assert 0 <= error <= 2 + 1e-12
    assert transition_error(first, first) == 0
    assert transition_error(np.eye(n_classes), pairflip(n_classes, 0.4)) == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("estimated", "true", "message"),
    [
        (np.eye(2), np.eye(3), "estimated and true must be of one size, got 2 and 3 classes"),
        (np.ones((2, 2)), np.eye(2), "estimated must have rows that sum to 1"),
        (np.eye(2), [[1, 0]], "true must be square"),
        (np.full((2, 2), np.nan), np.eye(2), "estimated must hold numbers in"),
    ],
)
def test_the_error_needs_two_transition_matrices(
    estimated: object, true: object, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        transition_error(estimated, true)  # type: ignore[arg-type]


# The most frequent wrong label -----------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.1, 0.45, 0.7])
def test_the_rival_of_a_class_is_its_most_frequent_wrong_label(rate: float) -> None:
    odds = rate / (1 - rate)
    assert rival_share(symmetric(10, rate)) == pytest.approx(min(odds / 9, 1))
    assert rival_share(pairflip(10, rate)) == pytest.approx(min(odds, 1))
    assert rival_share(np.eye(4)) == 0


def test_rival_shares_are_averaged_over_classes() -> None:
    matrix = [
        [0.5, 0.3, 0.2, 0.0],  # 3/5, not (3 + 2)/5
        [0.0, 1.0, 0.0, 0.0],
        [0.7, 0.2, 0.1, 0.0],  # more often wrong than right: 1
        [1.0, 0.0, 0.0, 0.0],  # always
    ]
    assert rival_share(matrix) == pytest.approx((0.6 + 0 + 1 + 1) / 4)
    with pytest.raises(InputError, match="matrix must"):
        rival_share([[0.5, 0.6], [0.0, 1.0]])
