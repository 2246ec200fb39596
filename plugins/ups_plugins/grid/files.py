"""PDEBench's 1D files: what their headers say, checked, and their values as if they were one array."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from glob import has_magic
from pathlib import Path

import h5py
import numpy as np
from attrs import evolve, frozen
from numpy.typing import NDArray

from ups_kit import DataError, Field, FieldSpec
from ups_kit.data.hdf5 import StoredArray, check_kind, find_array, opened, shapes
from ups_kit.data.making import check_made_by
from ups_kit.errors import did_you_mean

from .config import PDEBenchConfig

X, T = "x-coordinate", "t-coordinate"
SPACING_TOLERANCE = 1e-3  # of a spacing: what coordinates in float32 are off by, and more
BLOCK_VALUES = 2**22  # values that are looked through at a time
Parameters = Mapping[str, float | tuple[float, ...]]
SIMULATE_HINT = (
    "a relative dataset.path starts from the folder of the recipe file; to have the file made, add a table "
    '[dataset.simulate] with use = "burgers1d"'
)


@frozen(eq=False)
class TrajectoryFile:
    """One file: its array of trajectories, their coordinates, and the parameters of each trajectory."""

    path: Path
    tensor: StoredArray
    positions: NDArray[np.float64]  # (points,)
    times: NDArray[np.float64]  # (frames,)
    parameters: Mapping[str, NDArray[np.float64]]  # (trajectories,) each

    @property
    def trajectories(self) -> int:
        return self.tensor.shape[0]


@frozen(eq=False)
class FileSet:
    """Several files as one array of trajectories, numbered through in the order of the files."""

    files: tuple[TrajectoryFile, ...]
    starts: NDArray[np.int64]  # the number of each file's first trajectory, and at last their sum

    @classmethod
    def of(cls, files: Sequence[TrajectoryFile]) -> FileSet:
        return cls(tuple(files), np.cumsum([0, *(file.trajectories for file in files)]))

    def gather(self, ids: NDArray[np.int64], frames: NDArray[np.int64]) -> NDArray[np.float32]:
        """Frames (B, F) of trajectories (B,): (B, F, points)."""
        if len(self.files) == 1:
            return self.files[0].tensor.gather(ids, frames)
        result = np.empty((*frames.shape, self.files[0].tensor.shape[2]), np.float32)
        for number, mine in self._owners(ids):
            result[mine] = self.files[number].tensor.gather(ids[mine] - self.starts[number], frames[mine])
        return result

    def rows(self, ids: NDArray[np.int64], frames: slice) -> NDArray[np.float32]:
        """A slice of the frames of trajectories (S,): (S, frames, points)."""
        count = len(range(*frames.indices(self.files[0].tensor.shape[1])))
        result = np.empty((len(ids), count, self.files[0].tensor.shape[2]), np.float32)
        for number, mine in self._owners(ids):
            result[mine] = self.files[number].tensor.rows(ids[mine] - self.starts[number], frames)
        return result

    def blocks(self, ids: NDArray[np.int64], frames: slice) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """The same, a few trajectories at a time: their ids and values."""
        count = max(1, BLOCK_VALUES // int(np.prod(self.files[0].tensor.shape[1:])))
        for start in range(0, len(ids), count):
            block = ids[start : start + count]
            yield block, self.rows(block, frames)

    def parameters(self, names: Sequence[str]) -> NDArray[np.float64]:
        """Parameters of all trajectories, (trajectories, names)."""
        columns = [np.concatenate([file.parameters[name] for file in self.files]) for name in names]
        return np.stack(columns, 1) if columns else np.empty((int(self.starts[-1]), 0))

    def place(self, trajectory: int) -> str:
        """Where a trajectory lies, for a message."""
        number = int(np.searchsorted(self.starts, trajectory, side="right")) - 1
        return f"{self.files[number].path}, sample {trajectory - self.starts[number]}"

    def _owners(self, ids: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.bool_]]]:
        numbers = np.searchsorted(self.starts, ids, side="right") - 1
        for number in np.unique(numbers):
            yield int(number), numbers == number


# ---------------------------------------------------------------------------------------------------------------------
# Finding files
# ---------------------------------------------------------------------------------------------------------------------
def to_be_made(config: PDEBenchConfig) -> Path | None:
    """The file that the recipe's simulator has to make, or None where there is one or nothing makes it.

    A list of files or a pattern stands for files that are there: a simulator makes one file.
    """
    if config.simulate is None or isinstance(config.path, tuple) or has_magic(str(config.path)):
        return None
    path = config.path.absolute()
    return None if path.exists() or path.is_symlink() else path


def found(path: Path | tuple[Path, ...], key: str) -> list[Path]:
    """The files that a path, several, or a pattern stand for, absolute. Raises DataError where there are none."""
    files: list[Path] = []
    for entry in path if isinstance(path, tuple) else (path,):
        pattern = str(entry.absolute())
        if has_magic(pattern) and not entry.exists():
            matches = sorted(Path(entry.anchor or ".").glob(str(entry.relative_to(entry.anchor))))
            if not matches:
                raise DataError(f"{pattern}: no file fits this pattern", key)
            files += [match.absolute() for match in matches]
        else:
            files.append(Path(pattern))
    if not files:
        raise DataError(f"dataset.{key} is empty; expected the path of one or more HDF5 files", key)
    twice = {str(file) for file in files if files.count(file) > 1}
    if twice:
        raise DataError(f"dataset.{key} names {', '.join(sorted(twice))} more than once", key)
    return files


# ---------------------------------------------------------------------------------------------------------------------
# Headers
# ---------------------------------------------------------------------------------------------------------------------
def describe(config: PDEBenchConfig) -> FieldSpec:
    """What the data are, from headers alone."""
    if to_be_made(config) is not None and config.simulate is not None:
        base = config.simulate.describe()
        known = {*base.conditions[1:], *config.parameters}
        return _strided(config, evolve(base, conditions=("dt", *_chosen(config, sorted(known), "the simulator"))))
    return field_spec(config, read_headers(config))


def field_spec(config: PDEBenchConfig, files: Sequence[TrajectoryFile]) -> FieldSpec:
    """What the model is given and predicts, at the recipe's strides."""
    first = files[0]
    domain, offset = _domain(first.positions)
    frames, points = first.tensor.shape[1:]
    needed = config.time_stride * config.history + 1
    if frames < needed:
        raise DataError(
            f"{first.path}: has {frames} frames; dataset.history = {config.history} and time_stride = "
            f"{config.time_stride} need at least {needed}, so that there is one to predict"
        )
    base = FieldSpec(
        targets=(Field("u"),),
        domain=(domain,),
        periodic=(config.periodic,),
        layout="grid",
        grid=(points,),
        dt=float(first.times[-1] - first.times[0]) / (frames - 1),
        conditions=("dt", *first.parameters),
        offset=offset,
    )
    return _strided(config, base)


