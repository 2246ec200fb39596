"""Files of meshes as other programs write them (VTU, VTK, PVD, XDMF, MSH), read by meshio: one series, one sample.

Parsers of such files print and end the process when a file is broken: this module is for guarded children.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from glob import has_magic
from pathlib import Path
from typing import Any, TypeVar
from xml.etree import ElementTree

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from ..errors import DataError
from .zarr_store import DOCUMENT

T = TypeVar("T")

FRAMES = (".vtu", ".vtk", ".msh")  # one frame each
SERIES = (".pvd", ".xdmf", ".xmf")  # all frames of a series
INSTALL = "reading files of meshes needs meshio: `pip install 'ups_kit[mesh]'`"
PARAMETERS = "parameters.json"  # beside a sample's files: its parameters, as a table of numbers
LARGEST = 1e30  # of a parameter; squares of it are finite in float64
SHOWN = 400  # characters of a parser's words


@frozen
class Series:
    """One sample: its files, in the order of their times."""

    label: str  # for messages
    folder: Path
    files: tuple[Path, ...]
    times: tuple[float, ...] | None = None


@frozen(eq=False)
class Frame:
    """What one file, or one step of one, holds: points (N, 3), cells by kind, data at points and cells."""

    where: str
    points: NDArray[np.float64]
    blocks: tuple[tuple[str, int, NDArray[Any]], ...]  # kind, its dimensions, cells (M, k)
    point_data: Mapping[str, NDArray[Any]]
    cell_data: Mapping[str, Sequence[NDArray[Any]]]  # an array for each block
    time: float | None = None


# ---------------------------------------------------------------------------------------------------------------------
# Which files
# ---------------------------------------------------------------------------------------------------------------------
def is_mesh_source(path: Path) -> bool:
    """Whether a path, or a pattern, stands for files of meshes; a look at names alone."""
    if has_magic(str(path)) and not path.exists():
        return any(match.suffix in (*FRAMES, *SERIES) or match.is_dir() for match in _matches(path))
    if path.is_dir():
        if (path / DOCUMENT).exists():
            return False
        return any(_mesh_files(folder) for folder in (path, *_folders(path)))
    return path.suffix.lower() in (*FRAMES, *SERIES)


def find_series(path: Path) -> tuple[Series, ...]:
    """The samples that a file, a folder or a pattern stands for: one for each folder that holds frames.

    A file that lists its frames (.pvd, .xdmf) is a sample of its own; where there are such in a folder, its other files
    are theirs. Raises DataError where there are none.
    """
    if path.is_dir():
        own = _mesh_files(path)
        groups = [own] if own else [files for files in map(_mesh_files, _folders(path)) if files]
    elif has_magic(str(path)) and not path.exists():
        matches = _matches(path)
        loose = [match for match in matches if match.suffix.lower() in (*FRAMES, *SERIES) and match.is_file()]
        groups = [files for files in (_mesh_files(match) for match in matches if match.is_dir()) if files]
        groups += [[f for f in loose if f.parent == folder] for folder in dict.fromkeys(f.parent for f in loose)]
    else:
        if not path.is_file():
            raise DataError(f"{path}: no such file; expected one, a folder, or a pattern in quotes")
        groups = [[path]]
    found = [series for files in groups for series in _series_of(files)]
    if not found:
        endings = ", ".join((*FRAMES, *SERIES))
        raise DataError(f"{path}: no file of a mesh is there; expected {endings}, or folders that hold such")
    return tuple(found)


def natural(path: Path) -> tuple[Any, ...]:
    """A key that sorts u_2.vtu before u_10.vtu."""
    parts = re.split(r"(\d+)", str(path))
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in parts)


def _matches(path: Path) -> list[Path]:
    whole = path.absolute()
    return sorted(Path(whole.anchor).glob(str(whole.relative_to(whole.anchor))), key=natural)


def _folders(path: Path) -> list[Path]:
    return sorted((entry for entry in path.iterdir() if entry.is_dir()), key=natural)


def _mesh_files(folder: Path) -> list[Path]:
    """The files of a folder that list frames, or else the frames in it."""
    found = (entry for entry in folder.iterdir() if entry.is_file() and not entry.name.startswith("."))
    files = sorted(found, key=natural)
    lists = [file for file in files if file.suffix.lower() in SERIES]
    return lists or [file for file in files if file.suffix.lower() in FRAMES]


def _series_of(files: Sequence[Path]) -> Iterator[Series]:
    frames = [file for file in files if file.suffix.lower() not in SERIES]
    for file in files:
        if file.suffix.lower() == ".pvd":
            names, times = _collection(file)
            yield Series(str(file), file.parent, names, times)
        elif file.suffix.lower() in SERIES:
            yield Series(str(file), file.parent, (file,))
    if frames:
        alone = len(frames) == 1
        label = str(frames[0]) if alone else f"{frames[0].parent} ({len(frames)} files)"
        yield Series(label, frames[0].parent, tuple(frames))


def _collection(file: Path) -> tuple[tuple[Path, ...], tuple[float, ...]]:
    """The files that a .pvd lists, and their times, in the order of these."""
    root = _parsed(file)
    entries = [(entry.get("timestep", ""), entry.get("file", ""), entry) for entry in root.iter("DataSet")]
    found = []
    for time, name, entry in entries:
        if entry.get("part", "0") not in ("0", ""):
            raise DataError(f"{file}: lists parts of frames ('{name}'), which are not put together; expected one part")
        try:
            if not math.isfinite(float(time)):
                raise ValueError(time)
            found.append((float(time), _beside(file, name)))
        except ValueError as error:
            raise DataError(f"{file}: expected a finite number as the time of '{name}', got '{time[:40]}'") from error
    if not found:
        raise DataError(f"{file}: lists no frames; expected a Collection of DataSets with timestep and file")
    found.sort(key=lambda entry: entry[0])
    return tuple(name for _, name in found), tuple(time for time, _ in found)


def _beside(file: Path, name: str) -> Path:
    """A file that another one names. Raises DataError for one that does not lie in its folder, or below."""
    folder = file.parent.resolve()
    found = (folder / name).resolve()
    if not found.is_relative_to(folder):
        raise DataError(
            f"{file}: names the file '{name[:200]}', which lies outside of its folder; such are not read, as they can "
            "show any file of this machine: put it beside"
        )
    return found


def _parsed(file: Path) -> ElementTree.Element:
    try:
        return ElementTree.parse(file).getroot()
    except FileNotFoundError as error:
        raise DataError(f"{file}: no such file") from error
    except (ElementTree.ParseError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: is no XML: {error}; it may be damaged: download or make it again") from error


def parameters_of(series: Series) -> dict[str, float]:
    """What `parameters.json` beside a sample's files says. Raises DataError."""
    path = series.folder / PARAMETERS
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: expected a table of numbers as JSON: {error}") from error
    numbers = isinstance(found, dict) and all(
        type(value) in (int, float) and abs(value) < LARGEST for value in found.values()
    )
    if not numbers:
        raise DataError(f"{path}: expected a table of finite numbers, got {str(found)[:80]}")
    return {name: float(value) for name, value in found.items()}


