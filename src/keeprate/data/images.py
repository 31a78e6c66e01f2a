"""Encoded images -> arrays."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keeprate.data.labels import Array
from keeprate.errors import InputError, Words, damaged, invalid, needs


def decode_images(column: Any, where: str) -> Array:
    """Decode a column of images.

    Parameters
    ----------
    column : pyarrow.ChunkedArray
        Encoded images as bytes, or structs of `bytes` and `path`.
    where : str
        The table that messages name.

    Returns
    -------
    array [N, C, H, W] of uint8

    Raises
    ------
    InputError
        If an image is missing or damaged, or if sizes or numbers of channels differ.
    """
    images = None
    row = -1
    for chunk in column.chunks:
        encoded, paths = chunk, None
        if hasattr(chunk, "field"):  # a struct
            encoded = chunk.field("bytes")
            fields = [chunk.type.field(i).name for i in range(chunk.type.num_fields)]
            paths = chunk.field("path") if "path" in fields else None
        valid = chunk.is_valid().to_numpy(zero_copy_only=False)
        for i in range(len(chunk)):
            row += 1
            content = encoded[i].as_py() if valid[i] else None
            path = paths[i].as_py() if paths is not None else None
            image = _decode(content, path, f"the image in row {row} of the {where}")
            images = _store(images, image, row, len(column), where)
    return np.empty((0, 1, 1, 1), np.uint8) if images is None else images


def read_images(paths: Sequence[Path], where: str) -> Array:
    """Decode image files of one size into a uint8 array [N, C, H, W].

    Raises
    ------
    InputError
        If a file is damaged, or if sizes or numbers of channels differ.
    """
    images = None
    for row, path in enumerate(paths):
        images = _store(images, _decode(None, str(path), str(path)), row, len(paths), where)
    return np.empty((0, 1, 1, 1), np.uint8) if images is None else images


def _store(images: Array | None, image: Array, row: int, n_rows: int, where: str) -> Array:
    if images is None:  # the first image gives the shape
        images = np.empty((n_rows, *image.shape), dtype=np.uint8)
    if images.shape[1:] != image.shape:
        raise unequal_shapes(where, images.shape[1:], image.shape, row)
    images[row] = image
    return images


_MODES = {"1": "L", "LA": "RGBA", "PA": "RGBA", "CMYK": "RGB", "YCbCr": "RGB", "HSV": "RGB"}


def _decode(content: bytes | None, path: str | None, where: str) -> Array:
    """Decode bytes, or a file if there are none, to uint8 [C, H, W]."""
    pillow = needs("PIL.Image")
    if content is None and not path:
        raise invalid(where, "hold an image", Words("nothing"), "drop the row")
    try:
        with pillow.open(io.BytesIO(content) if content is not None else path) as image:
            mode = _MODES.get(image.mode, image.mode)
            if mode == "P":
                mode = "RGBA" if "transparency" in image.info else "RGB"
            if mode in ("L", "RGB", "RGBA"):
                pixels = np.asarray(image if mode == image.mode else image.convert(mode))
                return pixels.reshape(*pixels.shape[:2], -1).transpose(2, 0, 1)
    except (OSError, SyntaxError, ValueError, pillow.DecompressionBombError) as error:
        raise damaged(where, error) from error
    received = Words(f"mode {image.mode} in {where}")
    raise invalid("images", "have 8 bits a channel", received, "convert them, or give arrays")


def unequal_shapes(
    where: str, first: tuple[int, ...], other: tuple[int, ...], row: object
) -> InputError:
    """Return the error for a row whose shape differs from that of row 0."""
    received = Words(f"{first} in row 0 and {other} in row {row}")
    return invalid(f"inputs ({where})", "be of one shape", received, "resize or pad them first")
