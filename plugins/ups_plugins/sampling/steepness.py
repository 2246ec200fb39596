"""How steep fields are at their points: finite differences on grids, differences to neighbours elsewhere."""

from __future__ import annotations

import torch
from attrs import field, frozen
from torch import Tensor

from ups_kit.derivatives import central_difference
from ups_kit.neighbours import neighbour_table
from ups_kit.neighbours.cache import BYTES, Kept, TableCache, content_key


def on_grid(frames: Tensor, positions: Tensor, grid: tuple[int, ...], periodic: tuple[bool, ...]) -> Tensor:
    """Root mean square of |∇u| over frames and channels (B, F, N, C) at the points of a grid, (B, N).

    By central differences, around periodic axes too. Along an axis of fewer than three points nothing counts as steep.
    """
    batch, count, points, channels = frames.shape
    fields = frames.reshape(batch, count, *grid, channels)
    places = positions[0].reshape(*grid, len(grid))
    total = torch.zeros(batch, *grid, dtype=torch.float64, device=frames.device)
    for axis, (size, wraps) in enumerate(zip(grid, periodic)):
        if size > 2:
            first = places.select(axis, 1)[..., axis] - places.select(axis, 0)[..., axis]
            slope = central_difference(fields, axis + 2, float(first.flatten()[0]), wraps)
            total = total + slope.double().square().sum((1, -1))
    return (total / (count * channels)).sqrt().reshape(batch, points)


@frozen
class Scattered:
    """Root mean squares of difference quotients between points and their nearest neighbours.

    For many neighbours all around, that is |∇u|/√D. Cheaper than the fits of `ups_kit.derivatives`, which matters where
    points move or are others in every step, and good enough to draw by. Neighbours of points that come again
    are kept, on the CPU.
    """

    domain: tuple[tuple[float, float], ...]
    periodic: tuple[bool, ...]
    cache: TableCache[Kept] = field(factory=lambda: TableCache(BYTES), eq=False, repr=False)

    def __call__(self, frames: Tensor, positions: Tensor, mask: Tensor | None) -> Tensor:
        """The steepness (B, N) of fields (B, F, N, C) at positions (B, N, D)."""
        found = []
        for sample, places in enumerate(positions):
            real = len(places) if mask is None else int(mask[sample].sum())
            values = frames[sample, :, :real].double()
            neighbours, heard = self._neighbours(places[:real])
            across = self._squared_distances(places[:real].double(), neighbours)
            heard = heard & (across > 0)
            change = (values[:, neighbours] - values[:, :, None]).square().mean((0, -1))
            quotient = torch.where(heard, change / across.masked_fill(~heard, 1), 0)
            slope = (quotient.sum(1) / heard.sum(1).clamp_min(1)).sqrt()
            found.append(torch.nn.functional.pad(slope, (0, len(places) - real)))
        return torch.stack(found)

    def _neighbours(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest points of each, itself among them, and which of these are meant: (n, K) each."""
        most = min(2 * len(self.periodic) + 2, len(places))
        key = content_key(places) if places.device.type == "cpu" else b""
        kept = self.cache.find(key) if key else None
        if kept is None:
            table = neighbour_table(
                places[None], places[None], radius=None, most=most, domain=self.domain, periodic=self.periodic
            )
            kept = Kept(None, table.neighbours[0].int(), table.mask[0].sum(1).int())
            if key:
                self.cache.keep(key, kept)
        rank = torch.arange(kept.neighbours.shape[1], device=places.device)
        return kept.neighbours.long(), rank < kept.counts[:, None]

    def _squared_distances(self, places: Tensor, neighbours: Tensor) -> Tensor:
        total = torch.zeros(neighbours.shape, dtype=places.dtype, device=places.device)
        for axis, ((low, high), wraps) in enumerate(zip(self.domain, self.periodic)):
            column = places[:, axis]
            offset = column[neighbours] - column[:, None]
            length = high - low
            nearest = offset - length * torch.round(offset / length) if wraps else offset
            total = total + nearest.square()
        return total
