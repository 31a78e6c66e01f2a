"""Table 7 (App. B.2): search spaces compared, on MNIST.

Both protocols search the basis space as Table 4 does; with the same --runs both tables share these
runs.
"""

from __future__ import annotations

from experiments import table4
from experiments.common import desk
from experiments.comparison import SPACE_ARMS, Comparison

TABLE = Comparison(
    "table7",
    "Table 7: search spaces, MNIST",
    SPACE_ARMS,
    (
        desk("mnist", "mlp", epochs=50),
        table4.TABLE.protocol("paper"),
    ),
    paper_file="table7_search_space_ablation.csv",
)
