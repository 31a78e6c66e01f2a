"""The study in a database of other people's: a real PostgreSQL, four processes, a password."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

import keeprate
from keeprate.records.record import load_record
from keeprate.searching import Database
from keeprate.searching.sampler import ATTRIBUTE
from keeprate.searching.study import find_study, open_study
from tests.searches import ALONE, CONFIG, essence, search

pytestmark = [
    pytest.mark.usefixtures("no_page"),
    # Optuna closes the connections of a study when the study is forgotten.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
PASSWORD = "s3cret/word"
URL_PASSWORD = "s3cret%2Fword"

WORKER = """
import os, sys, time
import numpy as np
import optuna
from optuna.distributions import FloatDistribution
from keeprate.searching import GaussianProcessSampler, NaturalGradientSampler

url, name, kind, place = sys.argv[1:]
optuna.logging.set_verbosity(optuna.logging.ERROR)
space = {"x": FloatDistribution(0.0, 1.0), "y": FloatDistribution(0.0, 1.0)}
if kind == "natural-gradient":
    sampler = NaturalGradientSampler(seed=0, generation_size=4)
else:
    sampler = GaussianProcessSampler(space, lambda p: np.stack([p["x"], p["y"]], -1), seed=0)
storage = optuna.storages.RDBStorage(url, heartbeat_interval=1, grace_period=3)
study = optuna.load_study(study_name=name, storage=storage, sampler=sampler)

def objective(trial):
    x, y = (trial.suggest_float(one, 0, 1) for one in space)
    if place == "0" and trial.number >= 6:  # the one that is to be killed
        print(trial.number, flush=True)
        time.sleep(600)
    time.sleep(0.2)
    return (x - 0.9) ** 2 + (y - 0.2) ** 2

while sum(t.state.is_finished() for t in study.get_trials(deepcopy=False)) < 24:
    study.optimize(objective, n_trials=1)
# The other processes end theirs. A new trial here would keep them waiting in turn.
while any(t.state == optuna.trial.TrialState.RUNNING for t in study.get_trials(deepcopy=False)):
    optuna.storages.fail_stale_trials(study)
    time.sleep(0.2)
