"""The benchmarks, on digits."""

from __future__ import annotations

import itertools
import json
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import optuna
import pyarrow.parquet as pq
import pytest
import torch

import keeprate
from benchmarks import (
    ablation,
    asking,
    criteria,
    criteria_elsewhere,
    engine,
    imbalanced,
    judging,
    label_issues,
    larger,
    long_tail,
    loops,
    noisy_validation,
    overhead,
    parallel,
    reading,
    review,
    review_sets,
    scaling,
    schedule_bench,
    soak,
)
from keeprate import mapped
from keeprate.data import write_corrected
from keeprate.engine import loop

DIGITS = replace(schedule_bench.SETTINGS["pairflip-0.45"], data="digits", limit=300, epochs=10)
TRIALS = 12  # of each sampler, in two generations


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[list[dict], Path]:
    """Rows of a tiny benchmark, and the folder of its studies."""
    folder = tmp_path_factory.mktemp("schedules")
    data = schedule_bench.load_setting(DIGITS, "")
    rows = []
    for source, trials in (("random", TRIALS), ("natural-gradient", TRIALS)):
        study = schedule_bench.train_source(DIGITS, data, source, trials, folder / source)
        rows += schedule_bench.rows_of(DIGITS, source, study)
    return rows, folder


def test_every_schedule_has_a_full_and_two_short_trainings(made):
    rows, _ = made
    assert len(rows) == 2 * TRIALS
    for row in rows:
        assert len(row["validation_accuracy"]) == len(row["test_accuracy"]) == 10
        assert [len(row["in_short_0.2"]), len(row["in_short_0.4"])] == [2, 4]
        assert len(row["parameters"]) == 12
    assert len({tuple(row["parameters"]) for row in rows}) == 2 * TRIALS


def test_what_is_trained_is_not_trained_again(made, monkeypatch):
    rows, folder = made
    monkeypatch.setattr(schedule_bench, "train_candidates", None)
    data = schedule_bench.load_setting(DIGITS, "")
    study = schedule_bench.train_source(DIGITS, data, "random", TRIALS, folder / "random")
    assert schedule_bench.rows_of(DIGITS, "random", study) == rows[:TRIALS]


def test_the_file_holds_the_rows_of_all_settings(made, tmp_path):
    rows, _ = made
    path = tmp_path / "bench.parquet"
    other = replace(DIGITS, noise="symmetric:0.2")
    schedule_bench.write(rows, [DIGITS], path)
    schedule_bench.write([row | {"setting": other.name} for row in rows[:15]], [other], path)
    schedule_bench.write(rows[:20], [DIGITS], path)  # takes the place of the first
    table = pq.read_table(path)
    counts = [table["setting"].to_pylist().count(name) for name in (DIGITS.name, other.name)]
    assert counts == [20, 15]
    assert json.loads(table.schema.metadata[b"settings"])[other.name]["noise"] == "symmetric:0.2"


def test_criteria_are_compared_with_the_test_accuracy(made):
    rows, _ = made
    comparison = criteria.compare(*criteria.criteria_of(rows))
    numbers = comparison["criteria"]
    assert numbers["accuracy, clean labels"]["spearman"] > 0.8 and len(numbers) == 6
    assert numbers["determinant"]["spearman"] > 0.5
    best = comparison["best_test_accuracy"]
    assert best >= numbers["determinant"]["test_accuracy_of_its_choice"]
    counts = np.array(rows[0]["noisy_counts"])
    assert counts.sum() == pytest.approx(2 * 300)  # two networks, 300 held-out samples


def test_the_criterion_is_compared_on_other_data(monkeypatch):
    monkeypatch.setattr(criteria_elsewhere, "SCHEDULES", 4)
    options = {"model": "mlp", "epochs": 4, "batch_size": 64}
    monkeypatch.setitem(criteria_elsewhere.SETTINGS, "digits", options)
    row = criteria_elsewhere.rank("digits", "symmetric:0.5", 0, "")
    assert row["schedules"] == 4 and 0.4 < row["noise_rate"] < 0.6
    assert set(row["criteria"]) == {"determinant", "accuracy, noisy labels"}
    (line,) = criteria_elsewhere.table([row | {"data": "digits", "noise": "n", "seed": 0}])[2:]
    assert line.startswith("| digits, n, 0 |")


