"""One plugin, from its module to its components in the registries, or to what is wrong with it and what to do about it.

pluggy validates and calls the hook. A stranger's module may do anything while it is imported: raise, exit, or hang.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import Any

import attrs
import pluggy

from .console import notice, printable
from .disabling import OPTION
from .errors import PluginError, did_you_mean, first_line
from .installed import UNKNOWN, Plugin
from .interfaces import KINDS
from .keys import refuse_unreadable
from .registry import Entry, Registry

NAME = re.compile(r"[a-z][a-z0-9_]*")
PATIENCE = 10.0  # seconds after which a plugin that is still being imported is named

Offer = Mapping[str, Mapping[str, type]]


def load(plugin: Plugin, manager: pluggy.PluginManager, registries: Mapping[str, Registry]) -> Plugin:
    """Import a plugin and register its components: the plugin as it then is, broken where that failed."""
    started = time.perf_counter()
    try:
        with _named_when_slow(plugin), redirect_stdout(sys.stderr), _in_this_process():
            offer = _offer(plugin, manager)
        _register(offer, plugin, registries)
        plugin = attrs.evolve(plugin, components={kind: tuple(names) for kind, names in offer.items()})
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a stranger's module may raise anything, SystemExit too
        plugin = plugin.broken(_reason(plugin, error), _mend(plugin, error))
    return attrs.evolve(plugin, milliseconds=1000 * (time.perf_counter() - started))


@contextmanager
def _named_when_slow(plugin: Plugin) -> Iterator[None]:
    """Say who it is that everything waits for, while it does."""
    text = (
        f"the plugin '{plugin.name}' ({plugin.source}) has been importing for {PATIENCE:g} s; if it hangs, stop with "
        f"Ctrl-C, and leave it out: upskit {OPTION} {plugin.name} ..."
    )
    timer = threading.Timer(PATIENCE, notice, [f"warning: {text}"])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def _in_this_process() -> Iterator[None]:
    """A plugin that forks while it is imported makes no second one of what is running: the child ends."""
    own = os.getpid()
    try:
        yield
    finally:
        if os.getpid() != own:
            os._exit(0)


def _offer(plugin: Plugin, manager: pluggy.PluginManager) -> Offer:
    """Import a plugin's module and ask it what it offers."""
    module = importlib.import_module(plugin.module)
    if manager.is_registered(module):
        raise PluginError(f"its module {plugin.module} is the plugin '{manager.get_name(module)}' already")
    manager.register(module, name=plugin.name)
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
    offer: Offer = offers[0]
    return offer


def _register(offer: Offer, plugin: Plugin, registries: Mapping[str, Registry]) -> None:
    """Check the whole offer first, so that a plugin enters whole or not at all."""
    entries = []
    for kind, offered in offer.items():
        if kind not in registries:
            raise PluginError(f"there is no kind '{kind}'{did_you_mean(str(kind), KINDS)} (kinds: {', '.join(KINDS)})")
        if not isinstance(offered, Mapping):
            raise PluginError(f"{kind}: expected {{name: config class}}, got {type(offered).__name__}")
        for name, config in offered.items():
            _refuse(kind, name, config)
            taken: Any = registries[kind].get(name)
            if taken is not None:
                raise PluginError(
                    f"two plugins offer the {kind} '{name}': {taken.plugin} and {plugin.name}; disable one of them",
                    f"{OPTION} {taken.plugin} ({taken.source}), or {OPTION} {plugin.name} ({plugin.source})",
                )
            entries.append(Entry(kind, name, config, plugin.name, plugin.source))
    for entry in entries:
        registries[entry.kind].add(entry)


def _refuse(kind: str, name: Any, config: Any) -> None:
    """Raise PluginError where what a plugin offers is no component."""
    if not (isinstance(name, str) and NAME.fullmatch(name)):
        raise PluginError(f"{kind} {name!r}: a component's name is lower case, with digits and _")
    if not (isinstance(config, type) and attrs.has(config)):
        raise PluginError(f"{kind} '{name}': a config is an attrs class, got {config!r}")
    if "use" in (attribute.alias for attribute in attrs.fields(config)):
        raise PluginError(f"{kind} '{name}': {config.__name__} has a key 'use', which names the component")
    if not callable(getattr(config, "build", None)):
        raise PluginError(f"{kind} '{name}': {config.__name__} has no build method")
    refuse_unreadable(config)


# ---------------------------------------------------------------------------------------------------------------------
# What went wrong
# ---------------------------------------------------------------------------------------------------------------------
def _reason(plugin: Plugin, error: BaseException) -> str:
    """In one line; of an error that is not ours with the line of the plugin that it came through."""
    if isinstance(error, pluggy.PluginValidationError):
        return printable("; ".join(str(error).splitlines()))
    text = printable(first_line(error))
    if isinstance(error, PluginError):
        return text
    top = plugin.module.partition(".")[0]
    own = [
        f"{name}, line {line}"
        for frame, line in traceback.walk_tb(error.__traceback__)
        if (name := str(frame.f_globals.get("__name__"))).partition(".")[0] == top
    ]
    return f"{type(error).__name__}: {text}{f' ({own[-1]})' if own else ''}"


def _mend(plugin: Plugin, error: BaseException) -> str:
    """What to do about a plugin that could not be loaded."""
    if isinstance(error, PluginError) and error.mend:
        return error.mend
    if plugin.distribution == UNKNOWN:
        return "mend it, or take it off"
    if isinstance(error, ModuleNotFoundError):
        return f"pip install --force-reinstall {plugin.distribution}, with all that it needs"
    if isinstance(error, ImportError):  # a name that one of the two no longer has, or not yet
        return f"pip install --upgrade {plugin.distribution} ups_kit"
    return f"pip install --upgrade {plugin.distribution}; where that does not help, tell its authors"
