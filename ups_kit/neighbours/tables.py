"""Neighbour tables: for every centre the points that it hears, at most K of them, as dense indices with a mask.

Two back ends, a k-d tree and a cell list, give the same tables to the bit (see `distances`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ..errors import DataError
from .cells import Cells, nearest_by_cells
from .distances import Box, nearest, position_hash
from .trees import Tree

Pick = Literal["nearest", "spread"]
Backend = Literal["auto", "kdtree", "cells"]

MEMORY = 256 * 2**20
SPREAD = 0x5B2D  # salt, so that what is spread is not what supernodes are drawn by


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
    or K that are `spread`: those with the smallest hash of their position, a random sample that is the same whatever
    the order of the points. Points whose `mask` (B, N) is false are never heard. Rows are in the order of distance,
    then of the offset from the centre axis by axis; only of points at the very same place does the index decide.

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
        found, distance = _Search(cloud, centres[sample], box, kind, memory).find(radius, most, pick)
        heard[sample] = torch.isfinite(distance)
        index[sample] = (found if ids is None else ids[found]).masked_fill(~heard[sample], 0)
    return NeighbourTable(index, heard)


class _Search:
    """Neighbours in one sample: points (n, D), centres (S, D)."""

    def __init__(self, points: Tensor, centres: Tensor, box: Box, kind: str, memory: int) -> None:
        self.positions, self.box, self.kind, self.memory = points, box, kind, memory
        self.points, self.centres = _columns(points), _columns(centres)

    def find(self, radius: float | None, most: int, pick: Pick) -> tuple[Tensor, Tensor]:
        """Indices and squared distances, inf where there is none, (S, most)."""
        if radius is None and self.kind == "cells":
            return nearest_by_cells(self.points, self.centres, self.box, most, self.memory)
        if radius is None or pick == "nearest":
            return self._finder(self.points, radius).nearest(self.centres, radius, most)
        return self._spread(radius, most)

    def _finder(self, points: Tensor, radius: float | None) -> Tree | Cells:
        if self.kind == "kdtree" or radius is None:
            return Tree(points, self.box, self.memory)
        return Cells(points, self.box, radius, self.memory)

    def _spread(self, radius: float, most: int) -> tuple[Tensor, Tensor]:
        """The points with the smallest hashes among those within the radius.

        They are looked for among the points with the smallest hashes of all, of which more and more are taken until
        a centre has enough: all others have larger ones. So the cost grows with K, not with how many there are.
        """
        order = position_hash(self.positions, SPREAD).argsort(stable=True)
        total, rows = len(order), torch.arange(self.centres.shape[1], device=order.device)
        index = torch.zeros(len(rows), most, dtype=torch.int64, device=order.device)
        distance = torch.full((len(rows), most), math.inf, dtype=torch.float64, device=order.device)
        size = self._first_size(radius, most)
        while len(rows):
            some = self.points[:, order[:size]]
            left = []
            for part, near, far in self._finder(some, radius).within(self.centres[:, rows], radius, 2 * most):
                chosen, away = _smallest(near, far, most)
                place = rows[part]
                chosen, away = nearest(self.box, self.points, self.centres[:, place], order[chosen], away, most)
                index[place], distance[place] = chosen, away
                left.append(place[torch.isinf(away[:, -1])])
            if size == total:
                break
            rows, size = torch.cat(left), 2 * size if 4 * size <= total else total
        return index, distance

    def _first_size(self, radius: float, most: int) -> int:
        """So many points that about K of them lie within the radius, if they are spread evenly."""
        total, dims = len(self.positions), len(self.box.length)
        spans = [max(float(column.max() - column.min()), radius) for column in self.points]
        ball = math.pi ** (dims / 2) / math.gamma(dims / 2 + 1) * radius**dims
        share = min(1.0, ball / math.prod(spans))
        size = max(4 * most, math.ceil(most / share))
        return size if 2 * size <= total else total


def _columns(positions: Tensor) -> Tensor:
    """(n, D) to (D, n) in float64."""
    return positions.to(torch.float64).T.contiguous()


def _smallest(index: Tensor, distance: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Of the candidates (R, M) those with the smallest indices, (R, most), in the order that they had."""
    if index.shape[1] <= most:
        return index, distance
    none = torch.iinfo(torch.int64).max
    index = index.masked_fill(torch.isinf(distance), none)
    kept = (index <= index.kthvalue(most, dim=1, keepdim=True).values) & (index < none)
    column = (kept.cumsum(1) - 1)[kept]
    row = kept.nonzero()[:, 0]
    chosen = torch.zeros(len(index), most, dtype=torch.int64, device=index.device)
    far = torch.full(chosen.shape, math.inf, dtype=torch.float64, device=index.device)
    chosen[row, column], far[row, column] = index[kept], distance[kept]
    return chosen, far


def check_radius(radius: float | None, box: Box) -> None:
    """Raise DataError for a radius that is no positive number, or more than half of a periodic axis."""
    if radius is None:
        return
    if not (math.isfinite(radius) and radius > 0):
        raise DataError(f"the radius of a neighbour search must be positive and finite, got {radius:g}")
    for axis, (length, wraps) in enumerate(zip(box.length, box.periodic)):
        if wraps and radius > length / 2:
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
