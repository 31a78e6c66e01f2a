"""Columns of tables -> features: nothing about a file but its values may matter."""

from __future__ import annotations

import datetime as dt
import decimal
import gzip
import importlib.util
import json
import random
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import keeprate
from keeprate import InputError, TrainingConfig, prepare
from keeprate.data.features import Encoder, InputColumn, code_table
from keeprate.data.texts import TextFeatures
from keeprate.runs.classifier import Classifier
from keeprate.runs.predictions import predict_files

pd = pytest.importorskip("pandas")
pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

CONFIG = TrainingConfig(epochs=2, batch_size=16)
WORDS = ("good", "poor", "fast", "slow", "service", "delivery", "price", "really", "never", "again")


def frame(n: int = 60, seed: int = 0) -> Any:
    """Customers: numbers, a code, a word, a truth, a date, a moment, a text; some cells blank."""
    rng = np.random.default_rng(seed)
    age = rng.integers(18, 90, n)
    plan = rng.choice(["basic", "plüs", "pro"], n)
    text = [" ".join(rng.choice(WORDS, 6)) for _ in range(n)]
    table = pd.DataFrame(
        {
            "age": age,
            "income": rng.normal(3e4, 1e4, n).round(2),
            "plan": plan,
            "zip": rng.choice(["1010", "2020", "3030"], n),
            "member": rng.choice([True, False], n),
            "since": pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 700, n), "D"),
            "seen": pd.Timestamp("2026-03-01") + pd.to_timedelta(rng.integers(0, 9**5, n), "s"),
            "text": text,
            "y": np.where((age > 50) ^ (plan == "pro"), "yes", "no"),
        }
    )
    table["since"] = table["since"].dt.strftime("%Y-%m-%d")
    table["seen"] = table["seen"].dt.strftime("%Y-%m-%d %H:%M:%S")
    table.loc[rng.choice(n, 5, replace=False), "income"] = np.nan
    table.loc[rng.choice(n, 5, replace=False), "plan"] = None
    return table


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("features") / "run"
    with pytest.MonkeyPatch.context() as patch:
        from tests.searches import draw_no_page

        draw_no_page(patch)
        data = prepare(frame(), label="y", columns={"zip": "category"})
        keeprate.train(data, schedule="constant", config=CONFIG, out=folder)
    return folder


@pytest.fixture(scope="module")
def classifier(run_folder: Path) -> Classifier:
    return keeprate.load(run_folder)


@pytest.fixture(scope="module")
def new() -> Any:
    return frame(24, seed=1)


@pytest.fixture(scope="module")
def expected(classifier: Classifier, new: Any) -> np.ndarray:
    probabilities = classifier.predict_proba(new)
    assert len(np.unique(probabilities[:, 0])) == len(new)  # any difference would show
    return probabilities


def predicted(run: Path, sources: list[Path], out: Path) -> tuple[np.ndarray, Any, Any]:
    told = predict_files(run, [str(s) for s in sources], out, with_probabilities=True)
    written = pd.read_csv(out)
    return written[["p(no)", "p(yes)"]].to_numpy(), written, told


# Sources say the same in many ways --------------------------------------------------------------


def write_csv(table: Any, path: Path, **options: Any) -> Path:
    table.to_csv(path, **({"index": False} | options))
    return path


def write_json(table: Any, path: Path) -> Path:
    rows = json.loads(table.to_json(orient="records"))
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def write_arrow_strings(table: Any, path: Path) -> Path:
    """Parquet with every cell a string."""
    columns = {
        n: pa.array([None if v != v or v is None else str(v) for v in table[n]]) for n in table
    }
    pq.write_table(pa.table(columns), path)
    return path


def write_gz(table: Any, path: Path) -> Path:
    path.write_bytes(gzip.compress(table.to_csv(index=False).encode()))
    return path


