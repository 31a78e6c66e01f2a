"""The benchmark of labels that are wrong in reality: rivals, measures, resuming, its page."""

from __future__ import annotations

import io
import itertools
import json
import os
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from sklearn.metrics import accuracy_score, balanced_accuracy_score, log_loss
from torch import nn

from benchmarks import frozen_features, noisy_sets, real_noise, real_noise_page, rivals
from benchmarks.lines import DEFAULT, LINES
from benchmarks.noisy_sets import SCENARIOS, SETS, prepared
from benchmarks.real_noise_tables import difference_table, goal_table, metric_table
from benchmarks.rivals import Outcome
from keeprate import InputError, TrainingConfig

FAST = "logistic regression"


@pytest.fixture
def quick(monkeypatch):
    """Perceptrons of a few epochs."""
    monkeypatch.setattr(rivals, "MOST_EPOCHS", 8)


def digits(scenario: str, seed: int = 0) -> tuple[noisy_sets.Task, noisy_sets.Truth]:
    return prepared("digits-20", scenario, seed, "")


# Data ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_no_line_sees_a_label_that_only_the_scoring_knows(scenario):
    task, truth = digits(scenario)
    assert task.data.test is None and task.data.noise == "none" and task.data.noise_rate is None
    assert task.data.validation.true_labels is None or scenario == "clean"
    assert 0.1 < (task.labels != truth.train).mean() < 0.3
    assert len(task.test_inputs) == len(truth.test) == len(task.raw_test_inputs)
    shown = {row.tobytes() for row in task.data.normaliser()(task.data.train.inputs).numpy()}
    tested = {row.tobytes() for row in task.test_inputs}
    validated = {row.tobytes() for row in task.data.validation.inputs.numpy()}
    trained = {row.tobytes() for row in task.data.train.inputs.numpy()}
    assert not tested & shown and not validated & trained


def test_both_scenarios_have_the_same_noisy_samples():
    (noisy, of_noisy), (clean, of_clean) = digits("noisy"), digits("clean")
    np.testing.assert_array_equal(noisy.labels, clean.labels)
    np.testing.assert_array_equal(of_noisy.train, of_clean.train)
    np.testing.assert_array_equal(of_noisy.test, of_clean.test)
    assert noisy.clean_labels is None and noisy.data.criterion == "determinant"
    assert clean.data.criterion == "accuracy"
    np.testing.assert_array_equal(clean.clean_labels, clean.data.validation.labels)
    both = torch.cat([noisy.data.train.rows, noisy.data.validation.rows]).sort().values
    assert both.tolist() == list(range(len(noisy.labels)))
    assert len(noisy.data.validation) == len(noisy.labels) // 10
    for split in (noisy.data.train, noisy.data.validation):
        np.testing.assert_array_equal(noisy.labels[split.rows], split.labels)


def test_clean_labels_are_right():
    images = noisy_sets.keeprate.load_data("digits").splits["train"]
    by_pixels = {
        row.numpy().tobytes(): int(y) for row, y in zip(images.inputs, images.labels, strict=True)
    }
    task, truth = digits("clean")
    validation = task.data.validation
    for inputs, labels in (
        (validation.inputs, task.clean_labels),
        (task.raw_test_inputs, truth.test),
        (task.data.train.inputs, truth.train),
    ):
        right = [by_pixels[row.numpy().tobytes()] for row in inputs]
        np.testing.assert_array_equal(labels, right)


@pytest.mark.realdata
@pytest.mark.skipif("KEEPRATE_DATA" not in os.environ, reason="KEEPRATE_DATA is not set")
@pytest.mark.parametrize(
    ("name", "noise", "n_train", "n_clean", "n_test"),
    [
        ("labelme", 0.271, 1000, 500, 1188),
        ("hausa", 0.504, 2045, 290, 582),
        ("hausa-text", 0.504, 2045, 290, 582),
        ("youtube", 0.066, 1158, 120, 250),
        ("jira", 0.137, 8000, 500, 10_000),
    ],
)
def test_real_sets_are_cut(name, noise, n_train, n_clean, n_test):
    task, truth = prepared(name, "clean", 0, os.environ["KEEPRATE_DATA"])
    assert (len(task.labels), len(task.clean_labels), len(truth.test)) == (n_train, n_clean, n_test)
    assert (task.labels != truth.train).mean() == pytest.approx(noise, abs=0.01)
    again, _ = prepared(name, "noisy", 1, os.environ["KEEPRATE_DATA"])
    np.testing.assert_array_equal(again.labels, task.labels)  # the draw does not go by the seed