"""


def unprivileged():
    """Whom PostgreSQL may run as: it refuses root."""
    if os.geteuid():
        return {}
    for name in ("postgres", "nobody"):
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": user.pw_uid, "group": user.pw_gid}
    pytest.skip("PostgreSQL does not run as root, and there is nobody else")


def binary(name):
    places = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)
    found = shutil.which(name) or next(iter(places), None)
    if found is None:
        pytest.skip(f"{name} is not installed: apt-get install postgresql")
    return str(found)


@pytest.fixture(scope="module")
def postgres():
    """The URL of a database in a temporary folder."""
    pytest.importorskip(
        "psycopg", reason="psycopg is not installed: pip install 'keeprate[storage]'"
    )
    as_user, initdb, server = unprivileged(), binary("initdb"), binary("postgres")
    with tempfile.TemporaryDirectory(prefix="keeprate-pg-") as name:
        folder = Path(name)
        (folder / "password").write_text(PASSWORD)
        for path in (folder, folder / "password"):
            if as_user:
                os.chown(path, as_user["user"], as_user["group"])
        words = {"capture_output": True, "text": True, "cwd": "/", **as_user}
        made = subprocess.run(
            [initdb, "-D", folder / "data", "-U", "ann", "--auth=scram-sha-256", "-N",
             f"--pwfile={folder / 'password'}"], check=False, **words,
        )  # fmt: skip
        if made.returncode:
            pytest.skip(f"initdb: {made.stderr.strip().splitlines()[-1]}")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        running = subprocess.Popen(
            [server, "-D", folder / "data", "-p", str(port), "-k", folder, "-F",
             "-c", "listen_addresses=127.0.0.1"],
            stderr=subprocess.DEVNULL, cwd="/", **as_user,
        )  # fmt: skip
        url = f"postgresql://ann:{URL_PASSWORD}@127.0.0.1:{port}/postgres"
        try:
            until = time.monotonic() + 30
            while True:
                try:
                    Database.parse(url).check()
                    break
                except keeprate.InputError as error:
                    if time.monotonic() > until or running.poll() is not None:
                        pytest.skip(f"PostgreSQL did not start: {error}")
                    time.sleep(0.2)
            yield url
        finally:
            running.send_signal(signal.SIGINT)
            running.wait(30)


@pytest.mark.parametrize("kind", ["natural-gradient", "gaussian-process"])
def test_four_processes_share_a_study_and_one_is_killed(postgres, tmp_path, kind):
    url = Database.parse(postgres).url.render_as_string(hide_password=False)
    optuna.create_study(study_name=kind, storage=url)
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    workers = []
    for place in range(4):
        command = [sys.executable, script, url, kind, kind, str(place)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        workers.append(subprocess.Popen(command, **pipes))
    lost = int(workers[0].stdout.readline())  # it waits in this trial
    workers[0].kill()
    errors = [worker.communicate(timeout=300)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [-signal.SIGKILL, 0, 0, 0], errors
    study = optuna.load_study(study_name=kind, storage=url)
    trials = study.get_trials()
    assert [trial.number for trial in trials] == list(range(len(trials)))
    states = {trial.number: trial.state for trial in trials}
    assert states.pop(lost) == TrialState.FAIL  # the others heard its heart no more
    assert set(states.values()) == {TrialState.COMPLETE} and len(states) >= 23
    if kind == "gaussian-process":
        assert min(trial.value for trial in trials if trial.value is not None) < 0.05
        return
    openers, claimed = {}, []
    for trial in trials:
        record = trial.system_attrs.get(ATTRIBUTE, {})
        if "claims" in record:
            openers.setdefault(record["generation"], record["claims"])  # the lowest decides
    assert sorted(openers) == list(range(1, len(openers) + 1)) and len(openers) >= 3
    for claims in openers.values():
        fresh = set(claims) - set(claimed)
        assert len(fresh) >= 1 and lost not in claims
        claimed += fresh
    assert all(trials[number].state == TrialState.COMPLETE for number in claimed)


def test_a_search_in_a_database_is_the_search_in_a_file(postgres, data, tmp_path, capfd):
    options = {"trials": 4, "config": CONFIG, "noise_rate": 0.45, **ALONE}
    far = search(data, storage=postgres, out=tmp_path / "run", command="typed", **options)
    here = search(data, **options)
    ours, theirs = essence(far.record), essence(here.record)
    assert ours["config"].pop("storage") == str(Database.parse(postgres))
    assert ours == theirs
    assert not (tmp_path / "run" / "study.db").exists()
    assert far.record.study.startswith("run-")
    url = Database.parse(postgres).url
    seen = optuna.load_study(study_name=far.record.study, storage=url.render_as_string(False))
    assert [t.value for t in seen.trials] == [t.value for t in here.study.trials]
    again = search(data, storage=postgres, out=tmp_path / "run", **options)
    assert [t.value for t in again.study.trials] == [t.value for t in seen.trials]
    other = search(data, storage=postgres, out=tmp_path / "two" / "run", **options)
    assert other.record.study != far.record.study  # a folder of the same name has its own
    with pytest.raises(keeprate.InputError, match="storage"):
        search(data, out=tmp_path / "run", **options)  # the study is not there
    assert PASSWORD not in "".join(capfd.readouterr())


def test_an_interrupted_search_finds_its_study_again(postgres, data, tmp_path):
    class Interrupted(Exception):  # noqa: N818
        pass

    def progress(stage, done, total, best):
        if stage == "search" and done == 3:
            raise Interrupted

    options = {"trials": 4, "config": CONFIG, "noise_rate": 0.45, "storage": postgres, **ALONE}
    with pytest.raises(Interrupted):
        search(data, out=tmp_path, progress=progress, **options)
    name = load_record(tmp_path).study
    resumed = search(data, out=tmp_path, **options)
    assert resumed.record.study == name and len(resumed.study.trials) == 4
    assert essence(resumed.record) == essence(search(data, **options).record)


def test_nothing_that_is_written_holds_the_password(postgres, tmp_path, python):
    script = tmp_path / "command.py"
    script.write_text("from keeprate.cli.commands import main\nmain()\n")
    options = "--noise pairflip:0.45 --epochs 2 --budget 2trials --restarts 1 --limit 200"
    command = ("search", "digits", *options.split(), "--out", str(tmp_path / "run"))
    done = python(script, *command, f"--storage={postgres}")
    assert done.returncode == 0, done.stderr
    wrong = python(script, *command[:-1], str(tmp_path / "other"), "--storage",
                   postgres.replace("/postgres", "/nothing"))  # fmt: skip
    assert wrong.returncode == 2 and "storage must be a database that answers" in wrong.stderr
    texts = [done.stdout, done.stderr, wrong.stdout, wrong.stderr]
    texts += [p.read_bytes().decode(errors="replace") for p in tmp_path.glob("*/*") if p.is_file()]
    assert len(texts) > 8
    for text in texts:
        assert PASSWORD not in text and URL_PASSWORD not in text
    shown = load_record(tmp_path / "run").command
    assert "--storage=postgresql://127.0.0.1:" in shown


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("oracle://ann:s3cret@host/x", "got oracle://..."),
        ("postgresql://ann:s3cret@host", "got one without a database"),
        ("ann:s3cret@host", "got another text"),
        ("", "got another text"),
    ],
)
def test_another_url_is_refused_without_its_password(data, text, words):
    with pytest.raises(keeprate.InputError, match="storage must be a URL of") as error:
        search(data, trials=2, config=CONFIG, storage=text)
    assert words in str(error.value) and "s3cret" not in str(error.value)


def test_a_database_that_does_not_answer_is_refused_before_anything_is_trained(data, tmp_path):
    url = "postgresql://ann:s3cret@127.0.0.1:9/studies?password=hidden"
    with pytest.raises(keeprate.InputError, match="be a database that answers") as error:
        search(data, trials=2, config=CONFIG, storage=url, out=tmp_path)
    assert "s3cret" not in str(error.value) and "password=hidden" not in str(error.value)
    assert "s3cret" not in (tmp_path / "record.json").read_text()


def test_a_sqlite_file_elsewhere_holds_many_studies(data, tmp_path):
    storage = f"sqlite:///{tmp_path}/all.db"
    options = {"trials": 2, "config": CONFIG, "noise_rate": 0.45, "storage": storage, **ALONE}
    names = {search(data, out=tmp_path / name, **options).record.study for name in "ab"}
    found = {one.study_name for one in optuna.get_all_study_summaries(storage)}
    assert found == names and len(names) == 2


@pytest.mark.parametrize(
    ("url", "text", "shown"),
    [
        (
            "postgresql://ann:x@h/d",
            'failed for user "ann", annual',
            'failed for user "***", annual',
        ),
        ("postgresql://h/d?connect_timeout=1", "no answer in 10 s, 1 of 1", None),
        ("postgresql://h/d?password=abc", "with abc", "with ***"),
        ("postgresql://h/d?sslcert=/home/ann/c", "no file /home/ann/c", "no file ***"),
        ("postgresql://h/d?host=first&host=second", "second is down", "*** is down"),
        (f"postgresql://ann:{URL_PASSWORD}@h/d", f"for {PASSWORD}1", "for ***1"),
    ],
)
def test_a_message_hides_what_the_url_hides_and_nothing_else(url, text, shown):
    assert Database.parse(url).hidden(text) == (text if shown is None else shown)


def test_a_long_message_does_not_end_within_a_password():
    database = Database.parse(f"postgresql://ann:{URL_PASSWORD}@h/d")
    for n in range(150, 220):
        assert "s3c" not in database.reason(ValueError("x" * n + PASSWORD))


def test_a_study_that_cannot_be_opened_does_not_show_who_asked(monkeypatch):
    def refuse(url, **options):
        raise RuntimeError(f"schema of {url}, of ann")

    monkeypatch.setattr(optuna.storages, "RDBStorage", refuse)
    database = Database.parse("postgresql://ann:s3cret@h/d").named(None, "name")
    with pytest.raises(keeprate.InputError, match="version of Optuna") as error:
        open_study(None, database)
    with pytest.warns(UserWarning, match="could not be read") as warned:
        assert find_study(None, database) is None
    for words in (str(error.value), str(warned[0].message)):
        assert "s3cret" not in words and "ann" not in words and "postgresql://h/d" in words


def test_a_study_is_looked_for_without_writing_or_a_driver(tmp_path, monkeypatch):
    for name in ("gone.db", "empty.db"):
        database = Database.parse(f"sqlite:///{tmp_path / name}").named(None, "name")
        (tmp_path / "empty.db").touch()
        with pytest.warns(UserWarning, match=rf"{name} could not be read"):
            assert find_study(None, database) is None
    assert [(one.name, one.stat().st_size) for one in tmp_path.iterdir()] == [("empty.db", 0)]
    monkeypatch.setitem(sys.modules, "pymysql", None)
    with pytest.warns(UserWarning, match=r"mysql://h/d could not be read"):
        assert find_study(None, Database.parse("mysql://ann@h/d").named(None, "name")) is None
