"""Table 4: test accuracy on MNIST."""

from __future__ import annotations

from experiments.common import Protocol, desk
from experiments.comparison import METHOD_ARMS, Arm, Comparison

# Searching is not tied to Co-teaching: what it adds to the strongest of the other methods. Its own
# R(t), which takes the noise rate, is tried too: the given schedules were made for Co-teaching.
JOCOR = Arm("jocor-searched", "JoCoR, searched R(t)", "jocor", space="basis", own_too=True)

TABLE = Comparison(
    "table4",
    "Table 4: MNIST",
    (*METHOD_ARMS, JOCOR),
    (
        desk("mnist", "mlp", epochs=50),
        Protocol("paper", "mnist", "mlp", epochs=200, seeds=5, trials=100, sampler="paper:20"),
    ),
)
