"""The one exception type that a user can mend by changing what they gave."""

from __future__ import annotations


class InputError(ValueError):
    """Something given to keeprate cannot be used; the message says what to change.

    The command line prints the message and exits with code 2.
    """


def invalid(name: str, requirement: str, received: object, remedy: str) -> InputError:
    """Build the house message: name, requirement, value received, remedy.

    >>> print(invalid("keep_rate", "lie in [0, 1]", 1.2, "clip the schedule"))
    keep_rate must lie in [0, 1], got 1.2; clip the schedule.
    """
    shown = received if isinstance(received, str) and " " in received else repr(received)
    return InputError(f"{name} must {requirement}, got {shown}; {remedy}.")
