"""Lists of pairs of faces, as LFW, CALFW, CPLFW, AgeDB-30 and CFP have them, and tables of pairs.

What the formats are, as far as they are documented or their users agree:

LFW, `pairs.txt` (its README, section 3c): a first line with the numbers of sets and of pairs of a
kind in each, `10 300`, or the latter alone for `pairsDevTest.txt`. Then for each set so many lines
`Name i j` (the pictures `Name/Name_000i.jpg` and `Name/Name_000j.jpg` of one person), and as many
lines `Name i Other j` of two people. Nobody is in two sets.

CALFW and CPLFW, `pairs_CALFW.txt`: a line for each picture, `Name_0001.jpg 3`, and two lines are a
pair. The number is that of the fold for a pair of one person, and 0 for two people, whose fold the
list does not tell. All pairs of one person come first. The pictures lie in one folder.

CFP, `Protocol/`: `Pair_list_F.txt` and `Pair_list_P.txt` number 5,000 frontal and 2,000 profile
pictures from 1 (`1 ../Data/Images/001/frontal/01.jpg`). `Split/FP/01` to `10` hold `same.txt` and
`diff.txt` with lines `i,j`: the first is frontal, the second of the other list, for `FF` of the
same. The folders are the folds, and nobody is in two of them. The person is the folder `001`.

AgeDB-30 comes as `.bin` or as a list `agedb_30_pair.txt` that was made of it, without a header:
`00001.jpg 00002.jpg 1` and `-1` (or 0) for two people. `cfp_fp_pair.txt` is alike.

A table (CSV): `row_a,row_b,same` with the rows of a Parquet file, from 0, or `path_a,path_b,same`
with files of a folder; `fold` may be a fourth column.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from keeprate.errors import InputError, Words, invalid
from keeprate.files import read_bytes
from keeprate.text import cut

LARGEST_LIST = 2**26  # bytes
_NUMBER = re.compile(r"[0-9]{1,9}")
_OF_PERSON = re.compile(r"(.+?)_([0-9]+)(\.\w+)?")
_SAME = {"1": True, "true": True, "same": True}
_DIFFERENT = {"0": False, "-1": False, "false": False, "different": False}
_KINDS = _SAME | _DIFFERENT
_FRONTAL, _PROFILE = "Pair_list_F.txt", "Pair_list_P.txt"


@dataclass(frozen=True)
class PairList:
    """A list of P pairs, before their pictures are read.

    Attributes
    ----------
    first, second : tuple of P str
        The pictures: names of files with or without a suffix, or rows.
    same : tuple of P bool
        Whether a pair shows one person.
    folds : tuple of P (int or None)
        The fold of each pair by the list's own number, or None; empty where no pair has one.
    people : dict of str to str
        Who is on each picture; empty where the list does not tell.
    are_rows : bool
        Whether the pictures are rows of a table.
    below : tuple of str
        Where the pictures may lie in a folder: `{person}` stands for a name.
    root : Path
        The folder that the list itself belongs to.
    """

    first: tuple[str, ...]
    second: tuple[str, ...]
    same: tuple[bool, ...]
    folds: tuple[int | None, ...] = ()
    people: dict[str, str] = field(default_factory=dict)
    are_rows: bool = False
    below: tuple[str, ...] = ("",)
    root: Path = Path()

    @property
    def pictures(self) -> list[str]:
        """Each picture once, in the order of the list."""
        both = (one for pair in zip(self.first, self.second, strict=True) for one in pair)
        return list(dict.fromkeys(both))


def read_pair_list(path: Path) -> PairList:
    """Read a list of pairs of any of the formats above.

    Parameters
    ----------
    path : Path
        A file, or the folder of CFP, its `Protocol`, or one of `Protocol/Split/FP` and `FF`; FP if
        it is not told.

    Raises
    ------
    InputError
        If it is no such list, or a line of it does not fit the others.
    """
    if path.is_dir():
        return _cfp(path)
    lines = _lines(path)
    if not lines:
        raise invalid(str(path), "hold pairs", Words("no line"), "check the path")
    head = lines[0].text
    if "," in head and "same" in head.lower():
        return _table(path, lines)
    fields = [line.text.split("\t") if "\t" in line.text else line.text.split() for line in lines]
    if all(map(_is_number, fields[0])) and len(fields[0]) <= 2:
        return _lfw(path, lines[1:], fields[1:], [int(one) for one in fields[0]])
    if _is_of_lfw(fields[0]):
        return _lfw(path, lines, fields, [])
    if len(fields[0]) == 2:
        return _by_picture(path, lines, fields)
    if len(fields[0]) == 3:
        return _plain(path, lines, fields)
    requirement = "be a list of pairs (LFW, CALFW, CPLFW, CFP, AgeDB-30, a table with `same`)"
    received = Words(f"the line {cut(head, 80)!r}")
    raise invalid(str(path), requirement, received, "check the path")


@dataclass(frozen=True)
class _Line:
    number: int
    text: str


def _lines(path: Path) -> list[_Line]:
    content = read_bytes(path, LARGEST_LIST)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        received = Words("bytes that are no UTF-8")
        remedy = "give the list of pairs, or a .bin file by its name"
        raise invalid(str(path), "be text", received, remedy) from error
    numbered = enumerate(text.splitlines(), start=1)
    return [_Line(number, line.strip()) for number, line in numbered if line.strip()]


def _odd(path: Path, line: _Line, requirement: str) -> InputError:
    received = Words(repr(cut(line.text, 80)))
    return invalid(f"line {line.number} of {path}", requirement, received, "mend the list")


def _is_number(text: str) -> bool:
    return _NUMBER.fullmatch(text) is not None


# LFW --------------------------------------------------------------------------------------------


def _is_of_lfw(fields: Sequence[str]) -> bool:
    numbers = [2, 3] if len(fields) == 3 else [2, 4]
    return len(fields) in (3, 4) and all(_is_number(fields[place - 1]) for place in numbers)


def _lfw(
    path: Path, lines: Sequence[_Line], fields: Sequence[Sequence[str]], header: Sequence[int]
) -> PairList:
    sets, of_a_kind = (header[0], header[1]) if len(header) == 2 else (1, sum(header))
    if header and len(lines) != 2 * sets * of_a_kind:
        received = Words(f"{len(lines):,}")
        requirement = f"have {2 * sets * of_a_kind:,} pairs, as its first line says"
        raise invalid(str(path), requirement, received, "fetch the list again")
    first, second, same = [], [], []
    people: dict[str, str] = {}
    for line, parts in zip(lines, fields, strict=True):
        if not _is_of_lfw(parts):
            raise _odd(path, line, "be `Name i j` or `Name i Other j`")
        name, other = parts[0], parts[-2] if len(parts) == 4 else parts[0]
        pair = [f"{who}_{int(i):04d}" for who, i in ((name, parts[1]), (other, parts[-1]))]
        people |= dict(zip(pair, (name, other), strict=True))
        first.append(pair[0])
        second.append(pair[1])
        same.append(len(parts) == 3)
    folds = tuple(place // (2 * of_a_kind) + 1 for place in range(len(lines))) if sets > 1 else ()
    return PairList(
        tuple(first),
        tuple(second),
        tuple(same),
        folds,
        people,
        below=("{person}", ""),
        root=path.parent,
    )


# CALFW and CPLFW --------------------------------------------------------------------------------


def _by_picture(path: Path, lines: Sequence[_Line], fields: Sequence[Sequence[str]]) -> PairList:
    for line, parts in zip(lines, fields, strict=True):
        if len(parts) != 2 or not _is_number(parts[1]):
            raise _odd(path, line, "be the name of a picture and a number")
    if len(lines) % 2:
        received = Words(f"{len(lines):,} lines")
        raise invalid(str(path), "have two lines for each pair", received, "fetch the list again")
    names, marks = zip(*fields, strict=True)
    for place in range(0, len(lines), 2):
        if marks[place] != marks[place + 1]:
            raise _odd(path, lines[place + 1], "have the number of the line before, its pair")
    same = tuple(int(mark) > 0 for mark in marks[::2])
    folds = tuple(int(mark) or None for mark in marks[::2])
    has_folds = len(set(folds) - {None}) > 1  # CPLFW is also passed around with 1 and 0 alone
    people = {name: found[1] for name in names if (found := _OF_PERSON.fullmatch(name))}
    return PairList(
        names[::2],
        names[1::2],
        same,
        folds if has_folds else (),
        people if len(people) == len(set(names)) else {},
        below=("", "aligned images", "images", "{person}"),
        root=path.parent,
    )


# AgeDB-30 and others ----------------------------------------------------------------------------


def _plain(path: Path, lines: Sequence[_Line], fields: Sequence[Sequence[str]]) -> PairList:
    for line, parts in zip(lines, fields, strict=True):
        if len(parts) != 3 or parts[2].lower() not in _KINDS:
            raise _odd(path, line, "be two pictures and 1, 0 or -1")
    first, second, marks = zip(*fields, strict=True)
    same = tuple(_KINDS[mark.lower()] for mark in marks)
    return PairList(first, second, same, root=path.parent)


# Tables -----------------------------------------------------------------------------------------


def _table(path: Path, lines: Sequence[_Line]) -> PairList:
    try:
        head, *rows = csv.reader([line.text for line in lines], strict=True)
    except csv.Error as error:
        raise invalid(str(path), "be a CSV table", Words(str(error)), "mend the list") from error
    columns = [name.strip().lower() for name in head]
    kind = next((k for k in ("row", "path") if {f"{k}_a", f"{k}_b"} <= set(columns)), None)
    if kind is None or "same" not in columns or len(set(columns)) < len(columns):
        requirement = "have the columns row_a, row_b (or path_a, path_b), same, and fold if known"
        raise invalid(str(path), requirement, Words(cut(",".join(head), 80)), "rename its columns")
    if not rows or len(rows) != len(lines) - 1:
        received = Words("cells with line feeds" if rows else "a header alone")
        raise invalid(str(path), "hold a pair in each line", received, "mend the list")
    for line, cells in zip(lines[1:], rows, strict=True):
        if len(cells) != len(columns):
            raise _odd(path, line, f"have {len(columns)} cells")
    by_name = dict(zip(columns, zip(*rows, strict=True), strict=True))
    first, second = ([cell.strip() for cell in by_name[f"{kind}_{side}"]] for side in "ab")
    folds = [cell.strip() for cell in by_name.get("fold", ())]
    for place, line in enumerate(lines[1:]):
        if by_name["same"][place].strip().lower() not in _KINDS:
            raise _odd(path, line, "have 1 or 0 for same")
        numbers = [first[place], second[place]] if kind == "row" else []
        if not all(map(_is_number, [*numbers, *folds[place : place + 1]])):
            raise _odd(path, line, "have whole numbers for rows and folds")
    if kind == "row":  # 007 is row 7
        first, second = ([str(int(row)) for row in side] for side in (first, second))
    return PairList(
        tuple(first),
        tuple(second),
        tuple(_KINDS[cell.strip().lower()] for cell in by_name["same"]),
        tuple(map(int, folds)),
        are_rows=kind == "row",
        root=path.parent,
    )


# CFP --------------------------------------------------------------------------------------------


def _cfp(folder: Path) -> PairList:
    protocol = next(
        (
            place
            for place in (folder, folder / "Protocol", *folder.resolve().parents[:2])
            if (place / _FRONTAL).is_file()
        ),
        None,
    )
    if protocol is None:
        requirement = f"be a list of pairs, a .bin file, or the folder of CFP with {_FRONTAL}"
        raise invalid("PAIRS", requirement, str(folder), "check the path")
    kind = "FF" if folder.name == "FF" else "FP"
    frontal = _cfp_pictures(protocol / _FRONTAL)
    other = _cfp_pictures(protocol / _PROFILE) if kind == "FP" else frontal
    first, second, same, folds = [], [], [], []
    parts = sorted(place for place in (protocol / "Split" / kind).glob("*") if place.is_dir())
    for fold, part in enumerate(parts, start=1):
        for name, is_same in (("same.txt", True), ("diff.txt", False)):
            for line in _lines(part / name):
                numbers = [cell.strip() for cell in line.text.split(",")]
                if len(numbers) != 2 or numbers[0] not in frontal or numbers[1] not in other:
                    raise _odd(part / name, line, "be two numbers of pictures, i,j")
                first.append(frontal[numbers[0]])
                second.append(other[numbers[1]])
                same.append(is_same)
                folds.append(fold)
    if not first:
        raise invalid(str(protocol / "Split" / kind), "hold pairs", Words("none"), "fetch it again")
    people = {name: name.split("/")[0] for name in (*first, *second)}
    below = ("Data/Images", "Images", "")
    lists = tuple(first), tuple(second), tuple(same), tuple(folds)
    return PairList(*lists, people, below=below, root=protocol.parent)


def _cfp_pictures(path: Path) -> dict[str, str]:
    """The pictures of a list by their numbers: `001/frontal/01.jpg`."""
    pictures = {}
    for line in _lines(path):
        number, *rest = line.text.split(maxsplit=1)
        parts = "".join(rest).replace("\\", "/").split("/")
        if not _is_number(number) or len(parts) < 3:
            raise _odd(path, line, "be a number and a picture, 1 ../Data/Images/001/frontal/01.jpg")
        pictures[number] = "/".join(parts[-3:])
    return pictures
