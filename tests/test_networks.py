"""Stacked training equals one-by-one training; candidates do not know each other."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from keeprate.engine import layers, operations
from keeprate.engine import networks as networks_module
from keeprate.engine.config import TrainingConfig
from keeprate.engine.layers import stacked_linear
from keeprate.engine.loop import train_step
from keeprate.engine.methods import METHODS
from keeprate.engine.models import MODELS, model3
from keeprate.engine.networks import ModuleNetworks, StackedNetworks, build_networks
from keeprate.engine.optimizers import make_optimizer
from keeprate.engine.selection import per_sample_cross_entropy

CPU = torch.device("cpu")
BUILDS = {
    "mlp": (partial(MODELS["mlp"], (1, 28, 28), 10), (1, 28, 28)),
    "model1": (partial(MODELS["model1"], (3, 32, 32), 10), (3, 32, 32)),
    "model2": (partial(MODELS["model2"], (3, 8, 8), 10), (3, 8, 8)),
    "model3": (partial(model3, (3, 12, 12), 10, dropout=0.0), (3, 12, 12)),
    "resnet18-small": (partial(MODELS["resnet18-small"], (3, 12, 12), 10), (3, 12, 12)),
    "series": (
        lambda: nn.Sequential(
            nn.Conv1d(2, 4, 3, stride=2, bias=False),
            nn.Tanh(),
            nn.Conv1d(4, 4, 3, padding=1, groups=2),
            nn.Tanh(),
            nn.Conv1d(4, 4, 3, padding="same", dilation=2),
            nn.Flatten(),
            nn.Linear(20, 10),
        ),
        (2, 12),
    ),
}
# Eight samples in a batch, and twenty steps: of Model 3's steps the convolutions take seconds.
SIZE, STEPS = {"model3": 4}, {"model3": 10}


def steps(networks, shape, n_steps, *, lr, size=8, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.SGD(networks.parameters(), lr=lr, momentum=0.9)
    for _ in range(n_steps):
        inputs = torch.rand(size, *shape, generator=generator).to(dtype)
        labels = torch.randint(0, 10, (size,), generator=generator)
        keep_rate = torch.tensor([0.5, 0.9])[: networks.n_candidates]
        train_step(networks, optimizer, METHODS["co-teaching"], inputs, labels, keep_rate)
    networks.train(False)
    optimizer.zero_grad()  # gradients are as large as the networks, and others are trained next


@pytest.mark.parametrize("kind", [StackedNetworks, ModuleNetworks])
def test_the_gradient_of_each_network_is_clipped_as_pytorch_does(kind):
    """Networks have gradients of their own length: some are longer than allowed, some are not."""

    class Scaled(nn.Module):
        """A parameter without an axis, too."""

        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3))
            self.scale = nn.Parameter(torch.tensor(1.5))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.scale * self.layers(x)

    networks = kind(Scaled, [1, 2], 2, CPU)
    inputs, scales = torch.randn(7, 5), torch.tensor([[0.01, 1.0], [10.0, 0.0]])
    (networks(inputs).square().sum((2, 3)) * scales).sum().backward()
    expected = []
    for row, scale in enumerate(scales.flatten()):
        module = networks.module(*divmod(row, 2))
        (module(inputs).square().sum() * scale).backward()
        nn.utils.clip_grad_norm_(module.parameters(), 2.0)
        expected.append(torch.cat([p.grad.flatten() for p in module.parameters()]))
    networks.clip_gradients(2.0)
    parameters = networks.parameters()
    if kind is StackedNetworks:
        found = torch.cat([p.grad.reshape(4, -1) for p in parameters], dim=1)
    else:
        found = torch.cat([p.grad.flatten() for p in parameters]).view(4, -1)
    assert torch.stack(expected).sub(found).abs().max() < 1e-5
    lengths = found.norm(dim=1)
    assert lengths[1:3] == pytest.approx([2.0, 2.0], rel=1e-4) and 0 < lengths[0] < 2


def test_training_clips_gradients():
    """By hand, for the perceptron, and by autograd."""

    def build() -> nn.Module:
        return nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))

    for kind in (StackedNetworks, ModuleNetworks):
        ends = []
        for most in (0.0, 1e-3, 1e9):
            networks = kind(build, [1], 2, CPU)
            before = [p.detach().clone() for p in networks.parameters()]
            optimizer = torch.optim.SGD(networks.parameters(), lr=1.0)
            generator = torch.Generator().manual_seed(0)
            inputs, labels = torch.randn(9, 5, generator=generator), torch.arange(9) % 3
            method = METHODS["co-teaching"]
            everything = torch.ones(1)
            train_step(networks, optimizer, method, inputs, labels, everything, max_grad_norm=most)
            ends.append(
                [b.detach() - a for a, b in zip(before, networks.parameters(), strict=True)]
            )
        free, clipped, hardly = ends
        assert all(a.equal(b) for a, b in zip(free, hardly, strict=True))
        length = torch.cat([p.flatten() for p in clipped]).norm()
        assert float(length) == pytest.approx(2**0.5 * 1e-3, rel=1e-2)  # of two peers


def relative(a: nn.Module, b: nn.Module) -> float:
    """Relative distance of the parameters, and of the running statistics; the larger one."""

    def distance(kind: str) -> float:
        x, y = (
            torch.cat([t.detach().double().flatten() for _, t in getattr(m, kind)()] or [zero])
            for m in (a, b)
        )
        return float((x - y).norm() / y.norm().clamp_min(1e-12))

    zero = torch.zeros(1, dtype=torch.float64)
    return max(distance("named_parameters"), distance("named_buffers"))


@pytest.mark.parametrize("name", BUILDS)
def test_stacked_equals_one_by_one_after_many_float32_steps(name):
    build, shape = BUILDS[name]
    stacked, alone = (cls(build, [1, 2], 2, CPU) for cls in (StackedNetworks, ModuleNetworks))
    fresh = alone.module(0, 0)
    for networks in (stacked, alone):
        # Small steps: batch norm amplifies any rounding that carries a loss or a
        # pre-activation across a threshold, whichever way the networks are run.
        steps(networks, shape, STEPS.get(name, 20), lr=1e-4, size=SIZE.get(name, 8))
    for candidate in range(2):
        for peer in range(2):
            assert relative(stacked.module(candidate, peer), alone.module(candidate, peer)) < 1e-4
    assert relative(alone.module(0, 0), fresh) > 3e-4  # it did train


@pytest.mark.parametrize("name", BUILDS)
def test_float64_steps_are_the_same_to_the_last_digits(name, monkeypatch):
    monkeypatch.setattr(layers, "LARGE_PRODUCT", 1)
    build, shape = BUILDS[name]
    stacked, alone = (
        cls(lambda: build().double(), [1, 2], 2, CPU) for cls in (StackedNetworks, ModuleNetworks)
    )
    for networks in (stacked, alone):
        steps(networks, shape, 2, lr=1e-2, size=SIZE.get(name, 8), dtype=torch.float64)
    for candidate in range(2):
        for peer in range(2):
            assert relative(stacked.module(candidate, peer), alone.module(candidate, peer)) < 1e-12


@pytest.mark.parametrize("bias", [True, False])
def test_products_of_the_selected_samples_alone_give_the_same_gradient(monkeypatch, bias):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(9, 6, generator=generator, requires_grad=True)
    weight = torch.rand(5, 5, 6, generator=generator, requires_grad=True)
    given = [x, weight] + [torch.rand(5, 5, generator=generator, requires_grad=True)] * bias
    selected = torch.rand(5, 9, generator=generator) < 0.5
    selected[1] = selected[0].roll(1)  # two keep as many, but others
    selected[3], selected[4] = True, False  # one keeps all, one nothing

    def gradients(y):
        loss = (y.square().sum(-1) * selected).sum()
        return torch.autograd.grad(loss, given)

    def noted(*arguments, bmm=torch.bmm, **options):
        if options:  # into the weight gradient
            products.append(arguments)
        return bmm(*arguments, **options)

    plain = torch.einsum("noi,bi->nbo", weight, x) + (given[2][:, None] if bias else 0.0)
    expected, products = gradients(plain), []
    for limit in (1, 2**60):
        monkeypatch.setattr(layers, "LARGE_PRODUCT", limit)
        with monkeypatch.context() as patch:
            patch.setattr(torch, "bmm", noted)
            found = gradients(stacked_linear(x, *given[1:], *[None] * (not bias), stacked=False))
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other)
    sizes = [own.shape[::2] for own, _ in products]  # above the limit only, no sample in vain
    numbers = selected.sum(1).tolist()
    assert sizes == [(2, numbers[1]), *((1, number) for number in numbers[2:])]


def grouped(*layers):
    return lambda: nn.Sequential(nn.Conv2d(3, 6, 3, groups=3), *(layer() for layer in layers))


IMAGES = {
    "shared inputs": (lambda: nn.Conv2d(4, 6, (3, 5), padding="same", bias=False), (4, 9, 9)),
    "shared inputs in groups": (lambda: nn.Conv2d(4, 8, 3, groups=2, padding=1), (4, 9, 9)),
    "own inputs": (grouped(partial(nn.Conv2d, 6, 4, 3, groups=2, stride=2)), (3, 9, 9)),
    "largest": (grouped(partial(nn.MaxPool2d, 3, stride=2, ceil_mode=True)), (3, 9, 9)),
    "mean": (grouped(partial(nn.AvgPool2d, 2)), (3, 9, 9)),
    "adaptive": (grouped(partial(nn.AdaptiveAvgPool2d, 1)), (3, 9, 9)),
    "pooled at once": (lambda: nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(3, 6, 3)), (3, 9, 9)),
    "groups normalised": (grouped(partial(nn.GroupNorm, 2, 6)), (3, 9, 9)),
}


@pytest.mark.parametrize("name", IMAGES)
def test_convolutions_and_pools_keep_channels_last_and_change_no_value(name):
    build, shape = IMAGES[name]
    networks = StackedNetworks(lambda: build().double(), [1, 2], 2, CPU)
    x = torch.rand(4, *shape, dtype=torch.float64)

    def run():
        outputs = networks._forward(networks._parameters, {}, x)
        return outputs, torch.autograd.grad(outputs.square().sum(), networks.parameters())

    expected, gradients = run()
    with operations.LockstepOperations([], stacked=True):
        found, found_gradients = run()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found_gradients, gradients)
    if name not in ("groups normalised", "shared inputs in groups"):  # else the next would copy
        order = found.movedim(0, 1).flatten(1, 2)
        assert order.is_contiguous(memory_format=torch.channels_last)


class Dropping(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(12, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 10)
        )

    def forward(self, x):
        return self.layers(x)


@pytest.mark.parametrize("cls", [StackedNetworks, ModuleNetworks])
def test_a_candidate_does_not_depend_on_who_shares_its_population(cls):
    alone, together = cls(Dropping, [7], 2, CPU), cls(Dropping, [3, 7], 2, CPU)
    x = torch.rand(8, 12)
    assert not torch.equal(together(x)[0], together(x)[1])
    alone, together = cls(Dropping, [7], 2, CPU), cls(Dropping, [3, 7], 2, CPU)
    torch.testing.assert_close(alone(x)[0], together(x)[1])
    optimizer = torch.optim.SGD(together.parameters(), lr=0.1)
    together.keep([1], optimizer)  # ... nor on who has left it
    torch.testing.assert_close(alone(x)[0], together(x)[0])


@pytest.mark.parametrize("name", BUILDS)
@pytest.mark.parametrize("cls", [StackedNetworks, ModuleNetworks])
def test_mixed_precision_trains(cls, name):
    build, shape = BUILDS[name]
    networks = cls(build, [1], 2, CPU)
    before = networks.module(0, 0)
    optimizer = torch.optim.SGD(networks.parameters(), lr=0.1)
    size = SIZE.get(name, 8)
    x, y, rate = torch.rand(size, *shape), torch.arange(size), torch.tensor([0.5])
    autocast = partial(torch.autocast, "cpu", dtype=torch.bfloat16)
    losses, *_ = train_step(networks, optimizer, METHODS["co-teaching"], x, y, rate, autocast)
    assert losses.dtype == torch.float32 and torch.isfinite(losses).all()
    assert relative(networks.module(0, 0), before) > 0


def images(layer, features=8 * 7 * 7):
    return lambda: nn.Sequential(nn.Conv2d(3, 8, 3), layer(), nn.Flatten(), nn.Linear(features, 10))


FOLLOWERS = {
    "batch norm of features": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(243, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 10)
    ),
    "batch norm": images(partial(nn.BatchNorm2d, 8)),
    "group norm": images(partial(nn.GroupNorm, 2, 8)),
    "PReLU": images(nn.PReLU),
    "transposed": images(partial(nn.ConvTranspose2d, 8, 2, 3), 2 * 9 * 9),
}


@pytest.mark.parametrize("name", FOLLOWERS)
def test_layers_without_an_autocast_rule_in_vmap_train_in_bfloat16(name):
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(8, 3, 9, 9, generator=generator), torch.arange(8)
    autocast = partial(torch.autocast, "cpu", dtype=torch.bfloat16)
    losses = []
    for cls in (StackedNetworks, ModuleNetworks):
        networks = cls(FOLLOWERS[name], [1, 2], 2, CPU)
        optimizer = torch.optim.SGD(networks.parameters(), lr=0.01)
        rate = torch.ones(2)
        for _ in range(2):
            found, *_ = train_step(
                networks, optimizer, METHODS["co-teaching"], x, y, rate, autocast
            )
        losses.append(found)
    torch.testing.assert_close(*losses, rtol=0.03, atol=0.03)


class Through(nn.Module):
    """A convolution, then what is given; a module of a user's own."""

    def __init__(self, forward, *layers, features):
        super().__init__()
        self.first, self.layers = nn.Conv2d(3, 8, 3), nn.ModuleList(layers)
        self.last = nn.Linear(features, 10)
        self.own = forward

    def forward(self, x):
        return self.last(self.own(self.first(x), *self.layers))


