"""The pictures and the page, from typed run records."""

from __future__ import annotations

import base64
import csv
import hashlib
import html
import io
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from keeprate.data import Encoder, Split, load_data, prepare
from keeprate.data.features import InputColumn
from keeprate.engine import METHODS, Curves
from keeprate.errors import InputError
from keeprate.records import (
    NOT_SURE,
    Cost,
    LabelQuality,
    RestartSummary,
    Result,
    RunRecord,
    Suspect,
    most_suspect,
    save_record,
)
from keeprate.report import fix_list as fix_list_module
from keeprate.report import noisy_test_in_words, write_plots, write_report
from keeprate.report.desk import desk_script, review_desk
from keeprate.report.facts import differ_clearly
from keeprate.report.figures import draw_curves, draw_keep_rate, draw_transition
from keeprate.report.gallery import by_pair, gallery
from keeprate.report.style import colours_of, styled
from keeprate.report.tables import results_table
from keeprate.report.words import cost_in_words, data_in_words, finding, noise_in_words
from keeprate.schedules import Schedule
from tests.report_records import (
    EPOCHS,
    make_estimate,
    make_finished_record,
    make_quality,
    make_record,
    make_result,
    make_trials,
)

FILES = ["keep_rate.png", "curves.png", "label_precision.png", "report.html"]
MALICIOUS = '<script>alert("x")</script> $\\frac{ & $name'


def write(record: RunRecord, folder: Path) -> str:
    """Write the plots, look at the files, and return the page."""
    paths = write_plots(record, folder)
    assert [path.name for path in paths] == FILES
    assert {path.name for path in folder.iterdir()} - {"label_quality.csv"} == set(FILES)
    for path in paths[:3]:
        content = path.read_bytes()
        assert content.startswith(b"\x89PNG\r\n\x1a\n")
        assert len(content) > 5000
    page = paths[3].read_text(encoding="utf-8")
    return page


def write_finished(folder: Path, names: tuple[str, ...]) -> tuple[RunRecord, LabelQuality]:
    """Write the list of labels that stands in the folder of a finished run."""
    quality = make_quality(len(names))
    folder.mkdir()
    quality.save(folder / "label_quality.csv", names)
    return make_finished_record(names), quality


def undrawn(record: RunRecord) -> RunRecord:
    """A record whose pictures are empty, for what else a page shows."""
    return replace(record, trials=(), results=(), noise_estimate=None)


def with_results(record: RunRecord, change: Callable[[Result], Result]) -> RunRecord:
    return replace(record, results=tuple(change(result) for result in record.results))


def with_curves(record: RunRecord, change: Callable[[Curves], Curves]) -> RunRecord:
    return with_results(record, lambda result: replace(result, curves=change(result.curves)))


def with_last(result: Result, **values: float) -> Result:
    """A result with other values at the last epoch."""
    curves = {name: [*getattr(result.curves, name)[:-1], v] for name, v in values.items()}
    return replace(result, curves=replace(result.curves, **curves))


def listed_in(page: str) -> list[dict[str, str]]:
    """The rows of the list of labels that a page holds."""
    (packed,) = re.findall(r"data:text/csv;base64,([^\"]*)", page)
    content = io.StringIO(base64.b64decode(packed).decode(), newline="")
    return list(csv.DictReader(content))


def text_of(figure: Figure) -> str:
    """All that is written in a picture."""
    with styled():
        content = io.StringIO()
        figure.savefig(content, format="svg")
    root = ET.fromstring(content.getvalue())
    return "\n".join(filter(None, (element.text for element in root.iter() if element.text)))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(make_record(), tmp_path_factory.mktemp("full") / "run")


def test_a_full_record(page: str) -> None:
    assert page.count("<svg") == 6
    for shown in ("The searched schedule ends at", "97.", "--noise pairflip:0.45", "40 full"):
        assert shown in page
    assert "best epoch on the test set, an optimistic number that the literature" in page
    assert "prefers-color-scheme: dark" in page
    assert "$" not in page


def test_the_head_says_what_the_data_are() -> None:
    record = make_record()
    words = "1,077 training samples, 360 validation samples, 360 test samples, 10 classes, "
    words += "45.0 % of the training labels wrong"
    assert data_in_words(record) == f"{words}, clean validation labels"
    data = replace(record.data, validation_labels="unknown")
    assert data_in_words(replace(record, data=data)) == words
    data = replace(data, n_test=0, noise_rate=None, validation_labels="noisy")
    assert "no test samples, 10 classes, noisy val" in data_in_words(replace(record, data=data))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("searched", "the 2 best schedules took turns; the second best won."),
        (
            "custom",
            "R(t) by the noise rate and every sample kept took turns; every sample kept won.",
        ),
    ],
)
def test_the_page_says_which_of_two_schedules_won(
    page: str, tmp_path: Path, name: str, words: str
) -> None:
    assert "Each line is" not in page
    record = make_record()
    restarts = tuple(RestartSummary(turn % 2, 0.9, 1.0) for turn in range(3))
    schedule = Schedule(np.ones(EPOCHS), "constant")
    own = replace(record.results[0], name=name, restarts=restarts, finalist=1, schedule=schedule)
    record = replace(record, results=(own, *record.results[1:]))
    page = write(record, tmp_path / "two")
    assert "Each line is the best of 3 trainings by validation. In the" in page
    assert words in page
    record = replace(record, results=(replace(own, finalist=None), *record.results[1:]))
    assert "of 3 trainings by validation. Best epoch" in write(record, tmp_path / "one")


