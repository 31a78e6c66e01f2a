"""What annotation tools export -> samples with the votes of their annotators.

Label Studio, Prodigy, doccano and SageMaker Ground Truth.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import compress
from pathlib import Path
from typing import Any

from keeprate.errors import InputError, Words, invalid
from keeprate.reading.json_lines import Row
from keeprate.text import cut

LABEL_STUDIO_KEYS = ("annotation_id", "lead_time")
"""Keys of each row that Label Studio writes as JSON-MIN or CSV."""
ABOUT_ANNOTATIONS = (
    *("annotator", "annotation_id", "created_at", "updated_at", "lead_time", "agreement"),
    *("history", "annotator_email", "annotator_id", "completed_by", "was_cancelled"),
)
USUAL_CHOICES = (
    *("choice", "choices", "label", "labels", "sentiment", "class", "category", "topic"),
    *("intent", "target", "classification", "answer"),
)
USUAL_DATA = ("text", "image", "audio", "html", "url", "title", "body", "review", "sentence")
REGIONS = ("start", "end", "x", "y", "points", "rle", "bbox", "start_offset", "end_offset")


@dataclass(frozen=True)
class Vote:
    """One annotator's label of one sample.

    Attributes
    ----------
    label : str
        The class.
    who : str or None
        The annotator, if the export tells.
    when : str
        The time in a notation that sorts as times do. Empty if the export does not tell.
    """

    label: str
    who: str | None = None
    when: str = ""


@dataclass
class Sample:
    """What was annotated, and how."""

    fields: Row
    votes: list[Vote] = field(default_factory=list)


@dataclass
class Parsed:
    """The samples of an export.

    Attributes
    ----------
    kind : str
        The tool and its format.
    label : str
        The name for the label column.
    samples : dict
        Each sample by what tells it from the others.
    ignored : tuple of str
        Columns that are ids, times or the like.
    left_out : Counter
        How many annotations do not count, by reason.
    """

    kind: str
    label: str
    samples: dict[Hashable, Sample] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    left_out: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def sample(self, key: object, fields: Row) -> Sample:
        """Return the sample with this key. The first one's fields are kept."""
        known = key if isinstance(key, Hashable) else _identity(key)
        return self.samples.setdefault(known, Sample(fields))


Parser = Callable[[Sequence[Row], Path], Parsed]


def parser_of(rows: Sequence[Row]) -> Parser | None:
    """Tell the format by the first rows. None: this is a plain table."""
    if not rows:
        return None
    if all(_is_task(row) for row in rows):
        return label_studio
    if all(set(LABEL_STUDIO_KEYS) <= set(row) for row in rows):
        return label_studio_rows
    if all("_input_hash" in row and ("answer" in row or "_task_hash" in row) for row in rows):
        return prodigy
    if all("source" in row or "source-ref" in row for row in rows) and any(
        isinstance(value, dict) and key.endswith("-metadata")
        for row in rows
        for key, value in row.items()
    ):
        return ground_truth
    if all(_is_doccano(row) for row in rows) and any(_doccano_labels(row) for row in rows):
        return doccano
    return None


# What tools write ------------------------------------------------------------------------------


def _objects(value: object, what: str, path: Path) -> list[Row]:
    """Return a list of objects as it is, and none where there is nothing."""
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise _not_as_written(what, "a list of objects", value, path)
    return value


def _object(value: object, what: str, path: Path) -> Row:
    """Return an object as it is, and an empty one where there is nothing."""
    if value is not None and not isinstance(value, dict):
        raise _not_as_written(what, "an object", value, path)
    return value or {}


def _items(value: object, what: str, path: Path) -> list[Any]:
    """Return a list as it is, and an empty one where there is nothing."""
    if value is not None and not isinstance(value, list):
        raise _not_as_written(what, "a list", value, path)
    return value or []


def _not_as_written(what: str, kind: str, value: object, path: Path) -> InputError:
    received = Words(f"{cut(what, 60)} of type {type(value).__name__} in place of {kind}")
    return invalid(str(path), "be as an annotation tool exports it", received, "export it again")


# Refusals --------------------------------------------------------------------------------------


def _several(path: Path, labels: Iterable[object]) -> InputError:
    shown = cut(", ".join(map(str, labels)), 100)
    received = Words(f"several labels in one annotation ({shown}): multi-label")
    remedy = "keep one label a sample, or write a table with yes and no for each label"
    return invalid(str(path), "be a classification with one class a sample", received, remedy)


