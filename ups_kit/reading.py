"""From a recipe file to a frozen Recipe: extends, `--set`, strict reading, and where every value came from."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
from attrs import frozen

from .disabling import no_plugin
from .documents import Document, read_document
from .errors import PluginError, Problem, RecipeError, UsageError
from .folder import RECORD_FORMAT, foreign_format
from .installed import unmet
from .keypaths import KeyPath, render, shown
from .merging import Node, Origin, Setting, grow, leaves, merge, settings_tree
from .plugins import Catalog, discover
from .recipe import AnyRecipe, form_of
from .sketches import sketch
from .strict import attempt
from .tables import unstructure
from .whereabouts import is_broken
from .wording import expected, no_such

RECIPE_VERSIONS = (1,)
LONGEST_CHAIN = 8
DEFAULT = "default"


@frozen
class ReadRecipe:
    """A recipe with its papers.

    `source` is the file as it was named and `text` what stands in it; `origins` says for every key path where its
    value was written: `recipes/x.toml, line 12`, `--set '…'` or `default`; `catalog` holds the plugins it was read
    with.
    """

    recipe: AnyRecipe
    text: str
    origins: Mapping[str, str]
    source: str
    catalog: Catalog

    @property
    def resolved(self) -> dict[str, Any]:
        """What `resolved.json` holds: every value of the recipe, defaults too, and the origin of each."""
        return resolved(self.recipe, self.origins, self.catalog)

    def error(self, problems: Iterable[Problem]) -> RecipeError:
        """Problems that were found after reading as one error that says where the values were written."""
        return RecipeError(self.source, [attrs.evolve(p, origin=p.origin or self._origin(p.path)) for p in problems])

    def _origin(self, path: str) -> str:
        """Where the value at a path was written; lines of the recipe's own file without its name."""
        start = path
        while start and start not in self.origins:
            start = start.rpartition(".")[0]
        return self.origins.get(start, "").removeprefix(f"{self.source}, ")


def resolved(recipe: AnyRecipe, origins: Mapping[str, str] | None, catalog: Catalog) -> dict[str, Any]:
    """Every value of a recipe and its origin, as plain tables; `origins` is None for a recipe made in Python."""
    values = unstructure(recipe, catalog)
    known = origins if origins is not None else {}
    python = DEFAULT if origins is not None else "python"
    return {"values": values, "origins": {render(path): known.get(render(path), python) for path, _ in leaves(values)}}


def read_recipe(path: str | Path, settings: Sequence[str] = (), catalog: Catalog | None = None) -> ReadRecipe:
    """Read a recipe file, with the recipes that it extends, and the settings `KEY=VALUE` laid over it.

    Raises RecipeError with every problem: of the file, of its text, of its keys and values, of the settings.
    """
    label = str(path)
    main, documents = _with_bases(Path(path), label)
    problems: list[Problem] = []
    root = Node({}, Origin(main))
    for document in documents:
        tables = {key: value for key, value in document.tables.items() if key != "extends"}
        root = merge(root, grow(tables, document), problems, main)
    if not root.value and not settings:
        raise RecipeError(label, [Problem("file", _empty(catalog))])
    root = merge(root, settings_tree(settings, Origin(main), problems), problems, main)
    _refuse_version(root, main)
    problems += _references(root, main)
    catalog, found = _catalog(root, catalog, main)
    problems += found
    tables = root.plain()
    recipe, found = read_tables(tables, catalog, lambda key_path: _origin(root, key_path, main))
    problems += found
    if recipe is None or problems:
        raise RecipeError(label, problems)
    return ReadRecipe(recipe, main.text, _origins(recipe, root, catalog), label, catalog)


