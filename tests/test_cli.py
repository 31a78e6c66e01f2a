"""The command: what it prints and writes, and what it says to bad input (exit code 2)."""

from __future__ import annotations

import csv
import inspect
import io
import json
import re
import resource
import shutil
import signal
import subprocess
import sys
from functools import partial

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console

import keeprate as keeprate_package
from keeprate import records, report
from keeprate.cli import commands, console, options
from keeprate.errors import InputError
from keeprate.files import write_atomically
from keeprate.records.label_quality import LabelQuality
from keeprate.records.record import load_record
from tests.searches import draw_no_page

QUICK = ["--epochs", "1", "--batch-size", "16"]
FLOWERS = ["--budget", "3trials", "--epochs", "8", "--batch-size", "12", "--learning-rate", "0.02"]


def keeprate(*arguments, capsys=None):
    """Run the command in this process; its exit code, and what it printed (`out`, `err`)."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as stopped:
        patch.setattr(sys, "argv", ["keeprate", *map(str, arguments)])
        commands.main()
    output = capsys.readouterr() if capsys else None
    return stopped.value.code or 0, output


def write_csv(path, rows):
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def flowers(n=60, labels=("rose", "tulip", "lily")):
    rng = np.random.default_rng(0)
    rows = [["label", "width", "height"]]
    for i in range(n):
        kind = i % len(labels)
        x, y = rng.normal([3 * kind, -2 * kind], 0.3)
        rows.append([labels[kind], f"{x:.3f}", f"{y:.3f}"])
    return rows


@pytest.fixture(scope="module")
def table_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("table")
    data = write_csv(folder / "flowers.csv", flowers())
    out = folder / "run"
    with pytest.MonkeyPatch.context() as patch:
        draw_no_page(patch)
        code, _ = keeprate("search", data, "--out", out, *FLOWERS)
    assert code == 0
    return data, out


def test_search_writes_the_run_folder_and_prints_plain_lines(tmp_path, capsys):
    out = tmp_path / "run"
    code, output = keeprate(
        "search", "digits", "--noise", "symmetric:0.5", "--budget", "2trials", "--epochs", 2,
        "--out", out, capsys=capsys,
    )  # fmt: skip
    assert code == 0
    for words in (
        "digits: 1,079 training", "50.4% of the training labels wrong", "searched R(t)",
        "its own R(t)", "Standard", "label", "full trainings", f"written to {out}: report.html",
    ):  # fmt: skip
        assert words in " ".join(output.out.split()), words
    assert "\x1b" not in output.out + output.err and "\r" not in output.out + output.err
    assert all(len(line) <= 80 or str(out) in line for line in output.out.splitlines())
    assert re.search(r"^search: 100 %, best validation accuracy [\d.]+ %$", output.err, re.M)
    assert re.search(r"^final training: 100 %$", output.err, re.M)
    names = {path.name for path in out.iterdir()}
    assert names >= {
        "record.json", "schedule.csv", "model.safetensors", "label_quality.csv", "study.db",
        "keep_rate.png", "curves.png", "label_precision.png", "report.html",
    }  # fmt: skip


def test_train_takes_every_kind_of_schedule(table_run, tmp_path, no_page, capsys):
    data, out = table_run
    for number, schedule in enumerate(["constant", out, out / "schedule.csv"]):
        code, _ = keeprate(
            "train", data, "--schedule", schedule, "--out", tmp_path / str(number),
            "--epochs", 8, "--batch-size", 12, "--baselines", "none", capsys=capsys,
        )  # fmt: skip
        assert code == 0
    code, output = keeprate(
        "train", "digits", "--noise", "pairflip:0.3", "--schedule", "co-teaching",
        "--out", tmp_path / "own", *QUICK, "--baselines", "auto", capsys=capsys,
    )  # fmt: skip
    assert code == 0 and output.out.count("its own R(t)") == 1 and "Standard" in output.out
    code, output = keeprate(
        "train", data, "--schedule", "co-teaching", "--out", tmp_path / "x", *QUICK, capsys=capsys
    )
    assert code == 2 and "--noise-rate" in output.err


def test_search_begins_with_what_was_found_before(table_run, tmp_path, no_page, capsys):
    data, out = table_run
    (tmp_path / "drop.csv").write_text("epoch,keep_rate\n1,1.0\n2,0.5\n3,0.4\n")
    code, output = keeprate(
        "search", data, "--out", tmp_path / "run", "--budget", "2trials", "--warm-start", out,
        "--warm-start", tmp_path / "drop.csv", "--epochs", 8, "--batch-size", 12,
        "--baselines", "none", capsys=capsys,
    )  # fmt: skip
    assert code == 0
    assert "the search began with a noise rate of " in output.out and "R(t) by" not in output.out
    first, second = load_record(tmp_path / "run").trials
    found = np.loadtxt(out / "schedule.csv", delimiter=",", skiprows=1)[:, 1]
    assert first.keep_rate == pytest.approx(found, abs=0.03)
    assert second.keep_rate[7] == pytest.approx(0.4, abs=0.05)  # stretched from three epochs


def test_issues_of_a_run_are_listed_and_written(table_run, tmp_path, capsys):
    _, out = table_run
    code, output = keeprate("issues", out, "--out", tmp_path / "fix.csv", "--top", 3, capsys=capsys)
    assert code == 0
    # Held-out ones, too: nobody knows that they are right.
    assert "of 60 labels listed" in output.out
    written = (tmp_path / "fix.csv").read_text().splitlines()
    kept = (out / "label_quality.csv").read_text().splitlines()
    assert written[0] == kept[0] and sorted(written) == sorted(kept)  # ties may change places
    given = [row[0] for row in flowers()[1:]]
    for line in written[1:]:
        row, _, _, label, _, _ = line.split(",")
        assert given[int(row)] == label
    code, output = keeprate(
        "issues", out, "--rows", 2, "--out", tmp_path / "two.csv", capsys=capsys
    )
    assert code == 0 and "2 of 60 labels listed; by their probabilities" in output.out
    assert (tmp_path / "two.csv").read_text().splitlines() == written[:3]
    first = written[1].split(",")
    assert f" {first[0]} " in output.out and first[3] in output.out
    assert keeprate("issues", out, "--precision", 2, capsys=capsys)[0] == 2


def test_decisions_are_applied_to_the_data(table_run, tmp_path, capsys):
    data, out = table_run
    lines = data.read_text().splitlines()
    header = ["index", "given_label", "decision", "label"]
    rows = [[0, "rose", "change", "lily"], [1, "tulip", "drop", ""], [2, "lily", "keep", ""]]
    decisions = write_csv(tmp_path / "decisions.csv", [header, *rows])
    code, output = keeprate("apply", out, decisions, "--out", tmp_path / "fixed", capsys=capsys)
    assert code == 0 and "labels changed 1, kept 1; rows dropped 1" in output.out
    assert f"{data} stays as it is" in output.out
    fixed = (tmp_path / "fixed" / "flowers.csv").read_text().splitlines()
    assert fixed == [lines[0], lines[1].replace("rose", "lily"), *lines[3:]]
    assert data.read_text().splitlines() == lines
    code, output = keeprate("apply", out, decisions, "--out", tmp_path / "fixed", capsys=capsys)
    assert code == 2 and "new or an empty folder" in output.err
    write_csv(decisions, [header, [0, "tulip", "keep", ""]])
    for arguments, words in (
        ([out, decisions, "--out", tmp_path / "other"], "be 'rose' as in the run"),
        ([tmp_path, decisions, "--out", tmp_path / "other"], "no record.json"),
        ([out, tmp_path / "none.csv", "--out", tmp_path / "other"], "DECISIONS must be a file"),
        ([out, decisions, "--out", data / "below"], "is a file"),
        ([out, decisions, "--out", tmp_path / "other", "--data", "nowhere.csv"], "nowhere.csv"),
    ):
        code, output = keeprate("apply", *arguments, capsys=capsys)
        assert code == 2 and words in output.err and not (tmp_path / "other").exists()


def test_issues_of_another_model_s_probabilities(tmp_path, capsys, monkeypatch):
    labels, probabilities = np.array([0, 1, 1]), np.array([[0.9, 0.1], [0.2, 0.8], [0.9, 0.1]])
    np.savez(tmp_path / "p.npz", labels=labels, pred_probs=probabilities)
    for kind in ("json", "parquet"):
        path = tmp_path / f"fix.{kind}"
        code, output = keeprate("issues", tmp_path / "p.npz", "--out", path, capsys=capsys)
        assert code == 0 and "1 of 3 labels listed; by their probabilities" in output.out
        rows = json.loads(path.read_text()) if kind == "json" else pq.read_table(path).to_pylist()
        assert rows[0] | {"label_score": 0} == {
            "index": 2, "is_label_issue": True, "label_score": 0,
            "given_label": "1", "predicted_label": "0", "suggested_label": "0",
        }  # fmt: skip
        assert [row["label_score"] for row in rows] == sorted(row["label_score"] for row in rows)
    given, suggested = np.array([0, 1]), np.array([1, -1])
    quality = LabelQuality(np.arange(2), given, np.array([1, 1]), np.array([0.1, 0.4]), suggested)
    monkeypatch.setattr(records, "load_label_quality", lambda source: (quality, ("[/x]", "[bold]")))
    code, output = keeprate("issues", tmp_path / "p.npz", capsys=capsys)
    assert code == 0 and "[/x]" in output.out and "[bold]" in output.out
    monkeypatch.undo()
    np.savez(tmp_path / "bad.npz", labels=labels, pred_probs=probabilities[:2])
    np.savez(tmp_path / "other.npz", x=labels)
    (tmp_path / "cut.npz").write_bytes((tmp_path / "p.npz").read_bytes()[:60])
    for name, words in (
        ("bad.npz", "3 labels and 2 rows"), ("other.npz", "pred_probs"), ("cut.npz", "pred_probs"),
        ("no.npz", "No such file"), ("no", "run folder or an .npz file"),
    ):  # fmt: skip
        code, output = keeprate("issues", tmp_path / name, capsys=capsys)
        assert code == 2 and words in output.err, name
    code, output = keeprate("issues", tmp_path / "p.npz", "--out", "x.txt", capsys=capsys)
    assert code == 2 and ".csv, .parquet or .json" in output.err


def test_predict_needs_no_label_and_any_order_of_columns(table_run, tmp_path, capsys):
    _, out = table_run
    rows = [[height, width] for _, width, height in flowers(9)]
    data = write_csv(tmp_path / "new.csv", rows)
    code, output = keeprate("predict", out, data, "--out", tmp_path / "p.csv", capsys=capsys)
    assert code == 0 and "9 predictions" in output.out
    with open(tmp_path / "p.csv") as file:
        found = [row["predicted_label"] for row in csv.DictReader(file)]
    assert found == ["rose", "tulip", "lily"] * 3
    code, output = keeprate("predict", out, table_run[0], capsys=capsys)
    assert code == 0 and "accuracy" in output.out


def test_a_users_own_method_and_another_way_to_search(tmp_path, no_page, capsys, monkeypatch):
    (tmp_path / "own_method.py").write_text(
        "from dataclasses import replace\n"
        "from keeprate.engine import METHODS\n"
        "mine = replace(METHODS['mentornet'], name='mine', label='Mine')\n"
    )
    monkeypatch.chdir(tmp_path)
    code, output = keeprate(
        "search", "digits", "--method", "own_method:mine", "--budget", "3trials", *QUICK,
        "--out", "run", "--baselines", "none", "--noise", "asymmetric-mnist:0.4",
        "--pruner", "halving", capsys=capsys,
    )  # fmt: skip
    assert code == 0
    assert load_record("run").results[0].label == "Mine, searched R(t)"
    assert "19.1% of the training labels wrong" in output.out


@pytest.mark.parametrize("method", ["jocor", "co-teaching-plus", "co-mining"])
def test_every_selecting_method_can_be_searched(method, tmp_path, no_page):
    code, _ = keeprate(
        "search", "digits", "--method", method, "--budget", "2trials", *QUICK, "--out", tmp_path,
        "--baselines", "none", "--noise", "symmetric:0.2",
    )  # fmt: skip
    assert code == 0
    assert load_record(tmp_path).results[0].method == method


def test_a_users_own_model(tmp_path, no_page, capsys, monkeypatch):
    (tmp_path / "own_model.py").write_text(
        "from torch import nn\n"
        "def build(input_shape, n_classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, n_classes))\n"
    )
    monkeypatch.chdir(tmp_path)
    code, _ = keeprate(
        "search", "digits", "--model", "own_model:build", "--budget", "2trials", *QUICK,
        "--out", "run", "--baselines", "none", "--noise", "pairflip:0.2",
    )  # fmt: skip
    assert code == 0
    code, output = keeprate("predict", "run", "digits", capsys=capsys)
    assert code == 2
    assert "asks for the model 'own_model:build', which is code outside keeprate" in output.err
    assert keeprate("predict", "run", "digits", "--model", "own_model:build")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--budget", "0trials"], ["budget must be at least one trial", "got '0trials'"]),
        (["--epochs", "0"], ["epochs must be a whole number of at least 1"]),
        (["--restarts", "0"], ["restarts must be at least 1", "got 0"]),
        (["--learning-rate", "nan"], ["learning_rate must be positive"]),
        (["--batch-size", "5000"], ["batch_size must be at most", "1079", "5000"]),
        (["--model", "resnet"], ["model must be one of auto, mlp", "resnet"]),
        (["--model", "no.such:thing"], ["could not be imported"]),
        (["--model", "model1"], ["be images", "at least 16"]),
        (["--method", "coteach"], ["method must be one of", "coteach"]),
        (["--method", "standard"], ["method must select samples"]),
        (["--method", "no.such:thing"], ["method 'no.such:thing' could not be imported"]),
        (["--method", "keeprate.engine.models:mlp"], ["method must be a keeprate.Method"]),
        (["--pruner", "hyper"], ["pruner must be one of none, halving, median", "hyper"]),
        (["--noise", "asymmetric-cifar100:0.4"], ["n_classes must be 100"]),
        (["--space", "cubic"], ["space must be one of basis"]),
        (["--sampler", "grid"], ["sampler must be one of gaussian-process"]),
        (["--fidelity", "0"], ["fidelity must lie in (0, 1]", "0.0"]),
        (["--fidelity", "0.5", "--budget", "9trials"], ["fidelity must be 1 where no trial"]),
        (["--sampler", "paper"], ["sampler must have a positive step size", "try paper:20"]),
        (["--noise", "pairflip:1.0"], ["noise", "[0, 1)", "1.0"]),
        (["--noise", "gaussian:0.1"], ["noise", "symmetric", "gaussian"]),
        (["--optimizer", "lion"], ["optimizer must be one of adam"]),
        (["--device", "abacus"], ["device must be available"]),
        (["--lockstep", "many"], ["lockstep must be 'auto' or a whole number"]),
        (["--limit", "0"], ["limit must be at least 1"]),
        (["--seed", "-1"], ["seed must be at least 0", "got -1"]),
        (["--noise-rate", "1"], ["noise_rate must lie in [0, 1)", "got 1.0"]),
        (["--lockstep", "0"], ["lockstep must be 'auto' or a whole number of at least 1"]),
        (["--validation", "clean"], ["validation must be auto or noisy", "'clean'"]),
        (["--budget", "6", "--fidelity", "0.5"], ["budget must be a number of trials where fid"]),
        (["--budget", "often"], ["budget must be a number of full trainings", "try 6, 30m or"]),
        (["--baselines", "all,none"], ["baselines must be auto, none, all, or methods", "'all'"]),
        (["--warm-start", "nowhere"], ["warm_start must be a .json or .csv file", "'nowhere'"]),
        (["--out", ""], ["out must name a folder, got ''; write --out runs/first."]),
        (["--trials", "40"], ["--trials was replaced: write --budget 40trials."]),
        (["--trials=30"], ["--trials was replaced: write --budget 30trials."]),
        (["--trials"], ["--trials was replaced: write --budget 40trials."]),
        (["--no-confirm"], ["--no-confirm was replaced", "SearchConfig(confirm=False)"]),
        (["--lr-schedule", "cosine"], ["was replaced: write --learning-rate-schedule cosine."]),
        (["--population", "4"], ["--population was replaced: write --lockstep 4."]),
        (["--epochs", "many"], ["Invalid value for '--epochs'"]),
        (["--bogus", "1"], ["No such option"]),
    ],
)
def test_bad_options(arguments, words, tmp_path, capsys):
    code, output = keeprate(
        "search", "digits", "--out", tmp_path / "run", *arguments, capsys=capsys
    )
    assert code == 2
    assert "Traceback" not in output.err
    for word in words:
        assert word in output.err


def bad_data(name, folder):
    """Write a bad data set; its path."""
    good = flowers(12)
    path = folder / f"{name}.csv"
    if name == "missing":
        return folder / "nothing.csv"
    if name == "empty":
        return write_csv(path, good[:1])
    if name == "one class":
        return write_csv(path, [good[0], *(["rose", *row[1:]] for row in good[1:])])
    if name == "fractional labels":
        return write_csv(path, [good[0], *([i / 2 + 0.25, *r[1:]] for i, r in enumerate(good[1:]))])
    if name == "missing labels":
        return write_csv(path, [good[0], *(["", *row[1:]] for row in good[1:])])
    if name == "infinite inputs":
        return write_csv(path, [*good, ["rose", "inf", 2.0]])
    if name == "unequal rows":
        return write_csv(path, [*good, ["rose", 1.0]])
    if name == "truncated npz":
        path = folder / "x.npz"
        np.savez(path, x=np.zeros((50, 3)), y=np.arange(50) % 2)
        path.write_bytes(path.read_bytes()[:500])
        return path
    if name == "truncated parquet":
        pq = pytest.importorskip("pyarrow.parquet")
        import pyarrow as pa

        path = folder / "x.parquet"
        pq.write_table(pa.table({"a": list(range(9)), "label": [0, 1, 2] * 3}), path)
        path.write_bytes(path.read_bytes()[:-20])
        return path
    raise ValueError(name)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing", ["neither a path nor a known name", "nothing.csv"]),
        ("empty", ["hold rows", "header without rows"]),
        ("one class", ["hold two classes or more", "rose"]),
        ("fractional labels", ["label", "0.25"]),
        ("missing labels", ["label", "must be there", "missing ones in all rows"]),
        ("infinite inputs", ["finite", "row 12"]),
        ("unequal rows", ["3 cells in each row", "line 14", "unequal rows.csv"]),
        ("truncated npz", ["x.npz", "could not be read"]),
        ("truncated parquet", ["x.parquet", "could not be read"]),
    ],
)
def test_bad_data(name, words, tmp_path, capsys):
    source = bad_data(name, tmp_path)
    code, output = keeprate("search", source, "--out", tmp_path / "run", *QUICK, capsys=capsys)
    assert code == 2
    assert "Traceback" not in output.err
    for word in words:
        assert word in output.err, output.err


def test_a_schedule_of_the_wrong_length(table_run, tmp_path, capsys):
    data, out = table_run
    code, output = keeprate(
        "train", data, "--schedule", out, "--epochs", 5, "--batch-size", 12,
        "--out", tmp_path / "run", capsys=capsys,
    )  # fmt: skip
    assert code == 2 and "5" in output.err and "8" in output.err


@pytest.mark.parametrize("name", ["record.json", "model.safetensors", "study.db"])
def test_damaged_run_files(table_run, tmp_path, no_page, capsys, name):
    data, out = table_run
    run = tmp_path / "run"
    shutil.copytree(out, run)
    whole = (run / name).read_bytes()
    (run / name).write_bytes(whole[: len(whole) // 2])
    if name == "study.db":  # is read only while the search goes on
        text = (run / "record.json").read_text()
        (run / "record.json").write_text(text.replace('"finished": true', '"finished": false'))
        (run / name).write_bytes(b"not a database" * 100)
    again = ["search", data, "--out", run, "--budget", "3trials", "--epochs", 8, "--batch-size", 12]
    arguments = (
        ["predict", run, data] if name == "model.safetensors" else [*again, "--learning-rate", 0.02]
    )
    code, output = keeprate(*arguments, capsys=capsys)
    assert code == 2
    assert "Traceback" not in output.err
    assert name in output.err


def test_a_damaged_checkpoint_is_named(tmp_path, no_page, capsys):
    arguments = ["search", "digits", "--out", tmp_path, "--budget", "2trials", *QUICK]
    arguments += ["--baselines", "none"]
    assert keeprate(*arguments)[0] == 0
    text = (tmp_path / "record.json").read_text()
    (tmp_path / "record.json").write_text(text.replace('"finished": true', '"finished": false'))
    (tmp_path / "checkpoint-final-co-teaching-0.safetensors").write_bytes(b"\x00" * 40)
    code, output = keeprate(*arguments, capsys=capsys)
    assert code == 2
    assert "checkpoint-final-co-teaching-0.safetensors" in output.err and "delete it" in output.err


def test_a_folder_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    code, output = keeprate(
        "search", "digits", "--out", tmp_path / "file" / "run", *QUICK, capsys=capsys
    )
    assert code == 2 and "could not be written" in output.err


def test_another_configuration_in_the_same_folder(table_run, capsys):
    data, out = table_run
    code, output = keeprate(
        "search", data, "--out", out, "--budget", "7trials", "--batch-size", 12, capsys=capsys
    )
    assert code == 2
    assert (
        "budget: 3 trials before, 7 trials now" in output.err
        and "training.epochs: 8 before, 40 now" in output.err
    )


def test_a_full_disk_leaves_the_old_file_whole(tmp_path):
    path = tmp_path / "record.json"
    write_atomically(path, "old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))  # Python ignores SIGXFSZ
    try:
        with pytest.raises(InputError, match="could not be written"):
            write_atomically(path, "new" * 10_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["record.json"]


def test_a_disk_that_fills_up_during_a_search(python, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import resource, sys; from keeprate.cli import commands\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)); commands.main()"
    )
    command = ["search", "digits", "--out", str(tmp_path / "run"), "--budget", "2trials", *QUICK]
    done = python(script, *command)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr


BAD_BEFORE_TORCH = [
    ["--budget", "often"],
    ["--budget", "9trials", "--fidelity", "0.5"],
    ["--noise", "gaussian:0.1"],
    ["--noise", "pairflip:1.0"],
    ["--space", "cubic"],
    ["--sampler", "grid"],
    ["--pruner", "hyper"],
    ["--warm-start", "nowhere"],
    ["--epochs", "0"],
    ["--learning-rate", "nan"],
    ["--optimizer", "lion"],
    ["--restarts", "0"],
    ["--limit", "0"],
    ["--seed", "-1"],
    ["--noise-rate", "1.5"],
    ["--lockstep", "many"],
    ["--validation", "clean"],
    ["--out", ""],
    ["--trials", "40"],
    ["--epochs", "many"],
]


def test_a_wrong_option_is_refused_before_pytorch_is_imported(tmp_path):
    lines = [
        *(["search", "digits", "--out", str(tmp_path / "run"), *bad] for bad in BAD_BEFORE_TORCH),
        ["search", "nothing.csv", "--out", str(tmp_path / "run")],
        ["search", "folder/nothing.npz", "--out", str(tmp_path / "run")],
        ["train", "digits", "--schedule", "nowhere", "--out", str(tmp_path / "run")],
        ["predict", "nowhere", "digits"],
        ["issues", "nowhere"],
        ["issues", "nothing.npz"],
        ["report", "nowhere"],
        ["search", "--help"],
    ]
    script = (
        "import json, sys\n"
        "from keeprate.cli.commands import main\n"
        "for line in json.loads(sys.argv[1]):\n"
        "    sys.argv = ['keeprate', *line]\n"
        "    try:\n"
        "        main()\n"
        "    except SystemExit as end:\n"
        "        print('CODE', end.code or 0, 'torch' in sys.modules)\n"
    )
    command = [sys.executable, "-c", script, json.dumps(lines)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    ends = [line for line in done.stdout.splitlines() if line.startswith("CODE")]
    assert ends == ["CODE 2 False"] * (len(lines) - 1) + ["CODE 0 False"], done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["nothing.csv", "folder/nothing.npz", "digitz", ""])
def test_data_that_are_not_there(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code, output = keeprate("search", name, "--out", "run", capsys=capsys)
    assert (
        code == 2 and "neither a path nor a known name" in output.err and repr(name) in output.err
    )


def test_the_name_of_a_hub_data_set_passes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options.check_source("owner/name")
    (tmp_path / "owner").mkdir()
    with pytest.raises(InputError, match="neither a path nor a known name"):
        options.check_source("owner/name")  # a mistyped path


def test_another_budget_in_the_same_folder(tmp_path, no_page, capsys):
    line = ["search", "digits", "--out", tmp_path, *QUICK, "--baselines", "none", "--restarts", 1]
    assert keeprate(*line, "--budget", 2)[0] == 0
    code, output = keeprate(*line, "--budget", 3, capsys=capsys)
    assert code == 2
    assert "configuration (budget: 2 trainings before, 3 trainings now); choose" in output.err


# Ctrl-C -------------------------------------------------------------------------------------------

STOPPED = "keeprate: stopped; the same command continues\n"
INTERRUPTING = """
import os, signal, sys

