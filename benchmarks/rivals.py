"""Rivals of keeprate, as a fair user would tune them, for `benchmarks.real_noise`.

All perceptrons are one: D-256-C, ReLU, dropout, Adam, and the epoch with the best validation
accuracy. On pictures they are the paper's Model 1 instead, as keeprate's networks are. Validation
is the task's clean samples, or a fifth of the noisy ones.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_predict
from sklearn.model_selection import train_test_split as cut_in_two
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from benchmarks.noisy_sets import Task
from keeprate.engine import MODELS

HIDDEN, DROPOUT, LEARNING_RATE, WEIGHT_DECAY, BATCH = 256, 0.3, 1e-3, 1e-4, 128
MOST_EPOCHS, PATIENCE, HELD_OUT, FOLDS = 200, 20, 0.2, 5
SMOOTHING, GCE_POWER, ELR_WEIGHT, ELR_MEMORY = 0.1, 0.7, 3.0, 0.7
INVERSE_PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
PROTOCOL = {
    "perceptron": f"D-{HIDDEN}-C, ReLU, dropout {DROPOUT}, Adam {LEARNING_RATE}, weight decay "
    f"{WEIGHT_DECAY}, batch {BATCH}, at most {MOST_EPOCHS} epochs, patience {PATIENCE}",
    "held out to stop early": HELD_OUT,
    "folds": FOLDS,
    "label smoothing": SMOOTHING,
    "GCE": GCE_POWER,
    "ELR": [ELR_WEIGHT, ELR_MEMORY],
    "logistic regression C": list(INVERSE_PENALTIES),
}
Array = NDArray[Any]


@dataclass(frozen=True)
class Outcome:
    """What a line says of a task.

    Attributes
    ----------
    test_probabilities : array [M, C], optional
        None for a line that only judges labels.
    wrong_score : array [N], optional
        The higher, the more probably is the label wrong.
    listed : bool array [N], optional
        The labels that the line would show to a person.
    suggested : int array [N], optional
        The label that it would put in place of each.
    noise_rate : float, optional
        The estimated share of wrong labels.
    noise_interval : tuple of two float, optional
        Between which the line says that the share lies.
    score_is_probability : bool
        Whether `wrong_score` is meant as the probability that the label is wrong.
    """

    test_probabilities: Array | None = None
    wrong_score: Array | None = None
    listed: Array | None = None
    suggested: Array | None = None
    noise_rate: float | None = None
    noise_interval: tuple[float, float] | None = None
    score_is_probability: bool = True


# One trainer of perceptrons ----------------------------------------------------------------------

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(logits [B, C], labels [B], rows [B]) -> loss."""


