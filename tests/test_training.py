"""The engine: its setup, a population against a plain PyTorch loop, checkpoints, groups, memory."""

from __future__ import annotations

import gc
import hashlib
import io
import json
import math
import weakref
from dataclasses import asdict, replace
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

import keeprate
from keeprate.data import Normaliser
from keeprate.engine import lockstep, loop, meter
from keeprate.engine.checkpoints import load_population, save_population
from keeprate.engine.config import CHOICES, TrainingConfig
from keeprate.engine.curves import Curves, EpochMetrics
from keeprate.engine.evaluation import Scores, evaluate
from keeprate.engine.folds import Folds
from keeprate.engine.lockstep import train_candidates
from keeprate.engine.loop import epoch_order, sweep_tiny, train_population
from keeprate.engine.memory import bytes_per_network, fitting_candidates
from keeprate.engine.methods import get_method
from keeprate.engine.models import get_model, mlp, resolve_model
from keeprate.engine.optimizers import OPTIMIZERS, make_optimizer
from keeprate.engine.population import Candidate, new_population
from keeprate.engine.progress import TextProgress, score_in_words
from keeprate.engine.setup import make_setup
from keeprate.noise import (
    count_pairs,
    determinant_score,
    empirical_transition_matrix,
    estimate_transition_matrix,
    pairflip,
    transition_error,
)
from keeprate.schedules import Schedule
from keeprate.seeding import derive_seed, forked_seed, torch_generator
from tests.test_architecture import loaded_after

# float32: some processors train in bfloat16 by themselves, whose rounding the tolerances exclude.
CONFIG = TrainingConfig(epochs=3, batch_size=64, learning_rate=3e-3, precision="float32")


@pytest.fixture(scope="module")
def data():
    return keeprate.prepare("digits", noise="symmetric:0.4", seed=0)


def setup(data, config=CONFIG, **options):
    return make_setup(data, **{"model": "mlp", "config": config, "seed": 0, "out": None} | options)


def fresh_population(data, table, config=CONFIG, numbers=None, methods=("co-teaching",), **options):
    table = np.asarray(table, dtype=float)
    numbers = range(len(table)) if numbers is None else numbers
    methods = methods if len(methods) == len(table) else methods * len(table)
    candidates = [
        Candidate(number, Schedule(rates), get_method(method))
        for number, rates, method in zip(numbers, table, methods, strict=True)
    ]
    return new_population(candidates, setup(data, config), stream="test", **options)


def run(data, population, config=CONFIG, **options):
    train_population(population, setup(data, config), stream="test", **options)
    return population


def train_alone(data, method, config=CONFIG, **options):
    """Train one candidate of a method to the end, as final trainings do; keeps all samples."""
    finished = []
    train_candidates(
        [Candidate(0, Schedule(np.ones(config.epochs)), get_method(method))],
        setup(data, config, **options),
        stream=f"final-{method}",
        keep_checkpoints=True,
        after_group=finished.append,
    )
    (population,) = finished
    return population


def test_auto_is_a_small_cnn_for_images_of_16_pixels_and_a_perceptron_for_all_else(data):
    shapes = {(3, 32, 32): "model1", (1, 16, 16): "model1", (1, 16, 15): "mlp", (784,): "mlp"}
    assert {shape: resolve_model("auto", shape) for shape in shapes} == shapes
    assert resolve_model("model3", (784,)) == "model3"
    resolved = setup(data, model="auto")
    assert resolved.model_name == "mlp" and resolved.model is mlp
    assert str(get_model("auto")((3, 32, 32), 10)) == str(get_model("model1")((3, 32, 32), 10))
    with pytest.raises(keeprate.InputError, match="face-small, face-resnet50 or package"):
        setup(data, model="model4")


def test_a_setup_takes_progress_as_a_switch_or_as_a_callable(data):
    def show(stage, done, total, best):
        raise AssertionError

    assert isinstance(setup(data, progress=True).progress, TextProgress)
    assert setup(data, progress=False).progress is setup(data).progress is None
    assert setup(data, progress=show).progress is show


