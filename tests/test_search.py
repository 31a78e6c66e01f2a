"""The main job: search, final networks, outputs; no leak."""

from __future__ import annotations

import csv
import itertools
import json
import sys
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import optuna
import pytest
import torch

import keeprate
from keeprate import SearchConfig
from keeprate.data.preprocessing import Normaliser
from keeprate.engine import lockstep, loop
from keeprate.engine.config import TrainingConfig
from keeprate.engine.curves import EpochMetrics
from keeprate.engine.methods import METHODS
from keeprate.engine.setup import make_setup
from keeprate.noise.inference import count_pairs, determinant_score
from keeprate.noise.transition import empirical_transition_matrix, transition_error
from keeprate.records.record import load_record
from keeprate.runs import finals as finals_module
from keeprate.runs import first as first_training
from keeprate.runs import outputs
from keeprate.runs.classifier import load
from keeprate.runs.finals import train_plans
from keeprate.runs.plans import Plan
from keeprate.runs.train_run import train
from keeprate.schedules.formulas import exponential_drop, plain_decay
from keeprate.schedules.spaces import SPACES, get_space
from keeprate.searching import trials
from keeprate.searching.proposals import Proposals, nearest_parameters
from keeprate.searching.study import ranked
from tests.searches import ALONE, CONFIG, SIXTEEN, essence, search


def test_search_leaves_a_record_a_classifier_and_label_scores(run, data):
    record = load_record(run.folder)
    assert [t.number for t in record.trials] == list(range(12))
    assert all(len(t.validation_score) == 3 for t in record.trials)
    assert [r.name for r in record.results] == ["searched", "co-teaching", "standard"]
    best, second = sorted(record.trials, key=lambda t: -t.value)[:2]
    assert record.finalists == ((best.number,), (second.number,))
    assert best.value == pytest.approx(best.validation_score[-1])
    saved = keeprate.Schedule.load(run.folder / "schedule.csv")
    assert np.array_equal(saved.keep_rate, run.schedule.keep_rate)
    assert record.cost.full_trainings == 12 + 1  # the first one is for the noise rate
    study = optuna.load_study(study_name="keeprate", storage=f"sqlite:///{run.folder}/study.db")
    assert [t.value for t in study.trials] == [t.value for t in record.trials]
    assert not list(run.folder.glob("checkpoint*"))


def test_without_clean_labels_the_search_goes_by_the_determinant(tmp_path, no_page):
    noisy = keeprate.prepare("digits", noise="pairflip:0.3", validation="noisy", seed=0)
    options = {"trials": 3, "config": CONFIG, "baselines": False, "restarts": 1}
    run = search(noisy, out=tmp_path, **options)
    assert run.record.data.criterion == "determinant"
    best = max(run.record.trials, key=lambda t: t.value)
    assert best.value == pytest.approx(best.validation_score[-1])
    result = run.results[0]
    curves = result.curves
    assert curves.validation_score != curves.validation_accuracy
    assert result.restarts[0].validation_score == pytest.approx(curves.validation_score[-1])
    # Computed from the modules of the two peers.
    x = noisy.validation.inputs
    x = Normaliser.fit(noisy.train.inputs)(x)
    scores = [
        determinant_score(count_pairs(m(x).argmax(1), noisy.validation.labels, 10))
        for m in run.classifier.modules
    ]
    assert curves.validation_score[-1] == pytest.approx(float(np.mean(scores)), abs=1e-3)
    estimate = run.record.noise_estimate
    matrix = estimate.transition_matrix
    assert matrix.shape == (10, 10) and np.allclose(matrix.sum(1), 1)
    assert 0 < estimate.noise_rate < 1 and 0 < estimate.noise_rate_std < 0.1


@pytest.mark.parametrize("seed", range(4))
def test_two_noisy_validation_samples_are_enough_to_go_on(seed, tmp_path, no_page):
    rng = np.random.default_rng(seed)
    few = keeprate.prepare((rng.random((12, 3)), np.arange(12) % 2), seed=seed)
    assert few.criterion == "determinant" and len(few.validation) == 2
    config = TrainingConfig(epochs=3, batch_size=4)
    found = train(few, schedule="constant", config=config, out=tmp_path).results[0]
    assert all(0 <= score <= 1 for score in found.curves.validation_score)


def test_tensorboard_reads_the_curves_of_every_training(data, tmp_path, no_page):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with pytest.raises(keeprate.InputError, match="needs a run folder"):
        search(data, trials=2, config=CONFIG, tensorboard=True)
    record = search(
        data, trials=2, restarts=2, config=CONFIG, out=tmp_path / "run", tensorboard=True
    ).record
    assert record.config == search(data, trials=2, restarts=2, config=CONFIG).record.config
    folder = tmp_path / "run" / "tensorboard"
    finals = [f"final-{r.name}-{n}" for r in record.results for n in (1, 2)]
    assert {one.name for one in folder.iterdir()} == {"trial-000", "trial-001", "judges", *finals}

    def curve(name, measured):
        accumulator = EventAccumulator(str(folder / name)).Reload()
        events = accumulator.Scalars(measured)
        assert [event.step for event in events] == [1, 2, 3]
        return [event.value for event in events]

    for trial in record.trials:
        name = f"trial-{trial.number:03}"
        assert curve(name, "validation_score") == pytest.approx(trial.validation_score)
        assert curve(name, "keep_rate") == pytest.approx(trial.keep_rate)
        assert "test_accuracy" not in EventAccumulator(str(folder / name)).Reload().scalars.Keys()
    for result in record.results:
        accuracies = [curve(f"final-{result.name}-{n}", "test_accuracy") for n in (1, 2)]
        assert pytest.approx(result.curves.test_accuracy) in accuracies


