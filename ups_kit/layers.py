"""Torch parts that encoders, operators and decoders share. Public: a plugin may use them.

Shapes: tokens (batch, tokens, width); anchors (tokens, space_dims) or (batch, tokens, space_dims).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .lattices import Windows

BLOCK_PARTS = 6  # of a modulation: scale, shift and gate of the attention, then of the network
CROSS_PARTS = 8  # scale and shift of the queries' norm, of the tokens'; gate; scale, shift and gate of the network


class Rotary(nn.Module):
    """Rotary position embedding on anchor positions (Su et al., arXiv:2104.09864), periodic where the domain is.

    The pairs of a head's channels are dealt out to the axes. On a periodic axis the frequencies are whole numbers of
    waves per period, so that attention depends on displacements on the circle; on others they fall geometrically
    from one wave per `1/tokens`-th of the domain to one per domain.
    """

    frequencies: Tensor

    def __init__(self, head_width: int, domain: Sequence[tuple[float, float]], periodic: Sequence[bool]) -> None:
        super().__init__()
        pairs = head_width // 2
        dims = len(domain)
        table = torch.zeros(dims, pairs)
        for axis, ((low, high), wraps) in enumerate(zip(domain, periodic)):
            mine = torch.arange(axis, pairs, dims)
            count = len(mine)
            waves = torch.arange(1, count + 1) if wraps else 0.5 * torch.logspace(0, 1.5, count)
            table[axis, mine] = 2 * math.pi * waves / (high - low)
        self.register_buffer("frequencies", table, persistent=False)

    def forward(self, anchors: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines of the angles, each (…, 1, tokens, head_width / 2), to broadcast over heads."""
        with torch.autocast(anchors.device.type, enabled=False):  # half precision would round away whole radians
            angles = (anchors @ self.frequencies.to(anchors.dtype)).unsqueeze(-3)
        return angles.cos(), angles.sin()


