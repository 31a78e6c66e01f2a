"""What the networks' opinions say of the labels, once the trainings are done.

Held-out opinions and labels together tell the true classes only if it is known how sure an opinion
may be, or how many labels are wrong: an unsure network and right labels look like a sure network
and wrong labels. Clean samples tell how sure. Without them there are two readings, one that calls
many labels wrong and one that calls few wrong. The first ranks; a suggestion must hold in both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from keeprate.data import Split, part, without_inputs
from keeprate.engine import Setup, probabilities
from keeprate.mapped import blocks, new_tensor
from keeprate.noise import (
    LEAST,
    NoiseEstimate,
    best_power,
    class_posterior,
    estimate_noise,
    fit_transition_matrix,
    mean_log_likelihood,
    sharpened,
    thinned,
    to_power,
)
from keeprate.records import LabelQuality, find_label_issues, judge, softened
from keeprate.runs.finals import TrainedNetworks

PSEUDO = 0.5  # samples more in each entry of a counted transition matrix
POWERS = tuple(2 ** (i / 2) for i in range(-2, 6))  # from 1/2: beyond, all readings fit badly


def judge_held_out(
    setup: Setup,
    opinions_of: Sequence[Tensor],
    modules_of: Sequence[Sequence[nn.Module]],
    is_clean: Tensor,
) -> tuple[NoiseEstimate, LabelQuality]:
    """Judge every label that may be wrong by networks that have not learnt from it.

    The opinions of several trainings are averaged (geometric mean): those that learnt refined
    labels rank better, those before them say better how many labels are wrong. The last of them,
    which learnt no refined labels without clean ones, tell the noise.

    Parameters
    ----------
    setup : Setup
        Its training split holds all samples.
    opinions_of : sequence of Tensor [N, C]
        Of each training, held-out class probabilities of every sample.
    modules_of : sequence of sequences of modules
        The networks of each training.
    is_clean : bool Tensor [N]
        The samples whose labels are right.
    """
    noisy = ~is_clean
    held_out, unrefined = _mean(opinions_of), opinions_of[-1]
    pool = part(without_inputs(setup.data.train), noisy.numpy().nonzero()[0])
    # The validation samples are in the pool already.
    others = [one for one in setup.data.doubted_splits[1:] if one is not setup.data.validation]
    splits, opinions = [pool, *others], [of_those(noisy, held_out)]
    for split in others:
        opinions.append(
            _mean([probabilities(some, split.inputs, setup.normaliser) for some in modules_of])
        )
    labels, together = torch.cat([one.labels for one in splits]), _joined(opinions)
    is_right = None
    if bool(is_clean.any()):
        clean, their_labels = unrefined[is_clean], setup.data.train.labels[is_clean]
        power = best_power(clean, their_labels)[0]
        is_right, unrefined = clean.argmax(1) == their_labels, to_power(unrefined, power)
        readings = [by_clean_labels(together, labels, power)]
    else:
        readings = [by_confident_half(together, labels), by_all(together, labels)]
    sizes = [len(one) for one in splits]
    voted = []
    for brought, matrix in readings:
        parts = zip(brought.split(sizes), splits, strict=True)
        voted.append((_joined([with_votes(p, one.votes) for p, one in parts]), matrix))
    noise = estimate_noise(of_those(noisy, unrefined), pool.labels, is_right=is_right)
    return noise, in_order(judge(labels, voted), splits)


def refine(opinions: Tensor, labels: Tensor) -> Tensor:
    """P(true class | x, label) by Bayes' rule, with the matrix of confident opinions, [N, C]."""
    matrix, refined = confident_matrix(opinions, labels), new_tensor(opinions.shape)
    for some in blocks(len(labels), 8 * opinions.shape[1]):
        refined[some] = class_posterior(opinions[some], labels[some], matrix)
    return refined


def confident_matrix(opinions: Tensor, labels: Tensor) -> Tensor:
    """The transition matrix by the confident half of the opinions of each class, [C, C].

    Expectation maximisation from all opinions would take the noise that networks have learnt for
    truth.
    """
    counted = estimate_noise(opinions, labels).transition_matrix
    if counted is None:
        raise ValueError("an estimate without a matrix")
    n_predicted = opinions.argmax(1).bincount(minlength=opinions.shape[1])[:, None] / 2
    matrix = torch.from_numpy(counted).float() * n_predicted + PSEUDO
    return matrix / matrix.sum(1, keepdim=True)


