"""Imports go one way: training -> contract <- service."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("contract", "service", "training")
MODULES = sorted(
    path
    for package in PACKAGES
    for path in (ROOT / package).rglob("*.py")
    if "__pycache__" not in path.parts
)
FORBIDDEN = {
    "contract": {"service", "training", "fastapi", "starlette", "ai_edge_litert"},
    "service": {"training"},
    "training": {"service", "fastapi", "starlette"},
}
TENSORFLOW = {"tensorflow", "keras", "tf_keras"}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imported(path: Path) -> set[str]:
    """Top-level packages that a module imports, at its head or inside a function."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)} has a relative import"
            found.add((node.module or "").partition(".")[0])
        elif isinstance(node, ast.Call) and _called(node) in {"import_module", "__import__"}:
            found |= {
                argument.value.partition(".")[0]
                for argument in node.args
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
            }
    return found


def _called(node: ast.Call) -> str:
    function = node.func
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def test_there_is_something_to_look_at() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in MODULES} >= {"contract"}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_have_a_direction(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    assert not imported(path) & FORBIDDEN[package]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_tensorflow_stays_where_it_belongs(path: Path) -> None:
    allowed = (
        path.is_relative_to(ROOT / "training") or name_of(path) == "service/runtimes/tensorflow.py"
    )
    assert allowed or not imported(path) & TENSORFLOW


@pytest.mark.parametrize(
    "path", [path for path in MODULES if path.name == "__init__.py"], ids=name_of
)
def test_a_package_says_what_is_public(path: Path) -> None:
    """Every name that an ``__init__`` binds without an underscore is in its ``__all__``."""
    bound: set[str] = set()
    public: set[str] | None = None
    nodes = ast.parse(path.read_text(encoding="utf-8")).body
    # What is imported for types alone is loaded where it is asked for.
    nodes += [inner for node in nodes if isinstance(node, ast.If) for inner in node.body]
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module == "typing":
            continue
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            bound |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            bound.add(node.name)
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            if node.targets[0].id == "__all__":
                names = ast.literal_eval(node.value)
                public = set(names)
                assert list(names) == sorted(names), "sorted, so that a change is easy to see"
            else:
                bound.add(node.targets[0].id)
    assert {name for name in bound if not name.startswith("_")} == (public or set())
