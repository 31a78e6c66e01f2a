"""What must hold on a GPU as on a CPU. Each test runs on both; without a GPU, on the CPU alone."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import keeprate
from keeprate.data import Split
from keeprate.engine import graphs, lockstep, loop, networks
from keeprate.engine.checkpoints import load_population, save_population
from keeprate.engine.config import TrainingConfig
from keeprate.engine.embeddings import PairAccuracy
from keeprate.engine.folds import Supervision
from keeprate.engine.layers import dropout_masks
from keeprate.engine.lockstep import train_candidates
from keeprate.engine.memory import bytes_per_network, fitting_candidates
from keeprate.engine.methods import cross_fitted, get_method
from keeprate.engine.models import get_model, mlp
from keeprate.engine.networks import ModuleNetworks, StackedNetworks, convolution_flops
from keeprate.engine.population import Candidate, new_population
from keeprate.engine.setup import make_setup
from keeprate.schedules import Schedule
from tests.people import pairs_of_strangers, some_people

HAS_GPU = torch.cuda.is_available()
CUDA = pytest.param(
    "cuda",
    marks=[pytest.mark.gpu, pytest.mark.skipif(not HAS_GPU, reason="no GPU here")],
)
on_each_device = pytest.mark.parametrize("device", ["cpu", CUDA])
on_a_gpu = pytest.mark.parametrize("device", [CUDA])
on_each_device_with_models = pytest.mark.parametrize(
    ("model", "device"),
    [
        *((model, "cpu") for model in ("perceptron", "model1")),
        *(
            pytest.param(model, "cuda", marks=CUDA.marks)
            for model in ("mlp", "perceptron", "model1", "model2")  # which takes a CPU minutes
        ),
    ],
)

CONFIG = TrainingConfig(epochs=4, batch_size=64, learning_rate=3e-3, precision="float32")
TABLE = np.linspace([1.0] * 3, [0.4, 0.6, 0.8], 4).T


@pytest.fixture(scope="module")
def data():
    return keeprate.prepare("digits", noise="symmetric:0.4", seed=0)


@pytest.fixture(scope="module")
def images():
    """Two hundred pictures of 32 x 32 pixels: a bright quarter tells the class."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(4, (200,), generator=generator)
    inputs = torch.rand(200, 3, 32, 32, generator=generator) * 0.5
    for row, label in enumerate(labels.tolist()):
        top, left = 16 * (label // 2), 16 * (label % 2)
        inputs[row, :, top : top + 16, left : left + 16] += 0.5
    digits = keeprate.prepare("digits", noise="symmetric:0.4", seed=0)
    split = Split(inputs, labels)
    return replace(digits, train=split, validation=split, test=None)


def setup(data, config, **options):
    return make_setup(data, **{"model": "mlp", "config": config, "seed": 0, "out": None} | options)


def candidates(methods=("co-teaching",) * 3, table=TABLE):
    pairs = enumerate(zip(table, methods, strict=True))
    return [Candidate(n, Schedule(rates), get_method(method)) for n, (rates, method) in pairs]


def trained(data, config, some=None, *, after_epoch=None, population=None, **options):
    """A population at the end of its training."""
    ready = setup(data, config, **options)
    if population is None:
        population = new_population(some or candidates(), ready, stream="test", n_tracked=2)
    loop.train_population(population, ready, stream="test", after_epoch=after_epoch)
    return population


def on(device, config=CONFIG, **changes):
    return replace(config, device=device, **changes)


def agree(ours, theirs, *, loss=5e-3, accuracy=0.02, numbers=None):
    """Whether two populations trained alike, within the rounding of other kernels."""
    for number in ours.curves if numbers is None else numbers:
        a, b = ours.curves[number], theirs.curves[number]
        assert a.train_loss == pytest.approx(b.train_loss, rel=loss, abs=loss)
        assert a.validation_accuracy == pytest.approx(b.validation_accuracy, abs=accuracy)
        assert a.test_accuracy == pytest.approx(b.test_accuracy, abs=accuracy)
        assert a.label_precision == pytest.approx(b.label_precision, abs=accuracy)


METHODS = (
    ("co-teaching", "co-teaching-plus", "co-mining"),
    ("decoupling", "jocor", "co-teaching-per-class"),
)


@pytest.mark.parametrize(
    ("device", "methods", "optimizer"),
    [
        ("cpu", METHODS[0], "adam"),
        *(
            pytest.param("cuda", methods, optimizer, marks=CUDA.marks)
            for methods in METHODS
            for optimizer in ("adam", "sgd", "rmsprop")
        ),
    ],
)
def test_a_gpu_trains_as_the_cpu_does(data, device, methods, optimizer):
    config = replace(CONFIG, optimizer=optimizer, learning_rate=1e-3)
    ours = trained(data, on("cpu", config), candidates(methods))
    theirs = trained(data, on(device, config), candidates(methods))
    agree(ours, theirs, loss=0.02, accuracy=0.03)
    assert theirs.keep_rates.device.type == device
    tracked = theirs.log_probability.cpu()
    assert (tracked - ours.log_probability).abs().mean() < 0.05  # a sample may change sides
    assert torch.equal(theirs.times_seen.cpu(), ours.times_seen)


@on_each_device_with_models
def test_stacked_networks_train_as_networks_one_by_one(images, device, model, monkeypatch):
    config = on(device, epochs=2, batch_size=50, learning_rate=1e-3)
    table = [[1.0, 0.7], [1.0, 0.9]]
    monkeypatch.setattr(networks, "LARGE_CONVOLUTIONS", torch.inf)
    some = candidates(("co-teaching",) * 2, table)
    stacked = trained(images, config, some, model=model)
    assert isinstance(stacked.networks, StackedNetworks)
    monkeypatch.setattr(networks, "_try_to_stack", _refuse)
    alone = trained(images, config, some, model=model)
    assert isinstance(alone.networks, ModuleNetworks)
    agree(stacked, alone, loss=0.02, accuracy=0.05)


def _refuse(*arguments):
    raise RuntimeError("one by one, please")


@on_each_device_with_models
def test_bfloat16_trains_about_as_float32_does(images, device, model):
    config = on(device, epochs=2, batch_size=50, learning_rate=1e-3)
    some = candidates(("co-teaching",) * 2, [[1.0, 0.7], [1.0, 0.9]])
    exact = trained(images, config, some, model=model)
    rounded = trained(images, replace(config, precision="bfloat16"), some, model=model)
    assert {p.dtype for p in rounded.networks.parameters()} == {torch.float32}
    for number in (0, 1):
        ours, theirs = exact.curves[number].train_loss, rounded.curves[number].train_loss
        assert ours == pytest.approx(theirs, rel=0.15)


@on_each_device
@pytest.mark.parametrize("stack", [True, False])
def test_a_candidate_dropped_leaves_the_others_as_they_were(data, device, stack, monkeypatch):
    if not stack:
        monkeypatch.setattr(networks, "_try_to_stack", _refuse)
    whole = trained(data, on(device))

    def drop(population):
        if population.epoch == 1:
            population.drop([1])

    fewer = trained(data, on(device), after_epoch=drop)
    assert fewer.numbers == [0, 2] and len(fewer.curves[1]) == 1
    assert len(fewer.networks.generators) == 4 and len(fewer.log_probability) == 1
    agree(whole, fewer, numbers=[0, 2])


@on_each_device
def test_a_loss_that_is_not_finite_drops_its_candidate_alone(data, device):
    whole = trained(data, on(device))

    def spoil(population):
        if population.epoch == 1:
            population.networks.parameters()[0].data[2:4] = torch.nan  # of candidate 1

    spoilt = trained(data, on(device), after_epoch=spoil)
    assert spoilt.failed == [1] and spoilt.numbers == [0, 2]
    assert all(np.isfinite(spoilt.curves[1].train_loss))
    agree(whole, spoilt, numbers=[0, 2])


@on_each_device
def test_out_of_memory_halves_the_group(data, device, monkeypatch):
    """On a GPU memory runs out; on a CPU, which would end the process, a step says so."""

    def wide(input_shape, n_classes):
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 8192), nn.ReLU(), nn.Linear(8192, 10))

    sizes, finished, new, step = [], [], lockstep.new_population, loop.train_step

    def spy(some, *arguments, **options):
        sizes.append(len(some))
        return new(some, *arguments, **options)

    def starved(stacked, *arguments):
        if stacked.n_candidates > 4:
            raise torch.OutOfMemoryError("not enough memory")
        return step(stacked, *arguments)

    monkeypatch.setattr(lockstep, "new_population", spy)
    config = on(device, epochs=1, batch_size=256)
    some = candidates(("co-teaching",) * 16, [[0.7]] * 16)
    options = {"stream": "test", "after_group": lambda p: finished.extend(p.numbers)}
    if device == "cpu":
        monkeypatch.setattr(loop, "train_step", starved)
        some = some[:6]
    with _little_memory(device):
        train_candidates(some, setup(data, config, model=wide, lockstep=16), **options)
    assert finished == list(range(len(some))) and sizes[0] == len(some) > sizes[1]


