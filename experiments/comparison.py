"""Tables 4 to 7: several trainings under the three noises, best and last epoch, over seeds.

Tables 4 to 6 compare methods, Table 7 search spaces; each is a declaration of this class.
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
    Job,
    Protocol,
    Row,
    command_of,
    describe_run,
    load_data,
    read_results,
    run_seeds,
)
from keeprate import InputError
from keeprate.data import Data
from keeprate.engine import METHODS
from keeprate.noise import Noise
from keeprate.schedules import named_schedule


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
        Of `keeprate.engine.METHODS`.
    space : str, optional
        Search R(t) in it; left out, the schedule is Co-teaching's own, and the name the method's.
    paper : str
        What the paper's table calls it; empty where the paper does not have it, whose claims are
        judged without it.
    own_too : bool
        Where schedules are given to the search, it tries the method's own first, one trial more.
    """

    name: str
    label: str
    method: str
    space: str | None = None
    paper: str = ""
    own_too: bool = False


def _method(name: str, *, in_paper: bool = True) -> Arm:
    label = METHODS[name].label
    return Arm(name, label, name, paper=label if in_paper else "")


METHOD_ARMS = (
    _method("standard"),
    _method("decoupling"),
    _method("f-correction"),
    _method("mentornet"),
    _method("co-teaching"),
    _method("co-teaching-plus"),
    _method("co-mining", in_paper=False),
    _method("jocor", in_paper=False),
    Arm("proposed", "Proposed", "co-teaching", space="basis", paper="Proposed"),
)

SPACE_ARMS = (
    Arm("co-teaching", "Co-teaching's space", "co-teaching", "co-teaching", "co-teaching"),
    Arm("power-decay", "power decay", "co-teaching", "power-decay", "power-decay"),
    Arm("basis", "basis (proposed)", "co-teaching", "basis", "basis"),
)


