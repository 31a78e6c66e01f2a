"""The one exception type that a user can mend by changing what they gave."""

from __future__ import annotations

import importlib
from typing import Any


class InputError(ValueError):
    """Something given to keeprate cannot be used; the message says what to change.

    The command line prints the message and exits with code 2.
    """


class Words(str):
    """A description that a message shows as it is, not by its repr."""


def invalid(name: str, requirement: str, received: object, remedy: str) -> InputError:
    """Build the house message: name, requirement, value received, remedy.

    >>> print(invalid("keep_rate", "lie in [0, 1]", 1.2, "clip the schedule"))
    keep_rate must lie in [0, 1], got 1.2; clip the schedule.
    >>> print(invalid("labels", "be [N]", Words("shape (3, 1)"), "use ravel()"))
    labels must be [N], got shape (3, 1); use ravel().
    """
    shown = received if isinstance(received, Words) else repr(received)
    return InputError(f"{name} must {requirement}, got {shown}; {remedy}.")


def needs(module: str) -> Any:
    """Import an optional dependency or say how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise InputError(
            f"This source needs the package {package}, which is not installed; "
            "pip install 'keeprate[data]'."
        ) from error


def damaged(path: object, error: BaseException) -> InputError:
    """Name the file that cannot be read."""
    return InputError(
        f"{path} could not be read ({first_line(error)}); the file is damaged or not what its "
        "name says: fetch or write it again."
    )


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its class."""
    return (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
