"""A second round: decisions on the labels of a run, and the run after it."""

from __future__ import annotations

import csv
from pathlib import Path

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
        ({"rows": range(10)}, "at least 30"),
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