@pytest.mark.parametrize("name", ablation.WAYS)
def test_each_way_of_the_ablation_chooses_other_schedules_of_the_pool(name: str):
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    pool, (_, way) = next(ablation.pools_of_mnist()).subset(np.arange(30)), ablation.WAYS[name]
    chosen = list(way(pool, np.random.default_rng(0), 6))
    assert len(set(chosen)) == 6 and set(chosen) <= set(range(30))
    # Nothing is known of the values before the first generation is trained.
    opposite = replace(pool, values=1 - pool.values)
    assert list(way(opposite, np.random.default_rng(0), 6))[:2] == chosen[:2]
    best = int(pool.values.argmax())
    assert ablation.gap(pool, [*chosen, best]) == 0
    worst = int(pool.judged.argmin())
    assert ablation.gap(pool, [worst]) == pytest.approx(
        100 * (pool.judged[best] - pool.judged[worst])
    )


def test_what_the_ablation_begins_with_lacks_the_noise_that_it_is_judged_on():
    for pool in itertools.islice(ablation.pools_of_digits(), 3):
        for known in (pool.known, pool.blind):
            rates = known._conditions[:, 0]
            assert len(rates) > 50 and not np.isclose(rates, pool.conditions.noise_rate).any()
        assert len(set(pool.blind._conditions[:, 2])) == 1 < len(set(pool.known._conditions[:, 2]))


def test_label_issues_are_compared_on_the_same_labels():
    row = label_issues.compare("symmetric:0.3", 0, "digits", 400)
    assert 0.2 < row["noise_rate"] < 0.4 and len(row["found"]) == 5
    for numbers in row["found"].values():
        assert 0.5 < numbers["auroc"] <= 1 and row["noise_rate"] < numbers["average_precision"] <= 1
        assert 0 < numbers["f1"] <= 1 and numbers["seconds"] > 0
    lines = label_issues.table([row | {"noise": "symmetric:0.3", "seed": 0}] * 2)
    assert len(lines) == 7 and lines[2].startswith("| symmetric:0.3 | keeprate | ")


def test_the_fold_that_judges_a_sample_was_not_trained_with_it(monkeypatch):
    data = keeprate.prepare("digits", noise="symmetric:0.3", limit=200)
    seen = []

    def train(given, **options):
        seen.append(given.train.rows.tolist())
        return begin(given, **options)

    begin = keeprate.train
    monkeypatch.setattr(keeprate, "train", train)
    probabilities = label_issues.out_of_sample(data, 1, 0)
    assert np.allclose(probabilities.sum(1), 1) and len(seen) == 5
    counts = np.bincount(np.concatenate(seen), minlength=2000)
    assert set(counts[data.train.rows]) == {4}


@pytest.mark.parametrize("name", review_sets.EMBEDDED)
def test_a_source_to_review_has_the_labels_that_its_truth_says(name, tmp_path):
    chosen = review_sets.SETS[name]
    source = chosen.source("", 1000, tmp_path / "source")
    samples, _ = chosen.draw("", 1000)
    labels = source.labels()
    assert labels == {str(i): one.label for i, one in enumerate(samples)}
    assert 0.1 < source.wrong() / len(samples) < 0.3  # chance: 20 % are to be wrong
    data = keeprate.prepare(source.path, validation="noisy", seed=1000)
    assert data.train.true_labels is None and data.validation.label_status == "noisy"
    assert data.test is not None and len(data.train) + len(data.validation) == len(samples)
    # A copy with a right label in place of a wrong one: rows of pictures are in another order.
    split = keeprate.load_data(source.path).splits["train"]
    names = split.names or [""] * len(split)
    keys = [source.key(*pair) for pair in zip(split.rows.tolist(), names, strict=True)]
    row = next(i for i, key in enumerate(keys) if labels[key] != source.truth[key])
    write_corrected(source.path, tmp_path / "copy", {row: source.truth[keys[row]]})
    assert source.wrong(tmp_path / "copy") == source.wrong() - 1