def test_trials_that_confirm_are_told_from_new_schedules(page: str, tmp_path: Path) -> None:
    assert "the best schedules again" not in page
    record = make_record()
    again = tuple(replace(trial, confirms=4) for trial in record.trials[-10:])
    record = replace(record, trials=(*record.trials[:-10], *again))
    assert "10 trials trained the best schedules again." in write(record, tmp_path / "run")


def test_the_page_counts_trials_by_state(page: str) -> None:
    assert (
        "schedules of the trials: 33 complete, 1 failed, 1 trained in fewer epochs, "
        "5 stopped early." in page
    )


def test_the_page_loads_nothing_and_repeats_no_id(page: str) -> None:
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in page
    assert not re.search(r"https?:|@import|<link|<script", page)
    assert all(src.startswith("data:image/png") for src in re.findall(r'src="([^"]*)', page))
    assert set(re.findall(r"href=\"(.)", page)) <= {"#"}
    assert set(re.findall(r"url\((.)", page)) <= {"#"}
    ids = re.findall(r'\bid="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="#|url\(#)([^")]*)', page)) <= set(ids)


def test_the_drawings_are_well_formed_and_follow_the_colour_scheme(page: str) -> None:
    drawings = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    assert len(drawings) == 6
    for svg in drawings:
        ET.fromstring(svg.replace("<svg", '<svg xmlns:xlink="x"', 1))
        assert "var(--ink)" in svg
        assert "#1f2431" not in svg
    assert [re.findall(r'aria-label="([^"]*)"', svg)[0] for svg in drawings] == [
        name for name in ("keep rate", "curves", "label precision") for _ in ("wide", "narrow")
    ]
    widths = [float(re.findall(r'width="([\d.]+)pt"', svg)[0]) for svg in drawings]
    assert widths[::2] == [576.0] * 3 and max(widths[1::2]) < 340  # as wide as a phone


def test_the_same_record_gives_the_same_page(page: str, tmp_path: Path) -> None:
    assert write(make_record(), tmp_path) == page


# What comes from data


def with_malicious_texts(value: Any) -> Any:
    """A value of a record with every text in it replaced, all that lies inside too."""
    if isinstance(value, str):
        return MALICIOUS
    if isinstance(value, Schedule):
        return Schedule(value.keep_rate, MALICIOUS, {MALICIOUS: 1.0})
    if is_dataclass(value) and not isinstance(value, type):
        changed = {
            field.name: with_malicious_texts(getattr(value, field.name)) for field in fields(value)
        }
        return replace(value, **changed)
    if isinstance(value, dict):
        return {f"{MALICIOUS} {key}": with_malicious_texts(value[key]) for key in value}
    if isinstance(value, tuple | list):
        return type(value)(with_malicious_texts(item) for item in value)
    return value


class Elements(HTMLParser):
    """The names of all elements and attributes of a page, and the values of the attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.values: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names |= {tag, *(name for name, _ in attrs)}
        self.values |= {value for _, value in attrs if value}


def without_script(page: str) -> str:
    """The page without the script of its desks, which must be the only one."""
    return page.replace(f"<script>{desk_script()}</script>", "", 1)


def assert_harmless(page: str, usual: str) -> None:
    """No text of a record became an element or an attribute; an image's text stays in its `src`."""
    assert "<script" not in without_script(page) and MALICIOUS not in page
    assert "&lt;script&gt;" in page
    elements = Elements(page)
    assert elements.names <= Elements(usual).names
    touched = [value for value in elements.values if "script" in value or "alert" in value]
    touched = [value for value in touched if not value.startswith('{"run": "keeprate ')]
    touched = [value for value in touched if "script-src 'sha256-" not in value]
    assert all(value == f"data:image/png;base64,{MALICIOUS}" for value in touched)


