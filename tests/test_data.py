"""What happens between a source and a batch: cuts, noise, scaling, the order of an epoch."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from keeprate.data.arrays import input_tensor
from keeprate.data.preprocessing import Normaliser
from keeprate.data.samples import Data, Loaded, Split
from keeprate.data.sources import load_data
from keeprate.data.splitting import part, prepare
from keeprate.engine.loop import epoch_order
from keeprate.errors import InputError
from keeprate.noise.spec import Noise
from keeprate.seeding import derive_seed
from tests.sources import LABELS, pixels, vectors, write_parquet

# Splits and noise ------------------------------------------------------------------------------


def numbered(n: int, n_classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Inputs that hold the number of their sample."""
    return np.arange(n, dtype=np.float32)[:, None], np.arange(n) % n_classes


def ids(split: Split | None) -> list[int]:
    return [] if split is None else [int(i) for i in split.inputs[:, 0]]


PAIRFLIP = Noise("pairflip", 0.45)


@given(st.integers(20, 200), st.integers(0, 1000), st.integers(2, 5))
def test_one_split_is_cut_in_three(n: int, seed: int, n_classes: int) -> None:
    data = prepare(numbered(n, n_classes), seed=seed)
    assert len(data.validation) == n // 5
    assert sorted(ids(data.train) + ids(data.validation) + ids(data.test)) == list(range(n))
    assert data.test is not None
    for split in (data.train, data.validation, data.test):
        assert split.rows.tolist() == sorted(ids(split))
        assert split.rows.tolist() == ids(split)
        share = torch.bincount(split.labels, minlength=n_classes) / len(split)
        assert (share - 1 / n_classes).abs().max() <= 2 / len(split)
    assert (data.validation.label_status, data.criterion) == ("noisy", "determinant")
    assert data.noise_rate is None


def test_a_held_out_split_is_cut_in_half() -> None:
    x, y = numbered(60)
    data = prepare({"train": (x, y), "test": (x[:41] + 100, y[:41])})
    assert ids(data.train) == list(range(60))
    assert (len(data.validation), len(data.test or ())) == (20, 21)
    assert sorted(ids(data.validation) + ids(data.test)) == list(range(100, 141))
    assert data.validation.rows.tolist() == [i - 100 for i in ids(data.validation)]
    assert data.validation_from == "20 of the 41 samples of the test split"


def test_a_noisy_validation_set_is_cut_from_the_training_split() -> None:
    x, y = numbered(2000)
    source = {"train": (x, y), "test": (x[:41] + 5000, y[:41])}
    data = prepare(source, noise=PAIRFLIP, validation="noisy", seed=3)
    plain = prepare(source, noise=PAIRFLIP, seed=3)
    assert plain.criterion == "accuracy" and data.criterion == "determinant"
    assert (len(data.train), len(data.validation), len(data.test or ())) == (1800, 200, 41)
    assert sorted(ids(data.train) + ids(data.validation)) == list(range(2000))
    # The validation labels have the noise of the training labels, and the true ones are gone.
    noisy = dict(zip(ids(plain.train), plain.train.labels.tolist(), strict=True))
    assert [noisy[i] for i in ids(data.validation)] == data.validation.labels.tolist()
    wrong = data.validation.labels.numpy() != np.array(ids(data.validation)) % 3
    assert abs(wrong.mean() - 0.45) < 0.12 and data.validation.true_labels is None
    assert data.validation_from.startswith("200 of the 2000 samples of the training split")
    cut = prepare((x, y), noise=PAIRFLIP, validation="noisy", n_validation=0.5, n_test=100)
    assert (len(cut.train), len(cut.validation), len(cut.test or ())) == (950, 950, 100)
    assert (torch.tensor(ids(cut.test)) % 3).equal(cut.test.labels)  # the test split stays clean
    with pytest.raises(InputError, match="validation must be auto or noisy, got 'clean'"):
        prepare(source, validation="clean")


ONE, TWO, THREE = ("train",), ("train", "test"), ("train", "validation", "test")


