"""One owner of a run folder; stops and kills that lose little; folders that were changed."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from filelock import FileLock

import keeprate
from keeprate.engine.checkpoints import load_curves
from keeprate.records.record import load_record
from keeprate.runs.train_run import train
from keeprate.searching.study import open_study
from tests.searches import ALONE, CONFIG, search

pytestmark = pytest.mark.usefixtures("no_page")

STOPPED = "keeprate: stopped; the same command continues\n"
CODE = """
import os, runpy, signal, sys, time

for stream, file in ((1, "stdout"), (2, "stderr")):
    os.dup2(os.open(output + file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
signal.signal(signal.SIGINT, signal.SIG_IGN if in_background else signal.default_int_handler)
sys.argv = ["keeprate", *arguments]
"""
COMMAND = (
    CODE
    + """
from keeprate.cli.commands import main
from keeprate.runs import outputs
from keeprate.searching import search_run

own = search_run.owned

def owned(folder, **options):  # starts meet where it matters
    open(output + "ready", "w").close()
    while gate and not os.path.exists(gate):
        time.sleep(0.002)
    return own(folder, **options)

search_run.owned = owned
outputs._write_report = lambda folder, record: None
main()
"""
)
WAITING = """
from keeprate import stopping
stopping.PATIENCE = 0.3
with stopping.hearing_signals():
    try:
        with stopping.stops_between_epochs():
            print("waits", flush=True)
            started = time.monotonic()
            while time.monotonic() - started < 10:
                sum(range(1000))
    except stopping.Stopped as stopped:
        print(f"after {time.monotonic() - started:.1f} s", flush=True)
        os._exit(stopped.exit_code)
"""


class Started:
    """A process of its own, what it has said, and how it ended."""

    def __init__(self, context, code, names):
        self.output = names["output"]
        self.process = context.Process(target=exec, args=(code, names))
        self.process.start()

    @property
    def is_ready(self):
        return os.path.exists(self.output + "ready")

    def said(self, name="stderr"):
        path = Path(self.output + name)
        return path.read_text() if path.exists() else ""

    def send(self, number):
        os.kill(self.process.pid, number)

    def end(self):
        self.process.join(20)
        return self.process.exitcode


def wait_for(condition, seconds=20):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.005)


@pytest.fixture
def start(forkserver, tmp_path_factory):
    """Start a command, or other code, in a process of its own."""
    started = []

    def start(*arguments, gate="", in_background=False, code=COMMAND):
        output = f"{tmp_path_factory.mktemp('output')}/"
        names = {"arguments": [str(one) for one in arguments], "gate": str(gate)}
        names |= {"in_background": in_background, "output": output}
        started.append(Started(forkserver, code, names))
        return started[-1]

    yield start
    for one in started:
        if one.process.is_alive():
            one.process.kill()
        one.process.join()


def line(out, *, trials=4, epochs=3, seed=0):
    options = {"out": out, "budget": f"{trials}trials", "epochs": epochs, "seed": seed}
    options |= {"baselines": "none", "restarts": 1, "limit": 600, "batch-size": 64}
    options["sampler"] = "random"  # else a first training of many epochs goes before
    return ["search", "digits", *(f"--{name}={value}" for name, value in options.items())]


def epoch_of(folder):
    """How far the saved population of a search is; 0 if none is saved."""
    path = folder / "checkpoint-search.safetensors"
    return load_curves(path)[0] if path.exists() else 0


# Owners -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attempt", range(5))
def test_of_two_starts_at_once_one_wins_and_the_other_is_told_who(start, tmp_path, attempt):
    gate, folder = tmp_path / "gate", tmp_path / f"run-{attempt}"
    pair = [start(*line(folder, epochs=2), gate=gate) for _ in range(2)]
    wait_for(lambda: all(one.is_ready for one in pair))
    gate.touch()
    assert sorted(one.end() for one in pair) == [0, 2], [one.said() for one in pair]
    winner, loser = sorted(pair, key=lambda one: one.process.exitcode)
    message = loser.said()
    who = f"process {winner.process.pid} on {socket.gethostname()} has had since 20"
    assert str(folder) in message and who in message and "Traceback" not in message
    record = load_record(folder)
    assert record.finished and len(record.trials) == 4
    assert not list(tmp_path.rglob(".owner.json"))


def test_a_refused_start_leaves_the_run_alone_and_an_interrupted_winner_resumes(start, tmp_path):
    command, folder = line(tmp_path, trials=2, epochs=100_000), tmp_path
    winner = start(*command)
    wait_for(lambda: "search: " in winner.said())
    before = (folder / "record.json").read_bytes()
    assert start(*command).end() == 2
    assert start(*line(tmp_path, seed=1)).end() == 2  # other options change nothing of it
    assert (folder / "record.json").read_bytes() == before
    winner.send(signal.SIGKILL)
    winner.end()
    assert json.loads((folder / ".owner.json").read_text())["pid"] == winner.process.pid
    again = start(*command)  # the lock and the name of a killed process are no obstacle
    wait_for(lambda: "search: " in again.said())
    assert json.loads((folder / ".owner.json").read_text())["pid"] == again.process.pid


@pytest.mark.parametrize("begin", [search, train])
@pytest.mark.parametrize("in_thread", [True, False])
def test_a_second_run_of_the_same_process_is_refused(data, tmp_path, begin, in_thread):
    refusals = []
    options = {"config": CONFIG, "out": tmp_path, "baselines": False, "restarts": 1}
    options |= {"budget": "2trials"} if begin is search else {"schedule": "constant"}

    def second():
        with pytest.raises(keeprate.InputError) as refused:
            begin(data, **options)
        refusals.append(str(refused.value))

    def progress(stage, done, total, best):
        if refusals:
            return
        if in_thread:
            other = threading.Thread(target=second)
            other.start()
            other.join()
        else:
            second()

    run = begin(data, progress=progress, **options)
    assert len(refusals) == 1 and f"process {os.getpid()} on" in refusals[0]
    assert run.record.finished and len(run.record.trials) in (0, 2)
    assert begin(data, **options).record == run.record


def test_the_lock_is_let_go_after_an_error(data, tmp_path):
    def fail(stage, done, total, best):
        raise ZeroDivisionError

    options = {"trials": 2, "config": CONFIG, "out": tmp_path, **ALONE}
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            search(data, progress=fail, **options)
    assert search(data, **options).record.finished


def test_a_finished_run_is_read_while_somebody_has_the_lock(run, data, tmp_path):
    with FileLock(run.folder / ".lock"):
        again = search(data, trials=12, config=CONFIG, out=run.folder)
        assert again.record == run.record
        classifier = keeprate.load(run.folder)
        assert torch.is_tensor(classifier.probabilities(data.validation.inputs))


HALF_WRITTEN = """
import os, signal, sys
import keeprate

def die(source, destination):
    os.kill(os.getpid(), signal.SIGKILL)

data = keeprate.prepare("digits", noise="pairflip:0.45", seed=0)
def progress(stage, done, total, best):
    os.replace = die
config = keeprate.TrainingConfig(epochs=3, batch_size=64, learning_rate=3e-3)
keeprate.search(data, budget="2trials", config=config, out=sys.argv[1], progress=progress,
                search_config=keeprate.SearchConfig(sampler="random"), baselines=False, restarts=1)
"""


def test_what_a_killed_run_left_half_written_is_removed(python, data, tmp_path):
    script, folder = tmp_path / "script.py", tmp_path / "run"
    script.write_text(HALF_WRITTEN)
    assert python(script, str(folder)).returncode == -signal.SIGKILL
    assert list(folder.glob(".checkpoint-*.part"))
    (folder / "first").mkdir()
    (folder / "first" / ".record.json.12.part").touch()
    (folder / ".mine.part").touch()  # of somebody else
    search(data, trials=2, sampler="random", config=CONFIG, out=folder, **ALONE)
    assert [path.name for path in folder.rglob(".*.part")] == [".mine.part"]


def test_a_folder_that_cannot_be_made_is_named(data, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(keeprate.InputError, match="out must be a folder that can be written"):
        search(data, trials=2, config=CONFIG, out=tmp_path / "file" / "run")


# Stops --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "code", "in_background"),
    [(signal.SIGINT, 130, False), (signal.SIGTERM, 143, False), (signal.SIGTERM, 143, True)],
)
def test_a_stop_in_the_middle_of_a_training_saves_it(start, tmp_path, number, code, in_background):
    command = line(tmp_path, trials=2, epochs=100_000)
    process = start(*command, in_background=in_background)
    wait_for(lambda: "search: " in process.said())
    if in_background:
        process.send(signal.SIGINT)  # is ignored
        time.sleep(0.2)
        assert process.process.is_alive()
    asked, asked_at = time.monotonic(), time.time()
    process.send(number)
    assert process.end() == code and time.monotonic() - asked < 5
    assert process.said().endswith(STOPPED) and "Traceback" not in process.said()
    saved = tmp_path / "checkpoint-search.safetensors"
    assert saved.stat().st_mtime >= asked_at - 0.1 and epoch_of(tmp_path) >= 1
    assert not list(tmp_path.rglob(".*.part")) and not (tmp_path / ".owner.json").exists()


def test_a_stop_does_not_wait_long_for_the_end_of_an_epoch(start):
    process = start(code=CODE + WAITING)
    wait_for(lambda: "waits" in process.said("stdout"))
    process.send(signal.SIGTERM)
    assert process.end() == 143
    assert process.said("stdout").splitlines()[1] in ("after 0.3 s", "after 0.4 s", "after 0.5 s")


def test_a_second_ctrl_c_does_not_wait(start):
    code = CODE + WAITING.replace("PATIENCE = 0.3", "PATIENCE = 60")
    process = start(code=code)
    wait_for(lambda: "waits" in process.said("stdout"))
    process.send(signal.SIGINT)
    time.sleep(0.2)
    assert process.process.is_alive()
    process.send(signal.SIGINT)
    assert process.end() == 130


def test_kills_closer_together_than_a_population_make_progress(start, tmp_path):
    command, reached = line(tmp_path, trials=2, epochs=100_000), [0]
    for _ in range(2):
        process = start(*command)
        wait_for(lambda: epoch_of(tmp_path) > reached[-1])  # a checkpoint each second
        process.send(signal.SIGKILL)
        process.end()
        reached.append(epoch_of(tmp_path))
    assert 0 < reached[1] < reached[2]


# Changed folders and data -------------------------------------------------------------------------


def interrupted(data, folder, at=5, **options):
    """Interrupt a search, of twelve trials if not told otherwise; its options."""

    def stop(stage, done, total, best):
        if done >= at:
            raise KeyboardInterrupt

    options = {"trials": 12, "config": CONFIG, "out": folder, **ALONE, **options}
    with pytest.raises(KeyboardInterrupt):
        search(data, progress=stop, **options)
    return options


def test_more_trials_than_planned_are_no_crash(data, tmp_path):
    options = interrupted(data, tmp_path, at=1, trials=4)
    study = open_study(tmp_path)
    while len(study.trials) < 6:
        study.ask()
    with pytest.raises(keeprate.InputError) as error:
        search(data, **options)
    assert "study.db must hold at most the 4 trials" in str(error.value)
    assert "got 6: two processes" in str(error.value) and "delete study.db" in str(error.value)
    (tmp_path / "study.db").unlink()
    assert len(search(data, **options).record.trials) == 4


@pytest.mark.parametrize(
    ("budget", "edited"), [("12trials", (3, 0)), ("2", (12, 4)), ("3m", (20, 0))]
)
def test_an_edited_plan_is_noticed(data, tmp_path, budget, edited):
    path = tmp_path / "record.json"
    options = interrupted(data, tmp_path, at=0.1, trials=None, budget=budget)
    record = json.loads(path.read_text())
    record["trial_counts"] = dict(zip(("trials", "confirm"), edited, strict=True))
    path.write_text(json.dumps(record))
    with pytest.raises(keeprate.InputError, match=r"trial_counts in .* the file was edited"):
        search(data, **options)


def test_changed_data_are_named_by_their_parts(run, data, tmp_path):
    fewer = keeprate.prepare("digits", noise="pairflip:0.45", seed=0, limit=900)
    with pytest.raises(keeprate.InputError, match=rf"data\.n_train: {len(data.train)} before"):
        search(fewer, trials=12, config=CONFIG, out=run.folder)
    labels = data.train.labels.clone()
    labels[labels == 3] = 4
    cases = {
        "other training labels than before, samples of class.3: ": {"labels": labels},
        "other training inputs than before": {"inputs": data.train.inputs + 1},
        "other training inputs, training labels than": {
            "inputs": data.train.inputs.flip(0),
            "labels": data.train.labels.flip(0),
        },
    }
    for words, changed in cases.items():
        other = replace(data, train=replace(data.train, **changed))
        with pytest.raises(keeprate.InputError) as error:
            search(other, trials=12, config=CONFIG, out=run.folder)
        assert words in str(error.value) and "validation" not in str(error.value)


def test_a_folder_with_one_fingerprint_of_all_data_goes_on(data, tmp_path):
    path = tmp_path / "record.json"
    options = interrupted(data, tmp_path)
    record = json.loads(path.read_text())
    record["config"]["data_fingerprint"] = data.fingerprint()
    path.write_text(json.dumps(record))
    brighter = replace(data, train=replace(data.train, inputs=data.train.inputs + 1))
    with pytest.raises(keeprate.InputError, match="data: other samples or labels than before"):
        search(brighter, **options)
    assert search(data, **options).record.finished
