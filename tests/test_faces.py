"""What faces need of training: deep networks, cosines with a margin, augmentation, a metric."""

from __future__ import annotations

import math
import re
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own convention
from PIL import Image
from torch import Tensor, nn

import keeprate
from keeprate.cli import commands
from keeprate.data.samples import Data
from keeprate.engine import lockstep
from keeprate.engine.augmentation import Augmenter
from keeprate.engine.config import Augmentation, TrainingConfig
from keeprate.engine.embeddings import PairAccuracy, embed
from keeprate.engine.heads import AngularMargin, CosineLinear
from keeprate.engine.loop import train_population, train_step
from keeprate.engine.methods import get_method
from keeprate.engine.metrics import scored
from keeprate.engine.models import MODELS, resnet50
from keeprate.engine.networks import ModuleNetworks, StackedNetworks
from keeprate.engine.population import Candidate, new_population
from keeprate.engine.setup import make_setup
from keeprate.records.record import load_record
from keeprate.report.words import finding, noise_in_words
from keeprate.schedules import Schedule
from keeprate.searching.search_run import search
from keeprate.verification import Pairs, distances, standard_folds, verify
from tests.people import faces, pairs_of_strangers, search_on_pairs, some_people
from tests.searches import essence

CPU = torch.device("cpu")
CONFIG = TrainingConfig(epochs=3, batch_size=40, learning_rate=3e-3, precision="float32")

pytestmark = pytest.mark.usefixtures("no_page")


@pytest.fixture(scope="module")
def people() -> Data:
    return some_people()


@pytest.fixture(scope="module")
def strangers() -> Pairs:
    return pairs_of_strangers()


# Networks ---------------------------------------------------------------------------------------


def test_resnet50_has_torchvisions_names_and_shapes():
    module = resnet50((3, 112, 112), 1000)
    shapes = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    expected = {"conv1.weight": (64, 3, 7, 7), "fc.weight": (1000, 2048), "fc.bias": (1000,)}

    def norm(name: str, width: int) -> None:
        for part in ("weight", "bias", "running_mean", "running_var"):
            expected[f"{name}.{part}"] = (width,)
        expected[f"{name}.num_batches_tracked"] = ()

    norm("bn1", 64)
    before = 64
    for stage, (blocks, width) in enumerate(((3, 64), (4, 128), (6, 256), (3, 512)), start=1):
        for block in range(blocks):
            name = f"layer{stage}.{block}"
            for place, shape in enumerate(
                ((width, before, 1, 1), (width, width, 3, 3), (4 * width, width, 1, 1)), start=1
            ):
                expected[f"{name}.conv{place}.weight"] = shape
                norm(f"{name}.bn{place}", shape[0])
            if block == 0:
                expected[f"{name}.downsample.0.weight"] = (4 * width, before, 1, 1)
                norm(f"{name}.downsample.1", 4 * width)
            before = 4 * width
    assert shapes == expected
    assert sum(p.numel() for p in module.parameters()) == 25_557_032


def test_resnet50_computes_what_its_paper_says():
    torch.manual_seed(0)
    module = resnet50((3, 64, 64), 5).eval()
    weights = {name: tensor.double() for name, tensor in module.state_dict().items()}
    for name in list(weights):
        if name.endswith("running_mean"):  # statistics that a norm left out would change much
            weights[name] += 0.1
    module.load_state_dict(weights)
    x = torch.rand(2, 3, 64, 64, dtype=torch.float64)

    def norm(x: Tensor, name: str) -> Tensor:
        parts = (weights[f"{name}.{one}"] for one in ("running_mean", "running_var", "weight"))
        return F.batch_norm(x, *parts, weights[f"{name}.bias"])

    y = F.conv2d(x, weights["conv1.weight"], stride=2, padding=3)
    y = F.max_pool2d(norm(y, "bn1").relu(), 3, 2, 1)
    for stage, blocks in enumerate((3, 4, 6, 3), start=1):
        for block in range(blocks):
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            z = norm(F.conv2d(y, weights[f"{name}.conv1.weight"]), f"{name}.bn1").relu()
            z = F.conv2d(z, weights[f"{name}.conv2.weight"], stride=stride, padding=1)
            z = norm(z, f"{name}.bn2").relu()
            z = norm(F.conv2d(z, weights[f"{name}.conv3.weight"]), f"{name}.bn3")
            if block == 0:
                y = F.conv2d(y, weights[f"{name}.downsample.0.weight"], stride=stride)
                y = norm(y, f"{name}.downsample.1")
            y = (y + z).relu()
    expected = F.linear(y.mean((2, 3)), weights["fc.weight"], weights["fc.bias"])
    with torch.no_grad():
        torch.testing.assert_close(module.double()(x), expected)


