"""Folders as people have them: which files are a split, which a question, which are left out."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from keeprate.data.sources import load_data
from keeprate.errors import InputError
from tests.sources import pa, pixels, pq, write_csv, write_images

HEADER = ["a", "label"]


def rows(n: int = 4, start: float = 0.0) -> list[list[object]]:
    return [[start + i + 0.5, ["no", "yes"][i % 2]] for i in range(n)]


def write_all(folder: Path, names: dict[str, int]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, n in names.items():
        write_csv(folder / name, HEADER, rows(n))
    return folder


@pytest.mark.parametrize(
    ("names", "sizes"),
    [
        ({"train.csv": 4, "test.csv": 2}, {"train": 4, "test": 2}),
        ({"Train.csv": 4, "VAL.csv": 2, "Test.csv": 3}, {"train": 4, "validation": 2, "test": 3}),
        ({"train-0.csv": 4, "train-1.csv": 2, "dev.csv": 2}, {"train": 6, "validation": 2}),
        ({"train1.csv": 4, "train2.csv": 2}, {"train": 6}),
        ({"train-00000-of-00002.csv": 4, "train-00001-of-00002.csv": 4}, {"train": 8}),
        ({"part-0.csv": 4, "part-1.csv": 2}, {"train": 6}),
        ({"training.csv": 4, "testing.csv": 2}, {"train": 4, "test": 2}),
    ],
)
def test_files_are_splits_and_parts(
    names: dict[str, int], sizes: dict[str, int], tmp_path: Path
) -> None:
    loaded = load_data(write_all(tmp_path / "t", names))
    assert {name: len(split) for name, split in loaded.splits.items()} == sizes


@pytest.mark.parametrize(
    "names",
    [
        ["train.csv", "train_old.csv"],
        ["train.csv", "train-1.csv"],
        ["test.csv", "train.csv", "train_backup.csv"],
        ["train.csv", "test.csv", "test_2019-final.csv"],
    ],
)
def test_two_files_that_may_be_one_split_are_a_question(names: list[str], tmp_path: Path) -> None:
    folder = write_all(tmp_path / "t", dict.fromkeys(names, 4))
    with pytest.raises(
        InputError, match=r"all begin with \w+, and it is not clear which"
    ) as caught:
        load_data(folder)
    assert names[-1] in str(caught.value)
    assert "give one file, number the parts" in str(caught.value)


def test_what_is_left_out_is_named(tmp_path: Path) -> None:
    folder = write_all(tmp_path / "t", {"train.csv": 4, "extra.csv": 3, ".hidden.csv": 1})
    (folder / "readme.txt").write_text("about these data")
    loaded = load_data(folder)
    assert len(loaded.splits["train"]) == 4
    assert loaded.notes == ("left out beside the tables: extra.csv",)


def test_parquet_goes_before_text(tmp_path: Path) -> None:
    folder = write_all(tmp_path / "t", {"train.csv": 4})
    pq.write_table(pa.table({"a": [0.5, 1.5], "label": [0, 1]}), folder / "train.parquet")
    loaded = load_data(folder)
    assert len(loaded.splits["train"]) == 2
    assert loaded.notes == ("left out beside the tables: train.csv",)


def test_packed_and_tabbed_tables(tmp_path: Path) -> None:
    text = "a\tlabel\n" + "".join(f"{a}\t{label}\n" for a, label in rows())
    (tmp_path / "train.tsv.gz").write_bytes(gzip.compress(text.encode()))
    for source in (tmp_path, tmp_path / "train.tsv.gz"):
        loaded = load_data(source)
        assert loaded.splits["train"].inputs[:, 0].tolist() == [0.5, 1.5, 2.5, 3.5]
    assert load_data(tmp_path / "train.tsv.gz").name == "train"


def test_an_unlabelled_test_file_is_left_out(tmp_path: Path) -> None:
    folder = write_all(tmp_path / "kaggle", {"train.csv": 4})
    write_csv(folder / "test.csv", ["a"], [[1.5], [2.5]])
    loaded = load_data(folder)
    assert list(loaded.splits) == ["train"]
    assert "keeprate predict takes it" in loaded.notes[0]


@pytest.mark.parametrize("suffix", ["", ".png"])
@pytest.mark.parametrize("column", ["id", "file name"])
def test_a_table_beside_the_images_that_it_lists(suffix: str, column: str, tmp_path: Path) -> None:
    x = pixels(4)
    write_images(tmp_path, {"images": x})
    listed = [[f"{i}{suffix}", ["cat", "dog"][i % 2]] for i in (2, 0, 3, 1)]
    if suffix == "":
        listed = [[f"00{name}", label] for name, label in listed]
        for path in (tmp_path / "images").iterdir():
            path.rename(path.with_name(f"00{path.name}"))
    write_csv(tmp_path / "train.csv", [column, "label"], listed)
    for source in (tmp_path, tmp_path / "train.csv"):
        loaded = load_data(source)
        train = loaded.splits["train"]
        np.testing.assert_array_equal(train.inputs[:, 0], x[[2, 0, 3, 1]])
        assert [loaded.class_names[i] for i in train.labels] == ["cat", "cat", "dog", "dog"]


def test_a_table_beside_classes_that_it_does_not_list_is_a_question(tmp_path: Path) -> None:
    write_images(tmp_path, {"ant": pixels(2), "bee": pixels(2)})
    write_csv(tmp_path / "metadata.csv", ["camera", "label"], [["x", 0], ["y", 1]])
    message = r"holds tables \(metadata.csv\) and folders of images \(ant, bee\).*give the table"
    with pytest.raises(InputError, match=message):
        load_data(tmp_path)


def test_messages_about_wide_tables_stay_short(tmp_path: Path) -> None:
    names = [f"pixel{i}" for i in range(3_000)]
    path = write_csv(tmp_path / "wide.csv", names, [[i] * 3_000 for i in range(3)])
    for options in ({}, {"label": "kind"}, {"label": "pixel1", "inputs": ["x"] * 3_000}):
        with pytest.raises(InputError) as caught:
            load_data(path, **options)
        assert len(str(caught.value)) < 1_000
        assert "more" in str(caught.value)
