"""Every reader with small valid files: what is damaged, and what then reads it."""

from __future__ import annotations

import csv
import gzip
import io
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

import keeprate
from keeprate.cli.options import kinds_typed, names_typed
from keeprate.data import InputForm, load_data, read_unlabelled, write_corrected
from keeprate.engine import Candidate, get_method, load_curves, make_setup, new_population
from keeprate.engine.checkpoints import load_population, save_population
from keeprate.noise import Noise
from keeprate.reading import find_images, read_images
from keeprate.records import load_label_quality, load_record, save_record
from keeprate.records.label_quality import LabelQuality
from keeprate.runs.classifier import Classifier, save_classifier
from keeprate.schedules import Schedule
from keeprate.searching.budget import Budget
from tests.report_records import make_finished_record

Read = Callable[[Path], object]
CSV = "size,colour,when,label\n1,red,2020-01-01,cat\n2.5,blue,2020-01-02,dog\n" + (
    '3,"red, or\nblue",2020-02-03,cat\n,green,,dog\n5,red,2021-01-01,cat\n6,"a ""b""",,dog\n'
)


@dataclass(frozen=True)
class Case:
    """A folder in which one file is damaged.

    Attributes
    ----------
    name : str
        The file's path in the folder.
    content : bytes
        The file, undamaged.
    kind : str
        What the bytes are, for `mutate`.
    beside : dict of str to bytes
        The other files.
    """

    name: str
    content: bytes
    kind: str = "text"
    beside: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Reader:
    """What reads a damaged file, and its cases.

    Attributes
    ----------
    cases : callable
        Makes the cases; some take a second.
    read : callable
        Takes the path of the damaged file.
    """

    cases: Callable[[], Sequence[Case]]
    read: Read


# Tables ----------------------------------------------------------------------------------------


def _texts() -> list[Case]:
    german = "Größe;Stück;label\n1,5;2;Möwe\n2,5;3;Gans\n3,5;4;Möwe\n4,0;007;Gans\n"
    tsv = CSV.replace(",", "\t")
    numbers = "x\ty\n" + "".join(f"{i}\t{i % 2}\n" for i in range(8))
    return [
        Case("t.csv", CSV.encode()),
        Case("t.csv", german.encode("cp1252")),
        Case("t.csv", german.encode()),
        Case("t.csv", b"\xff\xfe" + CSV.encode("utf-16-le")),
        Case("t.tsv", tsv.encode()),
        Case("t.txt", numbers.encode()),
        Case("t.csv.gz", gzip.compress(CSV.encode(), mtime=0), "text.gz"),
    ]


ROWS: list[dict[str, Any]] = [
    {"text": f"row {i}", "size": i + 0.5, "in": {"a": i, "b": None}, "label": "ab"[i % 2]}
    for i in range(6)
]


def _json_tables() -> list[Case]:
    lines = "\n".join(map(json.dumps, ROWS))
    lists = [{"x": [i, 2.0], "label": i % 2} for i in range(4)]
    return [
        Case("t.json", json.dumps(ROWS).encode(), "json"),
        Case("t.jsonl", lines.encode(), "json"),
        Case("t.ndjson", json.dumps(lists).encode(), "json"),
        Case("t.json.gz", gzip.compress(lines.encode(), mtime=0), "json.gz"),
    ]


