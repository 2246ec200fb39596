"""JSON Schema (draft 2020-12) of recipes for the plugins that are installed, for editors and other tools.

A recipe that extends another holds only what it changes, so nothing in it is required and arrays of tables may be
addressed by name; it has schemas of its own, whose names start with `partial.`.
"""

from __future__ import annotations

import inspect
import math
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .keys import MAPPINGS, Key, Limits, alternatives, is_optional, is_table, keys_of, kind_of
from .plugins import Catalog
from .recipe import ModelRecipe, Recipe
from .strict import NO_VALUE
from .wording import literal_choices

Schema = dict[str, Any]

_PLAIN: Mapping[Any, str] = {bool: "boolean", int: "integer", float: "number", str: "string", Path: "string"}
_BASES = {
    "description": "recipes that this one extends, relative to it",
    "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
}


def recipe_schema(catalog: Catalog) -> Schema:
    """The schema of every recipe that can be written with the components of a catalog."""
    definitions: Schema = {}
    for kind, registry in catalog.registries.items():
        names = list(registry)
        for name in names:
            for partial in (False, True):
                config = registry[name].config
                definitions[_name(kind, partial, name)] = _table(config, catalog, partial, use=name)
        refs = [{"$ref": _ref(kind, False, name), "required": ["use"]} for name in names]
        definitions[_name(kind, False)] = {"type": "object", "oneOf": refs} if refs else {"not": {}}
        partial_refs = [{"$ref": _ref(kind, True, name)} for name in names]
        definitions[_name(kind, True)] = {"type": "object", "anyOf": partial_refs} if refs else {"not": {}}
    extending = _table(Recipe, catalog, partial=True)
    whole = _table(ModelRecipe, catalog, partial=True)["properties"]["model"]
    extending["properties"] = {"extends": _BASES, **extending["properties"], "model": whole}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "ups_kit recipe",
        "type": "object",
        "if": {"required": ["extends"]},
        "then": extending,
        "else": {
            "if": {"required": ["model"]},
            "then": _table(ModelRecipe, catalog, partial=False),
            "else": _table(Recipe, catalog, partial=False),
        },
        "$defs": definitions,
    }


def component_schema(catalog: Catalog, kind: str, name: str) -> Schema:
    """The schema of one component's table."""
    return {
        **_table(catalog[kind][name].config, catalog, partial=False, use=name),
        "$defs": recipe_schema(catalog)["$defs"],
    }


def _name(kind: str, partial: bool, component: str = "") -> str:
    return f"{'partial.' if partial else ''}{kind}{'.' if component else ''}{component}"


def _ref(kind: str, partial: bool, component: str = "") -> str:
    return f"#/$defs/{_name(kind, partial, component)}"


def _table(config: type, catalog: Catalog, partial: bool, use: str = "") -> Schema:
    keys = keys_of(config)
    properties: Schema = {"use": {"const": use}} if use else {}
    properties |= {name: _key(key, catalog, partial) for name, key in keys.items()}
    schema: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
    if config.__doc__:
        schema["description"] = inspect.cleandoc(config.__doc__)
    required = [name for name, key in keys.items() if key.required]
    if required and not partial:
        schema["required"] = required
    return schema


def _key(key: Key, catalog: Catalog, partial: bool) -> Schema:
    members = [_limited(_type(member, catalog, partial), key.limits, key.members) for member in alternatives(key.type)]
    if partial and any(_holds_components(member) for member in alternatives(key.type)):
        kind = str(kind_of(typing.get_args(alternatives(key.type)[0])[0]))
        members.append({"type": "object", "additionalProperties": {"$ref": _ref(kind, True)}})
    if is_optional(key.type):
        members.append({"const": NO_VALUE})
    schema = members[0] if len(members) == 1 else {"anyOf": members}
    unit = f" [{key.unit}]" if key.unit else ""
    if key.help:
        schema = {"description": key.help + unit, **schema}
    if isinstance(key.default, (bool, int, float, str)):
        schema = {**schema, "default": key.default}
    return schema


def _holds_components(annotation: Any) -> bool:
    return typing.get_origin(annotation) is tuple and kind_of(typing.get_args(annotation)[0]) is not None


def _type(annotation: Any, catalog: Catalog, partial: bool) -> Schema:
    kind, origin, arguments = kind_of(annotation), typing.get_origin(annotation), typing.get_args(annotation)
    if kind is not None:
        return {"$ref": _ref(kind, partial)}
    if annotation in _PLAIN:
        return {"type": _PLAIN[annotation]}
    if literal_choices(annotation):
        return {"enum": list(arguments)}
    if origin is tuple:
        return _array(arguments, catalog)
    if origin in MAPPINGS:
        return _mapping(arguments[1], catalog, partial)
    if is_table(annotation):
        return _table(annotation, catalog, partial)
    members = [_type(member, catalog, partial) for member in alternatives(annotation) if member is not annotation]
    return {"anyOf": members} if members else {}


def _array(arguments: tuple[Any, ...], catalog: Catalog) -> Schema:
    """An array is replaced whole, so its elements are whole also in a recipe that extends another."""
    if arguments[1:] == (...,):
        return {"type": "array", "items": _type(arguments[0], catalog, partial=False)}
    items = [_type(argument, catalog, partial=False) for argument in arguments]
    return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}


def _mapping(inner: Any, catalog: Catalog, partial: bool) -> Schema:
    """A table with free keys; one of components may leave out `use` where the key is the component's name."""
    schema: Schema = {"type": "object", "additionalProperties": _type(inner, catalog, partial)}
    kind = kind_of(inner)
    if kind is not None and not partial:
        schema["properties"] = {
            name: {"anyOf": [{"$ref": _ref(kind, False, name)}, {"$ref": _ref(kind, False)}]} for name in catalog[kind]
        }
    return schema


def _limited(schema: Schema, limits: Limits, members: Limits | None) -> Schema:
    """A type's schema with the limits of its key."""
    if schema.get("type") in ("integer", "number"):
        for bound, inclusive, exclusive in (
            (limits.lower, "minimum", "exclusiveMinimum"),
            (limits.upper, "maximum", "exclusiveMaximum"),
        ):
            if bound is not None and math.isfinite(bound[0]):
                schema = {**schema, inclusive if bound[1] else exclusive: bound[0]}
    if limits.choices is not None and "type" in schema and schema["type"] != "array":
        schema = {**schema, "enum": list(limits.choices)}
    if limits.pattern is not None and schema.get("type") == "string":
        schema = {**schema, "pattern": f"^(?:{limits.pattern})$"}
    if limits.shortest and schema.get("type") == "array":
        schema = {**schema, "minItems": limits.shortest}
    if members is not None and "items" in schema:
        schema = {**schema, "items": _limited(schema["items"], members, None)}
    return schema
