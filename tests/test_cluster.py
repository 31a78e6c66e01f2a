"""Training on a Ray cluster: the same numbers as here, whoever is lost on the way."""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import optuna
import pytest
import torch
from torch import nn

import keeprate
from experiments import table4
from experiments.common import Protocol
from experiments.comparison import METHOD_ARMS
from keeprate.engine import Assignment, Ray, carry_out, cluster, get_method, make_setup
from keeprate.engine.candidates import Candidate
from keeprate.engine.checkpoints import load_curves, save_tensors
from keeprate.engine.outcomes import pack, unpack
from keeprate.engine.setup import Setup
from keeprate.records.record import load_record
from keeprate.schedules import Schedule
from tests.searches import ALONE, CONFIG, essence, search

pytestmark = [
    pytest.mark.usefixtures("no_page"),
    # Ray's own threads and sockets, at its end.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning:ray"),
]
MEMORY = {"object_store_memory": 80 * 2**20, "include_dashboard": False}
TOGETHER = 2  # candidates in a task

KILLED = """
import os, signal, sys
import keeprate

def progress(stage, done, total, best):
    if stage == "search" and done >= 4:
        os.kill(os.getpid(), signal.SIGKILL)

folder, address = sys.argv[1:]
keeprate.search(
    keeprate.prepare("digits", noise="pairflip:0.45", seed=0),
    config=keeprate.TrainingConfig(epochs=3, batch_size=64, learning_rate=3e-3),
    budget="8trials", baselines=False, restarts=1, lockstep=2,
    out=folder, progress=progress, cluster=address,
)
"""

ENDED = """
import os, signal, sys, threading, time
from pathlib import Path
from keeprate.cli.commands import main

def end():
    while not (Path(sys.argv[-1]) / "checkpoint-shared").exists():  # the first task is handed over
        time.sleep(0.1)
    time.sleep(2)
    os.kill(os.getpid(), signal.SIGTERM)

threading.Thread(target=end, daemon=True).start()
main()
"""


LEFT = """
import os, signal, sys
import keeprate

def heard(number, frame):
    raise AssertionError

signal.signal(signal.SIGTERM, heard)
data = keeprate.prepare("digits", noise="pairflip:0.45", seed=0)
config = keeprate.TrainingConfig(epochs=2, batch_size=64)
keeprate.train(data, method="standard", config=config, cluster=sys.argv[1])
import ray
assert signal.getsignal(signal.SIGTERM) is heard
assert not ray.is_initialized() and os.environ.get("RAY_ADDRESS") is None
print("trained")
"""


@pytest.fixture(scope="module")
def nodes():
    """A cluster of three nodes with a core each, all on this machine; the head has no core.

    This process stays connected: one that connects and leaves a dozen times may crash in Ray
    (its issue 31145). Scripts connect by themselves.
    """
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'keeprate[ray]'")
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        # At Ray's own 15 a worker gets nothing from a busy machine.
        patch.setenv("RAY_worker_niceness", "0")
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        found = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **MEMORY})
        for _ in range(3):
            found.add_node(num_cpus=1, **MEMORY)
        before = signal.getsignal(signal.SIGTERM)
        ray.init(found.address, log_to_driver=False)
        signal.signal(signal.SIGTERM, before)  # with Ray's, forks of later tests hang at their end
        yield found
        ray.shutdown()
        found.shutdown()


def weights(run):
    return [tensor for module in run.classifier.modules for tensor in module.state_dict().values()]


def assert_same(run, expected):
    """The same trials, results and weights, bit for bit."""
    assert essence(run.record) == essence(expected.record)
    for ours, theirs in zip(weights(run), weights(expected), strict=True):
        assert torch.equal(ours, theirs)
    for name in ("rows", "scores", "suggested"):
        ours, theirs = (getattr(one.label_quality, name) for one in (run, expected))
        assert np.array_equal(ours, theirs)


class Telling(optuna.pruners.MedianPruner):
    """Writes to a file which node asks for which trial after which epoch, and takes its time."""

    def __init__(self, path: Path, seconds: float) -> None:
        super().__init__(n_startup_trials=2)
        self._how = path, seconds  # a tuple is not for the record

    def prune(self, study, trial):
        node = "here"
        if "ray" in sys.modules and sys.modules["ray"].is_initialized():
            node = sys.modules["ray"].get_runtime_context().get_node_id()
        path, seconds = self._how
        with path.open("a") as file:
            file.write(f"{node} {trial.number} {trial.last_step}\n")
        time.sleep(seconds)
        return super().prune(study, trial)