@pytest.mark.parametrize(
    ("names", "options", "doubted", "test_status"),
    [
        (ONE, {}, THREE, "noisy"),
        (ONE, {"validation": "noisy"}, THREE, "noisy"),
        (ONE, {"n_test": 0}, ("train", "validation"), None),
        (ONE, {"noise": PAIRFLIP}, ONE, "clean"),
        (ONE, {"noise": PAIRFLIP, "validation": "noisy"}, ("train", "validation"), "clean"),
        (TWO, {}, ONE, "unknown"),
        (TWO, {"validation": "noisy"}, ("train", "validation"), "unknown"),
        (THREE, {}, ONE, "unknown"),
        (THREE, {"validation": "noisy"}, ONE, "unknown"),  # rows of another split of the source
    ],
)
def test_labels_with_the_noise_of_the_training_labels_are_doubted(
    names: tuple[str, ...],
    options: dict[str, Any],
    doubted: tuple[str, ...],
    test_status: str | None,
) -> None:
    data = prepare({name: numbered(60) for name in names}, **options)
    assert data.train.label_status == "noisy"
    assert (None if data.test is None else data.test.label_status) == test_status
    expected = [getattr(data, name) for name in doubted]
    assert list(map(id, data.doubted_splits)) == list(map(id, expected))
    without_test = replace(data, test=None).doubted_splits
    assert list(map(id, without_test)) == list(map(id, expected[:2]))


def test_with_true_labels_only_the_training_labels_are_doubted() -> None:
    x, y = numbered(60)
    data = prepare((x, y, y))
    assert data.doubted_splits == [data.train] and data.test.label_status == "clean"


def test_every_split_knows_the_split_of_the_source_that_its_rows_count_in() -> None:
    (x, y), held_out = numbered(60), numbered(40)
    splits = {
        name: Split(torch.from_numpy(inputs), torch.from_numpy(labels))
        for name, (inputs, labels) in {"train": (x, y), "validation": held_out}.items()
    }
    data = prepare(Loaded(splits, ("a", "b", "c"), "by hand"))
    assert [s.origin for s in (data.train, data.validation, data.test)] == [
        "train",
        "validation",
        "validation",
    ]
    assert data.validation_from == "20 of the 40 samples of the validation split"
    noisy = replace(data.validation, label_status="noisy", names=tuple("abcdefghijklmnopqrst"))
    some = part(noisy, np.array([3, 1]))
    assert (some.origin, some.label_status, some.names) == ("validation", "noisy", ("b", "d"))
    assert some.rows.tolist() == noisy.rows[[1, 3]].tolist()


def test_a_given_validation_split_with_noise_stays() -> None:
    x, y = numbered(900)
    source = {"train": (x, y), "validation": (x + 1000, y), "test": (x[:30] + 2000, y[:30])}
    data = prepare(source, validation="noisy")
    assert (data.criterion, data.validation.true_labels) == ("determinant", None)
    assert [len(s) for s in (data.train, data.validation, data.test)] == [900, 900, 30]
    assert data.validation_from == "the validation split of the source, with its noise"
    assert data.validation.labels.tolist() == [(i - 1000) % 3 for i in ids(data.validation)]
    data = prepare(source, validation="noisy", noise=PAIRFLIP, n_validation=500, limit=600)
    assert (len(data.train), len(data.validation)) == (600, 500)
    for split, offset in ((data.train, 0), (data.validation, 1000)):
        wrong = split.labels.numpy() != (np.array(ids(split)) - offset) % 3
        assert abs(wrong.mean() - 0.45) < 0.06
    assert data.train.true_labels is not None and data.validation.true_labels is None
    cut = prepare(source, validation="noisy", noise=PAIRFLIP, n_validation=30).validation
    assert np.bincount(cut.labels.numpy()).tolist() == [10, 10, 10]  # even by the noisy labels
    assert np.bincount((np.array(ids(cut)) - 1000) % 3).tolist() != [10, 10, 10]
    assert data.test.labels.tolist() == y[:30].tolist()


def test_three_given_splits_stay() -> None:
    x, y = numbered(30)
    names = ("train", "validation", "test")
    data = prepare({name: (x + 100 * i, y) for i, name in enumerate(names)})
    assert (data.validation.label_status, data.criterion) == ("unknown", "accuracy")
    assert [s.origin for s in (data.train, data.validation, data.test)] == list(names)
    assert (min(ids(data.validation)), len(data.validation)) == (100, 30)
    assert (min(ids(data.test)), len(data.test or ())) == (200, 30)


def test_too_few_samples_are_refused() -> None:
    x, y = numbered(4, 2)
    with pytest.raises(InputError, match=r"samples must be at least 5 to be cut .* got 4"):
        prepare((x, y))