def cross_entropy(logits: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
    return nn.functional.cross_entropy(logits, labels)


def smoothed(logits: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
    return nn.functional.cross_entropy(logits, labels, label_smoothing=SMOOTHING)


def generalised(logits: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
    """Generalised cross entropy (Zhang and Sabuncu 2018): (1 - p_y^q) / q."""
    log_p = logits.log_softmax(1).gather(1, labels[:, None])
    return ((1 - (GCE_POWER * log_p).exp()) / GCE_POWER).mean()


class EarlyLearning:
    """Early-learning regularisation (Liu et al. 2020): cross entropy + lambda log(1 - <t, p>)."""

    def __init__(self, n_samples: int, n_classes: int) -> None:
        self.targets = torch.zeros(n_samples, n_classes)

    def __call__(self, logits: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
        p = logits.softmax(1).clamp(1e-4, 1 - 1e-4)
        now = p.detach() / p.detach().sum(1, keepdim=True)
        targets = ELR_MEMORY * self.targets[rows] + (1 - ELR_MEMORY) * now
        self.targets[rows] = targets
        agreement = (1 - (targets * p).sum(1)).log().mean()
        return nn.functional.cross_entropy(logits, labels) + ELR_WEIGHT * agreement


LOSSES: dict[str, Callable[[int, int], Loss]] = {
    "cross entropy": lambda n_samples, n_classes: cross_entropy,
    "label smoothing": lambda n_samples, n_classes: smoothed,
    "GCE": lambda n_samples, n_classes: generalised,
    "ELR": EarlyLearning,
}


def train_perceptron(
    inputs: Array,
    labels: Array,
    validation_inputs: Array,
    validation_labels: Array,
    n_classes: int,
    *,
    loss: str = "cross entropy",
    seed: int = 0,
    image_shape: tuple[int, ...] | None = None,
) -> nn.Module:
    """The network of the best epoch by validation accuracy; of equals, by cross entropy."""
    x, y = torch.from_numpy(inputs), torch.from_numpy(labels)
    x_val, y_val = torch.from_numpy(validation_inputs), torch.from_numpy(validation_labels)
    criterion = LOSSES[loss](len(y), n_classes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _network(x.shape[1], n_classes, image_shape)
        optimizer = torch.optim.Adam(network.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        best, best_state, best_epoch = (-1.0, 0.0), copy.deepcopy(network.state_dict()), 0
        for epoch in range(MOST_EPOCHS):
            network.train()
            for rows in torch.randperm(len(y)).split(BATCH):
                optimizer.zero_grad()
                criterion(network(x[rows]), y[rows], rows).backward()
                optimizer.step()
            score = _score(network, x_val, y_val)
            if score > best:
                best, best_state, best_epoch = score, copy.deepcopy(network.state_dict()), epoch
            elif epoch - best_epoch >= PATIENCE:
                break
    network.load_state_dict(best_state)
    return network.eval()


def _network(n_inputs: int, n_classes: int, image_shape: tuple[int, ...] | None) -> nn.Module:
    if image_shape is not None:
        return nn.Sequential(nn.Unflatten(1, image_shape), MODELS["model1"](image_shape, n_classes))
    return nn.Sequential(
        nn.Linear(n_inputs, HIDDEN), nn.ReLU(), nn.Dropout(DROPOUT), nn.Linear(HIDDEN, n_classes)
    )


@torch.no_grad()
def _score(network: nn.Module, inputs: Tensor, labels: Tensor) -> tuple[float, float]:
    logits = network.eval()(inputs)
    accuracy = (logits.argmax(1) == labels).double().mean().item()
    return accuracy, -nn.functional.cross_entropy(logits, labels).item()


class Perceptron(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """The same as an estimator of scikit-learn, for cleanlab and for cross-validation.

    Parameters
    ----------
    n_classes : int
    loss : str
        A key of `LOSSES`.
    seed : int
    clean : tuple of arrays (inputs, labels), optional
        To stop early; left out, a fifth of the samples it is fitted to.
    image_shape : tuple of int, optional
        Of pictures, which come as rows of numbers.
    """

    def __init__(
        self,
        n_classes: int,
        loss: str = "cross entropy",
        seed: int = 0,
        clean: tuple[Array, Array] | None = None,
        image_shape: tuple[int, ...] | None = None,
    ) -> None:
        self.n_classes, self.loss, self.seed, self.clean = n_classes, loss, seed, clean
        self.image_shape = image_shape

    def fit(self, X: Array, y: Array) -> Perceptron:
        y, clean = np.asarray(y).astype(np.int64), self.clean
        self.classes_ = np.arange(self.n_classes)
        if clean is None:
            stratify = y if np.bincount(y)[np.unique(y)].min() > 1 else None
            kept, held_out = cut_in_two(
                np.arange(len(y)), test_size=HELD_OUT, random_state=self.seed, stratify=stratify
            )
            X, y, clean = X[kept], y[kept], (X[held_out], y[held_out])
        self.network_ = train_perceptron(
            X,
            y,
            *clean,
            self.n_classes,
            loss=self.loss,
            seed=self.seed,
            image_shape=self.image_shape,
        )
        return self

    def predict_proba(self, X: Array) -> Array:
        with torch.no_grad():
            p = self.network_(torch.from_numpy(X)).double().softmax(1).numpy()
        probabilities: Array = p / p.sum(1, keepdims=True)
        return probabilities

    def predict(self, X: Array) -> Array:
        classes: Array = self.predict_proba(X).argmax(1)
        return classes


def perceptron_of(task: Task, seed: int, loss: str = "cross entropy") -> Perceptron:
    """An untrained perceptron that stops early by the task's clean samples, if it has some."""
    clean = None
    if task.clean_inputs is not None and task.clean_labels is not None:
        clean = (task.clean_inputs, task.clean_labels)
    return Perceptron(task.n_classes, loss, seed, clean, task.image_shape)


# Lines -----------------------------------------------------------------------------------------


def perceptron(task: Task, seed: int, *, loss: str) -> Outcome:
    fitted = perceptron_of(task, seed, loss).fit(task.inputs, task.labels)
    return _trained(task, fitted.predict_proba)


def logistic_regression(task: Task, seed: int) -> Outcome:
    fitted = fit_logistic(task, seed)
    return _trained(task, partial(_probabilities, fitted, task.n_classes))


def gradient_boosting(task: Task, seed: int) -> Outcome:
    model = HistGradientBoostingClassifier(
        max_iter=500,
        early_stopping=True,
        validation_fraction=HELD_OUT,
        n_iter_no_change=PATIENCE,
        random_state=seed,
    )
    clean = {}
    if task.clean_inputs is not None:
        clean = {"X_val": task.clean_inputs, "y_val": task.clean_labels}
    model.fit(task.inputs, task.labels, **clean)
    return _trained(task, partial(_probabilities, model, task.n_classes))


def clean_alone_logistic(task: Task, seed: int) -> Outcome:
    """Logistic regression of the clean samples, C by cross-validation among them."""
    inputs, labels = _clean_samples(task)
    fitted = _by_folds(inputs, labels, seed)
    return Outcome(_probabilities(fitted, task.n_classes, task.test_inputs))


def clean_alone_perceptron(task: Task, seed: int) -> Outcome:
    """A perceptron of the clean samples, a fifth of which stop it."""
    untrained = Perceptron(task.n_classes, seed=seed, image_shape=task.image_shape)
    fitted = untrained.fit(*_clean_samples(task))
    return Outcome(fitted.predict_proba(task.test_inputs))


def clean_learning(task: Task, seed: int) -> Outcome:
    """cleanlab's CleanLearning: five folds judge the labels, the others train once more."""
    from cleanlab.classification import CleanLearning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        learner = CleanLearning(
            perceptron_of(task, seed),
            seed=seed,
            cv_n_folds=FOLDS,
            find_label_issues_kwargs={"n_jobs": 1},
        )
        learner.fit(task.inputs, task.labels)
        issues = learner.get_label_issues()
    return _of_cleanlab(issues, "label_quality", learner.clf.predict_proba(task.test_inputs))


def datalab(task: Task, seed: int, *, by: str) -> Outcome:
    """cleanlab's Datalab on out-of-sample probabilities of another line; it only judges."""
    from cleanlab import Datalab

    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    model: Any = perceptron_of(task, seed)
    if by == "logistic regression":
        model = fit_logistic(task, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = cross_val_predict(model, task.inputs, task.labels, cv=folds, method="predict_proba")
        lab = Datalab({"label": task.labels}, label_name="label", verbosity=0)
        one_job = {"clean_learning_kwargs": {"find_label_issues_kwargs": {"n_jobs": 1}}}
        lab.find_issues(pred_probs=found, issue_types={"label": one_job})
    return _of_cleanlab(lab.get_issues("label"), "label_score", None)


def _of_cleanlab(issues: Any, score: str, test: Array | None) -> Outcome:
    listed = issues["is_label_issue"].to_numpy(bool)
    return Outcome(
        test,
        1 - issues[score].to_numpy(float),
        listed,
        issues["predicted_label"].to_numpy(int),
        float(listed.mean()),
    )


def fit_logistic(task: Task, seed: int) -> Pipeline:
    """Logistic regression, C by the clean samples or by five folds of the noisy ones."""
    if task.clean_inputs is None:
        return _by_folds(task.inputs, task.labels, seed)
    fitted = [_logistic(C).fit(task.inputs, task.labels) for C in INVERSE_PENALTIES]
    return max(fitted, key=lambda one: one.score(task.clean_inputs, task.clean_labels))


def _by_folds(inputs: Array, labels: Array, seed: int) -> Pipeline:
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    grid = {"logisticregression__C": INVERSE_PENALTIES}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class of fewer samples than folds
        search = GridSearchCV(_logistic(1.0), grid, cv=folds).fit(inputs, labels)
    return search.best_estimator_


class _Quiet(LogisticRegression):  # type: ignore[misc]
    """Without a word where the largest C has not converged: cross-validation judges it as it is."""

    def fit(self, X: Array, y: Array, sample_weight: Array | None = None) -> _Quiet:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            super().fit(X, y, sample_weight)
        return self


def _logistic(C: float) -> Pipeline:
    model = _Quiet(C=C, max_iter=200)
    return Pipeline([("scale", StandardScaler()), ("logisticregression", model)])


def _trained(task: Task, probabilities: Callable[[Array], Array]) -> Outcome:
    """The outcome of a classifier: a label is the more suspect, the less probable it is."""
    own = probabilities(task.inputs)
    wrong = 1 - own[np.arange(len(own)), task.labels]
    return Outcome(probabilities(task.test_inputs), wrong)


def _probabilities(model: Any, n_classes: int, inputs: Array) -> Array:
    """Of all C classes, some of which the model may not have seen."""
    found = np.zeros((len(inputs), n_classes))
    found[:, model.classes_] = model.predict_proba(inputs)
    return found


def _clean_samples(task: Task) -> tuple[Array, Array]:
    if task.clean_inputs is None or task.clean_labels is None:
        raise ValueError("a line of clean samples alone needs the scenario that has some")
    return task.clean_inputs, task.clean_labels
