"""PDEBench's files with a group for each trajectory: "0000/data" [time, x, …, channel] and "0000/grid/x", …, "t"."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from attrs import define, field
from numpy.typing import NDArray

from ups_kit import DataError, Field
from ups_kit.data.hdf5 import StoredArray, as_float32, damage_told, find_array
from ups_kit.errors import did_you_mean

from .coordinates import read_coordinate, told_periodic
from .source import AXES, Header

if TYPE_CHECKING:
    from .config import PDEBenchConfig

DATA, GRID = "data", "grid"
SHOWN = 6  # groups that a message lists
USUAL = {(2, 1): ("h",), (2, 2): ("activator", "inhibitor")}  # channels by axes and their number: PDEBench's own files
NO_PARAMETERS = ("seed", "radius")  # numbers of a group that are none of the equation's: of its initial condition


@define(eq=False)
class GroupSource:
    """A `Source` of one array for each trajectory, all of one shape.

    Contiguous values are mapped by their offsets in the file, which are read once; others are read through h5py by a
    handle that each process opens for itself.
    """

    header: Header
    names: tuple[str, ...]  # of the groups, in order
    dtype: np.dtype[Any]
    offsets: NDArray[np.int64]  # (trajectories,), -1 where the values do not lie in one piece
    _bytes: NDArray[np.uint8] | None = field(default=None, init=False, repr=False)
    _handle: tuple[int, h5py.File] | None = field(default=None, init=False, repr=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one trajectory: [time, x, …, channel]."""
        return (len(self.header.times), *self.header.grid, self.header.target_channels)

    def gather(self, samples: NDArray[np.integer], frames: NDArray[np.integer]) -> NDArray[np.float32]:
        """Target frames, (B, F, *grid, C)."""
        result = np.empty((*frames.shape, *self.shape[1:]), np.float32)
        for row in np.argsort(samples, kind="stable"):  # in the file's order
            sample, chosen = int(samples[row]), frames[row]
            if self.offsets[sample] >= 0:
                result[row] = self._mapped(sample)[chosen]
            else:
                step = int(chosen[1] - chosen[0]) if len(chosen) > 1 else 1
                self._read(sample, slice(int(chosen[0]), int(chosen[-1]) + 1, step), result[row])
        return result

    def gather_points(
        self, samples: NDArray[np.integer], frames: NDArray[np.integer], points: NDArray[np.integer]
    ) -> NDArray[np.float32]:
        """Target frames at some points, (B, F, Q, C)."""
        channels = self.header.target_channels
        result = np.empty((*frames.shape, points.shape[1], channels), np.float32)
        for row in np.argsort(samples, kind="stable"):
            sample, one = int(samples[row]), slice(int(row), int(row) + 1)
            if self.offsets[sample] >= 0:
                values = self._mapped(sample).reshape(self.shape[0], -1, channels)
                result[row] = values[frames[row][:, None], points[row]]
            else:
                whole = self.gather(samples[one], frames[one])[0]
                result[row] = whole.reshape(len(whole), -1, channels)[:, points[row]]
        return result

    def rows(self, samples: NDArray[np.integer], frames: slice) -> NDArray[np.float32]:
        """A slice of frames of some samples, (S, frames, *grid, C)."""
        count = len(range(*frames.indices(self.shape[0])))
        result = np.empty((len(samples), count, *self.shape[1:]), np.float32)
        for row, sample in enumerate(samples):
            if self.offsets[sample] >= 0:
                result[row] = self._mapped(int(sample))[frames]
            else:
                self._read(int(sample), frames, result[row])
        return result

    def statics(self, samples: NDArray[np.integer]) -> NDArray[np.float32]:
        """There are none: (S, *grid, 0)."""
        return np.empty((len(samples), *self.header.grid, 0), np.float32)

    def _mapped(self, sample: int) -> NDArray[Any]:
        if self._bytes is None:
            self._bytes = np.asarray(np.memmap(self.header.path, np.uint8, "r"))
        return np.ndarray(self.shape, self.dtype, self._bytes.data, int(self.offsets[sample]))

    def _read(self, sample: int, frames: slice, into: NDArray[np.float32]) -> None:
        with damage_told(self.header.path):
            if self._handle is None or self._handle[0] != os.getpid():
                self._handle = (os.getpid(), h5py.File(self.header.path, "r"))
            into[...] = as_float32(self._handle[1][f"{self.names[sample]}/{DATA}"][frames])

    def __getstate__(self) -> tuple[Any, ...]:
        return (self.header, self.names, self.dtype, self.offsets)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.__init__(*state)  # type: ignore[misc]


