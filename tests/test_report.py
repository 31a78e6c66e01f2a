"""The pictures and the page, from run records made here."""

from __future__ import annotations

import base64
import csv
import html
import io
import json
import re
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from keeprate.data.samples import Split
from keeprate.engine.methods import METHODS
from keeprate.errors import InputError
from keeprate.records.label_quality import LabelQuality
from keeprate.records.record import save_record
from keeprate.records.suspects import describe_suspects
from keeprate.report import figures
from keeprate.report import page as report_page
from keeprate.report.page import write_plots, write_report

EPOCHS = 40
FILES = ["keep_rate.png", "curves.png", "label_precision.png", "report.html"]
MALICIOUS = '<script>alert("x")</script> $\\frac{ & $name'


def result(name: str, label: str, keep_rate: Any, forgets: float, seed: int) -> dict[str, Any]:
    """Curves that rise, then fall by `forgets` as wrong labels are memorised."""
    t = np.arange(EPOCHS) / EPOCHS
    noise = np.random.default_rng(seed).normal(0, 0.005, (2, EPOCHS))
    test = 0.97 - 0.5 * np.exp(-12 * t) - forgets * t**1.5 + noise[0]
    best = int(test.argmax())
    precision = 0.99 - 0.4 * np.exp(-10 * t) - 0.8 * forgets * t
    at_end = {"test_accuracy": test[-1], "validation_accuracy": test[-1] - 0.01}
    at_best = {"test_accuracy": test[best], "validation_accuracy": test[best] - 0.01}
    return {
        "name": name,
        "label": label,
        "keep_rate": list(keep_rate),
        "curves": {
            "train_loss": (0.2 + 1.5 * np.exp(-3 * t)).tolist(),
            "validation_accuracy": (test - 0.01 + noise[1]).tolist(),
            "test_accuracy": test.tolist(),
            "label_precision": precision.tolist(),
        },
        "last": {**at_end, "label_precision": precision[-1]},
        "best": {**at_best, "epoch": best + 1, "label_precision": precision[best]},
        "seconds": 3.2,
    }


def make_record() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    t = np.arange(EPOCHS)
    trials = []
    for number in range(40):
        a, b, rise = rng.random(3)
        table = np.clip((1 + b * t) ** -a + 0.4 * rise * t / EPOCHS, 0, 1)
        value = float(0.95 - 0.5 * abs(table.mean() - 0.55) + rng.normal(0, 0.01))
        state = {3: "failed", 4: "short"}.get(number, "complete")
        state = "pruned" if number % 7 == 5 else state
        trials.append(
            {
                "number": number,
                "parameters": {"a": a, "b": b},
                "keep_rate": table.tolist(),
                "state": state,
                "value": value if state == "complete" else None,
                "reached": None if state == "failed" else value,
                "validation_score": [value] * (EPOCHS // (1 + (state == "pruned"))),
            }
        )
    searched = np.clip((1 + 0.3 * t) ** -0.35 + 0.1 * t / EPOCHS, 0, 1)
    own = 1 - 0.45 * np.minimum(t / 2, 1)
    return {
        "schema_version": 1,
        "kind": "search",
        "command": "keeprate search digits --noise pairflip:0.45 --trials 40 --epochs 40",
        "config": {"model": "mlp", "method": "co-teaching", "seed": 0},
        "versions": {"keeprate": "0.1.0", "torch": "2.13.0"},
        "data": {
            "name": "digits",
            "n_train": 1077,
            "n_validation": 360,
            "n_test": 360,
            "n_classes": 10,
            "noise_rate": 0.45,
            "validation_labels": "clean",
        },
        "trials": trials,
        "results": [
            result("standard", "Standard, R(t) = 1", np.ones(EPOCHS), 0.4, 1),
            result("co-teaching", "Co-teaching, own R(t)", own, 0.1, 2),
            result("searched", "Co-teaching, searched R(t)", searched, 0.01, 3),
        ],
        "cost": {
            "search_seconds": 100.0,
            "final_seconds": 9.0,
            "candidate_epochs": 1600,
            "full_trainings": 40.0,
        },
    }


def write(record: dict[str, Any], folder: Path) -> str:
    """Write the plots of a record that has been through JSON, as a real one has."""
    paths = write_plots(json.loads(json.dumps(record, allow_nan=False)), folder)
    assert [path.name for path in paths] == FILES
    assert {path.name for path in folder.iterdir()} - {"label_quality.csv"} == set(FILES)
    for path in paths[:3]:
        content = path.read_bytes()
        assert content.startswith(b"\x89PNG\r\n\x1a\n")
        assert len(content) > 5000
    page = paths[3].read_text(encoding="utf-8")
    return page


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(make_record(), tmp_path_factory.mktemp("full") / "run")


def test_a_full_record(page: str) -> None:
    assert page.count("<svg") == 3
    for shown in ("The searched schedule ends at", "97.", "--noise pairflip:0.45", "40 full"):
        assert shown in page
    assert "best epoch on the test set, an optimistic number, as the literature" in page
    assert "prefers-color-scheme: dark" in page
    assert "$" not in page


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("searched", "the two best schedules took turns, the second best won."),
        ("custom", "R(t) by the noise rate and every sample kept took turns, the latter won."),
    ],
)
def test_the_page_says_which_of_two_schedules_won(page, tmp_path, name, words) -> None:
    assert "Each line is" not in page
    record = make_record()
    won = {"name": name, "schedule": "constant", "restarts": [{}] * 3, "finalist": 1}
    record["results"][0] |= won
    page = write(record, tmp_path / "two")
    assert "Each line is the best of 3 trainings by validation; in the" in page
    assert words in page
    del record["results"][0]["finalist"]
    assert "of 3 trainings by validation. Best epoch" in write(record, tmp_path / "one")


