"""Memory and seconds of data in files: `python -m benchmarks.larger --out FILE`.

Tables of 100 columns of float32 and PNG images of 32 x 32 pixels in Parquet, with five classes and
a fifth of wrong labels. Each source is read and trained in a process of its own, once with its
inputs in memory and once with them, and what a run keeps of each sample, in mapped files
(`keeprate.mapped`). "again" is a third process, which only reads what the second one has decoded.
The run folder is written: record, label quality, report.

Private memory is what no file backs (RssAnon of Linux), sampled every 5 ms; pages of mapped files
are the system's to let go. An epoch is measured after the first one, with the files in the page
cache, in seconds and in seconds of the processor. `standard` is one network of
all labels, `auto` the trainings of cross-fitting.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import peak_of_memory, private_bytes
from keeprate.files import read_json, write_json

N_CLASSES, N_COLUMNS, SIDE = 5, 100, 32
WRONG = 0.2  # of the labels
MIB = 2**20
AT_ONCE = 10_000  # rows that are written together
EPOCHS = {"standard": 2, "auto": 1}
CASES = (  # what, how many, how it is trained
    *(("table", n, "standard") for n in (250_000, 1_000_000)),
    *(("images", n, "standard") for n in (50_000, 200_000)),
    ("table", 250_000, "auto"),
)
WAYS = ("memory", "mapped", "again")


# Sources ---------------------------------------------------------------------------------------


def write_source(what: str, n: int, path: Path) -> None:
    """Write a Parquet file piece by piece."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(0)
    schema = pa.schema([("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())]))])
    if what == "table":
        schema = pa.schema([(f"f{i}", pa.float32()) for i in range(N_COLUMNS)])
    schema = schema.append(pa.field("label", pa.string()))
    shape = (N_CLASSES, N_COLUMNS) if what == "table" else (N_CLASSES, SIDE, SIDE, 3)
    centres = rng.normal(size=shape)
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, n, AT_ONCE):
            labels = rng.integers(0, N_CLASSES, min(AT_ONCE, n - start))
            samples = centres[labels] + 2 * rng.normal(size=(len(labels), *shape[1:]))
            wrong = rng.random(len(labels)) < WRONG
            given = np.where(wrong, (labels + 1) % N_CLASSES, labels)
            columns = (
                list(samples.T.astype(np.float32))
                if what == "table"
                else [pa.array(list(encoded(samples)), schema.field(0).type)]
            )
            writer.write_table(pa.table([*columns, [f"c{k}" for k in given]], schema=schema))


def encoded(samples: np.ndarray) -> Iterator[dict[str, Any]]:
    """PNG images of numbers around 0."""
    from PIL import Image

    for pixels in np.clip(128 + 25 * samples, 0, 255).astype(np.uint8):
        content = io.BytesIO()
        Image.fromarray(pixels).save(content, "PNG", compress_level=1)
        yield {"bytes": content.getvalue(), "path": None}


# Measuring -------------------------------------------------------------------------------------


def measure(path: Path, way: str, how: str) -> dict[str, Any]:
    """Read and train, and say what it took."""
    import keeprate
    from keeprate import mapped

    mapped.SHARE = 1.0 if way == "memory" else 0.0
    keeprate.prepare("digits")  # all that is imported late
    found: dict[str, Any] = {"imports_mib": private_bytes() // MIB}
    started = time.perf_counter()
    with peak_of_memory() as peak:
        data = keeprate.prepare(path)
    found |= {"reading_seconds": time.perf_counter() - started, "reading_mib": peak[0] // MIB}
    found["samples"] = len(data.train) + len(data.validation) + len(data.test or ())
    if way != "again":
        found |= train(data, how)
    return {k: round(v, 4) if isinstance(v, float) else v for k, v in found.items()}


def train(data: Any, how: str) -> dict[str, Any]:
    """Train and write the run folder, and say what it took."""
    import keeprate

    ends, used = [], []
    epochs = EPOCHS[how]

    def progress(stage: str, done: float, total: float, best: str | None) -> None:
        ends.append(time.perf_counter())
        used.append(time.process_time())

    config = keeprate.TrainingConfig(epochs=epochs, device="cpu")
    options: dict[str, Any] = {"method": how, "model": "mlp"}
    if how == "standard":
        options["schedule"] = "constant"
    progress("", 0, 1, None)
    with tempfile.TemporaryDirectory() as out, peak_of_memory() as peak:
        run = keeprate.train(data, config=config, out=out, progress=progress, **options)
    found = {
        "training_mib": peak[0] // MIB,
        "training_seconds": time.perf_counter() - ends[0],
        "labels_judged": run.record.labels_judged,
        "score": run.results[0].curves.validation_score[-1],
    }
    if how == "standard":
        found["epoch_seconds"] = float(np.diff(ends)[1])
        found["epoch_cpu_seconds"] = float(np.diff(used)[1])
    return found


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Lines of Markdown: each case in memory and mapped."""
    lines = [
        "| source | trained by | private memory, MiB: in memory | mapped "
        "| processor seconds an epoch: in memory | mapped "
        "| seconds of reading: in memory | decoding | again |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    cases = dict.fromkeys((row["what"], row["n"], row["method"]) for row in rows)
    for what, n, how in cases:
        found = {r["way"]: r for r in rows if (r["what"], r["n"], r["method"]) == (what, n, how)}
        both = [found[way] for way in ("memory", "mapped")]
        peaks = [f"{max(one['reading_mib'], one['training_mib']):,}" for one in both]
        epochs = [
            f"{one['epoch_cpu_seconds']:.2f}" if "epoch_cpu_seconds" in one else "" for one in both
        ]
        reading = [f"{found[way]['reading_seconds']:.1f}" for way in WAYS]
        source = f"{n:,} rows of 100 numbers" if what == "table" else f"{n:,} images of 32 x 32"
        lines.append(f"| {source} | {' | '.join([f'`{how}`', *peaks, *epochs, *reading])} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="JSON file; rows that it has are not run again")
    parser.add_argument("--folder", type=Path, help="where sources and the cache lie meanwhile")
    parser.add_argument("--measure", nargs=3, help="a file, a way and a method: print one line")
    arguments = parser.parse_args()
    if arguments.measure:
        path, way, how = arguments.measure
        print(json.dumps(measure(Path(path), way, how)))
        return
    out: Path | None = arguments.out
    rows: list[Any] = read_json(out)["rows"] if out is not None and out.exists() else []
    for what, n, how in CASES:
        if any((row["what"], row["n"], row["method"]) == (what, n, how) for row in rows):
            continue
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            path = Path(folder, f"{what}.parquet")
            write_source(what, n, path)
            of_case = []
            for way in WAYS:
                command = [sys.executable, "-m", "benchmarks.larger", "--measure", str(path)]
                shown = subprocess.run(
                    [*command, way, how],
                    capture_output=True,
                    text=True,
                    check=True,
                    env=os.environ | {"KEEPRATE_CACHE": str(Path(folder, "cache"))},
                )
                row = {"what": what, "n": n, "method": how, "way": way, **json.loads(shown.stdout)}
                of_case.append(row)
                print(json.dumps(row), flush=True)
        rows += of_case
        if out is not None:
            write_json(out, {"rows": rows})
    print("\n".join(table(rows)))


if __name__ == "__main__":
    main()
