"""The house rules that a reader could otherwise only hope for, read from the source with `ast`."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import keeprate

SOURCE = Path(__file__).parents[1] / "src" / "keeprate"

# A file imports only from lower floors. A new file gets its place here first.
FLOORS = {
    0: {"errors"},
    1: {"files", "noise_model", "seeding", "tables", "labels", "shapes", "transition"},
    2: {
        "noise",
        "schedules",
        "natural_gradient",
        "operations",
        "selection",
        "models",
        "records",
        "memory",
        "pruners",
    },
    3: {"spaces", "methods", "loading", "networks", "screening"},
    4: {"data", "sampler"},
    5: {"plans", "training"},
    6: {"checkpoints", "label_quality", "tensorboard", "trials"},
    7: {"lockstep", "classifier", "figures", "suspects"},
    8: {"budget", "finals", "predict", "report"},
    9: {"runs"},
    10: {"searching"},
    11: {"cli", "estimator"},
}
FLOOR_OF = {name: floor for floor, names in FLOORS.items() for name in names}
FILES = sorted(SOURCE.rglob("*.py"))
MODULES = [path for path in FILES if path.stem != "__init__"]

HEAVY = {"datasets", "matplotlib", "numpy", "optuna", "pandas", "scipy", "sklearn", "torch"}
PICKLERS = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve"}


def name_of(path: Path) -> str:
    return path.stem


def own_imports(tree: ast.AST) -> Iterator[str]:
    """Every keeprate module that a file imports, wherever in the file the import stands.

    `from keeprate import X` means the module X; dunder names such as `__version__` are the
    package's own and free to use. Other names of the package would hide which file is meant.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                package, _, module = alias.name.partition(".")
                if package == "keeprate":
                    yield module.partition(".")[0] or "keeprate"
        elif isinstance(node, ast.ImportFrom):
            if node.level == 0 and (node.module or "").partition(".")[0] != "keeprate":
                continue
            inside = (node.module or "").removeprefix("keeprate").strip(".")
            if inside:
                yield inside.partition(".")[0]
            else:
                yield from (a.name for a in node.names if not a.name.startswith("__"))


def test_the_reader_of_imports_sees_every_form() -> None:
    tree = ast.parse(
        "import keeprate.a, os\nimport keeprate\nfrom keeprate import b, __version__\n"
        "from keeprate.c import x\nfrom . import d\nfrom .e import y\nfrom keeprater import z\n"
        "def f():\n    from keeprate.g import w\n"
    )
    assert set(own_imports(tree)) == {"a", "keeprate", "b", "c", "d", "e", "g"}


def test_every_module_has_one_floor() -> None:
    assert sum(map(len, FLOORS.values())) == len(FLOOR_OF), "a module stands on two floors"
    missing = {path.stem for path in MODULES} - FLOOR_OF.keys()
    assert not missing, f"give {sorted(missing)} a floor in FLOORS"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_go_down(path: Path) -> None:
    for name in own_imports(ast.parse(path.read_text(encoding="utf-8"))):
        assert name in FLOOR_OF, (
            f"{path.stem} imports {name!r} from the package; import it from the module it lives in"
        )
        assert FLOOR_OF[name] < FLOOR_OF[path.stem], (
            f"{path.stem} (floor {FLOOR_OF[path.stem]}) imports {name} (floor {FLOOR_OF[name]})"
        )


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


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_assert_and_nothing_pickled(path: Path) -> None:
    assert not list(forbidden(ast.parse(path.read_text(encoding="utf-8"))))


def loaded_after(code: str) -> set[str]:
    """Import in a fresh interpreter and list the top-level packages that came along."""
    script = f"{code}\nimport sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    shown = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    ).stdout
    return set(shown.split())


def test_import_keeprate_is_light() -> None:
    assert not loaded_after("import keeprate; dir(keeprate); keeprate.InputError") & HEAVY


@pytest.mark.parametrize("name", keeprate.__all__)
def test_public_names_resolve(name: str) -> None:
    assert callable(getattr(keeprate, name))
    assert name in dir(keeprate)


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = keeprate.nothing


def test_a_public_function_is_not_hidden_by_a_module_of_the_same_name() -> None:
    assert not set(keeprate.__all__) & {path.stem for path in MODULES}


def test_type_checkers_see_the_names_that_run() -> None:
    tree = ast.parse((SOURCE / "__init__.py").read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.asname: (node.module or "").removeprefix("keeprate.")
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == keeprate._HOMES