def test_trials_that_confirm_are_told_from_new_schedules(page: str, tmp_path: Path) -> None:
    assert "the best ones again" not in page
    record = make_record()
    for trial in record["trials"][-10:]:
        trial["confirms"] = 4
    assert "of which 10 trained the best ones again" in write(record, tmp_path / "run")


def test_the_page_loads_nothing_and_repeats_no_id(page: str) -> None:
    assert not re.search(r"https?:|@import|<link|<script", page)
    assert all(src.startswith("data:image/png") for src in re.findall(r'src="([^"]*)', page))
    assert set(re.findall(r"href=\"(.)", page)) <= {"#"}
    assert set(re.findall(r"url\((.)", page)) <= {"#"}
    ids = re.findall(r'\bid="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="#|url\(#)([^")]*)', page)) <= set(ids)


def test_the_drawings_are_well_formed_and_follow_the_colour_scheme(page: str) -> None:
    for svg in re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL):
        ET.fromstring(svg.replace("<svg", '<svg xmlns:xlink="x"', 1))
        assert "var(--ink)" in svg
        assert "#1f2431" not in svg


def test_the_same_record_gives_the_same_page(page: str, tmp_path: Path) -> None:
    assert write(make_record(), tmp_path) == page


def test_what_comes_from_data_is_escaped(tmp_path: Path) -> None:
    record = make_record()
    record["data"]["name"] = MALICIOUS
    record["data"]["validation_labels"] = MALICIOUS
    record["command"] = f"keeprate search '{MALICIOUS}'"
    record["config"]["model"] = MALICIOUS
    record["versions"][MALICIOUS] = MALICIOUS
    record["results"][0]["label"] = MALICIOUS
    record["results"][1]["name"] = record["results"][1]["label"] = "雑音"
    record["trials"][0]["state"] = MALICIOUS
    page = write(record, tmp_path)
    assert "&lt;script&gt;" in page
    assert "<script" not in page


def with_suspects(record: dict[str, Any], folder: Path, names: tuple[str, ...]) -> LabelQuality:
    """What a finished run adds: suspect samples, the estimated noise, the list of labels."""
    rng = np.random.default_rng(0)
    given, predicted = rng.integers(0, len(names), (2, 90))
    rows, scores = rng.permutation(1000)[:90], rng.random(90)
    quality = LabelQuality(rows, given, predicted, scores)
    inputs = torch.from_numpy(rng.integers(0, 256, (90, 1, 8, 8), dtype=np.uint8))
    record["suspects"] = describe_suspects([Split(inputs, torch.from_numpy(given))], quality, names)
    record["label_issues"] = int(quality.is_issue.sum())
    record["data"]["class_names"] = list(names)
    matrix = np.full((len(names), len(names)), 0.4 / (len(names) - 1))
    np.fill_diagonal(matrix, 0.6)
    noise = {"noise_rate": 0.4, "noise_rate_std": 0.01, "transition_matrix": matrix.tolist()}
    record["noise_estimate"] = noise
    folder.mkdir()
    quality.save(folder / "label_quality.csv", names)
    return quality


