"""`python -m tests.chaos`: kill runs of every kind, start them again, compare the results."""

from __future__ import annotations

import argparse
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, fields

from tests.chaos.harness import Counts, Outcome, drill
from tests.chaos.kinds import KINDS

WAYS = ("operation", "moment", "signal", "power")


def main() -> int:
    """Print the counts of each kind and each fault; 1 if there is a fault."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=KINDS, nargs="*", default=list(KINDS))
    parser.add_argument("--jobs", type=int, default=1, help="kinds at the same time")
    parser.add_argument("--json", action="store_true", help="print JSON")
    for one in fields(Counts):
        parser.add_argument(f"--{one.name}", type=int, default=one.default, help="runs of a kind")
    asked = parser.parse_args()
    counts = Counts(**{one.name: getattr(asked, one.name) for one in fields(Counts)})
    with ThreadPoolExecutor(asked.jobs) as pool:
        outcomes = pool.map(lambda name: drill(name, asked.seed, counts), asked.kind)
        if asked.json:
            found = dict(zip(asked.kind, outcomes, strict=True))
            print(json.dumps({name: asdict(one) for name, one in found.items()}, indent=1))
            return int(any(one.faults for one in found.values()))
        return _print(dict(zip(asked.kind, outcomes, strict=True)))


def _print(outcomes: dict[str, Outcome]) -> int:
    total = Outcome()
    heads = (*WAYS, "kills", "runs", "equal", "faults")
    print(f"{'kind':<12}", *(f"{head:>9}" for head in heads), f"{'seconds':>9}")
    for name, one in outcomes.items():
        _print_line(name, one)
        for fault in one.faults:
            print(f"    {fault}")
        total.kills += one.kills
        total.equal += one.equal
        total.faults += one.faults
        total.seconds += one.seconds
    _print_line("all", total)
    return int(bool(total.faults))


def _print_line(name: str, one: Outcome) -> None:
    numbers = [*(one.kills[way] for way in WAYS), one.kills.total()]
    numbers += [one.equal + len(one.faults), one.equal, len(one.faults)]
    print(f"{name:<12}", *(f"{n:>9,}" for n in numbers), f"{one.seconds:>9.1f}", flush=True)


sys.exit(main())
