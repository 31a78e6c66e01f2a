"""What the paper claims in words, judged from the rows by the rules below.

A claim over several noises or settings holds if it holds for each; a single contradiction settles
it. Two means that differ by no more than the larger of their standard deviations over seeds are a
tie, and so is a claim with a tie and no contradiction.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise

from experiments import fig1, fig3, fig6
from experiments.common import NOISES, Row
from experiments.comparison import percent, rows_of
from experiments.rows import in_words, mean_std
from keeprate.noise import Noise

HELD, TIED, FAILED, UNKNOWN = "held", "a tie", "did not hold", "not yet measured"
IN_PART = "not yet measured in full"
SEARCHED = ("proposed", "jocor-searched")  # lines of a table with a searched R(t)
SUFFIXES = {HELD: "", TIED: " (a tie)", FAILED: " (no)"}
MOST_EVIDENCE = 6  # of more parts only the contradictions are listed

Finding = tuple[str, str]  # HELD, TIED or FAILED in this part, and the numbers
Findings = Iterator[tuple[str, Finding | None]]  # part in words, finding; None if not measured


@dataclass(frozen=True)
class Source:
    """The rows of a results file.

    Attributes
    ----------
    title : str
    kind : {"methods", "all methods", "spaces", "memorisation", "samplers", "searches"}
        What the rows compare; "methods" are the paper's.
    rows : sequence of dict
    noises, names : sequence of str
        Noises and arms that the file is meant to have.
    complete : bool
        Whether every seed of the protocol is there.
    memorisation : fig1.Protocol, optional
        Of a source of that kind.
    """

    title: str
    kind: str
    rows: Sequence[Row] = ()
    noises: Sequence[str] = tuple(NOISES)
    names: Sequence[str] = ()
    complete: bool = True
    memorisation: fig1.Protocol | None = None


@dataclass(frozen=True)
class Verdict:
    """What a source says of a claim."""

    source: str
    verdict: str
    evidence: Sequence[str] = field(default_factory=tuple)


@dataclass(frozen=True)
class Claim:
    """A claim of the paper.

    Attributes
    ----------
    text, rule : str
        As printed.
    kind : str
        Of the sources that can judge it.
    judge : callable
        Source -> findings, one for each part.
    """

    text: str
    rule: str
    kind: str
    judge: Callable[[Source], Findings]

    def verdict(self, source: Source) -> Verdict:
        """Judge the claim by a source."""
        findings = list(self.judge(source))
        known = [(words, finding) for words, finding in findings if finding is not None]
        evidence = [
            f"{words}: {numbers}" + SUFFIXES[state]
            for words, (state, numbers) in known
            if len(known) <= MOST_EVIDENCE or state == FAILED
        ]
        states = [state for _, (state, _) in known]
        if len(known) > MOST_EVIDENCE:
            ties = f", {states.count(TIED)} ties" if TIED in states else ""
            evidence.insert(0, f"{states.count(HELD)} of {len(known)} parts{ties}")
        if not known:
            verdict = UNKNOWN
        elif FAILED in states:
            verdict = FAILED
        elif not source.complete or len(known) < len(findings):
            verdict = IN_PART
        else:
            verdict = TIED if TIED in states else HELD
        return Verdict(source.title, verdict, evidence)


def _paired(source: Source, noise: str, names: Sequence[str]) -> dict[str, list[Row]]:
    """Rows of several arms, of the seeds that all of them have: these share noise and split."""
    rows_by_name = {name: rows for name in names if (rows := rows_of(source.rows, noise, name))}
    seeds_by_name = [{row["seed"] for row in rows} for rows in rows_by_name.values()]
    seeds = set.intersection(*seeds_by_name) if seeds_by_name else set()
    paired = {
        name: [row for row in rows if row["seed"] in seeds] for name, rows in rows_by_name.items()
    }
    return {name: rows for name, rows in paired.items() if rows}


def _state(holds: bool) -> str:
    return HELD if holds else FAILED


def _compared(values: Sequence[float], others: Sequence[float]) -> str:
    """Whether a mean is higher than another one, or a tie."""
    (mean, std), (other, other_std) = mean_std(values), mean_std(others)
    if abs(mean - other) <= max(std or 0.0, other_std or 0.0):
        return TIED
    return _state(mean > other)


# Methods ---------------------------------------------------------------------------------------


def proposed_is_best(source: Source) -> Findings:
    for noise in source.noises:
        paired = _paired(source, noise, source.names)
        for when in ("last", "best"):
            values = {name: percent(rows, when, "test_accuracy") for name, rows in paired.items()}
            proposed, finding = values.pop("proposed", None), None
            if proposed and values:
                rival = max(values, key=lambda name: statistics.fmean(values[name]))
                state = _compared(proposed, values[rival])
                # One better rival settles it. That none is better is known when all are there.
                if state == FAILED or len(paired) == len(source.names):
                    ours, theirs = in_words(*mean_std(proposed)), in_words(*mean_std(values[rival]))
                    finding = state, f"{ours} %, the best other {theirs} % ({rival})"
            yield f"{NOISES[noise]}, {when} epoch", finding


def ends_below_the_clean_share(source: Source) -> Findings:
    for noise in source.noises:
        rows = rows_of(source.rows, noise, "proposed")
        finding = None
        if rows:
            clean_share = 1 - (Noise.parse(noise).noise_rate or 0.0)
            ends = [row["keep_rate"][-1] for row in rows]
            n_below = sum(end < clean_share for end in ends)
            mean = statistics.fmean(ends)
            numbers = f"mean R(T) {mean:.2f}, below {clean_share:.2f} for {n_below}"
            finding = _state(n_below == len(ends)), f"{numbers} of {len(ends)} seeds"
        yield NOISES[noise], finding


def cleaner_than_co_teaching(source: Source) -> Findings:
    for noise in source.noises:
        paired = _paired(source, noise, ("proposed", "co-teaching"))
        finding = None
        if len(paired) == 2:
            a, b = (percent(rows, "last", "label_precision") for rows in paired.values())
            numbers = f"{in_words(*mean_std(a))} % against {in_words(*mean_std(b))} %"
            finding = _compared(a, b), numbers
        yield NOISES[noise], finding


def f_correction_fails(source: Source) -> Findings:
    noise = "pairflip:0.45"
    paired = _paired(source, noise, ("f-correction", "standard"))
    finding = None
    if len(paired) == 2:
        a, b = (percent(rows, "best", "test_accuracy") for rows in paired.values())
        numbers = f"best epoch {in_words(*mean_std(a))} %, Standard {in_words(*mean_std(b))} %"
        finding = _compared(b, a), numbers
    yield NOISES[noise], finding


def a_searched_one_is_best(source: Source) -> Findings:
    for noise in source.noises:
        paired = _paired(source, noise, source.names)
        for when in ("last", "best"):
            values = {name: percent(rows, when, "test_accuracy") for name, rows in paired.items()}
            finding = None
            if len(paired) == len(source.names):
                means = {name: statistics.fmean(of_arm) for name, of_arm in values.items()}
                best = max(means, key=lambda name: means[name])
                searched = max((n for n in SEARCHED if n in means), key=lambda name: means[name])
                numbers = (
                    f"{means[searched]:.2f} % ({searched}), the best "
                    f"{in_words(*mean_std(values[best]))} ({best})"
                )
                if searched == best:
                    rest = max((n for n in means if n not in SEARCHED), key=lambda n: means[n])
                    finding = _compared(values[searched], values[rest]), numbers
                else:
                    finding = _compared(values[searched], values[best]), numbers
            yield f"{NOISES[noise]}, {when} epoch", finding


# Spaces ----------------------------------------------------------------------------------------


def basis_is_best(source: Source) -> Findings:
    for noise in source.noises:
        names = ("basis", "co-teaching", "power-decay")
        paired = _paired(source, noise, names)
        for when in ("last", "best"):
            finding = None
            if len(paired) == len(names):
                basis, *others = (percent(rows, when, "test_accuracy") for rows in paired.values())
                words = [in_words(*mean_std(values)) for values in (basis, *others)]
                numbers = f"{words[0]} %, Co-teaching's {words[1]} %, power decay {words[2]} %"
                finding = _compared(basis, max(others, key=statistics.fmean)), numbers
            yield f"{NOISES[noise]}, {when} epoch", finding


# Samplers --------------------------------------------------------------------------------------


def natural_gradient_is_best(source: Source) -> Findings:
    """The paper's form against the samplers that the paper has, on known schedules."""
    for target in fig3.TARGETS:
        quartiles = {
            name: fig3.quartiles(source.rows, name, target, fig3.MARKS[-1])
            for name in ("ng-paper", *PAPER_RIVALS)
        }
        yield target, _lowest(quartiles, "ng-paper")


