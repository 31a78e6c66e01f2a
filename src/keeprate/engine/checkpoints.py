"""Save and resume: one safetensors file, whole or absent, nothing pickled."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from keeprate.engine.curves import Curves
from keeprate.engine.population import Population
from keeprate.errors import InputError
from keeprate.files import write_atomically
from keeprate.text import cut

NO_PROGRESS = (KeyError, TypeError, ValueError, OverflowError)
"""What an edited description of the progress raises."""
CODES = {
    torch.complex64: "C64",
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint64: "U64",
    torch.uint32: "U32",
    torch.uint16: "U16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""What safetensors calls the types of numbers."""
OPTIONAL = ("log_probability", "times_seen", "transition_matrix")
"""Attributes of a population that are a tensor or None."""


def save_tensors(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: object
) -> None:
    """Write tensors and one JSON value to a safetensors file, with a checksum, atomically."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(metadata)
    described = {"keeprate": text, "sha256": _digest(contiguous, text)}
    write_atomically(path, _safetensors(contiguous, described))


def _safetensors(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Iterator[bytes]:
    """A safetensors file, tensor by tensor: safetensors itself would hold all of them twice."""
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))  # aligned
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    end = 0
    for name in names:
        tensor = tensors[name]
        start, end = end, end + tensor.numel() * tensor.element_size()
        kind = CODES[tensor.dtype]
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for name in names:
        yield tensors[name].reshape(-1).view(torch.uint8).numpy().data  # type: ignore[misc]


def _digest(tensors: Mapping[str, Tensor], text: str) -> str:
    """SHA-256 of a JSON text and of contiguous tensors, in hexadecimal."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def load_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the tensors and the JSON value that `save_tensors` wrote.

    Raises
    ------
    InputError
        If the file is missing or damaged, or if keeprate did not write it.
    """
    try:
        with safe_open(Path(path), framework="pt") as file:
            described = file.metadata() or {}
            metadata = json.loads(described["keeprate"])
            if not isinstance(metadata, dict):
                raise TypeError(f"a description of type {type(metadata).__name__}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except OSError as error:
        raise InputError(f"{path} could not be read ({error}); check the path.") from error
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        reason = cut(str(error), 300)
        raise InputError(
            f"{path} must be a safetensors file written by keeprate, got {reason}; it is damaged: "
            "delete it and run again."
        ) from error
    expected = described.get("sha256")  # files of earlier versions have none
    if expected is not None and _digest(tensors, described["keeprate"]) != expected:
        raise InputError(
            f"{path} is not what keeprate wrote (its checksum differs): it is damaged; delete it "
            "and run again."
        )
    return tensors, metadata


def save_population(path: str | os.PathLike[str], population: Population) -> None:
    """Write everything that a population needs to go on."""
    tensors = {f"networks.{name}": t for name, t in population.networks.state().items()}
    for position, parameter in enumerate(population.networks.parameters()):
        for name, value in population.optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{position}.{name}"] = value
    for name in OPTIONAL:
        if (tensor := getattr(population, name)) is not None:
            tensors[name] = tensor
    if population.best is not None:
        tensors |= {f"best.{name}": tensor for name, tensor in population.best.state().items()}
    metadata = {
        "fingerprint": population.fingerprint,
        "numbers": population.numbers,
        "epoch": population.epoch,
        "failed": population.failed,
        "curves": [[number, asdict(curves)] for number, curves in population.curves.items()],
    }
    save_tensors(path, tensors, metadata)


def load_population(path: str | os.PathLike[str], population: Population) -> bool:
    """Bring a fresh population to where the checkpoint stands.

    Returns
    -------
    bool
        False if the checkpoint belongs to other candidates or schedules; the population is then
        as it was.

    Raises
    ------
    InputError
        If the file is missing or damaged, or if its tensors do not fit the population.
    """
    tensors, metadata = load_tensors(path)
    try:
        epoch, numbers, failed, curves = _read_progress(metadata)
        if metadata["fingerprint"] != population.fingerprint:
            return False
        population.drop([number for number in population.numbers if number not in numbers])
        population.networks.load_state(below(tensors, "networks."))
        for position, parameter in enumerate(population.networks.parameters()):
            state = population.optimizer.state[parameter]
            for name, tensor in below(tensors, f"optimizer.{position}.").items():
                # The averages go where the parameter is, in its order of axes in memory; so does
                # Adam's step counter, as the fused optimiser wants it.
                if tensor.shape == parameter.shape:
                    state[name] = torch.empty_like(parameter, dtype=tensor.dtype).copy_(tensor)
                else:
                    state[name] = tensor.to(parameter.device)
        for name in OPTIONAL:
            if name in tensors or getattr(population, name) is not None:
                setattr(population, name, tensors[name].to(population.keep_rates.device))
        if population.best is not None:
            population.best.load_state(below(tensors, "best."))
        population.curves, population.epoch, population.failed = curves, epoch, failed
    except (*NO_PROGRESS, RuntimeError) as error:
        raise _misfit(path, error) from error
    return True


def load_curves(
    path: str | os.PathLike[str],
) -> tuple[int, list[int], list[int], dict[int, Curves]]:
    """Read how far a saved population is.

    Returns
    -------
    epoch : int
        Epochs done.
    numbers : list of int
        Candidates that still train.
    failed : list of int
        Candidates whose loss was no longer finite.
    curves : dict of int to Curves
        Of all candidates, by number.

    Raises
    ------
    InputError
        If the file is missing or damaged.
    """
    _, metadata = load_tensors(path)
    try:
        return _read_progress(metadata)
    except NO_PROGRESS as error:
        raise _misfit(path, error) from error


def below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names start with `prefix`, by the rest of their names."""
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


def _read_progress(metadata: dict[str, Any]) -> tuple[int, list[int], list[int], dict[int, Curves]]:
    curves = {int(number): Curves(**value) for number, value in metadata["curves"]}
    return int(metadata["epoch"]), list(metadata["numbers"]), list(metadata["failed"]), curves


def _misfit(path: str | os.PathLike[str], error: Exception) -> InputError:
    return InputError(
        f"{path} does not fit this run ({cut(str(error), 300)}); it is damaged: delete it "
        "and run again."
    )
