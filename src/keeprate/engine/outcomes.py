"""Outcomes as tensors and JSON: how they travel between machines, and how they are kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from keeprate.engine.candidates import Candidate, Outcome, fingerprint
from keeprate.engine.checkpoints import below
from keeprate.engine.curves import Curves
from keeprate.engine.networks import weights_of, with_weights
from keeprate.engine.setup import Setup
from keeprate.seeding import forked_seed

TENSORS = ("log_probability", "times_seen", "transition_matrix")
"""Attributes of an outcome that are a tensor or None."""

Packed = tuple[dict[str, Tensor], dict[str, Any]]
"""Tensors, and a description that JSON can hold."""


def result_path(folder: Path, stream: str, number: int) -> Path:
    """The file of a finished population; `number` is that of its first candidate."""
    return folder / f"checkpoint-{stream}-result-{number}.safetensors"


def result_paths(folder: Path, stream: str) -> list[Path]:
    """The files of all finished populations of a stream."""
    return sorted(folder.glob(f"checkpoint-{stream}-result-*.safetensors"))


def pack(outcomes: Sequence[Outcome], candidates: Sequence[Candidate], epochs: int) -> Packed:
    """Turn the outcomes of candidates that trained together into tensors and plain values.

    The description begins as that of a checkpoint (`save_population`), so that `load_curves` reads
    both.
    """
    tensors: dict[str, Tensor] = {}
    for outcome in outcomes:
        for peer, module in enumerate(outcome.networks):
            for name, tensor in weights_of(module).items():
                tensors[f"{outcome.number}.network.{peer}.{name}"] = tensor.detach()
        for name in TENSORS:
            if (tensor := getattr(outcome, name)) is not None:
                tensors[f"{outcome.number}.{name}"] = tensor
    failed = [outcome.number for outcome in outcomes if outcome.is_failed]
    trained = [one.number for one in outcomes if len(one.curves) == epochs and not one.is_failed]
    description = {
        "fingerprint": fingerprint(candidates),
        "numbers": trained,
        "epoch": epochs,
        "failed": failed,
        "curves": [[outcome.number, asdict(outcome.curves)] for outcome in outcomes],
        "networks": {outcome.number: len(outcome.networks) for outcome in outcomes},
    }
    return tensors, description


def unpack(packed: Packed, setup: Setup) -> Iterator[Outcome]:
    """The outcomes that `pack` was given.

    Raises
    ------
    KeyError, TypeError, ValueError
        If the description is not that of outcomes.
    """
    tensors, description = packed
    of_number = {int(number): n for number, n in description["networks"].items()}
    for number, curves in description["curves"]:
        networks = []
        for peer in range(of_number[number]):
            with forked_seed(setup.seed):  # the weights that it draws are replaced
                module = setup.build()
            networks.append(with_weights(module, below(tensors, f"{number}.network.{peer}.")))
        others = {name: tensors.get(f"{number}.{name}") for name in TENSORS}
        is_failed = number in description["failed"]
        yield Outcome(number, Curves(**curves), is_failed, tuple(networks), **others)
