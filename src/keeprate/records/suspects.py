"""The most suspect samples as a record holds them, to be looked at: pictures or numbers."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from keeprate.data import Split
from keeprate.records.label_quality import LabelQuality

MOST, LEAST_PER_CLASS = 240, 4
LARGEST = 96  # pixels a side of a picture in the record
MOST_COLUMNS = 12  # of a row of numbers


def describe_suspects(
    samples: Sequence[Split],
    quality: LabelQuality,
    class_names: Sequence[str],
    columns: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """The lowest scores among the issues of each given class; classes take turns.

    Parameters
    ----------
    samples : sequence of Split
        Those that `quality` speaks of.
    columns : sequence of str
        Names of the numbers, where the samples are rows of a table.
    """
    share = max(LEAST_PER_CLASS, MOST // len(class_names))
    issues = quality.ranking[quality.is_issue[quality.ranking]]
    taken = dict.fromkeys(range(len(class_names)), 0)
    places = []  # in its class, in all
    for place, given in enumerate(quality.given[issues].tolist()):
        places.append((taken[given], place))
        taken[given] += 1
    chosen = [int(issues[place]) for turn, place in sorted(places) if turn < share][:MOST]

    def shown(row: int) -> dict[str, Any]:
        for split in samples:
            place = (split.rows == row).nonzero()
            if len(place):
                sample = split.inputs[int(place[0, 0])]
                details = _shown(sample, columns)
                # Of a text nobody wants to see the numbers that it was made to.
                known = bool(quality.names) and len(columns) != sample.numel()
                return {} if known and "values" in details else details
        return {}

    return [
        {
            "index": int(quality.rows[i]),
            "given": class_names[quality.given[i]],
            "predicted": class_names[quality.predicted[i]],
            "score": round(float(quality.scores[i]), 6),
            **({"name": quality.names[i]} if quality.names else {}),
            **shown(int(quality.rows[i])),
        }
        for i in chosen
    ]


def _shown(sample: Tensor, columns: Sequence[str]) -> dict[str, Any]:
    array = sample.cpu().numpy()
    if array.ndim == 3 and array.shape[0] in (1, 3, 4):
        return {"image": _picture(array)}
    values = array.ravel()[:MOST_COLUMNS]
    names = columns if len(columns) == array.size else [str(i) for i in range(len(values))]
    numbers = [round(float(value), 4) for value in values]
    return {"values": dict(zip(names, numbers, strict=False))}


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
