"""Samples: one split, all splits of a source, and the data of a run."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from keeprate.data.features import Encoder, InputColumn
from keeprate.data.preprocessing import Normaliser
from keeprate.data.rows import Inputs, add_to_digest
from keeprate.noise import noise_rate

LabelStatus: TypeAlias = Literal["clean", "noisy", "unknown"]
Normalise: TypeAlias = Literal["auto", "centred", "none"]


@dataclass(frozen=True)
class Split:
    """Samples, in memory or in a file.

    Attributes
    ----------
    inputs : Tensor or Rows [N, *shape]
        uint8, or finite float32. Images are [N, channels, height, width]. `Rows` lie in a file, as
        memory is not to hold them; an index takes a tensor out of either.
    labels : Tensor [N] of int64
        The given labels, in 0..C-1. Some may be wrong.
    true_labels : Tensor [N] of int64 or None
        The right labels, where they are known.
    rows : Tensor [N] of int64
        The rows of the source that hold these samples, counted from 0. The default is 0..N-1.
    names : tuple of N str
        The file or the text that people know each sample by. Empty if there are no names.
    label_status : {"clean", "noisy", "unknown"}
        What is known of `labels`: they are free of the noise of the training labels, they are as
        wrong as the training labels, or nothing is known.
    origin : str
        The split of the source that `rows` refers to.
    votes : Tensor [N, C] of float32 or None
        How many people gave which label to each sample, where several did.
    weights : Tensor [N] or None
        How much each sample counts in training, at least 0; None: all the same. Only the weights
        of training samples have an effect.
    """

    inputs: Inputs
    labels: Tensor
    true_labels: Tensor | None = None
    rows: Tensor = None  # type: ignore[assignment]  # filled in below, once N is known
    names: tuple[str, ...] = ()
    label_status: LabelStatus = "unknown"
    origin: str = "train"
    votes: Tensor | None = None
    weights: Tensor | None = None

    def __post_init__(self) -> None:
        if self.rows is None:
            object.__setattr__(self, "rows", torch.arange(len(self.labels)))

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        shape, kind = list(self.inputs.shape), str(self.inputs.dtype).removeprefix("torch.")
        return f"Split(inputs={shape} {kind}, label_status={self.label_status!r})"


@dataclass(frozen=True)
class Source:
    """Where the samples of a run come from, so that decisions on labels find the way back.

    Attributes
    ----------
    path : str
        As it was given.
    label : str
        The column of the labels; empty if none was named and none is to be found by its name.
    n_rows : int
        Rows of its training split that have a label.
    """

    path: str
    label: str
    n_rows: int


@dataclass(frozen=True)
class Loaded:
    """All splits of a source, before `prepare` cuts them and injects noise.

    Attributes
    ----------
    splits : dict of str to Split
        `train`, and `validation` and `test` if the source has them. Each split gets its name here
        as its `origin`.
    class_names : tuple of C str
        Label i stands for `class_names[i]`.
    name : str
        The name of the data set, for records and titles.
    input_columns : tuple of str
        The columns that hold the inputs, if the source is a table.
    coded_columns : tuple of D InputColumn
        What the inputs [N, D] of a table stand for: `prepare` encodes them once it has cut the
        splits. Empty for inputs that networks take as they are.
    left_out : dict of str to str
        Columns that are neither inputs nor labels, and why.
    notes : tuple of str
        What the user should know of the reading, a sentence each.
    normalise : {"auto", "centred", "none"}
        "centred": networks get pixels in -1..1. "none": they get the numbers as they are, token
        ids say.
    source : Source or None
        None for data in memory.
    """

    splits: dict[str, Split]
    class_names: tuple[str, ...]
    name: str
    input_columns: tuple[str, ...] = ()
    coded_columns: tuple[InputColumn, ...] = ()
    left_out: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    normalise: Normalise = "auto"
    source: Source | None = None

    def __post_init__(self) -> None:
        splits = {name: replace(split, origin=name) for name, split in self.splits.items()}
        object.__setattr__(self, "splits", splits)


@dataclass(frozen=True)
class Data:
    """The three disjoint splits of a run.

    Attributes
    ----------
    train, validation : Split
        Injected noise is in `train`, and in `validation` if its labels are noisy.
    test : Split or None
        A search never sees the test split, and noise is never injected into it.
    class_names : tuple of C str
        Label i stands for `class_names[i]`.
    name : str
        The name of the data set.
    noise : str
        The injected noise, as `Noise.parse` reads it.
    validation_from : str
        The origin of the validation samples, in words.
    input_columns : tuple of str
        The columns that hold the inputs, if the source is a table.
    encoder : Encoder or None
        What turned the columns into `inputs`, fitted to the training samples. None for inputs
        that networks take as they are.
    left_out : dict of str to str
        Columns that are neither inputs nor labels, and why.
    notes : tuple of str
        What the user should know of the reading, a sentence each.
    normalise : {"auto", "centred", "none"}
        "centred": networks get pixels in -1..1. "none": they get the numbers as they are, token
        ids say.
    source : Source or None
        None for data in memory.
    reviewed : tuple of int
        Rows of the training split of the source whose labels people have decided on already.
    """

    train: Split
    validation: Split
    test: Split | None
    class_names: tuple[str, ...]
    name: str = "data"
    noise: str = "none"
    validation_from: str = "given"
    input_columns: tuple[str, ...] = ()
    encoder: Encoder | None = None
    left_out: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    normalise: Normalise = "auto"
    source: Source | None = None
    reviewed: tuple[int, ...] = ()

    def __repr__(self) -> str:
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        lines = [f"Data({self.name!r}, noise={self.noise!r}, {self.n_classes} classes)"]
        lines += [f"  {name}: {split}" for name, split in splits.items()]
        return "\n".join(lines)

    @property
    def criterion(self) -> Literal["accuracy", "determinant"]:
        """The score of a trial on the validation samples.

        "determinant" if the validation labels are noisy (`keeprate.noise.determinant_score`),
        else "accuracy".
        """
        return "determinant" if self.validation.label_status == "noisy" else "accuracy"

    @property
    def n_classes(self) -> int:
        """C."""
        return len(self.class_names)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one sample: (channels, height, width), or (features,)."""
        return tuple(self.train.inputs.shape[1:])

    @property
    def input_kinds(self) -> dict[str, str]:
        """The columns that hold the inputs, and what each of them holds."""
        if self.encoder is None or not self.input_columns:
            what = "images" if len(self.input_shape) == 3 else "lists of numbers"
            return dict.fromkeys(self.input_columns, what)
        return {column.name: column.in_words() for column in self.encoder.columns}

    @property
    def class_counts(self) -> tuple[int, ...]:
        """How many training samples have each label."""
        return tuple(self.train.labels.bincount(minlength=self.n_classes).tolist())

    def normaliser(self) -> Normaliser:
        """What scales batches for networks, fitted to the training inputs."""
        if self.normalise == "none":
            return Normaliser("none")
        if self.normalise == "centred":
            return Normaliser.centred(self.input_shape)
        is_scaled = None if self.encoder is None else self.encoder.is_scaled
        return Normaliser.fit(self.train.inputs, is_scaled=is_scaled)

    @property
    def doubted_splits(self) -> list[Split]:
        """The splits that are searched for wrong labels.

        The training split, and every other split that has noisy labels and comes from the same
        split of the source.
        """
        held_out = [split for split in (self.validation, self.test) if split is not None]
        noisy = [split for split in held_out if split.label_status == "noisy"]
        return [self.train, *(split for split in noisy if split.origin == self.train.origin)]

    @property
    def noise_rate(self) -> float | None:
        """Measured share of wrong training labels; None if the true labels are unknown."""
        if self.train.true_labels is None:
            return None
        return noise_rate(self.train.labels.numpy(), self.train.true_labels.numpy())

    def fingerprint(self) -> str:
        """SHA-256 of the class names and of all inputs, labels and weights, in hexadecimal."""
        digest = hashlib.sha256(repr(self.class_names).encode())
        for split in (self.train, self.validation, self.test):
            for name in ("inputs", "labels", "true_labels", "weights"):
                tensor = getattr(split, name, None)
                if tensor is not None:
                    add_to_digest(digest, tensor)
                elif name != "weights":  # data without weights keep the hash that they had
                    digest.update(b"none")
        return digest.hexdigest()
