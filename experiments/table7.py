"""Table 7 (App. B.2): search spaces compared, on MNIST.

The desk protocol has a part of the samples and no presets: every space holds schedules near them.
The paper protocol searches the basis space as Table 4 does; with the same --runs both tables share
these runs.
"""

from __future__ import annotations

from dataclasses import replace

from experiments import table4
from experiments.common import desk
from experiments.comparison import SPACE_ARMS, Comparison

TABLE = Comparison(
    "table7",
    "Table 7: search spaces, MNIST",
    SPACE_ARMS,
    (
        replace(desk("mnist", "mlp", epochs=50, limit=10_000), trials=20, warm_start=False),
        table4.TABLE.protocol("paper"),
    ),
    paper_file="table7_search_space_ablation.csv",
)
