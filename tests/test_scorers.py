"""Searches by scorers of scikit-learn, and who always names the most frequent class."""

from __future__ import annotations

import csv
import math
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.dummy import DummyClassifier
from sklearn.metrics import fbeta_score, get_scorer, log_loss, make_scorer

import keeprate
from keeprate import InputError, NoisyLabelClassifier, TrainingConfig
from keeprate.cli import commands
from keeprate.data import Data
from keeprate.engine.evaluation import evaluate
from keeprate.engine.scorers import Scorer
from keeprate.records import ByClass, load_record
from keeprate.report import find_cautions, write_report
from keeprate.report.words import data_in_words
from tests.report_records import make_finished_record

CONFIG = TrainingConfig(epochs=4, batch_size=32, learning_rate=3e-3)
NAMES = ("accuracy", "balanced_accuracy", "f1_macro", "neg_log_loss", "roc_auc_ovr")
BINARY = ("f1", "average_precision", "roc_auc", "precision", "matthews_corrcoef")


def rare(n: int = 600, share: float = 0.1, seed: int = 0) -> tuple[Any, Any]:
    """Samples of which few are "bad"."""
    rng = np.random.default_rng(seed)
    is_bad = np.arange(n) < share * n
    inputs = rng.normal(size=(n, 5)).astype(np.float32)
    inputs[is_bad, :2] += 1.5
    return inputs, np.where(is_bad, "bad", "ok")


def rare_data(**options: Any) -> Data:
    return keeprate.prepare(rare(), noise="symmetric:0.1", seed=0, **options)


class Given:
    """A fitted classifier of scikit-learn's kind that has predicted already."""

    _estimator_type = "classifier"

    def __init__(self, classes: Any, probabilities: Any) -> None:
        self.classes_, self.probabilities = np.asarray(classes), probabilities

    def predict_proba(self, X: Any) -> Any:
        return self.probabilities

    def predict(self, X: Any) -> Any:
        return self.classes_[self.probabilities.argmax(1)]

    def __sklearn_tags__(self) -> Any:
        return DummyClassifier().__sklearn_tags__()


# Scores -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_each_network_has_the_score_that_scikit_learn_gives(name: str) -> None:
    rng = np.random.default_rng(1)
    labels = rng.permutation(np.arange(60) % 3)
    probabilities = rng.dirichlet(np.ones(3), (2, 2, 60))
    scorer = Scorer(name, ("a", "b", "c"))
    found = scorer(torch.from_numpy(labels), torch.from_numpy(probabilities))
    for k in range(2):
        for r in range(2):
            given = Given(range(3), probabilities[k, r])
            expected = get_scorer(name)(given, np.zeros((60, 1)), labels)
            assert float(found[k, r]) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize("positive", ["bad", "ok"])
def test_the_positive_class_is_found_wherever_it_stands(name: str, positive: str) -> None:
    rng = np.random.default_rng(2)
    labels, p = rng.permutation(np.arange(80) % 4 == 0), rng.random(80)  # "bad" is class 0
    both = torch.from_numpy(np.stack([p, 1 - p], 1))[None, None]
    found = Scorer(name, ("bad", "ok"), positive)(torch.from_numpy(1 - labels.astype(int)), both)
    is_positive, of_positive = (labels, p) if positive == "bad" else (~labels, 1 - p)
    given = Given((0, 1), np.stack([1 - of_positive, of_positive], 1))
    expected = get_scorer(name)(given, np.zeros((80, 1)), is_positive.astype(int))
    assert float(found) == pytest.approx(expected, abs=1e-12)


def test_one_pass_gives_accuracy_and_score() -> None:
    """Those of the networks' own probabilities; the network runs once for each batch."""
    data = rare_data()
    run = keeprate.train(data, schedule="constant", method="mentornet", config=CONFIG)
    module, normaliser = run.classifier.modules[0], data.normaliser()
    scorer = Scorer.of("neg_log_loss", data)
    calls = []

    class One:
        n_candidates = n_peers = 1

        def __call__(self, inputs: Any) -> Any:
            calls.append(len(inputs))
            return module(inputs)[None, None]

    test = data.test
    assert test is not None
    found = evaluate(One(), test, normaliser, "accuracy", scorer=scorer)  # type: ignore[arg-type]
    assert calls == [len(test)]
    predicted = module(normaliser(test.inputs)).detach().double().softmax(-1)
    assert float(found.score) == pytest.approx(-log_loss(test.labels, predicted), rel=1e-6)
    assert float(found.accuracy) == pytest.approx(
        float((predicted.argmax(1) == test.labels).float().mean())
    )


