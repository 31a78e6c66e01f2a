"""Table 1 (Sec. 4.3): face verification, by networks that were trained on wrong names.

One command for whoever has identity data and pairs: the protocols "lfw" and "orl" find theirs below
--data; the others take --train, --validation and --pairs. docs/faces.md says how to lay them out.
"""

from __future__ import annotations

import csv
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from sklearn.metrics import average_precision_score

import keeprate
from experiments.common import Row, command_of
from experiments.faces import CRAWLED, NOISES, Faces, load_people, make_faces, read_pairs
from experiments.jobs import Job, run_seeds
from experiments.rows import PAPER_NUMBERS
from keeprate import InputError, Schedule, SearchConfig, TrainingConfig
from keeprate.engine import (
    Candidate,
    PairAccuracy,
    Population,
    Setup,
    get_method,
    make_setup,
    networks_trained,
    train_candidates,
)
from keeprate.records import LabelQuality
from keeprate.schedules import named_schedule
from keeprate.verification import Pairs

NAME = "table1"
SUMMARY = "Table 1: face verification (trains)"
METHODS = (
    "standard",
    "decoupling",
    "mentornet",
    "co-teaching",
    "co-teaching-plus",
    "co-mining",
)
PROPOSED = "proposed"
LABELS = {name: get_method(name).label for name in METHODS} | {PROPOSED: "Proposed"}
TESTED = 4  # times that the test pairs are looked at in a training, the last epoch among them


@dataclass(frozen=True)
class Sources:
    """Where the pictures are.

    Attributes
    ----------
    train : str
        A folder a person, or Parquet files.
    pairs, images : str or tuple of str
        The lists of test pairs, and their pictures if a list does not hold them: one folder for
        all, or one for each list.
    validation, validation_images : str or None
        Likewise; None: pairs of a quarter of the training people are drawn.
    """

    train: str
    pairs: str | tuple[str, ...]
    images: str | tuple[str, ...] | None = None
    validation: str | None = None
    validation_images: str | None = None


@dataclass(frozen=True)
class Protocol:
    """How much is run, and with which options.

    Attributes
    ----------
    name : str
    sources : Sources or None
        Below --data; None: they have to be given.
    model : str
    side : int
        Pixels.
    epochs, batch_size, learning_rate, augment, margin
        As in `keeprate.TrainingConfig`.
    seeds : int
        People, noise, initial weights and search vary with the seed.
    trials : int
        Of a search.
    n_pairs : int
        Validation pairs, if they are drawn.
    noises : tuple of str
    """

    name: str
    sources: Sources | None
    model: str
    side: int
    epochs: int
    seeds: int
    trials: int
    batch_size: int = 128
    learning_rate: float = 1e-3
    augment: str = "flip"
    margin: float = 0.0
    n_pairs: int = 3000
    noises: tuple[str, ...] = tuple(NOISES)

    def as_row(self) -> Row:
        """The protocol as the results file holds it."""
        return asdict(self)

    def training_config(self) -> TrainingConfig:
        """How each network trains."""
        return TrainingConfig(
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            augment=self.augment,
            margin=self.margin,
        )


_LFW = Sources(
    "lfw/train-00000-of-00001.parquet", "lfw/test_pairs.csv", "lfw/test-00000-of-00001.parquet"
)
_ORL = Sources(
    "orl-faces/train-00000-of-00001.parquet",
    "pairs/orl_test_pairs.csv",
    "orl-faces/test-00000-of-00001.parquet",
)
PROTOCOLS = (
    Protocol("lfw", _LFW, "face-small", 40, epochs=20, seeds=5, trials=10),
    Protocol(
        "orl", _ORL, "face-small", 40, epochs=40, seeds=5, trials=10, batch_size=32, n_pairs=1000
    ),
    Protocol("own", None, "face-resnet50", 112, epochs=200, seeds=1, trials=30, noises=(CRAWLED,)),
)


def get_protocol(name: str) -> Protocol:
    """The protocol of that name."""
    return next(protocol for protocol in PROTOCOLS if protocol.name == name)


