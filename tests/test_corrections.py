"""Labels written back: nothing but corrected labels and dropped rows tells a copy from a source."""

from __future__ import annotations

import gzip
import json
import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from keeprate.data import Loaded, Split, load_data, write_corrected
from keeprate.errors import InputError
from tests.sources import pa, png, pq, write_images, write_parquet

CLASSES = ("ape", "bee", "cat")
FAST = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
Corrections = dict[int, str | None]  # None: the row is dropped
CORRECTIONS = st.dictionaries(st.integers(0, 11), st.sampled_from([*CLASSES, None]), max_size=5)


def labels_of(loaded: Loaded, split: str = "train") -> dict[int, str]:
    """Return the class of each row of the source."""
    part = loaded.splits[split]
    numbers = part.labels.tolist()
    rows = part.rows.tolist()
    return {row: loaded.class_names[n] for row, n in zip(rows, numbers, strict=True)}


def inputs_of(split: Split, without: Sequence[int] = ()) -> list[Any]:
    kept = [i for i, row in enumerate(split.rows.tolist()) if row not in without]
    names = [split.names[i] for i in kept] if split.names else []
    return [split.inputs[kept].tolist(), names] + ([] if without else [split.rows.tolist()])


def check(source: Path, out: Path, corrections: Corrections, **loading: Any) -> Loaded:
    """Write and read again: only labels of corrected rows and dropped rows may differ."""
    before = load_data(source, **loading)
    write_corrected(source, out, corrections, label=loading.get("label"))
    after = load_data(out, **loading)
    assert after.class_names == before.class_names
    assert after.splits.keys() == before.splits.keys()
    dropped = [row for row, name in corrections.items() if name is None]
    expected = labels_of(before) | corrections
    if dropped:  # the rows behind have other numbers
        left = [name for _, name in sorted(expected.items()) if name is not None]
        assert list(labels_of(after).values()) == left
        without = inputs_of(before.splits["train"], dropped)
        assert inputs_of(after.splits["train"])[:2] == without
    else:
        assert labels_of(after) == expected
    for name, split in before.splits.items():
        if name != "train" or not dropped:
            assert inputs_of(after.splits[name]) == inputs_of(split)
        if name != "train":
            assert labels_of(after, name) == labels_of(before, name)
    return after


