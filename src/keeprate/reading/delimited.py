"""Delimited text (CSV, TSV and their kin, packed by gzip or not) -> an Arrow table.

Arrow parses the cells. This module finds out what types Arrow must be told.
"""

from __future__ import annotations

import codecs
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from keeprate.errors import InputError, Words, damaged, invalid, needs
from keeprate.mapped import gathered
from keeprate.reading.arrow import arrow_pool
from keeprate.reading.cells import DELIMITERS, cell_spans, listed_columns, records_of
from keeprate.reading.dialects import (
    Dialect,
    Scan,
    Source,
    look_at,
    refuse_open_quote,
    without_rows,
)
from keeprate.reading.encodings import PIECE, UNREADABLE, is_packed, open_text, pieces_of
from keeprate.text import cut

AsText = Callable[[str], bool]
NULLS = (
    *("", "NA", "N/A", "n/a", "NaN", "nan", "-NaN", "-nan", "null", "NULL", "None", "<NA>", "?"),
    *("#N/A", "#N/A N/A", "#NA", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN"),
)
"""What stands for a missing value, except in columns that are read as text."""
GROUP = 4 * PIECE  # bytes of a table that are put together
WHOLE = r"^\s*[+-]?[0-9]+\s*$"
NO_NUMBER = r"^\s*[+-]?(0[0-9xX]|[0-9]{16,}\s*$)"
BYTES_OF_COLUMN = 1 << 11  # of a block
WIDEST = 1 << 26  # bytes of a block


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
        source = look_at(path)
        table = _read_cells(source, as_text)
    except UNREADABLE as error:
        raise damaged(path, error) from error
    if _may_have_swallowed(table.column(table.num_columns - 1)[-1].as_py(), source):
        refuse_open_quote(source)
    names, trailing = list(source.header), 0
    while len(names) > 1 and not names[-1] and _is_empty(table.column(len(names) - 1)):
        names.pop()
        trailing += 1
    _check_names(names, path)
    table = table.select(range(len(names))).rename_columns(names)
    dialect = replace(source.dialect, trailing=trailing)
    return TextTable(table, dialect.notes, dialect)


def _may_have_swallowed(cell: object, source: Source) -> bool:
    """Whether the last cell may hold the rows behind a quote that nothing closes."""
    signs = ("\n", "\r", '"', source.dialect.delimiter)
    return isinstance(cell, str) and bool(source.scan.quotes) and any(s in cell for s in signs)


def _check_names(names: Sequence[str], path: Path) -> None:
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        received = Words(f"{listed_columns(repeated)} more than once")
        raise invalid("columns", "have different names", received, f"mend {path}")


def _ragged(source: Source, error: BaseException) -> InputError:
    """Say which row is longer or shorter than the header."""
    delimiter, columns = source.dialect.delimiter, len(source.header)
    with open_text(source.path, source.dialect.encoding) as text:
        for line, record in records_of(text, delimiter):
            cells = len(cell_spans(record, delimiter))
            if cells == columns or not record.strip("\r\n"):
                continue
            received = Words(f"{cells} in line {line}: {cut(record.strip(), 80)!r}")
            requirement = f"have {columns} cells in each row, as in the header"
            remedy = f"mend this line; cells that hold {DELIMITERS[delimiter]} need quotes"
            return invalid(str(source.path), requirement, received, remedy)
    return damaged(source.path, error)


# Cells -----------------------------------------------------------------------------------------


def _read_cells(source: Source, as_text: AsText) -> Any:
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
        raise without_rows(source.path)
    _finish(columns, texts, loose, source.dialect.decimal)
    return pa.table(columns, names=[str(i) for i in range(len(columns))])


def _doubtful(scan: Scan, kinds: Mapping[int, Any]) -> set[int]:
    """Return the columns of numbers that may hold cells which a number would change."""
    types = needs("pyarrow").types
    return {
        i
        for i, kind in kinds.items()
        if (scan.leading_zeros and types.is_integer(kind))
        or (scan.long_integers and types.is_floating(kind))
    }


def _numbers_in_name(source: Source, doubtful: set[int], block: int) -> set[int]:
    """Return those of the doubtful columns that hold cells which a number would change."""
    if not doubtful:
        return set()
    pa, compute = needs("pyarrow"), needs("pyarrow.compute")
    found: set[int] = set()
    kinds = dict.fromkeys(doubtful, pa.string())
    with _arrow_file(source) as file, _batches(file, source, kinds, block, doubtful) as reader:
        for batch in reader:
            for name, column in zip(batch.schema.names, batch.columns, strict=True):
                if compute.any(compute.match_substring_regex(column, NO_NUMBER)).as_py():
                    found.add(int(name))
            if found == doubtful:
                break
    return found


def _first_kinds(source: Source, texts: set[int], block: int) -> dict[int, Any]:
    """Tell the type of each column by the first rows."""
    string = needs("pyarrow").string()
    kinds = dict.fromkeys(texts, string)
    with _arrow_file(source) as file, _batches(file, source, kinds, block) as reader:
        return dict(enumerate(reader.schema.types))


def _read_as(source: Source, kinds: Mapping[int, Any], block: int) -> list[Any]:
    """Read the file with these types.

    Arrow's batches are small and are put together in groups: then the memory that they need is
    little more than the table's, or little at all where the table is mapped.
    """
    pa = needs("pyarrow")
    block = block if block > PIECE else PIECE // 4
    # Each batch costs something for each column: wide tables need many rows in a batch.
    block = max(block, min(WIDEST, len(source.header) * BYTES_OF_COLUMN))

    def groups(reader: Any) -> Iterator[Any]:
        group, size = [], 0
        for batch in reader:
            group.append(batch)
            size += batch.nbytes
            if size > GROUP:
                yield pa.Table.from_batches(group).combine_chunks(arrow_pool())
                group, size = [], 0
        yield pa.Table.from_batches(group, reader.schema).combine_chunks(arrow_pool())

    with _arrow_file(source) as file, _batches(file, source, kinds, block) as reader:
        return list(gathered(groups(reader), reader.schema).columns)


@contextmanager
def _arrow_file(source: Source) -> Iterator[Any]:
    """Open the bytes of a file behind its mark, as UTF-8, for Arrow's own threads.

    These read ahead and may outlive the interpreter, which they would bring down if they called
    Python. So Arrow opens and unpacks the file itself, and other encodings are decoded before.
    """
    pa, encoding = needs("pyarrow"), source.dialect.encoding
    if encoding.codec != "utf-8":
        decoder = codecs.getincrementaldecoder(encoding.codec)()
        text = pa.BufferOutputStream()
        for piece in pieces_of(source.path, encoding):
            text.write(decoder.decode(piece, final=not piece).encode())
        yield pa.BufferReader(text.getvalue())
        return
    with pa.OSFile(os.fspath(source.path), "rb") as file:
        if is_packed(source.path):
            with pa.CompressedInputStream(file, "gzip") as unpacked:
                unpacked.read(len(encoding.bom))
                yield unpacked
        else:
            file.seek(len(encoding.bom))
            yield file


def _batches(
    file: Any, source: Source, kinds: Mapping[int, Any], block: int, only: Collection[int] = ()
) -> Any:
    """Let Arrow read a file in batches. The columns are called by their numbers."""
    csv = needs("pyarrow.csv")
    dialect = source.dialect
    reading = csv.ReadOptions(
        column_names=[str(i) for i in range(len(source.header))],
        skip_rows_after_names=1 + source.blank_lines,
        block_size=block,
        use_threads=False,
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
    return csv.open_csv(file, reading, parsing, converting, memory_pool=arrow_pool())


# Types -----------------------------------------------------------------------------------------


def _finish(columns: list[Any], texts: set[int], loose: set[int], decimal: str) -> None:
    """Set missing values, and give types to the columns that were read as text first.

    The list is changed in place: then no two versions of a table need memory at the same time.
    """
    pa = needs("pyarrow")
    for i in range(len(columns)):
        if not pa.types.is_string(columns[i].type):
            continue
        columns[i] = without_nulls(columns[i], ("",) if i in texts else NULLS)
        if i in loose:
            columns[i] = _typed(columns[i], decimal)


def without_nulls(column: Any, nulls: Sequence[str]) -> Any:
    """Return a column of strings with null where a cell is one of `nulls`."""
    pa, compute = needs("pyarrow"), needs("pyarrow.compute")
    missing = compute.is_in(column, value_set=pa.array(nulls, pa.string()))
    if not compute.any(missing).as_py():
        return column
    return compute.if_else(missing, pa.scalar(None, pa.string()), column)


def _is_empty(column: Any) -> bool:
    return bool(column.null_count == len(column))


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
