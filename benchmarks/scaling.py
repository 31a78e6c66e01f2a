"""How seconds and memory grow: `python -m benchmarks.scaling`.

One thing grows at a time: samples, features, classes, candidates in lockstep, epochs, trials. Each
measurement is a process of its own, which draws its data first. It counts seconds by the clock and
of the processor, from the reading of the data to the finished run folder, and the peak of its
private memory (RssAnon; what files map is not in it) above that of the drawn data and the imported
packages. Growth is the exponent between the two largest sizes: 1 is in proportion, 2 is quadratic.
The rows are saved as they come, the same command goes on; the results are in
`results/scaling.json`. `--draw` makes the picture. Linux only.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
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
FEATURES, CLASSES = 20, 5
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


def of_table(n: int, features: int, classes: int, folder: Path) -> Callable[[], keeprate.Run]:
    """A Parquet file that is read, trained on, and judged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    inputs, labels = made(n, features, classes)
    columns = {f"x{i}": inputs[:, i] for i in range(features)} | {"label": labels}
    pq.write_table(pa.table(columns), folder / "table.parquet", row_group_size=50_000)
    return partial(_train_on_table, folder)


def _train_on_table(folder: Path) -> keeprate.Run:
    data = keeprate.prepare(
        str(folder / "table.parquet"), noise=PROTOCOL["noise"], n_validation=1_000, n_test=1_000
    )
    return keeprate.train(data, method="co-teaching", config=CONFIG, out=folder / "run")


def of_samples(n: int, folder: Path) -> Callable[[], keeprate.Run]:
    """Rows of a table."""
    return of_table(n, FEATURES, CLASSES, folder)


def of_features(n: int, folder: Path) -> Callable[[], keeprate.Run]:
    """Columns of a table of 10,000 rows."""
    return of_table(10_000, n, CLASSES, folder)


def of_classes(n: int, folder: Path) -> Callable[[], keeprate.Run]:
    """Classes of 50,000 samples."""
    return of_table(50_000, FEATURES, n, folder)


def of_candidates(n: int, folder: Path) -> Callable[[], keeprate.Run]:
    """Final trainings in lockstep, of 10,000 samples."""
    data = keeprate.prepare(made(10_000, FEATURES, CLASSES), noise=PROTOCOL["noise"], n_test=1_000)
    options: Row = {"method": "co-teaching", "config": CONFIG, "restarts": n, "lockstep": n}
    return partial(keeprate.train, data, out=folder / "run", **options)


def of_epochs(n: int, folder: Path) -> Callable[[], keeprate.Run]:
    """Epochs of 10,000 samples."""
    data = keeprate.prepare(made(10_000, FEATURES, CLASSES), noise=PROTOCOL["noise"], n_test=1_000)
    config = TrainingConfig(epochs=n, batch_size=CONFIG.batch_size)
    return partial(keeprate.train, data, method="co-teaching", config=config, out=folder / "run")


def of_trials(n: int, folder: Path) -> Callable[[], keeprate.Run]:
    """Trials of a search on 600 samples."""
    data = keeprate.prepare(made(1_000, FEATURES, CLASSES), noise=PROTOCOL["noise"])
    config = TrainingConfig(epochs=5, batch_size=64)
    options: Row = {"budget": f"{n}trials", "config": config, "restarts": 1, "baselines": False}
    return partial(keeprate.search, data, out=folder / "run", **options)


AXES: dict[str, tuple[Callable[[int, Path], Callable[[], keeprate.Run]], tuple[int, ...]]] = {
    "samples": (of_samples, (10_000, 30_000, 100_000, 300_000, 1_000_000)),
    "features": (of_features, (10, 30, 100, 300, 1_000)),
    "classes": (of_classes, (2, 10, 100, 1_000, 10_000)),
    "candidates": (of_candidates, (1, 5, 20, 50, 200)),
    "epochs": (of_epochs, (5, 20, 80, 320)),
    "trials": (of_trials, (10, 30, 100, 300, 1_000)),
}
"""What grows -> how it is set up in a folder, and the sizes."""


# Measuring -------------------------------------------------------------------------------------


def measure(axis: str, size: int) -> Row:
    """Seconds and memory of one run, in this process."""
    set_up, _ = AXES[axis]
    with tempfile.TemporaryDirectory() as name:
        run = set_up(size, Path(name))
        few = keeprate.prepare("digits", limit=200)
        keeprate.train(few, config=TrainingConfig(epochs=1), out=Path(name) / "few")  # late imports
        before = private_bytes()
        started, of_processor = time.perf_counter(), time.process_time()
        with peak_of_memory() as peak:
            found = run()
        seconds = time.perf_counter() - started
        of_processor = time.process_time() - of_processor
        written = sum(path.stat().st_size for path in (Path(name) / "run").rglob("*"))
    cost = found.record.cost
    return {
        "seconds": seconds,
        "processor_seconds": of_processor,
        "training_seconds": cost.search_seconds + cost.final_seconds,
        "peak_bytes": peak[0] - before,
        "folder_bytes": written,
    }


def _in_a_process(axis: str, size: int) -> Row:
    command = [sys.executable, "-m", "benchmarks.scaling", "--one", axis, str(size)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
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
        "| what grows | from, to | seconds | growth | private memory, MiB | growth |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for axis in AXES:
        of_axis = sorted((r for r in rows if r["axis"] == axis), key=lambda row: int(row["size"]))
        if len(of_axis) < 2:
            continue
        first, last = of_axis[0], of_axis[-1]
        lines.append(
            f"| {axis} | {first['size']:,}, {last['size']:,} "
            f"| {first['seconds']:.1f}, {last['seconds']:.1f} "
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
        figure.axes[0].legend()
        figure.savefig(path, metadata={"Date": None})


def jobs() -> list[Job]:
    """All measurements, the small ones first."""
    of_axes = [
        [Job({"axis": axis, "size": size}, partial(_in_a_process, axis, size)) for size in sizes]
        for axis, (_, sizes) in AXES.items()
    ]
    longest = max(map(len, of_axes))
    return [of_axis[i] for i in range(longest) for of_axis in of_axes if i < len(of_axis)]


def main() -> None:
    """Measure what is missing, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--one", nargs=2, metavar=("AXIS", "SIZE"), help="one row, as JSON")
    parser.add_argument("--draw", action="store_true", help="draw what is measured")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the folder of the results")
    options = parser.parse_args()
    if options.one:
        axis, size = options.one
        print(json.dumps(measure(axis, int(size))))
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
