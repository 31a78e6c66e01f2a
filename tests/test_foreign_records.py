"""Whatever a record of other hands holds: a harmless page, or an `InputError`."""

from __future__ import annotations

import base64
import copy
import csv
import io
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keeprate.errors import InputError
from keeprate.records import (
    NAME_COLUMN,
    QUALITY_COLUMNS,
    DataSummary,
    FirstTraining,
    RestartSummary,
    RunRecord,
    Suspect,
    TrialCounts,
    load_record,
    save_record,
)
from keeprate.records.record import LARGEST, to_json
from keeprate.report import write_report
from keeprate.report.desk import script_source
from keeprate.text import as_meant, neutral
from tests.report_records import make_by_class, make_finished_record, make_record

Path_ = tuple[str | int, ...]  # of a leaf in a JSON file
HOSTILE = (
    "\"'><script>alert(1)</script><img src=x onerror=alert(1)></title></style></svg></pre>"
    "</script><meta http-equiv=refresh content='0;url=https://example.org/'><base href=//e.org>"
    "<link rel=stylesheet href=//e.org><a href=javascript:alert(1)>data:text/html,<svg onload=x> "
    "--> ]]> $\\frac{ $name ${name} url(#x) \u2028\u202e\x1b[31m\x00 &lt;b&gt; \n@import 'x'"
)


def records() -> dict[str, RunRecord]:
    """A record of each kind, with something in every field."""
    names = ("cat", "dog", "owl")
    images = make_finished_record(names)
    own, *others = images.results
    own = replace(
        own,
        finalist=1,
        restarts=(RestartSummary(0, None, 1.5), RestartSummary(1, 0.95, 1.7)),
        transition_matrix=np.eye(3),
        transition_error=0.125,
    )
    data: DataSummary = replace(
        images.data,
        class_counts=(3, 4, 5),
        validation_counts=(1, 2, 3),
        inputs={"age": "number", "size": "number"},
        left_out={"row": "an index"},
        notes=("a note",),
    )
    images = replace(
        images,
        data=data,
        config={"seed": 0, "training": {"epochs": 40}},
        trials=(*images.trials[:8], replace(images.trials[8], confirms=7)),
        finalists=((7, 39), (2,)),
        first=FirstTraining(0.43, 10, 2.5),
        results=(own, *others),
        suspects=images.suspects[:3],
    )
    table = replace(
        images,
        kind="train",
        trials=(),
        results=tuple(
            replace(r, curves=replace(r.curves, test_accuracy=[], label_precision=[]))
            for r in images.results
        ),
        data=replace(data, n_test=0, noise_rate=None, criterion="determinant"),
        suspects=(Suspect(4, "cat", "dog", 0.1, "row 4", values={"age": 1.5}),),
    )
    scorer = {"name": "f1", "scorer": "f1", "positive": "cat"}
    text = replace(
        table,
        config=table.config | {"metric": scorer},
        data=replace(table.data, criterion="f1"),
        by_class=replace(make_by_class(3), is_of_test=False, majority_score=0.25),
        results=table.results[:1],
        suspects=(Suspect(4, "cat", "dog", 0.1, "a text"),),
    )
    begun = replace(make_record(), results=(), trials=images.trials, trial_counts=TrialCounts(9, 1))
    return {"images": images, "table": table, "text": text, "begun": begun}


def plain(record: RunRecord) -> Any:
    """What stands in the file of a record."""
    return json.loads(json.dumps(to_json(record)))


def leaves(value: Any, path: Path_ = ()) -> Iterator[Path_]:
    """The places of all values; in a list those of the first and the last."""
    yield path
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, (*path, key))
    elif isinstance(value, list) and value:
        for place in sorted({0, len(value) - 1}):
            yield from leaves(value[place], (*path, place))


def with_value(value: Any, path: Path_, new: Any) -> Any:
    changed = copy.deepcopy(value)
    inner = changed
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = new
    return changed


def at(value: Any, path: Path_) -> Any:
    for step in path:
        value = value[step]
    return value


