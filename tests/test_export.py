"""The ONNX file of a run: what it computes, what it says of itself, what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import keeprate
from keeprate.cli import commands
from keeprate.data import Normaliser
from keeprate.engine import MODELS
from keeprate.errors import InputError
from keeprate.runs import Classifier, export_onnx, load, save_classifier

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
ort = pytest.importorskip("onnxruntime")

NAMES = ("ant", "bee", "cat")


def saved(folder, model, shape, normaliser, *, name="custom", n_peers=2, columns=()) -> Path:
    """A run's classifier with random weights, as a training leaves it."""
    torch.manual_seed(0)
    peers = [model(shape, len(NAMES)) for _ in range(n_peers)]
    for peer in peers:  # statistics of batch norm that are not those of a fresh network
        with torch.no_grad():
            for _ in range(3):
                peer.train()(torch.randn(8, *shape))
    peers = [peer.eval() for peer in peers]
    folder.mkdir(exist_ok=True)
    classifier = Classifier(peers, normaliser, NAMES, shape, columns)
    save_classifier(folder, classifier, model=name)
    return folder


def session_of(path) -> ort.InferenceSession:
    return ort.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])


PIXELS = Normaliser("standardise", (0.5, -1.0, 2.0), (0.5, 1.5, 3.0), 2)


@pytest.mark.parametrize(
    ("name", "shape", "normaliser"),
    [
        ("mlp", (3, 8, 8), Normaliser()),
        ("model1", (3, 20, 16), PIXELS),
        ("model2", (3, 8, 8), Normaliser()),
        pytest.param("model3", (3, 12, 12), PIXELS, marks=pytest.mark.slow),
    ],
)
def test_every_model_gives_pytorchs_probabilities_for_any_number_of_samples(
    tmp_path, name, shape, normaliser
):
    folder = saved(tmp_path, MODELS[name], shape, normaliser, name=name)
    difference = export_onnx(folder, tmp_path / "model.onnx")
    assert difference is not None and difference <= 1e-5
    session, classifier = session_of(tmp_path / "model.onnx"), load(folder)
    rng = np.random.default_rng(0)
    for n in (2, 33):
        inputs = rng.integers(0, 256, (n, *shape), dtype=np.uint8)
        if normaliser.kind != "uint8":
            inputs = rng.normal(size=(n, *shape)).astype(np.float32)
        (found,) = session.run(["probabilities"], {"inputs": inputs})
        expected = classifier.probabilities(torch.from_numpy(inputs)).numpy()
        assert found.shape == (n, 3) and np.abs(found - expected).max() <= 1e-5


def test_the_file_says_what_it_takes_and_what_its_classes_are(tmp_path):
    normaliser = Normaliser("standardise", (10.0, 0.0), (5.0, 1.0))
    folder = saved(tmp_path, MODELS["mlp"], (2,), normaliser, name="mlp", columns=("b", "a"))
    export_onnx(folder, tmp_path / "deep" / "model.onnx")
    session = session_of(tmp_path / "deep" / "model.onnx")
    properties = session.get_modelmeta().custom_metadata_map
    assert json.loads(properties["class_names"]) == list(NAMES)
    assert json.loads(properties["input_columns"]) == ["b", "a"]
    assert properties["keeprate_version"] == keeprate.__version__
    (taken,), (given,) = session.get_inputs(), session.get_outputs()
    assert (taken.name, taken.type, taken.shape[1:]) == ("inputs", "tensor(float)", [2])
    assert (given.name, given.shape[1:]) == ("probabilities", [3])
    assert isinstance(taken.shape[0], str) and given.shape[0] == taken.shape[0]  # any number
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["model.onnx"]


def test_pixels_of_another_scale_are_refused_by_their_type(tmp_path):
    folder = saved(tmp_path, MODELS["mlp"], (1, 4, 4), Normaliser(), name="mlp", n_peers=1)
    export_onnx(folder, tmp_path / "model.onnx")
    session = session_of(tmp_path / "model.onnx")
    assert session.get_inputs()[0].type == "tensor(uint8)"
    with pytest.raises(Exception, match="INVALID_ARGUMENT"):
        session.run(None, {"inputs": np.zeros((1, 1, 4, 4), dtype=np.float32)})


def with_dropout(input_shape, n_classes):
    return nn.Sequential(nn.Linear(input_shape[0], 8), nn.Dropout(0.5), nn.Linear(8, n_classes))


def test_a_users_network_with_dropout(tmp_path):
    normaliser = Normaliser("standardise", (1.0, 2.0), (1.0, 1.0))
    folder = saved(tmp_path, with_dropout, (2,), normaliser)
    assert export_onnx(folder, tmp_path / "model.onnx", model=with_dropout) <= 1e-5


class Branches(nn.Module):
    """Its computation depends on the values of the batch."""

    def __init__(self, input_shape, n_classes):
        super().__init__()
        self.layer = nn.Linear(input_shape[0], n_classes)

    def forward(self, x):
        return self.layer(x) if x.sum() > 0 else -self.layer(x)


class Draws(nn.Module):
    """Its probabilities are others at each call."""

    def __init__(self, input_shape, n_classes):
        super().__init__()
        self.layer = nn.Linear(input_shape[0], n_classes)

    def forward(self, x):
        return self.layer(x + torch.randn_like(x))


@pytest.mark.parametrize(
    ("model", "words"),
    [(Branches, "cannot be written as ONNX"), (Draws, "give PyTorch's probabilities up to 1e-05")],
)
def test_what_cannot_be_exported_leaves_no_file(tmp_path, model, words, capfd):
    folder = saved(tmp_path, model, (2,), Normaliser("standardise", (0.0,) * 2, (1.0,) * 2))
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match=words) as caught:
        export_onnx(folder, tmp_path / "model.onnx", model=model)
    assert len(str(caught.value)) < 1000 and sorted(tmp_path.iterdir()) == before
    assert capfd.readouterr() == ("", "")


def keeprate_command(*arguments, capsys):
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as stopped:
        patch.setattr(sys, "argv", ["keeprate", *map(str, arguments)])
        commands.main()
    return stopped.value.code or 0, capsys.readouterr()


def test_the_command(tmp_path, capsys):
    folder = saved(tmp_path, MODELS["mlp"], (2,), Normaliser("standardise", (0.0,) * 2, (1.0,) * 2),
                   name="mlp")  # fmt: skip
    (folder / "record.json").write_text("{}")  # that this is a run
    out = tmp_path / "model.onnx"
    code, output = keeprate_command("export", folder, out, capsys=capsys)
    assert code == 0 and "differ from PyTorch's by" in output.out and output.err == ""
    onnx.checker.check_model(onnx.load(out))
    for run, file, words in (
        (tmp_path / "nowhere", out, "RUN must be the folder of a run"),
        (folder, tmp_path / "model.pt", "FILE must end in .onnx"),
    ):
        code, output = keeprate_command("export", run, file, capsys=capsys)
        assert code == 2 and words in output.err


def test_a_wrong_run_is_refused_before_pytorch_is_imported(tmp_path):
    script = (
        "import sys\nfrom keeprate.cli.commands import main\n"
        f"sys.argv = ['keeprate', 'export', {str(tmp_path)!r}, 'model.onnx']\n"
        "try:\n    main()\nexcept SystemExit as end:\n    print(end.code, 'torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "2 False\n", done.stderr


def test_without_onnx_the_message_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)  # as if it were not installed
    with pytest.raises(InputError, match=r"pip install 'keeprate\[onnx\]'"):
        export_onnx(tmp_path, tmp_path / "model.onnx")
