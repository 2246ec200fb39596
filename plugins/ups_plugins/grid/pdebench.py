"""PDEBench's public HDF5 layouts (arXiv:2210.07182): which one a file has, and what its headers say, checked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ups_kit import DataError, Field
from ups_kit.data.hdf5 import StoredArray, find_array, opened, shapes
from ups_kit.data.making import check_made_by

from .arrays import ArraySource, Stack
from .config import Layout, PDEBenchConfig
from .coordinates import checked_coordinate, read_coordinate, told_periodic
from .files import check_file
from .groups import open_groups
from .source import AXES, Header, Source

COORDINATES = ("t-coordinate", *(f"{axis}-coordinate" for axis in AXES))
FLUID = ("density", "pressure", "Vx", "Vy", "Vz")  # in PDEBench's own order of channels
FLOW = ("velocity", "particles")
GIVEN = ("nu", "force")  # static fields of public files
TIME = "t"  # of the layout "velocity", [trajectory, time]
OUTFLOW = "_trans_"  # in the names of PDEBench's files of compressible flow that are not periodic


def open_file(config: PDEBenchConfig, path: Path) -> Source:
    """One file as a source, its headers read and checked. Raises DataError."""
    check_file(path)
    with opened(path) as file:
        if config.simulate is not None:
            check_made_by(path, file.attrs, config.simulate)
        layout = config.layout or layout_of(file, config.tensor) or "tensor"
        opening: Mapping[Layout, Callable[[PDEBenchConfig, h5py.File], Source]] = {
            "tensor": _open_tensor,
            "fields": _open_fields,
            "velocity": _open_velocity,
            "groups": open_groups,
        }
        return opening[layout](config, file)


def layout_of(names: Iterable[str], tensor: str = "tensor") -> Layout | None:
    """The layout of a file whose root holds these names, or None."""
    held = set(names)
    if tensor in held:
        return "tensor"
    if held & set(FLUID):
        return "fields"
    if "velocity" in held:
        return "velocity"
    return "groups" if held and all(name.isdecimal() for name in held) else None


# ---------------------------------------------------------------------------------------------------------------------
# The layouts whose fields are arrays of all trajectories
# ---------------------------------------------------------------------------------------------------------------------
def _open_tensor(config: PDEBenchConfig, file: h5py.File) -> Source:
    """`tensor` [trajectory, time, x, …]; with a single frame and static fields it is steady."""
    path = Path(file.filename)
    tensor = _stored(config, file, config.tensor)
    check_axes(file, config.tensor, tensor.shape)
    statics = _statics(config, file, (tensor.shape[0], *tensor.shape[2:]))
    names = config.fields if config.fields is not None else ("u",)
    if len(names) != 1:
        raise DataError(
            f"{path}: '{config.tensor}' holds one field, and dataset.fields names {len(names)}: {', '.join(names)}",
            "fields",
        )
    steady = tensor.shape[1] == 1 and bool(statics)
    header = Header(
        path=path,
        trajectories=tensor.shape[0],
        times=np.zeros(1) if steady else _times(config, file, tensor.shape[1]),
        axes=_axes(config, file, tensor.shape[2:]),
        targets=(Field(names[0], unit=unit_of(file[config.tensor])),),
        statics=_given(file, statics, tensor.shape),
        parameters=_parameters(file, tensor.shape[0], (config.tensor,)),
        attributes=numbers((file.attrs, file[config.tensor].attrs), tensor.shape[0]),
        steady=steady,
        periodic=told_periodic(file, len(tensor.shape) - 2) or (not steady,) * (len(tensor.shape) - 2),
    )
    return ArraySource(header, Stack((tensor,), (1,)), _stack(statics, tensor.shape))


def _open_fields(config: PDEBenchConfig, file: h5py.File) -> Source:
    """An array [trajectory, time, x, …] for each field."""
    path = Path(file.filename)
    names = config.fields if config.fields is not None else tuple(name for name in FLUID if name in file)
    arrays = {name: _stored(config, file, name, "" if config.fields is None else "fields") for name in names}
    if not arrays:
        find_array(file, FLUID[0])
    first = next(iter(arrays.values()))
    for name, array in arrays.items():
        check_axes(file, name, array.shape)
        if array.shape != first.shape:
            table = "\n".join(f"  '{other}' {list(each.shape)}" for other, each in arrays.items())
            raise DataError(f"{path}: its fields differ in shape; expected one shape for all of them:\n{table}")
    statics = _statics(config, file, (first.shape[0], *first.shape[2:]))
    header = Header(
        path=path,
        trajectories=first.shape[0],
        times=_times(config, file, first.shape[1]),
        axes=_axes(config, file, first.shape[2:]),
        targets=tuple(Field(name, unit=unit_of(file[name])) for name in arrays),
        statics=_given(file, statics, first.shape),
        parameters=_parameters(file, first.shape[0], tuple(arrays)),
        attributes=numbers((file.attrs,), first.shape[0]),
        periodic=told_periodic(file, len(first.shape) - 2) or (OUTFLOW not in path.name,) * (len(first.shape) - 2),
    )
    return ArraySource(header, Stack(tuple(arrays.values()), (1,) * len(arrays)), _stack(statics, first.shape))


def _open_velocity(config: PDEBenchConfig, file: h5py.File) -> Source:
    """`velocity` [trajectory, time, x, …, component], other fields of this form, and `t` [trajectory, time].

    Public files hold no coordinates of points: these stand for cells of the unit square or cube then.
    """
    path = Path(file.filename)
    names = config.fields if config.fields is not None else tuple(name for name in FLOW if name in file)
    arrays = {name: _stored(config, file, name, "" if config.fields is None else "fields") for name in names}
    if not arrays:
        find_array(file, FLOW[0])
    for name, array in arrays.items():
        _check_vectors(path, name, array.shape)
    shape = next(iter(arrays.values())).shape[:-1]
    if any(array.shape[:-1] != shape for array in arrays.values()):
        table = "\n".join(f"  '{name}' {list(array.shape)}" for name, array in arrays.items())
        raise DataError(f"{path}: its fields differ in shape; expected one but for the last axis:\n{table}")
    statics = _statics(config, file, (shape[0], *shape[2:]))
    channels = tuple(array.shape[-1] for array in arrays.values())
    header = Header(
        path=path,
        trajectories=shape[0],
        times=_common_times(config, file, shape[:2]),
        axes=_axes(config, file, shape[2:]) if COORDINATES[1] in file else _unit_axes(shape[2:]),
        targets=tuple(Field(name, count, unit_of(file[name])) for name, count in zip(arrays, channels, strict=True)),
        statics=_given(file, statics, shape),
        parameters=_parameters(file, shape[0], (*arrays, TIME)),
        attributes=numbers((file.attrs,), shape[0]),
        periodic=told_periodic(file, len(shape) - 2) or (False,) * (len(shape) - 2),
    )
    return ArraySource(header, Stack(tuple(arrays.values()), channels), _stack(statics, shape))


# ---------------------------------------------------------------------------------------------------------------------
# Parts of headers
# ---------------------------------------------------------------------------------------------------------------------
def _stored(config: PDEBenchConfig, file: h5py.File, name: str, key: str = "") -> StoredArray:
    """An array of the file; `key` is what the recipe names it by."""
    try:
        return StoredArray.of(find_array(file, name, config.allow_external), config.allow_external)
    except DataError as error:
        error.key = error.key or key
        raise


def check_axes(file: h5py.File, name: str, shape: tuple[int, ...]) -> None:
    """Raise DataError unless an array has the axes [sample, time, x, …], as the coordinates say, and values on them."""
    path, dims = file.filename, len(shape) - 2
    letters = ", ".join(AXES[: max(1, min(dims, 3))])
    expected = f"{path}: dataset '{name}' has the shape {list(shape)}; expected the axes [sample, time, {letters}]"
    if not 1 <= dims <= 3:
        raise DataError(f"{expected}, with one to three axes of space, got {max(dims, 0)}")
    if 0 in shape:
        what = ("samples", "frames", *("points" for _ in range(dims)))[shape.index(0)]
        raise DataError(f"{expected}, got an array without values: 0 {what}")
    lengths = {axis: length[0] for axis in COORDINATES if (length := _length(file, axis))}
    wanted = tuple(lengths.get(axis, 0) for axis in COORDINATES[1 : 1 + dims])
    if all(wanted) and shape[2:] != wanted:
        for axes in permutations(range(len(shape))):
            moved = tuple(shape[axis] for axis in axes)
            if moved[2:] == wanted and lengths.get(COORDINATES[0], moved[1]) - moved[1] in (0, 1):
                names = dict(zip(axes, ("sample", "time", *AXES[:dims]), strict=True))
                order = ", ".join(names[axis] for axis in range(len(shape)))
                raise DataError(f"{expected}, got what looks like [{order}]; store {name}.transpose{axes} instead")
    if min(shape[2:]) < 2:
        raise DataError(f"{expected}, with at least 2 points, got {min(shape[2:])}")


def _check_vectors(path: Path, name: str, shape: tuple[int, ...]) -> None:
    dims = len(shape) - 3
    if not 1 <= dims <= 3 or 0 in shape:
        letters = ", ".join(AXES[: max(1, min(dims, 3))])
        raise DataError(
            f"{path}: dataset '{name}' has the shape {list(shape)}; expected the axes [sample, time, {letters}, "
            "component], none of them empty"
        )


def _length(file: h5py.File, name: str) -> tuple[int, ...]:
    found = file.get(name) if file.get(name, getlink=True) is not None else None
    return tuple(found.shape or ()) if isinstance(found, h5py.Dataset) else ()


def _axes(config: PDEBenchConfig, file: h5py.File, points: Sequence[int]) -> tuple[NDArray[np.float64], ...]:
    return tuple(
        read_coordinate(file, name, (count,), "points", config.allow_external)
        for name, count in zip(COORDINATES[1:], points, strict=False)
    )


def _unit_axes(points: Sequence[int]) -> tuple[NDArray[np.float64], ...]:
    return tuple((np.arange(count) + 0.5) / count for count in points)


def _times(config: PDEBenchConfig, file: h5py.File, frames: int) -> NDArray[np.float64]:
    return read_coordinate(file, COORDINATES[0], (frames, frames + 1), "frames", config.allow_external)


def _common_times(config: PDEBenchConfig, file: h5py.File, shape: Sequence[int]) -> NDArray[np.float64]:
    """The times of all trajectories, which are those of the first one."""
    path = Path(file.filename)
    values = np.asarray(find_array(file, TIME, config.allow_external)[()], np.float64)
    if values.shape != tuple(shape):
        raise DataError(
            f"{path}: '{TIME}' has the shape {list(values.shape)}; expected {list(shape)}, a time for each frame of "
            "each trajectory"
        )
    differing = np.flatnonzero(~np.isclose(values, values[:1], rtol=1e-4, atol=1e-6).all(1))
    if len(differing):
        raise DataError(
            f"{path}: the times of the samples differ: '{TIME}' of sample 0 ends at {values[0, -1]:g}, that of sample "
            f"{differing[0]} at {values[differing[0], -1]:g}; expected one set of times in a file"
        )
    return checked_coordinate(path, TIME, values[0], (shape[1],), "frames")


def _statics(config: PDEBenchConfig, file: h5py.File, shape: tuple[int, ...]) -> dict[str, StoredArray]:
    """Static fields: those that the recipe names, else PDEBench's own where they have a value for each point."""
    if config.statics is None:
        names = [name for name in GIVEN if name in file and _length(file, name)[: len(shape)] == shape]
    else:
        names = list(config.statics)
    found = {name: _stored(config, file, name, "" if config.statics is None else "statics") for name in names}
    for name, array in found.items():
        if array.shape[: len(shape)] != shape or len(array.shape) > len(shape) + 1:
            letters = ", ".join(("sample", *AXES[: len(shape) - 1]))
            raise DataError(
                f"{file.filename}: static field '{name}' has the shape {list(array.shape)}; expected {list(shape)}, "
                f"the axes [{letters}], or these and components",
                "statics",
            )
    return found


