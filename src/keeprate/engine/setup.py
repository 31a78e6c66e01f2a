"""What every training of a run shares, checked before the first step."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from keeprate.data import Data, Inputs, Normaliser
from keeprate.engine.candidates import Assignment, EpochDone, TrainingDone
from keeprate.engine.config import Augmentation, TrainingConfig
from keeprate.engine.heads import AngularMargin, margin_of
from keeprate.engine.metrics import Metric, MetricLike, read_metric
from keeprate.engine.models import (
    ModelFactory,
    adapt_factory,
    build_model,
    get_model,
    resolve_model,
)
from keeprate.engine.perceptron import Perceptron
from keeprate.engine.progress import Progress, TextProgress
from keeprate.engine.sequential import plain_layers
from keeprate.engine.tensorboard import CurvesWriter
from keeprate.engine.weights import training_weights
from keeprate.engine.world import ALONE, World
from keeprate.errors import Words, check_whole, invalid
from keeprate.seeding import forked_seed

if TYPE_CHECKING:
    from keeprate.engine.scorers import Scorer

CHECKPOINT_SECONDS = 60.0
SMALL_BATCH = 32
"""Up to so many samples a perceptron casts its weights on a CPU for longer than bfloat16 saves."""


@dataclass(frozen=True)
class Setup:
    """What every training of a run shares.

    Attributes
    ----------
    data : Data
    model_name : str
        For records; never "auto", but the model that "auto" stood for.
    model : callable
        (input_shape, n_classes) -> nn.Module.
    config : TrainingConfig
    seed : int
    folder : Path or None
        The run folder.
    lockstep : int or None
        Candidates that train together at most; None: as many as fit in memory.
    normaliser : Normaliser
        Fitted to the training inputs.
    progress : Progress or None
    checkpoint_seconds : float
        Most seconds between two checkpoints of a training.
    curves_writer : CurvesWriter or None
        Writes curves for TensorBoard.
    weights : Tensor [n_train] or None
        How much each training sample counts in the loss; see `training_weights`.
    metric : Metric or None
        What scores the networks by held-out data of its own, if not the validation samples.
    scorer : Scorer or None
        What scores predictions for the validation and the test samples, beside the accuracy.
    margin : AngularMargin or None
        In the loss of networks whose logits are cosines.
    executor : Executor or None
        Who trains; None: this process.
    world : World
        The processes that share each batch of a training.
    """

    data: Data
    model_name: str
    model: ModelFactory
    config: TrainingConfig
    seed: int
    folder: Path | None
    lockstep: int | None
    normaliser: Normaliser
    progress: Progress | None = None
    checkpoint_seconds: float = CHECKPOINT_SECONDS
    curves_writer: CurvesWriter | None = None
    weights: Tensor | None = None
    metric: Metric | None = None
    scorer: Scorer | None = None
    margin: AngularMargin | None = None
    executor: Executor | None = None
    world: World = ALONE

    @property
    def criterion(self) -> str:
        """What validation scores are: the metric's name, or as `Data.criterion`."""
        metric = self.scorer if self.metric is None else self.metric
        return self.data.criterion if metric is None else metric.name

    @property
    def device_type(self) -> str:
        """What the networks train on: "cpu" or "cuda"."""
        if self.executor is not None:
            return self.executor.device_type
        return self.config.resolve_device().type

    def build(self) -> nn.Module:
        """One network with fresh weights."""
        return self.model(self.data.input_shape, self.data.n_classes)


class Executor(Protocol):
    """Trains elsewhere: an assignment in, outcomes out; see `keeprate.engine.executors`."""

    @property
    def device_type(self) -> str:
        """What the networks train on: "cpu" or "cuda"."""

    def train(
        self,
        assignment: Assignment,
        setup: Setup,
        *,
        after_training: TrainingDone,
        after_epoch: EpochDone | None = None,
    ) -> None:
        """Train candidates; call `after_training` for each, in the order of the candidates."""


