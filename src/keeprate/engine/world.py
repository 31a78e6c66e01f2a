"""The processes that train one population: each computes its share of every batch.

A process that trains alone has the share `WHOLE` of every batch, whose methods give back what they
get. The processes exchange logits, gradients and what batch norm measures, by torch.distributed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from keeprate.data import Inputs
from keeprate.errors import InputError, Words, invalid
from keeprate.mapped import blocks, new_array

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

BUCKET = 2**23
"""Gradients of so many numbers travel together, 32 MiB in float32: small tensors would each take a
message, and one copy of all would take as much memory as the parameters."""
SAME = 1e-5
"""How far sums over the weights of two processes may differ, as shares of the sums of the absolute
values. Processors of one kind give the same bits; those of other kinds round otherwise."""


class Share:
    """What a process computes of a batch of B samples: here, all of it."""

    @property
    def is_part(self) -> bool:
        """Whether other processes compute the rest."""
        return False

    def of(self, batch: Tensor, dim: int = 0) -> Tensor:
        """The own part of what all samples have, along the axis `dim` of the samples."""
        return batch

    def n_all(self, n_own: int) -> int:
        """How long an axis is for all samples that has `n_own` places for those of this process."""
        return n_own

    def gathered(self, own: Tensor, dim: int) -> Tensor:
        """The parts of all processes, side by side along the axis `dim` of the samples.

        Autograd does not follow.
        """
        return own

    def of_each(self, own: Tensor) -> Tensor:
        """A tensor of each process, stacked: `[processes, ...]`."""
        return own[None]

    def add_up(self, tensors: Sequence[Tensor | None]) -> None:
        """Replace tensors by their sums over the processes, in place."""


WHOLE = Share()


class _Part(Share):
    """A contiguous part of the samples; the parts differ by one sample at most."""

    def __init__(self, world: World, n: int) -> None:
        self._world, self._n = world, n
        self._start, end = (n * place // world.size for place in (world.rank, world.rank + 1))
        self._length = end - self._start

    @property
    def is_part(self) -> bool:
        return True

    def of(self, batch: Tensor, dim: int = 0) -> Tensor:
        times = batch.shape[dim] // self._n  # as many places for each sample
        return batch.narrow(dim, times * self._start, times * self._length)

    def n_all(self, n_own: int) -> int:
        times, rest = divmod(n_own, self._length)
        if rest:
            requirement = "have the samples of a batch on the first axis of its inputs"
            received = Words(f"{n_own} there for {self._length} samples")
            remedy = "train in one process, or let the samples come first"
            raise invalid("a dropout", requirement, received, remedy)
        return times * self._n

    def gathered(self, own: Tensor, dim: int) -> Tensor:
        shape = list(own.shape)
        shape[dim] = self._n
        batch = own.new_zeros(shape)
        self.of(batch, dim).copy_(own)
        self._world.add(batch)  # each place is zero but in one process: the sum is exact
        return batch

    def of_each(self, own: Tensor) -> Tensor:
        return self._world.of_each(own)

    def add_up(self, tensors: Sequence[Tensor | None]) -> None:
        bucket, n = list[Tensor](), 0
        for tensor in (one for one in tensors if one is not None):
            if bucket and n + tensor.numel() > BUCKET:
                self._add_bucket(bucket)
                bucket, n = [], 0
            bucket.append(tensor)
            n += tensor.numel()
        if bucket:
            self._add_bucket(bucket)

    def _add_bucket(self, bucket: list[Tensor]) -> None:
        flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
        self._world.add(flat)
        sizes = [tensor.numel() for tensor in bucket]
        for tensor, total in zip(bucket, flat.split(sizes), strict=True):
            tensor.copy_(total.view(tensor.shape))


class World:
    """The processes that train together: here, this one alone.

    Attributes
    ----------
    rank : int
        Of this process, from 0. The first one reads the data, decides, and writes all files.
    size : int
        How many there are.
    """

    rank, size = 0, 1

    def share(self, n: int) -> Share:
        """The share of a batch of n samples that is for this process.

        A batch of fewer samples than processes is computed by each of them.
        """
        return WHOLE if n < self.size or self.size == 1 else _Part(self, n)

    def add(self, tensor: Tensor) -> None:
        """Replace a contiguous tensor by its sum over the processes, the same bits in each."""

    def of_each(self, own: Tensor) -> Tensor:
        """A tensor of each process, stacked: `[processes, ...]`."""
        stacked = own.new_zeros(self.size, *own.shape)
        stacked[self.rank] = own
        self.add(stacked)
        return stacked

    def from_first(self, value: Any) -> Any:
        """What the first process gives, in all of them."""
        return value

    def check_same(self, weights: dict[str, Tensor], device: torch.device) -> None:
        """Refuse networks whose weights are no longer the same in all processes.

        Parameters
        ----------
        weights : dict of str to Tensor
        device : torch.device
            On which processes exchange tensors.

        Raises
        ------
        InputError
            If a layer has kept what it saw of its own part of the batches.
        """
        both = [
            torch.stack([one.sum(), one.abs().sum()]).to(device)
            for one in (tensor.detach().double() for tensor in weights.values())
        ]
        sums, sizes = torch.stack(both, 1)
        differs = (self.of_each(sums) - sums).abs() > SAME * sizes
        if bool(differs.any()):  # NaN in all of them is the same
            first = list(weights)[int(differs.any(0).nonzero()[0])]
            requirement = "be the same in all processes"
            received = Words(f"others after an epoch, in {first}")
            remedy = (
                "train in one process, or leave out layers that keep statistics of a batch and "
                "are no batch norm"
            )
            raise invalid("the networks", requirement, received, remedy)


ALONE = World()


class Group(World):
    """The processes of a torch.distributed group, of which this is one.

    Parameters
    ----------
    rank, size : int
    talk : ProcessGroup
        For what processes tell each other between the trainings: who waits there waits for long.
    """

    def __init__(self, rank: int, size: int, talk: ProcessGroup) -> None:
        self.rank, self.size = rank, size
        self._talk = talk

    def add(self, tensor: Tensor) -> None:
        with _losses_named():
            torch.distributed.all_reduce(tensor)

    def from_first(self, value: Any) -> Any:
        """What the first process gives, in all of them; objects are pickled on their way."""
        box = [value if self.rank == 0 else None]
        with _losses_named():
            torch.distributed.broadcast_object_list(box, src=0, group=self._talk)
        return box[0]

    def tensors_from_first(self, tensors: Sequence[Inputs | None]) -> list[Any]:
        """What the first process gives, in all of them, piece by piece.

        What is large is mapped in each process (`keeprate.mapped`), as it is in the first one.
        """
        kinds = self.from_first([_kind_of(one) for one in tensors])
        found: list[Any] = list(tensors) if self.rank == 0 else [None] * len(kinds)
        for place, kind in enumerate(kinds):
            if kind is None:
                continue
            shape, name = kind
            if self.rank > 0:
                found[place] = torch.from_numpy(new_array(shape, name))
            self._send(found[place], shape)
        return found

    def _send(self, tensor: Inputs, shape: tuple[int, ...]) -> None:
        for some in blocks(shape[0], math.prod(shape[1:]) * tensor.dtype.itemsize):
            piece = tensor[some].cpu().contiguous()  # a view in those that receive it
            with _losses_named():
                torch.distributed.broadcast(piece, src=0, group=self._talk)


def _kind_of(tensor: Inputs | None) -> tuple[tuple[int, ...], str] | None:
    """A shape, and the type of the numbers as NumPy calls it."""
    if tensor is None:
        return None
    return tuple(tensor.shape), str(tensor.dtype).removeprefix("torch.")


class LostProcessError(InputError):
    """Another process is gone, or is as late as if it were."""


@contextmanager
def _losses_named() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise LostProcessError(
            "a process that trained along is gone; the same command goes on from the last "
            "checkpoint."
        ) from error
