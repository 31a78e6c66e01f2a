"""The command: what it prints and writes, and what it says to bad input (exit code 2)."""

from __future__ import annotations

import csv
import json
import resource
import shutil
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

from keeprate import records
from keeprate.cli import commands
from keeprate.errors import InputError
from keeprate.files import write_atomically
from keeprate.records.label_quality import LabelQuality
from keeprate.records.record import load_record

QUICK = ["--epochs", "1", "--batch-size", "16"]


def keeprate(*arguments, capsys=None):
    """Run the command in this process; (exit code, what it said on the error stream)."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as stopped:
        patch.setattr(sys, "argv", ["keeprate", *map(str, arguments)])
        commands.main()
    said = capsys.readouterr() if capsys else None
    return stopped.value.code or 0, said


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
    code, _ = keeprate(
        "search",
        data,
        "--out",
        out,
        "--trials",
        3,
        "--epochs",
        8,
        "--batch-size",
        12,
        "--learning-rate",
        0.02,
    )
    assert code == 0
    return data, out


def test_search_writes_the_run_folder_and_prints_the_table(tmp_path, capsys):
    out = tmp_path / "run"
    code, said = keeprate(
        "search",
        "digits",
        "--noise",
        "symmetric:0.5",
        "--trials",
        2,
        "--epochs",
        2,
        "--out",
        out,
        capsys=capsys,
    )
    assert code == 0
    for words in ("searched R(t)", "its own R(t)", "Standard", "label", "full trainings"):
        assert words in said.out
    names = {path.name for path in out.iterdir()}
    assert names >= {
        "record.json", "schedule.csv", "model.safetensors", "label_quality.csv", "study.db",
        "keep_rate.png", "curves.png", "label_precision.png", "report.html",
    }  # fmt: skip


def test_train_takes_every_kind_of_schedule(table_run, tmp_path, capsys):
    data, out = table_run
    for number, schedule in enumerate(["constant", out, out / "schedule.csv"]):
        code, _ = keeprate(
            "train", data, "--schedule", schedule, "--out", tmp_path / str(number),
            "--epochs", 8, "--batch-size", 12, "--baselines", "none", capsys=capsys,
        )  # fmt: skip
        assert code == 0
    code, said = keeprate(
        "train", "digits", "--noise", "pairflip:0.3", "--schedule", "co-teaching",
        "--out", tmp_path / "own", *QUICK, capsys=capsys,
    )  # fmt: skip
    assert code == 0 and said.out.count("its own R(t)") == 1 and "Standard" in said.out
    code, said = keeprate(
        "train", data, "--schedule", "co-teaching", "--out", tmp_path / "x", *QUICK, capsys=capsys
    )
    assert code == 2 and "--noise-rate" in said.err


def test_search_begins_with_what_was_found_before(table_run, tmp_path):
    data, out = table_run
    (tmp_path / "drop.csv").write_text("epoch,keep_rate\n1,1.0\n2,0.5\n3,0.4\n")
    code, _ = keeprate(
        "search", data, "--out", tmp_path / "run", "--trials", 2, "--warm-start", out,
        "--warm-start", tmp_path / "drop.csv", "--epochs", 8, "--batch-size", 12,
        "--baselines", "none",
    )  # fmt: skip
    assert code == 0
    first, second = load_record(tmp_path / "run")["trials"]
    found = np.loadtxt(out / "schedule.csv", delimiter=",", skiprows=1)[:, 1]
    assert first["keep_rate"] == pytest.approx(found, abs=0.03)
    assert second["keep_rate"][7] == pytest.approx(0.4, abs=0.05)  # stretched from three epochs


def test_issues_of_a_run_are_listed_and_written(table_run, tmp_path, capsys):
    _, out = table_run
    code, said = keeprate("issues", out, "--out", tmp_path / "fix.csv", "--top", 3, capsys=capsys)
    assert code == 0 and "predicted label" in said.out
    assert "60 labels, of which" in said.out  # held-out ones, too: nobody knows that they are right
    written = (tmp_path / "fix.csv").read_text().splitlines()
    kept = (out / "label_quality.csv").read_text().splitlines()
    assert written[0] == kept[0] and sorted(written) == sorted(kept)  # ties may change places
    given = [row[0] for row in flowers()[1:]]
    for line in written[1:]:
        row, _, _, label, _ = line.split(",")
        assert given[int(row)] == label
    first = written[1].split(",")
    assert f" {first[0]} " in said.out and first[3] in said.out


def test_issues_of_another_model_s_probabilities(tmp_path, capsys, monkeypatch):
    labels, probabilities = np.array([0, 1, 1]), np.array([[0.9, 0.1], [0.2, 0.8], [0.9, 0.1]])
    np.savez(tmp_path / "p.npz", labels=labels, pred_probs=probabilities)
    for kind in ("json", "parquet"):
        path = tmp_path / f"fix.{kind}"
        code, said = keeprate("issues", tmp_path / "p.npz", "--out", path, capsys=capsys)
        assert code == 0 and "3 labels, of which 1 (33.3%) look wrong" in said.out
        rows = json.loads(path.read_text()) if kind == "json" else pq.read_table(path).to_pylist()
        assert rows[0] | {"label_score": 0} == {
            "index": 2, "is_label_issue": True, "label_score": 0,
            "given_label": "1", "predicted_label": "0",
        }  # fmt: skip
        assert [row["label_score"] for row in rows] == sorted(row["label_score"] for row in rows)
    quality = LabelQuality(np.arange(2), np.array([0, 1]), np.array([1, 1]), np.array([0.1, 0.9]))
    monkeypatch.setattr(records, "load_label_quality", lambda source: (quality, ("[/x]", "[bold]")))
    code, said = keeprate("issues", tmp_path / "p.npz", capsys=capsys)
    assert code == 0 and "[/x]" in said.out and "[bold]" in said.out
    monkeypatch.undo()
    np.savez(tmp_path / "bad.npz", labels=labels, pred_probs=probabilities[:2])
    np.savez(tmp_path / "other.npz", x=labels)
    (tmp_path / "cut.npz").write_bytes((tmp_path / "p.npz").read_bytes()[:60])
    for name, words in (
        ("bad.npz", "3 labels and 2 rows"), ("other.npz", "pred_probs"), ("cut.npz", "pred_probs"),
        ("no.npz", "No such file"), ("no", "run folder or an .npz file"),
    ):  # fmt: skip
        code, said = keeprate("issues", tmp_path / name, capsys=capsys)
        assert code == 2 and words in said.err, name
    code, said = keeprate("issues", tmp_path / "p.npz", "--out", "x.txt", capsys=capsys)
    assert code == 2 and ".csv, .parquet or .json" in said.err


def test_predict_needs_no_label_and_any_order_of_columns(table_run, tmp_path, capsys):
    _, out = table_run
    rows = [[height, width] for _, width, height in flowers(9)]
    data = write_csv(tmp_path / "new.csv", rows)
    code, said = keeprate("predict", out, data, "--out", tmp_path / "p.csv", capsys=capsys)
    assert code == 0 and "9 predictions" in said.out
    with open(tmp_path / "p.csv") as file:
        found = [row["predicted_label"] for row in csv.DictReader(file)]
    assert found == ["rose", "tulip", "lily"] * 3
    code, said = keeprate("predict", out, table_run[0], capsys=capsys)
    assert code == 0 and "accuracy" in said.out


def test_a_users_own_method_and_another_way_to_search(tmp_path, capsys, monkeypatch):
    (tmp_path / "own_method.py").write_text(
        "from dataclasses import replace\n"
        "from keeprate.engine import METHODS\n"
        "mine = replace(METHODS['mentornet'], name='mine', label='Mine')\n"
    )
    monkeypatch.chdir(tmp_path)
    code, said = keeprate(
        "search", "digits", "--method", "own_method:mine", "--trials", 3, *QUICK, "--out", "run",
        "--baselines", "none", "--noise", "asymmetric-mnist:0.4", "--pruner", "halving",
        capsys=capsys,
    )  # fmt: skip
    assert code == 0
    assert load_record("run")["results"][0]["label"] == "Mine, searched R(t)"
    assert "19.1% of the training labels wrong" in said.out


@pytest.mark.parametrize("method", ["jocor", "co-teaching-plus", "co-mining"])
def test_every_selecting_method_can_be_searched(method, tmp_path):
    code, _ = keeprate(
        "search", "digits", "--method", method, "--trials", 2, *QUICK, "--out", tmp_path,
        "--baselines", "none", "--noise", "symmetric:0.2",
    )  # fmt: skip
    assert code == 0
    assert load_record(tmp_path)["results"][0]["method"] == method


def test_a_users_own_model(tmp_path, capsys, monkeypatch):
    (tmp_path / "own_model.py").write_text(
        "from torch import nn\n"
        "def build(input_shape, n_classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, n_classes))\n"
    )
    monkeypatch.chdir(tmp_path)
    code, _ = keeprate(
        "search", "digits", "--model", "own_model:build", "--trials", 2, *QUICK, "--out", "run",
        "--baselines", "none", "--noise", "pairflip:0.2",
    )  # fmt: skip
    assert code == 0
    assert keeprate("predict", "run", "digits")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--trials", "0"], ["trials must be at least 1", "got 0"]),
        (["--epochs", "0"], ["epochs must be at least 1"]),
        (["--restarts", "0"], ["restarts must be at least 1", "got 0"]),
        (["--learning-rate", "nan"], ["learning_rate must be positive"]),
        (["--batch-size", "5000"], ["batch_size must be at most", "1079", "5000"]),
        (["--model", "resnet"], ["model must be one of mlp", "resnet"]),
        (["--model", "no.such:thing"], ["could not be imported"]),
        (["--model", "model1"], ["be images", "at least 16"]),
        (["--method", "coteach"], ["method must be one of", "coteach"]),
        (["--method", "standard"], ["method must select samples"]),
        (["--method", "no.such:thing"], ["method 'no.such:thing' could not be imported"]),
        (["--method", "keeprate.engine.models:mlp"], ["method must be a keeprate.Method"]),
        (["--pruner", "hyper"], ["pruner must be one of none, halving, median", "hyper"]),
        (["--noise", "asymmetric-cifar100:0.4"], ["n_classes must be 100"]),
        (["--space", "cubic"], ["space must be one of basis"]),
        (["--sampler", "grid"], ["sampler must be one of natural-gradient"]),
        (["--fidelity", "0"], ["fidelity must lie in (0, 1]", "0.0"]),
        (["--fidelity", "0.5", "--trials", "9"], ["fidelity must be 1 where no trial confirms"]),
        (["--sampler", "paper"], ["sampler must have a positive step size", "try paper:20"]),
        (["--noise", "pairflip:1.0"], ["noise", "[0, 1)", "1.0"]),
        (["--noise", "gaussian:0.1"], ["noise", "symmetric", "gaussian"]),
        (["--optimizer", "lion"], ["optimizer must be one of adam"]),
        (["--device", "abacus"], ["device must be available"]),
        (["--lockstep", "many"], ["lockstep must be 'auto' or a whole number"]),
        (["--limit", "0"], ["limit must be at least 1"]),
    ],
)
def test_bad_options(arguments, words, tmp_path, capsys):
    code, said = keeprate("search", "digits", "--out", tmp_path / "run", *arguments, capsys=capsys)
    assert code == 2
    assert "Traceback" not in said.err
    for word in words:
        assert word in said.err


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
        return write_csv(path, [*good, ["", 1.0, 2.0]])
    if name == "nan inputs":
        return write_csv(path, [*good, ["rose", "nan", 2.0]])
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
        ("empty", ["hold samples"]),
        ("one class", ["hold two classes or more", "rose"]),
        ("fractional labels", ["label", "0.25"]),
        ("missing labels", ["label", "row 12"]),
        ("nan inputs", ["finite", "row 12"]),
        ("infinite inputs", ["finite", "row 12"]),
        ("unequal rows", ["could not be read", "unequal rows.csv"]),
        ("truncated npz", ["x.npz", "could not be read"]),
        ("truncated parquet", ["x.parquet", "could not be read"]),
    ],
)
def test_bad_data(name, words, tmp_path, capsys):
    source = bad_data(name, tmp_path)
    code, said = keeprate("search", source, "--out", tmp_path / "run", *QUICK, capsys=capsys)
    assert code == 2
    assert "Traceback" not in said.err
    for word in words:
        assert word in said.err, said.err


def test_a_schedule_of_the_wrong_length(table_run, tmp_path, capsys):
    data, out = table_run
    code, said = keeprate(
        "train", data, "--schedule", out, "--epochs", 5, "--batch-size", 12,
        "--out", tmp_path / "run", capsys=capsys,
    )  # fmt: skip
    assert code == 2 and "5" in said.err and "8" in said.err


@pytest.mark.parametrize("name", ["record.json", "model.safetensors", "study.db"])
def test_damaged_run_files(table_run, tmp_path, capsys, name):
    data, out = table_run
    run = tmp_path / "run"
    shutil.copytree(out, run)
    whole = (run / name).read_bytes()
    (run / name).write_bytes(whole[: len(whole) // 2])
    if name == "study.db":  # is read only while the search goes on
        text = (run / "record.json").read_text()
        (run / "record.json").write_text(text.replace('"finished": true', '"finished": false'))
        (run / name).write_bytes(b"not a database" * 100)
    again = ["search", data, "--out", run, "--trials", 3, "--epochs", 8, "--batch-size", 12]
    arguments = (
        ["predict", run, data] if name == "model.safetensors" else [*again, "--learning-rate", 0.02]
    )
    code, said = keeprate(*arguments, capsys=capsys)
    assert code == 2
    assert "Traceback" not in said.err
    assert name in said.err


def test_a_damaged_checkpoint_is_named(tmp_path, capsys):
    arguments = ["search", "digits", "--out", tmp_path, "--trials", 2, *QUICK]
    arguments += ["--baselines", "none"]
    assert keeprate(*arguments)[0] == 0
    text = (tmp_path / "record.json").read_text()
    (tmp_path / "record.json").write_text(text.replace('"finished": true', '"finished": false'))
    (tmp_path / "checkpoint-final-co-teaching-0.safetensors").write_bytes(b"\x00" * 40)
    code, said = keeprate(*arguments, capsys=capsys)
    assert code == 2
    assert "checkpoint-final-co-teaching-0.safetensors" in said.err and "delete it" in said.err


def test_a_folder_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    code, said = keeprate(
        "search", "digits", "--out", tmp_path / "file" / "run", *QUICK, capsys=capsys
    )
    assert code == 2 and "could not be written" in said.err


def test_another_configuration_in_the_same_folder(table_run, capsys):
    data, out = table_run
    code, said = keeprate(
        "search", data, "--out", out, "--trials", 7, "--batch-size", 12, capsys=capsys
    )
    assert code == 2
    assert "trials: 3 before, 7 now" in said.err and "training.epochs: 8 before, 40 now" in said.err


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


def test_a_disk_that_fills_up_during_a_search(tmp_path):
    script = (
        "import resource, sys; from keeprate.cli import commands\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)); commands.main()"
    )
    command = ["search", "digits", "--out", str(tmp_path / "run"), "--trials", "2", *QUICK]
    done = subprocess.run([sys.executable, "-c", script, *command], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr


def test_help_and_version_say_what_there_is(capsys):
    code, said = keeprate("--version", capsys=capsys)
    assert code == 0 and said.out.startswith("keeprate 0.")
    code, said = keeprate("search", "--help", capsys=capsys)
    assert code == 0 and "--noise" in said.out and "--out" in said.out
