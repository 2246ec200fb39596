"""`upskit import-config`: a configuration read, translated, checked against the data, and written."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import frozen

from ..errors import DataError, Problem, StorageError, UsageError
from ..folder import write_text
from ..interfaces import FieldSpec
from ..keys import keys_of
from ..plugins import Catalog
from ..strict import attempt
from .data_part import HELD_OUT
from .losses_part import WEIGHTS
from .settings import Settings
from .translation import translate
from .writing import recipe_text
from .yaml_files import read_yaml

SPLITS = re.compile(r"dataset\.(tasks\.\w+\.)?(train|validation|test)")  # keys that ask for too many trajectories
Check = Callable[[Mapping[str, Any]], Sequence[Problem]]


@frozen
class Imported:
    """A recipe that has been made of a configuration: where it is to lie, its text, and what is wrong with it."""

    out: Path
    text: str
    settings: Settings
    problems: tuple[Problem, ...]

    @property
    def fits(self) -> bool:
        """Whether the recipe is right; its data may still be missing."""
        return all(problem.in_data for problem in self.problems)


def import_config(source: Path, out: Path, catalog: Catalog, check: Check) -> Imported:
    """Translate a configuration to a recipe that will lie at `out`; nothing is written.

    `check` says what is wrong with a recipe's tables, paths in which are absolute. Losses that the data refuse are left
    out, and why is told. Raises RecipeError with every problem of the file.
    """
    without: dict[str, str] = {}
    held_out = list(HELD_OUT)
    tree = read_yaml(source)
    while True:
        settings = Settings.of(tree)
        trackers = {name: set(keys_of(entry.config)) for name, entry in catalog["tracker"].items()}
        tables = translate(settings, out.parent, lambda table: _grid_of(table, catalog), without, trackers, held_out[0])
        problems = check(absolute(tables, out.parent))
        refused = {
            loss: f"the data refuse it: {problem.message}"
            for problem in reversed(problems)
            if (loss := _optional_loss(problem.path)) is not None and loss not in without
        }
        if len(held_out) > 1 and any(SPLITS.fullmatch(problem.path) for problem in problems):
            held_out.pop(0)
            continue
        if not refused:
            return Imported(out, recipe_text(tables, settings), settings, tuple(problems))
        without |= refused


def _optional_loss(path: str) -> str | None:
    """The loss that a problem is of, where a recipe can do without it."""
    parts = path.split(".")
    if len(parts) >= 4 and parts[0] == "stages" and parts[2] == "losses" and parts[3] in WEIGHTS:
        return parts[3]
    return None


def absolute(tables: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """A recipe's tables, the paths in which start from a folder, with paths that do not."""
    moved = {
        name: _moved(table, folder) if name in ("dataset", "latent_cache") else table for name, table in tables.items()
    }
    return tomllib.loads(_round_trip(moved))


def _round_trip(tables: Mapping[str, Any]) -> str:
    """Plain values as TOML has them."""
    import tomlkit

    return tomlkit.dumps(tables)


def _moved(table: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in table.items():
        if isinstance(value, Mapping):
            found[name] = _moved(value, folder)
        elif name in ("path", "folder") and "://" not in value:
            found[name] = os.path.normpath(folder.absolute() / value)
        else:
            found[name] = value
    return found


def _grid_of(table: Mapping[str, Any], catalog: Catalog) -> tuple[int, ...] | None:
    """The points along each axis of data that are there, from their headers; None where they cannot be read."""
    found = catalog["dataset"].get(table["use"])
    if found is None:
        return None
    config, _ = attempt({key: value for key, value in table.items() if key != "use"}, found.config, catalog)
    try:
        fields = None if config is None else config.describe()
    except DataError:
        return None
    return fields.grid if isinstance(fields, FieldSpec) else None


def write(imported: Imported, force: bool) -> None:
    """Write a recipe whole. Raises UsageError where something is there, StorageError where it cannot be written."""
    out = imported.out
    refuse_existing(out, force)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{out.parent}: the folder cannot be made: {error.strerror}") from error
    write_text(out, imported.text)


def refuse_existing(out: Path, force: bool) -> None:
    """Raise UsageError where the recipe would be written over something."""
    if out.is_dir():
        raise UsageError(f"--out {out}: is a directory; nearest: --out {out / 'recipe.toml'}")
    if (out.exists() or out.is_symlink()) and not force:
        raise UsageError(f"--out {out}: is there already; --force writes over it")
