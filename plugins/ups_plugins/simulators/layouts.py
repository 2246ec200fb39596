"""PDEBench's public HDF5 layouts (Takamoto et al., arXiv:2210.07182), written from parts."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
from attrs import frozen
from numpy.typing import NDArray

Part = Mapping[str, NDArray[Any]]
HEADER_BYTES = 2**16
GROUP_BYTES = 2**12  # what a group takes beside its values


def cell_centres(points: int, low: float = 0.0, high: float = 1.0) -> NDArray[np.float64]:
    """The centres of equal cells."""
    return low + (high - low) * (np.arange(points) + 0.5) / points


def times_of(frames: int, duration: float, extra: int = 0) -> NDArray[np.float64]:
    """The frames' times; PDEBench writes one more than there are frames where it writes `t-coordinate`."""
    times: NDArray[np.float64] = np.arange(frames + extra, dtype=np.float64) * (duration / (frames - 1))
    return times


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


def write_coordinates(file: h5py.File, axes: Sequence[NDArray[np.float64]], times: NDArray[np.float64]) -> None:
    """Write `x-coordinate`, `y-coordinate`, `z-coordinate` as there are axes, and `t-coordinate`."""
    for letter, axis in zip("xyz", axes, strict=False):
        file[f"{letter}-coordinate"] = axis
    file["t-coordinate"] = times


@frozen
class TensorLayout:
    """One array for all trajectories: `tensor` [trajectory, time, x …] float32, contiguous; `x-coordinate` …;
    `t-coordinate` with one entry more than there are frames; a number for each trajectory by parameter name.
    """

    trajectories: int
    axes: tuple[NDArray[np.float64], ...]
    frames: int
    duration: float
    parameters: tuple[str, ...]
    attributes: Mapping[str, Any]

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.trajectories, self.frames, *map(len, self.axes))

    @property
    def bytes(self) -> int:
        return 4 * math.prod(self.shape) + HEADER_BYTES

    def write(self, path: Path, parts: Iterable[Part]) -> None:
        """Write the file from all parts, which hold `tensor` and the parameters."""
        with h5py.File(path, "w") as file:
            file.attrs.update(self.attributes)
            write_arrays(file, {"tensor": self.shape, **dict.fromkeys(self.parameters, self.shape[:1])}, parts)
            write_coordinates(file, self.axes, times_of(self.frames, self.duration, extra=1))


@frozen
class GroupLayout:
    """A group for each trajectory, "0000", "0001", …: `data` [t, x, y, channel] float32, `grid/x`, `grid/y`, `grid/t`,
    the attribute `config` with all settings as YAML, and the trajectory's own parameters as attributes by name.
    """

    trajectories: int
    axes: tuple[NDArray[np.float64], ...]
    frames: int
    duration: float
    channels: int
    attributes: Mapping[str, Any]
    settings: Mapping[str, Any]

    @property
    def bytes(self) -> int:
        values = self.frames * self.channels * math.prod(map(len, self.axes))
        return self.trajectories * (4 * values + GROUP_BYTES) + HEADER_BYTES

    def write(self, path: Path, parts: Iterable[Part]) -> None:
        """Write the file from all parts, which hold `data` and the parameters."""
        number = 0
        with h5py.File(path, "w") as file:
            file.attrs.update(self.attributes)
            for part in parts:
                parameters = {name: values for name, values in part.items() if name != "data"}
                for place, values in enumerate(part["data"]):
                    own = {name: float(entry[place]) for name, entry in parameters.items()}
                    self._write_group(file.create_group(f"{number:04d}"), values, {"seed": number, **own})
                    number += 1

    def _write_group(self, group: h5py.Group, values: NDArray[Any], own: Mapping[str, float]) -> None:
        group["data"] = values.astype(np.float32, copy=False)
        for letter, axis in zip("xyz", self.axes, strict=False):
            group[f"grid/{letter}"] = axis.astype(np.float32)
        group["grid/t"] = times_of(self.frames, self.duration)
        group.attrs["config"] = "".join(f"{name}: {_yaml(value)}\n" for name, value in {**self.settings, **own}.items())
        for name, value in own.items():
            if name != "seed":
                group.attrs[name] = value


def _yaml(value: Any) -> str:
    """A number, a text or several of them as YAML; JSON is YAML."""
    return json.dumps(value)


@frozen
class DarcyLayout:
    """PDEBench's steady file: `tensor` [n, 1, x, y] and `nu` [n, x, y] float32, coordinates, and `beta`, an attribute
    where it is one number and an array with a number for each sample where it differs.
    """

    trajectories: int
    axes: tuple[NDArray[np.float64], NDArray[np.float64]]
    beta: float | tuple[float, float]
    attributes: Mapping[str, Any]

    @property
    def bytes(self) -> int:
        return 8 * self.trajectories * math.prod(map(len, self.axes)) + HEADER_BYTES

    def write(self, path: Path, parts: Iterable[Part]) -> None:
        """Write the file from all parts, which hold `tensor`, `nu` and `beta`."""
        grid = tuple(map(len, self.axes))
        shapes: dict[str, tuple[int, ...]] = {
            "tensor": (self.trajectories, 1, *grid),
            "nu": (self.trajectories, *grid),
        }
        with h5py.File(path, "w") as file:
            file.attrs.update(self.attributes)
            if isinstance(self.beta, tuple):
                shapes["beta"] = (self.trajectories,)
            else:
                file.attrs["beta"] = self.beta
            write_arrays(file, shapes, parts)
            write_coordinates(file, self.axes, np.zeros(1))


@frozen
class FlowLayout:
    """PDEBench's incompressible file: `velocity` [n, t, x, y, 2], `t` [n, t], `force` [n, x, y, 2], and `nu`, a number
    for each trajectory. The vorticity is written as `tensor` [n, t, x, y], with coordinates instead of `t`. Where
    nothing drives the flow there is no `force`.
    """

    store: Literal["velocity", "vorticity"]
    trajectories: int
    axes: tuple[NDArray[np.float64], NDArray[np.float64]]
    frames: int
    duration: float
    forced: bool
    attributes: Mapping[str, Any]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The arrays' shapes by name."""
        count, grid = self.trajectories, tuple(map(len, self.axes))
        flow = (count, self.frames, *grid)
        stored = {"tensor": flow} if self.store == "vorticity" else {"velocity": (*flow, 2)}
        return {**stored, "nu": (count,), **({"force": (count, *grid, 2)} if self.forced else {})}

    @property
    def bytes(self) -> int:
        return 4 * sum(map(math.prod, self.shapes.values())) + HEADER_BYTES

    def write(self, path: Path, parts: Iterable[Part]) -> None:
        """Write the file from all parts, which hold the field, `nu` and, where there is one, `force`."""
        with h5py.File(path, "w") as file:
            file.attrs.update(self.attributes)
            write_arrays(file, self.shapes, parts)
            if self.store == "vorticity":
                write_coordinates(file, self.axes, times_of(self.frames, self.duration, extra=1))
            else:
                file["t"] = np.tile(times_of(self.frames, self.duration), (self.trajectories, 1))
