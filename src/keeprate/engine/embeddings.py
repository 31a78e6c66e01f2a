"""Embeddings: what a network says of a picture before its last layer names a class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from keeprate.data import Normaliser
from keeprate.engine.heads import head_of, headless
from keeprate.engine.metrics import Autocast
from keeprate.engine.networks import Networks
from keeprate.errors import Words, invalid
from keeprate.verification import Pairs, folds_of, pair_accuracy

_BATCH = 256  # images in a batch, besides their mirror images


def embed(modules: Sequence[nn.Module], images: Tensor, normaliser: Normaliser) -> Tensor:
    """L2-normalised sums of the embeddings of pictures and of their mirror images.

    The embedding of a picture is the input of a network's last linear layer. Those of several
    networks (peers) are L2-normalised each and stand one behind the other.

    Parameters
    ----------
    modules : sequence of R nn.Module
        On one device, and in evaluation mode: they are used as they are.
    images : Tensor [M, C, H, W] of uint8
        On any device.
    normaliser : Normaliser
        That of the networks' training.

    Returns
    -------
    Tensor [M, R * D] of float32
        On the CPU.

    Raises
    ------
    InputError
        If a network has no linear layer, or it gets no vectors.
    """
    device = next((p.device for p in modules[0].parameters()), torch.device("cpu"))

    def of_batch(batch: Tensor) -> Tensor:
        each = []
        for module in modules:
            with headless(module):
                each.append(module(batch))
        return torch.stack(each)

    found = _with_mirrored(of_batch, images.to(device), normaliser)  # [R, M, D]
    return _unit(torch.cat(list(found), 1)).cpu()


def _with_mirrored(
    of_batch: Callable[[Tensor], Tensor],
    images: Tensor,
    normaliser: Normaliser,
    autocast: Autocast = nullcontext,
) -> Tensor:
    """Unit embeddings of each network, picture and mirror image together, `[..., M, D]`."""
    pieces = []
    for batch in images.split(_BATCH):
        upright = normaliser(batch)
        with torch.no_grad(), autocast():
            found = of_batch(torch.cat([upright, upright.flip(-1)]))
        if found.ndim < 3:
            received = Words(f"shape {tuple(found.shape[1:])}")
            remedy = "give a model that ends in a linear layer"
            raise invalid("the inputs of the last linear layer", "be [B, D]", received, remedy)
        both, mirrored = found.float().chunk(2, dim=-2)
        pieces.append(_unit(both + mirrored))
    return torch.cat(pieces, -2)


def _unit(vectors: Tensor) -> Tensor:
    return nn.functional.normalize(vectors, dim=-1)


class PairAccuracy:
    """A metric for a search: accuracy on pairs of pictures over their folds.

    Each network is scored by itself; `keeprate verify` joins the embeddings of peers. Pixels in
    0..255 are scaled as those of the training, also where these were in [0, 1].

    Parameters
    ----------
    pairs : Pairs
        Of people who are in neither the training nor the test data. Their pictures have the shape
        of the training images.

    Raises
    ------
    InputError
        If there are too few pairs.
    """

    name = "pair accuracy"
    worst = 0.0

    def __init__(self, pairs: Pairs) -> None:
        self.pairs = pairs
        self._folds = folds_of(pairs)
        self._images: dict[torch.device, Tensor] = {}  # by device

    def check(self, module: nn.Module, input_shape: tuple[int, ...]) -> None:
        """Refuse pictures of another shape, and networks without a linear layer."""
        head_of(module)
        self.pairs.check_shape(input_shape)

    def fingerprint(self) -> str:
        """SHA-256 of pictures, pairs and folds, in hexadecimal."""
        return self.pairs.fingerprint()

    def __call__(
        self,
        networks: Networks,
        normaliser: Normaliser,
        autocast: Autocast = nullcontext,
    ) -> Tensor:
        """Accuracy of every network, `[K, R]`, in [0, 1]."""
        device = networks.device
        if device not in self._images:
            self._images[device] = self.pairs.images.to(device)
        images, scaled = self._images[device], normaliser.for_bytes()
        embeddings = _with_mirrored(networks.embeddings, images, scaled, autocast)
        return pair_accuracy(embeddings, self.pairs, self._folds)
