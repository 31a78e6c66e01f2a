"""Training on a Ray cluster: each task trains some candidates in lockstep on its share of a node.

Ray brings the data to each node once, gives each task its cores or its GPU, and begins the tasks of
a lost node anew on another. Which candidates share a task does not depend on the cluster: the same
seed gives the same numbers, however many nodes there are.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import socket
import sys
import sysconfig
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from threading import current_thread, main_thread
from types import ModuleType
from typing import Any
from uuid import uuid4

import numpy as np
import torch
from torch import Tensor

from keeprate.engine.candidates import (
    Assignment,
    Candidate,
    EpochDone,
    Outcome,
    TrainingDone,
    fingerprint,
)
from keeprate.engine.checkpoints import load_tensors, save_tensors
from keeprate.engine.config import TrainingConfig
from keeprate.engine.executors import Local
from keeprate.engine.outcomes import Packed, pack, result_path, unpack
from keeprate.engine.setup import Setup
from keeprate.engine.tensorboard import CurvesWriter
from keeprate.errors import InputError, Words, check_whole, first_line, invalid, needs
from keeprate.files import write_atomically
from keeprate.stopping import stops_between_epochs

AT_A_TIME = {"cpu": 2, "cuda": 5}
"""Candidates in a task, if nobody says. Lockstep saves little on a core and much on a GPU."""
RETRIES = 10  # of a task whose node or process is lost
PATIENCE = 120.0  # seconds until the cluster must have begun the first task
LOOK = 0.5  # seconds until a stop is heard
SHARED = "checkpoint-shared"  # tells a worker that it sees the run folder
HEAVY = ("data", "weights", "metric", "scorer")  # of a setup: go to each node once
LIGHT = ("model_name", "model", "config", "seed", "folder", "lockstep", "normaliser",
         "checkpoint_seconds", "margin")  # fmt: skip


@dataclass(frozen=True)
class Ray:
    """A Ray cluster, and what each of its tasks gets.

    Attributes
    ----------
    address : str
        "auto" (the cluster of this machine) or host:port.
    cores : int
        Processor cores of a task.
    gpus : float or None
        GPUs of a task: a share below 1, or a whole number. None: 1 if the cluster has any.

    Raises
    ------
    InputError
        If a value is not one of these.
    """

    address: str = "auto"
    cores: int = 1
    gpus: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.address, str) or not self.address.strip():
            remedy = "write auto for the cluster of this machine"
            raise invalid("cluster", "be auto or an address", self.address, remedy)
        check_whole("cores", self.cores, 1)
        gpus = self.gpus
        if gpus is not None and not (0 <= gpus < 1 or (gpus >= 1 and float(gpus).is_integer())):
            raise invalid("gpus", "be a share below 1, or a whole number", gpus, "try 0.5 or 1")


@contextmanager
def trained_on(setup: Setup, cluster: str | Ray | None) -> Iterator[Setup]:
    """Let a cluster train, as long as the context lasts.

    Parameters
    ----------
    setup : Setup
    cluster : str, Ray or None
        An address; None: this process trains.

    Yields
    ------
    Setup
        With the cluster as its executor, and with the precision that "auto" stands for there.

    Raises
    ------
    InputError
        If there is no such cluster, this process is connected to another one, Ray is not installed,
        or no node has what a task needs.
    """
    if cluster is None:
        yield setup
        return
    ray = needs("ray", extra="ray")
    share = cluster if isinstance(cluster, Ray) else Ray(cluster)
    is_ours = not ray.is_initialized()
    if is_ours:
        _connect(ray, share.address)
    else:
        _check_connected(ray, share.address)
    try:
        executor = RayExecutor(ray, share, setup.config)
        config = replace(setup.config, precision=executor.precision)
        yield replace(setup, config=config, executor=executor)
    finally:
        if is_ours:
            ray.shutdown()


def _connect(ray: Any, address: str) -> None:
    heard = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        received = Words(f"{address} ({first_line(error)})")
        remedy = "start one with `ray start --head`, or leave the option out"
        raise invalid("cluster", "be the address of a Ray cluster", received, remedy) from error
    finally:  # Ray's own handler would end the process without a word
        if current_thread() is main_thread() and heard is not None:
            signal.signal(signal.SIGTERM, heard)


def _check_connected(ray: Any, address: str) -> None:
    """Refuse another address than that of the cluster that this process is connected to."""
    theirs = ray.get_runtime_context().gcs_address
    if address != "auto" and _numeric(ray, address) != _numeric(ray, theirs):
        requirement = f"be {theirs}, the cluster that this process is connected to, or auto"
        raise invalid("cluster", requirement, address, "call ray.shutdown() to choose another one")


def _numeric(ray: Any, address: str) -> tuple[str, str]:
    """Host, as an IP address if its name is known, and port."""
    host, _, port = address.rpartition(":")
    try:
        host = socket.gethostbyname(host)
    except OSError:
        return host, port
    return (ray.util.get_node_ip_address() if host.startswith("127.") else host), port


class RayExecutor:
    """Trains on a cluster that this process is connected to; see `trained_on`.

    Attributes
    ----------
    device_type : {"cpu", "cuda"}
        What the tasks train on.
    precision : str
        What they train in.
    """

    def __init__(self, ray: Any, share: Ray, config: TrainingConfig) -> None:
        self._ray, self._cores = ray, int(share.cores)
        gpus = share.gpus
        if gpus is None:
            gpus = float(config.device != "cpu" and ray.cluster_resources().get("GPU", 0) > 0)
        self._gpus = gpus
        self.device_type = "cuda" if gpus else "cpu"
        self._options = {
            "num_cpus": self._cores,
            "num_gpus": gpus,
            "max_retries": RETRIES,
            "scheduling_strategy": "SPREAD",
        }
        self._own = _own_modules()
        self.precision = self._look(config)
        self._token = str(uuid4())
        self._put: tuple[tuple[Any, ...], Any] | None = None  # what lies in the object store

    def train(
        self,
        assignment: Assignment,
        setup: Setup,
        *,
        after_training: TrainingDone,
        after_epoch: EpochDone | None = None,
    ) -> None:
        """Train candidates; see `carry_out`. A result is in the run folder as soon as it is here.

        Raises
        ------
        InputError
            If the cluster has lost a task too often, or something cannot travel to it.
        """
        parts = self._parts(assignment, setup)
        results: dict[int, Packed] = {}
        waiting: dict[Any, int] = {}  # task -> place of its part
        try:
            for place, part in enumerate(parts):
                known = _kept_result(part, setup)
                if known is None:
                    waiting[self._begin(part, setup)] = place
                else:
                    results[place] = known
            for place, part in enumerate(parts):
                while place not in results:
                    with stops_between_epochs():  # what has come is kept before a stop
                        done = self._first_done(list(waiting))
                        arrived = waiting.pop(done)
                        results[arrived] = packed = self._result_of(done)
                        _keep_result(parts[arrived], packed, setup)
                outcomes = list(unpack(results.pop(place), setup))
                if setup.curves_writer is not None:
                    _write_curves(setup.curves_writer, outcomes, part.candidates)
                if after_epoch is not None:
                    after_epoch(setup.config.epochs, len(outcomes))
                for outcome in outcomes:
                    after_training(outcome)
                if not assignment.keep_checkpoints:
                    _forget(part, setup.folder)
        finally:
            for task in waiting:
                self._ray.cancel(task, force=True)

    def _parts(self, assignment: Assignment, setup: Setup) -> list[Assignment]:
        """The assignment of each task: so many candidates, wherever they are trained."""
        size = setup.lockstep or AT_A_TIME[self.device_type]
        return [
            replace(
                assignment,
                candidates=assignment.candidates[start : start + size],
                n_kept=max(0, assignment.n_kept - start),
                n_tracked=max(0, assignment.n_tracked - start),
            )
            for start in range(0, len(assignment.candidates), size)
        ]

    def _look(self, config: TrainingConfig) -> str:
        """What precision stands for on the cluster; whether it has what a task needs."""
        ray = self._ray
        config = replace(config, device=self.device_type)
        task = ray.remote(_look_around).options(**self._options).remote(config)
        needed = f"{self._cores} core(s)" + (f" and {self._gpus:g} GPU(s)" if self._gpus else "")
        if self._first_done([task], PATIENCE) is None:
            ray.cancel(task, force=True)
            requirement = f"have a node with {needed} free for a task"
            received = Words(f"none within {PATIENCE:.0f} s")
            remedy = "start nodes, or ask for less"
            raise invalid("the cluster", requirement, received, remedy)
        try:
            theirs, precision = ray.get(task)
        except ray.exceptions.RayError as error:
            raise InputError(
                f"the nodes of the cluster cannot run keeprate ({_last_line(error)}); install the "
                "same version on each."
            ) from error
        if theirs != _versions():
            received, remedy = Words(f"{theirs} there, {_versions()} here"), "install the same"
            raise invalid("the cluster", "have this machine's versions", received, remedy)
        return str(precision)

    def _first_done(self, tasks: list[Any], seconds: float = math.inf) -> Any:
        """The first task that is done, or None after so many seconds.

        Ray makes a SystemError of what a signal's handler raises while Ray waits. So the handler
        takes note only, and is asked between short waits.
        """
        until = time.monotonic() + seconds
        with stops_between_epochs() as signals:
            while time.monotonic() < until:
                done, _ = self._ray.wait(tasks, num_returns=1, timeout=LOOK)
                if done:
                    return done[0]
                signals.raise_if_asked()
        return None

    def _begin(self, part: Assignment, setup: Setup) -> Any:
        """Hand a task to the cluster."""
        light = _light(setup, self.device_type)
        if setup.folder is not None:
            write_atomically(setup.folder / SHARED, self._token)
        share = (self._cores, self._gpus, self._token)
        try:
            with _by_value(self._ray, self._own):
                heavy = self._in_store(setup)
                task = self._ray.remote(_train_there).options(**self._options)
                return task.remote(part, heavy, light, share)
        except TypeError as error:
            raise InputError(
                f"the network, the method, the metric or the pruner cannot travel to the cluster "
                f"({first_line(error)}); define it in a module."
            ) from error

    def _in_store(self, setup: Setup) -> Any:
        """The heavy parts of a setup in the object store, put there once."""
        heavy = tuple(getattr(setup, name) for name in HEAVY)
        if self._put is None or any(a is not b for a, b in zip(self._put[0], heavy, strict=True)):
            with _tensors_as_arrays(self._ray):
                self._put = heavy, self._ray.put(dict(zip(HEAVY, heavy, strict=True)))
        return self._put[1]

    def _result_of(self, task: Any) -> Packed:
        exceptions = self._ray.exceptions
        try:
            packed: Packed = self._ray.get(task)
        except exceptions.RayTaskError as error:
            if isinstance(error.cause, InputError):
                raise InputError(str(error.cause)) from None
            raise
        except exceptions.RayError as error:
            raise InputError(
                f"the cluster could not finish a population ({_last_line(error)}); the same "
                "command goes on, and on a cluster trains no finished population again."
            ) from error
        return packed


# On a worker -----------------------------------------------------------------------------------


def _versions() -> str:
    from keeprate import __version__

    return f"keeprate {__version__} and torch {torch.__version__.partition('+')[0]}"


def _look_around(config: TrainingConfig) -> tuple[str, str]:
    """Versions and precision of a worker."""
    return _versions(), config.resolve_precision(config.resolve_device())


def _train_there(
    part: Assignment, heavy: dict[str, Any], light: dict[str, Any], share: tuple[int, float, str]
) -> Packed:
    """Train candidates in this process, a worker's."""
    cores, gpus, token = share
    torch.set_num_threads(cores)
    if 0 < gpus < 1:
        torch.cuda.set_per_process_memory_fraction(gpus)
    setup = Setup(**heavy, **light)
    if setup.folder is not None and not _is_shared(setup.folder, token):
        setup = replace(setup, folder=None)
    outcomes: list[Outcome] = []
    local = Local(prefix=f"{part.candidates[0].number}-")
    local.train(part, setup, after_training=outcomes.append)
    return pack(outcomes, part.candidates, setup.config.epochs)


