"""scikit-learn's interface: `NoisyLabelClassifier`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    _check_feature_names,
    _check_n_features,
    check_is_fitted,
    column_or_1d,
    validate_data,
)
from torch import Tensor, nn

from keeprate.data import (
    Data,
    as_array,
    is_complete_numbers,
    is_data_frame,
    load_data,
    prepare,
)
from keeprate.engine import (
    Method,
    MetricLike,
    TextProgress,
    TrainingConfig,
    check_weights,
    load_tensors,
    save_tensors,
)
from keeprate.errors import InputError, Words, invalid
from keeprate.files import read_json, write_json
from keeprate.runs import Run, load, save_classifier, train
from keeprate.schedules import Schedule
from keeprate.searching import SearchConfig, search
from keeprate.text import cut

ESTIMATOR_FILE, ARRAYS_FILE = "estimator.json", "estimator.safetensors"
HELD_OUT = 0.2  # share of the samples that validate where no validation set is given

ModelFactory = Callable[..., nn.Module]
Array = NDArray[Any]


class NoisyLabelClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A neural network for training labels that are partly wrong.

    ``fit(X, noisy_labels)`` trains, and judges the labels:

    - `predict`, `predict_proba` and `score` work as in every scikit-learn classifier;
    - `label_quality_` is the probability that each given label is right;
    - `suggested_labels_` are the labels that the network suggests;
    - `noise_rate_` is the estimated share of wrong labels.

    Networks learn right labels before they memorise wrong ones. In each epoch training keeps a
    share R(t) of the samples, those with the smallest losses, and leaves out the others, whose
    labels are mostly wrong. By default `fit` chooses among a few R(t) by cross-fitting, and then
    refines the labels (`keeprate.runs.cross_fit`). With a `budget` it searches R(t).

    Parameters
    ----------
    model : str or callable
        "auto" takes a small CNN for images of at least 16 x 16 pixels, else an MLP. Other values: a
        name of `keeprate.engine.MODELS`, "package.module:factory", or a function
        ``(input_shape, n_classes) -> nn.Module``.
    budget : float or str, optional
        Search R(t), at this cost: "20trials" is 20 trainings, 6 the cost of six full trainings,
        "30m" half an hour for everything. Left out, there is no search.
    schedule : str, array_like [T], Schedule or callable
        R(t), where none is searched. "auto" with the method "auto" cross-fits; with another method
        it estimates the noise rate and costs about two trainings. "constant" keeps every sample,
        "co-teaching" needs `noise_rate`; a file, keep rates, or a function of the epoch (from 1)
        give R(t) itself.
    method : str or Method
        How samples are selected; "auto", a name of `keeprate.engine.METHODS`,
        "package.module:method", or a method. A method that selects no samples needs
        ``schedule="constant"``. "auto" is Co-teaching in a search and with a given R(t).
    noise_rate : float, optional
        Share of wrong labels in [0, 1), for ``schedule="co-teaching"`` or ``"auto"``.
    epochs, batch_size : int
        As in `keeprate.TrainingConfig`. A batch is never larger than the training set.
    learning_rate : float
        Above 0.
    optimizer : {"adam", "adamw", "sgd", "rmsprop"}
    learning_rate_schedule, warmup_epochs, weight_decay, max_grad_norm, keep
        As in `keeprate.TrainingConfig`.
    restarts : int, optional
        Final trainings from different initial weights; the best by validation is kept. Left out: 3
        after a search, 1 without. From two on the two best schedules of a search take turns.
    validation : float or int
        Share or number of the samples that `fit` holds out where no validation set is given. Their
        labels are as noisy as the others. The search then maximises
        `keeprate.noise.determinant_score`, not accuracy.
    metric : str or callable
        What the best training, and in a search the best R(t), goes by: "accuracy", the name of a
        scorer of scikit-learn ("average_precision", "balanced_accuracy", "neg_log_loss", ...), or a
        scorer object. Another metric than accuracy needs `X_val` and `y_val` with right labels. The
        method "auto" is then Co-teaching.
    positive : class, optional
        Of two classes the one that such metrics as "f1" and "average_precision" look for. Left out,
        the one that fewer labels name.
    class_weight : {None, "balanced"} or dict of class to float
        How much the classes count in the loss, by the labels as given. "balanced": all the same,
        however rare. Which samples are selected does not depend on it.
    augment : str
        What happens to training samples, anew each epoch, as in `keeprate.TrainingConfig`: "none",
        "flip,crop:4" for images, "noise:0.1", ...
    search_config : SearchConfig, optional
        Space, sampler, pruner and other details of the search.
    device : str
        "auto", "cpu", "cuda", "cuda:1", ...
    random_state : int, RandomState or None
    verbose : int
        Above 0 `fit` prints its progress to standard output, a line every ten seconds.

    Attributes
    ----------
    label_quality_ : ndarray [N]
        For each label given to `fit`, in the same order, the probability that the label is right.
    suggested_labels_ : ndarray [N]
        For each sample given to `fit` its label, or another class that is at least 0.8 probable
        in place of a label that is more probably wrong than right.
    noise_rate_, noise_rate_std_ : float
        Estimated share of wrong labels, and its standard error of sampling.
    noise_interval_ : tuple of two float or None
        Between which the share of wrong labels lies, see `keeprate.noise.estimate_noise`: from 0
        on without clean labels, and None where nothing bounds it.
    classes_ : ndarray [C]
    transition_matrix_, transition_matrix_std_ : ndarray [C, C]
        Estimate and standard error: [i, j] is the share of class i that is labelled j, in the order
        of `classes_`.
    keep_rate_ : ndarray [T]
        R(t) of the final training.
    history_ : dict of str to list
        Curves of the final training, a number for each epoch: `train_loss`, `train_accuracy`,
        `validation_accuracy` (against the labels as given), `validation_score` (what the search
        maximises), ...
    cost_ : dict
        `full_trainings` of the search, `search_seconds`, `final_seconds`.
    study_ : optuna.Study or None
        None without a search.
    n_features_in_ : int
        Length of the first axis of a sample.

    Examples
    --------
    >>> from sklearn.datasets import make_blobs
    >>> X, y = make_blobs(300, centers=3, random_state=0)
    >>> noisy = y.copy()
    >>> noisy[::5] = (y[::5] + 1) % 3
    >>> classifier = NoisyLabelClassifier(budget="4trials", epochs=10, batch_size=32,
    ...                                   learning_rate=0.01, random_state=0).fit(X, noisy)
    >>> classifier.score(X, y) > 0.9
    True
    >>> bool(np.mean(classifier.label_quality_[::5]) < np.mean(classifier.label_quality_[1::5]))
    True
    """

    def __init__(
        self,
        model: str | ModelFactory = "auto",
        *,
        budget: float | str | None = None,
        schedule: str | Schedule | npt.ArrayLike | Callable[[int], float] = "auto",
        method: str | Method = "auto",
        noise_rate: float | None = None,
        epochs: int = 40,
        batch_size: int = 128,
        learning_rate: float = 1e-3,
        optimizer: str = "adam",
        learning_rate_schedule: str = "linear-decay",
        warmup_epochs: int = 0,
        weight_decay: float = 0.0,
        max_grad_norm: float = 0.0,
        keep: str = "last",
        restarts: int | None = None,
        validation: float = HELD_OUT,
        metric: MetricLike = "accuracy",
        positive: Any = None,
        class_weight: str | dict[Any, float] | None = None,
        augment: str = "none",
        search_config: SearchConfig | None = None,
        device: str = "auto",
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.model = model
        self.budget = budget
        self.schedule = schedule
        self.method = method
        self.noise_rate = noise_rate
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.optimizer = optimizer
        self.learning_rate_schedule = learning_rate_schedule
        self.warmup_epochs = warmup_epochs
        self.weight_decay = weight_decay
        self.max_grad_norm = max_grad_norm
        self.keep = keep
        self.restarts = restarts
        self.validation = validation
        self.metric = metric
        self.positive = positive
        self.class_weight = class_weight
        self.augment = augment
        self.search_config = search_config
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def fit(
        self, X: Any, y: Any, X_val: Any = None, y_val: Any = None, *, sample_weight: Any = None
    ) -> NoisyLabelClassifier:
        """Train with noisy labels, and judge the labels.

        Parameters
        ----------
        X : array_like, sparse matrix, DataFrame or Tensor [N, D], or images
            Images are [N, H, W], [N, H, W, C] or [N, C, H, W]. A DataFrame may hold numbers,
            categories, dates, texts and blanks; see `keeprate.data.Encoder`.
        y : array_like [N]
            Labels, some of them wrong: integers, strings or a pandas categorical.
        X_val, y_val : as X and y, optional
            A validation set, best with right labels. Left out, a share `validation` of the samples
            is held out.
        sample_weight : array_like [N], optional
            How much each sample counts in the loss, at least 0. It multiplies the weight of the
            sample's class. Which samples are selected, validation scores and the judgement of
            labels go without weights.

        Returns
        -------
        NoisyLabelClassifier
            This classifier, fitted.

        Raises
        ------
        InputError, ValueError
            If an argument or a parameter cannot be used.
        """
        samples = self._checked(X, y, reset=True)
        labels = column_or_1d(_plain(y), warn=True)
        check_classification_targets(labels)
        self.classes_, numbers = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            received = Words(f"1 class, {self.classes_.tolist()[0]!r}")
            raise invalid("y", "hold two classes or more", received, "check the labels")
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        weights = self._weights(labels, sample_weight)
        data = self._data(samples, numbers, weights, X_val, y_val, seed)
        run = self._run(data, seed)
        self._classifier = run.classifier
        self._keep(run, numbers)
        return self

    def predict_proba(self, X: Any) -> Array:
        """Class probabilities [N, C], in the order of `classes_`."""
        check_is_fitted(self)
        return self._classifier.predict_proba(self._checked(X, reset=False))

    def predict(self, X: Any) -> Array:
        """The most probable class of each sample, [N]."""
        most_probable = self.predict_proba(X).argmax(1)  # raises first if nothing is fitted
        classes: Array = self.classes_[most_probable]
        return classes

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the fitted classifier to a folder, as JSON and safetensors.

        Parameters
        ----------
        folder : path
            Made if it is not there.

        Raises
        ------
        InputError
            If the folder cannot be written.
        """
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
                "model": self._model_name,
                "classes": self.classes_.tolist(),
                "n_features_in": self.n_features_in_,
                "feature_names_in": list(getattr(self, "feature_names_in_", [])),
                "history": self.history_,
                "noise_rate": [self.noise_rate_, self.noise_rate_std_],
                "noise_interval": self.noise_interval_,
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
        cls, folder: str | os.PathLike[str], *, model: ModelFactory | None = None
    ) -> NoisyLabelClassifier:
        """Read a classifier that `save` wrote.

        `study_` is None. Parameters that are no plain values (a function, a `SearchConfig`) or name
        code outside keeprate have their defaults.

        Parameters
        ----------
        folder : path
        model : callable, optional
            The function that builds the network, if the classifier was made with a function.

        Raises
        ------
        InputError
            If the folder does not hold a saved classifier, or the network needs `model`.
        """
        path = Path(folder)
        if not (path / ESTIMATOR_FILE).exists():
            raise invalid("folder", "hold a saved classifier", str(folder), "check the path")
        description = read_json(path / ESTIMATOR_FILE)
        tensors, _ = load_tensors(path / ARRAYS_FILE)
        try:
            given = {
                name: v for name, v in dict(description["parameters"]).items() if _is_plain(name, v)
            }
            if given.get("schedule") == "search":  # an older version's word for a budget
                del given["schedule"]
            parameters = given | ({} if model is None else {"model": model})
            classifier = cls(**parameters)
            classifier._model_name = description.get("model", "custom")
            classifier.classes_ = np.array(description["classes"])
            classifier.n_features_in_ = int(description["n_features_in"])
            if description["feature_names_in"]:
                names = np.array(description["feature_names_in"], dtype=object)
                classifier.feature_names_in_ = names
            classifier.history_ = description["history"]
            classifier.cost_ = description["cost"]
            classifier.noise_rate_, classifier.noise_rate_std_ = description["noise_rate"]
            low, high = description.get("noise_interval", (None, None))  # older ones lack it
            classifier.noise_interval_ = (low, high)
            classifier.keep_rate_ = tensors["keep_rate"].numpy()
            classifier.transition_matrix_ = tensors["transition_matrix"].numpy()
            classifier.transition_matrix_std_ = tensors["transition_matrix_std"].numpy()
            classifier.label_quality_ = tensors["label_quality"].numpy()
            classifier.suggested_labels_ = classifier.classes_[tensors["suggested"].numpy()]
        except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
            reason = cut(repr(error), 300)
            raise InputError(
                f"{path} does not hold a saved classifier ({reason}); it is damaged, or another "
                "version of keeprate wrote it."
            ) from error
        classifier.study_ = None
        classifier._classifier = load(path, model=model)
        return classifier

    def _checked(self, X: Any, y: Any = None, *, reset: bool) -> Any:
        """X as an array of numbers, or as the DataFrame that it is if it holds anything else.

        Sets (`reset`) or checks the attributes that scikit-learn asks for.
        """
        columns = () if reset else self._classifier.input_columns
        if is_data_frame(X) and (columns or (reset and not is_complete_numbers(X))):
            _check_feature_names(self, X, reset=reset)
            _check_n_features(self, X, reset=reset)
            return X
        return self._checked_numbers(X, y, reset=reset)

    def _checked_numbers(self, X: Any, y: Any = None, *, reset: bool) -> Array:
        checked = validate_data(
            self,
            _plain(X),
            **({"y": _plain(y)} if reset else {}),
            reset=reset,
            accept_sparse="csr",
            allow_nd=True,
            dtype="numeric",
        )
        array: Any = checked[0] if reset else checked
        numbers: Array = array.toarray() if hasattr(array, "toarray") else array
        return numbers

    def _weights(self, labels: Array, sample_weight: Any) -> Tensor | None:
        """How much each sample counts; "balanced" is left to the training, which cuts the data."""
        factors: dict[str, Any] = {}
        if sample_weight is not None:
            factors["sample_weight"] = _plain(sample_weight)
        if isinstance(self.class_weight, dict):
            factors["class_weight"] = compute_sample_weight(self.class_weight, labels)
        weights = None
        for name, values in factors.items():
            try:
                factor = torch.from_numpy(np.array(values, dtype=np.float64))
            except (TypeError, ValueError) as error:
                received = Words(f"values that are none ({error})")
                raise invalid(name, "hold numbers", received, "give floats") from error
            check_weights(name, factor, len(labels))
            weights = factor if weights is None else weights * factor
        return weights

    def _data(
        self,
        samples: Any,
        numbers: NDArray[np.int64],
        weights: Tensor | None,
        X_val: Any,
        y_val: Any,
        seed: int,
    ) -> Data:
        if (X_val is None) != (y_val is None):
            received = Words("one of them")
            raise invalid("X_val and y_val", "be given together", received, "give both")
        splits = {"train": (samples, numbers)}
        if X_val is not None:
            labels = column_or_1d(_plain(y_val))
            unknown = ~np.isin(labels, self.classes_)
            if unknown.any():
                received = Words(f"{labels[unknown].tolist()[0]!r} among others")
                raise invalid("y_val", "hold classes of y only", received, "leave these out")
            held_out = (
                X_val if is_data_frame(samples) else self._checked_numbers(X_val, reset=False)
            )
            splits["validation"] = (held_out, np.searchsorted(self.classes_, labels))
        n_validation = self.validation if X_val is None else len(splits["validation"][1])
        names = tuple(str(name) for name in self.classes_)
        loaded = load_data(splits)
        train = replace(loaded.splits["train"], weights=weights)
        by_split = loaded.splits | {"train": train}
        loaded = replace(loaded, splits=by_split, class_names=names, name="arrays")
        return prepare(loaded, n_validation=n_validation, n_test=0, seed=seed)

    def _run(self, data: Data, seed: int) -> Run:
        config = TrainingConfig(
            epochs=self.epochs,
            batch_size=min(self.batch_size, len(data.train)),
            optimizer=self.optimizer,
            learning_rate=self.learning_rate,
            learning_rate_schedule=self.learning_rate_schedule,
            warmup_epochs=self.warmup_epochs,
            weight_decay=self.weight_decay,
            max_grad_norm=self.max_grad_norm,
            keep=self.keep,
            device=self.device,
            class_weight=None if isinstance(self.class_weight, dict) else self.class_weight,
            augment=self.augment,
        )
        options: dict[str, Any] = {
            "model": self.model,
            "method": self.method,
            "config": config,
            "seed": seed,
            "noise_rate": self.noise_rate,
            "metric": self.metric,
            "positive": self.positive,
            "baselines": False,
            "progress": TextProgress(sys.stdout) if self.verbose > 0 else False,
        }
        if self.restarts is not None:
            options["restarts"] = self.restarts
        schedule: Any = self.schedule
        if isinstance(schedule, str) and schedule == "search":
            raise invalid("schedule", "be R(t) itself", schedule, "budget=6, say, searches R(t)")
        if self.budget is None and self.search_config is None:
            return train(data, schedule=schedule, **options)
        if not (isinstance(schedule, str) and schedule == "auto"):
            remedy = "leave the schedule out, or budget and search_config"
            raise invalid("schedule", "be auto in a search", schedule, remedy)
        if self.budget is not None:
            options["budget"] = self.budget
        return search(data, search_config=self.search_config, **options)

    def _keep(self, run: Run, numbers: NDArray[np.int64]) -> None:
        """Set the fitted attributes; `numbers` [N] are the labels given to `fit`."""
        record = run.record
        self._model_name = str(record.config["model"])
        self.keep_rate_ = np.array(run.schedule.keep_rate)
        curves = asdict(run.results[0].curves)
        del curves["seconds"]
        self.history_ = {name: values for name, values in curves.items() if values}
        self.cost_ = asdict(record.cost)
        self.study_ = run.study
        if (noise := record.noise_estimate) is not None:  # a finished run has one
            self.noise_rate_, self.noise_rate_std_ = noise.noise_rate, noise.noise_rate_std
            self.noise_interval_ = (noise.low, noise.high)
            self.transition_matrix_ = np.array(noise.transition_matrix)
            self.transition_matrix_std_ = np.array(noise.transition_matrix_std)
        judged = run.label_quality
        suggested, quality = np.empty_like(numbers), np.empty(len(numbers))
        suggested[judged.rows], quality[judged.rows] = judged.corrected, judged.scores
        self.suggested_labels_, self.label_quality_ = self.classes_[suggested], quality

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.three_d_array = True
        return tags


def _is_plain(name: str, value: object) -> bool:
    """Whether a saved parameter names no code outside keeprate: a folder is data."""
    return not (name in ("model", "method") and isinstance(value, str) and ":" in value)


def _plain(values: Any) -> Any:
    """Tensors as arrays, which scikit-learn can check."""
    return as_array(values) if isinstance(values, Tensor) else values
