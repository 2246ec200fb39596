"""Values and mistakes in the words of someone who writes TOML."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from .errors import did_you_mean, nearest
from .keypaths import KeyPath, quoted, render, shown
from .keys import Key, Limits, alternatives, article, example, is_table, keys_of, kind_of, toml, toml_kind, type_words
from .plugins import Catalog
from .recipe import FIELD_TABLES
from .whereabouts import whereabouts

LONGEST_LIST = 12


def got(value: Any) -> str:
    """What was found: `the string '64'`, `3.7`, `a table`, `an array of 3`."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"the string '{shown(value)}'"
    if isinstance(value, (int, float)):
        return _number(value)
    if isinstance(value, Mapping):
        return "a table"
    if isinstance(value, (list, tuple)):
        return f"an array of {len(value)}"
    for kind, word in ((datetime.datetime, "date and time"), (datetime.date, "date"), (datetime.time, "time")):
        if isinstance(value, kind):
            return f"the {word} {value.isoformat()}"
    return "nothing" if value is None else f"a {type(value).__name__}"


def _number(value: int | float) -> str:
    if isinstance(value, int) and abs(value) >= 10**20:
        return f"a number of {len(hex(value)) * 1.204:.0f} digits"
    return repr(value)


def expected(annotation: Any, value: Any) -> str:
    """`expected a whole number, got the string '64'; write 64 without quotes`."""
    return f"expected {type_words(annotation)}, got {got(value)}{hint(annotation, value)}"


def hint(annotation: Any, value: Any) -> str:
    """What to write instead, where the value shows what was meant; else nothing."""
    for member in alternatives(annotation):
        instead = _instead(member, value)
        if instead:
            return f"; write {instead}"
    return ""


def _instead(annotation: Any, value: Any) -> str:
    if isinstance(value, str) and annotation in (bool, int, float):
        meant = _meant(annotation, value)
        return "" if meant is None else f"{toml(meant)} without quotes"
    if annotation is int and isinstance(value, float) and value.is_integer() and abs(value) < 2**63:
        return str(int(value))
    if annotation is bool and type(value) is int and value in (0, 1):
        return toml(bool(value))
    if annotation in (str, Path) and isinstance(value, (bool, int, float, datetime.date, datetime.time)):
        return quoted(value.isoformat() if isinstance(value, (datetime.date, datetime.time)) else toml(value))
    if (
        toml_kind(annotation) == "array"
        and get_args(annotation)[1:] == (...,)
        and _fits(get_args(annotation)[0], value)
    ):
        return f"[{toml(value)}]" if not isinstance(value, Mapping) else "[[...]] as the header of the table"
    return ""


def _meant(annotation: Any, text: str) -> bool | int | float | None:
    """The number or truth value that a string spells."""
    words = {"true": True, "false": False}
    if annotation is bool:
        return words.get(text.strip().lower())
    try:
        number: int | float = annotation(text)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _fits(annotation: Any, value: Any) -> bool:
    kinds = {bool: "boolean", int: "number", float: "number", dict: "table"}
    kind = "string" if isinstance(value, str) else kinds.get(type(value), "")
    return any(toml_kind(member) == kind for member in alternatives(annotation))


def choice(choices: Iterable[Any], value: Any) -> str:
    """`expected one of 'fp32', 'bf16', got the string 'fp64'; did you mean …?`."""
    known = list(choices)
    listing = ", ".join(f"'{item}'" if isinstance(item, str) else toml(item) for item in known)
    words = f"one of {listing}" if len(known) != 1 else listing
    return f"expected {words}, got {got(value)}{guess(value, known)}"


def guess(name: Any, known: Iterable[Any]) -> str:
    """`; did you mean 'grid'?` where a known name is near, else nothing."""
    return did_you_mean(str(name)[:100], [item for item in known if isinstance(item, str)])


