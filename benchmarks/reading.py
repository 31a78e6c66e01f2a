"""Seconds and memory of reading a large table: `python -m benchmarks.reading --out FILE`.

A table of 10^6 rows and 20 columns of numbers, with three classes, is written as CSV and as
Parquet. Each file is then prepared (read, encoded, cut into three splits) in a process of its own
that has imported everything and prepared a small table before. Memory is what the process takes
above that moment, sampled every 2 ms, in units of the inputs as float32 (80 MB).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

import keeprate
from keeprate.files import write_json

N_ROWS, N_COLUMNS, N_CLASSES = 1_000_000, 20, 3
FLOAT32 = 4 * N_ROWS * N_COLUMNS  # bytes
PERIOD = 0.002  # seconds
ROUNDS = 3


def write_tables(folder: Path) -> list[Path]:
    """Write the table as CSV and as Parquet."""
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    rng = np.random.default_rng(0)
    columns = [rng.normal(size=N_ROWS).round(4) for _ in range(N_COLUMNS)]
    names = [*(f"f{i}" for i in range(N_COLUMNS)), "label"]
    table = pa.table([*columns, rng.integers(0, N_CLASSES, N_ROWS)], names=names)
    paths = [folder / "table.csv", folder / "table.parquet"]
    pyarrow.csv.write_csv(table, paths[0])
    pyarrow.parquet.write_table(table, paths[1])
    return paths


def memory() -> int:
    """Bytes that this process has in memory now (Linux)."""
    fields = Path("/proc/self/statm").read_text(encoding="ascii").split()
    return int(fields[1]) * 4096


def measure(path: Path) -> dict[str, float]:
    """Prepare a file, and say what it took."""
    small = path.with_name("small.csv")
    small.write_text("a,label\n" + "1,0\n2,1\n3,1\n" * 50, encoding="ascii")
    keeprate.prepare(small)  # all that is imported late
    start, peak, done = memory(), memory(), threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.is_set():
            peak = max(peak, memory())
            time.sleep(PERIOD)

    watcher = threading.Thread(target=watch)
    watcher.start()
    began = time.perf_counter()
    data = keeprate.prepare(path)
    seconds = time.perf_counter() - began
    done.set()
    watcher.join()
    return {
        "rows": len(data.train) + len(data.validation) + len(data.test or ()),
        "seconds": round(seconds, 2),
        "peak_over_float32": round((peak - start) / FLOAT32, 2),
        "left_over_float32": round((memory() - start) / FLOAT32, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="JSON file")
    parser.add_argument("--file", type=Path, help="measure this table, and print one line")
    arguments = parser.parse_args()
    if arguments.file is not None:
        print(json.dumps(measure(arguments.file)))
        return
    found: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for path in write_tables(Path(folder)) * ROUNDS:
            command = [sys.executable, "-m", "benchmarks.reading", "--file", str(path)]
            shown = subprocess.run(command, capture_output=True, text=True, check=True)
            found.setdefault(path.suffix, []).append(json.loads(shown.stdout))
            print(path.suffix, shown.stdout.strip(), flush=True)
    if arguments.out is not None:
        write_json(arguments.out, {"float32_bytes": FLOAT32, "rounds": found})


if __name__ == "__main__":
    main()
