"""Three disjoint splits in memory, noise in the training labels, normalising, batches."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from keeprate.data.samples import LabelStatus, Loaded, Split
from keeprate.data.sources import load
from keeprate.errors import invalid
from keeprate.noise import Noise, noise_rate
from keeprate.seeding import derive_seed

IntArray = NDArray[np.int64]
LEAST_SAMPLES = 5  # of which a fifth is one


@dataclass(frozen=True)
class Data:
    """What a run trains on, chooses by and is judged by.

    Attributes
    ----------
    train, validation : Split
        Injected noise is in `train`, and in a noisy `validation`; never in `test`.
    test : Split or None
        No search sees it.
    class_names : tuple of str
        C names.
    name : str
        Of the source.
    noise : str
        What was injected, as `Noise.parse` reads it.
    validation_from : str
        Where the validation samples come from, in words.
    input_columns : tuple of str
        The columns that the inputs came from, where the source is a table.
    """

    train: Split
    validation: Split
    test: Split | None
    class_names: tuple[str, ...]
    name: str = "data"
    noise: str = "none"
    validation_from: str = "given"
    input_columns: tuple[str, ...] = ()

    @property
    def criterion(self) -> str:
        """What trials are judged by on the validation samples.

        "accuracy", or where the labels are noisy "determinant" (`keeprate.noise.inference`).
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
    def doubted_splits(self) -> list[Split]:
        """The training split, and each split that was cut from its samples and is as noisy."""
        others = [split for split in (self.validation, self.test) if split is not None]
        same = [one for one in others if one.origin == self.train.origin]
        return [self.train, *(one for one in same if one.label_status == "noisy")]

    @property
    def noise_rate(self) -> float | None:
        """Share of wrong training labels, measured; None where the true ones are unknown."""
        if self.train.true_labels is None:
            return None
        return noise_rate(self.train.labels.numpy(), self.train.true_labels.numpy())

    def fingerprint(self) -> str:
        """SHA-256 in hexadecimal of all tensors and class names; a changed pixel changes it."""
        digest = hashlib.sha256(repr(self.class_names).encode())
        for split in (self.train, self.validation, self.test):
            parts = (
                (None,) * 3 if split is None else (split.inputs, split.labels, split.true_labels)
            )
            for tensor in parts:
                if tensor is None:
                    digest.update(b"none")
                    continue
                digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
                digest.update(np.ascontiguousarray(tensor.cpu().numpy()).data)
        return digest.hexdigest()


