"""The real data sets, where the environment variable KEEPRATE_DATA names their folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from keeprate.data import prepare
from keeprate.noise import Noise

pytestmark = pytest.mark.realdata


@pytest.fixture(scope="module")
def folder() -> Path:
    named = os.environ.get("KEEPRATE_DATA")
    if not named:
        pytest.skip("KEEPRATE_DATA is not set: it names the folder with mnist and cifar-10")
    if not (Path(named) / "mnist").is_dir():
        pytest.skip(f"KEEPRATE_DATA={named} has no folder mnist")
    return Path(named)


def test_mnist(folder: Path) -> None:
    data = prepare(folder / "mnist", noise=Noise("pairflip", 0.45))
    assert data.test is not None
    assert (len(data.train), len(data.validation), len(data.test)) == (60_000, 5_000, 5_000)
    assert data.input_shape == (1, 28, 28)
    assert data.train.inputs.dtype == torch.uint8
    # The published mean of the training pixels, 0.1307, which a wrong decoding would miss.
    assert data.train.inputs.double().mean() / 255 == pytest.approx(0.1307, abs=5e-5)
    assert data.train.true_labels is not None
    assert data.train.true_labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert data.noise_rate == pytest.approx(0.45, abs=0.01)


def test_cifar_10n(folder: Path) -> None:
    if not (folder / "cifar-10").is_dir():
        pytest.skip(f"KEEPRATE_DATA={folder} has no folder cifar-10")
    data = prepare(folder / "cifar-10", label="worse_label", true_label="label")
    assert data.test is not None
    assert (len(data.train), len(data.validation), len(data.test)) == (50_000, 5_000, 5_000)
    assert data.input_shape == (3, 32, 32)
    assert data.class_names[:2] == ("airplane", "automobile")
    assert data.noise_rate == pytest.approx(0.4021, abs=5e-5)
    assert data.validation_labels == "clean"
    # The first red values of the first training image, as published: channels come first.
    assert data.train.inputs[0, 0, 0, :3].tolist() == [59, 43, 50]
    means = data.train.inputs.double().mean((0, 2, 3)) / 255
    torch.testing.assert_close(
        means, torch.tensor([0.4914, 0.4822, 0.4465]).double(), atol=1e-4, rtol=0
    )