def judge_labels(setup: Setup, networks: TrainedNetworks) -> tuple[NoiseEstimate, LabelQuality]:
    """Estimate the noise, and judge every label that may be wrong."""
    data, train = setup.data, setup.data.train
    device = setup.config.resolve_device()
    modules = [module.to(device) for module in networks.modules]

    def predicted(split: Split) -> Tensor:
        return probabilities(modules, split.inputs, setup.normaliser)

    # Labels that no network has learnt say more of the noise.
    is_held_out = data.criterion == "determinant"
    noisy = data.validation if is_held_out else train
    opinions = {id(train): mean_probabilities(networks, predicted(train))}
    for split in (noisy, *data.doubted_splits):
        if id(split) not in opinions:
            opinions[id(split)] = predicted(split)
    for module in modules:
        module.to("cpu")
    noise = estimate_noise(opinions[id(noisy)], noisy.labels, held_out=is_held_out)
    doubted = data.doubted_splits
    quality = find_label_issues(
        torch.cat([split.labels for split in doubted]).numpy(),
        _joined([with_votes(opinions[id(split)], split.votes) for split in doubted]).numpy(),
    )
    return noise, in_order(quality, doubted)


def in_order(quality: LabelQuality, splits: Sequence[Split]) -> LabelQuality:
    """The quality of the labels of these splits, one after the other, in the order of the source.

    Each label gets the row and the name of its sample.
    """
    rows = torch.cat([split.rows for split in splits]).numpy()
    names = tuple(name for split in splits for name in split.names)
    return replace(quality, rows=rows, names=names).sorted()


def with_votes(opinions: Tensor, votes: Tensor | None) -> Tensor:
    """Take the votes of several annotators for a prior of the class probabilities `[N, C]`.

    By Bayes' rule p'_i is proportional to p_i (v_i + 1), where v_i of the annotators chose class i
    and one is added so that no class is impossible. A single vote is the label itself and says
    nothing more.
    """
    if votes is None:
        return opinions
    several = votes.sum(1, keepdim=True) > 1
    prior = torch.where(several, votes + 1, torch.ones_like(votes))
    weighted = opinions * prior.to(opinions)
    return weighted / weighted.sum(1, keepdim=True)


def mean_probabilities(networks: TrainedNetworks, final: Tensor) -> Tensor:
    """Geometric mean of the class probabilities over the later half of training, `[n_train, C]`.

    Small-loss selection learns wrong labels late or never. An epoch in which a network had no doubt
    of another class weighs more in a geometric mean than in an arithmetic one. A sample that no
    batch of that half held has the `final` probabilities `[n_train, C]`.
    """
    total, seen = networks.log_probability, networks.times_seen
    if total is None or seen is None:
        return final
    seen = seen.unsqueeze(1)
    mean = new_tensor(total.shape)
    for some in blocks(len(total), 8 * total.shape[1]):
        of_half = (total[some] / seen[some].clamp_min(1)).softmax(-1)
        mean[some] = torch.where(seen[some] > 0, of_half, final[some])
    return mean


# Readings --------------------------------------------------------------------------------------
# What opinions and labels together say: probabilities of the true classes, and a transition matrix.


def by_confident_half(opinions: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Take the noise for what confident opinions say: weak networks then mean many wrong labels."""
    matrix = confident_matrix(opinions, labels)
    return sharpened(opinions, labels, matrix), matrix


def by_all(opinions: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Take the noise and the power that are likeliest together: the cautious reading.

    Weak networks then mean few wrong labels. Fitting one after the other, from a power of 1 on, can
    get stuck at "unsure networks, no noise", so a grid of powers is tried.
    """
    some, of_some = thinned(opinions, labels)

    def likelihood(power: float) -> float:
        brought = to_power(some, power)
        matrix = fit_transition_matrix(brought, of_some)
        return mean_log_likelihood(brought, of_some, matrix)

    brought = to_power(opinions, max(POWERS, key=likelihood))
    return brought, fit_transition_matrix(brought, labels)


def by_clean_labels(opinions: Tensor, labels: Tensor, power: float) -> tuple[Tensor, Tensor]:
    """Take the temperature that clean samples told, and the noise that is likeliest with it."""
    brought = to_power(opinions, power)
    return brought, softened(fit_transition_matrix(brought, labels))


def of_those(which: Tensor, opinions: Tensor) -> Tensor:
    """The opinions [n, C] of some of N samples; all are not copied."""
    if bool(which.all()):
        return opinions
    places = which.nonzero()[:, 0]
    found = new_tensor((len(places), opinions.shape[1]))
    for some in blocks(len(places), 4 * opinions.shape[1]):
        found[some] = opinions[places[some]]
    return found


def _joined(opinions: Sequence[Tensor]) -> Tensor:
    """Opinions [n, C] of several splits, one after the other; those of one are not copied."""
    if len(opinions) == 1:
        return opinions[0]
    together = new_tensor((sum(map(len, opinions)), opinions[0].shape[1]))
    for some, of_split in zip(together.split([*map(len, opinions)]), opinions, strict=True):
        some.copy_(of_split)
    return together


def _mean(opinions: Sequence[Tensor]) -> Tensor:
    """The geometric mean of class probabilities [N, C]."""
    first = opinions[0]
    mean = new_tensor(first.shape)
    for some in blocks(len(first), 8 * len(opinions) * first.shape[1]):
        parts = torch.stack([one[some] for one in opinions])
        mean[some] = parts.clamp_min(LEAST).log().mean(0).softmax(-1)
    return mean
