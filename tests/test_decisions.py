"""Decisions on labels: the file, what a run says to it, and the source written anew."""

from __future__ import annotations

import csv
import errno
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keeprate.data import Source, load_data
from keeprate.errors import InputError
from keeprate.records import (
    DECISION_COLUMNS,
    LabelQuality,
    apply_decisions,
    earlier_decisions,
    load_decisions,
    save_record,
)
from tests.report_records import make_record
from tests.sources import pa, pixels, pq, write_images

CLASSES = ("ape", "bee", "cat")
GIVEN = [CLASSES[i % 3] for i in range(9)]
Row = tuple[object, ...]


def make_run(folder: Path, source: Path, **options: Any) -> Path:
    """A finished run on a source, which has judged every label of it."""
    loaded = load_data(source, **options)
    split, names = loaded.splits["train"], loaded.class_names
    given = split.labels.numpy()
    quality = LabelQuality(
        split.rows.numpy(), given, given, np.full(len(given), 0.1), np.full(len(given), -1),
        split.names,
    )  # fmt: skip
    record = make_record()
    data = replace(record.data, class_names=names, noise="none", source=loaded.source)
    folder.mkdir()
    quality.save(folder / "label_quality.csv", names)
    save_record(folder, replace(record, data=data, results=(), trials=()))
    return folder


def write_decisions(path: Path, rows: Sequence[Row], columns: Sequence[str] = ()) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns or DECISION_COLUMNS, *rows])
    return path


DECIDED: list[Row] = [(1, "bee", "change", "cat"), (3, "ape", "drop", ""), (4, "bee", "keep", "")]


def write_csv_source(path: Path, given: Sequence[str] = GIVEN) -> Path:
    path.write_text("size,label\n" + "".join(f"{i}.5,{name}\n" for i, name in enumerate(given)))
    return path


@pytest.fixture
def csv_run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run", write_csv_source(tmp_path / "a.csv"))