@dataclass(frozen=True)
class Comparison:
    """A table of the paper.

    Attributes
    ----------
    paper : str
        The file of `paper_numbers/` with the paper's numbers.
    noises : tuple of str
        As `keeprate.prepare` takes them; all of `NOISES`.
    desk_note : str
        What is to be known of the desk protocol's numbers.
    """

    name: str
    title: str
    arms: tuple[Arm, ...]
    protocols: tuple[Protocol, ...]
    paper: str = "table4-6_early_stop_accuracy.csv"
    noises: tuple[str, ...] = tuple(NOISES)
    desk_note: str = ""

    def protocol(self, name: str) -> Protocol:
        return next(protocol for protocol in self.protocols if protocol.name == name)

    def run(self, protocol: Protocol, *, data: str, runs: str, **options: Any) -> list[Row]:
        """Train what the results file does not have yet; `data` is the folder of data sets."""

        own = tuple(arm.name for arm in self.arms if arm.space is None)
        more = (data, runs)

        def jobs(seed: int) -> Iterator[Job]:
            for noise in self.noises:
                key = {"noise": noise, "seed": seed}
                if own:
                    train = partial(self._train_methods, protocol, noise, seed, *more)
                    yield Job(key, train, own)
                for arm in self.arms:
                    if arm.space is not None:
                        search = partial(self._search, protocol, noise, seed, *more, arm)
                        yield Job(key | {"name": arm.name}, search)

        return run_seeds(self.name, protocol, jobs, **options)

    def _prepare(
        self, protocol: Protocol, noise: str, seed: int, data: str, runs: str, *words: str
    ) -> tuple[Data, dict[str, Any]]:
        """The data of a run, and what all runs have in common."""
        prepared = keeprate.prepare(
            load_data(data, protocol.data), noise=noise, seed=seed, limit=protocol.limit
        )
        # The table is not in the name: where Table 7 has the protocol of Table 4, its search of the
        # basis space is that of Table 4.
        under = hashlib.sha256(json.dumps(protocol.as_row()).encode()).hexdigest()[:8]
        name = "-".join([noise.replace(":", "-"), f"seed{seed}", *words])
        return prepared, {
            "model": protocol.model,
            "restarts": protocol.restarts,
            "config": protocol.config(),
            "seed": seed,
            "out": Path(runs) / f"{protocol.data}-{protocol.name}-{under}" / name,
            "command": command_of(self.name, protocol.name),
        }

    def _train_methods(
        self,
        protocol: Protocol,
        noise: str,
        seed: int,
        data: str,
        runs: str,
        names: Sequence[str],
    ) -> list[Row]:
        """The methods as they are, in lockstep; their names are the arms'."""
        prepared, options = self._prepare(protocol, noise, seed, data, runs, *names)
        # The noise rate that Co-teaching's schedule takes is the nominal one.
        run = keeprate.train(
            prepared,
            method=names[0],
            schedule="co-teaching" if METHODS[names[0]].uses_schedule else "constant",
            baselines=names[1:],
            **options,
        )
        return [
            {"name": result["name"], "method": result["method"], "space": None}
            | describe_run(run, number)
            for number, result in enumerate(run.record["results"])
        ]

    def _search(
        self, protocol: Protocol, noise: str, seed: int, data: str, runs: str, arm: Arm
    ) -> Row:
        words = (arm.method, str(arm.space))
        prepared, options = self._prepare(protocol, noise, seed, data, runs, *words)
        earlier = []
        if arm.own_too and protocol.warm_start:
            rate = Noise.parse(noise).expected_rate(prepared.n_classes)
            earlier = [named_schedule("co-teaching", protocol.epochs, noise_rate=rate)]
        run = keeprate.search(
            prepared,
            method=arm.method,
            space=str(arm.space),
            trials=protocol.trials + len(earlier),
            sampler=protocol.sampler,
            fidelity=protocol.fidelity,
            confirm=protocol.confirm,
            warm_start=earlier or protocol.warm_start,
            baselines=False,  # they are arms of their own
            **options,
        )
        return {"method": arm.method, "space": arm.space} | describe_run(run)


def of(rows: Sequence[Row], noise: str, name: str) -> list[Row]:
    """The rows of one noise and one arm, by seed."""
    found = [row for row in rows if row["noise"] == noise and row["name"] == name]
    return sorted(found, key=lambda row: int(row["seed"]))


def percent(rows: Sequence[Row], when: str, what: str) -> list[float]:
    """A number of each row's last or best epoch, in percent."""
    return [100 * row[when][what] for row in rows]


def missing(table: Comparison, protocol: Protocol, rows: Sequence[Row]) -> Iterator[str]:
    """What the protocol asks for and the rows do not have, in words."""
    for noise in table.noises:
        lacking: dict[str, list[str]] = {}  # the seeds, in words -> the arms that lack them
        for arm in table.arms:
            there = {row["seed"] for row in of(rows, noise, arm.name)}
            left = [str(seed) for seed in range(protocol.seeds) if seed not in there]
            if left:
                plural = "s" if len(left) > 1 else ""
                seeds = f"seed{plural} {', '.join(left)}" if there else "all seeds"
                lacking.setdefault(seeds, []).append(arm.label)
        for seeds, labels in lacking.items():
            who = "every line" if len(labels) == len(table.arms) else ", ".join(labels)
            yield f"{NOISES[noise]}: {who} ({seeds})"


def some_rows(tables: Sequence[Comparison], protocol: str, results: Path = RESULTS) -> list[Row]:
    """All rows of some tables; an error if there are none."""
    found = [read_results(table.name, protocol, results) for table in tables]
    rows = [row for one in found if one is not None for row in one["rows"]]
    if not rows:
        raise InputError(
            f"there are no results of the {protocol} protocol to draw; run "
            f"`{command_of(tables[0].name, protocol)}` first."
        )
    return rows
