"""Searches on digits that several test files share."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import pytest

import keeprate
from keeprate import SearchConfig, TrainingConfig
from keeprate.records.record import to_json
from keeprate.runs import outputs

CONFIG = TrainingConfig(epochs=3, batch_size=64, learning_rate=3e-3)
ALONE = {"baselines": False, "restarts": 1}
SIXTEEN = {"trials": 16, "fidelity": 0.5, "baselines": False}
RESEARCH = {field.name for field in fields(SearchConfig) if field.init}

DIES = """
import json, os, signal, sys
import optuna, keeprate

folder, where, at = sys.argv[1], sys.argv[2], float(sys.argv[3])
calls = 0

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def progress(stage, done, total, best):
    if where == stage and done >= at:
        die()

def counted(function):
    def call(*arguments, **options):
        global calls
        calls += 1
        if calls > at:
            die()
        return function(*arguments, **options)
    return call

if where in ("ask", "tell"):
    setattr(optuna.Study, where, counted(getattr(optuna.Study, where)))
"""
"""What a script begins with that kills itself: in a folder, at a place, when it gets there."""


def search(data: keeprate.Data, *, trials: int | None = None, **options: Any) -> keeprate.Run:
    """`keeprate.search` of so many trials, with the words of `SearchConfig` among the options."""
    research = {name: options.pop(name) for name in RESEARCH & options.keys()}
    if trials is not None:
        options["budget"] = f"{trials}trials"
    return keeprate.search(data, search_config=SearchConfig(**research), **options)


def draw_no_page(patch: pytest.MonkeyPatch) -> None:
    """Runs write no pictures and no page: for what looks at something else."""
    patch.setattr(outputs, "_write_report", lambda folder, record: None)


def essence(record: keeprate.records.RunRecord) -> dict[str, Any]:
    """All of a record but times and names of places, as plain values."""
    kept = ("kind", "config", "data", "trials", "finalists", "results")
    text = json.dumps({name: to_json(record)[name] for name in kept}, sort_keys=True)
    plain = json.loads(text, object_hook=lambda d: {k: v for k, v in d.items() if k != "seconds"})
    assert isinstance(plain, dict)
    return plain
