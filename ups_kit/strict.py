"""From plain tables to config objects, converting nothing silently.

An int may stand for a float; nothing else becomes what it is not. Every problem is found at once, with its key path. A
component's table says `use = "name"`, which is looked up among the installed plugins; no import path is followed.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, partial
from pathlib import Path
from typing import Any, NoReturn, TypeVar, get_args, get_origin

import attrs
import cattrs
from attrs import Factory, define, frozen

from .addresses import url_of
from .errors import PluginError, Problem, RecipeError, nearest
from .folder import OWN_NAMES
from .keypaths import KeyPath, element_name, labels, render
from .keys import (
    MAPPINGS,
    Key,
    alternatives,
    article,
    is_optional,
    is_table,
    keys_of,
    kind_of,
    toml_kind,
    type_words,
)
from .plugins import Catalog
from .recipe import RUN_NAME
from .tables import WrittenString, unstructure
from .whereabouts import is_broken
from .wording import choice, expected, got, listed, literal_choices, missing, no_such, outside, stray, too_short

__all__ = ["WrittenString", "attempt", "structure", "unstructure"]

T = TypeVar("T")
NAMED = ("stage", "constraint")  # kinds whose components have a name, their `use` where none is written
NO_VALUE = (
    "none"  # what a key that may be left out is set to, to take back a value that a base recipe or a default gives
)


def structure(
    tables: Mapping[str, Any],
    target: type[T],
    catalog: Catalog,
    source: str = "recipe",
    origin: Callable[[KeyPath], str] = lambda path: "",
) -> T:
    """Read plain tables as a config object.

    `origin` says where the value at a key path was written. Raises RecipeError with everything that is wrong.
    """
    value, problems = attempt(tables, target, catalog, origin)
    if value is None or problems:
        raise RecipeError(source, problems)
    return value


def attempt(
    tables: Mapping[str, Any], target: type[T], catalog: Catalog, origin: Callable[[KeyPath], str] = lambda path: ""
) -> tuple[T | None, list[Problem]]:
    """As `structure`, but hand the problems back: the object, or None where it could not be read, and what is wrong."""
    reading = _Reading(catalog)
    token = _UNDER_WAY.set(reading)
    try:
        value: T | None = _converter().structure(tables, target)
    except _RefusedError:
        value = None
    finally:
        _UNDER_WAY.reset(token)
    return value, [
        Problem(render(fault.path) or "recipe", fault.message(), origin(fault.at), in_plugin=fault.in_plugin)
        for fault in reading.faults
    ]


class _RefusedError(Exception):
    """A value was refused; why has been written down."""


@frozen
class _Fault:
    path: KeyPath
    message: Callable[[], str]  # called when everything has been read: where else a key would fit is known only then
    at: KeyPath
    in_plugin: bool = False


@define
class _Reading:
    """One reading: where it stands, what it has found wrong, and which keys each table has."""

    catalog: Catalog
    path: KeyPath = ()
    faults: list[_Fault] = Factory(list)
    tables: dict[KeyPath, tuple[str, ...]] = Factory(dict)

    def note(
        self, message: str | Callable[[], str], *keys: str | int, at: KeyPath | None = None, in_plugin: bool = False
    ) -> None:
        """Write a problem down, and go on."""
        path, words = (*self.path, *keys), message if callable(message) else lambda: message
        self.faults.append(_Fault(path, words, path if at is None else at, in_plugin))

    def refuse(self, message: str, *keys: str | int, at: KeyPath | None = None) -> NoReturn:
        """Write a problem down, and give the value up."""
        self.note(message, *keys, at=at)
        raise _RefusedError

    @contextmanager
    def under(self, key: str | int) -> Iterator[None]:
        outer, self.path = self.path, (*self.path, key)
        try:
            yield
        finally:
            self.path = outer

    def read(self, value: Any, annotation: Any, key: str | int) -> Any:
        """Read a value one key further down."""
        with self.under(key):
            return _converter().structure(value, annotation)


_Reader = Callable[[_Reading, Any, Any], Any]
_UNDER_WAY: ContextVar[_Reading] = ContextVar("reading")  # cattrs hands its hooks the value and the type, nothing else


@cache
def _converter() -> cattrs.BaseConverter:
    """A cattrs converter all of whose types are read by the functions below, none by cattrs' own lenient hooks."""
    converter = cattrs.BaseConverter()
    single: dict[type, _Reader] = {bool: _truth, int: _whole_number, float: _number, str: _string, Path: _path}
    compound: tuple[tuple[Callable[[Any], bool], _Reader], ...] = (
        (lambda annotation: True, _unsupported),
        (lambda annotation: bool(literal_choices(annotation)), _choice),
        (lambda annotation: get_origin(annotation) is tuple, _array),
        (lambda annotation: get_origin(annotation) in MAPPINGS, _mapping),
        (lambda annotation: is_optional(annotation) or len(alternatives(annotation)) > 1, _union),
        (is_table, _table),
        (lambda annotation: kind_of(annotation) is not None, _component),
    )

    def hook(read: _Reader) -> Callable[[Any, Any], Any]:
        return lambda value, annotation: read(_UNDER_WAY.get(), value, annotation)

    def factory(read: _Reader) -> Callable[[Any], Callable[[Any, Any], Any]]:
        return lambda annotation: lambda value, _: read(_UNDER_WAY.get(), value, annotation)

    # cattrs looks at classes before predicates, and takes a class's hook for its subclasses too
    for cls in (*single, bytes):
        converter.register_structure_hook(cls, hook(lambda r, v, a: single.get(a, _unsupported)(r, v, a)))
    for applies, read in compound:
        converter.register_structure_hook_factory(applies, factory(read))
    return converter


