"""Which plugins are left out, and by whom: a recipe, an option, the environment."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from attrs import frozen

from .console import notice
from .errors import UsageError, did_you_mean
from .installed import GROUP, Plugin, installed
from .keypaths import shown

DISABLE = "UPSKIT_DISABLE_PLUGINS"  # names between commas
ONLY = "UPSKIT_PLUGINS"  # the only ones, of other distributions than our own, that are imported
OPTION = "--no-plugin"
_BY_OPTION: ContextVar[frozenset[str]] = ContextVar("by_option", default=frozenset())  # who it was, for messages alone


@frozen
class Switch:
    """Why a plugin is left out, and how to have it back."""

    reason: str
    mend: str


def by_recipe(name: str) -> Switch:
    """That a recipe leaves a plugin out."""
    return Switch("disabled by plugins.disable of the recipe", f'take "{name}" out of plugins.disable')


def switched_off(plugins: Iterable[Plugin], disable: Iterable[str]) -> Mapping[str, Switch]:
    """The plugins that are left out, by name: those in a recipe's `disable`, by `--no-plugin`, or by the environment.

    Names in the environment that are no plugin's are told as warnings.
    """
    known = {plugin.name: plugin for plugin in plugins}
    found: dict[str, Switch] = {}
    for variable in (DISABLE, ONLY):
        for name in _names(variable):
            if name not in known:
                notice(f"warning: {variable}: {no_plugin(name, known.values())}")
    if ONLY in os.environ:
        allowed = _names(ONLY)
        strangers = [plugin.name for plugin in known.values() if plugin.distribution != GROUP]
        found |= {
            name: Switch(f"not among those of {ONLY}", f"add {name} to {ONLY}")
            for name in strangers
            if name not in allowed
        }
    for name in _names(DISABLE):
        by_option = name in _BY_OPTION.get()
        source = OPTION if by_option else DISABLE
        found[name] = Switch(f"disabled by {source}", f"leave out {OPTION} {name}" if by_option else _out_of(name))
    return found | {name: by_recipe(name) for name in disable}


@contextmanager
def leaving_out(names: Iterable[str]) -> Iterator[None]:
    """Leave plugins out in this process and those that it starts. Raises UsageError for a name that is no plugin's."""
    plugins = installed()
    for name in names:
        if name not in [plugin.name for plugin in plugins]:
            raise UsageError(f"{OPTION} {name}: {no_plugin(name, plugins)}")
    before = os.environ.get(DISABLE)
    token = _BY_OPTION.set(_BY_OPTION.get() | frozenset(names))
    os.environ[DISABLE] = ",".join(dict.fromkeys([*_names(DISABLE), *names]))
    try:
        yield
    finally:
        _BY_OPTION.reset(token)
        if before is None:
            os.environ.pop(DISABLE, None)
        else:
            os.environ[DISABLE] = before


def no_plugin(name: str, plugins: Iterable[Plugin]) -> str:
    """That no plugin is called so, and which is."""
    plugins = list(plugins)
    known = [plugin.name for plugin in plugins]
    its = [plugin.name for plugin in plugins if plugin.distribution.lower().replace("_", "-") == name.replace("_", "-")]
    meant = (
        f"; the plugins of that distribution are called {', '.join(its)}" if its else did_you_mean(name[:100], known)
    )
    return f"no plugin is called '{shown(name)}'{meant} (installed: {', '.join(dict.fromkeys(known)) or 'none'})"


def _names(variable: str) -> list[str]:
    return [name for name in map(str.strip, os.environ.get(variable, "").split(",")) if name]


def _out_of(name: str) -> str:
    return f"take {name} out of {DISABLE}"
