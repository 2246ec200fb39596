"""From a recipe's paths to files: patterns filled in, what is not there told, and what a simulator is to make."""

from __future__ import annotations

from glob import has_magic
from pathlib import Path

from ..addresses import url_of
from ..errors import DataError
from ..interfaces import SimulatorConfig


def found(path: Path | tuple[Path, ...], key: str) -> list[Path]:
    """The files that a path, several, or a pattern stand for, absolute. Raises DataError where there are none."""
    files: list[Path] = []
    for entry in path if isinstance(path, tuple) else (path,):
        if url_of(entry) is not None:
            files.append(entry)
            continue
        pattern = str(entry.absolute())
        if has_magic(pattern) and not entry.exists():
            matches = sorted(Path(entry.anchor or ".").glob(str(entry.relative_to(entry.anchor))))
            if not matches:
                raise DataError(f"{pattern}: no file fits this pattern", key)
            files += [match.absolute() for match in matches]
        else:
            files.append(Path(pattern))
    if not files:
        raise DataError(f"dataset.{key} is empty; expected the path of one or more files", key)
    twice = {str(file) for file in files if files.count(file) > 1}
    if twice:
        raise DataError(f"dataset.{key} names {', '.join(sorted(twice))} more than once", key)
    return files


def to_be_made(path: Path | tuple[Path, ...], simulate: SimulatorConfig | None) -> Path | None:
    """The file that a recipe's simulator has to make, or None where there is one or nothing makes it.

    A list of files or a pattern stands for files that are there: a simulator makes one file.
    """
    if simulate is None or isinstance(path, tuple) or has_magic(str(path)) or url_of(path) is not None:
        return None
    path = path.absolute()
    return None if path.exists() or path.is_symlink() else path