def refusal(source: Any, out: Path, corrections: dict[Any, Any], **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        write_corrected(source, out, corrections, **options)
    assert len(str(caught.value)) < 1000
    return str(caught.value)


# Text ------------------------------------------------------------------------------------------


def csv_text(missing: tuple[int, ...] = ()) -> str:
    """A table whose classes stay the same whichever rows are corrected: the last rows hold all."""
    names = [CLASSES[i % 3] for i in range(12)] + list(CLASSES)
    names = ["" if i in missing else name for i, name in enumerate(names)]
    rows = [f'{i}.5;"a; ""b""";{name}' for i, name in enumerate(names)]
    return "\r\n".join(["size;words;label", "", *rows]) + "\r\n"


@FAST
@given(CORRECTIONS)
def test_csv_keeps_all_other_bytes(tmp_path: Path, corrections: Corrections) -> None:
    source, out = tmp_path / "a.csv", tmp_path / "b.csv"
    source.write_bytes(csv_text().encode())
    check(source, out, corrections)
    lines = csv_text().split("\r\n")
    for row, name in sorted(corrections.items(), reverse=True):
        if name is None:
            del lines[2 + row]
        else:
            lines[2 + row] = ";".join([*lines[2 + row].split(";")[:-1], name])
    assert out.read_bytes() == "\r\n".join(lines).encode()


def test_rows_without_a_label_count(tmp_path: Path) -> None:
    source = tmp_path / "a.csv.gz"
    source.write_bytes(gzip.compress(csv_text(missing=(0, 3, 4)).encode()))
    rows = load_data(source).splits["train"].rows.tolist()
    assert rows[:3] == [1, 2, 5]
    after = check(source, source, {5: "ape", 11: "bee"})  # the source itself
    assert len(after.splits["train"]) == 12
    assert source.read_bytes()[:2] == b"\x1f\x8b"


def test_text_of_another_encoding_with_numbers_for_classes(tmp_path: Path) -> None:
    source, out = tmp_path / "a.csv", tmp_path / "b.csv"
    text = "wörter,größe,target\n" + "".join(f"Bäume und Äpfel,{i}.5,{i % 3}\n" for i in range(9))
    source.write_bytes(text.encode("utf-16"))
    check(source, out, {8: "0", 1: "2"})
    expected = text.replace(",1.5,1\n", ",1.5,2\n").replace(",8.5,2\n", ",8.5,0\n")
    assert out.read_bytes() == expected.encode("utf-16")


@FAST
@given(CORRECTIONS)
def test_json_lines_keep_all_other_bytes(tmp_path: Path, corrections: Corrections) -> None:
    source, out = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    names = [CLASSES[i % 3] for i in range(12)] + list(CLASSES)
    lines = [f'{{"size" : {i}.50, "label":"{name}" }}' for i, name in enumerate(names)]
    source.write_text("\n".join(lines))
    check(source, out, corrections)
    for row, name in sorted(corrections.items(), reverse=True):
        lines[row] = f'{{"size" : {row}.50, "label":"{name}" }}'
        lines[row : row + 1] = [lines[row]] if name else []
    assert out.read_text() == "\n".join(lines)


@FAST
@given(CORRECTIONS)
def test_a_json_list_without_some_objects_is_one(tmp_path: Path, corrections: Corrections) -> None:
    source, out = tmp_path / "a.json", tmp_path / "b.json"
    rows = [{"size": i * 0.5, "label": (CLASSES * 5)[i]} for i in range(15)]
    source.write_text(json.dumps(rows, indent=2))
    check(source, out, corrections)
    kept = [{**row, "label": corrections.get(i, row["label"])} for i, row in enumerate(rows)]
    assert out.read_text() == json.dumps([row for row in kept if row["label"]], indent=2)


@pytest.mark.parametrize(
    ("written", "name", "expected"),
    [
        ([1, 2, 10], "10", "10"),
        ([True, False, False], "False", "false"),
        (["x", "y", "z"], "z", '"z"'),
    ],
)
def test_json_keeps_the_type(tmp_path: Path, written: list[Any], name: str, expected: str) -> None:
    source, out = tmp_path / "a.json", tmp_path / "b.json"
    rows = [{"size": i, "label": written[i % 3]} for i in range(6)]
    source.write_text(json.dumps(rows))
    check(source, out, {0: name})
    start = json.dumps([{**rows[0], "label": json.loads(expected)}])[:-1]
    assert out.read_text() == start + source.read_text()[len(json.dumps(rows[:1])) - 1 :]


def test_json_within_an_object_and_without_some_labels(tmp_path: Path) -> None:
    source, out = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    rows = [{"size": i, "is": {"at": i, "class": CLASSES[i % 3]}} for i in range(9)]
    rows[2]["is"]["class"] = None  # type: ignore[index]
    source.write_text("\n".join(map(json.dumps, rows)))
    check(source, out, {3: "cat"}, label="is.class")
    rows[3]["is"]["class"] = "cat"  # type: ignore[index]
    assert out.read_text() == "\n".join(map(json.dumps, rows))


# Parquet ---------------------------------------------------------------------------------------


@FAST
@given(CORRECTIONS, st.sampled_from(["snappy", "zstd", "none"]), st.integers(2, 20))
def test_parquet_of_strings(
    tmp_path: Path, corrections: Corrections, compression: str, group: int
) -> None:
    source, out = tmp_path / "a.parquet", tmp_path / "b.parquet"
    names = [CLASSES[i % 3] for i in range(12)] + [None, *CLASSES]
    columns = {
        "size": [i + 0.5 for i in range(16)],
        "label": names,
        "list": [[i] for i in range(16)],
    }
    table = pa.table(columns).replace_schema_metadata({"note": "by hand"})
    pq.write_table(table, source, row_group_size=group, compression=compression)
    check(source, out, corrections)
    expected = list(names)
    for row, name in corrections.items():
        expected[row] = name
    table = pq.read_table(source).set_column(1, "label", [expected])
    dropped = {row for row, name in corrections.items() if name is None}
    table = table.take([i for i in range(16) if i not in dropped])
    assert pq.read_table(out).equals(table, check_metadata=True)
    if not dropped:
        assert layout(out) == layout(source)
    assert all(layout(out)[4])  # no row group is empty


def layout(path: Path) -> list[Any]:
    metadata = pq.read_metadata(path)
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    columns = [[g.column(i) for i in range(metadata.num_columns)] for g in groups]
    texts = dict(metadata.metadata or {})
    stored = texts.pop(b"ARROW:schema", None)  # it may call what lists hold by another name
    kept = [(c.path_in_schema, c.compression, c.physical_type, c.is_stats_set) for c in columns[0]]
    return [
        texts,
        stored is None,
        metadata.format_version,
        str(metadata.schema).partition("\n")[2],
        [group.num_rows for group in groups],
        kept,
    ]


def test_parquet_with_class_names(tmp_path: Path) -> None:
    images = np.arange(6 * 35, dtype=np.uint8).reshape(6, 7, 5)
    labels = {"label": [0, 1, 2, 0, 1, 2]}
    source = write_parquet(tmp_path / "a.parquet", images, labels, {"label": ["x", "w", "v"]})
    out = tmp_path / "b.parquet"
    check(source, out, {0: "v", 5: "w"})
    assert pq.read_table(out).column("label").to_pylist() == [2, 1, 2, 0, 1, 1]
    assert "one of" in refusal(source, out, {0: "cat"})


@pytest.mark.parametrize(
    ("kind", "values", "name", "written", "refused"),
    [
        (pa.int8(), [3, 1, 2], "3", 3, ["500", "cat", "1.5"]),
        (pa.uint64(), [3, 1, 2], "3", 3, ["-1", "cat"]),
        (pa.float32(), [3.0, 1.0, 2.0], "3", 3.0, ["cat", "16777217", "1.5"]),
        (pa.bool_(), [True, False, True], "True", True, ["1", "yes"]),
        (pa.large_string(), ["3", "1", "2"], "3", "3", []),
        (pa.dictionary(pa.int8(), pa.string()), ["3", "1", "2"], "3", "3", []),
        (pa.dictionary(pa.int32(), pa.int64()), [3, 1, 2], "3", 3, ["cat"]),
    ],
)
def test_parquet_of_any_type(
    tmp_path: Path, kind: Any, values: list[Any], name: str, written: Any, refused: list[str]
) -> None:
    source, out = tmp_path / "a.parquet", tmp_path / "b.parquet"
    table = pa.table({"size": list(range(9)), "label": pa.array(values * 3, kind)})
    pq.write_table(table, source, row_group_size=2)
    check(source, out, {1: name, 8: name})
    result = pq.read_table(out)
    assert result.schema.equals(pq.read_schema(source), check_metadata=True)
    expected = values * 3
    expected[1] = expected[8] = written
    assert result.column("label").to_pylist() == expected
    for wrong in refused:
        message = refusal(source, tmp_path / "c.parquet", {0: wrong})
        assert wrong in message and "label" in message
    assert not (tmp_path / "c.parquet").exists()


def test_parquet_gets_a_new_category_behind_the_others(tmp_path: Path) -> None:
    source, out = tmp_path / "a.parquet", tmp_path / "b.parquet"
    kind = pa.dictionary(pa.int8(), pa.string(), ordered=True)
    labels = pa.DictionaryArray.from_arrays(
        pa.array([0, 1, 0, 1], pa.int8()), pa.array(["small", "large"]), ordered=True
    )
    pq.write_table(pa.table({"size": [1, 2, 3, 4], "label": labels}), source)
    write_corrected(source, out, {2: "huge"})
    column = pq.read_table(out).column("label")
    assert column.type == kind
    assert column.to_pylist() == ["small", "large", "huge", "large"]
    assert column.chunk(0).dictionary.to_pylist() == ["small", "large", "huge"]


@pytest.mark.parametrize("noted", [True, False])
def test_parquet_of_other_writers_keeps_its_schema(tmp_path: Path, noted: bool) -> None:
    source, out = tmp_path / "a.parquet", tmp_path / "b.parquet"
    when = pa.array(range(6), pa.timestamp("ns"))
    table = pa.table({"when": when, "list": [[i] for i in range(6)], "label": ["a", "b"] * 3})
    writing = {
        "store_schema": False,
        "use_deprecated_int96_timestamps": True,
        "use_compliant_nested_type": False,
        "use_dictionary": False,
        "version": "1.0",
    }
    with pq.ParquetWriter(source, table.schema, **writing) as writer:
        writer.write_table(table)
        if noted:
            writer.add_key_value_metadata({"note": "by hand"})
    write_corrected(source, out, {0: "b"})
    assert layout(out) == layout(source)
    assert pq.read_schema(out).equals(pq.read_schema(source), check_metadata=True)


# Arrays ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "name", "refused"),
    [
        (np.array([1, 2, 3] * 4, np.int8), "3", ["200", "cat"]),
        (np.array([[1], [2], [3]] * 4, np.float64), "3", ["2.5"]),
        (np.array([True, False, True] * 4), "True", ["1"]),
        (np.array(["a", "b", "long"] * 4), "long", []),
        (np.array([b"a", b"b", b"long"] * 4), "long", []),
        (np.array([1, 2, 3] * 4, ">i4"), "3", ["3000000000"]),
    ],
)
def test_npz(tmp_path: Path, labels: Any, name: str, refused: list[str]) -> None:
    source, out = tmp_path / "a.npz", tmp_path / "b.npz"
    x = np.asfortranarray(np.random.default_rng(0).normal(size=(12, 3)))
    np.savez_compressed(source, x_train=x, y_train=labels, x_test=x[:3], y_test=labels[:3], more=x)
    check(source, out, {0: name, 10: name})
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(out) as new:
        assert old.namelist() == new.namelist()
        changed = [one for one in old.namelist() if old.read(one) != new.read(one)]
        assert changed == ["y_train.npy"]
        assert {one.compress_type for one in new.infolist()} == {zipfile.ZIP_DEFLATED}
    with np.load(out) as file:
        assert file["y_train"].shape == labels.shape
        assert file["y_train"].dtype == labels.dtype
    for wrong in refused:
        assert wrong in refusal(source, out, {0: wrong})


