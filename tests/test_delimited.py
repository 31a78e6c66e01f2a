"""Delimited text: dialects, encodings, types, parts, and copies with corrections."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keeprate.errors import InputError
from keeprate.reading.corrections import write_corrected, write_delimited
from keeprate.reading.delimited import TextTable, read_delimited
from keeprate.reading.dialects import Dialect, Scan, look_at
from keeprate.reading.encodings import SMALL_PIECE, Encoding
from keeprate.reading.parts import concat, read_parts

WORDS = (
    "Die Straße führt über den Fluss nach Süden, und die Bäume blühen im Frühling sehr schön. "
    "Später hören wir Gäste, die natürlich ältere Märchen erzählen. "
)
JAPANESE = (
    "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。"
    "何でも薄暗いじめじめした所でニャーニャー泣いていた事だけは記憶している。"
)
POLISH = "Wszyscy ludzie rodzą się wolni i równi pod względem swej godności i swych praw. "
CHINESE = "人人生而自由在尊严和权利上一律平等他们赋有理性和良心并应以兄弟关系的精神相对待"
RUSSIAN = "Все счастливые семьи похожи друг на друга, каждая несчастливая семья несчастлива. "


def read(path: Path, *texts: str) -> TextTable:
    return read_delimited(path, as_text=lambda name: name in texts)


def write(path: Path, text: str | bytes, encoding: str = "utf-8") -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return path


def columns(path: Path, *texts: str) -> dict[str, list[Any]]:
    return read(path, *texts).arrow.to_pydict()


def refusal(path: Path, *texts: str) -> str:
    with pytest.raises(InputError) as caught:
        read(path, *texts)
    assert len(str(caught.value)) < 1000
    return str(caught.value)


# Dialects --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("a,b,label\n1,2.5,x\n3,4.5,y\n", None),
        ("a;b;label\n1;2.5;x\n3;4.5;y\n", "semicolons separate the columns"),
        (
            "a;b;label\n1;2,5;x\n3;4,5;y\n",
            "semicolons separate the columns, and commas are decimal marks",
        ),
        ("a\tb\tlabel\r\n1\t2.5\tx\r\n3\t4.5\ty\r\n", "tabs separate the columns"),
        ("a|b|label\n1|2.5|x\n3|4.5|y", "vertical bars separate the columns"),
        ('\n"a","b","label"\n\n"1","2.5","x"\n3,4.5,y\n', None),
        ("a,b,label\r1,2.5,x\r3,4.5,y\r", None),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_every_delimiter(tmp_path: Path, text: str, note: str | None, packed: bool) -> None:
    data = text.encode()
    path = write(tmp_path / "t.csv", gzip.compress(data) if packed else data)
    table = read(path, "label")
    assert table.arrow.to_pydict() == {"a": [1, 3], "b": [2.5, 4.5], "label": ["x", "y"]}
    assert [str(kind) for kind in table.arrow.schema.types] == ["int64", "double", "string"]
    assert table.notes == (() if note is None else (note,))
    assert table.dialect.gzipped == packed


def test_delimiters_within_quotes_do_not_count(tmp_path: Path) -> None:
    text = 'text;label\n"a, b; c";x\n"d, e; f";y\n'
    assert columns(write(tmp_path / "t.csv", text)) == {
        "text": ["a, b; c", "d, e; f"],
        "label": ["x", "y"],
    }


def test_a_decimal_point_anywhere_keeps_commas_as_text(tmp_path: Path) -> None:
    table = columns(write(tmp_path / "t.csv", "a;b\n1,5;2.5\n2,5;3.5\n"))
    assert table == {"a": ["1,5", "2,5"], "b": [2.5, 3.5]}


def test_quoted_numbers_with_commas_are_no_decimals(tmp_path: Path) -> None:
    assert columns(write(tmp_path / "t.csv", 'a;b\n"1,5";2\n"2,5";3\n'))["a"] == ["1,5", "2,5"]


@pytest.mark.parametrize("text", ["value\n1\n2\n", 'value\n"1"\n\n2'])
def test_one_column(tmp_path: Path, text: str) -> None:
    assert columns(write(tmp_path / "t.csv", text)) == {"value": [1, 2]}


def test_a_delimiter_at_the_end_of_each_row_is_no_column(tmp_path: Path) -> None:
    table = read(write(tmp_path / "t.csv", "a,label,\n1,x,\n2,y,\n"))
    assert table.arrow.to_pydict() == {"a": [1, 2], "label": ["x", "y"]}
    assert table.notes == ("each row ends with a delimiter; the empty column behind is left out",)
    table = read(write(tmp_path / "t.csv", "a,label,,\n1,x,,\n2,y,,\n"))
    assert table.arrow.column_names == ["a", "label"]
    assert table.dialect.trailing == 2


def test_nameless_columns_with_cells_stay(tmp_path: Path) -> None:
    assert columns(write(tmp_path / "t.csv", ",a\n0,1\n1,2\n")) == {"": [0, 1], "a": [1, 2]}
    assert columns(write(tmp_path / "t.csv", "a,\n0,1\n1,\n")) == {"a": [0, 1], "": [1, None]}


# Encodings -------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("packed", [False, True])
def test_unicode(tmp_path: Path, encoding: str, packed: bool) -> None:
    data = "größe,label\n1,süß\n2,猫😀\n".encode(encoding)
    table = read(write(tmp_path / "t.csv", gzip.compress(data) if packed else data), "label")
    assert table.arrow.to_pydict() == {"größe": [1, 2], "label": ["süß", "猫😀"]}
    assert table.notes == (("the text is read as UTF-16",) if encoding == "utf-16" else ())


@pytest.mark.parametrize(
    "text",
    [
        "name,label\nJosé,1\nMüller,2\n",
        "größe,label\n1,2\n3,4\n",
        "a;label\n1,5;café\n2,5;thé\n",
        "text,label\n" + "".join(f"{WORDS.replace(',', '')},{i % 2}\n" for i in range(20)),
        "price,label\n5 €,“gut”\n6 €,schlecht\n",
    ],
)
def test_windows_1252(tmp_path: Path, text: str) -> None:
    pytest.importorskip("charset_normalizer")
    path = write(tmp_path / "t.csv", text, "cp1252")
    table = read(path)
    expected = read(write(tmp_path / "u.csv", text))
    assert table.arrow == expected.arrow
    note = "the text is read as cp1252, not UTF-8; save it as UTF-8 if names look wrong"
    assert table.notes == (note, *expected.notes)


@pytest.mark.parametrize(
    ("words", "encoding"),
    [
        (JAPANESE, "shift_jis"),
        (JAPANESE, "euc_jp"),
        (RUSSIAN, "cp1251"),
        (RUSSIAN, "koi8_r"),
        (POLISH, "cp1250"),
        (POLISH, "iso8859_2"),
        (CHINESE, "gb18030"),
    ],
)
def test_other_encodings_are_told_by_long_text(tmp_path: Path, words: str, encoding: str) -> None:
    pytest.importorskip("charset_normalizer")
    words = words.replace(",", " ")
    text = "text,label\n" + "".join(f"{words}{i},{i % 2}\n" for i in range(20))
    table = read(write(tmp_path / "t.csv", text, encoding))
    assert table.arrow["text"].to_pylist() == [f"{words}{i}" for i in range(20)]
    assert "not UTF-8" in table.notes[0]


def test_letters_beyond_the_first_64_kib(tmp_path: Path) -> None:
    pytest.importorskip("charset_normalizer")
    text = "a,label\n" + "1,plain\n" * 20_000 + "2,süß\n"
    table = read(write(tmp_path / "t.csv", text, "cp1252"), "label").arrow
    assert table["label"][-1].as_py() == "süß"
    assert read(write(tmp_path / "u.csv", text), "label").arrow == table


@pytest.mark.parametrize("before", [0, 40_000])
def test_bad_bytes_are_refused_with_their_place(tmp_path: Path, before: int) -> None:
    good = "a,name\n" + "1,grün\n" * (before + 2)
    said = refusal(write(tmp_path / "t.csv", good.encode() + b"2,bl\xe4u\n3,gr\xc3\xbcn\n"))
    assert "must be utf-8 text" in said
    assert f"the bytes e4 in line {before + 4}, column name" in said


def test_a_mark_decides_the_encoding(tmp_path: Path) -> None:
    said = refusal(write(tmp_path / "t.csv", b"\xef\xbb\xbfa,b\n1,\xff\xfe\n"))
    assert "utf-8 text, got the bytes ff in line 2, column b" in said
    cut = "a,b\n1,2\n".encode("utf-16")[:-1]
    assert "must be utf-16-le text" in refusal(write(tmp_path / "t.csv", cut))


def test_bytes_that_no_encoding_knows_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("charset_normalizer")
    text = "a,name\n" + "1,Gemüsesuppe für Käthe\n" * 3000  # the sample shows cp1252
    said = refusal(write(tmp_path / "t.csv", text.encode("cp1252") + b"2,\x81\x8d\n"))
    assert "must be cp1252 text, got the bytes 81 in line 3002, column name" in said


def across_pieces(cell: str, shift: int) -> str:
    """Return a table with one odd cell, which starts `shift` bytes before the second piece."""
    row = "11,225\n"
    head = "a,b\n" + row * ((SMALL_PIECE - 26) // len(row))
    return f"{head}{'x' * (SMALL_PIECE - len(head) - shift - 1)},{cell}\n{row * 3}"


@pytest.mark.parametrize("cell", ["0070", "-0070", "0x1F"])
@pytest.mark.parametrize("shift", [*range(1, 8), 20])
def test_a_cell_across_the_pieces_of_a_file(tmp_path: Path, cell: str, shift: int) -> None:
    """The bytes are looked at in pieces. Only one cell of a large file is no number."""
    table = read(write(tmp_path / "a.csv", across_pieces(cell, shift))).arrow
    assert table.column("b").type == pa.string()
    assert table.column("b")[-4:].to_pylist() == [cell, "225", "225", "225"]


@pytest.mark.parametrize("shift", range(1, 21, 3))
def test_long_digits_across_the_pieces_of_a_file(tmp_path: Path, shift: int) -> None:
    for digits, is_long in ((15, False), (16, True)):
        path = write(tmp_path / "a.csv", across_pieces("-" + "7" * digits, shift))
        assert look_at(path).scan == Scan(long_integers=is_long)


@pytest.mark.parametrize("shift", range(3))
def test_a_letter_across_the_pieces_of_a_file(tmp_path: Path, shift: int) -> None:
    start = "a\n" + "x" * (SMALL_PIECE - 2 - shift)
    table = read(write(tmp_path / "a.csv", f"{start}猫\nend\n")).arrow
    assert table.column("a").to_pylist() == [f"{start[2:]}猫", "end"]
    cut = f"{start}猫\nend\n".encode()[: SMALL_PIECE - shift + 2] + b"\nend\n"
    with pytest.raises(InputError, match=r"must be utf-8 text, got the bytes e7 8c in line 2"):
        read(write(tmp_path / "b.csv", f"{WORDS}\n".encode() + cut[2:]))


def test_zero_bytes_are_no_text(tmp_path: Path) -> None:
    assert "must be a text file" in refusal(write(tmp_path / "t.csv", "a,b\n1,2", "utf-16-le"))


# Types -----------------------------------------------------------------------------------------


def test_labels_stay_as_they_are_written(tmp_path: Path) -> None:
    written = ["007", "1e5", "1.0", "NA", "true", "2020-01-01", " x ", "?", "1,5"]
    text = "a,label\n" + "".join(f'{i},"{label}"\n' for i, label in enumerate(written)) + "9,\n"
    assert columns(write(tmp_path / "t.csv", text), "label")["label"] == [*written, None]


def test_missing_values(tmp_path: Path) -> None:
    text = "a,b,c,d\n1,NA,x,\n?,2.5,null,\nNaN,#N/A,,\n"
    assert columns(write(tmp_path / "t.csv", text)) == {
        "a": [1, None, None],
        "b": [None, 2.5, None],
        "c": ["x", None, None],
        "d": [None] * 3,
    }


def test_kinds_of_columns(tmp_path: Path) -> None:
    text = (
        "zip,id,far,huge,flag,mixed,day,moment,unix,hexa\n"
        "01234,12345678901234567,18446744073709551615,99999999999999999999,true,true,"
        "2020-01-31,2020-01-31 10:00:00,1700000000000000000,0x1F\n"
        "99999,2,3,4,False,1,2020-02-01,2020-02-01 10:00:00,1700000000000000001,0x20\n"
    )
    assert columns(write(tmp_path / "t.csv", text)) == {
        "zip": ["01234", "99999"],
        "id": [12345678901234567, 2],
        "far": [18446744073709551615, 3],
        "huge": ["99999999999999999999", "4"],
        "flag": [True, False],
        "mixed": ["true", "1"],
        "day": [date(2020, 1, 31), date(2020, 2, 1)],
        "moment": [datetime(2020, 1, 31, 10), datetime(2020, 2, 1, 10)],
        "unix": [1700000000000000000, 1700000000000000001],
        "hexa": ["0x1F", "0x20"],
    }


LATE = 150_000


@pytest.mark.parametrize(
    ("early", "late", "values", "kind"),
    [
        ("1", "2.5", (1.0, 2.5), "double"),
        ("", "text", (None, "text"), "string"),
        ("NA", "7", (None, 7), "int64"),
        ("12345", "01234", ("12345", "01234"), "string"),
        ("1", "18446744073709551615", (1, 18446744073709551615), "uint64"),
        ("1", "99999999999999999999", ("1", "99999999999999999999"), "string"),
        ("true", "no", ("true", "no"), "string"),
        ("2020-01-01", "2020-01-01 10:00:00", None, "timestamp[s]"),
        ("2.5", "none of these", ("2.5", "none of these"), "string"),
    ],
)
def test_late_cells_of_another_kind(
    tmp_path: Path, early: str, late: str, values: tuple[Any, Any] | None, kind: str
) -> None:
    text = "a,label\n" + f"{early},0123456\n" * LATE + f"{late},1\n"
    assert len(text) > 1.2e6
    table = read(write(tmp_path / "t.csv", text), "label").arrow
    assert str(table.schema.field("a").type) == kind
    assert table.num_rows == LATE + 1
    assert table["label"][0].as_py() == "0123456"
    if values is not None:
        assert (table["a"][0].as_py(), table["a"][-1].as_py()) == values


def test_decimal_commas_in_a_column_that_changes(tmp_path: Path) -> None:
    text = "a;b\n" + "1,25;1111111\n" * 100_000 + "2;8,5\n" + ";\n"
    table = read(write(tmp_path / "t.csv", text)).arrow
    assert table["b"][-3:].to_pylist() == [1111111.0, 8.5, None]


def test_many_columns_that_change(tmp_path: Path) -> None:
    text = ",".join("abcdefgh") + "\n" + "1,1,1,1,1,1,,2.5\n" * 80_000
    for i in range(8):
        text += ",".join("x" if j == i else "2" for j in range(8)) + "\n"
    table = read(write(tmp_path / "t.csv", text)).arrow
    assert {str(kind) for kind in table.schema.types} == {"string"}
    assert table.slice(0, 1).to_pylist()[0] == dict(zip("abcdefgh", "111111", strict=False)) | {
        "g": None,
        "h": "2.5",
    }


# Rows ------------------------------------------------------------------------------------------


def test_line_breaks_within_quotes_above_one_block(tmp_path: Path) -> None:
    text = "a,label,text\n" + '1,x,"first line,\nsecond ""line"""\n' * 40_000
    assert len(text) > 1.2e6
    table = read(write(tmp_path / "t.csv", text), "label").arrow
    assert table.num_rows == 40_000
    assert set(table["text"].to_pylist()) == {'first line,\nsecond "line"'}


