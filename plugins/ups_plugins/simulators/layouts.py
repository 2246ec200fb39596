"""PDEBench's public HDF5 layouts (Takamoto et al., arXiv:2210.07182), written from parts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

Part = Mapping[str, NDArray[Any]]
HEADER_BYTES = 2**16


def tensor_bytes(trajectories: int, shape: Sequence[int]) -> int:
    """The size of a file of float32 values, `shape` for each trajectory."""
    return 4 * trajectories * math.prod(shape) + HEADER_BYTES


def cell_centres(points: int, low: float = 0.0, high: float = 1.0) -> NDArray[np.float64]:
    """The centres of equal cells."""
    return low + (high - low) * (np.arange(points) + 0.5) / points


def times_of(frames: int, duration: float, extra: int = 0) -> NDArray[np.float64]:
    """The frames' times; PDEBench writes one more than there are frames where it writes `t-coordinate`."""
    return np.arange(frames + extra) * (duration / (frames - 1))


def write_arrays(file: h5py.File, shapes: Mapping[str, Sequence[int]], parts: Iterable[Part]) -> None:
    """Write arrays with one entry for each trajectory, contiguous: those of more than one axis in float32.

    `shapes` are whole shapes by name; the parts hold them in pieces of the first axis.
    """
    for name, shape in shapes.items():
        file.create_dataset(name, tuple(shape), np.float32 if len(shape) > 1 else np.float64)
    start = 0
    for part in parts:
        stop = start + len(part[next(iter(shapes))])
        for name in shapes:
            file[name][start:stop] = part[name]
        start = stop


def write_tensor(file: h5py.File, shape: Sequence[int], parts: Iterable[Part], parameters: Sequence[str] = ()) -> None:
    """Write `tensor` of this shape, and parameters with a number for each trajectory."""
    write_arrays(file, {"tensor": shape, **dict.fromkeys(parameters, shape[:1])}, parts)


def write_coordinates(file: h5py.File, axes: Sequence[NDArray[np.float64]], times: NDArray[np.float64]) -> None:
    """Write `x-coordinate`, `y-coordinate`, `z-coordinate` as there are axes, and `t-coordinate`."""
    for letter, axis in zip("xyz", axes, strict=False):
        file[f"{letter}-coordinate"] = axis
    file["t-coordinate"] = times


def write_groups(
    file: h5py.File,
    axes: Sequence[NDArray[np.float64]],
    times: NDArray[np.float64],
    parts: Iterable[Part],
    attributes: Callable[[int, Mapping[str, float]], Mapping[str, Any]],
) -> None:
    """Write a group for each trajectory, "0000", "0001", …: `data` [t, x, y, channel] float32 and `grid/x`, `grid/y`,
    `grid/t`. `attributes(number, parameters)` are those of the group, from the part's entries of one axis.
    """
    number = 0
    for part in parts:
        parameters = {name: values for name, values in part.items() if name != "data"}
        for place, values in enumerate(part["data"]):
            group = file.create_group(f"{number:04d}")
            group["data"] = values.astype(np.float32, copy=False)
            for letter, axis in zip("xyz", axes, strict=False):
                group[f"grid/{letter}"] = axis.astype(np.float32)
            group["grid/t"] = times.astype(np.float32)
            group.attrs.update(attributes(number, {name: float(entry[place]) for name, entry in parameters.items()}))
            number += 1
