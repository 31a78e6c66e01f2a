"""Copies of files in which some cells have other values, and some rows are left out."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from keeprate.errors import InputError, damaged, invalid, needs
from keeprate.files import write_atomically
from keeprate.reading.cells import cell_spans, listed_columns, quoted, records_of
from keeprate.reading.dialects import Dialect, Source, look_at
from keeprate.reading.encodings import UNREADABLE, Encoding, open_bytes, open_text
from keeprate.text import listed

WHOLE = re.compile(r"\s*([+-]?[0-9]+)(?:\.0*)?\s*", re.ASCII)


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
                "" if cell is None else quoted(cell, dialect.delimiter, cell == "")
                for cell in (*row, *[None] * dialect.trailing)
            ]
            lone = cells == [""]  # a blank line is no row
            yield ('""' if lone else dialect.delimiter.join(cells)) + dialect.line_end

    pieces = [encoded_as(line, dialect.encoding, path) for line in lines()]
    _write(path, dialect.encoding.bom + b"".join(pieces), dialect.gzipped)


def write_corrected(
    source: Path, out: Path, column: str, corrections: Mapping[int, str | None]
) -> None:
    """Copy a delimited file with other values in some cells of one column, or without some rows.

    All other bytes stay as they are: quotes, line ends, the encoding and its mark. The copy of a
    file that gzip has packed is packed, too.

    Parameters
    ----------
    source, out : Path
        They may be the same file.
    column : str
        The name of the column.
    corrections : mapping of int to str or None
        The new value for each of these rows; None leaves the row out. Rows are counted from 0,
        without the header.

    Raises
    ------
    InputError
        If the column or a row is not there, a value cannot be written in the file's encoding, or
        the file cannot be read or written.
    """
    try:
        known = look_at(Path(source))
        if column not in known.header:
            remedy = f"it has {listed_columns(known.header)}"
            raise invalid("column", f"be one of {source}", column, remedy)
        pieces = list(_corrected(known, known.header.index(column), corrections))
    except UNREADABLE as error:
        raise damaged(source, error) from error
    _write(out, b"".join(pieces), known.dialect.gzipped)


def _corrected(
    source: Source, column: int, corrections: Mapping[int, str | None]
) -> Iterator[bytes]:
    """Yield the bytes of each record."""
    dialect, left = source.dialect, set(corrections)
    encoding, row = dialect.encoding, -2  # the header comes first
    with open_bytes(source.path) as raw, open_text(source.path, encoding) as text:
        yield raw.read(len(encoding.bom))
        for _, record in records_of(text, dialect.delimiter):
            row += bool(record.strip("\r\n"))
            # Some encodings write one letter in two ways: the bytes are copied, not encoded anew.
            data = raw.read(len(record.encode(encoding.codec)))
            if row < 0 or row not in left or not record.strip("\r\n"):
                yield data
                continue
            left.discard(row)
            value = corrections[row]
            if value is None:
                continue
            start, stop = cell_spans(record, dialect.delimiter)[column]
            lone = len(source.header) == 1 and not value
            quotes = record[start : start + 1] == '"' or lone
            cell = quoted(value, dialect.delimiter, quotes)
            before = len(record[:start].encode(encoding.codec))
            behind = len(record[:stop].encode(encoding.codec))
            yield data[:before] + encoded_as(cell, encoding, source.path) + data[behind:]
    if left:
        refuse_row(min(left), row + 1, source.path)


def refuse_row(row: int, rows: int, path: Path) -> None:
    """Raise an InputError for the correction of a row that a file does not have."""
    remedy = f"{path} has {rows} rows, counted from 0"
    raise invalid("corrections", "be for rows of the file", row, remedy)


def encoded_as(text: str, encoding: Encoding, path: Path) -> bytes:
    """Return the bytes of a text; a letter that the encoding lacks is an `InputError`."""
    try:
        return text.encode(encoding.codec)
    except UnicodeEncodeError as error:
        received = text[error.start : error.end]
        remedy = "choose another name for the class, or save the file as UTF-8"
        raise invalid(f"text for {path}", f"fit {encoding.codec}", received, remedy) from error


def _write(path: Path, content: bytes, gzipped: bool) -> None:
    write_atomically(path, gzip.compress(content, mtime=0) if gzipped else content)


# Parquet ---------------------------------------------------------------------------------------


def write_corrected_parquet(
    source: Path,
    out: Path,
    column: str,
    corrections: Mapping[int, str | None],
    names: Sequence[str] | None = None,
) -> None:
    """Copy a Parquet file with other values in some rows of one column, or without some rows.

    The schema, its metadata, the row groups, the compression and all other values stay.

    Parameters
    ----------
    source, out : Path
        They may be the same file.
    column : str
        The name of the column.
    corrections : mapping of int to str or None
        The new value for each of these rows, counted from 0; None leaves the row out. A column of
        numbers or booleans gets the number or the boolean that the text names.
    names : sequence of str, optional
        What the integers of the column stand for.

    Raises
    ------
    InputError
        If the column or a row is not there, a value does not fit the column's type, or the file
        cannot be read or written.
    """
    pa, parquet = needs("pyarrow"), needs("pyarrow.parquet")
    source, row = Path(source), 0
    stream = pa.BufferOutputStream()
    try:
        with parquet.ParquetFile(source, pre_buffer=False) as file:
            schema, metadata = file.schema_arrow, file.metadata
            _check_place(source, column, corrections, schema.names, metadata.num_rows)
            field = schema.field(column)
            values = {
                at: None if name is None else _value(name, field, names)
                for at, name in corrections.items()
            }
            with parquet.ParquetWriter(stream, schema, **_as_written(metadata)) as writer:
                for group in range(metadata.num_row_groups):
                    table = file.read_row_group(group, use_threads=False)
                    n = table.num_rows
                    own = {at - row: value for at, value in values.items() if row <= at < row + n}
                    table = _replaced(table, column, own)
                    if table.num_rows or not n:  # a group that lost all its rows is none
                        writer.write_table(table, row_group_size=max(n, 1))
                    row += n
                if b"ARROW:schema" not in (metadata.metadata or {}):  # nor the other texts
                    writer.add_key_value_metadata(metadata.metadata or {})
    except (OSError, pa.ArrowException) as error:
        raise damaged(source, error) from error
    write_atomically(out, stream.getvalue())


def _check_place(
    path: Path, column: str, rows: Iterable[int], columns: Sequence[str], n_rows: int
) -> None:
    if column not in columns:
        raise invalid("column", f"be one of {path}", column, f"it has {listed(columns)}")
    for row in rows:
        if not 0 <= row < n_rows:
            refuse_row(row, n_rows, path)


def _as_written(metadata: Any) -> dict[str, Any]:
    """Return how the writer has to write a file to be like one that is there."""
    if not metadata.num_row_groups:
        return {}
    group = metadata.row_group(0)
    columns = {one.path_in_schema: one for one in map(group.column, range(metadata.num_columns))}
    codecs = {path: one.compression for path, one in columns.items()}
    coded = [path for path, one in columns.items() if "DICTIONARY" in " ".join(one.encodings)]
    known = metadata.format_version in ("1.0", "2.4", "2.6")
    return {
        "version": metadata.format_version if known else "2.6",
        "compression": {p: "NONE" if c == "UNCOMPRESSED" else c for p, c in codecs.items()},
        "use_dictionary": coded,
        "write_statistics": [path for path, one in columns.items() if one.is_stats_set],
        "store_schema": b"ARROW:schema" in (metadata.metadata or {}),
        "use_deprecated_int96_timestamps": any(
            one.physical_type == "INT96" for one in columns.values()
        ),
        "use_compliant_nested_type": not any(".list.item" in path for path in columns),
    }


def _value(name: str, field: Any, names: Sequence[str] | None) -> Any:
    """Return the value of an Arrow field that stands for a class."""
    pa = needs("pyarrow")
    types, kind = pa.types, field.type
    kind = kind.value_type if types.is_dictionary(kind) else kind
    if names is not None and name not in names:
        remedy = f"choose one of {listed(names)}"
        raise invalid("corrections", f"be classes of column {field.name}", name, remedy)
    value: Any = None
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        value = name
    elif types.is_binary(kind) or types.is_large_binary(kind):
        value = name.encode()
    elif types.is_integer(kind):
        value = whole_number(name) if names is None else names.index(name)
    elif types.is_floating(kind):
        value = whole_number(name)
        value = None if value is None else float(value)
    elif types.is_boolean(kind):
        value = {"true": True, "false": False}.get(name.lower())
    try:
        fits = value is not None and pa.scalar(value, kind).as_py() == value
    except (pa.ArrowException, OverflowError):
        fits = False
    if not fits:
        raise misfit(name, f"column {field.name} of type {field.type}")
    return value


def whole_number(name: str) -> int | None:
    """Return the whole number that a class is called, or None.

    >>> whole_number("7"), whole_number("7.0"), whole_number("7.5"), whole_number("seven")
    (7, 7, None, None)
    """
    match = WHOLE.fullmatch(name)
    return int(match[1]) if match else None


def misfit(name: str, where: str) -> InputError:
    """Return the error for a class that a column cannot hold."""
    remedy = "choose a class of the source, or convert the column to text"
    return invalid("corrections", f"fit {where}", name, remedy)


def _replaced(table: Any, column: str, values: Mapping[int, Any]) -> Any:
    """Return a table with other values in some rows of a column; None leaves the row out."""
    pa = needs("pyarrow")
    dropped = {row for row, value in values.items() if value is None}
    values = {row: value for row, value in values.items() if value is not None}
    if dropped:
        is_kept = [row not in dropped for row in range(table.num_rows)]
        return _replaced(table, column, values).filter(pa.array(is_kept))
    if not values:
        return table
    place, field = table.column_names.index(column), table.schema.field(column)
    new = pa.array(list(values.values()), field.type)
    both = pa.chunked_array([*table.column(column).chunks, new], field.type)
    if pa.types.is_dictionary(field.type):
        both = both.unify_dictionaries()
    order = list(range(table.num_rows))
    for i, row in enumerate(values):
        order[row] = table.num_rows + i
    return table.set_column(place, field, both.take(pa.array(order, pa.int64())))
