"""Text of a delimited file -> records -> cells, with quotes or without."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Sequence

from keeprate.text import listed

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
CLOSING = re.compile(r'(?:[^"]++|"")*+"')  # from behind an opening quote to behind the closing one


def lines_of(text: str) -> Iterator[str]:
    """Yield the lines with their ends. `str.splitlines` would split at more than line ends."""
    return iter(io.StringIO(text, newline=""))


def open_after(line: str, delimiter: str, inside: bool) -> bool:
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


def records_of(lines: Iterable[str], delimiter: str) -> Iterator[tuple[int, str]]:
    """Yield the number of each record's first line (from 1) and the record with its line ends.

    The last record may have an open quote. Blank lines are records, too.
    """
    held: list[str] = []
    inside, first = False, 1
    for number, line in enumerate(lines, 1):
        first = first if held else number
        inside = open_after(line, delimiter, inside)
        held.append(line)
        if not inside:
            yield first, held[0] if len(held) == 1 else "".join(held)
            held = []
    if held:
        yield first, "".join(held)


def cell_spans(record: str, delimiter: str) -> list[tuple[int, int]]:
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


def cell_values(record: str, delimiter: str) -> list[str]:
    """Return the cells of a record without their quotes."""
    return [_unquoted(record[start:stop]) for start, stop in cell_spans(record, delimiter)]


def _unquoted(cell: str) -> str:
    closing = CLOSING.match(cell, 1) if cell.startswith('"') else None
    if closing is None:
        return cell
    return cell[1 : closing.end() - 1].replace('""', '"') + cell[closing.end() :]


def quoted(value: str, delimiter: str, always: bool) -> str:
    """Return the cell that holds a value, in quotes where they are needed or always."""
    special = any(sign in value for sign in (delimiter, '"', "\r", "\n"))
    return '"' + value.replace('"', '""') + '"' if always or special else value


def listed_columns(names: Sequence[str]) -> str:
    """Name columns in a message. A column may have no name."""
    return listed([name or "a nameless one" for name in names], 5)
