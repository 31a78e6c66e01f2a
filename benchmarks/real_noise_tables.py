"""Tables of `benchmarks.real_noise` from its rows: metrics, differences, ablations, goals."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.lines import ABLATIONS, DEFAULT, LINES, Line
from benchmarks.noisy_sets import SCENARIOS, SETS
from experiments.common import Row
from experiments.markdown import NOTHING, table
from experiments.rows import in_words, mean_std


@dataclass(frozen=True)
class Metric:
    """How a number of the rows is printed, and what the best of it is."""

    title: str
    best: int = 1  # the sign of what is to be high; 0: what is next to zero
    scale: float = 100.0


METRICS = {
    "accuracy": Metric("test accuracy, %"),
    "balanced_accuracy": Metric("balanced test accuracy, %"),
    "log_loss": Metric("log loss of the test samples", -1, 1.0),
    "average_precision": Metric("average precision of the wrong labels, %"),
    "list_precision": Metric("share of the listed labels that are wrong, %"),
    "listed": Metric("listed labels", 0, 1.0),
    "noise_after": Metric("wrong labels after all suggestions of the list are taken, %", -1),
    "noise_rate_error": Metric("estimated noise rate minus the true one, points", 0),
    "covered": Metric("seeds whose share of wrong labels lies in the interval, %", 1),
    "calibration_error": Metric("calibration error of the probability of a wrong label, %", -1),
    "seconds": Metric("processor seconds", -1, 1.0),
}
COUNTED = ("listed", "seconds", "covered")  # nothing is best
Values = dict[int, float]
"""Seed -> value."""


def values_of(rows: Sequence[Row], scenario: str, name: str, line: str, metric: str) -> Values:
    """A metric of a line on a set, by seed, as it is printed."""
    scale = METRICS[metric].scale
    key = {"scenario": scenario, "set": name, "line": line}
    return {
        row["seed"]: scale * row[metric]
        for row in rows
        if metric in row and all(row[k] == v for k, v in key.items())
    }


def sets_in(rows: Sequence[Row], scenario: str) -> list[str]:
    """The sets that have rows, in their order."""
    there = {row["set"] for row in rows if row["scenario"] == scenario}
    return [name for name in SETS if name in there]


def metric_table(
    rows: Sequence[Row], scenario: str, metric: str, lines: Mapping[str, Line] = LINES
) -> list[str]:
    """Lines of Markdown: mean and deviation over seeds, the best mean of a set in bold."""
    names = sets_in([row for row in rows if row["line"] in lines], scenario)
    cells: dict[str, list[str]] = {}
    means: dict[str, list[float | None]] = {}
    for line in lines:
        by_set = [values_of(rows, scenario, name, line, metric) for name in names]
        if any(by_set):
            known = [mean_std(list(values.values())) if values else None for values in by_set]
            cells[line] = [NOTHING if pair is None else in_words(*pair) for pair in known]
            means[line] = [None if pair is None else pair[0] for pair in known]
    if not cells:
        return []
    for column in range(len(names)):
        if best := _best(metric, {line: means[line][column] for line in means}):
            cells[best][column] = f"**{cells[best][column]}**"
    header = ["", *(SETS[name].title for name in names)]
    return table(header, [[line, *of_line] for line, of_line in cells.items()])


def _best(metric: str, means: dict[str, float | None]) -> str | None:
    known = {line: mean for line, mean in means.items() if mean is not None}
    if len(known) < 2 or metric in COUNTED:
        return None
    sign = METRICS[metric].best
    return max(known, key=lambda line: sign * known[line] if sign else -abs(known[line]))


def difference_table(rows: Sequence[Row], scenario: str, metric: str) -> list[str]:
    """Lines of Markdown: keeprate's default minus each other line, paired by seed.

    Mean and standard error over seeds; the last column is the mean over the sets that both have,
    with the standard error over these sets.
    """
    names, lines = sets_in(rows, scenario), []
    for line in LINES:
        paired = [
            differences(rows, scenario, name, line, metric) if line != DEFAULT else []
            for name in names
        ]
        if not any(paired):
            continue
        of_sets = [statistics.fmean(values) for values in paired if values]
        cells = [_with_error(values) for values in (*paired, of_sets)]
        lines.append([line, *cells])
    header = [f"{DEFAULT} minus", *(SETS[name].title for name in names), "mean of the sets"]
    return table(header, lines) if lines else []


def differences(
    rows: Sequence[Row], scenario: str, name: str, line: str, metric: str, minuend: str = DEFAULT
) -> list[float]:
    """The minuend's values minus the line's, of the seeds that both have."""
    own = values_of(rows, scenario, name, minuend, metric)
    other = values_of(rows, scenario, name, line, metric)
    return [own[seed] - other[seed] for seed in own if seed in other]


def _with_error(values: Sequence[float]) -> str:
    """A signed mean with its standard error."""
    if not values:
        return NOTHING
    mean = f"{statistics.fmean(values):+.2f}".replace("-", "−")
    if len(values) == 1:
        return mean
    return f"{mean}\xa0±\xa0{_error(values):.2f}"


def ablation_table(rows: Sequence[Row], metric: str) -> list[str]:
    """Lines of Markdown: the default and what it is without a part, on the sets that have both."""
    lacking = [row for row in rows if row["line"] in ABLATIONS.keys() - {DEFAULT}]
    names, seeds = ({row[key] for row in lacking} for key in ("set", "seed"))
    both = [row for row in rows if row["set"] in names and row["seed"] in seeds]
    return metric_table(both, "noisy", metric, ABLATIONS)


def set_table(rows: Sequence[Row]) -> list[str]:
    """Lines of Markdown: the sets, their seeds and the true share of wrong labels."""
    lines = []
    for name in SETS:
        own = [row for row in rows if row["set"] == name]
        if own:
            noise = mean_std(
                [100 * value for value in {r["seed"]: r["noise"] for r in own}.values()]
            )
            seeds = len({row["seed"] for row in own})
            lines.append([SETS[name].title, in_words(*noise), str(seeds)])
    return table(["set", "wrong training labels, %", "seeds"], lines) if lines else []


def all_tables(rows: Sequence[Row]) -> Iterator[str]:
    """Every table of the rows, line by line."""
    yield from set_table(rows)
    for scenario, words in SCENARIOS.items():
        for metric, how in METRICS.items():
            if lines := metric_table(rows, scenario, metric):
                yield from ("", f"**{words}: {how.title}**", "", *lines)
            if metric not in COUNTED and (lines := difference_table(rows, scenario, metric)):
                yield from ("", *lines)


# Goals -----------------------------------------------------------------------------------------

BASE, FOLDED = "MLP", "cleanlab CleanLearning"
CLEAN_ALONE = tuple(line for line in LINES if line.startswith("clean alone"))
RIVALS = tuple(line for line in LINES if not line.startswith("keeprate"))
MOST_SECONDS = 3.0  # in those of CleanLearning
Verdict = tuple[bool, str]
"""Whether a goal is met, and the number that says so."""


def goal_table(rows: Sequence[Row], scenario: str) -> list[str]:
    """Lines of Markdown: each set, and whether each goal is met there."""
    goals: dict[str, Callable[[str], Verdict | None]] = {
        "accuracy: no rival is better": lambda name: _unbeaten(rows, scenario, name),
        f"accuracy above {BASE}": lambda name: _above(rows, scenario, name, "accuracy", BASE),
        "accuracy above CleanLearning": lambda name: _above(
            rows, scenario, name, "accuracy", FOLDED
        ),
        "accuracy above clean alone": lambda name: _above(
            rows, scenario, name, "accuracy", *CLEAN_ALONE
        ),
        "average precision above CleanLearning's": lambda name: _above(
            rows, scenario, name, "average_precision", FOLDED
        ),
        f"at most {MOST_SECONDS:.0f} times CleanLearning's seconds": lambda name: _quick(
            rows, scenario, name
        ),
        "taking all suggestions does no harm": lambda name: _harmless(rows, scenario, name),
        "the interval holds the noise rate": lambda name: _covered(rows, scenario, name),
    }
    names = sets_in(rows, scenario)
    judged = {goal: [judge(name) for name in names] for goal, judge in goals.items()}
    judged = {goal: verdicts for goal, verdicts in judged.items() if any(verdicts)}
    if not judged:
        return []
    met = [
        f"{sum(v is not None and v[0] for v in verdicts)} of {sum(v is not None for v in verdicts)}"
        for verdicts in judged.values()
    ]
    by_set = zip(*judged.values(), strict=True)
    lines = [
        [SETS[name].title, *(_verdict(one) for one in verdicts)]
        for name, verdicts in zip(names, by_set, strict=True)
    ]
    return table(["set", *judged], [*lines, ["met", *met]])


def _verdict(verdict: Verdict | None) -> str:
    if verdict is None:
        return NOTHING
    is_met, words = verdict
    return f"yes, {words}" if is_met else f"**no**, {words}"


def _paired(
    rows: Sequence[Row], scenario: str, name: str, metric: str, lines: Sequence[str]
) -> dict[str, list[float]]:
    """The default minus each line that has seeds in common with it, the best line first."""
    found = {line: differences(rows, scenario, name, line, metric) for line in lines}
    known = {line: values for line, values in found.items() if values}
    return dict(sorted(known.items(), key=lambda pair: statistics.fmean(pair[1])))


def _above(
    rows: Sequence[Row], scenario: str, name: str, metric: str, *lines: str
) -> Verdict | None:
    """Strictly above each line in the mean over the seeds that both have."""
    paired = list(_paired(rows, scenario, name, metric, lines).values())
    return (statistics.fmean(paired[0]) > 0, _with_error(paired[0])) if paired else None


def _unbeaten(rows: Sequence[Row], scenario: str, name: str) -> Verdict | None:
    """No rival is above by more than a paired standard error; the words name the best rival."""
    paired = _paired(rows, scenario, name, "accuracy", RIVALS)
    beaten = [line for line, values in paired.items() if statistics.fmean(values) < -_error(values)]
    if not paired:
        return None
    best = next(iter(beaten or paired))
    return not beaten, f"{_with_error(paired[best])} ({best})"


def _quick(rows: Sequence[Row], scenario: str, name: str) -> Verdict | None:
    own, other = (values_of(rows, scenario, name, line, "seconds") for line in (DEFAULT, FOLDED))
    if not (seeds := own.keys() & other.keys()):
        return None
    ratio = sum(own[seed] for seed in seeds) / sum(other[seed] for seed in seeds)
    return ratio <= MOST_SECONDS, f"{ratio:.1f} times"


def _harmless(rows: Sequence[Row], scenario: str, name: str) -> Verdict | None:
    """No larger share of wrong labels in the mean over seeds."""
    own = [r for r in rows if (r["line"], r["scenario"], r["set"]) == (DEFAULT, scenario, name)]
    pairs = [(100 * row["noise"], 100 * row["noise_after"]) for row in own if "noise_after" in row]
    if not pairs:
        return None
    before, after = (statistics.fmean(side) for side in zip(*pairs, strict=True))
    return after <= before, f"{before:.2f} to {after:.2f} %"


def _covered(rows: Sequence[Row], scenario: str, name: str) -> Verdict | None:
    held = values_of(rows, scenario, name, DEFAULT, "covered").values()
    n_held = sum(value > 0 for value in held)
    return (n_held == len(held), f"{n_held} of {len(held)}") if held else None


def _error(values: Sequence[float]) -> float:
    """The standard error of a mean; 0 for one value."""
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
