"""Encoded images -> one array: one size, one number of channels, and notes on what was changed."""

from __future__ import annotations

import hashlib
import math
import os
import statistics
import time
import warnings
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from keeprate.errors import InputError, Words, check_whole, invalid, needs
from keeprate.mapped import Place, blocks, check_limit, is_large, is_mapped
from keeprate.reading.decoding import (
    Array,
    Encoded,
    Header,
    Layout,
    UnreadableImageError,
    decode,
    decoder_of_plain,
    read_header,
)
from keeprate.reading.places import Inside, file_in_row
from keeprate.text import cut

LARGEST_SIDE = 64  # of images of unequal sizes, unless a user gives their size
ImageSize: TypeAlias = int | tuple[int, int] | None
_PIECE = 1 << 20  # bytes of encoded images that are taken out of a table together
_AT_ONCE = 256  # images that a thread decodes at a time
_PLAIN = "plain"  # the first word of what is noted of such images
_SAVED_EVERY = 10.0  # seconds, between two notes of how much is decoded


@dataclass(frozen=True)
class DecodedImages:
    """Images of one shape.

    Attributes
    ----------
    pixels : array [N, C, H, W] of uint8
        C is 1 if all images are grey, 4 if all have transparency, otherwise 3.
    notes : tuple of str
        Sentences that tell a user what was changed. Empty if nothing was.
    """

    pixels: Array
    notes: tuple[str, ...] = ()


def decode_images(
    column: Any,
    where: str,
    *,
    image_size: ImageSize = None,
    channels: int | None = None,
    folder: Path | None = None,
    place: Place = Place(),  # noqa: B008 - it is frozen
    file: str = "",
) -> DecodedImages:
    """Decode a column of images.

    Parameters
    ----------
    column : pyarrow.ChunkedArray [N]
        Encoded images as bytes, or structs of `bytes` and `path`.
    where : str
        The table that messages name.
    image_size : int, (int, int) or None
        The height and the width that all images get; one number stands for both. None: images of
        one size keep it, and others become a square as large as the median of their shorter
        sides, at most 64.
    channels : {1, 3, 4} or None
        As a trained model takes them. None: 1 if all images are grey, 4 if all have
        transparency, otherwise 3.
    folder : Path or None
        The folder of the file that has the column: a row without bytes names an image in this
        folder or below. None: the column was made in memory, and paths are taken as they are.
    place : Place
        Where pixels that are larger than memory are to lie.
    file : str
        What their file is called there.

    Returns
    -------
    DecodedImages [N, C, H, W]

    Raises
    ------
    InputError
        If an image is missing or damaged, lies outside the folder, or has 32 bits a channel.
    """
    _check_encoded(column.type, where)
    inside = None if folder is None else Inside(folder)
    files: dict[int, Path] = {}  # by row

    def named(row: int) -> str:
        return f"the image in row {row} of the {where}"

    def fields() -> Iterator[_Fields]:
        row = 0
        for chunk in column.chunks:
            for content, path in _fields(chunk):
                if content is None and path and folder is not None and inside is not None:
                    path = file_in_row(path, folder, inside, named(row))
                    files[row] = Path(path)
                yield content, path
                row += 1

    source = _Source(len(column), fields, named)
    wanted = _Wanted(image_size, channels)
    images, _ = _decode_all(source, where, wanted, _Target(place, file), leave_out=False)
    place.listed.extend(files.values())
    return images


def read_images(
    paths: Sequence[Path],
    where: str,
    *,
    image_size: ImageSize = None,
    channels: int | None = None,
    place: Place = Place(),  # noqa: B008 - it is frozen
    file: str = "",
) -> DecodedImages:
    """Decode N image files.

    Parameters
    ----------
    paths : sequence of N Path
        Images of any format that Pillow reads, whatever their suffixes are.
    where : str
        The source of the files that messages name.
    image_size, channels, place, file
        As in `decode_images`.

    Returns
    -------
    DecodedImages [N, C, H, W]

    Raises
    ------
    InputError
        If a file is damaged, or has 32 bits a channel.
    """
    wanted = _Wanted(image_size, channels)
    place.listed.extend(paths)
    return _decode_all(_files(paths), where, wanted, _Target(place, file), leave_out=False)[0]


