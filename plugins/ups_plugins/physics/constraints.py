"""Constraints: what is added to decoded fields so that they keep a law exactly (docs/method.md §1).

All of it is linear in the fields, is computed in float64 and added with one rounding, and gradients pass through it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ups_kit import FieldSpec, Latent, PluginError
from ups_kit.channels import pick, spread
from ups_kit.data.normalisation import Normaliser

PRODUCTS_TOGETHER = 2**22  # numbers that are held at once where a correction is taken between the points of its grid


class Total(nn.Module):
    """The mean of some channels over the grid is the given one: û + (m − mean û).

    m is that of the newest given frame, or a value; as both are normalised alike, it holds in physical units as well.
    """

    values: Tensor
    chosen: Tensor

    def __init__(self, values: Sequence[float] | None, channels: Sequence[int], count: int) -> None:
        super().__init__()
        self.keeps_totals = values is None
        means = [0.0] * count if values is None else list(values)
        self.register_buffer("values", torch.tensor(means, dtype=torch.float64), persistent=False)
        chosen = torch.tensor([channel in channels for channel in range(count)])
        self.register_buffer("chosen", chosen, persistent=False)

    @classmethod
    def of(cls, fields: FieldSpec, channels: Sequence[int], value: float | None, normaliser: Normaliser) -> Total:
        """The constraint of these channels, of a value in physical units."""
        maps = zip(normaliser.target_mean, normaliser.target_std, strict=True)
        values = None if value is None else [(value - mean) / std for mean, std in maps]
        return cls(values, channels, fields.target_channels)

    def correction(self, values: Tensor, latent: Latent) -> Tensor:
        """One number for each sample and channel, (B, 1, C)."""
        if self.keeps_totals and latent.totals is None:
            raise PluginError("a total is to be kept, and this latent was not made by encoding a frame")
        wanted = latent.totals if self.keeps_totals else self.values
        assert wanted is not None
        missing = wanted - values.mean(1, dtype=torch.float64)
        return torch.where(self.chosen, missing, 0.0)[:, None]

    def elsewhere(self, correction: Tensor, positions: Tensor) -> Tensor:
        """The same number everywhere."""
        return correction


class DivergenceFree(nn.Module):
    """Helmholtz' projection of a vector field u on a periodic grid: û(k) − k (k·û(k)) / |k|².

    û are Fourier coefficients in physical units and k = 2πm/L wave numbers in real lengths, so that neither fields of
    different deviations nor domains of different sides matter. What is left is the field without divergence that is
    nearest to u in mean square; its mean is that of u. A wave of two points has no derivative on the grid: it counts
    as k = 0 along its axis. Between the points of the grid what is added is its trigonometric interpolation.
    """

    unit: Tensor
    deviations: Tensor

    def __init__(self, fields: FieldSpec, channels: Sequence[int], normaliser: Normaliser) -> None:
        super().__init__()
        assert fields.grid is not None
        self.keeps_totals = False
        self.grid, self.channels, self.count = fields.grid, tuple(channels), fields.target_channels
        deviations = torch.tensor([normaliser.target_std[channel] for channel in channels], dtype=torch.float64)
        self.register_buffer("deviations", deviations, persistent=False)
        self.register_buffer("unit", _unit_waves(fields.grid, fields.extent), persistent=False)
        self.starts = [
            low + fields.offset * length / size
            for (low, _), length, size in zip(fields.domain, fields.extent, fields.grid, strict=True)
        ]
        self.extent = fields.extent
        for axis, size in enumerate(fields.grid):
            self.register_buffer(f"series{axis}", _series(size), persistent=False)

    def correction(self, values: Tensor, latent: Latent) -> Tensor:
        """What takes the divergence away, (B, N, C), zero in other channels."""
        axes = tuple(range(1, 1 + len(self.grid)))
        own = pick(values, self.channels).double() * self.deviations
        modes = torch.fft.rfftn(own.reshape(own.shape[0], *self.grid, -1), dim=axes)
        along = (modes * self.unit).sum(-1, keepdim=True) * self.unit
        found = torch.fft.irfftn(along, s=self.grid, dim=axes).flatten(1, -2)
        return spread(-found / self.deviations, self.channels, self.count)

    def elsewhere(self, correction: Tensor, positions: Tensor) -> Tensor:
        """The trigonometric interpolation (B, Q, C) of what is added on the grid."""
        own = pick(correction, self.channels).reshape(correction.shape[0], *self.grid, -1)
        if torch.compiler.is_compiling():  # a graph takes any number of queries, and cannot count them
            return spread(self._between(own, positions.double()), self.channels, self.count)
        rest = math.prod(self.grid[1:]) * len(self.channels) + sum(self.grid)
        together = max(1, PRODUCTS_TOGETHER // (own.shape[0] * rest))
        parts = [self._between(own, part) for part in torch.split(positions.double(), together, dim=1)]
        return spread(torch.cat(parts, 1), self.channels, self.count)

    def _between(self, values: Tensor, positions: Tensor) -> Tensor:
        """Values (B, *grid, D) at positions (B, Q, D), axis by axis: (B, Q, D)."""
        found = self._weights(positions, 0) @ values.flatten(2)
        for axis in range(1, len(self.grid)):
            lines = found.reshape(*found.shape[:2], self.grid[axis], -1)
            found = torch.einsum("bqn,bqnr->bqr", self._weights(positions, axis), lines)
        return found

    def _weights(self, positions: Tensor, axis: int) -> Tensor:
        """How much each point along an axis counts at positions (B, Q, D), (B, Q, points)."""
        series: Tensor = getattr(self, f"series{axis}")
        phase = (positions[..., axis] - self.starts[axis]) * (2 * math.pi / self.extent[axis])
        waves = phase[..., None] * torch.arange(series.shape[0] // 2, device=phase.device, dtype=phase.dtype)
        return torch.cat([waves.cos(), waves.sin()], -1) @ series


def _unit_waves(grid: Sequence[int], extent: Sequence[float]) -> Tensor:
    """k / |k| of every mode of a real transform, (*modes, D), float64; zero where k is."""
    numbers = [torch.fft.fftfreq(size, 1 / size, dtype=torch.float64) for size in grid[:-1]]
    numbers.append(torch.arange(grid[-1] // 2 + 1, dtype=torch.float64))
    axes = [
        torch.where(2 * number.abs() == size, 0.0, number / length)
        for number, size, length in zip(numbers, grid, extent, strict=True)
    ]
    waves = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)
    length = waves.square().sum(-1, keepdim=True).sqrt()
    return torch.where(length > 0, waves / length, 0.0)


def _series(size: int) -> Tensor:
    """From cos mφ and sin mφ, m = 0, 1, … ⌊size / 2⌋, to the weight of each of so many points, float64.

    The weight of the point φ_n = 2πn/size is Σ_m w_m cos m(φ − φ_n) / size, w_m = 2 but for w_0 = 1 and, where size is
    even, w_(size/2) = 1.
    """
    orders = torch.arange(size // 2 + 1, dtype=torch.float64)
    single = (orders == 0) | (2 * orders == size)
    weight = torch.where(single, 1.0, 2.0).double()[:, None] / size
    turned = (orders[:, None] * torch.arange(size)) % size * (2 * math.pi / size)
    return torch.cat([weight * turned.cos(), weight * turned.sin()])
