"""Key paths: the address of a value in a recipe, `stages.operator.budget.seconds`."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

KeyPath = tuple[str | int, ...]

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def render(path: KeyPath) -> str:
    """A key path as it is written in TOML and in `--set`; an index of an array stands in brackets."""
    text = ""
    for key in path:
        if isinstance(key, int):
            text += f"[{key}]"
        else:
            text += ("." if text else "") + (key if _BARE.fullmatch(key) else quoted(key))
    return text


def quoted(text: str) -> str:
    """A string in TOML's double quotes, control characters escaped, cut where it is very long."""
    return '"' + shown(text).replace('"', '\\"') + '"'


def shown(text: str) -> str:
    """A text fit for one line of a message: control characters escaped, cut where it is very long."""
    cut = text if len(text) <= 80 else text[:77] + "..."
    return "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in cut)


def parse(text: str) -> tuple[str, ...]:
    """The keys of a dotted key as TOML reads them; raises ValueError where it is none."""
    if "\n" in text or "=" in text:
        raise ValueError(text)
    node: Any = tomllib.loads(f"{text} = 0")
    keys = []
    while isinstance(node, dict):
        if len(node) != 1:
            raise ValueError(text)
        (key, node), *_ = node.items()
        keys.append(key)
    return tuple(keys)


def labels(elements: Sequence[Any]) -> list[str | int]:
    """How the elements of an array are addressed: tables by their `name` or else `use`, all others by index.

    A table whose name is taken by an earlier one, or that has none, is addressed by its index too.
    """
    found: list[str | int] = []
    for index, element in enumerate(elements):
        name = element_name(element)
        found.append(index if name is None or name in found else name)
    return found


def element_name(element: Any) -> str | None:
    """The name of a table in an array: its `name`, else its `use`, or None."""
    if isinstance(element, Mapping):
        for key in ("name", "use"):
            value = element.get(key)
            if isinstance(value, str) and value:
                return str(value)
    return None