@pytest.mark.parametrize("name", ["face-small", "model1", "resnet18-small", "mlp"])
def test_embeddings_are_the_inputs_of_the_last_layer_stacked_or_not(name):
    def build() -> nn.Module:
        return MODELS[name]((1, 16, 16), 4)

    stacked, alone = (cls(build, [1, 2], 2, CPU) for cls in (StackedNetworks, ModuleNetworks))
    x = torch.rand(3, 1, 16, 16)
    for networks in (stacked, alone):
        networks.train(False)
    with torch.no_grad():
        before = stacked(x)
        found, theirs = stacked.embeddings(x), alone.embeddings(x)
        torch.testing.assert_close(found, theirs)
        module = stacked.module(1, 0).eval()
        head = next(
            m for m in reversed(list(module.modules())) if isinstance(m, nn.Linear | CosineLinear)
        )
        torch.testing.assert_close(head(found[1, 0]), before[1, 0])
        assert torch.equal(stacked(x), before)  # the last layer is back


def test_a_cosine_network_needs_an_image_and_a_margin_needs_cosines(people):
    with pytest.raises(keeprate.InputError, match="face-small must be images"):
        MODELS["face-small"]((16,), 4)
    with pytest.raises(keeprate.InputError, match="margin must be 0 for a network whose logits"):
        make_setup(people, model="mlp", config=replace(CONFIG, margin=0.2), seed=0, out=None)
    setup = make_setup(
        people, model="face-small", config=replace(CONFIG, margin=0.2), seed=0, out=None
    )
    assert setup.margin == AngularMargin(0.2, 16.0)


# The margin -------------------------------------------------------------------------------------


def test_a_margin_widens_the_angle_to_the_label_alone():
    embeddings = F.normalize(torch.randn(50, 8, dtype=torch.float64), dim=-1)
    head = CosineLinear(8, 5, scale=30.0).double()
    logits, labels = head(embeddings), torch.randint(5, (50,))
    angles = torch.arccos(embeddings @ F.normalize(head.weight, dim=-1).T)
    rows = torch.arange(50)
    assert bool((angles[rows, labels] + 0.5 < math.pi).all())
    angles[rows, labels] += 0.5
    found = AngularMargin(0.5, 30.0)(logits, labels)
    torch.testing.assert_close(found, (30 * angles.cos()).float(), atol=2e-3, rtol=0)


def test_a_margin_never_rewards_a_wider_angle_and_has_a_gradient_at_every_angle():
    angle = torch.linspace(0, math.pi, 2001, dtype=torch.float64)
    logits = torch.stack([16 * angle.cos(), torch.zeros(2001)], -1).float().requires_grad_()
    target = AngularMargin(0.7, 16.0)(logits, torch.zeros(2001, dtype=torch.int64))[:, 0]
    assert bool((target.diff() <= 1e-4).all())
    target.sum().backward()
    gradient = logits.grad[:, 0]
    assert bool(gradient.isfinite().all())
    assert bool((gradient[5:-5] > 0).all())  # at the ends the cosine is clamped


