"""A second round: decisions on the labels of a run, and the run after it."""

from __future__ import annotations

import csv
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from keeprate import TrainingConfig, prepare, search, train
from keeprate.data import Data, Reviewed, load_data, with_reviewed
from keeprate.errors import InputError
from keeprate.records import apply_decisions, load_decisions, load_label_quality, load_record
from tests.searches import draw_no_page
from tests.test_cli import keeprate

NAMES = ("ape", "bee", "cat")
CONFIG = TrainingConfig(epochs=6, batch_size=32, learning_rate=0.01)


def write_source(path: Path, n: int = 300) -> list[str]:
    """Three clouds, a quarter of the labels wrong; return the right labels."""
    rng = np.random.default_rng(0)
    rows, right = [], []
    for i in range(n):
        k = i % 3
        x, y = rng.normal([3 * k, -2 * k], 0.7)
        right.append(NAMES[k])
        rows.append([f"{x:.3f}", f"{y:.3f}", NAMES[(k + 1) % 3 if rng.random() < 0.25 else k]])
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["width", "height", "label"], *rows])
    return right


def decide(run: Path, right: list[str], path: Path, drop: int = 3) -> dict[int, str | None]:
    """Look at all labels that look wrong; return what was decided, None for what was dropped."""
    quality, names = load_label_quality(run)
    rows: list[list[object]] = [["index", "given_label", "decision", "label"]]
    decided: dict[int, str | None] = {}
    for place in np.flatnonzero(quality.is_issue):
        row, given = int(quality.rows[place]), names[quality.given[place]]
        decided[row] = None if len(decided) < drop else right[row]
        verdict = "keep" if given == right[row] else "change"
        verdict = "drop" if decided[row] is None else verdict
        rows.append([row, given, verdict, "" if verdict == "drop" else right[row]])
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return decided


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[int, str | None]]:
    """A source, a run on it to whose labels decisions were applied, and these decisions."""
    folder = tmp_path_factory.mktemp("after")
    source, run = folder / "a.csv", folder / "first"
    right = write_source(source)
    with pytest.MonkeyPatch.context() as patch:
        draw_no_page(patch)
        train(prepare(source), config=CONFIG, out=run)
    decided = decide(run, right, folder / "d.csv")
    assert len(decided) > 40
    apply_decisions(run, folder / "d.csv", folder / "fixed")
    return source, run, decided


def test_reviewed_labels_validate_and_are_not_judged_again(
    first: tuple[Path, Path, dict[int, str | None]], tmp_path: Path, no_page: None
) -> None:
    source, run, decided = first
    data = prepare(source)
    after = train(data, config=CONFIG, out=tmp_path / "second", after=run)
    about = after.record.data
    assert about.validation_labels == "clean" and about.criterion == "accuracy"
    in_test = {int(row) for row in data.test.rows} if data.test else set()
    validating = [row for row, name in decided.items() if name and row not in in_test]
    assert about.n_validation == len(validating)
    dropped = [row for row, name in decided.items() if name is None and row not in in_test]
    held_out = len(data.train) + len(data.validation)
    assert about.n_train == held_out - len(validating) - len(dropped)
    assert not set(after.label_quality.rows.tolist()) & set(decided)
    assert any("harder than others" in one for one in after.record.cautions)
    assert "reviewed after an earlier run" in about.validation_from
    kept = load_decisions(tmp_path / "second" / "earlier_decisions.csv")
    assert {one.index for one in kept} == set(decided)
    again = train(data, config=CONFIG, out=tmp_path / "second", after=run)  # it is finished
    assert again.record == after.record


def test_the_decisions_of_all_rounds_are_written(
    first: tuple[Path, Path, dict[int, str | None]], tmp_path: Path, no_page: None
) -> None:
    source, run, decided = first
    train(prepare(source), config=CONFIG, out=tmp_path / "second", after=run)
    quality, names = load_label_quality(tmp_path / "second")
    row, given = int(quality.rows[0]), names[quality.given[0]]
    other = next(name for name in NAMES if name != given)
    text = f"index,given_label,decision,label\n{row},{given},change,{other}\n"
    (tmp_path / "d.csv").write_text(text)
    done = apply_decisions(tmp_path / "second", tmp_path / "d.csv", tmp_path / "fixed")
    assert done.n_changed + done.n_kept + done.n_dropped == len(decided) + 1
    with source.open(newline="") as file:
        expected = [line[2] for line in list(csv.reader(file))[1:]]
    for place, name in {**decided, row: other}.items():
        expected[place] = name or ""
    with done.out.open(newline="") as file:
        found = [line[2] for line in list(csv.reader(file))[1:]]
    assert found == [name for name in expected if name]


