"""The classifier that a run leaves: the trained peers, ready to predict."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from keeprate.data import Normaliser
from keeprate.engine import ModelFactory, get_model, load_tensors, probabilities, save_tensors
from keeprate.errors import InputError, invalid

MODEL_FILE = "model.safetensors"


@dataclass(frozen=True)
class Classifier:
    """The trained peers of a run, ready to predict; their probabilities are averaged.

    Attributes
    ----------
    modules : list of nn.Module
    normaliser : Normaliser
    class_names : tuple of str
    input_shape : tuple of int
    input_columns : tuple of str
        Of a table, in the order that the networks expect.
    """

    modules: list[nn.Module]
    normaliser: Normaliser
    class_names: tuple[str, ...]
    input_shape: tuple[int, ...]
    input_columns: tuple[str, ...] = ()

    def predict_proba(self, inputs: Tensor) -> Tensor:
        """Class probabilities `[N, C]` of inputs `[N, *input_shape]`."""
        if tuple(inputs.shape[1:]) != self.input_shape:
            raise invalid(
                "inputs",
                f"have shape [N, {', '.join(map(str, self.input_shape))}] as in training",
                tuple(inputs.shape),
                "give data of the same kind",
            )
        return probabilities(self.modules, inputs, self.normaliser)

    def predict(self, inputs: Tensor) -> Tensor:
        """Class numbers `[N]`."""
        return self.predict_proba(inputs).argmax(-1)


def load_classifier(
    folder: str | os.PathLike[str], *, model: ModelFactory | None = None
) -> Classifier:
    """Read the classifier of a run folder.

    Parameters
    ----------
    model : callable, optional
        The factory, where the run was given one that is not a name.
    """
    path = Path(folder) / MODEL_FILE
    if not path.exists():
        raise InputError(
            f"{path} must exist to predict; the run in {folder} has not finished (repeat its "
            "command), or this is no run folder."
        )
    tensors, description = load_tensors(path)
    try:
        names: Any = description["class_names"]
        shape: Any = description["input_shape"]
        n_peers: Any = description["n_peers"]
        columns: Any = description["input_columns"]
        normaliser = Normaliser.from_dict(description["normaliser"])
        factory = model or get_model(str(description["model"]))
        modules = []
        for peer in range(n_peers):
            module = factory(tuple(shape), len(names)).eval()
            prefix = f"peer{peer}."
            module.load_state_dict(
                {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
            )
            modules.append(module)
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{path} does not fit its model ({error}); it is damaged, or the model's code changed."
        ) from error
    return Classifier(modules, normaliser, tuple(names), tuple(shape), tuple(columns))


def save_classifier(folder: Path, classifier: Classifier, *, model: str) -> None:
    """Write the peers' weights, and what is needed to build them again, to one file."""
    tensors = {
        f"peer{peer}.{name}": tensor.clone()  # tied weights share memory, which files cannot
        for peer, module in enumerate(classifier.modules)
        for name, tensor in module.state_dict().items()
    }
    description = {
        "model": model,
        "n_peers": len(classifier.modules),
        "input_shape": list(classifier.input_shape),
        "class_names": list(classifier.class_names),
        "input_columns": list(classifier.input_columns),
        "normaliser": classifier.normaliser.to_dict(),
    }
    save_tensors(folder / MODEL_FILE, tensors, description)
