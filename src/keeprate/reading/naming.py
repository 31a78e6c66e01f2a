"""What names stand for, told without PyTorch: splits, labels, tables, data sets on the Hub."""

from __future__ import annotations

import re
from pathlib import Path

SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""The split that each name stands for, in lower case."""
LABEL_NAMES = ("label", "labels", "target", "class", "y")
TRUE_LABEL_NAMES = ("true_label", "true_labels", "clean_label", "clean_labels")
TABLE_SUFFIXES = (".parquet", ".csv", ".tsv", ".txt", ".json", ".jsonl", ".ndjson", ".manifest")
"""Of tables; all but .parquet also with .gz behind it."""


def is_table(path: Path) -> bool:
    """Whether a file is a table, by its name.

    >>> is_table(Path("a/train.csv.gz")), is_table(Path("train.npz"))
    (True, False)
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes[-1:] == [".gz"]:
        return bool(suffixes[-2:-1]) and suffixes[-2] in TABLE_SUFFIXES[1:]
    return suffixes[-1:] != [] and suffixes[-1] in TABLE_SUFFIXES


def file_stem(path: Path) -> str:
    """A file's name without the suffixes that say what it holds.

    >>> file_stem(Path("a/train.csv.gz")), file_stem(Path("v1.2.csv"))
    ('train', 'v1.2')
    """
    return Path(path.stem).stem if path.suffix.lower() == ".gz" else path.stem


def is_hub_name(source: str) -> bool:
    """Whether a source that is no path may be the name of a data set on the Hub.

    A path in a folder that exists is a mistyped path, not a question for the Hub.

    >>> is_hub_name("owner/name"), is_hub_name("name"), is_hub_name("/no/path")
    (True, False, False)
    """
    is_name = re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", source) is not None
    return is_name and not Path(source).parent.exists()
