"""The work of `points.py` written straight in plain PyTorch: what it compares the library with.

UPT's build for points in three dimensions (Alkin et al., arXiv:2402.12365): a random subset of the points as
supernodes; messages from at most 32 points within a radius, averaged; 4 transformer blocks; 512 learned queries that
pool the supernodes; 4 blocks as the operator; 4 blocks and one cross-attention from the query points as the decoder.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from scipy.spatial import cKDTree
from torch import Tensor, nn

CHANNELS, DIMS, HEADS, EXPANSION, DEPTH = 3, 3, 3, 4, 4
POINTS, SUPERNODES, DEGREE, TOKENS, WIDTH, QUERIES = 32_768, 2048, 32, 512, 192, 16_384
RADIUS = 0.06  # of a unit cube: about 30 of the points lie within it


class Block(nn.Module):
    """Pre-norm attention to a context (to itself where there is none), then a feed-forward layer."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.norm_context, self.norm_mlp = (nn.LayerNorm(WIDTH) for _ in range(3))
        self.query = nn.Linear(WIDTH, WIDTH)
        self.key_value = nn.Linear(WIDTH, 2 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, EXPANSION * WIDTH), nn.GELU(), nn.Linear(EXPANSION * WIDTH, WIDTH))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        asked = self.norm(x)
        heard = asked if context is None else self.norm_context(context)
        q = self._heads(self.query(asked))
        k, v = (self._heads(part) for part in self.key_value(heard).chunk(2, -1))
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm_mlp(x))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (HEADS, -1)).transpose(1, 2)


def sines(positions: Tensor, width: int) -> Tensor:
    """Sine and cosine features of positions (…, 3)."""
    count = width // (2 * DIMS)
    waves = 200 * 10_000.0 ** (-torch.arange(count, device=positions.device) / count)
    angles = (positions[..., None] * waves).flatten(-2)
    return torch.cat([angles.sin(), angles.cos()], -1)


def radius_graph(positions: np.ndarray, centres: np.ndarray) -> tuple[Tensor, Tensor]:
    """Edges from the nearest points within the radius: numbers of supernodes and of points."""
    distance, index = cKDTree(positions).query(centres, k=DEGREE, distance_upper_bound=RADIUS)
    supernode, place = np.nonzero(np.isfinite(distance))
    return torch.from_numpy(supernode), torch.from_numpy(index[supernode, place])


class PlainModel(nn.Module):
    """Encoder, operator and decoder in plain PyTorch."""

    def __init__(self) -> None:
        super().__init__()
        self.point = nn.Sequential(nn.Linear(CHANNELS, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH))
        self.message = nn.Sequential(
            nn.Linear(2 * WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH)
        )
        self.encoder = nn.ModuleList(Block() for _ in range(DEPTH))
        self.learned = nn.Parameter(0.02 * torch.randn(TOKENS, WIDTH))
        self.pool = Block()
        self.condition = nn.Linear(1, WIDTH)
        self.operator = nn.ModuleList(Block() for _ in range(DEPTH))
        self.decoder = nn.ModuleList(Block() for _ in range(DEPTH))
        self.query = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))
        self.answer = Block()
        self.head = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, CHANNELS))

    def forward(self, positions: Tensor, values: Tensor, condition: Tensor, queries: Tensor) -> Tensor:
        """Fields (1, Q, C) at queries (1, Q, 3) one step after values (1, N, C) at positions (1, N, 3)."""
        chosen = torch.randperm(positions.shape[1])[:SUPERNODES]
        supernode, point = radius_graph(positions[0].numpy(), positions[0, chosen].numpy())
        features = self.point(values[0]) + sines(positions[0], WIDTH)
        messages = self.message(torch.cat([features[point], features[chosen][supernode]], -1))
        total = torch.zeros(SUPERNODES, WIDTH, dtype=messages.dtype).index_add(0, supernode, messages)
        tokens = (total / torch.bincount(supernode, minlength=SUPERNODES)[:, None].clamp_min(1))[None]
        for block in self.encoder:
            tokens = block(tokens)
        tokens = self.pool(self.learned[None], tokens) + self.condition(condition)[:, None]
        for block in (*self.operator, *self.decoder):
            tokens = block(tokens)
        answers: Tensor = self.head(self.answer(self.query(sines(queries, WIDTH)), tokens))
        return answers
