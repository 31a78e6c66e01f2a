"""Build what a user installs, install it where nothing else is, and use it: `make parcel`.

The wheel goes into a new virtual environment with the extra `data` and the pinned versions, the
source distribution is unpacked elsewhere, and some of its tests run there, on the installed wheel.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
import time
import venv
import zipfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE_DATA = ("py.typed", "**/*.pyi", "report/*.html", "report/*.js", "searching/experience.json")
UNPACKED_TESTS = ("tests/test_sources.py",)  # what `make check` runs need not run again
TEST_PACKAGES = (
    "pytest",
    "pytest-timeout",
    "hypothesis",
    "polars",
)  # the part of `dev` that these tests need

# pip compiles nothing here: what one command compiles has to be kept for the next.
NOT_A_USERS = ("PYTHONPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE")

CSV = "size,colour,kind\n" + "".join(
    f"{i % 7 + 10 * (i % 2)},{('red', 'blue')[i % 2]},{('a', 'b')[i % 2]}\n" for i in range(120)
)
CLASSIFIER = """
from sklearn.datasets import load_digits
from keeprate import NoisyLabelClassifier

X, y = load_digits(n_class=3, return_X_y=True)
fitted = NoisyLabelClassifier(budget="2trials", epochs=3, random_state=0).fit(X, y)
assert fitted.score(X, y) > 0.5, fitted.score(X, y)
"""
SOURCES = """
from pathlib import Path
import datasets
import numpy as np
import pyarrow
import pyarrow.parquet
from PIL import Image
from keeprate import load_data

def shape(source):
    return tuple(load_data(source).splits["train"].inputs.shape)

