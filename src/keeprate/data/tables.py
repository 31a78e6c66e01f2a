"""Tables (Parquet, CSV, Hugging Face data sets) -> arrays, column by column.

Arrow reads everything. There are no dictionaries for single samples, and images are decoded
directly into one array.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keeprate.data.labels import Array, written_labels
from keeprate.errors import Words, damaged, first_line, invalid, needs
from keeprate.limits import DEEPEST
from keeprate.mapped import Place, check_room, gathered
from keeprate.reading import (
    N_PROBED,
    concat,
    decode_images,
    dictionary,
    image_paths,
    is_json,
    is_number,
    lists_images,
    read_export,
    read_images,
    read_json,
    read_parts,
    release_memory,
    strings,
    unequal_shapes,
)
from keeprate.text import LONGEST, listed, shortened

REMEDY_INPUTS = "say which columns are the inputs (inputs=[...], --inputs)"
BUFFER = 1 << 16  # bytes of a Parquet file at a time
ROWS_OF_PIECE = 1 << 13  # of a Parquet file that memory is not to hold


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
    written : frozenset of str
        Columns that hold strings as a text file has them, labels among them.
    label : str or None
        The label column, where the format of the file says which it is.
    ignored : tuple of str
        Columns that the format fills with ids, people and times.
    file : Path or None
        The first file of the table; a table may list other files, relative to it.
    notes : tuple of str
        What the user should know of the reading.
    votes : tuple of N dict or None
        How many people gave which label to each row, where several did.
    """

    arrow: Any
    features: dict[str, Any]
    where: str
    written: frozenset[str] = frozenset()
    label: str | None = None
    ignored: tuple[str, ...] = ()
    file: Path | None = None
    notes: tuple[str, ...] = ()
    votes: tuple[dict[str, int], ...] | None = None

    def names_of(self, column: str) -> tuple[str, ...] | None:
        """Return the class names of a ClassLabel column, else None."""
        feature = self.features.get(column)
        if not isinstance(feature, dict) or feature.get("_type") != "ClassLabel":
            return None
        names = feature.get("names")
        if not isinstance(names, list | tuple) or not all(isinstance(n, str) for n in names):
            return None
        return tuple(names) or None

    def is_image(self, column: str) -> bool:
        """Whether the column holds encoded images."""
        feature = self.features.get(column)
        if isinstance(feature, dict) and "_type" in feature:
            return bool(feature["_type"] == "Image")
        types, kind = needs("pyarrow.types"), self.arrow.schema.field(column).type
        if types.is_struct(kind):
            return any(kind.field(i).name == "bytes" for i in range(kind.num_fields))
        is_encoded = bool(types.is_binary(kind) or types.is_large_binary(kind))
        return is_encoded or self.image_files(column) is not None

    def is_list(self, column: str) -> bool:
        """Whether each row of the column is a list."""
        return _is_list(self.arrow.schema.field(column).type)

    def is_whole(self, column: str) -> bool:
        """Whether the column alone makes the inputs: images or lists."""
        return self.is_image(column) or self.is_list(column)

    def image_files(self, column: str) -> list[Path] | None:
        """The image files that a column lists; None if it lists none."""
        types, kind = needs("pyarrow.types"), self.arrow.schema.field(column).type
        if self.file is None or not (types.is_string(kind) or types.is_large_string(kind)):
            return None
        names, name = self.arrow.column(column), self.file.name
        # All names become Python strings only if the first ones are files.
        first = names.slice(0, N_PROBED).to_pylist()
        if not lists_images(first, self.file.parent, table=name):
            return None
        return image_paths(names.to_pylist(), self.file.parent, table=name)


