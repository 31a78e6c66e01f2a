"""Damaged files: every reader gives its result or an `InputError`, in bounded memory."""

from __future__ import annotations

import gzip
import io
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
Image = pytest.importorskip("PIL.Image")

from keeprate import InputError, Schedule, load_data  # noqa: E402
from keeprate.data import write_corrected  # noqa: E402
from keeprate.engine import load_tensors, save_tensors  # noqa: E402
from keeprate.engine.checkpoints import load_curves  # noqa: E402
from keeprate.noise import Noise  # noqa: E402
from keeprate.reading import find_images, image_paths, read_images  # noqa: E402
from keeprate.records import load_label_quality, load_record  # noqa: E402
from keeprate.records.label_quality import LabelQuality  # noqa: E402
from keeprate.records.record import to_json  # noqa: E402
from tests.fuzz.corpus import READERS, npz, picture  # noqa: E402
from tests.fuzz.harness import run_here  # noqa: E402
from tests.report_records import make_record  # noqa: E402

UNMENDED: tuple[str, ...] = ()
"""Readers with faults that are known and not mended yet."""
SLOW = ("estimator-arrays",)  # it trains first; `make fuzz` has it


@pytest.mark.parametrize("name", [n for n in READERS if n not in (*UNMENDED, *SLOW)])
def test_damaged_inputs(tmp_path: Path, name: str) -> None:
    outcome = run_here(name, range(80), 7, tmp_path)
    assert not outcome.faults, outcome.examples
    assert outcome.results + outcome.refused == 80 and outcome.results


# What has been found ---------------------------------------------------------------------------

DEEP = 3000


def as_quality(path: Path) -> object:
    return LabelQuality.load(path, ("cat", "dog"))


def as_matrix(path: Path) -> object:
    return Noise.parse(f"matrix:{path}").transition_matrix(2)


def as_record(path: Path) -> object:
    return load_record(path.parent)


def npy(header: str, rest: bytes = b"") -> bytes:
    """An array of NumPy's with this header."""
    return b"\x93NUMPY\x01\0" + len(header).to_bytes(2, "little") + header.encode() + rest