def test_a_search_after_a_run_tries_its_schedule_first(
    first: tuple[Path, Path, dict[int, str | None]], tmp_path: Path, no_page: None
) -> None:
    source, run, _ = first
    found = search(
        prepare(source), budget="3trials", config=CONFIG, out=tmp_path / "s", baselines=False,
        after=run,
    )  # fmt: skip
    schedule = load_record(run).results[0].schedule.keep_rate
    assert found.record.trials[0].keep_rate == pytest.approx(schedule, abs=0.05)
    assert found.record.data.validation_labels == "clean"


def test_a_run_after_a_few_decisions_goes_by_noisy_labels(
    first: tuple[Path, Path, dict[int, str | None]], tmp_path: Path, no_page: None
) -> None:
    source, run, _ = first
    shutil.copytree(run, tmp_path / "first")
    lines = (run / "decisions.csv").read_text().splitlines(keepends=True)
    (tmp_path / "first" / "decisions.csv").write_text("".join(lines[:9]))
    decided = {one.index for one in load_decisions(tmp_path / "first" / "decisions.csv")}
    after = train(prepare(source), config=CONFIG, out=tmp_path / "second", after=tmp_path / "first")
    assert after.record.data.criterion == "determinant"
    assert any("3 of each class" in one for one in after.record.cautions)
    assert len(decided) == 8 and not set(after.label_quality.rows.tolist()) & decided
    assert len(after.label_quality.rows) > 250


KILLED = """
import os, signal, sys
from keeprate import TrainingConfig, prepare, search

def progress(stage, done, total, best):
    if stage == "search" and done >= 1:
        os.kill(os.getpid(), signal.SIGKILL)

source, run, out = sys.argv[1:]
config = TrainingConfig(epochs=6, batch_size=32, learning_rate=0.01)
search(
    prepare(source), budget="3trials", config=config, out=out, baselines=False, after=run,
    metric="balanced_accuracy", progress=progress, checkpoint_seconds=0,
)
"""


def test_a_killed_search_goes_on_with_its_decisions_and_its_metric(
    first: tuple[Path, Path, dict[int, str | None]], tmp_path: Path, python: Any, no_page: None
) -> None:
    source, run, _ = first
    (tmp_path / "killed.py").write_text(KILLED)
    killed = python(tmp_path / "killed.py", str(source), str(run), str(tmp_path / "s"))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not load_record(tmp_path / "s").finished
    options: dict[str, Any] = {"budget": "3trials", "config": CONFIG, "baselines": False}
    with pytest.raises(InputError, match=r"metric: .* before, None now"):
        search(prepare(source), out=tmp_path / "s", **options)
    options |= {"after": run, "metric": "balanced_accuracy"}
    found = search(prepare(source), out=tmp_path / "s", **options)
    at_once = search(prepare(source), **options)
    values = [[trial.value for trial in one.record.trials] for one in (found, at_once)]
    assert values[0] == values[1]
    ends = [one.results[0].curves.validation_score for one in (found, at_once)]
    assert ends[0] == ends[1]
    assert found.record.config["metric"]["name"] == "balanced accuracy"


def small(labels: str = "aabbaabbaa" * 8, **options: object) -> Data:
    loaded = load_data((np.arange(float(len(labels)))[:, None], list(labels)))
    return prepare(loaded, seed=0, **options)  # type: ignore[arg-type]


def reviewed(data: Data, rows: range, n_rows: int | None = None) -> Reviewed:
    splits = [split for split in (data.train, data.validation, data.test) if split is not None]
    given = {
        int(row): data.class_names[int(label)]
        for split in splits
        for row, label in zip(split.rows, split.labels, strict=True)
        if int(row) in rows
    }
    return Reviewed(given, {row: "b" for row in given}, {}, n_rows)


@pytest.mark.parametrize(
    ("labels", "validates"),
    [("a" * 40 + "b" * 2, False), ("a" * 40 + "b" * 3, True), ("ab" * 14, False)],
)
def test_few_labels_of_a_class_leave_the_validation_labels_noisy(
    labels: str, validates: bool
) -> None:
    """Who reviews the first pairs of classes only must not choose the networks by them."""
    data = small()
    rows = torch.cat([data.train.rows, data.validation.rows]).tolist()
    right = dict(zip(rows[-len(labels) :], labels, strict=True))
    given = reviewed(data, range(80)).given
    told = Reviewed({row: given[row] for row in right}, right | {rows[-1]: None}, {})
    found = with_reviewed(data, replace(told, labels=right))
    assert found.criterion == ("accuracy" if validates else "determinant")
    if not validates:
        for own, before in ((found.train, data.train), (found.validation, data.validation)):
            assert sorted(own.rows.tolist()) == sorted(before.rows.tolist())
            names = [data.class_names[i] for i in own.labels.tolist()]
            expected = [right.get(row, given[row]) for row in own.rows.tolist()]
            assert names == expected
    else:
        assert set(found.validation.rows.tolist()) == set(right)
    assert set(found.reviewed) == set(right)  # not judged again, either way
    assert len(found.train) + len(found.validation) == len(rows)
    dropped = with_reviewed(data, told)
    assert len(dropped.train) + len(dropped.validation) == len(rows) - 1


