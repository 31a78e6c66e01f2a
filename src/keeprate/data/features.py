"""Columns of a table -> numbers for a network.

A table is read to one number for each row and column: a number itself, the days of a date, the code
of a category or of a text (`code_table`). The encoder turns these into features (`Encoder`). It is
fitted to the training rows alone, so that held-out rows have no influence on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from keeprate.data.labels import FRACTION, WHOLE, Array, first_bad
from keeprate.data.rows import Inputs, as_inputs, columns_of, in_pieces
from keeprate.data.texts import TextFeatures
from keeprate.errors import Words, invalid, needs
from keeprate.mapped import Place, blocks, is_mapped, new_array
from keeprate.reading import dictionary, is_number, missing_columns, release_memory, strings
from keeprate.text import listed

Kind: TypeAlias = Literal["number", "category", "date", "text"]
KINDS: tuple[Kind, ...] = ("number", "category", "date", "text")
MOST_CATEGORIES = 50
LEAST_SHARE, LEAST_ROWS = 0.002, 2  # of the training rows, for a category with a feature of its own
UNITS = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}  # of a second, as Arrow calls them
LOST_BITS = 2.0**11  # float32 has 24 bits: a mean so many deviations away costs half of them


@dataclass(frozen=True)
class InputColumn:
    """A column of inputs, read to one float32 for each row; NaN is a blank.

    Attributes
    ----------
    name : str
    kind : {"number", "category", "date", "text"}
    centre : float
        Was subtracted from numbers and days in float64, where float32 could not hold them apart.
    values : tuple of str
        Of categories and texts: code i stands for `values[i]`.
    """

    name: str
    kind: Kind
    centre: float = 0.0
    values: tuple[str, ...] = ()


@dataclass(frozen=True)
class FittedColumn:
    """What the training rows say of a column.

    Attributes
    ----------
    name : str
    kind : {"number", "category", "date", "text"}
    centre : float
        As in `InputColumn`.
    fill : float
        The mean of a number or a date, less `centre`; stands where a cell is blank.
    marks_blanks : bool
        Whether one more feature says that the cell is blank: there are such training rows.
    has_time : bool
        Of a date: whether the hour counts.
    categories : tuple of str
        Those with a feature of their own.
    has_rare : bool
        Whether one more feature stands for all other categories.
    text : TextFeatures or None
    """

    name: str
    kind: Kind
    centre: float = 0.0
    fill: float = 0.0
    marks_blanks: bool = False
    has_time: bool = False
    categories: tuple[str, ...] = ()
    has_rare: bool = False
    text: TextFeatures | None = None

    def feature_names(self) -> list[str]:
        """A name for each feature that the column gives."""
        names = [self.name]
        if self.kind == "date":
            names += [f"{self.name}, {part}" for part in _date_parts(self.has_time)]
        elif self.kind == "category":
            names = [f"{self.name} = {category}" for category in self.categories]
            names += [f"{self.name}, rare"] * self.has_rare
        elif self.text is not None:
            names = [f"{self.name}, part {i + 1}" for i in range(self.text.width)]
        return names + [f"{self.name}, blank"] * self.marks_blanks

    def in_words(self) -> str:
        """What the column holds, for people."""
        words: str = self.kind
        if self.kind == "category":
            words += f" of {len(self.categories)}" + (" and rarer ones" if self.has_rare else "")
        return words + (", some blank" if self.marks_blanks else "")

    def is_scaled(self) -> list[bool]:
        """For each feature whether the normaliser scales it: marks and TF-IDF have their scale."""
        n_features = len(self.feature_names())
        if self.text is not None and self.text.model:
            return [True] * n_features
        scales_first = self.kind in ("number", "date")
        return [scales_first and i == 0 for i in range(n_features)]

    def as_read(self, features: NDArray[np.float32]) -> str:
        """What the source holds, from the features [D] of one row; "" for a blank."""
        if self.marks_blanks and features[-1] > 0:
            return ""
        if self.kind == "category":
            names = [*self.categories, *["(rare)"] * self.has_rare]
            return names[int(features.argmax())] if features.max(initial=0) > 0 else ""
        value = float(features[0]) + self.centre
        if self.kind == "date":
            moment = np.datetime64(0, "s") + np.timedelta64(round(value * 24 * 3600), "s")
            return str(moment).replace("T", " ") if self.has_time else str(moment.astype("M8[D]"))
        return f"{value:.10g}" if self.centre else f"{value:.6g}"

    def encode(self, codes: NDArray[np.float32], column: InputColumn) -> Array:
        """Return the features [N, D] of codes [N]."""
        blank = np.isnan(codes)
        if self.kind in ("number", "date"):
            filled = np.where(blank, np.float32(self.fill), codes)
            parts = [filled[:, None]]
            if self.kind == "date":
                parts += _of_date(filled.astype(np.float64) + self.centre, self.has_time)
        elif self.kind == "category":
            place = {category: i for i, category in enumerate(self.categories)}
            places = np.array([place.get(v, len(place)) for v in (*column.values, "")], np.int64)
            hot = np.eye(len(place) + 1, dtype=np.float32)
            codes = np.where(blank, len(column.values), codes)
            marks = hot[places[codes.astype(np.int64)]]
            marks[blank] = 0
            parts = [marks if self.has_rare else marks[:, :-1]]
        else:
            # Each text once: the same one may stand in many rows.
            different, places = np.unique(np.where(blank, -1, codes), return_inverse=True)
            texts = _texts(different, column.values)
            parts = [_fitted_text(self.text).encode(texts)[places]]
        return np.hstack([*parts, *([blank[:, None].astype(np.float32)] * self.marks_blanks)])


@dataclass(frozen=True)
class Encoder:
    """Turns coded columns into features. Fitted to training rows.

    Attributes
    ----------
    columns : tuple of FittedColumn
    notes : tuple of str
        What the user should know of the columns.
    """

    columns: tuple[FittedColumn, ...]
    notes: tuple[str, ...] = ()

    @classmethod
    def fit(
        cls, coded: Inputs, columns: Sequence[InputColumn], *, text_model: str | None = None
    ) -> Encoder:
        """Learn from the training rows.

        Parameters
        ----------
        coded : Tensor or Rows [N, D] of float32
            As `code_table` gives them.
        columns : sequence of D InputColumn
        text_model : str, optional
            A sentence-transformers model, by name or path, for texts; else TF-IDF and a truncated
            SVD.
        """
        fitted, constant = [], []
        for column, codes in zip(columns, columns_of(coded), strict=True):
            fitted.append(_fit_column(codes, column, text_model))
            present = codes[~np.isnan(codes)]
            if not present.size or present.min() == present.max():
                constant.append(column.name)
        notes = [f"the same value in all training rows, so no use: {listed(constant)}"]
        return cls(tuple(fitted), tuple(notes if constant else ()))

    @property
    def names(self) -> tuple[str, ...]:
        """The columns of the source, in the order of the features."""
        return tuple(column.name for column in self.columns)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """A name for each feature."""
        return tuple(name for column in self.columns for name in column.feature_names())

    @property
    def is_scaled(self) -> tuple[bool, ...]:
        """For each feature whether the normaliser is to scale it."""
        return tuple(scaled for column in self.columns for scaled in column.is_scaled())

    @property
    def only_numbers(self) -> bool:
        """Whether the features are the columns themselves."""
        return all(c.kind == "number" and not c.marks_blanks for c in self.columns)

    def as_read(self, features: NDArray[np.float32], most: int | None = None) -> dict[str, str]:
        """What the source holds in each column but texts, from the features [W] of one row.

        With `most`, only in the first columns. A rare category is "(rare)", and one that the
        training did not have may be blank, "".

        Examples
        --------
        >>> columns = (InputColumn("age", "number"), InputColumn("city", "category", 0, ("A", "B")))
        >>> coded = torch.tensor([[30.0, 0], [41.5, 1], [30.0, 0], [30.0, 1]])
        >>> encoder = Encoder.fit(coded, columns)
        >>> encoder.as_read(encoder.encode(coded, columns)[1].numpy())
        {'age': '41.5', 'city': 'B'}
        """
        found: dict[str, str] = {}
        start = 0
        for column in self.columns:
            if len(found) == most:
                break
            stop = start + len(column.feature_names())
            if column.kind != "text":
                found[column.name] = column.as_read(features[start:stop])
            start = stop
        return found

    def encode_rows(self, coded: Inputs, columns: Sequence[InputColumn]) -> Inputs:
        """Return the features [N, W] of coded columns [N, D], in memory or mapped as these are."""
        if isinstance(coded, Tensor):
            return self.encode(coded, columns)
        has_blanks = (bool(piece.isnan().any()) for _, piece in in_pieces(coded))
        if self.only_numbers and not any(has_blanks):
            return coded
        features = new_array((len(coded), len(self.feature_names)), np.float32)
        for some, piece in in_pieces(coded):
            features[some] = self.encode(piece, columns).numpy()
        return as_inputs(features)

    def encode(self, coded: Tensor, columns: Sequence[InputColumn]) -> Tensor:
        """Return the features [N, W] of coded columns [N, D]; complete numbers are not copied."""
        if self.only_numbers:
            if not coded.sum().isnan():  # a mask would take memory
                return coded
            blank = torch.isnan(coded)
            return torch.where(blank, torch.tensor([c.fill for c in self.columns]), coded)
        array = coded.numpy()
        pairs = zip(self.columns, columns, strict=True)
        parts = [fitted.encode(array[:, i], column) for i, (fitted, column) in enumerate(pairs)]
        return torch.from_numpy(np.ascontiguousarray(np.hstack(parts), dtype=np.float32))

    def encode_table(self, table: Any, where: str) -> Tensor:
        """Return the features [N, W] of a pyarrow table. Its columns are found by name.

        Raises
        ------
        InputError
            If a column is missing, or holds values of another kind than in training.
        """
        missing = missing_columns(table, self.names)
        if missing:
            raise invalid(
                "inputs",
                f"hold the columns of the training ({where})",
                Words(f"none called {listed(missing, 4)}; there are {listed(table.column_names)}"),
                "add or rename these",
            )
        wanted = [InputColumn(c.name, c.kind, c.centre) for c in self.columns]
        coded, columns = code_table({"": table}, wanted, {"": where}, finds_centres=False)
        return self.encode(torch.from_numpy(coded[""]), columns)

    def unknown_columns(self, table: Any, where: str) -> list[str]:
        """The columns of categories none of which the training marks: another notation, likely."""
        unknown = []
        for column in self.columns:
            if column.kind == "category":
                values: dict[str, int] = {}
                words = _words(table.column(column.name), f"column {column.name} of the {where}")
                _codes_of_words(words, values, is_category=True)
                if values and values.keys().isdisjoint(column.categories):
                    unknown.append(column.name)
        return unknown

    def encode_array(self, array: Array, where: str) -> Tensor:
        """Return the features [N, W] of an array [N, D], columns by place.

        Raises
        ------
        InputError
            If a column of the training holds no numbers, the array has another number of columns,
            or a value is infinite.
        """
        others = [column.name for column in self.columns if column.kind != "number"]
        shape, fits = array.shape, array.ndim == 2 and array.shape[1:] == (len(self.columns),)
        if others or not fits or array.dtype.kind not in "biuf":
            received = Words(f"{array.dtype} of shape {shape}")
            requirement = f"be numbers [N, {len(self.columns)}] as in training"
            if others:
                requirement = (
                    f"be named columns, as {listed(others, 3)} held no numbers in training"
                )
            raise invalid(where, requirement, received, "give a DataFrame with the same columns")
        coded = np.empty(shape, np.float32)
        for i, column in enumerate(self.columns):
            with np.errstate(over="ignore"):
                coded[:, i] = array[:, i] - column.centre if column.centre else array[:, i]
            _refuse_infinite(coded[:, i], f"column {column.name} of the {where}")
        return self.encode(
            torch.from_numpy(coded), [InputColumn(c.name, c.kind) for c in self.columns]
        )

    def to_parts(self) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
        """Return JSON values and tensors; `from_parts` restores the same encoder."""
        described: list[dict[str, Any]] = []
        tensors: dict[str, Tensor] = {}
        for i, column in enumerate(self.columns):
            values = {name: value for name, value in vars(column).items() if name != "text"}
            values["categories"] = list(column.categories)
            if column.text is not None:
                values["text"], arrays = column.text.to_parts()
                tensors |= {f"encoder.{i}.{name}": tensor for name, tensor in arrays.items()}
            described.append(values)
        return described, tensors

    @classmethod
    def from_parts(
        cls, described: Sequence[Mapping[str, Any]], tensors: Mapping[str, Tensor]
    ) -> Encoder:
        """Restore what `to_parts` gave.

        Raises
        ------
        KeyError, TypeError, ValueError
            If the values are something else.
        """
        columns = []
        for i, values in enumerate(described):
            prefix = f"encoder.{i}."
            own = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
            text = TextFeatures.from_parts(values["text"], own) if "text" in values else None
            plain = {name: value for name, value in values.items() if name != "text"}
            plain["categories"] = tuple(plain["categories"])
            columns.append(FittedColumn(**plain, text=text))
        return cls(tuple(columns))


def _fit_column(
    codes: NDArray[np.float32], column: InputColumn, text_model: str | None
) -> FittedColumn:
    blank = np.isnan(codes)
    present = codes[~blank]
    fitted = FittedColumn(column.name, column.kind, column.centre, marks_blanks=bool(blank.any()))
    if column.kind in ("number", "date"):
        fill = float(present.mean(dtype=np.float64)) if present.size else 0.0
        has_time = column.kind == "date" and bool((present != np.floor(present)).any())
        return replace(fitted, fill=float(np.float32(fill)), has_time=has_time)
    if column.kind == "category":
        counts = np.bincount(present.astype(np.int64), minlength=len(column.values))
        least = max(LEAST_ROWS, int(np.ceil(LEAST_SHARE * len(codes))))
        # By name among equals: the order of codes depends on held-out rows, too.
        order = sorted(range(len(counts)), key=lambda i: (-counts[i], column.values[i]))
        frequent = order[:MOST_CATEGORIES]
        kept = sorted(column.values[i] for i in frequent if counts[i] >= least)
        # A column of rare categories only would leave nothing.
        kept = kept or sorted(column.values[i] for i in frequent if counts[i])
        has_rare = int((counts > 0).sum()) > len(kept)
        return replace(fitted, categories=tuple(kept), has_rare=has_rare)
    text = TextFeatures.fit(_texts(codes, column.values), model=text_model)
    return replace(fitted, marks_blanks=False, text=text)


def _fitted_text(text: TextFeatures | None) -> TextFeatures:
    if text is None:
        raise TypeError("a column of texts without its features")
    return text


def _texts(codes: NDArray[np.float32], values: Sequence[str]) -> list[str]:
    blank = len(values)
    with_blank = np.array([*values, ""], dtype=object)
    places = np.where(np.isnan(codes) | (codes < 0), blank, codes).astype(np.int64)
    texts: list[str] = with_blank[places].tolist()
    return texts


def _date_parts(has_time: bool) -> list[str]:
    periods = ["year", "week", *(["day"] if has_time else [])]
    return [f"{wave} of the {period}" for period in periods for wave in ("sine", "cosine")]


def _of_date(days: NDArray[np.float64], has_time: bool) -> list[Array]:
    """Where in the year, in the week and in the day a date lies, each as a point of a circle."""
    lengths = [365.2425, 7.0, *([1.0] if has_time else [])]
    angles = [2 * np.pi * days / length for length in lengths]
    waves = [wave(angle) for angle in angles for wave in (np.sin, np.cos)]
    return [wave[:, None].astype(np.float32) for wave in waves]


# From a table to codes --------------------------------------------------------------------------


def code_table(
    tables: dict[str, Any],
    columns: Sequence[InputColumn],
    where: Mapping[str, str],
    *,
    finds_centres: bool = True,
    place: Place = Place(),  # noqa: B008 - it is frozen
) -> tuple[dict[str, Array], tuple[InputColumn, ...]]:
    """Read the columns of all splits of a source to numbers.

    Parameters
    ----------
    tables : dict of str to pyarrow.Table
        By split. The dict is emptied, so that memory holds each column once.
    columns : sequence of D InputColumn
        Of names and kinds; the rest is filled in.
    where : dict of str to str
        What messages call each table.
    finds_centres : bool
        False: columns keep the `centre` that they have, as a trained network needs it.
    place : Place
        Where arrays larger than memory are to lie.

    Returns
    -------
    coded : dict of str to array [N, D] of float32
    columns : tuple of D InputColumn
        With the values that codes stand for.

    Raises
    ------
    InputError
        If a column holds other values than its kind says.
    """
    # In columns, as a first column of rows would take up the memory of all.
    coded: dict[str, Array] = {
        split: new_array((table.num_rows, len(columns)), np.float32, order="F")
        for split, table in tables.items()
    }
    contents = {
        split: dict(zip(table.column_names, table.columns, strict=True))
        for split, table in tables.items()
    }
    tables.clear()
    known = []
    for i, column in enumerate(columns):
        codes: dict[str, int] = {}
        for split, of_split in contents.items():
            called = f"column {column.name} of the {where[split]}"
            content = of_split.pop(column.name)
            if column.kind in ("category", "text"):
                words = _words(content, called)
                is_category = column.kind == "category"
                coded[split][:, i] = _codes_of_words(words, codes, is_category=is_category)
            else:
                is_date = column.kind == "date"
                numbers = _days(content, called) if is_date else _numbers(content, called)
                if split == next(iter(contents)) and finds_centres:
                    centre = centre_of(numbers)
                    # Whole days, so that the hours stay behind the point.
                    column = replace(column, centre=np.floor(centre) if is_date else centre)
                with np.errstate(over="ignore"):
                    coded[split][:, i] = numbers - column.centre if column.centre else numbers
                _refuse_infinite(coded[split][:, i], called)
            del content
            release_memory()
        known.append(replace(column, values=tuple(codes)))
        if any(map(is_mapped, coded.values())):
            place.tell("reading columns", i + 1, len(columns))
    for split in coded:
        coded[split] = _in_rows(coded[split], f"{split}.inputs", where[split], place)
    return coded, tuple(known)


def _in_rows(coded: Array, name: str, where: str, place: Place) -> Array:
    """The same numbers, those of a row side by side."""
    if not is_mapped(coded):
        return np.ascontiguousarray(coded)
    rows = place.array(name, coded.shape, coded.dtype, what=where)
    for some in blocks(len(coded), coded.itemsize * coded.shape[1]):
        rows[some] = coded[some]
    return rows


def centre_of(numbers: NDArray[np.float64]) -> float:
    """What to subtract from numbers before float32 loses their differences; 0 for nothing.

    A Unix time needs it, as float32 has no number between two that are a minute apart.

    >>> centre_of(np.array([1_700_000_000.0, 1_700_000_060.0])), centre_of(np.array([1.0, 2.0]))
    (1700000030.0, 0.0)
    """
    present = numbers[np.isfinite(numbers)]
    if not present.size:
        return 0.0
    with np.errstate(over="ignore"):  # too large numbers are refused later, with their row
        mean, deviation = float(present.mean()), float(present.std())
    return mean if abs(mean) > LOST_BITS * deviation and deviation > 0 else 0.0


def _numbers(column: Any, where: str) -> NDArray[np.float64]:
    """Return numbers, booleans, times and durations (in seconds) as float64; blanks are NaN."""
    pa, types = needs("pyarrow"), needs("pyarrow.types")
    column = _plain(column)
    kind, unit = column.type, 1.0
    if types.is_string(kind):
        try:
            column = _cast_strings(column, [pa.float64(), pa.bool_()])
        except pa.ArrowInvalid as error:
            remedy = "mend these cells, or say what the column holds (--columns NAME=category)"
            raise invalid(where, "hold numbers", Words(str(error)[:200]), remedy) from error
    elif types.is_duration(kind) or types.is_time(kind):
        # In seconds, as files and data frames keep the same times in different units.
        unit = UNITS[kind.unit]
        column = column.cast("int32" if types.is_time32(kind) else "int64")
    elif not is_number(kind):
        raise invalid(where, "hold numbers", Words(f"values of type {kind}"), "leave it out")
    column = column.cast("float64", safe=False)
    numbers = np.asarray(column.to_numpy())
    return numbers if unit == 1.0 else numbers / unit


def _days(column: Any, where: str) -> NDArray[np.float64]:
    """Return dates as days since 1970; blanks are NaN."""
    try:
        moments = as_moments(column)
    except needs("pyarrow").ArrowException as error:
        remedy = "write them as 2026-01-31, or say what the column holds (--columns NAME=text)"
        raise invalid(where, "hold dates", Words(str(error)[:200]), remedy) from error
    numbers = _numbers(moments.cast("int64"), where)
    return numbers / (24 * 3600 * 1e6)


def as_moments(column: Any) -> Any:
    """Return a column of dates, of moments or of either as text as timestamps in microseconds.

    Raises
    ------
    pyarrow.ArrowException
        If the column holds something else.
    """
    pa, types = needs("pyarrow"), needs("pyarrow.types")
    column = _plain(column)
    if types.is_string(column.type):
        zones = (None, "UTC")
        wanted = [pa.timestamp(unit, zone) for unit in ("us", "ns") for zone in zones]
        column = _cast_strings(column, wanted)
    elif is_number(column.type) and not types.is_null(column.type):
        raise pa.ArrowInvalid(f"values of type {column.type}")  # Arrow takes them for microseconds
    # Not "safe", which refuses nanoseconds.
    return column.cast(pa.timestamp("us", getattr(column.type, "tz", None)), safe=False)


def _plain(column: Any) -> Any:
    """Return a column without a dictionary, and text as strings of one type."""
    types = needs("pyarrow.types")
    if types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    is_text = types.is_large_string(column.type) or types.is_string_view(column.type)
    return column.cast("string") if is_text else column


def _cast_strings(column: Any, kinds: Sequence[Any]) -> Any:
    """Cast text to the first type that takes all cells; empty cells are blanks.

    Raises
    ------
    pyarrow.ArrowInvalid
        What the first type says, if no type takes all cells.
    """
    pa, compute = needs("pyarrow"), needs("pyarrow.compute")
    column = compute.utf8_trim_whitespace(column)
    column = compute.if_else(compute.equal(column, ""), pa.scalar(None, pa.string()), column)
    first: Exception | None = None
    for kind in kinds:
        try:
            return column.cast(kind)
        except pa.ArrowInvalid as error:
            first = first or error
    raise first or pa.ArrowInvalid("no type to cast to")


def _words(column: Any, where: str) -> Any:
    """Return a column as strings; numbers that are not finite are blanks."""
    pa, types, compute = needs("pyarrow"), needs("pyarrow.types"), needs("pyarrow.compute")
    column = _plain(column)
    try:
        if types.is_floating(column.type):
            column = column.cast("float64")
            finite = compute.is_finite(column)
            column = compute.if_else(finite, column, pa.scalar(None, pa.float64()))
            if compute.any(compute.greater_equal(compute.abs(column), 2.0**63)).as_py():
                return column.cast("string")
        return strings(column)
    except (pa.ArrowException, ValueError) as error:
        received = Words(f"values of type {str(column.type)[:100]}")
        raise invalid(where, "hold words", received, "leave it out") from error


def _codes_of_words(
    column: Any, codes: dict[str, int], *, is_category: bool
) -> NDArray[np.float64]:
    """Number the values of a column; `codes` grows by those that it did not have."""
    encoded = dictionary(column)
    values = [value.strip() for value in encoded.dictionary.to_pylist()]
    if is_category:
        values = [_as_category(value) for value in values]
    numbers = [codes.setdefault(value, len(codes)) if value else np.nan for value in values]
    indices = encoded.indices.fill_null(len(numbers)).to_numpy(zero_copy_only=False)
    codes_of_rows: NDArray[np.float64] = np.array([*numbers, np.nan], np.float64)[indices]
    return codes_of_rows


def _as_category(value: str) -> str:
    """A category without what files change: 5.0 is 5, 0.50 is 0.5, TRUE is true.

    >>> [_as_category(value) for value in ("5.0", "0.50", "True", "007", "a.0")]
    ['5', '0.5', 'true', '007', 'a.0']
    """
    if match := WHOLE.fullmatch(value):
        return match[1]
    if FRACTION.fullmatch(value):
        return value.rstrip("0")
    return value.lower() if value.lower() in ("true", "false") else value


def _refuse_infinite(numbers: NDArray[np.float32], where: str) -> None:
    infinite = np.isinf(numbers)
    if infinite.any():
        received = first_bad(infinite, "infinite or too large values")
        raise invalid(
            where, "be finite in float32", received, "drop these rows, or blank the cells"
        )