WAYS: dict[str, Callable[[Any, Path], Path]] = {
    "csv": lambda t, p: write_csv(t, p / "a.csv"),
    "semicolons, latin 1": lambda t, p: write_csv(t, p / "a.csv", sep=";", encoding="cp1252"),
    "decimal commas": lambda t, p: write_csv(t, p / "a.csv", sep=";", decimal=","),
    "tabs, UTF-16": lambda t, p: write_csv(t, p / "a.tsv", sep="\t", encoding="utf-16"),
    "bars, mark": lambda t, p: write_csv(t, p / "a.csv", sep="|", encoding="utf-8-sig"),
    "gz": lambda t, p: write_gz(t, p / "a.csv.gz"),
    "index column": lambda t, p: write_csv(t, p / "a.csv", index=True),
    "parquet": lambda t, p: (t.to_parquet(p / "a.parquet"), p / "a.parquet")[1],
    "parquet with an index": lambda t, p: (
        t.set_index(pd.Index(range(5, 5 + len(t)), name="nr")).to_parquet(p / "a.parquet"),
        p / "a.parquet",
    )[1],
    "json lines": lambda t, p: write_json(t, p / "a.jsonl"),
    "strings": lambda t, p: write_arrow_strings(t, p / "a.parquet"),
    "NA": lambda t, p: write_csv(t, p / "a.csv", na_rep="NA"),
}


@pytest.mark.parametrize("way", WAYS)
def test_files_predict_what_the_data_frame_does(
    way: str, run_folder: Path, new: Any, expected: np.ndarray, tmp_path: Path
) -> None:
    found, written, told = predicted(run_folder, [WAYS[way](new, tmp_path)], tmp_path / "out.csv")
    np.testing.assert_allclose(found, expected, atol=2e-6)
    np.testing.assert_allclose(found.sum(1), 1, atol=2e-6)
    assert (written["predicted_label"] == np.array(["no", "yes"])[expected.argmax(1)]).all()
    right = int((written["predicted_label"] == new["y"].to_numpy()).sum())
    assert (told.n_rows, told.n_scored, told.n_right) == (24, 24, right)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rng=st.randoms(use_true_random=False),
    extra=st.sets(st.sampled_from(["id", "Unnamed: 0", "more"])),
)
def test_order_and_other_columns_do_not_matter(
    rng: random.Random,
    extra: set[str],
    run_folder: Path,
    classifier: Classifier,
    new: Any,
    expected: np.ndarray,
    tmp_path: Path,
) -> None:
    table = new.assign(**{name: range(len(new)) for name in sorted(extra)})
    names = list(table)
    rng.shuffle(names)
    rows = list(range(len(new)))
    rng.shuffle(rows)
    table = table[names].iloc[rows]
    # A product of another number of rows may round otherwise.
    np.testing.assert_allclose(classifier.predict_proba(table), expected[rows], atol=1e-6)
    cut = rng.randint(1, len(new) - 1)
    parts = [write_csv(table[:cut], tmp_path / "1.csv"), write_csv(table[cut:], tmp_path / "2.csv")]
    found, written, _ = predicted(run_folder, parts, tmp_path / "out.csv")
    np.testing.assert_allclose(found, expected[rows], atol=2e-6)
    if extra - {"more"}:
        key = next(name for name in names if name in extra - {"more"})
        assert written[key].tolist() == rows
    swapped, _, _ = predicted(run_folder, parts[::-1], tmp_path / "out.csv")
    order = rows[cut:] + rows[:cut]
    np.testing.assert_allclose(swapped, expected[order], atol=2e-6)


def test_one_row_alone_is_predicted_as_among_others(
    classifier: Classifier, new: Any, expected: np.ndarray
) -> None:
    for row in range(4):
        alone = classifier.predict_proba(new.iloc[[row]])
        np.testing.assert_allclose(alone, expected[[row]], atol=1e-6)


def test_rows_that_are_alike_are_not_centred_anew() -> None:
    """Two years in a row have a mean that their deviation is small against."""
    years = np.tile(np.arange(1900, 2030), 2)
    table = pd.DataFrame({"year": years, "y": years > 1980})
    run = keeprate.train(prepare(table, label="y"), schedule="constant", config=CONFIG)
    both = pd.DataFrame({"year": [2019, 2020, 1905]})
    expected = run.classifier.predict_proba(both)[:2]
    found = run.classifier.predict_proba(both[:2])
    np.testing.assert_allclose(found, expected, atol=1e-6)