def test_progress_is_a_line_at_the_start_every_ten_seconds_and_at_the_end():
    now, stream = 0.0, io.StringIO()
    progress = TextProgress(stream, clock=lambda: now)
    for second in range(26):
        now = float(second)
        progress("search", second, 25, score_in_words(second / 25, "accuracy") if second else None)
    progress("search", 25, 25, None)  # told twice that it is over
    progress("final training", 0, 2, None)
    progress("final training", 2, 2, score_in_words(0.5, "determinant"))
    assert stream.getvalue().splitlines() == [
        "search: 0 %",
        "search: 40 %, best validation accuracy 40.0 %",
        "search: 80 %, best validation accuracy 80.0 %",
        "search: 100 %, best validation accuracy 100.0 %",
        "final training: 0 %",
        "final training: 100 %, best validation score 0.500",
    ]


def test_progress_goes_to_standard_error(capsys):
    TextProgress()("search", 1, 4, None)
    assert capsys.readouterr() == ("", "search: 25 %\n")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("epochs", 2.5),
        ("batch_size", True),
        ("batch_size", "64"),
        ("learning_rate", 0),
        ("learning_rate", math.inf),
        ("learning_rate", "0.1"),
        ("weight_decay", -1e-4),
        ("momentum", 1),
        ("optimizer", "lamb"),
        ("precision", "float16"),
        ("learning_rate_schedule", "step"),
    ],
)
def test_a_config_refuses_what_no_training_can_use(name, value):
    with pytest.raises(keeprate.InputError, match=f"{name} must .*, got {value!r}; "):
        TrainingConfig(**{name: value})


def test_a_config_takes_numpy_s_numbers_as_python_s():
    numbers = {"epochs": np.int64(3), "batch_size": np.int32(8), "learning_rate": np.float32(0.5)}
    config = TrainingConfig(**numbers)
    assert config == TrainingConfig(epochs=3, batch_size=8, learning_rate=0.5)
    assert json.loads(json.dumps(asdict(config)))["batch_size"] == 8


def test_a_config_is_checked_before_pytorch_loads():
    assert "torch" not in loaded_after("import keeprate; keeprate.TrainingConfig(epochs=3)")
    assert set(OPTIMIZERS) == set(CHOICES["optimizer"])


PYTORCHS = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
    "rmsprop": torch.optim.RMSprop,
}


@pytest.mark.parametrize("name", PYTORCHS)
def test_an_optimiser_steps_as_pytorchs_does(name):
    config = TrainingConfig(optimizer=name, weight_decay=0.01)
    plain = PYTORCHS[name]
    found = []
    for of_pytorch in (False, True):
        weights, bias = (torch.linspace(-1, 1, n).requires_grad_() for n in (40, 3))
        ours = make_optimizer([weights, bias], config)
        options = {k: v for k, v in ours.defaults.items() if k not in ("decoupled_weight_decay",)}
        optimizer = plain([weights, bias], **options) if of_pytorch else ours

        def learn(optimizer, steps, weights=weights, bias=bias):
            for step in range(steps):
                optimizer.zero_grad()
                loss = weights.pow(3).sum()
                if step != 3:  # then a parameter has no gradient
                    loss = loss + bias.pow(3).sum()
                loss.backward()
                optimizer.step()

        learn(optimizer, 7)
        again = type(optimizer)([weights, bias], **options)
        learn(again, 2)
        again.load_state_dict(optimizer.state_dict())
        learn(again, 2)
        for state in again.state.values():  # as a checkpoint is loaded
            state |= {name: value.clone() for name, value in state.items()}
        learn(again, 2)
        found.append(torch.cat([weights, bias]).detach())
    assert torch.equal(*found)


def test_training_imports_no_compiler(tmp_path):
    """It takes more than a second, at each start."""
    code = (
        "import keeprate; from keeprate import TrainingConfig\n"
        "data = keeprate.prepare('digits', noise='symmetric:0.2', limit=200)\n"
        "options = {'config': TrainingConfig(epochs=2, batch_size=50), 'checkpoint_seconds': 0}\n"
        f"keeprate.train(data, schedule='constant', out={str(tmp_path / 'run')!r}, **options)\n"
        "assert 'torch._dynamo' not in __import__('sys').modules"
    )
    assert "torch" in loaded_after(code)


