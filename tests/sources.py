"""Small data sets and files that the tests of `keeprate.data` load."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
Image = pytest.importorskip("PIL.Image")


def pixels(n: int = 6, shape: tuple[int, ...] = (7, 5), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


def vectors(n: int = 6, d: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


LABELS = [0, 1, 2, 0, 1, 2]


def write_parquet(
    path: Path,
    images: np.ndarray,
    columns: dict[str, list[Any]],
    names: dict[str, list[str]] | None = None,
    *,
    metadata: bool = True,
) -> Path:
    encoded = [{"bytes": png(image), "path": None} for image in images]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array(encoded, kind), **columns})
    features: dict[str, Any] = {"image": {"_type": "Image"}}
    for column, class_names in (names or {}).items():
        features[column] = {"_type": "ClassLabel", "names": class_names}
    if metadata:
        text = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": text})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=4)  # more than one chunk
    return path


def write_csv(path: Path, header: list[str], rows: list[list[Any]]) -> Path:
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def write_images(folder: Path, classes: dict[str, np.ndarray]) -> Path:
    for name, images in classes.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i, image in enumerate(images):
            (folder / name / f"{i}.png").write_bytes(png(image))
    return folder