@contextmanager
def _little_memory(device) -> Iterator[None]:
    """Leave a process 600 MB of a GPU's memory: 16 of the candidates above need more."""
    if device == "cpu":
        yield
        return
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    allowed = torch.cuda.memory_reserved() + 600 * 2**20
    torch.cuda.set_per_process_memory_fraction(allowed / total)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


@on_each_device
@pytest.mark.parametrize("stack", [True, False])
def test_a_resumed_training_is_the_uninterrupted_one(data, device, stack, tmp_path, monkeypatch):
    """With dropout, whose generators the checkpoint holds."""
    if not stack:
        monkeypatch.setattr(networks, "_try_to_stack", _refuse)
    monkeypatch.setattr(loop, "most_in_flight", lambda device, seconds: 1)
    path, config = tmp_path / "population.safetensors", on(device)

    def save(population):
        if population.epoch == 2:
            save_population(path, population)

    whole = trained(data, config, model="perceptron", after_epoch=save)
    ready = setup(data, config, model="perceptron")
    again = new_population(candidates(), ready, stream="test", n_tracked=2)
    assert load_population(path, again) and again.epoch == 2
    trained(data, config, model="perceptron", population=again)
    exactly = {"loss": 1e-6, "accuracy": 1e-9} if device == "cpu" else {}
    agree(whole, again, **exactly)
    states = [population.networks.state() for population in (whole, again)]
    for name in (name for name in states[0] if name.startswith("generator.")):
        assert torch.equal(states[0][name], states[1][name])  # as many numbers drawn


