"""YAML files: from text to plain values that know where they were written, with the files that they include.

PyYAML makes a tree of nodes; the values are made here, so that keys written twice, tags, aliases that multiply and
numbers without end are refused, each with its line. What `include:` names is laid under the file that names it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from attrs import define, field, frozen

from ..errors import Problem, RecipeError, UsageError
from ..keypaths import KeyPath, render, shown

LARGEST = 200_000  # bytes; the longest configuration of the ancestor has a twentieth of it
MOST = 20_000  # values, aliases filled in
MOST_PROBLEMS = 100  # of the text itself that are told
DEEPEST = 40  # levels of mappings and lists
LONGEST_CHAIN = 10  # files that include each other
MOST_FILES = 50  # in all
INSTALL = "reading YAML needs PyYAML: `pip install 'ups_kit[migrate]'`"
_NUMBER = re.compile(r"[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)([eE][-+]?\d+)?")  # also 1e-3, which YAML 1.1 calls a text
_PLAIN_TAGS = {"str", "int", "float", "bool", "null", "timestamp", "value", "map", "seq", "merge"}
_RULE = "name a file relative to this one, for example include: base.yaml"


@frozen
class Value:
    """A plain value, and where it was written: `line 3`, or `base.yaml, line 3`."""

    value: Any
    origin: str


@define
class Tree:
    """What files say: every leaf by its key path, the paths of mappings, and what is wrong with them."""

    source: str
    leaves: dict[KeyPath, Value] = field(factory=dict)
    tables: set[KeyPath] = field(factory=set)
    problems: list[Problem] = field(factory=list)
    files: int = 0
    values: int = 0


def read_yaml(path: Path) -> Tree:
    """A YAML file with all that it includes. Raises RecipeError: no such file, not YAML, no mapping, circles, bombs."""
    tree = Tree(str(path))
    values = _read_file(path, tree, (path,), _yaml())
    tree.leaves = dict(_leaves(values, ()))
    tree.tables = set(_tables(values, ()))
    return tree


def _yaml() -> Any:
    try:
        import yaml
    except ImportError as error:
        raise UsageError(INSTALL) from error
    return yaml


def _read_file(path: Path, tree: Tree, chain: tuple[Path, ...], yaml: Any) -> dict[str, Any]:
    """The mapping of a file, laid over those that it includes."""
    tree.files += 1
    if tree.files > MOST_FILES:
        _refuse(tree.source, "include", f"more than {MOST_FILES} files are included")
    label = "" if len(chain) == 1 else f"{path}, "
    node = _compose(_text(path), str(path), yaml)
    values = _Making(yaml, tree, label).mapping(node)
    base: dict[str, Any] = {}
    include = values.pop("include", None)
    for entry in _names(include, tree):
        other = path.parent / str(entry.value)
        links = " -> ".join(str(link) for link in (*chain, Path(os.path.normpath(other))))
        if other.resolve() in [link.resolve() for link in chain]:
            _refuse(tree.source, "include", f"goes in a circle: {links}", entry.origin)
        if len(chain) > LONGEST_CHAIN:
            _refuse(
                tree.source, "include", f"more than {LONGEST_CHAIN} files include each other: {links}", entry.origin
            )
        other = Path(os.path.normpath(other))
        try:
            under = _read_file(other, tree, (*chain, other), yaml)
        except RecipeError as error:
            if error.source != str(other):
                raise
            raise RecipeError(f"{other} (included by {links.removesuffix(f' -> {other}')})", error.problems) from error
        base = _laid_over(base, under)
    return _laid_over(base, values)


def _names(include: Any, tree: Tree) -> list[Value]:
    """The files that `include` names; what cannot stand there is a problem."""
    found = []
    entries = include if isinstance(include, list) else [include]
    for entry in entries:
        if not isinstance(entry, Value):
            if entry is not None:
                tree.problems.append(Problem("include", f"expected a file or a list of files; {_RULE}"))
            continue
        name = entry.value
        if name is None:
            continue
        problem = ""
        if not isinstance(name, str):
            problem = f"expected a string, got {name}; {_RULE}"
        elif "://" in name:
            problem = f"'{shown(name)}' is a URL; {_RULE}"
        elif name.startswith(("/", "~", "\\")) or name[1:2] == ":" or not name or "\0" in name:
            problem = f"'{shown(name)}' is not a relative path; {_RULE}"
        if problem:
            tree.problems.append(Problem("include", problem, entry.origin))
        else:
            found.append(entry)
    return found


def _laid_over(base: dict[str, Any], child: dict[str, Any]) -> dict[str, Any]:
    """Mappings merge, all else is replaced."""
    merged = dict(base)
    for key, value in child.items():
        under = merged.get(key)
        merged[key] = _laid_over(under, value) if isinstance(under, dict) and isinstance(value, dict) else value
    return merged


def _leaves(node: Any, path: KeyPath) -> Iterator[tuple[KeyPath, Value]]:
    """Every value that is no mapping by its path; lists are one value; an empty mapping is none."""
    if isinstance(node, dict):
        for key, inner in node.items():
            yield from _leaves(inner, (*path, key))
    elif isinstance(node, list):
        yield path, Value([_plain(entry) for entry in node], _first(node))
    else:
        yield path, node


def _tables(node: dict[str, Any], path: KeyPath) -> Iterator[KeyPath]:
    for key, inner in node.items():
        if isinstance(inner, dict):
            yield (*path, key)
            yield from _tables(inner, (*path, key))


def _plain(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _plain(value) for key, value in node.items()}
    return [_plain(entry) for entry in node] if isinstance(node, list) else node.value


def _first(node: Any) -> str:
    """Where the first value of a list was written."""
    while not isinstance(node, Value):
        inner = list(node.values()) if isinstance(node, Mapping) else node
        if not inner:
            return ""
        node = inner[0]
    return node.origin


# ---------------------------------------------------------------------------------------------------------------------
# From a file to nodes
# ---------------------------------------------------------------------------------------------------------------------
def _refuse(label: str, where: str, message: str, origin: str = "") -> NoReturn:
    raise RecipeError(label, [Problem(where, message, origin)])


def _text(path: Path) -> str:
    label = str(path)
    try:
        if path.is_dir():
            inside = ", ".join(sorted(entry.name for entry in path.glob("*.y*ml"))[:12]) or "no *.yaml file"
            _refuse(label, "file", f"is a directory; name one of the files in it ({inside})")
        if not path.exists():
            there = ", ".join(sorted(entry.name for entry in path.parent.glob("*.y*ml"))[:12]) or "none"
            _refuse(label, "file", f"does not exist (working directory: {Path.cwd()}) (YAML files there: {there})")
        if not path.is_file():
            _refuse(label, "file", "is not a regular file")
        if path.stat().st_size > LARGEST:
            size = path.stat().st_size / 1e6
            _refuse(label, "file", f"is too large for a configuration: {size:.1f} MB, at most {LARGEST / 1e6:.1f} MB")
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        _refuse(label, f"byte {error.start}", "is not UTF-8 text; save as UTF-8")
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the path
        _refuse(label, "file", f"cannot be read: {getattr(error, 'strerror', None) or error}")


def _compose(text: str, label: str, yaml: Any) -> Any:
    """The root of a file's only document, which is a mapping."""
    try:
        nodes = list(yaml.compose_all(text, Loader=yaml.SafeLoader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark is not None else "file"
        _refuse(label, where, f"is not YAML: {error.problem or error.context}")
    except yaml.YAMLError as error:
        _refuse(label, "file", f"is not YAML: {str(error).splitlines()[0]}")
    except RecursionError:
        _refuse(label, "file", f"mappings or lists are nested too deeply (at most {DEEPEST} levels)")
    if not nodes or (isinstance(nodes[0], yaml.ScalarNode) and nodes[0].tag.endswith(":null")):
        _refuse(label, "file", "is empty; expected the keys of a configuration, such as data, latent and stages")
    if len(nodes) > 1:
        _refuse(label, f"line {nodes[1].start_mark.line + 1}", "a second document begins here; expected one")
    if not isinstance(nodes[0], yaml.MappingNode):
        got = "a list" if isinstance(nodes[0], yaml.SequenceNode) else f"the text '{shown(str(nodes[0].value))}'"
        _refuse(label, "file", f"expected keys with values, such as data: or stages:, got {got}")
    return nodes[0]


# ---------------------------------------------------------------------------------------------------------------------
# From nodes to values
# ---------------------------------------------------------------------------------------------------------------------
@define
class _Making:
    """Values of one file: dictionaries, lists, and `Value`s as leaves."""

    yaml: Any
    tree: Tree
    label: str
    merges: int = 0  # that are being filled in

    def origin(self, node: Any) -> str:
        return f"{self.label}line {node.start_mark.line + 1}"

    def mapping(self, node: Any, path: KeyPath = ()) -> dict[str, Any]:
        """A mapping with what its `<<` adds; a key written twice is a problem, and its first value holds."""
        self._refuse_tag(node, path)
        self._count(node, path)
        found: dict[str, Any] = {}
        lines: dict[str, int] = {}
        added: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag.endswith(":merge"):
                added = {**self._merged(value_node, path), **added}
                continue
            if not isinstance(key_node, self.yaml.ScalarNode):
                self._note(path, "a list or mapping is no key", key_node)
                continue
            self._refuse_tag(key_node, path)
            key, line = str(key_node.value), key_node.start_mark.line + 1
            if key in lines:
                self._note((*path, key), f"is written twice; first on line {lines[key]}", key_node)
                continue
            lines[key] = line
            found[key] = self.value(value_node, (*path, key))
        return {**added, **found}

    def _merged(self, node: Any, path: KeyPath) -> dict[str, Any]:
        nodes = node.value if isinstance(node, self.yaml.SequenceNode) else [node]
        found: dict[str, Any] = {}
        self.merges += 1
        if self.merges > DEEPEST:
            _refuse(self.tree.source, render(path[:4]), "merges with << are nested too deeply", self.origin(node))
        for each in nodes:
            if isinstance(each, self.yaml.MappingNode):
                found = {**self.mapping(each, path), **found}
            else:
                self._note(path, "expected a mapping after <<", each)
        self.merges -= 1
        return found

    def value(self, node: Any, path: KeyPath) -> Any:
        """A value of any kind."""
        if isinstance(node, self.yaml.MappingNode):
            return self.mapping(node, path)
        self._refuse_tag(node, path)
        self._count(node, path)
        if isinstance(node, self.yaml.SequenceNode):
            return [self.value(entry, (*path, index)) for index, entry in enumerate(node.value)]
        return Value(self._scalar(node, path), self.origin(node))

    def _refuse_tag(self, node: Any, path: KeyPath) -> None:
        tag = str(node.tag)
        if tag.removeprefix("tag:yaml.org,2002:") not in _PLAIN_TAGS:
            short = tag.replace("tag:yaml.org,2002:", "!!")
            message = f"the tag {shown(short)} is not read: nothing is made from a file but plain values; take it out"
            _refuse(self.tree.source, render(path), message, self.origin(node))

    def _count(self, node: Any, path: KeyPath) -> None:
        """Refuse what aliases multiply, and what they put into itself."""
        self.tree.values += 1
        if len(path) > DEEPEST:
            message = f"mappings or lists are nested too deeply (at most {DEEPEST} levels), or hold themselves"
            _refuse(self.tree.source, render(path[:4]), message, self.origin(node))
        if self.tree.values > MOST:
            message = f"holds more than {MOST} values when its aliases are filled in"
            _refuse(self.tree.source, render(path[:4]), message, self.origin(node))

    def _scalar(self, node: Any, path: KeyPath) -> Any:
        text = str(node.value)
        kind = node.tag.rpartition(":")[2]
        if kind == "null":
            return None
        if kind in ("str", "timestamp", "value"):
            if node.style is None and _NUMBER.fullmatch(text):
                return float(text.replace("_", ""))
            return text
        if kind == "int" and len(text) > 40:
            self._note(path, f"number too long: {len(text)} digits", node)
            return None
        try:
            return self.yaml.SafeLoader("").construct_object(node)
        except (ValueError, KeyError, self.yaml.YAMLError):
            self._note(path, f"'{shown(text)}' is no {kind}", node)
            return None

    def _note(self, path: KeyPath, message: str, node: Any) -> None:
        if len(self.tree.problems) < MOST_PROBLEMS:
            self.tree.problems.append(Problem(render(path) or "file", message, self.origin(node)))
