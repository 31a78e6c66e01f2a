"""Tables (Parquet, CSV, Hugging Face data sets) -> arrays, by column.

Everything is read through Arrow: no per-sample dictionaries, and images are decoded straight
into one array.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keeprate.data.images import decode_images, unequal_shapes
from keeprate.errors import InputError, damaged, first_line, invalid, needs
from keeprate.text import LONGEST, shortened

Array = NDArray[Any]
LABEL_NAMES = ("label", "labels", "target", "class", "y")
TRUE_LABEL_NAMES = ("true_label", "true_labels", "clean_label", "clean_labels")
REMEDY_LABEL = "say which column is the label (label=..., --label)"
REMEDY_INPUTS = "say which columns are the inputs (inputs=[...], --inputs)"


@dataclass(frozen=True)
class Table:
    """One split before it becomes tensors.

    Attributes
    ----------
    arrow : pyarrow.Table
        Its columns.
    features : dict
        Hugging Face features by column, such as `{"_type": "ClassLabel", "names": [...]}`.
    where : str
        What messages call it.
    """

    arrow: Any
    features: dict[str, Any]
    where: str

    def names_of(self, column: str) -> tuple[str, ...] | None:
        """Class names of a ClassLabel column, else None."""
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


@dataclass(frozen=True)
class Columns:
    """Which columns are what."""

    inputs: tuple[str, ...]
    label: str
    true_label: str | None


def read_tables(paths: Sequence[Path], where: str) -> Table:
    """Read the files of one split, Parquet or CSV, in order.

    Raises
    ------
    InputError
        If a file is damaged, or the files have unequal columns.
    """
    pa, tables = needs("pyarrow"), []
    for path in paths:
        try:
            if path.suffix.lower() == ".csv":
                table = needs("pyarrow.csv").read_csv(path)
            else:
                with needs("pyarrow.parquet").ParquetFile(path) as file:
                    table = file.read()
        except (OSError, pa.ArrowException) as error:
            raise damaged(path, error) from error
        if len(set(table.column_names)) < table.num_columns:
            raise invalid(
                "columns", "have different names", str(table.column_names), f"mend {path}"
            )
        tables.append(table)
    try:
        table = pa.concat_tables(tables)
    except pa.ArrowException as error:
        files = ", ".join(path.name for path in paths)
        raise InputError(
            f"The files {files} must have equal columns to be one split ({first_line(error)}); "
            "give one file, or name files train-*, test-*."
        ) from error
    metadata = (table.schema.metadata or {}).get(b"huggingface", b"{}")
    features = json.loads(metadata).get("info", {}).get("features", {})
    return Table(table, features, where)


def choose_columns(
    table: Table,
    *,
    inputs: str | Sequence[str] | None,
    label: str | None,
    true_label: str | None,
) -> Columns:
    """Take what was said, guess the rest, refuse what is ambiguous.

    Label: the ClassLabel column, or the one called label, labels, target, class or y. True label:
    a column called true_label or clean_label. Inputs: the image column, else the one column of
    lists, else every other column, all of which must be numbers.

    Raises
    ------
    InputError
        If a column said does not exist, or a guess would be arbitrary.
    """
    all_names: list[str] = table.arrow.column_names
    shown = ", ".join(all_names)
    said = [inputs] if isinstance(inputs, str) else list(inputs or ())
    for name in (*said, label, true_label):
        if name is not None and name not in all_names:
            raise invalid("column", f"be one of {shown} ({table.where})", name, "check its name")
    if true_label is None:
        likely = [n for n in all_names if n.lower() in TRUE_LABEL_NAMES and n not in (*said, label)]
        true_label = likely[0] if len(likely) == 1 else None
    looks_like_label = [
        name
        for name in all_names
        if (name.lower() in (*LABEL_NAMES, *TRUE_LABEL_NAMES) or table.names_of(name))
        and name not in (*said, label, true_label)
    ]
    if label is None:
        if len(looks_like_label) != 1:
            tie = f"several ({', '.join(looks_like_label)})" if looks_like_label else "none"
            received = f"{tie} among the columns {shown} ({table.where})"
            raise invalid("label", "be one column", received, REMEDY_LABEL)
        label = looks_like_label.pop()
    if true_label == label:
        raise invalid("true_label", "differ from label", label, "leave one of them out")
    if said:
        if label in said or true_label in said:
            raise invalid("inputs", "hold no label", ", ".join(said), REMEDY_INPUTS)
        return Columns(tuple(said), label, true_label)
    rest = [name for name in all_names if name not in (label, true_label)]
    images = [name for name in rest if table.is_image(name)]
    lists = [name for name in rest if _is_list(table.arrow.schema.field(name).type)]
    if len(images or lists) > 1:
        received = f"several ({', '.join(images or lists)})"
        raise invalid("inputs", "be one column of images or lists", received, REMEDY_INPUTS)
    if images or lists:
        return Columns(tuple(images or lists), label, true_label)
    if looks_like_label:  # a label among the inputs would give the answer away
        received = f"a column that looks like one: {', '.join(looks_like_label)}"
        raise invalid("inputs", "hold no label", received, REMEDY_INPUTS)
    other = [n for n in rest if not _is_number(table.arrow.schema.field(n).type)]
    if other or not rest:
        received = f"columns that are not: {', '.join(other)}" if other else "none"
        raise invalid("inputs", f"be columns of numbers ({table.where})", received, REMEDY_INPUTS)
    return Columns(tuple(rest), label, true_label)


def input_array(table: Table, names: Sequence[str]) -> Array:
    """Return the input columns as one array: [N, C, H, W] for images, [N, D] for numbers.

    Raises
    ------
    InputError
        If a column is missing, is not numbers, or its rows are of unequal shape.
    """
    for name in names:
        if name not in table.arrow.column_names:
            shown = ", ".join(table.arrow.column_names)
            raise invalid("inputs", f"be a column of the {table.where}", name, f"it has {shown}")
    if len(names) == 1 and table.is_image(names[0]):
        return decode_images(table.arrow.column(names[0]), table.where)
    if len(names) == 1 and _is_list(table.arrow.schema.field(names[0]).type):
        return _list_array(table.arrow.column(names[0]), f"column {names[0]} of the {table.where}")
    other = [n for n in names if not _is_number(table.arrow.schema.field(n).type)]
    if other:
        received = f"columns that are not: {', '.join(other)}"
        raise invalid("inputs", f"be columns of numbers ({table.where})", received, REMEDY_INPUTS)
    features = np.empty((table.arrow.num_rows, len(names)), dtype=np.float32)
    with np.errstate(over="ignore"):  # becomes infinite, which is refused later with its row
        for i, name in enumerate(names):
            features[:, i] = table.arrow.column(name).cast("float64", safe=False).to_numpy()
    return features


def label_array(table: Table, name: str) -> Array:
    """Return a label column as an array [N], missing values as None."""
    column = table.arrow.column(name)
    if column.null_count or not _is_number(column.type):
        values = np.empty(len(column), dtype=object)
        values[:] = column.to_pylist()
        return values
    return np.asarray(column.to_numpy())


def names_of_rows(table: Table, columns: Columns) -> tuple[str, ...]:
    """What people know each row by: its image's file, and columns of text that are nothing else."""
    types, compute = needs("pyarrow.types"), needs("pyarrow.compute")
    used = (*columns.inputs, columns.label, columns.true_label)
    texts = []
    for name in table.arrow.column_names:
        column = table.arrow.column(name)
        if name in columns.inputs and types.is_struct(column.type) and table.is_image(name):
            parts = [column.type.field(i).name for i in range(column.type.num_fields)]
            column = compute.struct_field(column, "path") if "path" in parts else column
        elif name in used:
            continue
        if types.is_string(column.type) or types.is_large_string(column.type):
            # Cut as a whole: nobody wants long texts as Python strings.
            texts.append(compute.utf8_slice_codeunits(column, 0, 2 * LONGEST).to_pylist())
    names = (shortened(", ".join(filter(None, row))) for row in zip(*texts, strict=True))
    return known if any(known := tuple(names)) else ()


def _is_number(kind: Any) -> bool:
    types = needs("pyarrow.types")
    number = types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)
    # A CSV column without a single value is of type null: missing numbers, refused with its row.
    return bool(number or types.is_decimal(kind) or types.is_null(kind))


def _is_list(kind: Any) -> bool:
    types, kind = needs("pyarrow.types"), getattr(kind, "storage_type", kind)
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _list_array(column: Any, where: str) -> Array:
    pa, compute = needs("pyarrow"), needs("pyarrow.compute")
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    array = pa.concat_arrays([getattr(chunk, "storage", chunk) for chunk in chunks])
    if array.null_count:
        raise invalid(where, "have no missing row", f"{array.null_count} of them", "drop them")
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
        raise invalid(where, "be lists of numbers", str(inner.type), REMEDY_INPUTS)
    return values.reshape(len(array), int(lengths[0]) if len(lengths) else 0, *values.shape[1:])
