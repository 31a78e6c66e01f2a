"""Lists of pairs and their pictures, from files -> `Pairs`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from keeprate.data import Table, is_parquet, read_tables, table_files
from keeprate.errors import InputError, Words, invalid, needs
from keeprate.reading import (
    LABEL_NAMES,
    ImageSize,
    PairList,
    decode_images,
    find_pictures,
    missing_pictures,
    read_images,
    read_pair_bin,
    read_pair_list,
    split_word,
)
from keeprate.text import listed as listed_names
from keeprate.verification.pairs import Pairs
from keeprate.verification.protocol import N_FOLDS, standard_folds

_PERSON_COLUMNS = ("name", "person", "identity", *LABEL_NAMES)
_SORTED = (
    "The list is sorted by kind, and its ten equal folds would hold one kind each: the folds take "
    "the pairs of each kind in its order."
)
_SHARED = (
    "The list tells no folds for pairs of two people: they are shared out to its folds in order."
)


def load_pairs(
    source: str | os.PathLike[str],
    *,
    images: str | os.PathLike[str] | None = None,
    image_size: ImageSize = None,
    channels: int | None = None,
) -> Pairs:
    """Read pairs of faces and their pictures.

    Parameters
    ----------
    source : path
        A list as LFW, CALFW, CPLFW, AgeDB-30 and CFP have it (the folder of CFP, too), a CSV table
        `row_a,row_b,same` or `path_a,path_b,same` with or without `fold`, or a `.bin` file.
    images : path, optional
        The folder of the pictures, or the Parquet file (or the folder of such files) that has them
        in a column. Left out: the folder of the list. A `.bin` file holds its own.
    image_size : int, (int, int) or None
        The height and the width that all pictures get. None: their own if they are of one size.
    channels : {1, 3} or None
        As a trained network takes them. None: 1 if all pictures are grey, otherwise 3.

    Returns
    -------
    Pairs

    Raises
    ------
    InputError
        If a file is damaged or no such list, or a picture is missing: no pair is left out.
    """
    path = Path(source)
    if not path.exists():
        requirement = "be a list of pairs, the folder of CFP or a .bin file"
        raise invalid("PAIRS", requirement, str(path), "check the path")
    wanted = _Wanted(image_size, channels)
    if path.suffix.lower() == ".bin":
        if images is not None:
            remedy = "leave it out"
            raise invalid("images", "be left out for a .bin file", str(images), remedy)
        return _of_bin(path, wanted)
    listed = read_pair_list(path)
    place = listed.root if images is None else Path(images)
    if not place.exists():
        raise invalid("images", "be a folder or a Parquet file", str(place), "check the path")
    pictures = _pictures(listed, path, place, wanted)
    return _pairs(listed, pictures, path.stem if path.is_file() else f"cfp-{_cfp_kind(path)}")


@dataclass(frozen=True)
class _Wanted:
    """What all pictures become."""

    image_size: ImageSize
    channels: int | None


@dataclass(frozen=True)
class _Pictures:
    """The pictures of a list, in the order of `PairList.pictures`, and who is on them."""

    pixels: Any
    notes: tuple[str, ...]
    people: dict[str, str]


def _cfp_kind(folder: Path) -> str:
    return "ff" if folder.name == "FF" else "fp"


def _of_bin(path: Path, wanted: _Wanted) -> Pairs:
    content = read_pair_bin(path)
    keys = {image: str(row) for row, image in enumerate(dict.fromkeys(content.images))}
    names = [keys[image] for image in content.images]
    listed = PairList(tuple(names[::2]), tuple(names[1::2]), tuple(content.same), are_rows=True)
    pictures = _decoded([(image, None) for image in keys], str(path), wanted, None)
    return _pairs(listed, pictures, path.stem)


def _pairs(listed: PairList, pictures: _Pictures, name: str) -> Pairs:
    rows = {picture: row for row, picture in enumerate(listed.pictures)}
    same = torch.tensor(listed.same)
    folds, notes = _folds(listed, same)
    people, contradiction = _people(listed, listed.people or pictures.people)
    return Pairs(
        images=torch.from_numpy(pictures.pixels),
        first=torch.tensor([rows[one] for one in listed.first]),
        second=torch.tensor([rows[one] for one in listed.second]),
        same=same,
        folds=folds,
        people=people,
        name=name,
        notes=(*pictures.notes, *notes, *contradiction),
    )


def _people(listed: PairList, people: dict[str, str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Who is on each picture, unless the list itself says otherwise; and a note if it does."""
    if not people:
        return (), ()
    pairs = zip(listed.first, listed.second, listed.same, strict=True)
    n_odd = sum((people[a] == people[b]) != same for a, b, same in pairs)
    if n_odd:
        words = "The names of the pictures contradict {} of the {} pairs: people are not known."
        return (), (words.format(f"{n_odd:,}", f"{len(listed.same):,}"),)
    return tuple(people[one] for one in listed.pictures), ()


