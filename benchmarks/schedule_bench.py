"""Learning curves of several hundred schedules, to compare criteria on in seconds.

    python -m benchmarks.schedule_bench [--settings symmetric-0.2 ...] [--runs FOLDER] [--jobs 2]

A setting is MNIST (10,000 training samples, MLP, 40 epochs, Co-teaching) with one noise. Its
schedules are random ones of the basis space, and the trials of the natural gradient: they cover bad
regions as well as good ones. Each schedule is trained fully, and stretched to shorter trainings
(`SHORT`), every time from other initial weights and on other batches, in lockstep with nine others.

The file holds, for each schedule, its twelve parameters, validation and test accuracy after every
epoch of the full training, and validation accuracy of the short trainings. It also holds what 5,000
held-out samples with noisy labels say of the full training in its last tenth: counts of (predicted,
label), agreement of the two networks, log-likelihood of the forward model. The natural gradient
sees only the validation accuracies of the full trainings.

The same command goes on after a kill. `results/schedule_bench.parquet` is written when a setting is
complete; `benchmarks.criteria` reads it.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

import keeprate
from keeprate import Data, Schedule, TrainingConfig
from keeprate.data import Normaliser, Split, part
from keeprate.engine import (
    Candidate,
    Curves,
    Population,
    batched_logits,
    get_method,
    make_setup,
    train_candidates,
)
from keeprate.noise import count_pairs, fit_transition_matrix
from keeprate.schedules import get_space
from keeprate.searching import Proposals, open_study, tell

RESULTS = Path(__file__).parent / "results" / "schedule_bench.parquet"
SOURCES = {"random": 80, "natural-gradient": 40}
"""Sampler -> number of its trials."""
SHORT = (0.2, 0.4)
"""The short trainings, as shares of the epochs."""
TEST_ACCURACY, IN_SHORT = "test_accuracy", "in_short"  # user attributes of the trials
NOISY = ("noisy_counts", "noisy_agreement", "noisy_log_likelihood")  # and three more
N_NOISY = 5_000
"""Held-out samples with noisy labels, for the criteria that need no clean labels."""


@dataclass(frozen=True)
class Setting:
    """What the schedules of one part of the benchmark are trained on."""

    noise: str
    data: str = "mnist"
    limit: int = 10_000
    model: str = "mlp"
    epochs: int = 40
    method: str = "co-teaching"
    seed: int = 0

    @property
    def name(self) -> str:
        return self.noise.replace(":", "-")


SETTINGS = {
    setting.name: setting
    for setting in map(Setting, ("symmetric:0.5", "pairflip:0.45", "symmetric:0.2"))
}


def load_setting(setting: Setting, folder: str) -> tuple[Data, Split]:
    """The data of a setting, and held-out samples whose labels are as noisy as the training's."""
    source = setting.data if setting.data == "digits" else str(Path(folder) / setting.data)
    n_noisy = min(N_NOISY, setting.limit)
    data = keeprate.prepare(
        source, noise=setting.noise, seed=setting.seed, limit=setting.limit + n_noisy
    )
    rows = np.random.default_rng(setting.seed).permutation(len(data.train))
    train, noisy = part(data.train, rows[n_noisy:]), part(data.train, rows[:n_noisy])
    return replace(data, train=train), noisy