def test_every_text_of_a_record_is_escaped(tmp_path: Path) -> None:
    record = with_malicious_texts(make_finished_record(("a", "b")))
    record = replace(
        record,
        data=replace(record.data, criterion="accuracy"),  # other words than plain are not read
        suspects=(*record.suspects, Suspect(1, MALICIOUS, MALICIOUS, 0.5, name=MALICIOUS)),
    )
    quality = make_quality(2)
    (tmp_path / "run").mkdir()
    quality.save(tmp_path / "run" / "label_quality.csv", (MALICIOUS, MALICIOUS))
    write(record, tmp_path / "run")
    save_record(tmp_path / "run", record)
    usual, _ = write_finished(tmp_path / "usual", ("a", "b"))
    usual = replace(usual, suspects=(*usual.suspects, Suspect(1, "a", "b", 0.5, name="a text")))
    write(usual, tmp_path / "usual")
    save_record(tmp_path / "usual", usual)
    pages = []
    for folder in (tmp_path / "run", tmp_path / "usual"):
        write_report([folder, folder], folder / "both.html")
        pages.append([(folder / name).read_text() for name in ("report.html", "both.html")])
    for malicious, harmless in zip(*pages, strict=True):
        assert_harmless(malicious, harmless)


def test_what_was_read_is_on_the_page(page: str, tmp_path: Path) -> None:
    assert "What was read" not in page  # a record of an earlier version does not say
    record = make_record()
    record = replace(
        record,
        data=replace(
            record.data,
            class_names=("cat", "dog"),
            class_counts=(3, 1_200),
            inputs={"age": "number", MALICIOUS: "text", "size": "number"},
            left_out={"": "an index or a key of the rows"},
            notes=("3 rows without a label were left out",),
        ),
    )
    html = write(record, tmp_path)
    for line in (
        "Training labels: dog (1,200), cat (3)",
        "Inputs, number: age, size",
        "No input, an index or a key of the rows: (no name)",
        "3 rows without a label were left out",
    ):
        assert f"<li>{line}</li>" in html
    assert MALICIOUS not in html


@pytest.mark.parametrize("kind", ["search", "train"])
def test_single_texts_are_escaped_where_the_rest_is_as_usual(
    kind: str, page: str, tmp_path: Path
) -> None:
    record = replace(make_record(), kind=kind)
    own, second, third = record.results
    record = replace(
        record,
        command=f"keeprate search '{MALICIOUS}'",
        config=record.config | {"model": MALICIOUS},
        versions=record.versions | {MALICIOUS: MALICIOUS},
        data=replace(record.data, name=MALICIOUS, validation_labels=MALICIOUS),
        trials=(replace(record.trials[0], state=MALICIOUS), *record.trials[1:]),
        results=(
            own,
            replace(second, name="雑音", label="雑音"),
            replace(third, label=MALICIOUS),
        ),
    )
    malicious = write(record, tmp_path)
    assert_harmless(malicious, page)
    assert "雑音" in malicious


def test_a_folder_is_named_and_escaped(tmp_path: Path) -> None:
    folder = tmp_path / "a<b>&"
    for name in ("one", "two"):
        save_record(folder / name, undrawn(make_record()))
    write_report([folder / "one", folder / "two"], tmp_path / "both.html")
    page = (tmp_path / "both.html").read_text()
    assert "a&lt;b&gt;&amp;/one" in page and "a<b>" not in page


# The labels that look wrong


def test_suspects_are_shown_and_listed(tmp_path: Path) -> None:
    record, quality = write_finished(tmp_path / "run", ("cat", MALICIOUS, "dog"))
    page = write(record, tmp_path / "run")
    assert "<script" not in without_script(page) and page.count("<svg") == 8
    assert page.count('<div class="card">') == len(record.suspects) == quality.is_issue.sum()
    assert page.index("Labels that look wrong") < page.index("<h2>Results</h2>")
    (digest,) = re.findall(r"script-src 'sha256-([^']*)'", page)
    script = page[page.index("<script>") + 8 : page.index("</script>")]
    assert digest == base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    words = f"{quality.is_issue.sum()} of the 1,077 labels are more probably wrong than right"
    assert words in page
    assert "About 40.0 % of the labels are wrong, at most 50.0 %" in page
    assert "In truth 45.0 %" in page
    assert "The standard errors of sampling are at most 2.3 %." in page
    rows = listed_in(page)
    assert [int(row["index"]) for row in rows] == [
        int(quality.rows[i]) for i in quality.ranking if quality.is_issue[i]
    ]
    assert f"Download the fix list ({quality.is_issue.sum()} rows, CSV)" in page


def test_names_with_line_breaks_and_older_lists(tmp_path: Path) -> None:
    record, quality = write_finished(tmp_path / "run", ("a\nb", "c\u2028,d", '"e"'))
    rows = listed_in(write(record, tmp_path / "run"))
    assert len(rows) == quality.is_issue.sum()
    assert {row["given_label"] for row in rows} == {"a\nb", "c\u2028,d", '"e"'}
    for damaged in (
        b"index,score\n1,0.5\n",
        b"index,is_label_issue\n1,True\n",
        b"is_label_issue\n" + b"x" * 200_000,  # more than the reader of a field takes
        b"\xff\xfe",
    ):
        (tmp_path / "run" / "label_quality.csv").write_bytes(damaged)
        assert "Download the fix list" not in write(undrawn(record), tmp_path / "run")


