"""Plain arrays of any order of axes as trajectories that a dataset reads: a `grid_zarr` store, or PDEBench's HDF5."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from ..errors import DataError, did_you_mean
from .conversion import check_space, same, sync_all
from .conversion_options import Plain
from .grid_store import GridStore, Kind, write_grid_store
from .guard import Sign
from .tree import ArrayInfo, FileTree

TIMES = ("t", "time", "times", "t-coordinate")
BLOCK_VALUES = 2**22  # that are read at a time
Values = NDArray[Any]


@frozen
class Channels:
    """One field of the result: the array that holds it, and which of its channels."""

    array: str
    channels: slice


@frozen(eq=False)
class Trajectories:
    """Plain arrays seen as fields (trajectory, frame, x, y, z, channel)."""

    tree: FileTree
    plain: Plain
    fields: Mapping[str, Channels]
    times: NDArray[np.float64]
    axes: Mapping[str, NDArray[np.float64]]
    parameters: Mapping[str, NDArray[np.float64]]
    samples: int
    dtype: str

    @property
    def shape(self) -> tuple[int, ...]:
        """(samples, frames, *grid)."""
        return (self.samples, len(self.times), *(len(axis) for axis in self.axes.values()))

    def read(self, source: Any, name: str, samples: slice, frames: slice) -> Values:
        """(samples, frames, *grid, channels) of a field."""
        field = self.fields[name]
        cuts = {"b": samples, "t": frames, "c": field.channels}
        values = np.asarray(source[field.array][tuple(cuts.get(axis, slice(None)) for axis in self.plain.axes)])
        order = [axis for axis in ("b", "t", *self.plain.space, "c") if axis in self.plain.axes]
        values = values.transpose([self.plain.axes.index(axis) for axis in order])
        for number, axis in enumerate(("b", "t", *self.plain.space, "c")):
            if axis not in self.plain.axes:
                values = np.expand_dims(values, number)
        return np.ascontiguousarray(values, dtype=self.dtype)

    def blocks(self) -> Iterator[tuple[slice, slice]]:
        """Slices of samples and frames that cover everything, a few values at a time."""
        samples, frames, *grid = self.shape
        together = max(1, BLOCK_VALUES // max(math.prod(grid), 1))
        for first in range(0, samples, max(1, together // frames)):
            for start in range(0, frames, together):
                yield (
                    slice(first, min(first + max(1, together // frames), samples)),
                    slice(start, min(start + together, frames)),
                )


def convert_plain(sign: Sign, tree: FileTree, aside: Path, kind: str, plain: Plain) -> dict[str, Any]:
    """Write plain arrays as trajectories, read them again and compare. Raises DataError, StorageError."""
    from .inspection import opened_arrays

    with opened_arrays(tree) as source:
        cached: Any = _Whole(source) if tree.format == "npz" else source
        seen = _seen(tree, cached, plain)
        _check_names(seen, kind)
        values = math.prod(seen.shape) * sum(_count(tree, plain, field) for field in seen.fields.values())
        check_space(aside, values * np.dtype(seen.dtype).itemsize)
        {"zarr": _write_store, "hdf5": _write_hdf5, "npz": _write_npz}[kind](sign, seen, cached, aside)
        sync_all(aside)
        _compare(sign, seen, cached, aside, kind)
    return {"arrays": len(seen.fields), "values": values, "notes": []}


class _Whole:
    """Arrays of an archive, each unpacked once."""

    def __init__(self, source: Any) -> None:
        self._source, self._name, self._values = source, "", np.empty(0)

    def __getitem__(self, name: str) -> Values:
        if name != self._name:
            self._values, self._name = self._source[name], name
        return self._values


# ---------------------------------------------------------------------------------------------------------------------
# What the arrays are
# ---------------------------------------------------------------------------------------------------------------------
def _seen(tree: FileTree, source: Any, plain: Plain) -> Trajectories:
    names = _arrays(tree, plain)
    first = tree.arrays[names[0]]
    for name in names[1:]:
        shapes = {name: _without_channels(tree.arrays[name], plain), names[0]: _without_channels(first, plain)}
        if shapes[name] != shapes[names[0]]:
            listed = ", ".join(f"'{key}' {list(tree.arrays[key].shape)}" for key in names)
            raise DataError(f"{tree.path}: arrays differ in shape: {listed}; name those that go together in --arrays")
    lengths = dict(zip(plain.axes, first.shape, strict=True))
    samples, frames = lengths.get("b", 1), lengths.get("t", 1)
    if 0 in first.shape:
        raise DataError(f"{tree.path}: array '{names[0]}' has the shape {list(first.shape)}: there is nothing in it")
    fields = _fields(tree, names, plain)
    axes = {axis: _axis(tree, source, plain, axis, lengths[axis]) for axis in plain.space}
    dtypes = {tree.arrays[name].dtype.lstrip("<>|=") for name in names}
    return Trajectories(
        tree=tree,
        plain=plain,
        fields=fields,
        times=_times(tree, source, plain, frames),
        axes=axes,
        parameters=_parameters(tree, source, plain, samples, names),
        samples=samples,
        dtype="float64" if "f8" in dtypes else "float32",
    )


def _arrays(tree: FileTree, plain: Plain) -> tuple[str, ...]:
    letters = ",".join(plain.axes)
    listed = ", ".join(f"'{name}' {list(info.shape)}" for name, info in list(tree.arrays.items())[:12])
    if plain.arrays is not None:
        for name in plain.arrays:
            if name not in tree.arrays:
                near = did_you_mean(name, tree.arrays)
                raise DataError(f"{tree.path}: no array is called '{name}'{near} (there are: {listed})")
            if len(tree.arrays[name].shape) != len(plain.axes):
                raise DataError(
                    f"{tree.path}: array '{name}' has the shape {list(tree.arrays[name].shape)}; expected "
                    f"{len(plain.axes)} axes, as --axes {letters} says"
                )
        names = plain.arrays
    else:
        names = tuple(name for name, info in tree.arrays.items() if len(info.shape) == len(plain.axes))
    if not names:
        raise DataError(
            f"{tree.path}: no array has the {len(plain.axes)} axes of --axes {letters} (there are: {listed})"
        )
    for name in names:
        info = tree.arrays[name]
        if info.elsewhere:
            raise DataError(f"{tree.path}: the values of '{name}' lie elsewhere ({info.elsewhere}), and are not read")
        if info.dtype.lstrip("<>|=") not in ("f4", "f8"):
            raise DataError(
                f"{tree.path}: array '{name}' holds values of type {info.dtype}; expected float32 or float64"
            )
    return names


def _without_channels(info: ArrayInfo, plain: Plain) -> list[int]:
    return [size for axis, size in zip(plain.axes, info.shape, strict=True) if axis != "c"]


def _count(tree: FileTree, plain: Plain, field: Channels) -> int:
    total = tree.arrays[field.array].shape[plain.axes.index("c")] if "c" in plain.axes else 1
    return len(range(*field.channels.indices(total)))


def _fields(tree: FileTree, arrays: Sequence[str], plain: Plain) -> dict[str, Channels]:
    """Names of fields: one for each array, or, of a single array, one for each channel."""
    every = slice(None)
    channels = tree.arrays[arrays[0]].shape[plain.axes.index("c")] if "c" in plain.axes else 1
    names = plain.names or tuple(_default_name(tree, name) for name in arrays)
    twice = _twice(names)
    if twice is not None:
        raise DataError(
            f"{tree.path}: two fields would be called '{twice}' ({', '.join(names)}, of {', '.join(arrays)}); "
            "give each a name of its own in --names"
        )
    if len(names) == len(arrays):
        return {name: Channels(array, every) for name, array in zip(names, arrays, strict=True)}
    if len(arrays) == 1 and len(names) == channels:
        return {name: Channels(arrays[0], slice(number, number + 1)) for number, name in enumerate(names)}
    what = f"{channels} channels of '{arrays[0]}'" if len(arrays) == 1 else f"{len(arrays)} arrays"
    raise DataError(f"{tree.path}: --names has {len(names)} names ({', '.join(names)}) for {what}")


def _default_name(tree: FileTree, array: str) -> str:
    return "u" if tree.format == "npy" or array in (".", "tensor") else array.rpartition("/")[2]


def _axis(tree: FileTree, source: Any, plain: Plain, axis: str, points: int) -> NDArray[np.float64]:
    if plain.domain is None:
        for name in (axis, f"{axis}-coordinate", f"coords/{axis}"):
            if name in tree.arrays and tree.arrays[name].shape == (points,):
                return np.array(source[name][...], np.float64)
    low, high = plain.domain[plain.space.index(axis)] if plain.domain is not None else (0.0, 1.0)
    return np.asarray(low + (high - low) * (np.arange(points) + (0.5 if plain.centres else 0.0)) / points)


def _times(tree: FileTree, source: Any, plain: Plain, frames: int) -> NDArray[np.float64]:
    if plain.dt is None:
        for name in TIMES:
            if name in tree.arrays and tree.arrays[name].shape in ((frames,), (frames + 1,)):
                return np.array(source[name][...], np.float64)[:frames]
    if plain.dt is None and frames > 1:
        raise DataError(
            f"{tree.path}: does not say the time between frames (looked for an array {', '.join(TIMES)} of {frames} "
            "entries); give it as --dt"
        )
    return np.asarray(np.arange(frames) * (plain.dt or 1.0), np.float64)


def _parameters(
    tree: FileTree, source: Any, plain: Plain, samples: int, used: Sequence[str]
) -> dict[str, NDArray[np.float64]]:
    found: dict[str, NDArray[np.float64]] = {}
    for name, value in plain.parameters.items():
        if not isinstance(value, str):
            found[name] = np.full(samples, value)
            continue
        info = tree.arrays.get(value)
        if info is None or info.shape != (samples,):
            shape = f"has the shape {list(info.shape)}" if info is not None else "is not there"
            near = did_you_mean(value, tree.arrays) if info is None else ""
            raise DataError(f"{tree.path}: array '{value}' of --parameters {name} {shape}{near}; expected [{samples}]")
        found[name] = np.asarray(source[value][...], np.float64)
    return found


def _check_names(seen: Trajectories, kind: str) -> None:
    """Names of fields and parameters are such that a file can hold them, and each array has its own."""
    for name in (*seen.fields, *seen.parameters):
        if not name.strip(".") or set(name) & set("/\\\0") or not name.isprintable():
            raise DataError(
                f"{seen.tree.path}: no array can be called {name!r}; expected a name without / and \\ in --names and "
                "--parameters"
            )
    fields = [_hdf5_name(seen, name) if kind == "hdf5" else name for name in seen.fields]
    coordinates = [*seen.axes, "time"] if kind == "npz" else [f"{axis}-coordinate" for axis in (*seen.axes, "t")]
    twice = _twice([*fields, *seen.parameters, *coordinates])
    if twice is not None and kind != "zarr":  # a store has a group for each
        raise DataError(
            f"{seen.tree.path}: two arrays would be called '{twice}' in the new file; give another name in --names or "
            "--parameters"
        )


def _twice(names: Sequence[str]) -> str | None:
    return next((name for number, name in enumerate(names) if name in names[:number]), None)


# ---------------------------------------------------------------------------------------------------------------------
# Writing
# ---------------------------------------------------------------------------------------------------------------------
def _write_store(sign: Sign, seen: Trajectories, source: Any, aside: Path) -> None:
    store = GridStore(
        trajectories=seen.samples,
        axes=seen.axes,
        times=seen.times,
        fields={name: _count(seen.tree, seen.plain, field) for name, field in seen.fields.items()},
        parameters=seen.parameters,
        periodic=(seen.plain.periodic,) * len(seen.axes),
        domain=seen.plain.domain,
        dtype=cast(Any, seen.dtype),
    )

    def values(kind: Kind, name: str, samples: slice, frames: slice) -> Values:
        sign(name)
        return seen.read(source, name, samples, frames)

    write_grid_store(aside, store, values)


def _write_hdf5(sign: Sign, seen: Trajectories, source: Any, aside: Path) -> None:
    """PDEBench's layout: `tensor` [trajectory, time, x, …] of one field, or an array with its name for each of more."""
    import h5py

    with h5py.File(aside, "w", libver="latest") as file:
        for name in seen.fields:
            array = file.create_dataset(_hdf5_name(seen, name), seen.shape, seen.dtype)
            for samples, frames in seen.blocks():
                sign(name)
                array[samples, frames] = seen.read(source, name, samples, frames)[..., 0]
        for axis, places in seen.axes.items():
            file[f"{axis}-coordinate"] = places
        file["t-coordinate"] = seen.times
        for name, numbers in seen.parameters.items():
            file[name] = numbers


