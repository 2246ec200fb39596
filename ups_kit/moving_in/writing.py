"""An imported recipe as text, and the account of every key: as comments, for a terminal, for scripts."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import attrs
import tomlkit
from tomlkit.items import AbstractTable, InlineTable

from ..keypaths import shown
from ..keys import toml
from .dialect import TITLES
from .settings import Fate, Settings, grouped

WIDTH = 118
INLINE = ("budget", "optimizer", "schedule", "sampler")  # tables that stand on one line
LONGEST_VALUE = 60


def recipe_text(recipe: Mapping[str, Any], settings: Settings) -> str:
    """The recipe as TOML, the account of all keys at its head."""
    document = tomlkit.document()
    for line in account(settings, WIDTH - 2):
        document.add(tomlkit.comment(line) if line else tomlkit.comment("").indent(0))
    document.add(tomlkit.nl())
    for key, value in recipe.items():
        document.add(key, _item(key, value))
    return tomlkit.dumps(document).replace("# \n", "#\n")


def _item(key: str, value: Any, inline: bool = False) -> Any:
    if isinstance(value, Mapping):
        is_small = inline or key in INLINE or not value
        return _filled(tomlkit.inline_table() if is_small else tomlkit.table(), value)
    if isinstance(value, Sequence) and value and isinstance(value[0], Mapping):
        array = tomlkit.aot()
        for entry in value:
            array.append(_filled(tomlkit.table(), entry))
        return array
    return tomlkit.item(list(value) if isinstance(value, tuple) else value)


def _filled(table: AbstractTable | InlineTable, values: Mapping[str, Any]) -> Any:
    """A table with its plain values first, and then the tables below it."""
    below = {key: value for key, value in values.items() if isinstance(value, Mapping) and key not in INLINE and value}
    losses = "losses" in values and isinstance(values["losses"], Mapping)
    inline = isinstance(table, InlineTable)
    for key, value in values.items():
        if key not in below:
            table.add(key, _item(key, value))
    for key, value in below.items():
        table.add(key, _losses(value) if losses and key == "losses" else _item(key, value, inline))
    return table


def _losses(losses: Mapping[str, Any]) -> Any:
    """Each loss on a line of its own."""
    table = tomlkit.table()
    for name, keys in losses.items():
        table.add(name, _filled(tomlkit.inline_table(), keys) if keys else tomlkit.inline_table())
    return table


# ---------------------------------------------------------------------------------------------------------------------
# The account of every key
# ---------------------------------------------------------------------------------------------------------------------
def account(settings: Settings, width: int) -> list[str]:
    """What has become of every key of the configuration, group by group, in lines of at most `width` characters."""
    lines = [f"Imported from {Path(settings.source).name}, a configuration of universal_simulator.", ""]
    groups = grouped(settings.fates())
    for group, fates in groups.items():
        lines.append(f"{TITLES[group].capitalize()}:")
        for line in _lines(fates):
            lines += textwrap.wrap(line, width, initial_indent="  ", subsequent_indent="      ", break_long_words=False)
        lines.append("")
    if settings.added:
        lines.append("What else the recipe holds, or does without:")
        for text in settings.added:
            lines += textwrap.wrap(text, width, initial_indent="  ", subsequent_indent="      ")
        lines.append("")
    return lines[:-1]


def _lines(fates: Sequence[Fate]) -> Iterator[str]:
    """A line for each key; neighbours of which the same is to be said have one together."""
    for (becomes, remark), group in groupby(fates, lambda fate: (fate.becomes, fate.remark)):
        found = list(group)
        for members in [found] if remark and not becomes else [[fate] for fate in found]:
            keys = ", ".join(f"{fate.path} = {_value(fate.value)}" for fate in members)
            yield keys + (f" -> {becomes}" if becomes else "") + (f": {remark}" if remark else "")


def _value(value: Any) -> str:
    text = toml(value) if isinstance(value, (bool, int, float, str, list)) else "…"
    return shown(text) if len(text) <= LONGEST_VALUE else f"{shown(text[:LONGEST_VALUE])}…"


def record(settings: Settings, out: Path, problems: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """The same for scripts."""
    groups = grouped(settings.fates())
    return {
        "source": settings.source,
        "recipe": str(out),
        "keys": {group: [_plain(fate) for fate in groups.get(group, [])] for group in TITLES},
        "added": list(settings.added),
        "problems": list(problems),
    }


def _plain(fate: Fate) -> dict[str, Any]:
    values = attrs.asdict(fate, recurse=False)
    return {name: value for name, value in values.items() if name != "group"}


def page_rows() -> Iterator[str]:
    """The table of all keys on the page about moving in, in Markdown."""
    from .old_keys import TABLE

    yield "| key | default | becomes | what differs, or what to use |"
    yield "| --- | --- | --- | --- |"
    for group, title in TITLES.items():
        keys = [key for key in TABLE.values() if key.group == group]
        if keys:
            yield f"| **{title}** | | | |"
        for key in keys:
            default = "" if key.default is None else f"`{toml(key.default)}`"
            becomes = f"`{key.becomes}`" if key.becomes else ""
            remark = "; ".join(part for part in (key.only, key.remark) if part)
            yield f"| `{key.path}` | {default} | {becomes} | {remark.replace('|', '∣')} |"
