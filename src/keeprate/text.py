"""Text for people: cut lines, shares and durations in words."""

from __future__ import annotations

from typing import Any

LONGEST = 300  # characters of the text that a sample is known by


def shortened(text: str, longest: int = LONGEST) -> str:
    """On one line, and cut.

    >>> shortened("a  text of two lines", 12)
    'a text of t…'
    """
    return cut(" ".join(text.split()), longest)


def cut(text: str, most: int) -> str:
    """So many characters of a text at most."""
    return text if len(text) <= most else text[: most - 1] + "\N{HORIZONTAL ELLIPSIS}"


def percent(value: Any, places: int = 1) -> str:
    """A share in words."""
    return "\N{EN DASH}" if value is None else f"{100 * value:.{places}f} %"


def duration(seconds: Any) -> str:
    """Seconds in words."""
    if seconds is None:
        return "\N{EN DASH}"
    if seconds < 120:
        return f"{seconds:.1f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
