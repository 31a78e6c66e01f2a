"""Trials that are added to a finished search: what stays, what is new, what is refused."""

from __future__ import annotations

import shutil
import signal
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

import keeprate
from keeprate.engine.curves import Curves
from keeprate.records.record import TrialCounts, load_record, save_record
from keeprate.report.words import schedules_in_words
from keeprate.runs import outputs
from keeprate.schedules import get_space
from keeprate.searching import search_run
from keeprate.searching.legs import Legs, added_counts, n_rounds, rounds
from keeprate.searching.proposals import Proposals, tell
from keeprate.searching.study import open_study, ranked
from tests.searches import CONFIG, DIES, draw_no_page, essence, search
from tests.test_cli import keeprate as command

OPTIONS = {"config": CONFIG, "baselines": ["standard"], "restarts": 2, "checkpoint_seconds": 0}
UNCHANGED, CHANGED = 4, 3
"""Trials of a search whose best schedules one more may leave, and four more change."""


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """Copies of the folders of finished searches of so many trials, each made once."""
    made = {}

    def finished(trials, folder):
        if trials not in made:
            made[trials] = tmp_path_factory.mktemp("finished") / "run"
            with pytest.MonkeyPatch.context() as patch:
                draw_no_page(patch)
                search(data, trials=trials, out=made[trials], **OPTIONS)
        shutil.copytree(made[trials], folder)
        return load_record(folder)

    return finished


@pytest.fixture(scope="module")
def whole(data, finished, tmp_path_factory):
    """The search of three trials after four more, uninterrupted."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    finished(CHANGED, folder)
    with pytest.MonkeyPatch.context() as patch:
        draw_no_page(patch)
        return search(data, trials=CHANGED, out=folder, add_trials=4, **OPTIONS)


def trained_stages(stages):
    """A progress that collects the names of all stages."""
    return lambda stage, *rest: stages.add(stage)


def test_what_was_told_stays_and_each_addition_adds(data, finished, whole, tmp_path, no_page):
    folder = tmp_path / "run"
    before = finished(CHANGED, folder)
    model = (folder / "model.safetensors").read_bytes()
    assert whole.record.trials[:CHANGED] == before.trials and len(whole.record.trials) == 7
    assert whole.record.first == before.first
    assert whole.record.added == (TrialCounts(4, 0),) and whole.record.finished
    assert not whole.record.is_adding and load_record(whole.folder) == whole.record
    values = {t.number: t.value for t in whole.record.trials}
    assert [t.value for t in whole.study.trials] == list(values.values())
    best = sorted(values, key=lambda number: -values[number])[:2]
    assert [numbers[0] for numbers in whole.record.finalists] == best
    assert (whole.folder / "model.safetensors").read_bytes() != model
    own, standard = whole.results
    assert np.array_equal(own.schedule.keep_rate, whole.schedule.keep_rate)
    assert standard.restarts == before.results[1].restarts  # not trained again
    kept, cost = before.cost, whole.record.cost
    assert cost.candidate_epochs == kept.candidate_epochs + 4 * CONFIG.epochs
    assert cost.final_seconds > kept.final_seconds + own.seconds * 0.99
    # Once more, and then nothing.
    shutil.rmtree(folder)
    shutil.copytree(whole.folder, folder)
    again = search(data, trials=CHANGED, out=folder, add_trials=4, **OPTIONS)
    assert again.record.added == (TrialCounts(4, 0),) * 2 and len(again.record.trials) == 11
    assert again.record.trials[:7] == whole.record.trials
    kept = (folder / "record.json").read_bytes()
    plain = search(data, trials=CHANGED, out=folder, **OPTIONS)
    assert plain.record == again.record and (folder / "record.json").read_bytes() == kept


def test_final_networks_stay_where_the_best_schedules_do(data, finished, tmp_path, no_page):
    # Rounding differs between processors, and with it which schedules are best.
    for trials in range(UNCHANGED, UNCHANGED + 6):
        folder, stages = tmp_path / str(trials), set()
        before = finished(trials, folder)
        kept = {name: (folder / name).read_bytes() for name in before.checksums}
        run = search(
            data,
            trials=trials,
            out=folder,
            add_trials=1,
            progress=trained_stages(stages),
            **OPTIONS,
        )
        if run.record.finalists == before.finalists:
            break
    assert run.record.finalists == before.finalists  # else the test looks at nothing
    assert stages == {"search"} and len(run.record.trials) == trials + 1
    assert essence(run.record)["results"] == essence(before)["results"]
    assert {name: (folder / name).read_bytes() for name in run.record.checksums} == kept
    assert run.record.cost.final_seconds == before.cost.final_seconds
    assert run.record.cost.full_trainings == before.cost.full_trainings + 1


def test_the_page_is_drawn_anew(data, finished, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(outputs, "_write_report", lambda folder, record: drawn.append(record))
    for trials in (UNCHANGED, CHANGED):
        folder = tmp_path / str(trials)
        finished(trials, folder)
        (folder / "report.html").write_text("of before")
        search(data, trials=trials, out=folder, add_trials=4, **OPTIONS)
        assert len(drawn.pop().trials) == trials + 4 and not drawn
        # Killed while it was drawn: nothing is added again, and the page is not that of before.
        save_record(folder, replace(load_record(folder), is_adding=True))
        for more in ({"add_trials": 4}, {}):
            search(data, trials=trials, out=folder, **more, **OPTIONS)
        assert len(drawn.pop().trials) == trials + 4 and not drawn


KILLED = (
    DIES
    + """