def test_rules_select_by_the_loss_with_the_margin_and_compare_predictions_without(people):
    """One step by hand."""
    seen = {}

    def select(losses, logits, labels, keep_rate):
        seen.update(losses=losses, logits=logits)
        return torch.ones_like(losses)

    method = replace(get_method("co-teaching"), name="mine", select=select)
    networks = StackedNetworks(lambda: MODELS["face-small"]((1, 16, 16), 6), [1], 2, CPU)
    inputs, labels = people.train.inputs[:20].float() / 255, people.train.labels[:20]
    optimizer = torch.optim.SGD(networks.parameters(), lr=0.1)
    margin = AngularMargin(0.4, 16.0)
    *_, logits = train_step(
        networks, optimizer, method, inputs, labels, torch.ones(1), margin=margin
    )
    wide = margin(logits, labels).log_softmax(-1)
    expected = -wide.gather(-1, labels.expand(1, 2, -1)[..., None])[..., 0]
    torch.testing.assert_close(seen["losses"], expected)
    assert torch.equal(seen["logits"].detach(), logits)


def test_a_margin_goes_before_the_correction_of_the_labels(people):
    """With the matrix of no noise F-correction learns what Standard learns."""
    networks = StackedNetworks(lambda: MODELS["face-small"]((1, 16, 16), 6), [1], 1, CPU)
    inputs, labels = people.train.inputs[:20].float() / 255, people.train.labels[:20]
    optimizer = torch.optim.SGD(networks.parameters(), lr=0.0)
    margin, method = AngularMargin(0.4, 16.0), get_method("f-correction")
    both = [
        train_step(
            networks,
            optimizer,
            method,
            inputs,
            labels,
            torch.ones(1),
            transition_matrix=matrix,
            margin=margin,
        )[0]
        for matrix in (None, torch.eye(6)[None])
    ]
    torch.testing.assert_close(both[1], both[0], rtol=1e-4, atol=1e-5)


def test_the_matrix_of_f_correction_is_estimated_without_a_margin(people, monkeypatch):
    seen = []
    monkeypatch.setattr(
        lockstep, "train_population", lambda p, setup, **_: seen.append((setup, setup.margin))
    )
    config = replace(CONFIG, margin=0.2)
    setup = make_setup(people, model="face-small", config=config, seed=0, out=None)
    some = [Candidate(0, Schedule([1.0] * 3), get_method("f-correction"))]
    lockstep.train_candidates(some, setup, stream="test", after_group=lambda _: None)
    assert [margin for _, margin in seen] == [None, AngularMargin(0.2, 16.0)]


# Augmentation -----------------------------------------------------------------------------------


def test_an_augmented_image_is_a_shifted_or_mirrored_one():
    images = torch.randint(256, (40, 2, 5, 7), dtype=torch.uint8)
    augmenter = Augmenter(Augmentation(flip=True, crop=2), 40, (1, 6, 6), CPU)
    augmenter.draw(torch.Generator().manual_seed(0))
    index = torch.randperm(40)[:30]
    found = augmenter(images, index)
    seen = set()
    padded = F.pad(images.float(), (2, 2, 2, 2), mode="replicate").to(torch.uint8)
    for place, row in enumerate(index.tolist()):
        variants = {
            (down, right, flipped): window.flip(-1) if flipped else window
            for down in range(5)
            for right in range(5)
            for window in [padded[row, :, down : down + 5, right : right + 7]]
            for flipped in (False, True)
        }
        matches = [key for key, image in variants.items() if torch.equal(image, found[place])]
        assert len(matches) == 1
        seen.update(matches)
    assert len(seen) > 15
    assert len({key[2] for key in seen}) == 2
    assert {0, 4} <= {key[0] for key in seen}
    assert {0, 4} <= {key[1] for key in seen}


@pytest.mark.parametrize(("text", "flip", "crop"), [("flip", True, 0), ("crop:3", False, 3)])
def test_one_augmentation_alone(text, flip, crop):
    augmentation = Augmentation.parse(text)
    assert augmentation == Augmentation(flip, crop, 0.0)
    images = torch.randint(256, (30, 1, 6, 6), dtype=torch.uint8)
    augmenter = Augmenter(augmentation, 30, (1, 6, 6), CPU)
    augmenter.draw(torch.Generator().manual_seed(1))
    found = augmenter(images, torch.arange(30))
    kept = (found == images).flatten(1).all(1).sum()
    mirrored = (found == images.flip(-1)).flatten(1).all(1).sum()
    assert (kept + mirrored == 30 and 5 < kept < 25) if flip else (kept < 5 and mirrored == 0)


