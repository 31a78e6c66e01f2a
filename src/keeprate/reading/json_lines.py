"""JSON (a list of objects, or an object per line, packed by gzip or not) -> Arrow tables, and back.

Objects within objects become columns of their own, one level deep.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from json import JSONDecodeError, JSONDecoder
from pathlib import Path
from typing import Any

from keeprate.errors import InputError, Words, damaged, first_line, invalid, needs
from keeprate.files import write_atomically
from keeprate.limits import check_size, read_limit, too_deep
from keeprate.reading.corrections import encoded_as, refuse_row
from keeprate.reading.delimited import AsText
from keeprate.reading.encodings import (
    UNREADABLE,
    Encoding,
    find_encoding,
    open_bytes,
    open_text,
    pieces_of,
)
from keeprate.reading.parts import concat
from keeprate.text import cut

ROWS = 20_000  # rows that become Arrow's together
IN_OBJECTS = 4  # times as much memory as the text: a list of objects as Python holds them
EXACT = 2**53  # a float holds each whole number up to this one
REMEDY = "write a list of objects, or one object per line"
Row = dict[str, Any]


@dataclass
class _Kinds:
    """What the values of a column are."""

    kinds: set[type] = field(default_factory=set)
    least: int = 0
    most: int = 0

    def add(self, value: Any) -> None:
        self.kinds.add(type(value))
        if type(value) is int:
            self.least, self.most = min(self.least, value), max(self.most, value)

    @property
    def type(self) -> Any | None:
        """The type of Arrow's that holds all values, or None if Arrow shall tell it."""
        pa = needs("pyarrow")
        kinds = self.kinds - {type(None)}
        if kinds == {int}:
            return self._whole()
        exact = self.least >= -EXACT and self.most <= EXACT
        if kinds <= {int, float} and exact:
            return pa.float64() if kinds else pa.null()
        if kinds == {bool}:
            return pa.bool_()
        return pa.string() if kinds <= {bool, int, float, str} else None

    def _whole(self) -> Any:
        pa = needs("pyarrow")
        if self.least >= -(2**63) and self.most < 2**63:
            return pa.int64()
        return pa.uint64() if self.least >= 0 and self.most < 2**64 else pa.string()


def read_json(path: Path, *, as_text: AsText) -> Any:
    """Read a list of objects, or an object per line.

    Parameters
    ----------
    path : Path
        The file.
    as_text : callable
        Takes the name of a column. If true, the values of different kinds, and decimals, become
        strings as JSON writes them. Whole numbers stay numbers.

    Returns
    -------
    pyarrow.Table
        A row for each object. A key that an object lacks is missing there.

    Raises
    ------
    InputError
        If the file cannot be read, is no such JSON, is empty, or a column holds lists and others.
    """
    path = Path(path)
    return table_of(lambda: rows_of(path), as_text, path)


def table_of(rows: Callable[[], Iterator[Row]], as_text: AsText, path: Path) -> Any:
    """Make a table of the rows, which are gone through twice. `path` is what messages name."""
    try:
        return _table_of(rows, as_text, path)
    except RecursionError as error:
        raise too_deep(str(path)) from error


def _table_of(rows: Callable[[], Iterator[Row]], as_text: AsText, path: Path) -> Any:
    columns: dict[str, _Kinds] = {}
    for row in rows():
        for name, value in _flat(row).items():
            columns.setdefault(name, _Kinds()).add(value)
    if not columns:
        raise invalid(str(path), "hold objects", Words("none"), "check that it was written")
    _check_letters(columns, path)
    types = {name: _type_of(kinds, as_text(name)) for name, kinds in columns.items()}
    left, tables = rows(), []
    while some := [_flat(row) for row in islice(left, ROWS)]:
        arrays = [
            _array([row.get(name) for row in some], kind, name, path)
            for name, kind in types.items()
        ]
        tables.append(needs("pyarrow").table(arrays, names=list(types)))
    return concat(tables, [path.name] * len(tables))


def _type_of(kinds: _Kinds, as_text: bool) -> Any | None:
    pa = needs("pyarrow")
    kind = kinds.type
    return pa.string() if as_text and kind is not None and kind == pa.float64() else kind


def _flat(row: Row) -> Row:
    if not any(type(value) is dict for value in row.values()):
        return row
    flat: Row = {}
    for name, value in row.items():
        inner = value if type(value) is dict else None
        flat |= {name: value} if inner is None else {f"{name}.{k}": v for k, v in inner.items()}
    return flat


