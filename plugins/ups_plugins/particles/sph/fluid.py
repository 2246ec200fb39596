"""Weakly compressible smoothed particle hydrodynamics with a transport velocity.

    dv/dt = -∇p/ρ + ν ∇²v,  dx/dt = v,  p = c² (ρ - ρ₀),  ρ₀ = 1

as Adami, Hu and Adams 2013 (doi:10.1016/j.jcp.2013.01.043) solve it. v is a particle's velocity, ρ its density, p its
pressure, ν the viscosity, c the speed of sound, at least ten times that of the flow, so that ρ varies by about 1 %.
All particles have the mass m = spacing^D; V = m/ρ is a volume, W the kernel, and sums go over neighbours j:

    ρ_i  = m Σ W_ij                                                       (mass is conserved: that of the particles)
    a_i  = 1/m Σ (V_i² + V_j²) [-p_ij x_ij + ν v_ij + ½ (A_i + A_j) x_ij] W'_ij/r_ij
    ã_i  = -p_b/m Σ (V_i² + V_j²) x_ij W'_ij/r_ij
    p_ij = (ρ_j p_i + ρ_i p_j) / (ρ_i + ρ_j),  A = ρ v ⊗ (ṽ - v),  x_ij = x_i - x_j

ã keeps the particles evenly spread: it would vanish where they are, and they move with ṽ = v + Δt/2 ã instead of v; A
makes up for that in the momentum. p_b = c². Time steps kick, drift and kick, with the sums once in each. What i gives
to j, j takes from i, so that momentum is conserved to rounding where there are no walls.

Walls are particles that stay where they are (Adami, Hu and Adams 2012, doi:10.1016/j.jcp.2012.05.005): their pressure
is the mean of the fluid's around, weighted with W, and for the viscous force their velocity is 2 v_wall less the mean
of the fluid's, so that it is v_wall at the wall's face.
"""

from __future__ import annotations

import torch
from attrs import define, field, frozen
from torch import Tensor

from ups_kit import DataError

from .kernel import Kernel
from .neighbours import Pairs, not_finite

BACKGROUND = 1.0  # p_b / c²
SETTLING = 1.0  # of a step towards even spreading; see `settle`
LONGEST = 0.2  # spacings that a particle goes in such a step
SETTLED_STEPS = 150


@frozen(eq=False)
class Walls:
    """Particles that stay where they are, and how fast the walls that they are part of slide: (particles,) and (D,
    particles).
    """

    here: Tensor
    velocity: Tensor


@frozen(eq=False)
class Medium:
    """What the fluid is like: the same for all trajectories but for the viscosity, (particles,)."""

    spacing: float
    sound: float
    viscosity: Tensor
    walls: Walls | None = None