def test_very_long_cells(tmp_path: Path) -> None:
    long = "x" * 3_000_000
    assert columns(write(tmp_path / "t.csv", f"text,label\n{long},1\nb,2\n"))["text"] == [long, "b"]
    name = "n" * 200_000
    assert list(columns(write(tmp_path / "t.csv", f"{name},label\n1,1\n"))) == [name, "label"]


@pytest.mark.parametrize("row", ["2", "2,3,4"])
def test_rows_of_another_length(tmp_path: Path, row: str) -> None:
    said = refusal(write(tmp_path / "t.csv", f'a,b\n"x\ny",2\n\n{row}\n3,4\n'))
    assert f"must have 2 cells in each row, as in the header, got {row.count(',') + 1} in" in said
    assert f"line 5: '{row}'" in said


def test_an_open_quote(tmp_path: Path) -> None:
    said = refusal(write(tmp_path / "t.csv", 'a,b\n1,x\n2,"y\n3,z\n'))
    assert "must close each quote, got a cell that starts in the row of line 3" in said
    assert "line 1" in refusal(write(tmp_path / "t.csv", '"a,b\n1,x\n'))
    assert columns(write(tmp_path / "t.csv", 'a,b\n1,5" nail\n'))["b"] == ['5" nail']


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "an empty file"),
        (b"\n\n", "an empty file"),
        (gzip.compress(b"", mtime=0), "an empty file"),
        (b"a,b\n", "must hold rows, got a header without rows"),
        (b"a,b", "must hold rows, got a header without rows"),
        (b"a,b,a\n1,2,3\n", "must have different names, got a more than once"),
        (b"a,,,b\n1,2,3,4\n", "must have different names, got a nameless one more than once"),
        (gzip.compress(b"a,b\n1,2\n" * 999, mtime=0)[:-12], "is damaged"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, data: bytes, message: str) -> None:
    assert message in refusal(write(tmp_path / "t.csv", data))


