"""The keys of a config class: types, defaults, limits and help, read from the class itself.

Reading, the JSON Schema and `upskit show` all look here, so that a default or a range stands in one place: the class.
"""

from __future__ import annotations

import math
import re
import types
import typing
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal, Union

import attrs
from attrs import frozen

from .errors import PluginError
from .interfaces import CONFIG_PROTOCOLS
from .keypaths import render

REQUIRED: Any = attrs.NOTHING

_KINDS = {protocol: kind for kind, protocol in CONFIG_PROTOCOLS.items()}


@frozen
class Limits:
    """What a validator allows. Bounds are (number, whether the number itself is allowed)."""

    lower: tuple[float, bool] | None = None
    upper: tuple[float, bool] | None = None
    choices: tuple[Any, ...] | None = None
    pattern: str | None = None
    shortest: int = 0  # of an array

    def __str__(self) -> str:
        """The limits in words, empty where there are none: `of at least 0 and below 1`."""
        words = []
        if self.lower:
            words.append(f"{'of at least' if self.lower[1] else 'greater than'} {_short(self.lower[0])}")
        if self.upper:
            words.append(f"{'of at most' if self.upper[1] else 'below'} {_short(self.upper[0])}")
        return " and ".join(words)

    def allow(self, value: Any) -> bool:
        """Whether a value of the right type lies within the limits."""
        if self.lower and not (value > self.lower[0] or (self.lower[1] and value == self.lower[0])):
            return False
        if self.upper and not (value < self.upper[0] or (self.upper[1] and value == self.upper[0])):
            return False
        if self.choices is not None and value not in self.choices:
            return False
        return self.pattern is None or re.fullmatch(self.pattern, str(value)) is not None


def _short(number: float) -> str:
    return str(int(number)) if isinstance(number, float) and number.is_integer() and abs(number) < 1e9 else str(number)


@frozen
class Key:
    """One key of a config class."""

    name: str
    type: Any
    default: Any
    limits: Limits
    members: Limits | None  # of the elements of an array
    metadata: Mapping[str, Any]

    @property
    def required(self) -> bool:
        return self.default is REQUIRED

    @property
    def help(self) -> str:
        return str(self.metadata.get("help", ""))

    @property
    def unit(self) -> str:
        return str(self.metadata.get("unit", ""))


def keys_of(config: type) -> Mapping[str, Key]:
    """The keys of a config class by name, in their order.

    Raises PluginError where an annotation of the class cannot be resolved.
    """
    return _keys_of(config)


@cache
def _keys_of(config: type) -> Mapping[str, Key]:
    try:
        hints = typing.get_type_hints(config)
    except Exception as error:  # whatever a stranger's annotation raises, the class cannot be used
        raise PluginError(
            f"{config.__module__}.{config.__qualname__}: its annotations cannot be read: {error}"
        ) from error
    found = {}
    for attribute in attrs.fields(config):
        if attribute.init:
            name = attribute.alias or attribute.name
            limits, members = limits_of(attribute.validator), _member_limits(attribute.validator)
            annotation = hints.get(attribute.name, Any)
            found[name] = Key(name, annotation, _default(attribute), limits, members, attribute.metadata)
    return types.MappingProxyType(found)


def refuse_unreadable(config: type) -> None:
    """Raise PluginError where a recipe could not hold what a key of a config class takes, or no page what it says."""
    if not isinstance(config.__doc__, str | None):
        raise PluginError(f"{config.__name__}: its docstring is no text")
    for key in keys_of(config).values():
        if not _holds(key.type):
            raise PluginError(f"{config.__name__}.{key.name}: a recipe cannot hold the type {key.type}")


def _holds(annotation: Any) -> bool:
    members, origin, arguments = alternatives(annotation), typing.get_origin(annotation), typing.get_args(annotation)
    if members != (annotation,):
        return all(_holds(member) for member in members)
    if origin is tuple:
        return bool(arguments) and all(_holds(argument) for argument in arguments if argument is not ...)
    if origin in MAPPINGS:
        return arguments[0] is str and _holds(arguments[1])
    if is_table(annotation):
        return all(_holds(key.type) for key in keys_of(annotation).values())
    return toml_kind(annotation) != ""


def limits_of(validator: Any) -> Limits:
    """The limits that attrs' own validators set; a validator of another kind speaks for itself when it is called."""
    lower = upper = choices = pattern = None
    shortest = 0
    for part in _parts(validator):
        if hasattr(part, "bound") and hasattr(part, "compare_op"):
            if part.compare_op.startswith(">"):
                lower = (part.bound, part.compare_op == ">=")
            else:
                upper = (part.bound, part.compare_op == "<=")
        elif hasattr(part, "options"):
            choices = tuple(part.options)
        elif hasattr(part, "pattern") and hasattr(part, "match_func"):
            pattern = part.pattern.pattern
        elif hasattr(part, "min_length"):
            shortest = part.min_length
    return Limits(lower, upper, choices, pattern, shortest)


def _parts(validator: Any) -> Iterator[Any]:
    if validator is None:
        return
    if hasattr(validator, "_validators"):
        for part in validator._validators:
            yield from _parts(part)
    elif type(validator).__name__ == "_OptionalValidator":
        yield from _parts(validator.validator)
    else:
        yield validator