def test_features_are_made_once(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for name, n in (("cifar-100", 128), ("cifar-10", 6)):
        (tmp_path / name).mkdir()
        for split in ("train", "test"):
            images = []
            for _ in range(n):
                content = io.BytesIO()
                pixels = rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(content, format="png")
                images.append({"bytes": content.getvalue()})
            table = pa.table({"image": images, "label": [i % 2 for i in range(n)]})
            pq.write_table(table, tmp_path / name / f"{split}-00000-of-00001.parquet")
    monkeypatch.setattr(frozen_features, "EPOCHS", 1)
    made = frozen_features.cached(str(tmp_path), tmp_path / "cache")
    again = frozen_features.cached(str(tmp_path), tmp_path / "other")
    assert made["train"].shape == made["test"].shape == (6, frozen_features.FEATURES)
    assert torch.equal(made["train"], again["train"])  # seeded
    monkeypatch.setattr(frozen_features, "train", None)
    assert torch.equal(
        frozen_features.cached(str(tmp_path), tmp_path / "cache")["test"], made["test"]
    )


# Rivals ----------------------------------------------------------------------------------------


def test_the_losses_are_those_of_their_papers():
    logits = torch.tensor([[2.0, 0.0, -1.0], [0.5, 1.0, 0.0]])
    labels, rows = torch.tensor([0, 2]), torch.tensor([3, 1])
    p = logits.softmax(1)
    given = p[torch.arange(2), labels]
    expected = ((1 - given**0.7) / 0.7).mean()
    assert torch.isclose(rivals.generalised(logits, labels, rows), expected)
    flat = 0.9 * nn.functional.one_hot(labels, 3) + 0.1 / 3
    expected = -(flat * p.log()).sum(1).mean()
    assert torch.isclose(rivals.smoothed(logits, labels, rows), expected)
    early = rivals.EarlyLearning(5, 3)
    early(logits.flip(1), labels, rows)
    targets = 0.7 * 0.3 * logits.flip(1).softmax(1) + 0.3 * p
    expected = -given.log().mean() + 3 * (1 - (targets * p).sum(1)).log().mean()
    assert torch.isclose(early(logits, labels, rows), expected, atol=1e-6)
    assert not early.targets[[0, 2, 4]].any()


@pytest.mark.parametrize("loss", rivals.LOSSES)
def test_the_best_epoch_by_validation_is_kept(loss, monkeypatch):
    task, truth = digits("clean")
    scores = []
    score = rivals._score

    def recorded(*given):
        scores.append(score(*given))
        return scores[-1]

    monkeypatch.setattr(rivals, "_score", recorded)
    monkeypatch.setattr(rivals, "PATIENCE", 4)
    clean = (task.clean_inputs, task.clean_labels)
    network = rivals.train_perceptron(
        task.inputs, task.labels, *clean, task.n_classes, loss=loss, seed=1
    )
    assert score(network, *map(torch.from_numpy, clean)) == max(scores)
    assert len(scores) < rivals.MOST_EPOCHS  # patience ended it
    assert scores.index(max(scores)) == len(scores) - 5
    logits = network(torch.from_numpy(task.test_inputs))
    assert (logits.argmax(1).numpy() == truth.test).mean() > 0.85


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize(
    "line",
    [
        *(name for name in LINES if not name.startswith("keeprate")),
        DEFAULT,
        "keeprate standard",
        "keeprate search, budget 6",
    ],
)
def test_every_line_answers_in_the_shapes_of_its_task(line, scenario, quick):
    if scenario not in LINES[line].scenarios:
        pytest.skip("not in this scenario")
    task, truth = digits(scenario)
    short = {"config": TrainingConfig(epochs=12)} if line.startswith("keeprate") else {}
    outcome = LINES[line].run(task, 0, **short)
    row = real_noise.measured(task, truth, outcome)
    if outcome.test_probabilities is not None:
        assert outcome.test_probabilities.shape == (len(truth.test), 10)
        np.testing.assert_allclose(outcome.test_probabilities.sum(1), 1, rtol=1e-5)
        assert row["accuracy"] > 0.4
    if "alone" not in line:
        assert outcome.wrong_score.shape == task.labels.shape
        assert row["average_precision"] > row["noise"]
    if line.startswith(("keeprate", "cleanlab")):
        assert row["list_precision"] > row["noise"] > row["noise_after"] > 0
        assert abs(row["noise_rate_error"]) < 0.3
        assert row["listed"] == outcome.listed.sum()


def test_clean_samples_validate_and_do_not_train(quick):
    task, _ = digits("clean")
    fitted = rivals.perceptron_of(task, 0).fit(task.inputs, task.labels)
    alone = rivals.Perceptron(10, seed=0).fit(task.inputs, task.labels)
    assert fitted.clean[0] is task.clean_inputs and alone.clean is None
    without, _ = digits("noisy")
    assert rivals.perceptron_of(without, 0).clean is None


# Measures --------------------------------------------------------------------------------------


def test_measures_agree_with_scikit_learn():
    task, truth = digits("noisy")
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(10), len(truth.test))
    row = real_noise.measured(task, truth, Outcome(p, noise_rate=0.3))
    predicted = p.argmax(1)
    assert row["accuracy"] == pytest.approx(accuracy_score(truth.test, predicted), abs=1e-6)
    expected = balanced_accuracy_score(truth.test, predicted)
    assert row["balanced_accuracy"] == pytest.approx(expected, abs=1e-6)
    expected = log_loss(truth.test, p, labels=range(10))
    assert row["log_loss"] == pytest.approx(expected, abs=1e-6)
    assert row["noise_rate_error"] == pytest.approx(0.3 - row["noise"], abs=1e-6)
    assert not {"average_precision", "listed", "noise_after", "calibration_error"} & set(row)


