"""What all tests share."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import multiprocessing
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerContext

    from keeprate.data.samples import Data
    from keeprate.runs.outputs import Run

# Examples may be slow while other tests run beside them.
settings.register_profile("keeprate", deadline=None)
settings.load_profile("keeprate")

# A string, as the new process cannot import this file.
RUN = """
import multiprocessing, os, runpy, sys

# What the script would spawn is forked, too, and has the imports.
context = multiprocessing.get_context
multiprocessing.get_context = lambda method=None: context("fork" if method == "spawn" else method)
os.chdir(folder)
for stream, file in ((1, "stdout"), (2, "stderr")):
    os.dup2(os.open(output + file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
sys.argv = [script, *arguments]
sys.path[0] = os.path.dirname(script)
runpy.run_path(script, run_name="__main__")
"""

Python = Callable[..., CompletedProcess[str]]


@pytest.fixture(scope="session")
def forkserver() -> ForkServerContext:
    """Start processes that are forked from one that has imported what they need and done nothing.

    In a new interpreter these imports (PyTorch's optimisers need `torch._dynamo`) take seconds of
    processor time, each time.
    """
    context = multiprocessing.get_context("forkserver")
    ours = ["keeprate.estimator", "keeprate.report.page", "keeprate.cli.commands"]
    theirs = ["sklearn.datasets", "torch._dynamo", "sqlalchemy", "alembic.migration", "PIL.Image"]
    context.set_forkserver_preload([*ours, *theirs])
    return context


@pytest.fixture(scope="session")
def python(forkserver: ForkServerContext, tmp_path_factory: pytest.TempPathFactory) -> Python:
    """Run a script in a process of its own, as ``python script argument...`` does."""
    output = tmp_path_factory.mktemp("python")

    def run(script: Path, *arguments: str, cwd: Path | None = None) -> CompletedProcess[str]:
        names = {
            "script": str(script),
            "arguments": arguments,
            "folder": str(cwd or Path.cwd()),
            "output": f"{output}/",
        }
        process = forkserver.Process(target=exec, args=(RUN, names))
        process.start()
        process.join()
        assert process.exitcode is not None
        shown = [(output / name).read_text() for name in ("stdout", "stderr")]
        return CompletedProcess(["python", str(script), *arguments], process.exitcode, *shown)

    return run


# The imports take seconds, and not every test needs them.


@pytest.fixture(scope="session")
def data() -> Data:
    import keeprate

    return keeprate.prepare("digits", noise="pairflip:0.45", seed=0)


@pytest.fixture(scope="session")
def run(data: Data, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A search of twelve trials, with a folder; its page is left out."""
    from tests.searches import CONFIG, draw_no_page, search

    with pytest.MonkeyPatch.context() as patch:
        draw_no_page(patch)
        return search(data, trials=12, config=CONFIG, out=tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="session")
def confirmed(data: Data) -> Run:
    """A search of short trials, of which four confirm."""
    from tests.searches import CONFIG, SIXTEEN, search

    return search(data, config=replace(CONFIG, epochs=6), **SIXTEEN)


@pytest.fixture(scope="module", autouse=True)
def freed_memory_goes_back() -> Iterator[None]:
    """The engine has the C library keep what is freed: many files in one process would add up."""
    yield
    gc.collect()
    if pyarrow := sys.modules.get("pyarrow"):
        pyarrow.default_memory_pool().release_unused()
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL("libc.so.6").malloc_trim(0)


@pytest.fixture
def no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs write no pictures and no page: for tests that look at something else."""
    from tests.searches import draw_no_page

    draw_no_page(monkeypatch)
