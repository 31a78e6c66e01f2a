"""Delimited text (CSV, TSV and their kin, packed by gzip or not) -> Arrow tables, and back.

Arrow parses the cells. This module finds out what Arrow must be told (encoding, delimiter, decimal
mark, types), says where a file is wrong, and copies a file with some of its cells corrected.
"""

from __future__ import annotations

import codecs
import gzip
import io
import re
import zlib
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from keeprate.errors import InputError, Words, damaged, invalid, needs
from keeprate.files import write_atomically
from keeprate.reading.arrow import arrow_pool
from keeprate.text import cut

AsText = Callable[[str], bool]
Again = Callable[[int, frozenset[str]], Any]
NULLS = (
    *("", "NA", "N/A", "n/a", "NaN", "nan", "-NaN", "-nan", "null", "NULL", "None", "<NA>", "?"),
    *("#N/A", "#N/A N/A", "#NA", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN"),
)
"""What stands for a missing value, except in columns that are read as text."""
DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
PIECE = 1 << 20  # bytes that are looked at together
LARGEST_BLOCK = (1 << 31) - 1  # Arrow's limit
GROUP = 4 * PIECE  # bytes of a table that are put together
SAMPLE = 1 << 16  # bytes that tell the dialect
UNREADABLE = (OSError, EOFError, zlib.error)  # the last two: a gzip file that was cut or damaged
BOMS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
COMMONER = {
    **dict.fromkeys(("shift_jis", "shift_jisx0213", "shift_jis_2004"), "cp932"),
    **dict.fromkeys(("euc_jisx0213", "euc_jis_2004"), "euc_jp"),
    **dict.fromkeys(("gb2312", "gbk"), "gb18030"),
    **{"euc_kr": "cp949", "big5": "cp950", "big5hkscs": "cp950"},
}
"""The encoding that is likelier than one that has nearly the same letters."""
COMMON = (
    *("cp1250", "cp1251", "cp1252", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "cp1258"),
    *("cp874", "koi8_r", "iso8859_2", "iso8859_5", "iso8859_7", "iso8859_15", "mac_roman"),
    *("cp850", "cp866", "cp932", "euc_jp", "gb18030", "cp949", "cp950", *COMMONER),
)
ODD = re.compile(
    "[\ufffd\uff61-\uff9f\u3131-\u318e\u2500-\u25ff\ue000-\uf8ff\x7f-\x9f]"  # rare signs
    "|[A-Za-z][\u0370-\u07ff]|[\u0370-\u07ff][A-Za-z]"  # letters of two scripts in a word
    r"|[^\W\d_]"  # a sign within a word
    r"[\xa1-\xbf\xd7\xf7\u02b0-\u02ff\u201a\u201e\u2020-\u2026\u2030-\u203a][^\W\d_]"
)
USUAL_SIGNS = "€‚„…‘’“”•–—™\N{NO-BREAK SPACE}¡£§©«°±²´·»¼½¿×®"  # of cp1252, in Western texts
UTF8_LETTER = re.compile(
    rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}"
)
CLOSING = re.compile(r'(?:[^"]++|"")*+"')  # from behind an opening quote to behind the closing one
WHOLE = r"^\s*[+-]?[0-9]+\s*$"
# Whole numbers that a number would change are looked for in simplified bytes: leading zeros (and
# hexadecimals), and 16 digits or more in a column of decimals.
_SIGNS = bytes.maketrans(b';\t|"\r\n 123456789xX', b",,,,,,,11111111111")
ZEROS_FIRST = (b",00", b",01")
_DIGITS = bytes.maketrans(b"0", b"1")
NO_NUMBER = r"^\s*[+-]?(0[0-9xX]|[0-9]{16,}\s*$)"
LONG_INTEGER = b"," + 16 * b"1"
DECIMAL_COMMA = re.compile(r"\s*[+-]?[0-9]*,[0-9]+([eE][+-]?[0-9]+)?\s*")
DECIMAL_POINT = re.compile(r"\s*[+-]?[0-9]*\.[0-9]+([eE][+-]?[0-9]+)?\s*")


@dataclass(frozen=True)
class Encoding:
    """How bytes stand for text.

    Attributes
    ----------
    codec : str
        The name that Python knows.
    bom : bytes
        The mark that the file starts with. Empty if there is none.
    guessed : bool
        Whether nothing but the look of the text tells the encoding.
    """

    codec: str = "utf-8"
    bom: bytes = b""
    guessed: bool = False

    @property
    def note(self) -> tuple[str, ...]:
        """What people should know about the encoding."""
        if self.guessed:
            remedy = "save it as UTF-8 if names look wrong"
            return (f"the text is read as {self.codec}, not UTF-8; {remedy}",)
        return () if self.codec == "utf-8" else ("the text is read as UTF-16",)


