"""Where two resolved recipes differ, and which of their values are nothing but defaults."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs
from attrs import frozen

from .keypaths import element_name, render, shown
from .keys import REQUIRED, keys_of

ABSENT: Any = attrs.NOTHING  # the value of a key that a record does not have
PLACES = (  # where and how fast a run goes on, and what watches it: nothing that it computes
    *(f"latent_cache.{key}" for key in ("folder", "preload", "shard")),
    *(f"run.{key}" for key in ("device", "threads", "folder", "workers", "worker_start")),
    "trackers",
    "description",
    "plugins",
)
LONGEST = 200  # characters of a value that a line shows


@frozen
class Difference:
    """One key path at which two records differ; a value is `ABSENT` where its record has no such key."""

    path: str
    before: Any
    after: Any

    def told(self, before: str = "in the run", after: str = "now") -> str:
        """`latent.width: 16 in the run, 24 now`."""
        return f"{self.path}: {_value(self.before, before)}, {_value(self.after, after)}"

    def is_below(self, keys: Sequence[str]) -> bool:
        """Whether the path is one of these, or below one of them."""
        return any(self.path == key or self.path.startswith(f"{key}.") for key in keys)


def _value(value: Any, where: str) -> str:
    if value is ABSENT:
        return f"not there {where}"
    text = repr(value)
    return f"{text if len(text) <= LONGEST else f'{text[: LONGEST - 3]}...'} {where}"


def differences(
    old: Mapping[str, Any], new: Mapping[str, Any], defaults: frozenset[str] = frozenset()
) -> list[Difference]:
    """The key paths at which two resolved recipes differ.

    Arrays of tables with names are compared table by table. A key that the old record does not have, and whose value is
    a default now (`defaults`, from `default_paths`), has not changed: it is a key that came with a later version.
    """
    return [
        found
        for found in _differences(old, new, "")
        if not (found.before is ABSENT and (found.after is None or found.path in defaults))
    ]


def _differences(old: Any, new: Any, path: str) -> Iterator[Difference]:
    before, after = _by_name(old), _by_name(new)
    if before is not None and after is not None:
        if [name for name in before if name in after] != [name for name in after if name in before]:
            yield Difference(path, list(before), list(after))
            return
        old, new = before, after
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in [*old, *(key for key in new if key not in old)]:
            below = f"{path}.{render((key,))}" if path else render((key,))
            yield from _differences(old.get(key, ABSENT), new.get(key, ABSENT), below)
    elif not _equal(old, new):
        yield Difference(path, old, new)


def _by_name(value: Any) -> dict[str, Any] | None:
    """An array of tables as one table, where each has a name of its own."""
    if not isinstance(value, (list, tuple)) or not value:
        return None
    names = [element_name(entry) for entry in value]
    return None if None in names or len(set(names)) < len(names) else dict(zip(map(str, names), value))


def _equal(old: Any, new: Any) -> bool:
    """As records on disk: a tuple is a list there."""
    if old is ABSENT or new is ABSENT:
        return old is new
    return bool(old == new) or json.dumps(old, default=str) == json.dumps(new, default=str)


def default_paths(config: Any) -> frozenset[str]:
    """The key paths of a config object at which the class's own default stands, and nothing else."""
    return frozenset(_default_paths(config, ""))


def _default_paths(value: Any, path: str) -> Iterator[str]:
    inner: Mapping[str, Any] = {}
    if attrs.has(type(value)):
        names = {attribute.alias or attribute.name: attribute.name for attribute in attrs.fields(type(value))}
        inner = {key: getattr(value, names[key]) for key in keys_of(type(value))}
        for key, info in keys_of(type(value)).items():
            if info.default is not REQUIRED and inner[key] == info.default:
                yield f"{path}.{render((key,))}" if path else render((key,))
    elif isinstance(value, Mapping):
        inner = value
    elif isinstance(value, tuple):
        inner = {str(getattr(each, "name", shown(str(number)))): each for number, each in enumerate(value)}
    for key, each in inner.items():
        yield from _default_paths(each, f"{path}.{render((key,))}" if path else render((key,)))
