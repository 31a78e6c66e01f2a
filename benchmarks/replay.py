"""Replay searches on the benchmark of schedules: `python -m benchmarks.replay [--seeds 50]`.

A random forest over the keep rates [T] predicts the learning curves of any schedule from those of
`benchmarks.schedule_bench`. (Not a Gaussian process: our search uses one, and would be judged by
its own assumptions.) A replayed training is the prediction plus the residual of one of the nearest
schedules that were trained, from its prediction by those trees that did not see it: replays are at
least as noisy as trainings. Our search with a budget of six explores given schedules only, the
rivals know none. Three of the six were found on digits; but which of their variants are given, and
the others, was decided on MNIST, by these very replays too (docs/decisions/0009): that it wins here
is no evidence for other data. Ours is the real one
(`keeprate.searching.proposals`), its trainings replaced. A search is judged by the predicted test
accuracy,
without noise, at the last epoch of the schedule that it chooses.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.stats import spearmanr, wilcoxon
from sklearn.ensemble import RandomForestRegressor

from benchmarks.schedule_bench import IN_SHORT, RESULTS, SHORT, TEST_ACCURACY
from keeprate.engine import Curves, trial_value
from keeprate.files import write_json
from keeprate.records import versions
from keeprate.schedules import get_space
from keeprate.searching import Proposals, confirming, get_pruner, open_study, ranked, tell

Array = NDArray[np.float64]
TREES = 200
NEIGHBOURS = 10
SPACE = get_space("basis")


@dataclass(frozen=True)
class Interpolator:
    """Learning curves of any schedule.

    Attributes
    ----------
    keep_rates : ndarray [n, T]
        Of the schedules that were trained.
    forest : RandomForestRegressor
        Keep rates -> curve.
    left_out : ndarray [n, c]
        What the trees that did not see a schedule predict for it.
    residuals : ndarray [n, c]
        Curves less that.
    """

    keep_rates: Array
    forest: RandomForestRegressor
    left_out: Array
    residuals: Array

    @classmethod
    def fit(cls, keep_rates: Array, curves: Array) -> Interpolator:
        """Fit to the curves [n, c] of schedules [n, T]."""
        forest = RandomForestRegressor(TREES, max_features=0.5, oob_score=True, random_state=0)
        forest.fit(keep_rates, curves)
        left_out = forest.oob_prediction_.reshape(curves.shape)
        return cls(keep_rates, forest, left_out, curves - left_out)

    def predict(self, keep_rate: Array) -> Array:
        """The curve [c] of a schedule [T], without noise."""
        return np.asarray(self.forest.predict(keep_rate[None])[0])

    def draw(self, keep_rate: Array, rng: np.random.Generator) -> Array:
        """The curve [c] of one training of a schedule [T]."""
        distance = np.square(self.keep_rates - keep_rate).sum(1)
        near = np.argsort(distance, kind="stable")[:NEIGHBOURS]
        noisy = self.predict(keep_rate) + self.residuals[rng.choice(near)]
        return np.asarray(np.clip(noisy, 0.0, 1.0))


@dataclass(frozen=True)
class Replayed:
    """One setting: trainings of any schedule for a few milliseconds."""

    epochs: int
    interpolator: Interpolator
    columns: dict[str, slice]

    @classmethod
    def fit(cls, rows: list[dict[str, Any]], epochs: int) -> Replayed:
        """From rows of the benchmark."""
        names = SPACE.distributions(epochs)
        parameters = np.array([row["parameters"] for row in rows])
        keep_rates = SPACE.keep_rates(dict(zip(names, parameters.T, strict=True)), epochs)
        kinds = ("validation_accuracy", TEST_ACCURACY, *(f"{IN_SHORT}_{share}" for share in SHORT))
        parts = [np.array([row[kind] for row in rows], dtype=np.float64) for kind in kinds]
        columns, start = {}, 0
        for kind, part in zip(kinds, parts, strict=True):
            columns[kind] = slice(start, start + part.shape[1])
            start += part.shape[1]
        return cls(epochs, Interpolator.fit(keep_rates, np.concatenate(parts, 1)), columns)

    def keep_rate(self, parameters: dict[str, Any]) -> Array:
        return SPACE.schedule(parameters, self.epochs).keep_rate

    def train(
        self, parameters: dict[str, Any], rng: np.random.Generator, share: float = 1.0
    ) -> list[float]:
        """Validation accuracies of one training, after every epoch."""
        kind = "validation_accuracy" if share == 1 else f"{IN_SHORT}_{share}"
        curve = self.interpolator.draw(self.keep_rate(parameters), rng)
        found: list[float] = curve[self.columns[kind]].tolist()
        return found

    def test_accuracy(self, parameters: dict[str, Any]) -> float:
        """At the last epoch, without noise."""
        curve = self.interpolator.predict(self.keep_rate(parameters))
        return float(curve[self.columns[TEST_ACCURACY]][-1])

    def errors(self) -> dict[str, float]:
        """How far the predictions of test accuracy at the last epoch are from single trainings."""
        last = self.columns[TEST_ACCURACY].stop - 1
        predicted = self.interpolator.left_out[:, last]
        error = self.interpolator.residuals[:, last]
        good = predicted + error > np.median(predicted + error)
        return {
            "schedules": len(error),
            "rmse": float(np.sqrt(np.mean(error**2))),
            "rmse_of_the_better_half": float(np.sqrt(np.mean(error[good] ** 2))),
            "spearman": float(spearmanr(predicted + error, predicted)[0]),
        }


def read(name: str, path: Path = RESULTS) -> Replayed:
    """The setting of that name in the benchmark's file."""
    table = pq.read_table(path)
    settings = json.loads(table.schema.metadata[b"settings"])
    rows = [row for row in table.to_pylist() if row["setting"] == name]
    return Replayed.fit(rows, int(settings[name]["epochs"]))