def test_a_list_is_measured_by_what_it_leaves():
    task, truth = digits("noisy")
    wrong = task.labels != truth.train
    perfect = Outcome(None, wrong.astype(float), wrong, truth.train)
    row = real_noise.measured(task, truth, perfect)
    assert row["average_precision"] == row["list_precision"] == 1
    assert row["noise_after"] == row["calibration_error"] == 0
    assert row["listed"] == wrong.sum() and "accuracy" not in row
    empty = Outcome(None, None, np.zeros_like(wrong), truth.train)
    row = real_noise.measured(task, truth, empty)
    assert row["listed"] == 0 and "list_precision" not in row and row["noise_after"] == row["noise"]
    worse = Outcome(None, None, ~wrong, (truth.train + 1) % 10)
    assert real_noise.measured(task, truth, worse)["noise_after"] == 1


def test_the_calibration_error_is_that_of_its_bins():
    rng = np.random.default_rng(0)
    scores = rng.random(500)
    scores[:2] = 0.0, 1.0
    wrong = rng.random(500) < np.where(
        (scores * 15).astype(int) % 2, 1, 0.1
    )  # unlike next to each other
    expected = 0.0
    edges = np.linspace(0, 1, 16)
    for low, high in itertools.pairwise(edges):
        inside = (scores >= low) & ((scores < high) | (high == 1))
        if inside.any():
            expected += inside.mean() * abs(scores[inside].mean() - wrong[inside].mean())
    assert real_noise.calibration_error(scores, wrong) == pytest.approx(expected)


# Runs and page ---------------------------------------------------------------------------------


def run(folder: Path, *more: str) -> None:
    real_noise.main(["--out", str(folder), "--sets", "digits-20", "--lines", FAST, *more])


def test_what_has_a_row_is_not_run_again(tmp_path, capsys, monkeypatch):
    run(tmp_path, "--seeds", "1", "--scenarios", "clean")
    rows = real_noise_page._rows(tmp_path)
    assert [(row["set"], row["line"], row["seed"]) for row in rows] == [("digits-20", FAST, 0)]
    ran = []
    real = real_noise.run_line
    monkeypatch.setattr(real_noise, "run_line", lambda *a: ran.append(a[:4]) or real(*a))
    run(tmp_path, "--seeds", "2", "--scenarios", "clean")
    assert ran == [("digits-20", "clean", FAST, 1)]
    run(tmp_path, "--seeds", "1", "--scenarios", "clean", "--first-seed", "1000")
    assert len(real_noise_page._rows(tmp_path)) == 2  # development is elsewhere
    assert (tmp_path / "real_noise-development.json").exists()
    assert "| logistic regression |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--first-seed", "999", "--seeds", "2"), "run the two apart"),
        (("--seeds", "0"), "at least 1"),
        (("--sets", "digit"), "--sets must be among"),
        (("--lines", "MLP; ELR"), "--lines must be among"),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path, options, words):
    with pytest.raises(InputError, match=words):
        run(tmp_path, *options)


def test_names_may_hold_a_comma():
    known = ["a", "b, c", "d"]
    assert real_noise._names(None, known, "--x") == known
    assert real_noise._names("a,d", known, "--x") == ["a", "d"]
    assert real_noise._names("b, c", known, "--x") == ["b, c"]
    assert real_noise._names("b, c; d", known, "--x") == ["b, c", "d"]


