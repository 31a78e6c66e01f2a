"""Encoded images -> one array: one size, one number of channels, and notes on what was changed."""

from __future__ import annotations

import math
import statistics
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from keeprate.errors import InputError, Words, check_whole, invalid, needs
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
from keeprate.reading.limits import check_size
from keeprate.reading.places import Inside, file_in_row
from keeprate.text import cut

LARGEST_SIDE = 64  # of images of unequal sizes, unless a user gives their size
ImageSize: TypeAlias = int | tuple[int, int] | None
_PIECE = 1 << 20  # bytes of encoded images that are taken out of a table together


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

    def named(row: int) -> str:
        return f"the image in row {row} of the {where}"

    def fields() -> Iterator[_Fields]:
        row = 0
        for chunk in column.chunks:
            for content, path in _fields(chunk):
                if content is None and path and folder is not None and inside is not None:
                    path = file_in_row(path, folder, inside, named(row))
                yield content, path
                row += 1

    source = _Source(len(column), fields, named)
    return _decode_all(source, where, _Wanted(image_size, channels), leave_out=False)[0]


def read_images(
    paths: Sequence[Path],
    where: str,
    *,
    image_size: ImageSize = None,
    channels: int | None = None,
) -> DecodedImages:
    """Decode N image files; `image_size` and `channels` are those of `decode_images`.

    Parameters
    ----------
    paths : sequence of N Path
        Images of any format that Pillow reads, whatever their suffixes are.
    where : str
        The source of the files that messages name.
    image_size, channels
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
    return _decode_all(_files(paths), where, wanted, leave_out=False)[0]


def read_readable(
    paths: Sequence[Path], where: str, *, image_size: ImageSize = None, channels: int | None = None
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
    return _decode_all(_files(paths), where, wanted, leave_out=True)


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
    source: _Source, where: str, wanted: _Wanted, *, leave_out: bool
) -> tuple[DecodedImages, list[int]]:
    """Read all headers, choose the layout, then decode one image after the other.

    At most one image is held as large as it was, besides the array of the results.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns about damaged tags and large photographs
        plain = _decode_plain(source, wanted)
        if plain is not None:
            return DecodedImages(plain), []
        headers, unread = _headers(source, leave_out)
        while headers:
            layout = wanted.layout(headers.values())
            pixels, failed = _pixels(source, where, headers, layout, leave_out)
            unread += failed
            for row in failed:  # damaged pixels show only now
                del headers[row]
            # Without the damaged images, the others may be of one size.
            if not headers or layout == wanted.layout(headers.values()):
                return DecodedImages(pixels, _notes(headers.values(), layout, wanted)), unread
    return DecodedImages(np.empty((0, wanted.channels or 1, 1, 1), np.uint8)), unread


def _decode_plain(source: _Source, wanted: _Wanted) -> Array | None:
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
        shape = (source.count, layout.channels, layout.height, layout.width)
        check_size("images", math.prod(shape), "give image_size (--image-size)")
        pixels = np.empty(shape, np.uint8)
    except (InputError, MemoryError):  # the images that follow may be worse, or smaller
        return None
    decode_one = decoder_of_plain(layout)
    for row, (content, path) in enumerate(source.fields()):
        decoded = decode_one(content, path)
        if decoded is None:
            return None
        pixels[row] = decoded
    return pixels


def _headers(images: Iterable[Encoded], leave_out: bool) -> tuple[dict[int, Header], list[int]]:
    """Return the headers by row, and the rows without a readable one."""
    headers, unread = {}, []
    for row, image in enumerate(images):
        try:
            headers[row] = read_header(image)
        except UnreadableImageError:
            if not leave_out:
                raise
            unread.append(row)
    return headers, unread


def _pixels(
    images: Iterable[Encoded],
    where: str,
    headers: Collection[int],
    layout: Layout,
    leave_out: bool,
) -> tuple[Array, list[int]]:
    """Decode the rows in `headers`; return their pixels, and the rows that are damaged."""
    try:
        shape = (len(headers), layout.channels, layout.height, layout.width)
        check_size(f"images ({where})", math.prod(shape), "give image_size (--image-size)")
        pixels = np.empty(shape, np.uint8)
    except MemoryError as error:
        size = f"{len(headers)} images of {layout.height}x{layout.width}"
        raise invalid(
            f"images ({where})", "fit into memory", Words(size), "give image_size (--image-size)"
        ) from error
    damaged: list[int] = []
    n_decoded = 0
    for row, image in enumerate(images):
        if row not in headers:
            continue
        try:
            pixels[n_decoded] = decode(image, layout)
            n_decoded += 1
        except UnreadableImageError:
            if not leave_out:
                raise
            damaged.append(row)
    return pixels[:n_decoded], damaged


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