from keeprate.report.words import schedules_in_words
from keeprate.runs import outputs

outputs._write_report = lambda folder, record: die() if where == "page" else None
data = keeprate.prepare("digits", noise="pairflip:0.45", seed=0)
config = keeprate.TrainingConfig(epochs=3, batch_size=64, learning_rate=3e-3)
keeprate.search(
    data, config=config, out=folder, progress=progress, budget="3trials", baselines=["standard"],
    restarts=2, checkpoint_seconds=0, add_trials=4,
)
"""
)


@pytest.mark.parametrize(
    ("where", "at"),
    [
        ("ask", 0),  # the record alone tells of the addition
        ("ask", 1),
        ("search", 4.5),  # within the new trials
        ("tell", 1),
        ("final training", 3),
        ("judging labels", 2),
        ("page", 0),  # all is there but the page
    ],
)
@pytest.mark.parametrize("repeats", [True, False])
def test_a_killed_addition_ends_as_one_that_was_not(
    python, data, finished, whole, tmp_path, no_page, where, at, repeats
):
    if not repeats and where not in ("tell", "page"):
        pytest.skip("the same as with add_trials")
    script, folder = tmp_path / "script.py", tmp_path / "run"
    script.write_text(KILLED)
    finished(CHANGED, folder)
    killed = python(script, str(folder), where, str(at))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert load_record(folder).is_adding and load_record(folder).finished == (where == "page")
    more = {"add_trials": 4} if repeats else {}  # without it the command goes on, too
    resumed = search(data, trials=CHANGED, out=folder, **more, **OPTIONS)
    assert essence(resumed.record) == essence(whole.record)
    assert resumed.record.added == whole.record.added and not resumed.record.is_adding
    assert load_record(folder) == resumed.record
    for name in ("label_quality.csv", "schedule.csv"):
        assert (folder / name).read_bytes() == (whole.folder / name).read_bytes()
    ours = whole.classifier.probabilities(data.test.inputs)
    assert torch.equal(resumed.classifier.probabilities(data.test.inputs), ours)
    assert not list(folder.glob("*checkpoint*"))


def refused(data, **options):
    """What a search is refused with."""
    with pytest.raises(keeprate.InputError) as error:
        search(data, **({"trials": CHANGED} | OPTIONS | options))
    return str(error.value)


def test_what_cannot_be_added_is_refused_and_nothing_changes(data, finished, tmp_path):
    folder = tmp_path / "run"
    record = finished(CHANGED, folder)
    kept = (folder / "record.json").read_bytes()
    refuse = partial(refused, data, out=folder)
    for n in (0, -1, 1.5, True, "5"):
        assert "add_trials must be a whole number of at least 1, got" in refuse(add_trials=n)
    words = refuse(add_trials=4, trials=None, budget="9m")
    assert "add_trials must be left out where the budget is a time (9m), got 4; search" in words
    assert "budget: 3 trials before, 4 trials now" in refuse(add_trials=4, trials=4)
    words = refuse(add_trials=4, config=replace(CONFIG, learning_rate=1e-3))
    assert "training.learning_rate: 0.003 before, 0.001 now" in words
    assert "out must be the folder of a finished search" in refused(data, add_trials=4)
    words = refused(data, add_trials=4, out=tmp_path / "none")
    assert "none, which holds no record.json; leave add_trials out to search first." in words
    assert (folder / "record.json").read_bytes() == kept and not (tmp_path / "none").exists()
    save_record(folder, replace(record, kind="train"))
    assert "which holds a run of keeprate train; search in another" in refuse(add_trials=4)
    training = record.config["training"]
    ours = training["precision"]
    other = {"float32": "bfloat16", "bfloat16": "float32"}[ours]
    save_record(folder, replace(record, trial_counts=TrialCounts(2, 0)))
    assert "trial_counts in" in refuse(add_trials=4) and not load_record(folder).is_adding
    config = {**record.config, "training": {**training, "precision": other}}
    save_record(folder, replace(record, config=config))
    search(data, trials=CHANGED, out=folder, **OPTIONS)  # any machine may read it
    assert f"training.precision: {other} before, {ours} now" in refuse(add_trials=4)


def test_an_unfinished_search_is_finished_first(data, finished, tmp_path):
    folder = tmp_path / "run"
    record = finished(CHANGED, folder)
    save_record(folder, replace(record, finished=False))
    assert "add_trials must be left out until the search is finished, got 4; the same command " in (
        refused(data, out=folder, add_trials=4)
    )
    adding = replace(record, finished=False, is_adding=True, added=(TrialCounts(4, 0),))
    save_record(folder, adding)
    assert "add_trials must be 4, as so many trials are being added already, got 5" in (
        refused(data, out=folder, add_trials=5)
    )
    save_record(folder, replace(adding, added=(TrialCounts(4, 2),)))
    words = refused(data, out=folder, add_trials=4)
    assert "added in" in words and "got trials 4 and confirm 2: the file was edited" in words


@pytest.mark.parametrize("kind", ["none", "another", "more"])
def test_a_study_without_the_trials_is_refused(data, finished, tmp_path, kind):
    folder = tmp_path / "run"
    finished(CHANGED, folder)
    kept = (folder / "record.json").read_bytes()
    if kind == "more":
        open_study(folder).ask()
    else:
        (folder / "study.db").unlink()
    if kind == "another":
        finished(UNCHANGED, tmp_path / "other")
        study = open_study(folder)
        for trial in open_study(tmp_path / "other").trials[1:]:
            study.add_trial(trial)
    words = refused(data, out=folder, add_trials=4)
    found = "no file" if kind == "none" else "other trials"
    assert f"study.db must hold the 3 trials of the search that goes on, got {found}" in words
    assert (folder / "record.json").read_bytes() == kept
    assert (folder / "study.db").exists() == (kind != "none")  # none is made


def test_a_study_with_more_trials_than_are_being_added_is_not_to_be_deleted(
    data, finished, tmp_path
):
    folder = tmp_path / "run"
    record = finished(CHANGED, folder)
    save_record(folder, replace(record, finished=False, is_adding=True, added=(TrialCounts(4, 0),)))
    for _ in range(5):
        open_study(folder).ask()
    words = refused(data, out=folder, add_trials=4)
    assert "at most the 7 trials of its search, got 8: two processes" in words
    assert "choose another folder" in words and "delete" not in words  # else nothing could go on


# Which trials explore, and which confirm ---------------------------------------------------------


@pytest.mark.parametrize("first", [(5, 0), (12, 0), (16, 4), (40, 10)])
@pytest.mark.parametrize("added", [(5,), (3, 5, 20), (16, 4), (60,)])
def test_every_trial_has_one_place_and_what_was_planned_stays(first, added):
    counts = [TrialCounts(*first)]
    for n in added:
        counts.append(added_counts(counts, n, confirm=True))
    legs = Legs(tuple(counts), lambda trials, n_explored: 10)
    numbers = [number for one in legs.generations for number in one.numbers]
    assert numbers == list(range(legs.trials)) and legs.trials == first[0] + sum(added)
    assert all(legs.generation_of(n) is one for one in legs.generations for n in one.numbers)
    assert not legs.generation_of(legs.trials).numbers
    alone = Legs(tuple(counts[:-1]), legs.sizes)
    assert legs.generations[: len(alone.generations)] == alone.generations
    for place, leg in enumerate(counts):
        assert 0 <= leg.confirm < leg.trials and sum(rounds(counts[: place + 1])) == leg.confirm
        # What was trained most often ranks first: a new schedule must be able to catch up.
        assert len(rounds(counts[: place + 1])) >= n_rounds(counts[:place])


def test_too_few_trials_for_a_search_that_confirms_are_refused():
    with pytest.raises(keeprate.InputError, match=r"must be at least 3 here.*got 2; add 3"):
        added_counts([TrialCounts(40, 10)], 2, confirm=True)
    assert added_counts([TrialCounts(40, 0)], 2, confirm=False) == TrialCounts(2, 0)


def finish_study(proposals, study, value=lambda trial: 0.5 + min(trial.params.values()) / 1e3):
    """Ask and tell until nothing is left."""
    while pending := proposals.ask(study):
        for trial in pending:
            curves = Curves(validation_score=[value(trial)] * 12)
            tell(study, trial.number, curves, proposals, failed=False)


@pytest.mark.parametrize("sampler", ["gaussian-process", "natural-gradient", "tpe", "paper:20"])
def test_additions_change_no_trial_of_before_and_confirm_new_schedules(sampler):
    make = partial(Proposals, get_space("basis"), 12, sampler, 24, 6, 0)
    study = open_study(None)
    finish_study(make(), study)
    before = [(t.params, t.user_attrs, t.values) for t in study.trials]
    finish_study(make(added=(TrialCounts(12, 2),)), study)
    after = study.get_trials(deepcopy=False)
    assert [(t.params, t.user_attrs, t.values) for t in after[:24]] == before and len(after) == 36
    confirms = [t.user_attrs.get("confirms") for t in after]
    assert confirms[24:34] == [None] * 10
    assert confirms[34] not in confirms[:24]  # a schedule that was not trained again before
    assert confirms[35] in confirms[18:35] and confirms[:24].count(confirms[35]) < 2
    assert after[34].params == after[confirms[34]].params


def test_a_better_schedule_that_was_added_wins_against_one_trained_thrice():
    make = partial(Proposals, get_space("basis"), 12, "random", 40, 10, 0)
    study = open_study(None)
    finish_study(make(), study)
    assert len(ranked(study.trials)[0]) == 3
    added = added_counts([TrialCounts(40, 10)], 3, confirm=True)
    finish_study(make(added=(added,)), study, lambda trial: 0.9)
    best = ranked(study.trials)[0]
    assert [trial.number for trial in best] == [40, 41, 42]


def test_short_trials_are_compared_with_short_ones(data, tmp_path, no_page, monkeypatch):
    """Beside full trainings the sampler would take all short ones for equally bad."""
    options = {"trials": 16, "fidelity": 0.5, "baselines": False, "restarts": 1, "out": tmp_path}
    options["config"] = replace(CONFIG, epochs=4)
    search(data, **options)
    seen, desk_of = [], Proposals._desk
    monkeypatch.setattr(
        Proposals, "_desk", lambda self, trials: seen.append(trials) or desk_of(self, trials)
    )
    record = search(data, add_trials=8, **options).record
    assert [trial.state.name for trial in seen[0]] == ["PRUNED"] * 12 + ["FAIL"] * 4
    assert [t.state for t in record.trials[16:]] == ["short"] * 6 + ["complete"] * 2
    assert len(record.trials[16].validation_score) == 2


def test_a_pruner_judges_new_trials_by_all_that_explored(data, tmp_path, no_page, monkeypatch):
    options = {"trials": 16, "pruner": "median", "baselines": False, "restarts": 1, "out": tmp_path}
    search(data, config=replace(CONFIG, epochs=4), **options)
    histories, verdicts = [], search_run.TrialLoop._stops

    def stops(self, pending, generation):
        found = verdicts(self, pending, generation)
        histories.append(
            None if found is None else [t.number for g, _ in found._history for t in g]
        )
        return found

    monkeypatch.setattr(search_run.TrialLoop, "_stops", stops)
    record = search(data, config=replace(CONFIG, epochs=4), add_trials=8, **options).record
    # Four of the first 16 confirmed: they were never to be stopped.
    assert histories == [list(range(12)), [*range(12), 16, 17, 18], None]
    assert record.added == (TrialCounts(8, 2),)


# The command --------------------------------------------------------------------------------------


def test_the_command_adds_trials_and_says_so(tmp_path, no_page, capsys):
    words = ["search", "digits", "--noise", "symmetric:0.4", "--budget", "2trials", "--out"]
    words += [tmp_path / "run", "--epochs", 1, "--batch-size", 64, "--baselines", "none"]
    words += ["--restarts", 1]
    code, output = command(*words, "--add-trials", 2, capsys=capsys)
    assert code == 2 and "leave add_trials out to search first" in output.err
    assert "digits: " not in output.out  # refused before the data are read
    assert command(*words, capsys=capsys)[0] == 0
    code, output = command(*words, "--add-trials", 0, capsys=capsys)
    assert code == 2 and "add_trials must be a whole number of at least 1, got 0" in output.err
    code, output = command(*words, "--epochs", 2, "--add-trials", 2, capsys=capsys)
    assert code == 2 and "training.epochs: 1 before, 2 now" in output.err
    code, output = command(*words, "--add-trials", 2, capsys=capsys)
    assert code == 0
    assert "2 of the 4 trials were added to the finished search" in output.out
    assert load_record(tmp_path / "run").added == (TrialCounts(2, 0),)
    assert "2 of the 4 trials were added" in schedules_in_words(load_record(tmp_path / "run"))
    code, output = command(*words, "--budget", "30m", "--add-trials", 2, capsys=capsys)
    assert code == 2 and "left out where the budget is a time (30m)" in output.err
