"""The house in numbers: `python -m tests.house`.

For each package its files and lines, then the longest functions, those with most parameters, those
nested most deeply, and imports that go upward. A reading aid, not a gate.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "keeprate"
NESTING = (ast.For, ast.While, ast.If, ast.With, ast.Try, ast.Match, ast.FunctionDef)


def module_of(path: Path) -> str:
    """`src/keeprate/engine/loop.py` is `engine.loop`, a package's `__init__.py` the package."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def package_of(module: str) -> str:
    """The part of a module's name that has a floor."""
    return module.partition(".")[0]


def imports_of(tree: ast.AST, module: str) -> Iterator[str]:
    """Every module of keeprate that `module` imports, wherever in the file the import stands.

    Names are below `keeprate`; "" is the package itself. Dunder names such as `__version__` are
    free to use.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                package, _, below = alias.name.partition(".")
                if package == "keeprate":
                    yield below
        elif isinstance(node, ast.ImportFrom) and node.level:
            parts = module.split(".")
            yield ".".join([*parts[: len(parts) - node.level], *filter(None, [node.module])])
        elif isinstance(node, ast.ImportFrom) and node.module == "keeprate":
            yield from (a.name for a in node.names if not a.name.startswith("__"))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("keeprate."):
            below = (node.module or "").removeprefix("keeprate.")
            # `from keeprate.data import tables` inside `data` means the module.
            files = {a.name for a in node.names if (SOURCE / below / f"{a.name}.py").exists()}
            yield from (f"{below}.{name}" for name in sorted(files))
            if len(files) < len(node.names):
                yield below


@dataclass(frozen=True)
class Function:
    """A function of the library, as a reader meets it."""

    where: str
    lines: int  # without its docstring
    parameters: int
    depth: int  # of nested blocks


def functions_of(path: Path) -> Iterator[Function]:
    """All functions and methods of a file, those inside others too."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for owner in ast.walk(tree):
        for node in ast.iter_child_nodes(owner):
            if isinstance(node, ast.FunctionDef):
                prefix = f"{owner.name}." if isinstance(owner, ast.ClassDef) else ""
                doc = node.body[0].end_lineno - node.body[0].lineno + 1  # type: ignore[operator]
                lines = (node.end_lineno or 0) - node.lineno + 1
                arguments = node.args
                names = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
                yield Function(
                    f"{module_of(path)}.{prefix}{node.name}",
                    lines - (doc if ast.get_docstring(node) else 0),
                    len([one for one in names if one.arg not in ("self", "cls")]),
                    _depth(node),
                )


def _depth(node: ast.AST) -> int:
    """How many blocks stand inside one another below a node; `elif` opens none."""
    return max(
        (_depth(child) + _opens(child, node) for child in ast.iter_child_nodes(node)), default=0
    )


def _opens(child: ast.AST, parent: ast.AST) -> bool:
    is_elif = isinstance(child, ast.If) and isinstance(parent, ast.If) and child in parent.orelse
    return isinstance(child, NESTING) and not is_elif


def upward(floor_of: dict[str, int]) -> list[str]:
    """Imports of a package that stands higher, or on the same floor."""
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        own = package_of(module_of(path))
        for name in imports_of(ast.parse(path.read_text(encoding="utf-8")), module_of(path)):
            package = package_of(name)
            if own in floor_of and package not in ("", own) and floor_of[package] >= floor_of[own]:
                found.append(f"{module_of(path)} -> {name}")
    return found


def main() -> None:
    """Print it."""
    from tests.test_architecture import FLOOR_OF

    files = sorted(SOURCE.rglob("*.py"))
    print("floor package     files  lines")
    for package, floor in FLOOR_OF.items():
        mine = [path for path in files if package_of(module_of(path)) == package]
        lines = sum(path.read_text(encoding="utf-8").count("\n") for path in mine)
        print(f"{floor:5} {package:10} {len(mine):6} {lines:6}")
    functions = [function for path in files for function in functions_of(path)]
    for title, key in (
        ("longest", "lines"),
        ("most parameters", "parameters"),
        ("deepest", "depth"),
    ):
        print(f"\n{title}")
        for function in sorted(functions, key=lambda one: -getattr(one, key))[:8]:
            print(f"{getattr(function, key):6}  {function.where}")
    print(f"\nimports upward: {', '.join(upward(FLOOR_OF)) or 'none'}")


if __name__ == "__main__":
    main()
