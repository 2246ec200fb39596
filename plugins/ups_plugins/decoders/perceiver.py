"""UPT's decoder: embedded query positions attend to all latent tokens."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ups_kit import FieldSpec, Latent, LatentSpec, Queries
from ups_kit.errors import DataError
from ups_kit.layers import Block, CrossAttention, Modulation, Positions, Rotary, modulated


class PerceiverDecoder(nn.Module):
    """(batch, tokens, width) to fields (batch, queries, channels), through global cross-attention.

    Tokens are mapped to the width of the queries, and pass `blocks` blocks of self-attention. The position of a query
    becomes sines and cosines, then a network; `depth` cross-attention layers; a norm; a linear map. With a `modulation`
    blocks and layers are conditioned on the latent's condition. The tokens need no anchors; where they have some, the
    anchors' own features are added to them, so that a query can find what is near it.
    Source: Alkin et al., arXiv:2402.12365, section 3 (decoder); Jaegle et al., arXiv:2107.14795.
    """

    def __init__(
        self,
        fields: FieldSpec,
        latent: LatentSpec,
        *,
        depth: int,
        heads: int,
        frequencies: int,
        mlp_ratio: float,
        blocks: int = 0,
        query_width: int | None = None,
        modulation: str = "none",
        rank: int = 16,
    ) -> None:
        super().__init__()
        width = latent.width if query_width is None else query_width
        self.features = Positions(fields.domain, fields.periodic, frequencies)
        self.embed = nn.Sequential(nn.Linear(self.features.width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.place = nn.Linear(self.features.width, width)
        self.tokens = nn.Linear(latent.width, width)
        self.layers = nn.ModuleList(CrossAttention(width, heads, mlp_ratio) for _ in range(depth))
        self.out = nn.Linear(width, fields.target_channels)
        self.rotary = Rotary(width // heads, fields.domain, fields.periodic)
        self.blocks = nn.ModuleList(Block(width, heads, mlp_ratio=mlp_ratio) for _ in range(blocks))
        conditions, embedding = len(fields.conditions), latent.width
        self.modulation = (
            None
            if modulation == "none"
            else Modulation(conditions, width, blocks, form=modulation, rank=rank, crosses=depth, embedding=embedding)
        )

    def forward(self, latent: Latent, queries: Queries) -> Tensor:
        # all samples share the points of a grid: embed them once
        positions = queries.positions[:1] if queries.grid is not None else queries.positions
        asked = self.embed(self.features(positions)).expand(len(latent.tokens), -1, -1)
        modulations = self._modulations(latent)
        tokens = self._heard(latent, modulations[: len(self.blocks)])
        for layer, modulation in zip(self.layers, modulations[len(self.blocks) :]):
            asked = layer(asked, tokens, modulation)
        result: Tensor = self.out(modulated(asked, None, None))
        return result

    def _heard(self, latent: Latent, modulations: list[Tensor | None]) -> Tensor:
        """The tokens that queries attend to."""
        tokens: Tensor = self.tokens(latent.tokens)
        rotary = None
        if latent.anchors is not None:
            tokens = tokens + F.gelu(self.place(self.features(latent.anchors)))
            rotary = self.rotary(latent.anchors) if len(self.blocks) else None
        for block, modulation in zip(self.blocks, modulations):
            tokens = block(tokens, rotary, None, modulation)
        return tokens

    def _modulations(self, latent: Latent) -> list[Tensor | None]:
        """One for each block, then one for each layer; None where they are not conditioned."""
        if self.modulation is None:
            return [None] * (len(self.blocks) + len(self.layers))
        if latent.condition is None:
            raise DataError("the decoder 'perceiver' with a modulation needs latents that carry their condition")
        return list(self.modulation(latent.condition))
