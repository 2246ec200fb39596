"""The pages of the public Python API: every name of the modules that are for others to import."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterable, Iterator
from types import ModuleType

from component_pages import markdown

MODULES = {
    "ups_kit": ("What a plugin, or a script, imports", "Importing it imports no torch."),
    "ups_kit.testing": ("Checks of components, for the tests of plugins", ""),
    "ups_kit.interfaces": ("Contracts: data, parts and config classes", ""),
}
OTHERS = {  # what functions on those pages return or take, and what runs a recipe
    "ups_kit.reading": ("ReadRecipe",),
    "ups_kit.recipe": ("ModelRecipe", "Run", "LatentCache", "PluginsTable"),
    "ups_kit.assemble": ("assemble", "check", "Experiment", "ModelExperiment"),
    "ups_kit.run": ("run", "RunResult"),
    "ups_kit.bundle": ("Bundle", "ModelBundle"),
    "ups_kit.model": ("LatentModel",),
    "ups_kit.data.normalisation": ("Normaliser",),
    "ups_kit.plugins": ("discover", "Catalog", "Plugin"),
    "ups_kit.registry": ("Entry",),
    "ups_kit.errors": ("Problem",),
}


def pages() -> Iterator[tuple[str, str]]:
    """A page for each module, and the one that lists them."""
    elsewhere: set[int] = set()
    for name, (title, text) in MODULES.items():
        yield f"api/{name}.md", _page(importlib.import_module(name), title, text, elsewhere)
    yield "api/others.md", "\n".join(["# Read, loaded and discovered", "", *_directives(_others(), elsewhere)])
    names = [*MODULES, "others"]
    lines = [
        "# Python API",
        "",
        "What is documented here may be imported; other modules may change without a word.",
        "",
    ]
    yield "api/index.md", "\n".join([*lines, "```{toctree}", "", *names, "```", ""])


def _others() -> Iterator[tuple[str, str]]:
    return ((module, name) for module, names in OTHERS.items() for name in names)


def _page(module: ModuleType, title: str, text: str, elsewhere: set[int]) -> str:
    """One module: its docstring and its names."""
    name = module.__name__
    lines = [f"# `{name}`", "", f"{title}. {text}".strip(), "", markdown(inspect.getdoc(module) or ""), ""]
    lines += ["```{eval-rst}", f".. py:module:: {name}", "```", ""]
    return "\n".join([*lines, *_directives(((name, member) for member in module.__all__), elsewhere)])


def _directives(names: Iterable[tuple[str, str]], elsewhere: set[int]) -> list[str]:
    """Autodoc of names that are on no earlier page."""
    lines = ["```{eval-rst}"]
    for module, member in names:
        value = getattr(importlib.import_module(module), member)
        if id(value) not in elsewhere and (inspect.isclass(value) or inspect.isroutine(value)):
            elsewhere.add(id(value))
            lines += _directive(module, member, value)
    return [*lines, "```", ""]


def _directive(module: str, member: str, value: object) -> list[str]:
    if inspect.isroutine(value):
        return [f".. autofunction:: {module}.{member}", ""]
    kind = "exception" if inspect.isclass(value) and issubclass(value, BaseException) else "class"
    return [f".. auto{kind}:: {module}.{member}", "   :members:", "   :undoc-members:", ""]