def rotate(values: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Turn the channel pairs of (…, batch, heads, tokens, head_width) by their angles."""
    cos, sin = rotary
    first, second = values.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(values.dtype)


class Attention(nn.Module):
    """Multi-head self-attention with one fused projection, normalised queries and keys, and rotary positions.

    With several `groups` the channels are cut into so many, and each group is attended by itself, with `heads` heads:
    no group hears another. All have the same projections. `mask` is (batch, tokens), true where a token is heard, or
    (batch, 1, tokens, tokens), true where one hears the other.
    """

    def __init__(self, width: int, heads: int, groups: int = 1) -> None:
        super().__init__()
        self.heads = heads
        self.groups = groups
        own = width // groups
        self.qkv = nn.Linear(own, 3 * own, bias=False)
        self.scale = nn.Parameter(torch.ones(2, own // heads))
        self.out = zero(nn.Linear(own, own))

    def forward(self, tokens: Tensor, rotary: tuple[Tensor, Tensor] | None, mask: Tensor | None = None) -> Tensor:
        batch, count, width = tokens.shape
        qkv = self.qkv(tokens.reshape(batch, count * self.groups, -1))
        qkv = qkv.view(batch, count, self.groups, 3, self.heads, -1)
        qkv = qkv.permute(3, 0, 2, 4, 1, 5).flatten(2, 3)  # a group's heads are heads among all
        v = qkv[2]
        # queries and keys go the same way, as one tensor
        both = F.rms_norm(qkv[:2], qkv.shape[-1:]) * self.scale[:, None, None, None]
        q, k = both if rotary is None else rotate(both, rotary)
        keep = mask[:, None, None, :] if mask is not None and mask.dim() == 2 else mask
        mixed = F.scaled_dot_product_attention(q.to(v.dtype), k.to(v.dtype), v, attn_mask=keep)
        result: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, count * self.groups, -1))
        return result.view(batch, count, width)


class NeighbourMixing(nn.Module):
    """A depthwise convolution of width 3 along every axis of a lattice of tokens, zero at first.

    Axes that do not wrap see zeros beyond their ends.
    """

    def __init__(self, width: int, periodic: Sequence[bool]) -> None:
        super().__init__()
        self.periodic = tuple(periodic)
        self.weight = nn.Parameter(torch.zeros(len(self.periodic), 3, width))

    def forward(self, tokens: Tensor, lattice: Sequence[int]) -> Tensor:
        """What is to be added to the tokens, (batch, tokens, width)."""
        field = torch.unflatten(tokens, 1, tuple(lattice))
        total = field * self.weight[:, 1].sum(0)
        for axis, wraps in enumerate(self.periodic, start=1):
            before, _, after = self.weight[axis - 1]
            total = total + shift(field, 1, axis, wraps) * before + shift(field, -1, axis, wraps) * after
        return total.flatten(1, len(self.periodic))


def shift(values: Tensor, places: int, axis: int, wraps: bool) -> Tensor:
    """Move values along an axis; zeros come in at the end of an axis that does not wrap."""
    moved = values.roll(places, axis)
    if not wraps:
        size = values.shape[axis]
        start = 0 if places > 0 else size + places
        moved = moved.index_fill(axis, torch.arange(start, start + abs(places), device=values.device), 0.0)
    return moved


class Block(nn.Module):
    """A pre-norm transformer block whose residual outputs are zero at first, so that it starts as the identity.

    With a modulation (batch, 1, 6·width) the norms are scaled and shifted and the outputs scaled by it (AdaLN-zero,
    Peebles & Xie, arXiv:2212.09748). Its matrices are what a Muon optimiser takes as hidden matrices.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        mlp_ratio: float = 4.0,
        periodic: Sequence[bool] = (),
        drop_path: float = 0.0,
        groups: int = 1,
    ) -> None:
        super().__init__()
        hidden = max(1, int(width * mlp_ratio))
        self.neighbours = NeighbourMixing(width, periodic) if periodic else None
        self.attention = Attention(width, heads, groups)
        self.up = nn.Linear(width, hidden)
        self.down = zero(nn.Linear(hidden, width))
        self.drop_path = drop_path

    def forward(
        self,
        tokens: Tensor,
        rotary: tuple[Tensor, Tensor] | None = None,
        lattice: Sequence[int] | None = None,
        modulation: Tensor | None = None,
        mask: Tensor | None = None,
        windows: Windows | None = None,
    ) -> Tensor:
        if self.neighbours is not None and lattice is not None:
            tokens = tokens + self._dropped(self.neighbours(tokens, lattice))
        parts = (None,) * BLOCK_PARTS if modulation is None else modulation.chunk(BLOCK_PARTS, dim=-1)
        normed = modulated(tokens, parts[0], parts[1])
        if windows is None:
            mixed = self.attention(normed, rotary, mask)
        else:  # tokens hear those in their window; rotary and mask are of windows
            mixed = windows.join(self.attention(windows.split(normed), rotary, mask))
        tokens = _added(tokens, self._dropped(mixed), parts[2])
        normed = modulated(tokens, parts[3], parts[4])
        return _added(tokens, self._dropped(self.down(F.gelu(self.up(normed)))), parts[5])

    def _dropped(self, residual: Tensor) -> Tensor:
        """Stochastic depth: leave a residual out for some samples of a training batch (Huang et al., 2016)."""
        if not self.training or self.drop_path == 0:
            return residual
        keep = 1 - self.drop_path
        drawn = torch.rand(len(residual), 1, 1, device=residual.device) < keep
        return residual * (drawn / keep).to(residual.dtype)


def modulated(tokens: Tensor, scale: Tensor | None, offset: Tensor | None) -> Tensor:
    """Layer norm, scaled by 1 + `scale` and shifted by `offset`."""
    normed = F.layer_norm(tokens, tokens.shape[-1:])
    return normed if scale is None or offset is None else torch.addcmul(offset, normed, 1 + scale)


