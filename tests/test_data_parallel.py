"""Several processes train as one does: the same weights, whoever is lost on the way."""

from __future__ import annotations

import sys
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from keeprate.cli.commands import main
from keeprate.cli.torchrun import followed
from keeprate.engine.world import ALONE, WHOLE, Group
from keeprate.records.record import load_record
from tests.processes import DTYPES, cases, torchrun, trained

TOLERANCE = {"float64": 1e-6, "float32": 1e-5}
NETWORK = """
import os
import torch
from torch import nn

class Lame(nn.Sequential):
    def __init__(self):
        if os.environ["RANK"] == "1":
            raise ValueError("no room for two")
        super().__init__(nn.Flatten(), nn.Linear(64, 10))

class Network(nn.Module):  # in float64, so that the tolerance can be small
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2),
            nn.Linear(144, 10),
        ).double()

    def forward(self, x):
        return self.layers(x.double())
"""
COMMAND = """
import os, signal, sys, threading, time
from pathlib import Path
from keeprate import mapped
from keeprate.engine import lockstep
from keeprate.runs import outputs

mapped.SHARE = float(os.environ.get("SHARE", mapped.SHARE))
outputs._write_report = lambda folder, record: None  # pictures take seconds
lockstep.SOONEST, lockstep.SHARE = 0.0, 1e9  # a checkpoint after each epoch
RANK, folder, ends = os.environ.get("RANK", "0"), Path(sys.argv[-1]), sys.argv.pop(1)

def end():
    while not list(folder.glob("checkpoint-*")):
        time.sleep(0.01)
    who, signal_name = ends.split()
    if who == RANK:
        os.kill(os.getpid(), getattr(signal, signal_name))
    if who == "torchrun" and RANK == "0":
        os.kill(os.getppid(), getattr(signal, signal_name))

if ends != "-":
    threading.Thread(target=end, daemon=True).start()
from keeprate.cli.commands import main
main()
"""
TRAIN = ["train", "digits", "--noise", "pairflip:0.45", "--quiet"]
OPTIONS = [*TRAIN, "--method", "co-teaching", "--schedule", "co-teaching"]
OPTIONS += ["--model", "double:Network", "--batch-size", "95", "--augment", "noise:0.1"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a network in float64, and the command, which may end early."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "double.py").write_text(NETWORK)
    (folder / "command.py").write_text(COMMAND)
    return folder


def in_two(
    place: Path, *arguments: str, ends: str = "-", environment: dict[str, str] | None = None
) -> CompletedProcess[str]:
    """The command in two processes; `ends` says who gets which signal after the first epoch."""
    script = str(place / "command.py")
    return torchrun(2, script, ends, *arguments, cwd=place, environment=environment)


def our_lines(done: CompletedProcess[str]) -> list[str]:
    """What keeprate says on standard error; torchrun has its own report of a failure."""
    return [line for line in done.stderr.splitlines() if line.startswith("keeprate: ")]


def test_the_parts_of_a_batch_are_all_of_it():
    for size, n in ((2, 2), (2, 33), (3, 128), (5, 7)):
        batch = torch.arange(3 * n).view(n, 3)
        shares = [Group(rank, size, None).share(n) for rank in range(size)]
        parts = [share.of(batch) for share in shares]
        assert torch.equal(torch.cat(parts), batch)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
        for share, part in zip(shares, parts, strict=True):
            assert share.n_all(len(part)) == n
            flat = share.of(batch.flatten())  # an axis of three places for each sample
            assert torch.equal(flat, part.flatten())
            assert share.n_all(len(flat)) == 3 * n


def test_a_batch_of_fewer_samples_than_processes_is_whole_everywhere():
    assert ALONE.share(8) is WHOLE and Group(1, 4, None).share(3) is WHOLE
    assert Group(1, 4, None).share(4).is_part


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(tmp_path):
    path = tmp_path / "found.safetensors"
    done = torchrun(2, "-m", "tests.processes", str(path))
    assert done.returncode == 0, done.stderr
    with safe_open(path, framework="pt") as found:
        for case in cases():
            kind, rule, dtype = case
            for name, expected in trained(kind, rule, DTYPES[dtype]).items():
                ours = found.get_tensor(f"{case} {name}")
                bound = TOLERANCE[dtype]
                assert torch.allclose(ours.double(), expected.double(), rtol=bound, atol=bound), (
                    f"{case}: {name}"
                )
        said = found.metadata()
    assert "must draw random numbers by nn.Dropout only" in said["draws"]
    assert "others after an epoch, in 0.0.running_mean;" in said["keeps"]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.fixture(scope="module")
def alone(place, python):
    """The training of one process, from its beginning to its end."""
    options = [*OPTIONS, "--epochs", "6", "--out", "alone"]
    done = python(place / "command.py", "-", *options, cwd=place)
    assert done.returncode == 0, done.stderr
    return place / "alone"


@pytest.mark.slow
@pytest.mark.parametrize("first", [2, 1], ids=["two go on as one", "one goes on as two"])
def test_a_training_goes_on_in_another_number_of_processes(place, alone, python, first):
    name, script = f"from-{first}", place / "command.py"
    options = [*OPTIONS, "--epochs", "6", "--out", name]
    if first == 2:  # torchrun ends both, and the last checkpoint is whole
        stopped = in_two(place, *options, ends="torchrun SIGTERM")
        assert our_lines(stopped) == ["keeprate: stopped; the same command continues"]
    else:
        python(script, "0 SIGKILL", *options, cwd=place)
    assert not load_record(place / name).finished
    assert list((place / name).glob("checkpoint-*"))
    done = python(script, "-", *options, cwd=place) if first == 2 else in_two(place, *options)
    assert done.returncode == 0, done.stderr
    assert not list((place / name).glob("checkpoint-*"))
    ours, expected = weights(place / name), weights(alone)
    assert ours.keys() == expected.keys()
    for tensor_name, tensor in ours.items():
        assert tensor.dtype == expected[tensor_name].dtype
        assert torch.allclose(tensor, expected[tensor_name], rtol=1e-6, atol=1e-6), tensor_name
    curves = [load_record(folder).results[0].curves for folder in (place / name, alone)]
    assert len(curves[0].train_loss) == len(curves[1].train_loss) == 6


@pytest.mark.slow
def test_a_process_that_is_killed_ends_all_with_one_line(place):
    options = [*OPTIONS, "--epochs", "5000", "--out", "killed"]
    done = in_two(place, *options, ends="1 SIGKILL")
    assert done.returncode != 0
    (line,) = our_lines(done)  # of the loss, or of torchrun's signal, whichever comes first
    assert line.endswith(("the same command goes on from the last checkpoint.", "continues"))
    assert list((place / "killed").glob("checkpoint-*"))


@pytest.mark.slow
def test_what_another_process_dies_of_is_said(place):
    options = [*TRAIN, "--method", "standard", "--model", "double:Lame", "--out", "lame"]
    done = in_two(place, *options)
    assert our_lines(done) == ["keeprate: process 2 of 2: no room for two."]
    assert done.returncode != 0


@pytest.mark.slow
def test_the_choice_by_cross_fitting_is_that_of_one_process(place, python):
    options = [*TRAIN, "--epochs", "3", "--precision", "float32", "--out"]
    for done in (
        python(place / "command.py", "-", *options, "fitted-1", cwd=place),
        in_two(place, *options, "fitted-2"),
    ):
        assert done.returncode == 0, done.stderr
    theirs, ours = (load_record(place / name) for name in ("fitted-1", "fitted-2"))
    assert [one.label for one in ours.results] == [one.label for one in theirs.results]
    expected = weights(place / "fitted-1")
    for name, tensor in weights(place / "fitted-2").items():
        assert torch.allclose(tensor, expected[name], atol=1e-5), name


@pytest.mark.slow
def test_data_larger_than_memory_train_to_the_weights_of_one_process(place, python):
    rows = np.random.default_rng(0).normal(size=(300, 3))
    lines = [",".join([*map(str, row), f"c{row[0] > 0:d}"]) for row in rows.round(3).tolist()]
    (place / "table.csv").write_text("\n".join(["a,b,c,label", *lines]))
    options = ["train", "table.csv", "--method", "standard", "--schedule", "constant"]
    options += ["--epochs", "2", "--precision", "float32", "--quiet", "--out"]
    mapped = {"SHARE": "0", "KEEPRATE_CACHE": str(place / "cache")}
    for done in (
        python(place / "command.py", "-", *options, "held", cwd=place),
        in_two(place, *options, "mapped", environment=mapped),
    ):
        assert done.returncode == 0, done.stderr
    assert list((place / "cache").glob("table-*")), "the table was not mapped"
    expected = weights(place / "held")
    for name, tensor in weights(place / "mapped").items():
        assert torch.allclose(tensor, expected[name], atol=1e-5), name


@pytest.fixture
def of_two(monkeypatch):
    """Be the process of this rank, of two that torchrun started."""

    def be(rank: int) -> None:
        known = {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "2", "RANK": str(rank)}
        for name, value in known.items():
            monkeypatch.setenv(name, value)

    return be


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("search digits", "keeprate search must run in one process, got 2 of torchrun; use --clus"),
        ("train digits --cluster auto", "must run in one process, got 2 of torchrun; leave out"),
    ],
)
def test_what_one_process_does_is_refused(of_two, monkeypatch, tmp_path, capsys, arguments, words):
    of_two(0)
    out = tmp_path / "refused"
    monkeypatch.setattr(sys, "argv", ["keeprate", *arguments.split(), "--out", str(out)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2 and not out.exists()
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("arguments", ["search digits", "train --help", "report runs/first", ""])
def test_nobody_waits_for_a_command_that_trains_nothing(of_two, arguments):
    of_two(1)
    assert followed(arguments.split()) == 0
    of_two(0)
    assert followed(arguments.split()) is None
