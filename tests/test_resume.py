"""A search goes on after a kill, to the same result; nothing else is adopted."""

from __future__ import annotations

import json
import signal
import sqlite3
from dataclasses import replace
from functools import cache, partial

import numpy as np
import pytest
import torch

import keeprate
from keeprate.noise.spec import Noise
from keeprate.records.record import load_record
from keeprate.runs.train_run import train
from keeprate.searching import request
from keeprate.searching.study import find_study
from tests.searches import ALONE, CONFIG, DIES, RESEARCH, SIXTEEN, essence, search

KILLED = (
    DIES
    + """
from keeprate.noise import Noise

if where == "suggest":
    optuna.trial.Trial._suggest = counted(optuna.trial.Trial._suggest)
data = keeprate.prepare("digits", noise=Noise.parse("pairflip:0.45"), seed=0)
options, research = json.loads(sys.argv[4]), json.loads(sys.argv[5])
config = keeprate.TrainingConfig(
    epochs=options.pop("epochs", 3), batch_size=64, learning_rate=3e-3
)
search_config = keeprate.SearchConfig(**research)
keeprate.search(
    data, config=config, search_config=search_config, out=folder, progress=progress, **options
)
"""
)

pytestmark = pytest.mark.usefixtures("no_page")


@pytest.fixture
def kill(python, tmp_path_factory):
    """Search in a process of its own that kills itself; nothing but the folder is left."""
    script = tmp_path_factory.mktemp("killed") / "script.py"
    script.write_text(KILLED)

    def kill(folder, where, at, **options):
        options = {"trials": 12, "checkpoint_seconds": 0} | options
        research = {name: options.pop(name) for name in RESEARCH & options.keys()}
        options["budget"] = f"{options.pop('trials')}trials"
        given = json.dumps(options), json.dumps(research)
        killed = python(script, str(folder), where, str(at), *given)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert not load_record(folder).finished

    return kill


def test_a_finished_run_is_returned_as_it_is(run, data):
    before = (run.folder / "record.json").read_bytes()
    again = search(data, trials=12, config=CONFIG, out=run.folder)
    assert (run.folder / "record.json").read_bytes() == before
    assert essence(again.record) == essence(run.record)
    for name in ("rows", "given", "predicted"):
        kept, read = getattr(run.label_quality, name), getattr(again.label_quality, name)
        assert np.array_equal(kept, read)  # in the same order, too


def test_another_configuration_is_refused_with_its_differences(run, data):
    with pytest.raises(keeprate.InputError) as error:
        search(data, trials=20, config=replace(CONFIG, epochs=4), out=run.folder)
    assert "training.epochs: 3 before, 4 now" in str(error.value)
    assert "budget: 12 trials before, 20 trials now" in str(error.value)
    assert "warm_start" not in str(error.value)  # the same experience
    other = keeprate.prepare("digits", noise=Noise.parse("pairflip:0.45"), seed=1)
    with pytest.raises(keeprate.InputError, match="seed: 0 before, 1 now"):
        search(other, trials=12, config=CONFIG, seed=1, out=run.folder)
    noisier = keeprate.prepare("digits", noise="symmetric:0.2", seed=0)
    with pytest.raises(keeprate.InputError, match=r"data\.noise: pairflip:0\.45 before, sym"):
        search(noisier, trials=12, config=CONFIG, out=run.folder)
    brighter = replace(data, train=replace(data.train, inputs=data.train.inputs + 1))
    with pytest.raises(keeprate.InputError, match=r"\(data: other training inputs"):
        search(brighter, trials=12, config=CONFIG, out=run.folder)


def test_a_search_is_not_continued_with_another_experience(run, data, monkeypatch):
    with pytest.raises(keeprate.InputError, match=r"\(warm_start: other experience or other"):
        search(data, trials=12, config=CONFIG, warm_start=False, out=run.folder)
    monkeypatch.setattr(request, "experience_digest", lambda: "00000000")
    with pytest.raises(keeprate.InputError, match=r"\(warm_start: other experience or other"):
        search(data, trials=12, config=CONFIG, out=run.folder)


