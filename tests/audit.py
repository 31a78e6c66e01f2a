"""Ask whether a vulnerability of a pinned version is known: `make audit`.

pip-audit reads the advisories of PyPI. Where PyPI is a mirror without them, or out of reach,
pip-audit would find nothing wrong and say so. That is asked first, with one version of one package.
"""

from __future__ import annotations

import argparse
import json
import os
import ssl
import subprocess
import sys
import urllib.request
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
TOOLS = ROOT / ".venv" / "audit"  # of its own: pip-audit has needs of its own
TOOL = "pip-audit==2.10.1"
# A release that will always have advisories, to see whether the database knows any.
KNOWN = "https://pypi.org/pypi/jinja2/2.4.1/json"
SECONDS = 5.0


def database_answers(url: str = KNOWN, *, seconds: float = SECONDS) -> str | None:
    """Why the advisories cannot be read, or None if they can."""
    certificates = os.environ.get("PIP_CERT")
    try:
        context = ssl.create_default_context(cafile=certificates)
        with urllib.request.urlopen(url, timeout=seconds, context=context) as answer:
            advisories = json.load(answer).get("vulnerabilities")
    except (OSError, ValueError) as error:  # no network, no such page, no JSON
        return f"{url}: {error}"
    return None if advisories else f"{url} names no advisory, though there are some"


def main() -> int:
    """Audit constraints.txt; 0 if nothing is known, 1 if something is, 2 if nobody can tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--if-reachable", action="store_true", help="out of reach is no failure")
    is_optional = parser.parse_args().if_reachable
    why = database_answers()
    if why is not None:
        print(f"audit: nothing was audited, as the advisories are out of reach ({why})")
        return 0 if is_optional else 2
    python = TOOLS / "bin" / "python"
    if not python.exists():
        venv.create(TOOLS, with_pip=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", TOOL], check=True)
    audit = (python, "-m", "pip_audit", "--progress-spinner", "off", "--no-deps", "--disable-pip")
    return subprocess.run([*audit, "-r", ROOT / "constraints.txt"], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