def made_rows() -> list[dict]:
    accuracy = {DEFAULT: (0.9, 0.94), "MLP": (0.8, 0.88), FAST: (0.95, 0.95)}
    return [
        {"set": name, "scenario": "noisy", "line": line, "seed": seed, "noise": 0.2}
        | {"accuracy": value, "seconds": 3.0, "noise_rate_error": value - 0.93}
        for name in ("labelme", "mnist-20")
        for line, values in accuracy.items()
        for seed, value in enumerate(values)
        if (name, line) != ("mnist-20", "MLP")
    ]


def test_tables_hold_means_and_paired_differences():
    rows = made_rows()
    table = metric_table(rows, "noisy", "accuracy")
    assert table[0] == "|  | LabelMe | MNIST, 20 % symmetric |"
    assert table[2] == "| logistic regression | **95.00\xa0±\xa00.00** | **95.00\xa0±\xa00.00** |"
    assert table[3] == "| MLP | 84.00\xa0±\xa05.66 | – |"
    errors = metric_table(rows, "noisy", "noise_rate_error")
    assert errors[4].startswith(f"| {DEFAULT} | **-1.00")  # next to zero
    assert "**" not in "".join(metric_table(rows, "noisy", "seconds"))
    differences = difference_table(rows, "noisy", "accuracy")
    assert differences[3] == "| MLP | +8.00\xa0±\xa02.00 | – | +8.00 |"  # 10 and 6
    assert differences[2].endswith("| −3.00\xa0±\xa02.00 | −3.00\xa0±\xa00.00 |")
    assert metric_table(rows, "clean", "accuracy") == []


def test_goals_are_judged_by_paired_differences():
    rows = made_rows()
    for row in rows:
        if row["line"] == DEFAULT:
            row |= {"noise_after": 0.3 if row["set"] == "labelme" else 0.1, "covered": row["seed"]}
        folded = row | {"line": "cleanlab CleanLearning", "seconds": 0.9}
        if row["line"] == "MLP":
            rows.append(folded | {"accuracy": row["accuracy"] + 0.07})
    header, _, *lines = (line.strip("| ").split(" | ") for line in goal_table(rows, "noisy"))
    goals = {goal: list(column) for goal, *column in zip(header, *lines, strict=True)}
    beaten = "**no**, −3.00\xa0±\xa02.00 (logistic regression)"
    assert goals["accuracy: no rival is better"][0] == beaten
    assert goals["accuracy above MLP"] == ["yes, +8.00\xa0±\xa02.00", "–", "1 of 1"]
    assert goals["accuracy above CleanLearning"][0] == "yes, +1.00\xa0±\xa02.00"
    assert goals["at most 3 times CleanLearning's seconds"][0] == "**no**, 3.3 times"
    harm = goals["taking all suggestions does no harm"]
    assert harm == ["**no**, 20.00 to 30.00 %", "yes, 20.00 to 10.00 %", "1 of 2"]
    assert goals["the interval holds the noise rate"][0] == "**no**, 1 of 2"
    assert "accuracy above clean alone" not in goals


def test_the_page_is_filled_and_checked(tmp_path):
    page, image = tmp_path / "page.md", tmp_path / "picture.svg"
    (tmp_path / "real_noise.json").write_text(json.dumps({"rows": made_rows()}))
    page.write_text("Words.\n\n<!-- fill: table noisy accuracy -->\nold\n<!-- end -->\n\nMore.\n")
    with pytest.raises(InputError, match="not current"):
        real_noise_page.check(tmp_path, page)
    real_noise_page.write(tmp_path, page, image)
    real_noise_page.check(tmp_path, page)
    text = page.read_text()
    assert text.startswith("Words.\n\n<!-- fill") and text.endswith("<!-- end -->\n\nMore.\n")
    assert "old" not in text and "| MLP | 84.00" in text
    assert ElementTree.parse(image).getroot().tag.endswith("svg")
    first = image.read_bytes()
    real_noise_page.write(tmp_path, page, image)
    assert image.read_bytes() == first  # equal rows, equal file
    page.write_text("<!-- fill: tables -->\n<!-- end -->\n")
    with pytest.raises(InputError, match="mend it"):
        real_noise_page.write(tmp_path, page, image)


def test_the_committed_page_asks_for_what_there_is():
    filled = real_noise_page.text(real_noise_page.PAGE.read_text(encoding="utf-8"), made_rows())
    assert "84.00" in filled
    if (real_noise_page.RESULTS / "real_noise.json").exists():
        real_noise_page.check()
        assert real_noise_page.PICTURE.exists()
    assert set(real_noise_page._SHOWN) <= set(LINES) and len(SETS) == 17
