"""The one command for a GPU, on a CPU: parts of data, its stages, its clock, its results."""

from __future__ import annotations

import json

import pytest

from benchmarks import parts
from keeprate.errors import InputError


@pytest.fixture
def folder(tmp_path):
    """Two small data sets, and a third that nobody asks for."""
    for name, sizes in {"mnist": (50, 7), "cifar-10": (120, 0), "other": (9,)}.items():
        for number, size in enumerate(sizes):
            path = tmp_path / "data" / name / "data" / f"{number}.bin"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(bytes((7 * i + number) % 251 for i in range(size)))
    return tmp_path / "data"


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("largest", [1, 16, 57, 177, 1000])
def test_parts_give_back_the_files(folder, tmp_path, largest):
    names, into = ("mnist", "cifar-10", "cifar-100"), tmp_path / "parts"
    parts.split(folder, names, into, largest)
    written = sorted(into.glob("part-*"))
    assert len(written) == -(-177 // largest) and parts.is_parts(into)
    assert max(path.stat().st_size for path in written) <= largest
    assert parts.join([into], tmp_path / "joined") == []
    expected = {p: c for p, c in contents(folder).items() if p.parts[0] != "other"}
    assert contents(tmp_path / "joined") == expected
    assert not parts.is_parts(folder)


def test_some_parts_give_back_the_files_that_they_hold_whole(folder, tmp_path):
    parts.split(folder, ("mnist", "cifar-10"), tmp_path / "parts", 60)
    here, elsewhere = tmp_path / "parts", tmp_path / "more"
    elsewhere.mkdir()
    (here / "part-001").rename(elsewhere / "part-001")
    joined = tmp_path / "joined"
    assert parts.join([here], joined) == ["cifar-10/data/0.bin"]
    assert [path.as_posix() for path in sorted(contents(joined))] == [
        "cifar-10/data/1.bin",
        "mnist/data/0.bin",
        "mnist/data/1.bin",
    ]
    (here / "part-000").unlink()  # no longer needed: what is there is right
    assert parts.join([here], joined) == ["cifar-10/data/0.bin"]
    assert parts.join([elsewhere, here, tmp_path / "none"], joined) == ["cifar-10/data/0.bin"]


def test_damaged_parts_are_refused(folder, tmp_path):
    into = tmp_path / "parts"
    with pytest.raises(InputError, match=r"--split must hold cifar-100, got .* with none; "):
        parts.split(folder, ("cifar-100",), into)
    parts.split(folder, ("mnist",), into)
    part = into / "part-000"
    part.write_bytes(part.read_bytes()[:-1] + b"!")
    with pytest.raises(InputError, match=r"1\.bin is not what was split"):
        parts.join([into], tmp_path / "joined")
    listed = json.loads((into / parts.LIST).read_text())
    listed["files"][0]["path"] = "../outside.bin"
    (into / parts.LIST).write_text(json.dumps(listed))
    with pytest.raises(InputError, match="must be what --split writes"):
        parts.join([into], tmp_path / "joined")
    (into / parts.LIST).unlink()
    with pytest.raises(InputError, match=r"must hold parts\.json"):
        parts.join([into], tmp_path / "joined")
