"""States of scattered points on other points of the same domain, for evaluation elsewhere.

Points that move are known where they are alone: there can only be fewer of them. Of points that stand still, fewer ones
that are spread evenly make a coarser mesh with the states as they are stored; all others lie within the triangles and
are interpolated from the nodes around them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from ...errors import DataError
from ...interfaces import Layout, Offer, Relaid, Trajectories
from ..discretisations import grid_axes, grid_points, grid_shape, triangles
from ..relaying import MOST_POINTS, PROBED, probed_frames, relative_error
from ..scattered import scattered_matrix
from ..splits import evenly
from .source import Flagged, PointSource

if TYPE_CHECKING:
    from .dataset import PointDataset

FEWEST = {"grid": 4, "mesh": 4, "particles": 1}
FILLED = 0.999  # of the domain that triangles must cover, for a grid to have all its points within
CANDIDATES = 12  # cells near a place that may hold it


class Sites(NamedTuple):
    """The new points of one trajectory: some of its own as they are, then places between them."""

    kept: NDArray[np.int64]  # numbers of its own points
    between: NDArray[np.float64]  # (M, D)


def offer(dataset: PointDataset, split: str, layout: Layout, points: int, limit: int | None) -> Offer:
    """The points that there would be. Raises DataError where they cannot be had."""
    ids = evenly(dataset.splits[split], limit)
    fields, counts = dataset.fields, dataset.files.counts[np.asarray(ids, np.int64)]
    most = MOST_POINTS
    if fields.moves_with is not None:
        if layout != "particles":
            raise DataError("these points move, and have no states elsewhere; nearest: --on particles", "on")
        most = int(counts.min())
    elif layout == "grid":
        _check_filled(dataset, ids)
    elif any(_cells(dataset, number) is None for number in ids):
        most = int(counts.min())  # nobody knows where the domain is between the points
    if not FEWEST[layout] <= points <= most:
        near = min(max(points, FEWEST[layout]), most)
        raise DataError(f"{points} points as {layout} cannot be had of these data; nearest: {near}", "points")
    if layout != "grid":
        return Offer(points, None)
    scale = [max(2, round(1024 * extent / max(fields.extent))) for extent in fields.extent]
    shape = grid_shape(scale, points)
    return Offer(math.prod(shape), shape)


def _check_filled(dataset: PointDataset, ids: Sequence[int]) -> None:
    """A grid has points everywhere in the box: refused where the mesh has holes, or does not reach the sides."""
    box = math.prod(dataset.fields.extent)
    for number in ids:
        cells = _cells(dataset, number)
        source, own = dataset.files.owner(number)
        where = source.where(own)
        if cells is None:
            raise DataError(f"{where}: has no triangles that say where its domain is, so no grid of it is known", "on")
        share = float(_areas(_nodes(source, own), cells).sum()) / box
        if share < FILLED:
            raise DataError(
                f"{where}: its triangles cover {100 * share:.3g} % of the domain's box, and a grid has points in the "
                "holes too; nearest: --on mesh or --on particles",
                "on",
            )


def relay(dataset: PointDataset, split: str, layout: Layout, points: int, limit: int | None) -> Relaid:
    """The states of a split's trajectories on such points, each on points of its own."""
    import torch

    found = offer(dataset, split, layout, points, limit)
    ids = evenly(dataset.splits[split], limit)
    dataset.files.check_unchanged(np.asarray(ids, np.int64))
    frames = np.arange(int(dataset.files.frames[dataset.members[split]].min()), dtype=np.int64)
    moved = [_of_trajectory(dataset, number, layout, found, frames) for number in ids]
    conditions = torch.from_numpy(dataset.conditions[np.asarray(ids, np.int64)]).float()
    source, own = dataset.files.owner(ids[0])
    trajectories = Trajectories(
        values=torch.from_numpy(np.stack([each.values for each in moved])),
        statics=torch.from_numpy(np.stack([each.statics for each in moved])),
        positions=torch.from_numpy(np.stack([each.positions for each in moved])),
        parameters=conditions,
        times=torch.from_numpy(source.times(own)[: len(frames)]).float(),
        ids=torch.tensor(ids, dtype=torch.int64),
    )
    if found.grid is not None:
        trajectories = trajectories._replace(positions=trajectories.positions[0])
    cells = tuple(each.cells for each in moved if each.cells is not None)
    exact = all(each.exact for each in moved)
    error = 0.0 if exact else interpolation_error(dataset, ids)
    return Relaid(trajectories, found.grid, cells if len(cells) == len(ids) else None, error)


