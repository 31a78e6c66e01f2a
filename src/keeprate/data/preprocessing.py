"""Batches scaled for networks: float32 of about unit scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from keeprate.data.rows import Inputs
from keeprate.errors import Words, invalid

_HALF = 127.5  # of 255


@dataclass(frozen=True)
class Normaliser:
    """Scales batches, so that a large data set is never copied.

    Attributes
    ----------
    kind : {"uint8", "standardise", "none"}
        "uint8": x / 255, as in the paper. "standardise": (x - mean) / scale, for each feature of
        vectors and for each channel of images. "none": x itself; integers stay integers.
    mean : tuple of float
        D or C means. Empty for the other kinds.
    scale : tuple of float
        D or C standard deviations, or 1 for a constant feature. Empty for the other kinds.
    n_trailing : int
        The number of axes after the axis of features or channels: 0 for vectors, 2 for images.

    Raises
    ------
    InputError
        If the kind is unknown, or `mean` and `scale` differ in length.

    Examples
    --------
    >>> Normaliser.fit(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))(torch.tensor([[3.0, 5.0]]))
    tensor([[1., 0.]])
    """

    kind: str = "uint8"
    mean: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    n_trailing: int = 0
    _tensors: dict[torch.device, tuple[Tensor, Tensor]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        if self.kind not in ("uint8", "standardise", "none") or len(self.mean) != len(self.scale):
            received = f"{self.kind} with {len(self.mean)} means and {len(self.scale)} scales"
            requirement = "be uint8, none, or standardise with a scale for each mean"
            raise invalid("normaliser", requirement, Words(received), "fit it again")

    @classmethod
    def fit(cls, inputs: Inputs, *, is_scaled: Sequence[bool] | None = None) -> Normaliser:
        """Measure the training inputs, piece by piece in float64.

        Parameters
        ----------
        inputs : Tensor or Rows [N, D] or [N, C, ...]
            uint8 or float32, N >= 1.
        is_scaled : sequence of D bool, optional
            False: the feature has its own scale (a mark, a part of a text) and stays as it is.

        Raises
        ------
        InputError
            If there are no inputs.
        """
        if not inputs.numel() or inputs.ndim < 2:
            received = Words(f"shape {tuple(inputs.shape)}")
            raise invalid("inputs", "be [N, ...] with N >= 1", received, "give some")
        if inputs.dtype == torch.uint8:
            return cls()
        axes = (0, *range(2, inputs.ndim))
        step = max(1, 2**20 // max(1, inputs[0].numel()))
        starts = range(0, len(inputs), step)
        n = inputs.numel() / inputs.shape[1]
        total = torch.zeros(inputs.shape[1], dtype=torch.float64, device=inputs.device)
        low, high = inputs[:1].amin(axes), inputs[:1].amax(axes)
        for start in starts:
            piece = inputs[start : start + step]
            total += piece.double().sum(axes)
            low, high = torch.minimum(low, piece.amin(axes)), torch.maximum(high, piece.amax(axes))
        mean, squares = total / n, torch.zeros_like(total)
        centre = mean.view(-1, *[1] * (inputs.ndim - 2))
        for start in starts:
            squares += (inputs[start : start + step].double() - centre).square().sum(axes)
        # Rounding leaves a constant feature a tiny deviation, and dividing by it would amplify
        # noise.
        scale = (squares / n).sqrt().masked_fill(low == high, 1.0)
        if is_scaled is not None:
            kept = ~torch.tensor(is_scaled, device=inputs.device)
            mean, scale = mean.masked_fill(kept, 0.0), scale.masked_fill(kept, 1.0)
        return cls(
            "standardise",
            tuple(mean.float().tolist()),
            tuple(scale.float().clamp_min(torch.finfo(torch.float32).tiny).tolist()),
            inputs.ndim - 2,
        )

    @classmethod
    def centred(cls, input_shape: tuple[int, ...]) -> Normaliser:
        """Take pixels x in 0..255 to (x / 255 - 0.5) / 0.5.

        >>> Normaliser.centred((1, 1, 2))(torch.tensor([[[[0, 255]]]], dtype=torch.uint8))
        tensor([[[[-1.,  1.]]]])
        """
        half = (_HALF,) * input_shape[0]
        return cls("standardise", half, half, len(input_shape) - 1)

    def __call__(self, batch: Tensor) -> Tensor:
        """Return a batch [B, ...] on its own device, as float32 unless the kind is "none"."""
        if self.kind == "none":
            return batch
        if self.kind == "uint8":
            return batch.to(torch.float32) / 255
        if batch.device not in self._tensors:  # once for each device, not for each batch
            shape = (-1, *[1] * self.n_trailing)
            self._tensors[batch.device] = (
                torch.tensor(self.mean, device=batch.device).view(shape),
                torch.tensor(self.scale, device=batch.device).view(shape),
            )
        mean, scale = self._tensors[batch.device]
        return (batch.to(torch.float32) - mean) / scale

    @property
    def pixels(self) -> Literal["bytes", "units", ""]:
        """What the inputs are: pixels in 0..255, images in [0, 1], or other numbers ("")."""
        if self.kind == "uint8":
            return "bytes"
        if not self.mean or self.n_trailing != 2:
            return ""
        if {*self.mean, *self.scale} == {_HALF}:
            return "bytes"
        return "units" if all(0 <= mean <= 1 for mean in self.mean) else ""

    def for_bytes(self) -> Normaliser:
        """The normaliser for images in bytes, where the training images were bytes or in [0, 1].

        Raises
        ------
        InputError
            If the training inputs were others.
        """
        if self.pixels == "bytes":
            return self
        if self.pixels == "units":  # (x / 255 - mean) / scale
            mean, scale = (tuple(255 * one for one in v) for v in (self.mean, self.scale))
            return replace(self, mean=mean, scale=scale)
        requirement = "be images with pixels in 0 to 255 or in [0, 1]"
        raise invalid(
            "the training inputs", requirement, Words("others"), "give images as they are"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values; `from_dict` restores the same normaliser, bit for bit."""
        return {
            "kind": self.kind,
            "mean": list(self.mean),
            "scale": list(self.scale),
            "n_trailing": self.n_trailing,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Normaliser:
        """Restore what `to_dict` returned.

        Raises
        ------
        InputError
            If `values` is something else.
        """
        try:
            mean, scale = (tuple(map(float, values[name])) for name in ("mean", "scale"))
            kind, n_trailing = values["kind"], int(values["n_trailing"])
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            received = Words(f"an object that fails with {type(error).__name__}: {error}")
            raise invalid(
                "normaliser", "be what to_dict gives", received, "fit it again"
            ) from error
        return cls(kind, mean, scale, n_trailing)
