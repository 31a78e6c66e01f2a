"""Table 4: test accuracy on MNIST."""

from __future__ import annotations

from experiments.common import Protocol, desk
from experiments.comparison import METHOD_ARMS, Comparison

TABLE = Comparison(
    "table4",
    "Table 4: MNIST",
    METHOD_ARMS,
    (
        desk("mnist", "mlp", epochs=50),
        Protocol("paper", "mnist", "mlp", epochs=200, seeds=5, trials=100, sampler="paper:20"),
    ),
)