@on_each_device
def test_a_resumed_optimiser_has_the_memory_layout_of_its_weights(
    images, device, tmp_path, monkeypatch
):
    """Channels last, as on a GPU; the fused optimisers refuse averages of another layout."""
    monkeypatch.setattr(networks, "_try_to_stack", _refuse)
    path, config = tmp_path / "population.safetensors", on(device, epochs=2, batch_size=50)
    some = candidates(("standard",), [[1.0, 1.0]])
    ready = setup(images, config, model="model1")

    def fresh():
        population = new_population(some, ready, stream="test")
        for parameter in population.networks.parameters():
            if parameter.dim() == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        return population

    def save(population):
        if population.epoch == 1:
            save_population(path, population)

    whole = trained(images, config, model="model1", population=fresh(), after_epoch=save)
    again = fresh()
    assert load_population(path, again)
    for parameter in again.networks.parameters():
        average = again.optimizer.state[parameter]["exp_avg"]
        assert average.stride() == parameter.stride() and not average.requires_grad
    trained(images, config, model="model1", population=again)
    agree(whole, again)


@on_each_device
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_dropout_mask_has_the_dtype_and_device_of_what_it_masks(device, dtype):
    generators = [torch.Generator(device).manual_seed(seed) for seed in (0, 1)]
    x = torch.ones(2, 50, 40, dtype=dtype, device=device)
    masks = dropout_masks(x, 0.25, generators)
    assert masks.dtype == dtype and masks.device == x.device
    kept = torch.tensor(1 / 0.75, dtype=dtype)
    assert set(masks.unique().tolist()) == {0.0, float(kept)}
    assert 0.7 < float((masks > 0).float().mean()) < 0.8
    assert not torch.equal(masks[0], masks[1])
    again = dropout_masks(x, 0.25, [torch.Generator(device).manual_seed(seed) for seed in (0, 1)])
    assert torch.equal(again, masks)


