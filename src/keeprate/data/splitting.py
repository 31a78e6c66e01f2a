"""Cut a data set into disjoint splits for training, validation and test, and inject noise.

`prepare` reads from top to bottom: check, load, cut, limit, corrupt, cut again if the validation
labels are to be noisy, state what is known of the labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from keeprate.data.features import Encoder
from keeprate.data.rows import joined, part_of
from keeprate.data.samples import Data, LabelStatus, Loaded, Split
from keeprate.data.sources import load_data
from keeprate.errors import Words, check_whole, invalid
from keeprate.noise import Noise
from keeprate.seeding import derive_seed

IntArray = NDArray[np.int64]
LEAST_SAMPLES = 5  # a fifth of them is one sample


@dataclass(frozen=True)
class _Request:
    """The checked arguments of `prepare` that say how to cut and corrupt."""

    noise: Noise
    seed: int
    n_validation: float | None
    n_test: float | None
    limit: int | None
    noisy_validation: bool

    @property
    def injects(self) -> bool:
        """Whether any noise is to be injected."""
        return self.noise.kind != "none"


def prepare(
    source: Any,
    *,
    inputs: str | Sequence[str] | None = None,
    label: str | None = None,
    true_label: str | None = None,
    columns: Mapping[str, str] | None = None,
    votes: str | Sequence[str] | None = None,
    text_model: str | None = None,
    image_size: int | tuple[int, int] | None = None,
    normalise: str = "auto",
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
    source : Loaded or any source of `load_data`
        A data set, or a description of one.
    inputs, label, true_label, columns, votes, image_size, normalise : optional
        Arguments of `load_data`.
    text_model : str, optional
        A sentence-transformers model, by the path of its folder or by its name, for columns of
        free text. Left out: TF-IDF and a truncated SVD, fitted to the training texts.
    noise : Noise or str, optional
        Noise to inject, such as "pairflip:0.45" (`Noise.parse`). It strikes the training labels,
        and the validation labels if `validation` is "noisy". The labels before that become the
        true labels.
    seed : int
        At least 0. The cut and the noise depend on it through independent random streams.
    n_validation, n_test : int or float, optional
        A number of samples, or a share in (0, 1) of the split that they are cut from. Defaults: a
        source with three splits keeps them. A source with one held-out split validates with half
        of it and tests with the other half (5,000 and 5,000 in the paper). A source with one
        split gives 20 % of it to each. `n_test=0` makes no test split: a held-out split validates
        whole.
    limit : int, optional
        The largest number of training samples.
    validation : {"auto", "noisy"}
        "auto": the validation split comes from the held-out samples if there are any. If it has
        to be cut from the training samples, its labels are clean where noise is injected later or
        true labels are known, and noisy otherwise.

        "noisy": no clean label is used for training or validation; true labels serve only to
        cut the test split and the `limit` evenly. The validation samples are cut from the
        training split after the noise: a tenth of it if the source has a held-out split, which
        then is the test split. If the source has three splits, they stay, and the injected noise
        strikes the validation labels too.

    Returns
    -------
    Data
        Disjoint splits. Each cut is stratified by the true labels where they are known, else by
        the given labels. Where true labels are known, validation and test use them as labels.

    Raises
    ------
    InputError
        If a number does not fit, if noise is to be injected but the true labels are known
        already, or if `load_data` refuses the source.

    Examples
    --------
    >>> data = prepare("digits", noise=Noise("pairflip", 0.45), seed=0)
    >>> len(data.train), len(data.validation), len(data.test), data.input_shape
    (1079, 359, 359, (1, 8, 8))
    >>> abs(data.noise_rate - 0.45) < 0.05
    True
    """
    request = _check_arguments(noise, seed, n_validation, n_test, limit, validation)
    loaded = _load_source(
        source,
        inputs=inputs,
        label=label,
        true_label=true_label,
        columns=columns,
        votes=votes,
        image_size=image_size,
        normalise=normalise,
    )
    _refuse_noise_on_known_labels(loaded, request)
    if request.noisy_validation:
        splits = _cut_test(loaded.splits, request)
    else:
        splits = _cut_validation_and_test(loaded.splits, request)
    splits = _limit_training(splits, request)
    splits, encoder = _encode(splits, loaded, text_model)
    splits = _corrupt(splits, request, n_classes=len(loaded.class_names))
    if request.noisy_validation:
        splits = _cut_noisy_validation(splits, request, one_in=_one_in(loaded.splits))
    splits = _with_label_status(splits, request, is_cut_from_one=len(loaded.splits) == 1)
    return Data(
        train=splits["train"],
        validation=splits["validation"],
        test=splits.get("test"),
        class_names=loaded.class_names,
        name=loaded.name,
        noise=str(request.noise),
        validation_from=_validation_from(loaded.splits, splits, request),
        input_columns=loaded.input_columns,
        encoder=encoder,
        left_out=loaded.left_out,
        notes=loaded.notes + (() if encoder is None else encoder.notes),
        normalise=loaded.normalise,
        source=loaded.source,
    )