def test_sizes_can_be_given() -> None:
    x, y = numbered(100)
    data = prepare((x, y), n_validation=7, n_test=0.25, limit=12)
    assert (len(data.train), len(data.validation), len(data.test or ())) == (12, 7, 25)
    assert torch.bincount(data.train.labels).min() >= 3  # stratified: 4 of each class, up to one
    assert prepare((x, y), n_test=0).test is None
    without_test = prepare({"train": (x, y), "validation": (x + 100, y)}, n_test=0)
    assert (len(without_test.validation), without_test.test) == (100, None)
    assert len(prepare((x, y), limit=1000).train) == 60
    assert not set(ids(data.train)) & set(ids(data.validation) + ids(data.test))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"n_validation": 0},
            r"n_validation must be a share in \(0, 1\) or a number in 1\.\.30, got 0",
        ),
        ({"n_validation": 31}, "n_validation must be .* got 31"),
        ({"n_test": -1}, "n_test must be .* got -1"),
        ({"n_test": 1.5}, "n_test must be .* got 1.5"),
        ({"n_test": float("nan")}, "n_test must be .* got nan"),
        (
            {"n_test": 29, "validation": "noisy"},
            "n_test must leave 2 of the 30 samples to train and to validate with, got 29; make",
        ),
        (
            {"n_validation": 15, "n_test": 15},
            r"n_validation \+ n_test must be at most the 30 samples",
        ),
        ({"limit": 0}, "limit must be at least 1, got 0"),
        ({"validation": "clean"}, "validation must be auto or noisy, got 'clean'"),
        ({"seed": -1}, "seed must be a whole number of at least 0, got -1"),
        ({"noise": Noise("matrix", path="gone.csv")}, "gone.csv: could not be read"),
        ({"noise": "asymmetric-mnist:0.4"}, "n_classes must be 10 for asymmetric-mnist, got 3"),
    ],
)
def test_refused_preparations(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        prepare(numbered(30), **options)


def test_noise_is_in_the_training_labels_only() -> None:
    x, y = numbered(2000)
    data = prepare((x, y), noise=PAIRFLIP, seed=3)
    assert data.noise_rate == pytest.approx(0.45, abs=0.05)
    assert data.noise == "pairflip:0.45"
    assert data.validation.label_status == "clean"
    assert data.train.true_labels is not None
    assert data.train.true_labels.tolist() == [i % 3 for i in ids(data.train)]
    assert set(((data.train.labels - data.train.true_labels) % 3).tolist()) == {0, 1}
    for split in (data.validation, data.test):
        assert split is not None
        assert split.labels.tolist() == [i % 3 for i in ids(split)]
    assert y.tolist() == (np.arange(2000) % 3).tolist()  # the array of the caller is unchanged


def test_held_out_labels_come_from_the_true_label_column(tmp_path: Path) -> None:
    names = {"label": ["a", "b", "c"]}
    columns = {"label": LABELS, "worse_label": LABELS[::-1]}
    write_parquet(tmp_path / "train-0.parquet", pixels(), columns, names)
    write_parquet(tmp_path / "test-0.parquet", pixels(4), {"label": [0, 1, 2, 0]}, names)
    data = prepare(tmp_path, label="worse_label", true_label="label")
    assert data.noise_rate == pytest.approx(2 / 3)
    assert data.validation.label_status == "clean"
    assert data.test is not None
    assert sorted([*data.validation.labels.tolist(), *data.test.labels.tolist()]) == [0, 0, 1, 2]
    assert prepare(tmp_path, label="label").noise_rate is None


def test_noise_may_depend_on_the_inputs() -> None:
    data = prepare("digits", noise="instance:0.4", seed=3)
    assert data.noise == "instance:0.4"
    assert data.noise_rate == pytest.approx(0.4, abs=0.075)  # 1079 samples, five deviations
    assert data.validation.label_status == "clean"
    assert data.fingerprint() == prepare("digits", noise="instance:0.4", seed=3).fingerprint()
    train = data.train
    assert train.true_labels is not None
    expected = Noise("instance", 0.4).corrupt_labels(
        train.true_labels.numpy(),
        train.inputs.numpy(),
        n_classes=10,
        rng=np.random.default_rng(derive_seed(3, "noise")),
    )
    assert train.labels.tolist() == expected.tolist()


# As in version 0.1.0. With other labels nobody could repeat old runs.
@pytest.mark.parametrize(
    ("noise", "labels"),
    [("symmetric:0.5", "013512457003486519680648"), ("pairflip:0.45", "024012457024466789160089")],
)
def test_seeds_give_the_noise_that_they_always_gave(noise: str, labels: str) -> None:
    train = prepare("digits", noise=noise, seed=0).train
    assert "".join(map(str, train.labels[:24].tolist())) == labels


# Likewise: the rows of each split, their order, the noise.
@pytest.mark.parametrize(
    ("options", "beginning"),
    [
        ({"seed": 0}, "991ee9c9e43b480d"),
        ({"seed": 7, "validation": "noisy"}, "6e57090dd02965ee"),
        ({"seed": 0, "noise": "pairflip:0.45"}, "7fb49aae04e05c9c"),
        (
            {"seed": 7, "noise": "symmetric:0.5", "limit": 40, "n_validation": 9, "n_test": 11},
            "4c15297c05c1a8f2",
        ),
        ({"seed": 0, "noise": "pairflip:0.45", "validation": "noisy"}, "edd36ef7662598a1"),
        (
            {
                "seed": 0,
                "noise": "symmetric:0.5",
                "validation": "noisy",
                "limit": 40,
                "n_validation": 0.1,
                "n_test": 0.2,
            },
            "26f12c3fae0c2b48",
        ),
    ],
)
def test_seeds_cut_as_they_always_did(options: dict[str, Any], beginning: str) -> None:
    assert prepare("digits", **options).fingerprint()[:16] == beginning


def test_the_seed_decides_split_and_noise() -> None:
    first, again, other = (prepare("digits", noise=PAIRFLIP, seed=s) for s in (0, 0, 1))
    assert first.fingerprint() == again.fingerprint()
    assert first.validation.rows.tolist() != other.validation.rows.tolist()
    held_out = {"train": numbered(300), "test": numbered(30)}
    first, other = (prepare(held_out, noise=PAIRFLIP, seed=s) for s in (0, 1))
    assert first.train.labels.tolist() != other.train.labels.tolist()
    # The noise has no influence on the cut: methods are compared on the same samples.
    clean = prepare("digits", seed=0)
    assert clean.validation.rows.tolist() == again.validation.rows.tolist()


def test_known_true_labels() -> None:
    x, true = numbered(50)
    noisy = (true + (np.arange(50) % 2)) % 3
    data = prepare((x, noisy, true), seed=0)
    assert data.noise_rate == pytest.approx(0.5, abs=0.1)
    assert data.validation.label_status == "clean"
    assert data.validation.labels.tolist() == [i % 3 for i in ids(data.validation)]
    assert data.train.labels.tolist() == [noisy[i] for i in ids(data.train)]
    with pytest.raises(InputError, match="noise must be none where the data have true labels"):
        prepare((x, noisy, true), noise=PAIRFLIP)
    assert prepare((x, noisy, true), noise=Noise()).noise_rate == data.noise_rate


def test_columns_belong_to_load() -> None:
    with pytest.raises(InputError, match="must go to load"):
        prepare(load_data("digits"), label="y")


def changed(data: Data, what: str) -> Data:
    tensor: Tensor = getattr(data.train, what).clone()
    tensor.view(-1)[7] = (tensor.view(-1)[7] + 1) % 3
    return Data(
        **{
            **{name: getattr(data, name) for name in ("validation", "test", "class_names", "name")},
            "train": Split(**{**vars(data.train), what: tensor}),
        }
    )


def test_the_fingerprint_sees_every_change() -> None:
    data = prepare(numbered(100), noise=PAIRFLIP)
    prints = {data.fingerprint(), prepare(numbered(100), noise=PAIRFLIP).fingerprint()}
    assert len(prints) == 1
    assert len(data.fingerprint()) == 64
    for what in ("inputs", "labels", "true_labels"):
        prints.add(changed(data, what).fingerprint())
    x, y = numbered(100)
    prints.add(prepare((x, np.array(list("abc"))[y]), noise=PAIRFLIP).fingerprint())
    prints.add(prepare(numbered(100), noise=PAIRFLIP, n_test=0).fingerprint())
    assert len(prints) == 6


def test_the_data_say_what_they_are() -> None:
    data = prepare("digits", noise=PAIRFLIP, limit=100)
    assert [len(split) for split in (data.train, data.validation, data.test)] == [100, 359, 359]
    assert (data.input_shape, data.n_classes, data.name) == ((1, 8, 8), 10, "digits")
    assert data.validation_from == "359 of the 1797 samples of the only split"


# Normaliser and batches ------------------------------------------------------------------------


def test_bytes_are_divided_by_255() -> None:
    x = input_tensor(pixels())
    normaliser = Normaliser.fit(x)
    batch = normaliser(x[:2])
    assert batch.dtype == torch.float32
    torch.testing.assert_close(batch, x[:2].double().div(255).float())
    assert x.dtype == torch.uint8


@pytest.mark.parametrize("shape", [(500, 3), (40, 3, 4, 5), (30, 3, 2, 2, 2)])
def test_floats_are_standardised(shape: tuple[int, ...]) -> None:
    spread = torch.tensor([1.0, 100.0, 1e-3]).view(1, 3, *[1] * (len(shape) - 2))
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * spread + 1000 * spread
    batch = Normaliser.fit(x)(x).transpose(0, 1).flatten(1)
    torch.testing.assert_close(batch.mean(1), torch.zeros(3), atol=1e-3, rtol=0)
    torch.testing.assert_close(batch.std(1, correction=0), torch.ones(3), atol=1e-3, rtol=0)


def test_constant_features_stay_small() -> None:
    x = torch.full((1000, 2), 0.1)
    x[::2, 1] = 0.3
    batch = Normaliser.fit(x)(x)
    assert batch[:, 0].abs().max() < 1e-6
    unseen = Normaliser.fit(x)(torch.tensor([[0.4, 0.2]]))  # constant only in training
    torch.testing.assert_close(unseen[0, 0], torch.tensor(0.3))
    assert batch[:, 1].abs().max() == pytest.approx(1, abs=1e-4)


def test_fitting_goes_piece_by_piece() -> None:
    x = torch.randn(3000, 1000, generator=torch.Generator().manual_seed(0))  # three pieces
    normaliser = Normaliser.fit(x)
    torch.testing.assert_close(torch.tensor(normaliser.mean), x.mean(0), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(torch.tensor(normaliser.scale), x.std(0, correction=0))


@pytest.mark.parametrize(
    "x", [input_tensor(pixels()), input_tensor(vectors()), torch.rand(5, 3, 4, 4)]
)
def test_normalisers_survive_json(x: Tensor) -> None:
    normaliser = Normaliser.fit(x)
    again = Normaliser.from_dict(json.loads(json.dumps(normaliser.to_dict())))
    assert again == normaliser
    assert torch.equal(again(x), normaliser(x))


@pytest.mark.parametrize(
    "values", [{}, {"kind": "other", "mean": [], "scale": [], "n_trailing": 0}, {"kind": "uint8"}]
)
def test_other_normalisers_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="normaliser must be"):
        Normaliser.from_dict(values)
    with pytest.raises(InputError, match="inputs must be"):
        Normaliser.fit(torch.empty(0, 3))


@given(st.integers(1, 60), st.data())
def test_an_epoch_holds_no_sample_twice(n: int, draw: st.DataObject) -> None:
    batch_size = draw.draw(st.integers(1, n))
    generator = torch.Generator().manual_seed(0)
    order = epoch_order(n, batch_size, generator)
    assert order.shape == (n // batch_size, batch_size)
    assert order.dtype == torch.int64
    assert len(order.unique()) == order.numel()
    assert order.min() >= 0
    assert order.max() < n


def test_epochs_differ_and_leave_out_all_samples_equally() -> None:
    generator = torch.Generator().manual_seed(0)
    epochs = [epoch_order(7, 3, generator) for _ in range(700)]
    assert not torch.equal(epochs[0], epochs[1])
    seen = torch.bincount(torch.cat([epoch.flatten() for epoch in epochs]), minlength=7)
    assert seen.min() > 550  # 600 each, standard deviation 9
    assert torch.equal(epochs[0], epoch_order(7, 3, torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("batch_size", [0, 8])
def test_batches_are_not_larger_than_the_data(batch_size: int) -> None:
    with pytest.raises(
        InputError, match=r"batch_size must be .*at most the number of training samples \(7\)"
    ):
        epoch_order(7, batch_size, torch.Generator())


def test_data_print_what_they_are_not_all_their_numbers(data):
    shown = repr(data)
    assert shown.startswith(f"Data('digits', noise='{data.noise}', 10 classes)")
    assert f"train: Split(inputs=[{len(data.train)}, " in shown
    assert len(shown.splitlines()) == 4 and "tensor" not in shown