class Markup(HTMLParser):
    """The elements of a page with their attributes, what these lead to, and the comments."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, ...]] = []
        self.led_to: set[tuple[str, str | None]] = set()
        self.comments: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, *(name for name, _ in attrs)))
        for name, value in attrs:
            if name in ("href", "src", "content", "xlink:href") and not (value or "").startswith(
                ("#", "data:image/png;base64,iVBOR", "data:image/png;base64,\niVBOR")
            ):
                self.led_to.add((name, value))

    def handle_comment(self, data: str) -> None:
        self.comments.append(data)


def hostile(value: Any, key: str = "") -> Any:
    """All texts in a value of JSON made hostile, and the keys of free dicts, too."""
    if isinstance(value, str):
        return f"{HOSTILE}{value}"
    if isinstance(value, list):
        return [hostile(item) for item in value]
    if isinstance(value, dict):
        is_free = key in ("config", "versions", "inputs", "left_out", "values", "checksums")
        return {hostile(k) if is_free else k: hostile(item, k) for k, item in value.items()}
    return value


def assert_harmless(page: str, usual: str) -> None:
    """The page has the elements of the usual page and leads nowhere else."""
    drawing = re.compile(r"<svg.*?</svg>", re.DOTALL)  # ticks and wrapped text are not of a number
    found, expected = Markup(drawing.sub("", page)), Markup(drawing.sub("", usual))
    assert Counter(found.elements) == Counter(expected.elements)
    assert found.led_to == expected.led_to
    found, expected = Markup(page), Markup(usual)
    assert set(found.elements) <= set(expected.elements) and not found.comments
    assert found.led_to == expected.led_to
    assert not re.search("[\x00\x1b\u2028\u202e]", page)


def write(folder: Path, file: Any) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "record.json").write_text(json.dumps(file))


def page_of(*folders: Path) -> str:
    path = folders[0].parent / "page.html"
    write_report(folders, path)
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", ["images", "table", "text", "begun"])
def test_all_texts_at_once_become_no_markup(kind: str, tmp_path: Path) -> None:
    usual, folder = tmp_path / "usual", tmp_path / "hostile"
    record = replace(records()[kind], suspects=tuple(
        replace(suspect, image="", name="a name") for suspect in records()[kind].suspects
    ))  # fmt: skip
    save_record_in(usual, record)
    file = json.loads((usual / "record.json").read_text())
    # These words are not shown: they decide what is drawn and said.
    kept = {name: file[name] for name in ("schema_version", "kind")}
    changed = hostile(file) | kept
    changed["data"]["criterion"] = file["data"]["criterion"]
    if (metric := file["config"].get("metric")) is not None:
        changed["config"]["metric"] = {name: hostile(value) for name, value in metric.items()}
    write(folder, changed)
    assert_harmless(page_of(folder), page_of(usual))
    assert_harmless(page_of(folder, folder), page_of(usual, usual))


def save_record_in(folder: Path, record: RunRecord) -> None:
    folder.mkdir()
    save_record(folder, record)


@pytest.mark.parametrize("name", [HOSTILE, "$\\frac{1}{2}$", "a<b>", "", " x", "x" * 41, "x\n"])
def test_the_name_of_a_metric_is_plain_words(name: str, tmp_path: Path) -> None:
    file = plain(records()["images"])
    write(tmp_path / "run", with_value(file, ("data", "criterion"), name))
    with pytest.raises(InputError, match=r"criterion"):
        load_record(tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("path", [("kind",)], ids=".".join)
def test_a_text_that_decides_what_is_said_becomes_no_markup(path: Path_, tmp_path: Path) -> None:
    record = records()["images"]
    file = plain(replace(record, trials=record.trials[3:6]))
    write(tmp_path / "usual", file)
    write(tmp_path / "hostile", with_value(file, path, HOSTILE))
    if path[-1] == "kind":
        file["kind"] = "train"
        write(tmp_path / "usual", file)
    page, usual = (page_of(tmp_path / name) for name in ("hostile", "usual"))
    found = set(Markup(page).elements)
    assert found <= set(Markup(usual).elements) and Markup(page).led_to <= Markup(usual).led_to
    assert page.count("<script") == usual.count("<script") == 1
    assert not re.search("[\x00\x1b\u2028\u202e]", page)


STRANGE = (HOSTILE, True, None, [], {}, [HOSTILE], {HOSTILE: HOSTILE}, -1, 10**30, -1e308, 1.5e308)


def test_every_value_of_another_type_is_refused_or_is_of_the_type(tmp_path: Path) -> None:
    """A record that is read has the types that it says: a number is never a text."""
    n_refused = 0
    for record in (records()["images"], records()["table"]):
        file = plain(replace(record, trials=record.trials[:1], config={}))
        for path in [path for path in leaves(file) if path and not {"last", "best"} & {*path}]:
            for strange in STRANGE:
                write(tmp_path, with_value(file, path, strange))
                try:
                    read = load_record(tmp_path)
                except InputError:
                    n_refused += 1
                    continue
                numbers = [s.index for s in read.suspects] + [s.score for s in read.suspects]
                numbers += [read.data.n_train, read.labels_judged, read.cost.full_trainings]
                assert {type(number) for number in numbers} <= {int, float}
    assert n_refused > 2000


def test_numbers_at_the_ends_of_what_is_read_are_drawn(tmp_path: Path) -> None:
    record = records()["images"]
    own = record.results[0]
    curves = replace(
        own.curves,
        train_loss=[1e300] * 40,
        test_accuracy=[1.0] * 40,
        validation_accuracy=[0.0] * 40,
        validation_score=[-1e6] * 40,
    )
    trials = tuple(
        replace(trial, value=1e6 * (-1) ** place, reached=1e6 * (-1) ** place, seconds=1e12)
        for place, trial in enumerate(record.trials)
    )
    for criterion, tests in (("accuracy", [1.0] * 40), ("determinant", [])):
        changed = replace(
            record,
            data=replace(record.data, n_test=10**15, criterion=criterion),
            trials=trials,
            results=(replace(own, curves=replace(curves, test_accuracy=tests)),),
        )
        write(tmp_path / "run", plain(changed))
        page = page_of(tmp_path / "run")
        assert "ends at" in page and ("1e+300" in page) == (not tests)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ({"data": {"n_test": -1}}, ">= 0 - at `$.data.n_test"),
        ({"cost": {"search_seconds": 1e300}}, "<= 1000000000000"),
        ({"data": {"class_names": []}}, "samples must be of 0 classes"),
        ({"noise_estimate": {"transition_matrix": [0.5]}}, "must be shares [3, 3]"),
        ({"noise_estimate": {"transition_matrix": [[1e308] * 3] * 3}}, "must be shares [3, 3]"),
        ({"suspects": [{}] * 1001}, "length <= 1000"),
        ({"results": [{}] * 101}, "length <= 100"),
        ({"cautions": [""] * 101}, "length <= 100"),
    ],
)
def test_numbers_that_no_run_writes_are_refused(damage: Any, words: str, tmp_path: Path) -> None:
    file = plain(records()["images"])
    for name, value in damage.items():
        if isinstance(value, dict):
            file[name] |= value
        else:
            file[name] = (file[name] * len(value))[: len(value)]
    write(tmp_path, file)
    with pytest.raises(InputError, match=re.escape(words)):
        page_of(tmp_path)


def test_accuracies_lie_between_zero_and_one(tmp_path: Path) -> None:
    file = plain(records()["images"])
    file["results"][1]["curves"]["test_accuracy"][3] = 5
    write(tmp_path, file)
    with pytest.raises(InputError, match=r"test_accuracy must lie in \[0, 1\]"):
        load_record(tmp_path)


def test_a_million_suspects_are_refused(tmp_path: Path) -> None:
    file = plain(records()["images"])
    suspect = '{"index":0,"given":"cat","predicted":"dog","score":0}'
    file["suspects"] = ["here"]
    content = json.dumps(file).replace('"here"', ",".join([suspect] * 1_000_000))
    (tmp_path / "record.json").write_text(content)
    with pytest.raises(InputError, match="length <= 1000"):
        write_report([tmp_path], tmp_path / "page.html")
    with (tmp_path / "record.json").open("ab") as file:
        file.truncate(LARGEST + 1)
    with pytest.raises(InputError, match=f"at most {LARGEST:,} bytes, got {LARGEST + 1:,} bytes"):
        write_report([tmp_path], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize("name", ["record.json", "label_quality.csv"])
def test_pipes_and_devices_are_not_read(name: str, tmp_path: Path) -> None:
    write(tmp_path, plain(records()["text"]))
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)
    if name == "record.json":
        with pytest.raises(InputError, match="must be a file"):
            load_record(tmp_path)
    else:
        assert "Download the fix list" not in page_of(tmp_path)


def test_a_line_of_a_list_that_never_ends_is_not_read(tmp_path: Path) -> None:
    write(tmp_path, plain(replace(records()["text"], results=(), noise_estimate=None)))
    with (tmp_path / "label_quality.csv").open("wb") as file:
        file.truncate(2**34)  # of zeros; takes no room on the disk
    assert "Download the fix list" not in page_of(tmp_path)


def test_the_list_to_download_holds_no_formulas_whatever_the_file_says(tmp_path: Path) -> None:
    write(tmp_path, plain(replace(records()["text"], results=(), noise_estimate=None)))
    texts = ["=1+1", "+x", "-x", "@x", "\tx", "'=x", "-1.5", "''", "a,b", 'say "x"', "a\nb", "it's"]
    with (tmp_path / "label_quality.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow([*QUALITY_COLUMNS, NAME_COLUMN])
        rows.writerows([i, True, text, text, text, text, text] for i, text in enumerate(texts))
        rows.writerow(["short", True])
    (packed,) = re.findall(r'data:text/csv;base64,([^"]*)', page_of(tmp_path))
    content = io.StringIO(base64.b64decode(packed).decode(), newline="")
    listed = [row[NAME_COLUMN] for row in csv.DictReader(content)]
    assert listed == [neutral(as_meant(text)) for text in [*texts, ""]]
    assert [as_meant(text) for text in listed] == [as_meant(text) for text in [*texts, ""]]
    assert listed[:7] == ["'=1+1", "'+x", "'-x", "'@x", "'\tx", "'=x", "-1.5"]


def test_a_folder_whose_name_is_no_text_has_a_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a picture has room for a short name only
    folders = [Path(".") / os.fsdecode(b"\xff" + name) for name in (b"a", b"b")]
    for folder in folders:
        write(folder, plain(replace(records()["text"], noise_estimate=None)))
    assert r"\udcffa" in page_of(*folders)


def test_the_policy_of_a_page(tmp_path: Path) -> None:
    write(tmp_path, plain(replace(records()["text"], results=(), noise_estimate=None)))
    page = page_of(tmp_path)
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert set(policy.split("; ")) == {
        "default-src 'none'",
        "style-src 'unsafe-inline'",
        "img-src data:",
        f"script-src {script_source()}",
        "base-uri 'none'",
        "form-action 'none'",
    }
    assert page.index("Content-Security-Policy") < page.index("<title>")


@pytest.mark.browser
def test_a_hostile_page_does_nothing_in_a_browser(tmp_path: Path) -> None:
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("needs chromium")
    file = plain(records()["images"])
    attacked = hostile(file) | {"kind": "search"}
    attacked["data"]["criterion"] = file["data"]["criterion"]  # plain words, or it is not read
    write(tmp_path / "run", attacked)
    page_of(tmp_path / "run", tmp_path / "run")
    address = (tmp_path / "page.html").as_uri()
    seen: list[str] = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_page()
        page.on("console", lambda message: seen.append(message.text))
        page.on("pageerror", lambda error: seen.append(str(error)))
        page.on("dialog", lambda dialog: (seen.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: seen.append(request.url[:100]))
        page.on("framenavigated", lambda frame: seen.append(frame.url))
        page.on("popup", lambda _: seen.append("popup"))
        page.goto(address)
        page.wait_for_timeout(300)
        page.locator("summary").first.click()
        page.locator('[data-do="accept"]').first.click()
        page.keyboard.press("k")
        page.wait_for_timeout(300)
        assert page.evaluate("document.querySelectorAll('base, link, iframe').length") == 0
        assert page.evaluate("document.querySelectorAll('script').length") == 1  # the desk's
        assert page.evaluate("document.querySelectorAll('meta[http-equiv]').length") == 1
        browser.close()
    assert [what for what in seen if not what.startswith("data:image/png")] == [address] * 2