# Checks ----------------------------------------------------------------------------------------


def _check_arguments(
    noise: Noise | str | None,
    seed: int,
    n_validation: float | None,
    n_test: float | None,
    limit: int | None,
    validation: str,
) -> _Request:
    seed = check_whole("seed", seed, 0)
    if validation not in ("auto", "noisy"):
        raise invalid("validation", "be auto or noisy", validation, "choose one of these")
    if limit is not None and limit < 1:
        raise invalid("limit", "be at least 1", limit, "leave it out for all samples")
    if not isinstance(noise, Noise):
        noise = Noise() if noise is None else Noise.parse(noise)
    return _Request(noise, seed, n_validation, n_test, limit, validation == "noisy")


def _load_source(source: Any, **options: Any) -> Loaded:
    if not isinstance(source, Loaded):
        return load_data(source, **options)
    if given := [name for name, value in options.items() if value not in (None, "auto")]:
        received = Words("a source that is loaded already")
        raise invalid(", ".join(given), "go to load_data", received, "give them there")
    return source


def _refuse_noise_on_known_labels(loaded: Loaded, request: _Request) -> None:
    if request.injects and loaded.splits["train"].true_labels is not None:
        remedy = "leave out the noise or the true-label column"
        requirement = "be none where the data have true labels"
        raise invalid("noise", requirement, str(request.noise), remedy)


# Cuts ------------------------------------------------------------------------------------------


def _cut_validation_and_test(splits: dict[str, Split], request: _Request) -> dict[str, Split]:
    """Cut both by clean labels, before any noise; "test" is missing if it gets no samples."""
    if len(splits) == 3:
        cut = {"train": splits["train"]}
        return cut | _cut_given(splits, "validation", request) | _cut_given(splits, "test", request)
    held_out = next((name for name in splits if name != "train"), None)
    pool = splits[held_out or "train"]
    size = len(pool)
    if not held_out and size < LEAST_SAMPLES and request.n_validation is None:
        requirement = f"be at least {LEAST_SAMPLES} to be cut in training, validation and test ones"
        raise invalid("samples", requirement, size, "give more rows, or splits")
    by_default = size // 2 if held_out else size // 5
    if held_out and request.n_test == 0:
        by_default = size
    n_validation = _count("n_validation", request.n_validation, size, by_default)
    by_default = size - n_validation if held_out else size // 5
    n_held_out = n_validation + _count("n_test", request.n_test, size, by_default)
    if n_held_out > (size if held_out else size - 1):
        kind = "held-out" if held_out else "given, with one left to train on"
        requirement = f"be at most the {size} samples {kind}"
        raise invalid("n_validation + n_test", requirement, n_held_out, "make one smaller")
    order = _stratified_order(pool, request.seed, "split")
    cut = {
        "train": splits["train"] if held_out else part(pool, order[n_held_out:]),
        "validation": part(pool, order[:n_validation]),
    }
    if n_held_out > n_validation:
        cut["test"] = part(pool, order[n_validation:n_held_out])
    return cut


