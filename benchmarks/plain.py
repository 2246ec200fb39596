"""The work of `step.py` written straight in plain PyTorch: what it compares the library with.

A grid of 64 × 64 points and one field; patches of 4 × 4 points, pooled into 128 latent tokens of width 128; 8 blocks
with 8 heads as the operator; 3 layers of cross-attention from queries to tokens as the decoder. Nothing is shared
between the losses: each decodes for itself.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIDE, PATCH, TOKENS, WIDTH, HEADS, BLOCKS, DECODER_LAYERS, EXPANSION = 64, 4, 128, 128, 8, 8, 3, 2
POINTS = SIDE * SIDE


class Attention(nn.Module):
    """Multi-head attention from (B, Q, d) to (B, T, d)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.queries = nn.Linear(width, width)
        self.keys = nn.Linear(width, width)
        self.values = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        q, k, v = (self._split(part) for part in (self.queries(x), self.keys(context), self.values(context)))
        mixed = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)


class Block(nn.Module):
    """Pre-norm attention to a context (to itself where there is none), then a feed-forward layer."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, EXPANSION * width), nn.GELU(), nn.Linear(EXPANSION * width, width))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        normed = self.norm(x)
        x = x + self.attention(normed, normed if context is None else context)
        return x + self.mlp(self.norm_mlp(x))


def sines(positions: Tensor, width: int) -> Tensor:
    """Sine and cosine features of positions (…, 2) in [0, 1)."""
    frequencies = 2.0 ** torch.arange(width // 4, device=positions.device) * math.pi
    angles = (positions[..., None] * frequencies.clamp_max(2.0**10)).flatten(-2)
    return torch.cat([angles.sin(), angles.cos()], -1)


class PlainModel(nn.Module):
    """Encoder, operator and decoder in plain PyTorch."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, WIDTH, PATCH, PATCH)
        self.places = nn.Parameter(0.02 * torch.randn((SIDE // PATCH) ** 2, WIDTH))
        self.latents = nn.Parameter(0.02 * torch.randn(TOKENS, WIDTH))
        self.pool = Block(WIDTH, HEADS)
        self.condition = nn.Linear(1, WIDTH)
        self.blocks = nn.ModuleList(Block(WIDTH, HEADS) for _ in range(BLOCKS))
        self.query = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH))
        self.decoder = nn.ModuleList(Block(WIDTH, HEADS) for _ in range(DECODER_LAYERS))
        self.head = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 1))

    def encode(self, values: Tensor) -> Tensor:
        """(B, N, 1) to (B, T, d)."""
        tokens = self.patches(values.view(-1, 1, SIDE, SIDE)).flatten(2).transpose(1, 2) + self.places
        pooled: Tensor = self.pool(self.latents.expand(len(values), -1, -1), tokens)
        return pooled

    def step(self, tokens: Tensor, condition: Tensor) -> Tensor:
        """(B, T, d) to (B, T, d)."""
        tokens = tokens + self.condition(condition)[:, None]
        for block in self.blocks:
            tokens = block(tokens)
        return tokens

    def decode(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """(B, T, d) at (B, Q, 2) to (B, Q, 1)."""
        queries = self.query(sines(positions, WIDTH))
        for block in self.decoder:
            queries = block(queries, tokens)
        values: Tensor = self.head(queries)
        return values


def plain_loss(
    model: PlainModel, now: Tensor, after: Tensor, positions: Tensor, condition: Tensor, queries: int
) -> Tensor:
    """Forward, inverse encoding and inverse decoding, one after the other; fields (B, N, 1), positions (B, N, 2)."""
    tokens = model.encode(now)
    total = _sampled(model, model.step(tokens, condition), after, positions, queries)
    total = total + _sampled(model, tokens, now, positions, queries)
    again = model.encode(model.decode(tokens, positions).float())
    return total + F.mse_loss(again.float(), tokens.detach().float())


def _sampled(model: PlainModel, tokens: Tensor, truth: Tensor, positions: Tensor, queries: int) -> Tensor:
    if queries < POINTS:
        index = torch.rand(truth.shape[:2]).topk(queries, dim=1).indices[..., None]
        truth, positions = truth.gather(1, index), positions.gather(1, index.expand(-1, -1, 2))
    return F.mse_loss(model.decode(tokens, positions).float(), truth)
