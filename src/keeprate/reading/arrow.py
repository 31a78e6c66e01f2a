"""Small pieces of Arrow that several readers use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keeprate.errors import needs


def arrow_pool() -> Any:
    """The memory for Arrow's columns that gives back most of what is let go of."""
    pa = needs("pyarrow")
    try:
        pa.jemalloc_set_decay_ms(0)  # at once, not within a second
        return pa.jemalloc_memory_pool()
    except NotImplementedError:  # on Windows
        return pa.default_memory_pool()


def release_memory() -> None:
    """Give memory that Arrow's columns no longer need back to the system."""
    needs("pyarrow").default_memory_pool().release_unused()
    arrow_pool().release_unused()


def missing_columns(table: Any, names: Sequence[str]) -> list[str]:
    """The names that no column of an Arrow table has."""
    present = set(table.column_names)  # Arrow makes the list anew for each question
    return [name for name in names if name not in present]


def is_number(kind: Any) -> bool:
    """Whether an Arrow type is one of numbers or booleans."""
    types = needs("pyarrow.types")
    number = types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)
    # A CSV column without any value is of type null: numbers that are all missing.
    return bool(number or types.is_decimal(kind) or types.is_null(kind))


def dictionary(column: Any) -> Any:
    """Return a column as one dictionary array: each value once, and its place for each row."""
    pa = needs("pyarrow")
    if pa.types.is_dictionary(column.type):
        column = column.unify_dictionaries() if column.num_chunks else column
    else:
        column = column.dictionary_encode()
    encoded = column.combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):  # of no chunk at all
        encoded = pa.array([], encoded.type)
    return encoded


def strings(column: Any) -> Any:
    """Return a column as strings; whole numbers without a decimal point."""
    types, compute = needs("pyarrow.types"), needs("pyarrow.compute")
    if types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if types.is_floating(column.type):
        whole = compute.all(compute.equal(column, compute.floor(column))).as_py()
        column = column.cast("int64") if whole else column
    return column.cast("string")
