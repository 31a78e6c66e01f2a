"""Tables 4 to 7: trainings under three noises, at the last and the best epoch, over seeds.

Tables 4 to 6 compare methods, Table 7 search spaces. Each table is an object of `Comparison`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import keeprate
from experiments.common import (
    NOISES,
    RESULTS,
    Protocol,
    Row,
    command_of,
    load_data,
    read_results,
)
from experiments.jobs import Job, run_seeds
from experiments.rows import result_as_row
from keeprate import Data, InputError, SearchConfig
from keeprate.engine import METHODS


@dataclass(frozen=True)
class Arm:
    """One line of a table.

    Attributes
    ----------
    name : str
        In the rows of the results file.
    label : str
        As printed.
    method : str
        Of `keeprate.engine.METHODS`, or "auto": the default of `keeprate train`.
    space : str, optional
        Where R(t) is searched. Without a space R(t) is Co-teaching's own, and the arm has the name
        of its method.
    paper_label : str
        In the paper's table; empty where the paper has no such line. The paper's claims are judged
        without these arms.
    budget : str, optional
        Of the search, with keeprate's defaults, in place of the protocol's.
    protocol : str
        The only protocol that has the arm; empty: all have it.
    """

    name: str
    label: str
    method: str
    space: str | None = None
    paper_label: str = ""
    budget: str | None = None
    protocol: str = ""


def _method_arm(name: str, *, in_paper: bool = True) -> Arm:
    label = METHODS[name].label
    return Arm(name, label, name, paper_label=label if in_paper else "")


METHOD_ARMS = (
    _method_arm("standard"),
    _method_arm("decoupling"),
    _method_arm("f-correction"),
    _method_arm("mentornet"),
    _method_arm("co-teaching"),
    _method_arm("co-teaching-plus"),
    _method_arm("co-mining", in_paper=False),
    _method_arm("jocor", in_paper=False),
    Arm("proposed-6", "Proposed, cost 6", "co-teaching", "basis", budget="6", protocol="paper"),
    Arm("proposed", "Proposed", "co-teaching", space="basis", paper_label="Proposed"),
)

SPACE_ARMS = (
    Arm("co-teaching", "Co-teaching's space", "co-teaching", "co-teaching", "co-teaching"),
    Arm("power-decay", "power decay", "co-teaching", "power-decay", "power-decay"),
    Arm("basis", "basis (proposed)", "co-teaching", "basis", "basis"),
)


@dataclass(frozen=True)
class Cell:
    """A noise and a seed of a table, and where they are trained; see `Comparison.run`."""

    protocol: Protocol
    noise: str
    seed: int
    data: str
    runs: str
    cluster: str | None


@dataclass(frozen=True)
class Comparison:
    """A table of the paper.

    Attributes
    ----------
    name, title : str
    arms : tuple of Arm
    protocols : tuple of Protocol
    paper_file : str
        The file of `paper_numbers/` with the paper's numbers.
    noises : tuple of str
        As `keeprate.prepare` takes them; keys of `NOISES`.
    desk_note : str
        What to know of the desk protocol's numbers.
    """

    name: str
    title: str
    arms: tuple[Arm, ...]
    protocols: tuple[Protocol, ...]
    paper_file: str = "table4-6_early_stop_accuracy.csv"
    noises: tuple[str, ...] = tuple(NOISES)
    desk_note: str = ""

    def protocol(self, name: str) -> Protocol:
        """The protocol of that name."""
        return next(protocol for protocol in self.protocols if protocol.name == name)

    def arms_of(self, protocol: str) -> tuple[Arm, ...]:
        """The arms that a protocol has."""
        return tuple(arm for arm in self.arms if arm.protocol in ("", protocol))

    def run(
        self,
        protocol: Protocol,
        *,
        data: str,
        runs: str,
        cluster: str | None = None,
        **options: Any,
    ) -> list[Row]:
        """Train what the results file does not have yet.

        Parameters
        ----------
        protocol : Protocol
        data : str
            The folder of the data sets.
        runs : str
            The folder of the run folders.
        cluster : str, optional
            The address of the Ray cluster that trains.
        options
            Those of `run_seeds`.
        """
        arms = self.arms_of(protocol.name)
        methods = tuple(arm.name for arm in arms if arm.method in METHODS and arm.space is None)

        def jobs(seed: int) -> Iterator[Job]:
            for noise in self.noises:
                key = {"noise": noise, "seed": seed}
                cell = Cell(protocol, noise, seed, data, runs, cluster)
                if methods:
                    yield Job(key, partial(self._train_methods, cell), methods)
                for arm in arms:
                    if arm.name not in methods:
                        alone = self._cross_fit if arm.space is None else self._search
                        yield Job(key | {"name": arm.name}, partial(alone, cell, arm))

        return run_seeds(self.name, protocol, jobs, first_seed=protocol.first_seed, **options)

    def _prepare(self, cell: Cell, *words: str) -> tuple[Data, dict[str, Any]]:
        """The data of a run, and the options that all runs have in common."""
        protocol, noise, seed = cell.protocol, cell.noise, cell.seed
        prepared = keeprate.prepare(
            load_data(cell.data, protocol.data, seed), noise=noise, seed=seed, limit=protocol.limit
        )
        # The folder does not name the table: where Table 7 has the protocol of Table 4, both have
        # the same search of the basis space.
        digest = hashlib.sha256(json.dumps(protocol.as_row()).encode()).hexdigest()[:8]
        name = "-".join([noise.replace(":", "-"), f"seed{seed}", *words])
        return prepared, {
            "model": protocol.model,
            "restarts": protocol.restarts,
            "config": protocol.training_config(),
            "seed": seed,
            "cluster": cell.cluster,
            "out": Path(cell.runs) / f"{protocol.data}-{protocol.name}-{digest}" / name,
            "command": command_of(self.name, protocol.name),
        }

    def _train_methods(self, cell: Cell, names: Sequence[str]) -> list[Row]:
        """Train the methods of these arms in lockstep, each with its own R(t)."""
        prepared, options = self._prepare(cell, *names)
        # Co-teaching's R(t) takes the nominal noise rate, not the measured one.
        run = keeprate.train(
            prepared,
            method=names[0],
            schedule="co-teaching" if METHODS[names[0]].uses_schedule else "constant",
            baselines=names[1:],
            **options,
        )
        return [
            {"name": result.name, "method": result.method, "space": None}
            | result_as_row(run.record, result)
            for result in run.results
        ]

    def _cross_fit(self, cell: Cell, arm: Arm) -> Row:
        """Train as `keeprate train` does by default, with the model of the table."""
        prepared, options = self._prepare(cell, arm.name)
        return _row_of(arm, keeprate.train(prepared, method=arm.method, **options))

    def _search(self, cell: Cell, arm: Arm) -> Row:
        """Search R(t) in the space of the arm."""
        space, words = str(arm.space), [arm.method, str(arm.space)]
        if arm.budget is not None:
            words.append(f"budget{arm.budget}")
        prepared, options = self._prepare(cell, *words)
        budget, config = cell.protocol.budget, cell.protocol.search_config(space)
        if arm.budget is not None:
            budget, config = arm.budget, SearchConfig(space=space)
        run = keeprate.search(
            prepared,
            budget=budget,
            method=arm.method,
            search_config=config,
            baselines=False,  # arms of the table
            **options,
        )
        return _row_of(arm, run)


def _row_of(arm: Arm, run: keeprate.Run) -> Row:
    """The row of an arm that has a run of its own."""
    row = result_as_row(run.record, run.results[0])
    return {"method": arm.method, "space": arm.space} | row


# The rows of a table ---------------------------------------------------------------------------


def rows_of(rows: Sequence[Row], noise: str, name: str) -> list[Row]:
    """The rows of one noise and one arm, by seed."""
    selected = [row for row in rows if row["noise"] == noise and row["name"] == name]
    return sorted(selected, key=lambda row: int(row["seed"]))


def percent(rows: Sequence[Row], when: str, metric: str) -> list[float]:
    """A metric of each row that has it, in percent; `when` is "last" or "best"."""
    return [100 * row[when][metric] for row in rows if row[when][metric] is not None]


def missing(table: Comparison, protocol: Protocol, rows: Sequence[Row]) -> Iterator[str]:
    """The rows that the protocol asks for and that are not there, in words."""
    for noise in table.noises:
        labels_of: dict[str, list[str]] = {}  # seeds in words -> labels of arms that lack them
        arms = table.arms_of(protocol.name)
        for arm in arms:
            seeds_there = {row["seed"] for row in rows_of(rows, noise, arm.name)}
            asked = range(protocol.first_seed, protocol.first_seed + protocol.seeds)
            left = [str(seed) for seed in asked if seed not in seeds_there]
            if left:
                plural = "s" if len(left) > 1 else ""
                seeds = f"seed{plural} {', '.join(left)}" if seeds_there else "all seeds"
                labels_of.setdefault(seeds, []).append(arm.label)
        for seeds, labels in labels_of.items():
            lines = "every line" if len(labels) == len(arms) else ", ".join(labels)
            yield f"{NOISES[noise]}: {lines} ({seeds})"


def rows_to_draw(
    tables: Sequence[Comparison], protocol: str, results: Path = RESULTS
) -> list[tuple[Comparison, list[Row]]]:
    """The tables that have a results file, with its rows.

    Raises
    ------
    InputError
        If no table has a row.
    """
    stored = [(table, read_results(table.name, protocol, results)) for table in tables]
    with_rows = [(table, content["rows"]) for table, content in stored if content is not None]
    if not any(rows for _, rows in with_rows):
        raise InputError(
            f"there are no results of the {protocol} protocol to draw; run "
            f"`{command_of(tables[0].name, protocol)}` first."
        )
    return with_rows