event, place = sys.argv.pop(1), sys.argv.pop(1)

def interrupt(name, arguments):
    global event
    if name == event and place in str(arguments[0]):
        event = None
        os.kill(os.getpid(), signal.SIGINT)

sys.addaudithook(interrupt)
from keeprate.cli.commands import main
main()
"""


def hear_interrupts():
    """In a child process: also where the tests run in the background, which ignores Ctrl-C."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


LINE = ["search", "digits", "--out", "run", "--budget", "2trials", "--quiet", *QUICK]


@pytest.mark.parametrize(("event", "place"), [("import", "typer"), ("import", "torch.")])
def test_ctrl_c_is_one_line_while_the_command_is_imported(event, place, tmp_path):
    command = [sys.executable, "-c", INTERRUPTING, event, place, *LINE]
    options = {"text": True, "cwd": tmp_path, "preexec_fn": hear_interrupts}
    done = subprocess.run(command, capture_output=True, **options)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", STOPPED)


@pytest.mark.parametrize(
    ("event", "place"), [("open", "digits.csv"), ("sqlite3.connect", "study.db")]
)
def test_ctrl_c_is_one_line_at_any_moment(python, event, place, tmp_path):
    script = tmp_path / "script.py"
    hear = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    script.write_text(hear + INTERRUPTING)
    done = python(script, event, place, *LINE, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", STOPPED)


def test_ctrl_c_during_training_and_the_same_command_again(tmp_path, no_page, capsys):
    line = ["search", "digits", "--out", str(tmp_path / "run"), "--epochs", "15"]
    line += ["--budget", "2trials", "--baselines", "none", "--restarts", "1"]
    command = [sys.executable, "-m", "keeprate", *line]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes, preexec_fn=hear_interrupts) as process:
        lines = iter(process.stderr.readline, "")
        assert next(lines).startswith("noise rate: ")
        assert any(line.startswith("search: ") for line in lines)
        process.send_signal(signal.SIGINT)
        shown, errors = process.communicate()
    assert process.returncode == 130
    assert errors.endswith(STOPPED) and "Traceback" not in errors
    assert "written to" not in shown
    assert not load_record(tmp_path / "run").finished
    code, output = keeprate(*line, capsys=capsys)
    assert code == 0 and "written to" in output.out
    assert load_record(tmp_path / "run").finished


