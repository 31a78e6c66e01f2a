"""The files of a folder that a list of pairs names."""

from __future__ import annotations

import os
from pathlib import Path

from keeprate.errors import InputError, Words, invalid
from keeprate.reading.image_files import is_image
from keeprate.reading.pair_lists import PairList
from keeprate.reading.places import LONGEST_NAME, Inside, outside
from keeprate.text import cut


def find_pictures(listed: PairList, folder: Path, where: str) -> list[Path]:
    """Find the file of each picture of a list, in the order of `PairList.pictures`.

    The suffix may be missing or another one in the list. Files outside the folder are refused.

    Parameters
    ----------
    listed : PairList
    folder : Path
        Where the pictures lie; `PairList.below` names the folders inside of it.
    where : str
        The list, in messages.

    Raises
    ------
    InputError
        If pictures are missing, or one lies elsewhere.
    """
    files, inside = _Files(), Inside(folder)
    found: list[Path] = []
    missing = []
    for name in listed.pictures:
        places = [folder / one.format(person=listed.people.get(name, "")) for one in listed.below]
        file = next((file for one in places if (file := files.find(one / name))), None)
        if file is None:
            missing.append(name)
        elif not inside.holds(file):
            raise outside(f"a picture of {where}", name, folder)
        else:
            found.append(file)
    if missing:
        raise missing_pictures(listed, missing, str(folder), where)
    return found


def missing_pictures(listed: PairList, missing: list[str], place: str, where: str) -> InputError:
    """Return the error for pictures that are not there; it tells how many pairs need them."""
    gone = set(missing)
    pairs = zip(listed.first, listed.second, strict=True)
    n_pairs = sum(not gone.isdisjoint(pair) for pair in pairs)
    received = Words(
        f"{len(missing):,} of {len(listed.pictures):,} missing, which {n_pairs:,} of "
        f"{len(listed.same):,} pairs need ({cut(missing[0], LONGEST_NAME)} is the first)"
    )
    remedy = "give the place of the pictures (images=, --images), or a list without these pairs"
    return invalid(f"the pictures of {where}", f"be in {place}", received, remedy)


class _Files:
    """Files by name, with or without their suffix. Each folder is listed once."""

    def __init__(self) -> None:
        self._listings: dict[Path, dict[str, list[str]]] = {}

    def find(self, path: Path) -> Path | None:
        """The file of this name; else an image of this name but for the suffix."""
        by_stem = self._listings.get(path.parent)
        if by_stem is None:
            by_stem = self._listings[path.parent] = _by_stem(path.parent)
        # A name without suffix may hold a point: "J.K._Rowling_0001".
        names = by_stem.get(path.name, []) + by_stem.get(path.stem, [])
        if path.name in names:
            return path
        files = [path.with_name(name) for name in names]
        return files[0] if len(files) == 1 else next(filter(is_image, files), None)


def _by_stem(folder: Path) -> dict[str, list[str]]:
    listing: dict[str, list[str]] = {}
    try:
        names = sorted(os.listdir(folder))
    except (OSError, ValueError):  # no such folder; a name that no folder can have
        return listing
    for name in names:
        if not name.startswith("."):
            listing.setdefault(Path(name).stem, []).append(name)
    return listing