def _hdf5_name(seen: Trajectories, name: str) -> str:
    counts = {key: _count(seen.tree, seen.plain, field) for key, field in seen.fields.items()}
    if counts[name] != 1:
        raise DataError(
            f"{seen.tree.path}: field '{name}' has {counts[name]} channels, and PDEBench's arrays have none; give each "
            "a name in --names, or write a .zarr store"
        )
    return "tensor" if len(counts) == 1 else name


def _write_npz(sign: Sign, seen: Trajectories, source: Any, aside: Path) -> None:
    arrays: dict[str, Any] = {**seen.axes, "time": seen.times, **seen.parameters}
    for name in seen.fields:
        sign(name)
        arrays[name] = seen.read(source, name, slice(0, seen.samples), slice(0, len(seen.times)))
    with aside.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def _compare(sign: Sign, seen: Trajectories, source: Any, aside: Path, kind: str) -> None:
    """Read what was written, and hold it against the source. Raises StorageError where a value differs."""
    from .headers import read_tree
    from .inspection import opened_arrays

    with opened_arrays(read_tree(aside, sign)) as opened:
        written: Any = _Whole(opened) if kind == "npz" else opened
        for name in seen.fields:
            there = {"zarr": f"fields/{name}", "npz": name}.get(kind) or _hdf5_name(seen, name)
            for samples, frames in seen.blocks():
                sign(f"{name}, written")
                before = seen.read(source, name, samples, frames)
                after = np.asarray(written[there][samples, frames])
                same(name, before[..., 0] if kind == "hdf5" else before, after, (samples, frames))
