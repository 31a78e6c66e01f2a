"""How long a search asks for its next trials: `python -m benchmarks.asking [--against SRC]`.

Milliseconds per trial asked for, of every sampler, in memory and in a run folder, when so many
trials are told; and the seconds that a search of 200 trials asks in all, by the clock and of the
processor; these with one thread of linear algebra, too, because threads that wait use the processor
(`one_thread_seconds`). Nothing is trained: values are made up.
`--against` is the `src` folder of another version, measured in turn with this one; `same_proposals`
says whether both propose the same. Prints a table; `--out benchmarks/results/asking.json` writes
the numbers.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray

from keeprate.engine import Curves
from keeprate.files import write_json
from keeprate.schedules import get_space
from keeprate.searching import Proposals, confirming, open_study, tell

SAMPLERS = ("natural-gradient", "tpe", "random", "paper:20")
PLACES = ("memory", "run folder")
TOLD = (20, 100, 200, 500)
TRIALS, EPOCHS, SPACE = 200, 20, get_space("basis")


def fill(study: optuna.Study, n: int) -> None:
    """Tell a study `n` trials with random parameters and values."""
    from keeprate.searching import one_transaction  # earlier versions have none

    rng, distributions = np.random.default_rng(0), SPACE.distributions(EPOCHS)
    with one_transaction(study):
        for _ in range(n):
            drawn = dict(zip(distributions, rng.random(len(distributions)).tolist(), strict=True))
            study.add_trial(
                optuna.trial.create_trial(
                    params=drawn, distributions=distributions, value=float(rng.random())
                )
            )


def clocks() -> NDArray[np.float64]:
    """Seconds by the clock, and of the processor."""
    return np.array([time.perf_counter(), time.process_time()])


def search(
    sampler: str, trials: int, folder: Path | None, epochs: int = EPOCHS
) -> tuple[NDArray[np.float64], str]:
    """Seconds of asking of a search, by both clocks, and a hash of what it proposed."""
    rng, seconds, study = np.random.default_rng(1), np.zeros(2), open_study(folder)
    proposals = Proposals(SPACE, epochs, sampler, trials, confirming(trials), 0)
    while True:
        began = clocks()
        pending = proposals.ask(study)
        seconds += clocks() - began
        if not pending:
            said = json.dumps([[t.params, t.system_attrs, t.user_attrs] for t in study.trials])
            return seconds, hashlib.sha256(said.encode()).hexdigest()[:16]
        for trial in pending:
            curves = Curves(validation_score=rng.random(epochs).tolist())
            tell(study, trial.number, curves, proposals, failed=False)


def measure(sampler: str, place: str, filled: Path, scratch: Path) -> dict[str, Any]:
    """Milliseconds per trial after so many trials, and a hash of the answers."""
    # All that is imported late.
    search(sampler, 30, None, EPOCHS + 1)
    found: dict[str, Any] = {}
    for n in TOLD:
        folder = scratch / str(n)
        shutil.copytree(filled / str(n), folder)
        study = open_study(folder)
        if place == "memory":
            told, study = study.trials, open_study(None)
            study.add_trials(told)
        # The paper's generations are a fifth of all trials: here ten, as with the others.
        trials = 50 if sampler.startswith("paper") and n < 50 else n + 10
        proposals = Proposals(SPACE, EPOCHS, sampler, trials, 0, 0)
        began = clocks()
        pending = proposals.ask(study)
        clock, processor = (1000 * (clocks() - began) / len(pending)).round(2).tolist()
        said = json.dumps([trial.params for trial in pending])
        found[str(n)] = {"clock": clock, "processor": processor}
        found[f"proposed_{n}"] = hashlib.sha256(said.encode()).hexdigest()[:16]
    return found


def child(sampler: str, place: str, filled: Path) -> dict[str, Any]:
    """All numbers of one sampler in one place."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with tempfile.TemporaryDirectory() as scratch:
        found = measure(sampler, place, filled, Path(scratch))
        if sampler == SAMPLERS[0]:
            folder = Path(scratch) if place == "run folder" else None
            seconds, found["proposed"] = search(sampler, TRIALS, folder)
            clock, processor = seconds.round(2).tolist()
            found["search_seconds"] = {"clock": clock, "processor": processor}
    return found


def run(
    source: str, sampler: str, place: str, filled: Path, *, one_thread: bool = False
) -> dict[str, Any]:
    """The same in a process of its own, with the version of this source."""
    command = [sys.executable, "-m", "benchmarks.asking", "--child", sampler, place, str(filled)]
    environment = os.environ | ({"PYTHONPATH": source} if source else {})
    environment |= {"OMP_NUM_THREADS": "1"} if one_thread else {}
    shown = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    found: dict[str, Any] = json.loads(shown.stdout)
    return found


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Lines of Markdown: processor milliseconds per trial, before and now."""
    lines = ["| sampler | place | " + " | ".join(f"{n} told" for n in TOLD) + " |"]
    lines.append("| --- " * (2 + len(TOLD)) + "|")
    for row in rows:
        versions = [row[version] for version in ("before", "now") if version in row]
        cells = [" → ".join(f"{v[str(n)]['processor']:.0f}" for v in versions) for n in TOLD]
        lines.append(f"| `{row['sampler']}` | {row['place']} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Measure every sampler in both places, in turn with another version if there is one."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--against", help="the src folder of another version")
    parser.add_argument("--out", type=Path, help="JSON file")
    parser.add_argument("--child", nargs=3, help="measure one sampler, and print one line")
    options = parser.parse_args()
    if options.child is not None:
        sampler, place, filled = options.child
        print(json.dumps(child(sampler, place, Path(filled))))
        return
    versions = {"before": options.against} if options.against else {}
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        for n in TOLD:
            (Path(scratch) / str(n)).mkdir()
            fill(open_study(Path(scratch) / str(n)), n)
        for sampler, place in [(s, p) for s in SAMPLERS for p in PLACES]:
            found = {}
            for version, source in (versions | {"now": ""}).items():
                found[version] = run(source, sampler, place, Path(scratch))
                if sampler == SAMPLERS[0]:
                    alone = run(source, sampler, place, Path(scratch), one_thread=True)
                    found[version]["one_thread_seconds"] = alone["search_seconds"]
                named = {key: v for key, v in found[version].items() if "proposed" not in key}
                print(f"{sampler:17} {place:11} {version:7} {json.dumps(named)}", flush=True)
            answers = [{k: v for k, v in f.items() if "proposed" in k} for f in found.values()]
            same = all(answer == answers[0] for answer in answers)
            rows.append({"sampler": sampler, "place": place, "same_proposals": same} | found)
            if options.out is not None:
                write_json(options.out, {"told": TOLD, "trials": TRIALS, "rows": rows})
    print("\n".join(table(rows)))


if __name__ == "__main__":
    main()
