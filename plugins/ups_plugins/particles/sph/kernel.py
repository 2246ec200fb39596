"""The kernel of the sums over neighbours."""

from __future__ import annotations

import math

import torch
from attrs import frozen
from torch import Tensor


@frozen
class Kernel:
    """Wendland's kernel of smoothness C2, W(r) = a (1 - r/R)^4 (1 + 4 r/R) for r < R, else 0; ∫ W = 1.

    R is the `support`. In two and three space dimensions; its Fourier transform is positive, so that particles do not
    pair (Wendland 1995, doi:10.1007/BF02123482; Dehnen and Aly 2012, doi:10.1111/j.1365-2966.2012.21439.x).
    """

    support: float
    dims: int

    @property
    def centre(self) -> float:
        """W(0)."""
        share = 7 / math.pi if self.dims == 2 else 21 / (2 * math.pi)
        return share / self.support**self.dims

    def at(self, distance: Tensor) -> tuple[Tensor, Tensor]:
        """W and W'/r (below 0) at distances, both of their shape."""
        left = distance.mul(-1 / self.support).add_(1).clamp_min_(0)
        cubed = left * left * left
        value = torch.mul(left, -4).add_(5).mul_(left).mul_(cubed).mul_(self.centre)
        return value, cubed.mul_(-20 * self.centre / self.support**2)
