"""The labels that look wrong: cards to look at, and a list to download."""

from __future__ import annotations

import base64
import csv
import io
import re
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from keeprate.records import (
    NAME_COLUMN,
    QUALITY_COLUMNS,
    QUALITY_FILE,
    SUGGESTED_COLUMN,
    Suspect,
)
from keeprate.text import as_meant, neutral, probability_in_words

LARGEST_FIX_LIST = 2_000_000  # characters
_LONGEST_LINE = 1_000_000  # characters
_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")
_JPEG = base64.b64encode(b"\xff\xd8\xff").decode()


def gallery(suspects: Sequence[Suspect], class_names: Sequence[str], prefix: str) -> str:
    """Cards of the most suspect samples; a click on a class shows its cards, without a script.

    Parameters
    ----------
    suspects : sequence of Suspect
        What is no base64 in an `image` is left out.
    class_names : sequence of C str
        The order of the classes.
    prefix : str
        Begins every id; no other gallery of the page has the same.
    """
    if not suspects:
        return ""
    given = {suspect.given for suspect in suspects}
    numbers = {name: number for number, name in enumerate(class_names) if name in given}
    for name in sorted(given - numbers.keys()):  # which only a record of other hands has
        numbers[name] = len(class_names) + len(numbers)
    rules = (
        f".chips:has(#{prefix}-only-{number}:checked) ~ .cards .card:not(.given-{number})"
        " { display: none; }"
        for number in numbers.values()
    )
    chips = [_chip(prefix, "all", "all classes", is_checked=True)]
    chips += [_chip(prefix, str(number), name) for name, number in numbers.items()]
    cards = (_card(suspect, numbers[suspect.given]) for suspect in suspects)
    is_wide = not any(suspect.image for suspect in suspects)
    return (
        f"<div><style>{' '.join(rules)}</style><div class=chips>{''.join(chips)}</div>"
        f'<div class="cards{" wide" if is_wide else ""}">{"".join(cards)}</div></div>'
    )


def _chip(prefix: str, which: str, words: str, *, is_checked: bool = False) -> str:
    ident = f"{prefix}-only-{which}"
    return (
        f'<input type="radio" name="{prefix}-only" id="{ident}"{" checked" if is_checked else ""}>'
        f'<label for="{ident}">{escape(words)}</label>'
    )


def _card(suspect: Suspect, number: int) -> str:
    """A card; `number` is that of the given class."""
    name, shown = suspect.name, ""
    if _BASE64.fullmatch(suspect.image):
        kind = "jpeg" if suspect.image.startswith(_JPEG) else "png"
        source = f"data:image/{kind};base64,{suspect.image}"
        shown = f'<img alt="sample {suspect.index}" src="{source}">'
    elif name:  # a text is what there is to see; the file name of a picture is a detail
        name, shown = "", f"<p>{escape(name)}</p>"
    values = ", ".join(f"{column} {value}" for column, value in suspect.values.items())
    wrong = probability_in_words(1 - suspect.score)
    details = (f"sample {suspect.index}, wrong with {wrong}", name, values)
    return (
        f'<div class="card given-{number}">{shown}{escape(suspect.given)} '
        f"\N{RIGHTWARDS ARROW} <b>{escape(suspect.predicted)}</b>"
        + "".join(f"<small>{escape(words)}</small>" for words in details if words)
        + "</div>"
    )


def fix_list(folder: Path) -> str:
    """A link that holds the labels that look wrong, as CSV; empty where no list can be read."""
    text, n_rows, n_listed = io.StringIO(), 0, 0
    writer = csv.writer(text, lineterminator="\n")
    try:
        rows = _rows_to_fix(folder / QUALITY_FILE)
        writer.writerow(next(rows))
        for row in rows:
            n_rows += 1
            if text.tell() < LARGEST_FIX_LIST:
                writer.writerow(row)
                n_listed += 1
    except (OSError, KeyError, ValueError, csv.Error):
        return ""
    packed = base64.b64encode(text.getvalue().encode()).decode()
    words = (
        f"{n_rows:,} rows" if n_listed == n_rows else f"the first {n_listed:,} of {n_rows:,} rows"
    )
    return (
        f'<p><a class="button" download="label_issues.csv" href="data:text/csv;base64,{packed}">'
        f"Download the fix list ({words}, CSV)</a></p>"
    )


def _rows_to_fix(path: Path) -> Iterator[list[str]]:
    """Read a label quality file: its column names, then its rows of labels that look wrong."""
    if not path.is_file():  # a device or a pipe of another's folder would never end
        raise FileNotFoundError(path)
    with path.open(newline="", encoding="utf-8") as file:
        lines = csv.DictReader(iter(lambda: file.readline(_LONGEST_LINE), ""))
        there = set(lines.fieldnames or ())
        needed = [name for name in QUALITY_COLUMNS if name != SUGGESTED_COLUMN or name in there]
        columns = [*needed, *({NAME_COLUMN} & there)]
        yield columns
        for line in lines:
            if line["is_label_issue"] == "True":
                yield [neutral(as_meant(line[column] or "")) for column in columns]
