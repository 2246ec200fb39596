"""Recipes that extend recipes: trees of values that know where they were written, laid over each other.

Tables merge; everything else is replaced. A table whose `use` changes is replaced whole, so that no key of the former
component stays behind. An array of tables, like `[[stages]]`, may be addressed by name: `[stages.operator.budget]`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from attrs import define, frozen

from .documents import Document
from .errors import Problem, did_you_mean
from .keypaths import KeyPath, element_name, labels, parse, quoted, render, shown
from .tables import WrittenString

ALTERNATIVES = ("budget",)  # tables whose keys stand for each other: another key in a child replaces the table


@frozen
class Setting:
    """One `--set KEY=VALUE` of the command line."""

    text: str

    @property
    def label(self) -> str:
        return f"--set '{shown(self.text)}'"


@frozen(eq=False)
class Origin:
    """Where a value was written: a file, and the key path in that file; or a `--set`."""

    source: Document | Setting
    path: KeyPath = ()

    def describe(self, main: Document | None = None) -> str:
        """`recipes/base.toml, line 3`; only `line 3` in the file `main`."""
        if isinstance(self.source, Setting):
            return self.source.label
        path = self.path
        while path and path not in self.source.lines:
            path = path[:-1]
        line = f"line {self.source.lines[path]}" if path else ""
        if self.source is main:
            return line
        return f"{self.source.label}, {line}" if line else self.source.label


@define(eq=False)
class Node:
    """A value, table or array, and where it was written."""

    value: Any  # dict of Nodes, list of Nodes, or a plain value
    origin: Origin

    def plain(self) -> Any:
        """The tree as plain tables; its strings know the folder of their file."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        if isinstance(self.value, str):
            source = self.origin.source
            return WrittenString.of(self.value, source.home if isinstance(source, Document) else Path.cwd())
        return self.value

    def items(self) -> list[tuple[str | int, Node]]:
        """The children by their addresses: keys, names of tables in arrays, indices."""
        if isinstance(self.value, dict):
            return list(self.value.items())
        if isinstance(self.value, list):
            return list(zip(labels([_head(node) for node in self.value]), self.value, strict=True))
        return []

    def nearest(self, path: KeyPath) -> tuple[Node, bool]:
        """The node at a path, or else its nearest ancestor; and whether it is the node itself."""
        node: Node = self
        for key in path:
            child = dict(node.items()).get(key)
            if child is None:
                return node, False
            node = child
        return node, True


def _head(node: Node) -> Any:
    """As much of a table as tells its name."""
    if not isinstance(node.value, dict):
        return None
    return {key: node.value[key].value for key in ("name", "use") if key in node.value}


def grow(value: Any, source: Document | Setting, path: KeyPath = ()) -> Node:
    """A plain value as a tree in which every node knows where it was written."""
    origin = Origin(source, path)
    if isinstance(value, dict):
        return Node({key: grow(inner, source, (*path, key)) for key, inner in value.items()}, origin)
    if isinstance(value, list):
        return Node([grow(inner, source, (*path, index)) for index, inner in enumerate(value)], origin)
    return Node(value, origin)


# ---------------------------------------------------------------------------------------------------------------------
# Merging
# ---------------------------------------------------------------------------------------------------------------------
def merge(base: Node, child: Node, problems: list[Problem], main: Document | None, path: KeyPath = ()) -> Node:
    """Lay `child` over `base`; what cannot be addressed goes to `problems`."""
    if isinstance(base.value, list) and isinstance(child.value, dict):
        return _merge_elements(base, child, problems, main, path)
    if not (isinstance(base.value, dict) and isinstance(child.value, dict)) or _replaces(base, child, path):
        return child
    merged = dict(base.value)
    for key, node in child.value.items():
        merged[key] = merge(merged[key], node, problems, main, (*path, key)) if key in merged else node
    # what is wrong with a table as a whole is told where it was written last, but not by each single setting
    return Node(merged, base.origin if isinstance(child.origin.source, Setting) else child.origin)


def _replaces(base: Node, child: Node, path: KeyPath) -> bool:
    if path and path[-1] in ALTERNATIVES and not set(child.value) <= set(base.value):
        return True
    if not path or "use" not in child.value:
        return False
    before = base.value["use"].value if "use" in base.value else path[-1]
    return bool(child.value["use"].value != before)