REFUSED_AUGMENTATIONS = [
    *("", "flop", "crop", "crop:0", "crop:65", "flip,flip", "flip:2"),
    *("noise", "noise:0", "noise:-1", "noise:nan", "noise:inf", "noise:1,noise:1"),
]


@pytest.mark.parametrize("text", REFUSED_AUGMENTATIONS)
def test_what_is_no_augmentation_is_refused(text):
    with pytest.raises(keeprate.InputError, match="augment must be none, or flip, crop:1 to"):
        TrainingConfig(augment=text)


def test_only_images_are_augmented():
    data = keeprate.prepare((torch.randn(50, 3).numpy(), [0, 1] * 25))
    with pytest.raises(keeprate.InputError, match="augment must be none or noise, as the"):
        make_setup(data, model="mlp", config=TrainingConfig(augment="flip"), seed=0, out=None)


def test_token_ids_get_no_noise_and_noises_stay_few():
    ids = {"train": (np.arange(200).reshape(50, 4) % 9, [0, 1] * 25)}
    data = keeprate.prepare(keeprate.data.load_data(ids, normalise="none"), n_test=0)

    def model(input_shape: tuple[int, ...], n_classes: int) -> nn.Module:
        return nn.Sequential(nn.Embedding(9, 3), nn.Flatten(), nn.Linear(12, n_classes))

    config = TrainingConfig(augment="noise:0.1")
    with pytest.raises(keeprate.InputError, match="augment must be without noise, as the inputs"):
        make_setup(data, model=model, config=config, seed=0, out=None)
    for n, shape, expected in ((40, (5,), 40), (5_000, (5,), 1_024), (5_000, (3, 2048, 2048), 1)):
        augmenter = Augmenter(Augmentation(noise=0.1), n, shape, torch.device("meta"))
        assert len(augmenter._noises) == expected


def test_noise_is_normal_and_drawn_for_each_sample_and_epoch():
    augmenter = Augmenter(Augmentation.parse("noise:0.3"), 5_000, (20,), CPU)
    generator, index = torch.Generator().manual_seed(0), torch.arange(5_000)
    inputs = torch.linspace(-1, 1, 20).expand(5_000, -1)
    assert augmenter(inputs, index).equal(inputs)  # raw inputs stay: noise is for normalised ones
    drawn = []
    for _ in range(2):
        augmenter.draw(generator)
        drawn.append(augmenter.noisy(inputs, index) - inputs)
    noise = drawn[0]
    assert noise.std(0).sub(0.3).abs().max() < 0.03 and noise.mean(0).abs().max() < 0.04
    assert float((noise.abs() > 0.6).float().mean()) == pytest.approx(0.0455, abs=0.01)
    assert not noise[0].equal(noise[1]) and not noise[0].equal(drawn[1][0])
    assert torch.corrcoef(noise.T).triu(1).abs().max() < 0.15
    some = torch.tensor([4, 0, 4])
    assert (augmenter.noisy(inputs[some], some) - inputs[some]).equal(drawn[1][some])


def test_all_candidates_get_the_same_noise():
    rng = np.random.default_rng(0)
    data = keeprate.prepare((rng.normal(size=(120, 4)), rng.integers(0, 2, 120)), n_test=0)

    def trained(augment: str, *table: list[float]) -> list[list[float]]:
        config = TrainingConfig(epochs=3, batch_size=32, augment=augment)
        setup = make_setup(data, model="mlp", config=config, seed=0, out=None)
        some = [Candidate(n, Schedule(r), get_method("co-teaching")) for n, r in enumerate(table)]
        population = new_population(some, setup, stream="test")
        train_population(population, setup, stream="test")
        return [population.curves[n].train_loss for n in range(len(table))]

    first, second = [1.0, 0.8, 0.6], [1.0, 0.7, 0.7]
    noisy = trained("noise:0.5", first, second)
    assert noisy != trained("none", first, second)
    # Alone as in company.
    assert trained("noise:0.5", first)[0] == pytest.approx(noisy[0], rel=1e-5)


