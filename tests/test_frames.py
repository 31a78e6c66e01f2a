"""Label issues as a DataFrame, and decisions on the labels of one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import keeprate
from keeprate.errors import InputError
from keeprate.records import Decision, LabelQuality, apply, label_issues
from tests.report_records import make_quality
from tests.test_decisions import make_run, write_csv_source

pd = pytest.importorskip("pandas")
pa = pytest.importorskip("pyarrow")
NAMES = ("ape", "bee", "cat")


class FakeRun:
    """What `label_issues` asks of a run."""

    def __init__(self, quality: LabelQuality, names: tuple[str, ...]) -> None:
        self.label_quality = quality
        data = type("Data", (), {"class_names": names})
        self.record = type("Record", (), {"data": data})


def test_the_columns_are_those_of_cleanlab() -> None:
    cleanlab = pytest.importorskip("cleanlab.classification", reason="needs cleanlab")
    linear = pytest.importorskip("sklearn.linear_model")
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(3 * k, 1, (30, 2)) for k in range(3)])
    labels = np.repeat([0, 1, 2], 30)
    alone = {"n_jobs": 1}  # a fork of a process with threads may hang
    learner = cleanlab.CleanLearning(linear.LogisticRegression(), find_label_issues_kwargs=alone)
    theirs = learner.find_label_issues(X, labels)
    ours = label_issues(labels, np.eye(3)[labels] * 0.85 + 0.05)
    for name in ("is_label_issue", "label_quality", "given_label", "predicted_label"):
        assert ours[name].dtype.kind == theirs[name].dtype.kind
    assert list(ours.index) == list(theirs.index)


def test_a_run_and_its_folder_say_the_same(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", write_csv_source(tmp_path / "a.csv"))
    found = label_issues(run)
    assert list(found.index) == list(range(9))
    assert list(found["given_label"]) == [NAMES[i % 3] for i in range(9)]
    assert found["is_label_issue"].all() and (found["label_quality"] == 0.1).all()
    assert found["suggested_label"].isna().all()
    quality = make_quality(3)
    found = label_issues(FakeRun(quality, NAMES))
    in_order = quality.sorted()
    assert np.array_equal(found.index, in_order.rows) and list(found.index) != list(quality.rows)
    assert np.array_equal(found["is_label_issue"], in_order.is_issue)
    suggested = found["suggested_label"].dropna()
    assert np.array_equal(suggested, np.array(NAMES)[in_order.suggested[in_order.suggested >= 0]])


def test_a_mask_is_as_long_as_the_data() -> None:
    quality = make_quality(3)
    mask = quality.mask(1000)
    assert mask.shape == (1000,) and mask.dtype == bool
    assert set(np.flatnonzero(mask)) == set(quality.rows[quality.is_issue].tolist())
    with pytest.raises(InputError, match="n_rows"):
        quality.mask(int(quality.rows.max()))


@pytest.mark.parametrize("source", [5, {"a": 1}, [0, 1]])
def test_what_has_judged_nothing(source: Any) -> None:
    with pytest.raises(InputError, match="source must be a Run"):
        label_issues(source)


DECIDED = [
    Decision(0, "ape", "change", "cat"),
    Decision(1, "bee", "drop", ""),
    Decision(2, "cat", "keep", "cat"),
    Decision(4, "bee", "change", "ape"),
]


def frames() -> dict[str, Any]:
    labels = [NAMES[i % 3] for i in range(6)]
    columns = {"size": [0.5, None, 2.5, 3.5, 4.5, 5.5], "label": labels, "id": list("uvwxyz")}
    plain = pd.DataFrame(columns, index=[9, 8, 7, 7, 5, 4])
    found = {
        "pandas": plain,
        "categorical": plain.assign(label=pd.Categorical(labels, NAMES[::-1], ordered=True)),
        "arrow": pa.table(columns),
    }
    try:
        import polars
    except ImportError:
        return found
    return found | {"polars": polars.DataFrame(columns)}


@pytest.mark.parametrize("kind", frames())
def test_decisions_on_a_frame(kind: str) -> None:
    frame = frames()[kind]
    before = frame.copy() if hasattr(frame, "iloc") else frame
    found = keeprate.apply(frame, DECIDED)
    assert type(found) is type(frame)
    rows = found.to_dict("records") if hasattr(found, "iloc") else None
    rows = rows or (found.to_dicts() if hasattr(found, "to_dicts") else found.to_pylist())
    assert [row["label"] for row in rows] == ["cat", "cat", "ape", "ape", "cat"]
    assert [row["id"] for row in rows] == ["u", "w", "x", "y", "z"]
    if hasattr(frame, "iloc"):
        assert frame.equals(before) and found.dtypes.equals(frame.dtypes)
        assert list(found.index) == [9, 7, 7, 5, 4]
    else:
        assert found.schema == frame.schema


def test_numbers_stay_numbers() -> None:
    frame = pd.DataFrame({"x": range(4), "y": np.array([1, 2, 1, 2], np.int8)})
    found = apply(frame, [Decision(0, "1", "change", "2"), Decision(3, "2", "drop", "")])
    assert found["y"].dtype == np.int8 and found["y"].tolist() == [2, 2, 1]
    with pytest.raises(InputError, match="label of column y"):
        apply(frame, [Decision(0, "1", "change", "3")])
    with pytest.raises(InputError, match="be 'ape' as in the run, got '1'"):  # no code of a class
        apply(frame, [Decision(0, "ape", "change", "bee")])


def test_decisions_from_a_file_or_a_frame(tmp_path: Path) -> None:
    header = "index,given_label,decision,label\n"
    (tmp_path / "d.csv").write_text(header + "0,ape,change,cat\n1,bee,drop,\n")
    frame = frames()["pandas"]
    found = apply(frame, tmp_path / "d.csv")
    assert found["label"].tolist() == ["cat", "cat", "ape", "bee", "cat"]
    decided = pd.read_csv(tmp_path / "d.csv")
    assert apply(frame, decided).equals(found)
    with pytest.raises(InputError, match="none called decision"):
        apply(frame, decided.drop(columns="decision"))


@pytest.mark.parametrize(
    ("decisions", "label", "words"),
    [
        ([Decision(0, "bee", "keep", "bee")], None, "the label of row 0 in the DataFrame"),
        ([Decision(6, "ape", "drop", "")], None, "has 6 rows"),
        ([Decision(0, "ape", "change", "dgo")], None, "check its spelling"),
        ([DECIDED[0], DECIDED[0]], None, "2 on row 0"),
        ([], None, "hold decisions"),
        (5, None, "hold decisions"),
        ([{"index": 0}], None, "hold decisions"),
        (DECIDED, "kind", "be a column of the DataFrame"),
    ],
)
def test_decisions_that_do_not_fit(decisions: Any, label: str | None, words: str) -> None:
    with pytest.raises(InputError, match=words):
        apply(frames()["pandas"], decisions, label=label)


def test_no_frame_and_no_label_column() -> None:
    with pytest.raises(InputError, match="be a DataFrame"):
        apply(np.eye(3), DECIDED)
    with pytest.raises(InputError, match="be one column"):
        apply(frames()["pandas"].assign(target=1), DECIDED)
    with pytest.raises(InputError, match="be a file"):
        apply(frames()["pandas"], "nowhere.csv")