def test_reviewed_labels_of_the_test_split_alone() -> None:
    data = small()
    assert data.test is not None
    row, label = int(data.test.rows[0]), int(data.test.labels[0])
    right = data.class_names[1 - label]
    told = Reviewed({row: data.class_names[label]}, {row: right}, {})
    found = with_reviewed(data, told)
    assert found.test is not None and len(found.test) == len(data.test)
    assert int(found.test.labels[found.test.rows == row]) == 1 - label
    assert found.criterion == "determinant" and found.validation_from == data.validation_from


def test_clean_validation_samples_stay_beside_reviewed_ones() -> None:
    inputs, labels = np.arange(90.0)[:, None], list("abc" * 30)
    data = prepare(
        {"train": (inputs, labels), "validation": (inputs[:30], labels[:30])},
        n_validation=30,
        n_test=0,
    )
    given = {row: labels[row] for row in range(10)}
    found = with_reviewed(data, Reviewed(given, dict.fromkeys(given, "c") | {0: None}, {}))
    assert (len(found.train), len(found.validation)) == (80, 39)
    assert torch.equal(found.validation.labels[:30], data.validation.labels)
    assert (found.validation.labels[30:] == 2).all()
    assert found.validation.inputs[30:].flatten().tolist() == list(range(1, 10))
    assert found.validation.label_status == data.validation.label_status


def test_test_samples_stay_with_their_right_labels() -> None:
    data = small()
    found = with_reviewed(data, reviewed(data, range(60)))
    assert data.test is not None and found.test is not None
    assert len(found.test) == len(data.test)
    looked_at = found.test.rows < 60
    assert (found.test.labels[looked_at] == 1).all() and looked_at.any()
    rows = torch.cat([found.train.rows, found.validation.rows, found.test.rows])
    assert sorted(rows.tolist()) == list(range(80))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rows": range(200, 300)}, "no row in common"),
        ({"rows": range(60), "noise": "symmetric:0.2"}, "leave the noise out"),
        ({"rows": range(60), "labels": "bbaabbaabb" * 8}, "as in the run before"),
        ({"rows": range(60), "new": "z"}, "a class of the data"),
    ],
)
def test_reviews_that_do_not_fit(change: dict[str, object], words: str) -> None:
    data = small()
    told = reviewed(data, change["rows"])  # type: ignore[arg-type]
    if not told.given:
        told = Reviewed({250: "a"}, {250: "b"}, {})
    if "new" in change:
        told = Reviewed(told.given, dict.fromkeys(told.given, "z"), {})
    if "noise" in change:
        data = small(noise=change["noise"])
    if "labels" in change:
        data = small(str(change["labels"]))
    with pytest.raises(InputError, match=words):
        with_reviewed(data, told)


def test_runs_without_decisions_and_other_data(
    first: tuple[Path, Path, dict[int, str | None]], tmp_path: Path, no_page: None
) -> None:
    source, run, _ = first
    write_source(tmp_path / "longer.csv", 303)
    with pytest.raises(InputError, match="be 300 as in the run before"):
        train(prepare(tmp_path / "longer.csv"), config=CONFIG, after=run)
    plain = train(prepare(source), config=CONFIG, out=tmp_path / "plain")
    with pytest.raises(InputError, match="keeprate apply"):
        train(prepare(source), config=CONFIG, after=plain.folder)


def test_the_command_goes_on_after_a_run(
    first: tuple[Path, Path, dict[int, str | None]],
    tmp_path: Path,
    no_page: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source, run, decided = first
    quick = ["--epochs", "2", "--batch-size", "32", "--quiet"]
    code, _ = keeprate("train", source, "--after", run, "--out", tmp_path / "second", *quick)
    assert code == 0
    assert load_record(tmp_path / "second").data.validation_labels == "clean"
    assert len(load_decisions(tmp_path / "second" / "earlier_decisions.csv")) == len(decided)
    for after, words in ((tmp_path / "none", "no record.json"), (tmp_path / "second", "decisions")):
        arguments = ("train", source, "--after", after, "--out", tmp_path / "third", *quick)
        code, output = keeprate(*arguments, capsys=capsys)
        assert code == 2 and words in output.err
        assert not (tmp_path / "third").exists()
