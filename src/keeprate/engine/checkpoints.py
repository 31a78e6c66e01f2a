"""Save and resume: one safetensors file, whole or absent, nothing pickled."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from keeprate.engine.curves import Curves
from keeprate.engine.population import Population
from keeprate.errors import InputError
from keeprate.files import write_atomically

OPTIONAL = ("log_probability", "times_seen", "transition_matrix")  # tensors of a population


def save_tensors(
    path: str | os.PathLike[str], tensors: dict[str, Tensor], metadata: object
) -> None:
    """Write tensors and one JSON value to a safetensors file, atomically."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomically(path, save(contiguous, metadata={"keeprate": json.dumps(metadata)}))


def load_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_tensors` wrote.

    Raises
    ------
    InputError
        If the file is missing, damaged or not keeprate's.
    """
    try:
        with safe_open(Path(path), framework="pt") as file:
            metadata = json.loads((file.metadata() or {})["keeprate"])
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118
    except OSError as error:
        raise InputError(f"{path} could not be read ({error}); check the path.") from error
    except (SafetensorError, KeyError, ValueError) as error:
        raise InputError(
            f"{path} must be a safetensors file written by keeprate, got {error}; it is damaged: "
            "delete it and run again."
        ) from error


def save_population(path: str | os.PathLike[str], population: Population) -> None:
    """Write all that is needed to go on with a population."""
    tensors = {f"networks.{name}": t for name, t in population.networks.state().items()}
    for position, parameter in enumerate(population.networks.parameters()):
        for name, value in population.optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{position}.{name}"] = value
    for name in OPTIONAL:
        if (tensor := getattr(population, name)) is not None:
            tensors[name] = tensor
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
        False if the checkpoint belongs to other candidates or schedules (the population is left as
        it was).
    """
    tensors, metadata = load_tensors(path)
    try:
        epoch, numbers, failed, curves = _progress(metadata)
        if metadata["fingerprint"] != population.fingerprint:
            return False
        population.drop([n for n in population.numbers if n not in numbers])
        population.networks.load_state(
            {
                n.removeprefix("networks."): t
                for n, t in tensors.items()
                if n.startswith("networks.")
            }
        )
        for position, parameter in enumerate(population.networks.parameters()):
            prefix = f"optimizer.{position}."
            state = population.optimizer.state[parameter]
            for name, tensor in tensors.items():
                if name.startswith(prefix):
                    # Adam's step counter stays on the CPU unless it is fused on a GPU.
                    state[name.removeprefix(prefix)] = tensor.to(parameter.device)
        for name in OPTIONAL:
            if name in tensors or getattr(population, name) is not None:
                setattr(population, name, tensors[name].to(population.keep_rates.device))
        population.curves, population.epoch, population.failed = curves, epoch, failed
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise _misfit(path, error) from error
    return True


def load_curves(
    path: str | os.PathLike[str],
) -> tuple[int, list[int], list[int], dict[int, Curves]]:
    """How far a saved population is: its epoch, who is left, who failed, everyone's curves."""
    _, metadata = load_tensors(path)
    try:
        return _progress(metadata)
    except (KeyError, TypeError, ValueError) as error:
        raise _misfit(path, error) from error


def _progress(metadata: dict[str, Any]) -> tuple[int, list[int], list[int], dict[int, Curves]]:
    curves = {int(number): Curves(**value) for number, value in metadata["curves"]}
    return int(metadata["epoch"]), list(metadata["numbers"]), list(metadata["failed"]), curves


def _misfit(path: str | os.PathLike[str], error: Exception) -> InputError:
    return InputError(
        f"{path} does not fit this run ({error}); it is damaged: delete it and run again."
    )