def test_npz_with_longer_names_and_named_keys(tmp_path: Path) -> None:
    source = tmp_path / "a.npz"
    np.savez(source, emb=np.eye(4, dtype=np.float32), y=[0, 1, 0, 1], kind=["a", "b", "a", "b"])
    write_corrected(source, source, {2: "a longer name"}, label="kind")
    with np.load(source) as file:
        assert file["kind"].tolist() == ["a", "b", "a longer name", "b"]
        assert file["y"].tolist() == [0, 1, 0, 1]
    write_corrected(source, source, {3: "0"})  # the inputs have an unusual name
    with np.load(source) as file:
        assert file["y"].tolist() == [0, 1, 0, 0]
    assert "a.npz has 4 rows" in refusal(source, source, {4: "0"})
    assert "other" in refusal(source, source, {0: "0"}, label="other")


def test_npz_without_some_rows(tmp_path: Path) -> None:
    source, out = tmp_path / "a.npz", tmp_path / "b.npz"
    x, y = np.arange(24.0).reshape(8, 3), np.array(["a", "b"] * 4)
    ends = {"names": np.array(["no", "yes"]), "ids": np.arange(8)}
    np.savez(source, x_train=x, y_train=y, x_test=x, y_test=y, **ends)
    check(source, out, {2: None, 3: "a", 7: None})
    with np.load(out) as file:
        assert file["ids"].tolist() == [0, 1, 3, 4, 5, 6]
        assert file["y_train"].tolist() == ["a", "b", "a", "a", "b", "a"]
        assert len(file["x_test"]) == len(file["y_test"]) == 8
        assert file["names"].tolist() == ["no", "yes"]