def test_what_another_run_left_is_not_adopted(run, data, tmp_path):
    (tmp_path / "study.db").write_bytes((run.folder / "study.db").read_bytes())
    with pytest.raises(keeprate.InputError, match=r"study\.db without the record\.json"):
        search(data, trials=12, config=CONFIG, out=tmp_path)


@pytest.mark.parametrize(
    ("where", "at"),
    [
        ("noise rate", 2),  # within the first training
        ("search", 3.9),  # two thirds of the first population
        ("search", 9.3),  # within the second one
        ("ask", 0),  # between the first training and the first question
        ("ask", 4),  # between two questions
        ("suggest", 30),  # within a question
        ("tell", 3),  # half of a population told
        ("final training", 5),
        ("judging labels", 2),
    ],
)
def test_a_killed_search_continues_to_the_same_result(kill, run, data, tmp_path, where, at):
    kill(tmp_path, where, at)
    first = load_record(tmp_path).first
    assert (first is None) == (where == "noise rate")
    resumed = search(data, trials=12, config=CONFIG, out=tmp_path, checkpoint_seconds=0)
    assert first is None or resumed.record.first == first  # it is not trained again
    for name in ("noise_rate", "rival_share", "epochs"):
        assert getattr(resumed.record.first, name) == getattr(run.record.first, name)
    assert not (tmp_path / "first").exists()
    assert essence(resumed.record) == essence(run.record)
    assert np.array_equal(resumed.schedule.keep_rate, run.schedule.keep_rate)
    for one in ("rows", "scores", "suggested"):
        assert np.array_equal(getattr(resumed.label_quality, one), getattr(run.label_quality, one))
    ours = run.classifier.probabilities(data.test.inputs)
    assert torch.equal(resumed.classifier.probabilities(data.test.inputs), ours)


@pytest.mark.parametrize(
    ("where", "at"),
    [
        ("search", 4),  # within a short population
        ("tell", 3),  # one that is trained but not told
        ("search", 13),  # within a confirming one
        ("suggest", 110),  # within a question that the process answers
    ],
)
def test_a_killed_search_with_short_trials_goes_on_to_the_same_choice(
    kill, confirmed, data, tmp_path, where, at
):
    kill(tmp_path, where, at, epochs=6, **SIXTEEN)
    config = replace(CONFIG, epochs=6)
    resumed = search(data, config=config, out=tmp_path, checkpoint_seconds=0, **SIXTEEN)
    assert essence(resumed.record)["trials"] == essence(confirmed.record)["trials"]
    assert resumed.record.finalists == confirmed.record.finalists


def test_finished_groups_of_restarts_are_not_trained_again(kill, data, tmp_path):
    options = {"trials": 2, "restarts": 3, "baselines": False, "lockstep": 1}
    kill(tmp_path, "final training", 8, **options)  # within the third of three epochs each
    seen = []

    def progress(stage, done, total, best):
        if stage == "final training":
            seen.append(done)

    resumed, whole = (
        search(data, config=CONFIG, out=out, progress=look, checkpoint_seconds=0, **options)
        for out, look in ((tmp_path, progress), (None, None))
    )
    assert seen == [8, 9]  # the epoch in which it was killed was not saved
    assert essence(resumed.record) == essence(whole.record)
    assert not list(tmp_path.glob("*checkpoint*"))


@pytest.mark.parametrize("sampler", ["random", "tpe", "paper:20"])
def test_another_sampler_asks_the_same_again_after_a_kill(kill, data, tmp_path, sampler):
    options = {"trials": 12, "sampler": sampler, **ALONE}
    kill(tmp_path, "suggest", 30, **options)
    resumed, whole = (
        search(data, config=CONFIG, out=out, checkpoint_seconds=0, **options)
        for out in (tmp_path, None)
    )
    assert essence(resumed.record) == essence(whole.record)


@pytest.fixture(scope="module")
def pruned(data):
    """The options and the whole search of a pruner, made once."""

    @cache
    def pruned(pruner):
        trials = 22 if pruner == "hyperband" else 20  # more than one population
        options = {"trials": trials, "pruner": pruner, "confirm": False, **ALONE}
        return options, search(data, config=replace(CONFIG, epochs=5), **options)

    return pruned


