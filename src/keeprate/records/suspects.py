"""The most suspect samples, to be looked at: pictures or numbers."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keeprate.data import Encoder, Split
from keeprate.records.label_quality import LabelQuality
from keeprate.records.record import NOT_SURE, Suspect

MOST, LEAST_PER_CLASS = 240, 4
LARGEST = 96  # pixels a side of a picture in the record
MOST_COLUMNS = 12  # of a table


def most_suspect(
    samples: Sequence[Split],
    quality: LabelQuality,
    class_names: Sequence[str],
    encoder: Encoder | None = None,
) -> tuple[Suspect, ...]:
    """The lowest scores among the label issues of each given class; classes take turns.

    Parameters
    ----------
    samples : sequence of Split
        The samples that `quality` judges.
    quality : LabelQuality
    class_names : sequence of C str
    encoder : Encoder, optional
        What turned the columns of a table into the samples.
    """
    share = max(LEAST_PER_CLASS, MOST // len(class_names))
    issues = quality.ranking[quality.is_issue[quality.ranking]]
    given, places = quality.given[issues], []  # within its class, among all
    for number in range(len(class_names)):
        of_class = np.flatnonzero(given == number)[:share]
        places += [(turn, place) for turn, place in enumerate(of_class.tolist())]
    positions = [int(issues[place]) for _, place in sorted(places)][:MOST]
    suspects = []
    for position in positions:
        sample = _sample(samples, int(quality.rows[position]))
        suggested = int(quality.suggested[position])
        image = _picture(sample) if _is_image(sample) else ""
        suspect_name = quality.names[position] if quality.names else ""
        suspects.append(
            Suspect(
                index=int(quality.rows[position]),
                given=class_names[quality.given[position]],
                predicted=class_names[suggested] if suggested >= 0 else NOT_SURE,
                score=round(float(quality.scores[position]), 6),
                name=suspect_name,
                image=image,
                values={} if image or not len(sample) else _values(sample, encoder, suspect_name),
            )
        )
    return tuple(suspects)


def _sample(samples: Sequence[Split], row: int) -> NDArray[Any]:
    for split in samples:
        place = (split.rows == row).nonzero()
        if len(place):
            return np.asarray(split.inputs[int(place[0, 0])].cpu().numpy())
    return np.empty(0)


def _is_image(sample: NDArray[Any]) -> bool:
    return sample.ndim == 3 and sample.shape[0] in (1, 3, 4)


def _values(sample: NDArray[Any], encoder: Encoder | None, name: str) -> dict[str, str | float]:
    """The first columns of a row, as the source has them."""
    if encoder is not None:
        return dict(encoder.as_read(sample, MOST_COLUMNS))
    if sample.size <= MOST_COLUMNS and not name:
        return {str(i): f"{float(value):.6g}" for i, value in enumerate(sample.ravel())}
    return {}  # of an embedding, or of a text, nobody wants to see the numbers


def _picture(array: NDArray[Any]) -> str:
    """A picture [C, H, W] as a PNG in base64; made smaller, and then of three colours, a JPEG."""
    from PIL import Image  # which matplotlib needs, too

    if array.dtype != np.uint8:
        low, high = float(array.min()), float(array.max())
        array = ((array - low) * (255.0 / (high - low or 1.0))).astype(np.uint8)
    channels = array.transpose(1, 2, 0)
    image = Image.fromarray(np.ascontiguousarray(channels[..., 0] if len(array) == 1 else channels))
    photograph, content = max(image.size) > LARGEST and image.mode == "RGB", io.BytesIO()
    image.thumbnail((LARGEST, LARGEST))
    if photograph:
        image.save(content, "JPEG", quality=85)
    else:
        image.save(content, "PNG", optimize=True)
    return base64.b64encode(content.getvalue()).decode()
