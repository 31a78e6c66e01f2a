"""A train step as a CUDA graph: captured once, then started by one call for each batch.

The step of a small network is some ninety kernels of a few microseconds. Python needs longer to
start them than a GPU needs to run them; a graph starts all of them at once. Shapes are static, as
selection rules are masks.
"""

from __future__ import annotations

import functools
import logging
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from keeprate.engine.memory import is_out_of_memory

WARM_UP = 3
"""Steps before the capture: they make the optimiser's state, and libraries choose algorithms."""

log = logging.getLogger(__name__)
_CAPTURING = threading.Lock()  # PyTorch captures one graph at a time


class StepGraph:
    """Runs a step on batch after batch; from the fourth step on as a CUDA graph.

    The first steps are ordinary ones. Whatever a step reads must stay where it is in memory: the
    caller changes the contents of tensors, not the tensors. Where a step waits for the device, or
    cannot be captured, all steps stay ordinary ones.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        Steps within the step.
    generators : list of torch.Generator
        From which the step draws; replaced in place if a capture fails half-way.
    device : torch.device
        A GPU.

    Attributes
    ----------
    reason : str or None
        Why the steps stay ordinary ones, if they do.
    """

    def __init__(
        self, optimizer: Optimizer, generators: list[torch.Generator], device: torch.device
    ) -> None:
        self.reason: str | None = None
        self._optimizer, self._generators, self._device = optimizer, generators, device
        self._states = [generator.get_state() for generator in generators]
        self._rate = torch.zeros((), device=device)
        self._batches: Tensor | None = None
        self._position = torch.zeros(1, dtype=torch.int64, device=device)
        self._n_warm = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        _make_capturable(optimizer, True)

    def run(self, step: Callable[[Tensor], None], batches: Tensor, learning_rate: float) -> None:
        """Run a step on each batch; nothing here waits for the device, but for the capture.

        Parameters
        ----------
        step : callable
            Takes the indices of a batch, [B]. The same at each call.
        batches : int64 Tensor [S, B]
            Of the same shape at each call.
        learning_rate : float
        """
        if self._batches is None:
            self._batches = torch.empty_like(batches)
        rows, position = self._batches, self._position
        rows.copy_(batches)
        position.zero_()
        self._set_learning_rate(learning_rate)

        def next_step() -> None:
            step(rows.index_select(0, position)[0])
            position.add_(1)

        with torch.cuda.device(self._device):
            for _ in range(len(batches)):
                if self._graph is None and self.reason is None:
                    if self._n_warm < WARM_UP:
                        self._warm_up(next_step, learning_rate)
                        continue
                    self._capture(next_step, learning_rate)
                if self._graph is None:
                    next_step()
                else:
                    self._graph.replay()

    def _set_learning_rate(self, rate: float) -> None:
        """Give the optimiser a rate: to a graph as a tensor that it reads."""
        self._rate.fill_(rate)
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate if self.reason is None else rate

    def _warm_up(self, next_step: Callable[[], None], learning_rate: float) -> None:
        """An ordinary step, on the stream of the capture, so that libraries get ready there."""
        self._n_warm += 1
        stream = _side_stream(self._device)
        current = torch.cuda.current_stream(self._device)
        stream.wait_stream(current)
        with torch.cuda.stream(stream), _watched() as warned:
            next_step()
        current.wait_stream(stream)
        has_waited = any("synchronizing" in str(warning.message) for warning in warned)
        if self._n_warm == WARM_UP and has_waited:  # earlier steps may wait: they set things up
            self._give_up("an operation of the step waits for the device", learning_rate)

    def _capture(self, next_step: Callable[[], None], learning_rate: float) -> None:
        graph, current = torch.cuda.CUDAGraph(), torch.cuda.current_stream(self._device)
        states = zip(self._generators, self._states, strict=True)
        drawn_from = [one for one, before in states if not torch.equal(one.get_state(), before)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # newer versions find the generators by themselves
            for generator in drawn_from:
                graph.register_generator_state(generator)
        stream = _side_stream(self._device)
        try:
            with (
                _CAPTURING,
                torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"),
            ):
                next_step()
        except RuntimeError as error:
            torch.cuda.set_stream(current)  # which a failed end of a capture leaves as it was
            causes = list(_causes(error))
            for cause in causes:
                if is_out_of_memory(cause):
                    raise torch.OutOfMemoryError(str(cause)) from error
            # Older versions leave the generators of a failed capture in the midst of it.
            self._generators[:] = [generator.clone_state() for generator in self._generators]
            self._give_up(str(causes[-1]).strip().partition("\n")[0], learning_rate)
        else:
            self._graph = graph

    def _give_up(self, reason: str, learning_rate: float) -> None:
        self.reason = reason
        log.warning("training without a CUDA graph, which is slower: %s", reason)
        _make_capturable(self._optimizer, False)
        self._set_learning_rate(learning_rate)


@functools.cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """One stream for all captures of a device: libraries keep a workspace for each stream."""
    return torch.cuda.Stream(device)


def _make_capturable(optimizer: Optimizer, is_capturable: bool) -> None:
    """Let an optimiser count its steps on the device, where it may count on the host."""
    for group in optimizer.param_groups:
        if "capturable" not in group:
            continue
        group["capturable"] = is_capturable
        for parameter in group["params"]:
            state = optimizer.state.get(parameter, {})
            if "step" in state:
                state["step"] = state["step"].to(parameter.device)


@contextmanager
def _watched() -> Iterator[list[Any]]:
    """Collect warnings, with one for each operation that waits for the device."""
    mode = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            yield warned
    finally:
        torch.cuda.set_sync_debug_mode(mode)
    for warning in warned:
        # The others are not for the user: a capturable optimiser wonders that nothing is captured.
        if not any(word in str(warning.message) for word in ("synchronizing", "capturable")):
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, what it was raised in the handling of, and so on: the last came first."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
