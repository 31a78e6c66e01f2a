"""Does a process that goes on for hours keep what it should give back? `python -m benchmarks.soak`.

One process does everything that keeprate does, again and again, each round with another seed, in
folders of other names: a search, a run that is stopped and goes on, finished folders that are
opened again, trainings with baselines, predictions of a loaded run, label issues, reports, tables
and images that are read, scikit-learn's classifier, and errors that users make. A row is taken
after a round, sixty rows in all: memory (after a collection of garbage), open files, threads,
Python objects, tensors, and what is left in the folder for temporary files. The results are in
`results/soak.json`, which is written after every row; `slope` is that of a straight line through
the rows after the first sixth of the time, with its standard error, by processor time (others may
use the processor, too) and by rounds. Linux only.

SQLAlchemy keeps a number of the statements that it has compiled, and a study of its own file adds
some: memory grows until these caches are full. `--studies 240` opens so many small studies one
after the other and shows where that ends (`results/soak-studies.json`).
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import keeprate
from benchmarks.common import RESULTS
from keeprate import InputError, NoisyLabelClassifier, TrainingConfig
from keeprate.files import write_json
from keeprate.report import write_report
from keeprate.schedules import get_space
from keeprate.searching import Proposals, open_study

ROWS = 60
WARM_UP = 1 / 6  # of the time: imports, caches and the allocator's arenas fill
CONFIG = TrainingConfig(epochs=3, batch_size=64, learning_rate=3e-3)
SAMPLES = 300
Row = dict[str, float]


def digits(seed: int) -> keeprate.Data:
    return keeprate.prepare("digits", noise="pairflip:0.3", seed=seed, limit=SAMPLES)


def search_and_open_again(folder: Path, seed: int) -> None:
    """A search; its finished folder opened again; its networks loaded, and two reports."""
    data = digits(seed)
    options: dict[str, Any] = {"budget": "4trials", "config": CONFIG, "restarts": 2}
    run = keeprate.search(data, seed=seed, out=folder / "search", **options)
    again = keeprate.search(data, seed=seed, out=folder / "search", **options)
    if [each.curves for each in again.results] != [each.curves for each in run.results]:
        raise RuntimeError("a finished search was not returned as it is")
    classifier = keeprate.load(folder / "search")
    named = classifier.predict(data.validation.inputs[:].numpy())
    keeprate.find_label_issues(
        data.validation.labels, classifier.predict_proba(data.validation.inputs)
    )
    if len(named) != len(data.validation):
        raise RuntimeError("not every sample was predicted")
    write_report([folder / "search", folder / "search"], folder / "report.html")


def stop_and_go_on(folder: Path, seed: int) -> None:
    """A training with baselines that is stopped, and goes on when its command is repeated."""

    def stop(stage: str, done: float, total: float, best: str | None) -> None:
        if done >= 1:
            raise KeyboardInterrupt

    for progress in (stop, False):
        with contextlib.suppress(KeyboardInterrupt):
            keeprate.train(
                digits(seed),
                schedule="co-teaching",
                config=CONFIG,
                baselines="all",
                seed=seed,
                out=folder / "train",
                progress=progress,
                checkpoint_seconds=0,
            )
    if not (folder / "train" / "model.safetensors").exists():
        raise RuntimeError("a stopped training did not go on")


def read_tables(folder: Path, seed: int) -> None:
    """CSV and Parquet with numbers, categories and blanks; a training with one of them."""
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    rng = np.random.default_rng(seed)
    colours = rng.choice(["red", "green", "blue"], SAMPLES)
    columns: dict[str, Any] = {f"f{i}": rng.normal(size=SAMPLES) for i in range(8)}
    columns["f0"] = pa.array(columns["f0"], mask=rng.random(SAMPLES) < 0.1)
    columns |= {"size": rng.choice(["small", "large"], SAMPLES), "label": colours}
    table = pa.table(columns)
    pyarrow.csv.write_csv(table, folder / "table.csv")
    pyarrow.parquet.write_table(table, folder / "table.parquet")
    for name in ("table.csv", "table.parquet"):
        data = keeprate.prepare(folder / name, label="label", seed=seed)
    keeprate.train(data, config=CONFIG, seed=seed, out=folder / "from-table")


def read_images(folder: Path, seed: int) -> None:
    """A folder of images, a file each."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    for number in range(40):
        path = folder / "images" / f"class{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (12, 12, 3), np.uint8)).save(path)
    keeprate.prepare(folder / "images", seed=seed)


