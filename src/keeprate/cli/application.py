"""The typer application: commands whose option groups become options, and old spellings."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import is_dataclass
from functools import wraps
from itertools import zip_longest
from typing import Any, get_type_hints

import typer

from keeprate.cli import options
from keeprate.cli.options import Help, Version
from keeprate.errors import InputError, invalid
from keeprate.text import visible

REPLACED = {
    "--trials": "was replaced: write --budget {}trials",
    "--no-confirm": "was replaced: a search of fewer than 16 trials (--budget 15trials) confirms "
    "none; for more write SearchConfig(confirm=False) in Python",
    "--lr-schedule": "was replaced: write --learning-rate-schedule {}",
    "--population": "was replaced: write --lockstep {}",
}
"""Options of earlier versions, and what to write instead."""
USUAL_VALUE = {"--trials": "40", "--lr-schedule": "cosine", "--population": "auto"}


def refuse_replaced(arguments: Sequence[str]) -> None:
    """Name the new spelling of an option that an earlier version had.

    Raises
    ------
    InputError
        If there is one among the arguments, or an option with characters that work unseen, as the
        name of a file in another's folder may be: typer would print them as they are.

    Examples
    --------
    >>> refuse_replaced(["search", "digits", "--trials", "40"])
    Traceback (most recent call last):
    ...
    keeprate.errors.InputError: --trials was replaced: write --budget 40trials.
    """
    for argument, following in zip_longest(arguments, arguments[1:], fillvalue=""):
        name, _, value = argument.partition("=")
        if name in REPLACED:
            value = value or ("" if following.startswith("-") else following)
            words = REPLACED[name].format(value or USUAL_VALUE.get(name, ""))
            raise InputError(f"{name} {words}.")
        if name.startswith("-") and visible(name) != name:
            remedy = "write ./ before the name of a file, and see --help"
            raise invalid("an option", "be one of keeprate's", argument, remedy)


def make_application(commands: Sequence[Callable[..., None]]) -> typer.Typer:
    """A typer application of commands, each named like its function without "_command"."""
    app = typer.Typer(
        name="keeprate",
        help="Train classifiers on labels that are partly wrong, and list the labels that look "
        "wrong.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    app.callback(invoke_without_command=True)(_root)
    for command in commands:
        app.command(command.__name__.removesuffix("_command"))(flattened(command))
    return app


def _root(
    version: Version = False,
    help: Help = False,
) -> None:
    if version:
        from keeprate import __version__

        typer.echo(f"keeprate {__version__}")
        raise typer.Exit


def flattened(command: Callable[..., None]) -> Callable[..., None]:
    """Show typer a command whose option groups are replaced by their fields.

    Parameters
    ----------
    command : callable
        Its annotations are names of `keeprate.cli.options`.
    """
    signature = inspect.signature(command, eval_str=True, globals=vars(options))
    groups = {
        parameter.name: _fields(parameter.annotation)
        for parameter in signature.parameters.values()
        if is_dataclass(parameter.annotation)
    }
    flat: list[inspect.Parameter] = []
    for name, parameter in signature.parameters.items():
        flat += groups.get(name, [parameter])
    flat.append(_HELP)

    @wraps(command)
    def flat_command(**values: Any) -> None:
        arguments = {}
        for name, parameter in signature.parameters.items():
            if name in groups:
                group = {field.name: values[field.name] for field in groups[name]}
                arguments[name] = parameter.annotation(**group)
            else:
                arguments[name] = values[name]
        command(**arguments)

    flat = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in flat]
    flat_command.__signature__ = inspect.Signature(flat)  # type: ignore[attr-defined]
    flat_command.__annotations__ = {parameter.name: parameter.annotation for parameter in flat}
    return flat_command


def _fields(group: Any) -> list[inspect.Parameter]:
    """The parameters of a group's constructor, with their types."""
    types = get_type_hints(group, include_extras=True)
    parameters = inspect.signature(group).parameters
    return [field.replace(annotation=types[name]) for name, field in parameters.items()]


_HELP = inspect.Parameter("help", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Help)
