"""The review desk of a report in a browser, from the first key to the data written anew."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keeprate.data import load_data
from keeprate.records import (
    LabelQuality,
    apply_decisions,
    load_record,
    most_suspect,
    save_record,
)
from keeprate.report import write_plots, write_report
from tests.report_records import make_finished_record, make_quality, make_record

pytestmark = pytest.mark.browser
Open = Callable[..., Any]
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("needs chromium")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Open]:
    """Open a file in a browser that has kept nothing; the page may say nothing on its console."""
    said: list[str] = []
    contexts = []

    def open_file(path: Path, **options: Any) -> Any:
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.set_default_timeout(5000)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(path.as_uri())
        return page

    yield open_file
    for context in contexts:
        context.close()
    assert said == []


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of 57 labels that look wrong, of three classes; some without a suggestion."""
    folder, names = tmp_path_factory.mktemp("desk"), ("cat", "dog", "owl")
    make_quality(3).save(folder / "label_quality.csv", names)
    write_plots(make_finished_record(names), folder)
    return folder / "report.html"


def part(page: Any, name: str) -> Any:
    return page.locator(f'[data-do="{name}"]')


def current(page: Any) -> list[Any]:
    """The sample that the desk is at: its row, given class, suggested class and name."""
    place = page.evaluate("[...document.querySelectorAll('.card')].findIndex(card => "
                          "card.hasAttribute('aria-current'))")  # fmt: skip
    content = json.loads(page.locator(".desk").get_attribute("data-desk"))
    found: list[Any] = content["samples"][place]
    return found


def verdicts(page: Any) -> dict[str, str]:
    """What the cards say of each sample that was decided on, by row."""
    said = page.locator(".card output").all_text_contents()
    content = json.loads(page.locator(".desk").get_attribute("data-desk"))
    rows = [sample[0] for sample in content["samples"]]
    return {row: words for row, words in zip(rows, said, strict=True) if words}