def test_a_process_in_the_background_goes_on_ignoring_ctrl_c():
    script = (
        "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "from keeprate.cli import commands\n"
        "commands.COMMANDS = (lambda: os.kill(os.getpid(), signal.SIGINT) or print('goes on'),)\n"
        "commands.COMMANDS[0].__name__ = 'interrupt'; commands.main()"
    )
    command = [sys.executable, "-c", script, "interrupt"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "goes on\n", "")


# What is shown ------------------------------------------------------------------------------------


def test_quiet_prints_the_closing_table_and_cautions_only(tmp_path, no_page, capsys):
    line = ["search", "digits", "--noise", "symmetric:0.2", "--out", tmp_path, "--quiet"]
    code, output = keeprate(*line, "--budget", "2trials", *QUICK, capsys=capsys)
    assert code == 0 and output.err == ""
    table, *cautions = re.split("^Caution: ", output.out, flags=re.MULTILINE)
    assert cautions and all(text.endswith(".\n") for text in cautions)
    lines = table.splitlines()
    assert "test accuracy" in lines[1]
    assert all(line[0] in "┏┃┡│└" and len(line) <= 80 for line in lines)


def test_a_warning_of_the_table_is_shown_even_if_quiet(table_run, no_page, monkeypatch, capsys):
    data, out = table_run
    line = ["search", data, "--out", out, *FLOWERS]
    monkeypatch.setattr(report, "noisy_test_in_words", lambda record: "The test labels are noisy.")
    for is_quiet in (False, True):
        code, output = keeprate(*line, *["--quiet"] * is_quiet, capsys=capsys)
        after = output.out.partition("┘\n")[2]
        assert code == 0 and after.startswith("The test labels are noisy.\n")
        assert ("of the labels are wrong" in after) != is_quiet


