"""One encoded image -> its header, its pixels. Pillow tells what a file is, by the content."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from keeprate.errors import InputError, Words, damaged, first_line, invalid, needs
from keeprate.text import cut

Array: TypeAlias = NDArray[Any]

_CHANNELS = {
    **dict.fromkeys(("1", "L", "I;16", "I;16L", "I;16B", "I;16N"), 1),
    **dict.fromkeys(("RGB", "RGBX", "CMYK", "YCbCr", "HSV"), 3),
    **dict.fromkeys(("LA", "La", "PA", "RGBA", "RGBa"), 4),
}
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_ORIENTATION = 0x0112  # the EXIF tag
# What turns a picture upright, by its EXIF orientation: the methods of Pillow's exif_transpose.
# That function also rewrites the other tags, and fails where one of them is damaged.
_UPRIGHT = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
_ON_THEIR_SIDE = (5, 6, 7, 8)
# The common ones first. Pillow knows more, among them drawings (EPS, WMF), which other programs
# would have to draw, and formats whose decoders hardly anyone has tried on damaged files.
FORMATS = (
    *("JPEG", "PNG", "GIF", "BMP", "PPM", "WEBP", "TIFF", "AVIF", "HEIF", "JPEG2000", "ICO"),
    *("DIB", "PSD", "QOI", "SGI", "PCX", "TGA"),
)
_PARTS = ("MPO", "PSD")  # further frames are previews or layers of one picture
_PLAIN = ("PNG", "JPEG", "BMP", "PPM", "TIFF", "WEBP")  # Pillow alone decodes them, as they are
_TURNING = ("exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp")  # may tell an orientation


class UnreadableImageError(InputError):
    """There is no image, or Pillow cannot decode it."""


@dataclass(frozen=True)
class Encoded:
    """An image as a source holds it.

    Attributes
    ----------
    content : bytes or None
        The encoded image. None: it lies in the file `path`.
    path : str or None
        A file.
    where : str
        The name of the image in messages.
    """

    content: bytes | None
    path: str | None
    where: str


@dataclass(frozen=True)
class Header:
    """What is known about an image before its pixels are decoded.

    Attributes
    ----------
    channels : int
        1 for grey, 3 for colours, 4 for grey or colours with transparency.
    height, width : int
        Of the upright picture.
    is_deep : bool
        Whether a pixel has 16 bits a channel after Pillow has decoded it.
    has_frames : bool
        Whether further frames follow the first one.
    """

    channels: int
    height: int
    width: int
    is_deep: bool
    has_frames: bool


@dataclass(frozen=True)
class Layout:
    """The channels (1, 3 or 4), the height and the width that every image of a set gets."""

    channels: int
    height: int
    width: int


def read_header(encoded: Encoded) -> Header:
    """Read the size and the kind of an image; its pixels are left alone.

    Raises
    ------
    UnreadableImageError
        If there is no image, or Pillow does not know it.
    InputError
        If its pixels have 32 bits a channel.
    """
    try:
        with _open(encoded) as image:
            mode, kind = image.mode, image.format
            channels = _channels_of(image)
            width, height = image.size
            _check_pixels(width, height, encoded.where)
            # Pillow turns a TIFF itself, and tells the size of what it will return.
            if kind != "TIFF" and _orientation(image, after_load=False) in _ON_THEIR_SIDE:
                width, height = height, width
            has_frames = kind not in _PARTS and bool(getattr(image, "is_animated", False))
    except InputError:
        raise
    except Exception as error:  # the decoders raise whatever they meet in damaged bytes
        raise _undecodable(encoded.where, error) from error
    if channels is None:
        received = Words(f"mode {mode} in {encoded.where}")
        remedy = "convert them, or give arrays"
        raise invalid("images", "have 8 or 16 bits a channel", received, remedy)
    return Header(channels, height, width, mode.startswith("I"), has_frames)


def decode(encoded: Encoded, layout: Layout) -> Array:
    """Decode an image to uint8 [C, H, W].

    The picture is turned as its EXIF orientation tells, the first frame is taken, 16 bits lose
    the lower 8, and a picture of another size is resized. Transparent pixels that become RGB
    keep the colour below, as with `Image.convert("RGB")` and in torchvision's `ImageFolder`.

    Raises
    ------
    UnreadableImageError
        If the image is damaged.
    """
    mode, size = _MODES[layout.channels], (layout.width, layout.height)
    try:
        with _open(encoded) as image:
            _decode_smaller(image, max(size))
            width, height = image.size
            _check_pixels(width, height, encoded.where)  # the file may have changed since
            image.load()
            picture = _eight_bits(image)
            turn = _UPRIGHT.get(_orientation(image, after_load=True))
            if turn is not None:
                picture = picture.transpose(getattr(needs("PIL.Image").Transpose, turn))
            if picture.mode != mode:
                picture = _convert(picture, mode)
            if picture.size != size:
                picture = picture.resize(size, needs("PIL.Image").Resampling.BILINEAR)
            pixels = np.asarray(picture)
    except InputError:
        raise
    except Exception as error:  # the decoders raise whatever they meet in damaged bytes
        raise _undecodable(encoded.where, error) from error
    return pixels.reshape(*pixels.shape[:2], -1).transpose(2, 0, 1)


def decoder_of_plain(layout: Layout) -> Callable[[bytes | None, str | None], Array | None]:
    """Return a fast decoder of images that have the layout already.

    The decoder takes the content and the path of an `Encoded`. It returns what `decode` returns,
    or None if the image needs more than that: it is of another size or kind, has to be turned,
    has several frames, or cannot be read.
    """
    open_image, frombuffer, turning = needs("PIL.Image").open, np.frombuffer, set(_TURNING)
    mode, size = _MODES[layout.channels], (layout.width, layout.height)
    shape = (layout.height, layout.width, layout.channels)

    def decode_plain(content: bytes | None, path: str | None) -> Array | None:
        try:
            with open_image(path if content is None else io.BytesIO(content)) as image:
                if image.mode != mode or image.size != size or image.format not in _PLAIN:
                    return None
                if getattr(image, "is_animated", False):
                    return None
                image.load()
                may_turn = image.format == "TIFF" or not turning.isdisjoint(image.info)
                if may_turn and _orientation(image, after_load=True) in _UPRIGHT:
                    return None
                return frombuffer(image.tobytes(), np.uint8).reshape(shape).transpose(2, 0, 1)
        except Exception:  # `read_header` and `decode` tell what is wrong
            return None

    return decode_plain


def check_decodes(encoded: Encoded) -> None:
    """Raise as `read_header` and `decode` do if the image cannot be decoded to its end."""
    read_header(encoded)
    decode(encoded, Layout(1, 8, 8))  # JPEG decodes to such a size several times faster


def _open(encoded: Encoded) -> Any:
    if encoded.content is None and not encoded.path:
        missing = invalid(encoded.where, "hold an image", Words("nothing"), "drop the row")
        raise UnreadableImageError(str(missing))
    pillow = needs("PIL.Image")
    source: Any = io.BytesIO(encoded.content or b"")
    if encoded.content is None:
        source = encoded.path
        if not stat.S_ISREG(os.stat(source).st_mode):
            raise ValueError("this is no regular file")  # a pipe would be waited for
    pillow.init()  # does nothing when called again
    try:
        return pillow.open(source, formats=list(filter(pillow.OPEN.__contains__, FORMATS)))
    except pillow.UnidentifiedImageError as error:  # Pillow's words show an object's address
        raise ValueError("this is no image that Pillow knows, or one of a rare format") from error


def _check_pixels(width: int, height: int, where: str) -> None:
    """Refuse an image with more pixels than Pillow's limit, before they are decoded."""
    most = needs("PIL.Image").MAX_IMAGE_PIXELS
    if most is not None and width * height > most:
        raise _too_large(where, f"{width} x {height} pixels", most)