def test_a_missing_file(tmp_path: Path) -> None:
    assert "t.csv" in refusal(tmp_path / "t.csv")


# Parts -----------------------------------------------------------------------------------------


def parts(folder: Path, *texts: str, label: str = "label") -> pa.Table:
    paths = [write(folder / f"train-{i}.csv", text) for i, text in enumerate(texts)]
    return read_parts(paths, as_text=lambda name: name == label).arrow


@pytest.mark.parametrize(
    ("first", "second", "values"),
    [
        ("1", "2.5", [1.0, 2.5]),
        ("2.5", "", [2.5, None]),
        ("", "x", [None, "x"]),
        ("2", "text", ["2", "text"]),
        ("1.0", "text", ["1.0", "text"]),
        ("007", "7", ["007", "7"]),
        ("true", "1", ["true", "1"]),
        ("9007199254740993", "0.5", ["9007199254740993", "0.5"]),
        ("18446744073709551615", "-1", ["18446744073709551615", "-1"]),
        ("2020-01-01", "2020-01-01 10:00:00", [datetime(2020, 1, 1), datetime(2020, 1, 1, 10)]),
        ("2020-01-01", "x", ["2020-01-01", "x"]),
        ("NA", "3", [None, 3]),
    ],
)
def test_parts_whose_types_differ(
    tmp_path: Path, first: str, second: str, values: list[Any]
) -> None:
    table = parts(tmp_path, f"a,label\n{first},01\n", f"label,a\nNA,{second}\n")
    assert table.to_pydict() == {"a": values, "label": ["01", "NA"]}


