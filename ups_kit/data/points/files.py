"""Several sources as one: opened, agreed, and numbered through."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from ...addresses import url_of
from ...errors import DataError, did_you_mean
from .. import paths
from ..stamps import Stamp
from .settings import PointSettings
from .source import PointSource

SHOWN = 8  # files that a message lists
STAMPED = 100  # files of a folder that are looked at with every batch
SEPARATE: Mapping[str, Literal["test_path", "validation_path"]] = {
    "test": "test_path",
    "validation": "validation_path",
}  # splits that may have files of their own, and the key that names these


@frozen(eq=False, slots=False)
class OpenFile:
    """One file, and where it lies."""

    path: Path
    source: PointSource
    stamps: tuple[Stamp, ...]  # of its files, as they were when it was opened; none of what lies behind a network


@frozen(eq=False, slots=False)
class PointFiles:
    """Several files as one list of trajectories, numbered through in the order of the files."""

    files: tuple[OpenFile, ...]
    conditions: tuple[str, ...]  # parameters that the model is told, without "dt"

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """The number of each file's first trajectory, and at last their sum."""
        return np.cumsum([0, *(len(file.source.counts) for file in self.files)])

    @property
    def first(self) -> PointSource:
        """The first file's; the others agree with it."""
        return self.files[0].source

    @property
    def total(self) -> int:
        return int(self.starts[-1])

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """Points of all trajectories, (S,)."""
        return np.concatenate([file.source.counts for file in self.files]).astype(np.int64)

    @cached_property
    def frames(self) -> NDArray[np.int64]:
        """Model frames of all trajectories, (S,)."""
        return np.concatenate([file.source.frames for file in self.files]).astype(np.int64)

    @property
    def parameters(self) -> NDArray[np.float64]:
        """The chosen parameters of all trajectories, (S, P - 1)."""
        parts = []
        for file in self.files:
            columns = [file.source.conditions.index(name) for name in self.conditions]
            parts.append(np.asarray(file.source.parameters, np.float64)[:, columns])
        return np.concatenate(parts)

    @property
    def domain(self) -> tuple[tuple[float, float], ...]:
        """What holds the points of all files."""
        ends = np.asarray([file.source.domain for file in self.files], np.float64)
        return tuple((float(low), float(high)) for low, high in zip(ends[..., 0].min(0), ends[..., 1].max(0)))

    @property
    def steady(self) -> bool:
        """Whether the fields are no time series: every trajectory has one frame."""
        return self.first.moves_with is None and bool((self.frames == 1).all())

    @property
    def fingerprint(self) -> str:
        text = "\n".join(f"{file.path.name} {file.source.fingerprint}" for file in self.files)
        return hashlib.sha256(text.encode()).hexdigest()

    def owner(self, number: int) -> tuple[PointSource, int]:
        """The source of a trajectory, and its number there."""
        file = int(np.searchsorted(self.starts, number, side="right")) - 1
        return self.files[file].source, int(number - self.starts[file])

    def where(self, number: int) -> str:
        """Where a trajectory lies, for a message."""
        source, own = self.owner(number)
        return source.where(own)

    def check_unchanged(self, ids: NDArray[np.int64]) -> None:
        """Raise DataError where a file of these trajectories was replaced, cut or written to since it was opened."""
        for number in set((np.searchsorted(self.starts, ids, side="right") - 1).tolist()):
            for stamp in self.files[number].stamps:
                stamp.check()


def open_files(
    settings: PointSettings, key: Literal["path", "test_path", "validation_path"] = "path"
) -> tuple[OpenFile, ...]:
    """The recipe's files, or those of one split alone, opened; they agree in all but their trajectories.

    A DataError names the key that it is about, else the one that the files stand under.
    """
    path: Path | tuple[Path, ...] | None = getattr(settings, key)
    if path is None:
        return ()
    try:
        files = tuple(_open(settings, name) for name in paths.found(path, key))
        check_agreement(files)
    except DataError as error:
        error.key = error.key or key
        raise
    return files


