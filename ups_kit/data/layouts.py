"""Which dataset reads a file: every installed one is shown the file's headers, and says what its table would be."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import frozen

from ..errors import DataError, PluginError
from .guard import MEMORY, SECONDS, Sign, guarded

if TYPE_CHECKING:
    from ..interfaces import Described, FieldSpec
    from ..plugins import Catalog
    from .tree import FileTree

# Splits that are tried in turn where a layout's own do not fit: validation and test trajectories.
SPLITS = ((50, 100), (10, 20), (4, 8), (2, 2), (1, 1))  # validation and test, the usual ones first


@frozen
class Layout:
    """A dataset that recognises a file: its name, its table, and what the file is through it."""

    use: str
    table: Mapping[str, Any]  # of the recipe, without `use`
    fields: Mapping[str, Any]  # what `describe` says, in words; empty where it refuses the file
    problems: tuple[str, ...] = ()

    @property
    def toml(self) -> str:
        """The table that reads the file, to copy into a recipe."""
        from ..keys import toml

        lines = ["[dataset]", f"use = {toml(self.use)}", *(f"{key} = {toml(v)}" for key, v in self.table.items())]
        return "\n".join(lines)


def guess_layouts(path: Path, seconds: float = SECONDS, memory: int = MEMORY) -> tuple[Layout, ...]:
    """The datasets that recognise a file, asked in a child process. Raises DataError."""
    found = guarded("layouts", path, {"path": str(path)}, seconds, memory)
    return tuple(Layout(**{**layout, "problems": tuple(layout["problems"])}) for layout in found)


# ---------------------------------------------------------------------------------------------------------------------
# In the child
# ---------------------------------------------------------------------------------------------------------------------
def layouts_task(sign: Sign, path: str) -> list[dict[str, Any]]:
    """What every installed dataset has to say of the file."""
    from ..plugins import discover
    from .headers import read_tree

    tree = read_tree(Path(path), sign)
    catalog = discover()
    return [through(catalog, use, tree, keys) for use, keys in recognised(tree, catalog)]


def recognised(tree: FileTree, catalog: Catalog) -> Sequence[tuple[str, Mapping[str, Any]]]:
    """The datasets that know such a file, with the keys of their tables. Raises PluginError where one fails."""
    from ..interfaces import Recognises

    found = []
    for name in catalog["dataset"]:
        config: Any = catalog["dataset"][name].config
        if not isinstance(config, Recognises):
            continue
        try:
            keys = config.recognise(tree)
        except Exception as error:
            raise PluginError(
                f"the dataset '{name}' failed to look at {tree.path}: {type(error).__name__}: {error}; this is a fault "
                f"of its plugin {catalog['dataset'][name].plugin}"
            ) from error
        if keys is not None:
            found.append((name, keys))
    return found


def through(catalog: Catalog, use: str, tree: FileTree, keys: Mapping[str, Any]) -> dict[str, Any]:
    table: dict[str, Any] = {"path": str(tree.path), **json.loads(json.dumps(keys))}
    config, problems = config_of(catalog, use, table)
    fields: Mapping[str, Any] = {}
    if config is not None and not problems:
        try:
            spec = config.describe()
        except DataError as error:
            problems = [str(error)]
        else:
            fields = in_words(spec)
            table = _with_splits(catalog, use, table, spec)
            problems = list(check_problems(config_of(catalog, use, table)[0], spec))
    return {"use": use, "table": table, "fields": fields, "problems": problems}


def config_of(catalog: Catalog, use: str, table: Mapping[str, Any]) -> tuple[Any, list[str]]:
    from ..strict import attempt

    config, problems = attempt(table, catalog["dataset"][use].config, catalog)
    return config, [str(problem) for problem in problems]


def _with_splits(catalog: Catalog, use: str, table: Mapping[str, Any], spec: FieldSpec | Described) -> dict[str, Any]:
    """The table with splits that leave as many trajectories to train on, the usual ones where they do."""
    from ..keys import keys_of

    given = dict(table)
    if not {"validation", "test"} <= set(keys_of(catalog["dataset"][use].config)):
        return given
    own, _ = config_of(catalog, use, given)
    if own is not None and own.validation is None and own.test is None and not check_problems(own, spec):
        return given  # the files say it
    for validation, test in SPLITS:
        splits = {"validation": validation, "test": test}
        config, problems = config_of(catalog, use, {**given, **splits, "train": validation + test})
        if config is not None and not problems and not list(check_problems(config, spec)):
            return given if (validation, test) == SPLITS[0] else {**given, **splits}
    return given


def check_problems(config: Any, spec: FieldSpec | Described) -> list[str]:
    """What a dataset's own `check` says, by key; of another family than fields in space its `check_data`."""
    from ..interfaces import Checks, ChecksDescription, FieldSpec, LatentSpec

    found: Iterable[tuple[str, str]] = ()
    if not isinstance(spec, FieldSpec):
        found = config.check_data(spec) if isinstance(config, ChecksDescription) else ()
    elif isinstance(config, Checks):
        found = config.check(spec, LatentSpec(width=64))
    return [f"dataset.{key}: {message}" if key else message for key, message in found]


def in_words(spec: FieldSpec | Described) -> dict[str, Any]:
    """What the data are, as JSON holds it; of another family than fields in space also in `lines` for people."""
    from ..interfaces import FieldSpec

    if not isinstance(spec, FieldSpec):
        return {**spec.to_dict(), "lines": [line.strip() for line in spec.lines()]}
    return {
        "targets": [f"{f.name} [{f.channels}]" if f.channels > 1 else f.name for f in spec.targets],
        "statics": [f"{f.name} [{f.channels}]" if f.channels > 1 else f.name for f in spec.statics],
        "layout": spec.layout,
        "grid": None if spec.grid is None else list(spec.grid),
        "points": None if spec.counts is None else list(spec.counts),
        "domain": [list(ends) for ends in spec.domain],
        "periodic": list(spec.periodic),
        "time_step": spec.dt,
        "steady": spec.history == 0,
        "conditions": list(spec.conditions),
    }