def _too_large(where: str, received: str, most: int) -> InputError:
    requirement = f"have at most {most:,} pixels"
    return invalid(where, requirement, Words(received), "make it smaller, or leave it out")


def _undecodable(where: str, error: Exception) -> InputError:
    """Return the error for what stopped Pillow."""
    pillow = needs("PIL.Image")
    # Pillow's own limit, and its warning where warnings are errors.
    if isinstance(error, pillow.DecompressionBombError | pillow.DecompressionBombWarning):
        return _too_large(where, "more", pillow.MAX_IMAGE_PIXELS)
    if isinstance(error, MemoryError):
        return invalid(where, "fit into memory", Words("too many pixels"), "make it smaller")
    reason = ValueError(cut(first_line(error), 200))
    return UnreadableImageError(str(damaged(where, reason)))


def _channels_of(image: Any) -> int | None:
    if image.mode == "P":
        return 4 if "transparency" in image.info else 3
    if image.mode == "I":  # 32 bits, but these formats have 16 at most and Pillow widens them
        return 1 if image.format in ("PNG", "PPM") else None
    return _CHANNELS.get(image.mode)


def _orientation(image: Any, *, after_load: bool) -> int:
    """Return the EXIF orientation, or 1 (upright) if there is none that can be read."""
    try:
        # A PNG looks for EXIF behind its pixels, too, and would have to decode them first.
        exif = image.getexif() if after_load else needs("PIL.Image").Image.getexif(image)
        orientation = exif.get(_ORIENTATION)
    except Exception:  # damaged EXIF data do not make the picture unreadable
        return 1
    return orientation if isinstance(orientation, int) else 1


def _decode_smaller(image: Any, side: int) -> None:
    """Have a JPEG that is much larger than it will be decoded at 1/2, 1/4 or 1/8 of its size.

    The picture stays at least twice as large as `side`, so that the resizing to come still
    averages over pixels.
    """
    if min(image.size) >= 4 * side:
        image.draft(None, (2 * side, 2 * side))


def _eight_bits(image: Any) -> Any:
    if not image.mode.startswith("I"):
        return image
    # Pillow's own conversion would clip at 255. The higher byte is what Pillow takes of RGB, too.
    high = np.asarray(image).astype(np.int64) >> 8
    return needs("PIL.Image").fromarray(high.astype(np.uint8))


def _convert(picture: Any, mode: str) -> Any:
    if picture.mode in ("P", "PA", "La", "RGBa"):  # Pillow converts some of these in two steps only
        through = "LA" if picture.mode == "La" else "RGBA"
        picture = picture.convert(through)
    return picture if picture.mode == mode else picture.convert(mode)