NOTATIONS: dict[str, Callable[[Any], Any]] = {
    "nullable types": lambda t: t.convert_dtypes(),
    "objects": lambda t: t.astype(object).where(t.notna(), None),
    "categories": lambda t: t.astype({"plan": "category", "zip": "category", "text": "category"}),
    "numbers as categories": lambda t: t.astype({"age": "category", "member": "category"}),
    "codes as integers": lambda t: t.assign(zip=t["zip"].astype(int)),
    "codes as floats": lambda t: t.assign(zip=t["zip"].astype(float)),
    "codes with a point": lambda t: t.assign(zip=t["zip"] + ".0"),
    "integers as floats": lambda t: t.assign(age=t["age"].astype(float)),
    "integers as strings": lambda t: t.assign(age=" " + t["age"].astype(str) + " "),
    "truths as strings": lambda t: t.assign(member=t["member"].astype(str).str.upper()),
    "truths as numbers": lambda t: t.assign(member=t["member"].astype(int)),
    "dates": lambda t: t.assign(since=pd.to_datetime(t["since"]).dt.date),
    "nanoseconds": lambda t: t.assign(
        seen=pd.to_datetime(t["seen"]).astype("datetime64[ns]") + pd.Timedelta(1, "ns")
    ),
    "zones": lambda t: t.assign(seen=pd.to_datetime(t["seen"]).dt.tz_localize("UTC")),
    "zones as strings": lambda t: t.assign(seen=t["seen"].str.replace(" ", "T") + "Z"),
    "other zones": lambda t: t.assign(
        seen=pd.to_datetime(t["seen"]).dt.tz_localize("UTC").dt.tz_convert("Asia/Tokyo")
    ),
    "decimals": lambda t: t.assign(
        income=[None if v != v else decimal.Decimal(str(v)) for v in t["income"]]
    ),
    "empty strings": lambda t: t.assign(
        plan=t["plan"].fillna(""), income=t["income"].astype(str).replace("nan", "")
    ),
}


@pytest.mark.parametrize("notation", NOTATIONS)
def test_types_of_a_data_frame_do_not_matter(
    notation: str, classifier: Classifier, new: Any, expected: np.ndarray
) -> None:
    found = classifier.predict_proba(NOTATIONS[notation](new))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_polars_frames_are_predicted(
    classifier: Classifier, new: Any, expected: np.ndarray
) -> None:
    polars = pytest.importorskip("polars")
    table = polars.DataFrame(json.loads(new.to_json(orient="records")))
    np.testing.assert_allclose(classifier.predict_proba(table), expected, atol=1e-6)


def test_hugging_face_data_sets_are_predicted(
    classifier: Classifier, new: Any, expected: np.ndarray
) -> None:
    datasets = pytest.importorskip("datasets")
    table = datasets.Dataset.from_pandas(new)
    np.testing.assert_allclose(classifier.predict_proba(table), expected, atol=1e-6)
    with pytest.raises(InputError, match="one split"):
        classifier.predict(datasets.DatasetDict({"train": table, "test": table}))


def test_categories_that_all_are_new_are_told(run_folder: Path, new: Any, tmp_path: Path) -> None:
    table = new.assign(plan=new["plan"].str.upper(), zip="0" + new["zip"])
    _, _, told = predicted(run_folder, [write_csv(table, tmp_path / "a.csv")], tmp_path / "out.csv")
    assert told.notes[-1] == "columns without any value of the training: plan, zip"
    _, _, told = predicted(run_folder, [write_csv(new, tmp_path / "a.csv")], tmp_path / "out.csv")
    assert not told.notes


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.drop(columns="age"), "none called age"),
        (lambda t: t.rename(columns={"age": "Age"}), "none called age; there are Age"),
        (lambda t: t.assign(since=2026), "hold dates"),
        (lambda t: t.assign(since=2026.5), "hold dates"),
        (lambda t: t.assign(age=pd.Timestamp("2026-01-01")), "hold numbers"),
        (lambda t: t.assign(age="old"), "hold numbers"),
        (lambda t: t.assign(age=np.inf), "finite"),
        (lambda t: t.assign(plan=[[1]] * len(t)), "hold words"),
        (lambda t: t.to_numpy(), "give a DataFrame"),
        (lambda t: np.zeros((3, 8)), "give a DataFrame"),
        (lambda t: np.zeros((3, 2)), "give a DataFrame"),
    ],
)
def test_other_columns_are_refused(
    change: Callable[[Any], Any], words: str, classifier: Classifier, new: Any
) -> None:
    with pytest.raises(InputError, match=words) as caught:
        classifier.predict(change(new))
    assert len(str(caught.value)) < 1000