def read_resolved(path: Path, device: str | None = None, catalog: Catalog | None = None) -> ReadRecipe:
    """Read the `resolved.json` of a run folder: the recipe as it was run, whatever became of the files it extended.

    `device` is where it is to compute now, where that shall not be the same. Raises RecipeError.
    """
    label = str(path)
    try:
        text = path.read_text(encoding="utf-8")
        record = json.loads(text)
        values, origins = dict(record["values"]), dict(record["origins"])
        if device is not None:
            values["run"]["device"], origins["run.device"] = device, f"--device {device}"
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        problem = Problem("file", f"is not the resolved.json of a run: {type(error).__name__}: {error}")
        raise RecipeError(label, [problem]) from error
    if record.get("format", RECORD_FORMAT) != RECORD_FORMAT:
        raise RecipeError(label, [Problem("file", foreign_format(record))])
    disable = _disabled(values)
    known = discover(disable) if catalog is None else catalog.without(disable)
    recipe, problems = read_tables(values, known, lambda key_path: origins.get(render(key_path), ""))
    if recipe is None or problems:
        raise RecipeError(label, problems)
    return ReadRecipe(recipe, text, origins, label, known)


def _disabled(tables: Mapping[str, Any]) -> list[str]:
    """The names in `plugins.disable`, of tables that are still to be read."""
    plugins = tables.get("plugins")
    names = plugins.get("disable") if isinstance(plugins, Mapping) else None
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def read_tables(
    tables: Mapping[str, Any], catalog: Catalog, origin: Callable[[KeyPath], str] = lambda path: ""
) -> tuple[AnyRecipe | None, list[Problem]]:
    """A recipe of either form from plain tables, or None where it cannot be read, and what is wrong with it."""
    form: type[Any] = form_of(tables)
    recipe: AnyRecipe | None
    recipe, problems = attempt(tables, form, catalog, origin)
    return recipe, problems


def read_component(kind: str, name: str, settings: Sequence[str], catalog: Catalog | None = None) -> Any:
    """The config of one component by its name, with settings `KEY=VALUE` of its keys, read as strictly as a recipe.

    Raises UsageError for a name that is not installed, PluginError where its plugin is broken, RecipeError with every
    problem of the settings.
    """
    catalog = discover() if catalog is None else catalog
    if name not in catalog[kind]:
        raise (PluginError if is_broken(catalog, kind, name) else UsageError)(no_such(catalog, kind, name))
    problems: list[Problem] = []
    root = settings_tree(settings, Origin(Setting("")), problems)
    config, found = attempt(
        root.plain(), catalog[kind][name].config, catalog, lambda path: _origin_of_setting(root, path)
    )
    problems += found
    if config is None or problems:
        raise RecipeError(f"{kind} {name}", problems)
    return config


def _origin_of_setting(root: Node, path: KeyPath) -> str:
    node, is_there = root.nearest(path)
    return node.origin.describe() if is_there and path else ""


# ---------------------------------------------------------------------------------------------------------------------
# Extends
# ---------------------------------------------------------------------------------------------------------------------
def _with_bases(path: Path, label: str) -> tuple[Document, list[Document]]:
    """The document, and all it is made of: its bases first, each before what extends it."""
    main = read_document(path, label)
    return main, [*_bases(main, (main,)), main]


def _bases(document: Document, chain: tuple[Document, ...]) -> Iterator[Document]:
    names = document.tables.get("extends", [])
    for name in [names] if isinstance(names, str) else names if isinstance(names, list) else [names]:
        problem = _unusable_base(name)
        path = Path(os.path.normpath(document.folder / name)) if problem is None else document.folder
        label = str(path)
        links = " -> ".join([*(link.label for link in chain), label])
        if problem is None and path.resolve() in [link.path.resolve() for link in chain]:
            problem = f"goes in a circle: {links}"
        if problem is None and len(chain) > LONGEST_CHAIN:
            problem = f"more than {LONGEST_CHAIN} recipes extend each other: {links}"
        if problem is not None:
            where = Origin(document, ("extends",)).describe(chain[0])
            raise RecipeError(chain[0].label, [Problem("extends", problem, where)])
        try:
            base = read_document(path, label)
        except RecipeError as error:
            raise RecipeError(f"{label} (extended by {links.removesuffix(f' -> {label}')})", error.problems) from error
        yield from _bases(base, (*chain, base))
        yield base


