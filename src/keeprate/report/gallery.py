"""The labels that look wrong: cards to look at, grouped by pairs of classes."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from html import escape

from keeprate.records import Suspect
from keeprate.text import UNKNOWN, probability_in_words

_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")
_JPEG = base64.b64encode(b"\xff\xd8\xff").decode()


def by_pair(suspects: Sequence[Suspect]) -> list[list[Suspect]]:
    """Group samples by their given and their suggested class, the largest group first.

    In a group they stay in order. Groups without a suggestion come last.
    """
    groups: dict[tuple[bool, str, str], list[Suspect]] = {}
    for suspect in suspects:
        pair = (suspect.suggestion is None, suspect.given, suspect.predicted)
        groups.setdefault(pair, []).append(suspect)
    order = sorted(groups, key=lambda pair: (pair[0], -len(groups[pair])))
    return [groups[pair] for pair in order]


def gallery(groups: Sequence[Sequence[Suspect]]) -> str:
    """Cards of samples, each group with its heading.

    What is no base64 in the `image` of a sample is left out.
    """
    return "".join(map(_group, groups))


def _group(suspects: Sequence[Suspect]) -> str:
    is_wide = not any(suspect.image for suspect in suspects)
    cards = "".join(map(_card, suspects))
    first, arrow = suspects[0], "\N{RIGHTWARDS ARROW}"
    return (
        f"<details open><summary>{escape(first.given)} {arrow} <b>{escape(first.predicted)}</b> "
        f'<span class="muted">{len(suspects):,}</span></summary>'
        f'<div class="cards{" wide" if is_wide else ""}">{cards}</div></details>'
    )


def _card(suspect: Suspect) -> str:
    values = {column: str(value) or UNKNOWN for column, value in suspect.values.items()}
    name, shown = suspect.name, ""
    if set(name.split(", ")) <= {*values.values()}:  # the words of a row stand in its columns
        name = ""
    if _BASE64.fullmatch(suspect.image):
        kind = "jpeg" if suspect.image.startswith(_JPEG) else "png"
        source = f"data:image/{kind};base64,{suspect.image}"
        shown = f'<img alt="sample {suspect.index}" src="{source}">'
    elif name:  # a text is what there is to see; the file name of a picture is a detail
        name, shown = "", f"<p>{escape(name)}</p>"
    if values:
        pairs = (f"<div><dt>{escape(k)}<dd>{escape(v)}</div>" for k, v in values.items())
        shown += f"<dl>{''.join(pairs)}</dl>"
    wrong = probability_in_words(1 - suspect.score)
    details = (f"row {suspect.index}", f"wrong: {wrong}", name)
    return (
        f'<div class="card">{shown}'
        + "".join(f"<small>{escape(words)}</small>" for words in details if words)
        + "<output></output></div>"
    )
