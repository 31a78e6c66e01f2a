"""Fig. 7 (App. B.3): label precision by epoch, from the rows of Tables 4 to 6."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes

from experiments.common import IMAGES, RESULTS, Row
from experiments.drawing import LOOKS, band, curves_of, grid

NAME = "fig7"
SUMMARY = "label precision, proposed and Co-teaching (draws the rows of Tables 4 to 6)"


def panel(axes: Axes, rows: Sequence[Row], noise: str) -> None:
    """Draw one data set under one noise."""
    for name in ("co-teaching", "proposed"):
        curves = curves_of(rows, name, "label_precision")
        if curves is not None:
            band(axes, curves, LOOKS[name])


def draw(protocol: str, *, results: Path = RESULTS, images: Path = IMAGES) -> list[Path]:
    """Draw the picture as PNG and SVG."""
    return grid(NAME, protocol, "label precision, %", panel, results=results, images=images)
