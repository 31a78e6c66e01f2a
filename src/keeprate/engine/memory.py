"""How many candidates fit in memory at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from keeprate.engine.evaluation import EVALUATION_BATCH
from keeprate.limits import free_memory
from keeprate.seeding import forked_seed

SHARE = 0.6  # of the free memory: allocators need room, and so do other processes
EVALUATION_TENSORS = 3  # what a layer reads, what it writes, and room
COPIES_OF_PARAMETERS = 6  # value, gradient, two moments, and room while the optimiser works


def bytes_per_network(build: Callable[[], nn.Module], batch: Tensor, *, evaluated: int = 0) -> int:
    """Estimate the memory that one network needs in training, from one forward pass.

    Counts the tensors that autograd keeps for the backward pass, each storage once, twice over
    (their gradients have the same shapes), and the parameters with their optimiser state.

    Parameters
    ----------
    build : callable
        Builds one network.
    batch : Tensor [B, ...]
    evaluated : int
        Samples that the network predicts at once between the steps, while a CUDA graph keeps what
        its steps need: that takes a few of the largest tensors.
    """
    storage_bytes: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storage_bytes[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # the tensor itself would hold the graph that holds it, for ever

    with forked_seed(0):
        module = build()
        with saved_tensors_hooks(count, lambda tensor: tensor):
            module(batch)
    weights = (*module.parameters(), *module.buffers())
    weight_bytes = sum(tensor.numel() * tensor.element_size() for tensor in weights)
    largest = max(storage_bytes.values(), default=0)
    between_steps = EVALUATION_TENSORS * largest * evaluated // max(1, len(batch))
    return COPIES_OF_PARAMETERS * weight_bytes + 2 * sum(storage_bytes.values()) + between_steps


def free_bytes(device: torch.device) -> int:
    """Free memory in bytes, of a GPU or, for the CPU, of the machine."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + cached
    return free_memory()


def fitting_candidates(
    build: Callable[[], nn.Module], batch: Tensor, *, n_peers: int, device: torch.device
) -> int:
    """How many candidates of `n_peers` networks fit in the free memory; at least 1."""
    evaluated = EVALUATION_BATCH if device.type == "cuda" else 0  # a CPU keeps nothing meanwhile
    needed = n_peers * bytes_per_network(build, batch, evaluated=evaluated)
    return max(1, int(SHARE * free_bytes(device)) // max(1, needed))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out, on a GPU or on the CPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    messages = ("can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(text in str(error) for text in messages)