# ---------------------------------------------------------------------------------------------------------------------
# What is in them
# ---------------------------------------------------------------------------------------------------------------------
def frames_of(series: Series, sign: Callable[[str], None]) -> Iterator[Frame]:
    """The frames of a series, one by one. Raises DataError with the file and its parser's words."""
    for number, file in enumerate(series.files):
        sign(file.name)
        if not file.is_file():
            raise DataError(f"{file}: no such file, and {series.label} lists it")
        time = None if series.times is None else series.times[number]
        if file.suffix.lower() in (".xdmf", ".xmf"):
            yield from _xdmf(file, sign)
        else:
            yield _frame(file, _told(file, partial(_meshio().read, file)), time)


def _meshio() -> Any:
    try:
        import meshio
    except ImportError as error:
        raise DataError(INSTALL) from error
    return meshio


def _told(file: Path, read: Callable[[], T]) -> T:
    """What a parser reads; what it prints, and that it ends the process, becomes a DataError (D21)."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), contextlib.chdir(file.parent):
            return read()
    except DataError:
        raise
    except MemoryError:
        raise
    except (Exception, SystemExit) as error:
        own = "" if isinstance(error, SystemExit) else f"{type(error).__name__}: {error}"
        words = " ".join(f"{said.getvalue()} {own}".split())[:SHOWN]
        raise DataError(
            f"{file}: cannot be read; its parser says: {words or 'nothing'}; the file may be damaged: download or make "
            "it again"
        ) from error


def _frame(file: Path, mesh: Any, time: float | None) -> Frame:
    return Frame(
        where=str(file),
        points=np.asarray(mesh.points, np.float64),
        blocks=tuple((str(block.type), int(block.dim), np.asarray(block.data)) for block in mesh.cells),
        point_data={str(name): np.asarray(values) for name, values in mesh.point_data.items()},
        cell_data={str(name): [np.asarray(part) for part in parts] for name, parts in mesh.cell_data.items()},
        time=time,
    )


def _xdmf(file: Path, sign: Callable[[str], None]) -> Iterator[Frame]:
    root = _parsed(file)
    for item in root.iter("DataItem"):
        text = (item.text or "").strip()
        if item.get("Format") in ("HDF", "Binary"):
            _beside(file, text.partition(":")[0] if item.get("Format") == "HDF" else text)
    if not any(grid.get("CollectionType") == "Temporal" for grid in root.iter("Grid")):
        yield _frame(file, _told(file, partial(_meshio().read, file)), None)
        return
    _meshio()
    from meshio.xdmf import TimeSeriesReader

    reader = _told(file, partial(TimeSeriesReader, file))
    with reader:
        points, cells = _told(file, reader.read_points_cells)
        blocks = tuple((str(block.type), int(block.dim), np.asarray(block.data)) for block in cells)
        for number in range(reader.num_steps):
            sign(f"{file.name}, step {number}")
            time, point_data, cell_data = _told(file, partial(reader.read_data, number))
            places = _own_points(reader, number, file)
            yield Frame(
                where=f"{file}, step {number}",
                points=np.asarray(points if places is None else places, np.float64),
                blocks=blocks,
                point_data={str(name): np.asarray(values) for name, values in point_data.items()},
                cell_data={str(name): [np.asarray(p) for p in parts] for name, parts in cell_data.items()},
                time=float(time),
            )


def _own_points(reader: Any, number: int, file: Path) -> NDArray[Any] | None:
    """The points of a step that brings its own."""
    for part in reader.collection[number]:
        if part.tag == "Geometry" and len(part):
            places: NDArray[Any] = _told(file, partial(reader._read_data_item, part[0]))
            return places
    return None