def all_files(settings: PointSettings) -> dict[str, tuple[OpenFile, ...]]:
    """The files of each split that has its own, and under "" the others'. They agree. Raises DataError."""
    groups = {"": open_files(settings), **{split: open_files(settings, key) for split, key in SEPARATE.items()}}
    for split, key in SEPARATE.items():
        try:
            check_agreement((*groups[""], *groups[split]))
        except DataError as error:
            error.key = error.key or key
            raise
    return groups


def joined(settings: PointSettings, files: Sequence[OpenFile]) -> PointFiles:
    """Files as one, with the parameters that the recipe chooses. Raises DataError for names that are nowhere."""
    known = files[0].source.conditions
    names = known if settings.conditions is None else settings.conditions
    check_conditions(names, known, str(files[0].path))
    together = PointFiles(tuple(files), tuple(names))
    values = together.parameters
    if not np.isfinite(values).all():
        row, column = (int(place) for place in np.argwhere(~np.isfinite(values))[0])
        raise DataError(f"{together.where(row)}: parameter '{names[column]}' is {values[row, column]}", "conditions")
    return together


def check_conditions(names: Sequence[str], known: Sequence[str], where: str) -> None:
    """Raise DataError where a parameter is nowhere, or has the name of the time step."""
    for name in names:
        if name not in known:
            raise DataError(
                f"{where}: no parameter '{name}'{did_you_mean(name, known)} (found: {', '.join(known) or 'none'})",
                "conditions",
            )
    if "dt" in names:
        raise DataError(
            f"{where}: a parameter is called 'dt', as the model calls the time step; rename it, or leave it out of "
            "dataset.conditions",
            "conditions",
        )


def check_agreement(files: Sequence[OpenFile]) -> None:
    """Raise DataError where files differ in fields, dimensions, time step or parameters, with a table of those."""
    differing = [file for file in files[1:] if _facts(files[0].source) != _facts(file.source)]
    if not differing:
        return
    more = f"\n  and {len(differing) - SHOWN} more" if len(differing) > SHOWN else ""
    table = "\n".join(f"  {file.path}: {_summary(file.source)}" for file in (files[0], *differing[:SHOWN]))
    raise DataError(
        "files differ; expected the same fields, dimensions, periodic axes, time step and parameters in all of them "
        f"(for other fields use the dataset 'mixture'):\n{table}{more}"
    )


def _facts(source: PointSource) -> tuple[object, ...]:
    names = tuple(sorted(source.conditions))
    kind = (source.layout, source.moves_with, len(source.domain), tuple(source.periodic))
    return (*kind, tuple(source.targets), tuple(source.statics), f"{source.dt:.4g}", names)


def _summary(source: PointSource) -> str:
    def named(name: str, channels: int) -> str:
        return name if channels == 1 else f"{name} [{channels}]"

    fields = ", ".join(named(each.name, each.channels) for each in (*source.targets, *source.statics))
    wraps = [letter for letter, periodic in zip("xyz", source.periodic) if periodic]
    return (
        f"{source.layout}, {len(source.domain)}-D, periodic in {', '.join(wraps) or 'none'}, time step "
        f"{source.dt:.4g}, fields {fields}, parameters {', '.join(source.conditions) or 'none'}"
    )


def _open(settings: PointSettings, path: Path) -> OpenFile:
    return OpenFile(path, settings.open_source(path), _stamps(path))


def _stamps(path: Path) -> tuple[Stamp, ...]:
    if url_of(path) is not None:
        return ()
    if path.is_dir() and not (path / "zarr.json").exists():
        inner = sorted(each for each in path.iterdir() if each.is_file() and not each.name.startswith("."))
        return tuple(Stamp.of(each) for each in inner[:STAMPED])
    return (Stamp.of(path),)