# Folders of tables -----------------------------------------------------------------------------


@FAST
@given(st.dictionaries(st.integers(0, 20), st.sampled_from([*CLASSES, None]), max_size=6))
@example({5: None})  # all rows of a part
def test_folder_of_csv_parts(
    tmp_path_factory: pytest.TempPathFactory, corrections: Corrections
) -> None:
    folder = tmp_path_factory.mktemp("tables") / "source"
    (folder / "data" / "more").mkdir(parents=True)
    names = [CLASSES[i % 3] for i in range(21)] + list(CLASSES)
    names = ["" if i == 4 and 4 not in corrections else name for i, name in enumerate(names)]
    for part, (start, stop) in enumerate([(0, 5), (5, 6), (6, 24)]):
        rows = [f"{i},{i}.5,{names[i]}\n" for i in range(start, stop)]
        (folder / "data" / f"train-{part}.csv").write_text("x,size,label\n" + "".join(rows))
    rows = [f"{i},{i}.5,{name}\n" for i, name in enumerate(CLASSES)]
    (folder / "data" / "test.csv").write_text("x,size,label\n" + "".join(rows))
    (folder / "README.md").write_text("notes")
    (folder / "data" / "more" / ".hidden").write_bytes(b"\0")
    out = folder.parent / "out"
    check(folder, out, corrections, inputs=["x", "size"])
    changed = {path for path in files(folder) if files(folder)[path] != files(out)[path]}
    assert files(folder).keys() == files(out).keys()
    assert changed <= {f"data/train-{part}.csv" for part in range(3)}
    assert [path.name for path in folder.parent.iterdir() if path.name.startswith(".")] == []


