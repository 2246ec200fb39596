"""A new package on disk: written beside and renamed, whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

from attrs import frozen

from ..errors import StorageError
from .naming import Names
from .rendering import Package


@frozen
class Written:
    """A package that was written: its folder, and the commands that come next in there."""

    folder: Path
    commands: tuple[str, ...]


def write_package(names: Names, kinds: Sequence[str], out: Path) -> Written:
    """Write a package that offers a component of each kind into `out`.

    Raises StorageError where its folder is there already, or cannot be written; nothing half-written is left.
    """
    package, folder = Package.of(names, kinds), out / names.distribution
    if folder.exists() or folder.is_symlink():
        raise StorageError(f"{folder}: is there already, and nothing is overwritten; choose another NAME or --out")
    aside = out / f".{names.distribution}.{uuid4().hex}"
    try:
        for path, text in package.files().items():
            target = aside / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
        aside.rename(folder)
    except OSError as error:
        raise StorageError(f"{folder}: could not be written: {error.strerror}; choose another --out") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return Written(folder, ('pip install -e ".[dev]"', "pytest", *package.runs))