def test_a_schedule_by_the_estimated_noise_rate(data, tmp_path, no_page, monkeypatch):
    monkeypatch.setattr("keeprate.runs.first.FIRST_STEPS", 7 * (864 // 64))  # a fifth is held out
    seen, train_careful = [], first_training.train_plans

    def spy(plans, setup, **others):
        results, networks = train_careful(plans, setup, **others)
        seen.append(results[0])
        return results, networks

    monkeypatch.setattr(first_training, "train_plans", spy)
    options = {"method": "co-teaching", "config": replace(CONFIG, epochs=16), "baselines": False}
    run = train(data, out=tmp_path, **options)
    rate, (careful,) = run.record.first.noise_rate, seen
    assert abs(rate - data.noise_rate) < 0.08
    (result,) = run.record.results
    assert len(result.restarts) == 2 and result.finalist == 0  # a fifth of the labels is wrong
    assert run.schedule.parameters == {"noise_rate": rate}
    assert run.schedule.keep_rate[-1] == pytest.approx((1 - rate) ** 1.5)
    assert run.record.first.epochs == len(careful.curves.train_loss) == 7  # steps, not a quarter
    assert careful.curves.test_accuracy == [] and not (tmp_path / "first").exists()
    cost = run.record.cost
    assert (cost.candidate_epochs, cost.full_trainings) == (7, 7 / 16)
    assert result.label == "Co-teaching, R(t) without a search"
    wrong = replace(data, test=replace(data.test, labels=data.test.labels.flip(0)))
    assert np.array_equal(train(wrong, **options).schedule.keep_rate, run.schedule.keep_rate)
    told = train(data, noise_rate=0.19, out=tmp_path / "told", **options)
    assert told.schedule.keep_rate[-1] == pytest.approx(0.729)
    assert not (tmp_path / "told" / "first").exists()
    monkeypatch.setattr(outputs, "train_plans", None)  # neither what is finished is trained again
    again = train(data, out=tmp_path, **options)
    assert again.schedule == run.schedule
    with pytest.raises(keeprate.InputError, match="schedule: auto before, "):
        train(data, out=tmp_path, **options | {"schedule": "constant"})
    with pytest.raises(keeprate.InputError, match="restarts"):  # nor what is wrong begun
        train(data, restarts=0, **options)


def test_the_first_training_judges_labels_that_it_has_not_learnt(data, monkeypatch):
    """A network that has learnt a wrong label predicts it: the noise would seem less."""
    trained, judged = [], []
    train_careful, predict = first_training.train_plans, first_training.probabilities

    def train_spy(plans, setup, **others):
        trained.append(setup.data.train)
        return train_careful(plans, setup, **others)

    def predict_spy(modules, inputs, normaliser):
        judged.append(inputs)
        return predict(modules, inputs, normaliser)

    monkeypatch.setattr(first_training, "train_plans", train_spy)
    monkeypatch.setattr(first_training, "probabilities", predict_spy)
    setup = make_setup(data, model="mlp", config=replace(CONFIG, epochs=16), seed=0, out=None)
    found = first_training.train_first(setup, METHODS["co-teaching"])
    assert abs(found.noise_rate - data.noise_rate) < 0.08 and 0 < found.rival_share < 1
    (kept,), held_out = trained, judged[0]
    assert len(kept) + len(held_out) == len(data.train) and len(held_out) == len(data.train) // 5
    together = torch.cat([kept.inputs, held_out]).flatten(1)
    assert np.array_equal(np.sort(together.sum(1)), np.sort(data.train.inputs.flatten(1).sum(1)))
    rows = {row.numpy().tobytes() for row in kept.inputs}
    unseen = [row.numpy().tobytes() not in rows for row in held_out]
    assert np.mean(unseen) > 0.99  # digits holds two equal pictures, perhaps
    again = first_training.train_first(setup, METHODS["co-teaching"])
    assert again.noise_rate == found.noise_rate


def test_the_loss_gap_is_of_held_out_and_of_training_samples_by_their_given_labels(
    data, monkeypatch
):
    """By hand: cross-entropy of each network, on as many samples of both kinds."""
    seen, train_careful = [], first_training.train_plans

    def spy(plans, setup, **others):
        seen.append((setup, *train_careful(plans, setup, **others)))
        return seen[-1][1:]

    monkeypatch.setattr(first_training, "train_plans", spy)
    # One epoch: the networks at its end are those of the gap.
    config = replace(CONFIG, epochs=1, precision="float32")
    setup = make_setup(data, model="mlp", config=config, seed=0, out=None)
    found = first_training.train_first(setup, METHODS["co-teaching"])
    of_first, (result,), networks = seen[0]
    held_out, trained = of_first.metric._splits
    assert len(held_out) == len(trained) == len(data.train) // 5
    known = {row.tobytes() for row in of_first.data.train.inputs.numpy()}
    assert all(row.tobytes() in known for row in trained.inputs.numpy())
    gaps = []
    for module in networks.modules:
        losses = []
        for split in (held_out, trained):
            with torch.no_grad():
                logits = module(of_first.normaliser(split.inputs))
            losses.append(float(torch.nn.functional.cross_entropy(logits, split.labels)))
        gaps.append(min(1.0, max(0.0, losses[0] - losses[1])))
    assert found.loss_gap == pytest.approx(np.mean(gaps), abs=1e-5)
    assert found.loss_gap == result.curves.validation_score[0]


def test_labels_that_are_sooner_known_by_heart_have_a_larger_loss_gap(data):
    """After a quarter of the epochs, however long the first training is."""
    gaps = []
    for batch_size, epochs in ((128, 16), (16, 16), (16, 40)):
        config = replace(CONFIG, epochs=epochs, batch_size=batch_size)
        setup = make_setup(data, model="mlp", config=config, seed=0, out=None)
        gaps.append(first_training.train_first(setup, METHODS["co-teaching"]).loss_gap)
    assert gaps[0] + 0.02 < gaps[1] < gaps[2] - 0.02


@pytest.mark.parametrize("n", [3, 60, 128, 129])
def test_the_first_training_of_few_samples(n):
    rng = np.random.default_rng(0)
    labels = np.arange(n + 60) % 3
    inputs = (labels[:, None] + rng.normal(size=(n + 60, 4))).astype(np.float32)
    few = keeprate.prepare((inputs, labels), n_validation=60, n_test=0)
    config = TrainingConfig(epochs=2, batch_size=min(128, n))
    setup = make_setup(few, model="mlp", config=config, seed=0, out=None)
    found = first_training.train_first(setup, METHODS["co-teaching"])
    assert 0 <= found.noise_rate <= 0.8
    assert found.rival_share is None or 0 <= found.rival_share <= 1


def test_the_first_training_weighs_the_samples_that_it_keeps(data, monkeypatch):
    weighted = replace(data.train, weights=torch.arange(len(data.train)) + 1.0)
    setup = make_setup(replace(data, train=weighted), model="mlp", config=CONFIG, seed=0, out=None)
    seen, train_careful = [], first_training.train_plans

    def spy(plans, setup, **others):
        seen.append(setup)
        return train_careful(plans, setup, **others)

    monkeypatch.setattr(first_training, "train_plans", spy)
    first_training.train_first(setup, METHODS["co-teaching"])
    (of_first,) = seen
    own = of_first.data.train.weights
    assert len(own) < len(weighted) and torch.allclose(
        of_first.weights / own, of_first.weights[0] / own[0]
    )


@pytest.mark.parametrize(("winner", "level"), [(0, 0.729), (1, 1.0)])
def test_every_sample_kept_is_the_rival_of_a_schedule_by_the_noise_rate(
    data, tmp_path, no_page, monkeypatch, winner, level
):
    places = iter(float(i == winner) for i in range(2))
    monkeypatch.setattr("keeprate.runs.finals.trial_value", lambda scores, epochs: next(places))
    found = train(data, schedule="auto", noise_rate=0.19, config=CONFIG, out=tmp_path)
    assert found.results[0].finalist == winner
    for schedule in (found.schedule, keeprate.Schedule.load(tmp_path / "schedule.csv")):
        assert schedule.keep_rate[-1] == pytest.approx(level)


def test_where_no_schedule_has_a_say_none_is_estimated(data, tmp_path, no_page):
    found = train(data, schedule="auto", method="standard", config=CONFIG, out=tmp_path)
    assert (found.schedule.keep_rate == 1).all() and not (tmp_path / "first").exists()
    assert found.results[0].label == "Standard"


def test_epochs_that_are_trained_again_replace_what_was_written(tmp_path, monkeypatch):
    """After a kill, by another writer; after a lack of memory, by the same."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from keeprate.engine.tensorboard import CurvesWriter

    # TensorBoard reads the files of a run in the order of the seconds in their names.
    seconds = itertools.count(1_700_000_000)
    clock = SimpleNamespace(time=lambda: next(seconds))
    monkeypatch.setattr("tensorboard.summary.writer.event_file_writer.time", clock)

    def write(writer, epochs, loss):
        for epoch in epochs:
            metrics = EpochMetrics(epoch, loss, 0.5, 0.5, 0.5, None, None)
            writer.write(epoch, {0: 1.0}, {0: metrics})

    first = CurvesWriter(tmp_path)
    write(first, (1, 2, 3), 0.5)
    write(first, (1, 2), 0.25)
    write(CurvesWriter(tmp_path), (2, 3), 0.125)
    events = EventAccumulator(str(tmp_path / "tensorboard" / "trial-000")).Reload()
    found = [(event.step, event.value) for event in events.Scalars("train_loss")]
    assert found == [(1, 0.25), (2, 0.125), (3, 0.125)]


def test_without_the_tensorboard_package_the_user_is_told_before_anything_is_made(
    data, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(keeprate.InputError, match=r"pip install 'keeprate\[tensorboard\]'"):
        search(data, trials=2, config=CONFIG, out=tmp_path / "run", tensorboard=True)
    assert not (tmp_path / "run").exists()


def test_the_saved_classifier_is_the_trained_one(run, data):
    loaded = load(run.folder)
    ours = run.classifier.probabilities(data.test.inputs)
    assert torch.equal(loaded.probabilities(data.test.inputs), ours)
    torch.testing.assert_close(ours.sum(1), torch.ones(len(data.test)))
    accuracy = (
        (loaded.probabilities(data.test.inputs).argmax(-1) == data.test.labels).float().mean()
    )
    reported = run.results[0].last.test_accuracy  # mean of the two peers
    assert float(accuracy) == pytest.approx(reported, abs=0.06)


def test_label_scores_are_ranked_and_find_the_wrong_labels(data, tmp_path, no_page):
    config = TrainingConfig(epochs=20, batch_size=64, learning_rate=3e-3)
    train(data, schedule="co-teaching", config=config, out=tmp_path)
    with open(tmp_path / "label_quality.csv") as file:
        rows = list(csv.DictReader(file))
    scores = np.array([float(row["label_score"]) for row in rows])
    assert sorted(int(row["index"]) for row in rows) == sorted(data.train.rows.tolist())
    assert (np.diff(scores) >= 0).all() and scores.min() >= 0 and scores.max() <= 1
    wrong = dict(
        zip(
            data.train.rows.tolist(),
            (data.train.labels != data.train.true_labels).tolist(),
            strict=True,
        )
    )
    suspects = [wrong[int(row["index"])] for row in rows[:200]]
    assert np.mean(suspects) > data.noise_rate + 0.2


@pytest.mark.parametrize("rate", [1.5, -0.1, float("nan")])
def test_a_bad_noise_rate_is_refused_before_the_search(data, rate, tmp_path):
    with pytest.raises(keeprate.InputError, match=r"noise_rate must lie in \[0, 1\)"):
        search(data, trials=2, config=CONFIG, noise_rate=rate, out=tmp_path)
    assert not list(tmp_path.iterdir())


def test_co_teachings_own_schedule_uses_no_true_label(run, data):
    own = run.results[1]
    assert own.schedule.parameters == {"tau": 0.45} and data.noise_rate != 0.45
    unknown = replace(data, noise="none")
    found = search(unknown, trials=1, config=CONFIG)
    assert [r.name for r in found.record.results] == ["searched", "standard"]


def test_tied_weights_are_saved(data, tmp_path, no_page):
    class Tied(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first = torch.nn.Linear(64, 64)
            self.second = torch.nn.Linear(64, 64)
            self.second.weight = self.first.weight
            self.last = torch.nn.Linear(64, 10)

        def forward(self, x):
            return self.last(self.second(self.first(x.flatten(1)).relu()).relu())

    found = train(data, schedule="constant", model=Tied, config=CONFIG, out=tmp_path)
    loaded = load(tmp_path, model=lambda *_: Tied())
    x = data.test.inputs
    assert torch.equal(loaded.probabilities(x), found.classifier.probabilities(x))


def test_changing_every_test_label_changes_no_search_result(run, data):
    labels = (data.test.labels + 1) % data.n_classes
    leaky = replace(data, test=replace(data.test, labels=labels, true_labels=None))
    other = search(leaky, trials=12, config=CONFIG)
    assert other.record.first.noise_rate == run.record.first.noise_rate
    assert other.record.first.rival_share == run.record.first.rival_share
    assert essence(other.record)["trials"] == essence(run.record)["trials"]
    assert np.array_equal(other.schedule.keep_rate, run.schedule.keep_rate)
    ours = [r.curves.validation_accuracy for r in run.record.results]
    assert [r.curves.validation_accuracy for r in other.record.results] == ours
    # ... but the test accuracies, which are only reported, do change.
    assert other.results[0].last != run.results[0].last


def test_lockstep_groups_of_any_size_give_the_same_trials(run, data):
    other = search(data, trials=12, config=CONFIG, lockstep=3, baselines=False)
    ours = [t.value for t in run.record.trials]
    theirs = [t.value for t in other.record.trials]
    # Products of other shapes round differently: a sample or two of 359 may flip.
    assert np.allclose(ours, theirs, atol=0.02)
    assert np.allclose(ours[:10], theirs[:10], atol=0.01)


def ranked_by_mean(numbers, trials):
    """Schedules, by the trial that had each first, the best mean of complete trainings first."""

    def mean(number):
        same = [t.value for t in trials if number in (t.number, t.confirms) and t.value]
        return float(np.mean(same))

    return sorted(numbers, key=lambda number: (-mean(number), number))


def test_the_best_schedules_are_confirmed_and_chosen_by_their_mean(data):
    found = search(data, trials=40, config=replace(CONFIG, epochs=2), baselines=False)
    trials = found.record.trials
    explored, first, second = trials[:30], trials[30:37], trials[37:]
    best = sorted(explored, key=lambda t: -t.value)[:7]
    assert [t.confirms for t in explored] == [None] * 30
    assert [t.confirms for t in first] == [t.number for t in best]
    finalists = ranked_by_mean([t.number for t in best], trials[:37])[:3]
    assert [t.confirms for t in second] == finalists
    winner = ranked_by_mean(finalists, trials)[0]
    same = [t for t in trials if winner in (t.number, t.confirms)]
    chosen, rival = found.record.finalists
    assert chosen == tuple(t.number for t in same) and len(same) == 3
    assert rival[0] == ranked_by_mean(finalists, trials)[1] and len(rival) == 3
    assert all(t.parameters == trials[winner].parameters for t in same)
    assert len({tuple(t.validation_score) for t in same}) == 3  # other weights and batches
    finalist = found.results[0].finalist
    assert np.allclose(found.schedule.keep_rate, trials[(winner, rival[0])[finalist]].keep_rate)


def test_short_trials_explore_and_only_full_ones_win(confirmed):
    trials = confirmed.record.trials
    explored, first = trials[:12], trials[12:]
    assert [len(t.validation_score) for t in trials] == [3] * 12 + [6] * 4
    assert [t.state for t in trials] == ["short"] * 12 + ["complete"] * 4
    best = sorted(explored, key=lambda t: -t.validation_score[-1])[:4]
    assert [t.confirms for t in first] == [t.number for t in best]
    winner, rival = (t.confirms for t in sorted(first, key=lambda t: -t.value)[:2])
    finalists = confirmed.record.finalists
    assert [[trials[n].confirms for n in same] for same in finalists] == [[winner], [rival]]
    assert confirmed.record.cost.full_trainings == pytest.approx(1 + 12 * 0.5 + 4)


def test_a_short_trial_trains_on_the_whole_schedule(data, monkeypatch):
    seen = []

    def spy(assignment, setup, **options):
        rates = np.array([one.schedule.keep_rate for one in assignment.candidates])
        seen.append((len(rates), setup.config, rates))
        return carry_out(assignment, setup, **options)

    carry_out = trials.carry_out
    monkeypatch.setattr(trials, "carry_out", spy)
    config = replace(CONFIG, epochs=6)
    found = search(data, config=config, **SIXTEEN)
    whole = np.array([t.keep_rate for t in found.record.trials])
    assert [(n, c.epochs) for n, c, _ in seen] == [(6, 3), (6, 3), (4, 6)]
    # Epochs 1, 3.5 and 6 of six.
    middle = (whole[:6, 2] + whole[:6, 3]) / 2
    assert np.allclose(seen[0][2], np.stack([whole[:6, 0], middle, whole[:6, -1]], 1))
    assert np.array_equal(seen[2][2], whole[12:])
    assert seen[0][1].learning_rate_at(2) < config.learning_rate_at(2)  # decays within three


GIVEN = (
    partial(exponential_drop, level=0.45, speed=20),
    partial(exponential_drop, level=0.4, speed=8),
    partial(plain_decay, level=0.85),
    partial(exponential_drop, level=0.7, speed=4),
    partial(plain_decay, level=1.0),
)


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
@pytest.mark.parametrize("epochs", [5, 40])
def test_each_space_comes_near_given_schedules(space, epochs):
    for one in GIVEN:
        given = one(epochs)
        nearest = space.schedule(nearest_parameters(space, given), epochs).keep_rate
        error = np.sqrt(np.square(nearest - given).mean())
        assert error < {"power-decay": 0.06, "co-teaching": 0.035}.get(space.name, 0.021)


@pytest.mark.parametrize("sampler", ["gaussian-process", "random"])
def test_a_search_begins_with_given_schedules(data, sampler):
    options = {"trials": 9, "sampler": sampler, "config": replace(CONFIG, epochs=10)}
    options |= {"confirm": False, "noise_rate": 0.3, **ALONE}
    given = np.array([one(10) for one in GIVEN])
    warm = search(data, warm_start=list(given), **options).record.trials
    cold = search(data, warm_start=[], **options).record.trials
    tried = np.array([t.keep_rate for t in warm[:5]])
    assert (np.sqrt(np.square(tried - given).mean(1)) < 0.021).all()
    # What comes next is drawn; by random search, from no knowledge of them.
    same = [a.parameters == b.parameters for a, b in zip(warm, cold, strict=True)]
    assert not any(same[:4])  # the fifth keeps every sample, given or not
    assert all(same[5:]) == (sampler == "random")


def test_a_warm_start_from_earlier_searches(run, data, tmp_path, no_page):
    rise = keeprate.Schedule([1.0, 0.3, 0.3, 0.5, 0.7])
    rise.save(tmp_path / "rise.json")
    options = {"config": CONFIG, "baselines": False, "restarts": 1, "out": tmp_path / "warm"}
    places = [run.folder, str(tmp_path / "rise.json")]
    warm = search(data, trials=5, warm_start=places, **options).record
    first, second, *_ = [t.keep_rate for t in warm.trials]
    assert first == pytest.approx(run.schedule.keep_rate, abs=0.02)
    assert second == pytest.approx([1.0, 0.3, 0.7], abs=0.05)  # of epochs 1, 3 and 5
    alone = search(data, trials=1, warm_start=rise, config=CONFIG, baselines=False).record
    assert alone.trials[0].keep_rate == second  # though nothing else is tried
    with pytest.raises(keeprate.InputError, match=r"\(warm_start: other experience or other"):
        search(data, trials=5, warm_start=[rise], **options)
    same = [run.schedule, rise.keep_rate]  # wherever they come from
    assert search(data, trials=5, warm_start=same, **options).record.trials == warm.trials


def test_no_warm_start_that_cannot_be(data):
    options = {"config": CONFIG, "baselines": False}
    plain = search(data, trials=4, **options).record
    empty = search(data, trials=4, warm_start=[], **options).record
    assert essence(empty) == essence(plain)
    two = [[1.0, 0.5], [1.0, 0.6]]
    with pytest.raises(keeprate.InputError, match=r"at most as many .* explore, 1, got 2"):
        search(data, trials=1, warm_start=two, **options)
    with pytest.raises(keeprate.InputError, match=r"warm_start must be a \.json or .*'nowhere'"):
        search(data, trials=5, warm_start="nowhere", config=CONFIG)
    for nothing in (None, 0, [0.5, 0.6]):
        with pytest.raises(keeprate.InputError, match=r"True, False, or name|be one row"):
            search(data, trials=4, warm_start=nothing, **options)


def test_each_population_has_its_own_batches_and_restarts_train_together(data, monkeypatch):
    seen, begin = [], lockstep.train_population

    def spy(population, *rest, **options):
        seen.append((options["stream"], options["order"], len(population.numbers)))
        return begin(population, *rest, **options)

    monkeypatch.setattr(lockstep, "train_population", spy)
    config = replace(CONFIG, epochs=1)
    options = {"config": config, "restarts": 2, "baselines": False}
    run = search(data, trials=16, lockstep=4, **options)
    searched = [
        ("search", 0, 4), ("search", 0, 2), ("search", 6, 4), ("search", 6, 2), ("search", 12, 4),
    ]  # fmt: skip
    again = run.results[0].restarts[0].repeats // 6 * 6  # where its generation began
    finals = [("search", again, 2), ("fit-0", 0, 1)]  # the latter judges labels
    assert seen == searched + finals


def test_the_choice_is_by_the_mean_of_all_trainings_of_a_schedule():
    def trial(number, value, confirms=None):
        attributes = {} if confirms is None else {"confirms": confirms}
        return optuna.trial.create_trial(value=value, user_attrs=attributes), number

    made = [
        trial(0, 0.9), trial(1, 0.99), trial(2, 0.95),  # the best of all is not confirmed
        trial(3, 0.90, 0), trial(4, 0.80, 2), trial(5, 0.92, 0), trial(6, 0.85, 2),
    ]  # fmt: skip
    trials = []
    for one, number in made:
        one.number = number
        trials.append(one)
    assert [t.number for t in ranked(trials)[0]] == [0, 3, 5]
    assert [t.number for t in ranked(trials[:3])[0]] == [1]
    # Where few have a value some are trained a fourth time: no merit.
    more = [trial(7, 0.99, 1), trial(8, 0.99, 1), trial(9, 0.1, 0)]
    for one, number in more:
        one.number = number
    assert [t.number for t in ranked(trials + [one for one, _ in more])[0]] == [1, 7, 8]


@pytest.mark.parametrize("restarts", [1, 3])
def test_the_best_restart_by_validation_is_kept(data, tmp_path, no_page, restarts):
    config = replace(CONFIG, epochs=5)
    run = train(
        data, schedule="constant", config=config, restarts=restarts, out=tmp_path,
        baselines=True,
    )  # fmt: skip
    for result in run.record.results:
        tried = [one.validation_score for one in result.restarts]
        assert len(tried) == restarts
        assert restarts == 1 or len(set(tried)) > 1  # other initial weights
        assert max(tried) == pytest.approx(result.last.validation_accuracy)
        assert result.seconds == pytest.approx(sum(t.seconds for t in result.restarts))
    accuracy = (
        (run.classifier.probabilities(data.test.inputs).argmax(-1) == data.test.labels)
        .float()
        .mean()
    )
    reported = run.results[0].last.test_accuracy  # mean of the two peers
    assert float(accuracy) == pytest.approx(reported, abs=0.06)


def test_baselines_by_name_train_in_lockstep_where_they_can(data, monkeypatch):
    seen, begin = [], lockstep.train_population

    def spy(population, *rest, **options):
        seen.append([method.name for method in population.methods])
        return begin(population, *rest, **options)

    monkeypatch.setattr(lockstep, "train_population", spy)
    options = {"schedule": "co-teaching", "method": "jocor", "noise_rate": 0.4}
    run = train(data, baselines="all", config=replace(CONFIG, epochs=2), **options)
    names = [result.name for result in run.record.results]
    assert names == ["jocor", *(name for name in METHODS if name != "jocor")]
    two = ["jocor", "decoupling", "co-teaching", "co-teaching-plus", "co-mining"]
    assert seen == [two, ["standard", "mentornet"], ["standard"], ["f-correction"]]
    rates = {r.name: r.schedule.keep_rate[-1] for r in run.record.results}
    assert rates["mentornet"] == rates["jocor"] < rates["f-correction"] == 1.0
    assert rates["standard"] == rates["decoupling"] == 1.0
    labels = [result.label for result in run.record.results]
    assert labels[0] == "JoCoR, Co-teaching's R(t)" and "Co-teaching, its own R(t)" in labels


def test_what_is_compared_does_not_change_a_result(data, monkeypatch):
    """In other groups, alone, or beside all others: each method has its rows and its R(t)."""
    seen, begin = [], lockstep.train_population

    def spy(population, *rest, **options):
        rates = population.keep_rates[:, -1].tolist()
        methods = [method.name for method in population.methods]
        seen.extend(zip(methods, population.numbers, rates, strict=True))
        return begin(population, *rest, **options)

    monkeypatch.setattr(lockstep, "train_population", spy)
    options = {"schedule": [1.0, 0.3], "method": "jocor", "restarts": 2}
    options |= {"config": replace(CONFIG, epochs=2), "noise_rate": 0.4}

    def curves(run):
        return {r.name: r.curves.validation_accuracy for r in run.record.results}

    together = train(data, baselines="all", **options)
    own, rate = pytest.approx(0.3), pytest.approx(0.8)
    expected = [("jocor", 0, own), ("jocor", 1, own)]
    first_of = {"standard": 2, "decoupling": 4, "f-correction": 6, "mentornet": 8}
    first_of |= {"co-teaching": 10, "co-teaching-plus": 12, "co-mining": 14, "jocor": 16}
    for name, first in first_of.items():
        uses = METHODS[name].uses_schedule
        expected += [(name, first + restart, rate if uses else 1.0) for restart in (0, 1)]
    # F-correction's first training is of Standard.
    expected += [("standard", 6, 1.0), ("standard", 7, 1.0)]
    assert sorted(seen) == sorted(expected, key=lambda row: row[:2])
    whole, split = curves(together), curves(train(data, baselines="all", lockstep=3, **options))
    assert whole.keys() == {"custom", *METHODS}
    for name, curve in whole.items():
        assert curve == pytest.approx(split[name], abs=0.01)
    alone = train(data, baselines=False, **options)
    assert curves(alone)["custom"] == pytest.approx(whole["custom"], abs=0.01)
    found, same = (run.label_quality.scores for run in (together, alone))
    assert np.abs(found - same).max() < 0.05


def test_a_baseline_is_left_out_only_if_it_repeats_the_run(data, tmp_path):
    config = replace(CONFIG, epochs=1)
    options = {"config": config, "noise_rate": 0.4, "baselines": "co-teaching,standard"}

    def names(**given):
        return [r.name for r in train(data, **options | given).record.results]

    assert names(schedule="co-teaching") == ["co-teaching", "standard"]
    keeprate.Schedule(np.array([0.9]), "co-teaching").save(tmp_path / "other.json")
    assert names(schedule=str(tmp_path / "other.json")) == ["custom", "co-teaching", "standard"]
    assert names(schedule="constant", method="standard") == ["standard", "co-teaching"]
    assert names(schedule="constant", baselines=[]) == ["custom"]
    mine = replace(METHODS["jocor"], name="mine")
    assert names(schedule="co-teaching", baselines=[mine, mine]) == ["co-teaching", "mine"]
    with pytest.raises(keeprate.InputError, match="baselines must have names of their own"):
        names(schedule="constant", baselines=[mine, replace(mine, n_networks=1)])
    for reserved in ("custom", "searched"):
        with pytest.raises(keeprate.InputError, match="be another than searched and custom"):
            replace(mine, name=reserved)


def test_baselines_that_cannot_be_are_named(data):
    options = {"schedule": "constant", "config": CONFIG}
    for wrong in ("standrad", "", "standard,", "auto,jocor", 5, ["standard", 5], {"standard"}):
        with pytest.raises(keeprate.InputError, match="baselines must be auto, none, all, or"):
            train(data, baselines=wrong, **options)
    unknown = replace(data, noise="none")
    with pytest.raises(keeprate.InputError, match=r"R\(t\) that co-teaching .* --noise-rate"):
        train(unknown, baselines="standard,co-teaching", **options)
    with pytest.raises(keeprate.InputError, match=r"noise_rate must be known"):
        search(unknown, trials=2, baselines="mentornet", config=CONFIG)


def finals(data, schedules, restarts):
    """The result of one plan's final trainings, and its networks."""
    options = {"model": "mlp", "config": replace(CONFIG, epochs=8), "seed": 0, "out": None}
    setup = make_setup(data, **options)
    plan = Plan("searched", "Searched", METHODS["co-teaching"], tuple(schedules))
    (result,), trained = train_plans([plan], setup, restarts=restarts)
    return result, trained


@pytest.mark.parametrize("good", [0, 1])
def test_two_schedules_take_turns_and_the_better_training_wins(data, good):
    everything, nothing = (keeprate.Schedule(np.full(8, rate), "searched") for rate in (1.0, 0.0))
    schedules = [everything, nothing] if good == 0 else [nothing, everything]
    result, trained = finals(data, schedules, 3)
    assert [one.schedule for one in result.restarts] == [0, 1, 0]
    values = [one.validation_score for one in result.restarts]
    assert result.finalist == good == np.argmax(values) % 2
    assert result.last.validation_score == pytest.approx(max(values))
    assert result.schedule == trained.schedule == everything
    x = Normaliser.fit(data.train.inputs)(data.validation.inputs)
    predicted = torch.stack([module(x).argmax(1) for module in trained.modules])
    accuracy = (predicted == data.validation.labels).float().mean()
    assert float(accuracy) == pytest.approx(max(values), abs=0.01)


@pytest.mark.parametrize("lost", [0, 1])
def test_a_finalist_whose_loss_is_nan_does_not_win(data, monkeypatch, lost):
    step = loop.train_step

    def poisoned(networks, optimizer, *rest):
        if networks.n_candidates == 2:
            with torch.no_grad():
                networks.parameters()[0][2 * lost] = torch.nan  # the first peer's weights
        return step(networks, optimizer, *rest)

    monkeypatch.setattr(loop, "train_step", poisoned)
    schedules = [keeprate.Schedule(np.full(8, rate), "searched") for rate in (1.0, 0.9)]
    result, trained = finals(data, schedules, 2)
    assert result.finalist == 1 - lost and trained.schedule == schedules[1 - lost]
    assert result.restarts[lost].validation_score is None


@pytest.mark.parametrize("restarts", [1, 2, 3])
def test_the_two_best_schedules_of_a_search_are_its_finalists(data, tmp_path, no_page, restarts):
    options = {"trials": 4, "config": CONFIG, "baselines": False, "restarts": restarts}
    run = search(data, out=tmp_path, **options)
    trials, result = run.record.trials, run.results[0]
    ranking = sorted(trials, key=lambda t: -t.value)
    finalists = tuple((t.number,) for t in ranking[: min(restarts, 2)])
    assert run.record.finalists == finalists
    turns = [one.schedule for one in result.restarts]
    assert turns == {1: [0], 2: [0, 1], 3: [0, 1, 0]}[restarts]
    assert (result.finalist is None) == (restarts == 1)
    expected = ranking[result.finalist or 0]
    assert result.schedule.parameters == expected.parameters
    for found in (run.schedule, keeprate.Schedule.load(tmp_path / "schedule.csv")):
        assert np.array_equal(found.keep_rate, result.schedule.keep_rate)
        assert tuple(found.keep_rate) == expected.keep_rate
    assert search(data, out=tmp_path, **options).schedule == run.schedule
    with pytest.raises(keeprate.InputError, match="restarts"):
        search(data, out=tmp_path, **options | {"restarts": restarts + 1})


@pytest.mark.parametrize("options", [{"trials": 4}, {"trials": 16, "fidelity": 0.5}])
@pytest.mark.parametrize("baselines", ["none", "standard,jocor"])
def test_the_first_final_training_is_the_best_trial_once_more(data, options, baselines):
    options |= {"config": replace(CONFIG, epochs=4), "baselines": baselines, "restarts": 2}
    found = search(data, noise_rate=0.4, **options)
    of_best = [found.record.trials[number] for number in found.record.finalists[0]]
    best = max(of_best, key=lambda trial: trial.value)
    first, second = found.results[0].restarts
    assert (first.repeats, second.repeats) == (best.number, None)
    # The networks share their steps with others here, and floating-point sums may differ.
    assert first.validation_score == pytest.approx(best.value, abs=0.01)
    if first.validation_score >= second.validation_score:
        curve = found.results[0].curves.validation_score
        assert curve == pytest.approx(best.validation_score, abs=0.01)
    else:  # from weights of its own
        curves = [trial.validation_score for trial in found.record.trials]
        assert tuple(found.results[0].curves.validation_score) not in curves


@pytest.mark.parametrize(
    "options",
    [
        {"trials": 16, "confirm": False, "pruner": "median"},
        {"trials": 16},  # the best schedule explored, and confirmed with other batches
        {"method": "jocor", "metric": "neg_log_loss", "model": "perceptron"},
        {"config": replace(CONFIG, augment="noise:0.1", class_weight="balanced", keep="best")},
    ],
    ids=lambda options: " ".join(options),
)
def test_the_best_trial_once_more_is_the_same_to_the_bit(data, options):
    options = {"trials": 3, "config": CONFIG, "baselines": False, "restarts": 1} | options
    record = search(data, lockstep=1, **options).record
    (own,) = record.results
    best = record.trials[own.restarts[0].repeats]
    assert best.number in record.finalists[0] and best.value == max(
        record.trials[number].value for number in record.finalists[0]
    )
    assert tuple(own.curves.validation_score) == tuple(best.validation_score)
    assert np.array_equal(own.schedule.keep_rate, best.keep_rate)
    end = max(best.validation_score) if options["config"].keep == "best" else best.value
    assert own.restarts[0].validation_score == end


def test_nothing_is_confirmed_if_the_user_says_so(data):
    found = search(
        data, trials=16, confirm=False, config=replace(CONFIG, epochs=2), baselines=False
    )
    assert len({json.dumps(t.parameters) for t in found.record.trials}) == 16
    assert [len(one) for one in found.record.finalists] == [1, 1]


@pytest.mark.parametrize("sampler", ["random", "tpe", "paper:20"])
def test_other_samplers(data, sampler):
    found = search(
        data, trials=11, config=replace(CONFIG, epochs=1), sampler=sampler, baselines=False
    )
    assert len({json.dumps(t.parameters) for t in found.record.trials}) == 11


@pytest.mark.parametrize("space", ["co-teaching", "power-decay", "full"])
@pytest.mark.parametrize("epochs", [1, 3])
def test_every_space_is_searched(data, space, epochs):
    if (space, epochs) == ("full", 1):
        return  # nothing to search
    found = search(
        data, space=space, trials=12, config=replace(CONFIG, epochs=epochs), baselines=False
    )
    assert len({json.dumps(t.parameters) for t in found.record.trials}) == 12


def test_the_papers_form_takes_a_fifth_of_the_trials_an_iteration():
    plan = Proposals(get_space("basis"), 40, "paper:20", 100, 0, 0)
    assert [plan.generation_of(n) for n in (0, 19, 20, 99)] == [
        range(0, 20), range(0, 20), range(20, 40), range(80, 100),
    ]  # fmt: skip


def test_the_papers_form_takes_its_step(data):
    options = {"trials": 11, "config": replace(CONFIG, epochs=1), "baselines": False}
    far, near = (
        [t.parameters for t in search(data, sampler=f"paper:{step}", **options).record.trials]
        for step in (20, 0.001)
    )
    assert far[:2] == near[:2]  # drawn before anything is known
    assert all(a != b for a, b in zip(far[2:], near[2:], strict=True))


def test_a_candidate_with_nan_fails_alone(data, monkeypatch, tmp_path, no_page):
    step = loop.train_step

    def poisoned(networks, optimizer, *rest):
        if networks.n_candidates == 5:
            with torch.no_grad():
                networks.parameters()[0][2 * 2] = torch.nan  # candidate 2, first peer
        return step(networks, optimizer, *rest)

    monkeypatch.setattr(loop, "train_step", poisoned)
    found = search(data, trials=9, config=CONFIG, baselines=False, out=tmp_path)
    states = [t.state for t in found.record.trials]
    assert states == ["complete", "complete", "failed", *["complete"] * 6]
    study = optuna.load_study(study_name="keeprate", storage=f"sqlite:///{tmp_path}/study.db")
    # Pruned for Optuna: the natural gradient counts it, as the worst of its generation.
    assert study.trials[2].state == optuna.trial.TrialState.PRUNED


def test_when_every_candidate_fails_the_user_is_told(data):
    config = replace(CONFIG, learning_rate=1e30)
    with pytest.raises(
        keeprate.InputError, match=r"every sample kept was not finite.*learning rate"
    ):
        search(data, trials=3, config=config, baselines=False)
    with pytest.raises(keeprate.InputError, match=r"none of the 3 trials.*learning rate"):
        search(data, trials=3, config=config, warm_start=False, baselines=False)


def test_out_of_memory_halves_the_population(data, monkeypatch):
    sizes, new = [], lockstep.new_population

    def small(numbers, *rest, **options):
        sizes.append(len(numbers))
        if len(numbers) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return new(numbers, *rest, **options)

    monkeypatch.setattr(lockstep, "new_population", small)
    found = search(data, trials=10, config=replace(CONFIG, epochs=1), baselines=False)
    assert sizes[:4] == [5, 2, 2, 1]
    assert all(t.state == "complete" for t in found.record.trials)


def test_bfloat16_is_as_accurate_within_noise(data):
    config = TrainingConfig(epochs=12, batch_size=64, learning_rate=3e-3)
    accuracies = [
        train(data, schedule="co-teaching", config=replace(config, precision=precision))
        .results[0]
        .last.test_accuracy
        for precision in ("float32", "bfloat16")
    ]
    assert abs(accuracies[0] - accuracies[1]) < 0.06


@pytest.mark.parametrize("optimizer", ["sgd", "rmsprop"])
def test_other_optimisers_learn(data, optimizer):
    config = TrainingConfig(
        epochs=8,
        batch_size=32,
        optimizer=optimizer,
        learning_rate=1e-2 if optimizer == "sgd" else 1e-3,
    )
    result = train(data, schedule="constant", method="mentornet", config=config).results[0]
    assert result.curves.train_loss[-1] < 0.8 * result.curves.train_loss[0]


def test_options_may_be_numbers_of_numpy(data, tmp_path, no_page):
    options = {"config": CONFIG, "baselines": False}
    rate = np.mean(data.train.labels.numpy() != data.train.true_labels.numpy())
    found = train(data, schedule="auto", noise_rate=rate, out=tmp_path / "train", **options)
    assert load_record(tmp_path / "train") == found.record
    assert found.record.config["noise_rate"] == float(rate)
    found = search(
        data, trials=2, fidelity=np.float64(1), seed=np.int64(3), restarts=np.int64(1),
        out=tmp_path / "search", **options,
    )  # fmt: skip
    assert load_record(tmp_path / "search") == found.record


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("noise_rate", "0.4", "noise_rate must lie in"),
        ("restarts", 1.5, "restarts must be a whole number"),
        ("lockstep", True, "lockstep must be a whole number"),
        ("seed", "3", "seed must be a whole number"),
    ],
)
def test_options_of_a_wrong_kind_are_named(data, option, value, words):
    for run in (partial(train, schedule="constant"), partial(search, trials=2)):
        with pytest.raises(keeprate.InputError, match=words):
            run(data, config=CONFIG, **{option: value})


