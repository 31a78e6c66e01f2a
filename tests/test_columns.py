"""Which columns of a table are inputs, and what they hold."""

from __future__ import annotations

import datetime as dt
import time
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keeprate import InputError, load_data, prepare
from keeprate.data.columns import Columns, choose_columns
from keeprate.data.raw import RequestedColumns
from keeprate.data.tables import Table
from tests.sources import LABELS, pixels, write_parquet

pa = pytest.importorskip("pyarrow")
pd = pytest.importorskip("pandas")

N = 40
NUMBERS = np.random.default_rng(0).normal(size=N).tolist()
Y = ["a", "b"] * (N // 2)
# fmt: off
KEYS = [
    "", "Unnamed: 0", "unnamed: 1", "__index_level_0__", "index", "id", "ID", "Id", "row_id",
    "customer_id", "customerId", "customerID", "Customer ID", "annotation_id", "_id", "uuid",
    "annotator", "Annotator", "annotator_name", "labeler", "created_at", "updated_at",
    "annotation_id_hash", "lead_time",
]
NO_KEYS = [
    "paid", "covid", "Paid", "COVID", "PAID", "valid", "humid", "idea", "width", "grid",
    "time", "keyboard", "rowing", "amid", "bid", "age", "username_length", "midday", "arid",
    "Id4",
]
# fmt: on


def chosen(table: dict[str, Any], /, **requested: Any) -> Columns:
    asked = {"inputs": None, "label": None, "true_label": None} | requested
    kinds = asked.pop("columns", None)
    request = RequestedColumns.of(
        asked["inputs"], asked["label"], asked["true_label"], columns=kinds
    )
    return choose_columns(Table(pa.table(table), {}, "table"), request)


def kind_of(name: str, values: Any, **requested: Any) -> str | None:
    """What a column beside a number and a label is taken for; None: it is left out."""
    columns = chosen({name: values, "x": NUMBERS, "y": Y}, **requested)
    return dict(zip(columns.inputs, columns.kinds, strict=True)).get(name)


@pytest.mark.parametrize(
    "name",
    KEYS,
)
def test_names_of_indices_and_people_are_left_out(name: str) -> None:
    values = np.random.default_rng(1).integers(0, 9, N)
    assert kind_of(name, values) is None
    assert name in chosen({name: values, "x": NUMBERS, "y": Y}).left_out


@pytest.mark.parametrize(
    "name",
    NO_KEYS,
)
def test_names_that_only_look_so_are_inputs(name: str) -> None:
    words = ["yes", "no", "no", "later"] * (N // 4)
    assert kind_of(name, words) == "category"
    assert kind_of(name, NUMBERS[::-1]) == "number"


def test_a_column_that_counts_the_rows_is_left_out() -> None:
    columns = chosen({"nr": range(3, N + 3), "x": NUMBERS, "y": Y})
    assert columns.inputs == ("x",) and columns.left_out == {"nr": "counts the rows"}
    assert kind_of("nr", range(3, N + 3), inputs=["x", "nr"]) == "number"


def test_unique_words_name_the_rows() -> None:
    ids = [str(uuid.UUID(int=i * 2**90 + 12345)) for i in range(N)]
    assert kind_of("token", ids) is None
    assert kind_of("token", [f"Customer{i}" for i in range(N)]) is None
    assert kind_of("token", ids, inputs=["x", "token"]) == "text"


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([True, False, None, True] * 10, "number"),
        ([dt.date(2026, 1, 1 + i % 28) for i in range(N)], "date"),
        ([f"2026-01-{1 + i % 28:02}" for i in range(N)], "date"),
        (["", *(f"2026-01-{1 + i % 28:02}" for i in range(N - 1))], "date"),
        ([*[None] * 30, *(f"2026-01-{1 + i % 28:02}" for i in range(N - 30))], "date"),
        ([f"2026-01-{1 + i % 28:02}T10:00:{i:02}Z" for i in range(N)], "date"),
        ([f"2026-01-{1 + i % 28:02} 10:00:{i:02}+02:00" for i in range(N)], "date"),
        ([f"2026-01-{1 + i % 28:02} 10:00:{i:02}.123456789" for i in range(N)], "date"),
        ([*(f"2026-01-{1 + i % 28:02}" for i in range(N - 1)), "2026-13-45"], "category"),
        (pa.array(["u", "v", "v", "u"] * 10).dictionary_encode(), "category"),
        (pa.array(["u", "v", "v", "u"] * 10, pa.string_view()), "category"),
        (pa.array(["u", "v", "v", "u"] * 10, pa.large_string()), "category"),
        (pa.array([f"word {i} of text" for i in range(N)], pa.string_view()), "text"),
        ([dt.timedelta(seconds=i * i) for i in range(N)], "number"),
        ([dt.time(i % 24) for i in range(N)], "number"),
        (pa.nulls(N), None),
        (pa.array([None] * N, pa.string()), None),
        ([[1.0]] * N, None),
        ([{"a": 1}] * N, None),
    ],
)
def test_kinds_of_values(values: Any, kind: str | None) -> None:
    columns = {"c": values, "x": NUMBERS, "y": Y}
    if isinstance(values, list) and isinstance(values[0], list):
        assert chosen(columns).inputs == ("c",)  # lists are an input of their own
    else:
        assert kind_of("c", values) == kind