def prepare(
    source: Any,
    *,
    inputs: str | Sequence[str] | None = None,
    label: str | None = None,
    true_label: str | None = None,
    noise: Noise | str | None = None,
    seed: int = 0,
    n_validation: int | float | None = None,
    n_test: int | float | None = None,
    limit: int | None = None,
    validation: str = "auto",
) -> Data:
    """Split a data set into train, validation and test, and inject noise.

    Parameters
    ----------
    source : Loaded or anything that `load` takes
        With `inputs`, `label` and `true_label`, which go to `load`.
    noise : Noise or str, optional
        As `Noise.parse` takes it ("pairflip:0.45"). Injected into the training labels (and
        those of a noisy validation set); what was there becomes the true labels.
    seed : int
        At least 0. The split and the noise depend on it, by independent streams.
    n_validation, n_test : int or float, optional
        Samples, or a share in (0, 1) of the split that they are taken from. Left out: where the
        source has one held-out split, half of it validates and the other half tests (the paper's
        5,000 and 5,000); where it has only one split, 20 % and 20 % of it; where it has all
        three, they stay. `n_test=0` gives no test split.
    limit : int, optional
        At most so many training samples.
    validation : {"auto", "noisy"}
        "auto": as above; where it has to be cut from the training samples, and no noise is
        injected and no true labels are known, its labels count as noisy. "noisy": no clean label
        trains or chooses (the test set and `limit` are still cut evenly by them): the validation
        samples are cut from the training split (a tenth of it where the source has a held-out
        split, which tests), with labels as noisy as the others'. Where the source has all three
        splits, they stay, and injected noise strikes the validation labels, too.

    Returns
    -------
    Data
        Disjoint splits; each cut is stratified by the true labels where they are known, else by
        the labels as given. With known true labels, validation and test have those.

    Raises
    ------
    InputError
        If a number does not fit, or noise is asked where true labels are known already, or
        `load` refuses the source.

    Examples
    --------
    >>> data = prepare("digits", noise=Noise("pairflip", 0.45), seed=0)
    >>> len(data.train), len(data.validation), len(data.test), data.input_shape
    (1079, 359, 359, (1, 8, 8))
    >>> abs(data.noise_rate - 0.45) < 0.05
    True
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise invalid("seed", "be a whole number of at least 0", seed, "give 0, say")
    if isinstance(noise, str):
        noise = Noise.parse(noise)
    loaded = source
    if not isinstance(source, Loaded):
        loaded = load(source, inputs=inputs, label=label, true_label=true_label)
    elif (inputs, label, true_label) != (None, None, None):
        raise invalid(
            "inputs, label, true_label", "go to load", "a loaded source", "give them there"
        )
    if validation not in ("auto", "noisy"):
        raise invalid("validation", "be auto or noisy", validation, "choose one of these")
    if limit is not None and limit < 1:
        raise invalid("limit", "be at least 1", limit, "leave it out for all samples")
    injected = noise is not None and noise.kind != "none"
    if injected and loaded.splits["train"].true_labels is not None:
        raise invalid(
            "noise",
            "be none where the data have true labels",
            str(noise),
            "leave out the noise or the true-label column",
        )

    def prepared(train: Split, *others: Split) -> list[Split]:
        if limit is not None:
            train = part(train, _stratified_order(train, seed, "limit")[:limit])
        if noise is not None and injected:
            return _corrupted([train, *others], noise, len(loaded.class_names), seed)
        return [train, *others]

    # Of labels of which nothing is known: as wrong as those that they were cut from.
    status: LabelStatus = "noisy"
    unknown: LabelStatus = "noisy" if len(loaded.splits) == 1 else "unknown"
    if validation == "noisy":
        train, held_out, test, origin = _split_noisy(
            loaded.splits, prepared, seed, n_validation, n_test
        )
    else:
        train, held_out, test, origin = _split(loaded.splits, seed, n_validation, n_test)
        (train,) = prepared(train)
        if injected or held_out.true_labels is not None:
            status, held_out = "clean", _with_true_labels(held_out)
        else:
            status = unknown
    known = injected or (test is not None and test.true_labels is not None)
    if test is not None:
        test = replace(_with_true_labels(test), label_status="clean" if known else unknown)
    return Data(
        train=replace(train, label_status="noisy" if injected else train.label_status),
        validation=replace(held_out, label_status=status),
        test=test,
        class_names=loaded.class_names,
        name=loaded.name,
        noise=str(noise) if noise is not None else "none",
        validation_from=origin,
        input_columns=loaded.input_columns,
    )


def _split(
    splits: dict[str, Split], seed: int, n_validation: float | None, n_test: float | None
) -> tuple[Split, Split, Split | None, str]:
    """Return train, validation, test, and where validation came from."""
    train, held_out = splits["train"], [s for s in splits if s != "train"]
    if len(held_out) == 2:
        validation, test = splits["validation"], splits["test"]
        n_val = _count("n_validation", n_validation, len(validation), len(validation))
        n_tst = _count("n_test", n_test, len(test), len(test))
        validation = part(validation, _stratified_order(validation, seed, "validation")[:n_val])
        kept = part(test, _stratified_order(test, seed, "test")[:n_tst]) if n_tst else None
        return train, validation, kept, "the validation split of the source"
    pool = splits[held_out[0]] if held_out else train
    size = len(pool)
    if not held_out and size < LEAST_SAMPLES and n_validation is None:
        requirement = f"be at least {LEAST_SAMPLES} to be cut in training, validation and test ones"
        raise invalid("samples", requirement, size, "give more rows, or splits")
    n_val = _count("n_validation", n_validation, size, size // 2 if held_out else size // 5)
    n_tst = _count("n_test", n_test, size, size - n_val if held_out else size // 5)
    if n_val + n_tst > size - (not held_out):
        of = "held-out" if held_out else "given, with one left to train on"
        raise invalid(
            "n_validation + n_test",
            f"be at most the {size} samples {of}",
            n_val + n_tst,
            "make one smaller",
        )
    order = _stratified_order(pool, seed, "split")
    validation = part(pool, order[:n_val])
    kept = part(pool, order[n_val : n_val + n_tst]) if n_tst else None
    if held_out:
        return train, validation, kept, f"{n_val} of the {size} samples of the {held_out[0]} split"
    rest = part(pool, order[n_val + n_tst :])
    return rest, validation, kept, f"{n_val} of the {size} samples of the only split"


def _split_noisy(
    splits: dict[str, Split],
    prepared: Callable[..., list[Split]],
    seed: int,
    n_validation: float | None,
    n_test: float | None,
) -> tuple[Split, Split, Split | None, str]:
    """As `_split`, the validation samples from the training split, once that is `prepared`.

    Where the source has all three splits, its validation split is as noisy as its training split.
    """
    if len(splits) == 3:
        train, held_out = prepared(splits["train"], splits["validation"])
        # Noise first, and no true label: the cut goes by the labels as they are given.
        blind = splits | {"train": train, "validation": replace(held_out, true_labels=None)}
        train, held_out, test, origin = _split(blind, seed, n_validation, n_test)
        return train, held_out, test, f"{origin}, with its noise"
    train, test = splits["train"], splits.get("test", splits.get("validation"))
    if test is not None:
        n_tst = _count("n_test", n_test, len(test), len(test))
        test = part(test, _stratified_order(test, seed, "test")[:n_tst]) if n_tst else None
        default = 10
    else:
        n_tst = _count("n_test", n_test, len(train), len(train) // 5)
        order = _stratified_order(train, seed, "test")
        test = part(train, order[:n_tst]) if n_tst else None
        train, default = part(train, order[n_tst:]), 4
    (train,) = prepared(train)
    n_val = _count("n_validation", n_validation, len(train) - 1, max(1, len(train) // default))
    # True labels, where noise was injected, have no say in the cut either.
    order = _stratified_order(replace(train, true_labels=None), seed, "split")
    rest, held_out = part(train, order[n_val:]), part(train, order[:n_val])
    origin = f"{n_val} of the {len(train)} samples of the training split, with their noise"
    return rest, replace(held_out, true_labels=None), test, origin


def _count(name: str, wanted: float | None, size: int, default: int) -> int:
    least = 1 if name == "n_validation" else 0
    count = default if wanted is None else wanted
    if isinstance(count, float) and 0.0 < count < 1.0:
        count = round(size * count)
    if isinstance(count, bool) or count != int(count) or not least <= count <= size:
        raise invalid(
            name,
            f"be a share in (0, 1) or a number in {least}..{size}",
            count if wanted is None else wanted,
            "give another number, or more samples",
        )
    return int(count)


def _stratified_order(split: Split, seed: int, stream: str) -> IntArray:
    """Return an order of which every piece holds the classes in their proportions.

    The k-th of the n samples of a class stands at (k + u) / n of the way, u uniform in [0, 1) for
    each class; so a cut of a share f holds f n of them, up to one.
    """
    rng = np.random.default_rng(derive_seed(seed, stream))
    labels = (split.labels if split.true_labels is None else split.true_labels).numpy()
    shuffled = rng.permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    sizes = np.bincount(labels)
    of_class = np.repeat(np.arange(len(sizes)), sizes)
    within = np.arange(len(labels)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    place = (within + rng.random(len(sizes))[of_class]) / sizes[of_class]
    order: IntArray = by_class[np.argsort(place, kind="stable")]
    return order


def part(split: Split, chosen: IntArray) -> Split:
    """Return the chosen rows, in their original order."""
    if len(chosen) == len(split):
        return split
    index = torch.from_numpy(np.sort(chosen))
    true = None if split.true_labels is None else split.true_labels[index]
    names = tuple(split.names[i] for i in index.tolist()) if split.names else ()
    return replace(
        split,
        inputs=split.inputs[index],
        labels=split.labels[index],
        true_labels=true,
        rows=split.rows[index],
        names=names,
    )


def _corrupted(splits: Sequence[Split], noise: Noise, n_classes: int, seed: int) -> list[Split]:
    """Inject the same noise into all of them."""
    rng = np.random.default_rng(derive_seed(seed, "noise"))
    labels, inputs = (
        kind[0].numpy() if len(kind) == 1 else torch.cat(kind).numpy()  # which copies
        for kind in ([split.labels for split in splits], [split.inputs for split in splits])
    )
    noisy = noise.corrupt_labels(labels, inputs, n_classes=n_classes, rng=rng)
    pieces = torch.from_numpy(noisy).split([len(split) for split in splits])
    return [
        replace(split, labels=piece.clone(), true_labels=split.labels)
        for split, piece in zip(splits, pieces, strict=True)
    ]


def _with_true_labels(split: Split) -> Split:
    return split if split.true_labels is None else replace(split, labels=split.true_labels)
