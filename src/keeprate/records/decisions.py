"""What people decided on labels that look wrong: a file of decisions, and its way into the source.

A decision names its sample by the row in the source, says which label it was made on, and keeps
this label, changes it, or drops the sample.
"""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from keeprate.checksums import RECORD_FILE
from keeprate.data import (
    Corrections,
    JudgedSource,
    Reviewed,
    Source,
    label_text,
    new_folder,
    refuse_place,
    write_corrected,
)
from keeprate.errors import Words, invalid
from keeprate.files import write_atomically
from keeprate.reading import is_hub_name, read_parts
from keeprate.records.label_quality import LabelQuality, load_label_quality
from keeprate.records.record import RunRecord, load_record
from keeprate.text import as_meant, cut, listed, neutral

Verdict: TypeAlias = Literal["keep", "change", "drop"]
VERDICTS: tuple[Verdict, ...] = ("keep", "change", "drop")
DECISION_COLUMNS = ("index", "given_label", "decision", "label")
REMEDY = "download the decisions from the report of this run"
DECISIONS_FILE = "decisions.csv"  # in a run folder: what was applied
EARLIER_FILE = "earlier_decisions.csv"  # in a run folder: those of the runs before


@dataclass(frozen=True)
class Decision:
    """What was decided on the label of one sample.

    Attributes
    ----------
    index : int
        Row of the sample in the source, counted from 0.
    given : str
        The label that the decision was made on.
    verdict : {"keep", "change", "drop"}
    label : str
        The label from now on; empty for a dropped sample.
    name : str
        What people know the sample by, its file say; empty if nothing.
    """

    index: int
    given: str
    verdict: Verdict
    label: str
    name: str = ""


@dataclass(frozen=True)
class Applied:
    """What became of decisions.

    Attributes
    ----------
    source, out : Path
        What was read, and what was written.
    n_kept, n_changed, n_dropped : int
        Decisions of each kind, those on the runs before among them, and those that were applied
        earlier.
    """

    source: Path
    out: Path
    n_kept: int
    n_changed: int
    n_dropped: int


def load_decisions(path: str | os.PathLike[str]) -> tuple[Decision, ...]:
    """Read a file of decisions, as the report gives it or people write it.

    Parameters
    ----------
    path : path
        A delimited file with the columns `index`, `given_label`, `decision` (keep, change or drop)
        and `label`, and with `name` where samples have names. Other columns do not matter.

    Raises
    ------
    InputError
        If the file cannot be read, lacks a column or holds no decision, or a decision is none:
        the message names its line.
    """
    if not Path(path).is_file():
        raise invalid("decisions", "be a file", str(path), "check the path")
    table = read_parts([Path(path)], as_text=lambda _: True).arrow
    return decisions_of_table(table, str(path))


def decisions_of_table(table: Any, where: str) -> tuple[Decision, ...]:
    """Take decisions from the rows of a pyarrow table, with the columns of such a file.

    Raises
    ------
    InputError
    """
    if missing := [name for name in DECISION_COLUMNS if name not in table.column_names]:
        requirement = f"have the columns {listed(DECISION_COLUMNS)}"
        raise invalid(where, requirement, Words(f"none called {listed(missing)}"), REMEDY)
    if not table.num_rows:
        raise invalid(where, "hold a decision", Words("none"), "decide on a label first")
    wanted = [name for name in (*DECISION_COLUMNS, "name") if name in table.column_names]
    rows = table.select(wanted).to_pylist()
    found = tuple(_decision(row, f"row {i} of {where}") for i, row in enumerate(rows, 1))
    check_different(found, where)
    return found


def _decision(row: Mapping[str, object], where: str) -> Decision:
    index, given, verdict, label, name = (
        as_meant(label_text(row.get(column))) for column in (*DECISION_COLUMNS, "name")
    )
    if not index.isascii() or not index.isdigit() or len(index) > 15:
        raise invalid(f"index in {where}", "be a row, counted from 0", index, REMEDY)
    if not given:
        raise invalid(f"given_label in {where}", "be there", Words("nothing"), REMEDY)
    if verdict == "keep" and label in ("", given):
        return Decision(int(index), given, "keep", given, name)
    if verdict == "change" and label not in ("", given):
        return Decision(int(index), given, "change", label, name)
    if verdict == "drop":
        return Decision(int(index), given, "drop", "", name)
    if verdict not in VERDICTS:
        raise invalid(f"decision in {where}", f"be {', '.join(VERDICTS)}", verdict, "choose one")
    requirement = "be the given one" if verdict == "keep" else "be another than the given one"
    remedy = "mend the label or the decision"
    raise invalid(f"label in {where}, which says {verdict},", requirement, label, remedy)