def archive(**members: bytes) -> bytes:
    """An .npz file of these members."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as packed:
        for name, content in members.items():
            packed.writestr(f"{name}.npy", content)
    return stream.getvalue()


def header(kind: str = "<f8", shape: str = "(2,)") -> str:
    return f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}"


def huge_matrix() -> bytes:
    """A record in which a number of a transition matrix has 400 digits."""
    record = to_json(make_record())
    record["results"][0]["transition_matrix"] = [[10**400, 0], [0, 1]]
    return json.dumps(record).encode()


def lines(*rows: Any) -> bytes:
    return "\n".join(json.dumps(row) for row in rows).encode()


CHOICE = {"choices": 1}
TASK = {"data": {"text": "a"}, "annotations": []}
QUALITY = b"index,is_label_issue,label_score,given_label,predicted_label\n"
X = npy(header(), bytes(16))
Y = npy(header("<i8"), bytes(16))
REFUSED: list[tuple[str, bytes, Callable[[Path], object]]] = [
    # Text
    ("t.csv", b"size,l\xe4nge\n1,2\n" + b"x,\xc3\xa4\xc3\xb6\n" * 9, load_data),
    ("t.csv", b"[" * DEEP + b"{", load_data),
    ("t.jsonl", b'{"a":' * DEEP + b"1" + b"}" * DEEP, load_data),
    ("t.json", b'[{"a": ' + b"[" * DEEP + b"]" * DEEP + b"}]", load_data),
    ("t.json", b'[{"a": ' + b"[" * 200 + b"1" + b"]" * 200 + b', "label": 1}]', load_data),
    ("t.jsonl", b'{"x": "\\ud800", "label": 0}', load_data),
    ("t.jsonl", b'{"\\ud800": 1, "label": 0}', load_data),
    ("t.json", b'[{"x": [' + b"9" * 400 + b'], "label": 0}]', load_data),
    # Exports
    ("t.jsonl", lines({"_input_hash": [1], "_task_hash": 1, "spans": 1}), load_data),
    ("t.jsonl", lines({**TASK, "annotations": [1]}), load_data),
    ("t.jsonl", lines({**TASK, "annotations": [{"result": {"a": 1}}]}), load_data),
    ("t.jsonl", lines({**TASK, "annotations": [{"result": [1]}]}), load_data),
    ("t.jsonl", lines({**TASK, "annotations": [{"result": [{"value": "a"}]}]}), load_data),
    (
        "t.jsonl",
        lines({**TASK, "annotations": [{"result": [{"value": {"choices": 1}}]}]}),
        load_data,
    ),
    ("t.jsonl", lines({"id": 1, "text": "a", "cats": {"a": None}}), load_data),
    (
        "t.jsonl",
        lines({"source": "a", "k-metadata": {"class-name": "b"}}, {"source": "a", "k-metadata": 1}),
        load_data,
    ),
    # Arrays
    ("t.npz", archive(x=npy("{'descr': ("), y=Y), load_data),
    ("t.npz", archive(x=npy(header(shape="(-1,)"), bytes(16)), y=Y), load_data),
    ("t.npz", archive(x=npy(header(shape="(4611686018427387904, 4)")), y=Y), load_data),
    ("t.npz", archive(x=npy(header(shape="(10**12,)")), y=Y), load_data),
    ("t.npz", archive(x=npy(header(shape="(99999999999,)")), y=Y), load_data),
    ("t.npz", archive(x=npy(header(shape="(9223372036854775808,)")), y=Y), load_data),
    ("t.npz", archive(x=X, y=npy(header("<U1"), b"\xff" * 8)), load_data),
    (
        "t.npz",
        archive(x=npy(header(), bytes(16)), y=npy(header("<U0", "(9999999999999,)"))),
        load_data,
    ),
    ("t.npz", archive(x=b"no array", y=Y), load_data),
    ("t.npz", archive(labels=Y, pred_probs=npy("{'descr': (")), load_label_quality),
    ("t.npz", archive(labels=Y), load_label_quality),
    # What keeprate writes
    ("s.json", b'{"keep_rate": [1, ' + b"9" * 400 + b"]}", Schedule.load),
    ("s.json", b'{"keep_rate": [1], "parameters": {"a": ' + b"9" * 400 + b"}}", Schedule.load),
    ("s.json", b'{"keep_rate": ' + b"[" * DEEP, Schedule.load),
    ("s.csv", b"epoch,keep_rate\n1," + b"1" * 140_000, Schedule.load),
    ("s.csv", b"epoch," + b"k" * 5000, Schedule.load),
    ("record.json", b'{"a": ' + b"[" * DEEP, as_record),
    ("record.json", huge_matrix(), as_record),
    ("record.json", b'{"schema_version": 1' + b"0" * 4000 + b"}", as_record),
    ("q.csv", QUALITY + b"9" * 30 + b",True,0.5,cat,dog\n", as_quality),
    ("q.csv", QUALITY + b"0,True,0.5,cat," + b"d" * 140_000, as_quality),
    # Matrices
    ("m.json", b"[[" + b"9" * 400 + b", 0], [0, 1]]", as_matrix),
    ("m.json", b"[" * DEEP, as_matrix),
    ("m.json", b'{"a": 1}', as_matrix),
    ("m.npy", npy("{'descr': ("), as_matrix),
    ("m.npy", npy(header(shape="(99999999999999,)")), as_matrix),
]


@pytest.mark.parametrize(("name", "content", "read"), REFUSED, ids=range(len(REFUSED)))
def test_what_fuzzing_found_is_refused(
    tmp_path: Path, name: str, content: bytes, read: Callable[[Path], object]
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError) as refused:
        read(path)
    assert name in str(refused.value) and len(str(refused.value)) < 1000


def test_labels_of_thousands_of_digits_are_text(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("x,label\n" + f"1,{'9' * 5000}\n2,1\n" * 2)
    assert load_data(path).class_names == ("1", "9" * 5000)


@pytest.mark.parametrize(
    ("key", "note"),
    [
        ("huggingface", '{"info": null}'),
        ("huggingface", '{"info": {"features": {"label": {"_type": "ClassLabel", "names": 7}}}}'),
        ("huggingface", "[]"),
        ("pandas", '{"index_columns": 7}'),
        ("pandas", "[1]"),
    ],
)
def test_odd_notes_in_a_schema_are_passed_over(tmp_path: Path, key: str, note: str) -> None:
    table = pa.table({"x": [1.0, 2.0], "label": [0, 1]}).replace_schema_metadata({key: note})
    pq.write_table(table, tmp_path / "t.parquet")
    assert load_data(tmp_path / "t.parquet").class_names == ("0", "1")


@pytest.mark.parametrize("note", ["{", "\xff", "[" * DEEP])
def test_notes_that_are_no_json_are_refused(tmp_path: Path, note: str) -> None:
    table = pa.table({"x": [1.0, 2.0], "label": [0, 1]})
    pq.write_table(
        table.replace_schema_metadata({"huggingface": note.encode("latin-1")}),
        tmp_path / "t.parquet",
    )
    with pytest.raises(InputError, match=r"note of huggingface in the .*parquet must be JSON"):
        load_data(tmp_path / "t.parquet")


def test_texts_of_parquet_that_are_no_utf_8_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    table = pa.table({"x": [1.0, 2.0], "label": ["katze", "hunde"]})
    pq.write_table(table, path, use_dictionary=False, compression="none", write_statistics=False)
    path.write_bytes(path.read_bytes().replace(b"hunde", b"h\xffnde"))
    with pytest.raises(InputError, match=r"t\.parquet could not be read"):
        load_data(path)


def test_a_column_of_images_that_are_none_is_refused(tmp_path: Path) -> None:
    features = json.dumps({"info": {"features": {"image": {"_type": "Image"}}}})
    for image in ([{"path": "a"}] * 2, ["a", "b"], [1, 2], [{"bytes": "a"}] * 2):
        table = pa.table({"image": image, "label": [0, 1]})
        pq.write_table(
            table.replace_schema_metadata({"huggingface": features}), tmp_path / "t.parquet"
        )
        with pytest.raises(InputError, match=r"images .* must be bytes, got values of type"):
            load_data(tmp_path / "t.parquet")


INFINITE = float("inf")  # JSON as Python writes it has this


@pytest.mark.parametrize(
    "progress",
    [
        [],
        7,
        {"epoch": float("inf")},
        {"curves": [[float("inf"), {}]]},
        {"curves": 1},
        {"failed": 1},
    ],
)
def test_an_edited_checkpoint_is_refused(tmp_path: Path, progress: Any) -> None:
    path = tmp_path / "p.safetensors"
    whole = {"curves": [], "epoch": 1, "numbers": [], "failed": []}
    save_tensors(path, {}, whole | progress if isinstance(progress, dict) else progress)
    with pytest.raises(InputError, match=r"p\.safetensors"):
        load_curves(path)


def test_a_checkpoint_with_deep_metadata_is_refused(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    path = tmp_path / "p.safetensors"
    save_file({"x": np.zeros(1)}, path, metadata={"keeprate": "[" * DEEP})
    with pytest.raises(InputError, match="safetensors file written by keeprate"):
        load_tensors(path)


# Bombs -----------------------------------------------------------------------------------------


def test_only_the_arrays_that_are_needed_are_read(tmp_path: Path) -> None:
    broken = npy(header(shape="(99999999999,)"))
    x = npy(header(), np.array([1.0, 2.0]).tobytes())
    y = npy(header("<i8"), np.array([0, 1]).tobytes())
    (tmp_path / "t.npz").write_bytes(archive(x=x, y=y, extra=broken, other=b"text"))
    assert load_data(tmp_path / "t.npz").splits["train"].inputs.tolist() == [[1.0], [2.0]]


def test_a_copy_of_an_archive_with_a_damaged_member_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.npz"
    path.write_bytes(archive(x=X, y=Y, note=b"some words").replace(b"some words", b"some sword"))
    with pytest.raises(InputError, match=r"t\.npz could not be read .*CRC"):
        write_corrected(path, path, {0: "1"})


def test_arrays_that_are_too_large_are_refused_by_their_headers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "t.npz"
    path.write_bytes(npz(True, x=np.zeros((1000, 100)), y=np.arange(1000) % 2))
    assert path.stat().st_size < 10_000
    monkeypatch.setenv("KEEPRATE_READ_LIMIT", "500000")
    with pytest.raises(InputError, match=r"array x of .*t\.npz must fit into memory, got 800 kB, "):
        load_data(path)
    monkeypatch.setenv("KEEPRATE_READ_LIMIT", "805000")  # the labels are 8,000 more
    with pytest.raises(InputError, match="array y of"):
        load_data(path)
    monkeypatch.setenv("KEEPRATE_READ_LIMIT", "808000")
    assert len(load_data(path).splits["train"]) == 1000
    monkeypatch.setenv("KEEPRATE_READ_LIMIT", "much")
    with pytest.raises(InputError, match="must be a number of bytes, got 'much'"):
        load_data(path)


@pytest.mark.parametrize(("name", "row"), [("t.csv", "1,a\n2,b\n"), ("t.jsonl", '{"a": 1}\n')])
def test_packed_text_that_is_too_large_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, row: str
) -> None:
    monkeypatch.setenv("KEEPRATE_READ_LIMIT", "3000000")
    path = tmp_path / f"{name}.gz"
    path.write_bytes(gzip.compress(b"x,label\n" + row.encode() * 600_000))
    assert path.stat().st_size < 30_000
    with pytest.raises(InputError, match=r"\.gz must fit into memory, got .* MB.*; unpack it"):
        load_data(path)


def test_a_parquet_file_is_measured_by_its_footer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = pa.table({"x": np.zeros(100_000), "label": np.arange(100_000) % 2})
    pq.write_table(table, tmp_path / "t.parquet")
    assert (tmp_path / "t.parquet").stat().st_size < 100_000
    monkeypatch.setenv("KEEPRATE_READ_LIMIT", "1000000")
    with pytest.raises(InputError, match=r"t\.parquet must fit into memory, got 1\.6 MB"):
        load_data(tmp_path / "t.parquet")


def png_that_claims(width: int, height: int) -> bytes:
    """A PNG with these numbers in its header, and hardly any pixels."""
    content = picture("PNG")
    chunk = content[12:16] + struct.pack(">II", width, height) + content[24:29]
    return content[:12] + chunk + struct.pack(">I", zlib.crc32(chunk)) + content[33:]


@pytest.mark.parametrize("side", [10_000, 20_000, 2**31 - 1])
def test_images_of_too_many_pixels_are_not_decoded(tmp_path: Path, side: int) -> None:
    (tmp_path / "large.png").write_bytes(png_that_claims(side, 9000))
    for read in (find_images, lambda path: read_images([path], "t")):
        with pytest.raises(InputError, match=r"large\.png must have at most 89,478,485 pixels"):
            read(tmp_path / "large.png")


def test_images_that_are_too_large_together_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "large.png").write_bytes(png_that_claims(9000, 9000))
    monkeypatch.setenv("KEEPRATE_READ_LIMIT", "400000000")
    with pytest.raises(InputError, match=r"images \(t\) must fit into memory, got 486 MB"):
        read_images([tmp_path / "large.png"] * 2, "t")


# Places ----------------------------------------------------------------------------------------


def parquet_of_paths(folder: Path, *paths: str) -> Path:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = pa.array([{"bytes": None, "path": path} for path in paths], kind)
    pq.write_table(pa.table({"image": images, "label": range(len(paths))}), folder / "t.parquet")
    return folder / "t.parquet"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of two images with a link out, a link in and a pipe, beside a folder elsewhere."""
    inside, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    for place in (inside / "images", elsewhere):
        place.mkdir(parents=True)
        for i in range(2):
            (place / f"{i}.png").write_bytes(picture("PNG", seed=i))
    (inside / "out.png").symlink_to(elsewhere / "0.png")
    (inside / "in.png").symlink_to(inside / "images" / "0.png")
    (inside / "outside").symlink_to(elsewhere)
    os.mkfifo(inside / "pipe.png")
    return inside