@define(eq=False)
class Fluid:
    """Particles of several trajectories on their way. Positions (D, particles) are not wrapped into the box."""

    medium: Medium
    kernel: Kernel
    pairs: Pairs
    positions: Tensor
    velocity: Tensor = field(init=False)
    pressure: Tensor = field(init=False)  # (particles,)
    _acceleration: Tensor = field(init=False)
    _spreading: Tensor = field(init=False)  # ã
    _slip: Tensor = field(init=False)  # ṽ - v
    _viscosity: Tensor = field(init=False)  # of each pair
    _near_walls: tuple[Tensor, Tensor, Tensor] | None = field(init=False, default=None)

    def settle(self, steps: int = SETTLED_STEPS) -> None:
        """Spread the particles of the fluid evenly, by steps along -∇Σ m W: from any disorder to densities that
        differ by 0.1 %, without the order of a lattice, whose breaking up would cost the flow energy.
        """
        medium = self.medium
        longest, size = LONGEST * medium.spacing, SETTLING * medium.spacing ** (self.kernel.dims + 2)
        for _ in range(steps):
            self._renew()
            apart, _, slope = self._geometry()
            move = self.pairs.difference(slope * apart).mul_(-size)
            move *= (longest / move.square().sum(0).sqrt_().clamp_min_(1e-30)).clamp_max_(1.0)
            self.positions = self.positions + self._of_fluid(move)

    def start(self, velocity: Tensor) -> None:
        """Give the particles their first velocities (D, particles)."""
        self.velocity, self._slip = velocity, torch.zeros_like(velocity)
        self._renew()
        self._forces()

    def advance(self, step: float, count: int) -> None:
        """Take time steps. Raises DataError where a trajectory blows up."""
        for _ in range(count):
            self.velocity = self.velocity + (step / 2) * self._acceleration
            self._slip = (step / 2) * self._spreading
            self.positions = self.positions + step * (self.velocity + self._slip)
            self._renew()
            self._forces()
            self.velocity = self.velocity + (step / 2) * self._acceleration

    def check(self) -> None:
        """Raise DataError where a trajectory is faster than sound, which no fluid of this kind is."""
        speeds = self.velocity.square().sum(0).view(-1, self.pairs.crowd.size).amax(1).sqrt().tolist()
        for number, speed in zip(self.pairs.crowd.numbers, speeds, strict=True):
            if not speed < float("inf"):
                raise not_finite(number)
            if speed > self.medium.sound:
                raise DataError(
                    f"trajectory {number} reaches the speed {speed:.3g}, and its sound has {self.medium.sound:.3g}: it "
                    "blows up; take a smaller simulate.cfl, more particles, or a larger nu",
                    key="simulate",
                )

    def _renew(self) -> None:
        if not self.pairs.renew(self.positions):
            return
        self._viscosity = self.pairs.of_first(self.medium.viscosity)
        if self.medium.walls is not None:
            here, first, second = self.medium.walls.here, self.pairs.first, self.pairs.second
            left, right = here[first], here[second]
            places = torch.nonzero(left | right)[:, 0]
            swap = left[places]
            wall = torch.where(swap, first[places], second[places])
            self._near_walls = places, wall, torch.where(swap, second[places], first[places])

    def _geometry(self) -> tuple[Tensor, Tensor, Tensor]:
        """x_ij (D, pairs), W and W'/r (pairs,)."""
        apart = self.pairs.of_first(self.positions).sub_(self.pairs.of_second(self.positions)).add_(self.pairs.shift)
        distance = (apart * apart).sum(0).sqrt_()
        return apart, *self.kernel.at(distance)

    def _forces(self) -> None:
        """a and ã."""
        medium, pairs = self.medium, self.pairs
        mass = medium.spacing**self.kernel.dims
        apart, value, slope = self._geometry()
        density = pairs.total(value).add_(self.kernel.centre).mul_(mass)
        pressure = medium.sound**2 * (density - 1)
        velocity = self.velocity
        if medium.walls is not None:
            density, pressure, velocity = self._at_walls(medium.walls, value, density, pressure)
        self.pressure = pressure
        squares = mass / (density * density)  # V²/m
        factor = (pairs.of_first(squares) + pairs.of_second(squares)).mul_(slope)
        left, right = pairs.of_first(density), pairs.of_second(density)
        shared = (right * pairs.of_first(pressure)).add_(left * pairs.of_second(pressure)).div_(left.add_(right))
        own, other = pairs.of_first(velocity), pairs.of_second(velocity)
        force = (own - other).mul_(self._viscosity).sub_(shared * apart)
        carried = (density / 2) * self._slip
        force += own.mul_((pairs.of_first(carried) * apart).sum(0))
        force += other.mul_((pairs.of_second(carried) * apart).sum(0))
        self._acceleration = self._of_fluid(pairs.difference(force.mul_(factor)))
        spread = factor.mul_(-BACKGROUND * medium.sound**2)
        self._spreading = self._of_fluid(pairs.difference(apart.mul_(spread)))

    def _at_walls(
        self, walls: Walls, value: Tensor, density: Tensor, pressure: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Density, pressure and velocity with those of the walls' particles from the fluid around."""
        assert self._near_walls is not None
        places, wall, fluid = self._near_walls
        weight = value[places]

        def mean(values: Tensor) -> Tensor:
            total = torch.zeros_like(values).scatter_add_(0, wall, weight * values[fluid])
            return total / weights

        weights = torch.zeros_like(density).scatter_add_(0, wall, weight).clamp_min_(1e-30)
        pressure = torch.where(walls.here, mean(pressure), pressure)
        density = torch.where(walls.here, 1 + pressure / self.medium.sound**2, density)
        around = torch.stack([mean(part) for part in self.velocity])
        return density, pressure, torch.where(walls.here, 2 * walls.velocity - around, self.velocity)

    def _of_fluid(self, values: Tensor) -> Tensor:
        """Values (D, particles), 0 at walls."""
        return values if self.medium.walls is None else values.masked_fill_(self.medium.walls.here, 0.0)