def test_missing_values_of_parts_that_are_read_again(tmp_path: Path) -> None:
    table = parts(tmp_path, "a,b\n1,1\nNA,1\n", "a,b\nx,1\n?,1\n", "a,b\n1.50,1\n,1\n")
    assert table["a"].to_pylist() == ["1", None, "x", None, "1.50", None]


def test_parts_with_other_columns(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"train-1.csv must have the columns of train-0.csv, got"):
        parts(tmp_path, "a,label\n1,x\n", "a,b,c\n1,x,2\n")
    many = ",".join(f"c{i}" for i in range(40))
    row = ",".join("1" for _ in range(40))
    with pytest.raises(InputError, match="lacks c0, c1, c2, c3, c4 and 35 more") as caught:
        parts(tmp_path, f"label,{many}\n1,{row}\n", "label\n1\n")
    assert len(str(caught.value)) < 300


def test_parts_of_parquet() -> None:
    tables = [
        pa.table({"a": pa.array([1, 2]), "s": pa.array(["x", "y"]).dictionary_encode()}),
        pa.table({"s": pa.array(["z"], pa.large_string()), "a": pa.array([2.5], pa.float32())}),
    ]
    table = concat(tables, ["one", "two"])
    assert table.to_pydict() == {"a": [1.0, 2.0, 2.5], "s": ["x", "y", "z"]}
    tables = [pa.table({"a": [1]}), pa.table({"a": ["x"]})]
    assert concat(tables, ["one", "two"]).to_pydict() == {"a": ["1", "x"]}
    tables = [pa.table({"a": [1.5]}), pa.table({"a": ["x"]})]
    with pytest.raises(InputError, match="column a must be of one kind, got double in one, string"):
        concat(tables, ["one", "two"])