def _exports() -> list[Case]:
    choices = [
        {"type": "choices", "from_name": "kind", "value": {"choices": ["AB"[i % 2]]}}
        for i in range(4)
    ]
    said: dict[str, Any] = {"created_at": "2024-01-01", "completed_by": {"id": 1, "email": "e"}}
    notes = [{"result": [choice], **said} for choice in choices]
    tasks = [
        {"id": i, "data": {"text": f"t {i}"}, "annotations": [note, {**note, "completed_by": 2}]}
        for i, note in enumerate(notes)
    ]
    about = {"annotation_id": 1, "annotator": 2, "lead_time": 1.5, "created_at": "2024"}
    rows = [{"text": f"t {i}", "id": i, "sentiment": "AB"[i % 2], **about} for i in range(4)]
    table = io.StringIO()
    writer = csv.DictWriter(table, rows[0])
    writer.writeheader()
    writer.writerows(
        [{**row, "sentiment": f'{{"choices": ["{row["sentiment"]}"]}}'} for row in rows]
    )
    prodigy = [
        {"text": f"t {i}", "_input_hash": i, "_task_hash": i, "accept": ["AB"[i % 2]]}
        | {"answer": "accept", "_timestamp": 1.5, "_annotator_id": "e", "options": [{"id": "A"}]}
        for i in range(4)
    ]
    doccano = [{"id": i, "text": f"t {i}", "label": ["AB"[i % 2]]} for i in range(4)]
    records = [
        {"id": i, "text": f"t {i}", "annotations": [{"label": i % 2, "user": 1}]} for i in range(4)
    ]
    cats = [{"id": i, "text": f"t {i}", "cats": {"A": i % 2, "B": 1 - i % 2}} for i in range(4)]
    manifest = [
        {"source": f"t {i}", "kind": i % 2}
        | {"kind-metadata": {"class-name": "AB"[i % 2], "confidence": 0.5, "type": "groundtruth"}}
        for i in range(4)
    ]
    return [
        Case("t.json", json.dumps(tasks).encode(), "json"),
        Case("t.json", json.dumps(rows).encode(), "json"),
        Case("t.csv", table.getvalue().encode()),
        *(
            Case(f"t{suffix}", "\n".join(map(json.dumps, some)).encode(), "json")
            for some, suffix in (
                *((prodigy, ".jsonl"), (doccano, ".jsonl"), (records, ".jsonl"), (cats, ".jsonl")),
                (manifest, ".manifest"),
            )
        ),
    ]


def _parquet() -> list[Case]:
    labels = pa.array([0, 1, 0, 1])
    pictures: list[dict[str, Any]] = [{"bytes": None, "path": "on disk.png"}]
    pictures += [{"bytes": picture("PNG", seed=i), "path": f"{i}.png"} for i in range(3)]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    names = {"_type": "ClassLabel", "names": ["cat", "dog"]}
    features = {"info": {"features": {"image": {"_type": "Image"}, "label": names}}}
    images = pa.table({"image": pa.array(pictures, kind), "label": labels})
    images = images.replace_schema_metadata({"huggingface": json.dumps(features)})
    plain = pa.table({"a": [0.5, 1.0, None, 2.0], "b": ["x", "y", None, "x"], "label": labels})
    plain = plain.append_column("day", pa.array([1, 2, 3, None], pa.date32()))
    pandas = {"pandas": json.dumps({"index_columns": ["a"], "columns": []})}
    lists = pa.table({"x": pa.array([[1.0, 2.0]] * 4), "label": ["u", "v", "u", "v"]})
    coded = pa.table({"x": pa.array([1, 2, 3, 4], pa.int8()), "label": plain["b"]})
    coded = coded.set_column(1, "label", pa.array(["u", "v", "u", "v"]).dictionary_encode())
    tables = (plain.replace_schema_metadata(pandas), lists, coded)
    beside = {"on disk.png": picture("PNG")}
    cases = [Case("t.parquet", _written(table), "parquet") for table in tables]
    return [*cases, Case("t.parquet", _written(images), "parquet", beside)]


def _written(table: Any) -> bytes:
    stream = io.BytesIO()
    pq.write_table(table, stream)
    return stream.getvalue()


def _image_lists() -> list[Case]:
    beside = {f"{i}.png": picture("PNG", seed=i) for i in range(4)}
    rows = "".join(f"{i}.png,{'ab'[i % 2]}\n" for i in range(4))
    below = {f"train/{name}": content for name, content in beside.items()}
    return [
        Case("t.csv", f"file,label\n{rows}".encode(), beside=beside),
        Case("t.csv", f"file,label\n{rows}".encode(), beside=below),
    ]


# Arrays ----------------------------------------------------------------------------------------


def npz(packed: bool = False, **arrays: Any) -> bytes:
    """Return the bytes of an .npz file."""
    stream = io.BytesIO()
    (np.savez_compressed if packed else np.savez)(stream, **arrays)
    return stream.getvalue()


def _npz() -> list[Case]:
    x, y = np.arange(12.0).reshape(6, 2), np.array([0, 1] * 3)
    images = np.zeros((6, 5, 5, 3), np.uint8)
    splits = {"x_train": x, "y_train": y, "x_test": x, "y_test": y, "true_labels_train": y}
    return [
        Case("t.npz", npz(x=x, y=y), "zip"),
        Case("t.npz", npz(True, **splits), "zip"),
        Case("t.npz", npz(True, images=images, labels=np.array(["a", "b"] * 3)), "zip"),
    ]


def _judged() -> list[Case]:
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8]] * 3)
    return [Case("t.npz", npz(labels=np.array([0, 1] * 3), pred_probs=probabilities), "zip")]


