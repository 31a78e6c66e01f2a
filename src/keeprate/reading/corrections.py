"""Copies of files in which some cells have other values."""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from keeprate.errors import damaged, invalid
from keeprate.files import write_atomically
from keeprate.reading.cells import cell_spans, listed_columns, quoted, records_of
from keeprate.reading.dialects import Dialect, Source, look_at
from keeprate.reading.encodings import UNREADABLE, Encoding, open_bytes, open_text


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
        known = look_at(Path(source))
        if column not in known.header:
            remedy = f"it has {listed_columns(known.header)}"
            raise invalid("column", f"be one of {source}", column, remedy)
        pieces = list(_corrected(known, known.header.index(column), corrections))
    except UNREADABLE as error:
        raise damaged(source, error) from error
    _write(out, b"".join(pieces), known.dialect.gzipped)


def _corrected(source: Source, column: int, corrections: Mapping[int, str]) -> Iterator[bytes]:
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
            start, stop = cell_spans(record, dialect.delimiter)[column]
            value = corrections[row]
            lone = len(source.header) == 1 and not value
            quotes = record[start : start + 1] == '"' or lone
            cell = quoted(value, dialect.delimiter, quotes)
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
