"""Files that the simulators of a catalog make in their tiny version: made once in a process, and removed at its end."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from ..data.headers import read_tree
from ..data.layouts import recognised
from ..data.making import make
from ..errors import UpsKitError
from ..interfaces import FIELDS, NamesEndings, family_of
from ..keys import keys_of
from ..plugins import Catalog
from ..registry import Entry
from .examples import overlaid, read, tiny_settings
from .report import Broken

SPLIT_KEYS = {"validation": 2, "test": 2}  # of a data set, where it has them: tiny files hold few trajectories


@cache
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="ups_kit_tiny_files_"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


_MADE: dict[str, Path] = {}


def made(config: Any) -> Path:
    """The file of a simulator's config."""
    key = f"{type(config).__module__}.{config!r}"
    if key not in _MADE:
        path = _folder() / str(len(_MADE)) / f"tiny{_ending(config)}"
        path.parent.mkdir()
        make(path, config)
        _MADE[key] = path
    return _MADE[key]


def _ending(config: Any) -> str:
    """As `upskit data make` has it: grids go to HDF5, points to Zarr stores, others where they say."""
    if isinstance(config, NamesEndings):
        return str(config.endings[0])
    return ".h5" if config.describe().grid is not None else ".zarr"


def readers(path: Path, catalog: Catalog) -> Iterator[tuple[Entry, dict[str, Any]]]:
    """The data sets that recognise a file, and the table with which each reads it."""
    for name, keys in recognised(read_tree(path), catalog):
        entry = catalog["dataset"][name]
        known = keys_of(entry.config)
        splits = {key: count for key, count in SPLIT_KEYS.items() if key in known}
        yield entry, {**splits, **keys, "path": str(path)}


def table_for(entry: Entry, catalog: Catalog, settings: dict[str, Any]) -> dict[str, Any] | None:
    """A table with which a data set reads a file of some simulator that has a tiny version; None where there is none.

    Simulators of its own plugin come first.
    """
    simulators = sorted(catalog["simulator"].values(), key=lambda each: (each.plugin != entry.plugin, each.name))
    for simulator in simulators:
        if family_of(simulator.config) != FIELDS or not tiny_settings(simulator.config):
            continue
        try:
            path = made(read("simulator", simulator.name, tiny_settings(simulator.config), catalog))
        except (UpsKitError, Broken):
            continue  # a fault of the simulator, which its own check tells
        for reader, keys in readers(path, catalog):
            if reader.config is entry.config:
                return overlaid(keys, settings)
    return None