def default_is_best(source: Source) -> Findings:
    """keeprate's default against all others, on known schedules."""
    for target in fig3.TARGETS:
        for mark in fig3.MARKS[1:]:
            quartiles = {
                arm.name: fig3.quartiles(source.rows, arm.name, target, mark)
                for arm in fig3.SAMPLERS
            }
            yield f"{target}, {mark} evaluations", _lowest(quartiles, fig3.OURS)


PAPER_RIVALS = ("random", "tpe", "cma-es", "gp")


def _lowest(quartiles: Mapping[str, Sequence[float] | None], name: str) -> Finding | None:
    """Whether a median is the lowest; a tie if it lies between the quartiles of a lower one."""
    known = {key: values for key, values in quartiles.items() if values is not None}
    if len(known) < len(quartiles):
        return None
    own = known.pop(name)
    rival = min(known, key=lambda key: known[key][1])
    numbers = f"{own[1]:.4f}, the best other {known[rival][1]:.4f} ({rival})"
    if own[1] < known[rival][1]:
        return HELD, numbers
    return (TIED if own[1] <= known[rival][2] else FAILED), numbers


def natural_gradient_finds_more(source: Source) -> Findings:
    """The paper's form against the samplers that the paper has, on real trainings."""
    for noise in NOISES:
        tests = {
            name: fig6.of_noise(fig6.accuracies(source.rows, name, fig6.COST), noise)
            for name in ("ng-paper", *PAPER_RIVALS)
        }
        finding = None
        if all(tests.values()):
            own = tests.pop("ng-paper")
            rival = max(tests, key=lambda name: statistics.fmean(tests[name]))
            numbers = (
                f"{in_words(*mean_std(own))} %, the best other "
                f"{in_words(*mean_std(tests[rival]))} % ({rival})"
            )
            finding = _compared(own, tests[rival]), numbers
        yield NOISES[noise], finding