@pytest.fixture(scope="module")
def reviewed(tmp_path_factory) -> tuple[list[dict], dict[str, list[dict]], list[str]]:
    """Rows of two rounds by every arm, what each arm was to rank, and the command's options."""
    folder, seen = tmp_path_factory.mktemp("review"), {}
    options = ["--sets", "digits", "--first", "1000", "--seeds", "1", "--epochs", "2"]
    options += ["--decisions", "40", "--rounds", "2", "--out", str(folder)]

    def spied(name, rank, run, data, seed):
        order = rank(run, data, seed)
        pool = torch.cat([data.train.rows, data.validation.rows])
        judged = run.label_quality.rows.tolist()
        seen.setdefault(name, []).append({"judged": judged, "pool": pool, "order": order.tolist()})
        return order

    with pytest.MonkeyPatch.context() as patch:
        for name, rank in review.ARMS.items():
            patch.setitem(review.ARMS, name, partial(spied, name, rank))
        review.main(options)
    return json.loads((folder / "review.json").read_text())["rows"], seen, options


def test_a_review_removes_the_wrong_labels_that_it_sees_and_no_others(reviewed):
    rows, _, _ = reviewed
    assert [row["name"] for row in rows] == ["keeprate", "cleanlab", "random"]
    for row in rows:
        left = [one["wrong"] for one in row["rounds"]]  # counted in what `keeprate apply` wrote
        changed = [one["changed"] for one in row["rounds"][1:]]
        assert [first - then for first, then in itertools.pairwise(left)] == changed
        assert all(one["decisions"] == 40 for one in row["rounds"][1:])
        assert row["rounds"][0]["wrong_share"] == pytest.approx(left[0] / row["samples"], abs=1e-6)
        for one in (*row["rounds"], *(one["on_copy"] for one in row["rounds"][1:])):
            assert 0 < one["last"] <= one["best"] < 1 and one["seconds"] > 0
    first, random = ([one["changed"] for one in row["rounds"][1:]] for row in (rows[0], rows[2]))
    assert sum(first) > sum(random)


def test_all_arms_of_a_review_see_the_same_data_and_no_label_twice(reviewed):
    rows, seen, _ = reviewed
    assert all(row["rounds"][0] == rows[0]["rounds"][0] for row in rows)
    judged = seen["keeprate"][0]["judged"]
    assert judged == list(range(rows[0]["samples"]))
    for one, two in seen.values():
        assert one["judged"] == judged and sorted(one["pool"].tolist()) == judged
        assert sorted(two["pool"].tolist()) == judged
        decided = set(one["order"][:40])
        assert sorted(one["order"]) == judged and sorted(two["order"]) == two["judged"]
        assert set(two["judged"]) == set(judged) - decided


def test_a_review_that_is_done_trains_nothing(reviewed, monkeypatch, capsys):
    rows, _, options = reviewed
    monkeypatch.setattr(keeprate, "train", None)
    review.main(options)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "review: 3 of 3 runs are there" and lines[1:] == review.table(rows)
    of_random = [line for line in lines if "| random |" in line]
    assert [line.split(" | ")[2] for line in of_random] == ["40", "80"]
    last = rows[2]["rounds"][2]
    assert f" {100 * last['wrong_share']:.2f} | " in of_random[1]
    with pytest.raises(keeprate.InputError, match="another protocol"):
        review.main([*options, "--decisions", "41"])


