"""Runs that are killed or lose the power end as undisturbed ones; `make chaos` has more."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import keeprate
from keeprate.errors import InputError
from keeprate.files import write_atomically

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/fd").is_dir(), reason="names of open files are read from /proc"
)


def test_killed_runs_end_as_undisturbed_ones() -> None:
    from tests.chaos.harness import Counts, drill

    outcome = drill("train", 0, Counts(operations=7, moments=1, power=8))
    assert not outcome.faults
    assert outcome.equal == 16
    assert outcome.kills["operation"] >= 7 and outcome.kills["power"] == 8


def test_an_owner_killed_after_its_record_leaves_nothing(
    data: keeprate.Data, tmp_path: Path, no_page: None
) -> None:
    options = {"schedule": "constant", "config": keeprate.TrainingConfig(epochs=1, batch_size=64)}
    keeprate.train(data, out=tmp_path, **options)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    owner = {"host": socket.gethostname(), "pid": dead.pid, "since": "today"}
    (tmp_path / ".owner.json").write_text(json.dumps(owner))
    (tmp_path / f".report.html.{dead.pid}-1.part").write_text("half")
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "checkpoint-final-standard-0.safetensors").write_text("old")
    keeprate.train(data, out=tmp_path, **options)
    assert {p.name for p in tmp_path.iterdir() if p.name.startswith(".")} == {".lock"}
    assert not list((tmp_path / "first").iterdir())


def test_an_empty_folder_name_is_refused(data: keeprate.Data) -> None:
    with pytest.raises(InputError, match="out must name a folder, got ''"):
        keeprate.train(data, out="")


def test_each_new_folder_is_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed, flush = [], os.fsync

    def spy(handle: int) -> None:
        flushed.append(Path(os.readlink(f"/proc/self/fd/{handle}")))
        flush(handle)

    monkeypatch.setattr(os, "fsync", spy)
    write_atomically(tmp_path / "a" / "b" / "c.txt", "text")
    assert flushed[:2] == [tmp_path, tmp_path / "a"]
    assert flushed[-1] == tmp_path / "a" / "b"
