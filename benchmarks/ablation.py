"""What each part of the search brings: `python -m benchmarks.ablation`.

A search here may choose only among schedules that were really trained: 120 for each of three noises
on MNIST (`benchmarks.schedule_bench`, 10,000 samples), 48 for each of eleven noises and four
settings on digits, and 24 in three settings on many varied digits (`experiments.experience`).
Nothing is fitted to them and nothing is simulated: a chosen schedule has the validation value, and
the test accuracy, of its own training. On MNIST each search is repeated with `REPEATS` random
subsets of the schedules. What a search begins with was seen on digits, so MNIST is a setting that
it has never seen; on digits it begins without the noise that it is judged on, all settings and
kinds of that rate.

All these are development data: parts of the search were chosen on them.

A search is judged by how far its choice, the schedule with the best validation value so far, is
below the best schedule there: in test accuracy on MNIST, in the validation value on digits, which
has no test samples here. The natural gradient and the presets name schedules that were not trained:
they get the nearest one.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import optuna
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.schedule_bench import RESULTS as BENCH
from benchmarks.schedule_bench import TEST_ACCURACY
from experiments import experience
from experiments.common import Row, read_results
from keeprate import NaturalGradientSampler
from keeprate.files import write_json
from keeprate.noise import Noise
from keeprate.records import versions
from keeprate.schedules import exponential_drop, get_space, plain_decay
from keeprate.searching import (
    Conditions,
    Experience,
    Kernel,
    Surrogate,
    Task,
    most_improving,
    shipped_experience,
)

Array = NDArray[np.float64]
RESULTS = Path(__file__).parent / "results" / "ablation.json"
COSTS = (3, 6, 12, 22)
REPEATS, SUBSET = 20, 80
GAPS_ON_MNIST = {"symmetric:0.2": 0.23, "symmetric:0.5": 0.33, "pairflip:0.45": 0.18}
"""Loss gaps that `keeprate.runs.train_first` finds on the samples of `schedule_bench`, seed 0."""
SPACE = get_space("basis")
EARLIER_PRESETS: tuple[tuple[Callable[..., Array], tuple[float, ...]], ...] = (
    (exponential_drop, (0.45, 20)),
    (exponential_drop, (0.4, 8)),
    (plain_decay, (0.85,)),
    (exponential_drop, (0.6, 8)),
    (plain_decay, (1.0,)),
    (exponential_drop, (0.35, 8)),
    (exponential_drop, (0.7, 4)),
)
"""The shapes that searches tried first before they had experience."""


@dataclass(frozen=True)
class Pool:
    """Schedules that were trained on the same data.

    Attributes
    ----------
    data, noise : str
    conditions : Conditions
        The true ones.
    keep_rates : ndarray [n, T]
    values : ndarray [n]
        Validation values.
    judged : ndarray [n]
        What a choice is judged by.
    known : Experience
        What a search may begin with: nothing of this noise and these data.
    blind : Experience
        The same without the loss gaps, which it takes for equal.
    """

    data: str
    noise: str
    conditions: Conditions
    keep_rates: Array
    values: Array
    judged: Array
    known: Experience
    blind: Experience

    def subset(self, rows: NDArray[np.int64]) -> Pool:
        """Some of the schedules."""
        return replace(
            self,
            keep_rates=self.keep_rates[rows],
            values=self.values[rows],
            judged=self.judged[rows],
        )

    def nearest(self, keep_rate: Array, taken: Sequence[int]) -> int:
        """The schedule that comes nearest to another one, of those not taken yet."""
        distance = np.square(self.keep_rates - keep_rate).mean(1)
        distance[list(taken)] = np.inf
        return int(distance.argmin())


# The ways to choose ----------------------------------------------------------------------------
# Each yields rows of the pool, the first one first, and sees the values of those before it.


def at_random(pool: Pool, rng: np.random.Generator, n: int) -> Iterator[int]:
    yield from rng.permutation(len(pool.values))[:n].tolist()


def presets(pool: Pool, rng: np.random.Generator, n: int) -> Iterator[int]:
    """The presets of earlier versions, then at random."""
    taken: list[int] = []
    epochs = pool.keep_rates.shape[1]
    for formula, numbers in EARLIER_PRESETS[:n]:
        taken.append(pool.nearest(formula(epochs, *numbers), taken))
        yield taken[-1]
    yield from [i for i in rng.permutation(len(pool.values)).tolist() if i not in taken][
        : n - len(taken)
    ]


def by_prior_mean(pool: Pool, rng: np.random.Generator, n: int) -> Iterator[int]:
    """What the experience expects to be best; nothing is learnt on the way."""
    belief = pool.known.belief(pool.conditions)
    yield from np.argsort(-belief.mean(belief.describe(pool.keep_rates)))[:n].tolist()


def by_process(
    pool: Pool,
    rng: np.random.Generator,
    n: int,
    *,
    begins: bool = True,
    knows_gap: bool = True,
    rate_error: float = 0.0,
    generations: int = 2,
) -> Iterator[int]:
    """keeprate's search, with experience or without, in generations."""
    assumed = max(0.0, pool.conditions.noise_rate + rate_error)
    conditions = replace(pool.conditions, noise_rate=assumed)
    known = pool.known if knows_gap else pool.blind
    if not knows_gap:
        conditions = replace(conditions, loss_gap=0.0)
    belief = known.belief(conditions) if begins else None
    points = pool.keep_rates if belief is None else belief.describe(pool.keep_rates)
    taken: list[int] = []
    size = max(1, min(10, -(-n // generations)))
    while len(taken) < n:
        told = list(taken)
        process: Any = belief
        if told and belief is not None:
            process = belief.learn(points[told], pool.values[told])
        elif belief is None:
            ranks = np.argsort(np.argsort(pool.values[told])).astype(np.float64)
            process = Surrogate.fit(points[told], ranks) if len(told) >= 2 else None
        for _ in range(min(size, n - len(taken))):
            left = np.array([i for i in range(len(points)) if i not in taken])
            if process is None:
                chosen = int(rng.choice(left))
            else:
                chosen = int(left[most_improving(process, points[taken], points[left], rng)])
            taken.append(chosen)
            yield chosen


def by_natural_gradient(
    pool: Pool, rng: np.random.Generator, n: int, **options: Any
) -> Iterator[int]:
    epochs = pool.keep_rates.shape[1]
    size = max(2, min(10, -(-n // 3)))
    sampler = NaturalGradientSampler(seed=int(rng.integers(2**31)), generation_size=size, **options)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    taken: list[int] = []
    while len(taken) < n:
        trials = [study.ask(SPACE.distributions(epochs)) for _ in range(min(size, n - len(taken)))]
        for trial in trials:
            keep_rate = SPACE.schedule(trial.params, epochs).keep_rate
            taken.append(pool.nearest(keep_rate, taken))
            study.tell(trial, float(pool.values[taken[-1]]))
            yield taken[-1]


Way = Callable[[Pool, np.random.Generator, int], Iterator[int]]


def _cold(pool: Pool, rng: np.random.Generator, n: int) -> Iterator[int]:
    return by_process(pool, rng, n, begins=False)


def _wrong(pool: Pool, rng: np.random.Generator, n: int) -> Iterator[int]:
    return by_process(pool, rng, n, rate_error=0.08)


def _blind(pool: Pool, rng: np.random.Generator, n: int) -> Iterator[int]:
    return by_process(pool, rng, n, knows_gap=False)


def _one_generation(pool: Pool, rng: np.random.Generator, n: int) -> Iterator[int]:
    return by_process(pool, rng, n, generations=1)


def _paper(pool: Pool, rng: np.random.Generator, n: int) -> Iterator[int]:
    return by_natural_gradient(pool, rng, n, fisher="monte-carlo", utilities="raw", step_size=20.0)


WAYS: dict[str, tuple[str, Way]] = {
    "random": ("random", at_random),
    "presets": ("earlier presets, then random", presets),
    "ng-paper": ("natural gradient, the paper's form", _paper),
    "ng": ("natural gradient, ranks", by_natural_gradient),
    "cold": ("Gaussian process, no experience", _cold),
    "prior": ("experience alone, nothing learnt", by_prior_mean),
    "once": ("experience and process, one generation", _one_generation),
    "wrong": ("keeprate's, noise rate taken 8 points too high", _wrong),
    "blind": ("keeprate's, the loss gap unknown", _blind),
    "ours": ("keeprate's: experience and process", by_process),
}


# The pools -------------------------------------------------------------------------------------


def pools_of_mnist(path: Path = BENCH) -> Iterator[Pool]:
    """One for each noise of `benchmarks.schedule_bench`."""
    known = shipped_experience()
    blind = _without_gap([experience.task_of(row) for row in _experience_rows()], known.kernel)
    rows = pq.read_table(path).to_pylist()
    for setting in sorted({row["setting"] for row in rows}):
        of_setting = [row for row in rows if row["setting"] == setting]
        epochs = len(of_setting[0]["validation_accuracy"])
        columns = np.array([row["parameters"] for row in of_setting]).T
        names = SPACE.distributions(epochs)
        noise = Noise.parse(setting.replace("-", ":"))
        yield Pool(
            "MNIST",
            str(noise),
            experience.conditions_of(noise, GAPS_ON_MNIST[str(noise)]),
            SPACE.keep_rates(dict(zip(names, columns, strict=True)), epochs),
            np.array(
                [fmean(row["validation_accuracy"][-max(1, epochs // 10) :]) for row in of_setting]
            ),
            np.array([row[TEST_ACCURACY][-1] for row in of_setting]),
            known,
            blind,
        )


def pools_of_digits() -> Iterator[Pool]:
    """One for each noise and setting of the experience, which lacks that noise rate there."""
    rows, kernel = _experience_rows(), shipped_experience().kernel
    known: dict[float, tuple[Experience, Experience]] = {}
    for row in rows:
        noise = Noise.parse(row["noise"])
        conditions, values = experience.task_of(row).conditions, np.array(row["values"])
        rate = conditions.noise_rate
        if rate not in known:
            others = [experience.task_of(one) for one in rows]
            others = [one for one in others if one.conditions.noise_rate != rate]
            known[rate] = Experience(others, kernel), _without_gap(others, kernel)
        name = "digits" if row["seed"] < experience.FIRST_VARIED else "varied digits"
        keep_rates = np.array(row["keep_rates"])
        yield Pool(name, str(noise), conditions, keep_rates, values, values, *known[rate])


def _experience_rows() -> list[Row]:
    stored = read_results(experience.NAME, "")
    return [] if stored is None else stored["rows"]


def _without_gap(tasks: Sequence[Task], kernel: Kernel) -> Experience:
    equal = [replace(one, conditions=replace(one.conditions, loss_gap=0.0)) for one in tasks]
    return Experience(equal, kernel)


# The numbers -----------------------------------------------------------------------------------


def gap(pool: Pool, chosen: Sequence[int]) -> float:
    """How far the choice is below the best schedule, in points."""
    best = chosen[int(pool.values[list(chosen)].argmax())]
    top = pool.judged[int(pool.values.argmax())]
    return 100 * float(top - pool.judged[best])


def measure(pool: Pool, repeats: int, subset: int | None) -> dict[str, dict[str, list[float]]]:
    """The gaps of each way at each cost, a number for each repeat."""
    found: dict[str, dict[str, list[float]]] = {}
    costs = [cost for cost in COSTS if cost <= len(pool.values) // 3]
    for name, (_, way) in WAYS.items():
        for cost in costs:
            gaps = []
            for repeat in range(repeats):
                rng = np.random.default_rng(repeat)
                some = pool
                if subset is not None:
                    some = pool.subset(rng.permutation(len(pool.values))[:subset])
                gaps.append(round(gap(some, list(way(some, rng, cost))), 4))
            found.setdefault(name, {})[str(cost)] = gaps
    return found


def table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Lines of Markdown: the mean gap of each way, over noises, by data set and cost."""
    columns = [("MNIST", cost) for cost in COSTS] + [("digits", cost) for cost in COSTS[:-1]]
    columns += [("varied digits", cost) for cost in COSTS[:-2]]
    lines = ["| | " + " | ".join(f"{data}, cost {cost}" for data, cost in columns) + " |"]
    lines.append("| --- " * (len(columns) + 1) + "|")
    for name, (label, _) in WAYS.items():
        cells = [
            fmean(fmean(row["gaps"][name][str(cost)]) for row in rows if row["data"] == data)
            for data, cost in columns
        ]
        lines.append(f"| {label} | " + " | ".join(f"{cell:.2f}" for cell in cells) + " |")
    return lines


def main() -> None:
    """Measure all ways on all pools; print and write the means."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=REPEATS)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    rows = []
    for pool in (*pools_of_mnist(), *pools_of_digits()):
        is_large = len(pool.values) > SUBSET
        repeats, subset = (options.repeats, SUBSET) if is_large else (3, None)
        gaps = measure(pool, repeats, subset)
        rows.append({"data": pool.data, "noise": pool.noise, "gaps": gaps})
        print(pool.data, pool.noise, f"{fmean(gaps['ours']['6']):.2f}", flush=True)
    content = {
        "command": "python -m benchmarks.ablation",
        "versions": versions(),
        "repeats": options.repeats,
        "rows": rows,
    }
    write_json(RESULTS, content)
    print(*table(rows), sep="\n")


if __name__ == "__main__":
    main()