# Folds ------------------------------------------------------------------------------------------


def _folds(listed: PairList, same: Tensor) -> tuple[Tensor | None, tuple[str, ...]]:
    """The folds of a list, and a note if they are not those that it tells."""
    numbers = sorted({fold for fold in listed.folds if fold is not None})
    if not numbers:
        return _folds_in_order(same)
    if len(numbers) == 1:
        raise invalid("the folds of the list", "be two or more", numbers[0], "leave them out")
    places = {fold: place for place, fold in enumerate(numbers)}
    folds = torch.tensor([-1 if fold is None else places[fold] for fold in listed.folds])
    unknown = folds < 0
    if not unknown.any():
        return folds, ()
    folds[unknown] = standard_folds(int(unknown.sum()), len(numbers))
    return folds, (_SHARED,)


def _folds_in_order(same: Tensor) -> tuple[Tensor | None, tuple[str, ...]]:
    """None for equal folds in the list's order, unless these hold pairs of one kind alone."""
    if min(int(same.sum()), int((~same).sum())) < N_FOLDS:
        return None, ()
    folds = standard_folds(len(same))
    if all(
        0 < int(same[folds == fold].sum()) < int((folds == fold).sum()) for fold in range(N_FOLDS)
    ):
        return None, ()
    for kind in (same, ~same):
        folds[kind] = standard_folds(int(kind.sum()))
    return folds, (_SORTED,)


# Pictures ---------------------------------------------------------------------------------------


def _pictures(listed: PairList, path: Path, place: Path, wanted: _Wanted) -> _Pictures:
    tables = _tables(listed, path, place)
    if tables:
        return _of_tables(listed, path, place, tables, wanted)
    if listed.are_rows:
        remedy = "name the Parquet file whose rows the list counts (images=, --images)"
        raise invalid("images", "be a Parquet file or a folder of some", str(place), remedy)
    if not place.is_dir():
        raise invalid("images", "be a folder or a Parquet file", str(place), "check the path")
    files = find_pictures(listed, place, str(path))
    found = read_images(files, str(path), image_size=wanted.image_size, channels=wanted.channels)
    return _Pictures(found.pixels, found.notes, {})


def _tables(listed: PairList, path: Path, place: Path) -> list[Table]:
    """The Parquet tables that hold the pictures; none if `place` is a folder of image files."""
    if place.is_file():
        groups = {"": [place]} if is_parquet(place) else {}
    else:
        groups = {
            name: files for name, files in table_files(place)[0].items() if is_parquet(files[0])
        }
    if listed.are_rows and len(groups) > 1:
        split = split_word(path.stem)
        if split is None or split not in groups:
            received = Words(f"{place} with the splits {listed_names(list(groups))}")
            remedy = "name the file whose rows the list counts (images=, --images)"
            raise invalid("images", "be one table", received, remedy)
        groups = {split: groups[split]}
    return [read_tables(files, str(files[0]), as_text=lambda _: False) for files in groups.values()]


