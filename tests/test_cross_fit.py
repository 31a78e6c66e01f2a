"""Cross-fitted training: what each network sees, the choice, refined labels, going on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own convention
from torch import Tensor

from keeprate import Data, InputError, SearchConfig, TrainingConfig, prepare, search, train
from keeprate.data import join, part
from keeprate.engine import Setup, Supervision, make_setup
from keeprate.engine.folds import Folds
from keeprate.engine.selection import held_in_small_loss
from keeprate.noise import best_power, estimate_noise, to_power
from keeprate.records import judge
from keeprate.runs import cross_fit
from keeprate.runs.cross_fit import (
    make_folds,
    n_folds,
    pooled,
    train_cross_fitted,
)
from keeprate.runs.judgement import by_all, by_clean_labels, by_confident_half, refine

CONFIG = TrainingConfig(epochs=4, batch_size=50)


@pytest.fixture(scope="module")
def noisy() -> Data:
    return prepare("digits", noise="pairflip:0.4", validation="noisy", limit=700, seed=1000)


@pytest.fixture(scope="module")
def half_clean() -> Data:
    return prepare("digits", noise="pairflip:0.45", n_validation=120, limit=500, seed=1000)


def pool_of(data: Data) -> tuple[Setup, Tensor]:
    """The training and the validation samples together, and which of them are clean."""
    return pooled(make_setup(data, model="mlp", config=CONFIG, seed=3, out=None))


def networks_of(data: Data) -> dict[str, list[Tensor]]:
    """The first weights of the networks of every arm."""
    found: dict[str, list[Tensor]] = {}
    original = cross_fit._result

    def spy(one: cross_fit.Trained, *, is_own: bool) -> object:
        found[one.arm.name] = [next(m.parameters()).detach() for m in one.networks.modules]
        return original(one, is_own=is_own)

    setup, is_clean = pool_of(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cross_fit, "_result", spy)
        train_cross_fitted(setup, is_clean, 3)
    return found


def with_other_labels(data: Data, *, fold: int, clean: bool) -> tuple[Data, int]:
    """The same data, the labels of one fold moved to the next class; how many were moved."""
    setup, is_clean = pool_of(data)
    pool = setup.data
    folds = make_folds(pool.train.labels, is_clean, 3, 3)
    moved = (folds == fold) & (is_clean == clean)
    labels = torch.where(moved, (pool.train.labels + 1) % 10, pool.train.labels)
    n = len(data.train)
    changed = replace(
        data,
        train=replace(data.train, labels=labels[:n]),
        validation=replace(data.validation, labels=labels[n:]),
    )
    return changed, int(moved.sum())


def keep_folds(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deal as by these labels from now on: the fold of a sample depends on its label."""
    setup, is_clean = pool_of(data)
    pool = setup.data
    folds = make_folds(pool.train.labels, is_clean, 3, 3)
    monkeypatch.setattr("keeprate.runs.cross_fit.make_folds", lambda *_: folds)


def test_folds_hold_every_class_in_equal_parts() -> None:
    labels = torch.tensor([0] * 50 + [1] * 9 + [2] * 6)
    is_clean = torch.arange(65) % 5 == 0
    fold = make_folds(labels, is_clean, 5, seed=0)
    for label in range(3):
        for kind in (True, False):
            sizes = fold[(labels == label) & (is_clean == kind)].bincount(minlength=5)
            assert sizes.max() - sizes.min() <= 1
    assert not torch.equal(fold, make_folds(labels, is_clean, 5, seed=1))


