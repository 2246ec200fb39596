"""Points of a box: regular grids, meshes with even triangles, clouds. Pure functions of the box and of how many.

A box is given by its `domain`, (low, high) along each axis, and by which of its axes are `periodic`: what leaves it
there comes in at the other side, and no point stands on the seam twice.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Domain = Sequence[tuple[float, float]]

SAMPLES = 16  # for each point of a mesh, by which the middle of its cell is found
ROUNDS = 10  # of moving points to the middles of their cells
CROWDING = 1.15  # by how much the points of a wall are spread where too many would stand there


# ---------------------------------------------------------------------------------------------------------------------
# Grids
# ---------------------------------------------------------------------------------------------------------------------
def grid_shape(like: Sequence[int], points: int) -> tuple[int, ...]:
    """The shape of a grid of about so many points with the aspect of another, at least two along each axis.

    Halving or doubling the number of points along every axis of `like` is met exactly.
    """
    ratio = (points / math.prod(like)) ** (1 / len(like))
    return tuple(max(2, round(size * ratio)) for size in like)


def stride_between(fine: Sequence[int], coarse: Sequence[int]) -> int | None:
    """The s for which every s-th point along each axis of the fine grid makes the coarse one, or None."""
    strides = {size // part if size % part == 0 else 0 for size, part in zip(fine, coarse, strict=True)}
    stride = strides.pop()
    return None if strides or not stride else stride


def grid_axes(domain: Domain, shape: Sequence[int], offset: float) -> tuple[NDArray[np.float64], ...]:
    """Coordinates along each axis of a grid whose first point lies at `offset` of a spacing from the low side.

    0.5: cell centres; 0: nodes, the last one a spacing before the high side, which is the first again where the axis is
    periodic. As `FieldSpec.offset`.
    """
    return tuple(
        low + (high - low) * (np.arange(size) + offset) / size for size, (low, high) in zip(shape, domain, strict=True)
    )


def grid_points(axes: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """All points of a grid, (N, D), row-major."""
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(axes))


# ---------------------------------------------------------------------------------------------------------------------
# Clouds
# ---------------------------------------------------------------------------------------------------------------------
def cloud_points(domain: Domain, points: int, seed: int = 0) -> NDArray[np.float64]:
    """Points drawn alike from all of the box, (points, D). A cloud of fewer points is the beginning of this one."""
    low, high = np.asarray(domain, np.float64).T
    drawn = np.random.default_rng([seed, len(domain)]).random((points, len(domain)))
    return np.asarray(low + (high - low) * drawn)


# ---------------------------------------------------------------------------------------------------------------------
# Meshes
# ---------------------------------------------------------------------------------------------------------------------
def fewest_nodes(periodic: Sequence[bool]) -> int:
    """The fewest points that a mesh of a box has: its corners, and enough of them to span it."""
    return max(1 << sum(not wraps for wraps in periodic), len(periodic) + 1)


def mesh_nodes(domain: Domain, periodic: Sequence[bool], points: int, seed: int = 0) -> NDArray[np.float64]:
    """Nodes of an even, unstructured mesh of the box, (points, D): its walls' first, then those within.

    Walls of axes that are not periodic hold nodes as far from each other as those within, corners always. The others
    begin as a random cloud and are moved to the middles of their cells (Lloyd's method), which evens them out. Raises
    ValueError for fewer than `fewest_nodes`.
    """
    least = fewest_nodes(periodic)
    if points < least:
        raise ValueError(f"a mesh of this box has at least {least} nodes, and {points} were asked for")
    low, high = np.asarray(domain, np.float64).T
    extent = high - low
    spacing = float(np.prod(extent) / points) ** (1 / len(extent))
    walls = _wall_nodes(extent, periodic, spacing)
    while len(walls) > max(points // 2, 1 << sum(not wraps for wraps in periodic)):
        spacing *= CROWDING
        walls = _wall_nodes(extent, periodic, spacing)
    inner = np.random.default_rng([seed, points]).random((points - len(walls), len(extent))) * extent
    return np.asarray(low + np.concatenate([walls, _relaxed(inner, walls, extent, periodic, seed)]))


def _wall_nodes(extent: NDArray[np.float64], periodic: Sequence[bool], spacing: float) -> NDArray[np.float64]:
    """Nodes on the faces, edges and corners of a box from 0 to its extent, each once, (W, D)."""
    dims = len(extent)
    sides = [(None,) if wraps else (None, 0.0, length) for wraps, length in zip(periodic, extent, strict=True)]
    parts = [np.empty((0, dims))]
    for face in itertools.product(*sides):
        if any(place is not None for place in face):
            axes = list(_along(face, extent, periodic, spacing))
            parts.append(np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, dims))
    return np.concatenate(parts)


def _along(
    face: Sequence[float | None], extent: NDArray[np.float64], periodic: Sequence[bool], spacing: float
) -> Iterator[NDArray[np.float64]]:
    """The nodes of a face along each axis: its own place, or evenly between the walls, which are faces of their own."""
    for place, length, wraps in zip(face, extent, periodic, strict=True):
        if place is not None:
            yield np.asarray([place])
        else:
            count = max(1, round(float(length) / spacing))
            yield length * np.arange(0 if wraps else 1, count) / count


def _relaxed(
    inner: NDArray[np.float64],
    walls: NDArray[np.float64],
    extent: NDArray[np.float64],
    periodic: Sequence[bool],
    seed: int,
) -> NDArray[np.float64]:
    """Inner nodes moved to the middles of what is nearer to them than to any other node, some rounds of it."""
    from scipy.spatial import cKDTree
    from scipy.stats import qmc

    if not len(inner):
        return inner
    wraps = np.asarray(periodic)
    sampler = qmc.Halton(len(extent), rng=np.random.default_rng([seed, 1]))
    samples = sampler.random(SAMPLES * (len(inner) + len(walls))) * extent
    box = np.where(wraps, extent, 0.0)
    for _ in range(ROUNDS):
        nodes = np.concatenate([inner, walls])
        _, owner = cKDTree(nodes, boxsize=box).query(samples)
        away = samples - nodes[owner]
        away -= np.where(wraps, np.round(away / extent) * extent, 0.0)
        counts = np.bincount(owner, minlength=len(nodes))[: len(inner)]
        moves = [np.bincount(owner, each, minlength=len(nodes))[: len(inner)] for each in away.T]
        inner = inner + np.stack(moves, -1) / np.maximum(counts, 1)[:, None]
        inner = np.where(wraps, np.mod(inner, extent), inner)
        inner = np.where(wraps & (inner >= extent), 0.0, inner)  # of rounding
    return inner


def triangles(positions: NDArray[np.floating]) -> NDArray[np.int64] | None:
    """The Delaunay triangles of points in the plane, (M, 3), counter-clockwise; None in other dimensions.

    They cover the points' convex hull; none crosses the seam of a periodic axis.
    """
    from scipy.spatial import Delaunay

    if positions.shape[1] != 2 or len(positions) < 3:
        return None
    found = np.asarray(Delaunay(np.asarray(positions, np.float64)).simplices, np.int64)
    corners = np.asarray(positions, np.float64)[found]
    sides = corners[:, 1:] - corners[:, :1]
    area = sides[:, 0, 0] * sides[:, 1, 1] - sides[:, 0, 1] * sides[:, 1, 0]
    flipped: NDArray[np.int64] = np.where(area[:, None] < 0, found[:, [0, 2, 1]], found)
    return np.asarray(flipped[np.abs(area) > 1e-12 * np.abs(area).max()])