# What is fitted ---------------------------------------------------------------------------------


def fitted(values: Any, kind: str, n_train: int | None = None) -> tuple[Encoder, torch.Tensor]:
    """The encoder of the first rows, and the features of all."""
    table = pa.table({"x": values})
    coded, columns = code_table({"": table}, [InputColumn("x", kind)], {"": "table"})  # type: ignore[arg-type]
    codes = torch.from_numpy(coded[""])
    encoder = Encoder.fit(codes[:n_train], columns)
    return encoder, encoder.encode(codes, columns)


CELLS = {
    "number": st.floats(-(2.0**100), 2.0**100) | st.integers(-(2**53), 2**53).map(float),
    "category": st.text() | st.sampled_from(["5", "5.0", "True", "true", " a", "a "]),
    "date": st.datetimes(dt.datetime(1700, 1, 1), dt.datetime(2200, 1, 1)),
    "text": st.text() | st.lists(st.sampled_from(WORDS), min_size=3).map(" ".join),
}


@settings(max_examples=60)
@given(data=st.data(), kind=st.sampled_from(sorted(CELLS)))
def test_any_cells_give_features_of_their_own(data: st.DataObject, kind: str) -> None:
    cells = data.draw(st.lists(st.none() | CELLS[kind], min_size=2, max_size=30))
    n_train = data.draw(st.integers(1, len(cells)))
    kinds = {"number": pa.float64(), "date": pa.timestamp("us")}
    values = pa.array(cells, kinds.get(kind, pa.string()))
    encoder, features = fitted(values, kind, n_train)
    assert features.shape == (len(cells), len(encoder.feature_names))
    assert features.isfinite().all() and len(encoder.is_scaled) == features.shape[1]
    described, tensors = encoder.to_parts()
    restored = Encoder.from_parts(json.loads(json.dumps(described)), tensors)
    order = data.draw(st.permutations(range(len(cells))))
    again = restored.encode_table(pa.table({"x": values}).take(list(order)), "table")
    assert torch.equal(again, features[list(order)])


def test_blanks_have_a_mark_and_the_mean() -> None:
    encoder, features = fitted([1.0, None, 3.0, float("nan")], "number")
    assert encoder.feature_names == ("x", "x, blank")
    assert features.tolist() == [[1, 0], [2, 1], [3, 0], [2, 1]]


def test_blanks_that_come_later_are_the_mean() -> None:
    encoder, features = fitted([1.0, 3.0, None], "number", 2)
    assert encoder.feature_names == ("x",) and features[2].tolist() == [2]


def test_rare_and_new_categories_share_a_mark() -> None:
    encoder, features = fitted([*"aabbc", "new", None], "category", 5)
    assert encoder.feature_names == ("x = a", "x = b", "x, rare")
    assert features[4:].tolist() == [[0, 0, 1], [0, 0, 1], [0, 0, 0]]


def test_new_categories_without_rare_ones_have_no_mark() -> None:
    encoder, features = fitted([*"aabb", "new"], "category", 4)
    assert encoder.feature_names == ("x = a", "x = b") and features[4].tolist() == [0, 0]


def test_truths_with_blanks() -> None:
    _, features = fitted([True, False, None, True], "number")
    assert features[:, 1].tolist() == [0, 0, 1, 0] and features[:2, 0].tolist() == [1, 0]


def test_unix_times_stay_apart() -> None:
    times = [1_700_000_000 + 60 * i for i in range(30)]
    _, features = fitted(times, "number")
    assert np.diff(features[:, 0].numpy()).tolist() == [60] * 29


def test_moments_of_one_day_stay_apart() -> None:
    start = dt.datetime(2026, 3, 1, 12, 0, 0)
    moments = [start + dt.timedelta(seconds=10 * i) for i in range(30)]
    encoder, features = fitted(moments, "date")
    assert len(features[:, 0].unique()) == 30
    hour = features[:, encoder.feature_names.index("x, sine of the day")]
    angles = 2 * np.pi * (0.5 + np.arange(30) / 8640)
    np.testing.assert_allclose(hour.numpy(), np.sin(angles), atol=1e-5)
    week = features[:, encoder.feature_names.index("x, sine of the week")]
    days = (dt.date(2026, 3, 1) - dt.date(1970, 1, 1)).days + 0.5
    assert abs(float(week[0]) - np.sin(2 * np.pi * days / 7)) < 1e-5