@pytest.mark.parametrize("name", ["neg_log_loss", "average_precision", "matthews_corrcoef"])
def test_predictions_that_are_no_numbers_are_the_worst(name: str) -> None:
    data = rare_data()
    scorer, n = Scorer.of(name, data), len(data.validation)
    drawn = torch.rand(1, 3, n, 1, generator=torch.Generator().manual_seed(0))
    probabilities = torch.cat([drawn, 1 - drawn], -1)
    probabilities[0, 1, 3] = math.nan
    found = scorer(data.validation.labels, probabilities)[0].tolist()
    assert all(map(math.isfinite, found)) and found[1] == scorer.worst < min(found[0], found[2])


def test_a_scorer_object_and_a_function_are_scorers() -> None:
    data = rare_data()
    options: dict[str, Any] = {"schedule": "constant", "method": "mentornet", "config": CONFIG}
    run = keeprate.train(data, metric=make_scorer(fbeta_score, beta=2), **options)
    assert run.record.data.criterion == "fbeta score"

    def accuracy(estimator: Any, X: Any, y: Any) -> float:
        return float((estimator.predict(X) == y).mean())

    own = keeprate.train(data, metric=accuracy, **options)
    curves = own.results[0].curves
    assert curves.validation_score == pytest.approx(curves.validation_accuracy)
    assert own.record.data.criterion == "accuracy score" and own.record.has_scorer
    assert own.record.config["metric"]["scorer"].startswith("<function")
    assert "0x" not in own.record.config["metric"]["scorer"]  # the same in another process


def plain_precision(estimator: Any, X: Any, y: Any) -> float:
    """As people write it: 0 / 0 where no sample is predicted to be positive."""
    predicted = estimator.predict(X) == 1
    return float((predicted & (y == 1)).sum()) / int(predicted.sum())


def some_of_both(estimator: Any, X: Any, y: Any) -> float:
    """A metric that refuses those who say the same of all samples."""
    if not np.ptp(X, axis=0).any():
        raise ValueError("the same of all samples")
    return float((estimator.predict(X) == y).mean())


def test_who_names_one_class_alone_has_the_worst_of_0_by_0() -> None:
    data = rare_data()
    scorer = Scorer.of(plain_precision, data)
    assert scorer.of_shares(data.validation.labels, (0.1, 0.9)) == scorer.worst == 0
    with pytest.raises(InputError, match="division by zero"):
        Scorer.of(lambda estimator, X, y: 1 / 0, data)


def test_a_run_ends_though_its_metric_refuses_the_majority(tmp_path: Path) -> None:
    options: dict[str, Any] = {"schedule": "constant", "method": "mentornet", "config": CONFIG}
    run = keeprate.train(rare_data(), metric=some_of_both, out=tmp_path, **options)
    found = load_record(tmp_path).by_class
    assert found is not None and found.majority_score is None
    assert run.results[0].curves.validation_score[-1] > 0.5
    page = (tmp_path / "report.html").read_text()
    row = page.partition("always &#x27;ok&#x27;")[2].partition("</tr>")[0]
    assert ">–<" in row


class AtLeast:
    """A metric that holds a number."""

    def __init__(self, share: float) -> None:
        self.share = share

    def __call__(self, estimator: Any, X: Any, y: Any) -> float:
        return float((X[:, 1] >= self.share).mean())


def at_least(share: float) -> Any:
    def held(estimator: Any, X: Any, y: Any) -> float:
        return float((X[:, 1] >= share).mean())

    return held


def weighed(costs: Any, estimator: Any, X: Any, y: Any) -> float:
    return float(-costs[y, estimator.predict(X)].mean())