def test_the_paper_s_learning_rate():
    config = TrainingConfig(epochs=200)
    rates = [config.learning_rate_at(epoch) for epoch in range(200)]
    assert rates[:81] == [0.001] * 81
    assert rates[140] == pytest.approx(0.0005)
    assert rates[199] == pytest.approx(0.001 / 120)
    assert np.diff(rates[80:]) == pytest.approx(-0.001 / 120)
    cosine = TrainingConfig(epochs=10, learning_rate_schedule="cosine")
    assert cosine.learning_rate_at(5) == pytest.approx(0.0005)
    constant = TrainingConfig(epochs=10, learning_rate_schedule="constant")
    assert constant.learning_rate_at(9) == 0.001
    steps = TrainingConfig(epochs=8, learning_rate=1.0, learning_rate_schedule="steps")
    rates = [steps.learning_rate_at(epoch) for epoch in range(8)]
    assert rates == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01])
    warm = TrainingConfig(
        epochs=8, learning_rate=1.0, learning_rate_schedule="constant", warmup_epochs=3
    )
    rates = [warm.learning_rate_at(epoch) for epoch in range(8)]
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1, 1, 1])
    # A warm-up lowers what the schedule says, whatever that is.
    both = replace(warm, learning_rate_schedule="steps", warmup_epochs=5)
    assert both.learning_rate_at(4) == pytest.approx(0.1 * 5 / 6)


def test_a_warm_up_as_long_as_the_training_is_refused(data):
    config = TrainingConfig(epochs=5, warmup_epochs=5)
    with pytest.raises(keeprate.InputError, match="fewer than the 5 epochs, got 5"):
        make_setup(data, model="mlp", config=config, seed=0, out=None)
    # The warm-up of a shorter training, to estimate noise say, is as large a share of it.
    whole = replace(config, epochs=40, warmup_epochs=10, learning_rate_schedule="constant")
    short = whole.shortened(8)
    assert (short.epochs, short.warmup_epochs) == (8, 2)
    assert short.learning_rate_at(2) == whole.learning_rate_at(10) == 0.001
    assert whole.shortened(1).learning_rate_at(0) == 0.001


def test_a_population_equals_a_plain_loop_written_from_algorithm_1(data):
    """Co-teaching, two modules, two optimisers, index selection: the same accuracies."""
    table = np.array([[1.0, 0.7, 0.5], [1.0, 0.9, 0.8]])
    population = run(data, fresh_population(data, table))
    normaliser, train = Normaliser.fit(data.train.inputs), data.train
    for number in (0, 1):
        nets, optimizers = [], []
        for peer in range(2):
            with forked_seed(derive_seed(derive_seed(0, "test", number), "weights", peer)):
                nets.append(mlp(data.input_shape, data.n_classes))
            optimizers.append(torch.optim.Adam(nets[-1].parameters()))
        for epoch in range(3):
            for optimizer in optimizers:
                optimizer.param_groups[0]["lr"] = CONFIG.learning_rate_at(epoch)
            order = epoch_order(len(train), 64, torch_generator(0, "test", "order", 0, epoch))
            kept, clean, fitted = 0, 0, 0.0
            for index in order:
                x, y = normaliser(train.inputs[index]), train.labels[index]
                outputs = [net(x) for net in nets]
                fitted += sum(float((out.argmax(1) == y).float().mean()) for out in outputs) / 2
                n_keep = int(table[number, epoch] * 64 + 1e-6)
                chosen = [
                    F.cross_entropy(out, y, reduction="none").argsort()[:n_keep] for out in outputs
                ]
                for out, optimizer, other in zip(outputs, optimizers, chosen[::-1], strict=True):
                    optimizer.zero_grad()
                    F.cross_entropy(out[other], y[other]).backward()
                    optimizer.step()
                    kept += n_keep
                    clean += int((train.true_labels[index][other] == y[other]).sum())
            with torch.no_grad():
                right = [
                    (net(normaliser(data.validation.inputs)).argmax(1) == data.validation.labels)
                    .float()
                    .mean()
                    for net in nets
                ]
            curves = population.curves[number]
            assert curves.validation_accuracy[epoch] == pytest.approx(
                float(sum(right)) / 2, abs=0.01
            )
            assert curves.label_precision[epoch] == pytest.approx(clean / kept, abs=0.01)
            assert curves.train_accuracy[epoch] == pytest.approx(fitted / len(order), abs=0.01)


