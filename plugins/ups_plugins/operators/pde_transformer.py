"""A U-shaped transformer on a lattice of latent tokens, after PDE-Transformer (Holzschuh et al., arXiv:2505.24717).

On each level l tokens attend inside windows, which are shifted by half a window in every other block, and the next
level corrects them on a lattice of half the size, as a coarse grid does in multigrid:

    U_l(z) = V_l( w + S_l( U_{l+1}(M_l w) − M_l w ) ),    w = W_l(z);    on the coarsest level U_l = W_l;    A = U_0

W_l and V_l are blocks with AdaLN-zero on the condition, M_l makes 2 × … × 2 tokens one, S_l goes the way back. Blocks
are the identity at first, so that A is, too, whatever M and S are. Where an axis is periodic and the windows divide it
on every level, A commutes with shifts by a window of the coarsest level.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from ups_kit import FieldSpec, Latent, LatentSpec
from ups_kit.lattices import Merge, Spread, Windows, halved, lattice_of
from ups_kit.layers import Block, Modulation, Rotary


class PDETransformerOperator(nn.Module):
    """One latent step, (batch, tokens, width) to the same; the identity at first.

    `depths` are the blocks of each level, finest first: on the way down, and but for the last level as many on the way
    up. A level's tokens and heads are `widening` times those of the one before. Positions are rotary, in the window.
    """

    def __init__(
        self,
        fields: FieldSpec,
        latent: LatentSpec,
        *,
        depths: Sequence[int],
        widening: int,
        window: int,
        heads: int,
        channel_groups: int,
        mlp_ratio: float,
        modulation: str,
        rank: int,
        neighbours: bool,
    ) -> None:
        super().__init__()
        self.domain, self.periodic = fields.domain, fields.periodic
        self.depths, self.window = tuple(depths), window
        self.rotary = Rotary(latent.width // (channel_groups * heads), fields.domain, fields.periodic)
        self.modulations, self.blocks = nn.ModuleList(), nn.ModuleList()
        self.merges, self.spreads = nn.ModuleList(), nn.ModuleList()
        mixing = fields.periodic if neighbours else ()
        for level, depth in enumerate(self.depths):
            scale = widening**level
            width, last = scale * latent.width, level + 1 == len(self.depths)
            count = depth if last else 2 * depth
            self.modulations.append(Modulation(len(fields.conditions), width, count, form=modulation, rank=rank))
            self.blocks.append(
                nn.ModuleList(
                    Block(width, scale * heads, mlp_ratio=mlp_ratio, periodic=mixing, groups=channel_groups)
                    for _ in range(count)
                )
            )
            if not last:
                self.merges.append(Merge(width, widening * width, fields.periodic))
                self.spreads.append(Spread(width, widening * width, fields.space_dims))

    def forward(self, latent: Latent, condition: Tensor) -> Latent:
        lattice = lattice_of(latent, "pde_transformer", "depths", len(self.depths))
        return latent._replace(tokens=self._level(0, latent.tokens, lattice, condition))

    def _level(self, level: int, tokens: Tensor, lattice: tuple[int, ...], condition: Tensor) -> Tensor:
        """U_l of the tokens of level l."""
        cuts = [Windows.of(lattice, self.window, self.periodic, shifted) for shifted in (False, True)]
        masks = [windows.mask(tokens) for windows in cuts]
        rotary = self.rotary(cuts[0].places(self.domain, tokens))
        modulations = self.modulations[level](condition)
        for number, (block, modulation) in enumerate(zip(cast("nn.ModuleList", self.blocks[level]), modulations)):
            if number == self.depths[level]:
                coarse = self.merges[level](tokens, lattice)
                corrected = self._level(level + 1, coarse, halved(lattice), condition)
                tokens = tokens + self.spreads[level](corrected - coarse, lattice)
            odd = number % 2
            tokens = block(tokens, rotary, lattice, modulation, masks[odd], cuts[odd])
        return tokens
