"""Table 4: test accuracy on MNIST."""

from __future__ import annotations

from experiments.common import Protocol, desk
from experiments.comparison import METHOD_ARMS, Arm, Comparison

# Searching is not tied to Co-teaching: what it adds to the strongest of the other methods.
JOCOR = Arm("jocor-searched", "JoCoR, searched R(t)", "jocor", space="basis")

TABLE = Comparison(
    "table4",
    "Table 4: MNIST",
    (*METHOD_ARMS, JOCOR),
    (
        desk("mnist", "mlp", epochs=50),
        Protocol("paper", "mnist", "mlp", epochs=200, seeds=5, trials=100, sampler="paper:20"),
    ),
)