def test_a_terminal_shows_bars(monkeypatch):
    terminal = io.StringIO()
    made = partial(Console, file=terminal, force_terminal=True, width=80, _environ={})
    monkeypatch.setattr(console, "Console", lambda stderr: made())
    with console.shown_progress(is_quiet=False) as progress:
        progress("search", 0, 40, None)
        progress("search", 12.4, 40, "best validation score 0.912")
        progress("search", 11.0, 40, "best validation score 0.912")  # may fall
        progress("search", 40, 40, "best validation score 0.934")
        progress("final training", 20, 120, None)
    shown = terminal.getvalue()
    assert "40/40 best validation score 0.934" in re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", shown)
    assert "20/120" in re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", shown)
    assert "%" not in shown  # a determinant is no percentage
    with console.shown_progress(is_quiet=True) as progress:
        assert progress is None


# Options ------------------------------------------------------------------------------------------

EVERYDAY = {
    "--out", "--method", "--model", "--epochs", "--batch-size", "--noise", "--validation",
    "--after", "--label", "--inputs", "--columns", "--seed", "--metric", "--quiet", "--help",
    "--help-all",
}  # fmt: skip


def shown_help(*arguments, capsys):
    code, output = keeprate(*arguments, capsys=capsys)
    assert code == 0
    lines = [line.strip() for line in output.out.splitlines()]
    return lines, set(re.findall(r"^│ [* ]*(--[\w-]+)", output.out, re.M))


