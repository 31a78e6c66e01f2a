"""Folders with one subfolder of images for each class, in splits or not -> raw splits."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keeprate.data.labels import Labels
from keeprate.data.raw import RawSplit, name_splits
from keeprate.errors import InputError, Words, invalid
from keeprate.mapped import Place
from keeprate.reading import (
    SPLIT_NAMES,
    ImageSize,
    counted,
    file_name,
    files_below,
    files_in,
    is_image,
    named,
    note_unread,
    read_readable,
    split_word,
    subfolders,
)

_UNLABELLED = ("pred", "predict", "prediction", "predictions", "unlabeled", "unlabelled")


@dataclass(frozen=True)
class ImageFolder:
    """A folder of images by class, as it was read.

    Attributes
    ----------
    splits : dict of RawSplit
        train first, then validation and test if the folder has them. All are of one shape.
    notes : tuple of str
        Sentences that tell a user what was changed or left out.
    """

    splits: dict[str, RawSplit]
    notes: tuple[str, ...] = ()


def read_image_folder(
    folder: Path,
    *,
    image_size: ImageSize = None,
    place: Place = Place(),  # noqa: B008 - it is frozen
) -> ImageFolder:
    """Read a folder of images, with or without splits.

    A file is an image if Pillow can read it, whatever its suffix is; other files are told in a
    note. Each folder of a split holds one subfolder for each class. A folder is a split if its
    name is one (`train`, `Test`), or begins or ends with one (`seg_train`, `val-images`).
    The images of the train split decide the shape of all.

    Parameters
    ----------
    folder : Path
        A folder with subfolders.
    image_size : int, (int, int) or None
        The height and the width that all images get. None: those that the images have, or a
        square of at most 64 if they differ.
    place : Place
        Where images that are larger than memory are to lie.

    Returns
    -------
    ImageFolder
        Inputs [N, C, H, W] of uint8. The classes are called as their folders.

    Raises
    ------
    InputError
        If there are no images, a class has none, or it is unclear which folders are splits.
    """
    folders, notes = find_splits(folder)
    splits: dict[str, RawSplit] = {}
    channels = None
    for split in sorted(folders, key=lambda name: name != "train"):  # train is the first
        raw, said = _read_classes(
            folders[split], folder, image_size, channels, place, f"{split}.inputs"
        )
        notes += [f"{split}: {note}" if len(folders) > 1 else note for note in said]
        splits[split] = raw
        _, channels, height, width = raw.inputs.shape
        image_size = (height, width)
    return ImageFolder(splits, tuple(notes))


# Splits ----------------------------------------------------------------------------------------


def find_splits(folder: Path) -> tuple[dict[str, Path], list[str]]:
    """Return the folder of each split, and notes on splits that were left out."""
    below = subfolders(folder)
    splits = [path for path in below if split_word(path.name)]
    if not splits:
        return {"train": folder}, []
    unlabelled = [path for path in below if path not in splits and _is_unlabelled(path)]
    others = [path for path in below if path not in splits and path not in unlabelled]
    if others:
        raise _unclear(folder, splits, others)
    found = name_splits(_by_word(folder, splits))
    train = found["train"]
    classes = {path.name for path in subfolders(train)}
    if not classes:
        received = Words(f"none in {train}")
        remedy = "make them, or give a table that lists the files and their labels"
        raise invalid("the train split", "hold one subfolder of images a class", received, remedy)
    labelled, notes = {}, []
    for split, path in found.items():
        own = {one.name for one in subfolders(path)}
        if own & classes:
            labelled[split] = path
        elif own:
            notes.append(f"{path.relative_to(folder)} holds no class of train and was left out.")
        else:
            unlabelled.append(path)
    notes += [
        f"{path.relative_to(folder)} holds images without class folders and was left out; predict "
        "them with keeprate predict."
        for path in unlabelled
    ]
    return labelled, notes


def _by_word(folder: Path, splits: list[Path]) -> dict[str, Path]:
    """Return the folder with the classes of each split, by train, validation and test."""
    by_word: dict[str, Path] = {}
    for path in splits:
        word = str(split_word(path.name))
        if word in by_word:
            received = Words(f"{by_word[word].relative_to(folder)} and {path.name} in {folder}")
            remedy = "move one of them away, or give the folder of the train split itself"
            raise invalid("source", f"hold one folder for the {word} split", received, remedy)
        by_word[word] = _inner(path)
    return by_word


def _inner(path: Path) -> Path:
    """Return the folder inside if it is the only one and has the same name, as archives make it."""
    below = subfolders(path)
    return below[0] if [one.name.lower() for one in below] == [path.name.lower()] else path


def _is_unlabelled(path: Path) -> bool:
    words = re.split(r"[-_. ]+", path.name.lower())
    return not {words[0], words[-1]}.isdisjoint(_UNLABELLED) and not subfolders(_inner(path))


def _unclear(folder: Path, splits: list[Path], others: list[Path]) -> InputError:
    """Return the question whether folders are splits or classes."""
    received = Words(f"{named(splits, folder)} beside {named(others, folder)} in {folder}")
    with_classes = [path for path in splits if subfolders(path)]
    train = [path for path in with_classes if split_word(path.name) == "train"]
    if train:
        remedy = f"give {train[0]} itself, rename folders, or move the others away"
    elif with_classes:
        remedy = f"rename {splits[0].name}, or move the others away"
    else:
        remedy = (
            f"move {splits[0].name} away or, if it is a class, put all classes into a folder "
            "called train"
        )
    return invalid("source", "hold splits only or classes only", received, remedy)


# Classes ---------------------------------------------------------------------------------------


def _read_classes(
    split_folder: Path,
    folder: Path,
    image_size: ImageSize,
    channels: int | None,
    place: Place,
    file: str,
) -> tuple[RawSplit, tuple[str, ...]]:
    """Read one subfolder of images for each class; samples are known by their path in `folder`."""
    classes = subfolders(split_folder)
    _refuse_splits_below(classes, split_folder)
    by_class = [files_below(one) for one in classes]
    paths = [path for files in by_class for path in files]
    owners = np.repeat(np.arange(len(classes)), [len(files) for files in by_class])
    images, unread = read_readable(
        paths,
        str(split_folder),
        image_size=image_size,
        channels=channels,
        place=place,
        file=file,
    )
    kept = np.delete(np.arange(len(paths)), unread)
    bad = [paths[row] for row in unread]
    if not len(kept):
        requirement = "hold <split>-*.parquet or .csv files, or one subfolder of images a class"
        received = Words(f"a folder without: {split_folder}")
        raise invalid("source", requirement, received, "check the path")
    empty = [one for i, one in enumerate(classes) if i not in owners[kept]]
    if empty:
        unreadable = f", where {named(bad, folder)} cannot be read" if bad else ""
        received = Words(f"none in {named(empty, folder)}{unreadable}")
        remedy = "convert the images to PNG or JPEG, or move the folder away"
        raise invalid("each class folder", "hold an image", received, remedy)
    labels = Labels(np.array([one.name for one in classes])[owners[kept]])
    names = tuple(file_name(paths[row].relative_to(folder)) for row in kept)
    notes = (*images.notes, *note_unread(bad, folder), *_note_loose(split_folder, folder))
    return RawSplit(images.pixels, labels, names=names), notes


def _refuse_splits_below(classes: list[Path], folder: Path) -> None:
    """Raise an InputError if folders that look like classes hold splits: these would be mixed."""
    below = [
        path for one in classes for path in subfolders(one) if path.name.lower() in SPLIT_NAMES
    ]
    if below:
        received = Words(f"{named(below, folder)} in {folder}")
        remedy = "give the folder that holds the splits, or make train/<class> of <class>/train"
        raise invalid("class folders", "hold no splits", received, remedy)


def _note_loose(split_folder: Path, folder: Path) -> tuple[str, ...]:
    loose = [path for path in files_in(split_folder) if is_image(path)]
    if not loose:
        return ()
    return (
        f"{counted(len(loose), 'image')} in no class folder and left out: {named(loose, folder)}.",
    )
