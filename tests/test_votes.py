"""Several annotators a sample."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from keeprate.data.sources import load_data
from keeprate.data.splitting import prepare
from keeprate.errors import InputError
from keeprate.runs.judgement import with_votes
from tests.sources import write_csv

HEADER = ["a", "ann", "bob", "eve"]
ROWS = [
    [0.1, "cat", "dog", "dog"],  # the majority
    [0.2, "cat", "dog", ""],  # a tie: the earlier column
    [0.3, "", "", "dog"],
    [0.4, "", "", ""],  # nobody
    [0.5, "cat", "cat", "cat"],
]
VOTES = ["ann", "bob", "eve"]


def test_most_annotators_give_the_label(tmp_path: Path) -> None:
    loaded = load_data(write_csv(tmp_path / "t.csv", HEADER, ROWS), votes=VOTES)
    train = loaded.splits["train"]
    assert loaded.input_columns == ("a",)
    assert [loaded.class_names[i] for i in train.labels] == ["dog", "cat", "dog", "cat"]
    assert train.rows.tolist() == [0, 1, 2, 4]
    assert train.votes is not None
    assert train.votes.tolist() == [[1, 2], [1, 1], [0, 1], [3, 0]]
    # (2/3 + 1/2 + 1) / 3 of those with several annotators
    assert any(
        "3 samples have several annotators, of whom on average 72.2 %" in n for n in loaded.notes
    )


def test_votes_are_cut_with_the_samples(tmp_path: Path) -> None:
    rows = [[i / 9, *(["cat", "dog"][(i + k) % 2] for k in (0, 0, i % 3 == 0))] for i in range(60)]
    data = prepare(write_csv(tmp_path / "t.csv", HEADER, rows), votes=VOTES, seed=3)
    for split in (data.train, data.validation, data.test):
        assert split is not None and split.votes is not None
        for row, votes in zip(split.rows.tolist(), split.votes.tolist(), strict=True):
            expected = [rows[row][1:].count(name) for name in data.class_names]
            assert votes == expected


def test_annotators_who_agree_make_a_label_likelier() -> None:
    opinions = torch.tensor([[0.5, 0.5]] * 3)
    votes = torch.tensor([[3.0, 0.0], [2.0, 1.0], [1.0, 0.0]])
    judged = with_votes(opinions, votes)
    torch.testing.assert_close(judged, torch.tensor([[0.8, 0.2], [0.6, 0.4], [0.5, 0.5]]))
    assert with_votes(opinions, None) is opinions


def test_a_label_that_is_named_stays(tmp_path: Path) -> None:
    header, rows = (
        [*HEADER, "label"],
        [[*row, "dog" if i % 2 else "cat"] for i, row in enumerate(ROWS)],
    )
    loaded = load_data(write_csv(tmp_path / "t.csv", header, rows), votes=VOTES, label="label")
    train = loaded.splits["train"]
    assert loaded.input_columns == ("a",)
    assert [loaded.class_names[i] for i in train.labels] == ["cat", "dog", "cat", "dog", "cat"]
    assert train.votes is not None and train.votes[0].tolist() == [1, 2]


def test_columns_of_votes_must_be_there(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", HEADER, ROWS)
    with pytest.raises(InputError, match=r"votes must be columns of the .*got joe; it has a, ann"):
        load_data(path, votes=["ann", "joe"])
    with pytest.raises(InputError, match="votes must name columns of a table"):
        load_data((np.zeros((2, 1)), [0, 1]), votes=["ann"])
