"""Train steps as CUDA graphs, on a CPU: a tape of operations does what a graph does.

A graph runs the kernels of one step again, on the same memory. So does the tape: it writes the
results of each operation where those of the recorded step lie. Whatever a step reads elsewhere
(a Python number, a tensor that was replaced) is stale in both.
"""

from __future__ import annotations

import logging
import warnings
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

import keeprate
from keeprate.engine import graphs, loop
from keeprate.engine.config import TrainingConfig
from keeprate.engine.methods import get_method
from keeprate.engine.population import Candidate, new_population
from keeprate.engine.setup import make_setup
from keeprate.schedules import Schedule

CONFIG = TrainingConfig(epochs=5, batch_size=128, learning_rate=3e-3, precision="float32")


class Tape(TorchDispatchMode):
    """Records operations. As a capture does, it leaves all that was there before as it was."""

    def __init__(self):
        super().__init__()
        self.steps, self._before, self._made = [], {}, set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        for tensor in given:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in self._made:
                self._before.setdefault(storage.data_ptr(), (storage, storage.clone()))
        result = func(*args, **kwargs)
        places = {tensor.untyped_storage().data_ptr() for tensor in given}
        fresh = [
            leaf
            for leaf in tree_leaves(result)
            if isinstance(leaf, torch.Tensor) and leaf.untyped_storage().data_ptr() not in places
        ]
        self._made |= {tensor.untyped_storage().data_ptr() for tensor in fresh}
        # Detached: the tape keeps memory, not what autograd knows of it.
        self.steps.append((func, *tree_map(_detached, (args, kwargs, fresh))))
        return result

    def restore(self):
        for storage, before in self._before.values():
            storage.copy_(before)

    def replay(self):
        for func, args, kwargs, fresh in self.steps:
            result = tree_leaves(func(*args, **kwargs))
            places = [leaf for leaf in result if isinstance(leaf, torch.Tensor)]
            for tensor, again in zip(fresh, places if fresh else [], strict=False):
                tensor.copy_(again)


def _detached(leaf):
    return leaf.detach() if isinstance(leaf, torch.Tensor) else leaf


class Graph:
    """What `torch.cuda.CUDAGraph` is to a capture."""

    captured = 0
    fails = False

    def __init__(self):
        self.generators = []

    def register_generator_state(self, generator):
        self.generators.append(generator)

    @contextmanager
    def capture(self, **options):
        assert options["capture_error_mode"] == "thread_local" and "stream" in options
        if self.fails:
            raise RuntimeError("operation not permitted when stream is capturing\nmore words")
        self.tape = Tape()
        states = [generator.get_state() for generator in self.generators]
        with self.tape:
            yield
        self.tape.restore()
        for generator, state in zip(self.generators, states, strict=True):
            generator.set_state(state)
        Graph.captured += 1

    def replay(self):
        with torch.no_grad():
            self.tape.replay()