def _array(values: list[Any], kind: Any | None, name: str, path: Path) -> Any:
    pa = needs("pyarrow")
    if kind is not None and pa.types.is_string(kind):
        values = [v if v is None or type(v) is str else json.dumps(v) for v in values]
    try:
        return pa.array(values, kind)
    except (pa.ArrowException, OverflowError) as error:
        received = Words(f"values that differ in kind ({cut(first_line(error), 200)})")
        remedy = "write all values of the column alike"
        where = f"column {cut(name, 60)} of {path}"
        raise invalid(where, "be of one kind", received, remedy) from error
    except UnicodeEncodeError as error:
        raise _half_letters(f"column {cut(name, 60)} of {path}") from error


def _check_letters(names: Iterable[str], path: Path) -> None:
    """Raise an InputError if the name of a column is no text that can be written anywhere."""
    for name in names:
        if re.search("[\ud800-\udfff]", name):
            raise _half_letters(f"the name of a column of {path}")


def _half_letters(where: str) -> InputError:
    received = Words("half a letter (\\ud800 to \\udfff without its other half)")
    return invalid(where, "be text", received, "write the text again")


# Objects ---------------------------------------------------------------------------------------


def is_json(path: Path) -> bool:
    """Whether a text file starts as JSON does: with a brace, or a bracket and a brace."""
    # Bytes that cannot be decoded are told by what reads the file, with their place.
    with open_text(path, find_encoding(path), "replace") as text:
        return bool(re.match(r"\s*(\{|\[\s*[{\]])", text.read(1 << 12)))


def rows_of(path: Path) -> Iterator[Row]:
    """Yield the objects of a file.

    Raises
    ------
    InputError
        If the file cannot be read, or is not a list of objects or an object per line.
    """
    try:
        encoding = find_encoding(path)
        with open_text(path, encoding) as text:
            start = text.read(1 << 12).lstrip()[:1]
            if not start:
                raise invalid(str(path), "hold objects", Words("an empty file"), "write it again")
        yield from _listed(path, encoding) if start == "[" else _by_line(path, encoding)
    except UnicodeDecodeError as error:
        data = error.object[error.start : error.end].hex(" ")
        received = Words(f"the bytes {data}{_place_of_bad_bytes(path, error.encoding)}")
        remedy = "save the file as UTF-8"
        raise invalid(str(path), f"be {error.encoding} text", received, remedy) from error
    except UNREADABLE as error:
        raise damaged(path, error) from error


def _place_of_bad_bytes(path: Path, codec: str) -> str:
    with suppress(UnicodeDecodeError), open_text(path, Encoding(codec), "surrogateescape") as text:
        for number, line in enumerate(text, 1):
            if re.search("[\ud800-\udfff]", line):
                return f" in line {number}"
    return ""


