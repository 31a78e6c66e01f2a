"""Text for people: shortened lines, lists, shares and durations in words."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

LONGEST = 300  # characters of the text that a sample is known by
UNKNOWN = "\N{EN DASH}"
FORMULA = re.compile(r"'*[=+\-@\t\r]")
# Control characters but for tab and line feed, marks that turn the direction of writing, line and
# paragraph separators, and halves of characters, as file names that are not UTF-8 hold them.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
NUMBER = re.compile(r"[-+]?\d+(\.\d*)?([eE][-+]?\d+)?")


def shortened(text: str, longest: int = LONGEST) -> str:
    """Put a text on one line, and cut the line.

    >>> shortened("a  text of two lines", 12)
    'a text of t…'
    """
    return cut(" ".join(text.split()), longest)


def cut(text: str, most: int) -> str:
    """Keep at most `most` characters of a text.

    >>> cut("nineteen letters and", 9), cut("short", 9)
    ('nineteen…', 'short')
    """
    return text if len(text) <= most else text[: most - 1] + "\N{HORIZONTAL ELLIPSIS}"


def visible(text: str) -> str:
    r"""Write what works unseen, on a terminal or a reader's eye, as Python would write it.

    >>> print(visible("\x1b[31mcat"), visible("gpj.\u202eexe"))
    \x1b[31mcat gpj.\u202eexe
    """
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def listed(names: Sequence[object], most: int = 8) -> str:
    """Name things in a sentence, but never thousands of them.

    >>> listed(["a", "b"]), listed([f"pixel{i}" for i in range(784)], 2)
    ('a, b', 'pixel0, pixel1 and 782 more')
    """
    shown = ", ".join(cut(str(name), 60) for name in names[:most])
    return f"{shown} and {len(names) - most:,} more" if len(names) > most else shown


def grouped(said: Mapping[str, str]) -> dict[str, list[str]]:
    """Group columns by what is said of them.

    >>> grouped({"age": "number", "": "number", "note": "text"})
    {'number': ['age', '(no name)'], 'text': ['note']}
    """
    groups: dict[str, list[str]] = {}
    for name, words in said.items():
        groups.setdefault(words, []).append(name or "(no name)")
    return groups


def neutral(text: str) -> str:
    """Keep a spreadsheet from taking a text for a formula; `as_meant` undoes this.

    >>> neutral("=1+1"), neutral("-1"), neutral("'=x"), neutral("cat")
    ("'=1+1", '-1', "''=x", 'cat')
    """
    return f"'{text}" if FORMULA.match(text) and not NUMBER.fullmatch(text) else text


def as_meant(text: str) -> str:
    """The text that `neutral` changed.

    >>> as_meant("'=1+1"), as_meant("it's"), as_meant("'quoted'")
    ('=1+1', "it's", "'quoted'")
    """
    return text[1:] if text.startswith("'") and FORMULA.match(text[1:]) else text


def percent(share: float | None, places: int = 1) -> str:
    """Write a share in [0, 1] in percent; None is a dash.

    >>> percent(0.4567), percent(0.4567, 2), percent(None)
    ('45.7 %', '45.67 %', '–')
    """
    return UNKNOWN if share is None else f"{100 * share:.{places}f} %"


def is_share(criterion: str) -> bool:
    """Whether scores by a criterion are shares of samples: those by an accuracy are.

    >>> is_share("accuracy"), is_share("pair accuracy"), is_share("average precision")
    (True, True, False)
    """
    return criterion.endswith("accuracy")


def score_as_text(score: float | None, criterion: str, places: int = 1) -> str:
    """Write a score: in percent by an accuracy, else as a number; None is a dash.

    `places` are those of the percentage; a number has two more.

    >>> score_as_text(0.4567, "accuracy"), score_as_text(-0.4567, "neg log loss")
    ('45.7 %', '-0.457')
    """
    if score is None or is_share(criterion):
        return percent(score, places)
    return f"{score:.{places + 2}f}" if abs(score) < 1e4 else f"{score:.{places + 3}g}"


def probability_in_words(probability: float) -> str:
    """Write a probability in percent; none is certain.

    >>> probability_in_words(0.97), probability_in_words(0.9999)
    ('97.0 %', '> 99.9 %')
    """
    return "> 99.9 %" if probability > 0.999 else percent(probability)


def size(n_bytes: int) -> str:
    """Write a number of bytes as people say it.

    >>> size(900), size(6_812_345), size(12_400_000_000)
    ('under 0.1 MB', '6.8 MB', '12.4 GB')
    """
    if n_bytes < 50_000:
        return "under 0.1 MB"
    in_megabytes = n_bytes < 1_000_000_000
    return f"{n_bytes / 1e6:.1f} MB" if in_megabytes else f"{n_bytes / 1e9:.1f} GB"


def duration(seconds: float | None, *, places: int = 1) -> str:
    """Write seconds as people say them; None is a dash.

    >>> duration(9.04), duration(150), duration(7260), duration(None)
    ('9.0 s', '2 min', '2 h 1 min', '–')
    """
    if seconds is None:
        return UNKNOWN
    if seconds < 120:
        return f"{seconds:.{places}f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
