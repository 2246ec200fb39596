"""Sketches: the least that a recipe or a component's table holds, as TOML, made from the config classes."""

from __future__ import annotations

import typing
from collections.abc import Sequence

from .fit.settings import FitSettings
from .keypaths import render
from .keys import alternatives, example, is_table, keys_of, kind_of, toml_kind
from .plugins import Catalog
from .recipe import Recipe


def sketch(catalog: Catalog) -> str:
    """A small recipe of the first component of each kind; a line in <> where nothing is installed."""
    return "\n".join(_tables(Recipe, catalog, ())).strip() + "\n"


def component_sketch(catalog: Catalog, kind: str, name: str, header: str) -> str:
    """A component's table with all that it must hold."""
    return (
        "\n".join([header, f'use = "{name}"', *_tables(catalog[kind][name].config, catalog, (header.strip("[]"),))])
        + "\n"
    )


def _tables(config: type, catalog: Catalog, path: tuple[str, ...]) -> list[str]:
    """The required keys of a config class: plain values first, then the tables."""
    values, tables = [], []
    for key in keys_of(config).values():
        if not key.required:
            continue
        member = alternatives(key.type)[0]
        inner = typing.get_args(member)[0] if toml_kind(member) == "array" else None
        name = render((*path, key.name))
        if kind_of(member):
            tables += ["", f"[{name}]", *_component(str(kind_of(member)), catalog, (*path, key.name))]
        elif inner is not None and kind_of(inner):
            for component in _samples(str(kind_of(inner)), catalog, (*path, key.name)):
                tables += ["", f"[[{name}]]", *component]
        elif is_table(member) and "example" not in key.metadata:
            tables += ["", f"[{name}]", *_tables(member, catalog, (*path, key.name))]
        else:
            values.append(f"{key.name} = {example(key)}")
    return values + tables


def _samples(kind: str, catalog: Catalog, path: tuple[str, ...]) -> list[list[str]]:
    """The entries of an array of components: the shortest, and for stages one that trains before it."""
    training = [name for name, entry in catalog[kind].items() if _trains_on_losses(entry.config)]
    first = [_component(kind, catalog, path, training)] if training else []
    last = _component(kind, catalog, path)
    return first if last in first else [*first, last]


def _component(kind: str, catalog: Catalog, path: tuple[str, ...], among: Sequence[str] | None = None) -> list[str]:
    """A component of a kind, the one with the fewest keys that must be written."""
    found = catalog[kind] if among is None else among
    names = sorted(
        found,
        key=lambda name: (
            _holds(kind, catalog[kind][name].config),
            len(_tables(catalog[kind][name].config, catalog, path)),
            name,
        ),
    )
    if not names:
        return [f"# no {kind} is installed"]
    return [f'use = "{names[0]}"', *_tables(catalog[kind][names[0]].config, catalog, path)]


def _trains_on_losses(config: type) -> bool:
    """Whether a stage trains the model itself: others go on from what such a stage has trained."""
    return issubclass(config, FitSettings) and _holds("loss", config)


def _holds(kind: str, config: type) -> bool:
    """Whether a component must be given others of a kind; of its own kind, that is no way to begin."""
    return any(
        kind_of(inner) == kind
        for key in keys_of(config).values()
        if key.required
        for member in alternatives(key.type)
        for inner in typing.get_args(member)
    )
