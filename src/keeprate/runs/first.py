"""The first training of a run that has to know the noise: short, before networks memorise.

It keeps every sample but those that are held out. With clean validation samples, held-out
predictions and labels give the transition matrix whatever the network's errors are: the joint
distribution of prediction and noisy label is J = M diag(prior) T, and clean samples tell M, what is
predicted for the samples of a class. (Networks are weak so early. To take each difference between
prediction and label for a wrong label would find far too many.)

The training also shows how fast networks learn labels by heart: held-out samples have a larger loss
than those that were trained on, and the more so, the more of the wrong labels are known by heart.

References
----------
Lipton, Wang and Smola 2018, Detecting and correcting for label shift with black box predictors
(the solution by the confusion matrix; here for the joint distribution with noisy labels).
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import replace
from shutil import rmtree

import numpy as np
import torch
from torch import Tensor, nn

from keeprate.data import Data, Normaliser, Split, part
from keeprate.engine import (
    Autocast,
    Method,
    Networks,
    Setup,
    batched_logits,
    per_sample_cross_entropy,
    probabilities,
    training_weights,
)
from keeprate.noise import estimate_noise, matrix_by_confusion, rival_share
from keeprate.records import Cost, FirstTraining, RunRecord
from keeprate.runs.finals import TrainedNetworks, train_plans
from keeprate.runs.plans import plan_without_search
from keeprate.schedules import Schedule
from keeprate.seeding import derive_seed

FIRST_STEPS = 500  # the least number of its steps, if a full training has as many
MOST_CLASSES = 100  # of a matrix: its estimate takes the cube of their number, and more samples
AT_CHANCE, UNKNOWN_RATE = 1.5, 0.2
"""Networks that are right less than 1.5 times as often as chance tell nothing; a fifth of wrong
labels is assumed then."""
MOST_NOISE = 0.8  # that an estimate may say
HELD_OUT, MOST_HELD_OUT = 0.2, 5_000  # share and number of training samples that are held out
FOLDER = "first"  # of its checkpoints, within the run folder


def first_epochs(setup: Setup) -> int:
    """How many epochs the first training has: a quarter of all, or `FIRST_STEPS` if that is more.

    A network that has seen too little is wrong about right labels.
    """
    config, n = setup.config, len(setup.data.train)
    steps = max(1, (n - _n_held_out(setup)) // config.batch_size)
    return min(config.epochs, max(_quarter(setup), math.ceil(FIRST_STEPS / steps)))


def _quarter(setup: Setup) -> int:
    return max(1, setup.config.epochs // 4)


def _n_held_out(setup: Setup) -> int:
    """How many training samples are held out; none where validation labels are as noisy."""
    if setup.data.criterion == "determinant" and setup.metric is None:
        return 0
    n = len(setup.data.train)
    return min(max(1, int(HELD_OUT * n)), MOST_HELD_OUT, n - 1)


def train_first(setup: Setup, method: Method) -> FirstTraining:
    """Estimate the noise, and how fast it is learnt, by a short training with all labels as given.

    After a kill it goes on from its checkpoint; the caller keeps what it found.
    """
    epochs, quarter, outer, data = first_epochs(setup), _quarter(setup), setup.progress, setup.data

    def progress(stage: str, done: float, total: float, best: str | None) -> None:
        if outer is not None:
            outer("noise rate", done, total, best)

    folder = None if setup.folder is None else setup.folder / FOLDER
    if folder is not None:
        folder.mkdir(exist_ok=True)
    held_out = data.validation  # as noisy as the training samples, where no label is clean
    # With a metric of other data no validation label takes part in a search, here neither.
    has_clean = data.criterion != "determinant" and setup.metric is None
    if _n_held_out(setup):
        held_out, data = _hold_out(setup)
    batch_size = min(setup.config.batch_size, len(data.train))
    setup = replace(
        setup,
        data=replace(data, test=None),  # which the estimate could not use
        config=replace(setup.config.shortened(epochs), batch_size=batch_size, keep="last"),
        weights=training_weights(data.train, setup.config.class_weight),
        metric=LossGap(held_out, _as_many(data.train, len(held_out), setup.seed)),
        scorer=None,  # it would score what nobody looks at
        folder=folder,
        progress=progress,
        curves_writer=None,
    )
    plan = plan_without_search(method, [Schedule(np.ones(epochs), "constant")])
    results, networks = train_plans([plan], setup, restarts=1, tracks=False)
    noise_rate, rival = _estimate(setup, networks, held_out, has_clean=has_clean)
    gap = results[0].curves.validation_score[quarter - 1]
    return FirstTraining(noise_rate, epochs, results[0].seconds, rival, gap)


class LossGap:
    """By how much the mean loss of held-out samples exceeds that of training samples; a `Metric`.

    Both have labels that are wrong as often. In nats, at least 0 and at most 1.
    """

    name = "loss gap"
    worst = 0.0

    def __init__(self, held_out: Split, trained: Split) -> None:
        self._splits = held_out, trained

    def fingerprint(self) -> str:
        return ""  # what is held out follows from the seed

    def check(self, module: nn.Module, input_shape: tuple[int, ...]) -> None:
        pass  # every classifier has a loss

    def __call__(
        self,
        networks: Networks,
        normaliser: Normaliser,
        autocast: Autocast = nullcontext,
    ) -> Tensor:
        held_out, trained = (_losses(networks, one, normaliser, autocast) for one in self._splits)
        return (held_out - trained).clamp(0, 1)


def _losses(
    networks: Networks,
    split: Split,
    normaliser: Normaliser,
    autocast: Autocast,
) -> Tensor:
    """The mean loss of a split, [K, R]."""
    inputs, labels = split.inputs.to(networks.device), split.labels.to(networks.device)
    sums = [
        per_sample_cross_entropy(logits, labels[piece]).sum(-1)
        for piece, logits in batched_logits(networks, inputs, normaliser, autocast)
    ]
    return torch.stack(sums).sum(0) / len(split)


def _as_many(split: Split, n: int, seed: int) -> Split:
    """`n` samples of a split, or all."""
    rng = np.random.default_rng(derive_seed(seed, "first", "trained"))
    return part(split, rng.permutation(len(split))[:n])


def _hold_out(setup: Setup) -> tuple[Split, Data]:
    """Some of the training samples, and the data without them."""
    data, rng = setup.data, np.random.default_rng(derive_seed(setup.seed, "first"))
    rows, n_held_out = rng.permutation(len(data.train)), _n_held_out(setup)
    held_out, kept = np.sort(rows[:n_held_out]), np.sort(rows[n_held_out:])
    return part(data.train, held_out), replace(data, train=part(data.train, kept))


def _estimate(
    setup: Setup, networks: TrainedNetworks, held_out: Split, *, has_clean: bool
) -> tuple[float, float | None]:
    """The noise rate and, unless the classes are many, the rival share of held-out labels."""
    data, device = setup.data, setup.config.resolve_device()
    modules = [module.to(device) for module in networks.modules]

    def predicted(split: Split) -> Tensor:
        return probabilities(modules, split.inputs, setup.normaliser)

    of_held_out = predicted(held_out)
    if not has_clean:
        noise = estimate_noise(of_held_out, held_out.labels)
        if noise.transition_matrix is None:
            raise ValueError("an estimate without a matrix")
        return noise.noise_rate, rival_share(noise.transition_matrix)
    clean = data.validation
    of_clean = predicted(clean)
    right = float((of_clean.argmax(1) == clean.labels).float().mean())
    if right < min(0.5, AT_CHANCE / data.n_classes):
        return UNKNOWN_RATE, None
    if data.n_classes > MOST_CLASSES:
        # A wrong prediction hits a wrong label next to never: P(agree) = (1 - rate) P(right).
        agree = float((of_held_out.argmax(1) == held_out.labels).float().mean())
        return float(np.clip(1 - agree / right, 0.0, MOST_NOISE)), None
    matrix, prior = matrix_by_confusion(
        of_held_out.numpy(), held_out.labels.numpy(), of_clean.numpy(), clean.labels.numpy()
    )
    rate = float(1 - prior @ matrix.diagonal())
    return float(np.clip(rate, 0.0, MOST_NOISE)), rival_share(matrix)


def remove_first(setup: Setup) -> None:
    """Remove the checkpoints of a first training that the record holds."""
    if setup.folder is not None:
        rmtree(setup.folder / FOLDER, ignore_errors=True)


def first_cost(record: RunRecord, epochs: int) -> Cost:
    """The cost of the first training, if there was one; a full training has `epochs`."""
    if record.first is None:
        return Cost()
    first = record.first
    return Cost(first.epochs, first.epochs / epochs, first.seconds)