def test_suspects_are_shown_and_listed(tmp_path: Path) -> None:
    record = make_record()
    quality = with_suspects(record, tmp_path / "run", ("cat", MALICIOUS, "dog"))
    page = write(record, tmp_path / "run")
    assert "<script" not in page and page.count("<svg") == 4
    assert page.count('<div class="card ') == len(record["suspects"]) == quality.is_issue.sum()
    assert f"disagree with {quality.is_issue.sum()} of the 1,077 labels" in page
    assert "About 40.0 % of the labels are wrong (standard error 1.0 %)" in page
    assert "In truth 45.0 %" in page
    packed = re.findall(r"data:text/csv;base64,([^\"]*)", page)
    rows = list(csv.DictReader(io.StringIO(base64.b64decode(packed[0]).decode())))
    assert [int(row["index"]) for row in rows] == [
        int(quality.rows[i]) for i in quality.ranking if quality.is_issue[i]
    ]


def test_names_with_line_breaks_and_older_lists(tmp_path: Path) -> None:
    record = make_record()
    quality = with_suspects(record, tmp_path / "run", ("a\nb", "c\u2028,d", '"e"'))
    page = write(record, tmp_path / "run")
    packed = re.findall(r"data:text/csv;base64,([^\"]*)", page)[0]
    content = io.StringIO(base64.b64decode(packed).decode(), newline="")
    rows = list(csv.DictReader(content))
    assert len(rows) == quality.is_issue.sum()
    assert {row["given_label"] for row in rows} == {"a\nb", "c\u2028,d", '"e"'}
    (tmp_path / "run" / "label_quality.csv").write_text("index,score\n1,0.5\n")
    assert "Download" not in write(record, tmp_path / "run")


def test_pictures_and_rows_of_suspects() -> None:
    quality = LabelQuality(
        np.array([7, 5, 6]), np.zeros(3, int), np.ones(3, int), np.array([3, 1, 2.0])
    )
    pixels = torch.arange(3 * 3 * 4 * 4, dtype=torch.uint8).view(3, 3, 4, 4)
    names = ("a", "b")
    labels, numbers = torch.zeros(3, dtype=torch.long), torch.arange(5, 8)
    found = describe_suspects([Split(pixels, labels, rows=numbers)], quality, names)
    assert [one["index"] for one in found] == [5, 6, 7]
    with Image.open(io.BytesIO(base64.b64decode(found[0]["image"]))) as image:
        assert np.array_equal(np.asarray(image), pixels[0].permute(1, 2, 0).numpy())
    rows = Split(torch.tensor([[0.5, 2.0]] * 3), labels, rows=numbers)
    found = describe_suspects([rows], quality, names, ("width", "height"))
    assert found[0]["values"] == {"width": 0.5, "height": 2.0}
    right = LabelQuality(np.arange(3), np.zeros(3, int), np.zeros(3, int), np.ones(3))
    assert describe_suspects([rows], right, names) == []