@pytest.mark.parametrize(
    "make",
    [
        AtLeast,
        at_least,
        lambda share: AtLeast(share).__call__,
        lambda share: partial(at_least(0.5), X=share),
        lambda share: partial(weighed, np.full((40, 40), share)),
        lambda share: make_scorer(partial(fbeta_score, beta=share)),
    ],
)
def test_metrics_that_hold_other_numbers_are_others(make: Any) -> None:
    first, again, other = (Scorer(make(n), ("a", "b")).identity for n in (0.25, 0.25, 0.75))
    assert first == again != other
    assert "0x" not in first


IDENTITY = """
import numpy as np
from sklearn.metrics import fbeta_score, make_scorer
from keeprate.engine.scorers import Scorer
from tests.test_scorers import AtLeast

held = AtLeast(0.5)
held.names = {"ape", "bee", "cat", "dog"}
for one in (held, make_scorer(fbeta_score, beta=2), held.__call__):
    print(Scorer(one, ("a", "b")).identity)
"""


def test_an_identity_is_the_same_in_another_process() -> None:
    root = Path(__file__).parent.parent
    shown = {
        subprocess.run(
            [sys.executable, "-c", IDENTITY],
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            cwd=root, capture_output=True, text=True, check=True,
        ).stdout
        for seed in "12"
    }  # fmt: skip
    assert len(shown) == 1 and shown.pop().count("\n") == 3


# What does not fit ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "positive", "message"),
    [
        ("averge_precision", None, "got 'averge_precision'; try average_precision"),
        ("f1", None, r"fit the validation labels, got f1 \(Target is multiclass"),
        ("roc_auc", None, r"got roc_auc \(multi_class must be in"),
        ("r2", None, "must score classes, not amounts, got 'r2'"),
        (3, None, "must be accuracy, a scorer of scikit-learn, or its name, got 3"),
        ("f1_macro", "7", "positive must be left out where there are 10 classes, got '7'"),
        ("accuracy", "7", "positive must come with a metric"),
        (lambda estimator, X, y: {"a": 1}, None, "must give one number"),
        (lambda estimator, X, y: 1 / 0, None, "division by zero"),
    ],
)
def test_what_does_not_fit_is_refused_before_the_training(
    metric: Any, positive: Any, message: str
) -> None:
    data = keeprate.prepare("digits", limit=100, noise="symmetric:0.2")
    with pytest.raises(InputError, match=message):
        keeprate.train(data, metric=metric, positive=positive, config=CONFIG)


def test_classes_that_held_out_labels_lack_are_said() -> None:
    data = rare_data()
    validation = replace(data.validation, labels=torch.ones_like(data.validation.labels))
    with pytest.raises(InputError, match="roc_auc, no number where 1 classes occur; give valid"):
        Scorer.of("roc_auc", replace(data, validation=validation))
    with pytest.raises(InputError, match="positive must be bad or ok, got 'worse'"):
        Scorer.of("roc_auc", data, "worse")


def test_noisy_validation_labels_allow_accuracy_alone() -> None:
    data = rare_data(validation="noisy")
    for metric in ("average_precision", make_scorer(fbeta_score, beta=2)):
        with pytest.raises(InputError, match=r"as noisy as the others.*right labels, or leave"):
            keeprate.search(data, metric=metric, config=CONFIG)
    run = keeprate.train(data, metric="accuracy", method="mentornet", config=CONFIG)
    assert run.record.data.criterion == "determinant" and "metric" not in run.record.config


# Searches ---------------------------------------------------------------------------------------