@pytest.mark.parametrize("criterion", ["accuracy", "determinant"])
def test_a_split_is_evaluated_in_one_pass(data, criterion):
    population = fresh_population(data, [[1.0, 0.7, 0.5], [1.0, 0.9, 0.8]])
    normaliser = Normaliser.fit(data.train.inputs)
    batches = []

    class Counting:
        n_candidates, n_peers = 2, 2

        def __call__(self, inputs):
            batches.append(len(inputs))
            return population.networks(inputs)

    scores = evaluate(Counting(), data.train, normaliser, criterion)
    assert batches == [1000, len(data.train) - 1000]
    predicted = population.networks(normaliser(data.train.inputs)).argmax(-1)
    assert torch.equal(scores.accuracy, (predicted == data.train.labels).float().mean(-1))
    expected = scores.accuracy
    if criterion == "determinant":
        expected = determinant_score(count_pairs(predicted, data.train.labels, 10))
    assert scores.score.shape == (2, 2) and torch.equal(scores.score, expected)


def test_a_fingerprint_is_that_of_numbers_and_keep_rates(data):
    table = np.array([[1.0, 0.7, 0.5], [1.0, 0.9, 0.8]])
    expected = hashlib.sha256(b"[4, 7]" + table.tobytes()).hexdigest()
    assert fresh_population(data, table, numbers=[4, 7]).fingerprint == expected


def test_a_schedule_of_another_length_is_refused(data):
    with pytest.raises(keeprate.InputError, match="each of the 3 epochs, got 2; "):
        fresh_population(data, [[1.0, 0.5]])


def test_curves_give_back_what_was_appended():
    curves = Curves()
    measured = [EpochMetrics(1, 2.0, 0.1, 0.2, 0.3, 0.4, 0.5), EpochMetrics(2, *[0.6] * 6)]
    for metrics in measured:
        curves.append(metrics)
    assert [curves.at(epoch) for epoch in (1, 2)] == measured and len(curves) == 2
    blind = EpochMetrics(1, 2.0, 0.1, 0.2, 0.3, None, None)
    curves = Curves()
    curves.append(blind)
    assert curves.at(1) == blind and curves.test_accuracy == curves.label_precision == []


def test_a_candidate_dropped_at_a_rung_leaves_the_others_as_they_were(data):
    table = [[1, 0.7, 0.5], [1, 0.9, 0.8], [1, 0.6, 0.6]]
    whole = run(data, fresh_population(data, table))
    rungs = []

    def drop(population):
        rungs.append(list(population.numbers))
        if population.epoch == 1:
            population.drop([1])

    fewer = run(data, fresh_population(data, table), after_epoch=drop)
    assert rungs == [[0, 1, 2], [0, 2], [0, 2]]
    assert len(fewer.curves[1].validation_accuracy) == 1
    for number in (0, 2):
        ours, theirs = whole.curves[number], fewer.curves[number]
        assert ours.validation_accuracy == pytest.approx(theirs.validation_accuracy, abs=0.01)
        assert ours.train_loss == pytest.approx(theirs.train_loss, rel=1e-3)


@pytest.mark.parametrize("augment", ["none", "flip,crop:1,noise:0.1"])
def test_inputs_scaled_once_are_inputs_scaled_in_each_batch(data, monkeypatch, augment):
    """The same numbers, bit by bit; digits are pixels in 0..16, scaled by mean and deviation."""
    config, found, means = replace(CONFIG, augment=augment), [], []
    take = loop.Augmenter.__call__

    def heard(self, inputs, index):
        means.append(inputs.mean().item())
        return take(self, inputs, index)

    monkeypatch.setattr(loop.Augmenter, "__call__", heard)
    for most in (loop.MOST_SCALED, 0):
        monkeypatch.setattr(loop, "MOST_SCALED", most)
        population = run(data, fresh_population(data, [[1.0, 0.8, 0.6]], config), config)
        found.append((means[-1], population.networks.state(), population.curves[0].train_loss))
    (scaled, state, losses), (raw, other, other_losses) = found
    assert raw > 1 > abs(scaled)  # the second takes the inputs as they are
    assert losses == other_losses
    assert all(torch.equal(state[name], other[name]) for name in state)


