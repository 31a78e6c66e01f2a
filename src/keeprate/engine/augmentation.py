"""Augmentation: each epoch shows each training sample a little differently.

What happens to a sample is drawn for each sample and epoch, from the seed: the same for all
candidates, and the same after a resume. A batch is then transformed as a whole on its device.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from keeprate.data import Inputs
from keeprate.engine.config import Augmentation

NOISES, MOST_NUMBERS = 1_024, 2**24
"""Different noises in an epoch, of which each sample draws one; fewer where these would be more
than so many numbers. Noise for each sample would take as much memory as the samples."""


class Augmenter:
    """Transforms the batches of an epoch.

    What is drawn stays where it is in memory, as a CUDA graph reads it.

    Parameters
    ----------
    augmentation : Augmentation
    n : int
        Training samples.
    input_shape : tuple of int
        Of a sample.
    device : torch.device
    """

    def __init__(
        self,
        augmentation: Augmentation,
        n: int,
        input_shape: tuple[int, ...],
        device: torch.device,
    ) -> None:
        self._crop = augmentation.crop
        self._is_mirrored: Tensor | None = None
        self._offsets: Tensor | None = None
        if augmentation.flip:
            self._is_mirrored = torch.zeros(n, dtype=torch.bool, device=device)
        if augmentation.crop:
            self._offsets = torch.zeros(n, 2, dtype=torch.uint8, device=device)
        self._size = augmentation.noise
        self._noises: Tensor | None = None
        if augmentation.noise:
            n_noises = max(1, min(NOISES, n, MOST_NUMBERS // math.prod(input_shape)))
            self._noises = torch.zeros(n_noises, *input_shape, device=device)
            self._noise_of = torch.zeros(n, dtype=torch.int32, device=device)

    def draw(self, generator: torch.Generator) -> None:
        """Begin an epoch: draw what happens to each sample, on the generator's device."""
        n_places = 2 * self._crop + 1
        for drawn, end in ((self._is_mirrored, 2), (self._offsets, n_places)):
            if drawn is not None:
                on_host = torch.randint(
                    end,
                    drawn.shape,
                    generator=generator,
                    dtype=torch.uint8,
                    pin_memory=drawn.is_cuda,  # the host would wait for the copy of other memory
                )
                drawn.copy_(on_host, non_blocking=True)
        if self._noises is not None:
            noises, pinned = self._noises, self._noises.is_cuda
            options: dict[str, Any] = {"generator": generator, "pin_memory": pinned}
            on_host = torch.randn(noises.shape, **options).mul_(self._size)
            noises.copy_(on_host, non_blocking=True)
            on_host = torch.randint(len(noises), self._noise_of.shape, dtype=torch.int32, **options)
            self._noise_of.copy_(on_host, non_blocking=True)

    def noisy(self, inputs: Tensor, index: Tensor) -> Tensor:
        """Add noise to the normalised samples `inputs` [B, ...], which are those at `index` [B]."""
        return inputs if self._noises is None else inputs + self._noises[self._noise_of[index]]

    def __call__(self, inputs: Inputs, index: Tensor) -> Tensor:
        """The samples `index` [B] of `inputs` [N, ...]; images [N, C, H, W] are transformed."""
        # Faster than an index, which may be of other kinds, too.
        images = inputs.index_select(0, index) if isinstance(inputs, Tensor) else inputs[index]
        if self._is_mirrored is None and self._offsets is None:
            return images
        height, width = images.shape[-2:]
        rows = torch.arange(height, device=images.device).expand(len(index), -1)
        columns = torch.arange(width, device=images.device).expand(len(index), -1)
        if self._offsets is not None:
            down, right = (self._offsets[index].long() - self._crop).split(1, dim=1)
            rows = (rows + down).clamp(0, height - 1)
            columns = (columns + right).clamp(0, width - 1)
        if self._is_mirrored is not None:
            columns = torch.where(self._is_mirrored[index, None], width - 1 - columns, columns)
        # One gather for all: pixel [y, x] of the batch comes from [rows[y], columns[x]].
        places = (rows[:, :, None] * width + columns[:, None, :]).flatten(1)
        shape = (len(index), images.shape[1], height * width)
        return images.reshape(shape).gather(2, places[:, None].expand(shape)).view(images.shape)