def run(
    protocol: Protocol,
    *,
    data: str,
    runs: str,
    given: Sources | None = None,
    first_seed: int = 0,
    cluster: str | None = None,
    **options: Any,
) -> list[Row]:
    """Train what the results file does not have yet; see `run_missing` for the other options.

    Parameters
    ----------
    protocol : Protocol
    data : str
        The folder that holds lfw/ and orl-faces/.
    runs : str
        The folder of the run folders of the searches.
    given : Sources, optional
        In place of the protocol's.
    first_seed : int
        Seeds from 1000 up are for development: their rows go to another results file.
    cluster : str, optional
        The address of the Ray cluster that trains the searches.
    """
    sources = given or _below(protocol, data)
    protocol = replace(protocol, sources=given or protocol.sources)  # rows of two are never mixed

    def jobs(seed: int) -> Iterator[Job]:
        for noise in protocol.noises:
            train = partial(_train, protocol, sources, noise, seed, runs, cluster)
            yield Job({"noise": noise, "seed": seed}, train, (*METHODS, PROPOSED))

    item = f"{NAME}-dev" if first_seed else NAME
    return run_seeds(item, protocol, jobs, first_seed=first_seed, words=_in_words, **options)


def _below(protocol: Protocol, data: str) -> Sources:
    if protocol.sources is None:
        raise InputError(
            f"--train and --pairs must be given for the protocol {protocol.name}: see "
            "docs/faces.md."
        )
    here = {
        name: str(Path(data, value)) for name, value in asdict(protocol.sources).items() if value
    }
    return Sources(**here)


def _in_words(row: Row) -> str:
    return f"{100 * row['last']['test']:.2f} % of the test pairs at the end"


@cache
def faces_of(protocol: Protocol, sources: Sources, noise: str, seed: int) -> Faces:
    """What one seed trains on."""
    people = _people(sources.train, protocol.side)
    validation = None
    if sources.validation is not None:
        validation = read_pairs(sources.validation, sources.validation_images, people)
    return make_faces(
        people,
        _test_pairs(sources, protocol.side),
        noise=noise,
        seed=seed,
        n_pairs=protocol.n_pairs,
        validation=validation,
    )


@cache
def _people(train: str, side: int) -> Any:
    return load_people(train, side)


@cache
def _test_pairs(sources: Sources, side: int) -> tuple[Pairs, ...]:
    lists = (sources.pairs,) if isinstance(sources.pairs, str) else sources.pairs
    given = sources.images
    places: tuple[str | None, ...] = given if isinstance(given, tuple) else (given,)
    places = places * len(lists) if len(places) == 1 else places
    if len(places) != len(lists):
        raise InputError(
            f"--images must name one folder, or one for each of the {len(lists)} lists, got "
            f"{len(places)}; give them in the order of --pairs."
        )
    people = _people(sources.train, side)
    return tuple(read_pairs(one, place, people) for one, place in zip(lists, places, strict=True))


# Trainings -------------------------------------------------------------------------------------


@dataclass
class _Curves:
    """Accuracy on the test pairs of each candidate: by epoch, and by list at the last of these."""

    tests: Sequence[PairAccuracy]
    setup: Setup
    at: dict[int, dict[int, float]] = field(default_factory=dict)
    by_list: dict[int, dict[str, float]] = field(default_factory=dict)

    def look(self, population: Population) -> None:
        """Measure, at one of `TESTED` epochs."""
        epochs = self.setup.config.epochs
        if population.epoch not in {round(epochs * k / TESTED) for k in range(1, TESTED + 1)}:
            return
        device = population.keep_rates.device
        scaled, autocast = self.setup.normaliser, self.setup.config.autocast(device)
        found = {
            test.pairs.name: test(population.networks, scaled, autocast).mean(1).tolist()
            for test in self.tests
        }
        for row, number in enumerate(population.numbers):
            self.by_list[number] = {name: values[row] for name, values in found.items()}
            mean = statistics.fmean(self.by_list[number].values())
            self.at.setdefault(number, {})[population.epoch] = mean