def _strided(config: PDEBenchConfig, base: FieldSpec) -> FieldSpec:
    points, stride = base.grid[0] if base.grid else 0, config.space_stride
    if points % stride or points // stride < 2:
        near = [divisor for divisor in range(1, points // 2 + 1) if points % divisor == 0]
        fitting = ", ".join(str(divisor) for divisor in sorted(near, key=lambda divisor: abs(divisor - stride))[:2])
        message = f"dataset.space_stride = {stride} does not divide the {points} points; nearest: {fitting}"
        raise DataError(message, "space_stride")
    return evolve(
        base,
        grid=(points // stride,),
        offset=base.offset / stride,
        dt=base.dt * config.time_stride,
        history=config.history,
        periodic=(config.periodic,),
    )


def read_headers(config: PDEBenchConfig, test: bool = False) -> tuple[TrajectoryFile, ...]:
    """The headers of the recipe's files, or of its separate test files; they agree in all but their trajectories.

    A DataError of theirs names the key that they stand under, unless it is about another one.
    """
    path, key = (config.test_path, "test_path") if test else (config.path, "path")
    assert path is not None
    given = config.test_parameters if test and config.test_parameters is not None else config.parameters
    paths = found(path, key)
    try:
        files = tuple(_read_header(config, file, _for_file(given, number, paths)) for number, file in enumerate(paths))
        check_agreement(files)
    except DataError as error:
        error.key = error.key or key
        raise
    return files


def check_agreement(files: Sequence[TrajectoryFile]) -> None:
    """Raise DataError where files differ in points, times or parameters."""
    first = files[0]
    for file in files[1:]:
        alike = (
            file.tensor.shape[1:] == first.tensor.shape[1:]
            and np.allclose(file.positions, first.positions, atol=1e-5)
            and np.allclose(file.times, first.times, atol=1e-5)
            and list(file.parameters) == list(first.parameters)
        )
        if not alike:
            table = "\n".join(f"  {each.path}: {_summary(each)}" for each in (first, file))
            raise DataError(f"files differ; expected the same points, times and parameters in all of them:\n{table}")


def _summary(file: TrajectoryFile) -> str:
    x, t = file.positions, file.times
    return (
        f"{list(file.tensor.shape)}, x {x[0]:g} … {x[-1]:g}, t {t[0]:g} … {t[-1]:g}, "
        f"parameters {', '.join(file.parameters) or 'none'}"
    )


def _read_header(config: PDEBenchConfig, path: Path, given: Mapping[str, float]) -> TrajectoryFile:
    try:
        check_kind(path)
    except DataError as error:
        raise DataError(f"{error} ({SIMULATE_HINT})" if not os.path.lexists(path) else str(error)) from error
    with opened(path) as file:
        if config.simulate is not None:
            check_made_by(path, file.attrs, config.simulate)
        tensor = StoredArray.of(find_array(file, config.tensor, config.allow_external), config.allow_external)
        _check_axes(file, path, config.tensor, tensor.shape)
        samples, frames, points = tensor.shape
        positions = _coordinate(file, path, X, (points,), "points", config.allow_external)
        times = _coordinate(file, path, T, (frames, frames + 1), "frames", config.allow_external)
        parameters = _parameters(config, file, path, samples, given)
    return TrajectoryFile(path, tensor, positions, times, parameters)


def _check_axes(file: h5py.File, path: Path, name: str, shape: tuple[int, ...]) -> None:
    expected = f"{path}: dataset '{name}' has the shape {list(shape)}; expected the axes [sample, time, x]"
    if len(shape) != 3:
        raise DataError(f"{expected}, which are 3, got {len(shape)}: data in 2D and 3D are not read yet")
    if 0 in shape:
        raise DataError(f"{expected}, got an array without values: 0 {('samples', 'frames', 'points')[shape.index(0)]}")
    if shape[2] < 2:
        raise DataError(f"{expected}, with at least 2 points, got 1")
    lengths = {axis: length[0] for axis, length in shapes(file).items() if axis in (X, T) and length}
    if len(lengths) == 2 and shape[2] != lengths[X]:
        for axes in ((0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)):
            moved = [shape[axis] for axis in axes]
            if moved[2] == lengths[X] and lengths[T] - moved[1] in (0, 1):
                names = dict(zip(axes, ("sample", "time", "x"), strict=True))
                order = ", ".join(names[axis] for axis in range(3))
                raise DataError(f"{expected}, got what looks like [{order}]; store tensor.transpose{axes} instead")


def _coordinate(
    file: h5py.File, path: Path, name: str, lengths: tuple[int, ...], what: str, allow_external: bool
) -> NDArray[np.float64]:
    """The values of a coordinate: one-dimensional, of a right length, rising in equal steps."""
    if file.get(name, getlink=True) is None:
        known = ", ".join(f"{other} {list(shape)}" for other, shape in shapes(file).items())
        near = did_you_mean(name, shapes(file))
        raise DataError(f"{path}: coordinate '{name}' is missing{near} (datasets here: {known}); expected its {what}")
    stored = find_array(file, name, allow_external)
    if stored.shape is None or stored.dtype.kind not in "fiu":
        raise DataError(f"{path}: '{name}' holds values of type {stored.dtype}; expected numbers, its {what}")
    values = np.asarray(stored[()], np.float64)
    if values.ndim != 1 or len(values) not in lengths:
        wanted = " or ".join(str(length) for length in lengths)
        raise DataError(
            f"{path}: '{name}' has the shape {list(values.shape)}; expected {wanted} values for the tensor's "
            f"{lengths[0]} {what}"
        )
    values = values[: lengths[0]]  # PDEBench stores one time more than there are frames
    steps = np.diff(values)
    if not np.isfinite(values).all() or (steps <= 0).any():
        first = int(np.argmax(~(steps > 0)))
        raise DataError(
            f"{path}: '{name}' does not rise: its entries {first} and {first + 1} are {values[first]:g} and "
            f"{values[first + 1]:g}; expected rising values"
        )
    if len(steps) and np.ptp(steps) > SPACING_TOLERANCE * steps.mean():
        raise DataError(
            f"{path}: '{name}' is not evenly spaced: steps of {steps.min():g} to {steps.max():g}; expected equal ones"
        )
    return values


def _domain(positions: NDArray[np.float64]) -> tuple[tuple[float, float], float]:
    """The interval that evenly spaced points stand for, and where in its cell the first one lies (0.5: the middle)."""
    spacing = float(positions[-1] - positions[0]) / max(len(positions) - 1, 1)
    places = float(positions[0]) / spacing
    offset = 0.0 if abs(places - round(places)) < 0.01 else 0.5
    low = float(positions[0]) - offset * spacing
    digits = 6 - int(np.floor(np.log10(spacing)))  # coordinates are often stored in float32
    return (round(low, digits) + 0.0, round(low + len(positions) * spacing, digits)), offset


# ---------------------------------------------------------------------------------------------------------------------
# Parameters of the equation
# ---------------------------------------------------------------------------------------------------------------------
def _for_file(given: Parameters, number: int, paths: Sequence[Path]) -> dict[str, float]:
    values = {}
    for name, value in given.items():
        if isinstance(value, tuple) and len(value) != len(paths):
            raise DataError(
                f"dataset.parameters.{name} has {len(value)} numbers for {len(paths)} files; expected one for each of "
                f"{', '.join(path.name for path in paths)}",
                "parameters",
            )
        values[name] = value[number] if isinstance(value, tuple) else value
    return values


def _parameters(
    config: PDEBenchConfig, file: h5py.File, path: Path, samples: int, given: Mapping[str, float]
) -> dict[str, NDArray[np.float64]]:
    """The parameters that the model is told, for each trajectory."""
    arrays = {
        name: file[name]
        for name, shape in shapes(file).items()
        if shape == (samples,) and name not in (X, T, config.tensor) and file[name].dtype.kind in "fiu"
    }
    twice = sorted(arrays.keys() & given.keys())
    if twice:
        raise DataError(
            f"{path}: holds '{twice[0]}' of each trajectory, and the recipe gives {twice[0]} = {given[twice[0]]:g} for "
            "the whole file; remove the latter from dataset.parameters (or test_parameters)",
            "parameters",
        )
    attributes = {
        name: float(value)
        for owner in (file, file[config.tensor])
        for name, value in owner.attrs.items()
        if np.ndim(value) == 0 and np.asarray(value).dtype.kind in "fiu"
    }
    # An attribute may be anything, a date or a version: it is a parameter only where the recipe says so.
    names = _chosen(config, sorted({*arrays, *given}), str(path), sorted(attributes))
    if "dt" in names:
        raise DataError(
            f"{path}: a parameter is called 'dt', as the model calls the time step; rename it, or leave it out of "
            "dataset.conditions",
            "conditions",
        )
    chosen = {}
    for name in names:
        value = given[name] if name in given else attributes.get(name, 0.0)
        values = find_array(file, name, config.allow_external)[()] if name in arrays else np.full(samples, value)
        chosen[name] = np.asarray(values, np.float64)
        if not np.isfinite(chosen[name]).all():
            bad = np.flatnonzero(~np.isfinite(chosen[name]))
            raise DataError(
                f"{path}: parameter '{name}' is not finite for {len(bad)} samples, the first being {bad[0]}"
            )
    return chosen


def _chosen(config: PDEBenchConfig, known: Sequence[str], where: str, more: Sequence[str] = ()) -> tuple[str, ...]:
    """The names of the parameters that the model is told. Raises DataError for those that are nowhere."""
    if config.conditions is None:
        return tuple(known)
    every = (*known, *more)
    missing = [name for name in config.conditions if name not in every]
    if missing:
        raise DataError(
            f"{where}: no parameter '{missing[0]}'{did_you_mean(missing[0], every)} (looked for an array with a number "
            f"per trajectory, an attribute, and dataset.parameters; found: {', '.join(every) or 'none'})",
            "conditions",
        )
    return config.conditions
