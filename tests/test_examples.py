"""The examples run as they stand."""

from __future__ import annotations

from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(python, path, tmp_path):
    done = python(path, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "test accuracy" in done.stdout


def test_each_tutorial_shows_an_example_whole() -> None:
    shown = [
        line
        for page in (EXAMPLES[0].parent.parent / "docs" / "tutorials").glob("*.md")
        for line in page.read_text().splitlines()
        if "--8" in line
    ]
    # A formatter once took the markers for Python, and the pages showed them instead.
    tutorials = {path.name for path in EXAMPLES} - {"quickstart.py", "own_method.py"}
    assert sorted(shown) == [f'--8<-- "examples/{name}"' for name in sorted(tutorials)]
