"""Write what the examples print to docs/tutorials/outputs: python -m tests.outputs [NAME ...]."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
OUTPUTS = ROOT / "docs" / "tutorials" / "outputs"
SHOWN = ("fix_labels", "frozen_backbone", "image_folders", "own_network", "scikit_learn", "text")
"""The examples that a tutorial shows."""


def without_folder(text: str, folder: str | Path) -> str:
    """What an example printed, wherever it ran."""
    return text.replace(f"{Path(folder).resolve()}/", "")


def main() -> None:
    OUTPUTS.mkdir(exist_ok=True)
    for name in sys.argv[1:] or SHOWN:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, str(ROOT / "examples" / f"{name}.py")]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
            text = without_folder(done.stdout, folder)
        (OUTPUTS / f"{name}.txt").write_text(text, encoding="utf-8")
        print(f"{name}: {len(text.splitlines())} lines", flush=True)


if __name__ == "__main__":
    main()