@frozen(eq=False)
class _Moved:
    """One trajectory on its new points."""

    positions: NDArray[np.float32]  # (N, D), or (F, N, D) where they move
    values: NDArray[np.float32]  # (F, N, C)
    statics: NDArray[np.float32]  # (N, static channels)
    cells: NDArray[np.int64] | None
    exact: bool


def _of_trajectory(
    dataset: PointDataset, number: int, layout: Layout, found: Offer, frames: NDArray[np.int64]
) -> _Moved:
    source, own = dataset.files.owner(number)
    places, values, given = source.positions(own, frames), source.values(own, frames), source.given(own)
    if dataset.fields.moves_with is not None:
        kept = np.sort(_shuffled(len(given), number)[: found.points])
        return _Moved(places[:, kept], values[:, kept], given[kept], None, True)
    nodes, cells = places.astype(np.float64), _cells(dataset, number)
    sites = _sites(dataset, nodes, cells, layout, found, number)
    positions = np.concatenate([nodes[sites.kept], sites.between]).astype(np.float32)
    if len(sites.between):
        way = scattered_matrix(nodes, sites.between, _periods(dataset))
        between = np.stack([way @ frame for frame in values.astype(np.float64)]).astype(np.float32)
        beside = _statics_between(source, nodes, sites.between, given, way)
        values = np.concatenate([values[:, sites.kept], between], 1)
        given = np.concatenate([given[sites.kept], beside])
    else:
        values, given = values[:, sites.kept], given[sites.kept]
    return _Moved(positions, values, given, _triangles(positions, nodes, cells, layout), not len(sites.between))


def _sites(
    dataset: PointDataset,
    nodes: NDArray[np.float64],
    cells: NDArray[np.int64] | None,
    layout: Layout,
    found: Offer,
    number: int,
) -> Sites:
    """Where the new points are."""
    none, nowhere = np.empty(0, np.int64), np.empty((0, nodes.shape[1]))
    if found.grid is not None:
        return Sites(none, grid_points(grid_axes(dataset.fields.domain, found.grid, 0.5)))
    if layout == "mesh":
        if found.points <= len(nodes):
            return Sites(farthest(nodes, found.points), nowhere)
        assert cells is not None
        return Sites(np.arange(len(nodes)), within(nodes, cells, found.points - len(nodes), number))
    if cells is None:
        return Sites(np.sort(_shuffled(len(nodes), number)[: found.points]), nowhere)
    return Sites(none, within(nodes, cells, found.points, number))