def test_one_part_stays_as_it_is() -> None:
    table = pa.table({"a": pa.array(["x"]).dictionary_encode(), "l": [[1, 2]]})
    table = table.replace_schema_metadata({"huggingface": "{}"})
    assert concat([table], ["one"]).equals(table, check_metadata=True)
    assert concat([table, table], ["one", "two"]).num_rows == 2


# Copies ----------------------------------------------------------------------------------------

SOURCES = [
    ("a,label\n1,cat\n2,dog\n3,cat\n", "utf-8"),
    ('"a";"label"\r\n"1,5";"cat"\r\n\r\n"2;""5";dog\r\n3;"cat"', "utf-8-sig"),
    ("a\tlabel\t\n1\tcat\t\n2\tdog\t\n3\tcat\t\n", "utf-16"),
    ('a,label\n"first\nsecond",cat\n"größer, ""als""",dog\n,cat\n', "utf-8"),
    ("a|label\nKäse|cat\nÖl|dog\nfür|cat\n", "cp1252"),
]


@pytest.mark.parametrize(("text", "encoding"), SOURCES)
@pytest.mark.parametrize("packed", [False, True])
def test_corrections_change_their_cells_only(
    tmp_path: Path, text: str, encoding: str, packed: bool
) -> None:
    if encoding == "cp1252":
        pytest.importorskip("charset_normalizer")
    data = text.encode(encoding)
    source = write(tmp_path / "t.csv", gzip.compress(data) if packed else data)
    out = tmp_path / "out.csv"
    write_corrected(source, out, "label", {})
    assert (gzip.decompress(out.read_bytes()) if packed else out.read_bytes()) == data
    write_corrected(source, out, "label", {1: "fox"})
    copy = gzip.decompress(out.read_bytes()) if packed else out.read_bytes()
    assert copy == data.replace(
        "dog".encode("utf-16-le" if "16" in encoding else "ascii"),
        "fox".encode("utf-16-le" if "16" in encoding else "ascii"),
    )
    write_corrected(source, source, "label", {0: 'a "b",;|\n\t', 2: "ü"})
    assert columns(source, "label")["label"] == ['a "b",;|\n\t', "dog", "ü"]


