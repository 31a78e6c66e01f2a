"""The best epoch's weights, kept beside the last one's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import keeprate
from keeprate.engine.best import BestEpoch
from keeprate.engine.checkpoints import load_population, save_population
from keeprate.engine.config import TrainingConfig
from keeprate.engine.loop import train_population
from keeprate.engine.methods import get_method
from keeprate.engine.networks import weights_of
from keeprate.engine.population import Candidate, Population, new_population
from keeprate.engine.setup import Setup, make_setup
from keeprate.report.words import results_in_words
from keeprate.schedules import Schedule
from tests.searches import ALONE

# Standard networks memorise within a few epochs of small batches: the best one is not the last.
CONFIG = TrainingConfig(
    epochs=6, batch_size=16, learning_rate=5e-3, precision="float32", keep="best"
)


@pytest.fixture(scope="module")
def data() -> keeprate.Data:
    return keeprate.prepare("digits", noise="pairflip:0.45", seed=0, limit=500)


def population_of(setup: Setup, stacked: bool | None = None) -> Population:
    method = get_method("co-teaching")
    tables = np.array([[1.0] * 6, [1, 0.9, 0.8, 0.7, 0.6, 0.5], [0.8] * 6])
    some = [Candidate(number, Schedule(rates), method) for number, rates in enumerate(tables)]
    return new_population(some, setup, stream="test", stacked=stacked)


def weights(population: Population, row: int, snapshot: object = None) -> list[torch.Tensor]:
    """Of both peers of a candidate."""
    networks = population.networks
    modules = [networks.module(row, peer, snapshot) for peer in range(2)]
    return [tensor.clone() for module in modules for tensor in weights_of(module).values()]


def equal(some: list[torch.Tensor], others: list[torch.Tensor]) -> bool:
    return all(a.equal(b) for a, b in zip(some, others, strict=True))


@pytest.mark.parametrize("stacked", [True, False])
def test_the_weights_are_those_of_the_first_of_the_best_epochs(
    data: keeprate.Data, stacked: bool
) -> None:
    """Also after another candidate was dropped."""
    setup = make_setup(data, model="mlp", config=CONFIG, seed=0, out=None)
    population = population_of(setup, stacked)
    seen: dict[int, list[list[torch.Tensor]]] = {0: [], 2: []}

    def after_epoch(population: Population) -> None:
        if population.epoch == 3:
            population.drop([1])
        for row, number in enumerate(population.numbers):
            if number in seen:
                seen[number].append(weights(population, row))

    train_population(population, setup, stream="test", after_epoch=after_epoch)
    assert population.numbers == [0, 2]
    best_epochs = []
    for row, number in enumerate(population.numbers):
        scores = population.curves[number].validation_score
        best_epochs.append(int(np.argmax(scores)))  # the first of equal ones
        kept = weights(population, row, population.best.weights)
        assert [equal(kept, one) for one in seen[number]].index(True) == best_epochs[-1]
        assert float(population.best.score[row]) == pytest.approx(max(scores))
    assert min(best_epochs) < 5  # else the test says nothing


def test_a_score_that_is_no_number_is_never_the_best() -> None:
    data = keeprate.prepare("digits", noise="symmetric:0.2", seed=0, limit=100)
    setup = make_setup(data, model="mlp", config=CONFIG, seed=0, out=None)
    networks = population_of(setup).networks
    best = BestEpoch(networks)
    best.update(torch.tensor([0.5, float("nan"), 0.1]), networks)
    for parameter in networks.parameters():
        parameter.data.zero_()
    best.update(torch.tensor([float("nan"), 0.2, 0.1]), networks)
    assert best.score.tolist() == pytest.approx([0.5, 0.2, 0.1])
    name = next(iter(best.weights))
    changed = [bool((best.weights[name][row] == 0).all()) for row in range(6)]
    assert changed == [False, False, True, True, False, False]


def test_a_killed_training_goes_on_with_its_best_epoch(data: keeprate.Data, tmp_path: Path) -> None:
    setup = make_setup(data, model="mlp", config=CONFIG, seed=0, out=None)
    path = tmp_path / "checkpoint.safetensors"

    def save_at_four(population: Population) -> None:
        if population.epoch == 4:
            save_population(path, population)

    whole = population_of(setup)
    train_population(whole, setup, stream="test", after_epoch=save_at_four)
    resumed = population_of(setup)
    assert load_population(path, resumed) and resumed.epoch == 4
    train_population(resumed, setup, stream="test")
    assert resumed.best.score.equal(whole.best.score)
    for name, tensor in whole.best.weights.items():
        assert tensor.equal(resumed.best.weights[name])


@pytest.mark.parametrize("keep", ["last", "best"])
def test_the_classifier_has_the_weights_of_the_epoch_that_is_asked_for(
    data: keeprate.Data, tmp_path: Path, no_page: None, keep: str
) -> None:
    config = replace(CONFIG, keep=keep)
    options = {"method": "standard", "schedule": "constant", "model": "mlp", "config": config}
    run = keeprate.train(data, out=tmp_path / "run", **options)
    scores = run.results[0].curves.validation_accuracy
    assert max(scores) > scores[-1] + 0.02
    probabilities = run.classifier.predict_proba(data.validation.inputs.numpy())
    right = (probabilities.argmax(1) == data.validation.labels.numpy()).mean()
    assert right == pytest.approx(max(scores) if keep == "best" else scores[-1], abs=1e-6)
    words = results_in_words(run.record)
    epoch = 1 + scores.index(max(scores))
    sentence = f"The classifier has the weights of epoch {epoch}, the best by validation."
    assert (sentence in words) == (keep == "best")


def test_of_several_trainings_the_one_with_the_best_epoch_is_kept(
    data: keeprate.Data, no_page: None
) -> None:
    method = {"method": "standard", "schedule": "constant", "model": "mlp", "config": CONFIG}
    run = keeprate.train(data, restarts=3, **method)
    values = [restart.validation_score for restart in run.results[0].restarts]
    assert max(values) == max(run.results[0].curves.validation_score)
    assert len(set(values)) > 1


def test_an_automatic_training_with_a_best_epoch_is_co_teaching(
    data: keeprate.Data, no_page: None
) -> None:
    """Cross-fitted networks predict a fold each, and have no validation samples in common."""
    run = keeprate.train(data, config=replace(CONFIG, epochs=2), **ALONE)
    assert run.results[0].method == "co-teaching"


def test_what_is_kept_is_checked() -> None:
    with pytest.raises(keeprate.InputError, match="keep must be one of last, best, got 'first'"):
        TrainingConfig(keep="first")
