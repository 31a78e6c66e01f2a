"""Which labels are wrong: keeprate against cleanlab (`python -m benchmarks.label_issues`).

20,000 MNIST samples (MLP, batch 128, Adam 0.001) with injected noise, and 10,000 CIFAR-10 samples
(Model 1) with the labels that people gave, those of CIFAR-10N. A tenth of the samples is held out,
with its noise, to validate; both judge the labels of the others. No label is known to be right;
true labels only measure the results.

keeprate: small-loss training of two networks with ``schedule="auto"``: 500 steps or more estimate
the noise rate, then 22 epochs with an R(t) by that rate, and 22 epochs with every sample kept.
cleanlab: out-of-sample probabilities of five folds, one network and 20 epochs each (about as much
time, see the seconds), or 5 epochs, in which a network memorises less. keeprate's
`find_label_issues` also judges cleanlab's probabilities.

The same command goes on after a kill. The results are in `results/label_issues.json`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score
from sklearn.model_selection import StratifiedKFold

import keeprate
from benchmarks.common import run_rows, with_noisy_validation
from experiments.common import Row
from experiments.jobs import Job
from experiments.rows import in_words, mean_std
from keeprate import Data, TrainingConfig
from keeprate.data import part
from keeprate.records import OTHERWISE
from keeprate.runs import FIRST_STEPS

HUMAN = {"CIFAR-10N worst": "worse_label", "CIFAR-10N aggregate": "aggre_label"}
"""Labels that people gave -> the column that holds them."""
NOISES = ("pairflip:0.45", "symmetric:0.5", "symmetric:0.2", "instance:0.4", *HUMAN)
SAMPLES, EPOCHS = 20_000, 22
HUMAN_SAMPLES, HUMAN_MODEL = 10_000, "model1"
PROTOCOL = {
    "data": "mnist",
    "samples": SAMPLES,
    "model": "mlp",
    "held out, with their noise": 0.1,
    "keeprate epochs": EPOCHS,
    "keeprate schedule": "auto",
    "cleanlab folds": 5,
    "cleanlab epochs": [20, 5],
    "CIFAR-10N": f"{HUMAN_SAMPLES} samples of CIFAR-10, {HUMAN_MODEL}",
    "keeprate steps that estimate the noise rate, at least": FIRST_STEPS,
    "share of labels that may be any": OTHERWISE,
}
FOLDS = 5


def measured(
    wrong: NDArray[np.bool_], scores: NDArray[np.floating], issues: NDArray[np.bool_]
) -> Row:
    """How well scores [N] and issues [N] tell the wrong labels [N]."""
    return {
        "auroc": float(roc_auc_score(wrong, -scores)),
        "average_precision": float(average_precision_score(wrong, -scores)),
        "f1": float(f1_score(wrong, issues)),
        "share_flagged": float(issues.mean()),
    }


def with_keeprate(data: Data, wrong: NDArray[np.bool_], seed: int, model: str) -> Row:
    """Judge the training labels by small-loss training."""
    started = time.perf_counter()
    run = keeprate.train(
        data,
        method="co-teaching",
        model=model,
        config=TrainingConfig(epochs=EPOCHS),
        seed=seed,
        baselines=False,
    )
    quality = run.label_quality
    seconds = time.perf_counter() - started
    row = measured(wrong, quality.scores, quality.is_issue)
    return row | {"seconds": seconds, "kept all": float(run.schedule.name == "constant")}


def out_of_sample(data: Data, epochs: int, seed: int, model: str = "mlp") -> NDArray[np.float64]:
    """Class probabilities [N, C] of each sample by a network that did not train with it."""
    labels = data.train.labels.numpy()
    probabilities = np.empty((len(labels), data.n_classes))
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    for kept, left_out in folds.split(np.zeros(len(labels)), labels):
        run = keeprate.train(
            replace(data, train=part(data.train, kept), test=None),
            schedule="constant",
            method="standard",
            model=model,
            config=TrainingConfig(epochs=epochs),
            seed=seed,
            baselines=False,
        )
        predicted = run.classifier.probabilities(data.train.inputs[left_out])
        probabilities[left_out] = predicted.numpy()
    probabilities /= probabilities.sum(1, keepdims=True)
    return probabilities


def with_cleanlab(
    data: Data, wrong: NDArray[np.bool_], epochs: int, seed: int, model: str
) -> dict[str, Row]:
    """Judge the training labels by out-of-sample probabilities, by cleanlab and by keeprate."""
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    started = time.perf_counter()
    probabilities, labels = out_of_sample(data, epochs, seed, model), data.train.labels.numpy()
    seconds = {"seconds": time.perf_counter() - started}
    scores = get_label_quality_scores(labels, probabilities)
    issues = find_label_issues(labels, probabilities, n_jobs=1)
    quality = keeprate.find_label_issues(labels, probabilities)
    by_cleanlab = measured(wrong, scores, issues)
    by_keeprate = measured(wrong, quality.scores, quality.is_issue)
    return {
        f"cleanlab, {epochs} epochs": by_cleanlab | seconds,
        f"find_label_issues on cleanlab's, {epochs} epochs": by_keeprate | seconds,
    }


def compare(noise: str, seed: int, folder: str, limit: int) -> Row:
    """Let all judge the same labels."""
    model = "mlp"
    if noise in HUMAN:
        cifar = Path(folder) / "cifar-10"
        human = keeprate.load_data(cifar, label=HUMAN[noise], true_label="label")
        data = keeprate.prepare(human, seed=seed, limit=HUMAN_SAMPLES)
        model = HUMAN_MODEL
    else:
        source = folder if folder == "digits" else str(Path(folder) / "mnist")
        data = keeprate.prepare(source, noise=noise, seed=seed, limit=limit)
    data = replace(with_noisy_validation(data, seed), test=None)
    wrong = (data.train.labels != torch.as_tensor(data.train.true_labels)).numpy()
    numbers = {"keeprate": with_keeprate(data, wrong, seed, model)}
    for epochs in (20, 5):
        numbers |= with_cleanlab(data, wrong, epochs, seed, model)
    return {"noise_rate": float(wrong.mean()), "found": numbers}


def table(rows: Sequence[Row]) -> list[str]:
    """Lines of Markdown: mean and deviation over seeds, in percent."""
    lines = ["| noise | by | average precision | AUROC | F1 | seconds |", "| --- " * 6 + "|"]
    for noise in dict.fromkeys(row["noise"] for row in rows):
        by_seed = [row["found"] for row in rows if row["noise"] == noise]
        for name in by_seed[0]:
            cells = []
            for metric in ("average_precision", "auroc", "f1"):
                values = [100 * numbers[name][metric] for numbers in by_seed]
                cells.append(in_words(*mean_std(values)))
            seconds, _ = mean_std([numbers[name]["seconds"] for numbers in by_seed])
            lines.append(f"| {noise} | {name} | {' | '.join(cells)} | {seconds:.0f} |")
    return lines


def jobs_of(seeds: int, folder: str) -> list[Job]:
    """A job for each row, seed by seed."""
    return [
        Job({"noise": noise, "seed": seed}, partial(compare, noise, seed, folder, SAMPLES))
        for seed in range(seeds)
        for noise in NOISES
    ]


if __name__ == "__main__":
    run_rows(
        "label_issues",
        __doc__,
        PROTOCOL,
        jobs_of,
        table,
        words=lambda row: f"{100 * row['found']['keeprate']['average_precision']:.2f} %",
    )
