"""A model whose decoder is a smooth function of place, on grids of any shape, with constraints."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from ups_kit import Field, FieldSpec, Latent, PointSet, Queries
from ups_kit.constraining import Constraining
from ups_kit.data.discretisations import grid_axes, grid_points
from ups_kit.data.normalisation import Normaliser
from ups_kit.interfaces import ConstraintConfig
from ups_kit.model import LatentModel


class Reading(nn.Module):
    """A token of three numbers, made of all that is given."""

    def forward(self, points: PointSet) -> Latent:
        values = points.values
        numbers = [values.mean((1, 2)), values.square().mean((1, 2)), values.abs().amax((1, 2))]
        return Latent(torch.stack(numbers, -1)[:, None], None)


class Turning(nn.Module):
    """Another token, made anew: whatever else a latent has is not handed on."""

    def forward(self, latent: Latent, condition: Tensor) -> Latent:
        return Latent(torch.cos(latent.tokens * 1.3) + 0.1, None)


class Waving(nn.Module):
    """Waves along every axis whose phases are the token's, on a mean that is its as well."""

    def __init__(self, fields: FieldSpec) -> None:
        super().__init__()
        self.extent = fields.extent
        self.strength = nn.Parameter(torch.linspace(0.5, 1.5, fields.target_channels))

    def forward(self, latent: Latent, queries: Queries) -> Tensor:
        token = latent.tokens[:, 0]
        value = torch.zeros_like(queries.positions[..., 0])
        for axis, length in enumerate(self.extent):
            place = 2 * math.pi * queries.positions[..., axis] / length
            wave = torch.exp(torch.cos(2 * place - token[:, 1:2] + value))
            value = value + torch.sin(place + 2 * token[:, :1]) * wave
        shift = torch.arange(len(self.strength), dtype=value.dtype)
        return self.strength * torch.sin(value[..., None] + shift) + token[:, 2:, None]


def spec(grid: Sequence[int], targets: Sequence[Field], lengths: Sequence[float] | None = None) -> FieldSpec:
    """Periodic grids of nodes, their domains beginning elsewhere than at zero."""
    lengths = (1.0,) * len(grid) if lengths is None else lengths
    domain = tuple((0.25 * axis - 0.5, 0.25 * axis - 0.5 + length) for axis, length in enumerate(lengths))
    return FieldSpec(tuple(targets), domain, (True,) * len(grid), "grid", tuple(grid), 0.1, offset=0.0)


def linear(means: Sequence[float], deviations: Sequence[float]) -> Normaliser:
    return Normaliser(tuple(means), tuple(deviations), (0.0,), (1.0,), (False,))


def places(fields: FieldSpec, samples: int, grid: Sequence[int] | None = None) -> Tensor:
    axes = grid_axes(fields.domain, grid or fields.grid or (), fields.offset)
    return torch.from_numpy(grid_points(axes)).expand(samples, -1, -1)


def constrained(fields: FieldSpec, normaliser: Normaliser, *configs: ConstraintConfig) -> LatentModel:
    constraints = [config.build(fields, normaliser) for config in configs]
    constraining = Constraining(constraints, fields) if constraints else None
    torch.manual_seed(0)
    return LatentModel(Reading(), Turning(), Waving(fields), fields, normaliser, constraints=constraining)


def frame(fields: FieldSpec, samples: int, seed: int = 0) -> PointSet:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(samples, fields.points or 0, fields.input_channels, generator=generator)
    return PointSet(places(fields, samples).float(), values, grid=fields.grid)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
