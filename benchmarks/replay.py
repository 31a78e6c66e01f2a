"""Replay searches on the benchmark of schedules: `python -m benchmarks.replay [--seeds 50]`.

A random forest over the keep rates [T] predicts the learning curves of any schedule from those of
`benchmarks.schedule_bench`. (Our search uses a Gaussian process; a forest does not share its
assumptions.) A replayed training is the prediction, plus the residual of one of the nearest
schedules that were trained. That residual is from the prediction of the trees that did not see the
schedule: replays are at least as noisy as trainings.

Our search is the real one (`keeprate.searching.Proposals`), with replayed trainings. A search is
judged by the predicted test accuracy, without noise, at the last epoch of the schedule that it
ranks first. With a budget of six our search tries presets only, and its rivals have none. Three of
the six were searched on digits, but MNIST, and these very replays, helped to choose among their
variants, and to choose the other presets (docs/decisions/0009): that our search wins here is no
evidence for other data.
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
        The curve of each schedule as the trees predict that did not see it.
    residuals : ndarray [n, c]
        The measured curves less `left_out`.
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
    """One setting: trainings of any schedule, a few milliseconds each.

    Attributes
    ----------
    epochs : int
        T.
    interpolator : Interpolator
    columns : dict of str to slice
        Which columns of a curve hold which metric.
    """

    epochs: int
    interpolator: Interpolator
    columns: dict[str, slice]

    @classmethod
    def fit(cls, rows: list[dict[str, Any]], epochs: int) -> Replayed:
        """Fit to rows of the benchmark."""
        names = SPACE.distributions(epochs)
        parameters = np.array([row["parameters"] for row in rows])
        keep_rates = SPACE.keep_rates(dict(zip(names, parameters.T, strict=True)), epochs)
        kinds = ("validation_accuracy", TEST_ACCURACY, *(f"{IN_SHORT}_{share}" for share in SHORT))
        curves = [np.array([row[kind] for row in rows], dtype=np.float64) for kind in kinds]
        columns, start = {}, 0
        for kind, of_kind in zip(kinds, curves, strict=True):
            columns[kind] = slice(start, start + of_kind.shape[1])
            start += of_kind.shape[1]
        return cls(epochs, Interpolator.fit(keep_rates, np.concatenate(curves, 1)), columns)

    def keep_rate(self, parameters: dict[str, Any]) -> Array:
        """The schedule [T] of these parameters."""
        return SPACE.schedule(parameters, self.epochs).keep_rate

    def train(
        self, parameters: dict[str, Any], rng: np.random.Generator, share: float = 1.0
    ) -> list[float]:
        """Validation accuracy of one training after every epoch.

        `share` is that of the epochs: 1, or one of `SHORT`.
        """
        kind = "validation_accuracy" if share == 1 else f"{IN_SHORT}_{share}"
        curve = self.interpolator.draw(self.keep_rate(parameters), rng)
        accuracies: list[float] = curve[self.columns[kind]].tolist()
        return accuracies

    def test_accuracy(self, parameters: dict[str, Any]) -> float:
        """The test accuracy at the last epoch, without noise."""
        curve = self.interpolator.predict(self.keep_rate(parameters))
        return float(curve[self.columns[TEST_ACCURACY]][-1])

    def errors(self) -> dict[str, float]:
        """How far predicted test accuracy at the last epoch is from that of single trainings."""
        last = self.columns[TEST_ACCURACY].stop - 1
        predicted = self.interpolator.left_out[:, last]
        error = self.interpolator.residuals[:, last]
        measured = predicted + error
        better = measured > np.median(measured)
        return {
            "schedules": len(error),
            "rmse": float(np.sqrt(np.mean(error**2))),
            "rmse_of_the_better_half": float(np.sqrt(np.mean(error[better] ** 2))),
            "spearman": float(spearmanr(measured, predicted)[0]),
        }


def read(name: str, path: Path = RESULTS) -> Replayed:
    """The setting of that name in the benchmark's file."""
    table = pq.read_table(path)
    settings = json.loads(table.schema.metadata[b"settings"])
    rows = [row for row in table.to_pylist() if row["setting"] == name]
    return Replayed.fit(rows, int(settings[name]["epochs"]))


# Searches ----------------------------------------------------------------------------------------

Choice = tuple[dict[str, Any], float]
"""The parameters of the schedule that a search ranks first, and the cost in full trainings."""
Search = Callable[[Replayed, int], Choice]


