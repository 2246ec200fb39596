"""Who may import whom (docs: the rooms of the house). Read from the sources, so that nothing needs to be imported."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORE = ROOT / "ups_kit"
PLUGINS = ROOT / "plugins" / "ups_plugins"
HEAVY = {"torch", "matplotlib", "h5py", "scipy", "zarr", "tensorboard", "rich", "safetensors", "PIL"}
SOURCES = [path.relative_to(ROOT) for base in (CORE, PLUGINS) for path in sorted(base.rglob("*.py"))]


def module_of(path: Path) -> str:
    """The dotted name of a file below the root."""
    parts = path.relative_to("plugins").parts if path.parts[0] == "plugins" else path.parts
    return ".".join(parts).removesuffix(".py").removesuffix(".__init__")


def statements(body: list[ast.stmt], lazy: bool) -> Iterator[ast.stmt]:
    """Import statements that run: at import, or also in functions; not those for type checkers."""
    for node in body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from statements(node.orelse, lazy)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node
        elif lazy or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            for name in ("body", "orelse", "finalbody"):
                yield from statements(getattr(node, name, []), lazy)
            for handler in getattr(node, "handlers", []):
                yield from statements(handler.body, lazy)


def imports(path: Path, lazy: bool) -> set[str]:
    """The modules that a file imports, by absolute name."""
    found = set()
    package = module_of(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    for node in statements(ast.parse((ROOT / path).read_text()).body, lazy):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = base + (node.module.split(".") if node.module else [])
            for alias in node.names:
                inner = ".".join([*base, alias.name])
                found.add(inner if (ROOT / Path(*inner.split("."))).with_suffix(".py").exists() else ".".join(base))
    return found


@pytest.mark.parametrize("path", [path for path in SOURCES if path.parts[0] == "ups_kit"], ids=module_of)
def test_the_core_names_no_plugin(path: Path) -> None:
    assert "ups_plugins" not in (ROOT / path).read_text()


@pytest.mark.parametrize("path", [path for path in SOURCES if path.parts[0] == "plugins"], ids=module_of)
def test_a_plugin_imports_no_other_plugin(path: Path) -> None:
    own = ".".join(module_of(path).split(".")[:2])
    others = {name for name in imports(path, lazy=True) if name.startswith("ups_plugins")}
    assert all(name == own or name.startswith(f"{own}.") for name in others), f"{path} imports {others}"


@pytest.mark.parametrize(
    "path",
    [path for path in SOURCES if path.parts[0] == "plugins" and path.name in ("config.py", "__init__.py")],
    ids=module_of,
)
def test_config_modules_import_nothing_heavy(path: Path) -> None:
    assert not {name.split(".")[0] for name in imports(path, lazy=False)} & HEAVY


# Each module of the left may be imported by those of the right only.
DOORS = {
    "ups_kit.cli": {"ups_kit.cli", "ups_kit.__main__"},
    "ups_kit.run": {"ups_kit.cli", "ups_kit.testing", "ups_kit"},
    "ups_kit.evaluating": {"ups_kit.cli"},
    "ups_kit.planning": {"ups_kit.planning", "ups_kit.cli"},
    "ups_kit.comparing": {"ups_kit.comparing", "ups_kit.cli", "ups_kit.replicating"},
    "ups_kit.replicating": {"ups_kit.cli"},
    "ups_kit.assemble": {
        "ups_kit.cli",
        "ups_kit.run",
        "ups_kit.evaluating",
        "ups_kit.planning",
        "ups_kit.bundle",
        "ups_kit.testing",  # whole runs of tiny recipes
        "ups_kit",
    },
    "ups_kit.reading": {
        "ups_kit.cli",
        "ups_kit.run",
        "ups_kit.evaluating",
        "ups_kit.bundle",
        "ups_kit.moving_in",
        "ups_kit.testing",
        "ups_kit",
    },
    "ups_kit.testing": {"ups_kit.testing", "ups_kit.cli"},
    "ups_kit.new_plugin": {"ups_kit.new_plugin", "ups_kit.cli"},
    "ups_kit.moving_in": {"ups_kit.moving_in", "ups_kit.cli"},
}


@pytest.mark.parametrize("door", DOORS)
def test_nothing_points_up(door: str) -> None:
    for path in SOURCES:
        if path.parts[0] != "ups_kit" or module_of(path) == door:
            continue
        if any(name == door or name.startswith(f"{door}.") for name in imports(path, lazy=True)):
            room = ".".join(module_of(path).split(".")[:2])
            assert room in DOORS[door], f"{path} imports {door}"


def test_there_are_no_circles_in_the_core() -> None:
    modules = {module_of(path): path for path in SOURCES if path.parts[0] == "ups_kit"}
    graph = {name: imports(path, lazy=False) & set(modules) - {name, "ups_kit"} for name, path in modules.items()}
    while True:
        leaves = {name for name, needs in graph.items() if not needs}
        if not leaves:
            break
        graph = {name: needs - leaves for name, needs in graph.items() if name not in leaves}
    assert not graph, f"these import each other: {graph}"


def loaded_by(code: str) -> set[str]:
    """The heavy libraries that a piece of Python loads."""
    end = f"\nimport sys; print(*(set(sys.modules) & {HEAVY!r}))"
    return set(
        subprocess.run([sys.executable, "-c", code + end], capture_output=True, text=True, check=True).stdout.split()
    )


def test_finding_plugins_loads_nothing_heavy() -> None:
    assert loaded_by("from ups_kit.plugins import discover; assert discover().plugins") == set()


def test_reading_a_recipe_and_its_schema_loads_nothing_heavy() -> None:
    code = "import ups_kit.reading\nfrom ups_kit.plugins import discover\nfrom ups_kit.schema import recipe_schema\n"
    assert loaded_by(code + "recipe_schema(discover())") == set()
