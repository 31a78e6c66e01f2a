"""A realistic run record, for tests of records and of the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from keeprate.data import Split
from keeprate.engine import Curves
from keeprate.noise import NoiseEstimate
from keeprate.records import (
    ByClass,
    Cost,
    DataSummary,
    LabelQuality,
    RestartSummary,
    Result,
    RunRecord,
    TrialCounts,
    TrialSummary,
    most_suspect,
)
from keeprate.schedules import Schedule

EPOCHS = 40


def make_result(name: str, label: str, keep_rate: Any, forgets: float, seed: int) -> Result:
    """Curves that rise, then fall by `forgets` as wrong labels are memorised."""
    t = np.arange(EPOCHS) / EPOCHS
    noise = np.random.default_rng(seed).normal(0, 0.005, (2, EPOCHS))
    test = 0.97 - 0.5 * np.exp(-12 * t) - forgets * t**1.5 + noise[0]
    validation = (test - 0.01 + noise[1]).tolist()
    curves = Curves(
        train_loss=(0.2 + 1.5 * np.exp(-3 * t)).tolist(),
        train_accuracy=(0.3 + 0.3 * t).tolist(),
        validation_accuracy=validation,
        validation_score=validation,
        test_accuracy=test.tolist(),
        label_precision=(0.99 - 0.4 * np.exp(-10 * t) - 0.8 * forgets * t).tolist(),
        seconds=3.2,
    )
    return Result(
        name=name,
        label=label,
        method="co-teaching" if name == "searched" else name,
        schedule=Schedule(keep_rate, "basis" if name == "searched" else name),
        finalist=None,
        curves=curves,
        restarts=(RestartSummary(0, validation[-1], 3.2),),
    )


def make_trials(n_trials: int = 40) -> tuple[TrialSummary, ...]:
    """Trials of which trial 3 failed, trial 4 was short, and one in seven was pruned."""
    rng, t = np.random.default_rng(0), np.arange(EPOCHS)
    trials = []
    for number in range(n_trials):
        a, b, rise = rng.random(3).tolist()
        table = np.clip((1 + b * t) ** -a + 0.4 * rise * t / EPOCHS, 0, 1)
        value = float(0.95 - 0.5 * abs(table.mean() - 0.55) + rng.normal(0, 0.01))
        state = {3: "failed", 4: "short"}.get(number, "complete")
        state = "pruned" if number % 7 == 5 else state
        trials.append(
            TrialSummary(
                number=number,
                parameters={"a": a, "b": b},
                keep_rate=tuple(table.tolist()),
                state=state,
                value=value if state == "complete" else None,
                reached=None if state == "failed" else value,
                confirms=None,
                validation_score=(value,) * (EPOCHS // (1 + (state == "pruned"))),
                seconds=2.5,
            )
        )
    return tuple(trials)


def make_record() -> RunRecord:
    """A search on digits with two baselines, finished but for noise and suspects."""
    t = np.arange(EPOCHS)
    searched = np.clip((1 + 0.3 * t) ** -0.35 + 0.1 * t / EPOCHS, 0, 1)
    by_rate = 1 - 0.45 * np.minimum(t / 2, 1)
    return RunRecord(
        kind="search",
        command="keeprate search digits --noise pairflip:0.45 --budget 40trials --epochs 40",
        config={"model": "mlp", "method": "co-teaching", "seed": 0},
        versions={"keeprate": "0.1.0", "torch": "2.13.0"},
        data=DataSummary(
            name="digits",
            n_train=1077,
            n_validation=360,
            n_test=360,
            class_names=tuple("0123456789"),
            input_shape=(1, 8, 8),
            noise="pairflip:0.45",
            noise_rate=0.45,
            validation_labels="clean",
            test_labels="clean",
            validation_from="360 samples of the training split",
            criterion="accuracy",
        ),
        trial_counts=TrialCounts(40, 0),
        trials=make_trials(),
        results=(
            make_result("searched", "Co-teaching, searched R(t)", searched, 0.01, 3),
            make_result("co-teaching", "Co-teaching, its own R(t)", by_rate, 0.1, 2),
            make_result("standard", "Standard", np.ones(EPOCHS), 0.4, 1),
        ),
        cost=Cost(
            candidate_epochs=1600, full_trainings=40.0, search_seconds=100.0, final_seconds=9.6
        ),
        finished=True,
        checksums={"schedule.csv": "0" * 64},
        study="searched-0a1b2c3d",
    )


def make_estimate(n_classes: int) -> NoiseEstimate:
    """A noise rate of 40 %, spread evenly over the other classes."""
    matrix = np.full((n_classes, n_classes), 0.4 / max(1, n_classes - 1))
    np.fill_diagonal(matrix, 0.6)
    deviations = np.full((n_classes, n_classes), 0.023)
    return NoiseEstimate(0.4, 0.01, matrix, deviations, 0.35, 0.5)


def make_by_class(n_classes: int) -> ByClass:
    """The more samples of a class, the more of them are right."""
    samples = tuple(range(10, 10 + n_classes))
    return ByClass(True, samples, samples, tuple(n * n // 100 for n in samples), 0)


def make_quality(n_classes: int) -> LabelQuality:
    """Judge 90 labels at random."""
    rng = np.random.default_rng(0)
    given, predicted = rng.integers(0, n_classes, (2, 90))
    scores = np.where(given == predicted, 1.0, 0.5) * rng.random(90)
    suggested = np.where((given != predicted) & (scores < 1 / 3), predicted, -1)
    return LabelQuality(rng.permutation(1000)[:90], given, predicted, scores, suggested)


def make_finished_record(names: Sequence[str] = tuple("0123456789")) -> RunRecord:
    """The record of a finished run: with the noise estimate and the suspects of `make_quality`."""
    record, quality = make_record(), make_quality(len(names))
    pixels = np.random.default_rng(1).integers(0, 256, (90, 1, 8, 8), dtype=np.uint8)
    split = Split(
        torch.from_numpy(pixels), torch.from_numpy(quality.given), rows=torch.tensor(quality.rows)
    )
    return replace(
        record,
        data=replace(record.data, class_names=tuple(names)),
        noise_estimate=make_estimate(len(names)),
        by_class=make_by_class(len(names)),
        labels_judged=record.data.n_train,
        label_issues=int(quality.is_issue.sum()),
        suspects=most_suspect([split], quality, names),
        cautions=("Training took only 40 optimisation steps.",),
    )