def test_methods_side_by_side_are_those_alone(data):
    config = replace(CONFIG, epochs=4)
    names = ("jocor", "co-teaching-plus", "decoupling", "co-mining", "co-teaching", "co-teaching")
    table = np.linspace([1.0] * 6, [0.3, 0.8, 1.0, 0.5, 0.7, 0.4], 4).T

    def drop(population):
        if population.epoch == 2:
            population.drop([2])

    together = fresh_population(data, table, config, methods=names)
    run(data, together, config, after_epoch=drop)
    assert [method.name for method in together.methods] == [*names[:2], *names[3:]]
    for number in (0, 1, 3, 4, 5):
        alone = fresh_population(
            data, table[[number]], config, numbers=[number], methods=(names[number],)
        )
        ours, theirs = together.curves[number], run(data, alone, config).curves[number]
        assert ours.train_loss == pytest.approx(theirs.train_loss, rel=2e-3)
        assert ours.label_precision == pytest.approx(theirs.label_precision, abs=0.01)
        assert ours.validation_accuracy == pytest.approx(theirs.validation_accuracy, abs=0.01)


def test_a_checkpoint_brings_everything_back(data, tmp_path):
    table = [[1, 0.7, 0.5], [1, 0.9, 0.8]]
    path = tmp_path / "population.safetensors"

    def save(population):
        if population.epoch == 2:
            save_population(path, population)

    whole = run(data, fresh_population(data, table, n_tracked=2), after_epoch=save)
    again = fresh_population(data, table, n_tracked=2)
    assert load_population(path, again) and again.epoch == 2
    run(data, again)
    assert torch.equal(again.log_probability, whole.log_probability)
    for number in (0, 1):
        assert again.curves[number].test_accuracy == whole.curves[number].test_accuracy
        assert again.curves[number].train_loss == whole.curves[number].train_loss
    others = fresh_population(data, table, numbers=[5, 6])
    assert not load_population(path, others) and others.epoch == 0


@pytest.mark.parametrize("most", [1, 5, 32])
@pytest.mark.parametrize("has_folds", [False, True])
def test_a_meter_measures_sample_by_sample(data, monkeypatch, most, has_folds):
    """Against sums over single samples, whatever number of steps is added up at once."""
    monkeypatch.setattr(meter, "MOST_AT_ONCE", most)
    n_steps, size, n = 13, 7, 13 * 7
    train = replace(
        data.train,
        inputs=data.train.inputs[:n],
        labels=data.train.labels[:n],
        true_labels=data.train.true_labels[:n],
        rows=data.train.rows[:n],
    )
    generator = torch.Generator().manual_seed(0)
    order = epoch_order(n, size, generator)
    drawn = torch.randn(n_steps, 2, 3, size, 10, generator=generator)
    losses = torch.rand(n_steps, 2, 3, size, generator=generator)
    weights = (torch.rand(n_steps, 2, 3, size, generator=generator) > 0.5).float()
    folds = Folds(
        torch.arange(n) % 3, torch.arange(n) % 4 > 0, *[torch.empty(0, 0, 0, 10)] * 2, None, None
    )
    population = SimpleNamespace(
        numbers=[4, 9],
        keep_rates=torch.empty(0),
        networks=SimpleNamespace(n_peers=3),
        log_probability=torch.zeros(2, n, 10),
        times_seen=torch.zeros(n),
        folds=folds if has_folds else None,
    )
    measure = meter.EpochMeter(population, train, size, tracks=True)
    for step, index in enumerate(order):
        measure.add(index, train.labels[index], losses[step], weights[step], drawn[step])
    measure.add_up()
    scores = Scores(torch.zeros(2, 3), torch.zeros(2, 3))
    found = measure.measured(1, n_steps, scores, None).read()
    tracked, pairs = torch.zeros(2, n, 10), torch.zeros(2, 2)  # right ones and all that are judged
    for place, number in enumerate((4, 9)):
        right, kept, kept_right = 0, 0, 0
        for step, sample in product(range(n_steps), range(size)):
            row = int(order[step, sample])
            label, logits = int(train.labels[row]), drawn[step, place, :, sample]
            is_true = label == int(train.true_labels[row])
            for peer in range(3):
                right += int(logits[peer].argmax()) == label
                kept += int(weights[step, place, peer, sample])
                kept_right += is_true * int(weights[step, place, peer, sample])
            if not has_folds:
                tracked[place, row] = logits.log_softmax(-1).mean(0)
                continue
            tracked[place, row] = logits[row % 3].log_softmax(-1)
            if row % 4:
                pairs[place] += torch.tensor([int(logits[row % 3].argmax()) == label, 1])
        metrics = found[number]
        assert metrics.train_accuracy == pytest.approx(right / (3 * n))
        assert metrics.label_precision == pytest.approx(kept_right / kept)
        assert metrics.train_loss == pytest.approx(losses[:, place].mean().item(), rel=1e-5)
    torch.testing.assert_close(population.log_probability, tracked)
    assert population.times_seen.tolist() == [1.0] * n
    held_out = measure.held_out_scores("accuracy")
    if has_folds:
        torch.testing.assert_close(held_out.accuracy[:, 0], pairs[:, 0] / pairs[:, 1])
    else:
        assert held_out is None


