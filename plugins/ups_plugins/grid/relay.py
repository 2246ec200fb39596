"""States of a grid on other points: finer and coarser grids, meshes, clouds.

They come from the file at its full resolution, whatever stride the recipe trains at. Every s-th point of the stored
grid is taken as it is; all others are found by cubic splines through all stored points.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from ups_kit import DataError
from ups_kit.data.discretisations import (
    cloud_points,
    fewest_nodes,
    grid_axes,
    grid_points,
    grid_shape,
    mesh_nodes,
    stride_between,
    triangles,
)
from ups_kit.data.relaying import MOST_POINTS, PROBED, probed_frames, relative_error
from ups_kit.data.splines import GridSpline
from ups_kit.data.splits import evenly
from ups_kit.interfaces import Layout, Offer, Relaid, Trajectories

if TYPE_CHECKING:
    from .dataset import GridDataset

FRAMES_VALUES = 4 << 20  # of a trajectory that are computed with in float64 at a time


def offer(dataset: GridDataset, layout: Layout, points: int) -> Offer:
    """The points that there would be. Raises DataError where they cannot be had."""
    stored, periodic = dataset.files.header.grid, dataset.fields.periodic
    least = {"grid": 2 ** len(stored), "mesh": fewest_nodes(periodic), "particles": 1}[layout]
    if not least <= points <= MOST_POINTS:
        near = min(max(points, least), MOST_POINTS)
        raise DataError(f"{points} points as {layout} cannot be had of these data; nearest: {near}", "points")
    if layout != "grid":
        return Offer(points, None)
    shape = grid_shape(stored, points)
    every = _every(dataset, shape)
    return Offer(math.prod(shape), shape, dataset.fields.offset if every is None else every.offset)


class Every(NamedTuple):
    """Every s-th point along each axis of the stored grid, from which one on, and where that lies in the new cells."""

    stride: int
    start: int
    offset: float


def _every(dataset: GridDataset, shape: tuple[int, ...]) -> Every | None:
    """The stored points that make a grid of this shape, or None.

    They lie in its cells as the recipe's own points do in theirs, where any do: at an even stride, no cell centre is in
    the middle of the new cells.
    """
    stride = stride_between(dataset.files.header.grid, shape)
    if stride is None:
        return None
    own = dataset.fields.offset
    stored = own * dataset.settings.space_stride
    start = stride * own - stored
    if abs(start - round(start)) < 1e-9 and 0 <= round(start) < stride:
        return Every(stride, round(start), own)
    return Every(stride, 0, stored / stride)


def relay(dataset: GridDataset, split: str, layout: Layout, points: int, limit: int | None) -> Relaid:
    """The states of a split's trajectories on such points, the same for all of them."""
    import torch

    found = offer(dataset, layout, points)
    places = _places(dataset, layout, found)
    ids = np.asarray(evenly(dataset.splits[split], limit), np.int64)
    dataset.files.check_unchanged(ids)
    frames = slice(None, None, dataset.settings.time_stride)
    values = [places.of(dataset.files.rows(ids[row : row + 1], frames)[0]) for row in range(len(ids))]
    statics = [places.of(dataset.files.statics(ids[row : row + 1]))[0] for row in range(len(ids))]
    positions = torch.from_numpy(np.asarray(places.positions, np.float32))
    trajectories = Trajectories(
        values=torch.from_numpy(np.stack(values)),
        statics=torch.from_numpy(np.stack(statics)),
        positions=positions,
        parameters=torch.from_numpy(dataset.conditions[ids]).float(),
        times=torch.from_numpy(dataset.files.header.times[frames]).float(),
        ids=torch.from_numpy(ids),
    )
    cells = triangles(places.positions) if layout == "mesh" else None
    every = None if cells is None else (cells,) * len(ids)
    error = 0.0 if places.spline is None else interpolation_error(dataset, ids, places.beyond)
    return Relaid(trajectories, found.grid, every, error)


