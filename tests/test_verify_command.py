"""`keeprate verify`: what it computes of a run, writes, prints and puts on the page."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from torch import nn

import keeprate
from keeprate.cli import commands
from keeprate.data import Normaliser
from keeprate.engine import MODELS, embed
from keeprate.errors import InputError
from keeprate.records import load_verifications, save_record, save_verification
from keeprate.records.verifications import LARGEST, MOST_FILES, VerificationRecord
from keeprate.report import write_report
from keeprate.runs import Classifier, load, save_classifier, verify_run
from keeprate.runs.verification import judge_pairs
from keeprate.verification import (
    Pairs,
    disjoint_folds,
    distances,
    load_pairs,
    met_again,
    standard_folds,
    verify,
)
from tests.report_records import make_finished_record
from tests.searches import draw_no_page
from tests.test_foreign_records import HOSTILE, assert_harmless, hostile, page_of

N_CLASSES = 10


def keeprate_command(*arguments: object, capsys: Any) -> tuple[int, Any]:
    """Run the command in this process; its exit code, and what it printed."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as stopped:
        patch.setattr(sys, "argv", ["keeprate", *map(str, arguments)])
        commands.main()
    return int(stopped.value.code or 0), capsys.readouterr()


def write_digits(folder: Path, start: int, stop: int) -> list[tuple[str, int]]:
    """Write digits as pictures, in a folder for each class; their names and classes."""
    digits = load_digits()
    written = []
    for row in range(start, stop):
        label = int(digits.target[row])
        path = folder / str(label) / f"{label}_{row:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((digits.images[row] * 15.9).astype(np.uint8)).save(path)
        written.append((f"{label}/{path.name}", label))
    return written


