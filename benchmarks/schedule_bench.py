"""Learning curves of several hundred schedules, to replay searches on in seconds.

    python -m benchmarks.schedule_bench [--settings symmetric-0.2 ...] [--runs FOLDER] [--jobs 2]

For each setting (MNIST, 10,000 of its training samples, MLP, 40 epochs, Co-teaching; one noise)
the schedules are those that searches try: random ones of the basis space, and the trials of the
natural gradient, so that good regions are covered as well as bad ones. Each is trained
fully, and stretched to shorter trainings (`SHORT`), every time from other initial weights and on
other batches, in lockstep with nine others. What is kept: its twelve parameters, validation and
test accuracy after every epoch of the full training, validation accuracy of the short ones, and
what 5,000 held-out samples with noisy labels say of the full training in its last tenth: counts of
(predicted, label), agreement of the two networks, log-likelihood of the forward model. The searches
that propose see the validation accuracies of the full trainings only.

The same command goes on after a kill. `results/schedule_bench.parquet` is written when a setting is
complete; `benchmarks.replay` reads it.
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
from keeprate.data import Data, Normaliser, Split, part
from keeprate.engine import (
    Curves,
    Population,
    TrainingConfig,
    batched_logits,
    get_method,
    make_setup,
    train_schedules,
)
from keeprate.noise import count_pairs, fit_transition_matrix
from keeprate.schedules import Schedule, get_space
from keeprate.searching import Proposals, open_study, tell

RESULTS = Path(__file__).parent / "results" / "schedule_bench.parquet"
SOURCES = {"random": 80, "natural-gradient": 40}
"""Whose trials are trained, and how many."""
SHORT = (0.2, 0.4)
"""Shares of the epochs that every schedule is trained in, too."""
TEST_ACCURACY, IN_SHORT = "test_accuracy", "in_short"  # user attributes of the trials
NOISY = ("noisy_counts", "noisy_agreement", "noisy_log_likelihood")  # more of them
N_NOISY = 5_000
"""Held-out samples with noisy labels, for the criteria that need no clean ones."""


@dataclass(frozen=True)
class Setting:
    """What all schedules of a part of the benchmark are trained on."""

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
    """Mean log-likelihood of the labels under the transition matrix that suits best, `[...]`."""
    matrix = fit_transition_matrix(probabilities, labels)
    likelihood = (probabilities * matrix[..., labels].mT).sum(-1)
    return likelihood.clamp_min(1e-12).log().mean(-1)


class NoisyJudge:
    """What held-out noisy labels say of each candidate over the last tenth of its epochs."""

    def __init__(self, noisy: Split, normaliser: Normaliser, n_classes: int, epochs: int) -> None:
        self._noisy, self._normaliser = noisy, normaliser
        self._n_classes, self._from = n_classes, epochs - max(1, epochs // 10)
        self.found: dict[int, list[tuple[list[list[float]], float, float]]] = {}

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
            seen = (counts[row].tolist(), float(agreement[row]), float(likelihood[row]))
            self.found.setdefault(number, []).append(seen)

    def note(self, study: optuna.Study) -> None:
        """Means over the epochs, as attributes of the trials."""
        for number, seen in self.found.items():
            for name, values in zip(NOISY, zip(*seen, strict=True), strict=True):
                _note(study, number, name, np.mean(values, axis=0).ravel().tolist())


def train_source(
    setting: Setting, splits: tuple[Data, Split], source: str, trials: int, folder: Path
) -> optuna.Study:
    """All trials of one source, in a study of its own; what is there already is kept."""
    folder.mkdir(parents=True, exist_ok=True)
    study = open_study(folder)
    proposals = Proposals(
        get_space("basis"), setting.epochs, source, trials, confirm=0, seed=setting.seed,
        warm_start=source == "natural-gradient",
    )  # fmt: skip
    data, noisy = splits
    untested = replace(data, test=None)
    while pending := proposals.ask(study):
        first = pending[0].number
        order = proposals.generation_of(first).start
        numbers = [trial.number for trial in pending]
        schedules = [proposals.space.schedule(t.params, setting.epochs) for t in pending]
        # What is told last makes a trial finished: a kill before repeats its whole population.
        for share in SHORT:
            epochs = short_epochs(setting, share)
            short = [schedule.stretched(epochs) for schedule in schedules]
            found = _train(setting, untested, epochs, numbers, short, f"{source}-{share}", order)
            for number, curves in found.items():
                _note(study, number, f"{IN_SHORT}_{share}", curves.validation_accuracy)
        judge = NoisyJudge(noisy, Normaliser.fit(data.train.inputs), data.n_classes, setting.epochs)
        found = _train(setting, data, setting.epochs, numbers, schedules, source, order, judge)
        judge.note(study)
        for number, curves in found.items():
            _note(study, number, TEST_ACCURACY, curves.test_accuracy)
            failed = len(curves.validation_accuracy) < setting.epochs
            tell(study, number, curves, proposals, failed=failed)
        print(f"{setting.name}, {source}: {first + len(pending)} of {trials}", flush=True)
    return study


def short_epochs(setting: Setting, share: float) -> int:
    return max(1, round(share * setting.epochs))


def _train(
    setting: Setting,
    data: Data,
    epochs: int,
    numbers: list[int],
    schedules: list[Schedule],
    stream: str,
    order: int,
    after_epoch: Callable[[Population], None] | None = None,
) -> dict[int, Curves]:
    setup = make_setup(
        data,
        model=setting.model,
        config=TrainingConfig(epochs=epochs),
        seed=setting.seed,
        out=None,
        lockstep=None,
        progress=None,
    )
    found: dict[int, Curves] = {}
    train_schedules(
        numbers,
        schedules,
        setup,
        methods=[get_method(setting.method)] * len(numbers),
        stream=stream,
        data=data,
        order=order,
        after_epoch=after_epoch,
        after_group=lambda population: found.update(population.curves),
    )
    return found


def _note(study: optuna.Study, number: int, name: str, values: Any) -> None:
    trial = study.get_trials(deepcopy=False)[number]
    optuna.trial.Trial(study, trial._trial_id).set_user_attr(name, json.dumps(values))


def rows_of(setting: Setting, source: str, study: optuna.Study) -> list[dict[str, object]]:
    """One row for each trial that reached the last epoch."""
    rows = []
    for trial in study.trials:
        validation = json.loads(trial.user_attrs["validation_score"])
        if len(validation) == setting.epochs:
            rows.append(
                {
                    "setting": setting.name,
                    "source": source,
                    "number": trial.number,
                    "parameters": list(trial.params.values()),
                    "validation_accuracy": validation,
                    TEST_ACCURACY: json.loads(trial.user_attrs[TEST_ACCURACY]),
                    **{
                        f"{IN_SHORT}_{share}": json.loads(trial.user_attrs[f"{IN_SHORT}_{share}"])
                        for share in SHORT
                    },
                    **{name: json.loads(trial.user_attrs[name]) for name in NOISY},
                    "seconds": trial.user_attrs["seconds"],
                }
            )
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
    """Put the rows of some settings in the place of their old ones."""
    kept: list[dict[str, object]] = []
    described = {setting.name: asdict(setting) for setting in settings}
    if path.exists():
        table = pq.read_table(path)
        known = json.loads(table.schema.metadata[b"settings"])
        kept = [row for row in table.to_pylist() if row["setting"] not in described]
        described = known | described
    metadata = {"settings": json.dumps(described), "command": "python -m benchmarks.schedule_bench"}
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(kept + rows, SCHEMA.with_metadata(metadata))
    part = path.with_suffix(".part")
    pq.write_table(table, part, compression="zstd")
    part.replace(path)


def run_source(
    setting: Setting, source: str, options: argparse.Namespace
) -> list[dict[str, object]]:
    """Train one source, as rows of the benchmark's file."""
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // options.jobs))
    splits = load_setting(setting, options.data)
    folder = Path(options.runs) / f"{setting.name}-{source}"
    study = train_source(setting, splits, source, SOURCES[source], folder)
    return rows_of(setting, source, study)


def main() -> None:
    """Train what is missing, write each setting as it is complete."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--settings", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--data", default=os.environ.get("KEEPRATE_DATA", "../shared/data"))
    parser.add_argument("--runs", default="runs/schedule_bench")
    parser.add_argument("--jobs", type=int, default=2, help="sources at the same time")
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
