"""Table 4: test accuracy on MNIST."""

from __future__ import annotations

from experiments.common import Protocol, desk
from experiments.comparison import METHOD_ARMS, Arm, Comparison

# A search is not tied to Co-teaching: this arm searches R(t) for the strongest of the other
# methods. The presets were made for Co-teaching, so the search also tries JoCoR's own R(t), which
# takes the noise rate.
JOCOR = Arm(
    "jocor-searched", "JoCoR, searched R(t)", "jocor", space="basis", tries_own_schedule=True
)

TABLE = Comparison(
    "table4",
    "Table 4: MNIST",
    (*METHOD_ARMS, JOCOR),
    (
        desk("mnist", "mlp", epochs=50),
        Protocol("paper", "mnist", "mlp", epochs=200, seeds=5, trials=100, sampler="paper:20"),
    ),
)
