"""Fig. 5: the searched R(t) beside Co-teaching's own, from the rows of Tables 4 to 6."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from experiments.common import IMAGES, RESULTS, Row
from experiments.drawing import LOOKS, band, grid
from keeprate.noise import Noise

NAME = "fig5"
SUMMARY = "the searched R(t) beside Co-teaching's own (draws the rows of Tables 4 to 6)"
LABELS = {"co-teaching": "Co-teaching's own R(t)", "proposed": "searched R(t), mean and each seed"}


def panel(axes: Axes, rows: Sequence[Row], noise: str) -> None:
    """Draw one data set under one noise."""
    clean_share = 1 - (Noise.parse(noise).noise_rate or 0.0)
    axes.axhline(clean_share, color="#777777", lw=0.9, ls=(0, (1, 2)), label="1 - noise rate")
    for name in ("co-teaching", "proposed"):
        keep_rates = np.array([row["keep_rate"] for row in rows if row["name"] == name])
        if len(keep_rates) == 0:
            continue
        band(axes, keep_rates, replace(LOOKS[name], label=LABELS[name]))
        if name == "proposed":  # the mean of schedules was not searched: draw each of them
            epochs = np.arange(1, keep_rates.shape[1] + 1)
            for keep_rate in keep_rates:
                axes.plot(epochs, keep_rate, color=LOOKS[name].color, lw=0.7, alpha=0.6)
    axes.set_ylim(0, 1.03)


def draw(protocol: str, *, results: Path = RESULTS, images: Path = IMAGES) -> list[Path]:
    """Draw the picture as PNG and SVG."""
    return grid(NAME, protocol, "keep rate R(t)", panel, results=results, images=images)
