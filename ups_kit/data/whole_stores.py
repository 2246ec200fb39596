"""Stores, which are folders, whole or not at all: written beside, brought to the disk, and renamed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from glob import escape
from pathlib import Path

from ..errors import StorageError
from ..folder import sync_folder


def write_store(path: Path, fill: Callable[[Path], None]) -> None:
    """Have `fill` write a store beside `path`, and rename it.

    Raises StorageError where something is at `path` already, or the disk does not take it.
    """
    if path.exists() or path.is_symlink():
        raise StorageError(f"{path}: exists; a store is written to a path where nothing is")
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fill(part)
        sync_store(part)
        part.rename(path)
        sync_folder(path.parent)
    except OSError as error:
        raise StorageError(f"{path}: could not be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def sync_store(folder: Path) -> None:
    """Have the disk hold all files of a store."""
    for file in (each for each in folder.rglob("*") if each.is_file()):
        with file.open("rb") as handle:
            os.fsync(handle.fileno())


def leftovers(path: Path) -> Iterator[Path]:
    """What writers of a store at `path` that were killed have left beside it."""
    yield from path.parent.glob(f".{escape(path.name)}.*.part")
