"""Lists of pairs in every format, with pictures in folders and in Parquet."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from keeprate.errors import InputError
from keeprate.verification import Pairs, load_pairs

PEOPLE = ("Ann_Lee", "Bob", "J.K._Cem")
N_OF_EACH = 4  # pictures
Key = tuple[int, int]  # a person, and the number of a picture from 1


def grey(key: Key) -> int:
    """Every picture has a shade of its own."""
    return 20 * key[0] + 5 * key[1] + 100 * (key[0] == 2)


def encoded(key: Key, kind: str = "JPEG", side: int = 4) -> bytes:
    content = io.BytesIO()
    Image.fromarray(np.full((side, side), grey(key), np.uint8)).save(content, kind, quality=95)
    return content.getvalue()


def write(path: Path, content: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


ALL: tuple[Key, ...] = tuple((p, i) for p in range(3) for i in range(1, N_OF_EACH + 1))
SAME: tuple[tuple[Key, Key], ...] = tuple(
    ((p, i), (p, j)) for p in range(3) for i in range(1, 5) for j in range(i + 1, 5)
)
OTHER: tuple[tuple[Key, Key], ...] = tuple(((p, i), ((p + 1) % 3, i)) for p, i in ALL)


def shades(pairs: Pairs) -> list[tuple[int, int]]:
    """The shades of the pictures of each pair."""
    means = pairs.images.float().mean((1, 2, 3)).round().int()
    both = zip(means[pairs.first].tolist(), means[pairs.second].tolist(), strict=True)
    return list(both)


def check(pairs: Pairs, expected: Sequence[tuple[Key, Key]], tolerance: int = 1) -> None:
    """JPEG may change a shade by one; shades are five apart."""
    wanted = [(grey(a), grey(b)) for a, b in expected]
    np.testing.assert_allclose(shades(pairs), wanted, atol=tolerance)
    assert pairs.same.tolist() == [a[0] == b[0] for a, b in expected]
    assert len(pairs.images) == len({one for pair in expected for one in pair})


def named(key: Key) -> str:
    return f"{PEOPLE[key[0]]}_{key[1]:04d}"


# LFW


def lfw_line(pair: tuple[Key, Key]) -> str:
    (p, i), (q, j) = pair
    return f"{PEOPLE[p]}\t{i}\t{j}" if p == q else f"{PEOPLE[p]}\t{i}\t{PEOPLE[q]}\t{j}"


LFW = [*SAME[:3], *OTHER[:3], *SAME[6:9], *OTHER[4:7]]  # two sets of three and three


def write_lfw(
    folder: Path, header: str = "2\t3", suffix: str = "jpg", *, flat: bool = False
) -> Path:
    for key in ALL:
        below = folder if flat else folder / PEOPLE[key[0]]
        write(below / f"{named(key)}.{suffix}", encoded(key, "JPEG" if suffix == "jpg" else "PNG"))
    lines = [*([header] if header else []), *map(lfw_line, LFW)]
    write(folder / "pairs.txt", "\n".join(lines) + "\n")
    return folder / "pairs.txt"


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_lfw(tmp_path: Path, suffix: str, flat: bool) -> None:
    pairs = load_pairs(write_lfw(tmp_path, suffix=suffix, flat=flat))
    check(pairs, LFW)
    assert pairs.folds is not None
    assert pairs.folds.tolist() == [0] * 6 + [1] * 6
    assert [pairs.people[row] for row in pairs.first] == [PEOPLE[a[0]] for a, _ in LFW]
    assert pairs.name == "pairs"


def test_lfw_without_a_header_has_no_folds_of_its_own(tmp_path: Path) -> None:
    pairs = load_pairs(write_lfw(tmp_path, header=""))
    check(pairs, LFW)
    assert pairs.folds is None


def test_lfw_of_view_1_has_one_number_in_its_header(tmp_path: Path) -> None:
    check(load_pairs(write_lfw(tmp_path, header="6")), LFW)


def test_lfw_pictures_elsewhere(tmp_path: Path) -> None:
    write_lfw(tmp_path / "pictures")
    shutil.move(tmp_path / "pictures" / "pairs.txt", tmp_path / "pairs.txt")
    check(load_pairs(tmp_path / "pairs.txt", images=tmp_path / "pictures"), LFW)


def test_a_list_that_is_cut_is_refused(tmp_path: Path) -> None:
    path = write_lfw(tmp_path)
    write(path, path.read_text().rsplit("\n", 2)[0])
    with pytest.raises(InputError, match="have 12 pairs, as its first line says, got 11"):
        load_pairs(path)
    write(path, "2\t3\n" + "Ann_Lee\t1\tx\n" * 12)
    with pytest.raises(InputError, match=r"line 2 of .*Name i j"):
        load_pairs(path)


# CALFW and CPLFW


def write_calfw(folder: Path, pictures: Path, folds: Callable[[int], int]) -> Path:
    for key in ALL:
        write(pictures / f"{named(key)}.jpg", encoded(key))
    lines = [
        f"{named(one)}.jpg {folds(place) if pair[0][0] == pair[1][0] else 0}"
        for place, pair in enumerate([*SAME, *OTHER])
        for one in pair
    ]
    write(folder / "pairs_CALFW.txt", "\n".join(lines))
    return folder / "pairs_CALFW.txt"


@pytest.mark.parametrize("below", ["", "aligned images"])
def test_calfw(tmp_path: Path, below: str) -> None:
    pairs = load_pairs(write_calfw(tmp_path, tmp_path / below, lambda place: 1 + place // 3))
    check(pairs, [*SAME, *OTHER])
    assert pairs.folds is not None
    assert pairs.folds.tolist()[:18] == [place // 3 for place in range(18)]
    assert pairs.folds.tolist()[18:] == [place // 2 for place in range(12)]  # 12 over 6 folds
    assert "shared out" in " ".join(pairs.notes)
    assert set(pairs.people) == set(PEOPLE)


def test_a_list_by_kind_without_folds_shares_out_both_kinds(tmp_path: Path) -> None:
    pairs = load_pairs(write_calfw(tmp_path, tmp_path, lambda _: 1))
    assert pairs.folds is not None
    for kind, n_fewest in ((pairs.same, 1), (~pairs.same, 1)):
        counts = pairs.folds[kind].bincount(minlength=10)
        assert n_fewest <= int(counts.min()) <= int(counts.max()) == 2
        assert pairs.folds[kind].tolist() == sorted(pairs.folds[kind].tolist())
    assert "sorted by kind" in " ".join(pairs.notes)


def test_calfw_lines_that_are_no_pair_are_refused(tmp_path: Path) -> None:
    path = write_calfw(tmp_path, tmp_path, lambda place: 1 + place // 3)
    lines = path.read_text().splitlines()
    write(path, "\n".join(lines[:-1]))
    with pytest.raises(InputError, match="two lines for each pair"):
        load_pairs(path)
    write(path, "\n".join([*lines[:2], *lines[3:], lines[2]]))
    with pytest.raises(InputError, match=r"line \d+ of .*the number of the line before"):
        load_pairs(path)


# CFP


def write_cfp(folder: Path) -> None:
    for key in ALL:
        write(folder / cfp_file(key, "frontal"), encoded(key))
        write(folder / cfp_file(key, "profile"), encoded(key))
        # The points of a face have the name of their picture.
        write(folder / f"Data/Fiducials/{key[0] + 1:03d}/frontal/{key[1]:02d}.txt", "1,2")
    for letter, view in (("F", "frontal"), ("P", "profile")):
        lines = [f"{1 + n} ../{cfp_file(key, view)}" for n, key in enumerate(numbered(letter))]
        write(folder / f"Protocol/Pair_list_{letter}.txt", "\n".join(lines))
    for kind, second in (("FP", "P"), ("FF", "F")):
        for fold in range(3):
            for name, pairs in (("same", SAME[6 * fold : 6 * fold + 6]), ("diff", OTHER[fold::3])):
                lines = [
                    f"{1 + numbered('F').index(a)},{1 + numbered(second).index(b)}"
                    for a, b in pairs
                ]
                write(folder / f"Protocol/Split/{kind}/{fold + 1:02d}/{name}.txt", "\n".join(lines))


def cfp_file(key: Key, view: str) -> str:
    return f"Data/Images/{key[0] + 1:03d}/{view}/{key[1]:02d}.jpg"


def numbered(letter: str) -> tuple[Key, ...]:
    return ALL if letter == "F" else ALL[::-1]


CFP = [pair for fold in range(3) for pair in (*SAME[6 * fold : 6 * fold + 6], *OTHER[fold::3])]


@pytest.mark.parametrize("source", ["", "Protocol", "Protocol/Split/FP", "Protocol/Split/FF"])
def test_cfp(tmp_path: Path, source: str) -> None:
    write_cfp(tmp_path)
    pairs = load_pairs(tmp_path / source)
    wanted = [(grey(a), grey(b)) for a, b in CFP]
    np.testing.assert_allclose(shades(pairs), wanted, atol=1)
    assert pairs.same.tolist() == [a[0] == b[0] for a, b in CFP]
    assert pairs.folds is not None
    assert pairs.folds.tolist() == [fold for fold in range(3) for _ in range(10)]
    assert set(pairs.people) == {"001", "002", "003"}
    is_ff = source.endswith("FF")
    assert pairs.name == ("cfp-ff" if is_ff else "cfp-fp")
    # The same view may be both first and second; frontal and profile pictures are two pictures.
    assert len(pairs.images) == (12 if is_ff else 24)


def test_a_number_that_cfp_does_not_list_is_refused(tmp_path: Path) -> None:
    write_cfp(tmp_path)
    write(tmp_path / "Protocol/Split/FP/02/same.txt", "1,2\n13,1\n")
    with pytest.raises(InputError, match=r"line 2 of .*two numbers of pictures"):
        load_pairs(tmp_path)
    with pytest.raises(InputError, match="the folder of CFP"):
        load_pairs(tmp_path / "Data")


# AgeDB-30 and tables


@pytest.mark.parametrize("different", ["-1", "0"])
def test_agedb(tmp_path: Path, different: str) -> None:
    expected = [*SAME, *OTHER]
    lines = []
    for place, (a, b) in enumerate(expected):
        names = [f"{2 * place + side:05d}.jpg" for side in (1, 2)]
        for name, key in zip(names, (a, b), strict=True):
            write(tmp_path / "agedb" / name, encoded(key))
        lines.append(f"{names[0]} {names[1]} {'1' if a[0] == b[0] else different}")
    write(tmp_path / "agedb_30_pair.txt", "\n".join(lines))
    pairs = load_pairs(tmp_path / "agedb_30_pair.txt", images=tmp_path / "agedb")
    assert pairs.same.tolist() == [a[0] == b[0] for a, b in expected]
    np.testing.assert_allclose(shades(pairs), [(grey(a), grey(b)) for a, b in expected], atol=1)
    assert pairs.people == ()


def write_parquet(path: Path, keys: Sequence[Key], names: Sequence[str] | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [{"bytes": encoded(key), "path": f"{named(key)}.jpg"} for key in keys]
    people = names or [PEOPLE[p] for p, _ in keys]
    pq.write_table(pa.table({"image": images, "label": [p for p, _ in keys], "name": people}), path)


def write_rows(path: Path, columns: str = "row_a,row_b,same,fold") -> None:
    rows = [
        f"{ALL.index(a)},{ALL.index(b)},{int(a[0] == b[0])},{3 + place % 2}"
        for place, (a, b) in enumerate(SAME + OTHER)
    ]
    n_columns = columns.count(",") + 1
    lines = [",".join(row.split(",")[:n_columns]) for row in rows]
    write(path, "\n".join([columns, *lines]))


def test_rows_of_a_parquet_file(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train-00000-of-00001.parquet", ALL[:2])
    write_parquet(tmp_path / "test-00000-of-00002.parquet", ALL[:5])
    write_parquet(tmp_path / "test-00001-of-00002.parquet", ALL[5:])
    write_rows(tmp_path / "test_pairs.csv")
    pairs = load_pairs(tmp_path / "test_pairs.csv")  # of the split that its name begins with
    check(pairs, SAME + OTHER)
    assert pairs.folds is not None
    assert pairs.folds.tolist() == [place % 2 for place in range(30)]
    assert set(pairs.people) == set(PEOPLE)
    write_rows(tmp_path / "orl.csv")
    with pytest.raises(InputError, match="with the splits"):
        load_pairs(tmp_path / "orl.csv")
    (tmp_path / "more").mkdir()
    write_parquet(tmp_path / "more" / "faces.parquet", ALL)
    for place in (tmp_path / "more", tmp_path / "more" / "faces.parquet"):
        check(load_pairs(tmp_path / "orl.csv", images=place), SAME + OTHER)


def test_names_that_contradict_the_list_are_not_taken(tmp_path: Path) -> None:
    write_parquet(tmp_path / "test.parquet", ALL, ["Ann_Lee"] * 12)
    write_rows(tmp_path / "test_pairs.csv", "row_a,row_b,same")
    pairs = load_pairs(tmp_path / "test_pairs.csv")
    assert pairs.people == ()
    assert "contradict 12 of the 30 pairs" in " ".join(pairs.notes)


def test_a_short_name_of_several_pictures_names_none_of_them(tmp_path: Path) -> None:
    keys = [(0, 1), (0, 2), (1, 1), (1, 2)]
    images = [{"bytes": encoded(key), "path": f"{PEOPLE[key[0]]}/{key[1]}.jpg"} for key in keys]
    pq.write_table(pa.table({"image": images}), tmp_path / "faces.parquet")
    write(tmp_path / "pairs.csv", "path_a,path_b,same\n1.jpg,2.jpg,1\n")
    with pytest.raises(InputError, match=r"2 of 2 missing, which 1 of 1 pairs need \(1\.jpg"):
        load_pairs(tmp_path / "pairs.csv", images=tmp_path / "faces.parquet")
    lines = ["path_a,path_b,same"]
    for a, b in ((keys[0], keys[1]), (keys[0], keys[2])):
        first, second = (f"{PEOPLE[p]}/{i}.jpg" for p, i in (a, b))
        lines.append(f"{first},{second},{int(a[0] == b[0])}")
    write(tmp_path / "pairs.csv", "\n".join(lines))
    pairs = load_pairs(tmp_path / "pairs.csv", images=tmp_path / "faces.parquet")
    check(pairs, [(keys[0], keys[1]), (keys[0], keys[2])])


def test_lfw_with_the_pictures_in_parquet(tmp_path: Path) -> None:
    path = write_lfw(tmp_path)
    write_parquet(tmp_path / "parquet" / "train-0.parquet", ALL[::2])
    write_parquet(tmp_path / "parquet" / "test-0.parquet", ALL[1::2])
    check(load_pairs(path, images=tmp_path / "parquet"), LFW)


def test_paths_of_a_folder(tmp_path: Path) -> None:
    lines = ["same,path_b,path_a"]
    for key in ALL:
        write(tmp_path / "p" / PEOPLE[key[0]] / f"{key[1]}.png", encoded(key, "PNG"))
    for a, b in SAME + OTHER:
        first, second = (f"{PEOPLE[p]}/{i}.png" for p, i in (a, b))
        lines.append(f"{a[0] == b[0]},{second},{first}")
    write(tmp_path / "p" / "pairs.csv", "\n".join(lines))
    pairs = load_pairs(tmp_path / "p" / "pairs.csv")
    check(pairs, SAME + OTHER, tolerance=0)
    assert pairs.people == ()
    write(tmp_path / "out.png", encoded((0, 1)))
    write(tmp_path / "p" / "pairs.csv", "path_a,path_b,same\n../out.png,Bob/1.png,0\n")
    with pytest.raises(InputError, match="lies elsewhere"):
        load_pairs(tmp_path / "p" / "pairs.csv")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("row_a,row_b,same\n0,1\n", "line 2 .* have 3 cells"),
        ("row_a,row_b,same\n0,1,2\n", "have 1 or 0 for same"),
        ("row_a,row_b,same\n0,-1,1\n", "whole numbers"),
        ("row_a,row_b,same,fold\n0,1,1,x\n", "whole numbers"),
        ("row_a,same\n0,1\n", "columns row_a, row_b"),
        ("row_a,row_b,same,same\n0,1,1,1\n", "columns row_a, row_b"),
        ("row_a,row_b,same\n", "pair in each line"),
        ('row_a,row_b,same\n"0,1,1\n', "CSV"),
        ("row_a,row_b,same\n0,99,1\n", r"1 of 2 missing, which 1 of 1 pairs need \(99"),
        ("row_a,row_b,same,fold\n0,1,1,4\n1,2,1,4\n", "folds of the list must be two or more"),
        ("", "hold pairs"),
        ("one two three four five", "be a list of pairs"),
        ("a.jpg b.jpg 7", "1, 0 or -1"),
        ("a.jpg b", "a number"),
    ],
)
def test_tables_that_are_none_are_refused(tmp_path: Path, text: str, words: str) -> None:
    write_parquet(tmp_path / "test.parquet", ALL)
    write(tmp_path / "pairs.csv", text)
    with pytest.raises(InputError, match=words):
        load_pairs(tmp_path / "pairs.csv")


def test_other_files_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "list.txt", b"\xff\xfe\x00\x01")
    with pytest.raises(InputError, match="be text"):
        load_pairs(tmp_path / "list.txt")
    with pytest.raises(InputError, match="PAIRS must be"):
        load_pairs(tmp_path / "nothing.txt")
    write_rows(tmp_path / "pairs.csv")
    with pytest.raises(InputError, match="Parquet"):
        load_pairs(tmp_path / "pairs.csv")  # rows, and no table
    with pytest.raises(InputError, match="Parquet"):
        load_pairs(tmp_path / "pairs.csv", images=tmp_path / "none")


def test_missing_pictures_are_counted_and_none_is_left_out(tmp_path: Path) -> None:
    path = write_lfw(tmp_path)
    (tmp_path / "Ann_Lee" / "Ann_Lee_0001.jpg").unlink()
    n_pairs = sum((0, 1) in pair for pair in LFW)
    words = rf"1 of 11 missing, which {n_pairs} of 12 pairs need \(Ann_Lee_0001 is the first\)"
    with pytest.raises(InputError, match=words):
        load_pairs(path)


def test_pictures_become_what_a_network_takes(tmp_path: Path) -> None:
    pairs = load_pairs(write_lfw(tmp_path), image_size=(6, 8), channels=3)
    assert pairs.images.shape == (11, 3, 6, 8)
    assert torch.equal(pairs.images[:, 0], pairs.images[:, 2])
    check(pairs, LFW)