@on_each_device
def test_generators_are_on_the_device_and_one_for_each_network(data, device):
    ready = setup(data, on(device), model="perceptron")
    population = new_population(candidates(), ready, stream="test")
    generators = population.networks.generators
    assert len(generators) == 6 and {one.device.type for one in generators} == {device}
    assert len({one.initial_seed() for one in generators}) == 6
    inputs = ready.normaliser(data.train.inputs[:32]).to(device)
    before = population.networks.state()
    first, second = population.networks(inputs), population.networks(inputs)
    assert not torch.equal(first, second)
    population.networks.load_state(before)
    assert torch.equal(population.networks(inputs), first)


# Nothing waits for the device ------------------------------------------------------------------

READS = ("item", "tolist", "numpy", "cpu", "__bool__", "__float__", "__int__", "__index__")
WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "bincount", "is_nonzero", "equal")
WAITING += ("_unique2", "unique_dim", "unique_consecutive", "lift_fresh", "item", "argwhere")


class NoReads(TorchFunctionMode):
    """Refuses to give the host a number of a tensor."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if getattr(func, "__name__", "") in READS:
            raise AssertionError(f"Tensor.{func.__name__} waits for the device")
        return func(*args, **(kwargs or {}))


class NoWaiting(TorchDispatchMode):
    """Refuses operations for which a GPU's host waits, or that copy numbers of Python to it."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in WAITING:
            raise AssertionError(f"aten::{name} waits for the device")
        if name in ("index", "index_put", "index_put_"):
            indices = [i for i in args[1] if i is not None]
            if any(i.dtype in (torch.bool, torch.uint8) for i in indices):
                raise AssertionError("an index by a mask waits for the device")
        return func(*args, **(kwargs or {}))


@contextmanager
def nothing_waits(device) -> Iterator[None]:
    if device == "cpu":
        with NoReads(), NoWaiting():
            yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@on_each_device
@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.sum().item(),
        lambda x: x.tolist(),
        lambda x: bool(x.any()),
        lambda x: float(x.sum()),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: x.long().bincount(),
        lambda x: torch.tensor([1.0, 2.0], device=x.device),
        lambda x: x.cpu(),
    ],
)
def test_what_waits_for_the_device_is_seen(device, wait):
    x = torch.rand(5, device=device)
    with (
        pytest.raises((AssertionError, RuntimeError), match=r"wait|synchronizing"),
        nothing_waits(device),
    ):
        wait(x)


