"""scikit-learn's own checks of `NoisyLabelClassifier`, and what they do not check."""

from __future__ import annotations

import inspect
import pickle

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits, make_blobs
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import nn

from keeprate import InputError, NoisyLabelClassifier, SearchConfig

QUICK = {"epochs": 12, "batch_size": 16, "learning_rate": 0.01, "random_state": 0}


NOT_AS_REPEATED = (
    "a sample with weight 2 is one sample in the batches and in the cut of the validation samples"
)


def expected_failures(estimator) -> dict[str, str]:
    checks = ("dense", "sparse")
    return {f"check_sample_weight_equivalence_on_{c}_data": NOT_AS_REPEATED for c in checks}


@parametrize_with_checks(
    [
        NoisyLabelClassifier(schedule="constant", **QUICK),
        NoisyLabelClassifier(budget="2trials", **QUICK),
    ],
    expected_failed_checks=expected_failures,
)
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


def blobs(n: int = 240) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inputs, true labels, labels of which every fifth is wrong."""
    X, y = make_blobs(n, centers=3, random_state=0)
    noisy = y.copy()
    noisy[::5] = (y[::5] + 1) % 3
    return X, y, noisy


@pytest.fixture(scope="module")
def fitted() -> NoisyLabelClassifier:
    X, _, noisy = blobs()
    return NoisyLabelClassifier(budget="4trials", restarts=1, **QUICK).fit(X, noisy)


def test_wrong_labels_are_survived_scored_and_corrected(fitted):
    X, y, noisy = blobs()
    assert fitted.score(X, y) > 0.9
    assert fitted.label_quality_.shape == fitted.suggested_labels_.shape == (240,)
    wrong = noisy != y
    assert fitted.label_quality_[wrong].max() < np.median(fitted.label_quality_[~wrong])
    assert (fitted.label_quality_[wrong] < 0.5).mean() > 0.7
    assert (fitted.suggested_labels_[wrong] == y[wrong]).mean() > 0.55  # else not sure
    suggested = fitted.suggested_labels_ != noisy
    assert (fitted.suggested_labels_[suggested] == y[suggested]).mean() > 0.75  # said: 0.8
    assert (fitted.suggested_labels_[~wrong] == y[~wrong]).mean() > 0.95
    low, high = fitted.noise_interval_
    assert low == 0 and 0.2 <= high < 0.45
    assert fitted.keep_rate_.shape == (12,) and fitted.keep_rate_[0] == 1
    assert len(fitted.history_["validation_accuracy"]) == 12
    assert len(fitted.study_.trials) == 4
    assert fitted.cost_["full_trainings"] == 4 + 1  # the first one is for the noise rate


def test_the_same_seed_gives_the_same_and_another_another(fitted):
    X, _, noisy = blobs()
    again = clone(fitted).fit(X, noisy)
    assert np.array_equal(again.predict_proba(X), fitted.predict_proba(X))
    other = clone(fitted).set_params(random_state=1).fit(X, noisy)
    assert not np.array_equal(other.predict_proba(X), fitted.predict_proba(X))


@pytest.mark.parametrize("kind", ["numpy", "pandas", "csr", "coo", "tensor", "bfloat16", "list"])
def test_inputs_of_any_kind(fitted, kind):
    X, _, noisy = blobs()
    made = {
        "numpy": lambda: X.astype(np.float32),
        "pandas": lambda: pd.DataFrame(X, columns=["a", "b"]),
        "csr": lambda: sp.csr_array(X),
        "coo": lambda: sp.coo_array(X),
        "tensor": lambda: torch.from_numpy(X),
        "bfloat16": lambda: torch.from_numpy(X).bfloat16(),
        "list": lambda: X.tolist(),
    }[kind]()
    found = clone(fitted).fit(made, noisy).predict(made)
    # Rounded inputs may lead a search elsewhere.
    assert (found == fitted.predict(X)).mean() > (0.9 if kind == "bfloat16" else 0.95)


@pytest.mark.parametrize("kind", ["strings", "categorical", "from one", "booleans"])
def test_labels_of_any_kind_come_back(fitted, kind):
    X, y, noisy = blobs()
    names = {
        "strings": np.array(["ant", "bee", "cat"]),
        "categorical": np.array(["ant", "bee", "cat"]),
        "from one": np.array([1, 2, 3]),
        "booleans": np.array([True, False, True]),
    }[kind]
    given = names[noisy]
    labels = pd.Series(pd.Categorical(given)) if kind == "categorical" else given
    found = clone(fitted).fit(X, labels)
    assert found.classes_.tolist() == sorted(set(names.tolist()))
    assert found.score(X, names[y]) > 0.85
    assert set(found.suggested_labels_) <= set(names.tolist())


@pytest.mark.parametrize("channels_first", [True, False])
def test_images(channels_first):
    images, y = load_digits(return_X_y=True)
    images = np.kron(images.reshape(-1, 8, 8), np.ones((2, 2)))[:400]  # [N, 16, 16]
    images = (images * 15).astype(np.uint8)
    stacked = np.repeat(
        images[:, None] if channels_first else images[..., None], 3, int(not channels_first) * 2 + 1
    )
    classifier = NoisyLabelClassifier(schedule="constant", **QUICK | {"learning_rate": 0.003})
    assert classifier.fit(stacked, y[:400]).score(stacked, y[:400]) > 0.7
    assert isinstance(classifier._classifier.modules[0][0], nn.Conv2d)


def test_a_clean_validation_set_is_used(fitted):
    X, y, noisy = blobs()
    found = clone(fitted).fit(X[60:], noisy[60:], X[:60], y[:60])
    assert len(found.label_quality_) == 180
    assert found.score(X, y) > 0.85
    # It decides: a validation set that is all wrong gives other values.
    other = clone(fitted).fit(X[60:], noisy[60:], X[:60], (y[:60] + 1) % 3)
    assert max(other.history_["validation_accuracy"]) < 0.6
    assert max(found.history_["validation_accuracy"]) > 0.85


def test_every_schedule_that_train_takes():
    X, _, noisy = blobs()
    for schedule in ("constant", "co-teaching", np.linspace(1, 0.7, 12), lambda epoch: 1 / epoch):
        found = NoisyLabelClassifier(schedule=schedule, noise_rate=0.2, **QUICK).fit(X, noisy)
        assert found.study_ is None and len(found.keep_rate_) == 12
    assert found.keep_rate_[3] == pytest.approx(0.25)


def test_in_a_pipeline_and_a_grid_search():
    X, y, noisy = blobs()
    quick = NoisyLabelClassifier(schedule="co-teaching", noise_rate=0.2, **QUICK)
    pipeline = make_pipeline(StandardScaler(), quick)
    assert pipeline.fit(X, noisy).score(X, y) > 0.9
    assert cross_val_score(pipeline, X, noisy, cv=3).mean() > 0.6  # of labels of which 20 % lie
    grid = GridSearchCV(quick, {"learning_rate": [1e-6, 0.01]}, cv=2).fit(X, noisy)
    assert grid.best_params_ == {"learning_rate": 0.01}


def own_model(input_shape: tuple[int, ...], n_classes: int) -> nn.Module:
    return nn.Sequential(nn.Linear(input_shape[0], 8), nn.Tanh(), nn.Linear(8, n_classes))


@pytest.mark.parametrize("model", ["auto", own_model])
def test_saved_loaded_and_pickled(tmp_path, model):
    X, _, noisy = blobs()
    names = np.array(["ant", "bee", "cat"])
    found = NoisyLabelClassifier(model, budget="2trials", **QUICK).fit(
        pd.DataFrame(X, columns=["a", "b"]), names[noisy]
    )
    frame = pd.DataFrame(X, columns=["a", "b"])
    found.save(tmp_path / "saved")
    assert not list(tmp_path.rglob("*.pkl"))
    given = {} if model == "auto" else {"model": model}
    loaded = NoisyLabelClassifier.load(tmp_path / "saved", **given)
    for copy in (loaded, pickle.loads(pickle.dumps(found))):
        assert np.array_equal(copy.predict_proba(frame), found.predict_proba(frame))
        assert np.array_equal(copy.label_quality_, found.label_quality_)
        assert np.array_equal(copy.suggested_labels_, found.suggested_labels_)
        assert copy.get_params()["learning_rate"] == 0.01 and copy.history_ == found.history_
    with pytest.raises(ValueError, match="feature names"):
        loaded.predict(frame[["b", "a"]])
    loaded.save(tmp_path / "again")
    again = NoisyLabelClassifier.load(tmp_path / "again", **given)
    assert np.array_equal(again.predict_proba(frame), found.predict_proba(frame))


def test_errors_say_what_to_do(fitted, tmp_path):
    X, _, noisy = blobs()
    with pytest.raises(InputError, match=r"y must hold two classes or more, got 1 class"):
        clone(fitted).fit(X, np.zeros(240))
    with pytest.raises(InputError, match=r"X_val and y_val must be given together"):
        clone(fitted).fit(X, noisy, X)
    with pytest.raises(InputError, match=r"y_val must hold classes of y only, got .*7"):
        clone(fitted).fit(X, noisy, X[:5], [7] * 5)
    with pytest.raises(InputError, match=r"noise_rate must be known"):
        NoisyLabelClassifier(schedule="co-teaching", **QUICK).fit(X, noisy)
    with pytest.raises(InputError, match=r"folder must hold a saved classifier"):
        NoisyLabelClassifier.load(tmp_path)


def test_progress_is_printed_if_asked_for(capsys):
    X, _, noisy = blobs()
    NoisyLabelClassifier(budget="2trials", verbose=1, **QUICK).fit(X, noisy)
    output = capsys.readouterr().out
    assert "search: 100 %, best validation score" in output and "final training: 100 %" in output
    NoisyLabelClassifier(schedule="constant", **QUICK).fit(X, noisy)
    assert capsys.readouterr().out == ""


class KeepsTheRun(NoisyLabelClassifier):
    def _keep(self, run, numbers):
        super()._keep(run, numbers)
        self.run_ = run


def test_restarts_follow_the_kind_of_run_unless_given():
    X, _, noisy = blobs()
    n_trainings = []
    budget = {"budget": "2trials"}
    for options in (budget, budget | {"restarts": 2}, {"schedule": "constant"}):
        classifier = KeepsTheRun(**QUICK).set_params(**options).fit(X, noisy)
        n_trainings.append(len(classifier.run_.results[0].restarts))
    assert n_trainings == [3, 2, 1]


def test_without_a_budget_it_chooses_by_cross_fitting():
    X, y, noisy = blobs()
    found = KeepsTheRun(**QUICK).fit(X, noisy)
    assert found.study_ is None and found.run_.results[0].method == "auto"
    assert found.score(X, y) > 0.9
    with pytest.raises(InputError, match="schedule must be auto in a search, got 'constant'"):
        NoisyLabelClassifier(schedule="constant", budget=6, **QUICK).fit(X, noisy)
    with pytest.raises(InputError, match="budget=6, say, searches"):
        NoisyLabelClassifier(schedule="search", **QUICK).fit(X, noisy)


def test_a_search_config_reaches_the_search():
    X, _, noisy = blobs()
    config = SearchConfig(space="full", sampler="random", warm_start=False)
    found = NoisyLabelClassifier(budget="2trials", search_config=config, restarts=1, **QUICK)
    found = clone(found).fit(X, noisy)
    assert all(len(trial.params) == 11 for trial in found.study_.trials)  # R(2) ... R(T)
    assert found.get_params()["search_config"] == config


def test_the_transition_matrix_of_many_classes_is_there():
    labels = np.arange(603) % 201
    inputs = np.random.default_rng(0).normal(size=(603, 4))
    found = NoisyLabelClassifier(schedule="constant", epochs=1, random_state=0).fit(inputs, labels)
    assert found.transition_matrix_.shape == found.transition_matrix_std_.shape == (201, 201)
    assert found.transition_matrix_.sum(1) == pytest.approx(np.ones(201))


def test_parameters_stand_in_the_order_of_importance():
    names = list(inspect.signature(NoisyLabelClassifier).parameters)
    assert names[:4] == ["model", "budget", "schedule", "method"]
    assert names[-3:] == ["device", "random_state", "verbose"]
