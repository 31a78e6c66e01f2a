"""What a finished run says of the worth of its own numbers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keeprate import TrainingConfig, load, prepare, search, train
from keeprate.cli import commands
from keeprate.data import REVIEWED_WORDS, Data, Reviewed, with_reviewed
from keeprate.records import FINGERPRINT, RunRecord, load_record, save_record
from keeprate.report import find_cautions, write_report
from keeprate.report.cautions import RULES, standard_error
from keeprate.runs import Run
from tests.report_records import make_finished_record, make_record

STEPS, VALIDATION, CLASSES = "optimisation step", "was chosen by", "Classes with fewer"
NOTHING, ALIKE = "may have learnt nothing", "no clear difference"
HARDER = "harder than others"
RATE = "How many labels are wrong is uncertain"


def clouds(counts: tuple[int, ...], **options: Any) -> Data:
    """Samples of well separated classes, so many of each, of which half validate."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(len(counts)), counts)
    names = np.array(["cat", "dog", "owl", "ant"])[labels]
    inputs = rng.normal(size=(len(labels), 4)).astype(np.float32)
    inputs[np.arange(len(labels)), labels] += 6
    return prepare((inputs, names), **({"n_test": 0, "n_validation": 0.5} | options))


def config(epochs: int, **options: Any) -> TrainingConfig:
    return TrainingConfig(**({"epochs": epochs, "batch_size": 16} | options))


def constant(data: Data, epochs: int = 20) -> Run:
    """Train with every sample kept: nothing is chosen."""
    return train(data, schedule="constant", config=config(epochs))


def sound_record() -> RunRecord:
    """A search on digits of 320 steps whose numbers are worth something."""
    record = make_record()
    own, *others = record.results
    curves = replace(others[0].curves, test_accuracy=[0.5] * 40)
    return replace(
        record,
        config={
            "training": {"epochs": 40, "batch_size": 128, "class_weight": None},
            FINGERPRINT: {"training inputs": "0"},
        },
        data=replace(record.data, class_counts=(100,) * 10, validation_counts=(36,) * 10),
        results=(own, replace(others[0], curves=curves)),
    )


def with_validation(record: RunRecord, accuracy: float, **changes: Any) -> RunRecord:
    """Let the own result end at this validation accuracy; `changes` are of the result."""
    own, *others = record.results
    curves = replace(own.curves, validation_accuracy=[accuracy] * 40)
    return replace(record, results=(replace(own, curves=curves, **changes), *others))


def with_training(record: RunRecord, **changes: Any) -> RunRecord:
    return replace(record, config=record.config | {"training": record.config["training"] | changes})


def with_data(record: RunRecord, **changes: Any) -> RunRecord:
    return replace(record, data=replace(record.data, **changes))


def sole(record: RunRecord) -> str:
    """The one caution of a record."""
    (caution,) = find_cautions(record)
    return caution


# Runs


def test_a_healthy_run_has_no_caution() -> None:
    run = constant(clouds((200, 200)))
    assert run.results[0].last.validation_accuracy > 0.95
    assert run.record.cautions == () and "caution" not in repr(run)


def test_an_undertrained_run_says_so_everywhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = ["train", "digits", "--schedule", "constant", "--epochs", "5", "--out", str(tmp_path)]
    words = (
        "Training took only 40 optimisation steps (5 epochs of 8 batches), and the networks may be "
        "undertrained. Give at least 25 epochs or a smaller batch size."
    )
    for is_quiet in (False, True):  # the second reads the finished run
        monkeypatch.setattr("sys.argv", ["keeprate", *line, *["--quiet"] * is_quiet])
        with pytest.raises(SystemExit) as done:
            commands.main()
        assert not done.value.code
        shown = " ".join(capsys.readouterr().out.split())
        assert f"Caution: {words}" in shown and ("written to" in shown) != is_quiet
        assert shown.count("Caution") == 2 and f"Caution: {RATE}" in shown
    first, second = json.loads((tmp_path / "record.json").read_text())["cautions"]
    assert first == words and RATE in second
    page = (tmp_path / "report.html").read_text()
    assert f"<b>Caution.</b> {words}</p>" in page and page.count("Caution.") == 2
    assert page.index(words) < page.index("<h2>")  # before anything that it is about
    again = train(
        prepare("digits"), schedule="constant", config=TrainingConfig(epochs=5), out=tmp_path
    )
    assert again.record.cautions == (first, second) and f"caution: {words}" in repr(again)


def test_a_class_of_three_samples_is_named() -> None:
    assert constant(clouds((200, 200, 6))).record.cautions == (
        "Classes with fewer than 10 training samples: owl (3). Networks learn little of them. Add "
        "samples, merge these classes or leave them out.",
    )


