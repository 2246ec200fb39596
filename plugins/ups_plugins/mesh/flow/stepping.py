"""Incompressible flow in time, on a space of finite elements.

    u_t + (u·∇)u = -∇p + ν ∇²u,  ∇·u = 0

u is the velocity, p the pressure over the density, ν the viscosity. On part of the border u is given; on the rest,
where the flow leaves, ν ∂u/∂n = p n: nothing pulls at it.

Second-order backward differences, viscosity implicit, the transport extrapolated from the last three steps by 8/3, -7/3
and 2/3: of second order, and stable for waves of up to 0.72 radians in a step, where 2 and -1 are stable for none (the
roots of its polynomial on the imaginary axis). A step is solved with the pressure before it, and then the velocity is
freed of divergence, which gives the pressure's change φ (Guermond, Minev and Shen, CMAME 195:6011, 2006). The mass
matrix M being diagonal, S φ = -(3/2Δt) B u with S = B M⁻¹ Bᵀ as it stands: ∇·u is zero to rounding for each linear test
function, and given velocities are kept. The matrices are factorised once for a mesh and a step.

It fails where the step is too long for the mesh: `Flow.courant` is to stay below about 0.25, the fastest waves of the
transport having up to 2.9 radians for each triangle that is crossed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sparse
from attrs import define, field
from scipy.sparse.linalg import splu

from .spaces import Space, Values

Given = Callable[[float], Values]  # velocities at all places at a time, (V, 2), of which the border's are used
EXTRAPOLATION = (8 / 3, -7 / 3, 2 / 3)
SETTLING = 4  # repetitions of the first step, by which its pressure is found


def factorised(matrix: Any) -> Any:
    """The factors of a sparse, symmetric and positive matrix; they have `solve`."""
    return splu(matrix.tocsc(), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})


@define
class Flow:
    """A flow at a time. `velocity` (V, 2) is free of divergence; `pressure` (N,)."""

    space: Space
    viscosity: float
    given: Given
    velocity: Values
    step: float
    time: float = 0.0
    pressure: Values = field(init=False)
    _before: Values | None = field(default=None, init=False)  # the velocity a step ago
    _carried: list[Values] = field(factory=list, init=False)  # the transport of one, and of two steps ago
    _momentum: dict[float, tuple[Any, Any]] = field(factory=dict, init=False)
    _projection: Any = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.pressure = np.zeros(len(self.space.corners))
        self._projection = factorised(self._schur())
        self.velocity = self.velocity.copy()
        self._set_given(self.velocity, self.time)
        self._free_of_divergence(self.velocity)

    def _set_given(self, velocity: Values, time: float) -> None:
        velocity[self.space.free :] = self.given(time)[self.space.free :]

    def _schur(self) -> Any:
        """B M⁻¹ Bᵀ over the free places; of a closed flow, with the first node's pressure at 0."""
        free = self.space.free
        inverse = sparse.diags(1 / self.space.mass[:free])
        total = sum(part[:, :free] @ inverse @ part[:, :free].T for part in self.space.divergence)
        return total[1:, 1:] if self.space.closed else total

    def _free_of_divergence(self, velocity: Values) -> Values:
        """Change a velocity (V, 2) at the free places until it is; the potential that this takes, (N,)."""
        space, free = self.space, self.space.free
        flux = space.flux(velocity)
        potential = np.zeros(len(flux))
        first = 1 if space.closed else 0
        potential[first:] = self._projection.solve(-flux[first:])
        velocity[:free] += space.push(potential)[:free] / space.mass[:free, None]
        return potential

    def _factors(self, rate: float) -> tuple[Any, Any]:
        """The matrix rate · M + ν K of the free places, factorised, and its columns of the given ones."""
        if rate not in self._momentum:
            space, free = self.space, self.space.free
            rows = (sparse.diags(rate * space.mass) + self.viscosity * space.stiffness).tocsr()[:free]
            self._momentum[rate] = factorised(rows[:, :free]), rows[:, free:]
        return self._momentum[rate]

    @property
    def courant(self) -> float:
        """How many triangles the flow crosses in a step, at most."""
        return self.step * self.space.transport.fastest(self.velocity)

    def settle(self, courant: float) -> None:
        """Find the pressure that goes with the first velocity; the flow stays where it is in time."""
        self.step = courant / self.space.transport.fastest(self.velocity)
        self._first(self.space.transport(self.velocity))
        self._momentum.clear()

    def advance(self, steps: int) -> None:
        """Go on by so many steps."""
        for _ in range(steps):
            carried = [self.space.transport(self.velocity), *self._carried]
            if self._before is None:
                velocity = self._first(carried[0])
            else:
                history = (2 * self.velocity - 0.5 * self._before) / self.step
                shares = EXTRAPOLATION if len(carried) == 3 else (2.0, -1.0)
                extrapolated = sum((a * each for a, each in zip(shares[1:], carried[1:])), shares[0] * carried[0])
                velocity, self.pressure = self._stepped(1.5 / self.step, history, extrapolated)
            self._before, self._carried = self.velocity, carried[:2]
            self.velocity = velocity
            self.time += self.step

    def _first(self, carried: Values) -> Values:
        """The velocity after a step of first order, repeated until its pressure has been found."""
        for _ in range(SETTLING):
            velocity, self.pressure = self._stepped(1 / self.step, self.velocity / self.step, carried)
        return velocity

    def _stepped(self, rate: float, history: Values, carried: Values) -> tuple[Values, Values]:
        """Velocity and pressure of (rate · u - history) + carried = -∇p + ν ∇²u."""
        space = self.space
        factors, columns = self._factors(rate)
        velocity = np.empty_like(self.velocity)
        self._set_given(velocity, self.time + self.step)
        right = space.mass[:, None] * history
        right -= carried
        right += space.push(self.pressure)
        velocity[: space.free] = factors.solve(right[: space.free] - columns @ velocity[space.free :])
        potential = self._free_of_divergence(velocity)
        return velocity, self.pressure + rate * potential

    def restep(self, step: float) -> None:
        """Go on with another step. What was a step ago is taken from the last two velocities, linear in time: an error
        of second order, once.
        """
        ratio = step / self.step
        self.step = step
        self._momentum.clear()
        if self._before is not None:
            carried = self.space.transport(self.velocity)
            self._before = self.velocity + ratio * (self._before - self.velocity)
            self._carried = [self.space.transport(self._before), carried + 2 * ratio * (self._carried[0] - carried)]
