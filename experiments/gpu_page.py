"""What a GPU has shown, for docs/results.md: from the results file of `benchmarks.gpu`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from experiments.common import HERE, RESULTS, Row, read_results
from experiments.comparison import missing
from experiments.markdown import NOTHING, paragraph, table
from experiments.rows import hours
from experiments.table4 import TABLE as TABLE4
from keeprate.files import read_json

FILE = HERE.parent / "benchmarks" / "results" / "gpu.json"
COMMAND = "python -m benchmarks.gpu --minutes 8"
NOT_RUN = "not run on a GPU yet"
NETWORKS = {"mlp": "MLP", "model1": "Model 1", "model2": "Model 2", "model3": "Model 3"}
SHARE = "share of the matmul rate"  # in the rows
MOST_MINUTES, LEAST_RATIO, LEAST_SHARE = 15, 100, 0.3


def section(results: Path = RESULTS, file: Path = FILE) -> Iterator[str]:
    """The lines of the section; each thing that has not run says so."""
    content: dict[str, Any] = read_json(file) if file.exists() else {}
    engine: list[Row] = content.get("engine", [])
    yield "## On a GPU"
    yield ""
    yield paragraph(
        f"`{COMMAND}` runs the tests that need a GPU, measures the engine and trains the paper's "
        "full protocol, as far as the minutes reach; the same command goes on. It writes "
        "`benchmarks/results/gpu.json` and the rows of the tables."
    )
    yield ""
    yield paragraph(f"- Device: {_device(content)}.", "  ")
    yield paragraph(f"- Tests: {_tests(content.get('tests'))}.", "  ")
    yield from _goals(engine, read_results(TABLE4.name, "paper", results) if content else None)
    if any("candidates" in row for row in engine):
        yield ""
        yield from _speed(engine)


def _device(content: dict[str, Any]) -> str:
    if not content:
        return NOT_RUN
    rates = content.get("matmul_flops_per_second", {})
    words = ", ".join(f"{name} {rate / 1e12:.0f}" for name, rate in rates.items())
    return f"{content['device']}, PyTorch {content['versions']['torch']}" + (
        f"; matrix product, TFLOP/s: {words}" if words else ""
    )


def _tests(tests: dict[str, Any] | None) -> str:
    if tests is None:
        return NOT_RUN
    words = f"{len(tests['passed'])} passed, {len(tests['failed'])} failed"
    if tests["failed"]:
        words += f" ({', '.join(tests['failed'])})"
    return words + ("" if tests["finished"] else "; stopped before the end")


def _goals(engine: Sequence[Row], table4: dict[str, Any] | None) -> Iterator[str]:
    """What was aimed at, and what came of it."""
    mlp = [ratio for row in engine if row["network"] == "mlp" for ratio in [_ratio(row, engine)]]
    ratios = [ratio for ratio in mlp if ratio is not None]
    yield _goal(
        f"the MLP at its best K at least {LEAST_RATIO} times as fast as the literature's loop",
        max(ratios, default=None),
        lambda ratio: ratio >= LEAST_RATIO,
        lambda ratio: f"{ratio:.0f} times",
    )
    shares = [row.get(SHARE) for row in engine if row["network"] == "model2"]
    yield _goal(
        f"Model 2 at {LEAST_SHARE} of the matrix-product rate or more",
        max((share for share in shares if share is not None), default=None),
        lambda share: share >= LEAST_SHARE,
        lambda share: f"{share:.2f}",
    )
    rows: list[Row] = [] if table4 is None else table4["rows"]
    is_whole = not list(missing(TABLE4, TABLE4.protocol("paper"), rows))
    yield _goal(
        f"the paper's whole MNIST study (Table 4) in less than {MOST_MINUTES} minutes",
        60 * hours(rows) if is_whole else None,
        lambda minutes: minutes < MOST_MINUTES,
        lambda minutes: f"{minutes:.1f} minutes",
    )


def _goal(words: str, found: float | None, is_reached: Any, in_words: Any) -> str:
    if found is None:
        return paragraph(f"- Goal, {words}: {NOT_RUN}.", "  ")
    verdict = "reached" if is_reached(found) else "not reached"
    return paragraph(f"- Goal, {words}: **{verdict}** ({in_words(found)}).", "  ")


def _speed(engine: Sequence[Row]) -> Iterator[str]:
    yield paragraph(
        "Co-teaching, two networks, batches of 128 random samples, without the evaluation between "
        "epochs. Steps are CUDA graphs. The rivals are the loop of the literature's releases, with "
        "the fastest number of workers, and a good in-memory loop in PyTorch, both in float32."
    )
    yield ""
    lines = []
    for row in engine:
        if "candidates" not in row:
            continue
        seconds = row.get("seconds_per_candidate_epoch")
        lines.append(
            [
                f"{NETWORKS[row['network']]}, {row['precision']}, {row['way']}",
                str(row["candidates"]),
                row.get("reason", NOTHING) if seconds is None else f"{1000 * seconds:.1f}",
                _times(_ratio(row, engine)),
                _times(_ratio(row, engine, "plain")),
                NOTHING if row.get(SHARE) is None else f"{row[SHARE]:.3f}",
            ]
        )
    header = ["network", "K", "ms per candidate and epoch", "the literature's loop takes"]
    header += ["an in-memory loop takes", "share of the matrix-product rate"]
    yield from table(header, sorted(lines, key=lambda line: (line[0], int(line[1]))))


def _times(ratio: float | None) -> str:
    return NOTHING if ratio is None else f"{ratio:.1f} ×"


def _ratio(row: Row, engine: Sequence[Row], loop: str = "reference") -> float | None:
    """How many times as long a rival takes for a candidate's epoch; None if one is missing."""
    rivals = [
        rival["seconds_per_step"]
        for rival in engine
        if rival.get("loop") == loop and rival["network"] == row["network"]
    ]
    known = [seconds for seconds in rivals if seconds is not None]
    if "candidates" not in row or row["seconds_per_step"] is None or not known:
        return None
    return float(min(known) / row["seconds_per_step"] * row["candidates"])
