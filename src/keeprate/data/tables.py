"""Tables (Parquet, CSV, Hugging Face data sets) -> arrays, column by column.

Arrow reads everything. There are no dictionaries for single samples, and images are decoded
directly into one array.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keeprate.data.images import decode_images, unequal_shapes
from keeprate.data.labels import Array
from keeprate.errors import InputError, Words, damaged, first_line, invalid, needs
from keeprate.text import LONGEST, shortened

REMEDY_INPUTS = "say which columns are the inputs (inputs=[...], --inputs)"


@dataclass(frozen=True)
class Table:
    """One split of a source that is a table.

    Attributes
    ----------
    arrow : pyarrow.Table
        The columns.
    features : dict
        Hugging Face features by column, such as `{"_type": "ClassLabel", "names": [...]}`.
    where : str
        The name of the table in messages.
    """

    arrow: Any
    features: dict[str, Any]
    where: str

    def names_of(self, column: str) -> tuple[str, ...] | None:
        """Return the class names of a ClassLabel column, else None."""
        feature = self.features.get(column)
        if not isinstance(feature, dict) or feature.get("_type") != "ClassLabel":
            return None
        return tuple(feature.get("names") or ()) or None

    def is_image(self, column: str) -> bool:
        """Whether the column holds encoded images."""
        feature = self.features.get(column)
        if isinstance(feature, dict) and "_type" in feature:
            return bool(feature["_type"] == "Image")
        types, kind = needs("pyarrow.types"), self.arrow.schema.field(column).type
        if types.is_struct(kind):
            return any(kind.field(i).name == "bytes" for i in range(kind.num_fields))
        return bool(types.is_binary(kind) or types.is_large_binary(kind))

    def is_number(self, column: str) -> bool:
        """Whether the column holds numbers."""
        return _is_number(self.arrow.schema.field(column).type)

    def is_list(self, column: str) -> bool:
        """Whether each row of the column is a list."""
        return _is_list(self.arrow.schema.field(column).type)


def read_tables(paths: Sequence[Path], where: str) -> Table:
    """Read the files of one split, Parquet or CSV, in order.

    Parameters
    ----------
    paths : sequence of Path
        At least one file.
    where : str
        The name of the table in messages.

    Raises
    ------
    InputError
        If a file is damaged, or the files differ in their columns.
    """
    pa = needs("pyarrow")
    try:
        table = pa.concat_tables([_read_table(path) for path in paths])
    except pa.ArrowException as error:
        files = ", ".join(path.name for path in paths)
        raise InputError(
            f"The files {files} must have equal columns to be one split ({first_line(error)}); "
            "give one file, or name files train-*, test-*."
        ) from error
    metadata = (table.schema.metadata or {}).get(b"huggingface", b"{}")
    features = json.loads(metadata).get("info", {}).get("features", {})
    return Table(table, features, where)


def _read_table(path: Path) -> Any:
    try:
        if path.suffix.lower() == ".csv":
            table = needs("pyarrow.csv").read_csv(path)
        else:
            with needs("pyarrow.parquet").ParquetFile(path) as file:
                table = file.read()
    except (OSError, needs("pyarrow").ArrowException) as error:
        raise damaged(path, error) from error
    names: list[str] = table.column_names
    if len(set(names)) < len(names):
        raise invalid("columns", "have different names", names, f"mend {path}")
    return table


def hugging_face_table(dataset: Any, name: str) -> Table:
    """Take the rows of a Hugging Face data set."""
    arrow = dataset.with_format("arrow")[:]
    return Table(arrow, dataset.features.to_dict(), f"{name} split")


def input_array(table: Table, names: Sequence[str]) -> Array:
    """Return the input columns as one array.

    Parameters
    ----------
    table : Table
        N rows.
    names : sequence of str
        One column of images or lists, or D columns of numbers.

    Returns
    -------
    array [N, C, H, W] of uint8, array [N, ...] or array [N, D] of float32
        For images, lists and numbers.

    Raises
    ------
    InputError
        If a column is missing or not of these kinds, or if its rows differ in shape.
    """
    for name in names:
        if name not in table.arrow.column_names:
            remedy = f"it has {', '.join(table.arrow.column_names)}"
            raise invalid("inputs", f"be a column of the {table.where}", name, remedy)
    if len(names) == 1 and table.is_image(names[0]):
        return decode_images(table.arrow.column(names[0]), table.where).pixels
    if len(names) == 1 and table.is_list(names[0]):
        return _list_array(table.arrow.column(names[0]), f"column {names[0]} of the {table.where}")
    refuse_other_than_numbers(table, names)
    features = np.empty((table.arrow.num_rows, len(names)), dtype=np.float32)
    with np.errstate(over="ignore"):  # infinite numbers are refused later, with their row
        for i, name in enumerate(names):
            features[:, i] = table.arrow.column(name).cast("float64", safe=False).to_numpy()
    return features


def refuse_other_than_numbers(table: Table, names: Iterable[str]) -> None:
    """Raise an InputError if there is a column of other values, or no column."""
    names = list(names)
    others = [name for name in names if not table.is_number(name)]
    if others or not names:
        received = Words(f"columns that are not: {', '.join(others)}" if others else "none")
        raise invalid("inputs", f"be columns of numbers ({table.where})", received, REMEDY_INPUTS)


def label_array(table: Table, name: str) -> Array:
    """Return a label column as an array [N]. Missing values are None."""
    column = table.arrow.column(name)
    if column.null_count or not _is_number(column.type):
        values = np.empty(len(column), dtype=object)
        values[:] = column.to_pylist()
        return values
    return np.asarray(column.to_numpy())


def names_of_rows(table: Table, inputs: Sequence[str], labels: Sequence[str]) -> tuple[str, ...]:
    """Return what people know each row by, or () if there is nothing.

    A name is made of the image's file and the text in all columns that are neither inputs nor
    labels.
    """
    types, compute = needs("pyarrow.types"), needs("pyarrow.compute")
    texts = []
    for name in table.arrow.column_names:
        column = table.arrow.column(name)
        if name in inputs and types.is_struct(column.type) and table.is_image(name):
            fields = [column.type.field(i).name for i in range(column.type.num_fields)]
            column = compute.struct_field(column, "path") if "path" in fields else column
        elif name in inputs or name in labels:
            continue
        if types.is_string(column.type) or types.is_large_string(column.type):
            # Cut before they become Python strings: texts can be long.
            texts.append(compute.utf8_slice_codeunits(column, 0, 2 * LONGEST).to_pylist())
    rows = zip(*texts, strict=True)
    names = tuple(shortened(", ".join(filter(None, row))) for row in rows)
    return names if any(names) else ()


def _is_number(kind: Any) -> bool:
    types = needs("pyarrow.types")
    number = types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)
    # A CSV column without any value is of type null: numbers that are all missing.
    return bool(number or types.is_decimal(kind) or types.is_null(kind))


def _is_list(kind: Any) -> bool:
    types, kind = needs("pyarrow.types"), getattr(kind, "storage_type", kind)
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _list_array(column: Any, where: str) -> Array:
    """Return a column of lists, nested or not, as an array [N, ...]."""
    pa, compute = needs("pyarrow"), needs("pyarrow.compute")
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    array = pa.concat_arrays([getattr(chunk, "storage", chunk) for chunk in chunks])
    if array.null_count:
        received = Words(f"{array.null_count} missing rows")
        raise invalid(where, "have no missing row", received, "drop them")
    lengths = compute.list_value_length(array).to_numpy(zero_copy_only=False)
    unequal = np.flatnonzero(lengths != lengths[:1])
    if len(unequal):
        raise unequal_shapes(where, (int(lengths[0]),), (int(lengths[unequal[0]]),), unequal[0])
    inner = array.flatten()
    if _is_list(inner.type):
        values = _list_array(inner, where)
    elif _is_number(inner.type):
        values = inner.to_numpy(zero_copy_only=False)
    else:
        received = Words(f"lists of {inner.type}")
        raise invalid(where, "be lists of numbers", received, REMEDY_INPUTS)
    return values.reshape(len(array), int(lengths[0]) if len(lengths) else 0, *values.shape[1:])