@pytest.mark.slow
def test_a_search_that_loses_a_node_is_the_same_search(nodes, data, tmp_path):
    path, lost, joined = tmp_path / "asked", [], []
    path.touch()

    def lose_a_node():
        while not path.read_text():  # until one trains
            time.sleep(0.05)
        busy = path.read_text().split()[0]
        lost.extend(node for node in nodes.worker_nodes if node.node_id == busy)
        nodes.remove_node(lost[0], allow_graceful=False)

    def let_one_join(stage, done, total, best):
        if stage == "search" and lost and not joined:
            joined.append(nodes.add_node(num_cpus=1, **MEMORY))

    options = {"trials": 8, "config": CONFIG, "lockstep": TOGETHER, "confirm": False}
    thread = threading.Thread(target=lose_a_node)
    thread.start()
    told = Telling(path, 0.3)
    far = search(data, pruner=told, cluster=nodes.address, progress=let_one_join, **options)
    thread.join()
    here = search(data, pruner=Telling(tmp_path / "here", 0.0), **options)
    began = [
        sum(line.endswith(" 1") for line in file.read_text().splitlines())
        for file in (path, tmp_path / "here")
    ]
    assert joined and began[0] > began[1]  # what the node had begun is trained again
    assert any(trial.state == "pruned" for trial in here.record.trials)
    assert_same(far, here)


@pytest.mark.slow
@pytest.mark.parametrize("goes_on", ["on the cluster", "here"])
def test_a_driver_that_is_killed_loses_nothing_that_is_told(nodes, data, tmp_path, python, goes_on):
    script, folder = tmp_path / "script.py", tmp_path / "run"
    script.write_text(KILLED)
    killed = python(script, str(folder), nodes.address)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    study = optuna.load_study(study_name="keeprate", storage=f"sqlite:///{folder}/study.db")
    told = {t.number: t.user_attrs["seconds"] for t in study.trials if t.state.is_finished()}
    assert len(told) >= 3 and not load_record(folder).finished
    options = {"trials": 8, "config": CONFIG, "lockstep": TOGETHER, **ALONE}
    address = nodes.address if goes_on == "on the cluster" else None
    resumed = search(data, out=folder, cluster=address, **options)
    assert not list(folder.glob("*checkpoint*"))
    seconds = {t.number: t.seconds for t in resumed.record.trials}
    assert told.items() <= seconds.items()  # they are not trained again
    assert_same(resumed, search(data, **options))


@pytest.mark.slow
def test_a_command_that_waits_for_a_cluster_ends_with_one_line(nodes, tmp_path, python):
    script = tmp_path / "script.py"
    script.write_text(ENDED)
    options = f"train digits --method standard --epochs 5000 --cluster {nodes.address} --out"
    ended = python(script, *options.split(), str(tmp_path / "run"))
    assert ended.returncode == 128 + signal.SIGTERM, ended.stderr
    assert ended.stderr.splitlines()[-1] == "keeprate: stopped; the same command continues"
    assert "SIGTERM" not in ended.stderr and "Traceback" not in ended.stderr


@pytest.mark.slow
def test_networks_and_rules_of_ones_own_go_where_they_are_needed(
    nodes, data, tmp_path, monkeypatch
):
    """Their module is on no node, and one of them is in no module."""
    (tmp_path / "own_networks.py").write_text(
        "from torch import nn\n"
        "def layers(width): return nn.Flatten(), nn.Linear(64, width), nn.ReLU()\n"
        "def factory(): return nn.Sequential(*layers(16), nn.Linear(16, 10))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import own_networks

    Path(own_networks.__file__).unlink()
    width = 24

    def closure():
        return nn.Sequential(*own_networks.layers(width), nn.Linear(width, 10))

    for model in ("own_networks:factory", closure):
        # By cross-fitting, and in populations whose loss is corrected.
        options = {"model": model, "config": CONFIG, "lockstep": TOGETHER}
        options |= {"baselines": "f-correction", "restarts": 2}
        far = keeprate.train(data, cluster=Ray(nodes.address), **options)
        assert_same(far, keeprate.train(data, **options))
        assert far.results[-1].transition_matrix is not None


@pytest.mark.slow
def test_what_cannot_be_had_is_refused(nodes, data):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster, "PATIENCE", 2.0)
        with pytest.raises(keeprate.InputError, match=r"must have a node with 2 core\(s\) free"):
            search(data, trials=2, config=CONFIG, cluster=Ray(nodes.address, cores=2))
    lock = threading.Lock()

    def locked():
        return lock and nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

    with pytest.raises(keeprate.InputError, match="cannot travel to the cluster"):
        search(data, trials=2, config=CONFIG, model=locked, cluster=nodes.address)
    with pytest.raises(keeprate.InputError, match=r"lockstep must be at least 5 .* got 2;"):
        search(data, trials=2, config=CONFIG, pruner="halving", cluster=nodes.address)


@pytest.mark.slow
def test_a_process_stays_with_the_cluster_that_it_is_connected_to(nodes, data):
    options = {"method": "standard", "config": CONFIG}
    port = nodes.address.rpartition(":")[2]
    for other in ("192.0.2.1:6379", f"192.0.2.1:{port}", "localhost:1"):
        with pytest.raises(keeprate.InputError, match=f"cluster must be .*:{port}, the clus"):
            keeprate.train(data, cluster=other, **options)
    for same in ("auto", nodes.address, f"localhost:{port}"):
        keeprate.train(data, cluster=same, **options)
    assert sys.modules["ray"].is_initialized()


