"""Exponential time differencing of fourth order, for u' = L u + N(u) with L diagonal and stiff.

The linear part is solved exactly, the other by a Runge-Kutta method of four stages (Cox and Matthews, J. Comput. Phys.
176, 2002). Its coefficients suffer from cancellation where L h is small; they are means over a circle in the complex
plane around each L h instead (Kassam and Trefethen, SIAM J. Sci. Comput. 26, 2005).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from attrs import frozen
from torch import Tensor

CIRCLE_POINTS = 32


@frozen(eq=False)
class ETDRK4:
    """One step h of the scheme, for the modes that L has."""

    half: Tensor  # exp(L h / 2)
    whole: Tensor  # exp(L h)
    stage: Tensor  # what a stage's N is multiplied with
    first: Tensor
    middle: Tensor
    last: Tensor

    @classmethod
    def of(cls, linear: Tensor, step: float) -> ETDRK4:
        """The coefficients for a step; `linear` holds L, real or complex, in any shape."""
        scaled = linear * step
        totals = [torch.zeros_like(scaled, dtype=torch.complex128) for _ in range(4)]
        for point in range(CIRCLE_POINTS):
            angle = 2 * math.pi * (point + 0.5) / CIRCLE_POINTS
            r = scaled + complex(math.cos(angle), math.sin(angle))
            e, cube = torch.exp(r), r**3
            totals[0] += (torch.exp(r / 2) - 1) / r
            totals[1] += (-4 - r + e * (4 - 3 * r + r**2)) / cube
            totals[2] += (2 + r + e * (r - 2)) / cube
            totals[3] += (-4 - 3 * r - r**2 + e * (4 - r)) / cube
        means = [step * (total if scaled.is_complex() else total.real) / CIRCLE_POINTS for total in totals]
        return cls(torch.exp(scaled / 2), torch.exp(scaled), means[0], means[1], 2 * means[2], means[3])

    def step(self, state: Tensor, rest: Callable[[Tensor], Tensor]) -> Tensor:
        """u after one step; `rest` is N."""
        now = rest(state)
        decayed = self.half * state
        a = torch.addcmul(decayed, self.stage, now)
        at_a = rest(a)
        at_b = rest(torch.addcmul(decayed, self.stage, at_a))
        at_c = rest((self.half * a).addcmul_(self.stage, 2 * at_b - now))
        after = (self.whole * state).addcmul_(self.first, now)
        return after.addcmul_(self.middle, at_a.add_(at_b)).addcmul_(self.last, at_c)
