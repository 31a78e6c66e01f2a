"""How a delimited file is written: encoding, delimiter, decimal mark, header.

Each byte is checked once, and what is wrong is told with its line.
"""

from __future__ import annotations

import codecs
import gzip
import re
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from keeprate.errors import InputError, Words, invalid
from keeprate.reading.cells import (
    DELIMITERS,
    cell_spans,
    cell_values,
    lines_of,
    open_after,
    records_of,
)
from keeprate.reading.encodings import (
    SAMPLE,
    UTF8,
    Encoding,
    likely_encoding,
    open_bytes,
    open_text,
    other_encoding,
    text_bytes_of,
)
from keeprate.text import cut

Array: TypeAlias = NDArray[Any]

DECIMAL_COMMA = re.compile(r"\s*[+-]?[0-9]*,[0-9]+([eE][+-]?[0-9]+)?\s*")
DECIMAL_POINT = re.compile(r"\s*[+-]?[0-9]*\.[0-9]+([eE][+-]?[0-9]+)?\s*")
_SEPARATORS = b',;\t|"\r\n '  # what stands before a cell
_EIGHT_DIGITS = np.uint64(0x0101010101010101)  # eight times true
_SEAM = 40  # bytes; more than a separator, a sign and the digits that are looked for


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

    encoding: Encoding = UTF8
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
class Scan:
    """What one pass over the bytes tells about the cells."""

    leading_zeros: bool = False
    long_integers: bool = False
    quotes: int = 0


@dataclass(frozen=True)
class Source:
    """A file whose dialect and header are known."""

    path: Path
    dialect: Dialect
    header: tuple[str, ...]
    blank_lines: int  # above the header
    scan: Scan


def look_at(path: Path) -> Source:
    """Tell the dialect and the header, and check each byte once."""
    encoding, scan = _scan(path, likely_encoding(path))
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
        raise without_rows(path)
    with open_bytes(path) as file:
        gzipped = isinstance(file, gzip.GzipFile)
    dialect = Dialect(
        encoding, delimiter, _find_decimal(text, delimiter), 0, gzipped, _line_end(header)
    )
    source = Source(path, dialect, tuple(cell_values(header, delimiter)), blank, scan)
    if scan.quotes % 2:
        refuse_open_quote(source)
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
    for line, record in records_of(lines_of(text), delimiter):
        if not record.strip("\r\n"):
            blank += header is None
        elif header is not None:
            return blank, header, False
        elif open_after(record, delimiter, False):
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
    lines = list(lines_of(text))
    for delimiter in DELIMITERS:
        rows = [record for _, record in records_of(lines, delimiter) if record.strip("\r\n")]
        rows = rows if complete or len(rows) < 2 else rows[:-1]  # the last one may be cut
        counts = {len(cell_spans(row, delimiter)) for row in rows}
        if len(counts) == 1:
            best = max(best, (counts.pop(), delimiter), key=lambda pair: pair[0])
        header = len(cell_spans(rows[0], delimiter)) if rows else 1
        split_most = max(split_most, (header, delimiter), key=lambda pair: pair[0])
    return best[1] if best[0] > 1 else split_most[1]


def _find_decimal(text: str, delimiter: str) -> str:
    if delimiter == ",":
        return "."
    commas = False
    for _, record in records_of(lines_of(text), delimiter):
        for start, stop in cell_spans(record, delimiter):
            if DECIMAL_POINT.fullmatch(record, start, stop):
                return "."
            commas = commas or bool(DECIMAL_COMMA.fullmatch(record, start, stop))
    return "," if commas else "."


# Bytes -----------------------------------------------------------------------------------------


