"""A data file that a recipe can make for itself: made once, whole or not at all."""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import h5py

from ..console import counting
from ..errors import DataError, StorageError
from ..folder import sync_folder
from ..interfaces import SimulatorConfig

ATTRIBUTE = "simulated_by"  # of the file: the simulator's config as JSON
FREE_KEYS = ("device",)  # where something was computed is no property of the data


def make_if_missing(path: Path, simulator: SimulatorConfig) -> None:
    """Let a simulator write `path` where there is no file, beside it first and then by renaming.

    Two runs that ask for one file at once make it once: the second waits. Raises StorageError where it cannot be
    written.
    """
    if path.exists():
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _lock(path.with_name(f".{path.name}.lock")):
            if not path.exists():
                _make(path, simulator)
    except (OSError, RuntimeError) as error:  # HDF5 closes a file that it could not write with a RuntimeError
        if not isinstance(error, OSError) and not str(error).startswith(("Unable to", "Can't")):
            raise
        raise StorageError(f"{path}: could not be made: {_reason(error)}; choose another dataset.path") from error


def _reason(error: Exception) -> str:
    """The system's words for a failure, which HDF5 wraps in many of its own."""
    said = re.search(r"error message = '([^']*)'", str(error))
    return said[1] if said else str(getattr(error, "strerror", None) or error)


def _make(path: Path, simulator: SimulatorConfig) -> None:
    part = path.with_name(f".{path.name}.part")
    try:
        with counting(f"making {path.name}") as report:
            simulator.build().write(part, report)
        with h5py.File(part, "r+") as file:
            file.attrs[ATTRIBUTE] = json.dumps(_content(simulator))
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
        sync_folder(path.parent)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
        path.unlink(missing_ok=True)  # who waits on it sees next that the file is there


def check_made_by(path: Path, attributes: Mapping[str, Any], simulator: SimulatorConfig) -> None:
    """Raise DataError where a simulated file was made with other settings than the recipe's; other files pass."""
    text = attributes.get(ATTRIBUTE)
    if not isinstance(text, str):
        return
    try:
        made, wanted = dict(json.loads(text)), _content(simulator)
    except (ValueError, TypeError):
        return  # another program's attribute of this name
    differing = [key for key in sorted(made.keys() | wanted.keys()) if made.get(key) != wanted.get(key)]
    if differing:
        listed = ", ".join(f"{key} = {made.get(key)}, and the recipe says {wanted.get(key)}" for key in differing)
        raise DataError(
            f"{path}: was made with {listed} in dataset.simulate; to have it made as the recipe says, remove the file "
            'or give another dataset.path; to use it as it is, set dataset.simulate = "none"',
            key="simulate" if "simulator" in differing else f"simulate.{differing[0]}",
        )


def _content(simulator: SimulatorConfig) -> dict[str, Any]:
    """The config as JSON reads it back."""
    config: Any = simulator
    values = {"simulator": type(config).__qualname__, **attrs.asdict(config)}
    values = {key: value for key, value in values.items() if key not in FREE_KEYS}
    content: dict[str, Any] = json.loads(json.dumps(values, default=str))
    return content
