"""The review desk: cards of labels that look wrong, and a script that takes decisions on them.

Without scripts the page shows the cards alone.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from functools import cache
from html import escape
from importlib.resources import files

from keeprate.records import Suspect
from keeprate.report.gallery import by_pair, gallery

_BUTTONS = (
    ("accept", "Accept <b></b>", "A"),
    ("keep", "Keep <b></b>", "K"),
    ("drop", "Drop", "D"),
    ("next", "Next", "N"),
    ("undo", "Undo", "U"),
)


def review_desk(suspects: Sequence[Suspect], class_names: Sequence[str]) -> str:
    """The desk of a run; empty if no label looks wrong.

    Parameters
    ----------
    suspects : sequence of Suspect
    class_names : sequence of C str
        What a label may be changed to.
    """
    if not suspects:
        return ""
    groups = by_pair(suspects)
    samples = [
        [str(one.index), one.given, one.suggestion, one.name] for group in groups for one in group
    ]
    content = {"classes": list(class_names), "samples": samples}
    # The browser keeps decisions under this name: those of one run on all pages that show it.
    run = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
    told = escape(json.dumps({"run": f"keeprate {run}", **content}))
    return (
        f'<div class="desk" data-desk="{told}"><div class="bar" hidden>{_bar(len(samples))}</div>'
        f'<div class="pairs">{gallery(groups)}</div></div>'
    )


def _bar(n_samples: int) -> str:
    buttons = [
        f'<button type="button" data-do="{name}">{words} <kbd>{key}</kbd></button>'
        for name, words, key in _BUTTONS
    ]
    another = (
        '<label><kbd>C</kbd> <select data-do="class" aria-label="another class">'
        "<option>Another class</select></label>"
    )
    return (
        f'<div><progress data-do="progress" max="{n_samples}" value="0"></progress> '
        '<span data-do="count" aria-live="polite"></span></div>'
        f"<div>{''.join([*buttons[:2], another, *buttons[2:]])}</div>"
        '<div><button type="button" data-do="download">Download decisions.csv</button>'
        '<label class="button">Load a file<input type="file" accept=".csv" data-do="file">'
        '</label><span data-do="said" role="status"></span></div>'
    )


@cache
def desk_script() -> str:
    """The script that all desks of a page share."""
    return files("keeprate.report").joinpath("desk.js").read_text(encoding="ascii")


def script_source() -> str:
    """How a content security policy allows this script and no other."""
    digest = base64.b64encode(hashlib.sha256(desk_script().encode()).digest()).decode()
    return f"'sha256-{digest}'"
