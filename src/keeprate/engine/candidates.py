"""Candidates in, results out: what whoever trains is given, and what comes back."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from keeprate.engine.curves import Curves
from keeprate.engine.folds import Supervision
from keeprate.engine.methods import Method
from keeprate.schedules import Schedule


@dataclass(frozen=True)
class Candidate:
    """One training: a schedule, and the method that follows it.

    Attributes
    ----------
    number : int
        Of the trial or the final training; initial weights depend on it.
    schedule : Schedule
        A keep rate for each epoch of the training.
    method : Method
    supervision : Supervision or None
        What the peers learn from, if each leaves out a fold. All candidates of a population have
        one, or none has.
    """

    number: int
    schedule: Schedule
    method: Method
    supervision: Supervision | None = None


def fingerprint(candidates: Sequence[Candidate]) -> str:
    """Hash of all numbers, schedules and supervisions, in hexadecimal."""
    digest = hashlib.sha256(repr([candidate.number for candidate in candidates]).encode())
    for candidate in candidates:
        digest.update(candidate.schedule.keep_rate.tobytes())
    for candidate in candidates:
        if candidate.supervision is not None:
            digest.update(candidate.supervision.digest())
    return digest.hexdigest()


Stops = Callable[[Mapping[int, Curves], int], list[int]]
"""The curves of all candidates that began together and the epoch, from 1 -> the numbers of those
that stop. It depends on its arguments alone, and may be asked in another process."""


@dataclass(frozen=True, eq=False)  # tensors have no single truth value
class Assignment:
    """Candidates to train, and how.

    Attributes
    ----------
    candidates : sequence of Candidate
        Their methods have the same number of networks, and all correct the loss or none.
    stream : str
        Separates uses of one seed.
    order : int
        Which sequence of batches all candidates see.
    keep_checkpoints : bool
        Whether each population has a checkpoint file of its own; for callers that keep a finished
        population nowhere else.
    n_kept : int
        For how many candidates, from the first on, the trained networks are wanted.
    n_tracked : int
        For how many candidates, from the first on, `Population.log_probability` is kept.
    stops : callable or None
        Asked at the end of each epoch of a population which of its candidates stop.
    name : str
        Of the checkpoints; the stream if left out.
    """

    candidates: Sequence[Candidate]
    stream: str
    order: int = 0
    keep_checkpoints: bool = False
    n_kept: int = 0
    n_tracked: int = 0
    stops: Stops | None = None
    name: str = ""

    @property
    def file_name(self) -> str:
        """What the names of its files begin with."""
        return self.name or self.stream


@dataclass(frozen=True, eq=False)
class Outcome:
    """What the training of one candidate gives.

    Attributes
    ----------
    number : int
        The candidate's.
    curves : Curves
    is_failed : bool
        Whether the loss was no longer finite.
    networks : tuple of R nn.Module
        On the CPU, ready to predict. Empty if nobody wants them, or if the training was not
        finished.
    log_probability : Tensor [n_train, C] or None
        On the CPU, as in `Population`; None if it was not tracked.
    times_seen : Tensor [n_train] or None
    transition_matrix : Tensor [C, C] or None
        On the CPU: by which the loss was corrected, if it was.
    """

    number: int
    curves: Curves
    is_failed: bool
    networks: tuple[nn.Module, ...] = ()
    log_probability: Tensor | None = None
    times_seen: Tensor | None = None
    transition_matrix: Tensor | None = None


EpochDone = Callable[[int, int], None]
"""An epoch, from 1, and how many candidates have come so far together."""
TrainingDone = Callable[[Outcome], None]
