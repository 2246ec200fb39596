"""Python modules joined into one: their imports merged and sorted, their other statements one after the other."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Sequence

from attrs import field, frozen

LINE = 120
TYPES_ALONE = "if TYPE_CHECKING:"
OURS = "ups_"  # how the packages begin that templates import: the core, and what comes with it


@frozen
class Imports:
    """What modules import: whole modules, and names of modules."""

    modules: set[str] = field(factory=set)
    names: dict[str, set[str]] = field(factory=dict)

    def add(self, node: ast.Import | ast.ImportFrom) -> None:
        """Take note of a statement."""
        if isinstance(node, ast.Import):
            self.modules.update(_named(alias) for alias in node.names)
        else:
            module = "." * node.level + (node.module or "")
            self.names.setdefault(module, set()).update(_named(alias) for alias in node.names)

    def lines(self, own: str, indent: str = "") -> list[str]:
        """The statements as ruff sorts them; `own` is the package that they stand in."""
        groups: list[list[str]] = []
        for place in range(5):
            plain = [f"{indent}import {name}" for name in sorted(self.modules) if _place(name, own) == place]
            modules = sorted((name for name in self.names if _place(name, own) == place), key=str.lower)
            named = [line for name in modules for line in _import(name, self.names[name], indent)]
            if plain or named:
                groups.append(plain + named)
        return [line for number, group in enumerate(groups) for line in ([""] if number else []) + group]


def join(docstring: str, sources: Sequence[str], own: str) -> str:
    """One module with a docstring of its own and the statements of several, in the package `own`."""
    needed, for_types, bodies = Imports(), Imports(), []
    for source in sources:
        rest = _read(source, needed, for_types)
        if rest:
            bodies.append(rest)
    lines = [f'"""{docstring}"""', "", *needed.lines(own)]
    if for_types.names or for_types.modules:
        lines += ["", TYPES_ALONE, *for_types.lines(own, indent="    ")]
    after = "\n\n" if bodies and bodies[0].startswith(("@", "def", "class")) else "\n"
    return "\n".join(lines) + "\n" + after + "\n\n\n".join(bodies) + "\n"


def _read(source: str, needed: Imports, for_types: Imports) -> str:
    """Take note of a module's imports; returns what comes after them."""
    end = 0
    for node in ast.parse(source).body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            statements: Iterable[ast.stmt] = node.body
            imports = for_types
        elif isinstance(node, ast.Import | ast.ImportFrom):
            statements, imports = [node], needed
        elif end == 0 and isinstance(node, ast.Expr):  # the docstring
            statements, imports = [], needed
        else:
            break
        for statement in statements:
            assert isinstance(statement, ast.Import | ast.ImportFrom)
            imports.add(statement)
        end = node.end_lineno or end
    return "\n".join(source.splitlines()[end:]).strip("\n")


def _named(alias: ast.alias) -> str:
    return f"{alias.name} as {alias.asname}" if alias.asname else alias.name


def _place(module: str, own: str) -> int:
    """The group of a module: __future__, Python's own library, other libraries, ups_kit and the package, neighbours."""
    top = module.split(" ")[0].split(".")[0]
    if top == "__future__":
        return 0
    if not top:
        return 4
    if top == own or top.startswith(OURS):
        return 3
    return 1 if top in sys.stdlib_module_names else 2


def _import(module: str, names: Iterable[str], indent: str) -> list[str]:
    ordered = sorted(names, key=_rank)
    line = f"{indent}from {module} import {', '.join(ordered)}"
    if len(line) <= LINE:
        return [line]
    return [f"{indent}from {module} import (", *(f"{indent}    {name}," for name in ordered), f"{indent})"]


def _rank(name: str) -> tuple[int, str]:
    """Constants, then classes, then the rest."""
    return (0 if name.isupper() and len(name) > 1 else 1 if name[0].isupper() else 2), name
