"""Table 6: test accuracy on CIFAR-100.

The desk protocol has Model 1 in place of Model 2. Model 2 takes 170 times its arithmetic: days on
two cores.
"""

from __future__ import annotations

from dataclasses import replace

from experiments import table5
from experiments.common import Protocol
from experiments.comparison import METHOD_ARMS, Comparison

TABLE = Comparison(
    "table6",
    "Table 6: CIFAR-100",
    METHOD_ARMS,
    (
        replace(table5.TABLE.protocol("desk"), data="cifar-100"),
        Protocol(
            "paper",
            "cifar-100",
            "model2",
            epochs=200,
            seeds=5,
            budget="100trials",
            sampler="paper:80",
        ),
    ),
    desk_note=table5.TABLE.desk_note,
)
