"""The list of labels that look wrong, as a file within the page."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Iterator
from pathlib import Path

from keeprate.records import NAME_COLUMN, QUALITY_COLUMNS, QUALITY_FILE, SUGGESTED_COLUMN
from keeprate.text import as_meant, neutral

LARGEST_FIX_LIST = 2_000_000  # characters
_LONGEST_LINE = 1_000_000  # characters


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
