"""`python -m tests.chaos`: kill runs of every kind, start them again, compare the results."""

from __future__ import annotations

import argparse
import json
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, fields

from tests.chaos.harness import Counts, Outcome, drill
from tests.chaos.kinds import KINDS

WAYS = ("operation", "moment", "signal", "power")


def main() -> int:
    """Print the counts of each kind when it is done, and each fault; 1 if there is a fault."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=KINDS, nargs="*", default=list(KINDS))
    parser.add_argument("--jobs", type=int, default=1, help="kinds at the same time")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--verbose", action="store_true", help="a line for each run, too")
    for one in fields(Counts):
        parser.add_argument(f"--{one.name}", type=int, default=one.default, help="runs of a kind")
    asked = parser.parse_args()
    counts = Counts(**{one.name: getattr(asked, one.name) for one in fields(Counts)})
    tell = _tell if asked.verbose else lambda line: None
    total, found = Outcome(), {}
    if not asked.json:
        heads = (*WAYS, "kills", "runs", "equal", "faults", "seconds")
        print(f"{'kind':<12}", *(f"{head:>9}" for head in heads), flush=True)
    with ThreadPoolExecutor(asked.jobs) as pool:
        jobs = {pool.submit(drill, name, asked.seed, counts, tell): name for name in asked.kind}
        for job in as_completed(jobs):
            name, one = jobs[job], job.result()
            found[name] = asdict(one)
            total = total + one
            if not asked.json:
                _print_line(name, one)
    print(json.dumps(found, indent=1)) if asked.json else _print_line("all", total)
    return int(bool(total.faults))


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _print_line(name: str, one: Outcome) -> None:
    numbers = [*(one.kills[way] for way in WAYS), one.kills.total()]
    numbers += [one.equal + len(one.faults), one.equal, len(one.faults)]
    print(f"{name:<12}", *(f"{n:>9,}" for n in numbers), f"{one.seconds:>9.1f}", flush=True)
    for fault in one.faults:
        print(f"    {fault}", flush=True)


sys.exit(main())