def _cut_test(splits: dict[str, Split], request: _Request) -> dict[str, Split]:
    """Cut the test split alone; the validation split of a source with three stays whole."""
    train = splits["train"]
    if len(splits) == 1:
        size = len(train)
        n_test = _count("n_test", request.n_test, size, size // 5)
        if n_test > size - 2:
            requirement = f"leave 2 of the {size} samples to train and to validate with"
            raise invalid("n_test", requirement, n_test, "make it smaller")
        order = _stratified_order(train, request.seed, "test")
        cut = {"train": part(train, order[n_test:])}
        return cut | {"test": part(train, order[:n_test])} if n_test else cut
    if len(splits) == 2:
        splits = {"train": train, "test": next(s for n, s in splits.items() if n != "train")}
    whole = {name: split for name, split in splits.items() if name != "test"}
    return whole | _cut_given(splits, "test", request)


def _cut_given(splits: dict[str, Split], name: str, request: _Request) -> dict[str, Split]:
    """Cut samples from the split that the source holds for them; the default is all of it."""
    split, wanted = splits[name], {"validation": request.n_validation, "test": request.n_test}
    n = _count(f"n_{name}", wanted[name], len(split), len(split))
    return {name: part(split, _stratified_order(split, request.seed, name)[:n])} if n else {}


def _cut_noisy_validation(
    splits: dict[str, Split], request: _Request, one_in: int
) -> dict[str, Split]:
    """Cut validation samples by noisy labels; the true labels must have no influence."""
    train, given = splits["train"], splits.get("validation")
    if given is not None:
        blind = {"validation": replace(given, true_labels=None)}
        return splits | _cut_given(blind, "validation", request)
    by_default = max(1, len(train) // one_in)
    n = _count("n_validation", request.n_validation, len(train) - 1, by_default)
    order = _stratified_order(replace(train, true_labels=None), request.seed, "split")
    validation = replace(part(train, order[:n]), true_labels=None)
    return splits | {"train": part(train, order[n:]), "validation": validation}


def _one_in(source: dict[str, Split]) -> int:
    """The n of a validation share 1/n of the training samples: 4 where a fifth of all tests."""
    return 4 if len(source) == 1 else 10


def _count(name: str, wanted: float | None, size: int, by_default: int) -> int:
    """Return the number of samples that a number, a share or None asks for."""
    least = 1 if name == "n_validation" else 0
    count = by_default if wanted is None else wanted
    if isinstance(count, float) and 0.0 < count < 1.0:
        count = round(size * count)
    if isinstance(count, bool) or not float(count).is_integer() or not least <= count <= size:
        requirement = f"be a share in (0, 1) or a number in {least}..{size}"
        received = count if wanted is None else wanted
        raise invalid(name, requirement, received, "give another number, or more samples")
    return int(count)


def _stratified_order(split: Split, seed: int, stream: str) -> IntArray:
    """Return an order in which every piece holds the classes in their proportions.

    The k-th of the n samples of a class stands at (k + u) / n of the way, where u is uniform in
    [0, 1) and drawn for each class. So the first share f of the order holds f n samples of the
    class, up to one.
    """
    rng = np.random.default_rng(derive_seed(seed, stream))
    labels = (split.labels if split.true_labels is None else split.true_labels).numpy()
    by_class = rng.permutation(len(labels))
    by_class = by_class[np.argsort(labels[by_class], kind="stable")]
    sizes = np.bincount(labels)
    # Step by step in one array: a million samples take memory.
    place = np.arange(len(labels), dtype=np.float64)
    place -= np.repeat(np.cumsum(sizes) - sizes, sizes)
    place += np.repeat(rng.random(len(sizes)), sizes)
    place /= np.repeat(sizes, sizes)
    order: IntArray = by_class[np.argsort(place, kind="stable")]
    return order


def part(split: Split, positions: IntArray) -> Split:
    """Return the samples at these positions, in their original order."""
    if len(positions) == len(split):
        return split
    index = torch.from_numpy(np.sort(positions))
    return replace(
        split,
        inputs=part_of(split.inputs, index),
        labels=split.labels[index],
        true_labels=None if split.true_labels is None else split.true_labels[index],
        rows=split.rows[index],
        names=tuple(split.names[i] for i in index.tolist()) if split.names else (),
        votes=None if split.votes is None else split.votes[index],
        weights=None if split.weights is None else split.weights[index],
    )


def without_inputs(split: Split) -> Split:
    """The samples where only labels are asked for: their parts do not copy inputs [N, 0]."""
    return replace(split, inputs=torch.empty(len(split), 0))


def join(first: Split, second: Split) -> Split:
    """Return the samples of both; what only one of them has is left out, but for weights of 1."""

    def both(name: str) -> torch.Tensor | None:
        tensors = [getattr(first, name), getattr(second, name)]
        return None if any(tensor is None for tensor in tensors) else torch.cat(tensors)

    weights = None
    if first.weights is not None or second.weights is not None:
        known = [torch.ones(len(s)) if s.weights is None else s.weights for s in (first, second)]
        weights = torch.cat(known)
    return replace(
        first,
        inputs=joined(first.inputs, second.inputs),
        labels=torch.cat([first.labels, second.labels]),
        true_labels=both("true_labels"),
        rows=torch.cat([first.rows, second.rows]),
        names=first.names + second.names if first.names and second.names else (),
        votes=both("votes"),
        weights=weights,
    )


# Features, noise and what is known of labels ---------------------------------------------------


def _encode(
    splits: dict[str, Split], loaded: Loaded, text_model: str | None
) -> tuple[dict[str, Split], Encoder | None]:
    """Turn the columns of a table into features, by the training samples alone."""
    columns = loaded.coded_columns
    if text_model is not None and all(column.kind != "text" for column in columns):
        received = Words(f"data without one: {loaded.name}")
        raise invalid("text_model", "encode a column of texts", received, "leave it out")
    if not columns:
        return splits, None
    encoder = Encoder.fit(splits["train"].inputs, columns, text_model=text_model)
    encoded = {
        name: replace(split, inputs=encoder.encode_rows(split.inputs, columns))
        for name, split in splits.items()
    }
    return encoded, encoder


def _limit_training(splits: dict[str, Split], request: _Request) -> dict[str, Split]:
    if request.limit is None:
        return splits
    train = splits["train"]
    order = _stratified_order(train, request.seed, "limit")
    return splits | {"train": part(train, order[: request.limit])}


def _corrupt(splits: dict[str, Split], request: _Request, n_classes: int) -> dict[str, Split]:
    """Inject the same noise into the training split and into a validation split to be noisy."""
    if not request.injects:
        return splits
    names = ["train"]
    if request.noisy_validation and "validation" in splits:
        names.append("validation")
    labels = torch.cat([splits[name].labels for name in names]).numpy()
    inputs = np.empty(0)
    if request.noise.kind == "instance":  # one split is not joined: that would copy all inputs
        of_all = reduce(joined, [splits[name].inputs for name in names])
        inputs = (of_all if isinstance(of_all, torch.Tensor) else of_all[:]).numpy()
    rng = np.random.default_rng(derive_seed(request.seed, "noise"))
    noisy = request.noise.corrupt_labels(labels, inputs, n_classes=n_classes, rng=rng)
    pieces = torch.from_numpy(noisy).split([len(splits[name]) for name in names])
    return splits | {
        name: replace(
            splits[name], labels=piece.clone(), true_labels=splits[name].labels, votes=None
        )
        for name, piece in zip(names, pieces, strict=True)
    }


def _with_label_status(
    splits: dict[str, Split], request: _Request, *, is_cut_from_one: bool
) -> dict[str, Split]:
    """State of each split what is known of its labels; give held-out samples their true ones."""
    # Labels that nothing is known of are as wrong as the labels that they were cut from.
    unstated: LabelStatus = "noisy" if is_cut_from_one else "unknown"
    stated = {"train": replace(splits["train"], label_status="noisy")}
    for name in ("validation", "test"):
        split = splits.get(name)
        if split is None:
            continue
        if name == "validation" and request.noisy_validation:
            stated[name] = replace(split, label_status="noisy")
        elif split.true_labels is not None:
            stated[name] = replace(split, labels=split.true_labels, label_status="clean")
        else:
            status: LabelStatus = "clean" if request.injects else unstated
            stated[name] = replace(split, label_status=status)
    return stated


def _validation_from(source: dict[str, Split], splits: dict[str, Split], request: _Request) -> str:
    validation, noisy = splits["validation"], request.noisy_validation
    if len(source) == 3:
        return "the validation split of the source" + (", with its noise" if noisy else "")
    if noisy:
        size = len(validation) + len(splits["train"])
        return f"{len(validation)} of the {size} samples of the training split, with their noise"
    name = "only" if len(source) == 1 else validation.origin
    return f"{len(validation)} of the {len(source[validation.origin])} samples of the {name} split"
