"""UPT's latent operator: a transformer over the tokens, conditioned on the time step and the parameters."""

from __future__ import annotations

from torch import Tensor, nn

from ups_kit import FieldSpec, Latent, LatentSpec
from ups_kit.layers import Block, Modulation, Rotary, drop_path_rates


class TransformerOperator(nn.Module):
    """One latent step, (batch, tokens, width) to the same; the identity at first.

    Pre-norm blocks with normalised queries and keys, rotary positions on the anchors (whole waves on periodic axes)
    and AdaLN-zero on the condition. On a lattice of anchors each block first mixes direct neighbours.
    Source: Alkin et al., arXiv:2402.12365, section 3 (the approximator).
    """

    def __init__(
        self,
        fields: FieldSpec,
        latent: LatentSpec,
        *,
        depth: int,
        heads: int,
        mlp_ratio: float,
        modulation: str,
        rank: int,
        neighbours: bool,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.rotary = Rotary(latent.width // heads, fields.domain, fields.periodic)
        self.modulation = Modulation(len(fields.conditions), latent.width, depth, form=modulation, rank=rank)
        self.blocks = nn.ModuleList(
            Block(
                latent.width,
                heads,
                mlp_ratio=mlp_ratio,
                periodic=fields.periodic if neighbours else (),
                drop_path=rate,
            )
            for rate in drop_path_rates(drop_path, depth)
        )

    def forward(self, latent: Latent, condition: Tensor) -> Latent:
        tokens = latent.tokens
        rotary = self.rotary(latent.anchors) if latent.anchors is not None else None
        for block, modulation in zip(self.blocks, self.modulation(condition)):
            tokens = block(tokens, rotary, latent.grid, modulation)
        return latent._replace(tokens=tokens)
