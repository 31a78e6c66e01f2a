"""Learning curves for TensorBoard, written while candidates train: the extra `tensorboard`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from keeprate.engine.population import Population
from keeprate.errors import InputError

FOLDER = "tensorboard"  # in the run folder


class CurvesWriter:
    """Writes the newest epoch of a population, one TensorBoard run for each candidate.

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
        self._folder, self._open = Path(out) / FOLDER, SummaryWriter
        self._writers: dict[str, Any] = {}
        self._epoch = 0  # of what was written last
        self._names: Mapping[int, str] = {}

    def name(self, names: Mapping[int, str]) -> None:
        """What candidates are called from now on; left out, `trial-NUMBER`."""
        self._names = names

    def __call__(self, population: Population) -> None:
        """Write what was measured of each candidate at the end of an epoch."""
        epoch = population.epoch
        names = [self._names.get(number, f"trial-{number:03}") for number in population.numbers]
        # A group that ran out of memory begins anew.
        again = epoch <= self._epoch
        self._close({name for name in self._writers if again or name not in names})
        self._epoch = epoch
        for row, (name, number) in enumerate(zip(names, population.numbers, strict=True)):
            if name not in self._writers:
                # Epochs that a killed run had written after its last checkpoint are void.
                self._writers[name] = self._open(str(self._folder / name), purge_step=epoch)
            writer = self._writers[name]
            writer.add_scalar("keep_rate", float(population.keep_rates[row, epoch - 1]), epoch)
            for measured, values in asdict(population.curves[number]).items():
                if isinstance(values, list) and values:
                    writer.add_scalar(measured, values[-1], epoch)
            writer.flush()
        if epoch == population.keep_rates.shape[1]:
            self._close(set(names))

    def _close(self, names: set[str]) -> None:
        for name in names & set(self._writers):
            self._writers.pop(name).close()
