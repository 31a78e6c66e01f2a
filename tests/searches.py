"""Searches on digits that several test files share."""

from __future__ import annotations

import json

from keeprate.engine.config import TrainingConfig

CONFIG = TrainingConfig(epochs=3, batch_size=64, learning_rate=3e-3)
ALONE = {"baselines": False, "restarts": 1}
SIXTEEN = {"trials": 16, "fidelity": 0.5, "baselines": False}


def essence(record):
    """All of a record but times and names of places."""
    names = ("kind", "config", "data", "trials", "finalists", "results")
    kept = {name: record[name] for name in names if name in record}  # finalists: of a search
    text = json.dumps(kept, sort_keys=True)
    return json.loads(text, object_hook=lambda d: {k: v for k, v in d.items() if k != "seconds"})