@pytest.mark.parametrize(
    ("pruner", "where", "at", "every"),
    [
        ("halving", "search", 5, 0),  # between the two rungs of the first population
        ("halving", "search", 9, 1e9),  # behind both, and no checkpoint to go on from
        ("halving", "tell", 5, 0),  # the untold half must not be pruned among themselves
        ("successive-halving", "search", 9, 0),
        ("hyperband", "search", 15, 1e9),
    ],
)
def test_a_killed_search_with_a_pruner_prunes_the_same(
    kill, pruned, data, tmp_path, pruner, where, at, every
):
    options, whole = pruned(pruner)
    kill(tmp_path, where, at, epochs=5, checkpoint_seconds=every, **options)
    resumed = search(data, config=replace(CONFIG, epochs=5), out=tmp_path, **options)
    assert essence(resumed.record)["trials"] == essence(whole.record)["trials"]
    assert any(t.state == "pruned" for t in whole.record.trials)
    assert np.array_equal(resumed.schedule.keep_rate, whole.schedule.keep_rate)


@pytest.mark.parametrize(("where", "at"), [("noise rate", 2), ("final training", 4)])
def test_a_schedule_by_the_noise_rate_goes_on_where_it_stopped(data, tmp_path, where, at):
    def stop(stage, done, total, best):
        if (stage, done) == (where, at):
            raise KeyboardInterrupt

    options = {"method": "co-teaching", "config": CONFIG, "checkpoint_seconds": 0}
    with pytest.raises(KeyboardInterrupt):
        train(data, out=tmp_path, progress=stop, **options)
    resumed, whole = (train(data, out=out, **options) for out in (tmp_path, None))
    for name in ("noise_rate", "epochs"):
        assert getattr(resumed.record.first, name) == getattr(whole.record.first, name)
    assert essence(resumed.record) == essence(whole.record)
    assert np.array_equal(resumed.schedule.keep_rate, whole.schedule.keep_rate)


@pytest.fixture
def damaged(data, tmp_path, no_page, monkeypatch):
    """Damage the study of a finished search in a way; how it is called again, and its record."""
    call = partial(
        keeprate.search,
        data,
        budget="2trials",
        baselines=False,
        restarts=1,
        out=tmp_path,
        config=keeprate.TrainingConfig(epochs=1, batch_size=64),
    )
    record = call().record
    path = tmp_path / "study.db"
    connection = sqlite3.connect(path)
    monkeypatch.setattr("sqlite3.dbapi2.connect", partial(sqlite3.connect, timeout=0.1))

    def damage(kind):
        content = path.read_bytes()
        if kind == "locked":
            connection.execute("BEGIN EXCLUSIVE")
        elif kind == "newer":
            with connection:
                connection.execute("UPDATE version_info SET schema_version = 999")
                connection.execute("UPDATE alembic_version SET version_num = 'v99.0.a'")
        else:
            path.write_bytes({"cut": content[:5000], "empty": b"", "text": b"none" * 99}[kind])
        return call, record

    yield damage
    connection.close()


@pytest.mark.parametrize("kind", ["cut", "empty", "text", "newer", "locked"])
def test_a_finished_search_needs_no_study(damaged, kind, tmp_path):
    call, record = damaged(kind)
    with pytest.warns(UserWarning, match=r"study\.db could not be read"):
        again = call()
    assert again.record == record and again.study is None
    with pytest.warns(UserWarning):
        assert find_study(tmp_path) is None


@pytest.mark.parametrize(
    ("kind", "remedy"),
    [
        ("cut", "delete the file if it is damaged"),
        ("text", "delete the file if it is damaged"),
        ("newer", "use the version of Optuna that wrote it"),
        ("locked", "close the program that has it open"),
    ],
)
def test_an_unfinished_search_says_what_its_study_needs(damaged, kind, remedy, tmp_path):
    call, _ = damaged(kind)
    path = tmp_path / "record.json"
    path.write_text(path.read_text().replace('"finished": true', '"finished": false'))
    with pytest.raises(keeprate.InputError, match=rf"study\.db could not be read.*{remedy}"):
        call()
