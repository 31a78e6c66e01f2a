"""Table 1 for docs/results.md: from the rows of `experiments.table1`, and the step's parts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from experiments import known_errors
from experiments.common import HERE, RESULTS, Row, command_of, read_results
from experiments.faces import IN_WORDS
from experiments.markdown import NOTHING, bold_best, labelled, paragraph, table
from experiments.rows import hours, in_words, mean_std
from experiments.table1 import LABELS, NAME, PROPOSED, PROTOCOLS, paper_rows
from keeprate.files import read_json
from keeprate.text import listed

FILE = HERE.parent / "benchmarks" / "results" / "faces.json"
DATA = {"lfw": "LFW", "orl": "ORL faces", "own": "own data"}
ENDS = (("last", "test"), ("best", "test"))


def section(results: Path = RESULTS, file: Path = FILE) -> Iterator[str]:
    """The lines of the section."""
    yield "## Table 1: face verification"
    yield ""
    yield paragraph(
        "Accuracy on pairs of people whom no network has seen, in %: ten folds, the threshold of "
        "each from the other nine, mean over the networks of a method. R(t) was searched on other "
        "pairs of other people. The methods that take R(t) have Co-teaching's own with the "
        "measured noise rate; the search is not told the rate. [faces.md](faces.md) says more."
    )
    for protocol in PROTOCOLS:
        stored = read_results(NAME, protocol.name, results)
        if stored is None and protocol.sources is None:
            continue
        yield ""
        yield f"### {DATA[protocol.name]}"
        yield ""
        if stored is None:
            yield f"Not run yet: `{command_of(NAME, protocol.name)}`."
            continue
        yield from _of_protocol(stored, protocol.name)
    yield ""
    yield from _known_errors(results)
    yield ""
    yield from _paper()
    if file.exists():
        yield ""
        yield from _step(read_json(file))


def _of_protocol(stored: dict[str, Any], name: str) -> Iterator[str]:
    protocol, rows = stored["protocol"], stored["rows"]
    yield paragraph(
        f"{protocol['model']}, {protocol['side']} x {protocol['side']} pixels, "
        f"{protocol['epochs']} epochs, batch {protocol['batch_size']}, adam "
        f"{protocol['learning_rate']:g}, augmentation {protocol['augment']}; searches of "
        f"{protocol['trials']} trials (natural gradient with presets, commit 51a4cdd); "
        f"{protocol['seeds']} seeds, which also choose the people. "
        f'The test pairs were looked at four times in a training; the best of these is "best". '
        f"`{command_of(NAME, name)}`, {hours(rows):.1f} hours. {_missing(protocol, rows)}"
    )
    noises = [noise for noise in protocol["noises"] if of(rows, noise)]
    yield ""
    header = [""] + [f"{IN_WORDS[noise]}, {end}" for noise in noises for end, _ in ENDS]
    columns: list[list[str]] = []
    means: list[list[float | None]] = []
    for noise in noises:
        for end, key in ENDS:
            values = [[100 * r[end][key] for r in of(rows, noise, name)] for name in LABELS]
            columns.append([in_words(*mean_std(v)) if v else NOTHING for v in values])
            means.append([mean_std(v)[0] if v else None for v in values])
    bold_best(columns, means)
    yield from table(header, labelled(list(LABELS.values()), columns))
    yield ""
    yield paragraph(_verdict(rows, noises))
    found = [(noise, precisions) for noise in noises if (precisions := _issues(rows, noise))]
    if found:
        yield ""
        words = [f"{IN_WORDS[noise]} {in_words(*mean_std(values))}" for noise, values in found]
        shares = [
            f"{100 * mean_std([row['noise_rate'] for row in of(rows, noise)])[0]:.0f}"
            for noise, _ in found
        ]
        yield paragraph(
            f"Wrong names found, average precision in %: {'; '.join(words)}. A random order would "
            f"have {', '.join(shares)}."
        )


def of(rows: Sequence[Row], noise: str, name: str | None = None) -> list[Row]:
    """The rows of a noise, and of a method."""
    return [row for row in rows if row["noise"] == noise and name in (None, row["name"])]


def _issues(rows: Sequence[Row], noise: str) -> list[float]:
    found = [row["label_issues"] for row in of(rows, noise, PROPOSED) if "label_issues" in row]
    return [100 * one["average_precision"] for one in found]


def _missing(protocol: Row, rows: Sequence[Row]) -> str:
    n_wanted = protocol["seeds"] * len(protocol["noises"]) * len(LABELS)
    return "Complete." if len(rows) == n_wanted else f"{len(rows)} of {n_wanted} rows are there."


def _verdict(rows: Sequence[Row], noises: Sequence[str]) -> str:
    """Whether the searched R(t) is best, or within a deviation of the best, at the last epoch."""
    words = []
    for noise in noises:
        means = {
            name: mean_std([100 * row["last"]["test"] for row in of(rows, noise, name)])
            for name in LABELS
            if of(rows, noise, name)
        }
        own = means.pop(PROPOSED, None)
        if own is None or not means:
            continue
        rival = max(means, key=lambda name: means[name][0])
        best, deviation = means[rival]
        if own[0] >= best:
            words.append(f"{IN_WORDS[noise]}: best")
        elif own[0] >= best - (deviation or 0.0):
            words.append(f"{IN_WORDS[noise]}: within a deviation of {LABELS[rival]}")
        else:
            words.append(f"{IN_WORDS[noise]}: **below {LABELS[rival]}**")
    return f"The searched R(t) at the last epoch: {'; '.join(words)}."


def _known_errors(results: Path) -> Iterator[str]:
    stored = read_results(known_errors.NAME, "", results)
    if stored is None:
        yield f"LFW's known errors: not run yet, `{command_of(known_errors.NAME, '')}`."
        return
    rows = sorted(stored["rows"], key=lambda row: int(row["seed"]))
    ranks = [
        f"{name} {listed([str(row['ranks'][name]) for row in rows])}" for name in rows[0]["ranks"]
    ]
    seeds = f"{len(rows)} seed{'s' * (len(rows) > 1)}"
    n_listed = listed([f"{row['listed']:,}" for row in rows])
    yield paragraph(
        f"Wrong names that LFW really has: three pictures of its errata show people with ten "
        f"pictures or more. Their ranks among {rows[0]['judged']:,} names, the most doubtful "
        f"first, by `keeprate train` with `face-small` ({seeds}): {'; '.join(ranks)}. "
        f"{n_listed} names were listed as more probably wrong than right. "
        f"`{command_of(known_errors.NAME, '')}`, {hours(rows):.1f} hours."
    )


def _paper() -> Iterator[str]:
    yield paragraph(
        "The paper's own numbers, on another data set (VggFace2-R, 3.31 million pictures, "
        "ResNet-50; pairs of CALFW, CPLFW, AgeDB-30 and CFP-FP):"
    )
    yield ""
    paper = paper_rows()
    names = list(next(iter(paper.values())))
    lines = [[method, *(f"{row[name]:.2f}" for name in names)] for method, row in paper.items()]
    yield from table(["", *names], lines)


def _step(content: dict[str, Any]) -> Iterator[str]:
    yield paragraph(
        f"One step of {content['model']} at {content['side']} x {content['side']} pixels, "
        f"{content['people']:,} people, batch {content['batch']}, {content['precision']}, "
        f"{content['threads']} threads of a {content['device'].upper()} "
        f"(`{content['command']}`):"
    )
    yield ""
    methods = content["methods"]
    parts = list(next(iter(methods.values()))["share by part"])
    header = ["", "s a step", "pictures/s", "share of the matrix-product rate", *parts]
    lines = [
        [
            name,
            f"{one['seconds a step']:.2f}",
            f"{one['pictures a second']:.1f}",
            f"{one['share of the matrix-product rate']:.2f}",
            *(f"{100 * one['share by part'][part]:.2f} %" for part in parts),
        ]
        for name, one in methods.items()
    ]
    yield from table(header, lines)