def test_tracked_probabilities_are_those_of_the_networks(data):
    config = replace(CONFIG, epochs=2, learning_rate=1e-12)  # weights stay
    population = run(data, fresh_population(data, [[1, 1]], config, n_tracked=1), config)
    seen = population.times_seen > 0
    x = Normaliser.fit(data.train.inputs)(data.train.inputs)
    population.networks.train(False)
    expected = population.networks(x).log_softmax(-1)[0].mean(0).detach()
    found = population.log_probability[0] / population.times_seen.clamp_min(1)[:, None]
    assert population.times_seen.max() == 1  # one epoch of the later half
    torch.testing.assert_close(found[seen], expected[seen], rtol=1e-3, atol=1e-5)


def test_the_first_ones_are_tracked_whoever_is_dropped(data):
    config = replace(CONFIG, epochs=4)
    table = np.linspace([1.0] * 4, [0.3, 0.8, 0.5, 0.7], 4).T

    def drop(population):
        if population.epoch == 3:
            population.drop([0, 3])

    whole = run(data, fresh_population(data, table, config, n_tracked=4), config)
    some = run(data, fresh_population(data, table, config, n_tracked=2), config, after_epoch=drop)
    assert some.numbers == [1, 2] and len(some.log_probability) == 1
    torch.testing.assert_close(
        some.log_probability[0], whole.log_probability[1], rtol=0.02, atol=0.02
    )


def test_true_labels_change_nothing_but_label_precision(data):
    table = [[1, 0.7, 0.5]]
    blind = replace(data, train=replace(data.train, true_labels=None))
    ours, theirs = (run(d, fresh_population(d, table)).curves[0] for d in (data, blind))
    assert ours.test_accuracy == theirs.test_accuracy and ours.train_loss == theirs.train_loss
    assert len(ours.label_precision) == 3 and theirs.label_precision == []


def matrix_error(population, data):
    """How far the estimated transition matrix is from the measured one."""
    estimated = population.transition_matrix[0].double().numpy()
    labels, true_labels = data.train.labels.numpy(), data.train.true_labels.numpy()
    return transition_error(estimated, empirical_transition_matrix(labels, true_labels, 10))


def test_f_correction_learns_the_true_labels_if_the_matrix_is_right(monkeypatch):
    """Pairflip 45 %: with the true matrix far better than Standard, with its transpose not."""
    data = keeprate.prepare("digits", noise="pairflip:0.45", seed=0)
    config = TrainingConfig(epochs=25, batch_size=64, learning_rate=3e-3, precision="float32")
    true = pairflip(10, 0.45)

    def trained(method, matrix):
        monkeypatch.setattr(lockstep, "estimate_transition_matrix", lambda predicted: matrix)
        return train_alone(data, method, config)

    corrected, transposed = trained("f-correction", true), trained("f-correction", true.T)
    standard = trained("standard", true)
    assert matrix_error(corrected, data) < 0.1
    accuracy = [p.curves[0].test_accuracy[-1] for p in (corrected, standard, transposed)]
    assert accuracy[0] > accuracy[1] + 0.05 > accuracy[2]


def test_decoupling_starts_where_fresh_networks_agree(data):
    def constant(input_shape, n_classes):
        network = mlp(input_shape, n_classes)
        for parameter in network[-1].parameters():
            torch.nn.init.zeros_(parameter)
        return network

    curves = train_alone(data, "decoupling", model=constant).curves[0]
    assert curves.validation_accuracy[-1] > 0.3