def test_the_gain_of_a_review_is_from_the_first_training_on():
    ends = {"decisions": 50, "changed": 20, "wrong_share": 0.1, "last": 0.8, "balanced": 0.6}
    rows = [
        {
            "data": "digits",
            "seed": seed,
            "name": "random",
            "rounds": [
                {"wrong_share": 0.2, "last": before, "balanced": 0.5},
                ends | {"on_copy": {"last": 0.9, "balanced": 0.4}},
                ends | {"on_copy": {"last": before, "balanced": 0.5}},
            ],
        }
        for seed, before in ((1, 0.7), (2, 0.5))
    ]
    assert review.gains(rows, 1) == pytest.approx([10, 30])
    assert review.gains(rows, 2, on_copy=True) == pytest.approx([0, 0])
    one, two = (line.replace("\xa0", " ").split(" | ") for line in review.table(rows)[2:])
    assert one[2:4] == ["50", "20"] and two[2:4] == ["100", "40"]
    assert one[6:8] == ["20.00 ± 14.14 (40.00)", "30.00 ± 14.14 (60.00)"]
    assert two[6:8] == ["20.00 ± 14.14 (20.00)", "0.00 ± 0.00 (0.00)"]
    assert one[8:] == ["10.00 ± 0.00", "-10.00 ± 0.00 |"]
    assert two[8:] == ["10.00 ± 0.00", "0.00 ± 0.00 |"]


def test_the_numbers_of_the_review_in_the_docs_are_those_of_the_file():
    rows = json.loads((review.RESULTS / "review.json").read_text())["rows"]
    page = (Path(__file__).parent.parent / "docs" / "own-data.md").read_text()
    for line in review.table(rows):
        assert line in page
    assert all(100 <= row["seed"] <= 102 for row in rows)


@pytest.mark.parametrize("validation", noisy_validation.VALIDATIONS)
def test_a_search_with_and_without_clean_labels(validation):
    row = noisy_validation.run_one("pairflip:0.3", validation, 0, "digits", 500, 4)
    assert row["cost"]["full_trainings"] <= 6 and len(row["keep_rate"]) == 4
    assert 0 < row["noise_estimate"]["noise_rate"] < 1 and row["noise_rate"] > 0.2
    row |= {"noise": "pairflip:0.3", "validation": validation}
    assert len(noisy_validation.table([row])) == 3


def test_all_train_and_are_tested_on_the_same_samples():
    clean, noisy = (
        noisy_validation.prepared("digits", "pairflip:0.3", 1, 500, clean=clean)
        for clean in (True, False)
    )
    assert clean.validation.label_status == "clean" and clean.criterion == "accuracy"
    assert noisy.validation.label_status == "noisy" and noisy.criterion == "determinant"
    for split in ("train", "test"):
        with_clean, with_noisy = getattr(clean, split), getattr(noisy, split)
        assert with_clean.rows.tolist() == with_noisy.rows.tolist()
        assert (with_clean.labels == with_noisy.labels).all()
    assert len(noisy.train) == 450 and len(noisy.validation) == 50
    assert not set(noisy.validation.rows) & set(noisy.train.rows)
    assert noisy.validation.true_labels is None
    assert noisy.validation_from == "50 of the 500 training samples"
    true = keeprate.load_data("digits").splits["train"].labels[noisy.validation.rows]
    assert 0.1 < (noisy.validation.labels != true).float().mean() < 0.5


def test_classes_are_thinned_out():
    loaded = keeprate.load_data("digits")
    thin = long_tail.thinned(loaded, 0, 150, 10)
    sizes = np.bincount(thin.splits["train"].labels.numpy())
    assert sizes[0] == 150 and sizes[9] == 10 and (np.diff(sizes) < 0).all()
    labels = thin.splits["train"].labels.numpy()
    frequencies = np.bincount(labels) / len(labels)
    joint = frequencies[:, None] * long_tail.by_frequency(labels, 10, 0.2)  # P(true, given)
    assert np.allclose(joint.sum(0), frequencies)  # a class is named as often as it occurs
    wrong = 1 - np.diag(joint) / joint.sum(0)
    assert np.allclose(wrong, 0.2 * (1 - frequencies))
    rows = [
        {"noise": "n", "method": "m", "recalls": [0.9] * 7 + [0.5, 0.4, 0.3]},
        {"noise": "n", "method": "m", "recalls": [0.9] * 7 + [0.7, 0.6, 0.5]},
    ]
    assert long_tail.table(rows)[2] == "| n | m | 78.00\xa0±\xa04.24 | 50.00\xa0±\xa014.14 |"


