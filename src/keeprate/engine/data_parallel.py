"""Training in the processes that `torchrun` starts: each computes its share of every batch.

The first process runs the command. It sends the others what is to be trained, and these train
along; they read no data and write no files. What is decided, by validation scores say, is decided
once.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from keeprate.data import Data, Split
from keeprate.engine.candidates import Assignment, EpochDone, Outcome, TrainingDone
from keeprate.engine.executors import Local
from keeprate.engine.models import get_model
from keeprate.engine.setup import Setup
from keeprate.engine.world import Group, LostProcessError
from keeprate.errors import InputError, Words, first_line, invalid

PATIENCE = timedelta(minutes=10)
"""How late a process may be at an exchange, and until when all must be there."""
IDLE = timedelta(days=30)  # until the others hear of the next training
SPLITS = ("train", "validation", "test")
LIGHT = ("model_name", "config", "seed", "lockstep", "normaliser", "margin")  # of a setup
FAILED = "keeprate failed"  # the key of the store where a process says why
GRACE = timedelta(seconds=1)  # in which a process that is lost may say why
BEHIND = 10.0  # seconds for which a process that failed leaves the last word to the first one


@contextmanager
def joined() -> Iterator[Processes]:
    """Join the processes that `torchrun` started, as long as the context lasts.

    Yields
    ------
    Processes

    Raises
    ------
    InputError
        If the others do not come.
    """
    dist, backend = torch.distributed, "gloo"
    if dist.is_nccl_available() and torch.cuda.device_count() >= n_here():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        backend = "cpu:gloo,cuda:nccl"
    try:
        store, rank, size = next(rendezvous("env://", timeout=PATIENCE))
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)
        talk = dist.new_group(backend="gloo", timeout=IDLE)
    except (RuntimeError, ValueError) as error:
        received = Words(f"none ({first_line(error)})")
        remedy = "see what the others say, and start all of them by torchrun"
        raise invalid("the processes", "find each other", received, remedy) from error
    try:
        yield Processes(Group(rank, size, talk), store)
    finally:
        if dist.is_initialized():
            with suppress(RuntimeError):  # a connection that is lost
                dist.destroy_process_group()


def n_here() -> int:
    """How many processes `torchrun` started on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


