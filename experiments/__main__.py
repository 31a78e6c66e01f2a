"""`python -m experiments`: the figures and tables of the paper, by name."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from experiments import (
    experience,
    fig1,
    fig3,
    fig4,
    fig5,
    fig6,
    fig7,
    known_errors,
    results,
    table1,
)
from experiments.common import PROTOCOLS
from experiments.results import COMPARISONS
from keeprate import InputError
from keeprate.searching import EXPERIENCE

DRAWN = (fig4, fig5, fig7)
WITHOUT_PROTOCOL = (fig3.NAME, experience.NAME, known_errors.NAME)
WITHOUT_RUNS = (fig3.NAME, fig6.NAME, experience.NAME)


def main(words: list[str] | None = None) -> int:
    """Run, draw or write one item; without a name, list all."""
    options = _parser().parse_args(words)
    try:
        return _do(options)
    except InputError as error:
        print(f"experiments: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nexperiments: stopped; the same command goes on from here.", file=sys.stderr)
        return 130


def _do(options: argparse.Namespace) -> int:
    """Do what the command asks for; the exit code."""
    if options.item is None:
        _list()
    elif options.item == results.NAME:
        return _check_results() if options.check else _write_results()
    elif options.item == fig1.NAME:
        fig1.run(fig1.get_protocol(options.protocol), **_training_options(options))
        print(*fig1.draw(options.protocol), sep="\n")
    elif options.item == table1.NAME:
        table1.run(
            table1.get_protocol(options.protocol),
            given=_given_faces(options),
            first_seed=options.first_seed,
            **_training_options(options),
        )
    elif options.item == known_errors.NAME:
        known_errors.run(**_training_options(options))
    elif options.item == fig3.NAME:
        seeds = {} if options.seeds is None else {"seeds": options.seeds}
        fig3.run(at_once=options.jobs, **seeds)
        print(*fig3.draw(), sep="\n")
    elif options.item == fig6.NAME:
        options_of_run = {"seeds": options.seeds, "at_once": options.jobs}
        fig6.run(fig6.get_protocol(options.protocol), data=options.data, **options_of_run)
        print(*fig6.draw(options.protocol), sep="\n")
    elif options.item == experience.NAME:
        experience.run(at_once=options.jobs)
        print(EXPERIENCE)
    elif drawn := next((module for module in DRAWN if options.item == module.NAME), None):
        print(*drawn.draw(options.protocol), sep="\n")
    else:
        table = next(table for table in COMPARISONS if table.name == options.item)
        table.run(table.protocol(options.protocol), **_training_options(options))
    return 0


def _training_options(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "data": options.data,
        "runs": options.runs,
        "seeds": options.seeds,
        "at_once": options.jobs,
        "cluster": options.cluster,
    }


def _given_faces(options: argparse.Namespace) -> table1.Sources | None:
    """Where the pictures of Table 1 are, if that was typed."""
    if options.train is None and options.pairs is None:
        return None
    if options.train is None or options.pairs is None:
        raise InputError("--train and --pairs must be given both: people to train on, and pairs.")
    return table1.Sources(
        options.train,
        tuple(options.pairs),
        None if options.images is None else tuple(options.images),
        options.validation,
        options.validation_images,
    )


def _summaries() -> dict[str, str]:
    trained = (table1, known_errors, fig1, fig3, fig6, experience)
    summaries = {module.NAME: module.SUMMARY for module in trained}
    summaries |= {table.name: f"{table.title} (trains)" for table in COMPARISONS}
    summaries |= {module.NAME: module.SUMMARY for module in DRAWN}
    return summaries | {results.NAME: results.SUMMARY}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments", description="Figures and tables of the paper."
    )
    items = parser.add_subparsers(dest="item", metavar="NAME")
    for name, summary in _summaries().items():
        _add_options(items.add_parser(name, help=summary, description=summary), name)
    return parser


def _add_options(item: argparse.ArgumentParser, name: str) -> None:
    if name == results.NAME:
        item.add_argument("--check", action="store_true", help="exit 1 if the page is not current")
        return
    if name not in WITHOUT_PROTOCOL:
        own = {module.NAME: module.PROTOCOLS for module in (table1, fig6)}
        names = [protocol.name for protocol in own[name]] if name in own else list(PROTOCOLS)
        item.add_argument("--protocol", choices=names, default=names[0])
    if name in {module.NAME for module in DRAWN}:
        return
    item.add_argument("--jobs", type=_positive, default=1, help="runs at the same time")
    if name == experience.NAME:
        return
    item.add_argument("--seeds", type=_positive, help="run only the first so many seeds")
    if name != fig3.NAME:
        folder = os.environ.get("KEEPRATE_DATA", "../shared/data")
        item.add_argument("--data", default=folder, help="the folder that holds mnist/, ...")
    if name == table1.NAME:
        _add_face_options(item)
    if name not in WITHOUT_RUNS:
        item.add_argument(
            "--runs", default="runs/experiments", help="the folder of the run folders"
        )
        item.add_argument(
            "--cluster", metavar="ADDRESS", help="let a Ray cluster train: auto, or host:port"
        )


def _add_face_options(item: argparse.ArgumentParser) -> None:
    item.add_argument("--train", help="identity data: a folder a person, or Parquet")
    item.add_argument(
        "--pairs", action="append", help="pairs to test with, for `keeprate verify`; repeatable"
    )
    item.add_argument("--images", action="append", help="the pictures of these pairs, elsewhere")
    item.add_argument("--validation", help="pairs of other people; left out, some are drawn")
    item.add_argument("--validation-images", help="the pictures of these pairs")
    item.add_argument("--first-seed", type=int, default=0, help="1000 and more: to develop with")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return int(text)


def _list() -> None:
    for name, summary in _summaries().items():
        print(f"{name:12} {summary}")
    print("\nOptions of an item: python -m experiments NAME -h")


def _write_results() -> int:
    results.write()
    print(results.PAGE)
    return 0


def _check_results() -> int:
    try:
        results.check()
    except InputError as error:
        print(f"experiments: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
