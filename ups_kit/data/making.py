"""A data file or store that a simulator makes: whole or not at all, once, and after an interruption from where it was.

Beside the file, `.NAME.parts/` keeps what has been solved: `config.json` says by what, and each part is one .npz file
that was written aside and renamed. When all parts are there the file is written from them, aside, and renamed; then the
parts are removed. A process may be killed anywhere in this, and the next one goes on with the parts that are there.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
import h5py
import numpy as np
from attrs import frozen

from .. import __version__
from ..console import counting
from ..errors import DataError, StorageError
from ..folder import held, sync_folder
from ..interfaces import Simulator, SimulatorConfig
from .sample_stores import add_attribute
from .whole_stores import leftovers

ATTRIBUTE = "simulated_by"  # of the file: the simulator's config as JSON
FREE_KEYS = ("device",)  # where something was computed is no property of the data
SPARE_BYTES = 2**20  # of the disk, beyond what the file needs
Part = Mapping[str, np.ndarray]


def make_if_missing(path: Path, simulator: SimulatorConfig) -> None:
    """Let a simulator make `path` where there is no file.

    Two runs that ask for one file at once make it once: the second waits. Raises StorageError where it cannot be
    written, and DataError where the simulator's settings give no finite numbers.
    """
    if not path.exists():
        _make(path, simulator, "choose another dataset.path")


def make(path: Path, simulator: SimulatorConfig) -> None:
    """Make a new file, for `upskit data make`. What is there already stays: a StorageError says so."""
    if path.exists() or path.is_symlink() or not _make(path, simulator, "choose another --out"):
        raise StorageError(f"{path}: is there already, and nothing is overwritten; remove it, or choose another --out")


def _make(path: Path, simulator: SimulatorConfig, advice: str) -> bool:
    """Make the file under its lock; false where another process has made it meanwhile."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with held(path.with_name(f".{path.name}.lock")):  # who waits on it sees next that the file is there
            if path.exists():
                return False
            making = _Making(path, simulator)
            making.solve()
            making.write()
            return True
    except (OSError, RuntimeError) as error:  # HDF5 closes a file that it could not write with a RuntimeError
        if not isinstance(error, OSError) and not str(error).startswith(("Unable to", "Can't")):
            raise
        raise StorageError(f"{path}: could not be made: {_reason(error)}; {advice}") from error


def _reason(error: Exception) -> str:
    """The system's words for a failure, which HDF5 wraps in many of its own."""
    said = re.search(r"error message = '([^']*)'", str(error))
    return said[1] if said else str(getattr(error, "strerror", None) or error)