@pytest.mark.parametrize(
    ("command", "own"),
    [("search", {"--budget", "--add-trials", "--plan"}), ("train", {"--schedule"})],
)
def test_everyday_help_fits_on_a_screen(command, own, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    lines, names = shown_help(command, "--help", capsys=capsys)
    assert len(lines) < 45 and max(map(len, lines)) <= 80
    assert names == EVERYDAY | own
    lines, all_names = shown_help(command, "--help-all", capsys=capsys)
    assert names < all_names and {"--restarts", "--learning-rate-schedule"} < all_names
    assert any("Research" in line for line in lines)


def test_help_and_version_say_what_there_is(capsys):
    code, output = keeprate("--version", capsys=capsys)
    assert code == 0 and output.out.startswith("keeprate 0.")
    code, output = keeprate("--help", capsys=capsys)
    assert code == 0 and all(name in output.out for name in ("search", "train", "issues"))
    code, output = keeprate("search", "--help", capsys=capsys)
    assert code == 0 and "--noise" in output.out and "--out" in output.out


def defaults_of(function):
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}


def test_the_command_python_and_the_classifier_have_the_same_defaults(tmp_path):
    command = options.RunOptions(data="digits", out=str(tmp_path))
    search = options.SearchOptions()
    assert command.training_config() == keeprate_package.TrainingConfig()
    assert search.config() == keeprate_package.SearchConfig()
    assert search.budget == "6" and command.restarts is None
    of_search = defaults_of(keeprate_package.search)
    of_train = defaults_of(keeprate_package.train)
    assert (of_search["restarts"], of_train["restarts"]) == (3, 1)
    assert str(of_search["budget"]) == search.budget
    of_command = defaults_of(commands.train_command)
    words = {True: "auto", False: "none"}
    assert words[of_search["baselines"]] == search.baselines
    assert words[of_train["baselines"]] == of_command["baselines"]
    for name in ("method", "model", "seed", "noise_rate", "tensorboard"):
        assert of_search[name] == of_train[name] == getattr(command, name), name
    assert of_search["lockstep"] is of_train["lockstep"] is command.candidates_in_lockstep()
    classifier = keeprate_package.NoisyLabelClassifier()
    for name in (
        "method", "model", "noise_rate", "restarts", "epochs", "batch_size", "optimizer",
        "learning_rate", "device",
    ):  # fmt: skip
        assert getattr(classifier, name) == getattr(command, name), name
    assert classifier.budget is None and classifier.search_config is None  # no search


def test_python_dash_m_keeprate():
    command = [sys.executable, "-m", "keeprate", "--version"]
    assert subprocess.check_output(command, text=True).startswith("keeprate 0.")
