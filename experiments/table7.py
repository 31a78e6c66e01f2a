"""Table 7 (App. B.2): search spaces compared, on MNIST.

The search of the basis space is Table 4's: with the same --runs its finished runs are taken over.
"""

from __future__ import annotations

from experiments import table4
from experiments.comparison import SPACE_ARMS, Comparison

TABLE = Comparison(
    "table7",
    "Table 7: search spaces, MNIST",
    SPACE_ARMS,
    table4.TABLE.protocols,
    paper="table7_search_space_ablation.csv",
)