# ---------------------------------------------------------------------------------------------------------------------
# Single values
# ---------------------------------------------------------------------------------------------------------------------
def _unsupported(reading: _Reading, value: Any, annotation: Any) -> Any:
    raise PluginError(
        f"{render(reading.path)}: a recipe cannot hold the type {annotation} (a fault of the plugin, not of the recipe)"
    )


def _truth(reading: _Reading, value: Any, annotation: Any) -> bool:
    if isinstance(value, bool):
        return value
    reading.refuse(expected(bool, value))


def _whole_number(reading: _Reading, value: Any, annotation: Any) -> int:
    if type(value) is not int:
        reading.refuse(expected(int, value))
    if not -(2**63) <= value < 2**63:
        reading.refuse(f"expected a whole number of at most 64 bits, got {got(value)}")
    return value


def _number(reading: _Reading, value: Any, annotation: Any) -> float:
    if type(value) not in (int, float):
        reading.refuse(expected(float, value))
    if (isinstance(value, int) and abs(value) >= 2**1023) or not math.isfinite(value):
        reading.refuse(f"expected a finite number, got {got(value)}")
    return float(value)


def _string(reading: _Reading, value: Any, annotation: Any) -> str:
    if not isinstance(value, str):
        reading.refuse(expected(str, value))
    return str(value)


def _path(reading: _Reading, value: Any, annotation: Any) -> Path:
    if not isinstance(value, str):
        reading.refuse(expected(Path, value))
    if not value or "\0" in value:
        reading.refuse(f"expected the path of a file or folder, got {got(value)}")
    if value.startswith("$"):
        reading.refuse(f"environment variables are not filled in; write the path itself, got {got(value)}")
    path = Path(value)
    if url_of(value) is not None:
        return path
    if value.startswith("~"):
        try:
            path = path.expanduser()
        except RuntimeError:
            reading.refuse(f"there is no home folder {path.parts[0]}; write the path itself")
    return Path(os.path.normpath(value.folder / path)) if isinstance(value, WrittenString) else path