def test_names_and_texts_are_shown_and_listed(tmp_path: Path) -> None:
    record, named = make_record(), (MALICIOUS, "two\nlines")
    quality = LabelQuality(
        np.arange(2), np.zeros(2, int), np.ones(2, int), np.array([0.1, 0.2]), named
    )
    rows = Split(torch.zeros(2, 3), torch.zeros(2, dtype=torch.long))
    record["suspects"] = describe_suspects([rows], quality, ("a", "b"))
    (tmp_path / "run").mkdir()
    quality.save(tmp_path / "run" / "label_quality.csv", ("a", "b"))
    assert LabelQuality.load(tmp_path / "run" / "label_quality.csv", ("a", "b")).names == named
    page = write(record, tmp_path / "run")
    assert f"<p>{html.escape(MALICIOUS)}</p>" in page and MALICIOUS not in page
    assert "<p>two\nlines</p>" in page
    packed = re.findall(r"data:text/csv;base64,([^\"]*)", page)[0]
    listed = list(csv.DictReader(io.StringIO(base64.b64decode(packed).decode())))
    assert [row["name"] for row in listed] == list(named)
    assert "values" not in record["suspects"][0]  # of a text nobody wants to see the numbers
    record["suspects"] = describe_suspects([rows], quality, ("a", "b"), ("u", "v", "w"))
    assert "<small>u 0.0, v 0.0, w 0.0</small>" in write(record, tmp_path / "run")
    pixels = torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
    splits = [
        Split(part, torch.zeros(1, dtype=torch.long), rows=torch.tensor([i]))
        for i, part in enumerate(pixels.split(1))
    ]
    record["suspects"] = describe_suspects(splits, quality, ("a", "b"))
    page = write(record, tmp_path / "run")
    assert page.count("<img ") == 2 and f"<small>{html.escape(MALICIOUS)}</small>" in page


def test_photographs_are_small_in_a_record() -> None:
    quality = LabelQuality(np.arange(1), np.zeros(1, int), np.ones(1, int), np.ones(1))
    noise = torch.randint(0, 256, (1, 3, 300, 200), generator=torch.Generator().manual_seed(0))
    photo = Split(noise.to(torch.uint8), torch.zeros(1, dtype=torch.long))
    (found,) = describe_suspects([photo], quality, ("a", "b"))
    with Image.open(io.BytesIO(base64.b64decode(found["image"]))) as image:
        assert (image.format, image.size) == ("JPEG", (64, 96))
    record = make_record() | {"suspects": [found]}
    assert "data:image/jpeg;base64,/9j/" in report_page._gallery(record, "run")


def test_noisy_test_labels_are_said_to_be_noisy(tmp_path: Path) -> None:
    record = make_record()
    record["noise_estimate"] = {"noise_rate": 0.3, "noise_rate_std": 0.01}
    assert "right predictions would reach" not in write(record, tmp_path / "a")
    record["data"]["test_labels"] = "noisy"
    record["data"]["n_test"] = 0
    assert "right predictions would reach" not in write(record, tmp_path / "a")
    record["data"]["n_test"] = 360
    assert "right predictions would reach about 70.0 % against them" in write(
        record, tmp_path / "b"
    )


def test_a_training_without_a_search_has_its_finding(tmp_path: Path) -> None:
    record = make_record() | {"kind": "train", "trials": []}
    record["results"] = [record["results"][1] | {"name": "custom"}, record["results"][0]]
    page = write(record, tmp_path)
    assert "Co-teaching, own R(t) ends at" in page and "; Standard, R(t) = 1 at" in page
    for one in record["results"]:
        one["last"] = {"validation_accuracy": 0.5}
        one["curves"] = one["curves"] | {"test_accuracy": None}
    page = write(record, tmp_path)
    assert (
        "ends at 50.0 % accuracy on the validation samples; Standard, R(t) = 1 at 50.0 %." in page
    )


@pytest.mark.parametrize("own", ["searched", "custom", "mine"])
def test_as_many_results_as_methods_have_colours_of_their_own(own: str) -> None:
    results = [{"name": name} for name in (own, *METHODS)]
    assert len(set(figures._colours(results))) == len(results)


def test_of_many_results_the_best_are_named(tmp_path: Path) -> None:
    record = make_record()
    for name, accuracy in (("jocor", 0.97), ("mentornet", 0.96)):
        more = json.loads(json.dumps(record["results"][-1])) | {"name": name, "label": name}
        more["last"]["test_accuracy"] = accuracy
        record["results"].append(more)
    words = f"; of the {len(record['results']) - 1} others the best are jocor at 97.0 % and "
    assert words + "mentornet at 96.0 %." in write(record, tmp_path)


