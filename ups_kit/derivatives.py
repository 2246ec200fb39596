"""Derivatives in space of fields at points, with gradient: on grids and on any points. Public.

A derivative takes values (B, N, C) and an axis and gives ∂_axis of each channel at the same points, (B, N, C), in the
values' unit over the domain's own unit of length. Points of a grid are in row-major order.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple, Protocol

import torch
from attrs import field, frozen
from torch import Tensor

from .neighbours import neighbour_table
from .neighbours.cache import BYTES, TableCache, content_key
from .pooling import gathered

STENCIL = {1: 6, 2: 12, 3: 24}  # neighbours of a point by space dimensions: more than twice the unknowns of its fit
CURVED = 1e-3  # of a fit's mean squares: the penalty on second derivatives, which leaves linear fields exact
NEAR = 0.1  # of a stencil's squared reach: neighbours that are nearer count alike, or rounding would count with them
SINGULAR = 1e-12  # as CURVED, on first derivatives: points on one line have none across it


class Derivative(Protocol):
    """∂_axis of values (B, N, C) at their own points, (B, N, C)."""

    def __call__(self, values: Tensor, axis: int) -> Tensor: ...


def divergence(values: Tensor, derivative: Derivative) -> Tensor:
    """Σ_i ∂_i u_i of a vector field (B, N, D), (B, N, 1)."""
    return torch.stack([derivative(values[..., axis : axis + 1], axis) for axis in range(values.shape[-1])]).sum(0)


def squared_gradient(values: Tensor, derivative: Derivative, dims: int) -> Tensor:
    """Σ_ij (∂_j u_i)² of fields (B, N, C), (B, N, 1)."""
    every = [derivative(values, axis).square().sum(-1, keepdim=True) for axis in range(dims)]
    return torch.stack(every).sum(0)


# ---------------------------------------------------------------------------------------------------------------------
# On grids
# ---------------------------------------------------------------------------------------------------------------------
@frozen
class GridDerivative:
    """Derivatives on a regular grid: `spectral`, which needs a periodic axis, or finite differences."""

    grid: tuple[int, ...]
    extent: tuple[float, ...]
    periodic: tuple[bool, ...]
    spectral: bool

    def __call__(self, values: Tensor, axis: int) -> Tensor:
        on_grid = values.reshape(len(values), *self.grid, -1)
        if self.spectral:
            found = spectral_derivative(on_grid, axis + 1, self.extent[axis])
        else:
            spacing = self.extent[axis] / self.grid[axis]
            found = central_difference(on_grid, axis + 1, spacing, self.periodic[axis])
        return found.reshape(values.shape)


def spectral_derivative(values: Tensor, axis: int, length: float) -> Tensor:
    """∂ along an axis (a dimension of the tensor) on which the field has the period `length`, by its Fourier series.

    Exact where the grid carries the field; the highest wave of an even number of points has no derivative.
    """
    points = values.shape[axis]
    numbers = torch.arange(points // 2 + 1, device=values.device, dtype=values.dtype)
    if points % 2 == 0:
        numbers[-1] = 0
    shape = [1] * values.dim()
    shape[axis] = len(numbers)
    waves = (2j * math.pi / length) * numbers.view(shape)
    found: Tensor = torch.fft.irfft(waves * torch.fft.rfft(values, dim=axis), n=points, dim=axis)
    return found


def central_difference(values: Tensor, axis: int, spacing: float, periodic: bool) -> Tensor:
    """∂ along an axis (a dimension of the tensor) to second order: central; one-sided by three points at open ends."""
    if periodic:
        return (values.roll(-1, axis) - values.roll(1, axis)) / (2 * spacing)
    last = values.shape[axis] - 1
    inside = (values.narrow(axis, 2, last - 1) - values.narrow(axis, 0, last - 1)) / 2
    ends = [
        sign * (-1.5 * values.narrow(axis, at, 1) + 2 * values.narrow(axis, by, 1) - 0.5 * values.narrow(axis, to, 1))
        for sign, at, by, to in ((1, 0, 1, 2), (-1, last, last - 1, last - 2))
    ]
    return torch.cat([ends[0], inside, ends[1]], axis) / spacing


# ---------------------------------------------------------------------------------------------------------------------
# On any points
# ---------------------------------------------------------------------------------------------------------------------
class Stencil(NamedTuple):
    """How the derivatives at n points follow from differences to their neighbours."""

    neighbours: Tensor  # (n, K), int64
    weights: Tensor  # (n, D, K)

    @property
    def nbytes(self) -> int:
        return self.neighbours.nbytes + self.weights.nbytes


@frozen(eq=False)
class PointDerivative:
    """Derivatives at points: ∂_i u(x_n) = Σ_k w_ik (u_k − u_n) over neighbours k."""

    neighbours: Tensor  # (B, N, K)
    weights: Tensor  # (B, N, D, K)

    def __call__(self, values: Tensor, axis: int) -> Tensor:
        beside = gathered(values, self.neighbours) - values.unsqueeze(2)
        weights = self.weights[:, :, axis].to(values.dtype)
        found: Tensor = (weights.unsqueeze(2) @ beside).squeeze(2)
        return found


@frozen(eq=False)
class Stencils:
    """The derivatives of fields at points that may differ between samples.

    Around each point a quadratic polynomial is fitted to the differences to its `neighbours` nearest points, weighted
    by about their inverse squared distance, with a small penalty on second derivatives; its first derivatives are the
    result (weighted least squares; Lancaster and Salkauskas, Math. Comp. 37, 1981). Linear fields are exact on any
    points that do not lie on one line or plane, others to second order where points are spread about evenly. Padding
    is never a neighbour. On the CPU stencils are kept by the content of the positions, up to `cache.budget` bytes.
    """

    domain: tuple[tuple[float, float], ...]
    periodic: tuple[bool, ...]
    neighbours: int
    cache: TableCache[Stencil] = field(factory=lambda: TableCache(BYTES), repr=False)

    def __call__(self, positions: Tensor, mask: Tensor | None) -> PointDerivative:
        """Derivatives at (B, N, D), of those points whose mask (B, N) is true; elsewhere they are zero."""
        batch, points, dims = positions.shape
        degree = min(self.neighbours, max(points - 1, 1))
        index = torch.zeros(batch, points, degree, dtype=torch.int64, device=positions.device)
        weights = torch.zeros(batch, points, dims, degree, device=positions.device)
        for sample in range(batch):
            real = None if mask is None or bool(mask[sample].all()) else mask[sample].nonzero().squeeze(1)
            found = self._stencil(positions[sample] if real is None else positions[sample, real])
            rows = slice(None) if real is None else real
            width = found.neighbours.shape[1]
            index[sample, rows, :width] = found.neighbours if real is None else real[found.neighbours]
            weights[sample, rows, :, :width] = found.weights
        return PointDerivative(index, weights)

    def _stencil(self, positions: Tensor) -> Stencil:
        """The stencil of real points (n, D), kept from before or made now."""
        if positions.device.type != "cpu":
            return self._make(positions)
        key = content_key(positions)
        found = self.cache.find(key)
        if found is None:
            found = self._make(positions)
            self.cache.keep(key, found)
        return found

    def _make(self, positions: Tensor) -> Stencil:
        degree = min(self.neighbours, max(len(positions) - 1, 1))
        places = positions[None]
        table = neighbour_table(
            places, places, radius=None, most=degree + 1, domain=self.domain, periodic=self.periodic
        )
        own = torch.arange(len(positions), device=positions.device).unsqueeze(1)
        heard = table.mask[0] & (table.neighbours[0] != own)
        order = heard.long().argsort(dim=1, descending=True, stable=True)[:, :degree]  # the point itself goes last
        index, kept = table.neighbours[0].gather(1, order), heard.gather(1, order)
        return Stencil(index, fit_weights(self._offsets(positions.double(), index), kept).float())

    def _offsets(self, positions: Tensor, index: Tensor) -> Tensor:
        """Places of neighbours (n, K) relative to their points (n, D), of the nearest image: (n, K, D)."""
        offsets = positions[index] - positions.unsqueeze(1)
        lengths = offsets.new_tensor([high - low for low, high in self.domain])
        wraps = torch.tensor(self.periodic, device=offsets.device)
        return offsets - lengths * torch.round(offsets / lengths) * wraps


def fit_weights(offsets: Tensor, mask: Tensor) -> Tensor:
    """Weights (n, D, K) that give first derivatives from differences to neighbours at offsets (n, K, D), float64."""
    dims = offsets.shape[-1]
    squared = offsets.square().sum(-1)
    kept = mask & (squared > 0)
    reach = squared.masked_fill(~kept, 0).amax(1).sqrt()[:, None, None]
    reach = reach.where(reach > 0, torch.ones_like(reach))
    places = offsets / reach
    closeness = kept / (places.square().sum(-1) + NEAR)
    pairs = list(itertools.combinations_with_replacement(range(dims), 2))
    curved = torch.stack([places[..., i] * places[..., j] for i, j in pairs], -1)
    basis = torch.cat([places, curved], -1)
    shares = (basis * closeness.unsqueeze(-1)).transpose(1, 2)
    gram = shares @ basis
    size = gram.diagonal(dim1=1, dim2=2).mean(1).clamp_min(SINGULAR)
    penalty = gram.new_tensor([SINGULAR] * dims + [CURVED] * len(pairs))
    gram = gram + torch.diag(penalty) * size[:, None, None]
    solved: Tensor = torch.linalg.solve(gram, shares)
    return solved[:, :dims] / reach
