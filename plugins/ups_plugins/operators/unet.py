"""A convolutional U-Net on the lattice of latent tokens (Ronneberger et al., arXiv:1505.04597).

    h = P z,    A(z, c) = z + Q U_0(h),    U_l(h) = R'_l( J_l [ R_l h, up_l U_{l+1}( down_l R_l h ) ] )

down_l and up_l are convolutions of 2 × … × 2 points, which halve and double the lattice, J_l joins the skip with what
comes from below. R are residual blocks of convolutions of width 3, scaled and shifted by the condition:

    R h = h + C₂ SiLU( N(C₁ SiLU(N h)) · (1 + a(c)) + b(c) ),    N: group norm

They wrap on periodic axes; others are continued by their end values. Q, C₂, a and b are zero at first. Where all axes
are periodic and divisible by 2^(levels − 1), A commutes with shifts by as many tokens.
"""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ups_kit.interfaces import Latent
from ups_kit.lattices import evened, lattice_of
from ups_kit.layers import continued, zero

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
NORM_GROUPS = 8  # at most


class ResidualBlock(nn.Module):
    """Two convolutions of width 3 over a lattice, (batch, channels, *lattice) to the same; the identity at first."""

    def __init__(self, channels: int, periodic: tuple[bool, ...]) -> None:
        super().__init__()
        self.periodic = periodic
        self.groups = math.gcd(NORM_GROUPS, channels)
        convolution = CONVOLUTIONS[len(periodic)]
        self.first, self.second = convolution(channels, channels, 3), convolution(channels, channels, 3)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)  # type: ignore[arg-type]

    def forward(self, values: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
        hidden = self.first(self._continued(F.silu(F.group_norm(values, self.groups))))
        hidden = torch.addcmul(offset, F.group_norm(hidden, self.groups), 1 + scale)
        result: Tensor = values + self.second(self._continued(F.silu(hidden)))
        return result

    def _continued(self, values: Tensor) -> Tensor:
        for axis, wraps in enumerate(self.periodic, start=2):
            values = continued(values, 1, axis, wraps)
        return values


class UNetOperator(nn.Module):
    """One latent step as a U-Net: (batch, tokens, width) to the same; the identity at first.

    `blocks` residual blocks on the way down and on the way up, on each of `levels` lattices; channels double from one
    to the next. The condition (batch, conditions) sets a scale and a shift of each block.
    """

    def __init__(
        self, width: int, conditions: int, periodic: tuple[bool, ...], *, hidden: int, levels: int, blocks: int
    ) -> None:
        super().__init__()
        self.periodic = periodic
        self.sizes = tuple(hidden * 2**level for level in range(levels))
        dims = len(periodic)
        self.lift = nn.Linear(width, hidden)
        self.project = zero(nn.Linear(hidden, width))

        def way(size: int) -> nn.ModuleList:
            return nn.ModuleList(ResidualBlock(size, periodic) for _ in range(blocks))

        self.before = nn.ModuleList(way(size) for size in self.sizes)
        self.after = nn.ModuleList(way(size) for size in self.sizes[:-1])
        self.down = nn.ModuleList(CONVOLUTIONS[dims](size, 2 * size, 2, 2) for size in self.sizes[:-1])
        self.up = nn.ModuleList(TRANSPOSED[dims](2 * size, size, 2, 2) for size in self.sizes[:-1])
        self.join = nn.ModuleList(CONVOLUTIONS[dims](2 * size, size, 1) for size in self.sizes[:-1])
        self.codes = [size for size in (*self.sizes, *self.sizes[-2::-1]) for _ in range(2 * blocks)]
        self.modulation = nn.Sequential(
            nn.Linear(conditions, hidden), nn.GELU(), zero(nn.Linear(hidden, sum(self.codes)))
        )

    def forward(self, latent: Latent, condition: Tensor) -> Latent:
        lattice = lattice_of(latent, "unet", "levels", len(self.sizes))
        tokens, dims = latent.tokens, len(self.periodic)
        codes = self.modulation(condition).unflatten(-1, (-1, *[1] * dims)).split(self.codes, dim=1)
        pairs = iter(zip(codes[::2], codes[1::2]))
        values = torch.unflatten(self.lift(tokens), 1, lattice).movedim(-1, 1)
        skips = []
        for level, blocks in enumerate(self.before):
            values = self.down[level - 1](evened(values, self.periodic, 2)) if level else values
            for block in cast("nn.ModuleList", blocks):
                values = block(values, *next(pairs))
            skips.append(values)
        values = skips.pop()
        for up, join, blocks in reversed(list(zip(self.up, self.join, self.after))):
            skip = skips.pop()
            values = up(values)[(..., *(slice(size) for size in skip.shape[2:]))]
            values = join(torch.cat([skip, values], dim=1))
            for block in cast("nn.ModuleList", blocks):
                values = block(values, *next(pairs))
        return latent._replace(tokens=tokens + self.project(values.movedim(1, -1).flatten(1, dims)))
