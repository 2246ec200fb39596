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

BYTES = 120  # that one candidate takes while a chunk is worked on
ROUNDING = 1e-12  # of the largest coordinate: how far the tree's own distances may be off, amply


class Tree:
    """A k-d tree of the points (D, n). Its distances only propose candidates; what counts is `distances.squared`."""

    def __init__(self, points: Tensor, box: Box, memory: int) -> None:
        self.points, self.box, self.memory = points, box, memory
        sizes = [length if wraps else 0.0 for length, wraps in zip(box.length, box.periodic)]
        data = np.ascontiguousarray(box.wrapped(points).numpy().T)
        largest = float(np.abs(data).max(initial=0.0))
        self.slack = ROUNDING * max(largest, *(abs(low) for low in box.low), *box.length)
        self.tree = cKDTree(data, boxsize=sizes if any(box.periodic) else None, balanced_tree=False)

    def nearest(self, centres: Tensor, radius: float | None, most: int) -> tuple[Tensor, Tensor]:
        """The `most` nearest points of every centre (D, R), within the radius if there is one.

        Returns indices and squared distances, (R, most) each; distances beyond what was found are inf.
        """
        parts = [
            self._nearest(centres[:, rows], radius, most) for rows in chunks(centres.shape[1], most + 1, self.memory)
        ]
        return torch.cat([index for index, _ in parts]), torch.cat([distance for _, distance in parts])

    def _nearest(self, centres: Tensor, radius: float | None, most: int) -> tuple[Tensor, Tensor]:
        index, distance = self._candidates(centres, radius, most + 1)
        found = nearest(self.box, self.points, centres, index, distance, most)
        open_rows = self._undecided(distance, most).nonzero().squeeze(1)
        width = 2 * most + 1
        while len(open_rows) and width < 2 * self.points.shape[1]:  # several points at the distance of the last one
            left = []
            for part in chunks(len(open_rows), width, self.memory):
                rows = open_rows[part]
                some, far = self._candidates(centres[:, rows], radius, width)
                chosen = nearest(self.box, self.points, centres[:, rows], some, far, most)
                for table, entries in zip(found, chosen):
                    table[rows] = entries
                left.append(rows[self._undecided(far, most)])
            open_rows, width = torch.cat(left), 2 * width
        return found

    def _undecided(self, distance: Tensor, most: int) -> Tensor:
        """Rows whose last candidate is no further away than the last one that is wanted, as far as the tree can tell.

        Others beyond the last candidate could then be as near.
        """
        if distance.shape[1] >= self.points.shape[1]:
            return torch.zeros(len(distance), dtype=torch.bool)
        last = distance.amax(1).sqrt()
        return last.isfinite() & (last - distance.kthvalue(most, dim=1).values.sqrt() <= self.slack)

    def _candidates(self, centres: Tensor, radius: float | None, width: int) -> tuple[Tensor, Tensor]:
        """The `width` nearest as the tree has them; fewer columns where there are fewer points."""
        width = min(width, self.points.shape[1])
        bound = math.inf if radius is None else radius + self.slack
        _, found = self.tree.query(self._places(centres), k=list(range(1, width + 1)), distance_upper_bound=bound)
        index = torch.from_numpy(np.asarray(found, np.int64))
        missing = index == self.points.shape[1]
        index.masked_fill_(missing, 0)
        distance = squared(self.box.offsets(self.points, centres, index))
        if radius is not None:
            missing |= distance > radius * radius
        return index.masked_fill_(missing, 0), distance.masked_fill_(missing, math.inf)

    def within(self, centres: Tensor, radius: float) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """All points within the radius: rows (R,), indices and squared distances (R, M) of some centres at a time."""
        places = self._places(centres)
        counts = torch.from_numpy(
            np.asarray(self.tree.query_ball_point(places, radius + self.slack, return_length=True), np.int64)
        )
        for rows in chunks_by_width(counts, self.memory):
            width = int(counts[rows].max())
            yield rows, *self._candidates(centres[:, rows], radius, max(1, width))

    def _places(self, centres: Tensor) -> NDArray[np.float64]:
        return np.ascontiguousarray(self.box.wrapped(centres).numpy().T)


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
