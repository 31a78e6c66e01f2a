"""A run folder from a stranger is data: it decides no code, and what was changed is noticed."""

from __future__ import annotations

import csv
import json
import re
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from torch import nn

import keeprate
from keeprate.cli import console
from keeprate.cli.commands import main
from keeprate.engine.checkpoints import load_tensors, save_tensors
from keeprate.errors import InputError
from keeprate.records.label_quality import LabelQuality, load_label_quality
from keeprate.runs.predictions import predict_files
from keeprate.text import as_meant, neutral

CONFIG = keeprate.TrainingConfig(epochs=2, batch_size=8)
X = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
Y = np.array(["=cat", "dog"])[(X[:, 0] > 0).astype(int)]


@pytest.fixture
def folder(tmp_path: Path, no_page: None) -> Path:
    keeprate.train(keeprate.prepare((X, Y)), model="mlp", config=CONFIG, out=tmp_path / "run")
    return tmp_path / "run"


def with_model(folder: Path, name: str) -> None:
    """Let the folder ask for another model, as somebody who wrote it could."""
    tensors, description = load_tensors(folder / "model.safetensors")
    save_tensors(folder / "model.safetensors", tensors, description | {"model": name})


def test_a_folder_names_no_code(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "evil_models.py").write_text(
        "from torch import nn\nprint('gotcha')\n"
        "def net(input_shape, n_classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(3, 256), nn.ReLU(), nn.Linear(256, 2))\n"
    )
    monkeypatch.chdir(tmp_path)
    expected = keeprate.load(folder).predict_proba(X)
    with_model(folder, "evil_models:net")
    with pytest.raises(InputError, match=r"asks for the model 'evil_models:net', which is code"):
        keeprate.load(folder)
    with pytest.raises(InputError, match=r"asks for the model 'evil_models:net', which is code"):
        predict_files(folder, [str(folder / "label_quality.csv")], tmp_path / "predictions.csv")
    assert "evil_models" not in sys.modules
    for options in ({"trust_model": True}, {"model": "evil_models:net"}):
        np.testing.assert_array_equal(keeprate.load(folder, **options).predict_proba(X), expected)
    sys.modules.pop("evil_models")


def test_a_saved_classifier_names_no_code(tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    keeprate.NoisyLabelClassifier(schedule="constant", epochs=2, batch_size=8).fit(X, Y).save(saved)
    described = json.loads((saved / "estimator.json").read_text())
    described["parameters"] |= {"model": "evil:net", "method": "evil:method"}
    (saved / "estimator.json").write_text(json.dumps(described))
    again = keeprate.NoisyLabelClassifier.load(saved)
    assert (again.model, again.method) == ("auto", "auto")
    with_model(saved, "evil:net")
    with pytest.raises(InputError, match="asks for the model 'evil:net', which is code"):
        keeprate.NoisyLabelClassifier.load(saved)


def test_the_current_folder_replaces_no_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(InputError, match="could not be imported"):
        keeprate.train(keeprate.prepare((X, Y)), model="no_such_module:net", config=CONFIG)
    assert sys.path[0] != str(tmp_path) and sys.path[-1] == str(tmp_path)


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.5, 0.9, 1.0])
def test_one_flipped_bit_of_the_weights_is_noticed(folder: Path, share: float) -> None:
    path = folder / "model.safetensors"
    flip(path, int(share * (path.stat().st_size - 1)))
    with pytest.raises(InputError, match=r"model\.safetensors"):
        keeprate.load(folder)


def test_a_changed_schedule_or_label_quality_is_noticed(folder: Path) -> None:
    again = {"model": "mlp", "config": CONFIG, "out": folder}
    for name in ("schedule.csv", "label_quality.csv"):
        before = (folder / name).read_bytes()
        flip(folder / name, len(before) - 3)
        with pytest.raises(InputError, match=rf"{name} is not the file that the run wrote"):
            keeprate.train(keeprate.prepare((X, Y)), **again)
        (folder / name).write_bytes(before)
    keeprate.train(keeprate.prepare((X, Y)), **again)  # as it was
    flip(folder / "label_quality.csv", 200)
    with pytest.raises(InputError, match=r"label_quality\.csv is not the file"):
        load_label_quality(folder)
    flip(folder / "schedule.csv", 12)
    with pytest.raises(InputError, match=r"schedule\.csv is not the file that the run wrote"):
        keeprate.train(keeprate.prepare((X, Y)), schedule=str(folder), config=CONFIG)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.int64, torch.bool])
