"""A run after another one on the same data: what people decided on labels in between."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from keeprate.data import Data, with_reviewed
from keeprate.records import (
    EARLIER_FILE,
    Decision,
    earlier_decisions,
    load_record,
    reviewed_of,
    save_decisions,
)


@dataclass(frozen=True)
class RunBefore:
    """The run before, and all decisions on labels until now.

    Attributes
    ----------
    folder : Path
    decisions : tuple of Decision
    n_rows : int or None
        Labels of its source, if known.
    """

    folder: Path
    decisions: tuple[Decision, ...]
    n_rows: int | None

    @classmethod
    def of(cls, folder: str | os.PathLike[str]) -> RunBefore:
        """Read what a run folder holds.

        Raises
        ------
        InputError
            If it holds no finished run, or no decisions.
        """
        source = load_record(folder).data.source
        decisions = earlier_decisions(folder)
        return cls(Path(folder), decisions, None if source is None else source.n_rows)

    def applied_to(self, data: Data) -> Data:
        """The data with what was decided, see `keeprate.data.with_reviewed`.

        Raises
        ------
        InputError
            If the data are not those of the run before.
        """
        return with_reviewed(data, reviewed_of(self.decisions, self.n_rows))

    def save(self, folder: Path | None) -> None:
        """Keep the decisions in the folder of the run after: its own go on from them."""
        if folder is not None:
            save_decisions(folder / EARLIER_FILE, self.decisions)