# ---------------------------------------------------------------------------------------------------------------------
# Headers
# ---------------------------------------------------------------------------------------------------------------------
def open_groups(config: PDEBenchConfig, file: h5py.File) -> GroupSource:
    """The groups of an open file, whose headers agree. Raises DataError."""
    path = Path(file.filename)
    names = tuple(sorted(name for name in file if file.get(name, getclass=True) is h5py.Group))
    if not names:
        raise DataError(f"{path}: holds no groups; expected one for each trajectory, '0000', '0001', …")
    first = StoredArray.of(_data_of(file, names[0], config.allow_external), config.allow_external)
    _check_axes(path, first)
    frames, points = first.shape[0], first.shape[1:-1]
    axes = {letter: _coordinate(config, file, names[0], letter, (n,), "points") for letter, n in zip(AXES, points)}
    times = _coordinate(config, file, names[0], "t", (frames, frames + 1), "frames")
    offsets = _offsets(config, file, names, first, {**axes, "t": times})
    parameters = _attributes(file, names)
    header = Header(
        path=path,
        trajectories=len(names),
        times=times,
        axes=tuple(axes.values()),
        targets=_targets(config, path, names[0], first.shape),
        parameters={name: values for name, values in parameters.items() if name not in NO_PARAMETERS},
        attributes={name: values for name, values in parameters.items() if name in NO_PARAMETERS},
        periodic=told_periodic(file, len(points)) or (False,) * len(points),
    )
    return GroupSource(header, names, first.dtype, offsets)


def _data_of(file: h5py.File, name: str, allow_external: bool) -> h5py.Dataset:
    group = file.get(name)
    if isinstance(group, h5py.Group) and group.get(DATA, getlink=True) is None:
        held = ", ".join(group) or "nothing"
        raise DataError(
            f"{file.filename}: the group '{name}' holds no '{DATA}'{did_you_mean(DATA, group)} (it holds {held}); "
            f"expected '{DATA}' [time, x, …, channel] and '{GRID}/x', …, '{GRID}/t' in every group"
        )
    return find_array(file, f"{name}/{DATA}", allow_external)


def _check_axes(path: Path, first: StoredArray) -> None:
    dims = len(first.shape) - 2
    letters = ", ".join(AXES[: max(1, min(dims, 3))])
    has = f"{path}: dataset '{first.name}' has the shape {list(first.shape)}"
    expected = f"{has}; expected the axes [time, {letters}, channel]"
    if not 1 <= dims <= 3:
        raise DataError(f"{expected}, with one to three axes of space, got {max(dims, 0)}")
    if 0 in first.shape:
        raise DataError(f"{expected}, got an array without values")


def _coordinate(
    config: PDEBenchConfig, file: h5py.File, group: str, letter: str, lengths: tuple[int, ...], what: str
) -> NDArray[np.float64]:
    return read_coordinate(file, f"{group}/{GRID}/{letter}", lengths, what, config.allow_external)


def _targets(config: PDEBenchConfig, path: Path, group: str, shape: Sequence[int]) -> tuple[Field, ...]:
    dims, channels = len(shape) - 2, shape[-1]
    names = config.fields
    if names is None:
        usual = ("u",) if channels == 1 else tuple(f"u{number}" for number in range(1, channels + 1))
        names = USUAL.get((dims, channels), usual)
    if len(names) != channels:
        raise DataError(
            f"{path}: '{group}/{DATA}' {list(shape)} has {channels} channels, and dataset.fields names {len(names)}: "
            f"{', '.join(names)}",
            "fields",
        )
    return tuple(Field(name) for name in names)