def files(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_folder_of_parquet_parts(tmp_path: Path) -> None:
    folder, out = tmp_path / "source", tmp_path / "out"
    images = np.arange(5 * 35, dtype=np.uint8).reshape(5, 7, 5)
    for split, part in (("train", 0), ("train", 1), ("validation", 0)):
        labels = {"label": [0, 1, 1, 0, 2]}
        path = folder / "data" / f"{split}-0000{part}-of-00002.parquet"
        write_parquet(path, images, labels, {"label": ["a", "b", "c"]})
    out.mkdir()  # an empty folder is fine
    check(folder, out, {1: "c", 4: "a", 5: "b"})
    second = pq.read_table(out / "data" / "train-00001-of-00002.parquet")
    assert second.column("label").to_pylist() == [1, 1, 1, 0, 2]


def test_folder_of_json_lines(tmp_path: Path) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    for part in range(2):
        rows = [json.dumps({"size": i * 1.5, "label": CLASSES[i % 3]}) for i in range(6)]
        (folder / f"train_{part}.jsonl").write_text("\n\n".join(rows))
    check(folder, tmp_path / "out", {1: "cat", 6: "bee"})


# Folders of images -----------------------------------------------------------------------------


def by_pixels(loaded: Loaded, split: str = "train") -> Counter[tuple[str, str]]:
    part = loaded.splits[split]
    pairs = zip(part.inputs, part.labels.tolist(), strict=True)
    return Counter((str(image.tolist()), loaded.class_names[label]) for image, label in pairs)


def image_set(seed: int, n: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 3, 3), dtype=np.uint8)


@pytest.mark.parametrize("split", ["", "train"])
@FAST
@given(st.dictionaries(st.integers(0, 11), st.sampled_from(CLASSES), max_size=3))  # of 4 a class
def test_images_move_to_the_folder_of_their_class(
    tmp_path_factory: pytest.TempPathFactory, split: str, corrections: dict[int, str]
) -> None:
    folder = tmp_path_factory.mktemp("images") / "source"
    write_images(folder / split, {name: image_set(i) for i, name in enumerate(CLASSES)})
    if split:
        write_images(folder / "test", {name: image_set(i + 9) for i, name in enumerate(CLASSES)})
    (folder / split / "bee" / "0 first.png").write_bytes(b"damaged")  # takes no row
    (folder / "LICENSE.txt").write_text("free")
    out = folder.parent / "out"
    before = load_data(folder)
    write_corrected(folder, out, corrections)
    after = load_data(out)
    expected: Counter[tuple[str, str]] = Counter()
    for row, name in labels_of(before).items():
        image = str(before.splits["train"].inputs[row].tolist())
        expected[image, corrections.get(row, name)] += 1
    assert by_pixels(after) == expected
    if split:
        assert by_pixels(after, "test") == by_pixels(before, "test")
    old, new = files(folder), files(out)
    assert Counter(old.values()) == Counter(new.values())
    kept = {name for name in old if not name.endswith(".png") or "test/" in name}
    assert all(old[name] == new[name] for name in kept)


def test_images_that_clash_get_a_number(tmp_path: Path) -> None:
    folder, out = tmp_path / "source", tmp_path / "out"
    write_images(folder, {"ape": image_set(0, 2), "bee": image_set(1, 2), "cat": image_set(2, 1)})
    write_corrected(folder, out, {0: "bee", 4: "bee", 3: "ape"})
    names = ["ape/1-1.png", "ape/1.png", "bee/0-1.png", "bee/0-2.png", "bee/0.png"]
    assert sorted(files(out)) == names
    assert not (out / "cat").exists()  # a class without images could not be read
    assert (out / "bee" / "0-1.png").stat().st_mtime == (folder / "ape/0.png").stat().st_mtime
    assert load_data(out).class_names == ("ape", "bee")


