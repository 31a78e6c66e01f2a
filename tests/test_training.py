"""The loop: learning rates, precision, memory, and a search against a plain PyTorch loop."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

import keeprate
from keeprate.data.preprocessing import Normaliser
from keeprate.engine.checkpoints import load_population, save_population
from keeprate.engine.config import TrainingConfig
from keeprate.engine.loop import epoch_order, sweep_tiny, train_population
from keeprate.engine.memory import bytes_per_network, fitting_candidates
from keeprate.engine.methods import get_method
from keeprate.engine.models import mlp
from keeprate.engine.population import Candidate, new_population
from keeprate.engine.setup import make_setup
from keeprate.noise.transition import estimate_transition_matrix
from keeprate.schedules import Schedule
from keeprate.seeding import derive_seed, forked_seed, torch_generator

# float32: some processors train in bfloat16 by themselves, whose rounding the tolerances exclude.
CONFIG = TrainingConfig(epochs=3, batch_size=64, learning_rate=3e-3, precision="float32")


@pytest.fixture(scope="module")
def data():
    return keeprate.prepare("digits", noise="symmetric:0.4", seed=0)


def setup(data, config=CONFIG, **options):
    return make_setup(data, model="mlp", config=config, seed=0, out=None, **options)


def population(data, table, config=CONFIG, numbers=None, methods=("co-teaching",), **options):
    table = np.asarray(table, dtype=float)
    numbers = range(len(table)) if numbers is None else numbers
    methods = methods if len(methods) == len(table) else methods * len(table)
    candidates = [
        Candidate(number, Schedule(rates), get_method(method))
        for number, rates, method in zip(numbers, table, methods, strict=True)
    ]
    return new_population(candidates, setup(data, config), stream="test", **options)


def run(data, people, config=CONFIG, **options):
    train_population(people, setup(data, config), stream="test", **options)
    return people


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


def test_a_population_equals_a_plain_loop_written_from_algorithm_1(data):
    """Co-teaching, two modules, two optimisers, index selection: the same accuracies."""
    table = np.array([[1.0, 0.7, 0.5], [1.0, 0.9, 0.8]])
    people = run(data, population(data, table))
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
            curves = people.curves[number]
            assert curves.validation_accuracy[epoch] == pytest.approx(
                float(sum(right)) / 2, abs=0.01
            )
            assert curves.label_precision[epoch] == pytest.approx(clean / kept, abs=0.01)
            assert curves.train_accuracy[epoch] == pytest.approx(fitted / len(order), abs=0.01)


def test_a_candidate_dropped_at_a_rung_leaves_the_others_as_they_were(data):
    table = [[1, 0.7, 0.5], [1, 0.9, 0.8], [1, 0.6, 0.6]]
    whole = run(data, population(data, table))
    rungs = []

    def drop(people):
        rungs.append(list(people.numbers))
        if people.epoch == 1:
            people.drop([1])

    fewer = run(data, population(data, table), after_epoch=drop)
    assert rungs == [[0, 1, 2], [0, 2], [0, 2]]
    assert len(fewer.curves[1].validation_accuracy) == 1
    for number in (0, 2):
        ours, theirs = whole.curves[number], fewer.curves[number]
        assert ours.validation_accuracy == pytest.approx(theirs.validation_accuracy, abs=0.01)
        assert ours.train_loss == pytest.approx(theirs.train_loss, rel=1e-3)


def test_methods_side_by_side_are_those_alone(data):
    config = replace(CONFIG, epochs=4)
    names = ("jocor", "co-teaching-plus", "decoupling", "co-mining", "co-teaching", "co-teaching")
    table = np.linspace([1.0] * 6, [0.3, 0.8, 1.0, 0.5, 0.7, 0.4], 4).T

    def drop(people):
        if people.epoch == 2:
            people.drop([2])

    together = population(data, table, config, methods=names)
    run(data, together, config, after_epoch=drop)
    assert [method.name for method in together.methods] == [*names[:2], *names[3:]]
    for number in (0, 1, 3, 4, 5):
        alone = population(
            data, table[[number]], config, numbers=[number], methods=(names[number],)
        )
        ours, theirs = together.curves[number], run(data, alone, config).curves[number]
        assert ours.train_loss == pytest.approx(theirs.train_loss, rel=2e-3)
        assert ours.label_precision == pytest.approx(theirs.label_precision, abs=0.01)
        assert ours.validation_accuracy == pytest.approx(theirs.validation_accuracy, abs=0.01)


def test_a_checkpoint_brings_everything_back(data, tmp_path):
    table = [[1, 0.7, 0.5], [1, 0.9, 0.8]]
    path = tmp_path / "population.safetensors"

    def save(people):
        if people.epoch == 2:
            save_population(path, people)

    whole = run(data, population(data, table, n_tracked=2), after_epoch=save)
    again = population(data, table, n_tracked=2)
    assert load_population(path, again) and again.epoch == 2
    run(data, again)
    assert torch.equal(again.log_probability, whole.log_probability)
    for number in (0, 1):
        assert again.curves[number].test_accuracy == whole.curves[number].test_accuracy
        assert again.curves[number].train_loss == whole.curves[number].train_loss
    others = population(data, table, numbers=[5, 6])
    assert not load_population(path, others) and others.epoch == 0


def test_tracked_probabilities_are_those_of_the_networks(data):
    config = replace(CONFIG, epochs=2, learning_rate=1e-12)  # weights stay
    people = run(data, population(data, [[1, 1]], config, n_tracked=1), config)
    seen = people.times_seen > 0
    x = Normaliser.fit(data.train.inputs)(data.train.inputs)
    people.networks.train(False)
    expected = people.networks(x).log_softmax(-1)[0].mean(0).detach()
    found = people.log_probability[0] / people.times_seen.clamp_min(1)[:, None]
    assert people.times_seen.max() == 1  # one epoch of the later half
    torch.testing.assert_close(found[seen], expected[seen], rtol=1e-3, atol=1e-5)


def test_the_first_ones_are_tracked_whoever_is_dropped(data):
    config = replace(CONFIG, epochs=4)
    table = np.linspace([1.0] * 4, [0.3, 0.8, 0.5, 0.7], 4).T

    def drop(people):
        if people.epoch == 3:
            people.drop([0, 3])

    whole = run(data, population(data, table, config, n_tracked=4), config)
    some = run(data, population(data, table, config, n_tracked=2), config, after_epoch=drop)
    assert some.numbers == [1, 2] and len(some.log_probability) == 1
    torch.testing.assert_close(
        some.log_probability[0], whole.log_probability[1], rtol=0.02, atol=0.02
    )


def test_true_labels_change_nothing_but_label_precision(data):
    table = [[1, 0.7, 0.5]]
    blind = replace(data, train=replace(data.train, true_labels=None))
    ours, theirs = (run(d, population(d, table)).curves[0] for d in (data, blind))
    assert ours.test_accuracy == theirs.test_accuracy and ours.train_loss == theirs.train_loss
    assert len(ours.label_precision) == 3 and theirs.label_precision == []


def test_f_correction_learns_the_true_labels_if_the_matrix_is_right(monkeypatch, tmp_path):
    """Pairflip 45 %: with the true matrix far better than Standard, with its transpose not."""
    from keeprate.engine import lockstep
    from keeprate.noise.kinds import pairflip

    data = keeprate.prepare("digits", noise="pairflip:0.45", seed=0)
    config = TrainingConfig(epochs=25, batch_size=64, learning_rate=3e-3, precision="float32")
    true = pairflip(10, 0.45)

    def last(method, matrix):
        monkeypatch.setattr(lockstep, "estimate_transition_matrix", lambda predicted: matrix)
        run = keeprate.train(data, schedule="constant", method=method, config=config)
        return run.record["results"][0]

    corrected, transposed = last("f-correction", true), last("f-correction", true.T)
    standard = last("standard", true)
    assert corrected["transition_error"] < 0.1
    accuracy = [r["last"]["test_accuracy"] for r in (corrected, standard, transposed)]
    assert accuracy[0] > accuracy[1] + 0.05 > accuracy[2]


def test_decoupling_starts_where_fresh_networks_agree(data):
    def constant(input_shape, n_classes):
        network = mlp(input_shape, n_classes)
        for parameter in network[-1].parameters():
            torch.nn.init.zeros_(parameter)
        return network

    options = {"schedule": "constant", "method": "decoupling", "config": CONFIG}
    last = keeprate.train(data, model=constant, **options).record["results"][0]["last"]
    assert last["validation_accuracy"] > 0.3


def test_f_correction_estimates_from_what_a_standard_network_predicts(data, monkeypatch):
    from keeprate.engine import lockstep

    seen = []

    def spy(predicted):
        seen.append(predicted)
        return estimate_transition_matrix(predicted)

    monkeypatch.setattr(lockstep, "estimate_transition_matrix", spy)
    run = keeprate.train(data, schedule="constant", method="f-correction", config=CONFIG)
    result = run.record["results"][0]
    assert seen[0].shape == (len(data.train), 10) and len(seen) == 1
    agreement = (seen[0].argmax(1) == data.train.labels.numpy()).mean()
    assert agreement > 0.3  # trained on the labels as given: chance is 0.1
    matrix = np.array(result["transition_matrix"])
    assert matrix == pytest.approx(estimate_transition_matrix(seen[0]), abs=1e-6)
    assert result["transition_error"] > 0


class StoppedError(Exception):
    pass


@pytest.mark.parametrize("after", [1, 4])  # within the first training; within the second
def test_f_correction_resumes_with_its_matrix(data, tmp_path, monkeypatch, after):
    from keeprate.engine import lockstep

    config = replace(CONFIG, epochs=3)
    options = {"schedule": "constant", "method": "f-correction", "config": config}
    whole = keeprate.train(data, **options).record["results"][0]
    saved = []

    def save(path, population):
        save_population(path, population)
        saved.append(path.name)
        if len(saved) == after:
            raise StoppedError

    with monkeypatch.context() as patch, pytest.raises(StoppedError):
        patch.setattr(lockstep, "save_population", save)
        keeprate.train(data, out=tmp_path, checkpoint_seconds=0, **options)
    second = after > 3
    assert saved[-1] == f"checkpoint-final-f-correction-0{'' if second else '-first'}.safetensors"
    if second:  # the matrix is not estimated anew
        monkeypatch.setattr(lockstep, "estimate_transition_matrix", None)
    again = keeprate.train(data, out=tmp_path, **options).record["results"][0]
    assert again["transition_matrix"] == whole["transition_matrix"]
    assert again["curves"] == whole["curves"]


def test_dropping_a_candidate_keeps_the_matrices_of_the_others(data, tmp_path):
    people = population(data, [[1, 1, 1]] * 3)
    people.transition_matrix = torch.rand(3, 10, 10)
    kept = people.transition_matrix[[0, 2]].clone()
    people.drop([1])
    assert torch.equal(people.transition_matrix, kept)
    save_population(tmp_path / "p.safetensors", people)
    again = population(data, [[1, 1, 1]] * 3)
    assert load_population(tmp_path / "p.safetensors", again)
    assert torch.equal(again.transition_matrix, kept) and again.numbers == [0, 2]


def test_each_epoch_has_the_rule_of_its_time(data, monkeypatch):
    from keeprate.engine import loop

    used, step = [], loop.train_step

    def spy(networks, optimizer, method, *rest):
        used.append(method.select.__name__)
        return step(networks, optimizer, method, *rest)

    monkeypatch.setattr(loop, "train_step", spy)
    keeprate.train(data, schedule="constant", method="co-teaching-plus", config=CONFIG)
    per_epoch = len(used) // 3
    assert used[:per_epoch] == ["co_teaching"] * per_epoch  # 10 % of 3 epochs: at least one
    assert used[per_epoch:] == ["co_teaching_plus"] * 2 * per_epoch


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "rmsprop"])
def test_an_optimiser_s_averages_do_not_become_denormal_numbers(data, optimizer):
    config = replace(CONFIG, epochs=80, optimizer=optimizer)

    def without_the_first_unit(people):
        for parameter in people.networks.parameters():
            if parameter.shape[1:] == (256,):
                parameter.data[:, 0] = -1e6  # a bias that no sample makes up for

    people = run(
        data, population(data, [[1] * 80], config), config, after_epoch=without_the_first_unit
    )
    averages = [
        value
        for state in people.optimizer.state.values()
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


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_gpu_trains_as_the_cpu_does(data):
    table = [[1, 0.7, 0.5], [1, 0.9, 0.8]]
    ours = run(data, population(data, table))
    config = replace(CONFIG, device="cuda", precision="float32")
    theirs = run(data, population(data, table, config), config)
    for number in (0, 1):
        assert ours.curves[number].test_accuracy == pytest.approx(
            theirs.curves[number].test_accuracy, abs=0.02
        )