def test_the_user_overrides_kinds() -> None:
    columns = {"code": [1, 2] * (N // 2), "id": ["u", "v"] * (N // 2), "x": NUMBERS, "y": Y}
    kinds = {"code": "category", "x": "ignore", "id": "category"}
    found = chosen(columns, columns=kinds)
    assert dict(zip(found.inputs, found.kinds, strict=True)) == {
        "code": "category",
        "id": "category",
    }
    assert found.left_out == {"x": "to be ignored"}
    assert chosen(columns, inputs=["id"]).kinds == ("category",)


@pytest.mark.parametrize("label", ["label", "labels", "target", "class", "Label"])
def test_other_labels_among_the_inputs_are_refused(label: str) -> None:
    columns = {"x": NUMBERS, label: Y, "y": Y}
    for requested in ({}, {"label": "y"}, {"label": label}):
        with pytest.raises(InputError):
            chosen(columns, **requested)
    assert chosen(columns, label="y", inputs=["x"]).inputs == ("x",)
    with pytest.raises(InputError, match="hold no label"):
        chosen({"x": NUMBERS, "y": Y}, label="y", inputs=["x", "y"])


def test_messages_of_wide_tables_are_short() -> None:
    names = [f"{'a long name of a column ' * 4}{i}" for i in range(300)]
    wide = {name: NUMBERS for name in names}
    requests: list[tuple[dict[str, Any], dict[str, Any]]] = [
        (wide, {}),
        (wide | {"y": Y}, {"label": "nothing"}),
        (wide | {"y": Y}, {"label": names[0], "inputs": names}),
        (wide | {f"y{i}": Y for i in range(3)}, {}),
        ({name: pa.nulls(N) for name in names} | {"y": Y}, {}),
    ]
    for columns, requested in requests:
        with pytest.raises(InputError) as caught:
            chosen(columns, **requested)
        assert len(str(caught.value)) < 1000
    data = prepare(pd.DataFrame(wide | {"y": Y}))
    with pytest.raises(InputError) as caught:
        data.encoder.encode_table(pa.table({f"other {name}": [1.0] for name in names}), "file")
    assert len(str(caught.value)) < 1000


def test_numbers_are_no_dates() -> None:
    table = pd.DataFrame({"year": [2024, 2025] * (N // 2), "y": Y})
    with pytest.raises(InputError, match=r"column year .* hold dates"):
        load_data(table, columns={"year": "date"})


def test_the_training_split_decides_whatever_comes_first(tmp_path: Path) -> None:
    times = 1.7e9 + 60.0 * np.random.default_rng(0).permutation(N)
    train = pd.DataFrame({"t": times, "y": Y})
    test = pd.DataFrame({"t": [5.0] * N, "y": Y})
    for splits in ({"train": train, "test": test}, {"test": test, "train": train}):
        loaded = load_data(splits)
        assert loaded.coded_columns[0].centre == times.mean()
        assert len(loaded.splits["train"].inputs.unique()) == N
    for name, size in (("test", 6), ("train", 4)):
        write_parquet(tmp_path / f"{name}.parquet", pixels(shape=(size, size)), {"label": LABELS})
    assert load_data(tmp_path).splits["test"].inputs.shape[2:] == (4, 4)


def test_intervals_of_pandas_are_left_out() -> None:
    table = pd.DataFrame({"x": NUMBERS, "bin": pd.cut(NUMBERS, 4), "y": Y})
    loaded = load_data(table)
    assert loaded.input_columns == ("x",) and "interval" in loaded.left_out["bin"]


def test_the_index_of_a_saved_data_frame_is_left_out(tmp_path: Path) -> None:
    table = pd.DataFrame({"x": NUMBERS, "y": Y})
    table.index = pd.Index(np.random.default_rng(0).integers(0, 99, N))
    table.to_parquet(tmp_path / "a.parquet")
    loaded = load_data(tmp_path / "a.parquet")
    assert loaded.input_columns == ("x",) and list(loaded.left_out) == ["__index_level_0__"]


# What gives the label away, or says nothing of the sample ---------------------------------------


def left_out(frame: pd.DataFrame, **options: Any) -> dict[str, str]:
    return load_data(frame, **options).left_out


@pytest.mark.parametrize(
    "name",
    ["label_text", "given_label", "TrueLabel", "true label", "goldAnswer", "y_target", "majority"],
)
def test_columns_called_like_a_label_are_left_out_unless_named(name: str) -> None:
    frame = pd.DataFrame({"x": NUMBERS, name: NUMBERS, "label": Y})
    assert left_out(frame) == {name: "called like a label"}
    assert load_data(frame, inputs=["x", name], label="label").input_columns == ("x", name)


def test_a_column_that_says_the_same_as_the_label_is_left_out() -> None:
    y = np.arange(60) % 3
    for twin in (
        y + 7,
        np.array(["cat", "dog", "ant"])[y],
        pd.Categorical.from_codes(y, list("abc")),
    ):
        frame = pd.DataFrame({"x": np.random.default_rng(0).normal(size=60), "kind": twin, "y": y})
        assert left_out(frame) == {"kind": "says the same as the label"}
    almost = y.copy()
    almost[0] = 1
    frame["kind"] = almost
    assert left_out(frame) == {}


@pytest.mark.parametrize(
    "values", [np.arange(40), np.arange(40)[::-1] * 3, np.arange(40) + 5.0, np.arange(40) - 90]
)
def test_columns_that_count_the_rows_are_left_out(values: np.ndarray) -> None:
    y = np.arange(40) % 2
    frame = pd.DataFrame({"x": np.sin(np.arange(40)), "n": values, "y": y})
    assert left_out(frame) == {"n": "counts the rows"}
    frame["n"] = np.r_[values[:39], 77]
    assert left_out(frame) == {}


def test_ids_that_float64_cannot_tell_apart_are_left_out() -> None:
    big = (2**63 + np.arange(40, dtype=np.uint64) * np.uint64(7)) % np.uint64(2**63 - 25)
    frame = pd.DataFrame({"x": np.sin(np.arange(40)), "hash": big, "y": np.arange(40) % 2})
    frame["hash"] += 2**60
    assert left_out(frame) == {"hash": "whole numbers too large to be told apart"}


def test_folds_are_left_out_and_splits_are_a_question() -> None:
    y = np.arange(40) % 2
    frame = pd.DataFrame({"x": np.sin(np.arange(40)), "fold": np.arange(40) % 5, "y": y})
    assert left_out(frame) == {"fold": "says in which fold the row is"}
    frame["part"] = np.where(np.arange(40) < 30, "train", "Test")
    with pytest.raises(InputError, match=r"column part of the train split says which split each"):
        load_data(frame)
    assert left_out(frame, columns={"part": "ignore"})["part"] == "to be ignored"


def test_words_among_numbers_are_a_question() -> None:
    cells = [f"{i / 7:.2f}" for i in range(40)]
    frame = pd.DataFrame({"x": np.sin(np.arange(40)), "size": cells, "y": np.arange(40) % 2})
    assert load_data(frame, columns={"size": "number"}).input_columns == ("x", "size")
    frame.loc[5, "size"] = "missing"
    message = r"column size of the train split must hold numbers only, .*98% of the cells and 'miss"
    with pytest.raises(InputError, match=message):
        load_data(frame)
    assert load_data(frame, columns={"size": "ignore"}).input_columns == ("x",)


def test_votes_are_no_inputs() -> None:
    frame = pd.DataFrame({"x": NUMBERS, "a1": Y, "a2": Y})
    for options in ({"inputs": ["x", "a1"]}, {"columns": {"a1": "category"}}):
        with pytest.raises(InputError, match="inputs must hold no label"):
            load_data(frame, votes=["a1", "a2"], **options)


def test_true_labels_of_some_rows_are_a_question() -> None:
    frame = pd.DataFrame({"x": NUMBERS, "label": Y, "true_label": [*Y[:3], *[None] * (len(Y) - 3)]})
    message = rf"true labels .* be there for all rows that have a label, got missing .* of {len(Y)}"
    with pytest.raises(InputError, match=message):
        load_data(frame)
    assert len(load_data(frame, columns={"true_label": "ignore"}).splits["train"]) == len(Y)


@pytest.mark.slow
def test_the_time_of_a_table_is_linear_in_its_columns(tmp_path: Path) -> None:
    def seconds(n_columns: int) -> float:
        """Processor time, the least of two: four times the columns must not take sixteen times."""
        path = tmp_path / "t.csv"
        cells = np.random.default_rng(0).normal(size=(20, n_columns)).round(3)
        rows = [f"{','.join(map(str, row))},{i % 2}" for i, row in enumerate(cells)]
        names = ",".join(f"column{i}" for i in range(n_columns))
        path.write_text("\n".join([f"{names},label", *rows, ""]))
        taken = []
        for _ in range(2):
            began = time.process_time()
            assert prepare(path).input_shape == (n_columns,)
            taken.append(time.process_time() - began)
        return min(taken)

    seconds(50)  # what is imported late
    assert seconds(8000) < 9 * seconds(2000)