def test_data_that_do_not_come_from_prepare_are_named():
    for start in (partial(train, schedule="constant"), search):
        with pytest.raises(keeprate.InputError, match=r"must come from keeprate\.prepare, got str"):
            start("pets.csv")


def test_a_warm_start_is_read_once(data):
    rows = (rates for rates in ([1.0, 0.5], [1.0, 0.8]))
    config = SearchConfig(warm_start=rows)
    assert [one.keep_rate[-1] for one in config.earlier] == [0.5, 0.8]
    assert replace(config, space="power-decay").earlier == config.earlier


@pytest.mark.parametrize("missing", ["model.safetensors", "label_quality.csv"])
def test_a_record_is_finished_only_when_all_else_is_there(
    data, tmp_path, no_page, monkeypatch, missing
):
    """The record comes last: a run that dies while it writes goes on there at the next start."""
    options = {"schedule": "constant", "config": CONFIG, "out": tmp_path}

    def stop(*arguments, **others):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        if missing == "model.safetensors":
            patch.setattr(outputs, "save_classifier", stop)
        else:
            patch.setattr(outputs.LabelQuality, "save", stop)
        train(data, **options)
    assert not load_record(tmp_path).finished and not (tmp_path / missing).exists()
    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", None)  # nothing is trained again
        resumed = train(data, **options)
    assert load_record(tmp_path).finished and (tmp_path / missing).exists()
    whole = train(data, **options | {"out": None})
    assert essence(resumed.record) == essence(whole.record)
    ours, theirs = (one.classifier.probabilities(data.test.inputs) for one in (resumed, whole))
    assert torch.equal(ours, theirs)