def supervised(data, n_candidates=2):
    """Candidates whose peers leave out a fold each, with a corrected loss."""
    n = len(data.train)
    generator = torch.Generator().manual_seed(0)
    fold = torch.arange(n) % 3
    targets = nn.functional.one_hot(data.train.labels, data.n_classes).float()
    matrix = torch.full((3, data.n_classes, data.n_classes), 0.4 / 9)
    matrix.diagonal(dim1=1, dim2=2).fill_(0.6)
    supervision = Supervision(
        fold,
        torch.rand(n, generator=generator) < 0.8,
        targets,
        torch.ones(n),
        matrix,
        torch.rand(n, generator=generator) < 0.9,
    )
    rates = Schedule(np.linspace(1, 0.6, 4))
    return [Candidate(n, rates, cross_fitted(3), supervision) for n in range(n_candidates)]


CASES = {
    "all rules": ("co-teaching", "co-teaching-plus", "co-mining", "decoupling", "jocor"),
    "per class": ("co-teaching-per-class", "jocor-per-class"),
    "one network": ("standard", "mentornet"),
    "folds": (),
    "corrected": ("f-correction",),
    "augmented": ("co-teaching",),
}


def without_graphs(monkeypatch):
    def give_up(graph, next_step, learning_rate):
        graph._give_up("as a test asks", learning_rate)

    monkeypatch.setattr(graphs, "WARM_UP", 0)
    monkeypatch.setattr(graphs.StepGraph, "_capture", give_up)


@pytest.mark.parametrize(
    ("device", "with_graph"),
    [
        ("cpu", False),
        *(pytest.param("cuda", with_graph, marks=CUDA.marks) for with_graph in (True, False)),
    ],
)
@pytest.mark.parametrize("case", CASES)
def test_nothing_in_an_epoch_waits_for_the_device(data, device, case, with_graph, monkeypatch):
    """In an epoch like the one before; else the graph is captured, for which the host waits."""
    if not with_graph:  # as on a CPU, where the two are the same
        without_graphs(monkeypatch)
    methods, begin, watched = CASES[case], loop._Epochs.begin_next, []
    some = supervised(data)
    if methods:
        table = np.linspace([1.0] * len(methods), [0.6] * len(methods), 4).T
        some = candidates(methods, table)
    noisy = data
    if case == "folds":
        noisy = replace(data, validation=replace(data.validation, label_status="noisy"))
        assert noisy.criterion == "determinant"

    def watch(epochs):
        before = epochs._steps
        if epochs._steps_of(epochs.next) is not before:
            return begin(epochs)
        with nothing_waits(device):
            measured = begin(epochs)
        watched.append(epochs._steps._graph)
        return measured

    monkeypatch.setattr(loop._Epochs, "begin_next", watch)
    augment = "flip,crop:1" if case == "augmented" else "none"
    ready = replace(
        setup(noisy, on(device, augment=augment), model="perceptron"),
        weights=torch.linspace(0.5, 1, len(data.train)),
    )
    population = new_population(some, ready, stream="test", n_tracked=1)
    if case == "corrected":
        matrix = torch.full((1, 10, 10), 0.04) + 0.6 * torch.eye(10)
        population.transition_matrix = matrix.to(device)
    loop.train_population(population, ready, stream="test")
    assert len(watched) in (1, 2) and len(population.curves[0]) == 4
    if device == "cuda":
        assert all((one.reason is None) == with_graph for one in watched)


@on_each_device
def test_faces_train_on_a_device_as_on_the_cpu(device):
    """With mirrored pictures, a margin, and a score by pairs."""
    faces, metric = some_people(), PairAccuracy(pairs_of_strangers())
    config = replace(
        CONFIG, epochs=3, batch_size=40, learning_rate=1e-3, augment="flip,crop:1", margin=0.1
    )
    some = candidates(table=np.array([[1.0, 0.8, 0.7]] * 3))
    ours, theirs = (
        trained(faces, on(one, config), some, model="face-small", metric=metric)
        for one in ("cpu", device)
    )
    for number in ours.curves:
        a, b = ours.curves[number], theirs.curves[number]
        assert a.train_loss == pytest.approx(b.train_loss, rel=0.05)
        assert a.validation_score == pytest.approx(b.validation_score, abs=0.06)
    assert theirs.keep_rates.device.type == device


