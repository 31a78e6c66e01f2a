"""How seconds and memory grow: `python -m benchmarks.scaling`.

One thing grows at a time: samples, features, classes, candidates in lockstep, epochs, trials. Each
measurement is a process of its own. It reads a Parquet file, trains Co-teaching (or searches),
judges the labels and writes the run folder, on one thread. Counted are the seconds by the clock and
of the processor, and the peak of private memory (RssAnon; what files map is not in it) above that
of the imported packages. Growth is the exponent between the two largest sizes: 1 is in proportion,
2 is quadratic. The rows are saved as they come, the same command goes on; the results are in
`results/scaling.json`. `--draw` makes the picture. Linux only.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

import keeprate
from benchmarks.common import RESULTS, peak_of_memory, private_bytes
from experiments.common import Row
from experiments.jobs import Job, run_missing
from keeprate import TrainingConfig

NAME = "scaling"
PICTURE = Path(__file__).parent.parent / "docs" / "images" / "results" / "scaling.svg"
FEATURES, CLASSES, TABLE = 20, 5, "table.parquet"
CONFIG = TrainingConfig(epochs=2, batch_size=512)
PROTOCOL: Row = {
    "model": "mlp",
    "method": "co-teaching",
    "features": FEATURES,
    "classes": CLASSES,
    "epochs": CONFIG.epochs,
    "batch_size": CONFIG.batch_size,
    "noise": "symmetric:0.2",
}


# What grows ------------------------------------------------------------------------------------


def made(n: int, features: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Samples around a centre for each class: float32 [n, features], labels [n]."""
    rng = np.random.default_rng(0)
    labels = rng.integers(classes, size=n)
    labels[: 2 * classes] = np.tile(np.arange(classes), 2)  # no class is empty
    centres = rng.normal(size=(classes, features)).astype(np.float32)
    inputs = rng.normal(size=(n, features)).astype(np.float32)
    for start in range(0, n, 100_000):  # in place: no second copy of the samples
        part = slice(start, start + 100_000)
        inputs[part] += centres[labels[part]]
    return inputs, labels