def _is_shared(folder: Path, token: str) -> bool:
    """Whether this machine sees the run folder: then checkpoints go there."""
    try:
        return (folder / SHARED).read_text(encoding="utf-8") == token
    except OSError:
        return False


# What the driver keeps -------------------------------------------------------------------------


def _kept_result(part: Assignment, setup: Setup) -> Packed | None:
    """What an interrupted run has kept of these candidates."""
    if setup.folder is None:
        return None
    path = result_path(setup.folder, part.file_name, part.candidates[0].number)
    if not path.exists():
        return None
    tensors, description = load_tensors(path)
    is_same = description.get("fingerprint") == fingerprint(part.candidates)
    return (tensors, description) if is_same else None


def _keep_result(part: Assignment, packed: Packed, setup: Setup) -> None:
    if setup.folder is not None:
        save_tensors(result_path(setup.folder, part.file_name, part.candidates[0].number), *packed)


def _forget(part: Assignment, folder: Path | None) -> None:
    """Remove the files of candidates whose outcomes the caller keeps."""
    if folder is not None:
        number, name = part.candidates[0].number, part.file_name
        result_path(folder, name, number).unlink(missing_ok=True)
        for path in folder.glob(f"checkpoint-{number}-{name}*"):
            path.unlink(missing_ok=True)