@pytest.mark.parametrize("start", [train, search])
def test_a_choice_by_few_samples_is_doubtful(start: Any) -> None:
    special = {"budget": "2trials"} if start is search else {"schedule": "constant", "restarts": 2}
    run = start(clouds((200, 200), n_validation=20), config=config(10), **special)
    what = "schedule" if start is search else "training"
    found = [text for text in run.record.cautions if VALIDATION in text]
    n = 20
    accuracy = run.results[0].last.validation_accuracy
    error = 100 * standard_error(accuracy, n)
    assert found == [
        f"The {what} was chosen by 20 validation samples with noisy labels, and chance moves an "
        f"accuracy of {100 * accuracy:.1f} % there by {error:.1f} points (standard error). Hold "
        "out more samples for validation."
    ]


def test_nothing_is_chosen_in_one_training_by_a_given_schedule() -> None:
    assert constant(clouds((200, 200), n_validation=20)).record.cautions == ()


def test_networks_that_name_one_class_have_learnt_nothing() -> None:
    inputs = np.ones((1000, 3), dtype=np.float32)
    names = np.array(["cat"] * 600 + ["dog"] * 400)
    data = prepare((inputs, names), n_test=0, n_validation=0.5)
    assert constant(data, epochs=8).record.cautions == (
        "Always naming cat is right for 60.0 % of the noisy validation labels, and the networks "
        "for 60.0 %: they may have learnt nothing. Check that inputs and labels belong together, "
        "or train longer.",
    )


def test_cross_fitting_validates_and_trains_with_all_samples() -> None:
    data = clouds((60, 56, 6), n_validation=0.25)
    run = train(data, method="auto", config=config(1, learning_rate=0.01))
    assert run.results[0].method == "auto" and data.criterion == "determinant"
    shown = " ".join(run.record.cautions)
    assert "took only 7 optimisation steps (1 epoch of 7 batches)" in shown  # 122 // 16
    assert "validation samples" not in shown  # all of them chose
    assert "training samples: owl (6)." in shown


# Records


def test_a_sound_record_has_no_caution() -> None:
    assert find_cautions(sound_record()) == ()


def test_every_rule_has_a_sentence() -> None:
    record = with_validation(with_training(sound_record(), epochs=1), 0.1)
    few = {"class_counts": (3,) * 10, "validation_counts": (2,) * 10}
    data = replace(record.data, **few, validation_from=f"20 {REVIEWED_WORDS}")
    rival = replace(record.results[0], name="standard", label="Standard")
    estimate = replace(make_finished_record().noise_estimate, low=0.3, high=0.51)
    results = (record.results[0], rival)
    record = replace(record, data=data, results=results, noise_estimate=estimate)
    cautions = find_cautions(record)
    assert len(cautions) == len(RULES)
    all_words = (NOTHING, STEPS, VALIDATION, CLASSES, RATE, HARDER, ALIKE)
    for words, caution in zip(all_words, cautions, strict=True):
        assert words in caution


def test_what_narrows_the_interval_depends_on_what_is_there() -> None:
    record, found = sound_record(), make_finished_record().noise_estimate
    known = replace(found, noise_rate=0.4, low=0.3, high=0.51, by_clean_labels=True)
    words = "between 30.0 % and 51.0 %, as model errors and wrong labels look alike. Networks that"
    assert words in sole(replace(record, noise_estimate=known))
    assert find_cautions(replace(record, noise_estimate=replace(known, high=0.5))) == ()
    blind = replace(known, low=0.0, by_clean_labels=False)
    words = "at most 51.0 %, as model errors and wrong labels look alike. Some clean labels"
    assert words in sole(replace(record, noise_estimate=blind))
    assert find_cautions(replace(record, noise_estimate=replace(blind, high=0.5))) == ()
    unbounded = replace(known, low=None, high=None)  # of an older version, say
    assert find_cautions(replace(record, noise_estimate=unbounded)) == ()


def test_two_hundred_steps_are_enough() -> None:
    # 1,077 samples are 8 batches of 128 and 200 of 5.
    for epochs, batch_size in ((25, 128), (200, 1000), (1, 5)):
        record = with_training(sound_record(), epochs=epochs, batch_size=batch_size)
        assert find_cautions(record) == ()
    for epochs, batch_size, words in (
        (24, 128, "192 optimisation steps (24 epochs of 8 batches)"),
        (199, 1000, "199 optimisation steps (199 epochs of 1 batch)"),
        (1, 1000, "1 optimisation step (1 epoch of 1 batch)"),
    ):
        caution = sole(with_training(sound_record(), epochs=epochs, batch_size=batch_size))
        enough = 25 if batch_size == 128 else 200
        assert words in caution and f"at least {enough} epochs" in caution


