"""Neighbour tables: for every centre the points that it hears, at most K of them, as dense indices with a mask.

Two back ends, a k-d tree and a cell list, give the same tables to the bit (see `distances`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ..errors import DataError
from .cells import Cells, nearest_by_cells
from .distances import Box, mixed, nearest, position_hash
from .problems import ROUNDED
from .trees import Found, Tree

Pick = Literal["nearest", "spread"]
Backend = Literal["auto", "kdtree", "cells"]

MEMORY = 256 * 2**20
SPREAD = 0x5B2D  # salt, so that what is spread is not what supernodes are drawn by
COLOURS = 8  # different orders in which centres draw
COLOUR = 0x2545F4914F6CDD1D


class NeighbourTable(NamedTuple):
    """For every centre its points, in the order of their distance."""

    neighbours: Tensor  # (B, S, K), int64, 0 where the mask is false
    mask: Tensor  # (B, S, K), bool; true entries of a row come first


def neighbour_table(
    points: Tensor,
    centres: Tensor,
    *,
    radius: float | None,
    most: int,
    pick: Pick = "nearest",
    domain: Sequence[tuple[float, float]],
    periodic: Sequence[bool],
    mask: Tensor | None = None,
    backend: Backend = "auto",
    memory: int = MEMORY,
) -> NeighbourTable:
    """The points (B, N, D) that are no further than `radius` from each of the centres (B, S, D), at most `most` = K.

    Without a radius these are the K nearest points. With one, where more than K lie within it, either the `nearest`,
    or K that are `spread`: a random sample by the hash of their position, the same whatever the order of the points,
    and another one for most centres. Points whose `mask` (B, N) is false are never heard. Rows are in the order of
    distance, then of the offset from the centre axis by axis; only of points at one place does the index decide.

    On periodic axes distances are those of the nearest image; the radius must be at most half their length. `auto` is
    the k-d tree for tensors on the CPU and the cell list elsewhere; both give equal tables. `memory` is about how many
    bytes are taken beside points and table. Raises DataError for positions that are not finite, and such a radius.
    """
    box = Box.of(domain, periodic)
    check_radius(radius, box)
    check_finite(points, mask, "point")
    check_finite(centres, None, "centre")
    kind = ("kdtree" if points.device.type == "cpu" else "cells") if backend == "auto" else backend
    device = points.device
    batch, places = centres.shape[:2]
    index = torch.zeros(batch, places, most, dtype=torch.int64, device=device)
    heard = torch.zeros(batch, places, most, dtype=torch.bool, device=device)
    for sample in range(batch):
        ids = None if mask is None or bool(mask[sample].all()) else mask[sample].nonzero().squeeze(1)
        cloud = points[sample] if ids is None else points[sample, ids]
        if not len(cloud) or not places:
            continue
        search = _Search(cloud, centres[sample], box, kind, memory)
        for rows, found, distance in search.find(radius, most, pick):
            near = torch.isfinite(distance)
            heard[sample, rows] = near
            index[sample, rows] = (found if ids is None else ids[found]).masked_fill_(~near, 0)
    return NeighbourTable(index, heard)


class _Search:
    """Neighbours in one sample: points (n, D), centres (S, D)."""

    def __init__(self, points: Tensor, centres: Tensor, box: Box, kind: str, memory: int) -> None:
        self.positions, self.places = points, centres
        self.box, self.kind, self.memory = box, kind, memory
        self.points, self.centres = _columns(points), _columns(centres)

    def find(self, radius: float | None, most: int, pick: Pick) -> Iterator[Found]:
        """Every row once, (R, most), some at a time."""
        if radius is not None and pick == "spread":
            return self._spread(radius, most)
        if self.kind == "kdtree":
            return Tree(self.points, self.box, self.memory).nearest(self.centres, radius, most)
        if radius is None:
            return nearest_by_cells(self.points, self.centres, self.box, most, self.memory)
        return Cells(self.points, self.box, radius, self.memory).nearest(self.centres, radius, most)

    def _spread(self, radius: float, most: int) -> Iterator[Found]:
        """The points with the smallest keys among those within the radius.

        They are looked for among the points with the smallest keys of all, of which more and more are taken until a
        centre has enough: all others have larger ones. So the cost grows with K, not with how many there are.
        """
        hashes, colours = position_hash(self.positions, SPREAD), centre_colours(self.places)
        rows = torch.arange(len(colours), device=colours.device)
        heard = self._about(radius)
        share = max(1.5 * most / heard, 4 * most / len(hashes)) if heard > 0 else 1.0
        while len(rows):
            share = share if share <= 0.5 else 1.0
            left = [rows[:0]]
            for mine, ids in self._subsets(rows, hashes, colours, share):
                for part, near, far in self._within(ids, self.centres[:, mine], radius, share * heard):
                    place = mine[part]
                    near, far = _cut(near, far, hashes, colours[place], most)
                    near, far = nearest(self.box, self.points, self.centres[:, place], near, far, most)
                    done = torch.isfinite(far[:, -1]) if share < 1 else torch.ones_like(place, dtype=torch.bool)
                    yield place[done], near[done], far[done]
                    left.append(place[~done])
            rows, share = torch.cat(left), 2 * share

    def _subsets(self, rows: Tensor, hashes: Tensor, colours: Tensor, share: float) -> Iterator[tuple[Tensor, Tensor]]:
        """Rows, and the points that are the given share of all with the smallest keys for these rows' colour."""
        if share == 1:
            yield rows, torch.arange(len(hashes), device=rows.device)
            return
        limit = int(share * 2**64) - 2**63
        for colour in range(COLOURS):
            mine = rows[colours[rows] == colour]
            if len(mine):
                yield mine, (spread_keys(hashes, mine.new_tensor(colour)) < limit).nonzero().squeeze(1)

    def _within(self, ids: Tensor, centres: Tensor, radius: float, heard: float) -> Iterator[Found]:
        """All of the points `ids` that are within the radius of the centres, about `heard` for each."""
        if not len(ids):
            rows = torch.arange(centres.shape[1], device=ids.device)
            yield rows, ids.new_zeros(len(rows), 1), centres.new_full((len(rows), 1), math.inf)
            return
        points = self.points[:, ids]
        finder: Tree | Cells
        if self.kind == "kdtree":
            finder = Tree(points, self.box, self.memory)
        else:
            finder = Cells(points, self.box, radius, self.memory)
        for rows, index, distance in finder.within(centres, radius, math.ceil(1.4 * heard) + 4):
            yield rows, ids[index], distance

    def _about(self, radius: float) -> float:
        """How many points lie within the radius of a centre, if they are spread evenly."""
        dims = len(self.box.length)
        spans = [max(float(column.max() - column.min()), radius) for column in self.points]
        ball: float = math.pi ** (dims / 2) / math.gamma(dims / 2 + 1) * radius**dims
        return len(self.positions) * min(1.0, ball / math.prod(spans))