@pytest.fixture
def tapes(monkeypatch):
    """Let the CPU train as a GPU does."""
    stream = SimpleNamespace(wait_stream=lambda other: None)
    fakes = {
        "CUDAGraph": Graph,
        "graph": lambda graph, **options: graph.capture(**options),
        "Stream": lambda device: stream,
        "current_stream": lambda device: stream,
        "set_stream": lambda stream: None,
        "stream": lambda stream: nullcontext(),
        "device": lambda device: nullcontext(),
        "get_sync_debug_mode": lambda: 0,
        "set_sync_debug_mode": lambda mode: None,
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    monkeypatch.setattr(Graph, "captured", 0)
    begin, made = loop.Steps.__init__, []

    def with_graph(steps, population, *arguments):
        begin(steps, population, *arguments)
        device = population.keep_rates.device
        steps._graph = graphs.StepGraph(
            population.optimizer, population.networks.generators, device
        )
        made.append(steps._graph)

    monkeypatch.setattr(loop.Steps, "__init__", with_graph)
    graphs._side_stream.cache_clear()
    yield made
    graphs._side_stream.cache_clear()


@pytest.fixture(scope="module")
def data():
    return keeprate.prepare("digits", noise="symmetric:0.4", seed=0)


def trained(data, methods, config=CONFIG, *, model="perceptron", drop=None):
    setup = make_setup(data, model=model, config=config, seed=0, out=None)
    rates = np.linspace([1.0] * len(methods), np.linspace(0.4, 0.8, len(methods)), config.epochs).T
    candidates = [
        Candidate(n, Schedule(row), get_method(method))
        for n, (row, method) in enumerate(zip(rates, methods, strict=True))
    ]
    population = new_population(candidates, setup, stream="test", n_tracked=1)

    def after_epoch(population):
        if population.epoch == drop:
            population.drop([1])

    loop.train_population(population, setup, stream="test", after_epoch=after_epoch)
    return population


def agree(ours, theirs):
    """Up to the learning rate, which a graph reads in float32."""
    for number in theirs.curves:
        a, b = ours.curves[number], theirs.curves[number]
        assert a.train_loss == pytest.approx(b.train_loss, rel=1e-3)
        assert a.test_accuracy == pytest.approx(b.test_accuracy, abs=0.01)
        assert a.label_precision == pytest.approx(b.label_precision, abs=0.01)
    torch.testing.assert_close(ours.log_probability, theirs.log_probability, rtol=0.02, atol=0.02)
    for one, other in zip(ours.networks.generators, theirs.networks.generators, strict=True):
        assert torch.equal(one.get_state(), other.get_state())


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("drop", [None, 3])
def test_a_tape_trains_as_ordinary_steps_do(data, optimizer, drop, tapes, monkeypatch):
    """Learning rate, keep rate, batch and dropout are read anew at each step."""
    methods = ("co-teaching", "jocor", "co-teaching-per-class")
    config = TrainingConfig(**vars(CONFIG) | {"optimizer": optimizer})
    taped = trained(data, methods, config, drop=drop)
    captured = Graph.captured
    # Anew for the later half of the epochs, which are tracked, and after the drop.
    assert captured == (2 if drop is None else 3) == len(tapes)
    assert all(graph.reason is None for graph in tapes)
    monkeypatch.undo()
    agree(taped, trained(data, methods, config, drop=drop))


def test_generators_that_nothing_is_drawn_from_are_left_out(data, tapes):
    trained(data, ("co-teaching",), model="mlp")
    assert tapes[0]._graph.generators == []


def test_a_capture_that_fails_leaves_ordinary_steps(data, tapes, monkeypatch, caplog):
    monkeypatch.setattr(Graph, "fails", True)
    with caplog.at_level(logging.WARNING, "keeprate"):
        ours = trained(data, ("co-teaching",) * 2)
    reason = "operation not permitted when stream is capturing"
    assert {graph.reason for graph in tapes} == {reason}
    assert f"training without a CUDA graph, which is slower: {reason}" in caplog.messages
    monkeypatch.undo()
    agree(ours, trained(data, ("co-teaching",) * 2))


def test_memory_that_runs_out_in_a_capture_is_said_so(data, tapes, monkeypatch):
    """By the error that PyTorch raises at the end of the capture, in the handling of the other."""

    @contextmanager
    def capture(graph, **options):
        try:
            raise torch.OutOfMemoryError("CUDA out of memory")
        finally:
            raise RuntimeError("operation failed due to a previous error during capture")
        yield

    monkeypatch.setattr(Graph, "capture", capture)
    with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
        trained(data, ("co-teaching",))


def test_a_step_that_waits_is_no_graph(data, tapes, monkeypatch):
    """PyTorch warns of what waits; the other warnings of the step are the user's."""
    step = loop.train_step

    def waiting(*arguments):
        warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
        return step(*arguments)

    monkeypatch.setattr(loop, "train_step", waiting)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the later, ordinary steps
        trained(data, ("co-teaching",))
    assert {graph.reason for graph in tapes} == {"an operation of the step waits for the device"}