def _added(tokens: Tensor, residual: Tensor, gate: Tensor | None) -> Tensor:
    """Tokens plus a residual that is scaled by 1 + `gate`."""
    return tokens + residual if gate is None else torch.addcmul(tokens, residual, 1 + gate)


class Modulation(nn.Module):
    """From a condition to one modulation per layer: (batch, conditions) to a list of (batch, 1, 6·width).

    "shared": one for all blocks, plus a learned offset of each (Chen et al., arXiv:2310.00426). "low_rank": one for
    each block from a bottleneck. Either spends few parameters where UPT's own blocks spend most of theirs. "full":
    UPT's own, one linear map for each block from a wide embedding (`ConditionEmbedding`, of width 4·`embedding`, which
    is `width` where not given). Zero at first, which UPT's are not.

    After those of the `blocks` come those of `crosses` cross-attention layers, (batch, 1, 8·width) each.
    """

    def __init__(
        self,
        conditions: int,
        width: int,
        blocks: int,
        *,
        form: str = "low_rank",
        rank: int = 16,
        crosses: int = 0,
        embedding: int | None = None,
    ) -> None:
        super().__init__()
        self.embed: nn.Module
        if form == "full":
            self.embed = ConditionEmbedding(conditions, width if embedding is None else embedding)
            code = self.embed.width
        else:
            code = rank
            self.embed = nn.Sequential(nn.Linear(conditions, width), nn.SiLU(), nn.Linear(width, rank), nn.SiLU())
        sizes = [BLOCK_PARTS * width] * blocks + [CROSS_PARTS * width] * crosses
        shared = form == "shared"
        self.maps = nn.ModuleList(zero(nn.Linear(code, size)) for size in (dict.fromkeys(sizes) if shared else sizes))
        self.offsets = nn.Parameter(torch.zeros(blocks, BLOCK_PARTS * width)) if shared else None
        self.cross_offsets = nn.Parameter(torch.zeros(crosses, CROSS_PARTS * width)) if shared and crosses else None
        self.blocks = blocks

    def forward(self, condition: Tensor) -> list[Tensor]:
        code = self.embed(condition)
        if self.offsets is None:
            return [layer(code).unsqueeze(1) for layer in self.maps]
        tables = [table for table in (self.offsets, self.cross_offsets) if table is not None and len(table)]
        commons = [layer(code) for layer in self.maps]
        return [(common + offset).unsqueeze(1) for common, table in zip(commons, tables) for offset in table]


class ConditionEmbedding(nn.Module):
    """A condition embedded as in UPT: (batch, conditions) to (batch, 4·width).

    A column's number becomes `width` sines and cosines, then goes through a linear map of its own to 4·width and GELU;
    the sum of the columns goes through another map and GELU. UPT has the second map for each column, and one embedding
    for encoder, operator and decoder together; here each of these has its own, and the sizes come out alike. UPT brings
    numbers to 0 … 200 and takes wavelengths of 2π to 2π·10⁴; here they are normalised, and a deviation counts as 50.
    Source: Alkin et al., arXiv:2402.12365, appendix.
    """

    frequencies: Tensor

    def __init__(self, conditions: int, width: int) -> None:
        super().__init__()
        waves = 50 * torch.logspace(0, -4, width // 2 + 1)[:-1]
        self.register_buffer("frequencies", waves, persistent=False)
        self.columns = nn.ModuleList(nn.Linear(2 * len(waves), 4 * width) for _ in range(conditions))
        self.together = nn.Linear(4 * width, 4 * width)
        self.width = 4 * width

    def forward(self, condition: Tensor) -> Tensor:
        angles = condition.unsqueeze(-1) * self.frequencies  # (batch, conditions, width / 2)
        waves = torch.cat([angles.sin(), angles.cos()], dim=-1)
        said = [F.gelu(column(waves[:, place])) for place, column in enumerate(self.columns)]
        code: Tensor = F.gelu(self.together(torch.stack(said).sum(0)))
        return code


class CrossAttention(nn.Module):
    """Queries attend to tokens, then pass a small network; pre-norm, residual.

    With a modulation (batch, 1, 8·width) the norms of queries, of tokens and before the network are scaled and shifted
    by it, and both outputs scaled, as in UPT.
    """

    def __init__(self, width: int, heads: int, mlp_ratio: float = 4.0) -> None:
        super().__init__()
        hidden = max(1, int(width * mlp_ratio))
        self.heads = heads
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(width, width)
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)

    def forward(
        self, queries: Tensor, tokens: Tensor, modulation: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """(batch, queries, width) and (batch, tokens, width) to (batch, queries, width).

        Tokens whose `mask` (batch, tokens) is false are not heard.
        """
        parts = (None,) * CROSS_PARTS if modulation is None else modulation.chunk(CROSS_PARTS, dim=-1)
        q = self._heads(self.query(modulated(queries, parts[0], parts[1])))
        k, v = (self._heads(part) for part in self.key_value(modulated(tokens, parts[2], parts[3])).chunk(2, dim=-1))
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=None if mask is None else mask[:, None, None, :])
        queries = _added(queries, self.out(mixed.transpose(1, 2).flatten(2)), parts[4])
        return _added(queries, self.down(F.gelu(self.up(modulated(queries, parts[5], parts[6])))), parts[7])

    def _heads(self, values: Tensor) -> Tensor:
        return torch.unflatten(values, -1, (self.heads, -1)).transpose(1, 2)