def test_letters_that_an_encoding_writes_in_two_ways_stay(tmp_path: Path) -> None:
    pytest.importorskip("charset_normalizer")
    rows = "".join(f"{JAPANESE}{i},{i % 2}\n" for i in range(20)).encode("cp932")
    data = b"text,label\n" + rows + b"\xfa\x54\x81\xca,1\n"  # both are the sign NOT
    source = write(tmp_path / "t.csv", data)
    write_corrected(source, tmp_path / "out.csv", "label", {20: "0"})
    assert (tmp_path / "out.csv").read_bytes() == data[:-2] + b"0\n"


@pytest.mark.parametrize(
    ("column", "corrections", "message"),
    [
        ("lable", {0: "x"}, "column must be one of .*, got 'lable'; it has a, label"),
        ("label", {3: "x"}, "corrections must be for rows of the file, got 3; .* has 3 rows"),
        ("label", {-1: "x"}, "got -1"),
    ],
)
def test_corrections_that_are_refused(
    tmp_path: Path, column: str, corrections: dict[int, str], message: str
) -> None:
    source = write(tmp_path / "t.csv", SOURCES[0][0])
    with pytest.raises(InputError, match=message):
        write_corrected(source, tmp_path / "out.csv", column, corrections)
    assert not (tmp_path / "out.csv").exists()