def test_f_correction_estimates_from_what_a_standard_network_predicts(data, monkeypatch):
    seen = []

    def spy(predicted):
        seen.append(predicted)
        return estimate_transition_matrix(predicted)

    monkeypatch.setattr(lockstep, "estimate_transition_matrix", spy)
    population = train_alone(data, "f-correction")
    assert seen[0].shape == (len(data.train), 10) and len(seen) == 1
    agreement = (seen[0].argmax(1) == data.train.labels.numpy()).mean()
    assert agreement > 0.3  # trained on the labels as given: chance is 0.1
    matrix = population.transition_matrix[0].numpy()
    assert matrix == pytest.approx(estimate_transition_matrix(seen[0]), abs=1e-6)
    assert matrix_error(population, data) > 0


class StoppedError(Exception):
    pass


@pytest.mark.parametrize("after", [1, 4])  # within the first training; within the second
def test_f_correction_resumes_with_its_matrix(data, tmp_path, monkeypatch, after):
    whole = train_alone(data, "f-correction")
    saved = []

    def save(path, population):
        save_population(path, population)
        saved.append(path.name)
        if len(saved) == after:
            raise StoppedError

    with monkeypatch.context() as patch, pytest.raises(StoppedError):
        patch.setattr(lockstep, "save_population", save)
        train_alone(data, "f-correction", out=tmp_path, checkpoint_seconds=0)
    second = after > 3
    assert saved[-1] == f"checkpoint-final-f-correction-0{'' if second else '-first'}.safetensors"
    if second:  # the matrix is not estimated anew
        monkeypatch.setattr(lockstep, "estimate_transition_matrix", None)
    again = train_alone(data, "f-correction", out=tmp_path)
    assert torch.equal(again.transition_matrix, whole.transition_matrix)
    assert replace(again.curves[0], seconds=0.0) == replace(whole.curves[0], seconds=0.0)


def test_dropping_a_candidate_keeps_the_matrices_of_the_others(data, tmp_path):
    population = fresh_population(data, [[1, 1, 1]] * 3)
    population.transition_matrix = torch.rand(3, 10, 10)
    kept = population.transition_matrix[[0, 2]].clone()
    population.drop([1])
    assert torch.equal(population.transition_matrix, kept)
    save_population(tmp_path / "p.safetensors", population)
    again = fresh_population(data, [[1, 1, 1]] * 3)
    assert load_population(tmp_path / "p.safetensors", again)
    assert torch.equal(again.transition_matrix, kept) and again.numbers == [0, 2]


def test_each_epoch_has_the_rule_of_its_time(data, monkeypatch):
    used, step = [], loop.train_step

    def spy(networks, optimizer, method, *arguments):
        used.append(method.select.__name__)
        return step(networks, optimizer, method, *arguments)

    monkeypatch.setattr(loop, "train_step", spy)
    train_alone(data, "co-teaching-plus")
    per_epoch = len(used) // 3
    assert used[:per_epoch] == ["co_teaching"] * per_epoch  # 10 % of 3 epochs: at least one
    assert used[per_epoch:] == ["co_teaching_plus"] * 2 * per_epoch


def test_out_of_memory_halves_the_group(data, monkeypatch):
    sizes, new = [], lockstep.new_population

    def small(candidates, *arguments, **options):
        sizes.append(len(candidates))
        if len(candidates) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return new(candidates, *arguments, **options)

    monkeypatch.setattr(lockstep, "new_population", small)
    config = replace(CONFIG, epochs=1)
    candidates = [Candidate(i, Schedule([1.0]), get_method("standard")) for i in range(5)]
    finished, limit = [], 2
    options = {
        "stream": "test",
        "after_group": lambda population: finished.extend(population.numbers),
    }
    train_candidates(candidates, setup(data, config), **options)
    assert sizes == [5, 2, 2, 1] and finished == [0, 1, 2, 3, 4]
    sizes.clear()
    limit = 0
    with pytest.raises(keeprate.InputError, match="one candidate alone does not fit in memory"):
        train_candidates(candidates[:3], setup(data, config), **options)
    assert sizes == [3, 1]


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "rmsprop"])
def test_an_optimiser_s_averages_do_not_become_denormal_numbers(data, optimizer):
    config = replace(CONFIG, epochs=80, optimizer=optimizer)

    def without_the_first_unit(population):
        for parameter in population.networks.parameters():
            if parameter.shape[1:] == (256,):
                parameter.data[:, 0] = -1e6  # a bias that no sample makes up for

    population = run(
        data, fresh_population(data, [[1] * 80], config), config, after_epoch=without_the_first_unit
    )
    averages = [
        value
        for state in population.optimizer.state.values()
        for name, value in state.items()
        if name in ("exp_avg", "momentum_buffer")
    ]
    assert len(averages) == 4
    for average in averages:
        assert (average != 0).any()
        assert not ((average != 0) & (average.abs() < torch.finfo().tiny)).any()


