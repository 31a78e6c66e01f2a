"""What the paper claims in words, judged from the rows by rules that stand here.

A claim over several noises or settings holds if it holds for each; a single one that contradicts
it settles it. Means are compared as they are: with few seeds, "held" is not a test of significance.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from experiments import fig1
from experiments.common import NOISES, Row, in_words, mean_std
from experiments.comparison import of, percent
from keeprate.noise import Noise

HELD, FAILED, UNKNOWN = "held", "did not hold", "not yet measured"
IN_PART = "not yet measured in full"
SEARCHED = ("proposed", "jocor-searched")  # lines of a table with a searched R(t)
MOST_EVIDENCE = 5  # of more parts, only those that contradict are told one by one

Finding = tuple[bool, str]  # whether it holds, and the numbers


@dataclass(frozen=True)
class Source:
    """Rows of one results file; `noises` and `names` are those it is meant to have."""

    title: str
    kind: str  # "methods" (the paper's), "all methods", "spaces" or "memorisation"
    rows: Sequence[Row] = ()
    noises: Sequence[str] = tuple(NOISES)
    names: Sequence[str] = ()
    complete: bool = True  # whether every seed of the protocol is there
    memorisation: fig1.Protocol | None = None


@dataclass(frozen=True)
class Verdict:
    source: str
    verdict: str
    evidence: Sequence[str] = field(default_factory=tuple)


@dataclass(frozen=True)
class Claim:
    """`judge` gives (what was looked at, finding) for each part; the finding is None if unknown."""

    text: str
    rule: str
    kind: str
    judge: Callable[[Source], Iterator[tuple[str, Finding | None]]]

    def verdict(self, source: Source) -> Verdict:
        parts = list(self.judge(source))
        known = [(words, finding) for words, finding in parts if finding is not None]
        evidence = [
            f"{words}: {numbers}" + ("" if holds else " (no)")
            for words, (holds, numbers) in known
            if len(known) <= MOST_EVIDENCE or not holds
        ]
        if len(known) > MOST_EVIDENCE:
            evidence.insert(0, f"{sum(found[0] for _, found in known)} of {len(known)} settings")
        if not known:
            verdict = UNKNOWN
        elif not all(holds for _, (holds, _) in known):
            verdict = FAILED
        else:
            verdict = HELD if source.complete and len(known) == len(parts) else IN_PART
        return Verdict(source.title, verdict, evidence)


def _paired(source: Source, noise: str, names: Sequence[str]) -> dict[str, list[Row]]:
    """Rows of several arms, of the seeds that all of them have: these share noise and split."""
    found = {name: rows for name in names if (rows := of(source.rows, noise, name))}
    each = [{row["seed"] for row in rows} for rows in found.values()]
    seeds = set.intersection(*each) if each else set()
    return {
        name: chosen
        for name, rows in found.items()
        if (chosen := [row for row in rows if row["seed"] in seeds])
    }


def _mean(rows: Sequence[Row], when: str, what: str) -> float:
    return statistics.fmean(percent(rows, when, what))


# Methods ---------------------------------------------------------------------------------------


def proposed_is_best(source: Source) -> Iterator[tuple[str, Finding | None]]:
    for noise in source.noises:
        found = _paired(source, noise, source.names)
        means = {n: _mean(rows, "last", "test_accuracy") for n, rows in found.items()}
        own = means.pop("proposed", None)
        finding = None
        if own is not None and means:
            rival = max(means, key=lambda name: means[name])
            # One that is better settles it; that it is the best is known only when all are there.
            if own <= means[rival] or len(found) == len(source.names):
                numbers = f"{own:.2f} %, the best other {means[rival]:.2f} % ({rival})"
                finding = own > means[rival], numbers
        yield NOISES[noise], finding


def ends_below_the_clean_share(source: Source) -> Iterator[tuple[str, Finding | None]]:
    for noise in source.noises:
        rows = of(source.rows, noise, "proposed")
        finding = None
        if rows:
            share = 1 - (Noise.parse(noise).noise_rate or 0.0)
            ends = [row["keep_rate"][-1] for row in rows]
            below = sum(end < share for end in ends)
            numbers = f"mean R(T) {statistics.fmean(ends):.2f}, below {share:.2f} for {below}"
            finding = below == len(ends), f"{numbers} of {len(ends)} seeds"
        yield NOISES[noise], finding


def cleaner_than_co_teaching(source: Source) -> Iterator[tuple[str, Finding | None]]:
    for noise in source.noises:
        found = _paired(source, noise, ("proposed", "co-teaching"))
        finding = None
        if len(found) == 2:
            a, b = (_mean(rows, "last", "label_precision") for rows in found.values())
            finding = a > b, f"{a:.2f} % against {b:.2f} %"
        yield NOISES[noise], finding


def f_correction_fails(source: Source) -> Iterator[tuple[str, Finding | None]]:
    noise = "pairflip:0.45"
    found = _paired(source, noise, ("f-correction", "standard"))
    finding = None
    if len(found) == 2:
        a, b = (_mean(rows, "best", "test_accuracy") for rows in found.values())
        finding = a < b, f"best epoch {a:.2f} %, Standard {b:.2f} %"
    yield NOISES[noise], finding


def a_searched_one_is_best(source: Source) -> Iterator[tuple[str, Finding | None]]:
    for noise in source.noises:
        found = _paired(source, noise, source.names)
        for when in ("last", "best"):
            numbers = {n: percent(rows, when, "test_accuracy") for n, rows in found.items()}
            finding = None
            if len(found) == len(source.names):
                means = {name: statistics.fmean(values) for name, values in numbers.items()}
                best = max(means, key=lambda name: means[name])
                own = max((n for n in SEARCHED if n in means), key=lambda name: means[name])
                _, std = mean_std(numbers[best])
                words = (
                    f"{means[own]:.2f} % ({own}), the best {in_words(means[best], std)} ({best})"
                )
                finding = means[own] >= means[best] - (std or 0.0), words
            yield f"{NOISES[noise]}, {when} epoch", finding


# Spaces ----------------------------------------------------------------------------------------


def basis_is_best(source: Source) -> Iterator[tuple[str, Finding | None]]:
    for noise in source.noises:
        names = ("basis", "co-teaching", "power-decay")
        found = _paired(source, noise, names)
        finding = None
        if len(found) == len(names):
            own, *others = (_mean(rows, "best", "test_accuracy") for rows in found.values())
            numbers = f"{own:.2f} %, Co-teaching's {others[0]:.2f} %, power decay {others[1]:.2f} %"
            finding = own > max(others), numbers
        yield NOISES[noise], finding


# Memorisation ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Peak:
    """Where a test-accuracy curve peaks and how far it falls; accuracies in percent."""

    epoch: float
    height: float
    drop: float  # to the mean of the last tenth of the epochs
    noise: float  # the deviation that a difference of two such numbers may have by chance
    epochs: int
    train_gain: float | None  # of training accuracy from the peak to the last epoch

    @property
    def falls(self) -> bool:
        return self.epoch < self.epochs and self.drop > 2 * self.noise


def peak_of(rows: Sequence[Row]) -> Peak:
    """Mean over seeds of curves smoothed over three epochs.

    The noise is that of the test sample together with the fluctuation from epoch to epoch, or that
    of seeds if it is larger: the highest of many fluctuating numbers is no peak.
    """
    epochs, heights, drops, chances, gains = [], [], [], [], []
    for row in rows:
        raw = row["curves"]["test_accuracy"]
        curve = [statistics.fmean(raw[max(0, t - 1) : t + 2]) for t in range(len(raw))]
        tail = statistics.fmean(raw[-max(1, len(raw) // 10) :])
        height = max(curve)
        best = curve.index(height)
        epochs.append(best + 1)
        heights.append(100 * height)
        drops.append(100 * (height - tail))
        later = raw[len(raw) // 2 :]
        steps = [b - a for a, b in pairwise(later)]
        fluctuation = statistics.pstdev(steps) / math.sqrt(2) if steps else 0.0
        sampling = math.sqrt(2 * height * (1 - height) / row["n_test"])
        chances.append(100 * math.hypot(sampling, fluctuation))
        training = row["curves"].get("train_accuracy")
        if training:
            gains.append(100 * (training[-1] - training[best]))
    between = statistics.stdev(drops) if len(drops) > 1 else 0.0
    return Peak(
        statistics.fmean(epochs),
        statistics.fmean(heights),
        statistics.fmean(drops),
        max(between, statistics.fmean(chances)),
        len(rows[0]["curves"]["test_accuracy"]),
        statistics.fmean(gains) if gains else None,
    )


def peaks(source: Source) -> Iterator[tuple[str, str, Peak | None]]:
    """(factor, label, peak) of every value of a factor; None if it has not been run."""
    if source.memorisation is None:
        return
    for factor, group in source.memorisation.factors.items():
        for label, setting in group.items():
            rows = fig1.rows_of(list(source.rows), setting)
            yield factor, label, peak_of(rows) if rows else None


def _settings(source: Source) -> Iterator[tuple[str, Peak | None]]:
    """Each setting once, though the base is a value of every factor."""
    if source.memorisation is None:
        return
    base = source.memorisation.base
    settings = {base: "base"}
    for factor, group in source.memorisation.factors.items():
        for label, setting in group.items():
            settings.setdefault(setting, f"{factor} {label}")
    for setting, words in settings.items():
        rows = fig1.rows_of(list(source.rows), setting)
        yield words, peak_of(rows) if rows else None


def rises_then_falls(source: Source) -> Iterator[tuple[str, Finding | None]]:
    for words, peak in _settings(source):
        finding = None
        if peak is not None:
            numbers = f"peak at epoch {peak.epoch:g} of {peak.epochs}, drop {peak.drop:.1f}"
            finding = peak.falls, numbers
        yield words, finding


def training_goes_on_rising(source: Source) -> Iterator[tuple[str, Finding | None]]:
    for words, peak in _settings(source):
        finding = None
        if peak is not None and peak.train_gain is not None:
            finding = peak.train_gain > 0, f"{peak.train_gain:+.1f} points after the peak"
        yield words, finding


def every_factor_matters(source: Source) -> Iterator[tuple[str, Finding | None]]:
    by_factor: dict[str, list[Peak | None]] = {}
    for factor, _, peak in peaks(source):
        by_factor.setdefault(factor, []).append(peak)
    for factor, found in by_factor.items():
        known = [peak for peak in found if peak is not None]
        finding = None
        if len(known) == len(found):
            drops, at = [peak.drop for peak in known], [peak.epoch for peak in known]
            chance = math.sqrt(2) * max(peak.noise for peak in known)
            spread = max(drops) - min(drops)
            numbers = (
                f"peak at {min(at):g} to {max(at):g}, drop {min(drops):.1f} to {max(drops):.1f}"
            )
            finding = spread > 2 * chance and min(at) < max(at), numbers
        yield factor, finding


CLAIMS = (
    Claim(
        "Test accuracy first rises, then falls (Sec. 3.1, Fig. 1)",
        "the peak of the curve, smoothed over 3 epochs, lies before the last epoch, and from it "
        "to the mean of the last tenth of the epochs accuracy falls by more than 2 standard "
        "deviations (of test sample and epoch, or over seeds if that is larger), in every setting; "
        "an untrained network is at chance, so that every curve rises at first",
        "memorisation",
        rises_then_falls,
    ),
    Claim(
        "Training accuracy goes on rising meanwhile (Fig. 1 a)",
        "it is higher at the last epoch than at the peak of test accuracy, in every setting",
        "memorisation",
        training_goes_on_rising,
    ),
    Claim(
        "When the peak comes and how far accuracy falls depend on each factor (Sec. 3.1, Fig. 1)",
        "among the values of a factor the peak's epoch differs, and the drop by more than 2 "
        "standard deviations, for every factor",
        "memorisation",
        every_factor_matters,
    ),
    Claim(
        "The proposed method is more accurate than every other (Sec. 4.2.1, Fig. 4)",
        "highest mean test accuracy at the last epoch of the paper's methods, under every noise",
        "methods",
        proposed_is_best,
    ),
    Claim(
        "The searched R(t) finally drops more than the noise rate (Sec. 4.2.2, Fig. 5)",
        "R(T) is below 1 - noise rate, for every seed and noise",
        "methods",
        ends_below_the_clean_share,
    ),
    Claim(
        "Label precision is higher than Co-teaching's (App. B.3, Fig. 7)",
        "mean at the last epoch, under every noise",
        "methods",
        cleaner_than_co_teaching,
    ),
    Claim(
        "F-correction fails on pairflip 45 % (Tables 4 to 6)",
        "its best epoch is below Standard's best, in the mean",
        "methods",
        f_correction_fails,
    ),
    Claim(
        "Not the paper's: a searched R(t), of Co-teaching or JoCoR, is the best of all methods",
        "no line's mean test accuracy is higher by more than its standard deviation over seeds, at "
        "the last epoch and at the best one, under every noise",
        "all methods",
        a_searched_one_is_best,
    ),
    Claim(
        "The basis space is better than Co-teaching's and than a power decay (App. B.2, Table 7)",
        "highest mean test accuracy at the best epoch, under every noise",
        "spaces",
        basis_is_best,
    ),
)