def test_a_long_fix_list_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fix_list_module, "LARGEST_FIX_LIST", 500)
    record, quality = write_finished(tmp_path / "run", ("a", "b"))
    page = write(undrawn(record), tmp_path / "run")
    n_listed = len(listed_in(page))
    assert 0 < n_listed < quality.is_issue.sum()
    assert f"(the first {n_listed} of {quality.is_issue.sum()} rows, CSV)" in page


def test_pictures_and_rows_of_suspects() -> None:
    quality = LabelQuality(
        *(np.array([7, 5, 6]), np.zeros(3, int), np.ones(3, int), np.array([0.3, 0.1, 0.2])),
        np.array([1, 1, -1]),
    )
    pixels = torch.arange(3 * 3 * 4 * 4, dtype=torch.uint8).view(3, 3, 4, 4)
    names = ("a", "b")
    labels, numbers = torch.zeros(3, dtype=torch.long), torch.arange(5, 8)
    suspects = most_suspect([Split(pixels, labels, rows=numbers)], quality, names)
    assert [(one.index, one.predicted) for one in suspects] == [(5, "b"), (6, NOT_SURE), (7, "b")]
    with Image.open(io.BytesIO(base64.b64decode(suspects[0].image))) as image:
        assert np.array_equal(np.asarray(image), pixels[0].permute(1, 2, 0).numpy())
    rows = Split(torch.tensor([[0.5, 2.0]] * 3), labels, rows=numbers)
    suspects = most_suspect([rows], quality, names)
    assert suspects[0].values == {"0": "0.5", "1": "2"}
    wide = Split(torch.zeros(3, 500), labels, rows=numbers)
    assert not most_suspect([wide], quality, names)[0].values  # the numbers of an embedding
    table = torch.arange(60.0).view(3, 20)
    encoder = Encoder.fit(table, [InputColumn(f"x{i}", "number") for i in range(20)])
    (first, *_) = most_suspect([Split(table, labels, rows=numbers)], quality, names, encoder)
    assert first.values == {f"x{i}": str(i) for i in range(12)}  # as many as the page has room for
    unsuggested = np.full(3, -1)
    right = LabelQuality(np.arange(3), np.zeros(3, int), np.zeros(3, int), np.ones(3), unsuggested)
    assert most_suspect([rows], right, names) == ()


def test_names_and_texts_are_shown_and_listed(tmp_path: Path) -> None:
    record, named = undrawn(make_record()), (MALICIOUS, "two\nlines")
    quality = LabelQuality(
        *(np.arange(2), np.zeros(2, int), np.ones(2, int), np.array([0.1, 0.2])),
        *(np.ones(2, int), named),
    )
    rows = Split(torch.zeros(2, 3), torch.zeros(2, dtype=torch.long))
    record = replace(record, suspects=most_suspect([rows], quality, ("a", "b")))
    (tmp_path / "run").mkdir()
    quality.save(tmp_path / "run" / "label_quality.csv", ("a", "b"))
    assert LabelQuality.load(tmp_path / "run" / "label_quality.csv", ("a", "b")).names == named
    page = write(record, tmp_path / "run")
    assert f"<p>{html.escape(MALICIOUS)}</p>" in page and MALICIOUS not in page
    assert "<p>two\nlines</p>" in page and 'class="cards wide"' in page
    assert [row["name"] for row in listed_in(page)] == list(named)
    assert not record.suspects[0].values  # of a text nobody wants to see the numbers
    pixels = torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
    splits = [
        Split(pixel, torch.zeros(1, dtype=torch.long), rows=torch.tensor([i]))
        for i, pixel in enumerate(pixels.split(1))
    ]
    record = replace(record, suspects=most_suspect(splits, quality, ("a", "b")))
    page = write(record, tmp_path / "run")
    assert page.count("<img ") == 2 and f"<small>{html.escape(MALICIOUS)}</small>" in page


def test_photographs_are_small_in_a_record() -> None:
    one = np.ones(1, int)
    quality = LabelQuality(np.arange(1), np.zeros(1, int), one, np.zeros(1), one)
    noise = torch.randint(0, 256, (1, 3, 300, 200), generator=torch.Generator().manual_seed(0))
    photo = Split(noise.to(torch.uint8), torch.zeros(1, dtype=torch.long))
    (suspect,) = most_suspect([photo], quality, ("a", "b"))
    with Image.open(io.BytesIO(base64.b64decode(suspect.image))) as image:
        assert (image.format, image.size) == ("JPEG", (64, 96))
    assert "data:image/jpeg;base64,/9j/" in gallery([[suspect]])


