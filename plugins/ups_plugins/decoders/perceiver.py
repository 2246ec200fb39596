"""UPT's decoder: embedded query positions attend to all latent tokens."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ups_kit import FieldSpec, Latent, LatentSpec, Queries
from ups_kit.layers import CrossAttention, Positions, modulated


class PerceiverDecoder(nn.Module):
    """(batch, tokens, width) to fields (batch, queries, channels), through global cross-attention.

    A query's position becomes sines and cosines, then a network; `depth` cross-attention layers; a norm; a linear map.
    The tokens need no anchors; where they have some, the anchors' own features are added to them, so that a query can
    find what is near it. Source: Alkin et al., arXiv:2402.12365, section 3 (decoder); Jaegle et al., arXiv:2107.14795.
    """

    def __init__(
        self, fields: FieldSpec, latent: LatentSpec, *, depth: int, heads: int, frequencies: int, mlp_ratio: float
    ) -> None:
        super().__init__()
        width = latent.width
        self.features = Positions(fields.domain, fields.periodic, frequencies)
        self.embed = nn.Sequential(nn.Linear(self.features.width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.place = nn.Linear(self.features.width, width)
        self.tokens = nn.Linear(width, width)
        self.layers = nn.ModuleList(CrossAttention(width, heads, mlp_ratio) for _ in range(depth))
        self.out = nn.Linear(width, fields.target_channels)

    def forward(self, latent: Latent, queries: Queries) -> Tensor:
        # all samples share the points of a grid: embed them once
        positions = queries.positions[:1] if queries.grid is not None else queries.positions
        asked = self.embed(self.features(positions)).expand(len(latent.tokens), -1, -1)
        tokens = self.tokens(latent.tokens)
        if latent.anchors is not None:
            tokens = tokens + F.gelu(self.place(self.features(latent.anchors)))
        for layer in self.layers:
            asked = layer(asked, tokens)
        result: Tensor = self.out(modulated(asked, None, None))
        return result
