"""From installed entry points to a catalog of components.

The walk over entry points is our own: pluggy's loader stops at the first broken plugin, and lets a stranger's plugin
that has the name of a built-in replace it silently. pluggy validates and calls the hook.
"""

from __future__ import annotations

import importlib
import re
import time
from collections.abc import Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Any, Literal

import attrs
import pluggy
from attrs import field, frozen

from . import hookspecs
from .errors import PluginError, did_you_mean
from .interfaces import KINDS
from .keys import refuse_unreadable
from .registry import Entry, Registry

GROUP = hookspecs.PROJECT
DISABLED = "disabled by name"
NAME = re.compile(r"[a-z][a-z0-9_]*")


@frozen
class Plugin:
    """An installed plugin, whether it works or not."""

    name: str
    distribution: str
    version: str
    module: str
    state: Literal["ok", "disabled", "broken"]
    reason: str = ""
    milliseconds: float = 0.0
    components: Mapping[str, tuple[str, ...]] = field(factory=dict)


@frozen
class Catalog:
    """Everything that is installed: the plugins, and a registry for each kind. A value that is passed on."""

    plugins: tuple[Plugin, ...]
    registries: Mapping[str, Registry]

    def __getitem__(self, kind: str) -> Registry:
        if kind not in self.registries:
            raise PluginError(f"there is no kind '{kind}'{did_you_mean(kind, KINDS)} (kinds: {', '.join(KINDS)})")
        return self.registries[kind]

    def kinds_of(self, name: str) -> tuple[str, ...]:
        """The kinds in which a component with this name exists."""
        return tuple(kind for kind, registry in self.registries.items() if name in registry)

    def without(self, disable: Iterable[str]) -> Catalog:
        """The same catalog without some plugins and what they offer."""
        names = set(disable)
        kept = {
            kind: Registry(kind, {name: entry for name, entry in registry.items() if entry.plugin not in names})
            for kind, registry in self.registries.items()
        }
        plugins = (attrs.evolve(p, state="disabled", reason=DISABLED) if p.name in names else p for p in self.plugins)
        return Catalog(tuple(plugins), MappingProxyType(kept))

    def broken(self) -> tuple[Plugin, ...]:
        """The plugins that could not be loaded."""
        return tuple(plugin for plugin in self.plugins if plugin.state == "broken")

    def locate(self, config: object, kind: str | None = None) -> Entry:
        """The registered component that a config object belongs to; `kind` tells which where there may be several."""
        for registry in self.registries.values() if kind is None else (self[kind],):
            for entry in registry.values():
                if entry.config is type(config):
                    return entry
        raise PluginError(f"{type(config).__name__} is not offered by any installed plugin")


def discover(disable: Iterable[str] = (), points: Iterable[EntryPoint] | None = None) -> Catalog:
    """Load every installed plugin that is not disabled, each in its own try; never fails because one is broken.

    `points` stands in for the installed entry points, in tests.
    """
    disabled = set(disable)
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(hookspecs)
    registries = {kind: Registry(kind) for kind in KINDS}
    found = sorted(entry_points(group=GROUP) if points is None else points, key=_order)
    plugins = []
    seen: dict[str, str] = {}
    for point in found:
        distribution, version = _distribution(point)
        plugin = Plugin(point.name, distribution, version, point.value, "ok")
        started = time.perf_counter()
        if point.name in disabled:
            plugin = attrs.evolve(plugin, state="disabled", reason=DISABLED)
        elif point.name in seen:
            reason = f"the name '{point.name}' is taken by the distribution {seen[point.name]}; uninstall one of them"
            plugin = attrs.evolve(plugin, state="broken", reason=reason)
        else:
            seen[point.name] = distribution
            plugin = _entered(plugin, point, manager, registries)
        plugins.append(attrs.evolve(plugin, milliseconds=1000 * (time.perf_counter() - started)))
    return Catalog(tuple(plugins), MappingProxyType(registries))


def _entered(
    plugin: Plugin, point: EntryPoint, manager: pluggy.PluginManager, registries: Mapping[str, Registry]
) -> Plugin:
    """The plugin with its components registered, or marked as broken with the reason."""
    try:
        components = _load(point, manager)
        _register(components, point.name, registries)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a stranger's module may raise anything, SystemExit too
        return attrs.evolve(plugin, state="broken", reason=_reason(error))
    return attrs.evolve(plugin, components={kind: tuple(names) for kind, names in components.items()})


def _load(point: EntryPoint, manager: pluggy.PluginManager) -> Mapping[str, Mapping[str, type]]:
    """Import a plugin's module and ask it what it offers."""
    module = importlib.import_module(point.module)
    if manager.is_registered(module):
        raise PluginError(f"its module {point.module} is the plugin '{manager.get_name(module)}' already")
    manager.register(module, name=point.name)
    try:
        manager.check_pending()
        others = [other for other in manager.get_plugins() if other is not module]
        offers = manager.subset_hook_caller("ups_kit_components", others)()
        if not manager.get_hookcallers(module):
            raise PluginError("the module has no hook; define ups_kit_components() and mark it with @ups_kit.hookimpl")
    except BaseException:
        manager.unregister(module)
        raise
    if len(offers) != 1 or not isinstance(offers[0], Mapping):
        found = type(offers[0]).__name__ if offers else "None"
        raise PluginError(f"ups_kit_components() returned {found}, expected {{kind: {{name: config class}}}}")
    offer: Mapping[str, Mapping[str, type]] = offers[0]
    return offer


def _register(components: Mapping[str, Mapping[str, type]], plugin: str, registries: Mapping[str, Registry]) -> None:
    """Check the whole offer first, so that a plugin enters whole or not at all."""
    entries = []
    for kind, offered in components.items():
        if kind not in registries:
            raise PluginError(f"there is no kind '{kind}'{did_you_mean(kind, KINDS)} (kinds: {', '.join(KINDS)})")
        if not isinstance(offered, Mapping):
            raise PluginError(f"{kind}: expected {{name: config class}}, got {type(offered).__name__}")
        for name, config in offered.items():
            if not (isinstance(name, str) and NAME.fullmatch(name)):
                raise PluginError(f"{kind} {name!r}: a component's name is lower case, with digits and _")
            if not (isinstance(config, type) and attrs.has(config)):
                raise PluginError(f"{kind} '{name}': a config is an attrs class, got {config!r}")
            if "use" in (attribute.alias for attribute in attrs.fields(config)):
                raise PluginError(f"{kind} '{name}': {config.__name__} has a key 'use', which names the component")
            if not callable(getattr(config, "build", None)):
                raise PluginError(f"{kind} '{name}': {config.__name__} has no build method")
            refuse_unreadable(config)
            taken: Any = registries[kind].get(name)
            if taken is not None:
                raise PluginError(
                    f"two plugins offer the {kind} '{name}': {taken.plugin} and {plugin}; disable one of them"
                )
            entries.append(Entry(kind, name, config, plugin))
    for entry in entries:
        registries[entry.kind].add(entry)


def _order(point: EntryPoint) -> tuple[bool, str, str]:
    """By name, our own distribution first: no stranger takes a built-in's name by coming before it in the alphabet."""
    distribution, _ = _distribution(point)
    return distribution != GROUP, point.name, distribution


def _distribution(point: EntryPoint) -> tuple[str, str]:
    return (point.dist.name, point.dist.version) if point.dist is not None else ("unknown", "?")


def _reason(error: BaseException) -> str:
    text = str(error).strip().split("\n")[0] or "without a message"
    if isinstance(error, PluginError):
        return text
    return f"{type(error).__name__}: {text}"