def test_cards_are_grouped_by_pairs_of_classes() -> None:
    pairs = [("cat", "dog"), ("owl", NOT_SURE), ("dog", "cat"), ("owl", "cat"), ("dog", "cat")]
    pairs += [("owl", NOT_SURE)] * 3
    suspects = [Suspect(i, given, other, 0.1) for i, (given, other) in enumerate(pairs)]
    groups = by_pair(suspects)
    assert [[one.index for one in group] for group in groups] == [[2, 4], [0], [3], [1, 5, 6, 7]]
    heads = re.findall(r"<summary>(.*?) <span", gallery(groups))
    assert heads[0] == "dog → <b>cat</b>" and heads[-1] == "owl → <b>not sure</b>"
    desk = html.unescape(
        re.findall('data-desk="([^"]*)"', review_desk(suspects, ("cat", "dog")))[0]
    )
    content = json.loads(desk)
    assert content["classes"] == ["cat", "dog"]
    assert content["samples"][0] == ["2", "dog", "cat", ""]
    assert content["samples"][-1] == ["7", "owl", None, ""]
    assert review_desk([], ("cat", "dog")) == ""


def test_a_row_is_shown_by_the_columns_of_its_table(tmp_path: Path) -> None:
    """Not by what they were encoded to: marks of categories, waves of dates, means of blanks."""
    rows = [f"{20 + i}.5,{'' if i == 3 else i},{c},2026-03-{i + 1:02},{i % 2}"
            for i, c in enumerate("AABBABABBA")]  # fmt: skip
    (tmp_path / "a.csv").write_text("age,size,city,day,label\n" + "\n".join(rows) + "\n")
    columns = {"age": "number", "size": "number", "city": "category", "day": "date"}
    data = prepare(load_data(tmp_path / "a.csv", columns=columns), n_validation=2, n_test=0)
    assert isinstance(data.encoder, Encoder) and data.train.inputs.shape[1] > 8
    row = 3 if 3 in data.train.rows else int(data.train.rows[0])
    quality = LabelQuality(
        *(np.array([row]), np.zeros(1, int), np.ones(1, int), np.array([0.3]), np.ones(1, int)),
        ("A",) if row != 3 else ("B",),
    )
    (suspect,) = most_suspect([data.train], quality, ("0", "1"), data.encoder)
    expected = dict(zip(columns, rows[row].split(","), strict=False))
    assert suspect.values == expected
    text = gallery([[suspect]])
    assert f"<dt>age<dd>{expected['age']}" in text and "<dt>day<dd>2026-03" in text
    assert f"<dd>{expected['size'] or '–'}" in text
    assert "<small>" in text and ">B<" not in text.replace("<dd>B<", "")  # said once


# Findings


def test_noisy_test_labels_are_said_to_be_noisy(tmp_path: Path) -> None:
    record = without_matrices(make_record())
    estimate = replace(record.noise_estimate, noise_rate=0.3)
    record = replace(record, trials=(), results=record.results[:1], noise_estimate=estimate)
    assert "right predictions would reach" not in write(record, tmp_path / "a")
    noisy = replace(record.data, test_labels="noisy")
    record = replace(record, data=replace(noisy, n_test=0))
    assert "right predictions would reach" not in write(record, tmp_path / "a")
    record = replace(record, data=noisy)
    words = "right predictions would reach about 70.0 % against the test labels"
    assert words in write(record, tmp_path / "b")
    assert words in noisy_test_in_words(record)
    assert noisy_test_in_words(replace(record, noise_estimate=None)) == ""


def test_a_training_without_a_search_has_its_finding(tmp_path: Path) -> None:
    record = replace(make_record(), kind="train", trials=())
    _, second, third = record.results
    record = replace(record, results=(replace(second, name="custom"), third))
    page = write(record, tmp_path)
    assert "Co-teaching, its own R(t) ends at" in page and "; Standard at" in page
    record = with_curves(record, lambda curves: replace(curves, test_accuracy=[]))
    record = with_results(record, lambda result: with_last(result, validation_accuracy=0.5))
    page = write(record, tmp_path)
    assert "ends at 50.0 % accuracy on the validation samples; Standard at 50.0 %." in page


def test_the_finding_says_what_accuracy_without_a_test_split_is() -> None:
    record = with_curves(make_record(), lambda curves: replace(curves, test_accuracy=[]))
    assert "accuracy on the validation samples (which chose the schedule);" in finding(record)
    data = replace(record.data, criterion="determinant", validation_labels="noisy")
    words = "against the noisy labels of the validation samples (which chose the schedule);"
    assert words in finding(replace(record, data=data))
    assert "standard errors" not in finding(record)


def compared(own: float, rivals: list[float], n_test: int) -> str:
    """The finding of a search whose result and rivals end at these accuracies."""
    record = make_record()
    results = [with_last(record.results[0], test_accuracy=own)]
    for place, accuracy in enumerate(rivals):
        rival = replace(record.results[1], name=f"m{place}", label=f"Method {place}")
        results.append(with_last(rival, test_accuracy=accuracy))
    data = replace(record.data, n_test=n_test)
    return finding(replace(record, results=tuple(results), data=data))


