"""The box that particles move in, periodic along some of its axes."""

from __future__ import annotations

from typing import Any

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

ROUNDING = 1e-5  # of the box's length: what is so little outside was rounded
FAR = 0.5  # of the box's length: what is so far outside of a closed axis belongs to another box


@frozen
class Box:
    """[low, high] along each axis, and whether the axis is periodic."""

    domain: tuple[tuple[float, float], ...]
    periodic: tuple[bool, ...]

    @property
    def dims(self) -> int:
        return len(self.domain)

    @property
    def length(self) -> NDArray[np.float64]:
        return np.array([high - low for low, high in self.domain])

    def __str__(self) -> str:
        ends = (f"[{low:g}, {high:g}]{'' if wraps else ' (closed)'}" for (low, high), wraps in self._axes)
        return " x ".join(ends)

    @property
    def _axes(self) -> zip[tuple[tuple[float, float], bool]]:
        return zip(self.domain, self.periodic, strict=True)

    def wrapped(self, positions: NDArray[Any]) -> NDArray[np.float32]:
        """Positions (..., D) with those on periodic axes in [low, high)."""
        found = np.array(positions, np.float32)
        finite = np.isfinite(found)
        for axis, ((low, high), wraps) in enumerate(self._axes):
            if wraps:
                own = found[..., axis]
                outside = ((own < np.float32(low)) | (own >= np.float32(high))) & finite[..., axis]
                if outside.any():
                    away = own[outside].astype(np.float64)
                    away -= (high - low) * np.floor((away - low) / (high - low))
                    inside = away.astype(np.float32)
                    inside[(inside >= np.float32(high)) | (inside < np.float32(low))] = np.float32(low)
                    own[outside] = inside
        return found

    def nearest(self, steps: NDArray[Any]) -> NDArray[np.float64]:
        """Differences of positions (..., D) by the shortest way: through a periodic boundary where that is shorter."""
        found = np.asarray(steps, np.float64)
        for axis, wraps in enumerate(self.periodic):
            if wraps:
                length = self.length[axis]
                found[..., axis] -= length * np.round(found[..., axis] / length)
        return found

    def outside(self, positions: NDArray[Any], wrap: bool = False) -> NDArray[np.bool_]:
        """Which positions (..., D) lie outside of a periodic axis by more than rounding, or far out of a closed one.

        With `wrap`, those on periodic axes are never outside.
        """
        allowed = self.length * np.where(self.periodic, np.inf if wrap else ROUNDING, FAR)
        away = np.zeros(positions.shape[:-1], bool)
        for axis, (low, high) in enumerate(self.domain):  # a reduction over so short an axis is slow
            own, most = positions[..., axis], allowed[axis]
            away |= (own < low - most) | (own > high + most)
        return away
