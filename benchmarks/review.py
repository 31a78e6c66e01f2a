"""What a review of labels is worth: `python -m benchmarks.review`.

The whole way of a careful person: train, look at the labels that rank first, decide on 200 of them
by the truth, write them back (`keeprate apply`), train again after these decisions (`--after`), and
once more on the copy with the right labels alone. The arms differ only in the order in which the
reviewer sees the labels: by keeprate, by cleanlab on out-of-sample probabilities of the same
network (five folds, as many epochs as keeprate's), or at random. All arms share the first training.
No label is known to be right before the review.

Settings were tried on seeds from 1000 on (`--first 1000 --out FOLDER`). `--embedded` takes the sets
that need no folder of data. The same command goes on after a kill. The results are in
`results/review.json`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import keeprate
from benchmarks.common import RESULTS
from benchmarks.label_issues import FOLDS, out_of_sample
from benchmarks.review_sets import EMBEDDED, MOST_ROWS, REAL, SETS, TEXT_NOISE, Source
from experiments.common import Row
from experiments.jobs import Job, run_missing
from experiments.rows import in_words, mean_std
from keeprate import Data, Decision, InputError, Run, TrainingConfig
from keeprate.data import join, with_reviewed
from keeprate.records import apply_decisions, earlier_decisions, reviewed_of, save_decisions

NAME = "review"
FIRST, SEEDS, DECISIONS, ROUNDS = 100, 3, 200, 1
EPOCHS = TrainingConfig().epochs

Rows = NDArray[np.int64]
Ranking = Callable[[Run, Data, int], Rows]
"""(run, its data, seed) -> rows of the source that the run judged, the most suspect first."""


def by_keeprate(run: Run, data: Data, seed: int) -> Rows:
    """Rank by the probability that the label is right."""
    return run.label_quality.rows[run.label_quality.ranking]


def by_cleanlab(run: Run, data: Data, seed: int) -> Rows:
    """Rank by cleanlab: its list of issues first, then all others by its score."""
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    pool = join(data.train, data.validation)  # as in cross-fitting: every sample trains
    labels, config = pool.labels.numpy(), run.record.config
    epochs, model = config["training"]["epochs"], config["model"]
    probabilities = out_of_sample(replace(data, train=pool), epochs, seed, model)
    listed = find_label_issues(
        labels, probabilities, return_indices_ranked_by="self_confidence", n_jobs=1
    )
    order = np.argsort(get_label_quality_scores(labels, probabilities), kind="stable")
    rows = pool.rows.numpy()[[*listed, *order[~np.isin(order, listed)]]]
    return rows[np.isin(rows, run.label_quality.rows)]  # no label is reviewed twice


def at_random(run: Run, data: Data, seed: int) -> Rows:
    """Rank at random."""
    return np.random.default_rng([seed, 29]).permutation(run.label_quality.rows)


ARMS: dict[str, Ranking] = {"keeprate": by_keeprate, "cleanlab": by_cleanlab, "random": at_random}


# The loop ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Loop:
    """Training, review and training again, on one source.

    Attributes
    ----------
    source : Source
    seed : int
    config : TrainingConfig
    decisions : int
        Of each round.
    """

    source: Source
    seed: int
    config: TrainingConfig
    decisions: int

    def data(self, path: Path, before: Path | None = None) -> Data:
        """Read the source or a copy, with what was decided up to the run before if there is one."""
        data = keeprate.prepare(path, validation="noisy", seed=self.seed)
        if before is None:
            return data
        return with_reviewed(data, reviewed_of(earlier_decisions(before), len(self.source.truth)))

    def train(
        self, path: Path, out: Path | None = None, after: Path | None = None
    ) -> tuple[Run, Row]:
        """Train as `keeprate train PATH --validation noisy --after RUN`; the run and its worth."""
        started = time.process_time()  # whatever else runs on the machine
        run = keeprate.train(
            self.data(path),
            config=self.config,
            seed=self.seed,
            baselines=False,
            out=out,
            after=after,
        )
        seconds = time.process_time() - started
        return run, _worth(run) | {"seconds": round(seconds, 2)}

    def review(self, run: Run, rank: Ranking, number: int, work: Path) -> tuple[Run, Row]:
        """Rank, decide, apply, train again: round `number` of an arm with its own folder.

        The run that goes on reads the source and the decisions (`--after`). Another training,
        `on_copy`, reads what `keeprate apply` wrote, and knows nothing of the decisions.
        """
        folder, before = work / f"run-{number - 1}", work / f"run-{number - 2}"
        data = self.data(self.source.path, before if number > 1 else None)
        started = time.process_time()
        ranked = rank(run, data, self.seed)[: self.decisions]
        seconds = time.process_time() - started
        decided = reviewed_by_truth(run, self.source, ranked)
        save_decisions(work / "decisions.csv", decided)
        fixed = work / f"fixed-{number}"
        apply_decisions(folder, work / "decisions.csv", fixed)
        after, worth = self.train(self.source.path, work / f"run-{number}", folder)
        return after, {
            "decisions": len(decided),
            "changed": sum(one.verdict == "change" for one in decided),
            "ranking_seconds": round(seconds, 2),
            **_labels(self.source, fixed),
            **worth,
            "on_copy": self.train(fixed)[1],
        }


def compare(
    names: Sequence[str],
    *,
    data: str,
    seed: int,
    folder: str,
    decisions: int,
    rounds: int,
    epochs: int,
) -> list[Row]:
    """Review the labels of one source in the order of each arm; a row for each arm."""
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        source = SETS[data].source(folder, seed, work / "source")
        loop = Loop(source, seed, TrainingConfig(epochs=epochs), decisions)
        first, worth = loop.train(source.path, work / "first")
        for name in names:
            # A run folder keeps the decisions that were applied on it: each arm has a copy.
            shutil.copytree(work / "first", work / name / "run-0")
            run, found = first, [_labels(source, source.path) | worth]
            for number in range(1, rounds + 1):
                run, row = loop.review(run, ARMS[name], number, work / name)
                found.append(row)
            rows.append({"name": name, "samples": len(source.truth), "rounds": found})
    return rows


def reviewed_by_truth(run: Run, source: Source, rows: Rows) -> list[Decision]:
    """Decide as somebody does who knows the true labels: keep the right, change the wrong."""
    quality, class_names = run.label_quality, run.record.data.class_names
    place = {row: i for i, row in enumerate(quality.rows.tolist())}
    decided = []
    for row in rows.tolist():
        i = place[row]
        name = quality.names[i] if quality.names else ""
        given, true = class_names[quality.given[i]], source.truth[source.key(row, name)]
        decided.append(Decision(row, given, "keep" if given == true else "change", true, name))
    return decided


def _labels(source: Source, path: Path) -> Row:
    """How many labels of a source or of its copy are wrong."""
    wrong = source.wrong(path)
    return {"wrong": wrong, "wrong_share": round(wrong / len(source.truth), 6)}


def _worth(run: Run) -> Row:
    """How a run does on the test split, whose labels are right."""
    result, found = run.results[0], run.record.by_class
    last, best = result.last.test_accuracy, result.best.test_accuracy
    if found is None or last is None or best is None:
        raise ValueError("a source must have a test split")
    recalls = [found.recall(i) for i in range(len(found.samples))]
    return {
        "last": round(last, 6),
        "best": round(best, 6),
        "balanced": round(float(np.mean([r for r in recalls if r is not None])), 6),
    }


# Rows and tables ---------------------------------------------------------------------------------


def protocol(decisions: int, rounds: int, epochs: int) -> Row:
    """Every number that a row depends on."""
    return {
        "decisions a round": decisions,
        "rounds": rounds,
        "epochs": epochs,
        "batch_size": TrainingConfig().batch_size,
        "validation": "noisy",
        "cleanlab folds": FOLDS,
        "cleanlab epochs": "those of keeprate",
        "rows of the table jira": MOST_ROWS,
        "noise of the docstrings": TEXT_NOISE,
    }


def gains(
    rows: Sequence[Row], number: int, *, on_copy: bool = False, measure: str = "last"
) -> list[float]:
    """Points of a test measure that a round and those before it gained, row by row.

    "last" is the accuracy, "balanced" the mean recall of the classes, both at the last epoch.
    """
    ends = [row["rounds"][number]["on_copy"] if on_copy else row["rounds"][number] for row in rows]
    return [
        100 * (end[measure] - row["rounds"][0][measure])
        for row, end in zip(rows, ends, strict=True)
    ]


TITLES = (
    "set",
    "ranked by",
    "decisions",
    "wrong among them",
    "wrong labels, %, before and after",
    "test accuracy before, %",
    "points gained with `--after`",
    "on the copy",
    "mean recall: points with `--after`",
    "on the copy",
)


def table(rows: Sequence[Row]) -> list[str]:
    """Lines of Markdown, one for each set, arm and number of rounds.

    Numbers are means and deviations over seeds; gains of 100 decisions in parentheses.
    """
    lines = [f"| {' | '.join(TITLES)} |", "| --- " * len(TITLES) + "|"]
    for data in dict.fromkeys(row["data"] for row in rows):
        for name in ARMS:
            own = [row for row in rows if (row["data"], row["name"]) == (data, name)]
            n_rounds = min((len(row["rounds"]) for row in own), default=1)
            lines += [f"| {' | '.join(_cells(own, number))} |" for number in range(1, n_rounds)]
    return lines


def _cells(rows: Sequence[Row], number: int) -> list[str]:
    def percent(measure: str, number: int) -> str:
        return in_words(*mean_std([100 * row["rounds"][number][measure] for row in rows]))

    reviewed = [row["rounds"][1 : number + 1] for row in rows]
    decisions = sum(one["decisions"] for one in reviewed[0])
    changed = np.mean([sum(one["changed"] for one in rounds) for rounds in reviewed])
    gained = [gains(rows, number, on_copy=on_copy) for on_copy in (False, True)]
    recall = [gains(rows, number, on_copy=on_copy, measure="balanced") for on_copy in (False, True)]
    return [
        SETS[rows[0]["data"]].title,
        rows[0]["name"],
        str(decisions),
        f"{changed:.0f}",
        f"{percent('wrong_share', 0)} → {percent('wrong_share', number)}",
        percent("last", 0),
        *(f"{in_words(*mean_std(g))} ({100 * np.mean(g) / decisions:z.2f})" for g in gained),
        *(in_words(*mean_std(g)) for g in recall),
    ]


def jobs_of(sets: Sequence[str], seeds: Sequence[int], folder: str, **numbers: Any) -> list[Job]:
    """A job for each source, seed by seed; it makes a row for each arm."""
    return [
        Job(
            {"data": data, "seed": seed},
            partial(compare, data=data, seed=seed, folder=folder, **numbers),
            tuple(ARMS),
        )
        for seed in seeds
        for data in sets
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--data", default=os.environ.get("KEEPRATE_DATA", "../shared/data"))
    add("--sets", default=",".join(REAL), help=", ".join(SETS))
    add("--embedded", action="store_true", help="the sets that need no folder of data")
    add("--decisions", type=int, default=DECISIONS, help="of each round")
    add("--rounds", type=int, default=ROUNDS)
    add("--epochs", type=int, default=EPOCHS, help="of each training")
    add("--first", type=int, default=FIRST, help="the first seed")
    add("--seeds", type=int, default=SEEDS)
    add("--jobs", type=int, default=1, help="sources at the same time")
    add("--out", type=Path, default=RESULTS, help="the folder of the results file")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Review the sources that have no row yet, then print the table."""
    options = _parser().parse_args(arguments)
    sets = EMBEDDED if options.embedded else tuple(options.sets.split(","))
    if unknown := [name for name in sets if name not in SETS]:
        raise InputError(
            f"--sets must be among {', '.join(SETS)}, got {', '.join(unknown)}; choose of these."
        )
    seeds = range(options.first, options.first + options.seeds)
    numbers = {name: getattr(options, name) for name in ("decisions", "rounds", "epochs")}
    rows = run_missing(
        NAME,
        "",
        protocol(**numbers),
        jobs_of(sets, seeds, options.data, **numbers),
        at_once=options.jobs,
        results=options.out,
        command=f"python -m benchmarks.{NAME}",
        words=lambda row: f"{gains([row], len(row['rounds']) - 1)[0]:+.2f} points",
    )
    print("\n".join(table(rows)))


if __name__ == "__main__":
    main()