def shuffled(x, second):
    n, c, *size = x.shape
    return second(x.view(n, 2, c // 2, *size).transpose(1, 2).reshape(n, c, *size)).mean((2, 3))


USERS = {
    "viewed": lambda: Through(lambda x: x.view(x.size(0), -1), features=8 * 49),
    "viewed by size": lambda: Through(
        lambda x: nn.functional.max_pool2d(x.relu(), 2).view(-1, 8 * 9), features=8 * 9
    ),
    "channels shuffled": lambda: Through(shuffled, nn.Conv2d(8, 8, 3, groups=2), features=8),
    "groups normalised": lambda: Through(
        lambda x, norm: torch.group_norm(norm(x), 4).relu().mean((2, 3)),
        nn.GroupNorm(2, 8),
        features=8,
    ),
    "batch normalised": lambda: Through(
        lambda x, norm: norm(x).relu().flatten(1), nn.BatchNorm2d(8), features=8 * 49
    ),
}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", USERS)
def test_what_users_write_stays_stacked(name, precision):
    autocast = partial(torch.autocast, "cpu", torch.bfloat16, enabled=precision == "bfloat16")
    networks = build_networks(
        USERS[name],
        [1, 2],
        n_peers=1,
        probe=torch.rand(4, 3, 9, 9),
        device=CPU,
        autocast=autocast,
    )
    assert isinstance(networks, StackedNetworks)


def test_large_convolutions_that_need_vmap_run_one_by_one_with_channels_last(monkeypatch):
    monkeypatch.setattr(networks_module, "LARGE_CONVOLUTIONS", 1000)
    probe = torch.rand(4, 3, 9, 9)
    networks = build_networks(USERS["viewed"], [1, 2], n_peers=1, probe=probe, device=CPU)
    assert isinstance(networks, ModuleNetworks)
    weight = networks.parameters()[0]
    assert weight.is_contiguous(memory_format=torch.channels_last)
    x = probe.contiguous(memory_format=torch.channels_last)
    networks(x).sum().backward()  # "viewed" asks for a view of what a convolution gives
    module = networks.module(1, 0)
    torch.testing.assert_close(module(probe), networks(x)[1, 0])
    plain = build_networks(CNNS["normalised"], [1, 2], n_peers=1, probe=probe, device=CPU)
    assert isinstance(plain, StackedNetworks)


class Product(nn.Module):
    """A product of its own, which autocast reaches in vmap, before a batch norm."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(12, 8))
        self.norm, self.last = nn.BatchNorm1d(8), nn.Linear(8, 10)

    def forward(self, x):
        return self.last(self.norm(x @ self.weight))


def test_what_only_bfloat16_forbids_is_found_before_training():
    def kind(enabled):
        autocast = partial(torch.autocast, "cpu", torch.bfloat16, enabled=enabled)
        probe = torch.rand(4, 12)
        return type(
            build_networks(Product, [1, 2], n_peers=1, probe=probe, device=CPU, autocast=autocast)
        )

    assert kind(enabled=False) is StackedNetworks
    assert kind(enabled=True) is ModuleNetworks


class Replacing(nn.Module):
    """Assigns its buffer anew, which a functional call cannot see."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(12, 10)
        self.register_buffer("mean", torch.zeros(12))

    def forward(self, x):
        self.mean = 0.9 * self.mean + 0.1 * x.mean(0).detach()
        return self.linear(x - self.mean)


def test_buffers_that_are_replaced_are_trained_one_by_one():
    networks = build_networks(Replacing, [1, 2], n_peers=1, probe=torch.rand(4, 12), device=CPU)
    assert isinstance(networks, ModuleNetworks)


def test_a_dropped_population_is_freed_at_once():
    import gc
    import weakref

    gc.disable()
    try:
        networks = StackedNetworks(Dropping, [1], 1, CPU)
        networks(torch.rand(2, 12))
        gone = weakref.ref(networks)
        del networks
        assert gone() is None
    finally:
        gc.enable()


def test_dropout_masks_equal_stacked_and_one_by_one_and_differ_between_networks():
    stacked, alone = (cls(Dropping, [1, 2], 2, CPU) for cls in (StackedNetworks, ModuleNetworks))
    x = torch.rand(8, 12)
    first = stacked(x)
    torch.testing.assert_close(first, alone(x))
    assert not torch.equal(first, stacked(x))  # fresh masks each time
    for networks in (stacked, alone):
        networks.train(False)
    assert torch.equal(stacked(x), stacked(x))


@pytest.mark.parametrize("cls", [StackedNetworks, ModuleNetworks])
def test_keep_drops_the_others_with_their_optimiser_state(cls):
    build, shape = BUILDS["mlp"]
    x, y = torch.rand(8, *shape), torch.arange(8)

    def run(drop):
        networks = cls(build, [1, 2, 3], 2, CPU)
        optimizer = make_optimizer(networks.parameters(), TrainingConfig(learning_rate=1e-2))
        for step in range(4):
            if drop and step == 2:
                networks.keep([0, 2], optimizer)
            rate = torch.full((networks.n_candidates,), 0.7)
            train_step(networks, optimizer, METHODS["co-teaching"], x, y, rate)
        return networks

    whole, dropped = run(False), run(True)
    assert dropped.n_candidates == 2
    assert relative(dropped.module(0, 1), whole.module(0, 1)) < 1e-5
    assert relative(dropped.module(1, 0), whole.module(2, 0)) < 1e-5


@pytest.mark.parametrize("p", [0.02, 0.3, 0.5, 0.99, 0.999, 0.9999])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_dropout_masks_drop_each_element_by_itself_and_keep_the_mean(p, dtype):
    generators = [torch.Generator().manual_seed(seed) for seed in (0, 1)]
    masks = layers.dropout_masks(torch.empty(2, 333, 333, dtype=dtype), p, generators)
    assert masks.dtype == dtype
    kept = (masks > 0).double().flatten(1)
    n, rounded = kept.shape[1], 1 / layers.kept_factor(p, torch.float64)  # the share that is kept
    assert abs(1 - rounded - p) <= max(min(p, 1 - p) / 100, 2**-16)
    torch.testing.assert_close(masks.flatten(1), (kept / rounded).to(dtype))
    assert masks.max() == layers.kept_factor(p, dtype)  # a backward pass multiplies by that
    for distance in (0, 1, 2, 3, 4, 333):  # 0: the share itself; else pairs of elements
        both = (kept * kept.roll(distance, 1)).mean(1)
        expected = rounded ** (1 if distance == 0 else 2)
        assert ((both - expected).abs() < 5 * (expected / n) ** 0.5 + 2 / n).all()
    assert abs((kept[0] * kept[1]).mean() - rounded**2) < 5 * rounded / n**0.5


def test_state_round_trip_includes_dropout_generators():
    networks = StackedNetworks(Dropping, [1, 2], 1, CPU)
    saved = {name: tensor.clone() for name, tensor in networks.state().items()}
    x = torch.rand(4, 12)
    first = networks(x)
    networks.load_state(saved)
    assert torch.equal(networks(x), first)


def dropping_perceptron():
    return nn.Sequential(
        nn.Flatten(), nn.Linear(12, 16), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Linear(16, 10)
    )


def test_a_perceptron_with_dropout_keeps_its_masks_whoever_leaves_and_after_a_reload():
    alone, together = (
        StackedNetworks(dropping_perceptron, seeds, 2, CPU) for seeds in ([7], [3, 7])
    )
    assert alone._layers is not None
    x = torch.rand(8, 12)
    torch.testing.assert_close(alone(x)[0], together(x)[1])
    together.keep([1], torch.optim.SGD(together.parameters(), lr=0.1))
    saved = {name: tensor.clone() for name, tensor in together.state().items()}
    first = together(x)
    torch.testing.assert_close(alone(x)[0], first[0])
    together.load_state(saved)
    assert torch.equal(together(x), first)
    together.train(False)
    assert torch.equal(together(x), together(x))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert together(x).dtype == torch.bfloat16


def test_a_shared_bias_stays_stacked():
    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(10, 12))

        def forward(self, x):
            return nn.functional.linear(x, self.weight, torch.arange(10.0))

    networks = build_networks(Constant, [1, 2], n_peers=1, probe=torch.rand(4, 12), device=CPU)
    assert isinstance(networks, StackedNetworks)


class Branching(nn.Module):
    """Control flow on data: vmap cannot take it."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(12, 10)

    def forward(self, x):
        y = self.linear(x)
        return y * 2 if y.sum().item() > 0 else y


def test_what_vmap_cannot_take_is_trained_one_by_one():
    probe = torch.rand(2, 12)
    assert isinstance(
        build_networks(Branching, [1, 2], n_peers=1, probe=probe, device=CPU), ModuleNetworks
    )
    assert isinstance(
        build_networks(Dropping, [1, 2], n_peers=1, probe=probe, device=CPU), StackedNetworks
    )


def plain(*layers):
    return lambda: nn.Sequential(nn.Flatten(), *(layer() for layer in layers))


PLAIN = {
    "one layer": plain(partial(nn.Linear, 12, 10)),
    "no bias, dropout first": plain(
        partial(nn.Dropout, 0.3), partial(nn.Linear, 12, 10, bias=False)
    ),
    "deep": plain(
        partial(nn.Linear, 12, 16),
        partial(nn.LeakyReLU, 0.1),
        partial(nn.Dropout, 0.5),
        partial(nn.Linear, 16, 8, bias=False),
        nn.Tanh,
        partial(nn.Dropout, 0.0),
        partial(nn.Linear, 8, 10),
    ),
    "by hand": plain(
        partial(nn.Linear, 12, 16),
        nn.ReLU,
        partial(nn.Dropout, 0.6),
        partial(nn.Linear, 16, 8, bias=False),
        partial(nn.ReLU, inplace=True),
        partial(nn.Linear, 8, 10),
    ),
    "dropped whole": plain(
        partial(nn.Linear, 12, 16), nn.ReLU, partial(nn.Dropout, 1.0), partial(nn.Linear, 16, 10)
    ),
}


@pytest.mark.parametrize("name", PLAIN)
def test_plain_perceptrons_go_without_vmap_to_the_same_result(name):
    build = lambda: PLAIN[name]().double()  # noqa: E731
    fast, slow, alone = (
        cls(build, [1, 2], 2, CPU) for cls in (StackedNetworks, StackedNetworks, ModuleNetworks)
    )
    assert fast._layers is not None
    assert (fast._perceptron is not None) == (name in ("one layer", "by hand"))
    slow._layers = slow._perceptron = None  # by vmap
    others = [alone] if "dropout first" in name else [alone, slow]  # vmap has no masks for inputs
    for networks in (fast, *others):
        steps(networks, (3, 4), 5, lr=0.1, dtype=torch.float64)
    for candidate in range(2):
        for peer in range(2):
            for other in others:
                assert relative(fast.module(candidate, peer), other.module(candidate, peer)) < 1e-12


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_gradients_by_hand_are_those_of_autograd(dtype):
    """Of logits in either memory layout, and with samples that were not selected."""
    networks = StackedNetworks(lambda: PLAIN["by hand"]().double(), [1, 2], 2, CPU)
    other = StackedNetworks(lambda: PLAIN["by hand"]().double(), [1, 2], 2, CPU)
    if dtype == torch.bfloat16:
        for tensor in (*networks._parameters.values(), *other._parameters.values()):
            tensor.data = tensor.data.float()
    autocast = partial(torch.autocast, "cpu", dtype) if dtype == torch.bfloat16 else nullcontext
    x = torch.rand(8, 12, dtype=torch.float64).to(networks.parameters()[0].dtype)
    for has_classes_last in (False, True):
        with autocast():
            by_hand, by_autograd = networks.outputs(x), other(x)
        assert not by_hand.requires_grad and by_hand.dtype == dtype
        torch.testing.assert_close(by_hand, by_autograd.detach(), rtol=1e-12, atol=1e-12)
        gradient = torch.randn_like(by_hand)
        gradient[:, :, 3:] = 0
        gradient = gradient.contiguous() if has_classes_last else gradient.mT.contiguous().mT
        for one in (*networks.parameters(), *other.parameters()):
            one.grad = None
        networks.backward(by_hand, gradient)
        by_autograd.backward(gradient)
        for one, expected in zip(networks.parameters(), other.parameters(), strict=True):
            assert one.grad.dtype == one.dtype
            far = (one.grad - expected.grad).norm() / expected.grad.norm()
            assert far < (1e-12 if dtype == torch.float64 else 0.01)


@pytest.mark.parametrize("build", [PLAIN["by hand"], PLAIN["deep"]])
def test_a_loss_in_closed_form_trains_as_by_autograd(build):
    own = replace(METHODS["co-teaching"], name="own", loss=lambda *x: per_sample_cross_entropy(*x))
    trained = []
    for method in (METHODS["co-teaching"], own):
        networks = StackedNetworks(build, [1, 2], 2, CPU)
        optimizer = torch.optim.SGD(networks.parameters(), lr=0.5)
        generator = torch.Generator().manual_seed(0)
        for _ in range(3):
            x, y = torch.rand(8, 12, generator=generator), torch.arange(8)
            train_step(networks, optimizer, method, x, y, torch.tensor([0.5, 0.9]))
        trained.append([p.detach() for p in networks.parameters()])
    for one, other in zip(*trained, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def cnn(*layers, features):
    return lambda: nn.Sequential(
        *(layer() for layer in layers), nn.Flatten(), nn.Linear(features, 10)
    )


CNNS = {
    "pooled at once": cnn(
        partial(nn.Conv2d, 3, 6, 5),
        partial(nn.MaxPool2d, 2),
        partial(nn.ReLU, inplace=True),
        partial(nn.Conv2d, 6, 4, 3, bias=False),
        partial(nn.MaxPool2d, 2, stride=1, padding=1),
        nn.Tanh,
        features=4 * 3 * 3,
    ),
    "geometry": cnn(
        partial(nn.Conv2d, 3, 6, (3, 2), stride=(2, 1), padding=(1, 0), groups=3),
        partial(nn.MaxPool2d, (2, 3), ceil_mode=True),
        partial(nn.Conv2d, 6, 4, 2, dilation=(1, 2), padding=1, groups=2),
        partial(nn.AvgPool2d, 2),
        features=4 * 2 * 2,
    ),
    "normalised": cnn(
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.MaxPool2d(2)),
        partial(nn.LeakyReLU, 0.01),
        partial(nn.Conv2d, 4, 4, 3, padding=1),
        partial(nn.BatchNorm2d, 4, affine=False, momentum=0.3),
        partial(nn.Conv2d, 4, 4, 1),
        partial(nn.BatchNorm2d, 4, track_running_stats=False),
        partial(nn.AdaptiveAvgPool2d, 1),
        features=4,
    ),
    "frozen": cnn(
        lambda: nn.Conv2d(3, 4, 3).requires_grad_(requires_grad=False),
        partial(nn.MaxPool2d, 2),
        lambda: nn.BatchNorm2d(4).requires_grad_(requires_grad=False),
        partial(nn.Conv2d, 4, 4, 3),
        features=4 * 3 * 3,
    ),
    "dropped": cnn(
        partial(nn.Dropout, 0.2),
        partial(nn.Conv2d, 3, 4, 3),
        partial(nn.Dropout, 0.5),
        partial(nn.MaxPool2d, 2),
        features=4 * 5 * 5,
    ),
}


@pytest.mark.parametrize("name", CNNS)
def test_plain_cnns_go_without_vmap_to_the_same_result(name, monkeypatch):
    monkeypatch.setattr(layers, "PART", 3)  # of eight samples
    build = lambda: CNNS[name]().double()  # noqa: E731
    fast, slow, alone = (
        cls(build, [1, 2], 2, CPU) for cls in (StackedNetworks, StackedNetworks, ModuleNetworks)
    )
    assert fast._layers is not None
    slow._layers = None  # by vmap
    others = [alone] if name == "dropped" else [alone, slow]  # vmap has no masks for inputs
    for networks in (fast, *others):
        steps(networks, (3, 12, 12), 5, lr=0.1, dtype=torch.float64)  # and ends in evaluation
    x = torch.rand(4, 3, 12, 12, dtype=torch.float64)
    for other in others:
        torch.testing.assert_close(fast(x), other(x), rtol=1e-10, atol=1e-12)
        for candidate in range(2):
            for peer in range(2):
                own, its = fast.module(candidate, peer), other.module(candidate, peer)
                assert relative(own, its) < 1e-12


def test_plain_cnns_in_bfloat16_are_as_near_to_the_truth_as_modules():
    autocast = partial(torch.autocast, "cpu", torch.bfloat16)
    build, x = partial(MODELS["model1"], (3, 32, 32), 10), torch.rand(40, 3, 32, 32)
    y = torch.arange(40) % 10

    def gradients(cls, context):
        networks = cls(build, [1, 2], 2, CPU)
        with context():
            logits = networks(x).float()
        losses = METHODS["co-teaching"].loss(logits, y)
        losses.mean((1, 2)).sum().backward()
        modules = [p.grad for p in networks.parameters()]
        n = len(modules) if cls is StackedNetworks else len(modules) // 4
        own = modules if cls is StackedNetworks else [torch.stack(modules[i::n]) for i in range(n)]
        return [g.flatten() for g in own]

    def distance(gradient, truth):
        return float((gradient - truth).norm() / truth.norm())

    truth = gradients(ModuleNetworks, nullcontext)
    far = [
        [
            float((g - t).norm() / t.norm())
            for g, t in zip(gradients(cls, autocast), truth, strict=True)
        ]
        for cls in (StackedNetworks, ModuleNetworks)
    ]
    assert all(0 < own < 1.5 * other + 0.01 for own, other in zip(*far, strict=True))


@pytest.mark.parametrize("pool", [None, layers.Geometry((2, 2), (0, 0), (1, 1), (2, 2))])
def test_filled_up_channels_change_no_value(pool, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(4, 2 * 6, 8, 8, generator=generator, requires_grad=True)
    weight = torch.rand(2, 5, 6, 3, 3, generator=generator, requires_grad=True)
    bias = torch.rand(2, 5, generator=generator, requires_grad=True)
    geometry = layers.Geometry((1, 1), (0, 0), (1, 1))

    def run():
        with torch.autocast("cpu", torch.bfloat16):
            y = layers.stacked_convolution(x, weight, bias, geometry, stacked=True, pool=pool)
        gradients = torch.autograd.grad(y.float().square().sum(), (x, weight, bias))
        return [y, *gradients]

    widths, convolve = [], torch.conv2d
    watched = lambda x, *rest: widths.append(x.shape[1]) or convolve(x, *rest)  # noqa: E731
    monkeypatch.setattr(torch, "conv2d", watched)
    found = run()
    monkeypatch.setattr(layers, "_fast_channels", lambda weight, *_: weight.shape[1])
    expected = run()
    assert widths == [2 * 8, 2 * 6]
    assert [y.shape for y in found] == [y.shape for y in expected]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0.02, atol=0.1)
        assert one.dtype == other.dtype


class Doubled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


def test_what_is_no_plain_sequence_goes_through_vmap():
    hooked = nn.Linear(12, 10)
    hooked.register_forward_hook(lambda module, args, output: output + 1)
    shared = nn.Linear(12, 12)
    norm, stopped = nn.BatchNorm2d(3, affine=False), nn.BatchNorm2d(3)
    stopped.track_running_stats = False  # afterwards: the statistics are there
    last = nn.Sequential(nn.Flatten(), nn.Linear(12, 10))
    tied = nn.Sequential(nn.Flatten(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 12))
    tied[3].weight = tied[1].weight
    for odd in (
        nn.Sequential(nn.Flatten(), Doubled(12, 10)),
        nn.Sequential(nn.Flatten(), hooked),
        nn.Sequential(nn.Flatten(), shared, nn.ReLU(), shared),
        nn.Sequential(nn.Flatten(2), nn.Linear(4, 10)),
        nn.Sequential(nn.Linear(12, 10)),
        nn.Sequential(nn.Flatten(), nn.BatchNorm1d(12), nn.Linear(12, 10)),
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1)),
        nn.Sequential(nn.Conv2d(3, 4, 3, padding="same"), nn.Flatten(), nn.Linear(4, 10)),
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(7, 8), nn.Flatten(), nn.Linear(4, 10)),
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.PReLU(), nn.Flatten(), nn.Linear(4, 10)),
        nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4, 10)),
        nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 10)),
        nn.Sequential(nn.Conv2d(3, 3, 1), norm, nn.Conv2d(3, 3, 1), norm, *last),
        nn.Sequential(nn.Conv2d(3, 3, 1), stopped, *last),
        nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, momentum=None), nn.Flatten(), nn.Linear(4, 10)
        ),
        tied,
        Dropping(),
    ):
        assert StackedNetworks(lambda odd=odd: odd, [1], 1, CPU)._layers is None


def test_linear_layers_on_sequences_and_without_bias():
    class Sequences(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(5, 6, bias=False)
            self.outer = nn.Linear(6, 10)

        def forward(self, x):  # [B, 3, 5]
            return self.outer(self.inner(x).relu()).mean(1)

    stacked, alone = (cls(Sequences, [1, 2], 2, CPU) for cls in (StackedNetworks, ModuleNetworks))
    x = torch.rand(4, 3, 5)
    torch.testing.assert_close(stacked(x), alone(x))


def test_networks_leave_the_global_generator_alone():
    before = torch.random.get_rng_state()
    networks = ModuleNetworks(Dropping, [1], 1, CPU)
    networks(torch.rand(2, 12, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(before, torch.random.get_rng_state())
