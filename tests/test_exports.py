"""JSON tables, and the exports of annotation tools."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keeprate.errors import InputError
from keeprate.reading.exports import Export, read_export
from keeprate.reading.json_lines import read_json, write_corrected_json

Rows = Sequence[dict[str, Any]]
FORMS = ("lines", "list", "indented", "packed lines")


def write_json(path: Path, rows: Rows, form: str = "lines") -> Path:
    if form in ("list", "indented"):
        text = json.dumps(rows, indent=2 if form == "indented" else None, ensure_ascii=False)
    else:
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if form.startswith("packed") else text.encode())
    return path


def table(path: Path, *texts: str) -> dict[str, list[Any]]:
    return read_json(path, as_text=lambda name: name in texts).to_pydict()


def exported(path: Path, rows: Rows, form: str = "lines") -> Export:
    export = read_export(write_json(path, rows, form))
    assert export is not None
    return export


def refusal(path: Path, rows: Rows) -> str:
    with pytest.raises(InputError) as caught:
        read_export(write_json(path, rows))
    assert len(str(caught.value)) < 1000
    return str(caught.value)


# JSON ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_json(tmp_path: Path, form: str) -> None:
    rows = [
        {"text": "süß, 猫", "x": 1, "v": [1, 2], "label": "a", "meta": {"id": 1, "by": {"n": 2}}},
        {"text": "a\n{b}", "x": 2.5, "v": [3.5, 4], "label": "b", "new": None},
    ]
    assert table(write_json(tmp_path / "t.json", rows, form), "label") == {
        "text": ["süß, 猫", "a\n{b}"],
        "x": [1.0, 2.5],
        "v": [[1.0, 2.0], [3.5, 4.0]],
        "label": ["a", "b"],
        "meta.id": [1, None],
        "meta.by": [{"n": 2}, None],
        "new": [None, None],
    }


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_marks_of_the_encoding(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes('{"a": "ü"}\r\n\r\n{"a": "é"}'.encode(encoding))
    assert table(path) == {"a": ["ü", "é"]}


@pytest.mark.parametrize(
    ("values", "read"),
    [
        ([1, 2], [1, 2]),
        ([2**60, None], [2**60, None]),
        ([2**63, 1], [2**63, 1]),
        ([10**20, 1], ["100000000000000000000", "1"]),
        ([2**53 + 1, 0.5], ["9007199254740993", "0.5"]),
        ([True, False], [True, False]),
        ([True, 1, "x", None], ["true", "1", "x", None]),
        ([[1], None], [[1], None]),
        (["007", ""], ["007", ""]),
    ],
)
def test_kinds_of_values(tmp_path: Path, values: list[Any], read: list[Any]) -> None:
    path = write_json(tmp_path / "t.jsonl", [{"a": value} for value in values])
    assert table(path)["a"] == read
    assert table(path, "a")["a"] == read


def test_labels_of_decimals_are_text(tmp_path: Path) -> None:
    path = write_json(tmp_path / "t.jsonl", [{"a": 1.0}, {"a": 2}])
    assert table(path, "a")["a"] == ["1.0", "2"]


def test_kinds_are_told_by_all_rows(tmp_path: Path) -> None:
    rows = [{"a": 1, "b": [1]}] * 20_001 + [{"a": 1.5, "b": [1.5]}, {"a": None, "c": "x"}]
    read = table(write_json(tmp_path / "t.jsonl", rows))
    assert read["a"][0] == 1.0
    assert read["a"][-2:] == [1.5, None]
    assert read["b"][-2:] == [[1.5], None]
    assert read["c"][-2:] == [None, "x"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "an empty file"),
        ("[]", "must hold objects, got none"),
        ('{"a": 1}\n{"a": }\n', "must be JSON, got Expecting value in line 2, column 7"),
        ('[{"a": 1},\n{"a" 2}]', "must be JSON, got Expecting ':' delimiter in line 2, column 6"),
        ('{"a": 1}\n[2]\n', "must hold objects, got list in line 2"),
        ("[1, 2]", "must hold objects, got int in place 0 of the list"),
        ('{\n"data": [\n{"a": 1}\n]\n}', r"must hold rows, got one object of 1 keys \(data\)"),
        ('{"a": [1]}\n{"a": "x"}\n', "column a of .* must be of one kind"),
    ],
)
def test_json_that_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "t.json"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        table(path)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes('{"a": "grün"}\n{"a": "süß"}\n'.encode() + b'{"a": "\xff"}\n')
    with pytest.raises(InputError, match="must be utf-8 text, got the bytes ff in line 3;"):
        table(path)


def test_corrections_change_their_values_only(tmp_path: Path) -> None:
    text = '{"label" : "a","x":{"label": 1}, "t": "}{"}\r\n\n {"x":[{}], "label":3}\n{"label":null}'
    path = tmp_path / "t.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    write_corrected_json(path, tmp_path / "out.jsonl", "label", {0: 'ü"', 1: "4", 2: "5"})
    expected = text.replace('"a"', '"ü\\""').replace(":3", ":4").replace("null", '"5"')
    assert (tmp_path / "out.jsonl").read_bytes() == b"\xef\xbb\xbf" + expected.encode()


@pytest.mark.parametrize("form", FORMS)
def test_corrections_of_every_form(tmp_path: Path, form: str) -> None:
    rows = [{"text": f"{i}, {{", "label": "x"} for i in range(4)]
    path = write_json(tmp_path / "t.json", rows, form)
    write_corrected_json(path, path, "label", {2: "y"})
    rows[2]["label"] = "y"
    expected = write_json(tmp_path / "u.json", rows, form).read_bytes()
    if form == "packed lines":
        assert gzip.decompress(path.read_bytes()) == gzip.decompress(expected)
    else:
        assert path.read_bytes() == expected


@pytest.mark.parametrize(
    ("column", "row", "message"),
    [("label", 2, "must be for rows of the file, got 2"), ("lable", 0, "got 'lable'")],
)
def test_corrections_that_are_refused(tmp_path: Path, column: str, row: int, message: str) -> None:
    path = write_json(tmp_path / "t.jsonl", [{"label": "a"}, {"label": "b"}])
    with pytest.raises(InputError, match=message):
        write_corrected_json(path, path, column, {row: "x"})


VALUES = st.none() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=5) | st.booleans()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    rows=st.lists(st.fixed_dictionaries({"a": st.text(max_size=5), "n": VALUES}), min_size=1),
    form=st.sampled_from(FORMS),
    value=st.text(max_size=5),
    data=st.data(),
)
def test_any_correction_reads_back_the_same(
    tmp_path: Path, rows: list[dict[str, Any]], form: str, value: str, data: st.DataObject
) -> None:
    path = write_json(tmp_path / "t.json", rows, form)
    row = data.draw(st.integers(0, len(rows) - 1))
    write_corrected_json(path, path, "a", {row: value})
    expected = [value if i == row else one["a"] for i, one in enumerate(rows)]
    assert table(path, "a")["a"] == expected


# Label Studio ----------------------------------------------------------------------------------


def choice(*labels: str, **more: Any) -> dict[str, Any]:
    result = {
        "id": "x",
        "type": "choices",
        "from_name": "sentiment",
        "to_name": "text",
        "value": {"choices": list(labels)},
    }
    return {
        "id": 1,
        "completed_by": 1,
        "was_cancelled": False,
        "created_at": "2024-01-01T00:00:00Z",
        "result": [result] if labels else [],
        **more,
    }


def task(number: int, *annotations: dict[str, Any], **data: Any) -> dict[str, Any]:
    data = data or {"text": f"text {number}"}
    return {"id": number, "data": data, "annotations": list(annotations), "predictions": []}


@pytest.mark.parametrize("form", ["list", "indented", "lines"])
def test_label_studio_tasks(tmp_path: Path, form: str) -> None:
    rows = [
        task(1, choice("pos")),
        task(2, choice("neg")),
        task(3),
        task(4, choice("pos", was_cancelled=True)),
        task(5, choice()),
    ]
    export = exported(tmp_path / "any.name", rows, form)
    assert export.arrow.to_pydict() == {
        "id": [1, 2, 3, 4, 5],
        "text": [f"text {i}" for i in range(1, 6)],
        "sentiment": ["pos", "neg", None, None, None],
    }
    assert (export.label, export.kind) == ("sentiment", "Label Studio JSON")
    assert (export.ignored, export.votes) == (("id",), None)
    assert export.notes == (
        "the file is an export of Label Studio",
        "1 annotation is left out: cancelled or skipped",
        "1 annotation is left out: without a choice",
        "3 samples have no annotation and no label",
    )


def test_the_majority_of_annotators_decides(tmp_path: Path) -> None:
    def at(label: str, who: int, day: int) -> dict[str, Any]:
        return choice(label, completed_by=who, created_at=f"2024-01-0{day}T00:00:00Z")

    rows = [
        task(1, at("pos", 1, 1), at("neg", 2, 2), at("neg", 3, 3)),
        task(2, at("pos", 1, 3), at("neg", 2, 2)),
        task(3, at("pos", 1, 1)),
        task(4, at("pos", 1, 1), at("neg", 1, 2)),  # one annotator, who has changed her mind
    ]
    export = exported(tmp_path / "t.json", rows, "list")
    assert export.arrow["sentiment"].to_pylist() == ["neg", "neg", "pos", "neg"]
    assert export.votes == ({"pos": 1, "neg": 2}, {"neg": 1, "pos": 1}, {"pos": 1}, {"neg": 1})
    assert export.notes[1:] == (
        "2 samples of 4 have several annotators, of whom 58.3 % on average say what the label says",
        "1 sample has equally many votes for several labels; the first vote in time decides",
    )


def test_label_studio_tasks_of_numbers_and_images(tmp_path: Path) -> None:
    rows = [
        task(1, choice("a"), image="/data/1.jpg", width=3, sentiment="old", meta={"k": 1}),
        task(2, choice("b"), image="/data/2.jpg", width=4.5, sentiment="old"),
    ]
    export = exported(tmp_path / "t.json", rows)
    assert export.label == "sentiment_label"
    assert export.arrow.to_pydict() == {
        "id": [1, 2],
        "image": ["/data/1.jpg", "/data/2.jpg"],
        "width": [3.0, 4.5],
        "sentiment": ["old", "old"],
        "meta.k": [1, None],
        "sentiment_label": ["a", "b"],
    }


BOX = {
    "type": "rectanglelabels",
    "from_name": "tag",
    "value": {"x": 1, "y": 2, "width": 3, "height": 4, "rectanglelabels": ["car"]},
}
SPAN = {"type": "labels", "from_name": "l", "value": {"start": 0, "end": 2, "labels": ["PER"]}}
NOTE = {"type": "textarea", "from_name": "note", "value": {"text": ["well"]}}
OTHER = {"type": "choices", "from_name": "topic", "value": {"choices": ["sport"]}}


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        (choice("a", "b"), "several labels in one annotation (a, b): multi-label"),
        ({"result": [BOX]}, "spans or boxes"),
        ({"result": [SPAN]}, "spans or boxes"),
        ({"result": [NOTE]}, "annotations without a choice among classes"),
        ({"result": [*choice("a")["result"], OTHER]}, "several questions (sentiment, topic)"),
    ],
)
def test_label_studio_tasks_that_are_refused(
    tmp_path: Path, annotation: dict[str, Any], message: str
) -> None:
    assert message in refusal(tmp_path / "t.json", [task(1, annotation), task(2, annotation)])


def row(number: int, label: Any, who: int = 1, day: int = 1, **data: Any) -> dict[str, Any]:
    return {
        **(data or {"text": f"text {number}", "length": number}),
        "id": number,
        **({} if label is None else {"mood": label}),
        "annotator": who,
        "annotation_id": 10 * number + who,
        "created_at": f"2024-01-0{day}T00:00:00Z",
        "updated_at": "2024-01-09T00:00:00Z",
        "lead_time": 2.5,
    }


def csv_of(path: Path, rows: Rows, ordered: bool) -> Path:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(
        [
            {k: json.dumps(v) if isinstance(v, (dict, list)) else v for k, v in one.items()}
            for one in rows
        ]
    )
    frame = frame[sorted(frame.columns)] if ordered else frame
    frame.to_csv(path, index=False, quoting=2)
    return path


@pytest.mark.parametrize("form", ["list", "indented", "csv", "sorted csv"])
def test_label_studio_rows(tmp_path: Path, form: str) -> None:
    rows = [
        row(1, "good", 1, 2),
        row(1, "bad", 2, 1),
        row(2, "bad"),
        row(3, None),
        row(4, "007"),
        row(5, "bad"),
    ]
    path = tmp_path / "export"
    path = csv_of(path, rows, form[0] == "s") if "csv" in form else write_json(path, rows, form)
    export = read_export(path)
    assert export is not None
    read = export.arrow.to_pydict()
    assert set(read) == {"text", "length", "id", "mood"}
    assert read["mood"] == ["bad", "bad", None, "007", "bad"]
    assert read["length"] == [1, 2, 3, 4, 5]
    assert read["text"] == [f"text {i}" for i in range(1, 6)]
    assert (export.label, export.kind) == ("mood", "Label Studio rows")
    assert export.ignored == ("id",)
    assert export.votes is not None
    assert export.votes[0] == {"bad": 1, "good": 1}
    assert "the label is the column mood" in export.notes


@pytest.mark.parametrize("form", ["list", "csv", "sorted csv"])
@pytest.mark.parametrize(
    ("label", "message"),
    [
        ({"choices": ["a", "b"]}, "several labels in one annotation (a, b): multi-label"),
        ([{"start": 0, "end": 3, "labels": ["PER"]}], "spans or boxes"),
        ([{"x": 1.5, "y": 2, "width": 3, "rectanglelabels": ["car"]}], "spans or boxes"),
    ],
)
def test_label_studio_rows_that_are_refused(
    tmp_path: Path, form: str, label: Any, message: str
) -> None:
    rows = [row(1, "a"), row(2, label)] if "choices" in label else [row(1, label), row(2, label)]
    path = tmp_path / "export"
    path = csv_of(path, rows, form[0] == "s") if "csv" in form else write_json(path, rows, form)
    with pytest.raises(InputError) as caught:
        read_export(path)
    assert message in str(caught.value)


# Prodigy ---------------------------------------------------------------------------------------

OPTIONS = [{"id": "POS", "text": "positive"}, {"id": "NEG", "text": "negative"}]


def answer(number: int, accept: list[Any], kind: str = "accept", **more: Any) -> dict[str, Any]:
    return {
        "text": f"text {number}",
        "meta": {"source": "x"},
        "options": OPTIONS,
        "_input_hash": number,
        "_task_hash": -number,
        "_view_id": "choice",
        "accept": accept,
        "answer": kind,
        **more,
    }


def test_prodigy_choices(tmp_path: Path) -> None:
    rows = [
        answer(1, ["POS"], _annotator_id="set-ann", _timestamp=30),
        answer(1, ["NEG"], _annotator_id="set-bob", _timestamp=4),
        answer(2, ["NEG"], _annotator_id="set-ann"),
        answer(3, ["NEG"], "ignore"),
        answer(4, [], "reject"),
        answer(5, []),
    ]
    export = exported(tmp_path / "t.jsonl", rows)
    assert export.arrow.to_pydict() == {
        "text": [f"text {i}" for i in range(1, 6)],
        "label": ["NEG", "NEG", None, None, None],
    }
    assert export.votes == ({"NEG": 1, "POS": 1}, {"NEG": 1}, {}, {}, {})
    assert export.kind == "Prodigy"
    assert {
        "1 annotation is left out: ignored",
        "1 annotation is left out: rejected",
        "1 annotation is left out: without a choice",
    } < set(export.notes)


def test_prodigy_questions_of_one_label(tmp_path: Path) -> None:
    rows = [
        {
            "text": f"text {i}",
            "_input_hash": i,
            "_task_hash": i,
            "label": "SPAM" if i < 3 else "HAM",
            "score": 0.5,
            "spans": [],
            "answer": "reject" if i == 2 else "accept",
        }
        for i in range(5)
    ]
    export = exported(tmp_path / "t.jsonl", rows)
    assert export.arrow["label"].to_pylist() == ["SPAM", "SPAM", None, "HAM", "HAM"]
    assert export.arrow.column_names == ["text", "label"]
    export = exported(tmp_path / "t.jsonl", rows[:3])
    assert any("all accepted annotations say SPAM" in note for note in export.notes)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([answer(1, ["POS", "NEG"])], "several labels in one annotation (POS, NEG): multi-label"),
        (
            [
                {
                    "text": "a",
                    "_input_hash": 1,
                    "answer": "accept",
                    "spans": [{"start": 0, "end": 1}],
                }
            ],
            "spans or boxes",
        ),
        ([{"text": "a", "_input_hash": 1, "answer": "accept"}], "without a choice"),
    ],
)
def test_prodigy_that_is_refused(tmp_path: Path, rows: Rows, message: str) -> None:
    assert message in refusal(tmp_path / "t.jsonl", rows)


# doccano ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["label", "labels", "cats"])
@pytest.mark.parametrize("text", ["text", "filename"])
def test_doccano(tmp_path: Path, key: str, text: str) -> None:
    rows = [
        {"id": 7, text: "one", key: ["pos"], "Comments": []},
        {"id": 8, text: "two", key: ["neg"], "Comments": ["hm"]},
        {"id": 9, text: "three", key: [], "Comments": []},
        {"id": 7, text: "one", key: ["pos"], "Comments": []},
    ]
    export = exported(tmp_path / "all.jsonl", rows)
    assert export.arrow.to_pydict() == {
        "id": [7, 8, 9],
        text: ["one", "two", "three"],
        "label": ["pos", "neg", None],
    }
    assert (export.kind, export.ignored) == ("doccano", ("id",))
    assert export.votes == ({"pos": 2}, {"neg": 1}, {})


def test_doccano_without_ids_and_with_users(tmp_path: Path) -> None:
    rows = [
        {"text": "one", "label": ["a"], "username": "ann"},
        {"text": "one", "label": ["b"], "username": "bob"},
        {"text": "two", "label": ["b"], "username": "bob"},
    ]
    export = exported(tmp_path / "t.jsonl", rows)
    assert export.arrow["label"].to_pylist() == ["a", "b"]
    assert export.ignored == ("username",)
    rows = [
        {"id": 1, "text": "one", "meta": {}, "annotations": [{"label": 2, "user": 1}]},
        {
            "id": 2,
            "text": "two",
            "meta": {},
            "annotations": [{"label": 3, "user": u} for u in (1, 2)],
        },
    ]
    export = exported(tmp_path / "t.jsonl", rows)
    assert export.arrow["label"].to_pylist() == ["2", "3"]
    assert export.votes == ({"2": 1}, {"3": 2})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"label": ["a", "b"]}, "(a, b): multi-label"),
        ({"labels": [[0, 3, "PER"]]}, "spans or boxes"),
        ({"entities": [[0, 3, "PER"]]}, "spans or boxes"),
        (
            {"annotations": [{"label": 1, "start_offset": 0, "end_offset": 2, "user": 1}]},
            "spans or boxes",
        ),
        ({"annotations": [{"label": i, "user": 1} for i in (1, 2)]}, "(1, 2): multi-label"),
    ],
)
def test_doccano_that_is_refused(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    assert message in refusal(tmp_path / "t.jsonl", [{"id": 1, "text": "one", **fields}])


# SageMaker Ground Truth ------------------------------------------------------------------------


def entry(name: str, label: str | None, source: str = "source-ref", **more: Any) -> dict[str, Any]:
    metadata = {
        "class-name": label,
        "confidence": 0.8,
        "type": "groundtruth/image-classification",
        "job-name": "identify-sport",
        "human-annotated": "yes",
        "creation-date": "2018-10-18T22:18:13.527256",
        **more,
    }
    if label is None:
        return {source: name, "sport-metadata": {"failure-reason": "no workers"}}
    return {source: name, "sport": 0, "sport-metadata": metadata}


@pytest.mark.parametrize("source", ["source", "source-ref"])
def test_ground_truth(tmp_path: Path, source: str) -> None:
    rows = [
        entry("s3://b/1.png", "football", source),
        entry("s3://b/2.png", "tennis", source, **{"human-annotated": "no"}),
        entry("s3://b/3.png", None, source),
    ]
    export = exported(tmp_path / "output.manifest", rows)
    assert export.arrow.to_pydict() == {
        source: [f"s3://b/{i}.png" for i in (1, 2, 3)],
        "sport-confidence": [0.8, 0.8, None],
        "sport": ["football", "tennis", None],
    }
    assert (export.kind, export.label) == ("SageMaker Ground Truth", "sport")
    assert (export.ignored, export.votes) == (("sport-confidence",), None)
    assert "a model, not a person, gave 1 of the labels" in export.notes
    assert "1 annotation is left out: failed" in export.notes


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {
                "t": [0, 1],
                "t-metadata": {
                    "class-map": {"0": "a", "1": "b"},
                    "type": "groundtruth/text-classification-multilabel",
                },
            },
            "multi-label",
        ),
        (
            {
                "box": {"annotations": [{"class_id": 0, "top": 1}]},
                "box-metadata": {"type": "groundtruth/object-detection"},
            },
            "spans or boxes",
        ),
        (
            {"a": 0, "a-metadata": {"class-name": "x"}, "b": 0, "b-metadata": {"class-name": "y"}},
            "several questions (a, b)",
        ),
    ],
)
def test_ground_truth_that_is_refused(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    assert message in refusal(tmp_path / "t.jsonl", [{"source": "one", **fields}])


# Plain tables ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rows",
    [
        [{"text": "one", "label": "a"}, {"text": "two", "label": "b"}],
        [{"id": 1, "data": [1, 2], "label": 0}],
        [{"source": "web", "text": "one", "label": "a"}],
        [{"text": "one", "label": [0, 1, 0]}],
        [{"text": "one", "labels": [[1, 2, 3]]}],
        [{"label": "a", "answer": "yes"}],
    ],
)
def test_plain_json_is_no_export(tmp_path: Path, rows: Rows) -> None:
    for form in FORMS:
        assert read_export(write_json(tmp_path / "t.json", rows, form)) is None


@pytest.mark.parametrize(
    "data",
    [
        b"text,label\none,a\n",
        b"id,annotator,label\n1,2,a\n",
        b"a,label\n1,\xfc\xff\n",
        b"",
        b"\x89PNG\r\n\x1a\n\0\0",
        b"text,label\nannotation_id lead_time,a\n",
    ],
)
def test_other_files_are_no_export(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(data)
    assert read_export(path) is None


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing\.json could not be read"):
        read_export(tmp_path / "nothing.json")
