"""Use keeprate with the lowest versions that pyproject.toml allows: `make lowest`.

The direct dependencies and those of the extra `data` are installed at their floors, in a new
virtual environment; what these need comes in the version that pip chooses. PyTorch keeps its pinned
version: PyPI has older ones for Linux only with gigabytes of CUDA libraries.
"""

from __future__ import annotations

import re
import tempfile
import tomllib
from collections.abc import Iterable
from pathlib import Path

from tests.parcel import ROOT, build, environment, run, smoke

FLOOR = re.compile(r"(?P<name>[\w.-]+)(?:\[[\w,]+\])?>=(?P<version>\d+(?:\.\d+)*)")
EXTRAS = ("data",)
KEPT = "torch"


def floors(requirements: Iterable[str]) -> dict[str, str]:
    """The lowest version of each requirement.

    Raises
    ------
    ValueError
        If a requirement is not `name>=version`.
    """
    found = {}
    for requirement in requirements:
        match = FLOOR.fullmatch(requirement)
        if match is None:
            raise ValueError(f"{requirement} must be name>=version")
        found[match["name"]] = match["version"]
    return found


def project() -> dict[str, list[str]]:
    """Requirements by extra; those of the project itself by ""."""
    table = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {"": table["dependencies"], **table["optional-dependencies"]}


def pins() -> dict[str, str]:
    """The exact versions of constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def main() -> None:
    """Build the wheel, install it with the floors, and use it."""
    wanted = project()
    lowest = floors(line for extra in ("", *EXTRAS) for line in wanted[extra])
    lowest[KEPT] = pins()[KEPT]
    with tempfile.TemporaryDirectory(prefix="keeprate-lowest-") as name:
        folder = Path(name).resolve()
        constraints = folder / "lowest.txt"
        constraints.write_text("".join(f"{n}=={v}\n" for n, v in lowest.items()), encoding="utf-8")
        (folder / "dist").mkdir()
        wheel, _ = build(folder / "dist")
        extras = ",".join(EXTRAS)
        bin_ = environment(folder / "env", [f"{wheel}[{extras}]"], constraints=constraints)
        print(run([bin_ / "python", "-m", "pip", "freeze"], cwd=folder), flush=True)
        smoke(bin_, folder / "empty")
        print("trained, searched, predicted, listed, reported and fitted at the floors")


if __name__ == "__main__":
    main()