def _merge_elements(base: Node, child: Node, problems: list[Problem], main: Document | None, path: KeyPath) -> Node:
    elements = list(base.value)
    addresses = [address for address, _ in base.items()]
    for key, node in child.value.items():
        index = int(key) if key.isdecimal() and len(key) < 10 else addresses.index(key) if key in addresses else None
        where = node.origin.describe(main)
        if index is None:
            problems.append(Problem(render((*path, key)), _unknown_element(path, key, addresses), where))
        elif index >= len(elements):
            problems.append(
                Problem(
                    render((*path, index)),
                    f"index out of range; {render(path)} has {len(elements)}, counted from 0",
                    where,
                )
            )
        else:
            elements[index] = _merge_element(elements[index], node, problems, main, (*path, addresses[index]))
    return Node(elements, base.origin)


def _merge_element(base: Node, child: Node, problems: list[Problem], main: Document | None, path: KeyPath) -> Node:
    """An element keeps the name it was addressed by, also where its `use` changes."""
    merged = merge(base, child, problems, main, path)
    if merged is child and path[0] == "stages" and isinstance(merged.value, dict) and isinstance(base.value, dict):
        name = base.value.get("name", Node(path[-1], base.origin))
        merged.value = {"name": name, **merged.value}
    return merged


def _unknown_element(path: KeyPath, key: str, addresses: list[str | int]) -> str:
    names = [name for name in addresses if isinstance(name, str)]
    here = ", ".join(str(address) for address in addresses) or "none"
    if not names:
        return f"unknown index; {render(path)} is addressed by number, from 0 to {len(addresses) - 1}"
    return f"{render(path)} has none of this name{did_you_mean(key, names)} (here: {here})"


# ---------------------------------------------------------------------------------------------------------------------
# Settings of the command line
# ---------------------------------------------------------------------------------------------------------------------
def settings_tree(settings: Iterable[str], root: Origin, problems: list[Problem]) -> Node:
    """All `--set` of a command line as one tree."""
    tree = Node({}, root)
    for text in settings:
        setting = Setting(text)
        try:
            path, value = _parse_setting(text)
        except _UnusableError as error:
            problems.append(Problem(setting.label, str(error)))
            continue
        _plant(tree, path, grow(value, setting), Origin(setting))
    return tree


class _UnusableError(Exception):
    """A `--set` that is no setting."""


def _parse_setting(text: str) -> tuple[tuple[str, ...], Any]:
    key, equals, written = text.partition("=")
    key, written = key.strip(), written.strip()
    if not equals:
        raise _UnusableError(f"expected KEY=VALUE, for example --set run.seed=1; '=' is missing{_forgotten(key)}")
    try:
        path = parse(key)
    except (ValueError, RecursionError):
        raise _UnusableError(f"{quoted(key)} is not a key path like run.seed or stages.operator.budget") from None
    if path[0] == "extends":
        raise _UnusableError("a recipe extends others in its file only; write extends there")
    if not written:
        raise _UnusableError(f"the value is missing; for an empty text write {key}='\"\"'")
    return path, _parse_value(written)


def _forgotten(key: str) -> str:
    words = key.split()
    return f"; did you mean '{words[0]}={' '.join(words[1:])}'?" if len(words) > 1 else ""


def _parse_value(written: str) -> Any:
    """TOML where it is TOML; a bare word is a string."""
    try:
        tables = tomllib.loads(f"value = {written}")
    except (ValueError, RecursionError) as error:
        if written[0] in "[{\"'":
            raise _UnusableError(f"the value is not TOML: {str(error).split(' (at')[0]}") from None
        return written
    return tables["value"] if len(tables) == 1 else written


def _plant(tree: Node, path: tuple[str, ...], leaf: Node, origin: Origin) -> None:
    node = tree
    for key in path[:-1]:
        inner = node.value.get(key)
        if inner is None or not isinstance(inner.value, dict):
            inner = node.value[key] = Node({}, origin)
        node = inner
    node.value[path[-1]] = leaf


# ---------------------------------------------------------------------------------------------------------------------
# Looking back
# ---------------------------------------------------------------------------------------------------------------------
def leaves(values: Mapping[str, Any], path: KeyPath = ()) -> Iterable[tuple[KeyPath, Any]]:
    """The values of plain tables by their paths; an array of plain values is one value."""
    for key, value in values.items():
        yield from _leaves(value, (*path, key))


def _leaves(value: Any, path: KeyPath) -> Iterable[tuple[KeyPath, Any]]:
    if isinstance(value, Mapping) and value:
        yield from leaves(value, path)
    elif isinstance(value, list) and any(element_name(element) for element in value):
        for address, element in zip(labels(value), value, strict=True):
            yield from _leaves(element, (*path, address))
    else:
        yield path, value
