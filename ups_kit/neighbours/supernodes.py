"""Where supernodes are: a lattice over the domain, or some of the points, whatever their order."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import DataError
from .distances import Box, position_hash

DRAWN = 0x11D3  # salt of the hash that draws random supernodes


def lattice_places(lattice: Sequence[int], domain: Sequence[tuple[float, float]]) -> Tensor:
    """The centres of the cells of a lattice over the domain, row-major, (S, D) float32."""
    axes = [
        low + (high - low) * (torch.arange(size, dtype=torch.float64) + 0.5) / size
        for size, (low, high) in zip(lattice, domain)
    ]
    places = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    return places.reshape(math.prod(lattice), len(lattice)).to(torch.float32)


def random_points(positions: Tensor, count: int) -> Tensor:
    """`count` of the points (n, D): those with the smallest hash of their position. Returns indices (count,).

    A set of points always gives the same ones. Points at the very same place are told apart by their index alone.
    """
    check_count(count, len(positions))
    return position_hash(positions, DRAWN).argsort(stable=True)[:count]


def farthest_points(positions: Tensor, count: int, box: Box) -> Tensor:
    """`count` of the points (n, D), each as far as can be from those before it. Returns indices (count,) in this order.

    Farthest-point sampling (Gonzalez 1985): begins with the point nearest to the mean of all; of several that are
    equally far, takes the one with the smallest coordinates. Distances are those of the nearest image on periodic axes.
    Points are sorted along the longest axis, and as no point can come nearer to its supernode than by one that is less
    far than the furthest point is from its own, only a slab around each new supernode is looked at.
    """
    check_count(count, len(positions))
    columns = positions.to(torch.float64).T
    longest = max(range(len(box.length)), key=lambda axis: box.length[axis])
    order = _lexicographic(columns, longest)
    columns = columns[:, order].contiguous()
    slabs = _Slabs(columns, box, longest)
    chosen = [_nearest_to_mean(columns)]
    distance = torch.full((columns.shape[1],), math.inf, dtype=torch.float64, device=columns.device)
    reach = math.inf
    for _ in range(count - 1):
        centre = columns[:, chosen[-1]].clone()
        for part in slabs.around(centre, reach):
            offset = squared_from(columns[:, part], centre, box)
            torch.minimum(distance[part], offset, out=distance[part])
        distance[chosen[-1]] = -1.0  # so that it is not taken again, where all others are at the same places
        following = int(distance.argmax())
        reach = math.sqrt(max(float(distance[following]), 0.0))
        chosen.append(following)
    return order[torch.tensor(chosen, device=order.device)]


def squared_from(columns: Tensor, centre: Tensor, box: Box) -> Tensor:
    """Squared distances (n,) of columns (D, n) from one place (D,)."""
    total: Tensor | None = None
    for axis, (length, wraps) in enumerate(zip(box.length, box.periodic)):
        offset = columns[axis] - centre[axis]
        if wraps:
            offset = offset - length * torch.round(offset / length)
        total = offset * offset if total is None else total + offset * offset
    assert total is not None
    return total


class _Slabs:
    """Which of the points, sorted along one axis, can lie within some distance of a place."""

    def __init__(self, columns: Tensor, box: Box, axis: int) -> None:
        self.along = columns[axis].cpu().numpy()
        self.length = box.length[axis] if box.periodic[axis] else None
        self.axis = axis
        # an image may be several boxes away where positions are not wrapped: then every point is looked at
        self.whole = self.length is not None and bool(self.along[-1] - self.along[0] > self.length)

    def around(self, centre: Tensor, reach: float) -> list[slice]:
        """Slices that do not overlap and hold all points within `reach` of `centre`."""
        if self.whole or math.isinf(reach) or (self.length is not None and 2.1 * reach >= self.length):
            return [slice(None)]
        middle, reach = float(centre[self.axis]), reach * (1 + 1e-9)
        shifts = (0.0,) if self.length is None else (-self.length, 0.0, self.length)
        found = []
        for shift in shifts:
            first = int(self.along.searchsorted(middle + shift - reach, "left"))
            last = int(self.along.searchsorted(middle + shift + reach, "right"))
            if last > first:
                found.append(slice(first, last))
        return found


def _lexicographic(columns: Tensor, first: int) -> Tensor:
    """The order of columns (D, n) by axis `first`, then by the others."""
    axes = [first, *(axis for axis in range(len(columns)) if axis != first)]
    order = torch.arange(columns.shape[1], device=columns.device)
    for axis in reversed(axes):
        order = order[columns[axis][order].argsort(stable=True)]
    return order


def _nearest_to_mean(columns: Tensor) -> int:
    """The first of the points (D, n), which are sorted, that is nearest to the mean of all."""
    return int(((columns - columns.mean(1, keepdim=True)) ** 2).sum(0).argmin())


def check_count(count: int, points: int) -> None:
    """Raise DataError where there are fewer points than supernodes to take from them."""
    if count > points:
        raise DataError(
            f"{count} supernodes cannot be taken from a sample of {points} points; "
            f"nearest: supernodes = {points}, or the choice 'grid', which needs no points"
        )
