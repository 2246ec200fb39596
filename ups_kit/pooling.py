"""Points to supernodes to tokens: what encoders of meshes, particles and any other points share. Public."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .errors import DataError
from .interfaces import FieldSpec, Latent, LatentSpec, PointSet, Supernodes
from .layers import Block, CrossAttention, Modulation, Positions, Rotary
from .neighbours import SupernodeGraph

WAVES = 4  # sines and cosines of a relative position along each axis, whole waves over the neighbourhood's diameter


class SupernodePooling(nn.Module):
    """Values at points (B, N, channels) to features of supernodes (B, S, width).

    With r = (x_n − x_s) / reach the place of a neighbour n relative to its supernode s, the shortest way where the
    domain is periodic, and φ its sines and cosines:

        h_s = W [mean_n GELU(B GELU(A [u_n, r, |r|², φ(r)])), mean_n (P u_n) ⊙ (Q φ(r))]

    The first mean is UPT's message network on relative positions (Alkin et al., arXiv:2402.12365, section 3, supernode
    pooling); its last linear map stands behind the mean, with which it commutes. The second is a convolution with a
    learned kernel: what the network would have to find by itself, products of values and places. What reaches a
    supernode depends neither on the order of the points nor on padding; a supernode that hears no point has zero means.
    """

    def __init__(self, fields: FieldSpec, width: int, *, reach: float, hidden: int) -> None:
        super().__init__()
        self.fields = fields
        self.reach = reach
        dims, channels = fields.space_dims, fields.input_channels
        self.waves = Positions([(-1.0, 1.0)] * dims, [True] * dims, WAVES)
        self.first = nn.Linear(channels + dims + 1 + self.waves.width, hidden)
        self.second = nn.Linear(hidden, hidden)
        self.carried = nn.Linear(channels + 1, hidden, bias=False)
        self.kernel = nn.Linear(self.waves.width + 1, hidden, bias=False)
        self.out = nn.Linear(2 * hidden, width)

    def forward(self, points: PointSet, found: Supernodes) -> Tensor:
        values = gathered(points.values, found.neighbours)  # (B, S, K, channels)
        offsets = self._offsets(points.positions, found)
        waves = self.waves(offsets)
        square = offsets.square().sum(-1, keepdim=True)
        messages = F.gelu(self.first(torch.cat([values, offsets, square, waves], -1)))
        messages = F.gelu(self.second(messages))
        carried = self.carried(F.pad(values, (0, 1), value=1.0)) * self.kernel(F.pad(waves, (0, 1), value=1.0))
        means = masked_mean(torch.cat([messages, carried], -1), found.mask)
        result: Tensor = self.out(means)
        return result

    def _offsets(self, positions: Tensor, found: Supernodes) -> Tensor:
        """Places of neighbours relative to their supernodes in units of the reach, (B, S, K, D)."""
        offsets = gathered(positions, found.neighbours) - found.positions.unsqueeze(2)
        if any(self.fields.periodic):
            lengths = offsets.new_tensor(self.fields.extent)
            wraps = torch.tensor(self.fields.periodic, device=offsets.device)
            offsets = offsets - lengths * torch.round(offsets / lengths) * wraps
        return offsets / self.reach


def gathered(values: Tensor, index: Tensor) -> Tensor:
    """Rows of (B, N, C) at indices (B, S, K): (B, S, K, C)."""
    batch, points, channels = values.shape
    rows = index + points * torch.arange(batch, device=index.device)[:, None, None]
    return values.reshape(batch * points, channels)[rows.flatten()].view(*index.shape, channels)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """The mean of (B, S, K, C) over the K that are there, (B, S, C); zero where none is."""
    kept = mask.to(values.dtype).unsqueeze(-1)
    total = (values * kept).sum(2)
    return total / kept.sum(2).clamp_min(1)


class SupernodeEncoder(nn.Module):
    """Points, of a mesh, a grid or particles, to anchored latent tokens, or to so many tokens without a place.

    Every supernode hears the points around it (`SupernodePooling`), transformer blocks mix the supernodes, and these
    are the tokens, anchored where the supernodes stand. With `tokens` so many learned queries attend to them once
    instead (perceiver pooling), and those are the tokens. Source: Alkin et al., arXiv:2402.12365, section 3 (encoder).

    With a `modulation` the blocks are conditioned by the condition of the points, as in UPT's own build. Points that
    were not prepared are prepared here, with the same result.
    """

    def __init__(
        self,
        fields: FieldSpec,
        latent: LatentSpec,
        graph: SupernodeGraph,
        *,
        reach: float,
        hidden: int,
        depth: int,
        heads: int,
        mlp_ratio: float,
        modulation: str,
    ) -> None:
        super().__init__()
        width = latent.width
        self.preparation = graph
        self.pooling = SupernodePooling(fields, width, reach=reach, hidden=hidden)
        self.place = None
        if not all(fields.periodic):  # on a wholly periodic domain no place is special
            features = Positions(fields.domain, fields.periodic, WAVES)
            self.place = nn.Sequential(features, nn.Linear(features.width, width))
        self.rotary = Rotary(width // heads, fields.domain, fields.periodic)
        lattice = graph.choice == "grid"
        self.blocks = nn.ModuleList(
            Block(width, heads, mlp_ratio=mlp_ratio, periodic=fields.periodic if lattice else ()) for _ in range(depth)
        )
        self.queries = nn.Parameter(torch.empty(latent.tokens, width)) if latent.tokens is not None else None
        self.pool = CrossAttention(width, heads, mlp_ratio) if latent.tokens is not None else None
        if self.queries is not None:
            nn.init.trunc_normal_(self.queries, std=0.02)
        crosses = 0 if self.pool is None else 1
        self.modulation = None
        if modulation != "none":
            self.modulation = Modulation(len(fields.conditions), width, depth, form=modulation, crosses=crosses)

    def forward(self, points: PointSet) -> Latent:
        found = points.supernodes if points.supernodes is not None else self.preparation(points).supernodes
        assert found is not None
        tokens = self.pooling(points, found)
        anchors = found.positions[0] if found.lattice is not None else found.positions  # a lattice is the same for all
        if self.place is not None:
            tokens = tokens + self.place(anchors)
        rotary = self.rotary(anchors)
        modulations = self._modulations(points)
        for number, block in enumerate(self.blocks):
            tokens = block(tokens, rotary, found.lattice, modulations[number])
        if self.queries is None or self.pool is None:
            return Latent(tokens, anchors, found.lattice)
        asked = self.queries.expand(len(tokens), -1, -1)
        return Latent(self.pool(asked, tokens, modulations[len(self.blocks)]), None)

    def _modulations(self, points: PointSet) -> Sequence[Tensor | None]:
        """One for each block, and one for the pooling; None where there is no conditioning."""
        if self.modulation is None:
            return [None] * (len(self.blocks) + 1)
        if points.condition is None:
            raise DataError("this encoder is conditioned, and its points came without a condition")
        found: list[Tensor | None] = self.modulation(points.condition)
        return found