def read_readable(
    paths: Sequence[Path],
    where: str,
    *,
    image_size: ImageSize = None,
    channels: int | None = None,
    place: Place = Place(),  # noqa: B008 - it is frozen
    file: str = "",
) -> tuple[DecodedImages, list[int]]:
    """Decode image files and leave out those that cannot be read.

    Returns
    -------
    DecodedImages [M, C, H, W]
        The M images that can be read.
    list of N - M int
        The places in `paths` of the files that cannot.

    Raises
    ------
    InputError
        If an image has 32 bits a channel.
    """
    wanted = _Wanted(image_size, channels)
    return _decode_all(_files(paths), where, wanted, _Target(place, file), leave_out=True)


def unequal_shapes(
    where: str, first: tuple[int, ...], other: tuple[int, ...], row: object
) -> InputError:
    """Return the error for a row whose shape differs from that of row 0."""
    received = Words(f"{first} in row 0 and {other} in row {row}")
    return invalid(f"inputs ({where})", "be of one shape", received, "resize or pad them first")


# Sources ---------------------------------------------------------------------------------------

_Fields: TypeAlias = tuple[bytes | None, str | None]  # the content and the path of an `Encoded`


@dataclass(frozen=True)
class _Source:
    """Encoded images that can be read from the start several times.

    Attributes
    ----------
    count : int
        The number of images.
    fields : callable
        Returns an iterator over the content and the path of each image.
    name : callable
        Takes a row and returns the name of the image in messages.
    """

    count: int
    fields: Callable[[], Iterator[_Fields]]
    name: Callable[[int], str]

    def identity(self) -> str:
        """Hash of all content, and of the size and the time of all files."""
        digest = hashlib.sha256()
        for content, path in self.fields():
            if content is None and path:
                with suppress(OSError):
                    state = os.stat(path)
                    path += f" {state.st_size} {state.st_mtime_ns}"
            digest.update(b"image" + (content if content is not None else str(path).encode()))
        return digest.hexdigest()

    def __iter__(self) -> Iterator[Encoded]:
        for row, (content, path) in enumerate(self.fields()):
            yield Encoded(content, path, self.name(row))


def _files(paths: Sequence[Path]) -> _Source:
    return _Source(
        len(paths), lambda: ((None, str(path)) for path in paths), lambda row: str(paths[row])
    )


def _check_encoded(kind: Any, where: str) -> None:
    """Raise an InputError if a column that is said to hold images holds something else."""
    types = needs("pyarrow.types")
    content = kind
    if types.is_struct(kind):
        content = next(
            (f.type for f in map(kind.field, range(kind.num_fields)) if f.name == "bytes"), None
        )
    is_binary = content is not None and (types.is_binary(content) or types.is_large_binary(content))
    if not (is_binary or (content is not None and types.is_fixed_size_binary(content))):
        received = Words(f"values of type {cut(str(kind), 80)}")
        raise invalid(f"images ({where})", "be bytes", received, "write the column again")