def test_the_finding_says_where_no_difference_is_clear() -> None:
    clear = "The searched schedule ends at 97.0 % test accuracy; Method 0 at 90.0 %."
    assert compared(0.97, [0.9], 360) == clear
    # sqrt((0.97 * 0.03 + 0.95 * 0.05) / 360) = 0.0146, twice this is more than 0.02.
    assert compared(0.97, [0.95], 360) == (
        "The searched schedule ends at 97.0 % test accuracy; Method 0 at 95.0 %. There is no clear "
        "difference from Method 0: with 360 test samples the accuracies differ by less than two "
        "standard errors."
    )
    assert "no clear difference from Method 0:" in compared(0.95, [0.97], 360)  # either way
    assert "no clear difference" not in compared(0.97, [0.95], 10_000)
    assert "no clear difference from Method 1 or Method 0:" in compared(0.97, [0.96, 0.98], 360)
    assert "no clear difference from Method 1:" in compared(0.97, [0.8, 0.97], 10_000)
    assert "no clear difference" in compared(1.0, [1.0], 360)
    assert "no clear difference" not in compared(1.0, [0.0], 360)
    assert "no clear difference" not in compared(0.97, [], 360)
    # The methods that the sentence before names, no others.
    assert compared(0.97, [0.8, 0.81, 0.79], 360).endswith(
        "Method 1 at 81.0 % and Method 0 at 80.0 %."
    )


@pytest.mark.parametrize("n_samples", [50, 1000, 40_000])
@pytest.mark.parametrize("accuracy", [0.2, 0.5, 0.9])
def test_equal_networks_rarely_differ_clearly(accuracy: float, n_samples: int) -> None:
    """Two networks that are equally good differ by two standard errors in about 4.6 % of tests."""
    right = np.random.default_rng(0).binomial(n_samples, accuracy, (2, 4000)) / n_samples
    share = np.mean([differ_clearly(*pair, n_samples) for pair in right.T.tolist()])
    assert 0.025 < share < 0.075


def test_of_many_results_the_best_are_named(tmp_path: Path) -> None:
    record, more = make_record(), []
    for name, accuracy in (("jocor", 0.97), ("mentornet", 0.96)):
        more.append(with_last(replace(record.results[0], name=name, label=name)))
        more[-1] = with_last(more[-1], test_accuracy=accuracy)
    record = replace(record, results=(*record.results, *more))
    words = f"; the best of the {len(record.results) - 1} others are jocor at 97.0 % and "
    assert words + "mentornet at 96.0 %." in write(record, tmp_path)


@pytest.mark.parametrize(
    ("criterion", "words", "label"),
    [
        ("accuracy", "best validation accuracy 95.9 %", "trial's validation accuracy, %"),
        ("determinant", "best validation score 0.959", "trial's validation score"),
    ],
)
def test_a_determinant_score_is_no_percentage(criterion: str, words: str, label: str) -> None:
    record = make_record()
    record = replace(record, results=(), data=replace(record.data, criterion=criterion))
    best = max(trial.value for trial in record.trials if trial.value is not None)
    assert round(best, 3) == 0.959
    assert finding(record) == f"The search is not finished. So far: {words}."
    drawn = text_of(draw_keep_rate(record)).splitlines()
    assert label in drawn
    ticks = drawn[drawn.index(label) - 6 : drawn.index(label)]
    assert any(tick.startswith("0.9") for tick in ticks) == (criterion == "determinant")


def test_the_noise_says_whose_labels_it_was_estimated_from() -> None:
    record = make_finished_record()
    noise = replace(record.noise_estimate, by_clean_labels=True)
    words = noise_in_words(replace(record, noise_estimate=noise))
    known = "About 40.0 % of the labels are wrong, between 35.0 % and 50.0 %, by predictions for"
    assert words.startswith(f"{known} held-out labels, noisy and clean ones.")
    data = replace(record.data, criterion="determinant", noise_rate=None)
    noise = replace(noise, low=0.0, by_clean_labels=False)
    words = noise_in_words(replace(record, data=data, noise_estimate=noise))
    assert words.startswith("About 40.0 % of the labels are wrong, at most 50.0 %, by predictions")
    assert "Wrong labels that follow from the inputs are not counted" in words
    noise = replace(noise, low=None, high=None)  # as of an older version, too
    words = noise_in_words(replace(record, noise_estimate=noise))
    assert "wrong (standard error 1.0 %), by the training labels, which the networks may" in words
    assert "not been estimated" in noise_in_words(replace(record, noise_estimate=None))


def test_the_cost_names_its_stages() -> None:
    record = make_record()
    search = "Search: 100.0 s, 1,600 candidate epochs, as many as 40 full trainings have."
    made = "Made with keeprate 0.1.0, torch 2.13.0."
    finals = "Trainings after the search: 9.6 s."
    assert cost_in_words(record) == f"{search} {finals} {made}"
    record = replace(record, kind="train")
    assert cost_in_words(record).startswith("First training, which estimated the noise rate: 100.0")
    record = replace(record, cost=Cost(final_seconds=9.6), versions={})
    assert cost_in_words(record) == "Final trainings: 9.6 s."
    many = replace(record, kind="search", cost=Cost(60_000, 1500.0, 7260.0, 0.0))
    assert "2 h 1 min, 60,000 candidate epochs, as many as 1,500 full" in cost_in_words(many)