def test_times_are_seconds_in_any_unit() -> None:
    seconds = [3600, 7200, None]
    kinds = (pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.duration("s"), pa.duration("ns"))
    for kind in kinds:
        factor = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[kind.unit]
        integers = pa.array([None if v is None else v * factor for v in seconds])
        if kind.bit_width == 32:
            integers = integers.cast("int32")
        _, features = fitted(integers.cast(kind), "number")
        assert features[:2, 0].tolist() == [3600, 7200], kind


def test_decimals_are_numbers() -> None:
    values = pa.array([decimal.Decimal("1.25"), None, decimal.Decimal("3.75")], pa.decimal128(9, 2))
    _, features = fitted(values, "number")
    assert features[:, 0].tolist() == [1.25, 2.5, 3.75]


@pytest.mark.parametrize("kind", ["number", "category", "date", "text"])
def test_a_column_of_blanks_gives_numbers(kind: str) -> None:
    for values in (pa.nulls(4), pa.array([None] * 4, pa.string()), pa.array([""] * 4)):
        encoder, features = fitted(values, kind)
        assert features.isfinite().all() and features.shape == (4, len(encoder.feature_names))
        assert "the same value" in encoder.notes[0]


def test_constant_columns_are_told() -> None:
    data = prepare(frame().assign(same=5, word="all"), label="y")
    note = next(note for note in data.notes if "the same value" in note)
    assert "same, word" in note and len(note) < 1000


@pytest.mark.parametrize("text", ["", "x", "the same words", "long " * 10_000])
def test_a_constant_text_is_no_large_number(text: str) -> None:
    _, features = fitted([text] * 20, "text")
    assert features.abs().max() < 1e-3


def test_texts_that_differ_little_stay_small() -> None:
    _, features = fitted([f"order {i % 7} was sent on time" for i in range(50)], "text")
    assert features.mean(0).abs().max() < 1e-3
    assert abs(float(features.var(0).mean()) - 1) < 0.1


def test_very_long_and_new_texts() -> None:
    texts = [*(" ".join(WORDS[i % 5 :]) for i in range(20)), "good " * 200_000, "不明", None]
    _, features = fitted(texts, "text", 20)
    assert features.isfinite().all() and features.abs().max() < 100


def test_held_out_rows_do_not_matter() -> None:
    table = frame(100)
    first = prepare(table, label="y", columns={"zip": "category"})
    held_out = np.concatenate([first.validation.rows.numpy(), first.test.rows.numpy()])
    changed = table.copy()
    changed.loc[held_out, "age"] = 1000
    changed.loc[held_out, "income"] = np.nan
    changed.loc[held_out, "plan"] = [f"other {i}" for i in range(len(held_out))]
    changed.loc[held_out, "zip"] = "9999"
    changed.loc[held_out, "since"] = "1999-01-01"
    changed.loc[held_out, "text"] = "words that nobody knows at all, really never again"
    second = prepare(changed, label="y", columns={"zip": "category"})
    assert first.train.rows.equal(second.train.rows)
    (described, tensors), (other, others) = first.encoder.to_parts(), second.encoder.to_parts()
    assert described == other
    assert all(torch.equal(tensors[name], others[name]) for name in tensors | others)
    assert torch.equal(first.train.inputs, second.train.inputs)
    assert first.normaliser() == second.normaliser()


def test_held_out_rows_do_not_choose_among_equal_categories() -> None:
    names = [f"c{i:02}" for i in range(60)]
    codes, kept = [], []
    for held_out in ([], names[::-1]):
        columns = [InputColumn("x", "category", values=tuple(dict.fromkeys([*held_out, *names])))]
        place = {value: i for i, value in enumerate(columns[0].values)}
        codes = torch.tensor([[float(place[name])] for name in names * 3])
        kept.append(Encoder.fit(codes, columns).columns[0].categories)
    assert kept[0] == kept[1] and len(kept[0]) == 50


def test_a_saved_run_has_the_same_encoder(run_folder: Path, classifier: Classifier) -> None:
    data = prepare(frame(), label="y", columns={"zip": "category"})
    (described, tensors), (other, others) = data.encoder.to_parts(), classifier.encoder.to_parts()
    assert json.loads(json.dumps(described)) == json.loads(json.dumps(other))
    assert tensors.keys() == others.keys()
    for name, tensor in tensors.items():
        assert tensor.dtype == others[name].dtype and torch.equal(tensor, others[name])