def _regions(path: Path) -> InputError:
    received = Words("spans or boxes: parts of samples have labels")
    remedy = "export labels of whole samples, or write each part as a sample of its own"
    return invalid(str(path), "be a classification with one class a sample", received, remedy)


def _questions(path: Path, names: Iterable[str]) -> InputError:
    received = Words(f"several questions ({cut(', '.join(names), 100)})")
    remedy = "export one of them, or write a table with one label column"
    return invalid(str(path), "be a classification with one label a sample", received, remedy)


def _no_choices(path: Path) -> InputError:
    received = Words("annotations without a choice among classes")
    return invalid(str(path), "be a classification", received, "export a project with choices")


def _one(labels: Sequence[object], path: Path) -> str | None:
    """Return the only label as text, or None if there is none."""
    if len(labels) > 1:
        raise _several(path, labels)
    return _text(labels[0]) if labels else None


def _text(label: object) -> str:
    return label if isinstance(label, str) else json.dumps(label)


def _identity(fields: object) -> str:
    return json.dumps(fields, sort_keys=True, default=str)


# Label Studio ----------------------------------------------------------------------------------


def _is_task(row: Row) -> bool:
    annotations = row.get("annotations", row.get("completions"))
    return isinstance(row.get("data"), dict) and isinstance(annotations, list)


def label_studio(rows: Sequence[Row], path: Path) -> Parsed:
    """Read tasks with their annotations."""
    parsed = Parsed("Label Studio JSON", "label")
    names: dict[str, None] = {}
    others = False
    for place, task in enumerate(rows):
        identity = {"id": task["id"]} if "id" in task and "id" not in task["data"] else {}
        sample = parsed.sample(task.get("id", f"place {place}"), {**identity, **task["data"]})
        annotations = task.get("annotations", task.get("completions"))
        for annotation in _objects(annotations, "annotations", path):
            if annotation.get("was_cancelled") or annotation.get("skipped"):
                parsed.left_out["cancelled or skipped"] += 1
                continue
            results = _objects(annotation.get("result"), "result", path)
            values = [_object(r.get("value"), "value", path) for r in results]
            is_choice = [r.get("type", "choices") == "choices" for r in results]
            choices = list(compress(results, is_choice))
            if any(set(REGIONS) & set(value) for value in values):
                raise _regions(path)
            names |= dict.fromkeys(str(r.get("from_name", "label")) for r in choices)
            if len(names) > 1:
                raise _questions(path, names)
            of_choices = compress(values, is_choice)
            chosen = (_items(value.get("choices"), "choices", path) for value in of_choices)
            label = _one([one for some in chosen for one in some], path)
            others = others or bool(results and not choices)
            if label is None:
                parsed.left_out["without a choice"] += 1
                continue
            when = str(annotation.get("created_at") or "")
            sample.votes.append(Vote(label, _who(annotation.get("completed_by")), when))
    if others and not names:
        raise _no_choices(path)
    taken = {name for sample in parsed.samples.values() for name in sample.fields}
    parsed.label = _free(next(iter(names), "label"), taken)
    parsed.ignored = ("id",) if any("id" in row for row in rows) else ()
    return parsed


def _who(annotator: object) -> str | None:
    if isinstance(annotator, dict):  # a user with an e-mail address and a name
        annotator = annotator.get("email") or annotator.get("id")
    return None if annotator is None else str(annotator)


def _free(name: str, taken: Iterable[str]) -> str:
    while name in taken:
        name = f"{name}_label" if name != "label" else "annotated_label"
    return name


def label_studio_rows(rows: Sequence[Row], path: Path) -> Parsed:
    """Read JSON-MIN, or the rows of a CSV export: an annotation a row."""
    name = choice_column(rows, path)
    parsed = Parsed("Label Studio rows", name)
    parsed.notes.append(f"the label is the column {cut(name, 60)}")
    for row in rows:
        fields = {k: v for k, v in row.items() if k not in ABOUT_ANNOTATIONS and k != name}
        inputs = {k: v for k, v in fields.items() if k != "id"}
        key = row.get("id") if row.get("id") is not None else _identity(inputs)
        sample = parsed.sample(key, fields)
        if row.get("was_cancelled") in (True, "true", "True"):
            parsed.left_out["cancelled or skipped"] += 1
            continue
        label = _choice(row.get(name), path)
        if label is None:
            parsed.left_out["without a choice"] += 1
            continue
        when = str(row.get("created_at") or "")
        sample.votes.append(Vote(label, _who(row.get("annotator")), when))
    parsed.ignored = ("id",) if any("id" in row for row in rows) else ()
    return parsed


