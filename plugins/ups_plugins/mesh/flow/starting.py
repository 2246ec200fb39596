"""The first velocity in a channel with obstacles: the inflow's profile, led around them, with eddies drawn into it.

It is the curl of a stream function, u = (∂ψ/∂y, -∂ψ/∂x), and so free of divergence:

    ψ = ψ₀ + Σ_i w(d_i / gap) (ψ₀(c_i) - ψ₀),   ψ₀ = 2 y² - 4/3 y³ + eddies

d_i is the distance to obstacle i, c_i its centre, and w falls smoothly from 1 on its border to 0 where d_i = gap. On
walls and obstacles the velocity vanishes, at the inflow it is 4 y (1 - y). An eddy is a Gaussian in ψ.
"""

from __future__ import annotations

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from .obstacles import Obstacle, Places

EDDIES = 12  # of a flow in a channel of length 2
EDDY_SIZES = (0.06, 0.14)
NUDGE = 1e-5  # of the differences that give the curl: their error is of the size of rounding's
EDGE = 0.15  # of the channel, at its inflow and its walls, where eddies fade


@frozen
class Start:
    """The stream function of a trajectory."""

    obstacles: tuple[Obstacle, ...]
    gap: float
    centres: Places  # (E, 2) of the eddies
    sizes: NDArray[np.float64]  # (E,)
    strengths: NDArray[np.float64]  # (E,) largest value in ψ, with its sign

    @classmethod
    def draw(
        cls, obstacles: tuple[Obstacle, ...], gap: float, length: float, speed: float, generator: np.random.Generator
    ) -> Start:
        """Eddies anywhere in the channel, each with `speed` as its largest velocity, either way round."""
        count = max(1, round(EDDIES * length / 2))
        centres = generator.random((count, 2)) * [length, 1.0]
        sizes = EDDY_SIZES[0] + (EDDY_SIZES[1] - EDDY_SIZES[0]) * generator.random(count)
        signs = np.where(generator.random(count) < 0.5, -1.0, 1.0)
        return cls(obstacles, gap, centres, sizes, signs * speed * sizes * np.exp(0.5))

    def velocity(self, places: Places) -> Places:
        """The velocity at places (…, 2)."""
        along, across = np.array([NUDGE, 0.0]), np.array([0.0, NUDGE])
        u = self.stream(places + across) - self.stream(places - across)
        v = self.stream(places - along) - self.stream(places + along)
        return np.stack([u, v], -1) / (2 * NUDGE)

    def stream(self, places: Places) -> NDArray[np.float64]:
        """ψ at places, (…,)."""
        found = base = self._base(places)
        for obstacle in self.obstacles:
            weight = 1 - _smooth(obstacle.distance(places) / self.gap)
            found = found + weight * (self._base(np.array(obstacle.centre)) - base)
        return found

    def _base(self, places: Places) -> NDArray[np.float64]:
        x, y = places[..., 0], places[..., 1]
        square = ((places[..., None, :] - self.centres) ** 2).sum(-1) / (2 * self.sizes**2)
        eddies = (self.strengths * np.exp(-square)).sum(-1)
        fade = _smooth(x / EDGE) * _smooth(y / EDGE) * _smooth((1 - y) / EDGE)
        base: NDArray[np.float64] = 2 * y**2 - 4 / 3 * y**3 + fade * eddies
        return base


def inflow(places: Places) -> Places:
    """The velocity given on the borders, (…, 2): 4 y (1 - y) along the channel at x = 0, else 0."""
    x, y = places[..., 0], places[..., 1]
    return np.stack([np.where(x <= 0, 4 * y * (1 - y), 0.0), np.zeros_like(y)], -1)


def _smooth(share: NDArray[np.float64]) -> NDArray[np.float64]:
    """From 0 to 1 as the share does, with two derivatives that vanish at both ends."""
    share = np.clip(share, 0.0, 1.0)
    return share**3 * (10 - 15 * share + 6 * share**2)
