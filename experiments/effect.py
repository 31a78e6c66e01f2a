"""The README's picture: `python -m experiments.effect`, from the results of Table 4."""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from experiments import table4
from experiments.common import RESULTS, Row, results_to_draw
from experiments.comparison import rows_of
from keeprate.files import write_atomically

STYLES = {
    "proposed": ("searched R(t)", "#D55E00"),
    "co-teaching": ("Co-teaching's own R(t)", "#2088C7"),
    "standard": ("Standard", "#999999"),
}


def draw(rows: Sequence[Row], noise: str) -> bytes:
    """Draw test accuracy by epoch (mean over seeds, range shaded) and the schedules, as PNG."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, (label, colour) in STYLES.items():
        curves = np.array([row["curves"]["test_accuracy"] for row in rows_of(rows, noise, name)])
        epochs = np.arange(1, curves.shape[1] + 1)
        left.plot(epochs, 100 * curves.mean(0), color=colour, label=label)
        left.fill_between(
            epochs, 100 * curves.min(0), 100 * curves.max(0), color=colour, alpha=0.15, lw=0
        )
    of_search = rows_of(rows, noise, "proposed")
    searched = np.array([row["keep_rate"] for row in of_search])
    noise_rate = float(np.mean([row["noise_rate"] for row in of_search]))
    co_teaching = 1 - noise_rate * np.minimum(np.arange(searched.shape[1]) / 10, 1)
    for keep_rate in searched:
        right.plot(epochs, keep_rate, color=STYLES["proposed"][1])
    right.plot(epochs, co_teaching, color=STYLES["co-teaching"][1])
    right.axhline(1 - noise_rate, color="#999999", lw=0.8, ls=":")
    where = (epochs[-1], 1 - noise_rate)
    right.annotate("1 - noise rate", where, ha="right", va="bottom", fontsize=8)
    seeds = f"{len(of_search)} seed" + "s" * (len(of_search) > 1)
    left.set(xlabel="epoch", ylabel="test accuracy, %", title=f"MNIST, {noise} noise, {seeds}")
    right.set(xlabel="epoch", ylabel="keep rate R(t)", ylim=(0, 1.02), title="schedules")
    left.legend(frameon=False, loc="center right", bbox_to_anchor=(1, 0.55))
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()


def main() -> None:
    """Draw one noise setting of the results file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--noise", default="pairflip:0.45")
    parser.add_argument("--out", default="docs/images/effect.png")
    arguments = parser.parse_args()
    name = table4.TABLE.name
    rows = results_to_draw(name, "desk")["rows"]
    if len(rows_of(rows, arguments.noise, "proposed")) < table4.TABLE.protocol("desk").seeds:
        rows = results_to_draw(name, "desk", RESULTS / "earlier")["rows"]
    write_atomically(Path(arguments.out), draw(rows, arguments.noise))


if __name__ == "__main__":
    main()
