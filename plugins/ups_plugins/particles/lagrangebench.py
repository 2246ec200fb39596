"""LagrangeBench's layout: `train.h5`, `valid.h5`, `test.h5` and `metadata.json` in one folder, read with checks.

A file holds the groups "00000", "00001", …, one for each trajectory, with `position` (T, N, D) and `particle_type`
(N,). Facts of the layout: Toshev et al., "LagrangeBench", arXiv:2309.16342, and the files that go with it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from ups_kit import DataError
from ups_kit.data.hdf5 import StoredArray, find_array, opened
from ups_kit.data.headers import DAMAGE
from ups_kit.data.stamps import Stamp
from ups_kit.errors import did_you_mean

from .box import Box
from .stored import HDF5Frames, Opened, Stored

METADATA = "metadata.json"
FILES: Mapping[str, str] = {"train": "train.h5", "validation": "valid.h5", "test": "test.h5"}
POSITION, TYPE = "position", "particle_type"
TYPE_NAMES = ("fluid", "solid wall", "moving wall", "rigid body")
KINEMATIC = (1, 2)  # walls: they move as given, and are not predicted
MOST_TYPES = 64
LARGEST_METADATA = 2**20  # bytes
LARGEST = 1e30  # of a number; squares of it are finite in float64
MOST_STEPS = 10**9  # of a solver, between two frames
SHOWN = 8  # problems that a message lists


def open_lagrangebench(path: Path, dt: float | None) -> Opened:
    """A folder of this layout, or one of its files. `dt`: between two frames, instead of what the metadata say.

    Raises DataError, which lists everything that is wrong with the headers.
    """
    if not path.exists():
        raise DataError(
            f"{path}: no such folder or file; expected a folder with {', '.join(FILES.values())} and {METADATA}, or "
            "one of these HDF5 files beside it"
        )
    folder = path if path.is_dir() else path.parent
    files = {split: folder / name for split, name in FILES.items()} if path.is_dir() else {None: path}
    missing = [file.name for file in files.values() if path.is_dir() and not file.is_file()]
    if missing or (path.is_dir() and not (folder / METADATA).is_file()):
        raise DataError(_not_there(folder, missing))
    metadata = _metadata(folder / METADATA, dt)
    trajectories: list[Stored] = []
    problems: list[str] = []
    for split, file in files.items():
        found, wrong = _trajectories(file, split, metadata.box.dims)
        trajectories += found
        problems += wrong
    if problems:
        raise DataError(listed(str(path), problems))
    return Opened(
        where=str(path),
        box=metadata.box,
        dt=metadata.dt,
        trajectories=tuple(trajectories),
        type_names=TYPE_NAMES,
        kinematic=KINEMATIC,
        fingerprint=_fingerprint([folder / METADATA, *files.values()]),
    )


def _not_there(folder: Path, missing: Sequence[str]) -> str:
    names = sorted(entry.name for entry in folder.iterdir())
    absent = [*missing, *([] if (folder / METADATA).is_file() else [METADATA])]
    inner = [name for name in names if (folder / name / METADATA).is_file()]
    guess = f"; did you mean the folder '{inner[0]}' in it?" if inner else ""
    if not inner:
        guess = f"; '{absent[0]}' is no file" if absent[0] in names else did_you_mean(absent[0], names)
    return (
        f"{folder}: expected {', '.join(FILES.values())} and {METADATA}, as LagrangeBench has them; not there: "
        f"{', '.join(absent)}{guess} (the folder holds {', '.join(names[:SHOWN]) or 'nothing'})"
    )


def listed(where: str, problems: Sequence[str]) -> str:
    if len(problems) == 1:
        return problems[0]
    more = f"\n  and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
    return f"{where}: {len(problems)} problems:\n" + "\n".join(f"  {each}" for each in problems[:SHOWN]) + more


def _fingerprint(files: Sequence[Path]) -> str:
    stamps = [Stamp.of(file) for file in files]
    facts = "\n".join(f"{stamp.path.name} {stamp.size} {stamp.changed}" for stamp in stamps)
    return hashlib.sha256(facts.encode()).hexdigest()


# ---------------------------------------------------------------------------------------------------------------------
# metadata.json
# ---------------------------------------------------------------------------------------------------------------------
@frozen
class _Metadata:
    box: Box
    dt: float  # between two frames


def _metadata(path: Path, dt: float | None) -> _Metadata:
    said = _table(path)
    problems = list(_problems(said, dt))
    if problems:
        raise DataError(listed(str(path), [f"{path}: {problem}" for problem in problems]))
    step = float(said["dt"]) * int(said["write_every"]) if dt is None else dt
    ends = tuple((float(low), float(high)) for low, high in said["bounds"])
    return _Metadata(Box(ends, tuple(said["periodic_boundary_conditions"])), step)


def _table(path: Path) -> Mapping[str, Any]:
    try:
        if not path.is_file():
            raise DataError(
                f"{path}: no such file; LagrangeBench keeps the time step, the box and which axes are periodic in it, "
                f"beside {', '.join(FILES.values())}: download it"
            )
        if path.stat().st_size > LARGEST_METADATA:
            raise DataError(f"{path}: expected a table of some lines, got {path.stat().st_size:,} bytes")
        said = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}; expected LagrangeBench's {METADATA}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: expected JSON, got what is none ({str(error)[:120]}); download it again") from error
    if not isinstance(said, dict):
        raise DataError(f"{path}: expected a JSON table, got {type(said).__name__}; download it again")
    return said


def _problems(said: Mapping[str, Any], dt: float | None) -> Iterator[str]:
    """Everything that is wrong with the keys that are used."""
    dims = said.get("dim")
    axes = dims if type(dims) is int and 1 <= dims <= 3 else None
    each = "each axis" if axes is None else f"each of {axes} axes"

    def ends(value: Any) -> bool:
        pair = isinstance(value, list) and len(value) == 2 and all(number(end) for end in value)
        return pair and value[0] < value[1]

    def for_axes(value: Any) -> bool:
        return isinstance(value, list) and 1 <= len(value) <= 3 and axes in (None, len(value))

    expected: dict[str, tuple[str, Any]] = {
        "dim": ("1, 2 or 3", lambda value: value == axes and axes is not None),
        "periodic_boundary_conditions": (
            f"true or false for {each}",
            lambda value: for_axes(value) and all(type(entry) is bool for entry in value),
        ),
        "bounds": (f"[low, high] for {each}", lambda value: for_axes(value) and all(ends(entry) for entry in value)),
    }
    if dt is None:
        expected["dt"] = ("a number above 0, the time step of the solver", lambda v: number(v) and v > 0)
        expected["write_every"] = (
            "a whole number of steps between two frames",
            lambda v: type(v) is int and 0 < v <= MOST_STEPS,
        )
    for key, (what, fits) in expected.items():
        if key not in said:
            instead = ", or set dataset.dt to the time between two frames" if key in ("dt", "write_every") else ""
            yield f"key '{key}' is missing{did_you_mean(key, said)}; expected {what}{instead}"
        elif not fits(said[key]):
            yield f"key '{key}': expected {what}, got {json.dumps(said[key])[:80]}"


def number(value: Any) -> bool:
    """Whether this is a finite number; of whole numbers, one that a float can hold."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < LARGEST