def test_arrays_with_centres_take_tables_by_place(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    times = 1.7e9 + 60.0 * rng.integers(0, 100, 80)
    x = np.stack([times, rng.normal(size=80)], 1)
    run = keeprate.train(prepare((x, times > times.mean())), schedule="constant", config=CONFIG)
    expected = run.classifier.predict_proba(x[:2])
    table = pd.DataFrame(x[:2], columns=["t", "u"])
    with pytest.warns(UserWarning, match="columns t, u are taken for those of the training by"):
        of_table = run.classifier.predict_proba(table)
    np.testing.assert_allclose(of_table, expected, atol=1e-6)
    np.testing.assert_allclose(run.classifier.predict_proba(x[:1]), expected[:1], atol=1e-6)
    for wrong in (np.full((1, 2), np.inf), x[0]):
        with pytest.raises(InputError):
            run.classifier.predict(wrong)


# Text models ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def text_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of word embeddings, from the weights that a package ships."""
    sentence_transformers = pytest.importorskip("sentence_transformers")
    pytest.importorskip("wordllama")
    from safetensors.torch import load_file
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer

    package = Path(importlib.util.find_spec("wordllama").origin).parent
    weights = load_file(package / "weights" / "l2_supercat_256.safetensors")["embedding.weight"]
    tokenizer = package / "tokenizers" / "l2_supercat_tokenizer_config.json"
    embedding = StaticEmbedding(
        Tokenizer.from_file(str(tokenizer)), embedding_weights=weights[:, :32].float().numpy()
    )
    folder = tmp_path_factory.mktemp("text") / "model"
    sentence_transformers.SentenceTransformer(modules=[embedding], device="cpu").save(str(folder))
    return folder


@pytest.fixture(scope="module")
def opinions() -> Any:
    rng = np.random.default_rng(0)
    good = rng.random(80) < 0.5
    words = {True: ["great", "lovely", "superb", "fine"], False: ["awful", "sad", "broken", "bad"]}
    texts = [
        f"film {i} was {rng.choice(words[bool(g)])} and {rng.choice(words[bool(g)])}"
        for i, g in enumerate(good)
    ]
    return pd.DataFrame({"text": texts, "y": np.where(good, "good", "bad")})


def test_a_text_model_is_saved_by_its_folder(
    text_model: Path, opinions: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_page: None
) -> None:
    monkeypatch.chdir(text_model.parent)
    data = prepare(opinions, label="y", text_model="model")
    assert data.input_shape == (32,) and all(data.encoder.is_scaled)
    run = keeprate.train(data, schedule="constant", config=CONFIG, out=tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    loaded = keeprate.load(tmp_path / "run")
    new = pd.DataFrame({"text": ["a dreadful film", "a wonderful film", "", None]})
    found = loaded.predict_proba(new)
    assert np.array_equal(found, run.classifier.predict_proba(new))
    assert np.array_equal(found[2], found[3]) and not np.array_equal(found[0], found[1])


def test_another_model_in_the_same_folder_is_found_out(
    text_model: Path, opinions: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(text_model, folder)
    features = TextFeatures.fit(list(opinions["text"]), model=str(folder))
    before = features.encode(["a film"])
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    save_file({name: -tensor for name, tensor in weights.items()}, folder / "model.safetensors")
    assert np.array_equal(features.encode(["a film"]), before)  # the model in memory
    described, tensors = features.to_parts()
    with pytest.raises(InputError, match="be the model of the training"):
        TextFeatures.from_parts(described, tensors).encode(["a film"])
    shutil.rmtree(folder)
    with pytest.raises(InputError, match="text_model must be the folder"):
        replace(features).encode(["a film"])


@pytest.mark.parametrize("name", ["no/such-model", "all-MiniLM-L6-v2", "empty"])
def test_a_text_model_that_is_not_here_is_refused(
    name: str, opinions: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("sentence_transformers")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=f"got .*{name}.*give the folder") as caught:
        prepare(opinions, label="y", text_model=name)
    assert len(str(caught.value)) < 1000


def test_a_text_model_needs_its_package(opinions: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(InputError, match=r"pip install 'keeprate\[text\]'"):
        prepare(opinions, label="y", text_model="model")