# Graphs ----------------------------------------------------------------------------------------


@on_a_gpu
def test_steps_that_never_had_a_graph_train_as_the_cpu_does(data, device, monkeypatch):
    """As where processes train together."""
    monkeypatch.setattr(loop, "StepGraph", lambda *_: None)
    agree(trained(data, on("cpu")), trained(data, on(device)), loss=0.02, accuracy=0.03)


@on_a_gpu
@pytest.mark.parametrize("optimizer", ["adam", "sgd", "rmsprop"])
@pytest.mark.parametrize("model", ["perceptron", "model1", "model2"])
def test_a_graph_trains_as_ordinary_steps_do(images, device, model, optimizer, monkeypatch):
    """With learning rate, keep rate and dropout, all of which a graph has to read anew."""
    config = on(device, epochs=4, batch_size=20, learning_rate=1e-3, optimizer=optimizer)
    some = candidates(("co-teaching", "jocor", "co-teaching-plus"))
    with_graphs = trained(images, config, some, model=model)
    with monkeypatch.context() as patch:
        without_graphs(patch)
        ordinary = trained(images, config, some, model=model)
    agree(with_graphs, ordinary, loss=0.01, accuracy=0.03)
    states = [population.networks.state() for population in (with_graphs, ordinary)]
    for name in (name for name in states[0] if name.startswith("generator.")):
        assert torch.equal(states[0][name], states[1][name])


@on_a_gpu
def test_a_graph_is_captured_for_each_set_of_candidates_and_rules(data, device, monkeypatch):
    captured, capture = [], graphs.StepGraph._capture

    def spy(graph, *arguments):
        capture(graph, *arguments)
        captured.append(graph.reason)

    def drop(population):
        if population.epoch == 3:
            population.drop([1])

    monkeypatch.setattr(graphs.StepGraph, "_capture", spy)
    monkeypatch.setattr(loop, "most_in_flight", lambda device, seconds: 1)
    some = candidates(("co-teaching", "co-teaching", "co-teaching-plus"))
    trained(data, on(device), some, after_epoch=drop)
    # At first; as Co-teaching+ ends its warm-up, after one epoch; for the later half of the epochs,
    # which are tracked; after the drop.
    assert captured == [None] * 4


class Reader(nn.Module):
    """A network whose forward pass reads a number of its input."""

    def __init__(self, input_shape, n_classes):
        super().__init__()
        self.layers = mlp(input_shape, n_classes)

    def forward(self, x):
        return self.layers(x * (1.0 if x.sum().item() > 0 else 0.5))


@on_each_device
def test_a_network_that_waits_trains_without_a_graph(data, device, caplog):
    with caplog.at_level(logging.WARNING, "keeprate"):
        population = trained(data, on(device), model=lambda shape, n: Reader(shape, n))
    assert population.curves[0].validation_accuracy[-1] > 0.3
    said = [record.message for record in caplog.records if "CUDA graph" in record.message]
    reason = "an operation of the step waits for the device"
    assert all(reason in words for words in said) and bool(said) == (device == "cuda")


# Epochs in flight ------------------------------------------------------------------------------


