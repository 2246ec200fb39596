"""Verbs on what is installed: `list-plugins`, `list` and `show`."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from ..console import printable
from ..errors import PluginError, UsageError
from ..interfaces import KINDS
from .without import NO_PLUGIN

if TYPE_CHECKING:
    from ..keys import Key
    from ..plugins import Catalog, Plugin
    from ..registry import Entry

# Where a component of each kind stands in a recipe.
HEADERS = {
    "dataset": "[dataset]",
    "simulator": "[dataset.simulate]",
    "encoder": "[encoder]",
    "operator": "[operator]",
    "decoder": "[decoder]",
    "model": "[model]",
    "constraint": "[[constraints]]",
    "loss": "[stages.losses.{name}]",
    "sampler": "[stages.losses.forward.sampler]",
    "stage": "[[stages]]",
    "metric": "[stages.metrics.{name}]",
    "tracker": "[[trackers]]",
    "optimizer": "[stages.optimizer]",
    "schedule": "[stages.schedule]",
}


@click.command("list-plugins")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--kind", type=click.Choice(KINDS), help="Only plugins that offer components of this kind.")
@click.option("--broken", is_flag=True, help="Only plugins that cannot be loaded, with the reason and what to do.")
@click.option("--strict", is_flag=True, help="Exit with 4 where one of those listed cannot be loaded.")
@NO_PLUGIN
def list_plugins(as_json: bool, kind: str | None, broken: bool, strict: bool) -> int:
    """List the installed plugins: what they offer, or why they do not, and what to do about it.

    API is the version of the plugin API that a plugin was written for. A broken plugin stops nobody else: the exit code
    is 0, but with --strict.
    """
    from ..plugins import discover

    plugins = [
        plugin
        for plugin in discover().plugins
        if (not broken or plugin.state == "broken") and (kind is None or kind in plugin.components)
    ]
    if as_json:
        click.echo(json.dumps([_plugin(plugin) for plugin in plugins], indent=1))
    else:
        header = ("PLUGIN", "FROM", "API", "STATE", "LOADED IN", "COMPONENTS")
        rows = [row for plugin in plugins for row in _rows(plugin, kind)]
        click.echo(printable(table(header, rows)) if rows else "no such plugin")
    return PluginError.exit_code if strict and any(plugin.state == "broken" for plugin in plugins) else 0


def _plugin(plugin: Plugin) -> dict[str, Any]:
    names = ("name", "distribution", "version", "api", "module", "state", "reason", "mend", "milliseconds")
    return {**{name: getattr(plugin, name) for name in names}, "components": dict(plugin.components)}


def _rows(plugin: Plugin, only: str | None) -> Iterator[tuple[str, ...]]:
    """What a plugin offers; of one that is not loaded why, and on the next line what to do."""
    seconds = f"{plugin.milliseconds:.0f} ms" if plugin.milliseconds else "-"
    facts = (plugin.name, plugin.source, str(plugin.api), plugin.state, seconds)
    if plugin.state == "ok":
        kinds = [kind for kind in KINDS if kind in plugin.components and only in (None, kind)]
        yield *facts, "; ".join(f"{kind}: {', '.join(plugin.components[kind])}" for kind in kinds) or "nothing yet"
        return
    yield *facts, plugin.reason
    if plugin.mend:
        yield "", "", "", "", "", f"-> {plugin.mend}"


@click.command("list")
@click.argument("kind", required=False, type=click.Choice(KINDS))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@NO_PLUGIN
def list_components(kind: str | None, as_json: bool) -> None:
    """List the components that recipes can name, of one kind or of all."""
    from ..plugins import discover

    catalog = discover()
    entries = [entry for each in KINDS if kind in (None, each) for entry in _entries(catalog, each)]
    if as_json:
        records = [{"kind": e.kind, "name": e.name, "plugin": e.plugin, "summary": _summary(e.config)} for e in entries]
        click.echo(json.dumps(records, indent=1))
        return
    rows = [(entry.kind, entry.name, entry.plugin, _summary(entry.config)) for entry in entries]
    click.echo(table(("KIND", "NAME", "PLUGIN", "WHAT IT IS"), rows) if rows else f"no {kind} is installed")


def _entries(catalog: Catalog, kind: str) -> list[Entry]:
    return [catalog[kind][name] for name in catalog[kind]]


def _names(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The components of the kind that has been typed, for completion in the shell."""
    from ..plugins import discover

    kind = context.params.get("kind")
    entries = _entries(discover(), kind) if kind in KINDS else []
    return [CompletionItem(e.name, help=_summary(e.config)) for e in entries if e.name.startswith(incomplete)]


