"""The house rules that a reader could otherwise only hope for, read from the source with `ast`."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import keeprate
from tests.house import SOURCE, imports_of, module_of, package_of

# A package imports only from packages of lower floors. A new package gets its place here first.
FLOORS = (
    {"errors"},
    {"files", "limits", "seeding", "stopping", "text"},
    {"checksums", "mapped"},
    {"noise", "schedules"},
    {"reading"},
    {"data"},
    {"verification"},
    {"engine", "loading"},
    {"records"},
    {"report"},
    {"runs"},
    {"searching"},
    {"estimator"},
    {"cli"},
)
FLOOR_OF = {name: floor for floor, names in enumerate(FLOORS) for name in names}
FILES = sorted(SOURCE.rglob("*.py"))
MODULES = [path for path in FILES if path.stem not in ("__init__", "__main__")]
STUBS = sorted(SOURCE.rglob("*.pyi"))

HEAVY = {"datasets", "matplotlib", "numpy", "optuna", "pandas", "scipy", "sklearn", "torch"}
PICKLERS = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve"}


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def test_the_reader_of_imports_sees_every_form() -> None:
    tree = ast.parse(
        "import keeprate.a, os\nimport keeprate\nfrom keeprate import b, __version__\n"
        "from keeprate.c.d import x\nfrom .e import y\nfrom keeprater import z\n"
        "def f():\n    from keeprate.g import w\n"
    )
    assert set(imports_of(tree, "engine.loop")) == {"a", "", "b", "c.d", "engine.e", "g"}


def test_every_package_has_one_floor() -> None:
    assert sum(map(len, FLOORS)) == len(FLOOR_OF), "a package stands on two floors"
    missing = {package_of(module_of(path)) for path in MODULES} - FLOOR_OF.keys()
    assert not missing, f"give {sorted(missing)} a floor in FLOORS"


@pytest.mark.parametrize("path", MODULES, ids=module_of)
def test_imports_go_down_and_through_the_door(path: Path) -> None:
    own = package_of(module_of(path))
    for name in imports_of(tree_of(path), module_of(path)):
        package = package_of(name)
        assert package in FLOOR_OF, f"{path} imports {name!r}, which no floor holds"
        if package == own:
            continue
        assert FLOOR_OF[package] < FLOOR_OF[own], f"{own} imports {package}, which stands higher"
        assert name == package, f"import from keeprate.{package}, not from keeprate.{name}"


@pytest.mark.parametrize("package", sorted(FLOOR_OF))
def test_no_package_has_a_cycle_inside(package: str) -> None:
    inside = {module_of(path): path for path in MODULES if package_of(module_of(path)) == package}
    graph = {
        name: [one for one in imports_of(tree_of(path), name) if one in inside]
        for name, path in inside.items()
    }
    assert len(list(TopologicalSorter(graph).static_order())) == len(inside)  # raises CycleError


def forbidden(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Assert():
                yield f"line {node.lineno}: assert vanishes under -O; raise an error instead"
            case ast.Import():
                for alias in node.names:
                    if alias.name.partition(".")[0] in PICKLERS:
                        yield f"line {node.lineno}: {alias.name} can run code from a file"
            case ast.ImportFrom(module=str(module)):
                if module.partition(".")[0] in PICKLERS:
                    yield f"line {node.lineno}: {module} can run code from a file"
                if module == "torch" and {a.name for a in node.names} & {"load", "save"}:
                    yield f"line {node.lineno}: torch.load and torch.save pickle; use safetensors"
            case ast.Attribute(value=ast.Name(id="torch"), attr="load" | "save"):
                yield f"line {node.lineno}: torch.load and torch.save pickle; use safetensors"
            case ast.keyword(arg="allow_pickle", value=value):
                if not (isinstance(value, ast.Constant) and value.value is False):
                    yield f"line {value.lineno}: allow_pickle can run code from a file"


@pytest.mark.parametrize(
    "line",
    [
        "assert x",
        "import pickle",
        "from pickle import loads",
        "torch.load(p)",
        "from torch import load",
        "np.load(p, allow_pickle=True)",
    ],
)
def test_the_reader_of_forbidden_things_sees_them(line: str) -> None:
    assert list(forbidden(ast.parse(line)))


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_no_assert_and_nothing_pickled(path: Path) -> None:
    assert not list(forbidden(tree_of(path)))


def loaded_after(code: str) -> set[str]:
    """Import in a fresh interpreter and list the top-level packages that came along."""
    script = f"{code}\nimport sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    shown = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    ).stdout
    return set(shown.split())


def test_import_keeprate_is_light() -> None:
    assert not loaded_after("import keeprate; dir(keeprate); keeprate.InputError") & HEAVY


def test_a_run_without_a_folder_draws_nothing() -> None:
    names = "keeprate.search; keeprate.train; keeprate.NoisyLabelClassifier"
    assert "matplotlib" not in loaded_after(f"import keeprate; {names}")


@pytest.mark.parametrize("name", keeprate.__all__)
def test_public_names_resolve(name: str) -> None:
    assert callable(getattr(keeprate, name))
    assert name in dir(keeprate)


@pytest.mark.parametrize("path", STUBS, ids=lambda path: path.parent.name)
def test_what_a_package_exports_is_there_and_hidden_by_no_module(path: Path) -> None:
    """The stub beside an `__init__` is the list of what other packages may import."""
    modules = {one.stem for one in path.parent.glob("*.py")}
    for node in tree_of(path).body:
        if isinstance(node, ast.ImportFrom) and path.parent != SOURCE:
            names = {alias.name for alias in node.names}
            defined = tree_of(path.parent / f"{node.module}.py").body
            assert names <= set(names_in(defined)), f"{path}: {names} not in {node.module}"
            assert not names & modules, f"{path}: {names & modules} is a module's name, too"


def names_in(body: list[ast.stmt]) -> Iterator[str]:
    for node in body:
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield name
            case ast.Assign(targets=targets):
                for target in targets:
                    parts = target.elts if isinstance(target, ast.Tuple) else [target]
                    yield from (one.id for one in parts if isinstance(one, ast.Name))


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        _ = keeprate.nothing


def test_a_public_name_is_not_hidden_by_a_module_of_the_same_name() -> None:
    assert not set(keeprate.__all__) & {path.stem for path in SOURCE.iterdir()}