def test_no_network_learns_from_the_clean_labels_of_its_fold(
    half_clean: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_folds(half_clean, monkeypatch)
    before = networks_of(half_clean)
    changed, n_moved = with_other_labels(half_clean, fold=1, clean=True)
    assert n_moved >= 30
    after = networks_of(changed)
    assert set(before) == {
        "clean", "noisy-1", "noisy-0.6", "gold", "refined-clean", "refined-gold",
    }  # fmt: skip
    for name, weights in before.items():
        assert torch.equal(weights[1], after[name][1]), name
        learns = "noisy" not in name
        assert torch.equal(weights[0], after[name][0]) != learns, name


def test_no_network_of_the_first_stage_learns_from_its_fold(
    noisy: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_folds(noisy, monkeypatch)
    before = networks_of(noisy)
    after = networks_of(with_other_labels(noisy, fold=2, clean=False)[0])
    for name in ("keep-1", "keep-0.8", "keep-0.6", "keep-0.45"):
        assert torch.equal(before[name][2], after[name][2]), name
        assert not torch.equal(before[name][1], after[name][1]), name


def test_selection_is_among_the_samples_that_a_network_may_learn_from() -> None:
    losses = torch.tensor([[[0.1, torch.inf, 0.3, 0.2, torch.inf, 0.9]]])
    labels = torch.zeros(6, dtype=torch.int64)
    kept = held_in_small_loss(losses, losses[..., None], labels, torch.tensor([0.5]))
    assert kept.tolist() == [[[1.0, 0.0, 0.0, 1.0, 0.0, 0.0]]]  # two of four


def test_losses_of_soft_and_corrected_targets() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 5, generator=generator)
    targets = torch.rand(2, 3, 4, 5, generator=generator).softmax(-1)
    matrix = torch.rand(3, 5, 5, generator=generator).softmax(-1)
    fold, corrected = torch.tensor([0, 1, 2, 0]), torch.tensor([True, False, True, False])
    judged, ones = torch.ones(4, dtype=torch.bool), torch.ones(4)
    plain, gold = (
        Supervision(fold, judged, target, ones, by, corrected if by is not None else None)
        for target, by in ((targets[0], None), (targets[1], matrix))
    )
    folds = Folds.of([plain, gold], 5, torch.device("cpu"))
    lesson = folds.batch(torch.arange(4))
    losses = lesson.losses(logits)
    for k, r, b in np.ndindex(2, 3, 4):
        p = logits[k, r, b].softmax(-1)
        if k == 1 and corrected[b]:
            p = matrix[r].T @ p
        expected = -(targets[k, r, b] * p.log()).sum()
        assert losses[k, r, b].item() == pytest.approx(expected.item(), rel=1e-4)
    assert lesson.weights[0].tolist() == [[0, 1, 1, 0], [1, 0, 1, 1], [1, 1, 0, 1]]
    alone = Folds.of([plain], 5, torch.device("cpu")).batch(torch.arange(4)).losses(logits[:1])
    expected_loss = F.cross_entropy(
        logits[0].flatten(0, 1), targets[0].flatten(0, 1), reduction="none"
    )
    assert torch.allclose(alone[0].flatten(), expected_loss, atol=1e-5)
    assert torch.equal(folds.held_out(logits, torch.arange(4))[1], logits[1, fold, torch.arange(4)])


def test_refined_labels_follow_bayes_rule() -> None:
    # 80 confident opinions of class 0, of which 20 are labelled 1: T[0, 1] is about 1/4.
    opinions = torch.tensor([[0.9, 0.1]] * 80 + [[0.1, 0.9]] * 80)
    labels = torch.tensor([0, 0, 0, 1] * 20 + [1] * 80)
    refined = refine(opinions, labels)
    share = (10.5 / 41) * 0.9  # half of the 80 count, and half a sample more in each entry
    expected = share / (share + 0.1 * 40.5 / 41)
    assert refined[3, 0].item() == pytest.approx(expected, rel=1e-3)
    assert refined[3].argmax() == 0  # the label is more probably wrong than right
    assert refined.sum(1).allclose(torch.ones(160))


def test_a_temperature_does_not_change_the_choice() -> None:
    logits = torch.randn(200, 4, generator=torch.Generator().manual_seed(0)) * 3
    labels = logits.argmax(1)
    labels[:20] = 0
    sharp, flat = (best_power((logits / t).softmax(1), labels)[1] for t in (1, 2))
    assert flat == pytest.approx(sharp, abs=2e-3)
    assert sharp > best_power(logits.flip(0).softmax(1), labels)[1]


@pytest.mark.parametrize("rate", [0.0, 0.1])
def test_suggestions_of_weak_networks_do_no_harm(rate: float) -> None:
    """Half of the predictions are wrong, as the probabilities say: few labels can be judged."""
    rng = np.random.default_rng(0)
    opinions = torch.from_numpy(rng.dirichlet([0.5] * 6, size=6_000)).float()
    true = torch.multinomial(opinions, 1, generator=torch.Generator().manual_seed(0))[:, 0]
    other = torch.from_numpy(rng.integers(6, size=6_000))
    labels = torch.where(torch.from_numpy(rng.random(6_000)) < rate * 6 / 5, other, true)
    before = (labels != true).float().mean()
    left, half = {}, by_confident_half(opinions, labels)
    for name, pairs in {"one": [half], "both": [half, by_all(opinions, labels)]}.items():
        corrected = torch.from_numpy(judge(labels, pairs).corrected)
        left[name] = float((corrected != true).float().mean() - before)
    assert left["both"] <= left["one"] and left["both"] < 0.002


def test_clean_labels_tell_wrong_labels_from_unsure_networks() -> None:
    """The networks are less sure than they could be; the clean samples show it."""
    rng = np.random.default_rng(1)
    sure = torch.from_numpy(rng.dirichlet([0.15] * 6, size=9_000)).float()
    true = torch.multinomial(sure, 1, generator=torch.Generator().manual_seed(1))[:, 0]
    unsure = to_power(sure, 0.5)
    other = torch.from_numpy(rng.integers(6, size=9_000))
    labels = torch.where(torch.from_numpy(rng.random(9_000)) < 0.2 * 6 / 5, other, true)
    power, _ = best_power(unsure[:1_000], true[:1_000])
    assert power == pytest.approx(2, rel=0.15)
    brought, matrix = by_clean_labels(unsure[1_000:], labels[1_000:], power)
    wrong = (labels != true)[1_000:].numpy()
    quality = judge(labels[1_000:], [(brought, matrix)])
    said = 1 - quality.scores
    assert said.mean() == pytest.approx(wrong.mean(), abs=0.03)
    assert wrong[said > 0.8].mean() > 0.8 and wrong[said < 0.1].mean() < 0.1
    is_right = unsure[:1_000].argmax(1) == true[:1_000]
    found = estimate_noise(brought, labels[1_000:], is_right=is_right)
    blind = estimate_noise(unsure[1_000:], labels[1_000:])
    assert abs(found.noise_rate - wrong.mean()) < 0.02 < abs(blind.noise_rate - wrong.mean())


def test_joined_splits_keep_what_both_have(half_clean: Data) -> None:
    first, second = half_clean.train, half_clean.validation
    both = join(replace(first, weights=torch.full((len(first),), 2.0)), second)
    assert len(both) == len(first) + len(second)
    assert both.weights is not None
    assert both.weights[-1] == 1 and both.weights[0] == 2
    assert torch.equal(both.rows, torch.cat([first.rows, second.rows]))
    assert part(both, np.arange(len(first))).labels.equal(first.labels)


def test_it_beats_standard_training_without_and_with_clean_labels(
    noisy: Data, half_clean: Data
) -> None:
    config = replace(CONFIG, epochs=16)
    run = train(noisy, method="auto", config=config, seed=0)
    accuracy = {one.name: one.last.test_accuracy for one in run.results}
    assert run.results[0].label.startswith("Chosen: refined labels")
    assert accuracy["auto"] > accuracy["keep-1"] + 0.05
    # All labels that may be wrong are judged, those of the validation samples too.
    assert len(run.label_quality.rows) == len(noisy.train) + len(noisy.validation)
    truth = torch.cat([noisy.train.rows[noisy.train.labels != noisy.train.true_labels]])
    listed = set(run.label_quality.rows[run.label_quality.is_issue].tolist())
    of_train = listed & set(noisy.train.rows.tolist())
    found = len(of_train & set(truth.tolist()))
    assert found > 0.75 * len(of_train) and found > 0.6 * len(truth)
    rate = float((noisy.train.labels != noisy.train.true_labels).float().mean())
    assert 1 - run.label_quality.scores.mean() == pytest.approx(rate, abs=0.1)  # calibrated

    run = train(half_clean, method="auto", config=config, seed=0, baselines="standard")
    accuracy = {one.name: one.last.test_accuracy for one in run.results}
    assert accuracy["auto"] > accuracy["clean"] + 0.01
    assert accuracy["auto"] > accuracy["standard"] + 0.1
    assert len(run.label_quality.rows) == len(half_clean.train)
    proba = run.classifier.predict_proba(half_clean.test.inputs.numpy())
    assert (proba.argmax(1) == half_clean.test.labels.numpy()).mean() == pytest.approx(
        accuracy["auto"]
    )


def test_labels_without_a_cause_are_not_found_out_of_sample() -> None:
    """Inputs say nothing of the labels: out of sample, three of four predictions are wrong."""
    rng = np.random.default_rng(0)
    inputs, labels = rng.normal(size=(600, 5)).astype(np.float32), rng.integers(0, 4, 600)
    data = prepare((inputs, labels), validation="noisy", n_test=0)
    run = train(data, config=TrainingConfig(epochs=20, batch_size=50, learning_rate=3e-3))
    estimate = run.record.noise_estimate
    assert estimate.low == 0 and estimate.high > 0.72
    assert run.results[0].label.startswith("Chosen: refined labels, round 2")


def test_a_search_outlives_judges_that_cannot_be_trained(
    noisy: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise InputError("the loss of judges of the labels was not finite")

    monkeypatch.setattr("keeprate.runs.outputs.judge_by_folds", fail)
    options = {"config": CONFIG, "baselines": False, "restarts": 1}
    with pytest.warns(UserWarning, match="by the networks that learnt them.*not finite"):
        run = search(noisy, budget=2, **options)
    assert len(run.label_quality.rows) == len(noisy.train) + len(noisy.validation)
    monkeypatch.setattr("keeprate.runs.outputs.fits", lambda *_: False)  # nor do they fit
    assert search(noisy, budget=2, **options).record.noise_estimate is not None


def test_a_search_is_judged_by_networks_that_left_the_labels_out() -> None:
    """Networks that learn every label call labels without a cause right."""
    rng = np.random.default_rng(0)
    inputs, labels = rng.normal(size=(600, 20)).astype(np.float32), rng.integers(0, 4, 600)
    data = prepare((inputs, labels), validation="noisy", n_test=0)
    config = TrainingConfig(epochs=60, batch_size=50, learning_rate=3e-3)
    options = {"config": config, "baselines": False, "restarts": 1}
    only = SearchConfig(sampler="random", warm_start=False, space="co-teaching")
    learnt = train(data, schedule="constant", **options)
    searched = search(data, budget=2, search_config=only, **options)
    assert learnt.label_quality.scores.mean() > 0.8
    assert searched.label_quality.scores.mean() < 0.4
    assert searched.label_quality.rows.tolist() == list(range(600))
    assert searched.record.noise_estimate.high > 0.72
    assert searched.record.cost.final_seconds > searched.results[0].seconds


@pytest.mark.parametrize(
    ("name", "stop_at"), [("half_clean", 6), ("half_clean", 11), ("noisy", 3), ("noisy", 6)]
)
def test_an_interrupted_run_goes_on_to_the_same_result(
    name: str,
    stop_at: int,
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cross_fit, "LEAST_STEPS", 1)
    data: Data = request.getfixturevalue(name)
    folder, n_calls = tmp_path_factory.mktemp("run") / "run", 0
    options = {"method": "auto", "config": CONFIG, "seed": 5, "checkpoint_seconds": 0}

    def stop(stage: str, done: float, total: float, best: str | None) -> None:
        nonlocal n_calls
        n_calls += 1
        if done == stop_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(data, out=folder, progress=stop, **options)
    assert n_calls == stop_at
    resumed, whole = (train(data, out=out, **options) for out in (folder, None))
    early = 4 if name == "half_clean" else 2  # epochs of a stage that is not the last one
    assert {len(one.curves) for one in whole.results[1:]} == {early}
    assert len(whole.schedule) == len(whole.results[0].curves) == 4
    assert np.array_equal(resumed.label_quality.scores, whole.label_quality.scores)
    for one, other in zip(resumed.results, whole.results, strict=True):
        assert one.curves.validation_score == other.curves.validation_score
    assert not list(folder.glob("*checkpoint*"))
    again = train(data, out=folder, **options)
    assert np.allclose(again.label_quality.scores, whole.label_quality.scores, atol=1e-6)


def test_folds_are_fewer_where_samples_are_many(noisy: Data) -> None:
    assert n_folds(noisy) == 5
    many = replace(noisy, train=part(noisy.train, np.arange(5).repeat(4_000)))
    assert n_folds(many) == 3


def test_a_schedule_of_ones_own_is_co_teachings(noisy: Data) -> None:
    run = train(noisy, method="auto", schedule="constant", config=CONFIG)
    assert run.results[0].method == "co-teaching"