@dataclass(frozen=True)
class Dialect:
    """How a delimited file is written.

    Attributes
    ----------
    encoding : Encoding
        How bytes stand for text.
    delimiter : str
        What separates the cells of a row.
    decimal : str
        The decimal mark.
    trailing : int
        The number of empty columns without a name at the end of each row.
    gzipped : bool
        Whether gzip packs the file.
    line_end : str
        What ends the first row.
    """

    encoding: Encoding = Encoding()
    delimiter: str = ","
    decimal: str = "."
    trailing: int = 0
    gzipped: bool = False
    line_end: str = "\n"

    @property
    def notes(self) -> tuple[str, ...]:
        """What was found, where the file is not plain UTF-8 with commas."""
        notes = list(self.encoding.note)
        if self.delimiter != ",":
            decimals = ", and commas are decimal marks" if self.decimal == "," else ""
            notes.append(f"{DELIMITERS[self.delimiter]} separate the columns{decimals}")
        if self.trailing:
            columns = "column" if self.trailing == 1 else f"{self.trailing} columns"
            notes.append(f"each row ends with a delimiter; the empty {columns} behind is left out")
        return tuple(notes)


@dataclass(frozen=True)
class TextTable:
    """A table that was read from delimited text.

    Attributes
    ----------
    arrow : pyarrow.Table
        The columns.
    notes : tuple of str
        What people should know about how the file was read.
    dialect : Dialect
        How the file is written.
    """

    arrow: Any
    notes: tuple[str, ...]
    dialect: Dialect


@dataclass(frozen=True)
class _Scan:
    """What one pass over the bytes tells about the cells."""

    leading_zeros: bool = False
    long_integers: bool = False
    quotes: int = 0


@dataclass(frozen=True)
class _Source:
    """A file whose dialect and header are known."""

    path: Path
    dialect: Dialect
    header: tuple[str, ...]
    blank_lines: int  # above the header
    scan: _Scan


# Reading ---------------------------------------------------------------------------------------


def read_delimited(path: Path, *, as_text: AsText) -> TextTable:
    """Read a delimited text file. Its first row names the columns.

    Parameters
    ----------
    path : Path
        UTF-8, UTF-16 with a byte order mark, or an older encoding; packed by gzip or not.
    as_text : callable
        Takes the name of a column. If true, the column is read as strings exactly as they are
        written, and only an empty cell is missing.

    Returns
    -------
    TextTable
        N rows. Whole numbers are int64, uint64 or, beyond that and with leading zeros, strings.

    Raises
    ------
    InputError
        If the file cannot be read or decoded, has no rows, a row is longer or shorter than the
        header, or two columns have the same name.
    """
    path = Path(path)
    try:
        source = _look_at(path)
        table = _read_cells(source, as_text)
    except UNREADABLE as error:
        raise damaged(path, error) from error
    if _may_have_swallowed(table.column(table.num_columns - 1)[-1].as_py(), source):
        _refuse_open_quote(source)
    names, trailing = list(source.header), 0
    while len(names) > 1 and not names[-1] and _is_empty(table.column(len(names) - 1)):
        names.pop()
        trailing += 1
    _check_names(names, path)
    table = table.select(range(len(names))).rename_columns(names)
    dialect = replace(source.dialect, trailing=trailing)
    return TextTable(table, dialect.notes, dialect)


def _may_have_swallowed(cell: object, source: _Source) -> bool:
    """Whether the last cell may hold the rows behind a quote that nothing closes."""
    signs = ("\n", "\r", '"', source.dialect.delimiter)
    return isinstance(cell, str) and bool(source.scan.quotes) and any(s in cell for s in signs)


def _is_empty(column: Any) -> bool:
    return bool(column.null_count == len(column))


def _check_names(names: Sequence[str], path: Path) -> None:
    repeated = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if repeated:
        received = Words(f"{_listed(repeated)} more than once")
        raise invalid("columns", "have different names", received, f"mend {path}")


