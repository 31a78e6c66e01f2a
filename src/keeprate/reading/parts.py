"""The files of one table, below each other: columns get a type that holds the values of all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from keeprate.errors import Words, invalid, needs
from keeprate.reading.cells import listed_columns
from keeprate.reading.delimited import NULLS, AsText, TextTable, read_delimited, without_nulls
from keeprate.reading.dialects import NoRowsError

Again = Callable[[int, frozenset[str]], Any]


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
        The rows of all files, and the dialect of the first one that has rows.

    Raises
    ------
    InputError
        If a file cannot be read, or the files differ in their columns.
    """
    tables, empty = {}, []
    for path in map(Path, paths):
        try:
            tables[path] = read_delimited(path, as_text=as_text)
        except NoRowsError as error:  # all rows of a part were dropped, say
            empty.append((path, error))
    if not tables:
        raise empty[0][1]

    def again(part: int, columns: frozenset[str]) -> Any:
        table = read_delimited(
            list(tables)[part], as_text=lambda name: name in columns or as_text(name)
        )
        arrow = table.arrow
        for i, name in enumerate(arrow.column_names):
            if name in columns and not as_text(name):
                arrow = arrow.set_column(i, name, without_nulls(arrow.column(i), NULLS))
        return arrow

    parts = tables.values()
    arrow = concat([part.arrow for part in parts], [path.name for path in tables], again)
    notes = [note for part in parts for note in part.notes]
    notes += [f"{path.name} has a header without rows." for path, _ in empty]
    return TextTable(arrow, tuple(dict.fromkeys(notes)), next(iter(parts)).dialect)


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
        received = ", ".join(f"one that {k} {listed_columns(v)}" for k, v in kinds.items() if v)
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
