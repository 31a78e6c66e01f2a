"""What is packed, pinned and allowed: all that can be told without an installation."""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name
from packaging.version import Version

import keeprate
from tests.audit import database_answers
from tests.lock import LOCK, locked
from tests.lowest import EXTRAS, floors, pins, project
from tests.parcel import PACKAGE_DATA, ROOT, build, package_files, project_files

TABLE = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
DIRECT = [line for lines in project().values() for line in lines if not line.startswith("keeprate")]
LOCKED = re.compile(r"(?P<name>[\w.-]+)==(?P<version>\S+) --hash=sha256:[0-9a-f]{64}")


def test_the_package_data_patterns_take_every_file_that_is_no_module() -> None:
    assert tuple(TABLE["tool"]["setuptools"]["package-data"]["keeprate"]) == PACKAGE_DATA
    package = ROOT / "src" / "keeprate"
    for pattern in PACKAGE_DATA:
        assert list(package.glob(pattern)), f"{pattern} matches no file"
    there = {path.relative_to(package.parent).as_posix() for path in package.rglob("*.*")}
    assert {name for name in there if not name.endswith(".pyc")} == package_files()


def test_the_manifest_names_what_is_there() -> None:
    missing = sorted(name for name in project_files() if not (ROOT / name).is_file())
    assert not missing, f"MANIFEST.in names {missing}"
    for line in (ROOT / "MANIFEST.in").read_text(encoding="utf-8").splitlines():
        command, *names = line.split()
        assert command != "graft" or all((ROOT / name).is_dir() for name in names), line


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no checkout")
def test_the_manifest_takes_every_file_of_the_repository() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    tracked = {name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()}
    assert not tracked - project_files(), "MANIFEST.in leaves these out"


def test_one_version_everywhere() -> None:
    version = TABLE["project"]["version"]
    assert keeprate.__version__ == version == importlib.metadata.version("keeprate")
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings and headings[0] in ("Unreleased", version)


@pytest.mark.parametrize("requirement", DIRECT)
def test_every_floor_is_one_and_at_or_below_its_pin(requirement: str) -> None:
    ((name, floor),) = floors([requirement]).items()
    pin = {canonicalize_name(n): v for n, v in pins().items()}[canonicalize_name(name)]
    assert Version(floor) <= Version(pin)


def test_a_requirement_without_a_floor_is_refused() -> None:
    assert floors(["a>=1.2", "b[x,y]>=3"]) == {"a": "1.2", "b": "3"}
    for requirement in ("a", "a==1", "a>=1,<2", "a>=1; python_version<'3.12'"):
        with pytest.raises(ValueError, match="must be name>=version"):
            floors([requirement])
    assert set(EXTRAS) <= project().keys()


def test_the_lock_has_the_pins_and_a_hash_for_each() -> None:
    lines = LOCK.read_text(encoding="utf-8").splitlines()
    matches = [LOCKED.fullmatch(line) for line in lines if not line.startswith("#")]
    found = {canonicalize_name(m["name"]): m["version"] for m in matches if m}
    assert len(found) == len(matches) > 0
    expected = {canonicalize_name(name): version for name, version in pins().items()}
    assert found == expected, "run `make lock` after a change of constraints.txt"


def test_the_lock_is_written_from_pips_report() -> None:
    def package(name: str, version: str, info: dict[str, object]) -> dict[str, object]:
        return {"metadata": {"name": name, "version": version}, "download_info": info}

    files = {"archive_info": {"hashes": {"sha256": "0" * 64}}}
    report = [
        package("torch", "2.13.0+cpu", files),
        package("keeprate", "0.1.0", {"dir_info": {}}),
        package("Mako", "1.4", files),
    ]
    lines = locked(json.dumps({"install": report})).splitlines()
    assert [line for line in lines if not line.startswith("#")] == [
        f"Mako==1.4 --hash=sha256:{'0' * 64}",
        f"torch==2.13.0 --hash=sha256:{'0' * 64}",
    ]


def test_an_audit_without_advisories_is_none(tmp_path: Path) -> None:
    answers = {"good": '{"vulnerabilities": [{"id": "X"}]}', "mirror": "{}", "page": "<html>"}
    for name, text in answers.items():
        (tmp_path / name).write_text(text)
    assert database_answers((tmp_path / "good").as_uri()) is None
    assert "names no advisory" in (database_answers((tmp_path / "mirror").as_uri()) or "")
    for name in ("page", "gone"):
        assert (tmp_path / name).as_uri() in (database_answers((tmp_path / name).as_uri()) or "")


def test_the_security_page_has_what_a_reporter_needs() -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    assert "Report a vulnerability" in text and "trust_model" in text
    links = re.findall(r"\]\((?!https?:)([^)#]+)", text)
    assert all((ROOT / link).exists() for link in links), links


@pytest.mark.slow
def test_wheel_and_source_distribution_are_whole(tmp_path: Path) -> None:
    wheel, source = build(tmp_path)  # compares what is in them with the tree
    assert wheel.name == f"keeprate-{keeprate.__version__}-py3-none-any.whl"
    assert source.name == f"keeprate-{keeprate.__version__}.tar.gz"