class Processes:
    """The processes that train together: an executor in the first one, which the others follow.

    Attributes
    ----------
    group : Group
        What they exchange.
    device_type : {"cpu", "cuda"}
        What they train on.
    """

    def __init__(self, group: Group, store: Any) -> None:
        self.device_type = "cpu"
        self.group, self._store = group, store
        self._data: Data | None = None  # what the others have, as the two following
        self._weights: Tensor | None = None
        self._metric: Any = None

    # In the first process ----------------------------------------------------------------------

    @contextmanager
    def led(self) -> Iterator[Processes]:
        """Let the others end with the context, and say why one of them is lost."""
        try:
            yield self
        except LostProcessError as error:
            raise InputError(self._why(error)) from error
        with suppress(LostProcessError):  # nothing is left to train
            self.group.from_first(None)

    def trains(self, setup: Setup) -> Setup:
        """The setup of a run that all of them train.

        Raises
        ------
        InputError
            If it names a GPU, as each process takes one of its own; if there are too few GPUs; or
            if the model has no name by which the others find it.
        """
        get_model(setup.model_name)
        if setup.config.resolve_device().index is not None:
            requirement = "be auto, cpu or cuda where processes train together"
            remedy = "leave it out; CUDA_VISIBLE_DEVICES says which GPUs they share among them"
            raise invalid("device", requirement, setup.config.device, remedy)
        self.device_type = setup.device_type
        n_gpus = torch.cuda.device_count()
        if self.device_type == "cuda" and n_gpus < n_here():
            requirement = f"be at most {n_gpus}, the number of GPUs here"
            raise invalid("--nproc-per-node", requirement, n_here(), "or give --device cpu")
        return replace(setup, executor=self)

    def train(
        self,
        assignment: Assignment,
        setup: Setup,
        *,
        after_training: TrainingDone,
        after_epoch: EpochDone | None = None,
    ) -> None:
        """Train candidates, here and in all other processes; see `carry_out`."""
        self._send(assignment, setup)
        setup = replace(setup, executor=None, world=self.group)
        local = Local()
        local.train(assignment, setup, after_training=after_training, after_epoch=after_epoch)

    def _send(self, assignment: Assignment, setup: Setup) -> None:
        # Nobody asks the others for networks, nor for what theirs say of the samples.
        theirs = replace(assignment, n_kept=0, n_tracked=0)
        is_new = setup.data is not self._data or setup.weights is not self._weights
        metric = setup.metric if setup.metric is not self._metric else None
        light = {name: getattr(setup, name) for name in LIGHT}
        light["normaliser"] = replace(setup.normaliser)  # without its tensors on this one's GPU
        description = (setup.data.class_names, setup.data.validation.label_status)
        try:
            self.group.from_first(
                (theirs, light, description if is_new else None, setup.metric is not None, metric)
            )
        except LostProcessError:
            raise
        except Exception as error:  # what cannot be pickled raises errors of many kinds
            raise InputError(
                f"the method or the metric cannot travel to the other processes "
                f"({first_line(error)}); define its functions at the top of a module."
            ) from error
        if is_new:
            splits = [getattr(setup.data, name) for name in SPLITS]
            tensors = [getattr(one, name, None) for one in splits for name in ("inputs", "labels")]
            self.group.tensors_from_first([*tensors, setup.weights])
        self._data, self._weights, self._metric = setup.data, setup.weights, setup.metric

    def _why(self, lost: LostProcessError) -> str:
        """What the lost process has said, or else that it is gone."""
        try:
            self._store.wait([FAILED], GRACE)
            said: bytes = self._store.get(FAILED)
        except RuntimeError:  # it was killed, or its machine is gone
            return str(lost)
        return said.decode()

    # In the others -----------------------------------------------------------------------------

    def follow(self) -> int:
        """Train along until the first process ends.

        Signals are the first process's to hear: it saves the epoch, and ends.

        Returns
        -------
        int
            The exit code.
        """
        heard = {one: signal.signal(one, signal.SIG_IGN) for one in (signal.SIGINT, signal.SIGTERM)}
        try:
            while (message := self.group.from_first(None)) is not None:
                self._train_along(*message)
        except LostProcessError:  # the first process says why it ends, or nobody can
            return 0
        except BaseException as error:
            place = f"process {self.group.rank + 1} of {self.group.size}"
            self._store.set(FAILED, f"{place}: {first_line(error)}.")
            with suppress(RuntimeError):
                torch.distributed.destroy_process_group()  # the first one hears of it at once
            if not isinstance(error, InputError):
                raise
            for number, handler in heard.items():
                signal.signal(number, handler)
            time.sleep(BEHIND)  # torchrun ends all as soon as one ends
            return 1
        return 0

    def _train_along(
        self,
        assignment: Assignment,
        light: Mapping[str, Any],
        description: tuple[Any, Any] | None,
        has_metric: bool,
        metric: Any,
    ) -> None:
        if description is not None:
            *tensors, self._weights = self.group.tensors_from_first([])
            self._data = _data_of(tensors, *description)
        known = self._metric if metric is None else metric
        self._metric = known if has_metric else None
        if self._data is None:
            raise ValueError("a training without data")
        setup = Setup(
            data=self._data,
            model=get_model(light["model_name"]),
            folder=None,
            weights=self._weights,
            metric=self._metric,
            world=self.group,
            **light,
        )
        Local().train(assignment, setup, after_training=_forget)


def _data_of(tensors: list[Any], class_names: tuple[str, ...], status: Any) -> Data:
    """What training needs of a data set, from inputs and labels of each split."""
    train, validation, test = (
        None if inputs is None else Split(inputs, labels)
        for inputs, labels in zip(tensors[::2], tensors[1::2], strict=True)
    )
    if train is None or validation is None:
        raise ValueError("data without training or validation samples")
    return Data(train, replace(validation, label_status=status), test, class_names)


def _forget(outcome: Outcome) -> None:
    """The first process has the same."""