def curves(data: Data, table: list[list[float]], epochs: int = 3, **changes: object) -> list:
    setup = make_setup(
        data, model="face-small", config=replace(CONFIG, **changes), seed=0, out=None
    )
    some = [Candidate(n, Schedule(r), get_method("co-teaching")) for n, r in enumerate(table)]
    population = new_population(some, setup, stream="test")
    train_population(population, setup, stream="test")
    return [population.curves[n].train_loss for n in range(len(table))]


def test_all_candidates_see_the_same_augmented_images_and_others_each_epoch(people):
    table = [[1.0, 0.8, 0.6], [1.0, 0.7, 0.7]]
    plain = curves(people, table)
    varied = curves(people, table, augment="flip,crop:2")
    assert varied[0] != plain[0]
    alone = curves(people, table[:1], augment="flip,crop:2")
    assert alone[0] == pytest.approx(varied[0], rel=1e-4)
    augmenter = Augmenter(Augmentation(crop=3), 100, (1, 6, 6), CPU)
    generator, drawn = torch.Generator().manual_seed(0), []
    for _ in range(2):
        augmenter.draw(generator)
        drawn.append(augmenter(people.train.inputs, torch.arange(100)))
    assert not torch.equal(*drawn)


# A metric ---------------------------------------------------------------------------------------


def test_the_metric_is_the_protocol_of_each_network(people, strangers):
    networks = StackedNetworks(lambda: MODELS["face-small"]((1, 16, 16), 6), [1, 2], 2, CPU)
    networks.train(False)
    normaliser = people.normaliser()
    found = PairAccuracy(strangers)(networks, normaliser)
    assert found.shape == (2, 2)
    folds = standard_folds(len(strangers))
    for candidate in range(2):
        for peer in range(2):
            module = networks.module(candidate, peer).eval()
            distance = distances(embed([module], strangers.images, normaliser), strangers)
            expected = verify(distance, strangers.same, folds).accuracy
            assert float(found[candidate, peer]) == pytest.approx(expected, abs=0.0101)


def test_a_search_goes_by_its_metric_and_looks_at_no_validation_label(people, strangers):
    options = {"budget": "4trials", "config": CONFIG, "model": "face-small", "baselines": False}
    run = search(people, metric=PairAccuracy(strangers), restarts=1, **options)
    assert run.record.data.criterion == "pair accuracy"
    by_number = {trial.number: trial.validation_score for trial in run.record.trials}
    assert all(0.5 < score <= 1 for scores in by_number.values() for score in scores)
    own = run.results[0].curves
    assert own.validation_accuracy == own.validation_score
    unlike = replace(people.validation, labels=people.validation.labels.roll(1))
    other = search(
        replace(people, validation=unlike), metric=PairAccuracy(strangers), restarts=1, **options
    )
    assert {t.number: t.validation_score for t in other.record.trials} == by_number
    assert other.results[0].curves.validation_score == own.validation_score
    assert "validation pair accuracy" in finding(run.record)


def test_a_run_goes_on_with_the_same_pairs_alone(people, strangers, tmp_path):
    options = {"config": CONFIG, "model": "face-small", "method": "mentornet", "out": tmp_path}
    metric = PairAccuracy(strangers)
    first = keeprate.train(people, schedule="constant", metric=metric, **options)
    again = keeprate.train(people, schedule="constant", metric=metric, **options)
    assert again.record == first.record
    others = PairAccuracy(replace(strangers, first=strangers.first.roll(1)))
    with pytest.raises(keeprate.InputError, match=r"metric\.held out"):
        keeprate.train(people, schedule="constant", metric=others, **options)
    with pytest.raises(keeprate.InputError, match="metric"):
        keeprate.train(people, schedule="constant", **options)


