"""How many candidates fit in memory at once."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from keeprate.seeding import forked_seed

SHARE = 0.6  # of the free memory: allocators need room, and other processes live here too
COPIES_OF_PARAMETERS = 6  # value, gradient, two moments, and room while optimisers work


def bytes_per_network(build: Callable[[], nn.Module], batch: Tensor) -> int:
    """Memory that one network needs in training, measured by one forward pass.

    Counts the tensors that autograd keeps for the backward pass, each storage once, twice over
    (gradients have the same shapes), and the parameters with their optimiser state.
    """
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with forked_seed(0):
        module = build()
        with saved_tensors_hooks(note, lambda tensor: tensor):
            module(batch)
    own = sum(t.numel() * t.element_size() for t in (*module.parameters(), *module.buffers()))
    return COPIES_OF_PARAMETERS * own + 2 * sum(kept.values())


def free_bytes(device: torch.device) -> int:
    """Free memory of a device (on the CPU: of the machine), in bytes."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + cached
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return min(int(line.split()[1]) * 1024, _container_bytes())
    except OSError:
        pass
    if hasattr(os, "sysconf"):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    return 4 * 2**30  # unknown system: be modest


def _container_bytes() -> int:
    """What a container's own limit (cgroup v2) leaves."""
    try:
        limit, used = (
            Path(f"/sys/fs/cgroup/memory.{name}").read_text().strip() for name in ("max", "current")
        )
        return max(0, int(limit) - int(used))
    except (OSError, ValueError):  # none, or "max"
        return 2**62


def fitting_candidates(
    build: Callable[[], nn.Module], batch: Tensor, *, n_peers: int, device: torch.device
) -> int:
    """How many candidates of `n_peers` networks fit in the free memory; at least 1."""
    needed = n_peers * bytes_per_network(build, batch)
    return max(1, int(SHARE * free_bytes(device)) // max(1, needed))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or on the CPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    signs = ("can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in signs)