def write_table(path: Path, n: int, features: int, classes: int) -> None:
    """A Parquet file of samples."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    inputs, labels = made(n, features, classes)
    columns = {f"x{i}": inputs[:, i] for i in range(features)} | {"label": labels}
    pq.write_table(pa.table(columns), path, row_group_size=50_000)


@dataclass(frozen=True)
class Axis:
    """Something that grows.

    Attributes
    ----------
    sizes : tuple of int
    table : callable
        A size -> samples, features and classes of the table.
    options : callable
        A size -> options of `keeprate.train`; with a budget, of `keeprate.search`.
    """

    sizes: tuple[int, ...]
    table: Callable[[int], tuple[int, int, int]] = lambda _: (10_000, FEATURES, CLASSES)
    options: Callable[[int], Row] = lambda _: {}


AXES = {
    "samples": Axis(
        (10_000, 30_000, 100_000, 300_000, 1_000_000), lambda n: (n, FEATURES, CLASSES)
    ),
    "features": Axis((10, 30, 100, 300, 1_000), lambda n: (10_000, n, CLASSES)),
    "classes": Axis((2, 10, 100, 1_000, 10_000), lambda n: (50_000, FEATURES, n)),
    "candidates": Axis((1, 5, 20, 50, 200), options=lambda n: {"restarts": n, "lockstep": n}),
    "epochs": Axis((5, 20, 80, 320), options=lambda n: {"config": replace(CONFIG, epochs=n)}),
    "trials": Axis(
        (10, 30, 100, 300, 1_000),
        lambda _: (3_000, FEATURES, CLASSES),
        lambda n: {"budget": f"{n}trials", "config": TrainingConfig(epochs=5, batch_size=64)},
    ),
}


def run(axis: str, size: int, folder: Path) -> keeprate.Run:
    """Read the table of a folder, train, judge the labels, write the run folder."""
    data = keeprate.prepare(
        str(folder / TABLE), noise=PROTOCOL["noise"], n_validation=1_000, n_test=1_000
    )
    options: Row = {"config": CONFIG, "restarts": 1, "baselines": False, "out": folder / "run"}
    options |= AXES[axis].options(size)
    if "budget" in options:
        return keeprate.search(data, **options)
    return keeprate.train(data, method="co-teaching", **options)


# Measuring -------------------------------------------------------------------------------------


def measure(axis: str, size: int, folder: Path) -> Row:
    """Seconds and memory of one run, in this process, which has done nothing else."""
    import torch  # before the clock starts

    torch.set_num_threads(1)
    before = private_bytes()
    started, of_processor = time.perf_counter(), time.process_time()
    with peak_of_memory() as peak:
        found = run(axis, size, folder)
    seconds = time.perf_counter() - started
    of_processor = time.process_time() - of_processor
    cost = found.record.cost
    return {
        "seconds": round(seconds, 3),
        "processor_seconds": round(of_processor, 3),
        "training_seconds": round(cost.search_seconds + cost.final_seconds, 3),
        "peak_bytes": peak[0] - before,
        "folder_bytes": sum(path.stat().st_size for path in (folder / "run").rglob("*")),
    }


def in_a_process(axis: str, size: int) -> Row:
    """The row of a measurement."""
    with tempfile.TemporaryDirectory() as folder:
        write_table(Path(folder, TABLE), *AXES[axis].table(size))
        command = [sys.executable, "-m", "benchmarks.scaling", "--one", axis, str(size), folder]
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            env=os.environ | {"KEEPRATE_CACHE": str(Path(folder, "cache"))},
        )
    row: Row = json.loads(done.stdout.splitlines()[-1])
    return row


# What comes of it ------------------------------------------------------------------------------


def growth(rows: Sequence[Row], name: str) -> float:
    """The exponent of a quantity between the two largest sizes."""
    small, large = sorted(rows, key=lambda row: int(row["size"]))[-2:]
    return math.log(large[name] / small[name]) / math.log(large["size"] / small["size"])


def table(rows: Sequence[Row]) -> list[str]:
    """A line for each thing that grows, in Markdown."""
    lines = [
        "| what grows | from, to | processor seconds | growth | private memory, MiB | growth |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for axis in AXES:
        of_axis = sorted((r for r in rows if r["axis"] == axis), key=lambda row: int(row["size"]))
        if len(of_axis) < 2:
            continue
        first, last = of_axis[0], of_axis[-1]
        lines.append(
            f"| {axis} | {first['size']:,}, {last['size']:,} "
            f"| {first['processor_seconds']:.1f}, {last['processor_seconds']:.1f} "
            f"| {growth(of_axis, 'processor_seconds'):.2f} "
            f"| {first['peak_bytes'] / 2**20:.0f}, {last['peak_bytes'] / 2**20:.0f} "
            f"| {growth(of_axis, 'peak_bytes'):.2f} |"
        )
    return lines


def draw(rows: Sequence[Row], path: Path = PICTURE) -> None:
    """Seconds and memory by size, a panel for each thing that grows."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    from experiments.drawing import STYLE

    with rc_context(STYLE):
        figure = Figure(figsize=(9, 5), layout="constrained")
        panels = figure.subplots(2, 3).flat
        for axis, panel in zip(AXES, panels, strict=True):
            of_axis = sorted((r for r in rows if r["axis"] == axis), key=lambda r: int(r["size"]))
            sizes = [row["size"] for row in of_axis]
            for name, label, color, unit in (
                ("processor_seconds", "processor seconds", "#2088C7", 1),
                ("peak_bytes", "private memory, 10 MiB", "#B98500", 10 * 2**20),
            ):
                values = [row[name] / unit for row in of_axis]
                panel.loglog(sizes, values, "o-", color=color, label=label, markersize=3)
            panel.set_title(axis)
        lines, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(lines, labels, loc="outside lower center", ncols=2)
        figure.savefig(path, metadata={"Date": None})


def jobs() -> list[Job]:
    """All measurements, the small ones first."""
    of_axes = [
        [Job({"axis": axis, "size": size}, partial(in_a_process, axis, size)) for size in one.sizes]
        for axis, one in AXES.items()
    ]
    longest = max(map(len, of_axes))
    return [of_axis[i] for i in range(longest) for of_axis in of_axes if i < len(of_axis)]


def main() -> None:
    """Measure what is missing, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--one", nargs=3, metavar=("AXIS", "SIZE", "FOLDER"), help="one row, as JSON"
    )
    parser.add_argument("--draw", action="store_true", help="draw what is measured")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the folder of the results")
    options = parser.parse_args()
    if options.one:
        axis, size, folder = options.one
        print(json.dumps(measure(axis, int(size), Path(folder))))
        return
    rows = run_missing(
        NAME,
        "",
        PROTOCOL,
        [] if options.draw else jobs(),
        results=options.out,
        command=f"python -m benchmarks.{NAME}",
        words=lambda row: f"{row['seconds']:.1f} s, {row['peak_bytes'] / 2**20:.0f} MiB",
    )
    if options.draw:
        draw(rows)
    print("\n".join(table(rows)))


if __name__ == "__main__":
    main()
