"""The one command for a GPU, on a CPU: parts of data, its stages, its clock, its results."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch

from benchmarks import gpu, gpu_engine, parts
from benchmarks.gpu_engine import EngineRow, RivalRow
from experiments import gpu_page, table4
from experiments.comparison import missing
from experiments.rows import hours
from keeprate.errors import InputError
from tests.searches import draw_no_page

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path):
    """Two small data sets, and a third that nobody asks for."""
    for name, sizes in {"mnist": (50, 7), "cifar-10": (120, 0), "other": (9,)}.items():
        for number, size in enumerate(sizes):
            path = tmp_path / "data" / name / "data" / f"{number}.bin"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(bytes((7 * i + number) % 251 for i in range(size)))
    return tmp_path / "data"


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("largest", [1, 16, 57, 177, 1000])
def test_parts_give_back_the_files(folder, tmp_path, largest):
    names, into = ("mnist", "cifar-10", "cifar-100"), tmp_path / "parts"
    parts.split(folder, names, into, largest)
    written = sorted(into.glob("part-*"))
    assert len(written) == -(-177 // largest) and parts.is_parts(into)
    assert max(path.stat().st_size for path in written) <= largest
    assert parts.join([into], tmp_path / "joined") == []
    expected = {p: c for p, c in contents(folder).items() if p.parts[0] != "other"}
    assert contents(tmp_path / "joined") == expected
    assert not parts.is_parts(folder)


def test_some_parts_give_back_the_files_that_they_hold_whole(folder, tmp_path):
    parts.split(folder, ("mnist", "cifar-10"), tmp_path / "parts", 60)
    here, elsewhere = tmp_path / "parts", tmp_path / "more"
    elsewhere.mkdir()
    (here / "part-001").rename(elsewhere / "part-001")
    joined = tmp_path / "joined"
    assert parts.join([here], joined) == ["cifar-10/data/0.bin"]
    assert [path.as_posix() for path in sorted(contents(joined))] == [
        "cifar-10/data/1.bin",
        "mnist/data/0.bin",
        "mnist/data/1.bin",
    ]
    (here / "part-000").unlink()  # no longer needed: what is there is right
    assert parts.join([here], joined) == ["cifar-10/data/0.bin"]
    assert parts.join([elsewhere, here, tmp_path / "none"], joined) == ["cifar-10/data/0.bin"]


def test_damaged_parts_are_refused(folder, tmp_path):
    into = tmp_path / "parts"
    with pytest.raises(InputError, match=r"--split must hold cifar-100, got .* with none; "):
        parts.split(folder, ("cifar-100",), into, 60)
    parts.split(folder, ("mnist",), into, 60)
    part = into / "part-000"
    part.write_bytes(part.read_bytes()[:-1] + b"!")
    with pytest.raises(InputError, match=r"1\.bin is not what was split"):
        parts.join([into], tmp_path / "joined")
    listed = json.loads((into / parts.LIST).read_text())
    listed["files"][0]["path"] = "../outside.bin"
    (into / parts.LIST).write_text(json.dumps(listed))
    with pytest.raises(InputError, match="must be what --split writes"):
        parts.join([into], tmp_path / "joined")
    (into / parts.LIST).unlink()
    with pytest.raises(InputError, match=r"must hold parts\.json"):
        parts.join([into], tmp_path / "joined")


# The clock and the results file ----------------------------------------------------------------


def test_the_clock_stops_what_takes_too_long():
    clock = gpu.Clock(0.2)
    assert clock.share(0.5).left() <= 0.1 and clock.share(2.0).left() <= 0.2
    started = time.monotonic()
    with pytest.raises(gpu.OutOfTime), clock.stops():
        while time.monotonic() - started < 10:
            try:
                time.sleep(0.01)
            except Exception:  # a row may catch what it likes
                raise AssertionError from None
    assert clock.left() <= 0
    with gpu.Clock(0.05).stops():
        pass
    time.sleep(0.1)  # nothing rings any more


def test_what_there_is_no_time_for_is_named(capsys):
    skipped = gpu.Skipped()
    skipped.add("a row", gpu.needs(90.2, 46.0))
    assert skipped.words == ["a row: takes about 90 s, and 46 s are left"]
    assert gpu.needs(float("inf"), -1) == "takes nobody knows how long, and 0 s are left"
    assert capsys.readouterr().out == f"skipped {skipped.words[0]}\n"


def test_a_results_file_belongs_to_one_device(tmp_path):
    path = tmp_path / "gpu.json"
    gpu.Store(path, CPU, "command").keep(engine=[{"network": "mlp", "candidates": 1}])
    again = gpu.Store(path, CPU, "command")
    assert again.engine_row({"network": "mlp"}) and again.engine_row({"network": "x"}) is None
    again.keep(device="NVIDIA H200")
    with pytest.raises(InputError, match="holds results of NVIDIA H200, and this is cpu; move"):
        gpu.Store(path, CPU, "command")


# Stages ----------------------------------------------------------------------------------------


def test_the_tests_are_run_until_they_pass(tmp_path, monkeypatch, capsys):
    one, two = "tests/test_gpu.py::test_one[cuda]", "tests/test_gpu.py::test_two[a case-cuda]"
    lines = [f"{one} PASSED   [ 33%]", f"{two} FAILED [ 66%]", "E       RuntimeError: no"]
    lines.append("tests/test_gpu.py::test_three SKIPPED (no GPU here) [100%]")
    left_out, answers = [], []

    def run(command, **options):
        left_out.append([word for word in command if word.startswith("--deselect")])
        code, output = answers.pop(0)
        if code is None:
            raise subprocess.TimeoutExpired(command, 1.0, output=output.encode())
        return subprocess.CompletedProcess(command, code, output.encode())

    def outcome(*some, clock=100):
        answers[:] = some
        gpu.run_tests(CPU, store, gpu.Clock(clock), gpu.Skipped())
        return store.content["tests"]

    monkeypatch.setattr(subprocess, "run", run)
    store = gpu.Store(tmp_path / "gpu.json", CPU, "command")
    assert not outcome((4, "ImportError: no module named hypothesis"))["finished"]
    assert "no module named hypothesis" in capsys.readouterr().out
    found = outcome((None, lines[0]))  # stopped by the clock
    assert found["passed"] == [one] and not found["finished"]
    found = outcome((1, "\n".join(lines[1:])))
    assert left_out[-1] == [f"--deselect={one}"]
    assert (found["passed"], found["failed"], found["finished"]) == ([one], [two], True)
    assert found["said"] == [lines[2]]
    found = outcome((0, f"{two} PASSED [100%]"))  # again, as one has failed
    assert found["passed"] == [one, two] and not found["failed"]
    outcome()  # nothing is left
    monkeypatch.setattr(gpu, "code_of_engine", lambda: "other code")
    outcome((0, lines[0]))
    assert left_out[-1] == [] and len(left_out) == 5


@pytest.fixture
def few_steps(monkeypatch):
    for name in gpu_engine.AT_ONCE:
        monkeypatch.setitem(gpu_engine.AT_ONCE, name, 4)
    monkeypatch.setattr(gpu_engine, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(gpu_engine, "LEAST_ROUNDS", 1)


def test_engine_rows_are_measured_once(tmp_path, monkeypatch, few_steps):
    rows = [EngineRow("mlp", 2, "float32"), EngineRow("model1", 1, "float32")]
    rows += [
        RivalRow("mlp", "plain"),
        RivalRow("mlp", "reference"),
        RivalRow("model1", "reference"),
    ]
    monkeypatch.setattr(gpu_engine, "rows", lambda device: rows)
    store, skipped = gpu.Store(tmp_path / "gpu.json", CPU, "command"), gpu.Skipped()
    gpu.run_engine(CPU, store, gpu.Clock(1), skipped)  # no row in so little time
    assert store.content["engine"] == [] and len(skipped.words) == 5
    gpu.run_engine(CPU, store, gpu.Clock(1000), skipped)
    measured = store.content["engine"]
    assert [row["network"] for row in measured] == [row.network for row in rows]
    assert all(row["seconds_per_candidate_epoch"] > 0 for row in measured)
    assert 0 < measured[0]["share of the matmul rate"] < 2
    assert measured[0]["graph"] == "not on a GPU"
    per_step = measured[0]["seconds_per_step"] / 2 * gpu_engine.STEPS_PER_EPOCH["mlp"]
    assert measured[0]["seconds_per_candidate_epoch"] == pytest.approx(per_step, rel=1e-2)
    monkeypatch.setattr(gpu_engine, "measure", None)
    gpu.run_engine(CPU, gpu.Store(tmp_path / "gpu.json", CPU, "c"), gpu.Clock(1000), skipped)


def test_a_row_that_fails_is_tried_again_and_stops_no_other(tmp_path, monkeypatch, few_steps):
    rows = [EngineRow("mlp", k, "float32") for k in (1, 2, 3)]
    measure = gpu_engine.measure

    def broken(row, device):
        if row.candidates == 1:
            raise ValueError("broken\nmore words")
        return measure(row, device)

    def starved(*arguments):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(gpu_engine, "rows", lambda device: rows[:2])
    monkeypatch.setattr(gpu_engine, "measure", broken)
    store, skipped = gpu.Store(tmp_path / "gpu.json", CPU, "command"), gpu.Skipped()
    gpu.run_engine(CPU, store, gpu.Clock(1000), skipped)
    assert skipped.words == ["engine, mlp, 1, float32, stacked: ValueError: broken"]
    assert [row["candidates"] for row in store.content["engine"]] == [2]
    monkeypatch.setattr(gpu_engine, "_lockstep", starved)
    row = measure(rows[2], CPU)
    assert row["seconds_per_step"] is None and row["reason"] == "does not fit in memory"


def test_the_rows_of_a_gpu_are_for_all_networks_and_tell_most_first():
    rows = list(gpu_engine.rows(torch.device("cuda")))
    assert len({tuple(row.key.items()) for row in rows}) == len(rows)
    engine = [row for row in rows if isinstance(row, EngineRow)]
    assert {row.network for row in engine} == set(gpu_engine.STEPS_PER_EPOCH)
    assert {row.candidates for row in engine} >= {1, 20, 50, 100, 200}
    for network in gpu_engine.STEPS_PER_EPOCH:
        assert RivalRow(network, "plain") in rows and EngineRow(network, 200, "bfloat16") in [
            replace(row, way="stacked") for row in engine
        ]
    assert engine[0] == EngineRow("mlp", 200, "bfloat16")


def test_arithmetic_is_counted_by_hand_too():
    forward, backward = 784 * 256 + 256 * 10, 784 * 256 + 2 * 256 * 10
    assert gpu_engine.flops_per_step("mlp") == 2 * 128 * 2 * (forward + backward)


TINY = replace(
    table4.TABLE.protocol("paper"),
    data="digits",
    epochs=2,
    seeds=2,
    budget="2trials",
    sampler="random",
)
TABLE = replace(
    table4.TABLE,
    arms=tuple(
        replace(arm, budget=arm.budget and "1trials")
        for arm in table4.TABLE.arms
        if arm.name in ("standard", "mentornet", "proposed", "proposed-6")
    ),
    protocols=(TINY,),
    noises=("pairflip:0.45",),
)


def test_tables_are_filled_as_far_as_the_time_reaches(tmp_path, monkeypatch):
    draw_no_page(monkeypatch)
    store, skipped = gpu.Store(tmp_path / "gpu.json", CPU, "command"), gpu.Skipped()
    # Ten seconds for an epoch: a search of the protocol takes 77 s, the others less than 60.
    row = EngineRow("mlp", 4, "float32").key | {"seconds_per_candidate_epoch": 10.0}
    store.keep(engine=[row | {"seconds_per_step": 0.02}])
    places = {"data": "", "runs": str(tmp_path / "runs"), "results": tmp_path}
    monkeypatch.setattr(gpu, "WORTH_A_BEGINNING", 1e9)
    gpu.run_tables([TABLE], store, gpu.Clock(70), skipped, **places)
    rows = json.loads((tmp_path / "table4-paper.json").read_text())["rows"]
    assert [row["name"] for row in rows] == ["proposed-6", "proposed-6"]
    (words,) = skipped.words
    assert words.startswith("Table 4: MNIST: 4 jobs, of which the shortest takes about 77 s, and ")
    # Now what is left goes into the first row that was skipped, and those after it.
    monkeypatch.setattr(gpu, "WORTH_A_BEGINNING", 1.0)
    gpu.run_tables([TABLE], store, gpu.Clock(60), gpu.Skipped(), **places)
    rows = json.loads((tmp_path / "table4-paper.json").read_text())["rows"]
    assert not list(missing(TABLE, TINY, rows)) and hours(rows) > 0


def test_a_table_without_data_is_skipped(tmp_path):
    store, skipped = gpu.Store(tmp_path / "gpu.json", CPU, "command"), gpu.Skipped()
    places = {"data": str(tmp_path), "runs": str(tmp_path / "runs"), "results": tmp_path}
    gpu.run_tables([table4.TABLE], store, gpu.Clock(60), skipped, **places)
    assert skipped.words == ["Table 4: MNIST: --data holds no mnist/"]


# The command -----------------------------------------------------------------------------------


def test_the_command_ends_by_itself_and_says_what_it_left_out(
    tmp_path, monkeypatch, capsys, few_steps
):
    draw_no_page(monkeypatch)

    def passing(device, store, clock, skipped):
        store.keep(tests={"passed": ["one"], "failed": [], "finished": True})

    monkeypatch.setattr(gpu, "run_tests", passing)
    monkeypatch.setattr(gpu, "TABLES", (TABLE, table4.TABLE))
    monkeypatch.setattr(gpu_engine, "rows", lambda device: [EngineRow("mlp", 1, "float32")])
    out = tmp_path / "out"
    words = ["--device", "cpu", "--minutes", "2", "--data", str(tmp_path), "--out", str(out)]
    assert gpu.main([*words, "--runs", str(tmp_path / "runs")]) == 0
    said = capsys.readouterr().out
    assert "1 rows of the engine" in said and "Table 4: MNIST, paper protocol: 8 rows" in said
    assert said.strip().endswith("Table 4: MNIST: --data holds no mnist/")
    content = json.loads((out / "gpu.json").read_text())
    assert content["skipped"] == ["Table 4: MNIST: --data holds no mnist/"]
    step = content["faces"]["methods"]["co-teaching"]
    assert step["pictures a second"] > 0
    assert sum(step["share by part"].values()) == pytest.approx(1, abs=1e-3)
    assert step["share by part"]["backward"] > step["share by part"]["selection"] > 0
    assert step["share by part"]["optimiser"] > 0
    assert content["command"] == "python -m benchmarks.gpu --device cpu --minutes 2"


def test_a_failed_test_fails_the_command_and_the_clock_ends_it(tmp_path, monkeypatch, capsys):
    def failing(device, store, clock, skipped):
        store.keep(tests={"passed": [], "failed": ["a test"], "finished": True})

    def endless(device, store, clock, skipped):
        with clock.stops():
            while True:
                time.sleep(0.01)

    monkeypatch.setattr(gpu, "run_tests", failing)
    monkeypatch.setattr(gpu, "run_engine", endless)
    monkeypatch.setattr(gpu, "MARGIN", 29.0)
    words = ["--device", "cpu", "--minutes", "0.5", "--out", str(tmp_path)]
    assert gpu.main([*words, "--runs", str(tmp_path / "runs")]) == 1
    assert "what was running, and what comes after: the minutes are over" in capsys.readouterr().out


def test_data_comes_in_parts(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(parts, "LARGEST", 60)
    into = str(tmp_path / "parts")
    assert gpu.main(["--split", str(folder), "--into", into]) == 0
    assert "3 parts" in capsys.readouterr().out
    skipped = gpu.Skipped()
    joined = tmp_path / "joined"
    assert gpu._data([str(folder)], joined, skipped) == str(folder)
    assert gpu._data([into], joined, skipped) == str(joined) and not skipped.words
    (tmp_path / "parts" / "part-002").unlink()
    (joined / "cifar-10" / "data" / "0.bin").unlink()
    gpu._data([into], joined, skipped)
    assert not (joined / "cifar-10").exists() and (joined / "mnist").exists()
    with pytest.raises(InputError, match="--data must be one folder, or folders of parts"):
        gpu._data([str(folder), str(folder)], joined, skipped)
    assert gpu.main(["--split", str(tmp_path / "none"), "--into", into]) == 2
    with pytest.raises(SystemExit):
        gpu.main(["--minutes", "0"])


def test_the_page_says_what_has_not_run(tmp_path):
    words = "\n".join(gpu_page.section(tmp_path, tmp_path / "gpu.json"))
    assert words.count("not run on a GPU") == 5


def test_the_page_judges_the_goals(tmp_path):
    file = tmp_path / "gpu.json"
    rival = RivalRow("mlp", "reference", 8).key | {"seconds_per_step": 0.01}
    rows = [
        rival,
        rival | {"workers": 0, "seconds_per_step": 0.008},
        EngineRow("mlp", 200, "bfloat16").key
        | {"seconds_per_step": 0.002, "seconds_per_candidate_epoch": 0.0047},
        EngineRow("model2", 20, "bfloat16", "one by one").key
        | {"seconds_per_step": 0.1, "seconds_per_candidate_epoch": 2.0}
        | {"share of the matmul rate": 0.25},
        EngineRow("model3", 200, "bfloat16").key
        | {"seconds_per_step": None, "reason": "does not fit in memory"},
    ]
    content = {
        "device": "NVIDIA H200",
        "versions": {"torch": "2.13.0"},
        "matmul_flops_per_second": {"bfloat16": 6.2e14},
        "tests": {"passed": ["one", "two"], "failed": ["three"], "finished": True},
        "engine": rows,
    }
    file.write_text(json.dumps(content))
    words = "\n".join(gpu_page.section(tmp_path, file))
    assert "NVIDIA H200, PyTorch 2.13.0; matrix product, TFLOP/s: bfloat16 620" in words
    assert "2 passed, 1 failed (three)" in words
    flat = " ".join(words.split())
    assert "literature's loop: **reached** (800 times)" in flat
    assert "or more: **not reached** (0.25)" in flat and "minutes: not run on a GPU yet" in flat
    assert "| MLP, bfloat16, stacked | 200 | 4.7 | 800.0 × | – | – |" in words
    assert "| Model 3, bfloat16, stacked | 200 | does not fit in memory | – | – | – |" in words


@pytest.mark.slow
def test_the_whole_command_runs_on_a_cpu(tmp_path):
    """As a user starts it, with the tests in a process of their own."""
    command = [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--minutes", "0.5"]
    command += ["--data", str(tmp_path), "--out", str(tmp_path), "--runs", str(tmp_path / "runs")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    content = json.loads((tmp_path / "gpu.json").read_text())
    assert content["device"] == "cpu" and content["tests"]["failed"] == []
    assert "things were skipped" in done.stdout
