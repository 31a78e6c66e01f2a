"""The README's picture: `python -m experiments.effect`, from the main job's results file."""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from experiments import main_job
from experiments.common import results_to_draw
from keeprate.files import write_atomically

STYLES = {
    "searched": ("searched R(t)", "#D55E00"),
    "co-teaching": ("Co-teaching's own R(t)", "#2088C7"),
    "standard": ("Standard", "#999999"),
}


def draw(rows: list[dict[str, object]], title: str) -> bytes:
    """PNG of test accuracy by epoch (mean over seeds, range shaded) and of the schedules."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, (label, colour) in STYLES.items():
        curves = np.array([row["results"][name]["test_accuracy"] for row in rows])  # type: ignore[index]
        epochs = np.arange(1, curves.shape[1] + 1)
        left.plot(epochs, 100 * curves.mean(0), color=colour, label=label)
        left.fill_between(
            epochs, 100 * curves.min(0), 100 * curves.max(0), color=colour, alpha=0.15, lw=0
        )
    found = np.array([row["keep_rate"] for row in rows])
    rate = float(np.mean([row["noise_rate"] for row in rows]))
    own = 1 - rate * np.minimum(np.arange(found.shape[1]) / 10, 1)
    for schedule in found:
        right.plot(epochs, schedule, color=STYLES["searched"][1])
    right.plot(epochs, own, color=STYLES["co-teaching"][1])
    right.axhline(1 - rate, color="#999999", lw=0.8, ls=":")
    right.annotate("1 - noise rate", (epochs[-1], 1 - rate), ha="right", va="bottom", fontsize=8)
    left.set(xlabel="epoch", ylabel="test accuracy, %", title=title)
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
    found = results_to_draw(main_job.NAME, "trials")
    rows = [row for row in found["rows"] if row["noise"] == arguments.noise]
    seeds = f"{len(rows)} seed" + ("s" if len(rows) > 1 else "")
    write_atomically(Path(arguments.out), draw(rows, f"MNIST, {arguments.noise} noise, {seeds}"))


if __name__ == "__main__":
    main()