def test_several_runs_side_by_side(tmp_path: Path) -> None:
    for name in ("one", "two"):
        record = make_record()
        with_suspects(record, tmp_path / name, ("a", "b"))
        save_record(tmp_path / name, json.loads(json.dumps(record | {"finished": True})))
    write_report([tmp_path / "one", tmp_path / "two"], tmp_path / "both.html")
    page = (tmp_path / "both.html").read_text()
    assert "2 runs side by side" in page and page.count("<svg") == 9
    ids = re.findall(r'\bid="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    write_report([tmp_path / "one"], tmp_path / "one.html")
    assert (tmp_path / "one.html").read_text().count("<svg") == 4
    with pytest.raises(InputError):
        write_report([tmp_path / "three"], tmp_path / "x.html")


@pytest.mark.browser
def test_a_browser_filters_and_downloads(tmp_path: Path) -> None:
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("needs chromium")
    record = make_record()
    quality = with_suspects(record, tmp_path / "run", ("cat", "dog", "owl"))
    write(record, tmp_path / "run")
    said: list[str] = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1000, "height": 800})
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto((tmp_path / "run" / "report.html").as_uri())
        cards = page.locator(".card:visible")
        assert cards.count() == quality.is_issue.sum()
        page.locator(".chips label", has_text="dog").click()
        assert cards.count() == (quality.is_issue & (quality.given == 1)).sum()
        assert all(text.startswith("dog") for text in cards.all_inner_texts())
        page.locator(".chips label", has_text="all classes").click()
        assert cards.count() == quality.is_issue.sum()
        with page.expect_download() as started:
            page.locator("text=Download the fix list").click()
        assert started.value.suggested_filename == "label_issues.csv"
        rows = Path(started.value.path()).read_text().splitlines()
        assert len(rows) == 1 + quality.is_issue.sum()
        # Nothing is wider than the screen of a phone, but for what scrolls by itself.
        page.set_viewport_size({"width": 390, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        browser.close()
    assert said == []


def without_test_split(record: dict[str, Any]) -> None:
    for each in record["results"]:
        each["curves"]["test_accuracy"] = each["best"] = None
        each["last"]["test_accuracy"] = None


def without_true_labels(record: dict[str, Any]) -> None:
    record["data"]["noise_rate"] = None
    for each in record["results"]:
        each["curves"]["label_precision"] = each["last"]["label_precision"] = None


def unfinished(record: dict[str, Any]) -> None:
    record.update(results=[], cost={})


def not_begun(record: dict[str, Any]) -> None:
    record.update(results=[], trials=[])


def plain_training(record: dict[str, Any]) -> None:
    record.update(kind="train", trials=[], results=record["results"][:1])
    record["results"][0]["name"] = "custom"


def one_epoch(record: dict[str, Any]) -> None:
    for each in record["trials"] + record["results"]:
        each["keep_rate"] = [1.0]
        each.update({"best": {"epoch": 1, "test_accuracy": 0.5}} if "best" in each else {})
    for each in record["results"]:
        each["curves"] = {name: values[:1] for name, values in each["curves"].items()}


def one_trial(record: dict[str, Any]) -> None:
    record.update(trials=record["trials"][:1])


def nothing_scored(record: dict[str, Any]) -> None:
    for trial in record["trials"]:
        trial.update(value=None, state="failed")
    record["results"] = []


def gaps(record: dict[str, Any]) -> None:
    for each in record["results"]:
        for values in each["curves"].values():
            values[5:] = [None] * (EPOCHS - 5)


def many_results(record: dict[str, Any]) -> None:
    record["results"] = record["results"] * 4


def only_the_kind(record: dict[str, Any]) -> None:
    record.clear()
    record["kind"] = "search"


@pytest.mark.parametrize(
    "change",
    [
        without_test_split,
        without_true_labels,
        unfinished,
        not_begun,
        plain_training,
        one_epoch,
        one_trial,
        nothing_scored,
        gaps,
        many_results,
        only_the_kind,
    ],
)
def test_records_that_know_less(change: Any, tmp_path: Path) -> None:
    record = make_record()
    change(record)
    page = write(record, tmp_path)
    assert "nan" not in re.sub(r"<svg.*?</svg>", "", page, flags=re.DOTALL).lower()
    known = any(r["curves"].get("label_precision") for r in record.get("results", []))
    assert ("<h2>Label precision</h2>" in page) == known  # no empty frames


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "keep_rate.png").mkdir()
    with pytest.raises(InputError, match="could not be written"):
        write_plots(make_record(), tmp_path)
