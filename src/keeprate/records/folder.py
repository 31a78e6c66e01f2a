"""The record of a run folder: begun, or taken up again if nothing has changed."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from keeprate.engine import (
    Setup,
)
from keeprate.errors import InputError
from keeprate.records.record import RECORD_FILE, load_record, new_record, save_record

MACHINE = ("training.device", "training.precision")  # parts of a configuration


def open_record(
    setup: Setup, kind: str, *, command: str, options: dict[str, Any]
) -> dict[str, Any]:
    """A new record, or that of the interrupted run in the folder if the configuration is equal.

    Raises
    ------
    InputError
        If the folder holds a run with another configuration; the differences are named.
    """
    device = setup.config.resolve_device()
    # What "auto" stands for here: a run must not go on with other arithmetic than it began with.
    resolved = {"device": device.type, "precision": setup.config.resolve_precision(device)}
    config = options | {
        "model": setup.model_name,
        "seed": setup.seed,
        "training": asdict(setup.config) | resolved,
        "data_fingerprint": setup.data.fingerprint(),
    }
    record = new_record(kind, command=command, config=config, data=setup.data.describe())
    folder = setup.folder
    if folder is None:
        return record
    if (folder / RECORD_FILE).exists():
        found = load_record(folder)
        data = record["data"] | found["data"]  # earlier versions said less of the same data
        before = {"kind": found["kind"], **found["config"], "data": data}
        changed = differences(before, {"kind": kind, **config, "data": record["data"]})
        if found["finished"]:  # nothing goes on: any machine may read it
            changed = [line for line in changed if not line.startswith(MACHINE)]
        named = [line for line in changed if not line.startswith("data_fingerprint")]
        changed = named or changed  # a hash says little where something else says it
        if changed:
            raise InputError(
                f"{folder} holds a run with another configuration ({'; '.join(changed)}); "
                "choose another --out, or repeat the first command to continue that run."
            )
        return found
    left = [path.name for path in (*folder.glob("study.db"), *folder.glob("checkpoint-*"))]
    if left:
        raise InputError(
            f"{folder} holds {', '.join(sorted(left))} without the {RECORD_FILE} that says of "
            "which run; delete them or choose another --out."
        )
    save_record(folder, record)
    return record


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Name what two configurations differ in.

    >>> differences({"epochs": 40, "seed": 0}, {"epochs": 20, "seed": 0})
    ['epochs: 40 before, 20 now']
    """
    found = []
    for name in sorted(before.keys() | now.keys()):
        old, new = before.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            found += [f"{name}.{line}" for line in differences(old, new)]
        elif old != new:
            found.append(f"{name}: {_short(old)} before, {_short(new)} now")
    return found


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
