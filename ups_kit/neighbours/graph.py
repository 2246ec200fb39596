"""The look-ups of encoders with supernodes: where these are, and which points each of them hears."""

from __future__ import annotations

import math

import torch
from attrs import field, frozen
from torch import Tensor

from ..errors import DataError
from ..interfaces import PointSet, Supernodes
from .cache import BYTES, Kept, TableCache, content_key
from .distances import Box, squared
from .problems import Choice, lattice_shape
from .supernodes import farthest_points, lattice_places, random_points
from .tables import MEMORY, Pick, check_finite, check_radius, neighbour_table

LOOKED_AT = 32  # supernodes that a message's numbers are taken from
TOO_MANY = 0.5  # share of all points: a radius that gives a supernode more than that on average is none


@frozen
class SupernodeGraph:
    """Points to the same points with `supernodes` set; a `Preparation`, which pickles without what it has kept.

    `choice`: `grid`, the cell centres of a `lattice` over the domain, or of one of at most `supernodes` cells; or so
    many of the points of each sample, `farthest` from each other or `random`. A supernode hears points within `radius`,
    at most `degree`, the `nearest` or `spread` ones (`neighbour_table`); without a radius, its nearest points.

    On the CPU the look-ups of each sample are kept by the content of its positions, up to `cache_bytes` in every
    process, so that they are made once for points that come again. Raises DataError where positions are not finite,
    there are fewer points than supernodes to take from them, or the radius does not fit: less than one point for a
    supernode on average, more than half of them without any, or more than half of all points for each.
    """

    domain: tuple[tuple[float, float], ...]
    periodic: tuple[bool, ...]
    choice: Choice = "grid"
    supernodes: int | None = None
    lattice: tuple[int, ...] | None = None
    radius: float | None = None
    degree: int = 32
    pick: Pick = "nearest"
    memory: int = MEMORY
    cache_bytes: int = BYTES
    cache: TableCache[Kept] = field(init=False, eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        if self.choice == "grid" and self.lattice is None and self.supernodes is not None:
            object.__setattr__(self, "lattice", lattice_shape(self.supernodes, self.domain))
        object.__setattr__(self, "cache", TableCache(self.cache_bytes))

    @property
    def count(self) -> int:
        """How many supernodes there are, S: of a lattice, often a few less than were asked for."""
        of_lattice = self.choice == "grid" and self.lattice is not None
        size = math.prod(self.lattice or ()) if of_lattice else self.supernodes
        if size is None:
            raise ValueError("a SupernodeGraph needs either supernodes or lattice")
        return size

    def __call__(self, points: PointSet) -> PointSet:
        """The same points with their supernodes looked up, unless they have been."""
        if points.supernodes is not None:
            return points
        check_radius(self.radius, Box.of(self.domain, self.periodic))
        check_finite(points.positions, points.mask, "point")
        parts = [self._sample(points, sample) for sample in range(len(points.positions))]
        lattice = self.lattice if self.choice == "grid" else None
        positions, index, mask = (torch.stack(column) for column in zip(*parts))
        return points._replace(supernodes=Supernodes(positions, index, mask, lattice))

    def _sample(self, points: PointSet, sample: int) -> tuple[Tensor, Tensor, Tensor]:
        """Places (S, D), neighbours and mask (S, K) of one sample."""
        positions, ids = points.positions[sample], None
        if points.mask is not None and not bool(points.mask[sample].all()):
            mask = points.mask[sample]
            real = int(mask.sum())
            if bool(mask[:real].all()):
                positions = positions[:real]
            else:
                ids = mask.nonzero().squeeze(1)
                positions = positions[ids]
        kept = self._look_up(positions, sample)
        places = self._lattice_places(positions) if kept.positions is None else kept.positions
        index = kept.neighbours.to(torch.int64)
        heard = torch.arange(self.degree, device=index.device) < kept.counts.unsqueeze(1)
        if ids is not None:
            index = ids[index].masked_fill(~heard, 0)
        return places, index, heard

    def _look_up(self, positions: Tensor, sample: int) -> Kept:
        """What was kept for the real points (n, D) of a sample, or else made now."""
        if positions.device.type != "cpu" or self.cache_bytes <= 0:
            return self._make(positions, sample)
        key = content_key(positions)
        kept = self.cache.find(key)
        if kept is None:
            kept = self._make(positions, sample)
            self.cache.keep(key, kept)
        return kept

    def _make(self, positions: Tensor, sample: int) -> Kept:
        if not len(positions):
            raise DataError(f"sample {sample} of the batch has no points")
        places = self._places(positions)
        index, heard = self._table(positions, places, self.radius, self.degree, self.pick)
        counts = heard.sum(1)
        if self.radius is not None:
            self._check_degrees(positions, places, counts, self.radius, sample)
        small = torch.int32 if len(positions) < 2**31 else torch.int64
        own = None if self.choice == "grid" else places
        return Kept(own, index.to(small), counts.to(torch.int32))

    def _places(self, positions: Tensor) -> Tensor:
        if self.choice == "grid":
            return self._lattice_places(positions)
        if self.choice == "random":
            return positions[random_points(positions, self.count)]
        return positions[farthest_points(positions, self.count, Box.of(self.domain, self.periodic))]

    def _lattice_places(self, like: Tensor) -> Tensor:
        if self.lattice is None:
            raise ValueError("a SupernodeGraph with the choice 'grid' needs either supernodes or lattice")
        return lattice_places(self.lattice, self.domain).to(like)

    def _table(
        self, positions: Tensor, places: Tensor, radius: float | None, most: int, pick: Pick = "nearest"
    ) -> tuple[Tensor, Tensor]:
        """Indices and mask (S, most) of the neighbours of places (S, D) among positions (n, D)."""
        table = neighbour_table(
            positions[None],
            places[None],
            radius=radius,
            most=most,
            pick=pick,
            domain=self.domain,
            periodic=self.periodic,
            memory=self.memory,
        )
        return table.neighbours[0], table.mask[0]

    # -----------------------------------------------------------------------------------------------------------------
    # Radii that do not fit
    # -----------------------------------------------------------------------------------------------------------------
    def _check_degrees(self, positions: Tensor, places: Tensor, counts: Tensor, radius: float, sample: int) -> None:
        """Raise DataError where the radius leaves supernodes alone, or gives them everything."""
        mean, deaf = float(counts.double().mean()), int((counts == 0).sum())
        if mean < 1 or 2 * deaf > len(places):
            found = f"{mean:.3g} points for a supernode on average, and none for {deaf} of {len(places)}"
            raise DataError(self._advice(positions, places, radius, sample, found))
        if len(positions) <= 2 * self.degree or int(counts.min()) < self.degree:
            return
        some = _evenly(places, LOOKED_AT)
        heard = self._heard(positions, some, radius)
        if heard > TOO_MANY * len(positions):
            found = f"about {heard:.0f} of {len(positions)} points for a supernode on average"
            raise DataError(self._advice(positions, places, radius, sample, found))

    def _heard(self, positions: Tensor, places: Tensor, radius: float) -> float:
        """About how many points lie within the radius of a place, on average, from some of the points."""
        box = Box.of(self.domain, self.periodic)
        some = _evenly(positions, 32 * LOOKED_AT)
        everyone = torch.arange(len(some), device=some.device).expand(len(places), -1)
        offsets = box.offsets(some.double().T, places.double().T, everyone)
        return float((squared(offsets) <= radius * radius).double().mean()) * len(positions)

    def _advice(self, positions: Tensor, places: Tensor, radius: float, sample: int, found: str) -> str:
        """What a radius does to a sample, and one that would do: three quarters of the degree, at the median."""
        wanted = min(max(1, 3 * self.degree // 4), len(positions))
        some = _evenly(places, 8 * LOOKED_AT)
        last = self._table(positions, some, None, wanted)[0][:, -1:]
        offsets = Box.of(self.domain, self.periodic).offsets(positions.double().T, some.double().T, last)
        distances = squared(offsets).sqrt().flatten()
        better = float(f"{float(distances.median()):.2g}")
        halves = [(high - low) / 2 for (low, high), wraps in zip(self.domain, self.periodic) if wraps]
        better = min([better, *halves])
        return (
            f"encoder.radius: {radius:g} gives {found} (sample {sample} of the batch, {len(positions)} points, degree "
            f"{self.degree}); for about {wanted} points each: radius = {better:g}"
        )


def _evenly(places: Tensor, count: int) -> Tensor:
    """At most `count` of the places (S, D), evenly over their order."""
    step = max(1, len(places) // count)
    return places[step // 2 :: step][:count]
