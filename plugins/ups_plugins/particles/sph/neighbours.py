"""Pairs of neighbours of many trajectories at once, kept while the particles move."""

from __future__ import annotations

import numpy as np
import torch
from attrs import define, field, frozen
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from ups_kit import DataError

COMPARED = 2**26  # distances that a GPU holds at once, about


@frozen
class Crowd:
    """Which particles there are: those of S trajectories of `size` particles each, one after the other.

    `numbers` are the trajectories' numbers, for messages. `fixed` (size,) tells the particles that never move: pairs
    of two of them are left out. `box` is the length of the periodic box [0, box)^D, None where there is none.
    """

    numbers: range
    size: int
    box: float | None
    fixed: NDArray[np.bool_] | None = None

    @property
    def particles(self) -> int:
        return len(self.numbers) * self.size


@define(eq=False)
class Pairs:
    """Every pair (i, j) of particles nearer than `support`, and some that are further; each pair stands once.

    A list holds while no particle has moved by more than half of `skin` since it was made (Verlet 1967). Each
    trajectory's list is renewed by its own particles alone, so that the order of its pairs, and with it the rounding
    of their sums, does not depend on which trajectories are solved beside it. Tensors are (D, particles).
    """

    crowd: Crowd
    support: float
    skin: float
    first: Tensor = field(init=False)  # (pairs,), and below for each axis, into the flattened fields: (D * pairs,)
    second: Tensor = field(init=False)
    first_axes: Tensor = field(init=False)
    second_axes: Tensor = field(init=False)
    shift: Tensor = field(init=False)  # (D, pairs): what is added to the difference for the nearest image
    renewals: int = field(init=False, default=0)
    _lists: list[Tensor | None] = field(init=False)
    _made_at: Tensor = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._lists = [None] * len(self.crowd.numbers)

    def renew(self, positions: Tensor) -> bool:
        """Make the lists anew that may lack a pair; whether there were any. Raises DataError for positions that are
        not finite.
        """
        stale = self._stale(positions)
        if not stale.any():
            return False
        if None in self._lists:
            self._made_at = positions.clone()
        for place in np.flatnonzero(stale).tolist():
            inside = slice(place * self.crowd.size, (place + 1) * self.crowd.size)
            self._lists[place] = self._found(positions[:, inside]) + inside.start
            self._made_at[:, inside] = positions[:, inside]
        self._join(positions)
        self.renewals += 1
        return True

    def of_first(self, values: Tensor) -> Tensor:
        """Values (particles,) or (D, particles) of the first particle of each pair, (pairs,) or (D, pairs)."""
        if values.ndim == 1:
            return values.index_select(0, self.first)
        return values.reshape(-1).index_select(0, self.first_axes).view(len(values), -1)

    def of_second(self, values: Tensor) -> Tensor:
        """Values of the second particle of each pair."""
        if values.ndim == 1:
            return values.index_select(0, self.second)
        return values.reshape(-1).index_select(0, self.second_axes).view(len(values), -1)

    def total(self, values: Tensor) -> Tensor:
        """Sum of the values (pairs,) of a particle's pairs, (particles,)."""
        found = values.new_zeros(self.crowd.particles)
        return found.scatter_add_(0, self.first, values).scatter_add_(0, self.second, values)

    def difference(self, values: Tensor) -> Tensor:
        """Sum of the vectors (D, pairs) where a particle is the first, less those where it is the second."""
        flat = values.reshape(-1)
        found = values.new_zeros(len(values) * self.crowd.particles)
        found.scatter_add_(0, self.first_axes, flat).scatter_add_(0, self.second_axes, -flat)
        return found.view(len(values), -1)

    def _stale(self, positions: Tensor) -> NDArray[np.bool_]:
        """Of which trajectories the lists may lack a pair."""
        made = None not in self._lists
        moved = positions - self._made_at if made else positions
        furthest = moved.square().sum(0).view(-1, self.crowd.size).amax(1).cpu().numpy()
        if not np.isfinite(furthest).all():
            raise not_finite(self.crowd.numbers[int(np.argmin(np.isfinite(furthest)))])
        return 4 * furthest > self.skin**2 if made else np.ones(len(furthest), bool)

    def _found(self, positions: Tensor) -> Tensor:
        """Pairs (2, pairs) of one trajectory's particles."""
        reach, fixed = self.support + self.skin, self.crowd.fixed
        near = near_in_tree if positions.device.type == "cpu" else near_by_all
        pairs = near(positions, reach, self.crowd.box)
        if fixed is None:
            return pairs
        still = torch.from_numpy(fixed).to(pairs.device)
        return pairs[:, ~(still[pairs[0]] & still[pairs[1]])]

    def _join(self, positions: Tensor) -> None:
        """The lists of all trajectories as one."""
        joined = torch.cat([part for part in self._lists if part is not None], 1)
        self.first, self.second = joined[0].contiguous(), joined[1].contiguous()
        axes = self.crowd.particles * torch.arange(len(positions), device=positions.device)[:, None]
        self.first_axes, self.second_axes = (self.first + axes).view(-1), (self.second + axes).view(-1)
        apart = self.of_first(positions) - self.of_second(positions)
        box = self.crowd.box
        self.shift = torch.zeros_like(apart) if box is None else -box * torch.round(apart / box)


def near_in_tree(positions: Tensor, reach: float, box: float | None) -> Tensor:
    """All pairs (2, pairs) of points (D, points) at most `reach` apart, by a k-d tree (Maneewongvatana, Mount 1999)."""
    points = positions.numpy().T
    if box is not None:
        points = points % box
        points[points >= box] = 0.0  # what is left of the smallest negative numbers
    pairs = cKDTree(points, boxsize=box).query_pairs(reach, output_type="ndarray")
    return torch.from_numpy(np.ascontiguousarray(pairs.T, np.int64))


def near_by_all(positions: Tensor, reach: float, box: float | None) -> Tensor:
    """The same, by comparing every point with every other one: in parallel, where there are not too many."""
    count = positions.shape[1]
    rows = max(1, COMPARED // (len(positions) * count))
    found = []
    for start in range(0, count, rows):
        apart = positions[:, start : start + rows, None] - positions[:, None, :]
        if box is not None:
            apart = apart - box * torch.round(apart / box)
        one, other = torch.nonzero(apart.square().sum(0) <= reach**2, as_tuple=True)
        one = one + start
        found.append(torch.stack([one, other])[:, one < other])
    return torch.cat(found, 1)


def not_finite(number: int) -> DataError:
    """What is said of a trajectory that has blown up."""
    return DataError(
        f"trajectory {number} does not stay finite with these settings of the simulator; take a smaller simulate.cfl, "
        "more particles, or a larger nu",
        key="simulate",
    )