# ---------------------------------------------------------------------------------------------------------------------
# Files
# ---------------------------------------------------------------------------------------------------------------------
def _trajectories(path: Path, split: str | None, dims: int) -> tuple[list[Stored], list[str]]:
    """The trajectories of a file in the order of their names, and what is wrong with their headers."""
    found, problems = [], []
    with opened(path) as file, _oddities_told(path):
        names = sorted(name for name in file if _may_be_group(file, name))
        if not names:
            there = ", ".join(sorted(file)[:SHOWN]) or "nothing"
            raise DataError(
                f"{path}: expected groups '00000', '00001', … with '{POSITION}' and '{TYPE}', as LagrangeBench has "
                f"them, got {there}"
            )
        for name in names:
            try:
                found.append(_trajectory(path, file, name, split, dims))
            except DataError as error:
                problems.append(str(error))
    return found, problems


@contextmanager
def _oddities_told(path: Path) -> Iterator[None]:
    """Whatever h5py raises for damaged headers as a DataError."""
    try:
        yield
    except DAMAGE as error:
        raise DataError(f"{path}: is damaged ({str(error)[:200]}); download or make it again") from error


def _may_be_group(file: h5py.File, name: str) -> bool:
    """Links count: where one leads is looked at when its arrays are read."""
    return not isinstance(file.get(name, getlink=True), h5py.HardLink) or isinstance(file[name], h5py.Group)


def _trajectory(path: Path, file: h5py.File, name: str, split: str | None, dims: int) -> Stored:
    dataset = find_array(file, f"{name}/{POSITION}")
    shape = tuple(dataset.shape or ())
    if len(shape) != 3 or shape[2] != dims or 0 in shape:
        raise DataError(
            f"{path}: '{name}/{POSITION}': expected [frames, particles, {dims}], as 'dim' in {METADATA} says, got "
            f"{list(shape)}"
        )
    return Stored(
        where=f"{path}, trajectory {name}",
        length=shape[0],
        count=shape[1],
        positions=HDF5Frames(StoredArray.of(dataset)),
        types=_types(path, file, name, shape),
        split=split,
    )


def _types(path: Path, file: h5py.File, name: str, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    dataset = find_array(file, f"{name}/{TYPE}")
    where = f"{path}: '{name}/{TYPE}'"
    if tuple(dataset.shape or ()) != (shape[1],):
        raise DataError(
            f"{where}: expected [{shape[1]}], a type for each particle of '{POSITION}' {list(shape)}, got "
            f"{list(dataset.shape or ())}: the number of particles may not change within a trajectory"
        )
    return checked_types(np.asarray(dataset[()]), where)


def checked_types(values: NDArray[Any], where: str) -> NDArray[np.uint8]:
    """Types of particles as small whole numbers. Raises DataError for others."""
    whole = values.dtype.kind in "iu" or (values.dtype.kind == "f" and bool((values == np.round(values)).all()))
    if not whole:
        raise DataError(f"{where}: expected whole numbers from 0, got values of type {values.dtype}")
    wrong = (values < 0) | (values >= MOST_TYPES)
    if wrong.any():
        first = int(np.argmax(wrong))
        raise DataError(
            f"{where}: expected types 0 … {MOST_TYPES - 1}, got {int(wrong.sum())} others, the first being "
            f"{values[first]} of particle {first}"
        )
    return values.astype(np.uint8)