def fit_estimator(folder: Path, seed: int) -> None:
    """scikit-learn's classifier: fitted, saved, loaded."""
    split = digits(seed).train
    inputs, labels = split.inputs[:].flatten(1).numpy(), split.labels.numpy()
    classifier = NoisyLabelClassifier(epochs=2, batch_size=64, random_state=seed)
    classifier.fit(inputs, labels).save(folder / "estimator")
    loaded = NoisyLabelClassifier.load(folder / "estimator")
    if (loaded.predict(inputs) != classifier.predict(inputs)).any():
        raise RuntimeError("a loaded classifier predicts otherwise")


def make_mistakes(folder: Path, seed: int) -> None:
    """What users get wrong, each refused with an `InputError`."""
    data = digits(seed)
    (folder / "damaged.csv").write_bytes(b'a,label\n1,"0\n\xff\x00,2\n')
    (folder / "damaged.npz").write_bytes(b"PK\x03\x04 and no more")
    (folder / "damaged.parquet").write_bytes(b"PAR1 and no more")
    (folder / "run").mkdir()
    (folder / "run" / "record.json").write_text("[" * 20_000)
    mistakes: list[Callable[[], object]] = [
        lambda: keeprate.prepare(folder / "missing.csv"),
        lambda: keeprate.prepare(folder / "damaged.csv"),
        lambda: keeprate.prepare(folder / "damaged.npz"),
        lambda: keeprate.prepare(folder / "damaged.parquet"),
        lambda: keeprate.prepare("digits", noise="pairflip:1.5"),
        lambda: keeprate.search(data, budget="0"),
        lambda: keeprate.search(data, model="no.such:model"),
        lambda: keeprate.train(data, out=""),
        lambda: keeprate.train(data, config=CONFIG, seed=seed + 1, out=folder / "train"),
        lambda: keeprate.load(folder / "missing"),
        lambda: keeprate.train(data, config=CONFIG, out=folder / "run"),
        lambda: keeprate.find_label_issues([0, 1], [[0.5, 0.6], [0.5, 0.5]]),
    ]
    for number, mistake in enumerate(mistakes):
        try:
            mistake()
        except InputError:
            continue
        raise RuntimeError(f"mistake {number} was not refused")


TASKS = (
    search_and_open_again,
    stop_and_go_on,
    read_tables,
    read_images,
    fit_estimator,
    make_mistakes,  # after `stop_and_go_on`, whose folder it asks for with other options
)


def measured(temporary: Path) -> Row:
    """What the process has now, after a collection of garbage."""
    gc.collect()
    objects = gc.get_objects()
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return {
        "rss_mb": round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1),
        "files": len(os.listdir("/proc/self/fd")) - 1,  # without that of the list itself
        "threads": len(os.listdir("/proc/self/task")),
        "objects": len(objects),
        "tensors": sum(issubclass(type(each), torch.Tensor) for each in objects),
        "temporary_files": sum(1 for _ in temporary.rglob("*")),
    }


def go_round(folder: Path, seed: int) -> list[str]:
    """Do every task once in a new folder; return the names of half-written files that are left."""
    folder.mkdir()
    for task in TASKS:
        task(folder, seed)
    left = [path.name for path in folder.rglob("*") if path.name.endswith((".part", "-journal"))]
    for path in sorted(folder.rglob("*"), reverse=True):  # files before their folders
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()
    return left