def test_images_of_a_class_without_a_folder(tmp_path: Path) -> None:
    folder, out = tmp_path / "source", tmp_path / "out"
    write_images(folder, {"ape": image_set(0), "bee": image_set(1)})
    (folder / "ape" / "below").mkdir()
    (folder / "ape" / "below" / "x.png").write_bytes(png(image_set(2)[0]))
    row = load_data(folder).splits["train"].names.index("ape/below/x.png")
    write_corrected(folder, out, {row: "new one"})
    assert (out / "new one" / "x.png").is_file()
    assert not (out / "ape" / "below").exists()
    for name in ("a/b", "..", ".hidden", "train", "a\\b"):
        assert "folders of classes" in refusal(folder, tmp_path / "other", {0: name})
    assert "without columns" in refusal(folder, tmp_path / "other", {}, label="x")
    assert "9 rows" in refusal(folder, tmp_path / "other", {9: "ape"})
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("link", [False, True])
def test_images_are_left_out_and_may_be_links(tmp_path: Path, link: bool) -> None:
    folder, out = tmp_path / "source", tmp_path / "out"
    write_images(folder, {"ape": image_set(0, 2), "bee": image_set(1, 3), "cat": image_set(2, 1)})
    write_corrected(folder, out, {0: None, 2: "ape", 5: None}, link=link)
    assert sorted(files(out)) == ["ape/0.png", "ape/1.png", "bee/1.png", "bee/2.png"]
    assert (out / "ape/0.png").read_bytes() == (folder / "bee/0.png").read_bytes()
    assert len(files(folder)) == 6
    for new, old in (("ape/0.png", "bee/0.png"), ("bee/1.png", "bee/1.png")):
        assert (out / new).samefile(folder / old) is link


@pytest.mark.parametrize("link", [False, True])
def test_images_that_a_table_lists_come_along(tmp_path: Path, link: bool) -> None:
    source = tmp_path / "source" / "train.csv"
    write_images(source.parent / "images", {"all": image_set(0, 4)})
    rows = [f"images/all/{i}.png,{CLASSES[i % 2]}\n" for i in range(4)]
    source.write_text("file,label\n" + "".join(rows))
    out = tmp_path / "new" / "fixed.csv"
    write_corrected(source, out, {0: "bee", 3: None}, link=link)
    after = load_data(out)
    assert list(labels_of(after).values()) == ["bee", "bee", "ape"]
    assert by_pixels(after).keys() <= {
        (image, name) for image, _ in by_pixels(load_data(source)) for name in CLASSES
    }
    image = "images/all/1.png"
    assert (out.parent / image).samefile(source.parent / image) is link
    write_corrected(source, source.parent / "beside.csv", {0: "bee"})
    assert len(files(source.parent)) == 6


def test_images_behind_links_are_copied(tmp_path: Path) -> None:
    elsewhere = write_images(tmp_path / "elsewhere", {"ape": image_set(0), "bee": image_set(1)})
    folder, out = tmp_path / "source", tmp_path / "out"
    folder.mkdir()
    (folder / "ape").symlink_to(elsewhere / "ape")
    (folder / "bee").symlink_to(elsewhere / "bee")
    write_corrected(folder, out, {0: "bee"})
    assert len(files(out)) == 8
    assert not (out / "ape").is_symlink()
    assert len(files(elsewhere)) == 8


# What is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("corrections", "part"),
    [
        ({15: "ape"}, "15 rows"),
        ({-1: "ape"}, "-1"),
        ({1.5: "ape"}, "1.5"),
        ({True: "ape"}, "True"),
        ({1: ""}, "name of a class"),
        ({1: "  "}, "name of a class"),
        ({1: 7}, "name of a class"),
        ({15: None}, "15 rows"),
    ],
)
def test_rows_and_names_that_are_none(
    tmp_path: Path, corrections: dict[Any, Any], part: str
) -> None:
    source = tmp_path / "a.csv"
    source.write_text(csv_text())
    assert part in refusal(source, source, corrections)
    assert source.read_bytes() == csv_text().encode()