def _choice(reading: _Reading, value: Any, annotation: Any) -> Any:
    choices = literal_choices(annotation)
    for allowed in choices:
        if type(allowed) is (str if isinstance(value, str) else type(value)) and value == allowed:
            return allowed
    reading.refuse(choice(choices, value))


# ---------------------------------------------------------------------------------------------------------------------
# Values that hold others
# ---------------------------------------------------------------------------------------------------------------------
def _union(reading: _Reading, value: Any, annotation: Any) -> Any:
    """The member that is written as this value is; where several are, the first that can be read."""
    if is_optional(annotation) and (value is None or (isinstance(value, str) and value == NO_VALUE)):
        return None
    members = [member for member in alternatives(annotation) if toml_kind(member) == _written_as(value)]
    if int in members and isinstance(value, float) and float in members:
        members.remove(int)
    if len(alternatives(annotation)) > 1:  # a word that is no choice is told beside what else may stand here
        members = [member for member in members if not literal_choices(member) or value in literal_choices(member)]
    if not members:
        reading.refuse(expected(annotation, value))
    for member in members[:-1]:
        found = len(reading.faults)
        try:
            return _converter().structure(value, member)
        except _RefusedError:
            del reading.faults[found:]
    return _converter().structure(value, members[-1])


def _written_as(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    kinds: tuple[tuple[Any, str], ...] = (
        (str, "string"),
        ((int, float), "number"),
        (list, "array"),
        (Mapping, "table"),
    )
    return next((kind for types, kind in kinds if isinstance(value, types)), "other")


def _array(reading: _Reading, value: Any, annotation: Any) -> tuple[Any, ...]:
    if not isinstance(value, list):
        reading.refuse(expected(annotation, value))
    arguments = get_args(annotation)
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        types = (arguments[0],) * len(value)
    elif len(arguments) != len(value):
        noun = type_words(annotation).removeprefix("an array of ")
        reading.refuse(f"expected {noun}, got {len(value)}")
    else:
        types = arguments
    addresses = labels(value)
    if kind_of(arguments[0]) in NAMED:
        _refuse_twins(reading, value, str(kind_of(arguments[0])))
    elements, whole = [], True
    for address, element, annotated in zip(addresses, value, types, strict=True):
        try:
            elements.append(reading.read(element, annotated, address))
        except _RefusedError:
            whole = False
    if not whole:
        raise _RefusedError
    return tuple(elements)


def _refuse_twins(reading: _Reading, elements: list[Any], kind: str) -> None:
    if not elements and kind == "stage":
        reading.note("expected one or more tables [[stages]], got an empty array")
    names = [element_name(element) for element in elements]
    for name in dict.fromkeys(names):
        if name is not None and names.count(name) > 1:
            reading.note(
                f"{names.count(name)} {kind}s are called '{name}'; "
                f'give each its own name, for example name = "{name}_2"'
            )


def _mapping(reading: _Reading, value: Any, annotation: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        reading.refuse(expected(annotation, value))
    inner = get_args(annotation)[1]
    kind = kind_of(inner)
    entries, whole = {}, True
    for key, element in value.items():
        try:
            if kind is None:
                entries[str(key)] = reading.read(element, inner, key)
            else:
                with reading.under(key):
                    entries[str(key)] = _component(reading, element, inner, default=key)
        except _RefusedError:
            whole = False
    if not whole:
        raise _RefusedError
    return entries


def _table(reading: _Reading, value: Any, annotation: Any) -> Any:
    keys = keys_of(annotation)
    if not isinstance(value, Mapping):
        reading.refuse(f"expected a table with the keys {listed(keys)}, got {got(value)}")
    reading.tables[reading.path] = tuple(keys)
    whole = True
    for name in value:
        if name not in keys:
            whole = False
            reading.note(partial(stray, reading.tables, reading.path, name, isinstance(value[name], Mapping)), name)
    arguments = {}
    for name, key in keys.items():
        try:
            if name in value:
                arguments[name] = _key_value(reading, value[name], key)
            elif key.required:
                reading.refuse(missing(reading.catalog, reading.path, key), name)
        except _RefusedError:
            whole = False
    if not whole:
        raise _RefusedError
    return _construct(reading, annotation, arguments)


def _key_value(reading: _Reading, value: Any, key: Key) -> Any:
    if key.metadata.get("relative_to") == "working directory" and isinstance(value, WrittenString):
        value = str(value)
    read = reading.read(value, key.type, key.name)
    if isinstance(read, (bool, int, float, str)) and not key.limits.allow(read):
        reading.refuse(outside(key, key.limits, value), key.name)
    if isinstance(read, tuple) and len(read) < key.limits.shortest:
        reading.refuse(too_short(key, value), key.name)
    if isinstance(read, tuple) and key.members is not None:
        for index, element in enumerate(read):
            if isinstance(element, (bool, int, float, str)) and not key.members.allow(element):
                reading.refuse(outside(key, key.members, value[index]), key.name, index)
    return read


def _construct(reading: _Reading, annotation: type, arguments: dict[str, Any]) -> Any:
    try:
        return annotation(**arguments)
    except (ValueError, TypeError) as error:  # what the class's own validators and checks have to say
        key = [part.name for part in error.args[1:] if isinstance(part, attrs.Attribute)]
        reading.refuse(str(error.args[0] if error.args else error), *key[:1])
    except Exception as error:
        where = render(reading.path)
        raise PluginError(
            f"{where}: {annotation.__name__} failed with {type(error).__name__}: {error}; this is a fault of its plugin"
        ) from error


# ---------------------------------------------------------------------------------------------------------------------
# Components
# ---------------------------------------------------------------------------------------------------------------------
def _component(reading: _Reading, value: Any, annotation: Any, default: str | None = None) -> Any:
    kind = str(kind_of(annotation))
    names = f"(installed: {listed(reading.catalog[kind])})"
    if not isinstance(value, Mapping):
        instead = (
            f'; write {{ use = "{value}" }}'
            if isinstance(value, str) and value in reading.catalog[kind]
            else f" {names}"
        )
        reading.refuse(f"{expected(annotation, value)}{instead}")
    use = value.get("use", default)
    at = (*reading.path, "use") if "use" in value else reading.path
    if use is None:
        reading.refuse(f"missing key; expected the name of {article(kind)} {kind} {names}", "use", at=at)
    if not isinstance(use, str):
        reading.refuse(f"expected the name of {article(kind)} {kind}, got {got(use)} {names}", "use")
    table = {key: element for key, element in value.items() if key != "use"}
    if use not in reading.catalog[kind]:
        reading.note(no_such(reading.catalog, kind, use), at=at, in_plugin=is_broken(reading.catalog, kind, use))
        meant = nearest(use[:100], reading.catalog[kind])
        if meant is not None:  # what else is wrong with the table is told in the same go
            _read_config(reading, table, kind, meant)
        raise _RefusedError
    return _read_config(reading, table, kind, str(use))


def _read_config(reading: _Reading, table: dict[str, Any], kind: str, use: str) -> Any:
    config = reading.catalog[kind][use].config
    if kind in NAMED and "name" in keys_of(config):
        name = table.setdefault("name", use)
    if kind == "stage" and "name" in keys_of(config):
        name = table["name"]
        if isinstance(name, str) and not re.fullmatch(RUN_NAME, name):
            reading.refuse(
                f"'{name[:80]}' cannot be the name of a stage's folder; expected letters, digits, . _ -", "name"
            )
        if isinstance(name, str) and name.lower() in OWN_NAMES:
            reading.refuse(f"'{name}' is what a run folder calls something else; give the stage another name", "name")
    return _converter().structure(table, config)