def farthest(points: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Numbers of so many points, each as far from those before it as there is; the first is the nearest to the mean.

    All of them, in their own order, where `count` is as many.
    """
    if count >= len(points):
        return np.arange(len(points))
    chosen = [int(((points - points.mean(0)) ** 2).sum(1).argmin())]
    away = ((points - points[chosen[0]]) ** 2).sum(1)
    while len(chosen) < count:
        chosen.append(int(away.argmax()))
        away = np.minimum(away, ((points - points[chosen[-1]]) ** 2).sum(1))
    return np.asarray(chosen, np.int64)


def within(nodes: NDArray[np.float64], cells: NDArray[np.int64], count: int, seed: int) -> NDArray[np.float64]:
    """Places drawn alike from all of the triangles' area, (count, 2); fewer are the beginning of more."""
    draws = np.random.default_rng([seed, 2]).random((count, 3))
    share = np.cumsum(_areas(nodes, cells))
    corners = nodes[cells[np.searchsorted(share, draws[:, 0] * share[-1], side="right").clip(max=len(cells) - 1)]]
    root, second = np.sqrt(draws[:, 1:2]), draws[:, 2:3]
    return np.asarray((1 - root) * corners[:, 0] + root * (1 - second) * corners[:, 1] + root * second * corners[:, 2])


def _shuffled(count: int, seed: int) -> NDArray[np.int64]:
    """All numbers in an order of its own for each trajectory: fewer are the beginning of more."""
    return np.random.default_rng([seed, 3]).permutation(count).astype(np.int64)


def _statics_between(
    source: PointSource,
    nodes: NDArray[np.float64],
    places: NDArray[np.float64],
    given: NDArray[np.float32],
    way: object,
) -> NDArray[np.float32]:
    """Static fields at places between nodes: interpolated, but flags, which are those of the nearest node."""
    from scipy.spatial import cKDTree

    found = np.asarray(way @ given.astype(np.float64), np.float32)  # type: ignore[operator]  # a sparse matrix
    flags = source.flags if isinstance(source, Flagged) else ()
    first = 0
    for field in source.statics:
        if field.name in flags:
            channels = slice(first, first + field.channels)
            found[:, channels] = given[cKDTree(nodes).query(places)[1]][:, channels]
        first += field.channels
    return found


def interpolation_error(dataset: PointDataset, ids: Sequence[int]) -> float:
    """Relative error of states at half of the points, interpolated from the other half: an upper bound, on a few."""
    errors = []
    for number in evenly(ids, PROBED):
        source, own = dataset.files.owner(number)
        values = source.values(own, probed_frames(int(dataset.files.frames[number]))).astype(np.float64)
        nodes = _nodes(source, own)
        kept = farthest(nodes, max(1, len(nodes) // 2))
        others = np.setdiff1d(np.arange(len(nodes)), kept)
        way = scattered_matrix(nodes[kept], nodes[others], _periods(dataset))
        errors.append(relative_error(np.stack([way @ frame for frame in values[:, kept]]), values[:, others]))
    return sum(errors) / len(errors)


def _triangles(
    positions: NDArray[np.float32], nodes: NDArray[np.float64], cells: NDArray[np.int64] | None, layout: Layout
) -> NDArray[np.int64] | None:
    """The triangles between new points, without those across holes."""
    found = triangles(positions) if layout == "mesh" else None
    if found is None or cells is None:
        return found
    return found[inside(nodes, cells, positions.astype(np.float64)[found].mean(1))]


def inside(nodes: NDArray[np.float64], cells: NDArray[np.int64], places: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether places (Q, 2) lie in one of the triangles that are near them."""
    from scipy.spatial import cKDTree

    corners = nodes[cells]
    count = min(CANDIDATES, len(cells))
    _, near = cKDTree(corners.mean(1)).query(places, k=np.arange(1, count + 1))
    first, second, away = (
        corners[near, 1] - corners[near, 0],
        corners[near, 2] - corners[near, 0],
        places[:, None] - corners[near, 0],
    )
    twice = _cross(first, second)
    along, up = _cross(away, second) / twice, _cross(first, away) / twice
    return np.asarray(((along >= -1e-9) & (up >= -1e-9) & (along + up <= 1 + 1e-9)).any(1))


def _areas(nodes: NDArray[np.float64], cells: NDArray[np.int64]) -> NDArray[np.float64]:
    corners = nodes[cells]
    return np.abs(_cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])) / 2


def _cross(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(one[..., 0] * other[..., 1] - one[..., 1] * other[..., 0])


def _cells(dataset: PointDataset, number: int) -> NDArray[np.int64] | None:
    """The triangles of a trajectory in the plane."""
    return dataset.cells(number) if dataset.fields.space_dims == 2 else None


def _nodes(source: PointSource, own: int) -> NDArray[np.float64]:
    return np.asarray(source.positions(own, np.zeros(1, np.int64)), np.float64)


def _periods(dataset: PointDataset) -> list[float | None]:
    fields = dataset.fields
    return [length if wraps else None for length, wraps in zip(fields.extent, fields.periodic, strict=True)]