# Images ----------------------------------------------------------------------------------------


def picture(kind: str, seed: int = 0, mode: str = "RGB") -> bytes:
    """Return the bytes of a small picture of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 8, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(stream, kind)
    return stream.getvalue()


KINDS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "ICO", "AVIF", "TGA", "JPEG2000")


def _images() -> list[Case]:
    Image.init()
    kinds = [kind for kind in KINDS if kind in Image.SAVE]
    cases = [Case(f"t.{kind}", picture(kind), kind.lower()) for kind in kinds]
    return [*cases, Case("p.png", picture("PNG", mode="P"), "png")]


def _read_image(path: Path) -> object:
    found = find_images(path)
    return read_images(found.paths, "t")


def _folders() -> list[Case]:
    beside = {f"{kind}/{i}.png": picture("PNG", seed=i) for kind in "ab" for i in range(2)}
    return [
        Case("a/x.png", picture("PNG"), "png", beside),
        Case("train/a/x.jpg", picture("JPEG"), "text", {f"train/{k}": beside[k] for k in beside}),
    ]


def _read_folder(path: Path) -> object:
    folder = path.parent.parent
    return load_data(folder.parent if folder.name == "train" else folder)


# What keeprate writes --------------------------------------------------------------------------


def _made(write: Callable[[Path], object], name: str, kind: str) -> list[Case]:
    """Let keeprate write a folder, and damage one file of it."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        files = {str(p.relative_to(folder)): p.read_bytes() for p in Path(folder).rglob("*.*")}
    content = files.pop(name)
    return [Case(name, content, kind, files)]


def _small_record(folder: Path) -> None:
    save_record(folder, make_finished_record())
    value = json.loads((folder / "record.json").read_text())
    value["trials"] = value["trials"][:2]
    value["suspects"] = [{**one, "image": ""} for one in value["suspects"][:2]]
    (folder / "record.json").write_text(json.dumps(value))


def _schedules(suffix: str) -> list[Case]:
    def write(folder: Path) -> None:
        Schedule(np.array([1.0, 0.9, 0.5, 0.4]), "basis", {"a": 0.5}).save(folder / f"s{suffix}")

    return _made(write, f"s{suffix}", "json" if suffix == ".json" else "text")


QUALITY = "index,is_label_issue,label_score,given_label,predicted_label,name\n" + (
    '3,True,0.25,cat,dog,"a, b"\n0,False,0.75,dog,dog,c\n7,True,1.0,dog,cat,d\n'
)


def _models() -> list[Case]:
    def write(folder: Path) -> None:
        from keeprate.data import Normaliser

        factory = keeprate.engine.get_model("mlp")
        modules = [factory((2,), 2) for _ in range(2)]
        normaliser = Normaliser("standardise", (0.0, 1.0), (1.0, 2.0))
        save_classifier(folder, Classifier(modules, normaliser, ("a", "b"), (2,)), model="mlp")

    return _made(write, "model.safetensors", "safetensors")


def _read_model(path: Path) -> object:
    return keeprate.load(path.parent).predict(np.zeros((2, 2), np.float32))


def _estimators(name: str, kind: str) -> list[Case]:
    def write(folder: Path) -> None:
        classifier = keeprate.NoisyLabelClassifier(
            schedule="constant", epochs=2, restarts=1, random_state=0
        )
        x = np.random.default_rng(0).normal(size=(60, 2))
        classifier.fit(x, (x[:, 0] > 0).astype(int)).save(folder)

    return _made(write, name, kind)


def _read_estimator(path: Path) -> object:
    return keeprate.NoisyLabelClassifier.load(path.parent)


@cache
def _setup() -> Any:
    x = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
    data = keeprate.prepare(load_data((x, (x[:, 0] > 0).astype(int))))
    config = keeprate.TrainingConfig(epochs=2, batch_size=8)
    return make_setup(data, model="mlp", config=config, seed=0, out=None)


def _population() -> Any:
    candidates = [Candidate(0, Schedule(np.array([1.0, 0.5])), get_method("co-teaching"))]
    return new_population(candidates, _setup(), stream="test")


def _checkpoints() -> list[Case]:
    def write(folder: Path) -> None:
        save_population(folder / "p.safetensors", _population())

    return _made(write, "p.safetensors", "safetensors")


def _read_checkpoint(path: Path) -> object:
    load_curves(path)
    return load_population(path, _population())


