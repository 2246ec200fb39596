"""Whose fault it is: what goes wrong in the code of a plugin is told as an error of that plugin, without a traceback.

The plugin is that of the innermost line of code that is of a stranger's plugin, or of a built-in one where there is
none; where no plugin's code was reached, that of the class which lacks an attribute, or takes other arguments. Memory
and disks that are full are nobody's fault, and stay what they are.
"""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs

from .errors import DEBUG, PluginError, StorageError, UpsKitError, first_line
from .installed import GROUP, Plugin
from .plugins import Catalog
from .recipe import AnyRecipe, ModelRecipe

TRACEBACK = "traceback.txt"  # in a run folder: that of a plugin's error


@contextmanager
def blaming(catalog: Catalog, what: str = "", folder: Path | None = None) -> Iterator[None]:
    """Raise what goes wrong in a plugin as a PluginError that names it, `what` in front; its traceback in `folder`."""
    try:
        yield
    except UpsKitError:
        raise
    except (Exception, SystemExit) as error:
        told = blamed(error, catalog.plugins, what, folder)
        if told is None:
            raise
        raise told from error


def blamed(
    error: BaseException, plugins: Iterable[Plugin], what: str = "", folder: Path | None = None
) -> PluginError | None:
    """What went wrong in a plugin as an error that names it; None where it is no plugin's fault."""
    found = None if _is_nobodys(error) else _culprit(error, list(plugins))
    if found is None:
        return None
    plugin, where = found
    text = first_line(error)
    return PluginError(
        f"{f'{what}: ' if what else ''}the plugin '{plugin.name}' ({plugin.source}) failed: {type(error).__name__}: "
        f"{text} ({where}); a fault of the plugin: tell its authors, or do without it; {_papers(error, folder)}"
    )


def _culprit(error: BaseException, plugins: list[Plugin]) -> tuple[Plugin, str] | None:
    """The plugin in whose code an error came about, and the line of it."""
    found = []
    for frame, line in traceback.walk_tb(error.__traceback__):
        module = str(frame.f_globals.get("__name__"))
        plugin = _plugin_of(module, plugins)
        if plugin is not None:
            found.append((plugin, f"{module}, line {line}"))
    found = found or [(plugin, name) for name in _classes(error) if (plugin := _plugin_of(name, plugins)) is not None]
    strangers = [each for each in found if each[0].distribution != GROUP]
    return next(iter((strangers or found)[-1:]), None)


def _classes(error: BaseException) -> Iterator[str]:
    """The classes that an error is about, with their modules: one without an attribute, or called as it cannot be."""
    if isinstance(error, AttributeError) and error.obj is not None:
        cls = error.obj if isinstance(error.obj, type) else type(error.obj)
        yield f"{cls.__module__}.{cls.__qualname__}"
    called = re.match(r"(\w+)\.\w+\(\) ", str(error)) if isinstance(error, TypeError) else None
    for name, module in list(sys.modules.items()) if called is not None else ():
        named = getattr(module, "__dict__", {}).get(called[1]) if called is not None else None
        if isinstance(named, type) and named.__module__ == name:
            yield f"{name}.{named.__qualname__}"


def _plugin_of(module: str, plugins: Iterable[Plugin]) -> Plugin | None:
    """The plugin that a module belongs to: the one whose own module it is or lies below; else one of that package."""
    below = [plugin for plugin in plugins if plugin.module and f"{module}.".startswith(f"{plugin.module}.")]
    if below:
        return max(below, key=lambda plugin: len(plugin.module))
    top = module.partition(".")[0]
    return next((each for each in plugins if each.distribution != GROUP and each.module.partition(".")[0] == top), None)


def _is_nobodys(error: BaseException) -> bool:
    """Memory that is short, and disks: what no plugin could help."""
    if isinstance(error, RuntimeError) and "torch" in sys.modules:
        from .fit.precision import is_memory

        return is_memory(error)
    return isinstance(error, (MemoryError, OSError))


def _papers(error: BaseException, folder: Path | None) -> str:
    """Where the traceback is to be found."""
    if folder is not None:
        from .folder import write_text

        path = folder / TRACEBACK
        try:
            write_text(path, "".join(traceback.format_exception(error)))
        except (OSError, StorageError):  # what went wrong is told all the same
            pass
        else:
            return f"the traceback is in {path}"
    return f"{DEBUG}=1 shows the traceback"


# ---------------------------------------------------------------------------------------------------------------------
# What a checkpoint could not hold
# ---------------------------------------------------------------------------------------------------------------------
@contextmanager
def naming_keepers(recipe: AnyRecipe, stage: object, catalog: Catalog) -> Iterator[None]:
    """Name the plugin of whatever keeps something, in a stage's checkpoint, that could not be loaded safely."""
    try:
        yield
    except PluginError as error:
        config = _keeper(recipe, stage, error.key.split(".")) if error.key else None
        if config is None:
            raise
        entry = catalog.locate(config)
        where = f"{entry.kind} '{entry.name}' of the plugin '{entry.plugin}' ({entry.source})"
        raise PluginError(f"{error}; it is kept by the {where}, a fault of that plugin") from error


def _keeper(recipe: AnyRecipe, stage: object, keys: list[str]) -> object | None:
    """The config of the component that a key of a training's state belongs to."""
    head, *rest = keys
    if head in ("model", "average"):
        rest = rest[1:] if rest[:1] == ["module"] else rest
        if isinstance(recipe, ModelRecipe):
            return recipe.model
        if rest[:1] == ["added"]:
            return next((each for each in recipe.stages if each.name == rest[1]), None)
        return getattr(recipe, rest[0], None) if rest[:1] and rest[0] in ("encoder", "operator", "decoder") else None
    value: Any = stage
    found = None
    for key in rest if head == "extra" else [head]:
        value = value.get(key) if isinstance(value, Mapping) else getattr(value, key, None)
        found = value if attrs.has(type(value)) else found
    return found