def test_pictures_in_bytes_are_scaled_for_networks_that_learnt_pixels_in_0_to_1(strangers):
    """(x - mean) / scale of the training pixels in [0, 1]; those of the pairs are bytes."""
    inputs, _ = faces(6, 4, seed=0)
    networks = StackedNetworks(lambda: MODELS["face-small"]((1, 16, 16), 6), [1], 1, CPU)
    networks.train(False)
    of_units = keeprate.data.Normaliser.fit(inputs / 255)
    assert of_units.pixels == "units"
    torch.testing.assert_close(of_units.for_bytes()(inputs), of_units(inputs / 255))
    metric = PairAccuracy(strangers)
    as_units = networks.embeddings(of_units(strangers.images / 255) + 0)
    as_bytes = networks.embeddings(of_units.for_bytes()(strangers.images))
    torch.testing.assert_close(as_bytes, as_units, rtol=1e-3, atol=1e-3)
    found = metric(networks, of_units)
    module = networks.module(0, 0).eval()
    distance = distances(embed([module], strangers.images, of_units.for_bytes()), strangers)
    expected = verify(distance, strangers.same, standard_folds(len(strangers))).accuracy
    assert float(found[0, 0]) == pytest.approx(expected, abs=0.0101)
    with pytest.raises(keeprate.InputError, match="the training inputs must be images"):
        metric(networks, keeprate.data.Normaliser.fit(10 * torch.randn(9, 1, 16, 16)))


def test_what_cannot_be_scored_is_refused_before_the_first_step(people, strangers):
    large = replace(strangers, images=strangers.images.repeat(1, 1, 2, 2))
    with pytest.raises(keeprate.InputError, match=r"images of the pairs must be \(1, 16, 16\)"):
        keeprate.train(people, model="face-small", config=CONFIG, metric=PairAccuracy(large))
    few = replace(
        strangers, first=strangers.first[:4], second=strangers.second[:4], same=strangers.same[:4]
    )
    with pytest.raises(keeprate.InputError, match="pairs must fill 10 folds"):
        PairAccuracy(few)

    def without_a_linear_layer() -> nn.Module:
        return nn.Sequential(nn.Conv2d(1, 6, 16), nn.Flatten())

    with pytest.raises(keeprate.InputError, match="model must have a linear layer"):
        keeprate.train(
            people, model=without_a_linear_layer, config=CONFIG, metric=PairAccuracy(strangers)
        )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"same": torch.ones(300, dtype=torch.bool)}, "pairs must be of both kinds, got 300 of"),
        ({"folds": torch.arange(300) % 10 + 1}, "folds must be two or more, numbered from 0"),
        ({"folds": torch.zeros(300, dtype=torch.int64)}, "folds must be two or more"),
    ],
)
def test_pairs_that_say_nothing_are_refused(strangers, changes, message):
    with pytest.raises(keeprate.InputError, match=message):
        replace(strangers, **changes)


def test_a_page_does_not_lay_the_choice_to_the_validation_samples(people, strangers):
    noisy = replace(people.validation, label_status="noisy")
    run = search(
        replace(people, validation=noisy),
        budget="2trials",
        config=replace(CONFIG, epochs=20),
        model="face-small",
        baselines=False,
        restarts=1,
        metric=PairAccuracy(strangers),
    )
    assert not [one for one in run.record.cautions if "validation sample" in one]
    assert "by predictions for held-out labels" in noise_in_words(run.record)


def test_a_run_does_not_go_on_with_other_scales_of_pixels(people, tmp_path):
    options = {"method": "standard", "schedule": "constant", "model": "mlp", "config": CONFIG}
    keeprate.train(people, out=tmp_path, **options)
    assert "normalise" not in load_record(tmp_path).config  # as in folders of before
    with pytest.raises(keeprate.InputError, match="normalise: None before, centred now"):
        keeprate.train(replace(people, normalise="centred"), out=tmp_path, **options)


class Mine:
    name = "mine"
    worst = -7.0

    def __init__(self, score: object) -> None:
        self.score = score

    def fingerprint(self) -> str:
        return "mine"

    def __call__(self, networks, normaliser, autocast=None):
        return self.score


