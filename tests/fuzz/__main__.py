"""`python -m tests.fuzz`: damaged inputs for every reader, in processes of their own."""

from __future__ import annotations

import argparse
import base64
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from tests.fuzz.corpus import READERS
from tests.fuzz.harness import Outcome, damaged_input, run_apart


def main() -> int:
    """Print the counts of each reader and each fault once; 1 if there is a fault."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=4000, help="inputs of each reader")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--reader", choices=READERS, nargs="*", default=list(READERS))
    parser.add_argument("--jobs", type=int, default=1, help="readers at the same time")
    parser.add_argument("--show", type=int, help="print this input of the reader in base64")
    asked = parser.parse_args()
    if asked.show is not None:
        name = asked.reader[0]
        case, content = damaged_input(name, list(READERS[name].cases()), asked.seed, asked.show)
        print(case.name, base64.b64encode(content).decode())
        return 0
    with ThreadPoolExecutor(asked.jobs) as pool:
        outcomes = pool.map(lambda name: run_apart(name, asked.count, asked.seed), asked.reader)
        return _print(asked.reader, asked.count, outcomes)


def _print(names: Sequence[str], count: int, outcomes: Iterable[Outcome]) -> int:
    total = Outcome()
    print(f"{'reader':<17} {'inputs':>8} {'read':>8} {'refused':>8} {'faults':>8} {'seconds':>8}")
    for name, one in zip(names, outcomes, strict=True):
        numbers = (count, one.results, one.refused, one.faults.total())
        print(f"{name:<17}", *(f"{n:>8,}" for n in numbers), f"{one.seconds:>8.1f}", flush=True)
        for fault, times in one.faults.most_common():
            print(f"    {times:>6} x {fault} (input {one.examples[fault]})", flush=True)
        total.add(one)
    numbers = (count * len(names), total.results, total.refused, total.faults.total())
    print(f"{'all':<17}", *(f"{n:>8,}" for n in numbers), f"{total.seconds:>8.1f}")
    return int(bool(total.faults))


sys.exit(main())
