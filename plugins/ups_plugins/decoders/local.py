"""Attention from each query to its nearest anchored tokens, with relative positions."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ups_kit import FieldSpec, Latent, LatentSpec, Queries
from ups_kit.errors import DataError
from ups_kit.layers import Positions

from .nearest import nearest_anchors


class LocalDecoder(nn.Module):
    """(batch, tokens, width) with anchors to fields (batch, queries, channels).

    A query's attention to each of its k nearest anchors, on the torus where the domain is periodic, comes from their
    displacement r, in units of the typical distance between anchors, and from the token: logits ⟨q(r), k(z)⟩ + b(r),
    values v(z) ⊙ (1 + g(r)) + p(r). Projections of tokens are made before they are gathered. The distance-dependent
    part of the logits starts as −|r|², so that a query first listens to the nearest anchors.
    """

    def __init__(
        self, fields: FieldSpec, latent: LatentSpec, *, neighbours: int, heads: int, frequencies: int, hidden: int
    ) -> None:
        super().__init__()
        self.fields = fields
        self.neighbours = neighbours
        self.heads = heads
        width = latent.width
        dims = fields.space_dims
        self.features = Positions([(-2.0, 2.0)] * dims, [True] * dims, frequencies)
        self.relative = nn.Linear(self.features.width, width)
        self.to_query = nn.Linear(width, width)
        self.to_bias = nn.Linear(width, heads)
        self.to_gain = nn.Linear(width, 2 * width)
        self.key_value = nn.Linear(width, 2 * width)
        self.up = nn.Linear(width, hidden * width)
        self.down = nn.Linear(hidden * width, fields.target_channels)

    def forward(self, latent: Latent, queries: Queries) -> Tensor:
        if latent.anchors is None:
            raise DataError("the decoder 'local' needs anchored tokens; use 'perceiver' for tokens without a place")
        # all samples share the points of a grid: their neighbours are found, and their displacements embedded, once
        shared = queries.grid is not None and latent.anchors.dim() == 2
        positions = queries.positions[:1] if shared else queries.positions
        near, offsets = nearest_anchors(
            positions, latent.anchors, self.fields, self.neighbours, lattice=latent.grid is not None
        )
        code = F.gelu(self.relative(self.features(offsets)))  # (1 or B, Q, k, width)
        keys, values = self._gathered(self.key_value(latent.tokens), near)
        logits = (self.to_query(code) * keys).unflatten(-1, (self.heads, -1)).sum(-1) / math.sqrt(self._head_width)
        logits = logits + self.to_bias(code) - offsets.square().sum(-1, keepdim=True)
        gain, offset = self.to_gain(code).chunk(2, dim=-1)
        shares = logits.softmax(dim=-2).unsqueeze(-1)  # over the k anchors
        mixed = (shares * (values * (1 + gain) + offset).unflatten(-1, (self.heads, -1))).sum(-3).flatten(-2)
        result: Tensor = self.down(F.gelu(self.up(mixed)))
        return result

    @property
    def _head_width(self) -> int:
        return self.to_query.out_features // self.heads

    @staticmethod
    def _gathered(projected: Tensor, near: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of the neighbours, (B, Q, k, width) each."""
        if len(near) == 1:
            chosen = projected[:, near[0]]
        else:
            rows = torch.arange(len(near), device=near.device)[:, None, None]
            chosen = projected[rows, near]
        keys, values = chosen.chunk(2, dim=-1)
        return keys, values