def _train(
    protocol: Protocol,
    sources: Sources,
    noise: str,
    seed: int,
    runs: str,
    cluster: str | None,
    names: Sequence[str],
) -> list[Row]:
    """A row for each of the names; the search is done if the proposed method is among them."""
    faces = faces_of(protocol, sources, noise, seed)
    train = faces.data.train
    rate = _told_rate(noise, faces)
    schedules = {name: _usual_schedule(name, protocol.epochs, rate) for name in METHODS}
    cost: Row = {}
    issues: Row = {}
    if PROPOSED in names:
        schedules[PROPOSED], cost, issues = _search(protocol, faces, noise, seed, runs, cluster)
    setup = make_setup(
        faces.data,
        model=protocol.model,
        config=protocol.training_config(),
        seed=seed,
        out=None,
        metric=PairAccuracy(faces.validation),
    )
    tested = _Curves([PairAccuracy(pairs) for pairs in faces.test], setup)
    rows: dict[str, Row] = {}

    def collect(population: Population) -> None:
        for number, curves in population.curves.items():
            name = order[number]
            if number in population.failed:
                raise InputError(f"the loss of {name} was not finite; lower the learning rate.")
            rows[name] = {
                "name": name,
                "noise_rate": None if train.true_labels is None else _measured_rate(faces),
                "n_train": len(train),
                "n_people": faces.data.n_classes,
                **_ends(tested.at[number], tested.by_list[number], curves.validation_score),
                "curves": {
                    "test": tested.at[number],
                    "validation": curves.validation_score,
                    "train_accuracy": curves.train_accuracy,
                    "label_precision": curves.label_precision or None,
                },
                "keep_rate": schedules[name].keep_rate.tolist(),
                "precision": setup.config.resolve_precision(setup.config.resolve_device()),
                "cost": {"final_seconds": curves.seconds, **(cost if name == PROPOSED else {})},
                **(issues if name == PROPOSED else {}),
            }

    order = [*METHODS, PROPOSED]  # a method has the same initial weights whatever else is trained
    for n_networks in (1, 2):
        group = [
            Candidate(number, schedules[name], _method(name))
            for number, name in enumerate(order)
            if name in names and networks_trained(_method(name)) == n_networks
        ]
        if group:
            train_candidates(
                group,
                setup,
                stream=NAME,
                after_epoch=tested.look,
                after_group=collect,
            )
    return [rows[name] for name in names]


def _method(name: str) -> keeprate.Method:
    return get_method("co-teaching" if name == PROPOSED else name)


def _usual_schedule(name: str, epochs: int, rate: float) -> Schedule:
    """Co-teaching's own R(t) with the noise rate; ones for what selects in another way."""
    if not get_method(name).uses_schedule:
        return named_schedule("constant", epochs, noise_rate=None)
    return named_schedule("co-teaching", epochs, noise_rate=rate)


def _told_rate(noise: str, faces: Faces) -> float:
    """The noise rate that the rivals are told; of crawled data nobody knows the rate."""
    return 0.2 if noise == CRAWLED else _measured_rate(faces)


def _measured_rate(faces: Faces) -> float:
    train = faces.data.train
    true = train.labels if train.true_labels is None else train.true_labels
    return float((train.labels != true).float().mean())


def _search(
    protocol: Protocol, faces: Faces, noise: str, seed: int, runs: str, cluster: str | None
) -> tuple[Schedule, Row, Row]:
    """The searched R(t), what it cost, and how well wrong names were found."""
    name = f"{noise}-seed{seed}".replace(":", "-")
    found = keeprate.search(
        faces.data,
        budget=f"{protocol.trials}trials",
        method="co-teaching",
        model=protocol.model,
        config=protocol.training_config(),
        search_config=SearchConfig(confirm=False),
        baselines=False,
        restarts=1,
        seed=seed,
        out=Path(runs) / f"{NAME}-{protocol.name}" / name,
        command=command_of(NAME, protocol.name),
        metric=PairAccuracy(faces.validation),
        cluster=cluster,
    )
    cost = {"search_seconds": found.record.cost.search_seconds, "trials": protocol.trials}
    return found.schedule, cost, _issues(found.label_quality, faces)


def _issues(quality: LabelQuality, faces: Faces) -> Row:
    """How well the ranking finds the names that were made wrong."""
    train = faces.data.train
    if train.true_labels is None:
        return {}
    is_wrong = dict(
        zip(train.rows.tolist(), (train.labels != train.true_labels).tolist(), strict=True)
    )
    known = [place for place, row in enumerate(quality.rows.tolist()) if row in is_wrong]
    wrong = [is_wrong[int(quality.rows[place])] for place in known]
    return {
        "label_issues": {
            "average_precision": float(average_precision_score(wrong, 1 - quality.scores[known])),
            "wrong": sum(wrong),
            "judged": len(wrong),
        }
    }


def _ends(test: dict[int, float], by_list: dict[str, float], validation: Sequence[float]) -> Row:
    """The last epoch, and the best of those at which the test pairs were looked at."""
    best = max(test, key=lambda epoch: test[epoch])
    lists = {"by_list": by_list} if len(by_list) > 1 else {}
    return {
        "last": {"test": test[max(test)], "validation": validation[-1], **lists},
        "best": {"test": test[best], "epoch": best},
    }


def paper_rows() -> dict[str, dict[str, float]]:
    """The paper's Table 1: method -> list of pairs -> accuracy in %."""
    with open(PAPER_NUMBERS / "table1_face_verification.csv", encoding="utf-8") as content:
        return {
            row.pop("method"): {name: float(value) for name, value in row.items()}
            for row in csv.DictReader(content)
        }