def test_numbers_of_numpy_are_rows(tmp_path: Path) -> None:
    source = tmp_path / "a.csv"
    source.write_bytes(csv_text().encode())
    write_corrected(source, source, {np.int64(3): np.str_("cat")})  # type: ignore[dict-item]
    assert labels_of(load_data(source))[3] == "cat"


def test_the_label_column_must_be_clear(tmp_path: Path) -> None:
    source = tmp_path / "a.csv"
    source.write_text("size,class,target\n1,a,x\n2,b,y\n3,a,x\n")
    assert "label=" in refusal(source, source, {0: "b"})
    assert "kind" in refusal(source, source, {0: "b"}, label="kind")
    write_corrected(source, source, {0: "b"}, label="class")
    assert source.read_text() == "size,class,target\n1,b,x\n2,b,y\n3,a,x\n"


def test_inputs_that_are_unclear_are_no_question(tmp_path: Path) -> None:
    source = tmp_path / "a.parquet"
    lists = [[1.0], [2.0], [3.0]]
    pq.write_table(pa.table({"a": lists, "b": lists, "label": ["x", "y", "x"]}), source)
    check(source, source, {2: "y"}, inputs=["a"])


def test_a_true_label_stays(tmp_path: Path) -> None:
    source, out = tmp_path / "a.csv", tmp_path / "b.csv"
    source.write_text("size,label,true_label\n1.5,x,y\n2.5,y,y\n3.5,x,x\n")
    check(source, out, {0: "y"})
    assert out.read_text() == "size,label,true_label\n1.5,y,y\n2.5,y,y\n3.5,x,x\n"


def test_sources_that_cannot_be_written(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for source in ("digits", "owner/name", (np.eye(2), [0, 1])):
        assert "label" in refusal(source, out, {0: "a"})
    assert "check the path" in refusal(tmp_path / "nowhere.csv", out, {0: "a"})
    (tmp_path / "a.bin").write_text("")
    assert ".parquet" in refusal(tmp_path / "a.bin", out, {0: "a"})
    export = tmp_path / "export.jsonl"
    row = {"text": "one", "accept": ["a"], "options": [{"id": "a"}], "answer": "accept"}
    export.write_text(json.dumps({**row, "_input_hash": 1}))
    assert "label_quality.csv" in refusal(export, out, {0: "b"})
    assert not out.exists()


def test_folders_where_the_copy_cannot_lie(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "source", {"ape": image_set(0), "bee": image_set(1)})
    full = write_images(tmp_path / "full", {"ape": image_set(0)})
    file = tmp_path / "file"
    file.write_text("mine")
    for out in (folder, folder / "copy", full, file):
        assert "new or an empty folder" in refusal(folder, out, {0: "bee"})
    assert len(files(folder)) == 8 and len(files(full)) == 4 and file.read_text() == "mine"


def test_a_failing_copy_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    text = "größe,label\n1,a\n2,b\n"
    (folder / "train.csv").write_bytes(text.encode("latin-1"))
    (folder / "test.csv").write_bytes(text.encode("latin-1"))
    assert "fit" in refusal(folder, tmp_path / "out", {0: "猫"})
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_file_keeps_its_suffix(tmp_path: Path) -> None:
    source = tmp_path / "a.parquet"
    pq.write_table(pa.table({"size": [1, 2], "label": ["x", "y"]}), source)
    assert "end in .parquet" in refusal(source, tmp_path / "b.csv", {0: "y"})


def test_a_part_whose_rows_were_all_dropped_is_read_and_corrected_again(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for part, rows in enumerate((range(4), range(0), range(4, 9))):
        lines = [f"{i},{CLASSES[i % 3]}\n" for i in rows]
        (tmp_path / "a" / f"train-{part}.csv").write_text("x,label\n" + "".join(lines))
    write_corrected(tmp_path / "a", tmp_path / "b", {3: CLASSES[1], 5: None})
    loaded = load_data(tmp_path / "b")
    expected = [CLASSES[i % 3] for i in range(9)]
    expected[3] = CLASSES[1]
    del expected[5]
    found = [loaded.class_names[k] for k in loaded.splits["train"].labels]
    assert found == expected
    assert loaded.notes == ("train-1.csv has a header without rows.",)
