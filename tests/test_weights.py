"""Weights of samples and classes: in the loss, never in the selection."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from sklearn.datasets import make_blobs
from sklearn.metrics import recall_score
from sklearn.utils.class_weight import compute_sample_weight
from torch import nn

import keeprate
from keeprate import InputError, NoisyLabelClassifier, TrainingConfig
from keeprate.cli import commands
from keeprate.data import Data, Loaded, Split, part, prepare
from keeprate.engine import lockstep, make_setup, new_population, train_step
from keeprate.engine.loop import train_population
from keeprate.engine.methods import METHODS, get_method
from keeprate.engine.models import mlp
from keeprate.engine.networks import ModuleNetworks, StackedNetworks
from keeprate.engine.population import Candidate
from keeprate.engine.weights import training_weights
from keeprate.records import load_record
from keeprate.schedules import Schedule

CONFIG = TrainingConfig(epochs=3, batch_size=32, learning_rate=3e-3, precision="float32")
CPU = torch.device("cpu")
RULES = sorted(METHODS.keys() - {"f-correction"})  # which selects as "standard" does


def blobs(n=256, seed=0, weights=None) -> Data:
    X, y = make_blobs(n, centers=4, n_features=6, cluster_std=4.0, random_state=seed)
    inputs, labels = torch.from_numpy(X).float(), torch.from_numpy(y)
    held = Split(inputs[-32:], labels[-32:])
    train = Split(inputs[:-32], labels[:-32], weights=weights)
    return Data(train, held, None, ("a", "b", "c", "d"))


def random_weights(n=224, seed=0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.exponential(size=n) * (rng.random(n) < 0.7))


def trained(data, methods=("co-teaching",), config=CONFIG, numbers=None, model="mlp"):
    """A population of one candidate for each method."""
    setup = make_setup(data, model=model, config=config, seed=0, out=None)
    numbers = range(len(methods)) if numbers is None else numbers
    rates = Schedule(np.linspace(1, 0.5, config.epochs))
    candidates = [
        Candidate(number, rates, get_method(m)) for number, m in zip(numbers, methods, strict=True)
    ]
    population = new_population(candidates, setup, stream="test")
    train_population(population, setup, stream="test")
    return population


def weights_of(population, candidate=0) -> dict[str, torch.Tensor]:
    peers = range(population.networks.n_peers)
    return {
        f"{peer}.{name}": tensor
        for peer in peers
        for name, tensor in population.networks.module(candidate, peer).state_dict().items()
    }


def same(first, second) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


# What a training makes of them -----------------------------------------------------------------


@pytest.mark.parametrize("method", [*RULES, "co-teaching-per-class"])
def test_equal_weights_change_no_bit(method):
    plain = weights_of(trained(blobs(), (method,)))
    for weight in (1.0, 0.3, 7e30):
        equal = torch.full((224,), weight, dtype=torch.float64)
        assert same(plain, weights_of(trained(blobs(weights=equal), (method,))))


def test_balanced_weights_of_equal_classes_change_no_bit():
    data = blobs()
    labels = torch.arange(224) % 4
    data = replace(data, train=replace(data.train, labels=labels))
    balanced = replace(CONFIG, class_weight="balanced")
    assert same(weights_of(trained(data)), weights_of(trained(data, config=balanced)))


@pytest.mark.parametrize("method", ["standard", "co-teaching", "jocor", "co-mining"])
def test_other_weights_change_the_training(method):
    plain = weights_of(trained(blobs(), (method,)))
    weighted = weights_of(trained(blobs(weights=random_weights()), (method,)))
    assert not same(plain, weighted)
    assert all(tensor.isfinite().all() for tensor in weighted.values())


def stepped(inputs, labels, weights=None, method="standard", keep_rate=1.0, shape=(6,)):
    """One step of plain gradient descent; the networks, and what the step returned."""
    networks = StackedNetworks(lambda: mlp(shape, 4), [1, 2], METHODS[method].n_networks, CPU)
    optimizer = torch.optim.SGD(networks.parameters(), lr=0.1)
    rates = torch.full((2,), keep_rate)
    returned = train_step(
        networks, optimizer, METHODS[method], inputs, labels, rates, sample_weights=weights
    )
    return networks, returned


def batch(n=16, shape=(6,), seed=0):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(n, *shape, generator=generator)
    return inputs, torch.randint(0, 4, (n,), generator=generator)


def test_weight_two_is_the_gradient_of_the_sample_twice():
    inputs, labels = batch()
    twice = torch.cat([torch.arange(16), torch.tensor([3, 5, 5])])
    expected, _ = stepped(inputs[twice], labels[twice])
    counts = torch.ones(16)
    counts[3], counts[5] = 2, 3
    found, _ = stepped(inputs, labels, counts)
    for one, other in zip(found.parameters(), expected.parameters(), strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-6)


def test_the_label_of_a_sample_without_weight_does_not_matter():
    inputs, labels = batch()
    counts = torch.ones(16)
    counts[::4] = 0
    found, _ = stepped(inputs, labels, counts)
    changed = labels.clone()
    changed[::4] = (labels[::4] + 1) % 4
    other, _ = stepped(inputs, changed, counts)
    without, _ = stepped(inputs[counts > 0], labels[counts > 0])
    for a, b, c in zip(found.parameters(), other.parameters(), without.parameters(), strict=True):
        assert torch.equal(a, b) and torch.allclose(a, c, rtol=0, atol=1e-6)


@pytest.mark.parametrize("method", [*RULES, "co-teaching-per-class"])
def test_the_selection_does_not_depend_on_weights(method):
    method = get_method(method)
    inputs, labels = batch(32)
    kept = []
    for counts in (None, torch.linspace(0, 5, 32)):
        networks = StackedNetworks(lambda: mlp((6,), 4), [1], method.n_networks, CPU)
        optimizer = torch.optim.SGD(networks.parameters(), lr=0.1)
        rate = torch.tensor([0.5])
        _, weights, _ = train_step(
            networks, optimizer, method, inputs, labels, rate, sample_weights=counts
        )
        kept.append(weights)
    assert torch.equal(*kept)


def test_the_loss_is_the_weighted_mean_over_the_selected():
    inputs, labels = batch()
    counts = torch.linspace(0, 3, 16)
    fresh = StackedNetworks(lambda: mlp((6,), 4), [1, 2], 1, CPU)
    module = fresh.module(1, 0)
    networks, (losses, kept, _) = stepped(inputs, labels, counts, "mentornet", keep_rate=0.5)
    chosen = kept[1, 0] > 0
    assert chosen.sum() == 8
    losses = F.cross_entropy(module(inputs[chosen]), labels[chosen], reduction="none")
    ((counts[chosen] * losses).sum() / counts[chosen].sum()).backward()
    trained = networks.module(1, 0)
    for parameter, after in zip(module.parameters(), trained.parameters(), strict=True):
        assert torch.allclose(parameter - 0.1 * parameter.grad, after, atol=1e-6)


@pytest.mark.parametrize("shape", [(6,), (800,)])  # of the large product only selected rows count
def test_a_batch_of_which_all_kept_samples_weigh_nothing_teaches_nothing(shape):
    inputs, labels = batch(128, shape)
    fresh = StackedNetworks(lambda: mlp(shape, 4), [1, 2], 1, CPU).parameters()
    networks, (losses, kept, _) = stepped(inputs, labels, torch.zeros(128), shape=shape)
    assert losses.isfinite().all() and bool((kept == 1).all())
    for before, after in zip(fresh, networks.parameters(), strict=True):
        assert torch.equal(before, after)


def test_weights_where_the_product_is_of_the_selected_rows_only():
    inputs, labels = batch(128, (800,))  # 128 * 800 * 256 multiplications: a large product
    counts = (torch.arange(128) % 3).float()
    found, _ = stepped(inputs, labels, counts, "mentornet", 0.5, shape=(800,))
    in_doubles = StackedNetworks(lambda: mlp((800,), 4).double(), [1, 2], 1, CPU)
    optimizer = torch.optim.SGD(in_doubles.parameters(), lr=0.1)
    rates = torch.full((2,), 0.5)
    train_step(
        in_doubles, optimizer, METHODS["mentornet"], inputs.double(), labels, rates,
        sample_weights=counts.double(),
    )  # fmt: skip
    for one, other in zip(found.parameters(), in_doubles.parameters(), strict=True):
        assert torch.allclose(one.double(), other, atol=1e-4)


def test_samples_without_weight_train_without_nan_for_whole_batches():
    weights = torch.zeros(224, dtype=torch.float64)
    weights[:5] = 1
    for method in ("standard", "co-teaching", "co-mining", "jocor"):
        population = trained(blobs(weights=weights), (method,))
        assert not population.failed
        assert all(tensor.isfinite().all() for tensor in weights_of(population).values())


# Lockstep --------------------------------------------------------------------------------------


def test_candidates_together_are_those_alone():
    data = blobs(weights=random_weights())
    methods = ("co-teaching", "jocor", "co-mining")
    together = trained(data, methods)
    for number, method in enumerate(methods):
        alone = weights_of(trained(data, (method,), numbers=(number,)))
        for name, tensor in weights_of(together, number).items():
            assert torch.allclose(tensor, alone[name], rtol=0, atol=1e-5)


class ByHand(nn.Module):
    """A network that vmap does not take."""

    def __init__(self, input_shape, n_classes):
        super().__init__()
        self.layers = mlp(input_shape, n_classes)

    def forward(self, x):
        logits = self.layers(x)
        return logits if logits.sum().item() < 1e9 else -logits


def test_stacked_networks_are_those_one_by_one():
    data = blobs(weights=random_weights())
    config = replace(CONFIG, class_weight="balanced")
    stacked = trained(data, ("co-teaching", "jocor"), config)
    one_by_one = trained(data, ("co-teaching", "jocor"), config, model=ByHand)
    assert isinstance(stacked.networks, StackedNetworks)
    assert isinstance(one_by_one.networks, ModuleNetworks)
    for candidate in (0, 1):
        found, expected = weights_of(stacked, candidate), weights_of(one_by_one, candidate)
        for a, b in zip(found.values(), expected.values(), strict=True):
            assert torch.allclose(a, b, rtol=0, atol=1e-4)


def test_the_matrix_of_f_correction_is_that_of_the_labels_without_weights():
    matrices = []
    for weights in (None, random_weights()):
        setup = make_setup(blobs(weights=weights), model="mlp", config=CONFIG, seed=0, out=None)
        finished = []
        lockstep.train_candidates(
            [Candidate(0, Schedule(np.ones(3)), get_method("f-correction"))],
            setup, stream="test", after_group=finished.append,
        )  # fmt: skip
        matrices.append(finished[0].transition_matrix)
    assert torch.equal(*matrices)


# Where they come from --------------------------------------------------------------------------


def test_weights_multiply_and_the_largest_is_one():
    labels = torch.tensor([0, 0, 0, 1, 1, 3])
    given = torch.tensor([1.0, 2.0, 0.0, 1.0, 4.0, 0.5])
    split = Split(torch.zeros(6, 1), labels, weights=given)
    expected = given.numpy() * compute_sample_weight("balanced", labels.numpy())
    found = training_weights(split, "balanced")
    assert found.dtype == torch.float32
    assert found.numpy() == pytest.approx(expected / expected.max())
    assert training_weights(replace(split, weights=None), None) is None


def test_weights_are_cut_with_their_samples():
    n = 60
    inputs = torch.arange(n).float()[:, None]
    weights = torch.arange(n).double() + 1
    loaded = Loaded(
        {"train": Split(inputs, torch.arange(n) % 3, weights=weights)}, ("a", "b", "c"), "x"
    )
    data = prepare(loaded, noise="symmetric:0.3", limit=20)
    for split in (data.train, data.validation, data.test):
        assert torch.equal(split.weights, split.inputs[:, 0].double() + 1)
    assert part(replace(data.train, weights=None), np.array([1, 2])).weights is None


def test_data_without_weights_keep_their_fingerprint():
    x, y = torch.arange(12.0).reshape(6, 2), torch.tensor([0, 1, 0, 1, 0, 1])
    data = Data(Split(x[:4], y[:4], y[:4]), Split(x[4:], y[4:]), None, ("a", "b"))
    before = "4e2af3f3a7a01b47ffd6df459188e2656f0687d4c74d9015b991311ab890a6eb"
    assert data.fingerprint() == before
    weighted = [replace(data, train=replace(data.train, weights=torch.tensor(w))) for w in
                ([1.0, 1, 1, 1], [1.0, 1, 1, 2])]  # fmt: skip
    assert len({before, *(one.fingerprint() for one in weighted)}) == 3


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ([1.0] * 3, r"weights must be \[224\], one for each sample, got shape \(3,\)"),
        ([1.0] * 223 + [-2.0], r"weights must be finite and at least 0, got -2\.0 among others"),
        ([1.0] * 223 + [float("nan")], r"finite and at least 0, got nan"),
        ([0.0] * 224, r"weights must be above 0 for a training sample, got zeros only"),
    ],
)
def test_bad_weights(weights, words):
    with pytest.raises(InputError, match=words):
        trained(blobs(weights=torch.tensor(weights)))


@pytest.mark.parametrize("bad", ["even", 2, {0: 1.0}, ["balanced"]])
def test_a_training_takes_balanced_only(bad):
    with pytest.raises(InputError, match="class_weight must be 'balanced' or left out"):
        TrainingConfig(class_weight=bad)


# A run, the command, the classifier ------------------------------------------------------------


@pytest.mark.usefixtures("no_page")
def test_a_run_does_not_go_on_with_other_weights(tmp_path):
    data, balanced = blobs(), replace(CONFIG, class_weight="balanced")
    first = keeprate.train(data, schedule="constant", config=balanced, out=tmp_path)
    assert load_record(tmp_path).config["training"]["class_weight"] == "balanced"
    again = keeprate.train(data, schedule="constant", config=balanced, out=tmp_path)
    assert again.record == first.record
    with pytest.raises(InputError, match=r"training\.class_weight: balanced before, None now"):
        keeprate.train(data, schedule="constant", config=CONFIG, out=tmp_path)
    weighted = blobs(weights=random_weights())
    with pytest.raises(InputError, match="data: other training weights than before"):
        keeprate.train(weighted, schedule="constant", config=balanced, out=tmp_path)


def keeprate_command(*arguments, capsys):
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as stopped:
        patch.setattr(sys, "argv", ["keeprate", *map(str, arguments)])
        commands.main()
    return stopped.value.code or 0, capsys.readouterr()


@pytest.mark.usefixtures("no_page")
def test_the_option_of_the_command(tmp_path, capsys):
    options = ["digits", "--epochs", 1, "--out", tmp_path / "run", "--class-weight"]
    code, _ = keeprate_command(
        "train", *options, "balanced", "--schedule", "constant", capsys=capsys
    )
    assert code == 0
    assert load_record(tmp_path / "run").config["training"]["class_weight"] == "balanced"
    code, output = keeprate_command("search", *options, "even", capsys=capsys)
    assert code == 2 and "class_weight must be 'balanced' or left out, got 'even'" in output.err


def imbalanced():
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(0, 1, (400, 2)), rng.normal(1.5, 1, (30, 2))])
    return X, np.repeat(["many", "rare"], [400, 30])


QUICK = {"schedule": "constant", "epochs": 20, "batch_size": 64, "learning_rate": 0.01,
         "random_state": 0}  # fmt: skip


def test_balanced_classes_find_more_of_the_rare_class():
    X, y = imbalanced()
    recall = {}
    for name, class_weight in (
        ("none", None), ("balanced", "balanced"), ("dict", {"rare": 13.0, "many": 1.0}),
    ):  # fmt: skip
        found = NoisyLabelClassifier(class_weight=class_weight, **QUICK).fit(X, y)
        recall[name] = recall_score(y, found.predict(X), pos_label="rare")
    assert recall["none"] < 0.75 < 0.9 < min(recall["balanced"], recall["dict"])


@pytest.mark.parametrize("kind", [list, np.array, pd.Series, torch.tensor])
def test_sample_weights_of_any_kind(kind):
    X, y = imbalanced()
    weights = [13.0 if label == "rare" else 1.0 for label in y]
    found = NoisyLabelClassifier(**QUICK).fit(X, y, sample_weight=kind(weights))
    expected = NoisyLabelClassifier(class_weight={"rare": 13.0, "many": 1.0}, **QUICK).fit(X, y)
    assert np.abs(found.predict_proba(X) - expected.predict_proba(X)).max() < 1e-5
    both = NoisyLabelClassifier(class_weight={"rare": 1 / 13, "many": 1.0}, **QUICK)
    plain = NoisyLabelClassifier(**QUICK).fit(X, y)
    difference = both.fit(X, y, sample_weight=kind(weights)).predict_proba(X)
    assert np.abs(difference - plain.predict_proba(X)).max() < 1e-5  # they multiply


def test_what_the_classifier_refuses():
    X, y = imbalanced()
    one = np.ones(len(y))
    for weights, words in (
        (one[:-1], r"sample_weight must be \[430\], one for each sample, got shape \(429,\)"),
        (one[:, None], r"sample_weight must be \[430\]"),
        (-one, "sample_weight must be finite and at least 0, got -1"),
        (0 * one, "sample_weight must be above 0"),
        (y, "sample_weight must hold numbers"),
    ):
        with pytest.raises(InputError, match=words):
            NoisyLabelClassifier(**QUICK).fit(X, y, sample_weight=weights)
    for class_weight, words in (
        ("even", "class_weight must be 'balanced'"),
        ({"many": -1.0, "rare": 1.0}, "class_weight must be finite and at least 0"),
        ({"mnay": 1.0}, "are not in class_weight"),
    ):
        with pytest.raises(ValueError, match=words):
            NoisyLabelClassifier(class_weight=class_weight, **QUICK).fit(X, y)


def test_a_search_takes_weights_too():
    X, y = imbalanced()
    options = QUICK | {"schedule": "auto", "budget": "2trials", "restarts": 1, "epochs": 8}
    found = NoisyLabelClassifier(class_weight="balanced", **options).fit(X, y)
    plain = NoisyLabelClassifier(**options).fit(X, y)
    rare = found.classes_.tolist().index("rare")
    assert found.predict_proba(X)[:, rare].mean() > 1.5 * plain.predict_proba(X)[:, rare].mean()
