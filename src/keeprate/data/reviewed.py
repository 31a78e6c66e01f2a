"""Data in which people have decided on labels: what they looked at is known to be right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from keeprate.data.judged import REMEDY, Corrections
from keeprate.data.samples import Data, Split
from keeprate.data.splitting import join, part
from keeprate.errors import Words, invalid

LEAST_REVIEWED = 30  # samples that validate: fewer tell schedules apart by chance
LEAST_OF_A_CLASS = 3  # of them: people may have reviewed one pair of classes, and stopped
REVIEWED_WORDS = "labels reviewed after an earlier run"  # in `Data.validation_from`


@dataclass(frozen=True)
class Reviewed:
    """What people decided on labels of a source.

    Attributes
    ----------
    given : dict of int to str
        By row of the training split of the source, the label that was decided on.
    labels : dict of int to str or None
        The right label of these rows; None: the sample is to be dropped.
    names : dict of int to str
        What people know the samples by, where they have names.
    n_rows : int or None
        Labels of the source, if known.
    """

    given: Mapping[int, str]
    labels: Corrections
    names: Mapping[int, str]
    n_rows: int | None = None


def with_reviewed(data: Data, reviewed: Reviewed) -> Data:
    """Let reviewed samples validate, as clean ones, and leave out those that were dropped.

    Reviewed samples of the training split, and of a validation split with noisy labels, become
    validation samples. The other samples of such a validation split train: clean ones are there
    now. For this 30 reviewed samples are needed, and 3 of each class: else networks would be chosen
    by the classes that people began with. Fewer stay where they are, with their right labels, and
    the validation labels stay noisy ones. Validation samples with other labels stay, beside the
    reviewed ones. Reviewed test samples stay where they are, with their right labels.

    Parameters
    ----------
    data : Data
        Of the same source as what was reviewed, and without injected noise.
    reviewed : Reviewed

    Raises
    ------
    InputError
        If the data are of another source.
    """
    _check_source(data, reviewed)
    origin = data.train.origin
    train, clean = _parted(data.train, reviewed, data.class_names)
    validation, n, words = data.validation, len(clean), f"{data.validation_from}, and "
    if validation.label_status == "noisy" and validation.origin == origin:
        others, more = _parted(validation, reviewed, data.class_names)
        both, n = join(clean, more), len(clean) + len(more)
        if _can_validate(both, data.n_classes):
            train, words = join(train, replace(others, true_labels=None)), ""
            validation = replace(both, label_status="clean")
        else:
            train, validation = _rejoined(train, clean), _rejoined(others, more)
            words = f"{data.validation_from}, without "
    else:
        validation = join(validation, clean)
    test = data.test
    if test is not None and test.label_status == "noisy" and test.origin == origin:
        test = _rejoined(*_parted(test, reviewed, data.class_names))
    return replace(
        data,
        train=train,
        validation=validation,
        test=test,
        validation_from=f"{words}{n:,} {REVIEWED_WORDS}" if n else data.validation_from,
        reviewed=tuple(reviewed.given),
    )


def _can_validate(split: Split, n_classes: int) -> bool:
    of_each_class = split.labels.bincount(minlength=n_classes)
    return len(split) >= LEAST_REVIEWED and int(of_each_class.min()) >= LEAST_OF_A_CLASS


def _rejoined(others: Split, looked_at: Split) -> Split:
    """A split with the right labels where they are known by now."""
    return replace(join(others, looked_at), true_labels=None)


def _check_source(data: Data, reviewed: Reviewed) -> None:
    if data.noise != "none":
        received = Words(f"data with {data.noise} added")
        raise invalid("data", "have the labels that were reviewed", received, "leave the noise out")
    n_rows = None if data.source is None else data.source.n_rows
    if None not in (n_rows, reviewed.n_rows) and n_rows != reviewed.n_rows:
        requirement = f"be {reviewed.n_rows:,} as in the run before"
        raise invalid("the number of labels", requirement, n_rows, REMEDY)
    splits = [split for split in (data.train, data.validation, data.test) if split is not None]
    rows = torch.cat([split.rows for split in splits if split.origin == data.train.origin])
    if not set(reviewed.given) & set(rows.tolist()):
        raise invalid("after", "be a run on the same data", Words("no row in common"), REMEDY)


def _parted(split: Split, reviewed: Reviewed, class_names: tuple[str, ...]) -> tuple[Split, Split]:
    """Part the samples that nobody has looked at from the reviewed ones, which get their labels.

    Dropped samples are in neither.
    """
    number = {name: i for i, name in enumerate(class_names)}
    others, kept, labels = [], [], []
    for place, row in enumerate(split.rows.tolist()):
        if row not in reviewed.labels:
            others.append(place)
            continue
        _check_sample(split, place, reviewed, class_names)
        label = reviewed.labels[row]
        if label is not None:
            if label not in number:
                remedy = "use a class of the data"
                raise invalid(f"the label of row {row}", "be a class of the data", label, remedy)
            kept.append(place)
            labels.append(number[label])
    looked_at = part(split, np.array(kept, dtype=np.int64))
    if kept:  # in order: `part` keeps the order, too
        looked_at = replace(looked_at, labels=torch.tensor(labels), true_labels=None)
    return part(split, np.array(others, dtype=np.int64)), looked_at


def _check_sample(
    split: Split, place: int, reviewed: Reviewed, class_names: tuple[str, ...]
) -> None:
    """Refuse a sample that has another label or another name than the one that was reviewed."""
    row = int(split.rows[place])
    given, name = class_names[int(split.labels[place])], split.names[place] if split.names else ""
    if given != reviewed.given[row]:
        requirement = f"be {reviewed.given[row]!r} as in the run before"
        raise invalid(f"the label of row {row}", requirement, given, REMEDY)
    if name and reviewed.names.get(row, name) != name:
        requirement = f"be {reviewed.names[row]!r} as in the run before"
        raise invalid(f"the name of row {row}", requirement, name, REMEDY)
