"""The record of a run folder: a new one, or that of an interrupted run that goes on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

from keeprate.checksums import RECORD_FILE
from keeprate.data import Data, add_to_digest
from keeprate.engine import Setup, TrainingConfig
from keeprate.errors import InputError
from keeprate.records.record import (
    DataSummary,
    RunRecord,
    load_record,
    save_record,
    versions,
)

MACHINE = ("training.device", "training.precision")  # of a configuration
FINGERPRINT = "data_fingerprint"
DERIVED = {
    "method_fingerprint": "method: its code is not the code of before",
    "warm_start": "warm_start: other experience or other schedules than before",
}
"""Parts of a configuration that say little to a reader, and what to say in their place."""
MEASURED = ("data.noise_rate",)  # follows from labels
MOST_LINES = 4  # of what summaries know of changed data
PARTS = ("inputs", "labels", "true_labels", "weights")  # of a split


def summarise(data: Data, criterion: str) -> DataSummary:
    """Summarise a data set for the record; `criterion` says what validation scores are."""
    test = data.test
    return DataSummary(
        name=data.name,
        n_train=len(data.train),
        n_validation=len(data.validation),
        n_test=0 if test is None else len(test),
        class_names=data.class_names,
        input_shape=data.input_shape,
        noise=data.noise,
        noise_rate=data.noise_rate,
        validation_labels=data.validation.label_status,
        test_labels="unknown" if test is None else test.label_status,
        validation_from=data.validation_from,
        criterion=criterion,
        class_counts=data.class_counts,
        validation_counts=tuple(data.validation.labels.bincount(minlength=data.n_classes).tolist()),
        inputs=data.input_kinds,
        left_out=dict(data.left_out),
        notes=data.notes,
        source=data.source,
    )


def part_fingerprints(data: Data) -> dict[str, str]:
    """SHA-256 of each part of a data set, in hexadecimal, by its name ("training labels")."""
    splits = {"training": data.train, "validation": data.validation, "test": data.test}
    found = {}
    for (split, samples), name in product(splits.items(), PARTS):
        tensor = getattr(samples, name, None)
        if tensor is not None:
            digest = hashlib.sha256()
            add_to_digest(digest, tensor)
            found[f"{split} {name.replace('_', ' ')}"] = digest.hexdigest()
    return found


def open_record(
    setup: Setup,
    kind: str,
    *,
    command: str,
    options: Mapping[str, Any],
    goes_on: bool = False,
) -> RunRecord:
    """Begin a record, or take up that of the interrupted run in the folder.

    Parameters
    ----------
    setup : Setup
    kind : {"search", "train"}
    command : str
    options : mapping of str to plain values
        The options that only this kind of run has.
    goes_on : bool
        Whether a finished run is to go on: then its machine must be like this one.

    Raises
    ------
    InputError
        If the folder holds a run with another configuration; the message names the differences.
    """
    # What "auto" stands for here: a run must not go on with other arithmetic than it began with.
    precision = setup.config.resolve_precision(setup.config.resolve_device())
    resolved = {"device": setup.device_type, "precision": precision}
    config = {
        **options,
        "model": setup.model_name,
        "seed": setup.seed,
        "training": asdict(setup.config) | resolved,
        FINGERPRINT: part_fingerprints(setup.data),
    }
    if setup.data.normalise != "auto":  # the tensors of the data do not tell
        config["normalise"] = setup.data.normalise
    if setup.metric is not None:
        config["metric"] = {"name": setup.metric.name, "held out": setup.metric.fingerprint()}
    if (scorer := setup.scorer) is not None:
        config["metric"] = {
            "name": scorer.name,
            "scorer": scorer.identity,
            "positive": scorer.positive,
        }
    summary = summarise(setup.data, setup.criterion)
    new = RunRecord(kind, command, config, versions(), summary)
    folder = setup.folder
    if folder is None:
        return new
    if not (folder / RECORD_FILE).exists():
        _refuse_remains(folder)
        save_record(folder, new)
        return new
    old = load_record(folder)
    if isinstance(old.config.get(FINGERPRINT), str):  # by an earlier version, of all parts at once
        new.config[FINGERPRINT] = setup.data.fingerprint()
    if changed := _changes(old, new, is_at_rest=old.finished and not goes_on):
        raise InputError(
            f"{folder} holds a run with another configuration ({'; '.join(changed)}); "
            "choose another --out, or repeat the first command to continue that run."
        )
    return old


def _refuse_remains(folder: Path) -> None:
    remains = [path.name for path in (*folder.glob("study.db"), *folder.glob("checkpoint-*"))]
    if remains:
        raise InputError(
            f"{folder} holds {', '.join(sorted(remains))} without the {RECORD_FILE} of their run; "
            "delete them or choose another --out."
        )


def _changes(old: RunRecord, new: RunRecord, *, is_at_rest: bool) -> list[str]:
    """What keeps `new` from going on with `old`, in words."""
    before, now = (
        {"kind": record.kind, **_with_defaults(record.config), "data": _given(record)}
        for record in (old, new)
    )
    changed = differences(before, now)
    if is_at_rest:  # nothing goes on: any machine may read it
        changed = [line for line in changed if not line.startswith(MACHINE)]
    plain, measured, derived, parts = [], [], [], []
    for line in changed:
        name = line.partition(":")[0]
        if name.startswith(FINGERPRINT):
            parts.append(name.removeprefix(FINGERPRINT).removeprefix("."))
        elif name in MEASURED:
            measured.append(line)
        elif name in DERIVED:
            derived.append(DERIVED[name])
        else:
            plain.append(line)
    if plain or (measured and not parts):
        return plain + measured
    return ([_changed_data(old.data, new.data, parts)] if parts else []) + derived


def _with_defaults(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration in which training options that came later have their defaults."""
    training = config.get("training")
    if not isinstance(training, Mapping):
        return dict(config)
    return {**config, "training": asdict(TrainingConfig()) | dict(training)}


def _changed_data(old: DataSummary, new: DataSummary, parts: Iterable[str]) -> str:
    """Say which parts of the data are others, and what the summaries know of it."""
    named = ", ".join(part for part in parts if part) or "samples or labels"
    before, now = (
        {
            "inputs": one.inputs,
            "left_out": one.left_out,
            "samples of class": dict(zip(one.class_names, one.class_counts, strict=False)),
        }
        for one in (old, new)
    )
    lines = differences(before, now) if old.class_counts else []  # earlier versions tell nothing
    known = "; ".join(lines[:MOST_LINES]) + (" ..." if len(lines) > MOST_LINES else "")
    return f"data: other {named} than before" + (f", {known}" if known else "")


def _given(record: RunRecord) -> dict[str, Any]:
    """What a record says of its data, but for words about them: the fingerprint sees the data."""
    told = ("class_counts", "validation_counts", "inputs", "left_out", "notes", "source")
    return {name: value for name, value in asdict(record.data).items() if name not in told}


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Name the differences between two configurations.

    >>> differences({"epochs": 40, "seed": 0}, {"epochs": 20, "seed": 0})
    ['epochs: 40 before, 20 now']
    """
    lines = []
    for name in sorted(before.keys() | now.keys()):
        old, new = before.get(name), now.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            lines += [f"{name}.{line}" for line in differences(old, new)]
        elif _plain(old) != _plain(new):
            lines.append(f"{name}: {_short(old)} before, {_short(new)} now")
    return lines


def _plain(value: Any) -> Any:
    """Tuples as lists, as JSON gives them back."""
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