def _write_curves(
    writer: CurvesWriter, outcomes: Sequence[Outcome], candidates: Sequence[Candidate]
) -> None:
    rates = {one.number: one.schedule.keep_rate for one in candidates}
    for epoch in range(1, max(len(one.curves) for one in outcomes) + 1):
        going_on = [one for one in outcomes if len(one.curves) >= epoch]
        writer.write(
            epoch,
            {one.number: float(rates[one.number][epoch - 1]) for one in going_on},
            {one.number: one.curves.at(epoch) for one in going_on},
        )
    writer.close()


# What travels ----------------------------------------------------------------------------------


def _light(setup: Setup, device_type: str) -> dict[str, Any]:
    """What goes to a worker with each task; a worker's current folder is another one."""
    light = {name: getattr(setup, name) for name in LIGHT}
    light["config"] = replace(setup.config, device=device_type)
    light["folder"] = None if setup.folder is None else setup.folder.absolute()
    return light


@contextmanager
def _tensors_as_arrays(ray: Any) -> Iterator[None]:
    """Let Ray take tensors for arrays, which all processes of a node read in one place."""
    ray.util.register_serializer(Tensor, serializer=Tensor.numpy, deserializer=_from_array)
    try:
        yield
    finally:
        ray.util.deregister_serializer(Tensor)


def _from_array(array: np.ndarray[Any, Any]) -> Tensor:
    with warnings.catch_warnings():  # the memory is for reading; nobody writes to a data set
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(array)


@contextmanager
def _by_value(ray: Any, modules: Sequence[ModuleType]) -> Iterator[None]:
    """Send the code of modules along, as the nodes need not have it."""
    for module in modules:
        ray.cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in modules:
            ray.cloudpickle.unregister_pickle_by_value(module)


def _own_modules() -> list[ModuleType]:
    """The modules that no installed package brings: the user's, with networks and rules."""
    installed = tuple(f"{path}{os.sep}" for path in sysconfig.get_paths().values())
    own = []
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__dict__", {}).get("__file__")  # a lazy one stays as it is
        is_ours = name == "__main__" or name.partition(".")[0] == "keeprate"
        if file and not is_ours and not os.path.abspath(file).startswith(installed):
            own.append(module)
    return own


def _last_line(error: BaseException) -> str:
    """The last line of a remote error, which names its cause."""
    return first_line(InputError((str(error).strip() or type(error).__name__).splitlines()[-1]))
