"""From installed entry points to a catalog of components.

The walk over entry points is our own: pluggy's loader stops at the first broken plugin, and lets a stranger's plugin
that has the name of a built-in replace it silently.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.metadata import EntryPoint
from types import MappingProxyType

import attrs
import pluggy
from attrs import frozen

from . import hookspecs
from .disabling import Switch, by_recipe, switched_off
from .errors import PluginError, did_you_mean
from .hookspecs import API
from .installed import API_GROUP, GROUP, UNKNOWN, Plugin, installed
from .interfaces import KINDS
from .loading import load
from .registry import Entry, Registry

__all__ = ["API", "API_GROUP", "GROUP", "Catalog", "Plugin", "discover", "installed"]


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
        plugins = (_disabled(p, by_recipe(p.name)) if p.name in names else p for p in self.plugins)
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

    `disable` are the names that a recipe leaves out; `--no-plugin` and the environment may leave out others. `points`
    stands in for the installed entry points, in tests.
    """
    found = installed(points)
    switches = switched_off(found, disable)
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    registries = {kind: Registry(kind) for kind in KINDS}
    plugins = []
    seen: dict[str, Plugin] = {}
    for plugin in found:
        if plugin.name in switches:
            plugin = _disabled(plugin, switches[plugin.name])
        elif plugin.name in seen:
            plugin = _named_twice(plugin, seen[plugin.name])
        elif plugin.state == "ok":
            plugin = load(plugin, manager, registries)
        plugins.append(plugin)
        seen.setdefault(plugin.name, plugin)
    return Catalog(tuple(plugins), MappingProxyType(registries))


def _disabled(plugin: Plugin, switch: Switch) -> Plugin:
    return attrs.evolve(plugin, state="disabled", reason=switch.reason, mend=switch.mend)


def _named_twice(plugin: Plugin, first: Plugin) -> Plugin:
    if plugin.distribution == first.distribution != UNKNOWN:
        return plugin.broken(f"its distribution has two plugins of the name '{plugin.name}'", "tell its authors")
    reason = f"the name '{plugin.name}' is taken by the distribution {first.source}; uninstall one of them"
    return plugin.broken(reason, f"pip uninstall {plugin.distribution}, or pip uninstall {first.distribution}")