class Positions(nn.Module):
    """Sine and cosine features of positions: (…, space_dims) to (…, 2·count·space_dims).

    Whole waves per period on periodic axes; geometric frequencies up to `count` waves per domain on others.
    """

    frequencies: Tensor
    origin: Tensor

    def __init__(self, domain: Sequence[tuple[float, float]], periodic: Sequence[bool], count: int) -> None:
        super().__init__()
        rows = []
        for (low, high), wraps in zip(domain, periodic):
            waves = torch.arange(1, count + 1) if wraps else torch.logspace(-1, math.log2(count), count, base=2)
            rows.append(2 * math.pi * waves / (high - low))
        self.register_buffer("frequencies", torch.stack(rows), persistent=False)
        self.register_buffer("origin", torch.tensor([low for low, _ in domain]), persistent=False)

    @property
    def width(self) -> int:
        """Number of features."""
        return 2 * self.frequencies.numel()

    def forward(self, positions: Tensor) -> Tensor:
        angles = (positions - self.origin).unsqueeze(-1) * self.frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(-2)


def zero(linear: nn.Linear) -> nn.Linear:
    """A linear map that is zero at first."""
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


def drop_path_rates(largest: float, blocks: int) -> list[float]:
    """Stochastic depth that grows linearly over the blocks."""
    return [largest * (block + 1) / blocks for block in range(blocks)]


def displacement(
    queries: Tensor, anchors: Tensor, domain: Sequence[tuple[float, float]], periodic: Sequence[bool]
) -> Tensor:
    """Shortest vectors from anchors (…, tokens, space_dims) to queries (…, queries, space_dims).

    Returns (…, queries, tokens, space_dims).
    """
    difference = queries.unsqueeze(-2) - anchors.unsqueeze(-3)
    parts = []
    for axis, ((low, high), wraps) in enumerate(zip(domain, periodic)):
        part, length = difference[..., axis], high - low
        parts.append(part - length * torch.round(part / length) if wraps else part)
    return torch.stack(parts, dim=-1)


def continued(values: Tensor, margin: int, axis: int, wraps: bool) -> Tensor:
    """Values with an axis continued by `margin` points at both ends: periodically, or by its end values."""
    size = values.shape[axis]
    if wraps:
        before, after = values.narrow(axis, size - margin, margin), values.narrow(axis, 0, margin)
    else:
        shape = [-1] * values.dim()
        shape[axis] = margin
        before, after = values.narrow(axis, 0, 1).expand(shape), values.narrow(axis, size - 1, 1).expand(shape)
    return torch.cat([before, values, after], dim=axis)