def test_shares_are_checked():
    for arguments, words in (
        ({"address": " "}, "cluster must be auto or an address"),
        ({"cores": 0}, "cores must be a whole number of at least 1, got 0"),
        ({"gpus": 1.5}, "gpus must be a share below 1, or a whole number, got 1.5"),
        ({"gpus": -1}, "gpus must be a share below 1, or a whole number, got -1"),
    ):
        with pytest.raises(keeprate.InputError, match=words):
            Ray(**arguments)


def test_without_ray_a_cluster_says_what_to_install(data, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(
        keeprate.InputError, match=r"A cluster needs the package ray.*keeprate\[ray"
    ):
        search(data, trials=2, config=CONFIG, cluster="auto")


def test_a_finished_run_needs_no_cluster(data, tmp_path, monkeypatch):
    def runs(**options):
        yield keeprate.train(
            data, method="standard", config=CONFIG, out=tmp_path / "train", **options
        )
        yield search(data, trials=2, config=CONFIG, out=tmp_path / "search", **ALONE, **options)

    here = [run.record for run in runs()]
    monkeypatch.setitem(sys.modules, "ray", None)
    assert [run.record for run in runs(cluster="127.0.0.1:9")] == here


def test_a_worker_gets_the_whole_path_of_the_run_folder(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    setup = make_setup(data, model="mlp", config=CONFIG, seed=0, out="run")
    assert cluster._light(setup, "cpu")["folder"] == tmp_path / "run"
    assert cluster._light(replace(setup, folder=None), "cpu")["folder"] is None


def outcomes(data, config, method, **options):
    setup = make_setup(data, model="mlp", config=config, seed=0, out=None)
    candidates = [Candidate(n, Schedule([1.0, 0.8, 0.6]), get_method(method)) for n in range(3)]
    found = []
    carry_out(
        Assignment(candidates, "test", **options),
        setup,
        after_training=found.append,
    )
    return found, candidates, setup


def stop_the_last(curves, epoch):
    return [max(curves)] if epoch == 2 else []


def test_outcomes_are_the_same_after_a_journey(data, tmp_path):
    options = {"n_kept": 1, "n_tracked": 2, "stops": stop_the_last}
    found, candidates, setup = outcomes(data, CONFIG, "f-correction", **options)
    assert [len(one.networks) for one in found] == [1, 0, 0]
    assert [one.log_probability is not None for one in found] == [True, True, False]
    packed = pack(found, candidates, CONFIG.epochs)
    json.dumps(packed[1])
    for ours, theirs in zip(unpack(packed, setup), found, strict=True):
        assert (ours.number, ours.curves, ours.is_failed) == (
            theirs.number,
            theirs.curves,
            theirs.is_failed,
        )
        for one, other in zip(ours.networks, theirs.networks, strict=True):
            assert not one.training
            for a, b in zip(one.parameters(), other.parameters(), strict=True):
                assert torch.equal(a, b)
        for name in ("log_probability", "times_seen", "transition_matrix"):
            a, b = getattr(ours, name), getattr(theirs, name)
            assert a is b is None or torch.equal(a, b)
    save_tensors(tmp_path / "result", *packed)
    epoch, training, failed, curves = load_curves(tmp_path / "result")
    assert (epoch, training, failed) == (3, [0, 1], [])
    assert [len(curve) for curve in curves.values()] == [3, 3, 2]


def test_an_outcome_that_failed_says_so_after_a_journey(data):
    hot = replace(CONFIG, learning_rate=1e30, optimizer="sgd")
    found, candidates, setup = outcomes(data, hot, "standard", n_kept=3)
    packed = pack(found, candidates, 3)
    assert [one.is_failed for one in unpack(packed, setup)] == [True] * 3
    assert all(one.networks == () for one in found)


@pytest.mark.slow
def test_a_cluster_is_left_as_it_was_found(nodes, tmp_path, python):
    script = tmp_path / "script.py"
    script.write_text(LEFT)
    done = python(script, nodes.address)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "trained\n"


def test_a_task_gets_all_of_a_setup_that_training_depends_on() -> None:
    stays_here = {"progress", "curves_writer", "executor", "world"}
    names = {field.name for field in fields(Setup)}
    assert {*cluster.HEAVY, *cluster.LIGHT} | stays_here == names


@pytest.mark.slow
def test_a_table_of_the_paper_is_trained_on_a_cluster(nodes, tmp_path):
    protocol = Protocol("tiny", "digits", "mlp", epochs=2, seeds=1, budget="2trials")
    arms = tuple(arm for arm in METHOD_ARMS if arm.name in ("standard", "mentornet", "proposed"))
    small = replace(table4.TABLE, arms=arms, protocols=(protocol,), noises=("pairflip:0.45",))

    def rows(name, **options):
        folder = tmp_path / name
        found = small.run(protocol, data="", runs=str(folder), results=folder, **options)
        return [{key: row[key] for key in ("name", "keep_rate", "curves")} for row in found]

    assert rows("far", cluster=nodes.address) == rows("here")
    with pytest.raises(keeprate.InputError, match=r"cluster must be .* got 'nowhere'"):
        rows("nowhere", cluster="nowhere")