@click.command()
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("name", shell_complete=_names)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with the component's JSON Schema.")
@NO_PLUGIN
def show(kind: str, name: str, as_json: bool) -> None:
    """Show a component: what it is, its keys, and an example of its table."""
    from ..keys import keys_of
    from ..plugins import discover
    from ..whereabouts import is_broken
    from ..wording import no_such

    catalog = discover()
    if name not in catalog[kind]:
        raise (PluginError if is_broken(catalog, kind, name) else UsageError)(no_such(catalog, kind, name))
    entry = catalog[kind][name]
    keys = list(keys_of(entry.config).values())
    if as_json:
        click.echo(json.dumps(_component(catalog, entry, keys), indent=1))
        return
    plugin = next(plugin for plugin in catalog.plugins if plugin.name == entry.plugin)
    click.echo(f"{kind} {name}, from the plugin {plugin.name} ({plugin.distribution} {plugin.version})\n")
    click.echo(f"{inspect.getdoc(entry.config) or 'without a description'}\n")
    rows = [(key.name, _type(key), _default(key), key.unit, key.help) for key in keys]
    click.echo(table(("KEY", "TYPE", "DEFAULT", "UNIT", "WHAT IT IS"), rows) if rows else "no keys")
    click.echo("\nexample\n")
    click.echo("\n".join(f"  {line}" for line in example_table(entry).splitlines()))


def _component(catalog: Catalog, entry: Entry, keys: Sequence[Key]) -> dict[str, Any]:
    from ..schema import component_schema

    return {
        "kind": entry.kind,
        "name": entry.name,
        "plugin": entry.plugin,
        "summary": _summary(entry.config),
        "doc": inspect.getdoc(entry.config) or "",
        "keys": [
            {
                "name": key.name,
                "type": _type(key),
                "required": key.required,
                "default": None if key.required else _default(key),
                "unit": key.unit,
                "help": key.help,
            }
            for key in keys
        ],
        "example": example_table(entry),
        "schema": component_schema(catalog, entry.kind, entry.name),
    }


def example_table(entry: Entry) -> str:
    """A component's table as TOML: every key that must be written, those with an example, and the plain defaults."""
    return "\n".join(_example_lines(entry)) + "\n"


def _example_lines(entry: Entry) -> Iterator[str]:
    from ..keys import example, keys_of

    yield HEADERS[entry.kind].format(name=entry.name)
    yield f'use = "{entry.name}"'
    for key in keys_of(entry.config).values():
        if key.required or (key.default is None and "example" in key.metadata):
            yield f"{key.name} = {example(key)}"
        elif key.default != "" and isinstance(key.default, (bool, int, float, str)):
            yield f"{key.name} = {_default(key)}"


def _summary(config: type) -> str:
    return (inspect.getdoc(config) or "").split("\n")[0]


def _type(key: Key) -> str:
    """`whole number of at least 1`, `one of 'a', 'b'`, `table`."""
    from ..keys import toml, type_words

    words = type_words(key.type).replace("an array", "array").removeprefix("a ")
    if key.limits.choices is not None:
        return "one of " + ", ".join(toml(choice) for choice in key.limits.choices)
    return f"{words} {key.limits}".strip()


def _default(key: Key) -> str:
    from ..keys import toml

    if key.required:
        return "required"
    if isinstance(key.default, float) and not math.isfinite(key.default):
        return str(key.default)
    return "none" if key.default is None else toml(key.default)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns under each other, the last one as long as it is."""
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header) - 1)]
    return "\n".join(
        "  ".join([*(f"{cell:{width}}" for cell, width in zip(line, widths)), line[-1]]).rstrip() for line in lines
    )