def _listed(path: Path, encoding: Encoding) -> Iterator[Row]:
    remedy = "write one object per line, which is read row by row"
    n_bytes = sum(map(len, pieces_of(path, encoding)))
    check_size(f"the list in {path}", n_bytes, remedy, most=read_limit() // IN_OBJECTS)
    with open_text(path, encoding) as text:
        try:
            rows = json.load(text)
        except ValueError as error:
            raise _no_json(path, error) from error
    for number, row in enumerate(rows):
        yield _checked(row, f"in place {number} of the list", path)


def _by_line(path: Path, encoding: Encoding) -> Iterator[Row]:
    with open_text(path, encoding) as text:
        rows = 0
        for number, line in enumerate(text, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                if not rows:
                    _refuse_one_object(path, encoding)
                raise _no_json(path, error, number) from error
            rows += 1
            yield _checked(row, f"in line {number}", path)


def _checked(row: Any, where: str, path: Path) -> Row:
    if not isinstance(row, dict):
        raise invalid(str(path), "hold objects", Words(f"{type(row).__name__} {where}"), REMEDY)
    return row


def _refuse_one_object(path: Path, encoding: Encoding) -> None:
    """Raise an InputError if the whole file is one object."""
    with open_text(path, encoding) as text:
        try:
            content = json.load(text)
        except (ValueError, RecursionError):
            return
    if not isinstance(content, dict):
        return
    received = Words(f"one object of {len(content)} keys ({cut(', '.join(content), 100)})")
    raise invalid(str(path), "hold rows", received, REMEDY)


def _no_json(path: Path, error: ValueError, line: int | None = None) -> InputError:
    reason = first_line(error)
    if isinstance(error, JSONDecodeError):
        reason = f"{error.msg} in line {line or error.lineno}, column {error.colno}"
    return invalid(str(path), "be JSON", Words(reason), REMEDY)


# Copies ----------------------------------------------------------------------------------------


def write_corrected_json(
    source: Path, out: Path, column: str, corrections: Mapping[int, str | None]
) -> None:
    """Copy a JSON file with other values of one key in some objects, or without some objects.

    Everything else stays as it is. A value that was a number, true or false stays one if the
    correction can be read as one.

    Parameters
    ----------
    source, out : Path
        They may be the same file.
    column : str
        The key, or `outer.inner` for a key of an object within the objects.
    corrections : mapping of int to str or None
        The new value for each of these rows, counted from 0; None leaves the object out.

    Raises
    ------
    InputError
        If a row is not there or lacks the key, or the file cannot be read or written.
    """
    try:
        _write_corrected(Path(source), out, column, corrections)
    except RecursionError as error:
        raise too_deep(str(source)) from error


def _write_corrected(
    source: Path, out: Path, column: str, corrections: Mapping[int, str | None]
) -> None:
    rows = sum(1 for _ in rows_of(source))  # refuses what is no such file
    for row in sorted(corrections):
        if not 0 <= row < rows:
            refuse_row(row, rows, source)
    encoding = find_encoding(source)
    with open_text(source, encoding) as text:
        content = text.read()
    text_after = "".join(_corrected(content, column, corrections, source))
    new = encoding.bom + encoded_as(text_after, encoding, source)
    with open_bytes(source) as file:
        packed = isinstance(file, gzip.GzipFile)
    write_atomically(out, gzip.compress(new, mtime=0) if packed else new)


def _corrected(
    content: str, column: str, corrections: Mapping[int, str | None], path: Path
) -> Iterator[str]:
    """Yield the pieces of the copy: what is before each object, and the object."""
    behind, is_first = 0, True  # behind the last object; whether the next one is the first kept
    for row, (at, end) in enumerate(_spans(content)):
        before, behind = content[behind:at], end
        if row == 0:
            yield before
        value = corrections.get(row, "")
        if value is None:  # with the comma or the line end before it
            continue
        yield "" if is_first else before
        is_first = False
        if row not in corrections:
            yield content[at:end]
            continue
        start, stop = _value_span(content, at, column, row, path)
        yield from (content[at:start], _written_like(content[start:stop], value))
        yield content[stop:end]
    yield content[behind:]


def _spans(content: str) -> Iterator[tuple[int, int]]:
    """Yield where each object starts and stops."""
    decoder, at = JSONDecoder(), content.find("{")
    while at >= 0:
        _, end = decoder.raw_decode(content, at)
        yield at, end
        at = content.find("{", end)


def _value_span(content: str, at: int, column: str, row: int, path: Path) -> tuple[int, int]:
    """Return where the value of a column starts and stops in the object that starts at `at`."""
    span = _find_value(content, at, column, deep=True)
    if span is None:
        remedy = f"choose another column; corrections are for row {row}"
        raise invalid("column", f"be a key of each object in {path}", column, remedy)
    return span


def _find_value(content: str, at: int, column: str, *, deep: bool) -> tuple[int, int] | None:
    """Look for a key, and for `outer.inner` in the object that is the value of `outer`."""
    decoder, span = JSONDecoder(), None
    at = _behind_space(content, at + 1)
    while content[at] == '"':
        key, at = decoder.raw_decode(content, at)
        start = _behind_space(content, _behind_space(content, at) + 1)  # behind the colon
        _, stop = decoder.raw_decode(content, start)
        if key == column:
            span = (start, stop)  # the last one counts
        elif deep and content[start] == "{" and column.startswith(f"{key}."):
            span = _find_value(content, start, column[len(key) + 1 :], deep=False) or span
        at = _behind_space(content, stop)
        at = _behind_space(content, at + 1) if content[at] == "," else at
    return span


def _behind_space(content: str, at: int) -> int:
    while content[at] in " \t\r\n":
        at += 1
    return at


def _written_like(old: str, value: str) -> str:
    if old in ("true", "false") and value.lower() in ("true", "false"):
        return value.lower()  # the classes of true and false are called True and False
    if not old.startswith('"'):
        try:
            new = json.loads(value)
        except ValueError:
            new = value
        if type(new) is type(json.loads(old)):
            return value
    return json.dumps(value, ensure_ascii=False)
