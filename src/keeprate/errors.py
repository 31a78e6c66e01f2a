"""The exception for what a user can mend, and the house's messages."""

from __future__ import annotations

import importlib
import sys
from importlib.util import find_spec
from numbers import Integral, Number
from typing import Any

# Characters of a value, of a description, and of the name of what was given, in a message.
MOST_SHOWN, MOST_WORDS, MOST_NAME = 200, 400, 300


class InputError(ValueError):
    """An argument, an option or a file cannot be used. The message says what to change.

    The command prints the message and exits with code 2.
    """


class Words(str):
    """A description: a message shows it as it is, not by its repr."""


def invalid(name: str, requirement: str, received: object, remedy: str) -> InputError:
    """Build the house message: name, requirement, value received, remedy.

    Parameters
    ----------
    name : str
        What was given: an argument, an option, a file.
    requirement : str
        What follows "must".
    received : object
        The value. `Words` stay as they are, numbers are shown plainly, classes by their name,
        everything else by its repr.
    remedy : str
        What to do, in the imperative.

    Examples
    --------
    >>> print(invalid("keep_rate", "lie in [0, 1]", 1.2, "clip the schedule"))
    keep_rate must lie in [0, 1], got 1.2; clip the schedule.
    >>> print(invalid("labels", "be [N]", Words("shape (3, 1)"), "use ravel()"))
    labels must be [N], got shape (3, 1); use ravel().
    >>> print(invalid("model", "give a network", type(1), "return a torch.nn.Module"))
    model must give a network, got int; return a torch.nn.Module.
    """
    name = _short(name, MOST_NAME)
    return InputError(f"{name} must {requirement}, got {_shown(received)}; {remedy}.")


def _shown(received: object) -> str:
    if isinstance(received, type):
        return received.__qualname__
    if isinstance(received, Words | Number):  # NumPy's numbers would show their type, too
        return _short(str(received), MOST_WORDS)
    return _short(repr(received), MOST_SHOWN)


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "\N{HORIZONTAL ELLIPSIS}"


def check_whole(name: str, value: Any, least: int) -> int:
    """Return a whole number of at least `least` as an int.

    Raises
    ------
    InputError
        If the value is not one; bools are none.

    Examples
    --------
    >>> check_whole("restarts", 1.5, 1)
    Traceback (most recent call last):
    ...
    keeprate.errors.InputError: restarts must be a whole number of at least 1, got 1.5; give 1, say.
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise invalid(name, f"be a whole number of at least {least}", value, f"give {least}, say")
    return int(value)


_PURPOSES = {  # of keeprate's extras
    "data": "This source",
    "onnx": "The export to ONNX",
    "ray": "A cluster",
    "text": "A text model",
}


def needs(module: str, *, extra: str = "data") -> Any:
    """Import an optional dependency or say how to install it.

    Parameters
    ----------
    module : str
    extra : str
        The extra of keeprate that brings the dependency along.

    Raises
    ------
    InputError
        If the dependency is not installed, or cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        is_missing = find_spec(package) is None if package not in sys.modules else True
        why = "is not installed" if is_missing else f"cannot be imported ({first_line(error)})"
        raise InputError(
            f"{_PURPOSES[extra]} needs the package {package}, which {why}; "
            f"pip install 'keeprate[{extra}]'."
        ) from error


def damaged(path: object, error: BaseException) -> InputError:
    """Name the file that cannot be read."""
    return InputError(
        f"{path} could not be read ({first_line(error)}); the file is damaged or not what its "
        "name says: fetch or write it again."
    )


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its class."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    return _short(line, MOST_SHOWN)