class _Making:
    """One file in the making."""

    def __init__(self, path: Path, config: SimulatorConfig) -> None:
        self._path = path
        self._config = config
        self._simulator: Simulator = config.build()
        self._folder = _PartsFolder(path.with_name(f".{path.name}.parts"))

    def _ranges(self) -> Iterator[tuple[int, int]]:
        """First and last trajectory of each part."""
        total, part = self._simulator.trajectories, self._simulator.part
        return ((start, min(start + part, total)) for start in range(0, total, part))

    def solve(self) -> None:
        """Solve all parts that are not there yet."""
        self._check_space(self._simulator.bytes)  # of more than fits nothing is begun
        self._folder.open({"version": __version__, "part": self._simulator.part, **_content(self._config)})
        missing = [bounds for bounds in self._ranges() if self._folder.read(*bounds) is None]
        total = self._simulator.trajectories
        share = sum(stop - start for start, stop in missing) / total
        try:
            self._check_space(self._simulator.bytes * (1 + share))
        except StorageError:
            if share == 1:  # nothing was solved yet
                self._folder.remove()
            raise
        with counting(f"making {self._path.name}") as report:
            done = round(total * (1 - share))
            for start, stop in missing:

                def progress(part: float, done: int = done, count: int = stop - start) -> None:
                    report(done + int(min(max(part, 0.0), 1.0) * count), total)

                self._folder.write(start, stop, self._solved(start, stop, progress))
                done += stop - start
            report(total, total)

    def write(self) -> None:
        """Write the file from the parts, and remove these."""
        self._check_space(self._simulator.bytes)
        aside = self._path.with_name(f".{self._path.name}.part")
        try:
            _remove(aside)  # what a process that was killed has left
            self._simulator.write(aside, map(self._part, self._ranges()))
            said = json.dumps(_content(self._config))
            if aside.is_dir():
                add_attribute(aside, ATTRIBUTE, said)
            else:
                with h5py.File(aside, "r+") as file:
                    file.attrs[ATTRIBUTE] = said
                with aside.open("rb") as written:
                    os.fsync(written.fileno())
            aside.replace(self._path)
            sync_folder(self._path.parent)
        finally:
            _remove(aside)
        self._folder.remove()

    def _part(self, bounds: tuple[int, int]) -> Part:
        """A part as it was kept; solved once more where it was damaged meanwhile."""
        kept = self._folder.read(*bounds)
        return self._solved(*bounds, lambda share: None) if kept is None else kept

    def _solved(self, start: int, stop: int, report: Callable[[float], None]) -> Part:
        solved = {name: np.asarray(values) for name, values in self._simulator.solve(start, stop, report).items()}
        for name, values in solved.items():
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                bad = start + int(np.argmin(np.isfinite(values.reshape(len(values), -1)).all(1)))
                raise DataError(
                    f"{self._path}: could not be made: '{name}' of trajectory {bad} does not stay finite with these "
                    "settings of the simulator; take a smaller time step, more points, or more diffusion",
                    key="simulate",
                )
        return solved

    def _check_space(self, needed: float) -> None:
        """HDF5 can end the process when the disk fills up, so there is a look before."""
        free = shutil.disk_usage(self._path.parent).free
        if needed + SPARE_BYTES > free:
            raise StorageError(
                f"{self._path}: needs {needed / 2**20:.0f} MiB while it is made, and {self._path.parent} has "
                f"{free / 2**20:.0f} MiB free; free some, or choose another path"
            )


def _remove(aside: Path) -> None:
    """Remove a file or store that was being written, and what its writer has itself written aside."""
    for each in (aside, *leftovers(aside)):
        if each.is_dir() and not each.is_symlink():
            shutil.rmtree(each, ignore_errors=True)
        else:
            each.unlink(missing_ok=True)


@frozen
class _PartsFolder:
    """Where solved parts wait to be put together."""

    path: Path

    def open(self, settings: Mapping[str, Any]) -> None:
        """Make the folder. Parts of other settings that lie in it are removed."""
        record = self.path / "config.json"
        wanted = json.loads(json.dumps(settings, default=str))
        try:
            same = json.loads(record.read_text(encoding="utf-8")) == wanted
        except (OSError, ValueError, RecursionError):
            same = False
        if not same:
            self.remove()
            self.path.mkdir(exist_ok=True)
            record.write_text(json.dumps(wanted, indent=1) + "\n", encoding="utf-8")  # torn, it fits nothing

    def write(self, start: int, stop: int, part: Part) -> None:
        """Keep a part: whole, or not at all."""
        path = self._file(start, stop)
        aside = path.with_name(f"{path.name}.aside")
        try:
            with aside.open("wb") as handle:
                np.savez(handle, allow_pickle=False, **part)
                handle.flush()
                os.fsync(handle.fileno())
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)
        sync_folder(self.path)

    def read(self, start: int, stop: int) -> Part | None:
        """A part, or None where there is none or it is damaged: the format has a check sum for each array."""
        path = self._file(start, stop)
        try:
            with np.load(path, allow_pickle=False) as file:
                part = {name: file[name] for name in file.files}
        except (OSError, ValueError, KeyError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error):
            return None
        return part if part and all(len(values) == stop - start for values in part.values() if values.ndim) else None

    def remove(self) -> None:
        """Remove what these classes have written, and the folder unless there is something else in it."""
        for pattern in ("*.npz", "*.npz.aside", "config.json"):
            for path in self.path.glob(pattern):
                path.unlink(missing_ok=True)
        with suppress(OSError):
            self.path.rmdir()

    def _file(self, start: int, stop: int) -> Path:
        return self.path / f"{start:08d}-{stop:08d}.npz"


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