def ours(setting: Replayed, seed: int, *, trials: int, fidelity: float = 1.0) -> Choice:
    """The search of `keeprate.search`, by its own plan."""
    rng, confirm = np.random.default_rng([seed, 1]), confirming(trials)
    proposals = Proposals(
        SPACE,
        setting.epochs,
        "natural-gradient",
        trials,
        confirm,
        seed,
        warm_start=True,
        fidelity=fidelity,
    )
    study, n_epochs = open_study(None), 0
    while pending := proposals.ask(study):
        for trial in pending:
            share = fidelity if trial.number < proposals.n_explored else 1.0
            curves = Curves(validation_score=setting.train(trial.params, rng, share))
            n_epochs += len(curves.validation_score)
            tell(study, trial.number, curves, proposals, failed=False)
    return ranked(study.trials)[0][0].params, n_epochs / setting.epochs


def fully(
    setting: Replayed,
    seed: int,
    *,
    sampler: Callable[..., optuna.samplers.BaseSampler],
    trials: int,
) -> Choice:
    """Full trainings one after the other; the best by validation."""
    rng = np.random.default_rng([seed, 1])
    study = optuna.create_study(direction="maximize", sampler=sampler(seed=seed))
    for _ in range(trials):
        trial = study.ask(SPACE.distributions(setting.epochs))
        study.tell(trial, trial_value(setting.train(trial.params, rng), setting.epochs))
    return study.best_params, float(trials)


def hyperband(setting: Replayed, seed: int, *, cost: float) -> Choice:
    """Optuna's Hyperband on random search; the resource is the epochs of the full training."""
    rng = np.random.default_rng([seed, 1])
    pruner = get_pruner("hyperband", setting.epochs)
    sampler = optuna.samplers.RandomSampler(seed=seed)
    study = optuna.create_study(
        study_name=f"hyperband-{seed}",  # Hyperband draws its brackets from the name
        direction="maximize",
        sampler=sampler,
        pruner=pruner,
    )
    n_epochs = 0
    while n_epochs < cost * setting.epochs:
        trial = study.ask(SPACE.distributions(setting.epochs))
        curve = setting.train(trial.params, rng)
        for epoch, accuracy in enumerate(curve, start=1):
            n_epochs += 1
            trial.report(accuracy, epoch)
            if epoch < setting.epochs and trial.should_prune():
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                break
        else:
            study.tell(trial, trial_value(curve, setting.epochs))
    return study.best_params, n_epochs / setting.epochs


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
    """Replay every search with every seed: test accuracies and cost; paired tests against ours."""
    numbers: dict[str, dict[str, Any]] = {}
    for name, search in SEARCHES.items():
        started = time.perf_counter()
        choices = [search(setting, seed) for seed in range(seeds)]
        numbers[name] = {
            "test_accuracy": [round(setting.test_accuracy(p), 5) for p, _ in choices],
            "cost": round(float(np.mean([cost for _, cost in choices])), 2),
            "seconds_of_a_replay": round((time.perf_counter() - started) / seeds, 3),
        }
    accuracies_of_ours = np.array(numbers[OURS]["test_accuracy"])
    for name, of_search in numbers.items():
        accuracies = np.array(of_search["test_accuracy"])
        of_search["mean"] = round(float(accuracies.mean()), 5)
        if name != OURS and (accuracies != accuracies_of_ours).any():
            test = wilcoxon(accuracies_of_ours, accuracies)
            of_search["p_value_against_ours"] = float(test.pvalue)
    return numbers


def main() -> None:
    """Compare on every setting of the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    settings = list(json.loads(pq.read_schema(RESULTS).metadata[b"settings"]))
    parser.add_argument("--settings", nargs="+", choices=settings, default=settings)
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--out", default=str(RESULTS.with_name("replay.json")))
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    results: dict[str, Any] = {"seeds": options.seeds, "versions": versions(), "settings": {}}
    for name in options.settings:
        setting = read(name)
        errors, searches = setting.errors(), compare(setting, options.seeds)
        results["settings"][name] = {"interpolator": errors, "searches": searches}
        write_json(options.out, results)
        print(name, json.dumps(errors))
        for search, numbers in searches.items():
            p = numbers.get("p_value_against_ours")
            words = "" if p is None else f", p = {p:.1e} against ours"
            print(f"  {search:36} {100 * numbers['mean']:.2f} % at cost {numbers['cost']}{words}")


if __name__ == "__main__":
    main()
