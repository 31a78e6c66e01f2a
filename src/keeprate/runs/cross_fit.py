"""Training when nothing is known: cross-fitted networks, a choice among keep rates, refined labels.

Every candidate has R peers, and each peer leaves out a fold (`keeprate.engine.Supervision`). So all
samples train, and all samples validate: a prediction counts only if its network has not learnt
from the sample. Without clean labels:

1. *Select.* A few schedules R(t) train in lockstep. The determinant of held-out predictions and
   labels chooses one (`keeprate.noise.determinant_score`).
2. *Refine, twice.* Bayes' rule turns held-out predictions and labels into P(true class | x, label).
   Fresh networks learn these probabilities from all samples, the doubtful ones included. A label
   reaches its judge only through what other samples' labels were refined to.

With clean labels, the clean samples train too, and they alone validate. The candidates are networks
of the clean samples alone; networks of the noisy ones, by several schedules; gold loss correction,
whose transition matrix is what the latter say of clean samples; and refined labels, from the first
and from the third. In each of the R folds no step sees the clean labels of the fold.

References
----------
Chernozhukov et al. 2018, Double/debiased machine learning (cross-fitting).
Hendrycks et al. 2018, Using trusted data to train deep networks on labels corrupted by severe noise
(gold loss correction, Eq. (1)-(3)).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from keeprate.data import Data, join
from keeprate.engine import (
    Assignment,
    Candidate,
    Curves,
    Outcome,
    Setup,
    Supervision,
    carry_out,
    cross_fitted,
    probabilities,
    training_weights,
    trial_value,
)
from keeprate.errors import InputError
from keeprate.mapped import blocks, new_tensor
from keeprate.noise import NoiseEstimate, best_power, class_posterior, fit_transition_matrix
from keeprate.records import LabelQuality, RestartSummary, Result
from keeprate.runs.finals import TrainedNetworks
from keeprate.runs.judgement import judge_held_out, mean_probabilities, of_those, refine
from keeprate.schedules import Schedule, plain_decay
from keeprate.seeding import derive_seed

FOLDS = 5
FEW_FOLDS, MANY = 3, 4_000  # so many samples leave enough of them with fewer folds
LEVELS = (1.0, 0.8, 0.6, 0.45)  # R(T) of the schedules to choose from
ROUNDS = 2  # of refined labels
EARLIER = 0.5  # of the epochs, in stages that are not to be chosen
LEAST_STEPS = 150  # in these stages, if the last one has as many; fewer were never tried


@dataclass(frozen=True, eq=False)
class Arm:
    """One way to learn from the samples; all arms of a stage train in lockstep.

    Attributes
    ----------
    name : str
        For files and seeds.
    label : str
        For people.
    schedule : Schedule
    supervision : Supervision
    """

    name: str
    label: str
    schedule: Schedule
    supervision: Supervision


@dataclass(frozen=True, eq=False)
class Trained:
    """An arm after its training.

    Attributes
    ----------
    arm : Arm
    curves : Curves
    networks : TrainedNetworks
    value : float
        What the choice goes by: of held-out predictions, the higher the better.
    opinions : Tensor [N, C]
        Held-out class probabilities of every sample.
    """

    arm: Arm
    curves: Curves
    networks: TrainedNetworks
    value: float
    opinions: Tensor


def pooled(setup: Setup) -> tuple[Setup, Tensor]:
    """Let the validation samples train too.

    Returns
    -------
    setup : Setup
        The training split of its data holds the validation samples at the end.
    is_clean : bool Tensor [N]
        The samples whose labels are taken for right: the validation samples, unless their labels
        are noisy.
    """
    data = setup.data
    n, held_out = len(data.train), len(data.validation)
    has_clean = data.validation.label_status != "noisy"
    is_clean = torch.cat([torch.zeros(n), torch.full((held_out,), float(has_clean))]).bool()
    pool = join(data.train, data.validation)
    weights = training_weights(pool, setup.config.class_weight)
    # Folds that are held out score the networks, whatever metric chose R(t).
    of_pool = replace(
        setup, data=replace(data, train=pool), weights=weights, metric=None, scorer=None
    )
    return of_pool, is_clean


def train_cross_fitted(
    setup: Setup, is_clean: Tensor, n_folds: int
) -> tuple[tuple[Result, ...], TrainedNetworks, tuple[NoiseEstimate, LabelQuality]]:
    """Train all stages, choose, and judge the labels.

    Parameters
    ----------
    setup : Setup
        Its data are `pooled`.
    is_clean : bool Tensor [N]
    n_folds : int
        R.

    Returns
    -------
    results : tuple of Result
        The chosen training first, then what it was chosen from.
    networks : TrainedNetworks
        The R networks of the chosen training.
    judgement : NoiseEstimate, LabelQuality
        Of all labels that may be wrong.
    """
    has_clean = bool(is_clean.any())
    whole = setup.config.epochs
    # With clean labels each stage may be chosen, and has all epochs.
    epochs = [whole] * 3 if has_clean else [_short(setup, len(is_clean))] * ROUNDS + [whole]
    stages = _Stages(setup, is_clean, n_folds, epochs, stage="cross-fitting")
    judges = stages.run_with_clean() if has_clean else stages.run_without_clean()
    chosen = judges[0]
    others = [one for one in stages.trained if one is not chosen]
    results = tuple(_result(one, is_own=one is chosen) for one in (chosen, *others))
    judgement = judge_held_out(
        setup, [one.opinions for one in judges], [one.networks.modules for one in judges], is_clean
    )
    return results, chosen.networks, judgement


def judge_by_folds(
    setup: Setup, schedule: Schedule
) -> tuple[tuple[NoiseEstimate, LabelQuality], float]:
    """Judge the labels by networks that leave out a fold each, and learn by a given R(t).

    They train as long as the early stages of a choice by cross-fitting.

    Parameters
    ----------
    setup : Setup
        Whose validation samples train, too.
    schedule : Schedule
        Is stretched to these epochs.

    Returns
    -------
    judgement : NoiseEstimate, LabelQuality
        Of all labels that may be wrong.
    seconds : float
        Of the training.
    """
    of_pool, is_clean = pooled(setup)
    epochs = _short(setup, len(is_clean))
    stages = _Stages(of_pool, is_clean, n_folds(setup.data), [epochs], stage="judging labels")
    judges = stages.train_by(schedule.stretched(epochs))
    judgement = judge_held_out(of_pool, [judges.opinions], [judges.networks.modules], is_clean)
    return judgement, judges.curves.seconds


def judging_epochs(setup: Setup) -> int:
    """How many epochs the networks of `judge_by_folds` train for, one for each of `n_folds`."""
    return _short(setup, len(setup.data.train) + len(setup.data.validation))


def _short(setup: Setup, n_samples: int) -> int:
    """The epochs of a training that is not to be kept."""
    config = setup.config
    steps_an_epoch = max(1, n_samples // config.batch_size)
    least = math.ceil(LEAST_STEPS / steps_an_epoch)
    return min(config.epochs, max(math.ceil(EARLIER * config.epochs), least))


class _Stages:
    """The trainings of a run, one stage after the other."""

    def __init__(
        self, setup: Setup, is_clean: Tensor, n_folds: int, epochs: Sequence[int], *, stage: str
    ) -> None:
        train = setup.data.train
        self.setup, self.is_clean, self.epochs, self.stage = setup, is_clean, epochs, stage
        self.labels = train.labels
        self.given = new_tensor((len(train), setup.data.n_classes))
        self.given.scatter_(1, train.labels[:, None], 1.0)
        self.weights = torch.ones(len(train)) if setup.weights is None else setup.weights
        self.fold = make_folds(train.labels, is_clean, n_folds, setup.seed)
        self.trained: list[Trained] = []
        self.n_stages_done = 0

    def run_without_clean(self) -> list[Trained]:
        """Train the stages; return the last training, and the one that labels were refined by.

        Refined targets come from networks that learnt other folds' labels, so that a held-out label
        has a little say in what its judge learns. Held-out values would favour refined labels: the
        last training is chosen whatever its value.
        """
        arms = [
            self._arm(f"keep-{level:g}", "every sample kept" if level == 1 else f"R(T) = {level:g}",
                      self.given, schedule=self._decay(level))
            for level in LEVELS
        ]  # fmt: skip
        self._train(arms)
        best = max(self.trained, key=lambda one: one.value)  # of equals the first: it keeps more
        last = best
        for number in range(ROUNDS):
            refined = refine(last.opinions, self.labels)
            label = f"refined labels, round {number + 1} after {best.arm.label}"
            (last,) = self._train([self._arm(f"refined-{number + 1}", label, refined)])
        return [last, best]

    def run_with_clean(self) -> list[Trained]:
        """Train the stages; return the best by held-out predictions, of equals the last."""
        is_clean, noisy = self.is_clean, (~self.is_clean).float()
        levels = (LEVELS[0], LEVELS[2])
        clean = self._arm("clean", "clean samples alone", self.given, is_clean.float())
        alone = [
            self._arm(f"noisy-{level:g}", f"noisy samples alone, R(T) = {level:g}", self.given,
                      noisy, schedule=self._decay(level))
            for level in levels
        ]  # fmt: skip
        of_clean, *of_noisy = self._train([clean, *alone])
        best = max(of_noisy, key=lambda one: one.value)
        matrix = self._gold_matrix(best)
        balance = noisy + is_clean * (float(noisy.sum()) / float(is_clean.sum()))
        gold, _ = self._train(
            [
                self._arm("gold", "gold loss correction", self.given, balance, matrix=matrix),
                self._arm("refined-clean", "labels refined by the clean samples",
                          self._refined(of_clean)),
            ]
        )  # fmt: skip
        label = "labels refined by gold loss correction"
        self._train([self._arm("refined-gold", label, self._refined(gold))])
        return [max(reversed(self.trained), key=lambda one: one.value)]

    def train_by(self, schedule: Schedule) -> Trained:
        """Train with a given schedule, of all labels as they are."""
        (trained,) = self._train(
            [self._arm("judges", "judges of the labels", self.given, schedule=schedule)]
        )
        return trained

    def _arm(
        self,
        name: str,
        label: str,
        targets: Tensor,
        weights: Tensor | None = None,
        *,
        schedule: Schedule | None = None,
        matrix: Tensor | None = None,
    ) -> Arm:
        judged = self.is_clean if bool(self.is_clean.any()) else ~self.is_clean
        own = self.weights if weights is None else self.weights * weights
        corrected = None if matrix is None else ~self.is_clean
        supervision = Supervision(self.fold, judged, targets, own, matrix, corrected)
        return Arm(name, label, schedule or self._decay(1.0), supervision)

    def _decay(self, level: float) -> Schedule:
        """The schedule of the stage at hand that ends at a level."""
        return Schedule(plain_decay(self.epochs[self.n_stages_done], level), "auto")

    def _by_network(self, modules: Sequence[nn.Module]) -> Iterator[Tensor]:
        """What each of R networks says of every sample, also of those it learnt from, [N, C]."""
        inputs, normaliser = self.setup.data.train.inputs, self.setup.normaliser
        return (probabilities([module], inputs, normaliser) for module in modules)

    def _held_out(self, modules: Sequence[nn.Module]) -> Tensor:
        """What the network that leaves it out says of every sample, [N, C]."""
        held_out = new_tensor(self.given.shape)
        for peer, opinions in enumerate(self._by_network(modules)):
            places = (self.fold == peer).nonzero()[:, 0]
            for some in blocks(len(places), 4 * opinions.shape[1]):
                held_out[places[some]] = opinions[places[some]]
        return held_out

    def _gold_matrix(self, one: Trained) -> Tensor:
        """Mean prediction for clean samples of each class outside the fold, [R, C, C].

        One more sample of each class has its label: a class without clean samples is not corrupted.
        """
        matrices = []
        for peer, predicted in enumerate(self._by_network(one.networks.modules)):
            seen = self.is_clean & (self.fold != peer)
            sums = self.given[seen].T @ predicted[seen] + torch.eye(self.given.shape[1])
            matrices.append(sums / sums.sum(1, keepdim=True))
        return torch.stack(matrices)

    def _refined(self, one: Trained) -> Tensor:
        """Targets of each network by its own opinions alone, [R, N, C]; clean labels stay."""
        noisy, modules = ~self.is_clean, one.networks.modules
        targets, places = new_tensor((len(modules), *self.given.shape)), noisy.nonzero()[:, 0]
        for of_peer, opinions in zip(targets, self._by_network(modules), strict=True):
            of_peer.copy_(self.given)
            p, y = of_those(noisy, opinions), self.labels[noisy]
            matrix = fit_transition_matrix(p, y)
            for some in blocks(len(places), 8 * p.shape[1]):
                of_peer[places[some]] = class_posterior(p[some], y[some], matrix)
        return targets

    def _train(self, arms: Sequence[Arm]) -> list[Trained]:
        """Train arms in lockstep; their trainings in the same order."""
        start, epochs = len(self.trained), self.epochs[self.n_stages_done]
        n_before, total = sum(self.epochs[: self.n_stages_done]), sum(self.epochs)
        setup = replace(self.setup, config=self.setup.config.shortened(epochs))
        method = cross_fitted(arms[0].supervision.n_folds)
        candidates = [
            Candidate(start + i, arm.schedule, method, arm.supervision)
            for i, arm in enumerate(arms)
        ]

        if setup.curves_writer is not None:
            setup.curves_writer.name({start + i: arm.name for i, arm in enumerate(arms)})

        def collect(outcome: Outcome) -> None:
            arm = arms[outcome.number - start]
            if outcome.is_failed:
                raise InputError(
                    f"the loss of {arm.label} was not finite; try a smaller learning rate or check "
                    "the inputs for extreme values."
                )
            self.trained.append(self._collected(arm, outcome))

        def show(epoch: int, n_candidates: int) -> None:
            if setup.progress is not None:
                setup.progress(self.stage, n_before + epoch, total, None)

        assignment = Assignment(
            candidates,
            stream=f"fit-{start}",
            keep_checkpoints=True,
            n_kept=len(candidates),
            n_tracked=len(candidates),
        )
        carry_out(assignment, setup, after_epoch=show, after_training=collect)
        self.n_stages_done += 1
        return self.trained[start:]

    def _collected(self, arm: Arm, outcome: Outcome) -> Trained:
        modules, curves = list(outcome.networks), outcome.curves
        trained = TrainedNetworks(arm.schedule, modules, None, None)
        total, seen = outcome.log_probability, outcome.times_seen
        if total is None or seen is None:
            raise ValueError("a training whose held-out predictions were not kept")
        # Where the later half held each sample in a batch, nothing else is asked.
        final = self._held_out(modules) if bool((seen == 0).any()) else total
        tracked = replace(trained, log_probability=total, times_seen=seen)
        opinions = mean_probabilities(tracked, final)
        if bool(self.is_clean.any()):
            # Networks of noisy samples are right less confidently than networks of clean ones.
            value = best_power(opinions[self.is_clean], self.labels[self.is_clean])[1]
        else:
            value = trial_value(curves.validation_score, len(arm.schedule))
        return Trained(arm, curves, trained, value, opinions)


def n_folds(data: Data) -> int:
    """How many folds the training and the validation samples are cut into."""
    return FEW_FOLDS if len(data.train) + len(data.validation) >= MANY else FOLDS


def make_folds(labels: Tensor, is_clean: Tensor, n: int, seed: int) -> Tensor:
    """Deal the samples of each class to n folds, the clean and the others apart, [N] of int64."""
    rng = np.random.default_rng(derive_seed(seed, "folds"))
    kind = (labels * 2 + is_clean).numpy()
    order = rng.permutation(len(kind))
    order = order[np.argsort(kind[order], kind="stable")]
    fold = np.empty(len(kind), dtype=np.int64)
    fold[order] = np.arange(len(kind)) % n  # neighbours of a class go to different folds
    return torch.from_numpy(fold)


def _result(one: Trained, *, is_own: bool) -> Result:
    restarts = (RestartSummary(0, one.value, one.curves.seconds),)
    return Result(
        "auto" if is_own else one.arm.name,
        f"{'Chosen: ' if is_own else ''}{one.arm.label}",
        "auto",
        one.arm.schedule,
        None,
        one.curves,
        restarts,
    )
