"""The classifier of a run as one ONNX file, for other languages and runtimes."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from typing import Any

import torch
from torch import Tensor, nn

from keeprate import __version__
from keeprate.data import Normaliser
from keeprate.engine import ModelFactory
from keeprate.errors import InputError, Words, first_line, invalid, needs
from keeprate.files import write_atomically
from keeprate.runs.classifier import Classifier, load

INPUT, OUTPUT = "inputs", "probabilities"
BATCH_SIZES = (1, 7, 64)  # of the comparison with PyTorch
TOLERANCE = 1e-5
TRACED_SAMPLES = 3  # neither 1 nor a size that a network is likely to have


class AveragedPeers(nn.Module):
    """What `Classifier.probabilities` computes, as one module: inputs to probabilities.

    Parameters
    ----------
    classifier : Classifier
        Inputs are what its normaliser takes. A classifier that encodes columns first (text to
        numbers, say) is exported from the encoded inputs on, as ONNX gets numbers only.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        normaliser = classifier.normaliser
        self.peers = nn.ModuleList(classifier.modules).eval()
        self.kind = normaliser.kind
        shape = (-1, *[1] * normaliser.n_trailing)
        self.register_buffer("mean", torch.tensor(normaliser.mean).view(shape))
        self.register_buffer("scale", torch.tensor(normaliser.scale).view(shape))

    def forward(self, inputs: Tensor) -> Tensor:
        """Probabilities `[N, C]` of inputs `[N, ...]`, the mean over the peers."""
        batch = inputs
        if self.kind != "none":
            batch = inputs.to(torch.float32)
            is_uint8 = self.kind == "uint8"
            batch = batch / 255 if is_uint8 else (batch - self.mean) / self.scale
        of_each = torch.stack([peer(batch).float().softmax(-1) for peer in self.peers])
        return of_each.mean(0)


def export_onnx(
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    model: str | ModelFactory | None = None,
) -> float | None:
    """Write the classifier of a run to an ONNX file, and compare the file with PyTorch.

    The model maps `inputs` to `probabilities` `[N, C]`, for any N. The scaling of the inputs and
    the mean over the peers are part of it. It takes the inputs as the training got them: float32
    `[N, D]` or `[N, C, H, W]`, not scaled; and uint8 where the training data were uint8, as
    pictures are. Pixels of another scale, such as floats in [0, 1], are then refused by their
    type. Its metadata hold `class_names` and `input_columns` as JSON lists, and
    `keeprate_version`.

    Parameters
    ----------
    folder : path
        The run folder.
    out : path
        The file to write. It is replaced only by a whole and correct one.
    model : str or callable, optional
        As for `keeprate.load`.

    Returns
    -------
    float or None
        The largest difference between a probability of the file and one of PyTorch, over random
        batches of 1, 7 and 64 samples. None where onnxruntime is not installed.

    Raises
    ------
    InputError
        If the run has no classifier, if onnx or onnxscript is not installed, if the network
        cannot be traced, or if a difference is above 1e-5. No file is written then.
    """
    for package in ("onnx", "onnxscript"):
        needs(package, extra="onnx")
    classifier = load(folder, model=model)
    module = AveragedPeers(classifier).eval()
    content = _traced(module, classifier)
    difference = None
    if importlib.util.find_spec("onnxruntime") is not None:
        difference = _largest_difference(content, module, classifier)
    write_atomically(out, content)
    return difference


def _is_uint8(normaliser: Normaliser) -> bool:
    return normaliser.pixels == "bytes"


def _traced(module: AveragedPeers, classifier: Classifier) -> bytes:
    """The file's content: the model and its metadata."""
    example = _random_inputs(classifier, TRACED_SAMPLES)
    batch = torch.export.Dim("batch", min=1)
    try:
        with _quiet():
            program: Any = torch.onnx.export(
                module,
                (example,),
                dynamo=True,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: batch},),
                verbose=False,
            )
            proto = program.model_proto
    except Exception as error:  # tracing runs the network's own code, which may raise anything
        reason = first_line(error.__cause__ or error)
        raise InputError(
            f"The network cannot be written as ONNX ({reason[:500]}); let its forward use tensor "
            "operations only, and no branch on the values or the number of the samples."
        ) from error
    metadata = {
        "class_names": json.dumps(classifier.class_names),
        "input_columns": json.dumps(_input_names(classifier)),
        "keeprate_version": __version__,
    }
    onnx = needs("onnx", extra="onnx")
    onnx.helper.set_model_props(proto, metadata)
    try:
        content: bytes = proto.SerializeToString()
    except ValueError as error:  # protobuf's limit of 2 GiB
        raise InputError(
            f"The network is too large for one ONNX file ({first_line(error)}); train a smaller "
            "one."
        ) from error
    return content


def _input_names(classifier: Classifier) -> tuple[str, ...]:
    """The features of a table in their order; empty for other inputs."""
    encoder = classifier.encoder
    return classifier.input_columns if encoder is None else encoder.feature_names


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's progress, warnings and log lines off the screen."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _random_inputs(classifier: Classifier, n: int) -> Tensor:
    """Inputs `[n, *input_shape]` of the type and about the range of the training's."""
    generator = torch.Generator().manual_seed(n)
    shape, normaliser = (n, *classifier.input_shape), classifier.normaliser
    if _is_uint8(normaliser):
        return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    if classifier.takes_integers:  # token ids: which of them there are is not known
        return torch.zeros(shape, dtype=torch.int64)
    if normaliser.kind == "none":
        return torch.randn(shape, generator=generator)
    axes = (-1, *[1] * normaliser.n_trailing)
    mean, scale = (torch.tensor(x).view(axes) for x in (normaliser.mean, normaliser.scale))
    return mean + scale * torch.randn(shape, generator=generator)


def _largest_difference(content: bytes, module: AveragedPeers, classifier: Classifier) -> float:
    """Run the file and PyTorch on the same inputs, and compare the probabilities.

    Raises
    ------
    InputError
        If onnxruntime refuses the file, or a difference is too large.
    """
    runtime = needs("onnxruntime", extra="onnx")
    largest = 0.0
    try:
        options = runtime.SessionOptions()
        options.log_severity_level = 4  # fatal errors only
        session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        for n in BATCH_SIZES:
            inputs = _random_inputs(classifier, n)
            (found,) = session.run([OUTPUT], {INPUT: inputs.numpy()})
            expected = classifier.probabilities(inputs)
            difference = (torch.from_numpy(found) - expected).abs().max().item()
            largest = max(largest, difference)
    except InputError:
        raise
    except Exception as error:  # onnxruntime's errors have no common class of their own
        raise InputError(
            f"onnxruntime cannot run the written network ({first_line(error)[:500]}); let its "
            "forward use tensor operations only, for any number of samples."
        ) from error
    if not largest <= TOLERANCE:  # NaN is no agreement either
        raise invalid(
            "the ONNX model",
            f"give PyTorch's probabilities up to {TOLERANCE}",
            Words(f"a difference of {largest:.2g}"),
            "let the network's forward depend on its inputs only; no file was written",
        )
    return largest