def write_pairs(path: Path, pictures: list[tuple[str, int]], n: int, *, seed: int = 0) -> None:
    """Half of the pairs are of one class, in any order."""
    generator = np.random.default_rng(seed)
    of_class = [[name for name, label in pictures if label == one] for one in range(N_CLASSES)]
    lines = ["path_a,path_b,same"]
    for place in range(n):
        one, other = generator.choice(N_CLASSES, 2, replace=False)
        first, second = generator.choice(of_class[one], 2, replace=False)
        if place % 2:
            second = generator.choice(of_class[other])
        lines.append(f"{first},{second},{1 - place % 2}")
    path.write_text("\n".join(lines))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of pictures of digits, and pairs of other pictures of digits."""
    folder = tmp_path_factory.mktemp("digits")
    write_digits(folder / "train", 0, 600)
    write_pairs(folder / "pairs.csv", write_digits(folder / "test", 600, 900), 400)
    data = keeprate.prepare(folder / "train", seed=0)
    config = keeprate.TrainingConfig(epochs=8, batch_size=32, learning_rate=3e-3)
    with pytest.MonkeyPatch.context() as patch:
        draw_no_page(patch)
        keeprate.train(
            data, method="co-teaching", model="mlp", config=config, noise_rate=0.1, restarts=1,
            baselines=False, out=folder / "run",
        )  # fmt: skip
    return folder


def test_the_command_judges_writes_and_prints(trained: Path, tmp_path: Path, capsys: Any) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained / "run", run)
    (run / "report.html").write_text("of before")
    arguments = ["verify", run, trained / "pairs.csv", "--images", trained / "test"]
    code, output = keeprate_command(*arguments, capsys=capsys)
    assert code == 0, output.err
    pairs = load_pairs(trained / "pairs.csv", images=trained / "test")
    classifier = load(run)
    assert len(classifier.modules) == 2
    embeddings = embed(classifier.modules, pairs.images, classifier.normaliser)
    expected = verify(distances(embeddings, pairs), pairs.same, standard_folds(400))
    (record,) = load_verifications(run)
    assert record.standard == expected
    assert record.fingerprint == pairs.fingerprint()
    assert expected.accuracy > 0.8  # a training of seconds
    printed = " ".join(output.out.split())
    for words in (
        "400 pairs of", "200 of one person and 200 of two",
        f"accuracy over 10 folds {100 * expected.accuracy:.2f} ± {100 * expected.std:.2f} %",
        "without shared people people are not known", "at FAR 0.1 %", "too few pairs to tell",
        f"written to {run}/verification-pairs.json",
    ):  # fmt: skip
        assert words in printed, words
    assert (run / "verification-pairs.png").read_bytes().startswith(b"\x89PNG")
    page = (run / "report.html").read_text()
    assert page.count("<h2>Verification</h2>") == 1
    assert f"{100 * expected.accuracy:.2f} ± {100 * expected.std:.2f} %" in page


def test_another_list_of_the_same_name_does_not_replace_what_was_found(
    trained: Path, tmp_path: Path, capsys: Any
) -> None:
    run, other = tmp_path / "run", tmp_path / "pairs.csv"
    shutil.copytree(trained / "run", run)
    lines = (trained / "pairs.csv").read_text().splitlines()
    other.write_text("\n".join([lines[0], *reversed(lines[1:])]))
    words = ["--images", trained / "test"]
    for _ in range(2):  # the same list again is no other list
        code, _ = keeprate_command("verify", run, trained / "pairs.csv", *words, capsys=capsys)
        assert code == 0
    before = (run / "verification-pairs.json").read_bytes()
    code, output = keeprate_command("verify", run, other, *words, capsys=capsys)
    assert code == 2
    assert "holds what was found of other pairs" in output.err and "--out" in output.err
    assert (run / "verification-pairs.json").read_bytes() == before


def test_out_names_another_file_and_leaves_the_run_alone(
    trained: Path, tmp_path: Path, capsys: Any
) -> None:
    before = sorted(os.listdir(trained / "run"))
    arguments = ["verify", trained / "run", trained / "pairs.csv", "--images", trained / "test"]
    code, _ = keeprate_command(*arguments, "--out", tmp_path / "found.json", capsys=capsys)
    assert code == 0
    assert sorted(os.listdir(tmp_path)) == ["found.json", "found.png"]
    assert sorted(os.listdir(trained / "run")) == before
    assert json.loads((tmp_path / "found.json").read_text())["name"] == "pairs"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({1: "nothing"}, "RUN must be the folder of a run"),
        ({2: "nothing.txt"}, "PAIRS must be a file or a folder that exists"),
        ({4: "nothing"}, "images must be a file or a folder that exists"),
        ({4: "run"}, "missing, which 400 of 400 pairs need"),
        ({6: "found.txt"}, "out must end in .json"),
    ],
)
def test_bad_input_is_a_line_and_exit_code_2(
    trained: Path, change: dict[int, str], words: str, tmp_path: Path, capsys: Any
) -> None:
    arguments: list[object] = ["verify", trained / "run", trained / "pairs.csv"]
    arguments += ["--images", trained / "test", "--out", tmp_path / "found.json"]
    for place, name in change.items():
        arguments[place] = trained / name
    code, output = keeprate_command(*arguments, capsys=capsys)
    assert (code, output.err.count("\n"), output.out) == (2, 1, "")
    assert words in output.err
    assert not os.listdir(tmp_path)


def test_a_hostile_bin_file_is_a_line_and_exit_code_2(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lfw.bin").write_bytes(b"cos\nsystem\n(S'touch executed'\ntR.")
    code, output = keeprate_command("verify", trained / "run", "lfw.bin", capsys=capsys)
    assert code == 2
    assert "GLOBAL 'os system' at byte 0" in output.err
    assert os.listdir(tmp_path) == ["lfw.bin"]


# Runs of other kinds


def saved(
    folder: Path,
    normaliser: Normaliser,
    shape: tuple[int, ...] = (1, 4, 4),
    build: Callable[[tuple[int, ...], int], nn.Module] = MODELS["mlp"],
) -> Path:
    torch.manual_seed(0)
    folder.mkdir(exist_ok=True)
    classifier = Classifier([build(shape, 3).eval()], normaliser, ("a", "b", "c"), shape)
    save_classifier(folder, classifier, model="mlp")
    return folder


def random_pairs(n_people: int = 8, n_pairs: int = 200, *, linked: int = 0) -> Pairs:
    """Pairs of people in circles of two, of which `linked` pairs link circles."""
    generator = np.random.default_rng(0)
    images = torch.from_numpy(generator.integers(0, 256, (3 * n_people, 1, 4, 4), dtype=np.uint8))
    people = [f"person {row // 3}" for row in range(3 * n_people)]
    first = generator.integers(0, 3 * n_people, n_pairs)
    second = (first // 6) * 6 + generator.integers(0, 6, n_pairs)
    second[:linked] = generator.integers(0, 3 * n_people, linked)
    same = torch.from_numpy(first // 3 == second // 3)
    return Pairs(images, torch.from_numpy(first), torch.from_numpy(second), same, None,
                 tuple(people), "circles")  # fmt: skip


def test_networks_of_pixels_up_to_1_see_them_so(tmp_path: Path) -> None:
    pairs = random_pairs()
    normaliser = Normaliser("standardise", (0.4,), (0.2,), 2)
    run = saved(tmp_path / "run", normaliser)
    found = verify_run(run, pairs, out=tmp_path / "found.json").standard
    units = embed(load(run).modules, pairs.images / 255, normaliser)
    expected = verify(distances(units, pairs), pairs.same, standard_folds(200))
    assert found.fold_accuracy == expected.fold_accuracy
    assert found.thresholds == pytest.approx(expected.thresholds, abs=1e-5)


def test_other_runs_and_other_pictures_are_refused(tmp_path: Path) -> None:
    pairs = random_pairs()
    normaliser = Normaliser("standardise", (130.0,), (60.0,), 2)
    with pytest.raises(InputError, match="pixels in 0 to 255"):
        verify_run(saved(tmp_path / "a", normaliser), pairs)
    with pytest.raises(InputError, match="images \\[C, H, W\\]"):
        verify_run(saved(tmp_path / "b", Normaliser(), shape=(16,)), pairs)
    with pytest.raises(InputError, match=r"be \(1, 4, 5\) each"):
        verify_run(saved(tmp_path / "c", Normaliser(), shape=(1, 4, 5)), pairs)
    with pytest.raises(InputError, match="must exist"):
        verify_run(tmp_path, pairs)


def test_pictures_of_a_bin_file_become_what_the_run_takes(tmp_path: Path) -> None:
    images = []
    for row in range(80):
        picture = np.random.default_rng(row // 2).integers(0, 256, (9, 9, 3), dtype=np.uint8)
        Image.fromarray(picture).save(tmp_path / "one.png")
        images.append((tmp_path / "one.png").read_bytes())
    images[3::4] = images[5::4] + images[1:2]  # every second pair is of two pictures
    (tmp_path / "few.bin").write_bytes(pickle.dumps((images, [True, False] * 20), 2))
    run = saved(tmp_path / "run", Normaliser(), shape=(3, 6, 5))
    record = verify_run(run, tmp_path / "few.bin")
    assert record.standard.accuracy == 1.0  # equal pictures have the distance 0
    assert (record.name, record.n_images, record.n_people) == ("few", 40, None)
    assert (run / "verification-few.json").exists()
    assert not (run / "report.html").exists()  # there was none to draw again


# People


def test_folds_that_share_people_stand_beside_others(tmp_path: Path) -> None:
    # Ten folds need ten circles.
    pairs = random_pairs(40, 400)
    distance = np.random.default_rng(0).normal(np.where(pairs.same, 0.9, 1.1), 0.2)
    record = judge_pairs(pairs, distance)
    first, second = ([pairs.people[row] for row in side] for side in (pairs.first, pairs.second))
    folds = disjoint_folds(first, second, pairs.same)
    assert folds is not None
    assert record.disjoint == verify(distance, pairs.same, folds) != record.standard
    assert (record.disjoint_by, record.n_people, record.shared_people) == ("folds", 40, 40)

    apart = replace(pairs, folds=folds)
    record = judge_pairs(apart, distance)
    assert (record.disjoint, record.shared_people) == (None, 0)
    assert record.standard == verify(distance, pairs.same, folds)

    record = judge_pairs(replace(pairs, people=()), distance)
    assert (record.disjoint, record.shared_people, record.n_people) == (None, None, None)


def test_where_pairs_link_too_many_people_thresholds_are_chosen_without_them() -> None:
    pairs = random_pairs(100, 300, linked=150)
    distance = np.random.default_rng(0).normal(np.where(pairs.same, 0.9, 1.1), 0.2)
    record = judge_pairs(pairs, distance)
    first, second = ([pairs.people[row] for row in side] for side in (pairs.first, pairs.second))
    assert disjoint_folds(first, second, pairs.same) is None
    folds = standard_folds(300)
    expected = verify(distance, pairs.same, folds, left_out=met_again(folds, first, second))
    assert (record.disjoint, record.disjoint_by) == (expected, "thresholds")

    few = random_pairs(4, 300, linked=150)  # everybody is in every fold
    record = judge_pairs(few, distance)
    assert (record.disjoint, record.disjoint_by, record.shared_people) == (None, "", 4)


# Records of other hands


def example(tmp_path: Path) -> VerificationRecord:
    pairs = replace(random_pairs(40, 400), notes=("a note",))
    distance = np.random.default_rng(0).normal(np.where(pairs.same, 0.9, 1.1), 0.2)
    return judge_pairs(pairs, distance)


def write_run(folder: Path) -> Path:
    folder.mkdir()
    save_record(folder, make_finished_record(("cat", "dog", "owl")))
    return folder


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    record = example(tmp_path)
    save_verification(tmp_path / "verification-a.json", record)
    (read,) = load_verifications(tmp_path)
    fields = {name: getattr(read, name) for name in vars(record)}
    assert VerificationRecord(**fields) == record
    json.loads((tmp_path / "verification-a.json").read_text(), parse_constant=pytest.fail)


def test_every_list_of_a_run_is_on_its_page(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    assert "Verification" not in page_of(run)
    record = example(tmp_path)
    save_verification(run / "verification-a.json", replace(record, name="first list"))
    save_verification(run / "verification-b.json", replace(record, name="second list"))
    page = page_of(run, run)
    assert page.count("<h2>Verification</h2>") == 2
    assert page.count('aria-label="ROC curves"') == 4  # for wide screens and for phones
    ids = re.findall(r'\bid="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    for words in (
        "first list (400)", "second list (400)", "TAR at FAR 0.1 %", "40 of 40 people",
        "other folds, in which nobody is met again", "first list: a note",
    ):  # fmt: skip
        assert words in page, words


def test_texts_of_a_record_become_no_markup(tmp_path: Path) -> None:
    usual, bad = write_run(tmp_path / "usual"), write_run(tmp_path / "bad")
    record = example(tmp_path)
    save_verification(usual / "verification-a.json", record)
    file = json.loads((usual / "verification-a.json").read_text())
    changed = hostile(file) | {"disjoint_by": "folds"}
    (bad / "verification-a.json").write_text(json.dumps(changed))
    assert HOSTILE in load_verifications(bad)[0].name
    assert_harmless(page_of(bad), page_of(usual))


STRANGE = (HOSTILE, True, [], {}, [HOSTILE], -1, 10**30, -1e308, 1.5e308)


def test_values_that_verify_does_not_write_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "verification-a.json"
    save_verification(path, example(tmp_path))
    file = json.loads(path.read_text())
    places = [(name,) for name in file] + [("standard", name) for name in file["standard"]]
    places += [("standard", "roc_far", 3), ("standard", "true_accepts", 0, "true_accept_rate")]
    texts = {("name",), ("fingerprint",)}
    n_refused = 0
    for place in places:
        for strange in STRANGE:
            changed = json.loads(json.dumps(file))
            inner = changed
            for step in place[:-1]:
                inner = inner[step]
            inner[place[-1]] = strange
            path.write_text(json.dumps(changed))
            try:
                load_verifications(tmp_path)
            except InputError as error:
                n_refused += 1
                assert "keeprate verify" in str(error)
            else:
                is_text = place in texts and strange == HOSTILE
                is_list = isinstance(strange, list) and place[-1] in ("notes", "true_accepts")
                assert is_text or is_list, (place, strange)
    assert n_refused > 150


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema_version": 2}, "schema_version is 2"),
        ({"roc_far": [0.0, 1.0]}, "one length"),
        ({"n_same": 0}, "n_same must lie between"),
        ({"roc_far": [0.0] * 10_001}, "length <= 10000"),
        ({"accuracy": 1.5}, "<= 1"),
    ],
)
def test_odd_files_are_refused(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    path = tmp_path / "verification-a.json"
    save_verification(path, example(tmp_path))
    file = json.loads(path.read_text())
    (file if "schema_version" in change else file["standard"]).update(change)
    path.write_text(json.dumps(file))
    with pytest.raises(InputError, match=words):
        load_verifications(tmp_path)


def test_files_that_never_end_are_not_read(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    os.mkfifo(run / "verification-a.json")
    with pytest.raises(InputError, match="must be a file"):
        write_report([run], tmp_path / "page.html")
    (run / "verification-a.json").unlink()
    (run / "verification-a.json").write_text("[" * 1_000_000)
    with pytest.raises(InputError, match="verification-a"):
        load_verifications(run)
    with (run / "verification-a.json").open("wb") as file:
        file.truncate(LARGEST + 1)
    with pytest.raises(InputError, match="hold at most"):
        load_verifications(run)
    for number in range(MOST_FILES + 1):
        (run / f"verification-{number}.json").touch()
    with pytest.raises(InputError, match="at most 50 files"):
        load_verifications(run)


def test_very_long_curves_are_thinned_out_where_nobody_looks(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    same = generator.random(60_000) < 0.5
    distance = generator.normal(np.where(same, 0.9, 1.1), 0.2)
    found = verify(distance, same, standard_folds(60_000))
    assert len(found.roc_far) == len(found.roc_tar) == 10_000
    assert (found.roc_far[-1], found.roc_tar[-1]) == (1.0, 1.0)
    assert np.diff(found.roc_far).min() >= 0
    area = np.trapezoid(found.roc_tar, found.roc_far)
    assert area == pytest.approx(found.auc, abs=1e-3)


# Real data


@pytest.mark.realdata
def test_lfw_by_its_pixels() -> None:
    """Whitened principal components of pixels are right in 71.8 % with the best threshold."""
    folder = Path(os.environ.get("KEEPRATE_DATA", "")) / "lfw"
    if not (folder / "test_pairs.csv").is_file():
        pytest.skip("KEEPRATE_DATA does not name a folder with lfw")
    pairs = load_pairs(folder / "test_pairs.csv")
    assert (len(pairs), int(pairs.same.sum())) == (5274, 2404)
    assert pairs.images.shape == (6592, 3, 112, 112)
    faces = pairs.images[:, :, 16:96, 16:96].float()  # without most of the background
    pixels = nn.functional.interpolate(faces, size=(32, 32), mode="area").flatten(1).numpy()
    pca = PCA(128, whiten=True, svd_solver="randomized", random_state=0).fit(pixels)
    record = judge_pairs(pairs, distances(pca.transform(pixels), pairs))
    assert (record.shared_people, record.disjoint) == (0, None)  # as the list promises
    assert record.standard.accuracy == pytest.approx(0.718, abs=0.015)
    assert record.standard.std < 0.03
