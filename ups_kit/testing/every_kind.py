"""The clauses that hold for components of every kind: what can be known from the config class."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

import attrs

from ..keys import is_table, keys_of
from ..schema import component_schema
from .examples import read, written
from .listing import no_torch_at_listing
from .report import Broken, Skipped, expect, listed
from .subject import Clause, Subject


def defaults_build(subject: Subject) -> str | None:
    """The config class reads a table of its required keys, filled from their examples."""
    tables = written(subject.kind, subject.config_object, subject.catalog)
    expect(isinstance(subject.config_object, subject.config), f"{tables['use']} gives another class")
    return None


def round_trip(subject: Subject) -> str | None:
    """A config written as a table and read again is equal."""
    for config in {id(each): each for each in (subject.config_object, subject.small)}.values():
        table = written(subject.kind, config, subject.catalog)
        again = read(subject.kind, subject.name, _without_use(table), subject.catalog)
        if again != config:
            raise Broken(
                f"{_difference(config, again)} after the round trip",
                "let attrs make __eq__, and let __attrs_post_init__ and converters leave a read value as it is",
            )
    return None


def _without_use(table: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in table.items() if name != "use"}


def _difference(config: Any, again: Any) -> str:
    for attribute in attrs.fields(type(config)):
        one, other = getattr(config, attribute.name), getattr(again, attribute.name)
        if one != other:
            return f"{attribute.alias} = {one!r} is {other!r}"
    return f"{type(config).__name__} is equal to itself alone"


def is_frozen(subject: Subject) -> str | None:
    """A config object is frozen."""
    config = subject.config_object
    names = [attribute.name for attribute in attrs.fields(type(config))] or ["anything"]
    try:
        setattr(config, names[0], getattr(config, names[0], None))
    except (attrs.exceptions.FrozenError, AttributeError):
        return None
    raise Broken(
        f"{type(config).__name__}.{names[0]} can be assigned to", "decorate the class with @frozen(kw_only=True)"
    )


def documented(subject: Subject) -> str | None:
    """The class has a docstring, and every key has a help."""
    doc = inspect.cleandoc(subject.config.__doc__ or "")
    expect(doc, f"{subject.config.__name__} has no docstring", "say in a sentence what it is: `upskit show` prints it")
    silent = list(_silent(subject.config, ""))
    expect(not silent, f"no help for {listed(silent)}", "field(…, metadata={'help': '…'})")
    return None


def _silent(config: type, prefix: str) -> Iterator[str]:
    for key in keys_of(config).values():
        if not key.help.strip():
            yield f"{prefix}{key.name}"
        if is_table(key.type):
            yield from _silent(key.type, f"{prefix}{key.name}.")


def has_schema(subject: Subject) -> str | None:
    """Its JSON Schema is valid, and takes the table of the example."""
    try:
        jsonschema = import_module("jsonschema")
    except ImportError as missing:
        raise Skipped("the package jsonschema is not installed") from missing
    schema = component_schema(subject.catalog, subject.kind, subject.name)
    own = {name: part for name, part in schema.items() if name != "$defs"}
    validator = jsonschema.Draft202012Validator
    validator.check_schema(own)
    table = _bare(written(subject.kind, subject.config_object, subject.catalog))
    for error in validator(schema).iter_errors(table):
        path = ".".join(map(str, error.absolute_path)) or "the table"
        raise Broken(f"{path}: {error.message}", "let validators say what annotations do not")
    return None


def _bare(table: Any) -> Any:
    """Without the keys that are left out."""
    if isinstance(table, Mapping):
        return {name: _bare(value) for name, value in table.items() if value is not None}
    return [_bare(value) for value in table] if isinstance(table, list) else table


CLAUSES: Mapping[str, Clause] = {
    "defaults-build": defaults_build,
    "round-trip": round_trip,
    "frozen": is_frozen,
    "documented": documented,
    "schema": has_schema,
    "no-torch-at-listing": no_torch_at_listing,
}
