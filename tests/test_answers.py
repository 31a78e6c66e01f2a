"""What used to be a traceback is an answer: arguments that people give by mistake or habit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from torch import nn

import keeprate
from keeprate.engine import TrainingConfig
from keeprate.errors import InputError
from keeprate.searching.study import find_study
from tests.sources import write_csv

pd = pytest.importorskip("pandas")
RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 3)).astype(np.float32)
Y = (X[:, 0] > 0).astype(int)
CONFIG = TrainingConfig(epochs=2, batch_size=8)


@pytest.fixture(scope="module")
def arrays() -> keeprate.Data:
    return keeprate.prepare((X, Y))


class TwoInputs(nn.Module):
    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return left + right


class NeedsMore(nn.Module):
    def __init__(self, width: int, depth: int, dropout: float) -> None:
        super().__init__()


def with_batch_norm(input_shape: tuple[int, ...], n_classes: int) -> nn.Module:
    return nn.Sequential(nn.Linear(input_shape[0], 4), nn.BatchNorm1d(4), nn.Linear(4, n_classes))


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (nn.Linear(3, 2), r"model must be a function that builds a network, .*a Linear itself"),
        (lambda *_: TwoInputs(), r"model must take one batch .*missing 1 required positional"),
        (NeedsMore, r"model must be a function \(input_shape, n_classes\)"),
        (lambda *_: nn.Linear(3, 5), "one column per class"),
    ],
)
def test_networks_that_cannot_be_trained(arrays: keeprate.Data, model: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        keeprate.train(arrays, model=model, config=CONFIG)
    with pytest.raises(InputError, match=words):
        keeprate.NoisyLabelClassifier(model, schedule="constant", epochs=1).fit(X, Y)


def test_a_class_of_networks_is_a_function_too(arrays: keeprate.Data) -> None:
    class Net(nn.Sequential):
        def __init__(self, input_shape: tuple[int, ...], n_classes: int) -> None:
            super().__init__(nn.Linear(input_shape[0], n_classes))

    run = keeprate.train(arrays, model=Net, config=CONFIG, schedule="constant")
    assert isinstance(run.classifier.modules[0], Net)


def test_batch_norm_needs_two_samples(arrays: keeprate.Data) -> None:
    with pytest.raises(InputError, match="batch_size must be at least 2 for a network with batch"):
        keeprate.train(arrays, model=with_batch_norm, config=TrainingConfig(epochs=1, batch_size=1))


def test_few_samples_are_one_batch_unless_a_size_was_chosen(arrays: keeprate.Data) -> None:
    n = len(arrays.train)
    run = keeprate.train(arrays, schedule="constant", config=TrainingConfig(epochs=1))
    assert run.record.config["training"]["batch_size"] == n < TrainingConfig.batch_size
    with pytest.raises(InputError, match=f"batch_size must be at most .*{n}"):
        keeprate.train(arrays, config=TrainingConfig(epochs=1, batch_size=n + 1))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"sampler": optuna.samplers.RandomSampler()}, r"search_config=SearchConfig\(sampler="),
        ({"trials": 2}, "trials was replaced: write budget='40trials'"),
        ({"n_trials": 2}, "n_trials was replaced: write budget="),
    ],
)
def test_arguments_of_other_searches(arrays: keeprate.Data, arguments: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        keeprate.search(arrays, **arguments)
    with pytest.raises(TypeError, match="unexpected keyword argument 'trails'"):
        keeprate.search(arrays, trails=2)


@pytest.mark.parametrize("seed", [np.int64(3), np.uint8(3)])
def test_seeds_of_numpy(seed: Any) -> None:
    rows = keeprate.prepare((X, Y), seed=seed).train.rows
    assert torch.equal(rows, keeprate.prepare((X, Y), seed=3).train.rows)


def test_labels_and_probabilities_of_other_kinds() -> None:
    p = torch.full((2, 2), 0.5, requires_grad=True)
    assert len(keeprate.find_label_issues(torch.tensor([0, 1]), p).scores) == 2
    assert len(keeprate.find_label_issues(np.array([[0], [1]]), p).scores) == 2
    with pytest.raises(InputError, match=r"labels must be integers, \[N\], got rows of unequal"):
        keeprate.find_label_issues([[0], [0, 1]], p)


def test_data_sets_that_stream() -> None:
    datasets = pytest.importorskip("datasets")
    stream = datasets.Dataset.from_dict({"a": [0.5, 1.5], "label": [0, 1]}).to_iterable_dataset()
    with pytest.raises(InputError, match=r"have a length, got IterableDataset; .*streaming=True"):
        keeprate.prepare(stream)
    with pytest.raises(InputError, match=r"got IterableDataset"):
        keeprate.prepare({"train": stream})


FRAME = pd.DataFrame(X, columns=["a", "b", "c"])


@pytest.mark.parametrize(
    "source",
    [
        FRAME.assign(label=Y),
        FRAME.assign(label=Y.astype(bool)),
        FRAME.assign(label=pd.array(Y, "Int64")),
        FRAME.assign(label=pd.Categorical.from_codes(Y, ["no", "yes"])),
        (FRAME, Y),
        (FRAME.assign(flag=X[:, 1] > 0), Y),
        (FRAME.assign(count=pd.array(Y + 3, "Int32")), pd.Series(Y)),
        (FRAME, Y, Y),
        {"train": FRAME.assign(label=Y), "test": FRAME.assign(label=Y)},
        {"train": (FRAME, Y), "test": (FRAME, Y)},
    ],
    ids=lambda source: type(source).__name__,
)
def test_data_frames_as_they_are(source: Any) -> None:
    data = keeprate.prepare(source)
    assert data.n_classes == 2
    assert data.input_columns[:3] == ("a", "b", "c")
    assert sum(data.class_counts) == len(data.train)
    if isinstance(source, tuple):  # nothing that is given as an input is left out
        assert set(data.input_columns) == {str(name) for name in source[0].columns}


def test_data_frames_of_other_libraries() -> None:
    polars = pytest.importorskip("polars")
    colours = [["red", "blue"][i % 3 == 0] for i in range(60)]
    frame = FRAME.assign(colour=colours, label=Y)
    expected = keeprate.prepare(frame)
    for other in (polars.from_pandas(frame), polars.from_pandas(frame).to_arrow()):
        data = keeprate.prepare(other)
        assert data.input_kinds == expected.input_kinds
        assert torch.equal(data.train.inputs, expected.train.inputs)
        assert torch.equal(data.train.labels, expected.train.labels)
    run = keeprate.train(expected, config=CONFIG, schedule="constant")
    np.testing.assert_array_equal(
        run.classifier.predict_proba(polars.from_pandas(frame)),
        run.classifier.predict_proba(frame),
    )


def test_a_data_frame_with_two_columns_of_one_name() -> None:
    twice = pd.DataFrame(X, columns=["a", "a", "b"])
    with pytest.raises(InputError, match="columns must have different names"):
        keeprate.prepare((twice, Y))


def test_the_classifier_takes_a_mixed_data_frame(tmp_path: Path) -> None:
    words = np.array(["red", "blue"])[Y]
    frame = FRAME.assign(colour=words, note=[f"the {w} car went home" for w in words])
    frame.loc[::7, "a"] = np.nan
    kept = frame.copy()
    classifier = keeprate.NoisyLabelClassifier(
        schedule="constant", epochs=20, batch_size=8, learning_rate=0.01, random_state=0
    ).fit(frame, Y)
    assert classifier.score(frame, Y) > 0.95
    pd.testing.assert_frame_equal(frame, kept)  # nothing is written into the user's data
    classifier.save(tmp_path / "saved")
    again = keeprate.NoisyLabelClassifier.load(tmp_path / "saved")
    np.testing.assert_array_equal(again.predict_proba(frame), classifier.predict_proba(frame))
    one = classifier.predict_proba(frame.iloc[[5]])
    np.testing.assert_allclose(one, classifier.predict_proba(frame)[[5]], atol=1e-6)
    with pytest.raises(ValueError, match="feature names"):
        classifier.predict(frame[["colour", "a", "b", "c", "note"]])


def test_times_that_float32_cannot_hold_apart() -> None:
    late = np.random.default_rng(0).integers(0, 2, 120)
    times = 1_700_000_000 + 60 * late
    assert len(np.unique(times.astype(np.float32))) == 1
    for inputs in (
        times[:, None],
        times[:, None].astype(np.float64),
        pd.DataFrame({"time": times}),
    ):
        classifier = keeprate.NoisyLabelClassifier(
            schedule="constant", epochs=20, batch_size=16, learning_rate=0.01, random_state=0
        ).fit(inputs, late)
        assert classifier.score(inputs, late) == 1.0


@pytest.mark.parametrize("name", ["lr?a", "50%", "a#b", "två ord", "a&b=c", "%41"])
def test_a_run_folder_of_any_name_holds_its_study(
    name: str, arrays: keeprate.Data, tmp_path: Path, no_page: None
) -> None:
    folder = tmp_path / name
    run = keeprate.search(
        arrays, budget="2trials", baselines=False, restarts=1, config=CONFIG, out=folder
    )
    assert (folder / "study.db").is_file()
    assert [path.name for path in tmp_path.iterdir()] == [name]
    study = find_study(folder)
    assert study is not None
    values = [trial.value for trial in study.trials]
    assert values == [trial.value for trial in run.record.trials]


def test_integers_stay_integers_for_a_network_that_looks_them_up(tmp_path: Path) -> None:
    tokens = np.random.default_rng(0).integers(0, 50, (200, 6))
    labels = (tokens[:, 0] > 24).astype(int)

    class Bag(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.last = nn.Embedding(50, 8), nn.Linear(8, 2)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.last(self.table(ids)[:, 0])

    data = keeprate.prepare((tokens, labels), normalise="none")
    assert data.train.inputs.dtype == torch.int64
    config = TrainingConfig(epochs=30, batch_size=8, learning_rate=0.05)
    run = keeprate.train(
        data, model=lambda: Bag(), config=config, schedule="constant", out=tmp_path
    )
    loaded = keeprate.load(tmp_path, model=lambda: Bag())
    assert (loaded.predict(tokens) == labels.astype(str)).mean() > 0.9
    np.testing.assert_array_equal(
        loaded.predict_proba(tokens), run.classifier.predict_proba(tokens)
    )


def test_the_record_says_what_was_read(tmp_path: Path, no_page: None) -> None:
    rows = [[i, i * 37 % 91, ["x", "y"][i % 3 == 0], ["no", "yes"][i % 2]] for i in range(40)]
    path = write_csv(tmp_path / "t.csv", ["", "size", "shape", "label"], rows)
    run = keeprate.train(keeprate.prepare(path), config=CONFIG, out=tmp_path / "run")
    described = run.record.data
    assert described.inputs == {"size": "number", "shape": "category of 2"}
    assert described.left_out == {"": "an index or a key of the rows"}
    assert sum(described.class_counts) == described.n_train