def check_different(decisions: Iterable[Decision], where: str) -> None:
    """Refuse two decisions on one sample.

    Raises
    ------
    InputError
    """
    index, times = Counter(one.index for one in decisions).most_common(1)[0]
    if times > 1:
        received = Words(f"{times} on row {index}")
        raise invalid(where, "hold one decision on each sample", received, "leave one of them")


def check_decisions(
    decisions: Sequence[Decision], quality: LabelQuality, class_names: Sequence[str]
) -> None:
    """Refuse decisions on other labels than those of a run.

    Raises
    ------
    InputError
        If the run has not judged a sample, knows it by another name or with another label, or has
        no such class.
    """
    place = {row: i for i, row in enumerate(quality.rows.tolist())}
    for one in decisions:
        i = place.get(one.index)
        if i is None:
            raise invalid("decisions", "be on labels that the run judged", one.index, REMEDY)
        given = class_names[quality.given[i]]
        if one.given != given:
            name = f"given_label of row {one.index} in the decisions"
            raise invalid(name, f"be {given!r} as in the run", one.given, REMEDY)
        if one.label and one.label not in class_names:
            name, requirement = f"label of row {one.index}", "be a class of the run"
            raise invalid(name, requirement, one.label, f"choose one of {listed(class_names)}")
        if quality.names and one.name and one.name != quality.names[i]:
            name = f"name of row {one.index} in the decisions"
            raise invalid(name, f"be {cut(quality.names[i], 60)!r} as in the run", one.name, REMEDY)


