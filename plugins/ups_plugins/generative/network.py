"""The network of the generative stages: a velocity on latent tokens, conditioned on other tokens and on numbers."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from attrs import frozen
from torch import Tensor, nn

from ups_kit import FieldSpec, Latent
from ups_kit.layers import Block, Modulation, Rotary, zero

TIME_WAVES = 8  # sines and cosines of τ each


@frozen
class NetworkSize:
    """How large a velocity network is."""

    width: int
    depth: int
    heads: int
    mlp_ratio: float
    rank: int
    neighbours: bool


class VelocityNetwork(nn.Module):
    """v(x, τ | given tokens, condition): (batch, tokens, channels) to the same.

    Pre-norm transformer blocks with rotary positions and AdaLN-zero on the condition and on τ, as the operator's. What
    is given stands beside x in every token. The output is a(τ) x + b(τ) net with a = (2τ − 1)/s, b = 1/√s and s = τ² +
    (1 − τ)²: for standard normal data that are independent of what is given the first term is the whole velocity, and
    what the network is left with has variance 1 at every τ (the preconditioning of Karras et al., arXiv:2206.00364, for
    this path).
    """

    waves: Tensor

    def __init__(self, fields: FieldSpec, channels: int, given: int, size: NetworkSize) -> None:
        super().__init__()
        self.register_buffer("waves", math.pi * 2.0 ** torch.linspace(-1, 4, TIME_WAVES), persistent=False)
        self.take = nn.Linear(channels + given, size.width)
        self.rotary = Rotary(size.width // size.heads, fields.domain, fields.periodic)
        numbers = len(fields.conditions) + 2 * TIME_WAVES
        self.modulation = Modulation(numbers, size.width, size.depth, rank=size.rank)
        periodic = fields.periodic if size.neighbours else ()
        self.blocks = nn.ModuleList(
            Block(size.width, size.heads, mlp_ratio=size.mlp_ratio, periodic=periodic) for _ in range(size.depth)
        )
        self.give = zero(nn.Linear(size.width, channels))

    def forward(self, values: Tensor, time: Tensor, given: Latent) -> Tensor:
        """The velocity at x = `values` and τ = `time` (batch,), with the given tokens and their condition."""
        angles = time.unsqueeze(-1) * self.waves
        numbers = [angles.sin(), angles.cos()]
        if given.condition is not None:
            numbers.insert(0, given.condition)
        share = time.view(-1, 1, 1)
        spread = share.square() + (1 - share).square()
        tokens = self.take(torch.cat([values * spread.rsqrt(), given.tokens], -1))
        rotary = self.rotary(given.anchors) if given.anchors is not None else None
        for block, modulation in zip(self.blocks, self.modulation(torch.cat(numbers, -1).to(tokens.dtype))):
            tokens = block(tokens, rotary, given.grid, modulation)
        network = self.give(F.layer_norm(tokens, tokens.shape[-1:]))
        velocity: Tensor = values * (2 * share - 1) / spread + network * spread.rsqrt()
        return velocity