def _member_limits(validator: Any) -> Limits | None:
    members = [part.member_validator for part in _parts(validator) if hasattr(part, "member_validator")]
    return limits_of(members[0]) if members else None


def _default(attribute: Any) -> Any:
    default = attribute.default
    if isinstance(default, attrs.Factory):  # type: ignore[arg-type]  # Factory is a class; the stubs say function
        return REQUIRED if default.takes_self else default.factory()
    return default


# ---------------------------------------------------------------------------------------------------------------------
# Types
# ---------------------------------------------------------------------------------------------------------------------
def kind_of(annotation: Any) -> str | None:
    """The kind of component that a type of `interfaces.CONFIG_PROTOCOLS` stands for, else None."""
    try:
        return _KINDS.get(annotation)
    except TypeError:
        return None


def is_table(annotation: Any) -> bool:
    """Whether a type is a config class with fixed keys."""
    return isinstance(annotation, type) and attrs.has(annotation)


def alternatives(annotation: Any) -> tuple[Any, ...]:
    """The members of a union without None, in order; the type itself where it is no union."""
    if typing.get_origin(annotation) in (Union, types.UnionType):
        return tuple(member for member in typing.get_args(annotation) if member is not types.NoneType)
    return (annotation,)


def is_optional(annotation: Any) -> bool:
    """Whether None is allowed."""
    return types.NoneType in typing.get_args(annotation) and alternatives(annotation) != (annotation,)


def toml_kind(annotation: Any) -> str:
    """Which TOML value a type is written as: boolean, number, string, array or table; empty for none."""
    origin = typing.get_origin(annotation)
    if annotation is bool:
        return "boolean"
    if annotation in (int, float):
        return "number"
    if annotation in (str, Path):
        return "string"
    if origin is Literal:
        return toml_kind(type(typing.get_args(annotation)[0]))
    if origin is tuple:
        return "array"
    if origin in MAPPINGS or is_table(annotation) or kind_of(annotation):
        return "table"
    return ""


MAPPINGS = (Mapping, dict, typing.get_origin(Mapping[str, int]))


def type_words(annotation: Any, plural: bool = False) -> str:
    """A type in TOML's words: `a whole number`, `an array of 2 numbers`."""
    members = alternatives(annotation)
    if len(members) > 1:
        return " or ".join(type_words(member, plural) for member in members)
    annotation = members[0]
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return "one of " + ", ".join(_shown(choice) for choice in arguments)
    if origin is tuple:
        return ("arrays of " if plural else "an array of ") + _elements(arguments)
    if kind := kind_of(annotation):
        return (
            f"tables with use = the name of {article(kind)} {kind}"
            if plural
            else f"a table with use = the name of {article(kind)} {kind}"
        )
    if origin in MAPPINGS:
        inner = kind_of(arguments[1])
        return (
            f"a table of {_plural(inner)} by name" if inner else f"a table of {type_words(arguments[1], plural=True)}"
        )
    if is_table(annotation):
        return f"a table with the keys {', '.join(keys_of(annotation))}"
    singular = {bool: "true or false", int: "a whole number", float: "a number", str: "a string", Path: "a string"}
    words = singular.get(annotation, "a table") if isinstance(annotation, type) else "a table"
    return words.split(" ", 1)[1] + "s" if plural and words.startswith("a ") else words


def _elements(arguments: tuple[Any, ...]) -> str:
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return type_words(arguments[0], plural=True)
    if len(set(arguments)) == 1:
        return f"{len(arguments)} {type_words(arguments[0], plural=True)}"
    return ", ".join(type_words(argument) for argument in arguments)


def _plural(noun: str) -> str:
    return f"{noun}es" if noun.endswith("s") else f"{noun}s"


def _shown(value: Any) -> str:
    return f"'{value}'" if isinstance(value, str) else str(value)


def article(noun: str) -> str:
    """`an` before a vowel, else `a`."""
    return "an" if noun[:1] in "aeiou" else "a"


# ---------------------------------------------------------------------------------------------------------------------
# Examples
# ---------------------------------------------------------------------------------------------------------------------
def example(key: Key) -> str:
    """A value that a key could have, in TOML: what the class gives as example, its default, or one of its type."""
    if "example" in key.metadata:
        return str(key.metadata["example"])
    if not key.required and key.default is not None:
        return toml(key.default)
    if key.limits.choices:
        return toml(key.limits.choices[0])
    member = alternatives(key.type)[0]
    if typing.get_origin(member) is Literal:
        return toml(typing.get_args(member)[0])
    if member in (int, float) and key.limits.lower:
        bound, inclusive = key.limits.lower
        return toml(member(bound if inclusive else math.floor(bound) + 1))
    return {bool: "true", int: "1", float: "1.0", str: '"..."', Path: '"..."'}.get(
        member, "[...]" if toml_kind(member) == "array" else "{ ... }"
    )


def toml(value: Any) -> str:
    """A plain value or config default as TOML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, Path)):
        return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, (tuple, list)):
        return "[" + ", ".join(toml(element) for element in value) + "]"
    if isinstance(value, Mapping):
        return (
            "{ " + ", ".join(f"{render((key,))} = {toml(element)}" for key, element in value.items()) + " }"
            if value
            else "{}"
        )
    if attrs.has(type(value)):
        return toml({name: getattr(value, name) for name in keys_of(type(value)) if getattr(value, name) is not None})
    return '"none"' if value is None else repr(value)