def test_searches_of_a_rare_class_are_compared_seed_by_seed():
    data = imbalanced.some_data(1000)
    assert data.validation.label_status == "clean" and data.criterion == "accuracy"
    rare = data.class_names.index("rare")
    assert float((data.test.labels == rare).float().mean()) == pytest.approx(0.05, abs=0.005)
    assert data.noise_rate == pytest.approx(0.1, abs=0.02)
    shared = {"majority_average_precision": 0.05, "majority_accuracy": 0.95}
    rows = [
        {"metric": metric, "seed": seed, "average_precision": score, "accuracy": 0.9, **shared}
        for metric, seed, score in (
            ("average_precision", 1, 0.5),
            ("average_precision", 2, 0.7),
            ("accuracy", 2, 0.4),  # in another order than the others
            ("accuracy", 1, 0.4),
            ("accuracy", 3, 0.1),  # alone as yet
        )
    ]
    assert imbalanced.differences(rows, "average_precision") == pytest.approx([0.1, 0.3])
    lines = imbalanced.table(rows)
    assert lines[-2] == "| always the frequent class | 5.00\xa0±\xa00.00 | 95.00\xa0±\xa00.00 |"
    assert lines[-1].startswith("| difference, points | 20.00\xa0±\xa014.14 | 0.00")


def test_the_numbers_of_the_rare_class_in_the_docs_are_those_of_the_file():
    rows = json.loads((imbalanced.RESULTS / "imbalanced.json").read_text())["rows"]
    page = (Path(__file__).parent.parent / "docs" / "running.md").read_text()
    for line in imbalanced.table(rows)[2:]:
        average_precision, accuracy = line.replace("\xa0", " ").strip("| ").split(" | ")[1:]
        assert average_precision in page
        assert accuracy in page or line.startswith("| difference")
    assert {row["seed"] for row in rows} == set(range(100, 105))


def test_reading_is_measured_on_real_files(monkeypatch, tmp_path):
    pytest.importorskip("pyarrow")
    monkeypatch.setattr(reading, "N_ROWS", 2_000)
    paths = reading.write_tables(tmp_path)
    assert [path.suffix for path in paths] == [".csv", ".parquet"]
    read = [keeprate.prepare(path).train for path in paths]
    for name in ("inputs", "labels", "rows"):
        csv, parquet = (getattr(split, name) for split in read)
        np.testing.assert_array_equal(csv, parquet)
    found = reading.measure(paths[1])
    assert found["rows"] == 2_000
    assert found["peak_over_float32"] >= found["left_over_float32"]


