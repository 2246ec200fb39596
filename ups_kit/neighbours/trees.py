"""Neighbours by scipy's k-d tree, on the CPU."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from .distances import Box, nearest, squared

BYTES = 200  # that one candidate takes while a chunk is worked on
ROUNDING = 1e-12  # of the largest coordinate and of a distance: how far the tree's distances may be off, amply


Found = tuple[Tensor, Tensor, Tensor]  # rows (R,), indices of points (R, M), squared distances: inf where none is


class Tree:
    """A k-d tree of the points (D, n). Its distances only propose candidates; what counts is `distances.squared`."""

    def __init__(self, points: Tensor, box: Box, memory: int) -> None:
        self.points, self.box, self.memory = points, box, memory
        sizes = [length if wraps else 0.0 for length, wraps in zip(box.length, box.periodic)]
        wrapped = box.wrapped(points)
        largest = float(wrapped.abs().max())
        data = np.ascontiguousarray(wrapped.detach().numpy().T)
        self.slack = ROUNDING * max(largest, *(abs(low) for low in box.low), *box.length)
        self.tree = cKDTree(
            data, boxsize=sizes if any(box.periodic) else None, balanced_tree=False, compact_nodes=False
        )

    def nearest(self, centres: Tensor, radius: float | None, most: int) -> Iterator[Found]:
        """The `most` nearest points of the centres (D, S), within the radius if there is one, some rows at a time."""
        limit = math.inf if radius is None else radius
        for part in chunks(centres.shape[1], most + 1, self.memory):
            yield torch.arange(part.start, part.stop), *self._nearest(centres[:, part], limit, most)

    def _nearest(self, centres: Tensor, limit: float, most: int) -> tuple[Tensor, Tensor]:
        index, distance = self._candidates(centres, limit, most + 1)
        found = nearest(self.box, self.points, centres, index, _cut(distance, limit), most)
        open_rows = self._undecided(distance, found[1], limit).nonzero().squeeze(1)
        width = 2 * most + 1
        while len(open_rows):  # several points at the distance of the last one
            left = []
            for part in chunks(len(open_rows), width, self.memory):
                rows = open_rows[part]
                index, distance = self._candidates(centres[:, rows], limit, width)
                chosen = nearest(self.box, self.points, centres[:, rows], index, _cut(distance, limit), most)
                for table, entries in zip(found, chosen):
                    table[rows] = entries
                left.append(rows[self._undecided(distance, chosen[1], limit)])
            open_rows, width = torch.cat(left), 2 * width
        return found

    def within(self, centres: Tensor, radius: float, guess: int) -> Iterator[Found]:
        """All points within the radius of the centres (D, S), some rows at a time; `guess` is how many most hear."""
        rows, width = torch.arange(centres.shape[1]), guess
        while len(rows):
            left = []
            for part in chunks(len(rows), width, self.memory):
                some = rows[part]
                index, distance = self._candidates(centres[:, some], radius, width)
                more = self._more(distance, distance.new_full((len(some),), radius))
                yield some[~more], index[~more], _cut(distance[~more], radius)
                left.append(some[more])
            rows, width = torch.cat(left), 2 * width

    def _undecided(self, distance: Tensor, chosen: Tensor, limit: float) -> Tensor:
        """Rows of candidates after which others may follow that are as near as the last one that was chosen."""
        return self._more(distance, chosen[:, -1].sqrt().clamp(max=limit))

    def _more(self, distance: Tensor, needed: Tensor) -> Tensor:
        """Rows (R,) after whose last candidate others may be no further than `needed` (R,), for all the tree knows."""
        if distance.shape[1] >= self.points.shape[1]:
            return torch.zeros(len(distance), dtype=torch.bool)
        last = distance[:, -1]
        return torch.isfinite(last) & (last.sqrt() <= needed * (1 + ROUNDING) + 2 * self.slack)

    def _candidates(self, centres: Tensor, limit: float, width: int) -> tuple[Tensor, Tensor]:
        """The `width` nearest within the limit and a little more, as the tree has them.

        There are fewer columns where there are fewer points; squared distances are inf where nothing was found.
        """
        width = min(width, self.points.shape[1])
        bound = limit * (1 + ROUNDING) + self.slack
        _, found = self.tree.query(self._places(centres), k=width, distance_upper_bound=bound)
        index = torch.from_numpy(np.asarray(found, np.int64).reshape(-1, width))
        missing = index == self.points.shape[1]
        index.masked_fill_(missing, 0)
        return index, squared(self.box.offsets(self.points, centres, index)).masked_fill_(missing, math.inf)

    def _places(self, centres: Tensor) -> NDArray[np.float64]:
        return np.ascontiguousarray(self.box.wrapped(centres).detach().numpy().T)


def _cut(distance: Tensor, limit: float) -> Tensor:
    """Squared distances, inf beyond the limit."""
    return distance if math.isinf(limit) else distance.masked_fill(distance > limit * limit, math.inf)


def chunks(rows: int, width: int, memory: int) -> Iterator[slice]:
    """Rows in chunks of so many that `width` candidates for each fit the memory."""
    size = max(1, memory // (BYTES * width))
    for first in range(0, rows, size):
        yield slice(first, min(rows, first + size))
    if not rows:
        yield slice(0, 0)


def chunks_by_width(counts: Tensor, memory: int) -> Iterator[Tensor]:
    """Rows with alike counts together, in chunks whose candidates fit the memory."""
    order = counts.argsort(descending=True, stable=True)
    widths = counts[order].tolist()
    first = 0
    while first < len(widths):
        size = max(1, memory // (BYTES * max(1, widths[first])))
        yield order[first : first + size]
        first += size
