"""What a run loads when it first needs it, loaded once: the fork server imports this.

A run is much shorter then, and a kill at a random moment hits its work, not an import.
"""

from __future__ import annotations

from importlib import import_module
from io import BytesIO

import optuna
from matplotlib.figure import Figure

from tests.chaos.kinds import data

LATE = (
    "alembic.migration",
    "keeprate.report.page",
    "pyarrow.csv",
    "pydantic",
    "rich.table",
    "scipy.optimize",
    "torch._dynamo",
    "typer.main",
)

for name in LATE:
    import_module(name)
data()
# Optuna maps its tables and reads its migrations; Matplotlib reads its fonts.
optuna.logging.set_verbosity(optuna.logging.WARNING)
optuna.create_study(storage="sqlite:///:memory:")
for kind in ("png", "svg"):
    Figure().savefig(BytesIO(), format=kind)