def downloaded(page: Any) -> list[list[str]]:
    with page.expect_download() as started:
        part(page, "download").click()
    assert started.value.suggested_filename == "decisions.csv"
    with open(started.value.path(), newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_keys_decide_and_undo(report: Path, open_page: Open) -> None:
    page = open_page(report)
    assert part(page, "undo").is_disabled() and part(page, "download").is_disabled()
    expected = {}
    for key in "akd":
        row, given, suggested, _ = current(page)
        assert suggested in part(page, "accept").inner_text()
        assert given in part(page, "keep").inner_text()
        page.keyboard.press(key)
        expected[row] = {"a": f"now {suggested}", "k": "kept", "d": "dropped"}[key]
        assert verdicts(page) == expected
    third = row
    skipped = current(page)[0]
    page.keyboard.press("n")
    row, given, *_ = current(page)
    assert row != skipped
    page.keyboard.press("c")
    page.keyboard.type("o")  # the list of classes has the keyboard: no "drop" or "keep" by letters
    page.keyboard.press("Enter")
    expected[row] = "kept" if given == "owl" else "now owl"
    assert verdicts(page) == expected
    assert part(page, "count").inner_text() == f"4 of {page.locator('.card').count()} decided"
    assert part(page, "progress").evaluate("bar => bar.value") == 4
    page.keyboard.press("u")
    del expected[row]
    assert verdicts(page) == expected and current(page)[0] == row
    page.keyboard.press("u")
    del expected[third]
    assert verdicts(page) == expected and current(page)[0] == third
    page.keyboard.press("Control+d")  # the browser's own
    assert verdicts(page) == expected


def test_a_decision_is_changed_and_the_first_one_comes_back(report: Path, open_page: Open) -> None:
    page = open_page(report)
    row = current(page)[0]
    page.keyboard.press("d")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("k")
    assert verdicts(page) == {row: "kept"}
    assert [line[0] for line in downloaded(page)[1:]] == [row]
    page.keyboard.press("u")
    assert verdicts(page) == {row: "dropped"}


def test_without_a_suggestion_nothing_is_accepted(report: Path, open_page: Open) -> None:
    page = open_page(report)
    page.locator(".card").last.click()
    assert current(page)[2] is None and part(page, "accept").is_disabled()
    page.keyboard.press("a")
    assert verdicts(page) == {}
    page.keyboard.press("k")
    assert len(verdicts(page)) == 1
    page.keyboard.press("ArrowLeft")
    for _ in range(page.locator(".card").count()):
        page.keyboard.press("k")
    n = page.locator(".card").count()
    assert part(page, "count").inner_text() == f"{n} of {n} decided"


def test_a_reload_keeps_decisions_and_what_can_be_undone(report: Path, open_page: Open) -> None:
    page = open_page(report)
    for key in "akd":
        page.keyboard.press(key)
    kept, at = verdicts(page), current(page)
    page.reload()
    assert verdicts(page) == kept and current(page) == at and len(kept) == 3
    page.keyboard.press("u")
    assert len(verdicts(page)) == 2
    page.evaluate("localStorage.setItem(localStorage.key(0), '[[[1, 2]], 5]')")  # of other hands
    page.reload()
    assert verdicts(page) == {}
    page.keyboard.press("a")
    assert len(verdicts(page)) == 1


def test_two_runs_on_a_page_have_a_desk_each(report: Path, tmp_path: Path, open_page: Open) -> None:
    """Keys go to the desk that is seen; the pages of one run share its decisions."""
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder, names in zip(folders, (("cat", "dog", "owl"), ("x", "y")), strict=True):
        save_record(folder, make_finished_record(names))
    write_report(folders, tmp_path / "both.html")
    page = open_page(tmp_path / "both.html")
    assert page.locator(".desk").count() == 2
    page.evaluate("document.querySelectorAll('.desk')[1].scrollIntoView()")
    page.keyboard.press("k")
    page.keyboard.press("d")
    n_of = (
        "desk => [...desk.querySelectorAll('.card[data-verdict]:not([data-verdict=\"\"])')].length"
    )
    assert [page.locator(".desk").nth(i).evaluate(n_of) for i in (0, 1)] == [0, 2]
    page.goto(report.as_uri())  # the first run by itself
    page.keyboard.press("k")
    page.goto((tmp_path / "both.html").as_uri())
    assert [page.locator(".desk").nth(i).evaluate(n_of) for i in (0, 1)] == [1, 2]


def test_keys_do_nothing_out_of_sight(report: Path, open_page: Open) -> None:
    page = open_page(report, viewport={"width": 1000, "height": 300})
    page.locator("h2", has_text="Cost").scroll_into_view_if_needed()
    page.keyboard.press("d")
    assert verdicts(page) == {}
    page.evaluate("document.querySelector('.bar').scrollIntoView({block: 'end'})")
    page.keyboard.press("d")  # the first card is below the window: it is shown first
    assert verdicts(page) == {}
    page.keyboard.press("d")
    assert list(verdicts(page).values()) == ["dropped"]


def test_decisions_are_loaded_again(report: Path, tmp_path: Path, open_page: Open) -> None:
    page = open_page(report)
    for key in "akdk":
        page.keyboard.press(key)
    lines, said = downloaded(page), verdicts(page)
    assert lines[0] == ["index", "given_label", "decision", "label", "name"]
    lines.append(["99999", "cat", "drop", "", ""])  # a label that the page does not show
    text = "\n".join(";".join(f'"{cell}"' for cell in line) for line in lines)
    (tmp_path / "d.csv").write_text("\ufeff" + text.replace("\n", "\r\n"))
    page = open_page(report)
    page.keyboard.press("d")
    before = verdicts(page)
    part(page, "file").set_input_files(tmp_path / "d.csv")
    words = "5 decisions loaded, 1 of them on labels that are not shown."
    page.get_by_text(words).wait_for()
    assert verdicts(page) == before | said
    assert ["99999", "cat", "drop", "", ""] in downloaded(page)
    part(page, "undo").click()
    assert verdicts(page) == before
    (tmp_path / "wrong.csv").write_text("a,b\n1,2\n")
    part(page, "file").set_input_files(tmp_path / "wrong.csv")
    page.get_by_text("This is no file of decisions.").wait_for()
    other = [*lines[:1], [lines[1][0], "other", "keep", "other", ""]]
    (tmp_path / "other.csv").write_text("\n".join(map(",".join, other)))
    part(page, "file").set_input_files(tmp_path / "other.csv")
    page.get_by_text(f"The decision on row {lines[1][0]} is not of this run.").wait_for()
    assert verdicts(page) == before


def test_the_list_of_labels_is_downloaded(report: Path, open_page: Open) -> None:
    page = open_page(report)
    with page.expect_download() as started:
        page.locator("text=Download the fix list").click()
    assert started.value.suggested_filename == "label_issues.csv"
    rows = Path(started.value.path()).read_text().splitlines()
    assert len(rows) == 1 + make_quality(3).is_issue.sum()


@pytest.mark.parametrize("script", [True, False])
def test_nothing_is_cut_on_a_phone(report: Path, open_page: Open, script: bool) -> None:
    page = open_page(report, java_script_enabled=script, **PHONE)
    assert part(page, "accept").is_visible() is script
    assert page.locator(".card").first.is_visible()
    page = open_page(report, **PHONE)
    wide = """() => [...document.querySelectorAll("main *")].filter((one) => {
        const { left, right, width } = one.getBoundingClientRect();
        return width > 2 && !one.closest("svg *, pre") && (right > 390 || left < 0);
    }).map((one) => one.outerHTML.slice(0, 100))"""
    assert page.evaluate(wide) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    cut = """() => [...document.querySelectorAll(".scroll, .bar, .card, td")]
        .filter((one) => one.scrollWidth > one.clientWidth + 1).length"""
    assert page.evaluate(cut) == 0
    part(page, "drop").tap()
    assert list(verdicts(page).values()) == ["dropped"]


def test_from_the_first_key_to_the_data(tmp_path: Path, open_page: Open) -> None:
    """Names that a page, a CSV file or a spreadsheet could take for something else."""
    names = ["=1+1", "'-b", 'say "no", <b>']
    source = tmp_path / "a.csv"
    with source.open("w", newline="") as file:
        texts = ["one, or  two", "'=x", "</script><script>alert(1)", "plain", "ünï\u202e", "-5"]
        rows = [[f"{text} {i}", names[i % 3]] for i, text in enumerate(texts)]
        csv.writer(file).writerows([["text", "label"], *rows])
    loaded = load_data(source, columns={"text": "text"})
    split, classes = loaded.splits["train"], loaded.class_names
    given = split.labels.numpy()
    suggested = (given + 1) % 3
    quality = LabelQuality(
        split.rows.numpy(), given, suggested, np.linspace(0.1, 0.2, 6), suggested, split.names
    )
    record = make_record()
    data = replace(record.data, class_names=classes, noise="none", source=loaded.source)
    run = tmp_path / "run"
    run.mkdir()
    quality.save(run / "label_quality.csv", classes)
    suspects = most_suspect([split], quality, classes)
    save_record(run, replace(record, data=data, results=(), trials=(), suspects=suspects))
    write_plots(load_record(run), run)
    page = open_page(run / "report.html")
    decided = {}
    for key in "aadkka":
        decided[int(current(page)[0])] = key
        page.keyboard.press(key)
    with page.expect_download() as started:
        part(page, "download").click()
    done = apply_decisions(run, started.value.path(), tmp_path / "fixed")
    assert (done.n_changed, done.n_kept, done.n_dropped) == (3, 2, 1)
    with done.out.open(newline="") as file:
        found = list(csv.reader(file))[1:]
    expected = []
    for i, (text, label) in enumerate(rows):
        new = classes[(classes.index(label) + 1) % 3] if decided[i] == "a" else label
        expected += [[text, new]] if decided[i] != "d" else []
    assert found == expected