def search_earns_its_price(source: Source) -> Findings:
    """keeprate's search against searches from its own start, no search, and a long one."""
    found = partial(fig6.accuracies, source.rows)
    small, ours = (found(fig6.OURS.name, cost) for cost in fig6.COSTS)
    rivals = {
        arm.name: compared
        for arm in fig6.FROM_START
        if (compared := fig6.compare(ours, found(arm.name, fig6.COST))) is not None
    }
    finding = None
    if len(rivals) == len(fig6.FROM_START):
        judged = {name: _above(compared) for name, compared in rivals.items()}
        order = (FAILED, TIED, HELD)
        name = min(judged, key=lambda name: (order.index(judged[name][0]), rivals[name].mean))
        finding = judged[name][0], f"least above {name}, {judged[name][1]}"
    yield f"cost {fig6.COST}", finding
    told = fig6.compare(small, found(fig6.TOLD, fig6.SMALL_COST))
    yield f"cost {fig6.SMALL_COST}, told", None if told is None else _above(told)
    long, finding = fig6.compare(ours, found(fig6.LONG_ARM.name, fig6.LONG)), None
    if long is not None and long.n_runs == len(ours) >= fig6.LEAST_PAIRS:
        finding = _state(long.mean >= -NEAR_THE_LONG_SEARCH), str(long)
    yield f"cost {fig6.COST}, against {fig6.LONG} trials", finding


NEAR_THE_LONG_SEARCH = 0.3


def _above(compared: fig6.Compared) -> Finding:
    """Whether paired values are above others by more than chance; a tie if chance may be all."""
    is_chance = compared.p_value is None or compared.p_value >= SIGNIFICANT
    if is_chance or not compared.ranks_agree:
        return TIED, str(compared)
    return _state(compared.mean > 0), str(compared)


SIGNIFICANT = 0.05


