"""The classifier that a run leaves: the trained peers, ready to predict."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from keeprate.data import Encoder, InputForm, Inputs, Normaliser, to_inputs
from keeprate.engine import (
    MODEL_NAMES,
    ModelFactory,
    adapt_factory,
    get_model,
    load_tensors,
    probabilities,
    save_tensors,
)
from keeprate.errors import InputError
from keeprate.text import cut

MODEL_FILE = "model.safetensors"
_Side: TypeAlias = Annotated[int, msgspec.Meta(ge=1, lt=2**31)]


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
    encoder : Encoder or None
        What turns the columns of a table into the features of the networks.
    takes_integers : bool
        Whether the networks look integers up, token ids say.

    Examples
    --------
    >>> classifier = load("runs/first")  # doctest: +SKIP
    >>> classifier.predict(["new/1.jpg", "new/2.jpg"])  # doctest: +SKIP
    array(['cat', 'dog'], dtype='<U3')
    """

    modules: list[nn.Module]
    normaliser: Normaliser
    class_names: tuple[str, ...]
    input_shape: tuple[int, ...]
    input_columns: tuple[str, ...] = ()
    encoder: Encoder | None = None
    takes_integers: bool = False

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the C classes, in the order of the probabilities."""
        return self.class_names

    @property
    def form(self) -> InputForm:
        """How the networks take their inputs."""
        return InputForm(
            self.input_shape,
            self.input_columns,
            self.encoder,
            self.takes_integers,
            self.normaliser.pixels,
        )

    def predict_proba(self, samples: Any) -> NDArray[np.float32]:
        """Class probabilities `[N, C]`, averaged over the peers.

        Parameters
        ----------
        samples : array or Tensor [N, ...], DataFrame, or list of N paths of images
            As they were before the training: not scaled, not encoded. A DataFrame is matched by
            the names of its columns. Images are resized as in training.

        Raises
        ------
        InputError
            If the samples do not fit the training.
        """
        return np.asarray(self.probabilities(self.encode(samples)).numpy())

    def predict(self, samples: Any) -> NDArray[np.str_]:
        """The name of the most probable class of each sample, `[N]`; see `predict_proba`."""
        most_probable = self.predict_proba(samples).argmax(1)
        names: NDArray[np.str_] = np.array(self.class_names)[most_probable]
        return names

    def encode(self, samples: Any) -> Tensor:
        """What the networks get of samples, before it is scaled, `[N, *input_shape]`.

        Parameters
        ----------
        samples
            As for `predict_proba`.
        """
        return to_inputs(samples, self.form)

    def probabilities(self, inputs: Inputs) -> Tensor:
        """Class probabilities `[N, C]` of inputs as `encode` gives them."""
        return probabilities(self.modules, inputs, self.normaliser)


@dataclass(frozen=True)
class _Description:
    """What a file says of its networks. JSON is checked against these types."""

    model: str
    n_peers: Annotated[int, msgspec.Meta(ge=1, le=1000)]
    input_shape: Annotated[tuple[_Side, ...], msgspec.Meta(min_length=1)]
    class_names: Annotated[tuple[str, ...], msgspec.Meta(min_length=2)]
    input_columns: tuple[str, ...]
    normaliser: dict[str, Any]
    takes_integers: bool = False
    encoder: list[dict[str, Any]] | None = None


def load(
    folder: str | os.PathLike[str],
    *,
    model: str | Callable[..., nn.Module] | None = None,
    trust_model: bool = False,
) -> Classifier:
    """Read what a run has trained, ready to predict.

    Parameters
    ----------
    folder : path
        Of a finished run.
    model : str or callable, optional
        The factory or `package.module:factory`, where the run had one that is not built in.
    trust_model : bool
        Import and run the `package.module:factory` that the folder names. Do so only if you trust
        whoever wrote the folder: it can name any code on this machine.

    Returns
    -------
    Classifier
        With `predict` and `predict_proba` for arrays, tensors, DataFrames and paths of images,
        `classes`, and the networks and the preprocessing themselves.

    Raises
    ------
    InputError
        If there is no finished run, its file is damaged, or the network needs `model`.
    """
    path = Path(folder) / MODEL_FILE
    if not path.exists():
        raise InputError(
            f"{path} must exist to predict; the run in {folder} has not finished (repeat its "
            "command), or this is no run folder."
        )
    tensors, description = load_tensors(path)
    try:
        about = msgspec.convert(description, _Description)
        shape, names = about.input_shape, about.class_names
        normaliser = Normaliser.from_dict(about.normaliser)
        if normaliser.mean and (len(normaliser.mean), normaliser.n_trailing) not in (
            (shape[0], len(shape) - 1),
            (1, len(shape) - 1),
        ):
            raise ValueError("the normaliser is for other inputs")
        encoder = None if about.encoder is None else Encoder.from_parts(about.encoder, tensors)
        factory = _factory(about.model, model, folder, trust_model=trust_model)
        modules = []
        for peer in range(about.n_peers):
            module = factory(shape, len(names)).eval()
            prefix = f"peer{peer}."
            module.load_state_dict(
                {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
            )
            modules.append(module)
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, RuntimeError, OverflowError, MemoryError) as error:
        reason = cut(str(error), 300)
        raise InputError(
            f"{path} does not fit its model ({reason}); it is damaged, or the model's code changed."
        ) from error
    return Classifier(
        modules,
        normaliser,
        names,
        shape,
        about.input_columns,
        encoder,
        about.takes_integers,
    )


def _factory(
    name: str,
    model: str | Callable[..., nn.Module] | None,
    folder: str | os.PathLike[str],
    *,
    trust_model: bool,
) -> ModelFactory:
    """What builds the networks: what the user gives, else a built-in model that the folder names.

    A folder is data: it must not decide which code runs.
    """
    if isinstance(model, str):
        return get_model(model)
    if model is not None:
        return adapt_factory(model)
    if name not in MODEL_NAMES and not trust_model:
        raise InputError(
            f"the run in {folder} asks for the model {name!r}, which is code outside keeprate; "
            "give it yourself (model=..., --model package.module:factory), or write "
            "trust_model=True if you trust whoever wrote the folder."
        )
    return get_model(name)


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
        "takes_integers": classifier.takes_integers,
    }
    if classifier.encoder is not None:
        description["encoder"], of_encoder = classifier.encoder.to_parts()
        tensors |= of_encoder
    save_tensors(folder / MODEL_FILE, tensors, description)
