"""Fig. 4: test accuracy of all methods by epoch, from the rows of Tables 4 to 6."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes

from experiments.common import IMAGES, RESULTS, Row
from experiments.drawing import LOOKS, band, curves_of, grid

NAME = "fig4"
SUMMARY = "test accuracy of all methods by epoch (draws the rows of Tables 4 to 6)"


def panel(axes: Axes, rows: Sequence[Row], noise: str) -> None:
    """Draw one data set under one noise."""
    for name, look in LOOKS.items():
        curves = curves_of(rows, name, "test_accuracy")
        if curves is not None:
            band(axes, curves, look)


def draw(protocol: str, *, results: Path = RESULTS, images: Path = IMAGES) -> list[Path]:
    """Draw the picture as PNG and SVG."""
    return grid(NAME, protocol, "test accuracy, %", panel, results=results, images=images)
