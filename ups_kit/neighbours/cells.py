"""Neighbours by a cell list in plain torch, on any device.

Points are sorted by the cell that they lie in, with cells at least as wide as the radius. The neighbours of a centre
are then in its own cell and those around, and cells that follow each other along the last axis are one run of the
sorted points: 3^(D-1) runs for each centre, found by bisection.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from .distances import Box, nearest, squared
from .trees import Found, chunks, chunks_by_width

MARGIN = 1.0 + 1e-6  # cells are wider than the radius by more than rounding can take from it
FINEST = 2**20  # cells along an axis, so that numbers of cells fit into 64 bits


class Cells:
    """A cell list of the points (D, n), for neighbours within a radius."""

    def __init__(self, points: Tensor, box: Box, radius: float, memory: int) -> None:
        self.points, self.box, self.radius, self.memory = points, box, radius, memory
        self.low, self.width, self.shape = self._lattice()
        cell = self._cells(points)
        number = torch.zeros_like(cell[0])
        for axis, (column, size) in enumerate(zip(cell, self.shape)):
            number = number * size + column.clamp(0, size - 1) if axis else column.clamp(0, size - 1)
        self.numbers, self.order = torch.sort(number, stable=True)
        self.sorted = points[:, self.order]

    def _lattice(self) -> tuple[list[float], list[float], list[int]]:
        """Where cells begin, how wide they are and how many there are, along each axis."""
        low: list[float] = []
        width: list[float] = []
        shape: list[int] = []
        wanted = self.radius * MARGIN
        for axis, wraps in enumerate(self.box.periodic):
            length = self.box.length[axis]
            if wraps:
                size = max(1, min(FINEST, math.floor(length / wanted)))
                low, width, shape = [*low, 0.0], [*width, length / size], [*shape, size]
                continue
            least, last = (float(end) for end in self.points[axis].aminmax())
            widest = max(wanted, (last - least) / FINEST)
            low, width, shape = [*low, least], [*width, widest], [*shape, math.floor((last - least) / widest) + 1]
        return low, width, shape

    def _cells(self, columns: Tensor) -> list[Tensor]:
        """The cell along each axis that columns (D, n) lie in; two outside where they lie outside."""
        columns = self.box.wrapped(columns)
        return [
            torch.floor((columns[axis] - self.low[axis]) / self.width[axis]).clamp(-2, size + 1).to(torch.int64)
            for axis, size in enumerate(self.shape)
        ]

    def nearest(self, centres: Tensor, radius: float, most: int) -> Iterator[Found]:
        """The `most` nearest points within the radius of the centres (D, S), as `Tree.nearest`."""
        for rows, index, distance in self.within(centres, radius):
            yield rows, *nearest(self.box, self.points, centres[:, rows], index, distance, most)

    def within(self, centres: Tensor, radius: float, guess: int = 1) -> Iterator[Found]:
        """All points within the radius, which is no larger than that of the cells, as `Tree.within`."""
        for part in chunks(centres.shape[1], 3 ** len(self.shape), self.memory):
            some = centres[:, part]
            first, counts = self._runs(some)
            for rows in chunks_by_width(counts.sum(1), self.memory):
                yield rows + part.start, *self._dense(some[:, rows], first[rows], counts[rows], radius)

    def _runs(self, centres: Tensor) -> tuple[Tensor, Tensor]:
        """Where runs of candidates begin in the sorted points, and how long they are, (R, runs) each."""
        cell = self._cells(centres)
        last = len(self.shape) - 1
        found = []
        for around in itertools.product(*(self._around(axis) for axis in range(last))):
            number, inside = torch.zeros_like(cell[0]), torch.ones_like(cell[0], dtype=torch.bool)
            for axis, shift in enumerate(around):
                size = self.shape[axis]
                place = cell[axis] + shift
                if self.box.periodic[axis]:
                    place = place.clamp(-1, size).remainder(size)
                inside &= (place >= 0) & (place < size)
                number = number * size + place.clamp(0, size - 1)
            for start, stop in self._along(cell[last]):
                begin = torch.searchsorted(self.numbers, number * self.shape[last] + start)
                end = torch.searchsorted(self.numbers, number * self.shape[last] + stop)
                found.append((begin, (end - begin).clamp(min=0) * (inside & (stop > start))))
        return torch.stack([begin for begin, _ in found], 1), torch.stack([count for _, count in found], 1)

    def _around(self, axis: int) -> range:
        """Shifts to cells around one; on short periodic axes none comes twice."""
        if self.box.periodic[axis] and self.shape[axis] < 3:
            return range(self.shape[axis])
        return range(-1, 2)

    def _along(self, cell: Tensor) -> list[tuple[Tensor, Tensor]]:
        """The cells around one along the last axis, as ranges that do not overlap, [start, stop)."""
        size = self.shape[-1]
        nothing = torch.zeros_like(cell)
        if not self.box.periodic[-1]:
            return [((cell - 1).clamp(0, size), (cell + 2).clamp(0, size))]
        if size < 3:
            return [(nothing, nothing + size)]
        cell = cell.clamp(0, size - 1)
        before, after = cell == 0, cell == size - 1
        wrapped = torch.where(before, size - 1, nothing), torch.where(before, size, after.to(torch.int64))
        return [((cell - 1).clamp(min=0), (cell + 2).clamp(max=size)), wrapped]

    def _dense(self, centres: Tensor, first: Tensor, counts: Tensor, radius: float) -> tuple[Tensor, Tensor]:
        """Runs of candidates as rows (R, M) of those that are within the radius."""
        rows, flat = len(counts), counts.flatten()
        each = counts.sum(1)
        row = torch.repeat_interleave(torch.arange(rows, device=flat.device), each)
        place = torch.arange(len(row), device=flat.device)
        place += torch.repeat_interleave(first.flatten() - (flat.cumsum(0) - flat), flat)
        offsets = self.box.offsets(self.sorted, centres[:, row], place.unsqueeze(1))
        distance = squared(offsets).squeeze(1)
        near = (distance <= radius * radius).nonzero().squeeze(1)
        row, index, distance = row[near], self.order[place[near]], distance[near]
        each = torch.bincount(row, minlength=rows)
        column = torch.arange(len(row), device=row.device) - (each.cumsum(0) - each)[row]
        width = max(1, int(each.max())) if rows else 1
        table = torch.zeros(rows, width, dtype=torch.int64, device=row.device)
        far = torch.full((rows, width), math.inf, dtype=torch.float64, device=row.device)
        table[row, column], far[row, column] = index, distance
        return table, far


def nearest_by_cells(points: Tensor, centres: Tensor, box: Box, most: int, memory: int) -> Iterator[Found]:
    """The `most` nearest points of the centres, however far: cells of growing size, until every centre has enough."""
    everything = torch.cat([points, centres], 1)
    spans = [
        length if wraps else float(column.max() - column.min())
        for column, length, wraps in zip(everything, box.length, box.periodic)
    ]
    diameter = math.hypot(*spans) or 1.0
    radius = diameter * min(1.0, (2 * most / points.shape[1]) ** (1 / len(spans))) / 2
    rows = torch.arange(centres.shape[1], device=centres.device)
    while len(rows):
        left = []
        for part, index, distance in Cells(points, box, radius, memory).nearest(centres[:, rows], radius, most):
            enough = torch.isfinite(distance[:, -1]) if radius <= diameter else torch.ones_like(part, dtype=torch.bool)
            yield rows[part[enough]], index[enough], distance[enough]
            left.append(rows[part[~enough]])
        rows, radius = torch.cat(left), 2 * radius