# Noise, strings --------------------------------------------------------------------------------


def _matrices() -> list[Case]:
    matrix = np.array([[0.5, 0.5], [0.25, 0.75]])
    stream = io.BytesIO()
    np.save(stream, matrix)
    return [
        Case("m.csv", b"0.5,0.5\n0.25,0.75\n"),
        Case("m.json", json.dumps(matrix.tolist()).encode(), "json"),
        Case("m.npy", stream.getvalue(), "npy"),
    ]


def _read_matrix(path: Path) -> object:
    return Noise.parse(f"matrix:{path}").transition_matrix(2)


def _words(*texts: str) -> list[Case]:
    return [Case("text", text.encode()) for text in texts]


def _word(read: Callable[[str], object], path: Path) -> object:
    # What a shell hands on: no zero bytes, and surrogates for bytes that are no UTF-8.
    return read(path.read_bytes().replace(b"\0", b"").decode("utf-8", "surrogateescape"))


def _noise_of(text: str) -> object:
    noise = Noise.parse(text)
    return None if noise.kind in ("matrix", "instance") else noise.transition_matrix(10)


# Trained networks get data, labels are written back --------------------------------------------


def _read_predicted(path: Path) -> object:
    shape = (3, 9, 8) if path.suffix in (".png", ".jpg") else (2,)
    return read_unlabelled([path], InputForm(shape))


def _predicted() -> list[Case]:
    x = np.arange(12.0).reshape(6, 2)
    return [
        Case("t.csv", b"id,a,b,label\n" + b"".join(b"%d,1,2.5,cat\n" % i for i in range(5))),
        Case("t.npz", npz(x_test=x, y_test=np.array(["a", "b"] * 3)), "zip"),
        Case("t.png", picture("PNG"), "png"),
        Case("t.jsonl", b'{"a": 1, "b": 2, "label": "x"}\n{"a": 3, "b": 4}\n', "json"),
    ]


def _corrected() -> list[Case]:
    return [*_texts(), *_json_tables(), *_parquet(), _npz()[0]]


def _write_corrected(path: Path) -> object:
    out = path.with_name(f"out.{path.name}")
    write_corrected(path, out, dict.fromkeys((0, 2), "1" if path.suffix == ".npz" else "dog"))
    return out.read_bytes()


READERS: dict[str, Reader] = {
    "text": Reader(_texts, load_data),
    "json": Reader(_json_tables, load_data),
    "export": Reader(_exports, load_data),
    "parquet": Reader(_parquet, load_data),
    "image-list": Reader(_image_lists, load_data),
    "npz": Reader(_npz, load_data),
    "image": Reader(_images, _read_image),
    "image-folder": Reader(_folders, _read_folder),
    "predicted": Reader(_predicted, _read_predicted),
    "corrected": Reader(_corrected, _write_corrected),
    "record": Reader(
        lambda: _made(_small_record, "record.json", "json"), lambda path: load_record(path.parent)
    ),
    "schedule-csv": Reader(lambda: _schedules(".csv"), Schedule.load),
    "schedule-json": Reader(lambda: _schedules(".json"), Schedule.load),
    "warm-start": Reader(
        lambda: [*_schedules(".csv"), *_schedules(".json")],
        lambda path: keeprate.SearchConfig(warm_start=path),
    ),
    "label-quality": Reader(
        lambda: [Case("label_quality.csv", QUALITY.encode())],
        lambda path: LabelQuality.load(path, ("cat", "dog")),
    ),
    "issues-npz": Reader(_judged, load_label_quality),
    "model": Reader(_models, _read_model),
    "estimator-json": Reader(lambda: _estimators("estimator.json", "json"), _read_estimator),
    "estimator-arrays": Reader(
        lambda: _estimators("estimator.safetensors", "safetensors"), _read_estimator
    ),
    "checkpoint": Reader(_checkpoints, _read_checkpoint),
    "matrix": Reader(_matrices, _read_matrix),
    "noise": Reader(
        lambda: _words("pairflip:0.45", "symmetric:0.5", "none", "matrix:x.csv", "instance:0.3"),
        partial(_word, _noise_of),
    ),
    "columns": Reader(
        lambda: _words("age=number,note=text", '"weight, kg"=number'), partial(_word, kinds_typed)
    ),
    "names": Reader(lambda: _words('age,"weight, kg"'), partial(_word, names_typed)),
    "budget": Reader(lambda: _words("6", "30m", "1.5h", "40trials"), partial(_word, Budget.parse)),
}