def test_a_sweep_leaves_all_else_as_it_is():
    parameter = torch.zeros(6, requires_grad=True)
    optimizer = torch.optim.SGD([parameter], momentum=0.9)
    optimizer.state[parameter]["momentum_buffer"] = torch.tensor(
        [1.0, -1e-30, -1e-33, 1e-40, math.nan, math.inf]
    )
    sweep_tiny(optimizer)
    left = optimizer.state[parameter]["momentum_buffer"].tolist()
    assert left == pytest.approx(
        [1.0, -1e-30, 0, 0, math.nan, math.inf], rel=1e-6, abs=0, nan_ok=True
    )


@pytest.mark.parametrize(
    ("cost", "every", "saved_after"),
    [(0.01, 60, 1), (0.5, 60, 10), (10, 60, 60), (10, 5, 5), (0.01, 0, 0.25)],
)
def test_checkpoints_are_as_frequent_as_they_are_cheap(
    data, tmp_path, monkeypatch, cost, every, saved_after
):
    """An epoch takes a quarter of a second; the first checkpoint tells what one costs."""
    now, saved = [0.0], []

    def save(path, population):
        now[0] += cost
        saved.append(now[0])

    monkeypatch.setattr(lockstep, "save_population", save)
    monkeypatch.setattr(lockstep.time, "perf_counter", lambda: now[0])
    saver = lockstep._Saver(tmp_path / "c.safetensors", every)
    for _ in range(600):
        now[0] += 0.25
        saver(None, at_once=False)
    assert saved[0] == pytest.approx(min(every, lockstep.SOONEST) + cost, abs=0.26)
    pauses = np.diff(saved) - cost
    assert len(saved) > 2 and np.allclose(pauses, saved_after, atol=0.26)
    before = len(saved)
    saver(None, at_once=True)
    assert len(saved) == before + 1


def test_the_empty_name_is_no_folder(data):
    with pytest.raises(keeprate.InputError, match="out must name a folder, got ''"):
        setup(data, out="")


def test_the_estimate_of_memory_keeps_no_network():
    built = []

    def build():
        module = mlp((784,), 10)
        built.extend(weakref.ref(parameter) for parameter in module.parameters())
        return module

    assert bytes_per_network(build, torch.zeros(16, 784)) > 0
    gc.collect()
    assert built and all(parameter() is None for parameter in built)


def test_memory_grows_with_the_batch_and_fits_at_least_one():
    def build():
        return mlp((784,), 10)

    small, large = (bytes_per_network(build, torch.zeros(n, 784)) for n in (16, 4096))
    parameters = 4 * sum(p.numel() for p in build().parameters())
    assert small > 4 * parameters
    assert large - small > 4096 * 256 * 4
    huge = torch.nn.Linear(10, 10)
    assert (
        fitting_candidates(lambda: huge, torch.zeros(1, 10), n_peers=2, device=torch.device("cpu"))
        > 1000
    )


@pytest.mark.parametrize(
    ("model", "batch_size", "precision", "expected"),
    [
        ("perceptron", 32, "auto", "float32"),  # casts would cost more than they save
        ("perceptron", 33, "auto", "auto"),
        ("perceptron", 32, "bfloat16", "bfloat16"),
        ("model1", 32, "auto", "auto"),
    ],
)
def test_perceptrons_take_float32_for_small_batches(model, batch_size, precision, expected):
    images = np.random.default_rng(0).integers(0, 256, (60, 3, 32, 32), dtype=np.uint8)
    one = (images, np.arange(60) % 3)
    data = keeprate.prepare({"train": one, "validation": one, "test": one})
    config = TrainingConfig(batch_size=batch_size, precision=precision, device="cpu")
    setup = make_setup(data, model=model, config=config, seed=0, out=None)
    assert setup.config.precision == expected