def everything(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def refusal(run: Path, decisions: Path, **options: Any) -> str:
    """What is said; nothing may have been written."""
    before = everything(run.parent)
    with pytest.raises(InputError) as caught:
        apply_decisions(run, decisions, run.parent / "fixed", **options)
    assert everything(run.parent) == before and not (run.parent / "fixed").exists()
    assert len(str(caught.value)) < 1000
    return str(caught.value)


def test_a_table_is_written_anew(csv_run: Path, tmp_path: Path) -> None:
    decisions = write_decisions(tmp_path / "d.csv", DECIDED)
    done = apply_decisions(csv_run, decisions, tmp_path / "fixed")
    assert (done.n_changed, done.n_dropped, done.n_kept) == (1, 1, 1)
    assert done.out == tmp_path / "fixed" / "a.csv"
    lines = (tmp_path / "a.csv").read_text().splitlines()
    lines[2] = "1.5,cat"
    del lines[4]
    assert done.out.read_text().splitlines() == lines
    assert [path.name for path in done.out.parent.iterdir()] == ["a.csv"]
    done = apply_decisions(csv_run, decisions, tmp_path / "fixed.csv")
    assert done.out.read_text().splitlines() == lines
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_two_people_decide_each_in_a_file_of_their_own(csv_run: Path, tmp_path: Path) -> None:
    one = write_decisions(tmp_path / "one.csv", DECIDED)
    apply_decisions(csv_run, one, tmp_path / "fixed")
    other = write_decisions(
        tmp_path / "other.csv", [(8, "cat", "change", "ape"), (4, "bee", "drop", "")]
    )
    done = apply_decisions(csv_run, other, tmp_path / "both")
    assert (done.n_changed, done.n_dropped, done.n_kept) == (2, 2, 0)
    names = [line.split(",")[1] for line in done.out.read_text().split()[1:]]
    assert names == ["ape", "cat", "cat", "cat", "ape", "bee", "ape"]
    verdicts = {one.index: one.verdict for one in earlier_decisions(csv_run)}
    assert verdicts == {1: "change", 3: "drop", 4: "drop", 8: "change"}


def test_nothing_is_written_where_the_run_cannot_keep_decisions(
    csv_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that is read-only, or a disk that is full."""
    decisions = write_decisions(tmp_path / "d.csv", DECIDED)

    def full(source: Any, target: Any) -> None:
        if Path(target).name == "decisions.csv":
            raise OSError(errno.EROFS, "Read-only file system")
        os.rename(source, target)

    monkeypatch.setattr(os, "replace", full)
    assert "could not be written" in refusal(csv_run, decisions)


def test_decisions_of_before_stay_where_a_copy_fails(csv_run: Path, tmp_path: Path) -> None:
    apply_decisions(csv_run, write_decisions(tmp_path / "d.csv", DECIDED), tmp_path / "once")
    before = earlier_decisions(csv_run)
    other = write_decisions(tmp_path / "other.csv", [(8, "cat", "change", "ape")])
    with pytest.raises(InputError, match="out must be a new"):
        apply_decisions(csv_run, other, tmp_path / "once")
    assert earlier_decisions(csv_run) == before


def test_other_forms_of_one_file(tmp_path: Path) -> None:
    rows = [{"size": i * 0.5, "label": name} for i, name in enumerate(GIVEN)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    np.savez(tmp_path / "a.npz", x=np.arange(9.0)[:, None], y=np.array(GIVEN))
    decisions = write_decisions(tmp_path / "d.csv", DECIDED)
    for kind in ("jsonl", "parquet", "npz"):
        run = make_run(tmp_path / f"run-{kind}", tmp_path / f"a.{kind}")
        done = apply_decisions(run, decisions, tmp_path / f"fixed-{kind}")
        after = load_data(done.out)
        labels = [after.class_names[i] for i in after.splits["train"].labels.tolist()]
        assert labels == ["ape", "cat", "cat", "bee", "cat", "ape", "bee", "cat"]


@pytest.mark.parametrize("link", [False, True])
def test_images_are_found_by_their_names(tmp_path: Path, link: bool) -> None:
    """A row is what reading counts: a file that came later must not move the decisions."""
    images = pixels(9)
    folder = write_images(tmp_path / "images", {c: images[i::3] for i, c in enumerate(CLASSES)})
    run = make_run(tmp_path / "run", folder)
    rows = [(3, "bee", "change", "cat"), (8, "cat", "drop", ""), (4, "bee", "keep", "bee")]
    decisions = write_decisions(tmp_path / "d.csv", rows)
    write_images(tmp_path / "more", {"ape": pixels(1, seed=7)})
    os.rename(tmp_path / "more/ape/0.png", folder / "ape/00.png")
    done = apply_decisions(run, decisions, tmp_path / "fixed", link=link)
    found = sorted(str(path.relative_to(done.out)) for path in done.out.rglob("*.png"))
    assert found == [
        "ape/0.png", "ape/00.png", "ape/1.png", "ape/2.png", "bee/1.png", "bee/2.png",
        "cat/0-1.png", "cat/0.png", "cat/1.png",
    ]  # fmt: skip
    assert (done.out / "cat/0-1.png").samefile(folder / "bee/0.png") is link
    (folder / "bee/1.png").unlink()
    with pytest.raises(InputError, match=r"got 'bee/1.png'"):
        apply_decisions(run, decisions, tmp_path / "again")


def test_the_source_may_have_moved(csv_run: Path, tmp_path: Path) -> None:
    decisions = write_decisions(tmp_path / "d.csv", DECIDED)
    (tmp_path / "a.csv").rename(tmp_path / "moved.csv")
    assert "--data" in refusal(csv_run, decisions)
    done = apply_decisions(csv_run, decisions, tmp_path / "fixed", data=tmp_path / "moved.csv")
    assert done.out.name == "moved.csv"


def test_a_source_that_changed_is_refused(csv_run: Path, tmp_path: Path) -> None:
    """A row more in a sorted file moves the labels hardly: the count tells."""
    source, decisions = tmp_path / "a.csv", write_decisions(tmp_path / "d.csv", DECIDED)
    write_csv_source(source, ["ape", *GIVEN])
    assert "the number of labels" in refusal(csv_run, decisions)
    write_csv_source(source, [*GIVEN[1:], GIVEN[0]])
    assert "the label of row 1" in refusal(csv_run, decisions)
    write_csv_source(source, GIVEN)
    done = apply_decisions(csv_run, decisions, tmp_path / "once")
    assert "the number of labels" in refusal(csv_run, decisions, data=done.out)  # twice


def test_labels_may_look_otherwise_in_the_source(tmp_path: Path) -> None:
    source = tmp_path / "a.csv"
    source.write_text("size,kind\n" + "".join(f"{i}.5,{i % 2}.0\n" for i in range(6)) + "9,\n")
    run = make_run(tmp_path / "run", source, label="kind")
    rows: list[Row] = [(0, "0", "change", "1"), (5, "1", "keep", "")]
    done = apply_decisions(run, write_decisions(tmp_path / "d.csv", rows), tmp_path / "fixed")
    assert done.out.read_text() == source.read_text().replace("0.5,0.0", "0.5,1")


def test_decisions_may_come_from_a_spreadsheet(csv_run: Path, tmp_path: Path) -> None:
    text = "name;label;decision;given_label;index;note\n;cat;change;bee;1;looked twice\n"
    (tmp_path / "d.csv").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    done = apply_decisions(csv_run, tmp_path / "d.csv", tmp_path / "fixed")
    assert "1.5,cat" in done.out.read_text()


def test_texts_that_look_like_formulas(tmp_path: Path) -> None:
    source = write_csv_source(tmp_path / "a.csv", ["=a", "-b", "'=a", "-b"])
    run = make_run(tmp_path / "run", source)
    rows: list[Row] = [(0, "'=a", "change", "'-b"), (2, "''=a", "change", "'=a")]
    done = apply_decisions(run, write_decisions(tmp_path / "d.csv", rows), tmp_path / "fixed")
    assert [line.split(",")[1] for line in done.out.read_text().split()[1:]] == [
        "-b", "-b", "=a", "-b",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ((9, "ape", "keep", ""), "on labels that the run judged, got 9"),
        (("1.5", "bee", "keep", ""), "index in row 2 of"),
        (("", "bee", "keep", ""), "index in row 2 of"),
        ((1, "", "keep", ""), "given_label in row 2 of"),
        ((1, "ape", "keep", ""), "be 'bee' as in the run"),
        ((1, "bee", "keep", "cat"), "which says keep"),
        ((1, "bee", "change", "bee"), "which says change"),
        ((1, "bee", "change", ""), "which says change"),
        ((1, "bee", "change", "dgo"), "choose one of ape, bee, cat"),
        ((1, "bee", "remove", ""), "be keep, change, drop"),
        ((0, "ape", "drop", ""), "2 on row 0"),
    ],
)
def test_a_decision_that_does_not_fit(csv_run: Path, tmp_path: Path, row: Row, words: str) -> None:
    decisions = write_decisions(tmp_path / "d.csv", [(0, "ape", "keep", ""), row])
    assert words in refusal(csv_run, decisions)


def test_files_that_are_no_decisions(csv_run: Path, tmp_path: Path) -> None:
    assert "none called index" in refusal(csv_run, tmp_path / "a.csv")
    assert "a header without rows" in refusal(csv_run, write_decisions(tmp_path / "d.csv", []))
    assert "be a file" in refusal(csv_run, tmp_path / "nowhere.csv")
    named = write_decisions(
        tmp_path / "n.csv", [(0, "ape", "keep", "", "other")], (*DECISION_COLUMNS, "name")
    )
    assert load_decisions(named)[0].name == "other"
    texts = tmp_path / "t.csv"
    texts.write_text("text,label\n" + "".join(f"word {i},{n}\n" for i, n in enumerate(GIVEN)))
    run = make_run(tmp_path / "texts", texts, columns={"text": "text"})
    assert "be 'word 0' as in the run" in refusal(run, named)


def test_a_place_that_is_taken(csv_run: Path, tmp_path: Path) -> None:
    decisions = write_decisions(tmp_path / "d.csv", DECIDED)
    before = everything(tmp_path)
    for out in (tmp_path / "a.csv", csv_run, tmp_path):
        with pytest.raises(InputError, match="out must be a new"):
            apply_decisions(csv_run, decisions, out)
    assert everything(tmp_path) == before


def test_runs_whose_labels_have_no_place(tmp_path: Path) -> None:
    record, decisions = make_record(), write_decisions(tmp_path / "d.csv", DECIDED)
    source = write_csv_source(tmp_path / "a.csv")
    run = make_run(tmp_path / "run", source)
    for data, words in (
        (replace(record.data, class_names=CLASSES), "pairflip:0.45 added"),
        (replace(record.data, class_names=CLASSES, noise="none"), "keeprate.apply"),
        (
            replace(record.data, class_names=CLASSES, noise="none", source=Source("digits", "", 9)),
            "data that lie elsewhere",
        ),
        (
            replace(
                record.data, class_names=CLASSES, noise="none", source=Source(str(source), "", 9)
            ),
            "correct the votes",
        ),
    ):
        save_record(run, replace(record, data=data, results=(), trials=()))
        assert words in refusal(run, decisions)