def test_tensors_of_any_kind_have_a_checksum(kind: torch.dtype, tmp_path: Path) -> None:
    tensors = {"a": torch.ones(2, 3).to(kind), "none": torch.empty(0, 4).to(kind)}
    tensors["one"] = torch.tensor(1).to(kind)
    save_tensors(tmp_path / "t.safetensors", tensors, {"x": 1})
    loaded, described = load_tensors(tmp_path / "t.safetensors")
    assert described == {"x": 1}
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())
    flip(tmp_path / "t.safetensors", -1)
    with pytest.raises(InputError, match="checksum differs"):
        load_tensors(tmp_path / "t.safetensors")


@given(st.text(alphabet="'=+-@\t\r1a. ", max_size=6))
def test_formulas_are_neutral_and_come_back(text: str) -> None:
    safe = neutral(text)
    assert as_meant(safe) == text or safe == text
    assert safe == text or as_meant(safe) == text
    if safe[:1] in "=@\t\r" and safe:
        raise AssertionError(safe)


def test_files_for_spreadsheets_hold_no_formulas(folder: Path, tmp_path: Path) -> None:
    rows = list(csv.DictReader((folder / "label_quality.csv").read_text().splitlines()))
    assert {row["given_label"] for row in rows} == {"'=cat", "dog"}
    quality, names = load_label_quality(folder)
    assert names == ("=cat", "dog")
    assert isinstance(quality, LabelQuality) and len(quality.rows) == len(rows)
    np.savez(tmp_path / "x.npz", x=X)
    predict_files(folder, [str(tmp_path / "x.npz")], tmp_path / "p.csv", with_probabilities=True)
    found = list(csv.DictReader((tmp_path / "p.csv").read_text().splitlines()))
    assert {row["predicted_label"] for row in found} <= {"'=cat", "dog"}


def test_a_factory_of_ones_own_is_given_again(tmp_path: Path, no_page: None) -> None:
    data = keeprate.prepare((X, Y))
    keeprate.train(data, model=lambda *_: nn.Linear(3, 2), config=CONFIG, out=tmp_path)
    with pytest.raises(InputError, match="give it yourself"):
        keeprate.load(tmp_path)
    assert keeprate.load(tmp_path, model=lambda *_: nn.Linear(3, 2)).predict(X[:2]).shape == (2,)


UNSEEN = "\x1b[31mred\x1b]8;;https://e.org\x07link\x9b2J\u202egpj\u2066\u200f\x7f[bold]b[/]:bomb:"
_SHOWN = r"\x1b[31mred\x1b]8;;https://e.org\x07link\x9b2J\u202egpj\u2066\u200f\x7f[bold]b[/]:bomb:"


def is_plain(text: str) -> bool:
    return text.isprintable() or all(c in "\n\t" or c.isprintable() for c in text)


@pytest.mark.parametrize("terminal", [True, False])
def test_text_of_data_reaches_the_terminal_as_it_is_written(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
    names = (UNSEEN, "dog")
    quality = LabelQuality(
        *(np.arange(2), np.array([0, 1]), np.array([1, 0]), np.array([0.1, 0.2])),
        *(np.array([1, 0]), (UNSEEN, "b")),
    )
    console.list_issues(quality, 2, names, 2)
    shown = capsys.readouterr().out
    assert shown.count(_SHOWN) == 3  # given, predicted, name
    own = re.compile(r"\x1b\[[0-9;]*m")  # rich's, which frame no text of the data
    assert is_plain(own.sub("", shown))
    console.say(f"{UNSEEN} in a sentence")
    assert _SHOWN in (said := capsys.readouterr().out) and is_plain(said)
    with console._bars(Console(force_terminal=True, width=200)) as bars:
        console._BarProgress(bars)(UNSEEN, 1, 2, UNSEEN)
    progress = capsys.readouterr().out
    assert _SHOWN in progress and not re.search("[\x07\x9b\u202e\u2066\u200f]", progress)


@pytest.mark.parametrize("arguments", [("report", UNSEEN), ("report", f"--no{UNSEEN}", "x")])
def test_errors_show_what_was_typed_as_it_is_written(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["keeprate", *arguments])
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    with pytest.raises(SystemExit) as ended:
        main()
    shown = capsys.readouterr().err
    assert ended.value.code == 2 and r"\x1b[31mred" in shown and is_plain(shown)
    assert "\x1b" not in warnings.formatwarning(UNSEEN, UserWarning, "x.py", 1, "")


def test_errors_show_names_of_files_as_they_are_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / UNSEEN.replace("/", "")
    folder.mkdir()
    (folder / "record.json").write_text('{"schema_version": 3, "kind": "\x1b[31m"}')
    monkeypatch.setattr(sys, "argv", ["keeprate", "report", str(folder)])
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    with pytest.raises(SystemExit):
        main()
    shown = capsys.readouterr().err
    assert r"\x1b[31mred" in shown and "must hold a run record" in shown and is_plain(shown)
