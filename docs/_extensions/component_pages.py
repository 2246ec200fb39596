"""A page for each component: what its config class says, as `upskit show` prints it, and the recipes that use it."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ups_kit.cli.components import HEADERS, example_table
from ups_kit.interfaces import KINDS
from ups_kit.keys import Key, alternatives, is_table, keys_of, kind_of, toml, type_words
from ups_kit.plugins import Catalog, discover
from ups_kit.recipe import Recipe
from ups_kit.registry import Entry
from ups_kit.schema import recipe_schema

SCHEMA = "recipe.schema.json"
CITED = re.compile(r"docs/(\w+\.md)( §\d+)?")  # pages that docstrings name
HERE = "ups_kit"  # the distribution whose plugins are documented; others have pages of their own


def pages() -> Iterator[tuple[str, str]]:
    """One page for every component of this distribution, one for each kind, and the page of the kinds."""
    catalog = discover()
    catalog = catalog.without(plugin.name for plugin in catalog.plugins if plugin.distribution != HERE)
    uses = recipes_by_component()
    kinds = {kind: list(catalog[kind].values()) for kind in KINDS}
    yield "recipe.md", _recipe()
    yield SCHEMA, json.dumps(recipe_schema(catalog), indent=1)
    yield "components/index.md", _index({kind: entries for kind, entries in kinds.items() if entries})
    for kind, entries in kinds.items():
        if entries:
            yield f"components/{kind}/index.md", _kind(kind, entries)
        for entry in entries:
            yield f"components/{kind}/{entry.name}.md", component(catalog, entry, uses.get((kind, entry.name), []))


def _recipe() -> str:
    """The keys of a recipe itself; tables that components stand in have their own pages."""
    lines = ["# The recipe itself", "", "What stands in a recipe besides [components](components/index.md).", ""]
    lines += ["## Tables and keys", "", *_table(keys_of(Recipe)), ""]
    for path, inner in inner_tables(keys_of(Recipe)):
        lines += [f"## `[{path}]`", "", markdown(inspect.getdoc(inner) or ""), "", *_table(keys_of(inner)), ""]
    lines += [
        "A model of a family of its own has `[model]` in the place of `[latent]`, encoder, operator and decoder.",
        "",
    ]
    return "\n".join(lines)


def _index(kinds: Mapping[str, list[Entry]]) -> str:
    lines = ["# Components", "", 'What a recipe can name: each by its kind, and `use = "NAME"`.', ""]
    lines += ["| kind | stands in | which there are |", "| --- | --- | --- |"]
    for kind, entries in kinds.items():
        names = ", ".join(f"[`{entry.name}`]({kind}/{entry.name}.md)" for entry in entries)
        lines.append(f"| [{kind}]({kind}/index.md) | `{HEADERS[kind].format(name='NAME')}` | {names} |")
    return "\n".join([*lines, "", *_toctree(f"{kind}/index" for kind in kinds)])


def _kind(kind: str, entries: list[Entry]) -> str:
    lines = [
        f"# {kind.capitalize()}",
        "",
        f"A component of this kind stands in `{HEADERS[kind].format(name='NAME')}`.",
        "",
    ]
    lines += ["| name | what it is | plugin |", "| --- | --- | --- |"]
    lines += [f"| [`{e.name}`]({e.name}.md) | {cell(_document(e).split(chr(10))[0])} | {e.plugin} |" for e in entries]
    return "\n".join([*lines, "", *_toctree(entry.name for entry in entries)])


def _toctree(names: Any) -> list[str]:
    return ["```{toctree}", ":hidden:", "", *names, "```", ""]


def component(catalog: Catalog, entry: Entry, recipes: list[str]) -> str:
    """The page of one component."""
    plugin = next(plugin for plugin in catalog.plugins if plugin.name == entry.plugin)
    keys = keys_of(entry.config)
    lines = [
        f"# {entry.kind} `{entry.name}`",
        "",
        CITED.sub(r"[\1\2](../../../\1)", markdown(_document(entry))),
        "",
        f"From the plugin `{plugin.name}` ({plugin.distribution} {plugin.version}), class "
        f"`{entry.config.__module__}.{entry.config.__qualname__}`. On the command line: "
        f"`upskit show {entry.kind} {entry.name}`.",
        "",
        "## Keys",
        "",
        *(_table(keys) if keys else ["It has no keys."]),
        "",
    ]
    for path, inner in inner_tables(keys):
        lines += [f"### Keys of `{path}`", "", *_table(keys_of(inner)), ""]
    lines += ["## Example", "", "```toml", example_table(entry).rstrip(), "```", ""]
    if recipes:
        named = ", ".join(f"[`{name}`](../../recipes/{name}.md)" for name in recipes)
        lines += ["## Recipes that use it", "", f"{named}. Scores stand on their pages, where they were measured.", ""]
    definition = f"`{entry.kind}.{entry.name}` under `$defs`"
    lines += ["## JSON Schema", "", f"{definition} of [{SCHEMA}](../../{SCHEMA}), which `upskit schema` prints.", ""]
    return "\n".join(lines)


def _document(entry: Entry) -> str:
    return inspect.getdoc(entry.config) or ""


def _table(keys: Mapping[str, Key]) -> list[str]:
    """The keys as a table, without columns in which nothing would stand."""
    header = ("key", "type", "default", "unit", "range", "what it is")
    rows = [(f"`{key.name}`", _type(key), _default(key), key.unit, _range(key), key.help) for key in keys.values()]
    filled = [column for column in range(len(header)) if any(row[column] for row in rows)]
    lines = [[header[column] for column in filled], ["---"] * len(filled)]
    lines += [[cell(row[column]) for column in filled] for row in rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def _default(key: Key) -> str:
    return "required" if key.required else f"`{'none' if key.default is None else toml(key.default)}`"


def _type(key: Key) -> str:
    """The type in words; a table with fixed keys has a table of its own below."""
    words = ["a table, below" if is_table(member) else type_words(member) for member in alternatives(key.type)]
    return " or ".join(word.removeprefix("a ").removeprefix("an ") for word in words)


def _range(key: Key) -> str:
    if key.limits.choices is not None:
        return ", ".join(f"`{toml(choice)}`" for choice in key.limits.choices)
    words = [str(key.limits)] if str(key.limits) else []
    if key.limits.shortest:
        words.append(f"{key.limits.shortest} of them or more")
    if key.members and str(key.members):
        words.append(f"each {key.members}")
    if key.limits.pattern:
        words.append(f"`{key.limits.pattern}`")
    return ", ".join(words).replace("of at least", "at least").replace("of at most", "at most")


def inner_tables(keys: Mapping[str, Key], path: str = "") -> Iterator[tuple[str, type]]:
    """The tables with fixed keys that a component holds, with their paths; components inside have their own pages."""
    for key in keys.values():
        for member in alternatives(key.type):
            if is_table(member) and kind_of(member) is None:
                yield f"{path}{key.name}", member
                yield from inner_tables(keys_of(member), f"{path}{key.name}.")


def cell(text: str) -> str:
    """Text in a table's cell: on one line, without a bar that would end it."""
    return " ".join(text.split()).replace("|", "\\|")


def markdown(document: str) -> str:
    """A docstring as Markdown: signs that would be markup in our formulas are escaped outside of code."""
    parts = document.split("`")
    for number in range(0, len(parts), 2):
        for sign in "*_<$[]":
            parts[number] = parts[number].replace(sign, "\\" + sign)
    return "`".join(parts)


def recipes_by_component() -> dict[tuple[str, str], list[str]]:
    """(kind, name) -> the recipes whose own text, or whose bases' texts, name it."""
    from recipe_pages import components_of, paths

    found: dict[tuple[str, str], list[str]] = {}
    for name, path in paths():
        for used in components_of(path):
            found.setdefault(used, []).append(name)
    return found