def test_a_correction_that_the_encoding_does_not_know(tmp_path: Path) -> None:
    pytest.importorskip("charset_normalizer")
    source = write(tmp_path / "t.csv", SOURCES[4][0], "cp1252")
    with pytest.raises(InputError, match="must fit cp1252, got '猫'"):
        write_corrected(source, source, "label", {0: "猫"})
    assert source.read_bytes() == SOURCES[4][0].encode("cp1252")


# Any table -------------------------------------------------------------------------------------

ENCODINGS = [
    Encoding(),
    Encoding("utf-8", b"\xef\xbb\xbf"),
    Encoding("utf-16-le", b"\xff\xfe"),
    Encoding("utf-16-be", b"\xfe\xff"),
]
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)


@st.composite
def tables(draw: st.DrawFn) -> dict[str, list[Any]]:
    rows = draw(st.integers(1, 6))
    kinds = {
        "text": TEXTS.map(lambda text: text or None),
        "int": st.none() | st.integers(-(2**63), 2**63 - 1),
        "float": st.none() | st.floats(allow_nan=False, allow_infinity=False),
    }
    chosen = draw(st.lists(st.sampled_from(sorted(kinds)), min_size=1, max_size=4))
    return {
        f"{kind}{i}": draw(st.lists(kinds[kind], min_size=rows, max_size=rows))
        for i, kind in enumerate(chosen)
    }


def shown(value: Any, decimal: str) -> str | None:
    return None if value is None else str(value).replace(".", decimal)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(
    table=tables(),
    encoding=st.sampled_from(ENCODINGS),
    dialect=st.sampled_from([(",", "."), (";", "."), (";", ","), ("\t", "."), ("|", ".")]),
    line_end=st.sampled_from(["\n", "\r\n"]),
    packed=st.booleans(),
    trailing=st.integers(0, 1),
)
def test_any_table_reads_back_the_same(
    tmp_path: Path,
    table: dict[str, list[Any]],
    encoding: Encoding,
    dialect: tuple[str, str],
    line_end: str,
    packed: bool,
    trailing: int,
) -> None:
    if len(table) == 1 and not trailing and dialect[0] != ",":
        dialect = (",", ".")  # one column has no delimiter
    path = tmp_path / "t"
    texts = {name for name in table if name.startswith("text")}
    rows = zip(
        *(
            [cell if name in texts else shown(cell, dialect[1]) for cell in cells]
            for name, cells in table.items()
        ),
        strict=True,
    )
    writer = Dialect(encoding, *dialect, trailing, packed, line_end)
    write_delimited(list(table), rows, path, writer)
    read_back = read(path, *texts)
    assert read_back.arrow.to_pydict() == table
    assert read_back.dialect.delimiter == dialect[0]
    assert (read_back.dialect.encoding, read_back.dialect.gzipped) == (encoding, packed)
    assert read_back.dialect.trailing == trailing


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    rows=st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=5),
    value=TEXTS,
    data=st.data(),
    quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
)
def test_any_correction_reads_back_the_same(
    tmp_path: Path,
    rows: Sequence[tuple[str, str]],
    value: str,
    data: st.DataObject,
    quoting: Any,
) -> None:
    row = data.draw(st.integers(0, len(rows) - 1))
    file = io.StringIO(newline="")
    csv.writer(file, quoting=quoting).writerows([("a", "label"), *rows])
    source = write(tmp_path / "t.csv", file.getvalue())
    write_corrected(source, source, "label", {row: value})
    expected = [(a, value if i == row else label) for i, (a, label) in enumerate(rows)]
    got = columns(source, "a", "label")
    assert [(a or "", b or "") for a, b in zip(got["a"], got["label"], strict=True)] == expected
    before = next(csv.reader(io.StringIO(file.getvalue(), newline="")))
    assert before == ["a", "label"]