def _listed(names: Sequence[str], most: int = 5) -> str:
    shown = ", ".join(cut(name, 60) or "a nameless one" for name in names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def _look_at(path: Path) -> _Source:
    """Tell the dialect and the header, and check each byte once."""
    encoding = find_encoding(path)
    scan = _scan(path, encoding)
    text, complete = _beginning(path, encoding, SAMPLE)
    if not text.strip("\r\n"):
        raise invalid(str(path), "hold a table", Words("an empty file"), "write it again")
    size = SAMPLE
    while True:
        delimiter = _find_delimiter(text, complete)
        blank, header, alone = _header(text, delimiter)
        if complete or not alone:
            break
        size *= 8  # the header is longer than the sample
        text, complete = _beginning(path, encoding, size)
    if header is None:
        raise _unclosed(path, blank + 1)
    if alone and complete:
        raise _without_rows(path)
    with open_bytes(path) as file:
        gzipped = isinstance(file, gzip.GzipFile)
    dialect = Dialect(
        encoding, delimiter, _find_decimal(text, delimiter), 0, gzipped, _line_end(header)
    )
    source = _Source(path, dialect, tuple(_values(header, delimiter)), blank, scan)
    if scan.quotes % 2:
        _refuse_open_quote(source)
    return source


def _beginning(path: Path, encoding: Encoding, size: int) -> tuple[str, bool]:
    """Return the text at the beginning, and whether there is no other."""
    with open_bytes(path) as file:
        data, more = file.read(size), file.read(1)
    text = codecs.getincrementaldecoder(encoding.codec)().decode(data[len(encoding.bom) :])
    return text, not more


def _header(text: str, delimiter: str) -> tuple[int, str | None, bool]:
    """Return the number of blank lines above the header, the header, and whether it is alone.

    The header is None if a quote is open behind it. A header that is alone may be cut.
    """
    blank, header = 0, None
    for line, record in _records(_lines(text), delimiter):
        if not record.strip("\r\n"):
            blank += header is None
        elif header is not None:
            return blank, header, False
        elif _open_after(record, delimiter, False):
            return line - 1, None, True
        else:
            header = record
    return blank, header, True


def _line_end(record: str) -> str:
    ends = [end for end in ("\r\n", "\n", "\r") if record.endswith(end)]
    return ends[0] if ends else "\n"


def _find_delimiter(text: str, complete: bool) -> str:
    """Return what splits the first records into the same number of cells, the greater the better.

    Where nothing does, a row is longer or shorter than the others: the delimiter is what splits
    the header most.
    """
    best, split_most = (1, ","), (1, ",")
    lines = list(_lines(text))
    for delimiter in DELIMITERS:
        rows = [record for _, record in _records(lines, delimiter) if record.strip("\r\n")]
        rows = rows if complete or len(rows) < 2 else rows[:-1]  # the last one may be cut
        counts = {len(_cells(row, delimiter)) for row in rows}
        if len(counts) == 1:
            best = max(best, (counts.pop(), delimiter), key=lambda pair: pair[0])
        header = len(_cells(rows[0], delimiter)) if rows else 1
        split_most = max(split_most, (header, delimiter), key=lambda pair: pair[0])
    return best[1] if best[0] > 1 else split_most[1]


def _find_decimal(text: str, delimiter: str) -> str:
    if delimiter == ",":
        return "."
    commas = False
    for _, record in _records(_lines(text), delimiter):
        for start, stop in _cells(record, delimiter):
            if DECIMAL_POINT.fullmatch(record, start, stop):
                return "."
            commas = commas or bool(DECIMAL_COMMA.fullmatch(record, start, stop))
    return "," if commas else "."


def _scan(path: Path, encoding: Encoding) -> _Scan:
    """Decode the file piece by piece, and look for cells that a number would change.

    Raises
    ------
    InputError
        If bytes cannot be decoded.
    """
    decoder = codecs.getincrementaldecoder(encoding.codec)()
    zeros = long_ones = False
    quotes, before = 0, b","
    for piece in _pieces(path, encoding):
        try:
            text = decoder.decode(piece, final=not piece)
        except UnicodeDecodeError as error:
            raise _undecodable(path, encoding, error) from error
        data = piece if encoding.codec == "utf-8" else text.encode()
        quotes += data.count(b'"')
        simple = before + data.translate(_SIGNS, b"+-")
        before = simple[-40:]
        zeros = zeros or any(found in simple for found in ZEROS_FIRST)
        long_ones = long_ones or LONG_INTEGER in simple.translate(_DIGITS)
    return _Scan(zeros, long_ones, quotes)


def _pieces(path: Path, encoding: Encoding) -> Iterator[bytes]:
    """Yield the bytes behind the mark in pieces, and an empty piece at the end."""
    with open_bytes(path) as file:
        file.seek(len(encoding.bom))
        while piece := file.read(PIECE):
            yield piece
        yield b""


def _read_cells(source: _Source, as_text: AsText) -> Any:
    """Read all columns. Where later cells contradict the first ones, a column is text at first."""
    pa = needs("pyarrow")
    texts = {i for i, name in enumerate(source.header) if as_text(name)}
    loose: set[int] = set()
    block, failures = PIECE, 0
    while True:
        kinds: dict[int, Any] = {}
        try:
            kinds = _first_kinds(source, texts | loose, block)
            loose |= _numbers_in_name(source, _doubtful(source.scan, kinds), block)
            kinds |= {i: pa.string() for i in loose}
            columns = _read_as(source, kinds, block)
            break
        except pa.ArrowInvalid as error:
            message = str(error)
            if "straddl" in message and block < 1 << 30:
                block *= 8
            elif column := re.search(r"In CSV column #(\d+)", message):
                failures += 1
                loose.add(int(column[1]))
                least = {pa.float64()} if failures < 5 else set()  # few readings, come what may
                loose |= {i for i in kinds if failures > 2 and kinds[i] not in least}
                loose -= texts
            else:
                raise _ragged(source, error) from error
    if not len(columns[0]):
        raise _without_rows(source.path)
    _finish(columns, texts, loose, source.dialect.decimal)
    return pa.table(columns, names=[str(i) for i in range(len(columns))])


def _doubtful(scan: _Scan, kinds: Mapping[int, Any]) -> set[int]:
    """Return the columns of numbers that may hold cells which a number would change."""
    types = needs("pyarrow").types
    return {
        i
        for i, kind in kinds.items()
        if (scan.leading_zeros and types.is_integer(kind))
        or (scan.long_integers and types.is_floating(kind))
    }


def _numbers_in_name(source: _Source, doubtful: set[int], block: int) -> set[int]:
    """Return those of the doubtful columns that hold cells which a number would change."""
    if not doubtful:
        return set()
    pa, compute = needs("pyarrow"), needs("pyarrow.compute")
    found: set[int] = set()
    kinds = dict.fromkeys(doubtful, pa.string())
    with (
        open_bytes(source.path) as file,
        _batches(file, source, kinds, block, doubtful) as reader,
    ):
        for batch in reader:
            for name, column in zip(batch.schema.names, batch.columns, strict=True):
                if compute.any(compute.match_substring_regex(column, NO_NUMBER)).as_py():
                    found.add(int(name))
            if found == doubtful:
                break
    return found


def _first_kinds(source: _Source, texts: set[int], block: int) -> dict[int, Any]:
    """Tell the type of each column by the first rows."""
    string = needs("pyarrow").string()
    kinds = dict.fromkeys(texts, string)
    with open_bytes(source.path) as file, _batches(file, source, kinds, block) as reader:
        return dict(enumerate(reader.schema.types))


def _read_as(source: _Source, kinds: Mapping[int, Any], block: int) -> list[Any]:
    """Read the file with these types.

    Arrow's batches are small and are put together in groups: then the memory that they need is
    little more than the table's.
    """
    pa = needs("pyarrow")
    tables, group, size = [], [], 0
    block = block if block > PIECE else PIECE // 8
    with open_bytes(source.path) as file, _batches(file, source, kinds, block) as reader:
        schema = reader.schema
        for batch in reader:
            group.append(batch)
            size += batch.nbytes
            if size > GROUP:
                tables.append(pa.Table.from_batches(group).combine_chunks(arrow_pool()))
                group, size = [], 0
    tables.append(pa.Table.from_batches(group, schema).combine_chunks(arrow_pool()))
    return list(pa.concat_tables(tables).columns)


def _batches(
    file: Any, source: _Source, kinds: Mapping[int, Any], block: int, only: Collection[int] = ()
) -> Any:
    """Let Arrow read a file in batches. The columns are called by their numbers."""
    csv = needs("pyarrow.csv")
    dialect = source.dialect
    reading = csv.ReadOptions(
        column_names=[str(i) for i in range(len(source.header))],
        skip_rows_after_names=1 + source.blank_lines,
        block_size=block,
        use_threads=False,
        encoding=dialect.encoding.codec,
    )
    parsing = csv.ParseOptions(delimiter=dialect.delimiter, newlines_in_values=True)
    converting = csv.ConvertOptions(
        column_types={str(i): kind for i, kind in kinds.items()},
        include_columns=[str(i) for i in sorted(only)],
        null_values=list(NULLS),
        true_values=["true", "True", "TRUE"],
        false_values=["false", "False", "FALSE"],
        decimal_point=dialect.decimal,
    )
    file.seek(len(dialect.encoding.bom))
    return csv.open_csv(file, reading, parsing, converting, memory_pool=arrow_pool())


def _finish(columns: list[Any], texts: set[int], loose: set[int], decimal: str) -> None:
    """Set missing values, and give types to the columns that were read as text first.

    The list is changed in place: then no two versions of a table need memory at the same time.
    """
    pa = needs("pyarrow")
    for i in range(len(columns)):
        if not pa.types.is_string(columns[i].type):
            continue
        columns[i] = _without(columns[i], ("",) if i in texts else NULLS)
        if i in loose:
            columns[i] = _typed(columns[i], decimal)


def _without(column: Any, nulls: Sequence[str]) -> Any:
    """Return a column of strings with null where a cell is one of `nulls`."""
    pa, compute = needs("pyarrow"), needs("pyarrow.compute")
    missing = compute.is_in(column, value_set=pa.array(nulls, pa.string()))
    if not compute.any(missing).as_py():
        return column
    return compute.if_else(missing, pa.scalar(None, pa.string()), column)


def _typed(column: Any, decimal: str) -> Any:
    """Return a column of strings as what all of them are: numbers, booleans, dates or text."""
    pa, compute = needs("pyarrow"), needs("pyarrow.compute")
    if _is_empty(column):
        return column.cast(pa.null())

    def all_match(pattern: str) -> bool:
        return bool(compute.all(compute.match_substring_regex(column, pattern)).as_py())

    if all_match(WHOLE):
        zeros = compute.match_substring_regex(column, r"^\s*[+-]?0[0-9]")
        if compute.any(zeros).as_py():
            return column
        return _first_cast(column, (pa.int64(), pa.uint64()))
    if all_match("^(true|True|TRUE|false|False|FALSE)$"):
        return column.cast(pa.bool_())
    if all_match(r"^\s*[+-]?0[xX]"):
        return column
    numbers = column
    if decimal != ".":
        if compute.any(compute.match_substring(column, ".")).as_py():
            return column
        numbers = compute.replace_substring(column, decimal, ".")
    moments = (pa.date32(), pa.timestamp("s"), pa.timestamp("ns"), pa.timestamp("ns", "UTC"))
    floats = _first_cast(numbers, (pa.float64(),))
    return floats if pa.types.is_floating(floats.type) else _first_cast(column, moments)


def _first_cast(column: Any, kinds: Sequence[Any]) -> Any:
    """Cast to the first type that holds all values, or return the column as it is."""
    pa, compute = needs("pyarrow"), needs("pyarrow.compute")
    trimmed = compute.utf8_trim_whitespace(column)
    for kind in kinds:
        try:
            return trimmed.cast(kind)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            continue
    return column


# Parts -----------------------------------------------------------------------------------------


def read_parts(paths: Sequence[Path], *, as_text: AsText) -> TextTable:
    """Read the delimited files of one table, in order.

    Parameters
    ----------
    paths : sequence of Path
        At least one file.
    as_text : callable
        As for `read_delimited`.

    Returns
    -------
    TextTable
        The rows of all files, and the dialect of the first one.

    Raises
    ------
    InputError
        If a file cannot be read, or the files differ in their columns.
    """
    paths = [Path(path) for path in paths]
    tables = [read_delimited(path, as_text=as_text) for path in paths]

    def again(part: int, columns: frozenset[str]) -> Any:
        table = read_delimited(paths[part], as_text=lambda name: name in columns or as_text(name))
        arrow = table.arrow
        for i, name in enumerate(arrow.column_names):
            if name in columns and not as_text(name):
                arrow = arrow.set_column(i, name, _without(arrow.column(i), NULLS))
        return arrow

    arrow = concat([table.arrow for table in tables], [path.name for path in paths], again)
    notes = tuple(dict.fromkeys(note for table in tables for note in table.notes))
    return TextTable(arrow, notes, tables[0].dialect)


def concat(tables: Sequence[Any], names: Sequence[str], again: Again | None = None) -> Any:
    """Put the parts of one table below each other. Columns are matched by their names.

    Parameters
    ----------
    tables : sequence of pyarrow.Table
        At least one. The first one says the order of the columns.
    names : sequence of str
        The names of the parts in messages.
    again : callable or None
        Takes the number of a part and names of columns, and returns the part's table with these
        columns as they are written. For columns that are numbers in one part and text in another.

    Returns
    -------
    pyarrow.Table
        Whole numbers and decimals become float64, dates and times become times.

    Raises
    ------
    InputError
        If the parts differ in their columns, or a column's types in what they can become.
    """
    for table, name in zip(tables[1:], names[1:], strict=True):
        _check_same_columns(tables[0].column_names, table.column_names, names[0], name)
    order = tables[0].column_names
    tables = [table.select(order) for table in tables]
    columns = {name: _promoted([table.column(name) for table in tables]) for name in order}
    clashing = frozenset(name for name, column in columns.items() if column is None)
    if clashing and again is not None:
        tables = [again(i, clashing) for i in range(len(tables))]
    for name in clashing:
        parts = [table.column(name) for table in tables]
        columns[name] = _promoted(parts) or _as_strings(parts, name, names)
    pa = needs("pyarrow")
    return pa.table(list(columns.values()), names=order).replace_schema_metadata(
        tables[0].schema.metadata
    )


def _check_same_columns(
    expected: Sequence[str], present: Sequence[str], first: str, name: str
) -> None:
    missing = [column for column in expected if column not in present]
    extra = [column for column in present if column not in expected]
    if missing or extra:
        kinds = {"lacks": missing, "adds": extra}
        received = ", ".join(f"one that {k} {_listed(v)}" for k, v in kinds.items() if v)
        requirement = f"have the columns of {first}"
        remedy = "give one file, or name files train-*, test-*"
        raise invalid(name, requirement, Words(received), remedy)


def _promoted(parts: Sequence[Any]) -> Any | None:
    """Return the parts of a column as one column, or None if no type holds all values."""
    pa = needs("pyarrow")
    kind = _common_type([part.type for part in parts])
    if kind is None:
        return None
    try:
        chunks = [chunk for part in parts for chunk in part.cast(kind).chunks]
    except pa.ArrowInvalid:  # whole numbers that a float would round
        return None
    return pa.chunked_array(chunks, kind)


def _common_type(kinds: Sequence[Any]) -> Any | None:
    pa = needs("pyarrow")
    types = pa.types
    plain = [kind.value_type if types.is_dictionary(kind) else kind for kind in kinds]
    some = list(dict.fromkeys(kind for kind in plain if not types.is_null(kind)))
    if len(some) <= 1:
        same = len(set(kinds)) == 1
        return kinds[0] if same else (some[0] if some else pa.null())
    if all(types.is_string(kind) or types.is_large_string(kind) for kind in some):
        return pa.large_string()
    if any(types.is_floating(kind) for kind in some):
        numbers = all(types.is_floating(kind) or types.is_integer(kind) for kind in some)
        return pa.float64() if numbers else None
    dates = [kind for kind in some if types.is_date(kind)]
    times = [kind for kind in some if types.is_timestamp(kind)]
    if len(dates) + len(times) == len(some):
        if not times or len({kind.tz for kind in times}) > 1:
            return None if times else pa.date64()
        units = [kind.unit for kind in times]
        return pa.timestamp(max(units, key=("s", "ms", "us", "ns").index), times[0].tz)
    try:
        schemas = [pa.schema([("one", kind)]) for kind in some]
        return pa.unify_schemas(schemas, promote_options="permissive").field(0).type
    except pa.ArrowException:
        return None


def _as_strings(parts: Sequence[Any], name: str, names: Sequence[str]) -> Any:
    """Return parts of whole numbers, booleans and text as one column of text."""
    pa = needs("pyarrow")
    types, chunks = pa.types, []
    for part in parts:
        kind = part.type
        texts = types.is_string(kind) or types.is_large_string(kind) or types.is_null(kind)
        if not (texts or types.is_integer(kind) or types.is_boolean(kind)):
            shown = dict(zip(names, (str(part.type) for part in parts), strict=True))
            received = ", ".join(f"{kind} in {where}" for where, kind in list(shown.items())[:5])
            remedy = "write the column alike in all parts"
            raise invalid(f"column {name}", "be of one kind", Words(received), remedy)
        chunks += part.cast(pa.large_string()).chunks
    return pa.chunked_array(chunks, pa.large_string())


# Writing ---------------------------------------------------------------------------------------


def write_delimited(
    header: Sequence[str], rows: Iterable[Sequence[str | None]], path: Path, dialect: Dialect
) -> None:
    """Write a delimited file. None is an empty cell, and an empty text has quotes.

    Raises
    ------
    InputError
        If a text cannot be written in the dialect's encoding, or the file cannot be written.
    """

    def lines() -> Iterator[str]:
        for row in (header, *rows):
            cells = [
                "" if cell is None else _quoted(cell, dialect.delimiter, cell == "")
                for cell in (*row, *[None] * dialect.trailing)
            ]
            lone = cells == [""]  # a blank line is no row
            yield ('""' if lone else dialect.delimiter.join(cells)) + dialect.line_end

    pieces = [_encoded(line, dialect.encoding, path) for line in lines()]
    _write(path, dialect.encoding.bom + b"".join(pieces), dialect.gzipped)


def write_corrected(source: Path, out: Path, column: str, corrections: Mapping[int, str]) -> None:
    """Copy a delimited file with other values in some cells of one column.

    All other bytes stay as they are: quotes, line ends, the encoding and its mark. The copy of a
    file that gzip has packed is packed, too.

    Parameters
    ----------
    source, out : Path
        They may be the same file.
    column : str
        The name of the column.
    corrections : mapping of int to str
        The new value for each of these rows. Rows are counted from 0, without the header.

    Raises
    ------
    InputError
        If the column or a row is not there, a value cannot be written in the file's encoding, or
        the file cannot be read or written.
    """
    try:
        known = _look_at(Path(source))
        if column not in known.header:
            remedy = f"it has {_listed(known.header)}"
            raise invalid("column", f"be one of {source}", column, remedy)
        pieces = list(_corrected(known, known.header.index(column), corrections))
    except UNREADABLE as error:
        raise damaged(source, error) from error
    _write(out, b"".join(pieces), known.dialect.gzipped)


def _corrected(source: _Source, column: int, corrections: Mapping[int, str]) -> Iterator[bytes]:
    """Yield the bytes of each record."""
    dialect, left = source.dialect, set(corrections)
    encoding, row = dialect.encoding, -2  # the header comes first
    with open_bytes(source.path) as raw, open_text(source.path, encoding) as text:
        yield raw.read(len(encoding.bom))
        for _, record in _records(text, dialect.delimiter):
            row += bool(record.strip("\r\n"))
            # Some encodings write one letter in two ways: the bytes are copied, not encoded anew.
            data = raw.read(len(record.encode(encoding.codec)))
            if row < 0 or row not in left or not record.strip("\r\n"):
                yield data
                continue
            left.discard(row)
            start, stop = _cells(record, dialect.delimiter)[column]
            value = corrections[row]
            lone = len(source.header) == 1 and not value
            quotes = record[start : start + 1] == '"' or lone
            cell = _quoted(value, dialect.delimiter, quotes)
            before = len(record[:start].encode(encoding.codec))
            behind = len(record[:stop].encode(encoding.codec))
            yield data[:before] + _encoded(cell, encoding, source.path) + data[behind:]
    if left:
        refuse_row(min(left), row + 1, source.path)


def refuse_row(row: int, rows: int, path: Path) -> None:
    """Raise an InputError for the correction of a row that a file does not have."""
    remedy = f"{path} has {rows} rows, counted from 0"
    raise invalid("corrections", "be for rows of the file", row, remedy)


def _encoded(text: str, encoding: Encoding, path: Path) -> bytes:
    try:
        return text.encode(encoding.codec)
    except UnicodeEncodeError as error:
        received = text[error.start : error.end]
        remedy = "choose another name for the class, or save the file as UTF-8"
        raise invalid(f"text for {path}", f"fit {encoding.codec}", received, remedy) from error


def _write(path: Path, content: bytes, gzipped: bool) -> None:
    write_atomically(path, gzip.compress(content, mtime=0) if gzipped else content)


# Bytes and encodings ---------------------------------------------------------------------------


def open_bytes(path: Path) -> Any:  # a file, or the like of one
    """Open a file for reading. What gzip has packed is unpacked, whatever the name."""
    file = open(path, "rb")  # noqa: SIM115 - the caller closes the file
    if file.peek(2)[:2] != b"\x1f\x8b":
        return file
    file.close()
    return gzip.open(path, "rb")


def open_text(path: Path, encoding: Encoding, errors: str = "strict") -> io.TextIOWrapper:
    """Open a file's text behind the byte order mark, line ends as they are."""
    file = open_bytes(path)
    file.seek(len(encoding.bom))
    return io.TextIOWrapper(file, encoding.codec, errors, newline="")


def find_encoding(path: Path) -> Encoding:
    """Tell the encoding of a text file by its mark, else by its bytes.

    Raises
    ------
    InputError
        If the file is no text.
    """
    with open_bytes(path) as file:
        start = file.read(SAMPLE)
    for bom, codec in BOMS.items():
        if start.startswith(bom):
            return Encoding(codec, bom)
    if b"\0" in start:
        received = Words("zero bytes: UTF-16 without a byte order mark, or no text at all")
        raise invalid(str(path), "be a text file", received, "save it as UTF-8")
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for piece in _pieces(path, Encoding()):
            decoder.decode(piece, final=not piece)
    except UnicodeDecodeError:
        return _other_encoding(path)
    return Encoding()


def _other_encoding(path: Path) -> Encoding:
    """Guess the encoding of a file that is not UTF-8 throughout."""
    sample = _lines_beyond_ascii(path)
    inside = b"".join(UTF8_LETTER.findall(sample))
    beyond_ascii = sum(map(len, re.findall(rb"[\x80-\xff]+", sample)))
    if len(inside) > beyond_ascii / 2:
        return Encoding()  # UTF-8 with damaged bytes, which are refused later
    others = ["utf_8", "utf_7", "utf_16", "utf_16_le", "utf_16_be", "utf_32", "utf_32_le"]
    detector = needs("charset_normalizer")
    matches = detector.from_bytes(sample, cp_exclusion=[*others, "utf_32_be", "utf_8_sig"])
    best = _best_of(list(matches), sample)
    if best is None or _cp1252_is_better(best, matches, sample):
        return Encoding("cp1252", guessed=True)
    codec = COMMONER.get(best.encoding, best.encoding)
    return Encoding(codec if _decodes(path, codec) else best.encoding, guessed=True)


def _best_of(matches: Sequence[Any], sample: bytes) -> Any | None:
    """Return the guess whose text has the fewest odd places, then the commonest one."""
    western = _looks_western(sample)
    matches = [match for match in matches if match.encoding != "cp1252" or western]
    least = min((match.chaos for match in matches), default=0.0)
    likely = [match for match in matches if match.chaos <= least + 0.06]
    order = {
        match.encoding: (
            round(_oddity(sample.decode(match.encoding, "replace")), 2),
            match.encoding not in COMMON,
            -match.coherence,
        )
        for match in likely
    }
    return min(likely, key=lambda match: order[match.encoding], default=None)


def _oddity(text: str) -> float:
    """Return how many places are odd, by the number of letters beyond ASCII."""
    beyond = sum(not letter.isascii() for letter in text)
    cases = sum(a.islower() and b.isupper() for a, b in pairwise(text))
    return (cases + len(ODD.findall(text))) / max(beyond, 1)


def _lines_beyond_ascii(path: Path) -> bytes:
    """Return the first lines that are not plain ASCII, from anywhere in the file."""
    lines: list[bytes] = []
    size = 0
    for piece in _pieces(path, Encoding()):
        for line in piece.splitlines():
            if not line.isascii() and size < SAMPLE:
                lines.append(line[:SAMPLE])
                size += len(lines[-1])
        if size >= SAMPLE:
            break
    return b"\n".join(lines)


def _cp1252_is_better(best: Any, matches: Any, sample: bytes) -> bool:
    """Whether the most common 8-bit encoding explains the bytes as well as the best guess."""
    if not _looks_western(sample):
        return False
    known = {match.encoding: match.coherence for match in matches}
    return bool(
        "cp1252" in best.could_be_from_charset or best.coherence <= known.get("cp1252", 0.0) + 0.05
    )


def _looks_western(sample: bytes) -> bool:
    """Whether bytes read as cp1252 are words of Latin letters.

    Short texts hardly tell the code pages apart otherwise. There, letters beyond ASCII stand among
    others; in other scripts they stand together.
    """
    try:
        text = sample.decode("cp1252")
    except UnicodeDecodeError:
        return False
    beyond = [letter for letter in text if not letter.isascii()]
    usual = [c for c in beyond if c in USUAL_SIGNS or (c.isalpha() and c not in "ƒªº")]
    words = [word for word in re.findall(r"[^\W\d_]+", text) if not word.isascii()]
    latin = [word for word in words if re.search("[A-Za-z]", word)]
    return len(usual) >= 0.9 * len(beyond) and len(latin) >= 0.5 * len(words)


def _decodes(path: Path, codec: str) -> bool:
    decoder = codecs.getincrementaldecoder(codec)()
    try:
        for piece in _pieces(path, Encoding()):
            decoder.decode(piece, final=not piece)
    except UnicodeDecodeError:
        return False
    return True


# Records and cells -----------------------------------------------------------------------------


def _lines(text: str) -> Iterator[str]:
    return iter(io.StringIO(text, newline=""))  # str.splitlines would split at more than line ends


def _open_after(line: str, delimiter: str, inside: bool) -> bool:
    """Whether a quote is open behind a line. `inside`: one is open before the line."""
    if not inside and '"' not in line:
        return False
    at = 0
    while True:
        if inside or line.startswith('"', at):
            closing = CLOSING.match(line, at if inside else at + 1)
            if closing is None:
                return True
            at, inside = closing.end(), False
        at = line.find(delimiter, at) + 1
        if not at:
            return False


def _records(lines: Iterable[str], delimiter: str) -> Iterator[tuple[int, str]]:
    """Yield the number of each record's first line (from 1) and the record with its line ends.

    The last record may have an open quote. Blank lines are records, too.
    """
    held: list[str] = []
    inside, first = False, 1
    for number, line in enumerate(lines, 1):
        first = first if held else number
        inside = _open_after(line, delimiter, inside)
        held.append(line)
        if not inside:
            yield first, held[0] if len(held) == 1 else "".join(held)
            held = []
    if held:
        yield first, "".join(held)


def _cells(record: str, delimiter: str) -> list[tuple[int, int]]:
    """Return where each cell of a record starts and stops, quotes included."""
    spans, start, end = [], 0, len(record.rstrip("\r\n"))
    while True:
        stop = start
        if record.startswith('"', start):
            closing = CLOSING.match(record, start + 1)
            stop = end if closing is None else closing.end()
        found = record.find(delimiter, stop, end)
        spans.append((start, end if found < 0 else found))
        if found < 0:
            return spans
        start = found + 1


def _values(record: str, delimiter: str) -> list[str]:
    return [_unquoted(record[start:stop]) for start, stop in _cells(record, delimiter)]


def _unquoted(cell: str) -> str:
    closing = CLOSING.match(cell, 1) if cell.startswith('"') else None
    if closing is None:
        return cell
    return cell[1 : closing.end() - 1].replace('""', '"') + cell[closing.end() :]


def _quoted(value: str, delimiter: str, always: bool) -> str:
    special = any(sign in value for sign in (delimiter, '"', "\r", "\n"))
    return '"' + value.replace('"', '""') + '"' if always or special else value


# What is wrong, and where ----------------------------------------------------------------------


def _undecodable(path: Path, encoding: Encoding, error: UnicodeDecodeError) -> InputError:
    """Say where the first bytes are that the encoding does not know."""
    data = error.object[error.start : error.end]
    received = f"the bytes {data.hex(' ')}"
    remedy = "write these bytes again, or save the file as UTF-8"
    with suppress(UnicodeDecodeError):  # bytes for which surrogates cannot stand
        received += _place_of_bad_bytes(path, encoding)
    return invalid(str(path), f"be {encoding.codec} text", Words(received), remedy)


def _place_of_bad_bytes(path: Path, encoding: Encoding) -> str:
    with open_text(path, encoding, "surrogateescape") as text:
        sample = text.read(SAMPLE)
    delimiter = _find_delimiter(sample, len(sample) < SAMPLE)
    header: list[str] = []
    with open_text(path, encoding, "surrogateescape") as text:
        for line, record in _records(text, delimiter):
            bad = re.search("[\ud800-\udfff]", record)
            header = header or _values(record.strip("\r\n"), delimiter)
            if bad is None:
                continue
            line += len(re.findall("\r\n|\r|\n", record[: bad.start()]))
            place = f" in line {line}"
            position = sum(start <= bad.start() for start, _ in _cells(record, delimiter)) - 1
            known = position < len(header) and header[position].isprintable()
            return f"{place}, column {cut(header[position], 60)}" if known else place
    return ""


def _ragged(source: _Source, error: BaseException) -> InputError:
    """Say which row is longer or shorter than the header."""
    delimiter, columns = source.dialect.delimiter, len(source.header)
    with open_text(source.path, source.dialect.encoding) as text:
        for line, record in _records(text, delimiter):
            cells = len(_cells(record, delimiter))
            if cells == columns or not record.strip("\r\n"):
                continue
            received = Words(f"{cells} in line {line}: {cut(record.strip(), 80)!r}")
            requirement = f"have {columns} cells in each row, as in the header"
            remedy = f"mend this line; cells that hold {DELIMITERS[delimiter]} need quotes"
            return invalid(str(source.path), requirement, received, remedy)
    return damaged(source.path, error)


def _refuse_open_quote(source: _Source) -> None:
    delimiter = source.dialect.delimiter
    with open_text(source.path, source.dialect.encoding) as text:
        line, record = deque(_records(text, delimiter), maxlen=1)[0]
    if _open_after(record, delimiter, False):
        raise _unclosed(source.path, line)


def _without_rows(path: Path) -> InputError:
    received = Words("a header without rows")
    return invalid(str(path), "hold rows", received, "check that it was written")


def _unclosed(path: Path, line: int) -> InputError:
    received = Words(f"a cell that starts in the row of line {line} and never ends")
    return invalid(str(path), "close each quote", received, "close it, or double it within a cell")