def read_tables(paths: Sequence[Path], where: str, *, as_text: Callable[[str], bool]) -> Table:
    """Read the files of one split in order: Parquet, CSV and the like, JSON.

    Parameters
    ----------
    paths : sequence of Path
        At least one file.
    where : str
        The name of the table in messages.
    as_text : callable
        Whether a column, by its name, is read as it is written: labels are.

    Raises
    ------
    InputError
        If a file is damaged, or the files differ in their columns.
    """
    may_be_export = len(paths) == 1 and not is_parquet(paths[0])
    export = read_export(paths[0]) if may_be_export else None
    if export is not None:
        return Table(
            export.arrow,
            {},
            where,
            written=frozenset([export.label]),
            label=export.label,
            ignored=export.ignored,
            file=paths[0],
            notes=export.notes,
            votes=export.votes,
        )
    arrow, notes, written = _read_parts(paths, as_text)
    features = _noted(arrow, b"huggingface", where, "info", "features")
    index = _noted(arrow, b"pandas", where, "index_columns")
    index = index if isinstance(index, list) else []
    return Table(
        arrow,
        features if isinstance(features, dict) else {},
        where,
        written=written,
        ignored=tuple(name for name in index if isinstance(name, str)),
        file=paths[0],
        notes=notes,
    )


def _noted(arrow: Any, program: bytes, where: str, *keys: str) -> object:
    """Return what a program has noted in a table's schema below these keys, or None."""
    text = (arrow.schema.metadata or {}).get(program, b"{}")
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError) as error:
        named = f"the note of {program.decode()} in the {where}"
        raise invalid(named, "be JSON", Words(first_line(error)[:100]), "write it again") from error
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _read_parts(
    paths: Sequence[Path], as_text: Callable[[str], bool]
) -> tuple[Any, tuple[str, ...], frozenset[str]]:
    """Return the rows of all files, notes, and the columns that are read as they are written."""
    are_parquet = [is_parquet(path) for path in paths]
    are_json = [not parquet and is_json(p) for parquet, p in zip(are_parquet, paths, strict=True)]
    if any(are_parquet) or any(are_json):
        parts = [_read_part(path, as_text) for path in paths]
        return concat(parts, [path.name for path in paths]), (), frozenset()
    text = read_parts(paths, as_text=as_text)
    return text.arrow, text.notes, frozenset(filter(as_text, text.arrow.column_names))


def _read_part(path: Path, as_text: Callable[[str], bool]) -> Any:
    """Read a file of any kind, where the parts of a table are not all delimited text."""
    if is_parquet(path):
        return _read_parquet(path)
    if is_json(path):
        return read_json(path, as_text=as_text)
    return read_parts([path], as_text=as_text).arrow


def is_parquet(path: Path) -> bool:
    """Whether a file is Parquet, by its name."""
    return path.suffix.lower() == ".parquet"


def _read_parquet(path: Path) -> Any:
    pa, parquet = needs("pyarrow"), needs("pyarrow.parquet")
    try:
        with parquet.ParquetFile(path, buffer_size=BUFFER, pre_buffer=False) as file:
            schema = file.schema_arrow
            n_bytes = _unpacked(file.metadata, schema)
            names: list[str] = schema.names
            if len(set(names)) < len(names):
                received = Words(listed(names))
                raise invalid("columns", "have different names", received, f"mend {path}")
            remedy = "split it into parts, or keep fewer rows or columns"
            if check_room(str(path), n_bytes, remedy):
                return gathered(_pieces_of(file), schema, maps=True)
            if any(pa.types.is_nested(kind) for kind in schema.types):
                return _validated(file.read())
            # Column by column: all at once would need half as much memory again.
            columns = []
            for name in names:
                columns.append(_validated(file.read([name], use_threads=False)).column(0))
                release_memory()
            return pa.table(columns, names=names).replace_schema_metadata(schema.metadata)
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:  # names are decoded by Python
        raise damaged(path, error) from error


def _validated(table: Any) -> Any:
    """Refuse texts that are no UTF-8 and places outside of a dictionary: Arrow trusts the file."""
    table.validate(full=True)
    return table


def _pieces_of(file: Any) -> Iterator[Any]:
    """The rows of a Parquet file, some at a time."""
    pa = needs("pyarrow")
    for batch in file.iter_batches(ROWS_OF_PIECE, use_threads=False):
        yield _validated(pa.Table.from_batches([batch]))
        release_memory()


