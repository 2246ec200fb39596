"""Several files of trajectories as one: found, agreed, described, and read as if they were one array."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from attrs import evolve, frozen
from numpy.typing import NDArray

from ups_kit import DataError, Field, FieldSpec
from ups_kit.addresses import url_of
from ups_kit.data import paths
from ups_kit.data.hdf5 import check_kind
from ups_kit.data.stamps import Stamp

from .parameters import chosen, given_to, parameters_of
from .settings import TrajectorySettings
from .source import AXES, Header, Source
from .tail import without_first

SHOWN = 8  # files that a message lists
STEADY_DT = 1.0  # the "time step" of steady data: a constant condition
SIMULATE_HINT = (
    "a relative dataset.path starts from the folder of the recipe file; to have the file made, add a table "
    '[dataset.simulate] with use = "burgers1d"'
)


@frozen(eq=False)
class OpenFile:
    """One file, and the parameters of its trajectories that the model is told, (trajectories,) each."""

    source: Source
    parameters: Mapping[str, NDArray[np.float64]]

    @property
    def header(self) -> Header:
        return self.source.header


@frozen(eq=False)
class FileSet:
    """Several files as one array of trajectories, numbered through in the order of the files."""

    files: tuple[OpenFile, ...]
    starts: NDArray[np.int64]  # the number of each file's first trajectory, and at last their sum
    stamps: tuple[Stamp | None, ...]  # what each file was when it was opened; None of what lies behind a network

    @classmethod
    def of(cls, files: Sequence[OpenFile]) -> FileSet:
        starts = np.cumsum([0, *(file.header.trajectories for file in files)])
        return cls(tuple(files), starts, tuple(Stamp.of_local(file.header.path) for file in files))

    def check_unchanged(self, ids: NDArray[np.int64]) -> None:
        """Raise DataError where a file of these trajectories was replaced, cut or written to since it was opened."""
        numbers = np.searchsorted(self.starts, ids, side="right") - 1 if len(self.files) > 1 else np.zeros(1, int)
        for number in set(numbers.tolist()):
            stamp = self.stamps[number]
            if stamp is not None:
                stamp.check()

    @property
    def fingerprint(self) -> str:
        """A hash of the files' names, sizes and times of change; of what lies behind a network, of its address."""
        facts = [
            str(file.header.path) if stamp is None else f"{stamp.path.name} {stamp.size} {stamp.changed}"
            for file, stamp in zip(self.files, self.stamps, strict=True)
        ]
        return hashlib.sha256("\n".join(facts).encode()).hexdigest()

    @property
    def header(self) -> Header:
        """The first file's; the others agree with it."""
        return self.files[0].header

    @property
    def parameters(self) -> NDArray[np.float64]:
        """Parameters of all trajectories, (trajectories, names)."""
        names = tuple(self.files[0].parameters)
        columns = [np.concatenate([file.parameters[name] for file in self.files]) for name in names]
        return np.stack(columns, 1) if columns else np.empty((int(self.starts[-1]), 0))

    def gather(self, ids: NDArray[np.int64], frames: NDArray[np.int64]) -> NDArray[np.float32]:
        """Frames (B, F) of trajectories (B,): (B, F, *grid, C)."""
        if len(self.files) == 1:
            return self.files[0].source.gather(ids, frames)
        result = np.empty((*frames.shape, *self.header.grid, self.header.target_channels), np.float32)
        for number, mine in self._owners(ids):
            result[mine] = self.files[number].source.gather(ids[mine] - self.starts[number], frames[mine])
        return result

    def gather_points(
        self, ids: NDArray[np.int64], frames: NDArray[np.int64], points: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """The same at points (B, Q) alone: (B, F, Q, C)."""
        result = np.empty((*frames.shape, points.shape[1], self.header.target_channels), np.float32)
        for number, mine in self._owners(ids):
            local = ids[mine] - self.starts[number]
            result[mine] = self.files[number].source.gather_points(local, frames[mine], points[mine])
        return result

    def rows(self, ids: NDArray[np.int64], frames: slice) -> NDArray[np.float32]:
        """A slice of the frames of trajectories (S,): (S, frames, *grid, C)."""
        count = len(range(*frames.indices(len(self.header.times))))
        result = np.empty((len(ids), count, *self.header.grid, self.header.target_channels), np.float32)
        for number, mine in self._owners(ids):
            result[mine] = self.files[number].source.rows(ids[mine] - self.starts[number], frames)
        return result

    def statics(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Static fields of trajectories (S,): (S, *grid, static channels)."""
        result = np.empty((len(ids), *self.header.grid, self.header.static_channels), np.float32)
        if self.header.statics:
            for number, mine in self._owners(ids):
                result[mine] = self.files[number].source.statics(ids[mine] - self.starts[number])
        return result

    def parts(self, ids: NDArray[np.int64]) -> Iterator[tuple[Source, NDArray[np.int64], NDArray[np.bool_]]]:
        """Each source that owns some of the ids, its own numbers of them, and where they stand among the ids."""
        for number, mine in self._owners(ids):
            yield self.files[number].source, ids[mine] - self.starts[number], mine

    def place(self, trajectory: int) -> str:
        """Where a trajectory lies, for a message."""
        number = int(np.searchsorted(self.starts, trajectory, side="right")) - 1
        return f"{self.files[number].header.path}, sample {trajectory - self.starts[number]}"

    def _owners(self, ids: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.bool_]]]:
        numbers = np.searchsorted(self.starts, ids, side="right") - 1
        for number in np.unique(numbers):
            yield int(number), numbers == number


# ---------------------------------------------------------------------------------------------------------------------
# Finding files
# ---------------------------------------------------------------------------------------------------------------------
def to_be_made(config: TrajectorySettings) -> Path | None:
    """The file that the recipe's simulator has to make, or None where there is one or nothing makes it."""
    return paths.to_be_made(config.path, config.simulate)


def check_file(path: Path) -> None:
    """Raise DataError where there is no regular, readable file, and say how to have one made."""
    url = url_of(path)
    if url is not None:
        raise DataError(
            f"{url}: HDF5 files are read from this machine alone; download it, or put a Zarr store there "
            '(`upskit data convert`) and read that with use = "grid_zarr"'
        )
    try:
        check_kind(path)
    except DataError as error:
        raise DataError(f"{error} ({SIMULATE_HINT})" if not os.path.lexists(path) else str(error)) from error


# ---------------------------------------------------------------------------------------------------------------------
# Opening files
# ---------------------------------------------------------------------------------------------------------------------
SEPARATE: Mapping[str, Literal["test_path", "validation_path"]] = {
    "test": "test_path",
    "validation": "validation_path",
}  # splits that may have files of their own, and the key that names these


def open_files(
    config: TrajectorySettings, key: Literal["path", "test_path", "validation_path"] = "path"
) -> tuple[OpenFile, ...]:
    """The recipe's files, or those of one split alone, opened; they agree in all but their trajectories.

    A DataError names the key that it is about, else the one that the files stand under.
    """
    path: Path | tuple[Path, ...] | None = getattr(config, key)
    if path is None:
        return ()
    names = paths.found(path, key)
    try:
        files = tuple(_open(config, names, number, key == "test_path") for number in range(len(names)))
        check_agreement(files)
    except DataError as error:
        error.key = error.key or key
        raise
    return files


def _open(config: TrajectorySettings, names: Sequence[Path], number: int, test: bool) -> OpenFile:
    given = given_to(config, names, number, test)
    source = without_first(config.open_source(names[number]), config.first_frame)
    return OpenFile(source, parameters_of(config, source.header, given))


def check_agreement(files: Sequence[OpenFile]) -> None:
    """Raise DataError where files differ in fields, points, times or parameters, with a table of those that do."""
    differing = [file for file in files[1:] if not _alike(files[0], file)]
    if differing:
        more = f"\n  and {len(differing) - SHOWN} more" if len(differing) > SHOWN else ""
        table = "\n".join(f"  {file.header.path}: {_summary(file)}" for file in (files[0], *differing[:SHOWN]))
        raise DataError(
            "files differ; expected the same fields, points, times and parameters in all of them (for other grids or "
            f"fields use the dataset 'mixture'):\n{table}{more}"
        )


def _alike(one: OpenFile, other: OpenFile) -> bool:
    first, second = one.header, other.header
    return (
        first.grid == second.grid
        and first.times.shape == second.times.shape
        and first.targets == second.targets
        and first.statics == second.statics
        and all(np.allclose(a, b, atol=1e-5) for a, b in zip(first.axes, second.axes, strict=True))
        and np.allclose(first.times, second.times, atol=1e-5)
        and list(one.parameters) == list(other.parameters)
    )


def _summary(file: OpenFile) -> str:
    header = file.header
    axes = "".join(
        f", {name} {axis[0]:g} … {axis[-1]:g}" for name, axis in zip(AXES, header.axes, strict=False) if len(axis)
    )
    times = "steady" if header.steady else f"t {header.times[0]:g} … {header.times[-1]:g}"
    fields = ", ".join(each.name for each in (*header.targets, *header.statics))
    return (
        f"{[header.trajectories, len(header.times), *header.grid]}{axes}, {times}, fields {fields}, "
        f"parameters {', '.join(file.parameters) or 'none'}"
    )


# ---------------------------------------------------------------------------------------------------------------------
# What the data are
# ---------------------------------------------------------------------------------------------------------------------
def describe(config: TrajectorySettings) -> FieldSpec:
    """What the data are, from headers alone."""
    if to_be_made(config) is not None and config.simulate is not None:
        base = config.simulate.describe()
        known = {*base.conditions[1:], *config.parameters}
        conditions = ("dt", *chosen(config, sorted(known), "the simulator"))
        targets = _named_targets(getattr(config, "fields", None), base.targets)
        return _strided(config, evolve(base, targets=targets, conditions=conditions))
    return field_spec(config, open_files(config))


def _named_targets(names: Sequence[str] | None, made: tuple[Field, ...]) -> tuple[Field, ...]:
    """The fields of a file to be made that the recipe chooses, or as it calls them."""
    by_name = {field.name: field for field in made}
    if names is None or not names:
        return made
    if all(name in by_name for name in names):
        return tuple(by_name[name] for name in names)
    if len(names) == len(made) and all(field.channels == 1 for field in made):
        return tuple(evolve(field, name=name) for name, field in zip(names, made, strict=True))
    return made  # what is wrong with the names is told when the file is there


def field_spec(config: TrajectorySettings, files: Sequence[OpenFile]) -> FieldSpec:
    """What the model is given and predicts, at the recipe's strides."""
    header = files[0].header
    frames = len(header.times)
    _check_frames(config, header)
    domain, offsets = zip(*(_domain(axis) for axis in header.axes), strict=True)
    if len(set(offsets)) > 1:
        places = ", ".join(f"{name} {axis[0]:g} … {axis[-1]:g}" for name, axis in zip(AXES, header.axes, strict=False))
        raise DataError(f"{header.path}: some axes hold nodes and others cell centres ({places}); expected one of them")
    base = FieldSpec(
        targets=header.targets,
        statics=header.statics,
        domain=domain,
        periodic=header.periodic or (False,) * len(domain),
        layout="grid",
        grid=header.grid,
        dt=STEADY_DT if header.steady else float(header.times[-1] - header.times[0]) / (frames - 1),
        conditions=("dt", *files[0].parameters),
        offset=offsets[0],
        history=0 if header.steady else 1,
    )
    return _strided(config, base)


def _check_frames(config: TrajectorySettings, header: Header) -> None:
    if header.steady:
        if config.history > 1:
            message = (
                f"{header.path}: its fields are steady, so no frame comes before the answer; leave dataset.history"
            )
            raise DataError(f"{message} = {config.history} out", "history")
        if not header.statics:
            raise DataError(
                f"{header.path}: its fields are steady, and no field is given at every point that they follow from; "
                "expected one, such as 'nu'"
            )
        return
    if config.history == 0:
        raise DataError(
            f"{header.path}: holds {len(header.times)} frames in time, and dataset.history = 0 is for steady data; "
            "expected at least 1",
            "history",
        )
    needed = config.time_stride * config.history + 1
    if len(header.times) < needed:
        raise DataError(
            f"{header.path}: has {len(header.times)} frames; dataset.history = {config.history} and time_stride = "
            f"{config.time_stride} need at least {needed}, so that there is one to predict"
        )


def _strided(config: TrajectorySettings, base: FieldSpec) -> FieldSpec:
    grid, stride = base.grid or (), config.space_stride
    if any(points % stride or points // stride < 2 for points in grid):
        common = math.gcd(*grid)
        near = [divisor for divisor in range(1, min(grid) // 2 + 1) if common % divisor == 0]
        fitting = ", ".join(str(divisor) for divisor in sorted(near, key=lambda divisor: abs(divisor - stride))[:2])
        shape = " × ".join(map(str, grid))
        message = f"dataset.space_stride = {stride} does not divide the {shape} points; nearest: {fitting}"
        raise DataError(message, "space_stride")
    return evolve(
        base,
        grid=tuple(points // stride for points in grid),
        offset=base.offset / stride,
        dt=base.dt if base.steady else base.dt * config.time_stride,
        history=0 if base.steady else config.history,
        periodic=_periodic(config, base),
        sampled=config.points,
        sampled_inputs=config.input_points[0] if isinstance(config.input_points, tuple) else config.input_points,
    )


def _periodic(config: TrajectorySettings, base: FieldSpec) -> tuple[bool, ...]:
    given, axes = config.periodic, len(base.domain)
    if isinstance(given, tuple) and len(given) != axes:
        raise DataError(
            f"dataset.periodic = {list(given)} is for {len(given)} axes, and the data have {axes}: expected true, "
            f"false, or {axes} of them",
            "periodic",
        )
    if given is None:
        return base.periodic
    return given if isinstance(given, tuple) else (given,) * axes


def _domain(positions: NDArray[np.float64]) -> tuple[tuple[float, float], float]:
    """The interval that evenly spaced points stand for, and where in its cell the first one lies (0.5: the middle)."""
    spacing = float(positions[-1] - positions[0]) / max(len(positions) - 1, 1)
    places = float(positions[0]) / spacing
    offset = 0.0 if abs(places - round(places)) < 0.01 else 0.5
    low = float(positions[0]) - offset * spacing
    digits = 6 - int(np.floor(np.log10(spacing)))  # coordinates are often stored in float32
    return (round(low, digits) + 0.0, round(low + len(positions) * spacing, digits)), offset