def centre_colours(centres: Tensor) -> Tensor:
    """Which of several orders of the points a centre (S, D) draws by, (S,): neighbours shall not hear the same few."""
    return position_hash(centres, SPREAD).remainder(COLOURS)


def spread_keys(hashes: Tensor, colours: Tensor) -> Tensor:
    """What points with these hashes are drawn by, the smallest first, by centres of these colours."""
    return mixed(hashes ^ (colours * COLOUR))


def _columns(positions: Tensor) -> Tensor:
    """(n, D) to (D, n) in float64."""
    return positions.to(torch.float64).T.contiguous()


def _cut(index: Tensor, distance: Tensor, hashes: Tensor, colours: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """The candidates (R, M), or those with the smallest keys in rows with more than `most`: then (R, most)."""
    if index.shape[1] <= most:
        return index, distance
    rows = torch.isfinite(distance[:, most:]).any(1).nonzero().squeeze(1)
    kept, far = index[:, :most].clone(), distance[:, :most].clone()
    keys = spread_keys(hashes[index[rows]], colours[rows, None])
    kept[rows], far[rows] = _smallest(keys, index[rows], distance[rows], most)
    return kept, far


def _smallest(keys: Tensor, index: Tensor, distance: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Of the candidates (R, M) those with the smallest keys, (R, most), in the order that they had.

    Of equal keys, which points at the very same place have, those with the smallest indices.
    """
    real = torch.isfinite(distance)
    keys = keys.masked_fill(~real, torch.iinfo(torch.int64).max)
    kept = (keys <= keys.kthvalue(most, dim=1, keepdim=True).values) & real
    crowded = (kept.sum(1) > most).nonzero().squeeze(1)
    if len(crowded):
        order = index[crowded].argsort(dim=1, stable=True)
        order = order.gather(1, keys[crowded].gather(1, order).argsort(dim=1, stable=True))
        kept[crowded] = torch.zeros_like(kept[crowded]).scatter_(1, order[:, :most], True)
    row, column = kept.nonzero().unbind(1)
    place = (kept.cumsum(1) - 1)[kept]
    chosen = torch.zeros(len(index), most, dtype=torch.int64, device=index.device)
    far = torch.full(chosen.shape, math.inf, dtype=torch.float64, device=index.device)
    chosen[row, place], far[row, place] = index[row, column], distance[row, column]
    return chosen, far


def check_radius(radius: float | None, box: Box) -> None:
    """Raise DataError for a radius that is no positive number, or more than half of a periodic axis."""
    if radius is None:
        return
    if not (math.isfinite(radius) and radius > 0):
        raise DataError(f"the radius of a neighbour search must be positive and finite, got {radius:g}")
    for axis, (length, wraps) in enumerate(zip(box.length, box.periodic)):
        if wraps and radius > length / 2 * ROUNDED:
            raise DataError(
                f"the box is too small for the radius: axis {axis} is periodic and {length:g} long, so that a radius "
                f"may be {length / 2:g} at most, got {radius:g}"
            )


def check_finite(positions: Tensor, mask: Tensor | None, noun: str) -> None:
    """Raise DataError where a position (B, N, D) is not finite, padding left out."""
    bad = ~torch.isfinite(positions).all(-1)
    if mask is not None:
        bad &= mask
    if not bool(bad.any()):
        return
    sample, first = bad.nonzero()[0].tolist()
    count = int(bad[sample].sum())
    where = ", ".join(f"{value:g}" for value in positions[sample, first].tolist())
    raise DataError(
        f"sample {sample} of the batch has {count} position{'' if count == 1 else 's'} that "
        f"{'is' if count == 1 else 'are'} not finite; the first is {noun} {first}: ({where})"
    )


__all__ = ["MEMORY", "Backend", "NeighbourTable", "Pick", "check_finite", "check_radius", "neighbour_table"]
