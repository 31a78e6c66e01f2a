"""The examples run as they stand, and show what they are for."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from tests.outputs import OUTPUTS, ROOT, SHOWN, without_folder

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
DEMO = ROOT / "examples" / "demo.py"  # `make demo` runs it


def number(text: str, pattern: str) -> float:
    """The number after the words of a pattern; `%` after it makes it a share."""
    match = re.search(rf"{pattern}\s*([0-9,.]+)(%?)", text)
    assert match, f"{pattern!r} is not in:\n{text}"
    return float(match[1].replace(",", "")) / (100 if match[2] else 1)


def accuracies(text: str) -> dict[str, float]:
    """The lines of a comparison: label -> test accuracy."""
    lines = re.findall(r"^(.+?):?\s+(?:test )accuracy ([0-9.]+)(%?)", text, re.MULTILINE)
    return {label: float(value) / (100 if unit else 1) for label, value, unit in lines}


# What the output must show ---------------------------------------------------------------------


def check_demo(text: str, folder: Path) -> None:
    table = r"^(\S.+?) +(no|yes) +([\d.]+) ± [\d.]+ +([\d.]+) ± [\d.]+$"
    rows = re.findall(table, text, re.MULTILINE)
    assert [row[:2] for row in rows] == [
        ("Co-teaching, searched R(t)", "no"),
        ("Co-teaching, own R(t)", "yes"),
        ("Standard", "no"),
    ]
    searched, own, standard = (float(row[2]) for row in rows)
    assert searched > standard + 5
    interval = r"([+-][\d.]+) points .*interval ([+-][\d.]+) to ([+-][\d.]+)"
    differences = re.findall(interval, text)
    for (mean, low, high), rival in zip(differences, (own, standard), strict=True):
        assert float(mean) == pytest.approx(searched - rival, abs=0.11)
        assert float(low) <= float(mean) <= float(high)  # two cuts may agree to a digit
    for (_, low, high), name in zip(
        differences, ("own R\\(t\\) \\(told it\\)", "Standard"), strict=True
    ):
        words = "better than" if float(low) > 0 else "worse than"
        words = words if float(low) > 0 or float(high) < 0 else "not seen to differ from"
        assert re.search(rf"{words}[^,]*,? ?{name}", text.replace("\n", " "))
    assert (folder / "runs" / "demo" / "cut-0" / "report.html").exists()


def check_quickstart(text: str, folder: Path) -> None:
    assert number(text, "test accuracy:") > 0.9
    assert number(text, "estimated noise rate:") == pytest.approx(0.3, abs=0.08)
    _, y = load_digits(return_X_y=True)
    _, _, y, _ = train_test_split(np.zeros(len(y)), y, random_state=0)
    wrong = np.random.default_rng(0).random(len(y)) < 0.3
    first = re.search(r"labels to look at first: \[([0-9 ]+)\]", text)
    assert first and wrong[[int(i) for i in first[1].split()]].sum() >= 4
    of_run = accuracies(text)
    assert of_run["Co-teaching, searched R(t)"] > of_run["Standard"] + 0.1
    keep_rate = re.search(r"R\(t\): \[([^]]+)\]", text)
    assert keep_rate and len(keep_rate[1].split()) == 20
    assert number(text, "trained again:") > of_run["Standard"] + 0.05
    assert (folder / "runs" / "quickstart" / "report.html").exists()


def check_fix_labels(text: str, folder: Path) -> None:
    assert number(text, "estimated noise rate:") == pytest.approx(0.35, abs=0.08)
    assert number(text, "labels changed,") > 0.85  # of them were wrong
    before, after = number(text, "wrong labels:"), number(text, "before,")
    assert before > 0.3 and after < before / 2
    given, fixed = number(text, "accuracy, labels as given:"), number(text, "labels fixed:")
    assert fixed > 0.85 and fixed > given - 0.02


def check_frozen_backbone(text: str, folder: Path) -> None:
    of_run = accuracies(text)
    for way in ("frozen", "fine-tuned"):
        searched = of_run[f"{way}, Co-teaching, searched R(t)"]
        assert searched > 0.9 and searched > of_run[f"{way}, Standard"]
    assert (folder / "runs" / "frozen" / "report.html").exists()


def check_image_folders(text: str, folder: Path) -> None:
    assert number(text, "test accuracy:") > 0.85
    page = Path(re.findall(r"look at: (.+)", text)[0])
    assert page == (folder / "run" / "report.html").resolve()
    listed = re.findall(r"^(train/(\d)/(\d+)\.png) looks like (\d)$", text, re.MULTILINE)
    assert len(listed) == 5
    digits = load_digits().target
    right = [int(predicted) == digits[int(i)] for _, _, i, predicted in listed]
    assert sum(right) >= 4 and all(given != predicted for _, given, _, predicted in listed)
    report = page.read_text(encoding="utf-8")
    assert all(name in report for name, _, _, _ in listed)


def check_own_method(text: str, folder: Path) -> None:
    of_run = accuracies(text)
    assert set(of_run) == {"Truncated GCE", "Co-teaching, its own R(t)", "Standard"}
    assert of_run["Truncated GCE"] > of_run["Standard"] + 0.1


def check_own_network(text: str, folder: Path) -> None:
    weights = (9 + 1) * 16 + 2 * 16 + (16 * 4 * 4 + 1) * 10  # convolution, batch norm, dense
    assert number(text, "network:") == weights
    of_run = accuracies(text)
    assert len(of_run) == 3 and min(of_run.values()) > 0.8
    assert of_run["Co-teaching, searched R(t)"] > of_run["Standard"]


def check_scikit_learn(text: str, folder: Path) -> None:
    assert number(text, "test accuracy:") > 0.85
    assert number(text, "most suspect:") > 0.7
    keep_rate = re.search(r"keep rates: \[([^]]+)\]", text)
    assert keep_rate and len(keep_rate[1].split()) == 20


def check_text(text: str, folder: Path) -> None:
    assert number(text, "docstrings,") == pytest.approx(0.2, abs=0.05)
    assert number(text, "test accuracy:") > 0.85
    assert number(text, "wrong among the 100 most suspect:") > 0.8


CHECKS: dict[str, Callable[[str, Path], None]] = {
    name.removeprefix("check_"): check
    for name, check in list(globals().items())
    if name.startswith("check_")
}


def _without_numbers(text: str) -> str:
    return re.sub(r"[-\d.,% ]+", " ", text)


@pytest.mark.parametrize("path", [p for p in EXAMPLES if p != DEMO], ids=lambda path: path.stem)
def test_example_shows_what_it_is_for(python, path: Path, tmp_path: Path) -> None:
    done = python(path, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    CHECKS[path.stem](done.stdout, tmp_path)
    if path.stem in SHOWN:  # the page shows what is printed; numbers differ between machines
        printed = without_folder(done.stdout, tmp_path)
        shown = (OUTPUTS / f"{path.stem}.txt").read_text(encoding="utf-8")
        assert _without_numbers(shown) == _without_numbers(printed), "python -m tests.outputs"


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_demo_shows_what_it_is_for(tmp_path: Path) -> None:
    """With the Python of the tests, which has what the demo needs: nothing is installed."""
    is_ready = ("--old-file=.venv/.stamp", f"BIN={Path(sys.executable).parent}")
    out = tmp_path / "runs" / "demo"
    command = ["make", "demo", *is_ready, "DEMO_CUTS=2", f"DEMO_OUT={out}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    check_demo(done.stdout, tmp_path)


# Where they are shown --------------------------------------------------------------------------


def test_each_tutorial_shows_an_example_whole() -> None:
    shown = [
        line
        for page in (ROOT / "docs" / "tutorials").glob("*.md")
        for line in page.read_text().splitlines()
        if "--8" in line
    ]
    # A formatter once took the markers for Python, and the pages showed them instead.
    tutorials = {path.stem for path in EXAMPLES} - {"demo", "quickstart", "own_method"}
    assert tutorials == set(SHOWN)
    assert sorted(shown) == sorted(
        f'--8<-- "{path}"'
        for name in tutorials
        for path in (f"docs/tutorials/outputs/{name}.txt", f"examples/{name}.py")
    )


@pytest.mark.parametrize(
    ("page", "example"),
    [("README.md", "quickstart.py"), ("docs/adding-a-method.md", "own_method.py")],
)
def test_a_page_shows_lines_of_its_example(page: str, example: str) -> None:
    """Every line of the page's long block of Python, in order."""
    blocks = re.findall(r"```python\n(.+?)```", (ROOT / page).read_text(), re.DOTALL)
    lines = iter((ROOT / "examples" / example).read_text().splitlines())
    for line in max(blocks, key=len).splitlines():
        assert line in lines, f"{page} shows {line!r}, which {example} does not have there"