@pytest.mark.parametrize(
    ("score", "message"),
    [
        (torch.zeros(2, 2), r"the metric mine must give a score for each network, \[2, 1\]"),
        (0.5, "got float"),
        (torch.tensor([[0.5], [2e6]]), "the metric mine must lie within a million either way"),
        (torch.tensor([[0.5], [-math.inf]]), "got -inf; scale it"),
    ],
)
def test_a_metric_that_gives_something_else_is_refused(score, message):
    networks = StackedNetworks(lambda: MODELS["mlp"]((1, 2, 2), 2), [1, 2], 1, CPU)
    with pytest.raises(keeprate.InputError, match=message):
        scored(Mine(score), networks, keeprate.data.Normaliser())


def test_a_score_that_is_no_number_counts_as_the_worst():
    networks = StackedNetworks(lambda: MODELS["mlp"]((1, 2, 2), 2), [1, 2], 1, CPU)
    found = scored(Mine(torch.tensor([[math.nan], [-3.5]])), networks, keeprate.data.Normaliser())
    assert found.score.tolist() == [[-7.0], [-3.5]]


KILLED = """
import os, signal, sys

folder, stage, at, root = sys.argv[1], sys.argv[2], float(sys.argv[3]), sys.argv[4]
sys.path.insert(0, root)
from tests.people import search_on_pairs

def progress(now, done, total, best):
    if now == stage and done >= at:
        os.kill(os.getpid(), signal.SIGKILL)

search_on_pairs(folder, progress)
"""


@pytest.mark.parametrize(("stage", "at"), [("search", 1.5), ("final training", 2)])
def test_a_killed_search_on_faces_goes_on_to_the_same_result(python, tmp_path, stage, at):
    script, root = tmp_path / "script.py", Path(__file__).parents[1]
    script.write_text(KILLED)
    killed = python(script, str(tmp_path / "killed"), stage, str(at), str(root))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not load_record(tmp_path / "killed").finished
    resumed = search_on_pairs(tmp_path / "killed")
    whole = search_on_pairs(tmp_path / "whole")
    assert essence(resumed.record) == essence(whole.record)
    for ours, theirs in zip(*(run.classifier.modules for run in (resumed, whole)), strict=True):
        for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
            assert torch.equal(a, b)


# Pixels and the command -------------------------------------------------------------------------


def test_centred_pixels_are_those_of_the_face_protocols():
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    inputs = pixels.repeat(10, 3, 1, 1)
    data = keeprate.prepare((inputs.numpy(), [0, 1] * 5), normalise="centred", n_validation=2)
    normaliser = data.normaliser()
    expected = (inputs.float() / 255 - 0.5) / 0.5
    torch.testing.assert_close(normaliser(inputs), expected)
    assert normaliser.pixels == "bytes"
    table = torch.tensor([[0.0], [255.0]] * 9)
    assert keeprate.data.Normaliser.fit(table).pixels == ""
    with pytest.raises(keeprate.InputError, match="normalise must be auto or none, as the inputs"):
        keeprate.prepare((torch.randn(10, 3).numpy(), [0, 1] * 5), normalise="centred")