def choice_column(rows: Sequence[Row], path: Path) -> str:
    """Return the column that holds the choices of Label Studio's rows.

    Label Studio writes the columns of a task first, then the id, then what was annotated, then
    facts about the annotation; or it sorts the columns by their names.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    known = [name for name in names if name not in (*ABOUT_ANNOTATIONS, "id")]
    between = {name for row in rows for name in _between(list(row), "id", "annotator")}
    names = [name for name in known if name in between] or known
    if any(_is_regions(row.get(name)) for row in rows for name in names):
        raise _regions(path)
    names = [name for name in names if all(_may_be_choice(row.get(name)) for row in rows)]
    if not names:
        raise _no_choices(path)
    return min(names, key=lambda name: _unlikely(name, [row.get(name) for row in rows]))


def _unlikely(name: str, values: Sequence[object]) -> tuple[bool, bool, bool, int, bool, str]:
    """Return what sorts columns: the likeliest to hold choices among classes comes first."""
    several = any(_choices(_unpacked(value)) is not None for value in values)
    usual, data = name.lower() in USUAL_CHOICES, name.lower() in USUAL_DATA
    numbers = all(re.fullmatch(r"[-+.\d]+", str(value)) for value in values if value is not None)
    return not several, not usual, data, len(set(map(str, values))), numbers, name


def _between(names: list[str], first: str, last: str) -> list[str]:
    if first not in names or last not in names or names == sorted(names):
        return []
    return names[names.index(first) + 1 : names.index(last)]


def _unpacked(value: object) -> object:
    """Return what a cell of CSV holds as JSON."""
    if isinstance(value, str) and value[:1] in ("{", "["):
        with suppress(ValueError):
            return json.loads(value)
    return value


def _is_regions(value: object) -> bool:
    value = _unpacked(value)
    return isinstance(value, list) and any(
        isinstance(one, dict) and set(REGIONS) & set(one) for one in value
    )


def _may_be_choice(value: object) -> bool:
    value = _unpacked(value)
    return value is None or isinstance(value, str) or _choices(value) is not None


def _choices(value: object) -> list[object] | None:
    """Return the choices where they are more than one, or none."""
    if isinstance(value, dict) and isinstance(value.get("choices"), list):
        return list(value["choices"])
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return list(value)
    return None


def _choice(value: object, path: Path) -> str | None:
    value = _unpacked(value)
    several = _choices(value)
    return _one([value] if value else [], path) if several is None else _one(several, path)


# Prodigy ---------------------------------------------------------------------------------------


def prodigy(rows: Sequence[Row], path: Path) -> Parsed:
    """Read answers to choices, or to the question whether a label fits."""
    parsed = Parsed("Prodigy", "label")
    if not any("accept" in row or "label" in row for row in rows):
        raise _regions(path) if any(row.get("spans") for row in rows) else _no_choices(path)
    accepted: set[str] = set()
    for row in rows:
        plain = {
            key: value
            for key, value in row.items()
            if key not in PRODIGY_KEYS and not key.startswith("_") and _is_plain(value)
        }
        sample = parsed.sample(row["_input_hash"], plain)
        answer = row.get("answer", "accept")
        if answer != "accept":
            parsed.left_out["rejected" if answer == "reject" else "ignored"] += 1
            continue
        chosen = row.get("accept", row.get("label"))
        label = _one(chosen if isinstance(chosen, list) else [chosen] if chosen else [], path)
        if label is None:
            parsed.left_out["without a choice"] += 1
            continue
        accepted.add(label)
        who = row.get("_annotator_id") or row.get("_session_id")
        sample.votes.append(Vote(label, _who(who), _sortable(row.get("_timestamp"))))
    if parsed.left_out["rejected"] and len(accepted) == 1:
        label = cut(accepted.pop(), 60)
        parsed.notes.append(
            f"all accepted annotations say {label}; if a rejection means another class, write "
            "that class into the label"
        )
    return parsed


PRODIGY_KEYS = (
    *("label", "accept", "answer", "options", "meta", "spans", "tokens", "relations", "score"),
    *("priority", "config", "style", "view_id", "versions"),
)


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, (str, int, float, bool))


def _sortable(time: object) -> str:
    is_time = isinstance(time, (int, float)) and abs(time) < 1e15
    return f"{time:020.6f}" if is_time else str(time or "")


# doccano ---------------------------------------------------------------------------------------

DOCCANO_LABELS = ("label", "labels", "cats", "annotations", "entities")
DOCCANO_IDS = (
    "id",
    "doc_id",
    "Comments",
    "comments",
    "annotation_approver",
    "username",
    "is_confirmed",
)


def _doccano_key(row: Row) -> str | None:
    return next((key for key in DOCCANO_LABELS if key in row), None)


def _is_doccano(row: Row) -> bool:
    if not ({"text", "data", "filename"} & set(row)):
        return False
    return _doccano_key(row) is None or _doccano_labels(row) is not None


def _doccano_labels(row: Row) -> list[Any] | None:
    """Return the labels if they are texts, spans or records of annotators, else None."""
    key = _doccano_key(row)
    value = row.get(key) if key else None
    if isinstance(value, dict) and key == "cats":
        if not all(isinstance(share, (int, float)) for share in value.values()):
            return None
        return [name for name, share in value.items() if share >= 0.5]
    if value is None and key:
        return []
    if not isinstance(value, list) or not all(isinstance(v, (str, list, dict)) for v in value):
        return None
    lists = [one for one in value if isinstance(one, list)]
    if any(len(one) != 3 or not isinstance(one[2], str) for one in lists):
        return None  # lists of numbers, say
    if any("label" not in one for one in value if isinstance(one, dict)):
        return None
    return value


def _is_part(label: object) -> bool:
    """Whether a label is one of a part: [start, end, name] or the like."""
    return isinstance(label, list) or (isinstance(label, dict) and bool(set(REGIONS) & set(label)))


def doccano(rows: Sequence[Row], path: Path) -> Parsed:
    """Read texts or files with their lists of labels."""
    parsed = Parsed("doccano", "label")
    for row in rows:
        labels = _doccano_labels(row) or []
        if any(_is_part(one) for one in labels):
            raise _regions(path)
        fields = {k: v for k, v in row.items() if k not in DOCCANO_LABELS and k != "Comments"}
        known = row.get("id", row.get("doc_id"))
        text = next(row[name] for name in ("text", "data", "filename") if name in row)
        key = _identity({"text": text}) if known is None else known
        sample = parsed.sample(key, fields)
        votes = [one for one in labels if isinstance(one, dict)]
        by_user = Counter(_who(one.get("user")) for one in votes)
        if any(count > 1 for count in by_user.values()):
            raise _several(path, [one["label"] for one in votes])
        for one in votes:
            when = str(one.get("created_at") or "")
            sample.votes.append(Vote(_text(one["label"]), _who(one.get("user")), when))
        label = _one([one for one in labels if isinstance(one, str)], path)
        if label is not None:
            who = row.get("annotation_approver") or row.get("username")
            sample.votes.append(Vote(label, _who(who)))
    present = {name for sample in parsed.samples.values() for name in sample.fields}
    parsed.ignored = tuple(name for name in DOCCANO_IDS if name in present)
    return parsed


# SageMaker Ground Truth ------------------------------------------------------------------------


def ground_truth(rows: Sequence[Row], path: Path) -> Parsed:
    """Read an output manifest."""
    attribute = _attribute(rows, path)
    about = f"{attribute}-metadata"
    parsed = Parsed("SageMaker Ground Truth", attribute, ignored=(f"{attribute}-confidence",))
    by_machine = 0
    for row in rows:
        metadata = _object(row.get(about), about, path)
        fields = {
            key: value
            for key, value in row.items()
            if key != attribute and not key.endswith("-metadata")
        }
        fields[f"{attribute}-confidence"] = metadata.get("confidence")
        sample = parsed.sample(row.get("source-ref", row.get("source")), fields)
        label = metadata.get("class-name")
        if "failure-reason" in metadata or label is None:
            parsed.left_out["failed"] += bool(metadata)
            continue
        by_machine += metadata.get("human-annotated") == "no"
        sample.votes.append(Vote(_text(label), None, str(metadata.get("creation-date") or "")))
    if by_machine:
        parsed.notes.append(f"a model, not a person, gave {by_machine} of the labels")
    return parsed


def _attribute(rows: Sequence[Row], path: Path) -> str:
    """Return the label attribute, which metadata with the name of a class accompany."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        for key, value in row.items():
            if key.endswith("-metadata") and isinstance(value, dict):
                found.setdefault(key.removesuffix("-metadata"), []).append(value)
    classes = [name for name, all_of in found.items() if any("class-name" in one for one in all_of)]
    if len(classes) > 1:
        raise _questions(path, classes)
    if classes:
        return classes[0]
    for name, all_of in found.items():
        if any("multilabel" in str(one.get("type")).replace("-", "") for one in all_of):
            raise _several(path, [f"attribute {name}"])
    raise _regions(path)
