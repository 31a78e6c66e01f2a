"""The exports of annotation tools -> one table with one label a sample."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from keeprate.errors import InputError, damaged
from keeprate.limits import too_deep
from keeprate.reading.delimited import read_delimited
from keeprate.reading.encodings import SAMPLE, UNREADABLE, find_encoding, open_text
from keeprate.reading.export_formats import (
    ABOUT_ANNOTATIONS,
    LABEL_STUDIO_KEYS,
    Parsed,
    Sample,
    Vote,
    choice_column,
    label_studio_rows,
    parser_of,
)
from keeprate.reading.json_lines import Row, is_json, rows_of, table_of
from keeprate.text import percent

FIRST = 20  # rows that tell the format


@dataclass(frozen=True)
class Export:
    """Samples that people annotated.

    Attributes
    ----------
    arrow : pyarrow.Table
        N rows, one a sample.
    label : str
        The name of the label column: strings, null for samples without an annotation.
    kind : str
        The tool and its format.
    notes : tuple of str
        What people should know about how the file was read.
    ignored : tuple of str
        Columns that are ids, times or the like. They are no inputs.
    votes : tuple of N dict or None
        How many annotators gave which label to each sample. None if no sample has several.
    """

    arrow: Any
    label: str
    kind: str
    notes: tuple[str, ...]
    ignored: tuple[str, ...]
    votes: tuple[dict[str, int], ...] | None


def read_export(path: Path) -> Export | None:
    """Read what an annotation tool exported. The content tells the format, not the name.

    The label of a sample is what most of its annotators say, or the first of those labels that
    equally many say.

    Parameters
    ----------
    path : Path
        A text file, packed by gzip or not.

    Returns
    -------
    Export or None
        None if the file is a plain table, or no text.

    Raises
    ------
    InputError
        If the file is damaged, or its annotations are not one class a sample.
    """
    path = Path(path)
    try:
        try:
            find_encoding(path)
        except InputError:
            return None
        parsed = _parsed_json(path) if is_json(path) else _parsed_csv(path)
        return None if parsed is None else _export(parsed, path)
    except UnicodeDecodeError:
        return None  # reading the file as a table says where
    except UNREADABLE as error:
        raise damaged(path, error) from error
    except RecursionError as error:
        raise too_deep(str(path)) from error


def _parsed_json(path: Path) -> Parsed | None:
    rows = rows_of(path)
    first = list(islice(rows, FIRST))
    parser = parser_of(first)
    return None if parser is None else parser([*first, *rows], path)


def _parsed_csv(path: Path) -> Parsed | None:
    with open_text(path, find_encoding(path)) as text:
        header = text.read(SAMPLE).lstrip("\r\n").partition("\n")[0]
    if not all(name in header for name in LABEL_STUDIO_KEYS):
        return None
    rows = read_delimited(path, as_text=lambda name: True).arrow
    if not set(LABEL_STUDIO_KEYS) <= set(rows.column_names):
        return None
    label = choice_column(rows.to_pylist(), path)
    known = (label, *ABOUT_ANNOTATIONS)
    table = read_delimited(path, as_text=lambda name: name in known)
    parsed = label_studio_rows(table.arrow.to_pylist(), path)
    parsed.notes[:0] = table.notes
    return parsed


def _export(parsed: Parsed, path: Path) -> Export:
    samples = list(parsed.samples.values())
    votes = [_votes(sample) for sample in samples]
    labels = [_majority(some) for some in votes]

    def rows() -> Iterator[Row]:
        for sample, label in zip(samples, labels, strict=True):
            yield {**sample.fields, parsed.label: label}

    table = table_of(rows, lambda name: name == parsed.label, path)
    counts = tuple(dict(Counter(vote.label for vote in some)) for some in votes)
    several = any(len(some) > 1 for some in votes)
    notes = (*parsed.notes, *_notes(parsed, votes))
    present = tuple(name for name in parsed.ignored if name in table.column_names)
    kind = "Label Studio" if parsed.kind.startswith("Label Studio") else parsed.kind
    notes = (f"the file is an export of {kind}", *notes)
    return Export(table, parsed.label, parsed.kind, notes, present, counts if several else None)


def _votes(sample: Sample) -> list[Vote]:
    """Return one vote an annotator, the last one, in the order of time."""
    votes = sorted(sample.votes, key=lambda vote: vote.when)  # stable: else as in the file
    last = {vote.who if vote.who is not None else i: vote for i, vote in enumerate(votes)}
    return [vote for vote in votes if any(vote is one for one in last.values())]


def _majority(votes: Sequence[Vote]) -> str | None:
    counts = Counter(vote.label for vote in votes)  # in the order of the first votes
    return counts.most_common(1)[0][0] if counts else None


def _notes(parsed: Parsed, votes: Sequence[Sequence[Vote]]) -> Iterator[str]:
    for reason, count in parsed.left_out.items():
        if count:
            yield f"{_counted(count, 'annotation')} {_are(count)} left out: {reason}"
    if missing := sum(not some for some in votes):
        yield f"{_counted(missing, 'sample')} {_have(missing)} no annotation and no label"
    several = [some for some in votes if len(some) > 1]
    if not several:
        return
    tops = [Counter(vote.label for vote in some).most_common() for some in several]
    share = sum(top[0][1] / len(some) for top, some in zip(tops, several, strict=True))
    yield (
        f"{_counted(len(several), 'sample')} of {len(votes)} {_have(len(several))} several "
        f"annotators, of whom {percent(share / len(several))} on average say what the label says"
    )
    if ties := sum(len(top) > 1 and top[0][1] == top[1][1] for top in tops):
        yield (
            f"{_counted(ties, 'sample')} {_have(ties)} equally many votes for several labels; "
            "the first vote in time decides"
        )


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _have(count: int) -> str:
    return "has" if count == 1 else "have"