@contextlib.contextmanager
def workplace() -> Iterator[tuple[Path, Path]]:
    """A folder to work in, and the folder for temporary files meanwhile."""
    before = tempfile.tempdir
    with tempfile.TemporaryDirectory() as folder:
        temporary = Path(folder) / "temporary"
        temporary.mkdir()
        tempfile.tempdir = str(temporary)
        try:
            yield Path(folder), temporary
        finally:
            tempfile.tempdir = before


def soak(seconds: float, least_rounds: int = 1) -> Iterator[list[Row]]:
    """Go round until the time is over; yield all rows after each new one."""
    rows: list[Row] = []
    began, started = time.monotonic(), time.process_time()
    with workplace() as (folder, temporary):
        number, elapsed = 0, 0.0
        while number < least_rounds or elapsed < seconds:
            left = go_round(folder / f"round{number}", seed=number)
            number, elapsed = number + 1, time.monotonic() - began
            processor = time.process_time() - started
            if len(rows) < min(elapsed / seconds, 1) * ROWS or number <= least_rounds:
                row = {"minutes": round(elapsed / 60, 2), "rounds": number}
                row["processor_minutes"] = round(processor / 60, 2)
                rows.append(row | measured(temporary) | {"half_written_files": len(left)})
                yield rows


def slope(rows: list[Row], seconds: float) -> dict[str, float] | None:
    """The straight line through the memory of the later rows: MB per processor hour, per round."""
    later = [row for row in rows if row["minutes"] * 60 >= WARM_UP * seconds]
    if len(later) < 3:
        return None
    memory = np.array([row["rss_mb"] for row in later])
    found: dict[str, float] = {"rows": len(later), "first": memory[0], "last": memory[-1]}
    for unit, x in (
        ("processor_hour", np.array([row["processor_minutes"] for row in later]) / 60),
        ("round", np.array([row["rounds"] for row in later])),
    ):
        deviation = x - x.mean()
        value = deviation @ memory / (deviation @ deviation)
        residual = memory - memory.mean() - value * deviation
        error = np.sqrt(residual @ residual / (len(x) - 2) / (deviation @ deviation))
        found[f"mb_per_{unit}"] = round(float(value), 4)
        found[f"mb_per_{unit}_error"] = round(float(error), 4)
    return found


def open_studies(n: int) -> Iterator[list[Row]]:
    """Open n studies in folders of their own, six trials each; a row after every twentieth."""
    rows: list[Row] = []
    with workplace() as (folder, temporary):
        for number in range(n + 1):
            place = folder / f"study{number}"
            place.mkdir()
            study, proposals = (
                open_study(place),
                Proposals(get_space("basis"), 8, "random", 6, 5, 0),
            )
            for trial in proposals.ask(study):
                study.tell(trial.number, 0.5)
            del study, proposals
            if number % 20 == 0:
                rows.append({"studies": number} | measured(temporary))
                yield rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--out", type=Path, help="results/soak.json, or soak-studies.json")
    parser.add_argument("--studies", type=int, help="open so many studies, and nothing else")
    options = parser.parse_args()
    if options.studies is not None:
        for rows in open_studies(options.studies):
            command = f"python -m benchmarks.soak --studies {options.studies}"
            write_json(
                options.out or RESULTS / "soak-studies.json", {"command": command, "rows": rows}
            )
            print(rows[-1], flush=True)
        return
    seconds = 60 * options.minutes
    for rows in soak(seconds):
        found = {
            "command": f"python -m benchmarks.soak --minutes {options.minutes:g}",
            "slope": slope(rows, seconds),
            "rows": rows,
        }
        write_json(options.out or RESULTS / "soak.json", found)
        print(rows[-1], flush=True)


if __name__ == "__main__":
    main()