def test_a_search_goes_by_the_metric(tmp_path: Path) -> None:
    data = rare_data()
    options: dict[str, Any] = {"budget": "6trials", "config": CONFIG, "restarts": 3}
    run = keeprate.search(data, metric="neg_log_loss", out=tmp_path, **options)
    record = load_record(tmp_path)
    assert record == run.record and record.has_scorer
    values = {trial.number: trial.value for trial in record.trials}
    assert max(value or 0 for value in values.values()) < 0  # no share
    best = max(values, key=lambda number: values[number] or -9)
    assert record.finalists[0] == (best,)
    own = record.results[0]
    ends = [restart.validation_score for restart in own.restarts]
    assert own.curves.validation_score[-1] == pytest.approx(max(one or -9 for one in ends))
    assert run.study is not None and run.study.best_value == values[best]
    assert own.best.test_score == max(own.curves.test_score)
    # The same data with other labels for the validation samples is another search: labels count.
    other = replace(data.validation, labels=1 - data.validation.labels)
    elsewhere = keeprate.search(replace(data, validation=other), metric="neg_log_loss", **options)
    assert elsewhere.record.trials[0].value != values[0]
    with pytest.raises(InputError, match=r"metric\.name: neg log loss before, f1 now"):
        keeprate.search(data, metric="f1", out=tmp_path, **options)


def test_the_rarer_training_label_is_positive() -> None:
    data = rare_data()
    options: dict[str, Any] = {"schedule": "constant", "method": "mentornet", "config": CONFIG}
    by_default = keeprate.train(data, metric="average_precision", **options)
    assert by_default.record.config["metric"]["positive"] == "bad"
    other = keeprate.train(data, metric="average_precision", positive="ok", **options)
    assert other.record.config["metric"]["positive"] == "ok"
    scores = [run.results[0].curves.validation_score[-1] for run in (by_default, other)]
    assert scores[0] < scores[1]
    assert data_in_words(other.record).endswith("positive class: ok")
    assert data_in_words(by_default.record).endswith("positive class: bad")


def test_the_report_says_the_metric_the_class_and_the_majority(tmp_path: Path) -> None:
    run = keeprate.search(
        rare_data(),
        metric="average_precision",
        budget="3trials",
        config=CONFIG,
        restarts=1,
        out=tmp_path,
    )
    page = (tmp_path / "report.html").read_text()
    for words in (
        "ends at a test average precision of 0.",
        "positive class: bad",
        "always &#x27;ok&#x27;",
        "Test average precision, last epoch",
        "Test accuracy, last epoch",
        "<th scope=col>Recall</th>",
    ):
        assert words in page
    assert "average precision, %" not in page
    found = run.record.by_class
    assert found is not None and found.majority_score == pytest.approx(0.1)
    test = rare_data().test
    assert test is not None
    predicted = run.classifier.probabilities(test.inputs).argmax(1)
    assert found.right[0] == int(((predicted == 0) & (test.labels == 0)).sum())
    assert found.predicted == tuple(predicted.bincount(minlength=2).tolist())