def _given(file: h5py.File, statics: Mapping[str, StoredArray], shape: Sequence[int]) -> tuple[Field, ...]:
    return tuple(Field(name, array_channels(array, shape), unit_of(file[name])) for name, array in statics.items())


def _stack(statics: Mapping[str, StoredArray], shape: Sequence[int]) -> Stack:
    arrays = tuple(statics.values())
    return Stack(arrays, tuple(array_channels(array, shape) for array in arrays))


def array_channels(array: StoredArray, shape: Sequence[int]) -> int:
    """Channels of a static field, for targets of the shape [sample, time, x, …]."""
    return array.shape[-1] if len(array.shape) == len(shape) else 1


def _parameters(file: h5py.File, samples: int, fields: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """Arrays with a number for each trajectory."""
    return {
        name: np.asarray(file[name][()], np.float64)
        for name, shape in shapes(file).items()
        if shape == (samples,) and name not in (*COORDINATES, *fields) and file[name].dtype.kind in "fiu"
    }


def numbers(attributes: Iterable[Mapping[str, Any]], samples: int) -> dict[str, NDArray[np.float64]]:
    """Attributes that are numbers, as if each trajectory had them."""
    return {
        name: np.full(samples, float(value))
        for held in attributes
        for name, value in held.items()
        if np.ndim(value) == 0 and np.asarray(value).dtype.kind in "fiu"
    }


def unit_of(dataset: h5py.Dataset) -> str:
    """What an attribute "units" or "unit" says, where there is one."""
    for name in ("units", "unit"):
        if isinstance(value := dataset.attrs.get(name), str) and value:
            return value
    return "1"