def forward_log_likelihood(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Mean log-likelihood of the labels under the transition matrix that fits best, `[...]`."""
    matrix = fit_transition_matrix(probabilities, labels)
    likelihood = (probabilities * matrix[..., labels].mT).sum(-1)
    return likelihood.clamp_min(1e-12).log().mean(-1)


class NoisyJudge:
    """What held-out noisy labels say of each candidate over the last tenth of its epochs."""

    def __init__(self, noisy: Split, normaliser: Normaliser, n_classes: int, epochs: int) -> None:
        self._noisy, self._normaliser = noisy, normaliser
        self._n_classes, self._from = n_classes, epochs - max(1, epochs // 10)
        self._by_number: dict[int, list[tuple[list[list[float]], float, float]]] = {}

    def __call__(self, population: Population) -> None:
        """After each epoch: counts of (predicted, label), agreement of peers, likelihood."""
        if population.epoch <= self._from or not population.numbers:
            return
        networks, device = population.networks, population.keep_rates.device
        labels = self._noisy.labels.to(device)
        pieces = batched_logits(networks, self._noisy.inputs.to(device), self._normaliser)
        logits = torch.cat([logits for _, logits in pieces], dim=2)  # [K, R, N, C]
        predicted = logits.argmax(-1)
        counts = count_pairs(predicted, labels, self._n_classes).sum(1)
        agreement = (predicted[:, 0] == predicted[:, -1]).double().mean(-1)
        likelihood = forward_log_likelihood(logits.softmax(-1), labels).mean(1)
        for row, number in enumerate(population.numbers):
            measured = (counts[row].tolist(), float(agreement[row]), float(likelihood[row]))
            self._by_number.setdefault(number, []).append(measured)

    def note(self, trials: dict[int, optuna.trial.Trial]) -> None:
        """Note the means over the epochs as attributes of the trials."""
        for number, by_epoch in self._by_number.items():
            for name, values in zip(NOISY, zip(*by_epoch, strict=True), strict=True):
                _note(trials[number], name, np.mean(values, axis=0).ravel().tolist())


def train_source(
    setting: Setting, splits: tuple[Data, Split], source: str, trials: int, folder: Path
) -> optuna.Study:
    """Train all trials of one sampler, in a study of its own; finished trials are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    study = open_study(folder)
    proposals = Proposals(
        get_space("basis"),
        setting.epochs,
        source,
        trials,
        confirm=0,
        seed=setting.seed,
    )
    data, noisy = splits
    without_test = replace(data, test=None)
    while pending := proposals.ask(study):
        first = pending[0].number
        order = proposals.generation_of(first).start
        by_number = {t.number: optuna.trial.Trial(study, t._trial_id) for t in pending}
        schedules = {
            trial.number: proposals.space.schedule(trial.params, setting.epochs)
            for trial in pending
        }
        # The full training is told last, and makes a trial finished: a kill before it repeats the
        # whole generation.
        for share in SHORT:
            epochs = short_epochs(setting, share)
            short = {number: schedule.stretched(epochs) for number, schedule in schedules.items()}
            stream = f"{source}-{share}"
            curves = _train(setting, without_test, epochs, short, stream=stream, order=order)
            for number, of_trial in curves.items():
                _note(by_number[number], f"{IN_SHORT}_{share}", of_trial.validation_accuracy)
        judge = NoisyJudge(noisy, Normaliser.fit(data.train.inputs), data.n_classes, setting.epochs)
        curves = _train(
            setting, data, setting.epochs, schedules, stream=source, order=order, after_epoch=judge
        )
        judge.note(by_number)
        for number, of_trial in curves.items():
            _note(by_number[number], TEST_ACCURACY, of_trial.test_accuracy)
            failed = len(of_trial) < setting.epochs
            tell(study, number, of_trial, proposals, failed=failed)
        print(f"{setting.name}, {source}: {first + len(pending)} of {trials}", flush=True)
    return study


def short_epochs(setting: Setting, share: float) -> int:
    """The number of epochs of a short training."""
    return max(1, round(share * setting.epochs))


def _train(
    setting: Setting,
    data: Data,
    epochs: int,
    schedules: dict[int, Schedule],
    *,
    stream: str,
    order: int,
    after_epoch: Callable[[Population], None] | None = None,
) -> dict[int, Curves]:
    """Train the schedules of the trials of these numbers."""
    config, method = TrainingConfig(epochs=epochs), get_method(setting.method)
    curves: dict[int, Curves] = {}
    train_candidates(
        [Candidate(number, schedule, method) for number, schedule in schedules.items()],
        make_setup(data, model=setting.model, config=config, seed=setting.seed, out=None),
        stream=stream,
        order=order,
        after_epoch=after_epoch,
        after_group=lambda population: curves.update(population.curves),
    )
    return curves


def _note(trial: optuna.trial.Trial, name: str, values: Any) -> None:
    trial.set_user_attr(name, json.dumps(values))


def rows_of(setting: Setting, source: str, study: optuna.Study) -> list[dict[str, object]]:
    """One row for each trial that reached the last epoch."""
    rows = []
    noted = (TEST_ACCURACY, *(f"{IN_SHORT}_{share}" for share in SHORT), *NOISY)
    for trial in study.trials:
        attributes = trial.user_attrs
        validation = json.loads(attributes["validation_score"])
        if len(validation) == setting.epochs:
            row = {
                "setting": setting.name,
                "source": source,
                "number": trial.number,
                "parameters": list(trial.params.values()),
                "validation_accuracy": validation,
            }
            row |= {name: json.loads(attributes[name]) for name in noted}
            rows.append(row | {"seconds": attributes["seconds"]})
    return rows


SCHEMA = pa.schema(
    [
        ("setting", pa.dictionary(pa.int8(), pa.string())),
        ("source", pa.dictionary(pa.int8(), pa.string())),
        ("number", pa.int16()),
        ("parameters", pa.list_(pa.float64())),
        ("validation_accuracy", pa.list_(pa.float32())),
        (TEST_ACCURACY, pa.list_(pa.float32())),
        *((f"{IN_SHORT}_{share}", pa.list_(pa.float32())) for share in SHORT),
        *((name, pa.list_(pa.float32())) for name in NOISY),
        ("seconds", pa.float32()),
    ]
)


def write(rows: list[dict[str, object]], settings: list[Setting], path: Path = RESULTS) -> None:
    """Replace the rows of some settings in the benchmark's file."""
    kept: list[dict[str, object]] = []
    described = {setting.name: asdict(setting) for setting in settings}
    if path.exists():
        table = pq.read_table(path)
        kept = [row for row in table.to_pylist() if row["setting"] not in described]
        described = json.loads(table.schema.metadata[b"settings"]) | described
    metadata = {"settings": json.dumps(described), "command": "python -m benchmarks.schedule_bench"}
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(kept + rows, SCHEMA.with_metadata(metadata))
    unfinished = path.with_suffix(".part")
    pq.write_table(table, unfinished, compression="zstd")
    unfinished.replace(path)


def run_source(
    setting: Setting, source: str, options: argparse.Namespace
) -> list[dict[str, object]]:
    """Train the trials of one sampler; they are rows of the benchmark's file."""
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // options.jobs))
    splits = load_setting(setting, options.data)
    folder = Path(options.runs) / f"{setting.name}-{source}"
    study = train_source(setting, splits, source, SOURCES[source], folder)
    return rows_of(setting, source, study)


def main() -> None:
    """Train what is missing, and write each setting when it is complete."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--settings", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--data", default=os.environ.get("KEEPRATE_DATA", "../shared/data"))
    parser.add_argument("--runs", default="runs/schedule_bench")
    parser.add_argument("--jobs", type=int, default=2, help="samplers at the same time")
    options = parser.parse_args()
    settings = [SETTINGS[name] for name in options.settings]
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        futures = {
            setting.name: [pool.submit(run_source, setting, source, options) for source in SOURCES]
            for setting in settings
        }
        for setting in settings:
            rows = [row for future in futures[setting.name] for row in future.result()]
            write(rows, [setting])
            print(f"{setting.name}: {len(rows)} schedules in {RESULTS}", flush=True)


if __name__ == "__main__":
    main()