def _unpacked(metadata: Any, schema: Any) -> int:
    """How many bytes a Parquet file takes in memory, by its footer."""
    packed = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
    widths = [getattr(kind, "bit_width", 32) for kind in _plain_types(schema)]
    # Runs of one value take hardly a byte in the file, but each row has its width in memory.
    return int(max(packed, metadata.num_rows * sum(widths) // 8))


def _plain_types(schema: Any) -> list[Any]:
    types = needs("pyarrow.types")
    return [kind for kind in schema.types if types.is_primitive(kind)]


def hugging_face_table(dataset: Any, name: str) -> Table:
    """Take the rows of a Hugging Face data set.

    Raises
    ------
    InputError
        If the data set streams.
    """
    if not hasattr(dataset, "__len__"):
        requirement, received = "have a length", Words(type(dataset).__name__)
        remedy = "load it without streaming=True, or make a Dataset of a part"
        raise invalid(f"{name} split", requirement, received, remedy)
    arrow = dataset.with_format("arrow")[:]
    return Table(arrow, dataset.features.to_dict(), f"{name} split")


def data_frame_table(frame: Any, where: str) -> Table:
    """Take a DataFrame of pandas, polars or any other library that gives Arrow its columns.

    Raises
    ------
    InputError
        If two columns have one name, or a column holds values of several kinds.
    """
    pa = needs("pyarrow")
    names = frame_columns(frame)
    if len(set(names)) < len(names):
        raise invalid("columns", "have different names", Words(listed(names)), "rename them")
    if hasattr(frame, "iloc"):
        columns = [_pandas_column(frame.iloc[:, i], names[i], where) for i in range(len(names))]
        return Table(pa.table(columns, names=names), {}, where)
    if hasattr(frame, "__arrow_c_stream__"):
        arrow = pa.table(frame)
    else:
        arrow = needs("pyarrow.interchange").from_dataframe(frame)
    views = [pa.types.is_string_view(kind) for kind in arrow.schema.types]
    kinds = [pa.large_string() if v else k for v, k in zip(views, arrow.schema.types, strict=True)]
    return Table(arrow.cast(pa.schema(list(zip(names, kinds, strict=True)))), {}, where)


def frame_columns(frame: Any) -> list[str]:
    """The names of a DataFrame's columns, or of an Arrow table's."""
    return [str(name) for name in getattr(frame, "column_names", frame.columns)]


def _pandas_column(column: Any, name: str, where: str) -> Any:
    pa = needs("pyarrow")
    try:
        return pa.array(column, from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError):
        kinds = sorted({type(value).__name__ for value in column if value is not None})
        if set(kinds) <= {"int", "float", "str", "bool"}:  # numbers among words
            return pa.array([None if v is None or v != v else str(v) for v in column])
        requirement = "hold values of one kind"
        received = Words(f"values of type {listed(kinds)}")
        raise invalid(f"column {name} of {where}", requirement, received, "leave it out") from None


def is_data_frame(value: Any) -> bool:
    """Whether a value is a DataFrame of pandas, polars or the like, or an Arrow table."""
    ways = ("iloc", "__arrow_c_stream__", "__dataframe__")
    return hasattr(value, "columns") and any(hasattr(value, way) for way in ways)


def is_complete_numbers(frame: Any) -> bool:
    """Whether a DataFrame holds numbers and booleans only, and no blanks."""
    arrow = data_frame_table(frame, "the DataFrame").arrow
    return all(is_number(column.type) and not column.null_count for column in arrow.columns)


def whole_array(
    table: Table,
    name: str,
    *,
    image_size: tuple[int, int] | None = None,
    channels: int | None = None,
    place: Place = Place(),  # noqa: B008 - it is frozen
    file: str = "",
) -> tuple[Array, dict[str, Any], tuple[str, ...]]:
    """Return a column of images or of lists as one array.

    Parameters
    ----------
    table : Table
        N rows.
    name : str
    image_size, channels : optional
        What images are to have; None: what they have.
    place : Place
        Where images that are larger than memory are to lie.
    file : str
        What their file is called there.

    Returns
    -------
    array : array [N, C, H, W] of uint8, or [N, ...]
    shape : dict
        `image_size` and `channels` for the images of other splits; empty for lists.
    notes : tuple of str

    Raises
    ------
    InputError
        If rows are missing or not of these kinds, or if lists differ in shape.
    """
    column = table.arrow.column(name)
    if table.is_list(name):
        return _list_array(column, f"column {name} of the {table.where}"), {}, ()
    files = table.image_files(name)
    if files is not None:
        images = read_images(
            files,
            table.where,
            image_size=image_size,
            channels=channels,
            place=place,
            file=file,
        )
    else:
        folder = None if table.file is None else table.file.parent
        images = decode_images(
            column,
            table.where,
            image_size=image_size,
            channels=channels,
            folder=folder,
            place=place,
            file=file,
        )
    size = images.pixels.shape
    return images.pixels, {"image_size": size[2:], "channels": size[1]}, images.notes


def label_array(table: Table, name: str) -> Array:
    """Return a label column as an array [N]. Missing values are None."""
    column = table.arrow.column(name)
    if is_number(column.type) and not column.null_count:
        return np.asarray(column.to_numpy())
    if not _is_plain(column.type):
        values = np.empty(len(column), dtype=object)
        values[:] = column.to_pylist()
        return values
    encoded = dictionary(column)  # one Python object for each label, not for each row
    different = np.array([*encoded.dictionary.to_pylist(), None], dtype=object)
    if name in table.written:
        different = np.array([*written_labels(different[:-1]).tolist(), None], dtype=object)
    places = encoded.indices.fill_null(len(different) - 1).to_numpy(zero_copy_only=False)
    if None not in different[:-1] and not column.null_count:
        different = np.array(different[:-1].tolist())  # numbers, or strings
    return np.asarray(different[places])


def has_odd_values(kind: Any) -> bool:
    """Whether a dictionary stands for others than words and numbers: intervals of pandas, say."""
    pa, types = needs("pyarrow"), needs("pyarrow.types")
    if not types.is_dictionary(kind):
        return False
    return types.is_nested(kind.value_type) or isinstance(kind.value_type, pa.BaseExtensionType)


def names_of_rows(table: Table, inputs: Sequence[str], labels: Sequence[str]) -> tuple[str, ...]:
    """Return what people know each row by, or () if there is nothing.

    A name is made of the image's file and the words in all columns but labels.
    """
    types, compute = needs("pyarrow.types"), needs("pyarrow.compute")
    texts = []
    for name in table.arrow.column_names:
        column = table.arrow.column(name)
        if name in inputs and types.is_struct(column.type) and table.is_image(name):
            fields = [column.type.field(i).name for i in range(column.type.num_fields)]
            column = compute.struct_field(column, "path") if "path" in fields else column
        elif name in labels:
            continue
        elif types.is_dictionary(column.type) and not has_odd_values(column.type):
            column = strings(column)
        if types.is_string(column.type) or types.is_large_string(column.type):
            # Cut before they become Python strings: texts can be long.
            texts.append(compute.utf8_slice_codeunits(column, 0, 2 * LONGEST).to_pylist())
    rows = zip(*texts, strict=True)
    names = tuple(shortened(", ".join(filter(None, row))) for row in rows)
    return names if any(names) else ()


def _is_plain(kind: Any) -> bool:
    """Whether values are strings, numbers or booleans, not lists or the like."""
    types = needs("pyarrow.types")
    is_string = types.is_string(kind) or types.is_large_string(kind) or types.is_dictionary(kind)
    return bool(is_string or (is_number(kind) and not types.is_null(kind)))


def _is_list(kind: Any) -> bool:
    types, kind = needs("pyarrow.types"), getattr(kind, "storage_type", kind)
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _list_array(column: Any, where: str, levels: int = 1) -> Array:
    """Return a column of lists, nested or not, as an array [N, ...]."""
    pa, compute = needs("pyarrow"), needs("pyarrow.compute")
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    if levels > DEEPEST:
        received = Words(f"lists within lists, more than {DEEPEST} levels deep")
        raise invalid(where, "be lists of numbers", received, REMEDY_INPUTS)
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
        values = _list_array(inner, where, levels + 1)
    elif is_number(inner.type):
        values = inner.to_numpy(zero_copy_only=False)
    else:
        received = Words(f"lists of {inner.type}")
        raise invalid(where, "be lists of numbers", received, REMEDY_INPUTS)
    return values.reshape(len(array), int(lengths[0]) if len(lengths) else 0, *values.shape[1:])