def make_setup(
    data: Data,
    *,
    model: str | Callable[..., nn.Module],
    config: TrainingConfig,
    seed: int,
    out: str | os.PathLike[str] | None,
    lockstep: int | None = None,
    progress: bool | Progress | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    tensorboard: bool = False,
    metric: MetricLike = None,
    positive: object = None,
) -> Setup:
    """Check everything that can be checked before the first step, the model included.

    Parameters
    ----------
    data : Data
    model : str or callable
        A name that `get_model` takes, or a function that builds one network.
    config : TrainingConfig
    seed : int
    out : path or None
        The run folder; not made here.
    lockstep : int, optional
        Candidates that train together at most; what fits in memory if left out.
    progress : bool or Progress, optional
        True prints lines of text to standard error; see `TextProgress`.
    checkpoint_seconds : float
    tensorboard : bool
        Write curves for TensorBoard to the run folder.
    metric : str, callable or Metric, optional
        As `keeprate.engine.metrics.read_metric` takes it.
    positive : class name, optional

    Raises
    ------
    InputError
        If an argument cannot be used.
    """
    if len(data.train) < config.batch_size == TrainingConfig.batch_size:
        config = replace(config, batch_size=len(data.train))  # nobody chose the default
    if config.batch_size > len(data.train):
        raise invalid(
            "batch_size",
            f"be at most the number of training samples ({len(data.train)})",
            config.batch_size,
            "give a smaller --batch-size",
        )
    if out is not None and not os.fspath(out).strip():  # `Path` takes it for the current folder
        raise invalid("out", "name a folder", out, "write out='runs/first', or None for no folder")
    seed = check_whole("seed", seed, 0)
    lockstep = None if lockstep is None else check_whole("lockstep", lockstep, 1)
    if isinstance(model, str):
        model_name = resolve_model(model, data.input_shape)
        factory = get_model(model_name)
    else:
        model_name = getattr(model, "__qualname__", "custom")
        factory = adapt_factory(model)
    with forked_seed(seed):
        dtype = torch.int64 if data.train.inputs.dtype == torch.int64 else torch.float32
        module = build_model(factory, data.input_shape, data.n_classes, dtype=dtype)
    if config.batch_size == 1 and any(isinstance(m, _BatchNorm) for m in module.modules()):
        requirement = "be at least 2 for a network with batch norm"
        raise invalid("batch_size", requirement, config.batch_size, "give a larger --batch-size")
    device = config.resolve_device()  # raises
    if config.precision == "auto" and _has_small_products(module, config.batch_size, device):
        config = replace(config, precision="float32")
    _check_augment(config.augment, data.train.inputs)
    if config.warmup_epochs >= max(2, config.epochs):
        requirement = f"be fewer than the {config.epochs} epochs"
        raise invalid("warmup_epochs", requirement, config.warmup_epochs, "try 0")
    margin = _margin(config.margin, module)
    own_metric, scorer = read_metric(metric, data, positive)
    if own_metric is not None:
        own_metric.check(module, data.input_shape)
    weights = training_weights(data.train, config.class_weight)
    if isinstance(progress, bool):
        progress = TextProgress() if progress else None
    return Setup(
        data=data,
        model_name=model_name,
        model=factory,
        config=config,
        seed=seed,
        folder=None if out is None else Path(out),
        lockstep=lockstep,
        normaliser=data.normaliser(),
        progress=progress,
        checkpoint_seconds=checkpoint_seconds,
        curves_writer=CurvesWriter(out) if tensorboard else None,
        weights=weights,
        metric=own_metric,
        scorer=scorer,
        margin=margin,
    )


def _check_augment(augment: str, inputs: Inputs) -> None:
    """Refuse to mirror or move what is no image, and noise on numbers that stand for words."""
    augmentation = Augmentation.parse(augment)
    if (augmentation.flip or augmentation.crop) and inputs.dim() != 4:
        requirement = "be none or noise, as the inputs are no images"
        received = Words(f"{augment} for inputs of shape {tuple(inputs.shape[1:])}")
        raise invalid("augment", requirement, received, "leave flip and crop out")
    if augmentation.noise and inputs.dtype == torch.int64:
        requirement = "be without noise, as the inputs are whole numbers"
        raise invalid("augment", requirement, augment, "leave noise out")


def _margin(margin: float, module: nn.Module) -> AngularMargin | None:
    """The margin of a network's loss; None without one."""
    if not margin:
        return None
    found = margin_of(module, margin)
    if found is None:
        requirement = "be 0 for a network whose logits are no cosines"
        remedy = "use --model face-small, or let your network end with CosineLinear"
        raise invalid("margin", requirement, margin, remedy)
    return found


def _has_small_products(module: nn.Module, batch_size: int, device: torch.device) -> bool:
    if device.type != "cpu" or batch_size > SMALL_BATCH:
        return False
    layers = plain_layers(module, device)
    return layers is not None and Perceptron.of(layers) is not None