def _unusable_base(name: Any) -> str | None:
    """Why a name cannot stand in `extends`."""
    rule = 'name a file relative to this one, for example extends = "base.toml"'
    if not isinstance(name, str):
        return f"{expected(str, name)}; {rule}"
    if "://" in name:
        return f"'{name}' is a URL; {rule}"
    if name.startswith(("/", "~", "\\")) or name[1:2] == ":" or not name or "\0" in name:
        return f"'{shown(name)}' is not a relative path; {rule}"
    return None


# ---------------------------------------------------------------------------------------------------------------------
# Before reading
# ---------------------------------------------------------------------------------------------------------------------
def _refuse_version(root: Node, main: Document) -> None:
    node = root.value.get("recipe_version")
    version = node.value if node is not None else RECIPE_VERSIONS[-1]
    if type(version) is not int or version in RECIPE_VERSIONS:
        return
    advice = "install a newer ups_kit" if version > RECIPE_VERSIONS[-1] else "there were no recipes before version 1"
    known = " to ".join(str(number) for number in sorted({RECIPE_VERSIONS[0], RECIPE_VERSIONS[-1]}))
    message = f"version {version} cannot be read; supported: {known}; {advice}"
    raise RecipeError(main.label, [Problem("recipe_version", message, node.origin.describe(main))])


def _empty(catalog: Catalog | None) -> str:
    lines = sketch(catalog if catalog is not None else discover()).rstrip().replace("\n", "\n    ")
    return f"is empty; the least that a recipe holds is\n\n    {lines}"


def _references(node: Node, main: Document, path: KeyPath = ()) -> Iterator[Problem]:
    if isinstance(node.value, str) and "${" in node.value:
        message = "references like ${...} are not filled in; write the value itself (sizes follow from the data)"
        yield Problem(render(path), message, node.origin.describe(main))
    for key, inner in node.items():
        yield from _references(inner, main, (*path, key))


def _catalog(root: Node, catalog: Catalog | None, main: Document) -> tuple[Catalog, list[Problem]]:
    """The catalog without the plugins that the recipe disables, and what of its table of plugins does not hold."""
    names, where = _strings(root, ("plugins", "disable"), main)
    known = discover(names) if catalog is None else catalog.without(names)
    absent = [name for name in names if name not in [plugin.name for plugin in known.plugins]]
    problems = [Problem("plugins.disable", no_plugin(name, known.plugins), where) for name in absent]
    wanted, where = _strings(root, ("plugins", "require"), main)
    for requirement in wanted:
        try:
            message, legible = unmet(requirement, known.plugins), True
        except ValueError as error:
            message, legible = str(error), False
        problems += [Problem("plugins.require", message, where, in_plugin=legible)] if message else []
    return known, problems


def _strings(root: Node, path: KeyPath, main: Document) -> tuple[list[str], str]:
    """The strings in an array that is still to be read, and where it was written."""
    node, is_there = root.nearest(path)
    elements = node.value if is_there and isinstance(node.value, list) else []
    return [each.value for each in elements if isinstance(each.value, str)], node.origin.describe(main)


# ---------------------------------------------------------------------------------------------------------------------
# Origins
# ---------------------------------------------------------------------------------------------------------------------
def _origin(root: Node, path: KeyPath, main: Document) -> str:
    return root.nearest(path)[0].origin.describe(main)


def _origins(recipe: AnyRecipe, root: Node, catalog: Catalog) -> dict[str, str]:
    """Where each value of a recipe was written; `default` where it was not."""
    found = {}
    for path, _ in leaves(unstructure(recipe, catalog)):
        node, is_there = root.nearest(path)
        written = is_there or not isinstance(node.value, (dict, list))
        found[render(path)] = node.origin.describe() if written else DEFAULT
    return found
