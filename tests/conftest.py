"""What all tests share."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from hypothesis import settings

# Examples may be slow while other tests run beside them.
settings.register_profile("keeprate", deadline=None)
settings.load_profile("keeprate")

RUN = """
import os, sys

os.chdir(folder)
for stream, file in ((1, "stdout"), (2, "stderr")):
    os.dup2(os.open(output + file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
sys.argv = ["-c", *arguments]
exec(compile(code, "<test>", "exec"), {"__name__": "__main__"})
"""

Python = Callable[..., CompletedProcess[str]]


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory) -> Python:
    """Run a script in a process of its own, as ``python -c code argument...`` does.

    The process is forked from one that has imported what scripts need and done nothing else: a
    new interpreter takes seconds of processor time for these imports, each time.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["keeprate.estimator", "keeprate.searching", "sklearn.datasets", "torch._dynamo"]
    )
    output = tmp_path_factory.mktemp("python")

    def run(code: str, *arguments: str, cwd: Path | None = None) -> CompletedProcess[str]:
        names = {
            "code": code,
            "arguments": arguments,
            "folder": str(cwd or Path.cwd()),
            "output": f"{output}/",
        }
        process = context.Process(target=exec, args=(RUN, names))
        process.start()
        process.join()
        assert process.exitcode is not None
        shown = [(output / name).read_text() for name in ("stdout", "stderr")]
        return CompletedProcess(["python", "-c", code, *arguments], process.exitcode, *shown)

    return run