def test_a_run_from_python_has_no_command(tmp_path: Path) -> None:
    record = replace(undrawn(make_record()), command="")
    assert "started from Python" in write(record, tmp_path)


# Tables and pictures


def cells_of(table: str) -> list[list[str]]:
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", table)
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in rows]


def test_the_table_of_results() -> None:
    record = make_record()
    head, *rows = cells_of(results_table(record))
    assert head == [
        "Training",
        "Test accuracy, last epoch",
        "at its best epoch",
        "Validation accuracy, last epoch",
        "Label precision, last epoch",
        "Time",
    ]
    for cells, result in zip(rows, record.results, strict=True):
        curves = result.curves
        best = int(np.argmax(curves.test_accuracy))
        assert cells == [
            result.label,
            f"{100 * curves.test_accuracy[-1]:.1f} %",
            f"{100 * curves.test_accuracy[best]:.1f} % (epoch {best + 1})",
            f"{100 * curves.validation_accuracy[-1]:.1f} %",
            f"{100 * curves.label_precision[-1]:.1f} %",
            "3.2 s",
        ]
    table = results_table(record)
    first = '<tr class=first><td data-head="Training">Co-teaching, s'
    assert table.count("<tr class=first>") == 1 and first in table
    bare = with_curves(record, lambda curves: replace(curves, test_accuracy=[], label_precision=[]))
    head, *_ = cells_of(results_table(bare))
    assert head == ["Training", "Validation accuracy, last epoch", "Time"]
    assert "Best epoch" not in results_table(bare) and "Best epoch" in table


@pytest.mark.parametrize("own", ["searched", "custom", "mine"])
def test_as_many_results_as_methods_have_colours_of_their_own(own: str) -> None:
    results = [make_result(name, name, np.ones(EPOCHS), 0.1, 0) for name in (own, *METHODS)]
    assert len(set(colours_of(results))) == len(results)


def test_the_pictures_show_what_is_known() -> None:
    record = make_record()
    drawn = text_of(draw_curves(record))
    assert "Test accuracy, %" in drawn and "Validation accuracy, %" in drawn
    assert "Training loss" not in drawn and "best epoch on the test set" in drawn
    for result in record.results:
        assert f"{100 * result.curves.test_accuracy[-1]:.1f}" in drawn
    drawn = text_of(
        draw_curves(with_curves(record, lambda curves: replace(curves, test_accuracy=[])))
    )
    assert "Test accuracy" not in drawn and "best epoch" not in drawn
    assert "Training loss" in drawn and "0.28" in drawn
    assert "share of right labels, 55 %" in text_of(draw_keep_rate(record))
    unknown = replace(record, data=replace(record.data, noise_rate=None), results=())
    drawn = text_of(draw_keep_rate(unknown))
    assert "share of right labels" not in drawn
    assert re.search(r"best so far, trial \d+", drawn)


@pytest.mark.parametrize("n_classes", [2, 12, 13, 30, 31, 250])
def test_transition_matrices_of_few_and_many_classes(n_classes: int) -> None:
    names = [f"a class with a long name {number}" for number in range(n_classes)]
    matrix = make_estimate(n_classes).transition_matrix
    with styled():
        drawn = text_of(draw_transition(matrix, names))
    assert drawn.count("a class with …") == (2 * n_classes if n_classes <= 30 else 0)
    if n_classes <= 30:  # else numbers stand on the axes, too
        n_cells = n_classes if n_classes <= 12 else 0  # 60 on the diagonal, once on the colour bar
        assert drawn.split("\n").count("60") == n_cells + 1


