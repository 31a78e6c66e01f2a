"""The run record: everything that a run was given and has found.

A record is typed to the last number; JSON is what `save_record` writes and `load_record` reads.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from keeprate.checksums import RECORD_FILE
from keeprate.data import Source
from keeprate.engine import LARGEST_SCORE, Curves, EpochMetrics
from keeprate.errors import InputError, damaged
from keeprate.files import read_bytes, write_json
from keeprate.noise import NoiseEstimate
from keeprate.records.bounds import Count, Criterion, Score, Seconds, Share
from keeprate.records.by_class import ByClass
from keeprate.schedules import Schedule
from keeprate.text import cut

NOT_SURE = "not sure"  # in place of a suggestion
SCHEMA_VERSION = 3
MOST_CLASSES = 200  # whose transition matrices a file holds: more would dwarf all else
LARGEST = 2**28  # bytes of a file that is read
MOST_RESULTS, MOST_SUSPECTS, MOST_CAUTIONS = 100, 1000, 100  # read; a run writes far fewer
MOST_ADDITIONS = 1000  # to a search


@dataclass(frozen=True)
class DataSummary:
    """The data set of a run.

    Attributes
    ----------
    name : str
    n_train, n_validation, n_test : int
        Samples.
    class_names : tuple of C str
    input_shape : tuple of int
        Of one sample.
    noise : str
        What was injected, as `Noise.parse` reads it.
    noise_rate : float or None
        Measured share of wrong training labels; None where the true labels are unknown.
    validation_labels, test_labels : {"clean", "noisy", "unknown"}
        What is known of the labels of a split (`Split.label_status`).
    validation_from : str
        Where the validation samples come from, in words.
    criterion : str
        What validation scores are: "accuracy", "determinant", or the name of a metric.
    class_counts : tuple of C int
        Training samples of each label.
    validation_counts : tuple of C int
        Validation samples of each label.
    inputs : dict of str to str
        The columns that are inputs, and what each of them holds.
    left_out : dict of str to str
        All columns that are neither inputs nor labels, and why.
    notes : tuple of str
        What the user should know of the reading, a sentence each.
    source : Source or None
        None for data in memory.
    """

    name: str
    n_train: Count
    n_validation: Count
    n_test: Count
    class_names: tuple[str, ...]
    input_shape: tuple[int, ...]
    noise: str
    noise_rate: Share | None
    validation_labels: str
    test_labels: str
    validation_from: str
    criterion: Criterion
    class_counts: tuple[Count, ...] = ()
    validation_counts: tuple[Count, ...] = ()
    inputs: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    source: Source | None = None


@dataclass(frozen=True)
class TrialSummary:
    """One trial of a search.

    Attributes
    ----------
    number : int
        In the study, from 0.
    parameters : dict of str to float
        Of the search space.
    keep_rate : tuple of T floats
    state : {"complete", "pruned", "short", "failed"}
        "short": trained in fewer epochs, as planned.
    value : float or None
        What a complete trial is worth; the search maximises it.
    reached : float or None
        The value where the training ended; None of a failed trial.
    confirms : int or None
        The trial whose schedule was trained again.
    validation_score : tuple of float
        After each epoch.
    seconds : float
    """

    number: int
    parameters: dict[str, float]
    keep_rate: tuple[Share, ...]
    state: str
    value: Score | None
    reached: Score | None
    confirms: int | None
    validation_score: tuple[Score, ...]
    seconds: Seconds


@dataclass(frozen=True)
class RestartSummary:
    """One of the final trainings of a plan.

    Attributes
    ----------
    schedule : int
        Which of the plan's schedules it was trained with, from 0.
    validation_score : float or None
        At the end, or of the best epoch if its weights are kept; None if the loss was not finite.
    seconds : float
    repeats : int or None
        The trial that it repeats, from the same initial weights and with the same batches.
    """

    schedule: Count
    validation_score: Score | None
    seconds: Seconds
    repeats: Count | None = None


class _Head(msgspec.Struct):
    schema_version: Any = None


@dataclass(frozen=True, eq=False)  # arrays have no single truth value
class Result:
    """The best final training of a plan.

    Attributes
    ----------
    name : str
        "searched" or "custom" for a run's own, else the method's name.
    label : str
        For people.
    method : str
    schedule : Schedule
    finalist : int or None
        Which of several schedules won, from 0; None where the plan has one.
    curves : Curves
    restarts : tuple of RestartSummary
    transition_matrix : array [C, C] or None
        That corrected the loss; None in a file if it has more than 200 classes.
    transition_error : float or None
        Of this matrix, where the true labels are known (`keeprate.noise.transition_error`).
    """

    name: str
    label: str
    method: str
    schedule: Schedule
    finalist: Count | None
    curves: Curves
    restarts: tuple[RestartSummary, ...]
    transition_matrix: NDArray[np.float64] | None = None
    transition_error: float | None = None

    @property
    def last(self) -> EpochMetrics:
        """What was measured at the last epoch."""
        return self.curves.at(len(self.curves))

    @property
    def best(self) -> EpochMetrics:
        """The best epoch on the test set, or without one on the validation set.

        By the scorer of the run, if it has one. The number is optimistic: early-stop tables of the
        literature report it.
        """
        curves = self.curves
        judged = curves.test_score or curves.test_accuracy or curves.validation_score
        return self.curves.at(int(np.argmax(judged)) + 1)

    @property
    def seconds(self) -> float:
        """Of all restarts together; what trained in lockstep has equal shares."""
        return sum(restart.seconds for restart in self.restarts)


@dataclass(frozen=True)
class FirstTraining:
    """The training that estimated the noise for a search, or for `schedule="auto"`.

    Attributes
    ----------
    noise_rate : float
    epochs : int
    seconds : float
    rival_share : float or None
        As in `keeprate.noise.rival_share`; None where the classes are many.
    loss_gap : float or None
        The mean loss of held-out samples minus that of training samples, by their labels as given,
        after a quarter of the epochs of a full training; in [0, 1]. None in earlier records.
    """

    noise_rate: float
    epochs: int
    seconds: float
    rival_share: float | None = None
    loss_gap: float | None = None


@dataclass(frozen=True)
class TrialCounts:
    """How many trials a search has, and how many of them confirm the best schedules."""

    trials: int
    confirm: int


@dataclass(frozen=True)
class Cost:
    """What a run has cost.

    Attributes
    ----------
    candidate_epochs : int
        Epochs of all candidates of the search, or of the first training.
    full_trainings : float
        The same in trainings of all epochs.
    search_seconds, final_seconds : float
    """

    candidate_epochs: Count = 0
    full_trainings: float = 0.0
    search_seconds: Seconds = 0.0
    final_seconds: Seconds = 0.0


@dataclass(frozen=True)
class Suspect:
    """A label that looks wrong, to be looked at.

    Attributes
    ----------
    index : int
        Row of the sample in the data as the user gave it.
    given, predicted : str
        Class names.
    score : float
        Probability that the given label is right.
    name : str
        What people know the sample by; empty if nothing.
    image : str
        A PNG or JPEG in base64; empty if the sample is no image.
    values : dict of str to str or float
        Of a row of a table, by column; float in records of earlier versions.
    """

    index: int
    given: str
    predicted: str
    score: float
    name: str = ""
    image: str = ""
    values: dict[str, str | float] = field(default_factory=dict)

    @property
    def suggestion(self) -> str | None:
        """The class that is suggested in place of the given one, if one is."""
        return None if self.predicted == NOT_SURE else self.predicted


@dataclass(frozen=True, eq=False)
class RunRecord:
    """What a run was given and has found.

    Attributes
    ----------
    kind : {"search", "train"}
    command : str
        As typed; empty for a run from Python.
    config : dict
        All options, as plain values: a run goes on only with the same.
    versions : dict of str to str
        What a result may depend on.
    data : DataSummary
    trial_counts : TrialCounts or None
        Of a search, once they are known.
    trials : tuple of TrialSummary
    finalists : tuple of tuples of int
        Trial numbers: all trainings of each schedule that went into the final trainings.
    first : FirstTraining or None
    results : tuple of Result
        The run's own first.
    by_class : ByClass or None
        Of the run's own classifier; None where no sample was held out.
    noise_estimate : NoiseEstimate or None
    labels_judged, label_issues : int
        How many labels were judged, how many of them look wrong.
    suspects : tuple of Suspect
    cost : Cost
    cautions : tuple of str
        What the reader of the results should be careful with, and what to do.
    finished : bool
    checksums : dict of str to str
        SHA-256 of files of a finished run, by name.
    study : str or None
        The name of the study in a database of other people's (`config["storage"]`).
    added : tuple of TrialCounts
        What was added to the finished search, one addition after the other.
    is_adding : bool
        Whether the last addition is not over: while trials are added, what else the record tells is
        that of before.
    """

    kind: str
    command: str
    config: dict[str, Any]
    versions: dict[str, str]
    data: DataSummary
    trial_counts: TrialCounts | None = None
    trials: tuple[TrialSummary, ...] = ()
    finalists: tuple[tuple[int, ...], ...] = ()
    first: FirstTraining | None = None
    results: Annotated[tuple[Result, ...], msgspec.Meta(max_length=MOST_RESULTS)] = ()
    by_class: ByClass | None = None
    noise_estimate: NoiseEstimate | None = None
    labels_judged: Count = 0
    label_issues: Count = 0
    suspects: Annotated[tuple[Suspect, ...], msgspec.Meta(max_length=MOST_SUSPECTS)] = ()
    cost: Cost = Cost()
    cautions: Annotated[tuple[str, ...], msgspec.Meta(max_length=MOST_CAUTIONS)] = ()
    finished: bool = False
    checksums: dict[str, str] = field(default_factory=dict)
    study: str | None = None
    added: Annotated[tuple[TrialCounts, ...], msgspec.Meta(max_length=MOST_ADDITIONS)] = ()
    is_adding: bool = False

    def __eq__(self, other: object) -> bool:
        """Whether a file would hold the same."""
        return isinstance(other, RunRecord) and to_json(self) == to_json(other)

    __hash__ = None  # type: ignore[assignment]  # its dicts can change

    @property
    def has_own_metric(self) -> bool:
        """Whether a metric with held-out data of its own scored the networks."""
        metric = self.config.get("metric")
        return isinstance(metric, dict) and "scorer" not in metric

    @property
    def has_scorer(self) -> bool:
        """Whether a scorer scored predictions for validation and test samples."""
        metric = self.config.get("metric")
        return isinstance(metric, dict) and "scorer" in metric


def versions() -> dict[str, str]:
    """Versions that a result may depend on."""
    names = ("keeprate", "torch", "numpy", "scipy", "optuna")
    return {name: metadata.version(name) for name in names} | {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
    }


def save_record(folder: Path | None, record: RunRecord) -> None:
    """Write `record.json`, atomically; a run without a folder writes nothing."""
    if folder is not None:
        write_json(folder / RECORD_FILE, to_json(record))


def load_record(folder: str | os.PathLike[str]) -> RunRecord:
    """Read a run folder's record.

    Raises
    ------
    InputError
        If the record is missing, damaged, or written by another version of keeprate.
    """
    path = Path(folder) / RECORD_FILE
    content = read_bytes(path, LARGEST)
    try:
        _check_version(msgspec.json.decode(content, type=_Head).schema_version, path)
        record = msgspec.json.decode(content, type=RunRecord, dec_hook=_decode)
        _check_arrays(record)
        return record
    except InputError:
        raise
    except RecursionError as error:  # thousands of brackets
        raise damaged(path, error) from error
    except (msgspec.DecodeError, ValueError, TypeError, OverflowError) as error:
        raise InputError(
            f"{path} must hold a run record ({cut(str(error), 400)}); the file is damaged: "
            "delete it or choose another folder."
        ) from error


def to_json(record: RunRecord) -> dict[str, Any]:
    """The record as JSON holds it.

    Each result also gets its last and its best epoch, and its seconds, for people who read the
    file; `load_record` derives them anew.
    """
    plain: dict[str, Any] = msgspec.to_builtins(record, enc_hook=_encode)
    for entry, result in zip(plain["results"], record.results, strict=True):
        entry["seconds"] = result.seconds
        entry["last"] = msgspec.to_builtins(result.last)
        entry["best"] = msgspec.to_builtins(result.best)
    return {"schema_version": SCHEMA_VERSION} | plain


def _check_version(version: Any, path: Path) -> None:
    shown = cut(repr(version), 60)
    if type(version) is not int:
        raise InputError(
            f"{path} must hold a schema_version, got {shown}; the file is damaged or not a run "
            "record: choose another folder."
        )
    if version > SCHEMA_VERSION:
        raise InputError(
            f"{path} was written by a later keeprate (schema {shown}, this one reads "
            f"{SCHEMA_VERSION}); update keeprate."
        )
    if version < SCHEMA_VERSION:
        raise InputError(
            f"{path} was written by an earlier keeprate (schema {shown}, this one reads "
            f"{SCHEMA_VERSION}); read it with keeprate at commit 6bac0f6, or run its command "
            "again in another folder."
        )


def _check_arrays(record: RunRecord) -> None:
    for place, result in enumerate(record.results):
        _check_curves(record, result.curves, f"$.results[{place}].curves")
    n_classes = len(record.data.class_names)
    if (found := record.by_class) is not None and len(found.samples) != n_classes:
        raise ValueError(f"samples must be of {n_classes} classes - at `$.by_class`")
    if (noise := record.noise_estimate) is not None:
        for name in ("transition_matrix", "transition_matrix_std"):
            matrix = getattr(noise, name)
            if matrix is not None and (
                matrix.shape != (n_classes, n_classes) or not (np.abs(matrix) <= 1e6).all()
            ):
                raise ValueError(
                    f"{name} must be shares [{n_classes}, {n_classes}] - at `$.noise_estimate`"
                )


def _check_curves(record: RunRecord, curves: Curves, place: str) -> None:
    """Refuse curves of unequal length, of which some may be empty, and numbers out of bounds."""
    n_epochs = len(curves)
    for name in ("train_accuracy", "validation_accuracy", "validation_score"):
        if len(getattr(curves, name)) != n_epochs or not n_epochs:
            raise ValueError(f"{name} must have {max(1, n_epochs)} epochs - at `{place}`")
    for name in ("test_accuracy", "label_precision", "test_score"):
        if len(getattr(curves, name)) not in (0, n_epochs):
            raise ValueError(f"{name} must have 0 or {n_epochs} epochs - at `{place}`")
    shares = ["train_accuracy", "validation_accuracy", "test_accuracy", "label_precision"]
    scores = ["validation_score", "test_score"]
    if record.has_own_metric:  # whose scores stand for the accuracy, too
        scores.append(shares.pop(1))
    for name in shares:
        if not all(0 <= share <= 1 for share in getattr(curves, name)):
            raise ValueError(f"{name} must lie in [0, 1] - at `{place}`")
    for name in scores:
        if not all(abs(score) <= LARGEST_SCORE for score in getattr(curves, name)):
            raise ValueError(f"{name} must lie within a million either way - at `{place}`")


def _encode(value: Any) -> Any:
    if isinstance(value, np.ndarray):  # vectors are schedules, tables transition matrices
        return value.tolist() if value.ndim == 1 or len(value) <= MOST_CLASSES else None
    if isinstance(value, np.generic):  # a user's option may be a number of NumPy's
        return value.item()
    if isinstance(value, Mapping):  # the read-only parameters of a schedule
        return dict(value)
    raise TypeError(f"{type(value).__name__} in a run record")


def _decode(kind: Any, value: Any) -> Any:
    if value is None:  # left out of the file for its size
        return None
    return np.array(value, dtype=np.float64)