def test_the_result_is_safe_before_the_page_is_drawn_and_a_lost_page_is_drawn_again(
    data, tmp_path, monkeypatch
):
    options = {"schedule": "constant", "config": CONFIG, "out": tmp_path}

    def fail(*arguments):
        raise RuntimeError("no font")

    with monkeypatch.context() as patch, pytest.warns(UserWarning, match="no font.*are safe"):
        patch.setattr("keeprate.report.write_plots", fail, raising=False)
        patch.setattr("keeprate.report.page.write_plots", fail)
        first = train(data, **options)
        again = train(data, **options)
    for run in (first, again):
        assert len(run.classifier.predict(data.test.inputs[:5].numpy())) == 5
    assert load_record(tmp_path).finished and not (tmp_path / "report.html").exists()
    monkeypatch.setattr(outputs, "train_plans", None)  # nothing is trained again
    train(data, **options)
    assert (tmp_path / "report.html").exists()


def test_f_corrections_result_holds_the_matrix_of_its_best_restart(data):
    options = {"schedule": "constant", "method": "f-correction", "baselines": False}
    config = replace(CONFIG, epochs=6)
    for seed in range(20):  # the first run whose last restart wins
        run = train(data, restarts=3, seed=seed, config=config, **options)
        scores = [one.validation_score for one in run.results[0].restarts]
        if scores.index(max(scores)) == 2:
            break
    assert scores.index(max(scores)) == 2
    result, seen = run.results[0], []

    def spy(assignment, setup, *, after_training, **rest):
        def collect(outcome):
            seen.append(outcome.transition_matrix.double().numpy())
            after_training(outcome)

        begin(assignment, setup, after_training=collect, **rest)

    begin = finals_module.carry_out
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finals_module, "carry_out", spy)
        train(data, restarts=3, seed=seed, config=config, **options)
    matrices = seen
    assert np.array_equal(result.transition_matrix, matrices[2])
    assert not np.array_equal(matrices[0], matrices[2])
    true = empirical_transition_matrix(data.train.labels, data.train.true_labels, 10)
    assert result.transition_error == pytest.approx(transition_error(matrices[2], true))
    assert result.transition_error > 0