columns = {"x": [float(i) for i in range(8)], "label": [i % 2 for i in range(8)]}
assert shape(datasets.Dataset.from_dict(columns)) == (8, 1)
pyarrow.parquet.write_table(pyarrow.table(columns), "table.parquet")
assert shape("table.parquet") == (8, 1)
for i in range(8):
    path = Path("images", "ab"[i % 2], f"{i}.png")
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((9, 9, 3), 20 * i, np.uint8)).save(path)
assert shape("images") == (8, 3, 9, 9)
"""
SMALL = ("--epochs", "2", "--limit", "200", "--quiet")
COMMANDS = (
    ("train", "digits", *SMALL, "--noise", "symmetric:0.2", "--out", "trained"),
    ("search", "digits", *SMALL, "--budget", "2trials", "--out", "searched"),
    ("predict", "trained", "digits", "--out", "predictions.csv"),
    ("issues", "trained", "--out", "issues.csv"),
    ("report", "trained", "searched", "--out", "report.html"),
    ("train", "things.csv", "--label", "kind", "--epochs", "2", "--quiet", "--out", "table"),
)
LEFT = ("predictions.csv", "issues.csv", "report.html", "table/model.safetensors")


def run(arguments: Sequence[str | Path], cwd: Path, *, packages: Path | None = None) -> str:
    """Run a command as a user would: without this checkout on the path of Python.

    Parameters
    ----------
    arguments : sequence of str or Path
    cwd : Path
    packages : Path, optional
        A folder of packages that the environment lacks.

    Raises
    ------
    SystemExit
        If the command fails; with what it printed.
    """
    environment = {k: v for k, v in os.environ.items() if k not in NOT_A_USERS}
    environment.setdefault("OMP_NUM_THREADS", "1")
    if packages is not None:
        environment["PYTHONPATH"] = str(packages)
    done = subprocess.run(arguments, cwd=cwd, env=environment, capture_output=True, text=True)
    if done.returncode:
        words = " ".join(map(str, arguments))
        raise SystemExit(f"{words}\nended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def package_files() -> set[str]:
    """What a wheel holds of the package: the modules and the package data of the source tree."""
    package = ROOT / "src" / "keeprate"
    found = {path for pattern in ("**/*.py", *PACKAGE_DATA) for path in package.glob(pattern)}
    return {path.relative_to(ROOT / "src").as_posix() for path in found}


def project_files() -> set[str]:
    """What the source distribution holds: the files of the checkout that MANIFEST.in names."""
    found = {f"src/{name}" for name in package_files()}
    for line in (ROOT / "MANIFEST.in").read_text(encoding="utf-8").splitlines():
        command, *names = line.split()
        if command == "graft":
            inside = (path for name in names for path in (ROOT / name).rglob("*"))
            files = (path for path in inside if path.is_file() and "__pycache__" not in path.parts)
            found |= {path.relative_to(ROOT).as_posix() for path in files}
        elif command == "include":
            found |= set(names)
    return found


def build(folder: Path) -> tuple[Path, Path]:
    """Build both distributions from the checkout, and check what is in them.

    Returns
    -------
    wheel, source : Path

    Raises
    ------
    SystemExit
        If the build fails, a file is missing, or one is there that should not be.
    """
    run([sys.executable, "-m", "build", "--outdir", folder, ROOT], cwd=folder)
    (wheel,) = folder.glob("*.whl")
    (source,) = folder.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as packed:
        inside = {name for name in packed.namelist() if ".dist-info/" not in name}
    _compare("the wheel", inside, package_files())
    with tarfile.open(source) as unpacked:
        names = {member.name.partition("/")[2] for member in unpacked if member.isfile()}
    made = {name for name in names if ".egg-info/" in name} | {"PKG-INFO", "setup.cfg"}
    _compare("the source distribution", names - made, project_files())
    return wheel, source


def _compare(what: str, found: Iterable[str], expected: Iterable[str]) -> None:
    missing, surplus = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    if missing or surplus:
        raise SystemExit(f"{what} lacks {missing} and should not hold {surplus}")


def environment(folder: Path, requirements: Sequence[str | Path], *, constraints: Path) -> Path:
    """Make a virtual environment with these requirements and nothing else; its folder `bin`."""
    venv.create(folder, with_pip=True)
    bin_ = folder / ("Scripts" if os.name == "nt" else "bin")
    install(bin_, requirements, constraints=constraints)
    return bin_


def install(bin_: Path, requirements: Sequence[str | Path], *, constraints: Path) -> None:
    """Install requirements with pip, within constraints."""
    pip = (bin_ / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    run([*pip, "--no-compile", "-c", constraints, *requirements], cwd=bin_)


def smoke(bin_: Path, folder: Path) -> None:
    """Train, search, predict, list, report, fit and read files, in an empty folder.

    Raises
    ------
    SystemExit
        If a command fails or leaves a file out.
    """
    folder.mkdir()
    (folder / "things.csv").write_text(CSV, encoding="utf-8")
    for arguments in COMMANDS:
        run([bin_ / "keeprate", *arguments], cwd=folder)
    for script in (CLASSIFIER, SOURCES):
        run([bin_ / "python", "-c", script], cwd=folder)
    missing = [name for name in LEFT if not (folder / name).stat().st_size]
    if missing:
        raise SystemExit(f"{', '.join(missing)}: empty")


def main() -> None:
    """Build, install, use, test; say how long each took."""
    start = time.monotonic()

    def say(what: str) -> None:
        print(f"{time.monotonic() - start:5.0f} s  {what}", flush=True)

    with tempfile.TemporaryDirectory(prefix="keeprate-parcel-") as name:
        folder = Path(name).resolve()
        (folder / "dist").mkdir()
        wheel, source = build(folder / "dist")
        say(f"built and compared: {wheel.name}, {source.name}")
        with tarfile.open(source) as packed:
            packed.extractall(folder, filter="data")
        unpacked = folder / source.name.removesuffix(".tar.gz")
        pins = unpacked / "constraints.txt"
        bin_ = environment(folder / "env", [f"{wheel}[data]"], constraints=pins)
        say("installed with the extra data in a new environment")
        say(run([bin_ / "keeprate", "--version"], cwd=folder).strip())
        # Beside the environment: keeprate has to do without them.
        tools = folder / "tools"
        install(bin_, ["--target", tools, *TEST_PACKAGES], constraints=pins)
        with ThreadPoolExecutor() as pool:  # two processes beside each other
            used = pool.submit(smoke, bin_, folder / "empty")
            tests = ("-m", "pytest", "-q", "-p", "no:cacheprovider", *UNPACKED_TESTS)
            tested = pool.submit(run, [bin_ / "python", *tests], unpacked, packages=tools)
            say(f"unpacked: {tested.result().strip().splitlines()[-1]}")
            used.result()
        say("trained, searched, predicted, listed, reported and fitted in an empty folder")


if __name__ == "__main__":
    main()