def run_command(words: list[str]) -> int:
    """Run the command in this process; its exit code."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as stopped:
        patch.setattr(sys, "argv", ["keeprate", *words])
        commands.main()
    return int(stopped.value.code or 0)


def test_the_command_says_it_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inputs, labels = rare()
    with (tmp_path / "table.csv").open("w", newline="") as file:
        rows = ([*row, label] for row, label in zip(inputs.tolist(), labels, strict=True))
        csv.writer(file).writerows([[*"abcde", "label"], *rows])
    # The labels of this table are right, and held-out ones may be as noisy as all others.
    source = [str(tmp_path / "table.csv"), "--out", str(tmp_path / "run"), "--epochs", "2"]
    assert run_command(["search", *source, "--metric", "f1"]) == 2
    assert "as noisy as the others" in capsys.readouterr().err
    assert run_command(["search", *source, "--metric", "f2"]) == 2
    assert "a scorer of scikit-learn" in capsys.readouterr().err
    assert run_command(["train", *source, "--positive", "ok"]) == 2
    assert "positive must come with --metric" in capsys.readouterr().err
    noisy = [*source, "--noise", "symmetric:0.1", "--budget", "2trials", "--metric", "f1"]
    assert run_command(["search", *noisy, "--positive", "ok", "--restarts", "1"]) == 0
    shown = capsys.readouterr().out
    assert "f1: the positive class is ok" in shown and "always 'ok'" in shown
    assert "recall" in shown and max(map(len, shown.splitlines())) <= 80


def test_the_classifier_takes_a_metric() -> None:
    inputs, labels = rare(300)
    held_out, true = rare(200, seed=1)
    classifier = NoisyLabelClassifier(
        method="mentornet",
        schedule="constant",
        metric="average_precision",
        positive="ok",
        epochs=3,
        batch_size=32,
        random_state=0,
    )
    fitted = clone(classifier).fit(inputs, labels, held_out, true)
    score = fitted.history_["validation_score"][-1]
    expected = get_scorer("average_precision")
    given = Given((0, 1), fitted.predict_proba(held_out))
    assert score == pytest.approx(expected(given, held_out, (true == "ok").astype(int)), abs=1e-6)
    with pytest.raises(InputError, match="as noisy as the others"):
        clone(classifier).fit(inputs, labels)
    numbers = (labels == "bad").astype(int)
    with_numbers = clone(classifier).set_params(positive=1)
    assert with_numbers.fit(inputs, numbers, held_out, (true == "bad").astype(int)) is with_numbers


# Beside the majority ----------------------------------------------------------------------------


def test_no_better_than_the_majority_is_a_caution(tmp_path: Path) -> None:
    record = make_finished_record(("ok", "bad"))
    training = {"epochs": 40, "batch_size": 32, "class_weight": None}
    config = record.config | {"training": training, "data_fingerprint": {}}
    data = replace(
        record.data,
        criterion="average precision",
        class_counts=(900, 100),
        validation_counts=(300, 9),
    )
    by_metric = config | {"metric": {"name": "average precision", "scorer": "", "positive": "bad"}}
    own = record.results[0]
    curves = replace(own.curves, test_score=[0.04] * 40, validation_score=[0.04] * 40)
    record = replace(
        record,
        data=data,
        config=by_metric,
        results=(replace(own, curves=curves),),
        by_class=ByClass(True, (95, 5), (98, 2), (94, 1), 0, 0.05),
    )
    first, *others = find_cautions(record)
    assert "a test average precision of 0.050, and the networks have 0.040" in first
    assert any("Only 9 of them have the label" in one for one in others)
    better = replace(curves, test_score=[0.051] * 40)
    record = replace(record, results=(replace(own, curves=better),))
    assert not any("may have learnt nothing" in one for one in find_cautions(record))


def test_of_many_classes_the_worst_ten_are_shown(tmp_path: Path) -> None:
    record = make_finished_record(tuple(f"kind {i:02}" for i in range(40)))
    right = [10] * 40
    for i in range(5, 15):
        right[i] = i - 5  # kinds 5 to 14
    predicted = tuple(max(n, 1) for n in right)
    record = replace(record, by_class=ByClass(True, (10,) * 40, predicted, tuple(right), 3))
    keeprate.records.save_record(tmp_path, record)
    write_report([tmp_path], tmp_path / "page.html")
    table = (
        (tmp_path / "page.html").read_text().partition("Recall</th>")[2].partition("</table>")[0]
    )
    shown = [f"kind {i:02}" for i in range(40) if f">kind {i:02}</td>" in table]
    assert shown == [f"kind {i:02}" for i in range(5, 15)]
    assert (
        "The 10 of 40 classes with the lowest F1 are shown" in (tmp_path / "page.html").read_text()
    )


@pytest.mark.parametrize(
    "counts",
    [
        ((95, 5), (98, 2), (96, 1)),
        ((95, 5), (98, 2), (94,)),
        ((0, 0), (0, 0), (0, 0)),
    ],
)
def test_counts_that_no_predictions_have_are_refused(counts: Any) -> None:
    with pytest.raises(ValueError, match="by_class must"):
        ByClass(True, *counts, majority=0)


def test_few_samples_of_a_rare_class_are_a_caution_of_a_metric_alone() -> None:
    run = keeprate.search(
        rare_data(), metric="balanced_accuracy", budget="2trials", config=CONFIG, restarts=1
    )
    words = "chosen by the validation balanced accuracy of 120 samples. Only 12 of them"
    assert any(words in one for one in run.record.cautions)
    assert "balanced accuracy 5" in repr(run) or "balanced accuracy 6" in repr(run)  # percent
    even = replace(run.record.data, validation_counts=(60, 60))
    assert not any("Only" in one for one in find_cautions(replace(run.record, data=even)))
