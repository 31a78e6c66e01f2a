"""scikit-learn's interface: `NoisyLabelClassifier`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data
from torch import Tensor, nn

from keeprate.data import Data, Loaded, Split, as_array, input_tensor, prepare
from keeprate.engine import Method, TrainingConfig, load_tensors, save_tensors
from keeprate.errors import InputError, invalid
from keeprate.files import read_json, write_json
from keeprate.runs import Run, load_classifier, save_classifier, train
from keeprate.schedules import Schedule
from keeprate.searching import search

ESTIMATOR_FILE, ARRAYS_FILE = "estimator.json", "estimator.safetensors"
HELD_OUT = 0.2  # of the samples, where no validation set is given

Factory = Callable[..., nn.Module]
Array = NDArray[Any]


class NoisyLabelClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A neural network that is trained through wrong labels, with a searched keep rate R(t).

    Small-loss selection leaves out the samples that the networks find hard, of which most have
    wrong labels; how many, epoch by epoch, is searched on a validation set.

    Parameters
    ----------
    model : str or callable
        "auto" (a small CNN for images of 16 x 16 pixels or more, else the MLP), a name of
        `keeprate.engine.MODELS`, `package.module:factory`, or a factory
        `(input_shape, n_classes) -> nn.Module`.
    method : str or Method
        As `keeprate.train` takes it. For one that selects no samples there is nothing to search:
        give ``schedule="constant"``.
    schedule : str, array_like [T], Schedule or callable
        "search", or what `keeprate.train` takes: "auto" (by an estimated noise rate, or all
        samples kept: the price of two trainings and a quarter), "co-teaching" (needs
        `noise_rate`), "constant", a file, keep rates, epoch (from 1) -> keep rate.
    trials : int, optional
        Of a search: each is a training. 20, if no budget is given either.
    budget : float or str, optional
        Of a search, as `keeprate.search` takes it: 6 full trainings, or "30m".
    fidelity : float
        Of a search, as `keeprate.search` takes it: below 1 for large data sets and long trainings.
    restarts : int
        Final trainings, of which the one that validates best is kept; from two on the two best
        schedules of a search take turns ("auto": two at least). 1, as searches within a grid
        search are dear: 3 is safer.
    epochs, batch_size : int
        As in `keeprate.engine.TrainingConfig`; batches are never larger than the training set.
    optimizer : {"adam", "sgd", "rmsprop"}
    learning_rate : float
    validation : float or int
        Share or number of the samples that `fit` holds out where it is given no validation set.
        Their labels are as noisy as the others'. The search then goes by how well predictions
        tell them apart (`keeprate.noise.determinant_score`), not by how many they hit.
    noise_rate : float, optional
        Share of wrong labels, for ``schedule="co-teaching"`` or ``"auto"``.
    device : str
        "auto", "cpu", "cuda", ...
    random_state : int, RandomState or None
    verbose : int
        More than 0 prints what the search has found, population by population.

    Attributes
    ----------
    classes_ : ndarray [C]
    n_features_in_ : int
        Of each sample: length of its first axis.
    keep_rate_ : ndarray [T]
    label_quality_ : ndarray [N]
        For each label given to `fit`, in its order, the probability that it is right; held-out
        samples are judged by the final networks.
    suggested_labels_ : ndarray [N]
        What the networks say of each sample given to `fit`: of those that they were trained with
        while they learnt (the later half of the epochs), of held-out ones at the end.
    noise_rate_, noise_rate_std_ : float
        Estimated share of wrong labels, and the standard error that sampling gives it.
    transition_matrix_, transition_matrix_std_ : ndarray [C, C]
        Estimated: [i, j] is the share of class i that is labelled j, in the order of `classes_`;
        empty for more than 200 classes.
    history_ : dict of str to list
        Of the final training, by epoch: `train_loss`, `train_accuracy`, `validation_accuracy`
        (against the labels given), `validation_score` (what was optimised), ...
    cost_ : dict
        `full_trainings` of the search and seconds.
    study_ : optuna.Study or None

    Examples
    --------
    >>> from sklearn.datasets import make_blobs
    >>> X, y = make_blobs(300, centers=3, random_state=0)
    >>> noisy = y.copy()
    >>> noisy[::5] = (y[::5] + 1) % 3
    >>> classifier = NoisyLabelClassifier(trials=4, epochs=10, batch_size=32, learning_rate=0.01,
    ...                                   random_state=0).fit(X, noisy)
    >>> classifier.score(X, y) > 0.9
    True
    >>> bool(np.mean(classifier.label_quality_[::5]) < np.mean(classifier.label_quality_[1::5]))
    True
    """

    def __init__(
        self,
        model: str | Factory = "auto",
        *,
        method: str | Method = "co-teaching",
        schedule: str | Schedule | npt.ArrayLike | Callable[[int], float] = "search",
        trials: int | None = None,
        budget: float | str | None = None,
        fidelity: float = 1.0,
        restarts: int = 1,
        epochs: int = 40,
        batch_size: int = 128,
        optimizer: str = "adam",
        learning_rate: float = 1e-3,
        validation: float = HELD_OUT,
        noise_rate: float | None = None,
        device: str = "auto",
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.model = model
        self.method = method
        self.schedule = schedule
        self.trials = trials
        self.budget = budget
        self.fidelity = fidelity
        self.restarts = restarts
        self.epochs = epochs
        self.batch_size = batch_size
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.validation = validation
        self.noise_rate = noise_rate
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any, X_val: Any = None, y_val: Any = None) -> NoisyLabelClassifier:
        """Search R(t) on the validation set (if so asked), and train with it.

        Parameters
        ----------
        X : array_like, sparse matrix, DataFrame or Tensor [N, D], or images
            Images are [N, H, W], [N, H, W, C] or [N, C, H, W].
        y : array_like [N]
            Labels, some of them wrong: integers, strings or a pandas categorical.
        X_val, y_val : as X and y, optional
            A validation set; best with labels that are right.

        Raises
        ------
        InputError, ValueError
            If something given cannot be used.
        """
        inputs = self._inputs(X, y, reset=True)
        labels = column_or_1d(_plain(y), warn=True)
        check_classification_targets(labels)
        self.classes_, numbers = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            requirement = "hold two classes or more"
            received = f"1 class, {self.classes_[0]!r}"
            raise invalid("y", requirement, received, "check the labels")
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        data = self._data(inputs, numbers, X_val, y_val, seed)
        run = self._run(data, seed)
        self._classifier = run.classifier
        self._keep(run, numbers)
        return self

    def predict_proba(self, X: Any) -> Array:
        """Class probabilities [N, C], in the order of `classes_`."""
        check_is_fitted(self)
        proba: Array = self._classifier.predict_proba(self._inputs(X, reset=False)).numpy()
        return proba

    def predict(self, X: Any) -> Array:
        """The most probable class of each sample, [N]."""
        likely = self.predict_proba(X).argmax(1)  # first: it says if nothing is fitted
        classes: Array = self.classes_[likely]
        return classes

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the fitted classifier to a folder: JSON and safetensors, nothing pickled."""
        check_is_fitted(self)
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        save_classifier(path, self._classifier, model=self._model_name)
        arrays: dict[str, Array] = {
            "keep_rate": self.keep_rate_,
            "transition_matrix": self.transition_matrix_,
            "transition_matrix_std": self.transition_matrix_std_,
            "label_quality": self.label_quality_,
            "suggested": np.searchsorted(self.classes_, self.suggested_labels_),
        }
        tensors = {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in arrays.items()}
        save_tensors(path / ARRAYS_FILE, tensors, {})
        write_json(
            path / ESTIMATOR_FILE,
            {
                "classes": self.classes_.tolist(),
                "n_features_in": self.n_features_in_,
                "feature_names_in": list(getattr(self, "feature_names_in_", [])),
                "history": self.history_,
                "noise_rate": [self.noise_rate_, self.noise_rate_std_],
                "cost": self.cost_,
                "parameters": {
                    name: value
                    for name, value in self.get_params().items()
                    if value is None or isinstance(value, str | int | float)
                },
            },
        )

    @classmethod
    def load(
        cls, folder: str | os.PathLike[str], *, model: Factory | None = None
    ) -> NoisyLabelClassifier:
        """Read what `save` wrote; `study_` is None.

        Parameters
        ----------
        model : callable, optional
            The factory, where the classifier was given one that is not a name.

        Raises
        ------
        InputError
            If the folder does not hold a saved classifier, or its network needs `model`.
        """
        path = Path(folder)
        if not (path / ESTIMATOR_FILE).exists():
            raise invalid("folder", "hold a saved classifier", str(folder), "check the path")
        description = read_json(path / ESTIMATOR_FILE)
        tensors, _ = load_tensors(path / ARRAYS_FILE)
        try:
            parameters = description["parameters"] | ({} if model is None else {"model": model})
            classifier = cls(**parameters)
            classifier.classes_ = np.array(description["classes"])
            classifier.n_features_in_ = int(description["n_features_in"])
            if description["feature_names_in"]:
                names = np.array(description["feature_names_in"], dtype=object)
                classifier.feature_names_in_ = names
            classifier.history_ = description["history"]
            classifier.cost_ = description["cost"]
            classifier.noise_rate_, classifier.noise_rate_std_ = description["noise_rate"]
            classifier.keep_rate_ = tensors["keep_rate"].numpy()
            classifier.transition_matrix_ = tensors["transition_matrix"].numpy()
            classifier.transition_matrix_std_ = tensors["transition_matrix_std"].numpy()
            classifier.label_quality_ = tensors["label_quality"].numpy()
            classifier.suggested_labels_ = classifier.classes_[tensors["suggested"].numpy()]
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise InputError(
                f"{path} does not hold a saved classifier ({error!r}); it is damaged, or another "
                "version of keeprate wrote it."
            ) from error
        classifier.study_ = None
        classifier._classifier = load_classifier(path, model=model)
        return classifier

    # How it is done ----------------------------------------------------------------------------

    def _inputs(self, X: Any, y: Any = None, *, reset: bool) -> Tensor:
        """Inputs as training takes them; sets or checks what scikit-learn wants to know of them."""
        checked = validate_data(
            self,
            _plain(X),
            **({"y": _plain(y)} if reset else {}),
            reset=reset,
            accept_sparse="csr",
            allow_nd=True,
            dtype="numeric",
        )
        array = checked[0] if reset else checked
        return input_tensor(array.toarray() if hasattr(array, "toarray") else array, where="X")

    def _data(
        self, inputs: Tensor, numbers: NDArray[np.int64], X_val: Any, y_val: Any, seed: int
    ) -> Data:
        if (X_val is None) != (y_val is None):
            raise invalid("X_val and y_val", "be given together", "one of them", "give both")
        splits = {"train": Split(inputs, torch.from_numpy(numbers))}
        names = tuple(str(one) for one in self.classes_)
        if X_val is None:
            loaded = Loaded(splits, names, "arrays")
            return prepare(loaded, n_validation=self.validation, n_test=0, seed=seed)
        held_out = self._inputs(X_val, reset=False)
        labels = column_or_1d(_plain(y_val))
        unknown = ~np.isin(labels, self.classes_)
        if unknown.any():
            received = f"{labels[unknown][0]!r} among others"
            raise invalid("y_val", "hold classes of y only", received, "leave these samples out")
        given = torch.from_numpy(np.searchsorted(self.classes_, labels))
        splits["validation"] = Split(held_out, given)
        loaded = Loaded(splits, names, "arrays")
        return prepare(loaded, n_validation=len(held_out), n_test=0, seed=seed)

    def _run(self, data: Data, seed: int) -> Run:
        config = TrainingConfig(
            epochs=self.epochs,
            batch_size=min(self.batch_size, len(data.train)),
            optimizer=self.optimizer,
            learning_rate=self.learning_rate,
            device=self.device,
        )
        options: dict[str, Any] = {
            "model": self._model(data.input_shape),
            "method": self.method,
            "config": config,
            "seed": seed,
            "restarts": self.restarts,
            "noise_rate": self.noise_rate,
            "progress": _Print() if self.verbose > 0 else None,
        }
        if isinstance(self.schedule, str) and self.schedule == "search":
            trials = 20 if self.trials is None and self.budget is None else self.trials
            options |= {"trials": trials, "budget": self.budget, "fidelity": self.fidelity}
            return search(data, baselines=False, **options)
        schedule: Any = self.schedule
        return train(data, schedule=schedule, **options)

    def _model(self, input_shape: tuple[int, ...]) -> str | Factory:
        if self.model != "auto":
            return self.model
        images = len(input_shape) == 3 and min(input_shape[1:]) >= 16
        return "model1" if images else "mlp"

    def _keep(self, run: Run, numbers: NDArray[np.int64]) -> None:
        result = run.record["results"][0]
        self._model_name = run.record["config"]["model"]
        self.keep_rate_ = np.array(run.schedule.keep_rate)
        self.history_ = {k: v for k, v in result["curves"].items() if v is not None}
        self.cost_ = run.record["cost"]
        self.study_ = run.study
        noise = run.record["noise_estimate"]
        self.noise_rate_, self.noise_rate_std_ = noise["noise_rate"], noise["noise_rate_std"]
        for name in ("transition_matrix", "transition_matrix_std"):
            setattr(self, f"{name}_", np.array(noise[name] or np.empty((0, 0))))
        found = run.label_quality
        suggested, quality = np.empty_like(numbers), np.empty(len(numbers))
        suggested[found.rows], quality[found.rows] = found.predicted, found.scores
        self.suggested_labels_, self.label_quality_ = self.classes_[suggested], quality

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.three_d_array = True
        return tags


class _Print:
    """Says where a fit stands: each tenth of a stage, each better value."""

    def __init__(self) -> None:
        self._last: tuple[str, int, float | None] | None = None

    def __call__(self, stage: str, done: float, total: float, best: float | None) -> None:
        place = (stage, int(10 * done / total), best)
        if place != self._last:
            self._last = place
            found = "" if best is None else f", best validation score {best:.4f}"
            print(f"{stage}: {100 * done / total:.0f} %{found}", flush=True)


def _plain(values: Any) -> Any:
    """What scikit-learn can check: tensors as arrays."""
    return as_array(values) if isinstance(values, Tensor) else values
