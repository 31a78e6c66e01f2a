"""The weights of each candidate's best epoch."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from keeprate.engine.networks import Networks


class BestEpoch:
    """Keeps the weights of the epoch with the best validation score so far, on the device.

    Of equal epochs the first is kept. The host does not wait for the device.

    Parameters
    ----------
    networks : Networks
        At the beginning of their training.

    Attributes
    ----------
    score : Tensor [K]
    weights : dict of str to Tensor
        A snapshot of the networks.
    """

    def __init__(self, networks: Networks) -> None:
        self.score = torch.full((networks.n_candidates,), -torch.inf, device=networks.device)
        self.weights = networks.snapshot()

    def update(self, score: Tensor, networks: Networks) -> None:
        """Enter the scores [K] of an epoch that the networks have just finished."""
        is_better = score > self.score  # NaN never is
        self.score = torch.where(is_better, score, self.score)
        networks.renew(self.weights, is_better.repeat_interleave(networks.n_peers))

    def keep(self, candidates: list[int], networks: Networks) -> None:
        """Keep these rows; called before the networks drop the others."""
        rows = [c * networks.n_peers + peer for c in candidates for peer in range(networks.n_peers)]
        self.score = self.score[candidates]
        self.weights = networks.rows_of(self.weights, torch.tensor(rows, device=networks.device))

    def state(self) -> dict[str, Tensor]:
        """Scores and weights, as plain tensors."""
        return {"score": self.score} | {f"weights.{k}": t for k, t in self.weights.items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state` gave."""
        self.score.copy_(state["score"])
        for name, tensor in self.weights.items():
            tensor.copy_(state[f"weights.{name}"])