def _of_tables(
    listed: PairList, path: Path, place: Path, tables: Sequence[Table], wanted: _Wanted
) -> _Pictures:
    columns = [table.arrow.column(_image_column(table)) for table in tables]
    places = [(column, row) for column in columns for row in range(len(column))]
    if listed.are_rows:
        by_name = {str(row): row for row in range(len(places))}
    else:
        files = [file for column in columns for file in _files_of(column)]
        by_name = _rows_by_name(files)
    rows = [_row(by_name, picture) for picture in listed.pictures]
    missing = [name for name, row in zip(listed.pictures, rows, strict=True) if row is None]
    if missing:
        raise missing_pictures(listed, missing, str(place), str(path))
    taken = [row for row in rows if row is not None]
    encoded = [_content(column[row].as_py()) for column, row in (places[row] for row in taken)]
    folder = None if tables[0].file is None else tables[0].file.parent
    pictures = _decoded(encoded, str(path), wanted, folder)
    people = [person for table in tables for person in _people_of(table)]
    who = {name: people[row] for name, row in zip(listed.pictures, taken, strict=True)}
    return _Pictures(pictures.pixels, pictures.notes, {} if "" in who.values() else who)


def _image_column(table: Table) -> str:
    names = [name for name in table.arrow.column_names if table.is_image(name)]
    if not names:
        received = Words(listed_names(table.arrow.column_names))
        raise invalid(table.where, "have a column of images", received, "give another file")
    return str(names[0])


def _content(value: Any) -> tuple[bytes | None, str | None]:
    """The bytes and the path of a row, which may be bytes alone."""
    if isinstance(value, dict):
        return value.get("bytes"), value.get("path")
    return (value, None) if isinstance(value, bytes) else (None, value)


def _files_of(column: Any) -> list[str | None]:
    """The name of the file of each row; None where a row does not tell."""
    pa, compute = needs("pyarrow"), needs("pyarrow.compute")
    kind = column.type
    if pa.types.is_struct(kind):
        has_path = any(kind.field(i).name == "path" for i in range(kind.num_fields))
        column = compute.struct_field(column, "path") if has_path else pa.nulls(len(column))
    elif not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        column = pa.nulls(len(column))
    names: list[str | None] = column.to_pylist()
    return names


def _rows_by_name(files: Sequence[str | None]) -> dict[str, int]:
    """The row of each picture by its path, and by shorter names that no other picture has."""
    named: dict[str, set[int]] = {}
    for row, file in enumerate(files):
        for name in _names_of(file):
            named.setdefault(name, set()).add(row)
    return {name: rows.pop() for name, rows in named.items() if len(rows) == 1}


def _names_of(file: str | None) -> tuple[str, ...]:
    """What a list may call a picture of a table."""
    if not file:
        return ()
    path = Path(file.replace("\\", "/"))
    return file, path.name, path.stem


def _row(by_name: dict[str, int], picture: str) -> int | None:
    row = by_name.get(picture)
    # The table may have another suffix. `01.jpg` alone would not tell whose picture it is.
    return by_name.get(Path(picture).stem) if row is None and "/" not in picture else row


def _people_of(table: Table) -> list[str]:
    """Who is on the picture of each row; empty texts where no column tells."""
    columns = {str(name).lower(): name for name in table.arrow.column_names}
    name = next((columns[one] for one in _PERSON_COLUMNS if one in columns), None)
    if name is None:
        return [""] * int(table.arrow.num_rows)
    return ["" if value is None else str(value) for value in table.arrow.column(name).to_pylist()]


def _decoded(
    encoded: Sequence[tuple[bytes | None, str | None]],
    where: str,
    wanted: _Wanted,
    folder: Path | None,
) -> _Pictures:
    pa = needs("pyarrow")
    kind = pa.struct([("bytes", pa.large_binary()), ("path", pa.string())])
    values = [{"bytes": content, "path": path} for content, path in encoded]
    column = pa.chunked_array([pa.array(values, kind)])
    found = decode_images(
        column,
        where,
        image_size=wanted.image_size,
        channels=wanted.channels,
        folder=folder,
    )
    if not len(found.pixels):  # pragma: no cover - a list without pairs is refused before
        raise InputError(f"{where} must hold pictures, got none.")
    return _Pictures(found.pixels, found.notes, {})