@pytest.mark.parametrize(("accuracy", "n"), [(0.5, 400), (0.9, 160), (1.0, 60)])
def test_how_many_validation_samples_are_enough(accuracy: float, n: int) -> None:
    record = with_validation(sound_record(), accuracy)
    for factor, is_enough in ((1, True), (0.8, False)):
        half = int(factor * n) // 2
        changed = with_data(record, validation_counts=(half, half, *[0] * 8))
        texts = find_cautions(changed)
        assert (not any(VALIDATION in text for text in texts)) == is_enough


def test_right_answers_of_three_samples_are_not_certain() -> None:
    assert standard_error(1.0, 3) > 0.1
    record = with_data(with_validation(sound_record(), 1.0), validation_counts=(2, 1, *[0] * 8))
    assert "by 3 validation samples, and chance moves" in sole(record)


@pytest.mark.parametrize(("accuracy", "is_said"), [(0.4, True), (0.51, True), (0.52, False)])
def test_the_most_frequent_class_and_a_standard_error(accuracy: float, is_said: bool) -> None:
    counts = (900, *[100] * 9)  # a half of 1,800; a standard error is 1.2 points
    record = with_validation(with_data(sound_record(), validation_counts=counts), accuracy)
    texts = find_cautions(record)
    assert bool(texts) == is_said
    if is_said:
        shown = f"the networks for {100 * accuracy:.1f} %: they may have learnt nothing"
        assert texts[0].startswith("Always naming 0 is right for 50.0 % of the validation labels")
        assert shown in texts[0]


def test_reviewed_labels_that_validate_are_harder_than_others() -> None:
    data = clouds((60, 60), n_validation=0.25)
    names = dict(enumerate(data.class_names))
    given = {
        int(row): names[int(label)]
        for split in (data.train, data.validation)
        for row, label in zip(split.rows, split.labels, strict=True)
    }
    told = sound_record()
    for rows, words in ((range(30, 90), HARDER), (range(60), "3 of each class")):
        own = {row: given[row] for row in rows}
        found = with_reviewed(data, Reviewed(own, own, {}))
        record = with_data(
            told,
            validation_from=found.validation_from,
            validation_labels=found.validation.label_status,
        )
        assert words in sole(record)
    assert find_cautions(told) == ()


def test_weights_may_cost_accuracy() -> None:
    counts = (900, *[100] * 9)
    record = with_validation(with_data(sound_record(), validation_counts=counts), 0.4)
    assert NOTHING in sole(record)
    assert find_cautions(with_training(record, class_weight="balanced")) == ()
    weighted = record.config | {FINGERPRINT: {"training weights": "0"}}
    assert find_cautions(replace(record, config=weighted)) == ()


def test_many_small_classes_are_counted() -> None:
    names = tuple(f"class {i:03}" for i in range(300))
    record = with_data(
        sound_record(),
        class_names=names,
        class_counts=(*range(9, -1, -1), *[1] * 290),
        validation_counts=(2,) * 300,
    )
    caution = sole(record)
    assert "class 009 (0), class 008 (1), class 010 (1)" in caution and "and 292 more" in caution
    assert len(caution) < 400


def test_no_clear_difference_is_said_once_on_a_page(tmp_path: Path) -> None:
    record = sound_record()
    rival = replace(record.results[0], name="standard", label="Standard")
    record = replace(record, results=(record.results[0], rival))
    assert ALIKE in sole(record)
    record = replace(record, cautions=(*find_cautions(record), "Another <b>caution</b>."))
    folder = tmp_path / "run"
    folder.mkdir()
    save_record(folder, record)
    write_report([folder], tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert page.count(ALIKE) == 1
    assert "<b>Caution.</b> Another &lt;b&gt;caution&lt;/b&gt;.</p>" in page


def test_a_record_of_before_has_none(tmp_path: Path) -> None:
    constant_run = train(
        clouds((60, 60)), schedule="constant", config=config(2), out=tmp_path / "run"
    )
    assert constant_run.record.cautions
    path = tmp_path / "run" / "record.json"
    plain = json.loads(path.read_text())
    del plain["cautions"], plain["data"]["validation_counts"]
    path.write_text(json.dumps(plain))
    record = load_record(tmp_path / "run")
    assert record.cautions == () and record.data.validation_counts == ()
    again = train(clouds((60, 60)), schedule="constant", config=config(2), out=tmp_path / "run")
    assert again.record.cautions == () and load(tmp_path / "run")
    # What needs the counts is not said of it.
    assert [STEPS in text for text in find_cautions(record)] == [True]
