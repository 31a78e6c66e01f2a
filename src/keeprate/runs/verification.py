"""How well the networks of a run tell pairs of one person from others."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from numpy.typing import ArrayLike
from torch import nn

from keeprate.data import Normaliser
from keeprate.engine import TrainingConfig, embed
from keeprate.errors import Words, invalid
from keeprate.files import write_atomically
from keeprate.records import (
    VerificationRecord,
    load_record,
    load_verification,
    save_verification,
    verification_file,
)
from keeprate.runs.classifier import Classifier, load
from keeprate.verification import (
    Pairs,
    disjoint_folds,
    distances,
    folds_of,
    load_pairs,
    met_again,
    shared_people,
    verify,
)


def verify_run(
    folder: str | os.PathLike[str],
    pairs: Pairs | str | os.PathLike[str],
    *,
    images: str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] | None = None,
    model: str | Callable[..., nn.Module] | None = None,
    trust_model: bool = False,
) -> VerificationRecord:
    """Judge pairs of faces by the embeddings of a run's networks, and write what was found.

    A picture's embedding is what the last linear layer gets, summed over the picture and its mirror
    image and L2-normalised (`keeprate.engine.embed`). Pixels are scaled as in the training. The
    protocol is that of `keeprate.verification.verify`.

    Parameters
    ----------
    folder : path
        Of a finished run that was trained with images.
    pairs : Pairs or path
        A path as `keeprate.verification.load_pairs` takes it; its pictures are resized as in the
        training, and become grey or coloured as there.
    images : path, optional
        Where the pictures lie, as `load_pairs` takes it.
    out : path, optional
        The JSON file to write; the drawing of the ROC curve goes beside it as PNG. Left out:
        `verification-NAME.json` in the run folder, and the page of the run is drawn again.
    model, trust_model : optional
        As for `keeprate.load`.

    Returns
    -------
    VerificationRecord

    Raises
    ------
    InputError
        If the run has no classifier of images, or the pairs cannot be read.
    """
    classifier = load(folder, model=model, trust_model=trust_model)
    shape = _image_shape(classifier, folder)
    if not isinstance(pairs, Pairs):
        pairs = load_pairs(pairs, images=images, image_size=shape[1:], channels=shape[0])
    pairs.check_shape(shape)
    device = TrainingConfig().resolve_device()
    modules = [module.to(device) for module in classifier.modules]
    path = verification_file(Path(folder), pairs.name) if out is None else Path(out)
    _refuse_to_replace(path, pairs)
    embeddings = embed(modules, pairs.images, _for_bytes(classifier, folder))
    record = judge_pairs(pairs, distances(embeddings, pairs))
    save_verification(path, record)
    _draw(record, path, None if out is not None else Path(folder))
    return record


def _refuse_to_replace(path: Path, pairs: Pairs) -> None:
    """Two lists may be called pairs.txt: the one must not replace what was found of the other."""
    if path.exists() and load_verification(path).fingerprint != pairs.fingerprint():
        remedy = "name another file (out=, --out), or delete that one"
        received = Words(f"{path}, which holds what was found of other pairs")
        raise invalid("out", "be a new file or that of the same pairs", received, remedy)


def judge_pairs(pairs: Pairs, distance: ArrayLike) -> VerificationRecord:
    """Put together what the distances `[P]` of pairs tell, with and without shared people."""
    same = pairs.same.cpu()
    folds = folds_of(pairs).cpu()
    record = VerificationRecord(
        name=pairs.name or "pairs",
        n_images=len(pairs.images),
        fingerprint=pairs.fingerprint(),
        standard=verify(distance, same, folds),
        notes=pairs.notes,
    )
    if not pairs.people:
        return record
    first, second = (
        [pairs.people[row] for row in rows.tolist()] for rows in (pairs.first, pairs.second)
    )
    n_shared = shared_people(folds, first, second)
    record = replace(record, n_people=len({*first, *second}), shared_people=n_shared)
    if not n_shared:
        return record
    others = disjoint_folds(first, second, same)
    if others is not None:
        return replace(record, disjoint=verify(distance, same, others), disjoint_by="folds")
    left_out = met_again(folds, first, second)
    # Both kinds must be left, or the threshold would be at an end.
    if not all((~left_out & kind).any(-1).all() for kind in (same, ~same)):
        return record
    found = verify(distance, same, folds, left_out=left_out)
    return replace(record, disjoint=found, disjoint_by="thresholds")


def _image_shape(classifier: Classifier, folder: str | os.PathLike[str]) -> tuple[int, int, int]:
    shape = classifier.input_shape
    if len(shape) != 3 or shape[0] not in (1, 3, 4) or classifier.takes_integers:
        received = Words(f"inputs of shape {shape} in {folder}")
        requirement = "have been trained with images [C, H, W]"
        raise invalid("RUN", requirement, received, "train with images")
    return shape[0], shape[1], shape[2]


def _for_bytes(classifier: Classifier, folder: str | os.PathLike[str]) -> Normaliser:
    """The normaliser of the training, for pixels from 0 to 255."""
    if not classifier.normaliser.pixels:
        received = Words(f"other numbers in {folder}")
        requirement = "have been trained with pixels in 0 to 255 or in [0, 1]"
        raise invalid("RUN", requirement, received, "train with images as they are")
    return classifier.normaliser.for_bytes()


def _draw(record: VerificationRecord, path: Path, folder: Path | None) -> None:
    """Draw the ROC curve, and the page of the run if there is one."""
    from keeprate.report import (
        roc_png,
        write_plots,
    )  # Matplotlib is loaded where something is drawn

    write_atomically(path.with_suffix(".png"), roc_png([record]))
    if folder is not None and (folder / "report.html").is_file():
        write_plots(load_record(folder), folder)
