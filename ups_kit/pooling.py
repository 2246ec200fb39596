"""Points to supernodes to tokens: what encoders of meshes, particles and any other points share. Public."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .errors import DataError
from .interfaces import FieldSpec, Latent, LatentSpec, PointSet, Supernodes
from .layers import Block, CrossAttention, Modulation, Positions, Rotary
from .neighbours import SupernodeGraph

WAVES = 4  # sines and cosines of a relative position along each axis, whole waves over the neighbourhood's diameter
RIDGE = 1e-3  # of a local fit: what is added to the mean squares of its polynomials


class SupernodePooling(nn.Module):
    """Values at points (B, N, channels) to features of supernodes (B, S, width).

    With r = (x_n − x_s) / reach the place of a neighbour n relative to its supernode s, the shortest way where the
    domain is periodic, and φ its sines and cosines:

        h_s = W₁ mean_n m(u_n, r) + W₂ a_s,    a_s = argmin_a mean_n |u_n − Σ_f a_f P_f(r)|² + λ |a|²

    The first term is UPT's: a small network m on values and relative positions, whose last linear map stands behind the
    mean, with which it commutes (Alkin et al., arXiv:2402.12365, section 3, supernode pooling). The second is a local
    fit by Legendre polynomials P_f of a total degree up to `order` (moving least squares: Lancaster & Salkauskas, Math.
    Comp. 37, 1981): unlike a mean it hardly depends on where the points lie in a neighbourhood, as long as they are
    enough, so that a state looks alike on a grid, on a mesh and on particles. What reaches a supernode depends neither
    on the order of the points nor on padding; one that hears no point has zeros.
    """

    def __init__(self, fields: FieldSpec, width: int, *, reach: float, hidden: int, layers: int, order: int) -> None:
        super().__init__()
        self.fields = fields
        self.reach = reach
        self.exponents = exponents(fields.space_dims, order)
        dims, channels = fields.space_dims, fields.input_channels
        self.waves = Positions([(-1.0, 1.0)] * dims, [True] * dims, WAVES)
        sizes = [channels + dims + 1 + self.waves.width, *[hidden] * layers]
        self.messages = nn.ModuleList(nn.Linear(size, hidden) for size in sizes[:-1])
        self.mean = nn.Linear(hidden, width)
        self.fit = nn.Linear(channels * len(self.exponents), width, bias=False)

    def forward(self, points: PointSet, found: Supernodes) -> Tensor:
        values = gathered(points.values, found.neighbours)  # (B, S, K, channels)
        offsets = self._offsets(points.positions, found)
        square = offsets.square().sum(-1, keepdim=True)
        message = torch.cat([values, offsets, square, self.waves(offsets)], -1)
        for layer in self.messages:
            message = F.gelu(layer(message))
        with torch.autocast(values.device.type, enabled=False):  # small systems of equations want their digits
            exact = torch.promote_types(values.dtype, torch.float32)
            fitted = local_fit(values.to(exact), offsets.to(exact), found.mask, self.exponents)
        result: Tensor = self.mean(masked_mean(message, found.mask)) + self.fit(fitted.flatten(2))
        return result

    def _offsets(self, positions: Tensor, found: Supernodes) -> Tensor:
        """Places of neighbours relative to their supernodes in units of the reach, (B, S, K, D)."""
        offsets = gathered(positions, found.neighbours) - found.positions.unsqueeze(2)
        if any(self.fields.periodic):
            lengths = offsets.new_tensor(self.fields.extent)
            wraps = torch.tensor(self.fields.periodic, device=offsets.device)
            offsets = offsets - lengths * torch.round(offsets / lengths) * wraps
        return offsets / self.reach


def exponents(dims: int, order: int) -> tuple[tuple[int, ...], ...]:
    """The degrees along each axis of all products whose total degree is at most `order`."""
    powers = itertools.product(range(order + 1), repeat=dims)
    return tuple(sorted((each for each in powers if sum(each) <= order), key=lambda each: (sum(each), each)))


def legendre_products(offsets: Tensor, degrees: Sequence[Sequence[int]]) -> Tensor:
    """Products over the axes of Legendre polynomials at (…, D): (…, products), each of mean square 1 on the box."""
    highest = max(max(each) for each in degrees)
    along = [torch.ones_like(offsets), offsets]
    for n in range(1, highest):
        along.append(((2 * n + 1) * offsets * along[n] - n * along[n - 1]) / (n + 1))
    table = torch.stack([math.sqrt(2 * n + 1) * values for n, values in enumerate(along)], -1)  # (…, D, degrees)
    products = []
    for each in degrees:
        product = table[..., 0, each[0]]
        for axis, degree in enumerate(each[1:], start=1):
            product = product * table[..., axis, degree]
        products.append(product)
    return torch.stack(products, -1)


def local_fit(values: Tensor, offsets: Tensor, mask: Tensor, degrees: Sequence[Sequence[int]]) -> Tensor:
    """Coefficients (B, S, products, C) of the polynomials that fit values (B, S, K, C) at offsets (B, S, K, D)."""
    kept = mask.to(values.dtype).unsqueeze(-1)
    basis = legendre_products(offsets, degrees) * kept
    shares = (basis / kept.sum(2, keepdim=True).clamp_min(1)).transpose(2, 3)
    gram = shares @ basis + RIDGE * torch.eye(len(degrees), device=values.device, dtype=values.dtype)
    fitted: Tensor = torch.cholesky_solve(shares @ values, torch.linalg.cholesky(gram))
    return fitted


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
        layers: int,
        order: int,
        depth: int,
        heads: int,
        mlp_ratio: float,
        modulation: str,
    ) -> None:
        super().__init__()
        width = latent.width
        self.preparation = graph
        self.pooling = SupernodePooling(fields, width, reach=reach, hidden=hidden, layers=layers, order=order)
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
