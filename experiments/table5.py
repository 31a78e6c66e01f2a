"""Table 5: test accuracy on CIFAR-10, Model 1."""

from __future__ import annotations

from experiments.common import Protocol, desk
from experiments.comparison import METHOD_ARMS, Comparison

TABLE = Comparison(
    "table5",
    "Table 5: CIFAR-10",
    METHOD_ARMS,
    (
        desk("cifar-10", "model1", epochs=20, limit=8_000),
        # 5 iterations of 10 samples, half of what the other data sets have (App. A.2).
        Protocol(
            "paper", "cifar-10", "model1", epochs=200, seeds=5, trials=50, sampler="paper:500"
        ),
    ),
)