def save_decisions(path: str | os.PathLike[str], decisions: Iterable[Decision]) -> None:
    """Write a file that `load_decisions` reads.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow((*DECISION_COLUMNS, "name"))
    for one in decisions:
        cells = (str(one.index), one.given, one.verdict, one.label, one.name)
        writer.writerow(map(neutral, cells))
    write_atomically(path, text.getvalue())


def earlier_decisions(run: str | os.PathLike[str]) -> tuple[Decision, ...]:
    """All decisions that a run after this one begins with: those before it, and those on it.

    Raises
    ------
    InputError
        If there is none, or decisions do not fit the run.
    """
    before = _of_runs_before(Path(run))
    path = Path(run, DECISIONS_FILE)
    if not path.exists():
        remedy = f"apply some (keeprate apply), or put the file {DECISIONS_FILE} there"
        raise invalid("after", "be a run with decisions on its labels", str(run), remedy)
    quality, class_names = load_label_quality(run)
    decided = load_decisions(path)
    check_decisions(decided, quality, class_names)
    return (*before, *_named(decided, quality))


def reviewed_of(decisions: Iterable[Decision], n_rows: int | None) -> Reviewed:
    """What decisions say of the labels of a source with so many labels."""
    decided = tuple(decisions)
    return Reviewed(
        {one.index: one.given for one in decided},
        {one.index: one.label or None for one in decided},
        {one.index: one.name for one in decided if one.name},
        n_rows,
    )


def _of_runs_before(run: Path) -> tuple[Decision, ...]:
    path = run / EARLIER_FILE
    return load_decisions(path) if path.exists() else ()


def _named(decisions: Iterable[Decision], quality: LabelQuality) -> tuple[Decision, ...]:
    """Give each decision the name of its sample."""
    if not quality.names:
        return tuple(decisions)
    name_of = dict(zip(quality.rows.tolist(), quality.names, strict=True))
    return tuple(replace(one, name=name_of[one.index]) for one in decisions)


def corrections_of(decisions: Iterable[Decision]) -> Corrections:
    """The new labels by row, None for a sample to drop, as `write_corrected` takes them."""
    return {
        one.index: None if one.verdict == "drop" else one.label
        for one in decisions
        if one.verdict != "keep"
    }


def apply_decisions(
    run: str | os.PathLike[str],
    decisions: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    data: str | os.PathLike[str] | None = None,
    link: bool = False,
) -> Applied:
    """Write the source of a run anew, with what was decided on its labels.

    What was decided on the runs before, if it began after one, is written, too. The run folder
    keeps the decisions, for a run after this one. Those that were applied on this run earlier stay,
    and are written, too; a new decision on the same label takes the place of the old one.

    Parameters
    ----------
    run : path
        The folder of a finished run.
    decisions : path
        See `load_decisions`.
    out : path
        A new or empty folder. For a source that is one file also a new file of the same suffix.
    data : path, optional
        The source, if it lies elsewhere by now.
    link : bool
        As for `keeprate.data.write_corrected`.

    Returns
    -------
    Applied

    Raises
    ------
    InputError
        If decisions, run and source do not fit each other, or labels cannot be written into such
        a source. Nothing is written then.
    """
    record = load_record(run)
    source, label, n_rows = _source(record, data, Path(run))
    quality, class_names = load_label_quality(run)
    kept = Path(run, DECISIONS_FILE)
    by_row = {one.index: one for one in (load_decisions(kept) if kept.exists() else ())}
    by_row |= {one.index: one for one in load_decisions(decisions)}
    own = tuple(by_row.values())
    check_decisions(own, quality, class_names)
    own = _named(own, quality)
    decided = (*_of_runs_before(Path(run)), *own)
    names = {one.index: one.name for one in decided} if quality.names and source.is_dir() else {}
    judged = JudgedSource(n_rows, {one.index: one.given for one in decided}, names)
    with _saved(kept, own):
        target = _write(source, Path(out), corrections_of(decided), label, judged, link=link)
    counts = Counter(one.verdict for one in decided)
    return Applied(source, target, counts["keep"], counts["change"], counts["drop"])


@contextmanager
def _saved(path: Path, decisions: Iterable[Decision]) -> Iterator[None]:
    """Save decisions; if the block fails, what was there before is there again.

    They come first: a run folder that cannot be written is to leave no copy of the data behind.
    """
    before = path.read_bytes() if path.exists() else None
    save_decisions(path, decisions)
    try:
        yield
    except BaseException:
        if before is None:
            path.unlink(missing_ok=True)
        else:
            write_atomically(path, before)
        raise


def _source(
    record: RunRecord, data: str | os.PathLike[str] | None, run: Path
) -> tuple[Path, str | None, int | None]:
    """Return where the source lies, its label column and how many labels it has."""
    if record.data.noise != "none":
        received = Words(f"a run with {record.data.noise} added")
        remedy = "its labels are not those of the source: train without --noise"
        raise invalid("RUN", "have judged the labels of the source", received, remedy)
    known: Source | None = record.data.source
    if known is None and data is None:
        received = Words(f"{run / RECORD_FILE}, which names none")
        remedy = "name the source (--data), or use keeprate.apply for data in memory"
        raise invalid("the source", "be a file or a folder", received, remedy)
    given = os.fspath(data) if data is not None else known.path if known is not None else ""
    path = Path(given)
    is_elsewhere = data is None and (given == "digits" or is_hub_name(given))
    if not path.exists() and not is_elsewhere:
        remedy = "say where it lies now (--data)" if data is None else "check the path"
        raise invalid("the source", "be a file or a folder", given, remedy)
    if known is None:
        return path, None, None
    if path.is_file() and path.suffix.lower() != ".npz" and not known.label:
        received = Words("labels by a majority of votes, which have no column")
        raise invalid("the source", "have a column of labels", received, "correct the votes")
    return path, known.label or None, known.n_rows


def _write(
    source: Path,
    out: Path,
    corrections: Corrections,
    label: str | None,
    judged: JudgedSource,
    *,
    link: bool,
) -> Path:
    """Write the copy, a file of its own or within a new folder, and return its path."""
    if not source.is_file():
        write_corrected(source, out, corrections, label=label, judged=judged, link=link)
        return out
    if out.suffix and out.suffix.lower() == source.suffix.lower():
        if out.exists():
            raise invalid("out", "be a new file", Words(f"{out}, which is there"), "name another")
        write_corrected(source, out, corrections, label=label, judged=judged, link=link)
        return out
    refuse_place(source, out)
    with new_folder(out) as folder:
        target = folder / source.name
        write_corrected(source, target, corrections, label=label, judged=judged, link=link)
    return out / source.name
