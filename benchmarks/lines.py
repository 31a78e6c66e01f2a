"""The lines of `benchmarks.real_noise`: what trains on a task, by name.

A new line is an entry of `LINES`: a function (task, seed) -> Outcome.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest.mock import patch

import keeprate
from benchmarks import rivals
from benchmarks.noisy_sets import Task
from benchmarks.rivals import Outcome
from keeprate import Run
from keeprate.engine import METHODS


@dataclass(frozen=True)
class Line:
    """One row of the tables.

    Attributes
    ----------
    run : callable
        (task, seed) -> Outcome.
    scenarios : tuple of str
        In which it makes sense.
    tables_only : bool
        Whether it needs columns of numbers.
    """

    run: Callable[[Task, int], Outcome]
    scenarios: tuple[str, ...] = ("noisy", "clean")
    tables_only: bool = False


def with_keeprate(
    task: Task, seed: int, *, begin: Callable[..., Run], model: str = "mlp", **options: Any
) -> Outcome:
    """A run of keeprate; `mlp` is D-256-C without dropout, `perceptron` the same with it."""
    if task.image_shape is not None:
        model = "model1"
    run = begin(task.data, model=model, baselines=False, seed=seed, **options)
    quality, noise = run.label_quality, run.record.noise_estimate
    if quality.rows.tolist() != list(range(len(task.labels))):
        raise ValueError("every training label is to be judged")
    return Outcome(
        run.classifier.probabilities(task.raw_test_inputs).numpy(),
        1 - quality.scores,
        quality.is_issue,
        quality.corrected,
        None if noise is None else noise.noise_rate,
        None
        if noise is None or noise.low is None or noise.high is None
        else (noise.low, noise.high),
    )


def without(task: Task, seed: int, **constants: Any) -> Outcome:
    """keeprate's default with other constants of `keeprate.runs.cross_fit`."""
    with patch.multiple("keeprate.runs.cross_fit", **constants):
        return with_keeprate(task, seed, begin=keeprate.train, model="perceptron")


DEFAULT = "keeprate"
"""The line that the others are compared with."""
LINES: dict[str, Line] = {
    "logistic regression": Line(rivals.logistic_regression),
    "gradient boosting": Line(rivals.gradient_boosting, tables_only=True),
    "MLP": Line(partial(rivals.perceptron, loss="cross entropy")),
    "MLP, label smoothing": Line(partial(rivals.perceptron, loss="label smoothing")),
    "MLP, GCE": Line(partial(rivals.perceptron, loss="GCE")),
    "MLP, ELR": Line(partial(rivals.perceptron, loss="ELR")),
    "clean alone, logistic regression": Line(rivals.clean_alone_logistic, ("clean",)),
    "clean alone, MLP": Line(rivals.clean_alone_perceptron, ("clean",)),
    "cleanlab CleanLearning": Line(rivals.clean_learning),
    "cleanlab Datalab, MLP": Line(partial(rivals.datalab, by="MLP")),
    "cleanlab Datalab, logistic regression": Line(
        partial(rivals.datalab, by="logistic regression")
    ),
    DEFAULT: Line(partial(with_keeprate, begin=keeprate.train, model="perceptron")),
    **{
        f"keeprate {method}": Line(
            partial(with_keeprate, begin=keeprate.train, method=method, schedule="auto")
        )
        for method in METHODS
    },
    "keeprate search, budget 6": Line(partial(with_keeprate, begin=keeprate.search, budget=6)),
    "keeprate search": Line(partial(with_keeprate, begin=keeprate.search)),
}
ABLATIONS: dict[str, Line] = {
    DEFAULT: LINES[DEFAULT],
    "every sample kept": Line(partial(without, LEVELS=(1.0,)), ("noisy",)),
    "labels refined once": Line(partial(without, ROUNDS=1), ("noisy",)),
    "labels not refined": Line(partial(without, ROUNDS=0), ("noisy",)),
    "all epochs in every stage": Line(partial(without, EARLIER=1.0), ("noisy",)),
    "no dropout": Line(partial(with_keeprate, begin=keeprate.train, model="mlp"), ("noisy",)),
}
"""The default, and the default without one of its parts."""
