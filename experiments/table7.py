"""Table 7 (App. B.2): search spaces compared, on MNIST.

The desk protocol searches without given schedules, which every space comes near to, on a part of
the samples. The paper protocol's search of the basis space is Table 4's: with the same --runs its
finished runs are taken over.
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
    paper="table7_search_space_ablation.csv",
)