def _offsets(
    config: PDEBenchConfig,
    file: h5py.File,
    names: Sequence[str],
    first: StoredArray,
    coordinates: Mapping[str, NDArray[np.float64]],
) -> NDArray[np.int64]:
    """Where each group's values begin, or -1; every group has the first one's shape, type and coordinates.

    Through h5py's low-level calls: a file may hold ten thousand groups.
    """
    path, size = Path(file.filename), Path(file.filename).stat().st_size
    offsets = np.full(len(names), -1, np.int64)
    shapes: dict[str, tuple[Any, ...]] = {}
    kind = h5py.h5t.py_create(first.dtype)
    stored = _stored_grid(h5py.h5g.open(file.id, names[0].encode()), coordinates)
    for number, name in enumerate(names):
        group = h5py.h5g.open(file.id, name.encode())
        own = _own(group, DATA) if _is_hard(file.id, name) else None
        data = own or _data_of(file, name, config.allow_external).id
        if data.shape != first.shape or data.get_type() != kind:
            shapes[name] = data.shape if data.dtype == first.dtype else (*data.shape, data.dtype)
            continue
        if own is not None and not _is_elsewhere(own):
            place = own.get_offset()  # None where the values are in chunks
            offsets[number] = -1 if place is None else place
        elif not config.allow_external:
            find_array(file, f"{name}/{DATA}")  # says where the values are
        found = _stored_grid(group, coordinates)
        for letter, wanted in coordinates.items():
            if found.get(letter) != stored.get(letter) or not stored:
                _check_coordinate(config, file, f"{name}/{GRID}/{letter}", wanted, names[0])
    if shapes:
        listed = ", ".join(f"'{name}' {list(shape)}" for name, shape in [*shapes.items()][:SHOWN])
        more = f" and {len(shapes) - SHOWN} more" if len(shapes) > SHOWN else ""
        raise DataError(
            f"{path}: groups differ in the shape of '{DATA}'; expected {list(first.shape)} as in '{names[0]}', got "
            f"{listed}{more}"
        )
    end = int(offsets.max(initial=-1)) + int(np.prod(first.shape)) * first.dtype.itemsize
    if offsets.max(initial=-1) >= 0 and end > size:
        raise DataError(
            f"{path}: is truncated: dataset '{names[int(offsets.argmax())]}/{DATA}' ends at byte {end:,}, and the file "
            f"has {size:,} bytes; download or make it again"
        )
    return offsets


def _own(group: Any, name: str) -> Any:
    """The dataset of this name that lies in the group itself, or None."""
    try:
        return h5py.h5d.open(group, name.encode()) if _is_hard(group, name) else None
    except (OSError, KeyError, ValueError, TypeError):  # it is a group, or damaged: the slow way tells
        return None


def _is_hard(group: Any, name: str) -> bool:
    """Whether a group holds an object of this name, and no link to one elsewhere."""
    try:
        return bool(group.links.get_info(name.encode()).type == h5py.h5l.TYPE_HARD)
    except (KeyError, RuntimeError):
        return False


def _stored_grid(group: Any, letters: Iterable[str]) -> dict[str, bytes]:
    """A group's coordinates as stored, type and shape before each; empty where they have to be looked at closely."""
    stored: dict[str, bytes] = {}
    grid = h5py.h5g.open(group, GRID.encode()) if _is_hard(group, GRID) else None
    for letter in letters if grid is not None else ():
        own = _own(grid, letter)
        if own is None or own.get_type().get_class() != h5py.h5t.FLOAT or _is_elsewhere(own):
            return {}
        values = np.empty(own.shape, own.dtype)
        own.read(h5py.h5s.ALL, h5py.h5s.ALL, values)
        stored[letter] = f"{values.dtype.str}{values.shape}".encode() + values.tobytes()
    return stored


def _is_elsewhere(data: Any) -> bool:
    created = data.get_create_plist()
    return bool(created.get_layout() == h5py.h5d.VIRTUAL or created.get_external_count())


def _check_coordinate(
    config: PDEBenchConfig, file: h5py.File, name: str, wanted: NDArray[np.float64], model: str
) -> None:
    """Raise DataError where a group's coordinate is not the first group's, but for rounding."""
    stored = find_array(file, name, config.allow_external)
    found = np.asarray(stored[()], np.float64) if stored.dtype.kind in "fiu" else np.empty(0)
    found = found[: len(wanted)] if found.ndim == 1 else found
    if found.shape != wanted.shape or not np.allclose(found, wanted, rtol=1e-5, atol=1e-6 * abs(wanted).max()):
        shown = f"{found.flat[0]:g} … {found.flat[-1]:g}" if found.size else "no numbers"
        raise DataError(
            f"{file.filename}: the grids of the groups differ: '{name}' holds {list(stored.shape or ())} values, "
            f"{shown}; expected {list(wanted.shape)}, {wanted[0]:g} … {wanted[-1]:g}, as in '{model}'"
        )


def _attributes(file: h5py.File, names: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """Attributes of the groups that are numbers: the parameters of their trajectories."""
    held = file[names[0]].attrs
    wanted = [name for name, value in held.items() if np.ndim(value) == 0 and np.asarray(value).dtype.kind in "fiu"]
    found = {name: np.empty(len(names)) for name in wanted}
    for number, group in enumerate(names) if wanted else ():
        own = file[group].attrs
        for name in wanted:
            value = own.get(name)
            if value is None or np.ndim(value) != 0 or np.asarray(value).dtype.kind not in "fiu":
                raise DataError(
                    f"{file.filename}: the group '{group}' has no number '{name}' among its attributes, as "
                    f"'{names[0]}' has; expected it in every group, or in none"
                )
            found[name][number] = float(value)
    return found
