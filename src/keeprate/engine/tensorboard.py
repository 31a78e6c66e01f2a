"""Learning curves for TensorBoard, written while candidates train: the extra `tensorboard`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from keeprate.engine.curves import EpochMetrics
from keeprate.errors import InputError

FOLDER = "tensorboard"  # in the run folder


class CurvesWriter:
    """Writes the metrics of a population epoch by epoch, one TensorBoard run for each candidate.

    Parameters
    ----------
    out : path or None
        The run folder.

    Raises
    ------
    InputError
        If there is no run folder, or the package is not installed.
    """

    def __init__(self, out: str | os.PathLike[str] | None) -> None:
        if out is None:
            raise InputError("tensorboard needs a run folder to write to; give out.")
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise InputError(
                "tensorboard is not installed; pip install 'keeprate[tensorboard]', or leave "
                "--tensorboard out."
            ) from error
        self._folder, self._new_writer = Path(out) / FOLDER, SummaryWriter
        self._writers: dict[str, Any] = {}
        self._last_epoch = 0  # that was written
        self._names: Mapping[int, str] = {}

    def name(self, names: Mapping[int, str]) -> None:
        """Name the runs of candidates from now on; a candidate without a name is `trial-NUMBER`."""
        self._names = names

    def write(
        self, epoch: int, keep_rates: Mapping[int, float], metrics: Mapping[int, EpochMetrics]
    ) -> None:
        """Write an epoch, counted from 1.

        Parameters
        ----------
        epoch : int
        keep_rates, metrics : mapping
            By the numbers of the candidates that still train.
        """
        names = {number: self._names.get(number, f"trial-{number:03}") for number in keep_rates}
        begins_anew = epoch <= self._last_epoch  # after a lack of memory, or another group
        gone = self._writers.keys() - set(names.values())
        self._close(list(self._writers) if begins_anew else gone)
        self._last_epoch = epoch
        for number, name in names.items():
            if name not in self._writers:
                # Epochs that a killed run wrote after its last checkpoint are void.
                self._writers[name] = self._new_writer(str(self._folder / name), purge_step=epoch)
            writer = self._writers[name]
            writer.add_scalar("keep_rate", keep_rates[number], epoch)
            for measure, value in asdict(metrics[number]).items():
                if measure != "epoch" and value is not None:
                    writer.add_scalar(measure, value, epoch)
            writer.flush()

    def close(self) -> None:
        """Close all files, at the end of a training."""
        self._close(list(self._writers))

    def _close(self, names: Iterable[str]) -> None:
        for name in names:
            self._writers.pop(name).close()
