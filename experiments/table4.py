"""Table 4: test accuracy on MNIST."""

from __future__ import annotations

from experiments.common import Protocol, desk
from experiments.comparison import METHOD_ARMS, Arm, Comparison

# A search is not tied to Co-teaching: this arm searches R(t) for the strongest of the other
# methods. What ships for searches to begin with was seen with Co-teaching.
JOCOR = Arm("jocor-searched", "JoCoR, searched R(t)", "jocor", space="basis")
# The clean validation labels train, too: beside the paper's methods, not one of them.
AUTO = Arm("auto", "keeprate train, by default", "auto")

TABLE = Comparison(
    "table4",
    "Table 4: MNIST",
    (*METHOD_ARMS, JOCOR, AUTO),
    (
        desk("mnist", "mlp", epochs=50),
        Protocol(
            "paper", "mnist", "mlp", epochs=200, seeds=5, budget="100trials", sampler="paper:20"
        ),
    ),
)
