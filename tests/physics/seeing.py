"""Predictions that are known fields, as a loss sees them: an `interfaces.ForwardPass` without a model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from attrs import define
from torch import Tensor

from ups_kit import Batch, Field, FieldSpec, Latent, PointSet, Progress, Queries
from ups_kit.interfaces import Decoded
from ups_kit.weighting import Weighted

START = Progress(step=0, epoch=0.0, fraction=0.0)


@define(eq=False)
class Seen:
    """Predictions and truths of steps 0 … K in physical units, (B, 1 + K, N, C), seen through a normalisation."""

    prediction: Tensor
    batch: Batch
    mean: Tensor
    std: Tensor
    tokens: Tensor | None = None
    progress: Progress = START

    def decoded(self, step: int) -> Decoded:
        values = (self.prediction[:, step] - self.mean) / self.std
        places = Queries(self.batch.places(step), self.batch.grid)
        return Decoded(values, self.batch.states[:, step], places, self.batch.mask)

    def physical(self, values: Tensor) -> Tensor:
        return values * self.std.to(values.dtype) + self.mean.to(values.dtype)

    def latent(self, step: int) -> Latent:
        assert self.tokens is not None
        return Latent(self.tokens, None)


def cell_centres(grid: Sequence[int], domain: Sequence[tuple[float, float]], offset: float = 0.5) -> Tensor:
    """The points of a grid, (N, D)."""
    axes = [
        low + (torch.arange(count, dtype=torch.float64) + offset) * (high - low) / count
        for count, (low, high) in zip(grid, domain, strict=True)
    ]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, -2)


def spec(grid: tuple[int, ...] | None = (16, 16), periodic: bool | tuple[bool, ...] = True, **keys: Any) -> FieldSpec:
    """A velocity and a density on a grid, or on points, of the box 2 × 1 (or a part of it)."""
    dims = keys.pop("dims", 2 if grid is None else len(grid))
    wraps = (periodic,) * dims if isinstance(periodic, bool) else periodic
    keys = {
        "targets": (Field("velocity", dims, "m/s"), Field("density", 1, "kg/m3")),
        "domain": ((0.0, 2.0), (0.0, 1.0), (0.0, 1.0))[:dims],
        "layout": "mesh" if grid is None else "grid",
        "dt": 0.1,
        **keys,
    }
    return FieldSpec(grid=grid, periodic=wraps, **keys)


def look(
    fields: FieldSpec,
    prediction: Tensor,
    truth: Tensor | None = None,
    *,
    places: Tensor | None = None,
    mask: Tensor | None = None,
    statics: Tensor | None = None,
    std: Sequence[float] | None = None,
    mean: Sequence[float] | None = None,
) -> Seen:
    """Physical predictions (B, frames, N, C) beside truths, at the grid's points or at places (B, N, D)."""
    truth = prediction if truth is None else truth
    size, _, _, channels = prediction.shape
    if places is None:
        assert fields.grid is not None
        places = cell_centres(fields.grid, fields.domain, fields.offset).expand(size, -1, -1)
    places = places.to(prediction.dtype)
    scale = torch.tensor(std if std is not None else [1.0] * channels, dtype=prediction.dtype)
    shift = torch.tensor(mean if mean is not None else [0.0] * channels, dtype=prediction.dtype)
    states = (truth - shift) / scale
    values = states[:, 0] if statics is None else torch.cat([states[:, 0], statics.to(states)], -1)
    zeros = torch.zeros(size)
    inputs = PointSet(places, values, mask, fields.grid)
    batch = Batch(inputs, states, places, fields.grid, torch.zeros(size, 1), zeros.long(), zeros, mask=mask)
    return Seen(prediction, batch, shift, scale)


def value(config: Weighted, fields: FieldSpec, seen: Seen) -> float:
    """The raw loss of a config on known fields."""
    return float(config.build(fields)(seen))  # type: ignore[attr-defined]


def waves(places: Tensor) -> tuple[Tensor, Tensor]:
    """sin and cos of one period over the box 2 × 1 along each axis, (…, D) each."""
    phase = places * torch.tensor([math.pi, 2 * math.pi, 2 * math.pi][: places.shape[-1]], dtype=places.dtype)
    return phase.sin(), phase.cos()