# Searches ----------------------------------------------------------------------------------------

Found = tuple[dict[str, Any], float]
"""The parameters that a search chose, and its cost in full trainings."""
Search = Callable[[Replayed, int], Found]


def ours(setting: Replayed, seed: int, *, trials: int, fidelity: float = 1.0) -> Found:
    """The search of `keeprate.search`, by its own plan; the schedule that it ranks first."""
    rng, confirm = np.random.default_rng([seed, 1]), confirming(trials)
    proposals = Proposals(
        SPACE, setting.epochs, "natural-gradient", trials, confirm, seed, True, fidelity
    )
    study, epochs = open_study(None), 0
    while pending := proposals.ask(study):
        for trial in pending:
            share = fidelity if trial.number < proposals.n_explored else 1.0
            curves = Curves(validation_score=setting.train(trial.params, rng, share))
            epochs += len(curves.validation_score)
            tell(study, trial.number, curves, proposals, failed=False)
    return ranked(study.trials)[0][0].params, epochs / setting.epochs


def fully(
    setting: Replayed,
    seed: int,
    *,
    sampler: Callable[..., optuna.samplers.BaseSampler],
    trials: int,
) -> Found:
    """Full trainings only, one after the other; the best by validation."""
    rng = np.random.default_rng([seed, 1])
    study = optuna.create_study(direction="maximize", sampler=sampler(seed=seed))
    for _ in range(trials):
        trial = study.ask(SPACE.distributions(setting.epochs))
        study.tell(trial, trial_value(setting.train(trial.params, rng), setting.epochs))
    return study.best_params, float(trials)


def hyperband(setting: Replayed, seed: int, *, cost: float) -> Found:
    """Optuna's Hyperband on random search, epochs of the full training as the resource."""
    rng = np.random.default_rng([seed, 1])
    pruner = get_pruner("hyperband", setting.epochs)
    sampler = optuna.samplers.RandomSampler(seed=seed)
    study = optuna.create_study(
        study_name=f"hyperband-{seed}", direction="maximize", sampler=sampler, pruner=pruner
    )  # its brackets are drawn from the name
    spent = 0
    while spent < cost * setting.epochs:
        trial = study.ask(SPACE.distributions(setting.epochs))
        curve = setting.train(trial.params, rng)
        for epoch, accuracy in enumerate(curve, start=1):
            spent += 1
            trial.report(accuracy, epoch)
            if epoch < setting.epochs and trial.should_prune():
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                break
        else:
            study.tell(trial, trial_value(curve, setting.epochs))
    return study.best_params, spent / setting.epochs


SEARCHES: dict[str, Search] = {
    "keeprate, budget 6": partial(ours, trials=6),
    "keeprate, budget 12": partial(ours, trials=12),
    "keeprate, budget 22": partial(ours, trials=22),
    "keeprate, 40 trials, fidelity 0.4": partial(ours, trials=40, fidelity=0.4),
    "random search, 6": partial(fully, sampler=optuna.samplers.RandomSampler, trials=6),
    "TPE, 6": partial(fully, sampler=optuna.samplers.TPESampler, trials=6),
    "CMA-ES, 6": partial(fully, sampler=optuna.samplers.CmaEsSampler, trials=6),
    "Hyperband, 6": partial(hyperband, cost=6.0),
    "random search, 50": partial(fully, sampler=optuna.samplers.RandomSampler, trials=50),
}
OURS = "keeprate, budget 6"


def compare(setting: Replayed, seeds: int) -> dict[str, Any]:
    """Every search, every seed: chosen test accuracy and cost; paired tests against ours."""
    found: dict[str, dict[str, Any]] = {}
    for name, search in SEARCHES.items():
        started = time.perf_counter()
        chosen = [search(setting, seed) for seed in range(seeds)]
        found[name] = {
            "test_accuracy": [round(setting.test_accuracy(p), 5) for p, _ in chosen],
            "cost": round(float(np.mean([cost for _, cost in chosen])), 2),
            "seconds_of_a_replay": round((time.perf_counter() - started) / seeds, 3),
        }
    own = np.array(found[OURS]["test_accuracy"])
    for name, one in found.items():
        accuracies = np.array(one["test_accuracy"])
        one["mean"] = round(float(accuracies.mean()), 5)
        if name != OURS and (accuracies != own).any():
            one["p_value_against_ours"] = float(wilcoxon(own, accuracies).pvalue)
    return found


def main() -> None:
    """Compare on every setting that the benchmark has."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    there = json.loads(pq.read_schema(RESULTS).metadata[b"settings"])
    parser.add_argument("--settings", nargs="+", choices=list(there), default=list(there))
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--out", default=str(RESULTS.with_name("replay.json")))
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    results: dict[str, Any] = {"seeds": options.seeds, "versions": versions(), "settings": {}}
    for name in options.settings:
        setting = read(name)
        found = {"interpolator": setting.errors(), "searches": compare(setting, options.seeds)}
        results["settings"][name] = found
        write_json(options.out, results)
        print(name, json.dumps(found["interpolator"]))
        for search, one in found["searches"].items():
            p = one.get("p_value_against_ours")
            words = "" if p is None else f", p = {p:.1e} against ours"
            print(f"  {search:36} {100 * one['mean']:.2f} % at cost {one['cost']}{words}")


if __name__ == "__main__":
    main()
