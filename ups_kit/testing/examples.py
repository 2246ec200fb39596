"""Config objects of a component, from what its class says of itself: defaults, examples, and a tiny version of it."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from ..interfaces import CONFIG_PROTOCOLS
from ..keys import example, keys_of
from ..plugins import Catalog
from ..strict import attempt
from ..tables import unstructure
from .report import Broken

TINY = "tiny"  # of a config class: `tiny: ClassVar[Mapping[str, Any]]`, keys with which it is small, for checks
WHOLE = "component"  # the one key of a recipe that holds nothing else
Table = Mapping[str, Any]


def table_of(config: type, settings: Table, optional: bool = False) -> dict[str, Any]:
    """The table of a component: its required keys from their examples, then `settings` over them.

    `optional`: keys that may be left out and have an example, too. Raises Broken for a required key without one.
    """
    table: dict[str, Any] = {}
    for key in keys_of(config).values():
        if key.name in settings:
            continue
        if key.required or (optional and key.default is None and "example" in key.metadata):
            table[key.name] = _value(config, key.name, example(key))
    return overlaid(table, {name: plain(value) for name, value in settings.items()})


def _value(config: type, name: str, text: str) -> Any:
    try:
        if "..." in text:
            raise tomllib.TOMLDecodeError
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        raise Broken(
            f"the key '{name}' must be written, and its example {text!r} is no value",
            f"give it metadata={{'example': …}}, in TOML, on {config.__name__}.{name}, or settings={{'{name}': …}}",
        ) from None


def overlaid(table: Table, settings: Table) -> dict[str, Any]:
    """A table with another laid over it, tables within tables too; one that names another component replaces."""
    merged = dict(table)
    for name, value in settings.items():
        inner = merged.get(name)
        deeper = isinstance(inner, Mapping) and isinstance(value, Mapping) and "use" not in value
        merged[name] = overlaid(inner, value) if deeper else value  # type: ignore[arg-type]  # both are tables
    return merged


def plain(value: Any) -> Any:
    """A setting as a recipe would hold it."""
    if isinstance(value, Mapping):
        return {str(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value


def tiny_settings(config: type) -> dict[str, Any]:
    """The keys with which a component says that it is small."""
    own: Mapping[str, Any] = getattr(config, TINY, {})
    return dict(own)


def versions(config: type, settings: Table, defaults_first: bool = True) -> Iterator[dict[str, Any]]:
    """Tables that a component may be built from, each once: as it is by default, and tiny; then as `show` prints it."""
    seen: list[dict[str, Any]] = []
    small = overlaid(tiny_settings(config), settings)
    order = (settings, small) if defaults_first else (small, settings)
    for chosen, optional in ((order[0], False), (order[1], False), (order[0], True), (order[1], True)):
        table = table_of(config, chosen, optional)
        if table not in seen:
            seen.append(table)
            yield table


def holder(kind: str) -> type:
    """A config class with one key, a component of a kind: read and written as a recipe's table is."""
    return attrs.make_class(WHOLE, {WHOLE: attrs.field(type=CONFIG_PROTOCOLS[kind])}, frozen=True)


def read(kind: str, name: str, table: Table, catalog: Catalog) -> Any:
    """The config object of a table. Raises Broken with everything that is wrong with it."""
    found, problems = attempt({WHOLE: {"use": name, **table}}, holder(kind), catalog)
    if problems:
        told = "; ".join(str(problem).removeprefix(f"{WHOLE}.") for problem in problems)
        raise Broken(f"{shown(table)} is refused: {told}", "make the examples of the keys values that the class takes")
    return getattr(found, WHOLE)


def written(kind: str, config: Any, catalog: Catalog) -> dict[str, Any]:
    """The table of a config object, with `use`."""
    whole = holder(kind)(config)
    table: dict[str, Any] = unstructure(whole, catalog)[WHOLE]
    return table


def shown(table: Table) -> str:
    """A table in a line."""
    return "{" + ", ".join(f"{name} = {value!r}" for name, value in table.items()) + "}" if table else "the defaults"