def _fields(chunk: Any) -> Iterator[_Fields]:
    """Yield the content and the path of each image in a part of a column."""
    encoded, paths = chunk, None
    if hasattr(chunk, "field"):  # a struct
        encoded = chunk.field("bytes")
        fields = [chunk.type.field(i).name for i in range(chunk.type.num_fields)]
        paths = chunk.field("path") if "path" in fields else None
    valid = chunk.is_valid()
    # Many small images at once are taken faster than one after the other.
    step = max(1, _PIECE * len(chunk) // max(1, chunk.nbytes))
    for start in range(0, len(chunk), step):
        contents = encoded.slice(start, step).to_pylist()
        present = valid.slice(start, step).to_pylist()
        names = paths.slice(start, step).to_pylist() if paths is not None else [None] * step
        for content, is_present, path in zip(contents, present, names, strict=False):
            yield content if is_present else None, path


# The loop over images --------------------------------------------------------------------------


class _Wanted:
    """What a user or a trained model wants of a set of images."""

    def __init__(self, image_size: ImageSize, channels: int | None) -> None:
        if channels not in (None, 1, 3, 4):
            raise invalid("channels", "be 1, 3 or 4", channels, "use those of the model")
        self.channels, self.size = channels, None
        if image_size is not None:
            pair = image_size if isinstance(image_size, (tuple, list)) else (image_size,) * 2
            if len(pair) != 2:
                raise invalid("image_size", "be one number or two", image_size, "give 64, say")
            height, width = (check_whole("image_size", side, 1) for side in pair)
            self.size = height, width

    def layout(self, headers: Collection[Header]) -> Layout:
        """Choose what all images become."""
        return Layout(self.channels or _common_channels(headers), *(self.size or _square(headers)))


def _common_channels(headers: Collection[Header]) -> int:
    present = {header.channels for header in headers}
    return present.pop() if len(present) == 1 else 3


def _square(headers: Collection[Header]) -> tuple[int, int]:
    """Return the one size of the images, or else a square of about the smallest half of them."""
    sizes = {(header.height, header.width) for header in headers}
    if len(sizes) == 1:
        return sizes.pop()
    middle = statistics.median_low(min(header.height, header.width) for header in headers)
    return (min(LARGEST_SIDE, middle),) * 2


def _decode_all(
    source: _Source, where: str, wanted: _Wanted, target: _Target, *, leave_out: bool
) -> tuple[DecodedImages, list[int]]:
    """Read all headers, choose the layout, then decode the images.

    A thread holds at most one image as large as it was, besides the array of the results.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns about damaged tags and large photographs
        plain = _decode_plain(source, where, wanted, target)
        if plain is not None:
            return DecodedImages(plain), []
        headers, unread = _headers(source, leave_out)
        while headers:
            layout = wanted.layout(headers.values())
            pixels, failed = _pixels(source, where, headers, layout, leave_out, target)
            unread += failed
            for row in failed:  # damaged pixels show only now
                del headers[row]
            # Without the damaged images, the others may be of one size.
            if not headers or layout == wanted.layout(headers.values()):
                return DecodedImages(pixels, _notes(headers.values(), layout, wanted)), unread
    return DecodedImages(np.empty((0, wanted.channels or 1, 1, 1), np.uint8)), unread


def _decode_plain(source: _Source, where: str, wanted: _Wanted, target: _Target) -> Array | None:
    """Decode images that are all as the first one is and stay so, in one pass.

    Returns None as soon as an image differs, cannot be read or has to be changed.
    """
    first = next(iter(source), None)
    try:
        header = None if first is None else read_header(first)
        if header is None or header.is_deep or header.has_frames:
            return None
        layout = wanted.layout([header])
        if layout != Layout(header.channels, header.height, header.width):
            return None
        if target.is_large(source.count, layout):
            if target.goes_on():  # in the same file
                return None
            # Rather than that a file is allocated in vain, for the size of a first photograph.
            if any(read_header(image) != header for image in islice(source, _AT_ONCE)):
                return None
        pixels = target.pixels(source.count, layout, where)
    except (InputError, MemoryError):  # the images that follow may be worse, or smaller
        return None
    decode_one = decoder_of_plain(layout)

    def decode_some(start: int, images: Sequence[_Fields]) -> list[int] | None:
        for row, (content, path) in enumerate(images, start):
            decoded = decode_one(content, path)
            if decoded is None:
                return None
            pixels[row] = decoded
        return []

    found = target.fill(
        pixels, source.fields(), decode_some, lambda: f"{_PLAIN} {source.identity()}"
    )
    return None if found is None else pixels


def _headers(images: Iterable[Encoded], leave_out: bool) -> tuple[dict[int, Header], list[int]]:
    """Return the headers by row, and the rows without a readable one."""
    headers, unread = {}, []
    different: dict[Header, Header] = {}  # most images are like many others
    for row, image in enumerate(images):
        try:
            header = read_header(image)
            headers[row] = different.setdefault(header, header)
        except UnreadableImageError:
            if not leave_out:
                raise
            unread.append(row)
    return headers, unread


def _pixels(
    source: _Source,
    where: str,
    headers: Collection[int],
    layout: Layout,
    leave_out: bool,
    target: _Target,
) -> tuple[Array, list[int]]:
    """Decode the rows in `headers`; return their pixels, and the rows that are damaged."""
    try:
        pixels = target.pixels(len(headers), layout, where)
    except MemoryError as error:
        size = f"{len(headers)} images of {layout.height}x{layout.width}"
        raise invalid(
            f"images ({where})", "fit into memory", Words(size), "give image_size (--image-size)"
        ) from error
    rows = list(headers)

    def decode_some(start: int, images: Sequence[_Fields]) -> list[int] | None:
        damaged = []
        for place, (content, path) in enumerate(images, start):
            try:
                pixels[place] = decode(Encoded(content, path, source.name(rows[place])), layout)
            except UnreadableImageError:
                if not leave_out:
                    raise
                damaged.append(place)
        return damaged

    readable = (fields for row, fields in enumerate(source.fields()) if row in headers)
    damaged = target.fill(
        pixels, readable, decode_some, lambda: f"{layout} {len(rows)} {source.identity()}"
    )
    if damaged and is_mapped(pixels):
        target.place.forget(target.file)  # a decoding that goes on must not move images twice
    return _without(pixels, damaged or []), [rows[place] for place in damaged or []]


def _without(pixels: Array, places: Sequence[int]) -> Array:
    """The pixels without some images, in the same memory."""
    kept = np.delete(np.arange(len(pixels)), places)
    if places:
        for some in blocks(len(kept), pixels[0].nbytes):
            pixels[some] = pixels[kept[some]]
    return pixels[: len(kept)]


def _shape(count: int, layout: Layout) -> tuple[int, int, int, int]:
    return count, layout.channels, layout.height, layout.width


# The decoding of many images -------------------------------------------------------------------

_Decode: TypeAlias = Callable[[int, Sequence[_Fields]], list[int] | None]


@dataclass(frozen=True)
class _Target:
    """Where pixels are written, and by how many threads."""

    place: Place
    file: str

    def pixels(self, count: int, layout: Layout, where: str) -> Array:
        """An array for so many images."""
        shape = _shape(count, layout)
        check_limit(f"images ({where})", math.prod(shape), "give image_size (--image-size)")
        return self.place.array(self.file, shape, np.uint8, what=f"{count:,} images ({where})")

    def is_large(self, count: int, layout: Layout) -> bool:
        """Whether the pixels of so many images are to be mapped."""
        return is_large(math.prod(_shape(count, layout)))

    def goes_on(self) -> bool:
        """Whether a stopped decoding is to go on that was not of plain images, all as the first."""
        begun = self.place.begun(self.file)
        return bool(begun) and not begun.startswith(_PLAIN)

    def fill(
        self,
        pixels: Array,
        images: Iterator[_Fields],
        decode_some: _Decode,
        identity: Callable[[], str],
    ) -> list[int] | None:
        """Decode images in threads, piece by piece in order; go on where it stopped before.

        Parameters
        ----------
        pixels : array [N, C, H, W]
            What `decode_some` writes to.
        images : iterator
            Over the content and the path of N images.
        decode_some : callable
            Takes the place of the first of some images, and these; returns the places of damaged
            ones, or None to end it all.
        identity : callable
            Tells what is decoded.

        Returns
        -------
        list of int or None
            The damaged images; None where a piece has ended it all.
        """
        known = identity() if is_mapped(pixels) else ""
        n_done, *damaged = (known and self.place.resumed(self.file, known)) or [0]
        n_threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2
        waiting: deque[tuple[int, Future[list[int] | None]]] = deque()
        saved_at = time.monotonic()
        with ThreadPoolExecutor(n_threads) as pool:
            try:
                pieces = _in_pieces(images)
                is_empty = False
                while waiting or not is_empty:
                    while not is_empty and len(waiting) < 2 * n_threads:
                        start, some = next(pieces, (0, []))
                        is_empty = not some
                        if some and start + len(some) > n_done:
                            task = pool.submit(decode_some, start, some)
                            waiting.append((start + len(some), task))
                    if not waiting:
                        break
                    end, task = waiting.popleft()
                    found = task.result()
                    if found is None:
                        return None
                    damaged += found
                    if known:
                        self.place.tell("decoding images", end, len(pixels))
                    if known and (end == len(pixels) or time.monotonic() - saved_at > _SAVED_EVERY):
                        self.place.mark(self.file, known, [end, *damaged], pixels)
                        saved_at = time.monotonic()
            finally:
                for _, task in waiting:
                    task.cancel()
        return damaged


def _in_pieces(images: Iterator[_Fields]) -> Iterator[tuple[int, list[_Fields]]]:
    """Yield images for one thread at a time, and the place of the first."""
    piece: list[_Fields] = []
    start, size = 0, 0
    for content, path in images:
        piece.append((content, path))
        size += len(content or b"")
        if len(piece) == _AT_ONCE or size > _PIECE:
            yield start, piece
            start, piece, size = start + len(piece), [], 0
    if piece:
        yield start, piece


# Notes -----------------------------------------------------------------------------------------

_KINDS = {1: "grey", 3: "RGB", 4: "transparent"}
_BECAME = {1: "grey", 3: "RGB", 4: "RGB with opacity"}


def _notes(headers: Collection[Header], layout: Layout, wanted: _Wanted) -> tuple[str, ...]:
    notes = []
    size = (layout.height, layout.width)
    others = [(h.height, h.width) for h in headers if (h.height, h.width) != size]
    if others:
        notes.append(_resized(others, size, by_default=wanted.size is None))
    for channels, kind in _KINDS.items():
        n = sum(header.channels == channels for header in headers)
        if n and channels != layout.channels:
            notes.append(f"{counted(n, f'{kind} image')} made {_BECAME[layout.channels]}.")
    n = sum(header.is_deep for header in headers)
    if n:
        notes.append(f"{counted(n, '16-bit image')} scaled to 8 bits.")
    n = sum(header.has_frames for header in headers)
    if n:
        said = "1 animated image" if n == 1 else f"{n} animated images"
        notes.append(f"{said}: the first frame was taken.")
    return tuple(notes)


def _resized(others: list[tuple[int, int]], size: tuple[int, int], *, by_default: bool) -> str:
    least, most = (pick(others, key=lambda s: (s[0] * s[1], s)) for pick in (min, max))
    sizes = f"of {_times(least)}" if least == most else f"from {_times(least)} to {_times(most)}"
    if any(height != width for height, width in (least, most, size)):
        sizes += ", height x width"
    said = f"{counted(len(others), 'image', f' ({sizes})')} resized to {_times(size)}"
    return f"{said}; image_size (--image-size) changes that." if by_default else f"{said}."


def _times(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def counted(n: int, noun: str, more: str = "") -> str:
    """Count things to which something was done.

    >>> counted(1, "image"), counted(2, "image", " of bees")
    ('1 image was', '2 images of bees were')
    """
    return f"{n} {noun}{more} was" if n == 1 else f"{n} {noun}s{more} were"