def _scan(path: Path, encoding: Encoding) -> tuple[Encoding, Scan]:
    """Decode the file piece by piece, and look for cells that a number would change.

    Returns
    -------
    Encoding
        The one given, or the one that the bytes tell where they are not UTF-8.
    Scan
        What the cells hold.

    Raises
    ------
    InputError
        If bytes cannot be decoded.
    """
    try:
        return encoding, _scan_bytes(text_bytes_of(path, encoding))
    except UnicodeDecodeError as error:
        found = other_encoding(path) if encoding == UTF8 else encoding
        if found == encoding:
            raise _undecodable(path, encoding, error) from error
    return _scan(path, found)


def _scan_bytes(pieces: Iterable[bytes]) -> Scan:
    zeros = long_ones = False
    quotes, before = 0, b",,"
    for piece in filter(None, pieces):
        # A cell may lie across the end of a piece.
        seam = np.frombuffer(before + piece[:_SEAM], np.uint8)
        signs = np.frombuffer(piece, np.uint8)
        before = (before + piece[-_SEAM:])[-_SEAM:]
        quotes += int(np.count_nonzero(signs == ord('"')))
        for some in (seam, signs):
            is_digit = (some - np.uint8(ord("0"))) < 10
            zeros = zeros or _has_leading_zero(some, is_digit)
            long_ones = long_ones or _has_long_integer(some, is_digit)
    return Scan(zeros, long_ones, quotes)


def _has_leading_zero(signs: Array, is_digit: Array) -> bool:
    """Whether a cell starts with a zero and a further digit, or is hexadecimal."""
    if signs.size < 3:
        return False
    start = (signs[1:-1] == ord("0")) & ~is_digit[:-2]
    follows = is_digit[2:] | ((signs[2:] | 32) == ord("x"))
    return _some_start_cells(signs, np.flatnonzero(start & follows) + 1)


def _has_long_integer(signs: Array, is_digit: Array) -> bool:
    """Whether a cell starts with 16 digits."""
    if is_digit.size < 17:
        return False
    whole = is_digit[: is_digit.size // 8 * 8].view(np.uint64)
    if not (whole == _EIGHT_DIGITS).any():  # 16 digits would cover eight such bytes
        return False
    run = is_digit
    for length in (1, 2, 4, 8):
        run = run[:-length] & run[length:]
    return _some_start_cells(signs, np.flatnonzero(run[1:] & ~is_digit[: run.size - 1]) + 1)


def _some_start_cells(signs: Array, positions: Array) -> bool:
    """Whether a separator, or a separator and a sign, stand before one of the positions."""
    before = signs[positions - 1]
    signed = (before == ord("+")) | (before == ord("-"))
    before = np.where(signed, signs[np.maximum(positions - 2, 0)], before)
    return bool(np.isin(before, np.frombuffer(_SEPARATORS, np.uint8)).any())


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
        for line, record in records_of(text, delimiter):
            bad = re.search("[\ud800-\udfff]", record)
            header = header or cell_values(record.strip("\r\n"), delimiter)
            if bad is None:
                continue
            line += len(re.findall("\r\n|\r|\n", record[: bad.start()]))
            place = f" in line {line}"
            position = sum(start <= bad.start() for start, _ in cell_spans(record, delimiter)) - 1
            known = position < len(header) and header[position].isprintable()
            return f"{place}, column {cut(header[position], 60)}" if known else place
    return ""


def refuse_open_quote(source: Source) -> None:
    """Raise an InputError if no quote closes the last one of the file."""
    delimiter = source.dialect.delimiter
    with open_text(source.path, source.dialect.encoding) as text:
        line, record = deque(records_of(text, delimiter), maxlen=1)[0]
    if open_after(record, delimiter, False):
        raise _unclosed(source.path, line)


class NoRowsError(InputError):
    """A file has nothing but a header."""


def without_rows(path: Path) -> NoRowsError:
    """Return the error for a file that has nothing but a header."""
    received = Words("a header without rows")
    return NoRowsError(str(invalid(str(path), "hold rows", received, "check that it was written")))


def _unclosed(path: Path, line: int) -> InputError:
    received = Words(f"a cell that starts in the row of line {line} and never ends")
    return invalid(str(path), "close each quote", received, "close it, or double it within a cell")