def run_command(words: list[str]) -> int:
    """Run the command in this process; its exit code."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as stopped:
        patch.setattr(sys, "argv", ["keeprate", *words])
        commands.main()
    return int(stopped.value.code or 0)


def image_folders(place: Path) -> list[str]:
    """A folder a person, and a list of pairs of other people; what to type after the command."""
    inputs, labels = faces(8, 12, seed=4)
    lines = ["path_a,path_b,same"]
    for row, person in enumerate(labels.tolist()):
        group, own = ("train", person) if person < 5 else ("pairs", person)
        path = place / group / str(own) / f"{row % 12}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(inputs[row, 0].numpy()).save(path)
    for i in range(11):
        lines += [f"5/{i}.png,5/{i + 1}.png,1", f"6/{i}.png,7/{i + 1}.png,0"]
    (place / "pairs.csv").write_text("\n".join(lines))
    words = [str(place / "train"), "--pairs", str(place / "pairs.csv")]
    return [*words, "--pair-images", str(place / "pairs"), "--model", "face-small"]


def test_the_command_trains_faces_and_verifies_them(tmp_path, capsys):
    words = [*image_folders(tmp_path), "--epochs", "2", "--batch-size", "16", "--margin", "0.1"]
    words += ["--augment", "flip,crop:1", "--normalise", "centred", "--out", str(tmp_path / "run")]
    command = ["train", *words, "--method", "co-teaching", "--schedule", "constant"]
    assert run_command(command) == 0
    shown = capsys.readouterr()
    assert "validation" in shown.out and "pair accuracy" in shown.out
    record = load_record(tmp_path / "run")
    assert record.config["training"]["augment"] == "flip,crop:1"
    assert record.config["metric"]["name"] == record.data.criterion == "pair accuracy"
    assert run_command(["verify", str(tmp_path / "run"), *words[2:3], "--images", words[4]]) == 0
    assert "22 pairs" in capsys.readouterr().out


def test_the_splits_of_a_source_stay_where_pairs_choose(tmp_path):
    words = image_folders(tmp_path)
    whole = tmp_path / "whole"
    for split, people in (("train", "0123"), ("test", "0123")):
        for person in people:
            shutil.copytree(tmp_path / "train" / person, whole / split / person)
    more = ["--epochs", "1", "--batch-size", "16", "--schedule", "constant", "--quiet"]
    out = ["--method", "standard", "--out", str(tmp_path / "run")]
    assert run_command(["train", str(whole), *words[1:], *more, *out]) == 0
    record = load_record(tmp_path / "run")
    assert (record.data.n_train, record.data.n_validation, record.data.n_test) == (48, 24, 24)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--pair-images", "."], "pair_images must come with --pairs"),
        (
            ["--pairs", "nowhere.csv"],
            "pairs must be a file or a folder that exists, got 'nowhere.csv'",
        ),
        (["--pairs", "."], "pairs must be left out, as the inputs are no images"),
        (["--augment", "rotate"], "augment must be none, or flip, crop:1"),
        (["--margin", "2"], r"margin must lie in \[0, pi / 2\)"),
    ],
)
def test_what_no_face_training_can_use_is_refused_in_a_line(tmp_path, capsys, words, message):
    (tmp_path / "table.csv").write_text("a,label\n" + "1.5,x\n2.5,y\n" * 20)
    out = ["--out", str(tmp_path / "run")]
    assert run_command(["train", str(tmp_path / "table.csv"), *words, *out]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error)
    assert error.count("\n") == 1


def test_the_classifier_augments_images(people):
    images, labels = people.train.inputs.numpy(), people.train.labels.numpy()
    options = {"model": "face-small", "method": "mentornet", "schedule": "constant", "epochs": 2}
    curves = [
        keeprate.NoisyLabelClassifier(**options, augment=augment, random_state=0)
        .fit(images, labels)
        .history_["train_loss"]
        for augment in ("none", "flip")
    ]
    assert curves[0] != curves[1]


def test_a_metric_has_a_name_of_plain_words(people):
    mine = Mine(torch.zeros(1, 1))
    mine.name = "<b>$x$</b>"
    with pytest.raises(keeprate.InputError, match="the metric's name must be letters"):
        keeprate.train(people, model="mlp", config=CONFIG, metric=mine)


class ByWeights(Mine):
    """A metric of its own whose scores are far below 0: of another kind than an accuracy."""

    def __init__(self) -> None: ...

    def check(self, module, input_shape) -> None: ...

    def __call__(self, networks, normaliser, autocast=None):
        return -100 - networks.outputs(normaliser(self.inputs)).float().abs().mean((-2, -1))


def test_a_metric_below_zero_is_searched_recorded_and_drawn(people, tmp_path):
    mine = ByWeights()
    mine.inputs = people.train.inputs[:8]
    options = {"budget": "3trials", "config": CONFIG, "model": "mlp", "baselines": False}
    run = search(people, metric=mine, restarts=1, out=tmp_path, **options)
    record = load_record(tmp_path)  # refuses an accuracy outside of [0, 1]
    assert record == run.record and record.has_own_metric and not record.has_scorer
    values = {trial.value: trial.number for trial in record.trials}
    assert max(values) < -100 and record.finalists[0] == (values[max(values)],)
    keeprate.report.write_plots(record, tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "ends at a validation mine of -10" in page and "Validation mine, %" not in page