def test_rows_name_files_below_the_folder(folder: Path) -> None:
    for path in ("images/1.png", str(folder / "images" / "1.png"), "in.png", "images/../in.png"):
        loaded = load_data(parquet_of_paths(folder, "images/0.png", path))
        assert loaded.splits["train"].inputs.shape == (2, 3, 9, 8)


@pytest.mark.parametrize(
    ("path", "received"),
    [
        ("../elsewhere/0.png", "lies elsewhere or is a link out"),
        ("out.png", "lies elsewhere or is a link out"),
        ("outside/0.png", "lies elsewhere or is a link out"),
        ("/dev/zero", "lies elsewhere or is a link out"),
        ("pipe.png", "is something else"),
        ("images", "is something else"),
        ("no.png", "is not there"),
        ("a\0b", "is not there"),
        ("a" * 5000, "is not there"),
    ],
)
def test_rows_that_name_other_files_are_refused(folder: Path, path: str, received: str) -> None:
    with pytest.raises(InputError, match=f"the image in row 1 of the .*{received}"):
        load_data(parquet_of_paths(folder, "images/0.png", path))


@pytest.mark.parametrize("path", ["../elsewhere/0.png", "out.png", "outside/0.png"])
def test_lists_that_name_files_elsewhere_are_refused(folder: Path, path: str) -> None:
    (folder / "t.csv").write_text(f"file,label\nimages/0.png,a\n{path},b\n")
    with pytest.raises(InputError, match="the image in row 1 of the table must name a file in"):
        load_data(folder / "t.csv")


def test_a_list_of_other_files_is_none_of_images(folder: Path) -> None:
    assert image_paths(["/dev/null", "/dev/zero"], folder) is None
    assert image_paths(["pipe.png", "pipe.png"], folder) is None


def test_a_list_of_images_of_which_the_first_are_missing(folder: Path) -> None:
    names = ["no.png", "0.png", "1.png", None]
    with pytest.raises(InputError, match=r"exist, got 2 of 4 missing: no\.png, None; drop these"):
        image_paths(names, folder)
    assert image_paths([*names, "x"], folder) is None
    (folder / "t.csv").write_text("file,label\nno.png,a\n0.png,b\n1.png,b\n")
    with pytest.raises(InputError, match="1 of 3 missing"):
        load_data(folder / "t.csv")


@pytest.mark.parametrize("kind", ["EPS", "PDF", "XBM"])
def test_pictures_of_other_formats_are_not_opened(tmp_path: Path, kind: str) -> None:
    Image.new("1" if kind == "XBM" else "RGB", (8, 8)).save(tmp_path / "t.png", kind)
    with pytest.raises(InputError, match="no image that Pillow knows, or one of a rare format"):
        find_images(tmp_path / "t.png")