def test_several_runs_side_by_side(tmp_path: Path) -> None:
    for name in ("one", "two"):
        record, _ = write_finished(tmp_path / name, ("a", "b"))
        save_record(tmp_path / name, record)
    save_record(tmp_path / "bare", replace(make_record(), results=(), trials=(), cost=Cost()))
    write_report([tmp_path / "one", tmp_path / "two"], tmp_path / "both.html")
    page = (tmp_path / "both.html").read_text()
    assert "2 runs side by side" in page and page.count("<svg") == 18
    ids = re.findall(r'\bid="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    write_report([tmp_path / "one"], tmp_path / "one.html")
    assert (tmp_path / "one.html").read_text().count("<svg") == 8
    write_report([tmp_path / "one", tmp_path / "bare"], tmp_path / "three.html")
    page = (tmp_path / "three.html").read_text()
    (row,) = [cells for cells in cells_of(page) if cells and "#run-1" in cells[0]]
    assert row[1:] == ["digits, pairflip:0.45", "not finished", "–", "–", "–", "0"]
    (row,) = [cells for cells in cells_of(page) if cells and "#run-0" in cells[0]]
    last = [f"{100 * result.curves.test_accuracy[-1]:.1f} %" for result in record.results]
    assert row[1:] == ["digits, pairflip:0.45", "Co-teaching, searched R(t)", *last, "40"]
    with pytest.raises(InputError):
        write_report([tmp_path / "three"], tmp_path / "x.html")


def test_accuracies_of_different_splits_are_told_apart(tmp_path: Path) -> None:
    record = make_record()
    save_record(tmp_path / "a", record)
    bare = with_curves(record, lambda curves: replace(curves, test_accuracy=[]))
    save_record(tmp_path / "b", bare)
    write_report([tmp_path / "a", tmp_path / "b"], tmp_path / "both.html")
    page = (tmp_path / "both.html").read_text()
    (row,) = [cells for cells in cells_of(page) if cells and "#run-1" in cells[0]]
    assert all(cell.endswith(" % (validation)") for cell in row[3:6])


# Records that know less


def without_test_split(record: RunRecord) -> RunRecord:
    record = replace(record, data=replace(record.data, n_test=0, test_labels="unknown"))
    return with_curves(record, lambda curves: replace(curves, test_accuracy=[]))


def without_true_labels(record: RunRecord) -> RunRecord:
    record = replace(record, data=replace(record.data, noise_rate=None))
    return with_curves(record, lambda curves: replace(curves, label_precision=[]))


def unfinished(record: RunRecord) -> RunRecord:
    return replace(record, results=(), cost=Cost(), finished=False)


def not_begun(record: RunRecord) -> RunRecord:
    return replace(record, results=(), trials=())


def plain_training(record: RunRecord) -> RunRecord:
    own = replace(record.results[0], name="custom")
    return replace(record, kind="train", trials=(), results=(own,))


def one_epoch(record: RunRecord) -> RunRecord:
    trials = tuple(replace(trial, keep_rate=(1.0,)) for trial in record.trials)

    def first_epoch(curves: Curves) -> Curves:
        return Curves(
            **{f.name: getattr(curves, f.name)[:1] for f in fields(Curves) if f.name != "seconds"}
        )

    record = replace(with_curves(record, first_epoch), trials=trials)
    return with_results(record, lambda result: replace(result, schedule=Schedule([1.0])))


def one_trial(record: RunRecord) -> RunRecord:
    return replace(record, trials=record.trials[:1])


def nothing_scored(record: RunRecord) -> RunRecord:
    failed = (
        replace(trial, value=None, reached=None, validation_score=(), state="failed")
        for trial in record.trials
    )
    return replace(record, trials=tuple(failed), results=())


def equal_trials(record: RunRecord) -> RunRecord:
    return replace(record, trials=tuple(replace(t, value=0.5, reached=0.5) for t in record.trials))


def many_trials(record: RunRecord) -> RunRecord:
    return replace(record, trials=make_trials(450))


def many_results(record: RunRecord) -> RunRecord:
    return replace(record, results=record.results * 4)


def without_matrices(record: RunRecord) -> RunRecord:
    """As a file holds it that has more classes than there is room for."""
    estimate = replace(make_estimate(2), transition_matrix=None, transition_matrix_std=None)
    return replace(record, noise_estimate=estimate)


def only_the_data(record: RunRecord) -> RunRecord:
    """What a run writes before anything else."""
    return RunRecord("search", "", {}, {}, record.data)


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
        equal_trials,
        many_trials,
        many_results,
        without_matrices,
        only_the_data,
    ],
)
def test_records_that_know_less(change: Callable[[RunRecord], RunRecord], tmp_path: Path) -> None:
    record = change(make_record())
    page = write(record, tmp_path / "run")
    assert "nan" not in re.sub(r"<svg.*?</svg>", "", page, flags=re.DOTALL).lower()
    assert "None" not in page and "()" not in page
    known = any(result.curves.label_precision for result in record.results)
    assert ("<h2>Label precision</h2>" in page) == known  # no empty frames
    n_drawings = 2 * (bool(record.trials or record.results) + bool(record.results) + known)
    assert page.count("<svg") == n_drawings
    save_record(tmp_path / "saved", record)  # and as the command reads it
    write_report([tmp_path / "saved"], tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text().count("<svg") == n_drawings


def test_unfinished_runs_are_said_to_be_unfinished() -> None:
    record = make_record()
    assert finding(not_begun(record)) == "The search is not finished. No trial has finished yet."
    assert finding(nothing_scored(record)) == finding(not_begun(record))
    train = replace(not_begun(record), kind="train")
    assert finding(train) == "The training is not finished."


def test_a_sample_of_many_trials_is_drawn(tmp_path: Path) -> None:
    page = write(many_trials(make_record()), tmp_path)
    assert "Thin lines (a sample of 200) are the schedules of the trials" in page


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "keep_rate.png").mkdir()
    with pytest.raises(InputError, match="could not be written"):
        write_plots(make_record(), tmp_path)
