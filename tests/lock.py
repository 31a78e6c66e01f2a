"""Write requirements-ci.txt: every package of `constraints.txt` with its hash, by `make lock`.

pip says which file it would install for each pin, and the SHA-256 of that file. The hashes are
those of the files for this Python and this machine, so the list is of use on such machines only.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "requirements-ci.txt"
HEAD = """\
# What .ci/run installs: the versions of constraints.txt with the SHA-256 of the files for CPython
# 3.11 on Linux x86-64. torch is the CPU build (2.13.0+cpu). Written by `make lock`.
"""


def locked(report: str) -> str:
    """The lines of requirements-ci.txt from a report of `pip install --dry-run --report`."""
    lines = []
    for package in json.loads(report)["install"]:
        name, version = package["metadata"]["name"], package["metadata"]["version"]
        info = package["download_info"]
        if "dir_info" in info:  # this project
            continue
        public = version.partition("+")[0]  # torch 2.13.0+cpu is pinned as 2.13.0
        lines.append(f"{name}=={public} --hash=sha256:{info['archive_info']['hashes']['sha256']}")
    return HEAD + "".join(f"{line}\n" for line in sorted(lines, key=str.lower))


def main() -> None:
    """Ask pip, and write the file."""
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    wanted = ("--dry-run", "--ignore-installed", "--report", "-", "-c", "constraints.txt")
    done = subprocess.run(
        [*pip, *wanted, ".[dev,docs]"], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    LOCK.write_text(locked(done.stdout), encoding="utf-8")


if __name__ == "__main__":
    main()