# Memorisation ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Peak:
    """Where test accuracy peaks, and how far it falls.

    Attributes
    ----------
    epoch : float
        Of the peak.
    height : float
        Accuracy at the peak, in percent.
    drop : float
        To the mean of the last tenth of the epochs, in percentage points.
    deviation : float
        That a difference of two such accuracies has by chance, in percentage points.
    epochs : int
        T.
    train_gain : float or None
        Of training accuracy, from the peak to the last epoch, in percentage points.
    """

    epoch: float
    height: float
    drop: float
    deviation: float
    epochs: int
    train_gain: float | None

    @property
    def falls(self) -> bool:
        """Whether accuracy falls by more than chance explains."""
        return self.epoch < self.epochs and self.drop > 2 * self.deviation


def peak_of(rows: Sequence[Row]) -> Peak:
    """The peak of curves that are smoothed over three epochs; the mean over seeds.

    The deviation is that of the test sample together with the fluctuation between epochs, or that
    of seeds if it is larger: the highest of many fluctuating numbers is no peak.
    """
    epochs, heights, drops, deviations, gains = [], [], [], [], []
    for row in rows:
        raw = row["curves"]["test_accuracy"]
        curve = [statistics.fmean(raw[max(0, t - 1) : t + 2]) for t in range(len(raw))]
        end = statistics.fmean(raw[-max(1, len(raw) // 10) :])
        height = max(curve)
        best = curve.index(height)
        epochs.append(best + 1)
        heights.append(100 * height)
        drops.append(100 * (height - end))
        steps = [b - a for a, b in pairwise(raw[len(raw) // 2 :])]
        fluctuation = statistics.pstdev(steps) / math.sqrt(2) if steps else 0.0
        sampling = math.sqrt(2 * height * (1 - height) / row["n_test"])
        deviations.append(100 * math.hypot(sampling, fluctuation))
        training = row["curves"].get("train_accuracy")
        if training:
            gains.append(100 * (training[-1] - training[best]))
    between_seeds = statistics.stdev(drops) if len(drops) > 1 else 0.0
    return Peak(
        statistics.fmean(epochs),
        statistics.fmean(heights),
        statistics.fmean(drops),
        max(between_seeds, statistics.fmean(deviations)),
        len(rows[0]["curves"]["test_accuracy"]),
        statistics.fmean(gains) if gains else None,
    )


def peaks(source: Source) -> Iterator[tuple[str, str, Peak | None]]:
    """(factor, label, peak) of every value of every factor; None if the training is missing."""
    if source.memorisation is None:
        return
    for factor, values in source.memorisation.factors.items():
        for label, setting in values.items():
            rows = fig1.rows_of(list(source.rows), setting)
            yield factor, label, peak_of(rows) if rows else None


def _peak_of_each_setting(source: Source) -> Iterator[tuple[str, Peak | None]]:
    """Each setting once, though every factor holds the base."""
    if source.memorisation is None:
        return
    words_of = {source.memorisation.base: "base"}
    for factor, values in source.memorisation.factors.items():
        for label, setting in values.items():
            if label not in source.memorisation.too_short:
                words_of.setdefault(setting, f"{factor} {label}")
    for setting, words in words_of.items():
        rows = fig1.rows_of(list(source.rows), setting)
        yield words, peak_of(rows) if rows else None


def rises_then_falls(source: Source) -> Findings:
    for words, peak in _peak_of_each_setting(source):
        finding = None
        if peak is not None:
            numbers = f"peak at epoch {peak.epoch:g} of {peak.epochs}, drop {peak.drop:.1f}"
            finding = _state(peak.falls), numbers
        yield words, finding


def training_goes_on_rising(source: Source) -> Findings:
    for words, peak in _peak_of_each_setting(source):
        finding = None
        if peak is not None and peak.train_gain is not None:
            finding = _state(peak.train_gain > 0), f"{peak.train_gain:+.1f} points after the peak"
        yield words, finding


def every_factor_matters(source: Source) -> Findings:
    peaks_of: dict[str, list[Peak | None]] = {}
    too_short = () if source.memorisation is None else source.memorisation.too_short
    for factor, label, peak in peaks(source):
        if label not in too_short:
            peaks_of.setdefault(factor, []).append(peak)
    for factor, of_factor in peaks_of.items():
        known = [peak for peak in of_factor if peak is not None]
        finding = None
        if len(known) == len(of_factor):
            drops, epochs = [peak.drop for peak in known], [peak.epoch for peak in known]
            deviation = math.sqrt(2) * max(peak.deviation for peak in known)
            low, high = min(drops), max(drops)
            numbers = f"peak at {min(epochs):g} to {max(epochs):g}, drop {low:.1f} to {high:.1f}"
            finding = _state(high - low > 2 * deviation and min(epochs) < max(epochs)), numbers
        yield factor, finding


CLAIMS = (
    Claim(
        "Test accuracy first rises, then falls (Sec. 3.1, Fig. 1)",
        "the peak of the curve, smoothed over 3 epochs, lies before the last epoch; from the peak "
        "to the mean of the last tenth of the epochs accuracy falls by more than 2 standard "
        "deviations (of test sample and epoch, or over seeds if that is larger); both in every "
        "setting. An untrained network is at chance, so every curve rises at first",
        "memorisation",
        rises_then_falls,
    ),
    Claim(
        "Training accuracy goes on rising meanwhile (Fig. 1 a)",
        "training accuracy is higher at the last epoch than at the peak of test accuracy, in every "
        "setting",
        "memorisation",
        training_goes_on_rising,
    ),
    Claim(
        "When the peak comes and how far accuracy falls depend on each factor (Sec. 3.1, Fig. 1)",
        "among the values of a factor the epoch of the peak differs, and the drop differs by more "
        "than 2 standard deviations, for every factor",
        "memorisation",
        every_factor_matters,
    ),
    Claim(
        "The proposed method is more accurate than every other (Sec. 4.2.1, Fig. 4)",
        "its mean test accuracy is the highest of the paper's methods, at the last and at the best "
        "epoch, under every noise",
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
        "the mean at the last epoch is higher, under every noise",
        "methods",
        cleaner_than_co_teaching,
    ),
    Claim(
        "F-correction fails on pairflip 45 % (Tables 4 to 6)",
        "the mean test accuracy of its best epoch is below that of Standard's",
        "methods",
        f_correction_fails,
    ),
    Claim(
        "Not the paper's: a searched R(t), of Co-teaching or JoCoR, is the best of all methods",
        "the mean test accuracy of one of them is the highest, at the last and at the best epoch, "
        "under every noise",
        "all methods",
        a_searched_one_is_best,
    ),
    Claim(
        "The basis space is better than Co-teaching's and than a power decay (App. B.2, Table 7)",
        "its mean test accuracy is the highest, at the last and the best epoch, under every noise",
        "spaces",
        basis_is_best,
    ),
    Claim(
        "The natural gradient finds known schedules best (Sec. 4.1, Fig. 3)",
        "the median error of the paper's form after 200 evaluations is below those of random "
        "search, TPE, CMA-ES and a Gaussian process over parameters, on every target; a tie if it "
        "lies within the quartiles of the best",
        "samplers",
        natural_gradient_is_best,
    ),
    Claim(
        "Not the paper's: keeprate's default search finds known schedules best",
        "its median error is the lowest of all after 50, 100 and 200 evaluations, on every target",
        "samplers",
        default_is_best,
    ),
    Claim(
        "Not the paper's: at six trainings, too, the natural gradient finds more (Fig. 6)",
        "the paper's searches cost 50 trainings and more. At the cost of six, in generations of "
        "two, the test accuracy of the schedule that its form ranks first is the highest, of the "
        "same samplers, under every noise",
        "searches",
        natural_gradient_finds_more,
    ),
    Claim(
        "Not the paper's: at the price of six trainings keeprate's search finds more than others "
        "that go on from its start",
        "over all noises and seeds, its mean test accuracy at cost 6 is above that of each of "
        "them, at cost 3 above that of Co-teaching told the noise rate (signed-rank tests of "
        "paired runs, p < 0.05; a tie if p is larger, or if mean and ranks disagree), and at cost "
        "6 at most 0.3 points below that of a search of 40 trials",
        "searches",
        search_earns_its_price,
    ),
)
