"""`python -m experiments`: the figures and tables of the paper, by name."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from experiments import fig1, fig3, fig4, fig5, fig6, fig7, main_job, prior, results
from experiments.common import PROTOCOLS
from experiments.results import COMPARISONS
from keeprate import InputError

DRAWN = (fig4, fig5, fig7)


def main(words: list[str] | None = None) -> int:
    """Run, draw or write one item; without a name, list them."""
    parser = _parser()
    options = parser.parse_args(words)
    try:
        if options.item is None:
            _list()
        elif options.item == results.NAME:
            return _write_results(check_only=options.check)
        elif options.item == fig1.NAME:
            protocol = fig1.protocol_named(options.protocol)
            fig1.run(protocol, **_of_training(options))
            print(*fig1.draw(options.protocol), sep="\n")
        elif options.item == main_job.NAME:
            main_job.run(main_job.protocol_named(options.protocol), **_of_training(options))
        elif options.item == fig3.NAME:
            seeds = {} if options.seeds is None else {"seeds": options.seeds}
            fig3.run(at_once=options.jobs, **seeds)
            print(*fig3.draw(), sep="\n")
        elif options.item == fig6.NAME:
            fig6.run(data=options.data, seeds=options.seeds, at_once=options.jobs)
            print(*fig6.draw(), sep="\n")
        elif options.item == prior.NAME:
            prior.run(at_once=options.jobs)
            print(prior.SHIPPED)
        elif drawn := next((one for one in DRAWN if options.item == one.NAME), None):
            print(*drawn.draw(options.protocol), sep="\n")
        else:
            table = next(table for table in COMPARISONS if table.name == options.item)
            table.run(table.protocol(options.protocol), **_of_training(options))
    except InputError as error:
        print(f"experiments: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nexperiments: stopped; the same command goes on from here.", file=sys.stderr)
        return 130
    return 0


def _of_training(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "data": options.data,
        "runs": options.runs,
        "seeds": options.seeds,
        "at_once": options.jobs,
    }


def _summaries() -> dict[str, str]:
    found = {module.NAME: module.SUMMARY for module in (main_job, fig1, fig3, fig6, prior)}
    found |= {table.name: f"{table.title} (trains)" for table in COMPARISONS}
    found |= {module.NAME: module.SUMMARY for module in DRAWN}
    return found | {results.NAME: results.SUMMARY}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments", description="Figures and tables of the paper."
    )
    items = parser.add_subparsers(dest="item", metavar="NAME")
    for name, summary in _summaries().items():
        item = items.add_parser(name, help=summary, description=summary)
        if name == results.NAME:
            item.add_argument("--check", action="store_true", help="exit 1 if it is not current")
            continue
        if name == prior.NAME:
            item.add_argument("--jobs", type=_positive, default=1, help="runs at the same time")
            continue
        if name not in (fig3.NAME, fig6.NAME):
            own = [protocol.name for protocol in main_job.PROTOCOLS]
            names = own if name == main_job.NAME else list(PROTOCOLS)
            item.add_argument("--protocol", choices=names, default=names[0])
        if name in {module.NAME for module in DRAWN}:
            continue
        item.add_argument("--seeds", type=_positive, help="run only so many of the protocol's")
        item.add_argument("--jobs", type=_positive, default=1, help="runs at the same time")
        if name != fig3.NAME:
            folder = os.environ.get("KEEPRATE_DATA", "../shared/data")
            item.add_argument("--data", default=folder, help="the folder that holds mnist/, ...")
        if name not in (fig3.NAME, fig6.NAME):
            item.add_argument("--runs", default="runs/experiments", help="where the runs are kept")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return int(text)


def _list() -> None:
    for name, summary in _summaries().items():
        print(f"{name:9} {summary}")
    print("\npython -m experiments NAME --protocol desk|paper; -h after a name tells the rest.")


def _write_results(*, check_only: bool) -> int:
    if not check_only:
        results.write()
        print(results.PAGE)
        return 0
    try:
        results.check()
    except InputError as error:
        print(f"experiments: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
