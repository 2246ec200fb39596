"""A partition of unity over anchored tokens.

Token a, at anchor x_a with spacing h, emits coefficients c_{a,j} of cosines in the local coordinate ξ = (x − x_a)/h:

    u(x) = Σ_a w(ξ_a) Σ_j c_{a,j} φ_j(ξ_a),    φ_j(ξ) = cos(π j (ξ + 1)/2),    w(ξ) = max(0, 1 − |ξ|)

and products of these over the axes. The hat functions w of a lattice sum to one everywhere between anchors, so
neighbours blend without seams (Melenk & Babuška, 1996). Beyond the last anchor of an axis that does not wrap, the
last anchor's expansion holds alone.

Anchors that are scattered blend by the inverse-distance windows of Franke and Little (Franke, 1982) over the K = 2^D
that are nearest to x, with d_a their distances and R that of the anchor after them; the unit h of local coordinates is
the typical spacing (volume / tokens)^(1/D):

    w_a(x) = v_a / Σ_b v_b,    v_a = (1 − d_a/R)² / ((d_a/R)² + ε²),    ε = 10⁻³

Windows end where an anchor leaves the K nearest, so that the field is continuous; at an anchor it is that anchor's
expansion. Local coordinates and expansions are those of a lattice of cubes of that spacing.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ups_kit import FieldSpec, Latent, LatentSpec, Queries
from ups_kit.batching import latent_part
from ups_kit.errors import DataError
from ups_kit.interfaces import Example
from ups_kit.layers import continued, modulated, shift, zero

from .calibration import Equations, chosen_points, of_channels, summed, token_fits
from .nearest import nearest_anchors

MOST_UNKNOWNS = 4096  # of a calibration: the solve takes seconds then
ROWS_PER_UNKNOWN = 16
MOST_SAMPLES = 32  # that are fitted at some of their points each, where those are not a grid
ENTRIES_TOGETHER = 2**26  # float64 numbers of a calibration that are held at once
RIDGE = 1e-5
ALIKE = 1e-3  # of a cell: what places of anchors differ by when they are the same
NEAREST = 1e-3  # of the reach: nearer than that to an anchor, its own expansion holds alone


class PartitionDecoder(nn.Module):
    """(batch, tokens, width) on a lattice or at scattered anchors to fields (batch, queries, channels)."""

    def __init__(self, fields: FieldSpec, latent: LatentSpec, *, modes: int, hidden: int) -> None:
        super().__init__()
        self.fields = fields
        self.modes = modes
        width, coefficients = latent.width, fields.target_channels * modes**fields.space_dims
        self.linear = nn.Linear(width, coefficients)
        self.up = nn.Linear(width, hidden * width) if hidden else None
        self.down = zero(nn.Linear(hidden * width, coefficients)) if hidden else None

    def forward(self, latent: Latent, queries: Queries) -> Tensor:
        if latent.grid is None and latent.anchors is None:
            raise DataError("the decoder 'partition' needs anchored tokens; use 'perceiver' for tokens without a place")
        coefficients = self._coefficients(latent.tokens)
        if latent.grid is not None and queries.grid is not None and self._fits(queries.grid, latent.grid):
            return self._on_grid(coefficients, latent.grid, queries.grid)
        return self._at_points(coefficients, self._pieces(latent, queries))

    @torch.no_grad()
    def calibrate(self, examples: Sequence[Example]) -> None:
        """Set the linear map to the least-squares fit of the examples' values at their queries; the rest is 0.

        A field is linear in the linear map's weights, so the best ones follow from one solve in float64, with a small
        ridge. Where they are too many for that, the map is fitted to the best expansion around each token alone. Each
        channel is fitted to the examples that have it, so that what one lacks is not taken for zeros; padding is left
        out.
        """
        placed = [ex for ex in examples if ex.latent.grid is not None or ex.latent.anchors is not None]
        solvable = [(self._channels(example), self._equations(example)) for example in placed]
        groups: dict[tuple[int, ...], list[int]] = {}  # channels by the examples that have them
        for channel in range(self.fields.target_channels):
            having = tuple(number for number, (channels, _) in enumerate(solvable) if channel in channels)
            if having:
                groups.setdefault(having, []).append(channel)
        for having, channels in groups.items():
            gram, right = summed(of_channels(*solvable[number], channels) for number in having)
            self._solve(gram, right, channels)

    def _channels(self, example: Example) -> Sequence[int]:
        return range(self.fields.target_channels) if example.channels is None else example.channels

    def _equations(self, example: Example) -> Equations:
        if (self.linear.in_features + 1) * self.modes**self.fields.space_dims <= MOST_UNKNOWNS:
            return self._whole_equations(example)
        grid, lattice = example.queries.grid, example.latent.grid
        if grid is not None and lattice is not None and self._fits(grid, lattice):
            return self._local_equations(example)
        return self._token_equations(example)

    def _solve(self, gram: Tensor, right: Tensor, channels: Sequence[int]) -> None:
        """Set the weights of some channels to the ridge solution of their normal equations."""
        gram.diagonal().add_(RIDGE * gram.diagonal().mean())
        solution = torch.linalg.solve(gram, right.flatten(1))
        features, per_channel = self.linear.in_features + 1, self.modes**self.fields.space_dims
        weights = solution.view(features, -1, *right.shape[1:]).permute(2, 1, 3, 0).flatten(1, 2)
        rows = torch.tensor(channels, device=weights.device)
        weights = weights.to(self.linear.weight.dtype)
        self.linear.weight.view(-1, per_channel, features - 1)[rows] = weights[..., :-1]
        self.linear.bias.view(-1, per_channel)[rows] = weights[..., -1]

    def _whole_equations(self, example: Example) -> Equations:
        """Normal equations of the fields at all queries: (unknowns, unknowns) and (unknowns, C, 1).

        Of grids, whole samples; of other points, some of each of more samples.
        """
        values = example.values
        unknowns = (self.linear.in_features + 1) * self.modes**self.fields.space_dims
        budget, points = ROWS_PER_UNKNOWN * unknowns, values.shape[1]
        samples = max(1, min(len(values), budget // points if example.queries.grid is not None else MOST_SAMPLES))
        every = 1 if example.queries.grid is not None else max(1, samples * points // budget)
        together = max(1, ENTRIES_TOGETHER // unknowns)
        gram = values.new_zeros(unknowns, unknowns, dtype=torch.float64)
        right = gram.new_zeros(unknowns, values.shape[2])
        for sample in range(samples):
            tokens = F.pad(example.latent.tokens[sample].double(), (0, 1), value=1.0)
            for part in torch.split(chosen_points(example, sample, every), together):
                rows = tokens.new_zeros(len(part), unknowns)
                for index, basis in self._pieces_of(example, sample, part):
                    rows += (tokens[index].unsqueeze(-1) * basis.unsqueeze(-2)).flatten(1)
                gram += rows.T @ rows
                right += rows.T @ values[sample, part].double()
        return gram, right.unsqueeze(-1)

    def _token_equations(self, example: Example) -> Equations:
        """Normal equations of the best expansion around each anchor, as `_local_equations`, from points anywhere.

        An expansion is fitted to the points in its window, weighted by it; a token counts by its points.
        """
        features, modes = self.linear.in_features + 1, self.modes**self.fields.space_dims
        tokens, points = example.latent.tokens.shape[1], example.values.shape[1]
        samples = max(1, min(len(example.values), ROWS_PER_UNKNOWN * features // tokens))
        every = max(1, points * modes * 2**self.fields.space_dims // ENTRIES_TOGETHER)
        degree = self._squared_orders(example.values.device)
        equations = []
        for sample in range(samples):
            part = chosen_points(example, sample, every)
            pieces = self._pieces_of(example, sample, part)
            wanted, shares = token_fits(pieces, example.values[sample, part].double(), tokens, RIDGE * (1 + degree))
            inputs = F.pad(example.latent.tokens[sample].double(), (0, 1), value=1.0)
            weighted = (inputs * shares.unsqueeze(-1)).T
            equations.append((weighted @ inputs, (weighted @ wanted.flatten(1)).view(features, -1, modes)))
        return summed(equations)

    def _squared_orders(self, device: torch.device) -> Tensor:
        """Σ j² over the axes of each mode of an expansion, (modes^D,)."""
        order = torch.arange(self.modes, device=device, dtype=torch.float64).square()
        total = order.new_zeros(1)
        for _ in range(self.fields.space_dims):
            total = (total.unsqueeze(-1) + order).flatten()
        return total

    def _pieces_of(self, example: Example, sample: int, part: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """The pieces of some queries of one sample, in float64: indices (n,), window times cosines (n, modes^D)."""
        latent = latent_part(example.latent, slice(sample, sample + 1))
        if latent.anchors is not None:
            latent = latent._replace(anchors=latent.anchors.double())
        positions = example.queries.positions[sample : sample + 1, part].double()
        for index, basis in self._pieces(latent, Queries(positions)):
            yield index[0], basis[0]

    def _local_equations(self, example: Example) -> Equations:
        """Normal equations of the best expansion around each anchor: (features, features), (features, C, modes^D).

        A token's expansion minimises the squared error under its own hat function, which splits into one small
        projection along each axis; neighbours that all fit the field also fit it blended.
        """
        latent, queries, values = example[:3]
        assert latent.grid is not None
        assert queries.grid is not None
        wanted = torch.unflatten(values, 1, queries.grid).double()
        for axis, cells in enumerate(latent.grid, start=1):
            points = wanted.shape[axis] // cells
            wanted = self._projected(wanted, axis, points, self.fields.periodic[axis - 1])
        dims = len(latent.grid)
        wanted = wanted.flatten(2 + dims).flatten(1, dims)  # (B, T, C, modes^D)
        inputs = F.pad(latent.tokens.double(), (0, 1), value=1.0).flatten(0, 1)
        right = inputs.T @ wanted.flatten(0, 1).flatten(1)
        return inputs.T @ inputs, right.view(-1, *wanted.shape[2:])

    def _projected(self, values: Tensor, axis: int, points: int, wraps: bool) -> Tensor:
        """Along a grid axis, the cosines of each cell that fit best under its hat: cells there, cosines at the end."""
        local = (torch.arange(3 * points, device=values.device, dtype=torch.float64) + 0.5) / points - 1.5
        hat = (1 - local.abs()).clamp(min=0)
        cells = continued(values, points, axis, wraps).unfold(axis, 3 * points, points)
        wanted = cells @ self._projection(local, hat)
        if not wraps:  # nothing lies beyond the ends, and the end cells' outer halves are theirs alone
            for cell, outward in ((0, -local), (wanted.shape[axis] - 1, local)):
                window = torch.where(outward > 0, 1.0, hat) * (outward < 0.5)
                end = cells.select(axis, cell) @ self._projection(local, window)
                wanted.select(axis, cell).copy_(end)
        return wanted

    def _projection(self, local: Tensor, window: Tensor) -> Tensor:
        """Values at local coordinates to the cosines that fit them best under a window: (points, modes)."""
        cosines = self._cosines(local)
        gram = cosines.T @ (window[:, None] * cosines)
        gram.diagonal().add_(RIDGE * gram.diagonal().mean())
        projection: Tensor = torch.linalg.solve(gram, cosines.T * window).T
        return projection

    def _coefficients(self, tokens: Tensor) -> Tensor:
        """The coefficients that each token emits, (batch, tokens, channels, modes^D)."""
        values = self.linear(tokens)
        if self.up is not None and self.down is not None:
            values = values + self.down(F.gelu(self.up(modulated(tokens, None, None))))
        shaped: Tensor = values.unflatten(-1, (self.fields.target_channels, -1))
        return shaped

    def _fits(self, grid: Sequence[int], lattice: Sequence[int]) -> bool:
        """Whether every cell of the lattice holds the same whole number of grid points, placed alike."""
        return all(size % tokens == 0 for size, tokens in zip(grid, lattice)) and self.fields.offset == 0.5

    # -- all points of a grid: the same small matrix for every token ---------------------------------------------------
    def _on_grid(self, coefficients: Tensor, lattice: Sequence[int], grid: Sequence[int]) -> Tensor:
        patch = [size // tokens for size, tokens in zip(grid, lattice)]
        reach = reduce(torch.kron, [self._axis_matrix(points, coefficients) for points in patch])
        spread = torch.unflatten(coefficients @ reach, 1, tuple(lattice))  # (B, *lattice, C, Π 3·patch)
        dims = len(lattice)
        spread = torch.unflatten(spread, -1, tuple(3 * points for points in patch))
        for axis in range(dims):
            spread = self._overlap_add(spread, 1 + axis, 2 + dims + axis, self.fields.periodic[axis])
        order = [0, *itertools.chain(*((1 + axis, 2 + dims + axis) for axis in range(dims))), 1 + dims]
        return spread.permute(order).reshape(len(coefficients), math.prod(grid), -1)

    def _axis_matrix(self, points: int, like: Tensor) -> Tensor:
        """Window times cosines at the grid points of a token's own and both neighbouring cells: (modes, 3·points)."""
        local = (torch.arange(3 * points, device=like.device, dtype=torch.float64) + 0.5) / points - 1.5
        window = (1 - local.abs()).clamp(min=0)
        return (window * self._cosines(local).T).to(like.dtype)

    @staticmethod
    def _overlap_add(spread: Tensor, cell_axis: int, point_axis: int, wraps: bool) -> Tensor:
        """Add what tokens say about their neighbours' cells."""
        left, own, right = spread.chunk(3, dim=point_axis)
        if wraps:
            return own + shift(left, -1, cell_axis, wraps) + shift(right, 1, cell_axis, wraps)
        # beyond the last anchor its own expansion holds alone: there the hat's missing share is its own
        raise_left, raise_right = _edge_share(own, cell_axis, point_axis)
        inner = own + shift(left, -1, cell_axis, wraps) + shift(right, 1, cell_axis, wraps)
        return inner + raise_left + raise_right

    # -- any points ---------------------------------------------------------------------------------------------------
    def _at_points(self, coefficients: Tensor, pieces: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
        total: Tensor | None = None
        for index, basis in pieces:
            spread = index[..., None, None].expand(len(coefficients), -1, *coefficients.shape[2:])
            part = (coefficients.gather(1, spread) @ basis.to(coefficients.dtype).unsqueeze(-1)).squeeze(-1)
            total = part if total is None else total + part
        assert total is not None
        return total

    def _pieces(self, latent: Latent, queries: Queries) -> Iterator[tuple[Tensor, Tensor]]:
        """What a field is made of, anchor by anchor: its index (B, Q), its window times cosines (B, Q, modes^D).

        B is 1 where all samples share them.
        """
        if latent.grid is not None:
            return self._corners(latent.grid, latent.anchors, queries.positions)
        assert latent.anchors is not None
        shared = queries.grid is not None and latent.anchors.dim() == 2
        return self._windows(latent.anchors, queries.positions[:1] if shared else queries.positions)

    def _windows(self, anchors: Tensor, positions: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """The nearest of scattered anchors."""
        tokens, count = anchors.shape[-2], 2**self.fields.space_dims
        index, local = nearest_anchors(positions, anchors, self.fields, count + 1)
        distance = torch.linalg.vector_norm(local, dim=-1)
        # where there are no more anchors, none ever leaves, and windows only have to be positive
        reach = distance[..., count:] if tokens > count else 2 * distance[..., -1:]
        share = distance[..., :count] / reach.clamp_min(NEAREST**2)
        window = (1 - share).clamp_min(0).square() / (share.square() + NEAREST**2)
        window = window + NEAREST**4  # where so many are equally far that all windows end
        window = window / window.sum(-1, keepdim=True)
        for place in range(window.shape[-1]):
            basis = window[..., place, None]
            for axis in range(self.fields.space_dims):
                cosines = self._cosines(local[..., place, axis])
                basis = (basis.unsqueeze(-1) * cosines.unsqueeze(-2)).flatten(-2)
            yield index[..., place], basis

    def _corners(
        self, lattice: Sequence[int], anchors: Tensor | None, positions: Tensor
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The 2^D anchors around each position: their index (B, Q), and window times cosines there (B, Q, modes^D)."""
        first = None if anchors is None else anchors.reshape(-1, len(lattice))[0]
        sides = []
        for axis, tokens in enumerate(lattice):
            shift_of_nodes = self._shift(axis, tokens, first)
            sides.append(self._axis_sides(positions[..., axis], axis, tokens, shift_of_nodes))
        for corner in itertools.product((0, 1), repeat=len(lattice)):
            index = torch.zeros_like(positions[..., 0], dtype=torch.long)
            basis = torch.ones_like(positions[..., :1], dtype=torch.float64)
            for axis, side in enumerate(corner):
                place, local, weight = sides[axis][side]
                index = index * lattice[axis] + place
                factor = weight.unsqueeze(-1) * self._cosines(local)
                basis = (basis.unsqueeze(-1) * factor.unsqueeze(-2)).flatten(-2)
            yield index, basis

    def _shift(self, axis: int, tokens: int, first: Tensor | None) -> float | Tensor:
        """How far the anchors stand from the centres of their cells, as a share of the axis.

        As in the data that the decoder was made for, unless the first anchor (D,) stands elsewhere: then the fields
        were given on a grid whose points lie elsewhere in their cells.
        """
        own = 0.0
        if self.fields.grid is not None and self.fields.offset != 0.5:
            own = (self.fields.offset - 0.5) / self.fields.grid[axis]
        if first is None:
            return own
        low, high = self.fields.domain[axis]
        seen = (first[axis].double() - low) / (high - low) - 0.5 / tokens
        return torch.where((seen - own).abs() * tokens < ALIKE, own, seen)

    def _axis_sides(
        self, places: Tensor, axis: int, tokens: int, shift_of_nodes: float | Tensor
    ) -> list[tuple[Tensor, Tensor, Tensor]]:
        """The anchors before and after each position: their index, the local coordinate, the weight."""
        low, high = self.fields.domain[axis]
        scaled = ((places.double() - low) / (high - low) - shift_of_nodes) * tokens - 0.5
        if not self.fields.periodic[axis]:
            scaled = scaled.clamp(0, tokens - 1) if tokens > 1 else torch.zeros_like(scaled)
        before = scaled.floor()
        along = scaled - before
        true_local = ((places.double() - low) / (high - low) - shift_of_nodes) * tokens - 0.5 - before
        first, second = before.long(), before.long() + 1
        if self.fields.periodic[axis]:
            first, second = first % tokens, second % tokens
        else:
            second = second.clamp(max=tokens - 1)
        return [(first, true_local, 1 - along), (second, true_local - 1, along)]

    def _cosines(self, local: Tensor) -> Tensor:
        """φ_j at local coordinates: (…, modes)."""
        order = torch.arange(self.modes, device=local.device, dtype=local.dtype)
        return torch.cos(0.5 * math.pi * order * (local.unsqueeze(-1) + 1))


def _edge_share(own: Tensor, cell_axis: int, point_axis: int) -> tuple[Tensor, Tensor]:
    """What an end cell lacks in its outer half, where no neighbour's hat reaches: its own expansion, unwindowed."""
    points = own.shape[point_axis]
    local = (torch.arange(points, device=own.device, dtype=own.dtype) + 0.5) / points - 0.5
    missing = 1 / (1 - local.abs()) - 1
    shape = [1] * own.dim()
    shape[point_axis] = points
    shares = []
    for cell, outer in ((0, local < 0), (own.shape[cell_axis] - 1, local > 0)):
        mask = torch.zeros(own.shape[cell_axis], device=own.device, dtype=own.dtype)
        mask[cell] = 1
        cells = [1] * own.dim()
        cells[cell_axis] = len(mask)
        shares.append(own * (missing * outer).view(shape) * mask.view(cells))
    return shares[0], shares[1]