def outside(key: Key, limits: Limits, value: Any) -> str:
    """Why a value of the right type is not allowed."""
    if limits.choices is not None and value not in limits.choices:
        return choice(limits.choices, value)
    if limits.pattern is not None:
        return f"'{shown(str(value))}' does not fit; {key.help}{' ' if key.help else ''}(pattern {limits.pattern})"
    noun = "a number" if _may_be_float(key.type) else "a whole number"
    return f"expected {noun} {limits}, got {got(value)}"


def too_short(key: Key, value: Any) -> str:
    """That an array has too few elements, and one that has not."""
    count = key.limits.shortest
    return f"expected an array of at least {count}, got {got(value)}, for example {key.name} = {example(key)}"


def _may_be_float(annotation: Any) -> bool:
    return annotation is float or any(_may_be_float(inner) for inner in get_args(annotation))


def listed(names: Iterable[str]) -> str:
    """Names after each other, cut where there are many."""
    known = list(names)
    more = len(known) - LONGEST_LIST
    return ", ".join(known[:LONGEST_LIST]) + (f" and {more} more" if more > 0 else "") if known else "none"


def literal_choices(annotation: Any) -> tuple[Any, ...]:
    """The values of a `Literal`, else nothing."""
    return get_args(annotation) if get_origin(annotation) is Literal else ()


# ---------------------------------------------------------------------------------------------------------------------
# Keys and components
# ---------------------------------------------------------------------------------------------------------------------
def missing(catalog: Catalog, table: KeyPath, key: Key) -> str:
    """What a table lacks, and an example of it."""
    kind = kind_of(key.type)
    if kind is not None:
        return f"missing table; expected [{render((*table, key.name))}] with use = {_names(catalog, kind)}"
    member = alternatives(key.type)[0]
    if is_table(member) and "example" not in key.metadata:
        return f"missing table; expected [{render((*table, key.name))}] with the keys {listed(keys_of(member))}"
    inner = kind_of(get_args(member)[0]) if toml_kind(member) == "array" else None
    if inner is not None:
        return f"missing; expected one or more tables [[{key.name}]] with use = {_names(catalog, inner)}"
    return f"missing key; expected {type_words(key.type)}, for example {key.name} = {example(key)}"


def _names(catalog: Catalog, kind: str) -> str:
    return (
        " or ".join(f'"{name}"' for name in catalog[kind]) or f"the name of {article(kind)} {kind} (none is installed)"
    )


def stray(tables: Mapping[KeyPath, tuple[str, ...]], path: KeyPath, name: str, is_table: bool) -> str:
    """That the table at a path has no such key, and which does; `tables` holds the keys of all tables."""
    noun, keys = "table" if is_table else "key", tables[path]
    if not path and "model" in keys and name in FIELD_TABLES:
        return f"unknown {noun} beside [model], which is a whole model of its own; remove one of the two"
    others = {table: names for table, names in tables.items() if table not in ((), path)}
    homes = [f"[{render(table)}]" for table, names in others.items() if name in names]
    meant = guess(name, keys)
    if homes:
        meant += f"; it belongs in {' or '.join(homes[:2])}"
    elif not meant:
        near = nearest(name[:100], {key for names in others.values() for key in names})
        home = next((table for table, names in others.items() if near in names), ())
        meant = f"; did you mean '{near}' in [{render(home)}]?" if near else ""
    return f"unknown {noun}{meant} (keys here: {listed(keys)})"


def no_such(catalog: Catalog, kind: str, use: str) -> str:
    """Why no component of a kind is found under a name."""
    installed = f"(installed: {listed(catalog[kind])})"
    if any(mark in use for mark in ".:/"):
        return f"'{shown(use)}': import paths are not allowed; register a plugin {installed}"
    others = catalog.kinds_of(use)
    if others:
        mistaken = " and ".join(f"{article(other)} {other}" for other in others)
        return f"'{use}' is {mistaken}, expected {article(kind)} {kind} {installed}"
    meant = guess(use, catalog[kind])
    return f"no {kind} is called '{shown(use)}'{meant} {installed}{whereabouts(catalog, kind, use)}"
