"""The look-ups of supernodes by the distances of all points, in torch alone: for models that are exported.

No search, no tree and no loop over points, so that a graph of tensor operations can hold it, for any number of points.
It costs time and memory as supernodes × points.
"""

from __future__ import annotations

import math

import torch
from attrs import frozen
from torch import Tensor

from ..interfaces import PointSet, Supernodes
from .distances import Box, position_hash, squared
from .graph import SupernodeGraph
from .supernodes import DRAWN, lattice_places
from .tables import SPREAD, centre_colours, spread_keys

LAST = torch.iinfo(torch.int64).max  # the key of a point that is not heard


@frozen(eq=False)
class DenseLookup:
    """What a `SupernodeGraph` looks up, for point sets without padding: the same points, in the same order.

    Nothing is refused: a supernode that hears no point has zeros. Supernodes are on a lattice or drawn at random; those
    that are far from each other are found one after the other, and not here.
    """

    graph: SupernodeGraph
    box: Box

    @classmethod
    def of(cls, graph: SupernodeGraph) -> DenseLookup:
        """The look-ups of a graph."""
        return cls(graph, Box.of(graph.domain, graph.periodic))

    def __call__(self, points: PointSet) -> PointSet:
        """The same points with their supernodes."""
        positions = points.positions
        places = self._places(positions)
        index, heard = self._heard(positions, places)
        lattice = self.graph.lattice if self.graph.choice == "grid" else None
        return points._replace(supernodes=Supernodes(places, index, heard, lattice))

    def _places(self, positions: Tensor) -> Tensor:
        """(B, S, D)."""
        if self.graph.choice == "grid":
            places = lattice_places(self.graph.lattice or (), self.graph.domain)
            return places.to(positions).expand(positions.shape[0], -1, -1)
        order = position_hash(positions, DRAWN).argsort(dim=1, stable=True)[:, : self.graph.count]
        return positions.gather(1, order.unsqueeze(-1).expand(-1, -1, positions.shape[2]))

    def _heard(self, positions: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """Neighbours and mask, (B, S, K) each."""
        graph, box = self.graph, self.box
        offsets = []
        for axis, (length, wraps) in enumerate(zip(box.length, box.periodic, strict=True)):
            offset = positions[:, None, :, axis].double() - places[:, :, None, axis].double()
            offsets.append(offset - length * torch.round(offset / length) if wraps else offset)
        distance = squared(offsets)  # (B, S, N)
        near = torch.ones_like(distance, dtype=torch.bool)
        if graph.radius is not None:
            near = distance <= graph.radius * graph.radius
        if graph.radius is not None and graph.pick == "spread":
            keys = spread_keys(position_hash(positions, SPREAD)[:, None], centre_colours(places)[..., None])
        else:  # of numbers that are not negative, the order of the bits is that of the numbers
            keys = distance.contiguous().view(torch.int64)
        keys = torch.cat([keys.masked_fill(~near, LAST), keys.new_full((*keys.shape[:2], graph.degree), LAST)], -1)
        chosen = keys.topk(graph.degree, dim=-1, largest=False)
        heard = chosen.values != LAST
        index = chosen.indices.masked_fill(~heard, 0)
        return self._in_order(index, heard, distance, offsets)

    def _in_order(self, index: Tensor, heard: Tensor, distance: Tensor, offsets: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Rows in the order of distance, then of the offset axis by axis, then of the index: sums round alike."""
        far = distance.gather(2, index).masked_fill(~heard, math.inf)
        order = index.argsort(dim=-1, stable=True)
        for key in [*(offset.gather(2, index) for offset in reversed(offsets)), far]:
            order = order.gather(2, key.gather(2, order).argsort(dim=-1, stable=True))
        return index.gather(2, order), heard.gather(2, order)