@pytest.mark.parametrize("what", ["table", "images"])
def test_larger_data_are_the_same_data_both_ways(what, monkeypatch, tmp_path):
    monkeypatch.setenv("KEEPRATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(mapped, "SHARE", mapped.SHARE)  # to be restored
    monkeypatch.setattr(larger, "AT_ONCE", 100)
    larger.write_source(what, 250, tmp_path / "t.parquet")
    found = {way: larger.measure(tmp_path / "t.parquet", way, "standard") for way in larger.WAYS}
    assert {one["samples"] for one in found.values()} == {250}
    assert found["memory"]["score"] == found["mapped"]["score"]
    assert "score" not in found["again"]
    rows = [{"what": what, "n": 250, "method": "standard", "way": w, **found[w]} for w in found]
    assert len(larger.table(rows)) == 3


def test_the_numbers_of_larger_data_in_the_docs_are_those_of_the_file():
    rows = json.loads((Path(larger.__file__).parent / "results" / "larger.json").read_text())
    page = (Path(__file__).parent.parent / "docs" / "benchmarks.md").read_text()
    for line in larger.table(rows["rows"]):
        assert line in page


def test_judging_is_measured_on_labels_that_can_be_found():
    labels, probabilities = judging.make_inputs(500, 5)
    assert probabilities.dtype == np.float32 and np.allclose(probabilities.sum(1), 1)
    assert 0.1 < (labels != probabilities.argmax(1)).mean() < 0.25
    found = judging.measure(500, 5)
    assert (found["samples"], found["classes"]) == (500, 5) and found["extra_mb"] >= 0
    assert 0.1 < found["share_flagged"] < 0.25


def test_asking_is_measured_by_two_clocks_and_hashed():
    seconds, said = asking.search("random", 20, None)
    assert seconds.shape == (2,) and (seconds > 0).all()
    assert asking.search("random", 20, None)[1] == said != asking.search("random", 21, None)[1]
    now = {str(n): {"clock": 9.0, "processor": 1.4} for n in asking.TOLD}
    before = {n: {"clock": 9.0, "processor": 12.0} for n in now}
    row = {"sampler": "tpe", "place": "memory", "before": before, "now": now}
    assert asking.table([row])[2] == "| `tpe` | memory |" + " 12 → 1 |" * 4


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_process_that_does_everything_gives_everything_back(monkeypatch):
    pytest.importorskip("pyarrow")
    monkeypatch.setattr(soak, "CONFIG", replace(soak.CONFIG, epochs=2))
    monkeypatch.setattr(soak, "SAMPLES", 150)
    *_, rows = soak.soak(seconds=1e-9, least_rounds=2)
    before, after = rows  # the first round imports
    assert (before["rounds"], after["rounds"]) == (1, 2)
    for name in ("files", "tensors", "temporary_files"):
        assert after[name] == before[name], name
    assert after["threads"] <= before["threads"] + 2  # pools start theirs when they are busy
    assert all(row["half_written_files"] == 0 for row in rows)
    assert after["rss_mb"] < before["rss_mb"] + 100


def test_the_slope_of_memory_is_that_of_the_later_rows():
    rows = [
        {
            "minutes": minute,
            "processor_minutes": minute / 2,
            "rounds": 2 * minute,
            "rss_mb": 500.0 + 3 * minute,
        }
        for minute in range(1, 31)
    ]
    rows[0]["rss_mb"] = 9.0  # while the process warms up
    found = soak.slope(rows, 30 * 60)
    assert found is not None and found["rows"] == 26
    assert found["mb_per_processor_hour"] == pytest.approx(360) and found["mb_per_round"] == 1.5
    assert found["mb_per_processor_hour_error"] == pytest.approx(0, abs=1e-3)
    assert (found["first"], found["last"]) == (515, 590)
    assert soak.slope(rows[:2], 30 * 60) is None


def test_the_engine_is_measured_beside_plain_loops_of_its_precision(monkeypatch):
    monkeypatch.setattr(engine, "STEPS", {"model1": 1})
    monkeypatch.setattr(engine, "LEAST_STEPS", 1)
    monkeypatch.setattr(engine, "LAYERS_OF", 1)
    monkeypatch.setattr(loops, "LONGEST", 0.0)
    monkeypatch.setattr(engine, "matmul_rate", partial(engine.matmul_rate, size=64))
    monkeypatch.setattr(engine, "_too_large", lambda *_: {"keeprate, K = 2": "memory holds 1"})
    result = engine.measure("model1", "", torch.device("cpu"), 1, [1, 2])
    seconds = {name: one["median"] for name, one in result["seconds_per_candidate_epoch"].items()}
    assert "keeprate, K = 2" not in result["ratios"] and "keeprate, K = 2" not in seconds
    ratios = result["ratios"]["keeprate, K = 1"]
    fastest = min(seconds["plain"], seconds["plain, channels last"])
    assert ratios["plain / keeprate"] == pytest.approx(
        seconds["plain"] / seconds["keeprate, K = 1"], abs=0.01
    )
    assert ratios["fastest plain of this precision / keeprate"] == pytest.approx(
        fastest / seconds["keeprate, K = 1"], abs=0.01
    )
    first, second = result["convolutions"]["layers"]
    assert first["gflop_forward"] == round(2 * 128 * 2 * 6 * 75 * 28 * 28 / 1e9, 2)
    assert second["gflop_forward"] == round(2 * 128 * 2 * 16 * 150 * 10 * 10 / 1e9, 2)


def test_what_runs_within_a_part_counts_there_alone():
    clock = overhead.Clock()
    inner = clock.timed("inner", lambda: time.sleep(0.05))
    clock.timed("outer", lambda: (time.sleep(0.02), inner()))()
    assert 0.02 <= clock.seconds["outer"] < 0.05 <= clock.seconds["inner"]


def test_the_seconds_of_a_command_are_those_of_its_parts(tmp_path):
    result = overhead.profile(["train", "digits", "--epochs", "1"], tmp_path)
    assert set(result["parts"]) >= {"start", "data read", "steps", "pictures", "rest"}
    assert sum(result["parts"].values()) == pytest.approx(result["seconds"], abs=0.1)
    assert all(seconds >= 0 for seconds in result["parts"].values())
    named = {place for places in overhead.PARTS.values() for place in places}
    assert all(callable(getattr(*overhead.find(place))) for place in named)


def test_train_steps_are_counted_and_compared_with_their_floor(monkeypatch):
    monkeypatch.setattr(loop.Steps, "run", loop.Steps.run)  # the counter's own is taken back
    monkeypatch.setattr(overhead, "least_step", lambda n: (0.001 * n, 0.002 * n))
    counter = overhead.StepCounter()
    config = keeprate.TrainingConfig(epochs=2, batch_size=500)
    keeprate.train(keeprate.prepare("digits"), method="co-teaching", model="mlp",
                   schedule="co-teaching", noise_rate=0.2, baselines=False, restarts=1,
                   config=config)  # fmt: skip
    assert set(counter.counts) == {2} and counter.seconds > 0
    found, count = counter.beside_their_floor(), counter.counts[2]
    assert found["products"]["seconds"] == pytest.approx(0.002 * count, abs=0.01)
    assert found["floor / seconds"] == pytest.approx(0.006 * count / counter.seconds, abs=0.01)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux says how much memory is private")
def test_what_grows_is_measured():
    row = scaling.in_a_process("epochs", 1)
    assert 0 < row["training_seconds"] <= row["seconds"] and row["processor_seconds"] > 0
    assert row["peak_bytes"] > 0 and row["folder_bytes"] > 10_000
    assert {(job.key["axis"], job.key["size"]) for job in scaling.jobs()} == {
        (axis, size) for axis, one in scaling.AXES.items() for size in one.sizes
    }


def test_growth_is_that_between_the_two_largest_sizes():
    sizes = (10, 100, 1_000)
    of_size = [
        {"axis": "trials", "size": n, "seconds": n, "processor_seconds": n**2, "peak_bytes": 2**20}
        for n in reversed(sizes)
    ]
    rows = [{"size": 1, "x": 99}, {"size": 4, "x": 8}, {"size": 2, "x": 2}]
    assert scaling.growth(rows, "x") == 2
    *_, line = scaling.table(of_size)
    assert line == "| trials | 10, 1,000 | 100.0, 1000000.0 | 2.00 | 1, 1 | 0.00 |"


def test_a_step_is_timed_that_processes_may_share():
    seconds, processor, n_gradients = parallel.seconds_of_steps("mlp", 2)
    assert seconds > 0 and processor > 0 and n_gradients == 2 * 203_530


def test_the_numbers_of_shared_steps_in_the_docs_are_those_of_the_file():
    root = Path(__file__).parents[1]
    result = json.loads((root / "benchmarks/results/parallel.json").read_text())
    page = (root / "docs/running.md").read_text()
    assert result["models"].keys() == parallel.STEPS.keys()
    for line in parallel.table(result["models"]):
        assert line in page


def test_the_growth_in_the_docs_is_that_of_the_file():
    rows = json.loads((scaling.RESULTS / "scaling.json").read_text())["rows"]
    page = (Path(__file__).parent.parent / "docs" / "scaling.md").read_text()
    assert "\n".join(scaling.table(rows)) in page