@on_each_device
@pytest.mark.parametrize("most", [2, 3])
def test_epochs_in_flight_change_nothing(data, device, most, tmp_path, monkeypatch):
    """Neither what is measured, nor who is dropped, nor what a checkpoint holds."""
    ahead, saved, path = [], [], tmp_path / "checkpoint-test.safetensors"
    config = on(device, epochs=9)
    some = candidates(table=np.linspace([1.0] * 3, [0.4, 0.6, 0.8], 9).T)

    def drop(population):
        ahead.append(population.epochs_ahead)
        if population.epoch == 4:
            population.drop([1])

    def train(keeps, **options):
        finished = []
        train_candidates(
            some,
            setup(data, config, out=tmp_path, **options),
            stream="test",
            n_tracked=2,
            after_epoch=drop,
            after_group=finished.append,
        )
        return finished[0]

    def save(where, population):
        assert population.epochs_ahead == 0
        saved.append(population.epoch)
        save_population(where, population)

    monkeypatch.setattr(lockstep, "save_population", save)
    monkeypatch.setattr(lockstep, "SOONEST", 1e9)  # none is due before the end
    monkeypatch.setattr(loop, "most_in_flight", lambda device, seconds: 1)
    one_by_one = train(tmp_path)
    path.unlink()
    assert ahead == [0] * 9
    ahead.clear()
    saved.clear()
    monkeypatch.setattr(loop, "most_in_flight", lambda device, seconds: most)
    in_flight = train(tmp_path)
    assert max(ahead) == most - 1 and saved == [9]
    exactly = {"loss": 1e-6, "accuracy": 1e-9} if device == "cpu" else {}
    agree(one_by_one, in_flight, **exactly)
    assert len(in_flight.curves[1]) == 4 and in_flight.numbers == [0, 2]
    assert in_flight.epochs_ahead == 0
    if device == "cpu":
        assert torch.equal(in_flight.log_probability, one_by_one.log_probability)
    # A checkpoint that is due waits until nothing is ahead.
    path.unlink()
    saved.clear()
    train(tmp_path, checkpoint_seconds=0)
    assert saved == list(range(1, 10))


def test_only_short_epochs_of_a_gpu_are_in_flight():
    gpu = torch.device("cuda")
    assert loop.most_in_flight(gpu, 0.1) == loop.IN_FLIGHT > 1 == loop.most_in_flight(gpu, 2.0)
    assert loop.most_in_flight(torch.device("cpu"), 0.1) == 1


# Memory, and which networks are stacked --------------------------------------------------------


def test_what_a_gpu_needs_between_the_steps_counts():
    def build():
        return mlp((784,), 10)

    batch = torch.zeros(100, 784)
    alone, with_evaluation = (bytes_per_network(build, batch, evaluated=n) for n in (0, 1000))
    assert with_evaluation - alone == 3 * 10 * 784 * 100 * 4  # three of the largest, the inputs


@on_each_device
def test_what_is_said_to_fit_trains(images, device):
    """As many candidates as are said to fit, but no more than a test has time for."""
    ready = setup(images, on(device, epochs=1, batch_size=50), model="model1")
    batch = ready.normaliser(images.train.inputs[:50])
    fitting = fitting_candidates(ready.build, batch, n_peers=2, device=torch.device(device))
    n = min(fitting, 40 if device == "cuda" else 3)
    finished = []
    train_candidates(
        candidates(("co-teaching",) * n, [[0.7]] * n),
        ready,
        stream="test",
        after_group=lambda population: finished.append(len(population.numbers)),
    )
    assert sum(finished) == n


def test_work_of_convolutions():
    probe = torch.rand(4, 3, 32, 32)
    work = {
        name: convolution_flops(lambda name=name: get_model(name)((3, 32, 32), 10), probe)
        for name in ("mlp", "model1", "model2")
    }
    first, second = 28 * 28 * 6 * 75, 10 * 10 * 16 * 150
    assert work["mlp"] == 0 and work["model1"] == 2 * (first + second)
    assert work["model1"] < networks.LARGE_CONVOLUTIONS < work["model2"]


@on_a_gpu
def test_large_convolutions_run_one_by_one_with_channels_last(images, device):
    population = trained(
        images, on(device, epochs=1, batch_size=50), candidates(table=[[0.7]] * 3), model="model2"
    )
    assert isinstance(population.networks, ModuleNetworks)
    weights = [p for p in population.networks.parameters() if p.dim() == 4 and p.shape[1] > 3]
    assert all(w.is_contiguous(memory_format=torch.channels_last) for w in weights)