@frozen(eq=False)
class Places:
    """Points, and how states come there: by a stride of the stored grid, or by splines."""

    positions: NDArray[np.float64]  # (N, D)
    every: Every | None = None
    spline: GridSpline | None = None
    beyond: bool = False  # whether some lie beyond the outermost stored points

    def of(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Values (F, *stored grid, C) at the points, (F, N, C)."""
        dims = self.positions.shape[1]
        if self.spline is None:
            stride, start = (1, 0) if self.every is None else self.every[:2]
            taken = values[(slice(None), *(slice(start, None, stride),) * dims)]
            return np.ascontiguousarray(taken.reshape(len(values), len(self.positions), values.shape[-1]))
        out = np.empty((len(values), len(self.positions), values.shape[-1]), np.float32)
        if not out.size:
            return out
        block = max(1, FRAMES_VALUES * len(values) // max(values.size, out.size))
        for first in range(0, len(values), block):
            out[first : first + block] = self.spline(values[first : first + block])
        return out


def _places(dataset: GridDataset, layout: Layout, found: Offer) -> Places:
    """Where the points are. Meshes and clouds keep within the outermost stored points of walls: splines end there."""
    fields, axes = dataset.fields, dataset.files.header.axes
    if found.grid is not None:
        every = _every(dataset, found.grid)
        if every is not None:
            return Places(grid_points([axis[every.start :: every.stride] for axis in axes]), every)
        positions = grid_points(grid_axes(fields.domain, found.grid, found.offset))
    else:
        spans = [
            span if wraps else (float(axis[0]), float(axis[-1]))
            for span, wraps, axis in zip(fields.domain, fields.periodic, axes, strict=True)
        ]
        positions = (
            mesh_nodes(spans, fields.periodic, found.points) if layout == "mesh" else cloud_points(spans, found.points)
        )
    beyond = any(
        not wraps and (place.min() < axis[0] - 1e-9 or place.max() > axis[-1] + 1e-9)
        for place, axis, wraps in zip(positions.T, axes, fields.periodic, strict=True)
    )
    return Places(positions, spline=GridSpline.at(axes, _periods(dataset), positions), beyond=beyond)


def _periods(dataset: GridDataset) -> list[float | None]:
    return [high - low if wraps else None for (low, high), wraps in zip(dataset.fields.domain, dataset.fields.periodic)]


def interpolation_error(dataset: GridDataset, ids: NDArray[np.int64], beyond: bool) -> float:
    """nRMSE of splines through every second stored point, at the stored points between them.

    An upper bound of what splines through all points miss, as long as the stored grid resolves the fields. The larger
    one of the targets' and the statics', mean over a few trajectories and frames. `beyond`: also where the coarser grid
    ends before the stored one does.
    """
    axes, periodic = dataset.files.header.axes, dataset.fields.periodic
    coarse = [axis[::2] for axis in axes]
    if min(map(len, coarse)) < 2:
        return math.nan
    inside = [
        np.ones(len(axis), bool) if wraps or beyond else axis <= part[-1]
        for axis, part, wraps in zip(axes, coarse, periodic, strict=True)
    ]
    kept = [np.arange(len(axis)) % 2 == 0 for axis in axes]
    between = _all(inside) & ~_all(kept)
    spline = GridSpline.at(coarse, _periods(dataset), grid_points(axes)[between])
    every = (slice(None), *(slice(None, None, 2),) * len(axes))
    probed = np.asarray(evenly(ids.tolist(), PROBED), np.int64)
    frames = probed_frames(len(dataset.files.header.times))
    errors: dict[str, list[float]] = {"states": [], "statics": []}
    for row in range(len(probed)):
        states = dataset.files.rows(probed[row : row + 1], slice(None))[0][frames]
        statics = dataset.files.statics(probed[row : row + 1])
        for name, values in (("states", states), ("statics", statics)):
            if values.shape[-1]:
                true = values.reshape(len(values), -1, values.shape[-1])[:, between].astype(np.float64)
                errors[name].append(relative_error(spline(values[every]), true))
    return max(sum(each) / len(each) for each in errors.values() if each)


def _all(marks: list[NDArray[np.bool_]]) -> NDArray[np.bool_]:
    """Points of a grid that are marked along every axis, (N,), row-major."""
    return np.asarray(np.stack(np.meshgrid(*marks, indexing="ij"), -1).all(-1).reshape(-1))
